"""A program that runs generated networks in a process with nothing but their framework: `network_worker.py FRAMEWORK FOLDER...`.

Each folder holds network.py and inputs.npz, batches as `NUMBER/NAME`; what the network answers goes into outputs.npz, as
`NUMBER/OUTPUT`, what its command line prints beside what it answers into printed.json, and what it says of damaged weights into
refused.txt. All other frameworks, and crossdistil, cannot be imported.
"""

import contextlib
import importlib.abc
import importlib.util
import io
import json
import shutil
import sys
from pathlib import Path

FRAMEWORK, *FOLDERS = sys.argv[1:]
OWN = {"tensorflow": {"tensorflow", "keras"}}.get(FRAMEWORK, {FRAMEWORK})
OTHERS = {"torch", "tensorflow", "keras", "mindspore", "oneflow", "transformers", "jax", "crossdistil"} - OWN


class Refuse(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in OTHERS:
            raise ModuleNotFoundError(f"{name} is not here", name=name)


sys.meta_path.insert(0, Refuse())

import numpy as np  # noqa: E402

TYPES = {"torch": "int64", "oneflow": "int64"}


def tensor(array):
    if FRAMEWORK in ("torch", "oneflow"):
        return sys.modules[FRAMEWORK].tensor(array.astype(TYPES[FRAMEWORK]))
    return sys.modules["mindspore"].Tensor(array.astype(np.int32)) if FRAMEWORK == "mindspore" else array.astype(np.int32)


def numbers(answer):
    return answer.detach().numpy() if FRAMEWORK in ("torch", "oneflow") else np.asarray(
        answer.asnumpy() if FRAMEWORK == "mindspore" else answer
    )  # fmt: skip


def module_of(folder):
    spec = importlib.util.spec_from_file_location(f"network_{folder.name.replace('-', '_')}", folder / "network.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def damaged(module, folder):
    """What the program says of settings and weights that are damaged, each with its exit code."""
    config, said = folder / "config.json", []
    files = [*folder.glob(f"{module.WEIGHTS}*"), *(folder / module.WEIGHTS).rglob("*")]
    weights = max(filter(Path.is_file, files), key=lambda path: path.stat().st_size)
    settings = json.loads((folder / "wants-more").read_text())
    changes = [(config, lambda whole, new=new: json.dumps(json.loads(whole) | new).encode()) for new in settings]
    for path, change in [*changes, (config, lambda whole: whole[:20]), (weights, lambda whole: whole[: len(whole) // 2])]:
        whole = path.read_bytes()
        path.write_bytes(change(whole))
        sys.argv = ["network.py", "3", "4", *(["--second", "5"] if getattr(module, "PAIRS", False) else [])]
        with contextlib.redirect_stderr(io.StringIO()) as errors:
            try:
                module.main()
                code = 0
            except SystemExit as end:
                code = end.code
        path.write_bytes(whole)
        said.append(f"{code} {errors.getvalue()}")
    return said


def printed(module, network, folder):
    """What the program prints for ids, with types or a second text where it takes them, and the network's answers."""
    ids, found = np.array([[3, 4]]), []
    calls = [] if getattr(module, "PAIRS", False) else [([], (ids,))]
    if not calls:
        calls.append((["--second", "5"], (ids, np.ones((1, 2)), np.array([[5]]), np.ones((1, 1)))))
    elif "types" in getattr(module, "HAS", ()):
        calls.append((["--types", "0", "1"], (ids, np.ones((1, 2)), np.array([[0, 1]]))))
    for words, arrays in calls:
        sys.argv = ["network.py", "3", "4", *words, "--folder", str(folder)]
        with contextlib.redirect_stdout(io.StringIO()) as output:
            module.main()
        answers = network(*map(tensor, arrays))
        answers = answers if isinstance(answers, tuple) else (answers,)
        found.append([output.getvalue(), [float(number) for each in answers for number in numbers(each).ravel()]])
    return found


for folder in map(Path, FOLDERS):
    module, inputs, outputs = module_of(folder), np.load(folder / "inputs.npz"), {}
    network = module.load()
    names = ("input_ids", "attention_mask", *(("token_type_ids",) if "types" in getattr(module, "HAS", ()) else ()))
    if "second_ids" in {key.partition("/")[2] for key in inputs}:
        names = ("input_ids", "attention_mask", "second_ids", "second_mask")
    for number in sorted({key.partition("/")[0] for key in inputs}):
        answers = network(*(tensor(inputs[f"{number}/{name}"]) for name in names))
        answers = answers if isinstance(answers, tuple) else (answers,)
        outputs |= {f"{number}/{name}": numbers(answer) for name, answer in zip(module.HEADS or ("hidden",), answers)}
    if (folder / "wants-more").exists():
        if FRAMEWORK == "tensorflow":
            import tensorflow as tf

            module.save(network, folder / "saved_model")
            serve = tf.saved_model.load(str(folder / "saved_model")).signatures["serving_default"]
            for number in sorted({key.partition("/")[0] for key in inputs}):
                found = serve(**{name: tf.constant(tensor(inputs[f"{number}/{name}"])) for name in names})
                outputs[f"{number}/served"] = found["logits"].numpy()
        (folder / "printed.json").write_text(json.dumps(printed(module, network, folder)), encoding="utf-8")
        said, changes = [], [(module.KEYS, "vocab_size", (None, 3))]
        if hasattr(module, "NAMES"):
            changes.append((module.NAMES, next(iter(module.NAMES)), "nowhere"))
        else:
            own = module.stored_shapes(module.read_settings())
            renamed = {name.replace("embeddings", "nowhere"): shape for name, shape in own.items()}
            changes.append((vars(module), "stored_shapes", lambda config, renamed=renamed: renamed))
        for changed, key, value in changes:
            before = changed[key]
            changed[key] = value
            try:
                module.load()
            except ValueError as error:
                said.append(str(error))
            changed[key] = before
        (folder / "refused.txt").write_text("\n----\n".join([*said, *damaged(module, folder)]), encoding="utf-8")
    np.savez(folder / "outputs.npz", **outputs)
    shutil.rmtree(folder / "__pycache__", ignore_errors=True)
