"""DistilBERT (Sanh et al. 2019): BERT without token types and without a pooler; its classifier has a hidden layer of its own."""

from __future__ import annotations

import numpy as np
from pydantic import Field

from ..answer_heads import SPANS
from ..parts import LAYER, Family, classifier_parts, embedding_parts, layer_parts, words_parts
from ..spec import Activation, OneWidthConfig
from .bert import BERT

_EMBEDDINGS = embedding_parts("distilbert.", "hidden_size", types=False)
_PARTS = (
    *_EMBEDDINGS,
    *layer_parts(
        query="attention.q_lin",
        key="attention.k_lin",
        value="attention.v_lin",
        attention_output="attention.out_lin",
        attention_norm="sa_layer_norm",
        intermediate="ffn.lin1",
        output="ffn.lin2",
        output_norm="output_layer_norm",
    ),
    *classifier_parts("pre_classifier"),
    *words_parts(
        "mlm",
        "hidden_size",
        _EMBEDDINGS[0].name,
        transform="vocab_transform",
        norm="vocab_layer_norm",
        bias="vocab_projector.bias",
        decoder="vocab_projector",
    ),
)

DISTILBERT = Family(
    "distilbert",
    "DistilBert",
    "distilbert.",
    _PARTS,
    layer="distilbert.transformer.layer.{layer}.",
    pooler_in_encoder=False,
    pooler_activation="relu",
    classes={("mlm",): "ForMaskedLM"},
    starts_from=("bert",),
    # BERT's, which Google's graph then finds; it has no hidden layer of this kind before the classifier.
    google={
        part.role: ("bert.encoder.layer.{}." if part.place == LAYER else "") + BERT.name(part.role)
        for part in _PARTS
        if part.role != "pooler"
    },
    classifies_tokens=True,
)


class DistilBertConfig(OneWidthConfig):
    """A DistilBERT encoder with a classification or regression head."""

    family = DISTILBERT
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
    def token_head_dropout(self) -> float:
        """`dropout`, which is `qa_dropout` in the published configurations."""
        return self.dropout if self.classifier == SPANS else self.seq_classif_dropout

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

    def new_tensor(self, name: str, shape: tuple[int, ...], seed: int) -> np.ndarray:
        """A tensor of a new model."""
        if self.sinusoidal_pos_embds and name == f"{self.family.name('positions')}.weight":
            return sinusoids(*shape)
        return super().new_tensor(name, shape, seed)


def sinusoids(positions: int, width: int) -> np.ndarray:
    """(positions, width) float32: sines and cosines of growing wave length in turn (Vaswani et al. 2017, section 3.5)."""
    angles = np.arange(positions)[:, None] / 10000 ** (2 * (np.arange(width) // 2) / width)
    return np.where(np.arange(width) % 2, np.cos(angles), np.sin(angles)).astype(np.float32)
