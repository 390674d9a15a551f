"""jieba's words for a great deal of text at once: those that `jieba.cut` finds, from the same dictionary and model.

jieba goes from character to character, and its dictionary takes some 200 MB of every process. Here the dictionary is a tree in
two arrays, and each step is done for all runs of characters together: first the most probable way through the words of the
dictionary, then the hidden Markov model over the single characters that it leaves (jieba 0.42: `__cut_DAG`, `finalseg`).
"""

from __future__ import annotations

import importlib.util
import math
from pathlib import Path

import numpy as np

_FIRST, _LAST = 0x4E00, 0x9FD5  # what jieba takes for Chinese
_BESIDE = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789+#&._%-"  # and what may be in a word with it
_CODE_BITS = 21
_NEVER = -3.14e100  # jieba's logarithm of zero
_STATES = "BMES"  # of a character: begin, middle and end of a word, and a word by itself
# The two states that may stand before each. Where both are as probable, the first of them, which is the later letter.
_BEFORE = np.array([[_STATES.index(one) for one in pair] for pair in ("SE", "MB", "MB", "SE")])
_BEGIN, _, _STOP, _SINGLE = range(4)


class JiebaWords:
    """Where jieba's words begin."""

    def __init__(self):
        codes, sizes, frequencies = _read_dictionary()
        total = math.log(int(frequencies.sum()))
        self._unknown = math.log(1) - total
        self._keys, nodes = _tree(codes, sizes)
        values, inverse = np.unique(frequencies, return_inverse=True)
        # Not NumPy's logarithm, whose last bit may be another: words that are as probable are told apart by it.
        logarithms = np.array([math.log(value) - total if value else -np.inf for value in values.tolist()])
        self._scores = np.full(len(self._keys) + 1, -np.inf)  # of each node; words have more
        self._scores[nodes] = logarithms[inverse]
        self._start, self._before, self._emissions = _read_model()

    def begins(self, codes: np.ndarray) -> np.ndarray:
        """Whether a word begins at each of the code points (characters,) of texts with a line end between them: (characters,)
        bool. Outside of runs with a Chinese character, every character is a word."""
        codes = codes.astype(np.int64)
        begins = np.ones(len(codes), bool)
        firsts, ends = _runs(codes)
        if not len(firsts):
            return begins
        sizes, words = self._best_sizes(codes, firsts, ends)
        inside = _places(firsts, ends)
        begins[inside] = False
        here, last = firsts, ends
        while len(here):
            begins[here] = True
            here = here + sizes[here]
            here, last = here[here < last], last[here < last]
        left = np.zeros(len(codes), bool)
        left[inside] = begins[inside] & (sizes[inside] == 1)
        firsts, ends = _stretches(left)
        # Of several single characters that are a word of the dictionary, jieba makes no other one.
        kept = (ends - firsts > 1) & ~np.isin(_word_keys(firsts, ends - firsts), words)
        left[:] = False
        left[_places(firsts[kept], ends[kept])] = True
        firsts, ends = _stretches(left & (codes >= _FIRST) & (codes <= _LAST))
        if len(firsts):
            begins[_places(firsts, ends)] = self._model_begins(codes, firsts, ends)
        return begins

    def _best_sizes(self, codes: np.ndarray, firsts: np.ndarray, ends: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The size of the word that each character begins on the most probable way to its run's end (characters,), and the keys
        of all words of the dictionary that are in the text."""
        inside = _places(firsts, ends)
        behind = np.repeat(ends, ends - firsts)
        starts, sizes, scores = self._words(codes, inside, behind)
        words = _word_keys(starts, sizes)
        found = np.zeros(len(codes), bool)
        found[starts] = True
        alone = inside[~found[inside]]
        starts = np.concatenate([starts, alone])
        sizes = np.concatenate([sizes, np.ones(len(alone), np.int64)])
        scores = np.concatenate([scores, np.full(len(alone), self._unknown)])
        run_end = np.zeros(len(codes), np.int64)
        run_end[inside] = behind
        steps = run_end[starts] - starts  # characters to the run's end: all that are as far from it go together
        order = np.lexsort((sizes, steps))
        starts, sizes, scores, steps = starts[order], sizes[order], scores[order], steps[order]
        groups = np.flatnonzero(np.diff(steps, prepend=0) | np.diff(sizes, prepend=0)).tolist()
        best = np.full(len(codes) + 1, -np.inf)
        best[ends] = 0.0
        chosen = np.zeros(len(codes), np.int64)
        for begin, end in zip(groups, [*groups[1:], len(starts)]):
            start, size = starts[begin:end], sizes[begin]
            score = scores[begin:end] + best[start + size]
            better = score >= best[start]  # of equal ones the longest, which comes last
            start = start[better]
            best[start], chosen[start] = score[better], size
        return chosen, words

    def _words(self, codes: np.ndarray, starts: np.ndarray, behind: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """All words of the dictionary from `starts` on that end at `behind` at most: their starts, sizes and scores."""
        found = []
        node, size = np.zeros(len(starts), np.int64), 0
        while len(starts):
            key = node << _CODE_BITS | codes[starts + size]
            place = np.minimum(np.searchsorted(self._keys, key), len(self._keys) - 1)
            there = self._keys[place] == key
            starts, behind, node, size = starts[there], behind[there], place[there] + 1, size + 1
            score = self._scores[node]
            word = score > -np.inf
            found.append((starts[word], np.full(word.sum(), size), score[word]))
            more = starts + size < behind
            starts, behind, node = starts[more], behind[more], node[more]
        return tuple(np.concatenate(parts) for parts in zip(*found))

    def _model_begins(self, codes: np.ndarray, firsts: np.ndarray, ends: np.ndarray) -> np.ndarray:
        """Where words begin in stretches of Chinese characters, by the most probable states: (characters in them,) bool."""
        sizes = ends - firsts
        order = np.argsort(-sizes, kind="stable")  # the longest first: those that go on are the first ones
        starts, sizes = firsts[order], sizes[order]
        active = np.searchsorted(-sizes, -np.arange(sizes[0])).tolist()  # stretches with a character at each step
        scores, came_from = self._start + self._emissions[codes[starts] - _FIRST], []
        for step, count in enumerate(active[1:], 1):
            both = scores[:count, _BEFORE] + self._before + self._emissions[codes[starts[:count] + step] - _FIRST][..., None]
            second = both[..., 1] > both[..., 0]
            came_from.append(np.where(second, _BEFORE[:, 1], _BEFORE[:, 0]))
            scores[:count] = np.where(second, both[..., 1], both[..., 0])
        states = np.full((len(starts), len(active)), _STOP)
        state = np.where(scores[:, _STOP] > scores[:, _SINGLE], _STOP, _SINGLE)
        for step in range(len(active) - 1, -1, -1):
            count = active[step]
            states[:count, step] = state[:count]
            if step:
                state[:count] = came_from[step - 1][np.arange(count), state[:count]]
        begins = (states == _BEGIN) | (states == _SINGLE)
        begins[:, 1:] |= (states[:, :-1] == _STOP) | (states[:, :-1] == _SINGLE)
        begins[:, 0] = True
        result = np.zeros(len(codes), bool)
        rows = np.repeat(np.arange(len(starts)), sizes)
        places = _places(starts, ends[order])
        result[places] = begins[rows, places - starts[rows]]
        return result[_places(firsts, ends)]


def _read_dictionary() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Code points of all words one after the other, and of each word its characters and how often it was seen."""
    folder = importlib.util.find_spec("jieba").submodule_search_locations[0]
    text = (Path(folder) / "dict.txt").read_text(encoding="utf-8").rstrip("\n") + "\n"  # of lines "word number tag"
    codes = np.frombuffer(text.encode("utf-32-le"), np.uint32).astype(np.int64)
    ends, blanks = np.flatnonzero(codes == ord("\n")), np.flatnonzero(codes == ord(" "))
    starts = np.concatenate([[0], ends[:-1] + 1])
    first = np.searchsorted(blanks, starts)
    words, numbers = blanks[first], np.minimum(blanks[np.minimum(first + 1, len(blanks) - 1)], ends)
    frequencies = np.zeros(len(starts), np.int64)
    for place in range(int((numbers - words).max()) - 1):
        here = words + 1 + place
        digits = here < numbers
        frequencies[digits] = frequencies[digits] * 10 + codes[here[digits]] - ord("0")
    return codes[_places(starts, words)], words - starts, frequencies


def _tree(codes: np.ndarray, sizes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Words as a tree: keys (nodes,), rising, and the node of each word (words,). The root is node 0; node i + 1 is reached by
    keys[i], the node before it and the character that leads from there."""
    firsts = np.cumsum(sizes) - sizes
    node, keys, count = np.zeros(len(sizes), np.int64), [], 0
    open_ = np.arange(len(sizes))
    for place in range(int(sizes.max())):
        open_ = open_[sizes[open_] > place]
        level, inverse = np.unique(node[open_] << _CODE_BITS | codes[firsts[open_] + place], return_inverse=True)
        node[open_] = count + 1 + inverse
        keys.append(level)
        count += len(level)
    return np.concatenate(keys), node


def _read_model() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Logarithms: of the first state (states,), of each state after the two that may stand before it (states, 2), and of each
    character in a state (characters, states)."""
    from jieba.finalseg.prob_emit import P as emitted
    from jieba.finalseg.prob_start import P as start
    from jieba.finalseg.prob_trans import P as follows

    emissions = np.full((_LAST - _FIRST + 1, len(_STATES)), _NEVER)
    for column, state in enumerate(_STATES):
        for character, value in emitted[state].items():
            if _FIRST <= ord(character) <= _LAST:
                emissions[ord(character) - _FIRST, column] = value
    before = [[follows[_STATES[one]].get(state, _NEVER) for one in pair] for state, pair in zip(_STATES, _BEFORE)]
    return np.array([start[state] for state in _STATES]), np.array(before), emissions


def _runs(codes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Where runs of what may be in a word with Chinese characters begin and end, of those with one of them."""
    chinese = (codes >= _FIRST) & (codes <= _LAST)
    beside = np.zeros(128, bool)
    beside[[ord(character) for character in _BESIDE]] = True
    firsts, ends = _stretches(chinese | ((codes < 128) & beside[np.minimum(codes, 127)]))
    before = np.concatenate([[0], np.cumsum(chinese)])
    some = before[ends] > before[firsts]
    return firsts[some], ends[some]


def _stretches(flags: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Where stretches of true ones begin, and the places behind them."""
    changes = np.flatnonzero(np.diff(flags, prepend=False, append=False))
    return changes[::2], changes[1::2]


def _places(firsts: np.ndarray, ends: np.ndarray) -> np.ndarray:
    """All places of stretches, one after the other."""
    sizes = ends - firsts
    return np.arange(sizes.sum()) + np.repeat(firsts - (np.cumsum(sizes) - sizes), sizes)


def _word_keys(starts: np.ndarray, sizes: np.ndarray) -> np.ndarray:
    """One number for each pair."""
    return starts << 32 | sizes
