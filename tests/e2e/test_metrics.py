"""What a worker tells Prometheus and probes, read by Prometheus' own parser."""
import re
import signal
import socket
import time
import urllib.error
import urllib.request

import pytest
from prometheus_client.parser import text_string_to_metric_families

from conftest import P, SLOW, until

PROMPT = "a red circle on a blue background"
SMALL = {"prompt": PROMPT, "width": 64, "height": 64, "steps": 2}
LONG = SMALL | {"steps": 100, "seed": 1}
METERED = ("--set", "metrics.listen=127.0.0.1:0")


class Probe:
    """The address that a worker says it listens on."""

    def __init__(self, worker):
        worker.says("ev=http.listen")
        self.address = re.search(r"ev=http.listen address=(\S+)", worker.log)[1]

    def get(self, path):
        """Status and body."""
        try:
            with urllib.request.urlopen(f"http://{self.address}{path}", timeout=20) as answer:
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as refusal:
            return refusal.code, refusal.read().decode()

    def status(self, path):
        return self.get(path)[0]

    def metrics(self):
        status, text = self.get("/metrics")
        assert status == 200
        return Metrics(text)


class Metrics:
    """One scrape."""

    def __init__(self, text):
        self.families = list(text_string_to_metric_families(text))
        self.samples = {(s.name, frozenset(s.labels.items())): s.value
                        for family in self.families for s in family.samples}
        assert len(self.samples) == sum(len(f.samples) for f in self.families)

    def __call__(self, name, **labels):
        return self.samples[name, frozenset(labels.items())]

    def labels(self, name):
        return [dict(labels) for known, labels in self.samples if known == name]

    def outcomes(self):
        """Jobs by outcome, without those that did not occur."""
        return {dict(labels)["outcome"]: value for (name, labels), value in
                self.samples.items() if name == "darkroom_jobs_total" and value}


@pytest.fixture
def metered(lab):
    """A Redis, a worker on it and its probe."""
    def start(*options, **named):
        redis = lab.redis()
        worker = lab.worker(redis, *METERED, *options, **named).ready()
        return redis, worker, Probe(worker)
    return start


# --- numbers ---

def test_jobs_are_counted_and_timed(metered):
    redis, worker, probe = metered()
    jobs = [redis.submit(**SMALL, seed=seed, n=2) for seed in range(2)]
    jobs.append(redis.submit(**SMALL | {"width": 1001}))
    ends = [redis.end(job) for job in jobs]
    assert [end["event"] for end in ends] == ["succeeded", "succeeded", "failed"]
    until(lambda: probe.metrics().outcomes() == {"succeeded": 2, "failed": 1},
          10, "the three jobs")
    until(lambda: probe.metrics()("darkroom_jobs_held") == 0, 10, "no job held")
    m = probe.metrics()
    assert m("darkroom_job_failures_total", code="invalid") == 1
    assert m("darkroom_job_failures_total", code="device") == 0
    assert m("darkroom_claims_total") == 3
    assert m("darkroom_images_total") == 4
    assert m("darkroom_image_bytes_total") == sum(
        len(redis.result(job, i)) for job in jobs[:2] for i in range(2))
    assert m("darkroom_events_total") == sum(len(redis.events(job)) for job in jobs)
    assert m("darkroom_events_dropped_total") == 0
    assert m("darkroom_steps_total") == m("darkroom_step_seconds_count") >= 4
    assert m("darkroom_job_wait_seconds_count") == 3
    assert m("darkroom_job_run_seconds_count") == 3
    for phase in ("encode", "denoise", "decode"):
        assert m("darkroom_phase_seconds_count", phase=phase) == 2, phase
    assert m("darkroom_phase_seconds_count", phase="compress") == 2
    assert m("darkroom_phase_seconds_count", phase="finish") == 3
    told_ms = sum(end["timings"]["denoise"] for end in ends[:2])
    assert abs(m("darkroom_phase_seconds_sum", phase="denoise") * 1000 - told_ms) <= 2
    assert m("darkroom_redis_errors_total", kind="connection") == 0


def test_the_text_keeps_prometheus_rules(metered):
    redis, worker, probe = metered(name='odd"name\\')
    assert redis.end(redis.submit(**SMALL))["event"] == "succeeded"
    m = probe.metrics()
    names = [f.name for f in m.families]
    assert len(names) == len(set(names))
    for family in m.families:
        assert family.documentation and family.type != "unknown", family.name
        assert re.fullmatch(r"(darkroom|process)_[a-z_]+", family.name)
        if family.type != "histogram":
            continue
        rows = {}
        for s in family.samples:
            key = frozenset((k, v) for k, v in s.labels.items() if k != "le")
            rows.setdefault(key, {}).setdefault(s.name[len(family.name):], []).append(s)
        for row in rows.values():
            counts = [s.value for s in row["_bucket"]]
            bounds = [float(s.labels["le"]) for s in row["_bucket"]]
            assert counts == sorted(counts) and bounds == sorted(bounds)
            assert bounds[-1] == float("inf")
            assert counts[-1] == row["_count"][0].value
            assert row["_sum"][0].value >= 0
    info, = m.labels("darkroom_build_info")
    assert info["worker"] == 'odd"name\\'
    beat = until(lambda: redis.client.hgetall(f"{P}:worker:{info['worker']}"))
    assert info["device"] == beat[b"device"].decode()
    assert info["version"] == beat[b"version"].decode()
    assert 1e6 < m("process_resident_memory_bytes") < 1e11
    assert m("process_open_fds") > 5
    assert abs(time.time() - m("process_start_time_seconds")) < 300 * SLOW
    assert abs(time.time() - m("darkroom_redis_seen_timestamp_seconds")) < 30


def test_a_running_job_is_seen(metered):
    redis, worker, probe = metered(lease_ms=2000)
    assert probe.metrics()("darkroom_jobs_held") == 0
    job = redis.submit(**LONG | {"steps": 1000})
    until(lambda: redis.is_running(job))
    m = probe.metrics()
    assert m("darkroom_jobs_held") == 1 and m.outcomes() == {}
    until(lambda: probe.metrics()("darkroom_steps_total") > m("darkroom_steps_total"),
          20, "steps while the job runs")
    assert probe.status("/readyz") == 200
    redis.client.hset(f"{P}:job:{job}", "cancel", "1")
    assert redis.end(job)["event"] == "canceled"
    until(lambda: probe.metrics().outcomes() == {"canceled": 1}, 10, "the canceled job")


def test_a_dead_workers_job_is_counted_as_recovered(lab):
    redis = lab.redis()
    lease_ms = int(1500 * SLOW)
    first = lab.worker(redis, name="first", lease_ms=lease_ms).ready()
    job = redis.submit(**LONG)
    until(lambda: redis.is_running(job))
    first.signal(signal.SIGKILL)
    first.wait()
    second = lab.worker(redis, *METERED, name="second", lease_ms=lease_ms).ready()
    assert redis.end(job)["event"] == "succeeded"
    probe = Probe(second)
    until(lambda: probe.metrics().outcomes() == {"succeeded": 1}, 10, "the job")
    assert probe.metrics()("darkroom_jobs_recovered_total") == 1


def test_the_queue_is_seen(metered):
    redis, worker, probe = metered(lease_ms=1000)
    until(lambda: len(probe.metrics().labels("darkroom_queue_jobs")) == 9, 20,
          "the queue's lengths")
    running = redis.submit(**LONG | {"steps": 1000})
    until(lambda: redis.is_running(running))
    redis.submit("low", **LONG)

    def seen():
        m = probe.metrics()
        return (m("darkroom_queue_jobs", **{"class": "normal", "state": "running"}),
                m("darkroom_queue_jobs", **{"class": "low", "state": "waiting"}),
                m("darkroom_queue_jobs", **{"class": "high", "state": "waiting"})) == (1, 1, 0)
    until(seen, 20, "one that runs and one that waits")
    assert probe.metrics()("darkroom_queue_dead_jobs") == 0


# --- probes ---

def test_a_worker_is_ready_only_with_redis(lab):
    redis = lab.redis(start=False)
    worker = lab.worker(redis, *METERED, lease_ms=int(3000 * SLOW)).ready()
    probe = Probe(worker)
    assert probe.get("/healthz") == (200, "ok\n")
    status, why = probe.get("/readyz")
    assert status == 503 and why == "starting: no answer from Redis yet\n"
    redis.start()
    until(lambda: probe.get("/readyz") == (200, "ok\n"), 20, "a ready worker")
    redis.kill()
    # A second without it is nothing, more than a lease is.
    assert probe.status("/readyz") == 200
    until(lambda: probe.status("/readyz") == 503, 40, "a worker that is not ready")
    assert re.fullmatch(r"no Redis since \d+ s\n", probe.get("/readyz")[1])
    assert probe.get("/healthz") == (200, "ok\n")
    down = probe.metrics()
    assert down("darkroom_redis_errors_total", kind="connection") > 0
    assert down("darkroom_redis_seen_timestamp_seconds") < time.time() - 3 * SLOW
    redis.start()
    until(lambda: probe.status("/readyz") == 200, 20, "a ready worker")
    assert probe.metrics()("darkroom_redis_reconnects_total") >= 1
    assert redis.end(redis.submit(**SMALL))["event"] == "succeeded"
    assert worker.process.poll() is None


def test_a_draining_worker_is_not_ready(metered):
    redis, worker, probe = metered()
    job = redis.submit(**LONG | {"steps": int(300 * max(1, SLOW / 3))})
    until(lambda: redis.is_running(job))
    assert probe.status("/readyz") == 200
    worker.signal(signal.SIGTERM)
    worker.says("ev=worker.drain")
    assert probe.get("/readyz") == (503, "draining: takes no more jobs\n")
    assert probe.get("/healthz") == (200, "ok\n")
    assert probe.metrics()("darkroom_draining") == 1
    assert worker.wait() == 0, worker.log
    assert redis.end(job)["event"] == "succeeded"


def test_a_bad_request_disturbs_nobody(metered):
    redis, worker, probe = metered()
    job = redis.submit(**LONG)
    host, port = probe.address.rsplit(":", 1)
    idle = [socket.create_connection((host, int(port))) for _ in range(8)]
    for junk in (b"\0" * 4096, b"POST /metrics HTTP/1.1\r\nContent-Length: 1000000\r\n\r\nx",
                 b"GET / HTTP/9.9\r\n\r\n"):
        with socket.create_connection((host, int(port))) as connection:
            connection.sendall(junk)
            assert b" 200 " not in connection.recv(4096)
    assert probe.status("/nothing") == 404
    assert probe.status("/metrics") == 200
    assert redis.end(job)["event"] == "succeeded"
    worker.signal(signal.SIGTERM)
    assert worker.wait() == 0, worker.log
    for connection in idle:
        connection.close()


def test_without_a_setting_nothing_listens(lab):
    redis = lab.redis()
    worker = lab.worker(redis).ready()
    assert redis.end(redis.submit(**SMALL))["event"] == "succeeded"
    assert "ev=http.listen" not in worker.log


def test_an_address_in_use_ends_the_worker(lab):
    redis = lab.redis()
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        worker = lab.worker(redis, "--set", f"metrics.listen={address}")
        assert worker.wait() != 0
    assert f"metrics.listen {address}: Address already in use" in worker.log


@pytest.mark.parametrize("address", ["9464", "127.0.0.1:http", "::1:9464"])
def test_a_malformed_address_ends_the_worker(lab, address):
    worker = lab.worker(lab.redis(), "--set", f"metrics.listen={address}")
    assert worker.wait() != 0
    assert f"metrics.listen {address}: must be host:port" in worker.log
