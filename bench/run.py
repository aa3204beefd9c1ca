"""make bench: where the time of whole jobs goes, and how it grows.

usage: run.py BUILD [--full-width] [--runs N] [--size PIXELS] [--calls N]

One process a measurement (build/bench/bench), one after the other. For each model: the cases
by phase, time against batch, size and threads with the exponent of the power law through it,
what the cache of text embeddings and batches save, and a UNet call and a decode by operation.
The tables go to stdout, they and all samples to BUILD/bench/results.json; bench/plot.py
draws them. Exit 1 when a denoising loop allocated memory on the host.
"""
import argparse
import json
import os
import subprocess
import sys
from pathlib import Path

from stats import percentile, power_law

PHASES = ("plan", "encode", "denoise", "decode", "compress")
MIB = 1 << 20

# What is measured of a model. steps: None is the model's default. The full width takes
# minutes a picture at 1024x1024, so it is run once there, without warming up.
MODELS = {
    "demo": dict(
        title="the demo model",
        cases=("txt2img", "txt2img_lora", "img2img", "inpaint"),
        case=dict(size=128, steps=None, runs=5, warm=1),
        scaling=dict(size=128, steps=10, runs=3, warm=1),
        batches=(1, 2, 4, 8), sizes=(64, 128, 192, 256),
        ops=dict(size=128, batch=2, calls=5)),
    "sd15": dict(
        title="Stable Diffusion 1.5's full width",
        cases=("txt2img", "img2img", "inpaint"),
        case=dict(size=256, steps=4, runs=3, warm=1),
        scaling=dict(size=256, steps=1, runs=1, warm=0),
        batches=(1, 2, 4, 8), sizes=(256, 512, 1024),
        ops=dict(size=256, batch=2, calls=1)),
}


def threads():
    """1, 2, 4, … and all processors."""
    n = len(os.sched_getaffinity(0))
    return sorted({n, *(1 << i for i in range(n.bit_length()) if 1 << i <= n)})


# name, option of `bench case`, values from the model's row, the exponent of work that is
# proportional to pictures, to pixels, or spread over threads without loss
AXES = [
    ("batch", "images", lambda m: m["batches"], 1),
    ("size", "size", lambda m: m["sizes"], 2),
    ("threads", None, lambda m: threads(), -1),
]


class Bench:
    """The program, and what it told."""

    def __init__(self, build):
        self.build = build
        self.env = {k: v for k, v in os.environ.items() if not k.startswith("DARKROOM_")}
        self.env["XDG_CACHE_HOME"] = str(build / "cache")
        self.host = {"load": os.getloadavg()[0]}

    def run(self, command, model, n_threads=None, quiet=True, **options):
        """One process' JSON. n_threads: of PoCL's CPU device."""
        out = self.build / "bench/one.json"
        given = {"model": model, "dir": self.build / "bench/sd15", "json": out, **options}
        env = dict(self.env)
        if n_threads:
            env["POCL_MAX_PTHREAD_COUNT"] = str(n_threads)
        p = subprocess.run(
            [self.build / "bench/bench", command,
             *(str(a) for k, v in given.items() if v is not None for a in (f"--{k}", v))],
            env=env, stdout=subprocess.PIPE, text=True)
        if p.returncode:
            sys.exit(f"bench {command}: exit {p.returncode}")
        told = json.loads(out.read_text())
        out.unlink()
        self.host.update({k: told[k] for k in ("device", "platform", "driver", "type")})
        print(p.stdout, end="", flush=True, file=sys.stderr if quiet else sys.stdout)
        return told

    def case(self, model, **options):
        """One case: its row, with the process' memory and what the runs come to."""
        told = self.run("case", model, **options)
        row = told["rows"][0]
        row.update({k: told[k] for k in ("peak_rss_bytes", "device_peak_bytes",
                                         "compute_units")})
        row["best"] = min(r["total"] for r in row["runs"])
        row["p50"] = {k: percentile([r[k] for r in row["runs"]], 0.5) for k in row["runs"][0]}
        row["p95"] = {k: percentile([r[k] for r in row["runs"]], 0.95) for k in row["runs"][0]}
        return row


# --- what is measured ---


def scale(bench, model, m, axis):
    """Time along an axis, and the power law through it."""
    name, option, values, ideal = axis
    rows = []
    for x in values(m):
        options = dict(m["scaling"])
        options.update({option: x} if option else {"n_threads": x})
        row = bench.case(model, name="txt2img", **options)
        if not option and row["compute_units"] != x:
            return None     # a device whose threads are its own affair
        rows.append(dict(row, x=x))
    fit = power_law([(r["x"], r["best"]) for r in rows]) if len(rows) > 1 else None
    return {"axis": name, "ideal": ideal, "rows": rows, "fit": fit}


def measure(bench, model, m, args):
    case = dict(m["case"])
    if args.runs:
        case["runs"] = args.runs
    ops = dict(m["ops"], **{k: v for k, v in (("size", args.size), ("calls", args.calls)) if v})
    result = {
        "title": m["title"],
        "cases": [bench.case(model, name=name, **case) for name in m["cases"]],
        "fresh": bench.case(model, name="txt2img", fresh=1, **dict(case, steps=1)),
        "scaling": [s for s in (scale(bench, model, m, axis) for axis in AXES) if s],
    }
    print(f"\n{m['title']}, by operation")
    result["ops"] = bench.run("ops", model, quiet=False, **ops)["rows"]
    return result


def gains(result):
    """What two habits save, as ratios: (what, without, with) in seconds."""
    batch = {r["x"]: r["best"] for r in result["scaling"][0]["rows"]}
    return [
        ("text embeddings: a new prompt, the same again (encode)",
         result["fresh"]["p50"]["encode"], result["cases"][0]["p50"]["encode"]),
        ("batch: four jobs of one picture, one job of four", 4 * batch[1], batch[4]),
    ]


# --- what is told ---


def number(seconds):
    return f"{seconds:.2f} s" if seconds >= 10 else f"{seconds * 1e3:.1f} ms"


def table(head, rows):
    """Columns as wide as they must be, the first one to the left."""
    rows = [[str(c) for c in row] for row in [head, *rows]]
    width = [max(len(row[i]) for row in rows) for i in range(len(head))]
    for row in rows:
        print("  " + "  ".join(c.rjust(w) if i else c.ljust(w)
                               for i, (c, w) in enumerate(zip(row, width))).rstrip())


def ms(seconds):
    return f"{seconds * 1e3:.1f}"


def tell(result):
    first = result["cases"][0]
    print(f"\n{result['title']}, {first['size']}x{first['size']}, {len(first['runs'])} runs "
          "each; milliseconds, of the phases the medians")
    table(["case", "steps", "p50", "p95", *PHASES, "launches/step", "allocations",
           "device MiB", "RSS MiB"],
          [[r["case"], r["steps"], ms(r["p50"]["total"]), ms(r["p95"]["total"]),
            *(ms(r["p50"][p]) for p in PHASES), r["step_launches"], r["loop_allocations"],
            f"{r['device_peak_bytes'] / MIB:.0f}", f"{r['peak_rss_bytes'] / MIB:.0f}"]
           for r in result["cases"]])
    one = result["scaling"][0]["rows"][0]
    points = max(len(s["rows"]) for s in result["scaling"])
    print(f"\n{result['title']}, scaling: txt2img of {one['steps']} steps, "
          f"{one['size']}x{one['size']} but for the size; best of {len(one['runs'])}; "
          "time ~ axis^exponent")
    table(["axis", *[""] * points, "exponent", "proportional work"],
          [[s["axis"], *(f"{r['x']}: {number(r['best'])}" for r in s["rows"]),
            *[""] * (points - len(s["rows"])), f"{s['fit'][1]:.2f}" if s["fit"] else "",
            s["ideal"]] for s in result["scaling"]])
    print()
    table(["saved by", "without", "with", "ratio"],
          [[what, number(a), number(b), f"{a / b:.2f}"] for what, a, b in gains(result)])


def allocations(results):
    """Allocations of all denoising loops."""
    return sum(row["loop_allocations"] for result in results.values()
               for row in [*result["cases"], result["fresh"],
                           *(r for s in result["scaling"] for r in s["rows"])])


def main():
    parser = argparse.ArgumentParser(
        description="The plan of `make bench`; BENCH_OPTIONS passes options to it.")
    parser.add_argument("build", type=Path)
    parser.add_argument("--full-width", action="store_true",
                        help="Stable Diffusion 1.5's full width too (2 GB, many minutes)")
    parser.add_argument("--runs", type=int, help="of each case, instead of 5 (3 full-width)")
    parser.add_argument("--size", type=int, help="pixels, of the tables by operation")
    parser.add_argument("--calls", type=int, help="of which the best counts there")
    args = parser.parse_args()
    bench = Bench(args.build.resolve())
    results = {}
    for model in ["demo", "sd15"] if args.full_width else ["demo"]:
        results[model] = measure(bench, model, MODELS[model], args)
        tell(results[model])
    host = bench.host
    print(f"\n{host['device']}, {host['platform']} {host['driver']}; "
          f"the machine's load before: {host['load']:.1f}")
    path = bench.build / "bench/results.json"
    path.write_text(json.dumps({"host": host, "models": results}, indent=1) + "\n")
    print(path)
    bad = allocations(results)
    return f"{bad} host allocations in denoising loops; there must be none" if bad else 0


if __name__ == "__main__":
    sys.exit(main())
