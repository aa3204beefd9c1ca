"""6. Write the averaged weights of train_unet.py as a diffusers model, fp16.

    python export.py --ckpt unet.pt --model ../model
"""
import argparse
import json
from pathlib import Path

import torch
from diffusers import DDIMScheduler
from transformers import CLIPTokenizer

import models
from common import load

INDEX = {
    "_class_name": "StableDiffusionPipeline", "_diffusers_version": "0.31.0",
    "feature_extractor": [None, None], "image_encoder": [None, None],
    "requires_safety_checker": False, "safety_checker": [None, None],
    "scheduler": ["diffusers", "DDIMScheduler"],
    "text_encoder": ["transformers", "CLIPTextModel"],
    "tokenizer": ["transformers", "CLIPTokenizer"],
    "unet": ["diffusers", "UNet2DConditionModel"], "vae": ["diffusers", "AutoencoderKL"]}


def main():
    ap = argparse.ArgumentParser()
    ap.add_argument("--ckpt", required=True)
    ap.add_argument("--model", required=True)
    a = ap.parse_args()
    out = Path(a.model)
    text = models.text_encoder(CLIPTokenizer.from_pretrained(out / "tokenizer"))
    unet, state = models.unet(), load(a.ckpt)
    with torch.no_grad():
        for p, average in zip([*text.parameters(), *unet.parameters()], state["ema"]):
            p.copy_(average)
    text.half().save_pretrained(out / "text_encoder")
    unet.half().save_pretrained(out / "unet")
    DDIMScheduler(**models.NOISE, clip_sample=False, set_alpha_to_one=False,
                  steps_offset=1).save_pretrained(out / "scheduler")
    (out / "model_index.json").write_text(json.dumps(INDEX, indent=2) + "\n")
    print(f"step {state['step']}, {state['used']:.0f} s of training -> {out}")


if __name__ == "__main__":
    main()
