"""The report as a browser shows it: laid out, painted, and no text in it runs."""

from __future__ import annotations

import json
import re
import subprocess
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from guardkit.evaluation.report import render, write_report
from tests.support.browser import QUIET, find_browser
from tests.support.evaluations import KINDS, reports_of_each_kind

MEASURE = """
<script>
const plots = [...document.querySelectorAll("svg.plot")];
const inside = (box, of) => box.left >= of.left - 1 && box.right <= of.right + 1 &&
  box.top >= of.top - 1 && box.bottom <= of.bottom + 1;
document.title = JSON.stringify({
  overflow: document.documentElement.scrollWidth - document.documentElement.clientWidth,
  plots: plots.map(plot => plot.getBoundingClientRect()).map(box => [box.width, box.height]),
  cut: plots.flatMap(plot => [...plot.querySelectorAll("text")]
    .filter(text => !inside(text.getBoundingClientRect(), plot.getBoundingClientRect()))
    .map(text => text.textContent)),
  ground: getComputedStyle(document.body).backgroundColor,
  ink: getComputedStyle(document.body).color,
  hidden: [...document.querySelectorAll("section")].filter(s => s.offsetHeight < 40).length,
});
</script>
"""
Browse = Callable[..., str]


@pytest.fixture(scope="module")
def reports(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    return reports_of_each_kind(tmp_path_factory.mktemp("reports"))


@pytest.fixture(scope="module")
def browse() -> Browse:
    """Return f(page, *options): the page's DOM once a browser has laid it out."""
    browser = find_browser()

    def run(page: Path, *options: str) -> str:
        with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
            command = [
                browser, *QUIET, f"--user-data-dir={profile}",
                *options, page.as_uri(),
            ]  # fmt: skip
            done = subprocess.run(command, capture_output=True, check=True, timeout=120)
        return done.stdout.decode("utf-8")

    return run


def rgb(colour: str) -> list[int]:
    return [int(x) for x in re.findall(r"\d+", colour)[:3]]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    ("width", "scheme"), [(1200, "light"), (1200, "dark"), (420, "light")], ids=str
)
def test_a_browser_lays_the_page_out(
    browse: Browse, tmp_path: Path, reports: dict[str, Any], kind: str, width: int, scheme: str
) -> None:
    page = tmp_path / "page.html"
    html = re.sub(r"<meta http-equiv[^>]*>", "", render(reports[kind]))  # lets the ruler in
    page.write_text(html.replace("</body>", f"{MEASURE}</body>"), "utf-8")
    dom = browse(
        page,
        "--dump-dom",
        f"--window-size={width},2000",
        f"--blink-settings=preferredColorScheme={0 if scheme == 'dark' else 1}",
    )
    (title,) = re.findall(r"<title>(\{.*?\})</title>", dom)
    seen = json.loads(title)
    assert seen["overflow"] <= 0, "the page is wider than its window"
    assert seen["cut"] == [], "words stick out of a picture"
    assert seen["hidden"] == 0
    assert all(w > 250 and h > 180 for w, h in seen["plots"])
    ground, ink = (sum(rgb(seen[name])) for name in ("ground", "ink"))
    assert (ground > 650 > 150 > ink) if scheme == "light" else (ground < 150 < 650 < ink)


def test_a_browser_runs_nothing_of_a_hostile_text(
    browse: Browse, tmp_path: Path, reports: dict[str, Any]
) -> None:
    for kind in ("model", "policy"):
        page = write_report(tmp_path, reports[kind])
        dom = browse(page, "--dump-dom", "--window-size=1200,2000")
        assert f"<title>Evaluation of {reports[kind]['name']}</title>" in dom
        assert not re.search(r"<(script|img)\b", dom)
        # the text is there, as text
        assert "&lt;script&gt;document.title='taken over'&lt;/script&gt;" in dom


def test_the_pages_own_rule_stops_a_script_that_got_in_all_the_same(
    browse: Browse, tmp_path: Path, reports: dict[str, Any]
) -> None:
    page = tmp_path / "page.html"
    page.write_text(render(reports["model"]).replace("</body>", f"{MEASURE}</body>"), "utf-8")
    assert "<title>Evaluation of model (fake)</title>" in browse(page, "--dump-dom")


def test_a_browser_paints_the_curves(
    browse: Browse, tmp_path: Path, reports: dict[str, Any]
) -> None:
    image = pytest.importorskip("matplotlib.image")
    page, picture = write_report(tmp_path, reports["model"]), tmp_path / "page.png"
    browse(
        page,
        f"--screenshot={picture}",
        "--window-size=1200,2400",
        "--blink-settings=preferredColorScheme=1",
    )
    pixels = (255 * image.imread(picture)[:, :, :3]).round().astype(int)
    for colour in ((0x0F, 0x6F, 0xC5), (0xB5, 0x65, 0x1D)):  # --hit and --other in report.css
        assert (pixels == colour).all(axis=2).sum() > 1000, colour
