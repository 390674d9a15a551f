"""Wrong and hostile requests on raw sockets, given to a running service: each gets the right status, and the service lives.

    python benchmarks/robustness/hostile_requests.py [--every N] [--seed 1] [--out FILE]

Each kind (`hostile_kinds.py`) is a sequence of bytes that no client library would send, or that is HTTP and wrong, with the
statuses that may answer it; none of them is 500. After each the service must answer a good request; at the end its memory must
be what it was, but for some MiB, and its log empty. `--every N` takes each N-th kind.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import socket
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

from hostile_kinds import BODY_KIB, CLOSED, TEXTS, Kind, kinds

from crossdistil.core.processor import vendor
from crossdistil.tests import tiny
from crossdistil.tests.service_process import Service, service

RESULT = Path(__file__).resolve().parents[1] / "results" / "robustness_hostile_requests.json"
MEMORY = 64 << 20
"""Bytes that the service may grow by."""
OPTIONS = ("--max-body-kib", BODY_KIB, "--max-texts", TEXTS, "--max-connections", 64, "--timeout", 20)
PATIENCE = 15.0  # seconds: the service ends what takes longer than ten


def answers_of(port: int, kind: Kind) -> list[int | str]:
    """The statuses that come back, and how it ends if that is before the last was there."""
    found: list[int | str] = []
    with socket.create_connection(("127.0.0.1", port), timeout=PATIENCE) as client:
        with contextlib.suppress(ConnectionError):  # it need not listen to the end
            for number, part in enumerate(kind.parts):
                if number:
                    time.sleep(kind.pause)
                client.sendall(part)
            if kind.half_close:
                client.shutdown(socket.SHUT_WR)
        data = b""
        while len(found) < kind.answers:
            status, data = _next(client, data)
            found.append(status)
            if status == CLOSED:
                break
    return found


def _next(client: socket.socket, data: bytes) -> tuple[int | str, bytes]:
    """(status of the next answer, what came after it)."""
    try:
        while b"\r\n\r\n" not in data:
            part = client.recv(1 << 16)
            if not part:
                return CLOSED, b""
            data += part
        head, _, rest = data.partition(b"\r\n\r\n")
        status = int(head.split()[1])
        lines = dict(line.lower().split(b": ", 1) for line in head.split(b"\r\n")[1:])
        if status == 100:
            return _next(client, rest)
        length = int(lines.get(b"content-length", 0))
        while len(rest) < length:  # of HEAD nothing comes, and the connection is not used any more
            part = client.recv(1 << 16)
            if not part:
                break
            rest += part
        return status, rest[length:]
    except ConnectionError:
        return CLOSED, b""
    except TimeoutError:
        return "nothing", b""


def drive(running: Service, seed: int = 1, every: int = 1) -> dict:
    """Send each kind; counts, failures, and the memory before and after."""
    statuses, failures, memory = Counter(), [], 0
    chosen = list(kinds(seed))[::every]
    for number, kind in enumerate(chosen):
        found = answers_of(running.port, kind)
        statuses[str(found[-1])] += 1
        fine = found[-1] in kind.statuses and all(status == 200 for status in found[:-1])
        if not fine:
            failures.append({"kind": kind.name, "got": found, "expected": sorted(map(str, kind.statuses))})
        if running.process.poll() is not None or running.predict({"text": "a fine film"})[0] != 200:
            failures.append({"kind": kind.name, "got": "the service does not answer any more"})
            break
        if number == len(chosen) // 4:  # all paths were taken once
            memory = running.memory
    grown = running.memory - memory
    if grown > MEMORY:
        failures.append({"kind": "memory", "got": grown, "expected": MEMORY})
    return {"kinds": len(chosen), "statuses": dict(sorted(statuses.items())), "memory_grown_mib": round(grown / 2**20, 1),
        "failures": failures}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--every", type=int, default=1)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--out", type=Path, help=f"default: {RESULT.name} for all kinds")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="crossdistil-hostile-") as folder:
        tiny.write_model(Path(folder) / "model")
        started = time.monotonic()
        with service(Path(folder) / "model", *OPTIONS) as running:
            found = drive(running, options.seed, options.every)
            code, _, errors = running.stop()
    log = [line for line in errors.splitlines() if "is run as ONNX" not in line]
    if code or log:
        found["failures"].append({"kind": "end", "got": code, "log": log[-20:]})
    found |= {"seed": options.seed, "seconds": round(time.monotonic() - started), "processor": vendor(),
        "date": time.strftime("%Y-%m-%d")}
    text = json.dumps(found, indent=2) + "\n"
    out = options.out or (RESULT if options.every == 1 else None)
    if out is not None:
        out.write_text(text, encoding="utf-8")
    print(text)
    sys.exit(1 if found["failures"] else 0)


if __name__ == "__main__":
    main()
