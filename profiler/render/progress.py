"""A sweep while it runs: one live line in a terminal, plain lines elsewhere. Writes to stderr."""

from __future__ import annotations

import time
from types import TracebackType
from typing import Self

from rich.console import Console, RenderableType
from rich.live import Live
from rich.text import Text

from profiler.measure.events import (
    CaseFinished,
    CaseStarted,
    Event,
    FidelityChecked,
    FidelityStarted,
    OutOfBudget,
    Preparing,
    StageEntered,
    SweepStarted,
    TrialFinished,
)
from profiler.render.cells import cell, full_label
from profiler.render.units import format_rate
from profiler.results.schema import CaseRecord


def _clock(seconds: float) -> str:
    """Minutes and seconds, as on a stopwatch."""
    whole = max(0, round(seconds))
    return (
        f"{whole // 3600}:{whole // 60 % 60:02}:{whole % 60:02}"
        if whole >= 3600
        else f"{whole // 60}:{whole % 60:02}"
    )


def _finished(record: CaseRecord) -> str:
    """One line for a case that is on disk."""
    if record.failure is not None:
        return f"failed: {record.failure.kind} during {record.failure.stage}: {record.failure.message}"
    shown = []
    for name, what in (("prefill_tokens_per_s", "prefill"), ("decode_tokens_per_s", "decode")):
        measurement = record.measurements.get(name)
        if measurement is not None and measurement.value is not None:
            shown.append(f"{what} {cell(measurement)}")
    flags = len({flag.code for flag in record.flags} - {"one_start", "simulated"})
    noted = f"  [{flags} {'flag' if flags == 1 else 'flags'}]" if flags else ""
    return ", ".join(shown) + noted


class Progress:
    """Shows events of a sweep. Use as a context manager and pass :meth:`show` as the listener.

    Args:
        console: where to write; live when it is a terminal, one line per finished case otherwise.
        quiet: show nothing at all.
    """

    def __init__(self, console: Console, *, quiet: bool = False) -> None:
        self._console = console
        self._quiet = quiet
        self._began = self._case_began = time.monotonic()
        self._budget_s = 0.0
        self._case: CaseStarted | None = None
        self._stage = ""
        self._trial = ""
        self._live = Live(console=console, get_renderable=self._render, transient=True, refresh_per_second=4)

    def __enter__(self) -> Self:
        if self._console.is_terminal and not self._quiet:
            self._live.start()
        return self

    def __exit__(
        self, _: type[BaseException] | None, __: BaseException | None, ___: TracebackType | None
    ) -> None:
        self.stop()

    def stop(self) -> None:
        """Take the live line away, before results are printed."""
        self._live.stop()

    def show(self, event: Event) -> None:
        """Take in one event."""
        if self._quiet:
            return
        match event:
            case Preparing(text):
                self._line(Text(text, style="dim"))
            case SweepStarted():
                self._began, self._budget_s = time.monotonic(), event.budget_s
                cases = f"{event.remaining} case{'' if event.remaining == 1 else 's'}"
                text = f"{cases} in about {_clock(event.budget_s)}, results go to {event.path}"
                self._line(Text(text))
            case CaseStarted():
                self._case, self._case_began, self._trial = event, time.monotonic(), ""
            case FidelityStarted(spec):
                self._line(
                    Text(
                        f"checking that {spec.engine} computes {spec.model} in {spec.formats.weight_format}",
                        style="dim",
                    )
                )
            case FidelityChecked(_, fidelity):
                style = "dim" if fidelity.verdict == "faithful" else "yellow"
                reason = "" if fidelity.reason is None else f": {fidelity.reason}"
                self._line(
                    Text(
                        f"  {fidelity.verdict.replace('_', ' ')}{reason} ({fidelity.elapsed_s:.0f} s)",
                        style=style,
                    )
                )
            case StageEntered():
                start = f"start {event.start + 1}, " if event.of > 1 or event.start else ""
                self._stage, self._trial = f"{start}{event.stage}", ""
            case TrialFinished():
                self._trial = self._trial_text(event)
            case CaseFinished(record):
                self._finish(record)
            case OutOfBudget(remaining):
                self._line(
                    Text(f"the budget is used up, {remaining} cases were not measured", style="yellow")
                )

    def _finish(self, record: CaseRecord) -> None:
        number = f"{self._case.number}/{self._case.of} " if self._case is not None else ""
        style = "red" if record.status == "failed" else ""
        self._line(Text.assemble((number, "dim"), full_label(record.spec), "  ", (_finished(record), style)))
        self._case = None

    def _line(self, text: Text) -> None:
        self._console.print(text, soft_wrap=True)

    @staticmethod
    def _trial_text(event: TrialFinished) -> str:
        width = "" if event.relative_half_width is None else f" ±{event.relative_half_width:.1%}"
        return f" {event.number}  {format_rate(event.tokens_per_s, 'tokens')}{width}"

    def _render(self) -> RenderableType:
        if self._case is None:
            return Text("")
        now = time.monotonic()
        left = self._budget_s - (now - self._began)
        return Text.assemble(
            (f"{self._case.number}/{self._case.of} ", "dim"),
            full_label(self._case.spec),
            f"  {self._stage}{self._trial}  ",
            (
                f"{_clock(now - self._case_began)} of {_clock(self._case.seconds)}, {_clock(left)} left",
                "dim",
            ),
            no_wrap=True,
            overflow="ellipsis",
        )
