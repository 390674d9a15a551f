"""Other names that tensors have in real files: prefixes, older names, other TensorFlow code, RoBERTa."""

from __future__ import annotations

import re
from collections import Counter

import pytest

from crossdistil.converters.names_canonical import told_by_names
from crossdistil.converters.recognise import recognise
from crossdistil.tests.real_names import GOOGLE, ROBERTA, ROBERTA_CLASSES, ROBERTA_WORDS, ZOO, of, pairs, shaped

ZOO_HEADS = {name: own for name, own in ZOO.items() if not name.startswith("bert.cls")}


@pytest.mark.parametrize(
    "rename",
    [
        lambda name: name,
        lambda name: name.removeprefix("bert."),  # the network of a classifier, without the training's
        lambda name: name.replace("bert_e", "tinybert_e"),  # a TinyBERT of task distillation
        lambda name: name.removeprefix("bert.").replace("bert_e", "tinybert_e"),
        lambda name: "student." + name,
        lambda name: "network." + name.removeprefix("bert."),
    ],
)
def test_prefixes_of_the_model_zoo(rename):
    names = ZOO_HEADS | {"bert.dense_1.weight": "classifier.weight", "bert.dense_1.bias": "classifier.bias"}
    renamed = {rename(name): own for name, own in names.items()}
    found = recognise(shaped(renamed), {"vocab_size": 512})
    assert (found.dialect, pairs(found), found.unknown) == ("mindspore", renamed, {})


def test_encoders_of_the_model_zoo():
    bare = {name.removeprefix("bert.bert."): own for name, own in ZOO_HEADS.items()}
    assert pairs(recognise(shaped(bare), None)) == bare
    general = {name.removeprefix("bert.").replace("bert_e", "tinybert_e"): own for name, own in ZOO_HEADS.items()}
    assert "bert.tinybert_encoder.layers.0.intermediate.weight" in general and "bert.dense.weight" in general
    fit = {"fit_dense.weight": "fit_dense.weight", "fit_dense.bias": "fit_dense.bias"}
    state = ["learning_rate", "loss_scale", "current_iterator_step", "last_overflow_iterator_step", "beta1_power"]
    moments = [f"{kind}.{name}" for name in general for kind in ("adam_m", "adam_v", "moments", "moment1")]
    found = recognise(shaped([*general, *fit, *state, *moments, "global_step"]), None)
    assert pairs(found) == general | fit and not found.unknown
    assert Counter(found.dropped.values()) == {"state of the optimizer": 4 * len(general) + 2, "state of the training": 4}


@pytest.mark.parametrize("family", told_by_names())
def test_hugging_faces_networks_in_mindspore(family):
    def parameter(name):
        for part in ("LayerNorm", "layer_norm", "ln_1", "ln_2", "ln_f"):
            name = name.replace(f"{part}.weight", f"{part}.gamma").replace(f"{part}.bias", f"{part}.beta")
        return re.sub(r"(_embeddings|\bwte|\bwpe)\.weight", r"\1.embedding_table", name)

    names = {parameter(name): name for name in of(family, "canonical").values()}
    found = recognise(shaped(names), None)
    assert (found.dialect, found.family, pairs(found), found.unknown) == ("mindspore", family, names, {})


def test_layer_normalization_of_ported_graphs():
    names, number = {}, 0
    for name, own in GOOGLE.items():
        if "LayerNorm/" in name:
            suffix = f"_{number // 2}" if number > 1 else ""
            name, number = name.replace("LayerNorm", f"layer_normalization{suffix}"), number + 1
        names[name] = own
    assert "bert/encoder/layer_3/attention/output/layer_normalization_7/gamma" in names
    found = recognise(shaped(names), None)
    assert (pairs(found), found.unknown) == (names, {})
    one_of_two = "bert/encoder/transformer/group_0/inner_group_0/layer_normalization_1/gamma"
    assert list(recognise(shaped([one_of_two, *of("albert", "tensorflow")]), None).unknown) == [one_of_two]


def test_hugging_faces_tensorflow_classes():
    names = {
        "bert/embeddings/word_embeddings/weight:0": "bert.embeddings.word_embeddings.weight",
        "bert/embeddings/position_embeddings/embeddings:0": "bert.embeddings.position_embeddings.weight",
        "bert/embeddings/token_type_embeddings/embeddings:0": "bert.embeddings.token_type_embeddings.weight",
        "bert/embeddings/LayerNorm/gamma:0": "bert.embeddings.LayerNorm.weight",
        "bert/encoder/layer_._0/attention/self/query/kernel:0": "bert.encoder.layer.0.attention.self.query.weight",
        "bert/encoder/layer_._0/attention/self/query/bias:0": "bert.encoder.layer.0.attention.self.query.bias",
        "bert/encoder/layer_._11/attention/output/dense/kernel:0": "bert.encoder.layer.11.attention.output.dense.weight",
        "mlm___cls/predictions/bias:0": "cls.predictions.bias",
        "mlm___cls/predictions/transform/dense/kernel:0": "cls.predictions.transform.dense.weight",
        "nsp___cls/seq_relationship/kernel:0": "cls.seq_relationship.weight",
        "classifier/kernel:0": "classifier.weight",
        "classifier/bias:0": "classifier.bias",
    }
    names = {f"tf_bert_for_pre_training_1/{name}": own for name, own in names.items()}
    shapes = shaped(names)
    prefix = "tf_bert_for_pre_training_1/bert/encoder/layer_._"
    shapes[f"{prefix}0/attention/self/query/kernel:0"] = (768, 12, 64)
    shapes[f"{prefix}0/attention/self/query/bias:0"] = (12, 64)
    shapes[f"{prefix}11/attention/output/dense/kernel:0"] = (12, 64, 768)
    found = recognise(shapes, None)
    assert (found.dialect, pairs(found), found.unknown) == ("tensorflow", names, {})
    layer = "bert.encoder.layer."
    assert found.matches[f"{layer}0.attention.self.query.weight"].shape == (768, 768)
    assert found.matches[f"{layer}0.attention.self.query.weight"].transpose
    assert found.matches[f"{layer}0.attention.self.query.bias"].shape == (768,)
    assert found.matches[f"{layer}11.attention.output.dense.weight"].shape == (768, 768)
    assert found.matches["classifier.weight"].transpose and found.matches["cls.seq_relationship.weight"].transpose
    assert pairs(recognise(shaped(["bert/embeddings/weight"]), {"model_type": "bert"})) == {
        "bert/embeddings/weight": "bert.embeddings.word_embeddings.weight"
    }
    student = {
        "tf_distil_bert_for_masked_lm/distilbert/embeddings/word_embeddings/weight:0": (
            "distilbert.embeddings.word_embeddings.weight"
        ),
        "tf_distil_bert_for_masked_lm/distilbert/transformer/layer_._5/attention/q_lin/kernel:0": (
            "distilbert.transformer.layer.5.attention.q_lin.weight"
        ),
        "tf_distil_bert_for_masked_lm/vocab_layer_norm/gamma:0": "vocab_layer_norm.weight",
    }
    assert pairs(recognise(shaped(student), None)) == student


def test_keras_bert_of_the_model_garden():
    names = {
        "word_embeddings/embeddings": "bert.embeddings.word_embeddings.weight",
        "position_embedding/embeddings": "bert.embeddings.position_embeddings.weight",
        "type_embeddings/embeddings": "bert.embeddings.token_type_embeddings.weight",
        "embeddings/layer_norm/gamma": "bert.embeddings.LayerNorm.weight",
        "transformer/layer_1/self_attention/value/kernel": "bert.encoder.layer.1.attention.self.value.weight",
        "transformer/layer_1/self_attention/attention_output/bias": "bert.encoder.layer.1.attention.output.dense.bias",
        "transformer/layer_1/self_attention_layer_norm/beta": "bert.encoder.layer.1.attention.output.LayerNorm.bias",
        "transformer/layer_1/intermediate/kernel": "bert.encoder.layer.1.intermediate.dense.weight",
        "transformer/layer_1/output/kernel": "bert.encoder.layer.1.output.dense.weight",
        "transformer/layer_1/output_layer_norm/gamma": "bert.encoder.layer.1.output.LayerNorm.weight",
        "pooler_transform/kernel": "bert.pooler.dense.weight",
    }
    for prefix, suffix in (("", ":0"), ("bert_encoder/", ""), ("", "/.ATTRIBUTES/VARIABLE_VALUE")):
        renamed = {prefix + name + suffix: own for name, own in names.items()}
        found = recognise(shaped([*renamed, "save_counter/.ATTRIBUTES/VARIABLE_VALUE"]), None)
        assert (found.dialect, pairs(found), found.unknown) == ("tensorflow", renamed, {})
    earlier = {
        "bert_model/word_embeddings/embeddings": "bert.embeddings.word_embeddings.weight",
        "bert_model/embedding_postprocessor/position_embeddings": "bert.embeddings.position_embeddings.weight",
        "bert_model/embedding_postprocessor/type_embeddings": "bert.embeddings.token_type_embeddings.weight",
        "bert_model/embedding_postprocessor/layer_norm/beta": "bert.embeddings.LayerNorm.bias",
        "bert_model/encoder/layer_0/self_attention_output/kernel": "bert.encoder.layer.0.attention.output.dense.weight",
    }
    assert pairs(recognise(shaped(earlier), None)) == earlier


@pytest.mark.parametrize("prefix", ["module.", "model.", "student.", "teacher.", "module.student.", "_orig_mod.module."])
@pytest.mark.parametrize("family", told_by_names())
def test_prefixes_of_training_code(family, prefix):
    names = {prefix + name: name for name in of(family, "canonical").values()}
    found = recognise(shaped(names), None)
    assert (found.dialect, found.family, pairs(found), found.unknown) == ("canonical", family, names, {})
    wrappers, own = [part for part in ("_orig_mod.", "module.") if part in prefix], re.sub("_orig_mod.|module.", "", prefix)
    notes = [f"the model's names start with '{own}', which is left out"] if own else []
    notes += [f"{', '.join(map(repr, wrappers))}: names of wrapping modules, which are left out"] if wrappers else []
    assert (found.notes, found.prefix) == (notes, own)
    some = recognise(shaped([*of(family, "canonical").values(), f"{prefix}extra.weight"]), None)
    assert list(some.unknown) == [f"{prefix}extra.weight"] and not some.notes


# Without their root, names of others are those of several families, or of none.
@pytest.mark.parametrize("family", ["bert", "albert", "distilbert", "electra"])
def test_bare_encoders_and_old_names_of_a_layer_norm(family):
    root = f"{family}."
    names = {name.removeprefix(root): name for name in of(family, "canonical").values() if name.startswith(root)}
    found = recognise(shaped(names), None)
    assert (found.dialect, found.family, pairs(found), found.unknown) == ("canonical", family, names, {})
    gamma = {
        name.replace("Norm.weight", "Norm.gamma").replace("Norm.bias", "Norm.beta"): name
        for name in of(family, "canonical").values()
    }
    found = recognise(shaped(gamma), None)
    assert (found.dialect, found.family, pairs(found), found.unknown) == ("canonical", family, gamma, {})


def test_bare_encoders_of_google():
    bare = {name.removeprefix("bert/"): own for name, own in GOOGLE.items()}
    assert pairs(recognise(shaped(bare), None)) == bare


def test_a_classifier_without_the_head_of_debertas_pre_training():
    encoder = ("deberta.embeddings.word_embeddings.weight", "deberta.encoder.rel_embeddings.weight")
    names = {name: name for name in (*encoder, "pooler.dense.weight", "classifier.weight")}
    heads = [f"mask_predictions.{name}.weight" for name in ("dense", "LayerNorm", "classifier")]
    found = recognise(shaped([*names, *heads]), {"model_type": "deberta-v2"})
    assert (pairs(found), found.unknown) == (names, {})
    assert found.dropped == dict.fromkeys(heads, "head of the pre-training that its classifier does not use")


@pytest.mark.parametrize("family", [None, "roberta", "xlm-roberta"])
def test_roberta(family):
    config = None if family is None else {"model_type": family}
    ties = ["lm_head.decoder.weight", "lm_head.decoder.bias"]
    buffers = ["roberta.embeddings.position_ids"]
    found = recognise(shaped([*ROBERTA, *ROBERTA_WORDS, *ties, *buffers]), config)
    assert (found.dialect, found.family, found.unknown) == ("canonical", family or "roberta", {})
    assert pairs(found) == {name: name for name in (*ROBERTA, *ROBERTA_WORDS)} and set(found.dropped) == {*ties, *buffers}
    pooler = ["roberta.pooler.dense.weight", "roberta.pooler.dense.bias"]
    found = recognise(shaped([*ROBERTA, *ROBERTA_CLASSES, *pooler]), config)
    assert (pairs(found), found.unknown) == ({name: name for name in (*ROBERTA, *ROBERTA_CLASSES)}, {})
    assert found.dropped == dict.fromkeys(pooler, "pooler of the encoder that its classifier does not use")
    found = recognise(shaped([*ROBERTA, *pooler]), config)  # of an encoder it is kept
    assert set(pairs(found)) == {*ROBERTA, *pooler} and found.dropped == {}
    if config:
        bare = {name.removeprefix("roberta."): name for name in ROBERTA}
        assert pairs(recognise(shaped(bare), config)) == bare
