"""`darkroom tune`, its short form at a first start, and what becomes of the result."""
import json
import shutil
import subprocess

import pytest

from conftest import PROGRAM, ROOT, darkroom, environment

DEMO = ROOT / "contrib/demo-model/model"
TINY = ROOT / "tests/golden/tiny-sd1/model"
COMPILED = ["--candidates", "packed,clblast pocl-cpu"]  # by the self-test, long ago


@pytest.fixture
def cache(tmp_path):
    """A cache folder in which nothing was measured, with the kernels that are compiled."""
    shared = environment()["XDG_CACHE_HOME"] + "/darkroom"
    shutil.copytree(shared, tmp_path / "cache", dirs_exist_ok=True,
                    ignore=shutil.ignore_patterns("tune-*", "*.tmp"))
    return tmp_path / "cache"


def tune(cache, *options):
    return darkroom("tune", "--model", DEMO, "--seconds", 1, *COMPILED, "--set",
                    f"device.cache_dir={cache}", *options)


def start(cache, name, *options):
    """A program's start: the command line that makes a small picture."""
    return [str(x) for x in [
        PROGRAM, "generate", "x", "--model", TINY, "--size", "64x64", "--steps", 1, "--seed", 1,
        "-o", cache.parent / name, "--set", f"device.cache_dir={cache}", *options]]


def run(command):
    return subprocess.run(command, env=environment(), capture_output=True, text=True, timeout=600)


def device(cache, *options):
    r = darkroom("devices", "--json", "--set", f"device.cache_dir={cache}", *options)
    assert r.returncode == 0
    return json.loads(r.stdout)[0], r.stderr


def test_tune_prints_stores_and_is_used(cache):
    assert device(cache)[0]["products_by"] == "default"
    r = tune(cache)
    assert r.returncode == 0, r.stderr
    assert all(word in r.stdout for word in ["conv3x3", "linear", "attention", "packed",
                                             "clblast pocl-cpu", "winner: ", "seconds a picture"])
    assert "100%" in r.stderr or "packed" in r.stderr
    stored = r.stdout.split("stored: ")[1].splitlines()[0]
    assert stored.startswith(f"{cache}/tune-")
    text = open(stored).read()
    assert "[choice]" in text and "GFLOPS" in text
    told = device(cache)[0]
    assert told["products_by"] == "measured" and told["products"] in r.stdout
    assert told["measured_on"] == str(DEMO) and told["measured_at"] in text
    assert "measured at" in darkroom("devices", "--set", f"device.cache_dir={cache}").stdout
    r = run(start(cache, "a.webp"))
    assert r.returncode == 0 and "tune.start" not in r.stderr
    assert device(cache, "--set", "device.gemm=clblast")[0]["products_by"] == "setting"


def test_a_dry_run_stores_nothing(cache):
    r = tune(cache, "--dry-run", "--json", "--quiet")
    assert r.returncode == 0 and r.stderr == ""
    told = json.loads(r.stdout)
    assert told["stored"] is None and told["winner"] in ("packed", "clblast pocl-cpu")
    assert [c["name"] for c in told["candidates"]] == ["packed", "clblast pocl-cpu"]
    assert all(c["error"] is None for c in told["candidates"])
    best = min(c["seconds"] for c in told["candidates"] if c["seconds"])
    assert 0 < best < 600
    # The demo model's largest: two rows of its batch at 16 x 16, for each of 20 steps.
    shapes = [s for s in told["shapes"] if s["operation"] == "conv3x3" and s["m"] == 512]
    assert shapes and all(s["calls"] % 20 == 0 for s in shapes)
    assert not list(cache.glob("tune-*"))


def test_a_wrong_candidate_is_out(cache, tmp_path):
    cl = shutil.copytree(ROOT / "cl", tmp_path / "cl")
    text = (cl / "weights.cl").read_text()
    assert "j < outputs ? load_weight" in text
    (cl / "weights.cl").write_text(
        text.replace("j < outputs ? load_weight", "j + 1 < outputs ? load_weight"))
    r = tune(cache, "--set", f"device.cl_dir={cl}")
    assert r.returncode == 0, r.stderr
    assert "packed is out: wrong results" in r.stdout
    assert "winner: clblast pocl-cpu" in r.stdout and "not stored" in r.stdout


def test_parameters_that_clblast_refuses_are_out(cache, tmp_path):
    mine = tmp_path / "mine.ini"
    mine.write_text("[Xgemm]\nMWG = 64\n")
    r = darkroom("tune", "--model", DEMO, "--seconds", 1, "--candidates", "packed,clblast mine",
                 "--set", f"device.tuning={mine}", "--set", f"device.cache_dir={cache}")
    assert r.returncode == 0, r.stderr
    assert "clblast mine is out: CLBlast refuses" in r.stdout
    assert "winner: packed" in r.stdout and "not used" in r.stdout


def test_candidates_that_are_none(cache):
    r = darkroom("tune", "--candidates", "cublas", "--set", f"device.cache_dir={cache}")
    assert r.returncode == 65 and "cublas" in r.stderr


def test_of_first_starts_at_once_one_measures(cache):
    at_once = [subprocess.Popen(start(cache, f"{i}.webp"), env=environment(), text=True,
                                stdout=subprocess.PIPE, stderr=subprocess.PIPE)
               for i in range(3)]
    told = [p.communicate(timeout=600)[1] for p in at_once]
    assert [p.returncode for p in at_once] == [0, 0, 0], told
    measured = [text for text in told if "ev=tune.start" in text]
    assert len(measured) == 1 and measured[0].count("ev=tune.start") == 1
    assert all(word in measured[0] for word in ["packed_gflops=", "clblast_gflops=",
                                                "`darkroom tune`"])
    assert len({(cache.parent / f"{i}.webp").read_bytes() for i in range(3)}) == 1
    assert "first start" in device(cache)[0]["measured_on"]
    r = run(start(cache, "later.webp"))
    assert r.returncode == 0 and "tune." not in r.stderr


def test_a_broken_result_is_ignored_and_said(cache):
    assert tune(cache).returncode == 0
    stored, = cache.glob("tune-*.ini")
    stored.write_text("gemm = everything\n")
    told, log = device(cache)
    assert told["products_by"] == "default" and "ev=tune.file" in log and str(stored) in log
