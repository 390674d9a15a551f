"""The table of methods, from kept results to Markdown, and the latencies that go into it. The scripts in
`benchmarks/` are no package: they are imported as they import each other, and one is run as people run it."""

from __future__ import annotations

import importlib
import json
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import crossdistil
from crossdistil.core.recipe import load_recipe
from crossdistil.tests.compared import answers, write_run

BENCHMARKS = Path(crossdistil.__file__).resolve().parent / "benchmarks"
HEADINGS = ["parameters", "size, MB", "accuracy, %", "of the teacher, %", "runs", "gain"]
PAGE = "before\n<!-- results:begin sst2 -->\nold\n<!-- results:end sst2 -->\nafter\n"


def in_a_process(*command, code: int = 0) -> str:
    done = subprocess.run([sys.executable, *map(str, command)], capture_output=True, text=True, encoding="utf-8", cwd=BENCHMARKS)
    assert done.returncode == code, done.stdout + done.stderr
    return done.stdout if code == 0 else done.stderr


@pytest.fixture
def script(monkeypatch, capsys):
    """`script(name, ...)`: what the script prints, which ends with `code`, in this process: its imports take a second."""
    monkeypatch.syspath_prepend(str(BENCHMARKS))

    def run(name: str, *arguments, code: int = 0) -> str:
        monkeypatch.setattr(sys, "argv", [name, *map(str, arguments)])
        capsys.readouterr()  # what the test printed before is not the script's
        ended = None
        try:
            importlib.import_module(name.removesuffix(".py")).main()
        except SystemExit as end:
            ended = end.code
        output, errors = capsys.readouterr()
        if isinstance(ended, str):  # which Python prints
            ended, errors = 1, errors + ended
        assert (ended or 0) == code, output + errors
        return output if code == 0 else errors

    return run


def result(method: str, seed: int, parameters: int, epochs: float = 3.0, teacher: bool = True, **metrics: float) -> dict:
    about = {"backend": "torch", "device": "cpu", "precision": "bf16", "versions": {"torch": "2.13.0"}, "task": "sst-2"}
    own = {"metrics": metrics, "parameters": parameters}
    found = {**about, "seed": seed, "epochs": epochs, "method": method, "student": own}
    return found | ({"teacher": {"metrics": {"accuracy": 0.9}, "parameters": 20_000_000}} if teacher else {})


@pytest.fixture
def runs(tmp_path) -> Path:
    """A folder of runs, one of which is not complete."""
    found = {
        "teacher": result("finetune", 42, 20_000_000, teacher=False, accuracy=0.9),
        "finetune-42": result("finetune", 42, 10_000_000, teacher=False, accuracy=0.80),
        "finetune-43": result("finetune", 43, 10_000_000, teacher=False, accuracy=0.82),
        "kd-42": result("kd", 42, 10_000_000, accuracy=0.84),
        "kd-43": result("kd", 43, 10_000_000, accuracy=0.86),
        "minilm-42": result("minilm", 42, 10_000_000, epochs=6.0, accuracy=0.79),
        "tinybert_td+aug-42": result("tinybert_td", 42, 10_000_000, epochs=6.0, accuracy=0.88),
        "bilstm-alone-42": result("bilstm", 42, 3_000_000, epochs=10.0, teacher=False, accuracy=0.70),
        "bilstm-42": result("bilstm", 42, 3_000_000, epochs=10.0, accuracy=0.755),
        "t4tiny-42": result("t4tiny", 42, 4_000_000, epochs=5.0, accuracy=0.65),
        "novel-42": result("novel", 42, 5_000_000, epochs=5.0, accuracy=0.60),
    }
    for name, content in found.items():
        (tmp_path / "runs" / name).mkdir(parents=True)
        (tmp_path / "runs" / name / "result.json").write_text(json.dumps(content))
    (tmp_path / "runs" / "pkd-42").mkdir()
    (tmp_path / "PAGE.md").write_text(PAGE)
    return tmp_path / "runs"


@pytest.fixture
def latency(tmp_path) -> Path:
    def timed(milliseconds: float, speed_up: float) -> dict:
        return {"milliseconds": {"median": milliseconds}, "speed_up": {"median": speed_up}}

    models = {
        "teacher": {"parameters": 20_000_000, "batch_1": timed(10, 1), "batch_32": timed(8, 1)},
        "kd-42": {"parameters": 10_000_000, "batch_1": timed(5, 2), "batch_32": timed(3.2, 2.5)},
        "minilm-42": {"parameters": 5_000_000, "batch_1": timed(1, 10), "batch_32": timed(1, 8)},  # another one's
    }
    content = {
        "task": "sst-2", "machine": {"cpu": "A CPU"}, "versions": {"torch": "2.13.0"}, "models": models,
        "settings": {"texts": 256, "rounds": 9, "clock": "wall", "precision": "fp32"},
    }  # fmt: skip
    path = tmp_path / "latency.json"
    path.write_text(json.dumps(content))
    return path


def rows(text: str) -> dict[str, list[str]]:
    """First cell -> the others, of a Markdown table."""
    lines = [line for line in text.splitlines() if line.startswith("| ")]
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    return {first: rest for first, *rest in cells}


def test_the_table_of_methods(runs, latency, script):
    kept, page = runs.parent / "sst2", runs.parent / "PAGE.md"
    script("results_table.py", "--runs", runs, kept, page, "--latency", latency)
    text = page.read_text()
    assert text.startswith("before\n") and text.endswith("after\n") and "old" not in text
    assert rows(text) == {
        "model": [*HEADINGS, "ms, batch 1", "ms, batch 32", "epochs"],
        "---": ["---:"] * 9,
        "teacher": ["20.0M", "80", "90.0", "", "1", "", "10.00 (1.0x)", "8.00 (1.0x)", "3"],
        "fine-tuned (labels only)": ["10.0M", "40", "81.0 ± 1.4", "90.0", "2", "", "", "", "3"],
        "`kd`": ["10.0M", "40", "85.0 ± 1.4", "94.4", "2", "+4.0", "5.00 (2.0x)", "3.20 (2.5x)", "3"],
        "`minilm`": ["10.0M", "40", "79.0", "87.8", "1", "-2.0", "", "", "6"],
        "`tinybert_td`, augmented texts": ["10.0M", "40", "88.0", "97.8", "1", "+7.0", "", "", "6"],
        "`t4tiny`, 4 narrow layers from random weights": ["4.0M", "16", "65.0", "72.2", "1", "", "", "", "5"],
        "`bilstm`": ["3.0M", "12", "75.5", "83.9", "1", "+5.5", "", "", "10"],
        "BiLSTM alone (labels only)": ["3.0M", "12", "70.0", "77.8", "1", "", "", "", "10"],
        "`novel`": ["5.0M", "20", "60.0", "66.7", "1", "", "", "", "5"],
    }
    assert list(rows(text))[2:5] == ["teacher", "fine-tuned (labels only)", "`kd`"]
    assert "over the seeds (42, 43)" in text and "9 turns over 256 sentences of dev, A CPU, 1 thread" in text
    # The kept results give the same as the runs, and a page that differs is told.
    script("results_table.py", kept, page, "--latency", latency, "--check")
    page.write_text(page.read_text().replace("85.0", "86.0"))
    check = ("results_table.py", kept, page, "--latency", latency, "--check")
    assert "is not what the results give" in in_a_process(*check, code=1)


def test_two_metrics_and_no_latency(runs, script):
    for path in runs.glob("*/result.json"):
        content = json.loads(path.read_text())
        content["student"]["metrics"]["macro_f1"] = content["student"]["metrics"]["accuracy"] - 0.1
        path.write_text(json.dumps(content))
    page = runs.parent / "PAGE.md"
    script("results_table.py", runs, page, "--name", "sst2", "--latency", runs / "none.json")
    found = rows(page.read_text())
    assert found["model"] == ["parameters", "size, MB", "accuracy, %", "macro f1, %", *HEADINGS[3:], "epochs"]
    assert found["`kd`"] == ["10.0M", "40", "85.0 ± 1.4", "75.0 ± 1.4", "94.4", "2", "+4.0", "3"]


def test_the_latency_of_another_task_is_left_out(runs, latency, script):
    latency.write_text(latency.read_text().replace("sst-2", "cosmetics"))
    page = runs.parent / "PAGE.md"
    script("results_table.py", runs, page, "--name", "sst2", "--latency", latency)
    assert "batch 32" not in page.read_text()


def test_a_teacher_without_a_run_of_its_own_is_taken_from_its_students(runs, script):
    shutil.rmtree(runs / "teacher")
    page = runs.parent / "PAGE.md"
    script("results_table.py", runs, page, "--name", "sst2", "--latency", runs / "none.json")
    assert rows(page.read_text())["teacher"] == ["20.0M", "80", "90.0", "", "1", "", ""]


def test_students_of_different_teachers_are_refused(runs, script):
    path = runs / "kd-42" / "result.json"
    path.write_text(path.read_text().replace("20000000", "20000001"))
    assert "2 different teachers" in script("results_table.py", runs, runs.parent / "PAGE.md", code=1)


def write_whole(folder: Path, shares: dict[str, list[float]], count: int = 40) -> None:
    """Run folders of each method with so many answers right of `count`, a run for each seed from 42 on."""
    labels = np.arange(count, dtype=np.int32) % 2
    for method, own in shares.items():
        for seed, share in enumerate(own, start=42):
            name = method if method == "teacher" else f"{method}-{seed}"
            logits = answers(labels, np.arange(count) < share * count)
            write_run(folder / name, logits, labels, seed=seed, epochs=2.0, overrides=(f"method={method.partition('-')[0]}",))


def test_the_table_of_what_compare_gives_is_that_of_the_kept_results(runs, said, script):
    """`compare --json` of whole run folders, which reads recipes and answers, and the kept results of the same runs, which have
    no answers to test."""
    folder, parent = runs.parent / "whole", runs.parent
    write_whole(folder, {"teacher": [0.95], "finetune": [0.7, 0.75], "kd": [0.8, 0.85]})
    code, output, errors = said("compare", *sorted(folder.iterdir()), "--json")
    assert code == 0, errors
    (parent / "compared.json").write_text(output)
    for source in (parent / "compared.json", folder):
        (parent / f"{source.name}.md").write_text(PAGE)
        script("results_table.py", source, parent / f"{source.name}.md", "--name", "sst2", "--latency", parent / "none.json")
    kept, tested = ((parent / f"{name}.md").read_text() for name in ("whole", "compared.json"))
    assert rows(kept)["`kd`"][2:6] == ["82.5 ± 3.5", "86.8", "2", "+10.0"]
    gain = rows(tested)["`kd`"][5]
    assert gain.startswith("+10.0 (p ") and tested.replace(gain, "+10.0").startswith(kept.partition("\n\n")[0])


def test_which_gains_are_real(tmp_path, said, monkeypatch):
    """Each method against the students without a teacher: p-values are corrected for these pairs alone, and a single run is not
    tested."""
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    from methods_table import methods_table

    folder = tmp_path / "runs"
    shares = {"finetune-3l": [0.6, 0.61, 0.62], "kd-3l": [0.9, 0.91, 0.9], "pkd-3l": [0.61, 0.6, 0.62], "theseus-3l": [0.9]}
    write_whole(folder, {"teacher": [0.96]} | shares, 400)
    code, output, errors = said("compare", *sorted(folder.iterdir()), "--json")
    assert code == 0, errors
    found = json.loads(output)
    text = methods_table(found, None)
    table = rows(text)
    assert table["3 layers, `kd`"][5].startswith("**+") and table["3 layers, `kd`"][5].endswith(")**")
    assert table["3 layers, `pkd`"][5].startswith("+0.0 (p ") and "(p" not in table["3 layers, `theseus`"][5]
    assert "corrected for the 2 gains tested (Holm)" in text and "the 400 examples of dev" in text
    names = ("fine-tuned (labels only)", "`kd`", "`pkd`", "`theseus`")
    assert list(table)[2:] == ["teacher", *(f"3 layers, {name}" for name in names)]


def test_the_commands_of_a_teacher_of_twelve_layers(tmp_path, monkeypatch, script):
    """Each method's layers of the teacher, settings of the teacher and of the students, and every recipe as `run` reads it."""
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    from all_methods import chosen_layers

    assert chosen_layers("kd", 3, 6) == [0, 2, 4] and chosen_layers("kd", 3, 12) == [0, 4, 8]
    assert chosen_layers("minilm", 3, 6) == [1, 3, 5] and chosen_layers("tinybert_td", 6, 12) == [1, 3, 5, 7, 9, 11]
    assert chosen_layers("theseus", 3, 12) == [0, 1, 2]

    (tmp_path / "config.json").write_text(json.dumps({"model_type": "bert", "num_hidden_layers": 12}))
    options = ["--data", "data", "--encoder", tmp_path, "--out", tmp_path / "runs", "--seeds", "7", "--dry-run"]
    options += ["--epochs", "1.5"]
    sets = ["--set", "task.max_length=50", "--teacher-set", "task.limit.train=60", "--student-set", "task.limit.train=20"]
    printed = script("all_methods.py", *options, *sets, "--layers", "3,6", "--methods", "kd,minilm,t4tiny", "--batch-size", "4")
    found = [shlex.split(line) for line in printed.splitlines()]
    names = [Path(words[words.index("--out") + 1]).name for words in found]
    assert names == ["teacher", "kd-3l-7", "kd-6l-7", "minilm-3l-7", "minilm-6l-7", "t4tiny-7"]
    recipes = {}
    for name, words in zip(names, found):
        overrides = [words[index + 1] for index, word in enumerate(words) if word == "--set"]
        recipes[name] = load_recipe(words[2], overrides=overrides)
    assert [recipe.task.limit["train"] for recipe in recipes.values()] == [60, 20, 20, 20, 20, 20]
    assert {stage.train.batch_size for recipe in recipes.values() for stage in recipe.stages} == {4}
    student = recipes["minilm-6l-7"].student
    assert list(student.init.layers) == [1, 3, 5, 7, 9, 11] and student.architecture["num_hidden_layers"] == 6
    small = tmp_path / "small"
    small.mkdir()
    (small / "config.json").write_text(json.dumps({"model_type": "bert", "num_hidden_layers": 4, "hidden_size": 312}))
    printed = script("all_methods.py", *options, "--small", small, "--methods", "finetune,pkd,tinybert_td", "--layers", "6")
    found = [shlex.split(line) for line in printed.splitlines()]
    names = [Path(words[words.index("--out") + 1]).name for words in found]
    assert names[1:] == ["finetune-6l-7", "finetune-4x312-7", "pkd-6l-7", "tinybert_td-6l-7", "tinybert_td-4x312-7"]
    overrides = [words[index + 1] for words in found[-1:] for index, word in enumerate(words) if word == "--set"]
    narrow = load_recipe("tinybert_td", overrides=overrides)
    assert narrow.student.init.source == str(small) and not narrow.student.architecture and narrow.student.init.layers is None
    projection = narrow.stages[0].objective[1].projection
    assert (projection.kind, projection.name) == ("linear", "fit_dense")
    words = script("all_methods.py", *options, "--methods", "ner-alone,ner_layers", "--layers", "4")
    assert "run ner --out" in words.splitlines()[0] and "[[3, 1], [6, 2], [9, 3], [12, 4]]" in words
    assert "one teacher does one of them" in script("all_methods.py", *options, "--methods", "kd,ner", code=2)


def test_every_method_of_the_benchmark_has_a_row(monkeypatch):
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    import all_methods
    import run_names

    assert set(all_methods.METHODS) <= set(run_names.TITLES)


def test_the_table_of_exports(tmp_path, script):
    def side(size, difference, accuracy, agreement, *times, refused=False):
        sizes = zip(("batch_1", "batch_32"), times)
        timed = {name: {"milliseconds": {"median": value}, "speed_up": {"median": 4 / value}} for name, value in sizes}
        own = {"bytes": size, "difference": difference, "accuracy": accuracy, "agreement": agreement, "refused": refused}
        return own | timed | {"texts_per_second": 1e3}

    student, int8 = side(4e6, 3e-7, 0.9, 1.0, 4.0, 2.0), side(1.04e6, 0.02, 0.89, 0.985, 2.0, 1.0, refused=True)
    sides = {"crossdistil, torch": student, "onnx, int8": int8}
    model = {"parameters": 1_000_000, "metric": "accuracy", "texts": 872, "sides": sides}
    model["missing"] = {"onnx, fp16": "refused: a gate"}
    content = {
        "benchmark": "exports", "date": "2026-01-02", "machine": {"cpu": "A CPU", "threads": 1}, "versions": {"torch": "2.13.0"},
        "settings": {"rounds": 5, "texts": 128}, "models": {"small": model},
    }  # fmt: skip
    (tmp_path / "exports.json").write_text(json.dumps(content))
    page = tmp_path / "PAGE.md"
    page.write_text(PAGE.replace("sst2", "exports"))
    script("results_table.py", tmp_path / "exports.json", page)
    lines = [line.strip("|").split("|") for line in page.read_text().splitlines() if "| small" in line]
    assert [[cell.strip() for cell in line] for line in lines] == [
        ["small, 1.0M", "crossdistil, torch", "4.0", "3e-07", "90.0", "100.0", "4.00 (1.0x)", "2.00 (2.0x)", "1,000"],
        ["small, 1.0M", "onnx, int8", "1.0", "2e-02", "89.0", "98.5 (refused)", "2.00 (2.0x)", "1.00 (4.0x)", "1,000"],
        ["small", "onnx, fp16", "refused: a gate", *[""] * 6],
    ]
    assert "128 of the 872 texts of dev one at a time, and every third batch of 32 of them" in page.read_text()


def test_every_recipe_of_the_catalogue_is_cross_checked(monkeypatch):
    """With settings that its recipe takes, and each in a row of its own, which tells the preset."""
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    from backend_tables import crosschecks_table
    from crosschecks import CHECKS, TEACHERS

    assert {check[0] for check in CHECKS.values()} == {path.stem for path in (BENCHMARKS.parent / "recipes").glob("*.yaml")}
    assert {name for check in CHECKS.values() for name in check[3:5] if name} <= set(TEACHERS)
    for recipe, preset, *_, own in CHECKS.values():
        load_recipe(recipe, overrides=own, preset=preset)
    kept = [json.loads(path.read_text(encoding="utf-8")) for path in (BENCHMARKS / "results/crosschecks").glob("*.json")]
    told = [(each["recipe"]["method"], each.get("preset")) for each in kept]
    titles = [f"`{method} --preset {preset}`" if preset else f"`{method}`" for method, preset in told]
    assert sorted(list(rows(crosschecks_table(kept)))[2:]) == sorted(titles) and len(set(titles)) == len(kept)
