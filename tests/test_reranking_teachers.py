"""A reranker that teaches a model of sentence embeddings: what it scores the pairs of triplets with teaches the same as in a
file."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest

from crossdistil.core.app.api import predict
from crossdistil.core.checkpoint import Model
from crossdistil.core.checkpoint_saving import save_model
from crossdistil.core.data.tokenize import load_tokenizer
from crossdistil.core.errors import CrossdistilError
from crossdistil.core.job import prepare
from crossdistil.core.kinds.known_kinds import RANKING
from crossdistil.core.models.pooling import Pooling
from crossdistil.core.recipe import parse_recipe
from crossdistil.tests import tiny
from crossdistil.tests.tiny_families import MPNET
from crossdistil.tests.tiny_rankings import lists
from crossdistil.tests.tiny_sentences import embedding_recipe, write_embedder, write_sentences
from crossdistil.tests.tiny_tokenizers import write_tokenizer

TERMS = [{"loss": "margin_mse"}, {"loss": "similarity_kl", "candidates": "own", "similarity": "dot", "temperature": 2}]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Triplets, an embedder, and a reranker that reads 24 tokens of a pair, where texts have 16."""
    folder = tmp_path_factory.mktemp("reranking")
    write_sentences(folder / "data")
    write_embedder(folder / "start", Pooling("mean", False))
    vocabulary = load_tokenizer(tiny.write_vocabulary(folder / "vocabulary"))
    model = Model(tiny.CONFIG, tiny.random_parameters(tiny.CONFIG, 1, 5), 1, about={"max_length": 24}, kind=RANKING)
    save_model(model, folder / "reranker", vocabulary)
    own = load_tokenizer(write_tokenizer(folder / "mpnets", "mpnet"))  # <s> text </s></s> pair </s>, without token types
    config = MPNET.model_copy(update={"vocab_size": own.vocab_size})
    save_model(replace(model, config=config, parameters=tiny.random_parameters(config, 1, 5)), folder / "mpnet", own)
    return folder


def recipe_of(folder, objective=TERMS, **teacher):
    train = {"dropout": 0.0, "log_every": 1, "learning_rate": 1e-4}
    recipe = embedding_recipe(folder / "data", folder / "reranker", objective, "triplets", **train)
    recipe["teacher"] |= {"kind": "ranking"} | teacher
    recipe["student"]["init"]["from"] = str(folder / "start")
    return recipe


def losses(said, place, recipe, backend):
    place.mkdir(parents=True)
    (place / "recipe.yaml").write_text(json.dumps(recipe))
    code, told, errors = said("run", place / "recipe.yaml", "--out", place / "run", "--backend", backend, "--no-latency")
    assert code == 0, errors
    logged = (place / "run" / "metrics.jsonl").read_text().splitlines()
    return [json.loads(line)["loss"] for line in logged if '"loss"' in line], told


def test_its_scores_at_run_time_are_those_of_a_file(folder, tmp_path, said, backend_name):
    """And how well it scores the pairs of dev is told."""
    recipe = recipe_of(folder) | {"teacher_cache": {"use": "never"}}
    at_run_time, told = losses(said, tmp_path / "model", recipe, backend_name)
    result = json.loads((tmp_path / "model" / "run" / "result.json").read_text())
    assert set(result["teacher"]["metrics"]) == {"spearman", "pearson"} and "kept in memory" in told
    if backend_name == "mindspore":  # which compiles for half a minute; from here on the scores are numbers of a file
        return
    rows = [json.loads(line) for line in (folder / "data" / "triplets.jsonl").read_text().splitlines()]
    scores = {}
    for other in "bc":
        found = predict(folder / "reranker", [row["a"] for row in rows], [row[other] for row in rows], backend=backend_name)
        scores[other] = [each.score for each in found]
    lines = [{**row, "near": near, "far": far} for row, near, far in zip(rows, scores["b"], scores["c"])]
    data = write_sentences(tmp_path / "scored")
    (data / "triplets.jsonl").write_text("".join(f"{json.dumps(line)}\n" for line in lines))
    recipe = recipe_of(folder, [term | {"by": "scores"} for term in TERMS])
    del recipe["teacher"]
    recipe["task"]["data"] = str(data)
    recipe["task"]["embeddings"]["teacher_scores"] = ["near", "far"]
    by_file, _ = losses(said, tmp_path / "file", recipe, backend_name)
    # Scores of pairs that were padded with others differ in the last bits, and training takes them farther apart.
    assert at_run_time[0] == pytest.approx(by_file[0], rel=1e-6) and at_run_time[0] > 0
    np.testing.assert_allclose(at_run_time, by_file, rtol=1e-5)


@pytest.mark.only_backend("torch")
def test_it_scores_pairs_of_dev_as_sentence_transformers_does_and_no_search(folder, tmp_path, said):
    """Rank correlations on pairs with scores; of queries that search all texts, nothing. Its scores may be kept on the disk."""
    from scipy.stats import spearmanr
    from sentence_transformers import CrossEncoder

    recipe = recipe_of(folder, TERMS[:1]) | {"teacher_cache": {"use": "always", "folder": str(tmp_path / "cache")}}
    _, told = losses(said, tmp_path / "pairs", recipe, "torch")
    assert "teacher: logits for 120 rows" in told and any((tmp_path / "cache" / "teacher").iterdir())
    rows = [json.loads(line) for line in (folder / "data" / "dev.jsonl").read_text().splitlines()]
    theirs = CrossEncoder(str(folder / "reranker"), max_length=24).predict([(row["a"], row["b"]) for row in rows])
    found = json.loads((tmp_path / "pairs" / "run" / "result.json").read_text())["teacher"]["metrics"]["spearman"]
    assert found == pytest.approx(spearmanr(theirs, [row["alike"] for row in rows]).statistic, abs=1e-6)
    data = write_sentences(tmp_path / "searched")
    (data / "dev.jsonl").write_text("".join(f"{json.dumps(each)}\n" for each in lists(8, 4)))
    recipe = recipe_of(folder, TERMS[1:])
    recipe["task"]["data"] = str(data)
    recipe["task"]["embeddings"]["scored_on"] = "retrieval"
    _, told = losses(said, tmp_path / "search", recipe, "torch")
    result = json.loads((tmp_path / "search" / "run" / "result.json").read_text())
    assert result["teacher"]["metrics"] == {} and "ndcg@10" in result["student"]["metrics"]
    assert "note: teacher.model: is not scored on dev: a reranker would have to score each query with every text" in told


@pytest.mark.parametrize("name", ["reranker", "mpnet"])
def test_a_row_is_a_text_with_the_first_one_of_its_triplet(name, folder):
    """As the tokenizer makes them of the pairs, to the length of the reranker; those of the first texts say nothing."""
    recipe = recipe_of(folder, model=str(folder / name))
    recipe["student"] |= {"tokenizer": str(folder / "start")}
    job = prepare(parse_recipe(recipe, "test"), "test", 1)
    rows = [json.loads(line) for line in (folder / "data" / "triplets.jsonl").read_text().splitlines()]
    table, tokenizer = job.teacher_data["teacher"].tokens["train"], load_tokenizer(folder / name)
    pairs = [("", "")] * len(rows) + [(row["a"], row[other]) for other in "bc" for row in rows]
    wanted = [tokenizer.library.encode(*pair).ids for pair in pairs]
    found = [table.ids[start:end].tolist() for start, end in zip(table.offsets[:-1], table.offsets[1:])]
    short = [place for place, ids in enumerate(wanted) if len(ids) <= 24]
    assert len(found) == len(wanted) and [found[place] for place in short] == [wanted[place] for place in short]
    assert max(map(len, found)) > 16


@pytest.mark.parametrize(
    ("objective", "change", "message"),
    [
        ([{"loss": "sentence_mse"}], {}, "sentence_mse compares a teacher's vectors, but 'teacher' scores pairs .kind: ranking."),
        ([{"loss": "similarity_kl"}], {}, r"objective.0..candidates: batch compares texts that nobody has scored together"),
        (
            [{"loss": "hidden_mse", "layers": [[2, 1]]}],
            {},
            "hidden_mse compares what two models make of a text, but 'teacher' reads pairs of texts",
        ),
        (TERMS, {"model": "start"}, "teacher.model .*start.: is no cross-encoder, a classifier with one output"),
        (TERMS, {"kind": None}, "reranker.: is a cross-encoder, which scores pairs and embeds no text; kind: ranking"),
    ],
)
def test_what_does_not_fit_is_named(objective, change, message, folder):
    recipe = recipe_of(folder, objective)
    recipe["teacher"] |= change | ({"model": str(folder / change["model"])} if "model" in change else {})
    with pytest.raises(CrossdistilError, match=message):
        prepare(parse_recipe(recipe, "test"), "test", 1)


def test_a_reranker_that_nothing_learns_from_is_refused_with_the_reason(folder):
    recipe = recipe_of(folder, [{"loss": "similarity_mse"}])
    recipe["task"]["embeddings"]["examples"] = "scored"
    told = "teacher: no term learns from the reranker; margin_mse, .*; similarity_mse learns scores of the data, since a cosine"
    with pytest.raises(CrossdistilError, match=told):
        parse_recipe(recipe, "test")


def test_other_tasks_have_no_such_teacher(folder):
    recipe = recipe_of(folder)
    recipe["task"]["kind"], recipe["task"]["embeddings"] = "regression", None
    with pytest.raises(CrossdistilError, match="teacher.kind: 'ranking' is for task.kind: embeddings, whose teacher may score"):
        parse_recipe(recipe, "test")
