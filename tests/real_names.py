"""Names of published checkpoints, written out by hand: name in the file -> canonical name; and what tests make of names."""

from __future__ import annotations

from crossdistil.converters.dialects import foreign_names
from crossdistil.converters.names_canonical import templates_of
from crossdistil.core.models.families import CONFIGURATIONS

GOOGLE_LAYER = {
    **{
        f"attention/self/{part}/{kind}": f"attention.self.{part}.{own}"
        for part in ("query", "key", "value")
        for kind, own in (("kernel", "weight"), ("bias", "bias"))
    },
    "attention/output/dense/kernel": "attention.output.dense.weight",
    "attention/output/dense/bias": "attention.output.dense.bias",
    "attention/output/LayerNorm/gamma": "attention.output.LayerNorm.weight",
    "attention/output/LayerNorm/beta": "attention.output.LayerNorm.bias",
    "intermediate/dense/kernel": "intermediate.dense.weight",
    "intermediate/dense/bias": "intermediate.dense.bias",
    "output/dense/kernel": "output.dense.weight",
    "output/dense/bias": "output.dense.bias",
    "output/LayerNorm/gamma": "output.LayerNorm.weight",
    "output/LayerNorm/beta": "output.LayerNorm.bias",
}
GOOGLE = {
    "bert/embeddings/word_embeddings": "bert.embeddings.word_embeddings.weight",
    "bert/embeddings/position_embeddings": "bert.embeddings.position_embeddings.weight",
    "bert/embeddings/token_type_embeddings": "bert.embeddings.token_type_embeddings.weight",
    "bert/embeddings/LayerNorm/gamma": "bert.embeddings.LayerNorm.weight",
    "bert/embeddings/LayerNorm/beta": "bert.embeddings.LayerNorm.bias",
    **{
        f"bert/encoder/layer_{layer}/{name}": f"bert.encoder.layer.{layer}.{own}"
        for layer in range(12)
        for name, own in GOOGLE_LAYER.items()
    },
    "bert/pooler/dense/kernel": "bert.pooler.dense.weight",
    "bert/pooler/dense/bias": "bert.pooler.dense.bias",
    "cls/predictions/output_bias": "cls.predictions.bias",
    "cls/predictions/transform/LayerNorm/beta": "cls.predictions.transform.LayerNorm.bias",
    "cls/predictions/transform/LayerNorm/gamma": "cls.predictions.transform.LayerNorm.weight",
    "cls/predictions/transform/dense/bias": "cls.predictions.transform.dense.bias",
    "cls/predictions/transform/dense/kernel": "cls.predictions.transform.dense.weight",
    "cls/seq_relationship/output_bias": "cls.seq_relationship.bias",
    "cls/seq_relationship/output_weights": "cls.seq_relationship.weight",
}
"""BERT-base of Google, 206 variables."""

ZOO = {
    "bert.bert.bert_embedding_lookup.embedding_table": "bert.embeddings.word_embeddings.weight",
    "bert.bert.bert_embedding_postprocessor.token_type_embedding.embedding_table": (
        "bert.embeddings.token_type_embeddings.weight"
    ),
    "bert.bert.bert_embedding_postprocessor.full_position_embedding.embedding_table": (
        "bert.embeddings.position_embeddings.weight"
    ),
    "bert.bert.bert_embedding_postprocessor.layernorm.gamma": "bert.embeddings.LayerNorm.weight",
    "bert.bert.bert_embedding_postprocessor.layernorm.beta": "bert.embeddings.LayerNorm.bias",
    **{
        f"bert.bert.bert_encoder.layers.{layer}.{name}": f"bert.encoder.layer.{layer}.{own}"
        for layer in range(12)
        for name, own in {
            "attention.attention.query_layer.weight": "attention.self.query.weight",
            "attention.attention.query_layer.bias": "attention.self.query.bias",
            "attention.attention.key_layer.weight": "attention.self.key.weight",
            "attention.attention.key_layer.bias": "attention.self.key.bias",
            "attention.attention.value_layer.weight": "attention.self.value.weight",
            "attention.attention.value_layer.bias": "attention.self.value.bias",
            "attention.output.dense.weight": "attention.output.dense.weight",
            "attention.output.dense.bias": "attention.output.dense.bias",
            "attention.output.layernorm.gamma": "attention.output.LayerNorm.weight",
            "attention.output.layernorm.beta": "attention.output.LayerNorm.bias",
            "intermediate.weight": "intermediate.dense.weight",
            "intermediate.bias": "intermediate.dense.bias",
            "output.dense.weight": "output.dense.weight",
            "output.dense.bias": "output.dense.bias",
            "output.layernorm.gamma": "output.LayerNorm.weight",
            "output.layernorm.beta": "output.LayerNorm.bias",
        }.items()
    },
    "bert.bert.dense.weight": "bert.pooler.dense.weight",
    "bert.bert.dense.bias": "bert.pooler.dense.bias",
    "bert.cls1.output_bias": "cls.predictions.bias",
    "bert.cls1.dense.weight": "cls.predictions.transform.dense.weight",
    "bert.cls1.dense.bias": "cls.predictions.transform.dense.bias",
    "bert.cls1.layernorm.gamma": "cls.predictions.transform.LayerNorm.weight",
    "bert.cls1.layernorm.beta": "cls.predictions.transform.LayerNorm.bias",
    "bert.cls2.dense.weight": "cls.seq_relationship.weight",
    "bert.cls2.dense.bias": "cls.seq_relationship.bias",
}
OLD = {
    "token_type_embedding.embedding_table": "embedding_table",
    "full_position_embedding.embedding_table": "full_position_embeddings",
}

LEGACY = {
    "bert-embeddings-word_embeddings": "bert.embeddings.word_embeddings.weight",
    "bert-embeddings-token_type_embeddings": "bert.embeddings.token_type_embeddings.weight",
    "bert-embeddings-position_embeddings": "bert.embeddings.position_embeddings.weight",
    "bert-embeddings-LayerNorm-gamma": "bert.embeddings.LayerNorm.weight",
    "bert-embeddings-LayerNorm-beta": "bert.embeddings.LayerNorm.bias",
    **{
        f"bert-encoder-layer_{layer}-{name.replace('/', '-').replace('kernel', 'weight')}": f"bert.encoder.layer.{layer}.{own}"
        for layer in range(4)
        for name, own in GOOGLE_LAYER.items()
    },
    "bert-pooler-dense-weight": "bert.pooler.dense.weight",
    "bert-pooler-dense-bias": "bert.pooler.dense.bias",
    "classification-output_weights": "classifier.weight",
    "classification-output_bias": "classifier.bias",
}

ROBERTA = (
    "roberta.embeddings.word_embeddings.weight",
    "roberta.embeddings.position_embeddings.weight",
    "roberta.embeddings.token_type_embeddings.weight",
    "roberta.encoder.layer.0.output.LayerNorm.weight",
)
ROBERTA_WORDS = ("lm_head.dense.weight", "lm_head.layer_norm.bias", "lm_head.bias")
ROBERTA_CLASSES = (
    "classifier.dense.weight",
    "classifier.dense.bias",
    "classifier.out_proj.weight",
    "classifier.out_proj.bias",
)


def shaped(names):
    """Names with shapes that nothing follows from: all squares, since names alone decide."""
    return {name: (512, 512) for name in names}


def pairs(found):
    return {match.source: name for name, match in found.matches.items()}


def of(family, dialect, layers=2):
    """Foreign name -> canonical name of a whole model."""
    unused = {name for part in CONFIGURATIONS[family].family.at("unused") for name in part.tensors()}
    canonical = {template.format(layer, 0) for template in templates_of(family) for layer in range(layers)} - unused
    return {name: own for own, (name, _) in foreign_names(canonical, family, dialect).items()}
