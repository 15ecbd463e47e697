"""Candidates and what is known of each: the cases of all runs, put together by device.

A candidate is a device. Runs of the same device (same key and name) are evidence about one candidate; a
simulated device is the same only under the same engine options, which say what it pretends to be.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from profiler.analysis.evidence import CaseEvidence, Status
from profiler.errors import InputFileError
from profiler.results.read import Run
from profiler.results.schema import CaseRecord, CaseSpec, DeviceRecord

MOST_CASES = 100_000
"""More than any sweep makes; beyond it a file is an attack on whoever reads it."""


@dataclass(frozen=True)
class Candidate:
    """A device with its evidence.

    Attributes:
        name: device name, made unique among the candidates.
        device: the device as the first run describes it.
        runs: names of its runs.
        cases: what is known of every case, measured or not.
        simulated: whether the device or any of its cases is simulated.
    """

    name: str
    device: DeviceRecord
    runs: tuple[str, ...]
    cases: tuple[CaseEvidence, ...]
    simulated: bool


def candidates_of(runs: Sequence[Run], unverified: Mapping[Path, str] | None = None) -> tuple[Candidate, ...]:
    """Return the devices of the runs that have at least one case, in the order of the runs.

    Args:
        runs: as read from disk.
        unverified: by folder, why a run does not verify.

    Raises:
        InputFileError: the runs hold more than :data:`MOST_CASES` cases.
    """
    cases = sum(max(len(run.cases), len(run.record.cases)) + len(run.record.skipped) for run in runs)
    if cases > MOST_CASES:
        what = f"{cases} cases, at most {MOST_CASES} can be judged; give fewer runs"
        raise InputFileError([f"{runs[0].path}{' and others' if len(runs) > 1 else ''}: {what}"])
    found: dict[tuple[str, ...], _Gathered] = {}
    for run in _each_once(runs):
        tampered = edited(run)
        for device in run.record.devices:
            options = _extra_flags(run.record.command) if device.simulated else ()
            key = (device.key, device.name, *options)
            gathered = found.setdefault(key, _Gathered(device))
            gathered.add(run, device, tampered, (unverified or {}).get(run.path))
    with_cases = [gathered for gathered in found.values() if gathered.pieces]
    names = [gathered.device.name for gathered in with_cases]
    return tuple(
        Candidate(
            name=name if names.count(name) == 1 else f"{name} ({_told_apart(gathered)})",
            device=gathered.device,
            runs=tuple(gathered.runs),
            cases=tuple(gathered.cases()),
            simulated=gathered.device.simulated or any(piece.simulated for piece in gathered.pieces),
        )
        for name, gathered in zip(names, with_cases, strict=True)
    )


def _each_once(runs: Sequence[Run]) -> list[Run]:
    """Leave out copies: a start must not count twice. Of two states of one run the fuller stays."""
    fullest: dict[str, Run] = {}
    for run in runs:
        known = fullest.get(run.record.run_id)
        if known is None or len(run.cases) > len(known.cases):
            fullest[run.record.run_id] = run
    return list(fullest.values())


def _told_apart(gathered: _Gathered) -> str:
    return ", ".join(gathered.runs) if gathered.device.simulated else gathered.device.key


@dataclass
class _Gathered:
    """Pieces of evidence about one device, before they are put together case by case."""

    device: DeviceRecord
    runs: list[str] = field(default_factory=list)
    pieces: list[CaseEvidence] = field(default_factory=list)

    def add(self, run: Run, device: DeviceRecord, tampered: str | None, unverified: str | None) -> None:
        """Add what ``run`` holds about ``device``."""
        before = len(self.pieces)
        name = run.path.resolve().name
        versions = {engine.name: engine.version for engine in run.record.engines}
        options = _extra_flags(run.record.command)
        simulated = run.record.simulated or device.simulated

        def piece(spec: CaseSpec, status: Status, records: tuple[CaseRecord, ...], **more: Any) -> None:
            if spec.slice is not None:
                return  # a slice of a model is no evidence about the model
            self.pieces.append(
                CaseEvidence(
                    spec=spec,
                    device=device,
                    status=status,
                    records=records,
                    runs=(name,),
                    engine_version=versions.get(spec.engine, "unknown"),
                    simulated=simulated or any(record.simulated for record in records),
                    tampered=tampered,
                    unverified=unverified,
                    extra_flags=options,
                    **more,
                )
            )

        # A case that failed and was measured again after a resume counts as it ended.
        finished = {case.spec.case_id: case for case in run.cases if case.spec.device_key == device.key}
        for case in finished.values():
            piece(case.spec, case.status, (case,))
        for skipped in run.record.skipped:
            if skipped.spec.device_key == device.key:
                piece(skipped.spec, "skipped", (), reason=skipped.reason, lacking_bytes=skipped.lacking_bytes)
        for planned in run.record.cases:
            if planned.spec.device_key == device.key and planned.spec.case_id not in finished:
                piece(planned.spec, "not_run", (), reason="planned, but the sweep ended before it")
        if len(self.pieces) > before and name not in self.runs:
            self.runs.append(name)

    def cases(self) -> Iterable[CaseEvidence]:
        """Put the pieces of each case together; what was measured goes before what was not."""
        by_case: dict[tuple[str, str], list[CaseEvidence]] = {}
        for piece in self.pieces:
            by_case.setdefault((piece.spec.case_id, piece.engine_version), []).append(piece)
        for pieces in by_case.values():
            best = next(
                status
                for status in ("ok", "failed", "skipped", "not_run")
                if any(piece.status == status for piece in pieces)
            )
            kept = [piece for piece in pieces if piece.status == best]
            yield kept[0] if len(kept) == 1 else _joined(kept)


def _joined(pieces: Sequence[CaseEvidence]) -> CaseEvidence:
    last = pieces[-1]
    return CaseEvidence(
        spec=last.spec,
        device=last.device,
        status=last.status,
        records=tuple(record for piece in pieces for record in piece.records),
        runs=tuple(dict.fromkeys(run for piece in pieces for run in piece.runs)),
        engine_version=last.engine_version,
        simulated=any(piece.simulated for piece in pieces),
        reason=last.reason,
        lacking_bytes=last.lacking_bytes,
        tampered=next((piece.tampered for piece in pieces if piece.tampered), None),
        unverified=next((piece.unverified for piece in pieces if piece.unverified), None),
        extra_flags=last.extra_flags,
    )


def edited(run: Run) -> str | None:
    """Return the first sign that a run was changed after it was written, or None.

    That a run is incomplete or its last line torn is no such sign: killing a sweep leaves that.
    """
    for warning in run.warnings:
        harmless = (not run.complete) and ("incomplete (" in warning or "is torn" in warning)
        if not harmless:
            return warning
    return None


def _extra_flags(command: Sequence[str]) -> tuple[str, ...]:
    """Engine options and interpreter of the command that made a run; it may hold anything."""
    pairs = zip(command[::2], command[1::2], strict=False)
    return tuple(text for pair in pairs if pair[0] in ("--engine-option", "--python") for text in pair)
