"""Tensors of one model, stage by stage: text, time embedding, UNet, VAE; and their files.

Every stage returns what cases.json says about it and puts its tensors into `out`.
"""
import json
import re

import torch
import torch.nn.functional as F
from safetensors.torch import save_file


def lines(value, depth=0):
    """JSON in ASCII with one case a line: lists of objects are spread, the rest is not."""
    if isinstance(value, dict) and depth < 2:
        inner = (f"{json.dumps(k)}: {lines(v, depth + 1)}" for k, v in value.items())
        return "{" + ",\n".join(inner) + "}"
    if isinstance(value, list) and value and isinstance(value[0], dict):
        return "[\n" + ",\n".join(json.dumps(v) for v in value) + "]"
    return json.dumps(value)


def write(folder, out, cases):
    """A folder of fixtures: the tensors `out`, and what is said of them."""
    folder.mkdir(parents=True, exist_ok=True)
    save_file({k: v.detach().contiguous().clone() for k, v in out.items()},
              folder / "stages.safetensors")
    (folder / "stages.safetensors").chmod(0o644)     # safetensors makes it private
    (folder / "cases.json").write_text(lines(cases) + "\n")


def seeded(seed, *shape):
    return torch.randn(shape, generator=torch.Generator("cpu").manual_seed(seed))


def picture(seed, height, width):
    """A smooth picture in [-1, 1] that uses most of the range."""
    x = F.interpolate(seeded(seed, 1, 3, 4, 4), (height, width), mode="bicubic",
                      align_corners=True)
    return torch.tanh(1.2 * x)


class Capture:
    """Keep the outputs of the modules whose path matches `pattern`, by path."""

    def __init__(self, module, prefix, pattern, out):
        self.hooks = []
        for path, m in module.named_modules():
            if re.fullmatch(pattern, path):
                def keep(_m, _in, y, name=prefix + path):
                    y = y[0] if isinstance(y, tuple) else getattr(y, "sample", y)
                    out[name] = y.detach().clone()
                self.hooks.append(m.register_forward_hook(keep))

    def __enter__(self):
        return self

    def __exit__(self, *_):
        for h in self.hooks:
            h.remove()


UNET_PARTS = (r"conv_in|conv_norm_out|conv_out|time_embedding"
              r"|(down|up)_blocks\.\d+\.(resnets|attentions|downsamplers|upsamplers)\.\d+"
              r"|mid_block\.(resnets|attentions)\.\d+"
              r"|down_blocks\.0\.attentions\.0\.(norm|proj_in|proj_out)"
              r"|down_blocks\.0\.attentions\.0\.transformer_blocks\.0"
              r"(\.(norm1|attn1|norm2|attn2|norm3|ff))?"
              r"|down_blocks\.0\.resnets\.0\.(norm1|conv1|time_emb_proj|norm2|conv2)")
VAE_PARTS = (r"quant_conv|post_quant_conv"
             r"|(encoder|decoder)\.(conv_in|conv_norm_out|conv_out|mid_block)"
             r"|(encoder|decoder)\.mid_block\.(resnets|attentions)\.\d+"
             r"|(encoder|decoder)\.(down|up)_blocks\.\d+")


def text(pipe, prompts, out):
    ids = pipe.tokenizer(prompts, padding="max_length", max_length=77, truncation=True,
                         return_tensors="pt").input_ids
    y = pipe.text_encoder(ids, output_hidden_states=True)
    out["text.ids"] = ids.int()
    for i, h in enumerate(y.hidden_states):
        out["text.embeddings" if i == 0 else f"text.layers.{i - 1}"] = h
    out["text.last_hidden_state"] = y.last_hidden_state
    out["text.clip_skip_1"] = pipe.text_encoder.text_model.final_layer_norm(y.hidden_states[-2])
    return {"prompts": prompts, "ids": "text.ids", "embeddings": "text.embeddings",
            "layers": [f"text.layers.{i}" for i in range(len(y.hidden_states) - 1)],
            "last_hidden_state": "text.last_hidden_state", "clip_skip_1": "text.clip_skip_1"}


def time(pipe, out):
    steps = [1.0, 500.0, 981.0, 378.25]
    out["time.proj"] = pipe.unet.time_proj(torch.tensor(steps))
    out["time.embedding"] = pipe.unet.time_embedding(out["time.proj"])
    return {"timesteps": steps, "proj": "time.proj", "embedding": "time.embedding"}


def unet(pipe, out, sizes):
    """The first size with all stages and batch 2; then each size once with one row."""
    context = out["text.last_hidden_state"]
    cases = []

    def call(prefix, x, rows, t):
        out[prefix + "sample"] = x
        out[prefix + "output"] = pipe.unet(x, t, context[rows]).sample
        cases.append({"sample": prefix + "sample", "context": "text.last_hidden_state",
                      "context_rows": rows, "timestep": t, "output": prefix + "output",
                      "stages": None})

    with Capture(pipe.unet, "unet.", UNET_PARTS, out):
        call("unet.", seeded(100, 2, 4, 8, 8), [0, 1], 500)
    cases[0]["stages"] = "unet."
    for i, (label, h, w) in enumerate(sizes):
        call(f"unet.{label}.", seeded(101 + i, 1, 4, h, w), [1], (981, 1, 261.5)[i % 3])
    return cases


def vae(pipe, out, sizes):
    """Inputs of decode are what AutoencoderKL.decode gets: already divided by scaling_factor."""
    model, encode, decode = pipe.vae, [], []

    def both(prefix, seed, h, w):
        out[prefix + "input"] = picture(seed, h * 8, w * 8)
        dist = model.encode(out[prefix + "input"]).latent_dist
        # logvar is clamped to [-30, 20], as diffusers does
        out[prefix + "mean"], out[prefix + "logvar"] = dist.mean, dist.logvar
        out[prefix + "latents"] = seeded(seed + 1, 1, 4, h, w) / model.config.scaling_factor
        out[prefix + "output"] = model.decode(out[prefix + "latents"]).sample
        encode.append({"input": prefix + "input", "mean": prefix + "mean",
                       "logvar": prefix + "logvar", "stages": None})
        decode.append({"latents": prefix + "latents", "output": prefix + "output",
                       "stages": None})

    with Capture(model, "vae.", VAE_PARTS, out):
        both("vae.", 200, 4, 4)
    encode[0]["stages"], decode[0]["stages"] = "vae.encoder.", "vae.decoder."
    for i, (label, h, w) in enumerate(sizes):
        both(f"vae.{label}.", 210 + 2 * i, h, w)
    return {"encode": encode, "decode": decode}
