"""Words that are written without spaces between them, one Chinese character each, as tokens: a label belongs to a character, but
the pieces of Unigram and BPE vocabularies hold several, and in columns the characters come with spaces that no one writes.

Columns and plain texts are put right the same way, so that a model which learned of the one reads the other.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Sequence

import tokenizers

Places = Sequence[tuple[int, int]]
# Ideographs, and the signs that stand between them.
_UNSPACED = re.compile("[\u3001-\u3020\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\uff01-\uff65]")


def without_spaces(text: str, places: Places) -> tuple[str, Places]:
    """A text whose words stand at `places` with the space left out between words of one such character, and their new places."""
    if not _UNSPACED.search(text):
        return text, places
    alone = [end - start == 1 and _is_unspaced(text[start]) for start, end in places]
    parts, found, length, last = [], [], 0, 0
    for number, (start, end) in enumerate(places):
        between = "" if number and alone[number] and alone[number - 1] else text[last:start]
        parts += [between, text[start:end]]
        found.append((length + len(between), length + len(between) + end - start))
        length, last = found[-1][1], end
    return "".join(parts) + text[last:], found


def has_unspaced(text: str) -> bool:
    """Whether such a character is in a text."""
    return _UNSPACED.search(text) is not None


def pieces_by_word(
    library: tokenizers.Tokenizer, text: str, encoding: tokenizers.Encoding, word_at: Sequence[int]
) -> list[tuple[int, tuple[int, int]]]:
    """(id, from which to which character) of each piece of an encoding of `text`, whose character i is of the word `word_at[i]`
    (-1: none). A piece of several words, one of them such a character, becomes a piece, or more, of the same vocabulary for each
    word."""
    given = list(zip(encoding.ids, encoding.offsets))
    if not _UNSPACED.search(text):
        return given
    found: list[tuple[int, tuple[int, int]]] = []
    for group in _of_whole_characters(encoding):
        start, end = given[group[0]][1][0], max(given[number][1][1] for number in group)
        runs = ((word, list(run)) for word, run in itertools.groupby(range(start, end), word_at.__getitem__))
        parts = [(run[0], run[-1] + 1) for word, run in runs if word >= 0]
        if len(parts) < 2 or not any(map(_is_unspaced, text[start:end])):
            found += [given[number] for number in group]
            continue
        token = encoding.tokens[group[0]] if len(group) == 1 else ""
        for ids, part in zip(_ids_of(library, token, [text[first:last] for first, last in parts]), parts):
            found += [(own, part) for own in ids]
    return found


def _of_whole_characters(encoding: tokenizers.Encoding) -> list[list[int]]:
    """The numbers of the pieces, those together that share a character, of which byte-level vocabularies cut up some."""
    groups: list[list[int]] = []
    reached = 0
    for number, (start, end) in enumerate(encoding.offsets):
        if groups and start < reached:
            groups[-1].append(number)
        else:
            groups.append([number])
        reached = max(reached, end)
    return groups


def _ids_of(library: tokenizers.Tokenizer, token: str, parts: Sequence[str]) -> list[list[int]]:
    """The pieces of each part of a token, or of several where that is empty."""
    normalizer = library.normalizer
    written = [part if normalizer is None else normalizer.normalize_str(part) for part in parts]
    # What a vocabulary puts before the first word of a text, or one behind a space.
    mark = token.removesuffix("".join(written)) if token.endswith("".join(written)) else ""
    found = []
    for number, (part, name) in enumerate(zip(parts, written)):
        whole, names = mark + name if number == 0 else name, [mark, name] if number == 0 and mark else [name]
        ids = [library.token_to_id(each) for each in ([whole] if library.token_to_id(whole) is not None else names)]
        found.append(ids if None not in ids else library.encode(part, add_special_tokens=False).ids)
    return found


def _is_unspaced(character: str) -> bool:
    return _UNSPACED.match(character) is not None
