"""PyTorch with diffusers, or OpenVINO, on what bench/peers/ours.c does. Started by run.py.

usage: peer.py convert DIR
       peer.py openvino WORK DIR CALLS
       peer.py torch WORK DIR CALLS [contiguous|channels_last]
       peer.py load DIR
       peer.py picture DIR FILE PROMPT unet=FORMAT vae=FORMAT
       peer.py openvino-picture DIR FILE PROMPT

WORK: unet512, unet256, decode512, text. DIR has model/ and io/; inputs are io/WORK.in, outputs
io/WORK.torch and io/WORK.openvino, raw and channels last. Prints one JSON object. All in fp32
from the model's fp16 weights, on every core. `load` reads the whole pipeline; `picture` makes
one (see run.py for the settings) with the pipeline's own classes, `openvino-picture` the same
one with OpenVINO's three parts between diffusers' tokenizer and scheduler.
"""
import json
import os
import sys
import time
from pathlib import Path

started = time.monotonic()

import numpy as np  # noqa: E402

CORES = len(os.sched_getaffinity(0))
TIMESTEP = 500.0
TEXT = (2, 77, 768)
# Part of the model, latents' side, shapes of the inputs (as PyTorch has them).
WORKS = {
    "unet512": ("unet", [(1, 4, 64, 64), TEXT]),
    "unet256": ("unet", [(1, 4, 32, 32), TEXT]),
    "decode512": ("vae", [(1, 4, 64, 64)]),
    "text": ("text_encoder", [(2, 77)]),
}


def channels_last(shape):
    return (shape[0], *shape[2:], shape[1]) if len(shape) == 4 else shape


def inputs(folder, work):
    """As PyTorch wants them, and UNet's timestep last."""
    part, shapes = WORKS[work]
    kind = np.int32 if part == "text_encoder" else np.float32
    raw = np.fromfile(folder / "io" / f"{work}.in", kind)
    out = []
    for shape in shapes:
        n = int(np.prod(shape))
        x, raw = raw[:n].reshape(channels_last(shape)), raw[n:]
        out.append(np.ascontiguousarray(np.moveaxis(x, -1, 1)) if x.ndim == 4 else x)
    assert not raw.size, "the input is longer than expected"
    if part == "unet":
        out.append(np.array([TIMESTEP], np.float32))
    return out


def write(folder, work, system, y):
    y = np.moveaxis(y, 1, -1) if y.ndim == 4 else y
    np.ascontiguousarray(y, np.float32).tofile(folder / "io" / f"{work}.{system}")


def timed(call, n):
    """Seconds of n calls after one to warm up, and the last result."""
    call()
    times = []
    for _ in range(n):
        start = time.perf_counter()
        y = call()
        times.append(time.perf_counter() - start)
    return times, y


# --- PyTorch ---

def torch_setup():
    import diffusers
    import torch
    torch.set_num_threads(CORES)
    torch.set_grad_enabled(False)
    diffusers.logging.disable_progress_bar()
    return torch


def torch_part(folder, part):
    """A module that takes inputs() and gives one tensor."""
    torch = torch_setup()
    from diffusers import AutoencoderKL, UNet2DConditionModel
    from transformers import CLIPTextModel
    kind = {"unet": UNet2DConditionModel, "vae": AutoencoderKL, "text_encoder": CLIPTextModel}
    model = kind[part].from_pretrained(folder / "model" / part, torch_dtype=torch.float32)

    class Part(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.model = model.eval()

    class Unet(Part):
        def forward(self, x, text, timestep):
            return self.model(torch.cat([x, x]), timestep, text, return_dict=False)[0]

    class Decode(Part):
        def forward(self, z):
            return self.model.decode(z / model.config.scaling_factor, return_dict=False)[0]

    class Text(Part):
        def forward(self, ids):
            return self.model(ids, return_dict=False)[0]

    return {"unet": Unet, "vae": Decode, "text_encoder": Text}[part]()


def torch_work(work, folder, calls, layout):
    torch = torch_setup()
    module = torch_part(folder, WORKS[work][0])
    args = [torch.from_numpy(x) for x in inputs(folder, work)]
    if layout == "channels_last":
        module = module.to(memory_format=torch.channels_last)
        args = [x.contiguous(memory_format=torch.channels_last) if x.ndim == 4 else x
                for x in args]
    load_s = time.monotonic() - started
    with torch.inference_mode():
        times, y = timed(lambda: module(*args), calls)
    write(folder, work, "torch", y.numpy())
    return {"load_s": load_s, "calls_s": times}


def load_pipeline(folder):
    torch = torch_setup()
    from diffusers import DPMSolverMultistepScheduler, StableDiffusionPipeline
    imported = time.monotonic()
    pipe = StableDiffusionPipeline.from_pretrained(folder / "model", safety_checker=None,
                                                   torch_dtype=torch.float32)
    pipe.scheduler = DPMSolverMultistepScheduler.from_config(pipe.scheduler.config)
    pipe.set_progress_bar_config(disable=True)
    return pipe, {"imports_s": imported - started, "load_s": time.monotonic() - imported,
                  "started_s": time.monotonic() - started}


def load(folder):
    return load_pipeline(folder)[1]


def picture(folder, file, prompt, *formats):
    pipe, result = load_pipeline(folder)
    import torch
    for part, layout in (f.split("=") for f in formats):
        if layout == "channels_last":
            getattr(pipe, part).to(memory_format=torch.channels_last)
    start = time.monotonic()
    with torch.inference_mode():
        image = pipe(prompt, height=512, width=512, num_inference_steps=20, guidance_scale=7.5,
                     generator=torch.Generator("cpu").manual_seed(1)).images[0]
    image.save(file, quality=90)
    return {**result, "make_s": time.monotonic() - start}


# --- OpenVINO ---

def openvino():
    sys.modules["openvino_telemetry"] = None    # nothing is told to anybody
    import openvino as ov
    return ov


def convert(folder):
    """The PyTorch modules as OpenVINO's files, fp32, sizes left open."""
    import torch
    ov = openvino()
    (folder / "openvino").mkdir(exist_ok=True)
    for work in ("text", "decode512", "unet256"):
        part = WORKS[work][0]
        print(f"openvino: converting {part}", file=sys.stderr, flush=True)
        module = torch_part(folder, part)
        args = [torch.from_numpy(x) for x in inputs(folder, work)]
        model = ov.convert_model(module, example_input=tuple(args))
        ov.save_model(model, folder / "openvino" / f"{part}.xml", compress_to_fp16=False)
        del model, module
    return {}


def compiled_part(folder, part, shapes):
    ov = openvino()
    core = ov.Core()
    model = core.read_model(folder / "openvino" / f"{part}.xml")
    model.reshape({i: list(shape) for i, shape in enumerate(shapes)})
    return core.compile_model(model, "CPU", {
        "PERFORMANCE_HINT": "LATENCY", "INFERENCE_PRECISION_HINT": "f32",
        "INFERENCE_NUM_THREADS": CORES})


def openvino_work(work, folder, calls):
    args = inputs(folder, work)
    compiled = compiled_part(folder, WORKS[work][0], [x.shape for x in args])
    load_s = time.monotonic() - started
    times, y = timed(lambda: compiled(args)[0], calls)
    write(folder, work, "openvino", y)
    return {"load_s": load_s, "calls_s": times}


def openvino_picture(folder, file, prompt):
    import torch
    from diffusers import DPMSolverMultistepScheduler
    from diffusers.image_processor import VaeImageProcessor
    from transformers import CLIPTokenizer
    unet = compiled_part(folder, "unet", [*WORKS["unet512"][1], (1,)])
    decode = compiled_part(folder, "vae", WORKS["decode512"][1])
    encode = compiled_part(folder, "text_encoder", WORKS["text"][1])
    tokenizer = CLIPTokenizer.from_pretrained(folder / "model" / "tokenizer")
    scheduler = DPMSolverMultistepScheduler.from_pretrained(folder / "model" / "scheduler")
    load_s = time.monotonic() - started
    ids = tokenizer(["", prompt], padding="max_length", max_length=77, truncation=True,
                    return_tensors="np").input_ids
    text = encode([ids.astype(np.int32)])[0]
    scheduler.set_timesteps(20)
    x = torch.randn((1, 4, 64, 64), generator=torch.Generator("cpu").manual_seed(1))
    x = x * scheduler.init_noise_sigma
    for t in scheduler.timesteps:
        seen = scheduler.scale_model_input(x, t).numpy()
        plain, out = unet([seen, text, np.array([t], np.float32)])[0]
        out = torch.from_numpy(plain + 7.5 * (out - plain))[None]
        x = scheduler.step(out, t, x).prev_sample
    image = torch.from_numpy(decode([x.numpy()])[0])
    VaeImageProcessor().postprocess(image)[0].save(file, quality=90)
    return {"load_s": load_s, "make_s": time.monotonic() - started - load_s}


def main(what, *args):
    if what == "torch":
        result = torch_work(args[0], Path(args[1]), int(args[2]), args[3])
    elif what == "openvino":
        result = openvino_work(args[0], Path(args[1]), int(args[2]))
    elif what == "convert":
        result = convert(Path(args[0]))
    elif what == "load":
        result = load(Path(args[0]))
    elif what == "openvino-picture":
        result = openvino_picture(Path(args[0]), *args[1:])
    else:
        result = picture(Path(args[0]), *args[1:])
    print(json.dumps(result))


main(*sys.argv[1:])
