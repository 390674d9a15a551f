"""What processor this is: some kernels are faster on those of one vendor."""

from __future__ import annotations

import os
import platform
from pathlib import Path
from typing import Any

_BF16 = frozenset(("avx512_bf16", "amx_bf16", "avx_ne_convert"))
_VENDORS = {"AuthenticAMD": "AMD", "GenuineIntel": "Intel"}


def vendor(cpuinfo: Path = Path("/proc/cpuinfo")) -> str:
    """`AMD`, `Intel`, or what the system says of another, or `unknown`. Linux tells in a file, Windows in the platform's name."""
    found = ""
    try:
        with cpuinfo.open(encoding="utf-8", errors="replace") as lines:
            found = next((line.partition(":")[2].strip() for line in lines if line.startswith("vendor_id")), "")
    except OSError:
        pass
    found = found or platform.processor() or platform.machine()
    return next((name for word, name in _VENDORS.items() if word in found), found or "unknown")


def processor(cpuinfo: Path = Path("/proc/cpuinfo")) -> dict[str, Any]:
    """What a measurement was made on: `cpu`, its name, `cores`, the processors that there are, and the `python`."""
    try:
        lines = cpuinfo.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        lines = []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    cores = len(names) or os.cpu_count()
    return {"cpu": names[0] if names else platform.processor(), "cores": cores, "python": platform.python_version()}


def instructions(cpuinfo: Path = Path("/proc/cpuinfo")) -> list[str]:
    """The vector instructions of this processor, which compilers use: avx2, fma, avx512f, ... ; none where the system does not
    tell."""
    return sorted(flag for flag in flags(cpuinfo) if flag.startswith(("avx", "amx", "fma", "f16c", "sse", "bmi")))


def lacks_bf16(cpuinfo: Path = Path("/proc/cpuinfo")) -> bool:
    """Whether this processor is known to compute nothing in bfloat16, which is then float32 converted back and forth."""
    found = flags(cpuinfo)
    return bool(found) and not found & _BF16


def precision_notes(precision: str, device: str) -> list[str]:
    """What a device is known to do badly of the precision that was asked for."""
    if precision == "bf16" and device.partition(":")[0] == "cpu" and lacks_bf16():
        return ["bf16: this processor has no arithmetic in it and imitates it, mostly much slower than --precision fp32"]
    return []


def flags(cpuinfo: Path = Path("/proc/cpuinfo")) -> frozenset[str]:
    """Linux's names of the instructions that this processor has, like avx2 and fma; none where the system does not tell."""
    try:
        with cpuinfo.open(encoding="utf-8", errors="replace") as lines:
            return frozenset(next((line.partition(":")[2] for line in lines if line.startswith("flags")), "").split())
    except OSError:
        return frozenset()
