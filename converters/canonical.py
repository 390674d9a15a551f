"""A checkpoint of any format in the canonical form: Hugging Face's names and layouts, complete, and checked against its
configuration. Tensors stay where they are until they are asked for.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from ..core.checkpoint import check_unchanged
from ..core.config_file import model_config
from ..core.cross_encoder_folder import is_cross_encoder
from ..core.errors import CheckpointError, checkpoint_named, did_you_mean
from ..core.models.answer_heads import CHOICES, SENTENCES, AnswerHead
from ..core.models.architectures import CONFIGURATIONS, Config, pooler_names
from ..core.models.config_keys import config_notes
from ..core.models.heads import head_shapes, heads_of
from ..core.models.parts import PAIRS
from ..core.models.tree import unused_shapes
from ..core.sentence_folder import sentence_files
from .bilstm_checkpoint import BILSTM, read_bilstm
from .configuration import activation_note, check_sizes, find_config, find_tokenizer, with_heads, without_config
from .formats import open_checkpoint, whole_folder
from .names_tensorflow import FOR_GOOGLES_GRAPH
from .projections import PROJECTION, read_projections
from .reading import ReadOptions, allowed
from .recognise import Recognised, recognise
from .refused_tensors import refuse_trained, refuse_unknown
from .repair import flipped_word_embeddings, repair_message
from .rules import Match
from .targets import source_notes
from .task_heads import model_shapes, task_of, task_outputs
from .tensors import Checkpoint, Tensor, TensorInfo

_SHOWN = 5
_LEFT_OUT = "left out by --allow-extra"


@dataclass
class CanonicalCheckpoint:
    """A checkpoint in the canonical form, with what was found, dropped, repaired and left out on the way."""

    source: Checkpoint
    dialect: str
    family: str
    config: Config
    raw: dict[str, Any]
    """As a `config.json` has it."""
    tensors: dict[str, Tensor]
    """By canonical name, in the order of the architecture."""
    outputs: int | None
    """Number of logits of its classifier; None without one."""
    task: AnswerHead | None
    """The head that the classifier is; None without one."""
    heads: tuple[str, ...]
    """Pre-training heads: `mlm`, `nsp`, ..."""
    tokenizer: dict[str, Path]
    dropped: dict[str, str]
    """Name in the source -> why it has no place in the result."""
    missing: tuple[str, ...] = ()
    """Canonical names that are missing by the user's decision."""
    notes: list[str] = field(default_factory=list)
    config_notes: list[str] = field(default_factory=list)
    """Those of the notes that are about the keys of its configuration."""
    repairs: list[str] = field(default_factory=list)
    """What was wrong in the source and is right here."""
    of_sentences: dict[str, Path] = field(default_factory=dict)
    """Path in its folder -> file that says how it embeds texts, where it does."""
    resized: bool = False
    """Whether its vocabulary is no longer that of the source."""

    @property
    def left_out(self) -> list[str]:
        """Names in the source that have no place in the result by the user's decision."""
        return [name for name, reason in self.dropped.items() if reason == _LEFT_OUT]

    @property
    def projections(self) -> dict[str, Tensor]:
        """The tensors that are no part of the model but were trained with it."""
        return {name: tensor for name, tensor in self.tensors.items() if name.startswith(PROJECTION)}

    @property
    def dropped_by_reason(self) -> Counter[str]:
        """How many tensors were dropped for which reason."""
        return Counter(self.dropped.values())


def read_canonical(path: Path, options: ReadOptions = ReadOptions(), checkpoint: Checkpoint | None = None) -> CanonicalCheckpoint:
    """Open a checkpoint of any format, or take `checkpoint`, which was read from there. Raises CheckpointError with all that
    does not fit."""
    checkpoint = open_checkpoint(path) if checkpoint is None else checkpoint
    check_unchanged(whole_folder(path))
    raw, config_path = find_config(path, options.config)
    if raw is not None and raw.get("model_type") == BILSTM:
        return _bilstm(path, options, checkpoint, raw, str(config_path))
    shapes = {name: tensor.info.shape for name, tensor in checkpoint.tensors.items()}
    with checkpoint_named(path):
        found = recognise(shapes, raw, options=options)
    dropped = dict(checkpoint.skipped) | found.dropped
    dropped |= dict.fromkeys(allowed([*found.unknown, *found.dropped], options.allow_extra), _LEFT_OUT)
    refuse_unknown(path, {name: near for name, near in found.unknown.items() if name not in dropped}, found, shapes)
    refuse_trained(path, [checkpoint.tensors[name] for name, reason in dropped.items() if reason == FOR_GOOGLES_GRAPH])
    beside, unplaced = read_projections(path)
    dropped |= unplaced
    for name, tensor in beside.items():
        found.matches.setdefault(name, Match(tensor.info.name))
        shapes[tensor.info.name] = tensor.info.shape
    sources = checkpoint.tensors | {tensor.info.name: tensor for tensor in beside.values()}
    notes = [*checkpoint.notes, *found.notes]
    canonical_shapes = {name: match.canonical_shape(shapes[match.source]) for name, match in found.matches.items()}
    if raw is None:
        raise without_config(path, found.family, canonical_shapes)
    notes += activation_note(raw, config_path, found.family)
    raw, layer_notes = CONFIGURATIONS[found.family].current_keys({**raw, "model_type": found.family}), []
    if found.layers is not None:
        raw = {**raw, "num_hidden_layers": found.layers}
        layer_notes.append(f"the successor of a training of BERT-of-Theseus is read, which has {found.layers} layers")
    with checkpoint_named(path):
        repairs = _flip_word_embeddings(found, canonical_shapes, raw)
    raw, size_notes = check_sizes(raw, str(config_path), found.family, canonical_shapes, options.fix_config)
    config = model_config(raw, str(config_path))
    said_of_config = config_notes(raw, type(config), config_path.name)
    with checkpoint_named(str(config_path)):
        task, task_notes = task_of(config, raw, canonical_shapes, checkpoint.tensors)
    outputs = task_outputs(config, task, canonical_shapes)
    expected, heads = _expected(config, task, outputs, canonical_shapes)
    task_notes += source_notes(config, raw, task, checkpoint.tensors)
    folder = path if path.is_dir() else path.parent
    missing = _check_complete(path, expected, canonical_shapes, found, options.allow_missing)
    tensors = {
        name: _mapped(sources[found.matches[name].source], found.matches[name], name, shape, path)
        for name, shape in _ordered(expected, canonical_shapes).items()
    }
    return CanonicalCheckpoint(
        source=checkpoint,
        dialect=found.dialect,
        family=found.family,
        config=config,
        raw=with_heads(raw, found.family, heads, task, outputs, str(config_path), is_cross_encoder(folder, raw)),
        tensors=tensors,
        outputs=outputs,
        task=task,
        heads=heads,
        tokenizer=find_tokenizer(path),
        dropped=dropped,
        missing=missing,
        notes=[*notes, *layer_notes, *size_notes, *task_notes, *said_of_config],
        config_notes=said_of_config,
        repairs=repairs,
        of_sentences=sentence_files(folder),
    )


def _bilstm(
    path: Path, options: ReadOptions, checkpoint: Checkpoint, raw: dict[str, Any], where: str
) -> CanonicalCheckpoint:
    config, outputs, tensors = read_bilstm(path, options, checkpoint, raw, where)
    dropped, tokenizer = dict(checkpoint.skipped), find_tokenizer(path)
    return CanonicalCheckpoint(
        checkpoint, "canonical", BILSTM, config, raw, tensors, outputs, SENTENCES, (), tokenizer, dropped, notes=checkpoint.notes
    )


def _flip_word_embeddings(found: Recognised, shapes: dict[str, tuple[int, ...]], raw: Mapping[str, Any]) -> list[str]:
    """Turn a word embedding that was written the wrong way round; what was done, for the report."""
    repairs = []
    for name in [name for name in shapes if name.endswith("word_embeddings.weight") and len(shapes[name]) == 2]:
        if flipped_word_embeddings(shapes[name], name, raw, shapes):
            match = found.matches[name]
            found.matches[name] = replace(match, transpose=not match.transpose)
            repairs.append(f"{match.source}: {repair_message(shapes[name])}")
            shapes[name] = shapes[name][::-1]
    return repairs


def _expected(
    config: Config, task: AnswerHead | None, outputs: int | None, shapes: Mapping[str, tuple[int, ...]]
) -> tuple[dict[str, tuple[int, ...]], tuple[str, ...]]:
    """(name -> shape of all that belongs to the parts which the checkpoint has, names of the heads among them)."""
    expected, own = model_shapes(config, task, outputs), head_shapes(config)
    pooler = pooler_names(config)  # which is a part of a head of words too, in some families
    # A head without a tensor of its own is that of every model without a classifier.
    heads = tuple(
        head
        for head, tensors in own.items()
        if (any(name in shapes and name not in pooler for name in tensors) if tensors else task is None)
    )
    needs_pooler = task in (SENTENCES, CHOICES) or any(heads_of(config.family)[head].kind == PAIRS for head in heads)
    if not needs_pooler and not any(name in shapes for name in pooler):
        for name in pooler:
            expected.pop(name, None)
    for head in heads:
        expected |= own[head]
    return expected | {name: shape for name, shape in unused_shapes(config).items() if name in shapes}, heads


def _check_complete(
    path: Path,
    expected: Mapping[str, tuple[int, ...]],
    shapes: dict[str, tuple[int, ...]],
    found: Recognised,
    patterns: Sequence[str],
) -> tuple[str, ...]:
    """The names that are missing by permission. Tensors without a shape of their own get the expected one."""
    missing = [name for name in expected if name not in shapes]
    permitted = allowed(missing, patterns)
    problems = [f"missing tensor {name}{did_you_mean(name, found.unknown)}" for name in missing if name not in permitted]
    for name, shape in expected.items():
        there = shapes.get(name, shape)
        if len(there) == 1 != len(shape) and there[0] == np.prod(shape):
            match = found.matches[name]
            found.matches[name] = replace(match, shape=shape[::-1] if match.transpose else shape)
            shapes[name] = shape
        elif there != shape:
            source = found.matches[name].source
            problems.append(f"{source}: as {name} its shape is {there}, the configuration says {shape}")
    if problems:
        more = f"\nand {len(problems) - _SHOWN} more" if len(problems) > _SHOWN else ""
        hint = "\n(--allow-missing PATTERN goes on without them)" if len(permitted) < len(missing) else ""
        raise CheckpointError("\n".join(f"{path}: {line}" for line in problems[:_SHOWN]) + more + hint)
    return tuple(permitted)


def _ordered(expected: Mapping[str, Any], shapes: Mapping[str, tuple[int, ...]]) -> dict[str, tuple[int, ...]]:
    """The shapes of what is there, in the architecture's order, what it does not have (projections) last."""
    names = [name for name in expected if name in shapes] + [name for name in shapes if name not in expected]
    return {name: shapes[name] for name in names}


def _mapped(tensor: Tensor, match: Match, name: str, shape: tuple[int, ...], path: Path) -> Tensor:
    """The tensor under its canonical name, in the canonical layout."""

    def load() -> np.ndarray:
        array = tensor.load()
        if match.shape is not None:
            array = array.reshape(match.shape)
        if match.transpose:
            array = array.T
        if array.dtype.kind != "b" and not np.isfinite(array).all():
            raise CheckpointError(f"{path}: {match.source} holds values that are not finite")
        return np.ascontiguousarray(array).reshape(shape)

    return Tensor(TensorInfo(name, shape, tensor.info.dtype), load)
