"""Whether encoders with their real weights, on real texts, are what transformers and the tokenizers library make of their files.

    python benchmarks/real_models.py --model models/mpnet --texts data/SST-2/dev.tsv --out mpnet.json \\
      --backend torch python --backend oneflow .venv-oneflow/bin/python --backend mindspore python

States: every hidden state and, with a classifier drawn at random, the logits, in float32 on each backend, against those of
transformers in float32 of the same batches: the largest difference over real tokens, relative to the largest value of that state
where that is above 1. Tokens: ids of 1,000 lines of five scripts, alone and in pairs, and their offsets, against `tokenizers`
with the folder's tokenizer.json alone; the lines are the texts given, and names of languages, territories and currencies (CLDR,
by `babel`).
"""

from __future__ import annotations

import argparse
import csv
import json
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
from tables import markdown, write_json

ROWS, LENGTH, BATCH, LINES = 24, 64, 8, 1000
FACES = "😀 😂 🎉 👨‍👩‍👧 👍🏽 ❤️ 🇨🇳 🇫🇷 ☕ 🤷‍♀️ 🚀 🐼".split()


def texts_of(path: Path) -> list[str]:
    """The longest cell of each row of a table, or the lines of any other file."""
    if path.suffix == ".tsv":
        with path.open(encoding="utf-8", newline="") as file:
            return [max(row, key=len) for row in list(csv.reader(file, delimiter="\t", quoting=csv.QUOTE_NONE))[1:] if row]
    return path.read_text("utf-8").splitlines()


def five_scripts(texts: list[str]) -> list[str]:
    """1,000 lines: Latin, Chinese, Cyrillic, Arabic, and emoji among words."""
    from babel import Locale

    drawn, lines = np.random.default_rng(0), []
    for language in ("en", "zh", "ru", "ar"):
        own = Locale(language)
        words = [*own.languages.values(), *own.territories.values(), *own.currencies.values()]
        space = "" if language == "zh" else " "
        for _ in range(LINES // 5):
            chosen = drawn.choice(words, drawn.integers(1, 9))
            lines.append(space.join(chosen) + drawn.choice(["", ".", "!", " 3,141.59", "؟", "。"]))
    for _ in range(LINES // 5):
        parts = [*drawn.choice(FACES, drawn.integers(1, 6)), *drawn.choice(texts, 1)[0].split()[:6]]
        lines.append(drawn.choice(["", " "]).join(drawn.permutation(parts)))
    return lines


def tokens(folder: Path, texts: list[str]) -> dict:
    """How many of the lines have other ids or offsets than the library gives with the file alone."""
    import tokenizers

    from crossdistil.core.data.tokenize import load_tokenizer

    lines = five_scripts(texts)
    plain, own = tokenizers.Tokenizer.from_file(str(folder / "tokenizer.json")), load_tokenizer(folder)
    plain.no_padding()
    found = {"lines": len(lines)}
    for name, pairs in (("alone", None), ("pairs", lines[::-1])):
        plain.enable_truncation(LENGTH)
        expected = plain.encode_batch(lines if pairs is None else list(zip(lines, pairs)))
        table = own.encode_pairs(lines, pairs, LENGTH)
        rows = [table.ids[table.offsets[row] : table.offsets[row + 1]].tolist() for row in range(len(lines))]
        found[f"other_ids_{name}"] = sum(row != each.ids for row, each in zip(rows, expected))
    plain.no_truncation()
    expected, ours = plain.encode_batch(lines), own.library.encode_batch(lines)
    found["other_offsets"] = sum(first.offsets != second.offsets for first, second in zip(expected, ours))
    return found


def expected_states(folder: Path, texts: list[str], place: Path) -> None:
    """Write batches, the classifier's tensors and what transformers computes of them."""
    import torch
    from transformers import AutoModelForSequenceClassification

    from crossdistil.core.data.row_batches import RowBatches
    from crossdistil.core.data.tokenize import load_tokenizer

    torch.manual_seed(0)
    model = AutoModelForSequenceClassification.from_pretrained(folder, num_labels=3).eval()
    tokenizer = load_tokenizer(folder)
    rows = RowBatches(tokenizer.encode_pairs(texts[:ROWS], None, LENGTH), None, range(8, LENGTH + 8, 8))
    arrays = {}
    for number in range(0, ROWS, BATCH):
        batch = rows.batch(np.arange(number, number + BATCH))
        names = ["input_ids", "attention_mask", *(["token_type_ids"] if getattr(model.config, "type_vocab_size", 0) else [])]
        with torch.no_grad():
            given = {name: torch.from_numpy(np.asarray(batch[name])).long() for name in names}
            states = model(**given, output_hidden_states=True)
        for name in ("input_ids", "attention_mask", "token_type_ids"):
            arrays[f"{number}/{name}"] = np.asarray(batch[name])
        for layer, state in enumerate(states.hidden_states):
            arrays[f"{number}/hidden/{layer}"] = state.numpy()
        arrays[f"{number}/logits"] = states.logits.numpy()
    head = {name: tensor.numpy() for name, tensor in model.state_dict().items() if "classifier" in name or "pooler" in name}
    np.savez(place, **arrays, **{f"head/{name}": array for name, array in head.items()})


def differences(backend: str, folder: Path, place: Path) -> dict[str, float]:
    """Output -> its largest relative difference on a backend."""
    from crossdistil.backends.registry import load_engine
    from crossdistil.core.checkpoint import load_model
    from crossdistil.core.engine import EngineOptions
    from crossdistil.core.models.architectures import make_forward, tensor_shapes

    expected, model = np.load(place), load_model(folder)
    config = model.config.without_dropout()
    heads = {name.removeprefix("head/"): expected[name] for name in expected.files if name.startswith("head/")}
    parameters = {name: heads[name] if name in heads else model.parameters[name] for name in tensor_shapes(config, 3)}
    outputs = [f"hidden/{layer}" for layer in range(config.num_hidden_layers + 1)] + ["logits"]
    forward = make_forward(config, frozenset(outputs))

    def states(ops, params, batch):
        made = forward(ops, params, batch)
        return [made[name] for name in outputs]

    infer, found = load_engine(backend, EngineOptions("cpu")).infer(states, parameters), dict.fromkeys(outputs, 0.0)
    for number in range(0, ROWS, BATCH):
        batch = {name: expected[f"{number}/{name}"] for name in ("input_ids", "attention_mask", "token_type_ids")}
        real = batch["attention_mask"] > 0
        for name, state in zip(outputs, infer(batch)):
            theirs, ours = expected[f"{number}/{name}"].astype(np.float64), np.asarray(state, np.float64)
            if name != "logits":
                theirs, ours = theirs[real], ours[real]
            difference = np.abs(theirs - ours).max() / max(1.0, np.abs(theirs).max())
            found[name] = max(found[name], float(difference))
    return found


def table(result: dict) -> str:
    """The kept results as a Markdown table."""
    rows = []
    for found in result["models"]:
        states = [f"{found[name]['hidden']:.0e}, {found[name]['logits']:.0e}" for name in ("torch", "oneflow", "mindspore")]
        own = found["tokens"]
        ids = f"{own['other_ids_alone'] + own['other_ids_pairs']} of {2 * own['lines']:,}"
        rows.append([found["called"], *states, ids, f"{own['other_offsets']} of {own['lines']:,}"])
    heading = ["model", "torch", "OneFlow", "MindSpore", "other ids", "other offsets"]
    about = (
        f"States: the largest difference of a hidden state, and of a logit, from those of transformers on {ROWS} texts, relative "
        f"to the largest value. Tokens: {LINES:,} lines of five scripts (Latin, Chinese, Cyrillic, Arabic, emoji), alone and in "
        "pairs, that the library cuts otherwise with the model's file alone."
    )
    return f"{markdown(heading, rows)}\n\n{about}"


def kept(path: Path, found: dict) -> None:
    """Write what was found of a model beside what is there of others."""
    before = json.loads(path.read_text("utf-8"))["models"] if path.exists() else []
    models = [each for each in before if each["called"] != found["called"]] + [found]
    write_json(path, {"benchmark": "real_models", "models": models})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--called", help="its name in the table; default: its folder's")
    parser.add_argument("--texts", type=Path, required=True)
    parser.add_argument("--backend", action="append", nargs=2, metavar=("NAME", "PYTHON"), default=[])
    parser.add_argument("--tokens", action="store_true", help="compare tokens too")
    parser.add_argument("--out", type=Path, help="a file for the figures, to which this model's are added")
    parser.add_argument("--worker", nargs=2, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.worker is not None:
        print("answer " + json.dumps(differences(given.worker[0], given.model, Path(given.worker[1]))))
        return
    texts, found = texts_of(given.texts), {"called": given.called or given.model.name, "texts": given.texts.name}
    if given.tokens:
        found["tokens"] = tokens(given.model, texts)
        print(json.dumps(found["tokens"]), flush=True)
    with tempfile.TemporaryDirectory() as temporary:
        place = Path(temporary) / "states.npz"
        if given.backend:
            expected_states(given.model, texts, place)
        for backend, python in given.backend:
            command = [python, __file__, *sys.argv[1:], "--worker", backend, str(place)]
            done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
            answer = next(line for line in done.stdout.splitlines() if line.startswith("answer "))
            states = json.loads(answer.removeprefix("answer "))
            layers = [value for name, value in states.items() if name != "logits"]
            found[backend] = {"hidden": max(layers), "logits": states["logits"]}
            print(json.dumps({backend: found[backend]}), flush=True)
    if given.out is not None:
        kept(given.out, found)


if __name__ == "__main__":
    main()
