"""darkroom beside PyTorch with diffusers and OpenVINO: the same weights, inputs, machine.

usage: run.py BUILD [--rounds N] [--calls N] [--only WORK,…] [--peers torch,openvino]

Each round gives every system its turn at every work, in a process of its own, one after the
other; what counts is the best call of all rounds, and the median is told. Exit 1 when an
output of ours differs from PyTorch's by more than it may; a missed target is only told.

WORK     what is timed, from inputs in the host's memory to outputs there
unet512  one UNet call of both halves of guidance for 512x512, texts read in the call
unet256  the same for 256x256
decode512, text
start    process start to the first step: `darkroom generate` at 64x64, until its first step
         is done less a mean step; for diffusers, from process start too, until
         StableDiffusionPipeline is loaded (its time after the imports is told as well)
picture  `darkroom generate` at 512x512, 20 steps of DPM++ 2M with guidance, a WebP file, from
         process start to end; for diffusers the same, and for OpenVINO's parts with diffusers'
         tokenizer and scheduler; and the most memory that it and diffusers had
"""
import argparse
import json
import os
import platform
import re
import statistics
import subprocess
import sys
import threading
import time
from importlib.metadata import version
from pathlib import Path

import numpy as np
from PIL import Image

HERE = Path(__file__).resolve().parent
SEED, TEXT_TOKENS, WIDTH = 1, 77, 768
WORDS, START, END = 998, 998, 999           # of the tokenizer: contrib/goldens/bpe.py
PROMPT = "a castle in the mountains at sunset, oil on canvas"
START_STEPS = 4
CALLS = {"text": 5}                         # times --calls
LIMIT = {"unet512": 1e-3, "unet256": 1e-3, "decode512": 1e-3, "text": 1e-3}
LAYOUTS = ("contiguous", "channels_last")
ROWS = [  # key in `seconds`, title, target of ours / best peer
    ("unet512", "UNet, CFG pair, 512x512", 0.62),
    ("unet256", "UNet, CFG pair, 256x256", 0.70),
    ("decode512", "VAE decode, 512x512", 0.40),
    ("text", "text encoder, 2 x 77", 1.0),
    ("picture", "txt2img 512x512, 20 steps", 0.62),
    ("start", "start to first step", 1.0),
    ("memory", "peak memory of txt2img", 0.6),
]
START_MAX_S = 4.0


def say(text):
    print(f"{time.strftime('%H:%M:%S')} {text}", file=sys.stderr, flush=True)


def psnr(file, other):
    a, b = (np.asarray(Image.open(f).convert("RGB"), np.float64) for f in (file, other))
    return float(10 * np.log10(255**2 / max(1e-9, np.mean((a - b)**2))))


class Ended:
    """A process that ran to its end: wall time, most memory, stdout, stderr by line."""

    def __init__(self, command):
        self.lines = []
        start = time.monotonic()
        p = subprocess.Popen([str(c) for c in command], stdout=subprocess.PIPE,
                             stderr=subprocess.PIPE, text=True)

        def read():
            for line in p.stderr:
                self.lines.append((time.monotonic() - start, line.rstrip("\n")))

        reader = threading.Thread(target=read)
        reader.start()
        self.out = p.stdout.read()
        _, status, usage = os.wait4(p.pid, 0)
        self.seconds = time.monotonic() - start
        p.returncode = os.waitstatus_to_exitcode(status)
        reader.join()
        self.peak_bytes = usage.ru_maxrss * 1024
        if p.returncode:
            print(*(line for _, line in self.lines), sep="\n", file=sys.stderr)
            sys.exit(f"{' '.join(map(str, command))}: exit {p.returncode}")

    def json(self):
        return json.loads(self.out.splitlines()[-1])


class Bench:
    def __init__(self, o):
        self.o = o
        self.build = o.build
        self.dir = o.build / "bench/peers"
        self.io = self.dir / "io"
        self.seconds = {}     # (row, system): [a number a call or a run]
        self.layouts = {}     # part: PyTorch's faster layout
        self.layout_s = {}    # work: {layout: best}
        self.notes = {}

    def add(self, row, system, *values):
        self.seconds.setdefault((row, system), []).extend(values)

    # --- preparation ---

    def prepare(self):
        self.io.mkdir(parents=True, exist_ok=True)
        model = self.dir / "model"
        if not model.exists():
            say("making the model")
            Ended([sys.executable, HERE / "model.py", model])
        rng = np.random.default_rng(SEED)
        text = rng.standard_normal((2, TEXT_TOKENS, WIDTH), np.float32)
        for work, side in (("unet512", 64), ("unet256", 32), ("decode512", 64)):
            x = rng.standard_normal((side, side, 4), np.float32)
            parts = [x.ravel(), text.ravel()] if work.startswith("unet") else [x]
            np.concatenate(parts).tofile(self.io / f"{work}.in")
        words = rng.integers(0, WORDS, TEXT_TOKENS - 2)
        np.array([[START] + [END] * (TEXT_TOKENS - 1), [START, *words, END]],
                 np.int32).tofile(self.io / "text.in")
        stamp = self.dir / "openvino/made"
        if "openvino" in self.o.peers and not stamp.exists():
            say("openvino: converting the model")
            self.peer("convert", self.dir)
            stamp.touch()

    def peer(self, *args):
        return Ended([sys.executable, HERE / "peer.py", *args])

    # --- single parts ---

    def part(self, work):
        calls = self.o.calls * CALLS.get(work, 1)
        result = Ended([self.dir / "ours", self.dir / "model", work, self.io, calls]).json()
        self.add(work, "darkroom", *result["calls_s"])
        self.tell(work, "darkroom")
        if "torch" in self.o.peers:
            self.torch_part(work, calls)
            self.tell(work, "torch")
        if "openvino" in self.o.peers:
            result = self.peer("openvino", work, self.dir, calls).json()
            self.add(work, "openvino", *result["calls_s"])
            self.tell(work, "openvino")

    def torch_part(self, work, calls):
        """In the first round in both layouts; then in the one that was faster."""
        layout = self.layouts.get(work)
        tried = {}
        for name in (layout,) if layout else LAYOUTS[:1] if work == "text" else LAYOUTS:
            tried[name] = self.peer("torch", work, self.dir, calls, name).json()["calls_s"]
        if not layout:
            layout = self.layouts[work] = min(tried, key=lambda name: min(tried[name]))
            self.layout_s[work] = {name: min(times) for name, times in tried.items()}
            say(f"{work}: PyTorch {self.layout_s[work]}")
        self.add(work, "torch", *tried[layout])

    def tell(self, work, system):
        times = self.seconds[work, system]
        say(f"{work}: {system} best {min(times):.3f}, median {statistics.median(times):.3f}")

    def error(self, work, system):
        """Relative L2 against PyTorch's output; None unless this run has both."""
        if work not in LIMIT or not {(work, system), (work, "torch")} <= self.seconds.keys():
            return None
        have, want = (np.fromfile(self.io / f"{work}.{s}", np.float32).astype(np.float64)
                      for s in (system, "torch"))
        return float(np.linalg.norm(have - want) / np.linalg.norm(want))

    # --- whole programs ---

    def generate(self, side, steps, file):
        return Ended([self.build / "darkroom", "generate", PROMPT, "--model",
                      self.dir / "model", "--size", f"{side}x{side}", "--steps", steps, "--cfg",
                      "7.5", "--sampler", "dpmpp_2m", "--seed", SEED, "--noise", "torch",
                      "--quality", "90", "--json", "--output", file])

    def warm(self):
        """The model's files into the system's cache."""
        for path in (self.dir / "model").rglob("*.safetensors"):
            with open(path, "rb") as f:
                while f.read(1 << 24):
                    pass

    def start(self, round_number):
        file = self.io / "start.webp"
        if round_number == 0:
            self.generate(64, START_STEPS, file)    # fills the cache of kernels
        self.warm()
        run = self.generate(64, START_STEPS, file)
        steps = [at for at, line in run.lines if re.match(rf"denoise .* \d+/{START_STEPS}", line)]
        assert len(steps) == START_STEPS, run.lines
        self.add("start", "darkroom", steps[0] - (steps[-1] - steps[0]) / (START_STEPS - 1))
        self.tell("start", "darkroom")
        if "torch" in self.o.peers:
            self.warm()
            result = self.peer("load", self.dir).json()
            self.add("start", "torch", result["started_s"])
            self.add("start after imports", "torch", result["load_s"])
            self.tell("start", "torch")
            self.tell("start after imports", "torch")

    def picture(self):
        file = self.io / "ours.webp"
        run = self.generate(512, 20, file)
        self.add("picture", "darkroom", run.seconds)
        self.add("picture without load", "darkroom", run.seconds - run.json()["timings"]["load"])
        self.add("memory", "darkroom", run.peak_bytes)
        self.notes["darkroom's picture"] = run.json()["timings"]
        self.tell("picture", "darkroom")
        if "openvino" in self.o.peers:
            run = self.peer("openvino-picture", self.dir, self.io / "openvino.webp", PROMPT)
            self.add("picture", "openvino", run.seconds)
            self.add("picture without load", "openvino", run.json()["make_s"])
            self.notes["openvino_peak_mib"] = run.peak_bytes / 2**20
            self.notes["psnr_openvino_db"] = psnr(file, self.io / "openvino.webp")
            self.tell("picture", "openvino")
        if "torch" in self.o.peers:
            other = self.io / "torch.webp"
            run = self.peer("picture", self.dir, other, PROMPT,
                            f"unet={self.layout_of('unet512')}",
                            f"vae={self.layout_of('decode512')}")
            self.add("picture", "torch", run.seconds)
            self.add("picture without load", "torch", run.json()["make_s"])
            self.add("memory", "torch", run.peak_bytes)
            self.tell("picture", "torch")
            self.notes["psnr_db"] = psnr(file, other)

    def layout_of(self, work):
        return self.layouts.get(work, "channels_last")

    # --- results ---

    def row(self, work, title, target):
        mine = self.seconds.get((work, "darkroom"))
        if not mine:
            return None
        others = {s: v for (w, s), v in self.seconds.items() if w == work and s != "darkroom"}
        best = {s: min(v) for s, v in others.items()}
        unit = "bytes" if work == "memory" else "s"
        row = {"work": title, f"ours_{unit}": min(mine), "peers": best,
               "ratio": min(mine) / min(best.values()) if best else None,
               "rel_l2": self.error(work, "darkroom"), "target": target,
               "openvino_rel_l2": self.error(work, "openvino"),
               "median": {"ours": statistics.median(mine),
                          **{s: statistics.median(v) for s, v in others.items()}}}
        if work == "start":
            row["target_s"] = START_MAX_S
        row["met"] = row["ratio"] is not None and row["ratio"] <= target and (
            work != "start" or min(mine) < START_MAX_S)
        return row

    def wrong(self):
        return [f"{work}: relative L2 {self.error(work, 'darkroom'):.2e}" for work, limit in
                LIMIT.items() if (work, "darkroom") in self.seconds and
                not (self.error(work, "darkroom") or 0) <= limit]


def shown(work, values):
    if not values:
        return "-"
    best, middle = (v / 2**20 if work == "memory" else v for v in values)
    return f"{best:,.0f} MiB" if work == "memory" else f"{best:.3f} ({middle:.3f})"


def table(rows):
    lines = [["", "darkroom", "torch", "openvino", "ratio", "target", "rel. L2",
              "openvino's"]]
    for (work, _, _), r in zip(ROWS, rows):
        if not r:
            continue
        mine = next(v for k, v in r.items() if k.startswith("ours_"))
        cells = [(mine, r["median"]["ours"])]
        cells += [(r["peers"][s], r["median"][s]) if s in r["peers"] else None
                  for s in ("torch", "openvino")]
        goal = f"< 1, < {START_MAX_S:g} s" if work == "start" else f"<= {r['target']:g}"
        errors = [f"{e:.1e}" if e is not None else "-" for e in (r["rel_l2"],
                                                                 r["openvino_rel_l2"])]
        lines.append([r["work"], *(shown(work, c) for c in cells),
                      f"{r['ratio']:.2f}" if r["ratio"] else "-",
                      goal + (" ok" if r["met"] else " missed" if r["ratio"] else ""), *errors])
    widths = [max(len(line[i]) for line in lines) for i in range(len(lines[0]))]
    return "\n".join("  ".join(text.ljust(w) if i == 0 else text.rjust(w)
                               for i, (text, w) in enumerate(zip(line, widths)))
                     for line in lines)


def remarks(bench):
    yield "seconds, best (median); ratio: ours to the best peer's"
    for work, times in bench.layout_s.items():
        if len(times) > 1:
            yield f"torch {work}: " + ", ".join(f"{k} {v:.3f}" for k, v in times.items()) + \
                "; the faster one counts"
    bare_load = bench.seconds.get(("start after imports", "torch"))
    if bare_load:
        yield f"diffusers' load after its imports: best {min(bare_load):.2f} s, " \
            f"median {statistics.median(bare_load):.2f} s"
    bare = {s: min(v) for (w, s), v in bench.seconds.items() if w == "picture without load"}
    if bare:
        yield "txt2img without load: " + ", ".join(f"{s} {v:.1f}" for s, v in bare.items())
    for key, other in (("psnr_db", "diffusers"), ("psnr_openvino_db", "OpenVINO")):
        if key in bench.notes:
            yield f"PSNR of our picture and {other}'s, both lossy: {bench.notes[key]:.1f} dB"
    if "openvino_peak_mib" in bench.notes:
        yield f"peak memory with OpenVINO: {bench.notes['openvino_peak_mib']:,.0f} MiB"


def machine():
    names = re.findall(r"model name\s*: (.*)", Path("/proc/cpuinfo").read_text())
    out = {"cpu": names[0] if names else platform.machine(), "system": platform.platform(),
           "cores": len(os.sched_getaffinity(0)), "load_before": os.getloadavg()[0]}
    for package in ("torch", "diffusers", "transformers", "openvino"):
        try:
            out[package] = version(package)
        except ModuleNotFoundError:
            pass
    return out


def options():
    works = [work for work, _, _ in ROWS if work != "memory"]
    parser = argparse.ArgumentParser(formatter_class=argparse.RawDescriptionHelpFormatter,
                                     description=__doc__)
    parser.add_argument("build", type=Path)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--calls", type=int, default=3, help="timed in a round, of each work")
    parser.add_argument("--only", default=",".join(works))
    parser.add_argument("--peers", default="torch,openvino")
    o = parser.parse_args()
    o.only, o.peers = ([x for x in text.split(",") if x] for text in (o.only, o.peers))
    for x in set(o.only) - set(works) | set(o.peers) - {"torch", "openvino"}:
        parser.error(f"{x}: unknown; works are {', '.join(works)}")
    return o


def main():
    o = options()
    bench, about = Bench(o), machine()
    bench.prepare()
    for number in range(o.rounds):
        for work in o.only:
            say(f"round {number + 1} of {o.rounds}: {work}")
            if work == "start":
                bench.start(number)
            elif work == "picture":
                bench.picture()
            else:
                bench.part(work)
    rows = [bench.row(*r) for r in ROWS]
    path = bench.build / "bench/peers.json"
    path.write_text(json.dumps(
        {"machine": about, "rounds": o.rounds, "calls": o.calls,
         "rows": [r for r in rows if r], "torch_layouts": bench.layout_s, "notes": bench.notes,
         "all": {f"{work}, {system}": v for (work, system), v in bench.seconds.items()}},
        indent=1) + "\n")
    print(table(rows))
    print(*remarks(bench), path, sep="\n")
    if bench.wrong():
        sys.exit("not PyTorch's output: " + "; ".join(bench.wrong()))


main()
