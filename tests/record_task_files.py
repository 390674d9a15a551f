"""Small tasks of every kind as tables, and records of them, of ours and of others."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from crossdistil.core.app.record_commands import Kind, RecordFormat, export_records
from crossdistil.core.data.records import ofrecord, tfrecord
from crossdistil.tests import tiny

FORMATS = [RecordFormat.tfrecord, RecordFormat.ofrecord]
ROWS = [("[CLS] the film was good [SEP]", 1, 1), ("[CLS] a dull plot [SEP]", 0, 1), ("[CLS] [SEP]", 0, 0)]
"""Of each record its tokens, its label, and whether it is a real example."""


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


def export(described, data, vocabulary, out, format, max_length=16):
    """Records of a task of `write_tables`."""
    columns = {key: described[key] for key in ("text", "label") if key in described}
    kind = Kind(described["kind"]) if "kind" in described else None
    export_records(described["name"], data, vocabulary, out, format, max_length, kind, **columns)


def run_classifier_file(path, rows, write):
    """A file of records of 16 tokens, as run_classifier.py of BERT makes them; `write` is one of the two below."""
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
    """Records of TensorFlow."""
    tfrecord.write_records(path, map(tfrecord.make_example, rows))


def write_of(path, rows):
    """Records of OneFlow."""
    ofrecord.write_records(path, map(ofrecord.make_record, rows))


@pytest.fixture(scope="session")
def vocabulary(tmp_path_factory):
    """A vocabulary file."""
    return tiny.write_vocabulary(tmp_path_factory.mktemp("records") / "vocabulary")


@pytest.fixture(scope="session")
def tables(tmp_path_factory):
    """A folder with tables of tasks, and what they are."""
    folder = tmp_path_factory.mktemp("tables")
    return folder, write_tables(folder)
