"""One start of a case that the engine's own server serves: start it, drive it, look at it, end it."""

from __future__ import annotations

import os
import time
from dataclasses import asdict, dataclass, replace
from functools import lru_cache
from typing import Any

from profiler.ceilings.bandwidth import PROBES_PER_SIDE, probe_read_bandwidth
from profiler.engines.process import WorkerError, WorkerProcess
from profiler.engines.server import ServerError, ServerProcess
from profiler.engines.server_metrics import ServerMetrics, read_metrics, since
from profiler.errors import MeasurementError, NothingMeasuredError, UsageError
from profiler.load.ceiling import ClientCost, measure_client
from profiler.load.drive import Driver, Drove
from profiler.load.endpoint import parse_endpoint
from profiler.load.negotiate import Agreement, negotiate
from profiler.load.plan import served_shape
from profiler.load.request import LoadRequest, Point
from profiler.load.slo import parse_slos
from profiler.measure.case_watch import Stretch
from profiler.measure.context import CaseContext, StartFailedError
from profiler.measure.events import StageEntered
from profiler.measure.served_energy import ServedEnergy
from profiler.measure.served_memory import ServedMemory, largest
from profiler.measure.served_plan import longest_request
from profiler.measure.speculation import speculation_between
from profiler.measure.start_watch import StartWatch
from profiler.results.schema import EnergyRecord, Flag, ServerStart
from profiler.workload.prompts import weights_seed
from profiler.workload.stream import stream

READY_S = 300.0
"""For a server of any size; what its weights take comes on top."""
LEAST_SECONDS = 5.0
DYING_S = 3.0
# What a server's context holds beyond the longest request, for the small ones of the negotiation.
LEAST_CONTEXT = 192


@dataclass
class ServedOutcome:
    """What a finished start leaves.

    Attributes:
        record: as it goes into the case's record.
        drove: the load.
        driver: that drove it.
        energies: of each phase by each meter.
        power: its moments.
        stretch: when it was driven, or None when nothing was answered.
        flags: what disturbed it.
        log_tail: last lines that the server had printed when the load was over.
    """

    record: ServerStart
    drove: Drove
    driver: Driver
    energies: tuple[EnergyRecord, ...]
    power: ServedEnergy
    stretch: Stretch | None
    flags: tuple[Flag, ...]
    log_tail: tuple[str, ...]


@lru_cache(maxsize=8)
def client_cost(prompt_tokens: int) -> ClientCost:
    """Return what the load client can drive here, measured once for each length."""
    return measure_client(prompt_tokens)


def start_seed(seed: int, challenge: str | None, start: int) -> int:
    """Return the seed of a start's prompts: those of two starts are never the same."""
    if start == 0 and challenge is None:
        return seed
    return int.from_bytes(stream("served-start", seed, f"{challenge}/{start}", count=8), "little") >> 1


class ServedStart:
    """One start. Use :meth:`run` once.

    Args:
        context: the case.
        index: of the start.
        seconds: wall time it may take, starting the server included; requests are sent for at least
            :data:`LEAST_SECONDS`.
    """

    def __init__(self, context: CaseContext, index: int, seconds: float) -> None:
        assert context.serving is not None
        self.context = context
        self.serving = context.serving
        self.index = index
        self.deadline = context.clock.now() + seconds
        self.stage = "start"
        self.power = ServedEnergy(context.sensing, *context.all_devices, start=index, started=True)
        self.watch = StartWatch(on_cpu=context.device.backend == "cpu")
        self.memory = ServedMemory(context.backend, context.all_devices)

    def run(self) -> ServedOutcome:
        """Measure.

        Raises:
            StartFailedError: the worker or the server failed, or the load did.
            KeyboardInterrupt: the load was interrupted; nothing is kept, and nothing is left running.
        """
        worker: WorkerProcess | None = None
        try:
            with WorkerProcess(self.context.python, self.context.log_path) as worker:
                how = self._prepare(worker)
                if self.context.device.backend != "cpu":
                    worker.kill()  # its context would take memory of the device
                with self._server(how) as server:
                    outcome = self._drive(server, how)
                after = self._probe_again(worker)
        except WorkerError as error:
            tail = worker.log_tail() if worker is not None else ()
            raise StartFailedError(error.kind, self.stage, error.message, tail) from error
        except ServerError as error:
            raise StartFailedError(error.kind, self.stage, error.message, error.log_tail) from error
        except UsageError as error:
            raise StartFailedError("device", self.stage, str(error)) from error
        record = outcome.record.model_copy(
            update={"probe_before_bytes_per_s": how["probed"], "probe_after_bytes_per_s": after}
        )
        return replace(outcome, record=record)

    def _enter(self, stage: str) -> None:
        self.stage = stage
        self.context.emit(StageEntered(start=self.index, of=self.context.starts, stage=stage))

    def _hello(self, worker: WorkerProcess) -> dict[str, Any]:
        context = self.context
        hello = worker.request(
            "hello", context.timeouts.hello_s, engine=context.engine.name, options=context.options
        )
        return context.engine_request(hello)

    def _prepare(self, worker: WorkerProcess) -> dict[str, Any]:
        """Probe the device, have the checkpoint written, and return how the server is started."""
        context, spec = self.context, self.context.spec
        assert spec.load is not None
        self._enter("probe")
        placed = self._hello(worker)
        probed = probe_read_bandwidth(worker, placed["device"], PROBES_PER_SIDE, context.timeouts.probe_s)
        self._enter("load")
        if context.model.folder is not None:
            weights: dict[str, Any] = {"kind": "folder", "path": str(context.model.folder)}
        else:
            weights = {"kind": "random", "seed": weights_seed(spec.seed, context.challenge)}
        assert context.scenario is not None
        self.shape = served_shape(context.scenario, spec.seed)
        how = worker.request(
            "server", self._patience_s(),
            architecture=asdict(context.model.architecture),
            weights=weights,
            formats=spec.formats.model_dump(),
            max_batch=spec.batch,
            max_tokens=max(longest_request(self.shape), LEAST_CONTEXT),
            options=context.options,
            **placed,
        )  # fmt: skip
        return how | {"probed": probed.median}

    def _patience_s(self) -> float:
        timeouts = self.context.timeouts
        return READY_S + self.context.predicted.weights_bytes / timeouts.load_bytes_per_s

    def _server(self, how: dict[str, Any]) -> ServerProcess:
        command = [str(word) for word in how["command"]]
        return ServerProcess(
            lambda port: [word.replace("{port}", str(port)) for word in command],
            self.context.log_path,
            name=f"the {self.context.engine.name} server",
            environment=os.environ | {str(key): str(value) for key, value in how["environment"].items()},
            ready_path=how["ready_path"],
            noise=getattr(self.context.engine, "server_noise", None),
        )

    def _drive(self, server: ServerProcess, how: dict[str, Any]) -> ServedOutcome:
        context, spec = self.context, self.context.spec
        assert spec.load is not None
        began = context.clock.now()
        server.wait_ready(self.serving.ready_timeout_s or self._patience_s())
        ready_s = context.clock.now() - began
        driver = self._driver(server, how["served_model"])
        before = read_metrics(server.url)
        self.memory.sample()
        self.power.rest()
        self._enter("trials")
        processes = server.processes()
        self.watch.begin(largest(processes))
        try:
            drove = driver.drive(Point.of(spec.load), edge=self.power.edge)
        except MeasurementError as error:
            raise StartFailedError("load_process", self.stage, str(error), server.log_tail()) from error
        if drove.interrupted:
            raise KeyboardInterrupt
        self.watch.end()
        after = read_metrics(server.url)
        if after == ServerMetrics() or not drove.requests.ok.all():
            _let_it_end(server)
        server.check()
        self.stage = "memory"
        self.memory.sample()
        memory = self.memory.readings(how, processes, after.cache_tokens, context.sensing)
        ok = int(drove.requests.ok.sum())
        tokens = int(drove.requests["output_tokens"][drove.requests.ok].sum())
        energies: tuple[EnergyRecord, ...] = ()
        stretch: Stretch | None = None
        if drove.end_ns is not None:
            energies = self.power.records(drove.begin_ns, drove.end_ns, tokens)
            stretch = self.power.stretch(drove.begin_ns, drove.end_ns)
        record = ServerStart(
            index=self.index,
            flags=tuple(str(word) for word in how["flags"]),
            ready_s=ready_s,
            requests=len(drove.requests),
            ok=ok,
            output_tokens=tokens,
            duration_s=None if drove.end_ns is None else (drove.end_ns - drove.begin_ns) / 1e9,
            preemptions=since(before.preemptions, after.preemptions),
            cached_tokens=since(before.cached_tokens, after.cached_tokens),
            speculation=speculation_between(spec.speculative, before, after),
            processes=len(processes),
            details={
                "weights": how["weights"],
                "threads": how["environment"].get("AIPROF_THREADS"),
                "prepare_checkpoint_s": how.get("prepare_checkpoint_s"),
                "cache_tokens": after.cache_tokens,
                **driver.agreement.details,
            },
            dummy_weights=how.get("dummy_weights") is True,
            memory=memory,
            box=self.watch.readings,
        )
        flags, tail = tuple(self.watch.flags), server.log_tail()
        return ServedOutcome(record, drove, driver, energies, self.power, stretch, flags, tail)

    def _driver(self, server: ServerProcess, model: str) -> Driver:
        """Agree with the server on how it is asked, and return what drives it."""
        context, spec, serving = self.context, self.context.spec, self.serving
        endpoint = parse_endpoint(server.url)
        try:
            vocabulary = context.model.architecture.vocab_size
            agreement = negotiate((endpoint,), "completions", model, vocab_size=vocabulary)
        except (NothingMeasuredError, UsageError) as error:
            server.check("before its first answer")
            raise StartFailedError("server", self.stage, str(error), server.log_tail()) from error
        if not agreement.features.token_ids:
            message = "the server does not take token ids as prompts"
            raise StartFailedError("unsupported", self.stage, message, server.log_tail())
        seconds = max(LEAST_SECONDS, self.deadline - context.clock.now())
        request = LoadRequest(
            endpoints=(endpoint,),
            model=agreement.model,
            api="completions",
            shape=self.shape,
            points=(),
            requests=serving.requests,
            seconds=seconds,
            warm_up=serving.warm_up,
            slos=parse_slos(list(serving.slos)),
            search=context.search,
            seed=start_seed(spec.seed, context.challenge, self.index),
            speculative=spec.speculative,
            vocab_size=context.model.architecture.vocab_size,
        )
        return Driver(request, _without_address(agreement), client_cost(self.shape.nominal[0]))

    def _probe_again(self, worker: WorkerProcess) -> float:
        """Probe the device after the server has ended; on an accelerator with a worker of its own."""
        self._enter("probe")
        context = self.context
        if context.device.backend == "cpu":
            return probe_read_bandwidth(worker, "cpu", PROBES_PER_SIDE, context.timeouts.probe_s).median
        with WorkerProcess(context.python, context.log_path) as fresh:
            name = self._hello(fresh)["device"]
            return probe_read_bandwidth(fresh, name, PROBES_PER_SIDE, context.timeouts.probe_s).median


def _let_it_end(server: ServerProcess) -> None:
    """Wait a moment for a server that did not answer: its end comes later than that of its connections."""
    deadline = time.monotonic() + DYING_S
    while server.running and time.monotonic() < deadline:
        time.sleep(0.05)


def _without_address(agreement: Agreement) -> Agreement:
    """Return the agreement with details that are the same at every start, whatever its port."""
    return replace(agreement, details={**agreement.details, "started_by": "aiprof"})
