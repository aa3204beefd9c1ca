"""What the queue promises about each job: retries, poison, deadlines, delays, cancel, pause,
drain, batches, several models, and going on from where another worker stopped."""
import io
import json
import os
import signal
import subprocess
import time

import numpy
import pytest
from PIL import Image

from conftest import BUILD, P, QUEUES, ROOT, SLOW, Worker, darkroom, until

PROMPT = "a red circle on a blue background"
SMALL = {"prompt": PROMPT, "width": 64, "height": 64, "steps": 2, "seed": 1}
LONG = SMALL | {"steps": 100}
LEASE_MS = int(1500 * SLOW)
DEMO = ROOT / "contrib/demo-model/model"


def pixels(data):
    return numpy.asarray(Image.open(io.BytesIO(data)).convert("RGB"), dtype=float)


def psnr(a, b):
    error = ((pixels(a) - pixels(b)) ** 2).mean()
    return 99.0 if error == 0 else 10 * numpy.log10(255 ** 2 / error)


def state(redis, job):
    return {k.decode(): v.decode() for k, v in redis.client.hgetall(f"{P}:job:{job}").items()}


def stat(redis, name):
    return int(redis.client.hget(f"{P}:stats", name) or 0)


def dead(redis):
    return [{k.decode(): v.decode() for k, v in fields.items()}
            for _, fields in redis.client.xrange(f"{P}:dead")]


# --- a device that fails ---

SHIM = """
#define _GNU_SOURCE
#include <CL/cl.h>
#include <dlfcn.h>
#include <stdlib.h>
#include <unistd.h>

/* While $FAULT_FAIL exists kernels fail; while $FAULT_HANG exists the device hangs. */
cl_int clEnqueueNDRangeKernel(cl_command_queue q, cl_kernel k, cl_uint d, const size_t *o,
                              const size_t *g, const size_t *l, cl_uint n, const cl_event *w,
                              cl_event *e)
{
    cl_int (*real)(cl_command_queue, cl_kernel, cl_uint, const size_t *, const size_t *,
                   const size_t *, cl_uint, const cl_event *, cl_event *) =
        dlsym(RTLD_NEXT, "clEnqueueNDRangeKernel");
    while (!access(getenv("FAULT_HANG"), F_OK))
        sleep(1);
    if (!access(getenv("FAULT_FAIL"), F_OK))
        return CL_OUT_OF_RESOURCES;
    return real(q, k, d, o, g, l, n, w, e);
}
"""


@pytest.fixture(scope="session")
def shim(tmp_path_factory):
    """A library that stands between the program and OpenCL."""
    folder = tmp_path_factory.mktemp("shim")
    (folder / "shim.c").write_text(SHIM)
    library = folder / "shim.so"
    subprocess.run(["gcc", "-shared", "-fPIC", "-DCL_TARGET_OPENCL_VERSION=120", "-o", library,
                    folder / "shim.c", "-ldl"], check=True)
    return library


@pytest.fixture
def frail(lab, shim, tmp_path, monkeypatch):
    """frail(redis, …): a worker whose device can be broken: frail.fail, frail.hang."""
    if BUILD.name == "asan":
        pytest.skip("a preloaded library must not come before the sanitizer's")

    def start(redis, *options, **named):
        monkeypatch.setenv("LD_PRELOAD", str(shim))
        monkeypatch.setenv("FAULT_FAIL", str(tmp_path / "fail"))
        monkeypatch.setenv("FAULT_HANG", str(tmp_path / "hang"))
        worker = lab.worker(redis, *options, **named)
        monkeypatch.undo()
        return worker

    start.fail = tmp_path / "fail"
    start.hang = tmp_path / "hang"
    return start


def test_a_device_that_fails_costs_a_try_and_the_worker(lab, frail):
    redis = lab.redis()
    worker = frail(redis, "--set", "retry.base_ms=300", name="frail").ready()
    job = redis.submit(**LONG, meta='{"user":7}')
    until(lambda: redis.is_running(job))
    frail.fail.touch()
    assert worker.wait() == 69, worker.log
    assert "ev=job.retry" in worker.log and "ev=worker.error" in worker.log
    assert state(redis, job)["state"] == "delayed"
    assert redis.client.zscore(f"{P}:delayed", f"normal:{job}")
    assert redis.waiting() == 1
    warning = [e for e in redis.events(job) if e["event"] == "warning"]
    assert len(warning) == 1 and "tried again" in warning[0]["message"]
    assert warning[0]["meta"] == {"user": 7}
    lab.worker(redis, name="well").ready()
    end = redis.end(job)
    assert end["event"] == "succeeded" and end["worker"] == "well"
    assert [e["attempt"] for e in redis.events(job) if e["event"] == "started"] == [1, 2]
    assert stat(redis, "retried") == 1 and dead(redis) == []
    assert redis.client.zcard(f"{P}:delayed") == 0


def test_the_last_try_is_final_and_kept_among_the_dead(lab, frail):
    redis = lab.redis()
    worker = frail(redis, name="frail").ready()
    frail.fail.touch()
    job = redis.submit(**SMALL, max_attempts=1)
    end = redis.end(job)
    assert (end["event"], end["code"]) == ("failed", "device")
    assert worker.wait() == 69
    [entry] = dead(redis)
    assert entry["id"] == job and entry["reason"] == "device" and entry["worker"] == "frail"
    assert entry["job.prompt"] == PROMPT and entry["class"] == "normal"
    assert stat(redis, "failed") == 1


def test_a_hung_device_ends_the_worker_and_frees_the_job(lab, frail):
    redis = lab.redis()
    worker = frail(redis, "--set", f"worker.stall_ms={int(1500 * SLOW)}", name="hung",
                   lease_ms=LEASE_MS).ready()
    job = redis.submit(**LONG)
    until(lambda: redis.is_running(job))
    frail.hang.touch()
    assert worker.wait() == 70
    assert "ev=worker.stalled" in worker.log
    lab.worker(redis, name="well", lease_ms=LEASE_MS).ready()
    assert redis.end(job)["worker"] == "well"
    assert state(redis, job)["crashes"] == "1"


def test_a_job_that_kills_workers_is_poison(lab):
    redis = lab.redis()
    job = redis.submit(**LONG)
    for i in range(3):
        worker = lab.worker(redis, name=f"victim{i}", lease_ms=LEASE_MS).ready()
        until(lambda: redis.types(job).count("started") == i + 1)
        worker.signal(signal.SIGKILL)
        worker.wait()
    healthy = lab.worker(redis, name="healthy", lease_ms=LEASE_MS).ready()
    end = redis.end(job)
    assert (end["event"], end["code"]) == ("failed", "poison")
    assert "victim2" in end["message"]
    [entry] = dead(redis)
    assert (entry["reason"], entry["crashes"], entry["worker"]) == ("poison", "3", "victim2")
    assert stat(redis, "poison") == 1 and stat(redis, "recovered") == 3
    assert redis.end(redis.submit(**SMALL))["event"] == "succeeded"
    assert healthy.process.poll() is None


def test_a_worker_that_comes_back_under_its_name_takes_its_job_at_once(lab):
    redis = lab.redis()
    first = lab.worker(redis, name="same", lease_ms=60000).ready()
    job = redis.submit(**LONG)
    until(lambda: redis.is_running(job))
    first.signal(signal.SIGKILL)
    first.wait()
    lab.worker(redis, name="same", lease_ms=60000).ready()
    assert redis.end(job, 30)["event"] == "succeeded"
    assert state(redis, job)["crashes"] == "1"


# --- times ---

def test_a_run_that_takes_too_long_fails(redis):
    job = redis.submit(**LONG | {"steps": 1000}, timeout_ms=300)
    end = redis.end(job)
    assert (end["event"], end["code"]) == ("failed", "timeout")
    assert "300 ms" in end["message"]
    assert dead(redis)[-1]["reason"] == "timeout"


def test_a_job_that_waited_too_long_expires(lab):
    redis = lab.redis()
    late = redis.submit(**SMALL, ttl_ms=50, meta='{"n":1}')
    patient = redis.submit(**SMALL, ttl_ms=600000)
    time.sleep(0.1)
    lab.worker(redis).ready()
    end = redis.end(late)
    assert end["event"] == "expired" and end["meta"] == {"n": 1}
    assert "started" not in redis.types(late)
    assert redis.end(patient)["event"] == "succeeded"
    assert stat(redis, "expired") == 1 and redis.waiting() == 0


def test_a_delayed_job_waits_and_then_runs(redis):
    before = time.time()
    job = redis.submit(**SMALL, delay_ms=1500)
    soon = redis.submit(**SMALL)
    assert redis.end(soon)["event"] == "succeeded"
    assert state(redis, job)["state"] == "delayed"
    assert redis.end(job)["event"] == "succeeded"
    assert 1.4 < time.time() - before < 1.5 + 3 * SLOW
    assert redis.client.zcard(f"{P}:delayed") == 0


def test_a_unique_key_admits_one_job(lab):
    redis = lab.redis()
    worker = lab.worker(redis).ready()
    lab.worker(redis).ready()
    first = redis.submit(**LONG, unique="user-7")
    until(lambda: redis.is_running(first))
    second = redis.submit(**SMALL, unique="user-7")
    end = redis.end(second)
    assert (end["event"], end["code"], end["field"]) == ("failed", "duplicate", "unique")
    assert first in end["message"]
    assert redis.end(first)["event"] == "succeeded"
    assert not redis.client.exists(f"{P}:unique:user-7")
    assert redis.end(redis.submit(**SMALL, unique="user-7"))["event"] == "succeeded"
    assert dead(redis) == [] and worker.process.poll() is None


# --- steering ---

def test_a_running_job_is_canceled_within_a_step(lab):
    redis = lab.redis()
    lab.worker(redis).ready()
    job = redis.submit(**LONG | {"steps": 1000, "width": 256, "height": 256}, meta='[1]')
    until(lambda: redis.is_running(job))
    redis.client.hset(f"{P}:job:{job}", "cancel", 1)
    asked = time.time() * 1000
    redis.client.publish(f"{P}:control", f"cancel {job}")
    end = redis.end(job)
    assert end["event"] == "canceled" and end["meta"] == [1]
    step = max(e["step"] for e in redis.events(job) if e["event"] == "progress")
    assert step < 1000
    assert end["ts_ms"] - asked < 1500 * SLOW
    assert not redis.client.exists(f"{P}:result:{job}:0")
    assert redis.waiting() == 0 and stat(redis, "canceled") == 1


def test_cancel_is_durable_even_if_nobody_rings(lab):
    """A flag set before the job starts, and one that only progress finds."""
    redis = lab.redis()
    redis.client.hset(f"{P}:job:early", "cancel", 1)
    early = redis.submit(**SMALL, id="early")
    lab.worker(redis).ready()
    assert redis.end(early)["event"] == "canceled"
    job = redis.submit(**LONG | {"steps": 1000})
    until(lambda: redis.is_running(job))
    redis.client.hset(f"{P}:job:{job}", "cancel", 1)
    assert redis.end(job)["event"] == "canceled"


def test_cancel_by_the_command_takes_a_waiting_job_away_at_once(lab):
    redis = lab.redis()
    lab.worker(redis).ready()
    running = redis.submit(**LONG)
    until(lambda: redis.is_running(running))
    jobs = [redis.submit(**SMALL), redis.submit(**SMALL, id="mine"), redis.submit(**SMALL)]
    for job in jobs[:2]:
        assert darkroom("cancel", "--redis", redis.url, job).returncode == 0
        assert redis.types(job)[-1] == "canceled"
    assert redis.waiting() == 2
    assert redis.end(running)["event"] == redis.end(jobs[2])["event"] == "succeeded"


def test_a_paused_class_waits(lab):
    redis = lab.redis()
    lab.worker(redis).ready()
    redis.client.sadd(f"{P}:paused", "normal")
    job = redis.submit(**SMALL)
    assert redis.end(redis.submit("high", **SMALL))["event"] == "succeeded"
    time.sleep(0.5)
    assert redis.events(job) == []
    redis.client.srem(f"{P}:paused", "normal")
    assert redis.end(job)["event"] == "succeeded"


def test_no_class_starves(lab):
    redis = lab.redis()
    jobs = {queue: [redis.submit(queue, **SMALL | {"steps": 1}) for _ in range(9)]
            for queue in ("low", "normal", "high")}
    lab.worker(redis, "--once", "12").wait(120)
    ended = {queue: sum("succeeded" in redis.types(j) for j in jobs[queue]) for queue in jobs}
    assert ended == {"high": 8, "normal": 3, "low": 1}


def test_a_worker_that_is_asked_to_drain_leaves(lab):
    redis = lab.redis()
    worker = lab.worker(redis, name="leaver").ready()
    until(lambda: redis.client.exists(f"{P}:worker:leaver"))
    redis.client.hset(f"{P}:worker:leaver", "drain", 1)
    redis.client.publish(f"{P}:control", "drain leaver")
    assert worker.wait(10) == 0
    assert not redis.client.exists(f"{P}:worker:leaver")


# --- handing over ---

@pytest.mark.parametrize("sampler", ["euler_a", "dpmpp_2m"])
def test_the_next_worker_goes_on_from_the_step(lab, sampler):
    redis = lab.redis()
    fields = LONG | {"sampler": sampler, "steps": 60, "n": 2}
    del fields["seed"]
    first = lab.worker(redis, "--set", "worker.drain_ms=0", name="first").ready()
    job = redis.submit(**fields)
    until(lambda: any(e.get("step", 0) >= 10 for e in redis.events(job)))
    first.signal(signal.SIGTERM)
    assert first.wait() == 0
    assert redis.client.exists(f"{P}:checkpoint:{job}")
    left = max(e["step"] for e in redis.events(job) if e["event"] == "progress")
    seen = len(redis.events(job))
    lab.worker(redis, name="second").ready()
    end = redis.end(job)
    assert end["event"] == "succeeded" and end["worker"] == "second"
    steps = [e["step"] for e in redis.events(job)[seen:]
             if e["event"] == "progress" and e["phase"] == "denoise"]
    assert min(steps) >= left, "it began anew"
    assert not redis.client.exists(f"{P}:checkpoint:{job}")
    whole = redis.submit(**fields, seed=end["seed"])
    redis.end(whole)
    for i in range(2):
        assert redis.result(job, i) == redis.result(whole, i)


def test_a_spoilt_checkpoint_is_only_a_warning(lab):
    redis = lab.redis()
    first = lab.worker(redis, "--set", "worker.drain_ms=0").ready()
    job = redis.submit(**LONG)
    until(lambda: redis.is_running(job))
    first.signal(signal.SIGTERM)
    first.wait()
    key = f"{P}:checkpoint:{job}"
    redis.client.setrange(key, redis.client.strlen(key) // 2, os.urandom(8))
    lab.worker(redis).ready()
    assert redis.end(job)["event"] == "succeeded"
    assert any("checkpoint" in e.get("message", "") for e in redis.events(job))


def test_entries_that_nobody_holds_are_found_again(lab):
    redis = lab.redis()
    job = redis.submit(**SMALL)
    redis.client.xgroup_create(QUEUES[1], "workers", "0")
    redis.client.xreadgroup("workers", "gone", {QUEUES[1]: ">"})
    redis.client.xgroup_delconsumer(QUEUES[1], "workers", "gone")
    redis.client.xgroup_createconsumer(QUEUES[1], "workers", "dead")
    lab.worker(redis, lease_ms=1000).ready()
    assert redis.end(job)["event"] == "succeeded"
    until(lambda: b"dead" not in [c["name"].encode() if isinstance(c["name"], str)
                                  else c["name"]
                                  for c in redis.client.xinfo_consumers(QUEUES[1], "workers")])


# --- batches ---

def test_waiting_jobs_run_together_and_come_out_as_if_alone(lab):
    redis = lab.redis()
    worker = lab.worker(redis, "--set", "batch.max=4", "--set",
                        "metrics.listen=127.0.0.1:0").ready()
    first = redis.submit(**LONG)
    until(lambda: redis.is_running(first))
    fields = [SMALL | {"steps": 8, "prompt": f"a {color} {shape} on a {back} background",
                       "seed": i, "cfg_scale": cfg}
              for i, (color, shape, back, cfg) in enumerate([
                  ("red", "circle", "blue", 7.5), ("green", "square", "white", 4),
                  ("yellow", "triangle", "black", 9), ("blue", "star", "red", 7.5)])]
    odd = redis.submit(**SMALL | {"width": 128})
    jobs = [redis.submit(**f) for f in fields]
    ends = [redis.end(j) for j in jobs + [odd, first]]
    assert {e["event"] for e in ends} == {"succeeded"}
    # All four were at work at the same time.
    spans = [[e["ts_ms"] for e in redis.events(j) if e["event"] == "progress"] for j in jobs]
    assert max(s[0] for s in spans) < min(s[-1] for s in spans)
    for job, f in zip(jobs, fields):
        alone = redis.submit(**f)
        redis.end(alone)
        assert psnr(redis.result(job), redis.result(alone)) >= 50
        assert redis.types(job).count("succeeded") == 1
    assert worker.process.poll() is None


def test_one_canceled_job_leaves_its_neighbours_alone(lab):
    redis = lab.redis()
    lab.worker(redis, "--set", "batch.max=3").ready()
    first = redis.submit(**LONG)
    until(lambda: redis.is_running(first))
    jobs = [redis.submit(**LONG | {"seed": i}) for i in range(3)]
    until(lambda: all(redis.is_running(j) for j in jobs))
    assert darkroom("cancel", "--redis", redis.url, jobs[1]).returncode == 0
    assert redis.end(jobs[1])["event"] == "canceled"
    assert all(redis.types(j)[-1] == "progress" for j in (jobs[0], jobs[2]))
    for i in (0, 2):
        assert redis.end(jobs[i])["event"] == "succeeded"
        alone = redis.submit(**LONG | {"seed": i})
        redis.end(alone)
        assert psnr(redis.result(jobs[i]), redis.result(alone)) >= 50


def test_a_fresh_job_is_left_to_an_idle_worker(lab):
    redis = lab.redis()
    for name in ("one", "two"):
        lab.worker(redis, "--set", "batch.max=4", name=name).ready()
    time.sleep(0.3)
    jobs = [redis.submit(**LONG) for _ in range(2)]
    assert {redis.end(j)["worker"] for j in jobs} == {"one", "two"}


# --- models ---

def models_folder(tmp_path, *names):
    for name in names:
        (tmp_path / name).symlink_to(DEMO)
    return tmp_path


def test_a_worker_serves_several_models_and_prefers_the_loaded_one(lab, tmp_path):
    folder = models_folder(tmp_path, "a", "b")
    redis = lab.redis()
    worker = lab.worker(redis, "--set", f"model.dir={folder}", "--set", "model.memory_mb=40",
                        "--set", "model.affinity_ms=120000").ready()    # a busy machine is slow
    first = redis.submit(**LONG, model="a")
    until(lambda: redis.is_running(first))
    order = [redis.submit(**SMALL, model=m) for m in ("b", "a", "b", "a")]
    ends = [redis.end(j) for j in order]
    assert [e["model"] for e in ends] == ["b", "a", "b", "a"]
    started = sorted(order, key=lambda j: redis.events(j)[0]["ts_ms"])
    assert [order.index(j) for j in started] == [1, 3, 0, 2]
    assert ends[0]["timings"]["load"] > 0
    assert "load" in [e.get("phase") for e in redis.events(order[0])]
    assert len({pixels(redis.result(j)).tobytes() for j in order}) == 1
    assert worker.process.poll() is None


def test_a_model_that_only_another_worker_has_is_left_to_it(lab, tmp_path):
    a, b = tmp_path / "1", tmp_path / "2"
    a.mkdir(), b.mkdir()
    redis = lab.redis()
    for name, folder, model in (("has-a", a, "a"), ("has-b", b, "b")):
        lab.worker(redis, "--set", f"model.dir={models_folder(folder, model)}",
                   name=name).ready()
        until(lambda: redis.client.exists(f"{P}:worker:{name}"))
    jobs = [(m, redis.submit(**SMALL, model=m)) for m in "abbaabab"]
    for model, job in jobs:
        assert redis.end(job)["worker"] == f"has-{model}"
        assert state(redis, job)["crashes"] == "0"
    end = redis.end(redis.submit(**SMALL, model="c"))
    assert (end["event"], end["code"], end["field"]) == ("failed", "not_found", "model")
    assert '"a"' in end["message"] and '"b"' in end["message"]


def test_two_workers_of_one_name_are_one_too_many(lab):
    redis = lab.redis()
    lab.worker(redis, name="same", lease_ms=1000).ready()
    until(lambda: redis.client.exists(f"{P}:worker:same"))
    twin = lab.worker(redis, name="same", lease_ms=1000)
    assert twin.wait() == 65, twin.log
    assert "worker.name same" in twin.log
    assert redis.end(redis.submit(**SMALL))["event"] == "succeeded"
    assert redis.client.exists(f"{P}:worker:same")


def test_a_waiting_job_is_canceled_by_hand(lab):
    """By redis-cli alone, and at once, while the worker is at work on another one."""
    redis = lab.redis()
    lab.worker(redis).ready()
    running = redis.submit(**LONG)
    until(lambda: redis.is_running(running))
    job = redis.submit(**SMALL, meta='{"n":3}')
    redis.client.hset(f"{P}:job:{job}", "cancel", 1)
    redis.client.publish(f"{P}:control", f"cancel {job}")
    end = redis.end(job)
    assert end["event"] == "canceled" and end["meta"] == {"n": 3}
    assert redis.types(running)[-1] == "progress"
    assert redis.waiting() == 1
    redis.end(running)
