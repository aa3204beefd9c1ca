"""A model of the queue for random checks of its Lua scripts, without any worker: clients,
workers and operators as Python objects that call the scripts, and after each call a look at
all of Redis from outside. What must hold is said in Model.invariants; what a call may answer
in the methods that make it.

An operation is a kind and four numbers, which choose among what there is when it runs. So
operations can be left out of a sequence and the rest still makes sense: see shortest().
"""
import json
import random
import time
import traceback
from dataclasses import dataclass, field

import redis as redis_py

from conftest import P, ROOT, TERMINAL

CLASSES = ["high", "normal", "low"]
STREAMS = [f"{P}:q:{c}" for c in CLASSES]
GROUP = "workers"
WEIGHTS = [8, 3, 1]
TTL_S = 3600
MAXLEN = 256
RELEASED_MS = 2592000000 // 2  # idle for so long: handed back
SLOTS = 3
IMAGES = 2
# Keys without a TTL: bounded by the jobs and workers there are, or by a MAXLEN.
BOUNDED = {"q:high", "q:normal", "q:low", "fence", "delayed", "dead", "paused", "workers",
           "stats"}
REFUSALS = {"lost", "stale", "already"}

LOOK = """
local function fields(flat)
    local at = {}
    for i = 1, #flat, 2 do at[flat[i]] = flat[i + 1] end
    return at
end
local P, out = ARGV[1], { ttl = {}, keys = {}, groups = {} }
local time = redis.call('TIME')
out.now = time[1] * 1000 + math.floor(time[2] / 1000)
for _, key in ipairs(redis.call('KEYS', P .. ':*')) do
    local name, kind = string.sub(key, #P + 2), redis.call('TYPE', key).ok
    out.ttl[name] = redis.call('PTTL', key)
    if kind == 'hash' then out.keys[name] = redis.call('HGETALL', key)
    elseif kind == 'string' then out.keys[name] = redis.call('GET', key)
    elseif kind == 'set' then out.keys[name] = redis.call('SMEMBERS', key)
    elseif kind == 'zset' then out.keys[name] = redis.call('ZRANGE', key, 0, -1, 'WITHSCORES')
    else
        out.keys[name] = redis.call('XRANGE', key, '-', '+')
        if string.sub(name, 1, 2) == 'q:' then
            local all = fields(redis.call('XINFO', 'STREAM', key, 'FULL', 'COUNT', 0))
            local group = fields(all.groups[1] or {})
            out.groups[name] = { group['last-delivered-id'] or '0-0', group.pending or {} }
        end
    end
end
return cjson.encode(out)
"""


class Broken(AssertionError):
    """The model and Redis do not agree."""


def expect(condition, *what):
    if not condition:
        raise Broken(" ".join(str(w) for w in what))


def pairs(flat):
    return dict(zip(flat[::2], flat[1::2]))


def id_of(at, fields):
    """A job's own id, or the one that dr_entry_job_id makes."""
    return fields.get("id", at[1] if at[0] == 1 else f"{CLASSES[at[0]]}.{at[1]}")


def number(entry):
    return tuple(int(n) for n in entry.split("-"))


# --- Redis ---

class Server:
    """A connection that runs scripts and looks at everything behind each in one go."""

    def __init__(self, client, folder=None):
        self.connection = client.connection_pool.get_connection()
        self.sha = {}
        self.folder = folder or ROOT / "src/queue/lua"
        prelude = (self.folder / "prelude.lua").read_text()
        for path in self.folder.glob("*.lua"):
            if path.name != "prelude.lua":
                head, rest = path.read_text().split("\n", 1)
                self.sha[path.stem] = self("SCRIPT", "LOAD", f"{head}\n{prelude}\n{rest}")
        self.look_sha = self("SCRIPT", "LOAD", LOOK)

    def read(self):
        """An answer; one of Redis' errors is an answer too."""
        try:
            return text_of(self.connection.read_response())
        except redis_py.exceptions.ResponseError as error:
            return error

    def __call__(self, *words):
        self.connection.send_command(*words)
        return self.read()

    def look(self):
        return Look(json.loads(self("EVALSHA", self.look_sha, 0, P)))

    def script(self, name, keys, args):
        """The answer and what Redis is like behind it."""
        c = self.connection
        c.send_packed_command(c.pack_commands([
            ("EVALSHA", self.sha[name], len(keys), *keys, *args),
            ("EVALSHA", self.look_sha, 0, P)]))
        answer = self.read()
        return answer, Look(json.loads(self.read()))


def text_of(reply):
    if isinstance(reply, bytes):
        return reply.decode()
    return [text_of(r) for r in reply] if isinstance(reply, list) else reply


class Look:
    """All of Redis at one moment. entries, pending, last: by class."""

    def __init__(self, raw):
        self.now, self.ttl = raw["now"], raw["ttl"] or {}
        keys = raw["keys"] or {}
        self.entries, self.pending, self.last = [], [], []
        for name in CLASSES:
            group = (raw["groups"] or {}).get(f"q:{name}", ["0-0", []])
            rows = keys.pop(f"q:{name}", [])
            self.entries.append({r[0]: pairs(r[1]) for r in rows})
            self.last.append(group[0])
            self.pending.append({p[0]: (p[1], self.now - p[2], p[3]) for p in group[1]})
        self.delayed = {m: float(s) for m, s in pairs(keys.pop("delayed", [])).items()}
        self.stats = {k: int(v) for k, v in pairs(keys.pop("stats", [])).items()}
        self.paused = set(keys.pop("paused", []))
        self.dead = {r[0]: pairs(r[1]) for r in keys.pop("dead", [])}
        self.fence = keys.pop("fence", "0")
        keys.pop("workers", None)
        self.jobs, self.events, self.results, self.unique = {}, {}, {}, {}
        for name, value in keys.items():
            kind, _, rest = name.partition(":")
            if kind == "job":
                self.jobs[rest] = pairs(value)
            elif kind == "events":
                self.events[rest] = [json.loads(r[1][1]) for r in value]
            elif kind == "result":
                self.results[rest] = value
            elif kind == "unique":
                self.unique[rest] = value
            else:
                expect(kind == "worker", "a key that nobody knows:", name)

    def job(self, id):
        return self.jobs.get(id, {})

    def held(self, at):
        """(worker, idle ms, deliveries) of a pending entry, or None."""
        return self.pending[at[0]].get(at[1])

    def released(self, at):
        held = self.held(at)
        return bool(held) and held[1] >= RELEASED_MS

    def due(self, at):
        return self.delayed.get(f"{CLASSES[at[0]]}:{at[1]}")

    def unread(self, c):
        """Entries of a class that nobody has had, oldest first."""
        last = number(self.last[c])
        return [e for e in self.entries[c] if number(e) > last and
                e not in self.pending[c] and self.due((c, e)) is None]

    def core(self):
        """What a refused or repeated call must not change: all but clocks and counters."""
        pending = [{e: (w, idle >= RELEASED_MS, n) for e, (w, idle, n) in p.items()}
                   for p in self.pending]
        return (self.entries, pending, self.delayed, self.jobs, self.events, self.results,
                self.unique, self.dead, self.paused, self.fence)

    def around(self, at, id, key):
        """The part of core() that one job's entry is concerned with."""
        held = self.held(at)
        return (at[1] in self.entries[at[0]], held and (held[0], self.released(at), held[2]),
                self.due(at), self.jobs.get(id), self.events.get(id),
                {k: v for k, v in self.results.items() if k.startswith(f"{id}:")},
                self.unique.get(key))


# --- what is believed ---

@dataclass
class Entry:
    """An accepted entry, as it really is. holder: (worker, process, fence)."""
    id: str
    fields: dict
    holder: tuple = None
    bound: int = None      # fence of the last start
    crashes: int = 0
    put_off: bool = False  # by its own delay_ms


@dataclass
class Life:
    """A job's life, from its first entry to its end."""
    ended: str = None
    asked: bool = False  # to be canceled, in its hash
    starts: int = 0


@dataclass
class Slot:
    """A job that a worker believes to hold."""
    at: tuple
    fence: int
    fields: dict
    id: str
    crashes: int
    word: str = None     # of start.lua
    seq: int = 0
    seed: str = ""
    attempt: int = 0
    again: tuple = None  # a call without a reply: (verb, details, answer, around)

    def where(self):
        return self.at, self.id, self.fields.get("unique")


@dataclass
class Worker:
    name: str
    process: int
    own: str = "left"
    slots: list = field(default_factory=list)
    tidy: list = field(default_factory=lambda: ["-"] * 3)


KINDS = {"xadd": 10, "burst": 1, "submit": 8, "claim": 26, "take": 6, "start": 22, "renew": 6, "event": 9,
         "retry": 5, "release": 5, "finish": 14, "cancel": 5, "dead_retry": 3, "pause": 1,
         "resume": 2, "janitor": 2, "beat": 1, "bye": 1, "crash": 3, "zombie": 5, "oom": 1,
         "nap": 3}
DAMAGE = {"flushall": 1, "delete": 3, "delconsumer": 2}


def draw(seed, length=60):
    """The operations of a sequence; one in ten has its data damaged."""
    rng = random.Random(seed)
    kinds = dict(KINDS)
    if rng.random() < 0.1:
        kinds |= DAMAGE
    names = rng.choices(list(kinds), kinds.values(), k=length)
    return [(name, *(rng.getrandbits(16) for _ in range(4))) for name in names]


class Model:
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
        self.see(server.look())
        self.olds = [self.now] * 4

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

    def key(self, *parts):
        return ":".join([P, *map(str, parts)])

    def channels(self, id):
        return [self.key("progress", id), self.key("progress")]

    # --- calls ---

    def call(self, name, keys, args):
        """Run a script; (answer, Redis before, Redis behind it)."""
        before = self.now
        answer, after = self.server.script(name, keys, args)
        if isinstance(answer, Exception):
            full = isinstance(answer, redis_py.exceptions.OutOfMemoryError)
            expect(self.oom if full else self.weak and
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

    # --- clients ---

    def fields_of(self, a, b, id):
        fields = {"prompt": f"p{a % 97}"}
        if id:
            fields["id"] = id
        if b % 5 == 0:
            fields["delay_ms"] = str(1 + b // 5 % 3)
        if b % 11 == 0:
            fields["ttl_ms"] = "1" if b // 11 % 2 else "100000"
        if b % 7 == 0:
            fields["unique"] = f"u{b // 7 % 2}"
        return fields

    def choose_id(self, a):
        """Mostly a new one; sometimes one that is known."""
        known = sorted(self.lives)
        if a % 6 == 0 and known:
            return known[a // 6 % len(known)]
        self.next_id += 1
        return f"j{self.next_id}"

    def accept(self, at, id, fields):
        self.entries[at] = Entry(id, fields)
        life = self.lives.setdefault(id, Life())
        if id in self.marks:
            life.asked = True
            self.marks.discard(id)

    def do_xadd(self, a, b, c, d):
        id = None if a % 7 == 3 else self.choose_id(a)
        fields = self.fields_of(a, b, id)
        answer = self.server("XADD", STREAMS[c % 3], "*", *sum(fields.items(), ()))
        self.say("xadd", CLASSES[c % 3], fields, "->", answer)
        self.see(self.server.look())
        if isinstance(answer, Exception):
            expect(self.oom or self.weak, "XADD:", answer)
            return
        self.accept((c % 3, answer), id_of((c % 3, answer), fields), fields)

    def do_burst(self, a, b, c, d):
        """Jobs of all classes at once, without ids: their entries have the same."""
        connection = self.server.connection
        connection.send_packed_command(connection.pack_commands(
            [("XADD", stream, "*", "prompt", f"p{i}") for i, stream in enumerate(STREAMS)]))
        answers = [self.server.read() for _ in STREAMS]
        self.say("xadd to each class ->", answers)
        self.see(self.server.look())
        for c, answer in enumerate(answers):
            if not isinstance(answer, Exception):
                fields = {"prompt": f"p{c}"}
                self.accept((c, answer), id_of((c, answer), fields), fields)

    def do_submit(self, a, b, c, d):
        id = self.choose_id(a)
        fields = self.fields_of(a, b, id)
        key = fields.get("unique", "")
        event = json.dumps({"event": "queued", "seq": 0})
        before = self.now
        keys = [STREAMS[c % 3], self.key("job", id), self.key("events", id),
                self.key("unique", key)]
        args = [id, key, MAXLEN, event, *self.channels(id), *sum(fields.items(), ())]
        if d % 8 == 0:
            answer = self.twice("submit", keys, args, lambda x, y: y == x or
                                (x[0] == "ok" and y[0] == "already"))
        else:
            answer, _, _ = self.call("submit", keys, args)
        self.say("submit", CLASSES[c % 3], fields, "->", answer)
        if answer is None:
            return
        holder = before.unique.get(key)
        if "state" in before.job(id) or before.events.get(id):
            expect(answer[0] == "already", "submit of a known job:", answer)
        elif key and holder not in (None, id):
            expect(answer == ["duplicate", holder], "submit, key held by", holder, answer)
        else:
            expect(answer[0] == "ok", "submit:", answer)
            self.accept((c % 3, answer[1]), id, fields)
            expect(self.now.job(id).get("state") == "queued", "submitted, not queued")

    def where_is(self, look, id):
        """As dr_queue_cancel finds it: class, entry or '', seq."""
        job = look.job(id)
        state, seq = job.get("state"), job.get("seq", "0")
        if state in ("queued", "delayed"):
            return STREAMS.index(job["stream"]), job["entry"], seq
        for c in range(3 if not state else 0):
            for entry, fields in look.entries[c].items():
                if id_of((c, entry), fields) == id:
                    return c, entry, seq
        return 1, "", seq

    def do_cancel(self, a, b, c, d):
        known = sorted(self.lives)
        id = known[a % len(known)] if known and a % 9 else f"j{self.next_id + 1 + a % 2}"
        fresh = c % 4 != 0
        before = self.now
        klass, entry, seq = self.where_is(before if fresh else self.olds[0], id)
        known_fields = before.entries[klass].get(entry, {})
        key = known_fields.get("unique", before.job(id).get("unique", ""))
        event = json.dumps({"event": "canceled", "seq": int(seq) + 1})
        keys = [STREAMS[klass], self.key("job", id), self.key("events", id),
                self.key("delayed"), self.key("stats"), self.key("checkpoint", id),
                self.key("unique", key)]
        args = [GROUP, id, entry, seq, TTL_S, MAXLEN, event, *self.channels(id),
                self.key("control")]
        if d % 8 == 0:
            answer = self.twice("cancel", keys, args, lambda x, y: y == x or (x, y) ==
                                (["canceled"], ["ended", "canceled"]) or x[0] == "unknown")
        else:
            answer, _, _ = self.call("cancel", keys, args)
        self.say("cancel", id, "at", klass, entry, "->", answer)
        self.canceled(id, (klass, entry), fresh, answer, before)

    def canceled(self, id, at, fresh, answer, before):
        job, held = before.job(id), before.held(at)
        life = self.lives.get(id)
        taken = held and not before.released(at)
        if not self.weak:
            if job.get("state") in TERMINAL:
                expected = ["ended", job["state"]]
            elif job.get("state") == "running":
                expected = ["asked", job["worker"]]
            elif not at[1]:
                expected = ["unknown", ""]
            else:
                expected = ["asked", held[0]] if taken else ["canceled"]
            expect(answer == expected or (not fresh and answer == ["again"]), "cancel",
                   answer, "expected", expected)
        word = self.word(answer)
        if word == "canceled":
            self.ended(id, at, "canceled")
        elif word in ("asked", "unknown"):
            if life:
                life.asked = True
            else:
                self.marks.add(id)
        elif not self.weak:
            expect(before.core() == self.now.core(), "cancel refused and changed something")

    def do_dead_retry(self, a, b, c, d):
        if not self.now.dead:
            return
        before = self.now
        letter = sorted(before.dead)[a % len(before.dead)]
        row = before.dead[letter]
        fields = {k[4:]: v for k, v in row.items() if k.startswith("job.")}
        id, key, klass = row["id"], fields.get("unique", ""), CLASSES.index(row["class"])
        put_id = "id" not in fields
        event = json.dumps({"event": "queued", "seq": 0})
        keys = [STREAMS[klass], self.key("dead"), self.key("job", id),
                self.key("events", id), self.key("checkpoint", id), self.key("unique", key)]
        args = [letter, id, key, "1" if put_id else "0", MAXLEN, event, *self.channels(id)]
        if d % 8 == 0:
            answer = self.twice("dead_retry", keys, args, lambda x, y: y == x or
                                (x[0] == "ok" and y[0] == "absent"))
        else:
            answer, _, _ = self.call("dead_retry", keys, args)
        self.say("dead_retry", letter, id, "->", answer)
        if answer is None:
            return
        holder = before.unique.get(key)
        if self.weak:
            self.tainted.add(id)
        elif self.lives[id].ended is None:
            expect(answer[0] == "busy", "dead_retry of a job that lives:", answer)
        elif key and holder not in (None, id):
            expect(answer == ["duplicate", holder], "dead_retry, key held:", answer)
        else:
            expect(answer[0] == "ok", "dead_retry:", answer)
        if answer[0] == "ok":
            if put_id:
                fields["id"] = id
            self.lives[id] = Life()
            self.dead.pop(letter, None)
            self.entries[(klass, answer[1])] = Entry(id, fields)

    # --- operators ---

    def do_pause(self, a, b, c, d):
        self.say("pause", CLASSES[a % 3], self.server("SADD", self.key("paused"),
                                                      CLASSES[a % 3]))
        self.see(self.server.look())

    def do_resume(self, a, b, c, d):
        self.say("resume", CLASSES[a % 3])
        self.server("SREM", self.key("paused"), CLASSES[a % 3])
        self.see(self.server.look())

    def do_oom(self, a, b, c, d):
        self.set_oom(not self.oom)

    def set_oom(self, full):
        self.oom = full
        self.server("CONFIG", "SET", "maxmemory", 1 if full else 0)
        self.say("memory full" if full else "memory free")

    def do_nap(self, a, b, c, d):
        time.sleep(0.0015 + a % 3 / 1000)
        self.say("time passes")
        self.see(self.server.look())

    def do_janitor(self, a, b, c, d):
        worker = self.workers[a % len(self.workers)]
        before = self.now
        answer, _, after = self.call("janitor", [*STREAMS, self.key("workers"),
                                                 self.key("delayed")],
                                     [GROUP, b % 2, 2 + c % 3, *worker.tidy])
        self.say(worker.name, "janitor ->", answer)
        if answer is None:
            worker.tidy = ["-"] * 3
            return
        worker.tidy = answer[2:]
        if not self.weak:
            expect(answer[1] == 0, "the janitor found entries that nobody had lost")
            expect(after.core() == before.core(), "the janitor changed something")

    def do_beat(self, a, b, c, d):
        worker = self.workers[a % len(self.workers)]
        answer, before, after = self.call("beat", [self.key("workers"),
                                                   self.key("worker", worker.name)],
                                          [worker.name, 1 + b % 3 * 1000, "state", "idle"])
        self.say(worker.name, "beat ->", answer)
        expect(answer == "ok" and after.core() == before.core(), "beat:", answer)

    def do_bye(self, a, b, c, d):
        """A worker goes, maybe with claims that it has not heard of, and comes back."""
        i = a % len(self.workers)
        worker = self.workers[i]
        if worker.slots:
            return
        answer, before, after = self.call("bye", [*STREAMS, self.key("workers"),
                                                  self.key("worker", worker.name)],
                                          [GROUP, worker.name])
        self.say(worker.name, "bye ->", answer)
        if answer is None:
            return
        for c, rows in enumerate(before.pending):
            for entry, (who, idle, times) in rows.items():
                rec = self.entries.get((c, entry))
                if who == worker.name and rec and rec.holder:
                    rec.holder = None
                    expect(after.released((c, entry)) and
                           after.held((c, entry))[2] == times - 1, "bye, still held:", entry)
        self.processes += 1
        self.workers[i] = Worker(worker.name, self.processes)

    def do_crash(self, a, b, c, d):
        """A worker forgets everything and comes back, or freezes while another begins."""
        i = a % len(self.workers)
        worker = self.workers[i]
        self.processes += 1
        if b % 2:
            self.say(worker.name, "dies and comes back")
            self.workers[i] = Worker(worker.name, self.processes)
        else:
            self.say(worker.name, "freezes,", f"w{self.processes}", "begins")
            self.workers[i] = Worker(f"w{self.processes}", self.processes)
            self.zombies = [*self.zombies, worker][-3:]

    # --- damage ---

    def do_flushall(self, a, b, c, d):
        self.say("FLUSHALL")
        self.weak = True
        self.server("FLUSHALL")
        self.tainted |= set(self.lives)
        self.entries, self.lives, self.marks, self.fence = {}, {}, set(), 0
        self.dead = {}
        time.sleep(0.002)  # no entry gets an id twice
        self.see(self.server.look())

    def do_delete(self, a, b, c, d):
        names = sorted(n for n in self.now.ttl if not n.startswith("worker"))
        if not names:
            return
        name = names[a % len(names)]
        self.say("DEL", name)
        self.weak = True
        kind, _, rest = name.partition(":")
        if kind == "q":
            klass = CLASSES.index(rest)
            for at in [at for at in self.entries if at[0] == klass]:
                self.tainted.add(self.entries.pop(at).id)
            for id, job in self.now.jobs.items():
                if job.get("stream", "").endswith(name):
                    self.tainted.add(id)
        elif kind in ("job", "events"):
            self.tainted.add(rest)
        elif kind == "result":
            self.tainted.add(rest.rpartition(":")[0])
        elif kind == "fence":
            self.fence = 0
        self.orphans |= kind in ("delayed", "q")
        self.server("DEL", self.key(name))
        time.sleep(0.002)
        self.see(self.server.look())

    def do_delconsumer(self, a, b, c, d):
        worker = self.workers[a % len(self.workers)]
        self.say("XGROUP DELCONSUMER", worker.name)
        self.weak = self.orphans = True
        for c, stream in enumerate(STREAMS):
            for entry, held in self.now.pending[c].items():
                if held[0] == worker.name and (c, entry) in self.entries:
                    self.tainted.add(self.entries[c, entry].id)
                    self.entries[c, entry].holder = None
            self.server("XGROUP", "DELCONSUMER", stream, GROUP, worker.name)
        self.see(self.server.look())

    # --- taking jobs ---

    def pick(self, a, wanted):
        """A worker and one of its slots."""
        both = [(w, s) for w in self.workers for s in w.slots if s.again or wanted(s)]
        return both[a % len(both)] if both else (None, None)

    def do_claim(self, a, b, c, d):
        worker = self.workers[a % len(self.workers)]
        if len(worker.slots) < SLOTS:
            self.claim(worker, expired=b % 3 == 0, lost=d % 8 == 0)

    def claim(self, worker, expired, lost=False):
        if expired:
            time.sleep(0.002)
            self.see(self.server.look())
        lease = 1 if expired else 0
        leave = [f"{CLASSES[s.at[0]]}:{s.at[1]}" for s in worker.slots]
        own = worker.own
        answer, before, after = self.call(
            "claim", [*STREAMS, self.key("fence"), self.key("delayed"), self.key("paused"),
                      self.key("stats")],
            [GROUP, worker.name, lease, own, *WEIGHTS, *leave])
        self.say(worker.name, f"claim own={own} lease={lease} leave={leave} ->", answer,
                 "LOST" if lost else "")
        if answer is None:
            return None
        if answer[0] == "none":
            self.check_none(worker, own, lease, leave, answer, before)
        else:
            self.check_claim(worker, own, lease, leave, answer, before, after)
        if lost:
            worker.own = "left" if own == "left" else "unheard"
        elif answer[0] == "none":
            worker.own = "none"
        else:
            return self.fill(worker, answer)
        return None

    def fill(self, worker, answer):
        at = (answer[1] - 1, answer[2])
        fields = pairs(answer[6])
        worker.slots.append(Slot(at, answer[3], fields, id_of(at, fields), answer[5]))
        return worker.slots[-1]

    def check_none(self, worker, own, lease, leave, answer, before):
        """Nothing was there: so nothing may have been."""
        if self.weak:
            return
        for c, name in enumerate(CLASSES):
            is_open = name not in before.paused
            expect(not (is_open and before.unread(c)), "none, but unread:", before.unread(c))
            for entry, (who, idle, _) in before.pending[c].items():
                if f"{name}:{entry}" in leave:
                    continue
                expect(not (is_open and lease and idle >= lease), "none, but stale:", entry)
                expect(not (own != "none" and who == worker.name and is_open and
                            idle < RELEASED_MS), "none, but its own:", entry)
            for member, due in before.delayed.items():
                expect(not (is_open and member.startswith(name) and due <= before.now and
                            member not in leave), "none, but due:", member)
        expect(answer[4] == -1 or answer[4] > 0, "none, but do not wait:", answer)
        later = [due for due in before.delayed.values() if due > self.now.now]
        expect(not later or 0 < answer[4] <= min(later) - before.now, "none, wait for",
               answer[4], "but due", later)

    def check_claim(self, worker, own, lease, leave, answer, before, after):
        _, klass, entry, fence, waited, crashes, flat = answer
        at = (klass - 1, entry)
        rec = self.entries.get(at)
        name = CLASSES[at[0]]
        expect(rec, "claimed an entry that is not there:", at)
        expect(fence > self.fence, "fence", fence, "after", self.fence)
        self.fence = fence
        expect(pairs(flat) == rec.fields, "claimed with other fields:", flat, rec.fields)
        expect(f"{name}:{entry}" not in leave or self.weak, "claimed what was to be left")
        expect(crashes >= 0 and waited >= 0, "crashes", crashes, "waited", waited)
        held = after.held(at)
        expect(held and held[0] == worker.name and not after.released(at),
               "claimed, but pending:", held)
        mine = (worker.name, worker.process)
        had = rec.holder
        if not self.weak:
            if name in before.paused:
                expect(had and had[:2] == mine and own != "none" or own == "unheard",
                       "claimed though paused")
            if had and had[0] != worker.name:
                expect(lease and before.held(at)[1] >= lease, "stolen from", had)
            due = before.due(at)
            expect(due is None or due <= after.now, "claimed before its time")
            if not had and due is None and not before.held(at):
                expect(entry == before.unread(at[0])[0], "out of turn", entry)
        # What an earlier process left and what this one did not hear of look the same; the
        # worker says which of them it looks for.
        if had and (had[0] != worker.name or own != "unheard"):
            rec.crashes += 1
        rec.holder = (*mine, fence)

    def do_take(self, a, b, c, d):
        worker = self.workers[a % len(self.workers)]
        if len(worker.slots) >= SLOTS:
            return
        count = 1 + c % 4
        before = self.now
        rows, _, after = self.call("peek", [*STREAMS, self.key("delayed"),
                                            self.key("paused")], [GROUP, count, 10000, 0])
        if rows is None:
            return
        expect(after.core() == before.core(), "peek changed something")
        for klass, entry, flat in rows:
            expect(CLASSES[klass - 1] not in before.paused, "peek shows a paused class")
            expect(entry in before.unread(klass - 1) and
                   pairs(flat) == before.entries[klass - 1][entry], "peek shows", entry)
        if d % 4:
            places = [(r[0] - 1, r[1]) for r in rows]
        else:  # one that somebody else may have meanwhile
            places = sorted(self.entries)
        if places:
            self.take(worker, places[b % len(places)], lost=d % 7 == 0)

    def take(self, worker, at, lost):
        answer, before, after = self.call(
            "take", [STREAMS[at[0]], self.key("fence"), self.key("delayed"),
                     self.key("paused")], [GROUP, worker.name, at[0] + 1, at[1]])
        self.say(worker.name, "take", at, "->", answer, "LOST" if lost else "")
        if answer is None:
            return
        waits = at[1] in before.unread(at[0]) and CLASSES[at[0]] not in before.paused
        expect((answer[0] == "job") == waits, "take:", answer, "it waits:", waits)
        if answer[0] == "none":
            expect(after.core() == before.core(), "take refused and changed something")
            return
        self.check_claim(worker, "none", 0, [], answer, self.now_as_head(before, at), after)
        if lost:
            worker.own = "left" if worker.own == "left" else "unheard"
        else:
            self.fill(worker, answer)

    def now_as_head(self, before, at):
        """For check_claim: out of turn is right here."""
        before.unread = lambda c: [at[1]]
        return before

    # --- holding jobs ---

    def ask(self, worker, slot, verb, details, lost=False):
        """One call about a held job, and all that can be said about its answer."""
        again, slot.again = slot.again, None
        if again:
            verb, details = again[:2]
        rec = self.entries.get(slot.at)
        keys, args = getattr(self, f"{verb}_call")(worker, slot, details)
        reply, before, after = self.call(verb, keys, args)
        self.say(worker.name, "AGAIN" if again else "", verb, slot.id, slot.at, slot.fence,
                 details, "->", reply, "LOST" if lost else "")
        if reply is None:
            return
        word = self.word(reply)
        me = (worker.name, worker.process, slot.fence)
        mine = bool(rec) and rec.holder == me
        is_weak = self.weak
        unheard = again and before.around(*slot.where()) == again[3]
        if unheard and not is_weak:
            expect(before.core() == after.core() and
                   (reply == again[2] or word == "already" or
                    (verb == "start" and word == "lost" and len(again[2]) == 1)),
                   verb, "repeated:", again[2], "then", reply)
        elif not is_weak:
            getattr(self, f"{verb}_check")(worker, slot, details, reply, before, after, rec,
                                           mine)
            if word in REFUSALS and not (verb == "start" and word == "already"):
                expect(before.core() == after.core(), verb, "refused and changed something")
        if not unheard:
            getattr(self, f"{verb}_effect")(worker, slot, details, reply, rec)
        if lost:
            slot.again = (verb, details, reply, after.around(*slot.where()))
            return
        self.learn(worker, slot, verb, details, reply, again)

    def learn(self, worker, slot, verb, details, reply, again):
        """What the worker makes of a reply that it has got."""
        word = self.word(reply)
        if verb == "start" and word in ("run", "canceled", "expired", "duplicate"):
            slot.word, slot.attempt, slot.seq = word, reply[1], reply[2]
            slot.seed = reply[5]
            return
        gives_up = word in REFUSALS and not (verb == "event" and word == "already")
        if verb in ("renew", "event", "finish") and word in ("lost", "stale"):
            gives_up = details["stubborn"] % 2  # a worker that does not listen
        ends = verb in ("retry", "release", "finish") and word == "ok"
        if gives_up or ends or (verb == "start" and word == "delayed"):
            worker.slots = [s for s in worker.slots if s is not slot]

    def refused(self, verb, word, *allowed):
        expect(word in REFUSALS or word in allowed, verb, "of what is not ours:", word)

    def do_start(self, a, b, c, d):
        worker, slot = self.pick(a, lambda s: not s.word)
        if slot:
            if slot.again and slot.again[0] == "release" and not slot.word and b % 2:
                slot.again = None  # it is wanted after all
            self.ask(worker, slot, "start", {}, lost=d % 8 == 0)

    def start_call(self, worker, slot, details):
        f = slot.fields
        key = f.get("unique", "")
        return ([*STREAMS, self.key("delayed"), self.key("unique", key),
                 self.key("job", slot.id)],
                [GROUP, worker.name, slot.at[0] + 1, slot.at[1], slot.fence, slot.crashes,
                 slot.id, f.get("ttl_ms", 0), f.get("delay_ms", 0), slot.fence * 1000, key])

    def start_check(self, worker, slot, details, reply, before, after, rec, mine):
        word = reply[0]
        if not mine:
            return expect(word == "lost", "start of what is not ours:", reply)
        job = before.job(slot.id)
        place = (STREAMS.index(job["stream"]), job["entry"]) if "entry" in job else slot.at
        f = slot.fields
        key = f.get("unique")
        if job.get("state") in TERMINAL or \
                (place != slot.at and place[1] in before.entries[place[0]]):
            expect(word == "already" and slot.at[1] not in after.entries[slot.at[0]],
                   "start of another entry:", reply)
            return None
        allowed = {"run"}
        if key and before.unique.get(key, slot.id) != slot.id:
            allowed = {"duplicate"}
        elif "ttl_ms" in f and int(job.get("attempt", 0)) == 0:
            allowed.add("expired")
        if job.get("cancel") == "1":
            allowed = {"canceled"}
        elif "delay_ms" in f and not rec.put_off and rec.bound is None:
            allowed.add("delayed")
        expect(word in allowed, "start:", reply, "allowed:", allowed)
        if "seed" in job:
            expect(after.job(slot.id)["seed"] == job["seed"], "another seed")
        if word != "delayed":
            expect(reply[3] == rec.crashes, "start says crashes:", reply[3], "true:",
                   rec.crashes)
            starts = self.lives[slot.id].starts + (rec.bound != slot.fence)
            expect(reply[1] == starts, "attempt:", reply, "true:", starts)
            expect(after.job(slot.id)["crashes"] == str(rec.crashes), "crashes in the hash")
            expect(reply[2] == int(job.get("seq", 0)), "seq:", reply)
        else:
            expect(after.due(slot.at) == number(slot.at[1])[0] + int(f["delay_ms"]), "due at",
                   after.due(slot.at))
        return None

    def start_effect(self, worker, slot, details, reply, rec):
        if not rec:
            return
        if reply[0] == "already":
            self.entries.pop(slot.at, None)
        elif reply[0] == "delayed":
            rec.holder, rec.put_off = None, True
        elif reply[0] != "lost":
            self.lives.setdefault(slot.id, Life()).starts += rec.bound != slot.fence
            rec.bound = slot.fence

    def do_renew(self, a, b, c, d):
        worker, slot = self.pick(a, lambda s: s.word)
        if slot:
            self.ask(worker, slot, "renew", {"stubborn": b}, lost=d % 8 == 0)

    def renew_call(self, worker, slot, details):
        return ([STREAMS[slot.at[0]], self.key("job", slot.id)],
                [GROUP, worker.name, slot.at[1], slot.fence])

    def renew_check(self, worker, slot, details, reply, before, after, rec, mine):
        if not mine:
            return self.refused("renew", reply)
        cancel = before.job(slot.id).get("cancel") == "1"
        expect(reply == ("cancel" if cancel else "ok"), "renew:", reply)
        was, now = before.held(slot.at), after.held(slot.at)
        expect(was[2] == now[2], "renew counted as a delivery")
        if was[1] >= 2:  # ms
            expect(after.now - now[1] > before.now - was[1], "renew without effect")
        return None

    def renew_effect(self, worker, slot, details, reply, rec):
        pass

    def do_event(self, a, b, c, d):
        worker, slot = self.pick(a, lambda s: s.word)
        if slot:
            self.ask(worker, slot, "event", self.event_of(slot, b, c), lost=d % 8 == 0)

    def event_of(self, slot, b, c):
        slot.seq += 0 if slot.again else 1
        return {"stubborn": b, "seq": slot.seq, "image": b % IMAGES if c % 2 else None}

    def picture(self, slot, n):
        return f"{slot.seed}+{n}"

    def event_call(self, worker, slot, details):
        n = details["image"]
        kind = "progress" if n is None else "image"
        text = json.dumps({"event": kind, "seq": details["seq"]})
        keys = [self.key("job", slot.id), self.key("events", slot.id)]
        args = [worker.name, slot.fence, details["seq"], TTL_S, MAXLEN, text,
                *self.channels(slot.id)]
        if n is None:
            return keys, [*args, ""]
        return ([*keys, self.key("result", slot.id, n)],
                [*args, self.key("image", slot.id), self.picture(slot, n)])

    def event_check(self, worker, slot, details, reply, before, after, rec, mine):
        job = before.job(slot.id)
        if not mine:
            # Until the new holder has bound it, the old one may still be heard.
            bound = rec and rec.bound == slot.fence and job.get("state") == "running"
            if not bound:
                return self.refused("event", reply)
        if details["seq"] <= int(job["seq"]):
            return expect(reply == "already", "event:", reply)
        expect(reply == ("cancel" if job.get("cancel") == "1" else "ok") or
               (not mine and reply == "lost"), "event:", reply)
        if reply != "lost":
            expect(len(after.events[slot.id]) == len(before.events.get(slot.id, [])) + 1,
                   "an event, but not in the stream")
            if details["image"] is not None:
                expect(after.results.get(f"{slot.id}:{details['image']}") ==
                       self.picture(slot, details["image"]), "an image, but not stored")
        return None

    def event_effect(self, worker, slot, details, reply, rec):
        pass

    def do_retry(self, a, b, c, d):
        worker, slot = self.pick(a, lambda s: s.word == "run")
        if slot:
            self.ask(worker, slot, "retry", self.retry_of(slot, b), lost=d % 8 == 0)

    def retry_of(self, slot, b):
        slot.seq += 0 if slot.again else 1
        return {"stubborn": 1, "seq": slot.seq, "delay": b % 4}

    def retry_call(self, worker, slot, details):
        text = json.dumps({"event": "retry", "seq": details["seq"]})
        return ([STREAMS[slot.at[0]], self.key("job", slot.id), self.key("events", slot.id),
                 self.key("delayed"), self.key("stats")],
                [GROUP, worker.name, slot.at[1], slot.fence, details["seq"],
                 details["delay"], "it broke", TTL_S, MAXLEN, text,
                 *self.channels(slot.id)])

    def retry_check(self, worker, slot, details, reply, before, after, rec, mine):
        if not mine:
            return self.refused("retry", reply)
        expect(reply == "ok", "retry:", reply)
        due = after.due(slot.at)
        expect(due and before.now <= due - details["delay"] <= after.now, "retry, due", due)
        expect(not after.held(slot.at), "retry, still pending")
        expect(len(after.events[slot.id]) == len(before.events.get(slot.id, [])) + 1,
               "retry without its event")
        return None

    def retry_effect(self, worker, slot, details, reply, rec):
        if reply == "ok":
            self.counts["retried"] += 1
            if rec:
                rec.holder = None

    def do_release(self, a, b, c, d):
        worker, slot = self.pick(a, lambda s: True)
        if slot:
            self.ask(worker, slot, "release", {"stubborn": 1}, lost=d % 4 == 0)

    def release_call(self, worker, slot, details):
        return ([STREAMS[slot.at[0]], self.key("job", slot.id), self.key("stats")],
                [GROUP, worker.name, slot.at[1], slot.fence])

    def release_check(self, worker, slot, details, reply, before, after, rec, mine):
        if not mine:
            return self.refused("release", reply)
        expect(reply == "ok", "release:", reply)
        was, now = before.held(slot.at), after.held(slot.at)
        expect(now and after.released(slot.at), "released, but nobody may take it")
        expect(now[2] == was[2] - 1, "released, deliveries", was[2], "->", now[2])
        return None

    def release_effect(self, worker, slot, details, reply, rec):
        if reply == "ok":
            self.counts["released"] += 1
            if rec:
                rec.holder = None

    def do_finish(self, a, b, c, d):
        worker, slot = self.pick(a, lambda s: s.word)
        if slot:
            self.ask(worker, slot, "finish", self.finish_of(slot, b, c), lost=d % 6 == 0)

    def finish_of(self, slot, b, c):
        """How it ends; dead: the reason to keep it among the dead."""
        slot.seq += 0 if slot.again else 1
        details = {"stubborn": b, "seq": slot.seq, "state": "failed", "dead": "",
                   "images": 0, "bytes": False}
        if slot.word in ("canceled", "expired"):
            details["state"] = slot.word
        elif slot.word == "run" and c % 3 == 0:
            details["dead"] = ["timeout", "device", "poison"][b % 3]
        elif slot.word == "run" and c % 3 == 1:
            details |= {"state": "succeeded", "images": 1 + b % IMAGES,
                        "bytes": c // 3 % 2 == 0}
        elif slot.word == "run" and c % 6 == 2:
            details["state"] = "canceled"
        return details

    def finish_call(self, worker, slot, details):
        state, images = details["state"], range(details["images"])
        text = json.dumps({"event": state, "seq": details["seq"]})
        keys = [STREAMS[slot.at[0]], self.key("job", slot.id), self.key("events", slot.id),
                self.key("stats"), self.key("dead"), self.key("checkpoint", slot.id),
                self.key("unique", slot.fields.get("unique", "")),
                *(self.key("result", slot.id, n) for n in images)]
        failure = ["error", "it broke"] if state == "failed" else ["", ""]
        return keys, [GROUP, worker.name, slot.at[1], slot.fence, state, 10, TTL_S, MAXLEN,
                      text, *self.channels(slot.id), details["seq"], slot.id, *failure,
                      details["dead"], 1000,
                      *(self.picture(slot, n) for n in images if details["bytes"])]

    def finish_check(self, worker, slot, details, reply, before, after, rec, mine):
        if not mine:
            return self.refused("finish", reply)
        stored = all(f"{slot.id}:{n}" in before.results for n in range(details["images"]))
        if not stored and not details["bytes"]:
            expect(before.core() == after.core(), "finish, missing, changed something")
            return expect(reply == "missing", "finish without a picture:", reply)
        expect(reply == "ok", "finish:", reply)
        job = after.job(slot.id)
        expect(job["state"] == details["state"] and job["fence"] == str(slot.fence) and
               job["worker"] == worker.name, "finish, but the hash:", job)
        expect(after.events[slot.id][-1]["event"] == details["state"], "no terminal event")
        for n in range(details["images"]):
            expect(after.results[f"{slot.id}:{n}"] == self.picture(slot, n),
                   "finished with another picture:", after.results[f"{slot.id}:{n}"],
                   "not", self.picture(slot, n))
        if details["dead"]:
            new = after.dead.keys() - before.dead.keys()
            expect(len(new) == 1, "dead letters:", new)
            row = after.dead[new.pop()]
            kept = {k[4:]: v for k, v in row.items() if k.startswith("job.")}
            expect(kept == rec.fields and row["id"] == slot.id and
                   row["reason"] == details["dead"] and
                   row["class"] == CLASSES[slot.at[0]], "dead letter:", row)
        return None

    def finish_effect(self, worker, slot, details, reply, rec):
        if reply != "ok":
            return
        if details["dead"] == "poison":
            self.counts["poison"] += 1
        for letter in self.now.dead.keys() - self.dead.keys():
            self.dead[letter] = slot.id
        self.ended(slot.id, slot.at, details["state"])

    def ended(self, id, at, state):
        self.counts[state] += 1
        life = self.lives.setdefault(id, Life())
        if id not in self.tainted:
            expect(life.ended is None, "job", id, "ended twice:", life.ended, state)
        life.ended = state
        self.entries.pop(at, None)

    def do_zombie(self, a, b, c, d):
        """A worker that was frozen goes on with what it believes to hold."""
        slots = [(w, s) for w in self.zombies for s in w.slots]
        if not slots:
            return
        worker, slot = slots[a % len(slots)]
        verbs = ["start", "release"] if not slot.word else \
            ["renew", "event", "finish", "retry", "release"]
        verb = verbs[b % len(verbs)]
        details = {"start": lambda: {}, "release": lambda: {"stubborn": 1},
                   "renew": lambda: {"stubborn": 1}, "retry": lambda: self.retry_of(slot, c),
                   "event": lambda: self.event_of(slot, c | 1, d),
                   "finish": lambda: self.finish_of(slot, c | 1, d)}[verb]()
        self.ask(worker, slot, verb, details)

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
