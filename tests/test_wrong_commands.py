"""Wrong options of commands, and wrong input to those that ask a finished model: one message, exit code 2, nothing written."""

from __future__ import annotations

import json
import re

import pytest

from crossdistil.backends import registry
from crossdistil.core.checkpoint import Model
from crossdistil.core.checkpoint_saving import save_model
from crossdistil.core.data.tokenize import load_tokenizer
from crossdistil.core.fit import SAME_NAMES
from crossdistil.tests import tiny
from crossdistil.tests.tiny_families import GPT2
from crossdistil.tests.wrong_input_files import assert_refused, contents, crossdistil


@pytest.fixture(scope="module")
def student(right_files, tmp_path_factory):
    """A finished run's model: the files are right."""
    out = tmp_path_factory.mktemp("finished") / "run"
    answer = crossdistil("run", right_files.recipe, "--out", out)
    assert answer.code == 0 and not answer.stderr, answer.stderr
    return out / "student"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["rnu"], r"No such command 'rnu'.*; see crossdistil --help"),
        (["run"], r"run: name a recipe, for example kd .*; --resume --out RUN needs none"),
        (["run", "kd", "--sett", "seed=1"], r"No such option: --sett.*; see crossdistil run --help"),
        (["run", "kd", "--precision", "fp8"], r"Invalid value for '--precision': 'fp8' .*; see crossdistil run --help"),
        (["run", "kd", "--resume"], r"--resume: name the run folder with --out"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_usage(arguments, message):
    answer = crossdistil(*arguments)
    assert answer.code == 2 and len(answer.messages) == 1
    assert re.fullmatch(message, answer.messages[0], re.IGNORECASE)


PREDICT = {
    "nothing": ([], "predict: give either texts or --file"),
    "both": (["a", "--file", "{root}/data/dev.tsv"], "predict: give either texts or --file, not both"),
    "missing file": (["--file", "{root}/no.txt"], "{root}/no.txt: no such file"),
    "folder": (["--file", "{root}"], "{root}: cannot be read: Is a directory"),
    "empty file": (["--file", "{root}/empty.txt"], "{root}/empty.txt: is empty, expected one text a line"),
    "column": (
        ["--file", "{root}/data/dev.tsv", "--text-column", "sentense"],
        "{root}/data/dev.tsv: no column 'sentense'; did you mean 'sentence'? the columns are sentence, label",
    ),
    "null": (
        ["--file", "{root}/null.jsonl", "--text-column", "text"], "{root}/null.jsonl:2: 'text' is null, expected a text",
    ),
    "column of no file": (["a", "--text-column", "x"], "--text-column: is a column of --file, which is not given"),
    "pair": (["a", "b", "--pair", "c"], "--pair: needs exactly one text, got 2"),
    "length": (["a", "--max-length", "99"], "--max-length 99: {model} has only 32 positions"),
    "out": (["a", "--out", "{root}/empty.txt/x"], "{root}/empty.txt/x: cannot be written: {root}/empty.txt is a file"),
}  # fmt: skip


@pytest.mark.parametrize(("arguments", "message"), PREDICT.values(), ids=PREDICT)
def test_predict(files, student, arguments, message):
    (files.root / "empty.txt").touch()
    (files.root / "null.jsonl").write_text('{"text": "a"}\n{"text": null}\n')
    before = contents(files.root)
    answer = crossdistil("predict", student, *(each.replace("{root}", str(files.root)) for each in arguments))
    assert_refused(files, answer, message.replace("{model}", str(student)))
    assert contents(files.root) == before and not answer.stdout


EVALUATE = {
    "no labels": (["--split", "test"], "{root}/data: the split 'test' has no labels to evaluate with; use predict"),
    "split": (["--split", "deev"], "{root}/data: task 'sst-2' has no file for the split 'deev'; did you mean 'dev'?"),
    "task": (["--task", "cola"], "{model}: its classes are negative, positive, in this order; the task's are 0, 1" + SAME_NAMES),
    "unknown task": (
        ["--task", "sst3"],
        "--task sst3: neither a GLUE task nor the one that {model} was trained on; did you mean 'sst-2'?; for a task of your own "
        "give --text and --label",
    ),
    "half of the columns": (["--text", "sentence"], "--label: needed beside --text"),
}


@pytest.mark.parametrize(("arguments", "message"), EVALUATE.values(), ids=EVALUATE)
def test_evaluate(right_files, student, arguments, message):
    answer = crossdistil("evaluate", student, "--data", right_files.data, *arguments)
    assert_refused(right_files, answer, message.replace("{model}", str(student)))
    assert not answer.stdout


ANY = "finetune (classes or numbers of texts), ner (labels of words), qa (answers in a text), embedding (vectors of texts), "
HEADS = {
    "unknown task": ({}, "RECIPE", f", where RECIPE is {ANY}reranker (an order of texts)"),
    "words": ({"architectures": ["BertForTokenClassification"]}, "ner", ""),
    "answers": ({"architectures": ["BertForQuestionAnswering"]}, "qa", ""),
}


@pytest.mark.parametrize(("config", "recipe", "more"), HEADS.values(), ids=HEADS)
def test_the_recipe_for_an_encoder_is_that_of_its_task(files, config, recipe, more):
    files.change_weights(lambda tensors: [tensors.pop(name) for name in ("classifier.weight", "classifier.bias")])
    path = files.teacher / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"architectures": ["BertModel"]} | config))
    answer = crossdistil("predict", files.teacher, "a fine film")
    assert answer.code == 2 and f"so it cannot answer; fine-tune it first: crossdistil run {recipe} " in answer.messages[0]
    assert answer.messages[0].endswith(f"--set task.data=FOLDER{more}")


def test_no_recipe_is_named_whose_head_a_family_lacks(tmp_path):
    model = Model(GPT2, tiny.random_parameters(GPT2, None, 0), None, None)
    save_model(model, tmp_path / "gpt2", load_tokenizer(tiny.write_vocabulary(tmp_path / "vocabulary")))
    answer = crossdistil("predict", tmp_path / "gpt2", "a fine film")
    told = "where RECIPE is finetune (classes or numbers of texts), embedding (vectors of texts), reranker (an order of texts)"
    assert answer.code == 2 and answer.messages[0].endswith(told)


def test_evaluate_an_encoder(files):
    files.change_weights(lambda tensors: [tensors.pop(name) for name in ("classifier.weight", "classifier.bias")])
    answer = crossdistil("evaluate", files.teacher, "--data", files.data, "--task", "sst-2")
    told = "has no classifier.weight, so it cannot classify; fine-tune it first: crossdistil run finetune"
    assert_refused(files, answer, f"{{root}}/teacher: {told} --set student.init.from={{root}}/teacher --set task.data=FOLDER")


CROSSCHECK = {
    "none": ("", ["no backend is named; there are torch, oneflow, mindspore"]),
    "one": (
        "HERE",
        ["backend 'HERE': a cross-check needs another one to compare it with, or several numbers of processes (--devices 1,2)"],
    ),
    "twice": ("HERE,HERE", ["backend 'HERE': named twice"]),
    "unknown": (
        "HERE,jax,mindspor",
        [
            "unknown backend 'jax'; there are torch, oneflow, mindspore; a plugin's needs --plugin FILE",
            "unknown backend 'mindspor'; did you mean 'mindspore'?",
        ],
    ),
}


@pytest.mark.parametrize(("names", "messages"), CROSSCHECK.values(), ids=CROSSCHECK)
def test_crosscheck_backends(right_files, names, messages):
    here = registry.default_backend()
    options = ["--backends", names.replace("HERE", here), "--out", right_files.out]
    answer = crossdistil("crosscheck", right_files.recipe, *options)
    assert_refused(right_files, answer, *(message.replace("HERE", here) for message in messages))
