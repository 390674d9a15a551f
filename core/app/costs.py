"""What a recipe costs, from architectures alone: it can be known before any data, teacher or machine is at hand.

Counted are the multiplications of matrices, in multiply-adds per token of texts of `TEXT_LENGTH` tokens:
  BERT     of each layer 4 D^2 (query, key, value, output) + 2 D I (feed-forward) + 2 n D (scores and their weighted sum),
           with D the width, I the inner width, n the tokens of a text; pooler D^2 and classifier D C, once a text;
           likewise its relatives, with E D for the map from narrower embeddings; DeBERTa's two terms of distances are
           2 min(2 n - 1, rows) D
  BiLSTM   2 directions x 4 gates x H (E + H), with E and H the widths of words and states; classifier once a text
  words    of the head that predicts words E (D + V), with V the size of the vocabulary, at the tokens that are compared
  losses   the projections only
A backward pass takes two of the forward pass's products, one for the gradient of its input and one for that of its weights;
of weights that are frozen only the first. Only the layers that the outputs asked for need are counted, as they are run: of a
last layer that computes the first token alone, keys and values of all tokens, though torch on a CPU does without them, and the
rest once a text.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from ..models.architectures import Config, tensor_shapes
from ..models.encoder_heads import wants_first_only
from ..models.heads import words_head
from ..models.outputs import LOGITS, MASKED_WORDS, POOLED, WORDS, attention_kinds, depth
from ..models.parts import ATTENTION_INPUT, CLASSIFIER, EMBEDDINGS, ENCODER, LAYER, POOLER
from ..models.spec import EncoderConfig
from ..models.tree import products
from ..teacher_outputs import make_layout

TEXT_LENGTH = 32
_BYTES = {"fp32": 4, "fp16": 2}


def parameter_count(config: Config, outputs: int | None, words: bool = False) -> int:
    """Number of weights of a model with that many logits, or of one that predicts words."""
    return sum(int(np.prod(shape)) for shape in tensor_shapes(config, outputs, words).values())


def layer_cost(config: EncoderConfig, length: int) -> int:
    """Multiply-adds per token of one encoder layer."""
    passes = len(config.layer_prefixes(0))
    return products(config, LAYER) + passes * (2 * length * config.hidden_size + distances_cost(config, length))


def distances_cost(config: EncoderConfig, length: int) -> int:
    """Multiply-adds per token of the terms of distances in a layer's scores: with each row that a text of this length needs. The
    rows themselves are mapped once for a batch, which is not counted."""
    if not config.distance_terms:
        return 0
    return len(config.distance_terms) * min(2 * length - 1, config.distance_rows) * config.hidden_size


def forward_cost(config: Config, wanted: frozenset[str], outputs: int | None, length: int = TEXT_LENGTH) -> float:
    """Multiply-adds per token of a forward pass for the `wanted` outputs."""
    if not config.family.is_encoder:
        texts = 2 if config.pairs else 1
        return products(config, ENCODER) + products(config, POOLER, CLASSIFIER, outputs=outputs) / (length * texts)
    width, last = config.hidden_size, depth(wanted, config.num_hidden_layers)
    cost = last * layer_cost(config, length) + products(config, EMBEDDINGS)
    if last == config.num_hidden_layers and wants_first_only(config, wanted):
        of_all = (3 if ATTENTION_INPUT in config.family.by_role else 2) * width**2
        cost += of_all + (products(config, LAYER) - of_all) / length + 2 * width - layer_cost(config, length)
    for number in range(last + 1, config.num_hidden_layers + 1):
        kinds = attention_kinds(wanted, number)
        needed = {"query": "queries", "key": "keys", "value": "values"}
        maps = [name for name, kind in needed.items() if kind in kinds or ("scores" in kinds and name != "value")]
        count = 3 if maps and ATTENTION_INPUT in config.family.by_role else len(maps)
        cost += count * width**2 + (length * width + distances_cost(config, length) if "scores" in kinds else 0)
    return cost + head_cost(config, wanted, outputs) / length


def words_cost(config: Config, wanted: frozenset[str], masked_share: float) -> float:
    """Multiply-adds per token of the head that predicts words, at all tokens or at the masked ones."""
    if not wanted & {WORDS, MASKED_WORDS}:
        return 0.0
    share = 1.0 if WORDS in wanted or config.family.block.causal else masked_share
    narrow, width = config.embedding_size, config.hidden_size if words_head(config).transform else 0
    # The losses that take the states of all tokens go through the vocabulary with all of them.
    return share * narrow * (width + config.vocab_size)


def head_cost(config: EncoderConfig, wanted: frozenset[str], outputs: int | None) -> int:
    """Multiply-adds per text of what follows the encoder."""
    if LOGITS in wanted:
        return products(config, POOLER, CLASSIFIER, outputs=outputs)
    return products(config, POOLER) if POOLED in wanted else 0


def projection_cost(shapes: Iterable[tuple[int, ...]]) -> int:
    """Multiply-adds per token, forward and backward, of the projections of these shapes, one for each use."""
    return 3 * sum(shape[0] * shape[1] for shape in shapes if len(shape) == 2)


def replacing_cost(
    student: EncoderConfig, predecessor: EncoderConfig, rate: float, outputs: int | None, length: int = TEXT_LENGTH
) -> float:
    """Multiply-adds per token of a training step in which each module is the student's with probability `rate`: it takes
    three passes, and the predecessor's layers, which are frozen, two. Pooler and classifier are counted as trained."""
    modules = rate * 3 * student.num_hidden_layers * layer_cost(student, length)
    modules += (1 - rate) * 2 * predecessor.num_hidden_layers * layer_cost(predecessor, length)
    return modules + 3 * head_cost(student, frozenset({LOGITS}), outputs) / length


def cache_bytes(
    teachers: Mapping[str, Config], wanted: Mapping[str, frozenset[str]], outputs: Mapping[str, int | None], precision: str,
    length: int = TEXT_LENGTH,
) -> float:  # fmt: skip
    """Bytes that a teacher cache takes for 1,000 tokens, in texts of `length` tokens; `outputs` says of each teacher how many
    logits it has."""
    numbers = sum(
        make_layout(name, teachers[teacher], outputs[teacher], np.array([length])).size
        for teacher, names in wanted.items()
        for name in names
    )
    return numbers * _BYTES[precision] * 1000 / length


def summary(student: float, teacher: float, epochs: float | None) -> dict[str, Any]:
    """The share of the teacher in a step, and what a cache saves: of `epochs` passes over the data one is left."""
    share = teacher / (teacher + student) if teacher else 0.0
    saved = None if epochs is None else max(0.0, 1 - 1 / epochs)
    return {
        "student_forward_backward": student,
        "teacher_forward": teacher,
        "teacher_share": share,
        "cache_saves_of_teacher": saved,
        "cache_saves_of_all": None if saved is None else saved * share,
    }
