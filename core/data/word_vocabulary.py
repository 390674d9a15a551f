"""Texts to word ids, for students that have no word pieces: the most frequent words of the training texts, as Tang et al.
2019 take them.

Texts are cleaned and split as BERT does it, at spaces and punctuation, Chinese into characters; what the vocabulary
lacks is [UNK]. There is no [CLS] and no [SEP]: a text of n words has n ids, and a pair is a second input.
"""

from __future__ import annotations

import hashlib
import itertools
import json
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np
import tokenizers
from tokenizers import models, normalizers, pre_tokenizers, trainers

from .. import threads
from ..errors import CheckpointError, DataError
from .panics import panics_told
from .text_heads import GROWTH, TextHeads, chunks, head_size
from .token_cache import Rows, table_of
from .token_table import TokenTable

# [MASK] is not needed to read texts: augmentation puts it into them in place of words.
SPECIAL_WORDS = ("[PAD]", "[UNK]", "[MASK]")


class WordTokenizer:
    """A vocabulary of whole words. `library` is the object it wraps."""

    is_words = True

    def __init__(self, library: tokenizers.Tokenizer, source: Path | str):
        vocabulary = library.get_vocab(with_added_tokens=True)
        missing = [token for token in ("[PAD]", "[UNK]") if token not in vocabulary]
        if missing:
            raise CheckpointError(f"{source}: the vocabulary lacks {', '.join(missing)}")
        if sorted(vocabulary.values()) != list(range(len(vocabulary))):
            raise CheckpointError(f"{source}: the token ids are not 0 to {len(vocabulary) - 1}, each once")
        library.no_truncation()
        library.no_padding()
        self.library, self.source = library, source
        self.vocab_size = len(vocabulary)
        self.pad_id, self.unknown_id = vocabulary["[PAD]"], vocabulary["[UNK]"]
        self._definition = library.to_str(pretty=True)
        self.fingerprint = hashlib.sha256(self._definition.encode()).hexdigest()
        self._heads = TextHeads(library, max(map(len, vocabulary)))

    def encode_pairs(self, texts: Sequence[str], pairs: Sequence[str] | None, max_length: int) -> TokenTable:
        """Encode `texts`, each with its pair unless `pairs` is None, each text and each pair in at most `max_length` words."""
        if max_length < 1:
            raise DataError(f"max_length {max_length} leaves no room for the text, expected 1 or more")
        if pairs is not None and len(pairs) != len(texts):
            raise ValueError(f"{len(texts)} texts and {len(pairs)} pairs")
        return table_of(self.encode_rows(texts, pairs, max_length), self.pad_id, apart=pairs is not None)

    def encode_rows(self, texts: Sequence[str], pairs: Sequence[str] | None, max_length: int) -> Iterator[Rows]:
        """The same, some rows at a time."""
        threads.set_up()
        for some, others in chunks(texts, pairs, head_size(max_length)):
            rows = self._encode(some, max_length)
            firsts = np.array([len(row) for row in rows], dtype=np.int32)
            if others is not None:
                rows = [first + second for first, second in zip(rows, self._encode(others, max_length))]
            lengths = np.array([len(row) for row in rows], dtype=np.int64)
            yield np.fromiter(itertools.chain.from_iterable(rows), dtype=np.int32), lengths, firsts

    def _encode(self, texts: list[str], max_length: int) -> list[list[int]]:
        size = head_size(max_length)
        heads = [self._heads.head(text, size) if len(text) > size else (text, False) for text in texts]
        with panics_told(self.source):
            encodings = self.library.encode_batch_fast([head for head, _ in heads], add_special_tokens=False)
        rows = [encoding.ids[:max_length] for encoding in encodings]
        for row, (_, is_cut) in enumerate(heads):
            grown = size
            while is_cut and len(rows[row]) < max_length:
                grown *= GROWTH
                head, is_cut = self._heads.head(texts[row], grown)
                rows[row] = self.library.encode(head, add_special_tokens=False).ids[:max_length]
        return rows

    def save(self, folder: Path, types: bool = False) -> None:
        """Write tokenizer.json and tokenizer_config.json. Words have no `types`."""
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        vocabulary = self.library.get_vocab(with_added_tokens=True)
        config = {"tokenizer_class": "PreTrainedTokenizerFast"}
        config |= {f"{token[1:-1].lower()}_token": token for token in SPECIAL_WORDS if token in vocabulary}
        contents = {"tokenizer.json": self._definition, "tokenizer_config.json": json.dumps(config, indent=2) + "\n"}
        for name, text in contents.items():
            (folder / name).write_bytes(text.encode("utf-8"))  # bytes: no platform may turn \n into \r\n


def build_words(
    texts: Iterable[str], vocab_size: int = 10000, lowercase: bool = True, split_chinese: bool = True
) -> WordTokenizer:
    """The `vocab_size` most frequent words of `texts`, the three special ones included; of equally frequent words those
    first in the alphabet."""
    if vocab_size <= len(SPECIAL_WORDS):
        raise DataError(f"a vocabulary of {vocab_size} words has no room beside {', '.join(SPECIAL_WORDS)}")
    library = tokenizers.Tokenizer(models.WordLevel({}, unk_token="[UNK]"))
    library.normalizer = normalizers.BertNormalizer(
        clean_text=True, handle_chinese_chars=split_chinese, strip_accents=None, lowercase=lowercase
    )
    library.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    trainer = trainers.WordLevelTrainer(
        vocab_size=vocab_size, min_frequency=1, special_tokens=list(SPECIAL_WORDS), show_progress=False
    )
    library.train_from_iterator(texts, trainer=trainer)
    return WordTokenizer(library, "the training texts")


def word_vectors(path: Path, tokenizer: WordTokenizer, table: np.ndarray) -> tuple[np.ndarray, int]:
    """`table` (words, width) with the vectors of those words that a word-vector file has, and their number.

    The file is text, `word number number ...` a line, as of GloVe, or of word2vec with `count width` on the first line.
    """
    vocabulary = tokenizer.library.get_vocab(with_added_tokens=True)
    filled, found, width = np.array(table, np.float32), set(), table.shape[1]
    try:
        with path.open(encoding="utf-8-sig", errors="replace", newline="\n") as file:
            for number, line in enumerate(file, 1):
                fields = line.rstrip().split(" ")
                if number == 1 and len(fields) == 2 and all(field.isdecimal() for field in fields):
                    if int(fields[1]) != width:
                        raise DataError(f"{path}:1: vectors of {fields[1]} numbers, but the embeddings have {width}")
                    continue
                if len(fields) < width + 1 or (number == 1 and len(fields) != width + 1):
                    raise DataError(f"{path}:{number}: {len(fields) - 1} numbers, but the embeddings have {width}")
                # A few of GloVe's words have spaces in them.
                index = vocabulary.get(" ".join(fields[:-width]))
                if index is not None and index not in found:
                    filled[index] = _vector(fields[-width:], f"{path}:{number}")
                    found.add(index)
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror}") from None
    return filled, len(found)


def _vector(fields: list[str], where: str) -> np.ndarray:
    try:
        vector = np.array(fields, dtype=np.float32)
    except ValueError as error:
        raise DataError(f"{where}: expected numbers: {error}") from None
    if not np.isfinite(vector).all():
        raise DataError(f"{where}: holds numbers that are not finite")
    return vector
