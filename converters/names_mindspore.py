"""The names of MindSpore checkpoints: BERT as the model zoo has it, other families as Hugging Face has them.

The zoo's `BertPreTraining` holds the encoder as `bert.bert`, the masked language model as `bert.cls1`, next sentence as
`bert.cls2`; a classifier is `bert.dense_1`, and a pooler `bert.bert.dense`. Until r1.1 of the zoo the token types and the
positions were bare parameters with other names. TinyBERT's students say `tinybert_` for `bert_`, and saved without their
head they have one `bert.` less. `nn.Dense` holds (out, in), so nothing is transposed. Networks written after Hugging Face's
differ only in what MindSpore calls the parts: gamma, beta, embedding_table.
"""

from __future__ import annotations

import re

from ..core.models.known_families import is_norm, is_table, of_families
from . import names_canonical
from .names_canonical import templates_of, tied_of
from .rules import Rule, Table

_ENCODER = (
    ("bert.embeddings.word_embeddings.weight", "bert.bert.bert_embedding_lookup.embedding_table"),
    ("bert.embeddings.LayerNorm.", "bert.bert.bert_embedding_postprocessor.layernorm."),
    ("bert.encoder.layer.", "bert.bert.bert_encoder.layers."),
    ("attention.self.query.", "attention.attention.query_layer."),
    ("attention.self.key.", "attention.attention.key_layer."),
    ("attention.self.value.", "attention.attention.value_layer."),
    ("intermediate.dense.", "intermediate."),
    ("bert.pooler.dense.", "bert.bert.dense."),
    ("cls.predictions.transform.LayerNorm.", "bert.cls1.layernorm."),
    ("cls.predictions.transform.dense.", "bert.cls1.dense."),
    ("cls.predictions.bias", "bert.cls1.output_bias"),
    ("cls.seq_relationship.", "bert.cls2.dense."),
    ("classifier.", "bert.dense_1."),
    ("qa_outputs.", "bert.dense1."),
    (".LayerNorm.", ".layernorm."),
    ("layernorm.weight", "layernorm.gamma"),
    ("layernorm.bias", "layernorm.beta"),
)
_TABLES = {
    "mindspore": (
        ("token_type_embeddings.weight", "token_type_embedding.embedding_table"),
        ("position_embeddings.weight", "full_position_embedding.embedding_table"),
    ),
    "mindspore-old": (
        ("token_type_embeddings.weight", "embedding_table"),
        ("position_embeddings.weight", "full_position_embeddings"),
    ),
}
"""Dialect -> names of the two tables whose names changed, in the encoder's `bert_embedding_postprocessor`."""

_IN_ENCODER = re.compile(r"^(?:bert\.){0,2}(?:tiny)?(bert_(?:embedding_lookup|embedding_postprocessor|encoder)\.|dense\.)")
_HEAD = re.compile(r"^(?:bert\.)?(?=(?:dense_1|dense1|cls1|cls2)\.)")
_ENCODER_STARTS = {
    f"{tiny}bert_{part}" for tiny in ("", "tiny") for part in ("embedding_lookup", "embedding_postprocessor", "encoder")
}
STARTS = names_canonical.STARTS | _ENCODER_STARTS | {"dense", "dense_1", "dense1", "cls1", "cls2"}
ENDS = frozenset("gamma beta embedding_table".split())


@of_families
def table(family: str, dialect: str) -> Table:
    """The rules of a family in one of the two dialects; for reading, the canonical names that `spelled` makes of others too."""
    own = [Rule(name, name) for name in (*templates_of(family), *tied_of(family))]
    if family != "bert":
        return Table([Rule(rule.canonical, _parameter(rule.canonical)) for rule in own], own)
    return Table([Rule(name, _in_zoo(name, dialect)) for name in templates_of(family)], own)


def spelled(name: str, kind: str) -> str:
    """A name of a MindSpore file, without its prefix, as the rules have it: with those of the whole pre-training network."""
    if kind == "bert":
        for pattern, start in ((_IN_ENCODER, r"bert.bert.\1"), (_HEAD, "bert.")):
            if pattern.match(name):
                return pattern.sub(start, name)
    return names_canonical.spelled(re.sub(r"\.embedding_table$", ".weight", name), kind)


def _in_zoo(canonical: str, dialect: str) -> str:
    name = canonical
    for old, new in _TABLES[dialect]:
        name = name.replace(f"bert.embeddings.{old}", f"bert.bert.bert_embedding_postprocessor.{new}")
    for old, new in _ENCODER:
        name = name.replace(old, new)
    return name


def _parameter(canonical: str) -> str:
    """What MindSpore calls the parts of a layer."""
    place, _, part = canonical.rpartition(".")
    if is_norm(canonical):
        return f"{place}.{'gamma' if part == 'weight' else 'beta'}"
    return f"{place}.embedding_table" if is_table(canonical) else canonical
