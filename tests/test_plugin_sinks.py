"""Where a run is followed by code of a user's own file: what it is told of a run, what goes wrong with it, and its settings."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from crossdistil.core.app.api import run
from crossdistil.core.data.records.tfrecord import read_records
from crossdistil.core.errors import RecipeError
from crossdistil.core.recipe import load_recipe, parse_recipe
from crossdistil.tests import tiny
from crossdistil.tests.test_sinks import recipe, scalars

WATCHER = '''
import json
from crossdistil import Sink, register_sink


class Watcher(Sink):
    def __init__(self, path, fails_at=None):
        self.path, self.fails_at = path, fails_at

    def write(self, kind, **values):
        with open(self.path, "a") as file:
            file.write(json.dumps({"event": kind, **values}) + "\\n")

    def started(self, event):
        self.write("started", step=event.step, resumed=event.resumed, name=event.name)

    def logged(self, event):
        if self.fails_at is not None and event.step >= self.fails_at:
            raise OSError(28, "No space left on device")
        self.write("logged", step=event.step, **event.scalars)

    def evaluated(self, event):
        self.write("evaluated", step=event.step, best=event.best, **event.scalars)

    def saved(self, event):
        self.write("saved", step=event.step)

    def finished(self, event):
        self.write("finished", steps=event.result["steps"])

    def failed(self, event):
        self.write("failed", reason=event.reason, interrupted=event.interrupted)


register_sink("watcher", Watcher)
'''


def events(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text().splitlines()]


@pytest.fixture
def watched(tmp_path, tiny_task, tiny_model):
    (tmp_path / "my_sink.py").write_text(WATCHER)
    tree = tiny.kd_recipe(tiny_task, tiny_model, steps=6, log_every=2, evaluate_every=3, save_every=4)
    tree |= {"plugins": ["my_sink.py"], "log": {"watcher": {"path": str(tmp_path / "events.jsonl")}, "tensorboard": None}}
    (tmp_path / "recipe.yaml").write_text(json.dumps(tree))
    return tmp_path


@pytest.mark.only_backend("torch", "oneflow")
def test_a_sink_of_a_users_own_file_is_told_the_run(watched, backend_name, pytestconfig):
    device = pytestconfig.getoption("--device")
    run(watched / "recipe.yaml", out=watched / "run", backend=backend_name, device=device, quiet=True, report=False)
    found = events(watched / "events.jsonl")
    assert [(each["event"], each.get("step")) for each in found] == [
        ("started", 0),
        ("logged", 2),
        ("evaluated", 3),
        ("logged", 4),
        ("saved", 4),
        ("logged", 6),
        ("evaluated", 6),
        ("saved", 6),
        ("finished", None),
    ]
    # The run folder's lines are another sink's, told the same; people are shown the divergence from the teacher.
    watched_lines = [json.loads(line) for line in (watched / "run" / "watched.jsonl").read_text().splitlines()]
    lowest = [line["teacher_entropy"]["loss"] for line in watched_lines]
    lines = [json.loads(line) for line in (watched / "run" / "metrics.jsonl").read_text().splitlines()]
    told = [each for each in found if each["event"] == "logged"]
    losses = [line["loss"] for line in lines if "loss" in line]
    assert [each["train/loss"] for each in told] == [loss - low for loss, low in zip(losses, lowest)] and min(lowest) > 0.1
    assert [each["train/gradient_norm"] for each in told] == [line["gradient_norm"] for line in watched_lines]
    assert all(each["train/gradient_norm"] > 0 for each in told)
    assert all(each["train/peak_memory_mb"] > 0 and each["train/tokens_per_second"] > 0 for each in told)
    [file] = (watched / "run" / "logs" / "tensorboard").iterdir()
    records = [record for _, record in read_records(file)]  # the version, the recipe, and one each time
    assert len(records) == 8 and sum(b"dev/accuracy" in record for record in records) == 2


@pytest.mark.backend
@pytest.mark.only_backend("torch")
def test_a_failing_sink_ends_no_run_and_log_may_change_when_it_goes_on(watched, backend_name, monkeypatch, capsys):
    from crossdistil.core.training import Trainer

    save = Trainer._save

    def stop(trainer, step):
        save(trainer, step)
        raise KeyboardInterrupt

    plain = json.loads((watched / "recipe.yaml").read_text())
    plain.pop("plugins"), plain.pop("log")
    (watched / "plain.yaml").write_text(json.dumps(plain))
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(Trainer, "_save", stop)
        run(watched / "plain.yaml", out=watched / "run", backend=backend_name)
    run(
        watched / "plain.yaml",
        out=watched / "run",
        backend=backend_name,
        plugins=[str(watched / "my_sink.py")],
        overrides=[f"log.watcher={{path: {watched}/events.jsonl, fails_at: 6}}"],
        log=["tensorboard"],
        resume=True,
        report=False,
    )
    found = events(watched / "events.jsonl")
    assert found[0] == {"event": "started", "step": 4, "resumed": True, "name": "run"}
    assert [each["event"] for each in found] == ["started", "evaluated", "saved", "finished"]
    said = capsys.readouterr().err
    [line] = [number for number, text in enumerate(WATCHER.splitlines(), 1) if "raise OSError" in text]
    place = f"{watched}/my_sink.py:{line}"
    assert said.count("log.watcher") == 1
    assert f"warning: log.watcher: {place}: OSError: [Errno 28] No space left on device; the run goes on" in said
    assert "is not the recipe of the run" not in said
    assert load_recipe(watched / "run" / "recipe.yaml").log.asked.keys() == {"watcher", "tensorboard"}
    board = scalars(watched / "run" / "logs" / "tensorboard")
    assert [step for step, _ in board["train/loss"]] == [6] and [step for step, _ in board["dev/accuracy"]] == [6]


@pytest.mark.parametrize(
    ("call", "problem"),
    [
        ('register_sink("tensorboard", Watcher)', "sink 'tensorboard': crossdistil has one of this name"),
        ('register_sink("mine", 3)', "sink 'mine': expected a subclass of Sink, or a function, got 3"),
        ('register_sink("mine", dict)', "sink 'mine': expected a subclass of Sink"),
    ],
)
def test_a_wrong_registration_is_told_with_its_line(tmp_path, call, problem):
    (tmp_path / "my_sink.py").write_text(WATCHER + call + "\n")
    with pytest.raises(RecipeError, match=f"my_sink.py:{len((WATCHER + call).splitlines())}: register_|{problem}"):
        parse_recipe(recipe(), "test", plugins=[str(tmp_path / "my_sink.py")])


def test_settings_of_a_plugins_sink_are_its_arguments(tmp_path):
    (tmp_path / "my_sink.py").write_text(WATCHER)
    plugins = [str(tmp_path / "my_sink.py")]
    with pytest.raises(RecipeError, match=r"log.watcher.path: missing"):
        parse_recipe(recipe(["watcher"]), "test", plugins=plugins)
    with pytest.raises(RecipeError, match=r"log.watcher.pahs: unknown key"):
        parse_recipe(recipe({"watcher": {"path": "x", "pahs": 3}}), "test", plugins=plugins)
    found = parse_recipe(recipe({"watcher": {"path": "x"}}), "test", plugins=plugins)
    assert found.digest() == parse_recipe(recipe(), "test").digest()  # a file that only watches changes no result
