"""A folder with models for policy files to name, and plugins sound and broken."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from guardkit.hookspecs import hookimpl
from guardkit.plugins import Plugins
from guardkit.policy.router import check_policy
from guardkit.policy.schema import Policy
from tests.support.fake_models import FakeFamily, plugins_of, write_model


class PolicyFolder(NamedTuple):
    """A folder with models, the plugins that are installed, and the family of the models."""

    path: Path
    plugins: Plugins
    family: FakeFamily


class Audit:
    @hookimpl
    def decided(self, texts: object, decisions: object, policy: object) -> None: ...


def policy_folder_in(folder: Path) -> PolicyFolder:
    """Fill ``folder`` with models, one of them bundled."""
    write_model(folder / "models" / "specialist", novelty=range(19))
    write_model(folder / "models" / "foreign", family="other")
    write_model(folder / "models" / "uncalibrated", calibrated=False)
    write_model(folder / "builtin" / "injection")
    family = FakeFamily(lambda model, text: [0.0, 0.0], builtin=folder / "builtin")
    plugins = plugins_of(
        family,
        combiners={"median": lambda x, prior: x[0]},
        modules={"audit": Audit()},
        broken={"sick": "ImportError: no module named torch"},
    )
    return PolicyFolder(folder, plugins, family)


def check(folder: PolicyFolder, text: str) -> Policy:
    """Check ``text`` as a policy file of the folder."""
    path = folder.path / "policy.yaml"
    path.write_text(text, "utf-8")
    return check_policy(path, folder.plugins)
