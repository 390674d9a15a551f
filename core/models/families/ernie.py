"""ERNIE 1.0 to 3.0 (Sun et al. 2019, 2021) as transformers has it: BERT under names of its own, and where `use_task_id` says so
with a table of tasks beside the token types, of which a text takes the first row."""

from __future__ import annotations

from dataclasses import replace

from pydantic import Field

from ..parts import EMBEDDINGS, TABLE, Part
from .bert import BERT, BertKeys, parts_of

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


class ErnieConfig(BertKeys):
    """An ERNIE encoder with a classification or regression head."""

    family = ERNIE

    task_type_vocab_size: int = Field(3, ge=1)
    use_task_id: bool = False
