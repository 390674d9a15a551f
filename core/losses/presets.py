"""The names that TextBrewer gives to lists of matches (its `examples/matches/matches.py`), as terms of ours.

Letters in the names: `L3`, `L4`, `L6` and `small` (12 layers) are the student's depth under a teacher of 12 layers; `t`
(312 wide), `n` (384), `l` (1024) and `small` (256) are students of another width than the teacher's, each match with a
linear projection of its own. `s` marks grams of a layer with itself. Every match has weight 1, and 0 is the embedding
output. The widths themselves come from the models.

TextBrewer divides the masked `mmd` by the padded length and the unmasked one by the width. The presets divide by the width
(its published results on MNLI were made without a mask); the other is `divide_by: length`.
"""

from __future__ import annotations

from typing import Any

# Student layer 0, 1, ... -> teacher layer, by the depth in the preset's name.
_HIDDEN = {
    "L3": [[0, 0], [4, 1], [8, 2], [12, 3]],
    "L4": [[0, 0], [3, 1], [6, 2], [9, 3], [12, 4]],
    "L6": [[0, 0], [2, 1], [4, 2], [6, 3], [8, 4], [10, 5], [12, 6]],
    "small": [[0, 0], [2, 2], [4, 4], [6, 6], [8, 8], [10, 10], [12, 12]],
}
_LINEAR = {"kind": "linear"}


def _hidden(loss: str, depth: str, projected: bool = False) -> list[dict[str, Any]]:
    term: dict[str, Any] = {"loss": loss, "layers": _HIDDEN[depth]}
    return [term | {"projection": _LINEAR}] if projected else [term]


PRESETS: dict[str, list[dict[str, Any]]] = {
    "L3_hidden_mse": _hidden("hidden_mse", "L3"),
    "L3n_hidden_mse": _hidden("hidden_mse", "L3", projected=True),
    "L3l_hidden_mse": _hidden("hidden_mse", "L3", projected=True),
    "L3_hidden_smmd": _hidden("mmd", "L3"),
    "L4t_hidden_mse": _hidden("hidden_mse", "L4", projected=True),
    "L4t_hidden_sgram": _hidden("fsp", "L4", projected=True),
    "L4_hidden_smmd": _hidden("mmd", "L4"),
    "L6_hidden_mse": _hidden("hidden_mse", "L6"),
    "L6_hidden_smmd": _hidden("mmd", "L6"),
    "small_hidden_mse": _hidden("hidden_mse", "small", projected=True),
    "small_hidden_smmd": _hidden("mmd", "small"),
} | {
    f"{depth}_attention_{kind}": [{"loss": f"attention_{kind}", "layers": _HIDDEN[depth][1:]}]
    for depth in ("L3", "L4")
    for kind in ("mse", "ce", "mse_sum", "ce_mean")
}


def expand(name: str) -> list[dict[str, Any]]:
    """The terms, as a recipe would hold them, of a preset. Any other name is a loss with its default options."""
    return [dict(term) for term in PRESETS.get(name, [{"loss": name}])]
