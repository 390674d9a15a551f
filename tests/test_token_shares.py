"""Token stores in folders: shares of any number give one store, a run on it is a run on its text, what does not fit is told."""

from __future__ import annotations

import json
import re
import shutil

import numpy as np
import pytest
from rich.console import Console

from crossdistil.core.app.run import RunOptions, execute
from crossdistil.core.data.corpus import read_texts, text_start
from crossdistil.core.data.masked_texts import read_masked, read_store
from crossdistil.core.data.records.tfrecord import make_example, write_records
from crossdistil.core.data.shares import Part, complete_shares, sealed
from crossdistil.core.data.token_folder import OWN, open_store
from crossdistil.core.data.token_shares import merge_stores, write_store
from crossdistil.core.data.token_store import token_store
from crossdistil.core.data.tokenize import load_tokenizer
from crossdistil.core.engine import EngineOptions
from crossdistil.core.errors import CrossdistilError, DataError
from crossdistil.core.recipe import parse_recipe
from crossdistil.tests import tiny
from crossdistil.tests.tiny_masked_lm import write_masked_lm


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A masked language model with its tokenizer, and a corpus of three kinds of files: long lines, empty ones, records."""
    root = tmp_path_factory.mktemp("stores")
    write_masked_lm(root / "teacher")
    generator = np.random.default_rng(0)
    texts = [" ".join(generator.choice(tiny.WORDS, generator.integers(1, 40))) for _ in range(300)]
    texts[::7] = ["", "\u200b", *texts[::7][2:]]
    data = root / "text"
    data.mkdir()
    (data / "a.txt").write_text("\ufeff" + "\n".join(texts[:100]), encoding="utf-8")
    (data / "b.txt").write_text("\r\n\n".join(texts[100:200]) + "\n" + "film " * 30_000 + "\n" + "plot", encoding="utf-8")
    write_records(data / "c.tfrecord", [make_example({"text": [text.encode()]}) for text in texts[200:]])
    (data / "dev.txt").write_text("not for training\n")
    return root


@pytest.fixture(scope="module")
def tokenizer(folder):
    return load_tokenizer(folder / "teacher")


@pytest.fixture(scope="module")
def whole(folder, tokenizer):
    """What one machine makes."""
    write(folder / "text", tokenizer, folder / "whole")
    return folder / "whole"


def write(data, tokenizer, out, part=None, resume=False):
    return write_store(data, tokenizer, out, part or Part(), resume, lambda done, total: None)


def merge(folders, out):
    return merge_stores(complete_shares(folders, OWN), out, lambda done, total: None)


def content(folder):
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


def test_a_folder_is_the_store_of_its_text(folder, tokenizer, whole):
    found, expected = open_store(whole, tokenizer), token_store(folder / "text", tokenizer, folder / "cache")
    for name in ("ids", "offsets", "word_bits", "counts"):
        one, other = getattr(found, name), getattr(expected, name)
        assert one.dtype == other.dtype and one.tobytes() == other.tobytes() and isinstance(one, np.memmap)


@pytest.mark.parametrize("count", [2, 3, 8, 400])
def test_shares_give_the_bytes_of_one_machine(folder, tokenizer, whole, tmp_path, count):
    """400: more than there are bytes in some of the texts, so that some shares have none."""
    for index in reversed(range(count)):
        note = write(folder / "text", tokenizer, tmp_path / ("even" if index % 2 else "odd"), Part(index, count))
        assert count < 400 or note["counts"]["tokens"] < 40_000
    merge([tmp_path / "even", tmp_path / "odd"], tmp_path / "merged")
    assert content(tmp_path / "merged") == content(whole)


def test_texts_begin_where_a_loop_finds_them(tmp_path):
    for name, data in (("a", b"\xef\xbb\xbfone\n\ntwo\r\nthree"), ("b", b"\n\n"), ("c", b"a" * 200_000 + b"\nb\n"), ("d", b"")):
        path = tmp_path / f"{name}.txt"
        path.write_bytes(data)
        starts = [0, *(place + 1 for place in range(len(data)) if data[place : place + 1] == b"\n"), len(data)]
        for position in {*range(min(len(data), 20)), *range(max(0, len(data) - 20), len(data) + 1)}:
            assert text_start(path, position) == min(start for start in starts if start >= position)
    records = [make_example({"text": [b"x" * size]}) for size in (0, 5, 300)]
    write_records(tmp_path / "e.tfrecord", records)
    starts = np.cumsum([0, *(len(record) + 16 for record in records)]).tolist()
    for position in range(starts[-1] + 1):
        assert text_start(tmp_path / "e.tfrecord", position) == min(start for start in starts if start >= position)
    assert list(read_texts(tmp_path / "e.tfrecord", 10, starts[1], starts[2])) == [["x" * 5]]


def test_errors_name_the_line_and_the_record_of_the_file(tokenizer, tmp_path):
    (tmp_path / "a.txt").write_bytes(b"a film\n" * 50 + b"\xff\n" + b"a film\n" * 50)
    with pytest.raises(DataError, match=r"a\.txt:51: not UTF-8"):
        write(tmp_path / "a.txt", tokenizer, tmp_path / "out", Part(2, 5))
    assert not (tmp_path / "out").exists()
    texts = [b"film"] * 50 + [b"\xff"] + [b"film"] * 50
    write_records(tmp_path / "b.tfrecord", [make_example({"text": [text]}) for text in texts])
    with pytest.raises(DataError, match=r"b\.tfrecord: record 51: text is not UTF-8"):
        write(tmp_path / "b.tfrecord", tokenizer, tmp_path / "out", Part(2, 5))
    write_records(tmp_path / "c.tfrecord", [make_example({"input_ids": [2, 9, 3], "input_mask": [1, 1, 1]})])
    with pytest.raises(DataError, match=r"c\.tfrecord: has records of tokens, expected texts"):
        write(tmp_path / "c.tfrecord", tokenizer, tmp_path / "out")
    (tmp_path / "d.txt").write_text("\n")
    with pytest.raises(DataError, match=r"d\.txt: holds no text"):
        write(tmp_path / "d.txt", tokenizer, tmp_path / "out")
    with pytest.raises(DataError, match=r"--data: .*nowhere: no such file or folder"):
        write(tmp_path / "nowhere", tokenizer, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_finished_share_is_kept(folder, tokenizer, tmp_path, caplog):
    out, part = tmp_path / "out", Part(1, 3)
    write(folder / "text", tokenizer, out, part)
    expected, ids = content(out), out / "tokens-2-of-3-ids.npy"
    with pytest.raises(DataError, match=r"holds tokens-2-of-3-counts\.npy already; give --resume to keep it"):
        write(folder / "text", tokenizer, out, part)
    before = ids.stat().st_mtime_ns
    write(folder / "text", tokenizer, out, part, resume=True)
    assert content(out) == expected and ids.stat().st_mtime_ns == before and not caplog.text
    for name, damaged in (
        ("tokens-2-of-3-ids.npy", expected[ids.name][:-1]),
        ("tokens-2-of-3.json", b"{"),
        ("tokens-2-of-3.json", expected["tokens-2-of-3.json"].replace(b'"texts": ', b'"texts": 1')),
    ):
        (out / name).write_bytes(damaged)
        caplog.clear()
        write(folder / "text", tokenizer, out, part, resume=True)
        assert content(out) == expected and name in caplog.text and "is made again" in caplog.text
    other = load_tokenizer(write_tokenizer(folder, tmp_path / "cased", do_lower_case=False))
    with pytest.raises(DataError, match=r"share 2 of 3 was made by another command: tokenizer\.lower_case: got True"):
        write(folder / "text", other, out, part, resume=True)


def test_damaged_and_foreign_shares(folder, tokenizer, whole, tmp_path):
    for index in range(2):
        write(folder / "text", tokenizer, tmp_path / str(index + 1), Part(index, 2))
    one, two, out = tmp_path / "1", tmp_path / "2", tmp_path / "out"

    def refused(folders, message):
        with pytest.raises(CrossdistilError, match=re.escape(message)) as found:
            merge(folders, out)
        assert "\n" not in str(found.value) and not out.exists()

    refused([one], f"share 2 of 2 is missing: looked for tokens-I-of-2.json in {one}")
    refused([one, two, shutil.copytree(two, tmp_path / "3")], f"share 2 of 2: is in {two} and in {tmp_path / '3'}")
    ids, note = two / "tokens-2-of-2-ids.npy", two / "tokens-2-of-2.json"
    good = {path: path.read_bytes() for path in (ids, note)}
    flipped = bytearray(good[ids])
    flipped[-1] ^= 1
    for path, data, message in (
        (ids, flipped, f"{two}: share 2 of 2: tokens-2-of-2-ids.npy is damaged"),
        (ids, good[ids][:-2], f"tokens-2-of-2-ids.npy has {len(flipped) - 2:,} bytes, expected {len(flipped):,}"),
        (ids, None, f"{two}: share 2 of 2: tokens-2-of-2-ids.npy is missing"),
        (note, good[note].replace(b'"tokens": ', b'"tokens": 1'), "tokens-2-of-2.json is damaged"),
    ):
        path.unlink() if data is None else path.write_bytes(data)
        refused([one, two], message)
        path.write_bytes(good[path])
    text = shutil.copytree(folder / "text", tmp_path / "text")
    lines = (text / "b.txt").read_bytes()
    middle = slice(1 << 16, len(lines) - (1 << 16))  # where no sample is taken
    (text / "b.txt").write_bytes(lines[: middle.start] + lines[middle].replace(b" ", b"\n") + lines[middle.stop :])
    shutil.rmtree(two)
    write(text, tokenizer, two, Part(1, 2))
    refused([one, two], f"{two}: share 2 of 2: begins at byte ")
    (text / "b.txt").write_bytes(lines + b"\nplot")
    shutil.rmtree(two)
    write(text, tokenizer, two, Part(1, 2))
    refused([one, two], "input.bytes: got ")
    shutil.rmtree(two)
    write(folder / "text", load_tokenizer(write_tokenizer(folder, tmp_path / "cased", do_lower_case=False)), two, Part(1, 2))
    refused([one, two], "tokenizer.lower_case: got False, expected True")


def write_tokenizer(folder, place, more=(), **config):
    place.mkdir()
    (place / "vocab.txt").write_text("".join(f"{token}\n" for token in [*tiny.VOCABULARY, *more]))
    (place / "tokenizer_config.json").write_text(json.dumps(config))
    return place


def test_a_store_of_another_tokenizer_is_refused_in_one_line(folder, tokenizer, whole, tmp_path, caplog):
    written = tmp_path / "written"
    tokenizer.save(written)  # the same in another file
    open_store(whole, load_tokenizer(written))
    assert not caplog.text
    size = tokenizer.vocab_size
    changed = json.loads((written / "tokenizer.json").read_text())
    changed["model"]["max_input_chars_per_word"] = 5
    (written / "tokenizer.json").write_text(json.dumps(changed))
    for other, message in (
        (write_tokenizer(folder, tmp_path / "a", do_lower_case=False), "the tokenizer is of lower_case false"),
        (write_tokenizer(folder, tmp_path / "b", strip_accents=False), "the tokenizer is of strip_accents false"),
        (write_tokenizer(folder, tmp_path / "c", ["more"]), f"their vocabulary has {size} tokens, the tokenizer's {size + 1}"),
        (written, "the vocabulary is the same, but not how texts are split into it"),
    ):
        with pytest.raises(DataError, match=f"task.data: .*whole: its tokens are of another tokenizer .*: .*{message}"):
            read_masked(whole, None, load_tokenizer(other), 16, 0)


def test_what_is_no_whole_store_is_told(folder, tokenizer, whole, tmp_path, caplog):
    for index in range(2):
        write(folder / "text", tokenizer, tmp_path / "shares", Part(index, 3))
    with pytest.raises(DataError, match=r"task\.data: .*shares: share 3 of 3 is missing; crossdistil data merge"):
        read_masked(tmp_path / "shares", None, tokenizer, 16, 0)
    write(folder / "text", tokenizer, tmp_path / "shares", Part(2, 3))
    with pytest.raises(DataError, match=r"task\.data: .*shares: holds shares of a token store; crossdistil data merge"):
        read_masked(tmp_path / "shares", None, tokenizer, 16, 0)
    copy = shutil.copytree(whole, tmp_path / "copy")
    shutil.copy(folder / "text" / "a.txt", copy)
    with pytest.raises(DataError, match=r"task\.data: .*copy: holds a token store and a\.txt"):
        read_masked(copy, None, tokenizer, 16, 0)
    (copy / "a.txt").unlink()
    data = bytearray((copy / "tokens-word_bits.npy").read_bytes())
    data[-2] ^= 1
    (copy / "tokens-word_bits.npy").write_bytes(data)
    with pytest.raises(DataError, match=r"copy: tokens-word_bits\.npy is damaged"):
        read_masked(copy, None, tokenizer, 16, 0)
    note = json.loads((whole / "tokens.json").read_text())
    note["libraries"]["tokenizers"] = "0.0.1"
    copy = shutil.copytree(whole, tmp_path / "older")
    (copy / "tokens.json").write_text(json.dumps(sealed(note)))
    open_store(copy, tokenizer)
    assert "was made with tokenizers 0.0.1, here is" in caplog.text


def test_texts_that_are_too_short_are_told(tokenizer, tmp_path):
    (tmp_path / "a.txt").write_text("film\n")
    write(tmp_path / "a.txt", tokenizer, tmp_path / "store")
    for read in (read_store, lambda *given: read_masked(given[0], None, *given[1:], 0)):
        with pytest.raises(DataError, match=r"task\.data: .*store: no text has 2 tokens or more"):
            read(tmp_path / "store", tokenizer, 16)
        with pytest.raises(DataError, match="max_length 2 leaves no room for the text, expected 4 or more"):
            read(tmp_path / "store", tokenizer, 2)


def test_the_commands(cli_here, folder, whole, tmp_path):
    run = ["data", "tokens", "--data", folder / "text", "--tokenizer", folder / "teacher", "--out", tmp_path / "shares"]
    for number in (1, 2):
        told = cli_here(*run, "--shard", f"{number}/2")
        assert "tokens of" in told and f"written to {tmp_path / 'shares'}" in told.replace("\n", "")
    told = cli_here("data", "merge", tmp_path / "shares", "--out", tmp_path / "merged")
    assert content(tmp_path / "merged") == content(whole) and "2 shares, all there and whole" in told
    told = cli_here(*run, "--shard", "3/2", code=2)
    assert told == "crossdistil: error: --shard 3/2: expected I/N with I from 1 to N, for example 2/8\n"


def recipe(folder, data, kind):
    settings = {"steps": 6, "batch_size": 8, "learning_rate": 1e-3, "length_buckets": [16], "log_every": 1, "dropout": 0.1}
    term = {"loss": "masked_lm"} if kind == "mlm" else {"loss": "hidden_mse", "layers": "final"}
    masking = {"masking": {"smoothing": 0.7, "whole_words": True}} if kind == "mlm" else {}
    return {
        "method": "kd",
        "task": {"name": "corpus", "kind": kind, "data": str(data), "max_length": 16, **masking},
        "teacher": {"model": f"{folder}/teacher"},
        "student": {"architecture": {"num_hidden_layers": 1}, "init": {"from": "teacher", "layers": [1]}},
        "stages": [{"name": "distil", "objective": [term], "train": settings}],
        "seed": 3,
    }


@pytest.mark.only_backend("torch", "oneflow")
@pytest.mark.parametrize("kind", ["mlm", "text"])
def test_a_run_on_a_store_is_a_run_on_its_text(folder, whole, tmp_path, backend_name, kind):
    """The same batches, masks and dropout: the same losses and weights, bit for bit."""
    found = []
    for name, data in (("text", folder / "text"), ("store", whole)):
        options = RunOptions(backend_name, EngineOptions("cpu"), tmp_path / name)
        execute(parse_recipe(recipe(folder, data, kind), "recipe"), "recipe", options, Console(quiet=True))
        lines = [json.loads(line) for line in (tmp_path / name / "metrics.jsonl").read_text().splitlines()]
        losses = [line["loss"] for line in lines if "loss" in line]
        (weights,) = (tmp_path / name / "student").glob("*.safetensors")
        found.append((losses, weights.read_bytes()))
    assert len(found[0][0]) == 6 and found[0] == found[1]
