"""`crossdistil convert --to tf --with-code --saved-model`: TensorFlow runs the generated network once, and saves it."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from pathlib import Path

from ...converters.convert import ConvertOptions
from ...converters.network_code import NETWORK
from ..errors import CheckpointError
from ..processes import child_environment, code_command

SAVED_MODEL = "saved_model"
_SHOWN = 3


def check_saved_model(options: ConvertOptions) -> None:
    """Raises CheckpointError where none can be written."""
    if options.to != "tf" or not options.with_code:
        raise CheckpointError("--saved-model: needs --to tf and --with-code: it is TensorFlow's, written by the network")
    if importlib.util.find_spec("tensorflow") is None:
        raise CheckpointError(
            f"--saved-model: TensorFlow is not installed here (pip install tensorflow); elsewhere, `python {NETWORK} "
            "--saved-model DIR` beside the weights writes it"
        )


def write_saved_model(folder: Path) -> None:
    """Have the network in `folder` write one beside it, in a process of its own. Raises CheckpointError."""
    run = "import runpy; runpy.run_path(sys.argv.pop(1), run_name='__main__')"
    command = [*code_command(sys.executable, run), str(folder / NETWORK), "--saved-model", str(folder / SAVED_MODEL)]
    environment = {**child_environment(), "PYTHONDONTWRITEBYTECODE": "1", "TF_CPP_MIN_LOG_LEVEL": "3"}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, stdin=subprocess.DEVNULL)
    if done.returncode or not (folder / SAVED_MODEL / "saved_model.pb").is_file():
        told = " ".join(done.stderr.strip().splitlines()[-_SHOWN:]) or "no reason was given"
        raise CheckpointError(f"--saved-model: TensorFlow did not write it: {told}")
