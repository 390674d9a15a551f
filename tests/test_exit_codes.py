"""Exit functions of a framework that ends a process itself see with which exit code it was to end."""

from __future__ import annotations

import json
import subprocess
import sys

WAYS = {
    "return 0": 0,
    "return 1": 1,
    "raise Saved(143)": 143,
    "sys.exit(130)": 130,
    "raise KeyboardInterrupt": 130,
    "raise CrossdistilError('wrong')": 2,
    "raise ValueError('a fault of ours')": 1,
}
# Each in a fork of one process, which has imported what it takes.
PROGRAM = """
import atexit, json, os, sys
from crossdistil.core.app import cli
from crossdistil.core.app.interruption import Saved
from crossdistil.core.errors import CrossdistilError
from crossdistil.core.processes import ExitCode

found = {}
for way in json.loads(sys.argv[1]):
    child = os.fork()
    if not child:
        break
    found[way] = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
else:
    print(json.dumps(found))
    sys.exit()

def app(*arguments, **options):
    inner = {}
    exec("def body():\\n    " + way, globals(), inner)
    return inner["body"]()

found = ExitCode()
cli.app = app
atexit.register(lambda: os._exit(found.code))
cli.main()
"""


def test_the_code_of_each_way_to_end():
    ended = subprocess.run([sys.executable, "-c", PROGRAM, json.dumps(list(WAYS))], capture_output=True, text=True)
    assert ended.returncode == 0 and json.loads(ended.stdout) == WAYS, ended.stderr
