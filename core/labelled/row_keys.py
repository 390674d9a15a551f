"""What a record of a file is found by: the text that it is an answer to, an id, or the number of a row; and the texts that it
has."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Mapping
from typing import Any

from ..data.answer_files import CONTEXTS, QUESTIONS
from ..data.task_specs import TaskSpec
from ..data.unspaced_words import has_unspaced
from ..errors import DataError, did_you_mean
from ..file_section import FileSection
from ..shown import shown
from .answer_records import IDS

_TEXTS = ("text", "sentence", "sequence", "input", "prompt")
_PAIRS = ("text_pair", "pair", "sentence2")
_WORDS = ("words", "tokens")
_NUMBERED = re.compile(r"(?:([a-z_]+(?:\[[0-9]{1,4}\])?)[-_:/# ]+)?([0-9]{1,15})")
_AUX = re.compile(r"aux(?:_data)?(?:\[([0-9]+)\])?")

Key = str | tuple[str, ...]


def text_key(text: str, pair: str | None = None, of_words: bool = False) -> Key:
    """What two writings of a text have in common: the same characters (NFC), with any white space between words. A text
    `of_words` that have labels may be parted into them where people write no spaces."""
    texts = [" ".join(unicodedata.normalize("NFC", each).split()) for each in (text, pair) if each is not None]
    if of_words:
        texts = [each.replace(" ", "") if has_unspaced(each) else each for each in texts]
    return texts[0] if len(texts) == 1 else tuple(texts)


def id_key(cell: Any) -> str:
    """What two writings of an id have in common: tables make 7.0 of 7 where another id is missing."""
    return str(int(cell) if isinstance(cell, float) and cell.is_integer() else cell).strip()


def key_of(
    row: Mapping[str, Any], section: FileSection, spec: TaskSpec, where: str, key: str, aux: int | None = None
) -> Key:
    """What a record is found by; `where` is its place and `key` the recipe's of the section; `aux` is how many sections of
    `aux_data` there are, None where that is not known. Raises DataError."""
    if section.id is not None or section.row_numbers is not None:
        # What a batch calls `id` is its own.
        usual = IDS if section.id is None or section.id in IDS else (section.id, *IDS)
        names = [section.columns["id"]] if "id" in section.columns else list(usual)
        name = next((name for name in names if row.get(name) not in (None, "")), None)
        if name is None:
            raise DataError(f"{where}: has no id ({' or '.join(names)})")
        return id_key(row[name]) if section.row_numbers is None else _number_of(row[name], section, spec, where, aux)
    names = []
    text = spec.text or _TEXTS[0]
    known = (QUESTIONS, CONTEXTS) if spec.kind.of_spans else (_TEXTS, _PAIRS)
    for own, what, usual in ((text, "text", known[0]), (spec.text_pair, "text_pair", known[1])):
        if own is None:
            continue
        wanted = [section.columns[what]] if what in section.columns else [own, *usual]
        name = next((name for name in wanted if isinstance(row.get(name), str)), None)
        if name is None and spec.kind.per_token and (words := _joined_words(row)) is not None:
            return text_key(words, of_words=True)
        if name is None:
            if (there := next((name for name in wanted if name in row), None)) is not None:
                raise DataError(f"{where}: got {shown(row[there], 60)} in '{there}', expected a text")
            hint = did_you_mean(wanted[0], row) or f"; the columns are {', '.join(map(str, list(row)[:12]))}"
            ids = next((name for name in IDS if name in row), None)
            way = "" if ids is None else f"; {key}.id names the column of the task's tables that '{ids}' is of, or "
            way += f"{key}.row_numbers, 0 or 1, where it counts their rows" if way else ""
            raise DataError(f"{where}: has no text in a column '{wanted[0]}'{hint}{way}")
        names.append(name)
    return text_key(*(row[name] for name in names), of_words=spec.kind.per_token)


def row_key(split: str, number: int) -> str:
    """What stands for the number of a row of a split."""
    return f"{split} {number}"


def aux_name(section: int) -> str:
    """What a section of `aux_data` is called, as in the recipe."""
    return f"aux_data[{section}]"


def _number_of(cell: Any, section: FileSection, spec: TaskSpec, where: str, aux: int | None) -> str:
    """The number of a row, of train where the cell does not name another split or a section of `aux_data`, as a key."""
    found = _NUMBERED.fullmatch(id_key(cell))
    split = None if found is None else found[1] or "train"
    own = None if split is None else _AUX.fullmatch(split)
    if own is not None and split not in spec.splits and (aux is None or (int(own[1]) < aux if own[1] else aux == 1)):
        split = aux_name(int(own[1] or 0))
    elif split not in spec.splits:
        split = None
    if split is None or int(found[2]) < section.row_numbers:
        expected = f"expected the number of a row of train, from {section.row_numbers} on, or with its split, as dev-5"
        expected += f", or the section of aux_data, as {'aux-5' if aux == 1 else 'aux_data[1]-5'}" if aux else ""
        raise DataError(f"{where}: got the id {shown(cell)}, {expected}")
    return row_key(split, int(found[2]))


def base_of(row: Mapping[str, Any], section: FileSection, spec: TaskSpec) -> str | None:
    """The text that the places of a row's spans or answers are of, where the row has one of its own."""
    what, own, usual = ("text_pair", spec.text_pair, CONTEXTS) if spec.kind.of_spans else ("text", spec.text, _TEXTS)
    names = [section.columns[what]] if what in section.columns else [own, *usual]
    found = next((row[name] for name in names if name in row and isinstance(row[name], str)), None)
    return found if found is not None or spec.kind.of_spans else _joined_words(row)


def _joined_words(row: Mapping[str, Any]) -> str | None:
    """The words of a row that holds them as a list, with spaces between them."""
    found = next((row[name] for name in _WORDS if isinstance(row.get(name), list)), None)
    return " ".join(found) if found and all(isinstance(word, str) for word in found) else None


def own_text(row: Mapping[str, Any], section: FileSection, spec: TaskSpec) -> Key | None:
    """The text of a row that is found by an id, where it has a column that is that for sure."""
    names = [section.columns.get("text", spec.text or _TEXTS[0])]
    if spec.text_pair is not None:
        names.append(section.columns.get("text_pair", spec.text_pair))
    texts = [row.get(name) for name in names]
    if all(isinstance(text, str) for text in texts):
        return text_key(*texts, of_words=spec.kind.per_token)
    words = _joined_words(row) if spec.kind.per_token else None
    return None if words is None else text_key(words, of_words=True)
