"""Which folder a model's name means: a path, or a model that comes with a plugin."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from guardkit.errors import ArtefactError
from guardkit.plugins import Plugins
from guardkit.types import ClassifierFamily

BUILTIN = "builtin:"


def find_model(ref: str, *, family: str | None, base: Path, plugins: Plugins) -> Path:
    """Return the folder ``ref`` means: a path from ``base``, or a bundled model.

    ``builtin:FAMILY/NAME`` says which family's model it is, the same as ``family`` where that is
    given; ``builtin:NAME`` is ``family``'s model, or the only one of that name. Raises
    ArtefactError where there is no such bundled model, or more than one.
    """
    if not ref.startswith(BUILTIN):
        return (base / Path(ref).expanduser()).resolve()
    owner, _, name = ref.removeprefix(BUILTIN).rpartition("/")
    asked = dict.fromkeys(f for f in (family, owner) if f)
    families = [plugins.family(f) for f in asked] or plugins.families.values()
    found = [folder for folder in bundled_models(families) if folder.name == name]
    if len(found) == 1 and len(asked) < 2:
        return found[0]
    why = "no such bundled model"
    if len(asked) > 1:
        why = f"is of plugin {owner!r}, asked for as {family!r}"
    elif len(found) > 1:
        why = "more than one family has it"
    names = sorted(f"{BUILTIN}{f.name}/{folder.name}" for f in families for folder in _bundled(f))
    raise ArtefactError(f"{ref}: {why}; bundled: {', '.join(names) or 'none'}")


def bundled_models(families: Iterable[ClassifierFamily]) -> list[Path]:
    """Return the folders of the models that come with the families."""
    return [folder for family in families for folder in _bundled(family)]


def _bundled(family: ClassifierFamily) -> list[Path]:
    if not family.builtin or not family.builtin.is_dir():
        return []
    return [folder for folder in sorted(family.builtin.iterdir()) if folder.is_dir()]
