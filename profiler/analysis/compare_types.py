"""What a comparison of boxes says: plain data, ready for tables, JSON and pages."""

from __future__ import annotations

from dataclasses import dataclass

from profiler.analysis.compare_match import Match, UnmatchedKind
from profiler.analysis.compare_metric import MetricComparison


@dataclass(frozen=True)
class Side:
    """One of the boxes compared: a run, or several runs of one box.

    Attributes:
        letter: ``A`` for the baseline, then ``B``, ``C``, …
        runs: names of the runs' folders.
        run_ids: ids of the runs.
        devices: names of the devices.
        engines: names and versions of the engines.
        created_utc: when each run began.
        complete: whether all runs were closed.
        simulated: whether any part did not come from hardware.
    """

    letter: str
    runs: tuple[str, ...]
    run_ids: tuple[str, ...]
    devices: tuple[str, ...]
    engines: tuple[str, ...]
    created_utc: tuple[str, ...]
    complete: bool
    simulated: bool


@dataclass(frozen=True)
class CaseSource:
    """Where the figures of one side of a case come from.

    Attributes:
        case_ids: the records; several only where runs are pooled.
        model: the model's name there.
        formats: ``bf16``, or all three number formats where they differ.
        starts: starts that count; of a load, how often it was made.
        flags: codes of all flags.
        simulated: whether any part did not come from hardware.
    """

    case_ids: tuple[str, ...]
    model: str
    device_key: str
    device: str
    engine: str
    engine_version: str
    weight_format: str
    compute_dtype: str
    kv_dtype: str
    formats: str
    starts: int
    flags: tuple[str, ...]
    simulated: bool


@dataclass(frozen=True)
class CaseComparison:
    """One case on both sides.

    Attributes:
        metrics: speeds first; a metric that neither side has is left out.
        notes: what else differs between the two sides, one line each.
        load: how many requests at once, in words: ``batch 8``, ``8 users``, ``2 req/s poisson``.
    """

    scenario: str
    variant: str
    model: str
    weights: str
    prompt_tokens: int
    output_tokens: int
    batch: int
    seed: int
    baseline: CaseSource
    candidate: CaseSource
    metrics: tuple[MetricComparison, ...]
    notes: tuple[str, ...]
    load: str

    def metric(self, name: str) -> MetricComparison | None:
        """Return one metric, or None when neither side has it."""
        return next((metric for metric in self.metrics if metric.metric == name), None)


@dataclass(frozen=True)
class Unmatched:
    """A case that could not be compared.

    Attributes:
        kind: why, in one word; ``docs/metrics.md`` lists them.
        reason: why, in one line.
        measured_on: letter of the side that has a result, ``both`` or ``none``.
        case_id: id of the case on the side it is named after.
        load: how many requests at once, in words.
    """

    kind: UnmatchedKind
    reason: str
    measured_on: str
    case_id: str
    scenario: str
    variant: str
    model: str
    formats: str
    prompt_tokens: int
    output_tokens: int
    batch: int
    seed: int
    load: str


@dataclass(frozen=True)
class PairComparison:
    """The baseline against one other side.

    Attributes:
        baseline: letter.
        candidate: letter.
        tests: how many comparisons the verdicts are corrected for.
        cases: what both have measured.
        unmatched: everything else that either has planned.
    """

    baseline: str
    candidate: str
    tests: int
    cases: tuple[CaseComparison, ...]
    unmatched: tuple[Unmatched, ...]


@dataclass(frozen=True)
class Comparison:
    """All sides against the baseline.

    Attributes:
        match: how cases were matched.
        sides: the baseline first, the others in the order given.
        pairs: one for each side but the first.
        simulated: whether any side is simulated: nothing here then says anything about hardware.
        notes: what concerns the whole comparison, one line each.
    """

    match: Match
    sides: tuple[Side, ...]
    pairs: tuple[PairComparison, ...]
    simulated: bool
    notes: tuple[str, ...]

    def side(self, letter: str) -> Side:
        """Return a side by its letter."""
        return next(side for side in self.sides if side.letter == letter)
