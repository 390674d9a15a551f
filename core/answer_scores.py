"""Whether an answer is one of those that are right: exact match and F1 by the words of the two, as SQuAD's scripts count them
(Rajpurkar et al. 2016, 2018), or by Chinese characters and the words between them, as CMRC 2018's (Cui et al. 2019).

All are between 0 and 1; the scripts print percentages.
"""

from __future__ import annotations

import re
import string
from collections import Counter
from collections.abc import Callable, Sequence

import numpy as np

from .data.answer_format import CMRC, SQUAD

_ARTICLES = re.compile(r"\b(a|an|the)\b")
_PUNCTUATION = frozenset(string.punctuation)
_MARKS = frozenset("-:_*^/\\~`+=，。：？！“”；’《》·、「」（）－～『』")
"""What CMRC's script leaves out; it means to leave out the ellipsis too, and does not."""
_HAN = re.compile("[\u4e00-\u9fa5]")
_ENDINGS = "(?:s|m|d|ll|re|ve)(?:\\s|$)"
_LATIN = re.compile(
    rf"(?:[^\s.,;@#$%&?!()\[\]{{}}<>\"'«»„‘]|\.(?!\s*$)|,(?=\d)|'(?=\w)(?!{_ENDINGS}))+|'(?={_ENDINGS})\w+|\S"
)
"""As NLTK's `word_tokenize`, which that script has, parts words, but for contractions of "not"."""


def scores_of(which: str, with_none: bool) -> Callable[[str, Sequence[str]], tuple[float, float]]:
    """`f(answer, right ones) -> (exact match, F1)`, with the best of the right ones. `with_none` is whether an answer may be
    empty, as in SQuAD 2.0: it is then right where there are no right ones."""

    def scores(answer: str, golds: Sequence[str]) -> tuple[float, float]:
        if which == SQUAD:
            words = _normalised(answer)
            right = [each for each in map(_normalised, golds) if each or not with_none] or [[]]
            exact = max(float(words == each) for each in right)
            return exact, max(_shared_words(words, each, with_none) for each in right)
        bare, segments = _without_marks(answer), _segments(answer)
        if not golds:
            return float(not bare), float(not bare)
        exact = max(float(bare == _without_marks(gold)) for gold in golds)
        return exact, max(_shared_run(segments, _segments(gold)) for gold in golds)

    return scores


def which_scores(golds: Sequence[Sequence[str]]) -> str:
    """Whose scores fit these answers: CMRC's where most have a Chinese character."""
    answers = [each[0] for each in golds if each]
    han = sum(bool(_HAN.search(answer)) for answer in answers)
    return CMRC if 2 * han > len(answers) else SQUAD


def best_threshold(differences: np.ndarray, answered: np.ndarray, possible: np.ndarray) -> tuple[float, float]:
    """(score, threshold) of the best threshold for "no answer", which is given where the difference of its score and the
    answer's is above the threshold. `differences` (questions,), `answered` (questions,): what each answer would score;
    `possible` (questions,) booleans: whether the question has an answer."""
    order = np.argsort(differences, kind="stable")
    gains = np.where(possible, answered, -1.0)[order]
    sums = np.cumsum(gains)
    none = float((~possible).sum())
    best = int(np.argmax(sums)) if len(sums) else 0
    if not len(sums) or sums[best] <= 0:
        return none / max(1, len(differences)), 0.0
    return (none + float(sums[best])) / len(differences), float(differences[order][best])


def _normalised(text: str) -> list[str]:
    """The words without letter case, punctuation and articles."""
    bare = "".join(each for each in text.lower() if each not in _PUNCTUATION)
    return _ARTICLES.sub(" ", bare).split()


def _shared_words(words: list[str], gold: list[str], with_none: bool) -> float:
    if with_none and not (words and gold):
        return float(words == gold)
    same = sum((Counter(words) & Counter(gold)).values())
    return 2.0 * same / (len(words) + len(gold)) if same else 0.0


def _without_marks(text: str) -> str:
    return "".join(each for each in text.lower().strip() if each not in _MARKS)


def _segments(text: str) -> list[str]:
    """Chinese characters one by one, and the words of what is between them."""
    found: list[str] = []
    for part in re.split("([\u4e00-\u9fa5])", _without_marks(text)):
        found += [part] if _HAN.fullmatch(part) else _LATIN.findall(part)
    return found


def _shared_run(segments: list[str], gold: list[str]) -> float:
    """F1 of the longest run of segments that both have."""
    longest, before = 0, [0] * (len(gold) + 1)
    for one in segments:
        runs = [0] * (len(gold) + 1)
        for place, other in enumerate(gold, 1):
            if one == other:
                runs[place] = before[place - 1] + 1
                longest = max(longest, runs[place])
        before = runs
    return 2.0 * longest / (len(segments) + len(gold)) if longest else 0.0
