"""Records of tokens back to texts, as far as that goes: the pieces are joined to words, and the words have spaces between them.

What cannot come back: what was cut off, capitals and accents where the vocabulary has none, what was [UNK], and where there was
no space, as before a comma. A model sees none of it: tokenized again, such a text gives the same pieces, which is counted here.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from tokenizers import decoders

from ...errors import DataError
from ...shown import shown
from ..tasks import TaskSpec
from ..token_table import TokenTable
from ..tokenize import Tokenizer


@dataclass(frozen=True)
class Decoded:
    """The texts of a table."""

    texts: list[str]
    pairs: list[str] | None
    same: int
    """Rows that are the same tokens when they are tokenized again."""
    cut: int
    """Rows that are as long as rows may be: the end of their texts may be missing."""
    unknown: int
    """Rows with [UNK]."""


def check_ends(source: Path, table: TokenTable, tokenizer: Tokenizer, pairs: bool) -> None:
    """Raise DataError unless every row is `[CLS] text [SEP]`, with `pair [SEP]` behind it where the task has pairs."""
    starts, ends, firsts = table.offsets[:-1], table.offsets[1:], table.first_lengths
    begin, separator = tokenizer.ends
    right = (table.ids[starts] == begin) & (table.ids[ends - 1] == separator) & (table.ids[starts + firsts - 1] == separator)
    right &= (ends - starts > firsts) == pairs
    if not right.all():
        row = int(np.flatnonzero(~right)[0])
        expected = "[CLS] text [SEP] pair [SEP]" if pairs else "[CLS] text [SEP]"
        tokens = [tokenizer.library.id_to_token(int(token)) for token in table.ids[starts[row] : ends[row]]]
        row_text = " ".join(tokens[:8]) + (" ..." if len(tokens) > 8 else "")
        raise DataError(f"{source}: row {row + 1} is '{row_text}', expected {expected}: another vocabulary, or another task")


def decoded(table: TokenTable, tokenizer: Tokenizer, max_length: int, pairs: bool) -> Decoded:
    """The texts of a table whose rows `check_ends` has seen."""
    join = decoders.WordPiece(prefix=tokenizer.library.model.continuing_subword_prefix, cleanup=False)

    def text(ids: np.ndarray) -> str:
        # Never a tab or the end of a line: the cells of a table hold them.
        return " ".join(join.decode([tokenizer.library.id_to_token(int(token)) for token in ids]).split())

    spans = list(zip(table.offsets[:-1], table.offsets[:-1] + table.first_lengths, table.offsets[1:]))
    texts = [text(table.ids[start + 1 : middle - 1]) for start, middle, _ in spans]
    seconds = [text(table.ids[middle : end - 1]) for _, middle, end in spans] if pairs else None
    again = tokenizer.encode_pairs(texts, seconds, max_length)
    rows = zip(np.split(np.asarray(table.ids), table.offsets[1:-1]), np.split(again.ids, again.offsets[1:-1]))
    same = sum(np.array_equal(ours, theirs) for ours, theirs in rows)
    is_unknown = np.asarray(table.ids) == tokenizer.library.token_to_id("[UNK]")
    counts = np.add.reduceat(is_unknown.astype(np.int64), np.asarray(table.offsets[:-1])) if len(texts) else np.zeros(0)
    cut = int((np.asarray(table.lengths) == max_length).sum())
    return Decoded(texts, seconds, same, cut, int((counts > 0).sum()))


def write_table(path: Path, spec: TaskSpec, found: Decoded, labels: np.ndarray | None, is_test: bool) -> None:
    """Write a .tsv file as the task reads it; a test file without labels has no such column."""
    columns = {spec.text: found.texts}
    if found.pairs is not None:
        columns[spec.text_pair] = found.pairs
    if labels is not None:
        columns[spec.label] = [spec.kind.cell(spec.labels or (), label) for label in labels]
    header = None if is_test else spec.header
    names = header or tuple(columns)
    nothing = [""] * len(found.texts)
    lines = ["\t".join(row) + "\n" for row in zip(*(columns.get(name, nothing) for name in names))]
    path.write_bytes("".join([*(["\t".join(names) + "\n"] if header is None else []), *lines]).encode("utf-8"))


def check_cells(names: Iterable[str]) -> None:
    """Raise DataError for a name that a cell of a .tsv file cannot hold."""
    for name in names:
        if set(name) & {"\t", "\n", "\r"}:
            raise DataError(f"the name {shown(name)} has a tab or an end of a line, which a .tsv file cannot hold")
