"""Write tests/golden/hires: two passes by diffusers' pipelines, one generator through both.

    python contrib/goldens/hires.py [OUT]        # alone, without the other fixtures

The first pass is StableDiffusionPipeline; its latents are enlarged by bilinear interpolation,
or its picture by Pillow's Lanczos; StableDiffusionImg2ImgPipeline makes the second, of a picture
from the mean of the encoder's distribution.
"""
import json

import numpy as np
import torch
from diffusers import StableDiffusionImg2ImgPipeline, StableDiffusionPipeline
from PIL import Image

import samplers
import stages
import starts

ROOT = starts.ROOT
STEPS, CFG, SEED = 6, 5.0, 33

# model, sampler, schedule, scale, steps of the second pass (0: as the first), strength, upscaler
CASES = [
    (starts.TINY, "ddim", "normal", 1.5, 0, 0.7, "latent"),
    (starts.TINY, "euler_a", "normal", 2.0, 10, 0.55, "latent"),
    (starts.TINY, "euler", "normal", 1.25, 0, 1.0, "latent"),
    (starts.TINY, "dpmpp_2m", "karras", 1.5, 8, 0.5, "lanczos"),
    (starts.DEMO, "ddim", "normal", 1.5, 5, 0.6, "lanczos"),
]


def lanczos(picture, w, h):
    """Pillow's, not rounded to bytes: [1, 3, h, w] in 0..1."""
    planes = [np.asarray(Image.fromarray(np.asarray(c, np.float32)).resize((w, h), Image.LANCZOS))
              for c in picture.split()]
    return torch.from_numpy(np.stack(planes).clip(0, 255) / 255)[None]


def run(pipe, config, case):
    model, sampler, schedule, scale, steps, strength, upscaler = case
    height, width = starts.SIZE[model]
    to_h, to_w = (round(side * scale / 8) * 8 for side in (height, width))
    prompt, negative = starts.WORDS[model]
    eta = {"eta": 0.0} if sampler == "ddim" else {}
    generator, states = torch.Generator("cpu").manual_seed(SEED), []
    common = {"prompt": prompt, "negative_prompt": negative, "guidance_scale": CFG,
              "output_type": "latent", "generator": generator, **eta}
    pipe.scheduler = samplers.make(config, sampler, schedule)
    pipe.set_progress_bar_config(disable=True)
    latents = pipe(num_inference_steps=STEPS, height=height, width=width,
                   callback_on_step_end=lambda *a: states.append(generator.get_state()) or {},
                   **common).images
    if sampler == "euler_a":       # its last step draws noise and multiplies it by 0
        generator.set_state(states[-2])
    again = StableDiffusionImg2ImgPipeline(**{**pipe.components, "image_encoder": None},
                                           requires_safety_checker=False)
    again.scheduler = samplers.make(config, sampler, schedule)
    again.set_progress_bar_config(disable=True)
    if upscaler == "latent":
        image = torch.nn.functional.interpolate(latents, size=(to_h // 8, to_w // 8),
                                                mode="bilinear")
    else:
        rgb = pipe.vae.decode(latents / pipe.vae.config.scaling_factor).sample
        small = pipe.image_processor.postprocess(rgb, output_type="pil")[0]
        image = lanczos(small, to_w, to_h)
    return starts.with_mean(lambda: again(image=image, num_inference_steps=steps or STEPS,
                                          strength=strength, **common).images)


def export(root, folder):
    """The models lie under root."""
    out, cases = {}, []
    for i, case in enumerate(CASES):
        model, sampler, schedule, scale, steps, strength, upscaler = case
        pipe = StableDiffusionPipeline.from_pretrained(root / model, torch_dtype=torch.float32,
                                                       safety_checker=None)
        config = json.loads((root / model / "scheduler/scheduler_config.json").read_text())
        y = run(pipe, config, case)
        assert y.isfinite().all(), case
        out[f"latents.{i}"] = y.contiguous()
        height, width = starts.SIZE[model]
        cases.append({"model": model, "sampler": sampler, "schedule": schedule,
                      "steps": STEPS, "cfg": CFG, "seed": str(SEED),
                      "prompt": starts.WORDS[model][0],
                      "negative_prompt": starts.WORDS[model][1], "width": width,
                      "height": height, "scale": scale, "hires_steps": steps,
                      "strength": strength, "upscaler": upscaler, "latents": f"latents.{i}"})
    stages.write(folder, out, {"cases": cases})


if __name__ == "__main__":
    starts.alone(export, "hires")
