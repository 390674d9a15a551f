"""What checkpoints hold beside a model: state of optimizers and of the training, buffers, moving averages, adapters."""

from __future__ import annotations

import re
from collections.abc import Iterable

from ..core.errors import CheckpointError

_OPTIMIZER, _TRAINING, _BUFFER = "state of the optimizer", "state of the training", "buffer that follows from the configuration"
_LEFT_OUT = (
    (re.compile(r"(^|[/-])(adam|lamb)_[mv](_[0-9]+)?(:0)?$|(^|/)(AdamWeightDecay|LAMB)Optimizer|/Adam(_1)?(:0)?$"), _OPTIMIZER),
    (re.compile(r"/\.OPTIMIZER_SLOT/|^(.*/)?optimizer/|^(adam|adamw|Adam)/"), _OPTIMIZER),
    (re.compile(r"^[^./]*-[mv]$"), _OPTIMIZER),
    (re.compile(r"^(adam_[mv]|lamb_[mv]|moments?[12]?|momentum_buf|accum|vhat|stat|mean_(square|grad))\."), _OPTIMIZER),
    (re.compile(r"^(max_)?exp_avg(_sq(_row|_col)?)?[._]|^(state_step|step_t|afactor_step)$"), _OPTIMIZER),
    (re.compile(r"^(optimizers?|optim|lr_scheduler|scheduler|grad_scaler|scaler)(_states?)?\."), _OPTIMIZER),
    (re.compile(r"^(beta[12]_power|learning_rate(_group_[0-9]+)?|weight_decay|momentum)(:0)?$"), _OPTIMIZER),
    # OneFlow's converter of TensorFlow checkpoints takes a name without parts for two, the first a letter short.
    (re.compile(r"^(global_step?|save_counter|step_num|epoch_num|epoch|step)(:0|/.*|-global_step)?$|^System-"), _TRAINING),
    (re.compile(r"^(loss_scale|scale_sense|temperature|current_iterator_step|last_overflow_iterator_step)$"), _TRAINING),
    (re.compile(r"(^|[./-])position_ids$|embeddings[./-]token_type_ids$|(^|\.)h\.[0-9]+\.attn\.(masked_)?bias$"), _BUFFER),
)
_AVERAGE = re.compile(r"[/-]ExponentialMovingAverage(?=(:0)?$)")
_AVERAGED = "moving average of a weight that is here itself; --ema reads the averages"
_REPLACED = "weight whose moving average is read"
_ADAPTER = re.compile(r"(?:^|\.)(?:lora_[AB]|lora_embedding_[AB]|lora_magnitude_vector|hada_w[12]_[ab]|ia3_l|oft_[rs])(?:\.|$)")

MERGE = (
    "merge it into its model first, in Python with peft: "
    "PeftModel.from_pretrained(model, folder).merge_and_unload().save_pretrained(new_folder)"
)
"""What to do with an adapter."""


def left_out(name: str) -> str:
    """Why a tensor is no part of any model, or an empty string."""
    return next((reason for pattern, reason in _LEFT_OUT if pattern.search(name)), "")


def without_averages(names: dict[str, str], ema: bool) -> tuple[dict[str, str], dict[str, str], list[str]]:
    """(name in the file -> name, name -> why it is left out, notes): of weights and their moving averages, which have the same
    names, the ones that are asked for. Averages alone are read. Raises CheckpointError where there are none to read."""
    averages = {source: _AVERAGE.sub("", name) for source, name in names.items() if _AVERAGE.search(name)}
    if not averages:
        if ema:
            raise CheckpointError("--ema: it has no moving averages, expected names that end with /ExponentialMovingAverage")
        return names, {}, []
    weights = {name: source for source, name in names.items() if source not in averages}
    both = [source for source, name in averages.items() if name in weights]
    if both and not ema:
        kept = {source: averages.get(source, name) for source, name in names.items() if source not in set(both)}
        alone = len(averages) - len(both)
        notes = [f"{alone} of its tensors are there as moving averages only, and are read so"] if alone else []
        return kept, dict.fromkeys(both, _AVERAGED), notes
    replaced = {weights[averages[source]] for source in both}
    kept = {source: averages.get(source, name) for source, name in names.items() if source not in replaced}
    return kept, dict.fromkeys(replaced, _REPLACED), [f"the moving averages of {len(averages)} weights are read"]


def refuse_adapter(names: Iterable[str]) -> None:
    """Raises CheckpointError where the names are those of a low-rank adapter, alone or beside the weights that it changes."""
    name = next(filter(_ADAPTER.search, names), None)
    if name is not None:
        raise CheckpointError(f"{name} is of a LoRA adapter (PEFT), which changes a model and is none; {MERGE}")
