"""Plugins are found, isolated, checked and indexed."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from guardkit.errors import PluginConflictError, PluginError
from guardkit.plugins import (
    BUILTIN_COMBINERS,
    ENV_ALLOWED,
    Plugins,
    installed_plugins,
    load_plugins,
)
from tests.support.fake_models import FakeFamily
from tests.support.fake_plugins import entry, plugin_module

POLICY: Any = SimpleNamespace(name="test", plugins=["audit"])


def loaded(**modules: Any) -> Plugins:
    """Load plugins: entry-point name -> what it loads, or the exception its import raises."""
    return load_plugins([entry(name, module) for name, module in modules.items()])


def registering(*names: str) -> Any:
    families = [FakeFamily(lambda model, text: [0.0, 0.0], name) for name in names]
    return plugin_module(register_classifiers=lambda: families)


def combining(*names: str) -> Any:
    return plugin_module(register_combiners=lambda: dict.fromkeys(names, np.add))


# -- what the hooks give ---------------------------------------------------------------------


def test_register_classifiers_makes_families_available_by_name() -> None:
    plugins = loaded(a=registering("keywords"), b=registering("length"))
    assert plugins.family("keywords").name == "keywords"
    assert list(plugins.families) == ["keywords", "length"]
    assert plugins.plugins["a"].classifiers == ("keywords",)


def test_register_combiners_makes_combiners_available_by_name() -> None:
    def lowest(log_odds_MN: np.ndarray, prior_log_odds_M: np.ndarray) -> np.ndarray:
        return log_odds_MN.min(0)

    plugins = loaded(merge=plugin_module(register_combiners=lambda: {"lowest": lowest}))
    assert plugins.combiners == {"lowest": lowest}
    assert plugins.plugins["merge"].combiners == ("lowest",)


def test_a_plugin_is_described_with_its_distribution_and_hooks() -> None:
    found = entry("keywords", registering("keywords"), distribution="guardkit-keywords")
    plugin = load_plugins([found]).plugins["keywords"]
    assert (plugin.distribution, plugin.version) == ("guardkit-keywords", "1.2.3")
    assert plugin.hooks == ("register_classifiers",)
    assert plugin.error is None


def test_plugins_load_in_the_order_of_their_names() -> None:
    order: list[str] = []

    def loading(name: str) -> Any:
        found = entry(name)
        found.load = lambda: order.append(name) or plugin_module()
        return found

    plugins = load_plugins([loading("zebra"), loading("ant"), loading("mole")])
    assert order == list(plugins.plugins) == ["ant", "mole", "zebra"]


# -- decided ---------------------------------------------------------------------------------


def recorder(seen: list[str], name: str) -> Any:
    def decided(texts: Sequence[str]) -> None:
        seen.append(f"{name}: {list(texts)}")

    return plugin_module(decided=decided)


def test_decided_runs_only_for_plugins_that_the_policy_names() -> None:
    seen: list[str] = []
    plugins = loaded(audit=recorder(seen, "audit"), other=recorder(seen, "other"))
    plugins.notify_decided(["hello"], [], POLICY)
    assert seen == ["audit: ['hello']"]


def test_decided_runs_for_plugins_that_the_environment_names() -> None:
    seen: list[str] = []
    found = [entry(name, recorder(seen, name)) for name in ("audit", "metrics", "other")]
    plugins = load_plugins(found, frozenset({"metrics"}))
    plugins.notify_decided(["hello"], [], SimpleNamespace(plugins=[]))
    assert seen == ["metrics: ['hello']"]


def test_decided_gets_texts_decisions_and_policy() -> None:
    got: list[Any] = []

    def decided(texts: Any, decisions: Any, policy: Any) -> None:
        got.extend([texts, decisions, policy])

    texts, decisions = ["a", "b"], [object(), object()]
    loaded(audit=plugin_module(decided=decided)).notify_decided(texts, decisions, POLICY)
    assert got == [texts, decisions, POLICY]


def test_an_audit_that_fails_stops_the_run() -> None:
    def decided() -> None:
        raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        loaded(audit=plugin_module(decided=decided)).notify_decided(["a"], [], POLICY)


def test_an_enabled_plugin_that_is_broken_stops_the_run() -> None:
    plugins = loaded(audit=ImportError("no module named auditlib"))
    with pytest.raises(PluginError, match=r"'audit' is enabled but cannot be used.*auditlib"):
        plugins.notify_decided(["a"], [], POLICY)


# -- what is isolated ------------------------------------------------------------------------


@pytest.mark.parametrize(
    "broken",
    [
        ImportError("no module named nowhere"),
        SystemExit(0),
        plugin_module(register_classifiers=lambda: 1 / 0),
        plugin_module(register_combiners=lambda: ["no", "mapping"]),
        plugin_module(register_classifiers=lambda: [object()]),
    ],
    ids=["import", "exit", "registration raises", "not a mapping", "not a family"],
)
def test_a_broken_plugin_is_isolated_and_named(broken: Any) -> None:
    plugins = loaded(bad=broken, good=registering("good"))
    assert list(plugins.families) == ["good"]
    error = plugins.plugins["bad"].error
    assert error is not None
    with pytest.raises(PluginError, match=r"'bad' \(guardkit-bad 1\.2\.3\) is") as raised:
        plugins.family("bad")
    assert error in str(raised.value)


def test_asking_for_an_unknown_family_says_which_there_are() -> None:
    with pytest.raises(PluginError, match="'gpt3'; available: keywords, length"):
        loaded(a=registering("keywords", "length")).family("gpt3")


# -- what is refused -------------------------------------------------------------------------


def test_two_distributions_with_one_plugin_name_are_refused_by_name() -> None:
    found = [
        entry("mdlm", value="guardkit_mdlm", distribution="guardkit"),
        entry("mdlm", value="evil_mdlm", distribution="evil"),
    ]
    with pytest.raises(PluginConflictError, match=r"'mdlm'.*guardkit \(.*evil \(evil_mdlm\)"):
        load_plugins(found)


def test_one_distribution_seen_twice_on_the_path_counts_once() -> None:
    module = registering("keywords")
    found = [entry("keywords", module), entry("keywords", module)]
    assert list(load_plugins(found).families) == ["keywords"]


@pytest.mark.parametrize("register", [registering, combining], ids=["classifier", "combiner"])
def test_two_plugins_that_register_one_name_are_refused_by_name(register: Any) -> None:
    with pytest.raises(PluginConflictError, match="'same' is registered by 'a' and by 'b'"):
        loaded(a=register("same"), b=register("same"))


def test_one_plugin_that_registers_a_classifier_twice_is_refused() -> None:
    with pytest.raises(PluginConflictError, match="'a' registers same more than once"):
        loaded(a=registering("same", "same"))


@pytest.mark.parametrize("name", BUILTIN_COMBINERS)
def test_a_combiner_of_the_policy_language_cannot_be_replaced(name: str) -> None:
    with pytest.raises(PluginConflictError, match=f"'{name}' is registered by 'guardkit itself'"):
        loaded(a=combining(name))


def test_a_misspelt_hook_is_refused_with_the_name_that_was_meant() -> None:
    misspelt = plugin_module(register_classifier=lambda: [])
    with pytest.raises(PluginError, match=r"plugin a .*did you mean 'register_classifiers'\?"):
        loaded(a=misspelt)


def test_a_hook_like_no_other_is_refused_with_the_hooks_there_are() -> None:
    with pytest.raises(PluginError, match=r"does not exist\. Hooks: decided, register_"):
        loaded(a=plugin_module(zzz=lambda: None))


def test_a_hook_with_an_unknown_argument_is_refused() -> None:
    def decided(texts: Any, verdicts: Any) -> None: ...

    with pytest.raises(PluginError, match=r"(?s)plugin 'a'.*verdicts"):
        loaded(a=plugin_module(decided=decided))


# -- GUARDKIT_PLUGINS ------------------------------------------------------------------------


@pytest.fixture
def installed(monkeypatch: pytest.MonkeyPatch) -> Iterator[Mapping[str, Any]]:
    """Two plugins installed, the second of which must not even be imported."""
    found = {"a": entry("a", registering("a")), "b": entry("b", ImportError("imported"))}
    monkeypatch.setattr("guardkit.plugins.entry_points", lambda group: list(found.values()))
    installed_plugins.cache_clear()
    yield found
    installed_plugins.cache_clear()


@pytest.mark.usefixtures("installed")
def test_the_environment_leaves_out_what_it_does_not_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(ENV_ALLOWED, " a ,")
    plugins = installed_plugins()
    assert list(plugins.plugins) == ["a"]
    with pytest.raises(PluginError, match="GUARDKIT_PLUGINS allows only a"):
        plugins.family("b")


@pytest.mark.usefixtures("installed")
def test_a_name_that_is_not_installed_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(ENV_ALLOWED, "a,c")
    with pytest.raises(PluginError, match="names c, not installed; installed: a, b"):
        installed_plugins()


@pytest.mark.usefixtures("installed")
@pytest.mark.parametrize("value", [None, ""])
def test_without_the_variable_all_that_are_installed_load(
    monkeypatch: pytest.MonkeyPatch, value: str | None
) -> None:
    monkeypatch.delenv(ENV_ALLOWED, raising=False)
    if value is not None:
        monkeypatch.setenv(ENV_ALLOWED, value)
    assert list(installed_plugins().plugins) == ["a", "b"]


def test_the_bundled_plugins_are_found_as_any_third_party_is() -> None:
    installed_plugins.cache_clear()
    plugins = installed_plugins()
    assert (
        plugins.plugins["mdlm"].distribution == plugins.plugins["gpt2"].distribution == "guardkit"
    )
