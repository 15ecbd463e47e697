"""What has changed between the parts of a run, which must not."""

from __future__ import annotations

from typing import Any

from profiler import __version__
from profiler.measure.prepare import Prepared
from profiler.results.schema import DeviceRecord, EngineRecord, RunRecord


def changes_since(record: RunRecord, now: Prepared) -> list[str]:
    """Return one line for everything that shapes results and differs from the record."""
    lines: list[str] = []

    def compare(what: str, then: Any, today: Any) -> None:
        if then != today:
            lines.append(f"  {what}: was {then}, is {today}")

    compare("aiprof", record.aiprof_version, __version__)
    compare("kernel", record.box.kernel, now.box.kernel)
    compare("aiprof's Python", record.box.python, now.box.python)
    for kind, before, after in (
        (
            "device",
            {entry.key: entry for entry in record.devices},
            {entry.key: entry for entry in now.devices},
        ),
        (
            "engine",
            {entry.name: entry for entry in record.engines},
            {entry.name: entry for entry in now.engines},
        ),
    ):
        for name in sorted(before.keys() | after.keys()):
            then, today = _identity(before.get(name)), _identity(after.get(name))
            for field in sorted(then.keys() | today.keys()):
                compare(f"{kind} {name}, {field}", then.get(field), today.get(field))
    planned, possible = _case_ids(record), _case_ids(now)
    if planned != possible:
        lines.append(f"  cases: {len(planned - possible)} of {len(planned)} would no longer be the same work")
    return lines


def _case_ids(plan: RunRecord | Prepared) -> set[str]:
    if plan.settings.search is not None:
        return {case.spec.case_id for case in plan.cases}  # how far it can go depends on what is free today
    # What was skipped for lack of time or memory may fit today, and the other way round.
    return {case.spec.case_id for case in plan.cases} | {case.spec.case_id for case in plan.skipped}


def _identity(entry: DeviceRecord | EngineRecord | None) -> dict[str, Any]:
    """Return what must not change about a device or an engine between the parts of one run."""
    if entry is None:
        return {}
    fields: dict[str, Any] = entry.model_dump()
    details = fields.pop("details")
    return fields | {f"details.{name}": value for name, value in details.items() if name in STABLE_DETAILS}


# Other details (free memory, load, clocks) move by themselves.
STABLE_DETAILS = frozenset(
    {"driver_version", "isa", "logical_cpus", "governor", "power_limit_w", "mig_mode", "threads"}
)
