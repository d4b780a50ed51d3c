"""The page at ``/`` as a real browser shows it, used by keyboard and on a phone."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.browser import Tab, browsing
from tests.support.serving import Served, read_keys, serving

KEY = "0123456789abcdef-key"
TAKEN_OVER = "<img src=x onerror=\"document.title='taken over'\">"


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    with serving(tmp_path_factory.mktemp("served")) as server:
        yield server


@pytest.fixture
def tab() -> Iterator[Tab]:
    with browsing() as tab:
        tab.size(1000, 1400)
        yield tab


def judged(tab: Tab, text: str) -> str:
    """Write a text where the cursor is, judge it, and return what the page says then."""
    tab.value("document.getElementById('text').value = ''")
    tab.value("document.getElementById('text').focus()")
    tab.type(text)
    tab.press("Enter", ctrl=True)
    tab.wait("document.getElementById('status').textContent !== 'Judging.' && "
             "(!document.getElementById('answer').hidden || "
             "document.getElementById('status').textContent !== '')")  # fmt: skip
    said: str = tab.value("document.body.innerText")
    return said


def test_a_text_is_judged_by_keyboard_alone(served: Served, tab: Tab) -> None:
    tab.open(f"{served.url}/")
    tab.wait("document.getElementById('policy').textContent.includes('Policy test')")
    assert tab.value("document.activeElement.id") == "text", "the cursor is where one writes"
    tab.type("an attack")
    order = []
    for _ in range(3):
        tab.press("Tab")
        order.append(tab.value("document.activeElement.id || document.activeElement.tagName"))
    assert order[:2] == ["SUMMARY", "BUTTON"]
    tab.value("document.querySelector('button').focus()")
    tab.press("Enter")
    tab.wait("!document.getElementById('answer').hidden")
    assert tab.value("document.activeElement.id") == "verdict", "what is new is read out"
    said = tab.value("document.body.innerText")
    assert tab.value("document.getElementById('verdict').textContent") == "block"
    for word in ("injection", "0.881", "0.500", "only, score 0.881, decides", "Member only",
                 "benign 0.119, injection 0.881", "scorer posterior"):  # fmt: skip
        assert word in said
    pieces = "[...document.querySelectorAll('.text span')].map(s => [s.className, s.textContent])"
    assert tab.value(pieces) == [["against", "an"], ["for", "attack"]]
    colour = "getComputedStyle(document.querySelector('.text .for')).backgroundColor"
    assert tab.value(colour) not in ("rgba(0, 0, 0, 0)", "")
    assert tab.complaints() == []


def test_a_conversation_is_read_as_one(served: Served, tab: Tab) -> None:
    tab.open(f"{served.url}/")
    messages = [{"role": "user", "content": "a cake"}, {"role": "assistant", "content": "attack"}]
    said = judged(tab, json.dumps(messages))
    assert "only of messages[1].content (assistant)" in said
    assert "allow" in judged(tab, json.dumps({"messages": messages[:1]}))
    assert "allow" in judged(tab, '{"no": "record"}'), "other JSON is a text"
    assert "[1, 2]" in judged(tab, "[1, 2]")


def test_nothing_in_a_text_becomes_part_of_the_page(served: Served, tab: Tab) -> None:
    tab.open(f"{served.url}/")
    said = judged(tab, f"attack {TAKEN_OVER} a\u202eb \U0001f600 attack")
    assert TAKEN_OVER in said
    assert "a[U+202E]b" in said
    assert tab.value("document.querySelectorAll('img').length") == 0
    assert tab.value("document.title") == "guardkit"
    last = "[...document.querySelectorAll('.text span')].at(-1).textContent"
    assert tab.value(last) == "attack", "pieces stay whole behind a character of two units"
    assert tab.complaints() == []


def test_what_fails_is_told(served: Served, tab: Tab) -> None:
    tab.open(f"{served.url}/")
    said = judged(tab, "BROKEN")
    assert "block, not judged" in said
    assert "could not be judged" in said
    image = [{"role": "user", "content": [{"type": "image_url"}]}]
    assert "Not judged: " in judged(tab, json.dumps(image))


def test_a_key_is_asked_for_and_stays_in_the_page(tmp_path: Path, tab: Tab) -> None:
    (tmp_path / "keys").write_text(KEY)
    with serving(tmp_path, keys=read_keys(tmp_path / "keys")) as served:
        tab.open(f"{served.url}/")
        assert "Not judged: a key is needed" in judged(tab, "an attack")
        assert tab.value("document.getElementById('keyed').open")
        tab.value("document.getElementById('key').focus()")
        tab.type(KEY)
        assert "Member only" in judged(tab, "an attack")
        stored = "document.cookie + JSON.stringify(localStorage) + location.href"
        assert KEY not in tab.value(stored)


@pytest.mark.parametrize("width", [320, 390])
def test_on_a_phone_nothing_is_wider_than_the_screen(served: Served, tab: Tab, width: int) -> None:
    tab.size(width, 800, phone=True)
    wide = "document.documentElement.scrollWidth - document.documentElement.clientWidth"
    tab.open(f"{served.url}/")
    judged(tab, "attack " + "x" * 500)
    assert tab.value(wide) <= 0
    size = "parseFloat(getComputedStyle(document.getElementById('text')).fontSize)"
    assert tab.value(size) >= 16, "smaller, a phone zooms in"
    tab.open(f"{served.url}/docs")
    assert tab.value(wide) <= 0


def test_the_reference_needs_nothing_from_elsewhere(served: Served, tab: Tab) -> None:
    tab.open(f"{served.url}/docs")
    said = tab.value("document.body.innerText")
    for word in ("POST /v1/moderations", "POST /v1/classify", "GET /metrics", "ModerationAnswer"):
        assert word in said
    assert tab.value("document.querySelectorAll('script').length") == 0
    broken = ("[...document.querySelectorAll('a[href^=\"#\"]')]"
              ".filter(a => !document.getElementById(a.hash.slice(1))).length")  # fmt: skip
    assert tab.value(broken) == 0
    assert tab.complaints() == []
