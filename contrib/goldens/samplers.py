"""Samplers: whole runs of a model, runs of a formula, and tables without any run."""
import json
import math

import numpy as np
import torch
from diffusers import (DDIMScheduler, DPMSolverMultistepScheduler,
                       EulerAncestralDiscreteScheduler, EulerDiscreteScheduler)

CLASS = {"ddim": DDIMScheduler, "euler": EulerDiscreteScheduler,
         "euler_a": EulerAncestralDiscreteScheduler, "dpmpp_2m": DPMSolverMultistepScheduler}
# In diffusers 0.31 only these two know use_karras_sigmas.
PAIRS = [("ddim", "normal"), ("euler", "normal"), ("euler", "karras"), ("euler_a", "normal"),
         ("dpmpp_2m", "normal"), ("dpmpp_2m", "karras")]


def make(config, sampler, schedule):
    extra = {"use_karras_sigmas": True} if schedule == "karras" else {}
    return CLASS[sampler].from_config(config, **extra)


def numbers(x):
    return [float(v) for v in np.asarray(x, np.float64)]


def table(s):
    """What set_timesteps left behind; for ddim the alpha-bars of each step instead of sigmas."""
    t = {"timesteps": numbers(s.timesteps), "init_noise_sigma": float(s.init_noise_sigma)}
    if isinstance(s, DDIMScheduler):
        back = s.config.num_train_timesteps // s.num_inference_steps
        prev = [int(v) - back for v in s.timesteps]
        t["alpha_bar"] = numbers(s.alphas_cumprod[s.timesteps])
        t["alpha_bar_prev"] = [float(s.alphas_cumprod[p] if p >= 0 else s.final_alpha_cumprod)
                               for p in prev]
    else:
        t["sigmas"] = numbers(s.sigmas)
    return t


def runs(pipe, config_path, root, out, prompt, negative, height, width, seed, tag=""):
    """Final latents of StableDiffusionPipeline, as it is, for every sampler."""
    config = json.loads((root / config_path).read_text())
    noise = f"sampler.noise.{seed}"
    shape = (1, 4, height // 8, width // 8)
    out[noise] = torch.randn(shape, generator=torch.Generator("cpu").manual_seed(seed))
    cases = []
    for sampler, schedule in PAIRS:
        for steps in (1, 2, 20):
            pipe.scheduler = make(config, sampler, schedule)
            name = f"sampler.{tag}{sampler}.{schedule}.{steps}"
            y = pipe(prompt, negative_prompt=negative, num_inference_steps=steps,
                     guidance_scale=5.0, height=height, width=width, output_type="latent",
                     generator=torch.Generator("cpu").manual_seed(seed)).images
            assert y.isfinite().all(), name
            out[name] = y
            cases.append({"scheduler": config_path, "sampler": sampler, "schedule": schedule,
                          "steps": steps, "cfg": 5.0, "eta": 0.0, "seed": str(seed),
                          "prompt": prompt, "negative_prompt": negative, "height": height,
                          "width": width, "noise": noise, "latents": name,
                          **table(pipe.scheduler)})
    return cases


BASE = {"num_train_timesteps": 1000, "beta_start": 0.00085, "beta_end": 0.012,
        "beta_schedule": "scaled_linear", "steps_offset": 1, "set_alpha_to_one": False,
        "clip_sample": False}
LOOP_SEED = 5


def loop(s, sampler, steps):
    s.set_timesteps(steps)
    gen = torch.Generator("cpu").manual_seed(LOOP_SEED)
    x = torch.randn(1, 4, 4, 4, generator=gen) * s.init_noise_sigma
    for t in s.timesteps:
        u = s.scale_model_input(x, t)
        m = 0.3 * u * math.cos(float(t) / 250) + 0.1
        kw = {"generator": gen} if sampler == "euler_a" else {}
        x = s.step(m, t, x, **kw).prev_sample
    return x.float()


def loops(out):
    """The formula m(u, t) = 0.3 u cos(t / 250) + 0.1 in the model's place.

    u is the latents after scale_model_input. The first row of loop.noise is the start
    (before init_noise_sigma); the k-th draw of euler_a is row k + 1.
    """
    g = torch.Generator("cpu").manual_seed(LOOP_SEED)
    draws = torch.stack([torch.randn(1, 4, 4, 4, generator=g) for _ in range(21)])
    out["loop.noise"] = draws
    zero_snr = {"rescale_betas_zero_snr": True, "prediction_type": "v_prediction"}
    settings = [(dict(timestep_spacing=sp, prediction_type=pr), (1, 2, 5, 20))
                for sp in ("leading", "trailing", "linspace")
                for pr in ("epsilon", "v_prediction", "sample")]
    settings.append((dict(timestep_spacing="trailing", **zero_snr), (5, 20)))
    settings.append((dict(timestep_spacing="leading", prediction_type="epsilon",
                          set_alpha_to_one=True, steps_offset=0), (5,)))
    settings.append((dict(timestep_spacing="leading", prediction_type="epsilon",
                          final_sigmas_type="sigma_min"), (5,)))
    settings.append((dict(timestep_spacing="leading", prediction_type="epsilon",
                          beta_schedule="linear", beta_start=1e-4, beta_end=0.02), (5,)))
    cases = []
    for extra, counts in settings:
        for sampler, schedule in PAIRS:
            if sampler == "euler_a" and extra["prediction_type"] == "sample":
                continue                  # not in diffusers 0.31
            for steps in counts:
                s = make({**BASE, **extra}, sampler, schedule)
                x = loop(s, sampler, steps)
                name = f"loop.{len(cases):03d}"
                assert x.isfinite().all(), name
                out[name] = x
                cases.append({"config": {**BASE, **extra}, "sampler": sampler,
                              "schedule": schedule, "steps": steps, "latents": name,
                              **table(s)})
    return {"seed": str(LOOP_SEED), "noise": "loop.noise", "cases": cases}


def tables():
    cases = []
    for spacing in (None, "leading", "trailing", "linspace"):
        extra = {"timestep_spacing": spacing} if spacing else {}
        for sampler, schedule in PAIRS:
            for steps in (1, 2, 7, 20, 50):
                s = make({**BASE, **extra}, sampler, schedule)
                s.set_timesteps(steps)
                cases.append({"config": {**BASE, **extra}, "sampler": sampler,
                              "schedule": schedule, "steps": steps, **table(s)})
    return cases


def betas():
    """alpha_bar of every beta schedule at a few timesteps, as EulerDiscrete computes it."""
    cases = []
    at = [0, 1, 10, 250, 500, 750, 998, 999]
    for schedule, start, end in (("scaled_linear", 0.00085, 0.012), ("linear", 1e-4, 0.02),
                                 ("squaredcos_cap_v2", 1e-4, 0.02)):
        for zero in (False, True):
            config = {**BASE, "beta_schedule": schedule, "beta_start": start, "beta_end": end,
                      "rescale_betas_zero_snr": zero}
            for sampler in ("ddim", "euler"):
                s = make(config, sampler, "normal")
                cases.append({"config": config, "sampler": sampler, "timesteps": at,
                              "alpha_bar": numbers(s.alphas_cumprod[at])})
    return cases


def torch_noise(out):
    """torch.randn of the CPU generator. Seeds are text: JSON numbers end at 2^53."""
    cases = []

    def draw(seed, counts, keep=None):
        g = torch.Generator("cpu").manual_seed(seed)
        names = []
        for k, n in enumerate(counts):
            x = torch.randn(n, generator=g)
            name = f"noise.{len(cases):02d}.{k}"
            out[name] = torch.cat([x[:keep], x[-keep:]]) if keep else x
            names.append(name)
        cases.append({"seed": str(seed), "counts": list(counts), "kept": keep,
                      "tensors": names})

    for seed in (0, 7, 2**32 - 1, 2**32 + 5, 2**53 + 1, 2**63 + 12345):
        draw(seed, [64])
    for seed in (0, 7, 2**53 + 1):
        draw(seed, [1000])
        draw(seed, [16384], keep=64)
    draw(0, [64, 64])
    draw(7, [1000, 64])
    draw(7, [16, 17, 31, 32])
    draw(7, [5, 5, 64, 3])        # fewer than 16 values take another path, with a memory
    return cases
