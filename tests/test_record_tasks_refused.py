"""Records that do not fit the task, the model or their own note, or that are damaged, are refused."""

from __future__ import annotations

import json

import numpy as np
import pytest

from crossdistil.core.app.record_commands import RecordFormat, Target, import_records
from crossdistil.core.data.tasks import read_split, resolve_task
from crossdistil.core.data.tokenize import load_tokenizer, tokenized
from crossdistil.core.errors import CrossdistilError, DataError
from crossdistil.core.task_section import TaskSection
from crossdistil.tests import tiny
from crossdistil.tests.record_task_files import FORMATS, ROWS, export, run_classifier_file, tables, vocabulary, write_tf

__all__ = ["tables", "vocabulary"]

NAMES = {RecordFormat.tfrecord: "{}.tfrecord", RecordFormat.ofrecord: "{}.of_record-0"}


# ---------------------------------------------------------------------------------------------- records of others


def test_what_is_wrong_with_such_records(vocabulary, tmp_path):
    number = 0

    def refused(rows, message, task="sst-2", labels=None, tokenizer=vocabulary):
        nonlocal number
        number += 1
        folder = tmp_path / str(number)
        run_classifier_file(folder / "train.tf_record", rows, write_tf)
        with pytest.raises(CrossdistilError, match=message):
            import_records(folder, tmp_path / "out", tokenizer, Target.tfrecord, task, labels)
        assert not (tmp_path / "out").exists()

    wrong = [ROWS[0], ("[CLS] a dull plot [SEP]", 2, 1)]
    refused(wrong, r"train\.tf_record: the record at byte \d+: label_ids has 2, expected 0 to 1")
    refused([("the film [SEP]", 1, 1)], r"row 1 is 'the film \[SEP\]', expected \[CLS\] text \[SEP\]: another vocabulary")
    refused(ROWS, r"row 1 is .*, expected \[CLS\] text \[SEP\] pair \[SEP\]", "rte")
    refused(ROWS, "--task: needed, because .* has no records.json", None)
    refused(ROWS, "--labels: expected two or more different ones", "mine")
    refused(ROWS, "--labels: 'sst-2' is a GLUE task", "sst-2", "a,b")
    refused(ROWS, "--tokenizer: needed to check the tokens", tokenizer=None)
    refused([ROWS[2]], "has 0 records, expected one or more")
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="holds no train, dev or test records; the folder is empty"):
        import_records(tmp_path / "empty", tmp_path / "out", vocabulary)


# ---------------------------------------------------------------------------------------------- what does not fit


@pytest.fixture
def records(tables, vocabulary, tmp_path):
    """`records(name, format)`: a folder of records of a task."""

    def make(name="sst-2", format=RecordFormat.ofrecord):
        folder, described = tables
        export(described[name], folder / name, vocabulary, tmp_path / f"records-{name}", format)
        return tmp_path / f"records-{name}"

    return make


def test_a_task_that_is_another_is_refused(records):
    data = records()
    for changes, message in (
        ({"name": "cola"}, r"task\.name: 'cola', but the records in .* are of 'sst-2'"),
        ({"name": "mine"}, r"task\.name: 'mine', but the records"),
        ({"labels": ("1", "0")}, r"task\.labels: '1', '0', but those of the records in .* are '0', '1', in this order"),
        ({"labels": ("0", "1", "2")}, r"task\.labels: '0', '1', '2', but"),
        ({"text": "body"}, r"task\.text: 'body', but the records in .* were made of 'sentence'"),
        ({"files": {"train": "a.tsv"}}, r"task\.files: .* holds records"),
    ):
        with pytest.raises(DataError, match=message):
            resolve_task(TaskSection(**{"name": "sst-2", "data": data, **changes}))
    scores = noted(records("sts-b"), task="mine")
    assert resolve_task(TaskSection(name="mine", data=scores)).kind.name == "regression"
    with pytest.raises(DataError, match=r"task\.kind: the records in .* are of a regression, not of a classification"):
        resolve_task(TaskSection(name="mine", data=scores, kind="classification"))


def noted(folder, **changes):
    """The folder with another note."""
    path = folder / "records.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))
    return folder


def other_vocabulary(folder, lines=None, **config):
    folder.mkdir()
    (folder / "vocab.txt").write_text("".join(f"{token}\n" for token in (lines or tiny.VOCABULARY)), encoding="utf-8")
    (folder / "tokenizer_config.json").write_text(json.dumps(config))
    return load_tokenizer(folder)


def test_a_model_that_takes_other_tokens_is_refused(records, vocabulary, tmp_path):
    data = records()
    section = TaskSection(name="sst-2", data=data)
    examples = read_split(resolve_task(section), data, "train")
    swapped = [*tiny.VOCABULARY[:-2], tiny.VOCABULARY[-1], tiny.VOCABULARY[-2]]
    for tokenizer, length, message in (
        (other_vocabulary(tmp_path / "a", [*tiny.VOCABULARY, "more"]), 16, "their vocabulary has 86 tokens, the tokenizer's 87"),
        (other_vocabulary(tmp_path / "b", swapped), 16, "their vocabulary of 86 tokens has other tokens, or another order"),
        (other_vocabulary(tmp_path / "c", do_lower_case=False), 16, "they are of lower_case true, the tokenizer is of "),
        (other_vocabulary(tmp_path / "d", tokenize_chinese_chars=False), 16, "they are of split_chinese true"),
        (load_tokenizer(vocabulary), 32, r"their texts were cut to 16 tokens, task\.max_length is 32"),
    ):
        with pytest.raises(DataError, match=rf"task\.data: .*train\.of_record-0: .*{message}"):
            tokenized(examples, tokenizer, length)


@pytest.mark.parametrize("format", FORMATS)
def test_any_changed_byte_and_any_missing_end_is_refused(tables, vocabulary, tmp_path, format):
    folder, described = tables
    data = tmp_path / "records"
    export(described["sst-2"], folder / "sst-2", vocabulary, data, format)
    spec, path = resolve_task(TaskSection(name="sst-2", data=data)), data / NAMES[format].format("train")
    whole, generator = path.read_bytes(), np.random.default_rng(0)
    for place in generator.choice(len(whole), 60, replace=False):
        changed = bytearray(whole)
        changed[place] ^= 1 << int(generator.integers(8))
        path.write_bytes(changed)
        with pytest.raises(DataError, match=rf"{path.name}: .*byte"):
            read_split(spec, data, "train")
    for size in (*generator.choice(len(whole), 20, replace=False), 0, len(whole) // 12):
        path.write_bytes(whole[:size])
        with pytest.raises(DataError, match=rf"{path.name}: .*byte"):
            read_split(spec, data, "train")
    with pytest.raises(DataError, match=rf"{path.name}: .*byte"):
        import_records(data, tmp_path / "out", vocabulary)
    path.unlink()
    with pytest.raises(DataError, match=rf"{path.name}: no such file, but records\.json names it"):
        read_split(spec, data, "train")


def test_a_damaged_note_is_refused(records):
    data = records()
    for changes, message in (
        ({"version": 2}, r"records\.json: version: "),
        ({"task": 3}, r"records\.json: task: Input should be a valid string"),
        ({"more": 3}, r"records\.json: more: "),
    ):
        before = (data / "records.json").read_bytes()
        with pytest.raises(DataError, match=message):
            resolve_task(TaskSection(name="sst-2", data=noted(data, **changes)))
        (data / "records.json").write_bytes(before)
    (data / "records.json").write_text("{")
    with pytest.raises(DataError, match=r"records\.json: is no JSON"):
        resolve_task(TaskSection(name="sst-2", data=data))
