"""Whole words of Chinese: jieba's words over the pieces by place, labels that are characters, and words that do not align."""

from __future__ import annotations

import numpy as np
import pytest

from crossdistil.core.data.mlm.vocabulary import Vocabulary
from crossdistil.core.data.mlm.words import Encoder, jieba_segmenter
from crossdistil.tests.mlm_cases import CHINESE, make, originals, read, write_vocabulary


@pytest.fixture(scope="module")
def vocabulary(tmp_path_factory):
    return Vocabulary(write_vocabulary(tmp_path_factory.mktemp("vocabulary"), CHINESE))


def words(vocabulary, text, lengths=None):
    """The words of a text, pieces with `|` between them; of a segmenter that gives words of `lengths`, or of jieba."""
    encoder = Encoder(vocabulary, "chinese", None if lengths is None else lambda _: lengths)
    ids, begins, counts = encoder.encode([text])
    assert len(ids) == len(begins) == counts.sum()
    pieces = [vocabulary.tokens[number] for number in ids]
    return "".join(("|" if begin else " ") + piece for piece, begin in zip(pieces, begins))[1:]


def test_words_lie_over_pieces(vocabulary):
    assert words(vocabulary, "使用语言模型", [2, 2, 2]) == "使 用|语 言|模 型"
    assert words(vocabulary, "我 们", [1, 1, 1]) == "我|们"
    assert words(vocabulary, "卡拉ok的", [4, 1]) == "卡 拉 ok|的"  # Chinese and Latin in one word
    assert words(vocabulary, "t恤的", [2, 1]) == "t [UNK]|的"  # a character that the vocabulary lacks
    # Words without a Chinese character are the pieces' business, whatever the segmenter thinks.
    assert words(vocabulary, "ab,ok 我们", [5, 1, 2]) == "a ##b|,|ok|我 们"


def test_where_words_do_not_align_characters_are_left(vocabulary):
    assert words(vocabulary, "我们ab的", [3, 2]) == "我|们|a ##b|的"  # "ab" lies in two words
    assert words(vocabulary, "我们ab的一个", [3, 2, 2]) == "我|们|a ##b|的|一 个"
    assert words(vocabulary, "我们的", [2]) == "我|们|的"  # something was dropped
    assert words(vocabulary, "我们\u200b的", [2, 2]) == "我 们|的"  # what the tokenizer drops, the segmenter keeps


def test_texts_are_apart(vocabulary):
    encoder = Encoder(vocabulary, "chinese", lambda text: [len(text)])
    ids, begins, counts = encoder.encode(["我们", "", "ab", "的一个"])
    assert counts.tolist() == [2, 0, 2, 3] and begins.tolist() == [True, False, True, False, True, False, False]
    assert encoder.encode([""])[0].shape == (0,)


def test_jieba(vocabulary):
    assert jieba_segmenter()("我们使用语言模型。") == [2, 2, 2, 2, 1]
    assert words(vocabulary, "我们使用语言模型。") == "我 们|使 用|语 言|模 型|。"


@pytest.fixture(scope="module")
def made(tmp_path_factory, vocabulary):
    folder = tmp_path_factory.mktemp("chinese")
    generator = np.random.default_rng(0)
    some = ["我们使用语言模型预测一个词。", "在北京大学的文件中，", "中国人民卡拉ok！", "一个bad模型的词。", "我们在中国，"]
    lines = ["".join(generator.choice(some, 4)) if number % 9 else "" for number in range(900)]
    (folder / "text").write_text("\n".join(lines), encoding="utf-8")
    make(folder / "out", folder / "text", vocabulary.path, max_seq_length=40, whole_words="chinese", dupe_factor=3)
    return read(folder / "out")


def test_labels_are_characters_and_random_pieces_too(made, vocabulary):
    weights = made["masked_lm_weights"] > 0
    chinese = np.array([token.startswith("##") and not token.isascii() for token in vocabulary.tokens])
    assert not chinese[made["masked_lm_ids"][weights]].any() and not chinese[made["input_ids"]].any()
    rows, places = np.nonzero(weights)
    now = made["input_ids"][rows, made["masked_lm_positions"][rows, places]]
    changed = now[(now != vocabulary.mask_id) & (now != made["masked_lm_ids"][rows, places])]
    assert len(changed) > 100 and not vocabulary.continues[changed].any() and not vocabulary.special[changed].any()


def test_words_are_masked_whole(made, vocabulary):
    """"我们" is a word in every sentence of the corpus, and 们 has no other place in it."""
    ids = originals(made)
    flags = np.zeros_like(ids, bool)
    rows, places = np.nonzero(made["masked_lm_weights"])
    flags[rows, made["masked_lm_positions"][rows, places]] = True
    first, second = (vocabulary.tokens.index(one) for one in "我们")
    pairs = (ids[:, :-1] == first) & (ids[:, 1:] == second)
    assert pairs.sum() > 300 and flags[:, 1:][pairs].any()
    np.testing.assert_array_equal(flags[:, :-1][pairs], flags[:, 1:][pairs])
