"""A private redis-server and real workers, driven by clients that nobody here wrote.

DARKROOM_BUILD names the build folder (default: build); DARKROOM_SLOW=N makes every wait N
times as patient, for sanitizers and busy machines.
"""
import json
import os
import shutil
import signal
import subprocess
import tempfile
import time
from pathlib import Path

import msgpack
import pytest
import redis as redis_py

ROOT = Path(__file__).resolve().parents[2]
BUILD = (ROOT / os.environ.get("DARKROOM_BUILD", "build")).resolve()
PROGRAM = BUILD / "darkroom"
SLOW = float(os.environ.get("DARKROOM_SLOW", "6" if BUILD.name == "asan" else "1"))
P = "{darkroom}"
QUEUES = [f"{P}:q:high", f"{P}:q:normal", f"{P}:q:low"]
TERMINAL = {"succeeded", "failed", "canceled", "expired"}


def environment():
    """Ours, without settings that the caller has for darkroom."""
    env = {k: v for k, v in os.environ.items() if not k.startswith("DARKROOM_")}
    env.setdefault("XDG_CACHE_HOME", str(BUILD / "cache"))
    Path(env["XDG_CACHE_HOME"]).mkdir(parents=True, exist_ok=True)
    return env


def until(condition, seconds=30.0, what="the condition"):
    """Poll until condition() is true and return its value."""
    end = time.monotonic() + seconds * SLOW
    while time.monotonic() < end:
        value = condition()
        if value:
            return value
        time.sleep(0.02)
    raise AssertionError(f"waited {seconds * SLOW:.0f} s for {what}")


class Redis:
    """A redis-server on a unix socket in a folder of its own."""

    def __init__(self, *options):
        self.dir = Path(tempfile.mkdtemp(prefix="darkroom-e2e-"))
        self.socket = self.dir / "redis.sock"
        self.url = f"unix://{self.socket}"
        self.options = options
        self.process = None
        self.client = redis_py.Redis(unix_socket_path=str(self.socket))

    def start(self):
        self.process = subprocess.Popen(
            ["redis-server", "--port", "0", "--unixsocket", str(self.socket), "--save", "",
             "--dir", str(self.dir), *self.options], stdout=subprocess.DEVNULL)
        until(self.answers, 10, "redis-server")
        return self

    def answers(self):
        try:
            return self.client.ping()
        except redis_py.exceptions.ConnectionError:
            return False

    def kill(self):
        self.process.kill()
        self.process.wait()
        self.client.connection_pool.disconnect()

    def close(self):
        if self.process and self.process.poll() is None:
            self.kill()
        shutil.rmtree(self.dir, ignore_errors=True)

    # --- jobs ---

    def submit(self, queue="normal", **fields):
        """Plain fields; the job's id: its own, or one made of the entry's."""
        entry = self.client.xadd(f"{P}:q:{queue}", {k: str(v) for k, v in fields.items()})
        own = entry.decode() if queue == "normal" else f"{queue}.{entry.decode()}"
        return fields.get("id", own)

    def pack(self, **job):
        """One msgpack map, where numbers, lists and bytes keep their types; the entry's id."""
        return self.client.xadd(f"{P}:q:normal", {"job": msgpack.packb(job)}).decode()

    def events(self, job):
        return [json.loads(fields[b"event"])
                for _, fields in self.client.xrange(f"{P}:events:{job}")]

    def types(self, job):
        return [e["event"] for e in self.events(job)]

    def end(self, job, seconds=60.0):
        """Wait for the terminal event and return it; there must be exactly one."""
        def ended():
            try:
                return [e for e in self.events(job) if e["event"] in TERMINAL]
            except redis_py.exceptions.ConnectionError:
                return []
        found = until(ended, seconds, f"the end of job {job}")
        assert len(found) == 1, found
        return found[0]

    def result(self, job, index=0):
        return self.client.get(f"{P}:result:{job}:{index}")

    def is_running(self, job):
        return "progress" in self.types(job)

    def waiting(self):
        return sum(self.client.xlen(q) for q in QUEUES)


class Worker:
    """`darkroom worker` as a process; its log in a file."""

    def __init__(self, redis, *options, name=None):
        handle, path = tempfile.mkstemp(prefix="worker-", suffix=".log", dir=redis.dir)
        self.log_path = Path(path)
        command = [str(PROGRAM), "worker", "--redis", redis.url, *options]
        if name:
            command += ["--name", name]
        self.process = subprocess.Popen(command, stderr=handle, env=environment(),
                                        cwd=redis.dir)
        os.close(handle)

    @property
    def log(self):
        return self.log_path.read_text(errors="replace")

    def says(self, text, seconds=60.0):
        def said():
            assert self.process.poll() is None or text in self.log, self.log
            return text in self.log
        until(said, seconds, f"{text!r} in the log")
        return self

    def ready(self):
        return self.says("ev=worker.ready", 120)

    def signal(self, number):
        self.process.send_signal(number)

    def wait(self, seconds=60.0):
        return self.process.wait(seconds * SLOW)

    def stop(self):
        if self.process.poll() is None:
            self.signal(signal.SIGCONT)
            self.process.kill()
            self.process.wait()


def darkroom(*arguments, timeout=120.0, **options):
    """Run the program to its end."""
    return subprocess.run([str(PROGRAM), *map(str, arguments)], env=environment(),
                          capture_output=True, text=True, timeout=timeout * SLOW, **options)


@pytest.fixture(scope="session")
def shared_redis():
    server = Redis().start()
    yield server
    server.close()


@pytest.fixture(scope="session")
def worker(shared_redis):
    """The worker of all tests that do not hurt it, without any settings but the address."""
    process = Worker(shared_redis).ready()
    yield process
    process.signal(signal.SIGTERM)
    assert process.wait() == 0, process.log


@pytest.fixture
def redis(shared_redis, worker):
    """The shared Redis with the shared worker on it, which must survive the test."""
    yield shared_redis
    assert worker.process.poll() is None, worker.log
    assert shared_redis.waiting() == 0


@pytest.fixture
def lab():
    """Servers and workers of a test's own: lab.redis(…), lab.worker(redis, …)."""
    class Lab:
        def __init__(self):
            self.servers, self.workers = [], []

        def redis(self, *options, start=True):
            self.servers.append(Redis(*options))
            return self.servers[-1].start() if start else self.servers[-1]

        def worker(self, redis, *options, name=None, lease_ms=None):
            if lease_ms:
                options += ("--set", f"lease.ms={lease_ms}",
                            "--set", f"lease.renew_ms={max(100, lease_ms // 5)}")
            self.workers.append(Worker(redis, *options, name=name))
            return self.workers[-1]

    made = Lab()
    yield made
    for process in made.workers:
        process.stop()
    for server in made.servers:
        server.close()
