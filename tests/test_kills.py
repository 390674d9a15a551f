"""Commands that are killed at their file operations: the old or the new result is there at each of them, the next command goes on
rightly, and nothing is left behind. `benchmarks/robustness/kills.py` does it at all operations of all commands."""

from __future__ import annotations

import shutil

import pytest

from crossdistil.core import files
from crossdistil.core.data.shares import Part, complete_shares
from crossdistil.core.data.token_folder import OWN
from crossdistil.core.data.token_shares import merge_stores, write_store
from crossdistil.core.data.tokenize import load_tokenizer
from crossdistil.core.errors import DataError
from crossdistil.core.files import replace_folder, write_text
from crossdistil.core.locks import lock_file
from crossdistil.tests import tiny
from crossdistil.tests.kill_points import command, content, forked, killed_at, points
from crossdistil.tests.mlm_cases import make, write_corpus, write_vocabulary
from crossdistil.tests.wrong_input_files import write_model


def write(folder, text):
    """A folder with a folder in it, in place of what is there."""
    with replace_folder(folder) as temporary:
        (temporary / "inner").mkdir()
        (temporary / "inner" / "file").write_text(text * 1000)
        (temporary / "file").write_text(text)


@pytest.mark.parametrize("system", ["exchanges", "cannot exchange"])
def test_a_folder_is_the_old_or_the_new_one(tmp_path, system, monkeypatch):
    if system == "cannot exchange":
        monkeypatch.setattr(files, "_exchange", lambda one, other: False)
    log, place = tmp_path / "log", tmp_path / "place"
    write(tmp_path / "old", "old")
    write(tmp_path / "new", "new")
    old, new = content(tmp_path / "old"), content(tmp_path / "new")
    for number in points():
        shutil.rmtree(place, ignore_errors=True)
        shutil.copytree(tmp_path / "old", place / "out")
        if not killed_at(place, number, lambda: write(place / "out", "new"), log):
            break
        if system == "exchanges":
            assert content(place / "out") in (old, new), number
        write_text(place / "other", "the next command that writes there")
        assert content(place / "out") in (old, new), number
        assert {path.name for path in place.iterdir()} == {"out", "other"}, number
    assert number > 20 and content(place / "out") == new


def test_a_file_is_the_old_or_the_new_one(tmp_path):
    log, place = tmp_path / "log", tmp_path / "place"
    for number in points():
        shutil.rmtree(place, ignore_errors=True)
        write_text(place / "file", "old")
        if not killed_at(place, number, lambda: write_text(place / "file", "new"), log):
            break
        assert (place / "file").read_text() in ("old", "new"), number
        write_text(place / "other", "the next command that writes there")
        assert {path.name for path in place.iterdir()} == {"file", "other"}, number
    assert number > 8 and (place / "file").read_text() == "new"


def test_a_conversion_goes_on(tmp_path):
    write_model(tmp_path / "model")
    log, out = tmp_path / "log", tmp_path / "place" / "out"
    convert = command("convert", tmp_path / "model", out, "--to", "mindspore", "--overwrite")
    assert forked(convert, log) == 0
    expected = content(out.parent)
    for number in points(9):
        shutil.rmtree(out.parent)
        if not killed_at(out.parent, number, convert, log):
            break
        assert forked(convert, log) == 0 and content(out.parent) == expected, (number, log.read_text())
    assert number > 15 and content(out.parent) == expected


def test_examples_of_a_corpus_go_on(tmp_path):
    vocabulary, text = write_vocabulary(tmp_path / "vocabulary"), write_corpus(tmp_path / "text", 5)
    out, log, settings = tmp_path / "place" / "out", tmp_path / "log", {"dupe_factor": 1, "blocks_per_shard": 1}
    make(tmp_path / "whole", text, vocabulary, **settings)
    expected = content(tmp_path / "whole")
    for number in points(3):
        shutil.rmtree(out.parent, ignore_errors=True)
        if not killed_at(out.parent, number, lambda: make(out, text, vocabulary, **settings), log):
            break
        assert forked(lambda: make(out, text, vocabulary, resume=True, **settings), log) == 0, (number, log.read_text())
        assert content(out) == expected, number
    assert number > 30 and content(out) == expected


def test_a_token_store_goes_on_and_shares_are_put_together(tmp_path):
    tokenizer, text = load_tokenizer(tiny.write_vocabulary(tmp_path / "vocabulary")), write_corpus(tmp_path / "text.txt", 5)
    place, log = tmp_path / "place", tmp_path / "log"

    def write(out, part, resume=True):
        write_store(text, tokenizer, out, part, resume, lambda done, total: None)

    def merge():
        merge_stores(complete_shares([tmp_path / "shares"], OWN), place / "out", lambda done, total: None)

    write(tmp_path / "whole", Part())
    for index in range(2):
        write(tmp_path / "shares", Part(index, 2))
    expected = content(tmp_path / "whole")
    for work, again in (
        (lambda: write(place / "out", Part(), resume=False), lambda: write(place / "out", Part())),
        (merge, merge),
    ):
        for number in points(3):
            shutil.rmtree(place, ignore_errors=True)
            place.mkdir()
            if not killed_at(place, number, work, log):
                break
            assert work is not merge or not (place / "out").exists() or content(place / "out") == expected
            if not (work is merge and (place / "out").exists()):
                assert forked(again, log) == 0, (number, log.read_text())
            assert content(place / "out") == expected, number
        assert number > 20 and content(place / "out") == expected


def test_two_processes_never_write_the_same_records(tmp_path):
    vocabulary, text, out = write_vocabulary(tmp_path / "vocabulary"), write_corpus(tmp_path / "text", 5), tmp_path / "out"
    out.mkdir()
    for shared in (False, True):
        lock = lock_file(out / ".lock", shared)
        with pytest.raises(DataError, match="another process is writing to it"):
            make(out, text, vocabulary, resume=True)
        if shared:
            make(out, text, vocabulary, resume=True, part=Part(0, 2))  # as another machine's part
        lock.release()
    assert not list(out.glob(".lock*"))


def test_a_shard_that_is_not_as_its_note_says_is_made_again(tmp_path, caplog):
    vocabulary, text, out = write_vocabulary(tmp_path / "vocabulary"), write_corpus(tmp_path / "text", 5), tmp_path / "out"
    make(out, text, vocabulary)
    expected = content(out)
    shard, note = out / "examples-00000.tfrecord", out / "examples-00000.json"
    for path, damaged in (
        (shard, b""),
        (shard, shard.read_bytes()[:-1] + b"\0"),
        (note, note.read_bytes().replace(b'"documents": 5', b'"documents": 4')),
        (note, note.read_bytes().replace(b'"note_crc32c"', b'"note_crc72c"')),
        (note, b"[" * 100_000),
    ):
        assert path.read_bytes() != damaged
        path.write_bytes(damaged)
        caplog.clear()
        make(out, text, vocabulary, resume=True)
        assert content(out) == expected and f"{path}: is not as it was written, and is made again" in caplog.text
