"""Teachers from a cache teach as teachers that run, a cache is made where the recipe's `teacher_cache` says so, and one
that does not fit stops the run before its first step."""

from __future__ import annotations

import dataclasses
import io
import json
import shutil

import numpy as np
import pytest
from rich.console import Console

from crossdistil.core import teacher_writing
from crossdistil.core.app import cache_worth, teaching
from crossdistil.core.app import cli as command_line
from crossdistil.core.app.run import RunOptions, execute
from crossdistil.core.engine import EngineOptions, Step
from crossdistil.core.errors import CrossdistilError
from crossdistil.core.job import prepare
from crossdistil.core.recipe import parse_recipe
from crossdistil.core.teacher_cache import TeacherCache
from crossdistil.core.teacher_identity import CacheKey, model_digest
from crossdistil.core.teacher_writing import write_outputs
from crossdistil.tests import tiny
from crossdistil.tests.cached_teacher import ReferenceEngine, content, outputs_of, plan_of, teach
from crossdistil.tests.damages import full_disk

LAYERS = [
    {"loss": "hidden_mse", "layers": [[0, 0], [2, 1]], "projection": {"kind": "linear"}},
    {"loss": "attention_score_mse", "layers": [[1, 1]], "weight": 0.2},
    {"loss": "value_relation_kl", "layers": [[2, 1]]},
    {"loss": "self_relation_kl", "layers": [[2, 1]], "relation": "key", "relation_heads": 8},
]
ANSWERS = [{"loss": "kd_ce", "temperature": 2}, {"loss": "hard_label", "weight": 0.3}]


@pytest.fixture
def tree(tiny_task, tiny_model):
    """A recipe of two stages, each of two epochs of six steps, the last batch of an epoch with padding rows."""
    tree = tiny.kd_recipe(tiny_task, tiny_model, log_every=1, keep="last", evaluate_every=100)
    train = tree["stages"][0]["train"]
    tree["stages"] = [
        {"name": "layers", "objective": LAYERS, "train": dict(train)},
        {"name": "answers", "objective": ANSWERS, "train": dict(train)},
    ]
    return tree


def run(tree, backend, out, **options):
    """(the losses and terms of each step, what was printed)"""
    text = io.StringIO()
    engine = EngineOptions("cpu", options.pop("precision", "fp32"))
    settings = RunOptions(backend, engine, out, **options)
    execute(parse_recipe(tree, "test"), "test", settings, Console(file=text, width=1000))
    lines = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    return [[line["loss"], *line["terms"].values()] for line in lines if "loss" in line], text.getvalue()


def flat(rows):
    return [value for row in rows for value in row]


def caches_of(tree, folder):
    """The caches in a folder that a recipe names, by stage, as they are known without an engine."""
    job = prepare(parse_recipe(tree, "test"), "test", 1)
    model, table = job.teachers["teacher"], job.data.tokens["train"]
    caches = []
    for index in range(len(tree["stages"])):
        names = tuple(sorted(job.stage(index).objective.teacher_outputs["teacher"]))
        key = CacheKey(model_digest(model), table.digest, names, "fp32", "fp32")
        caches.append(TeacherCache(folder / "teacher", key, model, table.lengths))
    return caches, model, table


def epoch_of(job, engine):
    """The losses and terms of an epoch's steps, taken without a run folder."""
    taught = teaching.Teaching(job, engine, Console(quiet=True))
    stage = taught.stage(0, False)
    held = {**job.student.parameters, **stage.new_projections(job.student.parameters, 7)}
    step = engine.train_step(stage.objective.function, held, taught.frozen(stage), stage.optimizer(held))
    batches = enumerate(stage.batches.epoch(0))
    steps = [Step(stage.objective.prepare(micro_batches), 1e-3, number) for number, micro_batches in batches]
    return stage, step.run(iter(steps), len(steps)).fetch()


def test_what_the_reference_wrote_teaches_as_the_teacher_itself(engine, tmp_path, tree):
    tree["stages"] = [tree["stages"][0] | {"objective": [*LAYERS, *ANSWERS]}]
    tree["teacher_cache"] = {"use": "always", "folder": str(tmp_path / "cache")}
    [cache], model, table = caches_of(tree, tmp_path / "cache")
    write_outputs(cache, plan_of(table), lambda names: outputs_of(model, table, names), lambda done, total: None)
    made = content(cache.folder)
    job = prepare(parse_recipe(tree, "test"), "test", engine.length_step)
    stage, losses = epoch_of(job, engine)
    assert stage.objective.cached and content(cache.folder) == made
    uncached = parse_recipe(tree | {"teacher_cache": {"use": "never"}}, "test")
    stage, expected = epoch_of(dataclasses.replace(job, recipe=uncached), engine)
    assert not stage.objective.cached and losses.shape == (6, 7 + 2)  # the teacher's entropy, and the gradient's norm
    np.testing.assert_allclose(losses, expected, rtol=2e-5, atol=2e-6)


@pytest.mark.only_backend("torch", "oneflow")  # MindSpore would compile ten graphs
def test_a_run_is_the_same_with_and_without_a_cache(backend_name, tmp_path, tree):
    expected, printed = run(tree | {"teacher_cache": {"use": "never"}}, backend_name, tmp_path / "never")
    assert "rows, " not in printed and len(expected) == 24
    tree["teacher_cache"] = {"use": "always", "folder": str(tmp_path / "cache")}
    losses, printed = run(tree, backend_name, tmp_path / "always")
    assert flat(losses) == pytest.approx(flat(expected), rel=2e-5, abs=2e-6)
    caches = caches_of(tree, tmp_path / "cache")[0]
    outputs = sorted({output for cache in caches for output in cache.key.outputs})
    size = sum(path.stat().st_size for path in caches[0].folder.glob("*.bin"))  # of both stages, in one pass
    told = f"teacher: {', '.join(outputs)} for 44 rows, {size / 1e6:.1f} MB in fp32, go to {caches[0].folder}\n"
    assert told in printed and printed.count("go to") == 1
    for cache in caches:
        assert cache.complete
        cache.open()
    again, printed = run(tree, backend_name, tmp_path / "again")
    assert "go to" not in printed
    assert all(f"teacher: {', '.join(cache.key.outputs)} from {cache.folder}\n" in printed for cache in caches)
    assert flat(again) == pytest.approx(flat(losses), rel=1e-6)


@pytest.mark.only_backend("torch")
def test_half_precision_is_near_and_every_precision_has_its_own_cache(backend_name, tmp_path, tree):
    expected, _ = run(tree | {"teacher_cache": {"use": "never"}}, backend_name, tmp_path / "never")
    half = {"use": "always", "precision": "fp16", "folder": str(tmp_path / "half")}
    losses, printed = run(tree | {"teacher_cache": half}, backend_name, tmp_path / "fp16")
    assert "MB in fp16" in printed
    assert flat(losses) == pytest.approx(flat(expected), rel=5e-3, abs=5e-4)
    assert flat(losses) != pytest.approx(flat(expected), rel=2e-5, abs=2e-6)
    with pytest.raises(CrossdistilError, match="computed_in 'fp32' instead of 'bf16'"):
        run(tree | {"teacher_cache": half}, backend_name, tmp_path / "bf16", precision="bf16")


@pytest.mark.only_backend("torch")
def test_a_damaged_cache_of_ours_is_made_again(backend_name, tmp_path, tree, monkeypatch):
    monkeypatch.setenv("CROSSDISTIL_CACHE", str(tmp_path / "cache"))
    tree["stages"] = tree["stages"][1:]
    expected, printed = run(tree, backend_name, tmp_path / "first")
    [folder] = (tmp_path / "cache" / "teacher").iterdir()
    assert f"go to {folder}" in printed
    (folder / "logits.bin").write_bytes(b"0" * 351)
    losses, printed = run(tree, backend_name, tmp_path / "second")
    assert losses == expected and f"teacher: {folder} is damaged, and is made again" in printed
    (folder / "identity.json").write_text("{")
    losses, printed = run(tree, backend_name, tmp_path / "third")
    assert losses == expected and "made again" in printed
    assert "made again" not in run(tree, backend_name, tmp_path / "fourth")[1]
    (folder / "logits.bin").write_bytes(b"0" * 352)
    with pytest.raises(CrossdistilError, match=f"^{folder}/logits.bin: block 1 of 1 .* is damaged; delete {folder}/logits.bin"):
        run(tree, backend_name, tmp_path / "fifth")
    (folder / "logits.bin").unlink()
    losses, printed = run(tree, backend_name, tmp_path / "sixth")
    assert losses == expected and "teacher: logits for 44 rows" in printed


@pytest.mark.only_backend("torch")
def test_the_command_line_refuses_a_cache_that_does_not_fit(backend_name, tmp_path, tree, capsys, monkeypatch):
    folder = tmp_path / "cache"
    tree["teacher_cache"] = {"use": "always", "folder": str(folder)}
    run(tree, backend_name, tmp_path / "run")
    hidden, logits = caches_of(tree, folder)[0]
    shutil.copytree(folder, tmp_path / "kept")
    tiny.write_model(tmp_path / "other", seed=3)
    (tmp_path / "task").mkdir()
    for split in ("train", "dev"):
        lines = (tmp_path.__class__(tree["task"]["data"]) / f"{split}.tsv").read_text().splitlines(keepends=True)
        (tmp_path / "task" / f"{split}.tsv").write_text("".join(lines[:-1]))

    def refused(message, tree=tree):
        recipe = tmp_path / "recipe.yaml"
        recipe.write_text(json.dumps(tree))
        arguments = ["run", recipe, "--backend", backend_name, "--device", "cpu", "--out", tmp_path / "refused"]
        monkeypatch.setattr("sys.argv", ["crossdistil", *map(str, arguments)])
        with pytest.raises(SystemExit) as ended:
            command_line.main()
        lines = capsys.readouterr().err.splitlines()
        assert ended.value.code == 2 and len(lines) == 1, lines
        assert lines[0].startswith(f"crossdistil: error: {folder}") and message in lines[0]
        assert not (tmp_path / "refused").exists()

    refused("is a teacher cache of another teacher", tree | {"teacher": {"model": str(tmp_path / "other")}})
    refused("is a teacher cache of other data", tree | {"task": tree["task"] | {"data": str(tmp_path / "task")}})
    refused("precision 'fp32' instead of 'fp16'", tree | {"teacher_cache": tree["teacher_cache"] | {"precision": "fp16"}})
    (logits.folder / "identity.json").unlink()
    refused("identity.json: missing; delete the folder")
    shutil.copytree(tmp_path / "kept", folder, dirs_exist_ok=True)
    (hidden.folder / "hidden-2.sums").write_bytes(b"{")
    refused("hidden-2.sums: damaged; delete")
    shutil.copytree(tmp_path / "kept", folder, dirs_exist_ok=True)
    path = hidden.folder / "hidden-2.bin"
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(bytes(data))
    refused(f"hidden-2.bin: block 1 of 1 (bytes 0 to {len(data) - 1:,}) is damaged; delete {path}")


def decided(tree):
    """Whether the first stage has a cache, and what was printed."""
    stage, printed = teach(tree)
    return stage.objective.cached, printed


def test_auto_caches_what_is_passed_over_more_than_once(tree, tmp_path):
    tree["teacher_cache"] = {"folder": str(tmp_path / "cache")}
    train = tree["stages"][0]["train"]
    for steps, cached in ((6, False), (8, False), (9, True)):  # an epoch has six
        train["steps"] = steps
        assert decided(tree)[0] is cached
        assert (tmp_path / "cache").exists() is cached
    tree["teacher_cache"]["use"] = "never"
    assert decided(tree) == (False, "")
    train["steps"] = 1
    tree["teacher_cache"]["use"] = "always"
    assert decided(tree)[0] is True


class TiredEngine(ReferenceEngine):
    """The reference, which stops after some batches."""

    def __init__(self, batches):
        self.left = batches

    def infer(self, function, parameters):
        run = super().infer(function, parameters)

        def tired(batch):
            if not self.left:
                raise RuntimeError("tired")
            self.left -= 1
            return run(batch)

        return tired


def test_an_interrupted_run_goes_on_with_its_cache(tree, tmp_path, monkeypatch):
    monkeypatch.setattr(teacher_writing, "_SAVE_SECONDS", 0.0)
    tree["task"] = tree["task"] | {"data": str(tiny.write_task(tmp_path / "larger", train=300))}  # five batches
    folders = {name: tmp_path / name for name in ("broken", "whole")}
    trees = {name: tree | {"teacher_cache": {"use": "always", "folder": str(path)}} for name, path in folders.items()}
    with pytest.raises(RuntimeError, match="tired"):
        teach(trees["broken"], engine=TiredEngine(3))
    _, printed = teach(trees["broken"], engine=TiredEngine(2))
    assert "teacher: 256 of 300 rows are cached" in printed and "192 of" not in printed
    teach(trees["whole"])
    broken, whole = (content(path / "teacher") for path in folders.values())
    assert broken == whole


def test_one_pass_fills_what_later_stages_read_too(tree, tmp_path, monkeypatch):
    """As far as they read it, and there is room: a second pass would run the teacher over all rows again."""
    [layers, answers], _, _ = caches_of(tree, tmp_path)
    both = {layout.name for layout in (*layers.layouts, *answers.layouts)}
    first, last = set(layers.key.outputs), tree["stages"][1]["train"]
    fits = sum(layout.size for layout in layers.layouts) * 4
    for number, (steps, room, filled) in enumerate([(12, 1 << 30, both), (6, 1 << 30, first), (12, fits, first)]):
        last["steps"], folder = steps, tmp_path / str(number)
        monkeypatch.setattr(cache_worth, "LARGEST", room)
        cached, printed = decided(tree | {"teacher_cache": {"folder": str(folder)}})
        assert cached and printed.count("go to") == 1 and f"teacher: {', '.join(sorted(filled))} for 44 rows" in printed
        assert {path.stem for path in (folder / "teacher").glob("*.sums")} == {name.replace("/", "-") for name in filled}


@pytest.fixture
def small_files():
    """No file can be longer than 16 MiB: a decision that is wrong does not fill the disk."""
    with full_disk(1 << 24):
        yield


def test_auto_leaves_room_on_the_disk(tmp_path, small_files):
    """Attention of 32 heads over texts of 512 tokens: 34 MB a layer and text. Nothing is computed to find that out."""
    config = tiny.CONFIG.model_copy(update={"num_attention_heads": 32, "max_position_embeddings": 512})
    tiny.write_model(tmp_path / "teacher", config)
    free = shutil.disk_usage(tmp_path).free
    per_text = 2 * 32 * 512**2 * 4
    count = int(min(cache_worth.LARGEST, free / 2) * 1.3 / per_text) + 1
    (tmp_path / "task").mkdir()
    for split, lines in (("train", count), ("dev", 2)):
        text = "sentence\tlabel\n" + ("film " * 600 + "\t1\n") * lines
        (tmp_path / "task" / f"{split}.tsv").write_text(text)
    tree = tiny.kd_recipe(tmp_path / "task", tmp_path / "teacher", steps=5 * count, length_buckets=[512])
    tree["task"]["max_length"] = 512
    tree["stages"][0]["objective"] = [{"loss": "attention_mse", "layers": [[1, 1], [2, 1]]}]
    tree["teacher_cache"] = {"folder": str(tmp_path / "cache")}
    cached, printed = decided(tree)
    assert cached is False and not (tmp_path / "cache").exists()
    assert f"the teachers run in every step; a cache would take {count * per_text / 1e9:.1f} GB, with " in printed


@pytest.mark.parametrize("use", ["auto", "always", "never"])
@pytest.mark.parametrize("obstacle", ["teacher_dropout", "mask_padding: false"])
def test_what_changes_in_every_step_is_not_cached(tree, tmp_path, use, obstacle):
    if obstacle == "teacher_dropout":
        tree["teacher_dropout"] = True
    else:  # of the second stage: told before the first one
        tree["stages"][1]["objective"] = [{"loss": "hidden_mse", "layers": [[1, 1]], "mask_padding": False}]
        tree["stages"][0]["train"]["steps"] = 1
    tree["teacher_cache"] = {"use": use, "folder": str(tmp_path / "cache")}
    if use == "always":
        with pytest.raises(CrossdistilError, match=f"^teacher_cache.use: 'always', but .*{obstacle}"):
            teach(tree)
    else:
        assert decided(tree)[0] is False and not (tmp_path / "cache").exists()


def test_another_layer_map_adds_only_what_it_needs(tmp_path, tiny_task):
    tiny.write_model(tmp_path / "deep", tiny.CONFIG.model_copy(update={"num_hidden_layers": 40}))
    tree = tiny.kd_recipe(tiny_task, tmp_path / "deep", steps=20)
    tree["teacher_cache"] = {"folder": str(tmp_path / "cache")}
    for last, told in ((39, "teacher: hidden/1, hidden/10, "), (40, "teacher: hidden/40 for 44 rows, ")):
        pairs = [[layer, 1] for layer in range(1, last + 1)]
        tree["stages"][0]["objective"] = [{"loss": "hidden_mse", "layers": pairs}]
        cached, printed = decided(tree)
        assert cached is True and told in printed and len(list((tmp_path / "cache" / "teacher").glob("*.bin"))) == last
    (tmp_path / "cache" / "teacher" / "hidden-1+logits").mkdir()
    (tmp_path / "cache" / "teacher" / "hidden-1+logits" / "complete.json").write_text("{}")
    (tmp_path / "cache" / "teacher" / "hidden-7.bin").unlink()
    told = f"note: {tmp_path}/cache/teacher/hidden-1+logits: is of an earlier version, which is not read; it can be deleted\n"
    assert told in decided(tree)[1] and decided(tree)[0] is True
