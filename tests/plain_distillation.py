"""Distillation of a BERT in plain PyTorch and transformers, whole batches in one process in float64, by the formulas of Hinton et
al. 2015 and torch's own optimizer: what nobody of this project's code takes part in, to compare it with."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch.nn.functional import cross_entropy, kl_div, log_softmax, softmax
from transformers import BertConfig, BertForSequenceClassification, BertTokenizerFast

LAYERS, TEMPERATURE, LENGTH = (1, 3), 4.0, 16


def distil(files: Path, batches: list[np.ndarray], clip: float | None, optimizer) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """Train on the lines `batches` of the task's table, a step each. Returns the values (steps, 3) total, soft and hard of each
    step, and the parameters. `optimizer(parameters)` makes one from (name, parameter) pairs."""
    lines = [line.split("\t") for line in (files / "task" / "train.tsv").read_text().splitlines()[1:]]
    tokenizer = BertTokenizerFast.from_pretrained(files / "teacher")
    teacher = BertForSequenceClassification.from_pretrained(files / "teacher").double().eval()
    config = BertConfig.from_pretrained(files / "teacher", num_hidden_layers=len(LAYERS), num_labels=2)
    student = BertForSequenceClassification(config).double().eval()
    student.load_state_dict(_taken_over(teacher.state_dict()))
    chosen, values = optimizer(list(student.named_parameters())), []
    for rows in batches:
        texts, labels = zip(*(lines[row] for row in rows))
        inputs = tokenizer(list(texts), truncation=True, max_length=LENGTH, padding=True, return_tensors="pt")
        with torch.no_grad():
            taught = teacher(**inputs).logits / TEMPERATURE
        logits = student(**inputs).logits
        targets = softmax(taught, -1)
        # A cross-entropy is a divergence and the targets' own entropy.
        soft = kl_div(log_softmax(logits / TEMPERATURE, -1), targets, reduction="sum") - (targets * targets.log()).sum()
        soft = soft / len(rows) * TEMPERATURE**2
        hard = cross_entropy(logits, torch.tensor([int(label) for label in labels]))
        total = 0.5 * soft + 0.5 * hard
        chosen.zero_grad()
        total.backward()
        if clip is not None:
            torch.nn.utils.clip_grad_norm_(student.parameters(), clip)
        chosen.step()
        values.append([total.item(), soft.item(), hard.item()])
    return np.array(values), {name: tensor.detach().numpy() for name, tensor in student.named_parameters()}


def adamw(parameters, rate: float, epsilon: float, decay: float) -> torch.optim.Optimizer:
    """AdamW, without decay of biases and normalisations."""
    plain = [tensor for name, tensor in parameters if name.endswith("bias") or "LayerNorm" in name]
    decayed = [tensor for name, tensor in parameters if not (name.endswith("bias") or "LayerNorm" in name)]
    groups = [{"params": plain, "weight_decay": 0.0}, {"params": decayed, "weight_decay": decay}]
    return torch.optim.AdamW(groups, lr=rate, eps=epsilon)


def _taken_over(tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The teacher's tensors under the names that the student has for them."""
    found = {name: tensor for name, tensor in tensors.items() if ".layer." not in name}
    for number, layer in enumerate(LAYERS):
        start = f"bert.encoder.layer.{layer}."
        found |= {
            f"bert.encoder.layer.{number}.{name.removeprefix(start)}": tensor
            for name, tensor in tensors.items()
            if name.startswith(start)
        }
    return found
