"""Ways to Redis: TLS, narrow ACL users, Sentinel with a failover, a cluster whose slots move.
Real servers, certificates made by `openssl`."""
import re
import shutil
import socket
import subprocess
import tempfile
from pathlib import Path
from urllib.parse import quote

import pytest
import redis as redis_py

from conftest import P, PROGRAM, ROOT, Redis, darkroom, until

PROMPT = "a red circle on a blue background"
SMALL = {"width": 64, "height": 64, "steps": 1}
SECRET = "p@ss/w:rd%"

# What each side needs, and no more. All commands of the scripts are in them.
KEYS = "~{darkroom}:* &{darkroom}:* -@all"
WORKER_MAY = """evalsha script|load info time get getrange set del incr expire pexpire publish
    hget hset hmget hincrby smembers sismember
    zadd zrem zcard zscore zrange zrangebyscore zrevrange zremrangebyscore
    xadd xack xdel xlen xread xreadgroup xrange xclaim xpending subscribe
    xgroup|create xgroup|setid xgroup|delconsumer xinfo|groups xinfo|stream xinfo|consumers"""
CLIENT_MAY = """evalsha script|load time get set exists expire publish hset hexists
    xadd xack xdel xread xrange xpending xinfo|groups subscribe"""
CLIENT_SCRIPTS = {"submit"}
OPERATOR_MAY = CLIENT_MAY + """ info ttl del sadd srem smembers sismember
    hget hmget hincrby zrem zcard zscore zrange zrevrange xlen xrevrange xtrim"""
OPERATOR_SCRIPTS = {"cancel", "dead_retry", "drain", "status", "submit"}


def rule(commands):
    return (*KEYS.split(), *(f"+{c}" for c in commands.split()))


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


class Server(Redis):
    """A redis-server on TCP; a unix socket besides lets the tests look inside."""

    def __init__(self, *options, scheme="redis", user=""):
        super().__init__()
        self.port = free_port()
        self.url = f"{scheme}://{user}127.0.0.1:{self.port}"
        tls = scheme.startswith("rediss")
        self.options = ("--tls-port" if tls else "--port", str(self.port),
                        "--repl-diskless-sync-delay", "0", *map(str, options))


class Sentinel(Server):
    """Watches one master under the name main."""

    def __init__(self, master, *lines):
        super().__init__()
        config = self.dir / "sentinel.conf"
        config.write_text("\n".join([
            f"port {self.port}", f"unixsocket {self.socket}",
            f"sentinel monitor main 127.0.0.1 {master.port} 1",
            "sentinel down-after-milliseconds main 500",
            "sentinel failover-timeout main 2000", *lines, ""]))
        self.command = ["redis-server", str(config), "--sentinel"]

    def start(self):
        self.process = subprocess.Popen(self.command, stdout=subprocess.DEVNULL)
        until(self.answers, 10, "the Sentinel")
        return self

    def answers(self):
        try:
            return self.client.ping()
        except redis_py.exceptions.AuthenticationError:
            return True
        except redis_py.exceptions.ConnectionError:
            return False


@pytest.fixture
def servers(lab):
    """Start servers that end with the test."""
    def start(*made):
        for server in made:
            lab.servers.append(server)
            server.start()
        return made[0] if len(made) == 1 else made
    return start


def submit(url, *options, **kwargs):
    return darkroom("submit", "--redis", url, PROMPT, "--size", "64x64", "--steps", 1,
                    *options, **kwargs)


def settings(**values):
    return [f"--set=redis.{key}={value}" for key, value in values.items()]


# --- certificates ---

class Authority:
    """Signs certificates with files ca.pem, NAME.pem and NAME.key in a folder."""

    def __init__(self, folder):
        self.dir = Path(folder)
        self.dir.mkdir(exist_ok=True)
        self.ca = self.dir / "ca.pem"
        self.run("req", "-x509", *self.new_key("ca"), "-out", "ca.pem", "-subj", "/CN=test",
                 "-days", "2", "-addext", "basicConstraints=critical,CA:TRUE")

    def run(self, *arguments):
        subprocess.run(["openssl", *arguments], cwd=self.dir, check=True, capture_output=True)

    def new_key(self, name):
        return ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes",
                "-keyout", f"{name}.key"]

    def sign(self, name, names="DNS:localhost,IP:127.0.0.1", days=2):
        self.run("req", *self.new_key(name), "-out", f"{name}.csr", "-subj", f"/CN={name}",
                 "-addext", f"subjectAltName={names}")
        self.run("x509", "-req", "-in", f"{name}.csr", "-out", f"{name}.pem", "-CA", "ca.pem",
                 "-CAkey", "ca.key", "-CAcreateserial", "-days", str(days),
                 "-copy_extensions", "copy")
        return str(self.dir / f"{name}.pem"), str(self.dir / f"{name}.key")

    def server_options(self, name="server", **kwargs):
        cert, key = self.sign(name, **kwargs)
        return ["--tls-cert-file", cert, "--tls-key-file", key, "--tls-ca-cert-file", self.ca]


@pytest.fixture(scope="module")
def pki():
    folder = Path(tempfile.mkdtemp(prefix="darkroom-pki-"))
    yield Authority(folder), Authority(folder / "stranger")
    shutil.rmtree(folder)


@pytest.fixture(scope="module")
def tls_server(pki):
    """Asks for a client's certificate; its own is exchanged by the tests."""
    own, stranger = pki
    server = Server(*own.server_options(), "--tls-auth-clients", "yes",
                    scheme="rediss").start()
    yield server
    server.close()


def test_tls_serves_jobs_and_takes_up_renewed_certificates(servers, lab, tmp_path):
    old = Authority(tmp_path / "pki")
    cert, key = old.sign("client")
    server = servers(Server(*old.server_options(), "--tls-auth-clients", "yes",
                            scheme="rediss"))
    ours = settings(tls_ca=old.ca, tls_cert=cert, tls_key=key)
    worker = lab.worker(server, *ours).ready()
    done = submit(server.url, *ours, "-o", tmp_path / "a.webp")
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "a.webp").read_bytes()[8:12] == b"WEBP"
    # Another authority, the same files: what a renewal looks like.
    server.kill()
    new = Authority(tmp_path / "pki")
    new.sign("client")
    new.sign("server")
    server.start()
    done = submit(server.url.replace("127.0.0.1", "localhost"), *ours, "-o",
                  tmp_path / "b.webp")
    assert done.returncode == 0, done.stderr
    assert worker.process.poll() is None and "ev=redis.up" in worker.log
    assert "BEGIN" not in worker.log


@pytest.mark.parametrize("case", [
    ("server", {}, "127.0.0.1", {"tls_ca": "stranger"}, "set redis.tls_ca to the PEM file"),
    ("server", {}, "127.0.0.1", {"tls_ca": ""}, "set redis.tls_ca to the PEM file"),
    ("elsewhere", {"names": "DNS:elsewhere.example"}, "localhost", {},
     'certificate of "localhost" is refused: hostname mismatch; use a name or address in'),
    ("named", {"names": "DNS:localhost"}, "127.0.0.1", {},
     'certificate of "127.0.0.1" is refused: IP address mismatch; use a name or address in'),
    ("expired", {"days": -1}, "127.0.0.1", {}, "certificate has expired; renew it"),
    ("server", {}, "127.0.0.1", {"tls_cert": "", "tls_key": ""},
     "the server asks for a certificate: set redis.tls_cert and redis.tls_key"),
    ("server", {}, "127.0.0.1", {"tls_cert": "stranger", "tls_key": "stranger"},
     "set redis.tls_cert and redis.tls_key"),
    ("server", {}, "127.0.0.1", {"tls_key": "server"}, "redis.tls_key = "),
], ids=["authority", "no-authority", "name", "address", "expired", "no-client", "client",
        "key"])
def test_tls_refusals_name_the_remedy(pki, tls_server, case):
    own, stranger = pki
    name, kinds, host, changes, said = case
    cert, key = own.sign(name, **kinds)
    tls_server.client.config_set("tls-cert-file", cert, "tls-key-file", key)
    ours, theirs = own.sign("client"), stranger.sign("client")
    values = {"tls_ca": own.ca, "tls_cert": ours[0], "tls_key": ours[1]}
    others = {"tls_ca": stranger.ca, "tls_cert": theirs[0], "tls_key": theirs[1]}
    for k, v in changes.items():
        values[k] = {"stranger": others[k], "server": key, "": ""}[v]
    done = submit(tls_server.url.replace("127.0.0.1", host), *settings(**values))
    assert done.returncode != 0 and said in done.stderr, done.stderr
    # Without the check each but the client's own faults would do.
    done = submit(tls_server.url, *settings(**values | {"tls_verify": "no"}))
    own_fault = "tls_cert" in changes or "tls_key" in changes
    assert (done.returncode != 0) == own_fault, done.stderr


def test_a_plain_url_for_a_tls_port_is_told(tls_server):
    done = submit(tls_server.url.replace("rediss:", "redis:"))
    assert done.returncode == 69 and "a TLS port needs rediss://" in done.stderr


# --- users ---

def commands_of(script):
    """The commands in a Lua script and in what all share, as ACL rules name them."""
    text = "".join((ROOT / "src/queue/lua" / f"{s}.lua").read_text()
                   for s in (script, "prelude"))
    found = re.findall(r"redis\.p?call\(\s*'(\w+)'(?:,\s*'(\w+)')?", text)
    return {f"{a}|{b}".lower() if a in ("XGROUP", "XINFO") else a.lower() for a, b in found}


def test_the_rules_name_what_the_scripts_use():
    scripts = {f.stem for f in (ROOT / "src/queue/lua").glob("*.lua")} - {"prelude"}
    workers = (scripts - OPERATOR_SCRIPTS) | {"status"}
    for may, used in ((WORKER_MAY, workers), (CLIENT_MAY, CLIENT_SCRIPTS),
                      (OPERATOR_MAY, OPERATOR_SCRIPTS)):
        for script in sorted(used):
            assert commands_of(script) <= set(may.split()), script


def test_narrow_users_are_enough(servers, lab, tmp_path):
    server = servers(Server())
    server.client.acl_setuser("admin", enabled=True, nopass=True, keys="*", channels="*",
                              categories=["+@all"])
    for name, may in (("worker", WORKER_MAY), ("client", CLIENT_MAY),
                      ("operator", OPERATOR_MAY)):
        server.client.execute_command("ACL", "SETUSER", name, "on", f">{SECRET}", *rule(may))
    server.client.execute_command("ACL", "SETUSER", "default", "off")
    server.client = redis_py.Redis(unix_socket_path=str(server.socket), username="admin")
    url, operator, server.url = (
        server.url.replace("//", f"//{name}:{quote(SECRET, safe='')}@")
        for name in ("client", "operator", "worker"))
    worker = lab.worker(server, "--set", "output.preview_every=1", name="one").ready()
    watch = subprocess.Popen([str(PROGRAM), "watch", "--redis", url, "--json"],
                             stdout=subprocess.PIPE, text=True)
    until(lambda: server.client.pubsub_numsub(f"{P}:progress")[0][1])
    done = submit(url, "-o", tmp_path / "a.webp")
    assert done.returncode == 0, done.stderr
    assert any('"succeeded"' in line for line in watch.stdout)
    watch.kill()
    watch.wait()
    assert submit(operator, "--field", "delay_ms=60000", "--field", "id=late").returncode == 0
    for words in (("pause", "low"), ("resume", "low"), ("status",), ("cancel", "late"),
                  ("drain", "one"), ("dead", "list"), ("dead", "retry", "--all"),
                  ("dead", "drop", "--all")):
        done = darkroom(*words, "--redis", operator)
        assert done.returncode == 0, (words, done.stderr)
    assert worker.wait() == 0, worker.log      # drained
    assert server.client.acl_log() == []
    assert SECRET not in worker.log and quote(SECRET, safe="") not in worker.log


@pytest.mark.parametrize("user,said", [
    ("", "NOAUTH"), ("client:wrong@", "WRONGPASS"), (":wrong@", "WRONGPASS"),
    ("blind:x@", "NOPERM"),
])
def test_refused_users_are_told(servers, user, said):
    server = servers(Server())
    server.client.execute_command("ACL", "SETUSER", "blind", "on", ">x", "-@all")
    server.client.config_set("requirepass", SECRET)
    done = submit(server.url.replace("//", f"//{user}"))
    assert done.returncode == 69 and said in done.stderr, done.stderr


# --- Sentinel ---

def master_port(sentinel):
    return int(sentinel.client.execute_command("SENTINEL", "GET-MASTER-ADDR-BY-NAME",
                                               "main")[1])


def test_a_failover_is_followed(servers, lab, tmp_path):
    master = servers(Server())
    replica = servers(Server("--replicaof", f"127.0.0.1 {master.port}"))
    until(lambda: replica.client.info("replication")["master_link_status"] == "up")
    sentinel = servers(Sentinel(master))
    until(lambda: sentinel.client.execute_command("SENTINEL", "REPLICAS", "main"))
    # The first Sentinel of the two is not there.
    url = f"redis+sentinel://127.0.0.1:{free_port()},127.0.0.1:{sentinel.port}/main"
    sentinel.url = url
    worker = lab.worker(sentinel).ready()
    done = submit(url, "-o", tmp_path / "a.webp")
    assert done.returncode == 0, done.stderr
    master.kill()
    until(lambda: master_port(sentinel) == replica.port, 20, "the failover")
    job = replica.submit(prompt=PROMPT, **SMALL)
    assert replica.end(job)["event"] == "succeeded"
    assert f"redis://127.0.0.1:{replica.port}/0" in worker.log
    done = submit(url, "-o", tmp_path / "b.webp")
    assert done.returncode == 0, done.stderr


def test_sentinel_over_tls_with_passwords(pki, servers):
    own, _ = pki
    tls = [str(o) for o in own.server_options()] + ["--tls-auth-clients", "no"]
    master = servers(Server(*tls, scheme="rediss"))
    master.client.execute_command("ACL", "SETUSER", "data", "on", ">one", *rule(CLIENT_MAY),
                                  "+role")
    lines = [f"{a[2:]} {b}" for a, b in zip(tls[::2], tls[1::2])]
    sentinel = Sentinel(master, *lines, "port 0", "tls-replication yes", "requirepass two")
    config = sentinel.dir / "sentinel.conf"
    config.write_text(config.read_text() + f"tls-port {sentinel.port}\n")
    servers(sentinel)
    url = f"rediss+sentinel://data:one@127.0.0.1:{sentinel.port}"
    ours = settings(tls_ca=own.ca, sentinel_password="two")
    until(lambda: not submit(f"{url}/main", *ours).returncode, 10)
    assert master.waiting() >= 1
    for path, options, said in (
            ("/main", settings(tls_ca=own.ca), "check redis.sentinel_password: redis: NOAUTH"),
            ("/main", settings(tls_ca=own.ca, sentinel_password="three"),
             "check redis.sentinel_password: redis: WRONGPASS"),
            ("/other", ours, 'it knows no master "other"; redis.url must end in the name'),
            ("/main", settings(sentinel_password="two"), "set redis.tls_ca")):
        done = submit(url + path, *options)
        assert done.returncode == 69 and said in done.stderr, done.stderr
        assert "one" not in done.stderr.replace("none", "")


# --- cluster ---

def make_cluster(servers):
    """Two nodes with half of the slots each; the one that has ours first."""
    nodes = servers(*(Server("--cluster-enabled", "yes", "--cluster-port", free_port())
                      for _ in range(2)))
    for node, slots in zip(nodes, ((0, 8191), (8192, 16383))):
        node.client.execute_command("CLUSTER", "ADDSLOTSRANGE", *slots)
        node.id = node.client.execute_command("CLUSTER", "MYID").decode()
    bus = nodes[1].client.config_get("cluster-port")["cluster-port"]
    nodes[0].client.execute_command("CLUSTER", "MEET", "127.0.0.1", nodes[1].port, bus)
    for node in nodes:
        until(lambda: node.client.execute_command("CLUSTER INFO")["cluster_state"] == "ok")
    slot = nodes[0].client.execute_command("CLUSTER", "KEYSLOT", P)
    return slot, *(nodes if slot < 8192 else nodes[::-1])


def test_a_cluster_leads_to_the_node_with_the_keys(servers, lab, tmp_path):
    slot, owner, other = make_cluster(servers)
    worker = lab.worker(other).ready()
    done = submit(other.url, "-o", tmp_path / "a.webp")
    assert done.returncode == 0, done.stderr
    assert owner.client.exists(f"{P}:fence")
    # The slot moves to the other node while the worker waits for jobs.
    ask = [node.client.execute_command for node in (owner, other)]
    ask[1]("CLUSTER", "SETSLOT", slot, "IMPORTING", owner.id)
    ask[0]("CLUSTER", "SETSLOT", slot, "MIGRATING", other.id)
    while keys := ask[0]("CLUSTER", "GETKEYSINSLOT", slot, 100):
        ask[0]("MIGRATE", "127.0.0.1", other.port, "", 0, 5000, "KEYS", *keys)
    for node in (1, 0):
        ask[node]("CLUSTER", "SETSLOT", slot, "NODE", other.id)
    job = other.submit(prompt=PROMPT, **SMALL)
    assert other.end(job)["event"] == "succeeded"
    done = submit(owner.url, "-o", tmp_path / "b.webp")
    assert done.returncode == 0, done.stderr
    assert worker.process.poll() is None and "MOVED" not in worker.log


def test_a_dead_node_leads_back_to_the_url(servers, lab):
    slot, owner, other = make_cluster(servers)
    other.client.execute_command("CONFIG", "SET", "cluster-require-full-coverage", "no")
    worker = lab.worker(other).ready()
    owner.kill()
    worker.says("ev=redis.down")
    # The other node takes over our slot, as an operator would decide.
    other.client.execute_command("CLUSTER", "FORGET", owner.id)
    other.client.execute_command("CLUSTER", "ADDSLOTS", slot)
    job = until(lambda: other.submit(prompt=PROMPT, **SMALL))
    assert other.end(job)["event"] == "succeeded"
