"""A slice of the wrong and hostile requests that `benchmarks/robustness/hostile_requests.py` sends to a service."""

from __future__ import annotations

import json
from pathlib import Path

from crossdistil.tests.service_process import service

FOLDER = Path(__file__).resolve().parents[1] / "benchmarks" / "robustness"


def test_hostile_requests(tiny_model, monkeypatch):
    monkeypatch.syspath_prepend(FOLDER)
    import hostile_requests

    assert len(list(hostile_requests.kinds(1))) >= 300
    with service(tiny_model, *hostile_requests.OPTIONS) as running:
        found = hostile_requests.drive(running, seed=3, every=9)
        code, _, errors = running.stop()
    assert not found["failures"], json.dumps(found["failures"], indent=1)
    assert code == 0 and errors.count("\n") == 1, "its log says nothing of clients"
