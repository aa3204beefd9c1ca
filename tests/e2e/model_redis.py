"""Redis for model.py: a connection that runs the scripts, and all that can be seen."""
import json

import redis as redis_py

from conftest import P, ROOT

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
NEED_MEMORY = {"claim", "take", "submit", "dead_retry", "event"}

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
