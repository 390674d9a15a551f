"""Each dialect's rules against the names of transformers' own models: complete, invertible, without collisions."""

from __future__ import annotations

import functools

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from crossdistil.converters.dialects import DIALECTS, foreign_names
from crossdistil.converters.names_canonical import templates_of, tied_of
from crossdistil.converters.recognise import recognise
from crossdistil.converters.rules import Match, Rule, Table
from crossdistil.core.errors import CheckpointError
from crossdistil.core.models.answer_heads import SENTENCES
from crossdistil.core.models.architectures import config_from, tensor_shapes
from crossdistil.core.models.families import CONFIGURATIONS
from crossdistil.core.models.heads import decoders, head_shapes
from crossdistil.core.models.known_families import encoder_families, is_norm, is_table
from crossdistil.core.models.tree import unused_shapes
from crossdistil.tests.tiny_families import OF_EACH


def endings(family):
    """Of transformers' classes that have all tensors of the family's heads."""
    known = family.classes
    return [*(known[heads] for heads in known if not any(set(heads) < set(others) for others in known)), SENTENCES.ending]


OPTIONAL = {
    "ernie": {"use_task_id": True},
    "modernbert": dict.fromkeys(("norm_bias", "attention_bias", "mlp_bias", "classifier_bias"), True),
}
"""Family -> keys with which a model has all tensors that one of the family may have."""
CASES = [(kind, config.family.title + ending) for kind, config in OF_EACH.items() for ending in endings(config.family)]
# Where names alone cannot tell, the first of those that agree is named.
SEEN_AS = {("oneflow", family): "canonical" for family in encoder_families()} | {
    ("mindspore-old", family): "mindspore" for family in encoder_families() if family != "bert"
}


BESIDE = ("fit_dense", "qa_outputs", "classifier", *(f"fit_denses.{layer}" for layer in range(3)))
"""Tensors that are no part of a model, or of some of its classes only."""


_SIZES = {
    "vocab_size": 37,
    "hidden_size": 16,
    "num_attention_heads": 2,
    "intermediate_size": 20,
    "max_position_embeddings": 16,
}
_BESIDE = {
    "albert": {"embedding_size": 4},
    "electra": {"embedding_size": 4},
    "deberta-v2": {"relative_attention": True, "pos_att_type": "c2p|p2c", "norm_rel_ebd": "layer_norm", "type_vocab_size": 2},
    "modernbert": {"pad_token_id": 0},
}


def sizes(family, layers):
    """The configuration of a small model: no two sizes are equal, but hidden and positions, whose square tables tempt."""
    own_key = CONFIGURATIONS[family].own_key
    own = {own_key(key): value for key, value in (_SIZES | {"num_hidden_layers": layers}).items()}
    return own | _BESIDE.get(family, {})


@functools.cache
def state_dict_shapes(model, family, layers):
    import torch
    import transformers
    from transformers.core_model_loading import revert_weight_conversion

    config = transformers.AutoConfig.for_model(family, **sizes(family, layers))
    with torch.device("meta"):
        built = getattr(transformers, model)(config)
    assert set(getattr(built, "_tied_weights_keys", None) or {}) <= set(tied_of(family))
    return {name: tuple(tensor.shape) for name, tensor in revert_weight_conversion(built, built.state_dict()).items()}


def own_shapes(model, family, layers):
    return {name: shape for name, shape in state_dict_shapes(model, family, layers).items() if name not in tied_of(family)}


def translated(shapes, family, dialect):
    """(canonical -> (foreign, transposed), foreign -> shape as it lies there)."""
    names = foreign_names(shapes, family, dialect)
    return names, {name: shapes[canonical][::-1] if flip else shapes[canonical] for canonical, (name, flip) in names.items()}


@pytest.mark.only_backend("torch")
@pytest.mark.parametrize("dialect", DIALECTS)
@pytest.mark.parametrize("layers", [1, 12])  # any others: test_any_layer_number_comes_back
@pytest.mark.parametrize(("family", "model"), CASES)
def test_every_tensor_of_transformers_comes_back(family, model, layers, dialect):
    shapes = own_shapes(model, family, layers)
    names, there = translated(shapes, family, dialect)
    assert len(there) == len(names) == len(shapes)
    for given_dialect in (dialect, None):
        found = recognise(there, {"model_type": family}, given_dialect)
        assert found.matches == {canonical: Match(name, flip) for canonical, (name, flip) in names.items()}
        assert not found.unknown and not found.notes
        assert found.family == family
        expected = dialect if given_dialect else SEEN_AS.get((dialect, family), dialect)
        if not given_dialect and dialect == "mindspore" and family != "bert" and there.keys() == shapes.keys():
            expected = "canonical"
        assert found.dialect == expected
        assert not found.dropped


@pytest.mark.only_backend("torch")
@pytest.mark.parametrize(("family", "model"), CASES)
def test_tied_copies_and_buffers_are_dropped_and_never_needed(family, model):
    shapes = state_dict_shapes(model, family, 2)
    copies = tied_of(family).keys() & shapes.keys()
    buffers = {f"{family}.embeddings.position_ids": (1, 16)}
    found = recognise(shapes | buffers, {"model_type": family})
    assert found.matches.keys() == shapes.keys() - copies
    assert found.dropped.keys() == copies | buffers.keys()
    untied = recognise(shapes, {"model_type": family, "tie_word_embeddings": False})
    assert untied.matches == {name: Match(name) for name in shapes} and not untied.dropped
    assert foreign_names(shapes, family, "canonical") == {name: (name, False) for name in shapes}
    for name in copies:
        with pytest.raises(CheckpointError, match=f"^{name}: networks of tensorflow {family} tie it to {tied_of(family)[name]}"):
            foreign_names([name], family, "tensorflow")
        alone = {other: shape for other, shape in shapes.items() if other != tied_of(family)[name]}
        assert recognise(alone, {"model_type": family}).matches[tied_of(family)[name]] == Match(name)


@pytest.mark.parametrize("family", encoder_families())
def test_the_rules_know_all_tensors_of_our_own_models_and_nothing_else(family):
    config = config_from({"model_type": family, **sizes(family, 3), **OPTIONAL.get(family, {})})
    ours = {**tensor_shapes(config, 2), **tensor_shapes(config, None), **unused_shapes(config)}
    for head in head_shapes(config).values():
        ours |= head
    reached = set()
    for name in ours:
        assert DIALECTS["canonical"].table(family).canonical(name) == (name, False)
        for dialect in DIALECTS:
            foreign_names([name], family, dialect)
    for layer in range(3):
        reached |= {template.format(layer, layer) for template in templates_of(family)}
    if family != "albert":  # layers of one group: numbers are not those of the layers
        beside = {f"{name}.{part}" for name in BESIDE for part in ("weight", "bias")}
        later = [name for part in config.family.parts if part.from_layer for name in part.tensors()]
        first = {config.layer_prefixes(0)[0] + name for name in later}
        assert reached - beside - first == set(ours) - beside
    assert set(decoders(config).values()) <= set(tied_of(family))


@pytest.mark.parametrize("dialect", DIALECTS)
@pytest.mark.parametrize("family", encoder_families())
@settings(max_examples=30, deadline=None)
@given(data=st.data())
def test_any_layer_number_comes_back_and_no_two_names_collide(family, dialect, data):
    numbers = data.draw(st.lists(st.integers(0, 99999), min_size=1, max_size=3, unique=True))
    canonical = {template.format(a, b) for template in templates_of(family) for a in numbers for b in numbers}
    names = foreign_names(canonical, family, dialect)
    assert len({name for name, _ in names.values()}) == len(canonical)
    table = DIALECTS[dialect].table(family)
    for name, (foreign, transpose) in names.items():
        assert table.canonical(foreign) == (name, transpose)
        assert table.foreign(name) == (foreign, transpose)


@pytest.mark.parametrize("family", encoder_families())
def test_transposition_follows_the_name(family):
    for dialect in DIALECTS:
        for name, (foreign, transpose) in foreign_names((t.format(0, 0) for t in templates_of(family)), family, dialect).items():
            dense = name.endswith(".weight") and not is_norm(name) and not is_table(name)
            if name.endswith((".c_attn.weight", ".c_proj.weight", ".c_fc.weight")):
                assert not transpose  # (in, out) in GPT-2's own files too
            elif dialect == "tensorflow":
                assert transpose == foreign.endswith("/kernel")
                assert transpose == (dense and not foreign.endswith("output_weights"))
            elif dialect == "oneflow-legacy":
                assert transpose == (dense and not foreign.endswith("output_weights") and name != "fit_dense.weight")
            else:
                assert not transpose


def test_a_table_by_hand():
    table = Table([Rule("a.{}.b.{}.w", "x{}/y_{}", True), Rule("c", "d")], [Rule("c", "e")])
    assert table.foreign("a.3.b.12.w") == ("x3/y_12", True)
    assert table.canonical("x3/y_12") == ("a.3.b.12.w", True)
    assert table.canonical("d") == table.canonical("e") == ("c", False)
    assert table.foreign("c") == ("d", False)
    for name in ("x3/y_", "x03/y_1", "x3/y_1 ", "x3/y_1\n", "x123456/y_1", "x{}/y_{}", "x-1/y_1", "x٣/y_1", "xx3/y_1", ""):
        assert table.canonical(name) is None
    assert table.nearest("x7/yy_9") == "x7/y_9" and table.nearest("quite different") == ""
    long = Table([Rule("c", "d" * 300)])
    assert long.nearest("d" * 190) == "d" * 300 and long.nearest("d" * 299) == ""


def test_a_name_without_a_rule_is_refused_with_the_nearest():
    with pytest.raises(CheckpointError, match=r"^bert\.pooler\.dens\.weight: .*did you mean 'bert\.pooler\.dense\.weight'\?$"):
        foreign_names(["bert.pooler.dense.bias", "bert.pooler.dens.weight"], "bert", "mindspore")
    with pytest.raises(CheckpointError, match="and 2 more"):
        foreign_names(list("abcde"), "bert", "canonical")
