"""How far converted models are from what frameworks compute that share no table of names with the converters.

    python benchmarks/conversion_referees.py --work runs/referees

Google's graphs are built in TensorFlow as in its `modeling.py`, and take from a checkpoint what has their names; transformers
loads by its own names, which must all be there, and no others; MindSpore's cells are the model zoo's and OneFlow's modules are
named after Hugging Face's, both loaded strictly. Weights are random and go from one referee through `crossdistil convert` into
the other. The figure is the largest difference of any output (hidden states of every layer, pooler, head) on real tokens,
relative to the largest value of that output if that is above 1. OneFlow runs in the Python that has it.
"""

from __future__ import annotations

import argparse
import json
import os
import pickle
import shutil
import subprocess
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from tables import NEW_RESULTS, machine, markdown, write_json

import crossdistil
from crossdistil.backends.registry import python_with
from crossdistil.core.models.families.bert import BertConfig
from crossdistil.core.models.families.distilbert import DistilBertConfig
from crossdistil.tests import google_cases
from crossdistil.tests.google_cases import CASES, LABELS, SIZES, Case

DIRECTIONS = {
    "PyTorch → TF": "Google's graph",
    "TF → PyTorch": "transformers",
    "PyTorch → MindSpore": "the zoo's cells",
    "MindSpore → PyTorch": "transformers",
    "PyTorch → OneFlow": "modules",
    "OneFlow → PyTorch": "transformers",
}
"""Direction -> who computes the result."""
CLASSIFIER = "DistilBertForSequenceClassification"
_ENVIRONMENT = dict(os.environ)
"""As it was before frameworks were imported: they set variables that break others, of protobuf's implementation for one."""
_CELLS = ("BertForPreTraining", "BertForSequenceClassification")
_MODULES = (*_CELLS, "DistilBertForMaskedLM", CLASSIFIER)

Outputs = Mapping[str, np.ndarray]


def all_cases() -> dict[str, Case]:
    """The tests' cases, and DistilBERT's classifier, which Google's graph cannot express."""
    classifier = Case(CLASSIFIER, "", {"logits": "logits"}, {"labels": len(LABELS)})
    return CASES | {CLASSIFIER: classifier}


def worst(found: Outputs, expected: Outputs, inputs: Outputs) -> float:
    """Largest difference of the outputs that both have, of which there must be more than hidden states."""
    real = inputs["attention_mask"] > 0
    common = [name for name in expected if name in found]
    if all(name.startswith("hidden/") for name in common) and any(not name.startswith("hidden/") for name in expected):
        raise SystemExit(f"nothing to compare: {sorted(found)} and {sorted(expected)}")
    values = []
    for name in common:
        one, other = np.asarray(found[name], np.float64), np.asarray(expected[name], np.float64)
        if one.shape[:2] == real.shape:
            one, other = one[real], other[real]
        values.append(np.abs(one - other).max() / max(1.0, np.abs(other).max()))
    return float(max(values))


def saved_model(case: Case, folder: Path) -> tuple[Outputs, Outputs]:
    """(inputs, what transformers computes of them) of a model of random weights in `folder`."""
    model, inputs = google_cases.new_model(case), google_cases.batch(case.config, case.distilled)
    model.save_pretrained(folder)
    return inputs, google_cases.model_outputs(model, case, inputs)


def loaded(case: Case, folder: Path, inputs: Outputs) -> Outputs:
    """What transformers computes of a folder that it loads strictly."""
    return google_cases.model_outputs(google_cases.loaded_model(case, folder), case, inputs)


def with_tensorflow(case: Case, work: Path) -> dict[str, float]:
    """Both directions."""
    from crossdistil.tests import google_graphs

    graph = partial(getattr(google_graphs, case.graph), **case.options)
    inputs, expected = saved_model(case, work / "source")
    crossdistil.convert(work / "source", work / "tf", to="tf")
    config = json.loads((work / "tf" / "bert_config.json").read_text()) | {"hidden_act": case.config["hidden_act"]}
    _, drawn, found = google_graphs.restore(graph, config, inputs, work / "tf" / "bert_model.ckpt")
    if any("/pooler/" not in name for name in drawn):
        raise SystemExit(f"{case.name}: Google's graph draws {sorted(drawn)} at random")
    result = {"PyTorch → TF": worst({name: found[name] for name in expected}, expected, inputs)}
    if not case.distilled:
        said = {"architectures": [case.name]} if "tokens" in case.options else {}
        (work / "google").mkdir()
        prefix = google_cases.write_google_files(work / "google", case.config | said)
        _, expected = google_graphs.save(graph, case.config, inputs, prefix)
        crossdistil.convert(prefix, work / "pytorch", to="pytorch")
        result["TF → PyTorch"] = worst(loaded(case, work / "pytorch", inputs), expected, inputs)
    return result


def own_config(case: Case) -> BertConfig | DistilBertConfig:
    """The sizes as the cells and modules read them."""
    if case.distilled:
        names = {DistilBertConfig.own_key(key): value for key, value in SIZES.items() if key != "type_vocab_size"}
        return DistilBertConfig(**names)
    return BertConfig(**SIZES)


def write_config(case: Case, folder: Path) -> None:
    """A config.json beside a checkpoint that a framework wrote."""
    labels = {"id2label": {str(index): label for index, label in LABELS.items()}} if case.classifies else {}
    keys = own_config(case).model_dump(exclude={"classifier_relu"}, exclude_none=True)
    kind = "distilbert" if case.distilled else "bert"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps({**keys, **labels, "model_type": kind, "architectures": [case.name]}))


def with_mindspore(case: Case, work: Path) -> dict[str, float]:
    """Both directions."""
    import mindspore

    from crossdistil.tests import mindspore_zoo as zoo

    config = own_config(case)

    def network():
        return zoo.NetworkWithLoss(zoo.Classifier(config, len(LABELS)) if case.classifies else zoo.PreTraining(config))

    inputs, expected = saved_model(case, work / "source-ms")
    crossdistil.convert(work / "source-ms", work / "ms", to="mindspore")
    there = network()
    zoo.load_strictly(there, work / "ms" / "model.ckpt")
    back = network()
    zoo.randomise(back)
    write_config(case, work / "zoo")
    mindspore.save_checkpoint(back, str(work / "zoo" / "bert.ckpt"))
    crossdistil.convert(work / "zoo", work / "pytorch-ms", to="pytorch")
    return {
        "PyTorch → MindSpore": worst(there.outputs(inputs), expected, inputs),
        "MindSpore → PyTorch": worst(loaded(case, work / "pytorch-ms", inputs), back.outputs(inputs), inputs),
    }


def with_oneflow(case: Case, work: Path) -> dict[str, float]:
    """Both directions: OneFlow's part is this file in another interpreter."""
    inputs, expected = saved_model(case, work / "source-of")
    crossdistil.convert(work / "source-of", work / "of", to="oneflow")
    write_config(case, work / "modules")
    with (work / "inputs.pickle").open("wb") as file:
        pickle.dump(dict(inputs), file)
    command = [str(python_with("oneflow")), __file__, "--oneflow", case.name, "--work", str(work)]
    subprocess.run(command, check=True, env=_ENVIRONMENT)
    crossdistil.convert(work / "modules", work / "pytorch-of", to="pytorch")
    there, back = (dict(np.load(work / name)) for name in ("there.npz", "back.npz"))
    return {
        "PyTorch → OneFlow": worst(_named(there), expected, inputs),
        "OneFlow → PyTorch": worst(loaded(case, work / "pytorch-of", inputs), _named(back), inputs),
    }


def _named(arrays: Outputs) -> Outputs:
    return {name.replace("|", "/"): array for name, array in arrays.items()}


def oneflows_part(case: Case, work: Path) -> None:
    """Load what was converted, strictly, and save a model of random weights; write what both compute."""
    import oneflow

    from crossdistil.tests import oneflow_models as models

    with (work / "inputs.pickle").open("rb") as file:
        inputs = pickle.load(file)
    config, outputs = own_config(case), len(LABELS) if case.classifies else None
    make = models.DistilBert if case.distilled else models.Bert
    there, back = (make(config, outputs, heads=outputs is None) for _ in range(2))
    models.load_strictly(there, work / "of" / "weights")
    models.randomise(back)
    oneflow.save(back.state_dict(), str(work / "modules" / "weights"))
    for model, name in ((there, "there.npz"), (back, "back.npz")):
        np.savez(work / name, **{key.replace("/", "|"): value for key, value in model.outputs(inputs).items()})


def table(result: dict[str, Any]) -> str:
    """A row a head, a column a direction and who computed its result."""
    rows = [
        [f"`{name}`", *(f"{found[direction]:.0e}" if direction in found else "" for direction in DIRECTIONS)]
        for name, found in result["heads"].items()
    ]
    headings = ["class with its head", *(f"{direction}: {who}" for direction, who in DIRECTIONS.items())]
    largest = max(value for found in result["heads"].values() for value in found.values())
    return (
        f"{markdown(headings, rows)}\n\nLargest difference between what the source computes in its own framework and what the "
        "result computes in the other: of all hidden states, pooler and head, relative to the largest value of each. No referee "
        "knows the converters' names: Google's graphs are built from its code's formulas and take the variables that have their "
        "names, transformers must find all of its names and no others, MindSpore and OneFlow load strictly. Largest of all: "
        f"{largest:.0e}. Google's graph has no place for a DistilBERT's classifier, which is refused; where it is empty, the "
        "referee has no such model."
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, required=True, help="where the checkpoints are put meanwhile")
    parser.add_argument("--oneflow", metavar="CASE", help="only OneFlow's part of a case, in the interpreter that has it")
    parser.add_argument("--out", type=Path, default=NEW_RESULTS / "conversion_referees.json")
    options = parser.parse_args()
    cases = all_cases()
    if options.oneflow:
        oneflows_part(cases[options.oneflow], options.work)
        return
    result: dict[str, Any] = {"benchmark": "conversion_referees", "machine": machine(), "heads": {}}
    for name, case in cases.items():
        work = (options.work / name).absolute()
        shutil.rmtree(work, ignore_errors=True)
        work.mkdir(parents=True)
        found = {} if name == CLASSIFIER else with_tensorflow(case, work)
        found |= with_mindspore(case, work) if name in _CELLS else {}
        found |= with_oneflow(case, work) if name in _MODULES else {}
        result["heads"][name] = found
        print(name, {direction: f"{value:.1e}" for direction, value in found.items()}, flush=True)
        shutil.rmtree(work)
    write_json(options.out, result)


if __name__ == "__main__":
    main()
