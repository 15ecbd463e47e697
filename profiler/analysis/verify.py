"""Does a run verify? Its files, its chain, and every figure made again from the raw samples.

What this proves, and what it cannot, is in docs/trust.md.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal, TypeVar

from profiler.analysis.evidence import case_label
from profiler.analysis.request_times import read_requests
from profiler.errors import InputFileError
from profiler.load.recompute import recompute_load
from profiler.measure.differences import Recomputed
from profiler.measure.recompute import UNKNOWN, recompute_case
from profiler.measure.recompute_run import recompute_run
from profiler.results.checksums import CHECKSUMS_FILE, SIGNATURE_FILE
from profiler.results.read import CASES_FILE, RUN_FILE, Run, printable, read_run
from profiler.results.schema import CaseRecord, RunRecord, SamplesRef
from profiler.results.sensor_samples import read_reads
from profiler.results.signature import Signed, check_signature
from profiler.results.stamps import read_stamps
from profiler.results.verify_files import ALL_FIGURES, Finding, check_files

T = TypeVar("T")
State = Literal["verified", "incomplete", "failed"]
MOST_FINDINGS: Final = 200


@dataclass(frozen=True)
class Verification:
    """What came of verifying a run.

    Attributes:
        path: its folder.
        state: ``verified``; ``incomplete`` (nothing is wrong, but the run was not closed); ``failed``.
        findings: what does not verify, most fundamental first.
        figures: how many figures were made again, over all cases.
        left_out: figures that were not, with the reason.
        notes: what a reader should know.
        root: last link of the checksums' chain, or None.
        signed: what the signature says, or None without one.
        challenge: what entered prompts and weights, or None.
        made_by: version of aiprof that made the run, or None where it cannot be read.
        simulated: whether any part did not come from hardware.
    """

    path: Path
    state: State
    findings: tuple[Finding, ...]
    figures: int
    left_out: Mapping[str, str]
    notes: tuple[str, ...]
    root: str | None
    signed: Signed | None
    challenge: str | None
    made_by: str | None
    simulated: bool


def verify_run(path: Path, *, challenge: str | None = None, trusted: Path | None = None) -> Verification:
    """Verify one run.

    Args:
        path: its folder.
        challenge: what must have entered the prompts, or None for any.
        trusted: file of the public key that must have signed it, or None for any or none.

    Raises:
        InputFileError: ``path`` cannot be listed, or ``trusted`` cannot be read.
        UsageError: a signature is to be checked and ``cryptography`` is not installed.
    """
    files = check_files(path)
    findings, notes = list(files.findings), list(files.notes)
    signed = check_signature(path, files.checksums, trusted, findings)
    run: Run | None = None
    try:
        run = read_run(path)
    except InputFileError as error:
        findings += [_unreadable(path, fault) for fault in error.faults]
    made = 0
    left_out: dict[str, str] = {}
    if run is not None:
        notes += [text for text in run.warnings if "is torn" in text or "incomplete (" in text]
        made, left_out = _recompute(run, findings)
        if challenge is not None:
            findings += _challenged(run, challenge)
    state: State = "failed" if findings else "verified" if files.closed else "incomplete"
    return Verification(
        path=path,
        state=state,
        findings=tuple(findings[:MOST_FINDINGS]),
        figures=made,
        left_out=left_out,
        notes=tuple(notes),
        root=files.checksums.root if files.checksums else None,
        signed=signed,
        challenge=run.record.challenge if run else None,
        made_by=run.record.aiprof_version if run else None,
        simulated=run is not None and (run.record.simulated or any(case.simulated for case in run.cases)),
    )


def _unreadable(path: Path, fault: str) -> Finding:
    place = fault.removeprefix(f"{path}/")
    name = next(
        (name for name in (RUN_FILE, CASES_FILE, CHECKSUMS_FILE, SIGNATURE_FILE) if place.startswith(name)),
        RUN_FILE,
    )
    return Finding(name, "", ALL_FIGURES, f"cannot be read: {place}")


def _recompute(run: Run, findings: list[Finding]) -> tuple[int, dict[str, str]]:
    """Make all figures again; what does not follow becomes a finding."""
    left_out: dict[str, str] = {}
    made = _took(recompute_run(run.record), RUN_FILE, "", findings, left_out)
    planned = {entry.spec.case_id for entry in run.record.cases}
    seen: set[str] = set()
    for number, case in enumerate(run.cases, start=1):
        place = f"line {number} ({printable(case_label(case.spec))})"
        # The points of a search follow from what it finds.
        unplanned = case.spec.case_id not in planned and run.record.settings.search is None
        if case.spec.case_id in seen or unplanned:
            what = "is there twice" if case.spec.case_id in seen else "is not in the plan"
            findings.append(Finding(CASES_FILE, place, ("every figure of this case",), what))
        seen.add(case.spec.case_id)
        again = _case(run, case, run.cases[: number - 1], place, findings)
        made += _took(again, CASES_FILE, place, findings, left_out)
    if run.complete and planned - seen:
        what = f"{len(planned - seen)} of {len(planned)} planned cases are missing in a closed run"
        findings.append(Finding(CASES_FILE, "", ALL_FIGURES, what))
    return made, left_out


def _case(
    run: Run, case: CaseRecord, before: Sequence[CaseRecord], place: str, findings: list[Finding]
) -> Recomputed:
    path = run.path

    def read(ref: SamplesRef | None, reader: Callable[[Path, SamplesRef], T]) -> T | None:
        if ref is None:
            return None
        try:
            return reader(path, ref)
        except InputFileError as error:
            what = printable(error.faults[0].removeprefix(f"{path / ref.file}: "))
            figures = (f"every figure of case {case.spec.case_id[:12]}",)
            findings.append(Finding(ref.file, place, figures, what))
            return None

    sensors = read(case.sensor_samples, read_reads)
    if case.served is not None or case.spec.load is not None:  # a load may fail before its first request
        return recompute_load(run.record, case, read(case.samples, read_requests), sensors)
    return recompute_case(run.record, case, read(case.samples, read_stamps), before, sensors)


def _took(found: Recomputed, file: str, place: str, findings: list[Finding], left_out: dict[str, str]) -> int:
    findings += [Finding(file, place, (item.figure,), printable(item.what)) for item in found.differences]
    left_out.update(found.left_out)
    for name, reason in found.left_out.items():
        if reason == UNKNOWN:
            findings.append(Finding(file, place, (printable(name),), reason))
    return len(found.figures)


def _challenged(run: Run, challenge: str) -> list[Finding]:
    record: RunRecord = run.record
    if record.challenge != challenge:
        has = "none" if record.challenge is None else f"'{printable(record.challenge)}'"
        what = f"the challenge of the run is {has}, not '{challenge}'"
        return [Finding(RUN_FILE, "", ALL_FIGURES, what)]
    without = [case for case in run.cases if any(trial.prompts_sha256 is None for trial in case.trials)]
    what = "has trials without a digest of their prompts, so that the challenge cannot be seen in them"
    return [
        Finding(CASES_FILE, printable(case_label(case.spec)), ("prompts_sha256",), what) for case in without
    ]
