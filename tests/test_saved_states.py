"""A saved state, a student or a note that is not as it was written: one line that names it, and never another model."""

from __future__ import annotations

import json
import shutil

import pytest

from crossdistil.core.errors import TrainingError
from crossdistil.core.states import check_arrays, check_steps, layout_of, read_state
from crossdistil.tests import damages
from crossdistil.tests.wrong_input_files import Files, contents, crossdistil, write_files

FILES = ("parameters.safetensors", "optimizer.safetensors", "best.safetensors", "state.json")


@pytest.fixture(scope="module")
def files(tmp_path_factory) -> Files:
    return write_files(tmp_path_factory.mktemp("right"))


@pytest.fixture(scope="module")
def original(files, backend_name):
    """A finished run whose first evaluation stays the best, as none is better, so that the state has its weights too."""
    folder = files.root / "finished"
    sets = ["--set=stages.0.train.evaluate_every=1", "--set=stages.0.train.learning_rate=1e-9"]
    arguments = ["run", files.recipe, "--backend", backend_name, "--device", "cpu", "--out", folder, *sets]
    assert crossdistil(*arguments).code == 0
    return folder, arguments


@pytest.fixture
def unfinished(original, tmp_path):
    """(its state's folder, `resume()`: the messages and the text of going on)."""
    folder = shutil.copytree(original[0], tmp_path / "run")
    (folder / "result.json").unlink()
    arguments = [folder if argument == original[0] else argument for argument in original[1]]
    (state,) = (folder / "state").iterdir()
    return state, lambda: crossdistil(*arguments, "--resume")


def refused(unfinished, start: str) -> None:
    """By the command, which changes nothing."""
    state, resume = unfinished
    before = contents(state)
    answer = resume()
    assert answer.code == 2 and len(answer.messages) == 1 and answer.messages[0].startswith(f"{state}: {start}"), answer.stderr
    assert contents(state) == before


def unreadable(state, start: str) -> None:
    """By what the command reads a state with."""
    with pytest.raises(TrainingError) as caught:
        read_state(state)
    assert str(caught.value).startswith(f"{state}: the saved state is damaged: {start}") and "\n" not in str(caught.value)


@pytest.mark.only_backend("torch")
@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("kind", damages.DAMAGES)
def test_a_file_of_a_state(unfinished, name, kind):
    assert read_state(unfinished[0])
    damages.DAMAGES[kind](unfinished[0] / name)
    unreadable(unfinished[0], f"{name}: ")


@pytest.mark.only_backend("torch")
@pytest.mark.parametrize("kind", damages.DAMAGES)
def test_the_checksums_of_a_state(unfinished, kind):
    damages.DAMAGES[kind](unfinished[0] / "checksums.json")
    unreadable(unfinished[0], "")


@pytest.mark.only_backend("torch")
@pytest.mark.parametrize("name", FILES[:2])
@pytest.mark.parametrize("kind", damages.ARRAYS)
def test_arrays_that_are_not_the_recipes(unfinished, name, kind):
    state, _ = read_state(unfinished[0])
    part = name.partition(".")[0]
    expected = layout_of(getattr(state, part))
    damages.arrays(damages.ARRAYS[kind])(unfinished[0] / name)
    state, _ = read_state(unfinished[0])
    with pytest.raises(TrainingError, match=f"the saved state does not fit: {part}: "):
        check_arrays(state, part, getattr(state, part), expected)


@pytest.mark.only_backend("torch")
@pytest.mark.parametrize("kind", damages.NOTES)
def test_notes_that_cannot_be(unfinished, kind):
    damages.noted(damages.NOTES[kind])(unfinished[0] / "state.json")
    with pytest.raises(TrainingError, match="the saved state "):
        check_steps(read_state(unfinished[0])[0], 0, 4, 3)
        assert kind == "stage"  # the run knows how many there are
        raise TrainingError("the saved state ")


def test_a_framework_sees_no_state_that_does_not_fit(unfinished):
    """Some take an array of a wrong shape, and write beyond its end."""
    damages.arrays(damages.reshape)(unfinished[0] / "optimizer.safetensors")
    refused(unfinished, "the saved state does not fit: the optimizer: ")
    damages.arrays(damages.drop)(unfinished[0] / "parameters.safetensors")
    refused(unfinished, "the saved state does not fit: the parameters: ")


@pytest.mark.only_backend("torch")
def test_a_state_of_an_earlier_version(unfinished, original, caplog):
    state, resume = unfinished
    damages.older(state)
    assert resume().code == 0
    assert f"{state}: is of an earlier version, without checksums; names, shapes and types are checked" in caplog.text
    weights = [(folder / "student" / "model.safetensors").read_bytes() for folder in (original[0], state.parents[1])]
    assert weights[0] == weights[1]


@pytest.mark.only_backend("torch")
def test_files_that_change_places(unfinished):
    damages.swap("parameters.safetensors", "optimizer.safetensors")(unfinished[0])
    refused(unfinished, "the saved state is damaged: optimizer.safetensors: is not as it was written")


@pytest.mark.only_backend("torch")
def test_metrics_that_are_not_as_they_were(unfinished, caplog):
    state, resume = unfinished
    path = state.parents[1] / "metrics.jsonl"
    lines = path.read_text().splitlines()
    path.write_text("\n".join([lines[0].replace('"step": 1', '"step": 0'), "{", *lines[2:]]) + "\n")
    assert resume().code == 0
    assert f"{path}:2: is no line of metrics, and is left out" in caplog.text
    assert f"{path}: its lines up to step 4 are not as they were written" in caplog.text


@pytest.mark.only_backend("torch")
def test_a_student_that_is_not_as_it_was_written(original, files, tmp_path, caplog):
    folder = shutil.copytree(original[0], tmp_path / "run")
    evaluate = ["evaluate", folder / "student", "--data", files.data]
    before = crossdistil(*evaluate)
    assert before.code == 0
    config = folder / "student" / "config.json"
    config.write_text(json.dumps(json.loads(config.read_text())))
    assert crossdistil(*evaluate).stdout == before.stdout and f"{config}: is not as it was written" in caplog.text
    weights = folder / "student" / "model.safetensors"
    damages.flip(weights, 0.999)
    told = f"{weights}: is not as it was written; if it was changed on purpose, remove checksums.json"
    assert crossdistil(*evaluate).messages == [told]
    assert crossdistil("convert", folder / "student", tmp_path / "tf", "--to", "tf").messages == [told]
    arguments = [folder if argument == original[0] else argument for argument in original[1]]
    assert crossdistil(*arguments, "--resume").messages == [
        f"{folder}: the run is complete, but student/config.json: is not as it was written; "
        "remove result.json, and --resume makes it again from the saved state"
    ]
    (folder / "result.json").unlink()
    assert crossdistil(*arguments, "--resume").code == 0
    assert weights.read_bytes() == (original[0] / "student" / "model.safetensors").read_bytes()
    for content in ("", "[", "[]"):
        (folder / "result.json").write_text(content)
        (message,) = crossdistil(*arguments, "--resume").messages
        assert message.startswith(f"{folder}/result.json: ") and message.endswith("; remove it, and --resume makes it again")
