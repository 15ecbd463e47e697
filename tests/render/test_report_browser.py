"""The page in a real browser: nothing fetched, no complaints, tables that sort, filter and copy."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from report_runs import ATTACK, write_box

from profiler.render.report import write_report
from profiler.render.vega_runtime import VegaRuntime

CHROMIUM = next(
    (found for name in ("chromium", "chromium-browser", "google-chrome") if (found := shutil.which(name))),
    None,
)
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on PATH (Debian: apt install chromium)")

FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
]


class Watched:
    """A page, and everything it asked for or complained about."""

    def __init__(self, browser: Any, path: Path, **context: Any) -> None:
        self.complaints: list[str] = []
        self.requests: list[str] = []
        self.context = browser.new_context(**context)
        self.page = self.context.new_page()
        self.page.on("console", lambda message: self.complaints.append(message.text))
        self.page.on("pageerror", lambda error: self.complaints.append(str(error)))
        self.page.on("request", lambda request: self.requests.append(request.url))
        self.page.goto(path.as_uri())

    def quiet(self, path: Path) -> bool:
        """Whether nothing but the page itself was asked for and nothing was complained about."""
        own = [url for url in self.requests if url != path.as_uri() and not url.startswith("data:")]
        return not own and not self.complaints


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    sync_api = pytest.importorskip("playwright.sync_api")
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs")
    runs = [
        write_box(folder / "slow", "slow box", 1.0, failing=True),
        write_box(folder / "fast", f"=fast {ATTACK}", 2.0, simulated=True),
    ]
    write_report(runs, folder / "live.html", title=ATTACK, runtime=VegaRuntime())
    return write_report(runs, folder / "report.html", title=ATTACK)


@pytest.mark.parametrize(
    "context",
    [
        {"color_scheme": "light"},
        {"color_scheme": "dark"},
        {"viewport": {"width": 400, "height": 800}},
        {"java_script_enabled": False},
    ],
    ids=["light", "dark", "narrow", "no scripts"],
)
def test_it_is_quiet_fits_and_shows_its_charts(browser: Any, report: Path, context: dict[str, Any]) -> None:
    watched = Watched(browser, report, **context)
    assert watched.quiet(report)
    assert watched.page.title() == f"{ATTACK} – aiprof"
    drawings = watched.page.locator(".drawing > svg")
    assert drawings.count() > 8
    for index in range(drawings.count()):
        box = drawings.nth(index).bounding_box()
        assert box["width"] > 250
        assert box["height"] > 60
    wider = watched.page.evaluate(
        "document.documentElement.scrollWidth - document.documentElement.clientWidth"
    )
    assert wider == 0
    assert (watched.page.locator(".tools").count() > 0) == context.get("java_script_enabled", True)
    watched.context.close()


def test_texts_and_marks_follow_the_colour_scheme(browser: Any, report: Path) -> None:
    seen = {}
    for scheme in ("light", "dark"):
        watched = Watched(browser, report, color_scheme=scheme)
        look = "element => getComputedStyle(element).fill"
        seen[scheme] = [
            watched.page.locator("#concurrency .drawing svg text").first.evaluate(look),
            watched.page.locator("#concurrency .drawing svg path[fill='var(--s1)']").first.evaluate(look),
        ]
        watched.context.close()
    assert all(light != dark for light, dark in zip(seen["light"], seen["dark"], strict=True))


def test_labels_of_an_axis_do_not_overlap(browser: Any, report: Path) -> None:
    watched = Watched(browser, report)
    boxes = watched.page.evaluate(
        """() => [...document.querySelectorAll('.drawing svg')].map(svg =>
            [...svg.querySelectorAll('text')].map(t => t.getBoundingClientRect())
                .map(r => [r.left, r.top, r.right, r.bottom])
                .concat([(r => [r.left, r.top, r.right, r.bottom])(svg.getBoundingClientRect())]))"""
    )
    for texts in boxes:
        *labels, (left, top, right, bottom) = texts
        for index, one in enumerate(labels):
            assert one[0] >= left - 1
            assert one[1] >= top - 1
            assert one[2] <= right + 1
            assert one[3] <= bottom + 1
            for other in labels[index + 1 :]:
                across = min(one[2], other[2]) - max(one[0], other[0])
                down = min(one[3], other[3]) - max(one[1], other[1])
                assert across <= 2 or down <= 3
    watched.context.close()


def test_tables_sort_filter_and_copy(browser: Any, report: Path) -> None:
    watched = Watched(browser, report)
    page = watched.page
    table = page.locator("#all-cases")
    heading = table.locator("thead th", has_text="decode").locator("button")
    column = (
        table.locator("thead th")
        .all_inner_texts()
        .index(
            next(text for text in table.locator("thead th").all_inner_texts() if text.startswith("decode"))
        )
    )

    def figures() -> list[str]:
        cells = "rows => rows.map(row => row.cells[%d] ? row.cells[%d].firstChild.textContent.trim() : '')"
        shown: list[str] = table.locator("tbody tr").evaluate_all(cells % (column, column))
        return [text.replace(",", "") for text in shown]

    heading.focus()
    page.keyboard.press("Enter")
    rising = [float(text) for text in figures() if text not in ("–", "")]
    assert rising == sorted(rising)
    assert len(rising) == 6
    assert table.locator("th[aria-sort='ascending']").count() == 1
    heading.click()
    falling = figures()
    assert [float(text) for text in falling[:6]] == rising[::-1]
    assert not any(text.replace(".", "").isdigit() for text in falling[6:])

    tools = page.locator("#cases .tools")
    tools.locator("input").fill("decode-128 slow")
    assert table.locator("tbody tr:visible").count() == 4
    page.evaluate(
        "navigator.clipboard.writeText = text => { window.copied = text; return Promise.resolve(); }"
    )
    tools.locator("button").click()
    lines = page.evaluate("window.copied").strip().splitlines()
    assert len(lines) == 5
    assert "decode tokens/s,decode tokens/s ± half of the 95% interval" in lines[0]
    assert "1.0%" in lines[1]
    tools.locator("input").fill("decode-128 fast")
    tools.locator("button").click()
    assert "'=fast" in page.evaluate("window.copied")
    assert watched.quiet(report)
    watched.context.close()


def test_an_anchor_leads_to_its_case(browser: Any, report: Path) -> None:
    watched = Watched(browser, report)
    link = watched.page.locator("#answers tbody a").first
    target = link.get_attribute("href")
    link.click()
    assert watched.page.locator(f"tr{target}").evaluate("row => row.matches(':target')")
    watched.context.close()


def test_print_leaves_the_tools_away_and_keeps_the_charts(browser: Any, report: Path, tmp_path: Path) -> None:
    watched = Watched(browser, report)
    watched.page.emulate_media(media="print")
    assert not watched.page.locator(".tools").first.is_visible()
    assert watched.page.locator(".drawing svg").first.is_visible()
    watched.page.pdf(path=str(tmp_path / "page.pdf"), format="A4")
    assert (tmp_path / "page.pdf").read_bytes().startswith(b"%PDF")
    watched.context.close()


def test_live_charts_run_under_the_policy(browser: Any, report: Path) -> None:
    live = report.with_name("live.html")
    watched = Watched(browser, live)
    panels = watched.page.locator(".panel").count()
    watched.page.wait_for_function(f"document.querySelectorAll('.drawing svg.marks').length === {panels}")
    mark = watched.page.locator(
        "#concurrency .drawing svg.marks path[aria-label], #concurrency .mark-symbol path"
    )
    mark.first.hover(force=True)
    watched.page.wait_for_function("document.querySelector('#vg-tooltip-element.visible') !== null")
    assert watched.quiet(live)
    watched.context.close()


def test_live_pages_show_their_charts_without_scripts_too(browser: Any, report: Path) -> None:
    live = report.with_name("live.html")
    watched = Watched(browser, live, java_script_enabled=False)
    assert watched.page.locator(".drawing > svg").count() > 8
    assert watched.quiet(live)
    watched.context.close()
