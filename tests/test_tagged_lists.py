"""Rows with a list of words and a list of labels, as `datasets` has them, against the same sentences as columns: labels, batches,
scores; and what is refused."""

from __future__ import annotations

import json
from types import SimpleNamespace

import numpy as np
import pyarrow
import pyarrow.parquet
import pytest

from crossdistil.core.app.given_data import GivenData
from crossdistil.core.app.given_texts import read_texts
from crossdistil.core.data.batches import TrainBatches
from crossdistil.core.data.mixing import mixed
from crossdistil.core.data.numbered_rows import row_lines
from crossdistil.core.data.tasks import read_split, resolve_task
from crossdistil.core.errors import DataError
from crossdistil.core.job import prepare
from crossdistil.core.kinds.known_kinds import TOKEN_LABELS
from crossdistil.core.predictions import rows_digest
from crossdistil.core.recipe import parse_recipe
from crossdistil.core.task_section import AuxSection, TaskSection
from crossdistil.tests import tiny
from crossdistil.tests.tagged_files import LABELS, columns, ner_recipe, sentences, write_names

NAMES = ["O", "B-PER", "I-PER", "B-LOC", "I-LOC"]
"""In another order than a model has them, as files of the hub do."""
FORMS = ("jsonl", "json", "parquet", "list", "old", "hub", "saved")


def rows_of(drawn, words="tokens", label="ner_tags", numbers=False):
    found = []
    for row in drawn:
        tags = [NAMES.index(tag) if numbers else tag for _, tag in row]
        found.append({"id": str(len(found)), words: [word for word, _ in row], label: tags})
    return found


def lines(rows):
    return "".join(json.dumps(row) + "\n" for row in rows)


def table(rows, form="Sequence", label="ner_tags", names=NAMES):
    """As `datasets` writes it: numbers, whose names are in the schema."""
    known = {"names": names, "_type": "ClassLabel"}
    feature = [known] if form == "old" else {"feature": known, "_type": "List" if form == "list" else "Sequence"}
    features = json.dumps({"info": {"features": {"tokens": {"_type": "Sequence"}, label: feature}}})
    return pyarrow.Table.from_pylist(rows).replace_schema_metadata({"huggingface": features})


def write(folder, form):
    """The data of `write_names`."""
    folder.mkdir()
    for split, count, seed in (("train", 120, 1), ("dev", 40, 2)):
        drawn = sentences(count, seed)
        if form == "jsonl":
            (folder / f"{split}.jsonl").write_text(lines(rows_of(drawn)))
        elif form == "json":
            (folder / f"{split}.json").write_text(json.dumps(rows_of(drawn, "Words", "tags")))
        elif form == "hub":
            (folder / "data").mkdir(exist_ok=True)
            name, rows = {"dev": "validation"}.get(split, split), rows_of(drawn, numbers=True)
            for at, part in enumerate((rows[:9], rows[9:])):
                pyarrow.parquet.write_table(table(part), folder / "data" / f"{name}-0000{at}-of-00002.parquet")
        elif form == "saved":
            place, found = folder / {"dev": "validation"}.get(split, split), table(rows_of(drawn, numbers=True))
            place.mkdir()
            with pyarrow.OSFile(str(place / "d.arrow"), "wb") as sink, pyarrow.ipc.new_stream(sink, found.schema) as writer:
                writer.write_table(found, 7)
            (place / "state.json").write_text(json.dumps({"_data_files": [{"filename": "d.arrow"}]}))
        else:
            pyarrow.parquet.write_table(table(rows_of(drawn, numbers=True), form), folder / f"{split}.parquet")
    return folder


def section(folder, **more):
    return TaskSection(**{"name": "names", "kind": "tokens", "data": folder, **more})


def read(folder, split="train", **more):
    spec = resolve_task(section(folder, **more))
    return spec, read_split(spec, folder, split)


@pytest.fixture(scope="module")
def names(tmp_path_factory):
    """The data as columns, and an encoder."""
    root = tmp_path_factory.mktemp("lists")
    write_names(root / "data")
    tiny.write_model(root / "encoder", tiny.ONE_LAYER)
    return root


@pytest.mark.parametrize("form", FORMS)
def test_lists_are_the_same_words_and_labels_as_columns(names, tmp_path, form):
    folder = write(tmp_path / "lists", form)
    for split in ("train", "dev"):
        (spec, expected), (own, found) = (read(each, split) for each in (names / "data", folder))
        assert own.labels == spec.labels == LABELS and list(found.texts) == list(expected.texts)
        assert found.labels.tolist() == expected.labels.tolist() and found.by_spaces.all() and not found.notes
        assert rows_digest(own, found) == rows_digest(spec, expected)
    assert len(row_lines(folder / own.splits["dev"], own)) == 40


def test_batches_are_those_of_columns(names, tmp_path):
    found = []
    for folder in (names / "data", write(tmp_path / "lists", "hub")):
        job = prepare(parse_recipe(ner_recipe(folder, names / "encoder"), "test"), "test", 1)
        found.append([part for step in TrainBatches(job.data.tokens["train"], None, 8, 1, (16,), 0).epoch(0) for part in step])
        found[-1].append({"rows": np.array([job.data.dev_rows])})
    assert len(found[0]) == len(found[1]) > 12
    for one, other in zip(*found):
        assert one.keys() == other.keys()
        for key in one:
            np.testing.assert_array_equal(one[key], other[key])


SCHEMES = {
    "IOB1": ["I-PER", "I-PER", "B-PER", "O", "I-LOC"],
    "BIOES": ["B-PER", "E-PER", "S-PER", "O", "S-LOC"],
    "BILOU": ["B-PER", "L-PER", "U-PER", "O", "U-LOC"],
    "BMES": ["B-PER", "E-PER", "S-PER", "M-LOC", "S-LOC"],
    "types": ["B", "I", "B", "O", "B"],
}


@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize("numbers", [False, True])
def test_tags_of_any_scheme(tmp_path, scheme, numbers):
    tags, words = SCHEMES[scheme], list("abcde")
    more = {"tokens": {"stray": "begin"}}
    (tmp_path / "columns").mkdir()
    (tmp_path / "columns" / "train.conll").write_text(columns([zip(words, tags)]))
    (tmp_path / "lists").mkdir()
    if numbers:
        known = sorted(set(tags))
        row = {"tokens": words, "ner_tags": [known.index(tag) for tag in tags]}
        pyarrow.parquet.write_table(table([row], names=known), tmp_path / "lists" / "train.parquet")
    else:
        (tmp_path / "lists" / "train.jsonl").write_text(lines([{"tokens": words, "ner_tags": tags}]))
    (spec, expected), (own, found) = (read(tmp_path / each, **more) for each in ("columns", "lists"))
    assert own.labels == spec.labels and found.labels.tolist() == expected.labels.tolist()
    told = [] if scheme == "types" else [f"its tags are {scheme}, and are read as BIO"]
    for each in (found, expected):
        assert [note.partition(": ")[2] for note in each.notes if "its tags" in note] == told


def test_columns_are_found_or_named(tmp_path):
    row = {"tokens": ["a", "b"], "pos_tags": ["X", "Y"], "ner_tags": ["O", "B-P"], "chunks": ["O", "B-C"], "t": ["c", "d"]}
    (tmp_path / "train.jsonl").write_text(lines([row, {**row, "text": "a b"}]))
    spec, found = read(tmp_path)
    assert spec.labels == ("O", "B-P", "I-P") and found.notes == (
        "train.jsonl: its labels are 'ner_tags', and not 'pos_tags'; task.label names others",
    )
    spec, found = read(tmp_path, label="chunks", text="t")
    assert spec.labels == ("O", "B-C", "I-C") and list(found.texts) == ["c d"] * 2 and not found.notes
    spec, found = read(tmp_path, label="pos_tags", tokens={"scheme": "plain"})
    assert spec.labels == ("X", "Y") and found.labels.tolist() == [[0, 1]] * 2
    with pytest.raises(DataError, match=r"train.jsonl:1: no column 'token'; did you mean 'tokens'"):
        read(tmp_path, text="token")
    with pytest.raises(DataError, match=r"train.jsonl: no column of labels beside 'tokens'; .* expected 'x', a list of labels"):
        read(tmp_path, label="x")
    (tmp_path / "train.jsonl").write_text(lines([{"text": "ab", "tokens": ["c"], "tags": ["O"], "spans": [[0, 2, "P"]]}]))
    assert list(read(tmp_path)[1].texts) == ["ab"]  # what has spans is a text


def test_numbers_are_named_by_the_recipe_where_the_file_does_not(tmp_path):
    (tmp_path / "train.jsonl").write_text(lines(rows_of(sentences(9, 3), numbers=True)))
    told = r"train.jsonl:1: ner_tags\[0\]: got the number \d, expected a label, since .* no names of numbers; task.labels names"
    for more in ({}, {"tokens": {"scheme": "plain"}}):
        with pytest.raises(DataError, match=told):
            read(tmp_path, **more)
    spec, found = read(tmp_path, labels=NAMES)
    said = [[spec.labels[label] for label in row if label >= 0] for row in found.labels]
    assert spec.labels == tuple(NAMES) and said == [[tag for _, tag in row] for row in sentences(9, 3)]
    told = "0 is 'O', 1 is 'B-PER', 2 is 'I-PER', 3 is 'B-LOC', 4 is 'I-LOC'"
    assert found.notes == (f"train.jsonl: its labels are numbers, which task.labels names: {told}",)
    with pytest.raises(DataError, match=r"got the number \d, expected 0 to 2, which task.labels names \('O', 'B-PER', 'I-PER'\)"):
        read(tmp_path, labels=NAMES[:3])


WRONG = {
    "lengths": ({"tokens": ["a", "b"], "tags": ["O"]}, r":2: 'tags' has 1 label, expected 2, one for each of 'tokens'"),
    "empty word": ({"tokens": ["a", ""], "tags": ["O", "O"]}, r":2: tokens\[1\]: got '', expected a word: text without"),
    "two words": ({"tokens": ["a b"], "tags": ["O"]}, r":2: tokens\[0\]: got 'a b', expected a word: text without white space"),
    "no word": ({"tokens": [None], "tags": ["O"]}, r":2: tokens\[0\]: got null, expected a word"),
    "half": ({"tokens": ["\ud800"], "tags": ["O"]}, r":2: tokens\[0\]: got '.ud800', expected a word"),
    "no words": ({"tokens": "a b", "tags": ["O"]}, r":2: 'tokens' is 'a b', expected a list of words"),
    "no labels": ({"tokens": ["a"], "tags": "O"}, r":2: 'tags' is 'O', expected a list of labels"),
    "null": ({"tokens": ["a"], "tags": [None]}, r":2: tags\[0\]: got null, expected a label"),
    "true": ({"tokens": ["a"], "tags": [True]}, r":2: tags\[0\]: got True, expected a label"),
    "no scheme": ({"tokens": ["a", "b"], "tags": ["O", "NN"]}, r":2: tags\[1\]: got tag 'NN', expected O, or B- or I-"),
    "stray": ({"tokens": ["a", "b"], "tags": ["B-X", "I-Y"]}, r":2: tags\[1\]: got tag 'I-Y' behind 'B-X', expected 'B-Y'"),
    "column": ({"tokens": ["a"]}, r":2: no column 'tags'"),
}


@pytest.mark.parametrize("case", WRONG)
def test_what_is_wrong_names_file_and_line(tmp_path, case):
    row, message = WRONG[case]
    (tmp_path / "train.jsonl").write_text(lines([{"tokens": ["a", "b"], "tags": ["B-X", "O"]}, row]))
    with pytest.raises(DataError, match=r"train\.jsonl" + message) as raised:
        read(tmp_path)
    assert "\n" not in str(raised.value)


def test_a_number_without_a_name_in_the_schema(tmp_path):
    rows = [{"tokens": ["a", "b"], "ner_tags": tags} for tags in ([0, 1], [0, 9])]
    pyarrow.parquet.write_table(table(rows), tmp_path / "train.parquet")
    told = r"train.parquet:2: ner_tags\[1\]: got the number 9, expected 0 to 4, which the file's schema names \('O', 'B-PER'"
    with pytest.raises(DataError, match=told):
        read(tmp_path, labels=[*NAMES, *(f"{letter}-X{each}" for each in range(5) for letter in "BI")])
    (tmp_path / "dev.jsonl").write_text(lines([{"tokens": ["a"], "tags": ["O"]}, {"tokens": ["a", "b"], "tags": ["O", "B-Z"]}]))
    pyarrow.parquet.write_table(table(rows[:1]), tmp_path / "train.parquet")
    with pytest.raises(DataError, match=r"dev.jsonl:2: got label 'B-Z', expected one of 'O', 'B-PER', 'I-PER'; train.parquet"):
        read(tmp_path, "dev")
    (tmp_path / "train.jsonl").write_text("")
    with pytest.raises(DataError, match="task.files.train: needed, because .* holds train.jsonl and train.parquet"):
        read(tmp_path)


def test_rows_without_words_are_told_and_keep_their_number(tmp_path):
    rows = [{"tokens": ["a", "b"], "tags": ["B-X", "O"]}, {"tokens": [], "tags": []}]
    (tmp_path / "train.jsonl").write_text(lines(rows))
    spec, found = read(tmp_path)
    assert found.labels.tolist() == [[1, 0], [-1, -1]] and found.notes == ("train.jsonl: 1 row has no words (line 2)",)
    assert row_lines(tmp_path / "train.jsonl", spec).tolist() == [1, 2]
    assert list(read_texts(tmp_path / "train.jsonl", {}, kind=TOKEN_LABELS).texts) == ["a b", ""]
    (tmp_path / "train.jsonl").write_text(lines(rows[1:]))
    with pytest.raises(DataError, match="train.jsonl: holds no words with labels"):
        read(tmp_path)


@pytest.mark.parametrize("task", [{}, {"text": "word", "columns": ["word", "tag"]}, {"text": "tokens", "label": "x"}])
def test_predict_reads_words_and_not_their_labels(tmp_path, task):
    rows = [{"id": 7, "tokens": ["U.S.", "is"], "ner_tags": ["NN"]}, {"id": 8, "tokens": ["bad"], "ner_tags": 3}]
    (tmp_path / "t.jsonl").write_text(lines(rows))
    found = read_texts(tmp_path / "t.jsonl", task, id_column="id", kind=TOKEN_LABELS)
    assert (list(found.texts), found.ids, found.pairs, found.by_spaces) == (["U.S. is", "bad"], [7, 8], None, True)
    (tmp_path / "t.jsonl").write_text(lines([{"tokens": ["U.S."]}]))
    assert list(read_texts(tmp_path / "t.jsonl", task, kind=TOKEN_LABELS).texts) == ["U.S."]
    rows = [{"tokens": ["U.S.", "is"], "other": ["a"], "ner_tags": [99]}]
    pyarrow.parquet.write_table(table(rows), tmp_path / "t.parquet")
    assert list(read_texts(tmp_path / "t.parquet", task, kind=TOKEN_LABELS).texts) == ["U.S. is"]
    assert list(read_texts(tmp_path / "t.parquet", task, "other", kind=TOKEN_LABELS).texts) == ["a"]
    (tmp_path / "t.jsonl").write_text(lines([{"tokens": ["a"]}, {"tokens": ["a b"]}]))
    with pytest.raises(DataError, match=r"t.jsonl:2: tokens\[0\]: got 'a b', expected a word"):
        read_texts(tmp_path / "t.jsonl", task, kind=TOKEN_LABELS)


def test_more_texts_are_lists_too(names, tmp_path):
    spec, train = read(names / "data")
    (tmp_path / "train.jsonl").write_text(lines(rows_of(sentences(6, 7))))
    found = mixed(train, spec, AuxSection(name="more", kind="tokens", data=tmp_path), "aux_data[0]")
    said = [[spec.labels[label] for label in own if label >= 0] for own in found.labels[120:]]
    assert said == [[tag for _, tag in row] for row in sentences(6, 7)] and found.by_spaces.all()
    found = mixed(train, spec, AuxSection(name="more", text="tokens", data=tmp_path), "aux_data[0]")
    assert list(found.texts[120:]) == [" ".join(word for word, _ in row) for row in sentences(6, 7)]
    assert (found.labels[120:] == -1).all() and found.by_spaces.all()


class Rows(list):
    """As a `datasets.Dataset` gives them, with what its columns are."""

    features = {"ner_tags": SimpleNamespace(feature=SimpleNamespace(names=NAMES)), "tokens": SimpleNamespace(feature=None)}


def test_rows_of_a_program_have_the_names_of_their_numbers():
    given = GivenData({"train": Rows(rows_of(sentences(5, 1), numbers=True)), "dev": rows_of(sentences(5, 1))})
    assert given._lines["train"] == given._lines["dev"]


@pytest.mark.only_backend("torch")
def test_a_run_and_its_scores_are_those_of_columns(names, tmp_path, said):
    lists, results = write(tmp_path / "lists", "parquet"), []
    for name, folder in (("columns", names / "data"), ("lists", lists)):
        (tmp_path / f"{name}.yaml").write_text(json.dumps(ner_recipe(folder, names / "encoder", 20)))
        code, _, errors = said("run", tmp_path / f"{name}.yaml", "--out", tmp_path / "runs" / name, "--backend", "torch")
        assert code == 0, errors
        results.append(json.loads((tmp_path / "runs" / name / "result.json").read_text())["student"]["metrics"])
    assert results[0] == results[1] and results[0]["word_accuracy"] > 0.5
    run = tmp_path / "runs" / "lists"
    for folder in (names / "data", lists):
        code, printed, errors = said("evaluate", run, "--data", folder, "--backend", "torch")
        assert code == 0 and json.loads(printed.splitlines()[-1]) == pytest.approx(results[1], abs=1e-6), errors
    answers = []
    for file in (names / "data" / "dev.conll", lists / "dev.parquet"):
        code, printed, errors = said("predict", run, "--file", file, "--backend", "torch")
        assert code == 0, errors
        answers.append(printed)
    assert answers[0] == answers[1] and len(answers[0].splitlines()) == 40
    (tmp_path / "numbers").mkdir()
    (tmp_path / "numbers" / "dev.jsonl").write_text(lines(rows_of(sentences(40, 2), numbers=True)))
    code, _, errors = said("evaluate", run, "--data", tmp_path / "numbers", "--backend", "torch")
    assert code == 2 and "dev.jsonl:1: ner_tags[0]: got the number" in errors  # the model's labels are in another order
