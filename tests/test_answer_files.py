"""Files of questions: SQuAD's, CMRC's and JSON lines are the same questions; what is wrong names file, question, got and
expected."""

from __future__ import annotations

import json

import pytest

from crossdistil.core.data.answer_files import read_questions
from crossdistil.core.data.answer_format import AnswerFormat
from crossdistil.core.data.tasks import read_split, resolve_task
from crossdistil.core.errors import CrossdistilError, DataError
from crossdistil.core.task_section import TaskSection
from crossdistil.tests.answer_files import squad, write_questions

CONTEXT = "Oslo was founded in 1040. Bergen is from 1070."


def asked(answers=None, name="q1", **more):
    """A question as SQuAD's files have it."""
    answers = [{"text": "1040", "answer_start": 20}] if answers is None else answers
    return {"id": name, "question": "When was Oslo founded?", "answers": answers, **more}


def written(folder, *questions, context=CONTEXT, name="train.json"):
    path = folder / name
    path.write_text(json.dumps(squad([{"context": context, "qas": list(questions)}])), encoding="utf-8")
    return path


def test_all_forms_are_the_same_questions(tmp_path):
    forms = {
        "squad.json": squad([{"context": CONTEXT, "qas": [asked()]}]),
        "cmrc.json": [{"context_id": "C", "context_text": CONTEXT, "qas": [
            {"query_id": "q1", "query_text": "When was Oslo founded?", "answers": ["1040"]}]}],
        "flat.json": [{"id": "q1", "context": CONTEXT, "question": "When was Oslo founded?",
                       "answers": {"text": ["1040"], "answer_start": [20]}}],
    }  # fmt: skip
    for name, content in forms.items():
        (tmp_path / name).write_text(json.dumps(content))
    (tmp_path / "lines.jsonl").write_text(
        "\n" + json.dumps({"id": "q1", "context": CONTEXT, "question": "When was Oslo founded?", "answers": {"text": "1040",
                                                                                                          "start": 20}}) + "\n"
    )  # fmt: skip
    for name in (*forms, "lines.jsonl"):
        found = read_questions(tmp_path / name, AnswerFormat())
        assert (list(found.questions), list(found.contexts)) == (["When was Oslo founded?"], [CONTEXT]), name
        assert (found.ids, found.golds, found.places) == (["q1"], [("1040",)], [(20, 24)]), name


WRONG = {
    "elsewhere": (asked([{"text": "1040", "answer_start": 21}]),
                  r"train.json: q1: answer_start 21: got '040.' there, expected '1040', which begins at character 20"),
    "beyond": (asked([{"text": "1040", "answer_start": 900}]), r"q1: answer_start 900: got nothing there, expected '1040'"),
    "nowhere": (asked([{"text": "1999", "answer_start": 3}]), r"train.json: q1: the answer '1999' is not in the context"),
    "no answer": (asked([]), r"q1: got a question without an answer, expected one; task.answers.unanswerable: true"),
    "both": (asked(is_impossible=True), r"q1: is_impossible is true, but there is the answer '1040'"),
    "no list": (asked(3), r"q1: answers: got 3, expected a list"),
    "no text": (asked([{"answer_start": 3}]), r'q1: answers: got .*, expected {"text": text, "answer_start": number}'),
    "empty": (asked([{"text": "", "answer_start": 3}]), r"q1: answers: got the text '', expected a part of the context"),
    "id": (asked(name=[1]), r"id: got \[1\], expected a text"),
    "question": ({"id": "q1", "answers": []}, r"data\[0\].paragraphs\[0\].qas\[0\]: 'question' is missing, expected a text"),
    "untold": ({"id": "q1", "question": "When?"}, r"train.json: q1: 'answers' is missing, expected a list of answers"),
}  # fmt: skip


@pytest.mark.parametrize("name", WRONG)
def test_wrong_questions_are_named(name, tmp_path):
    question, message = WRONG[name]
    with pytest.raises(DataError, match=message):
        read_questions(written(tmp_path, question), AnswerFormat())


def test_two_questions_of_one_id_are_named(tmp_path):
    with pytest.raises(DataError, match="q1: the id is there twice, in questions 1 and 2"):
        read_questions(written(tmp_path, asked(), asked()), AnswerFormat())


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ('{"data": 3}', 'got data: 3, expected {"data":'),
        ("[3]", r"x.json: \[0\]: got 3, expected an object"),
        ('[{"paragraphs": 3}]', r"\[0\].paragraphs: got 3, expected a list"),
        ('[{"qas": []}]', r"\[0\]: 'context' is missing"),
        ('[{"context": " ", "qas": []}]', "the context is empty"),
        ("[]", "holds no questions"),
        ('{"data": [', "is no JSON, or damaged"),
    ],
)
def test_other_json_is_no_file_of_questions(content, message, tmp_path):
    (tmp_path / "x.json").write_text(content)
    with pytest.raises(DataError, match=message):
        read_questions(tmp_path / "x.json", AnswerFormat())


def test_misplaced_answers_are_found_and_counted(tmp_path):
    questions = [asked([{"text": "10", "answer_start": 38}], "a"), asked([{"text": "zz", "answer_start": 0}], "b"), asked()]
    found = read_questions(written(tmp_path, *questions), AnswerFormat(nearest=True))
    assert found.ids == ["a", "q1"] and found.places == [(41, 43), (20, 24)]
    assert found.notes == [
        "train.json: 1 answer is not where the file says, and taken at the nearest place (a)",
        "train.json: 1 question is left out, whose answers are not in the context (b)",
    ]


def test_questions_without_answers_are_read_for_predictions_and_tests(tmp_path):
    path = written(tmp_path, {"id": "q1", "question": "When?"})
    found = read_questions(path, AnswerFormat(), needs_answers=False)
    assert found.targets is None and found.ids == ["q1"]


def section(folder, **more):
    return TaskSection(name="mine", kind="question_answering", data=folder, **more)


def test_a_key_that_a_recipe_names_is_the_one_that_is_read(tmp_path):
    path = written(tmp_path, asked())
    for key in ("question", "context", "answers"):
        with pytest.raises(DataError, match="'other' is missing, expected a "):
            read_questions(path, AnswerFormat(**{key: "other"}))


def test_predictions_look_at_no_answer(tmp_path):
    """Nor do they ask that one is right, in its place, or there in all questions."""
    others = [asked([{"text": "1999", "answer_start": 3}], "q2"), asked([], "q3", is_impossible=True), asked(3, "q4")]
    unasked = {"id": "q5", "question": "When?"}
    found = read_questions(written(tmp_path, asked(), *others, unasked), AnswerFormat(), reads_answers=False)
    assert found.ids == ["q1", "q2", "q3", "q4", "q5"] and found.targets is None and not found.notes


def test_a_right_answer_that_the_context_lacks_is_still_scored_with(tmp_path):
    two = [{"text": "1040", "answer_start": 20}, {"text": "in the year 1040", "answer_start": 17}]
    found = read_questions(written(tmp_path, asked(two)), AnswerFormat(nearest=True))
    assert (found.golds, found.places) == ([("1040", "in the year 1040")], [(20, 24)])


def test_files_by_their_official_names(tmp_path):
    folder = write_questions(tmp_path)
    (folder / "train.json").rename(folder / "train-v1.1.json")
    (folder / "dev.json").rename(folder / "cmrc2018_dev.json")
    spec = resolve_task(section(folder))
    assert len(read_split(spec, folder, "train")) == 96 and len(read_split(spec, folder, "dev")) == 32
    with pytest.raises(DataError, match="has no file for the split 'test'"):
        read_split(spec, folder, "test")


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ({"metrics": ["f1"]}, "task.metrics: 'f1' is no metric for this task"),
        ({"metrics": ["best_f1"]}, "'best_f1' is no metric for this task; task.answers.unanswerable: true has it"),
        ({"files": {"train": "x.json"}}, "x.json: no such file"),
    ],
)
def test_what_does_not_fit_a_task_of_questions(more, message, tmp_path):
    folder = write_questions(tmp_path)
    with pytest.raises(CrossdistilError, match=message):
        read_split(resolve_task(section(folder, **more)), folder, "train")


@pytest.mark.parametrize("key", [{"labels": ["a"]}, {"header": True}, {"tokens": {}}, {"encoding": "gb18030"}])
def test_keys_of_tables_are_refused(key, tmp_path):
    with pytest.raises(ValueError, match="is for"):
        section(tmp_path, **key)
