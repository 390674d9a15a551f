"""The configuration and the tokenizer files that belong to a checkpoint: found beside it, completed, written back.

Names of keys are Hugging Face's, whichever file they come from; Google's `bert_config.json` has the same for BERT. Sizes that
the tensors prove are compared with what the file says.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..core.config_file import CONFIG, read_config_file
from ..core.data.slow_tokenizers import BPE_FILES, MODELS
from ..core.errors import CheckpointError
from ..core.models.answer_heads import CHOICES, SENTENCES, SPANS, AnswerHead
from ..core.models.families import CONFIGURATIONS
from ..core.models.head_classes import label_names
from ..core.models.sizes import difference_lines, differences, proposed, sizes, without_sizes
from ..core.models.spec import ACTIVATIONS
from ..core.shown import shown

GOOGLE_CONFIG = "bert_config.json"
_CONFIG_NAMES = (CONFIG, GOOGLE_CONFIG, "albert_config.json", "electra_config.json")
TOKENIZER_FILES = (
    "tokenizer.json", "tokenizer_config.json", "vocab.txt", "special_tokens_map.json", "added_tokens.json", *BPE_FILES, *MODELS
)  # fmt: skip

# What Google's BertConfig has.
_GOOGLE_KEYS = (
    "attention_probs_dropout_prob",
    "hidden_act",
    "hidden_dropout_prob",
    "hidden_size",
    "initializer_range",
    "intermediate_size",
    "max_position_embeddings",
    "num_attention_heads",
    "num_hidden_layers",
    "type_vocab_size",
    "vocab_size",
)


def find_config(path: Path, given: Path | None) -> tuple[dict[str, Any] | None, Path | None]:
    """(configuration, its file): `given`, or the one beside the checkpoint; (None, None) where there is none."""
    if given is not None:
        return _read_config(given), given
    for folder in _nearby(path):
        for name in _CONFIG_NAMES:
            if (folder / name).is_file():
                return _read_config(folder / name), folder / name
    return None, None


def find_tokenizer(path: Path) -> dict[str, Path]:
    """Name -> file of what belongs to the tokenizer, beside the checkpoint."""
    for folder in _nearby(path):
        files = {name: folder / name for name in TOKENIZER_FILES if (folder / name).is_file()}
        if files:
            return files
    return {}


def _nearby(path: Path) -> list[Path]:
    """Where the files of a checkpoint are: in its folder, or in the one above a folder of weights alone."""
    return [path, path.parent] if path.is_dir() else [path.parent]


def _read_config(path: Path) -> dict[str, Any]:
    return read_config_file(path, f"a {CONFIG} or {GOOGLE_CONFIG}")


def without_config(path: Path, family: str, shapes: Mapping[str, tuple[int, ...]]) -> CheckpointError:
    """What to say where no configuration was found: all that could be read off the tensors, and what could not."""
    return CheckpointError(
        f"{path}: no {CONFIG} or {GOOGLE_CONFIG} beside it, and the number of attention heads is in no tensor; "
        f"give --config FILE, for example with {proposed(family, shapes)}"
    )


def check_sizes(
    raw: dict[str, Any], where: str, family: str, shapes: Mapping[str, tuple[int, ...]], trust_tensors: bool
) -> tuple[dict[str, Any], list[str]]:
    """(configuration, notes) with the tensors' sizes. Where the two differ, an error with all differences, or, where
    `trust_tensors`, a note. One without any size is an error."""
    if problem := without_sizes(raw, family, shapes):
        raise CheckpointError(f"{where}: {problem}")
    wrong = differences(raw, family, shapes)
    if wrong and not trust_tensors:
        raise CheckpointError("\n".join(difference_lines(wrong, where)) + "\n(--fix-config takes the tensors' sizes)")
    notes = [f"{key} is {size}; the configuration said {shown(told)}" for key, (told, size) in wrong.items()]
    return {**raw, **sizes(family, shapes)}, notes


def activation_note(raw: Mapping[str, Any], path: Path, family: str) -> list[str]:
    """What to know where the configuration is Google's: whose `gelu` is not the one of Hugging Face, but for ELECTRA's."""
    # Google's files have no model_type.
    googles = "model_type" not in raw and CONFIGURATIONS[family].family.in_googles_code
    if not googles or raw.get("hidden_act") != "gelu" or family == "electra":
        return []
    return [
        f"{path.name}: Google's code computes gelu by the tanh approximation, Hugging Face's gelu (kept here, as is usual) "
        "by erf; up to 5e-4 apart in an activation. hidden_act gelu_new is Google's"
    ]


def with_heads(
    raw: Mapping[str, Any],
    family: str,
    heads: tuple[str, ...],
    task: AnswerHead | None,
    outputs: int | None,
    where: str,
    scores_pairs: bool = False,
) -> dict[str, Any]:
    """The configuration with the class of transformers that has these heads, and with the labels of its classifier; one that
    `scores_pairs` is a cross-encoder's, whose number is no regression's."""
    own = CONFIGURATIONS[family].family
    kind = own.classes.get(heads, "Model") if task is None else task.ending
    filled = {**raw, "architectures": [own.title + kind]}
    for name in heads:
        filled |= own.head_keys.get(name, {})
    if task in (None, CHOICES, SPANS):  # whose outputs are scores of a choice or of a place, and no classes
        return filled
    try:
        labels = label_names(raw)
    except ValueError as error:
        raise CheckpointError(f"{where}: {error}") from error
    if labels is None:
        labels = {str(index): f"LABEL_{index}" for index in range(outputs)}
    elif not isinstance(labels, dict) or set(labels) != {str(index) for index in range(len(labels))}:
        raise CheckpointError(f'{where}: id2label: expected {{"0": name, "1": name, ...}}, got {shown(labels)}')
    elif len(labels) != outputs:
        raise CheckpointError(f"{where}: id2label names {len(labels)} classes, the classifier has {outputs} outputs")
    filled |= {"id2label": labels, "label2id": {str(label): int(index) for index, label in labels.items()}}
    if outputs == 1 and task == SENTENCES and not scores_pairs:
        filled["problem_type"] = "regression"
    return filled


def google_config(raw: Mapping[str, Any], type_vocabulary: int | None) -> dict[str, Any]:
    """The `bert_config.json` of a configuration, as Google's code reads it."""
    own_key = CONFIGURATIONS[raw.get("model_type", "bert")].own_key
    known = {key: raw[own_key(key)] for key in _GOOGLE_KEYS if raw.get(own_key(key)) is not None}
    for key in ("embedding_size", "num_hidden_groups", "inner_group_num"):
        if key in raw:
            known[key] = raw[key]
    if type_vocabulary is not None:
        known["type_vocab_size"] = type_vocabulary
    if ACTIVATIONS.get(known.get("hidden_act")) in ("tanh", "erf"):
        known["hidden_act"] = "gelu"  # the only one there, by the tanh approximation; `google_notes` tells where it differs
    return dict(sorted(known.items()))


def write_files(folder: Path, raw: Mapping[str, Any], others: Mapping[str, Path], google: Mapping[str, Any] | None) -> None:
    """Write the configuration into the folder of a result and copy `others` there, the tokenizer's files among them."""
    (folder / CONFIG).write_text(json.dumps(raw, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    if google is not None:
        (folder / GOOGLE_CONFIG).write_text(json.dumps(google, indent=2) + "\n", encoding="utf-8")
    for name, path in others.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, folder / name)
