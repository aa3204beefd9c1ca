"""What `make bench` measures and computes: the program, its plan on a small scale, the
statistics."""
import importlib
import json
import random
import subprocess

import numpy as np
import pytest

from conftest import BUILD, ROOT, environment

PHASES = ("plan", "encode", "denoise", "decode", "compress")


@pytest.fixture
def module(monkeypatch):
    """A module of bench/ by its name."""
    monkeypatch.syspath_prepend(ROOT / "bench")
    return importlib.import_module


@pytest.mark.parametrize("seed", range(5))
def test_statistics_are_numpys(module, seed):
    stats, rng = module("stats"), random.Random(seed)
    samples = [rng.lognormvariate(0, 1) for _ in range(rng.randint(1, 9))]
    for share in (0, 0.05, 0.5, 0.95, 1):
        assert stats.percentile(samples, share) == pytest.approx(np.percentile(samples, 100 * share))
    points = [(x, 3 * x ** 1.7 * rng.lognormvariate(0, 0.1)) for x in (1, 2, 3, 8)]
    a, k = stats.power_law(points)
    slope, offset = np.polyfit(*np.log(points).T, 1)
    assert k == pytest.approx(slope) and np.log(a) == pytest.approx(offset)


def test_statistics_of_what_is_known(module):
    stats = module("stats")
    assert stats.percentile([4, 1, 3, 2, 5], 0.5) == 3
    assert stats.percentile([1, 2], 0.5) == 1.5 and stats.percentile([7], 0.95) == 7
    assert stats.power_law([(1, 5), (2, 20), (4, 80)]) == pytest.approx((5, 2))
    assert stats.power_law([(1, 6), (2, 3)]) == pytest.approx((6, -1))


def bench(*options):
    return subprocess.run([BUILD / "bench/bench", *map(str, options)], env=environment(), cwd=ROOT,
                          capture_output=True, text=True, timeout=600)


@pytest.mark.parametrize("name, steps", [("txt2img", 4), ("txt2img_lora", 4), ("img2img", 3),
                                         ("inpaint", 3)])
def test_a_case_is_timed_by_phase(tmp_path, name, steps):
    out = tmp_path / "case.json"
    r = bench("case", "--name", name, "--size", 64, "--steps", 4, "--runs", 2, "--json", out)
    assert r.returncode == 0, r.stderr
    told = json.loads(out.read_text())
    row, = told["rows"]
    assert row["case"] == name and row["steps"] == steps and len(row["runs"]) == 2
    assert row["loop_allocations"] == 0 and row["step_launches"] > 100
    assert told["peak_rss_bytes"] > told["device_peak_bytes"] > row["activation_bytes"] > 0
    for run in row["runs"]:
        assert all(run[p] > 0 for p in PHASES)
        assert run["total"] == pytest.approx(sum(run[p] for p in PHASES), rel=0.1, abs=0.01)


def test_what_cannot_be_benched_is_told():
    for wrong in (["case", "--name", "magic"], ["case", "--model", "sdxl"]):
        r = bench(*wrong)
        assert r.returncode == 1 and wrong[2] in r.stderr
    for wrong in ([], ["all"], ["case", "--size", 100], ["ops", "--calls", 0], ["ops", "--calls"]):
        assert bench(*wrong).returncode == 2


def test_the_plan_on_a_small_scale(module, monkeypatch, capfd, tmp_path):
    run = module("run")
    (tmp_path / "bench").mkdir()   # a build folder whose results nobody keeps
    (tmp_path / "bench/bench").symlink_to(BUILD / "bench/bench")
    (tmp_path / "cache").symlink_to(environment()["XDG_CACHE_HOME"])
    small = dict(size=64, steps=2, runs=2, warm=0)
    monkeypatch.setattr(run, "MODELS", {"demo": dict(
        title="a small plan", cases=("txt2img", "img2img"), case=small, scaling=small,
        batches=(1, 4), sizes=(64, 128), ops=dict(size=64, batch=2, calls=1))})
    monkeypatch.setattr("sys.argv", ["run.py", str(tmp_path)])
    monkeypatch.chdir(ROOT)
    assert run.main() == 0
    told = json.loads((tmp_path / "bench/results.json").read_text())
    result = told["models"]["demo"]
    assert [c["case"] for c in result["cases"]] == ["txt2img", "img2img"]
    axes = {s["axis"]: [r["x"] for r in s["rows"]] for s in result["scaling"]}
    printed = capfd.readouterr().out
    # Threads of other drivers than PoCL are their own affair.
    pocl = "Portable Computing Language" in printed
    assert axes == {"batch": [1, 4], "size": [64, 128]} | (
        {"threads": run.threads()} if pocl else {})
    assert {o["what"] for o in result["ops"]} == {"unet", "decode"}
    for part in ("a small plan", "img2img", "linear", *axes):
        assert part in printed
    assert run.allocations(told["models"]) == 0
    result["scaling"][1]["rows"][1]["loop_allocations"] = 3
    assert run.allocations(told["models"]) == 3
