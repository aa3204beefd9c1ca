"""Memory and descriptors stay flat over many jobs. DARKROOM_SOAK_JOBS=2000 for a long run."""
import os
from pathlib import Path

from conftest import P

JOBS = int(os.environ.get("DARKROOM_SOAK_JOBS", "100"))
WARM = 30
GROWTH_KB = 6 * 1024


def rss_kb(pid):
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1])
    raise AssertionError("no VmRSS")


def descriptors(pid):
    return len(list(Path(f"/proc/{pid}/fd").iterdir()))


def run(redis, count):
    """Jobs as they come: good ones, previews, several pictures, bad ones; distinct prompts."""
    names = []
    for i in range(count):
        job = {"prompt": f"a red circle {i}", "width": 64, "height": 64, "steps": 1, "seed": i}
        if i % 10 == 3:
            job["n"] = 2
        if i % 10 == 5:
            job |= {"steps": 2, "preview_every": 1}
        if i % 10 == 7:
            job["width"] = 65
        names.append(redis.submit(**job))
    for i, name in enumerate(names):
        assert redis.end(name, 300)["event"] == ("failed" if i % 10 == 7 else "succeeded")


def test_memory_and_descriptors_stay_flat(lab, monkeypatch):
    # Where the address sanitizer runs, freed memory must come back to be counted.
    monkeypatch.setenv("ASAN_OPTIONS", ":".join([os.environ.get("ASAN_OPTIONS", ""),
                                                "quarantine_size_mb=1",
                                                "thread_local_quarantine_size_kb=64"]))
    redis = lab.redis()
    worker = lab.worker(redis, "--set", "model.text_cache=16").ready()
    run(redis, WARM)
    memory, files = rss_kb(worker.process.pid), descriptors(worker.process.pid)
    run(redis, JOBS)
    assert descriptors(worker.process.pid) == files
    assert rss_kb(worker.process.pid) - memory < GROWTH_KB
    assert redis.waiting() == 0
    assert int(redis.client.get(f"{P}:fence")) == WARM + JOBS
