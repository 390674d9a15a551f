"""Causal language models: which tokens are guessed, the objective against plain formulas (on PyTorch: transformers' own loss and
the loop of DistilBERT's scripts), runs to a student that transformers loads, and wrong input."""

from __future__ import annotations

import functools
import json
import math

import numpy as np
import pytest
from scipy.special import log_softmax

from crossdistil.core.app.finished_model import load_classifier, load_user_model
from crossdistil.core.checkpoint import load_model
from crossdistil.core.data.next_words import next_words, read_next_words
from crossdistil.core.data.tokenize import load_tokenizer
from crossdistil.core.errors import CrossdistilError
from crossdistil.core.job import prepare
from crossdistil.core.models.architectures import make_forward
from crossdistil.core.models.pretraining import make_pretraining
from crossdistil.core.recipe import parse_recipe
from crossdistil.core.reference import ReferenceOps
from crossdistil.tests import tiny
from crossdistil.tests.tiny_causal import CONFIG, write_causal_lm, write_tokenizer
from crossdistil.tests.tiny_masked_lm import write_masked_lm
from crossdistil.tests.word_runs import WEIGHTS, plain_losses, run, word_recipe, write_texts


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A causal language model, and texts of some words."""
    root = tmp_path_factory.mktemp("next")
    write_causal_lm(root / "teacher")
    write_texts(root, 60, 2, 5)
    return root


tree = functools.partial(word_recipe, "distilgpt2", "clm", "causal_lm", 24)
"""`tree(folder, **train)`: a recipe."""


def first_batch(job):
    stage = job.stage(0)
    (batch,) = stage.objective.prepare(next(stage.batches.epoch(0)))
    return stage, batch


def test_a_token_sees_those_before_it_alone():
    parameters, batch = tiny.random_parameters(CONFIG, seed=1), tiny.random_batch(rows=3, fill=0)
    last = f"hidden/{CONFIG.num_hidden_layers}"
    forward = make_forward(CONFIG.without_dropout(), frozenset({last, "hidden/1"}))
    changed = {**batch, "input_ids": batch["input_ids"].copy()}
    changed["input_ids"][:, 5:] += 1
    one, other = (forward(ReferenceOps(), parameters, given) for given in (batch, changed))
    for name in one:
        np.testing.assert_array_equal(one[name][:, :5], other[name][:, :5])
        assert (one[name][0, 5:] != other[name][0, 5:]).any(axis=-1).all()


def test_every_token_but_a_text_s_first_is_guessed():
    mask = np.array([[1, 1, 1, 0], [1, 0, 0, 0], [1, 1, 1, 1]], np.float32)
    ids = np.arange(12, dtype=np.int32).reshape(3, 4) * 10
    made = next_words({"input_ids": ids, "attention_mask": mask}, np.arange(3), 0)
    count = int(made["masked_weights"].sum())
    assert count == 5 and made["masked_weights"][:count].all() and len(made["masked_rows"]) == 16
    assert made["masked_rows"][:count].tolist() == [0, 1, 8, 9, 10]
    assert made["masked_labels"][:count].tolist() == [10, 20, 90, 100, 110]
    np.testing.assert_array_equal(made["input_ids"], ids)


def test_a_text_stands_between_the_ends_and_a_longer_one_is_cut(tmp_path):
    tokenizer = load_tokenizer(write_tokenizer(tmp_path / "tokenizer"))
    (tmp_path / "texts.txt").write_text("The film was playing, and nobody watched it\nGreat\n", encoding="utf-8")
    table = read_next_words(tmp_path / "texts.txt", tokenizer, 8, cache_folder=tmp_path / "cache").train
    (ids,) = (encoding.ids for encoding in [tokenizer.library.encode("The film was playing, and nobody watched it")])
    end = tokenizer.library.token_to_id("<|endoftext|>")
    assert table.ends == (end, end) and tokenizer.pad_id == end
    assert max(table.lengths) == 8
    rows = [table.ids[start:][: length - 2].tolist() for start, length in zip(table.offsets, table.lengths)]
    assert rows[: -(-len(ids) // 6)] == [ids[first : first + 6] for first in range(0, len(ids), 6)]


def test_the_objective_is_the_plain_formula(engine, folder):
    job = prepare(parse_recipe(tree(folder), "recipe"), "recipe", engine.length_step)
    stage, batch = first_batch(job)
    frozen = {f"teacher/{name}": array for name, array in job.teachers["teacher"].parameters.items()}
    values, gradients = engine.gradients(stage.objective.function, job.student.parameters, frozen, batch)
    expected = plain_losses(job, batch)
    np.testing.assert_allclose(values[1:], expected, rtol=1e-5)
    np.testing.assert_allclose(values[0], expected @ np.array(WEIGHTS), rtol=1e-5)
    generator, step, params = np.random.default_rng(0), 1e-4, job.student.parameters
    direction = {name: generator.normal(size=array.shape) for name, array in params.items()}
    moved = []
    for sign in (1, -1):
        job.student.parameters = {n: np.float64(a) + sign * step * direction[n] for n, a in params.items()}
        moved.append(plain_losses(job, batch) @ np.array(WEIGHTS))
    slope = sum(float((np.float64(gradients[name]) * direction[name]).sum()) for name in params)
    np.testing.assert_allclose(slope, (moved[0] - moved[1]) / (2 * step), rtol=1e-4)


@pytest.mark.only_backend("torch")
def test_loss_and_gradients_are_those_of_the_scripts_loop(engine, folder):
    """transformers' models and labels, and `distiller.py`'s step: `alpha_ce`, `alpha_clm`, `alpha_cos` and `alpha_mse`."""
    import torch
    import torch.nn.functional as F
    from transformers import GPT2Config, GPT2LMHeadModel

    job = prepare(parse_recipe(tree(folder), "recipe"), "recipe", engine.length_step)
    stage, batch = first_batch(job)

    def theirs(model):
        made = GPT2LMHeadModel(GPT2Config(**{**model.config.model_dump(), "tie_word_embeddings": True})).eval()
        tensors = {name: torch.from_numpy(np.array(array)) for name, array in model.parameters.items()}
        made.load_state_dict(tensors | {"lm_head.weight": tensors["transformer.wte.weight"]})
        return made

    student, teacher = theirs(job.student), theirs(job.teachers["teacher"])
    ids, real = torch.from_numpy(batch["input_ids"]).long(), torch.from_numpy(batch["attention_mask"]) > 0
    real &= torch.from_numpy(batch["example_mask"])[:, None] > 0
    labels = torch.where(real, ids, -100)
    own = student(input_ids=ids, labels=labels, output_hidden_states=True)
    with torch.no_grad():
        taught = teacher(input_ids=ids, output_hidden_states=True)
    s, t, temperature = own.logits[real], taught.logits[real], 2.0
    divergence = torch.nn.KLDivLoss(reduction="batchmean")(
        F.log_softmax(s / temperature, dim=-1), F.softmax(t / temperature, dim=-1)
    )
    states = [made.hidden_states[-1][real] for made in (own, taught)]
    cosine = torch.nn.CosineEmbeddingLoss(reduction="mean")(*states, torch.ones(len(states[0])))
    squares = torch.nn.MSELoss(reduction="sum")(s, t) / len(s)
    total = WEIGHTS[0] * divergence * temperature**2 + WEIGHTS[1] * own.loss + WEIGHTS[2] * cosine + WEIGHTS[3] * squares
    total.backward()

    frozen = {f"teacher/{name}": array for name, array in job.teachers["teacher"].parameters.items()}
    values, gradients = engine.gradients(stage.objective.function, job.student.parameters, frozen, batch)
    np.testing.assert_allclose(values[0], total.item(), rtol=1e-5)
    np.testing.assert_allclose(values[2], own.loss.item(), rtol=1e-5)
    for name, parameter in student.named_parameters():
        expected = parameter.grad.numpy()
        assert np.abs(gradients[name] - expected).max() <= 1e-4 * max(1.0, np.abs(expected).max()), name


def test_a_student_of_text(folder, tmp_path, backend_name):
    result = run(tree(folder, epochs=6, steps=None, keep="best", dropout=0.1), tmp_path / "run", backend_name)
    lines = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    losses = [line["loss"] for line in lines if "loss" in line]
    assert np.mean(losses[-5:]) < 0.9 * np.mean(losses[:5])
    metrics = result["student"]["metrics"]
    assert math.isclose(metrics["perplexity"], math.exp(metrics["clm_loss"]), rel_tol=1e-6)
    saved = json.loads((tmp_path / "run" / "student" / "config.json").read_text())
    assert saved["architectures"] == ["GPT2LMHeadModel"]

    # The score is that of the plain formula over the rows of dev.
    model, tokenizer = load_model(tmp_path / "run" / "student"), load_tokenizer(tmp_path / "run" / "student")
    forward, total, count = make_pretraining(model.config, frozenset({"clm"})), 0.0, 0
    end = tokenizer.ends[0]
    for line in (folder / "dev.txt").read_text().splitlines():
        ids = np.array([[end, *tokenizer.library.encode(line).ids[:22], end]])
        mask = np.ones(ids.shape)
        said = forward(ReferenceOps(), model.parameters, {"input_ids": ids, "attention_mask": mask})["clm"]
        total -= log_softmax(said, axis=-1)[0, np.arange(ids.shape[1] - 1), ids[0, 1:]].sum()
        count += ids.shape[1] - 1
    np.testing.assert_allclose(metrics["clm_loss"], total / count, rtol=1e-4)


@pytest.mark.only_backend("torch")
def test_transformers_loads_the_student_and_says_the_same(folder, tmp_path):
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    run(tree(folder), tmp_path / "run", "torch")
    theirs, report = AutoModelForCausalLM.from_pretrained(tmp_path / "run" / "student", output_loading_info=True)
    assert type(theirs).__name__ == "GPT2LMHeadModel" and not report["missing_keys"] and not report["unexpected_keys"]
    model, batch = load_model(tmp_path / "run" / "student"), tiny.random_batch(rows=3, fill=0, vocabulary=CONFIG.vocab_size)
    ours = make_pretraining(model.config, frozenset({"clm"}))(ReferenceOps(), model.parameters, batch)["clm"]
    with torch.no_grad():
        ids, mask = (torch.from_numpy(batch[name]).long() for name in ("input_ids", "attention_mask"))
        found = theirs.eval()(ids, attention_mask=mask).logits
    real = batch["attention_mask"] > 0
    np.testing.assert_allclose(found.numpy()[real], ours[real], atol=2e-5)
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "run" / "student")
    assert tokenizer("the film").input_ids == load_tokenizer(tmp_path / "run" / "student").library.encode("the film").ids


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"task.kind": "mlm"}, "a gpt2 predicts the next word from those before it, and no masked ones; expected task.kind clm"),
        ({"task.masking": {"probability": 0.2}}, "masking is for kind: mlm"),
        ({"term": "masked_lm"}, "masked_lm needs masked texts, but task.kind is not 'mlm'"),
        ({"teacher.model": "bert"}, "a bert sees the words that it should predict, .*; expected task.kind mlm"),
        ({"student.architecture": {"model_type": "bert"}}, "student.architecture.model_type: a bert sees the words"),
    ],
)
def test_what_does_not_go_together_is_refused(folder, tmp_path, change, message):
    content = tree(folder)
    for key, value in change.items():
        if key == "term":
            content["stages"][0]["objective"][1] = {"loss": value}
            continue
        section, name = key.split(".")
        if value == "bert":
            value = str(write_masked_lm(tmp_path / "bert"))
        content[section][name] = value
        if name == "architecture":
            content[section]["init"] = {"from": "random"}
    with pytest.raises(CrossdistilError, match=message):
        prepare(parse_recipe(content, "recipe"), "recipe", None)


def test_a_model_of_words_says_what_can_be_done_with_it(folder):
    told = r"is a language model, .*AutoModelForCausalLM lets it write, .*run clm .*its perplexity, .*run finetune .* of it$"
    for load in (lambda: load_classifier(folder / "teacher", None, None), lambda: load_user_model(folder / "teacher", "serve")):
        with pytest.raises(CrossdistilError, match=told):
            load()


def test_causal_losses_need_a_causal_model(folder, tmp_path):
    content = tree(folder)
    content["task"]["kind"], content["teacher"]["model"] = "mlm", str(write_masked_lm(tmp_path / "bert"))
    with pytest.raises(CrossdistilError, match="causal_lm needs texts whose words are guessed, but task.kind is not 'clm'"):
        prepare(parse_recipe(content, "recipe"), "recipe", None)
