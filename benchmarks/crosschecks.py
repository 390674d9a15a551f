"""Every recipe of the catalogue on every backend for some steps, with the same first weights and batches: do they agree?

    python benchmarks/crosschecks.py --sst2 data/SST-2 --sts data/STS-B --names data/msra --text data/enwiki.txt \\
        --words vocab/uncased.txt --characters vocab/chinese.txt --out runs/crosschecks

Small models: encoders and a causal language model of 4 layers x 128 that start at random and are trained for some hundred steps,
so that they are no degenerate teachers; students have 2 of their layers, or 2 of their own. Real data: sentiment, similarity of
sentences, Chinese names and Wikipedia, from which the rankings (`rerankers.py`) and the questions are made: a question is a
sentence whose year is asked for. Each check is `crossdistil crosscheck RECIPE --backends torch,oneflow,mindspore` with the
settings that are kept beside what it found. Started again, it skips the checks that are complete.
"""

from __future__ import annotations

import argparse
import datetime
import json
import re
import shutil
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from backend_tables import crosschecks_table
from rerankers import articles, rankings, write
from tables import NEW_RESULTS, machine, write_json

from crossdistil.backends.registry import BACKENDS
from crossdistil.core.app.api import crosscheck, predict, run

LAYERS, WIDTH, HEADS = 4, 128, 4
TRAINED = {"names": 600, "sst2": 800}
"""Teacher -> its optimizer steps; of others 200."""
ROWS, DEV = 4000, 200
"""Examples of train and of dev that are read."""
PIECES = 4000
"""Tokens of the vocabulary that the causal language model has."""
COMMON = [f"task.limit.train={ROWS}", f"task.limit.dev={DEV}"]
LENGTH, LONG = 32, 128
"""Tokens of a text, and of a question or a query together with what it is read with."""
TWO = ["student.architecture.num_hidden_layers=2"]
FIRST, LAST = [*TWO, "student.init.layers=[0, 2]"], [*TWO, "student.init.layers=[1, 3]"]
NARROW = [*TWO, *(f"student.architecture.{key}" for key in ("hidden_size=96", "num_attention_heads=4", "intermediate_size=384"))]

# Name -> recipe, preset, data, teacher, first weights, batch size, other overrides. What is not here is the recipe's. The teacher
# and the first weights are names of TEACHERS.
CHECKS: dict[str, tuple[str, str | None, str, str | None, str | None, int, list[str]]] = {
    "kd": ("kd", None, "sst2", "sst2", None, 16, FIRST),
    "ner_distil_layers": (
        "ner", "distil_layers", "names", "names", None, 16, [*FIRST, "stages.0.objective.2.layers=[[2, 1], [4, 2]]"]
    ),
    "embedding": ("embedding", None, "sts", None, "mlm", 16, FIRST),
    "qa_distil": ("qa", "distil", "questions", "questions", None, 8, FIRST),
    "reranker": ("reranker", None, "rankings", None, "mlm", 4, FIRST),
    "clm": ("clm", None, "text", None, "clm", 16, []),
    "distilgpt2": ("distilgpt2", None, "text", "clm", None, 16, FIRST),
    "bilstm": ("bilstm", None, "sst2", "sst2", None, 16, []),
    "distilbert": ("distilbert", None, "text", "mlm", None, 16, LAST),
    "embedding_distil": ("embedding", "distil", "sentences", "sts", None, 16, FIRST),
    "finetune": ("finetune", None, "sst2", None, "mlm", 16, FIRST),
    "llm": ("llm", None, "answered", None, "mlm", 16, FIRST),
    "llm_answers": ("llm", "answers", "asked", None, "mlm", 8, FIRST),
    "minilm": ("minilm", None, "sst2", "sst2", None, 16, LAST),
    "mlm": ("mlm", None, "text", None, "mlm", 16, []),
    "ner": ("ner", None, "names", None, "names", 16, FIRST),
    "ner_distil": ("ner", "distil", "names", "names", None, 16, FIRST),
    "pkd": ("pkd", None, "sst2", "sst2", None, 16, FIRST),
    "qa": ("qa", None, "questions", None, "mlm", 8, FIRST),
    "reranker_distil": ("reranker", "distil", "rankings", "rankings", None, 4, FIRST),
    "t4tiny": (
        "t4tiny", "small_teacher", "sst2", "sst2", None, 16,
        [*NARROW, *(f"stages.0.objective.{term}.layers=[[0, 0], [2, 1], [4, 2]]" for term in (1, 2))],
    ),
    "theseus": ("theseus", None, "sst2", "sst2", None, 16, [*TWO, "student.init.layers=[0, 1]"]),
    "tinybert_gd": ("tinybert_gd", None, "text", "mlm", None, 16, NARROW),
    "tinybert_td": ("tinybert_td", None, "sst2", "sst2", None, 16, LAST),
}  # fmt: skip

# Name -> recipe, first weights (a model that starts at random, or another teacher), data, batch size.
TEACHERS = {
    "mlm": ("mlm", "encoder", "text", 16),
    "sst2": ("finetune", "mlm", "sst2", 16),
    "names": ("ner", "chinese", "names", 16),
    "sts": ("embedding", "mlm", "sts", 16),
    "questions": ("qa", "mlm", "questions", 8),
    "rankings": ("reranker", "mlm", "rankings", 4),
    "clm": ("clm", "gpt2", "text", 16),
}


def make_models(options: argparse.Namespace) -> None:
    """The models that start at random, by transformers, each with a tokenizer."""
    import torch
    from tokenizers import ByteLevelBPETokenizer
    from transformers import BertConfig, BertModel, GPT2Config, GPT2LMHeadModel

    torch.manual_seed(0)
    for name, words in (("encoder", options.words), ("chinese", options.characters)):
        size = len(words.read_text(encoding="utf-8").splitlines())
        sizes = {"num_hidden_layers": LAYERS, "hidden_size": WIDTH, "num_attention_heads": HEADS, "intermediate_size": 4 * WIDTH}
        BertModel(BertConfig(vocab_size=size, max_position_embeddings=256, **sizes)).save_pretrained(options.out / name)
        shutil.copyfile(words, options.out / name / "vocab.txt")
    tokenizer = ByteLevelBPETokenizer()
    tokenizer.train([str(options.out / "text.txt")], vocab_size=PIECES, special_tokens=["<|endoftext|>"])
    sizes = {"n_positions": 256, "n_embd": WIDTH, "n_layer": LAYERS, "n_head": HEADS, "bos_token_id": 0, "eos_token_id": 0}
    GPT2LMHeadModel(GPT2Config(vocab_size=PIECES, **sizes)).save_pretrained(options.out / "gpt2")
    tokenizer.save_model(str(options.out / "gpt2"))


def questions(path: Path, count: int) -> list[dict[str, Any]]:
    """So many paragraphs, each with a sentence of it whose first year is asked for."""
    found: list[dict[str, Any]] = []
    for context in (line for block in articles(path) for line in block):
        sentence = next((each for each in re.split(r"(?<=[.!?]) ", context) if re.search(r"\b1[0-9]{3}\b", each)), None)
        if sentence is None or len(found) == count:
            continue
        place = context.index(sentence) + re.search(r"\b1[0-9]{3}\b", sentence).start()
        year = context[place : place + 4]
        answers = [{"text": year, "start": place}]
        found.append(
            {"id": str(len(found)), "question": sentence.replace(year, "which year", 1), "context": context, "answers": answers}
        )
    return found


def make_data(options: argparse.Namespace) -> dict[str, list[str]]:
    """Name of data -> the overrides that name it; what is made lies in `--out`."""
    out = options.out
    for name, found in (("questions", questions(options.text, ROWS // 4)), ("rankings", rankings(options.text, ROWS // 4, 3, 0))):
        write(out / name / "train.jsonl", found[:-DEV])
        write(out / name / "dev.jsonl", found[-DEV:])
    alone = [{key: each[key] for key in ("id", "question", "context")} for each in questions(options.text, ROWS // 4)]
    write(out / "asked" / "train.jsonl", alone[:-DEV])
    shutil.copyfile(out / "questions" / "dev.jsonl", out / "asked" / "dev.jsonl")
    paragraphs = [line for line in options.text.read_text(encoding="utf-8").splitlines() if len(line) > 100]
    (out / "text.txt").write_text("\n".join(paragraphs[:ROWS]) + "\n", encoding="utf-8")
    (out / "sentences").mkdir(exist_ok=True)
    (out / "sentences" / "train.txt").write_text("\n".join(paragraphs[:ROWS]) + "\n", encoding="utf-8")
    shutil.copyfile(options.sts / "dev.tsv", out / "sentences" / "dev.tsv")
    lines = (options.sst2 / "train.tsv").read_text(encoding="utf-8").splitlines()
    texts = list(dict.fromkeys(line.split("\t")[0] for line in lines[1 : ROWS + 1]))
    (out / "answered").mkdir(exist_ok=True)
    (out / "answered" / "train.tsv").write_text("\n".join(["sentence", *texts]) + "\n", encoding="utf-8")
    shutil.copyfile(options.sst2 / "dev.tsv", out / "answered" / "dev.tsv")
    (out / "names").mkdir(exist_ok=True)
    for split, count in (("train", ROWS), ("dev", DEV)):
        sentences = (options.names / f"{split}.txt").read_text(encoding="utf-8").split("\n\n")[:count]
        (out / "names" / f"{split}.txt").write_text("\n\n".join(sentences) + "\n", encoding="utf-8")
    stride = "task.answers.stride=64"
    return {
        "sst2": [f"task.data={options.sst2}", *length(LENGTH)],
        "answered": [f"task.data={out / 'answered'}", f"teacher.file.path={out / 'labelled.jsonl'}", *length(LENGTH)],
        "sts": [f"task.data={options.sts}", *length(LENGTH)],
        "sentences": [f"task.data={out / 'sentences'}", *length(LENGTH)],
        "names": [f"task.data={out / 'names'}", "task.tokens.stray=begin", *length(LENGTH)],
        "text": [f"task.data={out / 'text.txt'}", *length(LENGTH)],
        "questions": [f"task.data={out / 'questions'}", *length(LONG), stride],
        "asked": [f"task.data={out / 'asked'}", f"teacher.file.path={out / 'answers.jsonl'}", *length(LONG), stride],
        "rankings": [f"task.data={out / 'rankings'}", *length(LONG)],
    }


def length(tokens: int) -> list[str]:
    """The overrides of one length for all batches: MindSpore compiles a step for each length that it meets."""
    return [f"task.max_length={tokens}", f"stages.0.train.length_buckets=[{tokens}]"]


def settings(data: str, places: dict[str, list[str]], batch: int) -> list[str]:
    """The overrides that data and its size need. Raw text has no limit and no dev."""
    return [*places[data], *([] if data == "text" else COMMON), f"stages.0.train.batch_size={batch}"]


def make_teacher(name: str, places: dict[str, list[str]], out: Path) -> None:
    """Train a teacher on what it is to teach, unless that is done."""
    recipe, start, data, batch = TEACHERS[name]
    folder = out / "teachers" / name
    if not (folder / "result.json").is_file():
        start = out / "teachers" / start if start in TEACHERS else out / start
        steps = TRAINED.get(name, 200)
        train = [f"stages.0.train.{key}" for key in (f"steps={steps}", "epochs=null", "learning_rate=5e-4", "keep=last")]
        given = [*settings(data, places, batch), *train, f"student.init.from={start}"]
        run(recipe, out=folder, backend="torch", overrides=given, report=False, latency=False, resume=True)


def write_answers(out: Path) -> None:
    """What the teachers of sentiment and of questions say of the training texts, as files of answers, unless that is done."""
    if not (out / "labelled.jsonl").is_file():
        texts = (out / "answered" / "train.tsv").read_text(encoding="utf-8").splitlines()[1:]
        rows = zip(texts, predict(out / "teachers" / "sst2", texts), strict=True)
        write(out / "labelled.jsonl", [{"sentence": text, "probabilities": answer.probabilities} for text, answer in rows])
    if not (out / "answers.jsonl").is_file():
        asked = [json.loads(line) for line in (out / "asked" / "train.jsonl").read_text(encoding="utf-8").splitlines()]
        pairs = [each["context"] for each in asked]
        found = predict(out / "teachers" / "questions", [each["question"] for each in asked], pairs)
        rows = zip(asked, [each.as_json() for each in found], strict=True)
        told = ("answer", "start", "end", "probability")
        write(out / "answers.jsonl", [{**own, "answers": [{key: answer[key] for key in told}]} for own, answer in rows])


def check(name: str, places: dict[str, list[str]], options: argparse.Namespace) -> dict[str, Any]:
    """What `crosscheck.json` says of a check, with how, where and when it was made."""
    recipe, preset, data, teacher, start, batch, own = CHECKS[name]
    folder = options.out / "checks" / f"{name}-{options.steps}"
    given = [*settings(data, places, batch), *own]
    if recipe in ("minilm", "tinybert_td"):
        given += [f"stages.1.train.batch_size={batch}", f"stages.1.train.length_buckets=[{LENGTH}]"]
    given += [f"teacher.model={options.out / 'teachers' / teacher}"] if teacher else []
    given += [f"student.init.from={options.out / 'teachers' / start}"] if start else []
    if (folder / "crosscheck.json").is_file():
        found = json.loads((folder / "crosscheck.json").read_text(encoding="utf-8"))
    else:
        shutil.rmtree(folder, ignore_errors=True)
        found = crosscheck(recipe, list(BACKENDS), out=folder, steps=options.steps, preset=preset, overrides=given, quiet=True)
    found = json.loads(json.dumps(found).replace(f"{options.out}/", ""))  # results that are kept name no folder of a machine
    told = [each for each in given if not re.match(r"task\.data|(teacher|student)\.[a-z.]*(model|from|path)=", each)]
    return found | {"preset": preset, "settings": told, "machine": machine(), "date": datetime.date.today().isoformat()}


def measure(options: argparse.Namespace, names: Sequence[str]) -> None:
    """Make what is needed, and keep each check as soon as it is made."""
    options.out.mkdir(parents=True, exist_ok=True)
    places = make_data(options)
    if not (options.out / "gpt2").is_dir():
        make_models(options)
    for name in TEACHERS:
        make_teacher(name, places, options.out)
    write_answers(options.out)
    for name in names:
        started = time.perf_counter()
        found = check(name, places, options)
        write_json(options.results / f"{name}.json", found)
        worst = max(pair["loss_max_relative_difference"] or 0.0 for pair in found["pairs"])
        print(f"{name}: {found['verdict']}, losses within {worst:.1e}; {time.perf_counter() - started:.0f} s", flush=True)
        for reason in (reason for pair in found["pairs"] for reason in pair["reasons"]):
            print(f"  {reason}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, about in (("sst2", "folder of SST-2"), ("sts", "folder of STS-B"), ("names", "folder of labelled names in Chinese"),
                        ("text", "raw English text, a paragraph a line and an empty line between articles"),
                        ("words", "a vocabulary of English"), ("characters", "a vocabulary of Chinese")):  # fmt: skip
        parser.add_argument(f"--{name}", type=lambda text: Path(text).absolute(), required=True, help=about)
    parser.add_argument("--out", type=lambda text: Path(text).absolute(), required=True, help="folder of all that is made")
    parser.add_argument("--checks", default=",".join(CHECKS), help="some of them, with commas between")
    parser.add_argument("--steps", type=int, default=50, help="of each stage")
    parser.add_argument("--results", type=Path, default=NEW_RESULTS / "crosschecks", help="folder for a result a check")
    options = parser.parse_args()
    names = options.checks.split(",")
    measure(options, names)
    found = [json.loads((options.results / f"{name}.json").read_text(encoding="utf-8")) for name in names]
    print(crosschecks_table(found))


if __name__ == "__main__":
    main()
