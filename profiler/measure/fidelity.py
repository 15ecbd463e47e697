"""Before the first case of an engine, model, formats and device: does it compute the model it claims?"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import asdict, replace
from typing import Any

import psutil

from profiler.engines.process import WorkerError, WorkerProcess
from profiler.errors import UsageError
from profiler.measure.context import CaseContext, Timeouts
from profiler.measure.events import FidelityChecked, FidelityStarted
from profiler.measure.fidelity_answers import Answer, Fault, answer_faults, compare
from profiler.measure.fidelity_artefact import PROMPT_TOKENS, STEPS, Artefact, artefact_of
from profiler.measure.fidelity_limits import Judgement, judge
from profiler.measure.fidelity_reference import (
    Reference,
    ReferenceCache,
    answers_of,
    compute_reference,
    load_request,
    load_timeout_s,
    python_with_torch,
    require_all,
)
from profiler.measure.fidelity_spread import Spread, one_copy, spread_of
from profiler.models.formats import Formats
from profiler.models.parallel import ONE_DEVICE, Parallel
from profiler.results.fidelity_record import Fidelity
from profiler.results.schema import Flag
from profiler.workload.prompts import weights_seed

TEACHER_FORCED = "log-probabilities along given tokens, and greedy continuations"
GREEDY_ONLY = "greedy continuations only: the engine gives no log-probabilities"
# Share of the time left that the check may take.
MOST_OF_THE_TIME = 1 / 3
# Two workers, and what it takes to make and multiply weights; used for nothing but leaving the check out.
WORKERS_S = 6.0
PARAMETERS_PER_S = 6e7
# Share of the free memory that the reference may take.
MOST_OF_THE_MEMORY = 0.5
CACHED_HINT = "turn caches off, or compare only with figures made on fresh prompts, as these are"
NOT_CHECKED_HINT = "no figure of an unchecked engine proves that it ran this model; see the reason"


class UncheckedError(Exception):
    """A check could not be made; the message says why."""


class FidelityChecks:
    """The checks of a sweep: one for each device, engine, model, formats and spread, before its first case.

    Args:
        deadline: end of the sweep's budget on the contexts' clock, or None to leave the checks out.
    """

    def __init__(self, deadline: float | None) -> None:
        self._deadline = deadline
        self._found: dict[Hashable, Fidelity] = {}

    def of(self, context: CaseContext) -> Fidelity:
        """Return the verdict on what runs the case, checking it first where nobody has."""
        if self._deadline is None:
            return left_out("the sweep was made with --no-fidelity")
        spread = str(context.spec.parallel or "")
        key = (context.device.key, context.engine.name, context.model.name, context.formats, spread)
        if key not in self._found:
            context.emit(FidelityStarted(context.spec))
            self._found[key] = check(context, self._deadline - context.clock.now())
            context.emit(FidelityChecked(context.spec, self._found[key]))
        return self._found[key]


def check(context: CaseContext, seconds_left: float, cache: ReferenceCache | None = None) -> Fidelity:
    """Run the check in workers of its own. It never raises: what keeps it from a verdict becomes the reason.

    Args:
        context: the first case of its engine, model, formats and device.
        seconds_left: of the sweep's budget.
        cache: of references.
    """
    began = context.clock.now()
    # A challenge makes another artefact, so that nobody can have prepared for it.
    seed, asked = weights_seed(context.spec.seed, context.challenge), context.spec.parallel
    copies = ONE_DEVICE if asked is None else one_copy(Parallel(**asked.model_dump()))
    artefact = artefact_of(context.model, seed, copies)
    spread = spread_of(asked, artefact.architecture)
    try:
        context = replace(context, timeouts=_hurried(context.timeouts, MOST_OF_THE_TIME * seconds_left))
        fields = _checked(context, artefact, spread, seconds_left, cache or ReferenceCache())
        fields |= {"parallel": spread.record, "spread_reason": spread.reason}
    except (WorkerError, UsageError, ValueError, UncheckedError) as error:
        kind = f"{error.kind}: " if isinstance(error, WorkerError) else ""
        fields = {"verdict": "not_checked", "reason": f"{kind}{error}", "method": "none", "reference": "none"}
    return Fidelity(artefact=artefact.record, elapsed_s=context.clock.now() - began, **fields)


def left_out(reason: str) -> Fidelity:
    """Return the record of a check that was not wanted."""
    return Fidelity(verdict="not_checked", reason=reason, method="none", reference="none")


def fidelity_flags(fidelity: Fidelity) -> tuple[Flag, ...]:
    """Return the flags of a verdict other than ``faithful``, and of a cache that was found in a server."""
    cached = next((one for one in fidelity.checks if one.name == "cache" and one.passed is False), None)
    found = () if cached is None else (Flag(code="cached_answers", text=cached.text, hint=CACHED_HINT),)
    return (*_verdict_flags(fidelity), *found)


def _verdict_flags(fidelity: Fidelity) -> tuple[Flag, ...]:
    text = fidelity.reason or ""
    if fidelity.verdict == "wrong":
        hint = "the figures are of another computation: find the fault, or do not count them"
        return (Flag(code="fidelity_wrong", text=text, hint=hint),)
    if fidelity.verdict == "degraded":
        hint = (
            "name the format that really ran, or find out why results are less accurate than they should be"
        )
        return (Flag(code="fidelity_degraded", text=text, hint=hint),)
    if fidelity.verdict == "not_checked":
        return (Flag(code="fidelity_not_checked", text=text, hint=NOT_CHECKED_HINT),)
    return ()


def _checked(
    context: CaseContext, artefact: Artefact, spread: Spread, seconds_left: float, cache: ReferenceCache
) -> dict[str, Any]:
    simulated = context.engine.simulated
    if artefact.architecture.max_positions < PROMPT_TOKENS + STEPS:
        raise UncheckedError(f"the model has fewer than {PROMPT_TOKENS + STEPS} positions")
    reference = None if simulated else cache.read(artefact.identity)
    if reference is None:
        if not simulated:
            require_room(artefact, seconds_left)
        reference = _reference(context, artefact, simulated=simulated)
        if not simulated:
            cache.write(artefact.identity, reference)
    scored, continued = _ask(context, artefact, spread, reference)
    judgement = assess(artefact, reference, scored, continued, context.formats)
    return {
        **judgement._asdict(),
        "method": TEACHER_FORCED if scored else GREEDY_ONLY,
        "reference": "simulated" if simulated else "plain fp32 of the torch engine on the CPU",
    }


def assess(
    artefact: Artefact,
    reference: Reference,
    scored: Sequence[Answer],
    continued: Sequence[Answer],
    formats: Formats,
    faults: Sequence[Fault] | None = None,
) -> Judgement:
    """Judge an engine's answers, however they were got.

    Args:
        artefact: what was asked.
        reference: what should have been answered.
        scored: along the given tokens, or nothing.
        continued: greedy continuations.
        formats: what the engine claims to compute with.
        faults: what is wrong with the answers whatever the model; None looks for it here.
    """
    if faults is None:
        faults = answer_faults(artefact.prompts, continued, STEPS, frozenset())
    figures = compare(reference.scored, scored, reference.greedy, continued)
    return judge(figures, formats, faults, experts=artefact.architecture.experts is not None)


def _hurried(timeouts: Timeouts, seconds: float) -> Timeouts:
    """Return timeouts with which no request of the check outlasts its share of the budget."""
    names = ("load_s", "first_run_s")
    return replace(timeouts, **{name: max(1.0, min(getattr(timeouts, name), seconds)) for name in names})


def require_room(artefact: Artefact, seconds_left: float = float("inf")) -> None:
    """Make sure that there is memory and time for the fp32 reference.

    Raises:
        UncheckedError: there is not; says how much would do.
    """
    needed = 4 * artefact.parameters
    free = psutil.virtual_memory().available
    if needed > MOST_OF_THE_MEMORY * free:
        raise UncheckedError(
            f"the fp32 reference needs {needed / 1e9:.1f} GB of host memory; "
            f"{free / 1e9:.1f} GB are free, and it may take {MOST_OF_THE_MEMORY:.0%} of them"
        )
    seconds = WORKERS_S + artefact.parameters / PARAMETERS_PER_S
    if seconds > MOST_OF_THE_TIME * seconds_left:
        raise UncheckedError(
            f"it would take about {seconds:.0f} s of the {seconds_left:.0f} s left: give a larger --budget"
        )


def _reference(context: CaseContext, artefact: Artefact, *, simulated: bool) -> Reference:
    if simulated:
        options = {**context.options, "fidelity": "faithful"}
        device = context.engine.device_string(context.device, {})
        engine, python = context.engine.name, context.python
    else:
        options, engine, device = {"linear": "plain"}, "torch", "cpu"
        python = python_with_torch(context.python)
    try:
        return compute_reference(
            artefact, engine, device, options, python, context.log_path, context.timeouts
        )
    except WorkerError as error:
        raise UncheckedError(f"there is no fp32 reference: {error.kind}: {error}") from error


def _ask(
    context: CaseContext, artefact: Artefact, spread: Spread, reference: Reference
) -> tuple[tuple[Answer, ...], tuple[Answer, ...]]:
    """Load the artefact as the cases load their model, and return scored answers and greedy continuations."""
    timeouts, engine = context.timeouts, context.engine
    with WorkerProcess(context.python, context.log_path) as worker:
        hello = worker.request("hello", timeouts.hello_s, engine=engine.name, options=context.options)
        placed = spread.placed(context.engine_request(hello))
        formats = asdict(artefact.formats(context.formats))
        # What is checked is the model, not how its tokens are guessed ahead.
        options = {key: one for key, one in context.options.items() if not key.startswith("speculative")}
        request = load_request(artefact, placed["device"], formats, options) | placed
        worker.request("load", load_timeout_s(artefact, timeouts), **request)
        try:
            found = worker.request("score", timeouts.first_run_s, **reference.request(artefact))
            scored = require_all(answers_of(found), reference)
        except WorkerError as error:
            if error.fatal or error.kind not in ("unsupported", "bad_request"):
                raise
            scored = ()
        run = worker.request(
            "run",
            timeouts.first_run_s,
            prompt_ids=[list(prompt) for prompt in artefact.prompts],
            output_tokens=STEPS,
            return_ids=True,
        )
    if not isinstance(run.get("output_ids"), list):
        raise UncheckedError(f"engine {engine.name} does not tell which tokens it generated")
    return scored, answers_of({"tokens": run["output_ids"]})
