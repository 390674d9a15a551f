"""Rankings: lists and their batches, what they score, cross-encoders' folders, and a run on each backend."""

from __future__ import annotations

import json

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from crossdistil.core.checkpoint import load_model
from crossdistil.core.data.batches import TrainBatches
from crossdistil.core.data.limits import limited
from crossdistil.core.data.tasks import read_split, resolve_task
from crossdistil.core.errors import CrossdistilError
from crossdistil.core.job import prepare
from crossdistil.core.kinds.known_kinds import RANKING
from crossdistil.core.metrics import RANKING_METRICS, compute_metrics
from crossdistil.core.ranking_scores import list_scores
from crossdistil.core.recipe import parse_recipe
from crossdistil.core.task_section import TaskSection
from crossdistil.tests import tiny
from crossdistil.tests.tiny_rankings import lists, ranking_recipe, write_rankings, written

PAIRS = [("good film", "the plot was quite bad"), ("x", "fine"), ("a very long query " * 5, "and a long text " * 9)]


@pytest.fixture(scope="module")
def rankings(tmp_path_factory):
    folder = tmp_path_factory.mktemp("rankings")
    write_rankings(folder / "data")
    tiny.write_model(folder / "teacher", labels=None, seed=3)
    return folder


def trained(said, recipe, out, *options):
    """A run of a recipe in `out`, which ends well."""
    path = out.with_suffix(".yaml")
    path.write_text(json.dumps(recipe))
    code, _, errors = said("run", path, "--out", out, *options)
    assert code == 0, errors


def task(data, **ranking):
    return TaskSection(name="sides", kind="ranking", data=data, ranking=ranking)


def test_limits_take_whole_lists(rankings):
    spec = resolve_task(task(rankings / "data", teacher_score="teacher_score"))
    whole = read_split(spec, rankings / "data", "train")
    few = limited(whole, 5, "train")
    assert len(few) == 5 and "5 of 24 queries are used" in few.notes[-1]
    known = {each["query"]: (each["candidates"], each["labels"], each["teacher_score"]) for each in lists(24, 1)}
    for start, end in zip(few.lists[:-1], few.lists[1:]):
        texts, labels, scores = known[few.texts[start]]
        assert [few.pairs[row] for row in range(start, end)] == texts
        assert few.labels[start:end].tolist() == labels and few.row_scores[start:end] == pytest.approx(scores)


@pytest.mark.parametrize("parts", [1, 2])
def test_a_batch_has_first_candidates_then_second_ones(parts, rankings):
    """Each list once, with its labels and scores; of a longer one the best and those that come first."""
    recipe = ranking_recipe(rankings / "data", rankings / "teacher", [{"loss": "listnet"}], gradient_accumulation=parts)
    job = prepare(parse_recipe(recipe, "test"), "test", 1)
    batches, seen = job.stage(0).batches, []
    assert isinstance(batches, TrainBatches) and job.context.members == 4 and job.context.taught
    for step in batches.epoch(0):
        for batch in step:
            assert len(batch["labels"]) == 4 * 4 // parts
            rows = [batch[key].reshape(4, -1).T for key in ("example_mask", "labels", "teacher_scores")]
            seen += [(labels[real > 0].tolist(), scores[real > 0].round(3).tolist()) for real, labels, scores in zip(*rows)]
    expected = []
    for each in lists(24, 1):
        order = list(range(len(each["labels"])))
        if len(order) > 4:
            best = int(np.argmax(each["labels"]))
            order = [best, *(place for place in order if place != best)][:4]
        expected.append(([each["labels"][place] for place in order], [each["teacher_score"][place] for place in order]))
    real = sorted(found for found in seen if found[0])
    assert [labels for labels, _ in real] == [labels for labels, _ in sorted(expected)]
    np.testing.assert_allclose(np.concatenate([s for _, s in real]), np.concatenate([s for _, s in sorted(expected)]), atol=1e-6)


def test_scores_are_those_of_scikit_learn_and_of_sentence_transformers():
    """nDCG and average precision of random rankings, many with equal scores, and of graded relevance; the reciprocal rank of what
    sentence-transformers' evaluator gets: relevant candidates first in the list."""
    from sentence_transformers.cross_encoder.evaluation import CrossEncoderRerankingEvaluator
    from sklearn.metrics import average_precision_score, ndcg_score

    drawn, evaluator = np.random.default_rng(0), CrossEncoderRerankingEvaluator([{}])
    for number in range(300):
        count = int(drawn.integers(2, 30))
        scores = drawn.integers(0, (4, 100)[number % 2], count).astype(float)
        relevant = np.sort(drawn.integers(0, 2, count))[::-1]
        relevant[0] = 1
        graded = relevant * drawn.integers(1, 4, count)
        places = np.array([0, count])
        (ndcg, rank, precision), (of_grades, *_) = (list_scores(scores, gains, places)[0] for gains in (relevant, graded))
        assert ndcg == pytest.approx(ndcg_score([relevant], [scores], k=10), abs=1e-12)
        assert of_grades == pytest.approx(ndcg_score([graded], [scores], k=10), abs=1e-12)
        assert precision == pytest.approx(average_precision_score(relevant, scores), abs=1e-12)
        order = np.argsort(scores, kind="stable")[::-1]
        places = np.flatnonzero(relevant[order][:10])
        assert rank == (1 / (1 + places[0]) if len(places) else 0)
        if len(np.unique(scores)) == count:
            assert (rank, ndcg, precision) == pytest.approx(evaluator.compute_metrics(relevant, scores), abs=1e-12)
    assert (list_scores(np.arange(3), np.zeros(3), np.array([0, 3])) == 0).all()
    assert (list_scores(np.arange(1), np.ones(1), np.array([0, 1])) == 1).all()
    below, none = (list_scores(np.arange(2), np.array([1, other]), np.array([0, 2])) for other in (-5, 0))
    assert (below == none).all()  # what is below 0 is no gain


def test_metrics_are_the_means_of_what_each_list_scored():
    found = np.array([[1, 0.5, 0.25], [0.5, 1, 0.75]])
    assert compute_metrics(RANKING_METRICS, found, np.ones(2)) == {"ndcg@10": 0.75, "mrr@10": 0.75, "map": 0.5}


@pytest.mark.parametrize(
    ("change", "objective", "message"),
    [
        ({}, {"loss": "hard_label"}, r"objective\[0\].loss: hard_label is for single answers"),
        ({"ranking": {}}, {"loss": "listnet", "by": "scores"}, r"task.ranking.teacher_score names no column"),
        ({"ranking": {"candidates": 1}}, {"loss": "listnet"}, r"task.ranking.candidates: .*greater than or equal to 2"),
        ({"kind": "regression"}, {"loss": "hard_label"}, "ranking is for kind: ranking"),
        ({"metrics": ["accuracy"]}, {"loss": "listnet"}, "task.metrics: 'accuracy' is no metric for this task"),
        ({"ranking": {"teacher_score": "scored"}}, {"loss": "listnet"}, "train.jsonl: no column 'scored'"),
        ({"labels": ["a", "b"]}, {"loss": "listnet"}, "labels and skip_labels are for classes, not for kind: ranking"),
    ],
)
def test_recipes_that_do_not_fit_are_refused(change, objective, message, rankings):
    recipe = ranking_recipe(rankings / "data", rankings / "teacher", [objective])
    recipe["task"] |= change
    with pytest.raises(CrossdistilError, match=message):
        prepare(parse_recipe(recipe, "test"), "test", 1)


def test_an_encoder_is_told_the_recipe_of_rerankers(rankings, tmp_path):
    tiny.write_model(tmp_path / "encoder", labels=None)
    weights = load_file(tmp_path / "encoder/model.safetensors")
    save_file({name: weights[name] for name in weights if "classifier" not in name}, tmp_path / "encoder/model.safetensors")
    recipe = ranking_recipe(rankings / "data", tmp_path / "encoder", [{"loss": "listnet", "by": "teacher"}])
    with pytest.raises(CrossdistilError, match=r"has no classifier.weight; fine-tune it on the task first \(recipes/reranker"):
        prepare(parse_recipe(recipe, "test"), "test", 1)


def test_labels_that_a_cross_entropy_cannot_learn_are_told(rankings, tmp_path):
    write_rankings(tmp_path, 4, 4)
    written(tmp_path / "train.jsonl", [{"query": "q", "candidates": ["a", "b"], "labels": [3, 0]}])
    recipe = ranking_recipe(tmp_path, rankings / "teacher", [{"loss": "ranking_bce"}])
    recipe["task"]["ranking"] = {}
    with pytest.raises(CrossdistilError, match="ranking_bce needs numbers from 0 to 1, but the labels of train go from 0 to 3"):
        prepare(parse_recipe(recipe, "test"), "test", 1)
    recipe["stages"][0]["objective"] = [{"loss": "ranknet"}]
    prepare(parse_recipe(recipe, "test"), "test", 1)
    written(tmp_path / "train.jsonl", [{"query": "q", "candidates": ["a", "b"], "labels": [1, 1]}])
    with pytest.raises(CrossdistilError, match="ranknet compares candidates of different labels, but all of train have 1;"):
        prepare(parse_recipe(recipe, "test"), "test", 1)


@pytest.mark.only_backend("torch")
def test_a_run_teaches(rankings, said, tmp_path):
    """A run keeps what each list of dev scored, which are no scores of candidates."""
    recipe = ranking_recipe(rankings / "data", rankings / "teacher", [{"loss": "listnet"}], steps=1)
    trained(said, recipe, tmp_path / "first")
    distil = ranking_recipe(rankings / "data", tmp_path / "first", [{"loss": "listnet", "by": "teacher"}], steps=1)
    trained(said, distil, tmp_path / "second")
    first, second = (json.loads((tmp_path / name / "result.json").read_text()) for name in ("first", "second"))
    assert second["teacher"]["metrics"] == pytest.approx(first["student"]["metrics"])
    # Training cuts the lists of train; to score it, they are read as those of dev are.
    as_dev = tmp_path / "as_dev"
    as_dev.mkdir()
    (as_dev / "dev.jsonl").write_bytes((rankings / "data" / "train.jsonl").read_bytes())
    scored = []
    for data, split in ((rankings / "data", "train"), (as_dev, "dev")):
        code, printed, errors = said("evaluate", tmp_path / "second", "--data", data, "--split", split)
        assert code == 0, errors
        scored.append(json.loads(printed.splitlines()[-1]))
    assert scored[0] == scored[1]


@pytest.mark.only_backend("torch")
def test_a_cross_encoder_gives_the_same_scores(rankings, said, tmp_path):
    """Of a folder that was written here, also where texts are cut, and, read here, of one that it wrote itself."""
    import torch
    from sentence_transformers import CrossEncoder

    recipe = ranking_recipe(rankings / "data", rankings / "teacher", [{"loss": "listnet"}], steps=1)
    trained(said, recipe, tmp_path / "run")
    written(tmp_path / "pairs.tsv", [["a", "b"], *PAIRS])

    def scores(folder):
        columns = ("--text-column", "a", "--pair-column", "b")
        code, printed, errors = said("predict", folder, "--file", tmp_path / "pairs.tsv", *columns)
        assert code == 0, errors
        return [json.loads(line)["score"] for line in printed.splitlines()], errors

    student = tmp_path / "run" / "student"
    theirs, (ours, told) = CrossEncoder(str(student)), scores(student)
    np.testing.assert_allclose(theirs.predict(PAIRS), ours, atol=1e-5)
    assert load_model(student).kind == RANKING and "Sigmoid" not in told and "change nothing" not in told
    other = CrossEncoder(str(student), max_length=20)
    other.activation_fn = torch.nn.Sigmoid()
    other.save_pretrained(str(tmp_path / "saved"))
    ours, told = scores(tmp_path / "saved")
    np.testing.assert_allclose(other.predict(PAIRS), 1 / (1 + np.exp(-np.array(ours))), atol=1e-5)
    assert load_model(tmp_path / "saved").kind == RANKING and "sentence-transformers puts Sigmoid behind them" in told
    code, printed, errors = said("evaluate", student, "--data", rankings / "data")
    from sentence_transformers.cross_encoder.evaluation import CrossEncoderRerankingEvaluator

    samples = [
        {
            "query": each["query"],
            **{key: [text for text, label in zip(each["candidates"], each["labels"]) if label == value]
               for key, value in (("positive", 1), ("negative", 0))},
        }
        for each in lists(12, 2)
    ]  # fmt: skip
    found = CrossEncoderRerankingEvaluator(samples, write_csv=False)(theirs)
    assert json.loads(printed.splitlines()[-1]) == pytest.approx(found, abs=1e-6), errors


TERMS = [
    {"loss": "ranking_margin_mse"},
    {"loss": "listnet", "by": "teacher", "temperature": 2},
    {"loss": "ranknet", "by": "scores"},
    {"loss": "ranking_bce"},
]


def test_a_run_its_student_and_its_order(rankings, tmp_path, said, backend_name):
    """Distilled in one part and in two, the same; scored, asked for an order, and compared."""
    losses = []
    for parts in (1, 2):
        recipe = ranking_recipe(
            rankings / "data", rankings / "teacher", TERMS, dropout=0.0, log_every=1, gradient_accumulation=parts
        )
        trained(said, recipe, tmp_path / f"{parts}", "--backend", backend_name)
        logged = (tmp_path / f"{parts}" / "metrics.jsonl").read_text().splitlines()
        losses.append([json.loads(line)["loss"] for line in logged if '"loss"' in line])
    np.testing.assert_allclose(losses[0], losses[1], rtol=2e-5)
    folder = tmp_path / "1"
    result = json.loads((folder / "result.json").read_text())
    assert set(result["student"]["metrics"]) == set(RANKING_METRICS) and (folder / "report.html").is_file()
    dev = rankings / "data" / "dev.jsonl"
    code, printed, errors = said("predict", folder, "--file", dev, "--backend", backend_name)
    found = [json.loads(line) for line in printed.splitlines()]
    assert code == 0 and [each["query"] for each in found] == [each["query"] for each in lists(12, 2)], errors
    assert all((np.diff(np.array(each["scores"])[each["order"]]) <= 0).all() for each in found)
    labels, scores = ([value for own in part for value in own] for part in zip(*(
        (known["labels"], each["scores"]) for known, each in zip(lists(12, 2), found)
    )))  # fmt: skip
    ends = np.cumsum([0, *(len(each["scores"]) for each in found)])
    means = list_scores(np.array(scores), np.array(labels), ends).mean(axis=0)
    assert dict(zip(RANKING_METRICS, means)) == pytest.approx(result["student"]["metrics"], abs=1e-5)
    code, printed, errors = said("compare", folder, tmp_path / "2")
    assert code == 0 and "ndcg@10" in printed, errors
    code, _, errors = said("predict", folder, "--file", dev, "--id-column", "query", "--backend", backend_name)
    assert code == 2 and "--id-column: is for a table of pairs" in errors
