"""``aiprof load``: a run of served cases on a server by URL."""

from __future__ import annotations

import os
import platform
import secrets
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from profiler import __version__
from profiler.errors import MeasurementError, UsageError
from profiler.load.ceiling import ClientCost, measure_client, refuse_above
from profiler.load.endpoint import Api, Endpoint
from profiler.load.flags import flags
from profiler.load.fleet import Fleet, Progress
from profiler.load.job import Job, Limits, LoopKind
from profiler.load.negotiate import Agreement, negotiate
from profiler.load.plan import Shape, Trace, open_schedule, ramp
from profiler.load.prompts import PromptSpec
from profiler.load.redact import KEY_VARIABLE
from profiler.load.slo import Slo
from profiler.load.summary import measurements, served_record
from profiler.results.read import Run, read_run
from profiler.results.schema import (
    Box,
    CaseSpec,
    DeviceRecord,
    EngineRecord,
    Failure,
    FormatsRecord,
    LoadSpec,
    PlannedCase,
    PlanSettings,
    RunRecord,
)
from profiler.results.store import RunWriter
from profiler.workload.arrivals import Process
from profiler.workload.identity import case_id, workload_id

ENGINE = "endpoint"
STREAMS_PER_PROCESS = 400
"""Streams of a closed loop that one process drives well at 100 tokens/s each."""
OPEN_CONNECTIONS = 16
UNKNOWN = "unknown"


@dataclass(frozen=True)
class Point:
    """One way of driving the server.

    Attributes:
        concurrency: streams of a closed loop, or None for an open one.
        process: kind of arrivals of an open loop.
        rate_per_s: mean arrivals per second; at the start of a ramp.
        rate_end_per_s: arrivals per second at the end of a ramp.
        cv: coefficient of variation of the gaps, None for a trace.
    """

    concurrency: int | None = None
    process: str | None = None
    rate_per_s: float | None = None
    rate_end_per_s: float | None = None
    cv: float | None = None


@dataclass(frozen=True)
class LoadRequest:
    """What is asked of a load.

    Attributes:
        endpoints: where requests go, in turn.
        model: name of the model there; None asks the server.
        api: which API.
        shape: lengths of requests.
        points: how the server is driven, one case each.
        requests: requests per case, or None.
        seconds: time per case in which requests are sent, or None.
        warm_up: requests before each case; None for one per stream, at most 32.
        ramp_s: time over which streams start (closed loop).
        slos: limits of goodput and attainment.
        seed: of prompts, lengths and arrivals.
        shared_prefix_tokens: leading tokens that all prompts have in common.
        trace: the trace to replay, for points of process ``trace``.
        vocab_size: vocabulary of the model, or None.
        tokenizer: folder of a tokenizer to count with, or None.
        name: what the server is called in the record, e.g. ``8xH100, vLLM``; None for nothing.
        processes: load processes; None decides by the load.
        limits: when a request is given up.
        key_variable: environment variable of the API key.
        ca_file: certificates to trust.
        loop: event loop.
        command: the command line, for the record.
    """

    endpoints: tuple[Endpoint, ...]
    model: str | None
    api: Api
    shape: Shape
    points: tuple[Point, ...]
    requests: int | None = None
    seconds: float | None = None
    warm_up: int | None = None
    ramp_s: float = 0.0
    slos: tuple[Slo, ...] = ()
    seed: int = 0
    shared_prefix_tokens: int = 0
    trace: Trace | None = None
    vocab_size: int | None = None
    tokenizer: str | None = None
    name: str | None = None
    processes: int | None = None
    limits: Limits = field(default_factory=Limits)
    key_variable: str = KEY_VARIABLE
    ca_file: str | None = None
    loop: LoopKind = "auto"
    command: tuple[str, ...] = ()


@dataclass(frozen=True)
class Stage:
    """What a load is doing: ``asking`` the server, measuring the ``client``, or a ``case``.

    Attributes:
        name: of the stage.
        case: the case, or None.
        number: of the case, from 1.
        of: cases.
        progress: how far it is, or None.
    """

    name: str
    case: CaseSpec | None = None
    number: int = 0
    of: int = 0
    progress: Progress | None = None


Listener = Callable[[Stage], None]


class Load:
    """Drives a server through all points of a request and writes a run.

    Args:
        request: what is asked.
        listener: told what is going on.
    """

    def __init__(self, request: LoadRequest, listener: Listener | None = None) -> None:
        self.request = request
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
        )  # fmt: skip
        self._tell(Stage("client"))
        cost = measure_client(request.shape.nominal[0], request.loop)
        specs = [self._spec(agreement, point) for point in request.points]
        if len({spec.case_id for spec in specs}) < len(specs):
            raise UsageError("two points of the load are the same")
        dues = [self._due(point) for point in request.points]
        for point, due in zip(request.points, dues, strict=True):
            if due is not None:
                self._ceiling(cost, point, due, refuse=True)
        with RunWriter.create(path, self._record(agreement, specs, dues)) as writer:
            for number, (spec, point, due) in enumerate(
                zip(specs, request.points, dues, strict=True), start=1
            ):
                stage = Stage("case", spec, number, len(specs))
                self._tell(stage)
                if self._measure(writer, agreement, cost, stage, point, due):
                    raise KeyboardInterrupt
            writer.close()
        return read_run(path)

    def _due(self, point: Point) -> NDArray[np.float64] | None:
        request = self.request
        if point.concurrency is not None:
            return None
        if request.trace is not None:
            due = request.trace.at_s
            due = due if request.seconds is None else due[due < request.seconds]
            return due[: request.requests] if request.requests is not None else due
        assert point.rate_per_s is not None
        assert point.process is not None
        if point.rate_end_per_s is not None:
            assert request.seconds is not None
            return ramp(point.rate_per_s, point.rate_end_per_s, request.seconds)
        return open_schedule(
            request.shape.name, _stationary(point.process), point.rate_per_s, point.cv or 0.0,
            count=request.requests, seconds=request.seconds, seed=request.seed,
        )  # fmt: skip

    def _processes(self, point: Point, cost: ClientCost, rate_per_s: float | None) -> int:
        if self.request.processes is not None:
            return self.request.processes
        cores = len(os.sched_getaffinity(0))
        if point.concurrency is not None:
            wanted = -(-point.concurrency // STREAMS_PER_PROCESS)
        else:
            one = cost.requests_per_s(self.request.shape.nominal[1], 1)
            wanted = int(2 * (rate_per_s or 0.0) / one) + 1
        return max(1, min(wanted, cores))

    def _ceiling(
        self, cost: ClientCost, point: Point, due: NDArray[np.float64] | None, *, refuse: bool
    ) -> Any:
        rate = peak_rate(due) if due is not None else None
        processes = self._processes(point, cost, rate)
        ceiling = cost.ceiling(float(self.request.shape.output_tokens.mean()), processes, rate)
        if refuse and rate is not None:
            refuse_above(ceiling, rate)
        return ceiling

    def _spec(self, agreement: Agreement, point: Point) -> CaseSpec:
        request, shape = self.request, self.request.shape
        trace = request.trace
        load = LoadSpec(
            loop="open" if point.concurrency is None else "closed",
            **asdict(point),
            api=request.api,
            prompt="token_ids" if agreement.features.token_ids else "text",
            lengths=shape.kind,
            shared_prefix_tokens=request.shared_prefix_tokens,
            trace_sha256=None if trace is None or point.process != "trace" else trace.sha256,
        )
        formats = FormatsRecord(weight_format=UNKNOWN, compute_dtype=UNKNOWN, kv_dtype=UNKNOWN)
        prompt, output = shape.nominal
        work = workload_id(
            {"served_as": agreement.model},
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
            model=agreement.model,
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

    def _record(
        self, agreement: Agreement, specs: Sequence[CaseSpec], dues: Sequence[NDArray[np.float64] | None]
    ) -> RunRecord:
        request = self.request
        endpoint = request.endpoints[0]
        seconds = [float(due[-1]) if due is not None and len(due) else request.seconds or 0.0 for due in dues]
        return RunRecord(
            run_id=secrets.token_hex(16),
            created_utc=datetime.now(UTC).isoformat(),
            aiprof_version=__version__,
            command=request.command,
            seed=request.seed,
            box=Box(
                system=platform.system(),
                kernel=platform.release(),
                architecture=platform.machine(),
                python=platform.python_version(),
            ),
            devices=(
                DeviceRecord(
                    key=endpoint.key,
                    backend=ENGINE,
                    name=request.name or f"server {endpoint.key.removeprefix('endpoint-')[:6]}",
                    memory_total_bytes=None,
                    simulated=False,
                    verified="a server by URL: what stands behind it is not seen",
                    details=agreement.details,
                    facts={},
                ),
            ),
            engines=(
                EngineRecord(
                    name=ENGINE, version=UNKNOWN, python=UNKNOWN, simulated=False, details=agreement.details
                ),
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
            ),
            cases=tuple(
                PlannedCase(spec=spec, predicted=None, seconds=expected)
                for spec, expected in zip(specs, seconds, strict=True)
            ),
            skipped=(),
            simulated=False,
        )

    def _measure(
        self,
        writer: RunWriter,
        agreement: Agreement,
        cost: ClientCost,
        stage: Stage,
        point: Point,
        due: NDArray[np.float64] | None,
    ) -> bool:
        """Measure one case into the run and return whether it was interrupted."""
        request, spec = self.request, stage.case
        assert spec is not None
        began, started_utc = time.monotonic(), datetime.now(UTC).isoformat()
        rate = None if due is None else peak_rate(due)
        processes = self._processes(point, cost, rate)
        job = self._job(agreement, point, due)
        fleet = Fleet(job, processes)
        fields: dict[str, Any] = {
            "spec": spec,
            "predicted": None,
            "started_utc": started_utc,
            "simulated": False,
        }
        try:
            found, vitals, _ = fleet.run(
                lambda progress: self._tell(Stage("case", spec, stage.number, stage.of, progress))
            )
        except MeasurementError as error:
            failure = Failure(kind="load_process", stage="trials", message=str(error))
            elapsed = time.monotonic() - began
            writer.append(fields | {"status": "failed", "failure": failure, "elapsed_s": elapsed})
            return False
        concurrency = point.concurrency
        measured = measurements(found, concurrency, request.slos)
        served = served_record(
            found, spec, vitals, request.slos,
            asked_requests=request.requests, asked_seconds=request.seconds, warm_up=job.warm_up,
            intended_rate_per_s=None if due is None or len(due) < 2 else float((len(due) - 1) / due[-1]),
            ceiling=self._ceiling(cost, point, due, refuse=False), endpoint=agreement.details,
        )  # fmt: skip
        fields |= {
            "elapsed_s": time.monotonic() - began,
            "served": served,
            "samples": writer.write_samples(spec.case_id, found.samples()),
            "flags": tuple(flags(found, spec, served, measured, len(os.sched_getaffinity(0)))),
        }
        if served.ok:
            writer.append(fields | {"status": "ok", "measurements": measured})
        else:
            name = next(iter(served.failures), "cancelled")
            message = f"no request succeeded: {served.messages.get(name, name)}"
            failure = Failure(kind=name, stage="trials", message=message)
            writer.append(fields | {"status": "failed", "failure": failure})
        return fleet.interrupted

    def _job(self, agreement: Agreement, point: Point, due: NDArray[np.float64] | None) -> Job:
        request = self.request
        streams = point.concurrency or OPEN_CONNECTIONS
        count = len(due) if due is not None else request.requests or sys.maxsize
        warm_up = min(streams, 32) if request.warm_up is None else request.warm_up
        trace = request.trace
        return Job(
            endpoints=request.endpoints,
            api=request.api,
            model=agreement.model,
            prompts=PromptSpec(
                request.shape.name,
                request.seed,
                request.vocab_size,
                request.shared_prefix_tokens,
                agreement.words_per_token,
                agreement.overhead_tokens,
                None if trace is None else trace.hash_ids,
            ),
            features=agreement.features,
            prompt_tokens=request.shape.prompt_tokens,
            output_tokens=request.shape.output_tokens,
            due_s=due,
            concurrency=streams,
            count=count,
            seconds=request.seconds if due is None else None,
            ramp_s=request.ramp_s,
            warm_up=warm_up,
            limits=request.limits,
            key_variable=request.key_variable,
            ca_file=request.ca_file,
            tokenizer=request.tokenizer,
            loop=request.loop,
        )


def peak_rate(due: NDArray[np.float64]) -> float:
    """Return the highest rate of a schedule over ten seconds, or over all of it when it is shorter."""
    if len(due) < 2:
        return 0.0
    span = min(10.0, float(due[-1]))
    if span <= 0:
        return float(len(due))  # all at once: as if within a second
    inside = np.searchsorted(due, due + span, side="left") - np.arange(len(due))
    return float(inside.max() / span)


def _stationary(process: str) -> Process:
    if process not in ("constant", "poisson", "gamma"):
        raise UsageError(f"arrivals are constant, poisson or gamma, not {process}")
    return cast(Process, process)
