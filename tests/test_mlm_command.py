"""`crossdistil data mlm`: the same bytes however it is run, gone on with after a kill, and read by TensorFlow."""

from __future__ import annotations

import json
import signal
import time

import numpy as np
import pytest

from crossdistil.core.data.shares import Part
from crossdistil.core.errors import DataError
from crossdistil.tests.mlm_cases import make, read, write_corpus, write_vocabulary

COMMON = ["--max-seq-length", 128, "--max-predictions-per-seq", 20]


@pytest.fixture(scope="module")
def material(tmp_path_factory):
    """(vocabulary, text of some blocks, what one process made of it in shards of one block)."""
    folder = tmp_path_factory.mktemp("command")
    vocabulary = write_vocabulary(folder / "vocabulary")
    text = write_corpus(folder / "text", 150)
    lines = text.read_text()
    text.write_text(lines * (2 * (1 << 20) // len(lines) + 1))
    make(folder / "out", text, vocabulary, dupe_factor=1, blocks_per_shard=1)
    return vocabulary, text, folder / "out"


def content(folder):
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


def arguments(material, out, *more):
    return ["data", "mlm", "--data", material[1], "--vocabulary", material[0], "--out", out, *COMMON, *more]


SHARDS = ["--dupe-factor", 1, "--shard-mib", 1]


def test_two_processes_give_the_same_bytes(cli, material, tmp_path):
    told = cli(*arguments(material, tmp_path / "out", *SHARDS, "--processes", 2))
    assert content(tmp_path / "out") == content(material[2])
    note = json.loads((tmp_path / "out" / "mlm.json").read_text())
    assert f"{note['counts']['examples']:,} examples of {note['counts']['documents']:,} documents" in told
    assert note["lower_case"] and note["settings"]["max_seq_length"] == 128 and len(note["shards"]) >= 3
    assert note["counts"]["examples"] == len(read(tmp_path / "out")["input_ids"])


def test_parts_of_several_machines_make_the_whole(material, tmp_path):
    vocabulary, text, whole = material
    settings = {"dupe_factor": 1, "blocks_per_shard": 1}
    for index in range(2):
        make(tmp_path / "out", text, vocabulary, part=Part(index, 2), **settings)
    found, expected = content(tmp_path / "out"), content(whole)
    assert found.pop("mlm-1-of-2.json") != found.pop("mlm-2-of-2.json") and expected.pop("mlm.json")
    assert found == expected
    with pytest.raises(DataError, match=r"examples-00001\.tfrecord already; give --resume"):
        make(tmp_path / "out", text, vocabulary, part=Part(1, 2), **settings)
    for wrong in ("0/2", "3/2", "1", "a/b"):
        with pytest.raises(DataError, match=f"--shard {wrong}: expected I/N"):
            Part.parse(wrong)


@pytest.mark.parametrize("processes", [1, 2])
def test_after_a_kill_it_goes_on(cli_here, start_cli, material, tmp_path, processes):
    out = tmp_path / "out"
    process = start_cli(*arguments(material, out, *SHARDS, "--processes", processes))
    try:
        deadline = time.monotonic() + 300
        while not (out / "examples-00000.json").exists() and process.poll() is None and time.monotonic() < deadline:
            time.sleep(0.005)
    finally:
        process.send_signal(signal.SIGKILL)
        process.communicate()
    first = out / "examples-00000.tfrecord"
    before = first.stat().st_mtime_ns
    (out / "examples-00001.tfrecord.tmp-1").write_bytes(b"half of a record")
    (out / "mlm.json").unlink(missing_ok=True)
    (out / "examples-00001.json").unlink(missing_ok=True)  # where the kill came late
    again = arguments(material, out, *SHARDS, "--processes", processes)
    assert "holds examples-00000.json already; give --resume" in cli_here(*again, code=2)
    cli_here(*again, "--resume")
    assert first.stat().st_mtime_ns == before
    assert content(out) == content(material[2])
    told = cli_here(*again, "--resume", "--seed", 3, code=2)
    assert "examples-00000.tfrecord was made with another settings.seed: 12345, now 3" in told


def test_the_other_algorithm(cli_here, tmp_path):
    text, vocabulary = write_corpus(tmp_path / "text", 6), write_vocabulary(tmp_path / "vocabulary")
    run = ["data", "mlm", "--data", text, "--vocabulary", vocabulary, *COMMON]
    cli_here(*run, "--out", tmp_path / "google", "--algorithm", "google", "--files", 2)
    note = json.loads((tmp_path / "google" / "mlm.json").read_text())
    assert note["algorithm"] == "google" and len(note["shards"]) == 2
    told = cli_here(*run, "--out", tmp_path / "other", "--algorithm", "google", "--processes", 2, code=2)
    assert told.strip() == "crossdistil: error: --processes: only for --algorithm blocks"
    assert "--files: only for --algorithm google" in cli_here(*run, "--out", tmp_path / "other", "--files", 2, code=2)


def test_a_wrong_file_is_one_line(cli_here, tmp_path):
    """From a worker's parent too, and without a record file."""
    vocabulary = write_vocabulary(tmp_path / "vocabulary")
    (tmp_path / "text").write_bytes(b"a film\n\xff\n")
    run = ["data", "mlm", "--vocabulary", vocabulary, "--out", tmp_path / "out", "--processes", 2, *COMMON]
    told = cli_here(*run, "--data", tmp_path / "text", code=2)
    assert told.startswith(f"crossdistil: error: {tmp_path / 'text'}:2: not UTF-8 (byte 0xff)") and told.count("\n") == 1
    assert "--data nowhere: no such file or folder" in cli_here(*run, "--data", "nowhere", code=2)
    (tmp_path / "text").write_text("\u200b\n")
    assert "gives no example" in cli_here(*run, "--data", tmp_path / "text", code=2)
    assert not list(tmp_path.glob("out/mlm*.json"))


@pytest.mark.only_backend("torch")
def test_tensorflow_reads_the_records(material):
    import tensorflow as tf

    ours = read(material[2])
    length, most = 128, 20
    names = {"input_ids": length, "input_mask": length, "segment_ids": length, "masked_lm_positions": most, "masked_lm_ids": most}
    description = {name: tf.io.FixedLenFeature([size], tf.int64) for name, size in {**names, "next_sentence_labels": 1}.items()}
    description["masked_lm_weights"] = tf.io.FixedLenFeature([most], tf.float32)
    files = [str(path) for path in sorted(material[2].glob("*.tfrecord"))]
    parsed = next(iter(tf.data.TFRecordDataset(files).batch(1 << 20))).numpy()
    found = tf.io.parse_example(parsed, description)
    assert set(ours) == set(description)
    for name, values in ours.items():
        np.testing.assert_array_equal(found[name].numpy(), values)
