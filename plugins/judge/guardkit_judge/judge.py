"""A member of a policy that asks a language model about each text.

Shape letters: N texts, C labels, each with its question but for the last, the neutral one.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass

import anyio
import httpx2
import numpy as np
from anyio.from_thread import start_blocking_portal

from guardkit import ConfigError, MemberDown, RawScores
from guardkit_judge.answer import NoAnswerError, of_votes, read_answer
from guardkit_judge.budget import Budget
from guardkit_judge.client import TIMEOUT_S, DownError, Endpoint, TextTroubleError, TroubleError
from guardkit_judge.options import JudgeOptions
from guardkit_judge.prompt import request


@dataclass
class _Verdict:
    """What was found out of one text: log-odds of each label, or why there are none. A text whose
    endpoint went down has neither."""

    log_odds: list[float]
    tokens: int = 0
    error: str | None = None


class Judge:
    """Asks ``options.model`` each question about each text; log-odds of yes are the logits.
    That of the neutral label is the least sure no."""

    def __init__(self, options: JudgeOptions, timeout_s: float | None) -> None:
        self.options = options
        self.budget = Budget(options)
        key = _key(options)
        headers = {} if key is None else {"authorization": f"Bearer {key}"}
        limit_s = TIMEOUT_S if timeout_s is None else timeout_s
        self._endpoint = Endpoint(options, limit_s, headers, self.budget, key)
        self._votes = options.answers == "votes"

    @property
    def id(self) -> str:
        return self.options.model

    @property
    def labels(self) -> tuple[str, ...]:
        return self.options.labels

    def score(
        self, texts: Sequence[str], *, novelty: bool = False, evidence: bool = False
    ) -> RawScores:
        """Return the log-odds of yes to each question, and why a text has none. Raises MemberDown,
        with what was answered, where the endpoint is down or the budget spent."""
        endpoint = self._endpoint
        endpoint.down = None
        with start_blocking_portal() as portal:  # also where a loop runs already
            verdicts = portal.call(self._ask_all, endpoint, list(texts))
        scores = self._scores(texts, verdicts)
        if endpoint.down is not None:
            raise MemberDown(f"{self.options.endpoint}: {endpoint.down}", scores)
        return scores

    async def _ask_all(self, endpoint: Endpoint, texts: Sequence[str]) -> list[_Verdict]:
        verdicts = [_Verdict([]) for _ in texts]
        free = anyio.CapacityLimiter(self.options.concurrency)

        async def ask(text: str, verdict: _Verdict) -> None:
            async with free:
                if endpoint.down is None:
                    await self._judge(endpoint, client, text, verdict)

        async with endpoint.client() as client, anyio.create_task_group() as tasks:
            for text, verdict in zip(texts, verdicts, strict=True):
                tasks.start_soon(ask, text, verdict)
        return verdicts

    async def _judge(
        self, endpoint: Endpoint, client: httpx2.AsyncClient, text: str, verdict: _Verdict
    ) -> None:
        log_odds = []
        try:
            for question in self.options.questions.values():
                log_odds.append(await self._answer(endpoint, client, question, text, verdict))
        except (TextTroubleError, TroubleError, NoAnswerError) as error:
            verdict.error = str(error)
        except DownError:
            return
        except Exception as error:  # of this text, as far as anyone knows; recorded
            verdict.error = f"{type(error).__name__}: {error}"
        else:
            verdict.log_odds = log_odds

    async def _answer(
        self, endpoint: Endpoint, client: httpx2.AsyncClient, question: str, text: str,
        verdict: _Verdict,
    ) -> float:  # fmt: skip
        """Return the log-odds of yes to one question about one text."""
        text = text[: self.options.max_characters]
        structured = self.options.structured
        if not self._votes:
            completion = await endpoint.ask(
                client, request(self.options, question, text, sampled=False)
            )
            verdict.tokens = completion.usage.prompt_tokens if completion.usage else 0
            answer = read_answer(completion, structured=structured)
            if answer.log_odds is not None:
                return answer.log_odds
            if self.options.answers == "logprobs":
                raise NoAnswerError(
                    "the endpoint gives no log-probabilities; `answers: votes` samples answers"
                )
            self._votes = True  # it will not give them for the next text either
        yes = 0
        for _ in range(self.options.votes):
            completion = await endpoint.ask(
                client, request(self.options, question, text, sampled=True)
            )
            verdict.tokens = completion.usage.prompt_tokens if completion.usage else 0
            yes += read_answer(completion, structured=structured).yes
        return of_votes(yes, self.options.votes)

    def _scores(self, texts: Sequence[str], verdicts: Sequence[_Verdict]) -> RawScores:
        logits_NC = np.full((len(texts), len(self.labels)), np.nan, np.float32)
        for logits_C, verdict in zip(logits_NC, verdicts, strict=True):
            if verdict.log_odds:
                logits_C[:] = [*verdict.log_odds, -max(verdict.log_odds)]
        most = self.options.max_characters
        return RawScores(
            logits_NC,
            np.array([verdict.tokens for verdict in verdicts], np.int64),
            np.ones(len(texts), np.int64),
            np.array([len(text) > most for text in texts], bool),
            errors={i: v.error for i, v in enumerate(verdicts) if v.error is not None},
        )


def _key(options: JudgeOptions) -> str | None:
    """Return the API key, None where the endpoint needs none."""
    name = options.api_key_env
    if name is None:
        return None
    key = os.environ.get(name, "").strip()
    if not key or not key.isascii() or not key.isprintable():
        raise ConfigError(
            f"judge: api_key_env: the environment variable {name!r} is not set, or holds no key; "
            "set it, or leave api_key_env out where the endpoint needs none"
        )
    return key
