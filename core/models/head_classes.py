"""What the `architectures` of a `config.json` says of a model's head. Tensors alone cannot tell: the classifier of a sentence,
that of each token and the score of one choice have the same names and shapes."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from ..shown import plain, shown
from .answer_heads import NEXT_WORDS, OTHERS, SENTENCES, TOKENS, WITHOUT_CLASSIFIER, WORDS, AnswerHead
from .spec import ModelConfig

_IN_TAG = re.compile(r"[BIESMLU][-_].+")

HEAD_PARTS = frozenset({"classifier", "pre_classifier", "qa_outputs", "sequence_summary", "crf"})
"""What the names of the tensors of such heads start with."""


@dataclass(frozen=True)
class OtherHead:
    """A head that answers for something else than a text, or a pair of texts, as a whole."""

    head: AnswerHead
    reason: str
    """How it is known, for messages: `architectures is BertForTokenClassification: a token classifier`."""


def other_head(raw: Mapping[str, Any]) -> OtherHead | None:
    """The head of a configuration that is not that of a classifier of sentences; None where it is, or where nothing is said."""
    name, labels = class_name(raw), raw.get("id2label") or raw.get("label2id")
    names = list(map(str, labels.values() if labels is raw.get("id2label") else labels)) if isinstance(labels, dict) else []
    if raw.get("problem_type") == "regression" and len(names) > 1:
        return OtherHead(SENTENCES, f"problem_type is regression, of {len(names)} numbers: only one is computed here")
    if name.endswith((SENTENCES.ending, *WITHOUT_CLASSIFIER)):
        return None
    for head in OTHERS:
        if re.search(head.alike, name):
            return OtherHead(head, f"architectures is {plain(name)}: {head.what}")
    if "O" in names and len(names) > 1 and all(label == "O" or _IN_TAG.fullmatch(label) for label in names):
        return OtherHead(TOKENS, f"its labels are tags of tokens ({plain(', '.join(names[:3]))}): {TOKENS.what}")
    return None


def label_names(raw: Mapping[str, Any]) -> Any:
    """The `id2label` of a configuration, or what its `label2id` says where it stands alone; None without either. Raises
    ValueError where the two give the same names to different classes: one of them is wrong, and answers by it would be others."""
    names, numbers = raw.get("id2label"), raw.get("label2id")
    if not isinstance(numbers, dict) or not numbers:
        return names
    by_number = {str(number): name for name, number in numbers.items()}
    if names is None:
        return by_number if len(by_number) == len(numbers) else None
    numbered = isinstance(names, dict) and set(names) == {str(index) for index in range(len(names))}
    if numbered and names != by_number and sorted(map(str, names.values())) == sorted(map(str, numbers)):
        wrong = next(key for key, name in names.items() if by_number.get(key) != name)
        other = shown(by_number.get(wrong))
        raise ValueError(
            f"id2label: class {shown(wrong)} is {shown(names[wrong])}, and {other} in label2id; one of them is wrong"
        )
    return names


def unknown_class(raw: Mapping[str, Any]) -> str:
    """The class that `architectures` names, where nothing is known of it; else an empty string."""
    name = class_name(raw)
    known = name.endswith((SENTENCES.ending, *WITHOUT_CLASSIFIER)) or other_head(raw) is not None
    return "" if known else name


def says_words(raw: Mapping[str, Any]) -> AnswerHead | None:
    """The head of a language model's class, be it of masked words or of the next one; None of any other."""
    if is_causal(raw):
        return NEXT_WORDS
    return WORDS if class_name(raw).endswith((WORDS.ending, *WORDS.also)) else None


def is_causal(raw: Mapping[str, Any]) -> bool:
    """Whether the class is that of a language model whose tokens see only those before them."""
    return any(ending in class_name(raw) for ending in (NEXT_WORDS.ending, *NEXT_WORDS.also))


def other_words(config: ModelConfig, head: AnswerHead) -> str:
    """Why a model does not predict words as `head` has it; an empty string where it does."""
    kind, causal = config.family.model_type, config.family.block.causal
    if causal == (head == NEXT_WORDS):
        return ""
    if causal:
        return f"a {kind} predicts the next word from those before it, and no masked ones; expected task.kind clm"
    return f"a {kind} sees the words that it should predict, and learns masked ones; expected task.kind mlm"


def class_name(raw: Mapping[str, Any]) -> str:
    """The first of `architectures`, or an empty string."""
    names = raw.get("architectures")
    return names[0] if isinstance(names, list) and names and isinstance(names[0], str) else ""


def is_of_head(name: str) -> bool:
    """Whether a tensor of this name belongs to such a head."""
    return name.split(".")[0] in HEAD_PARTS


def head_parts(names: Iterable[str]) -> str:
    """The parts of a head that these tensors are of, for a message."""
    return ", ".join(sorted({name.split(".")[0] for name in names}))
