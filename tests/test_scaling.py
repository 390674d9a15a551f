"""The model of data-parallel steps in `benchmarks/scaling.py`: its arithmetic against cases computed by hand, the sizes of
its models against published ones, and the table in the documentation against the kept measurements."""

from __future__ import annotations

import importlib
import json
from pathlib import Path

import pytest

import crossdistil

ROOT = Path(crossdistil.__file__).resolve().parent


@pytest.fixture
def scaling(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    return importlib.import_module("scaling")


def test_a_step_by_hand(scaling):
    """4 devices, 1,000 tokens of 1 ms: 0.25 s; 0.1 s of all; 6 messages of 0.25 GB and 10 ms: 1.5 s + 0.06 s."""
    work, link = scaling.Work(1e-3, 0.1, 1_000_000_000), scaling.Link("", 1e9, 0.01, "")
    assert scaling.sum_seconds(1, 10**9, link) == 0
    assert scaling.sum_seconds(4, 10**9, link) == pytest.approx(1.56)
    assert scaling.step_seconds(work, 1000, 4, link) == pytest.approx(1.91)
    assert scaling.step_seconds(work, 1000, 1, link) == pytest.approx(1.1)
    assert scaling.share_of_ideal(work, 1000, 4, link) == pytest.approx(1.1 / 7.64)
    # 2 devices: 8.56 s alone and 4.23 + 0.1 + 1.02 = 5.35 s together are 0.8 of twice as fast.
    assert scaling.least_batch(work, 2, link) == pytest.approx(8460)
    assert scaling.share_of_ideal(work, 8460, 2, link) == pytest.approx(0.8)


def test_measurements_become_work_and_a_link(scaling):
    """Micro-batches of 100 tokens take 0.5 s each beside 0.2 s; 1 KB takes 2 messages of 1 ms, 1 GB half a second more."""
    name = "BERT-base, 12 x 768"
    sums = [{"bytes": 10**9, "seconds": 0.502}, {"bytes": 1024, "seconds": 0.002}]
    measured = {"models": {name: {"tokens": 100, "seconds_1": 0.7, "seconds_2": 1.2}}, "sums": sums, "backend": "x"}
    work, link = scaling.measured_work(name, measured), scaling.measured_link(measured)
    assert (work.seconds_per_token, work.seconds_per_step) == pytest.approx((0.005, 0.2))
    assert (link.bandwidth, link.latency) == pytest.approx((2e9, 0.001))


def test_models_have_the_published_sizes(scaling):
    """Parameters that transformers counts in BertForSequenceClassification of two labels, and what a layer multiplies."""
    found = {name: scaling.gradient_bytes(config) // 4 for name, config in scaling.MODELS.items()}
    assert found == {"BERT-base, 12 x 768": 109_483_778, "MiniLM, 6 x 384": 22_713_986, "TinyBERT, 4 x 312": 14_350_874}
    work = scaling.assumed_work(scaling.MODELS["BERT-base, 12 x 768"], scaling.DEVICES["A100"])
    layer = 4 * 768**2 + 2 * 768 * 3072 + 2 * 128 * 768
    # Of the last one keys and values of all tokens, and for the first token of a text the query and all else.
    last = 2 * 768**2 + (2 * 768**2 + 2 * 768 * 3072) / 128 + 2 * 768
    head = (768**2 + 2 * 768) / 128
    assert work.seconds_per_token == pytest.approx(6 * (11 * layer + last + head) / (312e12 * 0.24))


def test_the_documented_table_is_that_of_the_measurements(scaling):
    text = (ROOT / "docs" / "large_corpora.md").read_text(encoding="utf-8")
    measured = json.loads((ROOT / "benchmarks/results/scaling_measured.json").read_text(encoding="utf-8"))
    assert scaling.table(measured) in text
    assert "**Computed**, not measured" in text
