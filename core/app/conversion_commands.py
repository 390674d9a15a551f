"""`crossdistil convert` and `crossdistil inspect`: checkpoints of any framework."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from .options import LAYOUT_NAMES, MOST, Framework, PluginOption, Precision, given_plugins
from .progress import make_console

console = make_console()

_CONFIG_HELP = "config.json or bert_config.json, where it is elsewhere."
ExtraOption = Annotated[
    list[str] | None,
    typer.Option("--allow-extra", metavar="PATTERN", help="Leave out tensors that the model has no place for, as `criterion.*`."),
]
PrefixOption = Annotated[
    str | None, typer.Option("--prefix", help="What the names of the model start with; default: that under which most are known.")
]
RenameOption = Annotated[
    list[str] | None,
    typer.Option(
        "--rename",
        metavar="PATTERN=NAME",
        help="Read tensors as if they had another name: `fc.*=classifier.*`; a * in NAME is what the * in PATTERN stands for.",
    ),
]
EmaOption = Annotated[bool, typer.Option("--ema", help="TensorFlow: read the moving averages of the weights.")]
SuccessorOption = Annotated[
    bool, typer.Option("--successor", help="Of a training of BERT-of-Theseus read the successor, not the predecessor.")
]


def convert(
    source: Annotated[Path, typer.Argument(help="A checkpoint: file, folder, or TensorFlow prefix.")],
    destination: Annotated[Path, typer.Argument(help="A new folder.")],
    to: Annotated[Framework, typer.Option(help="The framework that shall read it.")],
    layout: Annotated[str | None, typer.Option(help=f"How it is written: {LAYOUT_NAMES}. Default: the first.")] = None,
    dtype: Annotated[Precision | None, typer.Option(help="Type of floating-point weights; default: as they are.")] = None,
    verify: Annotated[bool, typer.Option("--verify", help="Prove the result before it takes its place.")] = False,
    config: Annotated[Path | None, typer.Option(help=_CONFIG_HELP)] = None,
    allow_missing: Annotated[list[str] | None, typer.Option(metavar="PATTERN", help="Go on without these.")] = None,
    allow_extra: ExtraOption = None,
    prefix: PrefixOption = None,
    rename: RenameOption = None,
    ema: EmaOption = False,
    successor: SuccessorOption = False,
    fix_config: Annotated[bool, typer.Option("--fix-config", help="Where it contradicts them, trust the tensors.")] = False,
    resize_vocabulary: Annotated[int | None, typer.Option(min=1, max=MOST, help="Rows of the result's vocabulary.")] = None,
    type_vocabulary: Annotated[
        int | None, typer.Option(min=1, max=MOST, help="DistilBERT to tf: rows of the token types for Google's graph; default 2.")
    ] = None,
    encoder_only: Annotated[bool, typer.Option("--encoder-only", help="Leave classifier and pre-training heads out.")] = False,
    with_code: Annotated[
        bool, typer.Option("--with-code", help="Also write network.py, the network of that framework which loads the result.")
    ] = False,
    saved_model: Annotated[
        bool, typer.Option("--saved-model", help="With --to tf --with-code: also a SavedModel; needs TensorFlow.")
    ] = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace a destination that exists.")] = False,
    plugins: PluginOption = None,
    as_json: Annotated[bool, typer.Option("--json", help="What was done, as JSON.")] = False,
) -> None:
    """Bring a checkpoint from one framework to another; neither need be installed."""
    given_plugins("convert", plugins)
    from ...converters.canonical import ReadOptions
    from ...converters.convert import ConvertOptions
    from . import conversion

    read = ReadOptions(
        config, tuple(allow_missing or ()), tuple(allow_extra or ()), fix_config, prefix, tuple(rename or ()), ema, successor
    )
    kind = None if dtype is None else dtype.value
    sizes = resize_vocabulary, type_vocabulary
    options = ConvertOptions(to.value, layout, kind, *sizes, overwrite, encoder_only, with_code, read=read)
    converted = conversion.run_conversion(source, destination, options, verify, saved_model)
    if as_json:
        print(json.dumps(conversion.as_json(converted), indent=2))
    else:
        conversion.print_conversion(converted, destination, console)


def inspect(
    path: Annotated[Path, typer.Argument(help="A model folder, or a checkpoint of any framework.")],
    as_json: Annotated[bool, typer.Option("--json", help="Everything as JSON, each tensor too.")] = False,
    tensors: Annotated[bool, typer.Option("--tensors", help="List every tensor.")] = False,
    config: Annotated[Path | None, typer.Option(help=_CONFIG_HELP)] = None,
    allow_extra: ExtraOption = None,
    prefix: PrefixOption = None,
    rename: RenameOption = None,
    ema: EmaOption = False,
    successor: SuccessorOption = False,
    plugins: PluginOption = None,
) -> None:
    """Show what a checkpoint holds: format, architecture, labels, tensors, and what a conversion would drop."""
    given_plugins("inspect", plugins)
    from ...converters.canonical import ReadOptions
    from .conversion import print_inspection
    from .inspection import inspect as describe

    extra, renames = tuple(allow_extra or ()), tuple(rename or ())
    found = describe(path, ReadOptions(config, (), extra, False, prefix, renames, ema, successor))
    if as_json:
        print(json.dumps(found, indent=2))
    else:
        print_inspection(found, tensors, console)
