"""Whether scores of labels of words differ: resampled texts as seqeval scores them, p by a bootstrap of its own, `compare`."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest

import crossdistil
from crossdistil.core.errors import RunFolderError
from crossdistil.core.kinds.known_kinds import TOKEN_LABELS
from crossdistil.core.metrics import ENTITY_METRICS
from crossdistil.core.predictions import WordsOfTexts, read_predictions
from crossdistil.core.significance import difference, drawn_values, mcnemar
from crossdistil.core.text_samples import text_samples
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
    samples = text_samples(ENTITY_METRICS, logits, true, WordsOfTexts(counts, False), LABELS)
    weights = np.random.default_rng(3).multinomial(TEXTS, np.full(TEXTS, 1 / TEXTS), size=4).astype(float)
    found = np.stack([samples[name](weights) for name in ENTITY_METRICS], axis=1)
    assert found == pytest.approx(np.array(SEQEVAL), abs=1e-12)


@pytest.mark.parametrize("constrained", [False, True])
def test_all_texts_score_as_a_run_does(constrained):
    counts, true, logits = drawn(2)
    targets = np.full((TEXTS, 8), -1, np.int16)
    targets[np.arange(8) < counts[:, None]] = true
    names, once = TOKEN_LABELS.metrics_of(LABELS), np.ones((1, TEXTS))
    expected = TOKEN_LABELS.score(names, logits, targets, {}, LABELS, constrained)
    samples = text_samples(names, logits, true, WordsOfTexts(counts, constrained), LABELS)
    assert {name: sample(once)[0] for name, sample in samples.items()} == pytest.approx(expected, abs=1e-12)


def test_without_spans_all_is_0():
    outside = LABELS.index("O")
    logits = np.eye(5, dtype=np.float32)[[outside] * 3]
    samples = text_samples(ENTITY_METRICS, logits, np.full(3, outside), WordsOfTexts(np.array([1, 0, 2]), False), LABELS)
    assert [sample(np.ones((2, 3))).tolist() for sample in samples.values()] == [[0, 0]] * 3


def _written_spans(row, of_type):
    """First word, number of words and type of each span, found by an expression in the written tags."""
    text = " ".join(row)
    found = re.finditer(r"[BI]-(\S+)(?: I-\1(?!\S))*", text)
    return {(text[: each.start()].count(" "), each[0].count(" "), each[1]) for each in found if of_type in (None, each[1])}


def _own_counts(counts, true, logits, name):
    """Of each text what its score is made of: right, predicted and true spans, or words that are right, and 0, and all."""
    if name == "word_accuracy":
        hits = np.split(logits.argmax(axis=1) == true, np.cumsum(counts)[:-1])
        return np.array([(2 * part.sum(), len(part), len(part)) for part in hits])
    of_type = name.partition("/")[2] or None
    sides = [[_written_spans(row, of_type) for row in tags(counts, numbers)] for numbers in (logits.argmax(axis=1), true)]
    return np.array([(2 * len(own & other), len(own), len(other)) for own, other in zip(*sides, strict=True)])


@pytest.mark.parametrize("name", ["entity_f1", f"entity_f1/{LABELS[-1][2:]}", "word_accuracy"])
def test_p_and_interval_are_those_of_a_bootstrap_over_texts(name):
    counts, true, first = drawn(2, 1.6)
    second = drawn(6, 1.6 if name == "word_accuracy" else 1.3)[2]
    sides = [_own_counts(counts, true, logits, name) for logits in (first, second)]
    generator, values = np.random.default_rng(11), []
    for _ in range(5000):
        rows = generator.integers(TEXTS, size=TEXTS)
        twice, *both = np.moveaxis([side[rows].sum(axis=0) for side in sides], 1, 0)
        values.append(np.subtract(*(twice / sum(both))))
    p = 2 * min(np.mean(np.less_equal(values, 0)), np.mean(np.greater_equal(values, 0)))
    texts = WordsOfTexts(counts, False)
    samples = {name: [[text_samples([name], each, true, texts, LABELS)[name]] for each in (first, second)]}
    found = difference(*drawn_values(samples, TEXTS)[name])
    assert 0.02 < p < 0.7 and found.p == pytest.approx(p, abs=0.05)
    assert (found.low, found.high) == pytest.approx(tuple(np.quantile(values, (0.025, 0.975))), abs=0.15 * np.std(values))


def test_words_that_hang_together_are_not_several_pieces_of_evidence():
    """Two models that are equally good, and right or wrong in whole texts: over texts chance is called a difference as often as
    it may be, over words nearly always."""
    generator, rounds, called = np.random.default_rng(0), 60, {"texts": 0, "words": 0}
    for _ in range(rounds):
        counts = generator.integers(5, 30, 40)
        true = generator.integers(0, 5, counts.sum())
        rights = [np.repeat(generator.random(40) < 0.7, counts) for _ in range(2)]
        sides = [np.eye(5)[np.where(right, true, (true + 1) % 5)] for right in rights]
        texts = WordsOfTexts(counts, False)
        samples = [[text_samples(["word_accuracy"], logits, true, texts, LABELS)["word_accuracy"]] for logits in sides]
        called["texts"] += difference(*drawn_values({"": samples}, 40)[""]).p < 0.05
        called["words"] += mcnemar(*rights) < 0.05
    assert called["texts"] / rounds < 0.13  # 0.05, and what 60 rounds may be off
    assert called["words"] / rounds > 0.5


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


def test_entities_and_words_are_tested_over_texts(run, said):
    shorter = ("stages.0.train.steps=9",)
    a, b = [run(f"a{seed}", seed, 2.5) for seed in (2, 3)], [run(f"b{seed}", seed, 0.5, overrides=shorter) for seed in (4, 5)]
    code, printed, errors = said("compare", *a, *b, "--json")
    assert code == 0, errors
    found = json.loads(printed)
    assert found["dev"]["texts"] == TEXTS and found["dev"]["examples"] > TEXTS
    tests = {pair["metric"]: pair["test"] for pair in found["pairs"]}
    assert tests == dict.fromkeys((*ENTITY_METRICS, "word_accuracy"), "paired bootstrap of texts")
    for pair in found["pairs"]:
        first, second = (group["metrics"][pair["metric"]]["mean"] for group in found["groups"])
        assert pair["difference"] == pytest.approx(first - second, abs=1e-12)
    assert not found["notes"]
    singles = {pair["metric"]: pair for pair in json.loads(said("compare", a[0], b[0], "--json")[1])["pairs"]}
    assert singles["entity_f1"]["better"] == "A" and singles["entity_f1"]["p"] < 0.01
    assert singles["word_accuracy"]["test"] == "paired bootstrap of texts" and "only_a_right" not in singles["word_accuracy"]


def test_texts_and_words_of_dev_are_told(run, said, tmp_path):
    path, told = run("a", 2), f"dev of {TEXTS} texts with {drawn(2)[0].sum()} words"
    assert f"names, {told}\n" in said("compare", path, "--report", tmp_path / "page.html")[1]
    assert f"<span>{told}</span>" in (tmp_path / "page.html").read_text(encoding="utf-8")


def test_one_type_is_tested_where_it_is_named(run, said):
    types = sorted({label[2:] for label in LABELS} - {""})
    name = f"entity_f1/{types[0]}"
    a, b = run("a", 2, 2.5), run("b", 4, 0.5, overrides=("stages.0.train.steps=9",))
    found = json.loads(said("compare", a, b, "--metric", name, "--metric", "word_accuracy", "--json")[1])
    assert found["metrics"] == [name, "word_accuracy"] == [pair["metric"] for pair in found["pairs"]]
    logits, counts = [drawn(2, 2.5)[2], drawn(4, 0.5)[2]], drawn(2)[0]
    sums = [_own_counts(counts, drawn(2)[1], each, name).sum(axis=0) for each in logits]
    expected = [twice / (predicted + true) for twice, predicted, true in sums]
    assert [one["metrics"][name] for one in found["runs"]] == pytest.approx(expected, abs=1e-12)
    assert found["pairs"][0]["difference"] == pytest.approx(expected[0] - expected[1], abs=1e-12)
    assert found["pairs"][0]["better"] == "A" and not any("not tested" in note for note in found["notes"])
    code, _, errors = said("compare", a, b, "--metric", "entity_f1/XYZ")
    assert code == 2 and f"--metric entity_f1/XYZ: the task has no 'XYZ'; entity_f1/ is there of {', '.join(types)}" in errors
    code, _, errors = said("compare", a, b, "--metric", name.lower())
    assert code == 2 and f"the task has no '{types[0].lower()}'; did you mean '{types[0]}'?" in errors
    code, _, errors = said("compare", a, b, "--metric", "f1")
    assert code == 2 and f"word_accuracy, and of one class or type as entity_f1/{types[0]}" in errors


def test_types_that_runs_were_scored_on_are_shown_and_not_tested(run, said):
    a, b = run("a", 2), run("b", 4, overrides=("stages.0.train.steps=9",))
    for folder in (a, b):
        result = json.loads((folder / "result.json").read_text())
        result["student"]["metrics"]["entity_f1/PER"] = 0.5
        (folder / "result.json").write_text(json.dumps(result))
    found = json.loads(said("compare", a, b, "--json")[1])
    assert "entity_f1/PER" in found["metrics"] and "entity_f1/PER" not in {pair["metric"] for pair in found["pairs"]}
    assert "entity_f1/PER: scores of one class or type: shown, and tested only where --metric names one" in found["notes"]


def test_the_table_of_methods_says_over_what_a_gain_was_tested(run, said, monkeypatch):
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    from methods_table import methods_table

    paths = [run("teacher", 1, 4.0, overrides=("stages.0.train.steps=9",))]
    paths += [run(f"ner-3l-{seed}", seed, 2.5) for seed in (2, 3)]
    paths += [run(f"ner-alone-3l-{seed}", seed, 0.5, overrides=("stages.0.train.steps=8",)) for seed in (4, 5)]
    text = methods_table(json.loads(said("compare", *paths, "--json")[1]) | {"metrics": ["entity_f1"]}, None)
    assert re.search(r"\| \*{0,2}\+[\d.]+ \(p [\d.]+\)", text) and f"over the {TEXTS} texts of dev and the seeds" in text


def test_a_run_that_kept_no_texts_is_not_tested(run, said):
    shorter = ("stages.0.train.steps=9",)
    new, old = run("new", 2), run("old", 3, 0.5, texts=None, overrides=shorter)
    code, printed, errors = said("compare", new, old, "--json")
    assert code == 0, errors
    found = json.loads(printed)
    assert not found["pairs"]
    (note,) = (note for note in found["notes"] if "labels of words are not tested" in note)
    assert note.startswith(f"{old}: kept its answers without where a text ends")


def test_texts_that_do_not_fit_are_refused(run):
    folder = run("a", 2)
    result = json.loads((folder / "result.json").read_text())
    assert result["dev"]["constrained"] is False
    result["dev"]["constrained"] = "no"
    with pytest.raises(RunFolderError, match="does not fit predictions.safetensors: got .* words of texts, constrained 'no'"):
        read_predictions(folder, result)
