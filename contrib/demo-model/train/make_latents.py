"""3. Render captioned scenes and keep their latents, so that UNet training never runs the VAE.

    python make_latents.py --model ../model --out latents_0.pt --n 16000 --seed 0
    python make_latents.py --model ../model --out outline.pt --n 4000 --style outline
"""
import argparse
import random

import numpy as np
import torch
from diffusers import AutoencoderKL

import render

CAPTIONS = 3                # variants a scene


def main():
    ap = argparse.ArgumentParser()
    ap.add_argument("--model", required=True)
    ap.add_argument("--out", required=True)
    ap.add_argument("--n", type=int, default=16000)
    ap.add_argument("--seed", type=int, default=0)
    ap.add_argument("--style", default="filled", choices=["filled", "outline"])
    ap.add_argument("--threads", type=int, default=1)
    a = ap.parse_args()
    torch.set_num_threads(a.threads)
    torch.set_grad_enabled(False)
    vae = AutoencoderKL.from_pretrained(a.model, subfolder="vae", torch_dtype=torch.float32).eval()
    rng = random.Random(1_000_003 * (a.seed + 1))
    latents, texts = [], []
    while len(texts) < a.n:
        scenes = [render.random_scene(rng, style=a.style)
                  for _ in range(min(32, a.n - len(texts)))]
        rgb = torch.from_numpy(np.stack([render.render(s) for s in scenes]))
        x = rgb.permute(0, 3, 1, 2).float() / 127.5 - 1
        latents.append((vae.encode(x).latent_dist.mean * vae.config.scaling_factor).half())
        texts += [[render.caption(s, rng) for _ in range(CAPTIONS)] for s in scenes]
    torch.save({"latents": torch.cat(latents), "texts": texts}, a.out)


if __name__ == "__main__":
    main()
