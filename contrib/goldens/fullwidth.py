"""SD 1.5 at its real width with random weights: 2 GB, for tests of the real shapes.

    python contrib/goldens/fullwidth.py OUTDIR [--threads N]

OUTDIR gets model/ (a diffusers folder: UNet, VAE decoder and encoder, a two-layer text encoder
that is 768 wide, tiny-sd1's tokenizer and scheduler), stages.safetensors and cases.json in the
manner of tests/golden. The references are computed in fp32 from the fp16 weights; a few minutes
and 8 GB of memory.
"""
import argparse
import gc
import json
import time
from pathlib import Path

import tokens                                   # first: it hides ftfy

import diffusers
import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from safetensors.torch import save_file
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

import bpe
import tiny
from stages import Capture, seeded
from weights import fill

UNET = dict(
    sample_size=64, in_channels=4, out_channels=4, layers_per_block=2,
    block_out_channels=(320, 640, 1280, 1280), norm_num_groups=32,
    down_block_types=tiny.UNET["down_block_types"], up_block_types=tiny.UNET["up_block_types"],
    cross_attention_dim=768, attention_head_dim=8)
VAE = dict(
    sample_size=512, in_channels=3, out_channels=3, latent_channels=4, layers_per_block=2,
    block_out_channels=(128, 256, 512, 512), norm_num_groups=32,
    down_block_types=tiny.VAE["down_block_types"], up_block_types=tiny.VAE["up_block_types"],
    scaling_factor=0.18215)
TEXT = dict(
    hidden_size=768, intermediate_size=3072, num_hidden_layers=2, num_attention_heads=12,
    max_position_embeddings=77, hidden_act="quick_gelu", projection_dim=768,
    bos_token_id=0, eos_token_id=2, pad_token_id=1)
VOCABULARY = 1000
PROMPTS = ["", "a castle in the mountains at sunset, oil on canvas"]
TIMESTEP = 500
STRIDE = 8                                      # of the kept pixels and rows

# The residual branches of a deep random network add up; small gains where a branch joins
# the trunk keep it near its input's size, as training does.
UNET_GAIN = {"conv2.weight": 0.5, "to_out.0.weight": 0.5, "ff.net.2.weight": 0.5}
VAE_GAIN = {"conv2.weight": 0.5, "decoder.conv_out.weight": 0.5}
# One tensor of each kind of place, thinned out to every STRIDE-th row and column.
UNET_PARTS = r"(down|up)_blocks\.\d+|mid_block"
VAE_PARTS = r"decoder\.(conv_in|mid_block|up_blocks\.\d+)"


def thin(x, stride=STRIDE):
    return x[..., ::stride, ::stride].contiguous()


def build(folder, seed, module, gain):
    """Fill, save as fp16 and give back in fp32; only one model is in memory at a time."""
    fill(module, seed, gain).half().save_pretrained(folder)
    return module.float()


def outputs(captured):
    """Of the blocks, thinned where they are large; a block of several outputs keeps its first."""
    return {k: thin(v, STRIDE if v.shape[-1] >= 64 else 1) for k, v in captured.items()}


def text(model, out):
    bpe.write(model / "tokenizer", VOCABULARY)
    encoder = build(model / "text_encoder", 11,
                    CLIPTextModel(CLIPTextConfig(vocab_size=VOCABULARY, **TEXT)), {})
    ids = CLIPTokenizer.from_pretrained(model / "tokenizer")(
        PROMPTS, padding="max_length", max_length=77, return_tensors="pt").input_ids
    out["text.ids"] = ids.int()
    out["text.last_hidden_state"] = encoder(ids).last_hidden_state
    return {"prompts": PROMPTS, "ids": "text.ids",
            "last_hidden_state": "text.last_hidden_state"}


def unet(model, out):
    net = build(model / "unet", 12, UNet2DConditionModel(**UNET), UNET_GAIN)
    captured = {}
    out["unet.sample"] = seeded(300, 1, 4, 64, 64)
    with Capture(net, "unet.", UNET_PARTS, captured):
        y = net(out["unet.sample"], TIMESTEP, out["text.last_hidden_state"][1:]).sample
    out["unet.output"] = y
    out.update(outputs(captured))
    return {"sample": "unet.sample", "context": "text.last_hidden_state", "context_rows": [1],
            "timestep": TIMESTEP, "output": "unet.output", "stages": "unet.",
            "stages_stride": STRIDE, "stages_stride_from": 64}


def vae(model, out):
    net = build(model / "vae", 13, AutoencoderKL(**VAE), VAE_GAIN)
    captured = {}
    out["vae.latents"] = seeded(301, 1, 4, 64, 64) / net.config.scaling_factor
    with Capture(net, "vae.", VAE_PARTS, captured):
        y = net.decode(out["vae.latents"]).sample
    out["vae.output"] = thin(y)
    out.update(outputs(captured))
    return {"latents": "vae.latents", "output": "vae.output", "output_stride": STRIDE,
            "height": y.shape[2], "width": y.shape[3], "stages": "vae.decoder.",
            "stages_stride": STRIDE, "stages_stride_from": 64}


def main():
    ap = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    ap.add_argument("outdir")
    ap.add_argument("--threads", type=int, default=2)
    a = ap.parse_args()
    torch.set_num_threads(a.threads)
    torch.set_grad_enabled(False)
    diffusers.logging.disable_progress_bar()
    folder, out, cases = Path(a.outdir), {}, {"name": "fullwidth", "model": "model"}
    model = folder / "model"
    tiny.dump(model / "scheduler" / "scheduler_config.json", tiny.SCHEDULER)
    tiny.dump(model / "model_index.json", tiny.INDEX)
    for stage in (text, unet, vae):
        start = time.monotonic()
        cases[stage.__name__] = stage(model, out)
        gc.collect()
        print(f"{stage.__name__}: {time.monotonic() - start:.0f} s", flush=True)
    for k, v in out.items():
        assert v.isfinite().all(), k
        print(f"{k} {tuple(v.shape)} std {v.float().std():.3g}")
    save_file({k: v.contiguous().clone() for k, v in out.items()}, folder / "stages.safetensors")
    (folder / "cases.json").write_text(json.dumps(cases, indent=1) + "\n")
    for p in folder.rglob("*.safetensors"):
        p.chmod(0o644)


if __name__ == "__main__":
    main()
