"""ELECTRA (Clark et al. 2020): BERT with embeddings that may be narrower, no pooler, and a classifier with a hidden layer of its
own. Generator and discriminator are both of this kind."""

from __future__ import annotations

from pydantic import Field

from ..parts import DENSE, EMBEDDINGS, Family, Part, classifier_parts, embedding_parts, layer_parts, words_parts
from ..spec import Activation, EncoderConfig

_EMBEDDINGS = embedding_parts("electra.", "embedding_size")

ELECTRA = Family(
    "electra",
    "Electra",
    "electra.",
    (
        *_EMBEDDINGS,
        Part(
            "projection", "electra.embeddings_project", DENSE, ("hidden_size", "embedding_size"), EMBEDDINGS, when="projects"
        ),
        *layer_parts(),
        *classifier_parts("classifier.dense", "classifier.out_proj"),
        Part(
            "tokens.transform",
            "discriminator_predictions.dense",
            DENSE,
            ("hidden_size", "hidden_size"),
            "discriminator",
        ),
        Part("tokens.last", "discriminator_predictions.dense_prediction", DENSE, (1, "hidden_size"), "discriminator"),
        *words_parts(
            "generator",
            "embedding_size",
            _EMBEDDINGS[0].name,
            transform="generator_predictions.dense",
            norm="generator_predictions.LayerNorm",
            bias="generator_lm_head.bias",
            decoder="generator_lm_head",
        ),
    ),
    layer="electra.encoder.layer.{layer}.",
    pooler_in_encoder=False,
    pooler_activation="gelu",
    pooler_dropout=True,
    words_activation="gelu",
    classes={("discriminator",): "ForPreTraining", ("generator",): "ForMaskedLM"},
    google={"tokens.last": "discriminator_predictions.dense_1", "words.bias": "generator_predictions.output_bias"},
    classifies_tokens=True,
)


class ElectraConfig(EncoderConfig):
    """An ELECTRA encoder with a classification or regression head."""

    family = ELECTRA
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
