"""What the workers of model.py do with the jobs that they hold, or believe to hold. Of each
script: its call, what it may answer (check), what is true then (effect)."""
import json

from conftest import TERMINAL
from model_redis import (CLASSES, GROUP, IMAGES, MAXLEN, REFUSALS, STREAMS, TTL_S, expect,
                         number)
from model_state import Life


class Holders:
    # --- holding jobs ---

    def ask(self, worker, slot, verb, details, lost=False):
        """One call about a held job, and all that can be said about its answer, which is
        returned."""
        again, slot.again = slot.again, None
        if again:
            verb, details = again[:2]
        rec = self.entries.get(slot.at)
        keys, args = getattr(self, f"{verb}_call")(worker, slot, details)
        reply, before, after = self.call(verb, keys, args)
        self.say(worker.name, "AGAIN" if again else "", verb, slot.id, slot.at, slot.fence,
                 details, "->", reply, "LOST" if lost else "")
        if reply is None:
            return None
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
        else:
            self.learn(worker, slot, verb, details, reply)
        return reply

    def learn(self, worker, slot, verb, details, reply):
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

    def refused(self, verb, word, gone=False):
        expect(word in REFUSALS or (gone and word == "gone"), verb, "of what is not ours:",
               word)

    def do_start(self, a, b, c, d):
        worker, slot = self.pick(a, lambda s: not s.word)
        if slot:
            if slot.again and slot.again[0] == "release" and not slot.word and b % 2:
                slot.again = None  # it is wanted after all
            self.ask(worker, slot, "start", {}, lost=self.one_in("lost", d))

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
            life = self.lives[slot.id]
            had_it = life.workers[:-1] if rec.bound == slot.fence else life.workers
            expect(reply[4] == life.failures and reply[7] == ([""] + had_it)[-1],
                   "start:", reply, "failures:", life.failures, "workers:", life.workers)
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
            life = self.lives.setdefault(slot.id, Life())
            if rec.bound != slot.fence:
                life.starts += 1
                life.workers.append(worker.name)
            if reply[0] == "run":
                life.key = slot.fields.get("unique")
            rec.bound = slot.fence

    def do_renew(self, a, b, c, d):
        """By another thread: also while a reply to something else is missing."""
        worker, slot = self.pick(a, lambda s: s.word)
        if slot and slot.word:
            self.aside(worker, slot, "renew", {"stubborn": b})

    def aside(self, worker, slot, verb, details):
        again, slot.again = slot.again, None
        self.ask(worker, slot, verb, details)
        slot.again = again

    def renew_call(self, worker, slot, details):
        return ([STREAMS[slot.at[0]], self.key("job", slot.id)],
                [GROUP, worker.name, slot.at[1], slot.fence])

    def renew_check(self, worker, slot, details, reply, before, after, rec, mine):
        job = before.job(slot.id)
        if not mine:
            return self.refused("renew", reply, not job and not before.held(slot.at))
        expect(reply == ("cancel" if job.get("cancel") == "1" else "ok"), "renew:", reply)
        was, now = before.held(slot.at), after.held(slot.at)
        expect(was[2] == now[2], "renew counted as a delivery")
        if was[1] >= 2:  # ms
            expect(after.now - now[1] > before.now - was[1], "renew without effect")
        return None

    def renew_effect(self, worker, slot, details, reply, rec):
        pass

    def do_event(self, a, b, c, d):
        worker, slot = self.pick(a, lambda s: s.word)
        if slot and slot.again and slot.again[0] in ("retry", "release", "finish"):
            if slot.word and slot.again[2] == "ok" and c % 2:  # too late
                details = {"stubborn": 1, "seq": slot.seq + 1, "image": b % IMAGES}
                return self.aside(worker, slot, "event", details)
        if slot:
            self.ask(worker, slot, "event", self.event_of(slot, b, c),
                     lost=self.one_in("lost", d))
        return None

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
                return self.refused("event", reply, "state" not in job)
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
            self.other_thought(slot, b)
            self.ask(worker, slot, "retry", self.retry_of(slot, b),
                     lost=self.one_in("lost", d))

    def other_thought(self, slot, b):
        """It has not heard whether it let the job go, and now wants something else of it."""
        if slot.word and slot.again and slot.again[0] in ("retry", "release") and b % 3 == 0:
            slot.again = None

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
            self.lives.setdefault(slot.id, Life()).failures += 1
            if rec:
                rec.holder = None

    def do_release(self, a, b, c, d):
        worker, slot = self.pick(a, lambda s: True)
        if slot:
            self.other_thought(slot, b)
            self.ask(worker, slot, "release", {"stubborn": 1}, lost=self.one_in("lost", d))

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
        expect(rec.bound != slot.fence or after.job(slot.id)["state"] == "queued",
               "released, but the hash:", after.job(slot.id))
        return None

    def release_effect(self, worker, slot, details, reply, rec):
        if reply == "ok":
            self.counts["released"] += 1
            if rec:
                rec.holder = None

    def do_finish(self, a, b, c, d):
        worker, slot = self.pick(a, lambda s: s.word)
        if slot:
            self.other_thought(slot, b)
            self.ask(worker, slot, "finish", self.finish_of(slot, b, c),
                     lost=self.one_in("lost", d))

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
        return keys, [GROUP, worker.name, slot.at[1], slot.fence, state, slot.held_ms, TTL_S,
                      MAXLEN, text, *self.channels(slot.id), details["seq"], slot.id, *failure,
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
        expect(0 < after.ttl[f"job:{slot.id}"] <= TTL_S * 1000, "finish, but its TTL:",
               after.ttl[f"job:{slot.id}"])
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
            workers = self.lives[slot.id].workers
            last = details["dead"] == "poison" and workers[:-1] or workers
            expect(row["worker"] == last[-1] and row["crashes"] == str(rec.crashes) and
                   row["attempts"] == str(len(workers)), "dead letter:", row, workers)
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
        rec, held = self.entries.get(slot.at), self.now.held(slot.at)
        heir = rec and held and held[0] == worker.name and \
            rec.holder != (worker.name, worker.process, slot.fence)
        if heir and (not slot.word or rec.bound == slot.fence):
            return  # nothing tells it from the next process of its name
        verbs = ["start", "release"] if not slot.word else \
            ["renew", "event", "finish", "retry", "release"]
        verb = verbs[b % len(verbs)]
        details = {"start": lambda: {}, "release": lambda: {"stubborn": 1},
                   "renew": lambda: {"stubborn": 1}, "retry": lambda: self.retry_of(slot, c),
                   "event": lambda: self.event_of(slot, c | 1, d),
                   "finish": lambda: self.finish_of(slot, c | 1, d)}[verb]()
        self.ask(worker, slot, verb, details)
