"""Processes that a command has started: what is said when they end, and with which exit code; small programs stand for ranks."""

from __future__ import annotations

import os
import signal
import sys
import threading
import time

import pytest

from crossdistil.core.app import devices, started
from crossdistil.core.app.devices import Machines, machines_of, number_of, numbers_of, refuse_devices
from crossdistil.core.app.started import Started
from crossdistil.core.errors import CrossdistilError
from crossdistil.core.peers import LOST
from crossdistil.core.place import Place

PROGRAM = """
import os, signal, sys, time
def say(text): print("crossdistil: error: " + text, file=sys.stderr, flush=True)
def die(): os.kill(os.getpid(), signal.SIGKILL)
def on(number, code):
    signal.signal(number, lambda *_: sys.exit(code))
    signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGINT, signal.SIGTERM])
    print("ready", flush=True); time.sleep(60)
exec(os.environ["RANK_" + os.environ["RANK"]])
"""


@pytest.fixture
def go(monkeypatch, capfd):
    # A signal that comes when the processes have ended already must not end the tests.
    handlers = {number: signal.signal(number, lambda *_: None) for number in (signal.SIGINT, signal.SIGTERM)}
    senders = []

    def run(*programs, first=0, size=None, text=None, during=None):
        monkeypatch.setattr(started, "python_command", lambda *_: [sys.executable, "-S", "-c", PROGRAM])
        monkeypatch.setattr(sys, "argv", ["crossdistil", "run"])
        # What ends by itself has the time to start on a busy machine.
        monkeypatch.setattr(started, "_GRACE_SECONDS", 1.0 if any("sleep(60)" in program for program in programs) else 60.0)
        monkeypatch.setattr(started, "_LAST_SECONDS", 1.5)
        environment = {**os.environ, **{f"RANK_{first + index}": program for index, program in enumerate(programs)}}
        variables = [{"RANK": str(first + index)} for index in range(len(programs))]
        before = time.monotonic()
        with Started(variables, environment, text, size or len(programs)) as processes:
            if during is not None:
                senders.append(threading.Thread(target=during, args=(processes._processes,), daemon=True))
                senders[-1].start()
            code = processes.wait()
        assert all(process.returncode is not None for process in processes._processes)
        output, errors = capfd.readouterr()
        return code, output, [line.removeprefix("crossdistil: ") for line in errors.splitlines()], time.monotonic() - before

    yield run
    for sender in senders:
        sender.join()
    for number, handler in handlers.items():
        signal.signal(number, handler)


RESUME = "--resume goes on from the last saved state, if there is one"
KILLED = f"ended with signal SIGKILL (the system sends it where memory runs out); {RESUME}"


@pytest.mark.parametrize(
    ("programs", "code", "lines"),
    [
        (["print('one')", "print('other')"], 0, []),
        # The first one has said why it ends.
        (["say('wrong'); sys.exit(2)", "time.sleep(60)"], 2, ["error: wrong"]),
        (["time.sleep(.3); say('rank 1: wrong'); sys.exit(2)", "say('wrong'); sys.exit(2)"], 2, ["error: rank 1: wrong"]),
        # Killed by a signal, and the others notice, or do not.
        (["time.sleep(60)", "die()"], 1, [f"error: rank 1 of 2: {KILLED}"]),
        ([f"time.sleep(.3); sys.exit({LOST})", "die()"], 1, [f"error: rank 1 of 2: {KILLED}"]),
        (["die()", f"time.sleep(.3); sys.exit({LOST})"], 1, [f"error: rank 0 of 2: {KILLED}"]),
        (["die()", "time.sleep(60)"], 1, [f"error: rank 0 of 2: {KILLED}"]),
        # One says what the first cannot.
        (["time.sleep(60)", "say('no device'); sys.exit(2)"], 2, ["error: rank 1 of 2: no device"]),
        (["time.sleep(60)", "say('rank 0 of 2: is silent'); sys.exit(1)"], 1, ["error: rank 0 of 2: is silent"]),
        ([f"sys.exit({LOST})", "time.sleep(.3); os._exit(3)"], 1, [f"error: rank 1 of 2: ended with exit code 3; {RESUME}"]),
        (["os._exit(7)", f"time.sleep(.3); sys.exit({LOST})"], 1, [f"error: rank 0 of 2: ended with exit code 7; {RESUME}"]),
        # The work was done.
        (["time.sleep(.3)", "die()"], 0, []),
        (["pass", "time.sleep(60)"], 0, []),
    ],
)
def test_how_they_end(go, programs, code, lines):
    found, output, errors, seconds = go(*programs)
    assert (found, errors) == (code, lines) and seconds < 40  # and not the 60 of those that sleep
    assert output == ("one\n" if "one" in programs[0] else "")


def test_on_another_machine_nobody_has_spoken_yet(go):
    assert go("say('rank 0 of 4 has ended'); sys.exit(1)", "sys.exit(1)", first=2, size=4)[2] == ["error: rank 0 of 4 has ended"]
    later = "time.sleep(.3); say('rank 0 of 4 has ended'); sys.exit(1)"  # the one without a word was seen to end before
    assert go(later, "sys.exit(1)", first=2, size=4)[2] == ["error: rank 0 of 4 has ended"]
    assert go("time.sleep(60)", "die()", first=2, size=4)[2] == [f"error: rank 3 of 4: {KILLED}"]
    assert go("pass", "pass", first=2, size=4)[0] == 0


def signals(*numbers):
    def send(processes):
        time.sleep(0.7)
        for number in numbers:
            os.kill(os.getpid(), number)
            time.sleep(0.3)

    return send


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_goes_to_the_first(go, number, code):
    handlers = [signal.getsignal(each) for each in (signal.SIGINT, signal.SIGTERM)]
    wait = f"on({int(number)}, {code})"
    assert go(wait, "time.sleep(1.2)", during=signals(number))[:3] == (code, "ready\n", [])
    assert handlers == [signal.getsignal(each) for each in (signal.SIGINT, signal.SIGTERM)]


def test_a_second_signal_ends_also_what_does_not_listen(go):
    deaf = "signal.signal(2, signal.SIG_IGN); time.sleep(60)"
    code, _, errors, seconds = go(deaf, deaf, during=signals(signal.SIGINT, signal.SIGINT))
    assert (code, errors) == (130, [f"interrupted; {RESUME}"]) and seconds < 40


def test_a_signal_waits_for_a_process_that_is_starting(go):
    def at_once(processes):
        os.kill(os.getpid(), signal.SIGTERM)

    assert go("time.sleep(0.5); on(15, 143)", "time.sleep(0.8)", during=at_once)[:3] == (143, "", [])


def test_all_read_the_same_standard_input(go):
    programs = "print(len(sys.stdin.read()))", "assert len(sys.stdin.read()) == 300000"
    assert go(*programs, text="x" * 300_000)[:2] == (0, "300000\n")


@pytest.mark.parametrize("text", ["0", "-1", "2.5", "", "two", "²", "1e3", "99999999999", "ALL"])
def test_a_number_of_devices_is_one(text):
    with pytest.raises(CrossdistilError, match=r"--devices .*: expected a whole number from 1, or all"):
        number_of(text, "torch", None)


def test_so_many_processes_as_a_machine_can_run(monkeypatch):
    monkeypatch.setattr(devices, "processors", lambda: 2)
    assert number_of("8", "torch", None) == 8 and number_of(None, "torch", None) == 1 and numbers_of("4, 1,4") == (1, 4)
    for count in (lambda: number_of("9", "torch", None), lambda: numbers_of("1,9")):
        with pytest.raises(CrossdistilError, match="each device needs a process, and this machine has 2 processors; at most 8"):
            count()
    monkeypatch.setattr(devices, "processors", lambda: 64)
    assert number_of("64", "torch", None) == 64


def test_machines():
    assert machines_of(None, None, None, None) == Machines() == machines_of(1, None, None, "2")
    assert machines_of(2, 1, "localhost", "2") == Machines(2, 1, "localhost", 29500)
    assert machines_of(3, 0, "127.0.0.1:40", "all") == Machines(3, 0, "127.0.0.1", 40)
    variables = devices._variables("torch", 2, Machines(2, 1, "localhost", 40))
    assert [(each["RANK"], each["LOCAL_RANK"], each["WORLD_SIZE"]) for each in variables] == [("2", "0", "4"), ("3", "1", "4")]
    common = {(each["MASTER_ADDR"], each["MASTER_PORT"], each["LOCAL_WORLD_SIZE"]) for each in variables}
    assert common == {("localhost", "40", "2")}


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ((None, 1, None, "2"), "--node-rank 1: needs --nodes"),
        ((None, None, "h", "2"), "--master h: needs --nodes"),
        ((2, 0, "localhost", None), "--nodes 2: needs --devices"),
        ((2, None, "localhost", "2"), "--node-rank: is missing, expected which of the 2 machines this is: 0 to 1"),
        ((2, 2, "localhost", "2"), "--node-rank: got 2, expected"),
        ((2, -1, "localhost", "2"), "--node-rank: got -1, expected"),
        ((2, 0, None, "2"), "--master: is missing"),
        ((2, 0, "localhost:0", "2"), "--master localhost:0: expected HOST or HOST:PORT"),
        ((2, 0, "localhost:70000", "2"), "expected HOST or HOST:PORT"),
        ((2, 0, "http://localhost", "2"), "expected HOST or HOST:PORT"),
        ((2, 0, "no.such.host.invalid", "2"), "the name no.such.host.invalid is not known here"),
    ],
)
def test_machines_that_cannot_be(given, message):
    with pytest.raises(CrossdistilError, match=message) as caught:
        machines_of(*given)
    assert "\n" not in str(caught.value)


def test_srun_may_start_one_process_a_machine():
    srun = Place(1, 2, 0, "srun")
    refuse_devices(srun, "8", Machines(2, 1, "localhost", 40))
    for machines in (Machines(), Machines(4, 1, "localhost", 40)):
        with pytest.raises(CrossdistilError, match="srun has started this as one of 2 processes already; leave --devices out"):
            refuse_devices(srun, "8", machines)
