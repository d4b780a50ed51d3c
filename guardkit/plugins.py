"""Find, isolate, check and index plugins.

pluggy's own entry-point loader stops at the first broken import, silently skips a second
distribution of the same name and lets misspelt hooks pass. This one isolates the first and
refuses the others.
"""

from __future__ import annotations

import difflib
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from importlib.metadata import EntryPoint, entry_points
from typing import TYPE_CHECKING, Any

import pluggy

from guardkit import hookspecs
from guardkit.errors import PluginConflictError, PluginError
from guardkit.hookspecs import PROJECT
from guardkit.types import ClassifierFamily, Combiner

if TYPE_CHECKING:
    from guardkit.policy.schema import Policy
    from guardkit.types import Decision

ENV_ALLOWED = "GUARDKIT_PLUGINS"
#: Ways to merge an ensemble that the policy language itself defines.
BUILTIN_COMBINERS = ("any", "all", "weighted", "product", "stacked")


@dataclass(frozen=True, slots=True)
class Plugin:
    """One installed entry point; ``error`` is why it could not be used, if so."""

    name: str
    distribution: str
    version: str
    classifiers: tuple[str, ...] = ()
    combiners: tuple[str, ...] = ()
    hooks: tuple[str, ...] = ()
    error: str | None = None


@dataclass(frozen=True)
class Plugins:
    """Everything the installed and allowed plugins provide, by name."""

    plugins: Mapping[str, Plugin]
    families: Mapping[str, ClassifierFamily]
    combiners: Mapping[str, Combiner]
    manager: pluggy.PluginManager
    allowed: frozenset[str] | None  # None: whatever is installed
    listeners: frozenset[str] = frozenset()  # what hears every policy's decisions

    def family(self, name: str) -> ClassifierFamily:
        """Return the family called ``name``; PluginError says what there is instead."""
        if name in self.families:
            return self.families[name]
        plugin = self.plugins.get(name)
        if plugin is not None and plugin.error is not None:
            raise PluginError(
                f"plugin {name!r} ({plugin.distribution} {plugin.version}) is installed but "
                f"cannot be used: {plugin.error}"
            )
        limit = f"; {ENV_ALLOWED} allows only {_join(self.allowed)}" if self.allowed else ""
        raise PluginError(
            f"no classifier family is called {name!r}; available: {_join(self.families)}{limit}. "
            "`guardkit plugins` lists what is installed"
        )

    def notify_decided(
        self, texts: Sequence[str], decisions: Sequence[Decision], policy: Policy
    ) -> None:
        """Call ``decided`` of the plugins that GUARDKIT_PLUGINS or the policy names.

        Installed does not mean enabled: without a name, no plugin sees a text. PluginError where
        a named plugin is broken: an audit that cannot run must not pass unseen.
        """
        enabled = self._enabled(policy)
        for plugin in self.plugins.values():
            if plugin.name in enabled and plugin.error is not None:
                raise PluginError(
                    f"plugin {plugin.name!r} is enabled but cannot be used: {plugin.error}"
                )
        # copies: a plugin that takes some out takes none from the output
        tell = self._decided(enabled)
        tell(texts=list(texts), decisions=list(decisions), policy=policy)

    def with_listener(self, name: str, listener: object) -> Plugins:
        """Return these plugins and ``listener``, whose ``decided`` hook is called for every
        policy."""
        manager = pluggy.PluginManager(PROJECT)
        manager.add_hookspecs(hookspecs)
        for known, module in [*self.manager.list_name_plugin(), (name, listener)]:
            if module is not None:
                manager.register(module, name=known)
        return replace(self, manager=manager, listeners=self.listeners | {name})

    def heard(self, policy: Policy) -> bool:
        """Return whether a plugin is told what ``policy`` decides."""
        return bool(self._decided(self._enabled(policy)).get_hookimpls())

    def _enabled(self, policy: Policy) -> set[str]:
        return set(policy.plugins) | (self.allowed or frozenset()) | self.listeners

    def _decided(self, enabled: set[str]) -> pluggy.HookCaller:
        others = [p for name, p in self.manager.list_name_plugin() if name not in enabled]
        return self.manager.subset_hook_caller("decided", remove_plugins=others)


@cache
def installed_plugins() -> Plugins:
    """Return the plugins of this process, loaded once."""
    names = os.environ.get(ENV_ALLOWED)
    allowed = frozenset(n.strip() for n in names.split(",") if n.strip()) if names else None
    return load_plugins(entry_points(group=PROJECT), allowed)


def load_plugins(found: Sequence[EntryPoint], allowed: frozenset[str] | None = None) -> Plugins:
    """Load ``found``, sorted by name, and index what they register.

    A plugin whose import or registration raises is kept with its ``error`` and nothing else;
    raises PluginConflictError where two plugins, classifiers or combiners share a name, and
    PluginError for a misspelt hook or an allowed name that is not installed.
    """
    entries = _by_name(found)
    if allowed is not None:
        if missing := allowed - entries.keys():
            raise PluginError(
                f"{ENV_ALLOWED} names {_join(missing)}, not installed; installed: {_join(entries)}"
            )
        entries = {name: e for name, e in entries.items() if name in allowed}

    manager = pluggy.PluginManager(PROJECT)
    manager.add_hookspecs(hookspecs)
    plugins: dict[str, Plugin] = {}
    for name, entry in entries.items():
        dist = entry.dist
        plugin = Plugin(name, dist.name if dist else "?", dist.version if dist else "?")
        try:
            manager.register(entry.load(), name=name)
        except pluggy.PluginValidationError as error:  # a hook with arguments we do not pass
            raise PluginError(f"plugin {name!r}: {error}") from error
        except KeyboardInterrupt:
            raise
        except BaseException as error:  # isolated, an exit too: shown when someone asks for it
            plugin = replace(plugin, error=f"{type(error).__name__}: {error}")
        plugins[name] = plugin
    _refuse_misspelt_hooks(manager)

    families: dict[str, ClassifierFamily] = {}
    combiners: dict[str, Combiner] = {}
    owners: dict[str, str] = {f"combiner {how!r}": "guardkit itself" for how in BUILTIN_COMBINERS}
    for name, plugin in plugins.items():
        if plugin.error is not None:
            continue
        try:
            own_families = {f.name: f for f in _each(manager, "register_classifiers", name)}
            own_combiners = dict(_each(manager, "register_combiners", name, mapping=True))
        except (PluginConflictError, KeyboardInterrupt):
            raise
        except BaseException as error:  # isolated, as a broken import is
            plugins[name] = replace(plugin, error=f"{type(error).__name__}: {error}")
            continue
        for kind, own in (("classifier", own_families), ("combiner", own_combiners)):
            for item in own:
                owner = owners.setdefault(f"{kind} {item!r}", name)
                if owner != name:
                    raise PluginConflictError(
                        f"{kind} {item!r} is registered by {owner!r} and by {name!r}; uninstall "
                        f"one, or leave one out with {ENV_ALLOWED}"
                    )
        families |= own_families
        combiners |= own_combiners
        hooks = sorted(c.name for c in manager.get_hookcallers(manager.get_plugin(name)) or ())
        plugins[name] = replace(
            plugin,
            classifiers=tuple(own_families),
            combiners=tuple(own_combiners),
            hooks=tuple(hooks),
        )
    return Plugins(plugins, families, combiners, manager, allowed)


def _by_name(found: Sequence[EntryPoint]) -> dict[str, EntryPoint]:
    """Sort by name; one distribution seen twice on the path counts once, two do not."""
    entries: dict[str, EntryPoint] = {}
    for entry in sorted(found, key=lambda e: e.name):
        first = entries.setdefault(entry.name, entry)
        owners = [e.dist.name if e.dist else "?" for e in (first, entry)]
        if first.value != entry.value or owners[0] != owners[1]:
            raise PluginConflictError(
                f"plugin name {entry.name!r} is claimed by {owners[0]} ({first.value}) and by "
                f"{owners[1]} ({entry.value}); uninstall one"
            )
    return entries


def _each(manager: pluggy.PluginManager, hook: str, name: str, mapping: bool = False) -> list[Any]:
    """Return what plugin ``name`` alone registers through ``hook``, repeats refused."""
    items: list[Any] = []
    for implementation in getattr(manager.hook, hook).get_hookimpls():
        if implementation.plugin_name == name:
            value = implementation.function()
            items += list(value.items()) if mapping else list(value)
    names = [item[0] if mapping else item.name for item in items]
    if repeated := {n for n in names if names.count(n) > 1}:
        raise PluginConflictError(f"plugin {name!r} registers {_join(repeated)} more than once")
    return items


def _refuse_misspelt_hooks(manager: pluggy.PluginManager) -> None:
    known = [n for n in vars(hookspecs) if hasattr(getattr(hookspecs, n), f"{PROJECT}_spec")]
    for caller in vars(manager.hook).values():
        if isinstance(caller, pluggy.HookCaller) and not caller.has_spec():
            who = _join(i.plugin_name for i in caller.get_hookimpls())
            close = difflib.get_close_matches(caller.name, known, n=1)
            hint = f"; did you mean {close[0]!r}?" if close else "."
            raise PluginError(
                f"plugin {who} implements hook {caller.name!r}, which does not exist{hint} "
                f"Hooks: {_join(known)}"
            )


def _join(names: Any) -> str:
    return ", ".join(sorted(names)) or "none"
