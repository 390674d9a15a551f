"""The teacher's machine and the student's need not be the same: `crossdistil cache teacher` computes what a run reads, and where
all stages read it, the run needs nothing else of the teacher; where one needs more, that is told before anything is trained."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import sys
import time

import pytest

from crossdistil.core.app import loaded_teachers
from crossdistil.tests import tiny
from crossdistil.tests.cached_teacher import ReferenceEngine, content, teach
from crossdistil.tests.test_teaching import run
from crossdistil.tests.wrong_input_files import crossdistil

LAYERS = [{"loss": "hidden_mse", "layers": [[2, 1]], "projection": {"kind": "linear"}}]
ANSWERS = [{"loss": "kd_ce", "temperature": 2}, {"loss": "hard_label", "weight": 0.3}]
SMALL = {"architecture": {"num_hidden_layers": 1, "hidden_size": 16, "num_attention_heads": 2}, "init": {"from": "random"}}


@pytest.fixture
def tree(tmp_path, tiny_task):
    """A recipe of two stages whose student starts from nothing; its teacher is a folder of its own, to be removed."""
    tiny.write_model(tmp_path / "teacher")
    tree = tiny.kd_recipe(tiny_task, tmp_path / "teacher", log_every=1, keep="last", evaluate_every=100)
    train = tree["stages"][0]["train"]
    tree["stages"] = [
        {"name": "layers", "objective": LAYERS, "train": dict(train)},
        {"name": "answers", "objective": ANSWERS, "train": dict(train)},
    ]
    return tree | {"student": SMALL, "teacher_cache": {"folder": str(tmp_path / "cache")}}


def fill(tmp_path, tree, *options):
    (tmp_path / "recipe.yaml").write_text(json.dumps(tree))
    return crossdistil("cache", "teacher", tmp_path / "recipe.yaml", "--device", "cpu", *options)


def elsewhere(tmp_path, tree, **cache):
    """The recipe on another machine: without the teacher, with a copy of the cache."""
    shutil.copytree(tmp_path / "cache", tmp_path / "copy")
    shutil.rmtree(tmp_path / "teacher")
    shutil.rmtree(tmp_path / "cache")
    return tree | {
        "teacher": {"model": str(tmp_path / "copy" / "teacher")},
        "teacher_cache": {"folder": str(tmp_path / "copy"), **cache},
    }


class Counting(ReferenceEngine):
    """The reference, which counts how often weights are loaded."""

    def __init__(self):
        self.loads = 0

    def load_frozen(self, parameters):
        self.loads += 1
        return dict(parameters)


@pytest.mark.backend
def test_a_copied_cache_teaches_as_the_teacher(backend_name, tmp_path, tree):
    answer = fill(tmp_path, tree, "--backend", backend_name)
    assert answer.code == 0 and not answer.stderr
    for output in ("hidden-2", "logits"):
        place = tmp_path / "cache" / "teacher"
        assert f"in {place}\n" in answer.stdout and (place / f"{output}.sums").is_file()
    assert f"--set teacher.model={tmp_path / 'cache' / 'teacher'}" in answer.stdout
    if backend_name == "mindspore":  # which compiles for a minute; what follows is the same for all
        return
    with_weights, printed = run(tree, backend_name, tmp_path / "with")
    assert "go to" not in printed and "dev accuracy" in printed
    without, printed = run(elsewhere(tmp_path, tree), backend_name, tmp_path / "without")
    assert without == with_weights and f"teacher: logits from {tmp_path / 'copy' / 'teacher'}" in printed
    results = [json.loads((tmp_path / name / "result.json").read_text())["teacher"] for name in ("with", "without")]
    assert results[0] == results[1] and 0 < results[0]["metrics"]["accuracy"] <= 1
    students = [(tmp_path / name / "student" / "model.safetensors").read_bytes() for name in ("with", "without")]
    assert students[0] == students[1]


@pytest.mark.only_backend("torch")
def test_filling_needs_nothing_of_the_student(backend_name, tmp_path, tree):
    """Nor what it starts from, but for its configuration."""
    tiny.write_model(tmp_path / "start", tiny.ONE_LAYER)
    (tmp_path / "start" / "model.safetensors").unlink()
    tree["student"] = {"init": {"from": str(tmp_path / "start")}}
    assert crossdistil("run", write(tmp_path, tree), "--backend", backend_name, "--out", tmp_path / "run").code == 2
    answer = fill(tmp_path, tree, "--backend", backend_name)
    assert answer.code == 0, answer.stderr
    assert (tmp_path / "cache" / "teacher" / "hidden-2.sums").is_file()


def write(tmp_path, tree):
    path = tmp_path / "recipe.yaml"
    path.write_text(json.dumps(tree))
    return path


@pytest.mark.only_backend("torch")
def test_what_needs_the_weights_after_all_is_told_before_training(backend_name, tmp_path, tree):
    assert fill(tmp_path, tree, "--backend", backend_name).code == 0
    tree = elsewhere(tmp_path, tree)
    card = tmp_path / "copy" / "teacher" / "model"

    def refused(**changes):
        answer = crossdistil("run", write(tmp_path, tree | changes), "--backend", backend_name, "--out", tmp_path / "run")
        assert answer.code == 2 and len(answer.messages) == 1 and not (tmp_path / "run").exists(), answer
        return answer.messages[0]

    given = tmp_path / "copy" / "teacher"
    start = {"architecture": {"num_hidden_layers": 1}, "init": {"from": "teacher", "layers": [0]}}
    assert refused(student=start).endswith(
        f"student.init.from ({given}): holds no weights, only what tells which model a cache or an export is of; "
        "give the folder that has them"
    )
    never = refused(teacher_cache={"use": "never"})
    assert (
        never
        == f"{given}/model: holds no weights of 'teacher', but stage 'layers' runs it in every step: teacher_cache.use is never"
    )
    assert "stage 'layers' runs it in every step: teacher_dropout makes" in refused(teacher_dropout=True)
    other = [{"loss": "hidden_mse", "layers": [[1, 1]], "projection": {"kind": "linear"}}]
    stages = [tree["stages"][1], tree["stages"][0] | {"objective": other}]
    assert f"stage 'layers' reads {tmp_path}/copy/teacher, which is not there or not complete" in refused(stages=stages)
    theseus = tree["stages"][1] | {"objective": [{"loss": "hard_label"}], "replacement": {"rate": 0.5}}
    student = {"architecture": {"num_hidden_layers": 1}, "init": {"from": "random"}}
    assert "but stage 'answers' replaces its layers" in refused(stages=[theseus], student=student)
    (card / "config.json").write_text((card / "config.json").read_text().replace("1e-12", "1e-5"))
    assert "is not the one that was written with model.json; it was changed" in refused()
    (card / "model.json").write_text('{"digest": 3}')
    assert "model.json: damaged" in refused()
    (card / "model.json").write_text("[")
    assert "model.json" in refused()


@pytest.mark.only_backend("torch")
def test_what_was_computed_in_another_precision_is_taken_only_where_the_recipe_says_so(backend_name, tmp_path, tree):
    assert fill(tmp_path, tree, "--backend", backend_name, "--precision", "bf16").code == 0
    answer = crossdistil("run", write(tmp_path, tree), "--backend", backend_name, "--out", tmp_path / "run")
    (message,) = answer.messages
    assert "computed_in 'bf16' instead of 'fp32'" in message and "--set teacher_cache.computed_in=bf16 takes it" in message
    taken = tree | {"teacher_cache": tree["teacher_cache"] | {"computed_in": "bf16"}}
    made = content(tmp_path / "cache" / "teacher")
    _, printed = run(taken, backend_name, tmp_path / "run")
    assert "teacher: logits from " in printed and content(tmp_path / "cache" / "teacher") == made
    shutil.rmtree(tmp_path / "cache")
    answer = crossdistil("run", write(tmp_path, taken), "--backend", backend_name, "--out", tmp_path / "other")
    (message,) = answer.messages
    assert (
        message.startswith("teacher_cache.computed_in: bf16, but this computes in fp32")
        and "--precision bf16` fills it" in message
    )


@pytest.mark.only_backend("torch")
def test_nothing_to_fill_is_an_error(backend_name, tmp_path, tree):
    answer = fill(tmp_path, tree | {"teacher_cache": {"use": "never"}}, "--backend", backend_name)
    assert answer.messages == ["teacher_cache.use: 'never': no run of this recipe would read the cache"]
    answer = fill(tmp_path, tree | {"teacher_dropout": True}, "--backend", backend_name)
    assert answer.messages == ["no stage of the recipe reads its teachers' outputs from a cache"]
    assert "stage layers: its teachers run in every step: teacher_dropout makes" in answer.stdout
    answer = crossdistil("cache", "--clear", "teacher", "kd")
    assert answer.messages == ["cache teacher: takes no options of cache before it"]


@pytest.mark.only_backend("torch")
def test_an_interrupted_filling_goes_on(backend_name, tmp_path, tree):
    tree["task"] = tree["task"] | {"data": str(tiny.write_task(tmp_path / "larger", train=200))}  # four batches
    program = (
        "import sys, time; from crossdistil.core import teacher_writing; from crossdistil.core.app import cli, loaded_teachers\n"
        "teacher_writing._SAVE_SECONDS = 0.0\n"
        "outputs = loaded_teachers.LoadedTeachers.outputs\n"
        "pauses = iter([0, 0, 60, 60])\n"
        "def slowly(*arguments):\n"
        "    compute = outputs(*arguments)\n"
        "    return lambda rows: (print('batch', flush=True), time.sleep(next(pauses)), compute(rows))[2]\n"
        "loaded_teachers.LoadedTeachers.outputs = slowly\n"
        f"sys.argv = ['crossdistil', 'cache', 'teacher', '{write(tmp_path, tree)}', '--backend', 'torch', '--device', 'cpu']\n"
        "cli.main()"
    )
    process = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    for _ in range(3):
        while not process.stdout.readline().startswith("batch"):
            pass
    time.sleep(0.2)  # the third one has begun
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 130 and errors.splitlines()[-1] == (
        "crossdistil: interrupted; the same command goes on with the rows that are not cached yet"
    )
    marks = (tmp_path / "cache" / "teacher" / "hidden-2.progress").read_bytes()[-4:]
    assert 1 <= sum(map(bool, marks)) < 4
    answer = fill(tmp_path, tree, "--backend", backend_name)
    assert answer.code == 0 and (tmp_path / "cache" / "teacher" / "logits.sums").is_file()


def test_a_teacher_is_loaded_once_and_not_at_all_where_all_is_cached(tree, tmp_path, monkeypatch):
    def taught(tree, engine):
        """Scores, and both stages, as a run asks for them."""
        found = {}

        class Asking(teach.__globals__["Teaching"]):
            def stage(self, index, done):
                found["scores"] = self.scores()
                for each in range(2):
                    stage = super().stage(each, done)
                    found[each] = self.frozen(stage)
                return stage

        monkeypatch.setitem(teach.__globals__, "Teaching", Asking)
        teach(tree, engine=engine)
        monkeypatch.undo()
        return found

    never, engine = tree | {"teacher_cache": {"use": "never"}}, Counting()
    found = taught(never, engine)
    assert engine.loads == 1 and found["scores"]["teacher"] and len(found[0]) == len(found[1]) > 20
    assert all(found[0][name] is found[1][name] for name in found[0])
    engine = Counting()
    first = taught(tree, engine)["scores"]
    assert engine.loads == 1  # for the scores and both caches
    engine = Counting()
    assert taught(tree, engine)["scores"] == first and engine.loads == 0
    (tmp_path / "cache" / "teacher" / "scores.json").unlink()
    engine = Counting()
    assert taught(tree, engine)["scores"] == first and engine.loads == 1  # a cache of an earlier version has none
    engine = Counting()
    assert taught(tree, engine)["scores"] == first and engine.loads == 0


def test_weights_are_given_back_when_no_stage_runs_the_teacher_any_more(tree, monkeypatch):
    kept, keep = [], loaded_teachers.LoadedTeachers.keep
    monkeypatch.setattr(loaded_teachers.LoadedTeachers, "keep", lambda self, names: kept.append(set(names)) or keep(self, names))
    short = json.loads(json.dumps(tree))
    short["stages"][1]["train"]["steps"] = 2
    teach(short)
    assert kept == [{"teacher"}], "the second stage reads no cache"
    teach(tree)
    assert kept[1:] == [set()], "both stages' outputs are there"


def test_a_complete_cache_is_read_in_a_short_run_too(tree, tmp_path):
    for section in tree["stages"]:
        section["train"]["steps"] = 2
    stage, _ = teach(tree)
    assert not stage.objective.cached
    longer = json.loads(json.dumps(tree))
    longer["stages"][0]["train"]["steps"] = 30
    assert teach(longer)[0].objective.cached and teach(tree)[0].objective.cached
    assert [path.name for path in (tmp_path / "cache" / "teacher").glob("*.bin")] == ["hidden-2.bin"]


@pytest.mark.only_backend("torch")
def test_two_processes_fill_what_one_fills(backend_name, tmp_path, tree):
    tree["task"] = tree["task"] | {"data": str(tiny.write_task(tmp_path / "larger", train=300))}  # five batches
    assert fill(tmp_path, tree, "--backend", backend_name).code == 0
    (tmp_path / "cache").rename(tmp_path / "one")
    command = [sys.executable, "-m", "crossdistil", "cache", "teacher", tmp_path / "recipe.yaml", "--backend", backend_name]
    ended = subprocess.run([*map(str, command), "--device", "cpu", "--devices", "2"], capture_output=True, text=True)
    assert ended.returncode == 0, ended.stderr
    one, two = (content(tmp_path / name / "teacher") for name in ("one", "cache"))
    assert one == two and len(one) == 6  # numbers and checksums of two outputs, identity, scores
