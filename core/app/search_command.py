"""`crossdistil search`: which settings of a recipe, or which student of a teacher, are best within a budget."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import signal
import sys
import uuid
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ...backends.registry import default_backend, interpreter
from ..errors import CrossdistilError, RecipeError, did_you_mean
from ..shown import counted, shown
from .options import MOST, BackendOption, PluginOption, Precision, PresetOption, SetOption
from .progress import duration, make_console

if TYPE_CHECKING:
    from ..recipe import Recipe

_MOST_WORKERS, _MOST_SEEDS = 256, 20


def search(
    recipe: Annotated[
        str | None, typer.Argument(help="A YAML file, or a name of `crossdistil recipes`; not needed with --resume or --teacher.")
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="Folder of the search; default: runs/search-METHOD-TIME.")
    ] = None,
    minutes: Annotated[float | None, typer.Option(help="Budget: start nothing after so long, in all.")] = None,
    trials: Annotated[int | None, typer.Option(min=1, max=MOST, help="Budget: so many trials in all.")] = None,
    workers: Annotated[int | None, typer.Option(min=1, max=_MOST_WORKERS, help="Trials at once; default: 1.")] = None,
    seeds: Annotated[
        int | None,
        typer.Option(min=0, max=_MOST_SEEDS, help="Then run the best and the recipe as it is with so many other seeds."),
    ] = None,
    space: Annotated[Path | None, typer.Option(metavar="FILE", help="What may change; default: the recipe's `search`.")] = None,
    grid: Annotated[str | None, typer.Option(metavar="NAME", help="A published grid of the recipe: paper.")] = None,
    metric: Annotated[str | None, typer.Option(help="The score; default: the task's first.")] = None,
    no_pruning: Annotated[bool, typer.Option("--no-pruning", help="Give no trial up before its end.")] = False,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with the search in --out, or join those that do.")] = False,
    storage: Annotated[
        str | None, typer.Option(metavar="URL", help="The study of several machines: a database's URL, or grpc://HOST:PORT.")
    ] = None,
    study: Annotated[str | None, typer.Option(help="Its name there; default: made of recipe and space.")] = None,
    teacher: Annotated[Path | None, typer.Option(help="Autopilot: choose a student for this fine-tuned model.")] = None,
    data: Annotated[Path | None, typer.Option(help="Autopilot: folder of the task.")] = None,
    task: Annotated[str | None, typer.Option(help="Autopilot: name of a GLUE task; default: the teacher's.")] = None,
    max_latency: Annotated[
        str | None, typer.Option(metavar="2ms", help="Autopilot: the median of a request of one text.")
    ] = None,
    max_size: Annotated[str | None, typer.Option(metavar="20MB", help="Autopilot: the student's weights in float32.")] = None,
    threads: Annotated[int | None, typer.Option(min=1, max=1024, help="Of the latencies that are measured; default: 1.")] = None,
    preset: PresetOption = None,
    overrides: SetOption = None,
    plugins: PluginOption = None,
    backend: BackendOption = None,
    device: Annotated[str | None, typer.Option(metavar="NAME,NAME", help="Devices, which the workers take in turn.")] = None,
    precision: Annotated[Precision | None, typer.Option(help="What the models compute in; default: fp32.")] = None,
) -> None:
    """Search the best settings of a recipe, or (--teacher) the best student within a limit."""
    from ..files import make_folder
    from ..recipe import load_recipe
    from .launchers import refuse_place

    refuse_place("search")
    from .search import Asked, Search
    from .search_page import write_results
    from .search_settings import Settings, discard, new_folder, read_settings

    console = make_console()
    if minutes is not None and not 0 < minutes <= 10**7:
        raise CrossdistilError(f"--minutes {minutes:g}: expected a number above 0")
    if resume:
        if out is None:
            raise CrossdistilError("--resume: name the folder of the search with --out")
        fixed = {
            "RECIPE": recipe, "--space": space, "--grid": grid, "--metric": metric, "--storage": storage, "--study": study,
            "--teacher": teacher, "--data": data, "--task": task, "--max-latency": max_latency, "--max-size": max_size,
            "--threads": threads, "--preset": preset, "--set": overrides, "--plugin": plugins, "--backend": backend,
            "--precision": precision, "--no-pruning": no_pruning,
        }  # fmt: skip
        given = next((option for option, value in fixed.items() if value), None)
        if given is not None:
            raise CrossdistilError(f"{given}: is as it was when the search in {out} was started; leave it out")
        settings = read_settings(out)
        changes: dict[str, Any] = {"minutes": minutes, "trials": trials, "seeds": seeds}
        changes = {key: value for key, value in changes.items() if value is not None}
        changes |= {"devices": _devices(device)} if device else {}
        settings = dataclasses.replace(settings, **changes)
        if changes:
            settings.write(out)
    else:
        if minutes is None and trials is None and grid is None:
            raise CrossdistilError("search: name a budget: --minutes or --trials (a --grid has its own number of trials)")
        name = backend or default_backend()
        known: dict[str, Any] = {
            "backend": name,
            "devices": _devices(device) if device else (),
            "precision": (precision or Precision.fp32).value,
            "minutes": minutes,
            "trials": trials,
            "seeds": seeds or 0,
            "pruning": not no_pruning,
            "storage": storage,
        }
        if study is not None and storage is None:
            raise CrossdistilError("--study: is the name in a --storage, and none is given")
        if out is not None:
            new_folder(out)
        if teacher is not None or recipe is None:
            given = {"RECIPE": recipe, "--space": space, "--grid": grid, "--preset": preset}
            limits = (max_latency, max_size, threads or 1)
            settings = _autopilot(given, teacher, data, task, limits, overrides, plugins, metric, known, console)
        else:
            autopilot = {"--data": data, "--task": task, "--max-latency": max_latency, "--max-size": max_size}
            autopilot |= {"--threads": threads}
            wrong = next((option for option, value in autopilot.items() if value is not None), None)
            if wrong is not None:
                raise CrossdistilError(f"{wrong}: is of the autopilot, which needs --teacher and no recipe")
            loaded = load_recipe(recipe, overrides or [], preset, plugins or [])
            chosen = space_asked_for(recipe, space, grid)
            settings = Settings(loaded, recipe, chosen, _checked(loaded, recipe, chosen, metric), **known)
        interpreter(name)  # which a plugin of the recipe may bring
        out = out or Path("runs") / f"search-{settings.recipe.method}-{datetime.now():%Y%m%d-%H%M%S}"
        new_folder(out)
        make_folder(out)
        settings = dataclasses.replace(settings, study=study or _name(settings), place=uuid.uuid4().hex)
        settings.write(out)
    try:
        found = Search(out.absolute(), settings, workers or 1, console)
        if not found.is_finished:
            found.check_data()
        _announce(found, out, console)
    except BaseException:  # Ctrl-C too
        if not resume:  # nothing was begun: the folder is as it was
            discard(out)
        raise
    with Asked() as asked:
        found.work(asked)
        found.with_seeds(asked)
        page, headline = write_results(found)
    console.print(headline, markup=False)
    console.print(f"report: {page}", markup=False)
    if asked.times:
        word = "terminated" if asked.number == signal.SIGTERM else "interrupted"
        print(f"crossdistil: {word}; crossdistil search --resume --out {out} goes on", file=sys.stderr)
        sys.exit(128 + asked.number)
    if not any(record.state == "complete" for record in found.study.records()):
        raise CrossdistilError(f"{out}: no trial came to its end; {page.with_suffix('.md')} says why")


def _devices(text: str) -> tuple[str, ...]:
    return tuple(name.strip() for name in text.split(",") if name.strip())


def space_asked_for(recipe: str, file: Path | None, grid: str | None) -> Any:
    """The space that was asked for. Raises CrossdistilError."""
    from ..recipe import find_recipe, recipe_tree
    from ..yaml_files import read_yaml
    from .search_space import space_of

    if file is not None and grid is not None:
        raise CrossdistilError("--grid: is a space of its own, and --space another; give one of them")
    if file is not None:
        tree = read_yaml(file)
        return space_of(tree.get("search", tree) if isinstance(tree, dict) else tree, str(file))
    tree, where = recipe_tree(recipe), find_recipe(recipe)
    if grid is None:
        if not isinstance(tree, dict) or "search" not in tree:
            more = "" if not _grids(tree) else f", or one of its grids: --grid {next(iter(_grids(tree)))}"
            raise RecipeError(recipe, [f"search: missing: what may change; give it there, or in a file with --space{more}"])
        return space_of(tree["search"], f"{recipe}: search")
    known = _grids(tree)
    if grid not in known:
        names = f" ({', '.join(known)})" if known else "; it has none"
        raise RecipeError(recipe, [f"--grid {shown(grid)}: not one of its grids{did_you_mean(grid, known)}{names}"])
    found = known[grid]
    if not isinstance(found, dict) or "space" not in found:
        raise RecipeError(str(where), [f"grids.{grid}: expected a mapping with source and space"])
    return space_of(found["space"], f"{recipe}: grids.{grid}.space", True, str(found.get("source", "")))


def _grids(tree: Any) -> dict[str, Any]:
    found = tree.get("grids") if isinstance(tree, dict) else None
    return found if isinstance(found, dict) else {}


def _checked(recipe: Recipe, source: str, space: Any, metric: str | None) -> str:
    """Find all that is wrong before the first trial; returns the metric. Raises CrossdistilError."""

    from ..data.tasks import resolve_task
    from .preparing import check_fit, prepared
    from .search_check import check_space

    unfit = None
    try:
        prepared(recipe, source)
    except CrossdistilError as error:
        unfit = error

    def takes(changed: Recipe) -> None:
        other_data = changed.task != recipe.task or changed.aux_data != recipe.aux_data
        check_fit(changed, source, rows=other_data)

    try:
        check_space(space, recipe, None if unfit else takes)
    except RecipeError as error:
        raise CrossdistilError(f"{error}\n{unfit}") if unfit else error from error
    if unfit is not None:
        raise unfit
    spec = resolve_task(recipe.task, recipe.registered)
    if metric is not None and metric not in spec.metrics:
        known = ", ".join(spec.metrics) or "none"
        raise CrossdistilError(f"--metric {metric}: the task has {known}{did_you_mean(metric, spec.metrics)}")
    if not spec.metrics:
        raise RecipeError(source, ["task: has no metric on dev, so no trial could be called better than another"])
    return metric or spec.metrics[0]


def _autopilot(
    others: dict[str, Any],
    teacher: Path | None,
    data: Path | None,
    task: str | None,
    limits: tuple[str | None, str | None, int],
    overrides: list[str] | None,
    plugins: list[str] | None,
    metric: str | None,
    known: dict[str, Any],
    console: Any,
) -> Any:
    wrong = next((option for option, value in others.items() if value is not None), None)
    if teacher is None or data is None:
        need = "--teacher" if teacher is None else "--data"
        raise CrossdistilError(f"search: name a recipe, for example kd; without one, the autopilot needs {need}")
    if wrong is not None:
        raise CrossdistilError(f"{wrong}: the autopilot (--teacher) chooses it itself")
    from .autopilot import choose

    return choose(teacher, data, task, limits, overrides or [], plugins or [], metric, known, console)


def _name(settings: Any) -> str:
    """A study's name: who searches the same recipe over the same space works on the same study."""
    text = json.dumps([settings.recipe.digest(), settings.space.as_data(), settings.metric], sort_keys=True)
    return f"{settings.recipe.method}-{hashlib.sha256(text.encode()).hexdigest()[:12]}"


def _announce(found: Any, out: Path, console: Any) -> None:
    settings, space = found.settings, found.settings.space
    budget = [counted(settings.minutes, "minute")] if settings.minutes else []
    budget += [counted(settings.trials, "trial")] if settings.trials else []
    budget += [f"a grid of {space.size}"] if space.is_grid else []
    where = f", study {settings.study} in {settings.storage}" if settings.storage else ""
    console.print(f"search of {settings.recipe.method} into {out}: {', '.join(budget)}{where}", markup=False)
    for dimension in space.dimensions:
        console.print(f"  {dimension.name}: {dimension.text()}", markup=False)
    if space.origin:
        console.print(f"  grid of {space.origin}", markup=False)
    spent = found.study.seconds()  # before this command
    done = [record for record in found.study.records() if record.state in ("complete", "pruned", "failed")]
    if done:
        there = "trial is there already, which took" if len(done) == 1 else "trials are there already, which took"
        larger = {"--minutes": settings.minutes, "--trials": None if space.is_grid else settings.trials}
        unless = " or ".join(option for option, value in larger.items() if value)
        left = f"; nothing is left to do{unless and f' unless {unless} is larger'}" if found.is_finished else ""
        console.print(f"{len(done):,} {there} {duration(spent)}{left}")
