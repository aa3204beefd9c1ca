"""5. Train the text encoder and the UNet together on stored latents.

Half of the timesteps come from the noisiest fifth, and their loss weighs more: colours and
places are decided there, where the plain loss on the noise has almost no gradient.
Run again with a larger --cap to go on from --out; export.py makes a model of the checkpoint.

    python train_unet.py --model ../model --text text.pt --data latents_*.pt --out unet.pt
"""
import argparse
from pathlib import Path

import torch
from diffusers import DDPMScheduler
from transformers import CLIPTokenizer

import models
from common import (Budget, Ema, Running, descend, learning_rate, load, load_latents, save,
                    token_ids)


class Captions:
    """Text states for random caption variants, a tenth of them replaced by the empty prompt."""

    def __init__(self, tokenizer, text, texts, frozen):
        self.text = text
        self.ids = torch.stack([token_ids(tokenizer, c) for c in zip(*texts)], 1)  # [n, 3, 77]
        self.empty = token_ids(tokenizer, [""])
        self.states = None
        if frozen:                  # [n, 3, 77, WIDTH] fp16, encoded once
            with torch.no_grad():
                self.states = torch.stack(
                    [torch.cat([text(c).last_hidden_state.half() for c in column.split(256)])
                     for column in self.ids.unbind(1)], 1)
                self.nothing = text(self.empty).last_hidden_state.half()

    def draw(self, rows, g):
        variant = torch.randint(self.ids.shape[1], (len(rows),), generator=g)
        drop = torch.rand(len(rows), generator=g) < .10
        if self.states is not None:
            kept = self.states[rows, variant]
            return torch.where(drop[:, None, None], self.nothing, kept).float()
        return self.text(torch.where(drop[:, None], self.empty,
                                     self.ids[rows, variant])).last_hidden_state


def draw_noise(shape, offset, g):
    """Normal noise; for three quarters of the rows each channel is shifted as a whole.

    SD's schedule leaks a plain background's mean even at its last timestep. The shift hides
    it, so that the background's colour must come from the prompt.
    """
    n = shape[0]
    noise = torch.randn(shape, generator=g)
    shift = offset * torch.randn(n, shape[1], 1, 1, generator=g)
    return noise + shift * (torch.rand(n, 1, 1, 1, generator=g) < .75)


def draw_timesteps(n, g):
    """(timesteps, which of them were drawn from the noisiest fifth)"""
    t = torch.randint(1000, (n,), generator=g)
    late = torch.rand(n, generator=g) < .5
    return torch.where(late, 800 + t // 5, t), late


def main():
    ap = argparse.ArgumentParser()
    ap.add_argument("--model", required=True)
    ap.add_argument("--data", nargs="+", required=True)
    ap.add_argument("--out", required=True)
    ap.add_argument("--text", help="the encoder of train_text.py")
    ap.add_argument("--start", help="a checkpoint whose averaged weights are the start")
    ap.add_argument("--freeze-text", action="store_true",
                    help="encode the captions once: a quarter less time a step")
    ap.add_argument("--cap", type=float, default=9000, help="seconds of training in all")
    ap.add_argument("--batch", type=int, default=32)
    ap.add_argument("--lr", type=float, default=1e-3)
    ap.add_argument("--offset", type=float, default=.3, help="offset noise")
    ap.add_argument("--threads", type=int, default=2)
    a = ap.parse_args()
    torch.set_num_threads(a.threads)
    torch.manual_seed(0)
    tokenizer = CLIPTokenizer.from_pretrained(a.model, subfolder="tokenizer")
    text, unet = models.text_encoder(tokenizer), models.unet()
    params = [*text.parameters(), *unet.parameters()]
    if a.start:
        with torch.no_grad():
            for p, e in zip(params, load(a.start)["ema"]):
                p.copy_(e)
    if a.text:
        text.load_state_dict(load(a.text))
    if a.freeze_text:
        text.requires_grad_(False).eval()
    opt = torch.optim.AdamW([{"params": list(text.parameters()), "scale": .3},
                             {"params": list(unet.parameters())}], lr=a.lr, betas=(.9, .99),
                            weight_decay=.01)
    ema, budget, step, mean = Ema(params, .9985), Budget(a.cap), 0, Running(.98)
    if Path(a.out).exists():
        s = load(a.out)
        text.load_state_dict(s["text"])
        unet.load_state_dict(s["unet"])
        opt.load_state_dict(s["opt"])
        ema.shadow, ema.count, step, budget.used = s["ema"], s["ema_n"], s["step"], s["used"]

    def checkpoint():
        save({"text": text.state_dict(), "unet": unet.state_dict(), "opt": opt.state_dict(),
              "ema": ema.shadow, "ema_n": ema.count, "step": step, "used": budget.used}, a.out)

    latents, texts = load_latents(a.data)
    captions = Captions(tokenizer, text, texts, a.freeze_text)
    schedule = DDPMScheduler(**models.NOISE)
    weight = ((1 - schedule.alphas_cumprod) / schedule.alphas_cumprod).sqrt() / 2
    weight = weight.clamp(1, 5)
    g = torch.Generator().manual_seed(step + 1)
    budget.start()
    while not budget.spent:
        rows = torch.randint(len(latents), (a.batch,), generator=g)
        context = captions.draw(rows, g)
        noise = draw_noise(latents[rows].shape, a.offset, g)
        t, late = draw_timesteps(a.batch, g)
        guess = unet(schedule.add_noise(latents[rows], noise, t), t, context).sample
        error = (guess - noise).square().mean((1, 2, 3))
        loss = (error * weight[t]).mean()
        descend(opt, loss, learning_rate(a.lr, budget, step, 200))
        ema.update()
        step += 1
        budget.tick()
        shown = mean.add(loss.item(), error[late].mean().item(), error[~late].mean().item())
        if step % 50 == 0:
            print(f"step {step} {budget.used:.0f} s loss {shown[0]:.4f} late {shown[1]:.4f} "
                  f"even {shown[2]:.4f}", flush=True)
        if step % 400 == 0:
            checkpoint()
    checkpoint()


if __name__ == "__main__":
    main()
