"""A file of answers to the words of texts: what each row comes to, joined to words; what is refused, with file and line; and what
the student keeps of it, on each backend."""

from __future__ import annotations

import io
import json

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
from crossdistil.tests.labelled_records import chat, message
from crossdistil.tests.tagged_files import LABELS

TEXT = "Anna Bell met Bo in New York ."
TRUTH = "B-PER I-PER O B-PER O B-LOC I-LOC O".split()
SPANS = [[0, 9, "PER"], [14, 16, "PER"], [20, 28, "LOC"]]
NAMED = [{"text": "New York", "label": "LOC"}, {"text": "Anna Bell", "label": "PER"}, {"text": "Bo", "type": "PER"}]
TOPS = [{tag: 0.9} for tag in TRUTH]
FLOOR = 1e-4


def recipe(folder, rows, train=((TEXT, None),), dev=((TEXT, TRUTH),), objective=("kd_ce",), task=None, **file) -> dict:
    """A task whose train has words alone, or tags, and the file's answers to them."""
    folder.mkdir(exist_ok=True)
    for split, texts in (("train", train), ("dev", dev)):
        parts = [
            "\n".join(word if tags is None else f"{word} {tag}" for word, tag in zip(text.split(), tags or text.split()))
            for text, tags in texts
        ]
        (folder / f"{split}.conll").write_text("\n\n".join(parts) + "\n", encoding="utf-8")
    (folder / "llm.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    tiny.write_model(folder / "model", tiny.ONE_LAYER)
    of_words = {"name": "names", "kind": "tokens", "data": str(folder), "labels": list(LABELS), "max_length": 32}
    return {
        "method": "llm",
        "task": of_words | (task or {}),
        "teacher": {"file": {"path": str(folder / "llm.jsonl"), **file}},
        "student": {"init": {"from": str(folder / "model")}},
        "stages": [
            {"name": "words", "objective": [{"loss": loss} for loss in objective], "train": {"steps": 2, "batch_size": 2}},
        ],
        "seed": 1,
    }


def examples_of(folder, rows, *texts, **more) -> dict[str, Examples]:
    """The examples of that recipe."""
    tree = recipe(folder, rows, *texts, **more)
    found, errors = check_rows(plan(parse_recipe(tree, "test"), "test"))
    errors.throw()
    return found


def said(examples, split="train"):
    """The file's label of each word, None where it has none."""
    taught = examples[split].taught["teacher"]
    return [LABELS[best] if answered else None for best, answered in zip(taught.logits.argmax(axis=1), taught.answered)]


def other(tags, letters):
    """BIO tags in another scheme."""
    ends = [after[0] != "I" for after in [*tags[1:], "O"]]
    return [tag if tag == "O" else letters[tag[0], end] + tag[1:] for tag, end in zip(tags, ends)]


BIOES = other(TRUTH, {("B", True): "S", ("B", False): "B", ("I", True): "E", ("I", False): "I"})
FORMS = {
    "spans": {"spans": [{"start": start, "end": end, "label": label} for start, end, label in SPANS]},
    "spans in short": {"entities": SPANS},
    "spans by words": {"spans": NAMED},
    "spans called labels": {"labels": NAMED},
    "spans by label": {"spans": {"LOC": ["New York"], "PER": ["Bo", "Anna Bell"]}},
    "a pipeline of transformers": {
        "entities": [
            {"entity_group": label, "score": 0.9, "word": "...", "start": start, "end": end} for start, end, label in SPANS
        ]
    },
    "labels in BIO": {"labels": TRUTH},
    "labels in BIOES": {"tags": BIOES},
    "types alone": {"labels": ["PER", "PER", "O", "PER", "O", "LOC", "LOC", "O"]},
    "words with labels": {"tokens": TEXT.split(), "ner_tags": TRUTH},
    "distributions": {"probabilities": TOPS},
    "distributions in BIOES": {"probabilities": [{tag: 0.9, "O": 0.1} if tag != "O" else {"O": 1} for tag in BIOES]},
    "log-probabilities": {"log_probabilities": [{tag: -0.1} for tag in TRUTH]},
    "logits": {"logits": [[5.0 * (label == tag) for label in LABELS] for tag in TRUTH]},
    "a chat": chat(json.dumps({"entities": NAMED})),
    "a chat with a list": chat("```json\n" + json.dumps(NAMED) + "\n```"),
    "a chat with labels": chat(json.dumps(TRUTH)),
    "a message": message("<think>Bo?</think>" + json.dumps({"spans": NAMED})),
}


@pytest.mark.parametrize("form", FORMS)
def test_each_form_says_the_same(tmp_path, form):
    row = {"text": TEXT.replace(" ", "  ") if form == "labels in BIO" else TEXT, **FORMS[form]}
    examples = examples_of(tmp_path, [row])
    assert said(examples) == said(examples, "dev") == TRUTH
    train = examples["train"]
    assert train.labels is None and train.word_counts.tolist() == [[1.0] * 8]
    taught = train.taught["teacher"]
    if form == "logits":
        np.testing.assert_allclose(taught.logits, FORMS[form]["logits"])
    elif form == "distributions":  # 0.1 is shared by the four that are not named
        for word, tag in enumerate(TRUTH):
            expected = np.where([label == tag for label in LABELS], 0.9, 0.1 / 4)
            np.testing.assert_allclose(softmax(taught.logits[word].astype(float)), expected, rtol=1e-6)
        assert taught.soft.all()
    elif "distributions" not in form and "log" not in form:
        expected = np.array([1, FLOOR, FLOOR, FLOOR, FLOOR]) / (1 + 4 * FLOOR)
        np.testing.assert_allclose(softmax(taught.logits[2].astype(float)), expected, rtol=1e-6)


def test_no_entity_is_an_answer_and_silence_none(tmp_path):
    texts = [(TEXT, None), ("it rains", None), ("who knows", None), ("Bo and him", None)]
    rows = [{"text": TEXT, "spans": SPANS}, {"text": "it rains", **chat("[]")}, {"text": "who knows", "spans": None}]
    rows += [{"text": "Bo and him", "labels": ["B-PER", "O", None], "cost": 0.5}]
    both = {"as_labels": "where_missing", "objective": ("kd_ce", "hard_label")}
    examples = examples_of(tmp_path, rows, texts, unanswered="leave_out", **both)
    train, taught = examples["train"], examples["train"].taught["teacher"]
    assert list(train.texts) == [TEXT, "it rains", "Bo and him"] and said(examples)[8:] == ["O", "O", "B-PER", "O", None]
    assert train.word_counts[:, :3].tolist() == [[1, 1, 1], [1, 1, 0], [1, 1, 0]]
    assert [LABELS[label] for label in train.labels[0]] == TRUTH and train.labels[2].tolist()[:3] == [3, 0, -1]
    told = "\n".join(taught.told)
    for line in (
        "llm.jsonl: 4 rows, 4 texts; 1 without an answer (an abstention: 1)",
        "train: 3 of 4 texts have an answer in the file, but 1 of their words, to 1 it has none",
        "train: 3 words without an answer are left out, in line 13, 16",
        "train: 12 of 13 labels of words are the file's answers",
    ):
        assert line in told, told
    assert taught.about["per_thousand_texts"]["cost"] == 500
    told = r"train.conll:13: 2 of 4 texts of train have words without an answer in llm.jsonl, 3 together, the first of them 'who'"
    with pytest.raises(CrossdistilError, match=f"{told}; teacher.file.unanswered: leave_out"):
        examples_of(tmp_path, rows, texts)


CHINESE = "王 小 明 在 1 9 9 0 年 住 上 海 , 中 国"
CHINESE_TRUTH = "B-PER I-PER I-PER O O O O O O O B-LOC I-LOC O B-LOC I-LOC".split()
UNSPACED = {
    "spans": {"text": "王小明在1990年住上海, 中国", "spans": [[0, 3, "PER"], [10, 12, "LOC"], [14, 16, "LOC"]]},
    "columns": {"text": CHINESE, "spans": [[0, 5, "PER"], [20, 23, "LOC"], [26, 29, "LOC"]]},
    "words": {"text": "王小明 在1990年 住 上海,中国", "spans": {"PER": ["王小明"], "LOC": ["上海", "中国"]}},
    "labels": {"words": CHINESE.split(), "labels": CHINESE_TRUTH},
    "a number": {"id": 0, "spans": {"PER": ["王小明"], "LOC": ["上 海", "中国"]}},
    "a text too": {"id": 0, "text": "王小明在1990年住上海,中国", "spans": [[0, 3, "PER"], [10, 12, "LOC"], [13, 15, "LOC"]]},
}


@pytest.mark.parametrize("form", UNSPACED)
def test_texts_without_spaces_are_those_of_columns_of_characters(tmp_path, form):
    row = UNSPACED[form]
    found = examples_of(tmp_path, [row], [(CHINESE, None)], [(CHINESE, CHINESE_TRUTH)], row_numbers=0 if "id" in row else None)
    assert said(found) == CHINESE_TRUTH


def test_places_in_a_text_that_may_have_spaces_are_refused(tmp_path):
    row = {"id": 0, "spans": [[0, 3, "PER"]]}
    with pytest.raises(CrossdistilError, match=r"llm.jsonl:1: has places of spans and no text, .* the text beside the spans"):
        examples_of(tmp_path, [row], [(CHINESE, None)], [(CHINESE, CHINESE_TRUTH)], row_numbers=0)


def test_votes_of_rows_and_what_words_count(tmp_path):
    rows = [{"text": TEXT, "labels": TRUTH}, {"text": TEXT, "labels": TRUTH}, {"text": TEXT, "spans": SPANS[:1] + SPANS[2:]}]
    examples = examples_of(tmp_path, rows, repeated="votes", weigh_by="agreement")
    taught = examples["train"].taught["teacher"]
    np.testing.assert_allclose(softmax(taught.logits[3].astype(float))[[0, 3]], [1 / 3, 2 / 3], rtol=1e-3)
    np.testing.assert_allclose(examples["train"].word_counts[0], [1, 1, 1, 2 / 3, 1, 1, 1, 1], rtol=1e-6)
    assert taught.soft.tolist() == [False] * 3 + [True] + [False] * 4
    with pytest.raises(CrossdistilError, match=r"llm.jsonl:3: another answer to the text of line 1; .*repeated: votes"):
        examples_of(tmp_path, rows)


def test_spans_by_words_stand_where_their_words_do(tmp_path):
    text = "York Bo York New York Bob Bo"
    rows = [{"text": text, "spans": {"LOC": ["New York", "York"], "PER": ["Bo", "Bo"]}}]
    examples = examples_of(tmp_path, rows, [(text, None)])
    assert said(examples) == ["B-LOC", "B-PER", "B-LOC", "B-LOC", "I-LOC", "O", "B-PER"]
    told = "\n".join(examples["train"].taught["teacher"].told)
    assert "llm.jsonl:1: a span that is told once, by its words, stands several times" in told


def test_names_of_types_and_labels_that_are_none(tmp_path):
    rows = [{"text": TEXT, "spans": [[0, 9, "Person"], [14, 16, "alias"], [20, 28, "loc"]]}]
    with pytest.raises(CrossdistilError, match=r"llm.jsonl:1: got label 'Person', expected one of 'O', 'LOC', 'PER'"):
        examples_of(tmp_path, rows)
    examples = examples_of(tmp_path, rows, labels={"person": "PER"}, other_labels="abstain", unanswered="leave_out")
    assert said(examples) == ["B-PER", "I-PER", "O", None, "O", "B-LOC", "I-LOC", "O"]
    with pytest.raises(CrossdistilError, match=r"teacher.file.labels.x: 'PERS' is no type of the task's spans"):
        examples_of(tmp_path, rows, labels={"x": "PERS"})


def test_plain_labels(tmp_path):
    rows = [{"text": "it rains", "labels": ["PRON", "VERB"]}]
    task = {"labels": ["DET", "PRON", "VERB"], "tokens": {"scheme": "plain"}}
    examples = examples_of(tmp_path, rows, [("it rains", None)], [("it rains", ["PRON", "VERB"])], task=task)
    assert examples["train"].taught["teacher"].logits.argmax(axis=1).tolist() == [1, 2]


INSIDE = "expected 0 <= start < end <= 30, the text's characters"
STRAY = "; teacher.file.stray_spans: leave_out goes on without such spans"
WRONG = {
    "outside": ({"spans": [[0, 99, "PER"]]}, f"got a span from 0 to 99, {INSIDE}{STRAY}"),
    "overlap": ({"spans": [[0, 9, "PER"], [5, 9, "PER"]]}, "the span 5 to 9 overlaps another one" + STRAY),
    "not there": ({"spans": [{"text": "Carl", "label": "PER"}]}, f"the span 'Carl' is not in the text '{TEXT}'" + STRAY),
    "too few": ({"labels": TRUTH[:7]}, "has labels of 7 words, expected 8, those of the text: 'Anna', 'Bell', 'met'"),
    "too many numbers": ({"probabilities": [*TOPS, {"O": 1}]}, "has labels of 9 words, expected 8"),
    "no list": ({"labels": {"PER": 1}}, "'labels': got {\"PER\": 1}, expected a list, a label for each word"),
    "no distribution": ({"logits": ["O"] * 8}, "'logits': got \"O\" for a word, expected a mapping of labels to numbers"),
    "a label of all": ({"labels": "PER"}, "got label 'PER', expected one of 'O', 'LOC', 'PER'"),
    "no span": ({"spans": ["Bo"]}, "'spans': got \"Bo\", expected {\"start\": number, \"end\": number, \"label\": text}"),
    "a type": ({"probabilities": [{"PER": 1}] * 8}, "got 'PER' among the labels of a word, expected a distribution over 'O'"),
    "more than all": ({"probabilities": [{"O": 0.9, "B-PER": 0.9}] * 8}, 'got {"O": 0.9, "B-PER": 0.9}, expected prob'),
    "no answer": ({"note": "x"}, "got the columns text, note, expected spans, or labels or probabilities of each word"),
    "no JSON": (chat("There is nobody."), "got label 'There is nobody', expected one of 'O', 'LOC', 'PER'"),
    "confidence": ({"spans": [], "confidence": 7}, "'confidence': got 7, expected 0 to 1"),
}


@pytest.mark.parametrize("name", WRONG)
def test_what_does_not_fit_names_file_and_line(tmp_path, name):
    row, message = WRONG[name]
    with pytest.raises(CrossdistilError) as caught:
        examples_of(tmp_path, [{"text": "elsewhere", "spans": []}, {"text": TEXT, **row}])
    assert f"{tmp_path / 'llm.jsonl'}:2: {message}" in str(caught.value)


def test_stray_spans_are_left_out_and_counted(tmp_path):
    row = {"text": TEXT, "spans": [*NAMED, {"text": "Carl", "label": "PER"}, [0, 99, "PER"], [25, 30, "LOC"]]}
    examples = examples_of(tmp_path, [row], stray_spans="leave_out")
    assert said(examples)[:5] == TRUTH[:5]
    told = "\n".join(examples["train"].taught["teacher"].told)
    assert "llm.jsonl:1: a span is not in its text, or is part of another one, and is left out" in told, told


def test_dev_without_labels_is_scored_by_the_file(tmp_path):
    dev = [(TEXT, None), ("it rains", None)]
    rows = [{"text": TEXT, "spans": SPANS}, {"text": "it rains", "labels": ["O", None]}]
    with pytest.raises(CrossdistilError, match="dev.conll: has no labels, so that nothing can be scored on it; teacher.file"):
        examples_of(tmp_path, rows, dev=dev)
    found = examples_of(tmp_path, rows, dev=dev, as_labels="where_missing")["dev"]
    assert list(found.texts) == [TEXT] and [LABELS[label] for label in found.labels[0]] == TRUTH


def test_a_run_learns_what_the_file_says_on_each_backend(tmp_path, backend_name):
    """The first loss is the cross-entropy with the file's distributions, each word as often as it counts, in windows too; and the
    result tells what the student keeps."""
    dev = [(TEXT, TRUTH), ("it rains", ["O", "O"])]
    rows = [{"text": TEXT, "probabilities": [{tag: 0.8} for tag in TRUTH], "confidence": 0.5}]
    rows += [{"text": "it rains", "labels": ["O", None], "confidence": 0.75}]
    tree = recipe(tmp_path, rows, dev, dev, ("kd_ce", "hard_label"), weigh_by="confidence", unanswered="leave_out")
    tree["task"] |= {"max_length": 8, "tokens": {"pieces": "all"}}
    tree["stages"][0]["train"] |= {"log_every": 1, "dropout": 0.0, "batch_size": 16, "gradient_accumulation": 2}
    job = prepare(parse_recipe(tree, "test"), "test", 1)
    assert len(job.data.tokens["train"].lengths) > 2  # windows
    taught = job.data.examples["train"].taught["teacher"].in_rows(job.data.tokens["train"])
    [step] = job.stage(0).batches.with_arrays(taught.batch).epoch(0)
    forward, sums = logits_function(job.student.config), np.zeros(4)
    for batch in step:
        logits = log_softmax(forward(ReferenceOps(), job.student.parameters, batch)[0].astype(float), axis=2)
        wanted, counts = softmax(batch["logits"].astype(float), axis=2), batch["word_mask"]
        picked = np.take_along_axis(logits, batch["labels"][:, :, None], axis=2)[:, :, 0]
        sums += [-(wanted * logits).sum(axis=2)[counts > 0] @ counts[counts > 0], counts.sum(),
                 -(picked * counts * batch["label_mask"]).sum(), (counts * batch["label_mask"]).sum()]  # fmt: skip
    options = RunOptions(backend_name, EngineOptions("cpu", "fp32"), tmp_path / "out")
    result = execute(parse_recipe(tree, "test"), "test", options, Console(file=io.StringIO()))
    first = json.loads((tmp_path / "out" / "metrics.jsonl").read_text().splitlines()[0])
    assert list(first["terms"].values()) == pytest.approx([sums[0] / sums[1], sums[2] / sums[3]], rel=2e-5)
    assert result["teacher"]["metrics"]["entity_f1"] == 1 and result["teacher"]["file"]["splits"]["train"]["words_answered"] == 9
    kept = result["teacher"]["kept"]
    assert (kept["texts"], kept["words"], kept["labelled"]) == (2, 9, 1) and set(kept["spans"]) >= {"entity_f1", "word_accuracy"}
    assert 0 <= kept["agreement"] <= 1 and kept["teacher"] == 1 and len(kept["by_confidence"]) == 2
