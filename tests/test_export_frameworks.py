"""Exports that a framework writes and runs: at every size they answer as NumPy does in float64."""

from __future__ import annotations

import numpy as np
import pytest

from crossdistil.core.app.export_targets import TARGETS
from crossdistil.core.app.exported import runtime_of
from crossdistil.core.checkpoint import Model, load_model
from crossdistil.core.checkpoint_saving import save_model
from crossdistil.core.data.tokenize import load_tokenizer
from crossdistil.core.errors import CrossdistilError
from crossdistil.core.model_answers import logits_function
from crossdistil.core.models.answer_heads import SPANS, TOKENS
from crossdistil.core.models.pooling import Pooling
from crossdistil.core.reference import ReferenceOps
from crossdistil.tests import tiny
from crossdistil.tests.test_export import BILSTM, SHAPES, random_batch, random_model
from crossdistil.tests.tiny_families import DEBERTA_V2, MODERNBERT, MPNET

VECTOR = tiny.ONE_LAYER.embedding(Pooling("last", True))
OTHER_ANSWERS = (tiny.ONE_LAYER.answering(TOKENS), tiny.ONE_LAYER.answering(SPANS), VECTOR)
"""Heads of tokens, of the places of an answer, and none: a vector of a text."""


def named(config):
    """What a test of a configuration is called."""
    head = getattr(config, "classifier", None)
    return config.family.model_type + (f"-{head.name}" if config in OTHER_ANSWERS else "")


def largest_difference(target, config, path):
    """Of the logits at each of the sizes, relative to the largest one."""
    generator = np.random.default_rng(4)
    if config in OTHER_ANSWERS:
        outputs = 2 if config.classifier.token_map else None
        model = Model(config, tiny.random_parameters(config, 2, 3), outputs)
    else:
        model = random_model(config)
    target.write(model, path / target.file, "fp32", False)
    infer, function = target.load(path / target.file, config), logits_function(config)
    differences = []
    for rows, length in SHAPES:
        batch = random_batch(config, rows, length, generator)
        [expected] = function(ReferenceOps(), model.parameters, batch)
        assert infer(batch)[0].shape == expected.shape
        differences.append(np.abs(infer(batch)[0] - expected).max() / max(1.0, np.abs(expected).max()))
    return max(differences)


@pytest.mark.only_backend("torch")
@pytest.mark.parametrize("config", [tiny.CONFIG, MPNET, DEBERTA_V2, MODERNBERT, *OTHER_ANSWERS], ids=named)
def test_a_program_of_torch(config, tmp_path):
    assert largest_difference(TARGETS["pt2"], config, tmp_path) <= 2e-6


@pytest.mark.only_backend("torch")
def test_a_program_of_torch_has_no_lstm(tmp_path):
    with pytest.raises(CrossdistilError, match="pt2: torch.export unrolls an LSTM .* a BiLSTM goes to onnx"):
        TARGETS["pt2"].write(random_model(BILSTM), tmp_path / "m.pt2", "fp32", False)


@pytest.mark.only_backend("torch")
def test_machine_code_of_torch(tiny_model, tmp_path, said, monkeypatch):
    """Compiled once, for all that is asked of it: sizes, gates, the commands, and that another processor refuses it."""
    import torch._inductor.config

    config = tiny.ONE_LAYER
    source, folder = tmp_path / "source", tmp_path / "aoti"
    save_model(random_model(config), source, load_tokenizer(tiny_model))
    # What the processor has is told by its flags: torch would compile a program for each, longer than the model's own.
    with torch._inductor.config.patch({"cpp.vec_isa_ok": True}):
        code, output, errors = said("export", source, folder, "--to", "aoti")
    assert code == 0 and "it is machine code for this processor" in errors, errors
    model = load_model(folder)
    runtime, generator = runtime_of(model), np.random.default_rng(4)
    function, parameters = logits_function(config), load_model(source).parameters
    for rows, length in SHAPES:
        batch = random_batch(config, rows, length, generator)
        [expected] = function(ReferenceOps(), parameters, batch)
        assert np.abs(runtime.infer(None, None)(batch)[0] - expected).max() <= 2e-6 * max(1.0, np.abs(expected).max())
    monkeypatch.setattr("crossdistil.core.app.exported.instructions", lambda: ["sse"])
    with pytest.raises(CrossdistilError, match=r"aoti: was compiled for .*, whose .* this processor lacks; export it here again"):
        runtime_of(model)
    with pytest.raises(CrossdistilError, match="--to aoti: torch.export unrolls an LSTM .* a BiLSTM goes to onnx"):
        TARGETS["aoti"].write(random_model(BILSTM), tmp_path / "m.aoti.pt2", "fp32", False)


FOR_MINDIR = (tiny.CONFIG, BILSTM, MPNET, DEBERTA_V2, MODERNBERT, *OTHER_ANSWERS)


@pytest.mark.only_backend("mindspore")
@pytest.mark.parametrize("config", FOR_MINDIR, ids=named)
def test_a_graph_of_mindspore(config, tmp_path):
    assert largest_difference(TARGETS["mindir"], config, tmp_path) <= 2e-6


@pytest.mark.only_backend("mindspore")
def test_a_graph_of_mindspore_has_the_plain_gelu(tmp_path):
    """Which other devices' compilers know, and which half precision can compute: no polynomial for a CPU."""
    TARGETS["mindir"].write(random_model(tiny.ONE_LAYER), tmp_path / "m.mindir", "fp32", False)
    graph = (tmp_path / "m.mindir").read_bytes()
    assert b"REF::Erf" in graph
