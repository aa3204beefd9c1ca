"""Jobs in their three shapes, what comes out, and what is refused."""
import io
import json
import threading
import time

import msgpack
import pytest
from PIL import Image

from conftest import P, SLOW, until

SMALL = {"width": 64, "height": 64, "steps": 2}
PROMPT = "a red circle on a blue background"


def as_plain(redis, job):
    return redis.submit(**job)


def as_json(redis, job):
    return redis.submit(json=json.dumps(job))


def as_msgpack(redis, job):
    return redis.pack(**job)


def picture(data):
    image = Image.open(io.BytesIO(data))
    image.load()
    return image


def listen(redis, *patterns):
    listener = redis.client.pubsub()
    listener.psubscribe(*patterns)
    for _ in patterns:
        assert listener.get_message(timeout=5)["type"] == "psubscribe"
    return listener


def heard(listener, *channels, quiet_s=0.3):
    """What came on the channels, a list for each, once nothing more comes."""
    found = {channel: [] for channel in channels}
    while message := listener.get_message(timeout=quiet_s):
        if message["channel"].decode() in found:
            found[message["channel"].decode()].append(message["data"])
    return [found[channel] for channel in channels]


# --- what comes out ---

@pytest.mark.parametrize("send", [as_plain, as_json, as_msgpack])
def test_a_job_in_each_shape(redis, send):
    job = {"prompt": PROMPT, "seed": 5, **SMALL}
    listener = listen(redis, f"{P}:image:*", f"{P}:progress:*")
    name = send(redis, job)
    end = redis.end(name)
    assert end["event"] == "succeeded", end
    assert end["id"] == name
    assert end["steps"] == 2
    assert end["images"][0] | {"bytes": 0} == {
        "index": 0, "seed": 5, "width": 64, "height": 64, "bytes": 0,
        "format": "webp", "key": f"{P}:result:{name}:0"}
    stored = redis.result(name)
    assert len(stored) == end["images"][0]["bytes"]
    assert picture(stored).format == "WEBP"
    assert picture(stored).size == (64, 64)
    raw, live = heard(listener, f"{P}:image:{name}", f"{P}:progress:{name}")
    assert raw == [stored]
    assert [json.loads(text) for text in live] == redis.events(name)


def test_events_tell_the_story(redis):
    name = redis.submit(prompt=PROMPT, seed=1, n=2, meta='{"user": 7}', width=64, height=64,
                        steps=5)
    end = redis.end(name)
    events = redis.events(name)
    types = [e["event"] for e in events]
    assert types[0] == "started"
    assert types[-1] == "succeeded"
    assert types.count("image") == 2
    assert [e["seq"] for e in events] == list(range(1, len(events) + 1))
    for e in events:
        assert e["id"] == name
        assert e["meta"] == {"user": 7}
        assert abs(e["ts_ms"] - time.time() * 1000) < 60_000 * SLOW
    assert events[0]["width"] == 64 and events[0]["attempt"] == 1
    progress = [e for e in events if e["event"] == "progress"]
    percents = [e["percent"] for e in progress]
    assert percents == sorted(percents)
    assert percents[-1] == 100 and progress[-1]["phase"] == "compress"
    assert {e["phase"] for e in progress} <= {"encode", "denoise", "decode", "compress"}
    assert any(e["step"] == e["steps"] for e in progress if e["phase"] == "denoise")
    assert [i["seed"] for i in end["images"]] == [1, 2]
    times = end["timings"]
    assert times["total"] >= times["denoise"] > 0
    assert {"wait", "load", "encode", "denoise", "decode", "compress", "total"} == set(times)


def test_progress_comes_at_most_ten_times_a_second(redis):
    name = redis.submit(prompt=PROMPT, width=64, height=64, steps=60)
    redis.end(name)
    events = redis.events(name)
    progress = [e for e in events if e["event"] == "progress"]
    seconds = (events[-1]["ts_ms"] - events[0]["ts_ms"]) / 1000
    assert 3 <= len(progress) <= 10 * seconds + 4


def test_progress_is_readable_by_anybody(redis):
    listener = listen(redis, f"{P}:progress*")
    name = redis.submit(prompt=PROMPT, **SMALL)
    redis.end(name)
    own, every = heard(listener, f"{P}:progress:{name}", f"{P}:progress")
    assert own and all(json.loads(text)["id"] == name for text in own)
    assert [text for text in every if json.loads(text)["id"] == name] == own


def test_events_as_msgpack(redis):
    name = redis.submit(prompt=PROMPT, events="msgpack", **SMALL)

    def events():
        return [msgpack.unpackb(f[b"event"])
                for _, f in redis.client.xrange(f"{P}:events:{name}")]
    until(lambda: any(e["event"] == "succeeded" for e in events()), 60)
    assert events()[0]["event"] == "started"


def test_previews_are_published(redis):
    listener = listen(redis, f"{P}:preview:*")
    name = redis.submit(prompt=PROMPT, preview_every=2, width=64, height=64, steps=12)
    assert redis.end(name)["event"] == "succeeded"
    [raw] = heard(listener, f"{P}:preview:{name}")
    assert raw and all(picture(data).format == "WEBP" for data in raw)
    told = [e for e in redis.events(name) if e["event"] == "preview"]
    assert len(told) == len(raw)
    assert (told[0]["width"], told[0]["height"]) == picture(raw[0]).size


def test_previews_without_a_number(redis):
    name = redis.submit(prompt=PROMPT, preview="true", preview_size=32, width=64, height=64,
                        steps=12)
    silent = redis.submit(prompt=PROMPT, preview="false", preview_size=32, **SMALL)
    assert redis.end(name)["event"] == redis.end(silent)["event"] == "succeeded"
    told = [e for e in redis.events(name) if e["event"] == "preview"]
    assert told and {e["step"] for e in told} <= {2, 4, 6, 8, 10}
    assert all((e["width"], e["height"]) == (32, 32) for e in told)
    assert "preview" not in {e["event"] for e in redis.events(silent)}


def test_the_same_job_gives_the_same_bytes(redis):
    job = {"prompt": PROMPT, "seed": 11, **SMALL}
    first, second = as_plain(redis, job), as_json(redis, job)
    redis.end(first), redis.end(second)
    assert redis.result(first) == redis.result(second)
    other = as_plain(redis, job | {"seed": 12})
    redis.end(other)
    assert redis.result(other) != redis.result(first)


def test_image_i_is_the_picture_of_seed_plus_i(redis):
    two = redis.submit(prompt=PROMPT, seed=20, n=2, output_metadata="false", **SMALL)
    one = redis.submit(prompt=PROMPT, seed=21, output_metadata="false", **SMALL)
    redis.end(two), redis.end(one)
    assert redis.result(two, 1) == redis.result(one)


def test_a_random_seed_is_echoed_and_repeats_the_picture(redis):
    name = redis.submit(prompt=PROMPT, **SMALL)
    seed = redis.end(name)["images"][0]["seed"]
    again = redis.submit(prompt=PROMPT, seed=seed, **SMALL)
    redis.end(again)
    assert redis.result(name) == redis.result(again)


def test_lossless_and_the_parameters_text(redis):
    name = redis.submit(prompt=PROMPT, seed=3, lossless="true", **SMALL)
    redis.end(name)
    data = redis.result(name)
    assert b"VP8L" in data
    assert PROMPT.encode() in data and b"Seed: 3" in data
    plain = redis.submit(prompt=PROMPT, seed=3, output_metadata="false", **SMALL)
    redis.end(plain)
    assert PROMPT.encode() not in redis.result(plain)


def test_every_key_of_an_ended_job_expires(redis):
    name = redis.submit(prompt=PROMPT, n=2, **SMALL)
    redis.end(name)
    keys = [k for k in redis.client.scan_iter(f"{P}:*") if name.encode() in k]
    assert sorted(k.decode() for k in keys) == sorted(
        [f"{P}:job:{name}", f"{P}:events:{name}", f"{P}:result:{name}:0",
         f"{P}:result:{name}:1"])
    for key in keys:
        assert 0 < redis.client.ttl(key) <= 3600, key
    assert redis.client.xpending(f"{P}:q:normal", "workers")["pending"] == 0
    assert redis.client.hget(f"{P}:job:{name}", "state") == b"succeeded"


def test_priority_classes(lab):
    """In a queue of its own, since claims are counted: some turns are other classes'."""
    redis = lab.redis()
    lab.worker(redis).ready()
    busy = redis.submit(prompt=PROMPT, width=64, height=64, steps=20)
    until(lambda: redis.is_running(busy))
    low = redis.submit("low", prompt=PROMPT, **SMALL)
    normal = redis.submit("normal", prompt=PROMPT, **SMALL)
    high = redis.submit("high", prompt=PROMPT, **SMALL)
    ends = [redis.end(n)["ts_ms"] for n in (high, normal, low)]
    assert ends == sorted(ends)


def test_an_id_of_the_producers_own(redis):
    assert redis.submit(id="mine-1", prompt=PROMPT, **SMALL) == "mine-1"
    end = redis.end("mine-1")
    assert end["id"] == "mine-1"
    hidden = as_msgpack(redis, {"id": "mine-2", "prompt": PROMPT, **SMALL})
    assert redis.end("mine-2")["event"] == "succeeded"
    assert redis.result("mine-2") and not redis.client.exists(f"{P}:job:{hidden}")
    before = redis.events("mine-1")
    redis.submit(id="mine-1", prompt="another", **SMALL)
    until(lambda: redis.waiting() == 0)
    assert redis.events("mine-1") == before


def test_unknown_fields_are_a_warning(redis):
    name = redis.submit(prompt=PROMPT, frobnicate="1", **SMALL)
    end = redis.end(name)
    assert end["event"] == "succeeded"
    assert any("frobnicate" in w for w in end["warnings"])
    assert any(e["event"] == "warning" and "frobnicate" in e["message"]
               for e in redis.events(name))


def test_an_empty_prompt_is_allowed(redis):
    assert redis.end(redis.submit(prompt="", **SMALL))["event"] == "succeeded"


# --- what is refused ---

def bomb(head):
    """A few bytes that claim to be followed by billions of items."""
    return b"\x82\xa6prompt\xa1x\xa4meta" + head


GOOD = msgpack.packb({"prompt": PROMPT, **SMALL})

BAD = {
    "width 0": ({"width": 0}, "width"),
    "width 7": ({"width": 7}, "width"),
    "width 65": ({"width": 65}, "width"),
    "width 100000": ({"width": 100000}, "width"),
    "height a text": ({"height": "tall"}, "height"),
    "height a list": ({"height": [64]}, "height"),
    "steps 0": ({"steps": 0}, "steps"),
    "steps 10^9": ({"steps": 10**9}, "steps"),
    "steps 2.5": ({"steps": 2.5}, "steps"),
    "n 17": ({"n": 17}, "n"),
    "cfg NaN": ({"cfg_scale": float("nan")}, "cfg_scale"),
    "unknown sampler": ({"sampler": "magic"}, "sampler"),
    "unknown model": ({"model": "no-such-model"}, "model"),
    "a path as model": ({"model": "../../etc"}, "model"),
    "a GIF": ({"init_image": b"GIF89a" + bytes(20)}, "init_image"),
    "an address as image": ({"image": "https://example.org/a.png"}, "init_image"),
    "a mask alone": ({"mask": "input:a:b"}, "mask"),
    "inpaint without a mask": ({"task": "inpaint", "image": "input:a:b"}, "task"),
    "a path as LoRA": ({"loras": ["../x"]}, "loras[0].name"),
    "a control alone": ({"controls": [{"name": "canny"}]}, "controls[0].image"),
    "rising sigmas": ({"sigmas": [1, 2]}, "sigmas"),
    "a refiner": ({"refiner": "x"}, "refiner"),
    "prompt a number": ({"prompt": 5}, "prompt"),
    "prompt of 10 kB": ({"prompt": "x" * 10_000}, "prompt"),
}


@pytest.mark.parametrize("case", BAD)
def test_a_bad_field_is_told(redis, case):
    change, field = BAD[case]
    name = as_msgpack(redis, {"prompt": PROMPT, **SMALL} | change)
    end = redis.end(name)
    assert end["event"] == "failed", end
    assert end["code"] in ("invalid", "not_found")
    assert end["field"] == field
    assert field in end["message"]
    assert redis.types(name) == ["failed"]
    assert redis.client.hget(f"{P}:job:{name}", "state") == b"failed"


def test_a_refusal_says_what_to_do(redis):
    def message(**change):
        return redis.end(redis.submit(**{"prompt": PROMPT, **SMALL, **change}))["message"]
    assert "64" in message(width=65) and "multiple of 8" in message(width=65)
    assert "1000" in message(steps=10**9)
    sampler = message(sampler="magic")
    for known in ("ddim", "euler", "euler_a", "dpmpp_2m"):
        assert known in sampler
    assert "demo-model" in message(model="other")


BAD_BYTES = {
    "nothing": b"",
    "not a map": msgpack.packb([1, 2]),
    "a cut map": GOOD[:-3],
    "a cut head": b"\xdf\x00",
    "trailing bytes": GOOD + b"\xc0",
    "a map of 2^32 items": b"\xdf\xff\xff\xff\xff",
    "an array of 2^32 items": bomb(b"\xdd\xff\xff\xff\xff"),
    "a text of 4 GiB": bomb(b"\xdb\xff\xff\xff\xff"),
    "bytes of 4 GiB": bomb(b"\xc6\xff\xff\xff\xff"),
    "deep nesting": bomb(b"\x91" * 2000 + b"\xc0"),
    "many objects": bomb(b"\xdc\xff\xff" + b"\xc0" * 65535),
    "an ext type": bomb(b"\xc7\x01\x05x"),
    "the byte c1": bomb(b"\xc1"),
    "a key twice": b"\x82\xa6prompt\xa1x\xa6prompt\xa1y",
    "a number as key": b"\x81\x01\xa1x",
    "invalid UTF-8": b"\x81\xa6prompt\xa2\xff\xfe",
    "a NUL in the prompt": b"\x81\xa6prompt\xa3a\x00b",
    "no prompt": msgpack.packb({"steps": 2}),
    "a megabyte": msgpack.packb({"prompt": "x", "meta": "y" * (1 << 20)}),
}


@pytest.mark.parametrize("case", BAD_BYTES)
def test_bad_bytes_are_told(redis, case):
    name = redis.client.xadd(f"{P}:q:normal", {"job": BAD_BYTES[case]}).decode()
    end = redis.end(name, 20)
    assert end["event"] == "failed" and end["code"] == "invalid", end
    assert redis.types(name) == ["failed"]


@pytest.mark.parametrize("text", ["", "{", "[]", '{"prompt": NaN}', '{"prompt": "x"} x',
                                  '{"prompt": "x", "width": 1e999}', "[" * 5000])
def test_bad_json_is_told(redis, text):
    end = redis.end(redis.submit(json=text), 20)
    assert end["event"] == "failed" and end["code"] == "invalid", end


def test_a_failure_reaches_the_id_inside(redis):
    as_msgpack(redis, {"id": "inside-1", "prompt": PROMPT, "steps": -1, "meta": {"k": 1}})
    end = redis.end("inside-1")
    assert end["event"] == "failed" and end["meta"] == {"k": 1}


def test_a_good_job_after_many_bad_ones(redis):
    bad = [redis.client.xadd(f"{P}:q:normal", {"job": data}).decode()
           for data in BAD_BYTES.values()]
    good = redis.submit(prompt=PROMPT, **SMALL)
    assert redis.end(good)["event"] == "succeeded"
    assert [redis.types(name) for name in bad] == [["failed"]] * len(bad)


def test_many_clients_at_once(redis):
    names, lock = [], threading.Lock()

    def client(number):
        for i in range(3):
            name = redis.submit(prompt=PROMPT, seed=number * 10 + i, **SMALL)
            with lock:
                names.append(name)
    threads = [threading.Thread(target=client, args=(i,)) for i in range(4)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    for name in names:
        assert redis.end(name)["event"] == "succeeded"
