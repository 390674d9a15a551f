"""The `README.md` of a model folder, as the Hugging Face hub has them: front matter in YAML, then what the model is, how it was
made, what it scores and how it is loaded. It says only what was recorded; what is not known is left out, or said to be unknown.
"""

from __future__ import annotations

import io
import re
from collections.abc import Mapping
from math import isfinite
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML

from .. import __version__
from .card_code import exported_code, is_of_pairs, transformers_code
from .card_file import is_generated, marked, unmarked
from .checkpoint import Model
from .errors import CheckpointError
from .models.answer_heads import CLASSIFIERS, EMBEDDINGS, SENTENCES
from .models.architectures import is_encoder, model_type
from .shown import plain

_SPECIAL = re.compile(r"([\\`*_\[\]|~])")
_METRICS = {"matthews": "matthews_correlation", "pearson": "pearsonr", "spearman": "spearmanr"}
"""Ours -> the hub's."""
_HUB_LICENSE = "# license: fill in, for example apache-2.0; it depends on the teacher's and the data's"
_NO_LICENSE = "Not recorded: it depends on the licenses of the teacher and of the data. Fill in `license` above."


def card(model: Model, parameters: int, export: Mapping[str, Any] | None = None) -> str:
    """The text of a card. `parameters` is the number of the model's weights, `export` the report of an export."""
    about = model.about
    parts = [
        f"# {_title(model, export)}\n",
        _what(model, parameters),
        _recipe(about),
        _data(about),
        _scores(about, export),
        *([] if export is None else [_export(export)]),
        _loading(model, export),
        _limits(model, export),
        f"## License\n\n{_NO_LICENSE}\n",
    ]
    body = "\n".join(part for part in parts if part)
    text = f"---\n{_front_matter(model, export)}---\n\n{body}"
    return marked(text)


def with_license(text: str, license: str | None, about: Mapping[str, Any], where: Path) -> str:
    """A card that names a license: its own, or `license`, with what else holds for a student of this history; one as it was
    written here gets a new digest. Raises CheckpointError for one without, and for two that differ."""
    own = re.search(r"^license: *(\S+)", text.partition("\n---")[0], re.MULTILINE)
    if own is not None:
        if license not in (None, own[1]):
            raise CheckpointError(f"{where}: says license: {own[1]}, not {license}")
        return text
    if license is None:
        way = "give --license, for example apache-2.0; it depends on the teacher's and the data's"
        raise CheckpointError(f"{where}: names no license: {way}")
    teachers = [f"`{_code(each.get('model', name))}`" for name, each in _objects(about.get("teachers")).items()]
    made = ["the teacher " + ", ".join(teachers)] if teachers else []
    made += [f"the data of `{_code(_task(about))}`"] if _task(about) else []
    body = f"`{license}`, as who published it states."
    body += f" It was made from {' and '.join(made)}, whose licenses hold beside it." if made else ""
    written_here = is_generated(text.encode("utf-8"))
    text = text.replace(_HUB_LICENSE, f"license: {license}").replace(_NO_LICENSE, body)
    if written_here:
        return marked(unmarked(text))
    if f"license: {license}" not in text:  # a card that a person wrote
        head, found, rest = text.partition("---\n")
        text = f"---\nlicense: {license}\n{rest}" if found and not head else f"---\nlicense: {license}\n---\n\n{text}"
    return text


def _front_matter(model: Model, export: Mapping[str, Any] | None) -> str:
    about, task = model.about, _task(model.about)
    kind = model.head.pipeline
    library = "transformers" if _is_for_transformers(model) else "crossdistil"
    if export is not None:
        library = export["format"]
    front: dict[str, Any] = {
        "library_name": library,
        "pipeline_tag": kind,
        "tags": ["crossdistil", "distillation", *([_text(about["method"])] if about.get("method") else [])],
    }
    scores = {name: value for name, value in _own_metrics(about, export).items() if isinstance(value, float) and isfinite(value)}
    if scores:
        front["metrics"] = [_METRICS.get(name, name) for name in scores]
        results = [
            # YAML has no number of NumPy's, which a metric may be.
            {"type": _METRICS.get(name, name), "value": float(value), "name": f"{name} on dev"}
            for name, value in scores.items()
        ]
        dataset = {"name": task or "unknown", "type": task or "unknown", "split": "dev"}
        result = {"task": {"type": kind}, "dataset": dataset, "metrics": results}
        front["model-index"] = [{"name": _plain_title(model, export), "results": [result]}]
    yaml, text = YAML(), io.StringIO()
    yaml.default_flow_style, yaml.width, yaml.allow_unicode = False, 1 << 16, True
    yaml.dump(front, text)
    return f"{_HUB_LICENSE}\n{text.getvalue()}"


def _plain_title(model: Model, export: Mapping[str, Any] | None) -> str:
    method, task = model.about.get("method"), _task(model.about)
    name = f"{_text(method)} model" if method else f"{model_type(model.config)} model"
    return name + (f" for {task}" if task else "") + (f", {export['format']} {export['precision']}" if export else "")


def _title(model: Model, export: Mapping[str, Any] | None) -> str:
    return escaped(_plain_title(model, export))


def _what(model: Model, parameters: int) -> str:
    config, lines = model.config, []
    if is_encoder(config):
        layers = "1 layer" if config.num_hidden_layers == 1 else f"{config.num_hidden_layers} layers"
        sizes = f"{layers} of {config.hidden_size}, {config.num_attention_heads} heads"
    else:
        sizes = f"one bidirectional LSTM of {config.hidden_size}"
    lines.append(f"* Architecture: {model_type(config)}, {sizes}, {parameters:,} parameters")
    if model.outputs is not None:
        lines.append(f"* Task: {model.kind.title}" + (f", `{_code(_task(model.about))}`" if _task(model.about) else ""))
    if model.labels:
        shown = [escaped(label) for label in model.labels[:_MOST_LABELS]]
        more = f" and {len(model.labels) - len(shown)} more" if len(model.labels) > len(shown) else ""
        lines.append(f"* Labels: {', '.join(shown)}{more}")
    lines.append("* Language: not recorded")
    return "\n".join(lines) + "\n"


_MOST_LABELS = 50


def _recipe(about: Mapping[str, Any]) -> str:
    if not about.get("method"):
        return "## Training\n\nNothing is recorded of how it was trained.\n"
    digest = f", recipe digest `{_code(about['recipe_digest'])}`" if about.get("recipe_digest") else ""
    lines = [f"Method `{_code(about['method'])}` of crossdistil {__version__}{digest}."]
    run = {"backend": "on {}", "precision": "in {}", "step": "weights of step {}", "steps": "of {}", "seed": "seed {}"}
    told = [form.format(_code(about[key])) for key, form in run.items() if about.get(key) is not None]
    lines += [f"Trained {', '.join(told)}."] if told else []
    for name, teacher in _objects(about.get("teachers")).items():
        scores = _score_text(teacher.get("metrics"))
        size = f", {teacher['parameters']:,} parameters" if isinstance(teacher.get("parameters"), int) else ""
        title = "Teacher" if name == "teacher" else f"Teacher `{_code(name)}`"
        score = f"dev {scores}" if scores else "score unknown"
        lines.append(f"{title}: `{_code(teacher.get('model', 'unknown'))}`{size}, {score}.")
    return "## Training\n\n" + "\n".join(lines) + "\n"


def _data(about: Mapping[str, Any]) -> str:
    rows = [
        f"| {escaped(split)} | {known['rows']:,} | {known.get('at_limit', 0):.1%} |"
        for split, known in _objects(about.get("data")).items()
        if isinstance(known.get("rows"), int)
    ]
    if not rows:
        return ""
    notes = [escaped(note) for known in _objects(about.get("data")).values() for note in known.get("left_out", [])]
    table = "| split | rows | as long as the limit, may be cut |\n| --- | ---: | ---: |\n" + "\n".join(rows) + "\n"
    return "## Data\n\n" + table + "".join(f"\n* {note}" for note in notes) + ("\n" if notes else "")


def _scores(about: Mapping[str, Any], export: Mapping[str, Any] | None) -> str:
    own, before = _numbers(_own_metrics(about, export)), _numbers(_metrics(about))
    metrics = own or before
    if not metrics:
        return "## Scores\n\nNone is recorded.\n"
    of = ""
    if _is_scored(export):
        of = f", of this export ({export['precision']})"
    elif export is not None:
        of = f", of the model that was exported: this file ({export['precision']}) was not scored itself"
    seed = f"One run, seed {_code(about['seed'])}: no deviation over seeds is known." if about.get("seed") is not None else ""
    rows = "\n".join(f"| {escaped(name)} | {value:.4f} |" for name, value in metrics.items())
    told = _score_text(before) if _is_scored(export) else ""
    more = f"\nThe model that was exported had on dev, when it was trained: {told}.\n" if told else ""
    return f"## Scores\n\nOn dev{of}. {seed}\n\n| metric | value |\n| --- | ---: |\n{rows}\n{more}"


def _export(report: Mapping[str, Any]) -> str:
    lines = [f"{escaped(report['format'])} in {report['precision']}: {report['bytes'] / 1e6:,.1f} MB."]
    lines += ["", "| what it had to show | value | limit |", "| --- | ---: | ---: |"]
    lines += [f"| {escaped(gate['name'])} | {gate['value']:.3g} | {gate['limit']:.3g} |" for gate in report["gates"]]
    times = report.get("milliseconds", {})
    if times:
        sizes = list(next(iter(times.values())))
        lines += ["", "A first look at its time, in milliseconds a text:", ""]
        lines += [_row("", sizes), _row("---", ["---:"] * len(sizes))]
        lines += [_row(escaped(name), [f"{value:g}" for value in row.values()]) for name, row in times.items()]
    return "## Export\n\n" + "\n".join(lines) + "\n"


def _row(first: str, others: list[str]) -> str:
    return f"| {first} | {' | '.join(others)} |"


def _loading(model: Model, export: Mapping[str, Any] | None) -> str:
    """How it is loaded, as code to copy; `FOLDER` stands for where it lies."""
    parts, plugin = ["## How to load it\n"], ""
    if model.kind.code:
        own = _code(model.kind.plugin)
        plugin = f" --plugin {own}"
        parts.append(f"Its kind of task, {model.kind.title}, is of the plugin `{own}`, which every command needs.\n")
    if model.config.plugin:
        own = _code(model.config.plugin)
        plugin += f" --plugin {own}"
        parts.append(f"Its family, `{model_type(model.config)}`, is of the plugin `{own}`, which every command needs.\n")
    if model.head in (*CLASSIFIERS, EMBEDDINGS):
        texts = '"a text" --pair "another"' if is_of_pairs(model) else '"a text"'
        parts.append(f"```sh\ncrossdistil predict FOLDER {texts}{plugin}\n```\n")
    if export is not None:
        if code := exported_code(model, export["format"], export["precision"]):
            parts.append(f"Without crossdistil, in the folder itself:\n\n```python\n{code}```\n")
        return "\n".join(parts)
    if _is_for_transformers(model):
        parts.append(f"```python\n{transformers_code(model)}```\n")
    if is_encoder(model.config) and model.config.family.in_googles_code:
        parts.append(
            "In MindSpore, OneFlow or TensorFlow (`--to tf`), with the network that loads it in one file:\n\n"
            "```sh\ncrossdistil convert FOLDER converted --to mindspore --with-code\npython converted/network.py 101 102\n```\n"
        )
    if model.head == SENTENCES:
        parts.append(f"In ONNX Runtime:\n\n```sh\ncrossdistil export FOLDER exported --to onnx{plugin}\n```\n")
    return "\n".join(parts)


def _limits(model: Model, export: Mapping[str, Any] | None) -> str:
    lines, length = [], model.about.get("max_length")
    if length:
        way = "read in windows of" if model.head.token_map else "cut to"
        lines.append(f"* Texts are {way} {_code(length)} tokens.")
    if not _own_metrics(model.about, export):
        lines.append("* It was not scored.")
    else:
        lines.append("* Dev is all that it was scored on, and what its weights were chosen by.")
    return "## Limits\n\n" + "\n".join(lines) + "\n"


def _is_for_transformers(model: Model) -> bool:
    if model.config.plugin:  # whose model_type transformers may not know
        return False
    return is_encoder(model.config) and not (model.outputs is not None and model.config.relu_before_classifier)


def _task(about: Mapping[str, Any]) -> str:
    task = about.get("task")
    return _text(task["name"]) if isinstance(task, dict) and task.get("name") else ""


def _metrics(about: Mapping[str, Any]) -> dict[str, Any]:
    return about["dev"] if isinstance(about.get("dev"), dict) else {}


def _is_scored(export: Mapping[str, Any] | None) -> bool:
    """Whether an exported file was asked about dev itself."""
    return export is not None and bool(export.get("dev"))


def _own_metrics(about: Mapping[str, Any], export: Mapping[str, Any] | None) -> dict[str, Any]:
    """The metrics of these weights. A float32 export has shown that it computes what the model computes; another precision's
    score is its own, or unknown."""
    if _is_scored(export):
        return dict(export["dev"])
    return _metrics(about) if export is None or export["precision"] == "fp32" else {}


def _numbers(metrics: Mapping[str, Any]) -> dict[str, float]:
    return {name: value for name, value in metrics.items() if isinstance(value, (int, float))}


def _objects(value: Any) -> dict[str, dict[str, Any]]:
    """The entries of an object that are objects: what comes out of a file may be anything."""
    return {str(key): entry for key, entry in value.items() if isinstance(entry, dict)} if isinstance(value, dict) else {}


def _score_text(metrics: Any) -> str:
    found = metrics if isinstance(metrics, dict) else {}
    return ", ".join(f"{escaped(name)} {value:.4f}" for name, value in found.items() if isinstance(value, (int, float)))


def escaped(value: Any) -> str:
    """A text for Markdown, on one line: nothing in it is markup, or HTML."""
    text = _SPECIAL.sub(r"\\\1", plain(str(value)))
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def _code(value: Any) -> str:
    """A text between backticks, on one line."""
    return plain(str(value)).replace("`", "'").replace("|", "/")


def _text(value: Any) -> str:
    return plain(str(value))
