"""Folders of models beside which a network is written, and what that has to answer: as transformers, or as NumPy in float64."""

from __future__ import annotations

import json

import numpy as np
from safetensors.numpy import save_file

from crossdistil.converters.canonical import read_canonical
from crossdistil.converters.task_heads import model_shapes
from crossdistil.converters.verify import reference_outputs, sample_batch
from crossdistil.core.checkpoint_saving import save_model
from crossdistil.core.data.word_vocabulary import build_words
from crossdistil.core.models.answer_heads import CHOICES, SENTENCES, SPANS, TOKENS
from crossdistil.core.models.architectures import make_forward
from crossdistil.core.models.heads import head_shapes
from crossdistil.core.models.known_families import is_norm
from crossdistil.core.models.tree import unused_shapes
from crossdistil.core.reference import ReferenceOps
from crossdistil.tests import conversion_sources as sources
from crossdistil.tests.test_export import BILSTM, random_model
from crossdistil.tests.tiny_families import OF_EACH, VARIANTS

OUTPUTS = 3
WITHOUT = tuple(
    kind for kind, config in OF_EACH.items() if config.family.block.normalised_before or kind in ("deberta-v2", "nomic_bert")
)
WRITTEN = {name: config for name, config in VARIANTS.items() if config.family.model_type not in WITHOUT}
# Name -> (configuration, task of the classifier, heads of pre-training, end of transformers' class)
CASES = {name: (config, SENTENCES, (), SENTENCES.ending) for name, config in WRITTEN.items()} | {
    "bert for tokens": (sources.BERT, TOKENS, (), TOKENS.ending),
    "bert for spans": (sources.BERT, SPANS, (), SPANS.ending),
    "bert for choices": (sources.BERT, CHOICES, (), CHOICES.ending),
    "electra for tokens": (VARIANTS["electra"], TOKENS, (), TOKENS.ending),
    "distilbert for spans": (VARIANTS["distilbert"], SPANS, (), SPANS.ending),
    "bert for words": (sources.TANH, None, ("mlm",), "ForMaskedLM"),
    "bert for words and pairs": (sources.BERT, None, ("mlm", "nsp"), "ForPreTraining"),
    "distilbert for words": (VARIANTS["distilbert"], None, ("mlm",), "ForMaskedLM"),
    "albert for words and pairs": (VARIANTS["albert"], None, ("mlm", "sop"), "ForPreTraining"),
    "electra for words": (VARIANTS["electra"], None, ("generator",), "ForMaskedLM"),
    "electra for replaced words": (VARIANTS["electra"], None, ("discriminator",), "ForPreTraining"),
    "roberta for tokens": (VARIANTS["roberta"], TOKENS, (), TOKENS.ending),
    "roberta for choices": (VARIANTS["roberta"], CHOICES, (), CHOICES.ending),
    "mpnet for words": (VARIANTS["mpnet"], None, ("mlm",), "ForMaskedLM"),
    "xlm-roberta alone": (VARIANTS["xlm-roberta"], None, (), "Model"),
    "bert alone": (sources.BERT, None, (), "Model"),
    "distilbert alone": (VARIANTS["distilbert"], None, (), "Model"),
}
FEWER = """bert, albert with groups, electra of one width, bert for spans, bert for words and pairs, electra for words,
electra for replaced words, distilbert alone, distilbert, bert for choices, roberta for choices, mpnet for words,
xlm-roberta alone, ernie with tasks""".replace("\n", " ").split(", ")
"""Every family and every head: TensorFlow and MindSpore take seconds for a model."""


def write_case(folder, config, task, heads, ending):
    """A folder as transformers saves a model of that class, with random weights."""
    outputs = None if task is None else {SPANS: 2, CHOICES: 1}.get(task, OUTPUTS)
    shapes = dict(model_shapes(config, task, outputs))
    if ending == "ForMaskedLM" or task in (TOKENS, SPANS):
        shapes = {name: shape for name, shape in shapes.items() if ".pooler." not in name}
    for name in heads:
        shapes |= head_shapes(config)[name]
    if ending == "Model":
        shapes |= unused_shapes(config)  # as an encoder's file has it
    generator, tensors = np.random.default_rng(len(folder.name)), {}
    for name, shape in shapes.items():
        values = generator.normal(1.0 if is_norm(name) and name.endswith("weight") else 0.0, 0.2, shape)
        tensors[name] = values.astype(np.float32)
    sources.write_config(folder, config, outputs if task in (SENTENCES, TOKENS) else None)
    path = folder / "config.json"
    raw = json.loads(path.read_text())
    path.write_text(json.dumps(raw | {"architectures": [config.family.title + ending]}))
    save_file(tensors, folder / "model.safetensors", {"format": "pt"})
    return raw["architectures"]


def batches(folder):
    """Two batches: with padding and both token types, and of one token."""
    first = sample_batch(read_canonical(folder))
    return [first, {name: array[:1, :1] for name, array in first.items()}]


def answers(folder, batch, config, ending):
    """What transformers answers, as the generated network names it."""
    import torch
    import transformers

    model, told = getattr(transformers, config.family.title + ending).from_pretrained(folder, output_loading_info=True)
    assert not any(told[key] for key in ("missing_keys", "unexpected_keys", "mismatched_keys")), told
    names = [name for name in batch if config.type_vocab_size or "type" not in name]
    taken = {name: torch.from_numpy(batch[name]).long() for name in names}
    if ending == CHOICES.ending:
        taken = {name: array[:, None] for name, array in taken.items()}
    with torch.no_grad():
        found = model.double().eval()(**taken)
    if ending == SPANS.ending:
        return {"logits": torch.stack([found.start_logits, found.end_logits], -1).numpy()}
    if ending == "Model":
        return {"hidden": found.last_hidden_state.numpy()}
    names = {"prediction_logits": "words", "seq_relationship_logits": "pairs", "sop_logits": "pairs", "logits": "logits"}
    own = {names[key]: found[key].numpy() for key in names if key in found}
    renamed = {"ForMaskedLM": "words", "ForPreTraining": "replaced"}.get(ending)
    return {renamed: own["logits"]} if renamed and "logits" in own else own


def reference(folder, heads):
    """The same by NumPy in float64."""
    found = reference_outputs(read_canonical(folder))
    kinds = {"mlm": "words", "generator": "words", "nsp": "pairs", "sop": "pairs", "discriminator": "replaced"}
    kinds["logits"] = "logits"
    own = {kinds[name]: values for name, values in found.items() if name in kinds}
    return own or {"hidden": found[max((name for name in found if "hidden" in name), key=lambda name: int(name[7:]))]}


def write_bilstm(folder, pairs, outputs=OUTPUTS):
    """A student's folder, and two batches: with padding, also in the middle of what is random, and of one word."""
    words = build_words(["a fine film, and a bad one"], 20)
    config = BILSTM.model_copy(update={"vocab_size": words.vocab_size, "pairs": pairs})
    model = random_model(config)
    save_model(model, folder, words)
    generator, batch = np.random.default_rng(1), {}
    for ids, mask, lengths in (("input_ids", "attention_mask", (7, 1, 4, 0)), ("second_ids", "second_mask", (2, 7, 0, 5))):
        batch[ids] = generator.integers(0, config.vocab_size, (4, 7)).astype(np.int32)
        batch[mask] = (np.arange(7) < np.array(lengths)[:, None]).astype(np.float32)
    batch = {name: batch[name] for name in (batch if pairs else ("input_ids", "attention_mask"))}
    return model, [batch, {name: array[:1, :1] for name, array in batch.items()}]


def bilstm_logits(model, batch):
    """Those of the suite, in float64."""
    parameters = {name: np.asarray(array, np.float64) for name, array in model.parameters.items()}
    return {"logits": make_forward(model.config.without_dropout())(ReferenceOps(), parameters, batch)["logits"]}
