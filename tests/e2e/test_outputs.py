"""What a client gets: formats, several pictures, the sheet of them, and what the files say of
themselves to exiftool and to A1111's reader."""
import io
import json
import re
import subprocess

import pytest
from PIL import Image, PngImagePlugin, TiffImagePlugin  # noqa: F401

from conftest import P, ROOT, darkroom

PROMPT = "a (large:1.2) red circle, \"bold\" on a blue background"
JOB = {"prompt": PROMPT, "negative_prompt": "a star, line\nand another", "steps": 4, "seed": 9,
       "width": 64, "height": 64}

# modules/infotext_utils.py of stable-diffusion-webui
PARAMETER = re.compile(r'\s*(\w[\w \-/]+):\s*("(?:\\.|[^\\"])+"|[^,]*)(?:,|$)')


def open_picture(data):
    picture = Image.open(io.BytesIO(data))
    picture.load()
    return picture


def a1111_text(picture):
    """The parameters as A1111 finds them in a file (modules/images.py)."""
    if "parameters" in picture.info:
        return picture.info["parameters"]
    comment = picture.getexif().get_ifd(0x8769)[0x9286]
    code, text = comment[:8], comment[8:]
    assert code == b"UNICODE\0"
    return text.decode("utf-16-be")


def a1111_parse(text):
    """{name: value} with "Prompt" and "Negative prompt", as A1111 reads its own."""
    *lines, last = text.strip().split("\n")
    assert len(PARAMETER.findall(last)) >= 3
    found, where = {"Prompt": "", "Negative prompt": ""}, "Prompt"
    for line in lines:
        if line.startswith("Negative prompt:"):
            where, line = "Negative prompt", line[16:].strip()
        found[where] += ("\n" if found[where] else "") + line
    for name, value in PARAMETER.findall(last):
        found[name] = json.loads(value) if value.startswith('"') else value
    return found


@pytest.mark.parametrize("format, pillow, options", [
    ("webp", "WEBP", {}),
    ("webp", "WEBP", {"near_lossless": 40}),
    ("webp", "WEBP", {"lossless": True}),
    ("png", "PNG", {}),
    ("jpeg", "JPEG", {"quality": 95}),
])
def test_formats_and_their_parameters(redis, tmp_path, format, pillow, options):
    job = redis.pack(**JOB, output={"format": format, **options})
    end = redis.end(job)
    assert end["event"] == "succeeded", end
    assert end["images"][0]["format"] == format
    data = redis.result(job)
    picture = open_picture(data)
    assert (picture.format, picture.size, picture.mode) == (pillow, (64, 64), "RGB")
    text = a1111_text(picture)
    said = a1111_parse(text)
    assert said["Prompt"] == PROMPT
    assert said["Negative prompt"] == JOB["negative_prompt"]
    assert (said["Steps"], said["Seed"], said["Size"]) == ("4", "9", "64x64")
    assert (said["Sampler"], said["Schedule type"]) == ("DDIM", "Automatic") or said["Sampler"]
    assert said["Version"].startswith("darkroom ")

    path = tmp_path / f"picture.{format}"
    path.write_bytes(data)
    tool = json.loads(subprocess.run(["exiftool", "-json", "-Parameters", "-UserComment", path],
                                     check=True, capture_output=True, text=True).stdout)[0]
    assert text in (tool.get("Parameters"), tool.get("UserComment"))


def test_formats_hold_the_same_picture(redis):
    ask = {**JOB, "output": {"format": "png"}}
    reference = open_picture(redis_result(redis, ask))
    lossless = open_picture(redis_result(redis, {**JOB, "output": {"lossless": True}}))
    assert lossless.tobytes() == reference.tobytes()
    near = redis_result(redis, {**JOB, "output": {"near_lossless": 20}})
    assert largest_difference(open_picture(near), reference) <= 16
    for quality, worst in ((95, 60), (20, 160)):
        lossy = redis_result(redis, {**JOB, "output": {"format": "jpeg", "quality": quality}})
        assert 0 < largest_difference(open_picture(lossy), reference) <= worst


def redis_result(redis, job):
    name = redis.pack(**job)
    assert redis.end(name)["event"] == "succeeded"
    return redis.result(name)


def largest_difference(a, b):
    return max(abs(x - y) for x, y in zip(a.tobytes(), b.tobytes()))


def test_without_metadata_files_say_nothing(redis):
    for format in ("webp", "png", "jpeg"):
        picture = open_picture(redis_result(
            redis, {**JOB, "output": {"format": format, "metadata": False}}))
        assert "parameters" not in picture.info and not picture.getexif()


def test_pictures_come_one_by_one_and_a_sheet_of_them(redis):
    job = redis.pack(**JOB, n=3, output={"format": "png", "sheet": True})
    end = redis.end(job)
    assert end["event"] == "succeeded", end
    assert [(i["index"], i["seed"], i.get("sheet", False)) for i in end["images"]] == [
        (0, 9, False), (1, 10, False), (2, 11, False), (3, 9, True)]
    events = redis.events(job)
    told = [{k: e[k] for k in end["images"][0] if k in e} for e in events if e["event"] == "image"]
    assert told[:3] == end["images"][:3]
    # each went out when it was made, not all at the end
    times = [e["ts_ms"] for e in events if e["event"] == "image"]
    assert times[2] - times[0] >= 0.4 * end["timings"]["decode"] > 0
    pictures = [open_picture(redis.result(job, i)) for i in range(3)]
    sheet = open_picture(redis.result(job, 3))
    assert sheet.size == (end["images"][3]["width"], end["images"][3]["height"]) == (140, 140)
    for i, picture in enumerate(pictures):
        x, y = 4 + i % 2 * 68, 4 + i // 2 * 68
        assert sheet.crop((x, y, x + 64, y + 64)).tobytes() == picture.tobytes()
    assert sheet.getpixel((1, 1)) == (255, 255, 255)
    assert a1111_parse(a1111_text(sheet))["Seed"] == "9"


def test_a_sheet_of_pictures_larger_than_they_were_made(redis):
    """only_masked works at 64 x 64; what is handed out has the size of what was sent."""
    sent, mask = Image.new("RGB", (1024, 768), "white"), Image.new("L", (1024, 768))
    mask.paste(255, (100, 100, 300, 300))
    files = [io.BytesIO(), io.BytesIO()]
    sent.save(files[0], "PNG")
    mask.save(files[1], "PNG")
    job = redis.pack(**JOB, n=4, init_image=files[0].getvalue(), mask=files[1].getvalue(),
                     only_masked=True, mask_blur=0, output={"format": "png", "sheet": True})
    end = redis.end(job)
    assert end["event"] == "succeeded", end
    pictures = [open_picture(redis.result(job, i)) for i in range(5)]
    assert [p.size for p in pictures] == [(1024, 768)] * 4 + [(2060, 1548)]
    for i, picture in enumerate(pictures[:4]):
        x, y = 4 + i % 2 * 1028, 4 + i // 2 * 772
        assert pictures[4].crop((x, y, x + 1024, y + 768)).tobytes() == picture.tobytes()


def test_a_sheet_of_one_is_a_warning(redis):
    job = redis.pack(**JOB, output={"sheet": True})
    end = redis.end(job)
    assert len(end["images"]) == 1
    assert end["warnings"] == ["without effect: output.sheet (needs n above 1)"]


def test_generate_writes_every_format_and_the_sheet(tmp_path):
    for ending, pillow in (("webp", "WEBP"), ("png", "PNG"), ("jpg", "JPEG")):
        format = "jpeg" if ending == "jpg" else ending
        done = darkroom("generate", "a red circle", "--steps", "2", "--size", "64x64", "--count",
                        "2", "--sheet", "--seed", "5", "--format", format, cwd=tmp_path)
        assert done.returncode == 0, done.stderr
        for name in ("darkroom-5", "darkroom-6", "darkroom-5-sheet"):
            with Image.open(tmp_path / f"{name}.{ending}") as picture:
                assert picture.format == pillow


FORMATS = {"a.png": "PNG", "a.JPEG": "JPEG", "a.jpg": "JPEG", "a.webp": "WEBP", "a": "WEBP"}
CHEAP = ("a red circle", "--steps", "1", "--size", "64x64")


def test_generate_follows_the_ending(tmp_path):
    for name, pillow in FORMATS.items():
        done = darkroom("generate", *CHEAP, "-o", name, cwd=tmp_path)
        assert done.returncode == 0, done.stderr
        with Image.open(tmp_path / name) as picture:
            assert picture.format == pillow
    done = darkroom("generate", *CHEAP, "-o", "a.tmp", "--format", "jpg", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    with Image.open(tmp_path / "a.tmp") as picture:
        assert picture.format == "JPEG"


def test_submit_follows_the_ending(redis, tmp_path):
    done = darkroom("submit", *CHEAP, "--redis", redis.url, "-o", "a.png", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    with Image.open(tmp_path / "a.png") as picture:
        assert picture.format == "PNG"


@pytest.mark.parametrize("command", ["generate", "submit"])
@pytest.mark.parametrize("options, part", [
    (["-o", "a.gif"], "must be .webp, .png, .jpg or .jpeg"),
    (["-o", "a.png", "--format", "jpeg"], "--output a.png contradicts --format jpeg"),
    (["-o", "a.png", "--field", "output_format=webp"], "--output a.png contradicts"),
])
def test_endings_that_cannot_be(tmp_path, command, options, part):
    done = darkroom(command, *CHEAP, *options, cwd=tmp_path)
    assert done.returncode == 64 and part in done.stderr
    assert not list(tmp_path.iterdir())


def test_a_model_with_a_comma_in_its_name(tmp_path):
    name = 'mine, "the: second"'
    (tmp_path / name).symlink_to(ROOT / "tests/golden/tiny-sd1/model")
    done = darkroom("generate", *CHEAP, "--model", name, "-o", "a.png", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    with Image.open(tmp_path / "a.png") as picture:
        said = a1111_parse(a1111_text(picture))
    assert said["Model"] == name and said["Size"] == "64x64"


def test_submit_saves_the_sheet_too(redis, tmp_path):
    done = darkroom("submit", "a red circle", "--redis", redis.url, "--steps", "2", "--size",
                    "64x64", "--count", "2", "--sheet", "--format", "png", "--wait", "-o",
                    "out.png", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert sorted(p.name for p in tmp_path.iterdir()) == ["out-0.png", "out-1.png", "out-2.png"]


@pytest.mark.parametrize("output, field", [
    ({"format": "gif"}, "output.format"),
    ({"format": "jpeg", "lossless": True}, "output.lossless"),
    ({"format": "png", "near_lossless": 50}, "output.near_lossless"),
    ({"quality": 101}, "output.quality"),
])
def test_outputs_that_cannot_be(redis, output, field):
    job = redis.pack(**JOB, output=output)
    end = redis.end(job)
    assert (end["event"], end["code"], end["field"]) == ("failed", "invalid", field)
    assert redis.client.exists(f"{P}:result:{job}:0") == 0
