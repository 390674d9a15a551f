"""Names from files that become paths."""

import json

import pytest

from crossdistil.converters.model_files import open_shards
from crossdistil.converters.tensorflow_files import find_index
from crossdistil.core.checksums import changed_files
from crossdistil.core.data.records.record_note import read_note
from crossdistil.core.errors import CheckpointError, DataError
from crossdistil.core.models.families.bert import BertConfig
from crossdistil.core.plain_names import is_plain_name, is_plain_path

HARMLESS = ["train", "model-00001-of-00002.safetensors", "a b", "模型.ckpt", "x" * 200]
HARMFUL = [
    "", ".", "..", ".hidden", "a/b", "/a", "../a", "a\\b", "C:a", "a\0", "a\n", "\x1b[2J", "a\u202eb", "\ud800", " a", "x" * 201,
    3, None, ["a"],
]  # fmt: skip


@pytest.mark.parametrize("name", HARMLESS)
def test_plain_names(name):
    assert is_plain_name(name) and is_plain_path(f"{name}/{name}")


@pytest.mark.parametrize("name", HARMFUL)
def test_all_others(name):
    assert not is_plain_name(name)
    if isinstance(name, str) and name != "a/b":
        assert not is_plain_path(f"a/{name}")


NAMES = ["../../TRAVERSED", "/etc/passwd", "..", ".bashrc", "a\\b"]


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("place", ["split", "file"])
def test_splits_and_files_of_record_folders(tmp_path, name, place):
    split = {"file": name if place == "file" else "a", "rows": 1, "labelled": True, "bytes": 1, "crc32c": "00000000"}
    cleaning = dict.fromkeys(("lower_case", "strip_accents", "split_chinese"))
    note = {
        "format": "tfrecord", "task": "t", "kind": "classification", "labels": ["a", "b"], "text": "t", "text_pair": None,
        "label": "l", "max_length": 8, "vocabulary": {"size": 3, "sha256": "", **cleaning},
        "splits": {name if place == "split" else "train": split},
    }  # fmt: skip
    (tmp_path / "records.json").write_text(json.dumps(note))
    with pytest.raises(DataError, match=r"records\.json: splits.*expected the plain name of a file"):
        read_note(tmp_path)


@pytest.mark.parametrize("name", NAMES)
def test_files_of_an_index(tmp_path, name):
    index = tmp_path / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": {"a": name}}))
    with pytest.raises(CheckpointError, match="a has no name of a file beside the index"):
        open_shards(index, lambda path: pytest.fail(f"{path} is opened"))


@pytest.mark.parametrize("name", ["../elsewhere/model", "/etc/model", "..\\elsewhere\\model"])
def test_the_state_of_a_tensorflow_checkpoint_leads_nowhere_else(tmp_path, name):
    for folder in ("elsewhere", "here"):
        (tmp_path / folder).mkdir()
    (tmp_path / "elsewhere/model.index").write_bytes(b"")
    (tmp_path / "here/checkpoint").write_text(f'model_checkpoint_path: "{name}"')
    with pytest.raises(CheckpointError, match="whose .index is missing in the folder"):
        find_index(tmp_path / "here")


def test_noted_checksums_of_files_elsewhere(tmp_path):
    assert changed_files(tmp_path, {"../a": {}, "/etc/passwd": {}}) == [
        f"{name}: is no name of a file in the folder" for name in ("'../a'", "'/etc/passwd'")
    ]


@pytest.mark.parametrize(("key", "value"), [("num_hidden_layers", 2**31), ("vocab_size", 2**40), ("hidden_size", 12 * 2**40)])
def test_sizes_that_no_model_has(key, value):
    with pytest.raises(ValueError, match=f"{key} is {value}, which no model has"):
        BertConfig(**{key: value})
