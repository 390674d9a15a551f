"""Which tokens of each row are masked, in an epoch of training or in an evaluation."""

from __future__ import annotations

import numpy as np

from crossdistil.core.data.batches import TrainBatches, evaluation_batches
from crossdistil.tests import tiny

PAD, UNK, CLS, SEP, MASK = range(5)
WORDS = [index for index, token in enumerate(tiny.VOCABULARY) if index > MASK and not token.startswith("##")]
SIZE = len(tiny.VOCABULARY)
BUCKETS = (16, 32, 48)


def masked_of(batch):
    """Of each real row of a masked batch: {position: (original, what stands there)}."""
    length = batch["input_ids"].shape[1]
    real = batch["masked_weights"] > 0
    found = [{} for _ in range(int(batch["example_mask"].sum()))]
    for place, label in zip(batch["masked_rows"][real], batch["masked_labels"][real]):
        position = int(place % length)
        assert position not in found[place // length]
        found[place // length][position] = (int(label), int(batch["input_ids"][place // length, position]))
    return found


def drawn(table, masks, batch_size=64, buckets=BUCKETS):
    """The same of all rows, in the table's order, with the masks of an evaluation."""
    found = {}
    for rows, batch in evaluation_batches(table, None, batch_size, buckets, masks):
        found.update(zip(rows.tolist(), masked_of(batch)))
    return [found[row] for row in range(len(found))]


def epoch_masks(table, masks, epoch, batch_size=16, accumulation=1, buckets=BUCKETS, start=0):
    """The masks of each row that is met."""
    batches = TrainBatches(table, np.arange(len(table.lengths)), batch_size, accumulation, buckets, 9)
    batches.attach_masks(masks)
    found = {}
    for step in batches.epoch(epoch, start):
        for micro in step:
            found.update(zip(micro["labels"].tolist(), masked_of(micro)))
    return found
