"""Files of rankings: every form gives the same lists, and what is wrong is one clear line."""

from __future__ import annotations

import pytest

from crossdistil.core.data.ranking_files import read_ranking
from crossdistil.core.data.ranking_format import RankingFormat
from crossdistil.core.data.table_rows import TableFormat
from crossdistil.core.errors import DataError
from crossdistil.tests.tiny_rankings import written

WANTED = [("q1", ["a", "b", "c"], [1, 0, 0]), ("q2", ["d", "e"], [1, 0])]
FORMS = {
    "lists.jsonl": [{"query": q, "candidates": texts, "labels": labels} for q, texts, labels in WANTED],
    "documents and labels.jsonl": [{"question": q, "docs": texts, "scores": labels} for q, texts, labels in WANTED],
    "sides.jsonl": [{"query": q, "positive": texts[:1], "negative": texts[1:]} for q, texts, _ in WANTED],
    "evaluator.jsonl": [{"query": q, "positive": texts[:1], "documents": texts} for q, texts, _ in WANTED],
    "flag.jsonl": [{"query": q, "pos": texts[:1], "neg": texts[1:]} for q, texts, _ in WANTED],
    "rows.tsv": [["query", "text", "label"], *([q, t, y] for q, ts, ys in WANTED for t, y in zip(ts, ys))],
    "rows apart.csv": [
        ["label", "query", "passage"], [1, "q1", "a"], [1, "q2", "d"], [0, "q1", "b"], [0, "q2", "e"], [0, "q1", "c"],
    ],
}  # fmt: skip


def read(path, needs_labels=True, teacher=False, **how):
    return read_ranking(path, RankingFormat(**how), TableFormat(), None, needs_labels, teacher)[0]


@pytest.mark.parametrize("name", FORMS)
def test_every_form_of_a_file_gives_the_same_lists(name, tmp_path):
    found = read(written(tmp_path / name, FORMS[name]))
    assert [(each.query, each.texts, each.labels) for each in found] == WANTED


def test_triples_are_lists_of_their_own_and_tuples_have_several_negatives(tmp_path):
    rows = [["query", "positive", "negative"], ["q", "a", "b"], ["q", "c", "d"]]
    found = read(written(tmp_path / "triples.tsv", rows))
    assert [(each.query, each.texts, each.line) for each in found] == [("q", ["a", "b"], 2), ("q", ["c", "d"], 3)]
    rows = [["anchor", "positive", "negative_1", "negative_2", "score"], ["q", "a", "b", "c", 3]]
    assert read(written(tmp_path / "tuples.tsv", rows))[0].texts == ["a", "b", "c"]
    lines = [{"query": "q", "pos": ["a"], "neg": ["b", "c"], "pos_scores": [4.5], "neg_scores": [1, -2]}]
    given = written(tmp_path / "scored.jsonl", lines)
    assert read(given, teacher=True, teacher_scores=("pos_scores", "neg_scores"))[0].teacher == [4.5, 1, -2]


def test_scores_of_a_teacher_are_those_of_the_documents_that_they_stand_beside(tmp_path):
    """Also where a positive is not the first of them; one that is not among them comes last."""
    line = {"query": "q", "positive": "c", "documents": ["a", "b", "c"], "t": [1, 2, 3]}
    [found] = read(written(tmp_path / "scored.jsonl", [line]), teacher=True, teacher_scores=("t",))
    assert (found.texts, found.labels, found.teacher) == (["a", "b", "c"], [0, 0, 1], [1, 2, 3])
    [found] = read(written(tmp_path / "more.jsonl", [line | {"positive": ["d", "c"], "documents": ["a", "c", "c"]}]))
    assert (found.texts, found.labels) == (["a", "c", "d"], [0, 1, 1])


SIDES = {"query": "q", "positive": ["a"], "negative": ["b", "c"], "p": [1, 2], "n": [3]}
SCORED = {"query": "q", "candidates": ["a", "b"], "labels": [1, 0], "p": [1], "n": [0]}
WRONG = {
    "scores of a side": ([SIDES], {"teacher_scores": ("p", "n")}, r":1: got 2 numbers in 'p' for 1 candidates"),
    "two columns": ([SCORED], {"teacher_scores": ("p", "n")}, r":1: task.ranking.teacher_score has two columns, but the cand"),
    "no rows": ([], {}, r": is empty"),
    "lengths": ([{"query": "q", "candidates": ["a", "b", "c"], "labels": [1]}], {}, r":1: got 1 numbers in 'labels' for 3 cand"),
    "no number": ([{"query": "q", "candidates": ["a"], "labels": ["yes"]}], {}, r":1: got score 'yes' in 'labels', expected a f"),
    "truth": ([{"query": "q", "candidates": ["a"], "labels": [True]}], {}, r"got score True in 'labels'"),
    "no text": ([{"query": "q", "candidates": ["a", 3], "labels": [1, 0]}], {}, r":1: 'candidates' holds 3, expected a text or"),
    "nothing": ([{"query": "q", "candidates": [], "labels": []}], {}, r":1: 'candidates' is an empty list, expected one cand"),
    "no query": ([{"text": "a", "label": 1}], {}, r"no column of queries \(query, question, anchor\); the columns are text"),
    "no candidates": ([{"query": "a", "label": 1}], {}, r"no column of candidates .*task.text_pair, or task.ranking.positive"),
    "no labels": ([{"query": "a", "text": "b"}], {}, r"no column of labels \(label, .*task.label names it"),
    "named": ([{"query": "a", "text": "b", "label": 1}], {"candidates": "body"}, r"no column 'body'"),
    "half": ([{"query": "q", "candidates": ["\ud800"], "labels": [1]}], {}, r"'candidates' holds half a surrogate pair"),
}


@pytest.mark.parametrize("case", WRONG)
def test_what_is_wrong_is_named(case, tmp_path):
    rows, how, message = WRONG[case]
    with pytest.raises(DataError, match=rf"wrong.jsonl.*{message}"):
        read(written(tmp_path / "wrong.jsonl", rows), teacher="teacher_scores" in how, **how)
