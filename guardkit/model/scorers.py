"""By which of its scorers a model is meant: names that a family offers, and those calibrated.

An artefact's default scorer has no name here (``None``): it is what a model is where nobody names
one, so that naming it changes nothing.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from guardkit.calibration.maps import read_calibration
from guardkit.errors import ArtefactError, GuardkitError
from guardkit.member_options import MemberOptions
from guardkit.model import artefact
from guardkit.types import ClassifierFamily, HasScorers


class Source(NamedTuple):
    """Where scores come from: a model's folder (None where there is none), which of its scorers,
    and what a policy's member tells the family."""

    folder: Path | None
    scorer: str | None = None
    options: MemberOptions | None = None

    @property
    def identity(self) -> str:
        """All that the scores follow from: the model's hash, the scorer and the options.

        Raises ArtefactError where the folder has no hashes.
        """
        digest = None
        if self.folder is not None:
            try:
                digest = artefact.model_hash(self.folder)
            except OSError as error:
                raise ArtefactError(f"{self.folder / artefact.SUMS}: {error.strerror}") from error
        parts = (digest, self.scorer, self.options and self.options.digest)
        return " ".join(part for part in parts if part)

    @property
    def labels(self) -> Sequence[str]:
        """The labels of what is there; loads nothing."""
        if self.folder is not None:
            return artefact.read_config(self.folder).labels
        return self.options.labels if self.options else ()

    def verified_hash(self) -> str:
        """Return the hash that decisions and manifests name, the model's files verified."""
        if self.folder is not None:
            return artefact.verify(self.folder)
        return self.options.digest if self.options else ""


def scorers_of(folder: Path, family: ClassifierFamily) -> Sequence[str]:
    """Return the scorers that ``family`` offers for a model, the default one first; none where it
    knows of no more than one way to score. Raises ArtefactError where it fails at that."""
    if not isinstance(family, HasScorers):
        return ()
    try:
        return tuple(family.scorers(folder))
    except GuardkitError:
        raise
    except Exception as error:  # a plugin's own: say whose it is
        reason = " ".join(f"{type(error).__name__}: {error}".split())[:500]
        message = f"{folder}: plugin {family.name!r} cannot tell its scorers: {reason}"
        raise ArtefactError(message) from error


def find_scorer(folder: Path, family: ClassifierFamily, scorer: str | None) -> str | None:
    """Return ``scorer``, or None where it is the default one. Raises ArtefactError where the model
    has no such scorer."""
    if scorer is None:
        return None
    offered = scorers_of(folder, family)
    if scorer not in offered:
        there = f"offered: {', '.join(offered)}" if offered else (
            f"a model of plugin {family.name!r} has one scorer, which is not named"
        )  # fmt: skip
        raise ArtefactError(f"{folder}: no scorer {scorer!r}; {there}")
    return None if scorer == offered[0] else scorer


def calibrated_scorers(folder: Path, family: ClassifierFamily) -> Mapping[str, bool]:
    """Return the scorers that ``family`` offers for a model, the default one first, and whether
    each has a calibration."""
    offered = enumerate(scorers_of(folder, family))
    return {x: is_calibrated(Source(folder, x if i else None)) for i, x in offered}


def is_calibrated(source: Source) -> bool:
    """Return whether a model has a calibration of this scorer; that of the default one is taken
    for good until the model is loaded. What has no model needs none."""
    if source.folder is None:
        return True
    file = source.folder / artefact.CALIBRATION
    if source.scorer is None:
        return file.is_file()
    return file.is_file() and read_calibration(file).of(source.scorer) is not None


def not_calibrated(source: Source) -> str:
    """Return what is wrong with a model whose scorer has no calibration."""
    if source.scorer is not None:
        return (
            f"{source.folder}: its scorer {source.scorer!r} is not calibrated, so it gives no "
            "probabilities; `guardkit calibrate` fits all of a model's scorers"
        )
    return (
        f"{source.folder}: has no {artefact.CALIBRATION}, so it gives no probabilities; "
        "`guardkit train` fits one at its end, `guardkit models import` on the text that "
        "--calibration-data names, `guardkit calibrate` afterwards"
    )
