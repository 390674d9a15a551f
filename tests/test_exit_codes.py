"""Exit functions of a framework that ends a process itself see with which exit code it was to end."""

from __future__ import annotations

import subprocess
import sys

import pytest

PROGRAM = """
import atexit, os, sys
from crossdistil.core.app import cli
from crossdistil.core.app.interruption import Saved
from crossdistil.core.errors import CrossdistilError
from crossdistil.core.processes import ExitCode

def app(*arguments, **options):
    {body}

found = ExitCode()
cli.app = app
atexit.register(lambda: os._exit(found.code))
cli.main()
"""


@pytest.mark.parametrize(
    ("body", "code"),
    [
        ("return 0", 0),
        ("return 1", 1),
        ("raise Saved(143)", 143),
        ("sys.exit(130)", 130),
        ("raise KeyboardInterrupt", 130),
        ("raise CrossdistilError('wrong')", 2),
        ("raise ValueError('a fault of ours')", 1),
    ],
)
def test_the_code_of_each_way_to_end(body, code):
    ended = subprocess.run([sys.executable, "-c", PROGRAM.replace("{body}", body)], capture_output=True, text=True)
    assert ended.returncode == code, ended.stderr
