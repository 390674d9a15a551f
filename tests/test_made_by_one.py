"""What several processes need at the same moment is made by one of them: tokens, stores, converted checkpoints."""

from __future__ import annotations

import multiprocessing
import os
import signal
import time
from pathlib import Path

import numpy as np

from crossdistil.core import cache_folder, locks
from crossdistil.core.app import converted, models
from crossdistil.core.data.token_cache import cached_arrays
from crossdistil.core.locks import made_by_one
from crossdistil.core.read_section import ReadSection

FORK = multiprocessing.get_context("fork")
TYPES = {"ids": np.dtype("<i4")}


def at_once(count: int, function, *arguments) -> list:
    """What `function(number, *arguments)` returns in each of `count` processes that begin it at the same moment."""
    barrier, answers = FORK.Barrier(count), FORK.SimpleQueue()

    def run(number: int) -> None:
        barrier.wait()
        answers.put((number, function(number, *arguments)))

    processes = [FORK.Process(target=run, args=(number,)) for number in range(count)]
    for process in processes:
        process.start()
    found = dict(answers.get() for _ in range(count))
    for process in processes:
        process.join()
    return [found[number] for number in range(count)]


def made(log: Path):
    """Pieces of an entry; who makes it leaves a line."""
    with log.open("a") as file:
        file.write(f"{os.getpid()}\n")
    yield {"ids": np.arange(5)}
    time.sleep(0.3)
    yield {"ids": np.arange(3)}


def cached(number: int, cache: Path, log: Path, key: str = "a") -> list[int]:
    """The entry of that key; its maker tells."""
    return cached_arrays("tokens", key, cache, TYPES, lambda: made(log))["ids"].tolist()


def test_an_entry_is_made_once(tmp_path):
    found = at_once(4, cached, tmp_path / "cache", tmp_path / "log")
    assert found == [[0, 1, 2, 3, 4, 0, 1, 2]] * 4
    assert len((tmp_path / "log").read_text().splitlines()) == 1
    assert [path.name for path in (tmp_path / "cache" / "tokens").iterdir()] == ["a"]


def test_two_entries_are_made_at_the_same_time(tmp_path):
    started = time.monotonic()
    at_once(2, lambda number: cached(number, tmp_path / "cache", tmp_path / "log", f"key{number}"))
    assert len((tmp_path / "log").read_text().splitlines()) == 2
    assert time.monotonic() - started < 60  # a process that waited for the other's entry would not end


def test_the_next_one_makes_what_a_killed_process_did_not(tmp_path, monkeypatch):
    cache, log = tmp_path / "cache", tmp_path / "log"

    def die():
        made_parts = made(log)
        yield next(made_parts)
        os.kill(os.getpid(), signal.SIGKILL)

    process = FORK.Process(target=lambda: cached_arrays("tokens", "a", cache, TYPES, die))
    process.start()
    process.join()
    assert process.exitcode == -signal.SIGKILL
    assert (cache / "tokens" / ".a.making").is_file()
    assert cached(0, cache, log) == [0, 1, 2, 3, 4, 0, 1, 2]
    assert [path.name for path in (cache / "tokens").iterdir()] == ["a"]

    # What is left beside an entry is none itself, and goes with the others.
    (cache / "tokens" / ".b.making").touch()
    monkeypatch.setenv("CROSSDISTIL_CACHE", str(cache))
    assert [entry.folder.name for entry in cache_folder.entries()] == ["a"]
    assert cache_folder.remove(cache_folder.entries()) == [] == list((cache / "tokens").iterdir())


def test_who_waits_long_says_so(tmp_path, monkeypatch, caplog):
    monkeypatch.setattr(locks, "_PATIENCE_SECONDS", 0.05)
    ready = FORK.Event()

    def hold():
        with made_by_one(tmp_path / "entry"):
            ready.set()
            time.sleep(0.3)

    process = FORK.Process(target=hold)
    process.start()
    ready.wait()
    with made_by_one(tmp_path / "entry"):
        process.join()
    assert [record.getMessage() for record in caplog.records] == [
        f"{tmp_path / 'entry'}: another process is making it; this one waits"
    ]


def test_a_cache_that_cannot_be_written_is_done_without_by_each(tmp_path):
    (tmp_path / "cache").write_text("a file where a folder is to be")
    found = at_once(2, cached, tmp_path / "cache", tmp_path / "log")
    assert found == [[0, 1, 2, 3, 4, 0, 1, 2]] * 2
    assert len((tmp_path / "log").read_text().splitlines()) == 2


def test_a_checkpoint_is_converted_once(tmp_path, monkeypatch):
    log = tmp_path / "log"

    def convert(path: Path, folder: Path, read: ReadSection) -> None:
        with log.open("a") as file:
            file.write("converted\n")
        time.sleep(0.3)
        folder.mkdir(parents=True)

    monkeypatch.setenv("CROSSDISTIL_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(converted, "_convert", convert)
    monkeypatch.setattr(converted, "is_checkpoint", lambda path: True)
    monkeypatch.setattr(models, "is_canonical", lambda path: False)
    (tmp_path / "model").mkdir()
    found = at_once(3, lambda number: str(models.model_folder(tmp_path / "model")))
    assert len(set(found)) == 1 and log.read_text() == "converted\n"
