"""The two sides that `huggingface_loop.py` compares: the product, and a training loop as one writes it with transformers."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Iterable

import numpy as np
from kd_job import LEARNING_RATE, OPTIMIZER, SCHEDULED_STEPS, TEACHER, TEMPERATURE, WEIGHT, KdJob

from crossdistil.backends.registry import load_engine  # before torch: the engine sets how torch takes memory
from crossdistil.core.checkpoint import Model
from crossdistil.core.engine import Batch, EngineOptions
from crossdistil.core.model_answers import logits_function

TEACHER_LOGITS = f"{TEACHER}/logits"
LOG_EVERY = 50


class Crossdistil:
    """The product."""

    def __init__(self, job: KdJob, device: str, precision: str, compile: bool, backend: str = "torch"):
        self._job = job
        self._engine = load_engine(backend, EngineOptions(device, precision, compile))
        self._step = self._engine.train_step(
            job.objective.function, job.student.parameters, job.frozen, OPTIMIZER
        )

    @property
    def engine(self):
        """The product's engine."""
        return self._engine

    def logits(self, batch: Batch) -> np.ndarray:
        """The untrained student's logits."""
        return self._engine.infer(logits_function(self._job.student.config), self._job.student.parameters)(batch)[0]

    @functools.cached_property
    def _teacher(self):
        return self._engine.infer(logits_function(self._job.teacher.config), self._job.teacher.parameters)

    def teacher(self, batch: Batch) -> np.ndarray:
        """The teacher's logits."""
        return self._teacher(batch)[0]

    def run(self, epoch: int, count: int) -> None:
        """`count` steps from the start of an epoch, to their end on the device."""
        self._step.run(self._job.steps(epoch), count).fetch()


class HuggingFace:
    """A training loop as one writes it with transformers."""

    def __init__(self, job: KdJob, device: str, precision: str, compile: bool = False):
        """With `compile` both models are compiled by torch.compile, for lengths that vary."""
        import torch

        self._torch, self._device = torch, torch.device(device)
        self._dtype = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}[precision]
        self._scaler = torch.amp.GradScaler(self._device.type, enabled=precision == "fp16")
        self._teacher = self._module(job.teacher).eval()
        self.student = self._module(job.student).train()
        if compile:
            self._teacher.compile()
            self.student.compile()
        decayed = [p for n, p in self.student.named_parameters() if not (n.endswith("bias") or "LayerNorm" in n)]
        others = [p for n, p in self.student.named_parameters() if n.endswith("bias") or "LayerNorm" in n]
        groups = [{"params": decayed, "weight_decay": OPTIMIZER.weight_decay}, {"params": others, "weight_decay": 0.0}]
        self._optimizer = torch.optim.AdamW(groups, lr=LEARNING_RATE, eps=OPTIMIZER.epsilon, fused=True)
        self._schedule = torch.optim.lr_scheduler.LambdaLR(self._optimizer, lambda step: 1 - step / SCHEDULED_STEPS)
        self._steps, self._loss = 0, float("nan")

    def _module(self, model: Model):
        from transformers import BertConfig, BertForSequenceClassification

        config = BertConfig(**model.config.model_dump(exclude={"classifier_relu"}), num_labels=model.outputs)
        config._attn_implementation = "sdpa"
        module = BertForSequenceClassification(config)
        tensors = {name: self._torch.from_numpy(array.copy()) for name, array in model.parameters.items()}
        module.load_state_dict(tensors)
        return module.to(self._device)

    def logits(self, batch: Batch) -> np.ndarray:
        """The untrained student's logits."""
        self.student.eval()
        with self._torch.no_grad(), self._autocast():
            logits = self.student(**self._inputs(batch)).logits.float().cpu().numpy()
        self.student.train()
        return logits

    def _autocast(self):
        if self._dtype is self._torch.float32:
            return contextlib.nullcontext()
        return self._torch.autocast(self._device.type, dtype=self._dtype)

    def _inputs(self, batch: Batch) -> dict:
        names = ("input_ids", "token_type_ids", "attention_mask")
        return {name: self._torch.from_numpy(batch[name]).to(self._device).long() for name in names}

    def run(self, batches: Iterable[Batch]) -> None:
        """One step for each batch, to its end on the device."""
        F = self._torch.nn.functional
        for batch in batches:
            inputs = self._inputs(batch)
            labels = self._torch.from_numpy(batch["labels"]).to(self._device).long()
            with self._autocast():
                if TEACHER_LOGITS in batch:
                    targets = self._torch.from_numpy(batch[TEACHER_LOGITS]).to(self._device)
                else:
                    with self._torch.no_grad():
                        targets = self._teacher(**inputs).logits
                logits = self.student(**inputs).logits
            soft = F.kl_div(
                F.log_softmax(logits.float() / TEMPERATURE, dim=-1),
                F.softmax(targets.float() / TEMPERATURE, dim=-1),
                reduction="batchmean",
            )
            loss = WEIGHT * soft * TEMPERATURE**2 + WEIGHT * F.cross_entropy(logits.float(), labels)
            self._scaler.scale(loss).backward()
            self._scaler.unscale_(self._optimizer)
            self._torch.nn.utils.clip_grad_norm_(self.student.parameters(), OPTIMIZER.max_gradient_norm)
            self._scaler.step(self._optimizer)
            self._scaler.update()
            self._schedule.step()
            self._optimizer.zero_grad(set_to_none=True)
            self._steps += 1
            if self._steps % LOG_EVERY == 0:
                self._loss = loss.item()
        if self._device.type != "cpu":
            getattr(self._torch, self._device.type).synchronize()
