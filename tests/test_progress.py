"""What a person sees while a run trains: in a terminal, which is a real pseudo-terminal here, and in a log."""

from __future__ import annotations

import io
import json
import os
import pty
import re
import select
import time

import pytest
from rich.console import Console

from crossdistil.core.app import progress as shown
from crossdistil.core.app.progress import TrainingProgress, make_console
from crossdistil.core.app.run import RunOptions, execute
from crossdistil.core.engine import EngineOptions
from crossdistil.core.events import Evaluated, Logged
from crossdistil.core.recipe import parse_recipe
from crossdistil.tests import tiny


def logged(loss):
    return Logged(1, "distil", 0.5, loss, {"kd_ce": loss}, 1e-4, 100.0)


class Clock:
    """Time that passes when it is told to."""

    def __init__(self, monkeypatch):
        self.now = 1000.0
        monkeypatch.setattr(shown.time, "monotonic", lambda: self.now)


@pytest.fixture
def clock(monkeypatch):
    return Clock(monkeypatch)


@pytest.fixture
def terminal(monkeypatch):
    """A console on a pseudo-terminal, and what was written to it so far, without control sequences."""
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "120")
    ours, theirs = pty.openpty()
    file = os.fdopen(theirs, "w")

    def read():
        file.flush()
        taken, patience = b"", 2.0
        while select.select([ours], [], [], patience)[0]:
            taken, patience = taken + os.read(ours, 1 << 16), 0.05
        return re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", taken.decode())

    yield Console(file=file, highlight=False), read
    file.close()
    os.close(ours)


@pytest.fixture
def log():
    file = io.StringIO()

    def read():
        text = file.getvalue()
        file.truncate(0)
        file.seek(0)
        return text.splitlines()

    return Console(file=file, highlight=False, soft_wrap=True, width=200), read


def test_a_terminal_shows_each_step_and_no_nonsense(terminal, clock):
    console, read = terminal
    with TrainingProgress("torch distil", console) as progress:
        progress.start(0, 5000)
        seen = read()
        assert "torch distil" in seen and "0/5,000" in seen and "step 1 is under way" in seen
        clock.now += 7
        progress.advance(1, 100)
        assert "1/5,000" in (text := read())
        seen += text
        clock.now += 2
        progress.advance(2, 300)
        # 300 tokens in 9 seconds; 4,998 steps of 2 s are left, since the slow first step says nothing about them.
        assert "2/5,000" in (text := read()) and "33 tokens/s · 2h 46m left" in text and "loss" not in text
        seen += text
        progress.logged(logged(0.25))
        for step in range(3, 3001):
            clock.now += 0.001
            progress.advance(step, 100 * step)
        seen += (text := read())
        assert "loss 0.2500" in text and text.count("distil") < 20  # not each step has its picture
        progress.compiles((32, 64))
        assert "compiling for 32 x 64 tokens" in read()
        progress.evaluate()
        assert "evaluating" in read()
        progress.evaluated(Evaluated(3000, "distil", 1.0, {"accuracy": 0.5}, True))
        assert "step 3000, dev accuracy 0.5000 (best)" in read()
    assert "nan" not in seen and "?" not in seen and "inf" not in seen


def test_a_log_has_the_first_step_and_then_a_line_now_and_then(log, clock):
    console, read = log
    with TrainingProgress("torch distil", console) as progress:
        progress.start(0, 20_000)
        assert read() == []
        clock.now += 5
        progress.advance(1, 100)
        assert read() == ["torch distil: step 1/20000"]
        taken = []
        for step in range(2, 20_001):
            clock.now += 1
            progress.advance(step, 100 * step)
            taken += [(clock.now, line) for line in read()]
        assert taken[0][1] == "torch distil: step 4/20000, 50 tokens/s, 5h 33m left"
        times = [time for time, _ in taken]
        gaps = [later - earlier for earlier, later in zip(times, times[1:])]
        assert gaps[0] == 3 and gaps == sorted(gaps) and max(gaps) <= 61 and len(times) < 400
        progress.measured(2_000_000, 10_000.0)  # by the loop, which has waited for the device
        progress.logged(logged(0.5))
        assert read() == ["torch distil: step 20000/20000, loss 0.5000, 200 tokens/s"]


def test_evaluation_is_no_time_of_steps_and_compilation_none_of_those_that_are_left(log, clock):
    console, read = log
    with TrainingProgress("t", console) as progress:
        progress.start(10, 100)
        progress.measured(1000, 10.0)  # before it was interrupted
        for step in range(11, 21):
            clock.now += 1
            if step == 15:
                progress.compiles((8, 16))
                clock.now += 100
            progress.advance(step, 100 * step)
        progress.evaluate()
        clock.now += 1000
        progress.evaluated(Evaluated(20, "distil", 1.0, {"f1": 1.0}, False))
        read()
        clock.now += 1
        progress.advance(21, 2100)
        assert read() == [f"t: step 21/100, {2100 / 121:.0f} tokens/s, 1m 19s left"]


def test_a_step_costs_next_to_nothing(terminal):
    """Less than 20 microseconds, pictures and all; the median of several turns, for the machine does other things too."""
    console, read = terminal
    turns = []
    with TrainingProgress("t", console) as progress:
        progress.start(0, 10**9)
        for turn in range(5):
            started = time.perf_counter()
            for step in range(10_000):
                progress.advance(turn * 10_000 + step, step)
            turns.append((time.perf_counter() - started) / 10_000)
            read()
    assert sorted(turns)[2] < 20e-6


@pytest.fixture
def go(tiny_task, tiny_model, backend_name, pytestconfig, capsys):
    """`go(folder, **train)`: the lines that a run prints."""

    def start(folder, resume=False, **train):
        recipe = parse_recipe(tiny.kd_recipe(tiny_task, tiny_model, **{"log_every": 10**6, **train}), "test")
        options = EngineOptions(pytestconfig.getoption("--device"))
        console = make_console()
        execute(recipe, "test", RunOptions(backend_name, options, folder, resume), console)
        return capsys.readouterr().out.splitlines()

    return start


def test_a_run_tells_its_first_step_what_it_compiles_and_the_tokens_a_second_of_its_result(go, tmp_path, backend_name):
    told = go(tmp_path / "run", steps=6, evaluate_every=3)
    assert [line for line in told if "step" in line and "/" in line][0].endswith("distil: step 1/6")
    [shown_rate] = re.findall(r"([\d,]+) tokens/s$", [line for line in told if "step 6/6" in line][-1])
    result = json.loads((tmp_path / "run" / "result.json").read_text())
    assert int(shown_rate.replace(",", "")) == pytest.approx(result["tokens_per_second"], rel=0.25)
    compiled = [line for line in told if "compiling" in line]
    if backend_name == "mindspore":
        assert "mindspore: compiling the training step for 8 x 16 tokens" in compiled
        assert all(re.fullmatch(r"mindspore: compiling .* for \d+ x 16 tokens", line) for line in compiled)
        assert len(set(compiled)) <= 3
    else:
        assert not compiled
