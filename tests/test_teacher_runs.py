"""What the run that trained a teacher has kept of its answers on dev is not computed again, where that is what would be."""

from __future__ import annotations

import dataclasses
import json
import shutil

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from crossdistil.core.app.api import run
from crossdistil.core.app.teacher_runs import answers_of_run
from crossdistil.core.checksums import write_checksums
from crossdistil.core.job import prepare
from crossdistil.core.recipe import parse_recipe
from crossdistil.tests import tiny


@dataclasses.dataclass
class Engine:
    name: str = "torch"
    device: str = "cpu"
    precision: str = "fp32"


@pytest.fixture(scope="module")
def made(tmp_path_factory, tiny_task, tiny_model):
    """The folder of a run whose student is a teacher here."""
    folder = tmp_path_factory.mktemp("teachers") / "run"
    recipe = parse_recipe(tiny.kd_recipe(tiny_task, tiny_model, steps=2), "test")
    run(recipe, backend="torch", out=folder, device="cpu", quiet=True, latency=False)
    return folder


def kept(folder, data, engine=None, **settings):
    tree = tiny.kd_recipe(data, folder / "student", steps=2)
    tree["task"] |= settings
    job = prepare(parse_recipe(tree, "test"), "test", 1)
    return answers_of_run(job.teachers["teacher"], job.teacher_data["teacher"], engine or Engine())


@pytest.mark.only_backend("torch")
def test_they_are_those_of_the_same_model_rows_and_arithmetic(made, tmp_path, tiny_task):
    found = load_file(made / "predictions.safetensors")["logits"]
    np.testing.assert_array_equal(kept(made, tiny_task), found)
    for other in (Engine(name="oneflow"), Engine(device="cuda"), Engine(precision="bf16")):
        assert kept(made, tiny_task, other) is None
    assert kept(made, tiny_task, max_length=8) is None
    assert kept(made, tiny.write_task(tmp_path / "other", train=44, dev=20)) is None


def edited(folder):
    path = folder / "student" / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"layer_norm_eps": 1e-3}))


def without_checksums(folder):
    (folder / "student" / "checksums.json").unlink()


def of_other_weights(folder):
    """With checksums that are theirs."""
    student = folder / "student"
    arrays = {name: array + np.float32(0.01) for name, array in load_file(student / "model.safetensors").items()}
    save_file(arrays, student / "model.safetensors", {"format": "pt"})
    write_checksums(student)


def of_an_earlier_version(folder):
    """Which did not note whose answers they are."""
    path = folder / "result.json"
    result = json.loads(path.read_text())
    del result["dev"]["weights"]
    path.write_text(json.dumps(result))


def of_another_run(folder):
    path = folder / "result.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"recipe_digest": "0" * 64}))


def changed(folder):
    path = folder / "predictions.safetensors"
    data = path.read_bytes()
    path.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))


@pytest.mark.only_backend("torch")
@pytest.mark.parametrize("change", [edited, without_checksums, of_other_weights, of_an_earlier_version, of_another_run, changed])
def test_they_are_not_of_a_model_that_was_changed(made, tmp_path, tiny_task, change):
    folder = shutil.copytree(made, tmp_path / "run")
    assert kept(folder, tiny_task) is not None
    change(folder)
    assert kept(folder, tiny_task) is None
