"""The kill matrix (matrix.py). A choice of its cells with short leases; DARKROOM_MATRIX=all
runs them all, DARKROOM_MATRIX_LEASE_MS=20000 with that lease, and writes
build/chaos-LEASE.md."""
import os
from concurrent.futures import ThreadPoolExecutor

import pytest

from conftest import BUILD, SLOW
from matrix import FAULTS, MOMENTS, Cell, table

ALL = os.environ.get("DARKROOM_MATRIX") == "all"
LEASE_MS = int(os.environ.get("DARKROOM_MATRIX_LEASE_MS", str(int(2000 * SLOW))))
AT_ONCE = 4 if LEASE_MS < 10000 else 8  # a cell with a long lease mostly waits
MODES = {False: "one job", True: "the second of two jobs in a batch"}

# Every fault and every moment at least once; True: in a batch.
CHOICE = [
    ("SIGKILL", "before finish", False),
    ("SIGSTOP, two leases", "start unheard", True),
    ("SIGSTOP, until taken over", "mid-steps", False),
    ("SIGTERM", "mid-steps", False),
    ("Redis killed, restarted", "finish unheard", True),
    ("CLIENT KILL", "claim unheard", True),
    ("FLUSHALL", "picture unheard", False),
    ("maxmemory reached", "after claim", False),
    ("network gone, two leases", "after finish", False),
    ("network gone, until taken over", "before finish", True),
]
CELLS = [(f, m, b) for b in MODES for f in FAULTS for m in MOMENTS] if ALL else CHOICE


def report(cells):
    return "\n".join(table([c for c in cells if c.in_batch == mode],
                           f"Recovery in seconds, lease {LEASE_MS / 1000:g} s, {name}")
                     for mode, name in MODES.items())


@pytest.fixture(scope="module")
def matrix():
    """Every cell as a future: they mostly wait, so several run at once."""
    with ThreadPoolExecutor(AT_ONCE) as pool:
        cells = {c: pool.submit(Cell(*c, LEASE_MS).run) for c in CELLS}
        yield cells
    if ALL:
        text = report([f.result() for f in cells.values()])
        (BUILD / f"chaos-{LEASE_MS}.md").write_text(text)


@pytest.mark.parametrize("fault, moment, in_batch", CELLS)
def test_a_job_ends_once(matrix, fault, moment, in_batch):
    cell = matrix[fault, moment, in_batch].result()
    assert not cell.complaints, "\n".join(cell.complaints + [
        f"--- {name}\n{log}" for name, log in cell.logs.items()])
