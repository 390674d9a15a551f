"""A trial of a search: what is read of a run while it is written, and a real run in a process of its own."""

from __future__ import annotations

import contextlib
import json
from pathlib import Path

import pytest

from crossdistil.core.app import search_trial
from crossdistil.core.app.search_trial import Circumstances, Evaluations, run_trial, score_of
from crossdistil.core.errors import CrossdistilError
from crossdistil.core.recipe import parse_recipe
from crossdistil.tests import tiny

pytestmark = pytest.mark.environment_of("torch", "mindspore")  # whose environment has Optuna


@pytest.fixture
def two_stages(tmp_path):
    """A recipe of half an epoch that is not scored, and then 12 steps."""
    tree = tiny.kd_recipe(tmp_path, tmp_path)
    (second,) = tree["stages"]
    first = {**second, "name": "first", "train": {"epochs": 0.5}}
    return parse_recipe({**tree, "stages": [first, second]}, "x")


def line(step, stage, epoch, score=None):
    found = {"step": step, "stage": stage, "epoch": epoch}
    return found | ({"loss": 1.0} if score is None else {"evaluation": {"dev": {"accuracy": score}}})


def write(path: Path, *lines, mode="a"):
    with path.open(mode) as file:
        file.write("".join(json.dumps(each) + "\n" for each in lines))


def test_evaluations_are_told_once_and_over_all_epochs(two_stages, tmp_path):
    path = tmp_path / "metrics.jsonl"
    reader = Evaluations(two_stages, path)
    assert reader.new() == []  # nothing is there yet
    write(path, line(3, "first", 0.5), line(7, "distil", 0.667, 0.7))
    assert reader.new() == [(1167, {"accuracy": 0.7}, False)]
    assert reader.new() == []
    with path.open("a") as file:
        file.write('{"step": 9, "stage": "distil", "epo')  # is being written
    assert reader.new() == []
    with path.open("a") as file:
        file.write('ch": 1.0, "evaluation": {"dev": {"accuracy": 0.8}}}\n')
    assert reader.new() == [(1500, {"accuracy": 0.8}, False)]
    write(path, line(15, "distil", 2.0, 0.9))
    assert reader.new() == [(2500, {"accuracy": 0.9}, True)]  # the last of its 12 steps


def test_a_resumed_run_writes_again_what_came_after_its_state(two_stages, tmp_path):
    path = tmp_path / "metrics.jsonl"
    reader = Evaluations(two_stages, path)
    write(path, line(3, "first", 0.5), line(7, "distil", 0.667, 0.7))
    reader.new()
    write(path, line(3, "first", 0.5), mode="w")
    assert reader.new() == []
    write(path, line(7, "distil", 0.667, 0.75))
    assert reader.new() == [(1167, {"accuracy": 0.75}, False)]


@pytest.mark.parametrize("damage", ["not json\n", "[1]\n", '{"stage": "x", "epoch": 1, "step": 1}\n', '{"stage": "distil"}\n'])
def test_lines_that_are_no_evaluations_are_left_out(two_stages, tmp_path, damage):
    (tmp_path / "metrics.jsonl").write_text(damage)
    assert Evaluations(two_stages, tmp_path / "metrics.jsonl").new() == []


def test_a_student_that_was_not_scored(two_stages):
    with pytest.raises(CrossdistilError, match="its student was not scored by accuracy"):
        score_of({"student": {"metrics": {}}}, "accuracy", two_stages)


@pytest.mark.only_backend("torch")
def test_a_run_is_given_up_and_fails_and_is_complete(backend_name, tiny_task, tiny_model, tmp_path):
    """One after the other in real processes: a loss that overflows is a failed trial with the run's own words; a whole run has an
    ordinary run folder; asked to stop, a run saves and is continued to the same result."""
    on = Circumstances(backend_name, "cpu", "fp32", 1)
    tree = tiny.kd_recipe(tiny_task, tiny_model, steps=240, evaluate_every=80)
    wild = parse_recipe(tiny.kd_recipe(tiny_task, tiny_model, steps=6, learning_rate=1e30, max_gradient_norm=None), "x")
    failed = run_trial(wild, tmp_path / "wild", on, lambda *_: False, lambda: 0)
    assert failed.state == "failed" and "the loss is" in failed.error and "learning_rate" in failed.error

    seen = []
    complete = run_trial(parse_recipe(tree, "x"), tmp_path / "whole", on, lambda *each: seen.append(each), lambda: 0)
    assert complete.state == "complete" and (tmp_path / "whole/student/model.safetensors").is_file()
    assert [last for _, _, last in seen] == [False, False, True]
    assert seen[-1][0] == round(1000 * complete.result["epochs"])
    assert complete.result["recipe_digest"] == parse_recipe(tree, "x").digest()

    began, again, broken = [], [], tmp_path / "broken"
    stopped = run_trial(parse_recipe(tree, "x"), broken, on, lambda *each: began.append(each), lambda: len(began[:1]))
    assert stopped.state == "stopped" and began and not (broken / "result.json").exists()
    assert not _processes_of(broken)
    step = int(next((broken / "state").glob("step-*")).name.partition("-")[2])
    assert 80 <= step < 240
    continued = run_trial(parse_recipe(tree, "x"), broken, on, lambda *each: again.append(each), lambda: 0)
    assert again == seen and continued.result["student"] == complete.result["student"]
    assert _bytes(broken) == _bytes(tmp_path / "whole")


def _processes_of(folder: Path) -> list[str]:
    """The command lines that name a folder."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):
            found.append(path.read_bytes().decode(errors="replace"))
    return [line for line in found if str(folder) in line]


def _bytes(run: Path) -> bytes:
    return (run / "student" / "model.safetensors").read_bytes()


def test_a_run_in_which_nothing_is_left_to_do_is_read(two_stages, tmp_path, monkeypatch):
    monkeypatch.setattr(search_trial.subprocess, "Popen", lambda *_, **__: pytest.fail("a process was started"))
    result = {"student": {"metrics": {"accuracy": 0.5}, "parameters": 3}}
    (tmp_path / "0000").mkdir()
    (tmp_path / "0000/result.json").write_text(json.dumps(result))
    ended = run_trial(two_stages, tmp_path / "0000", Circumstances("torch", None, "fp32", None), lambda *_: False, lambda: 0)
    assert (ended.state, ended.result) == ("complete", result)


def test_a_run_of_another_recipe_is_no_result(two_stages, tmp_path):
    result = {"student": {"metrics": {"accuracy": 0.5}, "parameters": 3}, "recipe_digest": "other"}
    (tmp_path / "0000").mkdir()
    (tmp_path / "0000/result.json").write_text(json.dumps(result))
    ended = run_trial(two_stages, tmp_path / "0000", Circumstances("torch", None, "fp32", None), lambda *_: False, lambda: 0)
    assert ended.state == "failed" and "another recipe" in ended.error
