"""The kill matrix (matrix.py). A choice of its cells with short leases; DARKROOM_MATRIX=all
runs them all, DARKROOM_MATRIX_LEASE_MS=20000 with that lease, and writes
build/chaos-LEASE.md."""
import os
from concurrent.futures import ThreadPoolExecutor

import pytest

from conftest import BUILD, SLOW
from matrix import FAULTS, MOMENTS, Cell, table

ALL = os.environ.get("DARKROOM_MATRIX") == "all"
LEASE_MS = int(os.environ.get("DARKROOM_MATRIX_LEASE_MS",
                              str(int(2000 * SLOW))))
AT_ONCE = 4 if LEASE_MS < 10000 else 8  # a cell with a long lease mostly waits

# Every fault and every moment at least once.
CHOICE = [
    ("SIGKILL", "before finish"),
    ("SIGSTOP, two leases", "start unheard"),
    ("SIGSTOP, until taken over", "mid-steps"),
    ("SIGTERM", "mid-steps"),
    ("Redis killed, restarted", "finish unheard"),
    ("CLIENT KILL", "claim unheard"),
    ("FLUSHALL", "picture unheard"),
    ("maxmemory reached", "after claim"),
    ("network gone, two leases", "after finish"),
    ("network gone, until taken over", "before finish"),
]
CELLS = [(f, m) for f in FAULTS for m in MOMENTS] if ALL else CHOICE


@pytest.fixture(scope="module")
def matrix():
    """Every cell as a future: they mostly wait, so several run at once."""
    with ThreadPoolExecutor(AT_ONCE) as pool:
        cells = {c: pool.submit(Cell(*c, LEASE_MS).run) for c in CELLS}
        yield cells
    if ALL:
        text = table([f.result() for f in cells.values()], LEASE_MS)
        (BUILD / f"chaos-{LEASE_MS}.md").write_text(text)


@pytest.mark.parametrize("fault, moment", CELLS)
def test_a_job_ends_once(matrix, fault, moment):
    cell = matrix[fault, moment].result()
    assert not cell.complaints, "\n".join(cell.complaints + [
        f"--- {name}\n{log}" for name, log in cell.logs.items()])
