"""``run.json``: what a run was going to measure, on what and how."""

from __future__ import annotations

import platform
from typing import Annotated, Literal, Self

from pydantic import Field

from profiler.results.case_spec import CaseSpec
from profiler.results.fields import Count, Details, Finite, Name, Positive, Seed, Text, Utc, Version
from profiler.results.record_base import SCHEMA_VERSION, Measurement, Prediction, Record
from profiler.results.sensor_record import BaselineRecord, SensorRecord


class PlannedCase(Record):
    """A case that will run, and the time it may take.

    Attributes:
        predicted: what the accounting expects, or None for a server whose model is not known.
    """

    spec: CaseSpec
    predicted: Prediction | None
    seconds: Finite


class SkippedCase(Record):
    """A case that cannot run here, and why.

    Attributes:
        reason: one line.
        lacking_bytes: how much memory is missing, where that is the reason.
    """

    spec: CaseSpec
    reason: Text
    lacking_bytes: Count | None = None


class SearchSettings(Record):
    """A search for the highest load that keeps the limits; its points follow from what is found.

    Attributes:
        over: ``concurrency`` or ``rate``.
        low: where it begins.
        high: where it ends at the latest.
        slos: the limits.
    """

    over: Literal["concurrency", "rate"]
    low: Finite
    high: Finite
    slos: tuple[Name, ...]


class PlanSettings(Record):
    """How the sweep measures; the same for all of its cases.

    Attributes:
        preset: name of the preset that the settings started from.
        budget_s: wall time that the plan was made for.
        starts: fresh worker processes per case.
        target_relative_half_width: the CI half-width, relative to the mean, at which trials stop; None for
            loads, whose length is set beforehand.
        repeat_on_interference: whether a disturbed start is made once more.
        soak_s: how long the one case was held, or None for an ordinary sweep.
        search: what was looked for; cases beyond the first are then not in the plan. None without a search.
    """

    preset: Name
    budget_s: Finite
    starts: Positive
    target_relative_half_width: Finite | None
    repeat_on_interference: bool
    soak_s: Finite | None = None
    search: SearchSettings | None = None


class DeviceRecord(Record):
    """A device as its backend described it when the run began."""

    key: Name
    backend: Name
    name: Name
    memory_total_bytes: Count | None
    simulated: bool
    verified: Name
    details: Details
    facts: Details


class EngineRecord(Record):
    """An engine as its worker described it when the run began."""

    name: Name
    version: Name
    python: Name
    simulated: bool
    details: Details


class ModelRecord(Record):
    """A model of the run, so that its accounting can be repeated from the record alone.

    Attributes:
        name: as in the cases.
        weights: ``random``, or real ones in a ``folder`` (safetensors) or a ``file`` (GGUF).
        source: where the architecture comes from, in words.
        architecture: the fields of ``profiler.models.architecture.Architecture``.
        details: what a GGUF file says of itself: its types of tensors with their bytes, parts, vocabulary.
    """

    name: Name
    weights: Literal["random", "folder", "file"]
    source: Text
    architecture: Details
    details: Details = Field(default_factory=dict)


class NoiseFloor(Record):
    """How much the device's read bandwidth moves while nothing else is asked of it.

    Attributes:
        device_key: the device.
        engine: the engine whose probe was used; probes of different engines are not compared.
        method: how the probe reads.
        bytes_per_s: one value per idle probe.
        tolerance: relative change above which a case is flagged: max(5%, 3 MAD / median).
    """

    device_key: Name
    engine: Name
    method: Name
    bytes_per_s: tuple[Finite, ...]
    tolerance: Finite


class Ceiling(Record):
    """What a device itself can do, measured here.

    Attributes:
        device_key: the device; the first of them for what several do together.
        name: ``read_bandwidth``, ``copy_bandwidth``, ``matrix_flops:bf16``, … (``docs/metrics.md``).
        ceiling_method: how it was measured; values of different methods are never compared.
        measurement: the best reading, with what the device may reach at most as its interval.
        engine: whose probe it was, or None in records of older versions.
        readings: every single reading in the measurement's unit, in the order made.
    """

    device_key: Name
    name: Name
    ceiling_method: Name
    measurement: Measurement
    engine: Name | None = None
    readings: tuple[Finite, ...] = ()


class Box(Record):
    """The machine, without anything that names it or its owner."""

    system: Name
    kernel: Name
    architecture: Name
    python: Name

    @classmethod
    def here(cls) -> Self:
        """Return this machine."""
        return cls(
            system=platform.system(),
            kernel=platform.release(),
            architecture=platform.machine(),
            python=platform.python_version(),
        )


class RunRecord(Record):
    """``run.json``: written once, before the first case, and never changed.

    Attributes:
        schema_version: version of this format.
        run_id: random 128-bit hex id.
        created_utc: ISO 8601, UTC.
        aiprof_version: version of the tool.
        command: the options of the sweep, so that it can be repeated.
        models: every model that a case names.
        sensors: every sensor that was found, and for each source without any the reason.
        baselines: power of the idle box before the first case.
        challenge: what a verifier asked to be mixed into prompts and weights, or None.
    """

    schema_version: Version = SCHEMA_VERSION
    run_id: Annotated[str, Field(pattern=r"^[0-9a-f]{32}$")]
    created_utc: Utc
    aiprof_version: Name
    command: tuple[Text, ...]
    seed: Seed
    box: Box
    devices: tuple[DeviceRecord, ...]
    engines: tuple[EngineRecord, ...]
    models: tuple[ModelRecord, ...]
    noise_floors: tuple[NoiseFloor, ...]
    ceilings: tuple[Ceiling, ...]
    settings: PlanSettings
    cases: tuple[PlannedCase, ...]
    skipped: tuple[SkippedCase, ...]
    simulated: bool
    sensors: tuple[SensorRecord, ...] = ()
    baselines: tuple[BaselineRecord, ...] = ()
    challenge: Name | None = None
