"""What a policy tells the judge: where it is, what it is asked, and what it may cost."""

from __future__ import annotations

from typing import Annotated, Any, Literal
from urllib.parse import urlsplit

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

#: Fields of a request that the judge itself fills in.
OWN_FIELDS = frozenset(
    {"model", "messages", "n", "stream", "logprobs", "top_logprobs", "response_format"}
)
Text = Annotated[str, Field(min_length=1)]


class Price(BaseModel):
    """What a million tokens cost, in any one currency."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    input: float = Field(ge=0, allow_inf_nan=False)
    output: float = Field(ge=0, allow_inf_nan=False)


class JudgeOptions(BaseModel):
    """``options`` of a member of plugin ``judge``. Those with ``exclude`` change no answer."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    endpoint: str = Field(
        description="URL of an OpenAI-compatible API, such as http://127.0.0.1:8000/v1"
    )
    model: Text = Field(description="the model's name there")
    questions: dict[Text, Text] = Field(
        min_length=1, description="label: a question about a text, to be answered by yes or no"
    )
    neutral: Text = Field(
        default="benign",
        description="the label of a text that gets no yes, as labelled data call it",
    )
    answers: Literal["auto", "logprobs", "votes"] = Field(
        default="auto",
        description="logprobs: the probability of the answer's token; votes: a share of sampled "
        "answers; auto: logprobs where the endpoint gives them",
    )
    votes: int = Field(default=5, ge=1, le=100, description="answers sampled of one text")
    structured: bool = Field(
        default=False, description="ask for JSON by a schema (response_format), not for a word"
    )
    max_characters: int = Field(
        default=20_000, ge=1, description="a longer text is cut there, and counts as truncated"
    )
    body: dict[str, Any] = Field(
        default_factory=dict, description="more fields of each request, such as reasoning_effort"
    )
    api_key_env: Text | None = Field(
        default=None, exclude=True, description="the environment variable that holds the API key"
    )
    concurrency: int = Field(default=8, ge=1, le=256, exclude=True, description="calls at once")
    retries: int = Field(default=2, ge=0, le=10, exclude=True, description="of a call that failed")
    backoff_s: float = Field(
        default=0.5, ge=0, le=60, exclude=True, description="before a retry; doubled each time"
    )
    max_wait_s: float = Field(
        default=30.0, ge=0, le=600, exclude=True, description="the longest wait before a retry"
    )
    max_calls: int | None = Field(
        default=None, ge=1, exclude=True, description="budget: calls of one process, retries too"
    )
    max_cost: float | None = Field(
        default=None, gt=0, exclude=True, description="budget of one process, in price's currency"
    )
    price_per_million: Price | None = Field(
        default=None, exclude=True, description="what input and output tokens cost"
    )

    @field_validator("endpoint")
    @classmethod
    def _is_url(cls, value: str) -> str:
        url = urlsplit(value)
        if url.scheme not in ("http", "https") or not url.hostname:
            raise ValueError("must be a URL that begins with http:// or https://")
        if url.username or url.password or url.query or url.fragment:
            raise ValueError("must have no user, query or fragment; a key belongs in api_key_env")
        return value.rstrip("/")

    @field_validator("body")
    @classmethod
    def _leaves_own_fields(cls, value: dict[str, Any]) -> dict[str, Any]:
        if taken := sorted(OWN_FIELDS & value.keys()):
            raise ValueError(f"must not hold {', '.join(taken)}, which other options say")
        for name in ("max_tokens", "max_completion_tokens"):
            if name in value and (type(value[name]) is not int or value[name] < 1):
                raise ValueError(f"{name} must be a whole number above 0")
        return value

    @property
    def labels(self) -> tuple[str, ...]:
        """One for each question, and the neutral one."""
        return (*self.questions, self.neutral)

    @model_validator(mode="after")
    def _agrees_with_itself(self) -> JudgeOptions:
        if self.neutral in self.questions:
            raise ValueError(f"neutral {self.neutral!r} is a label with a question; name another")
        if self.max_cost is not None and self.price_per_million is None:
            raise ValueError("max_cost needs price_per_million")
        return self
