"""Whole words of Chinese: jieba's words over the pieces by place, labels that are characters, and words that do not align."""

from __future__ import annotations

import logging
import random

import jieba
import numpy as np
import pytest

from crossdistil.core.data.mlm.jieba_words import JiebaWords
from crossdistil.core.data.mlm.vocabulary import Vocabulary
from crossdistil.core.data.mlm.word_starts import Encoder
from crossdistil.tests.mlm_cases import CHINESE, make, originals, read, write_vocabulary


@pytest.fixture(scope="module")
def vocabulary(tmp_path_factory):
    return Vocabulary(write_vocabulary(tmp_path_factory.mktemp("vocabulary"), CHINESE))


def flags(lengths):
    """Whether a word begins at each character."""
    found = np.zeros(sum(lengths), bool)
    found[np.cumsum(lengths) - lengths] = True
    return found


def words(vocabulary, text, lengths=None):
    """The words of a text, pieces with `|` between them; of a segmenter that gives words of `lengths`, or of jieba."""
    encoder = Encoder(vocabulary, "chinese", None if lengths is None else lambda _: flags(lengths))
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
    assert words(vocabulary, "我们\u200b的", [2, 2]) == "我 们|的"  # what the tokenizer drops, the segmenter keeps


def test_texts_are_apart(vocabulary):
    def whole(codes):
        ends = codes == ord("\n")
        return ends | np.roll(ends | (np.arange(len(codes)) == len(codes) - 1), 1)

    encoder = Encoder(vocabulary, "chinese", whole)
    ids, begins, counts = encoder.encode(["我们", "", "ab", "的一个"])
    assert counts.tolist() == [2, 0, 2, 3] and begins.tolist() == [True, False, True, False, True, False, False]
    assert encoder.encode([""])[0].shape == (0,)


def test_jieba_s_words(vocabulary):
    assert words(vocabulary, "我们使用语言模型。") == "我 们|使 用|语 言|模 型|。"


def test_they_are_those_that_jieba_finds():
    """All with a Chinese character, of sentences, of names that only its model knows, and of characters in any order."""
    jieba.setLogLevel(logging.WARNING)
    draw = random.Random(0)
    some = ["中国人民大学", "他来到了网易杭研大厦", "卡拉OK", "T恤", "小明硕士毕业于中科院", "3.5%", " ", "，", "c++", "的", "𠀀"]
    lines = ["", "a", "中", "我们 在\u3400\u9fd6吗"]
    lines += ["".join(draw.choice(some) for _ in range(draw.randrange(12))) for _ in range(300)]
    for first, last in ((0x4E00, 0x9FD8), (0x4E00, 0x5000)):
        lines += ["".join(chr(draw.randint(first, last)) for _ in range(draw.randrange(40))) for _ in range(300)]
    codes = np.frombuffer("\n".join(lines).encode("utf-32-le"), np.uint32)
    begins = np.append(JiebaWords().begins(codes), True)
    start = found = 0
    for line in lines:
        place = start
        for word in jieba.cut(line):
            if any("\u4e00" <= character <= "\u9fd5" for character in word):
                assert begins[place : place + len(word) + 1].tolist() == [True] + [False] * (len(word) - 1) + [True], (line, word)
                found += 1
            place += len(word)
        start += len(line) + 1
    assert found > 10000


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
