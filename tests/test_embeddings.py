"""Sentence embeddings: files, scores, what is refused, and a run on each backend."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest

from crossdistil.core.app.data_report import data_warnings
from crossdistil.core.checkpoint import load_model
from crossdistil.core.data.batches import TrainBatches
from crossdistil.core.data.tasks import read_split, resolve_task
from crossdistil.core.data.tokenize import load_tokenizer
from crossdistil.core.errors import CrossdistilError, DataError
from crossdistil.core.job import prepare
from crossdistil.core.kinds.known_kinds import SENTENCE_EMBEDDINGS
from crossdistil.core.model_inputs import trained_length
from crossdistil.core.models.answer_heads import EMBEDDINGS
from crossdistil.core.models.pooling import Pooling
from crossdistil.core.recipe import parse_recipe
from crossdistil.core.task_section import TaskSection
from crossdistil.tests import tiny
from crossdistil.tests.tiny_sentences import TEXTS, change, embedding_recipe, vectors_of, write_embedder, write_sentences


@pytest.fixture(scope="module")
def sentences(tmp_path_factory):
    folder = tmp_path_factory.mktemp("sentences")
    write_sentences(folder / "data")
    write_embedder(folder / "teacher", Pooling("mean", True))
    return folder


def task(data, examples="scored", train="scored.jsonl", **more):
    given = {"examples": examples, "scores": [0, 4]} | more.pop("embeddings", {})
    named = {"text": "a", "text_pair": "b", "label": "alike", "files": {"train": train}} | more
    return TaskSection(name="alike", kind="embeddings", data=data, embeddings=given, **named)


def test_examples_of_each_kind_are_read(sentences):
    data = sentences / "data"
    for examples, train, members, texts in (
        ("scored", "scored.jsonl", 2, 80),
        ("pairs", "triplets.jsonl", 2, 80),
        ("texts", "train.txt", 1, 40),
        ("texts", "triplets.jsonl", 1, 80),
    ):
        found = read_split(resolve_task(task(data, examples, train)), data, "train")
        assert (found.members, len(found.texts), len(found)) == (members, texts, texts // members)
        assert (found.labels is not None) == (examples == "scored")
        rows = [json.loads(line) for line in (data / train).read_text().splitlines()] if train != "train.txt" else []
        assert not rows or list(found.texts)[:40] + list(found.texts)[40:] == [row[key] for key in "ab" for row in rows]
    triplets = task(data, "triplets", "triplets.jsonl", embeddings={"negative": "c"})
    assert read_split(resolve_task(triplets), data, "train").members == 3
    dev = read_split(resolve_task(triplets), data, "dev")
    assert dev.labels.min() >= 0 and dev.labels.max() == 1


def test_own_columns_are_no_sts_b(tmp_path):
    """The recipe's name is STS-B's: a table with other columns is called as its folder, and its scores are from 0 to 1."""
    write_sentences(tmp_path / "own")
    given = {"text": "a", "text_pair": "b", "label": "alike", "embeddings": {"examples": "texts"}}
    spec = resolve_task(TaskSection(name="sts-b", kind="embeddings", data=tmp_path / "own", **given))
    assert (spec.name, spec.embedded.highest) == ("own", 1.0)
    same = {"text": "sentence1", "text_pair": "sentence2", "label": "score", "embeddings": {"examples": "texts"}}
    spec = resolve_task(TaskSection(name="sts-b", kind="embeddings", data=tmp_path / "own", **same))
    assert (spec.name, spec.embedded.highest) == ("sts-b", 5.0)


def test_scores_of_sts_b_are_known(tmp_path):
    header = "sentence1\tsentence2\tscore\n"
    for split in ("train", "dev"):
        (tmp_path / f"{split}.tsv").write_text(header + "a\tb\t5.000\nc\td\t2.5\n")
    section = TaskSection(name="STS-B", kind="embeddings", data=tmp_path)
    assert read_split(resolve_task(section), tmp_path, "dev").labels.tolist() == [1.0, 0.5]


WRONG = {
    "outside": ({"embeddings": {"scores": [0, 1]}}, r"scored.jsonl:\d+: got score [2-4] in 'alike', expected 0 to 1; task.embed"),
    "no column": ({"text_pair": None}, r"task.text_pair: needed, because examples are scored: name the column"),
    "no columns": (dict.fromkeys(("text", "text_pair", "label")), r"task.text: need.*\ntask.text_pair: need.*\ntask.label: need"),
    "no such column": ({"text_pair": "z"}, r"scored.jsonl:1: no column 'z'"),
    "a text a line": ({"files": {"train": "train.txt"}}, r"embeddings.examples: .*train.txt has a text a line, expected texts"),
    "no third": ({"embeddings": {"examples": "triplets"}}, r"task.embeddings.negative: names no column of third texts"),
    "a third": ({"embeddings": {"negative": "c"}}, r"task.embeddings.negative: is for triplets, but examples are scored"),
    "metric": ({"metrics": ["accuracy"]}, r"task.metrics: 'accuracy' is no metric for this task"),
}


@pytest.mark.parametrize("case", WRONG)
def test_what_is_wrong_is_named(case, sentences):
    change_of, message = WRONG[case]
    with pytest.raises(DataError, match=message):
        data = sentences / "data"
        read_split(resolve_task(task(data, **change_of)), data, "train")


@pytest.mark.parametrize("batch_size", [4, 7])
def test_batches_have_first_texts_then_second_ones(batch_size, sentences):
    recipe = embedding_recipe(sentences / "data", sentences / "teacher", [{"loss": "contrastive"}], "triplets")
    table = prepare(parse_recipe(recipe, "test"), "test", 1).data.tokens["train"]
    texts = read_split(resolve_task(TaskSection(**recipe["task"])), sentences / "data", "train").texts
    tokenizer, seen = load_tokenizer(sentences / "teacher"), []
    ids = {text: tuple(tokenizer.library.encode(text).ids[:16]) for text in texts}
    expected = sorted(zip(*([ids[text] for text in texts[part * 40 : part * 40 + 40]] for part in range(3))))
    for [batch] in TrainBatches(table, None, batch_size, 1, (16,), 0).epoch(0):
        rows = [tuple(row[mask > 0].tolist()) for row, mask in zip(batch["input_ids"], batch["attention_mask"])]
        real = batch["example_mask"].reshape(3, batch_size)
        assert len(rows) == 3 * batch_size and (real == real[0]).all()
        seen += [(rows[i], rows[batch_size + i], rows[2 * batch_size + i]) for i in range(batch_size) if real[0, i]]
    assert sorted(seen) == expected


@pytest.mark.parametrize(
    ("objective", "message"),
    [
        ("kd_mse", r"objective\[0\].loss: kd_mse needs logits"),
        ("masked_lm", r"masked_lm needs masked texts"),
    ],
)
def test_recipes_that_do_not_fit_are_refused(objective, message, sentences):
    recipe = embedding_recipe(sentences / "data", sentences / "teacher", [{"loss": objective}], "pairs")
    with pytest.raises(CrossdistilError, match=message):
        prepare(parse_recipe(recipe, "test"), "test", 1)


def test_a_teacher_says_how_it_pools_or_the_recipe_does(sentences, tmp_path):
    tiny.write_model(tmp_path / "plain")
    recipe = embedding_recipe(sentences / "data", tmp_path / "plain", [{"loss": "sentence_mse"}])
    with pytest.raises(CrossdistilError, match="teacher.model .*: has no modules.json of sentence-transf.*teacher_pooling"):
        prepare(parse_recipe(recipe, "test"), "test", 1)
    recipe["task"]["embeddings"] |= {"teacher_pooling": "cls"}
    job = prepare(parse_recipe(recipe, "test"), "test", 1)
    assert job.teachers["teacher"].config.pooling == job.student.config.pooling == Pooling("cls", False)
    recipe["task"]["embeddings"] |= {"pooling": "mean", "normalise": True}
    assert prepare(parse_recipe(recipe, "test"), "test", 1).student.config.pooling == Pooling("mean", True)
    recipe["teacher"]["model"] = str(sentences / "teacher")
    with pytest.raises(CrossdistilError, match="teacher_pooling: got cls, but .*modules.json says mean; it is for a folder that"):
        prepare(parse_recipe(recipe, "test"), "test", 1)


def test_texts_are_cut_as_the_folder_says_and_a_teacher_that_gets_more_is_told(sentences, tmp_path):
    """Of a folder that sentence-transformers wrote, which says nothing else of its length."""
    write_embedder(tmp_path / "model")
    for name in ("config.json", "sentence_bert_config.json"):
        path = tmp_path / "model" / name
        path.write_text(json.dumps({key: value for key, value in json.loads(path.read_text()).items() if key != "crossdistil"}))
    change(tmp_path / "model" / "sentence_bert_config.json", max_seq_length=9)
    (tmp_path / "model" / "checksums.json").unlink(missing_ok=True)
    assert trained_length(load_model(tmp_path / "model", classifier=EMBEDDINGS)) == 9
    recipe = embedding_recipe(sentences / "data", tmp_path / "model", [{"loss": "sentence_mse"}])
    told = "teacher.model: it was made for texts of up to 9 tokens, and gets up to 16; --set task.max_length=9"
    assert any(note.startswith(told) for note in prepare(parse_recipe(recipe, "test"), "test", 1).notes)
    recipe["task"]["max_length"] = 9
    assert not any("made for texts" in note for note in prepare(parse_recipe(recipe, "test"), "test", 1).notes)


def test_scores_that_are_all_the_same_are_told(sentences, tmp_path):
    shutil.copytree(sentences / "data", tmp_path / "data")
    (tmp_path / "data" / "dev.jsonl").write_text('{"a": "good", "b": "bad", "alike": 1}\n' * 2)
    recipe = embedding_recipe(tmp_path / "data", sentences / "teacher", [{"loss": "sentence_mse"}])
    [told] = data_warnings(prepare(parse_recipe(recipe, "test"), "test", 1).data)
    assert told == "dev: all scores are 0.25, so that no spearman and no pearson can be told"


def run_of(said, tmp_path, name, recipe, backend):
    (tmp_path / f"{name}.yaml").write_text(json.dumps(recipe))
    code, _, errors = said("run", tmp_path / f"{name}.yaml", "--out", tmp_path / name, "--backend", backend)
    assert code == 0, errors
    return [json.loads(line)["loss"] for line in (tmp_path / name / "metrics.jsonl").read_text().splitlines() if '"loss"' in line]


def test_a_run_its_student_and_its_vectors(sentences, tmp_path, said, backend_name):
    """Distilled in one part and in two, the same; scored and asked."""
    data, terms = sentences / "data", [{"loss": "sentence_mse"}, {"loss": "sentence_cosine", "widths": [32, 8]}]
    train = {"dropout": 0.0, "log_every": 1}
    losses = [
        run_of(said, tmp_path, f"parts-{parts}", recipe, backend_name)
        for parts in (1, 2)
        for recipe in [embedding_recipe(data, sentences / "teacher", terms, **train, gradient_accumulation=parts)]
    ]
    np.testing.assert_allclose(losses[0], losses[1], rtol=2e-5)
    folder = tmp_path / "parts-1"
    result = json.loads((folder / "result.json").read_text())
    assert set(result["student"]["metrics"]) == {"spearman", "pearson"} and (folder / "report.html").is_file()
    student = load_model(folder / "student", classifier=EMBEDDINGS)
    assert student.kind == SENTENCE_EMBEDDINGS and student.config.pooling == Pooling("mean", True)
    code, printed, errors = said("predict", folder, *TEXTS, "--backend", backend_name)
    found = [json.loads(line) for line in printed.splitlines()]
    assert code == 0 and [each["text"] for each in found] == TEXTS, errors
    np.testing.assert_allclose([each["embedding"] for each in found], vectors_of(folder / "student", TEXTS), atol=1e-5)
    (tmp_path / "texts.txt").write_text("".join(f"{text}\n" for text in TEXTS))
    out = tmp_path / "vectors.npy"
    code, _, errors = said("predict", folder, "--file", tmp_path / "texts.txt", "--out", out, "--backend", backend_name)
    assert code == 0 and np.load(out).dtype == np.float32, errors
    np.testing.assert_allclose(np.load(out), [each["embedding"] for each in found], atol=1e-6)
    code, printed, errors = said("evaluate", folder, "--data", data, "--backend", backend_name)
    assert code == 0 and json.loads(printed.splitlines()[-1]) == pytest.approx(result["student"]["metrics"], abs=1e-6), errors


@pytest.mark.parametrize(
    ("examples", "terms"),
    [
        ("scored", [{"loss": "similarity_mse"}]),
        ("pairs", [{"loss": "contrastive"}, {"loss": "similarity_kl"}]),
        ("triplets", [{"loss": "margin_mse"}, {"loss": "hidden_mse", "layers": [[2, 1]]}]),
    ],
)
@pytest.mark.only_backend("torch")
def test_other_examples_are_trained_on(examples, terms, sentences, tmp_path, said, backend_name):
    recipe = embedding_recipe(sentences / "data", sentences / "teacher", terms, examples, steps=30)
    recipe["stages"][0]["train"]["log_every"] = 5
    losses = run_of(said, tmp_path, "run", recipe, backend_name)
    assert losses[-1] < losses[0]


@pytest.mark.only_backend("torch")
def test_scores_are_those_of_sentence_transformers(sentences, tmp_path, said):
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer.evaluation import EmbeddingSimilarityEvaluator

    rows = [json.loads(line) for line in (sentences / "data" / "dev.jsonl").read_text().splitlines()]
    evaluator = EmbeddingSimilarityEvaluator(*([row[key] for row in rows] for key in ("a", "b", "alike")), write_csv=False)
    expected = evaluator(SentenceTransformer(str(sentences / "teacher"), device="cpu"))
    columns = ["--text", "a", "--text-pair", "b", "--label", "alike", "--task", "alike"]
    given = ["evaluate", sentences / "teacher", "--data", sentences / "data", *columns, "--backend", "torch"]
    code, printed, errors = said(*given)
    assert code == 2 and "expected 0 to 1; task.embeddings.scores says the range" in errors
    (tmp_path / "dev.jsonl").write_text("".join(json.dumps(row | {"alike": row["alike"] / 4}) + "\n" for row in rows))
    code, printed, errors = said(*given[:3], tmp_path, *given[4:])
    found = json.loads(printed.splitlines()[-1])
    assert code == 0, errors
    for name in ("spearman", "pearson"):
        assert found[name] == pytest.approx(expected[f"{name}_cosine"], abs=1e-6)


def test_inspect_says_how_it_embeds(sentences, said):
    code, printed, errors = said("inspect", sentences / "teacher")
    assert code == 0 and "embeds texts: mean of the tokens' states" in " ".join(printed.split()), errors
