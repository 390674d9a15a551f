"""More training texts of a task whose words have labels: others with labels, texts and words without, which only a teacher
teaches; what each word counts; and what is refused."""

from __future__ import annotations

import json

import numpy as np
import pytest

from crossdistil.core.data.mixing import mixed
from crossdistil.core.data.tasks import read_split, read_split_texts, resolve_task
from crossdistil.core.errors import DataError, RecipeError
from crossdistil.core.job import prepare
from crossdistil.core.recipe import parse_recipe
from crossdistil.core.task_section import AuxSection, TaskSection
from crossdistil.tests.kind_recipes import write_kind
from crossdistil.tests.tagged_files import LABELS, columns, sentences, write_names

TEXTS = ["the good film, bad plot.", "fine story"]
WORDS = [7, 2]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Tagged words, and texts and words without labels beside them."""
    root = tmp_path_factory.mktemp("mixed")
    write_names(root / "data", 20, 8)
    for name, rows in (("more", sentences(6, 7)), ("other", [[("good", "B-ORG"), ("film", "O")]])):
        (root / name).mkdir()
        (root / name / "train.conll").write_text(columns(rows))
    (root / "lines.txt").write_text("\n\n".join(TEXTS) + "\n")
    (root / "table").mkdir()
    (root / "table" / "train.jsonl").write_text("".join(json.dumps({"review": text}) + "\n" for text in TEXTS))
    (root / "words.conll").write_text("U.S.\ngood\n\nbad\n")
    (root / "tagged.conll").write_text("good B-PER\n")
    return root


def added(folder, data, **more):
    """Task, its training examples, and the same with those of another section."""
    spec = resolve_task(TaskSection(name="names", kind="tokens", data=folder / "data"))
    train = read_split(spec, folder / "data", "train")
    return spec, train, mixed(train, spec, AuxSection(name="more", data=folder / data, **more), "aux_data[0]")


def test_words_with_the_same_labels_are_the_task_s(folder):
    spec, train, found = added(folder, "more", kind="tokens", weight=0.5)
    rows = sentences(6, 7)
    assert list(found.texts[20:]) == [" ".join(word for word, _ in row) for row in rows] and found.mixed == 6
    said = [[spec.labels[label] for label in own if label >= 0] for own in found.labels[20:]]
    assert said == [[tag for _, tag in row] for row in rows] and found.word_counts is None
    assert found.weights.tolist() == [1] * 20 + [0.5] * 6
    np.testing.assert_array_equal(found.labels[:20, : train.labels.shape[1]], train.labels)


def test_other_labels_are_not_taken_and_that_is_told(folder):
    _, train, found = added(folder, "other", kind="tokens")
    assert (found.labels[20:] == -1).all() and found.word_counts[20].tolist()[:3] == [1, 1, 0]
    np.testing.assert_array_equal(found.word_counts[:20], found.labels[:20] >= 0)
    assert found.notes[-1] == (
        "aux_data[0]: its labels ('O', 'B-ORG', 'I-ORG') are not the task's, so that only terms that need none learn from its "
        "texts; "
        "aux_data[0].labels names those that it could have, where it has some of them only"
    )
    some = columns([[("good", "B-PER"), ("film", "O")]])
    (folder / "some").mkdir(exist_ok=True)
    (folder / "some" / "train.conll").write_text(some)
    assert (added(folder, "some", kind="tokens")[2].labels[20:] == -1).all()
    named = added(folder, "some", kind="tokens", labels=list(LABELS[::-1]))[2]
    assert named.labels[20].tolist()[:3] == [3, 0, -1] and named.word_counts is None


@pytest.mark.parametrize(
    ("data", "more"), [("lines.txt", {}), ("table", {"text": "review"}), ("table/train.jsonl", {"text": "review"})]
)
def test_texts_without_labels_have_words_that_count(folder, data, more):
    _, _, found = added(folder, data, **more)
    assert list(found.texts[20:]) == TEXTS and found.by_spaces.tolist() == [True] * 20 + [False] * 2
    assert (found.labels[20:] == -1).all() and found.word_counts[20:].sum(axis=1).tolist() == WORDS


def test_words_without_labels(folder):
    _, _, found = added(folder, "words.conll")
    assert list(found.texts[20:]) == ["U.S. good", "bad"] and found.by_spaces.all()
    assert found.line_numbers[20:].tolist() == [1, 4] and found.word_counts[20:].sum(axis=1).tolist() == [2, 1]


@pytest.mark.parametrize(
    ("data", "more", "message"),
    [
        ("more", {}, "aux_data[0].kind: tokens is for words with labels; texts without name a column of them, `text`, or are"),
        ("table", {"kind": "classification"}, "aux_data[0].kind: got classification, but the words of the task have labels"),
        ("more", {"kind": "tokens", "tokens": {"pieces": "all"}}, "aux_data[0].tokens.pieces: is one for all texts, and that"),
        ("more", {"kind": "tokens", "text": "x", "columns": ["a", "b", "c"]}, "aux_data[0].columns: has no 'x', expected it"),
        ("tagged.conll", {}, "tagged.conll has 2 columns; words with labels are read from a folder, with aux_data[0].kind"),
        ("gone.txt", {}, "gone.txt: no such file or folder"),
    ],
)
def test_what_cannot_be_mixed_is_refused(folder, data, more, message):
    with pytest.raises(DataError) as caught:
        added(folder, data, **more)
    assert message in str(caught.value)


def test_what_is_summed_and_what_it_is_divided_by(folder, tmp_path):
    """Of batches of a distillation: kd_ce is over all words, hard_label over those with labels; a text of weight 0.5 counts so,
    in each of its windows."""
    tree = json.loads(write_kind(tmp_path, "ner").read_text())
    tree["aux_data"] = [{"name": "lines", "data": str(folder / "lines.txt"), "weight": 0.5}]
    tree["task"]["max_length"] = 8
    tree["stages"][0]["train"] = {"epochs": 1, "batch_size": 400, "learning_rate": 1e-3}
    job = prepare(parse_recipe(tree, "test"), "test", 1)
    stage, table = job.stage(0), job.data.tokens["train"]
    assert len(table.lengths) > len(job.data.examples["train"])  # windows
    [[batch]] = [stage.objective.prepare(step) for step in stage.batches.epoch(0)]
    labelled = float((job.data.examples["train"].labels >= 0).sum())
    assert batch["denominators"].tolist()[:2] == [labelled + 0.5 * sum(WORDS), labelled]
    assert (batch["word_mask"] >= batch["label_mask"]).all() and batch["word_mask"].sum() == labelled + sum(WORDS)


def test_texts_that_nothing_learns_from_are_refused(folder, tmp_path):
    tree = json.loads(write_kind(tmp_path, "ner").read_text())
    tree["aux_data"] = [{"name": "lines", "data": str(folder / "lines.txt")}]
    tree["stages"][0]["objective"] = [{"loss": "hard_label"}]
    with pytest.raises(RecipeError, match=r"aux_data\[0\]: names no label, and every term needs labels"):
        prepare(parse_recipe(tree, "test"), "test", 1)


def test_words_alone_are_texts_where_no_label_is_needed(tmp_path):
    (tmp_path / "dev.conll").write_text("U.S.\ngood\n\nbad\n")
    spec = resolve_task(TaskSection(name="names", kind="tokens", data=tmp_path, labels=list(LABELS)))
    found = read_split_texts(spec, tmp_path, "dev")
    assert list(found.texts) == ["U.S. good", "bad"] and found.labels is None and found.by_spaces.all()
    with pytest.raises(DataError, match="dev.conll:1: got 1 column .*, expected two columns or more: a word, and last its label"):
        read_split(spec, tmp_path, "dev")
