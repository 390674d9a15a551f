"""report.html of a run: what stands in it, whatever the texts and labels are, and that a run never fails for it."""

from __future__ import annotations

import json
import re

import numpy as np
import pytest
from sklearn.metrics import confusion_matrix, precision_recall_fscore_support
from typer.testing import CliRunner

from crossdistil.core.app import cli, report_command, run_report
from crossdistil.core.app.asking import asker
from crossdistil.core.app.chart_axes import Linear
from crossdistil.core.app.comparison_report import comparison_page
from crossdistil.core.app.progress import make_console
from crossdistil.core.app.run_report import write_run_report
from crossdistil.core.errors import CrossdistilError
from crossdistil.core.predictions import read_predictions
from crossdistil.core.registered import NOTHING
from crossdistil.core.run_result import read_result
from crossdistil.tests.compared import answers, write_run
from crossdistil.tests.report_pages import Page, assert_stacked, task_of
from crossdistil.tests.wrong_input_files import crossdistil, write_files

HOSTILE = ['<script>alert(1)</script> bad & "good"', "</pre></td><img src=x onerror=alert(1)>", "很好看的电影，值得一看。" * 60]
HOSTILE += ["a" * 2000]


@pytest.fixture
def written(tmp_path):
    """(folder, page) of a run with hostile texts, labels, and a true answer for all but every fifth row."""
    generator = np.random.default_rng(0)
    labels = generator.integers(0, 2, 40).astype(np.int32)
    texts = [HOSTILE[i % 4] if i % 5 == 0 else f"row {i} " + "word " * (i % 9) for i in range(40)]
    data, rows = task_of(tmp_path / "task", texts, labels)
    logits = answers(labels, np.arange(40) % 5 != 0)
    names = ("negative", "positive")
    folder = write_run(tmp_path / "run", logits, labels, rows=rows, data=data, names=names, metrics=("accuracy", "matthews"))
    path, notes = write_run_report(folder, None)
    assert notes == []
    return folder, path.read_text(encoding="utf-8"), labels, logits, texts


def test_scores_and_confusions_are_those_of_scikit_learn(written):
    _, text, labels, logits, _ = written
    tables, predicted = Page(text).tables, logits.argmax(axis=1)
    matrix = confusion_matrix(labels, predicted)
    cells = [[int(re.match(r"\d+", cell)[0]) for cell in row[1:3]] for row in tables["Confusion matrix on dev"][1:3]]
    assert cells == matrix.tolist()
    expected = precision_recall_fscore_support(labels, predicted)
    for index, row in enumerate(tables["Precision, recall and F1 of each class on dev"][1:]):
        assert row[1:] == [*(f"{100 * column[index]:.1f}%" for column in expected[:3]), str(expected[3][index])]
    scores = tables["Scores on dev and sizes"]
    assert [row[0] for row in scores[1:]] == ["Teacher", "Student"] and scores[2][1] == "80.00%" and scores[2][3] == "1,234"
    lengths = tables["Score by length"][1:]
    assert sum(int(row[1]) for row in lengths) == 40


def test_hostile_texts_are_escaped_and_shown_with_their_lines(written):
    _, text, _, _, texts = written
    assert "<script>alert" not in text and "<img" not in text
    rows = Page(text).tables["Examples that the student answers wrongly"][1:]
    assert len(rows) == 8
    for row in rows:
        assert row[0].startswith(texts[int(row[4]) - 2][:500])
    scripts = [attributes for tag, attributes, _ in Page(text).tags if tag == "script"]
    assert all("src" not in attributes for attributes in scripts)


def test_nothing_is_loaded_from_elsewhere(written):
    text = written[1]
    assert "default-src 'none'" in text and "url(" not in text and "@import" not in text
    values = [value for _, attributes, _ in Page(text).tags for key, value in attributes.items() if key in ("src", "href")]
    assert all(value.startswith("#") for value in values)


def test_a_narrow_page_scrolls_inside_its_boxes(written):
    """What has a width of its own stands in a box that scrolls; the rest may be broken anywhere."""
    page = Page(written[1])
    assert all(inside for tag, attributes, inside in page.tags if tag == "table" or "chart" in (attributes.get("class") or ""))
    style = written[1]
    assert "pre { " in style and re.search(r"^pre \{[^}]*overflow-x: auto", style, re.M)
    assert ".scroll { overflow-x: auto; }" in style and re.search(r"h1[^{]*\{ overflow-wrap: anywhere", style)
    assert not re.search(r'style="[^"]*width: *\d+px', style)


def test_on_a_phone_every_cell_says_what_it_is(written):
    """Tables that are stacked on a narrow page have no heading there, so that each of their cells names its column."""
    _, text, *_ = written
    assert_stacked(text, 3)


def test_every_curve_has_units_and_true_epochs(written):
    titles = Page(written[1]).titles
    units = ["loss, weighted sum of the terms", "value of each term, before its weight", "score on dev, %"]
    units += ["learning rate of the step"]
    assert [title for title in titles if title != "epoch"] == [*units, "tokens per second"] and titles.count("epoch") == 5
    readouts = [json.loads(found) for found in re.findall(r'class="readout">(.*?)</script>', written[1])]
    assert readouts[0]["label"][-1] == "epoch 2" and len(readouts[1]["series"]) == 2


@pytest.mark.parametrize("count", [1, 3])
def test_a_short_run_shows_its_points(written, count):
    folder, lines = written[0], [json.loads(line) for line in (written[0] / "metrics.jsonl").read_text().splitlines()]
    kept = [{**line, "tokens_per_second": None, "learning_rate": 1e-5} for line in lines[:count]]
    (folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in kept))
    text = write_run_report(folder, None)[0].read_text(encoding="utf-8")
    charts = re.findall(r'<svg id="(\w+)" class="chart".*?</svg>', text, re.S)
    assert charts == ["loss", "terms", "rate"]  # no speed and no scores, of which there is no point
    for ident, curves in {"loss": 1, "terms": 2, "rate": 1}.items():
        picture = re.search(rf'<svg id="{ident}".*?</svg>', text, re.S)[0]
        assert picture.count('class="marker ') == curves * count
        labels = re.findall(r'class="tick"[^>]*text-anchor="end">([^<]*)<', picture)
        assert len(labels) >= 2 and len(set(labels)) == len(labels) and max(map(len, labels)) <= 8
        if ident == "rate":
            assert "1e-05" in labels and all(float(label) >= 0 for label in labels)


@pytest.mark.parametrize("values", [[2.5e-6, 1e-5], [3e-5, 3e-5 + 1e-20], [0.0], [1.2e9, 3e9], [-4e-7, 0.0], [0.6931, 0.6935]])
def test_labels_of_an_axis_are_short_and_true(values):
    axis = Linear(values, 200.0, 30.0)
    assert all(len(label) <= 8 for _, label in axis.ticks)
    assert all(float(label) == pytest.approx(value, rel=1e-6, abs=1e-20) for value, label in axis.ticks)
    assert all(30 <= axis(value) <= 200 for value in values)


def test_where_the_student_starts_is_what_the_resolved_recipe_says(tmp_path):
    labels = np.arange(8, dtype=np.int32) % 2
    for name, override, said in (
        ("a", "student.init.layers=[0,1,2]", "The student starts from layers 0, 1, 2 of the teacher, counted from 0."),
        ("b", 'student.init={"from":"random"}', "The student starts from random weights."),
    ):
        folder = write_run(tmp_path / name, answers(labels, labels > 0), labels, overrides=(override,))
        assert said in write_run_report(folder, None)[0].read_text(encoding="utf-8")


def test_several_teachers_are_told_apart_and_a_model_without_one_is_no_student():
    two = {"teachers": {"big": {"model": "b"}, "small": {"model": "s"}}, "student": {"init": {"from": "teacher", "layers": [0]}}}
    assert run_report._start(two, run_report._who(two)) == (
        "The student starts from layer 0 of teacher big, the first, counted from 0."
    )
    student = {"metrics": {"accuracy": 0.6}, "parameters": 10, "bytes": None, "milliseconds": None}
    found = {"big": 0.8, "small": 0.9}
    teachers = [
        run_report._teacher(name, {"accuracy": score, "parameters": 20}, two, {}) | {"metrics": {"accuracy": score}}
        for name, score in found.items()
    ]
    assert [teacher["name"] for teacher in teachers] == ["Teacher big", "Teacher small"]
    [tile] = [tile for tile in run_report._tiles({}, two, ["accuracy"], student, teachers) if "on dev" in tile["what"]]
    assert tile["what"] == "Student’s accuracy on dev" and tile["more"] == "66.7% of that of teacher small, the best"
    alone = {"method": "mlm", "student": {"init": {"from": "models/encoder"}}}
    assert run_report._headline(alone, [], student, []) == "A model by mlm, which was not scored."
    assert run_report._start(alone, run_report._who(alone)) == "The model starts from the weights of models/encoder."


def test_where_student_and_teacher_disagree(tmp_path):
    """Counts and rows against the four sets of examples, taken from the labels one by one."""
    generator = np.random.default_rng(3)
    labels = generator.integers(0, 2, 30).astype(np.int32)
    right, taught = generator.random(30) < 0.6, generator.random(30) < 0.8
    student, teacher = answers(labels, right), answers(labels, taught) * generator.uniform(0.3, 1, (30, 1)).astype(np.float32)
    texts = [f"text number {index}" for index in range(30)]
    data, rows = task_of(tmp_path / "task", texts, labels)
    folder = write_run(tmp_path / "run", student, labels, rows=rows, data=data, teachers={"teacher": teacher})
    tables = Page(write_run_report(folder, None)[0].read_text(encoding="utf-8")).tables
    counts = {row[0]: int(row[1]) for row in tables["How many dev examples student and teacher answer rightly"][1:]}
    pairs = list(zip(right.tolist(), taught.tolist()))
    expected = {"both get right": (True, True), "only the student gets right": (True, False)}
    expected |= {"only the teacher gets right": (False, True), "neither gets right": (False, False)}
    assert counts == {name: pairs.count(pair) for name, pair in expected.items()}
    found = tables["Examples that student and teacher answer differently"][1:]
    differ = [index for index, (own, other) in enumerate(pairs) if own != other]
    assert {row[0] for row in found} == {texts[index] for index in differ[:20]} or len(differ) > 20
    surest = [float(re.search(r"([\d.]+)%", row[2])[1]) for row in found]
    assert surest == sorted(surest, reverse=True)  # the student is equally sure everywhere
    for row in found:
        index = int(row[0].rpartition(" ")[2])
        names = ("negative", "positive")
        assert row[1] == names[labels[index]] and row[4] == str(index + 2)
        assert (row[2].split()[0] == row[1], row[3].split()[0] == row[1]) == (bool(taught[index]), bool(right[index]))


def test_teachers_of_regressions_and_of_several_labels(tmp_path):
    generator = np.random.default_rng(4)
    scores = generator.random(12).astype(np.float32)
    logits, teacher = scores[:, None] + 0.5, scores[:, None] - 0.25
    about = {"names": None, "metrics": ("pearson",), "task": "sts-b"}
    folder = write_run(tmp_path / "scores", logits, scores, teachers={"one": teacher, "two": logits}, **about)
    text = write_run_report(folder, None)[0].read_text(encoding="utf-8")
    assert "Where student and teacher one disagree</h2>" in text and "Mean distance between their scores: 0.7500." in text
    assert "Mean distance between their scores: 0.0000." in text
    labels = generator.integers(0, 2, (12, 3)).astype(np.float32)
    about = {"names": ("a", "b", "c"), "metrics": ("exact_match",)}
    several = write_run(tmp_path / "several", labels * 2 - 1, labels, teachers={"t": 1 - 2 * labels}, **about)
    tables = Page(write_run_report(several, None)[0].read_text(encoding="utf-8")).tables
    assert [row[1] for row in tables["How many dev examples student and teacher answer rightly"][1:]] == ["0", "12", "0", "0"]


def test_texts_that_changed_are_not_shown(written):
    folder, text = written[:2]
    (folder.parent / "task" / "dev.tsv").write_text("sentence\tlabel\nother\t1\n")
    path, notes = write_run_report(folder, None)
    assert "is not what the run was scored on any more" in notes[0]
    page = Page(path.read_text(encoding="utf-8"))
    assert "Examples that the student answers wrongly" not in page.tables and "Confusion matrix on dev" in page.tables


def test_one_answer_for_everything_is_told_at_the_head(tmp_path):
    labels = np.arange(12, dtype=np.int32) % 2
    folder = write_run(tmp_path / "run", np.tile(np.float32([1, 2]), (12, 1)), labels)
    page = write_run_report(folder, None)[0].read_text(encoding="utf-8")
    head = page[: page.index("</header>")]
    assert "Warning: &#39;positive&#39; is predicted for all 12 examples of dev." in head


def test_a_run_without_dev_says_that_it_was_not_scored(written):
    folder = written[0]
    result = json.loads((folder / "result.json").read_text())
    result["student"] = {"parameters": result["student"]["parameters"]}
    del result["dev"]
    (folder / "result.json").write_text(json.dumps(result))
    assert write_run_report(folder, None)[1] == ["was not scored on dev"]


def test_regression_and_several_labels(tmp_path):
    labels = np.linspace(0, 5, 30).astype(np.float32)
    data, _ = task_of(tmp_path / "task", ["x"] * 30, [0, 1] * 15)
    folder = write_run(tmp_path / "a", labels[:, None] + 0.1, labels, names=None, metrics=("pearson",), data=data)
    page = Page(write_run_report(folder, None)[0].read_text(encoding="utf-8"))
    assert "Confusion matrix on dev" not in page.tables and "Scores on dev and sizes" in page.tables
    several = np.eye(3, dtype=np.float32)[np.arange(30) % 3]
    folder = write_run(
        tmp_path / "b", 8 * several - 4, several, names=("a<b", "b", "c"), metrics=("micro_f1", "exact_match"), data=data
    )
    tables = Page(write_run_report(folder, None)[0].read_text(encoding="utf-8")).tables
    assert tables["Precision, recall and F1 of each class on dev"][1] == ["a<b", "100.0%", "100.0%", "100.0%", "10"]


def test_a_run_is_complete_whatever_becomes_of_its_report(written, monkeypatch, capsys):
    folder = written[0]
    (folder / "report.html").unlink()
    (folder / "report.html").mkdir()
    report_command.report_of_finished(folder, "torch", make_console(), NOTHING)
    said = capsys.readouterr().out.splitlines()
    assert len(said) == 1 and "report.html: not written: " in said[0] and said[0].endswith("the run is complete")


def test_the_command(written, tmp_path):
    (written[0] / "report.html").unlink()
    ended = CliRunner().invoke(cli.app, ["report", str(written[0])])
    assert ended.exit_code == 0 and (written[0] / "report.html").read_text(encoding="utf-8") == written[1]
    for wrong, said in ((tmp_path / "task", "is not the folder of a finished run"), (tmp_path / "none", "none: no such folder")):
        ended = CliRunner().invoke(cli.app, ["report", str(wrong)])
        assert isinstance(ended.exception, CrossdistilError) and said in str(ended.exception)


def test_the_page_of_a_comparison_is_as_careful(tmp_path):
    from crossdistil.core.app.compared_runs import read_all
    from crossdistil.core.app.comparison import compare_finished

    labels = np.arange(50, dtype=np.int32) % 2
    name = "a<script>alert(1)</script>"
    for index, own in enumerate((name.replace("/", "_"), "b")):
        logits, steps = answers(labels, np.arange(50) % (index + 2) > 0), f"stages.0.train.steps={index + 1}"
        write_run(tmp_path / own, logits, labels, overrides=(steps,))
    runs = read_all([tmp_path / name.replace("/", "_"), tmp_path / "b"], None, None, None)
    text = comparison_page(compare_finished(runs))
    page = Page(text)
    assert "<script" not in text and all(inside for tag, _, inside in page.tags if tag == "table")
    assert page.tables["In what the recipes differ"][1:] == [["stages.0.train.steps", "1", "2"]]


@pytest.mark.only_backend("torch")
def test_a_run_ends_with_its_report_and_keeps_its_answers(tmp_path):
    files = write_files(tmp_path / "right")
    one_step = ["--set", "stages.0.train.steps=1", "--backend", "torch", "--device", "cpu"]
    for name, more in (("with", []), ("without", ["--no-report"])):
        assert crossdistil("run", files.recipe, *one_step, "--out", tmp_path / name, *more).code == 0
    folders = [{path.name for path in (tmp_path / name).iterdir()} for name in ("with", "without")]
    assert folders[0] - folders[1] == {"report.html"} and not folders[1] - folders[0]
    assert "Examples that the student answers wrongly" in (tmp_path / "with" / "report.html").read_text(encoding="utf-8")
    kept = read_predictions(tmp_path / "with", read_result(tmp_path / "with"))
    again = asker("torch", "cpu")(tmp_path / "with" / "student", {}, files.data)
    np.testing.assert_allclose(kept.logits, again.logits, atol=1e-5)
    assert kept.rows == again.data.dev_rows and (kept.labels == again.data.examples["dev"].labels).all()
