"""Texts to token ids, once, by the `tokenizers` library (WordPiece, BPE, byte-level BPE, Unigram), in a memory-mapped cache.

Every row is what the tokenizer's own post-processor makes of a text or a pair (`[CLS] text [SEP] pair [SEP]`, or
`<s> text </s></s> pair </s>`), cut longest first to `max_length`: what transformers' fast tokenizers give, without needing
transformers. A folder's tokenizer may also be one of whole words.
"""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import tokenizers
from tokenizers import models

from .. import threads
from ..errors import CheckpointError, DataError
from ..json_files import read_object
from ..shown import plain
from .folders import folder_contents
from .letter_case import lost_capitals
from .pair_types import gives_types, leave_types_out, left_to_versions
from .panics import panics_told, quiet_panics
from .slow_tokenizers import from_vocabulary, slow_tokenizer
from .special_places import BERTS, CONFIG, around_berts, berts, named_tokens, places_of, unknown_of
from .text_files import read_text
from .text_heads import GROWTH, TextHeads, chunks, head_size
from .texts import Texts
from .token_cache import Rows, cached_table, table_of
from .token_table import TokenTable
from .tokenizer_folder import write_tokenizer
from .word_vocabulary import WordTokenizer

if TYPE_CHECKING:
    from .tasks import Examples

_MASKS = ("[MASK]", "<mask>")
_PADS = ("[PAD]", "<pad>")
_END = "<|endoftext|>"
"""What begins and ends a text in GPT-2, whose files name none of its special tokens."""


class Tokenizer:
    """A tokenizer of word pieces that always adds its special tokens and never pads. `library` is the object it wraps."""

    is_words = False

    def __init__(self, library: tokenizers.Tokenizer, source: Path, config: Mapping[str, Any] | None = None):
        """`source` is its file, beside which its special tokens may be named; `config` is tokenizer_config.json's content."""
        config = config or {}
        padding = library.padding or {}
        library.no_truncation()
        library.no_padding()
        self.library, self.source = library, source
        self._config = config
        vocabulary = library.get_vocab(with_added_tokens=True)
        self.untyped = leave_types_out(library, source.parent, config)
        """Why all of a pair has token type 0, where the tokenizer itself says otherwise; else None."""
        self.is_berts = self._has_berts_places(vocabulary)
        """Whether it is WordPiece with BERT's special tokens where BERT has them."""
        if self.is_berts:
            self._take_berts(vocabulary)
        else:
            self._take_own(vocabulary, padding.get("pad_token"))
        self._definition = library.to_str(pretty=True)
        self._side = "left" if config.get("truncation_side") == "left" else "right"
        described = self._definition if self._side == "right" else f"left\n{self._definition}"
        self.fingerprint = hashlib.sha256(described.encode()).hexdigest()
        longest = library.model.max_input_chars_per_word if self.is_word_piece and self._side == "right" else None
        self._heads = TextHeads(library, longest)

    @property
    def is_word_piece(self) -> bool:
        """Whether its tokens tell where words go on (##)."""
        return isinstance(self.library.model, models.WordPiece)

    @property
    def other_types(self) -> str:
        """The class by which transformers 5 gives a pair no token types, where 4 and this give them; else empty."""
        return left_to_versions(self.source.parent, self._config) if self.places.types else ""

    @property
    def gives_types(self) -> bool:
        """Whether transformers gives every model token types with it."""
        return gives_types(self._config)

    @property
    def kind(self) -> str:
        """WordPiece, BPE or Unigram."""
        return type(self.library.model).__name__

    def _has_berts_places(self, vocabulary: Mapping[str, int]) -> bool:
        if not self.is_word_piece:
            return False
        if self.library.post_processor is None:
            return True
        places = places_of(self.library, self.source)
        return all(token in vocabulary for token in BERTS) and places == berts(vocabulary["[CLS]"], vocabulary["[SEP]"])

    def _take_berts(self, vocabulary: Mapping[str, int]) -> None:
        missing = [token for token in BERTS if token not in vocabulary]
        if missing:
            raise CheckpointError(f"{self.source}: the vocabulary lacks {', '.join(missing)}")
        if sorted(vocabulary.values()) != list(range(len(vocabulary))):
            raise CheckpointError(f"{self.source}: the token ids are not 0 to {len(vocabulary) - 1}, each once")
        # Written one way, whatever the file has, so that what was cached under its digest is found again.
        self.library.post_processor = around_berts(vocabulary)
        self.places = berts(vocabulary["[CLS]"], vocabulary["[SEP]"])
        self.vocab_size = len(vocabulary)
        self.pad_id: int = vocabulary["[PAD]"]
        self.unknown_id: int | None = vocabulary["[UNK]"]
        self.mask_id: int | None = vocabulary.get("[MASK]")
        self.special_ids = frozenset(vocabulary[token] for token in (*BERTS, "[MASK]") if token in vocabulary)
        self.named = {f"{role}": f"[{role.upper()}]" for role in ("pad", "unk", "cls", "sep", "mask")}
        self.named = {role: token for role, token in self.named.items() if token in vocabulary}

    def _take_own(self, vocabulary: Mapping[str, int], padding: str | None) -> None:
        """The special tokens that the files name; what they do not name is found by what the tokenizer does."""
        self.named = named_tokens(self.source.parent, self._config)
        for role, token in self.named.items():
            if token not in vocabulary:
                raise CheckpointError(f"{self.source}: the vocabulary lacks {token}, which is the {role}_token")
        self.places = places_of(self.library, self.source)
        self.vocab_size = max(vocabulary.values()) + 1
        self.unknown_id = unknown_of(self.library, vocabulary)
        around = {token for part in (*self.places.single, *self.places.pair) for token in part}
        special = {index for index, token in self.library.get_added_tokens_decoder().items() if token.special}

        def known(tokens: Sequence[str]) -> list[str]:
            """Those of the vocabulary, special ones first: MPNet's has BERT's [MASK] and [PAD] too, as words."""
            there = [token for token in tokens if token in vocabulary]
            return sorted(there, key=lambda token: vocabulary[token] not in special)

        mask = self.named.get("mask") or next(iter(known(_MASKS)), None)
        self.mask_id = None if mask is None else vocabulary[mask]
        found = (self.mask_id, self.unknown_id, *(vocabulary[token] for token in self.named.values()))
        # GPT-2 has none; what stands there is never looked at.
        pads = (self.named.get("pad"), padding, *known(_PADS), self.named.get("eos"), *known((_END,)))
        self.pad_id = next((vocabulary[token] for token in pads if token in vocabulary), min(around, default=0))
        self.special_ids = frozenset({index for index in found if index is not None} | around | special)
        self._name_found()

    def _name_found(self) -> None:
        """Add the special tokens that no file names to those that are named, for whoever reads what is saved."""
        found = {"unk": self.unknown_id, "pad": self.pad_id, "mask": self.mask_id}
        if tuple(map(len, self.places.single)) == (1, 1):
            found |= dict(zip(("cls", "sep"), (self.places.single[0][0], self.places.single[1][0])))
        for role, index in found.items():
            if index is not None:
                self.named.setdefault(role, self.library.id_to_token(index))

    def encode_pairs(self, texts: Sequence[str], pairs: Sequence[str] | None, max_length: int) -> TokenTable:
        """Encode `texts`, each with its pair unless `pairs` is None, in at most `max_length` tokens a row."""
        smallest = self.places.added(pairs is not None) + (1 if pairs is None else 2)  # and one token of each text
        if max_length < smallest:
            raise DataError(f"max_length {max_length} leaves no room for the text, expected {smallest} or more")
        if pairs is not None and len(pairs) != len(texts):
            raise ValueError(f"{len(texts)} texts and {len(pairs)} pairs")
        return table_of(self.encode_rows(texts, pairs, max_length), self.pad_id, types=self.places.types)

    def encode_rows(self, texts: Sequence[str], pairs: Sequence[str] | None, max_length: int) -> Iterator[Rows]:
        """The same, some rows at a time."""
        threads.set_up()
        size = head_size(max_length)
        for some, others in chunks(texts, pairs, size):
            heads = [self._heads.head(text, size) if len(text) > size else (text, False) for text in some]
            if others is None:
                rows = self._encode([head for head, _ in heads], max_length)
                for row, (_, is_cut) in enumerate(heads):
                    grown = size
                    while is_cut and len(rows[row].ids) < max_length:
                        grown *= GROWTH
                        head, is_cut = self._heads.head(some[row], grown)
                        [rows[row]] = self._encode([head], max_length)
            else:
                inputs, room = [], max_length - self.places.added(True)
                for text, other, (head, is_cut) in zip(some, others, heads):
                    is_long = is_cut or len(other) > size
                    inputs.append(self._heads.pair(text, other, size, room) if is_long else (head, other))
                rows = self._encode(inputs, max_length)
            ids = [encoding.ids for encoding in rows]
            lengths = np.array([len(row) for row in ids], dtype=np.int64)
            if others is None:
                firsts = lengths
            elif self.places.types:
                firsts = lengths - np.array([sum(encoding.type_ids) for encoding in rows], dtype=np.int64)
            else:
                firsts = np.array([self.places.first_length(encoding.sequence_ids.count(0)) for encoding in rows], np.int64)
            yield np.fromiter(itertools.chain.from_iterable(ids), dtype=np.int32), lengths, firsts.astype(np.int32)

    def _encode(self, inputs: list, max_length: int) -> list[tokenizers.Encoding]:
        self.library.enable_truncation(max_length, strategy="longest_first", direction=self._side)
        try:
            with panics_told(self.source):
                return self.library.encode_batch_fast(inputs)
        finally:
            self.library.no_truncation()

    def encode_pieces(self, texts: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
        """The word pieces of texts, all of them and without special tokens: ids (pieces,) int32 and lengths (texts,)."""
        threads.set_up()
        with panics_told(self.source):
            encodings = self.library.encode_batch_fast(list(texts), add_special_tokens=False)
        rows = [encoding.ids for encoding in encodings]
        ids = np.fromiter(itertools.chain.from_iterable(rows), dtype=np.int32)
        return ids, np.array([len(row) for row in rows], dtype=np.int64)

    @property
    def ends(self) -> tuple[int, int]:
        """The ids of [CLS] and [SEP], or of what stands in their place around one text; of a tokenizer that puts nothing there,
        as GPT-2's, of the tokens that are known as the beginning and the end of a text. Raises CheckpointError where that is not
        one token before and one behind it."""
        before, behind = self.places.single
        if not before and not behind and not self.is_berts:
            vocabulary = self.library.get_vocab(with_added_tokens=True)
            tokens = [self.named.get(role, _END) for role in ("bos", "eos")]
            before, behind = ([vocabulary[token]] if token in vocabulary else [] for token in tokens)
        if len(before) != 1 or len(behind) != 1:
            raise CheckpointError(
                f"{self.source}: puts {len(before)} special tokens before a text and {len(behind)} behind it; raw text is cut "
                "into rows with one before and one behind"
            )
        return before[0], behind[0]

    def case_problem(self) -> str | None:
        """What is wrong where texts are lower-cased for a vocabulary of words with capitals, which no text then reaches."""
        share = lost_capitals(self.library, self.special_ids)
        if not share:
            return None
        told = f"{self.source}: is a cased vocabulary ({share:.0%} of its tokens have capital letters), but texts are lower-cased"
        if self.is_word_piece:
            return f'{told}; write {{"do_lower_case": false}} to tokenizer_config.json beside it'
        return f"{told} by its normalizer"

    def with_library(self, library: tokenizers.Tokenizer) -> Tokenizer:
        """One of another vocabulary with the same special tokens."""
        return Tokenizer(library, self.source, {**self._config, **{f"{role}_token": token for role, token in self.named.items()}})

    def save(self, folder: Path, types: bool = True) -> None:
        """Write tokenizer.json, tokenizer_config.json and, of WordPiece, vocab.txt, as transformers reads them, for a model that
        takes token `types` or none."""
        types = types and self.places.types
        write_tokenizer(Path(folder), self.library, self._definition, self.is_berts, self.named, types, self._config)


def load_tokenizer(folder: Path) -> Tokenizer | WordTokenizer:
    """Load tokenizer.json, or else vocab.txt with tokenizer_config.json's casing (lower case where nothing is said), vocab.json
    with merges.txt, or a sentencepiece model.

    Raises CheckpointError for files that are missing, damaged or of another kind than WordPiece, BPE, Unigram and whole words
    (WordLevel).
    """
    folder = Path(folder)
    config_path, json_path, vocab_path = folder / CONFIG, folder / "tokenizer.json", folder / "vocab.txt"
    config = _read_config(config_path) if config_path.is_file() else {}
    if json_path.is_file():
        library = parsed_tokenizer(json_path)
        if isinstance(library.model, models.WordLevel):
            return WordTokenizer(library, json_path)
        return Tokenizer(library, json_path, config)
    if vocab_path.is_file():
        return Tokenizer(from_vocabulary(vocab_path, config), vocab_path, config)
    if (found := slow_tokenizer(folder, config)) is not None:
        return Tokenizer(*found, config)
    raise CheckpointError(f"{folder}: no tokenizer.json and no vocab.txt; {folder_contents(folder)}")


def parsed_tokenizer(path: Path) -> tokenizers.Tokenizer:
    """What the library makes of a tokenizer.json. Raises CheckpointError."""
    definition = read_text(path, error=CheckpointError)
    try:
        with quiet_panics(path):
            return tokenizers.Tokenizer.from_str(definition)
    except CheckpointError:
        raise
    except Exception as error:  # the library raises nothing narrower
        raise CheckpointError(f"{path}: not a tokenizer file: {plain(str(error))}") from None


def load_vocabulary_file(path: Path) -> Tokenizer:
    """The tokenizer of a vocab.txt of any name, whatever else is in its folder but tokenizer_config.json, which tells its casing
    (lower case where nothing is said). Raises CheckpointError as `load_tokenizer` does."""
    config_path = path.with_name(CONFIG)
    config = _read_config(config_path) if config_path.is_file() else {}
    return Tokenizer(from_vocabulary(path, config), path, config)


def _read_config(path: Path) -> dict:
    return read_object(path, CheckpointError)


def tokenized(
    examples: Examples, tokenizer: Tokenizer | WordTokenizer, max_length: int, cache_folder: Path | None = None
) -> TokenTable:
    """The token table of `examples`, from the cache (the default one unless given) or encoded and put there."""
    if examples.tokens is not None:
        return examples.tokens.fitting(tokenizer, max_length)
    apart = isinstance(tokenizer, WordTokenizer) and examples.pairs is not None

    def rows() -> Iterator[Rows]:
        return tokenizer.encode_rows(examples.texts, examples.pairs, max_length)

    types = tokenizer.places.types if isinstance(tokenizer, Tokenizer) else True
    return cached_table(_cache_key(examples, tokenizer, max_length), cache_folder, rows, tokenizer.pad_id, apart, types)


def _cache_key(examples: Examples, tokenizer: Tokenizer | WordTokenizer, max_length: int) -> str:
    described = f"1 {tokenizers.__version__} {tokenizer.fingerprint} {max_length}"  # 1: the layout of an entry
    key = hashlib.sha256(described.encode())
    for texts in (examples.texts, examples.pairs or []):
        # The count keeps single texts and empty pairs apart, the lengths ["ab", "c"] and ["a", "bc"].
        column = texts if isinstance(texts, Texts) else Texts(texts)
        key.update(np.concatenate([[len(column)], column.characters]).astype("<i8").tobytes())
        key.update(column.utf8)
    return key.hexdigest()
