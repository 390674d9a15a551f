"""The configurations of DistilBERT (Sanh et al. 2019), ALBERT (Lan et al. 2020) and ELECTRA (Clark et al. 2020).

Keys and defaults are those of Hugging Face's `config.json`. Beside them each has BERT's names of the common sizes and rates,
so that one forward pass serves all.
"""

from __future__ import annotations

import numpy as np
from pydantic import Field, model_validator

from .names import ALBERT, DISTILBERT, ELECTRA
from .spec import Activation, EncoderConfig


class DistilBertConfig(EncoderConfig):
    """BERT without token types and without a pooler; its classifier has a hidden layer of its own."""

    names = DISTILBERT
    common = {
        "dim": "hidden_size",
        "n_layers": "num_hidden_layers",
        "n_heads": "num_attention_heads",
        "hidden_dim": "intermediate_size",
        "activation": "hidden_act",
        "dropout": "hidden_dropout_prob",
        "attention_dropout": "attention_probs_dropout_prob",
        "seq_classif_dropout": "head_dropout",
    }
    ignored_keys = frozenset({"tie_weights_", "qa_dropout", "type_vocab_size"})
    aliases = {"hidden_size": "dim", "num_attention_heads": "n_heads", "num_hidden_layers": "n_layers"}

    vocab_size: int = Field(30522, ge=1)
    max_position_embeddings: int = Field(512, ge=1)
    sinusoidal_pos_embds: bool = False
    """How new position embeddings are drawn by transformers; a checkpoint holds them either way."""
    n_layers: int = Field(6, ge=1)
    n_heads: int = Field(12, ge=1)
    dim: int = Field(768, ge=1)
    hidden_dim: int = Field(3072, ge=1)
    dropout: float = Field(0.1, ge=0, lt=1)
    attention_dropout: float = Field(0.1, ge=0, lt=1)
    activation: Activation = "gelu"
    initializer_range: float = Field(0.02, gt=0)
    seq_classif_dropout: float = Field(0.2, ge=0, lt=1)
    pad_token_id: int | None = 0

    @property
    def hidden_size(self) -> int:
        """Width of the hidden states."""
        return self.dim

    @property
    def embedding_size(self) -> int:
        """Width of the embeddings."""
        return self.dim

    @property
    def num_hidden_layers(self) -> int:
        """Number of encoder layers."""
        return self.n_layers

    @property
    def num_attention_heads(self) -> int:
        """Number of heads of each layer."""
        return self.n_heads

    @property
    def intermediate_size(self) -> int:
        """Inner width of the feed-forward part."""
        return self.hidden_dim

    @property
    def hidden_act(self) -> Activation:
        """Activation of the feed-forward part."""
        return self.activation

    @property
    def hidden_dropout_prob(self) -> float:
        """Dropout rate of embeddings and sublayers."""
        return self.dropout

    @property
    def attention_probs_dropout_prob(self) -> float:
        """Dropout rate of the attention probabilities."""
        return self.attention_dropout

    @property
    def head_dropout(self) -> float:
        """Dropout rate before the classifier."""
        return self.seq_classif_dropout

    @property
    def layer_norm_eps(self) -> float:
        """Fixed in transformers' code."""
        return 1e-12

    @property
    def type_vocab_size(self) -> int:
        """There are no token types."""
        return 0

    def with_dropout(self, rate: float) -> DistilBertConfig:
        """The same model with every dropout rate set to `rate`."""
        return self.model_copy(update={"dropout": rate, "attention_dropout": rate, "seq_classif_dropout": rate})


def sinusoids(positions: int, width: int) -> np.ndarray:
    """(positions, width) float32: sines and cosines of growing wave length in turn (Vaswani et al. 2017, section 3.5)."""
    angles = np.arange(positions)[:, None] / 10000 ** (2 * (np.arange(width) // 2) / width)
    return np.where(np.arange(width) % 2, np.cos(angles), np.sin(angles)).astype(np.float32)


class AlbertConfig(EncoderConfig):
    """BERT with narrow embeddings and shared layers: `num_hidden_layers` passes over `num_hidden_groups` groups, each of
    `inner_group_num` layers. What is one layer elsewhere is one pass over a group here."""

    names = ALBERT
    common = {"classifier_dropout_prob": "head_dropout"}
    ignored_keys = frozenset({"down_scale_factor", "gap_size", "layers_to_keep", "net_structure_type", "num_memory_blocks"})

    vocab_size: int = Field(30000, ge=1)
    embedding_size: int = Field(128, ge=1)
    hidden_size: int = Field(4096, ge=1)
    num_hidden_layers: int = Field(12, ge=1)
    num_hidden_groups: int = Field(1, ge=1)
    num_attention_heads: int = Field(64, ge=1)
    intermediate_size: int = Field(16384, ge=1)
    inner_group_num: int = Field(1, ge=1)
    hidden_act: Activation = "gelu_new"
    hidden_dropout_prob: float = Field(0.0, ge=0, lt=1)
    attention_probs_dropout_prob: float = Field(0.0, ge=0, lt=1)
    max_position_embeddings: int = Field(512, ge=1)
    type_vocab_size: int = Field(2, ge=1)
    initializer_range: float = Field(0.02, gt=0)
    layer_norm_eps: float = Field(1e-12, gt=0)
    classifier_dropout_prob: float = Field(0.1, ge=0, lt=1)
    pad_token_id: int | None = 0

    @model_validator(mode="after")
    def _every_group_has_a_layer(self) -> AlbertConfig:
        if self.num_hidden_groups > self.num_hidden_layers:
            raise ValueError(
                f"num_hidden_groups {self.num_hidden_groups} is more than num_hidden_layers {self.num_hidden_layers}"
            )
        return self

    @property
    def head_dropout(self) -> float:
        """Dropout rate before the classifier."""
        return self.classifier_dropout_prob

    def with_dropout(self, rate: float) -> AlbertConfig:
        """The same model with every dropout rate set to `rate`."""
        rates = ("hidden_dropout_prob", "attention_probs_dropout_prob", "classifier_dropout_prob")
        return self.model_copy(update=dict.fromkeys(rates, rate))

    def layer_prefixes(self, layer: int) -> tuple[str, ...]:
        """Where the tensors of pass `layer` (from 0) live."""
        # Passes per group as a float and rounded down, as transformers has it: both need not be multiples.
        group = int(layer / (self.num_hidden_layers / self.num_hidden_groups))
        return tuple(self.names.layer.format(group=group, inner=inner) for inner in range(self.inner_group_num))


class ElectraConfig(EncoderConfig):
    """BERT with embeddings that may be narrower, no pooler, and a classifier with a hidden layer of its own. Generator and
    discriminator are both of this kind."""

    names = ELECTRA
    ignored_keys = frozenset(  # of multiple choice
        "summary_type summary_use_proj summary_activation summary_last_dropout summary_proj_to_labels "
        "summary_first_dropout".split()
    )

    vocab_size: int = Field(30522, ge=1)
    embedding_size: int = Field(128, ge=1)
    hidden_size: int = Field(256, ge=1)
    num_hidden_layers: int = Field(12, ge=1)
    num_attention_heads: int = Field(4, ge=1)
    intermediate_size: int = Field(1024, ge=1)
    hidden_act: Activation = "gelu"
    hidden_dropout_prob: float = Field(0.1, ge=0, lt=1)
    attention_probs_dropout_prob: float = Field(0.1, ge=0, lt=1)
    classifier_dropout: float | None = Field(None, ge=0, lt=1)
    max_position_embeddings: int = Field(512, ge=1)
    type_vocab_size: int = Field(2, ge=1)
    initializer_range: float = Field(0.02, gt=0)
    layer_norm_eps: float = Field(1e-12, gt=0)
    pad_token_id: int | None = 0

    @property
    def head_dropout(self) -> float:
        """Dropout rate of the classifier, before both of its maps."""
        return self.hidden_dropout_prob if self.classifier_dropout is None else self.classifier_dropout
