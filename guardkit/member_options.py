"""What a policy's member tells its family, beside the model: options that the family checks."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from pydantic import BaseModel

from guardkit.types import Classifier, ClassifierFamily


@runtime_checkable
class HasOptions(Protocol):
    """A family whose members of a policy take ``options``, such as an endpoint, and may be without
    a model of their own; optional.

    ``options`` is a pydantic model. Its fields with ``exclude=True`` say how the member is asked
    (retries, a budget) and change no answer; all others are part of what its scores follow from.
    """

    @property
    def options(self) -> type[BaseModel]: ...

    def labels_of(self, options: Any) -> Sequence[str]:
        """Return the labels of a member whose policy names no model, in the order of its logits;
        none where it needs one. They do not exclude each other, and a logit is the log-odds of
        its label as it stands."""
        ...

    def load_member(
        self,
        path: Path | None,
        options: Any,
        *,
        timeout_s: float | None,
        device: str,
        backend: str,
    ) -> Classifier:
        """Load a member: of the verified artefact ``path``, or None where the policy names none.
        A call that has taken ``timeout_s`` (None: the family's own) has failed."""
        ...


@dataclass(frozen=True)
class MemberOptions:
    """A member's options, checked. ``text`` tells members apart; ``digest`` (SHA-256) stands for
    the family and those options that change an answer; ``labels`` are those without a model."""

    family: str
    text: str
    digest: str
    labels: tuple[str, ...]
    timeout_s: float | None
    options: Any = field(compare=False)


def read_member_options(
    family: ClassifierFamily, given: Mapping[str, Any] | None, timeout_ms: int | None
) -> MemberOptions | None:
    """Return a member's options, None where its family takes none. Raises ValidationError."""
    if not isinstance(family, HasOptions):
        return None
    options = family.options.model_validate(dict(given or {}))
    answers = json.dumps([family.name, options.model_dump(mode="json")], sort_keys=True)
    return MemberOptions(
        family.name,
        f"{options!r} {timeout_ms}",
        hashlib.sha256(answers.encode()).hexdigest(),
        tuple(family.labels_of(options)),
        None if timeout_ms is None else timeout_ms / 1000,
        options,
    )
