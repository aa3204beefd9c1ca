"""How the workers of model.py take jobs."""
import time

from model_redis import CLASSES, GROUP, RELEASED_MS, SLOTS, STREAMS, WEIGHTS, expect, id_of, \
    number, pairs
from model_state import Slot


class Takers:
    # --- taking jobs ---

    def pick(self, a, wanted):
        """A worker and one of its slots."""
        both = [(w, s) for w in self.workers for s in w.slots if s.again or wanted(s)]
        return both[a % len(both)] if both else (None, None)

    def do_claim(self, a, b, c, d):
        worker = self.workers[a % len(self.workers)]
        if len(worker.slots) < SLOTS:
            self.claim(worker, expired=b % 3 == 0, lost=self.one_in("lost", d))

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
                expect(not (is_open and idle >= RELEASED_MS), "none, but handed back:", entry)
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
        if c % 3:
            places = [(r[0] - 1, r[1]) for r in rows]
        else:  # one that somebody else may have meanwhile
            places = sorted(at for at in self.entries
                            if number(at[1]) > number(before.last[at[0]]) and
                            at not in [slot.at for slot in worker.slots])
        if places:
            self.take(worker, places[b % len(places)], lost=self.one_in("lost", d))

    def take(self, worker, at, lost):
        answer, before, after = self.call(
            "take", [STREAMS[at[0]], self.key("fence"), self.key("delayed"),
                     self.key("paused")], [GROUP, worker.name, at[0] + 1, at[1]])
        self.say(worker.name, "take", at, "->", answer, "LOST" if lost else "")
        if answer is None:
            return
        held = before.held(at)
        unheard = bool(held) and held[0] == worker.name and not before.released(at)
        waits = unheard or (at[1] in before.unread(at[0]) and
                            CLASSES[at[0]] not in before.paused)
        expect((answer[0] == "job") == waits, "take:", answer, "it waits:", waits)
        if answer[0] == "none":
            expect(after.core() == before.core(), "take refused and changed something")
            return
        self.check_claim(worker, "unheard" if unheard else "none", 0, [], answer,
                         self.now_as_head(before, at), after)
        if lost:
            worker.own = "left" if worker.own == "left" else "unheard"
        else:
            self.fill(worker, answer)

    def now_as_head(self, before, at):
        """For check_claim: out of turn is right here."""
        before.unread = lambda c: [at[1]]
        return before
