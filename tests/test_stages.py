"""Recipes of several stages, and the projections that go from one to the next: what is trained and logged in each, and that
a run which is killed in any of them goes on to the same end."""

from __future__ import annotations

import json
import shutil
import signal
import time

import numpy as np
import pytest
from safetensors.numpy import load_file

from crossdistil.core.app.api import run
from crossdistil.core.errors import RecipeError
from crossdistil.core.job import prepare
from crossdistil.core.models.architectures import tensor_shapes
from crossdistil.core.recipe import parse_recipe
from crossdistil.core.runs import RunFolder
from crossdistil.tests import tiny

FIRST, SECOND = 12, 10
FIT = {"kind": "linear", "name": "fit", "learning_rate": 1e-2}
PROJECTION = {"projection.fit.weight", "projection.fit.bias"}
ARCHITECTURE = {"num_hidden_layers": 2, "hidden_size": 16, "num_attention_heads": 2, "intermediate_size": 24}


def two_stages(data, teacher, first=FIRST, second=SECOND, **train):
    """A narrower student learns the teacher's hidden states through one projection, then its answers, with dropout in
    both; its embeddings are trained in the first stage only."""
    tree = tiny.kd_recipe(data, teacher, steps=second, **{"log_every": 3, **train})
    tree["student"] = {"architecture": ARCHITECTURE, "init": {"from": "random"}}
    [answers] = tree["stages"]
    answers |= {"name": "answers", "freeze": ["embeddings"]}
    states = {
        "name": "states",
        "objective": [{"loss": "hidden_mse", "layers": [[0, 0], [2, 1]], "projection": FIT}],
        "train": answers["train"] | {"steps": first, "schedule": "constant", "warmup": 0},
    }
    tree["stages"] = [states, answers]
    return tree


@pytest.fixture(scope="module")
def settings(backend_name, pytestconfig):
    return {"backend": backend_name, "device": pytestconfig.getoption("--device"), "quiet": True}


def finish(tree, out, settings, **options):
    return run(parse_recipe(json.loads(json.dumps(tree)), "test"), out=out, **settings, **options)


def read_lines(folder, key=None):
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [line for line in lines if key is None or key in line]


@pytest.fixture(scope="module")
def whole(tmp_path_factory, tiny_task, tiny_model, settings):
    """The folder of an unbroken run of two stages."""
    folder = tmp_path_factory.mktemp("stages") / "whole"
    finish(two_stages(tiny_task, tiny_model, save_every=4), folder, settings)
    return folder


def test_steps_are_counted_through_the_stages(whole):
    lines = read_lines(whole, "loss")
    places = [(line["step"], line["stage"]) for line in lines]
    assert places == [(3, "states"), (6, "states"), (9, "states"), (12, "states"),
                      (15, "answers"), (18, "answers"), (21, "answers"), (22, "answers")]  # fmt: skip
    assert [set(line["terms"]) for line in lines] == [{"hidden_mse"}] * 4 + [{"kd_ce", "hard_label"}] * 4
    # Six steps an epoch; each stage has its own epochs and its own schedule.
    assert [line["epoch"] for line in lines] == pytest.approx([0.5, 1, 1.5, 2, 0.5, 1, 1.5, 10 / 6])
    rates = [line["learning_rate"] for line in lines]
    assert rates[:4] == [1e-3] * 4 and rates[4] > rates[5] > rates[6] > rates[7] > 0
    assert lines[3]["loss"] < 0.9 * lines[0]["loss"]
    # A student that has not learned to answer is not evaluated.
    evaluations = read_lines(whole, "evaluation")
    assert [(line["step"], line["stage"]) for line in evaluations] == [(18, "answers"), (22, "answers")]
    result = json.loads((whole / "result.json").read_text())
    assert result["steps"] == 22 and result["student"]["kept_step"] in (18, 22)
    assert [(stage["name"], stage["steps"]) for stage in result["stages"]] == [("states", 12), ("answers", 10)]
    assert result["epochs"] == pytest.approx(22 / 6)


def test_the_finished_student_is_not_scored_again(whole, tmp_path, tiny_task, tiny_model, settings):
    """What it answered when it was kept is what its saved weights answer, bit for bit: a run that has only these asks them."""
    again = shutil.copytree(whole, tmp_path / "again")
    (again / "result.json").unlink()
    (again / "predictions.safetensors").unlink()
    finish(two_stages(tiny_task, tiny_model, save_every=4), again, settings, resume=True)
    for name in ("predictions.safetensors", "student/model.safetensors"):
        assert (again / name).read_bytes() == (whole / name).read_bytes(), name
    results = [json.loads((folder / "result.json").read_text()) for folder in (whole, again)]
    assert results[0]["student"] == results[1]["student"] and results[0]["dev"] == results[1]["dev"]


def test_projections_are_beside_the_student(whole, tiny_task, tiny_model):
    student = load_file(whole / "student" / "model.safetensors")
    job = prepare(parse_recipe(two_stages(tiny_task, tiny_model), "test"), "test", 1)
    assert set(student) == set(tensor_shapes(job.student.config, 2))
    trained = load_file(whole / "student" / "projections.safetensors")
    assert set(trained) == PROJECTION
    start = job.stage(0).new_projections({}, 7)
    for name, array in trained.items():
        assert array.shape == start[name].shape and array.dtype == np.float32
        assert np.abs(array - start[name]).max() > 1e-2, name  # at its own rate, ten times the stage's
    assert start["projection.fit.weight"].shape == (32, 16) and not start["projection.fit.bias"].any()


def test_each_stage_trains_what_it_uses_and_does_not_freeze(tiny_task, tiny_model):
    job = prepare(parse_recipe(two_stages(tiny_task, tiny_model), "test"), "test", 1)
    names = set(job.student.parameters)
    held = job.student.parameters | job.stage(0).new_projections({}, 7)
    states, answers = (job.stage(index).optimizer(held) for index in (0, 1))
    last = {name for name in names if name.startswith(("bert.pooler.", "classifier.", "bert.encoder.layer.1."))}
    embeddings = {name for name in names if name.startswith("bert.embeddings.")}
    assert states.trainable == names - last | PROJECTION
    assert states.rate_factors == {name: pytest.approx(10.0) for name in PROJECTION}
    assert answers.trainable == names - embeddings and not answers.rate_factors
    # The first stage of a recipe has the order of one with a single stage, the others their own.
    orders = [next(job.stage(index).batches.epoch(0))[0]["input_ids"].tolist() for index in (0, 0, 1)]
    assert orders[0] == orders[1] != orders[2]


def assert_same_end(whole, broken, exact):
    """Weights, projections, optimizer, metrics and result."""
    [end] = (whole / "state").iterdir()
    files = [f"student/{name}.safetensors" for name in ("model", "projections")]
    files += [f"state/{end.name}/{name}.safetensors" for name in ("parameters", "optimizer")]
    for name in files:
        expected, found = load_file(whole / name), load_file(broken / name)
        assert expected.keys() == found.keys()
        for key, array in expected.items():
            np.testing.assert_allclose(found[key], array, rtol=0, atol=0 if exact else 1e-6, err_msg=f"{name}: {key}")
    for line, other in zip(read_lines(broken), read_lines(whole), strict=True):
        assert line.keys() == other.keys()
        if exact:
            line.pop("tokens_per_second", None), other.pop("tokens_per_second", None)
            assert line == other
        elif "loss" in line:
            assert (line["step"], line["stage"]) == (other["step"], other["stage"])
            assert line["loss"] == pytest.approx(other["loss"], rel=1e-5)
    results = [json.loads((folder / "result.json").read_text()) for folder in (whole, broken)]
    for key in ("steps", "epochs", "recipe_digest"):
        assert results[0][key] == results[1][key]
    assert results[0]["student"]["kept_step"] == results[1]["student"]["kept_step"]
    assert results[0]["student"]["metrics"] == pytest.approx(results[1]["student"]["metrics"])
    assert [stage["steps"] for stage in results[0]["stages"]] == [stage["steps"] for stage in results[1]["stages"]]


# MindSpore compiles for seconds in each stage that a start comes to: it is killed and goes on in test_resume.
at_once = pytest.mark.only_backend("torch", "oneflow")
PLACES = [(0, 8), (12,), (4, 16)]
"""What is on disk when the run is stopped: nothing, a state within the first stage, its last one, one of the second stage."""


@at_once
@pytest.mark.parametrize("places", PLACES, ids=str)
def test_an_interrupted_run_goes_on_in_its_stage(whole, tmp_path, tiny_task, tiny_model, settings, monkeypatch, places):
    tree = two_stages(tiny_task, tiny_model, save_every=4)
    save = RunFolder.save_state
    broken = tmp_path / "broken"
    for number, place in enumerate(places):
        def stop(folder, state, place=place):
            if place:
                save(folder, state)
            if state.step >= place:
                raise KeyboardInterrupt

        monkeypatch.setattr(RunFolder, "save_state", stop)
        with pytest.raises(KeyboardInterrupt):
            finish(tree, broken, settings, resume=number > 0)
        assert [path.name for path in broken.glob("state/step-*")] == ([f"step-{place:08d}"] if place else [])
    monkeypatch.setattr(RunFolder, "save_state", save)
    finish(tree, broken, settings, resume=True)
    assert_same_end(whole, broken, settings["backend"] == "torch")


LONG = 30


def saved_step(folder):
    names = [path.name for path in folder.glob("state/step-*") if path.name[5:].isdigit()]
    return max((int(name[5:]) for name in names), default=0)


@at_once
def test_a_run_that_is_killed_in_both_stages_goes_on_to_the_same_end(tmp_path, tiny_task, tiny_model, settings, start_cli):
    tree = two_stages(tiny_task, tiny_model, LONG, LONG, save_every=2)
    recipe, broken = tmp_path / "recipe.json", tmp_path / "broken"
    recipe.write_text(json.dumps(tree))
    run(recipe, out=tmp_path / "whole", **settings)
    command = ["run", recipe, "--backend", settings["backend"], "--device", settings["device"], "--out", broken]
    generator, positions = np.random.default_rng(), []
    for start, resume in ((0, []), (LONG, ["--resume"])):
        process, goal = start_cli(*command, *resume), start + int(generator.integers(2, 12))
        while saved_step(broken) < goal and process.poll() is None:
            time.sleep(0.002)
        process.send_signal(signal.SIGKILL)
        output, errors = process.communicate()
        assert process.returncode == -signal.SIGKILL, f"{output}\n{errors}"
        positions.append(saved_step(broken))
    assert positions[0] < LONG < positions[1] < 2 * LONG
    run(recipe, out=broken, resume=True, **settings)
    assert_same_end(tmp_path / "whole", broken, settings["backend"] == "torch")
    assert not list(broken.rglob("*.tmp-*"))


@at_once
def test_a_later_recipe_takes_up_a_projection_of_the_same_name(whole, tmp_path, tiny_task, tiny_model, settings):
    tree = two_stages(tiny_task, tiny_model, 1, 1)
    tree["student"] = {"init": {"from": str(whole / "student")}}
    slow = {"learning_rate": 1e-12}
    tree["stages"][0]["train"] |= slow
    tree["stages"][0]["objective"] = [
        {"loss": "hidden_mse", "layers": [[2, 1]], "projection": FIT | slow},
        {"loss": "hidden_mse", "layers": [[1, 1]], "projection": {"kind": "tanh", "name": "another"} | slow},
    ]
    job = prepare(parse_recipe(json.loads(json.dumps(tree)), "test"), "test", 1)
    trained = load_file(whole / "student" / "projections.safetensors")
    assert set(job.projections) == PROJECTION
    new = job.stage(0).new_projections(job.projections, 7)
    assert set(new) == {"projection.another.weight", "projection.another.bias"}
    finish(tree, tmp_path / "run", settings)
    after = load_file(tmp_path / "run" / "student" / "projections.safetensors")
    assert set(after) == set(trained) | set(new)
    for name, array in (trained | new).items():
        np.testing.assert_allclose(after[name], array, rtol=0, atol=1e-9, err_msg=name)


def test_projections_of_one_name_and_two_shapes_are_refused(whole, tmp_path, tiny_task, tiny_model):
    wide = tiny.CONFIG.model_copy(update={"hidden_size": 48})
    tiny.write_model(tmp_path / "wide", wide, seed=3)
    tree = two_stages(tiny_task, tiny_model)
    del tree["teacher"]
    tree["teachers"] = {"narrow": {"model": str(tiny_model)}, "wide": {"model": str(tmp_path / "wide")}}
    tree["stages"][1]["objective"].append(
        {"loss": "hidden_mse", "layers": [[2, 1]], "teacher": "wide", "projection": {"name": "fit"}}
    )
    with pytest.raises(RecipeError) as caught:
        prepare(parse_recipe(json.loads(json.dumps(tree)), "test"), "test", 1)
    place = "test: stages[1].objective[2].projection: "
    assert str(caught.value).splitlines() == [
        f"{place}projection.fit.{name} has shape {there} here, and {here} in stages[0].objective[0].projection"
        for name, there, here in (("weight", (48, 16), (32, 16)), ("bias", (48,), (32,)))
    ]
    tree = two_stages(tiny_task, tmp_path / "wide")
    tree["student"] = {"init": {"from": str(whole / "student")}}
    with pytest.raises(RecipeError, match=r"projection.fit.weight has shape \(48, 16\) here, and \(32, 16\) in the weights of"):
        prepare(parse_recipe(tree, "test"), "test", 1)
