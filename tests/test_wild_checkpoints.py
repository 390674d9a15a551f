"""What is in checkpoints beside a plain model: averages, successors, projections, adapters, and files of other formats."""

from __future__ import annotations

import json
import zipfile

import numpy as np
import pytest
from safetensors.numpy import save_file

import crossdistil
from crossdistil.converters.canonical import ReadOptions, read_canonical
from crossdistil.converters.formats import open_checkpoint
from crossdistil.converters.recognise import recognise
from crossdistil.core.app.models import model_folder
from crossdistil.core.errors import CheckpointError
from crossdistil.core.projections import load_projections
from crossdistil.tests.conversion_sources import BERT, random_tensors
from crossdistil.tests.real_names import LEGACY, of, pairs, shaped

CONFIG = BERT.model_dump(exclude={"classifier_relu"}) | {"model_type": "bert"}


def write(folder, tensors, file="model.safetensors", **keys):
    folder.mkdir(exist_ok=True)
    (folder / "config.json").write_text(json.dumps(CONFIG | keys))
    save_file(tensors, folder / file, metadata={"format": "pt"})
    return folder


@pytest.fixture
def tensors():
    return random_tensors(BERT, 3, heads=False)


@pytest.mark.only_backend("torch")
def test_moving_averages_as_tensorflow_writes_them(tmp_path, tensors):
    import tensorflow

    v1 = tensorflow.compat.v1
    crossdistil.convert(write(tmp_path / "pt", tensors), tmp_path / "tf", to="tf")
    plain = tensorflow.train.load_checkpoint(str(tmp_path / "tf" / "bert_model.ckpt"))
    names = list(plain.get_variable_to_shape_map())
    with v1.Graph().as_default(), v1.Session() as session:
        variables = [v1.get_variable(name, initializer=plain.get_tensor(name)) for name in names]
        average = v1.train.ExponentialMovingAverage(0.5)
        update = average.apply(variables)
        session.run(v1.global_variables_initializer())
        session.run([v1.assign(variable, variable + 1) for variable in variables])
        session.run(update)
        v1.train.Saver().save(session, str(tmp_path / "both.ckpt"))
        v1.train.Saver({average.average_name(v): average.average(v) for v in variables}).save(session, str(tmp_path / "ema.ckpt"))
        v1.train.Saver(variables, write_version=v1.train.SaverDef.V1).save(session, str(tmp_path / "old.ckpt"))
        expected = {v.op.name: (session.run(v), session.run(average.average(v))) for v in variables}
    config = tmp_path / "pt" / "config.json"
    for file, ema, index in (("both", False, 0), ("both", True, 1), ("ema", False, 1), ("ema", True, 1)):
        found = read_canonical(tmp_path / f"{file}.ckpt", ReadOptions(config=config, ema=ema))
        bias = found.tensors["bert.pooler.dense.bias"].load()
        assert np.array_equal(bias, expected["bert/pooler/dense/bias"][index]), (file, ema)
        told = [*found.notes, *found.dropped_by_reason]
        assert any("moving average" in line for line in told)
    with pytest.raises(CheckpointError, match="--ema: it has no moving averages"):
        read_canonical(tmp_path / "tf" / "bert_model.ckpt", ReadOptions(ema=True))
    with pytest.raises(CheckpointError, match="format V1, which is not read; in TensorFlow restore it and save it again"):
        open_checkpoint(tmp_path / "old.ckpt")


def test_slots_of_oneflows_converter_are_state_of_the_optimizer():
    slots = [f"{name}-{kind}" for name in LEGACY for kind in ("adam_m", "adam_v")]
    found = recognise(shaped([*LEGACY, *slots, "global_ste-global_step"]), None)
    assert pairs(found) == LEGACY and not found.unknown
    assert sorted(found.dropped.values()) == ["state of the optimizer"] * len(slots) + ["state of the training"]
    heads = {"output_weight-output_weights": "classifier.weight", "output_bia-output_bias": "classifier.bias"}
    short = {name: own for name, own in LEGACY.items() if not name.startswith("classification")} | heads
    assert pairs(recognise(shaped(short), None)) == short


def theseus(tensors):
    """A predecessor of 4 layers whose successor has the 2 of `tensors`, as the published code names them."""
    layers = {name: array for name, array in tensors.items() if ".layer." in name}
    both = tensors | {name.replace(".layer.", ".scc_layer."): array for name, array in layers.items()}
    for name, array in layers.items():
        both |= {
            name.replace(f".layer.{n}.", f".layer.{n + k}."): array + 1 for k in (0, 2) for n in range(2) if f".{n}." in name
        }
    return {f"module.{name}": np.ascontiguousarray(array) for name, array in both.items()}


def test_the_successor_of_theseus_is_read_when_told(tmp_path, tensors):
    folder = write(tmp_path / "theseus", theseus(tensors), num_hidden_layers=4)
    with pytest.raises(CheckpointError, match="scc_layer.*--successor reads the successor"):
        read_canonical(folder)
    found = read_canonical(folder, ReadOptions(successor=True))
    assert found.config.num_hidden_layers == 2 and found.raw["num_hidden_layers"] == 2
    assert all(np.array_equal(found.tensors[name].load(), array) for name, array in tensors.items())
    assert found.dropped_by_reason == {"of the predecessor, whose successor is read": 4 * 16}
    assert read_canonical(folder, ReadOptions(allow_extra=("*scc_layer*",))).config.num_hidden_layers == 4


def test_projections_of_each_layer(tmp_path, tensors):
    """`fit_denses` of TinyBERT's second version: one for the embeddings and one for each layer."""
    fits = {
        f"fit_denses.{n}.{p}": np.full((7, 24) if p == "weight" else 7, n, np.float32)
        for n in range(3)
        for p in ("weight", "bias")
    }
    folder = write(tmp_path / "v2", tensors | fits)
    crossdistil.convert(folder, tmp_path / "out", to="pytorch")
    assert {name.removeprefix("projection."): array[0].max() for name, array in load_projections(tmp_path / "out").items()} == {
        name: array[0].max() for name, array in fits.items()
    }


def test_an_adapter_is_told(tmp_path):
    """Names as peft writes them, alone and beside the weights."""
    layer = "base_model.model.bert.encoder.layer.0.attention.self.query"
    for names in (
        [f"{layer}.lora_A.weight", f"{layer}.lora_B.weight"],
        [f"{layer}.base_layer.weight", f"{layer}.lora_A.default.weight"],
    ):
        with pytest.raises(CheckpointError, match=r"is of a LoRA adapter \(PEFT\).*merge_and_unload\(\)"):
            recognise(shaped(names), None)
    (tmp_path / "adapter_config.json").write_text('{"peft_type": "LORA"}')
    save_file({f"{layer}.lora_A.weight": np.ones((2, 3), np.float32)}, tmp_path / "adapter_model.safetensors")
    for read in (open_checkpoint, model_folder):
        with pytest.raises(CheckpointError, match="is a folder of a LoRA adapter") as told:
            read(tmp_path)
        assert "\n" not in str(told.value)


@pytest.mark.only_backend("torch")
@pytest.mark.parametrize("name", ["weights.pth", "model.pt", "last.ckpt", "student.pkl", "model.bin", "weights.safetensors"])
def test_the_only_checkpoint_of_a_folder(tmp_path, tensors, name):
    import torch

    folder = write(tmp_path / "model", tensors, "weights.safetensors")
    if not name.endswith("safetensors"):
        (folder / "weights.safetensors").unlink()
        torch.save({own: torch.from_numpy(array) for own, array in tensors.items()}, folder / name)
    torch.save({"state": {}}, folder / "optimizer.pt")
    torch.save({"lr": torch.ones(1)}, folder / "training_args.bin")
    assert read_canonical(folder).tensors.keys() == tensors.keys()
    torch.save({"a": torch.ones(1)}, folder / "epoch_1.pth")
    with pytest.raises(CheckpointError, match="holds 2 checkpoints, .*; name one of them"):
        read_canonical(folder)


FOREIGN = {
    "tf_model.h5": (b"\x89HDF\r\n\x1a\n", "Keras HDF5 file, which is not read"),
    "model.keras": (None, "Keras HDF5 file"),
    "flax_model.msgpack": (b"\x85\xa4", "Flax checkpoint, which is not read"),
    "model.onnx": (b"\x08\x07", "ONNX graph"),
    "model.gguf": (b"GGUF\x03\0\0\0", "GGUF file"),
    "saved_model.pb": (b"\x08\x01", "SavedModel, which is not read as such; its weights are the checkpoint"),
}


@pytest.mark.parametrize("name", FOREIGN)
def test_formats_that_are_not_read_are_told(tmp_path, name):
    content, told = FOREIGN[name]
    if content is None:
        with zipfile.ZipFile(tmp_path / name, "w") as archive:
            archive.writestr("config.json", "{}")
    else:
        (tmp_path / name).write_bytes(content)
    for path in [tmp_path] if name.endswith(".pb") else [tmp_path, tmp_path / name]:
        for read in (open_checkpoint, model_folder):
            with pytest.raises(CheckpointError) as refused:
                read(path)
            assert told in str(refused.value) and str(refused.value).count("\n") == 0


def test_the_bias_that_tf_albert_adds():
    names = {f"tf_albert_for_masked_lm/{name}:0": own for name, own in of("albert", "tensorflow").items()}
    own, decoder = "tf_albert_for_masked_lm/predictions/bias:0", "tf_albert_for_masked_lm/predictions/decoder/bias:0"
    names = {name: canonical for name, canonical in names.items() if canonical != "predictions.bias"} | {
        decoder: "predictions.bias"
    }
    found = recognise(shaped([*names, own]), {"model_type": "albert"})
    assert pairs(found)[decoder] == "predictions.bias" and not found.unknown
    assert list(found.dropped) == [own] and "does not add" in found.dropped[own]


def test_heads_of_the_model_garden():
    """Names of official/nlp/modeling: a ClassificationHead over its own pooler, and one over the encoder's."""
    encoder = {
        "word_embeddings/embeddings": "bert.embeddings.word_embeddings.weight",
        "transformer/layer_0/self_attention/query/kernel": "bert.encoder.layer.0.attention.self.query.weight",
    }
    own = {
        "sentence_prediction/pooler_dense/kernel": "bert.pooler.dense.weight",
        "sentence_prediction/logits/kernel": "classifier.weight",
        "sentence_prediction/logits/bias": "classifier.bias",
    }
    found = recognise(shaped([*encoder, *own, "pooler_transform/kernel", "pooler_transform/bias"]), None)
    assert pairs(found) == encoder | own and not found.unknown
    assert set(found.dropped.values()) == {"pooler of the encoder, which its heads do not use"}
    assert found.matches["classifier.weight"].transpose
    pretraining = {
        "next_sentence/pooler_dense/bias": "bert.pooler.dense.bias",
        "next_sentence/logits/kernel": "cls.seq_relationship.weight",
    }
    pretraining |= {"cls/predictions/output_bias/bias": "cls.predictions.bias"}
    assert pairs(recognise(shaped([*encoder, *pretraining]), None)) == encoder | pretraining
    shared = {"pooler_transform/kernel": "bert.pooler.dense.weight", "classifier/logits/bias": "classifier.bias"}
    assert pairs(recognise(shaped([*encoder, *shared]), None)) == encoder | shared
