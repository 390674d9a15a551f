"""`crossdistil cache`: what it counts, what it removes, and what it leaves alone."""

from __future__ import annotations

import json
import os
import subprocess
import time
from pathlib import Path

import pytest

from crossdistil.core.app import models
from crossdistil.core.cache_folder import KINDS, kind_folder
from crossdistil.tests import tiny
from crossdistil.tests.wrong_input_files import crossdistil


@pytest.fixture
def base(tmp_path, monkeypatch):
    """A cache with entries of three kinds, of which the teacher's is ten days old, beside a folder that is not of the cache."""
    folder = tmp_path / "cache"
    monkeypatch.setenv("CROSSDISTIL_CACHE", str(folder))
    for place, size in (("tokens/a", 5000), ("tokens/b.tmp-x", 100), ("teacher/c", 70_000), ("mine/d", 10)):
        (folder / place / "part").mkdir(parents=True)
        (folder / place / "part" / "file").write_bytes(bytes(size))
    old = time.time() - 10 * 86400
    os.utime(folder / "teacher" / "c" / "part" / "file", (old, old))
    return folder


def listed(*options):
    answer = crossdistil("cache", "--json", *options)
    assert answer.code == 0
    return json.loads(answer.stdout)["entries"]


def left(base):
    return sorted(str(path.relative_to(base)) for path in base.glob("*/*"))


def test_entries_are_counted_as_du_counts_them(base):
    for entry in listed():
        files = [path for path in Path(entry["folder"]).rglob("*") if path.is_file()]
        counted = subprocess.run(["du", "--block-size=1", "-c", *files], capture_output=True, text=True).stdout
        assert entry["bytes"] == int(counted.splitlines()[-1].split()[0]) > 0
    assert [(entry["kind"], Path(entry["folder"]).name) for entry in listed("--kind", "teacher")] == [("teacher", "c")]
    [old] = listed("--unused-days", "9.5")
    assert old["kind"] == "teacher" and 9.99 < old["days_unused"] < 10.01 and not listed("--unused-days", "11")
    text = crossdistil("cache").stdout
    assert text.startswith(f"{base}: 3 entries, ") and KINDS["teacher"] in text and "10.0 to 10.0 days" in text


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ([], ["mine/d"]),
        (["--kind", "tokens"], ["mine/d", "teacher/c"]),
        (["--unused-days", "9"], ["mine/d", "tokens/a", "tokens/b.tmp-x"]),
        (["--kind", "tokens", "--unused-days", "9"], ["mine/d", "teacher/c", "tokens/a", "tokens/b.tmp-x"]),
    ],
)
def test_what_is_chosen_is_removed_and_nothing_else(base, options, expected):
    count = 4 - len(expected)
    answer = crossdistil("cache", "--clear", *options)
    assert answer.code == 0 and answer.stdout.startswith(f"{base}: removed {count} entr")
    assert left(base) == expected


def test_what_was_removed_is_made_again(base, tmp_path):
    tiny.write_model(tmp_path / "model", tiny.CONFIG)
    assert crossdistil("convert", tmp_path / "model", tmp_path / "google", "--to", "tf").code == 0
    [source] = (path.with_suffix("") for path in (tmp_path / "google").glob("*.index"))
    converted = models.model_folder(source)
    assert converted.parent == kind_folder("converted") and [entry["folder"] for entry in listed("--kind", "converted")] == [
        str(converted)
    ]
    weights = (converted / "model.safetensors").read_bytes()
    assert crossdistil("cache", "--clear", "--kind", "converted").code == 0 and not converted.exists()
    assert models.model_folder(source) == converted and (converted / "model.safetensors").read_bytes() == weights


def test_wrong_use_is_one_line(base, tmp_path, monkeypatch):
    assert crossdistil("cache", "--clear", "--json").messages == ["--json: is for the list, not for --clear"]
    [message] = crossdistil("cache", "--kind", "token").messages
    assert message.startswith("Invalid value for '--kind': 'token' is not one of 'tokens', ")
    assert len(left(base)) == 4
    monkeypatch.setenv("CROSSDISTIL_CACHE", str(tmp_path / "none"))
    assert crossdistil("cache").stdout == f"{tmp_path}/none: 0 entries, 0 bytes\n"


def test_what_cannot_be_removed_is_named(base, monkeypatch):
    def refuse(*_):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(os, "rename", refuse)
    answer = crossdistil("cache", "--clear", "--kind", "teacher")
    assert answer.code == 2 and answer.messages == [f"{base}/teacher/c: could not be removed: Permission denied"]
    assert len(left(base)) == 4
