"""Rerankers of three layers, by `recipes/reranker.yaml`: fine-tuned on what is relevant, and distilled from one of all layers
that was, on rankings that are made of articles; and embeddings of three layers that search, which learn from it as well.

    python benchmarks/rerankers.py --articles data/enwiki.txt --encoder models/minilm --out runs/rerankers

Made data: a query is a sentence of a paragraph, which is taken out of it; relevant is the rest of the paragraph, and the other
candidates are paragraphs of the same article, or where it has too few, of the next ones (the inverse cloze task of Lee et al.
2019). So the figures say how much of a teacher a student keeps, and nothing of search. `--articles` has a paragraph a line, and
an empty line between articles. The students start from the layers of the teacher that begin equal blocks. Started again, it skips
the runs that are complete; in the end `crossdistil compare` finds `compared.json` of them, as in `all_methods.py`, in
OUT/rerankers and, of `--vectors`, in OUT/vectors.
"""

from __future__ import annotations

import argparse
import json
import random
import re
import sys
from pathlib import Path
from typing import Any

from all_methods import STUDENT_LEARNING_RATE, chosen_layers, compare
from run_names import REFERENCE, run_name
from tables import model_at

from crossdistil.core.app.api import predict, run
from crossdistil.core.config_file import load_config

SHORTEST, LONGEST = 120, 300
"""Characters of a paragraph that is taken."""
_SENTENCE = re.compile(r"(?<=[.!?]) +(?=[A-Z])")
LAYERS = 3
RERANKERS = {"reranker-alone": None, "reranker": "distil", "reranker_lists": "distil_lists", "reranker_scores": "distil_scores"}
"""Method -> preset of the recipe."""
VECTORS = {"vectors-alone": ["teacher=null", "stages.0.objective=[{loss: contrastive}]"], "vectors": []}
"""Method -> overrides of the preset `distil_reranker` of `recipes/embedding.yaml`."""
TRIPLETS = 2
"""How many of a query's candidates beside the relevant one are in a triplet."""


def articles(path: Path) -> list[list[str]]:
    """The paragraphs of each article that are neither short nor long."""
    blocks = path.read_text(encoding="utf-8").split("\n\n")
    found = [[line for line in block.splitlines() if SHORTEST <= len(line) <= LONGEST] for block in blocks]
    return [lines for lines in found if lines]


def rankings(path: Path, count: int, others: int, seed: int) -> list[dict[str, Any]]:
    """So many queries with one relevant candidate and `others`."""
    drawn, blocks, found = random.Random(seed), articles(path), []
    drawn.shuffle(blocks)
    for place, block in enumerate(blocks):
        paragraph = drawn.choice(block)
        sentences = _SENTENCE.split(paragraph)
        if len(sentences) < 2:
            continue
        query = drawn.randrange(len(sentences))
        rest = " ".join(sentences[:query] + sentences[query + 1 :])
        near = [line for line in block if line != paragraph]
        near += [line for other in blocks[place + 1 : place + 1 + 2 * others] for line in other[:1]]
        if len(near) < others:
            break
        found.append({"query": sentences[query], "positive": [rest], "negative": near[:others]})
        if len(found) == count:
            return found
    raise SystemExit(f"{path}: has {len(found)} queries, expected {count}")


def write(path: Path, found: list[dict[str, Any]]) -> None:
    """A list a line."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(f"{json.dumps(each, ensure_ascii=False)}\n" for each in found), encoding="utf-8")


def with_scores(found: list[dict[str, Any]], teacher: Path) -> list[dict[str, Any]]:
    """The same with the teacher's scores of each list, those of the relevant candidate first."""
    texts = [(each["query"], text) for each in found for text in (*each["positive"], *each["negative"])]
    scores = iter(predict(teacher, [query for query, _ in texts], [text for _, text in texts]))
    return [
        each | {f"{side}_score": [next(scores).score for _ in each[side]] for side in ("positive", "negative")} for each in found
    ]


def triplets(found: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The same as triplets."""
    return [
        {"query": each["query"], "positive": each["positive"][0], "negative": other}
        for each in found
        for other in each["negative"][:TRIPLETS]
    ]


def trained(
    folder: Path, preset: str | None, overrides: list[str], options: argparse.Namespace, recipe: str = "reranker"
) -> Path:
    """The folder of a run, which is made unless it is complete."""
    if not (folder / "result.json").is_file():
        given = [*overrides, *options.set]
        how = {"precision": options.precision, "backend": "torch", "report": False, "latency": False, "resume": True}
        run(recipe, out=folder, preset=preset, overrides=given, **how)
    return folder


def embedders(options: argparse.Namespace, teacher: Path, found: list[dict[str, Any]], layers: str) -> list[Path]:
    """The folders of the runs that make vectors of queries and of texts, from layers of the encoder; queries of dev search the
    candidates of all."""
    data = options.out / "triplets"
    write(data / "train.jsonl", triplets(found[: options.train]))
    write(data / "dev.jsonl", found[options.train :])
    common = [f"task.data={data}", "task.name=articles", f"task.max_length={options.length}", "stages.0.train.keep=last"]
    common += ["stages.0.train.epochs=1", f"stages.0.train.learning_rate={STUDENT_LEARNING_RATE}"]
    common += [f"student.init.from={options.encoder}", f"student.init.layers={layers}"]
    common += [f"student.architecture.num_hidden_layers={LAYERS}"]
    folders = []
    for seed in options.seeds:
        for method, changes in VECTORS.items():
            own = [f"seed={seed}", *([] if changes else [f"teacher.model={teacher}", "teacher_cache.use=always"]), *changes]
            place = options.out / "vectors" / run_name(method, LAYERS, seed)
            folders.append(trained(place, "distil_reranker", [*common, *own], options, "embedding"))
    return folders


def main() -> int:
    """Run and compare."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--articles", type=Path, required=True)
    parser.add_argument("--encoder", type=model_at, required=True)
    parser.add_argument("--out", type=lambda text: Path(text).absolute(), required=True)
    parser.add_argument("--train", type=int, default=800)
    parser.add_argument("--dev", type=int, default=400)
    parser.add_argument("--others", type=int, default=4, help="candidates beside the relevant one")
    parser.add_argument("--length", type=int, default=96)
    parser.add_argument("--seeds", type=lambda text: [int(number) for number in text.split(",")], default=[42, 43, 44])
    parser.add_argument("--vectors", action="store_true", help="also embeddings that learn from the teacher")
    parser.add_argument("--precision", default="bf16")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="of the recipe, for all")
    parser.add_argument("--teacher-set", action="append", default=[], metavar="KEY=VALUE", help="for the teacher's run")
    options = parser.parse_args()
    found = rankings(options.articles, options.train + options.dev, options.others, 0)
    data, scored, runs = options.out / "data", options.out / "scored", options.out / "rerankers"
    for folder in (data, scored):
        write(folder / "dev.jsonl", found[options.train :])
    write(data / "train.jsonl", found[: options.train])
    common = [f"task.max_length={options.length}", f"task.ranking.candidates={options.others + 1}", "stages.0.train.keep=last"]
    own = [f"task.data={data}", f"student.init.from={options.encoder}", "stages.0.train.learning_rate=5e-5"]
    teacher = trained(runs / REFERENCE, None, [*common, *own, *options.teacher_set], options)
    if not (scored / "train.jsonl").is_file():
        write(scored / "train.jsonl", with_scores(found[: options.train], teacher))
    total = load_config(options.encoder).num_hidden_layers
    layers = json.dumps(chosen_layers("reranker", LAYERS, total))
    common += [f"student.architecture.num_hidden_layers={LAYERS}", f"student.init.layers={layers}"]
    common += [f"stages.0.train.learning_rate={STUDENT_LEARNING_RATE}"]
    folders = [teacher]
    for seed in options.seeds:
        for method, preset in RERANKERS.items():
            of_file = method == "reranker_scores"
            own = [f"seed={seed}", f"task.data={scored if of_file else data}"]
            own += ["task.ranking.teacher_score=[positive_score, negative_score]"] if of_file else []
            taught = preset is not None and not of_file
            own += [f"teacher.model={teacher}", "teacher_cache.use=always"] if taught else []
            own += [] if taught else [f"student.init.from={teacher / 'student'}"]
            folders.append(trained(runs / run_name(method, LAYERS, seed), preset, [*common, *own], options))
    compare(folders, runs)
    if options.vectors:
        compare(embedders(options, teacher, found, layers), options.out / "vectors")
    return 0


if __name__ == "__main__":
    sys.exit(main())
