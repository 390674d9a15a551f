"""Damaged files for every binary reader: bits flipped, ends cut off, lengths blown up, blocks exchanged.

    python benchmarks/robustness/mutated_files.py                 # 240,000 reads, about 25 minutes on 2 busy processors
    python benchmarks/robustness/mutated_files.py --reads 1000 --readers tfrecord "torch zip"

Each reader runs in a process of its own that may take 1 GiB more than it has at its start, and has five seconds for a read. A
read must end in a right reading or in a CrossdistilError of one line; where the format has checksums over everything, a right
reading is what was written. Everything else is a failure: another exception, a MemoryError, a wrong value, a signal, a time-out.
What is damaged is a whole file, or, where a checksum would refuse every change, what the checksum is of, with a new checksum.
"""

from __future__ import annotations

import argparse
import json
import os
import pickle
import resource
import signal
import struct
import subprocess
import sys
import tempfile
import time
import zipfile
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from crossdistil.converters import (
    mindspore_checkpoint,
    oneflow_folder,
    oneflow_legacy,
    safetensors_files,
    tensorflow_checkpoint,
    torch_pickle,
    torch_pickle_write,
)
from crossdistil.converters.leveldb_table import read_table, write_table
from crossdistil.converters.tensors import Tensor, TensorInfo, dtype_name
from crossdistil.core.data import legacy_pickles, ofrecord, tfrecord, token_cache
from crossdistil.core.data.record_note import read_note
from crossdistil.core.data.record_rows import read_rows
from crossdistil.core.errors import CrossdistilError
from crossdistil.core.recipe import load_recipe
from crossdistil.core.wire import varint

RESULT = Path(__file__).resolve().parent.parent / "results" / "robustness_mutated_files.json"
READS = 240_000
MEMORY, SECONDS = 1 << 30, 5
_AT_ONCE = 2000
"""Reads of a process."""


@dataclass(frozen=True)
class Reader:
    """A format: how a small valid example is written into a folder, how it is read, and which files are damaged."""

    make: Callable[[Path], None]
    read: Callable[[Path], Any]
    files: str = "**/*"
    checked: bool = False
    """Whether checksums cover everything, so that what is read must be what was written."""
    seal: Callable[[Path, bytes], bytes] | None = None
    """Puts right checksums around damaged content, which `content` takes out of the file."""
    content: Callable[[Path, bytes], bytes] | None = None


def arrays() -> dict[str, np.ndarray]:
    """Tensors of several types and shapes."""
    return {
        "bert.embeddings.word_embeddings.weight": np.arange(24, dtype=np.float32).reshape(6, 4),
        "bert.pooler.dense.bias": np.arange(4, dtype=np.float16),
        "counter": np.array(7, np.int64),
        "empty": np.zeros((0, 3), np.float32),
        "truth": np.array([True, False, True]),
    }


def tensors(only: str = "") -> list[Tensor]:
    """The same as a writer takes them, of kinds of dtype in `only` where it is given."""
    return [
        Tensor(TensorInfo(name, array.shape, dtype_name(array.dtype)), lambda array=array: array)
        for name, array in arrays().items()
        if not only or array.dtype.kind in only
    ]


def loaded(checkpoint: Any) -> dict[str, bytes]:
    """All that a checkpoint holds."""
    return {name: tensor.load().tobytes() for name, tensor in checkpoint.tensors.items()}


# ---------------------------------------------------------------------------------------------- readers


def _example() -> bytes:
    numbers = {"input_ids": [2, 5, 6, 3, 0, 0], "input_mask": [1, 1, 1, 1, 0, 0], "segment_ids": [0] * 6}
    numbers |= {"masked_lm_positions": [1, 0], "masked_lm_ids": [300, 0]}
    return tfrecord.make_example(numbers | {"masked_lm_weights": [1.0, 0.0]})


def _rows(path: Path) -> list[Any]:
    return [[np.asarray(part).tolist() for part in rows] if isinstance(rows, tuple) else rows for rows in read_rows(path, 1000, 16)]


def _make_tfrecord(folder: Path) -> None:
    tfrecord.write_records(folder / "a.tfrecord", [_example(), tfrecord.make_example({"text": ["Käse".encode()]}), _example()])


def _make_ofrecord(folder: Path) -> None:
    features = {"input_ids": np.array([1, 2, 300], np.int32), "score": np.array([0.5], np.float32), "text": [b"a", b""]}
    ofrecord.write_records(folder / "a.of_record-0", [ofrecord.make_record(features) for _ in range(3)])


def _make_tensorflow(folder: Path) -> None:
    tensorflow_checkpoint.write(folder, tensors(), "m", 64)


def _sealed_index(folder: Path, content: bytes) -> bytes:
    """An index whose blocks have right checksums, of entries that are damaged."""
    entries, position = {}, 0
    while position + 4 <= len(content) and len(entries) < 100:
        key, value = struct.unpack_from("<HH", content, position)
        position += 4
        entries[content[position : position + key]] = content[position + key : position + key + value]
        position += key + value
    path = folder / "sealed"
    try:
        write_table(path, dict(sorted(entries.items())))
        return path.read_bytes()
    finally:
        path.unlink(missing_ok=True)


def _index_entries(folder: Path, data: bytes) -> bytes:
    path = folder / "whole"
    path.write_bytes(data)
    entries = read_table(path)
    path.unlink()
    return b"".join(struct.pack("<HH", len(key), len(value)) + key + value for key, value in entries.items())


def _make_torch_zip(folder: Path) -> None:
    torch_pickle_write.write(folder, tensors(), "a.bin")


def _resealed_zip(folder: Path, content: bytes) -> bytes:
    """The pickle of an archive, damaged, with the checksum of the damaged one."""
    source, target = folder / "source", folder / "target"
    source.write_bytes(_WHOLE["torch zip pickle"])
    with zipfile.ZipFile(source) as old, zipfile.ZipFile(target, "w") as new:
        for entry in old.infolist():
            new.writestr(entry.filename, content if entry.filename.endswith("data.pkl") else old.read(entry))
    data = target.read_bytes()
    source.unlink()
    target.unlink()
    return data


def _zip_pickle(folder: Path, data: bytes) -> bytes:
    _WHOLE["torch zip pickle"] = data
    path = folder / "whole"
    path.write_bytes(data)
    with zipfile.ZipFile(path) as archive:
        found = next(archive.read(name) for name in archive.namelist() if name.endswith("data.pkl"))
    path.unlink()
    return found


_WHOLE: dict[str, bytes] = {}


def _make_torch_old(folder: Path) -> None:
    import torch

    state = {name: torch.tensor(array) for name, array in arrays().items()}
    torch.save({"model": state, "step": 3}, folder / "a.pth", _use_new_zipfile_serialization=False)


_CACHED = {"ids": np.dtype("<i4"), "offsets": np.dtype("<i8")}


def _read_cache(folder: Path) -> Any:
    """The arrays of an entry; where it is damaged, they are made again, and the entry with them."""
    made = lambda: iter([{"ids": np.arange(50), "offsets": np.arange(5)}])  # noqa: E731
    found = token_cache.cached_arrays("tokens", "a", folder, _CACHED, made)
    return {name: array.tolist() for name, array in found.items()}


def _make_pickle(folder: Path) -> None:
    rows = [np.arange(count, dtype=np.uint16) for count in (3, 5, 2)]
    (folder / "binarized_text.pickle").write_bytes(pickle.dumps(rows, 4))


def _make_note(folder: Path) -> None:
    cleaning = {"lower_case": True, "strip_accents": True, "split_chinese": True}
    note = {
        "version": 1, "format": "mindrecord", "task": "t", "kind": "classification", "labels": ["a", "b"], "text": "t",
        "text_pair": None, "label": "l", "vocabulary": {"size": 3, "sha256": "00", **cleaning}, "max_length": 8,
        "splits": {"train": {"file": "train.mindrecord", "rows": 1, "labelled": True, "bytes": 1, "crc32c": "00000000"}},
    }  # fmt: skip
    (folder / "records.json").write_text(json.dumps(note, indent=1))


def _make_recipe(folder: Path) -> None:
    recipes = Path(__file__).resolve().parent.parent.parent / "recipes"
    (folder / "recipe.yaml").write_bytes((recipes / "kd.yaml").read_bytes())


READERS = {
    "tfrecord": Reader(_make_tfrecord, lambda folder: _rows(folder / "a.tfrecord")),
    "tfrecord examples": Reader(
        lambda folder: tfrecord.write_records(folder / "a.tfrecord", [_example()]),
        lambda folder: _rows(folder / "a.tfrecord"),
        seal=lambda _, content: tfrecord.framed(content),
        content=lambda _, data: data[12:-4],
    ),
    "ofrecord": Reader(_make_ofrecord, lambda folder: list(ofrecord.read_features(folder / "a.of_record-0"))),
    "tensorflow": Reader(_make_tensorflow, lambda folder: loaded(tensorflow_checkpoint.open_checkpoint(folder / "m")), "m.*"),
    "tensorflow entries": Reader(
        _make_tensorflow,
        lambda folder: loaded(tensorflow_checkpoint.open_checkpoint(folder / "m")),
        "m.index",
        seal=_sealed_index,
        content=_index_entries,
    ),
    "mindspore ckpt": Reader(
        lambda folder: mindspore_checkpoint.write(folder, tensors(), "a.ckpt"),
        lambda folder: loaded(mindspore_checkpoint.open_checkpoint(folder / "a.ckpt")),
        "a.ckpt",
    ),
    "safetensors": Reader(
        lambda folder: safetensors_files.write(folder, tensors()),
        lambda folder: loaded(safetensors_files.open_checkpoint(folder)),
    ),
    "safetensors index": Reader(
        lambda folder: safetensors_files.write(folder, tensors(), shard_size=40),
        lambda folder: loaded(safetensors_files.open_checkpoint(folder)),
        "*.json",
    ),
    "torch zip": Reader(_make_torch_zip, lambda folder: loaded(torch_pickle.open_checkpoint(folder / "a.bin")), "a.bin"),
    "torch zip pickle": Reader(
        _make_torch_zip,
        lambda folder: loaded(torch_pickle.open_checkpoint(folder / "a.bin")),
        "a.bin",
        seal=_resealed_zip,
        content=_zip_pickle,
    ),
    "torch legacy": Reader(_make_torch_old, lambda folder: loaded(torch_pickle.open_checkpoint(folder / "a.pth"))),
    "oneflow state dict": Reader(
        lambda folder: oneflow_folder.write(folder, tensors("fi")), lambda folder: loaded(oneflow_folder.open_checkpoint(folder))
    ),
    "oneflow legacy": Reader(
        lambda folder: oneflow_legacy.write(folder, tensors("fi")), lambda folder: loaded(oneflow_legacy.open_variables(folder))
    ),
    "cached arrays": Reader(_read_cache, _read_cache, checked=True),
    "data pickles": Reader(
        _make_pickle,
        lambda folder: [row.values().tolist() for row in legacy_pickles.read_binarized(folder / "binarized_text.pickle")],
    ),
    "record notes": Reader(_make_note, read_note),
    "recipes": Reader(_make_recipe, lambda folder: load_recipe(folder / "recipe.yaml")),
}


# ---------------------------------------------------------------------------------------------- damage


def damaged(generator: np.random.Generator, data: bytes) -> bytes:
    """The bytes with one to three damages."""
    changed = bytearray(data)
    for _ in range(int(generator.integers(1, 4))):
        size = len(changed)
        place, count = int(generator.integers(size + 1)), int(generator.integers(1, 9))
        kind = int(generator.integers(8))
        if kind == 0 and generator.integers(3) == 0:
            del changed[place:]
        elif kind == 1 and place < size:
            changed[place] ^= 1 << int(generator.integers(8))
        elif kind == 2:
            changed[place:place] = generator.bytes(count)
        elif kind == 3:
            changed[place : place + count] = b"\xff" * count
        elif kind == 4:
            changed[place : place + count] = generator.bytes(count)
        elif kind == 5 and size:
            other, length = int(generator.integers(size)), int(generator.integers(1, 65))
            changed[place : place + length] = changed[other : other + length]
        elif kind == 6:
            changed[place : place + count] = varint(int(generator.integers(1 << 63)) >> int(generator.integers(63)))
        else:
            number = int(generator.integers(1 << 62)) >> int(generator.integers(62))
            changed[place : place + 8] = struct.pack("<q", number) if generator.integers(2) else str(number).encode()
    return bytes(changed)


class TimedOut(BaseException):
    """A read that took too long."""


def read_damaged(name: str, folder: Path, seed: int, reads: int) -> dict[str, Any]:
    """Counts of right readings and clean errors of `reads` damaged examples, and the failures, each with its seed and reason;
    `folder` is an empty one. The limits of memory and time are the caller's."""
    reader = READERS[name]
    reader.make(folder)
    paths = sorted(path for path in folder.glob(reader.files) if path.is_file() and path.name[0] != ".")
    whole = {path: path.read_bytes() for path in paths}
    paths = [path for path in paths if whole[path]]
    expected = reader.read(folder)
    parts = {path: reader.content(folder, whole[path]) if reader.content else whole[path] for path in paths}
    found: dict[str, Any] = {"read": 0, "refused": 0, "failures": []}
    for turn in range(seed, seed + reads):
        generator = np.random.default_rng(turn)
        path = paths[int(generator.integers(len(paths)))]
        content = damaged(generator, parts[path])
        try:
            path.write_bytes(reader.seal(folder, content) if reader.seal else content)
            value = reader.read(folder)
            if reader.checked and value != expected:
                raise AssertionError("another value than was written")
            found["read"] += 1
        except CrossdistilError as error:
            text = str(error)
            if not text.replace("\n", "").isprintable() or len(text) > 3000:
                found["failures"].append([turn, f"the message has {len(text)} characters or a control character"])
            found["refused"] += 1
        except BaseException as error:
            if isinstance(error, KeyboardInterrupt):
                raise
            found["failures"].append([turn, f"{type(error).__name__}: {error}"[:300]])
        finally:
            for changed, data in whole.items():
                if changed == path or not changed.is_file():
                    changed.parent.mkdir(parents=True, exist_ok=True)
                    changed.write_bytes(data)
    return found


def _limited(name: str, seed: int, reads: int) -> None:
    """A process of its own: the result as JSON on standard output."""

    def late(*_: Any) -> None:
        signal.setitimer(signal.ITIMER_REAL, 0)
        raise TimedOut(f"a read took more than {SECONDS} s")

    signal.signal(signal.SIGALRM, late)
    original = READERS[name].read

    def timed(folder: Path) -> Any:
        signal.setitimer(signal.ITIMER_REAL, SECONDS)
        try:
            return original(folder)
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)

    READERS[name] = Reader(**{**READERS[name].__dict__, "read": timed})
    with tempfile.TemporaryDirectory() as folder:
        read_damaged(name, Path(folder), 0, 20)  # what is imported late is imported now
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + MEMORY, used + MEMORY))
    with tempfile.TemporaryDirectory() as folder:
        print(json.dumps(read_damaged(name, Path(folder), seed, reads)))


def _in_a_process(name: str, seed: int, reads: int) -> dict[str, Any]:
    command = [sys.executable, __file__, "--process", name, str(seed), str(reads)]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        failure = [seed, f"the process ended with {done.returncode}: {done.stderr[-300:]}"]
        return {"reads": reads, "read": 0, "refused": 0, "failures": [failure]}
    return {"reads": reads, **json.loads(done.stdout.splitlines()[-1])}


def main() -> None:
    """Run all readers and write the counts."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--reads", type=int, default=READS, help="of all readers together")
    parser.add_argument("--readers", nargs="*", choices=READERS, default=list(READERS))
    parser.add_argument("--out", type=Path, help=f"default: {RESULT.name} in benchmarks/results, where all readers run")
    parser.add_argument("--process", nargs=3, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.process:
        _limited(options.process[0], int(options.process[1]), int(options.process[2]))
        return
    each = -(-options.reads // len(options.readers))
    results: dict[str, Any] = {}
    began = time.time()
    pool = ThreadPoolExecutor(os.cpu_count())
    for name in options.readers:
        seeds = range(0, each, _AT_ONCE)
        parts = list(pool.map(_in_a_process, [name] * len(seeds), seeds, [min(_AT_ONCE, each - seed) for seed in seeds]))
        total = {key: sum(part[key] for part in parts) for key in ("reads", "read", "refused")}
        total["failures"] = [failure for part in parts for failure in part["failures"]]
        results[name] = total
        print(f"{name}: {total['reads']:,} reads, {total['refused']:,} refused, {len(total['failures'])} failures", flush=True)
        for seed, reason in total["failures"][:3]:
            print(f"  seed {seed}: {reason}", flush=True)
    out = options.out or (RESULT if options.readers == list(READERS) else None)
    if out is not None:
        about = {
            "command": "python benchmarks/robustness/mutated_files.py",
            "date": time.strftime("%Y-%m-%d"),
            "machine": f"{_processor()}, {os.cpu_count()} processors",
            "python": sys.version.split()[0],
            "seconds": round(time.time() - began),
            "memory_limit_mib": MEMORY >> 20,
            "seconds_a_read": SECONDS,
            "reads": sum(total["reads"] for total in results.values()),
            "failures": sum(len(total["failures"]) for total in results.values()),
        }
        out.write_text(json.dumps({**about, "readers": results}, indent=1) + "\n", encoding="utf-8")
    sys.exit(any(total["failures"] for total in results.values()))


def _processor() -> str:
    lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    return next((line.partition(": ")[2] for line in lines if line.startswith("model name")), "unknown processor")


if __name__ == "__main__":
    main()
