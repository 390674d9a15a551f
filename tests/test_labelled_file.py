"""Files of answers: what providers' interfaces write becomes the formula's distribution, everything that is no answer is counted,
and what could be a mistake is refused with file and line."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest
from scipy.special import softmax

from crossdistil.core.data.task_specs import TaskSpec, glue_task
from crossdistil.core.errors import CrossdistilError, DataError
from crossdistil.core.file_section import FileSection
from crossdistil.core.kinds.known_kinds import ONE_NUMBER, SEVERAL_LABELS
from crossdistil.core.labelled.answer_records import BadRecord, record_of
from crossdistil.core.labelled.class_answers import Classes, UnknownLabel
from crossdistil.core.labelled.labelled_file import read_labelled
from crossdistil.tests.labelled_records import FLOOR, RECORDS, SILENT, THREE, chat, damaged_records, floored, message


def read(tmp_path, rows, spec=THREE, **options):
    path = tmp_path / "labelled.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    section = FileSection(path=path, **options)
    return read_labelled(section, spec, "teacher.file"), Classes(spec, section, "teacher.file")


@pytest.fixture(scope="module")
def of_all(tmp_path_factory):
    rows = [{"text": name, **record} for name, (record, _) in RECORDS.items()]
    return read(tmp_path_factory.mktemp("all"), rows)


@pytest.mark.parametrize("name", RECORDS)
def test_what_is_written_becomes_the_distribution(of_all, name):
    file, classes = of_all
    answers = file.by_key[name]
    logits = classes.logits(answers.values, answers.are_logits)
    np.testing.assert_allclose(softmax(logits), floored(RECORDS[name][1]), rtol=1e-9, atol=1e-12)
    assert logits.sum() == pytest.approx(0, abs=1e-9)
    for temperature in (0.5, 4.0):
        soft = floored(RECORDS[name][1]) ** (1 / temperature)
        np.testing.assert_allclose(softmax(logits / temperature), soft / soft.sum(), rtol=1e-9)


LABELLED = {"text": "a", "label": "positive"}


@pytest.mark.parametrize(
    ("beside", "told"),
    [
        ({"response": "neutral"}, "'label': 'positive' and 'response': 'neutral'"),
        ({"response": chat("Negative.")}, "'label': 'positive' and 'response': 'Negative'"),
        ({"output": "The film is bad."}, "'output': 'The film is bad'"),
        ({"response": chat(None, refusal="I cannot")}, "'response': no answer"),
        ({"response": json.dumps(chat('{"label": "neutral"}'))}, "'response': 'neutral'"),
    ],
)
def test_a_label_beside_another_answer_is_not_taken_in_silence(tmp_path, beside, told):
    """As where a model's answers were added to labelled rows: whose label it is must be said."""
    (name,) = beside
    with pytest.raises(DataError, match=f":1: holds two answers, .*{re.escape(told)}.*{{label: label}} or {{label: {name}}}"):
        read(tmp_path, [{**LABELLED, **beside}])
    file, _ = read(tmp_path, [{**LABELLED, **beside}], columns={"label": "label"})
    assert file.by_key["a"].values[0].argmax() == 2
    if "no answer" in told:
        assert not read(tmp_path, [{**LABELLED, **beside}], columns={"label": name})[0].by_key["a"].values
    elif name == "response":
        file, _ = read(tmp_path, [{**LABELLED, **beside}], columns={"label": name})
        assert file.by_key["a"].values[0].argmax() == (0 if "egative" in told else 1)


def test_a_label_that_a_response_says_too_is_one_answer(tmp_path):
    tops = [("positive", [("positive", -0.1), ("neutral", -3.0)])]
    rows = [
        {"text": "a", "label": "Positive", "response": chat("positive", tops)},
        {"text": "b", "label": "positive", "response": "It is positive, since the plot is good."},
        {"text": "c", "label": "positive", "response": {"seen": True}},
        {"text": "d", "label": "positive", "message": "d", "body": "d"},
    ]
    file, _ = read(tmp_path, rows)
    assert [found.values[0].argmax() for found in file.by_key.values()] == [2, 2, 2, 2]
    assert file.by_key["a"].soft and file.by_key["a"].cost[0] == 40


def test_logits_are_taken_as_they_are(tmp_path):
    file, classes = read(
        tmp_path,
        [{"text": "a", "logits": [1.5, -2.0, 30.0]}, {"text": "b", "logits": {"neutral": 1, "positive": 2, "negative": 3}}],
    )
    found = [classes.logits(file.by_key[key].values, file.by_key[key].are_logits).tolist() for key in "ab"]
    assert found == [[1.5, -2.0, 30.0], [3, 1, 2]]


def test_what_is_dropped_has_the_floor(tmp_path):
    file, classes = read(tmp_path, [{"text": "a", "probabilities": {"positive": 0.6, "neutral": 0.2}}], rest="drop")
    np.testing.assert_allclose(softmax(classes.logits(file.by_key["a"].values, False)), floored([0, 0.25, 0.75]), rtol=1e-9)


def test_what_is_no_answer_is_counted(tmp_path):
    rows = [{"text": name, **record} for name, record in SILENT.items()]
    file, _ = read(tmp_path, [*rows, {"text": "all right", "label": "neutral"}])
    assert file.rows == len(rows) + 1 and sum(file.abstained.values()) == len(rows)
    assert [key for key, answers in file.by_key.items() if answers.values] == ["all right"]
    assert file.abstained["refused"] == 5 and file.abstained["an error of the interface"] == 1


def test_tokens_and_money_are_summed(tmp_path):
    rows = [
        {"text": "a", **chat("positive")},
        {"text": "b", "label": "neutral", "cost": 0.5},
        {"text": "c", **message("positive")},
    ]
    file, _ = read(tmp_path, rows, price={"input": 10.0, "output": 100.0})
    np.testing.assert_allclose(file.by_key["a"].cost, [40, 2, 6e-4])
    np.testing.assert_allclose(file.by_key["b"].cost, [np.nan, np.nan, 0.5])
    np.testing.assert_allclose(file.by_key["c"].cost, [40, 2, 6e-4])


def test_numbers_and_several_labels(tmp_path):
    scores = TaskSpec("own", "text", None, "label", None, ("pearson",), kind=ONE_NUMBER)
    rows = [
        {"text": "a", "score": 3.5},
        {"text": "b", **chat("4.5")},
        {"text": "c", "label": None},
        {"text": "d", "votes": [1, 2]},
    ]
    file, classes = read(tmp_path, rows, scores)
    found = {key: classes.logits(answers.values, False).tolist() for key, answers in file.by_key.items() if answers.values}
    assert found == {"a": [3.5], "b": [4.5], "d": [1.5]} and file.abstained == {"an abstention": 1}
    with pytest.raises(DataError, match=":1: 'probabilities': got .*, expected a number, the task being a regression"):
        read(tmp_path, [{"text": "a", "probabilities": [0.1, 0.9]}], scores)
    several = TaskSpec("own", "text", None, "label", ("x", "y", "z"), ("f1",), kind=SEVERAL_LABELS)
    rows = [
        {"text": "a", "labels": ["x", "z"]},
        {"text": "b", "label": "x|y"},
        {"text": "c", "probabilities": {"x": 0.9, "y": 0.8}},
        {"text": "d", **chat('["z", "x"]')},
        {"text": "e", "labels": ""},
        {"text": "f", "labels": ["unknown", "x"]},
        {"text": "g", "labels": ["unknown"]},
        {"text": "h", "labels": "unknown"},
    ]
    file, classes = read(tmp_path, rows, several)
    assert file.abstained == {"an abstention": 2} and not file.by_key["g"].values and not file.by_key["h"].values
    wanted = {"a": [1, 0, 1], "b": [1, 1, 0], "c": [0.9, 0.8, 0], "d": [1, 0, 1], "e": [0, 0, 0], "f": [1, 0, 0]}
    for key, p in wanted.items():
        z = classes.logits(file.by_key[key].values, False)
        np.testing.assert_allclose(1 / (1 + np.exp(-z)), np.clip(p, FLOOR, 1 - FLOOR), rtol=1e-9)


def test_a_vote_that_is_no_class_leaves_the_others(tmp_path):
    votes = {"choices": [{"message": {"content": text}} for text in ("positive", "what?", "neutral")]}
    file, classes = read(tmp_path, [{"text": "a", **votes}, {"text": "b", **chat("what?")}], other_labels="abstain")
    assert file.other_labels == {"what?": 2} and not file.abstained
    np.testing.assert_allclose(softmax(classes.logits(file.by_key["a"].values, False)), floored([0, 0.5, 0.5]), rtol=1e-9)
    assert not file.by_key["b"].values and file.by_key["b"].why_not == "a label that is no class"


def test_a_batch_is_found_by_the_id_that_was_given_to_it(tmp_path):
    row = {"id": "batch_req_1", "custom_id": "7", "response": {"status_code": 200, "body": chat("positive")}}
    for name in ("id", "review"):
        assert list(read(tmp_path, [row], id=name)[0].by_key) == ["7"]
    rows = [{"id": 7, "label": "neutral"}, {"id": 8.0, "label": "neutral"}, {"id": " 9", "label": "neutral"}]
    assert list(read(tmp_path, rows, id="id")[0].by_key) == ["7", "8", "9"]


def test_two_rows_of_a_text(tmp_path):
    again = [{"text": "a b", "label": "positive"}, {"text": "a  b ", "label": "Positive"}]
    file, _ = read(tmp_path, again)
    assert file.repeated == 1 and len(file.by_key["a b"].values) == 1
    file, _ = read(tmp_path, [{"text": "a", "label": None}, {"text": "a", "label": "neutral"}])  # asked again
    assert len(file.by_key["a"].values) == 1
    other = [{"text": "a", "label": "positive"}, {"text": "a", "label": "neutral"}]
    file, classes = read(tmp_path, other, repeated="votes")
    np.testing.assert_allclose(softmax(classes.logits(file.by_key["a"].values, False)), floored([0, 0.5, 0.5]), rtol=1e-9)
    with pytest.raises(DataError, match=r"labelled.jsonl:2: another answer to the text of line 1; teacher.file.repeated: votes"):
        read(tmp_path, other)


WRONG = {
    "another label": (
        [{"text": "a", "label": "positiv"}],
        {},
        r":1: got label 'positiv', expected one of .*did you mean 'positive'.*other_labels: abstain",
    ),
    "several of them": (
        [{"text": "a", "label": "good"}, {"text": "b", "label": "bad"}],
        {},
        r"nor are 'bad' \(2 rows\); teacher.file.labels: \{good: CLASS\}",
    ),
    "no class of the task": (
        [{"text": "a", "label": "x"}],
        {"labels": {"x": "neutrl"}},
        "teacher.file.labels.x: 'neutrl' is no class of the task; did you mean 'neutral'",
    ),
    "more than 1": (
        [{"text": "a", "probabilities": {"positive": 0.9, "neutral": 0.3}}],
        {},
        ":1: got .*, expected probabilities, which sum to 1 at most",
    ),
    "percent": ([{"text": "a", "probabilities": [10, 20, 70]}], {}, ":1: .*which sum to 1 at most"),
    "below 0": ([{"text": "a", "probabilities": [-0.1, 0.4, 0.7]}], {}, ":1: .*which sum to 1 at most"),
    "too few": ([{"text": "a", "probabilities": [0.4, 0.6]}], {}, "got 2 numbers, expected 3, one for each class"),
    "no number": (
        [{"text": "a", "probabilities": {"positive": "high"}}],
        {},
        ":1: 'positive': got 'high', expected a finite number",
    ),
    "logits of some": ([{"text": "a", "logits": {"positive": 2}}], {}, ":1: 'logits': has none of 'negative'"),
    "a confidence": ([{"text": "a", "label": "neutral", "confidence": 90}], {}, ":1: 'confidence': got 90, expected 0 to 1"),
    "nothing": (
        [{"text": "a", "note": "x"}],
        {},
        ":1: got the columns text, note, expected a label, probabilities or a response",
    ),
    "prose": ([{"text": "a", "response": "I think that it is rather positive"}], {}, ":1: got label 'I think that it is"),
    "half a JSON": ([{"text": "a", "response": '{"label": "posi'}], {}, ":1: got .*, expected JSON"),
    "no response": ([{"text": "a", "choices": [3]}], {}, ":1: looks like the response of an interface, but has another form"),
    "no text": ([{"texts": "a", "label": "neutral"}], {}, ":1: has no text in a column 'text'; did you mean 'texts'"),
    "an id alone": (
        [{"custom_id": "7", "label": "neutral"}],
        {},
        ":1: has no text .*teacher.file.id names the column of the task's tables that 'custom_id' is of",
    ),
    "no text but a number": ([{"text": 5, "label": "neutral"}], {}, ":1: got 5 in 'text', expected a text"),
    "two labels": ([{"text": "a", "labels": ["neutral", "positive"]}], {}, ":1: got .*, expected one label"),
    "no log-probability": (
        [{"text": "a", "log_probabilities": {"positive": -0.1, "neutral": None}}],
        {},
        ":1: 'neutral': got None, expected a finite number",
    ),
    "no id": ([{"text": "a", "label": "neutral"}], {"id": "number"}, r":1: has no id \(number or custom_id"),
    "a floor": ([{"text": "a", "label": "neutral"}], {"floor": 0.4}, r"teacher.file.floor: got 0.4, expected less than 1 / 3"),
    "no rows": ([], {}, "labelled.jsonl: holds no rows"),
}


@pytest.mark.parametrize("name", WRONG)
def test_a_wrong_file_is_refused_with_its_line(tmp_path, name):
    rows, options, message = WRONG[name]
    with pytest.raises(CrossdistilError, match=message) as caught:
        read(tmp_path, rows, **options)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("extension", ["csv", "tsv"])
def test_tables_are_read(tmp_path, extension):
    mark = {"csv": ",", "tsv": "\t"}[extension]
    lines = [["text", "gpt", "cost"], ["a b", "pos", "0.25"], ["c", "", ""]]
    path = tmp_path / f"labelled.{extension}"
    path.write_text("".join(mark.join(line) + "\n" for line in lines), encoding="utf-8")
    section = FileSection(path=path, columns={"label": "gpt"}, labels={"pos": "positive"})
    file = read_labelled(section, THREE, "teacher.file")
    assert file.by_key["a b"].values[0].tolist() == [0, 0, 1] and file.by_key["a b"].cost[2] == 0.25
    assert not file.by_key["c"].values and file.abstained == {"an abstention": 1}


def test_pairs_are_found_by_both_texts(tmp_path):
    rows = [
        {"#1 String": "a", "#2 String": "b", "label": "equivalent"},
        {"text": "a", "text_pair": "c", "label": "not_equivalent"},
    ]
    file, _ = read(tmp_path, rows, glue_task("mrpc"))
    assert set(file.by_key) == {("a", "b"), ("a", "c")}
    with pytest.raises(DataError, match=re.escape("has no text in a column '#2 String'")):
        read(tmp_path, [{"text": "a", "label": "equivalent"}], glue_task("mrpc"))


def test_a_damaged_record_is_read_or_refused():
    section = FileSection(path=Path("labelled.jsonl"))
    classes, seen = Classes(THREE, section, "teacher.file"), 0
    for damaged in damaged_records(record for record, _ in RECORDS.values()):
        try:
            values = [classes.values(said) for said in record_of(damaged, {}).said]
        except (BadRecord, UnknownLabel):
            continue
        seen += 1
        assert all(value is None or np.isfinite(value).all() for value in values), damaged
    assert seen > 50
