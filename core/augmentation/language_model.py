"""A masked language model on an engine: loads its folder, and fills gaps of many texts in batches of a few shapes."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ..checkpoint import WEIGHTS, load_model
from ..data.batches import evaluation_batches, length_buckets
from ..data.tokenize import Tokenizer, TokenTable, load_tokenizer
from ..engine import Engine
from ..errors import CheckpointError
from ..models.architectures import Config, decoder_names
from ..models.masked_lm import make_masked_lm
from ..vocabulary_fit import vocabulary_notes, vocabulary_problems

MASK = "[MASK]"


@dataclass(frozen=True)
class LanguageModel:
    """A masked language model in memory, by Hugging Face's names."""

    config: Config
    parameters: dict[str, np.ndarray]
    tied: bool
    """Whether the word embeddings are the weights of the output layer too."""
    tokenizer: Tokenizer
    digest: str
    """SHA-256 of its weights' file."""
    notes: tuple[str, ...] = ()
    """What its user should know, each a line."""


def load_language_model(folder: Path) -> LanguageModel:
    """The masked language model in a Hugging Face folder; raises CheckpointError where it has no such head."""
    model = load_model(folder, words=True)
    path = folder / WEIGHTS
    if model.missing_words:
        raise CheckpointError(
            f"{path}: has no {model.missing_words[0]}, so it is no masked language model; expected a BertForMaskedLM folder"
        )
    parameters = dict(model.parameters)
    if model.decoder is not None:
        parameters[decoder_names(model.config)[0]] = model.decoder
    tokenizer = load_tokenizer(folder)
    if problems := vocabulary_problems(str(folder), model.config, tokenizer):
        raise CheckpointError("\n".join(problems))
    if not tokenizer.is_words and not tokenizer.is_berts:
        raise CheckpointError(
            f"{folder}: its tokenizer is {tokenizer.kind} with other special tokens than BERT's; the words that fill gaps are "
            "found by BERT's word pieces"
        )
    if tokenizer.library.token_to_id(MASK) is None:
        raise CheckpointError(f"{folder}: the vocabulary lacks {MASK}, so it is no masked language model's")
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    notes = (*model.notes, *vocabulary_notes(str(folder), model.config, tokenizer))
    return LanguageModel(model.config, parameters, model.decoder is None, tokenizer, digest, notes)


@dataclass(frozen=True)
class Gap:
    """Pieces `start` to before `end` of a text, as one gap."""

    text: int
    start: int
    end: int


class GapFiller:
    """Finds the most probable tokens of gaps."""

    def __init__(self, model: LanguageModel, engine: Engine, batch_size: int):
        self._model, self._batch_size = model, batch_size
        self._infer = engine.infer(make_masked_lm(model.config, model.tied), model.parameters)
        self._buckets = length_buckets(model.config.positions, engine.length_step)
        library = model.tokenizer.library
        self._mask, self._first, self._separator = (library.token_to_id(token) for token in (MASK, "[CLS]", "[SEP]"))
        vocabulary = library.get_vocab(with_added_tokens=True)
        self._tokens = sorted(vocabulary, key=vocabulary.get)
        self.room = (model.config.positions - 3) // 2
        """How many pieces of a text fit, twice and with three special tokens; a gap must end within them."""

    def fill(self, texts: Sequence[Sequence[int]], gaps: Sequence[Gap], count: int) -> list[list[str]]:
        """The whole words among the `count` most probable tokens of each gap, in `[CLS] text with gap [SEP] text [SEP]`.

        `texts` are token ids without special tokens. Pieces of words (`##`) and special tokens are left out.
        """
        if not gaps:
            return []
        rows, places = [], np.zeros(len(gaps) + 1, np.int64)  # the last one is the padding row's
        for index, gap in enumerate(gaps):
            whole = list(texts[gap.text][: self.room])
            masked = whole[: gap.start] + [self._mask] + whole[gap.end :]
            rows.append([self._first, *masked, self._separator, *whole, self._separator])
            places[index] = 1 + gap.start
        lengths = np.array([len(row) for row in rows])
        firsts = np.array([len(row) - 1 - min(len(texts[gap.text]), self.room) for row, gap in zip(rows, gaps)])
        offsets = np.concatenate([[0], np.cumsum(lengths)])
        ids = np.fromiter((token for row in rows for token in row), np.int32, offsets[-1])
        table = TokenTable(ids, offsets, firsts.astype(np.int32), self._model.tokenizer.pad_id)
        found: list[list[str]] = [[] for _ in gaps]
        for indices, batch in evaluation_batches(table, None, self._batch_size, self._buckets):
            size, length = batch["input_ids"].shape
            position = np.zeros(size, np.int64)
            position[: len(indices)] = places[indices]
            batch["masked_rows"] = (np.arange(size) * length + position).astype(np.int32)
            # Rows of a padded table are no words.
            logits = self._infer(batch)[0][: len(indices), : len(self._tokens)]
            best = np.argpartition(-logits, min(count, logits.shape[1]) - 1, axis=1)[:, :count]
            for index, row, chosen in zip(indices, logits, best):
                ordered = chosen[np.argsort(-row[chosen], kind="stable")]
                found[index] = [token for token in (self._tokens[place] for place in ordered) if _is_word(token)]
        return found


def _is_word(token: str) -> bool:
    # [MASK], [unused42]; a bracket alone is punctuation, which is no word's piece.
    is_special = token.startswith("[") and token.endswith("]") and len(token) > 2
    return not is_special and not token.startswith("##")
