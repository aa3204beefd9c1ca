"""ControlNets on tiny-sd1: residuals and the UNet's output with them, of weights that a formula gives.

No weights are stored: whoever reads the fixtures makes them from the tensors' names and shapes.
"""
import numpy as np
import torch
from diffusers import ControlNetModel

import tiny

MODEL = "tests/golden/tiny-sd1/model"
CONFIG = dict(
    in_channels=4, layers_per_block=2, block_out_channels=tiny.UNET["block_out_channels"],
    norm_num_groups=8, down_block_types=tiny.UNET["down_block_types"],
    cross_attention_dim=tiny.WIDTH, attention_head_dim=4,
    conditioning_embedding_out_channels=(4, 6, 8, 12))
NAMES = ("first", "second")


def uniform(name, count):
    """`count` numbers in [-0.5, 0.5), the same everywhere: SplitMix64 from FNV-1a of the name."""
    h = 0xCBF29CE484222325
    for b in name.encode():
        h = (h ^ b) * 0x100000001B3 % 2**64
    with np.errstate(over="ignore"):
        z = np.uint64(h) + np.arange(1, count + 1, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15)
        z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        z ^= z >> np.uint64(31)
    return (z >> np.uint64(40)).astype(np.float64) / 2**24 - 0.5


def tensor(name, shape, factor=1.0, shift=0.0):
    x = uniform(name, int(np.prod(shape))) * factor + shift
    return torch.from_numpy(x.astype(np.float32)).reshape(shape)


def weight(name, shape):
    """Matrices get variance 1/fan_in; the weights of norms lie around 1."""
    if len(shape) > 1:
        return tensor(name, shape, (12.0 / np.prod(shape[1:])) ** 0.5)
    return tensor(name, shape, 0.5, 1.0) if name.endswith("weight") else tensor(name, shape, 0.4)


def make(name):
    net = ControlNetModel(**CONFIG)
    with torch.no_grad():
        for key, p in net.named_parameters():
            p.copy_(weight(f"{name}.{key}", tuple(p.shape)))
    return net.eval()


def call(unet, nets, label, height, width, timestep, uses, stages, out):
    """One evaluation with guidance: two texts read the same latents."""
    root = 12 ** 0.5
    x = tensor(f"{label}.sample", (1, 4, height, width), root).expand(2, -1, -1, -1)
    text = tensor(f"{label}.context", (2, 77, tiny.WIDTH), root)
    down, mid = None, None
    for name, strength in uses:
        picture = tensor(f"{label}.{name}.picture", (1, 3, 8 * height, 8 * width), 1.0, 0.5)
        d, m = nets[name](x, timestep, text, picture.expand(2, -1, -1, -1), strength,
                          return_dict=False)
        down = d if down is None else [a + b for a, b in zip(down, d)]
        mid = m if mid is None else mid + m
    if stages:
        for i, d in enumerate(down):
            out[f"{label}.skip.{i}"] = d
        out[f"{label}.mid"] = mid
    y = unet(x, timestep, text, down_block_additional_residuals=down,
             mid_block_additional_residual=mid).sample
    out[f"{label}.output"] = y
    return {"label": label, "height": height, "width": width, "timestep": timestep,
            "uses": [{"name": n, "strength": s} for n, s in uses],
            "skips": len(down) if stages else 0, "output": f"{label}.output"}


def cases(unet, out):
    nets = {name: make(name) for name in NAMES}
    config = {k: list(v) if isinstance(v, tuple) else v for k, v in CONFIG.items()}
    calls = [call(unet, nets, "one", 8, 8, 500, [("first", 1.0)], True, out),
             call(unet, nets, "half", 8, 16, 261.5, [("second", 0.5)], False, out),
             call(unet, nets, "both", 8, 8, 981, [("first", 0.7), ("second", 1.3)], True, out)]
    return {"model": MODEL, "config": config, "calls": calls}
