"""Whether a cascade's later stages, its backup, were measured to help.

``guardkit policy frontier --write`` records it in NAME.frontier.json beside NAME.yaml, with the
hash of the cascade that was measured. Commands that decide by a policy note which of its cascades
have changed since, or were never measured.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from guardkit.model import artefact
from guardkit.model.scorers import Source
from guardkit.policy.schema import CascadeNode, Category, MemberNode, Policy, walk


class BackupRecord(BaseModel):
    """What was measured of one category's cascade: recall gained over its first member alone."""

    model_config = ConfigDict(extra="forbid", frozen=True, defer_build=True)

    hash: str  # of the category, see category_hash
    helps: bool
    gain: float | None
    low: float | None
    high: float | None
    max_fpr: float
    n: int
    data: str  # SHA-256 of texts and labels


class _File(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, defer_build=True)

    format: Literal[1] = 1
    categories: dict[str, BackupRecord]


def backup_records_path(policy: Path) -> Path:
    """Return the file that holds the records of ``policy``'s categories."""
    return policy.with_name(f"{policy.stem}.frontier.json")


def read_backup_records(policy: Path) -> Mapping[str, BackupRecord]:
    """Return the records beside ``policy``; none where the file is missing or unreadable."""
    try:
        return _File.model_validate_json(backup_records_path(policy).read_bytes()).categories
    except (OSError, ValidationError):
        return {}


def write_backup_record(policy: Path, category: str, record: BackupRecord) -> Path:
    """Write ``record`` beside ``policy``, keep those of other categories; return the file."""
    file = backup_records_path(policy)
    categories = {**read_backup_records(policy), category: record}
    artefact.write_json(file, _File(categories=categories))
    return file


def category_hash(category: Category, sources: Mapping[str, Source]) -> str:
    """Return the SHA-256 of what decides whether a backup helps: the tree, labels and models.

    ``sources`` {member: its model}. The threshold is not part of it.
    """
    members = {node.member for _, node in walk(category.decide) if isinstance(node, MemberNode)}
    digest = hashlib.sha256()
    kept = {"decide", "positive", "prevalence"}
    digest.update(category.model_dump_json(include=kept, exclude_defaults=True).encode())
    for name in sorted(members):  # loading verifies that a model is what its hash says
        digest.update(f"\n{name} {sources[name].identity}".encode())
    return digest.hexdigest()


def unproven(policy: Policy, sources: Mapping[str, Source]) -> Iterator[str]:
    """Yield a line for every cascade whose later stages are not known to help.

    ``sources`` {member: its model}, of all of the policy's members.
    """
    records = read_backup_records(policy.path)
    for name, category in policy.categories.items():
        if not has_backup(category):
            continue
        record = records.get(name)
        file = backup_records_path(policy.path).name
        if record is None:
            why = "has not been shown to help; `guardkit policy frontier` measures it"
        elif record.hash != category_hash(category, sources):
            why = f"was measured before it changed ({file}); `guardkit policy frontier` again"
        elif not record.helps:
            why = f"was not shown to help where it was measured ({file})"
        else:
            continue
        yield f"category {name!r}: its backup {why}"


def has_backup(category: Category) -> bool:
    """Return whether the category's tree is a cascade in which a classifier follows another."""
    node = category.decide
    if not isinstance(node, CascadeNode):
        return False
    return any(
        stage.settle is not None and any(isinstance(n, MemberNode) for _, n in walk(stage))
        for stage in node.cascade[:-1]
    )
