"""`--devices N`: N processes of this machine, one a device, that run the command together; with `--nodes` also those of others.

They get the variables that the framework's own launcher would give them (torchrun's, which are OneFlow's too, and msrun's), but
are started from here: so a process that ends is known at once, with its signal, all others end within seconds, and what is
said is one line; and Ctrl-C reaches only one process, which agrees with the others. The frameworks' own launchers, started
around `crossdistil run`, work as well (`core.app.launchers`).
"""

from __future__ import annotations

import os
import random
import re
import secrets
import socket
import sys
from dataclasses import dataclass
from typing import NoReturn

from ...backends.registry import load_module
from ..errors import CrossdistilError
from ..place import DEVICES, Place
from ..processes import child_environment
from ..threads import divided, processors
from .launchers import LAUNCHED, be_quiet, find_place
from .started import Started

_PORT = 29500
_FREE_PORTS = 20000, 32767
"""Below those that systems give to connections, so that a port which is free now is still free in a second."""
_FEW = 8
"""So many processes are always started; more only where the machine has as many processors."""


@dataclass(frozen=True)
class Machines:
    """Where the processes of a run are: on `nodes` machines, each with as many, of which this one has number `node_rank`."""

    nodes: int = 1
    node_rank: int = 0
    host: str = "127.0.0.1"
    port: int = 0


def number_of(devices: str | None, backend: str, device: str | None) -> int:
    """How many processes `--devices` asks for: a number, or `all`. Raises CrossdistilError."""
    if devices is None:
        return 1
    if devices == "all":
        kind = (device or "").partition(":")[0]
        found = load_module(backend, "engine").count_devices(kind or None)
        if not found:
            what = f"no device of kind {kind}" if kind and kind != "cpu" else "no GPU or NPU"
            raise CrossdistilError(f"--devices all: {backend} sees {what} here; give a number of processes")
        return found
    if not _is_number(devices):
        raise CrossdistilError(f"--devices {devices[:40]}: expected a whole number from 1, or all")
    return _few_enough(int(devices), devices)


def numbers_of(devices: str) -> tuple[int, ...]:
    """The numbers of processes that a list with commas asks for, each once, the smallest first. Raises CrossdistilError."""
    texts = [text.strip() for text in devices.split(",")]
    if not all(map(_is_number, texts)):
        raise CrossdistilError(f"--devices {devices[:40]}: expected numbers from 1 with commas between them, like 1,2")
    return tuple(sorted({_few_enough(int(text), devices) for text in texts}))


def _is_number(text: str) -> bool:
    return text.isascii() and text.isdecimal() and len(text) < 10 and int(text) >= 1


def _few_enough(count: int, given: str) -> int:
    most = max(_FEW, processors())
    if count > most:
        raise CrossdistilError(
            f"--devices {given[:40]}: each device needs a process, and this machine has {processors()} processors; at most {most}"
        )
    return count


def machines_of(nodes: int | None, node_rank: int | None, master: str | None, devices: str | None) -> Machines:
    """What `--nodes`, `--node-rank` and `--master` say. Raises CrossdistilError."""
    if nodes is None:
        for option, value in (("--node-rank", node_rank), ("--master", master)):
            if value is not None:
                raise CrossdistilError(f"{option} {value}: needs --nodes, the number of machines")
        return Machines()
    if devices is None:
        raise CrossdistilError(f"--nodes {nodes}: needs --devices, the number of devices of each machine")
    if nodes == 1 and master is None:
        return Machines()
    if node_rank is None or not 0 <= node_rank < nodes:
        got = "is missing" if node_rank is None else f"got {node_rank}"
        raise CrossdistilError(f"--node-rank: {got}, expected which of the {nodes} machines this is: 0 to {nodes - 1}")
    if master is None:
        raise CrossdistilError("--master: is missing; give the address of machine 0, HOST or HOST:PORT, the same on all machines")
    found = re.fullmatch(r"([^:\s]+|\[[0-9a-fA-F:.%]+\])(?::(\d{1,5}))?", master)
    if found is None or not 0 < (port := int(found[2] or _PORT)) < 2**16:
        raise CrossdistilError(f"--master {master[:80]}: expected HOST or HOST:PORT, with a port up to 65535")
    host = found[1].strip("[]")
    try:
        socket.getaddrinfo(host, port)
    except OSError as error:
        raise CrossdistilError(f"--master {master[:80]}: the name {host} is not known here: {error.strerror}") from None
    return Machines(nodes, node_rank, host, port)


def enter(devices: str | None, machines: Machines = Machines()) -> Place:
    """Which of the processes of the command this is; all but the first are quiet from now on. Raises CrossdistilError."""
    place = find_place()
    refuse_devices(place, devices, machines)
    be_quiet(place)
    return place


def run_on_all(
    place: Place,
    devices: str | None,
    backend: str,
    device: str | None,
    text: str | None = None,
    machines: Machines = Machines(),
    reads_input: bool = False,
) -> None:
    """Where several devices are asked for and this is none of their processes, run the command in as many; end as they do."""
    if place.launcher != DEVICES and (count := number_of(devices, backend, device)) * machines.nodes > 1:
        run_together(count, backend, text, machines, reads_input)


def refuse_devices(place: Place, devices: str | None, machines: Machines) -> None:
    """Raise CrossdistilError where a process of a launcher is asked to start processes of its own. srun may start one process on
    each machine, which does."""
    by_srun = place.launcher == "srun" and machines.nodes == place.size
    if devices is not None and place.size > 1 and LAUNCHED not in os.environ and not by_srun:
        already = f"{place.launcher} has started this as one of {place.size} processes already"
        raise CrossdistilError(f"--devices {devices}: {already}; leave --devices out")


def run_together(
    count: int, backend: str, text: str | None = None, machines: Machines = Machines(), reads_input: bool = False
) -> NoReturn:
    """Run this very command in `count` processes of this machine and end as they do; `text` is their standard input, or the first
    one `reads_input` of this process."""
    # All that were started together have the same, also on several machines.
    launched = secrets.token_hex(8) if machines.nodes == 1 else f"nodes-{machines.nodes}"
    environment = {**child_environment(), LAUNCHED: launched, **divided(count)}
    if machines.node_rank:
        first, last = machines.node_rank * count, (machines.node_rank + 1) * count - 1
        which = f"machine {machines.node_rank} of {machines.nodes} (from 0): ranks {first} to {last}"
        print(f"{which}; machine 0 ({machines.host}) tells how the run goes", flush=True)
    with Started(_variables(backend, count, machines), environment, text, machines.nodes * count, reads_input) as started:
        code = started.wait()
    sys.exit(code)


def _variables(backend: str, count: int, machines: Machines = Machines()) -> list[dict[str, str]]:
    """What the framework's launcher would put into the environment of each process."""
    common = {
        "MASTER_ADDR": machines.host,
        "MASTER_PORT": str(machines.port or _free_port()),
        "WORLD_SIZE": str(machines.nodes * count),
        "LOCAL_WORLD_SIZE": str(count),
    }
    first = machines.node_rank * count
    return [{**common, "RANK": str(first + local), "LOCAL_RANK": str(local)} for local in range(count)]


def _free_port() -> int:
    ports = range(_FREE_PORTS[0], _FREE_PORTS[1] + 1)
    for port in random.SystemRandom().sample(ports, len(ports)):
        with socket.socket() as found:
            try:
                found.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port
    raise CrossdistilError("--devices: no port is free")
