"""Sentence embeddings scored by what queries find, and triplets with the scores of another model."""

from __future__ import annotations

import json

import numpy as np
import pytest

from crossdistil.core.data.limits import limited
from crossdistil.core.data.tasks import read_split, resolve_task
from crossdistil.core.errors import CrossdistilError, DataError
from crossdistil.core.job import prepare
from crossdistil.core.metrics import RANKING_METRICS
from crossdistil.core.models.pooling import Pooling
from crossdistil.core.recipe import parse_recipe
from crossdistil.core.task_section import TaskSection
from crossdistil.tests.tiny_rankings import lists
from crossdistil.tests.tiny_sentences import embedding_recipe, write_embedder, write_sentences


@pytest.fixture(scope="module")
def searched(tmp_path_factory):
    folder = tmp_path_factory.mktemp("searched")
    data = write_sentences(folder / "data")
    (data / "dev.jsonl").write_text("".join(f"{json.dumps(each)}\n" for each in lists(30, 4)))
    drawn = np.random.default_rng(0)
    triplets = [json.loads(line) for line in (data / "triplets.jsonl").read_text().splitlines()]
    lines = [{**each, "near": round(drawn.normal(), 3), "far": round(drawn.normal(), 3)} for each in triplets]
    (data / "triplets.jsonl").write_text("".join(f"{json.dumps(each)}\n" for each in lines))
    write_embedder(folder / "teacher", Pooling("mean", False))
    return folder


def recipe_of(searched, **embeddings):
    recipe = embedding_recipe(searched / "data", searched / "teacher", [{"loss": "margin_mse", "by": "scores"}], "triplets")
    recipe["task"]["embeddings"] |= {"scored_on": "retrieval", "teacher_scores": ["near", "far"]} | embeddings
    return recipe


@pytest.mark.only_backend("torch")
def test_what_a_student_finds_is_what_the_evaluator_of_sentence_transformers_says(searched, tmp_path, said):
    """Trained on the margins of another model's scores, without a model of its own to learn from; the metrics of its run, of
    `evaluate`, and of the same folder in sentence-transformers."""
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer.evaluation import InformationRetrievalEvaluator

    recipe = recipe_of(searched)
    del recipe["teacher"]
    recipe["student"]["init"]["from"] = str(searched / "teacher")
    (tmp_path / "recipe.yaml").write_text(json.dumps(recipe))
    code, _, errors = said("run", tmp_path / "recipe.yaml", "--out", tmp_path / "run")
    assert code == 0 and (tmp_path / "run" / "report.html").is_file(), errors
    own = json.loads((tmp_path / "run" / "result.json").read_text())["student"]["metrics"]
    judged = lists(30, 4)
    texts = list(dict.fromkeys(text for each in judged for text in each["candidates"]))
    corpus = {f"t{place}": text for place, text in enumerate(texts)}
    number = {text: name for name, text in corpus.items()}
    relevant = {
        f"q{row}": {number[text] for text, label in zip(each["candidates"], each["labels"]) if label}
        for row, each in enumerate(judged)
    }
    # It leaves out queries that have nothing to find, which score 0 here.
    queries = {f"q{row}": each["query"] for row, each in enumerate(judged)}
    model = SentenceTransformer(str(tmp_path / "run" / "student"))
    evaluator = InformationRetrievalEvaluator(
        queries, corpus, relevant, map_at_k=[len(corpus)], show_progress_bar=False, write_csv=False
    )
    found = evaluator(model)
    share = len(evaluator.queries) / len(judged)
    for name, theirs in zip(RANKING_METRICS, ("ndcg@10", "mrr@10", f"map@{len(corpus)}")):
        assert own[name] == pytest.approx(found[f"cosine_{theirs}"] * share, abs=1e-6), name
    code, printed, errors = said("evaluate", tmp_path / "run", "--data", searched / "data")
    assert code == 0 and json.loads(printed.splitlines()[-1]) == pytest.approx(own, abs=1e-6), errors
    assert "30 queries" in errors and "of them relevant to a query" in errors


@pytest.mark.parametrize("names", [["near", "far"], "near"])
def test_scores_of_triplets_come_with_their_texts(names, searched):
    """One column is a margin."""
    job = prepare(parse_recipe(recipe_of(searched, teacher_scores=names), "test"), "test", 1)
    rows = [json.loads(line) for line in (searched / "data" / "triplets.jsonl").read_text().splitlines()]
    wanted = sorted((row["near"], row["far"] if len(names) == 2 else 0.0) for row in rows)
    found = []
    for [batch] in job.stage(0).batches.epoch(0):
        first, second, third = batch["teacher_scores"].reshape(3, -1)
        real = batch["example_mask"].reshape(3, -1)[0] > 0
        assert (first == 0).all()
        found += zip(second[real].tolist(), third[real].tolist())
    np.testing.assert_allclose(sorted(found), wanted, atol=1e-6)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"metrics": ["spearman"]}, "task.metrics: 'spearman' is no metric of retrieval; expected one of ndcg@10, mrr@10, map"),
        ({"embeddings": {"examples": "scored", "teacher_scores": "near", "scores": [0, 4]}}, "are of triplets, but examples are"),
        ({"embeddings": {"examples": "triplets", "negative": "c", "teacher_scores": "x"}}, "triplets.jsonl:1: no column 'x'"),
        ({"limit": 5}, "has the texts that all queries are searched in; task.limit: {train: 5} is for train alone"),
    ],
)
def test_what_does_not_fit_is_named(change, message, searched):
    recipe = recipe_of(searched)
    recipe["task"] |= change
    with pytest.raises(CrossdistilError, match=message):
        prepare(parse_recipe(recipe, "test"), "test", 1)


def test_a_dev_file_of_pairs_is_no_file_of_queries(searched, tmp_path):
    write_sentences(tmp_path)
    section = TaskSection(
        name="x", kind="embeddings", data=tmp_path, text="a", embeddings={"examples": "texts", "scored_on": "retrieval"}
    )
    spec = resolve_task(section)
    with pytest.raises(DataError, match="dev.jsonl: no column of queries"):
        read_split(spec, tmp_path, "dev")
    assert len(limited(read_split(spec, tmp_path, "train"), 7, "train")) == 7
