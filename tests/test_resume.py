"""A run that is killed at any moment goes on to the same end: processes are really killed, and states really broken."""

from __future__ import annotations

import json
import os
import shutil
import signal
import time

import numpy as np
import pytest
from safetensors.numpy import load_file

from crossdistil.core.app.api import run
from crossdistil.core.errors import CrossdistilError, TrainingError
from crossdistil.core.files import replace_folder
from crossdistil.core.recipe import parse_recipe
from crossdistil.core.run_lines import RunLines
from crossdistil.core.runs import RunFolder
from crossdistil.core.states import State
from crossdistil.tests import tiny

IDENTITY = {"backend": "none", "device": "cpu", "precision": "fp32"}
STEPS = 60
# A process costs seconds, most of it imports; one of MindSpore compiles graphs too. Hence the other runs are in this one.
KILLS = {"torch": 3, "oneflow": 2, "mindspore": 1}


@pytest.fixture
def recipe_file(tmp_path, tiny_task, tiny_model):
    """A run with dropout that saves its state after every second step, and evaluates and logs at other steps."""
    train = {"steps": STEPS, "save_every": 2, "log_every": 3, "evaluate_every": 25, "keep": "best"}
    tree = tiny.kd_recipe(tiny_task, tiny_model, **train)
    # Without a teacher there is less to compile.
    del tree["teacher"]
    tree["student"]["init"]["from"] = str(tiny_model)
    tree["stages"][0]["objective"] = [{"loss": "hard_label"}]
    path = tmp_path / "recipe.yaml"
    path.write_text(json.dumps(tree))
    return path


def saved_step(folder) -> int:
    names = [path.name for path in folder.glob("state/step-*") if path.name[5:].isdigit()]
    return max((int(name[5:]) for name in names), default=0)


def kill_after_progress(process, folder, generator):
    """Wait until the run has saved a few more states, then a random moment more, and kill it; returns the saved step."""
    start = saved_step(folder)
    goal = start + int(generator.integers(2, 12))
    while saved_step(folder) < goal:
        if process.poll() is not None:
            break
        time.sleep(0.005)
    time.sleep(float(generator.uniform(0, 0.05)))
    process.send_signal(signal.SIGKILL)
    output, errors = process.communicate()
    assert process.returncode in (0, -signal.SIGKILL), f"{output}\n{errors}"
    return saved_step(folder)


def read_metrics(folder):
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def without_speed(lines):
    return [{key: value for key, value in line.items() if key != "tokens_per_second"} for line in lines]


def test_a_killed_run_goes_on_to_the_same_end(backend_name, recipe_file, tmp_path, start_cli):
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    settings = {"backend": backend_name, "device": "cpu", "quiet": True}
    run(recipe_file, out=whole, **settings)
    arguments = ["run", recipe_file, "--backend", backend_name, "--device", "cpu", "--out"]
    generator = np.random.default_rng()
    positions = []
    for attempt in range(KILLS[backend_name]):
        process = start_cli(*arguments, broken, *(["--resume"] if attempt else []))
        positions.append(kill_after_progress(process, broken, generator))
        if (broken / "result.json").exists():  # it was too fast to be killed in time
            break
    assert sorted(set(positions)) == positions and positions[0] < STEPS
    if not (broken / "result.json").exists():
        run(recipe_file, out=broken, resume=True, **settings)

    expected, found = load_file(whole / "student" / "model.safetensors"), load_file(broken / "student" / "model.safetensors")
    assert expected.keys() == found.keys()
    exact = backend_name == "torch"
    for name, array in expected.items():
        np.testing.assert_allclose(found[name], array, rtol=0, atol=0 if exact else 1e-6, err_msg=f"{positions}: {name}")
    lines, unbroken = without_speed(read_metrics(broken)), without_speed(read_metrics(whole))
    steps = [line["step"] for line in lines if "loss" in line]
    assert steps == sorted({*range(3, STEPS + 1, 3), STEPS})
    assert [line["step"] for line in lines if "evaluation" in line] == [
        step for step in range(1, STEPS + 1) if step % 25 == 0 or step == STEPS
    ]
    for line, other in zip(lines, unbroken, strict=True):
        if exact:
            assert line == other
        elif "loss" in line:
            assert line["loss"] == pytest.approx(other["loss"], rel=1e-5)
    results = [json.loads((folder / "result.json").read_text()) for folder in (whole, broken)]
    assert results[0]["student"]["metrics"] == pytest.approx(results[1]["student"]["metrics"])
    assert results[0]["student"]["kept_step"] == results[1]["student"]["kept_step"]
    names = [{path.name for path in folder.iterdir()} - {"report.html"} for folder in (broken, whole)]
    assert names[0] == names[1]  # a kill after the end may have come before the report
    assert not list(broken.rglob("*.tmp-*"))
    with pytest.raises(CrossdistilError, match="is complete"):
        run(recipe_file, out=broken, resume=True, **settings)


@pytest.fixture
def recipe(tmp_path):
    return parse_recipe(tiny.kd_recipe(tmp_path, tmp_path), "test")


@pytest.fixture
def opened(tmp_path, recipe):
    """`opened(resume)`: the run folder, opened once more; it is closed at the end."""
    folders = []

    def open_folder(resume=True):
        for folder in folders:
            folder.close()
        folders.append(RunFolder(tmp_path / "run", recipe, IDENTITY, resume))
        return folders[-1]

    yield open_folder
    for folder in folders:
        folder.close()


def state_at(step):
    array = np.full(4, step, np.float32)
    optimizer = {"m": array * 2, "steps": np.array(step)}
    window = {"step": 0, "sum": 0.0, "tokens": 0, "seconds": 0.0}
    notes = {"tokens": step * 10, "seconds": 1.5, "best_step": 1, "best_metric": 0.5, "stage": 0, "window": window, "past": []}
    return State(step, {"p": array}, optimizer, {"p": array - 1}, notes)


def test_a_half_written_state_is_ignored_and_removed(tmp_path, opened):
    folder = opened(resume=False)
    folder.save_state(state_at(5))
    state = tmp_path / "run" / "state"
    half = state / "step-00000010.tmp-xyz"
    half.mkdir()
    (half / "parameters.safetensors").write_bytes((state / "step-00000005" / "parameters.safetensors").read_bytes()[:-8])
    (half / "state.json").write_text('{"step": 10')
    (tmp_path / "run" / "metrics.jsonl.tmp-123").write_text("{}")
    (tmp_path / "run" / "student.tmp-abc").mkdir()
    folder = opened()
    loaded = folder.load_state()
    assert (loaded.step, loaded.parameters["p"][0], loaded.optimizer["m"][0], loaded.best["p"][0]) == (5, 5, 10, 4)
    assert loaded.notes == state_at(5).notes
    assert loaded.optimizer["steps"].shape == () and loaded.optimizer["steps"] == 5
    assert [path.name for path in state.iterdir()] == ["step-00000005"]
    assert not list((tmp_path / "run").glob("*.tmp-*"))


def test_the_newest_state_counts_and_only_it_is_kept(tmp_path, opened):
    folder, state = opened(resume=False), tmp_path / "run" / "state"
    folder.save_state(state_at(2))
    shutil.copytree(state / "step-00000002", tmp_path / "older")
    folder.save_state(state_at(4))
    assert [path.name for path in state.iterdir()] == ["step-00000004"]
    # Killed between writing a state and removing the one before it.
    shutil.move(tmp_path / "older", state / "step-00000002")
    folder = opened()
    assert folder.load_state().step == 4
    assert [path.name for path in state.iterdir()] == ["step-00000004"]
    folder.save_state(state_at(10))
    assert [path.name for path in state.iterdir()] == ["step-00000010"]


def test_a_state_is_written_whole_or_not_at_all(tmp_path, opened):
    folder = opened(resume=False)
    folder.save_state(state_at(2))
    state = state_at(4)
    state.notes["best_step"] = {1}  # not JSON: found only when the arrays are written
    with pytest.raises(TypeError):
        folder.save_state(state)
    assert [path.name for path in (tmp_path / "run" / "state").iterdir()] == ["step-00000002"]
    assert folder.load_state().step == 2


def test_a_damaged_state_is_an_error_that_names_it(tmp_path, opened):
    folder = opened(resume=False)
    folder.save_state(state_at(2))
    path = tmp_path / "run" / "state" / "step-00000002" / "optimizer.safetensors"
    path.write_bytes(path.read_bytes()[:20])
    with pytest.raises(TrainingError, match="step-00000002: the saved state is damaged"):
        folder.load_state()


def test_lines_after_the_state_are_dropped(tmp_path):
    lines = RunLines(tmp_path)
    for step in range(1, 8):
        lines.append({"step": step, "loss": float(step)})
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write('{"step": 8, "lo')  # cut off by the kill
    lines.rewind(5)
    lines.append({"step": 6, "loss": 0.0})
    assert [line["step"] for line in read_metrics(tmp_path)] == [1, 2, 3, 4, 5, 6]


def test_a_folder_is_replaced_whole(tmp_path):
    folder = tmp_path / "model"
    for content in ("old", "new"):
        with replace_folder(folder) as temporary:
            (temporary / "file").write_text(content)
        assert (folder / "file").read_text() == content
    with pytest.raises(ZeroDivisionError), replace_folder(folder) as temporary:
        (temporary / "file").write_text("half")
        raise ZeroDivisionError
    assert (folder / "file").read_text() == "new"
    assert [path.name for path in tmp_path.iterdir()] == ["model"]
    assert oct(folder.stat().st_mode & 0o777) == oct(0o777 & ~_umask())


def _umask():
    current = os.umask(0)
    os.umask(current)
    return current
