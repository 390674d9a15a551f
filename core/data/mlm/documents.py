"""Text files to documents of sentences, in blocks of bounded size that workers take one at a time.

Four formats, told by a file's beginning unless one is given:
  sentences   a sentence a line, blank lines between documents (what Google's script reads)
  lines       a document a line
  wiki        what WikiExtractor writes: <doc ...>, the title, paragraphs, </doc>
  json        JSON lines with the text under a key
Lines of all but the first are split into sentences by a simple rule, after . ! ? and their Chinese forms.
"""

from __future__ import annotations

import html
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import google_crc32c

from ...errors import CrossdistilError, DataError
from ...json_files import parse_json
from ...shown import plain
from .inputs import TextFile
from .settings import BLOCK_BYTES

FORMATS = ("sentences", "lines", "wiki", "json")

_PARTS = 8  # of a block: a longer document becomes several, so that a block has other documents to take a next sentence from
_HEAD_CHARACTERS = 1 << 18
# Beginning with the signs themselves, which are looked for several times faster than places between two characters.
_SENTENCE_END = re.compile(
    r"[。！？….!?](?:(?<=[。！？…])(?:[”’」』]|(?![。！？…”’」』]))"
    r"|(?<=[.!?])(?<!\b[A-Z]\.)\s+(?=[\"“(A-Z0-9]))"
)
_TITLE = re.compile(r'\btitle="(.*)">$')


@dataclass(frozen=True)
class Block:
    """Some documents, each a list of sentences; `ended` of them ended here, and `position` bytes of all files were read."""

    number: int
    documents: list[list[str]]
    ended: int
    position: int


class Corpus:
    """The documents of some files. `format` is one of FORMATS, or None to tell it from each file's beginning; `text_key` is
    the key of the text in JSON lines."""

    def __init__(self, files: Sequence[Path], format: str | None = None, text_key: str = "text"):
        self._files = [TextFile(path) for path in files]
        self._text_key = text_key
        formats = [format or detect_format(path) for path in files]
        if "sentences" in formats:
            # A file without a blank line among those with some is one document, not one of one-line documents.
            formats = ["sentences" if found == "lines" else found for found in formats]
        self.formats: list[str] = formats
        self.size = sum(file.size for file in self._files)
        self.names = [(file.path.name, file.size) for file in self._files]

    @property
    def position(self) -> int:
        """Bytes read so far, of `size`."""
        return sum(file.position for file in self._files)

    @property
    def checksum(self) -> str:
        """Of all text that has been read, file after file, whatever the files are packed with."""
        sums = "".join(f"{file.checksum:08x}" for file in self._files)
        return f"{google_crc32c.value(sums.encode()):08x}"

    def where(self) -> str:
        """What to call the files in a message."""
        first = str(self._files[0].path)
        return first if len(self._files) == 1 else f"{first} and {len(self._files) - 1} more"

    def sentences(self, join_files: bool = False) -> Iterator[str | None]:
        """Sentences, and None where a document ends. With `join_files`, a file of format sentences does not end the document
        at its end (Google's script goes on with the same document in the next file)."""
        for file, format in zip(self._files, self.formats):
            if format == "sentences":
                yield from (text or None for _, text in file.lines())
                if not join_files:
                    yield None
            elif format == "lines":
                for _, text in file.lines():
                    yield from split_sentences(text)
                    yield None
            elif format == "wiki":
                yield from _wiki_sentences(file)
            else:
                yield from self._json_sentences(file)

    def _json_sentences(self, file: TextFile) -> Iterator[str | None]:
        for number, line in file.lines():
            if not line:
                continue
            content = parse_json(line, f"{file.path}:{number}", DataError)
            text = content.get(self._text_key) if isinstance(content, dict) else None
            if not isinstance(text, str):
                keys = f"its keys are {plain(', '.join(content))}" if isinstance(content, dict) else "it is no object"
                raise DataError(f"{file.path}:{number}: expected a text under the key '{self._text_key}'; {keys}")
            for part in text.split("\n"):
                yield from split_sentences(part.strip())
            yield None

    def blocks(self, size: int = BLOCK_BYTES) -> Iterator[Block]:
        """The documents in blocks of about `size` bytes of UTF-8 text. Raises DataError where there is none at all."""
        documents: list[list[str]] = []
        document: list[str] = []
        number = ended = total = length = 0
        for sentence in self.sentences():
            if sentence is not None:
                document.append(sentence)
                length += len(sentence) if sentence.isascii() else len(sentence.encode("utf-8"))
            if document and (sentence is None or length >= size // _PARTS):
                documents.append(document)
                total += length
                ended += sentence is None
                document, length = [], 0
                if total >= size:
                    yield Block(number, documents, ended, self.position)
                    documents, number, ended, total = [], number + 1, 0, 0
        if document:
            documents.append(document)
            ended += 1
        if documents:
            yield Block(number, documents, ended, self.position)
        elif number == 0:
            raise DataError(f"{self.where()}: holds no text")


def split_sentences(text: str) -> Iterator[str]:
    """The sentences of a line, without white space around them."""
    start = 0
    for found in _SENTENCE_END.finditer(text):
        if part := text[start : found.end()].strip():
            yield part
        start = found.end()
    if part := text[start:].strip():
        yield part


def detect_format(path: Path) -> str:
    """One of FORMATS, from the first lines."""
    seen, texts, blank = 0, 0, False
    for _, line in TextFile(path).lines():
        if line:
            if not texts and line.startswith("<doc ") and line.endswith(">"):
                return "wiki"
            if not texts and _is_object(line):
                return "json"
            if blank:
                return "sentences"
            texts += 1
        else:
            blank = texts > 0
        seen += len(line)
        if seen > _HEAD_CHARACTERS:
            break
    return "lines"


def _is_object(line: str) -> bool:
    try:
        return line.startswith("{") and isinstance(parse_json(line, ""), dict)
    except CrossdistilError:
        return False


def _wiki_sentences(file: TextFile) -> Iterator[str | None]:
    opened = 0  # the line of the <doc> that is open
    title = None
    for number, line in file.lines():
        place = f"{file.path}:{number}"
        if line.startswith("<doc ") and line.endswith(">"):
            if opened:
                raise DataError(f"{place}: a <doc> within that of line {opened}, expected </doc> first")
            opened, found = number, _TITLE.search(line)
            title = found and html.unescape(found.group(1))
        elif line == "</doc>":
            if not opened:
                raise DataError(f"{place}: </doc> without <doc>")
            opened = 0
            yield None
        elif line:
            if not opened:
                raise DataError(f"{place}: text outside of <doc ...> and </doc>; is it WikiExtractor's output?")
            text = html.unescape(line)
            if text != title:
                yield from split_sentences(text)
            title = None  # only the first line repeats it
    if opened:
        raise DataError(f"{file.path}:{opened}: this <doc> has no </doc>; the file is cut off")
