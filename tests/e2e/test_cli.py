"""submit and watch as people and scripts use them, and make demo's script."""
import base64
import json
import os
import pty
import re
import signal
import subprocess
import time

import pytest
from PIL import Image

from conftest import BUILD, P, PROGRAM, ROOT, SLOW, TERMINAL, darkroom, environment, until

PROMPT = "a red circle on a blue background"
SMALL = ["--size", "64x64", "--steps", "2"]


def submit(redis, *arguments, **options):
    return darkroom("submit", "--redis", redis.url, *arguments, **options)


def watch(redis, *arguments, **options):
    return darkroom("watch", "--redis", redis.url, *arguments, **options)


# --- submit ---

def test_submit_prints_the_id(redis):
    done = submit(redis, PROMPT, *SMALL)
    assert done.returncode == 0 and done.stderr == ""
    name = done.stdout.strip()
    assert re.fullmatch("[0-9a-f]{32}", name)
    assert redis.end(name)["event"] == "succeeded"
    queued = redis.events(name)[0]
    assert queued["event"] == "queued" and queued["id"] == name


def test_submit_wait_in_a_pipe(redis, tmp_path):
    done = submit(redis, PROMPT, "--wait", "-o", "a.webp", "--seed", 1, "--size", "64x64",
                  "--steps", 20, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout == "a.webp\n"
    lines = done.stderr.splitlines()
    assert lines[0].startswith("job ")
    assert "\r" not in done.stderr and "\033" not in done.stderr
    assert any(line.startswith("denoise ") and "%" in line for line in lines)
    image = Image.open(tmp_path / "a.webp")
    assert (image.format, image.size) == ("WEBP", (64, 64))


def test_submit_wait_on_a_terminal(redis, tmp_path):
    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        [str(PROGRAM), "submit", "--redis", redis.url, PROMPT, "-o", "b.webp", "--size",
         "64x64", "--steps", "20"], stdout=subprocess.PIPE, stderr=theirs, cwd=tmp_path,
        env=environment())
    os.close(theirs)
    seen = b""
    while True:
        try:
            data = os.read(ours, 4096)
        except OSError:     # the terminal is closed
            break
        if not data:
            break
        seen += data
    os.close(ours)
    assert process.wait(30 * SLOW) == 0, seen
    assert process.stdout.read() == b"b.webp\n"
    assert seen.count(b"\n") == 1       # the id; then one line, redrawn
    assert seen.count(b"\r\033[K") >= 3
    assert b"denoise" in seen and b"100%" in seen and b"/20" in seen
    assert seen.endswith(b"\r\033[K")


def test_submit_names_files_by_id_and_number(redis, tmp_path):
    done = submit(redis, PROMPT, "--wait", *SMALL, cwd=tmp_path)
    [path] = done.stdout.split()
    assert re.fullmatch(r"darkroom-[0-9a-f]{32}\.webp", path)
    done = submit(redis, PROMPT, "-o", "c.webp", "--count", 3, *SMALL, cwd=tmp_path)
    assert done.stdout.split() == ["c-0.webp", "c-1.webp", "c-2.webp"]
    pictures = {(tmp_path / p).read_bytes() for p in done.stdout.split()}
    assert len(pictures) == 3


def test_submit_json(redis, tmp_path):
    done = submit(redis, PROMPT, "--json", *SMALL)
    assert set(json.loads(done.stdout)) == {"id"}
    done = submit(redis, PROMPT, "--json", "--wait", "-o", "d.webp", *SMALL, cwd=tmp_path)
    told = json.loads(done.stdout)
    assert told["paths"] == ["d.webp"] and told["end"]["event"] == "succeeded"
    assert told["end"]["id"] == told["id"]


def test_submit_passes_every_option(redis, tmp_path):
    done = submit(redis, PROMPT, "--wait", "-o", "e.webp", "--negative", "green", "--cfg", 3,
                  "--seed", 9, "--sampler", "euler", "--schedule", "karras", "--lossless",
                  "--priority", "high", "--preview-every", 1, "--field", 'meta={"user": 1}',
                  *SMALL, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    data = (tmp_path / "e.webp").read_bytes()
    assert b"VP8L" in data and b"green" in data and b"Seed: 9" in data
    name = done.stderr.split()[1]
    end = redis.end(name)
    assert end["meta"] == {"user": 1}
    assert (end["sampler"], end["schedule"], end["cfg_scale"]) == ("euler", "karras", 3)
    assert "preview" in redis.types(name)


def test_submit_warns(redis, tmp_path):
    done = submit(redis, PROMPT, "--wait", "--field", "frobnicate=1", *SMALL, cwd=tmp_path)
    assert "warning" in done.stderr and "frobnicate" in done.stderr


# --- exit codes ---

@pytest.mark.parametrize("arguments", [
    ["submit"], ["submit", "a", "b"], ["submit", "--frobnicate", "a"],
    ["submit", "a", "--timeout", "x"], ["watch", "a", "b"], ["worker", "--once", "-1"],
    ["worker", "--set", "lease.ms=5"], ["worker", "extra"]])
def test_exit_64_for_a_wrong_command_line(arguments):
    done = darkroom(*arguments)
    assert done.returncode == 64 and done.stderr.startswith("darkroom: ")


def test_exit_65_for_a_bad_job(redis):
    done = submit(redis, PROMPT, "--size", "65x64")
    assert done.returncode == 65
    assert "multiple of 8" in done.stderr and done.stdout == ""
    done = submit(redis, PROMPT, "--wait", "--field", "model=other", *SMALL)
    assert done.returncode == 65 and "demo-model" in done.stderr and done.stdout == ""


@pytest.mark.parametrize("url", ["unix:///nonexistent/redis.sock", "redis://127.0.0.1:1"])
@pytest.mark.parametrize("command", [["submit", PROMPT], ["submit", "--wait", PROMPT]])
def test_exit_69_without_redis(url, command):
    done = darkroom(*command, "--redis", url)
    assert done.returncode == 69
    assert url in done.stderr


def test_exit_70_for_a_failed_job(redis):
    redis.client.xadd(f"{P}:events:broken", {"event": json.dumps(
        {"event": "failed", "id": "broken", "code": "device", "message": "it melted"})})
    done = watch(redis, "broken")
    assert done.returncode == 70 and "it melted" in done.stdout
    redis.client.delete(f"{P}:events:broken")


def test_exit_75_when_time_is_over(lab):
    empty = lab.redis()
    done = submit(empty, PROMPT, "--wait", "--timeout", 1, *SMALL)
    assert done.returncode == 75 and "has not ended" in done.stderr
    assert empty.client.xlen(f"{P}:q:normal") == 1
    assert watch(empty, "nobody", "--timeout", 1).returncode == 75


def test_submit_refused_credentials(lab):
    server = lab.redis()
    server.client.config_set("requirepass", "x")
    done = submit(server, PROMPT)
    assert done.returncode == 69 and "NOAUTH" in done.stderr


def entry(server):
    """The fields of the one job that waits, with nobody there to run it."""
    [(_, fields)] = server.client.xrange(f"{P}:q:normal")
    return fields


def test_submit_sends_pictures_as_plain_fields(lab, tmp_path):
    server = lab.redis()
    paths = [tmp_path / name for name in ("init.png", "mask.webp", "edges.jpg")]
    for path in paths:
        Image.new("RGB", (8, 8), "red").save(path)
    init, mask, edges = paths
    done = submit(server, PROMPT, "--init", init, "--mask", mask, "--strength", 0.5,
                  "--only-masked", "--lora", "a:0.5", "--lora", "b", "--control",
                  f"canny:{edges}:0.25", "--control", f"depth:{edges}", "--format", "png")
    assert done.returncode == 0, done.stderr
    fields = entry(server)
    assert fields[b"init_image"] == init.read_bytes()
    assert fields[b"mask"] == mask.read_bytes()
    assert (fields[b"strength"], fields[b"format"]) == (b"0.5", b"png")
    canny, depth = json.loads(fields[b"controls"])
    assert base64.b64decode(canny["image"]) == edges.read_bytes()
    assert (canny["name"], canny["strength"]) == ("canny", "0.25")
    assert depth["name"] == "depth" and "strength" not in depth


def test_submit_stores_large_pictures_beside_the_queue(lab, tmp_path):
    server = lab.redis()
    large = tmp_path / "large.png"
    Image.frombytes("RGB", (1300, 1300), os.urandom(3 * 1300 * 1300)).save(large)
    done = submit(server, PROMPT, "--init", large, "--control", f"canny:{large}")
    assert done.returncode == 0, done.stderr
    name, fields = done.stdout.strip(), entry(server)
    assert fields[b"init_image"].decode() == f"input:{name}:init_image"
    [control] = json.loads(fields[b"controls"])
    for key in (fields[b"init_image"].decode(), control["image"]):
        assert server.client.get(f"{P}:{key}") == large.read_bytes()
        assert 86000 < server.client.ttl(f"{P}:{key}") <= 86400


@pytest.mark.parametrize("arguments, code, part", [
    (["--init", "a.gif"], 65, "init_image: a GIF; send PNG, JPEG or WebP"),
    (["--init", "none.png"], 66, "none.png"),
    (["--mask", "a.png"], 65, "mask: needs the picture"),
    (["--control", "canny"], 65, "must be NAME:FILE or NAME:FILE:STRENGTH"),
    (["--control", "canny:a.png:11"], 65, "controls[0].strength 11: must be"),
    (["--lora", "../a"], 65, "must be a name without"),
    (["--format", "gif"], 65, "webp, png, jpeg"),
])
def test_submit_refuses_pictures_it_cannot_send(lab, tmp_path, arguments, code, part):
    server = lab.redis()
    Image.new("RGB", (8, 8)).save(tmp_path / "a.png")
    Image.new("RGB", (8, 8)).save(tmp_path / "a.gif")
    done = submit(server, PROMPT, *arguments, cwd=tmp_path)
    assert (done.returncode, done.stdout) == (code, ""), done.stderr
    assert part in done.stderr
    assert server.waiting() == 0


# --- watch ---

def test_watch_a_job_from_first_to_last(redis):
    name = submit(redis, PROMPT, "--size", "64x64", "--steps", 20).stdout.strip()
    live = watch(redis, name)
    assert live.returncode == 0, live.stderr
    lines = [line.split()[:2] for line in live.stdout.splitlines()]
    assert lines[0] == [name, "queued"] and lines[-1] == [name, "succeeded"]
    assert [name, "started"] in lines and [name, "image"] in lines
    later = watch(redis, name, "--json")
    assert [json.loads(line) for line in later.stdout.splitlines()] == redis.events(name)


def test_watch_a_refused_job(redis):
    name = redis.submit(prompt=PROMPT, steps=0)
    done = watch(redis, name)
    assert done.returncode == 65 and "failed invalid (steps)" in done.stdout


def test_watch_all(redis):
    process = subprocess.Popen([str(PROGRAM), "watch", "--json", "--redis", redis.url],
                               stdout=subprocess.PIPE, text=True, env=environment())
    channel = f"{P}:progress"
    until(lambda: dict(redis.client.pubsub_numsub(channel))[channel.encode()] >= 1)
    names = [redis.submit(prompt=PROMPT, width=64, height=64, steps=2) for _ in range(2)]
    ends, seen = set(), []
    for line in process.stdout:
        seen.append(json.loads(line))
        if seen[-1]["event"] in TERMINAL:
            ends.add(seen[-1]["id"])
        if ends == set(names):
            break
    process.send_signal(signal.SIGINT)
    assert process.wait(10 * SLOW) == -signal.SIGINT
    process.stdout.close()
    for name in names:
        assert [e for e in seen if e["id"] == name] == redis.events(name)


def test_watch_survives_a_lost_connection(lab):
    server = lab.redis("--appendonly", "yes", "--appendfsync", "always")
    process = subprocess.Popen([str(PROGRAM), "watch", "late", "--redis", server.url],
                               stdout=subprocess.PIPE, text=True, env=environment())
    time.sleep(0.3)
    server.kill()
    time.sleep(0.3)
    server.start()
    server.client.xadd(f"{P}:events:late", {"event": '{"event":"canceled","id":"late"}'})
    assert process.wait(30 * SLOW) == 70
    assert process.stdout.read() == "late canceled\n"
    process.stdout.close()


def test_watch_leaves_when_its_pipe_closes(redis):
    process = subprocess.Popen([str(PROGRAM), "watch", "--redis", redis.url],
                               stdout=subprocess.PIPE, env=environment())
    channel = f"{P}:progress"
    until(lambda: dict(redis.client.pubsub_numsub(channel))[channel.encode()] >= 1)
    process.stdout.close()
    redis.end(redis.submit(prompt=PROMPT, width=64, height=64, steps=2))
    assert process.wait(10 * SLOW) == 74


# --- the demo ---

def processes_of(session):
    found = subprocess.run(["ps", "-o", "pid=", "-s", str(session)], capture_output=True,
                           text=True)
    return found.stdout.split()


def test_the_demo(tmp_path):
    done = subprocess.run(["sh", str(ROOT / "contrib/demo.sh"), str(BUILD)], cwd=tmp_path,
                          env=environment(), capture_output=True, text=True,
                          timeout=300 * SLOW)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "darkroom-demo.webp"
    assert "denoise" in done.stderr
    image = Image.open(tmp_path / "darkroom-demo.webp").convert("RGB")
    assert image.size == (128, 128)
    red, _, blue = image.getpixel((64, 50))
    assert red > 150 > blue
    red, _, blue = image.getpixel((4, 124))
    assert blue > 150 > red


def test_the_demo_ends_with_ctrl_c(tmp_path):
    with open(tmp_path / "log", "w") as log:
        process = subprocess.Popen(["sh", str(ROOT / "contrib/demo.sh"), str(BUILD)],
                                   cwd=tmp_path, env=environment() | {"TMPDIR": str(tmp_path)},
                                   stdout=log, stderr=log, start_new_session=True)
    until(lambda: "denoise" in (tmp_path / "log").read_text(), 300)
    os.killpg(process.pid, signal.SIGINT)
    assert process.wait(60 * SLOW) == 130
    assert processes_of(process.pid) == []
    assert [p.name for p in tmp_path.iterdir() if p.is_dir()] == []
