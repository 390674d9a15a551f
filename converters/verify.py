"""The proof of a conversion: the same weights, the same configuration, and the same outputs layer by layer, in NumPy float64.

No framework is needed. `core.app.verify` adds the forward passes of the frameworks that are installed.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ..core.config_file import read_config_file
from ..core.errors import CheckpointError
from ..core.models.answer_heads import AnswerHead
from ..core.models.architectures import is_encoder, make_forward, used_tensors
from ..core.models.encoder_heads import make_head
from ..core.models.heads import decoders, head_shapes, heads_of, word_embeddings
from ..core.models.outputs import LOGITS, POOLED, output_name
from ..core.models.parts import PAIRS, WORDS
from ..core.models.pretraining import make_pretraining
from ..core.reference import ReferenceOps
from .canonical import CanonicalCheckpoint
from .configuration import GOOGLE_CONFIG, google_config
from .numpy_float32 import Float32Ops

LIMITS = {"F64": 1e-5, "F32": 1e-5, "F16": 1e-2, "BF16": 1e-1}
"""Type of the result's weights -> how far its outputs may be from the source's, relative to the largest of them.

Float32 forward passes of correct ports differ by some 1e-6; half precision keeps 11 bits of each weight, bfloat16 8, and a
dozen layers add these errors up.
"""
ROUNDING = 16
"""An output of an ill-conditioned model may be off by so many times what rounding to float32 does to the source itself: each
framework adds up in an order of its own."""
_FLOATS = frozenset(LIMITS)
_BATCH, _LENGTH = 2, 12


@dataclass(frozen=True)
class Difference:
    """How far an output of two models is apart."""

    output: str
    absolute: float
    relative: float
    """Of the largest value of that output, if that is above 1; infinite where one of the two is not finite."""


def sample_batch(checkpoint: CanonicalCheckpoint) -> dict[str, np.ndarray]:
    """Two rows of tokens, the second with padding: input_ids, token_type_ids (batch, length) int32, attention_mask float32. A
    BiLSTM has no token types; one of pairs takes the rows in the other order as second_ids and second_mask."""
    config = checkpoint.config
    length = min(_LENGTH, config.positions) if is_encoder(config) else _LENGTH
    generator = np.random.default_rng(0)
    ids = generator.integers(0, config.vocab_size, (_BATCH, length)).astype(np.int32)
    if is_encoder(config) and config.first_position:  # transformers tells by a token's number whether it has a position
        ids = np.where(ids == config.pad_token_id, (ids + 1) % config.vocab_size, ids).astype(np.int32)
    types = np.zeros((_BATCH, length), np.int32)
    if is_encoder(config) and config.type_vocab_size > 1:
        types[:, length // 2 :] = 1
    mask = np.ones((_BATCH, length), np.float32)
    mask[1, length - length // 3 :] = 0
    if not is_encoder(config):
        second = {"second_ids": ids[::-1].copy(), "second_mask": mask[::-1].copy()} if config.pairs else {}
        return {"input_ids": ids, "attention_mask": mask} | second
    return {"input_ids": ids, "token_type_ids": types, "attention_mask": mask}


def needed_tensors(checkpoint: CanonicalCheckpoint) -> dict[str, frozenset[str]]:
    """Output that the model has, from the embeddings on -> names of the tensors that it is computed from."""
    config, tensors = checkpoint.config, checkpoint.tensors
    if not is_encoder(config):
        return {LOGITS: used_tensors(config, frozenset({LOGITS}))}

    def encoder(output: str) -> frozenset[str]:
        return used_tensors(config, frozenset({output}))

    layers = [output_name("hidden", layer) for layer in range(config.num_hidden_layers + 1)]
    needed = {name: encoder(name) for name in layers}
    if config.family.pooler_in_encoder and any(".pooler." in name for name in tensors):
        needed[POOLED] = encoder(POOLED)
    if checkpoint.task is not None:
        needed[LOGITS] = used_tensors(config.answering(checkpoint.task), frozenset({LOGITS}))
    kinds, shapes = heads_of(config.family), head_shapes(config)
    for head in checkpoint.heads:
        needed[head] = encoder(POOLED if kinds[head].kind == PAIRS else layers[-1]) | shapes[head].keys()
        if kinds[head].kind == WORDS:
            needed[head] |= {_words_table(checkpoint, head)}
    return needed


def _words_table(checkpoint: CanonicalCheckpoint, head: str) -> str:
    """The weight that a head predicts words with: a decoder that is not tied has its own."""
    own = decoders(checkpoint.config).get(head)
    return own if own in checkpoint.tensors else word_embeddings(checkpoint.config)


def wanted_outputs(checkpoint: CanonicalCheckpoint) -> list[str]:
    """Names of all outputs whose tensors are there, from the embeddings on."""
    there = set(checkpoint.tensors)
    return [name for name, needed in needed_tensors(checkpoint).items() if needed <= there]


def not_computed(checkpoint: CanonicalCheckpoint) -> list[str]:
    """A line for what no output depends on, or no output can be computed of."""
    there, needed = set(checkpoint.tensors), needed_tensors(checkpoint)
    absent: dict[str, list[str]] = {}
    for output, names in needed.items():
        if missing := sorted(names - there):
            absent.setdefault(missing[0], []).append(output)
    lines = [f"{', '.join(outputs)}: not computed, {name} is missing" for name, outputs in absent.items()]
    used = frozenset().union(*(names for names in needed.values() if names <= there))
    if unused := [name for name in checkpoint.tensors if name not in used]:
        more = f" and {len(unused) - 3} more" if len(unused) > 3 else ""
        lines.append(f"{', '.join(unused[:3])}{more}: compared bit for bit only, no output depends on them")
    return lines


def make_outputs(checkpoint: CanonicalCheckpoint):
    """`f(ops, parameters, batch) -> [tensor]`: all of `wanted_outputs`, in their order. Any backend can compile it."""
    config = checkpoint.config.without_dropout()
    wanted = wanted_outputs(checkpoint)
    if not is_encoder(config):
        logits = make_forward(config, frozenset(wanted))
        return lambda ops, parameters, batch: [logits(ops, parameters, batch)[name] for name in wanted]
    heads = [name for name in checkpoint.heads if name in wanted]
    # The configuration is the encoder's, whatever the classifier is: that has a pooler of its own, or none.
    names = [name for name in wanted if name not in heads and name != LOGITS]
    last = output_name("hidden", config.num_hidden_layers)
    classify = make_head(config.answering(checkpoint.task), frozenset({LOGITS}), "") if LOGITS in wanted else None
    encode = make_forward(config, frozenset(names))
    tied = all(_words_table(checkpoint, head) == word_embeddings(config) for head in heads if head in decoders(config))
    pretraining = make_pretraining(config, frozenset(heads), frozenset(), tied) if heads else None

    def outputs(ops, parameters, batch):
        encoded = encode(ops, parameters, batch)
        found = [encoded[name] for name in names]
        if classify is not None:
            found.append(classify(ops, parameters, encoded[last], batch)[LOGITS])
        if pretraining is None:
            return found
        predicted = pretraining(ops, parameters, batch)
        return found + [predicted[name] for name in heads]

    return outputs


def reference_outputs(checkpoint: CanonicalCheckpoint) -> dict[str, np.ndarray]:
    """All outputs of the sample batch, in float64."""
    return _outputs(checkpoint, ReferenceOps(), np.float64)


def rounding(checkpoint: CanonicalCheckpoint, reference: dict[str, np.ndarray]) -> dict[str, float]:
    """Output -> how far float32 takes it from `reference`, that of float64, relative to its largest value."""
    with np.errstate(all="ignore"):
        found = _outputs(checkpoint, Float32Ops(), np.float32)
    return {row.output: row.relative for row in differences(reference, found, sample_batch(checkpoint))}


def _outputs(checkpoint: CanonicalCheckpoint, ops, kind: type) -> dict[str, np.ndarray]:
    if not wanted_outputs(checkpoint):
        return {}
    parameters = {
        name: tensor.load().astype(kind) for name, tensor in checkpoint.tensors.items() if tensor.info.dtype in _FLOATS
    }
    outputs = make_outputs(checkpoint)(ops, parameters, sample_batch(checkpoint))
    return {name: np.asarray(value) for name, value in zip(wanted_outputs(checkpoint), outputs)}


def differences(expected: dict[str, np.ndarray], got: dict[str, np.ndarray], batch) -> list[Difference]:
    """Each expected output's largest difference, over real tokens only."""
    real = batch["attention_mask"] > 0
    rows = []
    for name, reference in expected.items():
        other = np.asarray(got[name], np.float64)
        if reference.shape[:2] == real.shape and name != POOLED and not (name == LOGITS and reference.ndim == 2):
            reference, other = reference[real], other[real]
        with np.errstate(all="ignore"):
            difference = float(np.abs(reference - other).max())
            relative = difference / max(1.0, float(np.abs(reference).max()))
        rows.append(Difference(name, difference, relative) if np.isfinite(relative) else Difference(name, np.inf, np.inf))
    return rows


def compare_tensors(source: CanonicalCheckpoint, result: CanonicalCheckpoint) -> str:
    """Raises CheckpointError unless `result` has the tensors of `source` and no others, with the same bits, or, in another
    type, rounded to the nearest; says what was found."""
    lost = [name for name in source.tensors if name not in result.tensors]
    more = [name for name in result.tensors if name not in source.tensors]
    if lost or more:
        raise CheckpointError(f"verification failed: {(lost + more)[0]} is not in the {'result' if lost else 'source'}")
    rounded = 0
    for name, tensor in source.tensors.items():
        expected, got = tensor.load(), result.tensors[name].load()
        if expected.dtype != got.dtype:
            expected, rounded = expected.astype(got.dtype), rounded + 1
        if expected.shape != got.shape or not np.array_equal(_bits(expected), _bits(got)):
            raise CheckpointError(f"verification failed: {name} is not the same in the result")
    equal = len(source.tensors) - rounded
    return f"{equal} tensors bit for bit the same" + (f", {rounded} rounded to the nearest" if rounded else "")


def compare_configurations(source: CanonicalCheckpoint, result: CanonicalCheckpoint) -> None:
    """Raises CheckpointError unless both compute the same: sizes, activation, epsilon, heads and what the classifier is for.
    No output need tell: an epsilon is less than float32's rounding where states vary much."""
    pairs = [("model_type", source.family, result.family), ("task", _name(source.task), _name(result.task))]
    pairs += [("outputs", source.outputs, result.outputs), ("heads", source.heads, result.heads)]
    own, other = source.config.model_dump(), result.config.model_dump()
    pairs += [(key, value, other.get(key)) for key, value in own.items()]
    pairs += [(key, source.raw.get(key), result.raw.get(key)) for key in ("architectures", "id2label", "problem_type")]
    path = result.source.path
    folder = path if path.is_dir() else path.parent
    if (folder / GOOGLE_CONFIG).is_file() and result.dialect == "tensorflow":
        there = read_config_file(folder / GOOGLE_CONFIG, f"a {GOOGLE_CONFIG}")
        right = google_config(source.raw, there.get("type_vocab_size") if source.family == "distilbert" else None)
        pairs += [(f"{GOOGLE_CONFIG}: {key}", value, there.get(key)) for key, value in right.items()]
    for key, wanted, found in pairs:
        if wanted != found:
            raise CheckpointError(f"verification failed: {key} is {found!r} in the result, {wanted!r} in the source")


def _name(task: AnswerHead | None) -> str | None:
    return task and task.name


def _bits(array: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(array).reshape(-1).view(np.uint8)


def limits(source: CanonicalCheckpoint, result: CanonicalCheckpoint, reference: dict[str, np.ndarray]) -> dict[str, float]:
    """Output -> how far it may be from the source's: what the coarsest type of the result's weights allows, or some times what
    float32 does to the source. `reference` are its outputs in float64."""
    coarsest = max(
        (LIMITS[tensor.info.dtype] for tensor in result.tensors.values() if tensor.info.dtype in _FLOATS), default=LIMITS["F32"]
    )
    return {name: max(coarsest, ROUNDING * own) for name, own in rounding(source, reference).items()}
