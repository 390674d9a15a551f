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
from crossdistil.tests.crosscheck_runs import BACKENDS, edit_arrays, edit_step, make_runs, report
from crossdistil.tests.test_run_report import assert_stacked


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
        "92.4%",
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
    assert "PyTorch" in text and "1.0e-03 ✗" in text and "89.8%" in text and "✗ differ" in text


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
