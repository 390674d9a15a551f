"""The report of a cross-check shows what differs, and is one file that needs no network."""

from __future__ import annotations

import json
import math
import re

import numpy as np
import pytest
from rich.console import Console

from crossdistil.core.app.compare import compare
from crossdistil.core.app.crosscheck_files import display_name
from crossdistil.core.app.crosscheck_tables import print_crosscheck
from crossdistil.core.app.report import percent
from crossdistil.core.app.report_charts import parameter_group
from crossdistil.core.predictions import Predictions, write_predictions
from crossdistil.tests.crosscheck_runs import BACKENDS, edit_arrays, edit_step, make_runs, report
from crossdistil.tests.report_pages import Page, assert_stacked, task_of


@pytest.fixture
def folder(tmp_path):
    return make_runs(tmp_path / "out")


def test_nan_everywhere_still_makes_a_report(folder):
    for step in range(1, 13):
        edit_step(folder / "torch", step, lambda entry: {**entry, "loss": math.nan})
    for file, name in (("probe", "logits"), ("probe", "hidden/1"), ("predictions", "logits")):
        edit_arrays(folder / "torch" / f"{file}.safetensors", lambda arrays, name=name: arrays[name].fill(np.nan))
    result = compare(folder, BACKENDS)
    pair = result["pairs"][0]
    assert pair["loss_max_relative_difference"] is None and pair["prediction_agreement"] is None
    assert pair["hidden_max_relative_difference"] is None and pair["initial_logits_max_difference"] is None
    assert not pair["agree"] and result["pairs"][2]["agree"]
    assert report(folder).count("<svg id=") == 4
    print_crosscheck(result, Console(width=140))


def test_report_is_one_offline_file(folder):
    page = report(folder)
    assert "http://" not in page and "https://" not in page
    assert all(link.startswith("#") for link in re.findall(r"(?:src|href)\s*=\s*[\"']?([^\"'\s>]+)", page))
    assert "@import" not in page and "url(" not in page and "<link" not in page and "<img" not in page
    for backend in BACKENDS:
        assert display_name(backend) in page
    for chart in ("loss", "difference", "hidden", "gradient"):
        assert re.search(rf'<svg id="{chart}"[^>]*role="img"[^>]*aria-labelledby="{chart}-text"', page)
    for text in (
        "train the same model.",
        "kd_ce",
        "92.43%",
        "45 690 626",
        "Layer 1 · feed-forward",
        "color-scheme: dark",
    ):
        assert text in page
    assert all('scope="' in cell for cell in re.findall(r"<th\b[^>]*>", page))
    for series in re.findall(r'<script type="application/json" class="readout">(.*?)</script>', page):
        assert len(json.loads(series)["x"]) == 12


def test_pair_by_pair_fits_a_phone(folder):
    assert_stacked(report(folder), 1)


def with_answers(folder, data, rows, labels, flipped):
    """Runs that kept what they answered to which texts; `flipped` are the rows that a backend answers otherwise."""
    logits = np.stack([-2.0 * labels + 1.0, 2.0 * labels - 1.0], axis=1).astype(np.float32)
    for backend in BACKENDS:
        own = logits * np.linspace(1, 2, len(labels), dtype=np.float32)[:, None]
        own[flipped.get(backend, [])] *= -1
        found = Predictions(own, labels, rows, "sst-2", ("negative", "positive"), ("accuracy",))
        result = json.loads((folder / backend / "result.json").read_text()) | {"task": "sst-2"}
        result["dev"] = write_predictions(folder / backend, found)
        (folder / backend / "result.json").write_text(json.dumps(result))
        recipe = folder / backend / "recipe.yaml"
        recipe.write_text(recipe.read_text().replace("data/SST-2", json.dumps(str(data))))
    return folder


def test_examples_that_differ_are_shown_with_their_texts(tmp_path):
    labels = np.arange(40, dtype=np.int32) % 2
    texts = [f"text {row} <b>很好看</b>" for row in range(40)]
    data, rows = task_of(tmp_path / "task", texts, labels)
    flipped = {"oneflow": [3, 30], "mindspore": [3]}
    folder = with_answers(make_runs(tmp_path / "out"), data, rows, labels, flipped)
    page = report(folder)
    assert_stacked(page, 2)
    assert "<b>很" not in page and "2 dev examples. Percentages:" in " ".join(page.split())
    heading, first, second = Page(page).tables["Examples that the students answer differently"]
    assert heading == ["Text", "Label", "PyTorch", "OneFlow", "MindSpore", "Line"]
    assert first[0] == texts[30] and second[0] == texts[3]  # the farthest apart first
    names = ("negative", "positive")
    for row, cells in ((30, first), (3, second)):
        answers = [cell.split()[0] for cell in cells[2:5]]
        own, other = names[labels[row]], names[1 - labels[row]]
        assert cells[1] == own and cells[5] == str(row + 2)
        assert answers == [own, *(other if row in flipped[backend] else own for backend in BACKENDS[1:])]
        share = 1 / (1 + math.exp(-2 * (1 + row / 39)))
        assert all(float(cell.split()[1].rstrip("%")) == pytest.approx(100 * share, abs=0.06) for cell in cells[2:5])
    (data / "dev.tsv").write_text("sentence\tlabel\nother\t1\n")
    page = report(folder)
    assert "is not what the run was scored on any more" in page and "row 31 of dev" in page and texts[3] not in page


def test_where_nothing_differs_or_nothing_was_kept_there_are_no_examples(folder, tmp_path):
    assert "answer differently" not in report(folder)
    page = report(make_runs(tmp_path / "flipped", flips=2))
    assert "Note: PyTorch kept no labels of dev" in page and "Examples that the students answer differently" not in page


def test_every_figure_has_a_unit(folder):
    page = report(folder)
    titles = [title for title in Page(page).titles if title != "step"]
    assert titles == ["loss, weighted sum of the terms", *["relative difference of the loss, no unit"],
                      *["relative difference, no unit"] * 2]  # fmt: skip
    tables = Page(page).tables
    assert tables["Speed and memory of each backend"][0] == ["Backend", "Wall time, s", "Peak memory, MB", "Tokens per second"]
    assert all(row[1].endswith("%") for row in tables["Metrics of the teacher and of each backend's student"][1:])
    for backend in BACKENDS:  # a loss is no share
        path = folder / backend / "result.json"
        result = json.loads(path.read_text())
        result["student"]["metrics"] = {"mlm_loss": 5.25}
        path.write_text(json.dumps(result))
    assert Page(report(folder)).tables["Metrics of the teacher and of each backend's student"][-1][-2] == "5.2500"


def test_report_escapes_what_it_shows(folder):
    for backend in BACKENDS:
        (folder / backend / "recipe.yaml").write_text("method: <script>alert(1)</script>\n")
    assert "<script>alert" not in report(folder)


def test_long_runs_are_thinned_without_losing_the_peak(tmp_path):
    folder = make_runs(tmp_path / "out", ["torch", "oneflow"], steps=4000, noise=1e-9, growth=1.0)
    edit_step(folder / "oneflow", 2717, lambda entry: {**entry, "loss": entry["loss"] * 1.5})
    page = report(folder, ["torch", "oneflow"])
    assert "step 2717" in page and len(page) < 600_000


def test_terminal_tables(folder):
    console = Console(width=140, record=True)
    edit_step(folder / "oneflow", 7, lambda entry: {**entry, "loss": entry["loss"] * 1.001})
    print_crosscheck(compare(folder, BACKENDS), console)
    text = console.export_text()
    assert "PyTorch" in text and "1.0e-03 ✗" in text and "89.79%" in text and "✗ differ" in text


@pytest.mark.parametrize(
    "name, group",
    [
        ("bert.embeddings.LayerNorm.weight", "Embeddings"),
        ("bert.encoder.layer.11.attention.output.LayerNorm.bias", "Layer 11 · norms"),
        ("bert.encoder.layer.3.attention.output.dense.bias", "Layer 3 · attention"),
        ("bert.encoder.layer.3.output.dense.bias", "Layer 3 · feed-forward"),
        ("bert.pooler.dense.bias", "Pooler"),
        ("classifier.bias", "Classifier"),
        ("lstm.weight_ih_l0", "lstm"),
    ],
)
def test_parameter_groups(name, group):
    assert parameter_group(name)[1] == group


@pytest.mark.parametrize("value, text", [(1.0, "100.0%"), (0.99999, "99.999%"), (0.9243, "92.4%"), (0.0, "0.0%"), (None, "–")])
def test_percentages_never_round_to_all(value, text):
    assert percent(value) == text
