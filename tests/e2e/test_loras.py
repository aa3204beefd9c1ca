"""LoRAs by name: the demo model's own draws shapes as strokes."""
import io
import shutil
import sys

import numpy as np
from PIL import Image

from conftest import ROOT, darkroom

sys.path.insert(0, str(ROOT / "contrib/demo-model/train"))
import score  # noqa: E402

PROMPT = "a large red square on a yellow background"
JOB = {"prompt": PROMPT, "seed": 3, "steps": 15, "cfg_scale": 5}
FILES = ROOT / "contrib/demo-model/lora"


def filled(data):
    """Share of the shape's box, its outer quarters left off, that is unlike the background."""
    rgb = np.asarray(Image.open(io.BytesIO(data)).convert("RGB"), np.float32)
    shape = np.abs(rgb - rgb[0, 0]).sum(-1) > score.DIFFERENT
    y, x = np.nonzero(shape)
    top, bottom, left, right = y.min(), y.max(), x.min(), x.max()
    dy, dx = (bottom - top) // 4, (right - left) // 4
    return shape[top + dy:bottom - dy + 1, left + dx:right - dx + 1].mean()


def pixels(data):
    """The picture without its text, which names the LoRAs."""
    return np.asarray(Image.open(io.BytesIO(data)).convert("RGB"), int)


def picture(redis, job):
    end = redis.end(job, 120)
    assert end["event"] == "succeeded", end
    return redis.result(job)


def test_strength_decides_about_the_style(redis):
    jobs = {s: redis.submit(**JOB, loras=f"outline:{s}") for s in (0, 0.8, 1.2)}
    plain = picture(redis, redis.submit(**JOB))
    pictures = {s: picture(redis, job) for s, job in jobs.items()}
    assert filled(pictures[0]) > 0.8
    assert filled(pictures[0.8]) < 0.3 and filled(pictures[1.2]) < 0.3
    assert (pixels(pictures[0]) == pixels(plain)).all()
    ends = {s: redis.end(job) for s, job in jobs.items()}
    assert "loras" not in ends[0]
    assert [(u["name"], u["unmatched"]) for u in ends[0.8]["loras"]] == [("outline", 0)]
    assert ends[0.8]["loras"][0]["matched"] > 20
    seen = {s: score.read(Image.open(io.BytesIO(p))) for s, p in pictures.items()}
    assert {v.background for v in seen.values()} == {"yellow"}, seen
    assert (seen[0].color, seen[0].shape) == ("red", "square"), seen


def test_spellings_and_prompt_tags_are_the_same_thing(redis):
    strokes = picture(redis, redis.submit(**JOB, loras="outline:1.0"))
    tagged = picture(redis, redis.submit(**{**JOB, "prompt": f"{PROMPT} <lora:outline:1>"}))
    kohya = picture(redis, redis.submit(**JOB, loras="outline-kohya"))
    twice = picture(redis, redis.submit(**JOB, loras='["outline:0.5", "outline:0.5"]'))
    assert (pixels(tagged) == pixels(strokes)).all()
    assert (pixels(twice) == pixels(strokes)).all()
    assert np.abs(pixels(kohya) - pixels(strokes)).max() <= 2


def test_an_unknown_name_gets_the_list(redis):
    end = redis.end(redis.submit(**JOB, loras="nobody"))
    assert end["event"] == "failed" and end["code"] == "not_found", end
    assert end["field"] == "loras[0].name"
    assert "there are: outline, outline-kohya" in end["message"]


def test_the_folder_is_a_setting(tmp_path):
    out = tmp_path / "a.webp"
    options = ("generate", PROMPT, "--steps", "2", "-o", out, "--lora", "mine:0.9")
    shutil.copy(FILES / "outline.safetensors", tmp_path / "mine.safetensors")
    assert darkroom(*options, "--set", f"lora.dir={tmp_path}").returncode == 0
    info = Image.open(out).info
    assert b"<lora:mine:0.9>" in info.get("xmp", b"") + info.get("exif", b"") \
        or b"&lt;lora:mine:0.9&gt;" in info.get("xmp", b"")
    r = darkroom(*options, "--set", "lora.dir=/nowhere")
    assert r.returncode != 0 and "lora.dir /nowhere: no such folder" in r.stderr
