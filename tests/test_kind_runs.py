"""What a run of every kind of task stands: it goes on to the same end, and with the same data alone; its data is read to train,
to score and for its texts."""

from __future__ import annotations

import json
from pathlib import Path
from unittest import mock

import numpy as np
import pytest

from crossdistil.core.data.tasks import read_split, read_split_texts, resolve_task
from crossdistil.core.data.token_table import TokenTable
from crossdistil.core.recipe import load_recipe
from crossdistil.core.shared_run import SharedRun
from crossdistil.tests.kind_recipes import KIND_RECIPES, write_kind
from crossdistil.tests.tiny_rankings import lists
from crossdistil.tests.wrong_input_files import crossdistil

pytestmark = pytest.mark.only_backend("torch")
OF_TEXT = ("clm", "distilgpt2")


def _run(recipe: Path, out: Path, *more: str):
    return crossdistil("run", recipe, "--backend", "torch", "--device", "cpu", "--no-latency", "--no-report", "--out", out, *more)


def _stopped_after(step: int):
    """Interrupts the run behind the state of a step."""
    save = SharedRun.save_state

    def stopping(shared, state):
        save(shared, state)
        if state.step == step:
            raise KeyboardInterrupt

    return mock.patch.object(SharedRun, "save_state", stopping)


def _logged(out: Path) -> list[dict]:
    lines = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    return [{key: value for key, value in line.items() if key != "tokens_per_second"} for line in lines]


def _turned(path: Path, split: str) -> str:
    """The content of a file of data whose last row says something else."""
    text = path.read_text(encoding="utf-8")
    rows, last = text.rstrip("\n").rpartition("\n")[::2]
    if path.suffix == ".json":
        tree = json.loads(text)
        asked = tree["data"][0]["paragraphs"][-1]
        asked["qas"][0]["answers"] = [{"text": asked["context"].split()[0], "answer_start": 0}]
        return json.dumps(tree)
    if path.suffix == ".jsonl":
        found = json.loads(last)
        key = "labels" if "labels" in found else "alike"
        found[key] = found[key][::-1] if isinstance(found[key], list) else 2 - found[key] / 2
        return f"{rows}\n{json.dumps(found)}\n"
    if path.suffix == ".tsv":
        return f"{rows}\n{last[:-1]}{1 - int(last[-1])}\n"
    if path.suffix == ".conll":
        word, _, tag = last.split()
        return f"{rows}\n{word} x {'O' if tag != 'O' else 'B-PER'}\n"
    return f"{rows}\n{' '.join(reversed(last.split()))} film\n"


@pytest.mark.parametrize("name", KIND_RECIPES)
def test_a_run_goes_on_to_the_same_end_with_the_same_data_alone(name, tmp_path):
    recipe, whole, broken = write_kind(tmp_path, name, evaluate_every=6), tmp_path / "whole", tmp_path / "broken"
    assert _run(recipe, whole).code == 0
    with _stopped_after(4):
        assert _run(recipe, broken).code == 130
    data = tmp_path if name in OF_TEXT else tmp_path / "data"
    for split in ("train", "dev"):
        (path,) = data.glob(f"{split}.*")
        kept = path.read_text(encoding="utf-8")
        path.write_text(_turned(path, split), encoding="utf-8")
        (message,) = _run(recipe, broken, "--resume").messages
        assert message.startswith(f"{broken}: was started with other data: the ") and split in message, message
        path.write_text(kept, encoding="utf-8")
    assert _run(recipe, broken, "--resume").code == 0
    assert _logged(broken) == _logged(whole)
    assert (broken / "student/model.safetensors").read_bytes() == (whole / "student/model.safetensors").read_bytes()
    (message,) = _run(recipe, broken, "--resume").messages
    assert message == f"{broken}: the run is complete; there is nothing to resume"
    if name in ("qa", "reranker"):
        answer = crossdistil("evaluate", whole, "--data", data, "--split", "train")
        assert answer.code == 0 and len(json.loads(answer.stdout.splitlines()[-1])) >= 2, answer.stderr


@pytest.mark.parametrize("name", [*(name for name in KIND_RECIPES if name not in OF_TEXT), "retrieval"])
def test_a_model_folder_answers_as_the_run_did(name, tmp_path):
    """What `compare` asks of a student that stands alone, converted or exported, is what the run kept; and what `predict` says of
    a file of the task is the same of all."""
    recipe = write_kind(tmp_path, "embedding" if name == "retrieval" else name, steps=1)
    if name == "retrieval":
        tree = json.loads(recipe.read_text())
        tree["task"] |= {"name": "sts-b", "label": None}
        tree["task"]["embeddings"] = {"examples": "texts", "scored_on": "retrieval"}
        recipe.write_text(json.dumps(tree))
        (tmp_path / "data/dev.jsonl").write_text("".join(f"{json.dumps(each)}\n" for each in lists(8, 4)))
    run, converted, graph, data = (tmp_path / part for part in ("run", "converted", "graph", "data"))
    assert _run(recipe, run).code == 0
    for command in (("convert", run, converted, "--to", "mindspore"), ("export", run, graph, "--to", "onnx")):
        answer = crossdistil(*command)
        assert answer.code == 0, answer.stderr
    compared = crossdistil("compare", run, converted, graph, "--data", data, "--json")
    assert compared.code == 0, compared.stderr
    tested = json.loads(compared.stdout)["pairs"]
    assert tested and all(abs(pair["difference"]) < 1e-4 for pair in tested), tested
    if name in ("embedding", "retrieval"):
        (path,) = data.glob("train.*")
    else:
        (path,) = data.glob("dev.*")
    said = [crossdistil("predict", model, "--file", path) for model in (run, converted, graph)]
    assert [answer.code for answer in said] == [0, 0, 0], [answer.stderr for answer in said]
    keys = [[set(json.loads(line)) for line in answer.stdout.splitlines()] for answer in said]
    assert keys[0] == keys[1] == keys[2] and len(keys[0])


@pytest.mark.parametrize("name", [name for name in KIND_RECIPES if name not in (*OF_TEXT, "ner")])
def test_texts_are_read_without_labels(name, tmp_path):
    task = load_recipe(write_kind(tmp_path, name)).task.model_copy(update={"labels": ("0", "1") if name == "llm" else None})
    spec, (path,) = resolve_task(task), (tmp_path / "data").glob("dev.*")
    whole = read_split(spec, task.data, "dev")
    text = path.read_text(encoding="utf-8")
    if path.suffix == ".json":
        tree = json.loads(text)
        for paragraph in tree["data"][0]["paragraphs"]:
            del paragraph["qas"][0]["answers"]
        path.write_text(json.dumps(tree))
    elif path.suffix == ".tsv":
        path.write_text("".join(f"{line.partition(chr(9))[0]}\n" for line in text.splitlines()))
    else:
        rows = [json.loads(line) for line in text.splitlines()]
        rows = [{key: cell for key, cell in row.items() if key not in ("labels", "alike")} for row in rows]
        path.write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    found = read_split_texts(spec, task.data, "dev")
    assert [*found.texts] == [*whole.texts] and (found.pairs is None or [*found.pairs] == [*whole.pairs])


def test_a_large_table_is_looked_at_in_parts(monkeypatch):
    """A change that moves what comes behind it is seen; a small table is looked at whole."""
    drawn = np.random.default_rng(0)

    def table(ids, lengths):
        return TokenTable(np.array(ids, np.int32), np.concatenate([[0], np.cumsum(lengths)]), np.array(lengths, np.int32))

    ids, lengths = drawn.integers(5, 100, 5000), np.full(500, 10)
    same, moved = table(ids, lengths), table(np.insert(ids, 1234, 7), lengths + (np.arange(500) == 123))
    assert same.glance == same.digest
    monkeypatch.setattr("crossdistil.core.data.token_table._LARGE", 100)
    monkeypatch.setattr("crossdistil.core.data.token_table._PARTS", (16, 8))
    large = table(ids, lengths)
    assert large.glance == table(ids, lengths).glance != large.digest
    assert moved.glance != large.glance
