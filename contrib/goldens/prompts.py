"""Write tests/golden/prompts: what the text encoders and UNets of tiny-sd1 and the demo model
make of prompts with weights, chunks, schedules and embeddings, and of guidance beyond CFG.

    python contrib/goldens/prompts.py [OUT]        # alone, without the other fixtures

No library of ours reads A1111's prompt language, so each prompt stands here twice: as a
client writes it, and as the stretches (text, weight) and BREAKs that it means. What follows
is the published rule (stable-diffusion-webui's wiki, "Features"), worked out on tensors:

    chunks      75 tokens each, between both ends; a chunk that is full when a token comes
                that is no comma gives up what follows its last comma, if that is among its
                last 20 tokens; vectors of one embedding stay together
    weights     z' = z·w, by token, after the encoder; then z'·mean(z)/mean(z')
    guidance    Lin et al. 2024: y = m·(r·std(c)/std(m) + 1 - r);
                Armandpour et al. 2023: m = e + s·(p - (q - p·<q,p>/<p,p>)), p = c-e, q = u-e
"""
import json
import sys
import warnings
import zlib
from pathlib import Path

import numpy as np
import torch
import transformers
from diffusers import StableDiffusionPipeline
from safetensors.torch import save_file

import samplers
import stages

ROOT = Path(__file__).resolve().parents[2]
MODELS = {"tiny-sd1": "tests/golden/tiny-sd1/model", "demo": "contrib/demo-model/model"}
BREAK = None

WORDS = ("a castle, a red house by the sea, clouds over the moon, a forest in the fog, old stones, "
         "a river, green hills, small boats at the pier, two white horses, a bridge of wood, "
         "lanterns along the road, snow on the roofs, smoke, a tall tower with a golden clock, ")
RUN = "one two three four five six seven eight nine ten eleven twelve thirteen "

# prompt as written, what it means, layers left out, models
PROMPTS = [
    ("", [("", 1)], 0, MODELS),
    ("a large red circle on a blue background", [("a large red circle on a blue background", 1)],
     0, MODELS),
    ("a (large:1.3) red circle on [a blue] background, ((sharp))",
     [("a ", 1), ("large", 1.3), (" red circle on ", 1), ("a blue", 1 / 1.1),
      (" background, ", 1), ("sharp", 1.1 * 1.1)], 0, MODELS),
    ("(a (red:1.2) house:0.7), [[fog]] \\(old\\)",
     [("a ", 0.7), ("red", 1.2 * 0.7), (" house", 0.7), (", ", 1), ("fog", 1 / 1.1 / 1.1),
      (" (old)", 1)], 0, MODELS),
    ("(ugly:-0.5) house, (zero:0) weight", [("ugly", -0.5), (" house, ", 1), ("zero", 0),
                                            (" weight", 1)], 0, MODELS),
    ("a red house BREAK a blue sea", [("a red house", 1), BREAK, ("a blue sea", 1)], 0, MODELS),
    ("(a house BREAK the sea:1.4) fog", [("a house", 1.4), BREAK, ("the sea", 1.4), (" fog", 1)], 0,
     ["tiny-sd1"]),
    (WORDS, [(WORDS, 1)], 0, MODELS),
    (WORDS + "(" + WORDS + ":1.2)", [(WORDS, 1), (WORDS, 1.2)], 0, ["tiny-sd1"]),
    (RUN * 4, [(RUN * 4, 1)], 0, ["tiny-sd1"]),
    (WORDS + "(sharp:1.3)", [(WORDS, 1), ("sharp", 1.3)], 1, MODELS),
    ("a house of charm by night-sky", [("a house of charm by night-sky", 1)], 0, ["tiny-sd1"]),
    ("(Night-Sky:1.3), <charm>, night", [("Night-Sky", 1.3), (", charm, night", 1)], 0,
     ["tiny-sd1"]),
    ("a " * 74 + "night-sky fog", [("a " * 74 + "night-sky fog", 1)], 0, ["tiny-sd1"]),
]

# name in a prompt: file, key, vectors, type
EMBEDDINGS = {"charm": ("charm", "<charm>", 1, torch.float16),
              "night-sky": ("night-sky", "emb_params", 3, torch.float32)}


def noise(name, *shape, size=1.0):
    x = np.random.default_rng([11, zlib.crc32(name.encode())]).standard_normal(shape, np.float32)
    return torch.from_numpy(x * np.float32(size))


class Encoder:
    """A model's text encoder with its embeddings' vectors behind the token table."""

    def __init__(self, pipe, embeddings):
        self.pipe, self.tokenizer, self.model = pipe, pipe.tokenizer, pipe.text_encoder
        self.comma = self.ids(",")[0]
        self.names = []                       # (tokens of the name, ids of its vectors)
        table = self.model.get_input_embeddings()
        n, rows = table.weight.shape[0], [table.weight]
        for name, vectors in embeddings.items():
            self.names.append((self.ids(name), list(range(n, n + len(vectors)))))
            rows.append(vectors.float())
            n += len(vectors)
        self.names.sort(key=lambda v: -len(v[0]))
        table.weight = torch.nn.Parameter(torch.cat(rows), requires_grad=False)

    def ids(self, text):
        return self.tokenizer(text, add_special_tokens=False).input_ids

    def items(self, stretches):
        """One (first token, ids that stay together, weight) after the other, or BREAK."""
        for s in stretches:
            if s is BREAK:
                yield BREAK
                continue
            ids = self.ids(s[0])
            while ids:
                for name, vectors in self.names:
                    if ids[:len(name)] == name:
                        yield name[0], vectors, s[1]
                        ids = ids[len(name):]
                        break
                else:
                    yield ids[0], ids[:1], s[1]
                    ids = ids[1:]

    def chunks(self, stretches, room=75, back=20):
        done, row, comma = [], [], None
        for item in self.items(stretches):
            if item is BREAK:
                done, row, comma = done + [row], [], None
                continue
            token, ids, weight = item
            if token == self.comma:
                comma = len(row)
            elif len(row) == room and comma is not None and room - comma <= back:
                done, row, comma = done + [row[:comma + 1]], row[comma + 1:], None
            if len(row) + len(ids) > room:
                done, row, comma = done + [row], [], None
            row = row + [(i, weight) for i in ids]
        return done + [row] if row or not done else done

    def encode(self, stretches, skip=0, chunks=0):
        out = []
        rows = self.chunks(stretches)
        for row in rows + [[]] * (chunks - len(rows)):
            t = self.tokenizer
            ids = [t.bos_token_id] + [i for i, _ in row] + [t.eos_token_id]
            weights = torch.tensor([1.0] + [w for _, w in row] + [1.0] * (76 - len(row)))
            ids += [t.pad_token_id] * (77 - len(ids))
            states = self.model(torch.tensor([ids]), output_hidden_states=True).hidden_states
            z = self.model.text_model.final_layer_norm(states[-1 - skip])[0]
            if (weights != 1).any():
                mean = z.double().mean()  # a mean near 0 in fp32 is off by 1e-5 of itself
                z = z * weights[:, None]
                z = z * (mean / z.double().mean()).float()
            out.append(z)
        return torch.cat(out)


def guide(text, plain, empty, cfg, rescale):
    if empty is None:
        m = plain + cfg * (text - plain)
    else:
        p, q = text - empty, plain - empty
        m = empty + cfg * (p - (q - p * ((q * p).sum() / (p * p).sum())))
    return m * (rescale * text.std() / m.std() + 1 - rescale)


# prompt, negative prompt, what they mean in step i of n, other fields of the job
RUNS = [
    ("a (red:1.3) house", "[fog]", lambda i, n: ([("a ", 1), ("red", 1.3), (" house", 1)],
                                               [("fog", 1 / 1.1)]), {}),
    ("a [red:blue:0.5] house", "fog",
     lambda i, n: ([(f"a {'red' if i < n // 2 else 'blue'} house", 1)], [("fog", 1)]), {}),
    ("a [red|blue|(green:1.2)] house", "[fog::2]",
     lambda i, n: ([[("a red house", 1)], [("a blue house", 1)],
                    [("a ", 1), ("green", 1.2), (" house", 1)]][i % 3],
                   [("fog" if i < 2 else "", 1)]), {}),
    (WORDS + WORDS, "fog", lambda i, n: ([(WORDS + WORDS, 1)], [("fog", 1)]), {}),
    ("a castle", "fog", lambda i, n: ([("a castle", 1)], [("fog", 1)]),
     {"cfg_start": 0.2, "cfg_end": 0.7}),
    ("a castle", "fog", lambda i, n: ([("a castle", 1)], [("fog", 1)]), {"cfg_rescale": 0.7}),
    ("a castle", "fog", lambda i, n: ([("a castle", 1)], [("fog", 1)]), {"perp_neg": True}),
    ("a castle", "fog", lambda i, n: ([("a castle", 1)], [("fog", 1)]),
     {"perp_neg": True, "cfg_rescale": 0.5, "cfg_end": 0.5}),
]


def denoise(encoder, means, seed, steps, cfg, size, start=0.0, end=1.0, rescale=0.0, perp=False):
    pipe = encoder.pipe
    config = json.loads((ROOT / MODELS["tiny-sd1"] / "scheduler/scheduler_config.json").read_text())
    scheduler = samplers.make(config, "euler", "normal")
    scheduler.set_timesteps(steps)
    every = [s for i in range(steps) for s in means(i, steps)]
    longest = max(len(encoder.chunks(s)) for s in every)
    x = torch.randn(1, 4, size, size, generator=torch.Generator("cpu").manual_seed(seed))
    x = x * scheduler.init_noise_sigma

    def unet(stretches, t):
        return pipe.unet(scheduler.scale_model_input(x, t), t,
                         encoder.encode(stretches, 0, longest)[None]).sample

    for i, t in enumerate(scheduler.timesteps):
        positive, negative = means(i, steps)
        m = unet(positive, t)
        if start <= i / steps < end:
            m = guide(m, unet(negative, t), unet([("", 1)], t) if perp else None, cfg, rescale)
        x = scheduler.step(m, t, x).prev_sample
    return x


def encodings(encoders, out):
    cases = []
    for prompt, stretches, skip, models in PROMPTS:
        for model in models:
            name = f"text.{len(cases)}"
            out[name] = encoders[model].encode(stretches, skip)[None]
            cases.append({"model": MODELS[model], "prompt": prompt, "clip_skip": skip,
                          "embedding": name})
    return cases


def pictures(encoder, out):
    cases = []
    for i, (prompt, negative, means, fields) in enumerate(RUNS):
        name = f"latents.{i}"
        out[name] = denoise(encoder, means, 40 + i, 10, 5.0, 8, fields.get("cfg_start", 0.0),
                            fields.get("cfg_end", 1.0), fields.get("cfg_rescale", 0.0),
                            fields.get("perp_neg", False))
        cases.append({"prompt": prompt, "negative_prompt": negative, "steps": 10, "cfg": 5.0,
                      "seed": str(40 + i), "width": 64, "height": 64, "sampler": "euler",
                      "schedule": "normal", **fields, "latents": name})
    return cases


def check_against_diffusers(encoder, out):
    """The loop above is StableDiffusionPipeline's where that can do the same."""
    pipe, case = encoder.pipe, RUNS[5]
    pipe.scheduler = samplers.make(dict(pipe.scheduler.config), "euler", "normal")
    have = pipe(case[0], negative_prompt=case[1], num_inference_steps=10, guidance_scale=5.0,
                guidance_rescale=0.7, height=64, width=64, output_type="latent",
                generator=torch.Generator("cpu").manual_seed(45)).images
    assert torch.allclose(have, out["latents.5"], rtol=1e-4, atol=1e-4)


def export(root, golden):
    folder, out, encoders = golden / "prompts", {}, {}
    files = folder / "embeddings"
    files.mkdir(parents=True, exist_ok=True)
    for model, path in MODELS.items():
        pipe = StableDiffusionPipeline.from_pretrained(root / path, torch_dtype=torch.float32,
                                                       safety_checker=None)
        pipe.set_progress_bar_config(disable=True)
        vectors = {}
        for name, (file, key, n, dtype) in EMBEDDINGS.items() if model == "tiny-sd1" else ():
            x = noise(name, n, pipe.text_encoder.config.hidden_size, size=0.5).to(dtype)
            save_file({key: x if n > 1 else x[0]}, files / f"{file}.safetensors")
            vectors[name] = x
        encoders[model] = Encoder(pipe, vectors)
    cases = {"model": MODELS["tiny-sd1"], "text": encodings(encoders, out),
             "pictures": pictures(encoders["tiny-sd1"], out)}
    check_against_diffusers(encoders["tiny-sd1"], out)
    stages.write(folder, out, cases)
    for p in folder.rglob("*.safetensors"):
        p.chmod(0o644)               # safetensors makes them private


if __name__ == "__main__":
    torch.set_grad_enabled(False)
    warnings.filterwarnings("ignore")
    transformers.logging.set_verbosity_error()
    sys.modules["ftfy"] = None
    export(ROOT, Path(sys.argv[1]) if len(sys.argv) > 1 else ROOT / "tests" / "golden")
