"""Jobs that begin with a picture: sent in the job, by a key, from files."""
import io
import json

import pytest
from PIL import Image, ImageChops, ImageDraw

from conftest import P, darkroom

PROMPT = "a red circle on a blue background"
W, H = 96, 64
BOX = (32, 16, 72, 56)                # of the mask


def png(image):
    out = io.BytesIO()
    image.save(out, "PNG")
    return out.getvalue()


@pytest.fixture(scope="module")
def picture():
    image = Image.linear_gradient("L").resize((W, H)).convert("RGB")
    ImageDraw.Draw(image).ellipse((20, 10, 60, 50), fill=(220, 30, 40))
    return image


@pytest.fixture(scope="module")
def mask():
    image = Image.new("L", (W, H))
    ImageDraw.Draw(image).rectangle((BOX[0], BOX[1], BOX[2] - 1, BOX[3] - 1), fill=255)
    return image


def submit(redis, **fields):
    """As msgpack, where pictures are bin."""
    job = {"prompt": PROMPT, "steps": 5, "seed": 3, "strength": 0.6,
           "output": {"lossless": True}, **fields}
    return redis.pack(**job)


def made(redis, **fields):
    name = submit(redis, **fields)
    end = redis.end(name, 120)
    assert end["event"] == "succeeded", end
    return Image.open(io.BytesIO(redis.result(name))).convert("RGB")


def refused(redis, **fields):
    end = redis.end(submit(redis, **fields))
    assert (end["event"], end["code"]) in {("failed", "invalid"), ("failed", "not_found")}, end
    return end


def is_kept_outside(image, sent):
    """Whether nothing but the box of the mask has changed, and that has."""
    box = ImageChops.difference(image, sent).getbbox()
    return box and box[0] >= BOX[0] and box[1] >= BOX[1] and box[2] <= BOX[2] and box[3] <= BOX[3]


def test_a_picture_in_the_job(redis, picture):
    """The result has the picture's size and differs with the strength."""
    results = [made(redis, init_image=png(picture), strength=s) for s in (0.2, 0.8)]
    assert results[0].size == results[1].size == (W, H)
    assert ImageChops.difference(*results).getbbox()
    assert made(redis, init_image=png(picture), size="64x128").size == (64, 128)


def test_the_phases_are_told(redis, picture):
    name = submit(redis, init_image=png(picture), n=2)
    assert redis.end(name, 120)["event"] == "succeeded"
    steps = [e for e in redis.events(name) if e["event"] == "progress"]
    assert steps[0]["phase"] == "encode"
    assert [e["percent"] for e in steps] == sorted(e["percent"] for e in steps)


def test_a_picture_by_its_key(redis, picture):
    """With the queue's prefix or without: the picture that the same bytes give."""
    want = made(redis, init_image=png(picture))
    redis.client.set(f"{P}:input:mine:init_image", png(picture), ex=60)
    for key in ("input:mine:init_image", f"{P}:input:mine:init_image"):
        assert made(redis, init_image=key).tobytes() == want.tobytes()


def test_a_mask_by_its_key(redis, picture, mask):
    redis.client.set(f"{P}:input:mine:mask", png(mask), ex=60)
    image = made(redis, init_image=png(picture), mask="input:mine:mask", mask_blur=0)
    assert is_kept_outside(image, picture)


def test_what_is_wrong_is_told(redis, picture, mask):
    """By the field, and the worker goes on with the next job."""
    whole, gif = png(picture), io.BytesIO()
    picture.save(gif, "GIF")
    redis.client.set(f"{P}:input:mine:gif", gif.getvalue(), ex=60)
    redis.client.hset(f"{P}:input:mine:hash", "a", "b")
    redis.client.expire(f"{P}:input:mine:hash", 60)
    cases = [
        ({"init_image": "input:mine:nothing"}, "init_image", "expired or was never set"),
        ({"init_image": "{other}:input:mine:a"}, "init_image", "of another queue"),
        ({"init_image": "input:mine:hash"}, "init_image", "holds no string"),
        ({"init_image": "input:mine:gif"}, "init_image", "GIF"),
        ({"init_image": whole[:len(whole) // 2]}, "init_image", "cut short"),
        ({"init_image": whole[:300] + bytes(40) + whole[340:]}, "init_image", "broken"),
        ({"init_image": whole, "mask": "input:mine:nothing"}, "mask", "expired"),
        ({"init_image": whole, "mask": png(mask.resize((48, 32)))}, "mask", "48 x 32"),
        ({"init_image": whole, "mask": png(Image.new("L", (W, H)))}, "mask", "black"),
    ]
    for fields, field, words in cases:
        end = refused(redis, **fields)
        assert end["field"] == field, end
        assert words in end["message"], end
    assert made(redis, init_image=whole).size == (W, H)


@pytest.mark.parametrize("way", [{}, {"mask_blur": 0}, {"only_masked": True, "mask_blur": 0}])
def test_outside_of_the_mask_nothing_changes(redis, picture, mask, way):
    image = made(redis, init_image=png(picture), mask=png(mask), **way)
    assert image.size == (W, H)
    if way:
        assert is_kept_outside(image, picture)
    else:                             # blurred: what is far away
        far = (0, 0, 10, H)
        assert image.crop(far).tobytes() == picture.crop(far).tobytes()


def test_two_pictures_in_one_pass(lab, picture):
    """Jobs by keys and by bytes in a batch: each its own picture."""
    redis = lab.redis()
    other = picture.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    redis.client.set(f"{P}:input:mine:a", png(other), ex=60)
    jobs = [submit(redis, init_image=picture_, size=f"{W}x{H}")
            for picture_ in (png(picture), "input:mine:a", "input:mine:b", png(picture))]
    worker = lab.worker(redis, "--set", "batch.max=4", "--set", "batch.wait_ms=3000").ready()
    ends = [redis.end(name, 120)["event"] for name in jobs]
    assert ends == ["succeeded", "succeeded", "failed", "succeeded"]
    one, flipped, again = (Image.open(io.BytesIO(redis.result(jobs[i]))).convert("RGB")
                           for i in (0, 1, 3))
    assert max(high for _, high in ImageChops.difference(one, again).getextrema()) <= 2
    assert max(high for _, high in ImageChops.difference(one, flipped).getextrema()) > 20
    assert worker.process.poll() is None


# --- from files ---

@pytest.fixture
def files(tmp_path, picture, mask):
    (tmp_path / "in.png").write_bytes(png(picture))
    (tmp_path / "m.png").write_bytes(png(mask))
    return tmp_path


OPTIONS = ["--init", "in.png", "--mask", "m.png", "--mask-blur", "0", "--strength", "0.6",
           "--steps", "5", "--seed", "3", "--lossless", "--json"]


def test_submit_from_files(redis, files, picture):
    run = darkroom("submit", "--redis", redis.url, "--wait", "-o", "out.webp", *OPTIONS, PROMPT,
                   cwd=files)
    assert run.returncode == 0, run.stderr
    assert is_kept_outside(Image.open(files / "out.webp").convert("RGB"), picture)


def test_submit_with_picture_mask_and_lora(redis, files, picture):
    """In PNG; the LoRA draws another thing under the mask, and the file names it."""
    made = {}
    for lora in ([], ["--lora", "outline:0.8"]):
        options = [o for o in OPTIONS if o != "--lossless"]
        run = darkroom("submit", "--redis", redis.url, "--wait", "-o", "out.png", *options,
                       *lora, "--format", "png", PROMPT, cwd=files)
        assert run.returncode == 0, run.stderr
        with Image.open(files / "out.png") as out:
            assert ("<lora:outline:0.8>" in out.info["parameters"]) == bool(lora)
            made[bool(lora)] = out.convert("RGB")
            assert is_kept_outside(made[bool(lora)], picture)
    assert max(high for _, high in ImageChops.difference(*made.values()).getextrema()) > 20


def test_generate_from_files(files, picture):
    run = darkroom("generate", "-o", "out.webp", *OPTIONS, PROMPT, cwd=files)
    assert run.returncode == 0, run.stderr
    assert json.loads(run.stdout)["images"][0]["width"] == W
    assert is_kept_outside(Image.open(files / "out.webp").convert("RGB"), picture)


def test_generate_refuses_a_bad_mask(files):
    Image.new("L", (W, H + 8)).save(files / "m.png")
    run = darkroom("generate", "-o", "out.webp", *OPTIONS, PROMPT, cwd=files)
    assert run.returncode != 0
    assert f"mask of {W} x {H + 8} pixels: init_image has {W} x {H}" in run.stderr
