"""What clients get wrong: one failed event that names the field, the value and a way out; the
worker goes on as it was."""
import io
import json
import math
import os
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from safetensors.numpy import load_file, save_file

from conftest import P, ROOT, darkroom

JOB = {"prompt": "a red circle on a white background", "steps": 2, "width": 64, "height": 64,
       "seed": 1, "output": {"lossless": True}}
LORAS = ROOT / "contrib/demo-model/lora"


def encoded(format, size=(64, 64), **options):
    out = io.BytesIO()
    noise = np.random.default_rng(5).integers(0, 256, (size[1], size[0], 3), np.uint8)
    Image.fromarray(noise).save(out, format, **options)
    return out.getvalue()


def animated(format):
    frames = [Image.new("RGB", (64, 64), c) for c in ("red", "green", "blue")]
    out = io.BytesIO()
    frames[0].save(out, format, save_all=True, append_images=frames[1:])
    return out.getvalue()


def png_of_size(w, h):
    """A head that promises w x h pixels, and hardly any data behind it."""
    def chunk(kind, data):
        crc = zlib.crc32(kind + data)
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", crc)
    head = struct.pack(">IIBBBBB", w, h, 8, 2, 0, 0, 0)
    return (b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) +
            chunk(b"IDAT", zlib.compress(bytes(1000))) + chunk(b"IEND", b""))


def jpeg_of_size(w, h):
    data = bytearray(encoded("JPEG"))
    at = data.index(b"\xff\xc0")
    data[at + 5:at + 9] = struct.pack(">HH", h, w)
    return bytes(data)


def webp_of_size(w, h):
    data = bytearray(encoded("WEBP", quality=80))
    at = data.index(b"\x9d\x01\x2a")
    data[at + 3:at + 7] = struct.pack("<HH", w, h)
    return bytes(data)


def refused(redis, field, *words, code="invalid", **fields):
    job = redis.pack(**{**JOB, **fields})
    end = redis.end(job)
    assert end["event"] == "failed", end
    assert (end["code"], end["field"]) == (code, field), end
    for word in words:
        assert word in end["message"], end
    assert redis.types(job)[-1] == "failed" and redis.types(job).count("failed") == 1
    assert redis.client.exists(f"{P}:result:{job}:0") == 0
    return end


@pytest.fixture
def goes_on(redis):
    """After the test the worker serves a job as if nothing had been."""
    yield redis
    assert redis.end(redis.pack(**JOB))["event"] == "succeeded"


@pytest.mark.parametrize("data, words", [
    (encoded("PNG")[:2000], ["cut short"]),
    (encoded("JPEG")[:900], ["init_image"]),
    (encoded("WEBP", quality=80)[:500], ["init_image"]),
    (encoded("PNG")[:20], ["init_image"]),
    (encoded("GIF"), ["GIF"]),
    (encoded("BMP"), ["PNG"]),
    (encoded("TIFF"), ["PNG"]),
    (b"<svg xmlns='http://www.w3.org/2000/svg'/>", ["PNG"]),
    (b"not a picture at all, but a sentence", ["PNG"]),
    (animated("WEBP"), ["animat"]),
    (animated("PNG"), ["animat"]),
    (png_of_size(0, 0), ["0"]),
    (png_of_size(64, 0), ["0"]),
    (jpeg_of_size(0, 64), ["init_image"]),
], ids=["cut png", "cut jpeg", "cut webp", "a head", "gif", "bmp", "tiff", "svg",
        "text", "moving webp", "moving png", "0x0", "64x0", "jpeg 0"])
def test_pictures(goes_on, data, words):
    refused(goes_on, "init_image", *words, init_image=data)


@pytest.mark.parametrize("data", [
    png_of_size(60000, 60000), png_of_size(2**31 - 1, 1), jpeg_of_size(65500, 65500),
    webp_of_size(16383, 16383)], ids=["png", "a line", "jpeg", "webp"])
def test_bombs_are_seen_by_their_head(goes_on, worker, data):
    """A few bytes that would be gigabytes: nothing is allocated for them."""
    def rss():
        status = Path(f"/proc/{worker.process.pid}/status").read_text()
        return int(status.split("VmHWM:")[1].split()[0]) // 1024

    goes_on.end(goes_on.pack(**JOB, init_image=encoded("PNG")))
    before = rss()
    refused(goes_on, "init_image", init_image=data)
    refused(goes_on, "mask", init_image=encoded("PNG"), mask=data)
    assert rss() <= before + 8


def test_a_mask_of_another_size(goes_on):
    for size in ((32, 64), (128, 128), (63, 64)):
        refused(goes_on, "mask", "64 x 64", init_image=encoded("PNG"),
                mask=encoded("PNG", size))


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, 11, -10.5, "strong"])
def test_strengths(goes_on, value):
    end = goes_on.end(goes_on.pack(**JOB, loras=[{"name": "outline", "strength": value}]))
    assert (end["event"], end["code"]) == ("failed", "invalid")
    assert end["field"].startswith("loras")
    end = goes_on.end(goes_on.pack(**JOB, init_image=encoded("PNG"), strength=value))
    assert (end["event"], end["code"]) == ("failed", "invalid")
    assert end["field"] == "strength"


@pytest.mark.parametrize("name", ["../outline", "/etc/passwd", "a/b", "..", ".", "a\0b", "",
                                  "outline.safetensors/../outline", "x" * 200, "a\\b"])
@pytest.mark.parametrize("field", ["loras", "controls", "model"])
def test_names_stay_in_their_folder(goes_on, field, name):
    what = {"loras": [{"name": name}], "model": name,
            "controls": [{"name": name, "image": encoded("PNG")}]}[field]
    end = goes_on.end(goes_on.pack(**{**JOB, field: what}))
    assert end["event"] == "failed" and end["code"] in ("invalid", "not_found"), end
    assert end["field"].startswith(field)
    assert "/etc" not in end["message"].replace("/etc/passwd", "")


def test_a_hundred_loras(goes_on):
    refused(goes_on, "loras", "more than 16", loras=[{"name": "outline"}] * 100)
    tags = " ".join(["<lora:outline:0.1>"] * 100)
    refused(goes_on, "prompt", "more than 16", prompt=tags)


@pytest.mark.parametrize("field, value, words", [
    ("sampler", "dpm+++", ["dpm+++", "euler"]),
    ("schedule", "carras", ["carras", "karras"]),
    ("controls", [{"name": "pose", "image": encoded("PNG")}], ["pose"]),
    ("controls", [{"name": "pose"}], ["image"]),
    ("loras", [{"name": "inline"}], ["inline", "outline"]),
])
def test_unknown_names_get_the_list(goes_on, field, value, words):
    end = goes_on.end(goes_on.pack(**{**JOB, field: value}))
    assert end["event"] == "failed" and end["code"] in ("invalid", "not_found"), end
    assert end["field"].startswith(field)
    for word in words:
        assert word in end["message"], end


@pytest.mark.parametrize("prompt", ["a ((red circle", "a red) circle", "[a red circle",
                                    "a red circle]", "(a [red) circle]", "a red circle\\",
                                    "(((((((((", "[a:b:", "(red:1.2", "(red:x) circle", ":::"])
def test_unbalanced_brackets_are_text(goes_on, prompt):
    end = goes_on.end(goes_on.pack(**{**JOB, "prompt": prompt}))
    assert end["event"] == "succeeded", end


def test_a_bracket_without_its_other_is_the_escaped_one(goes_on):
    pictures = [goes_on.result(goes_on_end(goes_on, p)) for p in
                ("a red) circle", "a red\\) circle")]
    a, b = (Image.open(io.BytesIO(p)).convert("RGB").tobytes() for p in pictures)
    assert a == b


def goes_on_end(redis, prompt):
    job = redis.pack(**{**JOB, "prompt": prompt})
    assert redis.end(job)["event"] == "succeeded"
    return job


@pytest.fixture
def odd_loras(tmp_path):
    """Files that are no LoRAs of this model."""
    good = load_file(LORAS / "outline.safetensors")
    first = next(k for k in sorted(good) if "lora_A" in k or "lora_down" in k or "down" in k)
    wide = {k: np.concatenate([v, v], 1) if k == first else v for k, v in good.items()}
    save_file({k: v.copy() for k, v in wide.items()}, tmp_path / "wide.safetensors")
    other = {f"lora_unet_double_blocks_{i}_img_attn_qkv.lora_{d}.weight":
             np.zeros((4, 3072) if d == "down" else (9216, 4), np.float16)
             for i in range(2) for d in ("down", "up")}
    save_file(other, tmp_path / "flux.safetensors")
    save_file({"emb_params": np.zeros((2, 128), np.float32)}, tmp_path / "embedding.safetensors")
    (tmp_path / "empty.safetensors").write_bytes(b"")
    (tmp_path / "cut.safetensors").write_bytes(
        (LORAS / "outline.safetensors").read_bytes()[:5000])
    lie = json.dumps({"a.lora_A.weight": {"dtype": "F32", "shape": [2**40, 2**40],
                                          "data_offsets": [0, 2**62]}}).encode()
    (tmp_path / "lie.safetensors").write_bytes(struct.pack("<Q", len(lie)) + lie)
    (tmp_path / "head.safetensors").write_bytes(struct.pack("<Q", 2**63) + b"{}")
    os.symlink("/etc/passwd", tmp_path / "link.safetensors")
    return tmp_path, first


def test_files_that_are_no_lora_of_this_model(lab, odd_loras):
    folder, first = odd_loras
    redis = lab.redis()
    worker = lab.worker(redis, "--set", f"lora.dir={folder}").ready()
    for name, words in {
            "wide": ["[", "]"], "flux": ["double_blocks", "FLUX"], "embedding": ["none"],
            "empty": ["empty"], "cut": ["cut"], "lie": ["lie"], "head": ["head"],
            "link": ["link"]}.items():
        end = redis.end(redis.pack(**JOB, loras=[{"name": name}]))
        assert end["event"] == "failed", (name, end)
        assert "loras" in end["field"] or name in end["message"], (name, end)
        for word in words:
            assert word in end["message"], (name, end)
    assert redis.end(redis.pack(**JOB))["event"] == "succeeded"
    assert worker.process.poll() is None


def test_the_command_line_says_the_same(tmp_path):
    bad = tmp_path / "bad.png"
    bad.write_bytes(png_of_size(60000, 60000))
    for options, word in (
            (("--init", bad), "init_image"), (("--init", tmp_path / "none.png"), "none.png"),
            (("--lora", "outline:nan"), "nan"), (("--sampler", "eulr"), "eulr"),
            (("--strength", "2", "--init", bad), "strength"),
            (("--hires", "9"), "hires"), (("--count", "17"), "17")):
        done = darkroom("generate", "a red circle", "--quiet", "-o", tmp_path / "o.webp", *options)
        assert done.returncode in (64, 65, 66), (options, done)
        assert word in done.stderr, (options, done.stderr)
        assert not (tmp_path / "o.webp").exists()
