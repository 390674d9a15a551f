"""The Python API: the command line's verbs as functions that return what the commands print.

A backend that this interpreter lacks is run in the one that has it (`backends.registry`), as the command line does.
"""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ...backends.registry import default_backend, interpreter
from ...converters.canonical import ReadOptions
from ...converters.convert import ConvertOptions
from ..engine import EngineOptions
from ..errors import CrossdistilError
from ..recipe import Recipe, load_recipe, overridden
from . import conversion, inference, inspection, predicting
from . import crosscheck as _crosscheck
from .exported import own_runtime
from .given_data import GivenData
from .launchers import find_place
from .options import given_plugins
from .progress import make_console
from .run import RunOptions, execute
from .run_folders import identity_of, kind_of, recipe_of
from .sessions import session
from .worker import run_worker


def run(
    recipe: str | Path | Recipe | None = None,
    *,
    out: str | Path,
    backend: str | None = None,
    device: str | None = None,
    precision: str | None = None,
    preset: str | Sequence[str] | None = None,
    overrides: Sequence[str] = (),
    plugins: Sequence[str] = (),
    log: Sequence[str] = (),
    resume: bool = False,
    devices: int | str | None = None,
    quiet: bool = False,
    report: bool = True,
    latency: bool = True,
    data: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Run a recipe into the folder `out`; returns the content of its `result.json`.

    `recipe` is a file, a name of the catalogue, or a recipe that was read before; `preset` is one of a file's variants,
    or several in their order, `overrides` are `path.to.key=value`, as `--set` on the command line, `plugins` files and modules
    as `--plugin`, `log` sinks as `--log`. With `resume` the run in `out` goes on; without
    a recipe, with its own recipe, backend, device and precision. `devices` is the number of devices of this machine, or `all`;
    each gets a process. Without `report` there is no report.html, which quotes texts of dev; without `latency` it is not
    measured in the end how fast student and teacher answer. `data` is the task's data where the caller holds it: split (`train`,
    `dev`) -> a list of dicts, a pandas frame or a `datasets.Dataset`, in place of `task.data` and `task.files`.
    Raises CrossdistilError.
    """
    given = None if data is None else GivenData(data)
    if given is not None:
        overrides = given.beside(overrides)
    place = find_place()
    started: dict[str, str] = {}
    if recipe is None:
        if not resume:
            raise CrossdistilError("run: needs a recipe, except with resume")
        recipe, started = recipe_of(Path(out)), identity_of(Path(out))
    backend = backend or started.get("backend") or default_backend()
    device = device or kind_of(started.get("device"), place, devices)
    precision = precision or started.get("precision", "fp32")
    if isinstance(recipe, Recipe) and preset is not None:
        raise CrossdistilError(f"preset '{preset}': a recipe that was read before has none left; give its file or name")
    if isinstance(recipe, Recipe):
        loaded = overridden(recipe, overrides, plugins, log)
    else:
        loaded = load_recipe(recipe, overrides, preset, plugins, log)
    if given is not None:
        loaded = given.placed(loaded)
    source = loaded.method if isinstance(recipe, Recipe) else str(recipe)
    python = interpreter(backend)
    with contextlib.nullcontext() if given is None else given.named():
        if python == Path(sys.executable) and devices is None:
            engine = EngineOptions(device, precision, place=place)
            options = RunOptions(backend, engine, Path(out).absolute(), resume, report=report, latency=latency)
            return execute(loaded, source, options, make_console(quiet, stderr=True))
        arguments = ["--precision", precision]
        arguments += ["--device", device] if device else []
        arguments += ["--resume"] if resume else []
        arguments += ["--devices", str(devices)] if devices is not None else []
        arguments += [] if report else ["--no-report"]
        arguments += [] if latency else ["--no-latency"]
        # What a worker prints goes to standard output, which belongs to the caller.
        return run_worker(loaded, source, backend, Path(out).absolute(), arguments, quiet=True)


def evaluate(
    model: str | Path,
    data: str | Path,
    *,
    task: str | None = None,
    split: str = "dev",
    columns: dict[str, str] | None = None,
    backend: str | None = None,
    device: str | None = None,
    precision: str = "fp32",
    plugins: Sequence[str] = (),
) -> dict[str, float]:
    """A model's metrics, as fractions, on a split of its own task, of the one named, or of one whose `columns` are given: text,
    label, and text_pair where there is one. `plugins` are files and modules as `--plugin`.

    The backend must be importable here; an exported model has its own runtime and needs none.
    """
    registered = given_plugins("evaluate", plugins)
    options = EngineOptions(device, precision)
    name = _runtime(Path(model), backend, device)
    return inference.evaluate(Path(model), task, Path(data), split, name, options, columns=columns, registered=registered)


def predict(
    model: str | Path,
    texts: str | Sequence[str],
    pairs: str | Sequence[str] | None = None,
    *,
    backend: str | None = None,
    device: str | None = None,
    precision: str = "fp32",
    plugins: Sequence[str] = (),
) -> list[predicting.Prediction]:
    """A model's predictions for texts, or for pairs of texts, in their order; a string is one text. `plugins` are files and
    modules as `--plugin`. The backend must be importable here; an exported model has its own runtime and needs none."""
    given_plugins("predict", plugins)
    options = EngineOptions(device, precision)
    text_list = [texts] if isinstance(texts, str) else list(texts)
    pair_list = None if pairs is None else [pairs] if isinstance(pairs, str) else list(pairs)
    with session(_runtime(Path(model), backend, device), options) as own:
        return predicting.predict(Path(model), text_list, pair_list, own)


def _runtime(model: Path, backend: str | None, device: str | None) -> str:
    target = own_runtime(model, {"backend": backend, "device": device})
    return backend or (default_backend() if target is None else target.name)


def crosscheck(
    recipe: str | Path,
    backends: Sequence[str],
    *,
    out: str | Path,
    steps: int | None = None,
    preset: str | Sequence[str] | None = None,
    overrides: Sequence[str] = (),
    plugins: Sequence[str] = (),
    quiet: bool = False,
) -> dict[str, Any]:
    """Run a recipe on several backends and compare them; returns the content of `crosscheck.json`."""
    options = _crosscheck.CrosscheckOptions(tuple(backends), Path(out).absolute(), source=str(recipe))
    loaded = _crosscheck.comparable(load_recipe(recipe, overrides, preset, plugins), steps)
    return _crosscheck.crosscheck(loaded, options, make_console(quiet, stderr=True))


def inspect(path: str | Path, *, plugins: Sequence[str] = ()) -> dict[str, Any]:
    """What a checkpoint of any framework holds: format, architecture, labels, tensors, what a conversion would drop.
    `plugins` are files and modules as `--plugin`."""
    given_plugins("inspect", plugins)
    return inspection.inspect(Path(path))


def convert(
    source: str | Path,
    destination: str | Path,
    *,
    to: str,
    layout: str | None = None,
    dtype: str | None = None,
    verify: bool = False,
    config: str | Path | None = None,
    allow_missing: Sequence[str] = (),
    allow_extra: Sequence[str] = (),
    prefix: str | None = None,
    rename: Sequence[str] = (),
    ema: bool = False,
    successor: bool = False,
    fix_config: bool = False,
    resize_vocabulary: int | None = None,
    type_vocabulary: int | None = None,
    overwrite: bool = False,
    encoder_only: bool = False,
    with_code: bool = False,
    saved_model: bool = False,
    plugins: Sequence[str] = (),
) -> dict[str, Any]:
    """Bring a checkpoint to another framework, as `crossdistil convert`; returns what was done. Raises CrossdistilError."""
    given_plugins("convert", plugins)
    place = None if config is None else Path(config)
    read = ReadOptions(place, tuple(allow_missing), tuple(allow_extra), fix_config, prefix, tuple(rename), ema, successor)
    options = ConvertOptions(to, layout, dtype, resize_vocabulary, type_vocabulary, overwrite, encoder_only, with_code, read=read)
    return conversion.as_json(conversion.run_conversion(Path(source), Path(destination), options, verify, saved_model))
