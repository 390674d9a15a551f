"""Texts to token ids, once: BERT WordPiece by the `tokenizers` library, kept in a memory-mapped cache.

Every row is `[CLS] text [SEP]` or `[CLS] text [SEP] pair [SEP]`, cut longest first to `max_length`: what
`transformers.BertTokenizerFast` gives, without needing transformers. A folder's tokenizer may also be one of whole words.
"""

from __future__ import annotations

import hashlib
import itertools
import json
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path

import numpy as np
import tokenizers
from tokenizers import decoders, models, normalizers, pre_tokenizers, processors

from .. import threads
from ..errors import CheckpointError, DataError
from ..json_files import read_object
from ..shown import plain
from .folders import folder_contents
from .panics import panics_told, quiet_panics
from .tasks import Examples
from .text_files import read_text
from .text_heads import GROWTH, TextHeads, chunks, head_size
from .texts import Texts
from .token_cache import Rows, cached_table, table_of
from .token_table import TokenTable
from .word_vocabulary import WordTokenizer

_REQUIRED = ("[PAD]", "[UNK]", "[CLS]", "[SEP]")

CASED_SHARE = 0.01
"""Of the tokens of a vocabulary with capital letters, above which it is a cased one (Google's: 0 and 29 %)."""


def upper_case_share(tokens: Collection[str]) -> float:
    """The share of tokens with a capital letter; special ones ([CLS], [unused1]) do not count."""
    words = [token for token in tokens if not (token.startswith("[") and token.endswith("]"))]
    return sum(token != token.lower() for token in words) / max(1, len(words))


class Tokenizer:
    """A WordPiece tokenizer that always adds [CLS] and [SEP] and never pads. `library` is the object it wraps."""

    is_words = False

    def __init__(self, library: tokenizers.Tokenizer, source: Path, model_max_length: int | None = None):
        vocabulary = library.get_vocab(with_added_tokens=True)
        missing = [token for token in _REQUIRED if token not in vocabulary]
        if missing:
            raise CheckpointError(f"{source}: the vocabulary lacks {', '.join(missing)}")
        if sorted(vocabulary.values()) != list(range(len(vocabulary))):
            raise CheckpointError(f"{source}: the token ids are not 0 to {len(vocabulary) - 1}, each once")
        library.no_truncation()
        library.no_padding()
        library.post_processor = processors.TemplateProcessing(
            single="[CLS]:0 $A:0 [SEP]:0",
            pair="[CLS]:0 $A:0 [SEP]:0 $B:1 [SEP]:1",
            special_tokens=[(token, vocabulary[token]) for token in ("[CLS]", "[SEP]")],
        )
        self.library, self.source = library, source
        self.vocab_size = len(vocabulary)
        self.pad_id, self.unknown_id = vocabulary["[PAD]"], vocabulary["[UNK]"]
        self._model_max_length = model_max_length
        self._definition = library.to_str(pretty=True)
        self.fingerprint = hashlib.sha256(self._definition.encode()).hexdigest()
        self._heads = TextHeads(library, library.model.max_input_chars_per_word)

    def encode_pairs(self, texts: Sequence[str], pairs: Sequence[str] | None, max_length: int) -> TokenTable:
        """Encode `texts`, each with its pair unless `pairs` is None, in at most `max_length` tokens a row."""
        smallest = 3 if pairs is None else 5  # the special tokens and one token of each text
        if max_length < smallest:
            raise DataError(f"max_length {max_length} leaves no room for the text, expected {smallest} or more")
        if pairs is not None and len(pairs) != len(texts):
            raise ValueError(f"{len(texts)} texts and {len(pairs)} pairs")
        return table_of(self.encode_rows(texts, pairs, max_length), self.pad_id)

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
                inputs = []
                for text, other, (head, is_cut) in zip(some, others, heads):
                    is_long = is_cut or len(other) > size
                    inputs.append(self._pair_heads(text, other, size, max_length - 3) if is_long else (head, other))
                rows = self._encode(inputs, max_length)
            ids = [encoding.ids for encoding in rows]
            lengths = np.array([len(row) for row in ids], dtype=np.int64)
            second = np.array([sum(encoding.type_ids) for encoding in rows], dtype=np.int64)
            yield np.fromiter(itertools.chain.from_iterable(ids), dtype=np.int32), lengths, (lengths - second).astype(np.int32)

    def _encode(self, inputs: list, max_length: int) -> list[tokenizers.Encoding]:
        self.library.enable_truncation(max_length, strategy="longest_first")
        try:
            with panics_told(self.source):
                return self.library.encode_batch_fast(inputs)
        finally:
            self.library.no_truncation()

    def _pair_heads(self, first: str, second: str, size: int, room: int) -> tuple[str, str]:
        """Heads of a pair that are cut to the same tokens as the whole texts: what is kept of each depends on how many tokens
        the shorter one has, up to the `room` for both, and on which of them is the longer one."""
        texts, sizes, cut = (first, second), [size, size], [False, False]
        heads, counts = ["", ""], [0, 0]
        first_is_longer: bool | None = None

        def grow(side: int, factor: int = GROWTH) -> None:
            sizes[side] *= factor
            heads[side], cut[side] = self._heads.head(texts[side], sizes[side])
            counts[side] = self._heads.count(heads[side])

        grow(0, 1)
        grow(1, 1)
        while any(cut):
            short = next((side for side in (0, 1) if cut[side] and counts[side] < room), None)
            longer = counts[0] > counts[1]
            if short is None and all(cut) and first_is_longer is None:
                # Both are cut to half the room, and the longer one has the odd token of it.
                first_is_longer = self._heads.first_is_longer(first, second) if room % 2 else longer
            if short is not None:
                grow(short)
            elif all(cut) and longer != first_is_longer:
                grow(0 if first_is_longer else 1)
            elif cut[0] and not cut[1] and not longer:
                grow(0)
            elif cut[1] and not cut[0] and longer:
                grow(1)
            else:
                break
        return heads[0], heads[1]

    def encode_pieces(self, texts: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
        """The word pieces of texts, all of them and without [CLS] and [SEP]: ids (pieces,) int32 and lengths (texts,)."""
        threads.set_up()
        with panics_told(self.source):
            encodings = self.library.encode_batch_fast(list(texts), add_special_tokens=False)
        rows = [encoding.ids for encoding in encodings]
        ids = np.fromiter(itertools.chain.from_iterable(rows), dtype=np.int32)
        return ids, np.array([len(row) for row in rows], dtype=np.int64)

    @property
    def ends(self) -> tuple[int, int]:
        """The ids of [CLS] and [SEP]."""
        return self.library.token_to_id("[CLS]"), self.library.token_to_id("[SEP]")

    def case_problem(self) -> str | None:
        """What is wrong where texts are lower-cased for a vocabulary of words with capitals, which no text then reaches."""
        normalizer = self.library.normalizer
        share = upper_case_share(self.library.get_vocab(with_added_tokens=True))
        if share <= CASED_SHARE or normalizer is None or normalizer.normalize_str("A") != "a":
            return None
        return (
            f"{self.source}: is a cased vocabulary ({share:.0%} of its tokens have capital letters), but texts are lower-cased; "
            'write {"do_lower_case": false} to tokenizer_config.json beside it'
        )

    def save(self, folder: Path) -> None:
        """Write tokenizer.json, vocab.txt and tokenizer_config.json, as transformers reads them."""
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        vocabulary = self.library.get_vocab(with_added_tokens=True)
        normalizer = json.loads(self._definition)["normalizer"] or {}
        config = {"tokenizer_class": "PreTrainedTokenizerFast"}
        if normalizer.get("type") == "BertNormalizer":
            config = {
                "tokenizer_class": "BertTokenizer",
                "do_lower_case": normalizer["lowercase"],
                "strip_accents": normalizer["strip_accents"],
                "tokenize_chinese_chars": normalizer["handle_chinese_chars"],
            }
        for role in ("pad", "unk", "cls", "sep", "mask"):
            if f"[{role.upper()}]" in vocabulary:
                config[f"{role}_token"] = f"[{role.upper()}]"
        if self._model_max_length is not None:
            config["model_max_length"] = self._model_max_length
        lines = "".join(f"{token}\n" for token in sorted(vocabulary, key=vocabulary.get))
        _write(folder / "tokenizer.json", self._definition)
        _write(folder / "vocab.txt", lines)
        _write(folder / "tokenizer_config.json", json.dumps(config, indent=2) + "\n")


def load_tokenizer(folder: Path) -> Tokenizer | WordTokenizer:
    """Load tokenizer.json, or else vocab.txt with tokenizer_config.json's casing (lower case where nothing is said).

    Raises CheckpointError for files that are missing, damaged or neither WordPiece nor whole words (WordLevel).
    """
    folder = Path(folder)
    config_path, json_path, vocab_path = (
        folder / name for name in ("tokenizer_config.json", "tokenizer.json", "vocab.txt")
    )
    config = _read_config(config_path) if config_path.is_file() else {}
    length = config.get("model_max_length")
    # transformers writes 1e30 for "no limit"
    model_max_length = length if isinstance(length, int) and length < 2**31 else None
    if json_path.is_file():
        definition = read_text(json_path, error=CheckpointError)
        try:
            with quiet_panics(json_path):
                library = tokenizers.Tokenizer.from_str(definition)
        except CheckpointError:
            raise
        except Exception as error:  # the library raises nothing narrower
            raise CheckpointError(f"{json_path}: not a tokenizer file: {plain(str(error))}") from None
        if isinstance(library.model, models.WordLevel):
            return WordTokenizer(library, json_path)
        if not isinstance(library.model, models.WordPiece):
            raise CheckpointError(
                f"{json_path}: a {type(library.model).__name__} tokenizer, expected WordPiece or WordLevel"
            )
        return Tokenizer(library, json_path, model_max_length)
    if vocab_path.is_file():
        return Tokenizer(_from_vocabulary(vocab_path, config), vocab_path, model_max_length)
    raise CheckpointError(f"{folder}: no tokenizer.json and no vocab.txt; {folder_contents(folder)}")


def load_vocabulary_file(path: Path) -> Tokenizer:
    """The tokenizer of a vocab.txt of any name, whatever else is in its folder but tokenizer_config.json, which tells its casing
    (lower case where nothing is said). Raises CheckpointError as `load_tokenizer` does."""
    config_path = path.with_name("tokenizer_config.json")
    return Tokenizer(_from_vocabulary(path, _read_config(config_path) if config_path.is_file() else {}), path)


def _from_vocabulary(path: Path, config: dict) -> tokenizers.Tokenizer:
    vocabulary: dict[str, int] = {}
    # Not splitlines: Google's Chinese vocabulary has U+2028 as a token.
    lines = read_text(path, error=CheckpointError).split("\n")
    if not lines[-1]:
        lines.pop()
    for index, line in enumerate(lines):
        token = line.removesuffix("\r")
        if not token.strip(" \t"):
            raise CheckpointError(f"{path}:{index + 1}: a blank line, expected a token")
        if token in vocabulary:
            raise CheckpointError(f"{path}:{index + 1}: the token '{token}' is also on line {vocabulary[token] + 1}")
        vocabulary[token] = index
    library = tokenizers.Tokenizer(models.WordPiece(vocabulary, unk_token="[UNK]", max_input_chars_per_word=100))
    library.normalizer = normalizers.BertNormalizer(
        clean_text=True,
        handle_chinese_chars=config.get("tokenize_chinese_chars", True),
        strip_accents=config.get("strip_accents"),
        lowercase=config.get("do_lower_case", True),
    )
    library.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    library.decoder = decoders.WordPiece(prefix="##")
    # As in transformers, "[SEP]" written in a text is the token. A token that the vocabulary lacks would get a new id.
    library.add_special_tokens([token for token in (*_REQUIRED, "[MASK]") if token in vocabulary])
    return library


def _read_config(path: Path) -> dict:
    return read_object(path, CheckpointError)


def _write(path: Path, text: str) -> None:
    path.write_bytes(text.encode("utf-8"))  # bytes: no platform may turn \n into \r\n


def tokenized(
    examples: Examples, tokenizer: Tokenizer | WordTokenizer, max_length: int, cache_folder: Path | None = None
) -> TokenTable:
    """The token table of `examples`, from the cache (the default one unless given) or encoded and put there."""
    if examples.tokens is not None:
        return examples.tokens.fitting(tokenizer, max_length)
    apart = isinstance(tokenizer, WordTokenizer) and examples.pairs is not None

    def rows() -> Iterator[Rows]:
        return tokenizer.encode_rows(examples.texts, examples.pairs, max_length)

    return cached_table(_cache_key(examples, tokenizer, max_length), cache_folder, rows, tokenizer.pad_id, apart)


def _cache_key(examples: Examples, tokenizer: Tokenizer | WordTokenizer, max_length: int) -> str:
    described = f"1 {tokenizers.__version__} {tokenizer.fingerprint} {max_length}"  # 1: the layout of an entry
    key = hashlib.sha256(described.encode())
    for texts in (examples.texts, examples.pairs or []):
        # The count keeps single texts and empty pairs apart, the lengths ["ab", "c"] and ["a", "bc"].
        column = texts if isinstance(texts, Texts) else Texts(texts)
        key.update(np.concatenate([[len(column)], column.characters]).astype("<i8").tobytes())
        key.update(column.utf8)
    return key.hexdigest()
