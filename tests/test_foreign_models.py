"""Commands that train and predict take a checkpoint of any framework as they take a model folder: converted once, into the
cache, and never seen by the user."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ruamel.yaml import YAML
from safetensors.numpy import load_file

import crossdistil
from crossdistil.core.app import converted, model_notes, models
from crossdistil.core.checkpoint import load_model
from crossdistil.core.errors import TrainingError
from crossdistil.core.runs import RunFolder
from crossdistil.tests import tiny
from crossdistil.tests.wrong_input_files import contents
from crossdistil.tests.wrong_input_files import crossdistil as command

PLACES = {
    "tf": "tf/bert_model.ckpt",
    "mindspore": "mindspore",
    "oneflow": "oneflow",
    "bin": "bin/pytorch_model.bin",
}
"""How a user names each checkpoint: a prefix, folders, a file."""
# What is converted is the same folder for every backend, and MindSpore compiles every run anew.
FORMATS = [pytest.param(name, marks=pytest.mark.only_backend("torch", "oneflow")) for name in PLACES]


def write_formats(folder: Path, source: Path) -> None:
    for name in ("tf", "mindspore", "oneflow"):
        crossdistil.convert(source, folder / name, to=name)
    crossdistil.convert(source, folder / "bin", to="pytorch", layout="bin")


@pytest.fixture(scope="module")
def teachers(tmp_path_factory, tiny_model) -> Path:
    """A folder with the tiny model in every format."""
    folder = tmp_path_factory.mktemp("formats")
    write_formats(folder, tiny_model)
    return folder


@pytest.fixture
def cache(tmp_path, monkeypatch) -> Path:
    """A cache of this test's own, `converted` below it."""
    monkeypatch.setenv("CROSSDISTIL_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "converted"


@pytest.fixture
def conversions(monkeypatch) -> list[Path]:
    """The sources that were converted, in their order."""
    sources, right = [], converted.convert

    def convert(source, *arguments):
        sources.append(source)
        return right(source, *arguments)

    monkeypatch.setattr(converted, "convert", convert)
    return sources


@pytest.fixture(scope="module")
def train(tmp_path_factory, tiny_task, backend_name, pytestconfig):
    """`train(model, out)`: the answer of a run of four steps whose teacher and whose student's first weights are `model`."""
    folder = tmp_path_factory.mktemp("recipes")

    def run(model: Path, out: Path, *options: object):
        tree = tiny.kd_recipe(tiny_task, model, steps=4, log_every=1, save_every=2)
        tree["student"]["init"]["from"] = str(model)
        recipe = folder / "recipe.yaml"
        recipe.write_text(json.dumps(tree))
        device = pytestconfig.getoption("--device")
        return command("run", recipe, "--out", out, "--backend", backend_name, "--device", device, *options)

    return run


@pytest.fixture(scope="module")
def expected(train, tmp_path_factory, tiny_model) -> Path:
    """The run with the canonical folder."""
    out = tmp_path_factory.mktemp("expected") / "run"
    answer = train(tiny_model, out)
    assert answer.code == 0, answer.stderr
    return out


def losses(out: Path) -> list[float]:
    lines = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    return [line["loss"] for line in lines if "loss" in line]


def assert_same_run(out: Path, expected: Path) -> None:
    """Within what rounding leaves after four steps of Adam: on some processors the last bits of a matrix product depend on
    where in memory the matrices lie. A weight in a wrong place would be off by its own size."""
    assert losses(out) == pytest.approx(losses(expected), rel=1e-6)
    found, wanted = (load_file(folder / "student" / "model.safetensors") for folder in (out, expected))
    assert found.keys() == wanted.keys()
    for name, array in wanted.items():
        np.testing.assert_allclose(found[name], array, rtol=0, atol=1e-5)


def recipe_of(out: Path) -> dict[str, Any]:
    return YAML(typ="safe").load(out / "recipe.yaml")


@pytest.mark.parametrize("name", FORMATS)
def test_a_run_is_that_with_the_canonical_folder(teachers, train, expected, tmp_path, cache, conversions, name):
    path = teachers / PLACES[name]
    answer = train(path, tmp_path / "run")
    assert (answer.code, answer.stderr) == (0, "") and conversions == [path]
    assert_same_run(tmp_path / "run", expected)
    recipe = recipe_of(tmp_path / "run")
    assert (recipe["teacher"]["model"], recipe["student"]["init"]["from"]) == (str(path), str(path))
    written = b"".join(file.read_bytes() for file in (tmp_path / "run").glob("*.*"))
    assert str(cache).encode() not in answer.stdout.encode() + written


# What is converted has ended before a backend begins: one that compiles for seconds says nothing more.
@pytest.mark.only_backend("torch", "oneflow")
def test_an_interrupted_run_goes_on(teachers, train, expected, tmp_path, cache, conversions, monkeypatch):
    save = RunFolder.save_state

    def stop(folder, state):
        save(folder, state)
        raise TrainingError("stopped")

    path = teachers / PLACES["tf"]
    with monkeypatch.context() as patch:
        patch.setattr(RunFolder, "save_state", stop)
        assert train(path, tmp_path / "run").messages == ["stopped"]
    assert [folder.name for folder in (tmp_path / "run" / "state").iterdir()] == ["step-00000002"]
    answer = train(path, tmp_path / "run", "--resume")
    assert (answer.code, answer.stderr) == (0, "") and conversions == [path]
    assert_same_run(tmp_path / "run", expected)


@pytest.mark.parametrize("name", FORMATS)
def test_evaluation_and_predictions(expected, tmp_path, tiny_task, cache, backend_name, pytestconfig, name):
    """What the model was trained on travels with it."""
    write_formats(tmp_path, expected / "student")
    options = ["--backend", backend_name, "--device", pytestconfig.getoption("--device")]
    for arguments in (["evaluate", "--data", tiny_task], ["predict", "the film was good", "dull"]):
        verb, *others = arguments
        own, found = (
            command(verb, model, *others, *options) for model in (expected / "student", tmp_path / PLACES[name])
        )
        assert (own.code, found.code) == (0, 0)
        other = (f"note: {tmp_path / PLACES[name]}: ", "evaluated ")  # the second: how long it took
        said, same = ([line for line in each.stderr.splitlines() if not line.startswith(other)] for each in (found, own))
        assert said == same
        assert found.stdout == own.stdout


NAMED = {
    "tf/bert_model.ckpt": "tf/bert_model.ckpt.data-00000-of-00001",
    "tf/bert_model.ckpt.index": "tf/bert_model.ckpt.data-00000-of-00001",
    "tf": "tf/bert_model.ckpt.index",
    "mindspore": "mindspore/model.ckpt",
    "mindspore/model.ckpt": "mindspore/vocab.txt",
    "oneflow": "oneflow/weights/tensor_3/out",
    "oneflow/weights": "oneflow/config.json",
    "bin/pytorch_model.bin": "bin/tokenizer.json",
    "bin": "bin/pytorch_model.bin",
}
"""What a user names -> a file whose change matters."""


@pytest.mark.parametrize(("named", "changed"), NAMED.items())
def test_a_checkpoint_is_converted_once_and_again_when_it_has_changed(teachers, tmp_path, cache, conversions, named, changed):
    folder = shutil.copytree(teachers, tmp_path / "formats")
    first = models.model_folder(folder / named)
    assert models.model_folder(folder / named) == first and conversions == [folder / named]
    assert first.parent == cache and load_model(first).labels == ("negative", "positive")
    state = (folder / changed).stat()
    os.utime(folder / changed, ns=(state.st_atime_ns, state.st_mtime_ns + 10**9))
    second = models.model_folder(folder / named)
    assert second != first and conversions == [folder / named] * 2 and contents(first) == contents(second)


def test_a_later_model_under_the_same_name(teachers, tmp_path, cache, conversions):
    """With the same sizes, a moment later: what a retrained teacher is."""
    folder = shutil.copytree(teachers, tmp_path / "formats")
    first = load_model(models.model_folder(folder / PLACES["tf"]))
    other = tmp_path / "other"
    tiny.write_model(other, seed=5)
    crossdistil.convert(other, folder / "tf", to="tf", overwrite=True)
    second = load_model(models.model_folder(folder / PLACES["tf"]))
    np.testing.assert_array_equal(second.parameters["classifier.weight"], load_model(other).parameters["classifier.weight"])
    assert not np.array_equal(first.parameters["classifier.weight"], second.parameters["classifier.weight"])
    assert len(conversions) == len(list(cache.iterdir())) == 2


def test_a_canonical_folder_is_taken_as_it_is(tiny_model, cache, conversions):
    assert models.model_folder(tiny_model) == tiny_model and not conversions and not cache.exists()
    assert models.model_folder(tiny_model / "nothing") == tiny_model / "nothing"


def test_errors_name_the_keys_and_the_paths_that_were_given(teachers, tiny_task, tmp_path, cache, backend_name):
    """All of them at once, before anything is written."""
    folder = shutil.copytree(teachers, tmp_path / "formats")
    shard = folder / "tf" / "bert_model.ckpt.data-00000-of-00001"
    shard.write_bytes(shard.read_bytes()[:-10])
    (folder / "mindspore" / "config.json").unlink()
    tree = tiny.kd_recipe(tiny_task, folder / "tf")
    tree["student"]["init"]["from"] = str(folder / "mindspore")
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(json.dumps(tree))
    before = contents(tmp_path)
    answer = command("run", recipe, "--out", tmp_path / "run", "--backend", backend_name)
    teacher, student, remedy = answer.messages
    assert teacher.startswith(f"teacher.model: {shard}: is cut off") and answer.code == 2
    assert student.startswith(f"student.init.from: {folder}/mindspore: no config.json or bert_config.json beside it")
    assert f"`crossdistil convert {folder}/mindspore " in remedy
    tree["teachers"] = {"one": {"model": str(folder / "bin")}, "two": tree.pop("teacher")}
    tree["student"]["init"]["from"] = str(folder / "bin")
    recipe.write_text(json.dumps(tree))
    answer = command("run", recipe, "--out", tmp_path / "run", "--backend", backend_name)
    assert [message.partition(": is cut off")[0] for message in answer.messages] == [f"teachers.two.model: {shard}"]
    assert before.keys() == {name for name in contents(tmp_path) if not name.startswith("cache")}
    assert len(list(cache.iterdir())) == 1, "of the teacher that is right, and nothing half-made"


def test_errors_about_a_converted_model(teachers, tiny_task, tmp_path, cache, backend_name):
    """Found in the cache, told of what was given."""
    folder = shutil.copytree(teachers, tmp_path / "formats")
    for name in ("tokenizer.json", "vocab.txt", "tokenizer_config.json"):
        (folder / "bin" / name).unlink()
    path = folder / PLACES["bin"]
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(json.dumps(tiny.kd_recipe(tiny_task, path)))
    options = ["--backend", backend_name]
    answers = [command("run", recipe, "--out", tmp_path / "run", *options), command("predict", path, "a", *options)]
    for start, answer in zip(("teacher.model: ", ""), answers):
        assert answer.code == 2 and answer.messages[0].startswith(f"{start}{path}: no tokenizer.json and no vocab.txt; ")
        assert str(cache) not in answer.stderr


def test_only_a_path_that_was_given_stands_for_another(tmp_path, cache):
    """A file that a conversion made, a file of a run, and paths which only hold the name of one, are where they are."""
    given = tmp_path / "formats" / "weights.ckpt"
    given.parent.mkdir()
    (given.parent / "bert_config.json").write_text('{"hidden_size": 8}')
    (given.parent / "vocab.txt").write_text("[PAD]\n")
    folder, run = cache / "0123", tmp_path / "run"
    messages = {
        f"{folder}: no head": f"{given}: no head",
        f"read '{folder}'.": f"read '{given}'.",
        f"(see {folder}, {folder}; {folder}).": f"(see {given}, {given}; {given}).",
        f"--from={folder} is damaged. {folder}": f"--from={given} is damaged. {given}",
        f"{folder}/config.json: x": f"{given.parent}/bert_config.json: x",
        f"{folder}/vocab.txt:3: x": f"{given.parent}/vocab.txt:3: x",
        f"{run}/student: x": f"{run}: x",
    }
    same = ["/tokenizer.json: x", "/model.safetensors: cut off", "/a/config.json", "/", "-old: x", ".lock: x", "4", ".a/b: x"]
    messages |= {f"{folder}{end}": f"{folder}{end}" for end in same}
    student = f"{run}/student"
    kept = [f"/mnt{folder}: x", f"{student}/config.json: x", f"{student}-onnx: x", f"/mnt{student}", f"{student}s"]
    messages |= {text: text for text in kept}
    for text, shown in messages.items():
        with pytest.raises(TrainingError) as raised, model_notes.paths_as_given((given, folder), (run, run / "student")):
            raise TrainingError(text)
        assert str(raised.value) == shown
