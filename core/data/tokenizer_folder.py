"""The files of a tokenizer as transformers reads them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import tokenizers
from tokenizers import models

from .pair_types import TYPES


def length_limit(config: Mapping[str, Any]) -> int | None:
    """`model_max_length`, where it is one: transformers writes 1e30 for "no limit"."""
    length = config.get("model_max_length")
    return length if isinstance(length, int) and length < 2**31 else None


def write_tokenizer(
    folder: Path,
    library: tokenizers.Tokenizer,
    definition: str,
    is_berts: bool,
    named: Mapping[str, str],
    types: bool,
    config: Mapping[str, Any],
) -> None:
    """Write tokenizer.json (`definition`), tokenizer_config.json and, of WordPiece, vocab.txt. `named` are the special tokens by
    their roles, and `types` is whether a pair has token type 1 and its model takes it (a GPT-2 of transformers looks types up
    among its words); `config` is the content of the tokenizer_config.json that was read."""
    folder.mkdir(parents=True, exist_ok=True)
    # The classes of other tokenizers build theirs anew from the vocabulary, and not always as the file has it.
    written: dict[str, Any] = {"tokenizer_class": "PreTrainedTokenizerFast"}
    normalizer = json.loads(definition)["normalizer"] or {}
    if is_berts and normalizer.get("type") == "BertNormalizer":
        written = {
            "tokenizer_class": "BertTokenizer",
            "do_lower_case": normalizer["lowercase"],
            "strip_accents": normalizer["strip_accents"],
            "tokenize_chinese_chars": normalizer["handle_chinese_chars"],
        }
    written |= {f"{role}_token": token for role, token in named.items()}
    if not is_berts or not types:  # as a rule not BERT's, whose class says the same
        written["model_input_names"] = ["input_ids", *([TYPES] if types else []), "attention_mask"]
    if (length := length_limit(config)) is not None:
        written["model_max_length"] = length
    if config.get("truncation_side") == "left":
        written["truncation_side"] = "left"
    _write(folder / "tokenizer.json", definition)
    if isinstance(library.model, models.WordPiece):
        vocabulary = library.get_vocab(with_added_tokens=True)
        _write(folder / "vocab.txt", "".join(f"{token}\n" for token in sorted(vocabulary, key=vocabulary.get)))
    _write(folder / "tokenizer_config.json", json.dumps(written, indent=2) + "\n")


def _write(path: Path, text: str) -> None:
    path.write_bytes(text.encode("utf-8"))  # bytes: no platform may turn \n into \r\n
