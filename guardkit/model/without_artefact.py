"""A member that has no model on disk: all it is stands in the policy's options."""

from __future__ import annotations

import math
from pathlib import Path

from guardkit.calibration.maps import Calibration
from guardkit.errors import ClassifierError, ConfigError, GuardkitError, PluginError
from guardkit.member_options import HasOptions, MemberOptions
from guardkit.model.artefact import ArtefactConfig
from guardkit.model.loaded import Model
from guardkit.plugins import Plugins


def config_of(options: MemberOptions) -> ArtefactConfig:
    """Return what a member without a model says of itself."""
    labels = list(options.labels)
    return ArtefactConfig(family=options.family, task="multilabel", labels=labels, network={})


def load_without_artefact(
    options: MemberOptions, *, device: str, backend: str, plugins: Plugins
) -> Model:
    """Load a member that has no model. Its logits stand as log-odds, at even odds before a text is
    read: nothing was fitted. Raises ConfigError where an option cannot be met, ClassifierError
    where the plugin fails at it."""
    family = plugins.family(options.family)
    if not isinstance(family, HasOptions):
        raise PluginError(f"plugin {options.family!r}: its members need a model")
    try:
        classifier = family.load_member(
            None, options.options, timeout_s=options.timeout_s, device=device, backend=backend
        )
    except (GuardkitError, KeyboardInterrupt):
        raise
    except BaseException as error:  # a plugin's own, an exit or a panic too: say whose it is
        reason = " ".join(f"{type(error).__name__}: {error}".split())[:500]
        raise ClassifierError(f"plugin {options.family!r} cannot load it: {reason}") from error
    config = config_of(options)
    if tuple(classifier.labels) != options.labels:
        raise ConfigError(
            f"plugin {options.family!r} gives labels {classifier.labels}, not {options.labels}"
        )
    as_it_stands = Calibration(
        task="multilabel",
        labels=config.labels,
        scale=[1.0] * len(config.labels),
        bias=[0.0] * len(config.labels),
        prior=[0.5] * len(config.labels),
        n=0,
        data="",
        ece_before=math.nan,
        ece_after=math.nan,
        log_loss_before=math.nan,
        log_loss_after=math.nan,
    )
    name = Path(f"{options.family} (no model)")  # what messages call it
    return Model(
        classifier, config, as_it_stands, options.digest, name, options=options, on_disk=False
    )
