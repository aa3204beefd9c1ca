"""8. Generate prompts of the grammar with diffusers, read the pictures with score.py.

    python eval.py --model ../model --n 64 --sheet samples.png [--lora ../lora/outline.safetensors]
"""
import argparse
import random
import textwrap
import time

import torch
from diffusers import StableDiffusionPipeline
from PIL import Image, ImageDraw

import render
import score

COLUMNS, LABEL = 8, 40


def main():
    ap = argparse.ArgumentParser()
    ap.add_argument("--model", required=True)
    ap.add_argument("--n", type=int, default=64)
    ap.add_argument("--steps", type=int, default=20)
    ap.add_argument("--cfg", type=float, default=5.0)
    ap.add_argument("--sheet", help="write all pictures with their prompts here")
    ap.add_argument("--seed", type=int, default=1)
    ap.add_argument("--lora")
    ap.add_argument("--threads", type=int, default=2)
    a = ap.parse_args()
    torch.set_num_threads(a.threads)
    pipe = StableDiffusionPipeline.from_pretrained(a.model, torch_dtype=torch.float32)
    pipe.set_progress_bar_config(disable=True)
    if a.lora:
        pipe.load_lora_weights(a.lora)
    rng = random.Random(a.seed)
    w, h = render.SIZE + 8, render.SIZE + LABEL
    sheet = Image.new("RGB", (COLUMNS * w, -(-a.n // COLUMNS) * h), "white")
    draw = ImageDraw.Draw(sheet)
    hits, start = [], time.monotonic()
    for i in range(a.n):
        scene = render.random_scene(rng, pair_share=.3)
        prompt = render.caption(scene, rng)
        picture = pipe(prompt, num_inference_steps=a.steps, guidance_scale=a.cfg,
                       height=render.SIZE, width=render.SIZE,
                       generator=torch.Generator().manual_seed(i)).images[0]
        x, y = i % COLUMNS * w, i // COLUMNS * h
        sheet.paste(picture, (x, y))
        for k, line in enumerate(textwrap.wrap(prompt, 22)[:3]):
            draw.text((x, y + render.SIZE + 11 * k), line, fill="black")
        if len(scene.things) == 1:
            hit = score.compare(scene, picture)
            hits.append({**hit, "all": all(hit.values())})
            if not hits[-1]["all"]:
                print(f"  {i}: {prompt!r} read as {score.read(picture)}")
    if a.sheet:
        sheet.save(a.sheet)
    share = {k: sum(h[k] for h in hits) / len(hits) for k in hits[0]} if hits else {}
    print(f"{len(hits)} prompts with one shape: "
          + ", ".join(f"{k} {v:.0%}" for k, v in share.items())
          + f"; {(time.monotonic() - start) / a.n:.2f} s a picture")


if __name__ == "__main__":
    main()
