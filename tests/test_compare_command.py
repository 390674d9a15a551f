"""`compare`: which runs belong together, which differences are real, and what is refused."""

from __future__ import annotations

import csv
import io
import json
import re
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from rich.console import Console
from ruamel.yaml import YAML
from typer.testing import CliRunner

from crossdistil.core.app import cli
from crossdistil.core.app.compared_runs import read_all
from crossdistil.core.app.comparison_view import print_comparison
from crossdistil.core.checksums import file_checksum, write_checksums
from crossdistil.core.data.tasks import Examples
from crossdistil.core.errors import CrossdistilError
from crossdistil.core.kinds.known_kinds import ONE_CLASS
from crossdistil.core.run_files import RECIPE
from crossdistil.tests import tiny
from crossdistil.tests.compared import answers, write_run

EXAMPLES = 400


@pytest.fixture
def labels():
    return np.random.default_rng(0).integers(0, 2, EXAMPLES).astype(np.int32)


def right(share: float, seed: int) -> np.ndarray:
    return np.random.default_rng(seed).random(EXAMPLES) < share


@pytest.fixture
def run(tmp_path, labels, monkeypatch):
    """`run(name, share right, seed)`: the path of a run."""
    monkeypatch.chdir(tmp_path)

    def write(name, share=0.8, seed=7, draw=0, **options):
        write_run(tmp_path / name, answers(labels, right(share, draw)), labels, seed=seed, **options)
        return name

    return write


def compare(*arguments):
    ended = CliRunner().invoke(cli.app, ["compare", *map(str, arguments)])
    if isinstance(ended.exception, CrossdistilError):
        raise ended.exception
    assert ended.exit_code == 0, ended.output
    return ended.stdout


def found(*arguments):
    return json.loads(compare(*arguments, "--json"))


def test_equal_runs_are_equal(run):
    result = found(run("a"), run("b"))
    (pair,) = result["pairs"]
    assert (pair["p"], pair["difference"], pair["better"], pair["same"]) == (1.0, 0.0, None, True)
    assert [group["runs"] for group in result["groups"]] == [["a"], ["b"]]  # the same seed again is no second seed
    assert "B: the recipe of A with the same seed again" in result["notes"]
    assert "equal, the same answers" in compare("a", "b", "--markdown")


def _edit(path: Path, change) -> None:
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))


def test_what_holds_of_several_is_said_once(run):
    names = [run(name, seed=1) for name in "abcde"]
    notes = [note for note in found(*names)["notes"] if "one seed" not in note]
    assert notes == ["B, C, D, E: the recipe of A with the same seed again"]
    kept = [run(name, seed=seed) for seed, name in enumerate("xy")]
    for name in kept:
        _edit(Path(name) / "result.json", lambda result: result["student"]["metrics"].update({"f1/negative": 0.5, "own": 0.5}))
    notes = found(*kept)["notes"]
    assert "f1/negative: scores of one class or type: shown, and tested only where --metric names one" in notes
    assert "own: a plugin's, shown and not tested" in notes
    for name in kept:
        _edit(Path(name) / "result.json", lambda result: result.pop("dev"))
    [note] = [note for note in found("a", "x", "y")["notes"] if note.endswith("not tested")]
    assert note.startswith("x, y: kept no answers on dev, as runs of earlier versions, and ")


def test_weights_that_are_not_those_of_the_answers_are_told(run):
    """They and their checksums were replaced by another model's."""
    names = [run(name, seed=seed) for seed, name in enumerate("ab")]
    for name in names:
        (Path(name) / "student").mkdir()
        (Path(name) / "student" / "model.safetensors").write_bytes(name.encode())
        write_checksums(Path(name) / "student")
    of_a = file_checksum(Path("a") / "student" / "model.safetensors")
    for name in names:
        _edit(Path(name) / "result.json", lambda result: result["dev"].update(weights=of_a))
    [note] = [note for note in found(*names)["notes"] if "weights" in note]
    assert note.startswith("b: the weights in the folder student are not those that the run ended with, ")


def test_a_truly_better_one_is_better(run):
    (pair,) = found(run("good", 0.9, draw=1), run("bad", 0.75, draw=2, overrides=("stages.0.train.learning_rate=1e-9",)))["pairs"]
    assert pair["better"] == "A" and pair["p"] < 1e-3 and pair["low"] > 0 and pair["test"] == "exact McNemar"
    assert found("bad", "good")["pairs"][0]["better"] == "B"
    assert "A is better" in compare("good", "bad", "--markdown")


def test_a_chosen_score_is_counted_from_the_answers(run, labels):
    from sklearn.metrics import f1_score

    names = [run("a", 0.9, draw=1), run("b", 0.6, draw=2, overrides=("stages.0.train.learning_rate=1e-9",))]
    result = found(*names, "--metric", "f1/negative")
    rights = [right(0.9, 1), right(0.6, 2)]
    expected = [f1_score(labels, np.where(each, labels, 1 - labels), pos_label=0) for each in rights]
    assert result["metrics"] == ["f1/negative"]
    assert [one["metrics"]["f1/negative"] for one in result["runs"]] == pytest.approx(expected, abs=1e-12)
    (pair,) = result["pairs"]
    assert pair["better"] == "A" and pair["difference"] == pytest.approx(expected[0] - expected[1], abs=1e-12)
    assert "f1/negative" in compare(*names, "--metric", "f1/negative", "--markdown")
    with pytest.raises(CrossdistilError, match="^--metric f1/negativ: the task has no 'negativ'; did you mean 'negative'\\?"):
        compare(*names, "--metric", "f1/negativ")
    with pytest.raises(CrossdistilError, match="^--metric entity_f1: no such score; .* there are accuracy, f1, "):
        compare(*names, "--metric", "entity_f1")


def test_one_that_only_seems_better_is_not_called_so(run):
    (pair,) = found(run("a", 0.80, draw=1), run("b", 0.79, draw=2))["pairs"]
    assert pair["better"] is None and pair["p"] > 0.05
    assert "no difference shown" in compare("a", "b", "--markdown")


def test_seeds_are_grouped(run):
    names = [run(f"a{seed}", 0.9, seed, draw=seed) for seed in (1, 2, 3)]
    others = [run(f"b{seed}", 0.7, seed, draw=seed + 10, overrides=("stages.0.train.batch_size=4",)) for seed in (1, 2, 3)]
    result = found(*names, *others)
    first = result["groups"][0]
    scores = [entry["metrics"]["accuracy"] for entry in result["runs"][:3]]
    assert first["runs"] == names and first["seeds"] == [1, 2, 3]
    assert first["metrics"]["accuracy"] == pytest.approx({"mean": np.mean(scores), "deviation": np.std(scores, ddof=1)})
    assert result["differences"] == {"stages.0.train.batch_size": {"A": 8, "B": 4}}
    (pair,) = result["pairs"]
    assert pair["better"] == "A" and pair["test"] == "paired bootstrap" and not result["notes"]


def test_a_run_of_an_earlier_version_belongs_to_those_of_this_one(run):
    """It lacks keys that recipes have got since, nulls and others."""
    names = [run(f"a{seed}", 0.9, seed, draw=seed) for seed in (1, 2)]
    path = Path(names[0]) / RECIPE
    tree = YAML(typ="safe").load(path)
    for section, key in ((tree["teacher_cache"], "top_k"), (tree["student"]["init"], "vocabulary")):
        del section[key]
    for key in ("patience", "min_improvement"):
        del tree["stages"][0]["train"][key]
    with path.open("w") as file:
        YAML(typ="safe").dump(tree, file)
    result = found(*names)
    assert [group["runs"] for group in result["groups"]] == [names]


def test_several_pairs_are_corrected_for_their_number(run):
    names = [run(name, share, draw=draw, seed=draw) for draw, (name, share) in enumerate([("a", 0.83), ("b", 0.77), ("c", 0.8)])]
    for draw, name in enumerate(names):
        run(f"{name}2", draw=draw + 5, overrides=(f"stages.0.train.steps={draw + 1}",))
    pairs = found("a", "a2", "b2", "c2")["pairs"]
    assert len(pairs) == 6 and all(pair["p_corrected"] >= pair["p"] for pair in pairs)
    assert min(pairs, key=lambda pair: pair["p"])["p_corrected"] == pytest.approx(min(1, 6 * min(pair["p"] for pair in pairs)))


@pytest.mark.parametrize("rows", [1, 2])
def test_a_tiny_dev_set_shows_nothing(tmp_path, rows):
    labels = np.zeros(rows, np.int32)
    for name, is_right in (("a", True), ("b", False)):
        write_run(tmp_path / name, answers(labels, np.full(rows, is_right)), labels)
    (pair,) = found(tmp_path / "a", tmp_path / "b")["pairs"]
    assert pair["better"] is None and pair["p"] >= 0.5


def test_regression_is_tested_by_the_bootstrap(tmp_path):
    generator = np.random.default_rng(0)
    labels = generator.normal(size=300).astype(np.float32)
    for name, noise in (("a", 0.3), ("b", 0.9)):
        logits = (labels + generator.normal(scale=noise, size=300))[:, None]
        write_run(tmp_path / name, logits, labels, names=None, metrics=("pearson", "spearman"), task="sts-b")
    pairs = found(tmp_path / "a", tmp_path / "b")["pairs"]
    assert [(pair["metric"], pair["better"], pair["test"]) for pair in pairs] == [
        ("pearson", "A", "paired bootstrap"),
        ("spearman", "A", "paired bootstrap"),
    ]


def test_other_tasks_rows_and_labels_are_refused_by_name(run):
    run("a")
    run("rows", rows="others")
    run("task", task="mrpc")
    run("labels", names=("bad", "good"))
    for name, message in {
        "rows": r"rows: its dev rows are not those of a \(400 and 400 examples\)",
        "task": "task: is of task 'mrpc', but a of 'sst-2'",
        "labels": "labels: its answers are bad, good, but those of a are negative, positive",
        "a": "a: is there twice",
        "none": "none: no such run or model folder",
    }.items():
        with pytest.raises(CrossdistilError, match=message):
            compare("a", name)


def test_an_unfinished_run_and_damaged_answers_are_refused(run, tmp_path):
    run("a"), run("b")
    path = tmp_path / "b" / "predictions.safetensors"
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(CrossdistilError, match=r"b: predictions\.safetensors: is not as it was written; remove result\.json"):
        compare("a", "b")
    (tmp_path / "b" / "result.json").unlink()
    with pytest.raises(CrossdistilError, match="b: the run is not finished"):
        compare("a", "b")


def test_a_run_of_an_earlier_version_is_shown_and_not_tested(run, tmp_path):
    run("a"), run("old")
    path = tmp_path / "old" / "result.json"
    path.write_text(json.dumps({key: value for key, value in json.loads(path.read_text()).items() if key != "dev"}))
    result = found("a", "old")
    assert not result["pairs"] and result["groups"][1]["metrics"]["accuracy"] is not None
    assert any("old: kept no answers on dev" in note and "--data FOLDER" in note for note in result["notes"])


def test_the_forms(run, tmp_path):
    run("a"), run("b", 0.9, draw=3, overrides=("stages.0.train.steps=9",))
    rows = list(csv.DictReader(io.StringIO(compare("a", "b", "--csv"))))
    assert [row["name"] for row in rows] == ["a", "b"] and [row["stages.0.train.steps"] for row in rows] == ["12", "9"]
    table = compare("a", "b", "--markdown").splitlines()
    assert table[0].startswith("|  | runs | accuracy | parameters") and len({line.count("|") for line in table[:4]}) == 1
    compare("a", "b", "--report", "page.html")
    assert "stages.0.train.steps" in (tmp_path / "page.html").read_text(encoding="utf-8")
    for wrong in (["--json", "--csv"], ["--report", "."], ["--data", "nothing"]):
        with pytest.raises(CrossdistilError, match=wrong[-2] if wrong[0] != "--json" else "--csv"):
            compare("a", "b", *wrong)


@pytest.mark.parametrize("width", [60, 80, 100, 200])
@pytest.mark.parametrize("names", [("a", "b"), ("a-long-name-of-a-run", "another-long-name-of-a-run")])
def test_numbers_stay_in_one_piece(run, width, names):
    student = {"metrics": {"accuracy": 0.8125, "macro_f1": 0.8, "matthews": 0.71}, "parameters": 13_841_666}
    for number, name in enumerate(names):
        more = {"student": student, "wall_seconds": 12_345.67, "tokens_per_second": 123_456.0, "steps": 123_456}
        run(name, 0.8 + 0.1 * number, draw=number, overrides=(f"stages.0.train.steps={number + 1}",), **more)
    text = io.StringIO()
    print_comparison(found(*names), Console(file=text, width=width))
    words = re.findall(r"[^\s│]+", text.getvalue())
    for number in ("13,841,666", "123,456", "12,345.7", "81.25%", "0.7100"):
        assert words.count(number) >= 2, text.getvalue()
    assert names[0][:12] in "".join(words) and max(map(len, text.getvalue().splitlines()[2:-4])) <= width


def test_a_model_with_other_rows_is_refused_before_it_answers(run, tmp_path, monkeypatch):
    run("a"), (tmp_path / "data").mkdir()
    tiny.write_model(tmp_path / "model")
    asked = []

    def ask(model, section, data, check):
        asked.append(model)
        spec = SimpleNamespace(kind=ONE_CLASS, label_names=("negative", "positive"))
        dev = Examples(["x"] * 12, None, None, Path("dev.tsv"), np.arange(1, 13))
        check(SimpleNamespace(dev_rows="others", spec=spec, examples={"dev": dev}))
        raise AssertionError("it answered")

    for order in (["a", "model"], ["model", "a"]):
        with pytest.raises(CrossdistilError, match=r"model: its dev rows are not those of a \(12 and 400 examples\)"):
            read_all(list(map(Path, order)), tmp_path / "data", None, ask)
    assert len(asked) == 2
    run("b", rows="others")
    with pytest.raises(CrossdistilError, match="b: its dev rows are not those of a"):
        read_all([Path("model"), Path("a"), Path("b")], tmp_path / "data", None, ask)
    assert len(asked) == 2, "no model is asked where the runs themselves do not compare"
