"""What a loss term can be told: layer maps counted by hand, TextBrewer's presets, and a clear message for each option that
cannot work."""

from __future__ import annotations

import re

import numpy as np
import pytest
from pydantic import BaseModel, ValidationError

from crossdistil.core.kinds.known_kinds import MASKED_TEXT, ONE_CLASS, ONE_NUMBER, SEVERAL_LABELS
from crossdistil.core.losses.base import UNITS, TermContext
from crossdistil.core.losses.catalogue import LOSSES, TERMS, Term
from crossdistil.core.losses.layers import pairs_text, resolve_layers
from crossdistil.core.losses.presets import PRESETS, expand
from crossdistil.core.models.families.bert import BertConfig
from crossdistil.core.recipe_errors import describe

BASE = BertConfig()
SIX = BertConfig(num_hidden_layers=6)
NARROW = BertConfig(num_hidden_layers=4, hidden_size=312, num_attention_heads=12, intermediate_size=1200)
SIXTEEN_HEADS = BertConfig(num_hidden_layers=24, hidden_size=1024, num_attention_heads=16, intermediate_size=4096)


def job(student=SIX, teachers=None, outputs=2, kind=ONE_CLASS):
    return TermContext(outputs, kind, student, teachers or {"teacher": BASE})


def term(**options):
    return LOSSES[options["loss"]](**options)


RULES = {
    ("uniform", 12, 6): [(2, 1), (4, 2), (6, 3), (8, 4), (10, 5), (12, 6)],
    ("uniform", 12, 4): [(3, 1), (6, 2), (9, 3), (12, 4)],
    ("uniform", 6, 3): [(2, 1), (4, 2), (6, 3)],
    ("uniform", 4, 4): [(1, 1), (2, 2), (3, 3), (4, 4)],
    ("skip", 12, 6): [(2, 1), (4, 2), (6, 3), (8, 4), (10, 5)],
    ("skip", 12, 3): [(4, 1), (8, 2)],
    ("last", 12, 6): [(7, 1), (8, 2), (9, 3), (10, 4), (11, 5)],
    ("last", 12, 3): [(10, 1), (11, 2)],
    ("top", 12, 4): [(9, 1), (10, 2), (11, 3), (12, 4)],
    ("bottom", 12, 4): [(1, 1), (2, 2), (3, 3), (4, 4)],
    ("final", 12, 5): [(12, 5)],
}


@pytest.mark.parametrize(("rule", "pairs"), RULES.items(), ids=lambda value: str(value)[:24])
def test_layer_rules(rule, pairs):
    assert list(resolve_layers(*rule)) == pairs


IMPOSSIBLE = {
    ("uniform", 12, 5): "multiple of the student's, got 12 and 5",
    ("skip", 12, 8): "multiple of the student's, got 12 and 8",
    ("skip", 12, 1): "matches no layer",
    ("last", 12, 1): "matches no layer",
    ("bottom", 2, 4): "teacher layer 3 does not exist",
    ("top", 2, 4): "teacher layer -1 does not exist",
    (((13, 1),), 12, 6): "teacher layer 13 does not exist; the teacher has layers 1 to 12",
    ((((1, 12), (1, 7)),), 12, 6): "student layer 7 does not exist",
    ((), 12, 6): "at least one",
}


@pytest.mark.parametrize(("rule", "message"), IMPOSSIBLE.items(), ids=lambda value: str(value)[:24])
def test_layers_that_do_not_exist(rule, message):
    with pytest.raises(ValueError, match=message):
        resolve_layers(*rule)


def test_the_layer_map_for_people():
    assert term(loss="pkd").describe(job(BertConfig(num_hidden_layers=3))) == "4→1, 8→2"
    assert term(loss="hidden_mse", embeddings=True).describe(job(NARROW)) == "0→0, 3→1, 6→2, 9→3, 12→4"
    assert pairs_text((((0, 3), (0, 1)),)) == "(0,3)→(0,1)"


# Options, the job, the key and a part of the message of what is wrong.
PROBLEMS = [
    ({"loss": "hard_label"}, job(outputs=None, kind=MASKED_TEXT), "loss", "needs labels, but the task is raw text"),
    ({"loss": "kd_ce"}, job(outputs=None, kind=MASKED_TEXT), "loss", "needs logits, but the task is raw text"),
    ({"loss": "kd_multi_label"}, job(outputs=None, kind=MASKED_TEXT), "loss", "raw text"),
    ({"loss": "kd_ce"}, job(outputs=1, kind=ONE_NUMBER), "loss", "use kd_mse"),
    ({"loss": "kd_ce"}, job(kind=SEVERAL_LABELS), "loss", "use kd_multi_label"),
    ({"loss": "kd_multi_label"}, job(), "loss", "use kd_ce"),
    ({"loss": "kd_multi_label"}, job(outputs=1, kind=ONE_NUMBER), "loss", "use kd_mse"),
    ({"loss": "kd_ce", "teacher": "other"}, job(), "teacher", "'other' is not one of the teachers: teacher"),
    ({"loss": "hidden_mse", "teacher": "other"}, job(), "teacher", "'other' is not one of the teachers: teacher"),
    ({"loss": "kd_mse", "probability_shift": True}, job(outputs=1, kind=ONE_NUMBER), "probability_shift", "a regression"),
    ({"loss": "kd_mse", "probability_shift": True}, job(kind=SEVERAL_LABELS), "probability_shift", "several labels"),
    (
        {"loss": "kd_mse", "temperature_schedule": {"kind": "cwsm", "beta": 1}},
        job(outputs=1, kind=ONE_NUMBER),
        "temperature_schedule",
        "a regression",
    ),
    (
        {"loss": "kd_ce", "temperature_schedule": {"kind": "flsw", "beta": 2, "gamma": 2}, "temperature": 8},
        job(),
        "temperature_schedule",
        "could make an example's temperature 0, which must be above 0",
    ),
    (
        {"loss": "kd_ce", "temperature_schedule": {"kind": "cwsm", "beta": 4}, "temperature": 4},
        job(outputs=3),
        "temperature_schedule",
        "could make an example's temperature -3.97",
    ),
    ({"loss": "hidden_mse"}, job(NARROW), "projection", r"missing; the hidden sizes differ \(student 312, teacher 768\)"),
    ({"loss": "fsp"}, job(NARROW), "projection", "missing"),
    ({"loss": "hidden_mse", "layers": [[13, 1]]}, job(), "layers", "teacher layer 13 does not exist"),
    ({"loss": "hidden_mse", "layers": [[[1, 2], [1, 2]]]}, job(), "layers", "two layers a side are for fsp and mmd"),
    ({"loss": "attention_mse", "layers": [[[1, 2], 1]]}, job(), "layers", "two layers a side are for fsp and mmd"),
    ({"loss": "attention_mse", "layers": [[0, 0]]}, job(), "layers", "layer 0 is the embedding output"),
    ({"loss": "self_relation_kl", "relation": "key", "layers": [[0, 0]]}, job(), "layers", "layer 0 is the embedding output"),
    ({"loss": "attention_ce"}, job(SIX, {"teacher": SIXTEEN_HEADS}), "loss", r"heads differ \(student 12, teacher 16\)"),
    ({"loss": "value_relation_kl"}, job(SIX, {"teacher": SIXTEEN_HEADS}), "loss", "heads differ"),
    (
        {"loss": "self_relation_kl", "relation": "query", "relation_heads": 48},
        job(NARROW),
        "relation_heads",
        "the hidden size of the student, 312, is not a multiple of 48",
    ),
    ({"loss": "attention_kl"}, job(object()), "loss", "matches layers of BERT models, but the student is none"),
]


@pytest.mark.parametrize(("options", "where", "key", "message"), PROBLEMS, ids=lambda value: str(value)[:40])
def test_what_cannot_work_is_told(options, where, key, message):
    [(found_key, found)] = term(**options).problems(where)
    assert found_key == key
    assert re.search(message, found), found


def test_what_works_has_no_problems():
    for options, where in (
        ({"loss": "attention_mse_sum"}, job(SIX, {"teacher": SIXTEEN_HEADS})),
        ({"loss": "attention_ce_mean"}, job(SIX, {"teacher": SIXTEEN_HEADS})),
        ({"loss": "self_relation_kl", "relation": "value", "relation_heads": 16}, job(SIX, {"teacher": SIXTEEN_HEADS})),
        ({"loss": "mmd"}, job(NARROW)),
        ({"loss": "embedding_mse", "projection": {}}, job(NARROW)),
        ({"loss": "hard_label"}, job(kind=SEVERAL_LABELS)),
        ({"loss": "kd_mse"}, job(outputs=1, kind=ONE_NUMBER)),
        ({"loss": "kd_ce", "temperature_schedule": {"kind": "flsw", "beta": 1, "gamma": 2}, "temperature": 8}, job()),
    ):
        assert term(**options).problems(where) == []


class Holder(BaseModel):
    objective: list[Term]


WRONG = [
    ({"loss": "kd_ce", "temperature": 0}, "objective[0].temperature"),
    ({"loss": "kd_ce", "temperature_schedule": "flsv"}, "temperature_schedule.kind: unknown value 'flsv'; did you mean 'flsw'?"),
    ({"loss": "kd_ce", "temperature_schedule": {"kind": "flsw", "beta": 1}}, "flsw needs gamma"),
    ({"loss": "kd_ce", "temperature_schedule": {"kind": "cwsm", "beta": 1, "gamma": 1}}, "cwsm takes no gamma"),
    ({"loss": "kd_ce", "temperature_schedule": {"kind": "cwsm", "beta": -1}}, "temperature_schedule.beta"),
    ({"loss": "pkd", "reduction": "mean", "layer_reduction": "mean"}, "layer_reduction is for reduction: sum"),
    ({"loss": "pkd", "normalise": True}, "unknown key; did you mean 'normalize'?"),
    ({"loss": "embedding_mse", "layers": "skip"}, "objective[0].layers: unknown key"),
    ({"loss": "hidden_mse", "embeddings": True, "layers": [[1, 1]]}, "embeddings is for a rule; in a list, add [0, 0]"),
    ({"loss": "mmd", "divide_by": "size"}, "objective[0].divide_by: unknown value 'size'"),
    ({"loss": "self_relation_kl"}, "objective[0].relation: missing"),
    ({"loss": "self_relation_kl", "relation": "keys"}, "unknown value 'keys'; did you mean 'key'?"),
    ({"loss": "self_relation_kl", "relation": "key", "relation_heads": 0}, "objective[0].relation_heads"),
    ({"loss": "attention_sum"}, "unknown loss 'attention_sum'"),
]


@pytest.mark.parametrize(("options", "message"), WRONG, ids=lambda value: str(value)[:40])
def test_wrong_options_are_told(options, message):
    with pytest.raises(ValidationError) as error:
        Holder(objective=[options])
    lines = describe(error.value, Holder)
    assert any(message in line for line in lines), lines


def test_every_term_has_a_docstring_a_formula_and_a_known_unit():
    for kind in TERMS:
        assert kind.__doc__ and kind.formula and "\n" not in kind.formula, kind
    for mask_padding in (True, False):
        for loss in ("hidden_mse", "attention_score_mse"):
            assert term(loss=loss, mask_padding=mask_padding).unit in UNITS


def test_units_leave_out_fill_rows_and_count_padding_only_where_it_is_meant():
    batch = {
        "attention_mask": np.array([[1, 1, 1, 1], [1, 1, 0, 0], [1, 0, 0, 0]], np.float32),
        "example_mask": np.array([1, 1, 0], np.float32),
        "label_mask": np.array([0, 1, 1], np.float32),
        "masked_weights": np.array([1, 1, 1, 0, 0, 0, 0, 0], np.float32),
    }
    counted = {name: count(batch) for name, count in UNITS.items()}
    assert counted == {
        "examples": 2, "labelled": 1, "tokens": 6, "token_pairs": 20, "masked": 3, "next_tokens": 3,
        "positions": 8, "position_pairs": 32
    }  # fmt: skip


def test_the_outputs_that_terms_ask_for():
    two = job(NARROW, {"first": BASE, "second": BASE})
    assert term(loss="kd_ce").teacher_outputs(two) == {"first": {"logits"}, "second": {"logits"}}
    assert term(loss="kd_ce", teacher="second").teacher_outputs(two) == {"second": {"logits"}}
    relation = term(loss="self_relation_kl", relation="key", layers=[[12, 4]], teacher="second")
    assert relation.student_outputs(two) == {"keys/4"}
    assert relation.teacher_outputs(two) == {"second": {"keys/12"}}
    assert term(loss="mmd", layers=[[[1, 2], [0, 3]]]).student_outputs(two) == {"hidden/0", "hidden/3"}
    assert term(loss="attention_ce").student_outputs(two) == {f"scores/{layer}" for layer in (1, 2, 3, 4)}


TO_THREE, TO_FOUR = [(0, 0), (4, 1), (8, 2), (12, 3)], [(0, 0), (3, 1), (6, 2), (9, 3), (12, 4)]
TO_SIX = [(0, 0), (2, 1), (4, 2), (6, 3), (8, 4), (10, 5), (12, 6)]
TO_SMALL = [(0, 0), (2, 2), (4, 4), (6, 6), (8, 8), (10, 10), (12, 12)]
# Preset -> the term, the student's layers and width, its (teacher, student) pairs, whether each has a projection.
TEXTBREWER = {
    "L3_hidden_mse": ("hidden_mse", 3, 768, TO_THREE, False),
    "L3n_hidden_mse": ("hidden_mse", 3, 384, TO_THREE, True),
    "L3l_hidden_mse": ("hidden_mse", 3, 1024, TO_THREE, True),
    "L3_hidden_smmd": ("mmd", 3, 384, TO_THREE, False),
    "L3_attention_mse": ("attention_mse", 3, 768, TO_THREE[1:], False),
    "L3_attention_ce": ("attention_ce", 3, 768, TO_THREE[1:], False),
    "L3_attention_mse_sum": ("attention_mse_sum", 3, 768, TO_THREE[1:], False),
    "L3_attention_ce_mean": ("attention_ce_mean", 3, 768, TO_THREE[1:], False),
    "L4t_hidden_mse": ("hidden_mse", 4, 312, TO_FOUR, True),
    "L4t_hidden_sgram": ("fsp", 4, 312, TO_FOUR, True),
    "L4_hidden_smmd": ("mmd", 4, 312, TO_FOUR, False),
    "L4_attention_mse": ("attention_mse", 4, 312, TO_FOUR[1:], False),
    "L4_attention_ce": ("attention_ce", 4, 312, TO_FOUR[1:], False),
    "L4_attention_mse_sum": ("attention_mse_sum", 4, 312, TO_FOUR[1:], False),
    "L4_attention_ce_mean": ("attention_ce_mean", 4, 312, TO_FOUR[1:], False),
    "L6_hidden_mse": ("hidden_mse", 6, 768, TO_SIX, False),
    "L6_hidden_smmd": ("mmd", 6, 768, TO_SIX, False),
    "small_hidden_mse": ("hidden_mse", 12, 256, TO_SMALL, True),
    "small_hidden_smmd": ("mmd", 12, 256, TO_SMALL, False),
}


@pytest.mark.parametrize("name", TEXTBREWER)
def test_presets_are_textbrewer_s_matches(name):
    loss, layers, width, pairs, projected = TEXTBREWER[name]
    heads = 12 if width % 12 == 0 else 4
    where = job(BertConfig(num_hidden_layers=layers, hidden_size=width, num_attention_heads=heads))
    [made] = [term(**options) for options in expand(name)]
    assert made.problems(where) == []
    assert (made.loss, made.weight, made.layer_reduction) == (loss, 1, "sum")
    assert list(made.pairs(where)) == pairs
    shapes = [tensor.shape for tensor in made.projections(where, "distil.x").values()]
    assert shapes == ([(768, width), (768,)] * len(pairs) if projected else [])


def test_a_name_that_is_no_preset_is_a_loss():
    assert set(PRESETS) == set(TEXTBREWER)
    assert expand("pkd") == [{"loss": "pkd"}]
