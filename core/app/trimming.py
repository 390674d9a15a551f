"""`crossdistil trim`: a model without the words that some texts do not use, and the proof that it says the same of them.

The proof is made on what was written: all texts give the same pieces, and some of them the same hidden states, pooled output and
logits, bit for bit, in NumPy float32. A model that falls through it is not left behind.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path

import numpy as np

from ...converters.canonical import CanonicalCheckpoint, ReadOptions, read_canonical
from ...converters.convert import ConvertOptions, convert
from ...converters.numpy_float32 import Float32Ops
from ...converters.resize import KeptWords
from ...converters.verify import make_outputs, wanted_outputs
from ..data.corpus import read_lines
from ..data.row_batches import RowBatches
from ..data.smaller_vocabulary import kept_tokens, trimmed_tokenizer, used_tokens
from ..data.table_rows import TableFormat
from ..data.tables import EXTENSIONS, column_names, read_columns
from ..data.text_files import read_text
from ..data.tokenize import Tokenizer, load_tokenizer
from ..errors import CheckpointError, CrossdistilError, DataError
from ..models.architectures import takes_types
from ..vocabulary_fit import vocabulary_problems
from .run_student import student_of

_AT_ONCE = 4096
_PROVED, _PROVED_LENGTH, _BATCH = 64, 128, 8

class ProofError(CrossdistilError):
    """The trimmed model does not say the same as the whole one."""


@dataclass(frozen=True)
class Trimmed:
    """What was done: numbers of texts, of their pieces, of rows of the table of words, and bytes of weights and tokenizer."""

    texts: int
    pieces: int
    used: int
    rows: int
    rows_before: int
    bytes: int
    bytes_before: int
    tokenizer_bytes: int
    tokenizer_bytes_before: int
    proved_texts: int
    """Texts whose outputs were compared."""
    outputs: tuple[str, ...]
    unknown_words: int
    """Lines of --keep that are no token."""
    notes: tuple[str, ...] = ()
    """What was taken as texts without being named, each a line."""


def trim(
    source: Path, destination: Path, data: Sequence[Path], keep: Path | None, overwrite: bool, columns: Sequence[str] = ()
) -> Trimmed:
    """Write the model of `source` with the words that the texts of `data` use, and those that the file `keep` lists, into the
    folder `destination`. Of tables all columns are texts, or those named. Raises ProofError where the result would say something
    else, and CrossdistilError."""
    source = student_of(source)
    checkpoint = read_canonical(source, ReadOptions())
    if not checkpoint.tokenizer:
        raise CheckpointError(f"{source}: has no tokenizer, so that nobody can tell which of its words texts use")
    files = [path.stat().st_size for path in checkpoint.tokenizer.values()]
    tokenizer = load_tokenizer(next(iter(checkpoint.tokenizer.values())).parent)
    if tokenizer.is_words:
        raise CheckpointError(f"{source}: has whole words, not pieces of words; a student of fewer is made by student.words")
    if problems := vocabulary_problems(str(source), checkpoint.config, tokenizer):
        raise CheckpointError(problems[0])
    paths = [file for path in data for file in text_files(path)]

    def texts() -> Iterator[list[str]]:
        for path in paths:
            yield from texts_of(path, columns)

    used, count, pieces = used_tokens(tokenizer, texts())
    if not pieces:
        raise DataError(f"--data {', '.join(map(str, data))}: holds no text")
    wanted = [] if keep is None else [line.removesuffix("\r") for line in read_text(keep).split("\n") if line]
    known = tokenizer.library.get_vocab(with_added_tokens=True)
    kept = kept_tokens(tokenizer, used, set(wanted))
    smaller = trimmed_tokenizer(tokenizer, kept)
    proved: list[str] = []

    def prove(trimmed: CanonicalCheckpoint, folder: Path) -> None:
        own = load_tokenizer(folder)
        _same_pieces(tokenizer, own, kept, texts())
        first = list(islice((text for some in texts() for text in some if text.strip()), 8 * _PROVED))
        proved[:] = first[:: max(1, len(first) // _PROVED)][:_PROVED]
        _same_outputs(checkpoint, read_canonical(folder, ReadOptions()), (tokenizer, own), proved, kept)

    with tempfile.TemporaryDirectory() as temporary:
        place = Path(temporary)
        smaller.save(place, takes_types(checkpoint.config))
        words = KeptWords(kept, {path.name: path for path in sorted(place.iterdir())})
        conversion = convert(source, destination, ConvertOptions("pytorch", overwrite=overwrite, for_us=True, words=words), prove)
        sizes = [path.stat().st_size for path in place.iterdir()]
    return Trimmed(
        texts=count,
        pieces=pieces,
        used=int(used.sum()),
        rows=len(kept),
        rows_before=checkpoint.config.vocab_size,
        bytes=conversion.size,
        bytes_before=sum(tensor.info.size for tensor in checkpoint.tensors.values()),
        tokenizer_bytes=sum(sizes),
        tokenizer_bytes_before=sum(files),
        proved_texts=len(proved),
        outputs=tuple(wanted_outputs(_without_words(checkpoint))),
        unknown_words=sum(word not in known for word in wanted),
        notes=() if columns else _all_columns(paths),
    )


def _all_columns(paths: Sequence[Path]) -> tuple[str, ...]:
    """A line for the tables of each kind of which all columns were taken, a label's too."""
    kinds: dict[tuple[str, ...], list[str]] = {}
    for path in paths:
        if path.suffix.lower() in EXTENSIONS:
            kinds.setdefault(tuple(column_names(path, TableFormat(options=()))), []).append(path.name)
    return tuple(
        f"{', '.join(files)}: the cells of all columns are taken as texts ({', '.join(names)}); --column NAME takes only some"
        for names, files in kinds.items()
        if len(names) > 1
    )


def text_files(path: Path) -> list[Path]:
    """The file, or the text files and tables of a folder. Raises DataError where there is none."""
    if path.is_file():
        return [path]
    if not path.is_dir():
        raise DataError(f"--data {path}: no such file or folder")
    found = sorted(file for file in path.iterdir() if file.is_file() and file.suffix.lower() in (".txt", *EXTENSIONS))
    if not found:
        raise DataError(f"--data {path}: holds no file that ends in .txt, {', '.join(EXTENSIONS)}")
    return found


def texts_of(path: Path, columns: Sequence[str]) -> Iterator[list[str]]:
    """The texts of a file, some at a time: the cells of a table's `columns`, or of all, or the lines of any other file."""
    if path.suffix.lower() not in EXTENSIONS:
        yield from read_lines(path)
        return
    format = TableFormat(options=())
    names = list(columns) or column_names(path, format)
    cells = read_columns(path, names, format=format).cells
    for name in names:
        for first in range(0, len(cells[name]), _AT_ONCE):
            yield [str(cell) for cell in cells[name][first : first + _AT_ONCE]]


def _same_pieces(whole: Tokenizer, trimmed: Tokenizer, kept: np.ndarray, texts: Iterator[list[str]]) -> None:
    for some in texts:
        expected, sizes = whole.encode_pieces(some)
        found, own_sizes = trimmed.encode_pieces(some)
        if not np.array_equal(sizes, own_sizes) or not np.array_equal(expected, kept[found]):
            ends, own_ends = np.cumsum(sizes), np.cumsum(own_sizes)
            for row, text in enumerate(some):
                before = expected[ends[row] - sizes[row] : ends[row]]
                after = kept[found[own_ends[row] - own_sizes[row] : own_ends[row]]]
                if not np.array_equal(before, after):
                    raise ProofError(f"the text '{text[:60]}' is cut into other pieces without the words that are left out")


def _without_words(checkpoint: CanonicalCheckpoint) -> CanonicalCheckpoint:
    """Without the heads over words, which predict fewer words on purpose."""
    return replace(checkpoint, heads=())


def _same_outputs(
    whole: CanonicalCheckpoint,
    trimmed: CanonicalCheckpoint,
    tokenizers: tuple[Tokenizer, Tokenizer],
    texts: Sequence[str],
    kept: np.ndarray,
) -> None:
    for name, tensor in whole.tensors.items():
        expected, found = tensor.load(), trimmed.tensors[name].load()
        rows = expected if expected.shape == found.shape else expected[kept]
        if rows.dtype != found.dtype or rows.tobytes() != found.tobytes():
            raise ProofError(f"{name} is not the same but for the rows of words that are left out")
    before, after = (_outputs(*side, texts) for side in zip((whole, trimmed), tokenizers))
    for expected, found in zip(before, after):
        for name in expected:
            if expected[name].tobytes() != found[name].tobytes():
                raise ProofError(f"{name} is not the same, bit for bit, without the words that are left out")


def _outputs(checkpoint: CanonicalCheckpoint, tokenizer: Tokenizer, texts: Sequence[str]) -> list[dict[str, np.ndarray]]:
    """All outputs but those over words, batch by batch."""
    checkpoint = _without_words(checkpoint)
    names, outputs = wanted_outputs(checkpoint), make_outputs(checkpoint)
    parameters = {
        name: array.astype(np.float32)
        for name, tensor in checkpoint.tensors.items()
        if (array := tensor.load()).dtype.kind in "fV"
    }
    length = min(_PROVED_LENGTH, checkpoint.config.positions)
    batches = RowBatches(tokenizer.encode_pairs(texts, None, length), None, [*range(8, length, 8), length])
    found = []
    with np.errstate(all="ignore"):
        for first in range(0, len(texts), _BATCH):
            rows = np.arange(first, min(first + _BATCH, len(texts)))
            found.append(dict(zip(names, map(np.asarray, outputs(Float32Ops(), parameters, batches.batch(rows))))))
    return found
