"""Tables as people have them: other encodings, separators, quoting and headers, broken rows. Each is read as its writer meant it,
or is one clear line."""

from __future__ import annotations

import csv
import io
import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from crossdistil.core.data.table_rows import TableFormat
from crossdistil.core.data.tables import read_columns
from crossdistil.core.data.task_specs import GLUE_TASKS
from crossdistil.core.data.texts import Texts
from crossdistil.core.errors import DataError
from crossdistil.core.job import prepare
from crossdistil.core.recipe import parse_recipe
from crossdistil.tests import tiny
from crossdistil.tests.test_tasks import Section, plain, read

ROWS = "text{0}label\nfilm{0}0\nplot{0}1\n"


def write(folder, content, name="train.tsv", encoding="utf-8"):
    (folder / name).write_bytes(content if isinstance(content, bytes) else content.encode(encoding))


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-32"])
@pytest.mark.parametrize("name, separator", [("train.tsv", "\t"), ("train.csv", ",")])
def test_a_byte_order_mark_is_obeyed(tmp_path, encoding, name, separator):
    write(tmp_path, ROWS.format(separator).replace("film", "très 好"), name, encoding)
    examples = read(plain(tmp_path))
    assert list(examples.texts) == ["très 好", "plot"] and examples.labels.tolist() == [0, 1]
    assert len(examples.notes) == (encoding != "utf-8-sig")  # what is not UTF-8 is told


@pytest.mark.parametrize("name", ["train.jsonl", "train.json"])
def test_a_byte_order_mark_before_json(tmp_path, name):
    write(tmp_path, '{"text": "a", "label": 0}\n{"text": "b", "label": 1}\n', name, "utf-8-sig")
    assert read(plain(tmp_path)).texts == ["a", "b"]


@pytest.mark.parametrize("name, separator", [("train.tsv", "\t"), ("train.csv", ",")])
def test_the_error_of_an_encoding_says_which_it_is(tmp_path, name, separator):
    write(tmp_path, ROWS.format(separator).replace("plot", "很好看的电影"), name, "gbk")
    with pytest.raises(DataError, match=rf"{name}:3: not UTF-8 \(byte 0xba\).*reads? as GB18030: task\.encoding: gb18030"):
        read(plain(tmp_path))
    assert read(plain(tmp_path, encoding="gb18030")).texts == ["film", "很好看的电影"]
    write(tmp_path, ROWS.format(separator).replace("plot", "trop né "), name, "cp1252")
    with pytest.raises(DataError, match=r"task\.encoding: cp1252"):
        read(plain(tmp_path))


def test_nul_characters_are_told(tmp_path):
    write(tmp_path, ROWS.format("\t"), encoding="utf-16-le")
    with pytest.raises(DataError, match=r"train\.tsv:1: holds a NUL.*task\.encoding: utf-16-le"):
        read(plain(tmp_path))
    assert read(plain(tmp_path, encoding="utf-16-le")).texts == ["film", "plot"]


@pytest.mark.parametrize("separator", [",", ";", "\t", "|"])
@pytest.mark.parametrize("name", ["train.csv", "train.tsv"])
def test_the_separator_is_that_which_gives_the_columns(tmp_path, name, separator):
    write(tmp_path, ROWS.format(separator), name)
    examples = read(plain(tmp_path))
    assert examples.texts == ["film", "plot"]
    assert bool(examples.notes) == (separator != {"csv": ",", "tsv": "\t"}[name[-3:]])
    write(tmp_path, ROWS.format(separator).partition("\n")[2], name)
    columns = {"header": False, "columns": ["text", "label"]}
    assert read(plain(tmp_path, separator=separator, **columns)).texts == ["film", "plot"]


def test_what_excel_writes(tmp_path):
    write(tmp_path, 'sep=;\r\n"Text ";LABEL;;\r\n"a; ""b""\r\nc";0;;\r\n;;;\r\nd;1;;\r\n', "train.csv", "utf-8-sig")
    examples = read(plain(tmp_path))
    assert examples.texts == ['a; "b"\r\nc', "d"] and examples.labels.tolist() == [0, 1]
    assert examples.line_numbers.tolist() == [3, 6]


def test_line_ends_of_old_macintoshes(tmp_path):
    write(tmp_path, ROWS.format("\t").replace("\n", "\r"))
    with pytest.raises(DataError, match=r"train\.tsv:1: lines end with \\r alone"):
        read(plain(tmp_path))
    (tmp_path / "train.tsv").unlink()
    write(tmp_path, ROWS.format(",").replace("\n", "\r"), "train.csv")
    assert read(plain(tmp_path)).texts == ["film", "plot"]


CELL = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0\ufeff"), max_size=8)


@settings(max_examples=150, deadline=None, database=None)
@given(
    rows=st.lists(st.tuples(CELL, CELL), min_size=1, max_size=6),
    end=st.sampled_from(["\n", "\r\n"]),
    sep=st.sampled_from(",;\t"),
)
def test_csv_is_what_pythons_module_writes_and_reads(tmp_path_factory, rows, end, sep):
    file = io.StringIO(newline="")
    csv.writer(file, delimiter=sep, lineterminator=end).writerows([("text", "id"), *rows])
    path = tmp_path_factory.getbasetemp() / "any.csv"
    path.write_bytes(file.getvalue().encode())
    expected = [row for row in csv.reader(io.StringIO(file.getvalue(), newline=""), delimiter=sep)][1:]
    expected = [row for row in expected if any(row)]
    if not expected or any(len(row) != 2 for row in expected):  # a lone \r, which the writer does not quote
        return
    found = read_columns(path, ["text", "id"], texts=["text"], format=TableFormat(separator=sep))
    assert [list(row) for row in zip(found.cells["text"], found.cells["id"])] == expected


def test_quoting_of_tsv_is_a_setting(tmp_path):
    quoted = 'text\tlabel\n"say ""so"""\t0\n"two\nlines"\t1\n'
    write(tmp_path, quoted)
    with pytest.raises(
        DataError, match=r"train\.tsv:3: got 1 columns, expected 2, where cells are quoted as in CSV: task\.quoting: csv"
    ):
        read(plain(tmp_path))
    assert read(plain(tmp_path, quoting="csv")).texts == ['say "so"', "two\nlines"]
    write(tmp_path, quoted.replace("\nlines", ""))
    (note,) = read(plain(tmp_path)).notes
    assert "1 texts look quoted as in CSV" in note and "task.quoting: csv" in note
    write(tmp_path, 'text,label\n"a,0\nb",1\n', "train.csv")
    (tmp_path / "train.tsv").unlink()
    assert read(plain(tmp_path, quoting="none")).texts == ['"a', 'b"']


def test_a_text_may_be_longer_than_pythons_limit(tmp_path):
    write(tmp_path, f"text,label\n{'a ' * 100_000},0\nb,1\n", "train.csv")
    assert len(read(plain(tmp_path)).texts[0]) == 200_000


def test_a_header_may_have_other_capitals_and_spaces(tmp_path):
    write(tmp_path, "\ufeff Text \tLabel\na\t0\nb\t1\n")
    assert read(plain(tmp_path)).texts == ["a", "b"]
    write(tmp_path, '{"Text": "a", "LABEL": 0}\n{"Text": "b", "LABEL": 1}\n', "train.jsonl")
    (tmp_path / "train.tsv").unlink()
    assert read(plain(tmp_path)).texts == ["a", "b"]
    (tmp_path / "train.jsonl").unlink()
    write(tmp_path, "Text\ttext \tlabel\na\tb\t0\n")
    with pytest.raises(DataError, match="2 columns are named 'TEXT'"):
        read(plain(tmp_path, text="TEXT", labels=["0", "1"]))


def test_a_file_without_a_header(tmp_path):
    write(tmp_path, "film\t0\nplot\t1\n")
    with pytest.raises(DataError, match=r"no column.*task\.header: false and task\.columns: \[\.\.\.\], the names"):
        read(plain(tmp_path))
    assert read(plain(tmp_path, header=False, columns=["text", "label"])).texts == ["film", "plot"]
    write(tmp_path, ROWS.format("\t"))
    with pytest.raises(DataError, match=r"train\.tsv:1: is a header line.*task\.header: true"):
        read(plain(tmp_path, header=False, columns=["text", "label"]))
    write(tmp_path, "sentence\tlabel\nfilm\t0\nplot\t1\n")  # CoLA's own files have none
    assert read(Section("cola", tmp_path, header=True)).texts == ["film", "plot"]
    with pytest.raises(DataError, match=r"holds no rows that can be read: all 3 are bad \(got 2 columns, expected 4\)"):
        read(Section("cola", tmp_path))


def test_blank_lines_are_no_rows(tmp_path):
    write(tmp_path, "text\tlabel\n\na\t0\n   \n\t\nb\t1\n\n\n")
    examples = read(plain(tmp_path))
    assert examples.texts == ["a", "b"] and examples.line_numbers.tolist() == [3, 6]


def test_a_json_file_is_lines_or_an_array(tmp_path):
    write(tmp_path, '{"text": "a", "label": 0}\n\n{"text": "b", "label": 1}\n', "train.json")
    assert read(plain(tmp_path)).line_numbers.tolist() == [1, 3]
    rows = [{"text": "a]", "label": 0}, {"label": 1, "text": "b,"}]
    for indent in (None, 2):
        write(tmp_path, "\n" + json.dumps(rows, indent=indent) + "\n", "train.json")
        assert read(plain(tmp_path)).texts == ["a]", "b,"]
    assert read(plain(tmp_path)).line_numbers.tolist() == [3, 7]
    for bad, message in {
        json.dumps({"text": "a"}, indent=1): "train.json:1: not JSON.*expected one object a line or an array",
        "[]": "holds no rows",
        "[1]": "got int, expected a JSON object",
        '[{"text": "a", "label": 0} {}]': "expected , or ]",
        "[" * 100_000: "train.json:1: the JSON is nested too deep",
    }.items():
        write(tmp_path, bad, "train.json")
        with pytest.raises(DataError, match=message):
            read(plain(tmp_path))


BROKEN = "id\tqid1\tqid2\tquestion1\tquestion2\tis_duplicate\n0\t1\t2\ta\tb\t0\n9\t1\t2\thalf\n\tof it\t1\n1\t1\t2\tc\td\t1\n"


def test_broken_rows_of_glue_are_left_out_and_counted(tmp_path):
    write(tmp_path, BROKEN)
    examples = read(Section("qqp", tmp_path))
    assert list(examples.texts) == ["a", "c"] and list(examples.pairs) == ["b", "d"]
    assert examples.line_numbers.tolist() == [2, 5] and examples.labels.tolist() == [0, 1]
    assert examples.notes == (
        "train.tsv: 2 rows that cannot be read are left out of 4: line 3, 4 (got 4 columns, expected 6)",
    )
    with pytest.raises(DataError, match=r"train\.tsv:3: got 4 columns, expected 6; task\.bad_rows: skip leaves"):
        read(Section("qqp", tmp_path, bad_rows="error"))
    own = plain(tmp_path, text="question1", text_pair="question2", label="is_duplicate")
    with pytest.raises(DataError, match=r"train\.tsv:3: got 4 columns"):
        read(own)
    own.bad_rows = "skip"
    assert read(own).texts == ["a", "c"]


BAD_ROWS = {
    "train.tsv": (b"text\tlabel\na\t0\nx\0\t1\nx\nb\t1\n", 2),
    "train.csv": (b'text,label\na,0\n"x"y,1\nx,1,2\nb,1\n', 2),
    "train.jsonl": (
        b'{"text": "a", "label": 0}\n{\n[]\n{"text": 1, "label": 1}\n{"text": "\\ud800", "label": 1}\n'
        b'{"text": "b", "label": 1}\n',
        4,
    ),
    "train.json": (b'[{"text": "a", "label": 0}, 7, {"text": "x"}, {"text": "b", "label": 1}]', 2),
}  # fmt: skip


@pytest.mark.parametrize("name", BAD_ROWS)
def test_bad_rows_of_every_kind(tmp_path, name):
    content, count = BAD_ROWS[name]
    write(tmp_path, content, name)
    with pytest.raises(DataError, match=r"task\.bad_rows: skip"):
        read(plain(tmp_path))
    examples = read(plain(tmp_path, bad_rows="skip"))
    assert examples.texts == ["a", "b"] and f": {count} row" in examples.notes[0]
    write(tmp_path, b'text,label\na,0\n"x,1\nb,1\n', "train.csv")
    (tmp_path / name).unlink() if name != "train.csv" else None
    with pytest.raises(DataError, match="train.csv:3: malformed CSV: a quotation mark is never closed"):
        read(plain(tmp_path, bad_rows="skip"))  # all that follows would be one bad row


def test_a_key_that_stands_twice_in_a_row(tmp_path):
    write(tmp_path, '{"text": "a", "label": "x"}\n{"text": "b", "text": "c", "label": "y"}\n', "train.jsonl")
    with pytest.raises(DataError, match=r"train\.jsonl:2: 'text' is there twice"):
        read(plain(tmp_path))


def recipe(data, model, **task):
    tree = tiny.kd_recipe(data, model)
    tree["task"] = {"name": "mine", "data": str(data), "text": "text", "label": "label", "max_length": 16, **task}
    return parse_recipe(tree, "test")


def test_what_is_missing_is_told_together(tmp_path):
    tiny.write_model(tmp_path / "model")
    data = tmp_path / "data"

    def message(path=data, **task):
        with pytest.raises(Exception) as raised:
            prepare(recipe(path, tmp_path / "model", **task), "test", 1)
        return str(raised.value)

    assert message() == f"task.data: {data}: no such folder"
    data.mkdir()
    write(data, "text\tscore\na\t0\n")
    lines = message().split("\n")
    assert len(lines) == 2
    keys = "task.text, task.text_pair and task.label name the task's columns"
    assert f"train.tsv: no column 'label'; the columns are text, score; {keys}" in lines[0]
    assert "has no file for the split 'dev' (dev.tsv, dev.csv, dev.jsonl, dev.json, dev.parquet, " in lines[1]
    assert "or task.files.dev)" in lines[1]
    assert message(data / "train.tsv").startswith(f"task.data: {data / 'train.tsv'}: is a file, expected the folder")
    write(data, "a,b\n", "dev.csv")
    assert message(name="sst-2", text=None, label=None).count("\n") == 1


def test_new_keys_leave_old_digests_as_they_were(tmp_path):
    """Of this recipe, as the first version that could resume made it: SHA-256 of all its keys as JSON."""
    import hashlib

    made = recipe(tmp_path, tmp_path / "model")
    old = made.resolved()
    for key in ("notes", "description"):
        del old[key]
    [stage], [old_stage] = made.stages, old["stages"]
    sections = [(made.task, old["task"]), (made.student.init, old["student"]["init"]), (stage.train, old_stage["train"])]
    sections += [(made.teacher, old["teacher"]), (made.teacher_cache, old["teacher_cache"])]
    sections += zip(stage.objective, old_stage["objective"])
    for section, tree in sections:
        for key in getattr(type(section), "newer", ()):
            del tree[key]
    assert made.digest() == hashlib.sha256(json.dumps(old, sort_keys=True).encode()).hexdigest()
    assert recipe(tmp_path, tmp_path / "model", skip_labels=["-"]).digest() != made.digest()


def test_texts_in_one_buffer():
    texts = Texts(["a", "", "好", "😀 b"])
    assert texts == ["a", "", "好", "😀 b"] and texts != ["a"] and texts[-1] == "😀 b" and texts[1:3] == ["", "好"]
    assert texts + ["c"] == ["a", "", "好", "😀 b", "c"] and len(texts) == 4
    with pytest.raises(IndexError):
        texts[4]


def test_official_files_have_their_defaults():
    assert {spec.name for spec in GLUE_TASKS.values() if spec.header is not None} == {"cola"}
    assert np.all([not spec.skip_labels for spec in GLUE_TASKS.values()])
