"""A smaller vocabulary for a tokenizer: which tokens stay, and the tokenizer of those alone.

Texts whose pieces all stay give the same pieces. WordPiece takes the longest piece that fits, which stays. Unigram takes the best
of all ways to cut a word, and fewer ways leave the best one. BPE joins neighbours in the order of its merges, and those that lead
to a piece that stays are all kept, in their order.
"""

from __future__ import annotations

import json
import re
from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping
from typing import Any

import numpy as np
import tokenizers

from ..errors import CheckpointError
from .panics import quiet_panics
from .tokenize import Tokenizer

_BYTE = re.compile(r"<0x[0-9A-Fa-f]{2}>")


def used_tokens(tokenizer: Tokenizer, texts: Iterable[list[str]]) -> tuple[np.ndarray, int, int]:
    """(which tokens some texts have (vocabulary,) bool, how many texts there are, how many pieces). The texts come some at a
    time."""
    used, count, pieces = np.zeros(tokenizer.vocab_size, bool), 0, 0
    for some in texts:
        ids, _ = tokenizer.encode_pieces(some)
        used[ids] = True
        count, pieces = count + len(some), pieces + len(ids)
    return used, count, pieces


def kept_tokens(tokenizer: Tokenizer, used: np.ndarray, wanted: Collection[str] = ()) -> np.ndarray:
    """The ids (kept,) of tokens to keep, in order: those `used` (vocabulary,) and `wanted`, special and added ones, pieces of one
    character and of one byte, without which texts would be unknown, and what they need: BPE's pieces those that they are joined
    of, Unigram the piece with the lowest score, from which that of an unknown piece follows."""
    definition = json.loads(tokenizer.library.to_str())
    model, vocabulary = definition["model"], tokenizer.library.get_vocab(with_added_tokens=True)
    kept = np.array(used)
    kept[[index for token, index in vocabulary.items() if token in wanted or _is_single(token, model)]] = True
    kept[[entry["id"] for entry in definition["added_tokens"]]] = True
    kept[sorted(tokenizer.special_ids)] = True
    if model["type"] == "Unigram":
        scores = [score for _, score in model["vocab"]]
        kept[int(np.argmin(scores))] = True
    elif model["type"] == "BPE":
        _keep_parts(kept, model, vocabulary)
    elif model["type"] != "WordPiece":
        raise CheckpointError(f"{tokenizer.source}: a {model['type']} tokenizer, expected WordPiece, BPE or Unigram")
    return np.flatnonzero(kept)


def _is_single(token: str, model: Mapping[str, Any]) -> bool:
    """Whether a token is one character, be it one that a word goes on with or ends with, or one byte."""
    core = token.removeprefix(model.get("continuing_subword_prefix") or "")
    core = core.removesuffix(model.get("end_of_word_suffix") or "") or core
    return len(core) <= 1 or _BYTE.fullmatch(token) is not None


def _pairs(model: Mapping[str, Any]) -> list[tuple[str, str]]:
    """The merges of BPE, which files have as lists, or as texts with a space."""
    return [tuple(merge.split(" ", 1) if isinstance(merge, str) else merge) for merge in model["merges"]]


def _joined(first: str, second: str, model: Mapping[str, Any]) -> str:
    return first + second.removeprefix(model.get("continuing_subword_prefix") or "")


def _keep_parts(kept: np.ndarray, model: Mapping[str, Any], vocabulary: Mapping[str, int]) -> None:
    """Keep all that the pieces which are kept can be joined of."""
    parts = defaultdict(list)
    for first, second in _pairs(model):
        parts[_joined(first, second, model)] += [first, second]
    left = [token for token, index in vocabulary.items() if kept[index]]
    while left:
        for part in parts.pop(left.pop(), ()):
            if not kept[vocabulary[part]]:
                kept[vocabulary[part]] = True
                left.append(part)


def trimmed_tokenizer(tokenizer: Tokenizer, kept: np.ndarray) -> Tokenizer:
    """The tokenizer of the tokens `kept` (kept,) alone, which get new ids in the same order."""
    new = {int(old): index for index, old in enumerate(kept)}
    definition = json.loads(tokenizer.library.to_str())
    model = definition["model"]
    if model["type"] == "Unigram":
        model["vocab"] = [model["vocab"][old] for old in new if old < len(model["vocab"])]
        if model["unk_id"] is not None:
            model["unk_id"] = new[model["unk_id"]]
    else:
        ordered = sorted(model["vocab"].items(), key=lambda entry: entry[1])
        model["vocab"] = {token: new[old] for token, old in ordered if old in new}
    if model["type"] == "BPE":
        pairs = zip(model["merges"], _pairs(model))
        model["merges"] = [
            merge for merge, (first, second) in pairs if {first, second, _joined(first, second, model)} <= model["vocab"].keys()
        ]
    for entry in definition["added_tokens"]:
        entry["id"] = new[entry["id"]]
    if definition["post_processor"] is not None:
        definition["post_processor"] = _renumbered(definition["post_processor"], new)
    with quiet_panics(tokenizer.source):
        library = tokenizers.Tokenizer.from_str(json.dumps(definition))
    vocabulary = library.get_vocab(with_added_tokens=True)
    if sorted(vocabulary.values()) != list(range(len(kept))):
        raise CheckpointError(f"{tokenizer.source}: its tokens cannot be numbered anew: two of them are one text")
    return tokenizer.with_library(library)


def _renumbered(processor: Mapping[str, Any], new: Mapping[int, int]) -> dict[str, Any]:
    """A post-processor with the new ids of its tokens."""
    changed = dict(processor)
    if processor["type"] == "Sequence":
        changed["processors"] = [_renumbered(each, new) for each in processor["processors"]]
    for name in ("sep", "cls"):
        if name in processor:
            changed[name] = [processor[name][0], new[processor[name][1]]]
    if "special_tokens" in processor:
        tokens = processor["special_tokens"].items()
        changed["special_tokens"] = {token: {**entry, "ids": [new[index] for index in entry["ids"]]} for token, entry in tokens}
    return changed
