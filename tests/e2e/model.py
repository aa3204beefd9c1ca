"""A model of the queue for random checks of its Lua scripts, without any worker: clients,
workers and operators as Python objects that call the scripts, and after each call a look at
all of Redis from outside. What must hold is said in Model.invariants; what a call may answer
in the methods that make it (model_clients.py, model_takers.py, model_holders.py).

An operation is a kind and four numbers, which choose among what there is when it runs. So
operations can be left out of a sequence and the rest still makes sense: see shortest().
"""
import random
import time
import traceback

import redis as redis_py

from conftest import P, TERMINAL
from model_clients import Clients
from model_holders import Holders
from model_redis import BOUNDED, CLASSES, GROUP, NEED_MEMORY, STREAMS, Broken, expect
from model_state import Worker
from model_takers import Takers

# How often each kind of operation is drawn.
KINDS = {"xadd": 10, "burst": 1, "submit": 8, "claim": 26, "take": 6, "start": 22, "renew": 6,
         "event": 9, "retry": 6, "release": 5, "finish": 14, "cancel": 5, "dead_retry": 3,
         "pause": 1, "resume": 2, "janitor": 2, "beat": 1, "bye": 1, "crash": 3, "zombie": 6,
         "expire": 2, "oom": 1, "nap": 3}
DAMAGE = {"flushall": 1, "delete": 3, "delconsumer": 2}
# One of n jobs or calls; each sequence has its own choice.
RATES = {"known": (6, 2, 12), "delay": (5, 2, 99), "ttl": (11, 4, 99), "unique": (7, 2, 99),
         "lost": (8, 3, 99)}


def draw(seed, length=60):
    """The operations of a sequence. Each has other kinds more and less often, so that rare
    ones come together; one in ten has its data damaged."""
    rng = random.Random(seed)
    kinds = {kind: n * rng.choice([0.3, 1, 1, 3]) for kind, n in KINDS.items()}
    if rng.random() < 0.1:
        kinds |= DAMAGE
    names = rng.choices(list(kinds), kinds.values(), k=length)
    return [(name, *(rng.getrandbits(16) for _ in range(4))) for name in ["rates", *names]]


class Model(Clients, Takers, Holders):
    def __init__(self, server):
        self.server = server
        self.trace = []
        for words in [("FLUSHALL",), ("CONFIG", "SET", "maxmemory", 0)]:
            server(*words)
        self.make_groups()
        self.entries, self.lives, self.marks = {}, {}, set()
        self.workers = [Worker(f"w{i}", i) for i in range(3)]
        self.zombies = []
        self.processes, self.next_id = len(self.workers), 0
        self.fence, self.oom = 0, False
        self.weak, self.tainted, self.orphans = False, set(), False
        self.counts = dict.fromkeys([*TERMINAL, "retried", "released", "poison"], 0)
        self.dead = {}
        self.rates = {name: values[0] for name, values in RATES.items()}
        self.see(server.look())
        self.olds = [self.now] * 12

    def make_groups(self):
        for stream in STREAMS:
            self.server("XGROUP", "CREATE", stream, GROUP, "0", "MKSTREAM")

    def see(self, look):
        self.now = look

    def say(self, *what):
        self.trace.append(" ".join(str(w) for w in what))

    def run(self, operations):
        for kind, *numbers in operations:
            self.olds = [*self.olds[1:], self.now]
            getattr(self, f"do_{kind}")(*numbers)
            self.invariants()
        self.drain()

    def do_rates(self, *numbers):
        bits = sum(n << 16 * i for i, n in enumerate(numbers))
        for name, values in RATES.items():
            self.rates[name] = values[bits % len(values)]
            bits //= len(values)

    def one_in(self, name, n):
        return n % self.rates[name] == 0

    def key(self, *parts):
        return ":".join([P, *map(str, parts)])

    def channels(self, id):
        return [self.key("progress", id), self.key("progress")]

    # --- calls ---

    def call(self, name, keys, args):
        """Run a script; (answer, Redis before, Redis behind it)."""
        before = self.now
        answer, after = self.server.script(name, keys, args)
        full = isinstance(answer, redis_py.exceptions.OutOfMemoryError)
        expect(full == (self.oom and name in NEED_MEMORY), name, "when memory is",
               "full:" if self.oom else "free:", answer)
        if isinstance(answer, Exception):
            expect(full or self.weak and
                   any(t in str(answer) for t in ("NOGROUP", "no such key")),
                   name, "failed:", answer)
            expect(after.core() == before.core() or name == "janitor", name,
                   "failed and changed something")
            if not full:
                self.make_groups()
                after = self.server.look()
            answer = None
        self.see(after)
        return answer, before, after

    def twice(self, name, keys, args, allowed):
        """A client's call whose first reply is lost: the second changes nothing."""
        first, _, behind = self.call(name, keys, args)
        if first is None:
            return None
        second, _, after = self.call(name, keys, args)
        expect(second is not None and allowed(first, second), name, "answered", first, "then",
               second)
        expect(after.core() == behind.core(), name, "changed something when repeated")
        return first

    def word(self, answer):
        return answer[0] if isinstance(answer, list) else answer

    # --- what must hold ---

    def invariants(self):
        look = self.now
        for name, ttl in look.ttl.items():
            expect(ttl != -1 or name in BOUNDED, "a key without a TTL:", name)
        self.places(look)
        for id, job in look.jobs.items():
            if id not in self.tainted and not self.weak:
                self.state_agrees(look, id, job)
        for id, events in look.events.items():
            if id not in self.tainted:
                self.events_agree(look, id, events)
        for id, life in self.lives.items():
            if id in self.tainted:
                continue
            if life.ended:
                expect(look.job(id).get("state") == life.ended, id, "ended", life.ended,
                       "but is", look.job(id))
            else:
                expect(any(rec.id == id for rec in self.entries.values()), id, "is lost")
                expect(self.weak or not life.asked or look.job(id).get("cancel") == "1",
                       id, "was canceled, and that was forgotten")
                expect(self.weak or not life.key or look.unique.get(life.key) == id, id,
                       "has no longer the key", life.key)
        if not self.weak:
            for key, id in look.unique.items():
                expect(id in self.lives and not self.lives[id].ended, "key", key,
                       "is held by", id)
            for name, n in self.counts.items():
                expect(look.stats.get(name, 0) == n, "stats:", name, look.stats.get(name),
                       "true:", n)
            expect(set(look.dead) == set(self.dead), "dead letters", set(look.dead))

    def places(self, look):
        """Each entry is in one place, and that is where it is believed to be."""
        for c, name in enumerate(CLASSES):
            unread = set(look.unread(c))
            for entry in look.entries[c]:
                at = (c, entry)
                expect(at in self.entries, "an entry that should be gone:", at)
                due, held = look.due(at) is not None, entry in look.pending[c]
                expect(not (due and held) or self.weak, at, "is delayed and pending")
                expect(due or held or entry in unread or self.orphans, at,
                       "is read, not pending, not delayed: lost")
            if self.weak:
                continue
            for entry, (who, _, _) in look.pending[c].items():
                rec = self.entries.get((c, entry))
                expect(rec, "pending, but gone:", name, entry)
                expect(rec.holder[0] == who if rec.holder else look.released((c, entry)),
                       "pending for", who, "but held by", rec.holder)
        for at, rec in self.entries.items():
            expect(at[1] in look.entries[at[0]], "the entry of", rec.id, "is gone:", at)
            expect(not rec.holder or look.held(at) or self.weak, rec.id, "is not pending")
        for member in look.delayed if not self.weak else ():
            name, _, entry = member.partition(":")
            expect((CLASSES.index(name), entry) in self.entries, "delayed, but gone:", member)

    def state_agrees(self, look, id, job):
        state = job.get("state")
        if state is None:
            return expect(set(job) == {"cancel"}, "a hash without a state:", id, job)
        at = (STREAMS.index(job["stream"]), job["entry"])
        rec = self.entries.get(at)
        if state in TERMINAL:
            return expect(self.lives[id].ended == state and not rec, id, "is", state)
        expect(rec and rec.id == id and not self.lives[id].ended, id, "is", state, "but at",
               at, "is", rec)
        held, due = look.held(at), look.due(at)
        if state == "running":
            expect(held, id, "is running, but not pending")
            expect(str(rec.bound) == job["fence"], id, "is bound to", job["fence"], "not",
                   rec.bound)
        elif state == "delayed":
            expect(held or due is not None, id, "is delayed, but nowhere")
            expect(due is None or str(int(due)) == job["due_ms"], id, "is due at", due)
        elif state == "queued":
            expect(due is None, id, "is queued, but delayed")
        else:
            expect(False, id, "has the state", state)
        return None

    def events_agree(self, look, id, events):
        ends = [e["event"] for e in events if e["event"] in TERMINAL]
        life = self.lives.get(id)
        expect(life, "events of a job that nobody sent:", id)
        expect(ends == ([life.ended] if life.ended else []), id, "has ended as", ends,
               "true:", life.ended)
        expect(not ends or events[-1]["event"] in TERMINAL, id, "has events after its end")
        numbers = [e["seq"] for e in events]
        expect(all(x < y for x, y in zip(numbers, numbers[1:])), id, "events out of order:",
               numbers)

    # --- the end ---

    def drain(self):
        """One good worker does all that is left."""
        self.say("--- drain")
        if self.oom:
            self.set_oom(False)
        self.server("DEL", self.key("paused"))
        self.processes += 1
        worker = Worker(f"w{self.processes}", self.processes)
        self.workers = [worker]
        self.see(self.server.look())
        for _ in range(400):
            slot = self.claim(worker, expired=True)
            if slot:
                self.ask(worker, slot, "start", {})
                self.invariants()
            if slot in worker.slots:
                self.ask(worker, slot, "finish", self.finish_of(slot, 0, 1))
                self.invariants()
                expect(slot not in worker.slots, "the job of a good worker did not end")
            elif not slot and not any(self.now.entries):
                break
            if self.weak:
                self.do_janitor(0, 0, 2, 0)
        expect(not any(self.now.entries) and not self.entries, "left in the streams:",
               self.now.entries, self.entries)
        for id, life in self.lives.items():
            expect(life.ended or id in self.tainted, id, "has not ended")
        if not self.weak:
            expect(not any(self.now.pending) and not self.now.delayed and
                   not self.now.unique, "left behind:", self.now.pending, self.now.delayed,
                   self.now.unique)


# --- failing sequences ---

def failure(server, operations):
    """(message, trace) of a run, or None when all is well."""
    model = Model(server)
    try:
        model.run(operations)
    except Broken as error:
        return str(error), model.trace
    except Exception:  # of the model itself
        return traceback.format_exc(), model.trace
    return None


def shortest(server, operations, seconds=20.0):
    """Leave operations out as long as it still fails: (operations, message, trace)."""
    end = time.monotonic() + seconds
    found = None

    def fails(shorter):
        nonlocal found
        for _ in range(3):  # clocks make some failures rare
            if time.monotonic() < end and (bad := failure(server, shorter)):
                found = (shorter, *bad)
                return True
        return False

    fails(operations)
    size = max(1, len(operations) // 2)
    while size and time.monotonic() < end:
        at = 0
        while at < len(operations):
            shorter = operations[:at] + operations[at + size:]
            if fails(shorter):
                operations = shorter
            else:
                at += size
        size //= 2
    return found
