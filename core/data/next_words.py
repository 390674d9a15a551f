"""What a causal language model is trained on and evaluated on: rows of tokens, each of which but a row's first is to be guessed
from those before it (Radford et al. 2019; DistilGPT-2's scripts: transformers' examples/research_projects/distillation).

A text is a row between the token that begins a text and the one that ends it, in GPT-2 both `<|endoftext|>`; a longer one is cut
into several, each between these, as DistilBERT's scripts do (lm_seqs_dataset.py). Texts are not joined.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from .masked_texts import open_texts
from .masking import masked_arrays, padded_size
from .row_batches import Batch
from .token_table import TokenTable
from .tokenize import Tokenizer


@dataclass(frozen=True)
class NextWordsData:
    """Tables of the texts to train on and of those to score on."""

    train: TokenTable
    dev: TokenTable | None = None


def read_next_words(
    data: Path, tokenizer: Tokenizer, max_length: int, dev: Path | None = None, cache_folder: Path | None = None
) -> NextWordsData:
    """The rows of `data` and `dev`, of at most `max_length` tokens. Both are texts, a folder with their token store, or a
    `binarized_text` .pickle of DistilBERT's scripts. Raises DataError."""

    def read(path: Path) -> TokenTable:
        return open_texts(path, tokenizer, max_length, cache_folder)[0]

    return NextWordsData(read(data), None if dev is None else read(dev))


def next_words(batch: Batch, rows: np.ndarray, epoch: int | None) -> Batch:
    """A batch with the places before each token but the first of its row, and these tokens, as arrays of masked words have them
    (`core.data.masking`). They are the same in every epoch."""
    ids, is_token = batch["input_ids"], batch["attention_mask"] > 0
    follows = np.zeros(is_token.shape, bool)
    follows[:, :-1] = is_token[:, 1:]
    places = np.flatnonzero(follows)
    return batch | masked_arrays(places, ids.reshape(-1)[places + 1], padded_size(ids.size))
