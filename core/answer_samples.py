"""What of a model's kept answers can be scored on resamples, for comparisons: the names of these scores, what is drawn, and each
score of a resample."""

from __future__ import annotations

from collections.abc import Sequence

from .class_metrics import CLASS_METRICS
from .kinds.known_kinds import TOKEN_LABELS
from .metric_samples import Sample, sampled_class, sampled_metric
from .metrics import KNOWN_METRICS
from .predictions import SCORED, Predictions
from .text_samples import text_samples


def known_scores(found: Predictions) -> tuple[str, ...]:
    """The names of all scores that can be counted from answers, those of one class or type (`f1/positive`, `entity_f1/PER`)
    behind the others."""
    if found.texts is not None:
        return TOKEN_LABELS.metrics_of(found.label_names)
    if found.own is not None:
        return tuple(name for name in found.metrics if name in KNOWN_METRICS)
    if found.label_names in SCORED:
        return found.label_names
    names = found.label_names or ()
    return (*found.kind.metrics(len(names)), *(f"{metric}/{name}" for name in names for metric in CLASS_METRICS))


def drawn_count(found: Predictions) -> int:
    """How many there are of what is drawn: texts with all their words, or examples."""
    return len(found.labels if found.texts is None else found.texts.counts)


def score_samples(names: Sequence[str], found: Predictions) -> dict[str, Sample]:
    """Each of these `known_scores` of resamples."""
    if found.texts is not None:
        return text_samples(names, found.logits, found.labels, found.texts, found.label_names)
    samples = {}
    for name in names:
        metric, slash, label = name.partition("/")
        if slash:
            samples[name] = sampled_class(metric, found.label_names.index(label), found.logits, found.labels)
        else:
            samples[name] = sampled_metric(name, found.logits, found.labels)
    return samples
