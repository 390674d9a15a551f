"""Raw text to rows: cut like a loop over the lines would cut, cached, in bounded memory, and wrong files named."""

from __future__ import annotations

import json
import logging

import numpy as np
import pytest

from crossdistil.core.app.run import RunOptions, execute
from crossdistil.core.data import corpus
from crossdistil.core.data.corpus import read_corpus, read_lines
from crossdistil.core.data.tokenize import Tokenizer, load_tokenizer
from crossdistil.core.data.word_vocabulary import build_words
from crossdistil.core.engine import EngineOptions
from crossdistil.core.errors import DataError
from crossdistil.core.recipe import parse_recipe
from crossdistil.tests import tiny

CLS, SEP = tiny.VOCABULARY.index("[CLS]"), tiny.VOCABULARY.index("[SEP]")


class Counting(Tokenizer):
    """Counts how often it encodes."""

    calls = 0

    def encode_pieces(self, texts):
        self.calls += 1
        return super().encode_pieces(texts)


@pytest.fixture
def tokenizer(tmp_path):
    folder = tiny.write_vocabulary(tmp_path / "vocabulary")
    return Counting(load_tokenizer(folder).library, folder)


def rows_of(table):
    return [table.ids[start:end].tolist() for start, end in zip(table.offsets[:-1], table.offsets[1:])]


def expected_rows(lines, tokenizer, max_length):
    """One line after the other, one row after the other."""
    rows = []
    for line in lines:
        body = tokenizer.library.encode(line, add_special_tokens=False).ids
        for start in range(0, len(body), max_length - 2):
            piece = body[start : start + max_length - 2]
            if len(piece) >= 2:
                rows.append([CLS, *piece, SEP])
    return rows


def write_lines(path, count=300, seed=0):
    """Lines of 0 to 60 words."""
    generator = np.random.default_rng(seed)
    lines = [" ".join(generator.choice(tiny.WORDS, generator.integers(0, 60))) for _ in range(count)]
    path.write_text("\n".join(lines), encoding="utf-8")
    return lines


@pytest.mark.parametrize("max_length", [4, 5, 16, 60, 62, 128])
def test_rows_are_those_of_a_loop(tokenizer, tmp_path, max_length):
    lines = write_lines(tmp_path / "corpus.txt")
    table = read_corpus(tmp_path / "corpus.txt", tokenizer, max_length, tmp_path / "cache")
    assert rows_of(table) == expected_rows(lines, tokenizer, max_length)
    np.testing.assert_array_equal(table.first_lengths, table.lengths)
    assert (table.ids.dtype, table.offsets.dtype, table.first_lengths.dtype) == (np.int32, np.int64, np.int32)
    assert table.pad_id == tokenizer.pad_id and not table.apart


def test_what_a_line_is(tokenizer, tmp_path):
    """A byte order mark, \\r\\n, blank lines, and characters that are a line's end for Python only."""
    content = "\ufeffa good film\r\n\r\n   \nthe plot\u2028was good\x0cand fine\nthe actor is very good"
    (tmp_path / "corpus.txt").write_bytes(content.encode("utf-8"))
    lines = [line for batch in read_lines(tmp_path / "corpus.txt") for line in batch]
    assert lines == ["a good film", "the plot\u2028was good\x0cand fine", "the actor is very good"]
    assert len(read_corpus(tmp_path / "corpus.txt", tokenizer, 16, tmp_path / "cache").lengths) == 3


@pytest.mark.parametrize("word", ["good ", "é", "漢"])
def test_a_line_without_an_end_is_cut_and_nothing_is_lost(tmp_path, monkeypatch, word):
    monkeypatch.setattr(corpus, "_LONGEST_LINE", 100)
    text = word * 500
    (tmp_path / "corpus.txt").write_text(f"first\n{text}\nlast", encoding="utf-8")
    lines = [line for batch in read_lines(tmp_path / "corpus.txt") for line in batch]
    assert lines[0] == "first" and lines[-1] == "last"
    assert max(len(line.encode()) for line in lines) <= 100
    pieces = lines[1:-1]
    assert (" ".join(pieces) if " " in word else "".join(pieces)) == text.strip()


def test_lines_come_in_batches_of_bounded_size(tokenizer, tmp_path, monkeypatch):
    lines = write_lines(tmp_path / "corpus.txt")
    whole = read_corpus(tmp_path / "corpus.txt", tokenizer, 16, tmp_path / "cache")
    monkeypatch.setattr(corpus, "_BATCH_BYTES", 2000)
    batches = list(read_lines(tmp_path / "corpus.txt"))
    assert [line for batch in batches for line in batch] == [line for line in lines if line]
    assert len(batches) > 10 and max(sum(map(len, batch)) for batch in batches) < 2000 + 600
    assert rows_of(read_corpus(tmp_path / "corpus.txt", tokenizer, 16, tmp_path / "other")) == rows_of(whole)


def test_a_folder_holds_text_files(tokenizer, tmp_path):
    folder = tmp_path / "corpus"
    folder.mkdir()
    for name in ("b.txt", "a.txt", "dev.txt", "Test-1.txt", "dev_matched.txt", "notes.md", "testimonials.txt"):
        (folder / name).write_text(f"{'good ' if name == 'a.txt' else 'bad '}film\n")
    (folder / "empty.txt").write_text("")
    assert rows_of(read_corpus(folder, tokenizer, 16, tmp_path / "cache")) == expected_rows(
        ["good film", "bad film", "bad film"], tokenizer, 16
    )


# ---------------------------------------------------------------------------------------------- the cache

def test_the_cache_is_used_and_memory_mapped(tokenizer, tmp_path):
    write_lines(tmp_path / "corpus.txt")
    tables = [read_corpus(tmp_path / "corpus.txt", tokenizer, 16, tmp_path / "cache") for _ in range(2)]
    assert tokenizer.calls == 1
    assert rows_of(tables[0]) == rows_of(tables[1])
    assert all(isinstance(array, np.memmap) for table in tables for array in (table.ids, table.offsets, table.first_lengths))
    (entry,) = (tmp_path / "cache" / "tokens").iterdir()
    assert sorted(path.name for path in entry.iterdir()) == ["first_lengths.npy", "ids.npy", "offsets.npy", "sha256"]


def test_the_key_covers_all_that_changes_the_rows(tokenizer, tmp_path):
    file, cache = tmp_path / "corpus.txt", tmp_path / "cache"
    write_lines(file)
    read_corpus(file, tokenizer, 16, cache)
    # The same bytes elsewhere are the same corpus.
    (tmp_path / "copy.txt").write_bytes(file.read_bytes())
    read_corpus(tmp_path / "copy.txt", tokenizer, 16, cache)
    assert tokenizer.calls == 1
    read_corpus(file, tokenizer, 17, cache)
    file.write_bytes(file.read_bytes().replace(b"the", b"tho"))  # of the same length
    read_corpus(file, tokenizer, 16, cache)
    assert tokenizer.calls == 3
    cased = tiny.write_vocabulary(tmp_path / "cased")
    (cased / "tokenizer_config.json").write_text(json.dumps({"do_lower_case": False}))
    read_corpus(file, load_tokenizer(cased), 16, cache)
    assert len(list((cache / "tokens").iterdir())) == 4


@pytest.mark.parametrize("name", ["ids.npy", "offsets.npy", "sha256"])
def test_a_damaged_entry_is_made_again(tokenizer, tmp_path, name):
    write_lines(tmp_path / "corpus.txt")
    intact = rows_of(read_corpus(tmp_path / "corpus.txt", tokenizer, 16, tmp_path / "cache"))
    (entry,) = (tmp_path / "cache" / "tokens").iterdir()
    content = bytearray((entry / name).read_bytes())
    content[-1] ^= 1
    (entry / name).write_bytes(content)
    assert rows_of(read_corpus(tmp_path / "corpus.txt", tokenizer, 16, tmp_path / "cache")) == intact
    assert tokenizer.calls == 2


def test_a_cache_that_cannot_be_written_is_done_without(tokenizer, tmp_path, caplog):
    lines = write_lines(tmp_path / "corpus.txt")
    (tmp_path / "cache").write_text("a file where the cache folder should be")
    with caplog.at_level(logging.WARNING):
        table = read_corpus(tmp_path / "corpus.txt", tokenizer, 16, tmp_path / "cache")
    assert rows_of(table) == expected_rows(lines, tokenizer, 16)
    assert "could not be cached" in caplog.text


# ---------------------------------------------------------------------------------------------- wrong files

WRONG = {
    "empty": (b"", "holds no text"),
    "blank": (b" \n\t\r\n", "holds no text"),
    "too short": (b"a\nb\n", "holds no text"),
    "encoding": (b"good film\n\nok\xff\n", r"corpus\.txt:3: not UTF-8 \(byte 0xff\)"),
    "cut off": ("good film\nthe plot é".encode()[:-1], r"corpus\.txt:2: not UTF-8 \(byte 0xc3\)"),
}


@pytest.mark.parametrize("case", WRONG)
def test_a_wrong_file_is_named(tokenizer, tmp_path, case):
    content, message = WRONG[case]
    (tmp_path / "corpus.txt").write_bytes(content)
    with pytest.raises(DataError, match=message):
        read_corpus(tmp_path / "corpus.txt", tokenizer, 16, tmp_path / "cache")
    assert not list(tmp_path.glob("cache/tokens/*"))  # nothing half made is left


def test_a_wrong_place_is_named(tokenizer, tmp_path):
    with pytest.raises(DataError, match=r"task\.data: .*nowhere: no such file or folder"):
        read_corpus(tmp_path / "nowhere", tokenizer, 16)
    folder = tmp_path / "corpus"
    folder.mkdir()
    with pytest.raises(DataError, match=r"holds no \.txt or \.tfrecord file; the folder is empty"):
        read_corpus(folder, tokenizer, 16)
    (folder / "dev.txt").write_text("good film\n")
    with pytest.raises(DataError, match=r"only files that are not for training; the folder holds dev\.txt"):
        read_corpus(folder, tokenizer, 16)
    with pytest.raises(DataError, match=r"needs a tokenizer of word pieces"):
        read_corpus(folder / "dev.txt", build_words(["good film"], 10), 16)


# ---------------------------------------------------------------------------------------------- a distillation

# MindSpore compiles ten seconds for each run; what is read is the same for all, and test_stages trains on hidden states alone.
@pytest.mark.only_backend("torch", "oneflow")
def test_general_distillation_runs_on_it(backend_name, pytestconfig, tiny_model, tmp_path):
    """The rows of text files and of records are the same, and so is the loss."""
    from rich.console import Console

    from crossdistil.core.data.records.tfrecord import make_example, write_records

    texts = [text for text in tiny.sentences(40, seed=8)[0] if len(text.split()) > 1]
    (tmp_path / "corpus.txt").write_text("\n".join(texts))
    write_records(tmp_path / "corpus.tfrecord", (make_example({"text": [text.encode()]}) for text in texts))
    losses = []
    for name in ("txt", "tfrecord"):
        tree = tiny.kd_recipe(tmp_path, tiny_model, steps=4, dropout=0.0, log_every=1)
        tree["task"] = {"name": "corpus", "kind": "text", "data": str(tmp_path / f"corpus.{name}"), "max_length": 16}
        tree["stages"][0]["objective"] = [{"loss": "hidden_mse", "layers": "uniform"}]
        options = RunOptions(backend_name, EngineOptions(pytestconfig.getoption("--device")), tmp_path / f"run-{name}")
        execute(parse_recipe(tree, "test"), "test", options, Console(quiet=True))
        lines = (tmp_path / f"run-{name}" / "metrics.jsonl").read_text().splitlines()
        losses.append([json.loads(line)["loss"] for line in lines])
    assert len(losses[0]) == 4 and losses[0] == losses[-1]
    assert losses[0][0] > losses[0][-1] > 0
