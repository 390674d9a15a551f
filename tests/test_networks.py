"""`convert --with-code`: the network that is written beside converted weights runs in a process that has its framework alone,
takes them strictly, and answers as transformers does; in OneFlow's environment, which lacks transformers, as NumPy in float64."""

from __future__ import annotations

import importlib.util
import json
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

import crossdistil
from crossdistil.converters.canonical import read_canonical
from crossdistil.converters.network_code import NETWORK
from crossdistil.converters.verify import compare_configurations
from crossdistil.core.checkpoint import load_model
from crossdistil.core.checkpoint_saving import save_model
from crossdistil.core.data.tokenize import load_tokenizer
from crossdistil.core.data.word_vocabulary import build_words
from crossdistil.core.errors import CheckpointError
from crossdistil.core.models.answer_heads import SENTENCES
from crossdistil.tests import conversion_sources as sources
from crossdistil.tests.network_cases import (
    CASES,
    FEWER,
    WITHOUT,
    answers,
    batches,
    bilstm_logits,
    reference,
    write_bilstm,
    write_case,
)
from crossdistil.tests.test_export import BILSTM, random_model
from crossdistil.tests.tiny_families import VARIANTS

LIMIT = 1e-5
LAYOUTS = {"pytorch": ("safetensors", "bin"), "tf": ("google",), "mindspore": ("ckpt", "ckpt-old", "safetensors")}
FRAMEWORKS = {"pytorch": "torch", "tf": "tensorflow"}
WORKER = Path(__file__).parent / "network_worker.py"


def run(to, folders):
    """Run the networks of folders in one process, for it starts slowly."""
    command = [sys.executable, str(WORKER), FRAMEWORKS.get(to, to), *map(str, folders)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=900)
    assert done.returncode == 0, done.stderr[-3000:]


TARGETS = [
    pytest.param("pytorch", marks=pytest.mark.only_backend("torch")),
    pytest.param("tf", marks=pytest.mark.only_backend("torch")),
    pytest.param("mindspore", marks=pytest.mark.only_backend("mindspore")),
    pytest.param("oneflow", marks=pytest.mark.only_backend("oneflow")),
]


DAMAGED = [
    "hidden_act: got 'mish', expected one of gelu, gelu_python, relu, ",
    f"num_attention_heads: got 5, expected a divisor of hidden_size {VARIANTS['bert'].hidden_size}\n",
    "num_hidden_layers: got '2', expected int\n",
    """id2label: got {'7': 'a'}, expected {"0": name, """,
    "got no JSON, expected an object: ",
]
"""What a network says of a config.json, after its name."""
WRONG_SETTINGS = ({"hidden_act": "mish"}, {"num_attention_heads": 5}, {"num_hidden_layers": "2"}, {"id2label": {"7": "a"}})
WRONG_OF_BILSTM = ({"hidden_size": "2"}, {"vocab_size": 0}, {"id2label": {"7": "a"}})
DAMAGED_BILSTM = [
    "hidden_size: got '2', expected int\n",
    "vocab_size: got 0, expected a number from 1\n",
    *DAMAGED[-2:],
]


@pytest.mark.parametrize("to", TARGETS)
def test_networks_answer_as_their_models_do(to, tmp_path):
    referee = importlib.util.find_spec("transformers") is not None
    folders, expected = [], {}
    names = FEWER if to in ("tf", "mindspore") else CASES
    for number, (name, (config, task, heads, ending)) in enumerate((name, CASES[name]) for name in names):
        source = tmp_path / "source" / name.replace(" ", "-")
        write_case(source, config, task, heads, ending)
        own = batches(source)[: 2 if referee else 1]
        layouts = LAYOUTS.get(to, ("state-dict",))
        for layout in layouts if name == "bert" else (layouts[number % len(layouts)],):
            folder = tmp_path / f"{source.name}-{layout}"
            crossdistil.convert(source, folder, to=to, layout=layout, with_code=True)
            arrays = {f"{index}/{key}": array for index, batch in enumerate(own) for key, array in batch.items()}
            np.savez(folder / "inputs.npz", **arrays)
            folders.append(folder)
            found = [answers(source, batch, config, ending) for batch in own] if referee else [reference(source, heads)]
            expected[folder] = (own, found)
    for number, pairs in enumerate((False, True)):
        source = tmp_path / "source" / f"bilstm-{pairs}"
        model, own = write_bilstm(source, pairs)
        layouts = LAYOUTS.get(to, ("state-dict",))
        folder = tmp_path / source.name
        crossdistil.convert(source, folder, to=to, layout=layouts[number % len(layouts)], with_code=True)
        np.savez(folder / "inputs.npz", **{f"{n}/{key}": array for n, batch in enumerate(own) for key, array in batch.items()})
        folders.append(folder)
        expected[folder] = (own, [bilstm_logits(model, batch) for batch in own])
    more = {folders[0]: WRONG_SETTINGS, folders[-2]: WRONG_OF_BILSTM, folders[-1]: WRONG_OF_BILSTM}
    for folder, settings in more.items():
        (folder / "wants-more").write_text(json.dumps(settings))
    run(to, folders)
    for folder, (own, wanted) in expected.items():
        found = np.load(folder / "outputs.npz")
        served = [name for name in found.files if name.endswith("/served")]
        assert len(found.files) == sum(map(len, wanted)) + len(served), folder.name
        assert len(served) == (len(own) if to == "tf" and folder in more else 0)
        for index, name in enumerate(served):
            assert np.abs(found[name] - found[f"{index}/logits"]).max() <= LIMIT
        for index, (batch, one) in enumerate(zip(own, wanted)):
            real = batch["attention_mask"] > 0
            for name, values in one.items():
                other = found[f"{index}/{name}"]
                assert other.shape == values.shape, (folder.name, name)
                if values.shape[:2] == real.shape:
                    values, other = values[real], other[real]
                difference = np.abs(values - other).max() / max(1.0, np.abs(values).max())
                assert difference <= LIMIT, (folder.name, name, difference)
    for folder in more:
        for printed, wanted in json.loads((folder / "printed.json").read_text()):
            found = [float(number) for number in re.findall(r"(?<![\w-])-?[0-9]+[.][0-9]+", printed)]
            assert found == pytest.approx(wanted, abs=1e-5), printed
        shape, renamed, *damaged = (folder / "refused.txt").read_text().split("\n----\n")
        assert "does not fit this network:\n  missing nowhere" in renamed and "\n  unexpected " in renamed
        assert "does not fit this network:\n" in shape and ": got shape (" in shape and ", expected (3, " in shape
        config = f"2 error: {folder / 'config.json'}: "
        wanted = DAMAGED if folder == folders[0] else DAMAGED_BILSTM
        wanted = [f"{config}{line}" for line in wanted] + [f"2 error: {folder}/"]
        for line, start in zip(damaged, wanted, strict=True):
            assert line.startswith(start) and line.count("\n") == 1 and line.endswith("\n"), line
        assert ": cannot be read: " in damaged[-1]


def test_what_has_no_network_is_refused(tmp_path, said):
    source = tmp_path / "source"
    write_case(source, *CASES["bert"])
    with pytest.raises(CheckpointError, match="--layout legacy: no module of OneFlow loads it; --with-code takes state-dict"):
        crossdistil.convert(source, tmp_path / "out", to="oneflow", layout="legacy", with_code=True)
    for name in WITHOUT:
        write_case(tmp_path / name, VARIANTS[name], SENTENCES, (), SENTENCES.ending)
        code, _, errors = said("convert", tmp_path / name, tmp_path / "out", "--to", "pytorch", "--with-code")
        assert code == 2 and f"no network is written for a {VARIANTS[name].family.title}: it" in errors
        assert "crossdistil export MODEL NEW --to onnx" in errors and errors.count("\n") == 1
    code, _, errors = said("convert", source, tmp_path / "out", "--to", "mindspore", "--saved-model")
    assert code == 2 and "--saved-model: needs --to tf and --with-code" in errors and not (tmp_path / "out").exists()


@pytest.mark.parametrize("name", ["distilbert", "electra", "bert for choices", "distilbert for spans"])
def test_what_googles_graph_has_no_place_for_goes_with_its_network(name, tmp_path):
    """And is read back as it was."""
    source = tmp_path / "source"
    write_case(source, *CASES[name])
    told = crossdistil.convert(source, tmp_path / "out", to="tf", with_code=True)
    assert not told["added"]
    assert any(note.startswith("network.py computes what other code does not: ") for note in told["notes"]) == (
        name != "distilbert for spans"
    )
    sources.assert_same(sources.tensors_of(tmp_path / "out"), sources.tensors_of(source))
    compare_configurations(*(read_canonical(folder) for folder in (source, tmp_path / "out")))
    text = (tmp_path / "out" / NETWORK).read_text()
    assert text.startswith("# SPDX-License-Identifier: Apache-2.0\n") and "crossdistil convert --to tf --with-code" in text
    compile(text, NETWORK, "exec")


@pytest.mark.parametrize("to", ["tf", "mindspore"])
def test_notes_are_of_what_computes_otherwise_and_not_of_the_network(to, tmp_path):
    source = tmp_path / "source"
    write_case(source, *CASES["bert"])
    code = crossdistil.convert(source, tmp_path / "code", to=to, with_code=True)["notes"]
    bare = crossdistil.convert(source, tmp_path / "bare", to=to)["notes"]
    assert code == ["network.py loads it: from network import load"] and any("hidden_act is gelu" in note for note in bare)


def test_a_model_that_no_framework_has_says_where_it_goes(tmp_path, said):
    words = build_words(["a fine film"], 20)
    save_model(random_model(BILSTM.model_copy(update={"vocab_size": words.vocab_size})), tmp_path / "model", words)
    code, _, errors = said("convert", tmp_path / "model", tmp_path / "out", "--to", "tf")
    assert code == 2 and "--with-code writes one beside" in errors and errors.count("\n") == 1
    assert "crossdistil export MODEL NEW --to onnx" in errors
    for option in (["--encoder-only"], ["--resize-vocabulary", "99"], ["--prefix", "lstm"]):
        code, _, errors = said("convert", tmp_path / "model", tmp_path / "out", "--to", "tf", "--with-code", *option)
        assert code == 2 and option[0] in errors and errors.count("\n") == 1 and not (tmp_path / "out").exists()


@pytest.mark.parametrize("to", ["pytorch", "tf", "mindspore", "oneflow"])
def test_a_bilstm_goes_there_and_back(to, tmp_path, in_this_process):
    """Bit for bit, and proved; inspect tells what it is."""
    source, there, back = (tmp_path / name for name in ("source", "there", "back"))
    write_bilstm(source, True)
    told = crossdistil.convert(source, there, to=to, with_code=True, verify=to == "tf")
    assert told["tensors"] == 9 and not told["dropped"] and not told["added"]
    assert crossdistil.inspect(there)["family"] == "bilstm"
    crossdistil.convert(there, back, to="pytorch")
    own, other = load_model(source), load_model(back)
    assert own.config == other.config and own.labels == other.labels
    assert all(np.array_equal(own.parameters[name], other.parameters[name]) for name in own.parameters)


@pytest.mark.parametrize("change, message", [
    (lambda tensors: tensors.pop("lstm.hidden_bias"), "missing tensor lstm.hidden_bias (2, 48)"),
    (lambda tensors: tensors.update({"lstm.hidden_bais": tensors["lstm.hidden_bias"]}), "did you mean 'lstm.hidden_bias'"),
    (lambda tensors: tensors.update({"embeddings.weight": tensors["embeddings.weight"][:5]}), "has shape (5, 20), config.json"),
])  # fmt: skip
def test_a_bilstm_of_other_tensors_is_refused(change, message, tmp_path):
    write_bilstm(tmp_path / "source", False)
    path = tmp_path / "source" / "model.safetensors"
    tensors = dict(load_file(path))
    change(tensors)
    save_file(tensors, path)
    with pytest.raises(CheckpointError, match=re.escape(message)):
        crossdistil.convert(tmp_path / "source", tmp_path / "out", to="mindspore", with_code=True)


@pytest.mark.parametrize("to", ["pytorch", "tf", "mindspore", "oneflow"])
def test_a_network_is_one_readable_file(to, tmp_path):
    source = tmp_path / "source"
    write_case(source, *CASES["bert"])
    crossdistil.convert(source, tmp_path / "out", to=to, with_code=True)
    text = (tmp_path / "out" / NETWORK).read_text()
    assert max(map(len, text.splitlines())) <= 130 and "import crossdistil" not in text and len(text.splitlines()) < 460
    assert text.count("# --- end") == 1 and "KEYS = {}" not in text


def test_a_relu_before_the_classifier_is_told_and_computed(tiny_model, tmp_path):
    """TinyBERT's, which transformers has not: the network reads it in config.json."""
    model = load_model(tiny_model)
    config = model.config.model_copy(update={"classifier_relu": True})
    save_model(replace(model, config=config), tmp_path / "source", load_tokenizer(tiny_model))
    notes = crossdistil.convert(tmp_path / "source", tmp_path / "out", to="pytorch", with_code=True)["notes"]
    assert any("network.py computes what other code does not: classifier_relu" in note for note in notes)
    assert '"classifier_relu": ("classifier_relu", True)' in (tmp_path / "out" / NETWORK).read_text()
