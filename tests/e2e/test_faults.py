"""What happens when workers are stopped, killed or frozen and when Redis goes away: each job
ends exactly once, and no picture is lost."""
import io
import os
import signal
import time

import pytest
from PIL import Image

from conftest import P, QUEUES, SLOW, until

PROMPT = "a red circle on a blue background"
SMALL = {"width": 64, "height": 64, "steps": 2}
LONG = {"prompt": PROMPT, "width": 64, "height": 64, "steps": 100, "seed": 1}
LEASE_MS = int(1500 * SLOW)


def is_picture(data):
    image = Image.open(io.BytesIO(data))
    image.load()
    return image.format == "WEBP"


def terminal_events(redis, job):
    return [t for t in redis.types(job) if t in ("succeeded", "failed", "canceled")]


# --- the worker ---

@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_lets_the_running_job_end(lab, number):
    redis = lab.redis()
    worker = lab.worker(redis).ready()
    job = redis.submit(**LONG)
    waiting = redis.submit(prompt=PROMPT, **SMALL)
    until(lambda: redis.is_running(job))
    worker.signal(number)
    assert worker.wait() == 0, worker.log
    assert redis.end(job)["event"] == "succeeded"
    assert is_picture(redis.result(job))
    assert redis.events(waiting) == []
    assert redis.waiting() == 1
    assert "ev=worker.stop" in worker.log


def test_a_second_signal_ends_at_once(lab):
    redis = lab.redis()
    worker = lab.worker(redis).ready()
    job = redis.submit(**LONG | {"steps": 1000})
    until(lambda: redis.is_running(job))
    worker.signal(signal.SIGTERM)
    worker.says("ev=worker.drain")
    worker.signal(signal.SIGTERM)
    assert worker.wait(10) == 128 + signal.SIGTERM
    assert terminal_events(redis, job) == []


def test_an_idle_worker_stops_soon(lab):
    worker = lab.worker(lab.redis()).ready()
    time.sleep(0.3)
    before = time.monotonic()
    worker.signal(signal.SIGTERM)
    assert worker.wait() == 0
    assert time.monotonic() - before < 3 * SLOW


def test_a_job_that_outlasts_the_drain_is_handed_back(lab):
    redis = lab.redis()
    lease_ms = int(8000 * SLOW)
    first = lab.worker(redis, "--set", "worker.drain_ms=100", name="first",
                       lease_ms=lease_ms).ready()
    job = redis.submit(**LONG)
    until(lambda: redis.is_running(job))
    first.signal(signal.SIGTERM)
    released = time.monotonic()
    assert first.wait() == 0, first.log
    assert "ev=job.released" in first.log
    lab.worker(redis, name="second", lease_ms=lease_ms)
    # At once, long before the lease is over; and it is no crash.
    until(lambda: redis.types(job).count("started") == 2)
    assert time.monotonic() - released < lease_ms / 1000
    assert redis.end(job)["event"] == "succeeded"
    state = redis.client.hgetall(f"{P}:job:{job}")
    assert (state[b"attempt"], state[b"crashes"], state[b"worker"]) == (b"2", b"0", b"second")


def test_a_killed_workers_job_is_run_by_another(lab):
    redis = lab.redis()
    first = lab.worker(redis, name="first", lease_ms=LEASE_MS).ready()
    job = redis.submit(**LONG)
    until(lambda: redis.is_running(job))
    first.signal(signal.SIGKILL)
    first.wait()
    second = lab.worker(redis, name="second", lease_ms=LEASE_MS).ready()
    end = redis.end(job)
    assert end["event"] == "succeeded" and end["worker"] == "second"
    assert is_picture(redis.result(job))
    assert redis.waiting() == 0
    assert redis.client.hget(f"{P}:job:{job}", "crashes") == b"1"
    starts = [e for e in redis.events(job) if e["event"] == "started"]
    assert [(e["worker"], e["attempt"]) for e in starts] == [("first", 1), ("second", 2)]
    seqs = [e["seq"] for e in redis.events(job)]
    assert seqs == sorted(set(seqs))
    assert second.process.poll() is None


def test_a_long_job_keeps_its_lease(lab):
    redis = lab.redis()
    time.sleep(LEASE_MS / 1000 + 1)
    for name in ("first", "second"):
        lab.worker(redis, name=name, lease_ms=LEASE_MS).ready()
    job = redis.submit(**LONG | {"steps": int(120 * max(1, SLOW / 2))})
    assert redis.end(job, 120)["event"] == "succeeded"
    assert redis.client.hget(f"{P}:job:{job}", "attempt") == b"1"


def test_a_frozen_worker_says_nothing_more(lab):
    redis = lab.redis()
    frozen = lab.worker(redis, name="frozen", lease_ms=LEASE_MS).ready()
    job = redis.submit(**LONG)
    until(lambda: redis.is_running(job))
    frozen.signal(signal.SIGSTOP)
    lab.worker(redis, name="other", lease_ms=LEASE_MS).ready()
    assert redis.end(job)["worker"] == "other"
    before = redis.events(job)
    listener = redis.client.pubsub()
    listener.psubscribe("*")
    listener.get_message(timeout=5)
    frozen.signal(signal.SIGCONT)
    frozen.says("ev=job.lost")
    assert redis.end(job)["worker"] == "other"
    assert redis.events(job) == before
    assert listener.get_message(timeout=0.5) is None
    # It is well and takes the next job as anybody.
    jobs = [redis.submit(prompt=PROMPT, **SMALL) for _ in range(4)]
    for name in jobs:
        assert redis.end(name)["event"] == "succeeded"


def test_once_leaves_after_n_jobs(lab):
    redis = lab.redis()
    jobs = [redis.submit(prompt=PROMPT, **SMALL) for _ in range(3)]
    worker = lab.worker(redis, "--once", "2")
    assert worker.wait(120) == 0, worker.log
    assert [len(terminal_events(redis, j)) for j in jobs] == [1, 1, 0]


def test_the_registry_shows_living_workers(lab):
    redis = lab.redis()
    worker = lab.worker(redis, name="shown", lease_ms=1000).ready()
    entry = until(lambda: redis.client.hgetall(f"{P}:worker:shown"))
    until(lambda: redis.client.exists(QUEUES[1]))
    assert entry[b"pid"] == str(worker.process.pid).encode()
    assert entry[b"models"] == entry[b"resident"] == b'["demo-model"]'
    assert entry[b"jobs"] == b"[]" and entry[b"state"] == b"idle" and entry[b"version"] and entry[b"device"]
    assert redis.client.pttl(f"{P}:worker:shown") > 0
    assert redis.client.zrange(f"{P}:workers", 0, -1) == [b"shown"]
    worker.signal(signal.SIGTERM)
    assert worker.wait() == 0
    assert not redis.client.exists(f"{P}:worker:shown", f"{P}:workers")
    assert redis.client.xinfo_consumers(f"{P}:q:normal", "workers") == []


# --- Redis ---

def test_redis_may_come_later_than_the_worker(lab):
    redis = lab.redis(start=False)
    worker = lab.worker(redis).ready().says("ev=redis.down")
    time.sleep(0.5)
    assert worker.process.poll() is None
    redis.start()
    assert redis.end(redis.submit(prompt=PROMPT, **SMALL))["event"] == "succeeded"
    assert "ev=redis.up" in worker.log


def test_redis_killed_while_idle(lab):
    redis = lab.redis("--appendonly", "yes", "--appendfsync", "always")
    worker = lab.worker(redis).ready()
    redis.end(redis.submit(prompt=PROMPT, **SMALL))
    redis.kill()
    worker.says("ev=redis.down")
    redis.start()
    assert redis.end(redis.submit(prompt=PROMPT, **SMALL))["event"] == "succeeded"


@pytest.mark.parametrize("durable", [True, False])
def test_redis_killed_while_a_job_runs(lab, durable):
    """With its data and without: the picture is there once Redis is back."""
    redis = lab.redis(*(["--appendonly", "yes", "--appendfsync", "always"] if durable else []))
    worker = lab.worker(redis).ready()
    job = redis.submit(**LONG)
    until(lambda: redis.is_running(job))
    redis.kill()
    worker.says("ev=redis.down")
    time.sleep(1)
    redis.start()
    assert redis.end(job)["event"] == "succeeded"
    assert is_picture(redis.result(job))
    assert redis.client.ttl(f"{P}:result:{job}:0") > 0
    assert redis.waiting() == 0
    assert redis.client.hget(f"{P}:job:{job}", "state") == b"succeeded"
    assert redis.end(redis.submit(prompt=PROMPT, **SMALL))["event"] == "succeeded"


def test_redis_away_when_the_job_ends(lab):
    """The picture waits in memory."""
    redis = lab.redis("--appendonly", "yes", "--appendfsync", "always")
    worker = lab.worker(redis).ready()
    job = redis.submit(**LONG | {"steps": 30, "n": 2})
    until(lambda: redis.is_running(job))
    redis.kill()
    until(lambda: worker.log.count("ev=redis.down") >= 6, 60)
    redis.start()
    end = redis.end(job)
    assert end["event"] == "succeeded" and len(end["images"]) == 2
    assert is_picture(redis.result(job, 0)) and is_picture(redis.result(job, 1))
    assert redis.types(job).count("image") == 2


def test_connections_cut_again_and_again(lab):
    redis = lab.redis()
    lab.worker(redis).ready()
    jobs = [redis.submit(prompt=PROMPT, width=64, height=64, steps=10) for _ in range(8)]
    for _ in range(40):
        redis.client.client_kill_filter(_type="normal", skipme=True)
        time.sleep(0.05)
    for job in jobs:
        assert redis.end(job)["event"] == "succeeded"
        assert redis.types(job).count("image") == 1
        assert is_picture(redis.result(job))


def test_flushall_while_idle(lab):
    redis = lab.redis()
    lab.worker(redis).ready()
    redis.end(redis.submit(prompt=PROMPT, **SMALL))
    redis.client.flushall()
    redis.client.script_flush()
    assert redis.end(redis.submit(prompt=PROMPT, **SMALL))["event"] == "succeeded"


def test_a_full_redis_still_takes_the_result(lab):
    redis = lab.redis()
    worker = lab.worker(redis).ready()
    job = redis.submit(**LONG)
    until(lambda: redis.is_running(job))
    redis.client.config_set("maxmemory", 1)
    until(lambda: "ev=redis.refused" in worker.log)
    assert redis.end(job)["event"] == "succeeded"
    assert is_picture(redis.result(job))
    redis.client.config_set("maxmemory", 0)
    assert redis.end(redis.submit(prompt=PROMPT, **SMALL))["event"] == "succeeded"


def test_a_frozen_redis_does_not_stall_the_engine(lab):
    redis = lab.redis()
    worker = lab.worker(redis, "--set", "redis.timeout_ms=30000").ready()
    job = redis.submit(**LONG | {"steps": 60})
    until(lambda: redis.is_running(job))
    os.kill(redis.process.pid, signal.SIGSTOP)
    time.sleep(2 * SLOW)
    os.kill(redis.process.pid, signal.SIGCONT)
    end = redis.end(job)
    assert end["event"] == "succeeded"
    # The steps went on meanwhile; what was there to tell was dropped, not kept for later.
    undisturbed = redis.end(redis.submit(**LONG | {"steps": 60}))["timings"]["denoise"]
    assert end["timings"]["denoise"] < undisturbed * 2 + 1000
    progress = [e["ts_ms"] for e in redis.events(job) if e["event"] == "progress"]
    assert max(b - a for a, b in zip(progress, progress[1:])) > 1000
    assert worker.process.poll() is None


@pytest.mark.parametrize("password", ["", "wrong"])
def test_refused_credentials_end_the_worker(lab, password):
    redis = lab.redis("--port", str(20000 + os.getpid() % 20000), "--bind", "127.0.0.1")
    port = redis.client.config_get("port")["port"]
    redis.client.config_set("requirepass", "right")
    worker = lab.worker(redis, "--redis", f"redis://:{password}@127.0.0.1:{port}")
    assert worker.wait(120) == 69, worker.log
    assert "NOAUTH" in worker.log or "WRONGPASS" in worker.log
    assert "ev=worker.error" in worker.log


def test_a_password_and_a_database_over_tcp(lab):
    redis = lab.redis("--port", str(20000 + os.getpid() % 20000), "--bind", "127.0.0.1",
                      "--requirepass", "p@ss", start=False)
    redis.client.connection_pool.connection_kwargs["password"] = "p@ss"
    redis.client.connection_pool.connection_kwargs["db"] = 3
    redis.start()
    port = redis.client.config_get("port")["port"]
    lab.worker(redis, "--redis", f"redis://:p%40ss@127.0.0.1:{port}/3").ready()
    assert redis.end(redis.submit(prompt=PROMPT, **SMALL))["event"] == "succeeded"
