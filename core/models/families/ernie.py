"""ERNIE 1.0 to 3.0 (Sun et al. 2019, 2021) as transformers has it: BERT under names of its own, and where `use_task_id` says so
with a table of tasks beside the token types, of which a text takes the first row."""

from __future__ import annotations

from dataclasses import replace

from pydantic import Field

from ..parts import EMBEDDINGS, TABLE, Part
from ..spec import Activation, EncoderConfig
from .bert import BERT, parts_of

ERNIE = replace(
    BERT,
    model_type="ernie",
    title="Ernie",
    root="ernie.",
    parts=(
        *parts_of("ernie."),
        Part(
            "tasks",
            "ernie.embeddings.task_type_embeddings",
            TABLE,
            ("task_type_vocab_size", "hidden_size"),
            EMBEDDINGS,
            when="use_task_id",
        ),
    ),
    layer="ernie.encoder.layer.{layer}.",
    entries={},
    in_googles_code=False,
)


class ErnieConfig(EncoderConfig):
    """An ERNIE encoder with a classification or regression head."""

    family = ERNIE

    vocab_size: int = Field(30522, ge=1)
    hidden_size: int = Field(768, ge=1)
    num_hidden_layers: int = Field(12, ge=1)
    num_attention_heads: int = Field(12, ge=1)
    intermediate_size: int = Field(3072, ge=1)
    hidden_act: Activation = "gelu"
    hidden_dropout_prob: float = Field(0.1, ge=0, lt=1)
    attention_probs_dropout_prob: float = Field(0.1, ge=0, lt=1)
    classifier_dropout: float | None = Field(None, ge=0, lt=1)
    max_position_embeddings: int = Field(512, ge=1)
    type_vocab_size: int = Field(2, ge=1)
    task_type_vocab_size: int = Field(3, ge=1)
    use_task_id: bool = False
    initializer_range: float = Field(0.02, gt=0)
    layer_norm_eps: float = Field(1e-12, gt=0)
    pad_token_id: int | None = 0

    @property
    def embedding_size(self) -> int:
        """Width of the embeddings."""
        return self.hidden_size
