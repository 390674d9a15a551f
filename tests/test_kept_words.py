"""`student.init.vocabulary: trimmed`: the words of the task's texts alone, and the same numbers as with all words."""

from __future__ import annotations

import json

import numpy as np
import pytest

from crossdistil.core import kept_words
from crossdistil.core.checkpoint import Model, load_model
from crossdistil.core.checkpoint_saving import save_model
from crossdistil.core.data.tokenize import load_tokenizer
from crossdistil.core.errors import CrossdistilError
from crossdistil.core.job import prepare
from crossdistil.core.models.architectures import make_forward, tensor_shapes
from crossdistil.core.models.families.bert import BertConfig
from crossdistil.core.models.families.roberta import RobertaConfig
from crossdistil.core.recipe import parse_recipe
from crossdistil.core.reference import ReferenceOps
from crossdistil.tests import tiny
from crossdistil.tests.tiny_tokenizers import LINES, write_tokenizer

SIZES = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32}
TERMS = [{"loss": "kd_ce"}, {"loss": "hidden_mse", "layers": [[0, 0], [2, 1]]}, {"loss": "attention_mse", "layers": [[2, 1]]}]


def written(folder, kind):
    """A classifier with a tokenizer of this kind."""
    tokenizer = load_tokenizer(write_tokenizer(folder / "tokenizer", kind))
    chosen = RobertaConfig if kind == "byte_level" else BertConfig
    config = chosen(vocab_size=tokenizer.vocab_size + 3, pad_token_id=tokenizer.pad_id, max_position_embeddings=64, **SIZES)
    parameters = {name: config.new_tensor(name, shape, 3) * 9 for name, shape in tensor_shapes(config, 2).items()}
    save_model(Model(config, parameters, 2, ("0", "1")), folder / "model", tokenizer)
    return folder / "model"


def few_words(folder):
    """A task whose texts have few words of any vocabulary."""
    folder.mkdir(parents=True, exist_ok=True)
    for split, texts in (("train", [LINES[1], "a story of love", LINES[3]]), ("dev", ["love it again", "a story"])):
        rows = "".join(f"{text}\t{index % 2}\n" for index, text in enumerate(texts * 4))
        (folder / f"{split}.tsv").write_text(f"sentence\tlabel\n{rows}", encoding="utf-8")
    return folder


def tree(task, model, vocabulary="trimmed", terms=TERMS, init=("teacher", [0]), **more):
    source, layers = init
    start = {"from": str(source), "vocabulary": vocabulary} | ({"layers": layers} if layers else {})
    return {
        "method": "x",
        "task": {"name": "sst-2", "data": str(task), "max_length": 24},
        "teacher": {"model": str(model)},
        "student": {"architecture": {"num_hidden_layers": 1}, "init": start},
        "stages": [{"name": "a", "objective": terms, "train": {"steps": 3, "batch_size": 8, "log_every": 1, "dropout": 0.0}}],
        **more,
    }


def job_of(*given, **more):
    return prepare(parse_recipe(tree(*given, **more), "recipe"), "recipe", 8)


@pytest.mark.parametrize("kind", ["unigram", "byte_level", "mpnet"])
def test_teacher_and_student_compute_the_same_from_fewer_rows(kind, tmp_path):
    model, task = written(tmp_path, kind), few_words(tmp_path / "task")
    whole, kept = (job_of(task, model, vocabulary) for vocabulary in ("whole", "trimmed"))
    assert kept.student.config.vocab_size == kept.data.tokenizer.vocab_size < whole.data.tokenizer.vocab_size
    assert kept.teacher_data["teacher"] is kept.data and "words stay, those of the task's texts" in kept.notes[-1]
    assert kept.teachers["teacher"].parameter_count == whole.teachers["teacher"].parameter_count
    assert kept.student.parameter_count < whole.student.parameter_count
    assert kept.student.config.first_position == whole.student.config.first_position
    batches = [next(iter(job.stage(0).batches.epoch(0)))[0] for job in (whole, kept)]
    wanted = frozenset({"logits", "hidden/0", "scores/1"})
    for sides in ((whole.student, kept.student), (whole.teachers["teacher"], kept.teachers["teacher"])):
        pairs = zip(sides, batches)
        forwards = [(make_forward(each.config.without_dropout(), wanted), each.parameters, batch) for each, batch in pairs]
        before, after = (forward(ReferenceOps(), parameters, batch) for forward, parameters, batch in forwards)
        for name in wanted:
            np.testing.assert_array_equal(before[name], after[name])


def test_without_a_teacher_or_with_new_weights(tmp_path):
    model, task = written(tmp_path, "unigram"), few_words(tmp_path / "task")
    own = tree(task, model, init=(model, [1]), terms=[{"loss": "hard_label"}])
    del own["teacher"]
    tuned = prepare(parse_recipe(own, "recipe"), "recipe", 8)
    drawn = job_of(task, model, init=("random", None))
    assert tuned.student.config.vocab_size == drawn.student.config.vocab_size == drawn.data.tokenizer.vocab_size
    assert not [name for name in tuned.student.new if "embeddings" in name] and len(drawn.student.new) > 20


def test_a_recipe_without_the_key_has_the_digest_that_it_had(tmp_path):
    said, silent = (tree(tmp_path, tmp_path, "whole") for _ in range(2))
    del silent["student"]["init"]["vocabulary"]
    trimmed = parse_recipe(tree(tmp_path, tmp_path), "r").digest()
    assert parse_recipe(said, "r").digest() == parse_recipe(silent, "r").digest() != trimmed


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"student": {"architecture": {"vocab_size": 70}, "init": {"from": "random", "vocabulary": "trimmed"}}}, "decide it"),
        ({"student": {"architecture": {"model_type": "bilstm"}, "init": {"vocabulary": "trimmed"}}}, "has words of its own"),
        ({"student": {"init": {"vocabulary": "some"}}}, "student.init.vocabulary: unknown value .some.; known: whole, trimmed"),
    ],
)
def test_what_does_not_fit_is_refused(change, message, tmp_path):
    model, task = written(tmp_path, "unigram"), few_words(tmp_path / "task")
    with pytest.raises(CrossdistilError, match=message):
        prepare(parse_recipe(tree(task, model, terms=[{"loss": "kd_ce"}]) | change, "recipe"), "recipe", 8)


def test_words_are_not_predicted_from_fewer(tmp_path):
    tiny.write_model(tmp_path / "model")
    (tmp_path / "text.txt").write_text("the film was good\n" * 9)
    task = {"name": "t", "kind": "mlm", "data": str(tmp_path / "text.txt"), "max_length": 16}
    own = tree(tmp_path, tmp_path / "model", terms=[{"loss": "masked_lm"}]) | {"task": task}
    del own["teacher"]
    own["student"]["init"]["from"] = str(tmp_path / "model")
    with pytest.raises(CrossdistilError, match=r"trimmed, but stages\[0\].objective\[0\] \(masked_lm\) predicts words"):
        prepare(parse_recipe(own, "recipe"), "recipe", 8)


def test_texts_that_would_be_cut_otherwise_are_told(tmp_path, monkeypatch):
    model, task = written(tmp_path, "unigram"), few_words(tmp_path / "task")
    right = kept_words.kept_tokens

    def too_few(tokenizer, used):
        rows, piece = right(tokenizer, used), tokenizer.library.encode("story", add_special_tokens=False).ids[-1]
        return rows[rows != piece]

    monkeypatch.setattr(kept_words, "kept_tokens", too_few)
    with pytest.raises(CrossdistilError, match=r"train.tsv: text [12]: is cut into other pieces without the words"):
        job_of(task, model)


# The table has fewer rows, which a backend does not know: one that compiles for seconds says nothing more.
@pytest.mark.only_backend("torch", "oneflow")
def test_a_run_learns_the_same(backend_name, said, tmp_path):
    """And its student, in a folder that others read, answers the same."""
    model, task = written(tmp_path, "unigram"), few_words(tmp_path / "task")
    lines = {}
    for vocabulary in ("whole", "trimmed"):
        (tmp_path / "r.yaml").write_text(json.dumps(tree(task, model, vocabulary)))
        code, printed, errors = said("run", tmp_path / "r.yaml", "--out", tmp_path / vocabulary, "--backend", backend_name)
        assert code == 0, errors
        read = (tmp_path / vocabulary / "metrics.jsonl").read_text().splitlines()
        lines[vocabulary] = [found["loss"] for found in map(json.loads, read) if "loss" in found]
    assert "words stay" in printed and len(lines["whole"]) >= 3
    np.testing.assert_allclose(lines["trimmed"], lines["whole"], rtol=1e-6)
    folders = [tmp_path / vocabulary / "student" for vocabulary in lines]
    whole, trimmed = map(load_tokenizer, folders)
    tokens = trimmed.library.get_vocab(with_added_tokens=True)
    rows = [whole.library.token_to_id(token) for token in sorted(tokens, key=tokens.get)]
    before, after = map(load_model, folders)
    for name, array in before.parameters.items():
        other = after.parameters[name]
        np.testing.assert_allclose(other, array if array.shape == other.shape else array[rows], rtol=1e-5, atol=1e-6)
    found = [json.loads((folder.parent / "result.json").read_text()) for folder in folders]
    assert found[0]["teacher"] == found[1]["teacher"]
    assert found[0]["student"]["metrics"] == pytest.approx(found[1]["student"]["metrics"])
