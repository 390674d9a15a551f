"""Teacher outputs on disk: computed once, by any backend, and read in every epoch by any other.

A cache is a folder with a flat file for each output, `identity.json` that says of which teacher, tokens and outputs it is,
`progress.json` while it is being written, and `complete.json` with sizes and checksums at the end. It is written in
place so that an interrupted writer goes on where it stopped; nothing reads it before it is complete.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import time
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from .checkpoint import Model
from .data.token_table import TokenTable
from .errors import CrossdistilError
from .files import clear_disk_errors, make_folder, write_text
from .json_files import read_object
from .locks import hold_folder, lock_file
from .shown import shown
from .teacher_outputs import Layout, load, make_layout, store
from .workplaces import remove_dead

_FORMAT = 1
_CHUNK = 1 << 24  # bytes checked at once
_SAVE_SECONDS = 20.0
DTYPES = {"fp32": np.dtype("<f4"), "fp16": np.dtype("<f2")}

_AGAIN = "delete the folder to make the cache again"


class DamagedCache(CrossdistilError):
    """A cache that is not as it was written; a new one can take its place."""


Outputs = Iterator[tuple[np.ndarray, list[np.ndarray]]]
"""(rows, values of each output padded as the model gave them), every row once, in an order that is always the same."""


@dataclass(frozen=True)
class CacheKey:
    """What a cache is of."""

    teacher: str
    """Digest of the teacher's configuration and weights."""
    tokens: str
    """Digest of the rows as the teacher takes them: data, tokenizer and length."""
    outputs: tuple[str, ...]
    precision: str
    """What the numbers are stored in."""
    computed_in: str
    """What the teacher computed in."""

    def as_json(self) -> dict:
        """The content of identity.json."""
        return {
            "format": _FORMAT,
            "teacher": self.teacher,
            "tokens": self.tokens,
            "outputs": list(self.outputs),
            "precision": self.precision,
            "computed_in": self.computed_in,
        }

    @property
    def digest(self) -> str:
        """A name for the folder."""
        return hashlib.sha256(json.dumps(self.as_json(), sort_keys=True).encode()).hexdigest()[:32]


def model_digest(model: Model) -> str:
    """SHA-256 of a model's configuration and weights."""
    digest = hashlib.sha256(model.config.model_dump_json().encode())
    for name in sorted(model.parameters):
        array = np.ascontiguousarray(model.parameters[name])
        digest.update(f"{name} {array.shape}".encode())
        digest.update(array.data)
    return digest.hexdigest()


def tokens_digest(table: TokenTable) -> str:
    """SHA-256 of the rows of a token table."""
    digest = hashlib.sha256(f"{table.pad_id} {table.apart}".encode())
    for array in (table.ids, table.offsets, table.first_lengths):
        digest.update(np.ascontiguousarray(array).data)
    return digest.hexdigest()


class TeacherCache:
    """One teacher's outputs for the rows of a token table."""

    def __init__(self, folder: Path, key: CacheKey, model: Model, lengths: np.ndarray):
        self.folder, self.key = folder, key
        self._lengths = np.asarray(lengths)
        self.layouts = [make_layout(name, model.config, model.outputs, self._lengths) for name in key.outputs]
        self._dtype = DTYPES[key.precision]
        self._flat: list[np.ndarray] = []

    @property
    def size(self) -> int:
        """Bytes on the disk."""
        return sum(layout.size for layout in self.layouts) * self._dtype.itemsize

    @property
    def missing(self) -> int:
        """Bytes that writing it will still take from the disk."""
        paths = [path for path in map(self.path, self.layouts) if path.is_file()]
        return 0 if self.complete else max(0, self.size - sum(path.stat().st_blocks * 512 for path in paths))

    @property
    def complete(self) -> bool:
        """Whether it was written to the end."""
        return (self.folder / "complete.json").is_file()

    def path(self, layout: Layout) -> Path:
        """The file of an output."""
        return self.folder / f"{layout.name.replace('/', '-')}.bin"

    def check_identity(self) -> None:
        """Raise CrossdistilError if the folder holds a cache of something else."""
        path = self.folder / "identity.json"
        try:
            found = read_object(path, DamagedCache)
        except FileNotFoundError:
            # It is written first: where there is anything else, someone removed it.
            if self.complete or (self.folder / "progress.json").is_file():
                raise DamagedCache(f"{path}: missing; {_AGAIN}") from None
            return
        except DamagedCache as error:
            raise DamagedCache(f"{error}; {_AGAIN}") from error
        words = {"teacher": "another teacher", "tokens": "other data or another tokenizer", "outputs": "other outputs"}
        for name, expected in self.key.as_json().items():
            if found.get(name) != expected:
                what = words.get(name, f"{name} {shown(found.get(name))} instead of {shown(expected)}")
                raise CrossdistilError(
                    f"{self.folder}: is a teacher cache of {what}; choose another teacher_cache.folder or delete it"
                )

    def write(self, outputs: Callable[[int], Outputs], tell: Callable[[int, int], None]) -> None:
        """Fill the cache. `outputs(n)` gives the teacher's outputs from batch n on; `tell(rows, all)` is called at times."""
        with clear_disk_errors(self.folder):
            make_folder(self.folder)
            while not self.hold():
                make_folder(self.folder)
            with self._locked():
                self.check_identity()
                if self.complete:  # another process was faster
                    return
                write_text(self.folder / "identity.json", json.dumps(self.key.as_json(), indent=2) + "\n")
                flats, whole = self._writable()
                done = self._progress() if whole else {"batches": 0, "rows": 0}
                rows_done, saved = done["rows"], time.monotonic()
                for rows, values in outputs(done["batches"]):
                    for layout, flat, value in zip(self.layouts, flats, values):
                        self._store(layout, flat, rows, value)
                    rows_done, done["batches"] = rows_done + len(rows), done["batches"] + 1
                    if time.monotonic() - saved >= _SAVE_SECONDS:
                        self._save(flats, {"batches": done["batches"], "rows": rows_done})
                        tell(rows_done, len(self._lengths))
                        saved = time.monotonic()
                if rows_done != len(self._lengths):
                    raise DamagedCache(f"{self.folder / 'progress.json'}: damaged; {_AGAIN}")
                for flat in flats:
                    flat.flush()
                sums = {layout.name: _checksum(self.path(layout)) for layout in self.layouts}
                write_text(self.folder / "complete.json", json.dumps(sums, indent=2) + "\n")
                (self.folder / "progress.json").unlink(missing_ok=True)

    def open(self) -> None:
        """Map the files, after a look at every byte. Raises CrossdistilError for anything that is not as it was written."""
        self.check_identity()
        try:
            sums = read_object(self.folder / "complete.json", DamagedCache)
        except (OSError, DamagedCache) as error:
            raise DamagedCache(f"{error}; {_AGAIN}") from error
        self._flat = []
        for layout in self.layouts:
            path, expected = self.path(layout), layout.size * self._dtype.itemsize
            found = path.stat().st_size if path.is_file() else None
            if found is None:
                raise DamagedCache(f"{path}: missing; {_AGAIN}")
            if found != expected:
                raise DamagedCache(f"{path}: has {found:,} bytes, expected {expected:,}; {_AGAIN}")
            if _checksum(path) != sums.get(layout.name):
                raise DamagedCache(f"{path}: damaged (its checksum is wrong); {_AGAIN}")
            self._flat.append(np.asarray(np.memmap(path, self._dtype, "r")))

    def discard(self) -> None:
        """Remove what is there, so that it is made again. A process that has it open keeps what it has."""
        with clear_disk_errors(self.folder), self._locked():
            for name in ("complete.json", "progress.json", "identity.json"):
                (self.folder / name).unlink(missing_ok=True)
            for layout in self.layouts:
                self.path(layout).unlink(missing_ok=True)

    def batch(self, rows: np.ndarray, length: int) -> dict[str, np.ndarray]:
        """The outputs of a batch of rows by name, padded to `length`, in float32."""
        return {layout.name: load(layout, flat, rows, length) for layout, flat in zip(self.layouts, self._flat)}

    def hold(self) -> bool:
        """Say that this process uses the folder, until it ends; False where there is none."""
        remove_dead(self.folder)
        return hold_folder(self.folder)

    @contextlib.contextmanager
    def _locked(self) -> Iterator[None]:
        lock = lock_file(self.folder / ".lock", wait=True)  # for another process that is writing
        try:
            yield
        finally:
            lock.release()

    def _writable(self) -> tuple[list[np.memmap], bool]:
        """The files in their full size, and whether all of them were there before."""
        paths, whole, made = [self.path(layout) for layout in self.layouts], True, []
        try:
            for path, layout in zip(paths, self.layouts):
                if not path.exists():
                    made.append(path)
                whole &= _reserve(path, layout.size * self._dtype.itemsize)
        except OSError:
            for path in made:  # a disk that is full should not stay so
                path.unlink(missing_ok=True)
            raise
        return [np.memmap(path, self._dtype, "r+") for path in paths], whole

    def _store(self, layout: Layout, flat: np.ndarray, rows: np.ndarray, value: np.ndarray) -> None:
        try:
            with np.errstate(over="raise"):
                store(layout, flat, rows, self._lengths[rows], value)
        except FloatingPointError:
            largest = np.abs(value).max()
            raise CrossdistilError(
                f"teacher_cache.precision: {self.key.precision} cannot hold {layout.name}, up to {largest:.3g}; use fp32"
            ) from None

    def _progress(self) -> dict[str, int]:
        try:
            found = read_object(self.folder / "progress.json", DamagedCache)
            return {"batches": max(0, int(found["batches"])), "rows": int(found["rows"])}
        except (DamagedCache, OSError, ValueError, TypeError, KeyError):
            return {"batches": 0, "rows": 0}

    def _save(self, flats: list[np.memmap], progress: dict[str, int]) -> None:
        for flat in flats:
            flat.flush()
        write_text(self.folder / "progress.json", json.dumps(progress) + "\n")


def _reserve(path: Path, size: int) -> bool:
    """Make a file of that size; returns whether it was one before."""
    with path.open("ab") as file:
        before = file.tell()
        if before > size:
            file.truncate(size)
        try:
            # Reserved now: a full disk is an error here, and a killed process where a mapped file finds it out.
            os.posix_fallocate(file.fileno(), 0, size)
        except (AttributeError, OSError) as error:  # macOS lacks it, and some file systems do
            if getattr(error, "errno", errno.ENOSYS) not in (errno.ENOSYS, errno.EOPNOTSUPP, errno.EINVAL):
                raise
            file.truncate(size)
    return before == size


def _checksum(path: Path) -> int:
    value = 0
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK):
            value = zlib.crc32(chunk, value)
    return value


class TeacherMemory:
    """The same without a disk, for outputs that are small: a row's are computed when it is first asked for."""

    def __init__(
        self,
        outputs: tuple[str, ...],
        model: Model,
        lengths: np.ndarray,
        compute: Callable[[np.ndarray], list[np.ndarray]],
    ):
        """`compute(rows)` gives the outputs of some rows, padded as the model gave them."""
        self._lengths, self._compute = np.asarray(lengths), compute
        self.layouts = [make_layout(name, model.config, model.outputs, self._lengths) for name in outputs]
        self._known = np.zeros(len(self._lengths), bool)
        self._flat: list[np.ndarray] = []

    @property
    def size(self) -> int:
        """Bytes in memory, at most."""
        return sum(layout.size for layout in self.layouts) * 4

    def batch(self, rows: np.ndarray, length: int) -> dict[str, np.ndarray]:
        """As `TeacherCache.batch`."""
        real = rows[rows >= 0]
        new = real[~self._known[real]]
        if not self._flat:
            self._flat = [np.empty(layout.size, np.float32) for layout in self.layouts]
        if len(new):
            for layout, flat, value in zip(self.layouts, self._flat, self._compute(new)):
                store(layout, flat, new, self._lengths[new], value)
            self._known[new] = True
        return {layout.name: load(layout, flat, rows, length) for layout, flat in zip(self.layouts, self._flat)}
