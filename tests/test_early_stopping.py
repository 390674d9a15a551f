"""Early stopping: counted in true evaluations, the same after an interruption and in every process; and the students of epochs
that a run keeps, each of which is evaluated."""

from __future__ import annotations

import json
import math

import pytest
from pydantic import ValidationError

from crossdistil.core.app.api import evaluate, run
from crossdistil.core.errors import RecipeError, TrainingError
from crossdistil.core.recipe import load_recipe, parse_recipe
from crossdistil.core.step_plan import Plan
from crossdistil.core.train_section import TrainSection
from crossdistil.core.world import World
from crossdistil.tests import tiny
from crossdistil.tests.trainer_bench import Bench

# An evaluation every second step; it is best at step 4, and 0.805 at step 8 is better than 0.8, but not by 0.01.
SCORES = [0.4, 0.8, 0.79, 0.805, 0.78, 0.9]


@pytest.mark.parametrize(
    ("settings", "steps", "kept"),
    [
        ({"patience": 1}, 6, 4),
        ({"patience": 2}, 12, 12),
        ({"patience": 2, "min_improvement": 0.01}, 8, 8),
        ({"patience": 3, "min_improvement": 0.01}, 10, 8),
        ({"patience": 4, "min_improvement": 0.01}, 12, 12),
        ({}, 12, 12),
    ],
)
def test_a_stage_ends_when_nothing_gets_better(tmp_path, settings, steps, kept):
    bench = Bench(tmp_path, scores=SCORES, steps=12, evaluate_every=2, log_every=5, **settings)
    outcome = bench.train()
    assert (outcome.steps, outcome.kept_step) == (steps, kept) and len(bench.step.taken) == steps
    assert bench.lines("loss")[-1]["step"] == steps and bench.lines("evaluation")[-1]["step"] == steps
    assert [path.name for path in (tmp_path / "run" / "state").iterdir()] == [f"step-{steps:08d}"]
    # The learning rate is that of the whole plan.
    factor = bench.recipe.stages[0].train.factor(12)
    assert [step.learning_rate for step in bench.step.taken] == pytest.approx([factor(step) for step in range(steps)])


def test_the_last_weights_are_those_of_the_step_it_ends_after(tmp_path):
    outcome = Bench(tmp_path, scores=SCORES, steps=12, evaluate_every=2, patience=1, keep="last").train()
    assert (outcome.kept_step, outcome.parameters["p"][0]) == (6, 6)


@pytest.mark.parametrize("broken", [3, 5, 7, 8, 9])
def test_an_interruption_changes_nothing(tmp_path, broken):
    settings = {"steps": 12, "evaluate_every": 2, "log_every": 3, "patience": 3, "min_improvement": 0.01}
    whole, again = (Bench(tmp_path / name, scores=SCORES, save_every=1, **settings) for name in ("whole", "again"))
    expected = whole.train()
    with pytest.raises(TrainingError):
        again.train(bad={broken: math.nan})
    outcome = again.train(resume=True)
    assert (outcome.steps, outcome.kept_step) == (expected.steps, expected.kept_step) == (10, 8)
    for key in ("loss", "evaluation"):
        lines = [[line["step"] for line in bench.lines(key)] for bench in (whole, again)]
        assert lines[0] == lines[1]


def test_a_run_that_was_stopped_takes_no_step_more(tmp_path):
    bench = Bench(tmp_path, scores=SCORES, steps=12, evaluate_every=2, patience=1)
    first = bench.train()
    second = bench.train(resume=True)  # its process died between the last state and the result
    assert bench.step.taken == [] and (second.steps, second.kept_step) == (first.steps, first.kept_step) == (6, 4)


def test_the_first_process_decides(tmp_path, monkeypatch):
    """Another one whose metric differs in its last bit must do the same."""
    monkeypatch.setattr(World, "decide", lambda self, flag: False)
    assert Bench(tmp_path, scores=SCORES, steps=12, evaluate_every=2, patience=1).train().steps == 12


def test_recipes_without_it_have_the_digest_they_had():
    keys = ("patience=null", "min_improvement=0", "keep_states=null")
    same = load_recipe("kd", [f"stages.0.train.{key}" for key in keys])
    assert same.digest() == load_recipe("kd").digest() != load_recipe("kd", ["stages.0.train.patience=2"]).digest()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"min_improvement": 0.1}, "min_improvement is for patience, which is not given"),
        ({"patience": 0}, "greater than or equal to 1"),
        ({"keep_states": 0}, "got 0, expected all or a number of epochs from 1 on"),
        ({"keep_states": "some"}, "got 'some', expected all or a number"),
        ({"keep_states": True}, "expected a"),
    ],
)
def test_what_cannot_be(settings, message):
    with pytest.raises(ValidationError, match=message):
        TrainSection(steps=1, **settings)


def test_epochs_that_are_kept_are_events():
    assert Plan(20, 6, 100, 100, 100, 6).next_event(0) == 6 and Plan(20, 6, 100, 100, 100).next_event(0) == 20


@pytest.mark.only_backend("torch")
def test_each_kept_epoch_is_a_model(tmp_path, tiny_task, tiny_model, backend_name):
    train = {"epochs": 4, "keep_states": 2, "keep": "last", "patience": 3}
    tree = tiny.kd_recipe(tiny_task, tiny_model, **train)
    del tree["stages"][0]["train"]["steps"]
    result = run(parse_recipe(tree, "test"), out=tmp_path / "run", backend=backend_name, device="cpu", quiet=True, report=False)
    places = sorted((tmp_path / "run" / "checkpoints").iterdir())
    assert [place.name for place in places] == ["epoch-3", "epoch-4"]
    lines = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    noted = {line["epoch"]: line["evaluation"]["dev"] for line in lines if "evaluation" in line}
    for epoch, place in zip((3, 4), places):
        assert evaluate(place, tiny_task, backend=backend_name, device="cpu") == pytest.approx(noted[epoch])
        about = json.loads((place / "config.json").read_text())
        assert about["crossdistil"]["epoch"] == epoch
    last = (places[1] / "model.safetensors").read_bytes()
    assert last == (tmp_path / "run" / "student" / "model.safetensors").read_bytes() and result["steps"] == 24


@pytest.mark.only_backend("torch")
def test_a_stage_that_is_not_scored_cannot_stop_early(tmp_path, tiny_task, tiny_model, backend_name):
    tree = tiny.kd_recipe(tiny_task, tiny_model, patience=2)
    tree["stages"][0]["objective"] = [{"loss": "hidden_mse", "layers": [[2, 1]]}]
    with pytest.raises(RecipeError, match=r"stages\[0\]\.train\.patience: the stage is not scored on dev"):
        run(parse_recipe(tree, "test"), out=tmp_path / "run", backend=backend_name, device="cpu", quiet=True)
