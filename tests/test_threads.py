"""How many threads there are: what the user, the affinity and the control groups say, and that libraries are told."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from crossdistil.core import threads
from crossdistil.core.app import devices
from crossdistil.core.processor import vendor


@pytest.fixture(autouse=True)
def many_processors(monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(16)), raising=False)


def write(root, groups, **files):
    for path, text in {"proc/self/cgroup": groups, **files}.items():
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_text(text)
    return root


V1 = "12:memory:/docker/5c\n4:cpu,cpuacct:/docker/5c\n0::/system.slice\n"
MACHINES = {
    "no control groups": (None, {}, 16),
    "version 2": ("0::/\n", {"sys/fs/cgroup/cpu.max": "400000 100000\n"}, 4),
    "version 2, no limit": ("0::/\n", {"sys/fs/cgroup/cpu.max": "max 100000\n"}, 16),
    "version 2, a half": ("0::/\n", {"sys/fs/cgroup/cpu.max": "50000 100000\n"}, 1),
    "version 2, a group above": (
        "0::/pod/container\n",
        {"sys/fs/cgroup/pod/cpu.max": "250000 100000", "sys/fs/cgroup/pod/container/cpu.max": "max 100000"},
        3,
    ),
    "version 1, in a container": (
        V1,
        {
            "sys/fs/cgroup/cpu,cpuacct/cpu.cfs_quota_us": "600000",
            "sys/fs/cgroup/cpu,cpuacct/cpu.cfs_period_us": "100000",
        },
        6,
    ),
    "version 1, outside": (
        V1,
        {
            "sys/fs/cgroup/cpu/docker/5c/cpu.cfs_quota_us": "200000",
            "sys/fs/cgroup/cpu/docker/5c/cpu.cfs_period_us": "100000",
            "sys/fs/cgroup/cpu/cpu.cfs_quota_us": "-1",
            "sys/fs/cgroup/cpu/cpu.cfs_period_us": "100000",
        },
        2,
    ),
    "more than there are": ("0::/\n", {"sys/fs/cgroup/cpu.max": "9900000 100000"}, 16),
    "damaged": ("0::/\nnonsense\n", {"sys/fs/cgroup/cpu.max": "much"}, 16),
}


@pytest.mark.parametrize("name", MACHINES)
def test_processors(tmp_path, name):
    groups, files, expected = MACHINES[name]
    root = tmp_path if groups is None else write(tmp_path, groups, **files)
    assert threads.processors(root) == expected


@pytest.mark.parametrize(("asked", "expected"), [("3", 3), ("4,2", 4), ("", 16), ("0", 16), ("many", 16), ("-2", 16)])
def test_the_user_decides(monkeypatch, asked, expected):
    monkeypatch.setattr(threads, "processors", lambda: 16)
    assert threads.number({"OMP_NUM_THREADS": asked}) == expected


def test_libraries_are_told_and_the_user_s_settings_stay(monkeypatch):
    monkeypatch.setattr(threads, "processors", lambda: 5)
    environment: dict[str, str] = {}
    threads.set_up(environment)
    assert environment == {
        "OMP_NUM_THREADS": "5",
        "CROSSDISTIL_DECIDED_THREADS": "5",
        "RAYON_NUM_THREADS": "5",
        "TOKENIZERS_PARALLELISM": "true",
        "OMP_WAIT_POLICY": "passive",
        "OPENBLAS_THREAD_TIMEOUT": "4",
    }
    own = {"OMP_NUM_THREADS": "2", "RAYON_NUM_THREADS": "7", "TOKENIZERS_PARALLELISM": "false", "GOMP_SPINCOUNT": "9"}
    own["OPENBLAS_THREAD_TIMEOUT"] = "20"
    environment = dict(own)
    threads.set_up(environment)
    assert environment == own


@pytest.mark.parametrize(
    ("own", "count", "expected"),
    [
        ({}, 2, "8"),
        ({}, 3, "5"),
        ({}, 40, "1"),
        ({"OMP_NUM_THREADS": "6"}, 2, "6"),
        ({"OMP_NUM_THREADS": ""}, 2, "8"),
        ({"RAYON_NUM_THREADS": "9"}, 4, "4"),
    ],
)
def test_processes_of_a_machine_share_its_processors_also_after_libraries_were_told(monkeypatch, own, count, expected):
    monkeypatch.setattr(threads, "processors", lambda: 16)
    environment = dict(own)
    threads.set_up(environment)
    threads.set_up(environment)  # as each process does that the first one starts
    each = environment | threads.divided(count, environment)
    threads.set_up(each)
    assert threads.number(each) == int(expected) and each["OMP_NUM_THREADS"] == expected
    assert each["RAYON_NUM_THREADS"] == own.get("RAYON_NUM_THREADS", expected)


@pytest.mark.parametrize(("own", "expected"), [(None, "8"), ("3", "3")])
def test_the_processes_of_devices_have_their_share(monkeypatch, own, expected):
    seen = {}

    class Ended:
        def __init__(self, variables, environment, *_):
            seen.update(environment)

        def __enter__(self):
            return self

        def __exit__(self, *_):
            pass

        def wait(self):
            return 0

    monkeypatch.setattr(threads, "processors", lambda: 16)
    monkeypatch.setattr(devices, "Started", Ended)
    for name in ("OMP_NUM_THREADS", "RAYON_NUM_THREADS", "CROSSDISTIL_DECIDED_THREADS"):
        monkeypatch.delenv(name, raising=False)
    if own:
        monkeypatch.setenv("OMP_NUM_THREADS", own)
    threads.set_up()
    with pytest.raises(SystemExit):
        devices.run_together(2, "torch")
    assert seen["OMP_NUM_THREADS"] == expected


def test_waiting_threads_of_numpy_do_not_spin():
    program = (
        "import os, time\n"
        "from crossdistil.core import threads\n"
        "threads.set_up()\n"
        "import numpy as np\n"
        "def busy(pause):\n"
        "    started = time.process_time()\n"
        "    for _ in range(10):\n"
        "        a @ a\n"
        "        time.sleep(pause)\n"
        "    return time.process_time() - started\n"
        "a = np.ones((512, 512), np.float32)\n"
        "busy(0)\n"
        "print(min(busy(0.015) for _ in range(2)) - min(busy(0) for _ in range(2)))\n"
    )
    names = ("OPENBLAS_THREAD_TIMEOUT",)
    environment = {name: value for name, value in os.environ.items() if name not in names} | {"OMP_NUM_THREADS": "2"}
    done = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=True)
    assert float(done.stdout) < 0.04, "seconds of processor time for 10 pauses, in which threads that spin take about 0.075"


def test_commands_say_so_before_they_load_a_library():
    program = (
        "import sys, os\n"
        "class Watch:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        "        if name in ('numpy', 'tokenizers'):\n"
        "            assert os.environ['OMP_WAIT_POLICY'] == 'passive' and 'OMP_NUM_THREADS' in os.environ, name\n"
        "            print(name)\n"
        "sys.meta_path.insert(0, Watch())\n"
        "import crossdistil\n"
        "assert 'OMP_WAIT_POLICY' not in os.environ\n"
        "from crossdistil.core.app import cli, commands\n"
        "commands.load('run')\n"
        "import crossdistil.core.app.run\n"
    )
    names = ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "KMP_BLOCKTIME", "OMP_NUM_THREADS")
    environment = {name: value for name, value in os.environ.items() if name not in names}
    done = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True)
    assert done.returncode == 0 and "numpy" in done.stdout.split(), done.stderr


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("processor\t: 0\nvendor_id\t: AuthenticAMD\n", "AMD"),
        ("vendor_id\t: GenuineIntel\nmodel name\t: Xeon\n", "Intel"),
        ("vendor_id\t: HygonGenuine\n", "HygonGenuine"),
    ],
)
def test_the_processor_s_vendor(tmp_path, text, expected):
    (tmp_path / "cpuinfo").write_text(text)
    assert vendor(tmp_path / "cpuinfo") == expected


def test_the_vendor_where_there_is_no_file(tmp_path, monkeypatch):
    monkeypatch.setattr("platform.processor", lambda: "Intel64 Family 6 Model 143 Stepping 8, GenuineIntel")
    assert vendor(tmp_path / "nothing") == "Intel"
    monkeypatch.setattr("platform.processor", lambda: "")
    monkeypatch.setattr("platform.machine", lambda: "")
    assert vendor(tmp_path / "nothing") == "unknown"
