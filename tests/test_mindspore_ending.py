"""How one of several MindSpore processes ends: with its own exit code, and with MindSpore's leave of the others only where a
scheduler counts them. MindSpore is stood for by an exit function of the test, registered when MindSpore's are."""

from __future__ import annotations

import signal
import subprocess
import sys

import pytest

pytestmark = pytest.mark.only_backend("mindspore")

PROGRAM = """
import atexit, os, sys
from crossdistil.backends.mindspore import ending
atexit.register({leave})
ending.end_as_one_of_several(takes_leave={takes_leave})
atexit.register(print, "an exit function of ours")
print("said")
print("an error", file=sys.stderr)
{code}
"""


def ended(code: str, takes_leave: bool, leave: str) -> tuple[int, str, str]:
    program = PROGRAM.format(code=code, takes_leave=takes_leave, leave=leave)
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60)
    return done.returncode, done.stdout, done.stderr


@pytest.mark.parametrize(("code", "exit_code"), [("", 0), ("sys.exit(2)", 2)])
def test_a_crash_of_its_leave_is_left_out_where_nobody_waits_for_it(code, exit_code):
    """MindSpore 2.10.0 frees the connections to the others while its own thread reads them."""
    said = "said\nan exit function of ours\n"
    assert ended(code, False, "os.abort") == (exit_code, said, "an error\n")
    assert ended(code, True, "os.abort") == (-signal.SIGABRT, said, "an error\n")


def test_leave_is_taken_where_a_scheduler_waits_for_it(tmp_path):
    left = tmp_path / "left"
    assert ended("sys.exit(3)", True, f"lambda: open({str(left)!r}, 'w').close()")[0] == 3
    assert left.exists()
