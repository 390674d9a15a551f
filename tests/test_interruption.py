"""Ctrl-C and SIGTERM during training: what was trained is saved, and the run goes on from there to the same end."""

from __future__ import annotations

import ctypes
import json
import os
import signal
import subprocess
import sys
import threading
import time

import numpy as np
import pytest
from safetensors.numpy import load_file

from crossdistil.core.app import cli, interruption
from crossdistil.core.app.api import run
from crossdistil.core.app.error_lines import Terminated, terminate
from crossdistil.core.app.interruption import Interruption
from crossdistil.core.app.progress import TrainingProgress
from crossdistil.core.app.run_command import run as command
from crossdistil.core.recipe import parse_recipe
from crossdistil.core.world import World
from crossdistil.tests import tiny


@pytest.fixture(scope="module")
def tree(tiny_task, tiny_model):
    """Twelve steps, which are logged and saved at the end only."""
    return tiny.kd_recipe(tiny_task, tiny_model, steps=12, log_every=100_000, evaluate_every=100_000)


@pytest.fixture(scope="module")
def go(tree, backend_name, pytestconfig):
    def start(folder, resume=False):
        device = pytestconfig.getoption("--device")
        return run(parse_recipe(tree, "test"), out=folder, backend=backend_name, device=device, resume=resume, quiet=True)

    return start


@pytest.fixture(scope="module")
def whole(go, tmp_path_factory):
    """The folder of a run that nothing interrupts."""
    folder = tmp_path_factory.mktemp("whole") / "run"
    go(folder)
    return folder


BOTH = [signal.SIGINT, pytest.param(signal.SIGTERM, marks=pytest.mark.only_backend("torch", "oneflow"))]
"""MindSpore makes SIGTERM of SIGINT."""


@pytest.mark.parametrize("number", BOTH)
def test_the_step_under_way_is_saved_as_the_last(go, request, tmp_path, monkeypatch, number, capsys, backend_name):
    advance, handlers = TrainingProgress.advance, [signal.getsignal(each) for each in (signal.SIGINT, signal.SIGTERM)]

    def advance_and_signal(progress, done, tokens):
        advance(progress, done, tokens)
        if done == 6:
            os.kill(os.getpid(), number)

    monkeypatch.setattr(TrainingProgress, "advance", advance_and_signal)
    interrupted = number == signal.SIGINT and backend_name != "mindspore"  # which makes SIGTERM of it
    with pytest.raises(KeyboardInterrupt if interrupted else SystemExit) as caught:
        go(tmp_path / "broken")
    told = f"step 6 is saved in {tmp_path}/broken; --resume goes on from there"
    asked, *more = capsys.readouterr().err.splitlines()
    assert asked == "crossdistil: saving after the step that is under way; once more stops at once"
    if interrupted:
        assert str(caught.value) == told and not more
    else:
        assert caught.value.code == 143 and more == [f"crossdistil: terminated; {told}"]
    assert [path.name for path in tmp_path.glob("broken/state/*")] == ["step-00000006"]
    assert [signal.getsignal(each) for each in (signal.SIGINT, signal.SIGTERM)] == handlers
    if backend_name == "mindspore":  # which compiles seconds for each start: it goes on in test_resume
        return
    monkeypatch.setattr(TrainingProgress, "advance", advance)
    run(out=tmp_path / "broken", resume=True, quiet=True)  # which knows its recipe, backend and device
    whole = request.getfixturevalue("whole")
    # The loss of all twelve steps is told as if there had been no interruption.
    [[loss], [expected]] = ([line["loss"] for line in lines(folder) if "loss" in line] for folder in (tmp_path / "broken", whole))
    assert loss == pytest.approx(expected, rel=1e-6)
    expected, found = (load_file(folder / "student" / "model.safetensors") for folder in (whole, tmp_path / "broken"))
    for key, array in expected.items():
        np.testing.assert_allclose(found[key], array, rtol=0, atol=1e-6, err_msg=key)


@pytest.mark.only_backend("torch")
def test_a_second_signal_stops_at_once(go, tmp_path, monkeypatch):
    def signal_twice(progress, done, tokens):
        os.kill(os.getpid(), signal.SIGINT)
        time.sleep(0.1)  # two that are pending at once are one
        os.kill(os.getpid(), signal.SIGINT)

    monkeypatch.setattr(TrainingProgress, "advance", signal_twice)
    with pytest.raises(KeyboardInterrupt):
        go(tmp_path / "broken")
    assert not (tmp_path / "broken" / "state").exists()


@pytest.mark.only_backend("torch")
@pytest.mark.parametrize(("number", "end"), [(signal.SIGINT, KeyboardInterrupt), (signal.SIGTERM, Terminated)])
def test_what_the_compiler_of_a_framework_says_of_the_signal_is_no_fault(go, tmp_path, monkeypatch, number, end):
    def compile_and_end(progress, done, tokens):
        os.kill(os.getpid(), number)
        raise RuntimeError("C++ compile error: Terminated")

    monkeypatch.setattr(TrainingProgress, "advance", compile_and_end)
    with pytest.raises(end) as caught:
        go(tmp_path / "broken")
    assert str(caught.value.__cause__) == "C++ compile error: Terminated"
    assert end is KeyboardInterrupt or caught.value.code == 143


@pytest.mark.parametrize("times", [1, 2])
def test_a_signal_within_one_long_call_is_answered_at_once(times, monkeypatch, capsys):
    """The call, of C's read, keeps Python from its handlers, as one of a framework does, and lets other threads run."""
    monkeypatch.setattr(interruption, "_TOGETHER_SECONDS", 0.05)
    monkeypatch.setattr(interruption, "_AT_ONCE_SECONDS", 0.1)
    ended = []
    monkeypatch.setattr(interruption.os, "_exit", ended.append)
    said, world, (reads, writes) = [], World(), os.pipe()

    def press():
        for _ in range(times):
            signal.pthread_kill(threading.get_ident(), signal.SIGINT)  # not to the other thread, whose call it would end
            time.sleep(0.3)
        said.append(capsys.readouterr().err)
        os.write(writes, b"x")

    before, presses = signal.getsignal(signal.SIGINT), threading.Timer(0.1, press)
    with Interruption(world):
        presses.start()
        assert ctypes.CDLL(None).read(reads, ctypes.create_string_buffer(1), 1) == 1
        time.sleep(0.05)
    presses.join()
    os.close(reads), os.close(writes)
    first, *second = said[0].splitlines()
    assert first == "crossdistil: stopping after the call that is under way; once more stops at once"
    assert second == ["crossdistil: stopped at once, inside a call of the framework"] * (times - 1)
    assert ended == [130] * (times - 1) and world.asked == signal.SIGINT
    assert signal.getsignal(signal.SIGINT) is before and signal.set_wakeup_fd(-1) == -1
    assert not [each for each in threading.enumerate() if "_watch" in each.name]


STOPS = {
    "nothing is kept": (1, {}, "nothing was saved yet, so that --resume has nothing to go on from; the same command begins anew"),
    "metrics": (2, {"log_every": 1}, "nothing was saved yet; --resume begins the run in {folder} anew"),
    "a state": (7, {"save_every": 5}, "step 5 is saved in {folder}; --resume goes on from there"),
}


@pytest.mark.only_backend("torch")
@pytest.mark.parametrize("case", STOPS)
@pytest.mark.parametrize("last", [signal.SIGINT, signal.SIGTERM])
def test_what_a_stop_at_once_leaves_is_said(tree, tmp_path, monkeypatch, capsys, case, last):
    """What it says there is to go on from is what `--resume` finds."""
    at, settings, told = STOPS[case]
    recipe, folder = tmp_path / "recipe.yaml", tmp_path / "run"
    train = tree["stages"][0]["train"] | settings
    recipe.write_text(json.dumps(tree | {"stages": [tree["stages"][0] | {"train": train}]}))

    def signal_twice(progress, done, tokens):
        if done == at:
            os.kill(os.getpid(), signal.SIGINT)
            time.sleep(0.1)  # two that are pending at once are one
            os.kill(os.getpid(), last)
            time.sleep(0.1)

    before = signal.signal(signal.SIGTERM, terminate)
    try:
        with monkeypatch.context() as patched, pytest.raises(SystemExit) as end:
            patched.setattr(TrainingProgress, "advance", signal_twice)
            command(str(recipe), backend="torch", device="cpu", out=folder)
    finally:
        signal.signal(signal.SIGTERM, before)
    word = "interrupted" if last == signal.SIGINT else "terminated"
    assert end.value.code == 128 + last
    assert capsys.readouterr().err.splitlines()[1:] == [f"crossdistil: {word}; {told.format(folder=folder)}"]
    if case == "nothing is kept":
        assert not folder.exists()
    elif last == signal.SIGINT:
        assert run(out=folder, resume=True, quiet=True)["student"]["metrics"]


@pytest.mark.parametrize(
    ("arguments", "error", "told"),
    [
        (("predict",), Terminated(143), "terminated; nothing is half written"),
        (("run", "kd", "--check"), KeyboardInterrupt(), "interrupted; nothing is half written"),
        (("data", "mlm"), Terminated(143), "terminated; --resume keeps the record files that are complete"),
    ],
)
def test_the_last_line_of_other_commands(said, monkeypatch, arguments, error, told):
    def app(*_, **options):
        raise error

    monkeypatch.setattr(cli, "app", app)
    assert said(*arguments) == (143 if isinstance(error, Terminated) else 130, "", f"crossdistil: {told}\n")


@pytest.mark.only_backend("torch")
def test_the_command_line_says_what_is_saved(tree, tmp_path):
    recipe, folder = tmp_path / "recipe.yaml", tmp_path / "run"
    recipe.write_text(json.dumps(tree))
    many = "stages.0.train.steps=100000"
    command = [sys.executable, "-m", "crossdistil", "run", recipe, "--out", folder, "--set", many]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    while "step 1/" not in (line := process.stdout.readline()) and line:
        pass
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate()
    [state] = folder.glob("state/*")
    step = int(state.name.removeprefix("step-"))
    assert process.returncode == 130
    assert errors.split("\n")[-2] == (
        f"crossdistil: interrupted; step {step:,} is saved in {folder}; --resume goes on from there"
    )


def lines(folder):
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
