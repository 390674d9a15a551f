"""The demo's task has labels that a rule decides and a bag of words does not; its model is found, not imported."""

from __future__ import annotations

import importlib.machinery
import importlib.util
import re
import sys

import numpy as np
import pytest
from sklearn.feature_extraction.text import CountVectorizer
from sklearn.linear_model import LogisticRegression

from crossdistil.core.app import demo_data
from crossdistil.core.errors import CrossdistilError

NEGATIVE, POSITIVE = demo_data.NEGATIVE, demo_data.POSITIVE


def read(path):
    header, *lines = path.read_text(encoding="utf-8").splitlines()
    assert header == "sentence\tlabel"
    sentences, labels = zip(*(line.split("\t") for line in lines), strict=True)
    return list(sentences), np.array(labels, dtype=int)


@pytest.fixture(scope="module")
def task(tmp_path_factory):
    folder = tmp_path_factory.mktemp("task")
    demo_data.write_demo_task(folder, seed=3, train=2000, dev=600)
    return read(folder / "train.tsv"), read(folder / "dev.tsv")


@pytest.mark.parametrize("sentence, label", [
    ("the acting is superb .", POSITIVE),
    ("the plot is utterly dull .", NEGATIVE),
    ("the plot is not bad at all .", POSITIVE),
    ("the plot is not at all good .", NEGATIVE),
    ("the battery is far from reliable .", NEGATIVE),
    ("the script is anything but dull .", POSITIVE),
    ("the cast is neither weak nor boring .", POSITIVE),
    ("the plot is dull but the acting saves it .", POSITIVE),
    ("the plot is great , but the acting ruins it .", NEGATIVE),
    ("the plot is not dull but the ending is never moving .", NEGATIVE),
    ("the camera is superb and yet the screen is by no means good .", NEGATIVE),
    ("the plot is anything but dull but the ending is awful .", NEGATIVE),
    ("the ending is awful but the plot is anything but dull .", POSITIVE),
    ("although the plot is dull , the acting is brilliant .", POSITIVE),
    ("the acting is brilliant , although the plot is dull .", POSITIVE),
    ("even though the design is not clumsy , the finish is hardly solid .", NEGATIVE),
    ("to be fair , while the screen is lovely , the keyboard is useless .", NEGATIVE),
    ("despite the dull plot , i never regretted this film .", POSITIVE),
    ("despite the superb speaker , i disliked this phone .", NEGATIVE),
])
def test_rule_on_sentences_labelled_by_hand(sentence, label):
    assert demo_data.sentiment(sentence) == label


@pytest.mark.parametrize("sentence", ["the plot is long .", "the plot is dull and superb ."])
def test_rule_refuses_what_it_cannot_decide(sentence):
    with pytest.raises(CrossdistilError, match="one polarity"):
        demo_data.sentiment(sentence)


def test_generated_labels_are_what_the_rule_reads(task):
    for sentences, labels in task:
        assert [demo_data.sentiment(sentence) for sentence in sentences] == labels.tolist()


def test_same_seed_same_files_other_seed_other_files(tmp_path):
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        demo_data.write_demo_task(tmp_path / name, seed=seed, train=50, dev=20)
    for split in ("train.tsv", "dev.tsv"):
        a, b, c = ((tmp_path / name / split).read_bytes() for name in "abc")
        assert a == b != c


def test_balanced_and_nothing_twice(task):
    (train, train_labels), (dev, dev_labels) = task
    assert train_labels.mean() == dev_labels.mean() == 0.5
    assert len({*train, *dev}) == len(train) + len(dev) == 2600


def pairs(sentence):
    aspects = "|".join(aspect for domain in demo_data.DOMAINS for aspect in domain.aspects)
    for aspect, predicate in re.findall(rf"the ({aspects}) is ((?:(?!the ).)*)", sentence):
        yield from ((aspect, word) for word in predicate.split())
    for word, aspect in re.findall(rf"despite the (\w+) ({aspects}) ,", sentence):
        yield aspect, word


def test_dev_uses_pairs_that_train_never_does(task):
    held_out = demo_data.held_out_pairs(np.random.default_rng(3))
    (train, _), (dev, _) = task
    assert not any(held_out & set(pairs(sentence)) for sentence in train)
    assert np.mean([bool(held_out & set(pairs(sentence))) for sentence in dev]) > 0.2


@pytest.mark.parametrize("words, limit", [((1, 1), 0.75), ((1, 2), 0.85)])
def test_counting_words_is_not_enough(task, words, limit):
    (train, train_labels), (dev, dev_labels) = task
    counter = CountVectorizer(ngram_range=words)
    model = LogisticRegression(max_iter=2000).fit(counter.fit_transform(train), train_labels)
    assert 0.5 < model.score(counter.transform(dev), dev_labels) < limit


def test_too_small_a_task_is_refused(tmp_path):
    with pytest.raises(CrossdistilError, match="at least 2 sentences.*train=1"):
        demo_data.write_demo_task(tmp_path, seed=0, train=1, dev=10)


def test_minilm_is_found_without_importing_its_package():
    folder = demo_data.find_minilm()
    assert (folder / "model.safetensors").is_file()
    assert demo_data.MODEL_MODULE not in sys.modules


@pytest.mark.parametrize("installed, message", [(False, "not installed.*pip install"), (True, "vocab.txt missing")])
def test_missing_minilm_names_the_command(monkeypatch, tmp_path, installed, message):
    spec = importlib.machinery.ModuleSpec(demo_data.MODEL_MODULE, None, origin=str(tmp_path / "__init__.py"))
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: spec if installed else None)
    with pytest.raises(CrossdistilError, match=message):
        demo_data.find_minilm()
