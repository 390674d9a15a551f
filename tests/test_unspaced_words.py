"""Characters that are labelled one by one, of columns and of plain texts, by vocabularies whose pieces hold several."""

import json
import unicodedata

import numpy as np
import pytest
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors

from crossdistil.core.data.tagged_files import word_places
from crossdistil.core.data.tagged_tokens import tagged_table
from crossdistil.core.data.tokenize import load_tokenizer
from crossdistil.core.data.unspaced_words import without_spaces
from crossdistil.tests import tiny_tokenizers

pytestmark = pytest.mark.only_backend("torch")
SENTENCES = ["中国的菜很好吃，送餐也快。", "味道不错，量足，就是有点慢。", "服务态度好，下次再来！", "好吃"]


def in_columns(text: str) -> str:
    return " ".join(text)


def same(one: str, other: str) -> bool:
    """Whether two texts differ in spaces and forms of width only."""
    return unicodedata.normalize("NFKC", one).replace(" ", "") == unicodedata.normalize("NFKC", other).replace(" ", "")


def rows(texts, by_spaces, tokenizer):
    table = tagged_table(texts, by_spaces, None, tokenizer, 64, None, False)
    return [(table.ids[a:b].tolist(), table.words[a:b].tolist()) for a, b in zip(table.offsets, table.offsets[1:])]


def unigram_of_several(folder):
    """Unigram whose pieces are characters, any two of them that stand together, and the first word of a text."""
    characters, both = sorted(set("".join(SENTENCES))), {text[at : at + 2] for text in SENTENCES for at in range(len(text) - 1)}
    pieces = [("<unk>", 0.0), ("<s>", 0.0), ("</s>", 0.0), ("<pad>", 0.0), ("\u2581", -8.0), ("\u2581" + SENTENCES[0][:2], -3.0)]
    pieces += [(each, -9.0) for each in characters[1:]] + [(each, -5.0) for each in sorted(both)]  # one has no piece of its own
    library = Tokenizer(models.Unigram(pieces, unk_id=0))
    library.pre_tokenizer, library.decoder = pre_tokenizers.Metaspace(), decoders.Metaspace()
    ends = [("<s>", 1), ("</s>", 2)]
    library.post_processor = processors.TemplateProcessing(single="<s> $A </s>", pair="<s> $A </s> $B </s>", special_tokens=ends)
    folder.mkdir()
    library.save(str(folder / "tokenizer.json"))
    names = {"cls_token": "<s>", "sep_token": "</s>", "pad_token": "<pad>", "unk_token": "<unk>"}
    (folder / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": "PreTrainedTokenizerFast", **names}))
    return folder


@pytest.mark.parametrize("kind", ["several", "unigram", "byte_level", "bpe", "mpnet"])
def test_each_character_has_a_token_and_columns_read_as_texts_do(tmp_path, kind):
    made = unigram_of_several(tmp_path / kind) if kind == "several" else tiny_tokenizers.write_tokenizer(tmp_path / kind, kind)
    tokenizer = load_tokenizer(made)
    plain = rows(SENTENCES, False, tokenizer)
    total = 0
    for text, (ids, words) in zip(SENTENCES, plain):
        begun = [word for word in words if word >= 0]
        assert begun == list(range(total, total + len(text)))
        if kind not in ("several", "bpe"):  # which do not know all characters
            assert same(tokenizer.library.decode(ids), text)
        total += len(text)
    assert rows([in_columns(text) for text in SENTENCES], True, tokenizer) == plain
    if kind == "several":
        whole = tokenizer.library.encode(SENTENCES[0], add_special_tokens=False).offsets
        assert max(end - start for start, end in whole) == 2 and len(plain[0][0]) - 2 >= len(SENTENCES[0])


def test_what_is_written_with_spaces_stays(tmp_path):
    tokenizer = load_tokenizer(tiny_tokenizers.write_tokenizer(tmp_path / "unigram", "unigram"))
    for text in (*tiny_tokenizers.LINES[:2], tiny_tokenizers.LINES[4]):
        encoding = tokenizer.library.encode(text, add_special_tokens=False)
        (ids, _), = rows([text], False, tokenizer)
        assert ids[1:-1] == encoding.ids
        spaced = " ".join(text.split())
        assert without_spaces(spaced, word_places(spaced, True))[0] == spaced


def test_places_after_spaces_are_left_out():
    text = " 他 在 Oslo 2 号 。 OK ， 好"
    places = word_places(text, True)
    joined, found = without_spaces(text, places)
    assert joined == " 他在 Oslo 2 号。 OK ，好"
    assert [joined[a:b] for a, b in found] == [text[a:b] for a, b in places] == text.split()


def test_a_chinese_wordpiece_reads_columns_as_before(tmp_path):
    """It makes a piece of each character anyway, as transformers' BERT does of words that were split."""
    from transformers import BertTokenizerFast

    names = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *sorted(set("".join(SENTENCES))), "os", "##lo"]
    (tmp_path / "vocab.txt").write_text("\n".join(names), encoding="utf-8")
    (tmp_path / "tokenizer_config.json").write_text('{"do_lower_case": true, "tokenizer_class": "BertTokenizer"}')
    tokenizer = load_tokenizer(tmp_path)
    texts = [*map(in_columns, SENTENCES), "服 务 oslo 好"]
    theirs = BertTokenizerFast.from_pretrained(tmp_path)([text.split() for text in texts], is_split_into_words=True)
    found = rows(texts, True, tokenizer)
    assert [ids for ids, _ in found] == theirs["input_ids"]
    for row, (_, words) in enumerate(found):
        own = theirs.word_ids(row)
        first = [place for place, word in enumerate(own) if word is not None and own[place - 1] != word]
        assert np.flatnonzero(np.array(words) >= 0).tolist() == first
