"""Write tests/golden/starts: what diffusers' StableDiffusionImg2ImgPipeline and
StableDiffusionInpaintPipeline make of small pictures and masks.

    python contrib/goldens/starts.py [OUT]        # alone, without the other fixtures

Masks are whole latents wide and have no blur, because diffusers samples them where darkroom
takes means. `rgb` is the pipeline's picture, of an inpainting put over the sent one where the
mask is white. The inpainting UNet is tiny-sd1's with another conv_in, `conv_in` in its file.
"""
import json
import sys
import warnings
from pathlib import Path

import diffusers
import numpy as np
import torch
from diffusers import (StableDiffusionImg2ImgPipeline, StableDiffusionInpaintPipeline,
                       StableDiffusionPipeline)
from diffusers.pipelines.stable_diffusion import pipeline_stable_diffusion_img2img as plain
from PIL import Image

import samplers
import stages

ROOT = Path(__file__).resolve().parents[2]
TINY, DEMO = "tests/golden/tiny-sd1/model", "contrib/demo-model/model"
STEPS, CFG, SEED = 10, 5.0, 21
WORDS = {TINY: ("a castle in the clouds", "bad hands"),
         DEMO: ("a large red heart on a blue background", "")}
SIZE = {TINY: (64, 96), DEMO: (128, 128)}         # height, width

# model, sampler, schedule, strength, what: the samplers all differ in how they add noise
CASES = [
    (TINY, "ddim", "normal", 0.3, "picture"), (TINY, "ddim", "normal", 1.0, "picture"),
    (TINY, "euler", "normal", 0.8, "picture"), (TINY, "euler", "karras", 0.5, "picture"),
    (TINY, "euler_a", "normal", 0.7, "picture"), (TINY, "dpmpp_2m", "normal", 0.8, "picture"),
    (TINY, "dpmpp_2m", "karras", 0.45, "mean"), (TINY, "ddim", "normal", 0.6, "mask"),
    (TINY, "ddim", "normal", 1.0, "mask"), (TINY, "euler", "karras", 1.0, "mask"),
    (TINY, "euler_a", "normal", 0.75, "mask"), (TINY, "dpmpp_2m", "normal", 0.9, "mask"),
    (TINY, "ddim", "normal", 0.6, "unet9"), (TINY, "euler", "normal", 1.0, "unet9"),
    (TINY, "euler_a", "normal", 0.8, "unet9"),
    (DEMO, "ddim", "normal", 0.5, "picture"), (DEMO, "euler_a", "normal", 0.8, "picture"),
    (DEMO, "ddim", "normal", 0.8, "mask"), (DEMO, "dpmpp_2m", "karras", 1.0, "mask"),
]


def picture(height, width):
    x = stages.picture(300, height, width)[0].permute(1, 2, 0).numpy()
    return Image.fromarray(np.rint((x * 0.5 + 0.5) * 255).astype(np.uint8))


def mask(height, width):
    m = np.zeros((height, width), np.uint8)
    m[height // 4:height // 2, 16:width - 24] = 255
    m[height // 2:height - 8, 24:40] = 255
    return Image.fromarray(m)


def nine(unet):
    """The UNet with five more channels to read."""
    conv = torch.nn.Conv2d(9, unet.config.block_out_channels[0], 3, padding=1)
    more = stages.seeded(301, conv.out_channels, 5, 3, 3) / 9
    conv.weight.data = torch.cat([unet.conv_in.weight, more], 1).half().float()
    conv.bias = unet.conv_in.bias
    unet.conv_in = conv
    unet.register_to_config(in_channels=9)


def run(pipe, config, case, init, hole, output):
    model, sampler, schedule, strength, what = case
    pipe.scheduler = samplers.make(config, sampler, schedule)
    pipe.set_progress_bar_config(disable=True)
    prompt, negative = WORDS[model]
    extra = {} if hole is None else {"mask_image": hole, "height": init.height,
                                     "width": init.width}
    eta = {"eta": 0.0} if sampler == "ddim" else {}
    return pipe(prompt, negative_prompt=negative, image=init, strength=strength,
                num_inference_steps=STEPS, guidance_scale=CFG, output_type=output,
                generator=torch.Generator("cpu").manual_seed(SEED), **extra, **eta).images


def with_mean(make):
    """The encoder's mean instead of a draw."""
    keep = plain.retrieve_latents
    plain.retrieve_latents = lambda y, **_: keep(y, sample_mode="argmax")
    try:
        return make()
    finally:
        plain.retrieve_latents = keep


def export(root, folder):
    """The models lie under root."""
    folder.mkdir(parents=True, exist_ok=True)
    out, cases, parts = {}, [], {}
    for model in (TINY, DEMO):
        pipe = StableDiffusionPipeline.from_pretrained(root / model, torch_dtype=torch.float32,
                                                       safety_checker=None)
        name = Path(model).parent.name
        init, hole = picture(*SIZE[model]), mask(*SIZE[model])
        init.save(folder / f"{name}.png", optimize=True)
        hole.save(folder / f"{name}-mask.png", optimize=True)
        parts[model] = pipe, name, init, hole
    for i, case in enumerate(sorted(CASES, key=lambda c: c[4] == "unet9")):
        model, sampler, schedule, strength, what = case
        pipe, name, init, hole = parts[model]
        config = json.loads((root / model / "scheduler/scheduler_config.json").read_text())
        if what == "unet9" and pipe.unet.config.in_channels == 4:
            nine(pipe.unet)
            out["conv_in"] = pipe.unet.conv_in.weight.half()
        kind = (StableDiffusionImg2ImgPipeline if what in ("picture", "mean")
                else StableDiffusionInpaintPipeline)
        own = kind(**{**pipe.components, "image_encoder": None}, requires_safety_checker=False)
        over = None if kind is StableDiffusionImg2ImgPipeline else hole
        around = with_mean if what == "mean" else lambda make: make()
        y = around(lambda: run(own, config, case, init, over, "latent"))
        rgb = around(lambda: run(own, config, case, init, over, "pil"))[0]
        if over is not None:
            rgb = Image.composite(rgb, init, over)
        assert y.isfinite().all(), case
        out[f"latents.{i}"] = y
        cases.append({"model": model, "init": f"{name}.png",
                      "mask": over and f"{name}-mask.png", "unet9": what == "unet9",
                      "mean": what == "mean", "sampler": sampler, "schedule": schedule,
                      "strength": strength, "steps": STEPS, "cfg": CFG, "seed": str(SEED),
                      "prompt": WORDS[model][0], "negative_prompt": WORDS[model][1],
                      "width": init.width, "height": init.height,
                      "latents": f"latents.{i}", "rgb": None})
        if strength in (0.3, 0.6, 0.8) and sampler == "ddim":
            cases[-1]["rgb"] = f"rgb.{i}"
            out[f"rgb.{i}"] = torch.from_numpy(np.asarray(rgb).copy())
    stages.write(folder, out, {"cases": cases})


def alone(export_it, name):
    """One export by itself, to the folder that the command line names."""
    torch.set_grad_enabled(False)
    torch.set_num_threads(1)
    warnings.filterwarnings("ignore")
    diffusers.logging.set_verbosity_error()
    diffusers.logging.disable_progress_bar()
    export_it(ROOT, Path(sys.argv[1]) if len(sys.argv) > 1 else ROOT / "tests/golden" / name)


if __name__ == "__main__":
    alone(export, "starts")
