"""Formats that are not read, told by their files, each with the way out."""

from __future__ import annotations

from pathlib import Path

from .left_out import MERGE

_PYTORCH = "save it with save_pretrained of a PyTorch model"
_KERAS = (
    "a Keras HDF5 file, which is not read; load the model in TensorFlow and write it with "
    "tf.train.Checkpoint(model=model).write(path)"
)
_FLAX = f"a Flax checkpoint, which is not read; load it with transformers (from_flax=True) and {_PYTORCH}"
_ONNX = "an ONNX graph, which is for inference only; convert the checkpoint that it was exported from"
_GGUF = "a GGUF file, whose weights are as a rule quantized; convert the checkpoint that it was made of"
_V1 = (
    "a TensorFlow checkpoint of the format V1, which is not read; in TensorFlow restore it and save it again, "
    "as tf.compat.v1.train.Saver does unless write_version says V1"
)
_SUFFIXES = {".h5": _KERAS, ".hdf5": _KERAS, ".keras": _KERAS, ".msgpack": _FLAX, ".onnx": _ONNX, ".gguf": _GGUF}
_STARTS = {
    b"\x89HDF": _KERAS,
    b"GGUF": _GGUF,
    b"\x1f\x8b": "a gzip archive; unpack it first",
    b"{": "text, JSON by its start; where it is the index of several files, name their folder",
}
_TABLE_END = bytes.fromhex("57fb808b247547db")
"""Of a LevelDB table, which a file of V1 is."""


def foreign_format(path: Path) -> str:
    """What a file or folder is, and what to do with it, or an empty string."""
    if path.is_dir():
        return _folder(path)
    if not path.is_file():
        return ""
    if path.suffix in _SUFFIXES:
        return f"is {_SUFFIXES[path.suffix]}"
    try:
        with path.open("rb") as file:
            start = file.read(8)
            file.seek(max(0, file.seek(0, 2) - len(_TABLE_END)))
            end = file.read()
    except OSError:
        return ""
    if end == _TABLE_END and path.suffix != ".index":
        return f"is {_V1}"
    return next((f"is {what}" for signature, what in _STARTS.items() if start.startswith(signature)), "")


def _folder(path: Path) -> str:
    names = sorted(entry.name for entry in path.iterdir())
    if any(name == "adapter_config.json" or name.startswith("adapter_model.") for name in names):
        return f"is a folder of a LoRA adapter (PEFT), which changes a model and is none; {MERGE}"
    if "saved_model.pb" in names:
        return f"is a SavedModel, which is not read as such; its weights are the checkpoint {path / 'variables' / 'variables'}"
    found = next(((name, what) for name in names for suffix, what in _SUFFIXES.items() if name.endswith(suffix)), None)
    return "" if found is None else f"holds {found[0]}, {found[1]}"
