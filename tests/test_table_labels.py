"""Labels as people write them in tables: stripped, written in two ways, unknown to train, or none."""

from __future__ import annotations

import json

import pytest

from crossdistil.core.errors import DataError
from crossdistil.tests.test_tables import write
from crossdistil.tests.test_tasks import plain, read


def labelled(folder, labels, name="train.jsonl"):
    write(folder, "".join(json.dumps({"text": "a", "label": label}) + "\n" for label in labels), name)


def test_labels_are_stripped(tmp_path):
    labelled(tmp_path, ["good", " good ", "bad\u3000", "bad"])
    assert read(plain(tmp_path)).labels.tolist() == [1, 1, 0, 0]
    assert read(plain(tmp_path, labels=[" bad", "good"])).labels.tolist() == [1, 1, 0, 0]


@pytest.mark.parametrize(
    "pair", [("Good", "good"), ("1", "\uff11"), ("a\u200bb", "ab"), ("STRASSE", "straße"), (1, "1.0"), (True, "True")]
)
def test_labels_that_look_the_same_are_refused(tmp_path, pair):
    labelled(tmp_path, ["x", *pair])
    with pytest.raises(DataError, match=r"train\.jsonl: labels that look like the same class.*\(line [23]\).*\(line [23]\)"):
        read(plain(tmp_path))
    names = [json.dumps(name) if not isinstance(name, str) else name for name in ("x", *pair)]
    assert read(plain(tmp_path, labels=names)).labels.tolist() == [0, 1, 2]  # who names both means both


def test_labels_that_train_lacks(tmp_path):
    labelled(tmp_path, ["good", "bad"])
    labelled(tmp_path, ["good", "fine", "GOOD", "fine"], "dev.jsonl")
    with pytest.raises(DataError) as raised:
        read(plain(tmp_path), "dev")
    for part in ("dev.jsonl:2: got label 'fine'", "train.jsonl has no such label", "nor are 'GOOD'", "3 rows", "task.labels"):
        assert part in str(raised.value)
    labelled(tmp_path, ["GOOD"], "dev.jsonl")
    with pytest.raises(DataError, match="looks like 'good', written in another way"):
        read(plain(tmp_path), "dev")


def test_rows_without_a_label_are_left_out_where_told(tmp_path):
    labelled(tmp_path, ["a", "-", "b", None, "", " - "])
    with pytest.raises(DataError, match=r"train\.jsonl:4: 'label' is null, expected a label; task\.skip_labels"):
        read(plain(tmp_path))
    examples = read(plain(tmp_path, skip_labels=("-", "null", "")))
    assert examples.labels.tolist() == [0, 1] and examples.line_numbers.tolist() == [1, 3] and len(examples.texts) == 2
    assert examples.notes == ("train.jsonl: 4 rows are left out for task.skip_labels ('-', 'null', '')",)
    with pytest.raises(DataError, match="every row has a label of task.skip_labels"):
        read(plain(tmp_path, labels=["x", "y"], skip_labels=("a", "b", "-", "null", "")))


def test_half_a_surrogate_pair_in_a_label(tmp_path):
    write(tmp_path, '{"text": "a", "label": "x"}\n{"text": "b", "label": "\\ud800"}\n', "train.jsonl")
    with pytest.raises(DataError, match=r'train\.jsonl:2: label "\\ud800" holds half a surrogate pair'):
        read(plain(tmp_path))
