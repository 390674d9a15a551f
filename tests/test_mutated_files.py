"""A small part of benchmarks/robustness/mutated_files.py: damaged files of every reader end in a reading or a clean error."""

import importlib
import resource
from pathlib import Path

import pytest

import crossdistil

FOLDER = Path(crossdistil.__file__).resolve().parent / "benchmarks/robustness"
READS = 150


@pytest.fixture(scope="module")
def driver():
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(FOLDER)
        yield importlib.import_module("mutated_files")


READERS = [
    "tfrecord", "tfrecord examples", "ofrecord", "tensorflow", "tensorflow entries", "mindspore ckpt", "safetensors",
    "safetensors index", "torch zip", "torch zip pickle", "torch legacy", "oneflow state dict", "oneflow legacy", "cached arrays",
    "data pickles", "record notes", "recipes",
]  # fmt: skip


@pytest.mark.filterwarnings("ignore:invalid escape sequence")
@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=pytest.mark.only_backend("torch")) if name == "torch legacy" else name for name in READERS]
)
def test_damaged_files(driver, tmp_path, name):
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    before = resource.getrlimit(resource.RLIMIT_AS)
    for folder in ("first", "damaged"):
        (tmp_path / folder).mkdir()
    driver.READERS[name].make(tmp_path / "first")  # what is imported late is imported now
    resource.setrlimit(resource.RLIMIT_AS, (used + (512 << 20), before[1]))
    try:
        found = driver.read_damaged(name, tmp_path / "damaged", 10**6, READS)
    finally:
        resource.setrlimit(resource.RLIMIT_AS, before)
    assert found["failures"] == []
    assert found["read"] + found["refused"] == READS


def test_every_reader_is_here(driver):
    assert list(driver.READERS) == READERS
