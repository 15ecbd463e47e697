"""Batches that a start asks its worker to run: token ids never used before, and how long to wait for them."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

from profiler.engines.process import WorkerProcess
from profiler.measure.context import CaseContext
from profiler.measure.phase_energies import Run
from profiler.results.schema import TrialRecord
from profiler.workload.prompts import case_label, prompts_digest, trial_prompts

Prompts = list[list[int]]
Answer = dict[str, Any]

_SHA256 = re.compile("[0-9a-f]{64}")


class Batches:
    """Runs batches of one start.

    Args:
        context: the case.
        index: of the start; token ids depend on it.
        worker: that runs them, with its model loaded.
    """

    def __init__(self, context: CaseContext, index: int, worker: WorkerProcess) -> None:
        self._context = context
        self._index = index
        self._worker = worker
        self._longest_s = 0.0

    def prompts(self, number: int, purpose: str = "") -> Prompts:
        """Return the token ids of a batch; what is run for another purpose shares none with the trials."""
        spec = self._context.spec
        return trial_prompts(
            case_label(spec.scenario, spec.variant, spec.batch) + purpose,
            seed=spec.seed,
            challenge=self._context.challenge,
            start=self._index,
            trial=number,
            batch=spec.batch,
            prompt_tokens=spec.prompt_tokens,
            vocab_size=self._context.model.architecture.vocab_size,
        )

    def run(self, prompts: Prompts, output_tokens: int, edge: Callable[[], None] | None = None) -> Answer:
        """Run a batch; a worker that stays silent for longer than a batch can take has hung.

        Args:
            prompts: token ids.
            output_tokens: to generate for each.
            edge: called as the batch begins, and when its end is known here.
        """
        answer = self._worker.request(
            "run",
            self._timeout_s(),
            sent=edge,
            prompt_ids=prompts,
            output_tokens=output_tokens,
            return_ids=False,
        )
        if edge is not None:
            edge()
        return answer

    def took(self, e2e_s: float) -> None:
        """Take note of how long a whole trial took."""
        self._longest_s = max(self._longest_s, e2e_s)

    def _timeout_s(self) -> float:
        timeouts = self._context.timeouts
        if self._longest_s > 0:
            return max(timeouts.later_run_s, timeouts.later_run_factor * self._longest_s)
        expected_s = self._context.predicted.trial_s or 0.0
        return max(timeouts.first_run_s, timeouts.first_run_factor * expected_s)


def stamps(answer: Answer) -> Run:
    """Return when a batch was submitted, and when its first and last tokens came."""
    first = answer["first_token_ns"]
    return Run(int(answer["submit_ns"]), None if first is None else int(first), int(answer["last_token_ns"]))


def fault_in(answer: Answer, outputs: int) -> str | None:
    """Return what cannot be true of a worker's stamps, or None.

    Args:
        answer: to a batch.
        outputs: tokens that were asked for.
    """
    submit, first, last = stamps(answer)
    if not submit < (last if first is None else first) <= last or (outputs > 1 and first == last):
        return "the engine's stamps are not in order"
    steps = answer.get("step_ns")
    if steps is None:
        return None
    if len(steps) != outputs:
        return f"asked for {outputs} tokens, the engine stamped {len(steps)}"
    if (steps[0], steps[-1]) != (first, last if outputs > 1 else first):
        return "the stamps of the tokens are not those of the phases"
    return None


def token_stamps(answer: Answer) -> list[int] | None:
    """Return the stamp of each output token in nanoseconds after submit, where there are any."""
    steps = answer.get("step_ns")
    return None if steps is None else [int(step) - int(answer["submit_ns"]) for step in steps]


def trial_record(
    answer: Answer, prompts: Prompts, *, start: int, number: int, warm_up: bool, outputs: int
) -> TrialRecord:
    """Return an answer without a fault as a trial.

    Args:
        answer: to a batch.
        prompts: of the batch.
        start: index of the start.
        number: of the trial in it.
        warm_up: whether it counts for nothing.
        outputs: tokens that were asked for.
    """
    submit, first, last = stamps(answer)
    mixed = None if first is not None else str(answer.get("split_reason") or "the engine does not say why")
    output = answer["output_sha256"]
    return TrialRecord(
        start=start,
        index=number,
        warm_up=warm_up,
        prefill_s=None if first is None else (first - submit) / 1e9,
        decode_s=(last - first) / 1e9 if first is not None and outputs > 1 else None,
        e2e_s=(last - submit) / 1e9,
        mixed=mixed,
        preemptions=answer.get("preemptions"),
        prompts_sha256=prompts_digest(prompts),
        output_sha256=output if _SHA256.fullmatch(output) else None,
    )
