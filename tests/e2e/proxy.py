"""A TCP proxy between a worker and Redis that understands what it passes on: it can stop at
a chosen script's call, keep back its reply, and behave like a network that is gone."""
import hashlib
import socket
import threading
from collections import Counter

from conftest import ROOT, SLOW

LUA = ROOT / "src/queue/lua"


def script_names():
    """{sha1: name} of the scripts as the program loads them: the first line, the prelude,
    the rest."""
    prelude = (LUA / "prelude.lua").read_text()
    names = {}
    for path in LUA.glob("*.lua"):
        head, rest = path.read_text().split("\n", 1)
        text = f"{head}\n{prelude}\n{rest}"
        names[hashlib.sha1(text.encode()).hexdigest()] = path.stem
    return names


# --- the protocol ---

def end_of_frame(data, at=0):
    """Where the value that begins at `at` ends; None: it is not all there."""
    line = data.find(b"\r\n", at)
    if line < 0:
        return None
    kind, rest, at = data[at:at + 1], data[at + 1:line], line + 2
    if kind == b"$" and int(rest) >= 0:
        at += int(rest) + 2
        return at if at <= len(data) else None
    for _ in range(int(rest) if kind == b"*" else 0):
        at = end_of_frame(data, at)
        if at is None:
            return None
    return at


def frames(sock):
    """The values that come in, each as its bytes, until the connection ends."""
    data = b""
    while True:
        end = end_of_frame(data)
        while end is None:
            try:
                more = sock.recv(1 << 16)
            except OSError:
                more = b""
            if not more:
                return
            data += more
            end = end_of_frame(data)
        yield data[:end]
        data = data[end:]


def words_of(frame):
    """The strings of a command."""
    words, at = [], frame.find(b"\r\n") + 2
    while at < len(frame):
        line = frame.find(b"\r\n", at)
        n = int(frame[at + 1:line])
        words.append(frame[line + 2:line + 2 + n])
        at = line + 2 + n + 2
    return words


# --- the proxy ---

class Trap:
    """Springs once, at the first request that wants(script, words) accepts, before it
    reaches Redis; with is_reply, once Redis has carried it out and given a reply that
    is_reply(frame) accepts, before the worker hears of it. That connection stands still
    until release()."""

    def __init__(self, wants, is_reply=None):
        self.wants, self.is_reply = wants, is_reply
        self.sprung, self.go = threading.Event(), threading.Event()
        self.drop = False

    def wait(self, seconds=60.0):
        assert self.sprung.wait(seconds * SLOW), "the moment never came"

    def release(self, drop=False):
        """Pass on what was kept back; drop: it is lost, with its connection."""
        self.drop = drop
        self.go.set()

    def is_for(self, script, words):
        return not self.sprung.is_set() and self.wants(script, words)

    def hold(self):
        """By the connection: True when it may go on."""
        self.sprung.set()
        self.go.wait()
        return not self.drop


class Connection:
    """One of the worker's. Requests and replies take turns, but for what Redis pushes to
    subscribers."""

    def __init__(self, proxy, worker):
        self.proxy, self.worker = proxy, worker
        self.redis = socket.socket(socket.AF_UNIX)
        self.reply_trap = None
        try:
            self.redis.connect(str(proxy.path))
            self.redis.sendall(b"*2\r\n$6\r\nCLIENT\r\n$2\r\nID\r\n")
            self.id = int(next(frames(self.redis), b":0\r\n")[1:])
        except OSError:
            self.cut()
            return
        for pump in (self.pass_requests, self.pass_replies):
            threading.Thread(target=pump, daemon=True).start()

    def cut(self):
        for sock in (self.worker, self.redis):
            try:
                sock.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass

    def close(self):
        self.cut()
        self.worker.close()
        self.redis.close()

    def pass_requests(self):
        for frame in frames(self.worker):
            words = words_of(frame)
            script = self.proxy.name_of(words)
            self.proxy.calls[script] += 1
            trap = self.proxy.trap
            if trap and trap.is_for(script, words):
                if trap.is_reply:
                    self.reply_trap = trap
                elif not trap.hold():
                    break
            if not self.send(self.redis, frame):
                break
        self.cut()

    def pass_replies(self):
        for frame in frames(self.redis):
            trap, self.reply_trap = self.reply_trap, None
            if trap and trap.is_reply(frame) and not trap.hold():
                break
            if not self.send(self.worker, frame):
                break
        self.cut()

    def send(self, sock, frame):
        """A black hole keeps packets on their way; later they arrive all the same."""
        self.proxy.open.wait()
        try:
            sock.sendall(frame)
        except OSError:
            return False
        return True


class Proxy:
    """Listens on a port of its own and leads to the Redis on a unix socket."""

    names = script_names()

    def __init__(self, path):
        self.path = path
        self.open = threading.Event()
        self.open.set()
        self.trap, self.connections = None, []
        self.calls = Counter()
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"redis://127.0.0.1:{self.listener.getsockname()[1]}"
        threading.Thread(target=self.accept, daemon=True).start()

    def accept(self):
        while True:
            try:
                worker, _ = self.listener.accept()
            except OSError:
                return
            worker.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self.connections.append(Connection(self, worker))

    def name_of(self, words):
        """The script that a command calls, or None."""
        if words[0].upper() != b"EVALSHA":
            return None
        return self.names[words[1].decode()]

    def set_trap(self, wants, is_reply=None):
        self.trap = Trap(wants, is_reply)
        return self.trap

    def ids(self):
        """What Redis calls the connections."""
        return [c.id for c in self.connections]

    def vanish(self):
        """From now on nothing arrives, and nobody is told so."""
        self.open.clear()

    def heal(self):
        """What was on its way arrives, also from connections that were given up."""
        self.open.set()

    def close(self):
        self.listener.close()
        if self.trap:
            self.trap.release(drop=True)
        self.open.set()
        for connection in self.connections:
            connection.close()
