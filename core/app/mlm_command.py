"""`crossdistil data mlm`: from raw text to records of masked language model examples."""

from __future__ import annotations

from enum import Enum
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from .. import threads
from ..data.mlm.settings import BLOCK_BYTES, Settings
from ..errors import CrossdistilError
from ..extras import require
from .counting import CountProgress
from .options import MOST
from .progress import make_console

_DEFAULTS = Settings()
_SHARD_MIB = _DEFAULTS.blocks_per_shard * BLOCK_BYTES >> 20


class Format(str, Enum):
    """How files hold documents."""

    sentences = "sentences"
    lines = "lines"
    wiki = "wiki"
    json = "json"


class WholeWords(str, Enum):
    """What is masked as a whole."""

    none = "none"
    pieces = "pieces"
    chinese = "chinese"


class Algorithm(str, Enum):
    """How examples are made."""

    blocks = "blocks"
    google = "google"


# Parameters that only one algorithm has.
_OWN = {Algorithm.blocks: ("processes", "resume", "shard", "shard_mib"), Algorithm.google: ("files",)}


def mlm(
    context: typer.Context,
    data: Annotated[list[str], typer.Option(help="A file, folder or pattern; may be given several times. Also .gz, .bz2, .xz.")],
    vocabulary: Annotated[Path, typer.Option(help="A vocab.txt, or the folder of a model.")],
    out: Annotated[Path, typer.Option(help="A new folder, for the record files and notes of how they were made.")],
    format: Annotated[
        Format | None,
        typer.Option(
            help="sentences: one a line, blank lines between documents; lines: a document a line; wiki: WikiExtractor's; json: "
            "JSON lines. Default: told by each file's beginning."
        ),
    ] = None,
    text_key: Annotated[str, typer.Option(help="json: the key of the text.")] = "text",
    max_seq_length: Annotated[int, typer.Option(help="Tokens of an example.")] = _DEFAULTS.max_seq_length,
    max_predictions_per_seq: Annotated[
        int, typer.Option(help="Pieces that are masked in an example, at most.")
    ] = _DEFAULTS.max_predictions_per_seq,
    masked_lm_prob: Annotated[float, typer.Option(help="Share of pieces that are masked.")] = _DEFAULTS.masked_lm_prob,
    dupe_factor: Annotated[int, typer.Option(help="Passes over the text, each masked in its own way.")] = _DEFAULTS.dupe_factor,
    short_seq_prob: Annotated[float, typer.Option(help="Share of examples that are made short.")] = _DEFAULTS.short_seq_prob,
    seed: Annotated[int, typer.Option(help="Seed of all draws.")] = _DEFAULTS.seed,
    next_sentence: Annotated[
        bool, typer.Option("--next-sentence/--no-next-sentence", help="Pairs with next sentence labels, or one text each.")
    ] = _DEFAULTS.next_sentence,
    whole_words: Annotated[
        WholeWords, typer.Option(help="Mask whole words: pieces joins those that begin with ##, chinese also jieba's words.")
    ] = WholeWords.none,
    lower_case: Annotated[
        bool | None, typer.Option("--lower-case/--cased", help="Default: as tokenizer_config.json says, else lower case.")
    ] = None,
    algorithm: Annotated[
        Algorithm, typer.Option(help="google: create_pretraining_data.py to the record, in memory; blocks: parallel, streamed.")
    ] = Algorithm.blocks,
    processes: Annotated[
        int | None, typer.Option(min=1, max=MOST, help="blocks: worker processes; default: the processors.")
    ] = None,
    resume: Annotated[bool, typer.Option("--resume", help="blocks: keep the record files in --out that are complete.")] = False,
    shard: Annotated[
        str | None,
        typer.Option(metavar="I/N", help="blocks: only each Nth record file from the Ith on, for N machines; then data merge."),
    ] = None,
    shard_mib: Annotated[int, typer.Option(min=1, max=MOST, help="blocks: text in each record file, in MiB.")] = _SHARD_MIB,
    files: Annotated[int, typer.Option(min=1, max=MOST, help="google: record files, filled in turn.")] = 1,
) -> None:
    """Write records of masked language model examples, with Google's features, from raw text."""
    from ..data.mlm.blocks import Source
    from ..data.mlm.create import create
    from ..data.mlm.documents import Corpus
    from ..data.mlm.google import create_google
    from ..data.mlm.inputs import find_files
    from ..data.mlm.vocabulary import Vocabulary
    from ..data.shares import Part

    for other, names in _OWN.items():
        for name in names if other is not algorithm else ():
            if context.get_parameter_source(name).name == "COMMANDLINE":
                raise CrossdistilError(f"--{name.replace('_', '-')}: only for --algorithm {other.value}")
    settings = Settings(
        max_seq_length=max_seq_length,
        max_predictions_per_seq=max_predictions_per_seq,
        masked_lm_prob=masked_lm_prob,
        dupe_factor=dupe_factor,
        short_seq_prob=short_seq_prob,
        seed=seed,
        next_sentence=next_sentence,
        whole_words=whole_words.value,
        blocks_per_shard=max(1, shard_mib * (1 << 20) // BLOCK_BYTES),
    )
    settings.check()
    if settings.whole_words == "chinese":
        require("chinese", "--whole-words chinese")
    part = Part() if shard is None else Part.parse(shard)
    loaded = Vocabulary(vocabulary, lower_case)
    corpus = Corpus(find_files(data), None if format is None else format.value, text_key)
    console = make_console()
    if warning := loaded.case_warning():
        make_console(stderr=True).print(f"warning: {warning}", style="yellow")
    with CountProgress("mlm", "MB", console) as progress:

        def report(done: int, total: int) -> None:
            progress.count(round(done / 1e6, 1), round(total / 1e6, 1))

        if algorithm is Algorithm.google:
            note = create_google(corpus, loaded, settings, out, files, report)
        else:
            source = Source(vocabulary, lower_case, settings)
            note = create(corpus, source, loaded, out, part, processes or threads.number(), resume, report)
    tell_records(note, out, console)
    if not note["shards"]:
        console.print(f"nothing to do for {part}: the text fills fewer record files; a smaller --shard-mib makes more of them")


def tell_records(note: dict[str, Any], out: Path, console: Console) -> None:
    """What a folder of records holds."""
    counts = note["counts"]
    share = counts["masked"] / max(1, counts["tokens"])
    console.print(
        f"{counts['examples']:,} examples of {counts['documents']:,} documents, {share:.1%} of their tokens masked; "
        f"{len(note['shards'])} record file{'' if len(note['shards']) == 1 else 's'} written to {out}"
    )
