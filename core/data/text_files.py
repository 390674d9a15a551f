"""Text as people's files hold it: UTF-8 unless another encoding is named, and a byte-order mark is no part of it.

All that reads text which people wrote goes through here. What is not in the encoding that was asked for is an error that says
in which it would be read.
"""

from __future__ import annotations

import codecs
import io
from pathlib import Path
from typing import TextIO

import numpy as np

from ..errors import CrossdistilError, DataError
from .folders import folder_contents
from .texts import Texts

MARK = "\ufeff"
_MARKS = {
    codecs.BOM_UTF8: "utf-8-sig",
    codecs.BOM_UTF32_LE: "utf-32",
    codecs.BOM_UTF16_LE: "utf-16",
    codecs.BOM_UTF16_BE: "utf-16",
}
_GUESSES = ("utf-8", "gb18030", "cp1252")
_SAMPLE = 1 << 22  # bytes that are tried in another encoding


def open_text(path: Path, encoding: str | None = None, newline: str = "\n") -> TextIO:
    """The file for reading, without its byte-order mark. UTF-16 and UTF-32 are known by theirs; anything else is UTF-8 unless
    `encoding` names it. Raises DataError for a file that cannot be opened; what is not text raises UnicodeDecodeError when it
    is read, which `not_text` puts into words."""
    try:
        file = path.open("rb")
    except FileNotFoundError:
        raise DataError(f"{path}: no such file; {folder_contents(path.parent)}") from None
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror}") from None
    chosen = marked_encoding(file.peek(4)) or encoding or "utf-8"
    return io.TextIOWrapper(file, encoding=chosen, newline=newline)


def marked_encoding(start: bytes) -> str | None:
    """The encoding that a byte-order mark tells, or None where there is none."""
    return next((name for mark, name in _MARKS.items() if start.startswith(mark)), None)


def is_encoding(name: str) -> bool:
    """Whether this is the name of an encoding of text."""
    try:
        "".encode(name)
    except (LookupError, ValueError):
        return False
    return True


def read_text(
    path: Path, encoding: str | None = None, error: type[CrossdistilError] = DataError, way_out: str = ""
) -> str:
    """The whole text of a file, line ends as they are. Raises `error` with the path, and the line of what is not text."""
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        raise error(f"{path}: no such file") from None
    except OSError as problem:
        raise error(f"{path}: cannot be read: {problem.strerror}") from None
    return decoded(path, content, encoding, error, way_out)


def text_lines(path: Path, encoding: str | None, way_out: str) -> tuple[Texts, np.ndarray]:
    """The lines of a file that are not empty, a text each, and their numbers (texts,) int64, from 1 on. Raises as `read_text`."""
    texts, numbers = Texts(), []
    content = read_text(path, encoding, way_out=way_out).removeprefix(MARK)
    for number, line in enumerate(content.split("\n"), start=1):
        if line.strip():
            texts.append(line.removesuffix("\r"))
            numbers.append(number)
    return texts, np.array(numbers, np.int64)


def decoded(
    name: Path | str, content: bytes, encoding: str | None = None, error: type[CrossdistilError] = DataError, way_out: str = ""
) -> str:
    """Bytes as text. `way_out` is how a person names another encoding, with {} for it."""
    try:
        return content.decode(marked_encoding(content) or encoding or "utf-8")
    except UnicodeDecodeError:
        raise error(not_text(name, content, encoding, way_out)) from None


def not_text(name: Path | str, content: bytes, encoding: str | None = None, way_out: str = "") -> str:
    """Why bytes are not text in that encoding, in words: the line, the byte, and an encoding in which they are."""
    chosen = marked_encoding(content) or encoding or "utf-8"
    try:
        content.decode(chosen)
    except UnicodeDecodeError as error:
        problem = error
    else:
        return f"{name}: changed while it was read"
    line = content.count(b"\n", 0, problem.start) + 1
    called = codecs.lookup(chosen).name.upper().replace("UTF-8-SIG", "UTF-8")
    text = f"{name}:{line}: not {called} (byte 0x{content[problem.start]:02x})"
    other = next((guess for guess in _GUESSES if guess != codecs.lookup(chosen).name and _reads_as(content, guess)), None)
    if other is None:
        return text
    return f"{text}; its bytes read as {other.upper()}{f': {way_out.format(other)}' if way_out else ''}"


def not_utf8(name: Path | str, line: int, piece: bytes, place: int) -> str:
    """Why a line of a text that must be UTF-8 is not, in words, and how it becomes so; `place` is the byte."""
    text = f"{name}:{line}: not UTF-8 (byte 0x{piece[place]:02x})"
    other = (marked_encoding(piece) if line == 1 else None) or next(
        (guess for guess in _GUESSES if _reads_as(piece, guess)), None
    )
    return text if other is None else f"{text}; its bytes read as {other.upper()}: iconv -f {other} -t utf-8 makes it so"


def _reads_as(content: bytes, encoding: str) -> bool:
    try:
        text = codecs.getincrementaldecoder(encoding)().decode(content[:_SAMPLE], len(content) <= _SAMPLE)
    except UnicodeDecodeError:
        return False
    return not any(ord(character) < 32 and character not in "\t\n\r\f" for character in text)
