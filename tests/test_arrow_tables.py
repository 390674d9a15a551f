"""Parquet, Arrow and Feather files and saved datasets, written by pyarrow, against the same rows as JSON lines."""

from __future__ import annotations

import json

import numpy as np
import pyarrow
import pyarrow.feather
import pyarrow.parquet
import pytest

from crossdistil.core import extras
from crossdistil.core.data import arrow_tables
from crossdistil.core.data.tables import column_names, read_columns
from crossdistil.core.data.tasks import read_split, resolve_task
from crossdistil.core.errors import BackendError, DataError
from crossdistil.core.task_section import TaskSection

ROWS = [{"text": f"text {number}\n\"ü\u2028", "label": ("no", "yes")[number % 2], "id": number} for number in range(25)]


def table(rows=ROWS, classes=False):
    found = pyarrow.Table.from_pylist(rows)
    if not classes:
        return found
    column = pyarrow.array([("no", "yes").index(row["label"]) for row in rows], pyarrow.int64())
    features = {"label": {"names": ["no", "yes"], "_type": "ClassLabel"}, "text": {"dtype": "string", "_type": "Value"}}
    found = found.set_column(1, "label", column)
    return found.replace_schema_metadata({"huggingface": json.dumps({"info": {"features": features}})})


def stream(path, found, chunk=7):
    """As `datasets` writes: Arrow's stream format."""
    with pyarrow.OSFile(str(path), "wb") as sink, pyarrow.ipc.new_stream(sink, found.schema) as writer:
        for batch in found.to_batches(max_chunksize=chunk):
            writer.write_batch(batch)


def saved(folder, found):
    """The layout of `Dataset.save_to_disk` with two shards."""
    folder.mkdir(parents=True)
    names = []
    for number, part in enumerate((found.slice(0, 10), found.slice(10))):
        names.append({"filename": f"data-{number:05d}-of-00002.arrow"})
        stream(folder / names[-1]["filename"], part)
    (folder / "state.json").write_text(json.dumps({"_data_files": names, "_split": folder.name}))
    (folder / "dataset_info.json").write_text("{}")


def write(folder, kind):
    """A folder with train and dev of this kind."""
    folder.mkdir()
    for split, rows in (("train", ROWS), ("dev", ROWS[:5])):
        if kind == "parquet":
            pyarrow.parquet.write_table(table(rows), folder / f"{split}.parquet", row_group_size=4)
        elif kind == "feather":
            pyarrow.feather.write_feather(table(rows), folder / f"{split}.feather", chunksize=6)
        elif kind == "arrow":
            stream(folder / f"{split}.arrow", table(rows))
        elif kind == "hub":
            (folder / "data").mkdir(exist_ok=True)
            name = "validation" if split == "dev" else split
            for number, part in enumerate((rows[:3], rows[3:])):
                pyarrow.parquet.write_table(table(part, True), folder / "data" / f"{name}-{number:05d}-of-00002.parquet")
        else:
            saved(folder / ("validation" if split == "dev" else split), table(rows, True))
    (folder / "dataset_dict.json").write_text('{"splits": ["train", "validation"]}')
    return folder


@pytest.mark.parametrize("kind", ["parquet", "feather", "arrow", "hub", "saved"])
def test_a_task_of_each_kind_reads_as_its_json_lines(tmp_path, kind):
    folder, lines = write(tmp_path / "data", kind), tmp_path / "lines"
    lines.mkdir()
    for split, rows in (("train", ROWS), ("dev", ROWS[:5])):
        (lines / f"{split}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    specs = [resolve_task(TaskSection(name="t", data=each, text="text", label="label")) for each in (folder, lines)]
    assert specs[0].labels == specs[1].labels == ("no", "yes")
    for split in ("train", "dev"):
        found, expected = (read_split(spec, each, split) for spec, each in zip(specs, (folder, lines)))
        assert list(found.texts) == list(expected.texts)
        np.testing.assert_array_equal(found.labels, expected.labels)
        np.testing.assert_array_equal(found.line_numbers, expected.line_numbers)


def test_lists_of_classes_have_their_names(tmp_path):
    found = pyarrow.table({"text": ["a", "b", "c"], "label": [[1, 0], [], [1]]})
    feature = {"feature": {"names": ["joy", "fear"], "_type": "ClassLabel"}, "_type": "Sequence"}
    metadata = {"huggingface": json.dumps({"info": {"features": {"label": feature}}})}
    pyarrow.parquet.write_table(found.replace_schema_metadata(metadata), tmp_path / "train.parquet")
    section = TaskSection(name="t", data=tmp_path, kind="multi_label", text="text", label="label")
    spec = resolve_task(section)
    assert spec.labels == ("fear", "joy") and read_split(spec, tmp_path, "train").labels.tolist() == [[1, 1], [0, 0], [1, 0]]


def test_only_the_columns_asked_for_are_read_and_a_batch_at_a_time(tmp_path, monkeypatch):
    path, asked = tmp_path / "a.parquet", []
    pyarrow.parquet.write_table(table(), path, row_group_size=4)
    batches = arrow_tables._batches
    monkeypatch.setattr(
        arrow_tables, "_batches", lambda *given: (asked.append((b.num_rows, b.schema.names)) or b for b in batches(*given))
    )
    assert len(read_columns(path, ["text"], texts=["text"]).cells["text"]) == 25
    assert {tuple(names) for _, names in asked} == {("text",)} and max(rows for rows, _ in asked) <= 25
    assert column_names(path) == ["text", "label", "id"]


def test_what_is_wrong_is_told_with_the_row(tmp_path):
    rows = [*ROWS[:2], {"text": None, "label": "no", "id": 1}]
    pyarrow.parquet.write_table(table(rows), tmp_path / "null.parquet")
    with pytest.raises(DataError, match=r"null\.parquet:3: 'text' is null, expected a text"):
        read_columns(tmp_path / "null.parquet", ["text"], texts=["text"])
    with pytest.raises(DataError, match="no column 'txt'; did you mean 'text'"):
        read_columns(tmp_path / "null.parquet", ["txt"])
    pyarrow.parquet.write_table(pyarrow.table({"text": [b"bytes"]}), tmp_path / "bytes.parquet")
    with pytest.raises(DataError, match="column 'text': is of binary, expected text"):
        read_columns(tmp_path / "bytes.parquet", ["text"])
    pyarrow.parquet.write_table(table().slice(0, 0), tmp_path / "empty.parquet")
    with pytest.raises(DataError, match="holds no rows"):
        read_columns(tmp_path / "empty.parquet", ["text"])


@pytest.mark.parametrize("end", [".parquet", ".arrow", ".feather"])
@pytest.mark.parametrize("content", [b"", b"PAR1 and more", b"ARROW1\0\0 and more"])
def test_damaged_files_are_one_line(tmp_path, end, content):
    path = tmp_path / f"a{end}"
    path.write_bytes(content)
    with pytest.raises(DataError, match=rf"a\{end}: cannot be read as"):
        read_columns(path, ["text"])


def test_without_pyarrow_it_says_how_to_install_it(tmp_path, monkeypatch):
    (tmp_path / "a.parquet").touch()
    monkeypatch.setattr(extras.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(BackendError, match=r"a\.parquet: needs pyarrow in .*: pip install 'crossdistil\[data\]'"):
        read_columns(tmp_path / "a.parquet", ["text"])


def test_a_saved_folder_whose_state_leads_elsewhere(tmp_path):
    saved(tmp_path / "train", table())
    (tmp_path / "train" / "state.json").write_text(json.dumps({"_data_files": [{"filename": "../a.arrow"}]}))
    with pytest.raises(DataError, match="expected names of files beside it"):
        read_columns(tmp_path / "train", ["text"])
