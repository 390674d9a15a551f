"""Answers that are parts of texts: windows, the best answers, the losses over their ends, transformers' models, and a run."""

from __future__ import annotations

import json

import numpy as np
import pytest

from crossdistil.core.app.data_report import data_warnings
from crossdistil.core.best_answers import best_answers
from crossdistil.core.checkpoint import load_model
from crossdistil.core.data.answer_format import AnswerFormat
from crossdistil.core.data.answer_tokens import question_table
from crossdistil.core.data.batches import TrainBatches
from crossdistil.core.data.tokenize import load_tokenizer
from crossdistil.core.errors import CrossdistilError, DataError, TrainingError
from crossdistil.core.job import prepare
from crossdistil.core.kinds.known_kinds import ANSWERS
from crossdistil.core.losses.base import TermContext
from crossdistil.core.losses.catalogue import LOSSES
from crossdistil.core.model_answers import logits_function
from crossdistil.core.models.answer_heads import SPANS
from crossdistil.core.recipe import parse_recipe
from crossdistil.core.reference import ReferenceOps
from crossdistil.tests import tiny
from crossdistil.tests.answer_files import paragraphs, qa_recipe, squad, write_questions
from crossdistil.tests.drawn_models import write_drawn

CONTEXT = "the good film is bad and the plot was good or not"
WORDS = CONTEXT.split()


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory):
    folder = tmp_path_factory.mktemp("words")
    tiny.write_model(folder)
    return load_tokenizer(folder)


def places(number):
    """From where to where a word of the context is."""
    start = len(" ".join(WORDS[:number])) + (number > 0)
    return start, start + len(WORDS[number])


@pytest.mark.parametrize("stride", [1, 3, 100])
def test_windows_cover_the_context_and_have_the_answer_or_the_first_token(tokenizer, stride):
    targets = np.array([places(9), (-1, -1)], np.int32)
    format = AnswerFormat(stride=stride)
    table = question_table(["it was", "a"], [CONTEXT] * 2, targets, tokenizer, 10, format)
    for row in range(len(table.lengths)):
        first, end = table.offsets[row], table.offsets[row + 1]
        start, last = table.spans[row]
        inside = [place for place in table.places[first:end].tolist() if place[0] >= 0]
        if table.examples[row] == 0 and list(places(9)) in inside:
            assert table.places[first + start].tolist() == list(places(9)) == table.places[first + last].tolist()
        else:
            assert (start, last) == (0, 0)
        assert (table.places[first : first + table.first_lengths[row]] == -1).all()
    for example in (0, 1):
        rows = np.flatnonzero(table.examples == example)
        own = np.concatenate([np.arange(table.offsets[row], table.offsets[row + 1]) for row in rows])
        assert sorted(map(tuple, table.places[own[table.owned[own]]].tolist())) == sorted(
            map(tuple, tokenizer.library.encode(CONTEXT, add_special_tokens=False).offsets)
        )


def test_answers_are_the_best_pairs_over_windows(tokenizer):
    """Against all pairs of all windows, tried one by one."""
    format, drawn = AnswerFormat(stride=3, answer_length=3), np.random.default_rng(3)
    table = question_table(["it was", "a"], [CONTEXT] * 2, None, tokenizer, 10, format)
    for _ in range(20):
        logits = drawn.normal(0, 2, (len(table.ids), 2)).astype(np.float32)
        for number, found in enumerate(best_answers(table, logits, [CONTEXT] * 2, format)):
            tried, nothing = [], []
            for row in np.flatnonzero(table.examples == number):
                first, end = table.offsets[row], table.offsets[row + 1]
                nothing.append(float(logits[first, 0]) + float(logits[first, 1]))
                for a in range(first, end):
                    for b in range(a, min(a + 3, end)):
                        if table.owned[a] and table.places[b, 0] >= 0:
                            tried.append((float(logits[a, 0]) + float(logits[b, 1]), table.places[a, 0], table.places[b, 1]))
            score, start, end = max(tried)
            assert (found.score, found.start, found.end) == (pytest.approx(score), start, end)
            assert found.null_score == pytest.approx(min(nothing)) and found.text == CONTEXT[start:end]
            silent = AnswerFormat(**{**vars(format), "unanswerable": True, "null_threshold": found.null_difference - 0.1})
            assert best_answers(table, logits, [CONTEXT] * 2, silent)[number].text == ""


def test_a_question_that_leaves_no_room_is_told(tokenizer):
    told = "question 1: task.max_length: 8 leaves no room for a context behind the question, expected 9 or more"
    with pytest.raises(DataError, match=told):
        question_table(["a b c d e f"], [CONTEXT], None, tokenizer, 8, AnswerFormat(question_length=5))


def test_losses_are_the_means_over_both_ends_and_real_tokens():
    drawn, shape = np.random.default_rng(5), (3, 6, 2)
    student, teacher = drawn.normal(0, 1, shape), drawn.normal(0, 1, shape)
    mask = np.array([[1] * 6, [1, 1, 1, 1, 0, 0], [1] + [0] * 5], np.float32)
    batch = {
        "labels": np.array([[2, 4], [0, 3], [0, 0]], np.int32), "label_mask": np.ones(3, np.float32),
        "example_mask": np.array([1, 1, 0], np.float32), "attention_mask": mask,
    }  # fmt: skip
    context = TermContext(2, ANSWERS, tiny.CONFIG, {"teacher": tiny.CONFIG})
    hard, soft, square, tokens = [], [], [], 0
    for row, length in ((0, 6), (1, 4)):
        for end in (0, 1):
            own, taught = student[row, :length, end], teacher[row, :length, end]
            hard.append(-own[batch["labels"][row, end]] + np.log(np.exp(own).sum()))
            share, other = np.exp(taught / 3) / np.exp(taught / 3).sum(), own / 3 - np.log(np.exp(own / 3).sum())
            soft.append(-9 * (share * other).sum())
            square.append((((own - taught) / 3) ** 2).sum())
            tokens += length
    expected = {"hard_label": np.mean(hard), "kd_ce": np.mean(soft), "kd_mse": sum(square) / tokens}
    for loss, value in expected.items():
        term = LOSSES[loss](loss=loss, **({} if loss == "hard_label" else {"temperature": 3}))
        found = term.bound(context, "t")(ReferenceOps(), {}, {"logits": student}, {"logits": teacher}, batch)
        assert float(found) / term.units(context, batch) == pytest.approx(value, rel=1e-6), loss


@pytest.fixture(scope="module")
def asked(tmp_path_factory):
    """The data, and an encoder of one layer."""
    folder = tmp_path_factory.mktemp("asked")
    write_questions(folder / "data")
    tiny.write_model(folder / "encoder", tiny.ONE_LAYER)
    return folder


@pytest.mark.parametrize(
    ("term", "message"),
    [
        ({"loss": "kd_multi_label"}, "kd_multi_label needs several labels an example; for this task use kd_ce"),
        ({"loss": "kd_ce", "temperature_schedule": {"kind": "cwsm", "beta": 1}}, "needs one class an example"),
        ({"loss": "kd_ce", "probability_shift": True}, "probability_shift: needs one class an example"),
        ({"loss": "kd_ce", "reduction": "mean"}, "reduction: mean divides by the number of classes"),
        ({"loss": "hard_label", "label_smoothing": 0.1}, "label_smoothing: is for classes, but the task is a question answering"),
    ],
)
def test_losses_that_do_not_fit_are_refused(asked, term, message):
    tree = qa_recipe(asked / "data", asked / "encoder", teacher={"model": str(asked / "encoder")})
    tree["stages"][0]["objective"] = [term]
    with pytest.raises(CrossdistilError, match=message):
        prepare(parse_recipe(tree, "test"), "test", 1)


def test_a_classifier_of_texts_is_no_teacher_of_answers(asked):
    tree = qa_recipe(asked / "data", asked / "encoder", teacher={"model": str(asked / "encoder")})
    with pytest.raises(CrossdistilError, match="trained for a classification, but the task is a question answering"):
        prepare(parse_recipe(tree, "test"), "test", 1)


def test_a_family_without_such_a_head_is_refused(asked):
    tree = qa_recipe(asked / "data", "random", student={"architecture": {"model_type": "nomic_bert"}, "init": {"from": "random"}})
    tree["student"]["tokenizer"] = str(asked / "encoder")
    with pytest.raises(CrossdistilError, match="a nomic_bert has no head for answers here, expected one of albert, bert"):
        prepare(parse_recipe(tree, "test"), "test", 1)


def test_accumulation_cuts_the_same_windows(asked):
    job = prepare(parse_recipe(qa_recipe(asked / "data", asked / "encoder"), "test"), "test", 1)
    table, sums = job.data.tokens["train"], []
    for accumulation in (1, 2):
        batches = TrainBatches(table, None, 8, accumulation, (12,), 0)
        sums.append(sum(int(part["labels"].sum()) for step in batches.epoch(0) for part in step))
    assert sums == [int(table.spans.sum())] * 2


@pytest.mark.backend
def test_a_run_a_student_and_its_answers(asked, tmp_path, said, backend_name):
    """Fine-tuned, distilled, scored and asked."""
    (tmp_path / "r.yaml").write_text(json.dumps(qa_recipe(asked / "data", asked / "encoder", 48)))
    code, _, errors = said("run", tmp_path / "r.yaml", "--out", tmp_path / "teacher", "--backend", backend_name)
    assert code == 0, errors
    result = json.loads((tmp_path / "teacher" / "result.json").read_text())["student"]["metrics"]
    assert result["exact_match"] > 0.8 and set(result) == {"exact_match", "answer_f1"}
    tree = qa_recipe(asked / "data", "teacher", 6, teacher={"model": str(tmp_path / "teacher")})
    tree["student"] = {"init": {"from": "random"}}
    tree["stages"][0]["objective"] = [{"loss": "kd_ce", "temperature": 2}, {"loss": "hidden_mse", "layers": [[1, 1]]}]
    tree["stages"][0]["train"]["gradient_accumulation"] = 2
    (tmp_path / "kd.yaml").write_text(json.dumps(tree))
    code, _, errors = said("run", tmp_path / "kd.yaml", "--out", tmp_path / "kd", "--backend", backend_name)
    assert code == 0, errors
    own = load_model(tmp_path / "kd" / "student", classifier=SPANS)
    assert own.kind == ANSWERS and own.parameters["qa_outputs.weight"].shape == (2, 32) and own.labels is None
    file = asked / "data" / "dev.json"
    code, printed, errors = said("predict", tmp_path / "teacher", "--file", file, "--backend", backend_name)
    found = [json.loads(line) for line in printed.splitlines()]
    parts = json.loads(file.read_text())["data"][0]["paragraphs"]
    assert code == 0 and [each["id"] for each in found] == [part["qas"][0]["id"] for part in parts], errors
    assert all(part["context"][each["start"] : each["end"]] == each["answer"] for each, part in zip(found, parts))
    right = [each["answer"] == part["qas"][0]["answers"][0]["text"] for each, part in zip(found, parts)]
    assert np.mean(right) == result["exact_match"]
    code, printed, errors = said("evaluate", tmp_path / "teacher", "--data", asked / "data", "--backend", backend_name)
    assert code == 0 and json.loads(printed.splitlines()[-1]) == pytest.approx(result, abs=1e-6), errors
    if backend_name == "torch":  # nothing of it needs a framework
        code, printed, errors = said("compare", tmp_path / "teacher", tmp_path / "kd", "--json")
        assert code == 0 and "answer_f1" in printed, errors
        code, _, errors = said("predict", tmp_path / "teacher", "it was")
        assert code == 2 and "answers questions from a text: give it beside the question (--pair TEXT" in errors
        assert "gets single ones" not in errors  # which would say the same twice


FAMILIES = ["bert", "distilbert", "albert", "electra", "roberta", "mpnet", "deberta-v2", "modernbert", "ernie"]


@pytest.mark.only_backend("torch")
@pytest.mark.parametrize("family", FAMILIES)
def test_transformers_computes_the_same(family, tmp_path):
    import torch
    from transformers import AutoModelForQuestionAnswering

    folder, ids, mask = write_drawn(tmp_path, family, lambda config: config.answering(SPANS), 2, kind=ANSWERS)
    theirs, told = AutoModelForQuestionAnswering.from_pretrained(folder, output_loading_info=True)
    assert not told["missing_keys"] and not told["unexpected_keys"]
    labels = np.array([[2, 4], [3, 5]])
    inputs = {"input_ids": torch.tensor(ids), "attention_mask": torch.tensor(mask)}
    with torch.no_grad():
        answered = theirs.eval()(**inputs)
        whole = {name: tensor[:1] for name, tensor in inputs.items()}  # no padding, which transformers takes for places
        expected_loss = theirs(**whole, start_positions=torch.tensor([2]), end_positions=torch.tensor([4])).loss
    expected = np.stack([answered.start_logits.numpy(), answered.end_logits.numpy()], axis=2)
    ours = load_model(folder, classifier=SPANS)
    batch = {"input_ids": ids.astype(np.int32), "attention_mask": mask.astype(np.float32)}
    batch["token_type_ids"] = np.zeros_like(batch["input_ids"])
    found = logits_function(ours.config)(ReferenceOps(), ours.parameters, batch)[0]
    np.testing.assert_allclose(found[mask > 0], expected[mask > 0], atol=1e-5)
    term = LOSSES["hard_label"](loss="hard_label")
    own = {name: array[:1] for name, array in batch.items()} | {"labels": labels[:1].astype(np.int32)}
    own |= {"label_mask": np.ones(1, np.float32), "example_mask": np.ones(1, np.float32)}
    context = TermContext(2, ANSWERS, ours.config)
    loss = term.bound(context, "t")(ReferenceOps(), {}, {"logits": found[:1].astype(np.float64)}, {}, own)
    assert float(loss) / term.units(context, own) == pytest.approx(float(expected_loss), abs=1e-5)


def test_answers_that_no_window_has_are_told(tmp_path):
    """One that is cut in two by all windows, and one of which the tokenizer keeps nothing; errors name file and question."""
    tiny.write_model(tmp_path / "encoder")
    data = write_questions(tmp_path / "data")
    long, nothing = "the good film is bad", "the \u200b film"
    parts = [{"context": long, "qas": [{"id": "long", "question": "a", "answers": [{"text": long, "answer_start": 0}]}]}]
    parts += [{"context": nothing, "qas": [{"id": "none", "question": "a", "answers": [{"text": "\u200b", "answer_start": 4}]}]}]
    (data / "train.json").write_text(json.dumps(squad(paragraphs(6, 1) + parts)))
    content = qa_recipe(data, tmp_path / "encoder")
    content["task"] |= {"max_length": 8, "answers": {"stride": 2}}
    notes = prepare(parse_recipe(content, "recipe"), "recipe", 1).data.examples["train"].notes
    assert [note.partition(";")[0] for note in notes] == [
        "train.json: 2 answers are in no window whole, and learned as none (long)"
    ]
    content["task"]["max_length"] = 5
    with pytest.raises(DataError, match=r"train.json: q1-0: task.max_length: 5 leaves no room for a context behind the question"):
        prepare(parse_recipe(content, "recipe"), "recipe", 1)


def test_logits_that_are_no_numbers_answer_nothing(tokenizer):
    table = question_table(["it was", "a"], [CONTEXT] * 2, None, tokenizer, 40, AnswerFormat())
    logits = np.zeros((len(table.ids), 2), np.float32)
    logits[3] = np.nan
    with pytest.raises(TrainingError, match="the logits of 1 tokens are not finite"):
        best_answers(table, logits, [CONTEXT] * 2, AnswerFormat())


@pytest.mark.parametrize("none, told", [(1.0, "no question has an answer"), (0.0, "all questions have an answer")])
def test_a_split_of_one_sort_of_question_is_told(none, told, tmp_path):
    tiny.write_model(tmp_path / "encoder")
    content = qa_recipe(write_questions(tmp_path / "data", none), tmp_path / "encoder")
    content["task"]["answers"]["unanswerable"] = True
    warnings = data_warnings(prepare(parse_recipe(content, "recipe"), "recipe", 1).data)
    assert [line.partition(told)[0] for line in warnings if told in line] == ["train: ", "dev: "]
