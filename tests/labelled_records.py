"""What the tests of files of answers share: records as providers' interfaces write them, with what each comes to."""

from __future__ import annotations

import copy
import math
from collections.abc import Iterable, Iterator

import numpy as np

from crossdistil.core.data.task_specs import TaskSpec

THREE = TaskSpec("own", "text", None, "label", ("negative", "neutral", "positive"), ("accuracy",))
USAGE = {"prompt_tokens": 40, "completion_tokens": 2, "total_tokens": 42}
FLOOR = 1e-4


def chat(content, tops=None, **more):
    """A chat completion as OpenAI's interface returns it."""
    logprobs = None
    if tops is not None:
        places = [
            {
                "token": token,
                "logprob": own[0][1],
                "top_logprobs": [{"token": name, "logprob": value, "bytes": None} for name, value in own],
            }
            for token, own in tops
        ]
        logprobs = {"content": places, "refusal": None}
    message = {"role": "assistant", "content": content, "refusal": more.pop("refusal", None)}
    choice = {"index": 0, "message": message, "logprobs": logprobs, "finish_reason": more.pop("finish_reason", "stop")}
    return {"id": "chatcmpl-1", "object": "chat.completion", "choices": [choice], "usage": USAGE, **more}


def batch(body):
    return {"id": "batch_req_1", "response": {"status_code": 200, "request_id": "r", "body": body}, "error": None}


def message(text, **more):
    """A message as Anthropic's interface returns it."""
    about = {"id": "msg_1", "type": "message", "role": "assistant", "model": "m", "stop_reason": "end_turn", **more}
    return about | {"content": [{"type": "text", "text": text}], "usage": {"input_tokens": 40, "output_tokens": 2}}


TOPS = [("Pos", [("Pos", math.log(0.6)), (" neg", math.log(0.2)), ("I", math.log(0.1)), ("POSITIVE", math.log(0.05))])]
TOPS += [("itive", [("itive", -0.001)])]
OF_TOKENS = np.array([0.2, 0.05, 0.65]) / 0.9  # what is left of 1 is below the least that is told
RECORDS = {
    "a label": ({"label": "positive"}, [0, 0, 1]),
    "in other letters": ({"label": " Positive"}, [0, 0, 1]),
    "probabilities": ({"probabilities": {"positive": 0.7, "neutral": 0.2, "negative": 0.1}}, [0.1, 0.2, 0.7]),
    "labels with probabilities": ({"labels": {"positive": 0.7, "neutral": 0.2, "negative": 0.1}}, [0.1, 0.2, 0.7]),
    "in the classes' order": ({"probabilities": [0.1, 0.2, 0.7]}, [0.1, 0.2, 0.7]),
    "a part of them": ({"probabilities": {"positive": 0.9}}, [0.05, 0.05, 0.9]),
    "a part whose rest is large": ({"probabilities": {"positive": 0.3}}, [1 / 3, 1 / 3, 1 / 3]),
    "log-probabilities": ({"log_probabilities": {"positive": math.log(0.7), "neutral": math.log(0.3)}}, [0, 0.3, 0.7]),
    "a pipeline of transformers": (
        {"label": [{"label": "positive", "score": 0.9}, {"label": "neutral", "score": 0.1}]},
        [0, 0.1, 0.9],
    ),
    "a zero-shot pipeline": (
        {"sequence": "...", "labels": ["positive", "negative", "neutral"], "scores": [0.7, 0.2, 0.1]},
        [0.2, 0.1, 0.7],
    ),
    "some of it no class": ({"probabilities": {"positive": 0.6, "unknown": 0.4}}, [0, 0, 1]),
    "one label in a list": ({"labels": ["positive"]}, [0, 0, 1]),
    "no confidence": ({"probabilities": [0.1, 0.2, 0.7], "confidence": ""}, [0.1, 0.2, 0.7]),
    "votes": ({"votes": ["positive", "neutral", "positive", "positive"]}, [0, 0.25, 0.75]),
    "votes that were counted": ({"votes": {"positive": 3, "neutral": 1}}, [0, 0.25, 0.75]),
    "votes, some of them none": ({"votes": ["positive", None, "unknown", "neutral"]}, [0, 0.5, 0.5]),
    "a chat": (chat("Positive."), [0, 0, 1]),
    "a chat with tokens": (chat("Positive", TOPS), OF_TOKENS),
    "a chat in a batch": (batch(chat("Positive", TOPS)), OF_TOKENS),
    "a chat in Chinese marks": (chat("“Positive”。"), [0, 0, 1]),
    "a token that was forced": (chat("positive", [("positive", [("positive", -9999.0)])]), [0, 0, 1]),
    "a token without probability": (chat("positive", [("positive", [("positive", -math.inf)])]), [0, 0, 1]),
    "a list in a chat": (chat('["positive"]'), [0, 0, 1]),
    "JSON in a chat": (chat('{"label": "positive", "reason": "..."}'), [0, 0, 1]),
    "JSON with tokens": (
        chat('{"label": "Positive"}', [('{"', [('{"', 0.0)]), ("label", [("label", 0.0)]), ('": "', [('": "', 0.0)]), *TOPS]),
        OF_TOKENS,
    ),
    "JSON in a fence": (chat('```json\n{"label": "neutral"}\n```'), [0, 1, 0]),
    "a thought before it": (chat("<think>negative? no, it is\npositive</think>\n\nneutral"), [0, 1, 0]),
    "a called function": (
        {
            "choices": [
                {"message": {"content": None, "tool_calls": [{"function": {"name": "say", "arguments": '{"label": "neutral"}'}}]}}
            ]
        },
        [0, 1, 0],
    ),
    "a completion": (
        {
            "choices": [
                {
                    "text": " positive",
                    "logprobs": {
                        "tokens": [" positive"],
                        "top_logprobs": [{" positive": math.log(0.8), " negative": math.log(0.1)}],
                    },
                }
            ]
        },
        np.array([0.1, 0.1, 0.8]),
    ),
    "several completions": (
        {"choices": [{"message": {"content": text}} for text in ("positive", "positive", "neutral", "positive")]},
        [0, 0.25, 0.75],
    ),
    "several, some of them none": (
        {
            "choices": [
                {"message": {"content": "positive"}},
                {"message": {"content": ""}, "finish_reason": "content_filter"},
                {"message": {"content": "  "}},
                {"message": {"content": "neutral", "refusal": None}},
            ]
        },
        [0, 0.5, 0.5],
    ),
    "several candidates, one of them blocked": (
        {"candidates": [{"finishReason": "SAFETY"}, {"content": {"parts": [{"text": "neutral"}]}}]},
        [0, 1, 0],
    ),
    "a message": (message("positive"), [0, 0, 1]),
    "a message in a batch": ({"result": {"type": "succeeded", "message": message("positive")}}, [0, 0, 1]),
    "a used tool": (message("") | {"content": [{"type": "tool_use", "input": {"label": "neutral"}}]}, [0, 1, 0]),
    "a response": (
        {
            "output": [
                {"type": "reasoning"},
                {
                    "type": "message",
                    "content": [
                        {
                            "type": "output_text",
                            "text": "Positive",
                            "logprobs": [
                                {
                                    "token": "Positive",
                                    "logprob": math.log(0.9),
                                    "top_logprobs": [
                                        {"token": "Positive", "logprob": math.log(0.9)},
                                        {"token": "neutral", "logprob": math.log(0.1)},
                                    ],
                                }
                            ],
                        }
                    ],
                },
            ]
        },
        [0, 0.1, 0.9],
    ),
    "a candidate": (
        {
            "candidates": [
                {
                    "content": {"parts": [{"text": "positive"}]},
                    "finishReason": "STOP",
                    "logprobsResult": {
                        "topCandidates": [
                            {
                                "candidates": [
                                    {"token": "positive", "logProbability": math.log(0.9)},
                                    {"token": "negative", "logProbability": math.log(0.1)},
                                ]
                            }
                        ],
                        "chosenCandidates": [{"token": "positive", "logProbability": math.log(0.9)}],
                    },
                }
            ]
        },
        [0.1, 0, 0.9],
    ),
    "vLLM's outputs": (
        {
            "outputs": [
                {
                    "text": "positive",
                    "token_ids": [7],
                    "logprobs": [
                        {
                            "7": {"logprob": math.log(0.9), "rank": 1, "decoded_token": "positive"},
                            "9": {"logprob": math.log(0.1), "rank": 2, "decoded_token": "neutral"},
                        }
                    ],
                }
            ]
        },
        [0, 0.1, 0.9],
    ),
    "Ollama's chat": (
        {"message": {"role": "assistant", "content": "neutral"}, "prompt_eval_count": 9, "eval_count": 1},
        [0, 1, 0],
    ),
    "a text beside": ({"response": "Neutral"}, [0, 1, 0]),
}


SILENT = {
    "null": {"label": None},
    "a word for it": {"label": "Unknown"},
    "an error of a batch": {"response": None, "error": {"code": "batch_expired", "message": "..."}},
    "a status": batch(chat("positive")) | {"response": {"status_code": 500, "body": {"error": {"message": "..."}}}},
    "a refusal": chat(None, refusal="I cannot"),
    "a filter": chat("", finish_reason="content_filter"),
    "a refused message": message("", stop_reason="refusal"),
    "an expired message": {"result": {"type": "expired"}},
    "a blocked prompt": {"promptFeedback": {"blockReason": "SAFETY"}},
    "a blocked candidate": {"candidates": [{"finishReason": "SAFETY"}]},
    "an empty answer": chat("   "),
    "all votes none": {"votes": [None, "unknown"]},
    "counted votes, all none": {"votes": {"unknown": 3}},
    "all of it no class": {"probabilities": {"unknown": 1.0}},
    "an empty cell of labels": {"labels": None},
    "an empty list of labels": {"labels": []},
}


def floored(p):
    """Probabilities none of which is below the floor."""
    p = np.maximum(np.asarray(p, np.float64), FLOOR)
    return p / p.sum()


_DAMAGES = (None, 3, -1.5, True, "x", "", [], {}, [1], {"a": 1}, "[", 1e308, float("nan"), [[]], 10**400)


def _places(value, path=()):
    """The way to each part of a record."""
    yield path
    for key, part in value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ():
        yield from _places(part, (*path, key))


def damaged_records(records: Iterable[dict]) -> Iterator[dict]:
    """Each record with something else in place of one of its parts, once for each."""
    for number, record in enumerate(records):
        for place, (*path, last) in enumerate(filter(None, _places(record))):
            damaged = copy.deepcopy(record)
            part = damaged
            for key in path:
                part = part[key]
            part[last] = _DAMAGES[(number + place) % len(_DAMAGES)]
            yield damaged
