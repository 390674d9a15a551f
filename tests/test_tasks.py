"""Task files: GLUE's official layouts, plain tables, and errors that say where to look."""

from __future__ import annotations

import csv
import json
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest

from crossdistil.core.data.tasks import read_split, resolve_task
from crossdistil.core.errors import DataError

# From the official archive's files: the header of train.tsv, a row of it, and what must be read from that row.
OFFICIAL = {
    "sst-2": ("sentence\tlabel", "a fine film \t1", ("a fine film ", None, 1)),
    "mrpc": (
        "Quality\t#1 ID\t#2 ID\t#1 String\t#2 String",
        '1\t702876\t702977\tAmrozi called him " the witness " .\tHe was " the witness " .',
        ('Amrozi called him " the witness " .', 'He was " the witness " .', 1),
    ),
    "qqp": ("id\tqid1\tqid2\tquestion1\tquestion2\tis_duplicate", "1\t2\t3\tWhy?\tHow?\t0", ("Why?", "How?", 0)),
    "sts-b": (
        "index\tgenre\tfilename\tyear\told_index\tsource1\tsource2\tsentence1\tsentence2\tscore",
        "0\tmain\tMSRvid\t2012\t0001\tnone\tnone\tA plane.\tAn air plane.\t4.250",
        ("A plane.", "An air plane.", 4.25),
    ),
    "mnli": (
        "index\tpromptID\tpairID\tgenre\tsentence1_binary_parse\tsentence2_binary_parse\tsentence1_parse\t"
        "sentence2_parse\tsentence1\tsentence2\tlabel1\tgold_label",
        "0\t1\t1n\tslate\t( a )\t( b )\t(A)\t(B)\tPremise.\tHypothesis.\tneutral\tcontradiction",
        ("Premise.", "Hypothesis.", 2),
    ),
    "qnli": ("index\tquestion\tsentence\tlabel", "0\tWho?\tShe did.\tnot_entailment", ("Who?", "She did.", 1)),
    "rte": ("index\tsentence1\tsentence2\tlabel", "0\tIt rains.\tIt pours.\tentailment", ("It rains.", "It pours.", 0)),
    "wnli": ("index\tsentence1\tsentence2\tlabel", "0\tHe fell.\tHe rose.\t0", ("He fell.", "He rose.", 0)),
}


@dataclass
class Section:
    name: str
    data: Path
    text: str | None = None
    text_pair: str | None = None
    label: str | None = None
    labels: list[str] | None = None
    kind: str | None = None
    files: dict[str, str] = field(default_factory=dict)
    metrics: list[str] | None = None
    header: bool | None = None
    columns: list[str] | None = None
    encoding: str | None = None
    separator: str | None = None
    quoting: str | None = None
    bad_rows: str | None = None
    skip_labels: tuple[str, ...] = ()


def plain(folder: Path, **changes) -> Section:
    return Section(**{"name": "reviews", "data": folder, "text": "text", "label": "label", **changes})


def read(section: Section, split: str = "train"):
    return read_split(resolve_task(section), section.data, split)


@pytest.mark.parametrize("name", OFFICIAL)
def test_official_layout(tmp_path, name):
    header, row, (text, pair, label) = OFFICIAL[name]
    (tmp_path / "train.tsv").write_text(f"{header}\n{row}\n", encoding="utf-8")
    examples = read(Section(name.upper().replace("-", ""), tmp_path))
    assert examples.texts == [text]
    assert examples.pairs == (None if pair is None else [pair])
    assert examples.labels.tolist() == [label]
    assert examples.labels.dtype == (np.float32 if name == "sts-b" else np.int32)
    assert examples.line_numbers.tolist() == [2]


def test_cola_has_a_header_in_test_only(tmp_path):
    (tmp_path / "train.tsv").write_text("gj04\t1\t\tThe first row counts.\ngj04\t0\t*\tRow this not.\n")
    (tmp_path / "test.tsv").write_text("index\tsentence\n0\tBill whistled.\n")
    train, test = read(Section("CoLA", tmp_path)), read(Section("CoLA", tmp_path), "test")
    assert train.texts == ["The first row counts.", "Row this not."]
    assert train.labels.tolist() == [1, 0]
    assert (test.texts, test.labels) == (["Bill whistled."], None)


@pytest.mark.parametrize(
    "name, metrics",
    [("cola", ["matthews"]), ("qqp", ["accuracy", "f1"]), ("STS-B", ["pearson", "spearman"]), ("mnli", ["accuracy"])],
)
def test_official_metrics(tmp_path, name, metrics):
    assert list(resolve_task(Section(name, tmp_path)).metrics) == metrics


def test_mnli_evaluates_on_matched_and_mismatched(tmp_path):
    header = "sentence1\tsentence2\tgold_label\n"
    for kind in ("matched", "mismatched"):
        (tmp_path / f"dev_{kind}.tsv").write_text(f"{header}{kind}\tb\tneutral\n")
    assert read(Section("mnli", tmp_path), "dev").texts == ["matched"]
    assert read(Section("mnli", tmp_path), "dev_mismatched").texts == ["mismatched"]


def test_recipe_may_replace_official_defaults(tmp_path):
    (tmp_path / "small.tsv").write_text("review\tlabel\nfine\tgood\n")
    changes = {"text": "review", "labels": ["bad", "good"], "files": {"train": "small.tsv"}, "metrics": ["f1"]}
    section = Section("sst-2", tmp_path, **changes)
    assert read(section).labels.tolist() == [1]
    assert resolve_task(section).metrics == ("f1",)


def test_tsv_is_not_csv(tmp_path):
    """Quotes are text, and only \\n ends a line: neither U+2028, U+0085 nor a form feed does."""
    texts = ['an "open quote', '"', "a\u2028b\u0085c\x0cd\x1ce", " kept as it is "]
    content = "\ufefftext\tlabel\r\n" + "".join(f"{text}\t{row % 2}\r\n" for row, text in enumerate(texts)) + "\r\n"
    (tmp_path / "train.tsv").write_bytes(content.encode("utf-8"))
    examples = read(plain(tmp_path))
    assert examples.texts == texts
    assert examples.line_numbers.tolist() == [2, 3, 4, 5]


def test_last_line_needs_no_newline(tmp_path):
    (tmp_path / "train.tsv").write_text("text\tlabel\na\t0\nb\t1")
    assert read(plain(tmp_path)).texts == ["a", "b"]


def test_csv_and_jsonl_hold_the_same_examples(tmp_path):
    rows = [("plain", "yes"), ('with "quotes", commas', "no"), ("two\nlines", "yes"), ("", "no")]
    for kind in ("csv", "jsonl"):
        (tmp_path / kind).mkdir()
    with open(tmp_path / "csv" / "train.csv", "w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([("text", "label"), *rows])
    with open(tmp_path / "jsonl" / "train.jsonl", "w", encoding="utf-8") as file:
        file.writelines(json.dumps({"label": label, "id": 7, "text": text}) + "\n" for text, label in rows)
    from_csv, from_json = read(plain(tmp_path / "csv")), read(plain(tmp_path / "jsonl"))
    assert from_csv.texts == from_json.texts == [text for text, _ in rows]
    assert from_csv.labels.tolist() == from_json.labels.tolist() == [1, 0, 1, 0]  # "no" sorts before "yes"
    assert from_csv.line_numbers.tolist() == [2, 3, 4, 6]  # the third text takes two lines
    assert from_json.line_numbers.tolist() == [1, 2, 3, 4]


def test_labels_of_train_sort_as_numbers_when_they_are(tmp_path):
    (tmp_path / "train.jsonl").write_text("".join(f'{{"text": "a", "label": {n}}}\n' for n in (10, 9, -1, 10)))
    assert resolve_task(plain(tmp_path)).labels == ("-1", "9", "10")
    assert read(plain(tmp_path)).labels.tolist() == [2, 1, 0, 2]


def test_plain_regression_and_labelled_test_split(tmp_path):
    (tmp_path / "test.csv").write_text("text,label\na,1.5\nb,-2\n")
    examples = read(plain(tmp_path, kind="regression"), "test")
    assert examples.labels.dtype == np.float32 and examples.labels.tolist() == [1.5, -2.0]


BAD_FILES = {
    "few columns": ("train.tsv", b"text\tlabel\na\t0\nb\n", r"train\.tsv:3: got 1 columns, expected 2"),
    "many columns": ("train.csv", b"text,label\na,0,1\n", r"train\.csv:2: got 3 columns, expected 2"),
    "column": ("train.tsv", b"txet\tlabel\na\t0\n", r"no column 'text'; did you mean 'txet'\? .*txet, label"),
    "twice": ("train.tsv", b"text\ttext\tlabel\na\tb\t0\n", r"2 columns are named 'text'"),
    "label": ("train.tsv", b"text\tlabel\na\t2\n", r"train\.tsv:2: got label '2', expected one of '0', '1'"),
    "no label": ("train.tsv", b"text\tlabel\na\t\n", r"train\.tsv:2: 'label' is \"\""),
    "encoding": ("train.tsv", b"text\tlabel\nok\t0\n\xff\t0\n", r"train\.tsv:3: not UTF-8 \(byte 0xff\)"),
    "empty": ("train.tsv", b"", r"train\.tsv: is empty"),
    "no rows": ("train.tsv", b"text\tlabel\n", r"train\.tsv: holds no rows"),
    "open quote": ("train.csv", b'text,label\na,0\n"b,1\nc,0\n', r"train\.csv:3: malformed CSV"),
    "json": ("train.jsonl", b'{"text": "a", "label": 0}\n{"text"\n', r"train\.jsonl:2: not JSON"),
    "json list": ("train.jsonl", b"[1]\n", r"train\.jsonl:1: got list, expected a JSON object"),
    "json key": ("train.jsonl", b'{"text": "a", "label": 0}\n{"text": "b"}\n', r"train\.jsonl:2: no column 'label'"),
    "json text": ("train.jsonl", b'{"text": 1, "label": 0}\n', r"train\.jsonl:1: 'text' is 1, expected a text"),
    "surrogate": ("train.jsonl", b'{"text": "\\ud800", "label": 0}\n', r"train\.jsonl:1: 'text' holds half"),
    "json null": ("train.jsonl", b'{"text": "a", "label": null}\n', r"train\.jsonl:1: 'label' is null, expected a label"),
}


@pytest.mark.parametrize("case", BAD_FILES)
def test_bad_file_is_named_with_its_line(tmp_path, case):
    name, content, message = BAD_FILES[case]
    (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError, match=message) as raised:
        read(plain(tmp_path, labels=["0", "1"]))
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize("score", ["high", "nan", "inf", ""])
def test_bad_score(tmp_path, score):
    (tmp_path / "train.tsv").write_text(f"text\tlabel\na\t1\nb\t{score}\n")
    with pytest.raises(DataError, match=rf"train\.tsv:3: got score '{score}' in 'label'"):
        read(plain(tmp_path, kind="regression"))


def test_missing_file_lists_what_the_folder_has(tmp_path):
    (tmp_path / "dev.tsv").write_text("sentence\tlabel\na\t0\n")
    with pytest.raises(DataError, match=r"train\.tsv: no such file; the folder holds dev\.tsv"):
        read(Section("sst-2", tmp_path))
    with pytest.raises(DataError, match=r"task\.data: .*nowhere: no such folder"):
        read(Section("sst-2", tmp_path / "nowhere"))
    with pytest.raises(DataError, match=r"task\.data: .*dev\.tsv: is a file, expected the folder"):
        read(Section("sst-2", tmp_path / "dev.tsv"))
    with pytest.raises(DataError, match=r"no file for the split 'test' .*; the folder holds dev\.tsv"):
        read(plain(tmp_path, labels=["0", "1"]), "test")


BAD_SECTIONS = {
    "misspelled": ({"name": "sst-3", "text": None}, r"task\.text: needed.*'sst-3'.*did you mean 'sst-2'"),
    "label column": ({"label": None}, r"task\.label: needed"),
    "kind": ({"name": "sst-2", "kind": "regression"}, r"task\.kind: 'sst-2' is a classification task"),
    "one label": ({"labels": ["a"]}, r"task\.labels: expected two or more different labels, got 'a'"),
    "same label": ({"labels": ["a", "a"]}, r"task\.labels"),
    "regression labels": ({"kind": "regression", "labels": ["a", "b"]}, r"task\.labels: a regression task"),
    "no train": ({"labels": None}, r"no file for the split 'train' \(train\.tsv, .*task\.files\.train\); the folder is empty"),
    "half": ({"labels": ["a", "\ud800"]}, r"task\.labels: '\\ud800' holds half a surrogate pair"),
    "header": ({"header": False}, r"task\.columns: needed with header: false"),
    "metric": ({"labels": ["a", "b"], "metrics": ["acuracy"]}, r"'acuracy'.*did you mean 'accuracy'"),
    "metric kind": ({"name": "sts-b", "metrics": ["accuracy"]}, r"'accuracy' is no metric.*pearson, spearman"),
    "f1 of three": ({"labels": ["a", "b", "c"], "metrics": ["f1"]}, r"'f1' is no metric"),
    "no metric": ({"name": "sst-2", "metrics": []}, r"task\.metrics: expected one or more"),
}


@pytest.mark.parametrize("case", BAD_SECTIONS)
def test_bad_section_is_named_by_its_key(tmp_path, case):
    changes, message = BAD_SECTIONS[case]
    with pytest.raises(DataError, match=message):
        resolve_task(plain(tmp_path, **changes))


def test_two_files_for_a_split_are_not_chosen_between(tmp_path):
    for name in ("train.tsv", "train.csv"):
        (tmp_path / name).write_text("")
    with pytest.raises(DataError, match=r"task\.files\.train: needed, because .* holds train\.tsv and train\.csv"):
        resolve_task(plain(tmp_path))


def test_train_with_one_label_is_refused(tmp_path):
    (tmp_path / "train.tsv").write_text("text\tlabel\na\t0\nb\t0\n")
    with pytest.raises(DataError, match=r"train\.tsv: every row has the label '0'"):
        resolve_task(plain(tmp_path))
