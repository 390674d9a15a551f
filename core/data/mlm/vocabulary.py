"""The vocabulary of masked language model examples: its tokenizer, its case, and which pieces may stand in for others."""

from __future__ import annotations

import hashlib
import json
import re
from pathlib import Path

import numpy as np
from tokenizers import normalizers

from ...errors import CheckpointError, DataError
from ..letter_case import CASED_SHARE, lowers, upper_case_share
from ..tokenize import Tokenizer, load_tokenizer, load_vocabulary_file
from ..word_vocabulary import WordTokenizer
from .pieces import CJK

_SPECIAL = re.compile(r"\[[^\[\]]+\]|</?[A-Za-z]+>")  # [CLS], [unused7], and <S>, <T> of Google's Chinese vocabulary


class Vocabulary:
    """`tokens` by id, `tokenizer`, `lower_case`, and for each id whether it is special and whether it continues a word (##).

    Special tokens that are written in a text are text, as in Google's tokenizer: no example has a [SEP] that came from there.
    """

    def __init__(self, path: Path, lower_case: bool | None = None):
        """`path` is a vocab.txt or a model folder; `lower_case` None: as tokenizer_config.json or tokenizer.json say. Raises
        DataError or CheckpointError for a file that is missing or wrong, and for a cased vocabulary that is lower-cased."""
        path = Path(path)
        if path.suffix == ".json":
            raise DataError(f"--vocabulary {path}: expected a vocab.txt or the folder of a model; name the folder of this file")
        try:
            loaded = load_vocabulary_file(path) if path.is_file() else load_tokenizer(path)
        except CheckpointError as error:
            raise DataError(f"--vocabulary {error}") from None
        if isinstance(loaded, WordTokenizer):
            raise DataError(f"--vocabulary {path}: a tokenizer of whole words, expected one of word pieces")
        if not loaded.is_berts:
            raise DataError(
                f"--vocabulary {path}: a {loaded.kind} tokenizer with special tokens that are not BERT's; examples with their "
                "masks are made for BERT's WordPiece alone. For any tokenizer, train on the texts themselves: task.kind: mlm"
            )
        self.path = path
        self.tokenizer: Tokenizer = loaded
        table = loaded.library.get_vocab(with_added_tokens=True)
        self.tokens = sorted(table, key=table.__getitem__)
        if "[MASK]" not in table:
            raise DataError(f"--vocabulary {path}: has no [MASK]")
        self.mask_id, self.unknown_id = table["[MASK]"], table["[UNK]"]
        self.cls_id, self.sep_id = loaded.ends
        self.special = np.array([bool(_SPECIAL.fullmatch(token)) for token in self.tokens])
        self.continues = np.array([token.startswith("##") and len(token) > 2 for token in self.tokens])
        self.lower_case = self._set_case(lower_case)
        loaded.library.encode_special_tokens = True
        self.digest = hashlib.sha256("".join(f"{token}\n" for token in self.tokens).encode()).hexdigest()

    def _set_case(self, wanted: bool | None) -> bool:
        library = self.tokenizer.library
        state = json.loads(library.to_str())["normalizer"] or {}
        lower = lowers(library)
        if wanted is not None and wanted != lower:
            if state.get("type") != "BertNormalizer":
                raise DataError(f"--vocabulary {self.path}: its tokenizer.json is not BERT's, so that its case cannot be changed")
            library.normalizer = normalizers.BertNormalizer(
                state["clean_text"], state["handle_chinese_chars"], state["strip_accents"], wanted
            )
            lower = wanted
        share = self._upper_case()
        if lower and share > CASED_SHARE:
            raise DataError(
                f"--vocabulary {self.path}: is a cased one ({share:.0%} of its pieces have upper-case letters), but texts are "
                "lower-cased; give --cased, or the vocabulary of an uncased model"
            )
        return lower

    def case_warning(self) -> str | None:
        """What to say where texts keep their case but the vocabulary has no upper-case letter: such words become [UNK]."""
        latin = sum(token.isascii() and token.isalpha() for token in self.tokens)
        if self.lower_case or not latin or self._upper_case() > 0:
            return None
        return f"{self.path}: has no upper-case letter, so that words with one become [UNK]; is it for --lower-case?"

    def _upper_case(self) -> float:
        return upper_case_share([token for token, special in zip(self.tokens, self.special) if not special])

    def random_pieces(self, chinese: bool) -> np.ndarray:
        """Ids (pieces,) int32 that may stand in for another: no special or unused ones, no ## and a Chinese character (which no
        text gives), and with `chinese` no ## at all."""
        never = self.special | (self.continues if chinese else np.array([_is_cjk_part(token) for token in self.tokens]))
        found = np.flatnonzero(~never).astype(np.int32)
        if not len(found):
            raise DataError(f"--vocabulary {self.path}: has no piece that could stand in for another")
        return found


def is_cjk(code: int | np.ndarray):
    """Whether code points are in the ranges of CJK."""
    result = False
    for first, last in CJK:
        result = result | ((code >= first) & (code <= last))
    return result


def _is_cjk_part(token: str) -> bool:
    return len(token) == 3 and token.startswith("##") and is_cjk(ord(token[2]))
