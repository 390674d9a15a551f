"""What stands in a run's folder is shown and compared, or refused with its place, whatever it is."""

from __future__ import annotations

import copy
import json

import numpy as np
import pytest

from crossdistil.core.app.compared_runs import read_all
from crossdistil.core.app.comparison import compare_finished
from crossdistil.core.app.comparison_report import comparison_page
from crossdistil.core.app.run_report import write_run_report
from crossdistil.core.errors import CrossdistilError, RunFolderError
from crossdistil.tests.compared import answers, write_run

MISSING = object()
STRANGE = ["x", [1], {"a": 1}, -0.5, float("nan"), None, True, 10**30, MISSING]


@pytest.fixture
def runs(tmp_path):
    labels = np.arange(12, dtype=np.int32) % 2
    right = [np.arange(12) % 4 != 0, np.arange(12) % 3 != 0]
    return [write_run(tmp_path / name, answers(labels, own), labels) for name, own in zip("ab", right, strict=True)]


def places(value, above=()):
    """All keys and indices of plain data, each as its way from the top."""
    for key, inner in value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ():
        yield (*above, key)
        yield from places(inner, (*above, key))


def with_other(value, place, other):
    changed = copy.deepcopy(value)
    inner = changed
    for key in place[:-1]:
        inner = inner[key]
    if other is MISSING:
        del inner[place[-1]]
    else:
        inner[place[-1]] = other
    return changed


def test_a_result_with_strange_values_is_shown_or_refused(runs):
    path, refused = runs[0] / "result.json", 0
    content = json.loads(path.read_text())
    for index, place in enumerate(places(content)):
        for other in STRANGE[index % 2 :: 2]:
            path.write_text(json.dumps(with_other(content, place, other)))
            try:
                write_run_report(runs[0], None)
                comparison_page(compare_finished(read_all(runs, None, None, None)))
            except CrossdistilError as error:
                refused += 1
                assert str(runs[0]) in str(error) and "\n" not in str(error)
    assert refused > 50


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"steps": "x"}, "steps: expected a whole number, got 'x'"),
        ({"task": 5}, "task: expected a text, got 5"),
        ({"teacher": True}, "teacher: expected an object, got True"),
        ({"stages": [{"name": "distil", "epochs": None}]}, "stages[0].epochs: expected a number, got null"),
        ({"student": {"metrics": {"f1": "high"}}}, "student.metrics.f1: expected a number, got 'high'"),
        ({"teachers": {"large": {"parameters": []}}}, "teachers.large.parameters: expected a whole number, got []"),
    ],
)
def test_what_is_of_another_type_is_named_with_what_helps(runs, change, said):
    path = runs[0] / "result.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(RunFolderError) as caught:
        read_all(runs, None, None, None)
    assert str(caught.value) == f"{path}: {said}; remove it, and --resume makes it again"


@pytest.mark.parametrize("name", ["metrics.jsonl", "watched.jsonl"])
def test_a_line_with_strange_values_is_drawn_or_refused(runs, name):
    path, refused = runs[0] / name, 0
    watched = {"step": 1, "gradient_norm": 1.0, "teacher_entropy": {"loss": 0.5, "terms": {"kd_ce": 0.5}}}
    lines = (runs[0] / "metrics.jsonl").read_text().splitlines() if name == "metrics.jsonl" else [json.dumps(watched)]
    for index in {0, len(lines) - 1}:
        content = json.loads(lines[index])
        for place in places(content):
            for other in STRANGE:
                path.write_text("\n".join([*lines[:index], json.dumps(with_other(content, place, other)), *lines[index + 1 :]]))
                try:
                    write_run_report(runs[0], None)
                except RunFolderError as error:
                    refused += 1
                    assert f"{path}: line {index + 1}: is no line of a run's log" in str(error)
    assert refused > 10
