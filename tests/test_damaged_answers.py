"""Damaged records of answers to questions: what is read of each is at places of the context, and shares are of 1."""

from __future__ import annotations

from itertools import product
from pathlib import Path

import pytest

from crossdistil.core.data.answer_format import AnswerFormat
from crossdistil.core.data.task_specs import TaskSpec
from crossdistil.core.file_section import FileSection
from crossdistil.core.kinds.known_kinds import ANSWERS
from crossdistil.core.labelled.answer_places import NOWHERE, AnswerPlaces
from crossdistil.core.labelled.answer_records import record_of
from crossdistil.core.labelled.said import BadRecord
from crossdistil.core.labelled.word_answers import Notes
from crossdistil.tests.labelled_records import batch, chat, damaged_records, message

CONTEXT = "the good film is bad and the plot was good or not"
AT = {"text": "bad", "answer_start": 17}
RECORDS = [
    {"answer": "bad"}, {"answers": [AT, {"text": "good", "start": 4}]}, {"answers": {"text": ["bad"], "answer_start": [17]}},
    {"answer": "bad", "start": 17, "end": 20, "score": 0.5}, {"answers": ["bad", "plot"], "probabilities": [0.5, 0.25]},
    {"votes": ["bad", None, "plot"]}, {"votes": {"bad": 2, "plot": 1}}, {"log_probabilities": {"bad": -0.5, "plot": -1.5}},
    {"answers": [{**AT, "score": 0.5}, {"text": "plot", "score": 0.25}]}, {"is_impossible": False, "answer": AT},
    {"response": batch(chat('{"answer": "bad"}'))}, message('{"answers": ["bad", "good"]}'), chat("bad"),
]  # fmt: skip


@pytest.mark.parametrize(("stray", "nearest", "unanswerable"), list(product(("error", "leave_out"), *2 * [(False, True)])))
def test_a_damaged_record_is_read_or_refused(stray, nearest, unanswerable):
    how = AnswerFormat(unanswerable=unanswerable, nearest=nearest)
    spec = TaskSpec("q", "question", "context", "answers", None, ("exact_match",), kind=ANSWERS, answering=how)
    answers, seen = AnswerPlaces(spec, FileSection(path=Path("llm.jsonl"), stray_spans=stray), "teacher.file"), 0
    for damaged in damaged_records(RECORDS):
        try:
            record = record_of(damaged, {}, answers.reading)
            found = [answers.located(answers.read(said, 1, CONTEXT, []), CONTEXT, Notes()) for said in record.said]
        except BadRecord:
            continue
        for each in filter(None, found):
            seen += 1
            assert sum(each.shares.values()) + each.rest == pytest.approx(1) and min(each.shares.values()) >= 0, damaged
            for start, end in (place for places in each.shares for place in places):
                assert (start, end) == NOWHERE or 0 <= start < end <= len(CONTEXT), damaged
    assert seen > 30
