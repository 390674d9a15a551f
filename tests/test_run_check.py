"""`run --check`: every problem on a line of its own, whatever part it is in; nothing is trained and nothing is written."""

from __future__ import annotations

import json

import pyarrow
import pyarrow.parquet
import pytest

from crossdistil.core import processor
from crossdistil.core.app import preparing
from crossdistil.core.recipe import parse_recipe
from crossdistil.core.runs import RunFolder
from crossdistil.tests import tiny

pytestmark = [pytest.mark.only_backend("torch"), pytest.mark.backend]


@pytest.fixture
def check(tmp_path, tiny_task, tiny_model, said, monkeypatch):
    """`check(*arguments)`: exit code, standard output, and the lines of problems."""
    path = tmp_path / "recipe.yaml"
    path.write_text(json.dumps(tiny.kd_recipe(tiny_task, tiny_model)))
    monkeypatch.chdir(tmp_path)

    def run(*arguments):
        before = sorted(tmp_path.rglob("*"))
        code, output, errors = said("run", "recipe.yaml", "--check", "--backend", "torch", "--device", "cpu", *arguments)
        assert sorted(tmp_path.rglob("*")) == before
        return code, output, [line.removeprefix("crossdistil: error: ") for line in errors.splitlines()]

    return run


@pytest.fixture
def run_says(check, said, tmp_path):
    """`run_says(*arguments)`: the problems that `run` has without `--check`, which is no longer than the list of it."""

    def run(*arguments):
        before = sorted(tmp_path.rglob("*"))
        code, _, errors = said("run", "recipe.yaml", "--backend", "torch", "--device", "cpu", *arguments)
        assert code == 2 and sorted(tmp_path.rglob("*")) == before
        return [line.removeprefix("crossdistil: error: ") for line in errors.splitlines()]

    return run


def test_nothing_is_wrong(check):
    code, output, problems = check("--out", "run")
    assert (code, problems) == (0, []) and "stage distil: 12 steps, batch 8" in output
    assert output.splitlines()[-1] == "checked: nothing is wrong; without --check it is trained into run"


@pytest.mark.parametrize(("flags", "noted"), [("fma avx2", True), ("avx2 avx512f avx512_bf16", False), (None, False)])
def test_a_processor_without_bf16_is_noted(check, monkeypatch, tmp_path_factory, flags, noted):
    cpuinfo = tmp_path_factory.mktemp("proc") / "cpuinfo"
    if flags is not None:  # else a system that does not tell
        cpuinfo.write_text(f"processor\t: 0\nflags\t\t: fpu {flags}\n")
    known = processor.lacks_bf16
    monkeypatch.setattr(processor, "lacks_bf16", lambda: known(cpuinfo))
    note = "note: bf16: this processor has no arithmetic in it and imitates it, mostly much slower than --precision fp32"
    code, output, problems = check("--precision", "bf16")
    assert (code, problems) == (0, []) and "backend: torch on cpu, bf16" in output.splitlines()
    assert output.splitlines().count(note) == noted
    assert "note:" not in check()[1]


def test_a_refused_precision_is_not_told_as_another(check):
    code, output, problems = check("--precision", "fp16")
    assert code == 2 and problems == ["precision 'fp16': needs a CUDA or NPU device, got cpu; use bf16 or fp32"]
    assert "stage distil: 12 steps, batch 8" in output and "backend:" not in output


PROBLEMS = {
    "every part": (
        {
            "stages.0.train.epohcs=3": "recipe.yaml: stages[0].train.epohcs: unknown key; did you mean 'epochs'?",
            "stages.0.train.patience=0": "recipe.yaml: stages[0].train.patience: should be greater than or equal to 1, got 0",
            "stages.0.objective.1.class_weights=[1]": "stages[0].objective[1].class_weights: got 1 weights, expected 2",
            "task.metrics=[auk]": "task.metrics: 'auk' is no metric for this task; did you mean 'auc'",
        },
        {"--out": ("full", "full: holds x and no run.json; choose a new or an empty folder")},
    ),
    "missing": (
        {"task.data=gone": "gone: no such folder", "teacher.model=nowhere": "nowhere: no such model folder"},
        {"--precision": ("fp16", "precision 'fp16': needs a CUDA or NPU device, got cpu")},
    ),
    "no recipe": (
        {
            "method=null": "recipe.yaml: method: should be a valid string, got null",
            "task.data=gone": "gone: no such folder",
            "teacher.model=nowhere": "nowhere: no such file or folder",
        },
        {},
    ),
    "sink": (
        {"task.data=gone": "gone: no such folder", "log.mlfow.uri=x": "log.mlfow.uri: unknown key"},
        {
            "--log": ("tensorbord", "recipe.yaml: log.tensorbord: unknown key; did you mean 'tensorboard'?"),
            "--out": ("full", "full: holds x and no run.json; choose a new or an empty folder"),
        },
    ),
    "an item of a list": (
        {
            "stages.0.objective.1.loss=hard_labell": "unknown loss 'hard_labell'; did you mean 'hard_label'?",
            "task.metrics=[auk]": "task.metrics: 'auk' is no metric for this task",
            "teacher.model=nowhere": "nowhere: no such model folder",
            "task.data=gone": "gone: no such folder",
        },
        {
            "--out": ("full", "full: holds x and no run.json; choose a new or an empty folder"),
            "--backend": ("torhc", "unknown backend 'torhc'; did you mean 'torch'?"),
        },
    ),
    "nothing of a recipe": (
        {"stages=[]": "stages: ", "task.data=gone": "gone: no such folder", "task.metrics=[auk]": "'auk' is no metric"},
        {
            "--precision": ("fp16", "precision 'fp16': needs a CUDA or NPU device"),
            "--out": ("full", "full: holds x and no run.json; choose a new or an empty folder"),
        },
    ),
    "plugin": ({"task.data=gone": "gone: no such folder"}, {"--plugin": ("my.py", "my.py: no such file")}),
}


@pytest.mark.parametrize("name", PROBLEMS)
def test_each_problem_has_its_line(check, run_says, tmp_path, name):
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "x").touch()
    settings, options = PROBLEMS[name]
    arguments = [part for key in settings for part in ("--set", key)]
    arguments += [part for option, (value, _) in options.items() for part in (option, value)]
    code, _, problems = check(*arguments)
    assert code == 2
    for expected in [*settings.values(), *(text for _, text in options.values())]:
        assert sum(expected in line for line in problems) == 1, (expected, problems)
    assert len(problems) == len(settings) + len(options), problems
    assert run_says(*arguments) == problems


def test_a_run_that_cannot_begin_looks_once(run_says, monkeypatch):
    seen = []
    monkeypatch.setattr(preparing, "plan", lambda *arguments, known=preparing.plan: seen.append(1) or known(*arguments))
    problems = run_says("--set", "task.data=gone", "--set", "teacher.model=nowhere")
    assert len(problems) == 2 and len(seen) == 1


def test_a_run_folder_of_another_recipe(check, tmp_path, tiny_task, tiny_model):
    recipe = parse_recipe(tiny.kd_recipe(tiny_task, tiny_model), "test")
    RunFolder(tmp_path / "run", recipe, {"backend": "torch", "device": "cpu", "precision": "fp32"}, False).close()
    assert check("--out", "run")[2] == ["run: holds another run; choose a new folder, or --resume to go on with it"]
    assert check("--out", "run", "--resume")[0] == 0
    _, _, [problem] = check("--out", "run", "--resume", "--set", "seed=8")
    assert problem.startswith("run: was started with another recipe: seed was 7, is 8")


def test_a_wrong_sink_hides_nothing_that_sections_have_together(check):
    _, _, problems = check("--log", "tensorbord", "--set", "teacher=null", "--set", "task.data=gone")
    assert len(problems) == 3 and "tensorbord" in problems[0] and "needs a teacher" in problems[1]
    assert problems[2].endswith("gone: no such folder")


@pytest.mark.parametrize("words", [False, True])
def test_tables_that_a_file_teaches_need_no_labels_whatever_else_is_wrong(check, tmp_path, words):
    (tmp_path / "mine").mkdir()
    if words:
        (tmp_path / "mine/train.conll").write_text("good\nfilm\n")
        (tmp_path / "mine/dev.conll").write_text("good B-X\nfilm O\n")
        task = "task={name: mine, kind: tokens, data: mine, labels: [O, B-X, I-X], max_length: 32}"
    else:
        (tmp_path / "mine/train.jsonl").write_text('{"text": "good film"}\n')
        (tmp_path / "mine/dev.jsonl").write_text('{"text": "good film", "stars": "a"}\n')
        task = "task={name: mine, data: mine, text: text, label: stars, labels: [a, b], max_length: 32}"
    (tmp_path / "llm.jsonl").write_text('{"text": "good film"}\n')
    _, _, problems = check("--set", task, "--set", "teacher={file: {path: llm.jsonl, row_numbers: 0, id: id}}")
    assert problems == ["recipe.yaml: teacher.file: id and row_numbers are two ways to find rows: give one of them"]


def test_rows_of_a_file_are_told_in_their_order(check, tmp_path):
    rows = [{"text": f"text {number}", "stars": ("good", "bad")[number % 2]} for number in range(8)]
    rows[2]["text"] = rows[5]["stars"] = None
    (tmp_path / "mine").mkdir()
    for split, found in (("train", rows), ("dev", rows[:2])):
        pyarrow.parquet.write_table(pyarrow.Table.from_pylist(found), tmp_path / "mine" / f"{split}.parquet")
    _, _, problems = check("--out", "run", "--set", "task={name: mine, data: mine, text: text, label: stars, max_length: 32}")
    assert [problem.partition("train.parquet:")[2].partition(";")[0] for problem in problems] == [
        "3: 'text' is null, expected a text",
        "6: 'stars' is null, expected a label",
    ]


def test_one_process(check):
    assert check("--devices", "2") == (2, "", ["--check: looks at a run of one process; leave --devices out"])
