"""Seeded random weights that keep a network alive: nothing is zero, nothing explodes."""
import zlib

import numpy as np
import torch


def fill(module, seed, scale=None):
    """Overwrite every parameter of `module` with fp16-representable numbers.

    Each tensor has its own random stream, named by seed and parameter name, so adding a
    layer changes no other. Matrices get variance 1/fan_in; norm weights lie around 1.
    `scale` maps the end of a parameter name to a factor.
    """
    with torch.no_grad():
        for name, p in module.named_parameters():
            rng = np.random.default_rng([seed, zlib.crc32(name.encode())])
            x = rng.standard_normal(tuple(p.shape), dtype=np.float32)
            if p.ndim == 1:
                x = 1 + 0.2 * x if name.endswith("weight") else 0.1 * x
            elif "embedding" in name and p.ndim == 2 and "linear" not in name:
                x *= 0.5
            else:
                x *= np.float32(p[0].numel() ** -0.5)
            for end, factor in (scale or {}).items():
                if name.endswith(end):
                    x = x * np.float32(factor)
            p.copy_(torch.from_numpy(x).half().float())
    return module.eval()
