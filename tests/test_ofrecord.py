"""OFRecord files: what OneFlow wrote is read, OneFlow reads what is written, and no damage gets through as another error."""

from __future__ import annotations

import struct

import numpy as np
import pytest

from crossdistil.core.data.records.ofrecord import make_record, parse_record, read_records, write_records
from crossdistil.core.data.records.task_records import record_features
from crossdistil.core.errors import DataError

RECORD = {
    "texts": ["the film — é".encode(), b""],
    "floats": np.array([0.5, -2.0], np.float32),
    "doubles": np.array([1e300, -1.0], np.float64),
    "ints": np.array([0, 127, 128, -1, 2**31 - 1, -(2**31)], np.int32),
    "longs": np.array([2**62, -(2**63)], np.int64),
}


def same(found, expected):
    assert sorted(found) == sorted(expected)
    for name, values in expected.items():
        if isinstance(values, list):
            assert found[name] == values
        else:
            assert found[name].dtype == values.dtype
            np.testing.assert_array_equal(found[name], values)


def test_every_kind_comes_back(tmp_path):
    path = tmp_path / "part-0"
    write_records(path, [make_record(RECORD), make_record({}), make_record({"ids": np.arange(300, dtype=np.int32)})])
    (_, first), (place, second), (_, third) = record_features([path], "ofrecord")
    same(first, RECORD)
    assert second == {} and place == f"{path}: the record at byte {8 + len(make_record(RECORD))}"
    same(third, {"ids": np.arange(300, dtype=np.int32)})


def test_the_bytes_by_hand(tmp_path):
    path = tmp_path / "part-0"
    write_records(path, [make_record({"a": np.array([3, 300, -1], np.int32)})])
    numbers = b"\x03\xac\x02" + b"\xff" * 9 + b"\x01"
    feature = b"\x22" + bytes([len(numbers) + 2]) + b"\x0a" + bytes([len(numbers)]) + numbers
    entry = b"\x0a\x01a\x12" + bytes([len(feature)]) + feature
    data = b"\x0a" + bytes([len(entry)]) + entry
    assert path.read_bytes() == struct.pack("<q", len(data)) + data


def test_numbers_may_be_packed_or_not():
    def record(kind, content):
        feature = bytes([kind << 3 | 2, len(content)]) + content
        entry = b"\x0a\x01a\x12" + bytes([len(feature)]) + feature
        return parse_record(b"\x0a" + bytes([len(entry)]) + entry)["a"].tolist()

    assert record(4, b"\x08\x03\x08\xac\x02\x08" + b"\xff" * 9 + b"\x01") == [3, 300, -1]
    assert record(2, b"\x0d" + struct.pack("<f", 1.5) + b"\x0a\x04" + struct.pack("<f", -2.0)) == [1.5, -2.0]
    assert record(3, b"\x09" + struct.pack("<d", 1.5)) == [1.5]


def test_any_missing_end_is_found(tmp_path):
    path = tmp_path / "part-0"
    write_records(path, [make_record(RECORD)] * 2)
    whole, half = path.read_bytes(), path.stat().st_size // 2
    for size in range(1, len(whole)):
        path.write_bytes(whole[:size])
        if size == half:
            assert len(list(read_records(path))) == 1
            continue
        with pytest.raises(DataError, match=rf"part-0: .*the record at byte {half if size > half else 0} (is cut|has a leng)"):
            list(read_records(path))


WRONG = {
    "a length below 0": (struct.pack("<q", -1), r"is no OFRecord file, or damaged: the record at byte 0 has a length of -1 by"),
    "a length beyond": (struct.pack("<q", 1 << 60) + b"abc", "has a length of 1,152,921,504,606,846,976 bytes, but 3 are th"),
    "text": (b"the film was good, and the plot\n", "is no OFRecord file, or damaged"),
    "another field": (struct.pack("<q", 2) + b"\x10\x01", "the record at byte 0: is damaged or no ofrecord: it has a field 2"),
    "another list": (struct.pack("<q", 9) + b"\x0a\x07\x0a\x01a\x12\x02\x32\x00", "a feature has a field 6"),
    "two names": (struct.pack("<q", 14) + b"\x0a\x05\x0a\x01a\x12\x00" * 2, "the feature 'a' is there twice"),
    "no name": (struct.pack("<q", 7) + b"\x0a\x05\x0a\x01\xff\x12\x00", "a feature's name is not UTF-8"),
    "33 bits": (
        struct.pack("<q", 19) + b"\x0a\x11\x0a\x01a\x12\x0c\x22\x0a\x0a\x08\x80\x80\x80\x80\x10\x01\x01\x01",
        "a number has more than 32 bits",
    ),
}


@pytest.mark.parametrize("case", WRONG)
def test_what_is_wrong_is_named(tmp_path, case):
    content, message = WRONG[case]
    (tmp_path / "part-0").write_bytes(content)
    with pytest.raises(DataError, match=rf"part-0: .*{message}"):
        list(record_features([tmp_path / "part-0"], "ofrecord"))


def test_five_thousand_damaged_files(tmp_path):
    """Each is read, or refused with the file and the record's place; anything else fails here."""
    path = tmp_path / "part-0"
    write_records(path, [make_record(RECORD), make_record({"input_ids": np.arange(128, dtype=np.int32)})])
    whole, generator, refused = path.read_bytes(), np.random.default_rng(0), 0
    for _ in range(5000):
        changed = bytearray(whole)
        for place in generator.integers(len(whole), size=generator.integers(1, 4)):
            changed[place] = generator.integers(256)
        if generator.random() < 0.3:
            start, end = sorted(generator.integers(len(changed), size=2))
            del changed[start:end]
        path.write_bytes(changed)
        try:
            list(record_features([path], "ofrecord"))
        except DataError as error:
            refused += 1
            assert str(error).startswith(f"{path}: ") and "record at byte " in str(error)
    assert 2000 < refused < 5000


# ---------------------------------------------------------------------------------------------- OneFlow's own word

@pytest.mark.only_backend("oneflow")
def test_oneflow_parses_what_is_written_and_writes_what_is_read():
    from oneflow.core.record import record_pb2

    theirs = record_pb2.OFRecord()
    kinds = {"texts": "bytes", "floats": "float", "doubles": "double", "ints": "int32", "longs": "int64"}
    for name, kind in kinds.items():
        values = RECORD[name] if kind == "bytes" else RECORD[name].tolist()
        getattr(theirs.feature[name], f"{kind}_list").value.extend(values)
    same(parse_record(theirs.SerializeToString()), RECORD)
    found = record_pb2.OFRecord.FromString(make_record(RECORD))
    assert found == theirs


@pytest.mark.only_backend("oneflow")
def test_oneflow_reads_the_files(tmp_path):
    import oneflow as flow

    ids = np.arange(48, dtype=np.int32).reshape(6, 8) * 700 - 3
    scores = np.linspace(-1, 1, 6).astype(np.float32)
    rows = ({"input_ids": row, "score": score[None]} for row, score in zip(ids, scores))
    write_records(tmp_path / "train.of_record-0", map(make_record, rows))
    reader = flow.nn.OFRecordReader(
        str(tmp_path), batch_size=3, data_part_num=1, part_name_prefix="train.of_record-", random_shuffle=False
    )
    decoders = flow.nn.OFRecordRawDecoder("input_ids", (8,), flow.int32), flow.nn.OFRecordRawDecoder("score", (1,), flow.float32)
    for start in (0, 3):
        batch = reader()
        np.testing.assert_array_equal(decoders[0](batch).numpy(), ids[start : start + 3])
        np.testing.assert_array_equal(decoders[1](batch).numpy()[:, 0], scores[start : start + 3])
