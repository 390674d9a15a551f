"""A family of models in a user's own file: it is used as the built-in ones are, and what is wrong with it is told in a line."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest

import crossdistil
from crossdistil.converters.layouts import LAYOUTS
from crossdistil.core.checkpoint import load_model
from crossdistil.core.errors import CheckpointError, PluginError, RecipeError
from crossdistil.core.models.architectures import make_forward
from crossdistil.core.models.families import CONFIGURATIONS
from crossdistil.core.plugin_files import load_plugins, named_plugins
from crossdistil.core.recipe import parse_recipe
from crossdistil.core.reference import ReferenceOps
from crossdistil.core.teacher_identity import model_digest
from crossdistil.tests import tiny
from crossdistil.tests.doc_plugins import write_shown
from crossdistil.tests.tiny_families import randomise

SIZES = {"hidden_size": 16, "num_hidden_layers": 3, "num_attention_heads": 2, "intermediate_size": 24}


def load(*files):
    return load_plugins(named_plugins({"plugins": list(map(str, files))}, "test"))


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """A folder that transformers wrote, and the model."""
    import transformers

    folder = tmp_path_factory.mktemp("data2vec")
    words = tiny.write_model(folder / "bert").config.vocab_size
    more = {"vocab_size": words, "max_position_embeddings": 40, "pad_token_id": 0, "type_vocab_size": 2, "num_labels": 2}
    model = transformers.Data2VecTextForSequenceClassification(transformers.Data2VecTextConfig(**SIZES, **more)).eval()
    randomise(model)
    model.save_pretrained(folder / "model")
    for name in ("tokenizer.json", "tokenizer_config.json", "vocab.txt"):
        shutil.copy(folder / "bert" / name, folder / "model" / name)
    return folder / "model", model


@pytest.fixture
def family(tmp_path):
    """The file of the page."""
    [path] = write_shown(tmp_path, "my_family.py")
    return path


@pytest.mark.only_backend("torch")
def test_its_outputs_are_those_of_transformers(saved, family):
    import torch

    folder, reference = saved
    with pytest.raises(CheckpointError, match="'data2vec-text', expected 'bert', .* a family of a plugin needs --plugin FILE"):
        load_model(folder)
    load(family)
    model = load_model(folder)
    generator = np.random.default_rng(1)
    ids = generator.integers(5, model.config.vocab_size, (3, 9))
    mask = np.ones((3, 9), np.float32)
    mask[1, 6:], ids[1, 6:] = 0, model.config.pad_token_id
    wanted = frozenset({"logits", *(f"hidden/{layer}" for layer in range(4))})
    batch = {"input_ids": ids, "attention_mask": mask, "token_type_ids": np.zeros_like(ids)}
    found = make_forward(model.config.without_dropout(), wanted)(ReferenceOps(), model.parameters, batch)
    with torch.no_grad():
        inputs = {"input_ids": torch.tensor(ids), "attention_mask": torch.tensor(mask).long()}
        expected = reference(**inputs, output_hidden_states=True)
    np.testing.assert_allclose(found["logits"], expected.logits.numpy(), atol=2e-6)
    for layer, states in enumerate(expected.hidden_states):
        real = mask.astype(bool)
        np.testing.assert_allclose(found[f"hidden/{layer}"][real], states.numpy()[real], atol=5e-6)


@pytest.mark.only_backend("torch")
def test_the_page_s_comparison_with_transformers(saved, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    write_shown(tmp_path, "my_family.py", "compare_family.py")
    import compare_family

    assert compare_family.largest_difference(str(saved[0])) < 1e-6


@pytest.mark.only_backend("torch")
@pytest.mark.parametrize("to", LAYOUTS)
def test_it_goes_to_every_framework_and_back(saved, family, tmp_path, to):
    folder, _ = saved
    load(family)
    for layout in LAYOUTS[to]:
        made = tmp_path / layout
        crossdistil.convert(folder, made, to=to, layout=layout)
        crossdistil.convert(made, tmp_path / f"{layout}-back", to="pytorch")
        before, after = load_model(folder), load_model(tmp_path / f"{layout}-back")
        assert before.config == after.config and set(before.parameters) == set(after.parameters)
        assert all(np.array_equal(before.parameters[name], after.parameters[name]) for name in before.parameters)


@pytest.mark.only_backend("torch")
def test_another_process_that_computes_it_has_the_plugin_too(saved, family, tmp_path):
    found = crossdistil.convert(saved[0], tmp_path / "verified", to="pytorch", layout="bin", verify=True, plugins=[family])
    assert "pytorch, result" in json.dumps(found["verification"])


@pytest.mark.backend
def test_a_student_of_it_on_every_backend(family, tmp_path, backend_name):
    tiny.write_task(tmp_path / "task", 24, 12)
    load(family)
    words = tiny.write_model(tmp_path / "bert").config.vocab_size
    sizes = {"vocab_size": words, "max_position_embeddings": 40, "pad_token_id": 0, "type_vocab_size": 2}
    tiny.write_model(tmp_path / "teacher", CONFIGURATIONS["data2vec-text"](**SIZES, **sizes))
    tree = {**tiny.kd_recipe(tmp_path / "task", tmp_path / "teacher", steps=3), "plugins": [family]}
    tree["teacher_cache"] = {"use": "never"}
    (tmp_path / "recipe.yaml").write_text(json.dumps(tree))
    result = crossdistil.run(tmp_path / "recipe.yaml", out=tmp_path / "run", backend=backend_name, quiet=True, latency=False)
    assert result["student"]["metrics"]
    raw = json.loads((tmp_path / "run" / "student" / "config.json").read_text())
    assert raw["model_type"] == "data2vec-text" and raw["crossdistil"]["family_plugin"]["plugin"] == "my_family.py"
    student, teacher = load_model(tmp_path / "run" / "student"), load_model(tmp_path / "teacher")
    name = "data2vec_text.encoder.layer.0.intermediate.dense.weight"
    assert np.abs(student.parameters[name] - teacher.parameters[name]).max() < 0.1  # where it started
    card = (tmp_path / "run" / "student" / "README.md").read_text()
    assert "--plugin my_family.py" in card and "transformers" not in card and "--with-code" not in card


def test_a_command_that_misses_it_says_which(saved, family, tmp_path, said):
    folder = tmp_path / "student"
    shutil.copytree(saved[0], folder)
    raw = json.loads((folder / "config.json").read_text())
    digest = load_recipe_digest(family)
    raw["crossdistil"] = {"family_plugin": {"plugin": "my_family.py", "sha256": digest}}
    (folder / "config.json").write_text(json.dumps(raw))
    with pytest.raises(CheckpointError, match="its family is of the plugin my_family.py: --plugin my_family.py, or `plugins`"):
        load_model(folder)
    load(family)
    assert not [note for note in load_model(folder).notes if "SHA-256" in note]
    with open(family, "a") as file:
        file.write("# changed\n")
    load(family)
    assert [note for note in load_model(folder).notes if "SHA-256" in note and "is SHA-256" in note]
    assert said("inspect", folder, "--plugin", family)[0] == 0


def load_recipe_digest(family):
    [section] = named_plugins({"plugins": [family]}, "test")
    return section.sha256


def test_the_digests_cover_its_code(saved, family, tmp_path):
    tree = {**tiny.kd_recipe(tmp_path / "task", saved[0]), "plugins": [family]}
    before = parse_recipe(tree, "recipe")
    teacher = model_digest(load_model(saved[0]))
    with open(family, "a") as file:
        file.write("# changed\n")
    digest = before.digest()
    assert parse_recipe(tree, "recipe").digest() != digest
    assert model_digest(load_model(saved[0])) != teacher
    with pytest.raises(RecipeError, match="has changed since the recipe named it"):
        parse_recipe(before.resolved(), "a saved run")


@pytest.mark.parametrize("name", ["bert", "mpnet", "bilstm"])
def test_a_name_of_ours_is_refused(family, name):
    text = open(family).read().replace('model_type="data2vec-text"', f'model_type="{name}"')
    with pytest.raises(PluginError, match=rf"my_family.py:\d+: family '{name}': crossdistil has one of this name"):
        load(changed(family, text))


def test_two_of_one_name_are_refused(family, tmp_path):
    other = tmp_path / "other.py"
    shutil.copy(family, other)
    with pytest.raises(PluginError, match="other.py:26: 'data2vec-text' is registered already, at .*my_family.py:26"):
        load(family, other)
    tree = {**tiny.kd_recipe(tmp_path / "task", tmp_path), "plugins": [family, str(other)]}
    with pytest.raises(RecipeError, match="'data2vec-text' is registered already"):
        parse_recipe(tree, "recipe")


def test_a_student_s_misspelt_family_is_told(family, tmp_path):
    from crossdistil.core.model_sections import StudentSection
    from crossdistil.core.student import student_config

    load(family)
    section = StudentSection(**{"architecture": {"model_type": "data2vec_text"}, "init": {"from": "random"}})
    _, [problem] = student_config(section, None)
    assert problem.endswith("did you mean 'data2vec-text'?")


WRONG = {
    "no family": ("(Data2VecTextConfig)", '("data2vec")', "expected a subclass of EncoderConfig, got 'data2vec'"),
    "a missing part": ("*layer_parts(), ", "", "no forward pass follows from its parts: KeyError: 'attention_output'"),
    "no words": (
        'parts=(*EMBEDDINGS, *layer_parts(), *head_parts("data2vec_text.", EMBEDDINGS[0].name))',
        "parts=(*EMBEDDINGS, *layer_parts())",
        "parts: none is of a head that predicts words",
    ),
    "a part that nothing reads": (
        "*layer_parts(),",
        '*layer_parts(), EMBEDDINGS[0].__class__("adapter", "adapter", "dense", ("hidden_size", "hidden_size"), "layer"),',
        "nothing is computed with data2vec_text.encoder.layer.0.adapter.weight; a part that others' files hold alone",
    ),
    "a name twice": ("layer_parts()", 'layer_parts("attention.self.key")', "parts: two have a tensor attention.self.key.weight"),
    "a size that is none": (
        'embedding_parts("data2vec_text.", "hidden_size")',
        'embedding_parts("data2vec_text.", "width")',
        "no forward pass follows from its parts: AttributeError: 'Data2VecTextConfig' object has no attribute 'width'",
    ),
    "the title of another": ("Data2VecText\"", 'Roberta"', "title is Roberta, that of roberta, as whose classes"),
    "a head that is none": ("title=", "own_heads={'word': ()}, title=", "own_heads: unknown head 'word'; expected some of sente"),
    "a head of other sizes": (
        "title=",
        "own_heads={'tokens': (replace(EMBEDDINGS[0], role='classifier', place='classifier', name='x', kind='dense'),)}, title=",
        "logits of tokens are (2, 5, 13), expected (2, 5, 3)",
    ),
    "google's": ("title=", "in_googles_code=True, title=", "in_googles_code is True, expected False"),
    "no default": ("vocab_size: int = Field(30522, ge=1)", "depth: int", "depth: missing"),
    "a name that is none": ('model_type="data2vec-text"', 'model_type="data2vec text"', "expected a name of letters"),
    "no layers": ('layer="data2vec_text.encoder.layer.{layer}."', 'layer=""', "layer is empty, expected what a layer's"),
}


@pytest.mark.parametrize(("old", "new", "message"), WRONG.values(), ids=WRONG)
def test_what_is_wrong_is_told_with_its_line(family, old, new, message):
    text = open(family).read()
    assert old in text
    with pytest.raises(PluginError) as error:
        load(changed(family, text.replace(old, new)))
    assert message in str(error.value) and ".py:" in str(error.value) and "\n" not in str(error.value)
    assert "data2vec-text" not in CONFIGURATIONS


@pytest.mark.parametrize("like", "bert.BERT roberta.ROBERTA modernbert.MODERNBERT mpnet.MPNET deberta_v2.DEBERTA_V2".split())
def test_a_family_with_the_tensors_of_another_is_taken(like, tmp_path):
    """Names and root may be another's, and two heads may share a part: each is told by its model_type."""
    module, name = like.split(".")
    [config] = [kind for kind, chosen in CONFIGURATIONS.items() if kind.replace("-", "_") == module]
    lines = [
        "from dataclasses import replace",
        "from crossdistil import register_family",
        "from crossdistil.core.models.families import CONFIGURATIONS",
        f"from crossdistil.core.models.families.{module} import {name}",
        f"class Own(CONFIGURATIONS['{config}']):",
        f"    family = replace({name}, model_type='own-one', title='OwnOne', in_googles_code=False)",
        "register_family(Own)",
    ]
    path = tmp_path / f"own_{module}.py"
    path.write_text("\n".join(lines) + "\n")
    load(path)
    assert "own-one" in CONFIGURATIONS and CONFIGURATIONS["own-one"].family.root == CONFIGURATIONS[config].family.root


def changed(path, text):
    with open(path, "w") as file:
        file.write(text)
    return path
