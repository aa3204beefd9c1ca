"""tiny-sd1: SD 1.5's block list, a few channels wide, random weights, < 2 MB."""
import json
from pathlib import Path

from diffusers import AutoencoderKL, UNet2DConditionModel
from transformers import CLIPTextConfig, CLIPTextModel

import bpe
from weights import fill

WIDTH = 40                # of the text encoder, so of the cross-attention

UNET = dict(
    sample_size=8, in_channels=4, out_channels=4, layers_per_block=2,
    block_out_channels=(16, 24, 32, 32), norm_num_groups=8,
    down_block_types=("CrossAttnDownBlock2D",) * 3 + ("DownBlock2D",),
    up_block_types=("UpBlock2D",) + ("CrossAttnUpBlock2D",) * 3,
    cross_attention_dim=WIDTH,
    attention_head_dim=4)  # in SD 1.x: the number of heads, so 4, 6, 8, 8 channels each

VAE = dict(
    sample_size=64, in_channels=3, out_channels=3, latent_channels=4, layers_per_block=2,
    block_out_channels=(8, 16, 16, 16), norm_num_groups=4,
    down_block_types=("DownEncoderBlock2D",) * 4, up_block_types=("UpDecoderBlock2D",) * 4,
    scaling_factor=0.18215)

# SD 1.5's own ids: they name no token of this vocabulary and must not matter.
TEXT = dict(
    hidden_size=WIDTH, intermediate_size=96, num_hidden_layers=3, num_attention_heads=5,
    max_position_embeddings=77, hidden_act="gelu", projection_dim=WIDTH,
    bos_token_id=0, eos_token_id=2, pad_token_id=1)

# As in SD 1.5's repository: timestep_spacing is absent, so every sampler uses its own.
SCHEDULER = {
    "_class_name": "PNDMScheduler", "_diffusers_version": "0.6.0",
    "beta_end": 0.012, "beta_schedule": "scaled_linear", "beta_start": 0.00085,
    "num_train_timesteps": 1000, "set_alpha_to_one": False, "skip_prk_steps": True,
    "steps_offset": 1, "trained_betas": None, "clip_sample": False}

SCHEDULER_V = {
    "_class_name": "DDIMScheduler", "_diffusers_version": "0.31.0",
    "beta_end": 0.012, "beta_schedule": "scaled_linear", "beta_start": 0.00085,
    "clip_sample": False, "num_train_timesteps": 1000, "prediction_type": "v_prediction",
    "rescale_betas_zero_snr": False, "set_alpha_to_one": False, "steps_offset": 1,
    "timestep_spacing": "trailing", "trained_betas": None}

INDEX = {
    "_class_name": "StableDiffusionPipeline", "_diffusers_version": "0.31.0",
    "feature_extractor": [None, None], "image_encoder": [None, None],
    "requires_safety_checker": False, "safety_checker": [None, None],
    "scheduler": ["diffusers", "PNDMScheduler"],
    "text_encoder": ["transformers", "CLIPTextModel"],
    "tokenizer": ["transformers", "CLIPTokenizer"],
    "unet": ["diffusers", "UNet2DConditionModel"],
    "vae": ["diffusers", "AutoencoderKL"]}


def dump(path, value):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value, indent=2) + "\n")


def write(folder, vocab_size=1000):
    """The whole model under folder/model and the second scheduler beside it."""
    folder = Path(folder)
    model = folder / "model"
    bpe.write(model / "tokenizer", vocab_size)
    text = CLIPTextModel(CLIPTextConfig(vocab_size=vocab_size, **TEXT))
    # The prompt must steer the UNet, and one call must not amplify rounding errors
    # much: twenty steps with guidance multiply whatever it does.
    unet = fill(UNet2DConditionModel(**UNET), 2,
                {"attn2.to_out.0.weight": 2.0, "conv_out.weight": 1.5})
    vae = fill(AutoencoderKL(**VAE), 3, {"decoder.conv_out.weight": 0.5})
    fill(text, 1).half().save_pretrained(model / "text_encoder")
    unet.half().save_pretrained(model / "unet")
    vae.half().save_pretrained(model / "vae")
    dump(model / "scheduler" / "scheduler_config.json", SCHEDULER)
    dump(model / "model_index.json", INDEX)
    dump(folder / "scheduler_v" / "scheduler_config.json", SCHEDULER_V)
