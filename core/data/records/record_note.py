"""`records.json`, which stands beside the record files of a task and says what they are of.

Without it nobody can tell a record of the right length from one of another vocabulary, whose numbers look the same. It has
  format, task, kind, labels, text, text_pair, label   the file format; the task, its classes, the columns that the texts were in
  vocabulary    size and SHA-256 of the tokens in their order, and how texts were cleaned
  max_length    numbers in each of input_ids, input_mask and segment_ids
  splits        of each: file, rows, whether it has labels, bytes, and a CRC32C (8 hexadecimal digits) of each 64 KiB of it
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any, Literal

import google_crc32c
import pydantic
import tokenizers

from ...errors import DataError
from ...json_files import read_json
from ...plain_names import EXPECTED, is_plain_name
from ...shown import plain, shown

NOTE = "records.json"
FORMATS = ("tfrecord", "ofrecord", "mindrecord")
_VERSION = 1
_BLOCK = 1 << 16


class _Model(pydantic.BaseModel):
    model_config = pydantic.ConfigDict(extra="forbid", frozen=True, strict=True)


class VocabularyNote(_Model):
    """What a tokenizer's vocabulary is and how it cleans texts; None where it does that in another way than BERT's."""

    size: int
    sha256: str
    lower_case: bool | None
    strip_accents: bool | None
    split_chinese: bool | None

    @classmethod
    def of(cls, library: tokenizers.Tokenizer) -> VocabularyNote:
        """Of a tokenizer."""
        vocabulary = library.get_vocab(with_added_tokens=True)
        lines = "".join(f"{token}\n" for token in sorted(vocabulary, key=vocabulary.get))
        normalizer: dict[str, Any] = json.loads(library.to_str())["normalizer"] or {}
        is_bert = normalizer.get("type") == "BertNormalizer"
        lower, accents, chinese = (
            normalizer[name] if is_bert else None for name in ("lowercase", "strip_accents", "handle_chinese_chars")
        )
        return cls(
            size=len(vocabulary),
            sha256=hashlib.sha256(lines.encode("utf-8")).hexdigest(),
            lower_case=lower,
            strip_accents=lower if accents is None else accents,  # as the library does it
            split_chinese=chinese,
        )

    def fit_problems(self, library: tokenizers.Tokenizer) -> list[str]:
        """What does not fit between this and a tokenizer, in words that go on from what is of this vocabulary."""
        other, problems = VocabularyNote.of(library), []
        if self.size != other.size:
            problems.append(f"their vocabulary has {self.size:,} tokens, the tokenizer's {other.size:,}")
        elif self.sha256 != other.sha256:
            problems.append(f"their vocabulary of {self.size:,} tokens has other tokens, or another order, than the tokenizer's")
        for name in ("lower_case", "strip_accents", "split_chinese"):
            mine, theirs = getattr(self, name), getattr(other, name)
            if mine != theirs:
                problems.append(f"they are of {name} {_said(mine)}, the tokenizer is of {name} {_said(theirs)}")
        return problems


class SplitNote(_Model):
    """One split's file."""

    file: str
    rows: int = pydantic.Field(ge=0)
    labelled: bool
    bytes: int = pydantic.Field(ge=0)
    crc32c: str

    @pydantic.field_validator("file")
    @classmethod
    def _plain(cls, name: str) -> str:
        return _plain_name(name)


class RecordNote(_Model):
    """The content of records.json."""

    version: Literal[1] = _VERSION
    format: Literal[FORMATS]  # type: ignore[valid-type]
    task: str
    kind: Literal["classification", "multi-label classification", "regression"]
    labels: list[str] | None
    text: str
    text_pair: str | None
    label: str
    vocabulary: VocabularyNote
    max_length: int = pydantic.Field(ge=1, le=1 << 20)
    splits: dict[str, SplitNote]

    @pydantic.field_validator("splits")
    @classmethod
    def _plain(cls, splits: dict[str, SplitNote]) -> dict[str, SplitNote]:
        for name in splits:
            _plain_name(name)
        return splits

    def fit_problems(self, library: tokenizers.Tokenizer, max_length: int) -> list[str]:
        """What does not fit between these records and a tokenizer, and the length that texts are cut to."""
        problems = self.vocabulary.fit_problems(library)
        if self.max_length != max_length:
            problems.append(f"their texts were cut to {self.max_length} tokens, task.max_length is {max_length}")
        return problems


def read_note(folder: Path) -> RecordNote | None:
    """The note of a folder, or None where it has none. Raises DataError for one that is damaged or of a later version."""
    path = Path(folder) / NOTE
    try:
        if not path.is_file():
            return None
        return RecordNote.model_validate_json(json.dumps(read_json(path, DataError)))
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror}") from None
    except pydantic.ValidationError as error:
        first = error.errors()[0]
        place = plain(".".join(map(str, first["loc"])))
        raise DataError(f"{path}: {f'{place}: ' if place else ''}{plain(first['msg'].removeprefix('Value error, '))}") from None


def _plain_name(name: str) -> str:
    """ValueError for a split or a file that is no plain name: both become paths."""
    if not is_plain_name(name):
        raise ValueError(f"got {shown(name)}, expected {EXPECTED}")
    return name


def block_checksums(path: Path) -> str:
    """The CRC32C of each block of a file, one after the other."""
    with path.open("rb") as file:
        return "".join(f"{google_crc32c.value(block):08x}" for block in iter(lambda: file.read(_BLOCK), b""))


def first_damage(path: Path, split: SplitNote) -> str | None:
    """How a file is not the one that was written, in words, or None. Raises DataError where it cannot be read."""
    try:
        size = path.stat().st_size
        if size != split.bytes:
            return f"has {size:,} bytes, but {NOTE} says {split.bytes:,}"
        found = block_checksums(path)
    except FileNotFoundError:
        raise DataError(f"{path}: no such file, but {NOTE} names it") from None
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror}") from None
    for start in range(0, max(len(found), len(split.crc32c)), 8):
        if found[start : start + 8] != split.crc32c[start : start + 8]:
            first = start // 8 * _BLOCK
            return f"is damaged: the checksum of its bytes {first:,} to {min(first + _BLOCK, size) - 1:,} is wrong"
    return None


def _said(value: bool | None) -> str:
    return "unknown" if value is None else str(value).lower()
