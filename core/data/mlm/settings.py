"""What one run of `crossdistil data mlm` is asked for: all that changes the bytes it writes, apart from text and vocabulary."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from ...errors import DataError
from ...lengths import LONGEST

BLOCK_BYTES = 1 << 20
"""Of text, in a block of documents. Other sizes give other examples: part of what a record file is made of."""

WHOLE_WORDS = ("none", "pieces", "chinese")
SHORTEST = 8
"""Tokens of the shortest `max_seq_length`: two texts with something in each, and the special tokens."""


@dataclass(frozen=True)
class Settings:
    """The names of Google's flags are kept. `whole_words` is none, pieces (those that start with ## belong to the word before
    them) or chinese (words of jieba on top). `blocks_per_shard` blocks of text make one file."""

    max_seq_length: int = 128
    max_predictions_per_seq: int = 20
    masked_lm_prob: float = 0.15
    dupe_factor: int = 10
    short_seq_prob: float = 0.1
    seed: int = 12345
    next_sentence: bool = True
    whole_words: str = "none"
    blocks_per_shard: int = 32

    def check(self) -> None:
        """Raises DataError that names the option."""
        smallest = {"max_seq_length": SHORTEST, "max_predictions_per_seq": 1, "dupe_factor": 1, "seed": 0, "blocks_per_shard": 1}
        for name, least in smallest.items():
            most = LONGEST if name in ("max_seq_length", "max_predictions_per_seq") else 2**31 - 1
            if not least <= getattr(self, name) <= most:
                expected = f"{least} or more" if getattr(self, name) < least else f"{most} at most"
                raise DataError(f"{name} {getattr(self, name)}: expected {expected}")
        if not 0 < self.masked_lm_prob <= 1:
            raise DataError(f"masked_lm_prob {self.masked_lm_prob:g}: expected more than 0, and 1 at most")
        if not 0 <= self.short_seq_prob <= 1:
            raise DataError(f"short_seq_prob {self.short_seq_prob:g}: expected 0 to 1")
        if self.whole_words not in WHOLE_WORDS:
            raise DataError(f"whole_words '{self.whole_words}': expected one of {', '.join(WHOLE_WORDS)}")

    def described(self) -> dict[str, Any]:
        """For the note beside the records."""
        return asdict(self)
