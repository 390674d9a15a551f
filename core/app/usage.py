"""What the command line answers to a command or an option that it does not have: one line that helps."""

from __future__ import annotations

import re
from typing import Any

from ..catalogue_folder import RECIPES_FOLDER
from ..errors import did_you_mean
from ..shown import plain

_LONGEST = 1000
"""Characters of an answer, which may repeat what was typed."""

_SYNONYMS = {
    **dict.fromkeys(("train", "distil", "distill", "fit"), "run"),
    **dict.fromkeys(("eval", "test", "score"), "evaluate"),
    **dict.fromkeys(("infer", "classify"), "predict"),
    **dict.fromkeys(("info", "show"), "inspect"),
    **dict.fromkeys(("benchmark", "bench", "time"), "latency"),
    **{"list": "recipes", "tune": "search", "quantize": "export", "quantise": "export", "upload": "push"},
    **{"resume": "run --resume --out RUN", "augment": "data augment", "mlm": "data mlm", "version": "--version"},
}
"""What people call a command that has another name here."""


_OPTION_SYNONYMS = {
    **dict.fromkeys(("--input", "--inputs", "--input-file", "--in", "--texts"), "--file"),
    **dict.fromkeys(("--output", "--output-dir", "--output-file"), "--out"),
}


def usage_text(error: Any) -> str:
    """The message of an error of typer's parser, with the nearest command or option and where the help is."""
    # Choices of an option come on lines of their own.
    text = error.format_message().replace("Value error, ", "").replace("\n\t", " ").rstrip(".")
    path = error.ctx.command_path if error.ctx else "crossdistil"
    command = re.match(r"No such command '(.*?)'", text)
    if command and error.ctx is not None:
        text = f"no such command '{command[1]}'{_nearest_command(command[1], error.ctx)}"
    option = re.match(r"No such option:? '?(-[^\s'(]*)", text)
    if option and error.ctx is not None:
        shown = [parameter for parameter in error.ctx.command.params if not getattr(parameter, "hidden", False)]
        known = [name for parameter in shown for name in parameter.opts]
        text = f"no such option: {option[1]}{_nearest_option(option[1], known)}"
    if text.startswith("Got unexpected extra argument") and error.ctx is not None and any(map(_is_torn, _settings(error.ctx))):
        text += "; --set takes KEY=VALUE, in quotes where it holds spaces"
    return f"{plain(text, _LONGEST)}; see {path} --help"


def _settings(context: Any) -> list[str]:
    """What `--set` was given."""
    found = (context.params.get(parameter.name) for parameter in context.command.params if "--set" in parameter.opts)
    return [setting for settings in found for setting in settings or ()]


def _is_torn(setting: str) -> bool:
    """Whether a shell seems to have cut a setting at a space."""
    return "=" not in setting or any(setting.count(begin) > setting.count(end) for begin, end in ("{}", "[]"))


def _nearest_option(given: str, known: list[str]) -> str:
    if _OPTION_SYNONYMS.get(given) in known:
        return f"; did you mean '{_OPTION_SYNONYMS[given]}'?"
    begun = [name for name in known if len(given) > 3 and name.startswith(given)]
    return f"; did you mean '{begun[0]}'?" if begun else did_you_mean(given, known)


def _nearest_command(given: str, context: Any) -> str:
    if context.parent is None and given in _SYNONYMS:
        return f"; did you mean '{_SYNONYMS[given]}'?"
    near = did_you_mean(given, context.command.list_commands(context))
    if near or context.parent is not None:
        return near
    if (RECIPES_FOLDER / f"{given}.yaml").is_file() or given.endswith((".yaml", ".yml")):
        return f"; did you mean 'run {given}'?"
    return ""
