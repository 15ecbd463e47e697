"""Runs as data frames, for notebooks, exports and tables.

pandas is imported only when a frame is made: commands that need none must stay quick.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final

from profiler.results.find import OnError, PathLike, read_runs
from profiler.results.read import Run
from profiler.results.schema import CaseRecord, CaseSpec, Measurement

if TYPE_CHECKING:
    import pandas


_CASE_COLUMNS: Final = {
    "run_id": "string",
    "run": "string",
    "case_id": "string",
    "workload_id": "string",
    "status": "string",
    "device_key": "string",
    "device": "string",
    "backend": "string",
    "engine": "string",
    "engine_version": "string",
    "model": "string",
    "weights": "string",
    "weights_digest": "string",
    "slice": "string",
    "weight_format": "string",
    "compute_dtype": "string",
    "kv_dtype": "string",
    "scenario": "string",
    "variant": "string",
    "prompt_tokens": "Int64",
    "output_tokens": "Int64",
    "batch": "Int64",
    "seed": "Int64",
}
# Name and dtype of every column, in order; docs/metrics.md says what each holds.
RUN_COLUMNS: Final = {
    **_CASE_COLUMNS,
    "metric": "string",
    "value": "float64",
    "unit": "string",
    "ci_low": "float64",
    "ci_high": "float64",
    "n": "Int64",
    "method": "string",
    "scope": "string",
    "reason": "string",
    "flags": "string",
    "simulated": "bool",
    "predicted": "bool",
    "created_utc": "datetime64[us, UTC]",
}
TRIAL_COLUMNS: Final = {
    **_CASE_COLUMNS,
    "start": "Int64",
    "trial": "Int64",
    "warm_up": "bool",
    "used": "bool",
    "prefill_s": "float64",
    "decode_s": "float64",
    "e2e_s": "float64",
    "simulated": "bool",
    "created_utc": "datetime64[us, UTC]",
}


class RunWarning(UserWarning):
    """Something about a run that whoever uses its figures should know."""


def load_runs(paths: PathLike | Iterable[PathLike], *, on_error: OnError = "raise") -> pandas.DataFrame:
    """Return the results of runs, one row per run, case and metric.

    Failed, skipped and planned but never measured cases have one row each, with no metric and the
    ``reason``. Predictions of memory are rows with ``predicted`` set. The columns and dtypes are
    :data:`RUN_COLUMNS` also when there is no row; ``docs/metrics.md`` describes them.

    Args:
        paths: a run, a folder of runs (``runs``), or several of either; a run is loaded once.
        on_error: ``"raise"`` for damaged runs, or ``"skip"`` to leave them out with a warning.

    Raises:
        InputFileError: runs are damaged or missing; names all of them.

    Warns:
        RunWarning: a run is incomplete, torn or edited, or was skipped.
    """
    runs, messages = read_runs(paths, on_error=on_error)
    for message in messages:
        warnings.warn(message, RunWarning, stacklevel=2)
    return frame_of(runs)


def load_trials(paths: PathLike | Iterable[PathLike], *, on_error: OnError = "raise") -> pandas.DataFrame:
    """Return the raw trials of runs, one row per trial, warm-up and replaced starts included.

    Arguments, errors and warnings are those of :func:`load_runs`; the columns are
    :data:`TRIAL_COLUMNS`.
    """
    runs, messages = read_runs(paths, on_error=on_error)
    for message in messages:
        warnings.warn(message, RunWarning, stacklevel=2)
    return trials_of(runs)


def frame_of(runs: Iterable[Run]) -> pandas.DataFrame:
    """Return the frame of :func:`load_runs` for runs that have been read already."""
    return _frame((row for run in runs for row in _rows(run)), RUN_COLUMNS)


def trials_of(runs: Iterable[Run]) -> pandas.DataFrame:
    """Return the frame of :func:`load_trials` for runs that have been read already."""
    return _frame((row for run in runs for row in _trial_rows(run)), TRIAL_COLUMNS)


def _frame(rows: Iterable[dict[str, Any]], columns: dict[str, str]) -> pandas.DataFrame:
    import pandas

    listed = list(rows)
    # Column by column, so that None never passes through a dtype that pandas guesses.
    return pandas.DataFrame(
        {
            name: pandas.Series([row.get(name) for row in listed], dtype=dtype)
            for name, dtype in columns.items()
        }
    )


def _rows(run: Run) -> Iterator[dict[str, Any]]:
    for case in run.cases:
        yield from _case_rows(run, case)
    for skipped in run.record.skipped:
        yield _empty_row(run, skipped.spec, "skipped", skipped.reason)
    done = {case.spec.case_id for case in run.cases}
    for planned in run.record.cases:
        if planned.spec.case_id not in done:
            yield _empty_row(run, planned.spec, "not_run", "planned, but the sweep ended before it")


def _case_rows(run: Run, case: CaseRecord) -> Iterator[dict[str, Any]]:
    if case.failure is not None:
        failure = case.failure
        reason = f"{failure.kind} in {failure.stage}: {failure.message}"
        yield _empty_row(run, case.spec, "failed", reason) | _about(run, case)
        return
    common = _identity(run, case.spec) | _about(run, case) | {"status": "ok", "predicted": False}
    for name, measurement in case.measurements.items():
        yield common | {"metric": name} | _figures(measurement)
    expected = case.predicted
    if expected is None:
        return
    units = {"kv_capacity_tokens": "tokens", "max_users_at_context": "users"}
    for name in ("weights_bytes", "kv_cache_bytes", "needed_bytes", *units):
        value = getattr(expected, name)
        if value is None:
            continue
        yield common | {
            "metric": name,
            "value": value,
            "unit": units.get(name, "bytes"),
            "n": 0,
            "method": expected.basis,
            "scope": "none",
            "predicted": True,
        }


def _figures(measurement: Measurement) -> dict[str, Any]:
    low, high = measurement.ci95 or (None, None)
    return {
        "value": measurement.value,
        "unit": measurement.unit,
        "ci_low": low,
        "ci_high": high,
        "n": measurement.n,
        "method": measurement.method,
        "scope": measurement.scope,
        "reason": measurement.reason,
    }


def _empty_row(run: Run, spec: CaseSpec, status: str, reason: str) -> dict[str, Any]:
    simulated = run.record.simulated or any(
        device.simulated for device in run.record.devices if device.key == spec.device_key
    )
    return _identity(run, spec) | {
        "status": status,
        "reason": reason,
        "flags": "",
        "simulated": simulated,
        "predicted": False,
    }


def _about(run: Run, case: CaseRecord) -> dict[str, Any]:
    return {
        "flags": ",".join(dict.fromkeys(flag.code for flag in case.flags)),
        "simulated": case.simulated or run.record.simulated,
    }


def _trial_rows(run: Run) -> Iterator[dict[str, Any]]:
    for case in run.cases:
        used = {start.index: start.used for start in case.starts}
        common = _identity(run, case.spec) | _about(run, case) | {"status": case.status}
        for trial in case.trials:
            yield common | {
                "start": trial.start,
                "trial": trial.index,
                "warm_up": trial.warm_up,
                "used": used.get(trial.start, False),
                "prefill_s": trial.prefill_s,
                "decode_s": trial.decode_s,
                "e2e_s": trial.e2e_s,
            }


def _identity(run: Run, spec: CaseSpec) -> dict[str, Any]:
    device = next((device for device in run.record.devices if device.key == spec.device_key), None)
    engine = next((engine for engine in run.record.engines if engine.name == spec.engine), None)
    return {
        **spec.model_dump(exclude={"formats"}),
        **spec.formats.model_dump(),
        "slice": None if spec.slice is None else str(spec.slice),
        "run_id": run.record.run_id,
        "run": run.path.resolve().name,
        "device": device and device.name,
        "backend": device and device.backend,
        "engine_version": engine and engine.version,
        "created_utc": datetime.fromisoformat(run.record.created_utc).astimezone(UTC),
    }
