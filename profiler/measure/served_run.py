"""``run.json`` of a sweep over a server by URL."""

from __future__ import annotations

import secrets
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from datetime import UTC, datetime
from typing import Any

from profiler import __version__
from profiler.backends.base import BackendReport, Device
from profiler.engines.endpoint import EndpointEngine
from profiler.measure.prepare import Selection
from profiler.measure.sensing import Sensing
from profiler.results.schema import (
    Box,
    DeviceRecord,
    EngineRecord,
    ModelRecord,
    PlannedCase,
    PlanSettings,
    RunRecord,
)

SEEN = "a server by URL: what stands behind it is not seen"


def served_run(
    selection: Selection,
    device: Device,
    settings: PlanSettings,
    cases: Sequence[PlannedCase],
    details: Mapping[str, Any],
    sensing: Sensing,
    *,
    simulated: bool,
) -> RunRecord:
    """Return the record of a run that is about to begin.

    Args:
        selection: what was asked for; its one model is what the user says that the server runs.
        device: of this box, or the one that stands for the server.
        settings: how it will be measured.
        cases: that are known beforehand.
        details: what was found out about the server.
        sensing: the sensors of this box.
        simulated: whether the server is not real.
    """
    (model,) = selection.models.values()
    # Whose server it is stays out of the record; on resume it is given again.
    options = {key: text for key, text in selection.request.engine_options.items() if key != "url"}
    return RunRecord(
        run_id=secrets.token_hex(16),
        created_utc=datetime.now(UTC).isoformat(timespec="seconds"),
        aiprof_version=__version__,
        command=replace(selection.request, engine_options=options).to_arguments(),
        seed=selection.request.seed,
        box=Box.here(),
        devices=(_device_record(device, selection.reports.get(device.backend)),),
        engines=(
            EngineRecord(
                name=EndpointEngine.name,
                version="unknown",
                python="unknown",
                simulated=simulated,
                details=dict(details),
            ),
        ),
        models=(
            ModelRecord(
                name=model.name,
                weights=model.weights,
                source=f"stated by the user: {model.source}",
                architecture=asdict(model.architecture),
            ),
        ),
        noise_floors=(),
        ceilings=(),
        settings=settings,
        cases=tuple(cases),
        skipped=(),
        simulated=simulated or device.simulated or sensing.simulated,
        sensors=sensing.records(),
        baselines=sensing.baselines(),
    )


def _device_record(device: Device, report: BackendReport | None) -> DeviceRecord:
    return DeviceRecord(
        key=device.key,
        backend=device.backend,
        name=device.name,
        memory_total_bytes=device.memory_total_bytes,
        simulated=device.simulated,
        verified=SEEN if report is None else report.verified,
        details=dict(device.details),
        facts={} if report is None else dict(report.facts),
    )
