"""The page on plugins: each block of code is written to a file or run as it stands."""

from __future__ import annotations

import re
import shlex

import pytest

from crossdistil.tests import tiny
from crossdistil.tests.doc_plugins import BLOCKS
from crossdistil.tests.test_plugin_task_kinds import write_stars


@pytest.mark.only_backend("torch")
def test_the_page_is_done_from_top_to_bottom(tmp_path, monkeypatch, said):
    tiny.write_task(tmp_path / "task", 24, 12)
    tiny.write_model(tmp_path / "model")
    write_stars(tmp_path / "stars")
    monkeypatch.chdir(tmp_path)
    ran = []
    for language, text in BLOCKS:
        if language == "sh":
            for line in text.splitlines():
                words = shlex.split(line)
                assert words[0] == "crossdistil"
                # One backend here; `check` of the others is tested with them.
                option = {"check": "--backends", "run": "--backend", "evaluate": "--backend"}.get(words[1])
                more = [] if option is None or option in words else [option, "torch"]
                code, printed, errors = said(*words[1:], *more)
                assert code == 0, (line, errors)
                ran.append((words[1], printed))
        else:
            first = text.partition("\n")[0]
            assert re.fullmatch(r"# [\w.]+", first), "a block begins with the name of its file"
            (tmp_path / first[2:]).write_text(text, encoding="utf-8")
    assert [command for command, _ in ran] == [
        *("check", "recipes", "run", "recipes", "run", "evaluate"),
        *("check", "run", "run"),
        *("check", "run", "predict", "evaluate", "export"),
        *("run", "predict", "evaluate", "inspect", "convert", "export"),
        *("backends", "run", "crosscheck"),
    ]
    printed = dict(ran)
    assert "jeffreys" in ran[0][1] and "lion" in ran[6][1] and "balanced_accuracy" in ran[5][1]
    assert "cumulative" in printed["check"]
    assert '"label"' in printed["predict"] and "data2vec-text" in printed["inspect"]
    assert "repeatable" in printed["backends"] and "agree" in printed["crosscheck"]
    assert (tmp_path / "runs" / "jeffreys" / "student" / "config.json").is_file()


def test_the_loss_has_25_lines_of_its_own():
    code = next(text for _, text in BLOCKS if "register_loss(" in text)
    assert sum(bool(line.strip()) for line in code.splitlines()[1:]) <= 26
