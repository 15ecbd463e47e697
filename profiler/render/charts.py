"""Vega-Lite charts, drawn to SVG in advance: the page needs no script to show them.

Colours are the style sheet's custom properties (``var(--s1)``), which Vega hands through, so that one
drawing serves light, dark and print. Legends are part of the page, one for all drawings of a figure.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final, TypeAlias
from xml.etree import ElementTree

import altair as alt
import vl_convert
from markupsafe import Markup

from profiler.render.report_view import Panel
from profiler.render.visible import visible, visible_in

Chart: TypeAlias = alt.Chart | alt.LayerChart | alt.FacetChart

_FONT_SIZE = 12.5
_WIDTH = 420
_RIGHT = 22
_BOTTOM = 46

CONFIG: Final[Mapping[str, Any]] = {
    "background": None,
    "aria": False,
    # What vl-convert measures texts with is metric-compatible with Arial, which the style sheet asks for.
    "font": "Arial",
    "view": {"stroke": None},
    "axis": {
        "labelColor": "var(--muted)",
        "titleColor": "var(--muted)",
        "labelFontSize": _FONT_SIZE,
        "titleFontSize": _FONT_SIZE,
        "titleFontWeight": "normal",
        "gridColor": "var(--grid)",
        "domainColor": "var(--line)",
        "tickColor": "var(--line)",
        "labelPadding": 5,
        "tickSize": 4,
        "titlePadding": 8,
        "labelLimit": 150,
        "labelSeparation": 6,
    },
    # Upright and above the axis: read without turning the head, and no width lost.
    "axisY": {
        "titleAngle": 0,
        "titleAlign": "left",
        "titleX": 0,
        "titleY": -12,
        "titleBaseline": "bottom",
        "domain": False,
        "ticks": False,
    },
    "axisX": {"grid": False},
    "text": {"color": "var(--text)", "fontSize": _FONT_SIZE},
    "rule": {"color": "var(--muted)"},
}

_SVG = "{http://www.w3.org/2000/svg}"
_TAGS = {"svg", "g", "path", "text", "tspan", "line", "rect", "defs", "clipPath", "circle"}
_ATTRIBUTES = {
    *("d", "x", "y", "x1", "x2", "y1", "y2", "dx", "dy", "cx", "cy", "r", "width", "height", "viewBox"),
    *("fill", "stroke", "stroke-width", "stroke-dasharray", "stroke-opacity", "fill-opacity", "opacity"),
    *("text-anchor", "font-size", "font-weight", "transform", "id", "clip-path"),
}
_DEFAULTS = {"opacity": "1", "stroke-opacity": "1", "fill-opacity": "1", "font-weight": "normal"}
# Attributes with which a group does nothing.
_NOTHING = {"transform": "translate(0,0)"}
_NUMBER = re.compile(r"-?\d+\.\d+(?:e-?\d+)?")
_REFERENCE = re.compile(r"url\(#([\w-]+)\)")


@dataclass(frozen=True)
class Frame:
    """Sizes of a drawing in CSS pixels. Margins are fixed, so that the axes of all drawings line up.

    Attributes:
        height: of the plot, without axes.
        left: room for the labels of the vertical axis.
        top: room for its title.
    """

    height: int = 215
    left: int = 62
    top: int = 30

    @property
    def specification(self) -> dict[str, Any]:
        """The top-level properties of Vega-Lite that set these sizes."""
        return {
            "width": _WIDTH - self.left - _RIGHT,
            "height": self.height,
            "padding": {"left": self.left, "right": _RIGHT, "top": self.top, "bottom": _BOTTOM},
            "autosize": "none",
        }


def draw(
    name: str,
    title: str,
    description: str,
    chart: Chart,
    *,
    frame: Frame = Frame(),
    interactive: bool = False,
) -> Panel:
    """Draw a chart.

    Args:
        name: id of the drawing on the page.
        title: what it shows, in a few words.
        description: what somebody who cannot see it should know.
        chart: without a title and a size of its own.
        frame: its size.
        interactive: keep the specification for the page's script.
    """
    specification = visible_in(chart.to_dict(validate=False)) | {"config": CONFIG} | frame.specification
    title, description = visible(title), visible(description)
    svg = vl_convert.vegalite_to_svg(specification)
    kept = _script_safe(_zoomable(specification)) if interactive else Markup()
    return Panel(name, title, _clean(svg, name, title, description), kept)


def _zoomable(specification: Mapping[str, Any]) -> dict[str, Any]:
    """Let the wheel zoom and dragging move both axes; logarithmic ones have ticks beyond what is shown."""
    copy: dict[str, Any] = json.loads(json.dumps(specification))
    for layer in copy["layer"]:
        for channel in ("x", "y"):
            encoding = layer.get("encoding", {}).get(channel, {})
            if encoding.get("scale", {}).get("type") == "log" and encoding.get("axis"):
                low, high = (math.log10(end) for end in encoding["scale"]["domain"])
                powers = range(math.floor(low) - 2, math.ceil(high) + 2)
                encoding["axis"]["values"] = [step * 10.0**power for power in powers for step in (1, 2, 5)]
    copy["layer"][0]["params"] = [{"name": "zoom", "select": "interval", "bind": "scales"}]
    return copy


def _script_safe(document: Mapping[str, Any]) -> Markup:
    """JSON in which nothing can end the script element that it stands in."""
    text = json.dumps(document, allow_nan=False, separators=(",", ":"))
    for character in "<>&\u2028\u2029":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return Markup(text)


def _clean(svg: str, name: str, title: str, description: str) -> Markup:
    """Keep only what a drawing needs, make ids unique on the page, and say what is shown.

    Only known elements and attributes pass, whatever texts of a hostile run went into the chart.
    """
    root = ElementTree.fromstring(svg)
    _strip(root, f"{name}-")
    root.set("role", "img")
    root.set("aria-labelledby", f"{name}-title {name}-description")
    for tag, text in (("desc", description), ("title", title)):
        element = ElementTree.Element(tag, {"id": f"{name}-{'title' if tag == 'title' else 'description'}"})
        element.text = text
        root.insert(0, element)
    return Markup(ElementTree.tostring(root, encoding="unicode", short_empty_elements=True))


def _strip(element: ElementTree.Element, prefix: str) -> None:
    element.tag = element.tag.removeprefix(_SVG)
    for key, value in list(element.attrib.items()):
        if key not in _ATTRIBUTES or _DEFAULTS.get(key) == value:
            del element.attrib[key]
        elif key == "id":
            element.set(key, prefix + value)
        elif key in ("d", "transform", "x", "y", "x1", "x2", "y1", "y2", "width", "height"):
            element.set(key, _NUMBER.sub(_rounded, value))
        elif key == "clip-path":
            element.set(key, _REFERENCE.sub(rf"url(#{prefix}\1)", value))
    kept: list[ElementTree.Element] = []
    for child in element:
        if child.tag.removeprefix(_SVG) in _TAGS and child.get("display") != "none":
            _strip(child, prefix)
            # Groups that only carried attributes which are gone leave their content.
            kept += list(child) if child.tag == "g" and child.attrib in ({}, _NOTHING) else [child]
    element[:] = _merged(child for child in kept if _visible(child))


def _visible(element: ElementTree.Element) -> bool:
    if element.tag == "path":
        return bool(element.get("d")) and ("fill" in element.attrib or "stroke" in element.attrib)
    return element.tag not in ("g", "defs") or len(element) > 0


def _merged(elements: Iterable[ElementTree.Element]) -> list[ElementTree.Element]:
    """Make one path of neighbours that differ in nothing but their course."""
    kept: list[ElementTree.Element] = []
    for element in elements:
        before = kept[-1] if kept else None
        if before is not None and element.tag == before.tag == "path" and _looks(before) == _looks(element):
            before.set("d", f"{before.get('d')}{element.get('d')}")
        else:
            kept.append(element)
    return kept


def _looks(element: ElementTree.Element) -> dict[str, str]:
    return {key: value for key, value in element.items() if key != "d"}


def _rounded(match: re.Match[str]) -> str:
    text = f"{float(match[0]):.1f}".removesuffix(".0")
    return "0" if text == "-0" else text
