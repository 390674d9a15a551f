"""Which task a classifier is for. Its tensors do not tell: the classifier of a text, that of each token and the score of one
choice have the same names. The class in `architectures` does, and a model stays of its class.

    sentences  *ForSequenceClassification   (batch, outputs)          of the pooled first token
    choices    *ForMultipleChoice           (batch, 1)                as `sentences`, one number for a text and one choice
    tokens     *ForTokenClassification      (batch, length, outputs)  of each token's state
    spans      *ForQuestionAnswering        (batch, length, 2)        of each token's state: start and end of the answer
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from typing import Any

from ..core.errors import CheckpointError
from ..core.models.architectures import Config, head_names, pooler_names, tensor_shapes
from ..core.models.head_classes import class_name, other_head, unknown_class
from ..core.shown import plain

SENTENCES, CHOICES, TOKENS, SPANS = "sentences", "choices", "tokens", "spans"
ENDINGS = {
    SENTENCES: "ForSequenceClassification",
    CHOICES: "ForMultipleChoice",
    TOKENS: "ForTokenClassification",
    SPANS: "ForQuestionAnswering",
}
"""Task -> how transformers' class ends."""
LAST_MAPS = {TOKENS: "classifier", SPANS: "qa_outputs"}
"""Task -> the linear map of each token's state; those of the other two tasks follow the pooler."""

_TASKS = {ending: task for task, ending in ENDINGS.items()}
_SPANS = ("qa_outputs.weight", "qa_outputs.bias")
_CAUSAL = re.compile(r"LMHeadModel|ForCausalLM|DoubleHeads")
_CRF = re.compile(r"(^|[./-])(crf|transitions)\b")


def task_of(
    config: Config, raw: Mapping[str, Any], shapes: Collection[str], file_names: Collection[str]
) -> tuple[str | None, list[str]]:
    """(task of the classifier, or None without one; notes). `shapes` holds the canonical names of what is there, `file_names`
    those of all that the file has. Raises CheckpointError where the class and the tensors cannot be of one model."""
    name, other = class_name(raw), other_head(raw)
    if _CAUSAL.search(name):
        raise CheckpointError(
            f"architectures is {plain(name)}: a causal language model, whose tokens see only those before them; only encoders "
            "are converted"
        )
    sentences, tokens = _of(head_names(config), shapes), _of(("classifier.weight", "classifier.bias"), shapes)
    found = sorted({*sentences, *tokens, *_of(_SPANS, shapes)})
    if not found:
        return None, []
    if _of(_SPANS, shapes):
        task = SPANS
    elif other is not None:
        task = _TASKS[other.ending]
    else:
        task = TOKENS if not sentences or any(_CRF.search(name) for name in file_names) else SENTENCES
    fitting = {SPANS: _of(_SPANS, shapes), TOKENS: tokens}.get(task, sentences)
    if set(found) != set(fitting):
        said = f"architectures is {plain(name)}" if name else "no class is in architectures"
        raise CheckpointError(f"{said}: its head cannot have {next(part for part in found if part not in fitting)}")
    if task == SENTENCES and not name and not _of(pooler_names(config), shapes):
        token_class = config.family.title + ENDINGS[TOKENS]
        raise CheckpointError(
            f"{found[0]} is there and {pooler_names(config)[0]} is not: the classifier of a text needs it, that of tokens does "
            f'not; "architectures": ["{token_class}"] in the configuration says that it is one of tokens'
        )
    if task == SENTENCES and unknown_class(raw):
        return task, [f"architectures is {plain(name)}, which is not known: read as a classifier of whole texts"]
    return task, []


def _of(names: Collection[str], shapes: Collection[str]) -> list[str]:
    return [name for name in names if name in shapes]


def task_outputs(config: Config, task: str | None, shapes: Mapping[str, tuple[int, ...]]) -> int | None:
    """Number of logits of the classifier; None without one."""
    if task is None:
        return None
    last = f"{LAST_MAPS[task]}." if task in LAST_MAPS else head_names(config)[0].removesuffix("weight")
    shape = shapes.get(f"{last}bias") or shapes[f"{last}weight"]
    return shape[0] if shape else None


def model_shapes(config: Config, task: str | None, outputs: int | None) -> dict[str, tuple[int, ...]]:
    """Name -> shape of all tensors of an encoder, its pooler and its classifier."""
    if task not in LAST_MAPS:
        return dict(tensor_shapes(config, outputs))
    last = LAST_MAPS[task]
    own = {f"{last}.weight": (outputs, config.hidden_size), f"{last}.bias": (outputs,)}
    return dict(tensor_shapes(config, None)) | own


def with_class(raw: dict[str, Any], config: Config, task: str | None) -> dict[str, Any]:
    """The configuration with the class of the task."""
    return raw if task is None else {**raw, "architectures": [config.family.title + ENDINGS[task]]}
