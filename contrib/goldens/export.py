"""Write the golden fixtures: what diffusers and transformers compute, stage by stage.

    python contrib/goldens/export.py            # writes tests/golden
    python contrib/goldens/export.py --check    # computes again and compares
"""
import argparse
import hashlib
import json
import platform
import sys
import tempfile
import unicodedata
import warnings
from pathlib import Path

import tokens                    # first: it hides ftfy

import diffusers
import numpy
import peft
import regex
import safetensors
import tokenizers
import torch
import transformers
from diffusers import StableDiffusionPipeline

import compare
import control
import hires
import lora
import prompts
import samplers
import stages
import starts
import taesd
import tiny

ROOT = Path(__file__).resolve().parents[2]
DEMO = "contrib/demo-model/model"

CASES = {
    "demo": dict(
        model=DEMO, schedulers=[f"{DEMO}/scheduler/scheduler_config.json"],
        prompts=["", "a small red circle left of a green star on a white background"],
        prompt="a large red heart on a blue background", negative="",
        unet=[("single", 16, 16), ("wide", 8, 16)], vae=[("square", 16, 16), ("wide", 8, 16)],
        size=(128, 128),
        images=[("a large red circle on a yellow background", "", 128, 128, 3),
                ("a green star to the left of a purple square on a white background", "red",
                 128, 192, 4)]),
    "tiny-sd1": dict(
        model="tests/golden/tiny-sd1/model",
        schedulers=["tests/golden/tiny-sd1/model/scheduler/scheduler_config.json",
                    "tests/golden/tiny-sd1/scheduler_v/scheduler_config.json"],
        prompts=["", "eine schöne Katze, 漢字 и кот 🙂 on the moon"],
        prompt="a painting of a red house by the sea", negative="blurry, lowres",
        unet=[("single", 8, 8), ("wide", 8, 16), ("square", 16, 16)],
        vae=[("square", 8, 8), ("wide", 8, 16)], size=(64, 64),
        images=[("a castle in the clouds", "", 64, 64, 11),
                ("a castle in the clouds", "bad hands", 64, 96, 2**32 + 5)]),
}


def open_model(path):
    pipe = StableDiffusionPipeline.from_pretrained(path, torch_dtype=torch.float32,
                                                   safety_checker=None)
    pipe.set_progress_bar_config(disable=True)
    return pipe


def images(pipe, spec, root, out):
    """RGB of the whole pipeline: demo on its own DDIM, tiny-sd1 on euler."""
    config = json.loads((root / spec["schedulers"][0]).read_text())
    sampler = "ddim" if config["_class_name"] == "DDIMScheduler" else "euler"
    cases = []
    for i, (prompt, negative, height, width, seed) in enumerate(spec["images"]):
        pipe.scheduler = samplers.make(config, sampler, "normal")
        image = pipe(prompt, negative_prompt=negative, num_inference_steps=20,
                     guidance_scale=5.0, height=height, width=width, output_type="np",
                     generator=torch.Generator("cpu").manual_seed(seed)).images[0]
        rgb = pipe.numpy_to_pil(image)[0]
        name = f"image.{i}"
        out[name] = torch.frombuffer(bytearray(rgb.tobytes()), dtype=torch.uint8).view(
            height, width, 3)
        cases.append({"prompt": prompt, "negative_prompt": negative, "height": height,
                      "width": width, "steps": 20, "cfg": 5.0, "seed": str(seed),
                      "sampler": sampler, "schedule": "normal", "rgb": name})
    return cases


def export_model(name, spec, root, golden):
    pipe, out = open_model(root / spec["model"]), {}
    cases = {"name": name, "model": spec["model"]}
    cases["text"] = stages.text(pipe, spec["prompts"], out)
    cases["time"] = stages.time(pipe, out)
    cases["unet"] = stages.unet(pipe, out, spec["unet"])
    cases["vae"] = stages.vae(pipe, out, spec["vae"])
    cases["samplers"] = []
    for path in spec["schedulers"]:
        cases["samplers"] += samplers.runs(pipe, path, root, out, spec["prompt"],
                                           spec["negative"], *spec["size"], seed=42,
                                           tag="v." if "scheduler_v" in path else "")
    cases["images"] = images(pipe, spec, root, out)
    stages.write(golden / name, out, cases)
    text = stages.lines(tokens.fixture(root / spec["model"] / "tokenizer"))
    (golden / f"tokens-{name}.json").write_text(text + "\n")


def export_common(golden):
    out = {}
    cases = {"loops": samplers.loops(out), "tables": samplers.tables(),
             "betas": samplers.betas(), "torch_noise": samplers.torch_noise(out)}
    stages.write(golden / "common", out, cases)


def export_control(root, golden):
    out = {}
    cases = control.cases(open_model(root / control.MODEL).unet, out)
    stages.write(golden / "control", out, cases)


def manifest(golden):
    lines = ["# Made by: python contrib/goldens/export.py", f"python {platform.python_version()}",
             f"unicode {unicodedata.unidata_version}"]
    for m in (torch, diffusers, peft, transformers, tokenizers, safetensors, numpy, regex,
              tokens.ftfy):
        lines.append(f"{m.__name__} {m.__version__.split('+')[0]}")
    lines += ["", "# bytes sha256 path"]
    for p in sorted(golden.rglob("*")):
        name = p.relative_to(golden).as_posix()
        if p.is_file() and name.startswith(("common/", "control/", "demo/", "hires/", "lora/",
                                            "prompts/", "starts/", "taesd/", "tiny-sd1/", "tokens-")):
            data = p.read_bytes()
            lines.append(f"{len(data)} {hashlib.sha256(data).hexdigest()} {name}")
    return "\n".join(lines) + "\n"


def export(root):
    """Everything under root/tests/golden; the demo model is expected under root."""
    golden = root / "tests" / "golden"
    tiny.write(golden / "tiny-sd1")
    export_common(golden)
    for name, spec in CASES.items():
        export_model(name, spec, root, golden)
    export_control(root, golden)
    lora.export(root, golden)
    prompts.export(root, golden)
    starts.export(root, golden / "starts")
    hires.export(root, golden / "hires")
    taesd.export(golden / "taesd")
    for p in golden.rglob("*.safetensors"):
        p.chmod(0o644)               # safetensors makes them private
    (golden / "MANIFEST").write_text(manifest(golden))


def main():
    ap = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    ap.add_argument("--check", action="store_true", help="compare with the committed files")
    ap.add_argument("--threads", type=int, default=2)
    a = ap.parse_args()
    torch.set_num_threads(a.threads)
    torch.set_grad_enabled(False)
    warnings.filterwarnings("ignore")
    transformers.logging.set_verbosity_error()
    diffusers.logging.disable_progress_bar()
    if not a.check:
        export(ROOT)
        return 0
    with tempfile.TemporaryDirectory() as tmp:
        tmp = Path(tmp)
        (tmp / DEMO).parent.mkdir(parents=True)
        (tmp / DEMO).symlink_to(ROOT / DEMO)
        export(tmp)
        return compare.folders(ROOT / "tests" / "golden", tmp / "tests" / "golden")


if __name__ == "__main__":
    sys.exit(main())
