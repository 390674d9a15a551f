"""Which kernels OneFlow's OpenBLAS takes for matrix products on a CPU.

The OpenBLAS in OneFlow 0.9 knows no processor newer than 2017, and takes kernels without AVX for those that it does not know
(Barcelona's on an AMD EPYC, Prescott's on an Intel Xeon with AMX), at about half of the step's speed. It
has better ones, Haswell's: they are asked for where the processor has their instructions, so that all such processors also give
the same bits. (Zen's are as fast: a step of 4 layers x 312 took 0.63 s of processor time with either, 1.07 s with Barcelona's.
SkylakeX's bring nothing on an EPYC of family 26, which has AVX-512: a product took as long with either.)
"""

from __future__ import annotations

import contextlib
import ctypes
import os
from collections.abc import Iterator

from ...core.processor import flags

SETTING = "OPENBLAS_CORETYPE"
"""OpenBLAS's own: the user's choice is never changed."""
_NEEDED = {"avx2", "fma"}


@contextlib.contextmanager
def kernels_chosen() -> Iterator[None]:
    """OpenBLAS reads its setting when it is loaded, inside of this; other libraries and processes have an OpenBLAS that knows
    more, and so do not see it."""
    if SETTING in os.environ or not _NEEDED <= flags():
        yield
        return
    os.environ[SETTING] = "Haswell"
    try:
        yield
    finally:
        del os.environ[SETTING]


def kernels() -> str:
    """The name that OpenBLAS has for those that it has taken."""
    import oneflow._oneflow_internal as internal

    name = ctypes.CDLL(internal.__file__).gotoblas_corename
    name.restype = ctypes.c_char_p
    return name().decode()
