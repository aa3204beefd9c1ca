"""What clients, operators and accidents do in model.py."""
import json
import time

from conftest import TERMINAL
from model_redis import CLASSES, GROUP, MAXLEN, STREAMS, TTL_S, expect, id_of
from model_state import Entry, Life, Worker


class Clients:
    # --- clients ---

    def fields_of(self, a, b, id):
        fields = {"prompt": f"p{a % 97}"}
        if id:
            fields["id"] = id
        if self.one_in("delay", b):
            fields["delay_ms"] = str(1 + a % 3 * 4)
        if self.one_in("ttl", b + 1):
            fields["ttl_ms"] = "1" if a % 2 else "100000"
        if self.one_in("unique", b // 2):
            fields["unique"] = f"u{a % 2}"
        return fields

    def choose_id(self, a):
        """Mostly a new one; sometimes one that is known."""
        known = sorted({*self.lives, *self.dead.values()})
        if self.one_in("known", a) and known:
            return known[a // 16 % len(known)]
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
        if self.one_in("lost", d):
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
            self.lives[id].key = key or None
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
        look = before if fresh else self.olds[c // 4 % len(self.olds)]
        klass, entry, seq = self.where_is(look, id)
        known_fields = before.entries[klass].get(entry, {})
        key = known_fields.get("unique", before.job(id).get("unique", ""))
        event = json.dumps({"event": "canceled", "seq": int(seq) + 1})
        keys = [STREAMS[klass], self.key("job", id), self.key("events", id),
                self.key("delayed"), self.key("stats"), self.key("checkpoint", id),
                self.key("unique", key)]
        args = [GROUP, id, entry, seq, TTL_S, MAXLEN, event, *self.channels(id),
                self.key("control")]
        if self.one_in("lost", d):
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
            expect(self.now.ttl[f"job:{id}"] <= TTL_S * 1000, "canceled, but the TTL")
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
        if self.one_in("lost", d):
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
        elif before.job(id).get("state", "failed") not in TERMINAL:
            expect(answer[0] == "busy", "dead_retry of a job that lives:", answer)
        elif key and holder not in (None, id):
            expect(answer == ["duplicate", holder], "dead_retry, key held:", answer)
        else:
            expect(answer[0] == "ok", "dead_retry:", answer)
        if answer[0] == "ok":
            if put_id:
                fields["id"] = id
            self.lives[id] = Life(key=key or None)
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
            if c % 2:  # its last calls are still under way
                self.zombies = [*self.zombies, worker][-3:]
        else:
            self.say(worker.name, "freezes,", f"w{self.processes}", "begins")
            self.workers[i] = Worker(f"w{self.processes}", self.processes)
            self.zombies = [*self.zombies, worker][-3:]

    def do_expire(self, a, b, c, d):
        """The TTL of a job that has ended is over. Whoever held it has had it for longer."""
        ids = sorted(id for id, life in self.lives.items() if life.ended)
        if not ids:
            return
        id = ids[a % len(ids)]
        self.say("the TTL of", id, "is over")
        names = [n for n in self.now.ttl if n in (f"job:{id}", f"events:{id}") or
                 n.startswith(f"result:{id}:")]
        self.server("DEL", *map(self.key, names))
        del self.lives[id]
        if any(rec.id == id for rec in self.entries.values()):
            self.lives[id] = Life()
        for worker in [*self.workers, *self.zombies]:
            for slot in worker.slots:
                slot.held_ms = TTL_S * 1000
        self.see(self.server.look())

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
