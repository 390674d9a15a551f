"""Every wrong input gives one clear message per problem and exit code 2, before anything is written: no traceback, no
output folder, no changed file."""

from __future__ import annotations

import re
import subprocess
import sys

import pytest

from crossdistil.backends import registry
from crossdistil.tests.wrong_input_files import assert_refused, contents, crossdistil, write_model

LAYERS_THAT_FIT = "; for example --set 'student.init.layers=[0, 2]'"
"""Of a teacher of 4 layers, for a student of 2."""

# --set options -> messages, without the recipe's name in front.
RECIPES = {
    "unknown key": (["stages.0.train.epohcs=3"], ["stages[0].train.epohcs: unknown key; did you mean 'epochs'?"]),
    "misspelt loss": (
        ["stages.0.objective.1.loss=hard_lable"],
        ["stages[0].objective[1].loss: unknown loss 'hard_lable'; did you mean 'hard_label'?"],
    ),
    "several problems": (
        ["stages.0.objective.1.loss=hard_lable", "taks=1", "stages.0.train.batch_size=-1", "seed=abc"],
        [
            "stages[0].objective[1].loss: unknown loss 'hard_lable'; did you mean 'hard_label'?",
            "stages[0].train.batch_size: should be greater than or equal to 1, got -1",
            "seed: should be a valid integer, unable to parse string as an integer, got 'abc'",
            "taks: unknown key; did you mean 'task'?",
        ],
    ),
    "unknown value": (
        ["stages.0.train.schedule=liner"], ["stages[0].train.schedule: unknown value 'liner'; did you mean 'linear'?"],
    ),
    "missing section": (["task=null"], ["task: should be a mapping, got null"]),
    "not a number": (
        ["stages.0.train.learning_rate=.nan"], ["stages[0].train.learning_rate: should be a finite number, got nan"],
    ),
    "epochs and steps": (
        ["stages.0.train.epochs=1", "stages.0.train.steps=4"], ["stages[0].train: give either epochs or steps, not both"],
    ),
    "neither epochs nor steps": (["stages.0.train.steps=null"], ["stages[0].train: give either epochs or steps"]),
    "accumulation": (
        ["stages.0.train.gradient_accumulation=3"],
        ["stages[0].train: batch_size 4 is not a multiple of gradient_accumulation 3"],
    ),
    "no weight": (
        ["stages.0.objective.0.weight=0", "stages.0.objective.1.weight=0"],
        ["stages[0].objective: every weight is 0: there is nothing to minimise"],
    ),
    "no teacher": (["teacher=null"], ["the loss kd_ce needs a teacher: give teacher.model"]),
    "layer beyond the teacher": (
        ["student.init.layers=[0, 4]"],
        ["student.init.layers: layer 4 does not exist; the source has layers 0 to 3 (counted from 0)" + LAYERS_THAT_FIT],
    ),
    "number of layers": (
        ["student.init.layers=[0, 1, 2]"],
        ["student.init.layers: 3 layers for a student with num_hidden_layers 2" + LAYERS_THAT_FIT],
    ),
    "no layers": (
        ["student.init={from: teacher}"],
        ["student.init.layers: missing; the source has 4 layers and the student 2, so name 2 of 0 to 3 (counted from 0)"
         + LAYERS_THAT_FIT],
    ),
    "layers of nothing": (
        ["student.init={from: random, layers: [0, 1]}"],
        [
            "student.init: layers are given, but from is 'random': there are none to take; --set 'student.init={from: random}' "
            "leaves them out"
        ],
    ),
    "architecture": (
        ["student.architecture={num_hidden_layers: two, hiden_size: 8}"],
        [
            "student.architecture.num_hidden_layers: should be a valid integer, unable to parse string as an integer, "
            "got 'two'",
            "student.architecture.hiden_size: unknown key; did you mean 'hidden_size'?",
        ],
    ),
    "family": (
        ["student.architecture.family=albert"], ["student.architecture.family: unknown key; did you mean 'model_type'?"],
    ),
    "family beside the architecture": (
        ["student.family=albert"], ["student.family: unknown key; did you mean 'student.architecture.model_type'?"],
    ),
    "another family": (
        ["student.architecture.model_type=albert"],
        [
            "student.architecture.model_type: albert, but the weights of student.init.from are of another architecture, bert; "
            "new ones: --set 'student.init={from: random}'"
        ],
    ),
    "another width": (
        ["student.architecture.intermediate_size=4"],
        [
            "student.architecture.intermediate_size: 4, but the weights of student.init.from ('teacher') have 16; "
            "for another size: --set 'student.init={from: random}'"
        ],
    ),
    "max_length beyond the positions": (
        ["task.max_length=64"], ["task.max_length: 64, but teacher.model has only 32 positions"],
    ),
    "another vocabulary": (
        ["student={architecture: {vocab_size: 9}}"],
        [
            "student: vocab_size is 9, but the tokenizer has 15 tokens; `crossdistil convert MODEL NEW --to pytorch "
            "--resize-vocabulary 15` adds rows"
        ],
    ),
}  # fmt: skip


@pytest.mark.parametrize(("sets", "messages"), RECIPES.values(), ids=RECIPES)
def test_recipe(right_files, sets, messages):
    before = contents(right_files.root)
    answer = right_files.run(sets=sets)
    assert_refused(right_files, answer, *(f"{{root}}/recipe.yaml: {message}" for message in messages))
    assert contents(right_files.root) == before


def test_kd_on_regression(files):
    files.append("train.tsv", "the film\t0.5\n")
    write_model(files.root / "regressor", labels=None)
    sets = ["task={name: stars, text: sentence, label: label, kind: regression}", f"task.data={files.data}"]
    answer = files.run(sets=[*sets, f"teacher.model={files.root}/regressor", "task.max_length=16"])
    assert_refused(
        files,
        answer,
        "{root}/recipe.yaml: stages[0].objective[0].loss: kd_ce needs classes, but the task is a regression; use kd_mse",
    )


NOT_RECIPES = {
    "broken YAML": ("method: kd\ntask: {name: [\nseed: -\n", ":3: not valid YAML: expected the node content, but found '-'"),
    "key twice": (
        "method: kd\nmethod: pkd\n",
        ':2: not valid YAML: found duplicate key "method" with value "pkd" (original value: "kd")',
    ),
    "list": ("- kd\n", ": expected a mapping with method, task, student and stages, got ['kd']"),
    "empty": ("", ": expected a mapping with method, task, student and stages, got None"),
    "binary": (b"\xff\xfe", ":1: not valid YAML: byte 0 is not UTF-8"),
}


@pytest.mark.parametrize(("content", "message"), NOT_RECIPES.values(), ids=NOT_RECIPES)
def test_recipe_file(files, content, message):
    files.recipe.write_bytes(content if isinstance(content, bytes) else content.encode())
    assert_refused(files, files.run(), f"{{root}}/recipe.yaml{message}")


@pytest.mark.parametrize("name", ["{root}/recipe.yml", "{root}", "kdd"])
def test_missing_recipe(files, name):
    answer = crossdistil("run", name.replace("{root}", str(files.root)), "--out", files.out)
    assert re.fullmatch(r".*: no such recipe file, and not one of the catalogue: .*\bfinetune, kd\b.*", answer.messages[0])
    assert_refused(files, answer, answer.messages[0])


@pytest.mark.parametrize(
    ("override", "message"),
    {
        "abc": "expected path.to.key=value, for example stages.0.train.epochs=1",
        "=1": "expected path.to.key=value, for example stages.0.train.epochs=1",
        "stages.5.train=1": "stages has no item '5', only 0 (counted from 0)",
        "stages.first.train=1": "stages has no item 'first', only 0 (counted from 0)",
        "seed.x=1": "seed holds 1, not keys",
        "seed={": "the value is not valid YAML",
    }.items(),
)
def test_set(right_files, override, message):
    assert_refused(right_files, right_files.run(sets=[override]), f"--set {override}: {message}")


def test_everything_at_once(files):
    """Data, teacher, tokenizer and recipe are wrong: all of it is told."""
    files.append("train.tsv", "the film\t2\n")
    (files.data / "dev.tsv").unlink()
    files.change_config(num_attention_heads=3)
    answer = files.run(sets=["student.tokenizer=/nowhere", "student.init.from=/no/encoder"])
    assert_refused(
        files,
        answer,
        "{root}/data/train.tsv:14: got label '2', expected one of '0', '1' (1 row); "
        "task.labels names all classes, task.skip_labels leaves rows out",
        "{root}/data/dev.tsv: no such file; the folder holds test.tsv, train.tsv",
        "teacher.model: {root}/teacher/config.json: hidden_size 8 is not a multiple of num_attention_heads 3",
        "student.tokenizer: /nowhere: no tokenizer.json and no vocab.txt; the folder /nowhere does not exist",
        "student.init.from: /no/encoder: no such model folder",
    )


def test_in_a_process_of_its_own(files):
    """The tests above call the command line in this process; nothing but messages comes out of a real one either."""
    command = [sys.executable, "-m", "crossdistil", "run", files.recipe, "--out", files.out]
    done = subprocess.run([*command, "--set", "task.max_length=64"], capture_output=True, text=True, cwd=files.root)
    assert done.returncode == 2
    message = "task.max_length: 64, but teacher.model has only 32 positions"
    assert done.stderr == f"crossdistil: error: {files.recipe}: {message}\n"
    assert not files.out.exists()


def test_unknown_backend(right_files):
    assert_refused(right_files, right_files.run("--backend", "pytorch"), "unknown backend 'pytorch'; did you mean 'torch'?")


def test_backend_that_is_not_installed(right_files, monkeypatch):
    monkeypatch.setattr(registry.Backend, "here", property(lambda backend: False))
    monkeypatch.setattr(registry, "_candidates", lambda name: [])
    how = "make environments BACKENDS=oneflow in a checkout, or pip install 'crossdistil[oneflow]'"
    assert_refused(right_files, right_files.run("--backend", "oneflow"), f"backend 'oneflow': not installed; {how}")


@pytest.mark.parametrize(
    ("options", "start"),
    [
        (["--device", "tpu"], "device 'tpu': the {} backend has cpu"),
        (["--device", "cuda:99"], "device 'cuda:99': "),
        (["--device", "cpu", "--precision", "fp16"], "precision 'fp16': "),
    ],
)
def test_device(right_files, backend_name, options, start):
    answer = right_files.run("--backend", backend_name, *options)
    assert len(answer.messages) == 1 and answer.messages[0].startswith(start.format(backend_name))
    assert_refused(right_files, answer, answer.messages[0])


def test_crosscheck_of_a_wrong_recipe(right_files, monkeypatch):
    """What a worker process finds is told once, under the recipe's own name."""
    here = registry.default_backend()
    monkeypatch.setattr(registry, "interpreter", lambda name: sys.executable)
    monkeypatch.setattr("crossdistil.core.app.worker.interpreter", lambda name: sys.executable)
    others = [name for name in registry.BACKENDS if name != here]
    options = ["--backends", f"{here},{others[0]}", "--out", right_files.out, "--set", "student.init.layers=[0, 4]"]
    answer = crossdistil("crosscheck", right_files.recipe, *options)
    message = "student.init.layers: layer 4 does not exist; the source has layers 0 to 3 (counted from 0)" + LAYERS_THAT_FIT
    assert_refused(right_files, answer, f"{{root}}/recipe.yaml: {message}")
