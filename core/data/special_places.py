"""Which special tokens a tokenizer puts around a text and around a pair, and which of its tokens are special: read off the
tokenizer and the files beside it, not off names that BERT's have."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tokenizers
from tokenizers import models, processors

from ..errors import CheckpointError
from ..json_files import read_object
from ..shown import shown

ROLES = ("bos", "eos", "unk", "sep", "pad", "cls", "mask")
"""`cls_token` and so on in the files of a tokenizer."""
CONFIG, MAP = "tokenizer_config.json", "special_tokens_map.json"
BERTS = ("[PAD]", "[UNK]", "[CLS]", "[SEP]")
_UNKNOWN = re.compile(rb'"unk_id":\s*(\d+)')
_PROBES = ("a", "\u4e2d", "1")


@dataclass(frozen=True)
class Places:
    """The ids of the special tokens around one text (before, behind) and around a pair (before, between, behind), and whether
    the pair, with what stands behind it, has token type 1. All other token types are 0."""

    single: tuple[tuple[int, ...], tuple[int, ...]]
    pair: tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...]]
    types: bool

    def added(self, pairs: bool) -> int:
        """How many there are."""
        return sum(map(len, self.pair if pairs else self.single))

    def first_length(self, tokens: int) -> int:
        """The tokens of a row that are not the pair's, where the text has `tokens`."""
        return len(self.pair[0]) + tokens + len(self.pair[1])


def berts(begin: int, end: int) -> Places:
    """`[CLS] text [SEP]` and `[CLS] text [SEP] pair [SEP]`."""
    return Places(((begin,), (end,)), ((begin,), (end,), (end,)), True)


def places_of(library: tokenizers.Tokenizer, source: Path) -> Places:
    """What the post-processor of `library` does. Raises CheckpointError where it cannot be told or where a model of texts and
    pairs cannot take it."""
    def gives_tokens(text: str) -> bool:
        return bool(library.encode(text, add_special_tokens=False).ids)

    probe = next(filter(gives_tokens, _PROBES), None)
    if probe is None:
        probe = next(filter(gives_tokens, library.get_vocab(with_added_tokens=False)), None)
    if probe is None:
        raise CheckpointError(f"{source}: gives no token for any text")
    one, two = library.encode(probe), library.encode(probe, probe)
    single, pair = _parts(one, 1), _parts(two, 2)
    firsts = two.type_ids.index(1) if 1 in two.type_ids else len(two.type_ids)
    types = two.type_ids == [0] * firsts + [1] * (len(two.type_ids) - firsts)
    second = None if pair is None else len(two.ids) - len(pair[2]) - _count(two, 1)
    if single is None or pair is None or any(one.type_ids) or not types or firsts not in (second, len(two.type_ids)):
        raise CheckpointError(
            f"{source}: its post_processor makes {_told(two)} of a pair; expected the text, then the pair, with special tokens "
            "before, between and behind them, and token types 0, or 1 from the pair on"
        )
    return Places(single, pair, firsts == second)


def around_berts(vocabulary: Mapping[str, int]) -> processors.PostProcessor:
    """What puts BERT's special tokens around texts."""
    return processors.TemplateProcessing(
        single="[CLS]:0 $A:0 [SEP]:0",
        pair="[CLS]:0 $A:0 [SEP]:0 $B:1 [SEP]:1",
        special_tokens=[(token, vocabulary[token]) for token in ("[CLS]", "[SEP]")],
    )


def _count(encoding: tokenizers.Encoding, sequence: int) -> int:
    return encoding.sequence_ids.count(sequence)


def _parts(encoding: tokenizers.Encoding, sequences: int) -> tuple[tuple[int, ...], ...] | None:
    """The special tokens before, between and behind the texts, or None where the texts are not in one piece each and in order."""
    expected, owners, parts, place = [], encoding.sequence_ids, [], 0
    for number in range(sequences):
        if number not in owners:
            return None
        start = owners.index(number)
        parts.append(tuple(encoding.ids[place:start]))
        expected += [None] * (start - place) + [number] * owners.count(number)
        place = len(expected)
    return (*parts, tuple(encoding.ids[place:])) if expected + [None] * (len(owners) - place) == owners else None


def _told(encoding: tokenizers.Encoding) -> str:
    return shown(" ".join(f"{token}:{kind}" for token, kind in zip(encoding.tokens, encoding.type_ids)), 100)


def unknown_of(library: tokenizers.Tokenizer, vocabulary: Mapping[str, int]) -> int | None:
    """The id of what stands for characters that a vocabulary lacks; None for one that lacks none, as byte-level ones."""
    model = library.model
    if isinstance(model, models.Unigram):
        # At the beginning of its state, of which the vocabulary is some 10 MB.
        found = _UNKNOWN.search(model.__getstate__()[:200])
        return None if found is None else int(found[1])
    return None if model.unk_token is None else vocabulary.get(model.unk_token)


def named_tokens(folder: Path, config: Mapping[str, Any]) -> dict[str, str]:
    """Role -> token, as `tokenizer_config.json` (its content is `config`) or else `special_tokens_map.json` say. Raises
    CheckpointError for what is no token."""
    found: dict[str, str] = {}
    path = folder / MAP
    sources = [(path, read_object(path, CheckpointError) if path.is_file() else {}), (folder / CONFIG, config)]
    for where, content in sources:
        for role in ROLES:
            value = content.get(f"{role}_token")
            token = value.get("content") if isinstance(value, dict) else value
            if isinstance(token, str) and token:
                found[role] = token
            elif value is not None:
                raise CheckpointError(f"{where}: {role}_token: got {shown(value)}, expected a token")
    return found
