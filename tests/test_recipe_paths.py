"""A relative path in a recipe's file is what exists, from the current folder on or beside the recipe, never a guess."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from crossdistil.core.errors import RecipeError
from crossdistil.core.recipe import load_recipe
from crossdistil.tests import tiny

PLUGIN = "from crossdistil import register_schedule\nregister_schedule('flat', lambda progress: 1.0)\n"


@pytest.fixture
def folders(tmp_path, monkeypatch):
    """The recipe's folder and the current one."""
    for name in ("there", "here"):
        (tmp_path / name).mkdir()
    monkeypatch.chdir(tmp_path / "here")
    tree = tiny.kd_recipe(Path("data"), Path("models/teacher"), steps=2)
    tree["plugins"] = ["mine.py"]
    tree["student"]["tokenizer"] = "models/words"
    (tmp_path / "there" / "recipe.yaml").write_text(json.dumps(tree))
    (tmp_path / "there" / "mine.py").write_text(PLUGIN)
    return tmp_path / "there", tmp_path / "here"


def test_each_path_is_taken_where_it_is_and_what_is_unexpected_is_said(folders):
    there, here = folders
    for folder, name in ((there, "data"), (here, "models/teacher"), (there, "models/words")):
        (folder / name).mkdir(parents=True)
    recipe = load_recipe(there / "recipe.yaml")
    assert recipe.task.data == there / "data"
    assert recipe.teacher.model == here / "models/teacher"
    assert recipe.student.tokenizer == there / "models/words"
    assert recipe.plugins[0].plugin == str(there / "mine.py")
    assert recipe.beside == (
        f"task.data: data is {there / 'data'}, beside the recipe",
        f"student.tokenizer: models/words is {there / 'models/words'}, beside the recipe",
    )
    (there / "mine.py").rename(here / "mine.py")
    recipe = load_recipe(there / "recipe.yaml")
    assert recipe.plugins[0].plugin == str(here / "mine.py")
    assert recipe.beside[-1] == f"plugins[0]: mine.py is {here / 'mine.py'}, in the current folder"


def test_two_things_of_one_name_are_refused_unless_the_command_says_which(folders):
    there, here = folders
    for folder in folders:
        (folder / "data").mkdir()
    (here / "mine.py").write_text(PLUGIN)
    with pytest.raises(RecipeError) as raised:
        load_recipe(there / "recipe.yaml")
    first, second = str(raised.value).splitlines()
    assert f"task.data: data is {here / 'data'} from the current folder on, and {there / 'data'} beside the recipe" in first
    assert f"plugins[0]: mine.py is {here / 'mine.py'} from the current folder on" in second
    recipe = load_recipe(there / "recipe.yaml", ["task.data=data", f"plugins=[{there / 'mine.py'}]"])
    assert recipe.task.data == here / "data" and recipe.plugins[0].plugin == str(there / "mine.py") and not recipe.beside


def test_one_thing_under_both_paths_is_one(folders):
    there, here = folders
    (there / "data").mkdir()
    (here / "data").symlink_to(there / "data")
    assert load_recipe(there / "recipe.yaml").task.data == here / "data"


def test_what_is_nowhere_is_from_the_current_folder_on_as_before(folders):
    there, here = folders
    recipe = load_recipe(there / "recipe.yaml")
    assert recipe.task.data == here / "data" and recipe.teacher.model == here / "models/teacher" and not recipe.beside
    (there / "mine.py").unlink()
    with pytest.raises(RecipeError, match=f"plugins.0.: {there / 'mine.py'}: no such file"):
        load_recipe(there / "recipe.yaml")


def test_a_recipe_of_the_catalogue_has_no_folder_of_its_own(folders, monkeypatch):
    there, here = folders
    assert load_recipe("kd", ["task.data=data", "teacher.model=README.md"]).teacher.model == here / "README.md"
