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

SECONDS = float(os.environ.get("DARKROOM_CHAOS", "6"))
PROCESSES = len(os.sched_getaffinity(0)) if "DARKROOM_CHAOS" in os.environ else 1
SEED = os.environ.get("DARKROOM_SEED")
FOLDER = Path(os.environ["DARKROOM_LUA"]) if "DARKROOM_LUA" in os.environ else None


@pytest.fixture
def server():
    redis = Redis().start()
    yield model.Server(redis.client, FOLDER)
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
        server = model.Server(redis.client, FOLDER)
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
    for c, stream in enumerate(model.STREAMS):
        for _ in range(40):
            fields = {"prompt": "p", "id": f"{c}{len(all_of.entries)}"}
            entry = server("XADD", stream, "*", *sum(fields.items(), ()))
            all_of.accept((c, entry), fields["id"], fields)
    all_of.see(server.look())
    turns = []
    for _ in range(36):
        worker = model.Worker("w", 0, own="none")
        turns.append(all_of.claim(worker, expired=False).at[0])
    for i in range(len(turns) - 12):
        assert [turns[i:i + 12].count(c) for c in range(3)] == model.WEIGHTS
