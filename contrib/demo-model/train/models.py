"""The demo model's parts and its noise schedule."""
from diffusers import AutoencoderKL, UNet2DConditionModel
from transformers import CLIPTextConfig, CLIPTextModel

import render

WIDTH = 128                 # of the text encoder, so of the cross-attention

NOISE = dict(num_train_timesteps=1000, beta_start=.00085, beta_end=.012,
             beta_schedule="scaled_linear")


def vae():
    # 8 norm groups, not 32: with 32 channels, 32 groups are instance norm right before
    # conv_out, which erases absolute colour. SD 1.5 has 4 channels a group there as well.
    return AutoencoderKL(
        in_channels=3, out_channels=3, latent_channels=4, sample_size=render.SIZE,
        down_block_types=("DownEncoderBlock2D",) * 4, up_block_types=("UpDecoderBlock2D",) * 4,
        block_out_channels=(32, 32, 64, 64), layers_per_block=1, norm_num_groups=8,
        act_fn="silu")


def text_encoder(tokenizer):
    return CLIPTextModel(CLIPTextConfig(
        vocab_size=len(tokenizer), hidden_size=WIDTH, intermediate_size=4 * WIDTH,
        num_hidden_layers=3, num_attention_heads=4, max_position_embeddings=77,
        hidden_act="quick_gelu", projection_dim=WIDTH, bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id, pad_token_id=tokenizer.pad_token_id))


def unet():
    return UNet2DConditionModel(
        sample_size=render.SIZE // 8, in_channels=4, out_channels=4, layers_per_block=1,
        block_out_channels=(64, 96, 128),
        down_block_types=("CrossAttnDownBlock2D", "CrossAttnDownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "CrossAttnUpBlock2D", "CrossAttnUpBlock2D"),
        cross_attention_dim=WIDTH,
        attention_head_dim=2)           # in SD 1.x configs: the number of heads
