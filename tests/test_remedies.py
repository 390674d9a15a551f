"""A checkpoint that is refused comes with the command that makes it readable: the command is taken from the message, run as it
stands, and what it makes answers as the model did before it was spoiled."""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from crossdistil.converters.canonical import read_canonical
from crossdistil.core.app.models import model_folder
from crossdistil.core.checkpoint import load_model
from crossdistil.core.errors import CheckpointError
from crossdistil.core.models.architectures import tensor_shapes
from crossdistil.core.models.sizes import sizes, without_sizes
from crossdistil.tests import tiny
from crossdistil.tests.tiny_families import ALBERT, DISTILBERT, ELECTRA
from crossdistil.tests.wrong_input_files import crossdistil


@pytest.fixture
def model(tmp_path, monkeypatch):
    """A folder in the current one, and its weights."""
    monkeypatch.setenv("CROSSDISTIL_CACHE", str(tmp_path / "cache"))
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    return Path("a model")


def written(folder: Path, config, spell) -> dict[str, np.ndarray]:
    """Write a model under other names; returns its weights as they were."""
    weights = tiny.write_model(folder, config).parameters
    save_file({spell(name): array for name, array in weights.items()}, folder / "model.safetensors", {"format": "pt"})
    return weights


def refusal(folder: Path, where: str = "") -> str:
    with pytest.raises(CheckpointError) as error:
        load_model(model_folder(folder, where))
    return str(error.value)


def run_the_command(message: str) -> Path:
    (command,) = re.findall("`crossdistil (convert [^`]*)`", message)
    arguments = shlex.split(command)
    assert crossdistil(*arguments).code == 0
    return Path(arguments[2])


def respelt(encoder: str, *heads: tuple[str, str]):
    """A speller: the root of the encoder, and other starts of the rest."""

    def spell(name: str) -> str:
        for old, new in heads:
            if name.startswith(old):
                return new + name.removeprefix(old)
        return re.sub("^(bert|distilbert|albert|electra)[.]", encoder, name)

    return spell


ODD = {
    "the head beside a prefix": (tiny.CONFIG, respelt("backbone.")),
    "beside a longer prefix": (tiny.CONFIG, respelt("net.backbone.bert.")),
    "fc": (tiny.CONFIG, respelt("bert.", ("classifier.", "fc."))),
    "fc beside a prefix": (tiny.CONFIG, respelt("backbone.", ("classifier.", "fc."))),
    "inside the prefix": (tiny.CONFIG, respelt("model.bert.", ("classifier.", "model.head.out."))),
    "ALBERT": (ALBERT, respelt("albert.", ("classifier.", "logits."))),
    "DistilBERT with two maps": (DISTILBERT, respelt("enc.", ("classifier.", "head.3."), ("pre_classifier.", "head.0."))),
    "ELECTRA with two maps": (
        ELECTRA,
        respelt("enc.electra.", ("classifier.dense.", "head.a."), ("classifier.out_proj.", "head.b.")),
    ),
}


@pytest.mark.parametrize(("config", "spell"), ODD.values(), ids=ODD)
def test_a_head_of_another_name(model, config, spell):
    weights = written(model, config, spell)
    message = refusal(model)
    assert "unknown tensor" in message and "did you mean" not in message
    found = load_model(run_the_command(message)).parameters
    assert found.keys() == weights.keys() and all(np.array_equal(found[name], weights[name]) for name in found)
    in_recipe = refusal(model, "teacher.model")
    renames = json.loads(re.search(r"in the recipe: teacher[.]read[.]rename: (.*)\)$", in_recipe)[1])
    assert [f"--rename {shlex.quote(each)}" for each in renames] == re.findall("--rename '[^']*'", message.splitlines()[-1])


def test_what_is_no_head_is_only_left_out(model):
    """Of two maps none is the classifier, and a map of another width is not."""
    for extra in ({"a": (32, 32), "b": (3, 32)}, {"fc": (3, 31)}, {"classifier.extra": (2, 32)}):
        weights = dict(tiny.write_model(model).parameters)
        beside = {f"{name}.weight": np.ones(shape, np.float32) for name, shape in extra.items()}
        if "fc" in extra:
            weights = {name: array for name, array in weights.items() if not name.startswith("classifier")}
        save_file(weights | beside, model / "model.safetensors", {"format": "pt"})
        message = refusal(model)
        assert "--rename PATTERN=NAME" in message
        converted = run_the_command(message)
        assert load_file(converted / "model.safetensors").keys() == weights.keys()
        for path in converted.iterdir():
            path.unlink()
        converted.rmdir()


def test_sizes_that_contradict_the_tensors(model):
    expected = tiny.write_model(model).parameters
    for key, wrong in {"vocab_size": 93, "num_hidden_layers": 3, "max_position_embeddings": 9}.items():
        config = json.loads((model / "config.json").read_text())
        right = config[key]
        (model / "config.json").write_text(json.dumps(config | {key: wrong}))
        message = refusal(model)
        assert f"{key} is {wrong}, the tensors say {right}" in message
        converted = run_the_command(message)
        found = load_model(converted)
        assert found.config == tiny.CONFIG and all(np.array_equal(found.parameters[name], expected[name]) for name in expected)
        (model / "config.json").write_text(json.dumps(config))
        converted.rename(f"{converted}-{key}")


NESTED = {
    "bert_config": lambda config: {"bert_config": config, "epochs": 3},
    "model.encoder": lambda config: {"model": {"encoder": config, "name": "x"}, "vocab_size": 5},
}


@pytest.mark.parametrize("key", NESTED)
def test_a_configuration_inside_of_another(model, key):
    tiny.write_model(model)
    config = json.loads((model / "config.json").read_text())
    (model / "config.json").write_text(json.dumps(NESTED[key](config)))
    problems = [refusal(model)]
    with pytest.raises(CheckpointError) as error:
        read_canonical(model)
    for problem in (*problems, str(error.value)):
        assert f"what its key {key} holds looks like a configuration" in problem and "missing tensor" not in problem


def test_a_configuration_without_sizes(model):
    tiny.write_model(model)
    (model / "config.json").write_text('{"model_type": "bert", "id2label": {"0": "a", "1": "b"}}')
    message = refusal(model)
    proposed = json.loads(re.search(r"for example (.*)$", message)[1].replace("<number>", "4"))
    (model / "config.json").write_text(json.dumps(proposed))
    assert load_model(model_folder(model)).config == tiny.CONFIG
    # 12 heads would fit, and compute something else.
    narrow = tensor_shapes(type(tiny.CONFIG)(hidden_size=384), 2)
    assert "num_attention_heads is not in it" in without_sizes({"hidden_size": 384}, "bert", narrow)
    assert not without_sizes({"hidden_size": 384, "num_attention_heads": 12}, "bert", narrow)
    assert not without_sizes({"hidden_size": 768}, "bert", tensor_shapes(type(tiny.CONFIG)(), 2))
    # A configuration that leaves everything at its family's defaults is one, where the tensors are so.
    assert not without_sizes({"model_type": "bert"}, "bert", tensor_shapes(type(tiny.CONFIG)(), 2))
    assert sizes("bert", tensor_shapes(type(tiny.CONFIG)(), 2))["hidden_size"] == 768
