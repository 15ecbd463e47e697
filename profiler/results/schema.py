"""The format of a run on disk. Every class here is a part of ``run.json`` or of a line of ``cases.jsonl``.

Units are SI base units (bytes, seconds, watts, joules, tokens per second) and stand in the names or
in ``unit``. Something that was not measured is ``None`` with a reason, never 0; NaN and infinity are
refused on the way in and on the way out. ``docs/schema/`` holds the same as JSON Schema.
"""

from __future__ import annotations

from profiler.results.case_record import CaseRecord, SamplesRef, StartRecord, TrialRecord, Work
from profiler.results.case_spec import CaseSpec, FormatsRecord, LoadSpec, ParallelRecord, SliceRecord
from profiler.results.fidelity_record import Fidelity, FidelityArtefact, FidelityFigures, FidelityLimits
from profiler.results.readings import BoxReadings, MemoryReadings
from profiler.results.record_base import (
    SCHEMA_VERSION,
    Failure,
    Flag,
    Measurement,
    Prediction,
    Record,
)
from profiler.results.run_record import (
    Box,
    Ceiling,
    DeviceRecord,
    EngineRecord,
    ModelRecord,
    NoiseFloor,
    PlannedCase,
    PlanSettings,
    RunRecord,
    SearchSettings,
    SkippedCase,
)
from profiler.results.sensor_record import (
    BaselineRecord,
    EnergyRecord,
    EnergySpans,
    InterruptionRecord,
    PhaseRecord,
    Reason,
    SensorRecord,
    SensorScale,
)
from profiler.results.served_record import (
    ClientCeiling,
    LoadProcess,
    ServedRecord,
    ServerStart,
    SloJudgement,
    Speculation,
)

__all__ = [
    "SCHEMA_VERSION",
    "BaselineRecord",
    "Box",
    "BoxReadings",
    "CaseRecord",
    "CaseSpec",
    "Ceiling",
    "ClientCeiling",
    "DeviceRecord",
    "EnergyRecord",
    "EnergySpans",
    "EngineRecord",
    "Failure",
    "Fidelity",
    "FidelityArtefact",
    "FidelityFigures",
    "FidelityLimits",
    "Flag",
    "FormatsRecord",
    "InterruptionRecord",
    "LoadProcess",
    "LoadSpec",
    "Measurement",
    "MemoryReadings",
    "ModelRecord",
    "NoiseFloor",
    "ParallelRecord",
    "PhaseRecord",
    "PlanSettings",
    "PlannedCase",
    "Prediction",
    "Reason",
    "Record",
    "RunRecord",
    "SamplesRef",
    "SearchSettings",
    "SensorRecord",
    "SensorScale",
    "ServedRecord",
    "ServerStart",
    "SkippedCase",
    "SliceRecord",
    "SloJudgement",
    "Speculation",
    "StartRecord",
    "TrialRecord",
    "Work",
]
