"""Data and teachers that are missing, damaged or do not fit: each message names the file and, in data, the line."""

from __future__ import annotations

import shutil

import numpy as np
import pytest

from crossdistil.core.fit import SAME_NAMES
from crossdistil.core.models.known_families import encoder_families
from crossdistil.tests.wrong_input_files import Files, assert_refused, contents, write_model

SKIP = "; task.bad_rows: skip leaves such rows out"
UNKNOWN = " (1 row); task.labels names all classes, task.skip_labels leaves rows out"
DATA = {
    "folder": (lambda files: shutil.rmtree(files.data), "task.data: {root}/data: no such folder"),
    "train.tsv": (
        lambda files: (files.data / "train.tsv").unlink(),
        "{root}/data/train.tsv: no such file; the folder holds dev.tsv, test.tsv",
    ),
    "too few columns": (
        lambda files: files.append("train.tsv", "the film\n"), "{root}/data/train.tsv:14: got 1 columns, expected 2" + SKIP,
    ),
    "too many columns": (
        lambda files: files.append("dev.tsv", "a\tb\t1\n"), "{root}/data/dev.tsv:14: got 3 columns, expected 2" + SKIP,
    ),
    "label": (
        lambda files: files.append("train.tsv", "the film\t2\n"),
        "{root}/data/train.tsv:14: got label '2', expected one of '0', '1'" + UNKNOWN,
    ),
    "empty": (lambda files: (files.data / "dev.tsv").write_text(""), "{root}/data/dev.tsv: is empty"),
    "header only": (
        lambda files: (files.data / "train.tsv").write_text("sentence\tlabel\n"), "{root}/data/train.tsv: holds no rows",
    ),
    "column": (
        lambda files: (files.data / "train.tsv").write_text("sentense\tlabel\na\t1\n"),
        "{root}/data/train.tsv: no column 'sentence'; did you mean 'sentense'? the columns are sentense, label",
    ),
    "encoding": (
        lambda files: (files.data / "train.tsv").write_bytes(b"sentence\tlabel\nfilm\xe9\t1\n"),
        "{root}/data/train.tsv:2: not UTF-8 (byte 0xe9); its bytes read as CP1252: task.encoding: cp1252",
    ),
}  # fmt: skip


@pytest.mark.parametrize(("spoil", "message"), DATA.values(), ids=DATA)
def test_data(files, spoil, message):
    spoil(files)
    before = contents(files.root)
    assert_refused(files, files.run(sets=["task.bad_rows=error"]), message)
    assert contents(files.root) == before


def cut(files: Files, size: int) -> None:
    path = files.teacher / "model.safetensors"
    path.write_bytes(path.read_bytes()[:size])


def without(*names: str):
    """A teacher that lacks these tensors."""
    return lambda files: files.change_weights(lambda tensors: [tensors.pop(name) for name in names])


def three_classes(files: Files) -> None:
    shutil.rmtree(files.teacher)
    write_model(files.teacher, labels=("negative", "neutral", "positive"))


def spoil_one_value(files: Files) -> None:
    files.change_weights(lambda tensors: tensors["bert.pooler.dense.bias"].__setitem__(3, np.nan))


CONFIG_JSON, WEIGHTS = "teacher.model: {root}/teacher/config.json: ", "teacher.model: {root}/teacher/model.safetensors: "
FIX_CONFIG = (
    "teacher.model: (`crossdistil convert {root}/teacher teacher-converted --to pytorch --fix-config` takes the tensors' sizes)"
)
TEACHER = "{root}/recipe.yaml: teacher.model ({root}/teacher): "
MODELS = {
    "no folder": (lambda files: shutil.rmtree(files.teacher), ["teacher.model: {root}/teacher: no such model folder"]),
    "no config": (
        lambda files: (files.teacher / "config.json").unlink(),
        [CONFIG_JSON + "no such file; expected a model folder with config.json"],
    ),
    "not JSON": (
        lambda files: (files.teacher / "config.json").write_text("{"),
        [CONFIG_JSON + "is no JSON, or damaged (Expecting property name enclosed in double quotes, column 2)"],
    ),
    "not BERT": (
        lambda files: files.change_config(model_type="t5"),
        [
            CONFIG_JSON + f"model_type is 't5', expected {', '.join(map(repr, encoder_families()))} or 'bilstm'; a family of a "
            "plugin needs --plugin FILE, or `plugins` of a recipe"
        ],
    ),
    "unknown keys": (
        lambda files: files.change_config(classifer_relu=True, is_fast=True, add_cross_attention=True),
        [
            CONFIG_JSON + "classifer_relu: unknown key; did you mean 'classifier_relu'?",
            CONFIG_JSON + "add_cross_attention is True: a decoder with cross-attention; only encoders are computed here",
        ],
    ),
    "heads": (
        lambda files: files.change_config(num_attention_heads=3),
        [CONFIG_JSON + "hidden_size 8 is not a multiple of num_attention_heads 3"],
    ),
    "class names": (
        lambda files: files.change_config(id2label={"no": "negative", "yes": "positive"}),
        [CONFIG_JSON + 'id2label: expected {"0": name, "1": name, ...}, got {\'no\': \'negative\', \'yes\': \'positive\'}'],
    ),
    "more layers than weights": (
        lambda files: files.change_config(num_hidden_layers=5),
        [CONFIG_JSON + "num_hidden_layers is 5, the tensors say 4", FIX_CONFIG],
    ),
    "another width": (
        lambda files: files.change_config(intermediate_size=32),
        [CONFIG_JSON + "intermediate_size is 32, the tensors say 16", FIX_CONFIG],
    ),
    "no weights": (
        lambda files: (files.teacher / "model.safetensors").unlink(),
        [WEIGHTS + "no such file; a model folder holds its weights in model.safetensors"],
    ),
    "truncated": (
        lambda files: cut(files, -100),
        [WEIGHTS + "damaged or not a safetensors file: Error while deserializing header: incomplete metadata, file not "
         "fully covered"],
    ),
    "not finite": (spoil_one_value, [WEIGHTS + "bert.pooler.dense.bias holds values that are not finite"]),
    "half a head": (without("classifier.bias"), [WEIGHTS + "missing tensor classifier.bias"]),
    "no head": (
        without("classifier.weight", "classifier.bias"),
        [TEACHER + "has no classifier.weight; fine-tune it on the task first (recipes/finetune.yaml)"],
    ),
    "no pooler": (
        without("bert.pooler.dense.weight", "bert.pooler.dense.bias"),
        [TEACHER + "has no bert.pooler.dense.weight; fine-tune it on the task first (recipes/finetune.yaml)"],
    ),
    "other classes": (
        lambda files: files.change_config(id2label={"0": "bad", "1": "good"}),
        [TEACHER + "its classes are bad, good, in this order; the task's are negative, positive" + SAME_NAMES],
    ),
    "another order": (
        lambda files: files.change_config(id2label={"0": "positive", "1": "negative"}, label2id=None),
        [TEACHER + "its classes are positive, negative, in this order; the task's are negative, positive"],
    ),
    "another number": (
        three_classes, [TEACHER + "has 3 classes (negative, neutral, positive), the task 2 (negative, positive)"],
    ),
    "vocabulary": (
        lambda files: (files.teacher / "tokenizer.json").unlink()
        or (files.teacher / "vocab.txt").write_text("\n".join(["[PAD]", "[UNK]", "[CLS]", "[SEP]", *"abcdefghijklm"])),
        ["{root}/recipe.yaml: teacher.model: vocab_size is 15, but the tokenizer has 17 tokens; `crossdistil convert MODEL NEW "
         "--to pytorch --resize-vocabulary 17` adds rows"],
    ),
    "no tokenizer": (
        lambda files: [(files.teacher / name).unlink() for name in ("tokenizer.json", "vocab.txt")],
        ["teacher.model: {root}/teacher: no tokenizer.json and no vocab.txt; the folder holds config.json, "
         "model.safetensors, tokenizer_config.json"],
    ),
}  # fmt: skip


@pytest.mark.parametrize(("spoil", "messages"), MODELS.values(), ids=MODELS)
def test_teacher(files, spoil, messages):
    spoil(files)
    before = contents(files.root)
    assert_refused(files, files.run(), *messages)
    assert contents(files.root) == before
