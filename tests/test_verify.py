"""`--verify`: it says that two models are the same only where they are, works on whatever was read, and tells what it could
not compute. Frameworks that read the results strictly, without any table of ours, are in test_conversion_*."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

import crossdistil
from crossdistil.converters.canonical import ReadOptions, read_canonical
from crossdistil.converters.verify import LIMITS, ROUNDING, limits, not_computed, reference_outputs, rounding, wanted_outputs
from crossdistil.core.app import framework_forward, verify
from crossdistil.core.errors import CheckpointError
from crossdistil.tests.conversion_sources import BERT, FAMILIES, random_tensors, write_config, write_source

pytestmark = pytest.mark.only_backend("torch")

LAYER = "bert.encoder.layer.{}."
QUERY = LAYER.format(0) + "attention.self.query.weight"
TYPES = "bert.embeddings.token_type_embeddings.weight"


@pytest.fixture(autouse=True)
def torch_here(monkeypatch):
    """PyTorch alone, in this process."""
    monkeypatch.setattr(verify, "python_with", lambda module: Path("python") if module == "torch" else None)
    monkeypatch.setattr(verify, "_framework_outputs", lambda python, *call: framework_forward.framework_outputs(*call))


@pytest.fixture(scope="module")
def converted(tmp_path_factory) -> Path:
    """`source`, and `pytorch` and `tf` made of it."""
    folder = tmp_path_factory.mktemp("converted")
    write_source(folder / "source", BERT, heads=False)
    for to in ("pytorch", "tf"):
        crossdistil.convert(folder / "source", folder / to, to=to)
    return folder


def proof(source: Path, result: Path, to: str = "pytorch", **options) -> verify.Verification:
    read = ReadOptions(**options)
    return verify.verify(read_canonical(source, read), read, result, to)


def one_weight(tensors):
    tensors[QUERY][3, 5] = np.nextafter(tensors[QUERY][3, 5], np.float32(9))


def swapped_layers(tensors):
    for name in [name for name in tensors if name.startswith(LAYER.format(0))]:
        other = name.replace(LAYER.format(0), LAYER.format(1))
        tensors[name], tensors[other] = tensors[other], tensors[name]


def transposed(tensors):
    tensors[QUERY] = np.ascontiguousarray(tensors[QUERY].T)


def permuted_heads(tensors):
    tensors[QUERY] = np.roll(tensors[QUERY], BERT.head_size, axis=0)


def swapped_types(tensors):
    tensors[TYPES] = np.ascontiguousarray(tensors[TYPES][::-1])


def without_classifier(tensors):
    del tensors["classifier.weight"], tensors["classifier.bias"]


def with_another_head(tensors):
    tensors |= {"cls.seq_relationship.weight": np.ones((2, 24), np.float32), "cls.seq_relationship.bias": np.ones(2, np.float32)}


@pytest.mark.parametrize(
    "mutate",
    [one_weight, swapped_layers, transposed, permuted_heads, swapped_types, without_classifier, with_another_head],
    ids=lambda mutate: mutate.__name__,
)
def test_another_weight_is_another_model(converted, tmp_path, mutate):
    tensors = load_file(converted / "pytorch" / "model.safetensors")
    mutate(tensors)
    save_file(tensors, tmp_path / "model.safetensors", {"format": "pt"})
    (tmp_path / "config.json").write_bytes((converted / "pytorch" / "config.json").read_bytes())
    with pytest.raises(CheckpointError, match="verification failed: "):
        proof(converted / "source", tmp_path)


@pytest.mark.parametrize(
    "changes",
    [
        {"hidden_act": "gelu_new"},
        {"layer_norm_eps": 1e-7},
        {"num_attention_heads": 2},
        {"id2label": {"0": "class 1", "1": "class 0", "2": "class 2"}},
        {"architectures": ["BertForTokenClassification"]},
    ],
    ids=lambda changes: next(iter(changes)),
)
@pytest.mark.parametrize("to", ["pytorch", "tf"])
def test_another_configuration_is_another_model(converted, tmp_path, changes, to):
    """Whatever it does to the sample's numbers: an epsilon changes them by less than float32's rounding."""
    for path in (converted / to).iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(config | changes))
    with pytest.raises(CheckpointError, match=f"verification failed: ({'|'.join((*changes, 'task'))}) |id2label: class"):
        proof(converted / "source", tmp_path, to)


def test_googles_configuration_is_verified_too(converted, tmp_path):
    for path in (converted / "tf").iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    config = json.loads((tmp_path / "bert_config.json").read_text())
    (tmp_path / "bert_config.json").write_text(json.dumps(config | {"num_attention_heads": 3}))
    with pytest.raises(CheckpointError, match=r"bert_config\.json: num_attention_heads is 3 in the result, 4 in the source"):
        proof(converted / "source", tmp_path, "tf")
    assert proof(converted / "source", converted / "tf", "tf").worst < LIMITS["F32"]


@pytest.mark.parametrize(("wrong", "told"), [(1e-3, "1.0e-03"), (np.nan, "inf")])
def test_what_a_framework_computes_otherwise_is_a_failure(converted, monkeypatch, wrong, told):
    """Also where it is no number, which compares with nothing."""
    found = reference_outputs(read_canonical(converted / "source"))
    found["hidden/1"] = found["hidden/1"] + wrong * max(1.0, np.abs(found["hidden/1"]).max())
    monkeypatch.setattr(verify, "_framework_outputs", lambda *call: found)
    with pytest.raises(CheckpointError, match=f"hidden/1 of pytorch, result differs from the source by {told}"):
        proof(converted / "source", converted / "pytorch")


def test_equal_bits_of_an_ill_conditioned_model_never_fail(tmp_path):
    """The limit is that of the rounding which the source itself has in float32."""
    tensors = write_source(tmp_path / "source", BERT, None)
    for name, array in tensors.items():
        if name.endswith("weight") and array.ndim == 2:
            array *= 30
    save_file(tensors, tmp_path / "source" / "model.safetensors", {"format": "pt"})
    checkpoint = read_canonical(tmp_path / "source")
    reference = reference_outputs(checkpoint)
    own, allowed = rounding(checkpoint, reference), limits(checkpoint, checkpoint, reference)
    assert max(own.values()) > 1e-5
    assert allowed == {name: max(1e-5, ROUNDING * value) for name, value in own.items()}
    told = crossdistil.convert(tmp_path / "source", tmp_path / "new", to="pytorch", verify=True)["verification"]
    assert set(told["differences"]) == {"NumPy, result", "pytorch, result", "pytorch, source"} and told["limit"] >= 1e-5


PARTS = {
    "a token classifier": (("bert.pooler.*",), ["BertForTokenClassification"], {"logits"}, {"pooled"}),
    "half a pooler": (("bert.pooler.dense.bias",), None, set(), {"pooled", "logits", "nsp"}),
    "half a head": (("cls.predictions.transform.dense.bias",), None, {"pooled", "logits", "nsp"}, {"mlm"}),
    "half a layer": ((LAYER.format(1) + "output.*",), None, {"hidden/1"}, {"hidden/2", "pooled", "logits", "mlm", "nsp"}),
    "no words": (("bert.embeddings.word_*",), None, set(), {"hidden/0", "hidden/1", "hidden/2", "pooled", "logits", "mlm"}),
}


@pytest.mark.parametrize("name", PARTS)
def test_only_what_is_there_is_computed_and_the_rest_is_told(tmp_path, name):
    patterns, architectures, computed, lost = PARTS[name]
    tensors = random_tensors(BERT, heads=architectures is None)
    kept = {name: array for name, array in tensors.items() if not any(Path(name).match(pattern) for pattern in patterns)}
    write_config(tmp_path / "source", BERT)
    save_file(kept, tmp_path / "source" / "model.safetensors", {"format": "pt"})
    if architectures is not None:
        config = json.loads((tmp_path / "source" / "config.json").read_text())
        (tmp_path / "source" / "config.json").write_text(json.dumps(config | {"architectures": architectures}))
        patterns = ()
    told = crossdistil.convert(tmp_path / "source", tmp_path / "new", to="pytorch", verify=True, allow_missing=patterns)
    outputs = set(told["verification"]["differences"]["NumPy, result"])
    assert computed <= outputs and not lost & outputs
    said = " ".join(told["verification"]["not_run"])
    assert all(output in said for output in lost) or architectures is not None
    assert json.loads((tmp_path / "new" / "config.json").read_text())["architectures"] == (
        architectures or ["BertForSequenceClassification"]
    )


@pytest.mark.parametrize("task", ["BertForQuestionAnswering", "BertForMultipleChoice"])
def test_other_tasks_stay_what_they_are(tmp_path, task):
    tensors = random_tensors(BERT, 1 if "Choice" in task else None, heads=False)
    if "Question" in task:
        tensors |= {"qa_outputs.weight": np.ones((2, 24), np.float32), "qa_outputs.bias": np.zeros(2, np.float32)}
    write_config(tmp_path / "source", BERT, None)
    config = json.loads((tmp_path / "source" / "config.json").read_text()) | {"architectures": [task]}
    (tmp_path / "source" / "config.json").write_text(json.dumps(config))
    save_file(tensors, tmp_path / "source" / "model.safetensors", {"format": "pt"})
    told = crossdistil.convert(tmp_path / "source", tmp_path / "new", to="pytorch", verify=True)
    assert "logits" in told["verification"]["differences"]["pytorch, result"]
    result = json.loads((tmp_path / "new" / "config.json").read_text())
    assert result["architectures"] == [task] and "problem_type" not in result


def test_a_decoder_of_its_own_predicts_the_words(tmp_path):
    tensors = random_tensors(BERT, None)
    decoder = np.random.default_rng(9).normal(0, 0.2, (61, 24)).astype(np.float32)
    write_config(tmp_path, BERT, None)
    config = json.loads((tmp_path / "config.json").read_text()) | {"tie_word_embeddings": False}
    (tmp_path / "config.json").write_text(json.dumps(config))
    save_file(tensors | {"cls.predictions.decoder.weight": decoder}, tmp_path / "model.safetensors", {"format": "pt"})
    checkpoint = read_canonical(tmp_path)
    untied = reference_outputs(checkpoint)["mlm"]
    words = tensors["bert.embeddings.word_embeddings.weight"].astype(np.float64)
    del checkpoint.tensors["cls.predictions.decoder.weight"]
    tied = reference_outputs(checkpoint)["mlm"]
    bias = tensors["cls.predictions.bias"].astype(np.float64)
    transformed = np.linalg.lstsq(words, (tied - bias).reshape(-1, 61).T, rcond=None)[0].T
    np.testing.assert_allclose(untied.reshape(-1, 61), transformed @ decoder.T.astype(np.float64) + bias, atol=1e-9)


@pytest.mark.parametrize("family", FAMILIES)
def test_every_output_of_every_family(tmp_path, family):
    write_source(tmp_path / "source", FAMILIES[family])
    checkpoint = read_canonical(tmp_path / "source")
    assert {"logits", *checkpoint.heads} < set(wanted_outputs(checkpoint)) and not not_computed(checkpoint)


@pytest.mark.parametrize("readable", [True, False])
def test_a_training_frameworks_checkpoint(tmp_path, readable):
    """Of Lightning, around a model in DistributedDataParallel. What PyTorch itself refuses to read is told in one line."""
    import torch

    write_config(tmp_path, BERT)
    state = {f"module.model.{name}": torch.from_numpy(array) for name, array in random_tensors(BERT).items()}
    beside = {"epoch": 3, "global_step": 9, "loops": {"fit_loop": {"state_dict": {}}}, "hyper_parameters": {"lr": 1e-3}}
    beside |= {"optimizer_states": [{"state": {0: {"exp_avg": torch.ones(3)}}}]}
    torch.save(
        {"state_dict": state, **beside, "arguments": None if readable else argparse.Namespace(seed=1)}, tmp_path / "last.ckpt"
    )
    told = crossdistil.convert(tmp_path / "last.ckpt", tmp_path / "new", to="pytorch", verify=True)["verification"]
    said = [line for line in told["not_run"] if line.startswith("pytorch: source not run there: ")]
    assert ("pytorch, source" in told["differences"]) == readable and len(said) == (not readable)
    assert "pytorch, result" in told["differences"] and not any("\n" in line for line in said)
