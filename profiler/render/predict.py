"""Predictions in the terminal and as JSON: never a figure without its interval and the word predicted."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from rich import box
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from profiler.analysis.predict.calibration import ENGINES
from profiler.analysis.predict.forecast import GROUND_WORDS, THIN, Forecast, Predicted, Terms
from profiler.analysis.predict.options import FitRow
from profiler.render.units import UNKNOWN, format_bytes, format_rate, format_seconds
from profiler.results.read import printable

NAMES = {
    "output_tokens_per_s": "output tokens/s, all users",
    "tpot_s": "time per output token",
    "ttft_s": "time to first token",
    "power_mean_w": "power, no accuracy claimed",
    "energy_per_output_token_j": "energy per output token, no accuracy claimed",
    "usd_per_million_output_tokens": "price of a million output tokens",
}


def figure_text(value: float, unit: str) -> str:
    """Return a predicted figure for a person."""
    if unit == "s":
        return format_seconds(value)
    if unit == "tokens/s":
        return format_rate(value, "tokens")
    if unit == "USD":
        return f"{value:,.2f} USD"
    return f"{value:,.3g} {unit}" if value < 100 else f"{value:,.0f} {unit}"


def interval_text(one: Predicted) -> str:
    """Return the 80% interval for a person."""
    return f"{figure_text(one.low80, one.unit)} to {figure_text(one.high80, one.unit)}"


def forecast_view(one: Forecast, model: str, price: Predicted | str | None, explain: bool) -> RenderableType:
    """Return one prediction for a terminal."""
    parts: list[RenderableType] = [Text(title_of(one, model), style="bold")]
    table = Table(box=box.SIMPLE_HEAD)
    table.add_column("predicted")
    table.add_column("middle", justify="right", no_wrap=True)
    # Words of an interval may stand below each other; half a figure may not stand at all.
    for heading in ("80% interval", "95% interval"):
        table.add_column(heading, justify="right")
    reasons = []
    figures: dict[str, Predicted | None] = dict(one.figures)
    if isinstance(price, Predicted):
        figures["usd_per_million_output_tokens"] = price
    for name, figure in figures.items():
        if figure is None:
            reasons.append(f"no {NAMES[name]}: {one.reasons[name]}")
            continue
        wide = UNKNOWN
        if figure.low95 is not None and figure.high95 is not None:
            wide = f"{figure_text(figure.low95, figure.unit)} to {figure_text(figure.high95, figure.unit)}"
        table.add_row(NAMES[name], figure_text(figure.value, figure.unit), interval_text(figure), wide)
    parts.append(table)
    if isinstance(price, str):
        reasons.append(f"no price: {price}")
    if explain:
        parts += [_terms_table("decode step", one.decode), _terms_table("prefill", one.prefill)]
    else:
        parts.append(Text(f"decode: bound by {one.decode.binds}; prefill: bound by {one.prefill.binds}"))
    parts += [Text(f"memory: {memory_text(one)}"), Text(rests_on(one))]
    parts += [Text(f"- {printable(line)}", style="dim") for line in (*reasons, *one.assumptions)]
    return Group(*parts)


def title_of(one: Forecast, model: str) -> str:
    """One line: what is predicted."""
    parallel, formats = one.deployment.parallel, one.deployment.formats
    shares = {
        "tensor": parallel.tensor,
        "pipeline": parallel.pipeline,
        "data": parallel.data,
        "expert": parallel.expert,
    }
    ranks = ", ".join(f"{name} {count}" for name, count in shares.items() if count > 1)
    return printable(
        f"Predicted, not measured: {model} in {formats.weight_format} on {parallel.ranks} x "
        f"{one.deployment.hardware.title}{f' ({ranks})' if ranks else ''} with {ENGINES[one.engine]}, "
        f"{one.load.users:g} users, {one.load.prompt:g} -> {one.load.output:g} tokens"
    )


def memory_text(one: Forecast) -> str:
    """One line about memory."""
    memory = one.memory
    if memory.usable_bytes is None:
        return f"unknown whether it fits ({memory.reason})"
    weights = f"weights {format_bytes(memory.weights_bytes)} of {format_bytes(memory.usable_bytes)} usable"
    if not memory.cache_tokens:
        return f"does not fit: {weights}"
    context = int(one.load.prompt + one.load.output)
    return f"fits; {weights}; {memory.users_at(context):,} users at {context:,} tokens each"


def rests_on(one: Forecast) -> str:
    """One line: what stands behind the interval."""
    spread = one.spread
    thin = " (thin ground)" if spread.devices < THIN else ""
    missing = "" if spread.half95 is not None else "; no 95% interval: that takes 19 devices"
    return (
        f"rests on {GROUND_WORDS[one.ground]}; interval from errors on {spread.devices} devices left out in "
        f"turn{thin}{missing}"
    )


def _terms_table(title: str, terms: Terms) -> Table:
    table = Table(box=box.SIMPLE_HEAD, title=f"{title}: {format_seconds(terms.total)}", title_justify="left")
    table.add_column("term", no_wrap=True)
    table.add_column("seconds", justify="right", no_wrap=True)
    table.add_column("share", justify="right")
    table.add_column("made of", overflow="fold")
    inside = {
        "products": ("weights", "multiply"),
        "attention": ("cache", "scores"),
        "launch": ("layers", "expert_layers"),
        "host": ("step", "sequences"),
        "links": ("waits", "traffic"),
    }
    for name, seconds in terms.seconds.items():
        made_of = ", ".join(f"{part} {format_seconds(terms.within[part])}" for part in inside[name])
        mark = "  <- binds" if terms.binds.startswith(name) else ""
        table.add_row(name, format_seconds(seconds), f"{seconds / terms.total:.0%}", made_of + mark)
    return table


def fit_view(rows: Sequence[FitRow], precision: str, contexts: Sequence[int]) -> RenderableType:
    """Return which models fit on what, for a terminal."""
    table = Table(
        box=box.SIMPLE_HEAD,
        title=f"Predicted: users at once by context, weights in {precision}; 90% of the memory is used, "
        "runtime and activations are reserved",
        title_justify="left",
    )
    for heading in ("hardware", "count", "model"):
        table.add_column(heading, no_wrap=True)
    for context in contexts:
        table.add_column(f"{context:,}", justify="right", no_wrap=True)
    table.add_column("longest context", justify="right", no_wrap=True)
    table.add_column("", overflow="fold")
    for row in rows:
        found = row.fit
        if found is None or found.cache_tokens is None:
            cells = [UNKNOWN] * (len(contexts) + 1)
        else:
            cells = [f"{found.users_at(context):,}" for context in contexts] + [
                f"{row.longest_context or 0:,}"
            ]
        reason = row.reason or ("does not fit" if found is not None and found.cache_tokens == 0 else "")
        table.add_row(row.hardware, str(row.count), row.model, *cells, printable(reason))
    return table


def fit_document(rows: Iterable[FitRow], precision: str, contexts: Sequence[int]) -> dict[str, Any]:
    """Return the same as JSON, bytes and tokens."""
    return {
        "predicted": True,
        "precision": precision,
        "contexts": list(contexts),
        "rows": [
            {
                "hardware": row.hardware,
                "count": row.count,
                "model": row.model,
                "fits": None if row.fit is None else row.fit.fits(1, 1),
                "weights_bytes": None if row.fit is None else row.fit.weights_bytes,
                "reserved_bytes": None if row.fit is None else row.fit.reserved_bytes,
                "usable_bytes": None if row.fit is None else row.fit.usable_bytes,
                "cache_tokens": None if row.fit is None else row.fit.cache_tokens,
                "longest_context": row.longest_context,
                "users": None if row.fit is None else [row.fit.users_at(context) for context in contexts],
                "reason": row.reason or None,
            }
            for row in rows
        ],
    }


def _figure(name: str, value: Predicted | None, reason: str | None) -> dict[str, Any]:
    """Return one figure with its intervals, or the reason why there is none."""
    if value is None:
        return {"value": None, "reason": reason}
    wide = None if value.low95 is None else [value.low95, value.high95]
    return {
        "value": value.value,
        "unit": value.unit,
        "predicted": True,
        "interval80": [value.low80, value.high80],
        "interval95": wide,
        "accuracy_claimed": name not in ("power_mean_w", "energy_per_output_token_j"),
        "reason": None,
    }


def forecast_document(one: Forecast, model: str, price: Predicted | str | None) -> dict[str, Any]:
    """Return one prediction as JSON in base units."""
    parallel, formats, memory = one.deployment.parallel, one.deployment.formats, one.memory
    figures = {name: _figure(name, value, one.reasons.get(name)) for name, value in one.figures.items()}
    if price is not None:
        known = price if isinstance(price, Predicted) else None
        reason = price if isinstance(price, str) else None
        figures["usd_per_million_output_tokens"] = _figure("usd_per_million_output_tokens", known, reason)
    return {
        "predicted": True,
        "hardware": one.deployment.hardware.name,
        "count": parallel.ranks,
        "parallel": {
            "tensor": parallel.tensor,
            "pipeline": parallel.pipeline,
            "data": parallel.data,
            "expert": parallel.expert,
        },
        "model": model,
        "formats": {
            "weight_format": formats.weight_format,
            "compute_dtype": formats.compute_dtype,
            "kv_dtype": formats.kv_dtype,
        },
        "engine": one.engine,
        "load": {
            "kind": one.load.kind,
            "users": one.load.users,
            "prompt_tokens": one.load.prompt,
            "output_tokens": one.load.output,
            "running": one.running,
        },
        "figures": figures,
        "terms": {
            phase: {"seconds": dict(terms.seconds), "parts": dict(terms.within), "binds": terms.binds}
            for phase, terms in (("decode", one.decode), ("prefill", one.prefill))
        },
        "memory": {
            "fits": memory.fits(max(int(one.load.users), 1), int(one.load.prompt + one.load.output)),
            "weights_bytes": memory.weights_bytes,
            "reserved_bytes": memory.reserved_bytes,
            "usable_bytes": memory.usable_bytes,
            "cache_tokens": memory.cache_tokens,
            "users_at_context": memory.users_at(int(one.load.prompt + one.load.output)),
            "reason": memory.reason or None,
        },
        "rests_on": {
            "ground": one.ground,
            "words": GROUND_WORDS[one.ground],
            "devices": one.spread.devices,
            "rows": one.spread.rows,
        },
        "assumptions": list(one.assumptions),
    }
