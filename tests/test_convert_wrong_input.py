"""What `crossdistil convert` refuses: one clear message, exit code 2, no traceback, and a destination that is as it was, with
nothing left beside it."""

from __future__ import annotations

import json
import os
import pickle
import zipfile
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

import crossdistil
from crossdistil.converters import tensorflow_checkpoint
from crossdistil.converters.tensors import Tensor, TensorInfo
from crossdistil.core.checksums import CHECKSUMS
from crossdistil.tests.conversion_sources import BERT, write_config, write_source
from crossdistil.tests.tiny_families import DISTILBERT
from crossdistil.tests.wrong_input_files import crossdistil as command
from crossdistil.tests.wrong_input_files import refused_conversion as refused

QUERY = "bert.encoder.layer.0.attention.self.query.weight"
EXPECTED = "expected a checkpoint of PyTorch, safetensors, TensorFlow, MindSpore or OneFlow"


@pytest.fixture
def source(tmp_path) -> Path:
    """A model to spoil."""
    write_source(tmp_path / "source", BERT)
    return tmp_path / "source"


def change_config(folder: Path, **changes) -> None:
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def change_weights(folder: Path, change) -> None:
    tensors = load_file(folder / "model.safetensors")
    change(tensors)
    save_file(tensors, folder / "model.safetensors", {"format": "pt"})


def convert_source(source: Path, to: str) -> Path:
    crossdistil.convert(source, source.parent / to, to=to)
    return source.parent / to


# ------------------------------------------------------------------------------------- what is no checkpoint


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("nothing", None, f"no such file; {EXPECTED}"),
        ("notes.txt", b"my notes\n", f"not recognised (it starts with b'my notes', 9 bytes); {EXPECTED}"),
        ("empty.bin", b"", f"not recognised (it starts with b'', 0 bytes); {EXPECTED}"),
        ("folder", {}, f"no checkpoint in this folder (it is empty); {EXPECTED}"),
        ("folder", {"a.txt": b"1", "b.txt": b"2"}, f"no checkpoint in this folder (a.txt, b.txt); {EXPECTED}"),
        (
            "model.h5", b"\x89HDF\r\n\x1a\n" + bytes(99),
            "is a Keras HDF5 file, which is not read; load the model in TensorFlow and write it with "
            "tf.train.Checkpoint(model=model).write(path)",
        ),
        ("model.gz", b"\x1f\x8b\x08" + bytes(99), "is a gzip archive; unpack it first"),
        (
            "model.safetensors.index.json", b'{"weight_map": {}}',
            "is text, JSON by its start; where it is the index of several files, name their folder",
        ),
    ],
)  # fmt: skip
def test_what_is_no_checkpoint(tmp_path, name, content, message):
    if isinstance(content, dict):
        (tmp_path / name).mkdir()
        for file, data in content.items():
            (tmp_path / name / file).write_bytes(data)
    elif content is not None:
        (tmp_path / name).write_bytes(content)
    assert refused(tmp_path, tmp_path / name) == [f"{{root}}/{name}: {message}"]


class Evil:
    """Runs a command when it is unpickled."""

    def __reduce__(self):
        return os.system, ("touch ran",)


def test_a_pickle_that_would_run_code(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with zipfile.ZipFile(tmp_path / "model.bin", "w") as archive:
        archive.writestr("archive/data.pkl", pickle.dumps({"weight": Evil()}, 2))
    (message,) = refused(tmp_path, tmp_path / "model.bin")
    assert message.startswith("{root}/model.bin: archive/data.pkl") and "posix.system" in message
    assert not (tmp_path / "ran").exists()


# ------------------------------------------------------------------------------------- damage


def test_a_safetensors_file_that_is_cut_off(tmp_path, source):
    path = source / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-100])
    (message,) = refused(tmp_path, source, to="mindspore")
    assert message.startswith("{root}/source/model.safetensors: ") and "is cut off" in message


@pytest.mark.parametrize("named", ["tf", "tf/bert_model.ckpt"])
def test_a_shard_of_tensorflow_that_is_cut_off_missing_or_changed(tmp_path, source, named):
    shard = convert_source(source, "tf") / "bert_model.ckpt.data-00000-of-00001"
    (tmp_path / "tf" / CHECKSUMS).unlink()  # for TensorFlow's own
    data = shard.read_bytes()
    shard.write_bytes(data[:-100])
    (message,) = refused(tmp_path, tmp_path / named, to="pytorch")
    assert message.startswith(f"{{root}}/tf/{shard.name}: is cut off: it has {len(data) - 100:,} bytes, expected ")
    shard.write_bytes(bytes([data[0] ^ 1]) + data[1:])
    (message,) = refused(tmp_path, tmp_path / named, to="pytorch")
    assert message.startswith(f"{{root}}/tf/{shard.name}: tensor 'bert/embeddings/") and "checksum" in message
    shard.unlink()
    (message,) = refused(tmp_path, tmp_path / named, to="pytorch")
    assert message.startswith(f"{{root}}/tf/{shard.name}: is missing; tensor 'bert/embeddings/")
    (tmp_path / "tf" / "bert_model.ckpt.index").rename(tmp_path / "tf" / "other")
    (tmp_path / "tf" / "bert_model.ckpt.meta").touch()
    (message,) = refused(tmp_path, tmp_path / "tf" / "bert_model.ckpt", to="pytorch")
    assert "incomplete: there is only bert_model.ckpt.meta" in message


def test_a_value_that_is_not_finite(tmp_path, source):
    change_weights(source, lambda tensors: tensors[QUERY].__setitem__((1, 2), np.nan))
    assert refused(tmp_path, source) == [f"{{root}}/source: {QUERY} holds values that are not finite"]


# ------------------------------------------------------------------------------------- tensors and configuration


def test_every_difference_of_the_configuration_at_once(tmp_path, source):
    wrong = {"num_hidden_layers": 5, "hidden_size": 32, "vocab_size": 70, "type_vocab_size": 16, "intermediate_size": 41}
    change_config(source, **wrong)
    right = {"vocab_size": 61, "hidden_size": 24, "type_vocab_size": 2, "intermediate_size": 40, "num_hidden_layers": 2}
    lines = [f"{{root}}/source/config.json: {key} is {wrong[key]}, the tensors say {size}" for key, size in right.items()]
    assert refused(tmp_path, source) == [*lines, "(--fix-config takes the tensors' sizes)"]


def test_no_configuration(tmp_path, source):
    """A complete one is proposed, but for what no tensor tells."""
    (source / "config.json").unlink()
    (message,) = refused(tmp_path, source)
    start, _, proposed = message.partition("for example with ")
    assert start.startswith("{root}/source: no config.json or bert_config.json beside it") and "--config FILE" in start
    proposed = json.loads(proposed.replace("<number>", "4"))
    assert proposed == {
        "model_type": "bert", "vocab_size": 61, "hidden_size": 24, "max_position_embeddings": 20, "type_vocab_size": 2,
        "intermediate_size": 40, "num_hidden_layers": 2, "num_attention_heads": 4,
    }  # fmt: skip
    (tmp_path / "config.json").write_text(json.dumps(proposed))
    assert command("convert", source, tmp_path / "out", "--to", "tf", "--config", tmp_path / "config.json").code == 0


CONFIGURATIONS = {
    "unknown model_type": (
        {"model_type": "t5"}, "{root}/source: model_type 't5': expected one of bert, albert, deberta-v2, distilbert, electra",
    ),
    "number of labels": ({"id2label": {"0": "a"}}, "id2label names 1 classes, the classifier has 3 outputs"),
    "labels that are none": ({"id2label": 3}, 'id2label: expected {"0": name, "1": name, ...}, got 3'),
    "labels by other keys": (
        {"id2label": {"a": 0, "b": 1, "c": 2}},
        'id2label: expected {"0": name, "1": name, ...}, got {\'a\': 0, \'b\': 1, \'c\': 2}',
    ),
    "heads": ({"num_attention_heads": 5}, "hidden_size 24 is not a multiple of num_attention_heads 5"),
    "activation": ({"hidden_act": "mish"}, "hidden_act: unknown value 'mish'"),
    "size that is none": ({"hidden_size": "24"}, "hidden_size is '24', the tensors say 24"),
}  # fmt: skip


@pytest.mark.parametrize(("changes", "message"), CONFIGURATIONS.values(), ids=CONFIGURATIONS)
def test_configurations(tmp_path, source, changes, message):
    change_config(source, **changes)
    first, *more = refused(tmp_path, source)
    place = "{root}/source/config.json: "
    assert first.startswith(message if message.startswith("{root}") else place) and message in first
    assert more in ([], ["(--fix-config takes the tensors' sizes)"])


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "is no JSON, or damaged"),
        ("[1]", "expected a JSON object, got [1]"),
        (None, "no such file; expected a config.json"),
    ],
)
def test_configuration_files(tmp_path, source, content, message):
    if content is not None:
        (tmp_path / "other.json").write_text(content)
    (found,) = refused(tmp_path, source, "--config", tmp_path / "other.json")
    assert found.startswith(f"{{root}}/other.json: {message}")


def test_unknown_and_missing_tensors(tmp_path, source):
    name = "bert.encoder.layer.1.output.dense.weight"
    change_weights(source, lambda tensors: tensors.update({name.replace("weight", "wieght"): tensors.pop(name)}))
    unknown = f"{{root}}/source: unknown tensor {name.replace('weight', 'wieght')}; did you mean {name}?"
    renames, extra = "--rename PATTERN=NAME reads them under another name", name.replace("weight", "wieght")
    ways_out = f"(no part of the model; {renames}, --allow-extra {extra} leaves them out)"
    assert refused(tmp_path, source) == [unknown, ways_out]
    near = f"missing tensor {name}; did you mean '{name.replace('weight', 'wieght')}'?"
    missing = [f"{{root}}/source: {near}", "(--allow-missing PATTERN goes on without them)"]
    assert refused(tmp_path, source, "--allow-extra", "*.wieght") == missing


def test_names_that_are_those_of_nothing(tmp_path, source):
    save_file({"a": np.ones(2, np.float32)}, source / "model.safetensors")
    (message,) = refused(tmp_path, source)
    assert message.startswith("{root}/source: no tensor has a name that is known; the first names are a; supported are ")


def test_trained_weights_where_a_distilbert_has_no_place(tmp_path):
    """Google's graph was trained further: leaving these out would lose what was learnt."""
    write_source(tmp_path / "source", DISTILBERT, None)
    prefix = convert_source(tmp_path / "source", "tf") / "bert_model.ckpt"
    arrays = {
        "bert/embeddings/token_type_embeddings": np.full((2, 32), 1e-3, np.float32),
        "bert/pooler/dense/kernel": np.ones((32, 32), np.float32),
        "bert/pooler/dense/bias": np.full(32, -1e-3, np.float32),
    }
    assert command("convert", prefix, tmp_path / "as-added", "--to", "pytorch").code == 0
    for name, array in arrays.items():
        folder = tmp_path / name.replace("/", "-")
        folder.mkdir()
        write_config(folder, DISTILBERT, None)
        changed = Tensor(TensorInfo(name, array.shape, "F32"), lambda array=array: array)
        tensors = tensorflow_checkpoint.open_checkpoint(prefix).tensors | {name: changed}
        tensorflow_checkpoint.write(folder, list(tensors.values()))
        what = "an identity matrix" if name.endswith("kernel") else "zeros"
        (message,) = refused(tmp_path, folder, to="pytorch")
        start = f"{{root}}/{folder.name}: {name} holds weights that a DistilBERT has no place for, expected {what}, "
        assert message.startswith(start)
        assert message.endswith(f"--allow-extra {name} leaves it out")
        result = crossdistil.convert(folder, tmp_path / f"{folder.name}-new", to="pytorch", allow_extra=[name])
        assert result["left_out"] == [name] and result["dropped"]["added for Google's graph, no part of a DistilBERT"] == 2


# ------------------------------------------------------------------------------------- options


OPTIONS = {
    "layout": ("tf", ["--layout", "gogle"], "--layout gogle: unknown for tf; there are google"),
    "bf16": ("oneflow", ["--dtype", "bf16"], "--to oneflow: OneFlow 0.9 does not read bfloat16; give --dtype fp32 or fp16"),
    "no type": ("oneflow", ["--layout", "legacy-raw", "--dtype", "fp16"], "without meta only F32 can be told"),
    "overflow": ("mindspore", ["--dtype", "fp16"], f"--dtype fp16: {QUERY} holds 1e+05, which fp16 cannot hold; bf16 "),
    "vocabulary": ("tf", ["--resize-vocabulary", "60"], "--resize-vocabulary 60: {root}/source/vocab.txt has 61 words"),
    "framework": ("jax", [], "Invalid value for '--to': 'jax' is not one of 'pytorch', 'tf', 'mindspore', 'oneflow'"),
}  # fmt: skip


@pytest.mark.parametrize(("to", "options", "message"), OPTIONS.values(), ids=OPTIONS)
def test_options(tmp_path, source, to, options, message):
    (source / "vocab.txt").write_text("word\n" * 61)
    change_weights(source, lambda tensors: tensors[QUERY].__setitem__((1, 2), 1e5))
    (found,) = refused(tmp_path, source, *options, to=to)
    assert message in found


def test_a_vocabulary_that_only_tokenizer_json_has(tmp_path, source):
    definition = {"model": {"vocab": {f"word{index}": index for index in range(50)}}, "added_tokens": [{"id": 54}]}
    (source / "tokenizer.json").write_text(json.dumps(definition))
    message = "--resize-vocabulary 54: {root}/source/tokenizer.json has 55 words"
    assert refused(tmp_path, source, "--resize-vocabulary", 54) == [message]
    assert command("convert", source, tmp_path / "out", "--to", "tf", "--resize-vocabulary", 55).code == 0


@pytest.mark.parametrize(("options", "what"), [({"to": "jax"}, "to jax"), ({"to": "tf", "dtype": "fp8"}, "dtype fp8")])
def test_options_of_the_api(tmp_path, source, options, what):
    with pytest.raises(crossdistil.CrossdistilError, match=f"{what}: unknown"):
        crossdistil.convert(source, tmp_path / "out", **options)
    with pytest.raises(crossdistil.CrossdistilError, match="--resize-vocabulary 0: expected at least 1"):
        crossdistil.convert(source, tmp_path / "out", to="tf", resize_vocabulary=0)


def test_a_bfloat16_source_for_oneflow(tmp_path, source):
    crossdistil.convert(source, tmp_path / "half", to="pytorch", dtype="bf16")
    (message,) = refused(tmp_path, tmp_path / "half", to="oneflow")
    assert message.startswith("--to oneflow: OneFlow 0.9 does not read bfloat16")
