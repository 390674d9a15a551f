"""A file of answers to questions: what each row comes to, at places of contexts and at the tokens of windows; what is refused,
with file and line; and what the student keeps of it, on each backend."""

from __future__ import annotations

import io
import json
import math

import numpy as np
import pytest
from rich.console import Console
from scipy.special import log_softmax, softmax

from crossdistil.core.app.run import RunOptions, execute
from crossdistil.core.data.tasks import Examples
from crossdistil.core.engine import EngineOptions
from crossdistil.core.errors import CrossdistilError
from crossdistil.core.job import check_rows, prepare
from crossdistil.core.model_answers import logits_function
from crossdistil.core.plan import plan
from crossdistil.core.recipe import parse_recipe
from crossdistil.core.reference import ReferenceOps
from crossdistil.tests import tiny
from crossdistil.tests.answer_files import qa_recipe
from crossdistil.tests.labelled_records import chat, message

CONTEXT = "the good film is bad and the plot was good or not"
ASKED = {"question": "it was", "context": CONTEXT}
BAD, GOOD, AGAIN, PLOT = (17, 20), (4, 8), (38, 42), (25, 33)
NONE = (-1, -1)
FLOOR = 1e-4


def recipe(folder, rows, train=(CONTEXT,), dev=(CONTEXT,), objective=("kd_ce",), answers=(), gold="dev", **file) -> dict:
    """A task of one question about each context, of which those of the splits in `gold` have answers, and the file's answers."""
    folder.mkdir(exist_ok=True)
    tiny.write_model(folder / "model", tiny.ONE_LAYER)
    for split, contexts in (("train", train), ("dev", dev)):
        right = {"answers": [{"text": "bad", "answer_start": 17}]} if split in gold else {}
        asked = [{"id": f"{split}{row}", "question": "it was", "context": each, **right} for row, each in enumerate(contexts)]
        (folder / f"{split}.jsonl").write_text("".join(json.dumps(each) + "\n" for each in asked), encoding="utf-8")
    (folder / "llm.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    teacher = {"file": {"path": str(folder / "llm.jsonl"), **file}}
    tree = qa_recipe(folder, folder / "model", 2, method="llm", teacher=teacher, seed=1)
    tree["task"]["answers"] |= dict(answers)
    tree["stages"][0]["objective"] = [{"loss": loss} for loss in objective]
    return tree


def examples_of(folder, rows, **more) -> dict[str, Examples]:
    """The examples of that recipe."""
    found, errors = check_rows(plan(parse_recipe(recipe(folder, rows, **more), "test"), "test"))
    errors.throw()
    return found


def said(examples, split="train", row=0):
    """What the file says of a question: place -> share, rounded, the best first, and what is left."""
    taught = examples[split].taught["teacher"]
    own = slice(taught.firsts[row], taught.firsts[row + 1])
    return [(tuple(place), round(share, 6)) for place, share in zip(taught.places[own].tolist(), taught.shares[own].tolist())]


FORMS = {
    "a text": {"answer": "bad"},
    "in a list": {"answers": ["bad"]},
    "with its place": {"answer": {"text": "bad", "answer_start": 17}},
    "as a pipeline of transformers": {"answer": "bad", "start": 17, "end": 20, "score": 0.9},
    "as SQuAD": {"answers": [{"text": "bad", "answer_start": 17}]},
    "as a column of a dataset": {"answers": {"text": ["bad"], "answer_start": [17]}},
    "a place alone": {"answer": {"start": 17, "end": 20}},
    "in other letters": {"answer": "BAD"},
    "with marks around it": {"response": '"bad".'},
    "a chat": chat("bad"),
    "a chat in a batch": {"response": chat("bad")},
    "a thought before it": {"response": message("<think>good?</think> bad")},
    "JSON in a chat": {"response": chat('```json\n{"answer": "bad", "answer_start": 17}\n```')},
    "JSON in a cell": {"answer": '["bad"]'},
    "the same in two columns": {"answers": ["bad"], "prediction": "Bad"},
    "the same twice": {"answers": {"text": ["bad", "bad"], "answer_start": [17, 17]}, "response": "bad"},
    "counted votes for one": {"votes": {"bad": 3}},
}


@pytest.mark.parametrize("form", FORMS)
def test_each_form_says_the_same(tmp_path, form):
    examples = examples_of(tmp_path, [{**ASKED, **FORMS[form]}])
    assert said(examples) == said(examples, "dev") == [(BAD, 1.0)]
    assert examples["train"].labels.tolist() == [[-1, -1]] and examples["train"].label_mask.tolist() == [0]
    assert examples["dev"].label_mask is None


SEVERAL = {
    "votes": ({"votes": ["bad", "the plot", "bad", "unknown"]}, [(BAD, 2 / 3), (PLOT, 1 / 3)], 0),
    "choices": ({"choices": [{"message": {"content": text}} for text in ("bad", "plot", "bad", " ")]},
                [(BAD, 2 / 3), ((29, 33), 1 / 3)], 0),
    "counted votes": ({"votes": {"bad": 1, "the plot": 3}}, [(PLOT, 0.75), (BAD, 0.25)], 0),
    "answers": ({"answers": ["bad", "the plot"]}, [(BAD, 0.5), (PLOT, 0.5)], 0),
    "probabilities": ({"probabilities": {"the plot": 0.2, "bad": 0.7}}, [(BAD, 0.7), (PLOT, 0.2)], 0.1),
    "in a list": ({"answers": ["the plot", "bad"], "probabilities": [0.2, 0.7]}, [(BAD, 0.7), (PLOT, 0.2)], 0.1),
    "of a pipeline": ({"answer": [{"answer": "bad", "start": 17, "end": 20, "score": 0.7}, {"answer": "the plot", "score": 0.2}]},
                      [(BAD, 0.7), (PLOT, 0.2)], 0.1),
    "log-probabilities": ({"log_probabilities": {"bad": math.log(0.7), "the plot": math.log(0.3)}}, [(BAD, 0.7), (PLOT, 0.3)], 0),
    "some of it no answer": ({"probabilities": {"bad": 0.6, "unknown": 0.4}}, [(BAD, 1.0)], 0),
    "at several places": ({"answer": "good"}, [(GOOD, 0.5), (AGAIN, 0.5)], 0),
    "at several, less together": ({"probabilities": {"good": 0.4, "bad": 0.3}}, [(GOOD, 0.2), (AGAIN, 0.2), (BAD, 0.3)], 0.3),
    "at one of several": ({"answers": [{"text": "good", "answer_start": 38}]}, [(AGAIN, 1.0)], 0),
}  # fmt: skip


@pytest.mark.parametrize("form", SEVERAL)
def test_several_answers_and_several_places(tmp_path, form):
    row, expected, rest = SEVERAL[form]
    examples = examples_of(tmp_path, [{**ASKED, **row}])
    assert said(examples) == [(place, round(share, 6)) for place, share in expected]
    taught = examples["train"].taught["teacher"]
    assert taught.rest[0] == pytest.approx(rest, abs=1e-9) and taught.best.tolist() == [list(expected[0][0])]
    told = "llm.jsonl:1: an answer that is told by its words alone stands several times" in "\n".join(taught.told)
    assert told == form.startswith("at several")


def test_votes_of_rows_and_what_questions_count(tmp_path):
    rows = [{**ASKED, "answer": text} for text in ("bad", "good", "bad")]
    examples = examples_of(tmp_path, rows, repeated="votes", weigh_by="agreement")
    assert said(examples) == [(BAD, round(2 / 3, 6)), (GOOD, round(1 / 6, 6)), (AGAIN, round(1 / 6, 6))]
    assert examples["train"].weights.tolist() == pytest.approx([2 / 3])
    with pytest.raises(CrossdistilError, match=r"llm.jsonl:2: another answer to the text of line 1; .*repeated: votes"):
        examples_of(tmp_path, rows)
    counted = examples_of(tmp_path, [{**ASKED, "votes": {"bad": 3, "the plot": 1}}], weigh_by="agreement")
    assert counted["train"].weights.tolist() == [0.75]


def test_no_answer_in_the_context_and_no_answer_at_all(tmp_path):
    contexts = [CONTEXT, "the film", "a plot", "is it not", "was it bad"]
    asked = [{"question": "it was", "context": each} for each in contexts]
    rows = [{**asked[0], "answer": None}, {**asked[1], "answers": []}, {**asked[2], **chat('{"answer": ""}')}]
    rows += [{**asked[3], **chat(None, refusal="I cannot")}, {**asked[4], "answer": "Unanswerable", "cost": 0.5}]
    how = {"train": contexts, "unanswered": "leave_out", "labels": {"unanswerable": ""}}
    examples = examples_of(tmp_path, rows, answers={"unanswerable": True}, as_labels="where_missing", **how)
    train, taught = examples["train"], examples["train"].taught["teacher"]
    assert list(train.pairs) == [contexts[0], contexts[1], contexts[2], contexts[4]] and train.asked.ids[3] == "train4"
    assert [said(examples, row=row) for row in range(4)] == [[(NONE, 1.0)]] * 4 and train.labels.tolist() == [[-1, -1]] * 4
    assert train.label_mask is None and train.asked.golds == ((),) * 4
    told = "\n".join(taught.told)
    assert "llm.jsonl: 5 rows, 5 questions; 1 without an answer (refused: 1)" in told, told
    assert "train: the questions without an answer are left out: line 4" in told
    assert taught.about["per_thousand_texts"]["cost"] == 500
    with pytest.raises(CrossdistilError, match=r"train.jsonl:1: 5 of 5 questions of train have no answer in llm.jsonl"):
        examples_of(tmp_path, rows, **how)
    with pytest.raises(CrossdistilError, match=r"teacher.file.labels.x: got 'bad', expected ''"):
        examples_of(tmp_path, rows, labels={"x": "bad"})


def test_rows_are_found_by_ids_and_numbers_too(tmp_path):
    rows = [{"custom_id": "train0", "response": chat("bad")}, {"custom_id": "dev0", "response": chat("the plot")}]
    examples = examples_of(tmp_path, rows, id="id")
    assert (said(examples), said(examples, "dev")) == ([(BAD, 1.0)], [(PLOT, 1.0)])
    rows = [{"id": 0, "answer": "bad"}, {"id": "dev-0", "answer": "the plot"}]
    examples = examples_of(tmp_path, rows, row_numbers=0)
    assert (said(examples), said(examples, "dev")) == ([(BAD, 1.0)], [(PLOT, 1.0)])
    for change, told in (({"id": "name"}, "teacher.file.id: got 'name', expected id or query_id"),
                         ({"row_numbers": 1}, "llm.jsonl:1: got the id 0, expected the number of a row of train, from 1 on")):
        with pytest.raises(CrossdistilError, match=told):
            examples_of(tmp_path, rows, **change)
    with pytest.raises(CrossdistilError, match=r"llm.jsonl:1: got row 4 of train, but train.jsonl has the rows 0 to 0"):
        examples_of(tmp_path, [{"id": 4, "answer": "bad"}], row_numbers=0)


@pytest.mark.parametrize("answer", ["[1]", "[film", "{is}"])
def test_answers_in_brackets_are_no_json(tmp_path, answer):
    context = f"a {answer} or not"
    rows = [{"question": "it was", "context": context, **given} for given in ({"answer": answer}, chat(answer))]
    place = (2, 2 + len(answer))
    for row in rows:
        assert said(examples_of(tmp_path, [row], train=(context,))) == [(place, 1.0)]


def test_another_writing_of_the_context(tmp_path):
    row = {"question": "it  was", "context": CONTEXT.replace(" ", "\n "), "answers": [{"text": "the\n plot", "answer_start": 31}]}
    assert said(examples_of(tmp_path, [row])) == [(PLOT, 1.0)]


LEFT = "; teacher.file.stray_spans: leave_out goes on without such answers"
WRONG = {
    "not there": ({"answer": "awful"}, f"the answer 'awful' is not in its context '{CONTEXT}'{LEFT}"),
    "elsewhere": ({"answers": [{"text": "bad", "answer_start": 16}]},
                  "answer_start 16: got ' ba' there, expected 'bad', which begins at character 17; "
                  "task.answers.misplaced: nearest takes the nearest place" + LEFT),
    "outside": ({"answer": {"text": "bad", "start": 99}}, "answer_start 99: got nothing there, expected 'bad', which begins at"),
    "another length": ({"answer": {"text": "bad", "start": 17, "end": 19}},
                       "'answer': got {\"text\": \"bad\", \"start\": 17, \"end\": 19}: from 17 to 19 are 2 characters"),
    "a word for none": ({"answer": "not"}, "got 'not', which is a word for no answer and a part of its context; its place"),
    "a number": ({"answer": 7}, "'answer': got 7, expected a text, {\"text\": text, \"answer_start\": number}, or"),
    "half a place": ({"answer": {"start": 3}}, "'answer': got {\"start\": 3}, expected a text"),
    "more than all": ({"probabilities": {"bad": 0.9, "plot": 0.9}}, 'got {"bad": 0.9, "plot": 0.9}, expected probabilities'),
    "no numbers": ({"probabilities": [0.5, 0.5]}, "'probabilities': got [0.5, 0.5], expected a mapping of answers to num"),
    "some with numbers": ({"answers": ["bad", {"text": "plot", "score": 0.5}]}, "'answers': got [\"bad\", {\"text\": \"plot\""),
    "both": ({"answer": "bad", "is_impossible": True}, "is_impossible is true, but 'answer' has an answer: \"bad\""),
    "two models": ({"answers": [{"text": "bad", "answer_start": 17}], **{"response": chat("the plot")}},
                   "holds two answers, 'answers': 'bad' and 'response': 'the plot'; teacher.file.columns says which is meant"),
    "two columns": ({"answers": ["bad"], "prediction": "the plot"},
                    "holds two answers, 'answers': 'bad' and 'prediction': 'the plot'; teacher.file.columns says which is meant"),
    "a refusal beside": ({"answers": ["bad"], "response": chat(None, refusal="no")},
                         "holds two answers, 'answers': 'bad' and 'response': no answer"),
    "no answer": ({"note": "x"}, "got the columns question, context, note, expected an answer, answers with votes or probab"),
    "confidence": ({"answer": "bad", "confidence": 7}, "'confidence': got 7, expected 0 to 1"),
}  # fmt: skip


@pytest.mark.parametrize("name", WRONG)
def test_what_does_not_fit_names_file_and_line(tmp_path, name):
    row, told = WRONG[name]
    abstentions = {"abstentions": ["not"]} if name == "a word for none" else {}
    with pytest.raises(CrossdistilError) as caught:
        examples_of(tmp_path, [{"question": "else", "context": "where", "answer": "where"}, {**ASKED, **row}], **abstentions)
    assert f"{tmp_path / 'llm.jsonl'}:2: {told}" in str(caught.value)


def test_ways_on_where_answers_do_not_fit(tmp_path):
    rows = [{**ASKED, "answers": [{"text": "bad", "answer_start": 16}]}]
    found = examples_of(tmp_path, rows, answers={"misplaced": "nearest"})
    assert said(found) == [(BAD, 1.0)]
    assert "llm.jsonl:1: an answer is not where the file says" in "\n".join(found["train"].taught["teacher"].told)
    rows = [{**ASKED, "probabilities": {"awful": 0.5, "bad": 0.3}}]
    found = examples_of(tmp_path, rows, stray_spans="leave_out")
    assert said(found) == [(BAD, 0.6)] and found["train"].taught["teacher"].rest.tolist() == pytest.approx([0.4])
    assert said(examples_of(tmp_path, rows, stray_spans="leave_out", rest="drop")) == [(BAD, 1.0)]
    for column, expected in (("answers", BAD), ("response", PLOT)):
        rows = [{**ASKED, "answers": ["bad"], "response": chat("the plot")}]
        assert said(examples_of(tmp_path, rows, columns={"label": column})) == [(expected, 1.0)]
    with pytest.raises(CrossdistilError, match="hard_label learns labels, of which the training texts have none; teacher"):
        examples_of(tmp_path, rows, columns={"label": "answers"}, objective=("kd_ce", "hard_label"))
    with pytest.raises(CrossdistilError, match="teacher.file.other_labels: is of classes, and questions have none; stray"):
        examples_of(tmp_path, rows, other_labels="abstain")


def test_dev_without_answers_is_scored_by_the_file(tmp_path):
    rows = [{**ASKED, "probabilities": {"the plot": 0.2, "bad": 0.7}}]
    with pytest.raises(CrossdistilError, match="dev.jsonl: has no column 'answers', so that nothing can be scored on it"):
        examples_of(tmp_path, rows, gold="")
    found = examples_of(tmp_path, rows, gold="", as_labels="where_missing", dev=(CONTEXT, "a film"))["dev"]
    assert list(found.pairs) == [CONTEXT] and found.asked.golds == (("bad",),) and found.labels.tolist() == [[17, 20]]


def test_targets_are_those_of_the_formula_at_transformers_tokens(tmp_path):
    """Windows and offsets by transformers' tokenizer, and the distributions by NumPy in float64."""
    from transformers import AutoTokenizer

    rows = [{**ASKED, "probabilities": {"the plot": 0.5, "good": 0.2, "": 0.1, "bad and the plot was good or not": 0.1}}]
    tree = recipe(tmp_path, rows, answers={"unanswerable": True})
    job = prepare(parse_recipe(tree, "test"), "test", None)
    table = job.data.tokens["train"]
    told = "train.jsonl: of 'teacher': 1 answer is in no window whole, and learned as none (train0); a smaller task"
    assert any(note.startswith(told) for note in job.data.examples["train"].notes)
    room, stride = 12 - len("[CLS] it was [SEP] [SEP]".split()), 4
    theirs = AutoTokenizer.from_pretrained(tmp_path / "model")(
        "it was", CONTEXT, max_length=12, truncation="only_second", stride=room - stride, return_overflowing_tokens=True,
        return_offsets_mapping=True,
    )  # fmt: skip
    assert len(theirs["input_ids"]) == len(table.lengths) == 3
    found = job.data.examples["train"].taught["teacher"].in_rows(table).batch(np.arange(-1, 3), 16)["logits"]
    assert not found[0].any() and not found[:, 12:].any()
    answers = [(PLOT, 0.5), (GOOD, 0.1), (AGAIN, 0.1), ((17, len(CONTEXT)), 0.1), (NONE, 0.1)]
    for row, ids in enumerate(theirs["input_ids"]):
        assert ids == table.ids[table.offsets[row] : table.offsets[row + 1]].tolist()
        context = [number for number, part in enumerate(theirs.sequence_ids(row)) if part == 1]
        offsets = {number: theirs["offset_mapping"][row][number] for number in context}
        for end in range(2):
            q = np.zeros(len(ids))
            for place, share in answers:
                starts = [number for number, own in offsets.items() if own[0] == place[0]]
                ends = [number for number, own in offsets.items() if own[1] == place[1]]
                q[(starts, ends)[end][0] if starts and ends else 0] += share
            others = q == 0
            q[others] = min(0.1 / others.sum(), q[~others].min())
            p = np.maximum(q / q.sum(), FLOOR)
            np.testing.assert_allclose(softmax(found[row + 1, : len(ids), end].astype(np.float64)), p / p.sum(), rtol=1e-6)


def test_a_run_learns_what_the_file_says_on_each_backend(tmp_path, backend_name):
    """The first losses are the cross-entropies with the file's distributions and its best answers, each window as often as its
    question counts; and the result tells what the student keeps."""
    contexts = (CONTEXT, "the film was great and the plot is poor")
    rows = [{**ASKED, "probabilities": {"bad": 0.6, "the plot": 0.4}, "confidence": 0.5}]
    rows += [{"question": "it was", "context": contexts[1], "answer": "great", "confidence": 0.75}]
    both = {"objective": ("kd_ce", "hard_label"), "as_labels": "where_missing", "weigh_by": "confidence"}
    tree = recipe(tmp_path, rows, train=contexts, **both)
    tree["stages"][0]["train"] |= {"log_every": 1, "dropout": 0.0, "batch_size": 8, "gradient_accumulation": 2}
    job = prepare(parse_recipe(tree, "test"), "test", 1)
    taught, table = job.data.examples["train"].taught["teacher"], job.data.tokens["train"]
    [step] = job.stage(0).batches.with_arrays(taught.in_rows(table).batch).epoch(0)
    forward, sums, count = logits_function(job.student.config), np.zeros(2), 0.0
    for own in step:
        real = own["attention_mask"][:, :, None] > 0
        logits = log_softmax(np.where(real, forward(ReferenceOps(), job.student.parameters, own)[0].astype(float), -1e4), axis=1)
        wanted = softmax(np.where(real, own["logits"].astype(float), -1e4), axis=1)
        picked = np.take_along_axis(logits, own["labels"][:, None], axis=1)[:, 0]  # (B, 2)
        sums -= [(wanted * logits).sum(axis=(1, 2)) @ own["example_mask"], picked.sum(axis=1) @ own["example_mask"]]
        count += 2 * own["example_mask"].sum()
    assert count == pytest.approx(2 * (0.5 * 3 + 0.75 * (table.examples == 1).sum()))
    result = execute(parse_recipe(tree, "test"), "test", RunOptions(backend_name, EngineOptions("cpu", "fp32"), tmp_path / "out"),
                     Console(file=io.StringIO()))  # fmt: skip
    first = json.loads((tmp_path / "out" / "metrics.jsonl").read_text().splitlines()[0])
    assert list(first["terms"].values()) == pytest.approx((sums / count).tolist(), rel=2e-5)
    assert result["teacher"]["metrics"] == {"exact_match": 1.0, "answer_f1": 1.0}
    kept = result["teacher"]["kept"]
    assert (kept["texts"], kept["questions"], kept["labelled"]) == (1, 1, 1)
    assert set(kept["spans"]) == {"exact_match", "answer_f1"}
    assert kept["agreement"] == kept["spans"]["exact_match"] == kept["student"] and kept["teacher"] == 1
