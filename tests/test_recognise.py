"""Which dialect and family real checkpoints have, what is left out and why, and what is refused."""

from __future__ import annotations

from collections import Counter
from math import prod

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from crossdistil.converters.dialects import DIALECTS, foreign_names
from crossdistil.converters.names_canonical import templates_of, tied_of
from crossdistil.converters.reading import ReadOptions
from crossdistil.converters.recognise import recognise
from crossdistil.converters.rules import Match
from crossdistil.core.errors import CheckpointError
from crossdistil.core.models.families import CONFIGURATIONS
from crossdistil.core.models.known_families import encoder_families
from crossdistil.core.models.parts import UNUSED
from crossdistil.tests.real_names import GOOGLE, LEGACY, OLD, ZOO, of, pairs, shaped


def test_googles_bert_base():
    assert len(GOOGLE) == 206
    moments = {f"{name}/{kind}" for name in GOOGLE for kind in ("adam_m", "adam_v")}
    found = recognise(shaped([*GOOGLE, *moments, "global_step"]), None)
    assert (found.dialect, found.family) == ("tensorflow", "bert")
    assert pairs(found) == GOOGLE and not found.unknown
    assert {match.source for match in found.matches.values() if match.transpose} == {n for n in GOOGLE if n.endswith("/kernel")}
    assert sum(match.transpose for match in found.matches.values()) == 74
    assert Counter(found.dropped.values()) == {"state of the optimizer": 412, "state of the training": 1}


def test_a_fine_tuned_classifier_of_google():
    found = recognise(shaped([*list(GOOGLE)[:-7], "output_weights", "output_bias"]), None)
    assert found.matches["classifier.weight"] == Match("output_weights")
    assert found.matches["classifier.bias"] == Match("output_bias") and not found.unknown


def test_the_model_zoos_bert_in_both_generations():
    found = recognise(shaped(ZOO), None)
    assert (found.dialect, found.family) == ("mindspore", "bert")
    assert pairs(found) == ZOO and not found.unknown
    assert not any(match.transpose for match in found.matches.values())
    old = {}
    for name, own in ZOO.items():
        for new_part, old_part in OLD.items():
            name = name.replace("postprocessor." + new_part, "postprocessor." + old_part)
        old[name] = own
    assert "bert.bert.bert_embedding_postprocessor.full_position_embeddings" in old
    found = recognise(shaped(old), None)
    assert (found.dialect, pairs(found), found.unknown) == ("mindspore-old", old, {})


def test_legacy_oneflow():
    found = recognise(shaped(LEGACY), None)
    assert (found.dialect, found.family, pairs(found), found.unknown) == ("oneflow-legacy", "bert", LEGACY, {})
    flipped = {match.source for match in found.matches.values() if match.transpose}
    assert flipped == {name for name in LEGACY if name.endswith("-weight")}
    wrong = shaped(LEGACY)
    wrong["classification-output-weight"] = wrong.pop("classification-output_weights")
    assert recognise(wrong, None).matches["classifier.weight"] == Match("classification-output-weight")


def test_a_snapshot_of_student_and_teacher_in_legacy_oneflow():
    student = {f"student-{name}": own for name, own in LEGACY.items()}
    student |= {"student-fit_dense-weight": "fit_dense.weight", "student-fit_dense-bias": "fit_dense.bias"}
    moments = [f"{name}-{kind}" for name in student for kind in "mv"]
    snapshot = shaped([*student, *LEGACY, *moments, "System-Train-TrainStep-DistilJob"])
    found = recognise(snapshot, None)
    assert pairs(found) == student and not found.unknown
    assert found.matches["fit_dense.weight"].transpose is False
    assert Counter(found.dropped.values()) == {
        "state of the optimizer": len(moments),
        "of the teacher, whose student is in the same checkpoint": len(LEGACY),
        "state of the training": 1,
    }
    both = shaped([*student, *LEGACY, "fit_dense-weight"])
    assert pairs(recognise(both, None)) == student and "fit_dense-weight" in recognise(both, None).dropped
    apart = {name: own for name, own in student.items() if "fit_dense" not in name}
    apart |= {"fit_dense-weight": "fit_dense.weight", "fit_dense-bias": "fit_dense.bias"}
    assert pairs(recognise(shaped(apart), None)) == apart


def test_a_successor_of_theseus_is_not_guessed():
    name = "bert-encoder-student-layer_1-output-dense-weight"
    with pytest.raises(CheckpointError, match=f"{name} is of the successor in a training of BERT-of-Theseus.*--successor"):
        recognise(shaped([*LEGACY, name]), None)
    found = recognise(shaped([*LEGACY, name]), None, options=ReadOptions(successor=True))
    assert found.matches["bert.encoder.layer.1.output.dense.weight"].source == name
    assert not any(match.source.startswith("bert-encoder-layer_") for match in found.matches.values())


def test_positions_of_legacy_oneflow_and_files_without_shapes():
    shapes = {name: (8, 8) for name in LEGACY} | {"bert-embeddings-position_embeddings": (1, 512, 8)}
    assert recognise(shapes, None).matches["bert.embeddings.position_embeddings.weight"].shape == (512, 8)
    sizes = {name: 8 for name in LEGACY}
    sizes |= {"bert-embeddings-word_embeddings": 30 * 8, "bert-embeddings-position_embeddings": 512 * 8}
    sizes |= {"bert-embeddings-token_type_embeddings": 16, "bert-pooler-dense-weight": 64}
    sizes |= {"classification-output_weights": 24, "classification-output_bias": 3}
    for layer in range(4):
        prefix = f"bert-encoder-layer_{layer}-"
        sizes |= {f"{prefix}attention-self-{part}-weight": 64 for part in ("query", "key", "value")}
        sizes |= {f"{prefix}attention-output-dense-weight": 64, f"{prefix}intermediate-dense-bias": 12}
        sizes |= {f"{prefix}intermediate-dense-weight": 96, f"{prefix}output-dense-weight": 96}
    matches = recognise({name: (size,) for name, size in sizes.items()}, None).matches
    assert matches["bert.embeddings.word_embeddings.weight"].shape == (30, 8)
    assert matches["bert.embeddings.position_embeddings.weight"].shape == (512, 8)
    assert matches["bert.encoder.layer.0.intermediate.dense.weight"] == Match(
        "bert-encoder-layer_0-intermediate-dense-weight", True, (8, 12)
    )
    assert matches["bert.encoder.layer.3.output.dense.weight"].shape == (12, 8)
    assert matches["classifier.weight"] == Match("classification-output_weights", False, (3, 8))
    assert matches["bert.embeddings.LayerNorm.weight"].shape is None
    sizes["bert-embeddings-word_embeddings"] = 241
    del sizes["classification-output_bias"]
    matches = recognise({name: (size,) for name, size in sizes.items()}, None).matches
    assert matches["bert.embeddings.word_embeddings.weight"].shape is None and matches["classifier.weight"].shape is None


def test_albert_of_google():
    inner = "bert/encoder/transformer/group_0/inner_group_0"
    own = "albert.encoder.albert_layer_groups.0.albert_layers.0"
    names = {
        "bert/embeddings/word_embeddings": ("albert.embeddings.word_embeddings.weight", False),
        "bert/encoder/embedding_hidden_mapping_in/kernel": ("albert.encoder.embedding_hidden_mapping_in.weight", True),
        f"{inner}/attention_1/self/query/kernel": (f"{own}.attention.query.weight", True),
        f"{inner}/attention_1/output/dense/kernel": (f"{own}.attention.dense.weight", True),
        f"{inner}/attention_1/output/dense/bias": (f"{own}.attention.dense.bias", False),
        f"{inner}/LayerNorm/gamma": (f"{own}.attention.LayerNorm.weight", False),
        f"{inner}/LayerNorm_1/beta": (f"{own}.full_layer_layer_norm.bias", False),
        f"{inner}/ffn_1/intermediate/dense/kernel": (f"{own}.ffn.weight", True),
        f"{inner}/ffn_1/intermediate/output/dense/kernel": (f"{own}.ffn_output.weight", True),
        "bert/pooler/dense/kernel": ("albert.pooler.weight", True),
        "cls/predictions/transform/dense/kernel": ("predictions.dense.weight", True),
        "cls/predictions/transform/LayerNorm/gamma": ("predictions.LayerNorm.weight", False),
        "cls/predictions/output_bias": ("predictions.bias", False),
        "cls/seq_relationship/output_weights": ("sop_classifier.classifier.weight", False),
        "cls/seq_relationship/output_bias": ("sop_classifier.classifier.bias", False),
    }
    for prefix in ("", "module/"):
        found = recognise(shaped(prefix + name for name in names), None)
        assert (found.dialect, found.family, found.unknown) == ("tensorflow", "albert", {})
        assert {match.source.removeprefix(prefix): (name, match.transpose) for name, match in found.matches.items()} == names


def test_both_models_of_an_electra_checkpoint():
    layer = "encoder/layer_0/output/dense/kernel"
    shared = ["electra/embeddings/word_embeddings", "electra/embeddings/LayerNorm/gamma"]
    discriminator = ["electra/embeddings_project/kernel", f"electra/{layer}", "discriminator_predictions/dense/kernel"]
    discriminator += ["discriminator_predictions/dense_1/kernel"]
    generator = ["generator/embeddings_project/kernel", f"generator/{layer}", "generator_predictions/dense/kernel"]
    generator += ["generator_predictions/LayerNorm/gamma", "generator_predictions/output_bias"]
    found = recognise(shaped([*shared, *discriminator, *generator, "global_step", "temperature"]), None)
    assert pairs(found).keys() == {*shared, *discriminator} and not found.unknown
    assert pairs(found)["discriminator_predictions/dense_1/kernel"] == "discriminator_predictions.dense_prediction.weight"
    assert Counter(found.dropped.values()) == {
        "of the generator, which shares the file": 5,
        "state of the training": 2,
    }
    config = {"model_type": "electra", "architectures": ["ElectraForMaskedLM"]}
    found = recognise(shaped([*shared, *discriminator, *generator]), config)
    assert pairs(found).keys() == {*shared, *generator} and not found.unknown
    assert pairs(found)[f"generator/{layer}"] == "electra.encoder.layer.0.output.dense.weight"
    assert pairs(found)["generator_predictions/output_bias"] == "generator_lm_head.bias"
    own = ["generator/embeddings/word_embeddings", "generator/embeddings/LayerNorm/gamma"]
    assert pairs(recognise(shaped([*shared, *own, *discriminator, *generator]), config)).keys() == {*own, *generator}
    alone = recognise(shaped(["electra/embeddings/word_embeddings", "generator_lm_head/bias"]), None)
    assert set(alone.matches) == {"electra.embeddings.word_embeddings.weight", "generator_lm_head.bias"}


@pytest.mark.parametrize("dialect", ["tensorflow", "oneflow-legacy"])
def test_a_student_in_googles_graph(dialect):
    names = of("distilbert", dialect)
    separator = "/" if dialect == "tensorflow" else "-"
    weight = "kernel" if dialect == "tensorflow" else "weight"
    parts = ("bert embeddings token_type_embeddings", f"bert pooler dense {weight}", "bert pooler dense bias")
    added = [part.replace(" ", separator) for part in parts]
    found = recognise(shaped([*names, *added]), {"model_type": "distilbert"})
    assert (found.dialect, found.family, pairs(found), found.unknown) == (dialect, "distilbert", names, {})
    assert found.dropped == dict.fromkeys(added, "added for Google's graph, no part of a DistilBERT")
    google = set(GOOGLE) if dialect == "tensorflow" else set(LEGACY)
    heads = {name for name in names if name.startswith(("pre_classifier", "fit_dense", "output_", "cls", "classification"))}
    assert {name for name in names if "layer_1" not in name} - heads <= google
    encoder = {name for name in names if name.startswith("bert")}
    with pytest.raises(CheckpointError, match=r"fit bert \(.*\) and distilbert \(.*\) alike; a config.json with its model_type"):
        recognise(shaped(encoder), None)


def test_names_decide_where_every_table_is_square():
    for family in encoder_families():
        for dialect in DIALECTS:
            # All heads are in one file here, and beside a classifier what it does not use is left out.
            unused = {name for part in CONFIGURATIONS[family].family.at(UNUSED) for name in part.tensors()}
            kept = (name for name in templates_of(family) if name not in unused)
            names = foreign_names((template.format(0, 0) for template in kept), family, dialect)
            found = recognise(shaped(name for name, _ in names.values()), {"model_type": family}, dialect)
            assert {name: match.transpose for name, match in found.matches.items()} == {
                name: transpose for name, (_, transpose) in names.items()
            }


def test_a_copy_alone_stands_for_the_original():
    names = [name for name in of("bert", "canonical").values() if "word_embeddings" not in name]
    found = recognise(shaped([*names, "cls.predictions.decoder.weight"]), None)
    assert found.matches["bert.embeddings.word_embeddings.weight"] == Match("cls.predictions.decoder.weight")
    assert "is taken from cls.predictions.decoder.weight" in found.notes[0]
    for family in encoder_families():
        for tie in tied_of(family):
            for config in (None, {"tie_word_embeddings": True}):
                found = recognise(shaped([*of(family, "canonical").values(), tie]), config)
                assert found.dropped == {tie: "copy of a tensor that it is tied to"} and tie not in found.matches
            own = recognise(shaped([*of(family, "canonical").values(), tie]), {"tie_word_embeddings": False})
            assert own.matches[tie] == Match(tie) and not own.dropped


def test_the_nearest_name_of_what_is_unknown():
    names = shaped([*GOOGLE, "bert/encoder/layer_7/atention/self/query/kernel", "somewhere/else"])
    assert recognise(names, None).unknown == {
        "bert/encoder/layer_7/atention/self/query/kernel": "bert/encoder/layer_7/attention/self/query/kernel",
        "somewhere/else": "",
    }
    zoo = recognise(shaped([*ZOO, "bert.bert.bert_encoder.layers.3.intermediate.wieght"]), None)
    assert list(zoo.unknown.values()) == ["bert.bert.bert_encoder.layers.3.intermediate.weight"]


def test_many_long_unknown_names_take_no_time():
    layers = [f"bert/encoder/layer_{number}/output/dense/kernal" for number in range(300)]
    unknown = recognise(shaped([*GOOGLE, *layers, "bert/" * 100_000]), None).unknown
    assert list(unknown) == [*layers, "bert/" * 100_000]
    assert [near for near in unknown.values() if near] == [name.replace("kernal", "kernel") for name in layers[:50]]


def test_what_is_refused():
    with pytest.raises(CheckpointError, match=r"first names are conv1\.weight, conv1\.bias, bn1\.weight; supported are"):
        recognise(shaped(["conv1.weight", "conv1.bias", "bn1.weight", "fc.weight"]), None)
    with pytest.raises(CheckpointError, match="the first names are none"):
        recognise({}, None)
    with pytest.raises(CheckpointError, match="model_type 't5': expected one of bert, albert, deberta-v2"):
        recognise(shaped(GOOGLE), {"model_type": "t5"})
    with pytest.raises(CheckpointError, match="model_type \\['bert'\\]"):
        recognise(shaped(GOOGLE), {"model_type": ["bert"]})
    with pytest.raises(CheckpointError, match="dialect 'tensorflw': expected one of .*; did you mean 'tensorflow'"):
        recognise(shaped(GOOGLE), None, "tensorflw")
    with pytest.raises(CheckpointError, match="no tensor has a name"):
        recognise(shaped(GOOGLE), None, "mindspore")
    twice = shaped([*GOOGLE, "bert/embeddings/layer_normalization/gamma"])
    with pytest.raises(CheckpointError, match="LayerNorm/gamma and .*layer_normalization/gamma are both bert.embeddings.Layer"):
        recognise(twice, None)
    names = of("bert", "canonical")
    with pytest.raises(CheckpointError, match="are both bert.embeddings.word_embeddings.weight"):
        recognise(shaped([*names, "bert.embeddings.word_embeddings.embedding_table"]), None, "mindspore")


def test_the_configuration_decides_the_family():
    bare = [
        name.removeprefix("bert.") for name in of("bert", "canonical").values()
        if name.startswith("bert.") and "pooler" not in name
    ]
    with pytest.raises(CheckpointError, match=r"bert \(canonical\) and electra \(.*alike"):
        recognise(shaped(bare), None)
    for family in ("bert", "electra"):
        found = recognise(shaped(bare), {"model_type": family})
        assert found.family == family and f"{family}.embeddings.word_embeddings.weight" in found.matches


NAMES = st.one_of(
    st.text(max_size=30),
    st.lists(
        st.sampled_from(
            "bert distilbert albert electra generator student module encoder layer_0 layer 0 {} embeddings word_embeddings"
            " weight kernel gamma :0 bert_encoder layers cls1 dense LayerNorm position_embeddings layer_._1 classifier".split()
        ),
        max_size=7,
    ).flatmap(lambda parts: st.sampled_from("/.-").map(lambda separator: separator.join(parts))),
)


@settings(max_examples=300, deadline=None)
@given(
    st.dictionaries(NAMES, st.lists(st.integers(0, 9), max_size=4).map(tuple), max_size=8),
    st.sampled_from([None, {}, {"model_type": "bert"}, {"model_type": "electra", "architectures": 3}, {"model_type": "roberta"}]),
)
def test_whatever_the_names_each_is_accounted_for_or_all_are_refused(shapes, config):
    try:
        found = recognise(shapes, config)
    except CheckpointError:
        return
    sources = [match.source for match in found.matches.values()]
    assert sorted([*sources, *found.dropped, *found.unknown]) == sorted(shapes)
    for name, match in found.matches.items():
        if match.shape is not None:
            assert prod(match.shape) == prod(shapes[match.source]), name
