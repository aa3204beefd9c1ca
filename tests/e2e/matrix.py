"""The kill matrix: what can happen to a worker or its Redis, at the moments that matter, and
what must be true afterwards. Each cell has a Redis of its own and two workers: the victim,
which talks to Redis through a proxy that knows the moment, and the rescuer, which does not.
In a batch, the job is the second of two that the victim runs together.
"""
import io
import json
import signal
import threading
import time
from collections import Counter
from functools import partial

import redis as redis_py
from PIL import Image

from conftest import P, QUEUES, SLOW, TERMINAL, Redis, Worker, until
from proxy import Proxy

JOB = {"prompt": "a red circle on a blue background", "width": 64, "height": 64, "steps": 25,
       "seed": 7}
PROBE = JOB | {"steps": 1}
WATCHED = b"watched"
WATCHED_KEY = f"{P}:job:".encode() + WATCHED
MATE = "mate"
MID_STEP = 6
DRAIN_MS = 300
DURABLE = ("--appendonly", "yes", "--appendfsync", "always")
SLACK_S = 5.0  # beyond the lease, if it must run out, until the job goes on
RUN_S = 5.0    # what is left of it, where it is not started again


# --- moments ---
# Of the job whose id is WATCHED.

def is_call(name):
    return lambda script, words: script == name and WATCHED_KEY in words


def is_claim(script, words):
    return script in ("claim", "take")


def event_of(script, words):
    """The event that a call publishes; {}: none, or of another job."""
    text = next((w for w in words if w.startswith(b'{"event":')), None)
    event = json.loads(text) if script == "event" and text else {}
    return event if event.get("id") == WATCHED.decode() else {}


def is_mid_step(script, words):
    event = event_of(script, words)
    return event.get("phase") == "denoise" and event["step"] >= MID_STEP


def is_picture(script, words):
    return event_of(script, words).get("event") == "image"


def is_next_claim():
    """The first claim after the finish; one object for each cell, because it remembers."""
    is_finish, seen = is_call("finish"), []

    def wants(script, words):
        if is_finish(script, words):
            seen.append(script)
        return script == "claim" and bool(seen)
    return wants


def is_any(reply):
    return True


def is_job(reply):
    return WATCHED in reply


# name: (what the proxy waits for, the reply that is to be lost)
MOMENTS = {
    "claim unheard": (lambda: is_claim, is_job),
    "after claim": (lambda: is_call("start"), None),
    "start unheard": (lambda: is_call("start"), is_any),
    "mid-steps": (lambda: is_mid_step, None),
    "picture unheard": (lambda: is_picture, is_any),
    "before finish": (lambda: is_call("finish"), None),
    "finish unheard": (lambda: is_call("finish"), is_any),
    "after finish": (is_next_claim, None),
}
UNBOUND = ("claim unheard", "after claim", "start unheard")
FINISHED = ("finish unheard", "after finish")
MATE_ENDED = ("picture unheard", "before finish", *FINISHED)


# --- faults ---
# Each strikes while the proxy holds the victim at the moment, lets go, and returns when the
# world is whole again.

def killed(cell):
    cell.victim.signal(signal.SIGKILL)
    cell.let_go(drop=True)


def frozen(cell, wait):
    cell.victim.signal(signal.SIGSTOP)
    wait(cell)
    cell.victim.signal(signal.SIGCONT)
    cell.let_go()


def terminated(cell):
    cell.victim.signal(signal.SIGTERM)
    cell.let_go()
    assert cell.victim.wait() == 0, "the victim's exit code"


def restarted(cell):
    cell.redis.kill()
    cell.redis.start()
    cell.let_go()


def disconnected(cell):
    for number in cell.proxy.ids():
        cell.redis.client.client_kill_filter(_id=number)
    cell.let_go()


def flushed(cell):
    cell.redis.client.flushall()
    cell.let_go()


def filled(cell):
    cell.redis.client.config_set("maxmemory", 1)
    cell.let_go()
    if cell.moment != "claim unheard":  # claiming stops; what is claimed goes on
        cell.ended()
    time.sleep(1)
    cell.redis.client.config_set("maxmemory", 0)


def vanished(cell, wait):
    cell.proxy.vanish()
    cell.let_go()
    wait(cell)
    cell.proxy.heal()


def two_leases(cell):
    time.sleep(2 * cell.lease_ms / 1000)


def taken_over(cell):
    """Until the rescuer is at work on the job: the victim comes back in the middle of it."""
    if cell.unfinished:
        until(lambda: any(e["worker"] == "rescuer" for e in cell.redis.events(cell.job)),
              10 + 2 * cell.lease_ms / 1000, "the rescuer's start")


# name: (what happens, whether the victim is expected to live, whether its lease runs out)
FAULTS = {
    "SIGKILL": (killed, False, True),
    "SIGSTOP, two leases": (partial(frozen, wait=two_leases), True, True),
    "SIGSTOP, until taken over": (partial(frozen, wait=taken_over), True, True),
    "SIGTERM": (terminated, False, False),
    "Redis killed, restarted": (restarted, True, False),
    "CLIENT KILL": (disconnected, True, False),
    "FLUSHALL": (flushed, True, False),
    "maxmemory reached": (filled, True, False),
    "network gone, two leases": (partial(vanished, wait=two_leases), True, True),
    "network gone, until taken over": (partial(vanished, wait=taken_over), True, True),
}


# --- what the world heard ---

class Witness:
    """Everything said on the channel of all jobs, as far as Redis lets one listen."""

    def __init__(self, redis):
        self.client = redis_py.Redis(unix_socket_path=str(redis.socket))
        self.heard, self.over = [], False
        self.thread = threading.Thread(target=self.listen, daemon=True)
        self.thread.start()
        until(lambda: redis.client.pubsub_numsub(f"{P}:progress")[0][1], 10)

    def listen(self):
        while not self.over:
            try:
                with self.client.pubsub(ignore_subscribe_messages=True) as channel:
                    channel.subscribe(f"{P}:progress")
                    while not self.over:
                        message = channel.get_message(timeout=0.1)
                        if message:
                            self.heard.append(json.loads(message["data"]))
            except redis_py.exceptions.RedisError:
                time.sleep(0.02)

    def of(self, job):
        return [e for e in self.heard if e["id"] == job]

    def close(self):
        self.over = True
        self.thread.join()
        self.client.close()


def pixels(data):
    image = Image.open(io.BytesIO(data))
    image.load()
    assert image.format == "WEBP"
    return image.size, image.tobytes()


def alike(a, b):
    """The same to the eye."""
    off = sum(abs(x - y) for x, y in zip(a[1], b[1])) / len(a[1])
    return a[0] == b[0] and off < 2


class Cell:
    """One fault at one moment. After run(): complaints (none: it held) and recovery_s."""

    picture = None  # of JOB, the same in every cell
    picture_lock = threading.Lock()

    def __init__(self, fault, moment, in_batch, lease_ms):
        self.fault, self.moment, self.in_batch = fault, moment, in_batch
        self.lease_ms = lease_ms
        self.strike, self.survives, self.outlasts = FAULTS[fault]
        self.complaints, self.recovery_s = [], None
        self.job = WATCHED.decode()
        self.jobs = [MATE, self.job] if in_batch else [self.job]
        self.unfinished = moment not in FINISHED
        # FLUSHALL takes jobs with it, unless their worker knows that it holds them.
        self.forgotten = []
        if fault == "FLUSHALL" and moment in (*UNBOUND, "after finish"):
            self.forgotten.append(self.job)
        if fault == "FLUSHALL" and moment in MATE_ENDED:
            self.forgotten.append(MATE)

    def __str__(self):
        return f"{self.fault} / {self.moment}{' / in a batch' if self.in_batch else ''}"

    def run(self):
        from_s = time.monotonic()
        self.redis = Redis(*DURABLE)
        self.workers = []
        self.proxy = Proxy(self.redis.socket)
        try:
            self.redis.start()
            self.witness = Witness(self.redis)
            self.rescuer = self.start_worker("rescuer", self.redis.url)
            self.victim = self.start_worker("victim", self.proxy.url)
            self.happen()
            self.judge()
            self.witness.close()
        except AssertionError as e:
            self.complaints.append(str(e).partition("\n")[0])
        finally:
            self.logs = {w.name: w.log for w in self.workers}
            for worker in self.workers:
                worker.stop()
            self.proxy.close()
            self.redis.close()
        self.seconds = time.monotonic() - from_s
        return self

    def start_worker(self, name, url):
        settings = {"lease.ms": self.lease_ms, "lease.renew_ms": self.lease_ms // 4,
                    "worker.drain_ms": DRAIN_MS}
        if self.lease_ms < 10000:  # redis.timeout_ms fits the default lease
            settings["redis.timeout_ms"] = int(1000 * SLOW)
        if self.in_batch:
            settings |= {"batch.max": 2, "batch.wait_ms": 1000}
        options = [o for k, v in settings.items() for o in ("--set", f"{k}={v}")]
        worker = Worker(self.redis, "--redis", url, *options, name=name)
        worker.name = name
        self.workers.append(worker)
        worker.ready()
        until(lambda: self.redis.client.exists(f"{P}:worker:{name}"), 10, f"{name}'s beat")
        return worker

    # --- what happens ---

    def happen(self):
        # At its second claim a worker knows that nothing was left for it.
        until(lambda: self.proxy.calls["claim"] > 1, 10, "the victim's claims")
        self.freeze_rescuer()
        wants, is_reply = MOMENTS[self.moment]
        self.trap = self.proxy.set_trap(wants(), is_reply)
        for job in self.jobs:
            self.redis.submit(id=job, **JOB)
        self.trap.wait()
        self.rescuer.signal(signal.SIGCONT)
        self.struck_ms = time.time() * 1000
        self.strike(self)
        self.ended()

    def freeze_rescuer(self):
        """So that the next job is the victim's. What it asked Redis before is answered by
        then: there is nothing."""
        self.rescuer.signal(signal.SIGSTOP)
        time.sleep(0.1)

    def let_go(self, drop=False):
        self.trap.release(drop or self.trap.is_reply is not None)

    def ended(self):
        """Wait for the end of the jobs that can have one."""
        for job in self.jobs:
            if job not in self.forgotten:
                self.redis.end(job, 30 + 2 * self.lease_ms / 1000)

    # --- what must be true ---

    def expect(self, true, complaint):
        if not true:
            self.complaints.append(complaint)

    def judge(self):
        if self.survives:
            self.freeze_rescuer()
            self.serves(self.victim)
            self.rescuer.signal(signal.SIGCONT)
        else:
            self.serves(self.rescuer)
        for worker in self.workers:
            alive = worker.process.poll() is None
            self.expect(alive == (self.survives or worker is self.rescuer),
                        f"{worker.name} {'lives' if alive else 'died'}")
        for job in self.jobs:
            if job in self.forgotten:
                self.judge_forgotten(job)
            else:
                self.judge_events(job)
                self.judge_picture(job)
        if self.job not in self.forgotten:
            self.judge_recovery()
        self.judge_queue()

    def serves(self, worker):
        """It takes the next job as if nothing had happened."""
        probe = self.redis.submit(**PROBE)
        end = self.redis.end(probe, 30)
        self.expect((end["event"], end["worker"]) == ("succeeded", worker.name),
                    f"the next job: {end['event']} by {end['worker']}")

    def judge_forgotten(self, job):
        # In a batch it is a matter of moments whether the worker had it before the flood.
        if self.in_batch and self.redis.client.exists(f"{P}:job:{job}"):
            self.judge_events(job)
            self.judge_picture(job)
            return
        left = [k.decode() for k in self.redis.client.scan_iter(f"{P}:*:{job}*")]
        self.expect(not left, f"left of a job that is gone: {left}")

    def judge_events(self, job):
        events = self.redis.events(job)
        types = [e["event"] for e in events]
        ends = [t for t in types if t in TERMINAL]
        self.expect(ends == ["succeeded"], f"ends: {ends}")
        self.expect(types[-1:] == ends[-1:], f"after the end: {types}")
        seqs = [e["seq"] for e in events]
        self.expect(seqs == sorted(set(seqs)), f"sequence numbers: {seqs}")
        for before, event in zip(events, events[1:]):
            self.expect(event["event"] == "started" or event["worker"] == before["worker"],
                        f"{event['event']} of {event['worker']}, who does not have the job")
        pictures = Counter((e["worker"], e["index"]) for e in events if e["event"] == "image")
        self.expect(all(n == 1 for n in pictures.values()), f"pictures: {pictures}")
        # Redis forgot the first end; that it was heard once cannot be undone.
        flushed_end = self.fault == "FLUSHALL" and not self.unfinished
        heard = [e["event"] for e in self.witness.of(job)]
        heard_ends = [t for t in heard if t in TERMINAL]
        self.expect(len(heard_ends) <= 1 + flushed_end, f"ends heard: {heard_ends}")
        self.expect(not heard_ends or heard[-1] in TERMINAL, f"heard after the end: {heard}")

    def judge_recovery(self):
        """From the fault to the next start, or to the end when it needed none."""
        events = self.redis.events(self.job)
        again = [e for e in events if e["event"] == "started"
                 and e["ts_ms"] >= self.struck_ms]
        self.recovery_s = max(0, ((again or events[-1:])[0]["ts_ms"] - self.struck_ms) / 1000)
        limit_s = SLACK_S + (self.lease_ms / 1000 if self.outlasts else RUN_S)
        limit_s += RUN_S if self.in_batch else 0  # the other one's turn
        self.expect(self.recovery_s <= limit_s * SLOW,
                    f"recovered after {self.recovery_s:.1f} s, limit {limit_s:.0f} s")
        # In a batch it also depends on who is faster, the rescuer with the other job or the
        # victim in coming back.
        crashes = int(self.redis.client.hget(f"{P}:job:{self.job}", "crashes") or 0)
        self.expect(crashes == (self.outlasts and self.unfinished) or
                    self.in_batch and crashes < 2, f"crashes: {crashes}")

    def judge_picture(self, job):
        data = self.redis.result(job)
        self.expect(data is not None, "no picture")
        if data is None:
            return
        picture = pixels(data)
        with Cell.picture_lock:
            Cell.picture = Cell.picture or picture
        # Another size of batch may take another GEMM, which rounds otherwise.
        same = alike(picture, Cell.picture) if self.in_batch else picture == Cell.picture
        self.expect(same, "another picture than without the fault")

    def judge_queue(self):
        client = self.redis.client
        self.expect(self.redis.waiting() == 0, f"{self.redis.waiting()} entries are left")
        self.expect(client.zcard(f"{P}:delayed") == 0, "delayed entries are left")
        pending = [client.xpending(q, "workers")["pending"] for q in QUEUES]
        self.expect(not any(pending), f"pending entries: {pending}")
        self.expect(not client.exists(f"{P}:dead"), "a dead letter")
        for job in self.jobs:
            state = client.hget(f"{P}:job:{job}", "state")
            wanted = None if job in self.forgotten else b"succeeded"
            self.expect(state == wanted, f"{job}: state {state}")
            for key in client.scan_iter(f"{P}:*:{job}*"):
                self.expect(client.ttl(key) > 0, f"{key.decode()} has no TTL")


# --- the report ---

def table(cells, title):
    """A matrix as a table of recovery times, and what went wrong below it."""
    found = {(c.fault, c.moment): c for c in cells}

    def show(fault, moment):
        cell = found[fault, moment]
        if cell.complaints:
            return "FAILED"
        return "–" if cell.recovery_s is None else f"{cell.recovery_s:.1f}"

    lines = [title, "", "| fault | " + " | ".join(MOMENTS) + " |",
             "|---" * (1 + len(MOMENTS)) + "|"]
    for fault in FAULTS:
        lines.append(f"| {fault} | " + " | ".join(show(fault, m) for m in MOMENTS) + " |")
    lines += ["", f"{sum(not c.complaints for c in cells)} of {len(cells)} cells hold."]
    lines += [f"- {c}: {'; '.join(c.complaints)}" for c in cells if c.complaints]
    return "\n".join(lines) + "\n"
