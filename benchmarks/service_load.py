"""A service under load on loopback: requests per second, how long they take, and its memory, over 100,000 requests.

    python benchmarks/service_load.py exported/onnx --data data/SST-2 [--scale 0.1] [--out FILE]

The load is `wrk`'s (Debian's package of that name): one thread of it keeps so many connections busy, each with a request at a
time, and takes the texts of dev in turn, so that they are as long as texts are. Client and service share the machine. A request
has one text, in the last setting 32. `--scale` makes the numbers of requests smaller.
"""

from __future__ import annotations

import argparse
import json
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from tables import NEW_RESULTS, machine, markdown, write_json

from crossdistil.core import threads
from crossdistil.core.app.finished_model import load_classifier
from crossdistil.core.data.tasks import read_split, resolve_task
from crossdistil.core.task_section import TaskSection
from crossdistil.tests.service_process import Service, service

SETTINGS = ((1, 1, 5_000), (8, 1, 20_000), (32, 1, 50_000), (64, 1, 25_000), (4, 32, 1_000))
"""Connections, texts of a request, requests."""
_LONGEST = 3600  # seconds of a setting, after which it ends whatever was done
_SCRIPT = """
local bodies, number, answered = {}, 0, 0
for line in io.lines("%(bodies)s") do bodies[#bodies + 1] = line end
local headers = {["Content-Type"] = "application/json"}
function request()
  number = number %% #bodies + 1
  return wrk.format("POST", "/predict", headers, bodies[number])
end
function response(status)
  answered = answered + 1
  if status ~= 200 then failed = (failed or 0) + 1 end
  if answered == %(requests)d then io.write("enough\\n"); io.flush() end
end
local all = {}
function setup(thread) all[#all + 1] = thread end
function done(summary, latency)
  local found = {summary.requests, summary.duration, latency:percentile(50), latency:percentile(99), latency.max,
    all[1]:get("failed") or 0, summary.errors.connect + summary.errors.read + summary.errors.write + summary.errors.timeout}
  io.write("found: " .. table.concat(found, " ") .. "\\n")
end
"""


def measure(running: Service, bodies: list[str], connections: int, texts: int, requests: int) -> dict[str, Any]:
    """One setting."""
    memory = running.memory
    with tempfile.TemporaryDirectory(prefix="crossdistil-load-") as folder:
        (Path(folder) / "bodies").write_text("\n".join(bodies) + "\n", encoding="utf-8")
        script = Path(folder) / "load.lua"
        script.write_text(_SCRIPT % {"bodies": Path(folder) / "bodies", "requests": requests}, encoding="utf-8")
        command = ["wrk", "-t1", f"-c{connections}", f"-d{_LONGEST}s", "--timeout", "60s", "-s", str(script)]
        output = _until_enough([*command, f"http://127.0.0.1:{running.port}"])
    found = re.search(r"found: (.*)", output)
    if found is None:
        sys.exit(f"wrk: {output}")
    count, duration, median, most, longest, failed, broken = map(float, found[1].split())
    return {
        "connections": connections,
        "texts": texts,
        "requests": int(count),
        "failed": int(failed),
        "broken_connections": int(broken),
        "seconds": duration / 1e6,
        "requests_per_second": count / duration * 1e6,
        "texts_per_second": count * texts / duration * 1e6,
        "p50_ms": median / 1e3,
        "p99_ms": most / 1e3,
        "max_ms": longest / 1e3,
        "memory_before_mib": memory / 2**20,
        "memory_mib": running.memory / 2**20,
    }


def _until_enough(command: list[str]) -> str:
    """What wrk prints, which knows no number of requests: it is told when there were enough."""
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as load:
        lines = []
        try:
            for line in load.stdout:
                lines.append(line)
                if line == "enough\n":
                    load.send_signal(signal.SIGINT)
            return "".join(lines)
        except BaseException:
            load.kill()  # it would go on for long
            raise


def request_bodies(texts: list[str], size: int) -> list[str]:
    """One request of so many texts a line."""
    if size == 1:
        return [json.dumps({"text": text}) for text in texts]
    return [json.dumps({"texts": texts[at : at + size]}) for at in range(0, len(texts) - size + 1, size)]


def table(result: dict[str, Any]) -> str:
    """The table of a result, with what is to be said of it."""
    rows = [
        [f"{_several(row['connections'], 'client')}, {_several(row['texts'], 'text')} a request", f"{row['requests']:,}"]
        + [f"{row['requests_per_second']:,.0f}", f"{row['texts_per_second']:,.0f}"]
        + [f"{row['p50_ms']:.1f}", f"{row['p99_ms']:.1f}", f"{row['memory_mib']:.0f}"]
        for row in result["settings"]
    ]
    headings = ["load", "requests", "requests a second", "texts a second", "p50, ms", "p99, ms", "memory, MiB"]
    total, failed = (sum(row[key] for row in result["settings"]) for key in ("requests", "failed"))
    own = result["machine"]
    about = f"{result['model']} on SST-2's dev texts; {total:,} requests, of which {failed} were not answered with 200. "
    about += f"{own['cpu']}, {own['cores']} cores, which client and service share; ONNX Runtime with "
    return f"{markdown(headings, rows)}\n\n{about}{_several(result['threads'], 'thread')}; {result['date']}."


def _several(number: int, what: str) -> str:
    return f"{number} {what}{'' if number == 1 else 's'}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model", type=Path)
    parser.add_argument("--data", type=Path, required=True, help="the folder of the task that the model was trained on")
    parser.add_argument("--scale", type=float, default=1.0)
    parser.add_argument("--out", type=Path, default=NEW_RESULTS / "service_load.json")
    options = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # what it started ends with it
    if shutil.which("wrk") is None:
        parser.error("needs wrk: apt-get install wrk")
    model, _ = load_classifier(options.model)
    task = TaskSection(**{**model.about["task"], "data": options.data})
    texts = list(read_split(resolve_task(task), options.data, "dev").texts)
    found = []
    with service(options.model) as running:
        measure(running, request_bodies(texts, 1), 4, 1, 200)  # what is slow only once
        for connections, size, requests in SETTINGS:
            found.append(measure(running, request_bodies(texts, size), connections, size, max(50, int(requests * options.scale))))
            print(json.dumps(found[-1]), flush=True)
        code, output, errors = running.stop()
    if code or errors:
        sys.exit(f"the service ended with {code}: {output}{errors}")
    about = {"benchmark": "service_load", "model": options.model.resolve().name, "threads": threads.number()}
    write_json(options.out, {**about, "settings": found, "machine": machine(), "date": time.strftime("%Y-%m-%d")})


if __name__ == "__main__":
    main()
