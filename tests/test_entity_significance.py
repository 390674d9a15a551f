"""Whether entity scores differ: resampled texts against seqeval's scores, p against a bootstrap of its own, and `compare`."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest

import crossdistil
from crossdistil.core.entity_samples import sampled_entities, text_spans
from crossdistil.core.errors import RunFolderError
from crossdistil.core.kinds.known_kinds import TOKEN_LABELS
from crossdistil.core.metrics import ENTITY_METRICS
from crossdistil.core.predictions import WordsOfTexts, read_predictions
from crossdistil.core.significance import difference, drawn_values
from crossdistil.tests.compared import write_run
from crossdistil.tests.tagged_files import LABELS

BENCHMARKS = Path(crossdistil.__file__).parent / "benchmarks"
TEXTS = 50
SEQEVAL = [
    [0.676470588235294, 0.6865671641791045, 0.6666666666666666],
    [0.5526315789473685, 0.5526315789473685, 0.5526315789473685],
    [0.6411149825783972, 0.6764705882352942, 0.609271523178808],
    [0.5333333333333333, 0.5607476635514018, 0.5084745762711864],
]
"""F1, precision and recall of four resamples, which seqeval's code (commit 052db9f) computed from the tags of drawn texts, stray
I ones among them. It is no dependency: it is only there as a source package, which cannot be built everywhere."""


def drawn(seed, more=1.5):
    """Word counts of texts, one of which has none, their labels (words,), and logits (words, 5) that are often right."""
    generator = np.random.default_rng(seed)
    counts = np.array([0, *np.random.default_rng(0).integers(1, 9, TEXTS - 1)], np.int32)
    true = np.random.default_rng(1).integers(0, 5, int(counts.sum()))
    logits = generator.normal(0, 1, (len(true), 5))
    logits[np.arange(len(true)), true] += more
    return counts, true.astype(np.int32), logits.astype(np.float32)


def tags(counts, numbers):
    return [[LABELS[number] for number in part] for part in np.split(numbers, np.cumsum(counts)[:-1])]


def test_resampled_texts_are_scored_as_seqeval_scores_them():
    counts, true, logits = drawn(2)
    spans = text_spans(logits, true, WordsOfTexts(counts, False), LABELS)
    weights = np.random.default_rng(3).multinomial(TEXTS, np.full(TEXTS, 1 / TEXTS), size=4).astype(float)
    found = np.stack([sampled_entities(name, spans)(weights) for name in ENTITY_METRICS], axis=1)
    assert found == pytest.approx(np.array(SEQEVAL), abs=1e-12)


@pytest.mark.parametrize("constrained", [False, True])
def test_all_texts_score_as_a_run_does(constrained):
    counts, true, logits = drawn(2)
    targets = np.full((TEXTS, 8), -1, np.int16)
    targets[np.arange(8) < counts[:, None]] = true
    expected = TOKEN_LABELS.score(ENTITY_METRICS, logits, targets, {}, LABELS, constrained)
    spans = text_spans(logits, true, WordsOfTexts(counts, constrained), LABELS)
    once = np.ones((1, TEXTS))
    assert {name: sampled_entities(name, spans)(once)[0] for name in ENTITY_METRICS} == pytest.approx(expected, abs=1e-12)


def test_without_spans_all_is_0():
    assert [sampled_entities(name, np.zeros((3, 3)))(np.ones((2, 3))).tolist() for name in ENTITY_METRICS] == [[0, 0]] * 3


def _written_spans(row):
    """First word, number of words and type of each span, found by an expression in the written tags."""
    text = " ".join(row)
    found = re.finditer(r"[BI]-(\S+)(?: I-\1(?!\S))*", text)
    return {(text[: each.start()].count(" "), each[0].count(" "), each[1]) for each in found}


def _own_counts(counts, true, logits):
    """Right, predicted and true spans of each text."""
    sides = [[_written_spans(row) for row in tags(counts, numbers)] for numbers in (logits.argmax(axis=1), true)]
    return np.array([(len(own & other), len(own), len(other)) for own, other in zip(*sides, strict=True)])


def test_p_and_interval_are_those_of_a_bootstrap_over_texts():
    counts, true, first = drawn(2, 1.6)
    second = drawn(6, 1.3)[2]
    texts, sides = WordsOfTexts(counts, False), []
    for logits in (first, second):
        sides.append(_own_counts(counts, true, logits))
        assert (sides[-1] == text_spans(logits, true, texts, LABELS)).all()
    generator, values = np.random.default_rng(11), []
    for _ in range(5000):
        rows = generator.integers(TEXTS, size=TEXTS)
        right, predicted, there = np.moveaxis([side[rows].sum(axis=0) for side in sides], 1, 0)
        values.append(np.subtract(*(2 * right / (predicted + there))))
    p = 2 * min(np.mean(np.less_equal(values, 0)), np.mean(np.greater_equal(values, 0)))
    samples = {"entity_f1": [[sampled_entities("entity_f1", text_spans(each, true, texts, LABELS))] for each in (first, second)]}
    found = difference(*drawn_values(samples, TEXTS)["entity_f1"])
    assert 0.05 < p < 0.5 and found.p == pytest.approx(p, abs=0.02)
    assert (found.low, found.high) == pytest.approx(tuple(np.quantile(values, (0.025, 0.975))), abs=0.15 * np.std(values))


@pytest.fixture
def run(tmp_path):
    """`run(name, seed, more)`: the path of a run that answers words."""

    def write(name, seed, more=1.5, **options):
        counts, true, logits = drawn(seed, more)
        targets = np.full((TEXTS, 8), -1, np.int16)
        targets[np.arange(8) < counts[:, None]] = true
        scores = TOKEN_LABELS.score(TOKEN_LABELS.default_metrics, logits, targets, {}, LABELS)
        student = {"metrics": scores, "parameters": 1234, "kept_step": 12}
        options = {"texts": WordsOfTexts(counts, False), "seed": seed} | options
        return write_run(tmp_path / name, logits, true, names=LABELS, task="names", student=student, **options)

    return write


def test_entities_are_tested_over_texts_beside_words(run, said):
    shorter = ("stages.0.train.steps=9",)
    a, b = [run(f"a{seed}", seed, 2.5) for seed in (2, 3)], [run(f"b{seed}", seed, 0.5, overrides=shorter) for seed in (4, 5)]
    code, printed, errors = said("compare", *a, *b, "--json")
    assert code == 0, errors
    found = json.loads(printed)
    assert found["dev"]["texts"] == TEXTS and found["dev"]["examples"] > TEXTS
    tests = {pair["metric"]: pair["test"] for pair in found["pairs"]}
    assert tests == {"accuracy": "paired bootstrap"} | dict.fromkeys(ENTITY_METRICS, "paired bootstrap of texts")
    for pair in found["pairs"][1:]:
        first, second = (group["metrics"][pair["metric"]]["mean"] for group in found["groups"])
        assert pair["difference"] == pytest.approx(first - second, abs=1e-12)
    assert not found["notes"]
    (single,) = (pair for pair in json.loads(said("compare", a[0], b[0], "--json")[1])["pairs"] if pair["metric"] == "entity_f1")
    assert single["better"] == "A" and single["p"] < 0.01


def test_the_table_of_methods_says_over_what_a_gain_was_tested(run, said, monkeypatch):
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    from methods_table import methods_table

    paths = [run("teacher", 1, 4.0, overrides=("stages.0.train.steps=9",))]
    paths += [run(f"ner-3l-{seed}", seed, 2.5) for seed in (2, 3)]
    paths += [run(f"ner-alone-3l-{seed}", seed, 0.5, overrides=("stages.0.train.steps=8",)) for seed in (4, 5)]
    text = methods_table(json.loads(said("compare", *paths, "--json")[1]) | {"metrics": ["entity_f1"]}, None)
    assert re.search(r"\| \*{0,2}\+[\d.]+ \(p [\d.]+\)", text) and f"over the {TEXTS} texts of dev and the seeds" in text


def test_a_run_that_kept_no_texts_is_compared_by_its_words(run, said):
    shorter = ("stages.0.train.steps=9",)
    new, old = run("new", 2), run("old", 3, 0.5, texts=None, overrides=shorter)
    code, printed, errors = said("compare", new, old, "--json")
    assert code == 0, errors
    found = json.loads(printed)
    assert [pair["metric"] for pair in found["pairs"]] == ["accuracy"]
    (note,) = (note for note in found["notes"] if "entities are not tested" in note)
    assert note.startswith(f"{old}: kept its answers without where a text ends")


def test_texts_that_do_not_fit_are_refused(run):
    folder = run("a", 2)
    result = json.loads((folder / "result.json").read_text())
    assert result["dev"]["constrained"] is False
    result["dev"]["constrained"] = "no"
    with pytest.raises(RunFolderError, match="does not fit predictions.safetensors: got .* words of texts, constrained 'no'"):
        read_predictions(folder, result)
