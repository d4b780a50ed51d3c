"""Every hook a plugin may implement. Small and orthogonal; see docs/hooks.md.

A plugin is a module named by an entry point of the group ``guardkit``:

    [project.entry-points.guardkit]
    keywords = "guardkit_keywords"

and marks its functions with ``guardkit.hookimpl``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import pluggy

if TYPE_CHECKING:
    from guardkit.policy.schema import Policy
    from guardkit.types import ClassifierFamily, Combiner, Decision

PROJECT = "guardkit"
hookspec = pluggy.HookspecMarker(PROJECT)
hookimpl = pluggy.HookimplMarker(PROJECT)


@hookspec
def register_classifiers() -> Sequence[ClassifierFamily]:
    """Return the classifier families this plugin provides.

    Called once, at start-up: be quick, import no torch.

    :returns: families; a name already taken raises PluginConflictError.
    """
    raise NotImplementedError  # a specification: pluggy never calls it


@hookspec
def register_combiners() -> Mapping[str, Combiner]:
    """Return ways to merge an ensemble, by the name policies use in ``combine: {how: NAME}``.

    Called once, at start-up: be quick, import no torch.

    :returns: name -> f(log_odds_MN, prior_log_odds_M) -> log_odds_N; M members, N texts,
        float32, natural logarithm. It sees only texts that every part answered.
    """
    raise NotImplementedError  # a specification: pluggy never calls it


@hookspec
def decided(texts: Sequence[str], decisions: Sequence[Decision], policy: Policy) -> None:
    """A policy decided one batch: for audit logs and metrics.

    Runs only for plugins that ``GUARDKIT_PLUGINS`` or the policy's ``plugins`` names, at
    least once per batch (a batch redone after a crash is seen twice). It cannot change a
    decision. An exception ends the run with exit code 3: an audit that fails must not pass
    unseen.

    :param texts: the batch, raw.
    :param decisions: one per text, in order.
    :param policy: the policy that decided, as loaded.
    """
    raise NotImplementedError  # a specification: pluggy never calls it
