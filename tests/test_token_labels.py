"""Words with labels: files, windows, scores, and the losses at labelled tokens."""

from __future__ import annotations

import json

import numpy as np
import pytest

from crossdistil.core.app.given_texts import read_texts
from crossdistil.core.data.tag_schemes import spans_of
from crossdistil.core.data.tagged_files import word_places
from crossdistil.core.data.tagged_tokens import tagged_table
from crossdistil.core.data.tasks import read_split, resolve_task
from crossdistil.core.data.tokenize import load_tokenizer
from crossdistil.core.errors import DataError
from crossdistil.core.kinds.known_kinds import TOKEN_LABELS
from crossdistil.core.kinds.token_labels import decoded
from crossdistil.core.losses.base import TermContext
from crossdistil.core.losses.catalogue import LOSSES
from crossdistil.core.reference import ReferenceOps
from crossdistil.core.task_section import TaskSection
from crossdistil.tests import tiny
from crossdistil.tests.tagged_files import LABELS, sentences, write_names

SEQEVAL = {
    "entity_f1": 0.6666666666666666,
    "entity_precision": 0.6428571428571429,
    "entity_recall": 0.6923076923076923,
    "word_accuracy": 0.6653696498054474,
    "entity_f1/LOC": 0.6867469879518071,
    "entity_f1/PER": 0.6455696202531646,
}
"""What seqeval 1.2.2 computed from the tags that the next test draws. It is no dependency: it is only there as a source package,
whose requirements for building are not always to be had."""


def test_scores_are_seqevals():
    drawn = np.random.default_rng(3)
    lengths = drawn.integers(1, 9, 60)
    targets = np.full((60, 8), -1, np.int16)
    logits = drawn.normal(0, 1, (int(lengths.sum()), 5))
    ends = np.cumsum(lengths)
    for row, length in enumerate(lengths):
        tags, before = [], "O"
        for _ in range(length):
            legal = [tag for tag in LABELS if tag[0] != "I" or before[1:] == tag[1:]]
            before = legal[drawn.integers(len(legal))]
            tags.append(before)
        targets[row, :length] = [LABELS.index(tag) for tag in tags]
        start = ends[row] - length
        logits[start : ends[row]][np.arange(length), targets[row, :length]] += 1.5
    names = TOKEN_LABELS.metrics_of(LABELS)
    found = TOKEN_LABELS.score(names, logits, targets, {}, LABELS)
    assert {name: found[name] for name in SEQEVAL} == pytest.approx(SEQEVAL, abs=1e-12)


def test_constrained_decoding_finds_the_best_legal_sequence():
    import itertools

    drawn = np.random.default_rng(0)
    for _ in range(20):
        logits = drawn.normal(0, 2, (4, 5))
        shares = logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))
        legal = [
            way
            for way in itertools.product(range(5), repeat=4)
            if all(LABELS[b][0] != "I" or (a is not None and LABELS[a][1:] == LABELS[b][1:]) for a, b in zip((None, *way), way))
        ]
        best = max(legal, key=lambda way: sum(shares[place, label] for place, label in enumerate(way)))
        assert decoded(logits, LABELS, True).tolist() == list(best)


WRONG = {
    "no scheme": ("train.conll", "a O\nb NN\n", r"train.conll:2: got tag 'NN', expected O, or B- or I- .*scheme: plain"),
    "unequal columns": ("train.conll", "a x O\nb O\n", r"train.conll:2: got 2 columns \('b O'\), expected 3 columns"),
    "one column": ("train.conll", "a\nb\n", r"train.conll:1: got 1 column \('a'\), expected two columns or more"),
    "goes on": ("train.conll", "a O\nb B-X\n\nc B-X\nd I-Y\n", r"train.conll:5: got tag 'I-Y' behind 'B-X', expected 'B-Y'"),
    "no words": ("train.conll", "\n\n", r"train.conll: holds no words with labels"),
    "outside": (
        "train.jsonl",
        '{"text": "ab cd", "spans": [{"start": 3, "end": 9, "label": "X"}]}\n',
        r"train.jsonl:1: spans: got start 3 and end 9, expected 0 <= start < end <= 5",
    ),
    "no span": ("train.jsonl", '{"text": "ab", "spans": [{"start": 0}]}\n', r'train.jsonl:1: spans: got .*, expected {"start"'),
    "no list": ("train.jsonl", '{"text": "ab", "spans": 3}\n', r"train.jsonl:1: 'spans' is 3, expected a list of spans"),
    "overlap": (
        "train.jsonl",
        '{"text": "ab cd", "spans": [[0, 2, "X"], [0, 5, "Y"]]}\n',
        r"train.jsonl:1: spans: the spans \(0, 2\) and \(0, 5\) overlap",
    ),
    "no column": ("train.jsonl", '{"text": "ab"}\n', r"train.jsonl: has no column of spans, expected 'spans'"),
    "one label": ("train.conll", "a O\nb O\n", r"train.conll: every word has the label 'O'"),
}


@pytest.mark.parametrize("name", WRONG)
def test_wrong_data_names_file_and_line(name, tmp_path):
    file, content, message = WRONG[name]
    (tmp_path / file).write_text(content)
    with pytest.raises(DataError, match=message):
        read_split(resolve_task(TaskSection(name="mine", kind="tokens", data=tmp_path)), tmp_path, "train")


def test_a_label_that_train_lacks_names_its_line(tmp_path):
    (tmp_path / "train.conll").write_text("a O\nb B-X\n")
    (tmp_path / "dev.conll").write_text("a O\n\nb B-Y\n")
    spec = resolve_task(TaskSection(name="mine", kind="tokens", data=tmp_path))
    with pytest.raises(DataError, match=r"dev.conll:3: got label 'B-Y', expected one of 'O', 'B-X', 'I-X'"):
        read_split(spec, tmp_path, "dev")


def test_spans_and_columns_are_the_same_words(tmp_path):
    rows = sentences(20, 4)
    write_names(tmp_path / "a")
    (tmp_path / "b").mkdir()
    for split in ("train", "dev"):
        lines = []
        for block in (tmp_path / "a" / f"{split}.conll").read_text().strip().split("\n\n"):
            words, _, tags = zip(*(line.split() for line in block.splitlines()))
            text, starts = " ".join(words), np.cumsum([0, *(len(word) + 1 for word in words)])
            spans = [[int(starts[span.first]), int(starts[span.end]) - 1, span.type] for span in spans_of(tags)]
            lines.append(json.dumps({"text": text, "spans": spans}))
        (tmp_path / "b" / f"{split}.jsonl").write_text("\n".join(lines) + "\n")
    found = [
        read_split(resolve_task(TaskSection(name="mine", kind="tokens", data=tmp_path / each)), tmp_path / each, "dev")
        for each in "ab"
    ]
    assert list(found[0].texts) == list(found[1].texts) and len(rows) == 20
    np.testing.assert_array_equal(found[0].labels, found[1].labels)


def test_chinese_characters_and_punctuation_are_words():
    text = "张三在 Oslo-2, U.S."
    assert [text[a:b] for a, b in word_places(text, False)] == ["张", "三", "在", "Oslo", "-", "2", ",", "U", ".", "S", "."]


@pytest.mark.parametrize("overlap", [0, 3, 100])
def test_each_word_of_a_long_text_is_labelled_once(tiny_model, overlap):
    tokenizer = load_tokenizer(tiny_model)
    texts = [" ".join(["good", "film", "xyz"] * 9), "bad"]
    targets = np.full((2, 27), -1, np.int16)
    targets[0], targets[1, 0] = np.arange(27) % 5, 1
    for all_pieces in (False, True):
        table = tagged_table(texts, True, targets, tokenizer, 12, overlap, all_pieces)
        assert np.diff(table.offsets).max() <= 12 and len(table.lengths) > 4
        begun = table.words[table.words >= 0]
        assert sorted(begun) == list(range(28))
        first = table.targets[table.words >= 0]
        np.testing.assert_array_equal(first[np.argsort(begun)], [*targets[0], 1])
        assert (table.targets >= 0).sum() == (28 if not all_pieces else 28 + 2 * 9)  # xyz is three pieces


def test_losses_count_labelled_tokens_and_no_others():
    drawn = np.random.default_rng(5)
    shape = (3, 6, 4)
    student, teacher = drawn.normal(0, 1, shape), drawn.normal(0, 1, shape)
    mask = (drawn.random(shape[:2]) < 0.5).astype(np.float32)
    batch = {
        "labels": drawn.integers(0, 4, shape[:2]).astype(np.int32), "label_mask": mask,
        "example_mask": np.array([1, 1, 0], np.float32), "attention_mask": np.ones(shape[:2], np.float32),
    }  # fmt: skip
    context = TermContext(4, TOKEN_LABELS, tiny.CONFIG, {"teacher": tiny.CONFIG})
    real = (mask * batch["example_mask"][:, None]) > 0

    def log_softmax(x):
        return x - np.log(np.exp(x).sum(axis=-1, keepdims=True))

    hard = -np.take_along_axis(log_softmax(student), batch["labels"][..., None], 2)[..., 0][real].mean()
    soft = -(np.exp(log_softmax(teacher / 3)) * log_softmax(student / 3)).sum(axis=-1)[real].mean() * 9
    for options, expected in (({"loss": "hard_label"}, hard), ({"loss": "kd_ce", "temperature": 3}, soft)):
        term = LOSSES[options["loss"]](**options)
        value = term.bound(context, "t")(ReferenceOps(), {}, {"logits": student}, {"logits": teacher}, batch)
        assert float(value) / term.units(context, batch) == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("split", ["train", "dev"])
def test_a_folder_in_place_of_a_file_is_told(split, tmp_path):
    path = write_names(tmp_path) / f"{split}.conll"
    path.unlink()
    path.mkdir()
    with pytest.raises(DataError, match=f"{split}.conll: is a folder, expected a file"):
        read_split(resolve_task(TaskSection(name="mine", kind="tokens", data=tmp_path)), tmp_path, split)


def test_a_folder_in_place_of_a_table_is_told(tmp_path):
    (tmp_path / "train.tsv").mkdir()
    with pytest.raises(DataError, match="train.tsv: is a folder, expected a file"):
        resolve_task(TaskSection(name="mine", data=tmp_path, text="text", label="label"))


@pytest.mark.parametrize("end", [".conll", ".bio", ".iob"])
def test_predict_reads_columns_as_evaluate_does(end, tmp_path):
    path, task = tmp_path / f"x{end}", {"columns": None}
    path.write_text("-DOCSTART- O\n\nU.S. B-LOC\nis O\n\n\nbad O\n")
    given = read_texts(path, task, kind=TOKEN_LABELS)
    assert list(given.texts) == ["U.S. is", "bad"] and given.by_spaces
    path.write_text("U.S.\nis\n")
    assert list(read_texts(path, task, kind=TOKEN_LABELS).texts) == ["U.S. is"]
    path.write_text("a\nb O\n")
    with pytest.raises(DataError, match=rf"x{end}:2: got 2 columns \('b O'\), expected 1 column"):
        read_texts(path, task, kind=TOKEN_LABELS)
    path.write_text("1 a O\n")
    assert list(read_texts(path, {"columns": ["n", "w", "t"], "text": "w"}, kind=TOKEN_LABELS).texts) == ["a"]
