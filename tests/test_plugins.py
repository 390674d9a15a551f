"""A user's own file with a loss: found, read, and told in a line where it is wrong."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from crossdistil.core import recipe as recipes
from crossdistil.core.errors import CrossdistilError, RecipeError
from crossdistil.core.recipe import load_recipe, parse_recipe
from crossdistil.tests import tiny
from crossdistil.tests.plugin_files import LOSS, write_loss, write_recipe


@pytest.fixture
def folder(tmp_path):
    return write_loss(tmp_path)


def test_a_recipe_without_plugins_has_the_digest_it_had(tmp_path):
    recipe = parse_recipe(tiny.kd_recipe(Path("/task"), Path("/model")), "recipe")
    assert recipe.digest() == "ead41477599e93aaedd56b87d44dad0fb34aace459b343cfa4434efd48d8f3ae"
    assert "plugins" not in recipe.resolved()


def test_paths_are_from_the_recipe_s_file_on_and_the_digest_covers_the_bytes(folder, monkeypatch):
    path = write_recipe(folder)
    monkeypatch.chdir("/")
    recipe = load_recipe(path)
    assert recipe.plugins[0].plugin == str(folder / "my_losses.py")
    assert recipe.stages[0].objective[0].temperature == 2
    again = parse_recipe(json.loads(json.dumps(recipe.resolved())), "again")
    assert again.digest() == recipe.digest() and again.stages[0].objective[0] == recipe.stages[0].objective[0]
    (folder / "my_losses.py").write_text(LOSS + "# another byte\n")
    assert load_recipe(path).digest() != recipe.digest()
    with pytest.raises(RecipeError, match=r"plugins\[0\]: .*my_losses.py: has changed since the recipe named it: SHA-256"):
        parse_recipe(recipe.resolved(), "a saved run")


def test_a_plugin_of_the_command_line_is_from_the_current_folder(folder, monkeypatch):
    path = write_recipe(folder, plugin=None)
    (folder / "here").mkdir()
    (folder / "my_losses.py").rename(folder / "here" / "mine.py")
    monkeypatch.chdir(folder / "here")
    for recipe in (load_recipe(path, plugins=["mine.py"]), load_recipe(path, ["plugins=[mine.py]"])):
        assert recipe.plugins[0].plugin == str(folder / "here" / "mine.py")
    with pytest.raises(RecipeError, match="unknown loss 'apart'"):
        load_recipe(path)


def test_an_installed_module_is_a_plugin_and_so_is_an_entry_point(folder, monkeypatch):
    package = folder / "site" / "own_package_of_losses"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text("")
    (package / "losses.py").write_text(LOSS)
    about = folder / "site" / "own_package_of_losses-1.dist-info"
    about.mkdir()
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: own-package-of-losses\nVersion: 1\n")
    (about / "entry_points.txt").write_text("[crossdistil]\nown-losses = own_package_of_losses.losses\n")
    path = write_recipe(folder, plugin="own_package_of_losses.losses")
    with pytest.raises(RecipeError, match="has no module 'own_package_of_losses.losses'"):
        load_recipe(path)
    monkeypatch.syspath_prepend(folder / "site")
    first = load_recipe(path)
    assert first.stages[0].objective[0].loss == "apart"
    second = load_recipe(write_recipe(folder, plugin="own-losses"))
    assert second.plugins[0].sha256 == first.plugins[0].sha256
    assert second.stages[0].objective[0].loss == "apart"
    with pytest.raises(RecipeError, match="did you mean 'own-losses'"):
        load_recipe(write_recipe(folder, plugin="own_losses"))


def test_two_files_that_register_one_name(folder):
    (folder / "other.py").write_text(LOSS)
    with pytest.raises(RecipeError, match=r"my_losses.py:29: 'apart' is registered already, at .*other.py:29"):
        load_recipe(write_recipe(folder, plugin="other.py"), plugins=[str(folder / "my_losses.py")])
    assert load_recipe(write_recipe(folder), plugins=[str(folder / "my_losses.py")]).plugins[1:] == ()


WRONG = {
    "no Python": ("x = 1\ndef (:\n", r"mine.py:2: is no Python: "),
    "not text": ("\0", r"mine.py:1: is no Python: "),
    "raises": ("x = 1\nx / 0\n", r"mine.py:2: cannot be loaded: ZeroDivisionError: .*; correct it there, or"),
    "ends": ("import sys\nsys.exit(3)\n", r"mine.py:2: cannot be loaded: SystemExit: 3"),
    "imports what is not there": ("import no_such_module_here\n", r"mine.py:1: cannot be .*; install no_such_module_here for /"),
    "imports its neighbour": ("import my_losses\n", r"ModuleNotFoundError.*a plugin is one file, or an installed package"),
    "registers nothing": ("x = 1\n", r"mine.py: registers nothing"),
    "a name of ours": (LOSS.replace('"apart"', '"kd_ce"'), r"mine.py:29: loss 'kd_ce': crossdistil has one of this name"),
    "a name of a preset": (LOSS.replace('"apart"', '"L3_hidden_mse"'), r"mine.py:29: loss 'L3_hidden_mse': crossdistil has"),
    "no name": (LOSS.replace('loss: Literal["apart"]', ""), r"mine.py:29: register_loss: Apart.loss: expected a field"),
    "two names": (LOSS.replace('Literal["apart"]', 'Literal["apart", "b"]'), r"mine.py:29: register_loss: Apart.loss: expected"),
    "an odd name": (LOSS.replace('"apart"', '"a part"'), r"mine.py:29: loss 'a part': expected a name"),
    "no function": (LOSS.replace("def function", "def other"), r"mine.py:29: loss 'apart': Apart has no method function"),
    "no term": (LOSS.replace("register_loss(Apart", "register_loss(int"), r"mine.py:29: register_loss: expected a subclass"),
    "twice": (LOSS + "register_loss(Apart)\n", r"mine.py:30: 'apart' is registered twice, first at .*mine.py:29"),
    "a formula of others": (LOSS.replace("(term, student, teacher)", "(term, z)"), r"numpy: asks for 'z', expected arguments"),
    "no cases": (LOSS.replace("cases=[{}, {\"temperature\": 4}]", "cases=[]"), r"mine.py:29: loss 'apart': cases: expected"),
    "an unknown task": (LOSS.replace("numpy=formula,", "tasks=['ner'],"), r"mine.py:29: loss 'apart': tasks: got 'ner'"),
}  # fmt: skip


@pytest.mark.parametrize("name", WRONG)
def test_a_wrong_file_is_told_in_a_line_with_its_place(folder, name):
    code, message = WRONG[name]
    (folder / "mine.py").write_text(code)
    with pytest.raises(CrossdistilError, match=message) as raised:
        load_recipe(write_recipe(folder, plugin="mine.py"))
    assert len(str(raised.value).splitlines()) == 1


@pytest.mark.parametrize(
    ("plugins", "message"),
    [
        (["my_loses.py"], r"plugins\[0\]: .*my_loses.py: no such file; did you mean 'my_losses.py'"),
        (["."], r"plugins\[0\]: got '.', expected the path"),
        (["./"], r"plugins\[0\]: .*: is a folder, expected a Python file"),
        (["sys"], r"plugins\[0\]: sys: is no module with Python files"),
        (["no.such"], r"plugins\[0\]: .* has no module 'no.such'"),
        ([3], r"plugins\[0\]: should be a mapping, got 3"),
        ("my_losses.py", r"plugins: should be a list, got 'my_losses.py'"),
        (None, r"plugins: should be a list, got null"),
        ([{"plugin": "my_losses.py", "sha": "x"}], r"plugins\[0\].sha: unknown key; did you mean 'sha256'"),
        ([{"plugin": "my_losses.py", "sha256": "0" * 64}], "has changed since the recipe named it"),
    ],
)
def test_wrong_names_of_plugins(folder, plugins, message):
    tree = json.loads(write_recipe(folder).read_text())
    with pytest.raises(RecipeError, match=message):
        parse_recipe({**tree, "plugins": plugins}, "recipe.yaml", folder=folder)


def test_did_you_mean_covers_what_plugins_bring(folder):
    with pytest.raises(RecipeError, match="unknown loss 'appart'; did you mean 'apart'"):
        load_recipe(write_recipe(folder, loss="appart"))
    with pytest.raises(RecipeError, match=r"objective\[0\].temprature: unknown key; did you mean 'temperature'"):
        load_recipe(write_recipe(folder), ["stages.0.objective.0.temprature=3"])
    with pytest.raises(RecipeError, match=r"objective\[0\].temperature: should be greater than 0"):
        load_recipe(write_recipe(folder), ["stages.0.objective.0.temperature=0"])


def test_the_schema_is_made_once_for_the_same_plugins(folder):
    path = write_recipe(folder)
    assert type(load_recipe(path)) is type(load_recipe(path))
    assert type(parse_recipe(tiny.kd_recipe(folder, folder), "")) is recipes.Recipe
