"""A folder with models for policy files to name, and plugins sound and broken."""

from __future__ import annotations

from pathlib import Path

from guardkit.hookspecs import hookimpl
from guardkit.plugins import Plugins
from guardkit.policy.router import check_policy
from guardkit.policy.schema import Policy
from tests.support.fake_models import FakeFamily, plugins_of, write_model

#: The folder, what is installed, and the family that models are of.
Desk = tuple[Path, Plugins, FakeFamily]


class Audit:
    @hookimpl
    def decided(self, texts: object, decisions: object, policy: object) -> None: ...


def desk_in(folder: Path) -> Desk:
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
    return folder, plugins, family


def check(desk: Desk, text: str) -> Policy:
    folder, plugins, _ = desk
    path = folder / "policy.yaml"
    path.write_text(text, "utf-8")
    return check_policy(path, plugins)
