"""A file of answers joined to the rows of a task as the recipe says, and what could be a wrong join refused."""

from __future__ import annotations

import json

import numpy as np
import pytest
from scipy.special import softmax

from crossdistil.core.errors import CrossdistilError, DataError
from crossdistil.core.job import check_rows
from crossdistil.core.plan import plan
from crossdistil.core.recipe import parse_recipe
from crossdistil.tests import tiny
from crossdistil.tests.labelled_records import THREE, floored

TEXTS = ["a fine film", "a dull  film", "so it goes", "well done"]


DEV = "text\tlabel\na fine film\tpositive\nnew\tneutral\n"


def joined(folder, answers, train=TEXTS, header="text", dev=DEV, hard=0.0, aux=(), **file):
    """The examples of a task of three classes whose train has no labels, and the file's answers to them."""
    folder.mkdir(exist_ok=True)
    (folder / "train.tsv").write_text("".join(f"{row}\n" for row in [header, *train]), encoding="utf-8")
    (folder / "dev.tsv").write_text(dev, encoding="utf-8")
    (folder / "labelled.jsonl").write_text("".join(json.dumps(row) + "\n" for row in answers), encoding="utf-8")
    tiny.write_model(folder / "model")
    tree = tiny.kd_recipe(folder, folder / "model")
    tree["task"] = {"name": "own", "data": str(folder), "text": "text", "label": "label", "max_length": 16}
    tree["task"]["labels"] = list(THREE.labels)
    tree["teacher"] = {"file": {"path": str(folder / "labelled.jsonl"), **file}}
    tree["student"] = {"init": {"from": str(folder / "model")}}
    tree["stages"][0]["objective"] = [{"loss": "kd_ce"}, {"loss": "hard_label", "weight": hard}]
    tree["aux_data"] = list(aux)
    examples, errors = check_rows(plan(parse_recipe(tree, "test"), "test"))
    errors.throw()
    return examples


ALL = [{"text": "a fine film", "label": "positive"}, {"text": "a dull film", "votes": ["negative", "neutral", "negative"]}]
ALL += [
    {"text": "so it goes", "label": None},
    {"text": "well done", "label": "positive"},
    {"text": "elsewhere", "label": "neutral"},
]


def test_texts_alone_learn_from_the_file(tmp_path):
    examples = joined(tmp_path, ALL, unanswered="leave_out", as_labels="where_missing", weigh_by="agreement")
    train, taught = examples["train"], examples["train"].taught["teacher"]
    assert list(train.texts) == ["a fine film", "a dull  film", "well done"] and train.line_numbers.tolist() == [2, 3, 5]
    assert train.labels.tolist() == [2, 0, 2] and train.label_mask is None and not taught.gold.any()
    np.testing.assert_allclose(train.weights, [1, 2 / 3, 1])
    np.testing.assert_allclose(softmax(taught.logits, axis=1)[1], floored([2 / 3, 1 / 3, 0]), rtol=1e-6)
    filled = taught.batch(np.array([1, -1]), 16)["logits"]
    np.testing.assert_array_equal(filled, [taught.logits[1], [0, 0, 0]])
    dev = examples["dev"].taught["teacher"]
    assert dev.answered.tolist() == [True, False] and dev.gold.all() and examples["dev"].labels.tolist() == [2, 1]
    told = "\n".join(taught.told)
    for line in (
        "labelled.jsonl: 5 rows, 5 texts; 1 without an answer (an abstention: 1); 1 texts that the task does not have",
        "train: 3 of 4 texts have an answer in the file, to 1 it has none; 2 answers are a label alone",
        "train: the texts without an answer are left out: line 4",
        "train: 3 of 3 labels are the file's answers",
        "dev: 1 of 2 texts have an answer in the file",
        "train: texts count 0.667 to 1, 0.889 on average, by agreement",
    ):
        assert line in told, told


def test_without_labels_nothing_pretends_to_be_one(tmp_path):
    examples = joined(tmp_path, [row for row in ALL if row["label" if "label" in row else "votes"]], train=TEXTS[:2] + TEXTS[3:])
    assert not examples["train"].label_mask.any()


def test_rows_are_found_by_id(tmp_path):
    answers = [
        {"custom_id": f"t{row}", "label": label} for row, label in enumerate(["positive", "negative", "neutral", "positive"])
    ]
    rows = [f"t{row}\t{text}" for row, text in enumerate(TEXTS)]
    own = {"header": "number\ttext", "id": "number"}
    with pytest.raises(DataError, match="dev.tsv: no column 'number'"):
        joined(tmp_path / "without", answers, rows, **own)
    own["dev"] = "number\ttext\tlabel\nd1\tnew\tneutral\n"
    examples = joined(tmp_path / "with", answers, rows, **own)
    assert examples["train"].taught["teacher"].logits.argmax(axis=1).tolist() == [2, 0, 1, 2]
    with pytest.raises(DataError, match=r"train.tsv:6: the id 't0' in 'number' is that of line 2 too"):
        joined(tmp_path / "twice", answers, [*rows, "t0\tonce more"], **own)


def test_a_dev_without_labels_is_scored_by_the_file(tmp_path):
    answers = [row for row in ALL if row["text"] != "so it goes"]
    with pytest.raises(DataError, match="dev.tsv: has no column 'label', .*teacher.file.as_labels: where_missing"):
        joined(tmp_path / "a", answers, TEXTS[:2], dev="text\na fine film\nnew\n")
    dev = joined(tmp_path / "b", answers, TEXTS[:2], dev="text\na fine film\nnew\n", as_labels="where_missing")["dev"]
    assert list(dev.texts) == ["a fine film"] and dev.labels.tolist() == [2] and not dev.taught["teacher"].gold.any()


def test_a_column_that_may_be_meant_is_not_taken_for_none(tmp_path):
    with pytest.raises(DataError, match="train.tsv: no column 'label'; did you mean 'lable'"):
        joined(tmp_path, ALL, [f"{text}\tpositive" for text in TEXTS], "text\tlable")


NOT_JOINED = {
    "rows without an answer": (
        {},
        ALL,
        r"train.tsv:4: 1 of 4 texts of train have no answer in labelled.jsonl; teacher.file.unanswered: leave_out",
    ),
    "other texts": (
        {},
        [{"text": "x", "label": "neutral"}],
        r"labelled.jsonl:1: the text 'x' is none of train.tsv or dev.tsv, and so is everything else",
    ),
    "nothing left": ({"unanswered": "leave_out"}, [{"text": "new", "label": "neutral"}], "nothing is left to train on"),
    "no votes": (
        {"weigh_by": "agreement"},
        [{"text": text, "label": "neutral"} for text in TEXTS],
        "weigh_by: agreement, but no text of train has votes that differ",
    ),
    "no confidence": (
        {"weigh_by": "confidence"},
        [{"text": text, "label": "neutral"} for text in TEXTS],
        "labelled.jsonl tells no confidence of the text in line 2",
    ),
}


@pytest.mark.parametrize("name", NOT_JOINED)
def test_a_join_that_could_be_wrong_is_refused(tmp_path, name):
    options, answers, message = NOT_JOINED[name]
    with pytest.raises(CrossdistilError, match=message):
        joined(tmp_path, answers, **options)


def test_labels_that_there_are_none_of_are_not_learned(tmp_path):
    answers = [{"text": text, "label": "neutral"} for text in TEXTS]
    with pytest.raises(CrossdistilError, match=r"objective\[1\].loss: hard_label learns labels, of which .* have none"):
        joined(tmp_path, answers, hard=0.5)
    assert joined(tmp_path, answers, hard=0.5, as_labels="where_missing")["train"].labels.tolist() == [1] * 4


NUMBERED = [{"custom_id": str(row), "label": label} for row, label in enumerate(["positive", "negative", "neutral", "positive"])]


def test_rows_are_found_by_their_numbers(tmp_path):
    """Of train's file as it is, whatever is used of it; with the split, another one's."""
    answers = [*NUMBERED, {"custom_id": "dev-0", "label": "neutral"}]
    examples = joined(tmp_path, answers, row_numbers=0)
    assert examples["train"].taught["teacher"].logits.argmax(axis=1).tolist() == [2, 0, 1, 2]
    dev = examples["dev"].taught["teacher"]
    assert dev.answered.tolist() == [True, False] and dev.logits[0].argmax() == 1
    numbered = [{"id": number, "text": text, "label": row["label"]} for number, (row, text) in enumerate(zip(NUMBERED, TEXTS), 1)]
    again = joined(tmp_path, numbered, row_numbers=1)["train"]
    assert again.taught["teacher"].logits.argmax(axis=1).tolist() == [2, 0, 1, 2]


EXPECTED = "expected the number of a row of train, from 0 on, or with its split, as dev-5"


def test_numbers_of_rows_of_aux_data(tmp_path):
    """Of a table whose rows are partly left out, and of lines; as they stand in their files."""
    (tmp_path / "aux.txt").write_text("it is\n\nquite cold\n")
    (tmp_path / "more").mkdir()
    (tmp_path / "more" / "train.tsv").write_text("text\tlabel\nso warm\tx\na plot\tgood\nvery dull\tbad\n")
    labelled = {"name": "more", "data": str(tmp_path / "more"), "text": "text", "label": "label", "skip_labels": ["x"]}
    aux = [{"name": "lines", "data": str(tmp_path / "aux.txt")}, labelled]
    own = [{"id": number, "label": "neutral"} for number in range(4)]
    rows = [("aux_data[0]-0", "positive"), ("aux[0]_1", "negative"), ("aux_data[1] 1", "positive"), ("aux_data[1]-2", "negative")]
    rows = [{"id": name, "label": label} for name, label in rows]
    found = joined(tmp_path, [*own, *rows, {"id": "aux[1]-0", "label": "neutral"}], aux=aux, row_numbers=0)["train"]
    assert list(found.texts)[4:] == ["it is", "quite cold", "a plot", "very dull"] and found.mixed == 4
    assert found.taught["teacher"].logits.argmax(axis=1).tolist() == [1] * 4 + [2, 0, 2, 0]
    alone = [*own, {"id": "aux-0", "label": "positive"}, {"id": "aux_data-1", "text": "quite  cold", "label": "negative"}]
    found = joined(tmp_path, alone, aux=aux[:1], row_numbers=0)["train"]
    assert found.taught["teacher"].logits.argmax(axis=1).tolist() == [1] * 4 + [2, 0]
    for last, sections, told in (
        ({"id": "aux-1"}, aux, f"got the id 'aux-1', {EXPECTED}, or the section of aux_data, as aux_data[1]-5"),
        ({"id": "aux-1"}, (), f"got the id 'aux-1', {EXPECTED}"),
        ({"id": "aux[1]-0"}, aux[:1], "got the id 'aux[1]-0', expected"),
        ({"id": "aux-2"}, aux[:1], "got row 2 of aux_data[0], but aux.txt has the rows 0 to 1, the first of them in line 1"),
        ({"id": "aux-1", "text": "it is"}, aux[:1], "its text 'it is' is not that of its row's number, 'quite cold' (line 3 of"),
    ):  # fmt: skip
        with pytest.raises(CrossdistilError) as caught:
            joined(tmp_path, [*own, {**last, "label": "neutral"}], aux=sections, row_numbers=0, unanswered="leave_out")
        assert f"labelled.jsonl:5: {told}" in str(caught.value)


def _with_texts(first):
    return [{"id": number, "text": text, "label": "neutral"} for number, text in enumerate(TEXTS, first)]


@pytest.mark.parametrize(
    ("answers", "file", "message"),
    [
        (NUMBERED, {}, "teacher.file.id names the column of the task's tables that 'custom_id' is of, or teacher.file.row"),
        (NUMBERED, {"id": "n"}, "where the file's ids are numbers of the task's rows: teacher.file.row_numbers, 0 or 1"),
        (NUMBERED, {"row_numbers": 1}, "labelled.jsonl:1: got the id '0', expected the number of a row of train, from 1 on"),
        ([{"id": "req-7", "label": "neutral"}], {"row_numbers": 0}, "labelled.jsonl:1: got the id 'req-7', expected the"),
        (
            [*NUMBERED, {"id": 4, "label": "neutral"}],
            {"row_numbers": 0},
            "labelled.jsonl:5: got row 4 of train, but train.tsv has the rows 0 to 3, the first of them in line 2",
        ),
        (
            _with_texts(1)[:3],
            {"row_numbers": 0, "unanswered": "leave_out"},
            "labelled.jsonl:1: its text 'a fine film' is not that of its row's number, 'a dull  film' (line 3 of train.tsv); is "
            "teacher.file.row_numbers: 1 meant?",
        ),
        (NUMBERED, {"row_numbers": 0, "id": "n"}, "id and row_numbers are two ways to find rows: give one of them"),
    ],
)
def test_numbers_that_are_no_row_s_are_refused(tmp_path, answers, file, message):
    with pytest.raises(CrossdistilError) as caught:
        joined(tmp_path, answers, **file)
    assert message in str(caught.value)
