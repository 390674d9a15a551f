"""`crossdistil inspect` on every format: what it is, what it holds, and what stands in the way of a conversion."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

import crossdistil
from crossdistil.converters.layouts import LAYOUTS
from crossdistil.core.app.options import Framework
from crossdistil.core.checkpoint import Model
from crossdistil.core.checkpoint_saving import save_model
from crossdistil.core.data.word_vocabulary import build_words
from crossdistil.core.models.architectures import tensor_shapes
from crossdistil.core.models.families.bilstm import BiLstmConfig
from crossdistil.tests.conversion_sources import BERT, FAMILIES, OUTPUTS, random_tensors, write_source
from crossdistil.tests.tiny_families import DISTILBERT
from crossdistil.tests.wrong_input_files import crossdistil as command

FORMATS = {
    ("pytorch", "safetensors"): "safetensors (PyTorch)",
    ("pytorch", "bin"): "PyTorch checkpoint",
    ("tf", "google"): "TensorFlow checkpoint (V2, 1 shard)",
    ("mindspore", "ckpt"): "MindSpore checkpoint",
    ("mindspore", "ckpt-old"): "MindSpore checkpoint",
    ("mindspore", "safetensors"): "safetensors (MindSpore)",
    ("oneflow", "state-dict"): "OneFlow state dict",
    ("oneflow", "legacy"): "OneFlow folder of variables",
    ("oneflow", "legacy-raw"): "OneFlow folder of variables (without shapes)",
}
TARGETS = [(to, layout) for to, layouts in LAYOUTS.items() for layout in layouts]


@pytest.fixture(scope="module")
def right_source(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("right") / "model"
    write_source(folder, BERT)
    (folder / "vocab.txt").write_text("word\n" * BERT.vocab_size)
    return folder


@pytest.fixture
def source(right_source, tmp_path) -> Path:
    """A model to spoil."""
    return shutil.copytree(right_source, tmp_path / "source")


def inspected(path: Path) -> tuple[dict, str]:
    """(what --json prints, what is printed without it); the API returns the first."""
    answers = [command("inspect", path, *options) for options in (["--json"], [])]
    assert [(answer.code, answer.stderr) for answer in answers] == [(0, "")] * 2
    found = json.loads(answers[0].stdout)
    assert found == json.loads(json.dumps(crossdistil.inspect(path)))
    return found, " ".join(answers[1].stdout.split())


def change_config(folder: Path, **changes) -> None:
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def test_every_layout_is_known_here():
    assert set(FORMATS) == set(TARGETS) and {member.value for member in Framework} == set(LAYOUTS)


@pytest.mark.parametrize(("to", "layout"), TARGETS)
def test_every_format(right_source, tmp_path, to, layout):
    crossdistil.convert(right_source, tmp_path / "new", to=to, layout=layout)
    found, text = inspected(tmp_path / "new")
    tensors = random_tensors(BERT)
    assert found["format"] == FORMATS[to, layout] and f"format {FORMATS[to, layout]}" in text
    names = LAYOUTS[to][layout].dialect.replace("oneflow-legacy", "legacy").replace("oneflow", "canonical")  # which are the same
    assert found["names"].replace("oneflow-legacy", "legacy") == names and f"names {found['names']}" in text
    assert (found["family"], found["heads"], found["outputs"]) == ("bert", ["mlm", "nsp"], OUTPUTS)
    assert "family bert" in text and "heads mlm, nsp" in text and "labels class 0, class 1, class 2" in text
    assert found["labels"] == ["class 0", "class 1", "class 2"] and found["architecture"] == BERT.model_dump()
    assert found["dtypes"] == {"F32": len(tensors)} and f"tensors {len(tensors)} ({len(tensors)} F32), 0.05 MiB" in text
    assert found["parameters"] == sum(array.size for array in tensors.values())
    parts = {"embeddings", "encoder", "pooler", "classifier", "mlm", "nsp"}
    assert set(found["parameters_by_part"]) == parts and sum(found["parameters_by_part"].values()) == found["parameters"]
    assert found["dropped"] == {} and found["missing"] == found["problems"] == found["repairs"] == []
    assert found["tokenizer"] == ["vocab.txt"] and len(found["tensors"]) == len(tensors)
    assert f"(--tensors lists all {len(tensors)})" in text


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("outputs", [None, 1])
def test_every_family(tmp_path, family, outputs):
    write_source(tmp_path / "source", FAMILIES[family], outputs, heads=False)
    found, text = inspected(tmp_path / "source")
    # GPT-2's head that says the next word is the table of words itself.
    heads = ["clm"] if family == "gpt2" and outputs is None else []
    assert (found["family"], found["heads"], found["outputs"]) == (family, heads, outputs)
    assert ("heads none" in text) == (not heads)
    assert any("classifier" in name or "score" in name for name in found["missing"]) == (outputs is None)


def test_every_tensor_is_listed_on_demand(right_source):
    lines = command("inspect", right_source, "--tensors").stdout.splitlines()
    for name, array in random_tensors(BERT).items():
        assert f"  {name}  {array.shape}  F32" in lines


def test_what_a_conversion_would_drop_repair_and_say(source):
    tensors = load_file(source / "model.safetensors")
    words = "bert.embeddings.word_embeddings.weight"
    tensors["bert.embeddings.position_ids"] = np.arange(20)[None]
    tensors |= {"cls.predictions.decoder.weight": tensors[words].copy(), words: np.ascontiguousarray(tensors[words].T)}
    save_file({f"module.{name}": array for name, array in tensors.items()}, source / "model.safetensors")
    found, text = inspected(source)
    assert found["dropped"] == {
        "buffer that follows from the configuration": 1, "copy of a tensor that it is tied to": 1,
    }  # fmt: skip
    assert "would be dropped 1: copy of a tensor that it is tied to" in text
    assert len(found["repairs"]) == 1 and "the wrong way round; transposed" in text
    assert found["notes"] == ["'module.': names of wrapping modules, which are left out"] and not found["problems"]
    assert found["dtypes"] == {"F32": 49, "I64": 1}


def test_a_distilbert_as_google_has_it(tmp_path):
    write_source(tmp_path / "source", DISTILBERT, None)
    crossdistil.convert(tmp_path / "source", tmp_path / "tf", to="tf", dtype="fp16")
    found, _ = inspected(tmp_path / "tf" / "bert_model.ckpt")
    assert found["dropped"] == {"added for Google's graph, no part of a DistilBERT": 3} and found["family"] == "distilbert"
    assert set(found["dtypes"]) == {"F16"}


PROBLEMS = {
    "sizes": (
        lambda folder: change_config(folder, vocab_size=70, num_hidden_layers=4),
        ["{}/config.json: vocab_size is 70, the tensors say 61", "{}/config.json: num_hidden_layers is 4, the tensors say 2"],
    ),
    "no configuration": (lambda folder: (folder / "config.json").unlink(), ["{}: no config.json or bert_config.json beside it"]),
    "broken configuration": (
        lambda folder: (folder / "config.json").write_text("{"),
        ["{}/config.json: is no JSON, or damaged ("],
    ),
    "family": (lambda folder: change_config(folder, model_type="t5"), ["{}: model_type 't5': expected one of bert, "]),
    "labels": (
        lambda folder: change_config(folder, id2label={"0": "a"}),
        ["{}/config.json: id2label names 1 classes, the classifier has 3 outputs"],
    ),
    "unknown names": (
        lambda folder: save_file({"a[b]": np.ones(3)}, folder / "model.safetensors"), ["{}: no tensor has a name that is known"],
    ),
}  # fmt: skip


@pytest.mark.parametrize(("spoil", "problems"), PROBLEMS.values(), ids=PROBLEMS)
def test_problems_are_told_beside_what_is_known(source, spoil, problems):
    """It is for finding out what is wrong with a checkpoint that this command is used."""
    spoil(source)
    found, text = inspected(source)
    for problem in problems:
        expected = problem.replace("{}", str(source))
        assert any(line.startswith(expected) for line in found["problems"])
    assert found["format"].startswith("safetensors") and found["tensors"] and "problems" in text
    assert "family" not in found


@pytest.fixture
def bilstm(tmp_path) -> Path:
    tokenizer = build_words(["the film is good"], 30)
    config = BiLstmConfig(vocab_size=tokenizer.vocab_size, embedding_size=6, hidden_size=4)
    shapes = tensor_shapes(config, 2)
    parameters = {name: config.new_tensor(name, shape, 1) for name, shape in shapes.items()}
    save_model(Model(config, parameters, 2, ("no", "yes")), tmp_path / "bilstm", tokenizer)
    return tmp_path / "bilstm"


@pytest.mark.parametrize("file", ["", "model.safetensors"])
def test_a_bilstm(bilstm, file):
    found, text = inspected(bilstm / file)
    assert (found["family"], found["labels"], found["outputs"]) == ("bilstm", ["no", "yes"], 2)
    assert found["problems"] == [] and found["architecture"]["hidden_size"] == 4 and "family bilstm" in text
    answer = command("convert", bilstm, bilstm.parent / "new", "--to", "tf")
    assert answer.code == 2 and "--to tf: no framework has a network of the kind of a BiLSTM; --with-code" in answer.messages[0]


def test_what_is_no_checkpoint(tmp_path, source):
    (tmp_path / "notes.txt").write_text("notes")
    (tmp_path / "empty").mkdir()
    weights = source / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-50])
    expected = {
        "notes.txt": "{}: not recognised (it starts with b'notes', 5 bytes); expected a checkpoint of ",
        "empty": "{}: no checkpoint in this folder (it is empty); ",
        "nothing": "{}: no such file; ",
        "source": "{}/model.safetensors: ",
    }
    for name, message in expected.items():
        for options in ([], ["--json"], ["--tensors"]):
            answer = command("inspect", tmp_path / name, *options)
            assert (answer.code, answer.stdout, len(answer.messages)) == (2, "", 1)
            assert answer.messages[0].startswith(message.replace("{}", str(tmp_path / name)))
