"""A service in a process of its own, on a free port of loopback, and requests to it."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from crossdistil.core.app.exporting import ExportOptions, export
from crossdistil.core.checkpoint import load_model
from crossdistil.core.checkpoint_saving import save_model
from crossdistil.core.data.tokenize import load_tokenizer
from crossdistil.tests import tiny

JSON = {"Content-Type": "application/json"}
WAIT = 120


@dataclass
class Service:
    """A running `crossdistil serve`."""

    process: subprocess.Popen
    port: int
    told: str
    """The line that says where it is."""

    def request(self, method: str, path: str, body: Any = None, headers: dict[str, str] | None = None) -> tuple[int, Any, dict]:
        """(status, the JSON or else the text of the answer, the headers in lower case); what is no bytes is sent as JSON."""
        given = headers if headers is not None else {} if body is None else JSON
        data = body if body is None or isinstance(body, bytes) else json.dumps(body).encode()
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=WAIT)
        try:
            connection.request(method, path, data, given)
            answer = connection.getresponse()
            text, found = answer.read(), {name.lower(): value for name, value in answer.getheaders()}
        finally:
            connection.close()
        is_json = found.get("content-type") == "application/json"
        return answer.status, json.loads(text) if is_json and text else text.decode(), found

    def predict(self, body: Any, **headers: str) -> tuple[int, Any, dict]:
        """A request to /predict."""
        return self.request("POST", "/predict", body, {**JSON, **headers})

    def counted(self, name: str, label: str = "", **headers: str) -> float:
        """The sum of a metric over its labels, or over those with `label` among them."""
        lines = self.request("GET", "/metrics", headers=headers)[1].splitlines()
        return sum(float(line.rpartition(" ")[2]) for line in lines if re.match(rf"{name}(\{{|\s)", line) and label in line)

    @property
    def memory(self) -> int:
        """Resident bytes."""
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        return int(re.search(r"VmRSS:\s+(\d+)", status)[1]) << 10

    def stop(self, number: int = signal.SIGTERM) -> tuple[int, str, str]:
        """(exit code, standard output, standard error) after a signal."""
        self.process.send_signal(number)
        output, errors = self.process.communicate(timeout=WAIT)
        return self.process.returncode, output, errors


@contextlib.contextmanager
def service(model: Path, *options: object, **environment: str) -> Iterator[Service]:
    """A service that takes requests; killed at the end if it still runs."""
    if "--port" not in options:
        options = ("--port", "0", *options)
    command = [sys.executable, "-m", "crossdistil", "serve", str(model), *map(str, options)]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True, "encoding": "utf-8"}
    process = subprocess.Popen(command, env={**os.environ, **environment}, **pipes)
    try:
        line = process.stdout.readline()
        found = re.search(r"on http://.*:(\d+)/", line)
        if found is None:
            raise AssertionError(f"no service: {line}{process.communicate(timeout=WAIT)}")
        yield Service(process, int(found[1]), line)
    finally:
        if process.poll() is None:
            process.kill()
        process.wait()
        process.stdout.close()
        process.stderr.close()


def write_exported(folder: Path, length: int = 24) -> Path:
    """A folder that a tiny model was exported to, which knows that it was trained on SST-2."""
    tiny.write_model(folder / "plain")
    about = {"task": {"name": "sst-2", "max_length": length}, "max_length": length}
    save_model(replace(load_model(folder / "plain"), about=about), folder / "model", load_tokenizer(folder / "plain"))
    export(folder / "model", folder / "exported", ExportOptions(), print)
    return folder / "exported"


def until(happens: Any, seconds: float = 20.0) -> None:
    """Wait for `happens()`."""
    end = time.monotonic() + seconds
    while not happens():
        assert time.monotonic() < end
        time.sleep(0.01)
