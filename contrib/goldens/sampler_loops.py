"""Writes tests/unit/sampler_loops.h: whole loops of every sampler and schedule.

Three values go through diffusers' schedulers or k-diffusion's samplers, with the formula
m = 0.3 u cos(t / 250) + 0.1 in the model's place (u: the scaled latents) and noise
z[k][i] = cos(1.3 (k + 1) + i) for the k-th draw. Schedules that diffusers lacks are written
here by their published rule (ComfyUI's comfy/samplers.py, "Align your steps").

    v/bin/pip install k-diffusion==0.1.1.post1 --no-deps; v/bin/pip install torchsde torchdiffeq
    v/bin/python contrib/goldens/sampler_loops.py > tests/unit/sampler_loops.h
"""
import importlib.util
import json
import math
import sys
import types
from pathlib import Path

import diffusers
import numpy as np
import scipy.stats
import torch

F = torch.float64
BASE = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear",
        "num_train_timesteps": 1000, "set_alpha_to_one": False, "steps_offset": 1,
        "clip_sample": False, "trained_betas": None}
START = torch.tensor([-1.5, 0.25, 2.0], dtype=F).reshape(1, 3)
PICTURE = torch.tensor([0.7, -0.2, 1.1], dtype=F).reshape(1, 3)
PREDICTIONS = ("epsilon", "v_prediction")
COUNTS = (1, 2, 5, 20)


def k_sampling():
    """k_diffusion.sampling without the package's training code and its requirements."""
    root = Path(importlib.util.find_spec("k_diffusion").submodule_search_locations[0])
    package = types.ModuleType("k_diffusion")
    package.__path__ = [str(root)]
    utils = types.ModuleType("k_diffusion.utils")
    utils.append_dims = lambda x, n: x[(...,) + (None,) * (n - x.ndim)]
    sys.modules["k_diffusion"], sys.modules["k_diffusion.utils"] = package, utils
    package.utils = utils
    import k_diffusion.sampling
    return k_diffusion.sampling


class Draws:
    def __init__(self):
        self.k = 0

    def __call__(self, *_, **__):
        self.k += 1
        return torch.cos(1.3 * self.k + torch.arange(3, dtype=F)).reshape(1, 3)


def model(u, t):
    return 0.3 * u * math.cos(t / 250) + 0.1


# --- rows ----------------------------------------------------------------------------------

rows = []


def row(keys, sampler, schedule, steps, x, stamps, init=0.0, eta=None, first=0, sigmas=(),
        timesteps=()):
    assert bool(torch.isfinite(x).all()), (sampler, schedule, steps, keys)
    text = json.dumps(keys)[1:-1]
    text = (text + "," if text else "").replace('"', '\\"')
    weighted = sum((i + 1) * float(t) for i, t in enumerate(stamps))
    number = lambda v: "%.9g" % float(v)
    listed = lambda v: "{ %s }" % ", ".join("%.9g" % float(s) for s in v) if len(v) else "{ 0 }"
    values = [f'"{text}"', f"DR_SAMPLER_{sampler.upper()}", f"DR_SCHEDULE_{schedule.upper()}",
              str(steps), str(first), "NAN" if eta is None else number(eta), number(init),
              "%.12g" % weighted, str(len(stamps)),
              "{ %s }" % ", ".join(number(v) for v in x.reshape(-1)), listed(sigmas),
              listed(timesteps)]
    rows.append("{ " + ", ".join(values) + " }")


# --- diffusers -----------------------------------------------------------------------------

FLAGS = {"karras": {"use_karras_sigmas": True}, "exponential": {"use_exponential_sigmas": True},
         "beta": {"use_beta_sigmas": True}, "normal": {}, "custom": {}}


def diffuse(cls, sampler, schedule, steps, extra, first=0, eta=None, config=None, lists=None):
    """A scheduler's loop; extra: keys of its file. lists: sigmas or timesteps to pass."""
    keys = {**extra}
    s = cls.from_config({**BASE, **extra, **(config or {})}, **FLAGS[schedule])
    draws = Draws()
    sys.modules[cls.__module__].randn_tensor = draws
    s.set_timesteps(**(lists or {"num_inference_steps": steps}))
    stamps = s.timesteps
    x = START * float(s.init_noise_sigma)
    if first:
        if hasattr(s, "set_begin_index"):
            s.set_begin_index(first * s.order)
        stamps = stamps[first * s.order:]
        x = s.add_noise(PICTURE, START, stamps[:1])
    given = {"eta": eta} if eta is not None else {}
    for t in stamps:
        u = s.scale_model_input(x, t)
        x = s.step(model(u, float(t)), t, x, **given).prev_sample
    shown = {k: [float(v) for v in np.asarray(l, np.float64)] for k, l in (lists or {}).items()
             if k in ("sigmas", "timesteps")}
    row(keys, sampler, schedule, steps, x, stamps, s.init_noise_sigma, eta, first, **shown)


def from_diffusers():
    d = diffusers
    sigma = {"heun": d.HeunDiscreteScheduler, "dpm_2": d.KDPM2DiscreteScheduler,
             "dpm_2_a": d.KDPM2AncestralDiscreteScheduler, "lms": d.LMSDiscreteScheduler,
             "euler": d.EulerDiscreteScheduler}
    for name, cls in sigma.items():
        for schedule in ("normal", "karras", "exponential", "beta"):
            if name == "euler" and schedule in ("normal", "karras"):
                continue                      # in sampler_cases.h
            for p in PREDICTIONS:
                for n in COUNTS:
                    if n == 1 and schedule == "normal":
                        continue              # at timestep 0 its sigma_interpol is NaN
                    diffuse(cls, name, schedule, n, {"prediction_type": p})
        for spacing in ("leading", "trailing"):
            for n in (1, 5, 20):
                diffuse(cls, name, "normal", n, {"timestep_spacing": spacing})
    sde = {"algorithm_type": "sde-dpmsolver++"}
    multi = [("dpmpp_2m_sde", d.DPMSolverMultistepScheduler, sde, [
                 {}, {"solver_type": "heun"}, {"timestep_spacing": "trailing"}]),
             ("dpmpp_2m", d.DPMSolverMultistepScheduler, {}, [
                 {"solver_type": "heun"}, {"solver_order": 3}, {"solver_order": 1}]),
             ("uni_pc", d.UniPCMultistepScheduler, {}, [
                 {}, {"solver_order": 1}, {"solver_order": 3},
                 {"solver_type": "bh1", "final_sigmas_type": "sigma_min"},
                 {"solver_type": "bh1", "solver_order": 3, "final_sigmas_type": "sigma_min"},
                 {"solver_order": 3, "final_sigmas_type": "sigma_min",
                  "lower_order_final": False}, {"timestep_spacing": "trailing"},
                 {"timestep_spacing": "leading"}]),
             ("deis", d.DEISMultistepScheduler, {}, [
                 {}, {"solver_order": 1}, {"solver_order": 3},
                 {"solver_order": 3, "lower_order_final": False},
                 {"timestep_spacing": "trailing"}])]
    for name, cls, config, variants in multi:
        for extra in variants:
            for schedule in ("normal", "karras"):
                for p in PREDICTIONS + (("sample",) if not extra else ()):
                    for n in COUNTS:
                        if schedule == "karras" and n == 1 and name == "deis":
                            continue          # it ends where it begins, at the noisiest
                        if schedule == "karras" and not extra.get("lower_order_final", True):
                            continue          # NaN: the last two sigmas are equal
                        if schedule == "karras" and n == 1 and "final_sigmas_type" in extra:
                            continue          # it ends where it begins
                        diffuse(cls, name, schedule, n, {**extra, "prediction_type": p},
                                config=config)
    training = [("ddpm", d.DDPMScheduler, {}, [None], COUNTS),
                ("ddpm", d.DDPMScheduler, {"variance_type": "fixed_large"}, [None], (5, 20)),
                ("pndm", d.PNDMScheduler, {}, [None], COUNTS + (3, 4)),
                ("pndm", d.PNDMScheduler, {"set_alpha_to_one": True}, [None], (5, 20)),
                ("lcm", d.LCMScheduler, {}, [None], (1, 2, 4, 5, 20, 50)),
                ("lcm", d.LCMScheduler, {"original_inference_steps": 100,
                                         "timestep_scaling": 2.0}, [None], (1, 4, 60)),
                ("tcd", d.TCDScheduler, {}, [0.3, 0.0, 1.0], (1, 2, 4, 5, 20)),
                ("ddim", d.DDIMScheduler, {}, [0.5, 1.0], (2, 5, 20))]
    for name, cls, extra, etas, counts in training:
        config = {"skip_prk_steps": True} if name == "pndm" else {}
        for eta in etas:
            for p in PREDICTIONS:
                for n in counts:
                    diffuse(cls, name, "normal", n, {**extra, "prediction_type": p}, eta=eta,
                            config=config)
    for name, cls in (("ddpm", d.DDPMScheduler), ("pndm", d.PNDMScheduler)):
        for spacing in ("trailing", "linspace"):
            for n in (5, 20):
                diffuse(cls, name, "normal", n, {"timestep_spacing": spacing},
                        config={"skip_prk_steps": True})
    zero = {"rescale_betas_zero_snr": True, "prediction_type": "v_prediction",
            "timestep_spacing": "trailing"}
    for name, cls in (("uni_pc", d.UniPCMultistepScheduler), ("lcm", d.LCMScheduler),
                      ("tcd", d.TCDScheduler), ("ddpm", d.DDPMScheduler)):
        for n in (1, 5, 20):
            diffuse(cls, name, "normal", n, zero)


def lists_and_starts():
    d = diffusers
    few = [999, 850, 736, 645, 545, 455, 343, 233, 124, 24]
    sigmas = [14.615, 6.475, 3.861, 2.697, 1.886, 1.396, 0.963, 0.652, 0.399, 0.152, 0.0]
    for name, cls in (("euler", d.EulerDiscreteScheduler), ("heun", d.HeunDiscreteScheduler),
                      ("dpmpp_2m", d.DPMSolverMultistepScheduler)):
        diffuse(cls, name, "custom", 10, {}, lists={"timesteps": few})
    diffuse(d.EulerDiscreteScheduler, "euler", "custom", 10, {}, lists={"sigmas": sigmas})
    for name, cls in (("euler", d.EulerDiscreteScheduler), ("heun", d.HeunDiscreteScheduler),
                      ("euler_a", d.EulerAncestralDiscreteScheduler),
                      ("dpm_2", d.KDPM2DiscreteScheduler),
                      ("dpmpp_2m", d.DPMSolverMultistepScheduler),
                      ("uni_pc", d.UniPCMultistepScheduler),
                      ("deis", d.DEISMultistepScheduler), ("ddim", d.DDIMScheduler),
                      ("lcm", d.LCMScheduler), ("tcd", d.TCDScheduler),
                      ("ddpm", d.DDPMScheduler)):
        for p in PREDICTIONS:
            for steps, first in ((20, 5), (20, 19), (5, 2)):
                diffuse(cls, name, "normal", steps, {"prediction_type": p}, first=first)


def flow():
    d = diffusers
    for keys, tokens in (({}, 0), ({"shift": 3.0}, 0), ({"use_dynamic_shifting": True}, 1024)):
        for n in COUNTS:
            s = d.FlowMatchEulerDiscreteScheduler(**keys)
            m = (1.15 - 0.5) / (4096 - 256)
            mu = {"mu": tokens * m + 0.5 - m * 256} if tokens else {}
            s.set_timesteps(sigmas=np.linspace(1.0, 1 / n, n), **mu)
            x = START
            for t in s.timesteps:
                x = s.step(model(x, float(t)), t, x.double(), return_dict=False)[0].double()
            row({"_class_name": "FlowMatchEulerDiscreteScheduler", **keys}, "euler", "normal",
                n, x, s.timesteps, 1)
    for n in (1, 2, 5, 10):
        s = d.FlowMatchHeunDiscreteScheduler(shift=3.0)
        s.set_timesteps(n)
        x = START
        for t in s.timesteps:
            x = s.step(model(x, float(t)), t, x.double(), return_dict=False)[0].double()
        row({"_class_name": "FlowMatchHeunDiscreteScheduler"}, "heun", "custom", n, x,
            s.timesteps, 1, sigmas=[float(v) for v in s.sigmas[::2]][:n])


# --- k-diffusion ---------------------------------------------------------------------------

class Wrapped:
    """k-diffusion's DiscreteEpsDDPMDenoiser and CompVisVDenoiser for the formula above."""

    def __init__(self, prediction):
        s = diffusers.EulerDiscreteScheduler.from_config({**BASE})
        self.table = np.array(((1 - s.alphas_cumprod) / s.alphas_cumprod) ** 0.5, np.float64)
        self.log, self.prediction, self.stamps = np.log(self.table), prediction, []

    def timestep(self, sigma):
        low = int(np.clip(np.searchsorted(self.log, math.log(sigma), "right") - 1, 0, 998))
        w = np.clip((self.log[low] - math.log(sigma)) / (self.log[low] - self.log[low + 1]), 0, 1)
        return (1 - w) * low + w * (low + 1)

    def sigma(self, t):
        return np.exp(np.interp(t, np.arange(1000), self.log))

    def __call__(self, x, sigma):
        s = float(sigma[0])
        t = self.timestep(s)
        self.stamps.append(t)
        m = model(x / math.sqrt(s * s + 1), t)
        if self.prediction == "epsilon":
            return x - s * m
        return x / (s * s + 1) - m * s / math.sqrt(s * s + 1)


def schedule_rules():
    """sigmas by schedule, without the 0 at the end."""
    w = Wrapped("epsilon")
    table, top, low = w.table, w.table[-1], w.table[0]

    def linear_quadratic(n, threshold=0.025):
        if n == 1:
            return np.array([top])
        half = n // 2
        line = [i * threshold / half for i in range(half)]
        gap, rest = half - threshold * n, n - half
        a, b = gap / (half * rest ** 2), threshold / half - 2 * gap / rest ** 2
        curve = [a * i * i + b * i + a * half ** 2 for i in range(half, n)]
        return np.array([1 - v for v in line + curve]) * top

    def ays(n):
        t = np.array([14.615, 6.475, 3.861, 2.697, 1.886, 1.396, 0.963, 0.652, 0.399, 0.152,
                      0.029])
        at = np.linspace(0, 1, n + 1)
        return np.exp(np.interp(at, np.linspace(0, 1, 11), np.log(t)))[:-1]

    kl = lambda n: np.tan(np.linspace(0, 1, n) * math.atan(low)
                          + (1 - np.linspace(0, 1, n)) * math.atan(top))
    return w, {
        "normal": lambda n: w.sigma(np.linspace(999, 0, n)) if n > 1 else np.array([top]),
        "karras": lambda n: k.get_sigmas_karras(n, low, top).numpy()[:-1],
        "exponential": lambda n: k.get_sigmas_exponential(n, low, top).numpy()[:-1],
        "beta": lambda n: low + scipy.stats.beta.ppf(1 - np.linspace(0, 1, n), .6, .6)
        * (top - low),
        "sgm_uniform": lambda n: w.sigma(np.linspace(999, 0, n + 1)[:-1]),
        "simple": lambda n: np.array([table[-(1 + int(i * (1000 / n)))] for i in range(n)]),
        "ddim_uniform": lambda n: table[1::1000 // n][:n][::-1],
        "ays": ays, "kl_optimal": kl, "linear_quadratic": linear_quadratic}


def kdiffuse(sampler, function, schedule, sigmas, prediction, eta=None, alpha=False,
             noise=None):
    w, draws = Wrapped(prediction), Draws()
    x = START * (math.sqrt(sigmas[0] ** 2 + 1) if alpha else sigmas[0])
    more = {}
    if eta is not None or noise is not None:
        more = {"noise_sampler": noise(draws) if noise else draws,
                "eta": 1.0 if eta is None else eta}
    levels = torch.tensor(np.append(sigmas, 0.0), dtype=F)
    x = function(w, x, levels, disable=True, **more)
    row({"prediction_type": prediction, "timestep_spacing": "linspace"}, sampler, schedule,
        len(sigmas), x, w.stamps, 1 if alpha else sigmas[0], eta)


def brownian(draws):
    """Both noises of a dpmpp_sde step as of one Brownian path over sigma."""
    last = {}

    def noise(a, b):
        a, b = float(a), float(b)
        if last.get("from") != a:
            last.update({"from": a, "to": b, "z": draws()})
            return last["z"]
        shared = (a - last["to"]) / (a - b)
        last["from"] = None
        return math.sqrt(shared) * last["z"] + math.sqrt(1 - shared) * draws()
    return noise


def from_k_diffusion():
    _, rules = schedule_rules()
    plain = lambda draws: draws
    samplers = [("dpmpp_2s_a", k.sample_dpmpp_2s_ancestral, plain),
                ("dpmpp_sde", k.sample_dpmpp_sde, brownian),
                ("dpmpp_3m_sde", k.sample_dpmpp_3m_sde, plain),
                ("euler_a", k.sample_euler_ancestral, plain),
                ("dpm_2_a", k.sample_dpm_2_ancestral, plain)]
    for name, function, noise in samplers:
        for schedule in ("karras", "exponential", "sgm_uniform"):
            if name == "dpm_2_a" and schedule == "karras":
                continue                      # diffusers rounds its timesteps
            for p in PREDICTIONS:
                for eta in (None, 0.5, 0.0):
                    for n in (COUNTS if eta is None else (5, 20)):
                        if n == 1 and name == "dpmpp_3m_sde":
                            continue          # an error there
                        if n == 1 and name in ("euler_a", "dpm_2_a"):
                            continue          # here as diffusers': the cleanest level
                        kdiffuse(name, function, schedule, rules[schedule](n), p, eta,
                                 noise=noise)
    for name, function in (("lms", k.sample_lms), ("heun", k.sample_heun),
                           ("dpm_2", k.sample_dpm_2)):
        for schedule in ("sgm_uniform", "simple"):
            for p in PREDICTIONS:
                for n in COUNTS:
                    kdiffuse(name, function, schedule, rules[schedule](n), p)
    for p in PREDICTIONS:
        for n in COUNTS:
            for eta in (0.5, 0.0) if n > 1 else ():
                kdiffuse("dpmpp_2m_sde", k.sample_dpmpp_2m_sde, "exponential",
                         rules["exponential"](n), p, eta, alpha=True, noise=plain)
            kdiffuse("dpmpp_2m", k.sample_dpmpp_2m, "exponential", rules["exponential"](n), p,
                     alpha=True)
    for schedule, rule in rules.items():
        for n in (1, 2, 3, 5, 7, 10, 20, 50):
            if n == 1 and schedule in ("normal", "karras", "exponential", "beta", "kl_optimal"):
                continue                      # diffusers' one step is the cleanest; 0 / 0
            kdiffuse("euler", k.sample_euler, schedule, rule(n), "epsilon")


k = k_sampling()
from_diffusers()
lists_and_starts()
flow()
from_k_diffusion()
print(f"""/* clang-format off */
/* Made by contrib/goldens/sampler_loops.py with diffusers {diffusers.__version__}, torch
 * {torch.__version__.split('+')[0]} and k-diffusion 0.1.1: see there. weighted: sum of (i + 1) *
 * timestep[i] over the rows. */
static const struct {{
    const char *keys; /* of scheduler_config.json, in front of SD 1.5's */
    dr_sampler_id sampler;
    dr_schedule_id schedule;
    int64_t steps, first;
    double eta, init, weighted;
    int64_t count;
    double x[3]; /* the latents at the end */
    double sigmas[12], timesteps[12]; /* the list of a custom schedule */
}} loops[] = {{""")
print("\n".join("    " + r + "," for r in rows))
print("};\n/* clang-format on */")
