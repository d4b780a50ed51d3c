"""Entry points and plugin modules that exist only in memory."""

from __future__ import annotations

from collections.abc import Callable
from types import ModuleType, SimpleNamespace
from typing import Any

from guardkit.hookspecs import hookimpl


def plugin_module(**hooks: Callable[..., Any]) -> ModuleType:
    """Return a module that implements ``hooks``, as an entry point would load it."""
    module = ModuleType("fake_plugin")
    for name, function in hooks.items():
        setattr(module, name, hookimpl(function))
    return module


def entry(
    name: str, loads: Any = None, *, distribution: str | None = None, value: str | None = None
) -> Any:
    """Return an entry point. ``loads`` is what it loads, or the exception its import raises."""

    def load() -> Any:
        if isinstance(loads, BaseException):
            raise loads
        return plugin_module() if loads is None else loads

    dist = SimpleNamespace(name=distribution or f"guardkit-{name}", version="1.2.3")
    return SimpleNamespace(name=name, value=value or f"guardkit_{name}", dist=dist, load=load)
