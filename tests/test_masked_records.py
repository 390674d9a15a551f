"""Masked records read back: those that `crossdistil data mlm` and TensorFlow write, the batches of them, and wrong ones."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest

from crossdistil.core.data.batches import TrainBatches, evaluation_batches
from crossdistil.core.data.masked_texts import read_masked
from crossdistil.core.data.masking import DynamicMasks, MaskingSettings
from crossdistil.core.data.records import masked_records
from crossdistil.core.data.records.masked_records import read_masked_records, read_original
from crossdistil.core.data.records.tfrecord import make_example, write_records
from crossdistil.core.data.tokenize import load_tokenizer
from crossdistil.core.data.word_vocabulary import build_words
from crossdistil.core.errors import DataError
from crossdistil.tests.mlm_cases import ENGLISH, originals, read, write_corpus, write_vocabulary

LENGTH, MOST = 48, 9
SPECIAL = [ENGLISH.index(token) for token in ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")]
CLS, SEP, MASK = SPECIAL[2:]


@pytest.fixture(scope="module")
def material(cli, tmp_path_factory):
    """(folder of `crossdistil data mlm`, what its records hold, tokenizer)."""
    folder = tmp_path_factory.mktemp("records")
    vocabulary = write_vocabulary(folder / "vocabulary")
    run = ["data", "mlm", "--data", write_corpus(folder / "text", 40), "--vocabulary", vocabulary, "--out", folder / "out"]
    cli(*run, "--max-seq-length", LENGTH, "--max-predictions-per-seq", MOST, "--dupe-factor", 2)
    return folder / "out", read(folder / "out"), load_tokenizer(folder / "vocabulary")


@pytest.fixture
def folder(material, tmp_path):
    """A copy that may be changed."""
    return shutil.copytree(material[0], tmp_path / "data")


def assert_same(found, records, tokenizer):
    """Row by row."""
    table = found.table
    assert len(table.lengths) == len(records["input_ids"]) and found.most == records["masked_lm_weights"].sum(1).max()
    assert table.pad_id == tokenizer.pad_id and table.ends is None
    for row, (start, end) in enumerate(zip(table.offsets[:-1], table.offsets[1:])):
        real = records["input_mask"][row] == 1
        assert table.ids[start:end].tolist() == records["input_ids"][row][real].tolist()
        assert table.first_lengths[row] == (records["segment_ids"][row][real] == 0).sum()
        masked, used = slice(*found.masked_offsets[row : row + 2]), records["masked_lm_weights"][row] == 1
        assert found.masked_positions[masked].tolist() == records["masked_lm_positions"][row][used].tolist()
        assert found.masked_labels[masked].tolist() == records["masked_lm_ids"][row][used].tolist()


def test_what_the_command_wrote_comes_back(material, tmp_path, monkeypatch):
    folder, records, tokenizer = material
    monkeypatch.setattr(masked_records, "_AT_ONCE", 100)
    for _ in range(2):  # the second time from the cache
        found = read_masked_records(folder, tokenizer, LENGTH, tmp_path / "cache")
        assert_same(found, records, tokenizer)
        assert isinstance(found.table.ids.base, np.memmap) and isinstance(found.masked_labels.base, np.memmap)
    assert len(records["input_ids"]) > 300 and found.most == round(0.15 * LENGTH)
    (shard,) = folder.glob("*.tfrecord")
    assert_same(read_masked_records(shard, tokenizer, LENGTH + 1, tmp_path / "cache"), records, tokenizer)
    table = read_original(folder, tokenizer, LENGTH, tmp_path / "cache")
    original = originals(records)[records["input_mask"] == 1]
    np.testing.assert_array_equal(table.ids, original)
    np.testing.assert_array_equal(table.offsets, found.table.offsets)
    np.testing.assert_array_equal(table.first_lengths, found.table.first_lengths)


@pytest.mark.only_backend("torch")
def test_what_tensorflow_wrote_comes_back(material, tmp_path):
    """In two files, some masked positions out of order, one record without a mask, and numbers in any place behind them."""
    import tensorflow as tf

    _, records, tokenizer = material
    generator = np.random.default_rng(0)
    records = {name: values[:60].copy() for name, values in records.items()}
    for row in range(60):
        order = generator.permutation(MOST)
        for name in ("masked_lm_positions", "masked_lm_ids", "masked_lm_weights"):
            records[name][row] = records[name][row][order]
    records["masked_lm_weights"][7] = 0
    (tmp_path / "data").mkdir()
    for part in range(2):
        with tf.io.TFRecordWriter(str(tmp_path / "data" / f"train.tfrecord-0000{part}-of-00002")) as writer:
            for row in range(30 * part, 30 * part + 30):
                features = {
                    name: tf.train.Feature(float_list=tf.train.FloatList(value=values[row]))
                    if values.dtype.kind == "f"
                    else tf.train.Feature(int64_list=tf.train.Int64List(value=values[row]))
                    for name, values in records.items()
                }
                example = tf.train.Example(features=tf.train.Features(feature=features))
                writer.write(example.SerializeToString())
    assert_same(read_masked_records(tmp_path / "data", tokenizer, LENGTH, tmp_path / "cache"), records, tokenizer)


def masked_of(batch, expected):
    """The masks of the rows of a batch, each checked to be in place."""
    length = batch["input_ids"].shape[1]
    real = batch["masked_weights"] > 0
    assert not (batch["masked_rows"][~real].any() or batch["masked_labels"][~real].any())
    ids = batch["input_ids"].copy().ravel()
    ids[batch["masked_rows"][real]] = batch["masked_labels"][real]
    rows = np.flatnonzero(batch["example_mask"])
    for row, original in zip(rows, expected, strict=True):
        assert ids.reshape(-1, length)[row][: len(original)].tolist() == original.tolist()
    return [(int(row), int(label)) for row, label in zip(batch["masked_rows"][real], batch["masked_labels"][real])]


def test_batches_have_the_masks_of_the_records(material, tmp_path):
    folder, records, tokenizer = material
    found = read_masked(folder, None, tokenizer, LENGTH, 0, folder, tmp_path / "cache")
    count = len(records["input_ids"])
    original = [ids[mask == 1] for ids, mask in zip(originals(records), records["input_mask"])]
    epochs = []
    for epoch in range(2):
        batches = TrainBatches(found.train, np.arange(count), 16, 2, (24, LENGTH), 3)
        batches.attach_masks(found.train_masks)
        seen = {}
        for step in batches.epoch(epoch):
            for batch in step:
                rows = batch["labels"][batch["example_mask"] > 0]
                assert len(batch["masked_rows"]) == -(-8 * round(0.15 * LENGTH) // 8) * 8
                for place, label in masked_of(batch, [original[row] for row in rows]):
                    seen.setdefault(int(batch["labels"][place // batch["input_ids"].shape[1]]), []).append(label)
        epochs.append(seen)
    expected = [ids[weights == 1].tolist() for ids, weights in zip(records["masked_lm_ids"], records["masked_lm_weights"])]
    assert epochs[0] == epochs[1] == dict(enumerate(expected))
    for rows, batch in evaluation_batches(found.dev, None, 20, (LENGTH,), found.dev_masks):
        assert len(masked_of(batch, [original[row] for row in rows])) == records["masked_lm_weights"][rows].sum()
        assert np.array_equal(batch["input_ids"][: len(rows)], records["input_ids"][rows])
        assert np.array_equal(batch["token_type_ids"][: len(rows)], records["segment_ids"][rows])


@pytest.mark.parametrize("smoothing", [0.0, 0.7])
def test_records_with_masks_drawn_anew(material, tmp_path, smoothing):
    folder, records, tokenizer = material
    masking = MaskingSettings(smoothing=smoothing)
    found = read_masked(folder, masking, tokenizer, LENGTH, 3, folder, tmp_path / "cache")
    ids = originals(records)
    counts = np.bincount(ids[records["input_mask"] == 1], minlength=tokenizer.vocab_size)
    masks = DynamicMasks(masking, tokenizer, 3, counts)
    ((_, batch),) = evaluation_batches(found.train, None, len(ids), (LENGTH,))
    order = np.argsort(-found.train.lengths, kind="stable")
    np.testing.assert_array_equal(batch["input_ids"], ids[order])
    for name, expected in masks(batch, order, 5).items():
        np.testing.assert_array_equal(found.train_masks(batch, order, 5)[name], expected)
    for name, expected in DynamicMasks(MaskingSettings(), tokenizer, 3)(batch, order, None).items():
        np.testing.assert_array_equal(found.dev_masks(batch, order, None)[name], expected)
    masked = found.train_masks(batch, order, 5)
    chosen = masked["masked_rows"][masked["masked_weights"] > 0]
    assert not np.isin(batch["input_ids"].ravel()[chosen], SPECIAL).any()
    assert not np.array_equal(masked["masked_rows"], found.train_masks(batch, order, 6)["masked_rows"])
    with pytest.raises(DataError, match="task.masking.counts: .*counts: is for texts, but .* holds records"):
        counted = MaskingSettings(smoothing=0.7, counts=tmp_path / "counts")
        read_masked(folder, counted, tokenizer, LENGTH, 3, cache_folder=tmp_path / "cache")


def test_texts_beside_records(material, tmp_path):
    """Each by its own rules."""
    folder, records, tokenizer = material
    (tmp_path / "dev.txt").write_text("the film was good\nthe plot was very bad\n")
    found = read_masked(folder, None, tokenizer, LENGTH, 3, tmp_path / "dev.txt", tmp_path / "cache")
    ((_, batch),) = evaluation_batches(found.dev, None, 2, (LENGTH,), found.dev_masks)
    drawn = DynamicMasks(MaskingSettings(), tokenizer, 3)
    ((_, expected),) = evaluation_batches(found.dev, None, 2, (LENGTH,), drawn)
    assert all(np.array_equal(batch[name], expected[name]) for name in expected)
    ids = records["input_ids"][records["input_mask"] == 1]
    np.testing.assert_array_equal(found.train.ids, ids)
    found = read_masked(tmp_path / "dev.txt", None, tokenizer, LENGTH, 3, folder, tmp_path / "cache")
    np.testing.assert_array_equal(found.dev.ids, ids)


# ---------------------------------------------------------------------------------------------- what does not fit


def test_another_vocabulary(material, tmp_path):
    """Of as many tokens: nothing but the note can tell."""
    folder, _, tokenizer = material
    sha256 = json.loads((folder / "mlm.json").read_text())["vocabulary"]["sha256"]
    other = load_tokenizer(write_vocabulary(tmp_path / "vocabulary", [*ENGLISH[:-2], ENGLISH[-1], ENGLISH[-2]]).parent)
    assert other.vocab_size == tokenizer.vocab_size
    (shard,) = folder.glob("*.tfrecord")
    for data in (folder, shard):
        for masking in (None, MaskingSettings()):
            size = other.vocab_size
            message = f"of a vocabulary of {size} tokens .*{sha256}, the tokenizer's has {size} and [0-9a-f]{{64}}"
            with pytest.raises(DataError, match=message):
                read_masked(data, masking, other, LENGTH, 0, cache_folder=tmp_path / "cache")
    with pytest.raises(DataError, match=f"have up to {LENGTH} tokens, but task.max_length is {LENGTH - 1}"):
        read_masked_records(folder, tokenizer, LENGTH - 1, tmp_path / "cache")
    with pytest.raises(DataError, match="but this tokenizer has whole words"):
        read_masked_records(folder, build_words(["good film"], 10), LENGTH, tmp_path / "cache")


def test_the_note_of_one_file_is_enough(folder, material, tmp_path):
    """Of a folder that another machine makes the other half of."""
    (folder / "mlm.json").unlink()
    (note,) = folder.glob("*.json")
    changed = json.loads(note.read_text())
    changed["vocabulary"]["sha256"] = "0" * 64
    note.write_text(json.dumps(changed))
    with pytest.raises(DataError, match=rf"{note.name} says that its records are of a vocabulary of .* 0{{64}}, the"):
        read_masked_records(folder, material[2], LENGTH, tmp_path / "cache")
    note.write_text("{}")
    with pytest.raises(DataError, match=rf"{note.name}: is no note of .*, or damaged: vocabulary: Field required"):
        read_masked_records(folder, material[2], LENGTH, tmp_path / "cache")
    note.unlink()
    assert_same(read_masked_records(folder, material[2], LENGTH, tmp_path / "cache"), material[1], material[2])


def test_a_file_that_is_missing_or_cut_off(folder, material, tmp_path):
    (shard,) = folder.glob("*.tfrecord")
    shard.write_bytes(shard.read_bytes()[:-5])
    with pytest.raises(DataError, match=rf"{shard.name}: the record at byte \d+ is cut off"):
        read_masked_records(folder, material[2], LENGTH, tmp_path / "cache")
    assert not list((tmp_path / "cache").rglob("*.npy"))
    shutil.copy(shard, folder / "examples-00001.tfrecord")
    shard.unlink()
    with pytest.raises(DataError, match=rf"examples-00000\.json names {shard.name}, which is missing"):
        read_masked_records(folder, material[2], LENGTH, tmp_path / "cache")


GOOD = {
    "input_ids": [CLS, 9, MASK, 11, SEP, 0],
    "input_mask": [1, 1, 1, 1, 1, 0],
    "segment_ids": [0, 0, 0, 1, 1, 0],
    "masked_lm_positions": [2, 3, 0],
    "masked_lm_ids": [10, 11, 0],
    "masked_lm_weights": [1.0, 1.0, 0.0],
}
WRONG = {
    "has no masked_lm_positions, which tell the masked tokens; task.masking draws them anew": {"masked_lm_positions": None},
    "has no masked_lm_ids; its features are": {"masked_lm_ids": None},
    "masked_lm_positions has 5, but there are 5 tokens": {"masked_lm_positions": [2, 5, 0]},
    "masked_lm_positions has -1, but there are 5 tokens": {"masked_lm_positions": [2, -1, 0]},
    "masked_lm_positions has a position twice": {"masked_lm_positions": [2, 2, 0]},
    "masked_lm_positions has 2 numbers, masked_lm_ids 3": {"masked_lm_positions": [2, 3]},
    "masked_lm_ids has the token 999, but the tokenizer's are 0 to": {"masked_lm_ids": [10, 999, 0]},
    "masked_lm_ids has the token -1, but the tokenizer's are 0 to": {"masked_lm_ids": [-1, 11, 0]},
    "masked_lm_weights is not a 0 or 1 for each of the 3": {"masked_lm_weights": [1.0, 0.5, 0.0]},
    "masked_lm_weights is not a 0 or 1 for each": {"masked_lm_weights": [1.0, 1.0]},
    "has the token 999, but": {"input_ids": [CLS, 999, MASK, 11, SEP, 0]},
    "input_mask is not ones and then zeros": {"input_mask": [1, 0, 1, 1, 1, 0]},
    "segment_ids is not zeros and then ones": {"segment_ids": [0, 1, 0, 1, 1, 0]},
}


def written(path, *records):
    """A file of these records without the features that are None."""
    given = [{name: values for name, values in one.items() if values is not None} for one in records]
    write_records(path, map(make_example, given))
    return path


@pytest.mark.parametrize("message", WRONG)
def test_a_wrong_record_is_named(material, tmp_path, message):
    path = written(tmp_path / "a.tfrecord", GOOD, {**GOOD, **WRONG[message]})
    with pytest.raises(DataError) as told:
        read_masked_records(path, material[2], 6, tmp_path / "cache")
    assert str(told.value).startswith(f"{path}: record 2: {message}")


def test_wrong_as_a_whole(material, tmp_path):
    path = written(tmp_path / "a.tfrecord", {**GOOD, "masked_lm_weights": [0.0] * 3})
    with pytest.raises(DataError, match=r"a\.tfrecord: record 1: has 5 tokens, but task.max_length is 4"):
        read_masked_records(path, material[2], 4, tmp_path / "cache")
    with pytest.raises(DataError, match=r"a\.tfrecord: holds no record with a masked token"):
        read_masked_records(path, material[2], 5, tmp_path / "cache")


def test_records_by_hand(material, tmp_path):
    path = written(tmp_path / "a.tfrecord", GOOD, {**GOOD, "masked_lm_weights": None, "masked_lm_positions": [3, 0, 0]})
    found = read_masked_records(path, material[2], 6, tmp_path / "cache")
    ((rows, batch),) = evaluation_batches(found.table, None, 3, (8,), found.masks)
    assert rows.tolist() == [0, 1]
    assert batch["masked_rows"].tolist() == [2, 3, 8 + 3, 0, 0, 0, 0, 0]
    assert batch["masked_labels"].tolist() == [10, 11, 10, 0, 0, 0, 0, 0]
    assert batch["masked_weights"].tolist() == [1, 1, 1, 0, 0, 0, 0, 0]
    assert batch["input_ids"][:2].tolist() == [[CLS, 9, MASK, 11, SEP, 0, 0, 0]] * 2
    assert batch["token_type_ids"][0].tolist() == [0, 0, 0, 1, 1, 0, 0, 0]


def test_records_without_masks_need_settings(material, tmp_path):
    path = written(tmp_path / "a.tfrecord", {**GOOD, "masked_lm_positions": None})
    with pytest.raises(DataError, match="record 1: has no masked_lm_positions"):
        read_masked(path, None, material[2], 6, 0, cache_folder=tmp_path / "cache")
    found = read_masked(path, MaskingSettings(), material[2], 6, 0, cache_folder=tmp_path / "cache")
    assert found.train.ids.tolist() == [CLS, 9, MASK, 11, SEP]


def test_records_among_texts(material, tmp_path):
    written(tmp_path / "b.tfrecord", GOOD)
    (tmp_path / "a.txt").write_text("the film was good\n")
    with pytest.raises(DataError, match=r"a\.txt: is no TFRecord file, as the others"):
        read_masked(tmp_path, None, material[2], 6, 0, cache_folder=tmp_path / "cache")
    write_records(tmp_path / "c.tfrecord", [make_example({"text": [b"the film was good"]})])
    (tmp_path / "a.txt").unlink()
    with pytest.raises(DataError, match=r"c\.tfrecord: record 1: has no input_ids"):
        read_masked(tmp_path, None, material[2], 6, 0, cache_folder=tmp_path / "cache")
