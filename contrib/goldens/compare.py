"""Compare two folders of fixtures. Other processors round otherwise, so floats may differ a little."""
import json
import math
import sys

import torch
from safetensors.torch import load_file

REL_L2 = 1e-4          # float tensors
NUMBER = 1e-5          # floats in JSON, relative
MODEL = 2e-3           # fp16 weights: one rounding


def tensors(name, a, b, say):
    a, b = load_file(a), load_file(b)
    if a.keys() != b.keys():
        say(f"{name}: tensors differ: {sorted(a.keys() ^ b.keys())[:5]}")
        return
    limit = MODEL if "/model/" in name else REL_L2
    for k in a:
        x, y = a[k].double(), b[k].double()
        if x.shape != y.shape or a[k].dtype != b[k].dtype:
            say(f"{name}: {k}: {a[k].dtype} {tuple(x.shape)} against {b[k].dtype} {tuple(y.shape)}")
        elif a[k].dtype == torch.uint8:
            if (x - y).abs().max() > 1:
                say(f"{name}: {k}: bytes differ by {int((x - y).abs().max())}")
        else:
            rel = float((x - y).norm() / x.norm().clamp_min(1e-12))
            if not rel <= limit:
                say(f"{name}: {k}: relative L2 {rel:.1e}")


def values(name, a, b, say):
    if isinstance(a, float) and isinstance(b, float):
        if not math.isclose(a, b, rel_tol=NUMBER, abs_tol=1e-6):
            say(f"{name}: {a} against {b}")
    elif type(a) is not type(b):
        say(f"{name}: {type(a).__name__} against {type(b).__name__}")
    elif isinstance(a, dict) and a.keys() == b.keys():
        for k in a:
            values(f"{name}.{k}", a[k], b[k], say)
    elif isinstance(a, list) and len(a) == len(b):
        for i, (x, y) in enumerate(zip(a, b)):
            values(f"{name}[{i}]", x, y, say)
    elif a != b:
        say(f"{name}: {str(a)[:60]} against {str(b)[:60]}")


def folders(committed, fresh):
    """Print what differs; 0 when nothing does."""
    faults = []

    def say(text):
        faults.append(text)
        print(text, file=sys.stderr)

    ours = {p.relative_to(fresh).as_posix() for p in fresh.rglob("*") if p.is_file()}
    for name in sorted(ours):
        a, b = committed / name, fresh / name
        if not a.exists():
            say(f"{name}: missing")
        elif name.endswith(".safetensors"):
            tensors(name, a, b, say)
        elif name.endswith(".json"):
            values(name, json.loads(a.read_text()), json.loads(b.read_text()), say)
        elif name != "MANIFEST" and a.read_bytes() != b.read_bytes():
            say(f"{name}: differs")
    print(f"{len(ours)} files, {len(faults)} differences")
    return 1 if faults else 0
