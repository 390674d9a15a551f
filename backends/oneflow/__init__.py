"""OneFlow 0.9: CPU (and CUDA, which its own kernels serve; not run there yet)."""

from __future__ import annotations

import os
import sys
import tempfile

from .last_words import end_as_one_of_several
from .matrix_products import kernels_chosen
from .waiting import not_for_ever


def import_quietly() -> None:
    """Import oneflow set up for this machine, without its notes about RDMA and drivers; on a failure all is shown.

    The notes come from C++, so the file descriptor is turned away, not `sys.stderr`. The log level leaves errors.
    """
    if "oneflow" in sys.modules:
        return
    os.environ.setdefault("GLOG_minloglevel", "2")
    if not os.path.exists("/dev/nvidiactl"):
        # Kernels run on OneFlow's scheduler thread, not on one more: on busy cores each small op would wait for two
        # threads to be scheduled (8 steps of a tiny model: 30 s instead of 1).
        os.environ.setdefault("ONEFLOW_VM_COMPUTE_ON_WORKER_THREAD", "0")
    sys.stderr.flush()
    kept = os.dup(2)
    with tempfile.TemporaryFile() as notes:
        os.dup2(notes.fileno(), 2)
        try:
            with kernels_chosen(), not_for_ever(kept):
                import oneflow
        except BaseException:
            notes.seek(0)
            os.write(kept, notes.read())
            raise
        finally:
            os.dup2(kept, 2)
            os.close(kept)
    if oneflow.env.get_world_size() > 1:
        end_as_one_of_several()
