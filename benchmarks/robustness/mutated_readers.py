"""The readers that `mutated_files.py` gives damaged files: for each format a small valid example and how it is read."""

from __future__ import annotations

import json
import pickle
import struct
import zipfile
from collections.abc import Callable
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
from crossdistil.core.data import legacy_pickles, token_cache
from crossdistil.core.data.records import ofrecord, task_records, tfrecord
from crossdistil.core.data.records.record_note import read_note
from crossdistil.core.data.records.record_rows import read_rows
from crossdistil.core.recipe import load_recipe


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


def _example() -> bytes:
    numbers = {"input_ids": [2, 5, 6, 3, 0, 0], "input_mask": [1, 1, 1, 1, 0, 0], "segment_ids": [0] * 6}
    numbers |= {"masked_lm_positions": [1, 0], "masked_lm_ids": [300, 0]}
    return tfrecord.make_example(numbers | {"masked_lm_weights": [1.0, 0.0]})


def _rows(path: Path) -> list[Any]:
    plain = lambda rows: [np.asarray(part).tolist() for part in rows] if isinstance(rows, tuple) else rows  # noqa: E731
    return list(map(plain, read_rows(path, 1000, 16)))


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
    "ofrecord": Reader(_make_ofrecord, lambda folder: list(task_records.record_features([folder / "a.of_record-0"], "ofrecord"))),
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
