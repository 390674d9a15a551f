"""Several OneFlow processes: one sum a step, of everything; gradients that not all have; and how the others end when one dies.
That each recipe gives the numbers of one process is held by the tests over all backends."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

from crossdistil.core.app import devices
from crossdistil.core.engine import EngineOptions
from crossdistil.core.errors import BackendError
from crossdistil.core.place import Place
from crossdistil.core.processes import child_environment, python_command
from crossdistil.core.world import Share
from crossdistil.tests import oneflow_ranks
from crossdistil.tests.oneflow_ranks import FLOATS, STEPS, run_steps

pytestmark = pytest.mark.only_backend("oneflow")


@pytest.fixture(scope="module")
def two(tmp_path_factory):
    """(what rank 0 found, its exit code, what it printed as errors, how long it lived on after rank 1)."""
    out = tmp_path_factory.mktemp("two") / "found.npz"
    command = python_command(sys.executable, oneflow_ranks.__name__, str(out))
    processes = [
        subprocess.Popen(command, env={**child_environment(), **own}, stderr=subprocess.PIPE, text=True)
        for own in devices._variables("oneflow", 2)
    ]
    first, second = processes
    try:
        assert second.wait(300) == -9, first.communicate(timeout=60)[1] + second.communicate()[1]
        died = time.monotonic()
        errors = first.communicate(timeout=60)[1]
        return dict(np.load(out)), first.returncode, errors, time.monotonic() - died
    finally:
        for process in processes:
            process.kill()
            process.wait()


def test_there_is_one_sum_a_step(two):
    found = two[0]
    assert found["sums"].tolist() == [FLOATS] * STEPS
    assert found["with statistics"].tolist() == [1, FLOATS] * STEPS
    assert found["waited"] > 0


def test_gradients_that_a_process_lacks_are_zero(two, engine):
    values, parameters, waited = run_steps(engine, Share())
    assert waited == 0.0
    np.testing.assert_allclose(two[0]["values"], values, rtol=1e-6, atol=1e-6)
    for name, expected in parameters.items():
        np.testing.assert_allclose(two[0][f"parameters/{name}"], expected, rtol=1e-6, atol=1e-6, err_msg=name)
        assert np.abs(expected - oneflow_ranks.parameters()[name]).max() > 1e-3


def test_a_process_that_dies_is_named_and_the_others_end(two):
    _, code, errors, seconds = two
    assert code == 1 and errors.count("\n") == 1, errors
    assert errors.startswith("crossdistil: error: rank 1 of 2 (process ") and "has ended without a word" in errors
    assert seconds < 30


ENDS = """
import ctypes, os, sys, threading, time
from crossdistil.backends.oneflow.last_words import end_as_one_of_several
end_as_one_of_several()
os.write(2, b"F check failed\\n*** stack trace ***\\n")
print("said", file=sys.stderr)
"""


@pytest.mark.parametrize(
    ("code", "exit_code", "errors"),
    [
        (
            "threading.Thread(target=ctypes.CDLL(None).abort).start(); time.sleep(60)",
            -6,
            "said\nF check failed\n*** stack trace ***\n",
        ),
        ("threading.Thread(target=ctypes.CDLL(None).abort).start(); time.sleep(1); os._exit(1)", 1, "said\n"),
        ("sys.exit(2)", 2, "said\n"),
        ("sys.exit()", 0, "said\nF check failed\n*** stack trace ***\n"),
    ],
    ids=["an abort of its own", "ended in time", "an error that was told", "a good end"],
)
def test_what_cpp_prints_is_shown_where_nothing_else_is_said(code, exit_code, errors):
    done = subprocess.run([sys.executable, "-c", ENDS + code], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr) == (exit_code, errors)


def test_others_that_do_not_come_are_not_waited_for_for_ever():
    code = "from crossdistil.backends.oneflow import import_quietly; import_quietly()"
    environment = {**os.environ, **devices._variables("oneflow", 2)[1], "CROSSDISTIL_WAIT_SECONDS": "2"}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, env=environment)
    assert done.returncode == -signal.SIGALRM
    assert done.stderr.startswith("crossdistil: error: rank 1 of 2: OneFlow has waited for the other processes at 127.0.0.1:")
    assert done.stderr.endswith(" for 2 s, and not all came\n") and done.stderr.count("\n") == 1


def test_each_of_several_processes_has_its_own_device():
    from crossdistil.backends.oneflow.engine import OneFlowEngine, count_devices

    with pytest.raises(BackendError, match="^device 'cuda:1': each of 2 processes has its own; name the kind, cuda$"):
        OneFlowEngine(EngineOptions("cuda:1", place=Place(1, 2, 1, "the launcher")))
    with pytest.raises(BackendError, match="^the launcher: this is process 1 of 2, but OneFlow has joined as 0 of 1"):
        OneFlowEngine(EngineOptions("cpu", place=Place(1, 2, 1, "the launcher")))
    assert count_devices("cpu") == count_devices("npu") == 0
