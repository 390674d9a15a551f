"""The catalogue: every recipe and every preset of it parses, its keys are commented, and what it names exists."""

from __future__ import annotations

import re

import pytest

from crossdistil.core.app.search_check import check_space
from crossdistil.core.app.search_command import space_asked_for
from crossdistil.core.catalogue_folder import RECIPES_FOLDER
from crossdistil.core.errors import RecipeError
from crossdistil.core.losses.catalogue import LOSSES
from crossdistil.core.losses.presets import PRESETS
from crossdistil.core.recipe import load_recipe, parse_recipe, recipe_tree

PATHS = sorted(RECIPES_FOLDER.glob("*.yaml"))
NAMES = [path.stem for path in PATHS]
PAIRS = [(name, preset) for name in NAMES for preset in recipe_tree(name).get("presets") or {}]
# Sections, and keys that say by themselves what they hold.
GRIDS = [(name, grid) for name in NAMES for grid in recipe_tree(name).get("grids") or {}]
NEED_NO_COMMENT = {"method", "description", "notes", "presets", "grids", "task", "teacher", "student", "architecture", "init",
                   "words", "stages", "train"}  # fmt: skip


@pytest.mark.parametrize("name", NAMES)
def test_a_recipe_is_described_and_has_its_source(name):
    recipe = load_recipe(name)
    assert recipe.method == name
    assert recipe.description.endswith(".") and "\n" not in recipe.description
    assert re.search(r"\b(19|20)\d\d\b", recipe.notes.paper), "the paper, with its year"
    assert recipe.notes.published


@pytest.mark.parametrize(("name", "preset"), PAIRS)
def test_a_preset_parses_and_changes_something(name, preset):
    changed = load_recipe(name, preset=preset)
    assert changed.digest() != load_recipe(name).digest()


def test_several_presets_are_applied_in_their_order():
    found = load_recipe("llm", preset=["words", "votes", "labels"])
    assert found.task.kind == "tokens" and found.teacher.file.repeated == "votes" and found.teacher.file.as_labels == "always"
    assert [term.loss for term in found.stages[0].objective] == ["hard_label"]
    other = load_recipe("llm", preset=["labels", "both"])
    assert [term.loss for term in other.stages[0].objective] == ["kd_ce", "hard_label"]
    assert load_recipe("llm", preset=["words"]).digest() == load_recipe("llm", preset="words").digest()
    with pytest.raises(RecipeError, match=r"preset 'vote': not one of its presets; did you mean 'votes'\?"):
        load_recipe("llm", preset=["words", "vote"])


@pytest.mark.parametrize(("name", "preset"), [*PAIRS, *((name, None) for name in NAMES)])
def test_a_resolved_recipe_is_read_again(name, preset):
    recipe = load_recipe(name, preset=preset)
    assert parse_recipe(recipe.resolved(), "again").digest() == recipe.digest()


@pytest.mark.parametrize(("name", "grid"), GRIDS)
def test_a_published_grid_names_its_source_and_fits_its_recipe(name, grid):
    space = space_asked_for(name, None, grid)
    assert re.search(r"\b(19|20)\d\d\b", space.origin) and space.is_grid
    check_space(space, load_recipe(name))


@pytest.mark.parametrize("name", NAMES)
def test_the_terms_exist(name):
    for stage in recipe_tree(name)["stages"]:
        for term in stage["objective"]:
            assert term in PRESETS or term in LOSSES if isinstance(term, str) else term["loss"] in LOSSES


@pytest.mark.parametrize("loss", LOSSES)
def test_every_loss_has_a_formula_with_its_source(loss):
    formula = LOSSES[loss].formula
    assert re.search(r"\S {3}\(.*[A-Z].*\)$", formula), f"expected `formula   (source)`, got {formula!r}"
    assert "\n" not in formula


@pytest.mark.parametrize("path", PATHS, ids=NAMES)
def test_every_key_is_commented_where_it_first_stands(path):
    """On its line or on the one above. Of the presets and grids, each name; of the terms, `objective`."""
    lines, section, known, bare = path.read_text(encoding="utf-8").splitlines(), "", set(NEED_NO_COMMENT), []
    assert lines[0].startswith("# ") and any(line.startswith("#   crossdistil run ") for line in lines)
    for above, line in zip(["", *lines], lines):
        found = re.match(r"( *)(?:- )?(\w+):", line)
        if not found:
            continue
        indent, key = len(found.group(1)), found.group(2)
        section = key if indent == 0 else section
        commented = " # " in line or above.lstrip().startswith("#")
        if section in ("presets", "grids") and indent == 2 and not commented:
            bare.append(f"{section}.{key}")
        elif section not in ("notes", "presets", "grids") and key not in known and not (section == "stages" and key == "name"):
            known.add(key)
            bare += [] if commented else [key]
    assert not bare, f"keys without a comment: {', '.join(bare)}"


@pytest.mark.parametrize(
    ("overrides", "expected"),
    [
        (["stages.0.train.steps=5"], (None, 5)),
        (["stages.0.train.epochs=0.5"], (0.5, None)),
        (["stages.0.train.epochs=null", "stages.0.train.steps=7"], (None, 7)),
        (["stages.0.train.steps=7", "stages.0.train.epochs=null"], (None, 7)),
    ],
)
def test_steps_take_the_place_of_the_epochs_in_the_file(overrides, expected):
    train = load_recipe("kd", overrides).stages[0].train
    assert (train.epochs, train.steps) == expected


def test_several_teachers_take_the_place_of_the_one_in_the_file():
    recipe = load_recipe("kd", ["teachers.a.model=one", "teachers.b.model=two"])
    assert recipe.teacher is None and set(recipe.all_teachers) == {"a", "b"}
    tree = recipe.resolved()
    assert set(parse_recipe(tree, "test", ["teacher.model=three"]).all_teachers) == {"teacher"}
    # The name of a teacher in a term is no teacher.
    assert set(parse_recipe(recipe.resolved(), "test", ["stages.0.objective.0.teacher=b"]).all_teachers) == {"a", "b"}
    with pytest.raises(RecipeError, match="give either teacher or teachers, not both"):
        load_recipe("kd", ["teacher.model=one", "teachers.b.model=two"])


@pytest.mark.parametrize(
    ("setting", "told"),
    [
        ("stages.0.train={epochs: 1, batch_size: 16}", ["learning_rate is 5e-05 and not 0.0001"]),
        ("stages.0.train={steps: 5}", ["batch_size is 32 and not 64", "learning_rate is 5e-05 and not 0.0001"]),
        ("stages.0.train.epochs=1", []),
        ("task={name: mine, data: data, text: text, label: label}", []),  # what is left out is the default
        ("student.init={from: random}", []),
        ("student.architecture={num_hidden_layers: 4}", []),
    ],
)
def test_what_a_setting_of_a_mapping_leaves_out_is_told(setting, told):
    found = load_recipe("kd", [setting]).left_out
    key = setting.partition("=")[0]
    expected = f"{key}: takes the place of all that the recipe has there, so that {', '.join(told)}; --set {key}."
    assert [line.startswith(expected) for line in found] == [True] * bool(told)
