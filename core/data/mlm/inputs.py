"""Files of text for masked language model examples: found by name, folder or pattern, unpacked while they are read."""

from __future__ import annotations

import bz2
import glob
import gzip
import io
import lzma
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path

import google_crc32c

from ...errors import DataError
from ..text_files import MARK, not_utf8

_UNPACK = {
    b"\x1f\x8b": lambda raw: gzip.GzipFile(fileobj=raw),
    b"BZh": bz2.BZ2File,
    b"\xfd7zXZ\x00": lzma.LZMAFile,
}
_DAMAGED = (OSError, EOFError, zlib.error, lzma.LZMAError)


def find_files(names: Sequence[str]) -> list[Path]:
    """The files that names, folders (with all below them, but not what begins with a dot) and patterns stand for: each once,
    in the order of the names, sorted within one. Raises DataError for a name that stands for none."""
    found: dict[Path, None] = {}
    for name in names:
        path = Path(name)
        if path.is_dir():
            below = sorted(each for each in path.rglob("*") if each.is_file())
            files = [each for each in below if not any(part.startswith(".") for part in each.relative_to(path).parts)]
            problem = "the folder holds no file"
        elif path.is_file():
            files, problem = [path], ""
        else:
            files = sorted(each for each in map(Path, glob.glob(name, recursive=True)) if each.is_file())
            problem = "no file has such a name" if glob.has_magic(name) else "no such file or folder"
        if not files:
            raise DataError(f"--data {name}: {problem}")
        found.update(dict.fromkeys(files))
    return list(found)


class TextFile:
    """A file of UTF-8 text, as it is or packed by gzip, bzip2 or xz (told by its first bytes, whatever its name)."""

    def __init__(self, path: Path):
        self.path = path
        self.size = path.stat().st_size
        self.checksum = 0
        """CRC-32C of the text, unpacked, that has been read."""
        self._raw: io.BufferedReader | None = None

    @property
    def position(self) -> int:
        """Bytes of the file, as it lies on the disk, that have been read."""
        return 0 if self._raw is None else self.size if self._raw.closed else self._raw.tell()

    def lines(self) -> Iterator[tuple[int, str]]:
        """(number counted from 1, line without white space around it). A line ends with \\n, and must fit in memory. Raises
        DataError, with file and line, for what is not UTF-8, damaged or unreadable."""
        number = 0
        try:
            with self.path.open("rb") as self._raw:
                first = self._raw.peek(6)[:6]
                unpack = next((made for magic, made in _UNPACK.items() if first.startswith(magic)), None)
                stream = self._raw if unpack is None else io.BufferedReader(unpack(self._raw), 1 << 20)
                self.checksum = 0
                for number, line in enumerate(stream, 1):
                    self.checksum = google_crc32c.extend(self.checksum, line)
                    text = line.decode("utf-8")
                    yield number, (text.removeprefix(MARK) if number == 1 else text).strip()
        except UnicodeDecodeError as error:
            raise DataError(not_utf8(self.path, number, error.object, error.start)) from None
        except _DAMAGED as error:
            reason = getattr(error, "strerror", None) or error
            raise DataError(f"{self.path}:{number + 1}: cannot be read: {reason}") from None
