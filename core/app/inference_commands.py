"""`crossdistil evaluate` and `crossdistil predict`: a finished model's score on a task, and its predictions for texts.

In several processes, which share the batches out, they print the same as in one: the first process reads what is given, and says
and writes all.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated

import typer

from ...backends.registry import default_backend
from ..errors import CrossdistilError
from ..lengths import LONGEST
from .options import (
    BackendOption,
    DeviceOption,
    DevicesOption,
    PluginOption,
    Precision,
    PrecisionOption,
    given_plugins,
    hand_over,
)

ModelArgument = Annotated[Path, typer.Argument(help="A model folder or checkpoint, or a finished run, whose student is meant.")]
LengthOption = Annotated[int | None, typer.Option(min=4, max=LONGEST, help="Cut texts to this many tokens; default: as trained.")]


def evaluate(
    model: ModelArgument,
    data: Annotated[Path, typer.Option(help="Folder with the task's files.")],
    task: Annotated[str | None, typer.Option(help="A GLUE task; default: the one it was trained on.")] = None,
    text: Annotated[str | None, typer.Option(help="Column of the texts, of a task of your own.")] = None,
    text_pair: Annotated[str | None, typer.Option(help="Column of the second texts.")] = None,
    label: Annotated[str | None, typer.Option(help="Column of the labels.")] = None,
    split: Annotated[str, typer.Option(help="Which file of the task.")] = "dev",
    backend: BackendOption = None,
    device: DeviceOption = None,
    precision: PrecisionOption = Precision.fp32,
    devices: DevicesOption = None,
    max_length: LengthOption = None,
    plugins: PluginOption = None,
) -> None:
    """Score a model on a task; prints the metrics as JSON."""
    from ..engine import EngineOptions
    from .devices import enter, run_on_all

    place = enter(devices)
    registered = given_plugins("evaluate", plugins)
    name = _runtime(model, backend, device, devices)
    run_on_all(place, devices, name, device, reads_input=True)
    from .inference import evaluate

    options = EngineOptions(device, precision.value, place=place)
    columns = {"text": text, "text_pair": text_pair, "label": label}
    metrics = evaluate(model, task, data, split, name, options, max_length, columns, _tell, registered)
    if place.rank == 0:
        print(json.dumps(metrics))


def predict(
    model: ModelArgument,
    text: Annotated[list[str] | None, typer.Argument(help="Texts to classify; omit them with --file.")] = None,
    pair: Annotated[
        str | None,
        typer.Option(help="The second text, for a model of pairs (with one TEXT), or what a question is to be answered from."),
    ] = None,
    file: Annotated[
        Path | None,
        typer.Option(
            help="A file with one text a line, a TSV, CSV or JSON table, or - for lines of standard input; for a model of tokens "
            "also columns with a word a line (.conll, .bio, .iob) or lists of words in a table, for one of answers SQuAD's JSON."
        ),
    ] = None,
    text_column: Annotated[
        str | None, typer.Option(help="Column of a table's texts; default: as the model's task has it.")
    ] = None,
    pair_column: Annotated[str | None, typer.Option(help="Column of the second texts.")] = None,
    id_column: Annotated[str | None, typer.Option(help="Column that is written beside each answer, as id.")] = None,
    encoding: Annotated[str | None, typer.Option(help="Of --file, where it is not UTF-8: gb18030, cp1252, ...")] = None,
    out: Annotated[Path | None, typer.Option(help="Write JSON lines there instead of printing them.")] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace --out if it is there.")] = False,
    backend: BackendOption = None,
    device: DeviceOption = None,
    precision: PrecisionOption = Precision.fp32,
    devices: DevicesOption = None,
    max_length: LengthOption = None,
    plugins: PluginOption = None,
) -> None:
    """Classify texts; prints one JSON object a line: the label and the probability of each class, the spans that a model of
    tokens finds, the answer to a question, or the text's vector."""
    from ..engine import EngineOptions
    from .devices import enter, run_on_all

    place = enter(devices)
    given_plugins("predict", plugins)
    name = _runtime(model, backend, device, devices)
    import numpy as np

    from ..files import replace_file, write_text
    from .given_texts import GivenTexts, check_columns, of_the_first, read_texts

    if (file is None) == (not text):
        raise CrossdistilError("predict: give either texts or --file" + (", not both" if text else ""))
    if pair is not None and file is not None:
        raise CrossdistilError("--pair: is the second of one TEXT; for those of a file give --pair-column")
    if pair is not None and len(text) != 1:
        raise CrossdistilError(f"--pair: needs exactly one text, got {len(text)}")
    check_columns(file, text_column, pair_column, encoding, id_column)
    if overwrite and out is None:
        raise CrossdistilError("--overwrite: is for --out, which is not given")
    if out is not None and out.exists() and not overwrite:
        raise CrossdistilError(f"--out {out}: is there already; --overwrite replaces it")
    run_on_all(place, devices, name, device, reads_input=True)
    from .finished_model import load_classifier
    from .predicting import as_json_lines, predict
    from .ranked_lists import ranked_lines
    from .sessions import session

    with session(name, EngineOptions(device, precision.value, place=place)) as own:
        tell = own.teller(_tell)
        given = GivenTexts(text or [], None if pair is None else [pair])
        classifier = own.world.together(load_classifier, model, tell, None)
        if file is not None:
            task, how = classifier[0].about.get("task", {}), (text_column, pair_column, id_column, encoding)
            given = of_the_first(own.world, read_texts, file, task, *how, classifier[0].kind)
        for note in given.notes:
            tell(f"warning: {note}")
        of_vectors = out is not None and out.suffix == ".npy"
        if of_vectors and not classifier[0].kind.embeds:
            raise CrossdistilError(f"--out {out}: .npy is for the vectors of a model that embeds texts; {model} does not")
        if of_vectors and given.ids is not None:
            raise CrossdistilError(f"--id-column: {out} has vectors alone; write .jsonl to have what identifies each text")
        found = predict(model, given.texts, given.pairs, own, max_length, tell, classifier, given.by_spaces)
    if place.rank:
        return
    if of_vectors:
        vectors = np.stack([each.embedding for each in found])
        with replace_file(out) as temporary, temporary.open("wb") as file_of_vectors:
            np.save(file_of_vectors, vectors)
        return
    lines = as_json_lines(found, given.ids) if given.lists is None else ranked_lines(found, given.lists)
    if out is None:
        sys.stdout.write(lines)
    else:
        write_text(out, lines)


def _runtime(model: Path, backend: str | None, device: str | None, devices: str | None) -> str:
    """The name of what the model runs in; the command goes on in the Python that has it."""
    from .exported import enter_runtime, needs_framework

    given = {"--backend": backend, "--device": device, "--devices": devices}
    name = enter_runtime(model, given)
    if name is None:
        with needs_framework(model, backend):
            name = backend or default_backend()
            hand_over(name)
    return name


def _tell(line: str) -> None:
    """Say something beside what a command prints, which may go to another program."""
    print(line, file=sys.stderr)
