"""One start: a fresh worker process that loads the model, warms up and runs the trials of a case."""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from functools import partial
from typing import Any

from pydantic import ValidationError

from profiler.backends.base import DeviceMemory, Unavailable
from profiler.backends.cpu import CpuBackend
from profiler.ceilings.bandwidth import PROBES_PER_SIDE, probe_read_bandwidth
from profiler.engines.process import WorkerError, WorkerProcess
from profiler.measure.context import CaseContext, StartFailedError, StartOutcome
from profiler.measure.energy_summary import joules_of_trials
from profiler.measure.events import StageEntered, TrialFinished
from profiler.measure.memory import Samples, free_bytes, readings, refuse_if_misplaced
from profiler.measure.phase_energies import Run
from profiler.measure.predicted import WARM_UP_SHARE
from profiler.measure.repeated_prompt import repeat_prompt, reserve_s
from profiler.measure.speculation import speculation_of_trials
from profiler.measure.start_energy import StartEnergy
from profiler.measure.start_watch import StartWatch
from profiler.measure.steady import WarmUp, flags_after
from profiler.measure.stop import Decision, decide, judged_times, least_measured_s
from profiler.results.schema import StartRecord, TrialRecord
from profiler.workload.prompts import case_label, prompts_digest, trial_prompts, weights_seed

# Kept back from the trials for the second probe and for ending the worker.
CLOSING_S = 1.0
_SHA256 = re.compile("[0-9a-f]{64}")


@dataclass
class _Progress:
    trials: list[TrialRecord] = field(default_factory=list)
    stamps: list[list[int] | None] = field(default_factory=list)
    device_used: dict[str, list[int]] = field(default_factory=dict)
    host_used: list[int] = field(default_factory=list)
    guessed: list[dict[str, Any] | None] = field(default_factory=list)
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
        self.power = StartEnergy(context.sensing, context.all_devices, context.spec, index, seconds)
        self.watch = StartWatch(on_cpu=context.device.backend == "cpu")

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
        hello = self._hello(worker)
        self.placed = context.engine_request(hello)
        device = self.placed["device"]
        # Before loading, and the second one after memory was read: a probe's buffer is not the model's.
        self._enter("probe")
        before = self._probe(worker, device)
        self._enter("load")
        began_ns = time.monotonic_ns()
        loaded = self._load(worker, device)
        self.power.note("load", began_ns)
        self._sample_device_memory()
        self.power.rest()
        self._enter("warm-up")
        began_ns = time.monotonic_ns()
        warm_up = self._warm_up(worker)
        self.power.note("warm-up", began_ns)
        self._enter("trials")
        began_ns = time.monotonic_ns()
        self.watch.begin(worker.pid)
        decision = self._trials(worker)
        self.power.note("trials", began_ns)
        self.watch.end()
        if self.index == 0:
            self._repeat_prompt(worker)
        self.power.repeat(partial(self._repeat, worker))
        seen = self._memory_seen()
        self.stage = "memory"
        memory = worker.request("memory", context.timeouts.probe_s)
        self._enter("probe")
        after = self._probe(worker, device)
        measured = [trial.e2e_s for trial in self.seen.trials if not trial.warm_up]
        flags = flags_after(warm_up, measured, decision.estimate.relative_half_width)
        energies = self.power.records()
        record = StartRecord(
            index=self.index,
            used=True,
            load_s=loaded["load_s"],
            compile_s=loaded["compile_s"],
            steady="not_steady" not in flags,
            stopped_by=decision.reason,
            probe_before_bytes_per_s=before,
            probe_after_bytes_per_s=after,
            energy_j=joules_of_trials(energies, sum(measured)),
            measured_s=sum(measured),
            details=loaded["details"],
            dummy_weights=loaded.get("dummy_weights") is True,
            memory=readings(loaded, memory, seen),
            box=self.watch.readings,
            speculation=speculation_of_trials(context.spec.speculative, self.seen.guessed),
        )
        return StartOutcome(
            record=record,
            trials=self.seen.trials,
            stamps=self.seen.stamps,
            energies=energies,
            power=self.power,
            decision=decision,
            warm_up=warm_up.explain(),
            flags=(*decision.flags, *flags),
            watch=self.watch,
        )

    def _enter(self, stage: str) -> None:
        self.stage = stage
        self.context.emit(StageEntered(start=self.index, of=self.context.starts, stage=stage))

    def _hello(self, worker: WorkerProcess) -> dict[str, Any]:
        context = self.context
        hello = worker.request(
            "hello", context.timeouts.hello_s, engine=context.engine.name, options=context.options
        )
        # A simulated engine's stamps may run ahead of the clock that sensors go by.
        self.watch.virtual = self.power.done.virtual = bool(hello["simulated"]) and not hello["engine"][
            "details"
        ].get("real_time", True)
        return hello

    def _load(self, worker: WorkerProcess, device: str) -> dict[str, Any]:
        context, spec = self.context, self.context.spec
        generated = {"kind": "random", "seed": weights_seed(spec.seed, context.challenge)}
        timeout_s = (
            context.timeouts.load_s + context.predicted.weights_bytes / context.timeouts.load_bytes_per_s
        )
        devices = context.all_devices
        before = [free_bytes(context.backend, device) for device in devices]
        began = context.clock.now()
        loaded = worker.request(
            "load",
            timeout_s,
            start=self.index,
            architecture=asdict(context.model.architecture),
            weights=context.model.real_weights or generated,
            **self.placed,
            formats=spec.formats.model_dump(),
            max_batch=spec.batch,
            max_tokens=spec.prompt_tokens + spec.output_tokens,
            prompt_tokens=spec.prompt_tokens,
            output_tokens=spec.output_tokens,
            options=context.options,
        )
        context.clock.account(loaded["load_s"], began)
        share = (loaded["weights_bytes"] + loaded["kv_cache_bytes"]) // len(devices)
        for each, free in zip(devices, before, strict=True):
            refuse_if_misplaced(each, free, free_bytes(context.backend, each), share)
        return loaded

    def _probe(self, worker: WorkerProcess, device: str) -> float:
        return probe_read_bandwidth(worker, device, PROBES_PER_SIDE, self.context.timeouts.probe_s).median

    def _sample_device_memory(self) -> DeviceMemory | None:
        host = CpuBackend().host_memory()
        if not isinstance(host, Unavailable):
            self.seen.host_used.append(host.total_bytes - host.free_bytes)
        found: list[DeviceMemory] = []
        for device in self.context.all_devices:
            memory = self.context.backend.memory(device)
            if not isinstance(memory, Unavailable):
                used = self.seen.device_used.setdefault(device.key, [])
                used.append(memory.total_bytes - memory.free_bytes)
                found.append(memory)
        return found[0] if found else None

    def _memory_seen(self) -> Samples:
        """Return what was seen of the memory since loading began: by us, and by the sampler."""
        last = self._sample_device_memory()
        polled = self.context.sensing.memory_in_use(self.context.device, self.power.whole_ns[0])
        return Samples(self.seen.device_used, self.seen.host_used, last, polled)

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
        measured: list[TrialRecord] = []
        least_s = least_measured_s(self.seconds, WARM_UP_SHARE)
        while True:
            trial = self._trial(worker, warm_up=False)
            measured.append(trial)
            # Two trials are made whatever the time, or there would be no interval at all.
            kept_s = CLOSING_S + self.power.reserve_s
            if self.index == 0:
                kept_s += reserve_s(trial, context.spec.output_tokens, self.seconds)
            left = self.deadline - kept_s - context.clock.now() if len(measured) > 1 else None
            if context.soak_s is not None and left is not None:
                left = began + context.soak_s - context.clock.now()
            decisions = [
                decide(times, context.target_relative_half_width, left, trial.e2e_s)
                for times in judged_times(measured)
            ]
            worst = max(decisions, key=lambda decision: decision.estimate.relative_half_width or 0.0)
            self._emit_trial(len(measured), trial, worst.estimate.relative_half_width)
            if context.soak_s is not None:
                if left is not None and left < trial.e2e_s:
                    return worst
            elif all(decision.stop for decision in decisions):
                measured_s = sum(one.e2e_s for one in measured)
                if measured_s >= least_s or (left is not None and left < trial.e2e_s):
                    return worst

    def _trial(self, worker: WorkerProcess, *, warm_up: bool) -> TrialRecord:
        """Run one complete prefill and decode with token ids never used before."""
        number = len(self.seen.trials)
        prompts = self._prompts(number)
        began = self.context.clock.now()
        edge = None if warm_up else self.power.edge
        result = self._run(worker, prompts, self.context.spec.output_tokens, edge)
        trial = self._checked(result, number, warm_up, prompts_digest(prompts))
        self.context.clock.account(trial.e2e_s, began)
        self.seen.longest_s = max(self.seen.longest_s, trial.e2e_s)
        self.seen.trials.append(trial)
        if not warm_up:
            self.power.ran(_stamps(result))
            self.watch.trial(_stamps(result))
            self.seen.guessed.append(result.get("speculation"))
        return trial

    def _repeat(self, worker: WorkerProcess, purpose: str, number: int, output_tokens: int) -> Run:
        """Run a batch for its energy only."""
        prompts = self._prompts(number, f"/{purpose}")
        return _stamps(self._run(worker, prompts, output_tokens, self.power.edge))

    def _repeat_prompt(self, worker: WorkerProcess) -> None:
        """Ask the last trial's prompts again: an engine that caches shows in the time."""
        last = len(self.seen.trials) - 1

        def ask(again: bool, output_tokens: int) -> Run:
            return _stamps(self._run(worker, self._prompts(last, "" if again else "/fresh"), output_tokens))

        passed_s = self.seconds - (self.deadline - self.context.clock.now())
        self.watch.repeated(repeat_prompt(self.seen.trials, self.context.spec.output_tokens, passed_s, ask))

    def _run(
        self,
        worker: WorkerProcess,
        prompts: list[list[int]],
        output_tokens: int,
        edge: Callable[[], None] | None = None,
    ) -> dict[str, Any]:
        """Run a batch; ``edge`` is called as it begins and when its end is known here."""
        result = worker.request(
            "run",
            self._run_timeout(),
            sent=edge,
            prompt_ids=prompts,
            output_tokens=output_tokens,
            return_ids=False,
        )
        if edge is not None:
            edge()
        return result

    def _prompts(self, number: int, purpose: str = "") -> list[list[int]]:
        """Return the token ids of a batch; what is run for another purpose shares none with the trials."""
        spec = self.context.spec
        return trial_prompts(
            case_label(spec.scenario, spec.variant, spec.batch) + purpose,
            seed=spec.seed,
            challenge=self.context.challenge,
            start=self.index,
            trial=number,
            batch=spec.batch,
            prompt_tokens=spec.prompt_tokens,
            vocab_size=self.context.model.architecture.vocab_size,
        )

    def _checked(self, result: dict[str, Any], number: int, warm_up: bool, prompts: str) -> TrialRecord:
        """Turn the worker's stamps into a trial; stamps that cannot be true fail the case."""
        submit, first, last = _stamps(result)
        mixed = (
            None if first is not None else str(result.get("split_reason") or "the engine does not say why")
        )
        steps = result.get("step_ns")
        outputs = self.context.spec.output_tokens
        if not submit < (last if first is None else first) <= last or (outputs > 1 and first == last):
            raise StartFailedError("protocol", self.stage, "the engine's stamps are not in order")
        if steps is not None and len(steps) != outputs:
            raise StartFailedError(
                "protocol", self.stage, f"asked for {outputs} tokens, the engine stamped {len(steps)}"
            )
        if steps is not None and (steps[0], steps[-1]) != (first, last if outputs > 1 else first):
            raise StartFailedError(
                "protocol", self.stage, "the stamps of the tokens are not those of the phases"
            )
        self.seen.stamps.append(None if steps is None else [int(step) - submit for step in steps])
        return TrialRecord(
            start=self.index,
            index=number,
            warm_up=warm_up,
            prefill_s=None if first is None else (first - submit) / 1e9,
            decode_s=(last - first) / 1e9 if first is not None and outputs > 1 else None,
            e2e_s=(last - submit) / 1e9,
            mixed=mixed,
            preemptions=result.get("preemptions"),
            prompts_sha256=prompts,
            output_sha256=result["output_sha256"] if _SHA256.fullmatch(result["output_sha256"]) else None,
        )

    def _run_timeout(self) -> float:
        timeouts = self.context.timeouts
        if self.seen.longest_s > 0:
            return max(timeouts.later_run_s, timeouts.later_run_factor * self.seen.longest_s)
        return max(timeouts.first_run_s, timeouts.first_run_factor * (self.context.predicted.trial_s or 0.0))

    def _emit_trial(self, number: int, trial: TrialRecord, relative_half_width: float | None) -> None:
        spec = self.context.spec
        if trial.prefill_s is None:
            rate = spec.batch * spec.output_tokens / trial.e2e_s
        elif trial.decode_s is None:
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


def _stamps(result: dict[str, Any]) -> Run:
    first = result["first_token_ns"]
    return Run(int(result["submit_ns"]), None if first is None else int(first), int(result["last_token_ns"]))
