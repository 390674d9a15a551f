"""Prints what `explain` found: wrapped with hanging indents in a terminal, one line a fact in a pipe."""

from __future__ import annotations

import textwrap
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from ..models.outputs import split_name
from ..shown import counted

_WIDEST = 100  # longer lines are hard to read, however wide the window
_MEASURED_LATER = "not yet"


def print_catalogue(found: list[dict[str, Any]], console: Console) -> None:
    """A line a recipe."""
    rows = [(row["recipe"], row["description"], ", ".join(row["terms"])) for row in found]
    if not console.is_terminal:
        width = max(len(name) for name, *_ in rows)
        for name, description, terms in rows:
            console.print(Text(f"{name:{width}}  {description}  [{terms}]"), soft_wrap=True)
        return
    table = Table(box=None, pad_edge=False, header_style="bold")
    for heading in ("recipe", "what it does", "loss terms"):
        table.add_column(heading, overflow="fold")
    for row in rows:
        table.add_row(*row)
    console.print(table, width=min(console.width, _WIDEST))


def print_explanation(found: dict[str, Any], console: Console) -> None:
    """Print what `explain.explain` returned."""
    say = _Lines(console)
    preset = f", preset {found['preset']}" if found["preset"] else ""
    say.title(f"{found['recipe']}{preset}")
    say.line(0, "", found["description"])
    for key in ("paper", "published", "measured"):
        if found[key] or key == "measured":
            say.line(0, key, found[key] or _MEASURED_LATER)
    for plugin, registers in found["plugins"].items():
        say.line(0, "plugin", f"{_near(plugin)}: {registers}")
    _needs(say, found)
    say.line(0, "student", f"{model_text(found['student'])}, {_start_text(found['student'])}")
    for name, teacher in found["teachers"].items():
        place = "assumed, there is no such folder yet: " if teacher["assumed"] else ""
        say.line(0, name, f"{model_text(teacher)} ({place}{_near(teacher['folder'])})")
    for name, place in found["files"].items():
        say.line(0, name, f"a file of answers ({_near(place)})")
    for problem in found["problems"]:
        say.line(0, "does not fit", problem)
    for stage in found["stages"]:
        _stage(say, stage)
    if found["presets"]:
        say.title("presets")
    for preset in found["presets"]:
        say.line(1, preset["name"], preset["comment"])
        for change in preset["changes"]:
            before = "" if change["from"] is None else f"{flow(change['from'])} → "
            say.line(2, change["key"], f"{before}{flow(change['to'])}")
    counted = [stage["costs"] for stage in found["stages"] if stage["costs"]]
    if counted:
        say.title("how it is counted")
        say.line(1, "", counting_text(counted[0]["text_length"]))


def counting_text(length: int) -> str:
    """How the costs come about."""
    return (
        f"Products of matrices, in multiply-adds per token of texts of {length} tokens. A BERT layer takes 4 D² + 2 D I + 2 n D "
        "(width D, inner width I, n tokens), an LSTM 8 H (E + H); the head is shared by a text's tokens, and so is the last "
        "layer, but for keys and values, where only the first token's state is needed. The backward pass takes two forward "
        "passes. Of the losses only projections are counted."
    )


def _needs(say: _Lines, found: dict[str, Any]) -> None:
    needs = found["needs"]
    labels = f"yes, for {', '.join(needs['labels'])}" if needs["labels"] else "not for training"
    say.title("needs")
    say.line(1, "teacher", needs["teacher"])
    say.line(1, "data", needs["data"])
    say.line(1, "labels", labels)
    if needs["start"]:
        say.line(1, "first weights", f"{_near(needs['start'])}, which is not there yet")
    if needs["augmentation"]:
        say.line(1, "augmentation", needs["augmentation"])
    say.title("models")


def model_text(model: dict[str, Any]) -> str:
    """`3 layers x 384, 12 heads, inner 1536; 17.4M parameters`."""
    size = f"{model['parameters'] / 1e6:.1f}M parameters"
    if model["model_type"] == "bilstm":
        words = f"{model['vocab_size']:,} words x {model['embedding_size']}"
        return f"BiLSTM of {model['hidden_size']} a direction over {words}, {size}"
    layers = model["num_hidden_layers"]
    return (
        f"{counted(layers, 'layer')} x {model['hidden_size']}, {model['num_attention_heads']} heads, "
        f"inner width {model['intermediate_size']}, {size}"
    )


def _start_text(student: dict[str, Any]) -> str:
    # How many words there will be is only known from the texts.
    words = "; of its words those that the texts have, and so fewer parameters" if student["vocabulary"] == "trimmed" else ""
    if student["from"] == "random":
        return f"from random weights{words}"
    source = "the teacher's" if student["from"] == "teacher" else f"{_near(student['from'])}'s"
    if student["from_layers"] is None:
        return f"from {source} weights{words}"
    return f"from {source} layers {', '.join(map(str, student['from_layers']))} (counted from 0){words}"


def _stage(say: _Lines, stage: dict[str, Any]) -> None:
    say.title(f"stage {stage['name']}")
    for term in stage["terms"]:
        schedule = "" if term["weight_schedule"] == "constant" else f", weight {term['weight_schedule'].replace('_', ' ')}"
        say.line(1, f"{term['weight']:g} x {term['loss']}", f"{term['formula']}{schedule}")
        say.line(2, "mean over", term["unit"].replace("_", " "))
        if term["options"]:
            say.line(2, "options", ", ".join(f"{key} {flow(value)}" for key, value in term["options"].items()))
        if "layers" in term:
            resolved = term["layers"]["resolved"]
            text = f"{resolved} (teacher→student, from 1, 0 the embeddings)" if resolved else "does not fit these models"
            say.line(2, "layers", f"{term['layers']['rule']}: {text}")
        if term.get("projections"):
            say.line(2, "projections", projections_text(term["projections"]))
    if stage["freeze"]:
        say.line(1, "frozen", ", ".join(stage["freeze"]))
    if stage["replacement"]:
        say.line(1, "replacement", replacement_text(stage["replacement"]))
    say.line(1, "training", train_text(stage["train"]))
    if stage["costs"]:
        _costs(say, stage["costs"], stage["train"]["epochs"])


def projections_text(projections: list[dict[str, Any]]) -> str:
    """How many there are, which way, and who shares one."""
    first = projections[0]
    rows, columns = first["shape"]
    shared = f", '{first['name']}', shared by {first['uses']} pairs" if first["uses"] > 1 else ", one a pair"
    rate = "" if first["learning_rate"] is None else f", learning rate {first['learning_rate']:g}"
    return f"{len(projections)} {first['kind']}, width {columns} to {rows}{shared}{rate}"


def replacement_text(replacement: dict[str, Any]) -> str:
    """The rate, and from when it is 1."""
    rate, until = f"{replacement['rate']:g}", replacement["until"]
    if replacement["schedule"] == "linear":
        rate += ", rising to 1"
    if until is None:
        end = "to the end of the stage"
    elif until < 1:
        end = f"all modules are from {100 * until:.4g}% of the steps on"
    else:
        end = f"all modules are from step {int(until):,} on"
    return f"{replacement['schedule']}, a module is the student's with probability {rate}; {end}"


def train_text(train: dict[str, Any]) -> str:
    """Epochs, batch, learning rate, schedule, optimizer."""
    length = f"{train['steps']:,} steps" if train["steps"] else f"{train['epochs']:g} epochs"
    parts = [length, f"batch {train['batch_size']}"]
    if train["gradient_accumulation"] > 1:
        parts[-1] += f" in {train['gradient_accumulation']} parts"
    warmup = train["warmup"]
    if warmup:
        warmup_text = f" after a warm-up of {f'{warmup:.0%} of the steps' if warmup < 1 else f'{warmup:g} steps'}"
    else:
        warmup_text = ""
    schedule = train["schedule"].replace("_", " ")
    if train["schedule"] == "slanted_triangular":
        schedule += f" to 1/{train['slanted_ratio']:g}"
    parts.append(f"learning rate {train['learning_rate']:g}, {schedule}{warmup_text}")
    clipping = train["max_gradient_norm"]
    parts.append(f"{train['optimizer']} with weight decay {train['weight_decay']:g}")
    parts.append("no clipping" if clipping is None else f"gradients clipped at norm {clipping:g}")
    if train["dropout"] is not None:
        parts.append(f"dropout {train['dropout']:g}")
    return ", ".join([*parts, f"the {train['keep']} weights are kept"])


def _costs(say: _Lines, costs: dict[str, Any], epochs: float | None) -> None:
    student, teacher = costs["student_forward_backward"], costs["teacher_forward"]
    unit = "multiply-adds per token"
    text = f"student {millions(student)} forward and backward"
    if costs["at_first"] is not None:
        text = f"{millions(costs['at_first'])} {unit} at first, {millions(student)} when all modules are the student's"
    elif teacher:
        text += f" + teacher {millions(teacher)} forward = {millions(student + teacher)} {unit}"
    else:
        text += f", {unit}"
    say.line(1, "cost of a step", text)
    cache = costs["cache"]
    if cache is None:
        return
    if cache["obstacle"]:
        say.line(1, "teacher cache", f"none: {cache['obstacle']}")
        return
    outputs = "; ".join(outputs_text(names) for names in costs["teacher_outputs"].values())
    saved = f"the teacher is {costs['teacher_share']:.0%} of a step"
    if epochs is not None:
        saved += (
            f", and over {epochs:g} epochs a cache saves {costs['cache_saves_of_teacher']:.0%} of it, "
            f"{costs['cache_saves_of_all']:.0%} of all"
        )
    size = byte_text(cache["bytes_per_1000_tokens"])
    say.line(1, "teacher cache", f"{saved}; it takes {size} per 1,000 tokens in {cache['precision']} ({outputs})")


def outputs_text(names: list[str]) -> str:
    """`hidden 0 3 6, logits`."""
    kinds: dict[str, list[int]] = {}
    for kind, layer in map(split_name, names):
        kinds.setdefault(kind, []).extend([] if layer is None else [layer])
    return ", ".join(f"{kind} {' '.join(map(str, sorted(layers)))}".strip() for kind, layers in kinds.items())


def millions(value: float) -> str:
    """`12.3M`."""
    return f"{value / 1e6:.3g}M" if value < 1e8 else f"{value / 1e6:,.0f}M"


def byte_text(size: float) -> str:
    """`12.3 kB`."""
    for unit in ("bytes", "kB", "MB", "GB"):
        if size < 1000 or unit == "GB":
            return f"{size:,.0f} {unit}" if unit == "bytes" else f"{size:,.1f} {unit}"
        size /= 1000


def flow(value: Any) -> str:
    """A value as YAML writes it in a line."""
    if isinstance(value, dict):
        return "{" + ", ".join(f"{key}: {flow(item)}" for key, item in value.items()) + "}"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(map(flow, value)) + "]"
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    return f"{value:g}" if isinstance(value, float) else str(value)


def _near(folder: str) -> str:
    """A folder as seen from here, where it is below."""
    path = Path(folder)
    return str(path.relative_to(Path.cwd())) if path.is_relative_to(Path.cwd()) else folder


class _Lines:
    """Prints `label: text`, indented, and wrapped below its own start in a terminal."""

    def __init__(self, console: Console):
        self._console = console
        self._width = min(console.width, _WIDEST) if console.is_terminal else None

    def title(self, text: str) -> None:
        self._console.print(Text(text, style="bold"))

    def line(self, indent: int, label: str, text: str) -> None:
        text = " ".join(text.split())  # formulas have wide gaps before their sources
        start, head = "  " * indent, f"{label}: " if label and text else label
        whole = f"{start}{head}{text}".rstrip()
        if self._width is not None and len(whole) > self._width:
            # Words such as keys of a recipe are never cut: they are there to be copied.
            below = start + ("    " if head else "")
            whole = textwrap.fill(
                whole, self._width, subsequent_indent=below, break_long_words=False, break_on_hyphens=False
            )
        shown = Text(whole)
        shown.stylize("cyan", len(start), len(start) + len(label))
        self._console.print(shown, soft_wrap=True)
