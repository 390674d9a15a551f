"""What a cross-check looks at before any training: the first batch through the untrained student. It is the same however many
processes there are, since the first one computes it, of the batch that one process alone would begin with."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from ..engine import Engine, Parameters
from ..files import write_arrays
from ..losses.logit_rows import learned_tokens
from ..models.answer_heads import EMBEDDINGS
from ..models.architectures import head_names, is_encoder, make_forward
from ..models.outputs import EMBEDDING, LOGITS, output_name
from ..run_files import PROBE
from ..stages import Stage


def write_probe(stage: Stage, engine: Engine, parameters: Parameters, frozen: Parameters, folder: Path) -> None:
    """Write the hidden states and logits of the first batch, and values and gradients of the loss."""
    batch = stage.objective.prepare(next(stage.batches.of_one_process().epoch(0)))[0]
    outputs = _outputs(stage.config, parameters)
    forward = make_forward(stage.config.without_dropout(), frozenset(outputs.values()))
    names = list(outputs.values())

    def states(ops, params, inputs):
        made = forward(ops, params, inputs)
        return [made[name] for name in names]

    inputs = {name: batch[name] for name in _INPUTS if name in batch}
    arrays = dict(zip(outputs, engine.infer(states, parameters)(inputs), strict=True))
    if stage.objective.context.kind.over_tokens:  # how many there are beside labelled or real tokens differs
        of_tokens = stage.objective.context.kind.per_token
        arrays["logits"] = arrays["logits"][(learned_tokens(batch) if of_tokens else batch["attention_mask"]) > 0]
    values, gradients = engine.gradients(stage.objective.function, parameters, frozen, batch)
    arrays |= {"mask": batch["attention_mask"], "values": values[: 1 + len(stage.objective.terms)]}
    changing = stage.optimizer(parameters)
    arrays |= {f"gradient/{name}": array for name, array in gradients.items() if changing.is_trained(name)}
    write_arrays(folder / PROBE, arrays)


_INPUTS = ("input_ids", "token_type_ids", "attention_mask", "second_ids", "second_mask")


def _outputs(config, parameters: dict[str, np.ndarray]) -> dict[str, str]:
    """Name in the file -> output of the model."""
    names = {"logits": LOGITS} if head_names(config)[0] in parameters else {}
    if getattr(config, "classifier", None) == EMBEDDINGS:
        names = {"logits": EMBEDDING}
    if is_encoder(config):
        names |= {f"hidden/{layer}": output_name("hidden", layer) for layer in range(config.num_hidden_layers + 1)}
    return names
