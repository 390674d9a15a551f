"""Exported models in ONNX Runtime: they answer as transformers and NumPy do, and one that does not is not written."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest

from crossdistil.converters.onnx_file import Port, node, write_onnx
from crossdistil.core.app.export_targets import write_graph
from crossdistil.core.app.exporting import ExportOptions, GateError, export, slower
from crossdistil.core.app.onnx_runtime import load_session
from crossdistil.core.checkpoint import Model, load_model
from crossdistil.core.checkpoint_saving import save_model
from crossdistil.core.data.tasks import resolve_task
from crossdistil.core.data.tokenize import load_tokenizer
from crossdistil.core.data.word_vocabulary import build_words
from crossdistil.core.errors import CheckpointError, CrossdistilError
from crossdistil.core.model_answers import logits_function
from crossdistil.core.models.architectures import head_names, make_forward, tensor_shapes
from crossdistil.core.models.families.bilstm import BiLstmConfig
from crossdistil.core.models.outputs import LOGITS
from crossdistil.core.processes import code_command
from crossdistil.core.reference import ReferenceOps
from crossdistil.core.task_data import load_data
from crossdistil.core.task_section import TaskSection
from crossdistil.tests import tiny
from crossdistil.tests.tiny_families import FAMILIES, LABELS, VARIANTS, everything

BILSTM = BiLstmConfig(vocab_size=tiny.CONFIG.vocab_size, embedding_size=20, hidden_size=12, fully_connected_size=16)
MODELS = {**VARIANTS, "bilstm": BILSTM, "bilstm of pairs": BILSTM.model_copy(update={"pairs": True})}
LIMITS = {"fp32": 2e-6, "fp16": 5e-3, "int8": 0.2}
SHAPES = ((1, 1), (1, 40), (3, 7), (32, 12))


def random_model(config) -> Model:
    generator = np.random.default_rng(3)
    shapes = tensor_shapes(config, len(LABELS))
    parameters = {name: (generator.standard_normal(shape) * 0.2).astype(np.float32) for name, shape in shapes.items()}
    return Model(config, parameters, len(LABELS), LABELS)


def random_batch(config, rows, length, generator):
    length = min(length, getattr(config, "positions", length))  # what RoBERTa has less

    def mask():
        lengths = generator.integers(1, length + 1, rows)
        return (np.arange(length) < lengths[:, None]).astype(np.float32)

    def ids():
        # transformers' RoBERTa takes 0 or 1 for padding wherever it stands
        return generator.integers(2, config.vocab_size, (rows, length)).astype(np.int32)

    if isinstance(config, BiLstmConfig):
        batch = {"input_ids": ids(), "attention_mask": mask()}
        batch["attention_mask"][0] *= rows == 1  # a row of padding only
        return batch | ({"second_ids": ids(), "second_mask": mask()} if config.pairs else {})
    types = generator.integers(0, 2, (rows, length)).astype(np.int32)
    return {"input_ids": ids(), "attention_mask": mask(), "token_type_ids": types}


@pytest.mark.parametrize("precision", LIMITS)
@pytest.mark.parametrize("config", MODELS.values(), ids=MODELS)
def test_every_architecture_answers_at_every_size(config, precision, tmp_path):
    import onnx
    import onnxruntime

    model, generator = random_model(config), np.random.default_rng(5)
    path = tmp_path / "model.onnx"
    write_graph(model, path, precision, hidden=precision == "fp32")
    onnx.checker.check_model(str(path), full_check=True)
    names = [port.name for port in onnxruntime.InferenceSession(str(path)).get_outputs()]
    wanted = frozenset(names)
    assert names[0] == LOGITS
    if precision == "fp32" and not isinstance(config, BiLstmConfig):
        assert wanted == {name for name in everything(config) if name.split("/")[0] in ("logits", "pooled", "hidden")}
    infer, forward = load_session(path), make_forward(config.without_dropout(), wanted)
    for rows, length in SHAPES:
        batch = random_batch(config, rows, length, generator)
        expected = forward(ReferenceOps(), model.parameters, batch)
        for name, found in zip(names, infer(batch), strict=True):
            assert found.dtype == np.float32 and found.shape == expected[name].shape
            difference = np.abs(found - expected[name]).max() / max(1.0, np.abs(expected[name]).max())
            assert difference <= LIMITS[precision], (name, rows, length)


@pytest.mark.parametrize("config", [tiny.CONFIG, *FAMILIES.values()], ids=["bert", *FAMILIES])
def test_the_logits_are_those_of_transformers(config, tiny_model, tmp_path):
    import torch
    from transformers import AutoModelForSequenceClassification

    save_model(random_model(config), tmp_path / "model", load_tokenizer(tiny_model))
    referee = AutoModelForSequenceClassification.from_pretrained(tmp_path / "model").eval()
    export(tmp_path / "model", tmp_path / "exported", ExportOptions(), print)
    infer, batch = load_session(tmp_path / "exported" / "model.onnx"), random_batch(config, 5, 17, np.random.default_rng(1))
    taken = {name: torch.from_numpy(array).long() for name, array in batch.items()}
    if not config.type_vocab_size:
        del taken["token_type_ids"]
    if config.family.block.causal:  # transformers tells the last token by the padding's number, which stands behind it
        taken["input_ids"] *= taken["attention_mask"]
    with torch.no_grad():
        expected = referee(**taken).logits.numpy()
    assert np.abs(infer(batch)[0] - expected).max() <= 1e-5 * max(1.0, np.abs(expected).max())


@pytest.mark.parametrize("precision", LIMITS)
def test_an_answer_does_not_depend_on_the_batch(precision, tmp_path):
    model, generator = random_model(tiny.CONFIG), np.random.default_rng(7)
    write_graph(model, tmp_path / "model.onnx", precision)
    infer, batch = load_session(tmp_path / "model.onnx"), random_batch(tiny.CONFIG, 16, 9, generator)
    together = infer(batch)[0]
    for row in range(16):
        alone = infer({name: array[row : row + 1] for name, array in batch.items()})[0]
        assert np.abs(alone - together[row]).max() <= 1e-5


def test_int8_is_what_its_formula_says(tmp_path):
    """A linear map of rows of very different size, in NumPy, by vector-wise quantisation."""
    from crossdistil.converters.onnx_precision import make_recorder
    from crossdistil.converters.recording_ops import record

    generator = np.random.default_rng(2)
    weight = (generator.standard_normal((6, 10)) * np.logspace(-3, 2, 6)[:, None]).astype(np.float32)
    bias, x = generator.standard_normal(6).astype(np.float32), generator.standard_normal((4, 10)).astype(np.float32)
    x *= np.array([1e-4, 1.0, 1e3, 0.0], np.float32)[:, None]
    graph, ops = make_recorder("int8")
    ports = record(
        lambda ops, params, batch: {"y": ops.linear(batch["x"], params["weight"], params["bias"])},
        {"weight": weight, "bias": bias},
        {"x": (np.float32, ("rows", "columns"))},
        graph,
        ops,
    )
    write_onnx(tmp_path / "m.onnx", "m", graph.nodes, graph.weights, graph.inputs, ports, {})
    (found,) = load_session(tmp_path / "m.onnx")({"x": x})
    scale, scales = np.abs(x).max(1, keepdims=True) / 127, np.abs(weight).max(1) / 127
    with np.errstate(invalid="ignore"):
        rows, columns = np.nan_to_num(np.rint(x / scale)), np.rint(weight / scales[:, None])
    expected = (rows @ columns.T) * scale * scales + bias
    assert np.abs(found - expected).max(1) == pytest.approx(0, abs=1e-5 * np.abs(expected).max())
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-6)


def test_weights_over_the_limit_of_a_message_lie_beside_it(tmp_path):
    import onnx
    import onnxruntime

    weights = {"w": np.arange(6000, dtype=np.float32).reshape(2, 3000), "v": np.arange(3000, dtype=np.float32)}
    nodes = [node("MatMul", ["w", "v"], ["y"], {})]
    files = write_onnx(tmp_path / "big.onnx", "big", nodes, weights, [], [Port("y", np.float32, (2,))], {}, limit=10_000)
    assert [path.name for path in files] == ["big.onnx", "big.onnx.data"] and files[0].stat().st_size < 1000
    onnx.checker.check_model(str(files[0]), full_check=True)
    (found,) = onnxruntime.InferenceSession(str(files[0])).run(None, {})
    np.testing.assert_allclose(found, weights["w"] @ weights["v"], rtol=1e-6)


def test_an_export_says_what_it_is_and_is_judged_on_dev(tiny_model, tiny_task, tmp_path):
    import onnxruntime

    model = trained(tiny_model, tmp_path / "model")
    report = export(model, tmp_path / "out", ExportOptions("int8", data=tiny_task), print)
    assert [gate["name"] for gate in report["gates"]] == [
        "alone and in a batch", "same answers on dev, %", "accuracy on dev, points lost",
    ]  # fmt: skip
    assert json.loads((tmp_path / "out" / "export.json").read_text()) == report
    assert report["bytes"] == (tmp_path / "out" / "model.onnx").stat().st_size
    assert load_tokenizer(tmp_path / "out").fingerprint == load_tokenizer(model).fingerprint
    metadata = onnxruntime.InferenceSession(str(tmp_path / "out" / "model.onnx")).get_modelmeta().custom_metadata_map
    assert json.loads(metadata["labels"]) == ["negative", "positive"] and metadata["precision"] == "int8"
    with pytest.raises(CrossdistilError, match="is there already; --overwrite replaces it"):
        export(model, tmp_path / "out", ExportOptions(), print)
    assert export(model, tmp_path / "out", ExportOptions(overwrite=True), print)["precision"] == "fp32"


def test_limits_that_are_given_hold(tiny_model, tiny_task, tmp_path):
    """Where none is given, two texts of a small dev may answer otherwise."""
    model, limits = trained(tiny_model, tmp_path / "model"), {}
    for name, given in (("usual", ()), ("given", (0.0, 100.0))):
        try:
            report = export(model, tmp_path / name, ExportOptions("fp16", "onnx", tiny_task, *given), print)
        except GateError as error:
            report = error.report
        limits[name] = [gate["limit"] for gate in report["gates"][-2:]]
    rows = len((tiny_task / "dev.tsv").read_text().splitlines()) - 1
    assert limits == {"usual": [pytest.approx(100 - 200 / rows), pytest.approx(200 / rows)], "given": [100.0, 0.0]}


def test_a_precision_that_costs_time_is_told():
    found = {"int8": {"batch 1": 3.0, "batch 32": 1.1}, "fp32": {"batch 1": 1.0, "batch 32": 1.0}}
    assert slower(found, "int8") == ["note: int8 is slower than float32 on this processor: 3 ms a text against 1, batch 1"]


def trained(source, folder):
    """The tiny model as one that knows its task."""
    model = load_model(source)
    task = {"name": "sst-2", "max_length": 24}
    save_model(replace(model, about={"task": task, "max_length": 24}), folder, load_tokenizer(source))
    return folder


def test_a_model_that_collapses_in_8_bits_is_not_written(tiny_model, tiny_task, tmp_path, said):
    """The classifier reads one feature, which is always 0, with a weight that leaves the others no step of 127; what is left
    are two equal biases. In float32 that feature changes nothing, and half of dev's texts have the one answer."""
    folder = trained(tiny_model, tmp_path / "model")
    model = load_model(folder)
    parameters = {name: array.copy() for name, array in model.parameters.items()}
    parameters["bert.pooler.dense.weight"][0] = parameters["bert.pooler.dense.bias"][0] = 0
    parameters["classifier.weight"] *= 100
    parameters["classifier.weight"][1] = -parameters["classifier.weight"][0]
    parameters["classifier.bias"][:] = 0
    changed = replace(model, parameters=parameters)
    section = TaskSection(name="sst-2", data=tiny_task, max_length=24)
    data = load_data(resolve_task(section), section, load_tokenizer(folder), (24,), ("dev",))
    function = logits_function(model.config)
    _, logits = data.score("dev", lambda batch: function(ReferenceOps(), parameters, batch))
    middle = np.median(logits[:, 0]).astype(np.float32)
    parameters["classifier.bias"][:] = [-middle, middle]
    parameters["classifier.weight"][:, 0] = 1e9
    save_model(changed, folder, load_tokenizer(tiny_model))
    export(folder, tmp_path / "fp32", ExportOptions(data=tiny_task), print)
    with pytest.raises(GateError, match="same answers on dev, %: got") as caught:
        export(folder, tmp_path / "int8", ExportOptions("int8", data=tiny_task), print)
    assert not (tmp_path / "int8").exists() and not all(gate["passed"] for gate in caught.value.report["gates"])
    code, output, errors = said("export", folder, tmp_path / "int8", "--precision", "int8", "--data", tiny_task)
    assert code == 1 and "FAILED" in output and errors.endswith("is not written: the model falls through a gate\n")
    assert not (tmp_path / "int8").exists()


def test_what_cannot_be_exported_says_why(tiny_model, tmp_path):
    with pytest.raises(CrossdistilError, match="int8: needs --data"):
        export(tiny_model, tmp_path / "out", ExportOptions("int8"), print)
    (tmp_path / "model.onnx").write_bytes(b"\x08\x0a\x12")
    with pytest.raises(CheckpointError, match="model.onnx: ONNX Runtime does not take it"):
        load_session(tmp_path / "model.onnx")


def test_an_exported_folder_predicts_and_is_evaluated(tiny_model, tiny_task, tmp_path, said):
    about = {"task": {"name": "sst-2", "max_length": 24}, "max_length": 24}
    model, head = random_model(tiny.CONFIG), head_names(tiny.CONFIG)
    parameters = {name: array[:2] if name in head else array for name, array in model.parameters.items()}
    model = replace(model, parameters=parameters, outputs=2, labels=("negative", "positive"), about=about)
    save_model(model, tmp_path / "model", load_tokenizer(tiny_model))
    export(tmp_path / "model", tmp_path / "out", ExportOptions(), print)
    texts = ["", "a fine film", "word " * 60]
    (code, output, _), (_, expected, _) = (said("predict", tmp_path / name, *texts) for name in ("out", "model"))
    found, wanted = ([json.loads(line) for line in lines.splitlines()] for lines in (output, expected))
    assert code == 0 and [line["text"] for line in found] == texts
    for one, other in zip(found, wanted, strict=True):
        assert one["label"] == other["label"]
        assert one["probabilities"] == pytest.approx(other["probabilities"], abs=1e-5)
    metrics = [json.loads(said("evaluate", tmp_path / name, "--data", tiny_task)[1]) for name in ("out", "model")]
    assert metrics[0] == metrics[1]
    code, _, errors = said("predict", tmp_path / "out", "a", "--backend", "torch")
    assert code == 2 and "--backend:" in errors and "is exported to onnx" in errors
    weights = bytearray((tmp_path / "out" / "model.onnx").read_bytes())
    weights[len(weights) // 2] ^= 1  # of a weight: the runtime takes it
    (tmp_path / "out" / "model.onnx").write_bytes(weights)
    code, output, errors = said("predict", tmp_path / "out", "a")
    assert (code, output) == (2, "") and "model.onnx: is not as it was written" in errors


def test_a_model_of_pairs_is_compared_without_a_task(tmp_path):
    words = build_words(["a fine film", "a dull story"], 20)
    config = BILSTM.model_copy(update={"pairs": True, "vocab_size": words.vocab_size})
    save_model(random_model(config), tmp_path / "model", words)
    report = export(tmp_path / "model", tmp_path / "out", ExportOptions(), print)
    assert all(gate["passed"] for gate in report["gates"]) and report["milliseconds"]["fp32"].keys() == {"batch 1", "batch 32"}


WITHOUT = """
import contextlib, io, json, sys

class Without:
    def __init__(self, finder):
        self.finder = finder

    def find_spec(self, name, *others):
        hidden = name.split(".")[0] in ("torch", "mindspore", "oneflow", "tensorflow", "transformers")
        return None if hidden else self.finder.find_spec(name, *others)

sys.meta_path[:] = map(Without, sys.meta_path)
from crossdistil.backends import registry
registry._candidates = lambda name: []  # and no other Python has it
from crossdistil.core.app.cli import main
for arguments in json.loads(sys.argv[1]):
    sys.argv, output, errors = ["crossdistil", *arguments], io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(output), contextlib.redirect_stderr(errors), contextlib.suppress(SystemExit):
        main()
    print(json.dumps([output.getvalue(), errors.getvalue()]))
"""


def test_an_exported_folder_needs_no_framework(tiny_model, tiny_task, tmp_path):
    folder, out, task = str(trained(tiny_model, tmp_path / "model")), str(tmp_path / "out"), str(tiny_task)
    export(tmp_path / "model", tmp_path / "out", ExportOptions(), print)
    given = [["predict", out, "a fine film"], ["evaluate", out, "--data", task]]
    given += [["predict", folder, "a fine film"], ["evaluate", folder, "--data", task, "--backend", "torch"]]
    command = [*code_command(sys.executable, f"exec({WITHOUT!r})"), json.dumps(given)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    answers = [json.loads(line) for line in done.stdout.splitlines()]
    assert json.loads(answers[0][0])["label"] in ("negative", "positive")
    assert 0 <= json.loads(answers[1][0])["accuracy"] <= 1
    way = f"; or without any: crossdistil export {folder} NEW --to onnx makes a folder for ONNX Runtime"
    for (output, errors), problem in zip(answers[2:], ("no backend is installed", "backend 'torch': not installed")):
        assert output == "" and errors.count("\n") == 1 and problem in errors and way in errors


def test_the_time_of_an_evaluation_is_told(tiny_model, tiny_task, tmp_path, said):
    export(trained(tiny_model, tmp_path / "model"), tmp_path / "out", ExportOptions(), print)
    code, output, errors = said("evaluate", tmp_path / "out", "--data", tiny_task)
    found = re.search(r"evaluated 21 texts in ([0-9.]+) s: ([0-9.]+) ms a text$", errors, re.MULTILINE)
    assert code == 0 and float(found[2]) == pytest.approx(1000 * float(found[1]) / 21, abs=0.03)
    assert list(json.loads(output)) == ["accuracy"]
