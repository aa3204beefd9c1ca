"""The commands that need no Redis: devices, inspect, generate, config, help."""
import io
import json
import os
import shutil
import struct
import subprocess

import pytest
from PIL import Image

from conftest import PROGRAM, ROOT, darkroom, environment

DEMO = ROOT / "contrib/demo-model/model"
TINY = ROOT / "tests/golden/tiny-sd1/model"
COMMANDS = ["worker", "submit", "watch", "generate", "inspect", "devices", "tune", "config"]


def run(*arguments, **env):
    """darkroom(), with more in the environment."""
    return subprocess.run([str(PROGRAM), *map(str, arguments)], env={**environment(), **env},
                          capture_output=True, text=True, timeout=600)


@pytest.fixture
def tiny(tmp_path):
    return shutil.copytree(TINY, tmp_path / "tiny")


def rewrite_header(path, change):
    """Change the JSON header of a safetensors file, leaving the data as it is."""
    raw = path.read_bytes()
    n = struct.unpack("<Q", raw[:8])[0]
    header = json.loads(raw[8:8 + n])
    header = change(header) or header
    text = json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + raw[8 + n:])


# --- help and options ---


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_help(command):
    r = darkroom(command, "--help")
    assert r.returncode == 0
    assert f"darkroom {command}" in r.stdout and "--help" in r.stdout and "xit" in r.stdout


def test_the_program_lists_its_commands():
    r = darkroom("--help")
    assert r.returncode == 0 and all(c in r.stdout for c in COMMANDS)
    assert darkroom("--version").stdout.startswith("darkroom ")
    assert darkroom("develop").returncode == 64
    assert darkroom("generate", "x", "--stepz", "3").returncode == 64


# --- settings ---


def test_later_settings_win(tmp_path):
    """Defaults < file < environment < command line, each seen by what it refuses."""
    conf = tmp_path / "d.conf"
    conf.write_text("[device]\nselect = from-file\n")
    assert "from-file" in run("generate", "x", "--config", conf).stderr
    r = run("generate", "x", "--config", conf, DARKROOM_DEVICE_SELECT="from-env")
    assert "from-env" in r.stderr and r.returncode != 0
    r = run("generate", "x", "--config", conf, "--set", "device.select=from-cli",
            DARKROOM_DEVICE_SELECT="from-env")
    assert "from-cli" in r.stderr and "darkroom devices" in r.stderr


@pytest.mark.parametrize("text, part", [
    ("[device]\nselekt = x\n", "device.selekt"),
    ("[lease]\nms = soon\n", "lease.ms"),
    ("[lease]\nms = 1\n", "1000"),
    ("nonsense\n", ":1"),
])
def test_a_bad_settings_file_is_told(tmp_path, text, part):
    conf = tmp_path / "d.conf"
    conf.write_text(text)
    r = run("generate", "x", "--config", conf)
    assert r.returncode != 0 and part in r.stderr and str(conf) in r.stderr


# --- devices ---


def test_devices_are_listed_with_limits():
    r = darkroom("devices", "--json")
    assert r.returncode == 0
    rows = json.loads(r.stdout)
    rows = rows if isinstance(rows, list) else rows["devices"]
    assert rows and all(row["name"] and row["max_alloc_bytes"] > 0 for row in rows)
    assert rows[0]["name"] in darkroom("devices").stdout


@pytest.mark.parametrize("command", [["devices"], ["generate", "x"]])
def test_without_a_platform_the_remedy_is_told(tmp_path, command):
    r = run(*command, OCL_ICD_VENDORS=str(tmp_path))
    assert r.returncode == 69 and "pocl-opencl-icd" in r.stderr


# --- inspect ---


def test_inspect_counts():
    r = darkroom("inspect", DEMO, "--json")
    assert r.returncode == 0
    told = json.loads(r.stdout)
    assert told["family"] == "StableDiffusionPipeline"
    assert told["components"]["unet"]["tensors"] == 326
    assert told["components"]["unet"]["dtypes"] == {"f32": 0, "f16": 326, "bf16": 0}
    assert round(told["components"]["unet"]["parameters"] / 1e6, 2) == 4.81
    assert told["defaults"]["width"] == 128 and told["defaults"]["cfg_scale"] == 5
    assert told["memory"]["weights_bytes"] == 4 * sum(
        c["parameters"] for c in told["components"].values())
    assert "4.81 M parameters" in darkroom("inspect", DEMO).stdout


def test_inspect_needs_a_model(tmp_path):
    r = darkroom("inspect", tmp_path / "none")
    assert r.returncode == 66 and "no such model folder" in r.stderr
    r = darkroom("inspect", tmp_path)
    assert r.returncode == 66 and "model_index.json" in r.stderr


def drop(name):
    return lambda h: {k: v for k, v in h.items() if k != name}


def overlap(h):
    names = [k for k in h if k != "__metadata__"]
    h[names[1]]["data_offsets"] = h[names[0]]["data_offsets"]
    h[names[1]]["shape"], h[names[1]]["dtype"] = h[names[0]]["shape"], h[names[0]]["dtype"]


def beyond(h):
    name = [k for k in h if k != "__metadata__"][0]
    first, last = h[name]["data_offsets"]
    h[name]["data_offsets"] = [first + 10**12, last + 10**12]


def reshape(h):
    h["conv_in.weight"]["shape"] = h["conv_in.weight"]["shape"][::-1]


def extra(h):
    h["conv_in.more"] = {"dtype": "F16", "shape": [0], "data_offsets": [0, 0]}


@pytest.mark.parametrize("change, parts", [
    (drop("conv_in.weight"), ["conv_in.weight", "missing", "[16, 4, 3, 3]"]),
    (reshape, ["conv_in.weight", "[3, 3, 4, 16]", "[16, 4, 3, 3]"]),
    (extra, ["conv_in.more", "config.json"]),
    (overlap, ["conv_in", "starts 0 bytes into"]),
    (beyond, ["diffusion_pytorch_model.safetensors"]),
])
@pytest.mark.parametrize("command", ["inspect", "generate"])
def test_weights_that_lie_are_refused(tiny, change, parts, command):
    rewrite_header(tiny / "unet/diffusion_pytorch_model.safetensors", change)
    r = darkroom("inspect", tiny) if command == "inspect" else darkroom(
        "generate", "x", "--model", tiny, "-o", tiny / "x.webp")
    assert r.returncode not in (0, 1) and r.returncode > 0
    assert all(part in r.stderr for part in parts), r.stderr
    assert not (tiny / "x.webp").exists()


@pytest.mark.parametrize("keep", [0, 4, 8, 100, 20000])
def test_truncated_weights_are_refused(tiny, keep):
    path = tiny / "unet/diffusion_pytorch_model.safetensors"
    path.write_bytes(path.read_bytes()[:keep])
    r = darkroom("inspect", tiny)
    assert r.returncode > 1 and "diffusion_pytorch_model" in r.stderr


# --- generate ---


def test_generate_makes_the_same_file_twice(tmp_path):
    def make(name):
        r = darkroom("generate", "a green square on a white background", "--seed", 3, "--steps", 4,
                     "-o", tmp_path / name, "--json")
        assert r.returncode == 0, r.stderr
        return json.loads(r.stdout), (tmp_path / name).read_bytes()
    told, first = make("a.webp")
    assert make("b.webp")[1] == first
    picture = Image.open(io.BytesIO(first))
    assert picture.format == "WEBP" and picture.size == (128, 128)
    assert str(tmp_path / "a.webp") in json.dumps(told)


@pytest.mark.parametrize("options, part", [
    (["--sampler", "magic"], "dpmpp_2m"),
    (["--size", "65x64"], "nearest"),
    (["--steps", "0"], "1..1000"),
    (["--steps", "1000000000"], "1..1000"),
])
def test_generate_refuses_as_a_queue_does(tmp_path, options, part):
    r = darkroom("generate", "x", *options, "-o", tmp_path / "x.webp")
    assert r.returncode == 65 and part in r.stderr


def test_shards_load_like_a_whole_file(tiny, tmp_path):
    path = tiny / "unet/diffusion_pytorch_model.safetensors"
    raw = path.read_bytes()
    n = struct.unpack("<Q", raw[:8])[0]
    header = {k: v for k, v in json.loads(raw[8:8 + n]).items() if k != "__metadata__"}
    data, whole = raw[8 + n:], darkroom_picture(tiny, tmp_path / "whole.webp")
    index = {"metadata": {}, "weight_map": {}}
    for part in range(2):
        names, blob, sub = sorted(header)[part::2], b"", {}
        for name in names:
            first, last = header[name]["data_offsets"]
            sub[name] = {**header[name], "data_offsets": [len(blob), len(blob) + last - first]}
            blob += data[first:last]
            index["weight_map"][name] = f"part-{part}.safetensors"
        text = json.dumps(sub).encode()
        (tiny / f"unet/part-{part}.safetensors").write_bytes(
            struct.pack("<Q", len(text)) + text + blob)
    path.unlink()
    (tiny / "unet/diffusion_pytorch_model.safetensors.index.json").write_text(json.dumps(index))
    assert darkroom_picture(tiny, tmp_path / "shards.webp") == whole


def darkroom_picture(model, path):
    r = darkroom("generate", "x", "--model", model, "--size", "64x64", "--steps", 2, "--seed", 1,
                 "-o", path)
    assert r.returncode == 0, r.stderr
    return path.read_bytes()


# --- kernels ---


def test_a_kernel_that_does_not_build_shows_its_log(tmp_path):
    cl = shutil.copytree(ROOT / "cl", tmp_path / "cl")
    (cl / "softmax.cl").write_text((cl / "softmax.cl").read_text() + "\nnot a kernel\n")
    r = darkroom("generate", "x", "--set", f"device.cl_dir={cl}", "-o", tmp_path / "x.webp")
    assert r.returncode == 69 and "softmax.cl" in r.stderr and "error" in r.stderr


def test_a_kernel_that_computes_wrongly_is_found_at_start(tmp_path):
    cl = shutil.copytree(ROOT / "cl", tmp_path / "cl")
    text = (cl / "elementwise.cl").read_text()
    assert "1.702f" in text
    (cl / "elementwise.cl").write_text(text.replace("1.702f", "1.6f"))
    r = darkroom("generate", "x", "--set", f"device.cl_dir={cl}", "-o", tmp_path / "x.webp")
    assert r.returncode == 69 and "self-test: quick_gelu" in r.stderr


def test_a_spoilt_cache_is_only_a_miss(tmp_path):
    cache = tmp_path / "cache"
    make = ["generate", "x", "--model", TINY, "--size", "64x64", "--steps", 1, "--seed", 1,
            "--set", f"device.cache_dir={cache}", "-o"]
    assert darkroom(*make, tmp_path / "a.webp").returncode == 0
    files = list(cache.glob("*"))
    assert files
    for file in files:
        file.write_bytes(file.read_bytes()[:40] + os.urandom(100))
    assert darkroom(*make, tmp_path / "b.webp").returncode == 0
    assert (tmp_path / "a.webp").read_bytes() == (tmp_path / "b.webp").read_bytes()


def test_a_bad_tuning_file_is_told(tmp_path):
    tuning = tmp_path / "t.ini"
    tuning.write_text("[Xgemm]\nMWG = many\n")
    r = darkroom("generate", "x", "--set", f"device.tuning={tuning}")
    assert r.returncode != 0 and "MWG" in r.stderr and str(tuning) in r.stderr
