"""What a search may change: reading a space, refusing what is wrong in it, and what a point sets."""

from __future__ import annotations

import pytest

from crossdistil.core.app.search_check import check_space
from crossdistil.core.app.search_space import space_of
from crossdistil.core.errors import CrossdistilError
from crossdistil.core.recipe import parse_recipe
from crossdistil.tests import tiny
from crossdistil.tests.searches import BATCH, RATE, SPACE, recipe

WEIGHTS = [f"stages.0.objective.{index}.weight" for index in range(2)]


@pytest.mark.parametrize(
    ("tree", "expected"),
    [
        ({}, "expected a mapping of path.to.key to one of"),
        ([1], "expected a mapping of path.to.key to one of"),
        ({RATE: [1, 2]}, rf"{RATE}: got .*, expected one of"),
        ({RATE: {"logg": [1, 2]}}, f"{RATE}: unknown key 'logg'; did you mean 'log'"),
        ({RATE: {"log": [1, 2], "float": [1, 2]}}, f"{RATE}: got float and log, expected one of"),
        ({RATE: {"step": 2}}, f"{RATE}: got none of them, expected one of"),
        ({RATE: {"log": [0, 1]}}, f"{RATE}: log: got 0, expected a lowest value above 0"),
        ({RATE: {"float": [1, 1]}}, f"{RATE}: float: the range from 1 to 1 is empty"),
        ({RATE: {"float": [2, 1]}}, f"{RATE}: float: the range from 2 to 1 is empty"),
        ({RATE: {"float": [1]}}, rf"{RATE}: float: got .*, expected \[low, high\], two numbers"),
        ({RATE: {"float": [0, float("nan")]}}, rf"{RATE}: float: got .*, expected \[low, high\], two numbers"),
        ({RATE: {"float": [True, 2]}}, rf"{RATE}: float: got .*, expected \[low, high\], two numbers"),
        ({BATCH: {"int": [1, 2.5]}}, rf"{BATCH}: int: got .*, expected \[low, high\], two whole numbers"),
        ({BATCH: {"int": [1, 8], "step": 0}}, f"{BATCH}: step: got 0, expected a whole number from 1 on"),
        ({RATE: {"float": [1, 8], "step": 2}}, f"{RATE}: step: got 2, expected a whole number from 1 on, beside int"),
        ({BATCH: {"choice": []}}, f"{BATCH}: choice: is empty, expected at least one value"),
        ({BATCH: {"choice": 4}}, f"{BATCH}: choice: got 4, expected a list of values"),
        ({BATCH: {"choice": [4, 4]}}, f"{BATCH}: choice: a value is there twice"),
        ({"start": {"choice": {"a": 3}}}, "start: choice: 'a': got 3, expected a mapping of path.to.key to value"),
        ({RATE: {"float": [0, 2], "complement": WEIGHTS[1]}}, f"{RATE}: complement: .* a range of numbers from 0 to 1"),
        ({RATE: {"log": [1, 2]}, "a": {"choice": {"x": {RATE: 1}}}}, f"a: sets {RATE}, as {RATE} does"),
        ({"student": {"choice": [{}]}, "student.init": {"choice": [{}]}}, "student.init: sets student.init, as student does"),
    ],
)
def test_a_wrong_space_is_refused(tree, expected):
    with pytest.raises(CrossdistilError, match=f"FILE: {expected}"):
        space_of(tree, "FILE")


def test_all_that_is_wrong_is_told_at_once():
    with pytest.raises(CrossdistilError) as error:
        space_of({RATE: {"log": [0, 1]}, BATCH: {"choice": []}}, "FILE")
    assert len(str(error.value).splitlines()) == 2


@pytest.mark.parametrize(
    ("tree", "expected"),
    [
        ({"stages.0.train.learing_rate": {"log": [1e-5, 1e-4]}}, "unknown key; did you mean 'learning_rate'"),
        ({"learning_rate": {"log": [1e-5, 1e-4]}}, f"unknown key; did you mean '{RATE}'"),
        ({"stages.4.train.epochs": {"choice": [1]}}, "stages has no item '4', only 0"),
        ({BATCH: {"int": [0, 8]}}, f"{BATCH}: 0: .*greater than or equal to 1, got 0"),
        ({"stages.0.train.dropout": {"float": [0.5, 1.5]}}, "1.5: .*less than 1, got 1.5"),
        ({"stages.0.train.optimizer": {"choice": ["adamw", "sgdd"]}}, "sgdd: .*unknown value 'sgdd'"),
        ({"stages.0.objective.0.temprature": {"float": [1, 2]}}, "unknown key; did you mean 'temperature'"),
    ],
)
def test_what_the_recipe_refuses_is_one_line(tmp_path, tree, expected):
    with pytest.raises(CrossdistilError, match=expected) as error:
        check_space(space_of(tree, "FILE"), recipe(tmp_path))
    assert len(str(error.value).splitlines()) == 1


def told(tree, own, takes=None) -> list[str]:
    with pytest.raises(CrossdistilError) as error:
        check_space(space_of(tree, "FILE"), own, takes)
    return str(error.value).splitlines()


@pytest.mark.parametrize("reverse", [False, True])
def test_each_fault_is_told_once_of_the_key_that_it_comes_from(tmp_path, reverse):
    tree = {
        "stages.0.train.learning_rat": {"log": [1e-5, 1e-3]},
        BATCH: {"choice": [4, 8]},  # right
        "stages.0.objective.0.temperature": {"float": [-1, 10]},
        "student.init": {"choice": {"deep": {"layers": [0, 9]}, "flat": {"student.init": {"from": "teacher"}}}},
        "stages.*.train.optimizer": {"choice": ["adamw", "sgdd", "adan"]},
        "stages.7.train.dropout": {"float": [0, 0.5]},
    }
    expected = [
        "FILE: stages.0.train.learning_rat: unknown key; did you mean 'learning_rate'?",
        "FILE: stages.0.objective.0.temperature: -1: should be greater than 0, got -1.0",
        "FILE: student.init: deep: layers: unknown key; did you mean 'student.init.layers'?",
        "FILE: stages.*.train.optimizer: sgdd: unknown value 'sgdd'",
        "FILE: stages.*.train.optimizer: adan: unknown value 'adan'",
        "FILE: stages.7.train.dropout: stages has no item '7', only 0 (counted from 0)",
    ]
    if reverse:
        tree = dict(reversed(tree.items()))
        expected = [*expected[5:], *expected[3:5], *expected[2::-1]]
    lines = told(tree, recipe(tmp_path))
    assert len(lines) == len(expected) and all(map(str.startswith, lines, expected)), lines


def test_models_that_do_not_take_a_value_are_told_beside_a_key_that_is_unknown(tmp_path):
    def takes(changed):
        if changed.student.architecture["num_hidden_layers"] > 2:
            raise CrossdistilError("too deep")

    tree = {"student.architecture.num_hidden_layers": {"int": [1, 5]}, "stages.0.train.learning_rat": {"log": [1e-5, 1e-3]}}
    assert [line.partition("; ")[0] for line in told(tree, recipe(tmp_path), takes)] == [
        "FILE: student.architecture.num_hidden_layers: 5: too deep",
        "FILE: stages.0.train.learning_rat: unknown key",
    ]


def test_keys_in_stages_that_a_variant_brings(tmp_path):
    own = recipe(tmp_path)
    stage = own.resolved()["stages"][0]
    second = {"stages.1.train.learning_rate": {"log": [1e-5, 1e-2]}}
    two = {"stages": [{**stage, "name": "first"}, {**stage, "name": "second"}]}
    check_space(space_of({**second, "recipe": {"choice": {"two": two}}}, "F"), own)
    # What the variant has wrong is no fault of the other, and what the other has wrong none of the variant.
    wrong = {"stages": [{**stage, "name": "first"}, {**stage, "name": "second", "objectve": 1}]}
    (line,) = told({**second, "recipe": {"choice": {"two": wrong}}}, own)
    assert line.startswith("FILE: recipe: stages[1].objectve: unknown key")
    (line,) = told({"stages.1.train.learning_rat": second.popitem()[1], "recipe": {"choice": {"two": two}}}, own)
    assert line.startswith("FILE: stages.1.train.learning_rat: unknown key")


def test_what_a_point_sets(tmp_path):
    own = recipe(tmp_path)
    starts = {"teacher": {"student.init": {"from": "teacher", "layers": [0]}}, "random": {"student.init": {"from": "random"}}}
    weight = {"float": [0.1, 0.9], "complement": WEIGHTS[1]}
    tree = {"start": {"choice": starts}, WEIGHTS[0]: weight, BATCH: {"int": [2, 9], "step": 3}, RATE: SPACE[RATE]}
    space = space_of(tree, "F")
    check_space(space, own)
    found = space.recipe(own, {"start": "random", WEIGHTS[0]: 0.3, BATCH: 5, RATE: 1e-4})
    assert found.student.init.source == "random" and found.student.init.layers is None
    assert [term.weight for term in found.stages[0].objective] == [0.3, 0.7]
    assert (found.stages[0].train.batch_size, found.stages[0].train.learning_rate) == (5, 1e-4)
    assert [dimension.high for dimension in space.dimensions if dimension.name == BATCH] == [8]  # 2, 5, 8


def test_every_stage_of_a_recipe_that_a_variant_brings(tmp_path):
    own = recipe(tmp_path)
    stage = own.resolved()["stages"][0]
    two = {"choice": {"two": {"stages": [{**stage, "name": "first"}, {**stage, "name": "second"}]}, "one": {"stages": [stage]}}}
    space = space_of({"recipe": two, "stages.*.train.learning_rate": {"log": [1e-5, 1e-2]}}, "F")
    check_space(space, own)
    points = {name: {"recipe": name, "stages.*.train.learning_rate": 2e-3} for name in ("one", "two")}
    rates = {
        name: [each.train.learning_rate for each in space.recipe(own, point).stages] for name, point in points.items()
    }
    assert rates == {"one": [2e-3], "two": [2e-3, 2e-3]}
    assert space.point_of(own) == {"recipe": "one", "stages.*.train.learning_rate": 1e-3}


@pytest.mark.parametrize(
    ("tree", "expected"),
    [
        (SPACE, {RATE: 1e-3, BATCH: "8"}),
        ({RATE: {"log": [1e-5, 1e-4]}}, None),  # the recipe's own value is not in it
        ({BATCH: {"int": [2, 9], "step": 3}}, {BATCH: 8}),
        ({BATCH: {"int": [3, 9], "step": 2}}, None),
        ({BATCH: {"choice": [4, 16]}}, None),
        ({WEIGHTS[0]: {"float": [0, 1], "complement": WEIGHTS[1]}}, {WEIGHTS[0]: 0.5}),
    ],
)
def test_the_point_that_is_the_recipe_as_it_is(tmp_path, tree, expected):
    assert space_of(tree, "F").point_of(recipe(tmp_path)) == expected


def test_a_recipe_with_a_space_runs_as_one_without(tmp_path):
    tree = tiny.kd_recipe(tmp_path, tmp_path)
    grids = {"paper": {"source": "x", "space": {BATCH: {"choice": [4]}}}}
    assert parse_recipe({**tree, "search": SPACE, "grids": grids}, "x").digest() == parse_recipe(tree, "x").digest()


def test_a_space_of_plain_data_is_the_same_again():
    starts = {"start": {"choice": {"a": {"student.init.from": "teacher"}, "b": {"student.init": {"from": "random"}}}}}
    own = {"n": {"int": [2, 9], "step": 3}, "w": {"float": [0, 1], "complement": "v"}, **SPACE, **starts}
    space = space_of(own, "F")
    assert space_of(space.as_data(), "F") == space
