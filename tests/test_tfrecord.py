"""TFRecord files: records written by TensorFlow, every kind of damage, and what the records of pre-training data mean."""

from __future__ import annotations

import struct

import google_crc32c
import numpy as np
import pytest

from crossdistil.core.data.corpus import read_corpus
from crossdistil.core.data.records.tfrecord import make_example, parse_example, read_records, write_records
from crossdistil.core.data.tokenize import load_tokenizer
from crossdistil.core.errors import DataError
from crossdistil.core.wire import masked_crc
from crossdistil.tests import tiny
from crossdistil.tests.test_corpus import expected_rows, rows_of

TENSORFLOW = bytes.fromhex(
    "da0000000000000010d77cd40ad7010a1a0a09696e7075745f696473120d1a0b0a090204ac0203070300000a1a0a0a696e7075745f6d61736b120c1a"
    "0a0a0801010101010100000a1a0a0d6d61736b65645f6c6d5f69647312091a070a0506a09c01000a1e0a136d61736b65645f6c6d5f706f736974696f"
    "6e7312071a050a030104000a250a116d61736b65645f6c6d5f776569676874731210120e0a0c0000803f0000803f000000000a1d0a146e6578745f73"
    "656e74656e63655f6c6162656c7312051a030a01010a1b0a0b7365676d656e745f696473120c1a0a0a0800000000010100009c217b9e530000000000"
    "00000d7d4e910a510a2a0a056c6162656c12211a1f0a1dffffffffffffffffff01808080808080808040808080808080808080010a230a0474657874"
    "121b0a190a0f7468652066696c6d20e2809420c3a90a066120706c6f741b9e6f75220000000000000078113dfd0a200a0b0a05656d70747912021a00"
    "0a110a0178120c120a0a080000003f000000c0935b0237"
)
"""Three records that tf.io.TFRecordWriter of TensorFlow 2.21.0 wrote."""

CLS, SEP, MASK = (tiny.VOCABULARY.index(token) for token in ("[CLS]", "[SEP]", "[MASK]"))
RECORD = {
    "input_ids": [CLS, 10, MASK, SEP, 12, 50, SEP, 0, 0],
    "input_mask": [1] * 7 + [0] * 2,
    "segment_ids": [0] * 4 + [1] * 3 + [0] * 2,
    "masked_lm_positions": [2, 5, 0],
    "masked_lm_ids": [11, 13, 0],
    "masked_lm_weights": [1.0, 1.0, 0.0],
    "next_sentence_labels": [1],
}


@pytest.fixture
def tokenizer(tmp_path):
    return load_tokenizer(tiny.write_vocabulary(tmp_path / "vocabulary"))


@pytest.fixture
def read(tokenizer, tmp_path):
    """`read(*records)`: the table of a file of these records, which are features or bytes."""

    def read(*records, max_length=16):
        write_records(tmp_path / "a.tfrecord", (data if isinstance(data, bytes) else make_example(data) for data in records))
        return read_corpus(tmp_path / "a.tfrecord", tokenizer, max_length, tmp_path / "cache")

    return read


# ---------------------------------------------------------------------------------------------- the format

def test_records_that_tensorflow_wrote(tmp_path):
    path = tmp_path / "a.tfrecord"
    path.write_bytes(TENSORFLOW)
    first, second, third = (parse_example(data) for _, data in read_records(path))
    assert first["input_ids"].tolist() == [2, 4, 300, 3, 7, 3, 0, 0]
    assert first["masked_lm_ids"].tolist() == [6, 20000, 0]
    assert first["masked_lm_weights"].tolist() == [1.0, 1.0, 0.0] and first["masked_lm_weights"].dtype == np.float32
    assert first["input_ids"].dtype == np.int64
    assert second["text"] == ["the film — é".encode(), b"a plot"]
    assert second["label"].tolist() == [-1, 2**62, -(2**63)]
    assert third["x"].tolist() == [0.5, -2.0] and len(third["empty"]) == 0
    # What is not asked for is named and not read.
    assert parse_example(next(read_records(path))[1], ["input_mask"])["input_ids"] is None


def test_what_is_written_is_what_tensorflow_writes(tmp_path):
    features = [
        {
            "input_ids": [2, 4, 300, 3, 7, 3, 0, 0],
            "input_mask": [1] * 6 + [0] * 2,
            "masked_lm_ids": [6, 20000, 0],
            "masked_lm_positions": [1, 4, 0],
            "masked_lm_weights": [1.0, 1.0, 0.0],
            "next_sentence_labels": [1],
            "segment_ids": [0] * 4 + [1] * 2 + [0] * 2,
        },
        {"label": [-1, 2**62, -(2**63)], "text": ["the film — é".encode(), b"a plot"]},
    ]
    path = tmp_path / "a.tfrecord"
    write_records(path, map(make_example, features))
    assert TENSORFLOW.startswith(path.read_bytes()) and path.stat().st_size > 200


def test_the_checksum_by_hand():
    assert google_crc32c.value(b"123456789") == 0xE3069283  # the check value of CRC-32C
    # 0xe3069283 rotated right by 15 is 0x2507c60d, and the constant is added.
    assert masked_crc(b"123456789") == 0x2507C60D + 0xA282EAD8


def test_numbers_may_be_packed_or_not():
    # Feature{int64_list{value: 3, value: 300, value: -1}} without packing: a tag before each number.
    plain = b"\x08\x03\x08\xac\x02\x08" + b"\xff" * 9 + b"\x01"
    feature = b"\x1a" + bytes([len(plain)]) + plain
    entry = b"\x0a\x01a\x12" + bytes([len(feature)]) + feature
    features = b"\x0a" + bytes([len(entry)]) + entry
    assert parse_example(b"\x0a" + bytes([len(features)]) + features)["a"].tolist() == [3, 300, -1]
    # Feature{float_list{value: 1.5, value: -2}} without packing
    plain = b"\x0d" + struct.pack("<f", 1.5) + b"\x0d" + struct.pack("<f", -2.0)
    feature = b"\x12" + bytes([len(plain)]) + plain
    entry = b"\x0a\x01b\x12" + bytes([len(feature)]) + feature
    features = b"\x0a" + bytes([len(entry)]) + entry
    assert parse_example(b"\x0a" + bytes([len(features)]) + features)["b"].tolist() == [1.5, -2.0]


def test_random_numbers_come_back():
    generator = np.random.default_rng(0)
    for count in (0, 1, 2, 1000):
        numbers = generator.integers(-(2**63), 2**63 - 1, count) >> generator.integers(0, 63, count)
        floats = generator.normal(size=max(count, 1)).astype(np.float32)
        found = parse_example(make_example({"a": numbers, "b": floats, "c": [b"", b"x" * count]}))
        assert found["a"].tolist() == numbers.tolist() and found["b"].tolist() == floats.tolist()
        assert found["c"] == [b"", b"x" * count]


# ---------------------------------------------------------------------------------------------- damage

@pytest.fixture
def two(tmp_path):
    """A file of two records, and where the second one begins."""
    path = tmp_path / "a.tfrecord"
    write_records(path, [make_example(RECORD), make_example(RECORD)])
    return path, path.stat().st_size // 2


def test_any_changed_bit_is_found(two):
    path, half = two
    whole = path.read_bytes()
    for place in range(len(whole)):
        changed = bytearray(whole)
        changed[place] ^= 1 << place % 8
        path.write_bytes(changed)
        with pytest.raises(DataError, match=rf"a\.tfrecord.*byte {half if place >= half else 0}\b"):
            list(read_records(path))


def test_any_missing_end_is_found(two):
    path, half = two
    whole = path.read_bytes()
    for size in range(1, len(whole)):
        path.write_bytes(whole[:size])
        if size == half:
            assert len(list(read_records(path))) == 1
            continue
        start = half if size > half else 0
        with pytest.raises(DataError, match=rf"a\.tfrecord: the record at byte {start} is cut off: \d+ "):
            list(read_records(path))


def test_other_files_are_named(tmp_path):
    path = tmp_path / "a.tfrecord"
    path.write_bytes(b"the film was good, and the plot as well\n")
    with pytest.raises(DataError, match="is no TFRecord file, or damaged: the checksum of the length is wrong at byte 0"):
        list(read_records(path))
    path.write_bytes(b"\x1f\x8b\x08\x00")
    with pytest.raises(DataError, match="compressed by gzip; unpack it first"):
        list(read_records(path))


def test_bytes_that_are_no_example(read):
    for data in (b"\x0a\xff", b"\xff" * 20, b"\x0a\x05\x0a\x09abc", b"\x0f", b"\x08\x01\x09", b"the film was good"):
        with pytest.raises(
            DataError, match=r"a\.tfrecord: record 2( at byte \d+: is no tf\.train\.Example|: has neither input_ids)"
        ):
            read({"text": [b"a film"]}, data)
    generator = np.random.default_rng(0)
    whole = make_example(RECORD)
    for _ in range(500):  # any other exception than ValueError fails here
        changed = bytearray(whole)
        changed[generator.integers(len(whole))] = generator.integers(256)
        try:
            parse_example(bytes(changed))
        except ValueError:
            pass


# ---------------------------------------------------------------------------------------------- the rows

def test_tokens_are_read_without_masks(read):
    table = read(RECORD, {key: RECORD[key] for key in ("input_ids", "input_mask")})
    assert rows_of(table) == [[CLS, 10, 11, SEP, 12, 13, SEP], [CLS, 10, MASK, SEP, 12, 50, SEP]]
    assert table.first_lengths.tolist() == [4, 7]


def test_masks_are_undone_without_weights(read):
    table = read({key: value for key, value in RECORD.items() if key != "masked_lm_weights"})
    assert rows_of(table) == [[CLS, 10, 11, SEP, 12, 13, SEP]]


def test_texts_are_cut_as_lines_are(read, tokenizer):
    texts = ["the film was very good and the plot is fine", "a", "dull", "Ünïcode film"]
    records = [{"text": [texts[0].encode()]}, {"sentence": [text.encode() for text in texts[1:]], "label": [1, 2, 3]}]
    assert rows_of(read(*records, max_length=8)) == expected_rows(texts, tokenizer, 8)


def test_files_of_a_folder_and_kinds_of_records_keep_their_order(tokenizer, tmp_path):
    folder = tmp_path / "corpus"
    folder.mkdir()
    (folder / "a.txt").write_text("the film\n")
    write_records(folder / "b.tfrecord-00000-of-00002", map(make_example, [{"text": [b"a plot"]}, RECORD, {"text": [b"it was"]}]))
    write_records(folder / "b.tfrecord-00001-of-00002", [make_example(RECORD)])
    write_records(folder / "dev.tfrecord", [make_example({"text": [b"not this"]})])
    own = [[CLS, 10, 11, SEP, 12, 13, SEP]]
    texts = expected_rows(["the film", "a plot", "it was"], tokenizer, 16)
    for _ in range(2):  # the second time from the cache
        assert rows_of(read_corpus(folder, tokenizer, 16, tmp_path / "cache")) == [*texts[:2], *own, texts[2], *own]


def changed(**features):
    return {key: value for key, value in (RECORD | features).items() if value is not None}


WRONG = {
    "beyond": (changed(input_ids=[CLS, 10, 900, SEP, 12, 50, SEP, 0, 0], masked_lm_positions=None), "the token 900, but the tok"),
    "masked beyond": (changed(masked_lm_ids=[11, -3, 0]), "has the token -3, but the tokenizer's are 0 to"),
    "no mask": (changed(input_mask=None), "has no input_mask; its features are input_ids, masked_lm_ids"),
    "short mask": (changed(input_mask=[1, 1]), "input_mask has 2 numbers, input_ids 9"),
    "broken mask": (changed(input_mask=[1, 1, 0, 1, 1, 1, 1, 0, 0]), "input_mask is not ones and then zeros"),
    "empty mask": (changed(input_mask=[0] * 9), "input_mask has no token"),
    "segments": (changed(segment_ids=[0, 1, 0, 1, 1, 1, 1, 0, 0]), "segment_ids is not zeros and then ones"),
    "short segments": (changed(segment_ids=[0, 1]), "segment_ids has 2 numbers, but there are 7 tokens"),
    "positions": (changed(masked_lm_positions=[2, 7, 0]), "masked_lm_positions has 7, but there are 7 tokens"),
    "no originals": (changed(masked_lm_ids=None), "has no masked_lm_ids"),
    "floats": (changed(input_ids=[0.5] * 9), "input_ids is not a list of integers"),
    "nothing": ({"label": [1], "idx": [3]}, "has neither input_ids nor text nor sentence; its features are idx, label"),
    "number": ({"text": [1]}, "text is no text"),
    "encoding": ({"text": [b"ok", b"\xff"]}, r"text is not UTF-8 \(byte 0xff\)"),
}


@pytest.mark.parametrize("case", WRONG)
def test_a_wrong_record_is_named(read, case):
    features, message = WRONG[case]
    with pytest.raises(DataError, match=rf"a\.tfrecord: record 2: .*{message}"):
        read(RECORD, features)


def test_a_row_that_is_too_long_says_what_to_do(read):
    assert len(read(RECORD, max_length=7).lengths) == 1
    with pytest.raises(DataError, match=r"record 1: has 7 tokens, but task\.max_length is 6; set it to 7 or more"):
        read(RECORD, max_length=6)


def test_a_file_without_records_holds_no_text(read):
    with pytest.raises(DataError, match="holds no text"):
        read()
