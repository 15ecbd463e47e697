"""Driving a server through one point of a load, whoever started the server and whoever keeps the record."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from typing import Any

from profiler.errors import MeasurementError
from profiler.load.arrivals import Due, due_s, mean_rate, peak_rate, requests_at_most
from profiler.load.ceiling import ClientCost, refuse_above
from profiler.load.flags import flags
from profiler.load.fleet import Fleet, Progress
from profiler.load.job import Job
from profiler.load.negotiate import Agreement
from profiler.load.prompts import PromptSpec
from profiler.load.request import LoadRequest, Point
from profiler.load.starts import measurements_of_starts, samples_of
from profiler.load.summary import served_record
from profiler.load.table import Requests, merge
from profiler.load.vitals import Vitals
from profiler.results.schema import CaseSpec, ClientCeiling, Failure, LoadSpec, SamplesRef

STREAMS_PER_PROCESS = 400
"""Streams of a closed loop that one process drives well at 100 tokens/s each."""
OPEN_CONNECTIONS = 16

WriteSamples = Callable[[dict[str, Any]], SamplesRef]


@dataclass(frozen=True)
class Driven:
    """What a point leaves.

    Attributes:
        fields: of its case record: ``status``, ``started_utc``, ``elapsed_s``, ``served``, ``samples``,
            ``flags``, and ``measurements`` or ``failure``.
        interrupted: whether it was cut short by an interrupt.
        begin_ns: the go, CLOCK_MONOTONIC, or None when nothing was sent.
        end_ns: when the last answer had ended, or None.
    """

    fields: dict[str, Any]
    interrupted: bool
    begin_ns: int | None = None
    end_ns: int | None = None


@dataclass(frozen=True)
class Drove:
    """One load as it came from the load processes.

    Attributes:
        requests: the columns of its requests.
        vitals: how each load process did.
        warm_up: requests before the go.
        begin_ns: the go, CLOCK_MONOTONIC.
        end_ns: when the last answer had ended, or None.
        interrupted: whether it was cut short by an interrupt.
        realtime_s: beginning and end on the wall clock, or None without an end.
    """

    requests: Requests
    vitals: tuple[Vitals, ...]
    warm_up: int
    begin_ns: int
    end_ns: int | None
    interrupted: bool
    realtime_s: tuple[float, float] | None


class Driver:
    """Drives one server.

    Args:
        request: lengths, limits and for how long; its points are not used.
        agreement: what the server understands.
        cost: what the client can drive here.
    """

    def __init__(self, request: LoadRequest, agreement: Agreement, cost: ClientCost) -> None:
        self.request = request
        self.agreement = agreement
        self.cost = cost

    def load_spec(self, point: Point) -> LoadSpec:
        """Return how a point drives the server, for its specification."""
        request, trace = self.request, self.request.trace
        return LoadSpec(
            loop="open" if point.concurrency is None else "closed",
            **asdict(point),
            api=request.api,
            prompt="token_ids" if self.agreement.features.token_ids else "text",
            lengths=request.shape.kind,
            shared_prefix_tokens=request.shared_prefix_tokens,
            speculative=request.speculative,
            trace_sha256=None if trace is None or point.process != "trace" else trace.sha256,
        )

    def refuse_if_beyond(self, point: Point) -> None:
        """Refuse a rate that the client cannot drive here.

        Raises:
            UsageError: with what it can.
        """
        due = self.due(point)
        if due is not None:
            refuse_above(self._ceiling(point, due), peak_rate(due))

    def measure(
        self,
        spec: CaseSpec,
        point: Point,
        write_samples: WriteSamples,
        listener: Callable[[Progress], None] | None = None,
        *,
        simulated: bool = False,
        edge: Callable[[], None] | None = None,
    ) -> Driven:
        """Drive the server through a point.

        Args:
            spec: its case.
            point: how.
            write_samples: puts columns of raw samples on disk.
            listener: told how far it is.
            simulated: whether the server is not real.
            edge: called when the load begins and when it has ended.
        """
        began, started_utc = time.monotonic(), datetime.now(UTC).isoformat()
        fields: dict[str, Any] = {"started_utc": started_utc, "simulated": simulated}
        try:
            drove = self.drive(point, listener, edge)
        except MeasurementError as error:
            failure = Failure(kind="load_process", stage="trials", message=str(error))
            elapsed = time.monotonic() - began
            return Driven(fields | {"status": "failed", "failure": failure, "elapsed_s": elapsed}, False)
        fields |= self.fields(spec, point, [drove], write_samples) | {"elapsed_s": time.monotonic() - began}
        return Driven(fields, drove.interrupted, drove.begin_ns, drove.end_ns)

    def drive(
        self,
        point: Point,
        listener: Callable[[Progress], None] | None = None,
        edge: Callable[[], None] | None = None,
    ) -> Drove:
        """Drive the server through a point once; see :meth:`measure`.

        Raises:
            MeasurementError: a load process died.
        """
        due = self.due(point)
        job = self._job(point, due)
        fleet = Fleet(job, self._processes(point, None if due is None else peak_rate(due)))
        wall_before_ns = time.time_ns() - time.monotonic_ns()
        found, vitals, begin_ns = fleet.run(listener, edge)
        wall_after_ns, end_ns = time.time_ns() - time.monotonic_ns(), _last_end(found)
        realtime_s = None
        if begin_ns is not None and end_ns is not None:
            realtime_s = ((begin_ns + wall_before_ns) * 1e-9, (end_ns + wall_after_ns) * 1e-9)
        return Drove(found, vitals, job.warm_up, begin_ns, end_ns, fleet.interrupted, realtime_s)

    def fields(
        self, spec: CaseSpec, point: Point, drove: Sequence[Drove], write_samples: WriteSamples
    ) -> dict[str, Any]:
        """Return what a case record holds of its loads: ``status``, ``served``, ``samples`` and so on.

        Args:
            spec: the case.
            point: how the server was driven.
            drove: what came of it, one for each start of the server.
            write_samples: puts columns of raw samples on disk.
        """
        request, due = self.request, self.due(point)
        parts = [one.requests for one in drove]
        found = merge(parts)
        measured = measurements_of_starts(parts, point.concurrency, request.slos)
        served = served_record(
            found, spec, [one for each in drove for one in each.vitals], request.slos,
            asked_requests=requests_at_most(self.request, point), asked_seconds=request.seconds,
            warm_up=sum(one.warm_up for one in drove),
            intended_rate_per_s=None if due is None else mean_rate(due),
            ceiling=self._ceiling(point, due), endpoint=self.agreement.details, parts=parts,
            prompt_series=point.prompt_series,
        )  # fmt: skip
        if len(drove) == 1 and drove[0].realtime_s is not None:
            began_s, ended_s = drove[0].realtime_s
            served = served.model_copy(update={"began_realtime_s": began_s, "ended_realtime_s": ended_s})
        fields: dict[str, Any] = {
            "served": served,
            "samples": write_samples(samples_of(parts)),
            "flags": tuple(flags(found, spec, served, measured, len(os.sched_getaffinity(0)))),
        }
        if served.ok:
            return fields | {"status": "ok", "measurements": measured}
        return fields | {"status": "failed", "failure": _nothing_succeeded(served.failures, served.messages)}

    def expected_seconds(self, point: Point) -> float:
        """Return for how long requests are sent, as far as it is known beforehand."""
        due = self.due(point)
        if due is not None and len(due):
            return float(due[-1])
        return self.request.seconds or 0.0

    def job_to_ask(self) -> Job:
        """Return the server and what it understands, for a few questions apart from the load."""
        job = self._job(Point(concurrency=1), None)
        limits = replace(job.limits, total_s=min(job.limits.total_s, 120.0))
        prompts = replace(job.prompts, shared_prefix_tokens=0, hash_ids=None)
        return replace(job, prompts=prompts, count=1, warm_up=0, limits=limits)

    def due(self, point: Point) -> Due:
        """Return when requests are due after the go, or None for a closed loop; shape (n,)."""
        return due_s(self.request, point)

    def _processes(self, point: Point, rate_per_s: float | None) -> int:
        if self.request.processes is not None:
            return self.request.processes
        cores = len(os.sched_getaffinity(0))
        if point.concurrency is not None:
            wanted = -(-point.concurrency // STREAMS_PER_PROCESS)
        else:
            one = self.cost.requests_per_s(self.request.shape.nominal[1], 1)
            wanted = int(2 * (rate_per_s or 0.0) / one) + 1
        return max(1, min(wanted, cores))

    def _ceiling(self, point: Point, due: Due) -> ClientCeiling:
        rate = peak_rate(due) if due is not None else None
        tokens = float(self.request.shape.output_tokens.mean())
        return self.cost.ceiling(tokens, self._processes(point, rate), rate)

    def _job(self, point: Point, due: Due) -> Job:
        request, agreement = self.request, self.agreement
        streams = point.concurrency or OPEN_CONNECTIONS
        count = len(due) if due is not None else requests_at_most(self.request, point) or sys.maxsize
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
                point.prompt_series,
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


def _last_end(found: Requests) -> int | None:
    return int(found["end_ns"].max()) if len(found) else None


def _nothing_succeeded(failures: dict[str, int], messages: dict[str, str]) -> Failure:
    name = next(iter(failures), "cancelled")
    message = f"no request succeeded: {messages.get(name, name)}"
    return Failure(kind=name, stage="trials", message=message)
