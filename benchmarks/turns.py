"""Processes that take turns, so that what is compared meets the same machine: each waits while another works.

Such a process takes a line of standard input for each turn and answers with a line of JSON; its first answer comes unasked.
"""

from __future__ import annotations

import json
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

ANSWER = "answer "


def answer(content: Any) -> None:
    """In the process: what a turn gave."""
    print(ANSWER + json.dumps(content), flush=True)


class TurnTaker:
    """The other end: a process that was started with `command`, `name` in messages."""

    def __init__(self, name: str, command: Sequence[str | Path], environment: Mapping[str, str], folder: Path | None = None):
        self.name = name
        self._process = subprocess.Popen(
            list(map(str, command)), stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment, cwd=folder
        )
        self.about = self._answer()
        """Its first answer."""

    def turn(self) -> Any:
        """Let it take a turn; returns its answer. SystemExit where it has ended."""
        self._process.stdin.write("go\n")
        self._process.stdin.flush()
        return self._answer()

    def stop(self) -> None:
        """No more turns."""
        self._process.stdin.close()
        self._process.wait()

    def _answer(self) -> Any:
        for line in self._process.stdout:  # frameworks print things of their own
            if line.startswith(ANSWER):
                return json.loads(line.removeprefix(ANSWER))
        raise SystemExit(f"{self.name}: the process ended with exit code {self._process.wait()}")
