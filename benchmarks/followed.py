"""The sinks of W&B (offline), MLflow and SwanLab (offline) with the packages themselves, read back by the packages' own readers.

    python benchmarks/followed.py FOLDER

Tests hold the calls with stand-ins for these packages, which are too heavy to be installed for them; this is run by hand where
they are installed. A run is told that is interrupted after step 20 and goes on; what is read back is compared with what was told.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from crossdistil.core.events import Evaluated, Failed, Finished, Logged, Started
from crossdistil.core.log_section import LogSection
from crossdistil.core.registered import NOTHING
from crossdistil.core.sinks.known import make_sinks

LOSSES = {10: 0.5, 20: 0.25, 30: 0.125, 40: 0.0625}
METRICS = {"accuracy": 0.875}


def tell(folder: Path, log: dict) -> None:
    """Tell the run in two parts, as two processes do."""
    for first, steps in ((0, (10, 20, 30)), (20, (30, 40))):
        [sink] = make_sinks(LogSection.model_validate(log), NOTHING, lambda line: sys.exit(line))
        recipe = {"method": "kd", "stages": [{"name": "distil"}], "seed": 42}
        sink.started(Started(folder, recipe, "torch", "cpu", "fp32", 1, first, first > 0))
        for step in steps:
            sink.logged(Logged(step, "distil", step / 10, LOSSES[step], {"kd_ce": 2 * LOSSES[step]}, 1e-4, 100.0))
            sink.evaluated(Evaluated(step, "distil", step / 10, METRICS, True))
        if first:
            sink.finished(Finished({"student": {"metrics": METRICS}}))
        else:
            sink.failed(Failed("interrupted", True))


def check(what: str, found: object, expected: object) -> None:
    """Print one line, and end with exit code 1 where they differ."""
    print(f"{what}: {found}")
    if found != expected:
        sys.exit(f"{what}: expected {expected}")


def mlflow(folder: Path) -> None:
    """In a folder, by MLflow's client."""
    from mlflow.tracking import MlflowClient

    uri = f"sqlite:///{folder / 'mlflow.db'}" if "--sqlite" in sys.argv else (folder / "store").as_uri()
    tell(folder / "run", {"mlflow": {"uri": uri, "experiment": "e"}})
    client = MlflowClient(tracking_uri=uri)
    [run] = client.search_runs([client.get_experiment_by_name("e").experiment_id])
    found = {each.step: each.value for each in client.get_metric_history(run.info.run_id, "train/loss")}
    check("mlflow: train/loss", found, LOSSES)
    check("mlflow: status", run.info.status, "FINISHED")
    check("mlflow: final", run.data.metrics["final/accuracy"], 0.875)
    check("mlflow: parameter", run.data.params["stages.0.name"], "distil")


def wandb(folder: Path) -> None:
    """By the reader of W&B's offline files that SwanLab has, which brings runs over from there."""
    from swanlab.converter.wb.wbdatastore import WBDataStoreReader
    from wandb.proto.wandb_internal_pb2 import Record

    tell(folder / "run", {"wandb": {"project": "p", "offline": True}})
    time.sleep(2)  # its own process writes the last rows a moment after the run has ended
    runs, history = set(), []
    for data in _scanned(WBDataStoreReader, folder / "run" / "logs", "*.wandb"):
        record = Record()
        record.ParseFromString(data)
        if record.WhichOneof("record_type") == "run":
            runs.add((record.run.project, record.run.run_id, record.run.display_name))
        if record.WhichOneof("record_type") == "history":
            row = {item.key or "/".join(item.nested_key): json.loads(item.value_json) for item in record.history.item}
            history.append((row["_step"], row["train/loss"], row["dev/accuracy"]))
    check("wandb: project and name", [(project, name) for project, _, name in runs], [("p", "run")])
    expected = [(step, LOSSES[step], 0.875) for step in (10, 20, 30, 30, 40)]
    check("wandb: step, train/loss, dev/accuracy", history, expected)


def swanlab(folder: Path) -> None:
    """By SwanLab's own reader."""
    from swanlab.proto.swanlab.record.v1.record_pb2 import Record
    from swanlab.sdk.internal.core_python.store import DataStoreReader

    tell(folder / "run", {"swanlab": {"project": "p", "offline": True}})
    found = []
    for data in _scanned(DataStoreReader, folder / "run" / "logs" / "swanlab", "*.swanlab"):
        record = Record()
        record.ParseFromString(data)
        found.append(record)
    scalars = [each.scalar for each in found if each.WhichOneof("record_type") == "scalar"]
    losses = [(each.step, each.value.number) for each in scalars if each.key == "train/loss"]
    check("swanlab: step, train/loss", losses, [(step, LOSSES[step]) for step in (10, 20, 30, 30, 40)])
    ends = [each.finish.state for each in found if each.WhichOneof("record_type") == "finish"]
    print("swanlab: ends", ends)


def _scanned(kind: type, folder: Path, pattern: str) -> Iterator[bytes]:
    for file in sorted(folder.rglob(pattern)):
        reader = kind()
        reader.open(file)
        while (data := reader.scan()) is not None:
            yield data
        reader.close()


if __name__ == "__main__":
    for name in ("mlflow", "wandb", "swanlab"):
        if not set(sys.argv) & {"mlflow", "wandb", "swanlab"} or name in sys.argv:
            globals()[name](Path(sys.argv[1]).absolute() / name)
