"""How many threads this process and those that it starts may use, and that threads without work do not spin.

One place decides for PyTorch, OneFlow, MindSpore, the tokenizers and our own processes: `OMP_NUM_THREADS` where the user
has set it, else the processors that the process may use, which a container's quota and an affinity make fewer than the
machine has. All goes through environment variables, since libraries read them once, when they are loaded, and since the
processes that this one starts inherit them. What the user has set is never changed; what was decided here is divided among
processes that share the machine.

A thread of OpenMP (GNU's, which the PyTorch and MindSpore wheels use) that waits for the others spins for milliseconds before it
sleeps. Where other processes are busy it so takes the time in which the thread that it waits for would have run: a step of a
small model took seven times the processor time and five times as long as with threads that sleep at once (PyTorch 2.13, two AMD
EPYC cores with eight busy processes). The OpenBLAS in NumPy's wheels has threads of its own, which spin for several
milliseconds after each product; told to wait as shortly as it can, it sleeps at once.

Only the standard library, so that it can be imported before everything else.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, MutableMapping
from pathlib import Path

_WAITING = ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "KMP_BLOCKTIME")
"""Any of these says how threads of OpenMP wait."""


_SHORTEST = "4"
"""The exponent of 2 of the processor's clock ticks for which a thread of OpenBLAS spins; it takes none below."""
_DECIDED = "CROSSDISTIL_DECIDED_THREADS"
"""The number of threads where it was decided here, in this process or in one that has started it."""


def _asked(environment: Mapping[str, str]) -> str:
    """What OMP_NUM_THREADS says; empty where it says nothing, as where it is not set."""
    return environment.get("OMP_NUM_THREADS", "").strip()


def number(environment: Mapping[str, str] = os.environ) -> int:
    """The threads of a kernel: the first entry of OMP_NUM_THREADS, or as many as there are processors to use."""
    first = _asked(environment).split(",")[0].strip()
    return int(first) if first.isascii() and first.isdecimal() and 0 < int(first) < 2**16 else processors()


def set_up(environment: MutableMapping[str, str] = os.environ) -> None:
    """Say so to all libraries that are loaded after this, and to all processes that are started."""
    threads = str(number(environment))
    if not _asked(environment):
        environment["OMP_NUM_THREADS"] = environment[_DECIDED] = threads
    environment.setdefault("RAYON_NUM_THREADS", threads)
    # Left unset, the tokenizers print a warning whenever a process forks after using their threads.
    environment.setdefault("TOKENIZERS_PARALLELISM", "true")
    if not any(name in environment for name in _WAITING):
        environment["OMP_WAIT_POLICY"] = "passive"
    environment.setdefault("OPENBLAS_THREAD_TIMEOUT", _SHORTEST)


def divided(count: int, environment: Mapping[str, str] = os.environ) -> dict[str, str]:
    """What the environment of each of `count` processes is to have that compute at the same time on this machine; nothing where
    the user has set OMP_NUM_THREADS, which each of them then takes."""
    if _asked(environment) not in ("", environment.get(_DECIDED)):
        return {}
    threads = str(max(1, number(environment) // count))
    own = {"OMP_NUM_THREADS": threads, _DECIDED: threads}
    if environment.get("RAYON_NUM_THREADS") in (None, environment.get(_DECIDED)):
        own["RAYON_NUM_THREADS"] = threads
    return own


def processors(root: Path = Path("/")) -> int:
    """Processors that this process may keep busy: its affinity, or the quota of its control groups where that is less, rounded to
    the nearest whole one, and at least one. `root` is where the system's files are."""
    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, min([allowed, *(int(quota + 0.5) for quota in _quotas(root))]))


def _quotas(root: Path) -> Iterator[float]:
    """Processors' worth of time that each control group above this process grants (both versions of control groups)."""
    try:
        lines = (root / "proc/self/cgroup").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return
    mount = root / "sys/fs/cgroup"
    for line in lines:
        _, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        if not controllers:
            for folder in (mount, mount / "unified"):
                for group in _groups(folder, path):
                    yield from _share((_read(group / "cpu.max") or "").split())
        elif "cpu" in controllers.split(","):
            for folder in (mount / controllers, mount / "cpu"):
                for group in _groups(folder, path):
                    yield from _share([_read(group / f"cpu.cfs_{name}_us") or "" for name in ("quota", "period")])


def _groups(mount: Path, path: str) -> list[Path]:
    """The control group and all above it; in a container without a namespace of its own only the mount exists."""
    parts = [part for part in path.split("/") if part not in ("", "..")]
    return [mount.joinpath(*parts[:count]) for count in range(len(parts), -1, -1)]


def _read(path: Path) -> str | None:
    try:
        return path.read_text(encoding="utf-8", errors="replace").strip()
    except OSError:
        return None


def _share(words: list[str]) -> Iterator[float]:
    """Quota over period, in processors; `max`, -1 and what is no number are no limit."""
    try:
        quota, period = map(int, words)
    except ValueError:
        return
    if quota > 0 and period > 0:
        yield quota / period
