"""`crossdistil serve`: a model answers over HTTP."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from ..errors import CrossdistilError
from ..extras import require
from .inference_commands import LengthOption
from .options import MOST, BackendOption, PluginOption, Precision, given_plugins, hand_over

_MAX_TEXTS = 128


def serve(
    model: Annotated[Path, typer.Argument(help="An exported folder, a model folder, or a finished run, whose student is meant.")],
    host: Annotated[str, typer.Option(help="Address to listen on; others than loopback need a token.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="0: one that is free, which is printed.")] = 8000,
    allowed_host: Annotated[
        list[str] | None, typer.Option(metavar="NAME", help="A name that requests may be for: that of a proxy before this.")
    ] = None,
    token_file: Annotated[
        Path | None, typer.Option(help="File with the token that clients give; or set CROSSDISTIL_TOKEN.")
    ] = None,
    backend: BackendOption = None,
    device: Annotated[str | None, typer.Option(help="With --backend: cpu, cuda, cuda:1, npu, ascend.")] = None,
    precision: Annotated[Precision | None, typer.Option(help="With --backend: what it computes in; default: fp32.")] = None,
    max_length: LengthOption = None,
    max_batch: Annotated[int, typer.Option(min=1, max=4096, help="Texts that are computed together.")] = 32,
    max_wait_ms: Annotated[float, typer.Option(min=0, max=10_000, help="How long an idle service waits for more texts.")] = 0.0,
    queue: Annotated[int, typer.Option(min=1, max=MOST, help="Texts that may wait; above it requests are refused (503).")] = 1024,
    timeout: Annotated[float, typer.Option(min=0.01, max=86_400, help="Seconds until a request is given up (504).")] = 30.0,
    max_texts: Annotated[
        int | None, typer.Option(min=1, max=MOST, help="Texts of one request (413); default: 128, at most the queue.")
    ] = None,
    max_body_kib: Annotated[int, typer.Option(min=1, max=1 << 20, help="KiB of one request (413).")] = 1024,
    max_connections: Annotated[int, typer.Option(min=1, max=1 << 20, help="Clients at the same time (503).")] = 512,
    access_log: Annotated[bool, typer.Option("--access-log", help="A line on standard error for each request.")] = False,
    plugins: PluginOption = None,
) -> None:
    """Answer texts over HTTP, with ONNX Runtime unless told otherwise; a page to try it is at /."""
    from ..engine import EngineOptions

    given_plugins("serve", plugins)
    runs_in = _runtime(model, backend, device, precision)
    require("serve", "serve", "fastapi", "uvicorn", "prometheus_client")
    from .service import ServiceOptions, listen, read_token
    from .service import serve as run
    from .service_model import read_classifier

    if max_texts is None:
        max_texts = min(_MAX_TEXTS, queue)
    elif max_texts > queue:
        raise CrossdistilError(f"--max-texts {max_texts}: a request of so many never fits into the --queue of {queue}")
    token = read_token(token_file)
    options = ServiceOptions(
        tuple(allowed_host or ()), token, max_batch, max_wait_ms / 1000, queue, timeout, max_texts, max_body_kib << 10,
        max_connections, access_log,
    )  # fmt: skip
    with listen(host, port, token) as sock:
        classifier = read_classifier(model, runs_in, max_length, lambda line: print(line, file=sys.stderr))
        engine = EngineOptions(device, (precision or Precision.fp32).value)
        run(classifier, options, engine, sock, lambda line: print(line, flush=True))


def _runtime(model: Path, backend: str | None, device: str | None, precision: Precision | None) -> str:
    """The name of what the model runs in; the command goes on in the Python that has it."""
    from .exported import enter_runtime

    name = enter_runtime(model, {"--backend": backend, "--device": device, "--precision": precision})
    if name is not None:
        return name
    if backend is not None:
        hand_over(backend)
        return backend
    for option, value in {"--device": device, "--precision": precision}.items():
        if value is not None:
            raise CrossdistilError(f"{option}: needs --backend; without it ONNX Runtime computes on the CPU, in float32")
    return "onnx"
