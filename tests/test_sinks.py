"""Where a run is followed beside its folder: the recipe's `log`, TensorBoard's files by TensorBoard's own reader, and what goes
wrong with one of them."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
import yaml

from crossdistil.core.app.api import run
from crossdistil.core.errors import CrossdistilError, RecipeError
from crossdistil.core.events import Evaluated, Failed, Finished, Logged, Sink, Started
from crossdistil.core.log_section import TensorBoardSection
from crossdistil.core.recipe import load_recipe, parse_recipe
from crossdistil.core.sinks.outlet import Outlet
from crossdistil.core.sinks.tensorboard_files import TensorBoardFiles
from crossdistil.tests import tiny


def recipe(log=None, **train):
    tree = tiny.kd_recipe(Path("/task"), Path("/model"), **train)
    return tree if log is None else tree | {"log": log}


def logged(step, loss=0.5, **more):
    return Logged(step, "distil", step / 10, loss, {"kd_ce": 2 * loss}, 1e-4, 100.0, **more)


@pytest.mark.parametrize(
    "log",
    [
        ["tensorboard", {"wandb": {"project": "p"}}],
        {"tensorboard": None, "wandb": {"project": "p"}},
    ],
)
def test_a_log_is_a_list_or_a_mapping_and_no_part_of_the_digest(log):
    plain, found = parse_recipe(recipe(), "test"), parse_recipe(recipe(log), "test")
    assert list(found.log.asked) == ["tensorboard", "wandb"] and found.log.wandb.project == "p"
    assert found.digest() == plain.digest() and "log" not in plain.resolved()
    again = parse_recipe(json.loads(json.dumps(found.resolved())), "again")
    assert again.log == found.log


def test_sinks_of_the_command_line_are_added_and_keep_their_settings(tmp_path):
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(recipe([{"wandb": {"project": "p"}}])))
    found = load_recipe(tmp_path / "recipe.yaml", ["log.wandb.offline=true"], log=["wandb", "tensorboard"])
    assert set(found.log.asked) == {"wandb", "tensorboard"}
    assert (found.log.wandb.project, found.log.wandb.offline) == ("p", True)


@pytest.mark.parametrize(
    ("log", "problem"),
    [
        (["tensorbord"], r"log.tensorbord: unknown key; did you mean 'tensorboard'\?"),
        ({"wandb": {"projekt": "x"}}, r"log.wandb.projekt: unknown key; did you mean 'project'\?"),
        ({"tensorboard": {"folder": 3}}, "log.tensorboard.folder: "),
        ([3], "log: got 3, expected the name of a sink"),
        ({"mlflow": {"uri": "https://me:secret@host/"}}, "log.mlflow.uri: holds a password, which recipe.yaml would keep"),
    ],
)
def test_what_is_wrong_with_a_log_is_said_with_the_recipe(log, problem):
    with pytest.raises(RecipeError, match=problem) as caught:
        parse_recipe(recipe(log), "test")
    assert "secret" not in str(caught.value)


@pytest.mark.environment_of("torch", "mindspore")  # whose environment has TensorBoard
def test_a_missing_package_is_told_with_its_remedy_before_anything_is_read(tmp_path, monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    tree = recipe(["wandb", "mlflow", "tensorboard"])
    with pytest.raises(CrossdistilError) as caught:
        run(parse_recipe(tree, "test"), out=tmp_path / "run", backend="torch", quiet=True)
    first, second = str(caught.value).splitlines()
    assert first == f"log.wandb: needs wandb in {sys.executable}: pip install 'crossdistil[wandb]'"
    assert second.startswith("log.mlflow: needs mlflow in ")
    assert not (tmp_path / "run").exists()


def read_back(folder: Path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    found = EventAccumulator(str(folder), size_guidance={"scalars": 0, "tensors": 0})
    found.Reload()
    return found


def scalars(folder: Path) -> dict[str, list[tuple[int, float]]]:
    found = read_back(folder)
    return {tag: [(each.step, round(each.value, 6)) for each in found.Scalars(tag)] for tag in found.Tags()["scalars"]}


def started(folder, step=0, resumed=False):
    return Started(folder, {"method": "kd", "seed": 42}, "torch", "cpu", "fp32", 1, step, resumed)


@pytest.mark.environment_of("torch", "mindspore")  # whose environment has TensorBoard
def test_tensorboard_reads_its_files_also_of_a_run_that_went_on(tmp_path):
    first = TensorBoardFiles(TensorBoardSection())
    first.started(started(tmp_path))
    for step in (10, 20, 30):
        first.logged(logged(step, 1 / step, memory_mb=512.5))
    first.evaluated(Evaluated(30, "distil", 3.0, {"accuracy": 0.75}, True))
    first.failed(Failed("killed", True))
    again = TensorBoardFiles(TensorBoardSection())
    again.started(started(tmp_path, 20, True))
    again.logged(logged(30, 0.25))
    again.finished(Finished({"student": {"metrics": {"accuracy": 0.875}}}))
    found = scalars(tmp_path / "logs" / "tensorboard")
    assert found["train/loss"] == [(10, 0.1), (20, 0.05), (30, 0.25)]
    assert found["train/term/kd_ce"][-1] == (30, 0.5)
    assert found["train/peak_memory_mb"] == [(10, 512.5), (20, 512.5)]
    assert found["final/accuracy"] == [(30, 0.875)] and found.get("dev/accuracy", []) == []  # the evaluation was taken back
    text = read_back(tmp_path / "logs" / "tensorboard").Tensors("recipe")
    assert '"seed": 42' in text[0].tensor_proto.string_val[0].decode()


@pytest.mark.environment_of("torch", "mindspore")  # whose environment has TensorBoard
def test_a_full_disk_spoils_no_record_of_tensorboard(tmp_path):
    sink = TensorBoardFiles(TensorBoardSection(folder=tmp_path / "tb"))
    sink.started(started(tmp_path))
    sink.logged(logged(1))
    whole = sink._file

    class Full:
        def write(self, data):
            whole.write(data[:5])
            whole.flush()
            raise OSError(28, "No space left on device")

        close = whole.close

    sink._file = Full()
    with pytest.raises(OSError):
        sink.logged(logged(2))
    sink.logged(logged(3))
    sink.failed(Failed("", False))
    assert [step for step, _ in scalars(tmp_path / "tb")["train/loss"]] == [1, 3]


class Broken(Sink):
    def __init__(self):
        self.taken = []

    def logged(self, event):
        self.taken.append(event.step)
        raise ConnectionError("the server is\ngone")


def test_a_sink_that_fails_is_told_once_and_still_tried():
    sink, lines = Broken(), []
    outlet = Outlet("mine", sink, lines.append)
    outlet.started(started(Path("/run")))
    for step in range(5):
        outlet.logged(logged(step))
    outlet.finished(Finished({}))
    assert sink.taken == [0, 1, 2, 3, 4]
    assert lines == ["warning: log.mine: ConnectionError: the server is gone; the run goes on, and this is said once"]


def test_a_sink_that_hangs_does_not_hold_up_the_end(monkeypatch):
    import threading

    free, lines = threading.Event(), []

    class Hanging(Sink):
        def logged(self, event):
            free.wait(30)

    monkeypatch.setattr("crossdistil.core.sinks.outlet.WAIT_SECONDS", 0.05)
    outlet = Outlet("slow", Hanging(), lines.append)
    outlet.started(started(Path("/run")))
    outlet.logged(logged(1))
    outlet.finished(Finished({}))
    free.set()
    assert lines == [
        "warning: log.slow: has not taken everything after 0.05 s; the run goes on, and this is said once"
    ]


def test_a_sink_that_cannot_start_is_an_error():
    class Unable(Sink):
        def started(self, event):
            raise RuntimeError("no key")

    with pytest.raises(CrossdistilError, match="^log.x: cannot start: RuntimeError: no key$"):
        Outlet("x", Unable(), print).started(started(Path("/run")))
