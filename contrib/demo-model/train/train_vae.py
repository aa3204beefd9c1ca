"""2. Train the VAE (8x down, 4 latent channels) on rendered scenes.

Two thirds of the time go into 64x64 crops, which are cheap, the rest into whole pictures, so
that GroupNorm's statistics and the middle's attention fit the size that is used later.
Run again with a larger --cap to go on from --ckpt.

    python train_vae.py --model ../model --ckpt vae.pt --cap 1080
"""
import argparse
import random
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F

import models
import render
from common import Budget, Running, descend, learning_rate, load, save

CROP = 64


def pictures(n, seed):
    """uint8 [n, 3, SIZE, SIZE]"""
    rng = random.Random(seed)
    rgb = [render.render(render.random_scene(rng, pair_share=.6)) for _ in range(n)]
    return torch.from_numpy(np.stack(rgb)).permute(0, 3, 1, 2).contiguous()


def unit(rgb):
    return rgb.float() / 127.5 - 1


def batch(data, gen, crop):
    n = 16 if crop else 6
    rows = torch.randint(len(data), (n,), generator=gen)
    x = data[rows]
    if crop:
        corners = torch.randint(0, render.SIZE - CROP + 1, (n, 2), generator=gen).tolist()
        x = torch.stack([im[:, t:t + CROP, l:l + CROP] for im, (l, t) in zip(x, corners)])
    # A third in slightly wrong colours: the codec should know more than the palette.
    gain = .85 + .3 * torch.rand(n, 3, 1, 1, generator=gen)
    plain = torch.rand(n, 1, 1, 1, generator=gen) >= .3
    return ((unit(x) + 1) * torch.where(plain, torch.ones(()), gain) - 1).clamp(-1, 1)


def loss_of(vae, x):
    """(loss, mean absolute error, KL divergence)"""
    dist = vae.encode(x).latent_dist
    y = vae.decode(dist.sample()).sample
    l1 = F.l1_loss(y, x)
    edge = F.l1_loss(y.diff(dim=-1), x.diff(dim=-1)) + F.l1_loss(y.diff(dim=-2), x.diff(dim=-2))
    kl = .5 * (dist.mean.square() + dist.var - 1 - dist.logvar).mean()
    return l1 + .5 * F.mse_loss(y, x) + .5 * edge + 2e-4 * kl, l1, kl


@torch.no_grad()
def psnr(vae, data):
    """[n], in dB"""
    vae.eval()
    out = []
    for rgb in data.split(16):
        x = unit(rgb)
        y = vae.decode(vae.encode(x).latent_dist.mode()).sample.clamp(-1, 1)
        out.append(-10 * ((y - x) / 2).square().mean((1, 2, 3)).clamp_min(1e-9).log10())
    vae.train()
    return torch.cat(out)


@torch.no_grad()
def latent_std(vae, data):
    vae.eval()
    return torch.cat([vae.encode(unit(x)).latent_dist.sample() for x in data.split(32)]).std()


def main():
    ap = argparse.ArgumentParser()
    ap.add_argument("--model", required=True)
    ap.add_argument("--ckpt", required=True)
    ap.add_argument("--cap", type=float, default=1080, help="seconds of training")
    ap.add_argument("--scenes", type=int, default=6000)
    ap.add_argument("--crop-share", type=float, default=.65, help="of the time")
    ap.add_argument("--lr", type=float, default=2e-3)
    ap.add_argument("--seed", type=int, default=1)
    ap.add_argument("--threads", type=int, default=2)
    a = ap.parse_args()
    torch.set_num_threads(a.threads)
    torch.manual_seed(a.seed)
    vae = models.vae().train()
    opt = torch.optim.AdamW(vae.parameters(), lr=a.lr, betas=(.9, .99), weight_decay=1e-4)
    budget, step, mean = Budget(a.cap), 0, Running()
    if Path(a.ckpt).exists():
        s = load(a.ckpt)
        vae.load_state_dict(s["model"])
        opt.load_state_dict(s["opt"])
        step, budget.used = s["step"], s["used"]
    data, held = pictures(a.scenes, a.seed), pictures(48, 10_000_019)
    gen = torch.Generator().manual_seed(a.seed + step)

    def checkpoint():
        save({"model": vae.state_dict(), "opt": opt.state_dict(), "step": step,
              "used": budget.used}, a.ckpt)

    budget.start()
    while not budget.spent:
        loss, l1, kl = loss_of(vae, batch(data, gen, budget.share < a.crop_share))
        descend(opt, loss, learning_rate(a.lr, budget, step, 40))
        step += 1
        budget.tick()
        (shown,) = mean.add(l1.item())
        if step % 25 == 0:
            print(f"step {step} {budget.used:.0f} s l1 {shown:.4f} kl {kl.item():.2f}", flush=True)
        if step % 100 == 0:
            checkpoint()
        if step % 200 == 0:
            print(f"  held out: {psnr(vae, held[:16]).mean():.2f} dB", flush=True)
    checkpoint()
    # SD's convention: the UNet sees latents times 1/std.
    vae.register_to_config(scaling_factor=1 / float(latent_std(vae, data[:512])))
    quality = psnr(vae, held)
    print(f"{step} steps, {quality.mean():.2f} dB on average, {quality.min():.2f} at worst")
    vae.eval().half().save_pretrained(Path(a.model) / "vae")


if __name__ == "__main__":
    main()
