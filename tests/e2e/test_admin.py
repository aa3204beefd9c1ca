"""status, cancel, pause, resume, drain and dead: as people at a terminal and scripts use
them, without workers and with them."""
import fcntl
import json
import os
import pty
import re
import select
import signal
import struct
import subprocess
import termios
import time

import msgpack
import pyte
import pytest

from conftest import P, PROGRAM, SLOW, darkroom, environment, until

PROMPT = "a red circle on a blue background"


@pytest.fixture
def server(lab):
    """A Redis without workers."""
    return lab.redis()


def call(server, *arguments, **options):
    return darkroom(arguments[0], "--redis", server.url, *arguments[1:], **options)


def send(server, *arguments):
    done = call(server, "submit", PROMPT, "--size", "64x64", *arguments)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def now_ms():
    return int(time.time() * 1000)


def add_worker(server, name, **fields):
    now = now_ms()
    said = dict(host="box", pid=7, device="A device of some length (OpenCL 3.0)",
                version="0.1.0", started_ms=now, seen_ms=now, state="idle",
                models='["sd15"]', resident="[]", jobs="[]", done=0, failed=0) | fields
    server.client.hset(f"{P}:worker:{name}", mapping=said)
    server.client.expire(f"{P}:worker:{name}", 15)
    server.client.zadd(f"{P}:workers", {name: said["seen_ms"]})


class Terminal:
    """The program on a terminal of that size; what it shows is in .lines."""

    def __init__(self, server, *arguments, columns=80, rows=24, **variables):
        self.screen = pyte.HistoryScreen(columns, rows)
        self.stream = pyte.ByteStream(self.screen)
        self.bytes = b""
        self.fd, theirs = pty.openpty()
        self.resize(columns, rows)
        self.process = subprocess.Popen(
            [str(PROGRAM), arguments[0], "--redis", server.url, *arguments[1:]],
            stdin=theirs, stdout=theirs, stderr=theirs, start_new_session=True,
            env=environment() | {"TERM": "xterm"} | variables,
            preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0))
        os.close(theirs)

    def resize(self, columns, rows):
        fcntl.ioctl(self.fd, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))
        self.screen.resize(rows, columns)

    def read(self):
        """What is there within a twentieth of a second; False at the end."""
        if not select.select([self.fd], [], [], 0.05)[0]:
            return True
        try:
            data = os.read(self.fd, 65536)
        except OSError:
            return False
        self.bytes += data
        self.stream.feed(data)
        return bool(data)

    @property
    def lines(self):
        return [line.rstrip() for line in self.screen.display]

    def until(self, condition, seconds=20.0):
        end = time.monotonic() + seconds * SLOW
        while time.monotonic() < end:
            more = self.read()
            if condition(self.lines):
                return self
            assert more, self.lines
        raise AssertionError("\n".join(self.lines))

    def finish(self):
        while self.read():
            pass
        os.close(self.fd)
        return self.process.wait(10 * SLOW)

    def press(self, key):
        os.write(self.fd, key)


# --- status ---

def test_status_of_nothing(server):
    done = call(server, "status")
    assert done.returncode == 0 and done.stderr == ""
    lines = done.stdout.splitlines()
    assert lines[0].startswith(f"{P} on {server.url}, memory ")
    assert lines[2].split() == ["CLASS", "WAITING", "DELAYED", "RUNNING", "OLDEST", "WAIT",
                                "STATE"]
    assert [line.split() for line in lines[3:6]] == [
        [name, "0", "0", "0", "-", "open"] for name in ("high", "normal", "low")]
    assert lines[7] == "succeeded 0, failed 0, canceled 0, expired 0"
    assert lines[-1] == "no workers"
    assert server.client.dbsize() == 0      # looking leaves nothing behind


def test_status_counts_jobs(server):
    now = now_ms()
    for i in range(5):
        server.client.xadd(f"{P}:q:normal", {"prompt": "x"}, id=f"{now - 200000 + i}-0")
    server.client.xgroup_create(f"{P}:q:normal", "workers", "0")
    server.client.xreadgroup("workers", "w", {f"{P}:q:normal": ">"}, count=1)
    server.client.zadd(f"{P}:delayed", {f"normal:{now - 200000 + 1}-0": now + 60000})
    server.client.sadd(f"{P}:paused", "low")
    server.client.hset(f"{P}:stats", mapping={"succeeded": 12, "poison": 3})
    server.client.xadd(f"{P}:dead", {"id": "x"})
    done = call(server, "status")
    lines = done.stdout.splitlines()
    assert lines[4].split() == ["normal", "3", "1", "1", "3", "min", "open"]
    assert lines[5].split()[-1] == "paused"
    assert lines[7] == ("succeeded 12, failed 0, canceled 0, expired 0, poison 3, "
                        "dead letters 1")
    told = json.loads(call(server, "status", "--json").stdout)
    normal = told["classes"]["normal"]
    assert normal.pop("oldest_ms") in range(199000, 260000)
    assert normal == {"paused": False, "waiting": 3, "delayed": 1, "running": 1}
    assert told["classes"]["low"]["paused"] and told["classes"]["low"]["oldest_ms"] == -1
    assert told["stats"]["succeeded"] == 12 and told["dead"] == 1
    assert told["workers"] == [] and told["memory"] > 0 and told["memory_max"] == 0
    assert abs(told["ts_ms"] - now_ms()) < 60000


def test_status_memory_limit(server):
    server.client.config_set("maxmemory", "64mb")
    assert " of 64.0 MiB" in call(server, "status").stdout


def test_status_lists_workers(server):
    add_worker(server, "gpu10", state="busy", resident='["sd15","turbo"]',
               jobs='["job-a","job-b"]', step="12/20", s_step="0.81", done=1234, failed=2)
    add_worker(server, "gpu2", seen_ms=now_ms() - 4500, drain=1)
    add_worker(server, "odd", state="idle\033[2J", jobs="no json")
    server.client.zadd(f"{P}:workers", {"gone": now_ms()})
    done = call(server, "status")
    assert "\033" not in done.stdout
    table = [re.split(r"  +", line.strip())
             for line in done.stdout[done.stdout.index("WORKER"):].splitlines()]
    assert table[0] == ["WORKER", "STATE", "MODELS", "JOB", "STEP", "S/STEP", "DONE",
                        "FAILED", "SEEN", "VERSION", "DEVICE"]
    assert table[1][:8] == ["gpu2", "draining", "-", "-", "-", "-", "0", "0"]
    assert table[1][8] in ("4 s", "5 s", "6 s", "7 s")
    assert table[2][:8] == ["gpu10", "busy", "sd15, turbo", "job-a +1", "12/20", "0.81",
                            "1234", "2"]
    assert table[2][9:] == ["0.1.0", "A device of some length (OpenCL 3.0)"]
    assert table[3][:4] == ["odd", "idle?[2J", "-", "-"]
    assert len(table) == 4
    told = json.loads(call(server, "status", "--json").stdout)["workers"]
    assert [w["name"] for w in told] == ["gpu2", "gpu10", "odd"]
    assert told[0]["state"] == "draining"
    assert told[1]["jobs"] == ["job-a", "job-b"] and told[1]["s_step"] == 0.81
    assert told[1]["done"] == 1234 and told[1]["pid"] == 7
    assert told[2]["jobs"] == []


@pytest.mark.parametrize("columns", [80, 120])
@pytest.mark.parametrize("workers", [0, 20])
def test_status_fits_the_terminal(server, columns, workers):
    for i in range(workers):
        add_worker(server, f"gpu{i}-in-a-rack.example.org-{4000 + i}", state="busy",
                   resident='["a-model-with-a-name"]', jobs='["%032x"]' % i, step="12/20",
                   s_step="0.81", done=i * 1000)
    terminal = Terminal(server, "status", columns=columns, rows=40)
    assert terminal.finish() == 0
    lines = [line for line in terminal.lines if line]
    # No line was wrapped by the terminal: as many as there are in a pipe.
    piped = [line for line in call(server, "status").stdout.splitlines() if line]
    assert len(lines) == len(piped)
    if not workers:
        assert lines[-1] == "no workers"
        return
    head = lines[-21]
    assert head.startswith("WORKER") and ("DEVICE" in head) == (columns == 120)
    starts = [m.start() for m in re.finditer(r"\S+", head)]
    for line in lines[-20:]:
        assert line.startswith("gpu") and "12/20" in line
        assert len(line) <= columns
        assert all(line[i - 1] == " " for i in starts if i and head[i - 2:i] == "  "
                   and head[i:i + 5] in ("STATE", "MODEL"))


def test_status_colors_only_where_they_are_wanted(server):
    add_worker(server, "w", state="busy")
    colored = Terminal(server, "status")
    colored.finish()
    assert b"\033[32mbusy\033[0m" in colored.bytes
    for variables in ({"NO_COLOR": "1"}, {"TERM": "dumb"}):
        plain = Terminal(server, "status", **variables)
        plain.finish()
        assert b"busy" in plain.bytes and b"\033" not in plain.bytes
    assert "\033" not in call(server, "status").stdout


def test_status_watch_on_a_terminal(server):
    terminal = Terminal(server, "status", "--watch", "0.1")
    terminal.until(lambda lines: "no workers" in lines)
    assert terminal.lines[0].startswith(P)
    add_worker(server, "w1")
    terminal.until(lambda lines: any(line.startswith("w1 ") for line in lines))
    assert "no workers" not in terminal.lines
    terminal.press(b"\r\r")                 # does not push the picture away
    server.client.sadd(f"{P}:paused", "low")
    terminal.until(lambda lines: any(line.endswith("paused") for line in lines))
    assert terminal.lines[0].startswith(P)
    assert sum(line.startswith("CLASS") for line in terminal.lines) == 1
    # Each picture is written over the last one: nothing is cleared before it is there.
    assert b"\033[2J" not in terminal.bytes and b"\033[H\033[J" not in terminal.bytes
    terminal.press(b"\x03")
    assert terminal.finish() == -signal.SIGINT
    assert not terminal.screen.cursor.hidden
    last = max(i for i, line in enumerate(terminal.lines) if line.startswith("w1 "))
    assert terminal.screen.cursor.y == last + 1


def test_status_watch_keeps_what_was_on_the_screen(server):
    terminal = Terminal(server, "status", "--watch", "0.1", rows=24)
    terminal.screen.draw("an earlier line")
    terminal.screen.linefeed()
    terminal.screen.carriage_return()
    terminal.until(lambda lines: "no workers" in lines)
    above = ["".join(line[i].data for i in range(80)).rstrip()
             for line in terminal.screen.history.top]
    assert "an earlier line" in above
    terminal.press(b"\x03")
    terminal.finish()


def test_status_watch_on_a_small_and_changing_terminal(server):
    for i in range(30):
        add_worker(server, f"w{i}")
    terminal = Terminal(server, "status", "--watch", "0.1", rows=20)
    terminal.until(lambda lines: any("more lines" in line for line in lines))
    assert terminal.lines[0].startswith(P)      # not scrolled away
    terminal.resize(60, 50)
    terminal.until(lambda lines: any(line.startswith("w29") for line in lines))
    assert terminal.lines[0].startswith(P)
    assert sum(line.startswith("w0 ") for line in terminal.lines) == 1
    terminal.press(b"\x03")
    terminal.finish()


def test_status_watch_outlives_redis(lab):
    server = lab.redis()
    terminal = Terminal(server, "status", "--watch", "0.1")
    terminal.until(lambda lines: "no workers" in lines)
    server.kill()
    terminal.until(lambda lines: "trying again" in lines)
    server.start()
    terminal.until(lambda lines: "no workers" in lines)
    terminal.press(b"\x03")
    terminal.finish()


def test_status_watch_in_a_pipe(server):
    process = subprocess.Popen([str(PROGRAM), "status", "--watch", "0.1", "--redis",
                                server.url], stdout=subprocess.PIPE, text=True,
                               env=environment())
    lines = [process.stdout.readline() for _ in range(25)]
    assert sum(line == "no workers\n" for line in lines) >= 2
    assert "\033" not in "".join(lines)
    process.stdout.close()
    assert process.wait(10 * SLOW) == 74
    process = subprocess.Popen([str(PROGRAM), "status", "--watch", "0.1", "--json",
                                "--redis", server.url], stdout=subprocess.PIPE, text=True,
                               env=environment())
    told = [json.loads(process.stdout.readline()) for _ in range(3)]
    assert told[2]["ts_ms"] > told[0]["ts_ms"]
    process.kill()
    process.wait()
    process.stdout.close()


# --- cancel ---

def test_cancel_a_waiting_job(server):
    name, other = send(server, "--field", 'meta={"user":7}'), send(server)
    done = call(server, "cancel", name)
    assert (done.returncode, done.stdout, done.stderr) == (0, f"{name}: canceled\n", "")
    queued, canceled = server.events(name)
    assert queued["event"] == "queued"
    assert canceled["event"] == "canceled" and canceled["meta"] == {"user": 7}
    assert canceled["seq"] == queued["seq"] + 1
    assert server.waiting() == 1 and server.types(other) == ["queued"]
    done = call(server, "cancel", name)
    assert (done.returncode, done.stdout) == (0, f"{name}: has ended before: canceled\n")
    assert len(server.events(name)) == 2
    assert json.loads(call(server, "status", "--json").stdout)["stats"]["canceled"] == 1


def test_cancel_by_entry_and_by_own_id(server):
    entry = server.submit(prompt="x")
    server.client.xadd(f"{P}:q:low", {"json": '{"prompt":"x","id":"mine"}'})
    packed = msgpack.packb({"prompt": "x", "id": "packed", "events": "msgpack", "meta": 1})
    server.client.xadd(f"{P}:q:high", {"job": packed})
    keep = server.submit(prompt="y")
    done = call(server, "cancel", entry, "mine", "packed", "--json")
    assert done.returncode == 0, done.stderr
    assert [json.loads(line) for line in done.stdout.splitlines()] == [
        {"id": name, "result": "canceled"} for name in (entry, "mine", "packed")]
    assert server.waiting() == 1 and server.client.xrange(f"{P}:q:normal")[0][0].decode() == keep
    [(_, fields)] = server.client.xrange(f"{P}:events:packed")
    assert msgpack.unpackb(fields[b"event"])["event"] == "canceled"
    assert msgpack.unpackb(fields[b"event"])["meta"] == 1


def test_cancel_an_unknown_job(server):
    done = call(server, "cancel", "nobody")
    assert done.returncode == 66 and done.stdout == ""
    assert "nobody" in done.stderr and "within an hour" in done.stderr
    assert server.client.hgetall(f"{P}:job:nobody") == {b"cancel": b"1"}
    assert 3500 < server.client.ttl(f"{P}:job:nobody") <= 3600
    told = call(server, "cancel", "nobody", "--json")
    assert told.returncode == 66 and json.loads(told.stdout)["result"] == "unknown"


def test_cancel_what_runs_rings(server):
    name = send(server)
    listener = server.client.pubsub()
    listener.subscribe(f"{P}:control")
    until(lambda: listener.get_message(timeout=0.1))
    server.client.hset(f"{P}:job:{name}", mapping={"state": "running", "worker": "w9"})
    done = call(server, "cancel", name)
    assert done.returncode == 0 and "with worker w9" in done.stdout
    heard = until(lambda: listener.get_message(timeout=0.1))
    assert heard["data"] == f"cancel {name}".encode()
    assert server.client.hget(f"{P}:job:{name}", "cancel") == b"1"
    told = json.loads(call(server, "cancel", name, "--json").stdout)
    assert told == {"id": name, "result": "asked", "worker": "w9"}


# --- unique, in submit ---

def test_submit_unique(server):
    name = send(server, "--unique", "nightly")
    done = call(server, "submit", PROMPT, "--unique", "nightly")
    assert done.returncode == 73 and done.stdout == ""
    assert name in done.stderr and "nightly" in done.stderr
    told = call(server, "submit", PROMPT, "--unique", "nightly", "--json", "--wait")
    assert told.returncode == 73 and json.loads(told.stdout) == {"duplicate_of": name}
    assert server.waiting() == 1
    assert call(server, "cancel", name).returncode == 0
    assert send(server, "--unique", "nightly") != name


def test_submit_times(server):
    send(server, "--delay", 60000, "--ttl", 90000, "--job-timeout", 5000)
    [(_, fields)] = server.client.xrange(f"{P}:q:normal")
    assert (fields[b"delay_ms"], fields[b"ttl_ms"], fields[b"timeout_ms"]) == (
        b"60000", b"90000", b"5000")
    assert call(server, "submit", PROMPT, "--delay", "-1").returncode == 65


# --- pause, resume ---

def test_pause_and_resume(server):
    done = call(server, "pause", "low", "high")
    assert (done.returncode, done.stdout) == (0, "high: paused\nlow: paused\n")
    assert server.client.smembers(f"{P}:paused") == {b"high", b"low"}
    assert call(server, "pause", "low").stdout == "low: paused, as before\n"
    told = json.loads(call(server, "pause", "normal", "--json").stdout)
    assert told == {"paused": ["high", "normal", "low"]}
    assert call(server, "resume", "high").stdout == "high: open\n"
    done = call(server, "resume", "all")
    assert done.stdout == "high: open, as before\nnormal: open\nlow: open\n"
    assert server.client.smembers(f"{P}:paused") == set()
    assert json.loads(call(server, "resume", "all", "--json").stdout) == {"paused": []}


# --- drain ---

def test_drain_asks_and_waits(server):
    add_worker(server, "w1")
    done = call(server, "drain", "w1")
    assert (done.returncode, done.stdout) == (0, "w1: draining\n")
    assert server.client.hget(f"{P}:worker:w1", "drain") == b"1"
    late = call(server, "drain", "w1", "--wait", "--timeout", 1)
    assert late.returncode == 75 and "has not left" in late.stderr
    process = subprocess.Popen([str(PROGRAM), "drain", "w1", "--wait", "--redis",
                                server.url], stdout=subprocess.PIPE, text=True,
                               env=environment())
    assert process.stdout.readline() == "w1: draining\n"
    server.client.delete(f"{P}:worker:w1")
    assert process.stdout.readline() == "w1: has left\n"
    assert process.wait(10 * SLOW) == 0
    process.stdout.close()


def test_drain_of_nobody(server):
    add_worker(server, "w1")
    done = call(server, "drain", "nobody", "w1", "x" * 5000)
    assert done.returncode == 66 and done.stdout == "w1: draining\n"
    assert "nobody" in done.stderr
    assert not server.client.exists(f"{P}:worker:nobody")


# --- dead ---

def bury(server, name, class_="normal", entry="*", **fields):
    """A dead letter as a worker leaves it."""
    letter = {"id": name, "class": class_, "reason": "device", "message": "it melted",
              "attempts": 3, "crashes": 0, "worker": "gpu1", "died_ms": now_ms() - 130000}
    letter |= {f"job.{k}": v for k, v in fields.items()}
    server.client.hset(f"{P}:job:{name}", mapping={"state": "failed", "attempt": 3})
    server.client.xadd(f"{P}:events:{name}", {"event": '{"event":"failed"}'})
    return server.client.xadd(f"{P}:dead", letter, id=entry).decode()


def test_dead_list(server):
    assert call(server, "dead", "list").stdout == "no dead letters\n"
    assert call(server, "dead", "list", "--json").stdout == ""
    entries = [bury(server, f"j{i}", prompt="x") for i in range(120)]
    done = call(server, "dead", "list")
    lines = done.stdout.splitlines()
    assert len(lines) == 21
    assert re.split(r"  +", lines[1].strip()) == [
        entries[-1], "j119", "normal", "device", "2 min", "3/0", "gpu1", "it melted"]
    assert len(call(server, "dead", "list", "--count", 105).stdout.splitlines()) == 106
    told = [json.loads(line) for line in
            call(server, "dead", "list", "--all", "--json").stdout.splitlines()]
    assert [t["entry"] for t in told] == entries[::-1]
    assert told[0]["job"] == {"prompt": "x"} and told[0]["attempts"] == 3
    terminal = Terminal(server, "dead", "list", "--count", "3")
    assert terminal.finish() == 0
    assert terminal.lines[1].startswith(entries[-1]) and terminal.lines[4] == ""


def test_dead_show(server):
    packed = msgpack.packb({"prompt": "deep", "n": 2})
    entry = bury(server, "j1", job=packed, priority="low", blob=b"\xff\x00")
    text = call(server, "dead", "show", entry).stdout
    assert re.search(r"^reason +device$", text, re.M)
    assert re.search(r'^job\.job +\{"prompt":"deep","n":2\}$', text, re.M)
    assert re.search(r"^job\.blob +\?\?$", text, re.M)
    told = json.loads(call(server, "dead", "show", entry, "--json").stdout)
    assert told["job"] == {"job": {"prompt": "deep", "n": 2}, "priority": "low",
                           "blob": None}
    missing = call(server, "dead", "show", "1-1")
    assert missing.returncode == 66 and "1-1" in missing.stderr


@pytest.mark.parametrize("fields, put", [
    ({"prompt": "x"}, {b"id": b"j1"}),
    ({"prompt": "x", "id": "j1"}, {}),
    ({"json": '{"prompt":"x"}'}, {b"id": b"j1"}),
    ({"json": '{"prompt":"x","id":"j1"}'}, {}),
    ({"job": msgpack.packb({"prompt": "x", "meta": {"a": 1}})}, {b"id": b"j1"}),
    ({"job": msgpack.packb({"prompt": "x", "id": "j1", "meta": {"a": 1}})}, {})])
def test_dead_retry_puts_the_job_back(server, fields, put):
    entry = bury(server, "j1", class_="low", **fields)
    done = call(server, "dead", "retry", entry)
    assert (done.returncode, done.stdout) == (0, f"{entry}: job j1 waits again\n")
    [(_, got)] = server.client.xrange(f"{P}:q:low")
    want = {k.encode(): v if isinstance(v, bytes) else v.encode() for k, v in fields.items()}
    assert got == want | put
    assert server.client.xlen(f"{P}:dead") == 0
    assert server.types("j1") == ["queued"]
    assert server.events("j1")[0]["meta"] == ({"a": 1} if "job" in fields else None)
    state = server.client.hgetall(f"{P}:job:j1")
    assert state[b"state"] == b"queued" and b"attempt" not in state
    assert server.client.ttl(f"{P}:job:j1") > 2600000
    again = call(server, "dead", "retry", entry)
    assert again.returncode == 66 and server.client.xlen(f"{P}:q:low") == 1
    assert call(server, "cancel", "j1").stdout == "j1: canceled\n"


def test_dead_retry_all_once_each(server):
    for i in range(230):
        bury(server, f"j{i}", prompt="x", id=f"j{i}")
    server.client.hset(f"{P}:job:j7", "state", "running")
    done = call(server, "dead", "retry", "--all")
    assert done.returncode == 73
    assert "j7" in done.stderr and "running" in done.stderr
    assert len(done.stdout.splitlines()) == 229
    order = [fields[b"id"].decode() for _, fields in server.client.xrange(f"{P}:q:normal")]
    assert order == [f"j{i}" for i in range(230) if i != 7]
    assert server.client.xlen(f"{P}:dead") == 1


def test_dead_retry_what_was_not_kept(server):
    entry = bury(server, "j1")
    done = call(server, "dead", "retry", entry)
    assert done.returncode == 70 and "dropped" in done.stderr
    assert server.client.xlen(f"{P}:dead") == 1


def test_dead_drop(server):
    entries = [bury(server, f"j{i}", prompt="x") for i in range(5)]
    done = call(server, "dead", "drop", entries[0], "9-9", entries[1])
    assert done.returncode == 66
    assert done.stdout == f"{entries[0]}: dropped\n{entries[1]}: dropped\n"
    assert call(server, "dead", "drop", "--all").stdout == "3 dropped\n"
    assert call(server, "dead", "drop", "--all", "--json").stdout == '{"dropped":0}\n'
    assert server.client.xlen(f"{P}:dead") == 0


# --- with workers ---

LONG = dict(prompt=PROMPT, width=64, height=64, steps=1000)
SHORT = dict(prompt=PROMPT, width=64, height=64, steps=2)


def test_cancel_a_running_job(lab):
    server = lab.redis()
    lab.worker(server, name="w1").ready()
    name = server.submit(id="long", meta='{"user":7}', **LONG)
    until(lambda: server.is_running(name))
    waiting = server.submit(**SHORT)
    done = call(server, "cancel", name)
    assert done.stdout == "long: with worker w1, which was asked to stop\n"
    rung = time.monotonic()
    end = server.end(name)
    assert time.monotonic() - rung < 3 * SLOW       # not at the next renewal
    assert end["event"] == "canceled" and end["meta"] == {"user": 7}
    assert server.end(waiting)["event"] == "succeeded"
    assert call(server, "cancel", name).stdout == "long: has ended before: canceled\n"
    assert server.waiting() == 0


def test_cancel_by_hand(lab):
    """As contrib/queue.md says: one hash field, with or without the doorbell."""
    server = lab.redis()
    lab.worker(server, lease_ms=2000).ready()
    running = server.submit(**LONG)
    queued = server.submit(id="later", **SHORT)
    server.client.hset(f"{P}:job:{queued}", "cancel", "1")
    until(lambda: server.is_running(running))
    server.client.hset(f"{P}:job:{running}", "cancel", "1")
    assert server.end(running)["event"] == "canceled"
    assert server.end(queued)["event"] == "canceled"
    assert server.types(queued) == ["canceled"]     # it never started


def test_cancel_before_it_comes(lab):
    server = lab.redis()
    assert call(server, "cancel", "soon").returncode == 66
    lab.worker(server).ready()
    server.submit(id="soon", **SHORT)
    assert server.end("soon")["event"] == "canceled"


def test_cancel_a_job_that_was_put_off(lab):
    server = lab.redis()
    lab.worker(server).ready()
    name = send(server, "--delay", 600000)
    until(lambda: server.client.zcard(f"{P}:delayed"))
    told = json.loads(call(server, "status", "--json").stdout)["classes"]["normal"]
    assert (told["waiting"], told["delayed"], told["running"]) == (0, 1, 0)
    assert call(server, "cancel", name).stdout == f"{name}: canceled\n"
    assert server.client.zcard(f"{P}:delayed") == 0 and server.waiting() == 0
    assert server.end(name)["event"] == "canceled"


def test_pause_holds_jobs_back(lab):
    server = lab.redis()
    lab.worker(server).ready()
    running = server.submit(**LONG | {"steps": 200})
    until(lambda: server.is_running(running))
    call(server, "pause", "normal")
    held = server.submit(id="held", **SHORT)
    other = server.submit(queue="high", id="other", **SHORT)
    assert server.end(running)["event"] == "succeeded"
    assert server.end(other)["event"] == "succeeded"
    assert server.types(held) == []
    told = json.loads(call(server, "status", "--json").stdout)["classes"]["normal"]
    assert told["paused"] and told["waiting"] == 1
    call(server, "resume", "all")
    assert server.end(held)["event"] == "succeeded"


def test_drain_lets_a_worker_finish(lab):
    server = lab.redis()
    first, second = lab.worker(server, name="w1").ready(), lab.worker(server, name="w2")
    running = server.submit(**LONG | {"steps": 150})
    until(lambda: server.is_running(running))
    done = call(server, "drain", "w1", "--wait", "--timeout", 60)
    assert (done.returncode, done.stdout) == (0, "w1: draining\nw1: has left\n")
    assert first.wait() == 0
    assert server.end(running)["event"] == "succeeded"
    second.ready()
    assert server.end(server.submit(**SHORT))["worker"] == "w2"
    names = [w["name"] for w in
             json.loads(call(server, "status", "--json").stdout)["workers"]]
    assert names == ["w2"]


def test_status_of_a_worker_at_work(lab):
    server = lab.redis()
    lab.worker(server, name="w1", lease_ms=1000).ready()
    name = server.submit(**LONG)

    def at_work():
        told = json.loads(call(server, "status", "--json").stdout)
        [worker] = told["workers"]
        return worker if worker["state"] == "busy" and worker["s_step"] else None
    worker = until(at_work)
    assert worker["jobs"] == [name]
    step, steps = map(int, worker["step"].split("/"))
    assert 0 < step <= steps == 1000
    assert 0 < worker["s_step"] < 10
    assert worker["resident"] and worker["resident"][0] in worker["models"]
    assert worker["device"] and worker["version"] and worker["pid"] > 1
    table = call(server, "status").stdout
    assert re.search(r"^normal +0 +0 +1 +- +open$", table, re.M)
    assert re.search(rf"^w1 +busy +.*{name} ", table, re.M)
    call(server, "cancel", name)
    server.end(name)
    until(lambda: json.loads(call(server, "status", "--json").stdout)["stats"]["canceled"])


def test_a_dead_job_succeeds_in_its_second_life(lab):
    server = lab.redis()
    entry = bury(server, "j1", **{k: str(v) for k, v in SHORT.items()})
    assert call(server, "dead", "retry", entry).returncode == 0
    lab.worker(server).ready()
    end = server.end("j1")
    assert end["event"] == "succeeded"
    assert [e for e in server.events("j1") if e["event"] == "started"][0]["attempt"] == 1


# --- mistakes ---

@pytest.mark.parametrize("arguments", [
    ["status", "5"], ["status", "--watch", "x"], ["status", "--watch", "0"],
    ["status", "--watch", "1", "2"], ["cancel"], ["cancel", "a b"], ["cancel", "x" * 129],
    ["pause"], ["pause", "middle"], ["resume", ""], ["drain"], ["drain", "--timeout", "0"],
    ["dead"], ["dead", "bury"], ["dead", "list", "1-1"], ["dead", "show"],
    ["dead", "show", "1-1", "2-2"], ["dead", "retry"], ["dead", "retry", "x"],
    ["dead", "drop", "--all", "1-1"], ["dead", "list", "--count", "0"]])
def test_exit_64_for_a_wrong_command_line(server, arguments):
    done = call(server, *arguments)
    assert done.returncode == 64 and done.stderr.startswith("darkroom: ")
    assert server.client.dbsize() == 0


@pytest.mark.parametrize("arguments", [
    ["status"], ["status", "--watch"], ["cancel", "a"], ["pause", "low"], ["resume", "all"],
    ["drain", "w"], ["dead", "list"], ["dead", "show", "1-1"], ["dead", "retry", "1-1"],
    ["dead", "retry", "--all"], ["dead", "drop", "1-1"], ["dead", "drop", "--all"]])
def test_exit_69_without_redis(arguments):
    done = darkroom(arguments[0], "--redis", "redis://127.0.0.1:1", *arguments[1:])
    assert done.returncode == 69
    assert "redis://127.0.0.1:1" in done.stderr and done.stdout == ""


@pytest.mark.parametrize("command", ["status", "cancel", "pause", "resume", "drain", "dead"])
def test_help(command):
    done = darkroom(command, "--help")
    assert done.returncode == 0
    assert done.stdout.startswith(f"usage: darkroom {command} ")
    assert "examples:" in done.stdout and "exit codes:" in done.stdout
    assert max(map(len, done.stdout.splitlines())) <= 100
