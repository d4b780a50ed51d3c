"""The response: a yes or a no, and how sure it was."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass

import msgspec

#: Log-odds are kept within; a probability of 1 has none that is finite.
LARGEST = 20.0
_ANSWER = re.compile(r"\W*(yes|no)\b", re.IGNORECASE)
#: What tokenizers and JSON put around a word.
_AROUND = " \t\r\n\"'`*.,:{}\u0120\u2581"


class TokenChance(msgspec.Struct, frozen=True):
    token: str
    logprob: float


class TokenLogprobs(TokenChance, frozen=True):
    top_logprobs: list[TokenChance] = []


class Logprobs(msgspec.Struct, frozen=True):
    content: list[TokenLogprobs] | None = None


class Message(msgspec.Struct, frozen=True):
    content: str | None = None


class Choice(msgspec.Struct, frozen=True):
    message: Message
    logprobs: Logprobs | None = None


class Usage(msgspec.Struct, frozen=True):
    prompt_tokens: int = 0
    completion_tokens: int = 0


class Completion(msgspec.Struct, frozen=True):
    """A chat completion, as far as a judge reads it; other fields are ignored."""

    choices: list[Choice]
    usage: Usage | None = None


class _Structured(msgspec.Struct, frozen=True):
    answer: str


class NoAnswerError(Exception):
    """The model said something that is neither yes nor no: that is a failure, never a no."""


@dataclass(frozen=True, slots=True)
class Answer:
    """``log_odds`` of yes, natural logarithm; None where the response has no probabilities."""

    yes: bool
    log_odds: float | None


def read_completion(body: bytes) -> Completion:
    """Return the completion in ``body``; ValueError says why it is none."""
    try:
        completion = msgspec.json.decode(body, type=Completion)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise ValueError(f"its answer is no chat completion: {error}") from error
    if not completion.choices:
        raise ValueError("its answer is no chat completion: `choices` is empty")
    return completion


def read_answer(completion: Completion, *, structured: bool) -> Answer:
    """Return what the model said. Raises NoAnswerError."""
    choice = completion.choices[0]
    said = choice.message.content or ""
    word = _structured(said) if structured else said
    found = _ANSWER.match(word)
    if found is None:
        raise NoAnswerError(f"the judge answered neither yes nor no: {said[:60]!r}")
    yes = found[1].lower() == "yes"
    tokens = choice.logprobs.content if choice.logprobs else None
    return Answer(yes, None if tokens is None else _log_odds(tokens, yes))


def of_votes(yes: int, votes: int) -> float:
    """Return the log-odds of yes that a share of sampled votes gives (Jeffreys' prior)."""
    return math.log((yes + 0.5) / (votes - yes + 0.5))


def _structured(said: str) -> str:
    try:
        return msgspec.json.decode(said, type=_Structured).answer
    except msgspec.MsgspecError:
        reason = f"the judge answered other JSON than was asked for, or none: {said[:60]!r}"
        raise NoAnswerError(reason) from None


def _log_odds(tokens: Sequence[TokenLogprobs], yes: bool) -> float | None:
    """Return log p(yes) - log p(no) at the token that answers, None where no token does.

    A side that is not among the likeliest has at most what these leave, and no more than the
    least of them.
    """
    wanted = "yes" if yes else "no"
    answering = next((token for token in tokens if _word(token.token) == wanted), None)
    if answering is None:
        return None
    likeliest = {token.token: token.logprob for token in (answering, *answering.top_logprobs)}
    mass = {"yes": 0.0, "no": 0.0}
    for token, logprob in likeliest.items():
        if (word := _word(token)) in mass:
            mass[word] += math.exp(min(logprob, 0.0))
    every = [math.exp(min(logprob, 0.0)) for logprob in likeliest.values()]
    rest = max(min(1 - sum(every), min(every)), math.exp(-LARGEST))
    log_odds = math.log(mass["yes"] or rest) - math.log(mass["no"] or rest)
    return max(-LARGEST, min(LARGEST, log_odds))


def _word(token: str) -> str:
    return token.strip(_AROUND).lower()
