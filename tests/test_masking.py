"""Masks drawn anew: which tokens and how often, against binomial bounds and NumPy's own weighted sampling; and on what they
depend."""

from __future__ import annotations

import math
import time

import numpy as np
import pytest
from scipy import stats

from crossdistil.core.data.batches import TrainBatches, evaluation_batches
from crossdistil.core.data.masking import DynamicMasks, MaskingSettings
from crossdistil.core.data.token_table import TokenTable
from crossdistil.core.data.tokenize import load_tokenizer
from crossdistil.tests import tiny
from crossdistil.tests.masks_drawn import BUCKETS, CLS, MASK, PAD, SEP, SIZE, UNK, WORDS, drawn, epoch_masks, masked_of

PARTS = [index for index, token in enumerate(tiny.VOCABULARY) if token.startswith("##")]


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory):
    return load_tokenizer(tiny.write_vocabulary(tmp_path_factory.mktemp("masking") / "vocabulary"))


def table_of(rows) -> TokenTable:
    """Rows of tokens between [CLS] and [SEP]."""
    lengths = np.array([len(row) for row in rows])
    ids = np.concatenate([np.asarray(row, np.uint16) for row in rows])
    return TokenTable(ids, np.append(0, np.cumsum(lengths)), (lengths + 2).astype(np.int32), PAD, ends=(CLS, SEP))


def random_rows(count, least=1, most=46, seed=0, tokens=tuple(range(SIZE))):
    """Rows of any tokens, special ones in the midst of a text too."""
    generator = np.random.default_rng(seed)
    return [generator.choice(tokens, generator.integers(least, most + 1)) for _ in range(count)]


def within(count, trials, share):
    """Whether a count is one of a binomial distribution, by five standard deviations."""
    return abs(count - trials * share) < 5 * math.sqrt(trials * share * (1 - share)) + 1e-9


# ------------------------------------------------------------------------------------------ which, and what stands there


def test_a_batch_by_hand(tokenizer):
    """Budgets of 2 and 2 where only 2 and 1 tokens are not special; a third row fills the batch up."""
    table = table_of([[9, 10], [11, UNK, SEP]])
    masks = DynamicMasks(MaskingSettings(probability=0.5, mask=1, random=0), tokenizer, 0)
    ((rows, batch),) = evaluation_batches(table, None, 3, (6,), masks)
    assert rows.tolist() == [1, 0]
    first, second = [CLS, MASK, UNK, SEP, SEP, PAD], [CLS, MASK, MASK, SEP, PAD, PAD]
    assert batch["input_ids"].tolist() == [first, second, [CLS, *[PAD] * 5]]
    assert batch["masked_rows"].tolist() == [1, 7, 8, *[0] * 13]  # room for 3 texts of 3, to a multiple of 8
    assert batch["masked_labels"].tolist() == [11, 9, 10, *[0] * 13]
    assert batch["masked_weights"].tolist() == [1.0] * 3 + [0.0] * 13
    names = ("input_ids", "masked_rows", "masked_labels", "masked_weights")
    assert [batch[name].dtype.name for name in names] == ["int32", "int32", "int32", "float32"]
    assert batch["attention_mask"].sum(1).tolist() == [5, 4, 1]


@pytest.mark.parametrize("settings", [{}, {"whole_words": True}, {"budget": "batch"}, {"smoothing": 0.7}])
def test_labels_are_the_originals(tokenizer, settings):
    table = table_of(random_rows(300))
    counts = np.bincount(table.ids, minlength=SIZE)
    masks = DynamicMasks(MaskingSettings(**settings), tokenizer, 1, counts)
    plain = TrainBatches(table, np.arange(300), 16, 2, BUCKETS, 5)
    masked = TrainBatches(table, np.arange(300), 16, 2, BUCKETS, 5)
    masked.attach_masks(masks)
    for before, after in zip(plain.epoch(2), masked.epoch(2)):
        for old, new in zip(before, after):
            ids, real = new["input_ids"].copy().ravel(), new["masked_weights"] > 0
            assert not np.isin(new["masked_labels"][real], (PAD, UNK, CLS, SEP, MASK)).any()
            assert not (new["masked_rows"][~real].any() or new["masked_labels"][~real].any())
            ids[new["masked_rows"][real]] = new["masked_labels"][real]
            np.testing.assert_array_equal(ids.reshape(old["input_ids"].shape), old["input_ids"])
            assert all(np.array_equal(new[name], old[name]) for name in old if name != "input_ids")
            assert len(real) == masks.size(*old["input_ids"].shape) and len(real) % 8 == 0


@pytest.mark.parametrize("mask, random", [(0.8, 0.1), (0.5, 0.5), (0.0, 0.3)])
def test_shares_of_what_stands_there(tokenizer, mask, random):
    table = table_of(random_rows(3000, 20, tokens=WORDS[:10]))
    found = drawn(table, DynamicMasks(MaskingSettings(mask=mask, random=random), tokenizer, 2))
    pairs = np.array([pair for row in found for pair in row.values()])
    count = len(pairs)
    assert count > 14_000
    is_mask, same = pairs[:, 1] == MASK, pairs[:, 1] == pairs[:, 0]
    others = len(WORDS) + len(PARTS)
    assert within(is_mask.sum(), count, mask)
    assert within(same.sum(), count, 1 - mask - random + random / others)
    strangers = np.bincount(pairs[~is_mask & ~same, 1], minlength=SIZE)
    assert not strangers[: MASK + 1].any()
    assert stats.chisquare(strangers[[*WORDS[10:], *PARTS]]).pvalue > 1e-6 and strangers[MASK + 1 :].all()


def test_the_budget_of_a_text_is_published(tokenizer):
    rows = random_rows(2000, tokens=WORDS + PARTS)
    for probability in (0.15, 0.4):
        found = drawn(table_of(rows), DynamicMasks(MaskingSettings(probability=probability), tokenizer, 3))
        expected = [min(len(row), max(1, round(probability * (len(row) + 2)))) for row in rows]
        assert [len(masked) for masked in found] == expected


def test_the_budget_of_a_batch_is_that_of_distilbert(tokenizer):
    table = table_of(random_rows(640, tokens=WORDS))
    masks = DynamicMasks(MaskingSettings(budget="batch"), tokenizer, 3)
    without = 0
    for _, batch in evaluation_batches(table, None, 60, BUCKETS, masks):
        found = masked_of(batch)
        real = batch["example_mask"] > 0
        assert sum(map(len, found)) == math.ceil(0.15 * batch["attention_mask"][real].sum())
        without += sum(not row for row in found)
    assert without > 20  # a text of two tokens has none in most cases


def test_every_position_alike(tokenizer):
    table = table_of(random_rows(3000, 40, 40, tokens=WORDS))
    found = drawn(table, DynamicMasks(MaskingSettings(), tokenizer, 4))
    counts = np.bincount([position for row in found for position in row], minlength=48)
    assert not counts[0] and not counts[41:].any()
    assert counts.sum() == 3000 * 6
    # Six of a row are never the same one, which makes the counts more even than a multinomial distribution's.
    statistic = stats.chisquare(counts[1:41]).statistic / (1 - 6 / 40)
    assert 1e-4 < stats.chi2(39).sf(statistic) < 1 - 1e-4
    pairs = np.zeros((48, 48))
    for row in found:
        pairs[np.ix_(list(row), list(row))] += 1
    above = pairs[1:41, 1:41][np.triu_indices(40, 1)]
    assert 1e-4 < stats.chi2(len(above) - 1).sf(stats.chisquare(above).statistic)


# ---------------------------------------------------------------------------------------------- smoothing


def rare_and_frequent(count=400):
    """Rows of 40 tokens, the frequency of each of 8 tokens twice that of the next."""
    shares = 2.0 ** -np.arange(8)
    generator = np.random.default_rng(0)
    return [generator.choice(WORDS[:8], 40, p=shares / shares.sum()) for _ in range(count)]


def test_smoothing_for_few_masks_is_proportional(tokenizer):
    rows = rare_and_frequent()
    table = table_of(rows)
    counts = np.bincount(table.ids, minlength=SIZE)
    masks = DynamicMasks(MaskingSettings(probability=0.02, smoothing=0.7, budget="batch"), tokenizer, 5, counts)
    found = np.zeros(SIZE)
    epochs = 40
    batches = TrainBatches(table, None, 50, 1, (48,), 0)
    batches.attach_masks(masks)
    for epoch in range(epochs):
        for (batch,) in batches.epoch(epoch):
            np.add.at(found, batch["masked_labels"][batch["masked_weights"] > 0], 1)
    chances = found[WORDS[:8]] / (counts[WORDS[:8]] * epochs)
    slope = np.polyfit(np.log(counts[WORDS[:8]]), np.log(chances), 1)[0]
    assert abs(slope + 0.7) < 0.04


def test_smoothing_is_weighted_sampling_without_replacement(tokenizer):
    """As NumPy's `choice` draws it, also where so much is drawn that it is no longer proportional."""
    (row,) = rare_and_frequent(1)
    table = table_of([row] * 3000)
    counts = np.bincount(rare_and_frequent()[0], minlength=SIZE)
    masks = DynamicMasks(MaskingSettings(probability=0.4, smoothing=1.0), tokenizer, 6, counts)
    ours = np.bincount([position for masked in drawn(table, masks) for position in masked], minlength=48)[1:41]
    generator, weights = np.random.default_rng(1), 1 / counts[row]
    numpys = [generator.choice(40, 17, replace=False, p=weights / weights.sum()) for _ in range(3000)]
    numpys = np.bincount(np.concatenate(numpys), minlength=40)
    assert ours.sum() == numpys.sum() == 17 * 3000
    assert stats.chi2_contingency([ours, numpys]).pvalue > 1e-4
    assert max(ours) > 2 * min(ours)


# ---------------------------------------------------------------------------------------------- whole words


@pytest.mark.parametrize("budget", ["text", "batch"])
def test_words_are_whole_and_the_budget_is_full(tokenizer, budget):
    rows = random_rows(1500, seed=3, tokens=WORDS + PARTS * 3 + [UNK])
    rows.append(np.array(PARTS[:5]))  # a text that begins within a word
    settings = MaskingSettings(whole_words=True, budget=budget)
    table, checked = table_of(rows), 0
    for indices, batch in evaluation_batches(table, None, 32, BUCKETS, DynamicMasks(settings, tokenizer, 7)):
        masked_rows = masked_of(batch)
        left, sizes = [], []
        for row, masked in zip(indices, masked_rows):
            words = []
            before = UNK
            for position, token in enumerate(rows[row], 1):
                if token in PARTS and before != UNK:
                    words[-1].append(position)
                elif token != UNK:
                    words.append([position])
                before = token
            chosen = [word for word in words if word[0] in masked]
            assert sorted(position for word in chosen for position in word) == sorted(masked)
            left.append(max(1, round(0.15 * (len(rows[row]) + 2))) - len(masked))
            sizes.append([len(word) for word in words if word[0] not in masked])
        if budget == "batch":
            total = math.ceil(0.15 * batch["attention_mask"][: len(indices)].sum())
            left, sizes = [total - sum(map(len, masked_rows))], [sum(sizes, [])]
        for room, others in zip(left, sizes):
            assert room >= 0 and all(size > room for size in others)  # nothing that would fit was passed over
            checked += room > 0
    assert checked > 5 or budget == "batch"  # a batch has always a word that fits


def test_words_are_drawn_as_google_draws_them(tokenizer):
    """In random order, and passed over where they do not fit: long ones a little more often."""
    row = [WORDS[0], PARTS[0], PARTS[3], WORDS[1], WORDS[2], PARTS[1]] * 6
    found = drawn(table_of([row] * 2000), DynamicMasks(MaskingSettings(probability=0.2, whole_words=True), tokenizer, 8))
    ours = np.bincount([(position - 1) % 6 for masked in found for position in masked], minlength=6)[[0, 3, 4]]
    generator = np.random.default_rng(2)
    sizes = np.array([3, 1, 2] * 6)
    loops = np.zeros(3)
    for _ in range(4000):
        left = round(0.2 * 38)
        for word in generator.permutation(18):
            if sizes[word] <= left:
                left -= sizes[word]
                loops[word % 3] += 1
    assert stats.chi2_contingency([ours, loops]).pvalue > 1e-4
    assert stats.chi2_contingency([ours, [ours.sum()] * 3]).pvalue < 1e-9  # and it would see a difference


# ------------------------------------------------------------------------------------------ what masks depend on


@pytest.mark.parametrize("settings", [{}, {"whole_words": True, "smoothing": 0.7}])
def test_masks_are_those_of_the_row_and_epoch(tokenizer, settings):
    table = table_of(random_rows(203, seed=4))
    counts = np.bincount(table.ids, minlength=SIZE)

    def masks(seed=0):
        return DynamicMasks(MaskingSettings(**settings), tokenizer, seed, counts)

    whole = epoch_masks(table, masks(), 3)
    assert sorted(whole) == list(range(203))
    for changed in ({"batch_size": 40}, {"accumulation": 4}, {"buckets": (48,)}):
        assert epoch_masks(table, masks(), 3, **changed) == whole
    rest = epoch_masks(table, masks(), 3, start=9)
    assert 0 < len(rest) < 70 and all(whole[row] == rest[row] for row in rest)

    def same(other):
        return np.mean([set(other[row]) == set(whole[row]) for row in whole if len(whole[row]) > 2])

    others = [epoch_masks(table, masks(), 4), epoch_masks(table, masks(1), 3), dict(enumerate(drawn(table, masks())))]
    assert max(map(same, others)) < 0.05
    assert drawn(table, masks(), 7) == drawn(table, masks(), 64)  # an evaluation's are always the same


def test_rows_and_epochs_are_independent(tokenizer):
    """Equal texts: two rows, or a row in two epochs, agree as often as by chance."""
    table = table_of([WORDS[:20] * 2] * 2000)
    masks = DynamicMasks(MaskingSettings(), tokenizer, 0)
    epochs = [epoch_masks(table, masks, epoch, 500) for epoch in range(2)]
    chosen = np.array([[[position in found[row] for position in range(1, 41)] for row in range(2000)] for found in epochs])
    pairs = 2000 * 40
    assert within((chosen[0] & chosen[1]).sum(), pairs, 0.15**2)
    assert within((chosen[0] & np.roll(chosen[0], 1, 0)).sum(), pairs, 0.15**2)
    assert within((chosen[0] & np.roll(chosen[1], 1, 0)).sum(), pairs, 0.15**2)
    twice = [(row, int(position) + 1) for row, position in np.argwhere(chosen.all(0))]
    first, second = ([float(found[row][position][1] == MASK) for row, position in twice] for found in epochs)
    assert abs(np.corrcoef(first, second)[0, 1]) < 5 / math.sqrt(len(first))


def test_a_call_takes_a_millisecond_or_two(tokenizer):
    table = table_of(random_rows(64, 126, 126))
    ((rows, batch),) = evaluation_batches(table, None, 64, (128,))
    for settings in ({}, {"whole_words": True}, {"budget": "batch"}):
        masks = DynamicMasks(MaskingSettings(**settings), tokenizer, 0)
        start = time.process_time()  # not wall time: the machine may be busy
        for epoch in range(20):
            masks(batch, rows, epoch)
        assert (time.process_time() - start) / 20 < 4e-3
