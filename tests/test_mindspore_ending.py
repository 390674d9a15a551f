"""How one of several MindSpore processes ends: with its own exit code, without MindSpore's exit functions, and with a leave where
a scheduler counts the processes. MindSpore is stood for by an exit function of the test, registered when MindSpore's are."""

from __future__ import annotations

import signal
import subprocess
import sys
from types import SimpleNamespace

import pytest

pytestmark = pytest.mark.only_backend("mindspore")

PROGRAM = """
import atexit, ctypes, os, signal, sys
from crossdistil.backends.mindspore import ending
atexit.register({exit_function})
ending._LEAVE_SECONDS = {seconds}
ending.{ends}
atexit.register(print, "an exit function of ours")
print("said")
print("an error", file=sys.stderr)
{code}
"""
SAID = "said\nan exit function of ours\n"
CRASHES = {"SIGSEGV": "getattr(ctypes.CDLL(None), 'raise')(signal.SIGSEGV)", "SIGABRT": "ctypes.CDLL(None).abort()"}


def ended(code: str, ends: str, exit_function: str = "os.abort", seconds: float = 30.0) -> tuple[int, str, str]:
    program = PROGRAM.format(code=code, ends=ends, exit_function=exit_function, seconds=seconds)
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60)
    return done.returncode, done.stdout, done.stderr


@pytest.mark.parametrize(("code", "exit_code"), [("", 0), ("sys.exit(2)", 2)])
def test_its_exit_functions_which_may_crash_are_left_out(code, exit_code):
    """MindSpore 2.10.0 frees the connections to the others while its own thread reads them."""
    assert ended(code, "end_as_one_of_several()") == (exit_code, SAID, "an error\n")


@pytest.mark.parametrize(("code", "exit_code"), [("", 0), ("sys.exit(2)", 2)])
def test_leave_is_taken_where_a_scheduler_waits_for_it(tmp_path, code, exit_code):
    left = tmp_path / "left"
    ends = f"end_as_one_of_several(lambda: open({str(left)!r}, 'w').close())"
    assert ended(code, ends) == (exit_code, SAID, "an error\n")
    assert left.exists()


@pytest.mark.parametrize("crash", CRASHES)
def test_a_crash_of_the_leave_changes_no_exit_code(crash):
    assert ended("sys.exit(3)", f"end_as_one_of_several(lambda: {CRASHES[crash]})", seconds=0.3) == (3, SAID, "an error\n")


@pytest.mark.parametrize("crash", CRASHES)
def test_a_crash_before_the_end_is_one(crash):
    assert ended(CRASHES[crash], "end_as_one_of_several(lambda: None)")[0] == -getattr(signal, crash)


def test_a_scheduler_ends_by_its_exit_functions(tmp_path):
    waited = tmp_path / "waited"
    ends = f"lambda: open({str(waited)!r}, 'w').close()"
    assert ended("sys.exit(3)", "end_by_exit_functions()", ends) == (3, SAID, "an error\n")
    assert waited.exists()


def test_mindspore_has_the_leave():
    from crossdistil.backends.mindspore import collective

    assert collective._leave()


@pytest.mark.parametrize(("launcher", "ends"), [("msrun", ["exit functions"]), ("the launcher", [])])
def test_a_build_without_that_leave_ends_by_its_exit_functions(monkeypatch, launcher, ends):
    from crossdistil.backends.mindspore import collective
    from crossdistil.core.place import Place

    found = []
    monkeypatch.setattr(collective, "ms", SimpleNamespace(__file__="no/mindspore.py"))
    monkeypatch.setattr(collective, "end_by_exit_functions", lambda: found.append("exit functions"))
    monkeypatch.setattr(collective, "end_as_one_of_several", lambda *leave: found.extend(leave))
    collective._end_together(Place(1, 2, 1, launcher))
    assert found == ends
