"""Exact match and F1 of answers, against what the official scripts of SQuAD 1.1, SQuAD 2.0 and CMRC 2018 printed for the same."""

from __future__ import annotations

import numpy as np
import pytest

from crossdistil.core.answer_scores import _segments, best_threshold, scores_of, which_scores

SQUAD = [
    ("the Cat's mother-in-law", ["cats motherinlaw"], (1.0, 1.0)),
    ("in Oslo, Norway", ["Oslo", "Norway in Oslo"], (0.0, 1.0)),
    ("in 1990", ["1990", "the year of 1990"], (0.0, 2 / 3)),
    ("Oslo Oslo", ["Oslo"], (0.0, 2 / 3)),
    ("", ["Oslo"], (0.0, 0.0)),
    ("the", ["a"], (1.0, 0.0)),
]
"""Answer, right ones, and what SQuAD 1.1's script gives."""
CMRC = [
    ("北京大学。", ["北京大学"], (1.0, 1.0)),
    ("在北京大学", ["北京大学", "上海"], (0.0, 8 / 9)),
    ("1990年的NBA", ["NBA 1990年"], (0.0, 4 / 7)),
    ("上海的大学", ["上海大学"], (0.0, 4 / 9)),
    ("约3.5%", ["3.5%"], (0.0, 0.8)),
    ("海", ["京"], (0.0, 0.0)),
]


@pytest.mark.parametrize(("answer", "golds", "expected"), SQUAD)
def test_squads_scores(answer, golds, expected):
    assert scores_of("squad", False)(answer, golds) == pytest.approx(expected)


@pytest.mark.parametrize(
    ("answer", "golds", "expected"),
    [("", [], (1, 1)), ("Oslo", [], (0, 0)), ("", ["Oslo"], (0, 0)), ("the", ["a"], (1, 1)), ("in Oslo", ["Oslo"], (0, 2 / 3))],
)
def test_squad_2s_scores_know_no_answer(answer, golds, expected):
    assert scores_of("squad", True)(answer, golds) == pytest.approx(expected)


@pytest.mark.parametrize(("answer", "golds", "expected"), CMRC)
def test_cmrcs_scores(answer, golds, expected):
    assert scores_of("cmrc", False)(answer, golds) == pytest.approx(expected)


def test_words_among_characters_are_nltks():
    from nltk.tokenize import NLTKWordTokenizer

    tokenizer = NLTKWordTokenizer()
    for text in ["nba 2008", "3.5%", "1,000", "u.s.", "a&b", "iphone 6s", "10.5km", "windows 7.", "j.k.rowling", "he's", "(abc)",
                 "o'neil", "abc, def", "…v1.2", "$5", "a,5 b"]:  # fmt: skip
        assert _segments(text) == tokenizer.tokenize(text), text


def test_scores_by_characters_are_for_chinese_answers():
    assert which_scores([("北京",), ("NBA",), ("上海", "沪")]) == "cmrc"
    assert which_scores([("Beijing",), (), ("北京",)]) == "squad"


def test_the_best_threshold_is_that_of_the_official_sweep():
    drawn = np.random.default_rng(0)
    for _ in range(50):
        count = int(drawn.integers(1, 30))
        differences, possible = drawn.normal(0, 1, count).round(1), drawn.random(count) < 0.6
        answered = np.where(possible, drawn.random(count), 0.0)
        tried = []
        for threshold in (*differences, 0.0):
            silent = differences > threshold if threshold in differences else np.ones(count, bool)
            tried.append(float(np.where(silent, ~possible, answered).mean()))
        score, threshold = best_threshold(differences, answered, possible)
        assert score >= max(tried) - 1e-12 or len(set(differences)) < count
        silent = differences > threshold
        if len(set(differences)) == count and score > (~possible).mean():
            assert np.where(silent, ~possible, answered).mean() == pytest.approx(score)
