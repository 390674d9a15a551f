"""`crossdistil convert` as a user meets it: what each option does to the result, and what is told about it. That frameworks
read the results is tested with them, in test_conversion_*."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

import crossdistil
from crossdistil.converters import safetensors_files
from crossdistil.converters.canonical import read_canonical
from crossdistil.converters.formats import open_checkpoint
from crossdistil.converters.layouts import LAYOUTS
from crossdistil.converters.names_canonical import tied_of
from crossdistil.converters.verify import reference_outputs
from crossdistil.core.app import verify
from crossdistil.core.checksums import CHECKSUMS
from crossdistil.tests.conversion_sources import (
    BERT,
    FAMILIES,
    TANH,
    assert_same,
    random_tensors,
    tensors_of,
    write_source,
)
from crossdistil.tests.tiny_families import DISTILBERT, ELECTRA
from crossdistil.tests.wrong_input_files import contents
from crossdistil.tests.wrong_input_files import crossdistil as command

WORDS = "bert.embeddings.word_embeddings.weight"
TARGETS = [(to, layout) for to, layouts in LAYOUTS.items() for layout in (None, *layouts)]
FILES = {
    ("pytorch", "safetensors"): {"model.safetensors"},
    ("pytorch", "bin"): {"pytorch_model.bin"},
    ("tf", "google"): {"bert_model.ckpt.index", "bert_model.ckpt.data-00000-of-00001", "checkpoint", "bert_config.json"},
    ("mindspore", "ckpt"): {"model.ckpt"},
    ("mindspore", "ckpt-old"): {"model.ckpt"},
    ("mindspore", "safetensors"): {"model.safetensors"},
    ("oneflow", "state-dict"): {"weights"},
    ("oneflow", "legacy"): {"weights"},
    ("oneflow", "legacy-raw"): {"weights"},
}
TOKENIZER = {"vocab.txt", "tokenizer_config.json", "special_tokens_map.json"}


@pytest.fixture(autouse=True)
def no_frameworks(monkeypatch):
    """Verification in NumPy only."""
    monkeypatch.setattr(verify, "python_with", lambda module: None)


def write_words(folder: Path, count: int = BERT.vocab_size) -> None:
    (folder / "vocab.txt").write_text("".join(f"word{index}\n" for index in range(count)))


def change_config(folder: Path, **changes) -> None:
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def read_config(folder: Path, name: str = "config.json") -> dict:
    return json.loads((folder / name).read_text())


@pytest.fixture(scope="module")
def right_source(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("right") / "model"
    write_source(folder, BERT)
    write_words(folder)
    (folder / "tokenizer_config.json").write_text('{"do_lower_case": false}')
    (folder / "special_tokens_map.json").write_text('{"pad_token": "word0"}')
    change_config(folder, torch_dtype="float32", crossdistil={"method": "kd"})
    return folder


@pytest.fixture
def source(right_source, tmp_path) -> Path:
    """A model to change."""
    return shutil.copytree(right_source, tmp_path / "source")


def run(source: Path, destination: Path, to: str, *options: object) -> str:
    """What the command prints; nothing may come on stderr."""
    answer = command("convert", source, destination, "--to", to, *options)
    assert (answer.code, answer.stderr) == (0, ""), answer.stderr
    return answer.stdout


def told(*arguments: object) -> dict:
    return json.loads(run(*arguments, "--json"))


@pytest.mark.parametrize(("to", "layout"), TARGETS)
def test_every_layout_holds_the_same_and_all_that_belongs_to_it(right_source, tmp_path, to, layout):
    before = contents(right_source)
    text = run(right_source, tmp_path / "new", to, *([] if layout is None else ["--layout", layout]), "--verify")
    layout = layout or next(iter(LAYOUTS[to]))
    assert {path.name for path in (tmp_path / "new").iterdir()} == FILES[to, layout] | TOKENIZER | {"config.json", CHECKSUMS}
    for name in TOKENIZER:
        assert (tmp_path / "new" / name).read_bytes() == (right_source / name).read_bytes()
    assert_same(tensors_of(tmp_path / "new"), tensors_of(right_source))
    config = read_config(tmp_path / "new")
    own = read_config(right_source)
    assert {key: config[key] for key in own} == own | {"architectures": ["BertForSequenceClassification"]}
    assert config["label2id"] == {f"class {index}": index for index in range(3)}
    assert open_checkpoint(tmp_path / "new").framework == to
    assert LAYOUTS[to][layout].description in text and f"{right_source}/model.safetensors: safetensors (PyTorch), bert" in text
    assert "verified: 48 tensors bit for bit the same; worst output hidden/0, 0.0e+00" in text
    assert contents(right_source) == before and set(tmp_path.iterdir()) == {tmp_path / "new"}


def test_the_api_takes_what_the_command_takes_and_returns_what_it_prints(source, tmp_path):
    (source / "vocab.txt").unlink()
    options = {"layout": "google", "dtype": "fp16", "verify": True, "config": source / "config.json"}
    result = crossdistil.convert(
        source, tmp_path / "api", to="tf", allow_missing=["x"], allow_extra=["y"], fix_config=True, resize_vocabulary=64,
        type_vocabulary=3, **options,
    )  # fmt: skip
    flags = [f"--{name}={value}" for name, value in options.items() if name != "verify"]
    flags += ["--verify", "--allow-missing=x", "--allow-extra=y", "--fix-config", "--resize-vocabulary=64"]
    assert told(source, tmp_path / "command", "tf", *flags, "--type-vocabulary=3") == result
    assert contents(tmp_path / "api") == contents(tmp_path / "command")
    with pytest.raises(crossdistil.CrossdistilError, match="exists and is not empty"):
        crossdistil.convert(source, tmp_path / "api", to="tf")
    crossdistil.convert(source, tmp_path / "api", to="tf", overwrite=True)


def test_what_is_told_as_json(source, tmp_path):
    result = told(source, tmp_path / "new", "mindspore", "--verify")
    assert result["source"] == {"format": "safetensors (PyTorch)", "names": "canonical", "family": "bert"}
    assert result["result"] == {"format": "model.ckpt of the model zoo", "names": "mindspore"}
    arrays = load_file(source / "model.safetensors")
    assert (result["tensors"], result["bytes"]) == (48, sum(array.nbytes for array in arrays.values()))
    assert (result["heads"], result["outputs"]) == (["mlm", "nsp"], 3)
    empty = ("left_out", "missing", "added", "repairs")
    assert result["dropped"] == {} and [result[key] for key in empty] == [[]] * 4 and len(result["notes"]) == 1
    proof = result["verification"]
    assert set(proof["differences"]["NumPy, result"]) == {"hidden/0", "hidden/1", "hidden/2", "pooled", "logits", "mlm", "nsp"}
    assert (proof["worst"], proof["limit"]) == (0, 1e-5) and len(proof["not_run"]) == 2


@pytest.mark.parametrize("to", LAYOUTS)
@pytest.mark.parametrize("dtype", ["fp16", "bf16", "fp32"])
def test_weights_are_rounded_to_the_nearest(source, tmp_path, dtype, to):
    if (to, dtype) == ("oneflow", "bf16"):
        return  # refused, see test_convert_wrong_input
    text = run(source, tmp_path / "new", to, "--dtype", dtype, "--verify")
    arrays = tensors_of(tmp_path / "new")
    for name, array in tensors_of(source).items():
        found = arrays[name]
        if dtype == "bf16":  # the upper half of the bits, of two neighbours the even one
            bits = array.view(np.uint32).astype(np.uint64)
            expected = ((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16).astype(np.uint16)
            np.testing.assert_array_equal(found.view(np.uint16), expected)
        elif dtype == "fp16":
            error = np.abs(found.astype(np.float64) - array)
            for towards in (-np.inf, np.inf):
                neighbour = np.nextafter(found, np.float16(towards)).astype(np.float64)
                assert (error <= np.abs(neighbour - array)).all() and found.dtype == np.float16
        else:
            assert found.dtype == np.float32 and found.tobytes() == array.tobytes()
    names = {"fp16": "float16", "bf16": "bfloat16", "fp32": "float32"}
    assert read_config(tmp_path / "new")["torch_dtype"] == names[dtype]
    assert ("48 rounded to the nearest" in text) == (dtype != "fp32")


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("family", [family for family in FAMILIES if family != "gpt2"])  # whose words have no bias
def test_new_words_are_zero_and_never_predicted(tmp_path, family, tied):
    config = FAMILIES[family]
    tensors = write_source(tmp_path / "source", config)
    decoder, words = next(iter(tied_of(family).items()))
    old = config.vocab_size
    tensors[decoder] = tensors[words] if tied else tensors[words][::-1].copy()
    save_file(tensors, tmp_path / "source" / "model.safetensors", {"format": "pt"})
    change_config(tmp_path / "source", tie_word_embeddings=tied)
    result = told(tmp_path / "source", tmp_path / "new", "pytorch", "--resize-vocabulary", old + 7, "--verify")
    assert f"vocabulary of {old} rows made {old + 7}" in result["notes"]
    assert all("another vocabulary" in line or "result not run" in line for line in result["verification"]["not_run"])
    found = load_file(tmp_path / "new" / "model.safetensors")
    changed = {name: array for name, array in found.items() if array.shape != tensors[name].shape}
    biases = [name for name in changed if name.endswith("bias")]
    assert set(changed) == {words, *biases, *([] if tied else [decoder])}
    assert len(biases) == (2 if family == "deberta-v2" else 1)  # it has two heads that predict words
    for name, array in found.items():
        np.testing.assert_array_equal(array[:old] if name in changed else array, tensors[name])
        assert name not in changed or (array[old:] == (-10000 if name in biases else 0)).all()
    assert read_config(tmp_path / "new")["vocab_size"] == old + 7
    outputs = reference_outputs(read_canonical(tmp_path / "new"))
    scores = outputs["generator" if family == "electra" else "mlm"]
    assert scores.shape[-1] == old + 7
    assert (np.exp(scores - scores.max(-1, keepdims=True))[..., old:] == 0).all()


def test_unused_rows_are_cut_off(source, tmp_path):
    write_words(source, 50)
    run(source, tmp_path / "new", "tf", "--resize-vocabulary", 50, "--verify")
    np.testing.assert_array_equal(tensors_of(tmp_path / "new")[WORDS], tensors_of(source)[WORDS][:50])
    assert read_config(tmp_path / "new", "bert_config.json")["vocab_size"] == 50


@pytest.mark.parametrize("rows", [None, 1, 5])
def test_token_types_for_googles_graph(tmp_path, rows):
    write_source(tmp_path / "source", DISTILBERT, None)
    options = [] if rows is None else ["--type-vocabulary", rows]
    text = run(tmp_path / "source", tmp_path / "tf", "tf", *options)
    rows = rows or 2
    added = {name: tensor.load() for name, tensor in open_checkpoint(tmp_path / "tf").tensors.items() if f"added: {name}" in text}
    np.testing.assert_array_equal(added["bert/embeddings/token_type_embeddings"], np.zeros((rows, 32)))
    np.testing.assert_array_equal(added["bert/pooler/dense/kernel"], np.eye(32))
    np.testing.assert_array_equal(added["bert/pooler/dense/bias"], np.zeros(32))
    assert read_config(tmp_path / "tf", "bert_config.json")["type_vocab_size"] == rows and len(added) == 3
    text = run(tmp_path / "tf", tmp_path / "back", "pytorch")
    assert "dropped 3: added for Google's graph" in text
    assert_same(tensors_of(tmp_path / "back"), tensors_of(tmp_path / "source"))


def test_a_configuration_from_elsewhere(source, tmp_path):
    shutil.move(source / "config.json", tmp_path / "other.json")
    run(source / "model.safetensors", tmp_path / "new", "pytorch", "--config", tmp_path / "other.json", "--verify")
    assert_same(tensors_of(tmp_path / "new"), random_tensors(BERT))


def test_what_is_allowed_to_be_missing_or_left_out_is_listed(source, tmp_path):
    tensors = load_file(source / "model.safetensors")
    del tensors["bert.pooler.dense.bias"], tensors["cls.predictions.transform.dense.bias"]
    tensors |= {"ema.shadow": np.ones(2, np.float32), "ema.count": np.ones(1, np.int64)}
    save_file(tensors, source / "model.safetensors", {"format": "pt"})
    options = ["--allow-missing", "*pooler*", "--allow-missing", "cls.predictions.transform.dense.bias", "--allow-extra", "ema.*"]
    text = run(source, tmp_path / "new", "mindspore", *options)
    for name in ("bert.pooler.dense.bias", "cls.predictions.transform.dense.bias"):
        assert f"  missing, as allowed: {name}\n" in text
    for name in ("ema.shadow", "ema.count"):
        assert f"  left out, as allowed: {name}\n" in text
    result = told(source, tmp_path / "again", "mindspore", *options)
    assert sorted(result["left_out"]) == ["ema.count", "ema.shadow"] and len(result["missing"]) == 2
    assert result["dropped"] == {"left out by --allow-extra": 2} and result["tensors"] == 46


def test_a_configuration_that_is_wrong_is_put_right_on_demand(source, tmp_path):
    right = read_config(source)
    change_config(source, num_hidden_layers=5, vocab_size=70, type_vocab_size=4)
    result = told(source, tmp_path / "new", "tf", "--fix-config")
    assert "vocab_size is 61; the configuration said 70" in result["notes"] and len(result["notes"]) == 4
    config, google = read_config(tmp_path / "new"), read_config(tmp_path / "new", "bert_config.json")
    for key in ("num_hidden_layers", "vocab_size", "type_vocab_size"):
        assert config[key] == google[key] == right[key]


def test_the_whole_destination_is_replaced_on_demand(source, tmp_path):
    run(source, tmp_path / "new", "tf")
    (tmp_path / "new" / "notes.txt").write_text("mine")
    run(source, tmp_path / "new", "mindspore", "--overwrite")
    assert {path.name for path in (tmp_path / "new").iterdir()} == {"model.ckpt", "config.json", CHECKSUMS, *TOKENIZER}
    run(source, source.parent / "empty" / "deep", "mindspore")
    assert contents(tmp_path / "new") == contents(tmp_path / "empty" / "deep")


def test_names_in_brackets_are_no_markup(source, tmp_path):
    (tmp_path / "[bold]").mkdir()
    place = shutil.move(source, tmp_path / "[bold]" / "source")
    assert f"{place}/model.safetensors: " in run(place, tmp_path / "[red]", "tf")
    assert f"{tmp_path}/[red]: " in run(place, tmp_path / "[red]", "tf", "--overwrite")


@pytest.mark.parametrize("stem", ["projection.", ""])
@pytest.mark.parametrize("to", LAYOUTS)
def test_tinybert_s_projection_goes_everywhere_and_back(source, tmp_path, to, stem):
    """As training names it, for a distillation to go on with it, and as TinyBERT's own files do."""
    fit = {"fit_dense.weight": np.arange(36 * 24, dtype=np.float32).reshape(36, 24), "fit_dense.bias": np.ones(36, np.float32)}
    others = {"projection.stage.hidden_mse.0.weight": np.ones((36, 24), np.float32)}
    save_file({stem + name: array for name, array in fit.items()} | others, source / "projections.safetensors")
    result = told(source, tmp_path / "there", to, "--verify")
    assert result["tensors"] == 50 and sum(result["dropped"].values()) == 1
    assert "50 tensors" in result["verification"]["weights"]
    told(tmp_path / "there", tmp_path / "back", "pytorch", "--verify")
    found = load_file(tmp_path / "back" / "projections.safetensors")
    assert_same(found, {f"projection.{name}": array for name, array in fit.items()})
    assert not any("fit_dense" in name for name in load_file(tmp_path / "back" / "model.safetensors"))


def test_a_model_in_several_files(source, tmp_path):
    (source / "model.safetensors").rename(tmp_path / "whole.safetensors")
    tensors = list(open_checkpoint(tmp_path / "whole.safetensors").tensors.values())
    safetensors_files.write(source, tensors, shard_size=10_000)
    assert len(list(source.glob("model-*.safetensors"))) > 2
    run(source, tmp_path / "new", "oneflow", "--verify")
    assert_same(tensors_of(tmp_path / "new"), random_tensors(BERT))


@pytest.mark.only_backend("torch")
def test_a_checkpoint_of_a_training(source, tmp_path):
    import torch

    state = {name: torch.from_numpy(array) for name, array in load_file(source / "model.safetensors").items()}
    (source / "model.safetensors").unlink()
    optimizer = {"state": {0: {"step": torch.tensor(7.0), "exp_avg": torch.ones(3)}}, "param_groups": [{"lr": 1e-3}]}
    torch.save({"model": state, "optimizer": optimizer, "epoch": 3}, source / "last.pth")
    run(source / "last.pth", tmp_path / "new", "tf", "--verify")
    assert_same(tensors_of(tmp_path / "new"), random_tensors(BERT))


@pytest.mark.parametrize(
    ("config", "dtype", "expected"),
    [
        (BERT, None, ["hidden_act is gelu (by erf): Google's graph computes its tanh approximation"]),
        (DISTILBERT, None, ["hidden_act is gelu (by erf): Google's graph computes its tanh approximation"]),
        (TANH, None, []),
        (ELECTRA, None, []),
        (ELECTRA.model_copy(update={"hidden_act": "gelu_new"}), None, ["hidden_act is gelu_new (the tanh approximation)"]),
        (TANH, "fp16", ["tensors are fp16: Google's graph restores float32 only"]),
        (TANH, "bf16", ["tensors are bf16: Google's graph restores float32 only"]),
    ],
)
def test_what_googles_graph_makes_of_it(tmp_path, config, dtype, expected):
    write_source(tmp_path / "source", config, None, heads=config.family.model_type == "bert")
    options = [] if dtype is None else ["--dtype", dtype]
    notes = told(tmp_path / "source", tmp_path / "tf", "tf", *options)["notes"]
    assert len(notes) == len(expected) and all(note.startswith(start) for note, start in zip(notes, expected))
    assert all(f"  note: {note}\n" in run(tmp_path / "source", tmp_path / "2", "tf", *options, "--overwrite") for note in notes)
    zoo = told(tmp_path / "source", tmp_path / "other", "mindspore", *options)["notes"]
    assert len(zoo) == (config is BERT) and all("MindSpore's model zoo computes gelu by the tanh" in note for note in zoo)
