"""Recipes whose stages, matches, projections, teachers or data cannot be: a clear line for each problem, before anything is
written."""

from __future__ import annotations

import pytest

from crossdistil.tests.wrong_input_files import Files, assert_refused, contents, write_files, write_model


@pytest.fixture(scope="module")
def files(tmp_path_factory) -> Files:
    files = write_files(tmp_path_factory.mktemp("right"))
    write_model(files.root / "wide", hidden_size=12, num_attention_heads=3)
    return files


TERM, ONE = "stages.0.objective.0", "stages[0].objective[0]"
TEACHERS = "teachers={a: {model: ROOT/teacher}, b: {model: ROOT/wide}}"
NARROW = "student={architecture: {num_hidden_layers: 2, hidden_size: 4}, init: {from: random}}"
# The teacher has 4 layers x 8 in 2 heads, the student 2 of them.
WRONG = {
    "one and several teachers": ([TEACHERS, "teacher.model=ROOT/teacher"], ["give either teacher or teachers, not both"]),
    "two stages of a name": (
        ["stages=[{name: a, objective: [{loss: hard_label}], train: {steps: 1}}, "
         "{name: a, objective: [{loss: hard_label}], train: {steps: 1}}]"],
        ["stages: 2 stages are named 'a'"],
    ),
    "unknown rule": (
        [TERM + "={loss: hidden_mse, layers: unform}"],
        [ONE + ".layers: expected uniform, skip, last, top, bottom, final or a list of [teacher, student] layers, got 'unform'; "
         "did you mean 'uniform'?"],
    ),
    "no pairs": (
        [TERM + "={loss: hidden_mse, layers: [[2]]}"],
        [ONE + ".layers: expected uniform, skip, last, top, bottom, final or a list of [teacher, student] layers, got [[2]]"],
    ),
    "TextBrewer's name misspelt": (
        ["stages.0.objective=[L4_hidden_smd]"],
        [ONE + ".loss: unknown loss 'L4_hidden_smd'; did you mean 'L4_hidden_smmd'?"],
    ),
    "no mapping": (
        ["stages.0.train=3"], ["stages[0].train: should be a mapping, got 3"],
    ),
    "a shared projection that is not one": (
        ["stages.0.objective=[{loss: hidden_mse, projection: {name: p, learning_rate: 1e-3}}, "
         "{loss: hidden_cosine, projection: {name: p, kind: tanh}}]"],
        ["stages[0].objective[1].projection.kind: projection.p is tanh here, and linear in stages[0].objective[0].projection",
         "stages[0].objective[1].projection.learning_rate: that of projection.p is the stage's here, and 0.001 in "
         "stages[0].objective[0].projection"],
    ),
    "teacher layer": (
        [TERM + "={loss: hidden_mse, layers: [[5, 1]]}"],
        [ONE + ".layers: teacher layer 5 does not exist; the teacher has layers 1 to 4, and 0 for the embeddings; for example "
         "--set 'stages.0.objective.0.layers=[[2, 1]]'"],
    ),
    "student layer": (
        [TERM + "={loss: attention_mse, layers: [[4, 3]]}"],
        [ONE + ".layers: student layer 3 does not exist; the student has layers 1 to 2, and 0 for the embeddings"],
    ),
    "attention of the embeddings": (
        [TERM + "={loss: attention_mse, layers: [[0, 0]]}"],
        [ONE + ".layers: layer 0 is the embedding output, which has no attention"],
    ),
    "two layers for one": (
        [TERM + "={loss: hidden_mse, layers: [[[1, 2], [1, 2]]]}"],
        [ONE + ".layers: hidden_mse compares one layer with one; two layers a side are for fsp and mmd"],
    ),
    "no projection": (
        [NARROW, TERM + "={loss: hidden_mse}"],
        [ONE + ".projection: missing; the hidden sizes differ (student 4, teacher 8), for example {kind: linear}"],
    ),
    "unknown teacher of logits": (
        ["teacher=null", TEACHERS, TERM + ".teacher=c"], [ONE + ".teacher: 'c' is not one of the teachers: a, b"],
    ),
    "unknown teacher of layers": (
        [TERM + "={loss: hidden_mse, teacher: c}"], [ONE + ".teacher: 'c' is not one of the teachers: teacher"],
    ),
    "embeddings beside a list": (
        [TERM + "={loss: hidden_mse, layers: [[1, 1]], embeddings: true}"],
        [ONE + ": embeddings is for a rule; in a list, add [0, 0]"],
    ),
    "freezing what is not there": (
        ["stages.0.freeze=[pooller]"], ["stages[0].freeze[0]: unknown value 'pooller'; did you mean 'pooler'?"],
    ),
    "several problems of several stages": (
        [NARROW, "stages=[{name: a, objective: [{loss: hidden_mse}, {loss: pkd, layers: [[9, 1]]}], train: {steps: 1}}, "
         "{name: b, objective: [{loss: hidden_cosine}], train: {steps: 1}}]"],
        [ONE + ".projection: missing; the hidden sizes differ (student 4, teacher 8), for example {kind: linear}",
         "stages[0].objective[1].layers: teacher layer 9 does not exist; the teacher has layers 1 to 4, and 0 for the "
         "embeddings; for example --set 'stages.0.objective.1.layers=[[2, 1]]'",
         "stages[1].objective[0].projection: missing; the hidden sizes differ (student 4, teacher 8), for example "
         "{kind: linear}"],
    ),
    "a BiLSTM with layers": (
        ["student={architecture: {model_type: bilstm}}", TERM + "={loss: hidden_mse, layers: [[4, 1]]}"],
        [ONE + ".loss: hidden_mse matches layers of BERT models, but the student is none"],
    ),
    "a BiLSTM with a tokenizer": (
        ["student={architecture: {model_type: bilstm}, tokenizer: ROOT/teacher}"],
        ["student: a BiLSTM has words of its own: neither tokenizer nor init.from: teacher fits it"],
    ),
    "words of a BERT": (
        ["student.words={vocabulary: 50}"], ["student: words is for a student with architecture.model_type 'bilstm'"],
    ),
    "a weight of nothing": (
        ["teacher.weight=0"], ["teacher.weight: should be greater than 0, got 0"],
    ),
    "a cache that is not known": (
        ["teacher_cache.use=sometimes"], ["teacher_cache.use: unknown value 'sometimes'; known: auto, always, never"],
    ),
}  # fmt: skip


@pytest.mark.parametrize(("sets", "messages"), WRONG.values(), ids=WRONG)
def test_what_cannot_be_is_told(files, sets, messages):
    before = contents(files.root)
    answer = files.run(sets=[each.replace("ROOT", str(files.root)) for each in sets])
    assert_refused(files, answer, *(f"{{root}}/recipe.yaml: {message}" for message in messages))
    assert contents(files.root) == before


def test_a_teacher_of_another_task_is_named_by_its_own_key(tmp_path):
    files = write_files(tmp_path / "files")
    write_model(files.root / "regression", labels=None)
    teachers = f"teachers={{a: {{model: {files.teacher}}}, b: {{model: {files.root}/regression}}, c: {{model: /nowhere}}}}"
    answer = files.run(sets=["teacher=null", teachers])
    assert_refused(files, answer, "teachers.c.model: /nowhere: no such model folder")
    answer = files.run(sets=["teacher=null", teachers.replace("/nowhere", str(files.teacher))])
    problem = f"teachers.b.model ({files.root}/regression): trained for a regression, but the task is a classification"
    assert_refused(files, answer, f"{{root}}/recipe.yaml: {problem}")


def test_raw_text_has_no_answers(tmp_path):
    files = write_files(tmp_path / "files")
    (files.root / "corpus.txt").write_text("the film is good\n\nthe film is bad and not fine\n")
    task = f"task={{name: corpus, kind: text, data: {files.root}/corpus.txt, max_length: 16}}"
    answer = files.run(sets=[task])
    assert_refused(
        files,
        answer,
        "{root}/recipe.yaml: stages[0].objective[0].loss: kd_ce needs logits, but the task is raw text",
        "{root}/recipe.yaml: stages[0].objective[1].loss: hard_label needs labels, but the task is raw text",
    )
