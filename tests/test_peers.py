"""Processes that agree with each other, without any framework: what they exchange, where they stop, and how they end together.

Each test forks small processes; what the engine's sum would tell them goes through a file.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest

from crossdistil.core import peers
from crossdistil.core.errors import CrossdistilError
from crossdistil.core.peers import Peers
from crossdistil.core.place import Place

SECONDS = 60


class Sum:
    """A float32 sum to which only rank 0 adds something but zeros."""

    def __init__(self, file: Path, rank: int):
        self._file, self._rank = file, rank

    def __call__(self, values: np.ndarray) -> np.ndarray:
        assert values.dtype == np.float32
        if self._rank == 0:
            part = self._file.with_suffix(".part")
            part.write_bytes(values.tobytes())
            os.replace(part, self._file)
            return values
        assert not values.any()
        while not self._file.exists():
            time.sleep(0.01)
        return np.frombuffer(self._file.read_bytes(), np.float32).copy()


class Group:
    """Forked processes that each run `work(world)`; what it returns, their exit codes, seconds and what they wrote to stderr."""

    def __init__(self, folder: Path, size: int, work, local_size: int | None = None):
        self.folder, self.size = folder, size
        self.pids = [self._fork(rank, work, size if local_size is None else local_size) for rank in range(size)]

    def _fork(self, rank: int, work, local_size: int) -> int:
        pid = os.fork()
        if pid:
            return pid
        code = 70
        try:
            log = os.open(self.folder / f"{rank}.err", os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o666)
            os.dup2(log, 2)
            sys.stderr = os.fdopen(2, "w", closefd=False)
            world = Peers(Place(rank, self.size, rank, "test", local_size), Sum(self.folder / "sum", rank))
            (self.folder / f"{rank}.json").write_text(json.dumps(work(world)))
            world.close()
            code = 0
        except CrossdistilError as error:
            print(f"{type(error).__name__}: {error}", file=sys.stderr)
            code = 3
        except BaseException as error:
            print(f"unexpected {error!r}", file=sys.stderr)
        finally:
            sys.stderr.flush()
            os._exit(code)

    def wait(self) -> list[int]:
        codes, deadline = {}, time.monotonic() + SECONDS
        while len(codes) < self.size:
            for rank, pid in enumerate(self.pids):
                if rank not in codes:
                    found, status = os.waitpid(pid, os.WNOHANG)
                    if found:
                        codes[rank] = os.waitstatus_to_exitcode(status)
            if time.monotonic() > deadline:
                self.kill()
                raise AssertionError(f"still running: {sorted(set(range(self.size)) - set(codes))}\n{self.said()}")
            time.sleep(0.01)
        return [codes[rank] for rank in range(self.size)]

    def kill(self) -> None:
        for pid in self.pids:
            with contextlib.suppress(ProcessLookupError, ChildProcessError):
                os.kill(pid, signal.SIGKILL)
                os.waitpid(pid, 0)

    def results(self) -> list:
        assert self.wait() == [0] * self.size, self.said()
        return [json.loads((self.folder / f"{rank}.json").read_text()) for rank in range(self.size)]

    def said(self, rank: int | None = None) -> str:
        ranks = range(self.size) if rank is None else [rank]
        return "".join((self.folder / f"{rank}.err").read_text() for rank in ranks)


@pytest.fixture
def start(tmp_path):
    groups = []

    def go(size, work, **options):
        groups.append(Group(tmp_path, size, work, **options))
        return groups[-1]

    yield go
    for group in groups:
        group.kill()


@pytest.mark.parametrize("local_size", [3, 1, 0])  # on one machine, on three, and where the launcher does not say
def test_what_they_exchange(start, local_size):
    def work(world):
        found = [len(data) for data in world.exchange(bytes(world.rank))]
        large = world.exchange(bytes([world.rank]) * (5_000_000 + world.rank))  # more than any buffer holds
        found.append([(len(data), data[0], data[-1]) for data in large])
        found.append(world.first(f"of {world.rank}".encode()).decode())
        found += [world.any(False), world.any(world.rank == 2)]
        arrays = world.arrays({"x": np.full((2, 3), world.rank).T, "counter": np.float32(7)})
        found.append([[one["x"].shape, int(one["x"].sum()) // 6, one["counter"].shape, float(one["counter"])] for one in arrays])
        found.append(world.lead(lambda: f"made by {world.rank}"))
        found.append(world.together(lambda: world.rank))
        world.same("this", b"equal")
        for _ in range(300):
            world.barrier()
        return found

    parts = [[5_000_000 + rank, rank, rank] for rank in range(3)]
    expected = [0, 1, 2, parts, "of 0", False, True, [[[3, 2], rank, [], 7.0] for rank in range(3)]]
    assert start(3, work, local_size=local_size).results() == [
        [*expected, "made by 0" if rank == 0 else None, rank] for rank in range(3)
    ]


def test_an_error_of_one_is_raised_in_all(start):
    def raised(function, *arguments):
        try:
            function(*arguments)
        except CrossdistilError as error:
            return str(error)

    def work(world):
        def of(*ranks):
            if world.rank in ranks:
                raise CrossdistilError("the file is missing\nand the folder")

        return [
            raised(world.lead, of, 0),
            raised(world.lead, of, 1, 2),  # who is never asked
            raised(world.together, of, 0, 1, 2),
            raised(world.together, of, 2),
            raised(world.same, "the recipe", b"%d" % (world.rank == 1)),
        ]

    both = "the file is missing\nand the folder"
    assert start(3, work).results() == 3 * [
        [
            both,
            None,
            both,
            "rank 2: the file is missing\nrank 2: and the folder",
            "the recipe: rank 1 of 3 have others than rank 0; all processes must be given the same",
        ]
    ]


@pytest.mark.parametrize("asked", [[0], [2], [0, 1, 2]])
def test_they_stop_at_one_step_that_each_has_done(start, asked):
    def work(world):
        if world.rank in asked:
            threading.Timer(0.2 + 0.01 * world.rank, world.ask_to_stop, [signal.SIGTERM]).start()
        done, random = [], np.random.default_rng(world.rank)
        while world.proceed(len(done)):
            done.append(len(done))
            time.sleep(random.uniform(0, 0.002))  # none waits for the others in a step
            if len(done) % 50 == 0:
                world.barrier()  # at events they meet
        world.barrier()
        return [len(done), world.proceed(len(done) + 5), world.asked]

    (steps, *end), *others = start(3, work).results()
    assert steps > 10 and end == [False, signal.SIGTERM] and others == 2 * [[steps, *end]]


def test_a_stop_that_is_asked_for_after_the_last_step_changes_nothing(start):
    def work(world):
        for step in range(10):
            assert world.proceed(step)
        world.ask_to_stop()
        world.barrier()
        time.sleep(0.6)  # as an evaluation does
        return world.proceed(10)

    assert start(2, work).results() == [False, False]


def _inside_a_framework(*_):
    """The main thread waits where no signal and no exception reaches it."""
    lock = threading.Lock()
    lock.acquire()
    lock.acquire()


@pytest.mark.parametrize("dead", [0, 2])
@pytest.mark.parametrize("where", ["in an exchange", "inside a framework", "waiting to stop"])
def test_one_that_is_killed_ends_all(start, dead, where):
    def work(world):
        world.barrier()
        if world.rank == dead:
            if where == "waiting to stop":
                os.kill(os.getpid(), signal.SIGSTOP)  # else it would answer before it is killed
            time.sleep(60)
        if where == "waiting to stop":
            world.ask_to_stop()
            time.sleep(0.5)
            world.proceed(0)
        {"in an exchange": world.barrier}.get(where, _inside_a_framework)()

    group = start(3, work)
    time.sleep(0.8)
    os.kill(group.pids[dead], signal.SIGKILL)
    codes = group.wait()
    assert codes == [-9 if rank == dead else 1 for rank in range(3)]
    speaker = 1 if dead == 0 else 0
    [line] = group.said(speaker).splitlines()
    assert line.startswith(f"crossdistil: error: rank {dead} of 3")
    assert "has ended without a word" in line
    assert dead == 0 or f"(process {group.pids[dead]} on {socket.gethostname()})" in line


def test_who_ends_with_an_error_says_it_through_the_first(start, tmp_path):
    def work(world):
        world.on_end(lambda code: (tmp_path / f"{world.rank}.{code}").touch())
        world.barrier()
        if world.rank == 2:
            world.fail("ValueError: no\nrank 1 of 3: is silent", 7)
            os._exit(7)
        _inside_a_framework()

    group = start(3, work)
    assert group.wait() == [7, 7, 7]
    assert (tmp_path / "0.7").exists() and (tmp_path / "1.7").exists()
    assert group.said(0) == "crossdistil: error: rank 2: ValueError: no\ncrossdistil: error: rank 1 of 3: is silent\n"


@pytest.mark.parametrize("silent", [0, 1])
@pytest.mark.parametrize("where", ["in an exchange", "inside a framework"])
def test_one_that_is_stopped_is_named(start, monkeypatch, silent, where):
    monkeypatch.setenv("CROSSDISTIL_WAIT_SECONDS", "2")
    monkeypatch.setattr(peers, "_PING_SECONDS", 0.2)

    def work(world):
        world.barrier()
        if world.rank == silent:
            time.sleep(60)
        {"in an exchange": world.barrier}.get(where, _inside_a_framework)()

    group = start(2, work)
    time.sleep(1.0)
    os.kill(group.pids[silent], signal.SIGSTOP)
    other = 1 - silent
    _, status = os.waitpid(group.pids[other], 0)
    assert os.waitstatus_to_exitcode(status) in (1, 3)
    said = group.said(other)
    assert f"rank {silent} of 2" in said and "has not answered for 2 s (CROSSDISTIL_WAIT_SECONDS)" in said


def test_one_that_was_stopped_as_the_others_were_is_not_blamed(start, monkeypatch):
    monkeypatch.setenv("CROSSDISTIL_WAIT_SECONDS", "1")

    def work(world):
        world.barrier()
        time.sleep(2.5)
        return 1

    group = start(2, work)
    time.sleep(0.7)
    for pid in group.pids:
        os.kill(pid, signal.SIGSTOP)
    time.sleep(3)
    for pid in group.pids:
        os.kill(pid, signal.SIGCONT)
    assert group.results() == [1, 1]


@pytest.mark.parametrize("text", ["x", "0", "-3", "nan", "inf", "1e9"])
def test_how_long_to_wait_is_a_number(monkeypatch, text):
    monkeypatch.setenv("CROSSDISTIL_WAIT_SECONDS", text)
    with pytest.raises(CrossdistilError, match=f"CROSSDISTIL_WAIT_SECONDS: got '{text}', expected a number of seconds from 1"):
        peers.wait_seconds()


def test_a_large_message_to_one_that_is_stopped_ends_in_time(start, monkeypatch):
    monkeypatch.setenv("CROSSDISTIL_WAIT_SECONDS", "2")

    def work(world):
        world.barrier()
        if world.rank == 1:
            world._give(0, b"")
            os.kill(os.getpid(), signal.SIGSTOP)
        world.exchange(bytes(50_000_000))

    group = start(2, work)
    _, status = os.waitpid(group.pids[0], 0)
    assert os.waitstatus_to_exitcode(status) in (1, 3) and "rank 1 of 2" in group.said(0)
