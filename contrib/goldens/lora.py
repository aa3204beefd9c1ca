"""Write tests/golden/lora: small LoRA files of every kind for tiny-sd1, and what its UNet and
text encoder compute with them.

    python contrib/goldens/lora.py [OUT]        # alone, without the other fixtures

Where diffusers 0.31 reads a format (PEFT, kohya, its own older names, DoRA of PEFT), it does
so here by load_lora_weights and set_adapters. LyCORIS' kinds are worked out from the formulas
of its modules (lycoris/modules/{locon,loha,lokr}.py, lycoris/functional/general.py, 3.1):

    LoCon   W + s·up·down; through a core ("lora_mid"): sum up[o,p] mid[p,q,k,l] down[q,i]
    LoHa    W + s·(w1_a·w1_b) * (w2_a·w2_b); through cores: sum t[p,q,k,l] a[p,o] b[q,i] each
    LoKr    W + s·kron(w1, w2), each whole or a·b, w2 also through a core
    DoRA    m·V/|V|, V = W + s·delta, norms by output ("wd_on_out") or by input

with s = alpha / rank, and 1 for a LoKr of two whole matrices. A strength x gives
W + x·(W' - W) for each.
"""
import json
import sys
import warnings
import zlib
from pathlib import Path

import diffusers
import numpy as np
import torch
from diffusers import StableDiffusionPipeline
from diffusers.loaders.single_file_utils import convert_ldm_unet_checkpoint
from safetensors.torch import load_file, save_file

ROOT = Path(__file__).resolve().parents[2]
MODEL = "tests/golden/tiny-sd1/model"
PROMPT = "a castle in the clouds"
BLOCK = "transformer_blocks.0"
LINEAR = [f"down_blocks.0.attentions.0.{BLOCK}.attn1.to_q",
          f"down_blocks.0.attentions.1.{BLOCK}.attn2.to_k",
          f"mid_block.attentions.0.{BLOCK}.attn2.to_v",
          f"up_blocks.1.attentions.2.{BLOCK}.attn1.to_out.0",
          f"up_blocks.3.attentions.0.{BLOCK}.ff.net.0.proj",
          f"up_blocks.2.attentions.1.{BLOCK}.ff.net.2"]
CONV = ["down_blocks.1.attentions.0.proj_in", "up_blocks.2.attentions.2.proj_out",
        "down_blocks.1.resnets.0.conv1", "mid_block.resnets.1.conv2",
        "down_blocks.0.downsamplers.0.conv", "up_blocks.1.upsamplers.0.conv",
        "up_blocks.0.upsamplers.0.conv", "up_blocks.2.resnets.1.conv_shortcut"]
OTHER = ["conv_in", "conv_out", "time_embedding.linear_1", "mid_block.resnets.0.time_emb_proj"]
TEXT = ["text_model.encoder.layers.0.self_attn.q_proj",
        "text_model.encoder.layers.1.self_attn.out_proj", "text_model.encoder.layers.1.mlp.fc1",
        "text_model.encoder.layers.2.mlp.fc2"]


def noise(name, *shape, size=1.0):
    x = np.random.default_rng([7, zlib.crc32(name.encode())]).standard_normal(shape, np.float32)
    return torch.from_numpy(x * np.float32(size))


def weight(pipe, part, layer):
    module = (pipe.unet if part == "unet" else pipe.text_encoder).get_submodule(layer)
    return module.weight


def length(x, dims):
    return x.pow(2).sum(dims, keepdim=True).sqrt()


def pair(pipe, part, layer, rank, tag):
    """down and up of one layer, so large that they matter."""
    w = weight(pipe, part, layer)
    out, rest = w.shape[0], w.shape[1:]
    fan = rest.numel()
    down = noise(tag + layer + ".down", rank, *rest, size=fan ** -.5)
    up = noise(tag + layer + ".up", out, rank, *[1] * (len(rest) - 1), size=.7 * rank ** -.5)
    return down, up


# --- names ---

def original_names():
    """UNet layer -> name in CompVis' code, by diffusers' own reader of such checkpoints."""
    resnet = ["in_layers.2", "emb_layers.1", "out_layers.3", "skip_connection"]
    inner = [f"attn{a}.to_{x}" for a in (1, 2) for x in ("q", "k", "v", "out.0")]
    inner += ["ff.net.0.proj", "ff.net.2"]
    spatial = ["proj_in", "proj_out"] + [f"{BLOCK}.{p}" for p in inner]
    names = ["time_embed.0", "time_embed.2", "input_blocks.0.0", "out.0", "out.2"]
    for i in range(1, 12):
        names += [f"input_blocks.{i}.0.op"] if i % 3 == 0 else [
            f"input_blocks.{i}.0.{p}" for p in resnet] + [
            f"input_blocks.{i}.1.{p}" for p in spatial if i < 9]
    for i in range(12):
        names += [f"output_blocks.{i}.0.{p}" for p in resnet]
        names += [f"output_blocks.{i}.1.{p}" for p in spatial if i > 2]
    names += ["output_blocks.2.1.conv", "output_blocks.5.2.conv", "output_blocks.8.2.conv"]
    names += [f"middle_block.{i}.{p}" for i in (0, 2) for p in resnet]
    names += [f"middle_block.1.{p}" for p in spatial]
    marks = {f"model.diffusion_model.{n}.{k}": torch.tensor([i])
             for i, n in enumerate(names) for k in ("weight", "bias")}
    config = {"layers_per_block": 2, "class_embed_type": None, "addition_embed_type": None}
    found = convert_ldm_unet_checkpoint(marks, config)
    return {k.removesuffix(".weight"): names[int(v)] for k, v in found.items()
            if k.endswith(".weight")}


def kohya(part, layer):
    return ("lora_unet_" if part == "unet" else "lora_te_") + layer.replace(".", "_")


# --- files that diffusers reads ---

def peft(pipe):
    """Names of PEFT under diffusers, no alpha: it is the rank."""
    state = {}
    for part, layers in (("unet", LINEAR + CONV[:2]), ("text_encoder", TEXT)):
        for layer in layers:
            down, up = pair(pipe, part, layer, 2, "peft")
            state[f"{part}.{layer}.lora_A.weight"] = down
            state[f"{part}.{layer}.lora_B.weight"] = up
    return state


def kohya_diffusers(pipe):
    """kohya's names with diffusers' blocks, alpha half the rank."""
    state = {}
    for part, layers in (("unet", LINEAR + CONV[:2]), ("text_encoder", TEXT[:2])):
        for layer in layers:
            down, up = pair(pipe, part, layer, 3, "kohya")
            state[f"{kohya(part, layer)}.lora_down.weight"] = down.half()
            state[f"{kohya(part, layer)}.lora_up.weight"] = up.half()
            state[f"{kohya(part, layer)}.alpha"] = torch.tensor(1.5).half()
    return state


def processors(pipe):
    """diffusers' names before PEFT."""
    state = {}
    for part, layers in (("unet", LINEAR[:4]), ("text_encoder", TEXT[:2])):
        for layer in layers:
            down, up = pair(pipe, part, layer, 2, "old")
            name = f"{part}.{layer}.lora_linear_layer"
            if part == "unet":
                head, last = layer.removesuffix(".0").rsplit(".", 1)
                name = f"unet.{head}.processor.{last}_lora"
            state[name + ".down.weight"], state[name + ".up.weight"] = down.half(), up.half()
    return state


def dora_peft(pipe):
    state = {}
    for layer in LINEAR[:3] + CONV[2:3]:
        down, up = pair(pipe, "unet", layer, 2, "dora")
        w = weight(pipe, "unet", layer)
        size = w.flatten(1).norm(dim=1) * (1 + noise(layer + ".m", w.shape[0], size=.2))
        name = f"unet.{layer}"
        state[name + ".lora_A.weight"], state[name + ".lora_B.weight"] = down, up
        state[name + ".lora_magnitude_vector"] = size if w.ndim == 2 else size.view(1, -1, 1, 1)
    return state


# --- LyCORIS: (state, {(part, layer): W'}) ---

def merged_weight(state, name, base):
    """W' of one module of any kind, from the tensors as they are in the file."""
    def get(tail):
        x = state.get(f"{name}.{tail}")
        return None if x is None else x.float()

    def product(a, b, t=None):
        if t is None:
            return (a.flatten(1) @ b.flatten(1)).view(a.shape[0], -1)
        return torch.einsum("pqkl,po,qi->oikl", t, a, b)

    rank, shape = None, base.shape
    if get("lora_down.weight") is not None:
        down, up, mid = get("lora_down.weight"), get("lora_up.weight"), get("lora_mid.weight")
        rank = down.shape[0]
        delta = product(up, down) if mid is None else product(up.flatten(1).T, down.flatten(1), mid)
    elif get("hada_w1_a") is not None:
        rank = get("hada_w1_b").shape[0]
        delta = product(get("hada_w1_a"), get("hada_w1_b"), get("hada_t1")) * \
            product(get("hada_w2_a"), get("hada_w2_b"), get("hada_t2"))
    else:
        w1, w2 = get("lokr_w1"), get("lokr_w2")
        if w1 is None:
            w1, rank = get("lokr_w1_a") @ get("lokr_w1_b"), get("lokr_w1_b").shape[0]
        if w2 is None:
            rank = get("lokr_w2_b").shape[0]
            w2 = product(get("lokr_w2_a"), get("lokr_w2_b"), get("lokr_t2"))
        w2 = w2.reshape(w2.shape[0], shape[1] // w1.shape[1], *shape[2:]).contiguous()
        delta = torch.kron(w1.view(*w1.shape, *[1] * (w2.ndim - 2)), w2)
    alpha = get("alpha")
    scale = 1.0 if alpha is None or rank is None else float(alpha) / rank
    merged = base + scale * delta.reshape(shape)
    m = get("dora_scale")
    if m is not None:
        other = [0 if m.shape[0] == 1 else 1] + list(range(2, merged.ndim))
        merged = merged * (m / (length(merged, other) + torch.finfo().eps))
    return merged


def lycoris(pipe, state, names):
    """What a file makes of the layers {name: (part, layer)}."""
    return {place: merged_weight(state, name, weight(pipe, *place))
            for name, place in names.items()}


def locon(pipe):
    """Original block names, convolutions, one of them through a core."""
    state, names, original = {}, {}, original_names()
    for i, layer in enumerate(LINEAR + CONV + OTHER):
        name = "lora_unet_" + original[layer].replace(".", "_")
        w = weight(pipe, "unet", layer)
        down, up = pair(pipe, "unet", layer, 2, "locon")
        if layer == CONV[3]:
            state[f"{name}.lora_mid.weight"] = noise("mid", 2, 2, 3, 3, size=.3).half()
            down = noise("mid.down", 2, w.shape[1], 1, 1, size=.3)
        state[f"{name}.lora_down.weight"], state[f"{name}.lora_up.weight"] = down.half(), up.half()
        if i % 2:
            state[f"{name}.alpha"] = torch.tensor(1.0)
        names[name] = ("unet", layer)
    return state, names


def loha(pipe):
    state, names = {}, {}
    for part, layer in ([("unet", x) for x in LINEAR[:2] + [CONV[0], CONV[2], CONV[3]]]
                        + [("text_encoder", TEXT[2])]):
        name, w, core = kohya(part, layer), weight(pipe, part, layer), layer == CONV[3]
        for k in "12":
            shapes = ((2, w.shape[0]), (2, w.shape[1])) if core else (
                (w.shape[0], 2), (2, w[0].numel()))
            for tail, shape in zip((f"hada_w{k}_a", f"hada_w{k}_b"), shapes):
                state[f"{name}.{tail}"] = noise(name + tail, *shape, size=.5).bfloat16()
            if core:
                state[f"{name}.hada_t{k}"] = noise(name + k, 2, 2, 3, 3, size=.5).bfloat16()
        state[f"{name}.alpha"] = torch.tensor(0.75).bfloat16()
        names[name] = (part, layer)
    return state, names


def lokr(pipe):
    """w1 2 x 4; whole and decomposed matrices in all combinations."""
    state, names = {}, {}
    kinds = ["w1 w2", "w1 a2", "a1 a2", "a1 w2", "w1 a2", "w1 w2", "w1 t2"]
    layers = LINEAR[:4] + [CONV[2], CONV[4], CONV[3]]
    for kind, layer in zip(kinds, layers):
        name, w = kohya("unet", layer), weight(pipe, "unet", layer)
        o, i, window = w.shape[0] // 2, w.shape[1] // 4, w.shape[2:]

        def put(tail, *shape):
            state[f"{name}.{tail}"] = noise(name + tail, *shape, size=.35)

        if "w1" in kind:
            put("lokr_w1", 2, 4)
        else:
            put("lokr_w1_a", 2, 2), put("lokr_w1_b", 2, 4)
        if "w2" in kind:
            put("lokr_w2", o, i, *window)
        elif "a2" in kind:
            put("lokr_w2_a", o, 2), put("lokr_w2_b", 2, i * window.numel())
        else:
            put("lokr_w2_a", 2, o), put("lokr_w2_b", 2, i), put("lokr_t2", 2, 2, *window)
        state[f"{name}.alpha"] = torch.tensor(1.5)
        names[name] = ("unet", layer)
    return state, names


def dora_scales(pipe):
    """LyCORIS' dora_scale on LoRA and LoHa; by inputs, and by outputs."""
    state, names = {}, {}
    for i, layer in enumerate([LINEAR[0], LINEAR[4], CONV[2], CONV[4]]):
        name, w = kohya("unet", layer), weight(pipe, "unet", layer)
        down, up = pair(pipe, "unet", layer, 2, "scales")
        state[f"{name}.lora_down.weight"], state[f"{name}.lora_up.weight"] = down, up
        state[f"{name}.alpha"] = torch.tensor(1.0)
        kept = i % 2 == 0            # the axis that keeps its norms: outputs, or inputs
        norms = length(w, [int(kept)] + list(range(2, w.ndim)))
        state[f"{name}.dora_scale"] = norms * (1 + noise(name, *norms.shape, size=.2))
        names[name] = ("unet", layer)
    return state, names


# --- what the model computes ---

def call(pipe, label, out):
    """The text's embedding and a UNet call that reads it."""
    ids = pipe.tokenizer(PROMPT, padding="max_length", max_length=77,
                         return_tensors="pt").input_ids
    text = pipe.text_encoder(ids).last_hidden_state
    out[label + ".output"] = pipe.unet(out["sample"], 500, text).sample
    return text


def with_adapters(pipe, folder, loras, label, out):
    for name, *_ in loras:
        pipe.load_lora_weights(load_file(folder / f"{name}.safetensors"), adapter_name=name)
    both = pipe.get_list_adapters()
    pipe.set_adapters([n for n, *_ in loras],
                      [{k: v for k, v in (("unet", u), ("text_encoder", t)) if n in both.get(k, ())}
                       for n, u, t in loras])
    call(pipe, label, out)
    pipe.unload_lora_weights()


def with_weights(pipe, merged, strength, text_strength, label, out):
    kept = {}
    for (part, layer), new in merged.items():
        w = weight(pipe, part, layer)
        kept[w] = w.data
        x = strength if part == "unet" else text_strength
        w.data = w.data + x * (new.data - w.data)
    call(pipe, label, out)
    for w, data in kept.items():
        w.data = data


def export(root, golden):
    pipe = StableDiffusionPipeline.from_pretrained(root / MODEL, torch_dtype=torch.float32,
                                                   safety_checker=None)
    folder, out, cases = golden / "lora", {"sample": noise("sample", 1, 4, 8, 8)}, []
    folder.mkdir(parents=True, exist_ok=True)

    def case(label, loras):
        cases.append({"loras": [{"name": n, "strength": u, "text_strength": t}
                                for n, u, t in loras],
                      "output": label + ".output"})

    def write(name, state):
        save_file({k: v.contiguous() for k, v in state.items()}, folder / f"{name}.safetensors")

    call(pipe, "base", out)
    case("base", [])
    for name, make in (("peft", peft), ("kohya", kohya_diffusers), ("processors", processors),
                       ("dora-peft", dora_peft)):
        write(name, make(pipe))
        loras = [(name, 1.0, 1.0)]
        with_adapters(pipe, folder, loras, name, out)
        case(name, loras)
    loras = [("peft", 0.7, 0.3), ("kohya", -0.5, 1.25)]
    with_adapters(pipe, folder, loras, "two", out)
    case("two", loras)
    for name, make in (("locon", locon), ("loha", loha), ("lokr", lokr),
                       ("dora-scales", dora_scales)):
        state, names = make(pipe)
        write(name, state)
        merged = lycoris(pipe, state, names)
        for label, u, t in ((name, 1.0, 1.0), (name + ".part", 0.6, -0.8)):
            with_weights(pipe, merged, u, t, label, out)
            case(label, [(name, u, t)])
    save_file({k: v.contiguous() for k, v in out.items()}, folder / "stages.safetensors")
    text = ",\n".join(json.dumps(c) for c in cases)
    (folder / "cases.json").write_text(
        f'{{"model": "{MODEL}", "prompt": "{PROMPT}", "timestep": 500, "sample": "sample",\n'
        f'"cases": [\n{text}\n]}}\n')
    for p in folder.glob("*.safetensors"):
        p.chmod(0o644)
    base = out["base.output"]
    return {c["output"]: float((out[c["output"]] - base).norm() / base.norm()) for c in cases}


def main():
    warnings.filterwarnings("ignore")
    torch.set_grad_enabled(False)
    torch.set_num_threads(2)
    diffusers.logging.disable_progress_bar()
    golden = Path(sys.argv[1]) if len(sys.argv) > 1 else ROOT / "tests" / "golden"
    for name, change in export(ROOT, golden).items():
        print(f"{name}: output changes by {change:.2f}")


if __name__ == "__main__":
    main()
