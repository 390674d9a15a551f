"""OneFlow's checkpoints, which are folders: those of `flow.save` since 0.5, and older ones (`oneflow_legacy`) as they are met.

`flow.save(object, folder)` pickles `{"protocol_version": 1, "data": object}` into `pickled_data`, protocol 4, with
  oneflow.Tensor() or oneflow.nn.Parameter(), and then its state {"path": "tensor_7"}
for each tensor, which lies in `tensor_7` as a variable of the older format. The number comes from a counter of the process.
"""

from __future__ import annotations

import pickle
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ..core import safe_pickle
from ..core.errors import CheckpointError
from ..core.plain_names import is_plain_name
from ..core.shown import plain, shown
from .oneflow_legacy import NO_CHECKSUM, is_variables, open_variable, open_variables, write_variable
from .tensors import Checkpoint, Tensor

_PICKLE = "pickled_data"
_VERSION = 1
_MAX_PICKLE = 1 << 26
_STATE_DICTS = ("state_dict", "model", "model_state_dict")


def is_checkpoint(path: Path) -> bool:
    """Whether a folder holds what `flow.save` writes, or a variable."""
    try:
        return (path / _PICKLE).is_file() or is_variables(path)
    except (OSError, ValueError):
        return False


def open_checkpoint(path: Path) -> Checkpoint:
    """The state dict, or the variables, of a folder. Raises CheckpointError."""
    if not path.is_dir():
        raise CheckpointError(f"{path}: is no folder; OneFlow's checkpoints are folders")
    try:
        return _open_pickled(path) if (path / _PICKLE).is_file() else open_variables(path)
    except OSError as error:
        raise CheckpointError(f"{error.filename or path}: cannot be read: {error.strerror or error}") from error


def write(folder: Path, tensors: Sequence[Tensor]) -> None:
    """What `flow.save(state_dict, folder)` writes: `flow.load(folder)` gives it to `module.load_state_dict`."""
    names = []
    for index, tensor in enumerate(tensors):
        write_variable(folder / f"tensor_{index}", tensor)
        names.append(tensor.info.name)
    if len(set(names)) < len(names):
        raise CheckpointError(f"{folder}: there are two tensors of one name")
    (folder / _PICKLE).write_bytes(_pickled(names))


class _Reference:
    """What stands for a tensor in the pickle: where it lies."""

    def __init__(self):
        self.path: str | None = None

    def __setstate__(self, state: Any) -> None:
        path = state.get("path") if type(state) is dict and len(state) == 1 else None
        if self.path is not None or type(path) is not str:
            raise ValueError("a tensor has not one path")
        self.path = path


def _ordered_dict() -> dict:
    return {}


_ALLOWED = {
    ("oneflow", "Tensor"): _Reference,
    ("oneflow.nn", "Parameter"): _Reference,
    ("collections", "OrderedDict"): _ordered_dict,
}


def _open_pickled(path: Path) -> Checkpoint:
    checkpoint = Checkpoint("OneFlow state dict", path, {}, notes=[NO_CHECKSUM])
    entries, prefix = _state_dict(path, checkpoint)
    for key, value in entries.items():
        if not isinstance(value, _Reference):
            checkpoint.skipped[f"{prefix}{_key(key)}"] = _described(value)
        elif not isinstance(key, str):
            raise CheckpointError(f"{path / _PICKLE}: the name of a tensor is a {type(key).__name__}; expected a text")
        else:
            checkpoint.tensors[key] = _tensor(path, key, value)
    return checkpoint


def _state_dict(path: Path, checkpoint: Checkpoint) -> tuple[dict, str]:
    """(the dictionary that holds the tensors, what comes before its keys); what is beside it is told as skipped."""
    file = path / _PICKLE
    if file.stat().st_size > _MAX_PICKLE:
        raise CheckpointError(f"{file}: has {file.stat().st_size:,} bytes; expected names of tensors, at most {_MAX_PICKLE:,}")
    saved = safe_pickle.load(file.read_bytes(), str(file), _ALLOWED)
    version = saved.get("protocol_version") if isinstance(saved, dict) else None
    if type(version) is not int or version != _VERSION or "data" not in saved:
        raise CheckpointError(f"{file}: is not of flow.save; expected a dictionary of protocol_version {_VERSION} and data")
    entries = saved["data"]
    if not isinstance(entries, dict):
        raise CheckpointError(f"{file}: is {_described(entries)}; expected a state dict")
    if _holds_tensors(entries):
        return entries, ""
    for chosen in _STATE_DICTS:
        if _holds_tensors(entries.get(chosen)):
            checkpoint.notes.append(f"the tensors are those of its entry {shown(chosen)}")
            others = {_key(key): _described(value) for key, value in entries.items() if key != chosen}
            checkpoint.skipped.update(others)
            return entries[chosen], f"{chosen}."
    keys = ", ".join(_key(key) for key in list(entries)[:10]) or "nothing"
    raise CheckpointError(
        f"{file}: holds no state dict; expected tensors, or a dictionary of tensors as {', '.join(_STATE_DICTS)}; found {keys}"
    )


def _holds_tensors(value: Any) -> bool:
    return isinstance(value, dict) and any(isinstance(entry, _Reference) for entry in value.values())


def _key(key: Any) -> str:
    return plain(key if isinstance(key, str) else repr(key))


def _described(value: Any) -> str:
    kinds = {_Reference: "a tensor", dict: "a dictionary", list: "a list", tuple: "a tuple", str: "a text"}
    return "nothing" if value is None else kinds.get(type(value), f"a value of type {type(value).__name__}")


def _tensor(path: Path, name: str, reference: _Reference) -> Tensor:
    place = f"{path}: {shown(name)}"
    if reference.path is None:
        raise CheckpointError(f"{place}: has no path; expected the folder where it lies")
    if not is_plain_name(reference.path):
        raise CheckpointError(f"{place}: refused: its path {shown(reference.path)} is no name of a folder in the checkpoint")
    return open_variable(path / reference.path, name)


# ---------------------------------------------------------------------------------------------- writing

def _pickled(names: Sequence[str]) -> bytes:
    """The pickle, instruction by instruction, since `pickle` looks for the classes it names; the tensors are tensor_0 and on."""
    out = [pickle.PROTO, b"\x04", pickle.EMPTY_DICT, pickle.MARK, _text("protocol_version"), pickle.BININT1, bytes([_VERSION])]
    out += [_text("data"), *_global("collections", "OrderedDict"), pickle.EMPTY_TUPLE, pickle.REDUCE, pickle.MARK]
    for index, name in enumerate(names):
        out += [_text(name), *(_global("oneflow", "Tensor") + [pickle.MEMOIZE] if index == 0 else [pickle.BINGET, b"\x00"])]
        out += [pickle.EMPTY_TUPLE, pickle.NEWOBJ, pickle.EMPTY_DICT, _text("path"), _text(f"tensor_{index}")]
        out += [pickle.SETITEM, pickle.BUILD]
    return b"".join([*out, pickle.SETITEMS, pickle.SETITEMS, pickle.STOP])


def _global(module: str, name: str) -> list[bytes]:
    return [_text(module), _text(name), pickle.STACK_GLOBAL]


def _text(text: str) -> bytes:
    content = text.encode()
    return pickle.BINUNICODE + len(content).to_bytes(4, "little") + content
