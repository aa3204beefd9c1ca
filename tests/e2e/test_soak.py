"""Many jobs. One worker: its memory and descriptors stay flat. A fleet whose workers are
killed: every job is accounted for, and nothing grows. DARKROOM_SOAK_JOBS=2000 for a long run,
which prints what it saw on the way."""
import io
import os
import random
import signal
import threading
import time
from collections import Counter
from pathlib import Path

import pytest
from PIL import Image

from conftest import P, QUEUES, SLOW, TERMINAL, darkroom, until

LONG = "DARKROOM_SOAK_JOBS" in os.environ
JOBS = int(os.environ.get("DARKROOM_SOAK_JOBS", "100"))
WARM = 30
GROWTH_KB = 6 * 1024


def rss_kb(pid):
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1])
    raise AssertionError("no VmRSS")


def descriptors(pid):
    return len(list(Path(f"/proc/{pid}/fd").iterdir()))


@pytest.fixture
def honest_memory(monkeypatch):
    """Where the address sanitizer runs, freed memory must come back to be counted."""
    monkeypatch.setenv("ASAN_OPTIONS", ":".join([os.environ.get("ASAN_OPTIONS", ""),
                                                "quarantine_size_mb=1",
                                                "thread_local_quarantine_size_kb=64"]))


# --- one worker ---

def run(redis, count):
    """Jobs as they come: good ones, previews, several pictures, bad ones; distinct prompts."""
    names = []
    for i in range(count):
        job = {"prompt": f"a red circle {i}", "width": 64, "height": 64, "steps": 1, "seed": i}
        if i % 10 == 3:
            job["n"] = 2
        if i % 10 == 5:
            job |= {"steps": 2, "preview_every": 1}
        if i % 10 == 7:
            job["width"] = 65
        names.append(redis.submit(**job))
    for i, name in enumerate(names):
        assert redis.end(name, 300)["event"] == ("failed" if i % 10 == 7 else "succeeded")


def test_memory_and_descriptors_stay_flat(lab, honest_memory):
    redis = lab.redis()
    worker = lab.worker(redis, "--set", "model.text_cache=16").ready()
    run(redis, WARM)
    memory, files = rss_kb(worker.process.pid), descriptors(worker.process.pid)
    run(redis, JOBS)
    assert descriptors(worker.process.pid) == files
    assert rss_kb(worker.process.pid) - memory < GROWTH_KB
    assert redis.waiting() == 0
    assert int(redis.client.get(f"{P}:fence")) == WARM + JOBS


# --- a fleet ---

FLEET_JOBS = JOBS if LONG else 60
FLEET_GROWTH_KB = 12 * 1024  # a full batch, should the calm have had none, included
WORKERS = 4 if LONG else 2
CLIENTS = 3
BACKLOG = 40  # entries that clients let wait
LEASE_MS = int((3000 if LONG else 1500) * SLOW)
RESULT_TTL_S = int(30 * SLOW)
SETTLED_S = (5 if LONG else 1) * SLOW  # after a job's end, until it is looked at again
KILL_EVERY_S = (8 if LONG else 3) * SLOW
CUT_EVERY_S = (20 if LONG else 3) * SLOW
SAMPLE_EVERY_S = 10
CALM = 20  # jobs at the beginning that nobody disturbs

# Kinds of jobs: how many of a hundred, and how they may end.
KINDS = {
    "plain": (82, {"succeeded"}),
    "delayed": (4, {"succeeded"}),
    "unique": (6, {"succeeded", "duplicate"}),
    "hurried": (4, {"succeeded", "expired"}),
    "wrong": (4, {"invalid"}),
}
CANCELED = 0.05
FOR_EVER = {*QUEUES, f"{P}:fence", f"{P}:stats", f"{P}:workers"}


class Fleet:
    """Workers that are killed and started again; the first one is spared, to be measured."""

    def __init__(self, lab, redis, dice):
        self.lab, self.redis, self.dice = lab, redis, dice
        self.over = threading.Event()
        self.kills = self.cuts = 0
        self.workers = [self.start() for _ in range(WORKERS)]
        for worker in self.workers:
            worker.ready()
        until(lambda: redis.client.exists(*QUEUES) == len(QUEUES), 10, "the groups")

    def start(self):
        return self.lab.worker(self.redis, "--set", f"result.ttl_s={RESULT_TTL_S}", "--set",
                               "model.text_cache=16", "--set", "batch.max=4",
                               lease_ms=LEASE_MS)

    def disturb(self):
        """Until over: kill a worker now and then, and everybody's connections."""
        kill_at = cut_at = time.monotonic()
        while not self.over.wait(0.05):
            if time.monotonic() >= kill_at:
                kill_at += KILL_EVERY_S * self.dice.uniform(0.5, 1.5)
                self.kill(self.dice.randrange(1, WORKERS))
            if time.monotonic() >= cut_at:
                cut_at += CUT_EVERY_S * self.dice.uniform(0.5, 1.5)
                self.redis.client.client_kill_filter(_type="normal", skipme=True)
                self.cuts += 1

    def kill(self, i):
        self.workers[i].stop()
        self.workers[i] = self.start().ready()
        self.kills += 1

    def consumers(self):
        """Their number in the groups, and how many of them are not there any more."""
        alive = {str(w.process.pid) for w in self.workers}
        names = [c["name"].decode() for q in QUEUES
                 for c in self.redis.client.xinfo_consumers(q, "workers")]
        return len(names), sum(n.rpartition("-")[2] not in alive for n in names)


class Client(threading.Thread):
    """Sends jobs of all kinds and changes its mind about some. redis-py sends again what was
    cut off; the job's id makes that harmless."""

    def __init__(self, redis, name, dice, sent):
        super().__init__(daemon=True)
        self.redis, self.name, self.dice, self.sent = redis, name, dice, sent

    def run(self):
        for i in range(FLEET_JOBS // CLIENTS):
            until(lambda: self.redis.waiting() < BACKLOG, 300, "the backlog")
            name = f"{self.name}-{i}"
            kind = self.dice.choices(list(KINDS), [share for share, _ in KINDS.values()])[0]
            canceled = self.dice.random() < CANCELED
            self.sent[name] = kind, canceled
            self.redis.submit(self.dice.choice(["high", "normal", "low"]), id=name,
                              **self.fields(kind))
            if canceled:
                time.sleep(self.dice.uniform(0, 0.3))
                self.cancel(name)

    def fields(self, kind):
        job = {"prompt": "a red circle", "width": 64, "height": 64,
               "steps": self.dice.choice([1, 2]), "seed": self.dice.randrange(1000)}
        extra = {
            "delayed": {"delay_ms": self.dice.randrange(100, 2000)},
            "unique": {"unique": f"key{self.dice.randrange(2)}"},
            "hurried": {"ttl_ms": self.dice.choice([1, 1000])},
            "wrong": {"width": 65},
        }
        return job | extra.get(kind, {})

    def cancel(self, name):
        """By the program, or by hand as any client can."""
        if self.dice.random() < 0.5:
            darkroom("cancel", name, "--redis", self.redis.url, "--set",
                     f"result.ttl_s={RESULT_TTL_S}")
            return
        self.redis.client.hset(f"{P}:job:{name}", "cancel", "1")
        self.redis.client.publish(f"{P}:control", f"cancel {name}")


class Ledger:
    """How the jobs that were sent ended. Each is looked at when it ends and again later."""

    def __init__(self, redis, sent):
        self.redis, self.sent = redis, sent
        self.seen_at, self.ends, self.complaints = {}, {}, []

    def look(self):
        for name in [n for n in list(self.sent) if n not in self.ends]:
            events = self.redis.events(name)
            ends = [e for e in events if e["event"] in TERMINAL]
            if ends:
                seen_at = self.seen_at.setdefault(name, time.monotonic())
                if time.monotonic() > seen_at + SETTLED_S:
                    self.settle(name, events, ends)
            elif name in self.seen_at:
                self.complaints.append(f"{name}: its end is gone")
                self.ends[name] = {"event": "gone"}

    def settle(self, name, events, ends):
        kind, canceled = self.sent[name]
        end = self.ends[name] = ends[0]
        how = end.get("code", end["event"])
        if how not in KINDS[kind][1] | ({"canceled"} if canceled else set()):
            self.complaints.append(f"{name}: a {kind} job ended as {end}")
        if len(ends) > 1 or events[-1] != end:
            self.complaints.append(f"{name}: {[e['event'] for e in events]}")
        if end["event"] == "succeeded" and not is_picture(self.redis.result(name)):
            self.complaints.append(f"{name}: no picture")


def is_picture(data):
    if data is None:
        return False
    image = Image.open(io.BytesIO(data))
    image.load()
    return (image.format, image.size) == ("WEBP", (64, 64))


class Series:
    """What must not grow, as lines of a table."""
    HEAD = ("seconds", "ended", "kills", "RSS MB", "descriptors", "consumers", "keys",
            "Redis KB")

    def __init__(self, redis, fleet):
        self.redis, self.fleet = redis, fleet
        self.rows, self.from_s, self.next_s = [], time.monotonic(), 0
        if LONG:
            print()
        self.print(self.HEAD)
        self.print(["---"] * len(self.HEAD))

    def print(self, row):
        if LONG:
            print("| " + " | ".join(map(str, row)) + " |", flush=True)

    def sample(self, ended):
        if time.monotonic() < self.next_s:
            return
        self.next_s = time.monotonic() + SAMPLE_EVERY_S
        memory, files = [], []  # of each worker
        for worker in list(self.fleet.workers):
            try:
                memory.append(str(rss_kb(worker.process.pid) // 1024))
                files.append(str(descriptors(worker.process.pid)))
            except (OSError, AssertionError):  # killed just now
                pass
        self.rows.append((int(time.monotonic() - self.from_s), ended, self.fleet.kills,
                          " ".join(memory), " ".join(files), self.fleet.consumers()[0],
                          self.redis.client.dbsize(),
                          self.redis.client.info("memory")["used_memory"] // 1024))
        self.print(self.rows[-1])


def job_keys(redis):
    """All keys but those that are there as long as there are workers, with their TTL."""
    keys = {k.decode(): redis.client.ttl(k) for k in redis.client.scan_iter("*")}
    return {k: ttl for k, ttl in keys.items()
            if k not in FOR_EVER and not k.startswith(f"{P}:worker:")}


def test_a_fleet_under_fire(lab, honest_memory, capsys):
    redis, sent = lab.redis(), {}
    fleet = Fleet(lab, redis, random.Random(0))
    ledger = Ledger(redis, sent)
    disturber = threading.Thread(target=fleet.disturb, daemon=True)
    clients = [Client(redis, f"client{i}", random.Random(i), sent) for i in range(CLIENTS)]
    spared = fleet.workers[0].process.pid
    with capsys.disabled():
        series = Series(redis, fleet)
        for client in clients:
            client.start()
        while len(ledger.ends) < len(sent) or any(c.is_alive() for c in clients):
            ledger.look()
            series.sample(len(ledger.ends))
            if len(ledger.ends) >= CALM and not fleet.kills and not disturber.is_alive():
                memory, files = rss_kb(spared), descriptors(spared)
                disturber.start()
            time.sleep(0.1)
        fleet.over.set()
        disturber.join()
        counts = Counter(e["event"] for e in ledger.ends.values())
        if LONG:
            print("\n" + ", ".join(f"{n} {end}" for end, n in sorted(counts.items())) +
                  f"; {fleet.kills} kills, {fleet.cuts} cuts")
    assert not ledger.complaints, "\n".join(ledger.complaints)
    assert len(ledger.ends) == len(sent) == FLEET_JOBS // CLIENTS * CLIENTS
    assert fleet.kills and fleet.cuts

    stats = {k.decode(): int(v) for k, v in redis.client.hgetall(f"{P}:stats").items()}
    assert {t: stats.get(t, 0) for t in TERMINAL} == {t: counts[t] for t in TERMINAL}
    assert redis.waiting() == 0
    assert [redis.client.xpending(q, "workers")["pending"] for q in QUEUES] == [0, 0, 0]
    assert redis.client.zcard(f"{P}:delayed") == 0
    assert not list(redis.client.scan_iter(f"{P}:unique:*"))
    assert not [key for key, ttl in job_keys(redis).items() if ttl == -1], "keys for ever"
    assert fleet.workers[0].process.poll() is None
    until(lambda: descriptors(spared) <= files, 10, "the descriptors of the calm")
    assert rss_kb(spared) - memory < FLEET_GROWTH_KB
    until(lambda: fleet.consumers()[1] == 0, 10 * LEASE_MS / 1000,
          "the dead to leave the groups")
    if LONG:
        time.sleep(RESULT_TTL_S)
        assert not job_keys(redis), "they should have expired"
