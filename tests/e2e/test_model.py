"""The Lua scripts against a model of the queue (model.py), in random order: workers that
crash, freeze and hear no reply, clients that send twice, a Redis without memory or data.

    DARKROOM_CHAOS=600 pytest tests/e2e/test_model.py    ten minutes of it, on all cores
    DARKROOM_SEED=17 pytest tests/e2e/test_model.py      one sequence again
    DARKROOM_LUA=dir                                     other scripts than src/queue/lua
"""
import multiprocessing
import os
import time
from pathlib import Path

import pytest

import model
from conftest import Redis
from model_redis import STREAMS, WEIGHTS, Server
from model_state import Worker

SECONDS = float(os.environ.get("DARKROOM_CHAOS", "6"))
PROCESSES = len(os.sched_getaffinity(0)) if "DARKROOM_CHAOS" in os.environ else 1
SEED = os.environ.get("DARKROOM_SEED")
FOLDER = Path(os.environ["DARKROOM_LUA"]) if "DARKROOM_LUA" in os.environ else None


@pytest.fixture
def server():
    redis = Redis().start()
    yield Server(redis.client, FOLDER)
    redis.close()


def explain(seed, found, message):
    """What a failing test prints."""
    operations, message, trace = found or ([], message + " (not seen again)", [])
    return (f"\nDARKROOM_SEED={seed}: {message}\n{len(operations)} operations:\n  " +
            "\n  ".join(trace))


def check(server, seed):
    """None, or what went wrong in the sequence of this seed."""
    operations = model.draw(seed)
    bad = model.failure(server, operations)
    return bad and explain(seed, model.shortest(server, operations), bad[0])


def check_many(number, end, first, answers):
    """One process: every PROCESSES-th seed until the end or a failure."""
    redis = Redis().start()
    try:
        server = Server(redis.client, FOLDER)
        seed, bad = first + number, None
        while time.monotonic() < end and not bad:
            bad = check(server, seed)
            seed += PROCESSES
        answers.put(((seed - first) // PROCESSES, bad))
    finally:
        redis.close()


def test_random_operations(server, capsys):
    if SEED is not None:
        bad = check(server, int(SEED))
        assert not bad, bad
        return
    context = multiprocessing.get_context("fork")
    answers = context.Queue()
    first = int(time.time() * 1000) % 10**9 if PROCESSES > 1 else 0
    end = time.monotonic() + SECONDS
    children = [context.Process(target=check_many, args=(i, end, first, answers))
                for i in range(PROCESSES)]
    for child in children:
        child.start()
    found = [answers.get(timeout=SECONDS + 60) for _ in children]
    for child in children:
        child.join()
    with capsys.disabled():
        print(f" {sum(n for n, _ in found)} sequences", end="")
    bad = [text for _, text in found if text]
    assert not bad, "\n".join(bad)


def test_turns_follow_the_weights(server):
    """With all classes full, each has its share of any 12 claims in a row."""
    all_of = model.Model(server)
    for c, stream in enumerate(STREAMS):
        for _ in range(40):
            fields = {"prompt": "p", "id": f"{c}{len(all_of.entries)}"}
            entry = server("XADD", stream, "*", *sum(fields.items(), ()))
            all_of.accept((c, entry), fields["id"], fields)
    all_of.see(server.look())
    turns = []
    for _ in range(36):
        worker = Worker("w", 0, own="none")
        turns.append(all_of.claim(worker, expired=False).at[0])
    for i in range(len(turns) - 12):
        assert [turns[i:i + 12].count(c) for c in range(3)] == WEIGHTS


def running(server):
    """A model with one job, and the worker and slot that it runs in."""
    all_of = model.Model(server)
    all_of.do_submit(1, 1, 1, 1)
    worker = all_of.workers[0]
    return all_of, worker, start(all_of, worker)


def start(all_of, worker):
    slot = all_of.claim(worker, expired=False)
    assert all_of.ask(worker, slot, "start", {})[0] == "run"
    return slot


def say(all_of, worker, slot, verb):
    """The answer to one call about a held job."""
    details = {"renew": {}, "release": {}, "retry": all_of.retry_of(slot, 1),
               "event": all_of.event_of(slot, 0, 1), "finish": all_of.finish_of(slot, 0, 1)}
    return all_of.ask(worker, slot, verb, details[verb] | {"stubborn": 1})


def test_work_goes_on_when_its_claim_is_lost(server):
    all_of, worker, slot = running(server)
    all_of.do_delconsumer(0, 0, 0, 0)
    assert say(all_of, worker, slot, "renew") == "gone"
    assert say(all_of, worker, slot, "event") == "ok"
    assert say(all_of, worker, slot, "finish") == "ok"
    assert not any(all_of.now.entries)


def test_work_is_stored_when_everything_is_lost(server):
    all_of, worker, slot = running(server)
    all_of.do_flushall(0, 0, 0, 0)
    all_of.make_groups()
    assert say(all_of, worker, slot, "renew") == "gone"
    assert say(all_of, worker, slot, "event") == "gone"
    assert say(all_of, worker, slot, "finish") == "ok"
    assert all_of.now.results == {f"{slot.id}:0": all_of.picture(slot, 0)}


def test_two_workers_with_one_fence(server):
    """P:fence was deleted and begins again."""
    all_of, old, old_slot = running(server)
    server("DEL", all_of.key("fence"))
    all_of.fence, all_of.weak = 0, True
    new = all_of.workers[1]
    slot = all_of.claim(new, expired=True)
    assert slot.fence == old_slot.fence
    assert say(all_of, old, old_slot, "retry") == "lost"
    assert all_of.ask(new, slot, "start", {})[0] == "run"
    for verb in ("renew", "event", "retry", "release"):
        assert say(all_of, old, old_slot, verb) == "lost", verb
    assert say(all_of, old, old_slot, "finish") == "stale"
    assert say(all_of, new, slot, "finish") == "ok"


def test_two_processes_of_one_name(server):
    """What the first one sent last arrives when the second one is at work."""
    all_of, old, old_slot = running(server)
    new = Worker(old.name, 99)
    slot = all_of.claim(new, expired=False)
    assert slot.at == old_slot.at and slot.crashes == 1
    assert all_of.ask(new, slot, "start", {})[0] == "run"
    for verb in ("renew", "event", "retry", "release"):
        assert say(all_of, old, old_slot, verb) == "lost", verb
    assert say(all_of, old, old_slot, "finish") == "stale"
    assert say(all_of, new, slot, "finish") == "ok"


def test_a_paused_job_is_not_started_again(server):
    all_of, worker, slot = running(server)
    all_of.do_pause(slot.at[0], 0, 0, 0)
    assert say(all_of, worker, slot, "renew") == "ok"
    for name in (worker.name, "other"):
        assert not all_of.claim(Worker(name, 99), expired=True)
    all_of.do_resume(slot.at[0], 0, 0, 0)
    assert all_of.claim(Worker(worker.name, 99), expired=False).at == slot.at


def test_a_second_entry_of_a_running_job_is_handed_back(server):
    all_of = model.Model(server)
    for _ in range(2):
        entry = server("XADD", STREAMS[1], "*", "prompt", "p", "id", "j")
        all_of.accept((1, entry), "j", {"prompt": "p", "id": "j"})
    all_of.see(server.look())
    first, second = all_of.workers[:2]
    slots = [all_of.claim(w, expired=False) for w in (first, second)]
    assert all_of.ask(second, slots[1], "start", {})[0] == "run"
    assert say(all_of, first, slots[0], "release") == "ok"
    all_of.drain()


def test_operators_with_an_old_view(server):
    """What they looked at has changed when they act."""
    all_of = model.Model(server)
    all_of.do_submit(1, 1, 1, 1)
    all_of.olds = [all_of.now] * len(all_of.olds)

    def cancel():
        """As if the first job were waiting and had no events yet."""
        all_of.do_cancel(1, 0, 0, 1)
        all_of.invariants()
        assert all_of.lives["j1"].ended is None

    def die(worker, slot):
        details = all_of.finish_of(slot, 0, 0)
        assert all_of.ask(worker, slot, "finish", details) == "ok" and details["dead"]

    worker = all_of.workers[0]
    slot = start(all_of, worker)
    assert say(all_of, worker, slot, "event") == "ok"
    assert say(all_of, worker, slot, "release") == "ok"
    cancel()
    die(worker, start(all_of, worker))
    all_of.do_dead_retry(0, 0, 0, 1)
    cancel()
    die(worker, start(all_of, worker))
    all_of.do_expire(0, 0, 0, 0)
    all_of.do_submit(96, 1, 1, 1)
    all_of.do_dead_retry(0, 0, 0, 1)
    assert "busy" in all_of.trace[-1]
    say(all_of, worker, start(all_of, worker), "finish")
    all_of.do_submit(7, 1, 1, 1)
    all_of.do_dead_retry(0, 0, 0, 1)
    assert "duplicate" in all_of.trace[-1]
    all_of.drain()
