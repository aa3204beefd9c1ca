"""The programs of contrib/clients: one job from each language, followed to its end."""
import io
import json
import os
import shutil
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

from conftest import ROOT, SLOW, TERMINAL

CLIENTS = ROOT / "contrib/clients"
BUILT = ROOT / "build/clients"
VENV = Path(sys.executable).parent
# Debian's, whose standard library comes compiled; a newer one needs a minute for that.
GO = "/usr/bin/go" if Path("/usr/bin/go").exists() else "go"
PROMPT = "a red circle on a blue background"

# Program and how it is run; the last words of the shell's say how it sends the job.
PROGRAMS = {
    "redis-py": [sys.executable, CLIENTS / "python/job.py"],
    "node-redis": [VENV / "node", BUILT / "node/job.js"],
    "go-redis": [BUILT / "go/job"],
    "redis-cli": ["sh", CLIENTS / "redis-cli/job.sh"],
    "redis-cli msgpack": ["sh", CLIENTS / "redis-cli/job.sh"],
}


def build(name, *command, **environment):
    """Run command in a copy of a client's folder, unless it is as it was built last."""
    source, made = CLIENTS / name, BUILT / name
    files = sorted(p.name for p in source.iterdir())
    same = (made / "done").exists() and all(
        (made / f).exists() and (made / f).read_bytes() == (source / f).read_bytes()
        for f in files)
    if same:
        return
    shutil.rmtree(made, ignore_errors=True)
    shutil.copytree(source, made)
    done = subprocess.run(command, cwd=made, env=os.environ | environment, text=True,
                          stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=600)
    assert done.returncode == 0, done.stdout
    (made / "done").touch()


@pytest.fixture(scope="module")
def programs():
    path = f"{VENV}{os.pathsep}{os.environ['PATH']}"
    build("node", VENV / "npm", "ci", "--omit=dev", "--ignore-scripts", "--no-audit",
          "--no-fund", PATH=path)
    build("go", GO, "build", "-buildvcs=false", "-o", "job", ".", GOTOOLCHAIN="local",
          GOCACHE=str(BUILT / "go-cache"))


@pytest.fixture
def url(redis):
    """The shared server on a TCP port too, for clients that know no unix sockets."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    redis.client.config_set("port", port)
    yield f"redis://127.0.0.1:{port}"
    redis.client.config_set("port", 0)


@pytest.fixture(scope="module")
def reference():
    """Seed: the bytes that the first client got; the others must get the same."""
    return {}


def run(name, how, url, *arguments):
    """The program's exit code and the events it printed."""
    last = ["msgpack"] if name == "redis-cli msgpack" else []
    done = subprocess.run([*PROGRAMS[name], *arguments, how, *last], text=True,
                          env=os.environ | {"REDIS_URL": url}, stdout=subprocess.PIPE,
                          timeout=120 * SLOW)
    return done.returncode, [json.loads(line) for line in done.stdout.splitlines()]


def check_story(events, job, seed, client):
    """queued?, started, progress…, image, one terminal event; ids, seqs, meta and seed."""
    assert [e["seq"] for e in events] == list(range(1, len(events) + 1))
    for e in events:
        assert e["id"] == job and e["meta"] == {"client": client}
    types = [e["event"] for e in events]
    if types[0] == "queued":
        types.pop(0)
    assert types[0] == "started"
    assert types[-2:] == ["image", "succeeded"]
    assert len(types) >= 5 and set(types[1:-2]) == {"progress"}
    assert sum(t in TERMINAL for t in types) == 1
    for told in (events[-1]["images"][0], events[-2]):
        # Above 2^53 as text, because readers whose numbers are doubles would round it.
        assert told["seed"] == (seed if seed < 2**53 else str(seed))


@pytest.mark.parametrize("how, seed", [("stream", 7), ("live", 2**53 + 1)])
@pytest.mark.parametrize("name", PROGRAMS)
def test_a_job_from_each_language(programs, redis, url, reference, tmp_path, name, how, seed):
    job, file = f"{name}-{how}".replace(" ", "-"), tmp_path / "out.webp"
    code, events = run(name, how, url, PROMPT, str(seed), job, str(file))
    assert code == 0, events
    check_story(events, job, seed, name.split()[0])
    assert events == redis.events(job)
    data = file.read_bytes()
    image = Image.open(io.BytesIO(data))
    image.load()
    assert (image.format, image.size) == ("WEBP", (128, 128))
    assert data == reference.setdefault(seed, data)


@pytest.mark.parametrize("name", PROGRAMS)
def test_a_refusal_ends_each_program(programs, redis, url, tmp_path, name):
    job, file = f"refused-{name}".replace(" ", "-"), tmp_path / "out.webp"
    code, events = run(name, "live", url, "x" * 10_000, "7", job, str(file))
    assert code == 1 and not file.exists()
    assert [(e["event"], e["code"], e["field"]) for e in events] == [
        ("failed", "invalid", "prompt")]


@pytest.mark.parametrize("name", PROGRAMS)
def test_odd_texts_and_the_largest_seed(programs, redis, url, reference, tmp_path, name):
    prompt, seed = 'a "red" \\ circle, 日本 — 100 %', 2**64 - 1
    job, file = f"odd-{name}".replace(" ", "-"), tmp_path / "out.webp"
    code, events = run(name, "stream", url, prompt, str(seed), job, str(file))
    assert code == 0, events
    check_story(events, job, seed, name.split()[0])
    data = file.read_bytes()
    assert prompt.encode() in data
    assert data == reference.setdefault(seed, data)


def test_the_terminal_is_enough(redis, url):
    """The README's lines, typed one by one: XADD, XREAD, GET."""
    def redis_cli(*arguments):
        done = subprocess.run(["redis-cli", "-u", url, "--raw", *arguments], timeout=60 * SLOW,
                              stdout=subprocess.PIPE, check=True)
        return done.stdout
    job = redis_cli("XADD", "{darkroom}:q:normal", "*", "prompt", PROMPT, "seed", "7",
                    "steps", "2").decode().strip()
    answer = redis_cli("XREAD", "BLOCK", "0", "STREAMS", "{darkroom}:events:" + job, "0")
    assert json.loads(answer.decode().splitlines()[3])["event"] == "started"
    assert redis.end(job)["event"] == "succeeded"
    assert redis_cli("GET", "{darkroom}:result:" + job + ":0")[:-1] == redis.result(job)
