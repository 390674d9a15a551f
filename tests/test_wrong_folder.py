"""Output that cannot be written, or that belongs to something else: one message, exit code 2, and nothing half-written,
changed or left behind."""

from __future__ import annotations

import fcntl
import json
import os
import shutil

import pytest

from crossdistil.core.errors import TrainingError
from crossdistil.core.training import Trainer
from crossdistil.tests.damages import full_disk
from crossdistil.tests.wrong_input_files import Files, contents, crossdistil, write_files


@pytest.fixture(scope="module")
def files(tmp_path_factory) -> Files:
    return write_files(tmp_path_factory.mktemp("right"))


@pytest.fixture
def finished(files, tmp_path):
    """A copy of a complete run's folder."""
    original = files.root / "finished"
    if not original.exists():
        answer = crossdistil("run", files.recipe, "--out", original)
        assert answer.code == 0 and not answer.stderr, answer.stderr
    return shutil.copytree(original, tmp_path / "finished")


def unfinished(folder):
    """The same run, interrupted before its end."""
    (folder / "result.json").unlink()
    return folder


def assert_refused(answer, *messages: str) -> None:
    assert (answer.messages, answer.code) == (list(messages), 2)


def refused_run(files, out, *arguments):
    """Run into `out`, which must stay as it is; the only message."""
    before = contents(out)
    answer = crossdistil("run", files.recipe, "--out", out, *arguments)
    assert contents(out) == before
    assert answer.code == 2 and len(answer.messages) == 1, answer.stderr
    return answer.messages[0]


def test_another_run(files, finished):
    message = refused_run(files, finished)
    assert message == f"{finished}: holds another run; choose a new folder, or --resume to go on with it"


@pytest.mark.parametrize("resume", [[], ["--resume"]])
def test_folder_of_something_else(files, tmp_path, resume):
    """A run neither writes there nor, when it fails, removes what it did not make."""
    (tmp_path / "thesis.txt").write_text("the only copy")
    message = refused_run(files, tmp_path, *resume, "--set", "stages.0.train.learning_rate=1e30")
    assert message == f"{tmp_path}: holds thesis.txt and no run.json; choose a new or an empty folder"


def test_resume_with_another_recipe(files, finished):
    message = refused_run(files, unfinished(finished), "--resume", "--set", "seed=2")
    assert message == f"{finished}: was started with another recipe: seed was 1, is 2 (see {finished}/recipe.yaml)"
    more = ["student.init.layers=[1, 2]", "stages.0.train.beta1=0.8", "task.max_length=15", "stages.0.objective.1=hard_label"]
    message = refused_run(files, finished, "--resume", *(part for each in more for part in ("--set", each)))
    assert message == (
        f"{finished}: was started with another recipe: task.max_length was 16, is 15; student.init.layers.0 was 0, is 1; "
        f"stages.0.objective.1.weight was 0.5, is 1.0; and 1 more (see {finished}/recipe.yaml)"
    )


@pytest.mark.parametrize(("key", "value"), [("backend", "jax"), ("device", "cuda"), ("precision", "bf16")])
def test_resume_with_another_backend(files, finished, key, value):
    marker = unfinished(finished) / "run.json"
    content = json.loads(marker.read_text())
    marker.write_text(json.dumps(content | {key: value}))
    message = refused_run(files, finished, "--resume")
    assert message == f"{finished}: was started with {key} '{value}', cannot be resumed with '{content[key]}'"


def test_resume_of_a_complete_run(files, finished, monkeypatch):
    """Nothing is read for it, and no backend started."""
    for name in ("prepared_job", "load_engine"):
        monkeypatch.setattr(f"crossdistil.core.app.run.{name}", lambda *_: pytest.fail("was called"))
    assert refused_run(files, finished, "--resume") == f"{finished}: the run is complete; there is nothing to resume"


def test_resume_of_a_run_whose_result_is_of_another_type(files, finished):
    path = finished / "result.json"
    path.write_text('{"student": 5}')
    said = f"{path}: student: expected an object, got 5; remove it, and --resume makes it again"
    assert refused_run(files, finished, "--resume") == said


def test_resume_of_a_damaged_run(files, finished):
    (unfinished(finished) / "run.json").write_text("[1")
    assert refused_run(files, finished, "--resume").startswith(f"{finished}/run.json: damaged: ")


def test_resume_from_a_damaged_state(files, finished):
    (state,) = (unfinished(finished) / "state").iterdir()
    path = state / "optimizer.safetensors"
    path.write_bytes(path.read_bytes()[:-10])
    before = contents(finished / "state")
    answer = crossdistil("run", files.recipe, "--out", finished, "--resume")
    assert answer.code == 2 and len(answer.messages) == 1
    assert answer.messages[0].startswith(f"{state}: the saved state is damaged: ")
    assert contents(finished / "state") == before


def test_folder_in_use(files, tmp_path):
    with (tmp_path / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        assert refused_run(files, tmp_path) == f"{tmp_path}: another process is running in it"


@pytest.mark.parametrize(
    ("place", "message"),
    [
        ("file", "is a file, expected a folder to write the run to"),
        ("file/run", "{file} is a file, expected a folder to write the run to"),
    ],
)
def test_file_in_the_way(files, tmp_path, place, message):
    (tmp_path / "file").write_text("x")
    answer = crossdistil("run", files.recipe, "--out", tmp_path / place)
    assert_refused(answer, f"{tmp_path / place}: {message.format(file=tmp_path / 'file')}")
    assert contents(tmp_path).keys() == {"file"}


def test_parent_that_cannot_be_written(files, tmp_path, monkeypatch):
    """Simulated, since root may write anywhere."""
    make = os.mkdir

    def refuse(path, *arguments, **options):
        if str(path).startswith(str(tmp_path)):
            raise PermissionError(13, "Permission denied", str(path))
        make(path, *arguments, **options)

    monkeypatch.setattr(os, "mkdir", refuse)
    answer = crossdistil("run", files.recipe, "--out", tmp_path / "run")
    assert_refused(answer, f"{tmp_path}/run: cannot be written: Permission denied")


@pytest.mark.parametrize("name", ["run.json", "recipe.yaml"])
def test_full_disk_at_the_start(files, tmp_path, name):
    """Nothing is left, not even the folders above."""
    assert crossdistil("run", files.recipe, "--out", tmp_path / "other").code == 0  # the tokens are cached
    sizes = {"run.json": 20, "recipe.yaml": (tmp_path / "other" / "run.json").stat().st_size + 20}
    with full_disk(sizes[name]):
        answer = crossdistil("run", files.recipe, "--out", tmp_path / "deep" / "run")
    assert_refused(answer, f"{tmp_path}/deep/run/{name}: cannot be written: File too large")
    assert not (tmp_path / "deep").exists()


def test_full_disk_in_training(files, finished, tmp_path):
    """The state is whole or not there, and with more room the run goes on to the same weights."""
    out = tmp_path / "run"
    with full_disk(4096):
        answer = crossdistil("run", files.recipe, "--out", out)
    assert_refused(answer, f"{out}/state/step-00000002: cannot be written: File too large")
    assert contents(out).keys() == {"run.json", "recipe.yaml", "metrics.jsonl", "watched.jsonl", "state"}
    assert crossdistil("run", files.recipe, "--out", out, "--resume").code == 0
    weights = ("student", "model.safetensors")
    assert out.joinpath(*weights).read_bytes() == finished.joinpath(*weights).read_bytes()


def test_full_disk_for_the_log(files, tmp_path):
    """Every later line fails too."""
    out = tmp_path / "run"
    room = {"stages.0.train.save_every": 100, "stages.0.train.steps": 30, "stages.0.train.log_every": 1}
    with full_disk(2500):
        answer = crossdistil("run", files.recipe, "--out", out, *(f"--set={key}={value}" for key, value in room.items()))
    assert_refused(answer, f"{out}/metrics.jsonl: cannot be written: File too large")


def test_full_disk_for_predictions(files, finished, tmp_path):
    """The old file stays."""
    out = tmp_path / "predictions.jsonl"
    out.write_text("old\n")
    with full_disk(50):
        answer = crossdistil("predict", finished / "student", "the film is good", "--out", out, "--overwrite")
    assert_refused(answer, f"{out}: cannot be written: File too large")
    assert out.read_text() == "old\n" and set(os.listdir(tmp_path)) == {"finished", "predictions.jsonl"}


@pytest.mark.parametrize("exists", [True, False])
def test_failure_before_the_first_step(files, tmp_path, monkeypatch, exists):
    """An empty folder that was there stays, one that was made goes."""
    out = tmp_path / "some" / "run"
    if exists:
        out.mkdir(parents=True)

    def fail(trainer, state):
        raise TrainingError("no")

    monkeypatch.setattr(Trainer, "run", fail)
    assert_refused(crossdistil("run", files.recipe, "--out", out), "no")
    assert set(contents(tmp_path)) == ({"some", "some/run"} if exists else set())


@pytest.mark.parametrize("command", ["crosscheck", "demo"])
def test_occupied_folder_of_other_commands(files, tmp_path, command, monkeypatch):
    monkeypatch.setattr("crossdistil.core.app.crosscheck.interpreters", lambda names: None)
    monkeypatch.setattr("crossdistil.core.app.demo.interpreters", lambda names: None)
    (tmp_path / "thesis.txt").write_text("the only copy")
    arguments = [files.recipe] if command == "crosscheck" else []
    answer = crossdistil(command, *arguments, "--out", tmp_path)
    assert answer.code == 2 and len(answer.messages) == 1
    assert answer.messages[0].startswith(f"{tmp_path}: holds something already; ")
    assert contents(tmp_path).keys() == {"thesis.txt"}


def test_standard_output_that_cannot_be_written(files, tmp_path, start_cli):
    """`crossdistil recipes > /dev/full`."""
    with open("/dev/full", "w") as full:
        process = start_cli("recipes", stdout=full)
        _, errors = process.communicate(timeout=120)
    assert (process.returncode, errors) == (2, "crossdistil: error: standard output: No space left on device\n")
