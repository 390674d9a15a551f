"""A task as record files and back: the same tokens and labels, and the same training."""

from __future__ import annotations

import json

import numpy as np
import pytest
from rich.console import Console

from crossdistil.core.app.record_commands import RecordFormat, Target, import_records
from crossdistil.core.app.run import RunOptions, execute
from crossdistil.core.data.records.task_records import record_features
from crossdistil.core.data.tasks import read_split, resolve_task
from crossdistil.core.data.tokenize import load_tokenizer, tokenized
from crossdistil.core.engine import EngineOptions
from crossdistil.core.errors import CrossdistilError, DataError
from crossdistil.core.recipe import parse_recipe
from crossdistil.core.task_section import TaskSection
from crossdistil.tests import tiny
from crossdistil.tests.record_task_files import FORMATS, ROWS, export, run_classifier_file, tables, vocabulary, write_of, write_tf

__all__ = ["tables", "vocabulary"]


def assert_same(described, data, other, tokenizer, splits=("train", "dev"), **changes):
    """Two folders are one task: the same tokens and labels."""
    ours, theirs = (TaskSection(**{**described, "data": folder, "max_length": 16, **more}) for folder, more in (
        (data, {}), (other, changes)))  # fmt: skip
    specs = resolve_task(ours), resolve_task(theirs)
    assert [(spec.labels, spec.kind, spec.metrics) for spec in specs[:1]] == [
        (spec.labels, spec.kind, spec.metrics) for spec in specs[1:]
    ]
    for split in splits:
        first, second = (read_split(spec, section.data, split) for spec, section in zip(specs, (ours, theirs)))
        np.testing.assert_array_equal(first.labels, second.labels)
        assert (None if first.labels is None else first.labels.dtype) == (None if second.labels is None else second.labels.dtype)
        one, two = tokenized(first, tokenizer, 16), tokenized(second, tokenizer, 16)
        for name in ("ids", "offsets", "first_lengths"):
            np.testing.assert_array_equal(getattr(one, name), getattr(two, name))
            assert getattr(one, name).dtype == getattr(two, name).dtype
        assert (one.pad_id, one.apart, len(first)) == (two.pad_id, two.apart, len(second))


@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.parametrize("name", ["sst-2", "cola", "rte", "sts-b", "mine"])
def test_records_are_what_the_texts_are(tables, vocabulary, tmp_path, format, name):
    folder, described = tables
    tokenizer = load_tokenizer(vocabulary)
    export(described[name], folder / name, vocabulary, tmp_path / "records", format)
    splits = ("train", "dev", "test") if name == "sst-2" else ("train", "dev")
    for _ in range(2):  # the second time from the cache
        assert_same(described[name], folder / name, tmp_path / "records", tokenizer, splits)
    # Its columns and labels need not be said again.
    assert_same(described[name], folder / name, tmp_path / "records", tokenizer, text=None, label=None, kind=None)
    import_records(tmp_path / "records", tmp_path / "texts", vocabulary, Target.texts)
    assert_same(described[name], folder / name, tmp_path / "texts", tokenizer, splits)


def test_a_second_export_is_the_same_and_adds_nothing(tables, vocabulary, tmp_path):
    folder, described = tables

    def contents():
        return {path.name: path.read_bytes() for path in (tmp_path / "records").iterdir()}

    export(described["sst-2"], folder / "sst-2", vocabulary, tmp_path / "records", RecordFormat.ofrecord)
    first = contents()
    export(described["sst-2"], folder / "sst-2", vocabulary, tmp_path / "records", RecordFormat.ofrecord)
    assert contents() == first and len(first) == 4
    export(described["sst-2"], folder / "sst-2", vocabulary, tmp_path / "records", RecordFormat.tfrecord)
    assert sorted(contents()) == ["dev.tfrecord", "records.json", "test.tfrecord", "train.tfrecord"]
    with pytest.raises(CrossdistilError, match="is a folder that is not empty"):
        export(described["sst-2"], folder / "sst-2", vocabulary, folder / "sst-2", RecordFormat.tfrecord)
    # Records are a task like another: exported once more, in another format.
    export(described["sst-2"], tmp_path / "records", vocabulary, tmp_path / "again", RecordFormat.ofrecord)
    assert {path.name: path.read_bytes() for path in (tmp_path / "again").iterdir()} == first
    with pytest.raises(CrossdistilError, match="is the folder of --data"):
        export(described["sst-2"], tmp_path / "again", vocabulary, tmp_path / "again", RecordFormat.tfrecord)


def test_the_features_are_those_of_run_classifier(tables, vocabulary, tmp_path):
    folder, described = tables
    export(described["rte"], folder / "rte", vocabulary, tmp_path / "records", RecordFormat.ofrecord)
    _, features = next(record_features([tmp_path / "records" / "train.of_record-0"], "ofrecord"))
    assert {name: (len(values), values.dtype) for name, values in features.items()} == {
        **{name: (16, np.int32) for name in ("input_ids", "input_mask", "segment_ids")},
        **{name: (1, np.int32) for name in ("label_ids", "is_real_example")},
    }
    length = int(features["input_mask"].sum())
    tokens = [tiny.VOCABULARY[token] for token in features["input_ids"]]
    assert tokens[0] == "[CLS]" and tokens[length - 1] == "[SEP]" and set(tokens[length:]) <= {"[PAD]"}
    first = tokens.index("[SEP]") + 1
    assert features["segment_ids"].tolist() == [0] * first + [1] * (length - first) + [0] * (16 - length)


# ---------------------------------------------------------------------------------------------- records of others


@pytest.mark.parametrize("kind", ["tensorflow", "oneflow"])
def test_records_without_a_note(vocabulary, tmp_path, kind):
    files, write = {
        "tensorflow": (("train.tf_record", "eval.tf_record", "predict.tf_record"), write_tf),
        "oneflow": (("train/train.of_record-0", "eval/eval.of_record-0", "test/predict.of_record-0"), write_of),
    }[kind]
    for name, rows in zip(files, (ROWS, ROWS, [(words, 0, real) for words, _, real in ROWS])):
        run_classifier_file(tmp_path / "theirs" / name, rows, write)
    import_records(tmp_path / "theirs", tmp_path / "ours", vocabulary, Target.ofrecord, "sst-2")
    import_records(tmp_path / "theirs", tmp_path / "named", vocabulary, Target.tfrecord, "mine", "bad,good")
    import_records(tmp_path / "theirs", tmp_path / "texts", vocabulary, Target.texts, "SST-2")
    assert (tmp_path / "texts" / "train.tsv").read_text() == "sentence\tlabel\nthe film was good\t1\na dull plot\t0\n"
    assert (tmp_path / "texts" / "test.tsv").read_text() == "sentence\nthe film was good\na dull plot\n"
    note = json.loads((tmp_path / "ours" / "records.json").read_text())
    assert {split: (found["rows"], found["labelled"]) for split, found in note["splits"].items()} == {
        "train": (2, True), "dev": (2, True), "test": (2, False),
    }  # fmt: skip
    assert_same({"name": "sst-2"}, tmp_path / "texts", tmp_path / "ours", load_tokenizer(vocabulary), ("train", "dev", "test"))
    section = TaskSection(name="mine", data=tmp_path / "named", max_length=16)
    assert resolve_task(section).labels == ("bad", "good")


# ---------------------------------------------------------------------------------------------- training, MindSpore, commands


def losses(data, teacher, backend_name, device, out, **more):
    tree = tiny.kd_recipe(data, teacher, steps=None, epochs=2, log_every=1, dropout=0.0)
    options = RunOptions(backend_name, EngineOptions(device), out)
    result = execute(parse_recipe(tree | more, "test"), "test", options, Console(quiet=True))
    lines = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    return [line["loss"] for line in lines if "loss" in line], result["student"]["metrics"]


@pytest.mark.only_backend("torch", "oneflow")
def test_training_on_records_is_training_on_the_texts(tiny_task, tiny_model, tmp_path, backend_name, pytestconfig):
    device = pytestconfig.getoption("--device")
    expected = losses(tiny_task, tiny_model, backend_name, device, tmp_path / "texts-run")
    assert len(expected[0]) == 12
    for format in FORMATS:
        export({"name": "sst-2"}, tiny_task, tiny_model, tmp_path / format.value, format)
        assert losses(tmp_path / format.value, tiny_model, backend_name, device, tmp_path / f"{format.value}-run") == expected
    with pytest.raises(CrossdistilError, match=r"task\.data: .* holds records of tokens; only texts can be mixed"):
        losses(tmp_path / "tfrecord", tiny_model, backend_name, device, tmp_path / "no",
               aux_data=[{"name": "sst-2", "data": str(tiny_task)}])  # fmt: skip
    with pytest.raises(CrossdistilError, match="student: a BiLSTM needs texts, but .* holds records of tokens"):
        losses(tmp_path / "tfrecord", tiny_model, backend_name, device, tmp_path / "no",
               student={"architecture": {"model_type": "bilstm"}})  # fmt: skip


@pytest.mark.only_backend("mindspore")
@pytest.mark.parametrize("name", ["rte", "sts-b", "mine"])
def test_mindrecord_and_back(tables, vocabulary, tmp_path, name):
    folder, described = tables
    export(described[name], folder / name, vocabulary, tmp_path / "mindrecord", RecordFormat.mindrecord)
    import_records(tmp_path / "mindrecord", tmp_path / "tfrecord", vocabulary, Target.tfrecord)
    assert_same(described[name], folder / name, tmp_path / "tfrecord", load_tokenizer(vocabulary))
    spec = resolve_task(TaskSection(name=name, data=tmp_path / "mindrecord"))
    with pytest.raises(DataError, match=r"train\.mindrecord: only MindSpore reads MindRecord; make another format of it"):
        read_split(spec, tmp_path / "mindrecord", "train")


@pytest.mark.only_backend("mindspore")
def test_mindspore_reads_the_files(tables, vocabulary, tmp_path):
    from mindspore.dataset import MindDataset, TFRecordDataset

    folder, described = tables
    export(described["rte"], folder / "rte", vocabulary, tmp_path / "mindrecord", RecordFormat.mindrecord)
    export(described["rte"], folder / "rte", vocabulary, tmp_path / "tfrecord", RecordFormat.tfrecord)
    mine = MindDataset(str(tmp_path / "mindrecord" / "train.mindrecord"), shuffle=False)
    theirs = TFRecordDataset(str(tmp_path / "tfrecord" / "train.tfrecord"), shuffle=False)
    pairs = list(zip(*(data.create_dict_iterator(num_epochs=1, output_numpy=True) for data in (mine, theirs)), strict=True))
    assert len(pairs) == 12
    for first, second in pairs:
        assert sorted(first) == sorted(second)
        for key in first:
            np.testing.assert_array_equal(first[key], second[key])


@pytest.mark.only_backend("oneflow")
def test_oneflow_reads_the_files(tables, vocabulary, tmp_path):
    import oneflow as flow

    folder, described = tables
    export(described["rte"], folder / "rte", vocabulary, tmp_path / "records", RecordFormat.ofrecord)
    spec = resolve_task(TaskSection(name="rte", data=tmp_path / "records", max_length=16))
    examples = read_split(spec, tmp_path / "records", "train")
    batch = flow.nn.OFRecordReader(str(tmp_path / "records"), 12, 1, part_name_prefix="train.of_record-")()
    sums = flow.nn.OFRecordRawDecoder("input_mask", (16,), flow.int32)(batch).numpy().sum(axis=1)
    np.testing.assert_array_equal(sums, examples.tokens.table.lengths)
    labels = flow.nn.OFRecordRawDecoder("label_ids", (1,), flow.int32)(batch).numpy()[:, 0]
    np.testing.assert_array_equal(labels, examples.labels)


def test_the_commands(cli_here, tables, vocabulary, tmp_path):
    folder, _ = tables
    arguments = ["data", "export", "--task", "rte", "--data", folder / "rte", "--tokenizer", vocabulary, "--max-length", "16"]
    output = cli_here(*arguments, "--out", tmp_path / "records", "--format", "ofrecord")
    assert "train.of_record-0: 12 rows of " in output and "entailment: " in output
    to = ["--out", tmp_path / "texts", "--to", "texts"]
    output = cli_here("data", "import", tmp_path / "records", "--tokenizer", vocabulary, *to)
    assert "train.tsv: 12 of 12 rows give the same tokens again" in output
    errors = cli_here("data", "export", "--task", "mine", "--data", folder / "mine", "--tokenizer", vocabulary,
                 "--out", tmp_path / "no", code=2)  # fmt: skip
    assert errors.startswith("crossdistil: error: --text: needed, because 'mine' is not a GLUE task")
    assert len(errors.splitlines()) == 1
