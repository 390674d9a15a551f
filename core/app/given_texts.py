"""The texts that `predict` is given: lines of a file or of standard input, or columns of a table.

A model that was trained here knows in which columns its task's texts are; of any other model's table the column must be named.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path
from typing import Any

from ..checkpoint import Model
from ..data.answer_files import FILES as QUESTION_FILES
from ..data.answer_files import read_questions
from ..data.answer_format import format_of
from ..data.arrow_tables import is_arrow
from ..data.ranking_files import read_ranking
from ..data.ranking_format import RankingFormat
from ..data.table_rows import TableFormat
from ..data.tables import EXTENSIONS, column_names, is_half, read_columns
from ..data.tagged_files import JSON_FILES as TAGGED_JSON
from ..data.tagged_files import ONLY_COLUMNS, read_words
from ..data.tagged_format import JSON_TEXT as TAGGED_TEXT
from ..data.tagged_lists import read_lists, words_column
from ..data.task_specs import glue_task
from ..data.text_files import decoded, is_encoding, read_text
from ..errors import CrossdistilError, DataError
from ..kinds.kind import Kind
from ..kinds.known_kinds import ONE_CLASS
from ..model_inputs import own_columns, takes_pairs
from ..world import World
from .finished_model import warn
from .sessions import Tell

STANDARD_INPUT = Path("-")


@dataclass(frozen=True)
class GivenTexts:
    """Texts in their order, with the second ones of pairs, and what identifies each where a column does."""

    texts: Sequence[str]
    pairs: Sequence[str] | None = None
    ids: Sequence[Any] | None = None
    notes: tuple[str, ...] = ()
    by_spaces: bool = False
    """Whether words are what stands between spaces, as in texts that were columns of words."""
    lists: Sequence[int] | None = None
    """Of rankings, whose texts are queries and whose pairs are candidates: where each list begins, and the end of the last."""


def of_the_first(world: World, read: Callable[..., GivenTexts], *arguments: Any) -> GivenTexts:
    """What `read(*arguments)` gives in the first process, which alone may see the file or have the standard input, in all."""
    found = world.lead(read, *arguments)
    if world.size == 1:
        return found
    if found is None:
        parts = None
    else:
        columns = (found.texts, found.pairs, found.ids, found.notes)
        parts = [*(part if part is None else list(part) for part in columns), found.by_spaces, found.lists]
    texts, pairs, ids, notes, by_spaces, lists = json.loads(world.first(json.dumps(parts).encode()))
    return GivenTexts(texts, pairs, ids, tuple(notes), by_spaces, lists)


def check_columns(
    file: Path | None, text_column: str | None, pair_column: str | None, encoding: str | None, id_column: str | None = None
) -> None:
    """Raise CrossdistilError for options that say how a file is read where none is given, or that do not go together."""
    for option, value in {"--text-column": text_column, "--id-column": id_column, "--encoding": encoding}.items():
        if value is not None and file is None:
            what = "is of --file" if option == "--encoding" else "is a column of --file"
            raise CrossdistilError(f"{option}: {what}, which is not given")
    if pair_column is not None and text_column is None:
        raise CrossdistilError("--pair-column: needs --text-column, the column of the first texts")
    if encoding is not None and not is_encoding(encoding):
        raise CrossdistilError(f"--encoding {encoding}: no encoding of text; for example gb18030, big5, cp1252, utf-16")


def read_texts(
    path: Path,
    task: dict[str, Any],
    text: str | None = None,
    pair: str | None = None,
    id_column: str | None = None,
    encoding: str | None = None,
    kind: Kind = ONE_CLASS,
) -> GivenTexts:
    """The texts of a file: the columns of a TSV, CSV or JSON table, of a model of tokens the sentences of a file of columns or
    the texts of one with spans or of lists of words, of one of answers the questions and contexts of SQuAD's JSON, of one of
    rankings lists of candidates, or each line of any other file and of standard input. `task` describes the task of the model, of
    that `kind`, which tells the columns that are not named. Raises DataError."""
    if kind.of_spans and path.suffix.lower() in QUESTION_FILES and text is None:
        found = read_questions(path, format_of(task), reads_answers=False)
        return GivenTexts(found.questions, found.contexts, found.ids, tuple(found.notes))
    if kind.ranks and path.suffix.lower() in EXTENSIONS and text is None:
        if id_column is not None:
            told = "is for a table of pairs, with --text-column and --pair-column; a ranking is known by its query"
            raise CrossdistilError(f"--id-column: {told}")
        return _lists(path, task, encoding)
    if kind.embeds:  # a column of texts at a time
        task = {**task, "text_pair": None}
    of_tokens = kind.per_token
    if path == STANDARD_INPUT or path.suffix.lower() not in EXTENSIONS:
        tagged = path.suffix.lower() in ONLY_COLUMNS
        if tagged and not of_tokens:
            raise DataError(f"{path}: holds a word a line ({', '.join(ONLY_COLUMNS)}), but the model answers whole texts")
        if text is not None or id_column is not None:
            option = "--id-column" if text is None else "--text-column"
            if tagged:
                what = "a tagged file, whose words are read as they stand: it has no columns to choose from"
                raise CrossdistilError(f"{option}: {path} is {what}; leave {option} out")
            what = "standard input" if path == STANDARD_INPUT else str(path)
            raise CrossdistilError(f"{option}: is a column of a table ({', '.join(EXTENSIONS)}), but {what} has one text a line")
        if tagged:
            words, _, _ = read_words(path, task.get("columns"), task.get("text") or "", encoding or task.get("encoding"))
            return GivenTexts(words, by_spaces=True)
        return GivenTexts(_lines(path, encoding))
    own_text, own_pair = own_columns(task)
    format = TableFormat(
        encoding or task.get("encoding"), task.get("separator"), task.get("quoting"), options=("encoding",)
    )
    there = column_names(path, format)
    if of_tokens and pair is None and (path.suffix.lower() in TAGGED_JSON or is_arrow(path)):
        words = words_column(path, text or (own_text if own_text in there else ""), format)
        if words:
            found = read_lists(path, words, "", format, with_labels=False)
            ids = None if id_column is None else read_columns(path, [id_column], format=format).cells[id_column]
            return GivenTexts(found.texts, ids=ids, notes=found.notes, by_spaces=True)
    if of_tokens and path.suffix.lower() in TAGGED_JSON and own_text not in there and TAGGED_TEXT in there:
        own_text, own_pair = TAGGED_TEXT, None  # as training reads texts with their spans; columns of words had other names
    names = [own_text, own_pair] if text is None else [text, pair]
    if names[0] is None:
        raise DataError(f"{path}: name the column of the texts with --text-column; the columns are {', '.join(there)}")
    names = [name for name in names if name is not None]
    wanted = names if id_column is None else [*names, id_column]
    official = glue_task(task.get("name", ""))
    header = task.get("columns") or (official.header if official is not None else None)
    if header is not None and all(name in there for name in wanted):
        header = None
    columns = read_columns(path, wanted, header=header, texts=names, format=format)
    cells = columns.cells
    ids = None if id_column is None else cells[id_column]
    return GivenTexts(cells[names[0]], cells[names[1]] if len(names) > 1 else None, ids, columns.notes)


def check_given(what: str, texts: Sequence[str]) -> None:
    """Raise DataError for what is no text."""
    for number, text in enumerate(texts, 1):
        if not isinstance(text, str):
            raise DataError(f"{what} {number}: got {type(text).__name__}, expected a text")
        if is_half(text):
            raise DataError(f"{what} {number}: holds a byte that is not UTF-8, or half a surrogate pair")


def check_pairs(folder: Path, model: Model, pairs: Sequence[str] | None, tell: Tell | None) -> None:
    """Raise DataError for a kind of model that takes pairs of texts and gets none, or that never takes any; one that was trained
    on pairs and gets none is warned of."""
    if pairs is None and model.kind.of_spans:
        raise DataError(f"{folder} answers questions from a text: give it beside the question (--pair TEXT, or a --file)")
    if pairs is not None and model.kind.per_token:
        raise DataError(f"got second texts, but {folder} finds spans in single texts")
    if pairs is not None and model.kind.embeds:
        raise DataError(f"got second texts, but {folder} embeds single texts; give them as texts of their own")
    if pairs is None and (model.kind.ranks or takes_pairs(model.about.get("task", {}))) and not model.kind.embeds:
        warn(f"{folder} was trained on pairs of texts, but gets single ones", tell)


def _lists(path: Path, task: dict[str, Any], encoding: str | None) -> GivenTexts:
    """Queries and candidates of a file, whatever it says of what is relevant."""
    own = task.get("ranking") or {}
    how = RankingFormat(task.get("text"), task.get("text_pair"), None, own.get("positive"), own.get("negative"))
    format = TableFormat(encoding or task.get("encoding"), task.get("separator"), task.get("quoting"), options=("encoding",))
    found, notes = read_ranking(path, how, format, task.get("columns"), False, False)
    queries = [each.query for each in found for _ in each.texts]
    texts = [text for each in found for text in each.texts]
    places = list(accumulate((len(each.texts) for each in found), initial=0))
    return GivenTexts(queries, texts, notes=notes, lists=places)


def _lines(path: Path, encoding: str | None) -> list[str]:
    if path == STANDARD_INPUT:
        name = "standard input"
        text = decoded(name, sys.stdin.buffer.read(), encoding, way_out="--encoding {}")
    else:
        name, text = str(path), read_text(path, encoding, way_out="--encoding {}")
    lines = text.split("\n")
    if not lines[-1]:
        lines.pop()
    if not lines:
        raise DataError(f"{name}: is empty, expected one text a line")
    return [line.removesuffix("\r") for line in lines]
