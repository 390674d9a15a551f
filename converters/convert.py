"""From a checkpoint of any format to one of any other, through the canonical form, whole or not at all."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from ..core.checksums import write_checksums
from ..core.config_file import model_config
from ..core.errors import CheckpointError, RunFolderError, checkpoint_named
from ..core.files import replace_folder
from ..core.models.architectures import is_encoder
from ..core.models.tree import unused_shapes
from ..core.sentence_folder import MODULES
from . import oneflow_folder
from .canonical import CanonicalCheckpoint, ReadOptions, read_canonical
from .configuration import google_config, with_heads, write_files
from .dialects import foreign_names
from .formats import WEIGHTS_FOLDER, is_checkpoint
from .layouts import LAYOUTS, Layout
from .names_tensorflow import generator_name
from .network_code import NETWORK, check_code, network_code, weights_name
from .projections import write_projections
from .resize import KeptWords, keep_words, resize_vocabulary
from .targets import HIDDEN_LAYER, has_no_home, misread, refuse, target_notes
from .task_heads import model_shapes
from .tensors import DTYPES, Tensor, TensorInfo

_MOST_TYPES = 1000
_FLOATS = {"F64", "F32", "F16", "BF16"}
TYPES = {"fp32": "F32", "fp16": "F16", "bf16": "BF16"}
"""What the command line calls a type -> its name."""


@dataclass(frozen=True)
class ConvertOptions:
    """What is made of a checkpoint."""

    to: str
    """A key of `LAYOUTS`."""
    layout: str | None = None
    """A key of `LAYOUTS[to]`; None is the first."""
    dtype: str | None = None
    """A key of `TYPES`; None keeps each tensor's."""
    vocabulary: int | None = None
    """Rows of the result's vocabulary; None keeps them."""
    type_vocabulary: int | None = None
    """Rows of the token types that a DistilBERT gets for Google's graph; None is what its configuration says, else 2."""
    overwrite: bool = False
    """Replace a destination that exists."""
    encoder_only: bool = False
    """Leave the classifier and the heads of pre-training out."""
    with_code: bool = False
    """Also write `network.py`, the network that the result belongs to: then that is what it must fit, and not published code."""
    for_us: bool = False
    """The result is read by this package alone, whose models compute all that a configuration says."""
    read: ReadOptions = field(default_factory=ReadOptions)
    words: KeptWords | None = None
    """The words that the result keeps; None is all."""


@dataclass(frozen=True)
class Conversion:
    """What was done."""

    source: CanonicalCheckpoint
    layout: Layout
    written: int
    """Number of tensors."""
    size: int
    """Their bytes."""
    added: tuple[str, ...]
    """Names of tensors that the target needs and the source does not have."""
    notes: tuple[str, ...] = ()
    """What the target's framework will make of the result that its user may not expect."""


def convert(
    source: Path,
    destination: Path,
    options: ConvertOptions,
    check: Callable[[CanonicalCheckpoint, Path], None] | None = None,
) -> Conversion:
    """Convert; `check(source, folder)` is called before the result takes its place, and prevents that by raising.

    The destination is a folder. Raises CheckpointError or RunFolderError, and then it is as it was before.
    """
    layout = _layout(options)
    _check_destination(source, destination, options.overwrite)
    checkpoint = read_canonical(source, options.read)
    _check_bilstm(checkpoint, options)
    if options.vocabulary is not None:
        checkpoint = resize_vocabulary(checkpoint, options.vocabulary)
    if options.words is not None:
        checkpoint = keep_words(checkpoint, options.words)
    left_out = []
    if options.with_code:
        check_code(options.to, layout_name(options), checkpoint.config)
    # Where no proof of equal logits is asked for, the encoder is converted all the same.
    no_home = has_no_home(checkpoint.config, checkpoint.task, layout.dialect) and not options.with_code
    if no_home and not options.encoder_only and check is None:
        left_out = [f"{HIDDEN_LAYER}: it and the classifier are left out"]
    if options.encoder_only or left_out:
        checkpoint = encoder_of(checkpoint)
    if not options.for_us and not options.with_code:
        with checkpoint_named(f"--to {options.to}"):
            refuse(checkpoint.config, checkpoint.task, checkpoint.heads, layout.dialect)
    if not is_encoder(checkpoint.config):
        layout = replace(layout, description=f"{weights_name(options.to, layout_name(options))} with this project's names")
    tensors, added = _planned(checkpoint, layout, options)
    stored = {tensor.info.name for tensor in tensors}
    code = network_code(checkpoint, options.to, layout_name(options), layout, stored) if options.with_code else None
    with replace_folder(destination) as temporary:
        write_checkpoint(temporary, checkpoint, layout, tensors, options)
        if code is not None:
            (temporary / NETWORK).write_text(code, encoding="utf-8")
        if check is not None:
            try:
                check(checkpoint, temporary)
            except CheckpointError as error:
                raise CheckpointError(str(error).replace(str(temporary), str(destination))) from error
        write_checksums(temporary)
    size = sum(tensor.info.size for tensor in tensors)
    types = {tensor.info.dtype for tensor in tensors}
    if code is None:
        notes = target_notes(checkpoint.config, checkpoint.task, checkpoint.heads, checkpoint.tensors, types, layout.dialect)
    else:  # it computes what the configuration says
        notes = [f"{NETWORK} loads it: from {Path(NETWORK).stem} import load"]
        if problem := misread(checkpoint.config, checkpoint.task, checkpoint.heads, layout.dialect):
            notes.append(f"{NETWORK} computes what other code does not: {problem}")
    if checkpoint.of_sentences and checkpoint.task is None and (options.to != "pytorch" or code is not None):
        notes.append(f"it embeds texts: {MODULES} says how, and what loads this here must make the vectors of the tokens' states")
    return Conversion(checkpoint, layout, len(tensors), size, added, (*left_out, *notes))


def _check_bilstm(checkpoint: CanonicalCheckpoint, options: ConvertOptions) -> None:
    if not is_encoder(checkpoint.config):
        for option, given in (("--encoder-only", options.encoder_only), ("--resize-vocabulary", options.vocabulary is not None)):
            if given:
                raise CheckpointError(f"{option}: is for encoders; {checkpoint.source.path} is a BiLSTM")


def encoder_of(checkpoint: CanonicalCheckpoint) -> CanonicalCheckpoint:
    """The checkpoint without its classifier and its heads of pre-training. What was trained beside it stays, and so does what
    encoders' files hold and nothing here is computed with, as a RoBERTa's pooler."""
    own = model_shapes(checkpoint.config, None, None).keys() | unused_shapes(checkpoint.config).keys()
    kept = {name: tensor for name, tensor in checkpoint.tensors.items() if name in own or name in checkpoint.projections}
    raw = {key: value for key, value in checkpoint.raw.items() if key not in ("id2label", "label2id", "problem_type")}
    raw.pop("classifier_relu", None)
    return replace(
        checkpoint,
        config=model_config(raw, "--encoder-only"),
        raw=with_heads(raw, checkpoint.family, (), None, None, "--encoder-only"),
        tensors=kept,
        outputs=None,
        task=None,
        heads=(),
        dropped=checkpoint.dropped | {name: "head that is left out" for name in checkpoint.tensors if name not in kept},
    )


def write_checkpoint(
    folder: Path, checkpoint: CanonicalCheckpoint, layout: Layout, tensors: list[Tensor], options: ConvertOptions
) -> None:
    """Write tensors, configuration, tokenizer and how texts are embedded into a folder that exists."""
    if layout.dialect == "canonical":
        # transformers and our own reader take a model's tensors and nothing else from the file of its weights.
        projections = [tensor for tensor in tensors if tensor.info.name in checkpoint.projections]
        tensors = [tensor for tensor in tensors if tensor.info.name not in checkpoint.projections]
        write_projections(folder, projections)
    inner = folder
    if options.to == "oneflow":
        inner = folder / WEIGHTS_FOLDER
        inner.mkdir()
    layout.write(inner, tensors)
    google = None
    if options.to == "tf" and checkpoint.config.family.in_googles_code:
        types = _type_vocabulary(checkpoint, options) if checkpoint.family == "distilbert" and not options.with_code else None
        google = google_config(checkpoint.raw, types)
    write_files(folder, _with_dtype(checkpoint.raw, options.dtype), checkpoint.tokenizer | checkpoint.of_sentences, google)


def _with_dtype(raw: dict[str, Any], dtype: str | None) -> dict[str, Any]:
    """transformers loads the weights as the type that the configuration names, which must not be the source's."""
    if dtype is None:
        return raw
    names = {"fp32": "float32", "fp16": "float16", "bf16": "bfloat16"}
    return {key: names[dtype] if key in ("dtype", "torch_dtype") else value for key, value in raw.items()}


def _layout(options: ConvertOptions) -> Layout:
    if options.to not in LAYOUTS:
        raise CheckpointError(f"to {options.to}: unknown framework; there are {', '.join(LAYOUTS)}")
    if options.dtype is not None and options.dtype not in TYPES:
        raise CheckpointError(f"dtype {options.dtype}: unknown; there are {', '.join(TYPES)}")
    layouts = LAYOUTS[options.to]
    name = layout_name(options)
    if name not in layouts:
        raise CheckpointError(f"--layout {name}: unknown for {options.to}; there are {', '.join(layouts)}")
    return layouts[name]


def layout_name(options: ConvertOptions) -> str:
    """The layout that is asked for, or the framework's first."""
    return options.layout or next(iter(LAYOUTS[options.to]))


def _check_destination(source: Path, destination: Path, overwrite: bool) -> None:
    if destination.is_file():
        raise RunFolderError(f"{destination}: is a file; the result is a folder")
    if destination.is_dir() and any(destination.iterdir()) and not overwrite:
        raise RunFolderError(f"{destination}: exists and is not empty; --overwrite replaces it")
    # Not `source.exists()`: a TensorFlow prefix is no file.
    if not is_checkpoint(source):
        return
    common = os.path.commonpath([source.resolve(), destination.resolve()])
    if common == str(destination.resolve()):
        raise RunFolderError(f"{destination}: holds the source {source}; choose another destination")
    # A new folder inside the source harms none but OneFlow's, of which each folder is a part.
    if common == str(source.resolve()) and (destination.exists() or oneflow_folder.is_checkpoint(source)):
        raise RunFolderError(f"{destination}: lies in the source {source}; choose another destination")


def _planned(
    checkpoint: CanonicalCheckpoint, layout: Layout, options: ConvertOptions
) -> tuple[list[Tensor], tuple[str, ...]]:
    """(tensors by their names in the target, names of those that the source does not have)."""
    names = foreign_names(checkpoint.tensors, checkpoint.family, layout.dialect)
    if options.to == "tf" and checkpoint.heads == ("generator",):
        names = {own: (generator_name(name), transpose) for own, (name, transpose) in names.items()}
    dtype = None if options.dtype is None else TYPES[options.dtype]
    stored = {tensor.info.dtype for tensor in checkpoint.tensors.values()}
    if options.to == "oneflow" and "BF16" in (stored if dtype is None else {dtype}):
        raise CheckpointError("--to oneflow: OneFlow 0.9 does not read bfloat16; give --dtype fp32 or fp16")
    planned = [_target(tensor, *names[name], dtype) for name, tensor in checkpoint.tensors.items()]
    if layout.dialect == "oneflow-legacy":
        planned = [_as_declared(tensor) for tensor in planned]
    extra = []
    if options.to == "tf" and checkpoint.family == "distilbert" and not options.with_code:
        extra = _for_googles_graph(checkpoint, _type_vocabulary(checkpoint, options), dtype or "F32")
    return planned + extra, tuple(tensor.info.name for tensor in extra)


def _target(tensor: Tensor, name: str, transpose: bool, dtype: str | None) -> Tensor:
    info = tensor.info
    kind = dtype if dtype is not None and info.dtype in _FLOATS else info.dtype
    shape = info.shape[::-1] if transpose else info.shape

    def load() -> np.ndarray:
        array = tensor.load()
        if transpose:
            array = np.ascontiguousarray(array.T)
        if kind == info.dtype:
            return array
        with np.errstate(over="ignore"):
            changed = array.astype(DTYPES[kind])
        if not np.isfinite(changed).all():
            largest = float(np.abs(array).max())
            name = next(name for name, own in TYPES.items() if own == kind)
            raise CheckpointError(f"--dtype {name}: {info.name} holds {largest:.3g}, which {name} cannot hold; bf16 and fp32 can")
        return changed

    return Tensor(replace(info, name=name, shape=shape, dtype=kind), load)


def _as_declared(tensor: Tensor) -> Tensor:
    """Programs of OneFlow up to 0.4 declare the positions as (1, positions, width), and refuse a file of another shape."""
    if not tensor.info.name.endswith("position_embeddings"):
        return tensor
    shape = (1, *tensor.info.shape)
    return Tensor(replace(tensor.info, shape=shape), lambda: tensor.load().reshape(shape))


def _type_vocabulary(checkpoint: CanonicalCheckpoint, options: ConvertOptions) -> int:
    """How many token types a DistilBERT, which has none, gets."""
    if options.type_vocabulary is not None:
        return options.type_vocabulary
    types = checkpoint.raw.get("type_vocab_size") or 2
    if type(types) is not int or not 0 < types <= _MOST_TYPES:
        raise CheckpointError(f"type_vocab_size is {types!r}, expected 1 to {_MOST_TYPES}; --type-vocabulary replaces it")
    return types


def _for_googles_graph(checkpoint: CanonicalCheckpoint, types: int, dtype: str) -> list[Tensor]:
    """What Google's BERT has and a DistilBERT does not: token types, all zero, and a pooler that lets the first token's
    state pass (before its tanh). Without them that graph would start with random ones, and say nothing."""
    size = checkpoint.config.hidden_size
    arrays: dict[str, tuple[tuple[int, ...], Callable[..., Any]]] = {
        "bert/embeddings/token_type_embeddings": ((types, size), np.zeros),
        "bert/pooler/dense/bias": ((size,), np.zeros),
        "bert/pooler/dense/kernel": ((size, size), lambda shape, kind: np.eye(shape[0], dtype=kind)),
    }
    return [
        Tensor(TensorInfo(name, shape, dtype), lambda shape=shape, make=make: make(shape, DTYPES[dtype]))
        for name, (shape, make) in arrays.items()
    ]
