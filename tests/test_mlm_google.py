"""Google's create_pretraining_data, draw by draw: against draws written down by hand, and against a second derivation."""

from __future__ import annotations

import itertools
import random
import unicodedata

import numpy as np
import pytest

from crossdistil.core.data.mlm import google
from crossdistil.core.data.mlm.documents import Corpus
from crossdistil.core.data.mlm.google import GoogleExamples, create_google, read_documents
from crossdistil.core.data.mlm.google_tokenizer import GoogleTokenizer
from crossdistil.core.data.mlm.settings import Settings
from crossdistil.core.data.mlm.vocabulary import Vocabulary
from crossdistil.core.errors import DataError
from crossdistil.tests.mlm_cases import ENGLISH, originals, read, write_corpus, write_vocabulary


@pytest.fixture(scope="module")
def vocabulary(tmp_path_factory):
    return Vocabulary(write_vocabulary(tmp_path_factory.mktemp("vocabulary")))


def quiet(done, total):
    pass


# ---------------------------------------------------------------------------------------------- the tokenizer

TOKENS = ["[UNK]", "a", "##b", "ab", "##c", "e", "##e", "[", "]", "mask", ".", "中", "文", "E", "é", "`"]
TOKENS += ["x" * 10, "##" + "x" * 10]


def pieces(text, lower_case=True):
    return [TOKENS[number] for number in GoogleTokenizer(TOKENS, lower_case).encode(text)]


def test_texts_are_split_as_google_does():
    assert pieces("abb A.ab") == ["ab", "##b", "a", ".", "ab"]
    assert pieces("abd a") == ["[UNK]", "a"]  # all of the word
    assert pieces("[MASK]") == ["[", "mask", "]"]
    assert pieces("a中文b") == ["a", "中", "文", "[UNK]"]
    assert pieces("É e\u0301 E", lower_case=True) == ["e", "e", "e"]
    assert pieces("É é E e", lower_case=False) == ["[UNK]", "é", "E", "e"]
    assert pieces("a\u0000\ufffd\u200b\x07b\tab\u00a0a\u3000a\u2028a") == ["ab", "ab", "a", "a", "a"]
    assert pieces("\u1fef") == ["`"]  # which only its decomposition is
    assert pieces("\u0301") == pieces("") == []


def test_words_are_unknown_from_201_characters_on(vocabulary):
    assert pieces("x" * 200) == ["x" * 10] + ["##" + "x" * 10] * 19
    assert pieces("x" * 210) == ["[UNK]"]
    # The library's limit is another one.
    assert GoogleTokenizer(ENGLISH, True).encode("b" * 150) != vocabulary.tokenizer.encode_pieces(["b" * 150])[0].tolist()


def test_on_plain_text_it_agrees_with_the_library(vocabulary, tmp_path):
    tokenizer = GoogleTokenizer(vocabulary.tokens, True)
    lines = write_corpus(tmp_path / "text", 20).read_text().split("\n")
    lines += ["Ünïcode, “quoted” film!", "中文 and a film", "it 's (very) good...", unicodedata.normalize("NFD", "café")]
    for line in lines:
        assert tokenizer.encode(line) == vocabulary.tokenizer.encode_pieces([line])[0].tolist()


# ---------------------------------------------------------------------------------------------- by hand

class Tape:
    """Stands for `random.Random`: gives what was written down, and tells what was asked for instead."""

    def __init__(self, *draws):
        self.draws = list(draws)

    def _next(self, kind):
        asked, value = self.draws.pop(0)
        assert kind == asked
        return value

    def random(self):
        return self._next("random")

    def randint(self, low, high):
        return self._next(f"{low} to {high}")

    def shuffle(self, values):
        values[:] = [values[place] for place in self._next(f"shuffle {len(values)}")]


def test_an_example_by_hand(vocabulary, monkeypatch):
    """Two documents, L = 12 (9 pieces at most), whole words; each draw is followed on paper."""
    b, d, g = (vocabulary.tokens.index(letter) for letter in "bdg")
    more = vocabulary.tokens.index("##b")  # goes on with a word
    documents = [[[b] * 3, [d, more, more], [d] * 4], [[g] * 2]]
    tape = Tape(
        ("shuffle 2", [0, 1]),
        # Document 0: not short. Sentences of 3, 3 and 4 pieces come to 10, which is not below 9: all three.
        ("random", 0.5), ("1 to 2", 2),  # a is the first two, 6 pieces
        ("random", 0.7),  # b is the next one, 4 pieces: 10 are one too many
        ("random", 0.1),  # off the front of a, the longer one: b b d ##b ##b
        # [CLS] b b d ##b ##b [SEP] d d d d [SEP]: 12 tokens, 0.25 of which are 3. Words at 1, 2, 3-5, 7, 8, 9, 10.
        ("shuffle 7", [3, 2, 0, 1, 4, 5, 6]),
        # 7 becomes [MASK]. 3-5 would make four. 1 stays, 2 becomes number 5 of the vocabulary. That is all.
        ("random", 0.79), ("random", 0.8), ("random", 0.4), ("random", 0.9), ("random", 0.5),
        (f"0 to {len(vocabulary.tokens) - 1}", 5),
        # Document 1: short, of at most 2. Its sentence is alone, so that the next one is random: from the second sentence of
        # document 0, once it is another document.
        ("random", 0.05), ("2 to 9", 2), ("0 to 1", 1), ("0 to 1", 0), ("0 to 2", 1),
        # [CLS] g g [SEP] d ##b ##b [SEP]: 8 tokens make 2. Words at 1, 2, 4-6.
        ("shuffle 3", [2, 0, 1]), ("random", 0.0), ("random", 0.0),
        ("shuffle 2", [1, 0]),
    )  # fmt: skip
    monkeypatch.setattr(google.random, "Random", lambda seed: tape)
    settings = Settings(max_seq_length=12, max_predictions_per_seq=4, masked_lm_prob=0.25, dupe_factor=1, whole_words="pieces")
    examples = GoogleExamples(documents, vocabulary, settings).make(quiet)
    assert not tape.draws
    cls, sep, mask = vocabulary.cls_id, vocabulary.sep_id, vocabulary.mask_id
    assert [(list(e[0]), e[1], list(e[2]), list(e[3]), e[4]) for e in examples] == [
        ([cls, mask, mask, sep, d, more, more, sep], 4, [1, 2], [g, g], 1),
        ([cls, b, 5, d, more, more, sep, mask, d, d, d, sep], 7, [1, 2, 7], [b, b, d], 0),
    ]


# ---------------------------------------------------------------------------------------------- a second derivation

def derived(documents, tokens, length, most, share, short, passes, seed, whole):
    """The published algorithm on lists of words, one queue of sentences a document; examples as (tokens, segments, labels)."""
    draw = random.Random(seed)
    documents = list(documents)
    draw.shuffle(documents)
    found = []
    for _, here in itertools.product(range(passes), range(len(documents))):
        limit = draw.randint(2, length - 3) if draw.random() < short else length - 3
        queue = list(documents[here])
        while queue:
            total = list(itertools.accumulate(map(len, queue)))
            number = next((place + 1 for place, size in enumerate(total) if size >= limit), len(queue))
            front = 1 if number == 1 else draw.randint(1, number - 1)
            one = sum(queue[:front], [])
            if number == 1 or draw.random() < 0.5:
                tries = (draw.randint(0, len(documents) - 1) for _ in range(10))
                other = documents[next((each for each in tries if each != here), here)]
                start, two = draw.randint(0, len(other) - 1), []
                while start < len(other) and (not two or len(two) < limit - len(one)):
                    two, start = two + other[start], start + 1
                queue, following = queue[front:], False
            else:
                two, queue, following = sum(queue[front:number], []), queue[number:], True
            while len(one) + len(two) > length - 3:
                from_one, at_front = len(one) > len(two), draw.random() < 0.5
                cut = slice(1, None) if at_front else slice(None, -1)
                one, two = (one[cut], two) if from_one else (one, two[cut])
            text = ["[CLS]", *one, "[SEP]", *two, "[SEP]"]
            places = [place for place, token in enumerate(text) if token not in ("[CLS]", "[SEP]")]
            starts = [place for place in places if not (whole and text[place][:2] == "##") or place == places[0]]
            groups = [[place for place in places if start <= place < end] for start, end in zip(starts, [*starts[1:], len(text)])]
            draw.shuffle(groups)
            budget, masked, changed = min(most, max(1, int(round(len(text) * share)))), {}, list(text)
            for group in groups:
                if len(masked) < budget and len(masked) + len(group) <= budget:
                    for place in group:
                        masked[place] = text[place]
                        if draw.random() < 0.8:
                            changed[place] = "[MASK]"
                        elif not draw.random() < 0.5:
                            changed[place] = tokens[draw.randint(0, len(tokens) - 1)]
            found.append((changed, len(one) + 2, dict(sorted(masked.items())), int(not following)))
    draw.shuffle(found)
    return found


@pytest.mark.parametrize("seed", range(12))
def test_the_second_derivation_gives_the_same_examples(vocabulary, tmp_path, seed):
    corpus = Corpus([write_corpus(tmp_path / "text", 1 + seed, seed)])
    documents = read_documents(corpus, GoogleTokenizer(vocabulary.tokens, True), quiet)
    words = [[[vocabulary.tokens[number] for number in sentence] for sentence in document] for document in documents]
    whole = seed % 2 == 1
    settings = Settings(
        max_seq_length=20 + 10 * seed, max_predictions_per_seq=3 + seed, dupe_factor=3, short_seq_prob=0.3, seed=seed,
        whole_words="pieces" if whole else "none",
    )  # fmt: skip
    expected = derived(words, vocabulary.tokens, 20 + 10 * seed, 3 + seed, 0.15, 0.3, 3, seed, whole)
    examples = GoogleExamples(documents, vocabulary, settings).make(quiet)
    assert len(examples) == len(expected) > 0
    for (ids, first, positions, labels, is_random), (tokens, size, masked, label) in zip(examples, expected):
        assert [vocabulary.tokens[number] for number in ids] == tokens and (first, is_random) == (size, label)
        assert dict(zip(positions, (vocabulary.tokens[number] for number in labels))) == masked


def test_rounding_is_that_of_python_3():
    """30 tokens make 4.5 masked ones, 50 make 7.5: to 4 and 8."""
    from crossdistil.core.data.mlm.drawn_masks import Budget

    assert Budget(20, 0.15).of(np.array([3, 30, 50, 128, 512])).tolist() == [1, 4, 8, 19, 20]
    assert [round(length * 0.15) for length in (30, 50)] == [4, 8]


# ---------------------------------------------------------------------------------------------- files

def test_files_are_filled_in_turn(vocabulary, tmp_path):
    text = write_corpus(tmp_path / "text", 8)
    settings = Settings(max_seq_length=32, max_predictions_per_seq=5, dupe_factor=2)
    notes = [create_google(Corpus([text]), vocabulary, settings, tmp_path / str(files), files, quiet) for files in (1, 3)]
    one, three = read(tmp_path / "1"), read(tmp_path / "3")
    count = len(one["input_ids"])
    order = np.concatenate([np.arange(start, count, 3) for start in range(3)])
    for name, values in one.items():
        np.testing.assert_array_equal(values[order], three[name])
    assert notes[0]["counts"] == notes[1]["counts"] and notes[0]["counts"]["examples"] == count
    assert notes[1]["shards"] == [f"examples-0000{number}.tfrecord" for number in range(3)]
    assert (one["input_ids"] != originals(one)).any()
    with pytest.raises(DataError, match="--out .*is there already"):
        create_google(Corpus([text]), vocabulary, settings, tmp_path / "1", 1, quiet)


def test_what_google_s_algorithm_has_not(vocabulary, tmp_path):
    text = write_corpus(tmp_path / "text", 2)
    for wrong, message in ({"next_sentence": False}, "--no-next-sentence"), ({"whole_words": "chinese"}, "--whole-words chinese"):
        with pytest.raises(DataError, match=message):
            create_google(Corpus([text]), vocabulary, Settings(**wrong), tmp_path / "out", 1, quiet)
    (tmp_path / "empty").write_text("\n \n")
    with pytest.raises(DataError, match="empty: holds no text"):
        create_google(Corpus([tmp_path / "empty"]), vocabulary, Settings(), tmp_path / "out", 1, quiet)
