"""One start: a fresh worker process that loads the model, warms up and runs the trials of a case."""

from __future__ import annotations

import time
from statistics import median
from typing import Any, NamedTuple

from pydantic import ValidationError

from profiler.ceilings.bandwidth import PROBES_PER_SIDE, probe_read_bandwidth
from profiler.engines.process import WorkerError, WorkerProcess
from profiler.measure.batches import Batches, fault_in, stamps, token_stamps, trial_record
from profiler.measure.context import CaseContext, StartFailedError, StartOutcome
from profiler.measure.energy_summary import joules_of_trials
from profiler.measure.events import StageEntered, TrialFinished
from profiler.measure.loading import MemoryLooks, load_model
from profiler.measure.memory import readings
from profiler.measure.phase_energies import Run
from profiler.measure.predicted import WARM_UP_SHARE
from profiler.measure.repeated_prompt import repeat_prompt, reserve_s
from profiler.measure.speculation import speculation_of_trials
from profiler.measure.start_energy import StartEnergy
from profiler.measure.start_watch import StartWatch
from profiler.measure.stats import LOOKS
from profiler.measure.steady import WarmUp, flags_after
from profiler.measure.stop import (
    MOST_TRIALS_PER_CASE,
    Decision,
    decide,
    judged_times,
    least_measured_s,
    too_many_trials,
)
from profiler.results.schema import MemoryReadings, StartRecord, TrialRecord

# How often a long row of trials is judged: it takes time that grows with the row.
_JUDGED_EVERY_S = 0.5
# Kept back from the trials for the second probe and for ending the worker.
CLOSING_S = 1.0


class _Probes(NamedTuple):
    """Medians of the bandwidth probes around a start, bytes/s."""

    before: float
    after: float


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
        # Each start may be repeated once.
        self.most_trials = MOST_TRIALS_PER_CASE // (2 * context.starts)
        self.stage = "start"
        self.trials: list[TrialRecord] = []
        self.stamps: list[list[int] | None] = []
        self.guessed: list[dict[str, Any] | None] = []
        self.looks = MemoryLooks(context)
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
        placed = self.context.engine_request(self._hello(worker))
        self.batches = Batches(self.context, self.index, worker)
        # Before loading, and the second one after memory was read: a probe's buffer is not the model's.
        before = self._probe(worker, placed["device"])
        loaded = self._load(worker, placed)
        warm_up, decision = self._work(worker)
        seen = self.looks.seen(self.power.whole_ns[0])
        self.stage = "memory"
        memory = worker.request("memory", self.context.timeouts.probe_s)
        after = self._probe(worker, placed["device"])
        return self._outcome(
            loaded, readings(loaded, memory, seen), _Probes(before, after), warm_up, decision
        )

    def _outcome(
        self,
        loaded: dict[str, Any],
        memory: MemoryReadings,
        probes: _Probes,
        warm_up: WarmUp,
        decision: Decision,
    ) -> StartOutcome:
        """Put together what the start leaves."""
        measured = [trial.e2e_s for trial in self.trials if not trial.warm_up]
        flags = flags_after(warm_up, measured, decision.estimate.relative_half_width)
        energies = self.power.records()
        record = StartRecord(
            index=self.index,
            used=True,
            load_s=loaded["load_s"],
            compile_s=loaded["compile_s"],
            steady="not_steady" not in flags,
            stopped_by=decision.reason,
            probe_before_bytes_per_s=probes.before,
            probe_after_bytes_per_s=probes.after,
            energy_j=joules_of_trials(energies, sum(measured)),
            measured_s=sum(measured),
            details=loaded["details"],
            dummy_weights=loaded.get("dummy_weights") is True,
            memory=memory,
            box=self.watch.readings,
            speculation=speculation_of_trials(self.context.spec.speculative, self.guessed),
        )
        return StartOutcome(
            record=record,
            trials=self.trials,
            stamps=self.stamps,
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

    def _probe(self, worker: WorkerProcess, device: str) -> float:
        self._enter("probe")
        return probe_read_bandwidth(worker, device, PROBES_PER_SIDE, self.context.timeouts.probe_s).median

    def _load(self, worker: WorkerProcess, placed: dict[str, Any]) -> dict[str, Any]:
        """Load the model, and rest with it."""
        self._enter("load")
        began_ns = time.monotonic_ns()
        loaded = load_model(self.context, self.index, worker, placed)
        self.power.note("load", began_ns)
        self.looks.look()
        self.power.rest()
        return loaded

    def _work(self, worker: WorkerProcess) -> tuple[WarmUp, Decision]:
        """Warm up, run the measured trials, and repeat what their energy and a cache want repeated."""
        self._enter("warm-up")
        began_ns = time.monotonic_ns()
        warm_up = self._warm_up()
        self.power.note("warm-up", began_ns)
        self._enter("trials")
        began_ns = time.monotonic_ns()
        self.watch.begin(worker.pid)
        decision = self._trials()
        self.power.note("trials", began_ns)
        self.watch.end()
        if self.index == 0:
            self._repeat_prompt()
        self.power.repeat(self._repeat)
        return warm_up, decision

    def _warm_up(self) -> WarmUp:
        """Run trials until they are steady or their share of the time is used up."""
        warm_up = WarmUp(WARM_UP_SHARE * self.seconds, most_trials=self.most_trials // 2)
        number = 0
        while True:
            number += 1
            trial = self._trial(warm_up=True)
            self._emit_trial(number, trial, None)
            if warm_up.add(trial.e2e_s) != "warming":
                soak_s, left = self.context.soak_s, self.most_trials - number
                refusal = None if soak_s is None else too_many_trials(soak_s, median(warm_up.times), left)
                if refusal is not None:
                    raise StartFailedError("unsupported", self.stage, refusal)
                return warm_up

    def _trials(self) -> Decision:
        """Run measured trials until both phases are known well enough, or the time is up."""
        clock, soak_s = self.context.clock, self.context.soak_s
        began = judged = clock.now()
        measured: list[TrialRecord] = []
        measured_s, least_s = 0.0, least_measured_s(self.seconds, WARM_UP_SHARE)
        while True:
            trial = self._trial(warm_up=False)
            measured.append(trial)
            measured_s += trial.e2e_s
            # Two trials are made whatever the time, or there would be no interval at all.
            left = self._left_s(trial, began) if len(measured) > 1 else None
            over = left is not None and left < trial.e2e_s
            full = len(self.trials) >= self.most_trials
            if soak_s is not None:
                last = over
            else:
                last = len(measured) >= LOOKS[-1] and (over or full or measured_s >= least_s)
            if last or len(measured) <= LOOKS[-1] or clock.now() - judged >= _JUDGED_EVERY_S:
                decisions = [
                    decide(times, self.context.target_relative_half_width, left, trial.e2e_s)
                    for times in judged_times(measured)
                ]
                worst = max(decisions, key=lambda decision: decision.estimate.relative_half_width or 0.0)
                judged = clock.now()
            self._emit_trial(len(measured), trial, worst.estimate.relative_half_width)
            settled = soak_s is None and all(decision.stop for decision in decisions)
            if last or (settled and (over or measured_s >= least_s)):
                return worst

    def _left_s(self, trial: TrialRecord, began: float) -> float:
        """Return the time left for trials: of the soak, or of the start less what comes after them."""
        now = self.context.clock.now()
        if self.context.soak_s is not None:
            return began + self.context.soak_s - now
        kept_s = CLOSING_S + self.power.reserve_s
        if self.index == 0:
            kept_s += reserve_s(trial, self.context.spec.output_tokens, self.seconds)
        return self.deadline - kept_s - now

    def _trial(self, *, warm_up: bool) -> TrialRecord:
        """Run one complete prefill and decode with token ids never used before."""
        number, outputs = len(self.trials), self.context.spec.output_tokens
        prompts = self.batches.prompts(number)
        began = self.context.clock.now()
        answer = self.batches.run(prompts, outputs, None if warm_up else self.power.edge)
        fault = fault_in(answer, outputs)
        if fault is not None:
            raise StartFailedError("protocol", self.stage, fault)
        trial = trial_record(
            answer, prompts, start=self.index, number=number, warm_up=warm_up, outputs=outputs
        )
        self.context.clock.account(trial.e2e_s, began)
        self.batches.took(trial.e2e_s)
        self.trials.append(trial)
        self.stamps.append(token_stamps(answer))
        if not warm_up:
            self.power.ran(stamps(answer))
            self.watch.trial(stamps(answer))
            self.guessed.append(answer.get("speculation"))
        return trial

    def _repeat(self, purpose: str, number: int, output_tokens: int) -> Run:
        """Run a batch for its energy only."""
        prompts = self.batches.prompts(number, f"/{purpose}")
        return stamps(self.batches.run(prompts, output_tokens, self.power.edge))

    def _repeat_prompt(self) -> None:
        """Ask the last trial's prompts again: an engine that caches shows in the time."""
        last = len(self.trials) - 1

        def ask(again: bool, output_tokens: int) -> Run:
            prompts = self.batches.prompts(last, "" if again else "/fresh")
            return stamps(self.batches.run(prompts, output_tokens))

        passed_s = self.seconds - (self.deadline - self.context.clock.now())
        self.watch.repeated(repeat_prompt(self.trials, self.context.spec.output_tokens, passed_s, ask))

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
