"""A task as record files and back: the same tokens and labels, the same training, and everything that does not fit refused."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

from crossdistil.core.app.record_commands import Kind, RecordFormat, Target, export_records, import_records
from crossdistil.core.app.run import RunOptions, execute
from crossdistil.core.data import ofrecord, tfrecord
from crossdistil.core.data.tasks import read_split, resolve_task
from crossdistil.core.data.tokenize import load_tokenizer, tokenized
from crossdistil.core.engine import EngineOptions
from crossdistil.core.errors import CrossdistilError, DataError
from crossdistil.core.recipe import parse_recipe
from crossdistil.core.sections import TaskSection
from crossdistil.tests import tiny

FORMATS = [RecordFormat.tfrecord, RecordFormat.ofrecord]
NAMES = {RecordFormat.tfrecord: "{}.tfrecord", RecordFormat.ofrecord: "{}.of_record-0"}


@pytest.fixture(scope="session")
def vocabulary(tmp_path_factory):
    return tiny.write_vocabulary(tmp_path_factory.mktemp("records") / "vocabulary")


def write_tables(folder: Path) -> dict[str, dict]:
    """A task of every kind; of each what a recipe says of it."""
    texts, labels = tiny.sentences(12, 1)
    pairs, _ = tiny.sentences(12, 2)

    def write(name, header, rows, splits=("train", "dev")):
        (folder / name).mkdir(parents=True)
        for split in splits:
            lines = ["\t".join(map(str, row)) for row in ([header] if header else []) + rows]
            (folder / name / f"{split}.tsv").write_text("\n".join(lines) + "\n", encoding="utf-8")

    write("sst-2", ["sentence", "label"], list(zip(texts, labels)), ("train", "dev"))
    lines = "".join(f"{index}\t{text}\n" for index, text in enumerate(pairs))
    (folder / "sst-2" / "test.tsv").write_text(f"index\tsentence\n{lines}")
    write("cola", None, [("x", label, "", text) for text, label in zip(texts, labels)])
    write("rte", ["index", "sentence1", "sentence2", "label"], [
        (index, text, pair, "not_entailment" if label else "entailment")
        for index, (text, pair, label) in enumerate(zip(texts, pairs, labels))
    ])  # fmt: skip
    write("sts-b", ["sentence1", "sentence2", "score"], [(text, pair, index / 3) for index, (text, pair) in enumerate(
        zip(texts, pairs))])  # fmt: skip
    write("mine", ["body", "tags"], [(text, "|".join("ab"[: index % 3])) for index, text in enumerate(texts)])
    return {
        **{name: {"name": name} for name in ("sst-2", "cola", "rte", "sts-b")},
        "mine": {"name": "mine", "text": "body", "label": "tags", "kind": "multi_label"},
    }


@pytest.fixture(scope="session")
def tables(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tables")
    return folder, write_tables(folder)


def export(described, data, vocabulary, out, format, max_length=16):
    columns = {key: described[key] for key in ("text", "label") if key in described}
    kind = Kind(described["kind"]) if "kind" in described else None
    export_records(described["name"], data, vocabulary, out, format, max_length, kind, **columns)


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
    _, features = next(ofrecord.read_features(tmp_path / "records" / "train.of_record-0"))
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

def run_classifier_file(path, rows, write):
    path.parent.mkdir(parents=True, exist_ok=True)
    made = []
    for words, label, real in rows:
        ids = [tiny.VOCABULARY.index(word) for word in words.split()]
        numbers = {
            "input_ids": ids + [0] * (16 - len(ids)),
            "input_mask": [1] * len(ids) + [0] * (16 - len(ids)),
            "segment_ids": [0] * 16,
            "label_ids": [label],
            "is_real_example": [real],
        }
        made.append({name: np.array(values, np.int32) for name, values in numbers.items()})
    write(path, made)


def write_tf(path, rows):
    tfrecord.write_records(path, map(tfrecord.make_example, rows))


def write_of(path, rows):
    ofrecord.write_records(path, map(ofrecord.make_record, rows))


ROWS = [("[CLS] the film was good [SEP]", 1, 1), ("[CLS] a dull plot [SEP]", 0, 1), ("[CLS] [SEP]", 0, 0)]


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
    assert resolve_task(TaskSection(name="mine", data=scores)).kind == "regression"
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
    with pytest.raises(DataError, match=r"records\.json: Invalid JSON"):
        resolve_task(TaskSection(name="sst-2", data=data))


# ---------------------------------------------------------------------------------------------- training, MindSpore, commands

def losses(data, teacher, backend_name, device, out, **more):
    tree = tiny.kd_recipe(data, teacher, steps=None, epochs=2, log_every=1, dropout=0.0)
    options = RunOptions(backend_name, EngineOptions(device), out)
    result = execute(parse_recipe(tree | more, "test"), "test", options, Console(quiet=True))
    lines = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    return [line["loss"] for line in lines if "loss" in line], result["student"]["metrics"]


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


def test_the_commands(cli, tables, vocabulary, tmp_path):
    folder, _ = tables
    arguments = ["data", "export", "--task", "rte", "--data", folder / "rte", "--tokenizer", vocabulary, "--max-length", "16"]
    output = cli(*arguments, "--out", tmp_path / "records", "--format", "ofrecord")
    assert "train.of_record-0: 12 rows of " in output and "entailment: " in output
    output = cli("data", "import", tmp_path / "records", "--out", tmp_path / "texts", "--tokenizer", vocabulary, "--to", "texts")
    assert "train.tsv: 12 of 12 rows give the same tokens again" in output
    errors = cli("data", "export", "--task", "mine", "--data", folder / "mine", "--tokenizer", vocabulary,
                 "--out", tmp_path / "no", code=2)  # fmt: skip
    assert errors.startswith("crossdistil: error: --text: needed, because 'mine' is not a GLUE task")
    assert len(errors.splitlines()) == 1
