"""``aiprof load``: a run of served cases on a server by URL."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Protocol

from profiler import __version__
from profiler.errors import UsageError
from profiler.load.ceiling import measure_client
from profiler.load.course import Course
from profiler.load.drive import Driven, Driver
from profiler.load.fleet import Progress
from profiler.load.negotiate import negotiate
from profiler.load.request import LoadRequest, Point
from profiler.measure.fidelity import fidelity_flags
from profiler.measure.fidelity_server import fidelity_of
from profiler.privacy import served_name
from profiler.results.read import Run, read_run
from profiler.results.schema import (
    Box,
    CaseSpec,
    DeviceRecord,
    EngineRecord,
    Fidelity,
    FormatsRecord,
    PlannedCase,
    PlanSettings,
    RunRecord,
)
from profiler.results.store import RunWriter
from profiler.workload.identity import case_id, workload_id

ENGINE = "endpoint"
UNKNOWN = "unknown"


@dataclass(frozen=True)
class Stage:
    """What a load does: ``asking`` the server, measuring the ``client``, ``checking`` answers, or a ``case``.

    Attributes:
        name: of the stage.
        case: the case, or None.
        number: of the case, from 1.
        of: cases, or None where a search decides it.
        progress: how far it is, or None.
    """

    name: str
    case: CaseSpec | None = None
    number: int = 0
    of: int | None = None
    progress: Progress | None = None


Listener = Callable[[Stage], None]


class Beside(Protocol):
    """Looks at the device on which the server runs, where that is one of this box."""

    def begin(self) -> None:
        """Get ready for the next case: the server rests."""
        ...

    def edge(self) -> None:
        """Take note that the load begins or has ended about now."""
        ...

    def fields(self, driven: Driven) -> dict[str, Any]:
        """Return what is added to the fields of the case that was driven."""
        ...

    def columns(self) -> dict[str, Any]:
        """Return the reads of every sensor since :meth:`begin`, as columns."""
        ...

    @property
    def simulated(self) -> bool:
        """Whether what it looks with is no hardware."""
        ...

    def record(self) -> dict[str, Any]:
        """Return fields of the run's record: sensors, baselines."""
        ...

    def details(self) -> dict[str, Any]:
        """Return what is said of the device in the record."""
        ...


class Load:
    """Drives a server through all points of a request and writes a run.

    Args:
        request: what is asked.
        listener: told what is going on.
        beside: looks at the device of the server, or None.
    """

    def __init__(
        self, request: LoadRequest, listener: Listener | None = None, beside: Beside | None = None
    ) -> None:
        self.request = request
        self._beside = beside
        self._tell: Listener = listener or (lambda stage: None)

    def run(self, path: Path) -> Run:
        """Measure every point into ``path`` and return the run.

        Raises:
            UsageError: a rate is above what the client can drive, or the folder holds a run.
            NothingMeasuredError: the server does not answer as it should.
            KeyboardInterrupt: everything that was measured is on disk.
        """
        request = self.request
        self._tell(Stage("asking"))
        agreement = negotiate(
            request.endpoints, request.api, request.model, key_variable=request.key_variable,
            ca_file=request.ca_file, limits=request.limits, tokenizer=request.tokenizer,
            vocab_size=request.vocab_size,
        )  # fmt: skip
        self._tell(Stage("client"))
        driver = Driver(request, agreement, measure_client(request.shape.nominal[0], request.loop))
        course = Course(request.points, request.search)
        planned = course.planned
        if not planned:
            raise UsageError("a load needs at least one point")
        specs = [self._spec(driver, point) for point in planned]
        if len({spec.case_id for spec in specs}) < len(specs):
            raise UsageError("two points of the load are the same")
        for first in planned:
            driver.refuse_if_beyond(first)
        self._tell(Stage("checking"))
        fidelity = fidelity_of(driver.job_to_ask(), request.claim)
        with RunWriter.create(path, self._record(driver, specs, course)) as writer:
            number = 0
            while (point := course.next()) is not None:
                number += 1
                self._measure(writer, driver, number, point, course, fidelity)
            writer.close()
        return read_run(path)

    def _measure(
        self,
        writer: RunWriter,
        driver: Driver,
        number: int,
        point: Point,
        course: Course,
        fidelity: Fidelity,
    ) -> None:
        """Measure one case into the run, and take note of how a search judges it."""
        spec = self._spec(driver, point)
        of = len(self.request.points) or None
        self._tell(Stage("case", spec, number, of))
        try:
            driver.refuse_if_beyond(point)
        except UsageError:
            if course.search is None:
                raise
            # The search has come to what the client can drive; what was found below it stands.
            course.note(point)
            return
        beside = self._beside
        if beside is not None:
            beside.begin()
        driven = driver.measure(
            spec, point, lambda columns: writer.write_samples(spec.case_id, columns),
            lambda progress: self._tell(Stage("case", spec, number, of, progress)),
            simulated=beside is not None and beside.simulated,
            edge=None if beside is None else beside.edge,
        )  # fmt: skip
        fields = driven.fields | {"spec": spec, "predicted": None, "fidelity": fidelity}
        if beside is not None:
            fields |= beside.fields(driven)
            columns = beside.columns()
            if len(columns["sensor"]):
                fields["sensor_samples"] = writer.write_samples(spec.case_id, columns, suffix=".sensors")
        fields["flags"] = (*fields.get("flags", ()), *fidelity_flags(fidelity))
        case = writer.append(fields)
        if driven.interrupted:
            raise KeyboardInterrupt
        course.note_case(point, case)

    def _spec(self, driver: Driver, point: Point) -> CaseSpec:
        request, shape = self.request, self.request.shape
        agreement, load = driver.agreement, driver.load_spec(point)
        formats = FormatsRecord(weight_format=UNKNOWN, compute_dtype=UNKNOWN, kv_dtype=UNKNOWN)
        prompt, output = shape.nominal
        work = workload_id(
            {"served_as": served_name(agreement.model)},
            prompt_tokens=prompt,
            output_tokens=output,
            arrivals=load.model_dump(mode="json") | {"shape": shape.name},
        )
        key = request.endpoints[0].key
        return CaseSpec(
            case_id=case_id(
                work,
                engine=ENGINE,
                formats=formats.model_dump(),
                weights="server",
                device_key=key,
                seed=request.seed,
            ),
            workload_id=work,
            device_key=key,
            engine=ENGINE,
            model=served_name(agreement.model),
            weights="server",
            formats=formats,
            scenario=shape.name,
            variant="full",
            prompt_tokens=prompt,
            output_tokens=output,
            batch=point.concurrency or 1,
            seed=request.seed,
            load=load,
        )

    def _record(self, driver: Driver, specs: Sequence[CaseSpec], course: Course) -> RunRecord:
        request = self.request
        endpoint = request.endpoints[0]
        details = driver.agreement.details
        beside = self._beside
        seconds = [driver.expected_seconds(point) for point in course.planned]
        return RunRecord(
            run_id=secrets.token_hex(16),
            created_utc=datetime.now(UTC).isoformat(),
            aiprof_version=__version__,
            command=request.command,
            seed=request.seed,
            box=Box.here(),
            devices=(
                DeviceRecord(
                    key=endpoint.key,
                    backend=ENGINE,
                    name=request.name or f"server {endpoint.key.removeprefix('endpoint-')[:6]}",
                    memory_total_bytes=None,
                    simulated=False,
                    verified="a server by URL: what stands behind it is not seen",
                    details=details if beside is None else details | beside.details(),
                    facts={},
                ),
            ),
            engines=(
                EngineRecord(name=ENGINE, version=UNKNOWN, python=UNKNOWN, simulated=False, details=details),
            ),
            models=(),
            noise_floors=(),
            ceilings=(),
            settings=PlanSettings(
                preset="load",
                budget_s=sum(seconds),
                starts=1,
                target_relative_half_width=None,
                repeat_on_interference=False,
                search=course.settings(request.slos),
            ),
            cases=tuple(
                PlannedCase(spec=spec, predicted=None, seconds=expected)
                for spec, expected in zip(specs, seconds, strict=True)
            ),
            skipped=(),
            simulated=beside is not None and beside.simulated,
            **({} if beside is None else beside.record()),
        )
