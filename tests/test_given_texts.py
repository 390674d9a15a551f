"""Texts as `predict` and `evaluate` are given them: columns that the model's task has, ids, standard input, other encodings."""

from __future__ import annotations

import io
import json
import sys
from types import SimpleNamespace

import pytest

import crossdistil
from crossdistil.core.app.given_texts import read_texts
from crossdistil.core.checkpoint_saving import save_model
from crossdistil.core.data.tagged_files import read_tagged
from crossdistil.core.data.tagged_format import TaggedFormat
from crossdistil.core.data.tokenize import load_tokenizer
from crossdistil.core.errors import CrossdistilError, DataError
from crossdistil.core.kinds.known_kinds import ONE_CLASS, TOKEN_LABELS
from crossdistil.tests import tiny
from crossdistil.tests.wrong_input_files import crossdistil as command

OWN = {"name": "mine", "text": "body", "label": "label"}
PAIR = {"name": "mrpc"}


def model_of(folder, task, labels=("negative", "positive")):
    made = tiny.write_model(folder, labels=labels)
    made.about["task"] = task
    save_model(made, folder, load_tokenizer(folder))
    return folder


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return model_of(tmp_path_factory.mktemp("own") / "model", OWN)


@pytest.fixture
def options(backend_name, pytestconfig):
    return ["--backend", backend_name, "--device", pytestconfig.getoption("--device")]


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16"])
@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_a_byte_order_mark_is_no_text(tmp_path, encoding, end):
    (tmp_path / "t.txt").write_bytes(f"a b{end}{end}c".encode(encoding))
    assert list(read_texts(tmp_path / "t.txt", {}).texts) == ["a b", "", "c"]


def test_the_columns_are_those_of_the_models_task(tmp_path):
    (tmp_path / "t.csv").write_text("id;body;title\n7;the film;x\n8;a plot;y\n")
    found = read_texts(tmp_path / "t.csv", OWN, id_column="id")
    assert (found.texts, found.pairs, found.ids) == (["the film", "a plot"], None, ["7", "8"]) and len(found.notes) == 1
    assert read_texts(tmp_path / "t.csv", OWN, "title").texts == ["x", "y"]
    (tmp_path / "p.tsv").write_text("#1 String\t#2 String\na\tb\n")
    assert read_texts(tmp_path / "p.tsv", PAIR).pairs == ["b"]
    headless = {**OWN, "header": False, "columns": ["body", "label"]}
    (tmp_path / "h.tsv").write_text("the film\t0\na plot\t1\n")
    assert read_texts(tmp_path / "h.tsv", headless).texts == ["the film", "a plot"]
    (tmp_path / "h.tsv").write_text("id\tbody\n0\tthe film\n")  # the texts to predict are in another layout
    assert read_texts(tmp_path / "h.tsv", headless).texts == ["the film"]
    (tmp_path / "cola.tsv").write_text("index\tsentence\n0\ta b\n")
    assert read_texts(tmp_path / "cola.tsv", {"name": "cola"}).texts == ["a b"]
    (tmp_path / "cola.tsv").write_text("gj04\t1\t\ta b\ngj04\t1\t\tc\n")
    assert read_texts(tmp_path / "cola.tsv", {"name": "cola"}).texts == ["a b", "c"]
    (tmp_path / "j.json").write_text('[{"body": "a", "n": 3}]')
    assert read_texts(tmp_path / "j.json", OWN, id_column="n").ids == [3]


REFUSED = {
    "no task": ("t.csv", {}, {}, r"t\.csv: name the column of the texts with --text-column; the columns are title, text"),
    "other columns": ("t.csv", OWN, {}, r"t\.csv: no column 'body'; the columns are title, text$"),
    "id of lines": ("t.txt", OWN, {"id_column": "id"}, r"--id-column: is a column of a table .*t\.txt has one text a line"),
    "column of lines": ("t.txt", OWN, {"text": "x"}, r"--text-column: is a column of a table"),
    "column of words": ("w.conll", OWN, {"text": "x", "kind": TOKEN_LABELS}, r"--text-column: .*w\.conll is a tagged .* out$"),
    "id of words": ("w.bio", OWN, {"id_column": "x", "kind": TOKEN_LABELS}, r"--id-column: .*w\.bio is a tagged .*column out$"),
    "words for texts": ("w.conll", OWN, {"text": "x"}, r"w\.conll: holds a word a line .*, but the model answers whole texts$"),
    "encoding": ("g.txt", OWN, {}, r"g\.txt:2: not UTF-8 \(byte 0xba\); its bytes read as GB18030: --encoding gb18030"),
    "table's encoding": ("g.csv", OWN, {}, r"g\.csv:2: not UTF-8 .*: --encoding gb18030"),
    "bad row": ("b.csv", OWN, {}, r"b\.csv:3: got 1 columns, expected 2$"),
    "empty": ("e.txt", OWN, {}, r"e\.txt: is empty"),
}


@pytest.mark.parametrize("task", [{}, {"text": "word", "columns": ["word", "tag"]}, {"text": "body"}])
def test_json_lines_with_spans_are_read_as_training_reads_them(tmp_path, task):
    """Also by a model that was trained on columns of words, whose names are others."""
    rows = [{"id": 7, "text": "Bo met  Al", "spans": [[0, 2, "PER"]]}, {"id": 8, "text": "it rains", "spans": "none"}]
    rows = [{**row, task["text"]: row.pop("text")} if task == {"text": "body"} else row for row in rows]
    (tmp_path / "t.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    found = read_texts(tmp_path / "t.jsonl", task, id_column="id", kind=TOKEN_LABELS)
    assert (list(found.texts), found.pairs, found.ids, found.by_spaces) == (["Bo met  Al", "it rains"], None, [7, 8], False)
    (tmp_path / "t.jsonl").write_text(json.dumps(rows[0]) + "\n")
    trained = read_tagged(tmp_path / "t.jsonl", TaggedFormat(text="body" if "body" in rows[0] else ""))
    assert list(trained.texts) == list(found.texts)[:1]
    with pytest.raises(DataError, match="t.jsonl: name the column of the texts with --text-column"):
        read_texts(tmp_path / "t.jsonl", {}, kind=ONE_CLASS)


@pytest.mark.parametrize("case", REFUSED)
def test_what_is_refused(tmp_path, case):
    name, task, given, message = REFUSED[case]
    (tmp_path / "t.csv").write_text("title,text\na,b\n")
    (tmp_path / "t.txt").write_text("a\n")
    (tmp_path / "e.txt").write_text("\ufeff")
    (tmp_path / "b.csv").write_text("body,id\na,b\nc\n")
    (tmp_path / "g.txt").write_bytes("a\n很好看\n".encode("gbk"))
    (tmp_path / "g.csv").write_bytes("body,id\n很好看,1\n".encode("gbk"))
    with pytest.raises(CrossdistilError, match=message) as raised:
        read_texts(tmp_path / name, task, **given)
    assert "\n" not in str(raised.value)


def test_gb18030_is_read_where_it_is_named(tmp_path):
    (tmp_path / "g.csv").write_bytes("body,id\n很好看,1\n".encode("gbk"))
    assert read_texts(tmp_path / "g.csv", OWN, encoding="gb18030").texts == ["很好看"]
    assert read_texts(tmp_path / "g.csv", {**OWN, "encoding": "gbk"}).texts == ["很好看"]


def test_standard_input_and_ids(options, model, tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "stdin", SimpleNamespace(buffer=io.BytesIO("\ufeffthe film\r\nbad\r\n".encode())))
    answer = command("predict", model, "--file", "-", *options)
    assert [json.loads(line)["text"] for line in answer.stdout.splitlines()] == ["the film", "bad"], answer.stderr
    (tmp_path / "t.csv").write_text("id,body\nx1,the film\nx2,bad\n")
    answer = command("predict", model, "--file", tmp_path / "t.csv", "--id-column", "id", *options)
    assert [json.loads(line)["id"] for line in answer.stdout.splitlines()] == ["x1", "x2"]
    assert list(json.loads(answer.stdout.splitlines()[0])) == ["id", "text", "label", "probabilities"]


def test_nothing_is_overwritten_unasked(options, model, tmp_path):
    out = tmp_path / "out.jsonl"
    out.write_text("kept")
    answer = command("predict", model, "the film", "--out", out, *options)
    assert answer.code == 2 and answer.messages == [f"--out {out}: is there already; --overwrite replaces it"]
    assert out.read_text() == "kept"
    assert command("predict", model, "the film", "--out", out, "--overwrite", *options).code == 0
    assert json.loads(out.read_text())["text"] == "the film"
    assert command("predict", model, "the film", "--overwrite", *options).messages == [
        "--overwrite: is for --out, which is not given"
    ]


def test_a_string_is_one_text(model, backend_name, pytestconfig, caplog):
    settings = {"backend": backend_name, "device": pytestconfig.getoption("--device")}
    [one] = crossdistil.predict(model, "the film", **settings)
    assert one == crossdistil.predict(model, ["the film"], **settings)[0]
    [pair] = crossdistil.predict(model, "the film", "bad", **settings)
    assert pair.pair == "bad"
    for texts, pairs, message in (
        (["a"], ["b", "c"], "1 texts and 2"),
        ([b"a"], None, "text 1: got bytes"),
        (["\ud800"], None, "half"),
    ):
        with pytest.raises(CrossdistilError, match=message):
            crossdistil.predict(model, texts, pairs, **settings)
    assert not caplog.records
    crossdistil.predict(model, "电影好看", **settings)
    assert "100.0% of the tokens of these texts are [UNK]" in caplog.text


def test_a_model_of_pairs_says_that_it_gets_single_texts(tmp_path, options):
    model_of(tmp_path / "model", PAIR)
    answer = command("predict", tmp_path / "model", "the film", *options)
    assert answer.code == 0 and "was trained on pairs of texts, but gets single ones" in answer.stderr


def test_evaluate_tells_the_data_and_needs_no_train_file(tmp_path, options, model):
    (tmp_path / "dev.tsv").write_text("body\tlabel\nthe film\tnegative\nbad 电影\tnegative \ngood\tpositive\n")
    answer = command("evaluate", model, "--data", tmp_path, *options)
    assert answer.code == 0 and 0 <= json.loads(answer.stdout)["accuracy"] <= 1, answer.stderr
    assert answer.stderr.splitlines()[0] == "dev: negative 2, positive 1"
    assert "[UNK]: 33.3% of the tokens of dev" in answer.stderr and "warning: 'positive' has one row in dev" in answer.stderr
    (tmp_path / "dev.tsv").write_text("body\tlabel\nthe film\tNegative\n")
    answer = command("evaluate", model, "--data", tmp_path, *options)
    assert answer.code == 2 and "it looks like 'negative', written in another way" in answer.stderr
