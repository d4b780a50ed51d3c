"""Certificates: the thresholds behind ``max_fpr``, and whether they still hold.

They are in NAME.certificates.json beside the policy NAME.yaml. ``guardkit.tuning.certify`` makes
them; here they are written, read, and compared with the policy, without loading a model.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from guardkit.errors import GuardkitError, UsageError
from guardkit.log_odds import logit
from guardkit.model import artefact
from guardkit.model.scorers import Source
from guardkit.policy.schema import (
    AtMaxFpr,
    Category,
    MemberNode,
    Policy,
    Probability,
    Settle,
    Threshold,
    walk,
)
from guardkit.yamlfile import Place

AGAIN = "guardkit policy certify"


class _Frozen(BaseModel):
    model_config = ConfigDict(
        extra="forbid", frozen=True, defer_build=True, strict=True, allow_inf_nan=False
    )


class Basis(_Frozen):
    """Everything in a policy that a category's certificate depends on."""

    max_fpr: Probability
    confidence: Probability
    calibrated_on: str
    positive: list[str]
    prevalence: Probability | None
    on_error: Literal["closed", "open"]
    on_truncated: Literal["closed", "open"] | None = None
    decide: str = Field(description="SHA-256 of the tree, as JSON without what is left at default")
    models: dict[str, str] = Field(description="member to model hash, and its scorer if named")


class Certificate(_Frozen):
    """What was found for one category. The same data and models give the same certificate."""

    basis: Basis
    data: str = Field(description="SHA-256 of the n texts")
    n: int = Field(ge=1, description="benign texts, one of each group of near-duplicates")
    allowed: int = Field(ge=0, description="false positives that n texts may have")
    false_positives: int = Field(ge=0, description="those they had")
    unjudged: int = Field(ge=0, description="texts that could not be judged; closed: flagged")
    bound: Probability = Field(
        description="upper bound of the false-positive rate, at this confidence"
    )
    threshold: Threshold

    @model_validator(mode="after")
    def _agrees_with_itself(self) -> Certificate:
        t = self.threshold
        p = math.exp(-math.log1p(math.exp(-t.log_odds))) if t.log_odds > -700 else 0.0
        if not (
            self.false_positives <= self.allowed < self.n
            and self.bound <= self.basis.max_fpr * (1 + 1e-9)
            and math.isclose(p, t.probability, abs_tol=1e-9)
        ):
            raise ValueError("its numbers contradict each other: it was edited")
        return self

    def summary(self) -> str:
        """Return what the certificate says, in one line."""
        return (
            f"flagged above {self.threshold.probability:.6g}; at most {self.basis.max_fpr:.4g} of "
            f"benign texts are, with confidence {self.basis.confidence:g} "
            f"({self.false_positives:,} of {self.n:,} were)"
        )


class _File(_Frozen):
    format: Literal[1] = 1
    certificates: dict[str, Certificate]


def certificates_path(policy: Path) -> Path:
    """Return the file that holds the certificates of the policy file ``policy``."""
    return policy.with_name(f"{policy.stem}.certificates.json")


def read_certificates(policy: Path) -> Mapping[str, Certificate]:
    """Return {category: certificate} of a policy file; empty where there is no such file."""
    path = certificates_path(policy)
    try:
        return _File.model_validate_json(path.read_bytes()).certificates
    except FileNotFoundError:
        return {}
    except (OSError, ValidationError) as error:
        first = error.errors()[0] if isinstance(error, ValidationError) else None
        why = f"{'.'.join(map(str, first['loc']))}: {first['msg']}" if first else error
        raise UsageError(
            f"{path}: cannot be read as certificates ({why}); `{AGAIN}` writes it anew"
        ) from error


def write_certificates(policy: Path, certificates: Mapping[str, Certificate]) -> Path:
    """Replace the certificates of a policy file and return the file they are in."""
    path = certificates_path(policy)
    artefact.write_json(path, _File(certificates=dict(certificates)))
    return path


def basis_of(category: Category, sources: Mapping[str, Source]) -> Basis:
    """Return what a certificate of ``category`` depends on, as it is now.

    ``sources`` {member: its model}. Raises ArtefactError where a model is incomplete.
    """
    flag_at = category.flag_at
    assert isinstance(flag_at, AtMaxFpr)
    tree = category.decide.model_dump(mode="json", exclude_defaults=True)
    return Basis(
        max_fpr=flag_at.max_fpr,
        confidence=flag_at.confidence,
        calibrated_on=flag_at.calibrated_on,
        positive=sorted(category.positive),
        prevalence=category.prevalence,
        on_error=category.on_error,
        on_truncated=category.on_truncated,
        decide=hashlib.sha256(json.dumps(tree, sort_keys=True).encode()).hexdigest(),
        models={name: sources[name].identity for name in sorted(members_of(category))},
    )


def promises(policy: Policy) -> dict[str, AtMaxFpr]:
    """Return {category: its ``flag_at``} of the categories that need a certificate."""
    return {
        name: category.flag_at
        for name, category in policy.categories.items()
        if isinstance(category.flag_at, AtMaxFpr)
    }


def members_of(category: Category) -> set[str]:
    """Return the members that its tree names."""
    return {node.member for _, node in walk(category.decide) if isinstance(node, MemberNode)}


def stage_bounds(category: Category) -> list[tuple[Place, Settle]]:
    """Return the bounds of every stage, each with its place below ``decide``."""
    return [((*p, "settle"), node.settle) for p, node in walk(category.decide) if node.settle]


def apply_certificates(
    policy: Policy, sources: Mapping[str, Source]
) -> Sequence[tuple[Place, str]]:
    """Give every category with ``max_fpr`` the threshold of its certificate, and the policy a hash
    that covers the thresholds.

    ``sources`` {member: its model}. Returns (place, message) of each category whose
    certificate is missing or does not fit; the hash then stays as it was.
    """
    asking = {name: policy.categories[name] for name in promises(policy)}
    if not asking:
        return []
    certificates: Mapping[str, Certificate] = {}
    mistakes: dict[str, str] = {}
    try:
        certificates = read_certificates(policy.path)
    except UsageError as error:
        mistakes = dict.fromkeys(asking, str(error))
    for name, category in asking.items():
        try:
            _check(certificates.get(name), basis_of(category, sources), policy.path.name)
            category._certified = _between_bounds(certificates[name].threshold, category)
        except GuardkitError as error:
            mistakes.setdefault(name, str(error))
    if not mistakes:
        thresholds = [c.threshold.log_odds for c in asking.values()]
        policy._hash = hashlib.sha256(f"{policy.hash} {thresholds}".encode()).hexdigest()
    return [(("categories", name, "flag_at"), why) for name, why in mistakes.items()]


def _check(certificate: Certificate | None, now: Basis, policy: str) -> None:
    """Raise UsageError where there is no certificate, or the category has changed since."""
    if certificate is None:
        raise UsageError(
            f"max_fpr {now.max_fpr:g} has no certificate yet; `{AGAIN} {policy}` finds the "
            "threshold on the texts of calibrated_on"
        )
    if changes := _changes(certificate.basis, now):
        raise UsageError(
            f"its certificate no longer fits: {'; '.join(changes)}. `{AGAIN} {policy}` makes a "
            "new one"
        )


def _between_bounds(threshold: Threshold, category: Category) -> Threshold:
    """Return ``threshold``. Raises UsageError where a stage settles texts on its wrong side."""
    for _, settle in stage_bounds(category):
        if not logit(settle.below) <= threshold.log_odds <= logit(settle.above):
            raise UsageError(
                f"its certificate was edited: {threshold.probability:g} is not between the bounds "
                f"of a stage, {settle.below:g} and {settle.above:g}; `{AGAIN}` makes a new one"
            )
    return threshold


def _changes(before: Basis, now: Basis) -> list[str]:
    changes = []
    for field in Basis.model_fields:
        old, new = getattr(before, field), getattr(now, field)
        if old == new or field == "models":
            continue
        changes.append("decide changed" if field == "decide" else f"{field} was {old}, is {new}")
    # a member come or gone is a change of `decide`
    for member in before.models.keys() & now.models.keys():
        if before.models[member] != now.models[member]:
            changes.append(f"the model of member {member!r} changed")
    return changes
