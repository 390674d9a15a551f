"""`crossdistil latency`: the times of finished models beside each other, as a table, as JSON and as a picture."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.table import Table
from rich.text import Text

from .options import PluginOption, Precision, given_plugins
from .progress import make_console

console = make_console()
_LENGTHS = "16,128"
_TEXTS, _REQUESTS = 256, 10
_MOST_THREADS, _MOST = 1024, 10**6


def latency(
    models: Annotated[
        list[Path], typer.Argument(metavar="MODEL", help="Models of any kind, exported ones too; the first is the reference.")
    ],
    batch_sizes: Annotated[str, typer.Option(metavar="N,N", help="Texts of a request.")] = "1,32",
    lengths: Annotated[
        str | None, typer.Option(metavar="N,N", help=f"Random tokens, so many a text; default without texts: {_LENGTHS}.")
    ] = None,
    file: Annotated[Path | None, typer.Option(help="A file's own texts, which `predict` would read.")] = None,
    text_column: Annotated[
        str | None, typer.Option(help="Column of a table's texts; default: as the first model's task has it.")
    ] = None,
    pair_column: Annotated[str | None, typer.Option(help="Column of the second texts.")] = None,
    encoding: Annotated[str | None, typer.Option(help="Of --file, where it is not UTF-8: gb18030, cp1252, ...")] = None,
    data: Annotated[Path | None, typer.Option(help="Folder with the files of the first model's task: dev's own texts.")] = None,
    texts: Annotated[
        int | None, typer.Option(min=1, max=_MOST, help=f"Only the first texts of --file or --data; default: {_TEXTS}.")
    ] = None,
    requests: Annotated[
        int | None, typer.Option(min=1, max=_MOST, help=f"Of a model in each round, with --lengths; default: {_REQUESTS}.")
    ] = None,
    rounds: Annotated[int, typer.Option(min=1, max=_MOST, help="In each the models take turns.")] = 10,
    warm_up: Annotated[int, typer.Option(min=0, max=_MOST, help="Rounds before, which do not count.")] = 1,
    threads: Annotated[int, typer.Option(min=1, max=_MOST_THREADS, help="Of each model.")] = 1,
    clock: Annotated[str, typer.Option(help="wall, or cpu: processor time, for a machine that does other work too.")] = "wall",
    backend: Annotated[str | None, typer.Option(help="Of models that are not exported; default: the first here.")] = None,
    precision: Annotated[Precision | None, typer.Option(help="What they compute in; default: fp32.")] = None,
    plugins: PluginOption = None,
    as_json: Annotated[bool, typer.Option("--json", help="As JSON.")] = False,
    out: Annotated[Path | None, typer.Option(help="Write the JSON there too.")] = None,
    picture: Annotated[Path | None, typer.Option(help="Draw the times there: .png, .svg or .pdf.")] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace --out and --picture if they are there.")] = False,
) -> None:
    """Measure how fast models answer on the CPU, in turns: milliseconds, texts and tokens a second, memory, size on disk."""
    from ..extras import require
    from ..files import write_text
    from .given_texts import GivenTexts
    from .latency import LatencyOptions, measure
    from .latency_inputs import check_files, check_lengths, check_options, numbers, sides_of, texts_of
    from .latency_picture import draw
    from .timed_model import Case, Request

    registered = given_plugins("latency", plugins)
    from_texts = check_options(file, text_column, pair_column, encoding, data, lengths, texts, requests, clock)
    check_files(out, picture, overwrite)
    if picture is not None:
        require("picture", "--picture")
    sizes = numbers("--batch-sizes", batch_sizes)
    many = (None,) if from_texts else numbers("--lengths", lengths or _LENGTHS)
    sides = sides_of(models, backend, precision)
    given = GivenTexts([])
    if from_texts:
        table = (file, text_column, pair_column, encoding)
        given = texts_of(sides, table, data, texts or _TEXTS, _tell, registered)
    else:
        check_lengths(sides, many, "" if lengths else ", the default")
    cases = tuple(Case(size, length) for length in many for size in sizes)
    timer = {"wall": "perf_counter", "cpu": "process_time"}[clock]
    shared = (timer, requests or _REQUESTS, given.texts if from_texts else None, given.pairs)
    made = {side.name: Request(str(side.folder), side.backend, (precision or Precision.fp32).value, *shared) for side in sides}
    found = measure(made, LatencyOptions(cases, threads, rounds, warm_up), _tell)
    found["task"] = None if data is None else sides[0].task["name"]
    found["pairs"] = given.pairs is not None
    text = json.dumps(found, indent=2, ensure_ascii=False) + "\n"
    if out is not None:
        write_text(out, text)
    if picture is not None:
        draw(found, cases, picture)
    if as_json:
        sys.stdout.write(text)
    else:
        _print(found, cases)


def _print(found: dict[str, Any], cases: tuple) -> None:
    table = _table("Models", "model", "runs in")
    for heading in ("parameters", "on disk, MB", "memory, MB"):
        table.add_column(heading, justify="right")
    for name, model in found["models"].items():
        memory = model["peak_memory_mb"]
        sizes = [f"{model['parameters'] / 1e6:.1f}M", f"{model['bytes'] / 1e6:,.1f}", "" if memory is None else f"{memory:,.0f}"]
        table.add_row(Text(name), f"{model['runs_in']} {model['precision']}", *sizes)
    console.print(table)
    for case in cases:
        table = _table(case.title.capitalize(), "model")
        for heading in ("p50, ms", "p95", "p99", "texts/s", "tokens/s", "speed-up"):
            table.add_column(heading, justify="right")
        for name, model in found["models"].items():
            own = model[case.name]
            times = [f"{value:,.2f}" for value in own["request_milliseconds"].values()]
            rates = [f"{own['texts_per_second']:,.1f}", f"{own['tokens_per_second']:,.0f}"]
            table.add_row(Text(name), *times, *rates, f"{own['speed_up']['median']:.2f}x")
        console.print(table)
    console.print(_conditions(found, cases), markup=False)


def _table(title: str, *headings: str) -> Table:
    return Table(*headings, title=title, title_justify="left", title_style="bold", header_style="bold", show_edge=False)


def _conditions(found: dict[str, Any], cases: tuple) -> str:
    settings, machine = found["settings"], found["machine"]
    first = next(iter(found["models"].values()))
    counts = sorted({first[case.name]["requests"] for case in cases})
    few = " (of fewer than 100 requests, p99 is near the slowest)" if counts[0] < 100 else ""
    number = f"{counts[0]:,}" if len(counts) == 1 else f"{counts[0]:,} to {counts[-1]:,}"
    what = f"{settings['texts']:,} {'pairs of texts' if found['pairs'] else 'texts'}" if settings["texts"] else "random tokens"
    return (
        f"{what}, {number} requests in {settings['rounds']} rounds{few}; from token ids to logits; "
        f"{machine['threads']} thread{'s' * (machine['threads'] > 1)}, {settings['clock']} clock, {machine['cpu']}. "
        "Memory: the most that the process of the model had. Speed-up: median of the rounds' ratios to the first model."
    )


def _tell(line: str) -> None:
    print(line, file=sys.stderr)
