"""JSON from files that are not trusted: all reading of JSON goes through here.

What Python's reader leaves open is settled: a byte-order mark is skipped; a key that stands twice in one object, NaN, infinity,
integers of more than 40 digits and a nesting of more than 100 levels are errors, as is a file above a size that no such file
has. Every error is one line, `FILE: line L: what`.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from .errors import CrossdistilError
from .shown import plain, shown

MAX_BYTES = 1 << 25
"""Of a file that is one value: the longest, an index or a tokenizer, have some million."""
MAX_DEPTH = 100
_MAX_DIGITS = 40


def read_json(
    path: Path, error: type[CrossdistilError] = CrossdistilError, limit: int = MAX_BYTES, any_number: bool = False
) -> Any:
    """The value in a file, as `parse_json`. Raises `error`; a file that is not there is a FileNotFoundError, to be told as what
    it is."""
    try:
        with path.open("rb") as file:
            data = file.read(limit + 1)
    except FileNotFoundError:
        raise
    except (OSError, ValueError) as problem:  # a ValueError of a path with a zero byte
        raise error(f"{path}: cannot be read: {getattr(problem, 'strerror', None) or problem}") from problem
    return parse_json(data, str(path), error, limit, any_number)


def read_object(
    path: Path, error: type[CrossdistilError] = CrossdistilError, limit: int = MAX_BYTES, any_number: bool = False
) -> dict[str, Any]:
    """As `read_json`, of a file that holds an object."""
    value = read_json(path, error, limit, any_number)
    if not isinstance(value, dict):
        raise error(f"{path}: expected a JSON object, got {shown(value, 60)}")
    return value


def parse_json(
    data: bytes | str,
    where: str,
    error: type[CrossdistilError] = CrossdistilError,
    limit: int | None = None,
    any_number: bool = False,
) -> Any:
    """The value in bytes of UTF-8 or a text; `where` begins every message. `any_number`: NaN and infinity are allowed, as
    Python writes them."""
    if limit is not None and len(data) > limit:
        raise error(f"{where}: is longer than the {limit:,} bytes that such JSON may have")
    try:
        text = data.decode("utf-8-sig") if isinstance(data, bytes) else data.removeprefix("\ufeff")
    except UnicodeDecodeError as problem:
        line = data.count(b"\n", 0, problem.start) + 1
        raise error(f"{where}: line {line}: is no JSON, or damaged: byte {problem.start:,} is not UTF-8") from problem
    hooks = {} if any_number else {"parse_constant": _no_constant, "parse_float": _finite}
    try:
        value = json.loads(text, object_pairs_hook=unique, parse_int=_integer, **hooks)
        if text.count("[") + text.count("{") > MAX_DEPTH:
            _check_depth(value)
    except json.JSONDecodeError as problem:
        line = f"line {problem.lineno}: " if "\n" in text.strip() else ""
        raise error(f"{where}: {line}is no JSON, or damaged ({problem.msg}, column {problem.colno})") from problem
    except Refused as problem:
        raise error(f"{where}: {problem}") from problem
    except RecursionError as problem:
        raise error(f"{where}: is no JSON that is read here: it is nested more than {MAX_DEPTH} levels deep") from problem
    except ValueError as problem:
        raise error(f"{where}: is no JSON, or damaged ({plain(str(problem))})") from problem
    return value


def json_lines(
    path: Path, error: type[CrossdistilError] = CrossdistilError, any_number: bool = False
) -> Iterator[tuple[int, Any]]:
    """(line's number from 1, value) of a file with a value a line; empty lines are left out."""
    with path.open("rb") as file:
        for number, line in enumerate(file, 1):
            if line.strip(b"\xef\xbb\xbf \t\r\n" if number == 1 else None):
                yield number, parse_json(line, f"{path}: line {number}", error, any_number=any_number)


class Refused(ValueError):
    """What is JSON, but is not read here; the message says why."""


def is_number(value: Any) -> bool:
    """Whether a value is a number, which true and false are not."""
    return isinstance(value, int | float) and not isinstance(value, bool)


def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """An object of its (key, value) pairs. Raises Refused where a key stands twice."""
    found = dict(pairs)
    if len(found) < len(pairs):
        seen: set[str] = set()
        twice = next(key for key, _ in pairs if key in seen or seen.add(key))
        raise Refused(f"{shown(twice)} is there twice")
    return found


def _integer(digits: str) -> int:
    if len(digits) > _MAX_DIGITS:
        raise Refused(f"has an integer of {len(digits):,} digits, which nothing here means; at most {_MAX_DIGITS}")
    return int(digits)


def _finite(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise Refused(f"has the number {plain(text, 40)}, which is too large")
    return number


def _no_constant(name: str) -> float:
    raise Refused(f"has {name}, expected numbers")


def _check_depth(value: Any) -> None:
    """RecursionError for what is nested too deep; a few hundred levels less than what ends Python's own functions."""
    level = [value]
    for _ in range(MAX_DEPTH):
        level = [
            inner
            for outer in level
            if isinstance(outer, dict | list)
            for inner in (outer.values() if isinstance(outer, dict) else outer)
            if isinstance(inner, dict | list)
        ]
        if not level:
            return
    raise RecursionError
