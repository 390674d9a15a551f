"""Rows of a file of answers that answer in more than one place: of whole texts, numbers, words and questions alike they say the
same, or are refused with the way to say what is meant."""

from __future__ import annotations

import json
import re

import pytest

from crossdistil.core.errors import DataError
from crossdistil.core.file_section import FileSection
from crossdistil.core.labelled.answer_records import BadRecord, record_of
from crossdistil.core.labelled.class_records import OF_CLASSES
from crossdistil.core.labelled.labelled_file import read_labelled
from crossdistil.core.labelled.question_records import OF_QUESTIONS
from crossdistil.core.labelled.word_records import OF_WORDS
from crossdistil.tests.labelled_records import THREE, chat

TEXT = "Anna met Bo ."
ANNA, BO = {"start": 0, "end": 4, "label": "PER"}, {"start": 9, "end": 11, "label": "PER"}
BY_WORDS = json.dumps([{"text": "Bo", "label": "PER"}, {"text": "Anna", "label": "PER"}])
TAGS = ["B-PER", "O", "B-PER", "O"]
DIFFER = {
    "two labels": (OF_CLASSES, {"label": "good", "prediction": "bad"}, ("good", "bad")),
    "a prediction to no label": (OF_CLASSES, {"label": None, "prediction": "bad"}, ("no answer", "bad")),
    "a response to no label": (OF_CLASSES, {"label": "", "response": chat("bad")}, ("no answer", "bad")),
    "a label and a chat": (OF_CLASSES, {"label": "good", **chat("bad")}, ("good", "bad")),
    "half a response": (OF_CLASSES, {"label": "good", "response": '{"label": "go'}, ("good", "no answer")),
    "another distribution": (OF_CLASSES, {"label": "good", "output": '{"probabilities": {"bad": 0.9}}'}, ("good", "bad")),
    "several labels": (OF_CLASSES, {"labels": ["good", "old"], "response": '["good"]'}, ("good, old", "good")),
    "two numbers": ("number", {"score": 3, "label": 3.5}, ("3", "3.5")),
    "spans and a response": (OF_WORDS, {"spans": [ANNA], "response": BY_WORDS}, ("PER: Anna", "PER: Anna, PER: Bo")),
    "spans and a chat": (OF_WORDS, {"entities": [], **chat(BY_WORDS)}, ("no spans", "PER: Anna, PER: Bo")),
    "spans twice": (OF_WORDS, {"spans": [ANNA], "entities": [BO]}, ("PER: Anna", "PER: Bo")),
    "tags and a response": (OF_WORDS, {"ner_tags": TAGS, "response": '["O", "O", "O", "O"]'}, (" ".join(TAGS), "O O O O")),
    "spans in another form": (OF_WORDS, {"spans": [ANNA], "response": '{"PER": ["Bo"]}'}, ("PER: Anna", "no answer")),
    "a refusal of spans": (OF_WORDS, {"spans": [ANNA], "response": chat(None, refusal="no")}, ("PER: Anna", "no answer")),
    "answers": (OF_QUESTIONS, {"answers": ["Bo"], "prediction": "Anna"}, ("Bo", "Anna")),
    "an answer where there is none": (OF_QUESTIONS, {"is_impossible": True, "response": chat("Bo")}, ("no answer", "Bo")),
}  # fmt: skip
SAME = {
    "two labels": (OF_CLASSES, {"label": "good", "prediction": "Good"}),
    "a label and a chat": (OF_CLASSES, {"label": "good", **chat("good")}),
    "no answer of the interface": (OF_CLASSES, {"label": "good", "message": "x", "content": "z", "output": {"a": 1}}),
    "several labels": (OF_CLASSES, {"labels": ["good", "old"], "response": '["old", "good"]'}),
    "two numbers": ("number", {"score": 3, "label": 3.0}),
    "spans by places and by words": (OF_WORDS, {"spans": [ANNA, BO], "response": BY_WORDS}),
    "spans twice": (OF_WORDS, {"spans": [ANNA], "entities": [ANNA]}),
    "nothing twice": (OF_WORDS, {"spans": [], "response": '{"spans": []}'}),
    "tags": (OF_WORDS, {"ner_tags": TAGS, "response": json.dumps(TAGS)}),
    "answers by places and by words": (OF_QUESTIONS, {"answers": [{"start": 9, "end": 11}], "response": "Bo"}),
    "none": (OF_QUESTIONS, {"answers": [], "is_impossible": True}),
    "an answer that is possible": (OF_QUESTIONS, {"answers": ["Bo"], "is_impossible": False}),
}


def said(reading, row, **columns):
    number = reading == "number"
    return record_of({"text": TEXT, **row}, columns, OF_CLASSES if number else reading, number, TEXT).said


def places(row):
    """Where a row answers; that of a chat is its choices."""
    return [name for name in row if name not in ("id", "object", "usage")]


@pytest.mark.parametrize("name", DIFFER)
def test_two_answers_of_a_row_are_refused_and_the_one_that_is_meant_is_taken(name):
    reading, row, told = DIFFER[name]
    first, other = places(row)
    shown = [each if each == "no answer" else f"'{each}'" for each in told]
    expected = f"holds two answers, '{first}': {shown[0]} and '{other}': {shown[1]}; teacher.file.columns says which is meant"
    with pytest.raises(BadRecord, match=re.escape(expected)):
        said(reading, row)
    for column in (first, other):
        if row[column] in ('{"label": "go', '{"PER": ["Bo"]}'):  # which cannot be read
            continue
        own = {key: cell for key, cell in row.items() if key != {first: other, other: first}[column]}
        assert said(reading, row, label=column) == said(reading, own)


@pytest.mark.parametrize("name", SAME)
def test_a_row_that_says_the_same_twice_says_it_once(name):
    reading, row = SAME[name]
    first = places(row)[0]
    assert said(reading, row) == said(reading, {first: row[first]})


def test_of_two_that_say_the_same_the_one_with_tokens_is_taken():
    tokens = [("good", [("good", -0.1), ("bad", -3.0)])]
    (found,) = said(OF_CLASSES, {"label": "good", "response": chat("good", tokens)})
    assert found.tokens == [("good", -0.1), ("bad", -3.0)]
    assert len(said(OF_CLASSES, {"label": "good", "response": {"choices": [{"text": "good"}, {"text": "good"}]}})) == 2


def test_numbers_beside_the_names_of_their_classes_keep_them():
    row = {"labels": ["bad", "good"], "scores": [0.7, 0.3], "label": "good"}
    assert said(OF_CLASSES, row, label="label")[0].numbers == {"bad": 0.7, "good": 0.3}


def test_a_score_that_is_named_may_be_negative():
    assert [each.label for each in said("number", {"score": -1.5, "label": 2}, label="score")] == [-1.5]


@pytest.mark.parametrize("given", [BY_WORDS, json.loads(BY_WORDS), "```json\n" + BY_WORDS + "\n```"])
def test_a_list_is_read_in_a_response_too(given):
    assert said(OF_WORDS, {"response": given}) == said(OF_WORDS, {"spans": json.loads(BY_WORDS)})


def test_the_file_of_one_of_several_teachers_is_named(tmp_path):
    (tmp_path / "llm.jsonl").write_text('{"text": "a", "label": "neutral", "prediction": "positive"}\n')
    told = r"llm.jsonl:1: .*; teachers\.llm\.file\.columns says which is meant: {label: label} or {label: prediction}"
    with pytest.raises(DataError, match=told):
        read_labelled(FileSection(path=tmp_path / "llm.jsonl"), THREE, "teachers.llm.file")
