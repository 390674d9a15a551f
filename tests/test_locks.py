"""Locks and temporaries: one holder at a time, dead ones are removed, living ones never, and without locks it is told."""

from __future__ import annotations

import errno
import fcntl
import json
import os
import shutil
import signal
import subprocess
import sys
import time

import pytest

from crossdistil.core import workplaces
from crossdistil.core.cache_folder import kind_folder
from crossdistil.core.errors import RunFolderError
from crossdistil.core.files import clear_disk_errors, replace_folder, write_text
from crossdistil.core.locks import hold_folder, lock_file
from crossdistil.core.workplaces import workplace
from crossdistil.tests.kill_points import forked
from crossdistil.tests.wrong_input_files import crossdistil


def elsewhere(tmp_path, function) -> bool:
    """What a function gives in another process."""
    return forked(lambda: sys.exit(0 if function() else 3), tmp_path / "log") == 0


def killed_within(target) -> None:
    """What a process leaves that is killed while it writes `target`."""

    def die():
        with workplace(target) as working:
            (working / "half").write_text("x")
            os.kill(os.getpid(), signal.SIGKILL)

    assert forked(die, target.with_name("log")) == -signal.SIGKILL


def test_a_lock_is_held_by_one(tmp_path):
    path = tmp_path / ".lock"

    def lockable():
        try:
            lock_file(path)
        except BlockingIOError:
            return False
        return True

    lock = lock_file(path)
    assert not elsewhere(tmp_path, lockable)
    # A process that opened the file before it was given back holds a file that is not the one of that name.
    late = os.open(path, os.O_RDWR)
    lock.release()
    lock.release()
    assert not path.exists()
    fcntl.flock(late, fcntl.LOCK_EX)
    second = lock_file(path)
    assert not elsewhere(tmp_path, lockable)
    second.release()
    os.close(late)
    shared = [lock_file(path, shared=True) for _ in range(2)]
    shared[0].release()
    assert path.exists() and not elsewhere(tmp_path, lockable)
    shared[1].release()
    assert not path.exists() and elsewhere(tmp_path, lockable)


def test_only_dead_temporaries_are_removed(tmp_path):
    target, mine = tmp_path / "target", tmp_path / "mine.tmp-backup"
    mine.mkdir()
    with workplace(target) as living:
        (living / "half").write_text("x")
        killed_within(target)
        (tmp_path / "x.tmp-1-0123abcd").mkdir()
        assert len(list(tmp_path.glob("*.tmp-*"))) == 4
        assert elsewhere(tmp_path, lambda: write_text(tmp_path / "other", "x") is None)
        assert set(tmp_path.glob("*.tmp-*")) == {living, mine} and (living / "half").read_text() == "x"
    assert list(tmp_path.glob("*.tmp-*")) == [mine]


@pytest.mark.parametrize("number", [errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS])
def test_without_locks_processes_are_looked_for(tmp_path, monkeypatch, caplog, number):
    def refuse(*_):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(fcntl, "flock", refuse)
    with workplace(tmp_path / "target") as living:
        killed_within(tmp_path / "target")
        write_text(tmp_path / "other", "x")
        assert list(tmp_path.glob("*.tmp-*")) == [living]
        note = living / ".held"
        note.write_text(json.dumps(json.loads(note.read_text()) | {"host": "another"}))
        monkeypatch.setattr(workplaces, "_started", lambda pid: None)
        write_text(tmp_path / "other", "x")
        assert living.exists(), "of another machine"
    lock = lock_file(tmp_path / ".lock")
    assert [record.getMessage() for record in caplog.records] == [
        f"{tmp_path}: this file system has no locks ({os.strerror(number)}): see to it that no other process works there"
    ]
    lock.release()


def test_what_is_used_stays_in_the_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("CROSSDISTIL_CACHE", str(tmp_path / "cache"))
    for place in ("teacher/used", "teacher/free", "tokens/free"):
        (tmp_path / "cache" / place).mkdir(parents=True)
    process = subprocess.Popen(
        [sys.executable, "-c", "import sys\nfrom crossdistil.core import locks, workplaces\nfrom pathlib import Path\n"
         "base = Path(sys.argv[1])\nlocks.hold_folder(base / 'teacher' / 'used')\n"
         "with workplaces.workplace(base / 'tokens' / 'made'):\n    print('ready', flush=True)\n    sys.stdin.read()",
         str(tmp_path / "cache")],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE,
    )  # fmt: skip
    with process:
        process.stdout.readline()
        answer = crossdistil("cache", "--clear")
        assert answer.code == 0 and "removed 2 entries" in answer.stdout
        assert "2 entries are in use by a run or another command and left alone" in answer.stdout
        assert [path.name for path in (tmp_path / "cache").glob("teacher/*")] == ["used"]
        assert len(list((tmp_path / "cache").glob("tokens/made.tmp-*"))) == 1
        process.kill()
    assert "removed 2 entries" in crossdistil("cache", "--clear").stdout and not list((tmp_path / "cache").glob("*/*"))
    assert hold_folder(kind_folder("teacher")) and not hold_folder(kind_folder("teacher") / "used")


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EACCES, errno.EROFS, errno.EMFILE, errno.ENOENT, errno.EIO])
def test_what_a_disk_refuses_is_one_line(tmp_path, number):
    with pytest.raises(RunFolderError) as caught, clear_disk_errors(tmp_path / "out"):
        raise OSError(number, os.strerror(number), str(tmp_path / "out" / "file"))
    told = str(caught.value)
    assert told.startswith(f"{tmp_path}/out: cannot be written: {os.strerror(number)}") and "\n" not in told


def test_an_error_of_another_file_names_it(tmp_path):
    with pytest.raises(RunFolderError, match="out: cannot be written: /none/source: No such file"):
        with replace_folder(tmp_path / "out"):
            open("/none/source")


def test_a_folder_that_vanishes(tmp_path):
    with pytest.raises(RunFolderError, match="No such file or directory .was a folder removed or moved"):
        with replace_folder(tmp_path / "run" / "out"):
            shutil.rmtree(tmp_path / "run")


def test_links_stay_links(tmp_path):
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to("real")
    (tmp_path / "text").symlink_to("real/text")
    with replace_folder(tmp_path / "link") as temporary:
        (temporary / "file").write_text("new")
    write_text(tmp_path / "text", "new")
    assert (tmp_path / "link").is_symlink() and (tmp_path / "real" / "file").read_text() == "new"
    assert (tmp_path / "text").is_symlink() and (tmp_path / "real" / "text").read_text() == "new"


def test_what_is_flushed_when(tmp_path, monkeypatch):
    """Files before the folders that hold them, all of them before the name, the folder around it afterwards."""
    done, flush, rename = [], os.fsync, os.rename

    def seen(descriptor):
        done.append(os.readlink(f"/proc/self/fd/{descriptor}").partition(".tmp-")[2].partition("/")[2] or "around")
        flush(descriptor)

    monkeypatch.setattr(os, "fsync", seen)
    monkeypatch.setattr(os, "rename", lambda *names: (done.append("rename"), rename(*names)))
    with replace_folder(tmp_path / "out") as temporary:
        (temporary / "inner").mkdir()
        (temporary / "inner" / "file").write_text("x")
        (temporary / "file").write_text("x")
    assert done == ["out/inner/file", "out/inner", "out/file", "out", "rename", "around"]


def test_a_process_ends_with_the_one_that_started_it(tmp_path):
    child = (
        "from crossdistil.core.processes import end_with_parent\nend_with_parent()\nprint('ready', flush=True)\n"
        "import time\ntime.sleep(60)"
    )
    parent = (
        "import subprocess, sys\nfrom crossdistil.core.processes import child_environment\n"
        "child = subprocess.Popen([sys.executable, '-c', sys.argv[1]], env=child_environment(), stdout=subprocess.PIPE)\n"
        "child.stdout.readline()\nprint(child.pid, flush=True)\nimport time\ntime.sleep(60)"
    )
    with subprocess.Popen([sys.executable, "-c", parent, child], stdout=subprocess.PIPE) as process:
        number = int(process.stdout.readline())
        process.kill()
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline and os.path.exists(f"/proc/{number}"):
        with open(f"/proc/{number}/stat") as file:
            if file.read().rpartition(")")[2].split()[0] == "Z":  # nobody asks how it ended
                break
        time.sleep(0.01)
    else:
        assert not os.path.exists(f"/proc/{number}")
