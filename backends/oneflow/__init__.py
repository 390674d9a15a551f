"""OneFlow 0.9: CPU (and CUDA, which its own kernels serve; not run there yet)."""

from __future__ import annotations

import os
import sys
import tempfile


def import_quietly() -> None:
    """Import oneflow without the notes it prints about RDMA and CUDA drivers; on a failure everything is shown.

    The notes come from C++, so the file descriptor is turned away, not `sys.stderr`. The log level leaves errors.
    """
    if "oneflow" in sys.modules:
        return
    os.environ.setdefault("GLOG_minloglevel", "2")
    sys.stderr.flush()
    kept = os.dup(2)
    with tempfile.TemporaryFile() as notes:
        os.dup2(notes.fileno(), 2)
        try:
            import oneflow  # noqa: F401
        except BaseException:
            notes.seek(0)
            os.write(kept, notes.read())
            raise
        finally:
            os.dup2(kept, 2)
            os.close(kept)
