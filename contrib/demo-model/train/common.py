"""What the training scripts share: a time budget, one optimiser step, averages, checkpoints."""
import math
import os
import time

import torch


class Budget:
    """Seconds of training used, over all restarts; `share` drives the learning rate.

    tick() once a step. A pause (a suspended machine, a debugger) counts as a usual step.
    """

    def __init__(self, seconds, used=0.0):
        self.seconds, self.used, self.usual = seconds, used, None
        self.start()

    def start(self):
        self.last = time.monotonic()

    def tick(self):
        now = time.monotonic()
        took, self.last = now - self.last, now
        if self.usual is None:
            self.usual = took
        elif took > max(20.0, 12 * self.usual):
            took = self.usual
        self.usual += .05 * (took - self.usual)
        self.used += took

    @property
    def share(self):
        return min(1.0, self.used / self.seconds)

    @property
    def spent(self):
        return self.used >= self.seconds


def learning_rate(peak, budget, step, warmup):
    """Linear warm-up, then a cosine over the budget down to 3 % of the peak."""
    low = .03 * peak
    cosine = low + (peak - low) * .5 * (1 + math.cos(math.pi * budget.share))
    return cosine * min(1.0, (step + 1) / warmup)


def descend(opt, loss, lr):
    """One step of `opt` on `loss`, gradients clipped to norm 1; a group's "scale" multiplies lr."""
    opt.zero_grad(set_to_none=True)
    loss.backward()
    params = [p for group in opt.param_groups for p in group["params"] if p.grad is not None]
    torch.nn.utils.clip_grad_norm_(params, 1.0)
    for group in opt.param_groups:
        group["lr"] = lr * group.get("scale", 1.0)
    opt.step()


class Running:
    """Running means of a few numbers."""

    def __init__(self, keep=.97):
        self.keep, self.mean = keep, None

    def add(self, *values):
        if self.mean is None:
            self.mean = list(values)
        self.mean = [v if m != m else m if v != v else self.keep * m + (1 - self.keep) * v
                     for m, v in zip(self.mean, values)]        # a NaN leaves its mean alone
        return self.mean


class Ema:
    """Exponential moving average of parameters; short at first, so the start is forgotten."""

    def __init__(self, params, decay):
        self.params, self.decay, self.count = list(params), decay, 0
        self.shadow = [p.detach().clone() for p in self.params]

    @torch.no_grad()
    def update(self):
        self.count += 1
        keep = min(self.decay, (1 + self.count) / (10 + self.count))
        torch._foreach_lerp_(self.shadow, [p.detach() for p in self.params], 1 - keep)


def save(state, path):
    """A save that is interrupted leaves the previous checkpoint whole."""
    torch.save(state, f"{path}.tmp")
    os.replace(f"{path}.tmp", path)


def load(path):
    return torch.load(path, weights_only=True)


def load_latents(files):
    """(latents [n, 4, h, w] fp32, list of caption variants per latent)."""
    parts = [load(f) for f in files]
    return (torch.cat([p["latents"] for p in parts]).float(),
            [captions for p in parts for captions in p["texts"]])


def token_ids(tokenizer, texts):
    """[n, 77]"""
    return tokenizer(list(texts), padding="max_length", max_length=77, truncation=True,
                     return_tensors="pt").input_ids
