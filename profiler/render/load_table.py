"""A run of served cases as a table in the terminal."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Console, Group, RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from profiler.analysis.slo_search import search_answer, verdict_of
from profiler.render.cells import label
from profiler.render.devices import device_line, name_of
from profiler.render.speculation import speculation_line
from profiler.render.units import UNKNOWN, format_seconds
from profiler.results.read import Run
from profiler.results.schema import CaseRecord, Measurement

_TIMES = ("ttft", "tpot")
_TAILS = (99, 95, 90)
_STYLES = {"holds": "green", "fails": "red", "undecided": "yellow"}


def load_table(run: Run) -> RenderableType:
    """Return everything a person wants at the end of a load."""
    served = [case for case in run.cases if case.served is not None]
    parts: list[RenderableType] = [Text(_title(run), style="bold")]
    if run.record.simulated:
        parts.insert(0, Text("SIMULATED: no hardware stands behind these numbers", style="bold yellow"))
    with_slo = any(case.served is not None and case.served.slos for case in served)
    judged = any(case.served is not None and case.served.judgements for case in served)
    parts.append(_table(run.cases, with_slo=with_slo, judged=judged))
    if with_slo and served and served[0].served is not None:
        parts.append(Text(f"within {', '.join(served[0].served.slos)}", style="dim"))
    parts += [
        Text(f"{case.spec.load_label}: {line}", style="dim")
        for case in served
        for line in (device_line(case), speculation_line(case))
        if line
    ]
    answer = search_answer(run)
    if answer is not None:
        parts.append(Text(answer.words(), style="bold"))
    parts += [_client(case) for case in served]
    for case in run.cases:
        if case.failure is not None:
            text = f"  {case.spec.load_label}: failed ({case.failure.kind}): {case.failure.message}"
            parts.append(Text(text, style="red"))
    codes: dict[tuple[str, str], list[str]] = {}
    for case in run.cases:
        for flag in case.flags:
            codes.setdefault((flag.code, flag.hint), []).append(f"{case.spec.load_label}: {flag.text}")
    if codes:
        parts.append(Text("Flags", style="bold"))
    for (code, hint), texts in codes.items():
        parts.append(Padding(Text.assemble((code, "yellow"), f": {hint}"), (0, 0, 0, 2)))
        parts += [Padding(Text(text, style="dim"), (0, 0, 0, 6)) for text in dict.fromkeys(texts)]
    ok = sum(case.status == "ok" for case in run.cases)
    of = len(run.record.cases) if answer is None else len(run.cases)
    parts.append(Text(f"{ok} of {of} cases measured"))
    return Group(*parts)


def _title(run: Run) -> str:
    spec = run.record.cases[0].spec
    device = next((one.name for one in run.record.devices if one.key == spec.device_key), spec.device_key)
    api = "" if spec.load is None else f" · {spec.load.api}, prompts as {spec.load.prompt.replace('_', ' ')}"
    subject = f"{spec.model_label} · {name_of(spec, device)}{api}"
    return f"{subject} · {label(spec)} ({spec.prompt_tokens} + {spec.output_tokens} tokens)"


def _table(cases: Sequence[CaseRecord], *, with_slo: bool, judged: bool) -> Table:
    table = Table(box=None, pad_edge=False, padding=(0, 1, 0, 0), header_style="dim")
    table.add_column("load", no_wrap=True)
    shares = {name: {_tail_share(case.measurements, name) for case in cases} for name in _TIMES}
    tails = [f"p{one}" if len(each) == 1 and (one := min(each)) else "tail" for each in shares.values()]
    headings = ["ok", "TTFT p50", tails[0], "TPOT p50", tails[1], "tok/s"]
    headings += ["good/s", "within"] if with_slo else ["req/s"]
    headings += ["limits"] if judged else []
    for heading in headings:
        table.add_column(heading, justify="right", no_wrap=True)
    for case in cases:
        found = case.measurements
        cells: list[Text] = []
        for name in _TIMES:
            cells += [
                Text(_seconds(found.get(f"{name}_p50_s"))),
                _tail(found, name, same=len(shares[name]) == 1),
            ]
        cells.append(_rate(found, "output_tokens_per_s"))
        if not with_slo:
            cells.append(_rate(found, "requests_per_s"))
        else:
            cells += [Text(_number(found.get("goodput_requests_per_s")))]
            attained = found.get("slo_attainment")
            known = attained is not None and attained.value is not None
            cells += [Text(f"{attained.value:.1%}" if known and attained is not None else UNKNOWN)]
        if judged:
            verdict = verdict_of(case)
            cells.append(Text(verdict, style=_STYLES[verdict]))
        table.add_row(case.spec.load_label, _requests(case), *cells)
    return table


def _tail_share(found: dict[str, Measurement], name: str) -> int:
    """The highest percentile that the number of requests allows, 0 for none."""
    known = (found.get(f"{name}_p{share}_s") for share in _TAILS)
    return next(
        (
            share
            for share, one in zip(_TAILS, known, strict=True)
            if one is not None and one.value is not None
        ),
        0,
    )


def _tail(found: dict[str, Measurement], name: str, *, same: bool) -> Text:
    """That percentile; it says which it is unless the heading does, as it is the ``same`` in all rows."""
    share = _tail_share(found, name)
    if not share:
        return Text(UNKNOWN)
    value = found[f"{name}_p{share}_s"].value
    assert value is not None
    return Text.assemble(("" if same else f"p{share} ", "dim"), format_seconds(value))


def _requests(case: CaseRecord) -> Text:
    if case.served is None:
        return Text(UNKNOWN)
    failed = case.served.requests - case.served.ok
    return Text.assemble(f"{case.served.ok:,}", (f" +{failed:,} failed" if failed else "", "red"))


def _client(case: CaseRecord) -> Text:
    """What the client itself did: without it nobody knows whose latency it is."""
    served = case.served
    assert served is not None
    cores = sum(one.cpu_s / one.wall_s for one in served.processes if one.wall_s > 0)
    lag = max((one.loop_lag_p99_s or 0.0 for one in served.processes), default=0.0)
    parts = [f"{cores:.2f} cores in {len(served.processes)} process{'es' * (len(served.processes) > 1)}"]
    parts.append(f"loop lag p99 {format_seconds(lag)}")
    if served.ceiling is not None and served.ceiling.share is not None:
        parts.append(f"{served.ceiling.share:.0%} of the rate it can drive")
    if served.intended_rate_per_s is not None and served.sent_rate_per_s is not None:
        parts.append(f"sent {served.sent_rate_per_s:.4g} of {served.intended_rate_per_s:.4g} req/s")
    return Text(f"client at {case.spec.load_label}: {', '.join(parts)}", style="dim")


def _seconds(measurement: Measurement | None) -> str:
    return UNKNOWN if measurement is None else format_seconds(measurement.value)


def _number(measurement: Measurement | None) -> str:
    known = measurement is not None and measurement.value is not None
    return f"{measurement.value:,.3g}" if known and measurement is not None else UNKNOWN


def _rate(found: dict[str, Measurement], name: str) -> Text:
    """The steady window where there is one, else the whole run, which is marked."""
    steady = found.get(f"{name}_steady")
    if steady is not None and steady.value is not None:
        return Text(f"{steady.value:,.4g}" if steady.value < 1000 else f"{steady.value:,.0f}")
    whole = found.get(name)
    if whole is None or whole.value is None:
        return Text(UNKNOWN)
    return Text(f"{whole.value:,.4g}*" if whole.value < 1000 else f"{whole.value:,.0f}*")


def print_load(run: Run, console: Console) -> None:
    """Print a run of served cases."""
    console.print(load_table(run))
    whole = any(
        case.measurements["output_tokens_per_s_steady"].value is None
        for case in run.cases
        if "output_tokens_per_s_steady" in case.measurements
    )
    if whole:
        console.print(
            Text("* of the whole run, start and end included: too short for a steady window", "dim")
        )
