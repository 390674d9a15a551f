"""Which task a classifier is for. Its tensors do not tell: the classifier of a text, that of each token and the score of one
choice have the same names. The class in `architectures` does, and a model stays of its class. The heads themselves are those of
`core.models.answer_heads`.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from typing import Any

from ..core.errors import CheckpointError
from ..core.models.answer_heads import CLASSIFIERS, SENTENCES, SPANS, TOKENS, AnswerHead
from ..core.models.architectures import Config, head_names, pooler_names, tensor_shapes
from ..core.models.head_classes import class_name, is_causal, other_head, unknown_class
from ..core.shown import plain

_CRF = re.compile(r"(^|[./-])(crf|transitions)\b")


def task_of(
    config: Config, raw: Mapping[str, Any], shapes: Collection[str], file_names: Collection[str]
) -> tuple[AnswerHead | None, list[str]]:
    """(the head that the classifier is, or None without one; notes). `shapes` holds the canonical names of what is there,
    `file_names` those of all that the file has. Raises CheckpointError where the class and the tensors cannot be of one model."""
    name, other = class_name(raw), other_head(raw)
    if is_causal(raw) and not config.family.block.causal:
        raise CheckpointError(
            f"architectures is {plain(name)}: a causal language model, whose tokens see only those before them; only encoders "
            "are converted"
        )
    there = {head: [own for own in head_names(config.answering(head)) if own in shapes] for head in CLASSIFIERS}
    found = sorted(set().union(*there.values()))
    if not found:
        return None, []
    if there[SPANS] and there[SPANS] != there[SENTENCES]:  # by names of its own
        task = SPANS
    elif other is not None:
        task = other.head
    elif name.endswith(SENTENCES.ending):
        task = SENTENCES
    else:
        task = TOKENS if not there[SENTENCES] or any(_CRF.search(own) for own in file_names) else SENTENCES
    if set(found) != set(there[task]):
        said = f"architectures is {plain(name)}" if name else "no class is in architectures"
        raise CheckpointError(f"{said}: its head cannot have {next(part for part in found if part not in there[task])}")
    pooler = pooler_names(config)
    if task == SENTENCES and not name and pooler and not any(own in shapes for own in pooler):
        token_class = config.family.title + TOKENS.ending
        raise CheckpointError(
            f"{found[0]} is there and {pooler_names(config)[0]} is not: the classifier of a text needs it, that of tokens does "
            f'not; "architectures": ["{token_class}"] in the configuration says that it is one of tokens'
        )
    if task == SENTENCES and unknown_class(raw):
        return task, [f"architectures is {plain(name)}, which is not known: read as a classifier of whole texts"]
    return task, []


def task_outputs(config: Config, task: AnswerHead | None, shapes: Mapping[str, tuple[int, ...]]) -> int | None:
    """Number of logits of the classifier; None without one."""
    if task is None:
        return None
    weight, bias = head_names(config.answering(task))
    shape = shapes.get(bias) or shapes[weight]
    return shape[0] if shape else None


def model_shapes(config: Config, task: AnswerHead | None, outputs: int | None) -> dict[str, tuple[int, ...]]:
    """Name -> shape of all tensors of an encoder, its pooler and its classifier."""
    encoder = dict(tensor_shapes(config, None))
    return encoder if task is None else encoder | dict(tensor_shapes(config.answering(task), outputs))
