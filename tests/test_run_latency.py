"""How fast a run's student answers: measured in a bounded time, kept in the run folder, shown in its report and by `compare`."""

from __future__ import annotations

import json
import time
from pathlib import Path

import numpy as np
import pytest

from crossdistil.core.app import latency as timing
from crossdistil.core.app import run_latency
from crossdistil.core.app.api import run
from crossdistil.core.app.compared_runs import read_all
from crossdistil.core.app.comparison import compare_finished
from crossdistil.core.app.comparison_view import as_markdown, milliseconds_text
from crossdistil.core.app.run_latency import Side, measured, read_latency, write_latency
from crossdistil.core.app.run_report import write_run_report
from crossdistil.core.checkpoint import load_model
from crossdistil.core.data.token_table import TokenTable
from crossdistil.core.errors import RunFolderError
from crossdistil.core.recipe import parse_recipe
from crossdistil.tests import tiny
from crossdistil.tests.compared import answers, write_run
from crossdistil.tests.report_pages import Page


@pytest.fixture(autouse=True)
def as_long_as_for_users(monkeypatch, latency_seconds):
    monkeypatch.setattr(run_latency, "_SECONDS", latency_seconds)


class Clock:
    """What stands for the module `time`: it goes on as far as it is told, however busy the machine is."""

    strftime = staticmethod(time.strftime)

    def __init__(self):
        self.now = 0.0

    def perf_counter(self):
        return self.now

    monotonic = perf_counter


@pytest.fixture
def clock(monkeypatch):
    found = Clock()
    for module in (run_latency, timing):
        monkeypatch.setattr(module, "time", found)
    return found


class Slow:
    """An engine whose models take as long as they are told, and which remembers what it was given."""

    name, device, precision, threads = "torch", "cpu", "fp32", 3

    def __init__(self, clock, seconds, length_step=8):
        self._clock, self._seconds, self.length_step, self.shapes = clock, list(seconds), length_step, []

    def versions(self):
        return {"torch": "9.9"}

    def infer(self, function, parameters):
        seconds = self._seconds.pop(0)

        def answer(batch):
            self.shapes.append(batch["input_ids"].shape)
            self._clock.now += seconds
            return [np.zeros((1, 2), np.float32)]

        return answer


def table(lengths) -> TokenTable:
    offsets = np.cumsum([0, *lengths])
    return TokenTable(np.ones(offsets[-1], np.int32), offsets, np.asarray(lengths, np.int32))


@pytest.fixture
def sides(tmp_path):
    """Two models and 200 texts of 4 to 40 tokens, most of them short."""
    tiny.write_model(tmp_path / "model")
    model = load_model(tmp_path / "model")
    lengths = np.random.default_rng(0).integers(4, 40, 200)
    lengths[:120] = 10
    texts = table(lengths)
    return {name: Side(tmp_path / "model", model, texts, 64) for name in ("teacher", "student")}


def test_the_time_is_that_of_a_request_and_bounded(sides, clock, tmp_path):
    engine = Slow(clock, [0.004, 0.001])
    found = measured(sides, engine)
    assert 0.5 < clock.now < 2
    assert all(rows == 1 for rows, _ in engine.shapes) and len({length for _, length in engine.shapes}) > 3
    write_latency(tmp_path, found)
    kept = read_latency(tmp_path)
    assert kept.milliseconds == pytest.approx({"teacher": 4, "student": 1})
    assert kept.requests == found["settings"]["rounds"] * found["settings"]["texts"] and kept.requests >= 20
    assert kept.conditions.endswith(", 3 threads, torch 9.9 on cpu, fp32, batch 1")
    own = found["models"]["student"]
    assert own["mean_tokens"] == pytest.approx(np.mean(sides["student"].tokens.lengths), abs=0.01)
    assert own["batch_1"]["speed_up"]["median"] == pytest.approx(4) and found["benchmark"] == "latency"


def test_a_slow_model_is_asked_a_few_times_only(sides, clock):
    found = measured(sides, Slow(clock, [0.4, 0.1]))
    assert clock.now < 5 and found["settings"]["texts"] == 1 and found["settings"]["rounds"] >= 1


def test_where_a_shape_costs_a_compilation_there_is_one(sides, clock):
    engine = Slow(clock, [0.0, 0.0], length_step=None)
    measured(sides, engine)
    assert set(engine.shapes) == {(1, 16)}  # the most frequent bucket


@pytest.mark.parametrize(
    "content", ["", "{", "[]", "{}", '{"models": {}}', '{"models": {"student": {"batch_1": 3}}}', "\xff", '{"models": 1}']
)
def test_a_damaged_file_is_told(tmp_path, content):
    (tmp_path / "latency.json").write_bytes(content.encode("latin-1"))
    with pytest.raises(RunFolderError, match="latency.json: .*; remove it, and crossdistil report .* measures again"):
        read_latency(tmp_path)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        *((5.5, "5.50 ms"), (0.713, "0.713 ms"), (123.45, "123 ms"), (12.34, "12.3 ms"), (0.0123, "0.0123 ms")),
        *((None, "–"), (0.0, "0.00 ms"), (4567.0, "4,567 ms")),
    ],
)
def test_three_digits(value, text):
    assert milliseconds_text(value) == text


def kept(folder: Path, student: float, teacher: float | None = None, threads: int = 2, load: float = 1.0) -> Path:
    """A run folder with latencies."""
    models = {"student": student} | ({} if teacher is None else {"teacher": teacher})
    timed = {
        name: {"runs_in": "torch", "device": "cpu", "precision": "fp32", "mean_tokens": 12.5}
        | {"batch_1": {"requests": 40, "request_milliseconds": {"p50": value}}}
        for name, value in models.items()
    }
    machine = {"cpu": "A <CPU>", "threads": threads, "load": load, "processors": 2}
    write_latency(folder, {"date": "2026-01-02", "machine": machine, "versions": {"torch": "2.13.0"}, "models": timed})
    return folder


def test_the_report_has_both_times_and_what_they_were_measured_on(tmp_path):
    labels = np.arange(8, dtype=np.int32) % 2
    folder = write_run(tmp_path / "run", answers(labels, labels > 0), labels)
    without = write_run_report(folder, None)[0].read_text(encoding="utf-8")
    assert "Time for one text was not measured; <code>crossdistil report</code>" in without
    kept(folder, 2.0, 11.0)
    text = write_run_report(folder, None)[0].read_text(encoding="utf-8")
    rows = Page(text).tables["Scores on dev and sizes"]
    assert rows[0][-1] == "Time for one text" and [row[-1] for row in rows[1:]] == ["11.0 ms", "2.00 ms"]
    assert "teacher’s / 5.5" in text and "40 requests of one text of dev (12.5 tokens in the mean)" in text
    assert "2026-01-02: A &lt;CPU&gt;, 2 threads, torch 2.13.0 on cpu, fp32, batch 1." in text
    kept(folder, 2.0, 11.0, load=7.25)
    text = write_run_report(folder, None)[0].read_text(encoding="utf-8")
    assert "batch 1; the machine was busy (load 7.2, 2 processors), so that they are longer than alone." in text


def test_compare_shows_the_times_and_says_whether_they_compare(tmp_path):
    labels = np.arange(40, dtype=np.int32) % 2
    for index, name in enumerate("abc"):
        steps = f"stages.0.train.steps={index // 2 + 1}"
        write_run(tmp_path / name, answers(labels, labels > 0), labels, seed=index, overrides=(steps,))
    found = compare_finished(read_all([tmp_path / name for name in "abc"], None, None, None))
    assert "ms a text" not in as_markdown(found) and found["groups"][0]["latency_milliseconds"] is None
    for name, value in zip("abc", (2.0, 4.0, 0.5)):
        kept(tmp_path / name, value)
    found = compare_finished(read_all([tmp_path / name for name in "abc"], None, None, None))
    assert [run["latency_milliseconds"] for run in found["runs"]] == [2.0, 4.0, 0.5]
    assert found["groups"][0]["latency_milliseconds"]["mean"] == 3.0
    heading, _, first, second = [line for line in as_markdown(found).splitlines() if line.startswith("|")][:4]
    assert [line.split(" | ")[-1] for line in (heading, first, second)] == ["ms a text |", "3.00 |", "0.500 |"]
    assert [note for note in found["notes"] if "as each run measured it (A <CPU>, 2 threads" in note]
    kept(tmp_path / "c", 0.5, threads=1)
    found = compare_finished(read_all([tmp_path / name for name in "abc"], None, None, None))
    [note] = [note for note in found["notes"] if note.startswith("ms a text: not measured alike")]
    assert "A: A <CPU>, 2 threads" in note and "B: A <CPU>, 1 thread," in note


@pytest.mark.backend
def test_a_run_ends_with_it(tmp_path, tiny_task, tiny_model, backend_name, said):
    recipe = parse_recipe(tiny.kd_recipe(tiny_task, tiny_model, steps=1), "test")
    folder = tmp_path / "run"
    result = run(recipe, out=folder, backend=backend_name, device="cpu", quiet=True)
    if backend_name == "mindspore":  # which compiles each shape: it is asked
        assert not (folder / "latency.json").exists()
        assert said("report", folder)[0] == 0
    found = read_latency(folder)
    assert set(found.milliseconds) == {"teacher", "student"} and all(value > 0 for value in found.milliseconds.values())
    version = result["versions"][backend_name]
    assert f", {backend_name} {version} on cpu, fp32, batch 1" in found.conditions
    assert "Time for one text" in (folder / "report.html").read_text(encoding="utf-8")
    if backend_name != "mindspore":
        (folder / "latency.json").unlink()
        code, output, errors = said("report", folder)
        assert code == 0 and "note" not in output + errors
        assert set(read_latency(folder).milliseconds) == {"teacher", "student"}
        run(recipe, out=tmp_path / "other", backend=backend_name, device="cpu", quiet=True, latency=False)
        assert not (tmp_path / "other" / "latency.json").exists() and (tmp_path / "other" / "report.html").exists()
    assert json.loads((folder / "result.json").read_text()) == result
