"""Masked language model examples in numbers: how much is masked, by what, where, and that no text is lost or torn."""

from __future__ import annotations

import random

import numpy as np
import pytest

from crossdistil.core.data.mlm.drawn_masks import choose_words
from crossdistil.core.data.mlm.records import Examples
from crossdistil.core.data.mlm.segments import cut_sentences, pack_pairs, pack_single
from crossdistil.core.data.mlm.settings import Settings
from crossdistil.core.data.mlm.vocabulary import Vocabulary
from crossdistil.core.data.records.tfrecord import framed, make_example, parse_example
from crossdistil.core.errors import DataError
from crossdistil.tests.mlm_cases import make, originals, read, write_corpus, write_vocabulary

LENGTH, MOST = 64, 10


@pytest.fixture(scope="module", params=[("none", True), ("pieces", True), ("pieces", False)], ids=str)
def made(request, tmp_path_factory):
    """(vocabulary, whole words, next sentence, records) of a corpus in ten passes."""
    folder = tmp_path_factory.mktemp("mlm")
    vocabulary = write_vocabulary(folder / "vocabulary")
    words, following = request.param
    make(
        folder / "out", write_corpus(folder / "text", 120), vocabulary, max_seq_length=LENGTH, max_predictions_per_seq=MOST,
        whole_words=words, next_sentence=following,
    )  # fmt: skip
    return Vocabulary(vocabulary), words, following, read(folder / "out")


def test_shapes_and_padding(made):
    vocabulary, _, following, records = made
    count = len(records["input_ids"])
    shapes = {name: values.shape for name, values in records.items()}
    assert shapes == {
        "input_ids": (count, LENGTH), "input_mask": (count, LENGTH), "segment_ids": (count, LENGTH),
        "masked_lm_positions": (count, MOST), "masked_lm_ids": (count, MOST), "masked_lm_weights": (count, MOST),
        "next_sentence_labels": (count, 1),
    }  # fmt: skip
    lengths = records["input_mask"].sum(1)
    places = np.arange(LENGTH)
    ids = originals(records)
    np.testing.assert_array_equal(records["input_mask"], places < lengths[:, None])
    assert (records["input_ids"][places >= lengths[:, None]] == 0).all()
    assert (ids[:, 0] == vocabulary.cls_id).all()
    assert ((ids == vocabulary.sep_id).sum(1) == 1 + following).all()
    ends = np.argmax(ids == vocabulary.sep_id, 1)
    second = (places > ends[:, None]) & (places < lengths[:, None])
    np.testing.assert_array_equal(records["segment_ids"], second)
    assert (ids[np.arange(count), lengths - 1] == vocabulary.sep_id).all()
    assert lengths.max() == LENGTH and second.any() == following


def test_the_budget_is_kept_and_used(made):
    _, words, _, records = made
    lengths, masked = records["input_mask"].sum(1), (records["masked_lm_weights"] > 0).sum(1)
    budget = np.array([min(MOST, max(1, round(length * 0.15))) for length in lengths.tolist()])
    assert (masked <= budget).all()
    if words == "none":
        np.testing.assert_array_equal(masked, budget)
    else:
        assert masked.sum() > 0.98 * budget.sum()
    np.testing.assert_array_equal(records["masked_lm_weights"], np.arange(MOST) < masked[:, None])
    for row, count in zip(records["masked_lm_positions"], masked):
        assert (np.diff(row[:count]) > 0).all() and (row[count:] == 0).all()


def test_what_replaces_a_piece(made):
    vocabulary, _, _, records = made
    rows, places = np.nonzero(records["masked_lm_weights"])
    now = records["input_ids"][rows, records["masked_lm_positions"][rows, places]]
    before = records["masked_lm_ids"][rows, places]
    assert not vocabulary.special[before].any()  # [UNK] neither
    allowed = vocabulary.random_pieces(chinese=False)
    # A random piece may by chance be the one that was there.
    same = 0.1 + 0.1 / len(allowed)
    count = len(rows)
    for share, expected in {(now == vocabulary.mask_id).mean(): 0.8, (now == before).mean(): same}.items():
        assert abs(share - expected) < 5 * (expected * (1 - expected) / count) ** 0.5
    changed = now[(now != vocabulary.mask_id) & (now != before)]
    assert np.isin(changed, allowed).all()
    assert not vocabulary.special[allowed].any() and len(allowed) == (~vocabulary.special).sum()
    seen = np.bincount(changed, minlength=len(vocabulary.tokens))[allowed]
    assert seen.min() > 0 and seen.max() < 3 * seen.mean() + 10


def test_words_are_masked_whole(made):
    vocabulary, words, _, records = made
    if words == "none":
        return
    ids = originals(records)
    flags = np.zeros_like(ids, bool)
    rows, places = np.nonzero(records["masked_lm_weights"])
    flags[rows, records["masked_lm_positions"][rows, places]] = True
    continued = vocabulary.continues[ids[:, 1:]]
    # A piece that goes on with a word is masked if and only if the one before it is; one behind [CLS] or [SEP] begins anew.
    torn = continued & (flags[:, 1:] != flags[:, :-1]) & ~vocabulary.special[ids[:, :-1]]
    assert continued.any() and not torn.any()


def test_every_place_is_masked_as_often(made):
    _, words, _, records = made
    if words != "none":
        return
    full = records["input_mask"].sum(1) == LENGTH
    full &= records["segment_ids"].sum(1) == np.bincount(records["segment_ids"][full].sum(1)).argmax()  # one place of [SEP]
    rows = np.nonzero(full)[0]
    counts = np.bincount(records["masked_lm_positions"][rows][records["masked_lm_weights"][rows] > 0], minlength=LENGTH)
    middle = LENGTH - 1 - records["segment_ids"][rows[0]].sum()
    body = np.delete(counts, [0, middle, LENGTH - 1])
    assert counts[0] == counts[middle] == counts[-1] == 0
    assert (np.abs(body - body.mean()) < 5 * body.mean() ** 0.5 + 1).all()


def test_single_texts_hold_the_whole_corpus_in_each_pass(tmp_path):
    vocabulary = write_vocabulary(tmp_path / "vocabulary")
    text = write_corpus(tmp_path / "text", 30)
    make(tmp_path / "out", text, vocabulary, max_seq_length=16, dupe_factor=2, next_sentence=False, whole_words="pieces")
    found = Vocabulary(vocabulary)
    expected = found.tokenizer.encode_pieces(text.read_text().split("\n"))[0]
    ids = originals(read(tmp_path / "out"))
    body = ids[~np.isin(ids, [0, found.cls_id, found.sep_id])]
    np.testing.assert_array_equal(np.bincount(body), 2 * np.bincount(expected))


# ---------------------------------------------------------------------------------------------- the parts

def test_long_sentences_are_cut_between_words():
    # Two documents of sentences of 3, 40 and 0, and of 5 pieces; words begin at every third piece.
    begins = np.arange(48) % 3 == 0
    ends, documents = cut_sentences(np.array([3, 40, 0, 5]), np.array([3, 1]), begins, 16)
    assert documents.tolist() == [0, 5, 6] and ends[[0, 1, -2, -1]].tolist() == [0, 3, 43, 48]
    assert np.diff(ends).max() <= 16 and begins[ends[1:5]].all()
    empty = cut_sentences(np.array([0]), np.array([1]), np.zeros(0, bool), 8)
    assert empty[0].tolist() == [0] and empty[1].tolist() == [0]


def test_sentences_are_packed_as_many_as_fit():
    ends, documents = [0, 3, 6, 10, 12, 17, 18], [0, 4, 6]
    found = pack_single(ends, documents, 8, 0.0, random.Random(0))
    assert found.a.tolist() == [[0, 6], [6, 12], [12, 18]] and found.b is None
    lengths = np.diff(pack_single(list(range(0, 4001, 2)), [0, 2000], 20, 0.5, random.Random(0)).a)
    assert 0.4 < (lengths < 20).mean() < 0.55 and lengths.min() == 2


def test_pairs_are_the_next_sentence_or_another_document_s():
    lengths = np.random.default_rng(0).integers(1, 9, 4000)
    ends = [0, *np.cumsum(lengths).tolist()]
    documents = list(range(0, 4001, 40))
    found = pack_pairs(ends, documents, 30, 0.1, random.Random(0))
    document = np.repeat(np.arange(100), lengths.reshape(100, 40).sum(1))
    (a, a_end), (b, b_end) = found.a.T, found.b.T
    is_random = found.random_next == 1
    assert ((a_end > a) & (b_end > b) & (a_end - a + b_end - b <= 30)).all()
    assert (document[a] == document[a_end - 1]).all() and (document[b] == document[b_end - 1]).all()
    assert (document[a] != document[b])[is_random].all() and 0.5 < is_random.mean() < 0.6
    np.testing.assert_array_equal(a_end[~is_random], b[~is_random])
    covered = np.zeros(ends[-1], bool)
    for start, end in [*found.a.tolist(), *found.b[~is_random].tolist()]:
        covered[start:end] = True
    assert covered.mean() > 0.97  # what a random pair cut off


def test_a_block_of_one_document_is_its_own_other():
    found = pack_pairs([0, 5, 9, 12], [0, 3], 10, 0.0, random.Random(1))
    assert found.random_next[-1] == 1 and found.b.max() <= 12


@pytest.mark.parametrize("seed", range(20))
def test_words_are_chosen_as_a_loop_would(seed):
    """With a generator whose draws are known, the vectorised choice is Fisher and Yates' shuffle, taken greedily."""
    generator = np.random.default_rng(seed)
    sizes = [generator.integers(1, 4, generator.integers(1, 9)) for _ in range(6)]
    budget = generator.integers(1, 7, 6)
    rows = np.repeat(np.arange(6), [row.sum() for row in sizes])
    word = np.repeat(np.arange(sum(map(len, sizes))), np.concatenate(sizes))

    class Last:
        """Always the last that is left: the order is 0's place taken by the last, and so on."""

        def random(self, size):
            return np.full(size, 1 - 1e-9)

    barred = generator.random(len(word)) < (0.2 if seed % 2 else 0)
    chosen = choose_words(word, rows, budget, Last(), barred)
    unknown = np.split(np.isin(np.arange(word[-1] + 1), word[barred]), np.cumsum([len(row) for row in sizes])[:-1])
    expected = []
    for row, left, never in zip(sizes, budget, unknown):
        order, taken = list(range(len(row))), set()
        for step in range(len(row)):
            order[step], order[-1] = order[-1], order[step]
            if left > 0 and row[order[step]] <= left and not never[order[step]]:
                taken.add(order[step])
                left -= row[order[step]]
        expected += [place in taken for place in range(len(row))]
    assert chosen.tolist() == expected


def test_records_are_those_of_the_general_writer():
    rows = [([3, 130, 20000, 4, 2_000_000, 4], 4, [1, 2], [5, 300], 1), ([3, 7, 4], 3, [], [], 0)]
    ((data, ends),) = Examples.from_rows(rows, 8, 3, 0).encode()
    expected = make_example({
        "input_ids": [3, 130, 20000, 4, 2_000_000, 4, 0, 0],
        "input_mask": [1, 1, 1, 1, 1, 1, 0, 0], "segment_ids": [0, 0, 0, 0, 1, 1, 0, 0],
        "masked_lm_positions": [1, 2, 0], "masked_lm_ids": [5, 300, 0], "masked_lm_weights": [1.0, 1.0, 0.0],
        "next_sentence_labels": [1],
    })  # fmt: skip
    assert data[: ends[0]] == framed(expected)
    assert parse_example(data[ends[0] + 12 : -4])["masked_lm_weights"].tolist() == [0.0] * 3 and ends[1] == len(data)


@pytest.mark.parametrize(
    "wrong", [{"max_seq_length": 7}, {"masked_lm_prob": 0}, {"short_seq_prob": 1.1}, {"dupe_factor": 0}, {"whole_words": "some"}]
)
def test_wrong_settings(wrong):
    with pytest.raises(DataError, match=f"{next(iter(wrong))} .*expected"):
        Settings(**wrong).check()
