"""`crossdistil data ...`: commands that make new data of what there is."""

from __future__ import annotations

from enum import Enum
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ...backends.registry import default_backend
from ..errors import CrossdistilError, did_you_mean
from .counting import CountProgress
from .mlm_command import mlm
from .options import MOST, BackendOption, DeviceOption, Precision, PrecisionOption, hand_over
from .progress import make_console
from .record_commands import add_record_commands
from .share_commands import add_share_commands

if TYPE_CHECKING:
    from ..data.task_specs import TaskSpec

data_app = typer.Typer(help="Make new data of what there is.", no_args_is_help=True)
data_app.command()(mlm)
add_record_commands(data_app)
add_share_commands(data_app)


class Method(str, Enum):
    """How texts are changed."""

    words = "words"
    masked_lm = "masked-lm"


# Parameters that only one method has.
_OWN = {
    Method.words: ("mask_probability", "ngram_probability", "pos_lexicon"),
    Method.masked_lm: ("model", "vectors", "candidates", "batch_size", "backend", "device", "precision"),
}


def _probability(help: str):
    return typer.Option(min=0.0, max=1.0, help=help)


@data_app.command()
def augment(
    context: typer.Context,
    task: Annotated[str, typer.Option(help="A GLUE task, or any name together with --text and --label.")],
    data: Annotated[Path, typer.Option(help="Folder with the task's files.")],
    out: Annotated[Path, typer.Option(help="A new folder, for the same files.")],
    method: Annotated[Method, typer.Option(help="words: Tang et al. 2019; masked-lm: TinyBERT.")],
    copies: Annotated[
        int | None,
        typer.Option(min=1, max=10_000, help="Of each example (masked-lm: of each text), at most; default: as published."),
    ] = None,
    seed: Annotated[int, typer.Option(min=0, max=MOST, help="Seed of all draws.")] = 42,
    text: Annotated[str | None, typer.Option(help="Column of the texts.")] = None,
    text_pair: Annotated[str | None, typer.Option(help="Column of the second texts.")] = None,
    label: Annotated[str | None, typer.Option(help="Column of the labels.")] = None,
    replace_probability: Annotated[
        float | None, _probability("That a word is replaced; default: 0.1 for words, 0.4 for masked-lm.")
    ] = None,
    mask_probability: Annotated[float, _probability("words: that a word becomes [MASK].")] = 0.1,
    ngram_probability: Annotated[float, _probability("words: that only 1 to 5 words in a row are kept.")] = 0.25,
    pos_lexicon: Annotated[
        Path | None, typer.Option(help="words: .tsv file of word<TAB>part of speech; default: a tagger of English.")
    ] = None,
    model: Annotated[Path | None, typer.Option(help="masked-lm: folder of a BertForMaskedLM.")] = None,
    vectors: Annotated[
        Path | None, typer.Option(help="masked-lm: GloVe text file for words of several pieces; default: the model.")
    ] = None,
    candidates: Annotated[int, typer.Option(min=1, max=MOST, help="masked-lm: how many words to ask for in each place.")] = 15,
    batch_size: Annotated[int, typer.Option(min=1, max=MOST, help="masked-lm: places that are filled at once.")] = 64,
    backend: BackendOption = None,
    device: DeviceOption = None,
    precision: PrecisionOption = Precision.fp32,
) -> None:
    """Write a task folder whose training file also has changed copies of its examples."""
    from ..augmentation.replaced_words import MaskedSettings, published_copies  # which load the tokenizers
    from ..augmentation.task_folder import check_new_folder, read_training_texts, write_task_folder
    from ..augmentation.word_copies import WordSettings
    from ..engine import EngineOptions
    from .augment import by_masked_lm, by_words

    _check_method(context, method)
    check_new_folder(out, "--out")
    name = ""
    if method is Method.masked_lm:
        name = backend or default_backend()
        hand_over(name)
    spec = _task(task, data, text, text_pair, label)
    train = read_training_texts(spec, data)
    console = make_console()
    for line in train.notes:
        console.print(line, markup=False)
    with CountProgress(f"augment {spec.name}", "examples", console) as progress:
        if method is Method.words:
            chosen = {"mask": mask_probability, "replace": replace_probability, "ngram": ngram_probability}
            settings = WordSettings(
                copies=copies or (20 if train.pairs is None else 10),
                **{key: value for key, value in chosen.items() if value is not None},
            )
            if settings.mask + settings.replace > 1:
                both = f"--mask-probability {settings.mask:g} and --replace-probability {settings.replace:g}"
                raise CrossdistilError(f"{both}: together more than 1")
            about, found = by_words(train, settings, pos_lexicon, seed, progress.count)
        else:
            if replace_probability == 0:
                raise CrossdistilError("--replace-probability 0: nothing would change with --method masked-lm")
            settings = MaskedSettings(
                copies=copies or published_copies(spec.name),
                replace=0.4 if replace_probability is None else replace_probability,
                candidates=candidates,
            )
            options = EngineOptions(device, precision.value)
            about, found = by_masked_lm(
                train,
                settings,
                model,
                vectors,
                name,
                options,
                batch_size,
                seed,
                progress.count,
                partial(console.print, markup=False),
            )
        about = {"method": method.value, "task": spec.name, "seed": seed, **about}
        examples = write_task_folder(spec, data, train, found, out, about)["examples"]
    console.print(f"{examples['original']:,} examples and {examples['added']:,} copies of them; written to {out}")


def _check_method(context: typer.Context, method: Method) -> None:
    """Refuse what is given for another method, and ask for what is missing for this one."""
    for other, names in _OWN.items():
        for name in names if other is not method else ():
            if context.get_parameter_source(name).name == "COMMANDLINE":
                raise CrossdistilError(f"--{name.replace('_', '-')}: only for --method {other.value}")
    if method is Method.masked_lm and context.params["model"] is None:
        raise CrossdistilError("--model: needed for --method masked-lm, the folder of a BertForMaskedLM")


def _task(name: str, data: Path, text: str | None, text_pair: str | None, label: str | None) -> TaskSpec:
    from ..data.task_specs import GLUE_TASKS, glue_task
    from ..data.tasks import resolve_task
    from ..task_section import TaskSection

    if not data.is_dir():
        what = "is a file, expected a folder" if data.exists() else "no such folder"
        raise CrossdistilError(f"--data {data}: {what}")
    if glue_task(name) is None:
        for option, value in {"--text": text, "--label": label}.items():
            if value is None:
                near = did_you_mean(name.lower(), GLUE_TASKS)
                raise CrossdistilError(f"{option}: needed, because '{name}' is not a GLUE task{near}")
    return resolve_task(TaskSection(name=name, data=data, text=text, text_pair=text_pair, label=label))
