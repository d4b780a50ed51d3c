"""The report as a page: all of it there, nothing from elsewhere, no text that acts."""

from __future__ import annotations

import json
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from guardkit.errors import OutputError, UsageError
from guardkit.evaluation.report import prepare, render, show_metric, show_number, write_report
from tests.support.evaluations import (
    HOSTILE,
    KINDS,
    POLICY,
    examples_of,
    hostile_examples,
    model_of,
    report_of,
    reports_of_each_kind,
    router_of,
)

VOID = {"meta", "br", "link", "img", "input", "hr"}


@pytest.fixture(scope="module")
def reports(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    return reports_of_each_kind(tmp_path_factory.mktemp("reports"))


class Page(HTMLParser):
    """Checks that tags are closed in order; keeps tags, attributes and text."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(html)
        assert not self.open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag, f"</{tag}> closes another"

    def handle_data(self, data: str) -> None:
        if "style" not in self.open:
            self.text += data

    @property
    def words(self) -> str:
        return " ".join(self.text.split())


@pytest.mark.parametrize("kind", KINDS)
def test_a_page_needs_nothing_from_elsewhere(reports: dict[str, Any], kind: str) -> None:
    html = render(reports[kind])
    page = Page(html)
    assert {tag for tag, _ in page.tags}.isdisjoint({"script", "link", "img", "iframe", "object"})
    for tag, attributes in page.tags:
        for name, value in attributes.items():
            assert not name.startswith("on"), f"<{tag} {name}>"
            assert name not in ("src", "srcset", "data", "action"), f"<{tag} {name}>"
            assert name not in ("href", "xlink:href") or (value or "").startswith("#")
    (style,) = re.findall(r"<style>(.*?)</style>", html, flags=re.S)
    assert "url(" not in style
    assert "@import" not in style
    policy = next(a["content"] for t, a in page.tags if a.get("http-equiv"))
    assert policy == "default-src 'none'; style-src 'unsafe-inline'"


@pytest.mark.parametrize("kind", KINDS)
def test_a_hostile_text_stays_a_text(reports: dict[str, Any], kind: str) -> None:
    page = Page(render(reports[kind]))
    assert sum(tag == "style" for tag, _ in page.tags) == 1
    assert "\u202e" not in page.text
    if kind == "labels":
        assert "<i>c</i>" in page.text
        return
    assert "<b>web</b>" in page.text
    assert HOSTILE.split("\u202e")[0].strip() in page.text
    assert "{{ 7 * 7 }}" in page.text
    assert "[U+202E]gnp.exe[U+202C] &lt;b&gt;" in page.text


@pytest.mark.parametrize("kind", KINDS)
def test_every_picture_says_what_it_shows(reports: dict[str, Any], kind: str) -> None:
    page = Page(render(reports[kind]))
    pictures = [a for tag, a in page.tags if tag == "svg" and a["class"] == "plot"]
    assert len(pictures) == (10 if kind == "policy" else 5)
    assert all(a["role"] == "img" and len(a["aria-label"] or "") > 20 for a in pictures)
    others = [a for tag, a in page.tags if tag == "svg" and a["class"] != "plot"]
    assert all(a.get("aria-hidden") == "true" for a in others)
    assert not re.search(r"\bnan\b|\binf\b", " ".join(str(a) for _, a in page.tags))


def test_a_models_page_holds_its_numbers(reports: dict[str, Any]) -> None:
    report = reports["model"]
    page = Page(render(report))
    for name in ("roc_auc", "recall_at_fpr_1%", "ece", "brier"):
        assert show_metric(report["metrics"][name], name) in page.text, name
    for source, part in report["sources"].items():
        assert f"{source} " in page.words
        assert f"{part['metrics']['fpr']['value']:.1%}" in page.text
    assert "only texts that should pass, so every flag there is a mistake: notes." in page.words
    assert "Recall at 0.1% FPR: only" in page.words
    assert f"{report['metrics']['recall']['value']:.1%}" in page.text
    assert report["model_hash"] in page.text
    assert "2026-01-02 03:04 UTC" in page.text


def test_a_policys_page_holds_every_category_route_and_member(reports: dict[str, Any]) -> None:
    report = reports["policy"]
    page = Page(render(report))
    assert "Category injection" in page.words
    assert "Category again" in page.words
    for route in report["categories"]["injection"]["routes"]:
        assert route in page.text
    for member, cost in report["cost"]["members"].items():
        assert f"{member}{cost['asked']:.1%}{cost['texts']}" in page.text  # neighbouring cells
    assert "1 text could not be judged; what was done with it is what the policy says" in page.words
    assert "ValueError: cannot score this" in page.text
    assert all(hash in page.text for hash in report["models"].values())


def test_text_that_should_pass_alone_makes_a_page(tmp_path: Path) -> None:
    examples = examples_of([[0, x] for x in (-1, 1, -2)], ["benign"] * 3)
    for judging in (model_of(tmp_path), router_of(tmp_path)):
        page = Page(render(report_of(judging, examples)))
        assert "Not one text here is injection. Of these texts, which should pass" in page.words
        assert "The data names no sources" in page.words
        assert "ROC curve" not in page.text


def test_a_page_without_texts_says_that_they_are_left_out(tmp_path: Path) -> None:
    page = Page(render(report_of(model_of(tmp_path), hostile_examples(), texts=False)))
    assert "The text is left out." in page.text
    assert "gnp.exe" not in page.text


def test_a_policy_that_expects_another_prevalence_is_read_with_care(tmp_path: Path) -> None:
    policy = POLICY.replace("    decide:", "    prevalence: 0.01\n    decide:")
    examples = examples_of([[0, 3], [0, -3]] * 30, ["injection", "benign"] * 30)
    page = Page(render(report_of(router_of(tmp_path, policy), examples)))
    assert "for a share of 1.0% positive texts; here 50.0% are positive" in page.words


def test_the_page_is_made_of_its_json_alone(tmp_path: Path, reports: dict[str, Any]) -> None:
    for kind, report in reports.items():
        prepare(tmp_path / "new" / kind)
        page = write_report(tmp_path / "new" / kind, report)
        read = json.loads((page.parent / "report.json").read_text("utf-8"))
        assert render(read) == page.read_text("utf-8")


def test_a_folder_that_cannot_be_made_is_refused_before_the_work(
    tmp_path: Path, reports: dict[str, Any]
) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UsageError, match=r"--report .*file: cannot be made"):
        prepare(tmp_path / "file")
    with pytest.raises(OutputError, match="the report cannot be written"):
        write_report(tmp_path / "gone", reports["model"])


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (None, "-"),
        (1889, "1,889"),
        (0.0, "0"),
        (12.8349, "12.8"),
        (1234.5, "1,234"),
        (0.0123, "0.0123"),
    ],
)
def test_numbers_are_shown_to_three_digits(value: float | None, shown: str) -> None:
    assert show_number(value) == shown
