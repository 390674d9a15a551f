"""`crossdistil latency`: models take turns, and the figures are those of the turns; what it writes is what the tables read."""

from __future__ import annotations

import json
import statistics
from dataclasses import replace

import numpy as np
import pytest

from crossdistil.core.app import latency
from crossdistil.core.app.exporting import ExportOptions, export
from crossdistil.core.app.latency import LatencyOptions, measure
from crossdistil.core.app.latency_picture import draw
from crossdistil.core.app.timed_model import Case, Request
from crossdistil.core.checkpoint import load_model
from crossdistil.core.checkpoint_saving import save_model
from crossdistil.core.data.tokenize import load_tokenizer
from crossdistil.core.errors import CrossdistilError
from crossdistil.tests import tiny
from crossdistil.tests.test_export import BILSTM, random_model

CASES = (Case(1, 8), Case(4, 8))


class Turns:
    """Stands for the processes: each request of the second model takes half as long as one of the first, and grows."""

    asked: list[tuple[str, Case]] = []

    def __init__(self, name, request, threads):
        self.name, self.about = name, {}

    def __enter__(self):
        return self

    def __exit__(self, *_):
        pass

    def start(self):
        about = {"runs_in": "x", "device": "cpu", "precision": "fp32", "mean_tokens": 5.0}
        self.about = {**about, "versions": {self.name: "1"}, "parameters": 7, "bytes": 28}

    def turn(self, case):
        self.asked.append((self.name, case))
        each = 1.0 if self.name == "a" else 0.5
        return [each * len(self.asked) * (request + 1) for request in range(3)]

    def end(self):
        return {"peak_memory_mb": 100.0}


def test_the_figures_are_those_of_the_turns(monkeypatch):
    monkeypatch.setattr(latency, "_Process", Turns)
    monkeypatch.setattr(Turns, "asked", [])
    request = Request("folder", "torch", "fp32", "perf_counter", 3)
    said = []
    found = measure({"a": request, "b": request}, LatencyOptions(CASES, 2, rounds=3, warm_up=1), said.append)
    names = [name for name, _ in Turns.asked]
    assert names == list("abab" "baba" "abab" "baba"), "another one first in each round"
    assert said[2:] == ["warm-up 1/1", "round 1/3", "round 2/3", "round 3/3"]
    counted = list(enumerate(Turns.asked, 1))[4:]
    turns = {name: [place for place, asked in counted if asked == (name, CASES[1])] for name in "ab"}
    seconds = [0.5 * turn * (number + 1) for turn in turns["b"] for number in range(3)]
    own = found["models"]["b"]["batch_4_length_8"]
    assert own["requests"] == 9
    for part, value in own["request_milliseconds"].items():
        assert value == pytest.approx(np.percentile(seconds, int(part[1:])) * 1000)
    rounds = [3 * turn / 12 * 1000 for turn in turns["b"]]  # 0.5 * (1 + 2 + 3) seconds of 12 texts
    assert own["milliseconds"] == {"median": statistics.median(rounds), "min": min(rounds), "max": max(rounds), "rounds": rounds}
    assert own["texts_per_second"] == pytest.approx(1000 / statistics.median(rounds))
    assert own["tokens_per_second"] == pytest.approx(8 * own["texts_per_second"])
    ratios = [2 * a / b for a, b in zip(turns["a"], turns["b"])]
    assert own["speed_up"] == pytest.approx({"median": statistics.median(ratios), "min": min(ratios), "max": max(ratios)})
    assert found["machine"]["threads"] == 2 and found["versions"] == {"a": "1", "b": "1"}


@pytest.fixture(scope="module")
def teacher(tmp_path_factory):
    """A model that knows its task, in a folder with it."""
    folder = tmp_path_factory.mktemp("latency")
    tiny.write_task(folder / "task")
    about = {"task": {"name": "sst-2", "max_length": 24}, "max_length": 24}
    model = replace(tiny.write_model(folder / "plain"), about=about)
    save_model(model, folder / "teacher", load_tokenizer(folder / "plain"))
    return folder / "teacher"


@pytest.fixture(scope="module")
def folders(teacher):
    """The folder of both, with that model and a BiLSTM as exported."""
    folder = teacher.parent
    export(folder / "teacher", folder / "onnx", ExportOptions(), print)
    save_model(random_model(BILSTM), folder / "bilstm", load_tokenizer(folder / "plain"))
    export(folder / "bilstm", folder / "lstm", ExportOptions(), print)
    return folder


@pytest.mark.parametrize(("names", "median"), [(("a", "b"), 0.05), (("a-rather-long-name-of-a-model", "b", "c"), 12_345.0)])
def test_labels_of_the_picture_end_inside_it(tmp_path, monkeypatch, names, median):
    from matplotlib import pyplot

    monkeypatch.setattr(pyplot, "close", lambda figure: None)
    times = {"p50": median, "p95": 3 * median}
    own = {"request_milliseconds": times, "texts_per_second": 123_456.0, "speed_up": {"median": 12.34}}
    model = {"runs_in": "openvino", "precision": "fp32", **{case.name: own for case in CASES}}
    found = {"models": dict.fromkeys(names, model), "machine": {"cpu": "a processor", "threads": 2}, "date": "2025-01-01"}
    draw(found, CASES, tmp_path / "times.png")
    figure = pyplot.gcf()
    figure.draw_without_rendering()
    for axis in figure.axes:
        ends = [text.get_window_extent().x1 for text in axis.texts]
        assert len(ends) == len(names) and max(ends) < figure.bbox.x1 - 0.01 * figure.bbox.width
        assert axis.get_xlim()[1] > 3 * median and axis.get_window_extent().width > 0.3 * figure.bbox.width
    monkeypatch.undo()
    pyplot.close(figure)


def test_exported_models_with_the_texts_of_a_task(folders, tmp_path, said):
    out, picture = tmp_path / "out.json", tmp_path / "times.svg"
    options = ["--data", folders / "task", "--texts", 10, "--rounds", 2, "--out", out, "--picture", picture, "--json"]
    code, output, errors = said("latency", folders / "onnx", folders / "lstm", *options)
    assert code == 0, errors
    found = json.loads(output)
    assert json.loads(out.read_text()) == found and picture.read_text().count("<svg") == 1
    assert found["task"] == "sst-2" and found["settings"]["texts"] == 10 and list(found["models"]) == ["onnx", "lstm"]
    for name, model in found["models"].items():
        assert model["bytes"] == (folders / name / "model.onnx").stat().st_size
        assert model["parameters"] == load_model(folders / ("teacher" if name == "onnx" else "bilstm")).parameter_count
        assert model["peak_memory_mb"] > 20 and (model["runs_in"], model["precision"]) == ("onnx", "fp32")
        assert (model["batch_1"]["requests"], model["batch_32"]["requests"]) == (20, 2)
        for size in ("batch_1", "batch_32"):
            assert 0 < model[size]["request_milliseconds"]["p50"] <= model[size]["request_milliseconds"]["p99"]
    assert found["models"]["onnx"]["batch_1"]["speed_up"] == {"median": 1, "min": 1, "max": 1}
    code, _, errors = said("latency", folders / "onnx", "--out", out)
    assert code == 2 and f"--out {out}: is there already; --overwrite replaces it" in errors


@pytest.mark.backend
def test_a_model_of_a_backend(teacher, said, backend_name):
    sizes = ["--lengths", "8,16", "--batch-sizes", "2", "--rounds", 1, "--requests", 2, "--backend", backend_name]
    code, output, errors = said("latency", teacher, *sizes)
    assert code == 0, errors
    assert f"{backend_name} fp32" in output and "Batches of 2 x 16 tokens" in output and "2 requests in 1 rounds" in output


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (["--batch-sizes", "1,0"], "--batch-sizes 1,0: expected whole numbers from 1 to 4,096"),
        (["--lengths", "nan"], "--lengths nan: expected whole numbers"),
        (["--lengths", "41"], "has only 40 positions"),
        ([], "--lengths 128, the default: "),
        (["--lengths", "8", "--data", "task"], "--data: stands for other texts than --lengths"),
        (["--texts", "3"], "--texts: is of --file or --data"),
        (["--data", "task", "--requests", "3"], "--requests: is of random tokens"),
        (["--clock", "sun"], "--clock sun: expected wall or cpu"),
        (["--picture", "a.txt"], "--picture a.txt: expected a name that ends in .png"),
        (["--backend", "torch"], "--backend: is of models that are not exported"),
        (["--text-column", "a"], "--text-column: is a column of --file"),
        (["--overwrite"], "--overwrite: is for --out and --picture"),
        (["onnx"], "is given twice"),
        (["no-such"], "no such model folder"),
        (["--file", "none.txt"], "none.txt"),
    ],
)
def test_what_is_wrong_is_said_before_anything_runs(folders, said, monkeypatch, options, told):
    monkeypatch.chdir(folders)
    monkeypatch.setattr(latency, "_Process", None)
    code, output, errors = said("latency", "onnx", *options)
    assert (code, output) == (2, "") and told in errors and errors.count("\n") == 1


def test_what_single_texts_and_pairs_are_to_a_model_is_said(folders, tmp_path, said, monkeypatch):
    monkeypatch.setattr(latency, "_Process", Turns)
    model = tiny.write_model(tmp_path / "plain", labels=None)
    about = {"task": {"name": "sides", "kind": "ranking", "max_length": 24}, "max_length": 24}
    save_model(replace(model, about=about), tmp_path / "ranks", load_tokenizer(tmp_path / "plain"))
    (tmp_path / "texts.txt").write_text("a great film\nbad\n")
    (tmp_path / "pairs.tsv").write_text("one\tother\na film\tgood\nbad\ta great film\n")
    few = ("--rounds", 1, "--warm-up", 0, "--batch-sizes", 2)
    told = f"warning: {tmp_path / 'ranks'} was trained on pairs of texts, but gets single ones\n"
    code, output, errors = said("latency", tmp_path / "ranks", "--file", tmp_path / "texts.txt", *few)
    assert code == 0 and errors.count(told) == 1 and "2 texts, " in output
    code, output, errors = said("latency", folders / "teacher", tmp_path / "ranks", "--file", tmp_path / "texts.txt", *few)
    assert code == 0 and errors.count(told) == 1  # whichever is the first
    columns = ("--file", tmp_path / "pairs.tsv", "--text-column", "one", "--pair-column", "other")
    code, output, errors = said("latency", tmp_path / "ranks", *columns, *few)
    assert code == 0 and "single" not in errors and "2 pairs of texts" in output
    assert json.loads(said("latency", tmp_path / "ranks", *columns, *few, "--json")[1])["pairs"] is True


def test_a_process_that_dies_is_told(folders, monkeypatch):
    request = Request(str(folders / "onnx"), None, "fp32", "no_such_clock", 1)
    with pytest.raises(CrossdistilError, match="m: its process ended with exit code 1: .*no_such_clock"):
        measure({"m": request}, LatencyOptions(CASES, 1, 1, 0), lambda line: None)
    monkeypatch.setattr(latency, "python_command", lambda python, module: ["sh", "-c", "read line; kill -9 $$"])
    with pytest.raises(CrossdistilError, match="m: its process ended with signal SIGKILL"):
        measure({"m": request}, LatencyOptions(CASES, 1, 1, 0), lambda line: None)
