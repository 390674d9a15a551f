"""The student of Tang et al. 2019 ("Distilling Task-Specific Knowledge from BERT into Simple Neural Networks"): word
embeddings, one bidirectional LSTM, and a classifier with one hidden layer; of two texts, a siamese comparison.

The sizes are those of the authors' code (castorini/d-bert). The embeddings are one trainable table; the paper's second,
frozen copy of word2vec is not there.
"""

from __future__ import annotations

from typing import Literal

import numpy as np
from pydantic import Field

from ..outputs import LOGITS
from ..parts import CLASSIFIER, DENSE, EMBEDDINGS, ENCODER, OUTPUTS, POOLER, TABLE, TENSOR, Family, Part
from ..spec import ModelConfig, initial_tensor

BILSTM = Family(
    "bilstm",
    "BiLstm",
    "",
    (
        Part("words", "embeddings", TABLE, ("vocab_size", "embedding_size"), EMBEDDINGS),
        # As `Ops.lstm` takes them, both directions in one tensor.
        Part("lstm_input", "lstm.input_weight", TENSOR, (2, "gates_size", "embedding_size"), ENCODER),
        Part("lstm_hidden", "lstm.hidden_weight", TENSOR, (2, "gates_size", "hidden_size"), ENCODER),
        Part("lstm_input_bias", "lstm.input_bias", TENSOR, (2, "gates_size"), ENCODER),
        Part("lstm_hidden_bias", "lstm.hidden_bias", TENSOR, (2, "gates_size"), ENCODER),
        Part("fully_connected", "fully_connected", DENSE, ("fully_connected_size", "features_size"), POOLER),
        Part("classifier", "classifier", DENSE, (OUTPUTS, "fully_connected_size"), CLASSIFIER),
    ),
    in_googles_code=False,
    others_write=False,
)


class BiLstmConfig(ModelConfig):
    """A BiLSTM classifier or regression over words."""

    family = BILSTM

    model_type: Literal["bilstm"] = "bilstm"
    vocab_size: int = Field(10000, ge=1)
    embedding_size: int = Field(300, ge=1)
    hidden_size: int = Field(150, ge=1)
    """Of one direction."""
    fully_connected_size: int = Field(200, ge=1)
    dropout: float = Field(0.1, ge=0, lt=1)
    """Before the classifier, the only place where the authors have it."""
    pairs: bool = False
    """Whether it takes two texts."""
    pad_token_id: int = Field(0, ge=0)
    initializer_range: float = Field(0.1, gt=0)
    """Standard deviation of new embeddings; those of published word vectors are about as large."""

    @property
    def num_hidden_layers(self) -> int:
        """There is one LSTM."""
        return 1

    @property
    def features_size(self) -> int:
        """Width of what the classifier sees."""
        return (8 if self.pairs else 2) * self.hidden_size

    @property
    def gates_size(self) -> int:
        """Rows of an LSTM's weights: four gates."""
        return 4 * self.hidden_size

    def with_dropout(self, rate: float) -> BiLstmConfig:
        """The same model with every dropout rate set to `rate`."""
        return self.model_copy(update={"dropout": rate})

    def new_tensor(self, name: str, shape: tuple[int, ...], seed: int) -> np.ndarray:
        """A new tensor: weights as wide as PyTorch draws them, U(-k, k) with k = hidden^-1/2 in an LSTM and inputs^-1/2 in a
        linear map, whose standard deviation is k / sqrt(3); normal here, biases 0, as in `core.models.spec`."""
        deviation = self.initializer_range
        if name != "embeddings.weight":
            inputs = self.hidden_size if name.startswith("lstm.") else shape[-1]
            deviation = (3.0 * inputs) ** -0.5
        return initial_tensor(name, shape, deviation, seed)


def make_forward(config: BiLstmConfig, wanted: frozenset[str] = frozenset({LOGITS}), root: str = ""):
    """The forward pass: `forward(ops, params, batch) -> {"logits": (batch, outputs) float32}`.

    The batch has `input_ids` and `attention_mask` (batch, length), of pairs also `second_ids` and `second_mask`.
    Parameters are read as `params[root + name]`.
    """
    if wanted - {LOGITS}:
        raise ValueError(f"a BiLSTM has no {', '.join(sorted(wanted - {LOGITS}))}, only {LOGITS}")
    pairs, dropout = config.pairs, config.dropout

    def dense(ops, params, name, x):
        return ops.linear(x, params[root + name + ".weight"], params[root + name + ".bias"])

    def encode(ops, params, ids, mask):
        words = ops.embedding(params[root + "embeddings.weight"], ids)  # (B, L, D)
        return ops.lstm(
            words,
            mask,
            params[root + "lstm.input_weight"],
            params[root + "lstm.hidden_weight"],
            params[root + "lstm.input_bias"],
            params[root + "lstm.hidden_bias"],
        )  # (B, 2 H)

    def compare(ops, params, batch):
        # Both texts in one batch: the LSTM's steps follow one another, so that twice the rows cost less than twice.
        rows = ops.shape(batch["input_ids"])[0]
        ids = ops.concat([batch["input_ids"], batch["second_ids"]], 0)  # (2 B, L)
        mask = ops.concat([batch["attention_mask"], batch["second_mask"]], 0)
        both = encode(ops, params, ids, mask)
        first, second = both[:rows], both[rows:]
        difference = first - second
        distance = ops.relu(difference) + ops.relu(-difference)
        return ops.concat([first, second, distance, first * second], 1)  # (B, 8 H)

    def forward(ops, params, batch):
        if pairs:
            features = compare(ops, params, batch)
        else:
            features = encode(ops, params, batch["input_ids"], batch["attention_mask"])
        inner = ops.dropout(ops.relu(dense(ops, params, "fully_connected", features)), dropout)
        return {"logits": ops.float32(dense(ops, params, "classifier", inner))}

    return forward
