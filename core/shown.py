"""Values as messages show them: short, on one line and free of anything that a terminal obeys, whatever they hold.

A value from a file can be endless to walk (a YAML alias inside of itself, nested pairs of one and the same list), can be a text
of a gigabyte, and can hold control characters that move the cursor or turn the direction of writing. Here no more of a value is
looked at than is shown.
"""

from __future__ import annotations

import datetime
from collections.abc import Iterator
from pathlib import PurePath
from typing import Any

LIMIT = 200
"""Characters of a value that a message shows."""

_DEPTH = 6
_DIGITS = 40


def shown(value: Any, limit: int = LIMIT) -> str:
    """A value much as `repr` gives it: texts in quotes, unprintable characters, half characters and those that turn the
    direction of writing as escapes, and `...` for what goes beyond `limit` characters or six levels."""
    pieces, length = [], 0
    for piece in _pieces(value, limit, 0):
        pieces.append(piece)
        length += len(piece)
        if length > limit:
            break
    text = "".join(pieces)
    # A text by itself was cut inside its quotes.
    return text if len(text) <= limit or isinstance(value, str | bytes | bytearray) else f"{text[:limit]}..."


def plain(text: str, limit: int = LIMIT) -> str:
    """A text without quotes, for what others say (reasons, names inside a sentence); escaped and cut as `shown` does."""
    start = printable(text[:limit])
    return start if len(text) <= limit else f"{start}..."


def counted(number: float, noun: str) -> str:
    """`1 layer`, `12 layers`, `0.5 minutes`."""
    return f"{number:{',g' if isinstance(number, float) else ','}} {noun}{'s' * (number != 1)}"


def printable(text: str, kept: str = "") -> str:
    """A text with escapes for all that is not printable, but for the characters in `kept`."""
    if text.isprintable():
        return text
    return "".join(letter if letter.isprintable() or letter in kept else repr(letter)[1:-1] for letter in text)


def _pieces(value: Any, limit: int, depth: int) -> Iterator[str]:
    """The text in parts, each made when it is asked for."""
    if isinstance(value, str):
        yield repr(value if len(value) <= limit else f"{value[:limit]}...")
    elif isinstance(value, bytes | bytearray):
        yield repr(bytes(value[:limit])) + ("..." if len(value) > limit else "")
    elif isinstance(value, int) and not isinstance(value, bool) and value.bit_length() > _DIGITS * 10 // 3:
        yield f"an integer of {value.bit_length():,} bits"
    elif isinstance(value, dict):
        yield from _enclosed("{}", _entries(value, limit, depth), depth)
    elif isinstance(value, list):
        yield from _enclosed("[]", _items(value, limit, depth), depth)
    elif isinstance(value, tuple):
        yield from _enclosed(("(", ",)" if len(value) == 1 else ")"), _items(value, limit, depth), depth)
    elif isinstance(value, set | frozenset) and value:
        yield from _enclosed("{}", _items(value, limit, depth), depth)
    elif isinstance(value, PurePath | datetime.date):
        yield plain(str(value), limit)
    elif value is None or isinstance(value, bool | int | float | complex):
        yield repr(value)
    else:
        yield f"<{plain(type(value).__name__)}>"


def _enclosed(brackets: tuple[str, str] | str, inner: Iterator[str], depth: int) -> Iterator[str]:
    yield brackets[0]
    if depth < _DEPTH:
        yield from inner
    else:
        yield "..."
    yield brackets[1]


def _items(values: Any, limit: int, depth: int) -> Iterator[str]:
    for number, value in enumerate(values):
        if number:
            yield ", "
        yield from _pieces(value, limit, depth + 1)


def _entries(values: dict, limit: int, depth: int) -> Iterator[str]:
    for number, (key, value) in enumerate(values.items()):
        if number:
            yield ", "
        yield from _pieces(key, limit, depth + 1)
        yield ": "
        yield from _pieces(value, limit, depth + 1)
