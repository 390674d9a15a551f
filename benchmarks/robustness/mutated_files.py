"""Damaged files for every binary reader: bits flipped, ends cut off, lengths blown up, blocks exchanged.

    python benchmarks/robustness/mutated_files.py                 # 240,000 reads, about 25 minutes on 2 busy processors
    python benchmarks/robustness/mutated_files.py --reads 1000 --readers tfrecord "torch zip"

Each reader runs in a process of its own that may take 1 GiB more than it has at its start, and has five seconds for a read. A
read must end in a right reading or in a CrossdistilError of one line; where the format has checksums over everything, a right
reading is what was written. Everything else is a failure: another exception, a MemoryError, a wrong value, a signal, a time-out.
What is damaged is a whole file, or, where a checksum would refuse every change, what the checksum is of, with a new checksum.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import signal
import struct
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
from mutated_readers import READERS, Reader

from crossdistil.core.errors import CrossdistilError
from crossdistil.core.wire import varint

RESULT = Path(__file__).resolve().parent.parent / "results" / "robustness_mutated_files.json"
READS = 240_000
MEMORY, SECONDS = 1 << 30, 5
_AT_ONCE = 2000
"""Reads of a process."""


def damaged(generator: np.random.Generator, data: bytes) -> bytes:
    """The bytes with one to three damages."""
    changed = bytearray(data)
    for _ in range(int(generator.integers(1, 4))):
        size = len(changed)
        place, count = int(generator.integers(size + 1)), int(generator.integers(1, 9))
        kind = int(generator.integers(8))
        if kind == 0 and generator.integers(3) == 0:
            del changed[place:]
        elif kind == 1 and place < size:
            changed[place] ^= 1 << int(generator.integers(8))
        elif kind == 2:
            changed[place:place] = generator.bytes(count)
        elif kind == 3:
            changed[place : place + count] = b"\xff" * count
        elif kind == 4:
            changed[place : place + count] = generator.bytes(count)
        elif kind == 5 and size:
            other, length = int(generator.integers(size)), int(generator.integers(1, 65))
            changed[place : place + length] = changed[other : other + length]
        elif kind == 6:
            changed[place : place + count] = varint(int(generator.integers(1 << 63)) >> int(generator.integers(63)))
        else:
            number = int(generator.integers(1 << 62)) >> int(generator.integers(62))
            changed[place : place + 8] = struct.pack("<q", number) if generator.integers(2) else str(number).encode()
    return bytes(changed)


class TimedOut(BaseException):
    """A read that took too long."""


def read_damaged(name: str, folder: Path, seed: int, reads: int) -> dict[str, Any]:
    """Counts of right readings and clean errors of `reads` damaged examples, and the failures, each with its seed and reason;
    `folder` is an empty one. The limits of memory and time are the caller's."""
    reader = READERS[name]
    reader.make(folder)
    paths = sorted(path for path in folder.glob(reader.files) if path.is_file() and path.name[0] != ".")
    whole = {path: path.read_bytes() for path in paths}
    paths = [path for path in paths if whole[path]]
    expected = reader.read(folder)
    parts = {path: reader.content(folder, whole[path]) if reader.content else whole[path] for path in paths}
    found: dict[str, Any] = {"read": 0, "refused": 0, "failures": []}
    for turn in range(seed, seed + reads):
        generator = np.random.default_rng(turn)
        path = paths[int(generator.integers(len(paths)))]
        content = damaged(generator, parts[path])
        try:
            path.write_bytes(reader.seal(folder, content) if reader.seal else content)
            value = reader.read(folder)
            if reader.checked and value != expected:
                raise AssertionError("another value than was written")
            found["read"] += 1
        except CrossdistilError as error:
            text = str(error)
            if not text.replace("\n", "").isprintable() or len(text) > 3000:
                found["failures"].append([turn, f"the message has {len(text)} characters or a control character"])
            found["refused"] += 1
        except BaseException as error:
            if isinstance(error, KeyboardInterrupt):
                raise
            found["failures"].append([turn, f"{type(error).__name__}: {error}"[:300]])
        finally:
            for changed, data in whole.items():
                if changed == path or not changed.is_file():
                    changed.parent.mkdir(parents=True, exist_ok=True)
                    changed.write_bytes(data)
    return found


def _limited(name: str, seed: int, reads: int) -> None:
    """A process of its own: the result as JSON on standard output."""

    def late(*_: Any) -> None:
        signal.setitimer(signal.ITIMER_REAL, 0)
        raise TimedOut(f"a read took more than {SECONDS} s")

    signal.signal(signal.SIGALRM, late)
    original = READERS[name].read

    def timed(folder: Path) -> Any:
        signal.setitimer(signal.ITIMER_REAL, SECONDS)
        try:
            return original(folder)
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)

    READERS[name] = Reader(**{**READERS[name].__dict__, "read": timed})
    with tempfile.TemporaryDirectory() as folder:
        read_damaged(name, Path(folder), 0, 20)  # what is imported late is imported now
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + MEMORY, used + MEMORY))
    with tempfile.TemporaryDirectory() as folder:
        print(json.dumps(read_damaged(name, Path(folder), seed, reads)))


def _in_a_process(name: str, seed: int, reads: int) -> dict[str, Any]:
    command = [sys.executable, __file__, "--process", name, str(seed), str(reads)]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        failure = [seed, f"the process ended with {done.returncode}: {done.stderr[-300:]}"]
        return {"reads": reads, "read": 0, "refused": 0, "failures": [failure]}
    return {"reads": reads, **json.loads(done.stdout.splitlines()[-1])}


def main() -> None:
    """Run all readers and write the counts."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--reads", type=int, default=READS, help="of all readers together")
    parser.add_argument("--readers", nargs="*", choices=READERS, default=list(READERS))
    parser.add_argument("--out", type=Path, help=f"default: {RESULT.name} in benchmarks/results, where all readers run")
    parser.add_argument("--process", nargs=3, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.process:
        _limited(options.process[0], int(options.process[1]), int(options.process[2]))
        return
    each = -(-options.reads // len(options.readers))
    results: dict[str, Any] = {}
    began = time.time()
    pool = ThreadPoolExecutor(os.cpu_count())
    for name in options.readers:
        seeds = range(0, each, _AT_ONCE)
        parts = list(pool.map(_in_a_process, [name] * len(seeds), seeds, [min(_AT_ONCE, each - seed) for seed in seeds]))
        total = {key: sum(part[key] for part in parts) for key in ("reads", "read", "refused")}
        total["failures"] = [failure for part in parts for failure in part["failures"]]
        results[name] = total
        print(f"{name}: {total['reads']:,} reads, {total['refused']:,} refused, {len(total['failures'])} failures", flush=True)
        for seed, reason in total["failures"][:3]:
            print(f"  seed {seed}: {reason}", flush=True)
    out = options.out or (RESULT if options.readers == list(READERS) else None)
    if out is not None:
        about = {
            "command": "python benchmarks/robustness/mutated_files.py",
            "date": time.strftime("%Y-%m-%d"),
            "machine": f"{_processor()}, {os.cpu_count()} processors",
            "python": sys.version.split()[0],
            "seconds": round(time.time() - began),
            "memory_limit_mib": MEMORY >> 20,
            "seconds_a_read": SECONDS,
            "reads": sum(total["reads"] for total in results.values()),
            "failures": sum(len(total["failures"]) for total in results.values()),
        }
        out.write_text(json.dumps({**about, "readers": results}, indent=1) + "\n", encoding="utf-8")
    sys.exit(any(total["failures"] for total in results.values()))


def _processor() -> str:
    lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    return next((line.partition(": ")[2] for line in lines if line.startswith("model name")), "unknown processor")


if __name__ == "__main__":
    main()
