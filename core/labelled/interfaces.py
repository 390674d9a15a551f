"""The texts of answers, and the tokens that could have been in their place, in what interfaces of language models return: chat
completions and completions (OpenAI, vLLM, Together and others), responses (OpenAI), messages (Anthropic), candidates (Gemini) and
outputs of vLLM's Python interface."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import Any

_REFUSALS = ("refusal", "content_filter", "safety", "prohibited_content", "blocklist", "spii", "recitation")
"""Why an interface stopped without an answer; of Gemini in capitals."""

Tokens = list[tuple[str, float]]
"""The most probable tokens of a place, with the logarithms of their probabilities."""
Written = list[tuple[str, Tokens]]
"""The tokens of a text, each with those that could have been in its place."""
Texts = list[tuple[str | None, Written | None]]
"""Several where a model was asked for several."""


class NoAnswer(Exception):
    """A record that holds none, and why."""


def _token(text: Any, logprob: Any) -> tuple[str, float]:
    """A token and the logarithm of its probability. Raises ValueError."""
    number = float(logprob)
    if not isinstance(text, str) or math.isnan(number):
        raise ValueError(f"{text!r}: {logprob!r} is no token with its log-probability"[:80])
    return text, number


def _some(found: Texts) -> Texts:
    """Those of several answers that were not refused, which must be some."""
    if not found:
        raise NoAnswer("refused")
    return found


def choices(row: Mapping[str, Any]) -> Texts | None:
    """Chat completions and completions."""
    given = row.get("choices")
    if not isinstance(given, list) or not given:
        return None
    found = []
    for choice in given:
        message, stopped = choice.get("message"), str(choice.get("finish_reason") or "").lower()
        if stopped in _REFUSALS or (isinstance(message, Mapping) and message.get("refusal")):
            continue
        logprobs = choice.get("logprobs") or {}
        if isinstance(message, Mapping):
            text = message.get("content")
            if isinstance(text, list):
                text = "".join(part.get("text", "") for part in text if isinstance(part, Mapping))
            if not text and message.get("tool_calls"):
                text = message["tool_calls"][0].get("function", {}).get("arguments")
            found.append((text, _openai_tokens(logprobs.get("content"))))
        else:
            tops = logprobs.get("top_logprobs")
            pairs = zip(logprobs.get("tokens") or (), tops or ())
            tokens = [(token, [_token(*each) for each in (top or {}).items()]) for token, top in pairs]
            found.append((choice.get("text"), tokens or None))
    return _some(found)


def _openai_tokens(content: Any) -> Written | None:
    if not isinstance(content, list):
        return None
    tokens = []
    for place in content:
        tops = [_token(top["token"], top["logprob"]) for top in place.get("top_logprobs") or ()]
        tokens.append((place["token"], tops or [_token(place["token"], place["logprob"])]))
    return tokens or None


def blocks(row: Mapping[str, Any]) -> Texts | None:
    """A message of Anthropic."""
    content = row.get("content")
    if not isinstance(content, list):
        return None
    if row.get("stop_reason") in _REFUSALS:
        raise NoAnswer("refused")
    for block in content:
        if block.get("type") == "tool_use":
            return [(json.dumps(block.get("input")), None)]
    return [("".join(block.get("text", "") for block in content if block.get("type", "text") == "text"), None)]


def items(row: Mapping[str, Any]) -> Texts | None:
    """A response of OpenAI's later interface."""
    output = row.get("output")
    if not isinstance(output, list):
        return None
    parts = [part for item in output if item.get("type", "message") == "message" for part in item.get("content") or ()]
    if any(part.get("type") == "refusal" for part in parts):
        raise NoAnswer("refused")
    for part in parts:
        if part.get("type") == "output_text":
            return [(part.get("text"), _openai_tokens(part.get("logprobs")))]
    calls = [item for item in output if item.get("type") == "function_call"]
    return [(calls[0].get("arguments"), None)] if calls else [(None, None)]


def candidates(row: Mapping[str, Any]) -> Texts | None:
    """Candidates of Gemini."""
    if isinstance(feedback := row.get("promptFeedback"), Mapping) and feedback.get("blockReason"):
        raise NoAnswer("refused")
    given = row.get("candidates")
    if not isinstance(given, list) or not given:
        return None
    found = []
    for candidate in given:
        if str(candidate.get("finishReason") or "").lower() in _REFUSALS:
            continue
        parts = (candidate.get("content") or {}).get("parts") or ()
        text = "".join(part.get("text", "") for part in parts if not part.get("thought"))
        result = candidate.get("logprobsResult") or {}
        chosen = [each["token"] for each in result.get("chosenCandidates") or ()]
        tops = [
            [_token(each["token"], each["logProbability"]) for each in place.get("candidates") or ()]
            for place in result.get("topCandidates") or ()
        ]
        chosen = chosen or [place[0][0] for place in tops if place]
        found.append((text, list(zip(chosen, tops)) or None))
    return _some(found)


def outputs(row: Mapping[str, Any]) -> Texts | None:
    """What vLLM's Python interface gives, written as it is: of each place, token id -> log-probability, rank and text."""
    found_outputs = row.get("outputs")
    if not isinstance(found_outputs, list) or not found_outputs:
        return None
    found = []
    for output in found_outputs:
        tokens = []
        for chosen, place in zip(output.get("token_ids") or (), output.get("logprobs") or ()):
            tops = [_token(each["decoded_token"], each["logprob"]) for each in place.values()]
            tokens.append((str(place[str(chosen)]["decoded_token"]), tops))
        found.append((output.get("text"), tokens or None))
    return found


READERS = (choices, blocks, items, candidates, outputs)
"""Each is `f(response)`: the texts of the answers in it, or None where it is none of its interface's."""
