"""One start: a fresh worker process that loads the model, warms up and runs the trials of a case."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any

from pydantic import ValidationError

from profiler.backends.base import EnergyReading, Unavailable
from profiler.backends.cpu import CpuBackend
from profiler.ceilings.bandwidth import PROBES_PER_SIDE, probe_read_bandwidth
from profiler.engines.process import WorkerError, WorkerProcess
from profiler.measure.context import CaseContext, StartFailedError, StartOutcome
from profiler.measure.events import StageEntered, TrialFinished
from profiler.measure.memory import free_bytes, refuse_if_misplaced
from profiler.measure.plan import WARM_UP_SHARE
from profiler.measure.steady import WarmUp, flags_after
from profiler.measure.stop import Decision, decide
from profiler.results.schema import StartRecord, TrialRecord
from profiler.sensors.energy import joules_between
from profiler.workload.token_ids import token_ids

# Kept back from the trials for the second probe and for ending the worker.
CLOSING_S = 1.0


@dataclass
class _Progress:
    trials: list[TrialRecord] = field(default_factory=list)
    stamps: list[list[int] | None] = field(default_factory=list)
    device_used: list[int] = field(default_factory=list)
    host_used: list[int] = field(default_factory=list)
    longest_s: float = 0.0


def measure_start(context: CaseContext, index: int, seconds: float) -> StartOutcome:
    """Run one start of a case.

    Args:
        context: the case.
        index: index of this start; token ids and simulated noise depend on it.
        seconds: wall time it may take, loading included. At least one warm-up trial and two
            measured ones are made however little that is.

    Raises:
        StartFailedError: the worker died, hung, ran out of memory or refused.
    """
    return _Start(context, index, seconds).run()


class _Start:
    def __init__(self, context: CaseContext, index: int, seconds: float) -> None:
        self.context = context
        self.index = index
        self.deadline = context.clock.now() + seconds
        self.seconds = seconds
        self.stage = "start"
        self.seen = _Progress()

    def run(self) -> StartOutcome:
        worker: WorkerProcess | None = None
        try:
            with WorkerProcess(self.context.python, self.context.log_path) as worker:
                return self._measure(worker)
        except WorkerError as error:
            log_tail = worker.log_tail() if worker is not None else ()
            raise StartFailedError(error.kind, self.stage, error.message, log_tail) from error
        except ValidationError as error:
            # What the engine says about itself goes into the record as it is, and no record holds this.
            fault = error.errors(include_url=False, include_input=False)[0]
            message = f"the engine's answer cannot be recorded: {fault['loc'][0]}: {fault['msg']}"
            raise StartFailedError("protocol", self.stage, message) from error

    def _measure(self, worker: WorkerProcess) -> StartOutcome:
        context = self.context
        device = self._hello(worker)
        # Before loading, and the second one after memory was read: a probe's buffer is not the model's.
        self._enter("probe")
        before = self._probe(worker, device)
        self._enter("load")
        loaded = self._load(worker, device)
        self._sample_device_memory()
        self._enter("warm-up")
        warm_up = self._warm_up(worker)
        self._enter("trials")
        first = context.backend.energy(context.device)
        began = context.clock.now()
        decision = self._trials(worker)
        measured_s = context.clock.now() - began
        energy, scope = _energy(first, context.backend.energy(context.device))
        self._sample_device_memory()
        self.stage = "memory"
        memory = worker.request("memory", context.timeouts.probe_s)
        self._enter("probe")
        after = self._probe(worker, device)
        measured = [trial.e2e_s for trial in self.seen.trials if not trial.warm_up]
        flags = flags_after(warm_up, measured, decision.estimate.relative_half_width)
        record = StartRecord(
            index=self.index,
            used=True,
            load_s=loaded["load_s"],
            compile_s=loaded["compile_s"],
            steady="not_steady" not in flags,
            stopped_by=decision.reason,
            probe_before_bytes_per_s=before,
            probe_after_bytes_per_s=after,
            energy_j=energy if isinstance(energy, float) else None,
            measured_s=measured_s,
            details=loaded["details"],
        )
        return StartOutcome(
            record=record,
            trials=self.seen.trials,
            stamps=self.seen.stamps,
            loaded=loaded,
            memory=memory,
            device_used_bytes=self.seen.device_used,
            host_used_bytes=self.seen.host_used,
            energy=energy,
            energy_scope=scope,
            decision=decision,
            warm_up=warm_up.explain(),
            flags=(*decision.flags, *flags),
        )

    def _enter(self, stage: str) -> None:
        self.stage = stage
        self.context.emit(StageEntered(start=self.index, of=self.context.starts, stage=stage))

    def _hello(self, worker: WorkerProcess) -> str:
        context = self.context
        hello = worker.request(
            "hello", context.timeouts.hello_s, engine=context.engine.name, options=context.options
        )
        return context.engine.device_string(context.device, hello)

    def _load(self, worker: WorkerProcess, device: str) -> dict[str, Any]:
        context, spec = self.context, self.context.spec
        if context.model.folder is not None:
            weights: dict[str, Any] = {"kind": "folder", "path": str(context.model.folder)}
        else:
            weights = {"kind": "random", "seed": spec.seed}
        timeout_s = (
            context.timeouts.load_s + context.predicted.weights_bytes / context.timeouts.load_bytes_per_s
        )
        before = free_bytes(context.backend, context.device)
        began = context.clock.now()
        loaded = worker.request(
            "load",
            timeout_s,
            start=self.index,
            architecture=asdict(context.model.architecture),
            weights=weights,
            device=device,
            formats=spec.formats.model_dump(),
            max_batch=spec.batch,
            max_tokens=spec.prompt_tokens + spec.output_tokens,
            prompt_tokens=spec.prompt_tokens,
            output_tokens=spec.output_tokens,
            options=context.options,
        )
        context.clock.account(loaded["load_s"], began)
        after = free_bytes(context.backend, context.device)
        refuse_if_misplaced(context.device, before, after, loaded["weights_bytes"] + loaded["kv_cache_bytes"])
        return loaded

    def _probe(self, worker: WorkerProcess, device: str) -> float:
        return probe_read_bandwidth(worker, device, PROBES_PER_SIDE, self.context.timeouts.probe_s).median

    def _sample_device_memory(self) -> None:
        memory = self.context.backend.memory(self.context.device)
        if not isinstance(memory, Unavailable):
            self.seen.device_used.append(memory.total_bytes - memory.free_bytes)
        host = CpuBackend().host_memory()
        if not isinstance(host, Unavailable):
            self.seen.host_used.append(host.total_bytes - host.free_bytes)

    def _warm_up(self, worker: WorkerProcess) -> WarmUp:
        """Run trials until they are steady or their share of the time is used up."""
        warm_up = WarmUp(WARM_UP_SHARE * self.seconds)
        number = 0
        while True:
            number += 1
            trial = self._trial(worker, warm_up=True)
            self._emit_trial(number, trial, None)
            if warm_up.add(trial.e2e_s) != "warming":
                return warm_up

    def _trials(self, worker: WorkerProcess) -> Decision:
        """Run measured trials until both phases are known well enough, or the time is up."""
        context, began = self.context, self.context.clock.now()
        prefill: list[float] = []
        decode: list[float] = []
        while True:
            trial = self._trial(worker, warm_up=False)
            prefill.append(trial.prefill_s)
            if trial.decode_s is not None:
                decode.append(trial.decode_s)
            # Two trials are made whatever the time, or there would be no interval at all.
            left = self.deadline - CLOSING_S - context.clock.now() if len(prefill) > 1 else None
            if context.soak_s is not None and left is not None:
                left = began + context.soak_s - context.clock.now()
            decisions = [
                decide(times, context.target_relative_half_width, left, trial.e2e_s)
                for times in (prefill, decode)
                if times
            ]
            worst = max(decisions, key=lambda decision: decision.estimate.relative_half_width or 0.0)
            self._emit_trial(len(prefill), trial, worst.estimate.relative_half_width)
            if context.soak_s is not None:
                if left is not None and left < trial.e2e_s:
                    return worst
            elif all(decision.stop for decision in decisions):
                return worst

    def _trial(self, worker: WorkerProcess, *, warm_up: bool) -> TrialRecord:
        """Run one complete prefill and decode with token ids never used before."""
        context, spec, number = self.context, self.context.spec, len(self.seen.trials)
        vocabulary = context.model.architecture.vocab_size
        # Two cases of one scenario must not share prompts either.
        label = f"{spec.scenario}/{spec.variant}/{spec.batch}"
        prompts = [
            token_ids(label, spec.seed, self.index, number, request, spec.prompt_tokens, vocabulary)
            for request in range(spec.batch)
        ]
        began = context.clock.now()
        result = worker.request(
            "run", self._run_timeout(), prompt_ids=prompts, output_tokens=spec.output_tokens, return_ids=False
        )
        trial = self._checked(result, number, warm_up)
        context.clock.account(trial.e2e_s, began)
        self.seen.longest_s = max(self.seen.longest_s, trial.e2e_s)
        self.seen.trials.append(trial)
        return trial

    def _checked(self, result: dict[str, Any], number: int, warm_up: bool) -> TrialRecord:
        """Turn the worker's stamps into a trial; stamps that cannot be true fail the case."""
        submit, first, last = (int(result[name]) for name in ("submit_ns", "first_token_ns", "last_token_ns"))
        steps = result.get("step_ns")
        outputs = self.context.spec.output_tokens
        if not submit < first <= last or (outputs > 1 and first == last):
            raise StartFailedError("protocol", self.stage, "the engine's stamps are not in order")
        if steps is not None and len(steps) != outputs:
            raise StartFailedError(
                "protocol", self.stage, f"asked for {outputs} tokens, the engine stamped {len(steps)}"
            )
        self.seen.stamps.append(None if steps is None else [int(step) - submit for step in steps])
        return TrialRecord(
            start=self.index,
            index=number,
            warm_up=warm_up,
            prefill_s=(first - submit) / 1e9,
            decode_s=(last - first) / 1e9 if outputs > 1 else None,
            e2e_s=(last - submit) / 1e9,
        )

    def _run_timeout(self) -> float:
        timeouts = self.context.timeouts
        if self.seen.longest_s > 0:
            return max(timeouts.later_run_s, timeouts.later_run_factor * self.seen.longest_s)
        return max(timeouts.first_run_s, timeouts.first_run_factor * (self.context.predicted.trial_s or 0.0))

    def _emit_trial(self, number: int, trial: TrialRecord, relative_half_width: float | None) -> None:
        spec = self.context.spec
        if trial.decode_s is None:
            rate = spec.batch * spec.prompt_tokens / trial.prefill_s
        else:
            rate = spec.batch * (spec.output_tokens - 1) / trial.decode_s
        self.context.emit(
            TrialFinished(
                start=self.index,
                number=number,
                warm_up=trial.warm_up,
                tokens_per_s=rate,
                relative_half_width=relative_half_width,
            )
        )


def _energy(
    first: EnergyReading | Unavailable, second: EnergyReading | Unavailable
) -> tuple[float | Unavailable, str]:
    """Return the joules between two readings (or why there are none) and what they cover."""
    if isinstance(first, Unavailable):
        return first, "none"
    if isinstance(second, Unavailable):
        return second, first.scope
    return joules_between(first, second), first.scope
