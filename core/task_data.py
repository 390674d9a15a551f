"""The texts and labels of a task, tokenized for one model, and how a model is scored on them."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from .best_answers import answers_score
from .data.answer_tokens import answers_without_window, places_without_window, question_table
from .data.batches import Masks, evaluation_batches
from .data.corpus import read_corpus
from .data.masked_texts import read_masked, read_store
from .data.next_words import next_words, read_next_words
from .data.ranking_tasks import laid_out
from .data.tagged_tokens import tagged_table
from .data.tasks import Examples, TaskSpec, read_split
from .data.token_folder import is_store
from .data.tokenize import Tokenizer, TokenTable, tokenized
from .errors import DataError
from .kinds.sentence_embeddings import cosines, retrieval_scores
from .metrics import check_finite
from .model_answers import EVALUATION_BATCH, answers_to, gathered_logits, logits_function, word_logits
from .models.architectures import Config
from .models.masked_lm import make_masked_loss
from .predictions import SCORED, Predictions, WordsOfTexts, kept_names, rows_digest
from .ranking_scores import list_scores
from .task_section import TaskSection
from .world import World

MISMATCHED = "dev_mismatched"
"""MNLI's second development set, from other genres than its training texts."""


@dataclass(frozen=True)
class Scored:
    """What a model says of a split."""

    metrics: dict[str, float]
    logits: np.ndarray | None
    """(examples, outputs) in file order, of which masked words have none; of questions and rankings what each one scored, of
    pairs of texts their cosines."""
    said: np.ndarray | None
    """What two models are compared by: the logits, (questions, 2) from which to which character each answer is, or the vectors
    (texts, width)."""


@dataclass
class TaskData:
    """The splits of a task that a job uses, tokenized."""

    spec: TaskSpec
    tokenizer: Tokenizer
    buckets: tuple[int, ...]
    examples: dict[str, Examples]
    tokens: dict[str, TokenTable]
    masks: dict[str, Masks] = field(default_factory=dict)
    """By split, where a model is to guess masked words."""
    world: World = field(default_factory=World)
    """The processes that score a model together: each computes some of the batches."""
    dev_rows: str | None = None
    """`rows_digest` of dev, where there are labels."""

    def answers(self, config: Config):
        """What `score` needs of a model: `f(ops, parameters, batch) -> [tensor]`, in evaluation mode."""
        return make_masked_loss(config) if self.spec.kind.guesses_words else logits_function(config)

    def score(self, split: str, infer: Callable[[dict[str, np.ndarray]], list[np.ndarray]]) -> tuple[dict, np.ndarray | None]:
        """The metrics on a split and the logits as `Scored` has them; `infer` maps a batch to what `answers` gives."""
        found = self.scored(split, infer)
        return found.metrics, found.logits

    def scored(self, split: str, infer: Callable[[dict[str, np.ndarray]], list[np.ndarray]]) -> Scored:
        """The same with what the model says."""
        if self.spec.kind.per_token:
            return self._words_score(split, infer)
        if self.spec.kind.of_spans:
            return self._answers_score(split, infer)
        if self.spec.kind.embeds:
            return self._pairs_score(split, infer)
        if self.spec.kind.ranks:
            return self._lists_score(split, infer)
        if self.spec.kind.guesses_words:
            return Scored(self._masked_score(split, infer), None, None)
        examples, own = self.examples[split], self.world.share
        batches = evaluation_batches(self.tokens[split], examples.labels, EVALUATION_BATCH, self.buckets, share=own)
        logits = gathered_logits(self.world, len(examples), batches, infer)
        if examples.labels is None:
            return Scored({}, logits, logits)
        metrics = self.spec.kind.score(self.spec.metrics, logits, examples.labels, self.spec.own_metrics)
        return Scored(metrics, logits, logits)

    def _words_score(self, split: str, infer: Callable) -> Scored:
        """The same of a task whose words have labels, with the logits (words, outputs) of all words."""
        labels, table, spec = self.examples[split].labels, self.tokens[split], self.spec
        batches = evaluation_batches(table, None, EVALUATION_BATCH, self.buckets, share=self.world.share)
        logits = word_logits(self.world, int((labels >= 0).sum()), table, batches, infer)
        metrics = spec.kind.score(spec.metrics, logits, labels, {}, spec.labels, spec.tagged.constrained)
        return Scored(metrics, logits, logits)

    def _answers_score(self, split: str, infer: Callable) -> Scored:
        """The same of questions, with what the answer to each scored in place of logits: (questions, 2) exact match and F1."""
        examples, spec = self.examples[split], self.spec
        found = answers_to(self.world, self.tokens[split], examples.pairs, spec.answering, self.buckets, infer)
        places = np.array([(answer.start, answer.end) for answer in found])
        return Scored(*answers_score(spec.metrics, found, examples.asked.golds, spec.answering), places)

    def _pairs_score(self, split: str, infer: Callable) -> Scored:
        """The same of sentence embeddings, with the cosines (pairs, 1) of the vectors of each pair, as what is answered."""
        examples, table = self.examples[split], self.tokens[split]
        batches = evaluation_batches(table, None, EVALUATION_BATCH, self.buckets, share=self.world.share)
        vectors = gathered_logits(self.world, len(table.lengths), batches, infer)
        if examples.labels is None:
            return Scored({}, vectors, vectors)
        if examples.among is not None:
            check_finite(vectors, "texts", "vectors")
            judged = examples.labels, examples.lists, examples.among
            return self._scored_lists(retrieval_scores(vectors, len(examples), *judged), vectors)
        alike = cosines(*vectors.reshape(2, len(examples), -1)).astype(np.float32)[:, None]
        return Scored(self.spec.kind.score(self.spec.metrics, alike, examples.labels, self.spec.own_metrics), alike, vectors)

    def _lists_score(self, split: str, infer: Callable) -> Scored:
        """The same of rankings, with what each list scored in place of logits: (queries, 3)."""
        examples, table, own = self.examples[split], self.tokens[split], self.world.share
        if examples.lists is None:
            raise DataError(f"{examples.source}: is read as training examples, whose lists are cut; give it as dev to score it")
        batches = evaluation_batches(table, None, EVALUATION_BATCH, self.buckets, share=own)
        logits = gathered_logits(self.world, len(table.lengths), batches, infer)
        if examples.labels is None:
            return Scored({}, logits, logits)
        check_finite(logits, "pairs", "scores")
        return self._scored_lists(list_scores(logits[:, 0], examples.labels, examples.lists), logits)

    def _scored_lists(self, found: np.ndarray, said: np.ndarray) -> Scored:
        """Of what each query scored (queries, 3)."""
        metrics = self.spec.kind.score(self.spec.metrics, found, np.ones(len(found), np.int32), self.spec.own_metrics)
        return Scored(metrics, found.astype(np.float32), said)

    def _masked_score(self, split: str, infer: Callable) -> dict[str, float]:
        """The mean of -log of the probability of the right word over the tokens to be guessed, in nats, and its exponential."""
        own = self.world.share
        batches = evaluation_batches(self.tokens[split], None, EVALUATION_BATCH, self.buckets, self.masks[split], own)
        sums = [(float(infer(batch)[0]), float(batch["masked_weights"].sum())) for _, batch in batches]
        shares = [found["sums"] for found in self.world.arrays({"sums": np.array(sums, np.float64).reshape(-1, 2)})]
        total, count = 0.0, 0.0
        for number in range(sum(map(len, shares))):  # in the order of one process: the sum is then the same
            loss, tokens = shares[number % own.size][number // own.size]
            total, count = total + loss, count + tokens
        loss = float(total / max(count, 1.0))
        return {self.spec.kind.words_metric: loss, "perplexity": math.exp(min(loss, 700.0))}

    def predictions(self, logits: np.ndarray | None) -> Predictions | None:
        """A model's logits on dev with what they are of; None where dev has no labels to compare them with."""
        if logits is None or self.dev_rows is None:
            return None
        spec, labels, names = self.spec, self.examples["dev"].labels, kept_names(self.spec, self.examples["dev"])
        if names in SCORED:
            return Predictions(logits, np.ones(len(logits), np.int32), self.dev_rows, spec.name, names, names)
        if spec.kind.per_token:  # a word is an example
            of_words = labels[labels >= 0].astype(np.int32)
            texts = WordsOfTexts((labels >= 0).sum(axis=1).astype(np.int32), spec.tagged.constrained)
            return Predictions(logits, of_words, self.dev_rows, spec.name, names, ("accuracy",), texts=texts)
        given = logits, labels, self.dev_rows, spec.name, names, tuple(spec.metrics)
        return Predictions(*given, own=spec.kind if spec.kind.code else None)

    def final(self, infer: Callable) -> Scored:
        """What a finished model says of dev, with MNLI's mismatched metrics beside the others. Text without a dev split has
        nothing of it."""
        if "dev" not in self.examples:
            return Scored({}, None, None)
        found = self.scored("dev", infer)
        if MISMATCHED in self.examples:
            mismatched, _ = self.score(MISMATCHED, infer)
            metrics = found.metrics | {f"{name}_mismatched": value for name, value in mismatched.items()}
            found = replace(found, metrics=metrics)
        return found


def load_data(
    spec: TaskSpec, section: TaskSection, tokenizer: Tokenizer, buckets: tuple[int, ...], splits: tuple[str, ...]
) -> TaskData:
    """Read and tokenize splits of a task."""
    examples = {split: read_split(spec, section.data, split) for split in splits}
    return tokenize(spec, tokenizer, buckets, examples, section.max_length)


def load_scored(
    spec: TaskSpec, section: TaskSection, tokenizer: Tokenizer, buckets: tuple[int, ...], split: str
) -> TaskData:
    """Read and tokenize one split to score a model on: that of train too as dev is read, of which training cuts the lists of
    rankings, leaves out the labels of texts, and so on."""
    as_dev = split == "train" and split in spec.splits and (spec.kind.of_spans or not spec.kind.one_row)
    if not as_dev:
        return load_data(spec, section, tokenizer, buckets, (split,))
    found = load_data(replace(spec, splits={**spec.splits, "dev": spec.splits[split]}), section, tokenizer, buckets, ("dev",))
    return replace(found, examples={split: found.examples["dev"]}, tokens={split: found.tokens["dev"]})


def tokenize(
    spec: TaskSpec, tokenizer: Tokenizer, buckets: tuple[int, ...], examples: dict[str, Examples], max_length: int
) -> TaskData:
    """Examples as a model with that tokenizer takes them; their texts are not kept."""
    if spec.kind.of_spans:
        tokens = {split: _asked(spec, split, found, tokenizer, max_length) for split, found in examples.items()}
        if "train" in tokens:
            examples = examples | {"train": _with_lost_answers(examples["train"], tokens["train"])}
    elif spec.kind.ranks:
        examples = {split: _in_rows(spec, found) if split == "train" else found for split, found in examples.items()}
        tokens = {split: _taught(found, tokenized(found, tokenizer, max_length)) for split, found in examples.items()}
    elif spec.kind.per_token:
        tokens = {split: _tagged(spec, found, tokenizer, max_length) for split, found in examples.items()}
    else:
        tokens = {
            split: _taught(found, tokenized(found, tokenizer, max_length)) for split, found in examples.items()
        }
    kept = {split: found.without_texts() for split, found in examples.items()}
    dev = examples.get("dev")
    digest = None if dev is None or dev.labels is None else rows_digest(spec, dev)
    return TaskData(spec, tokenizer, buckets, kept, tokens, dev_rows=digest)


def _tagged(spec: TaskSpec, examples: Examples, tokenizer: Tokenizer, max_length: int) -> TokenTable:
    how, given = spec.tagged, (examples.texts, examples.by_spaces, examples.labels)
    return tagged_table(*given, tokenizer, max_length, how.overlap, how.all_pieces, examples.word_counts)


def _taught(examples: Examples, table: TokenTable) -> TokenTable:
    return replace(table, members=examples.members, taught=examples.row_scores)


def _in_rows(spec: TaskSpec, examples: Examples) -> Examples:
    """Lists of candidates as examples of so many rows as the task says."""
    given = examples.texts, examples.pairs, examples.labels, examples.row_scores, examples.lists
    found = laid_out(*given, spec.ranked.most, examples.source.name)
    return replace(
        examples, texts=found.queries, pairs=found.candidates, labels=found.labels, row_scores=found.teacher, weights=found.real,
        lists=None, members=spec.ranked.most, notes=(*examples.notes, *found.notes),
    )  # fmt: skip


def _asked(spec: TaskSpec, split: str, examples: Examples, tokenizer: Tokenizer, max_length: int) -> TokenTable:
    given, ids = (examples.texts, examples.pairs, examples.labels), examples.asked.ids

    def named(row: int) -> str:
        return f"{examples.source}: {ids[row]}"

    places = split != "train" or bool(examples.taught)
    return question_table(*given, tokenizer, max_length, spec.answering, places, named)


def _with_lost_answers(examples: Examples, table: TokenTable) -> Examples:
    """The same with a note of the answers that no window has."""
    lost = {} if examples.labels is None else {examples.source.name: answers_without_window(table, examples.labels)}
    for name, taught in examples.taught.items():
        lost[f"{examples.source.name}: of '{name}'"] = places_without_window(table, taught.places, taught.firsts)
    way = "a smaller task.answers.stride, or a larger task.max_length, has more of them"
    notes = []
    for place, rows in lost.items():
        if len(rows):
            count = "1 answer is" if len(rows) == 1 else f"{len(rows):,} answers are"
            notes.append(f"{place}: {count} in no window whole, and learned as none ({examples.asked.ids[rows[0]]}); {way}")
    return replace(examples, notes=(*examples.notes, *notes))


def raw_text_data(
    spec: TaskSpec, task: TaskSection, tokenizer: Tokenizer, buckets: tuple[int, ...], max_length: int
) -> TaskData:
    """Text without labels, or a folder with its token store."""
    if is_store(task.data):
        table = read_store(task.data, tokenizer, max_length)
    else:
        table = read_corpus(task.data, tokenizer, max_length)
    return TaskData(spec, tokenizer, buckets, {"train": _unlabelled(table, task.data)}, {"train": table})


def next_text_data(
    spec: TaskSpec, task: TaskSection, tokenizer: Tokenizer, buckets: tuple[int, ...], max_length: int
) -> TaskData:
    """Text of which each next token is guessed, and that to score on where the task names one."""
    dev = _held_out(task)
    read = read_next_words(task.data, tokenizer, max_length, dev)
    examples, tokens, masks = {"train": _unlabelled(read.train, task.data)}, {"train": read.train}, {"train": next_words}
    if dev is not None:
        examples["dev"], tokens["dev"], masks["dev"] = _unlabelled(read.dev, dev), read.dev, next_words
    return TaskData(spec, tokenizer, buckets, examples, tokens, masks)


def _held_out(task: TaskSection) -> Path | None:
    """The text to score on, where the task names one."""
    held_out = task.files.get("dev")
    folder = task.data if task.data.is_dir() else task.data.parent
    return None if held_out is None else folder / held_out  # an absolute path stays as it is


def masked_text_data(
    spec: TaskSpec, task: TaskSection, tokenizer: Tokenizer, buckets: tuple[int, ...], max_length: int, seed: int
) -> TaskData:
    """Text of which some tokens are masked, and that to score on where the task names one."""
    dev = _held_out(task)
    read = read_masked(task.data, task.masking, tokenizer, max_length, seed, dev)
    examples, tokens, masks = {"train": _unlabelled(read.train, task.data)}, {"train": read.train}, {"train": read.train_masks}
    if dev is not None:
        examples["dev"], tokens["dev"], masks["dev"] = _unlabelled(read.dev, dev), read.dev, read.dev_masks
    return TaskData(spec, tokenizer, buckets, examples, tokens, masks)


def _unlabelled(table: TokenTable, source: Path) -> Examples:
    rows = len(table.lengths)
    return Examples([], None, None, source, np.arange(rows), np.zeros(rows, np.float32))
