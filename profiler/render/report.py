"""Runs as one HTML file that needs nothing from anywhere.

The page's policy (CSP) allows its own style and scripts by their hashes and nothing else, so neither
the network nor anything that a hostile run smuggled in could be reached even if escaping failed.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup, escape

from profiler.data import data_root
from profiler.render.report_answer import Judge
from profiler.render.report_sections import build_report
from profiler.render.report_view import Report, Section
from profiler.render.vega_runtime import VegaRuntime
from profiler.render.visible import visible
from profiler.results.read import Run

REPORT_FILE: Final = "report.html"


def render(report: Report, runtime: VegaRuntime | None = None) -> str:
    """Return the page. Everything from a record is escaped: a run may come from another person.

    Args:
        report: what it shows.
        runtime: what zooms its charts, where it keeps their specifications.
    """
    folder = data_root("reports")
    style = _static(folder / "report.css")
    scripts = [_static(folder / "report.js")]
    if runtime is not None:
        scripts.append(runtime.script() + _static(folder / "interactive.js"))
    environment = Environment(
        loader=FileSystemLoader(folder),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=_visible,
    )
    environment.filters["prose"] = _prose
    policy = (
        f"default-src 'none'; script-src {' '.join(map(_hash, scripts))}; style-src {_hash(style)}; "
        "img-src data:; base-uri 'none'; form-action 'none'"
    )
    return environment.get_template("report.html.j2").render(
        report=report, policy=policy, style=Markup(style), scripts=[Markup(script) for script in scripts]
    )


def write_report(
    runs: Sequence[Run],
    path: Path,
    *,
    title: str,
    judge: Judge | None = None,
    cost: Section | None = None,
    gate: Section | None = None,
    predicted: Section | None = None,
    runtime: VegaRuntime | None = None,
) -> Path:
    """Write the report of ``runs`` in one piece and return ``path``; see :func:`build_report`.

    With a ``runtime`` its charts can be zoomed.

    Raises:
        OSError: ``path`` cannot be written.
    """
    interactive = runtime is not None
    report = build_report(
        runs, title, judge=judge, cost=cost, gate=gate, predicted=predicted, interactive=interactive
    )
    temporary = path.with_name(f".{path.name}.tmp")
    temporary.write_text(render(report, runtime), encoding="utf-8")
    return temporary.replace(path)


def _visible(value: object) -> object:
    return visible(value) if isinstance(value, str) and not isinstance(value, Markup) else value


def _prose(text: str) -> Markup:
    """Escape a text, and set what stands between backticks as code."""
    text = visible(text)
    parts = [escape(part) for part in text.split("`")]
    if len(parts) % 2 == 0:
        return escape(text)
    return Markup("").join(
        Markup("<code>{}</code>").format(part) if number % 2 else part for number, part in enumerate(parts)
    )


def _static(path: Path) -> str:
    return path.read_text(encoding="utf-8")


def _hash(content: str) -> str:
    digest = hashlib.sha256(content.encode()).digest()
    return f"'sha256-{base64.b64encode(digest).decode()}'"
