"""Does a server by URL compute what it is said to serve?

Where its weights are known, its greedy continuations are held against the fp32 reference of them. What needs
no reference (``server_answers``) is looked at always.
"""

from __future__ import annotations

import secrets
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from profiler.engines.log_file import worker_log
from profiler.engines.process import WorkerError
from profiler.load.asking import Asked, Said, ask
from profiler.load.job import Job
from profiler.load.prompts import RequestBuilder, token_encoder
from profiler.measure.context import Timeouts
from profiler.measure.fidelity import GREEDY_ONLY, UncheckedError, assess, left_out, require_room
from profiler.measure.fidelity_answers import Answer, Fault
from profiler.measure.fidelity_artefact import PROMPT_TOKENS, STEPS, Artefact, artefact_of
from profiler.measure.fidelity_reference import (
    Reference,
    ReferenceCache,
    compute_reference,
    python_with_torch,
)
from profiler.measure.server_answers import look_at_answers
from profiler.models.catalogue import ResolvedModel
from profiler.models.formats import Formats
from profiler.results.fidelity_record import AnswerCheck, Fidelity, FidelityFigures

PAIRS = 4
"""Fresh prompts, each asked twice in a row."""
GREEDY_LOGPROBS = "log-probabilities along greedy continuations for as long as they agree"
ANSWERS_ONLY = "the server's answers among themselves, without a reference"
NO_WEIGHTS = "which weights the server runs is not known, so there is no reference; give their folder"
# What servers take to tell log-probabilities by token id, dearest first; the last asks for none.
_LADDER: tuple[Mapping[str, Any], ...] = (
    {"logprobs": 20, "return_tokens_as_token_ids": True},
    {"logprobs": 20},
    {"logprobs": 5},
    {},
)
_REFUSALS = ("http_4xx", "http_5xx", "server_error")

Ask = Callable[[Job, Sequence[Asked]], list[Said]]


@dataclass(frozen=True)
class Claim:
    """What a server is said to run.

    Attributes:
        model: with the folder of its weights, or None where they are not known.
        formats: number formats, or None where they are not known.
        seed: of the prompts that go to the server and the reference.
    """

    model: ResolvedModel | None = None
    formats: Formats | None = None
    seed: int = 0


def fidelity_of(job: Job, claim: Claim | None) -> Fidelity:
    """Return the verdict on a server, or the record of a check that was not wanted (no claim)."""
    return left_out("the load was made with --no-fidelity") if claim is None else check_server(job, claim)


def check_server(
    job: Job, claim: Claim, *, ask_server: Ask = ask, cache: ReferenceCache | None = None
) -> Fidelity:
    """Ask the server, and judge. It never raises: what keeps it from a verdict becomes the reason.

    Args:
        job: the server and what it understands; see :meth:`profiler.load.drive.Driver.job_to_ask`.
        claim: what it is said to run.
        ask_server: asks questions one after the other.
        cache: of references.
    """
    began = time.monotonic()
    # Nobody has seen these prompts before, in whatever run.
    job = replace(job, prompts=replace(job.prompts, scenario="answers", seed=secrets.randbits(62)))
    said = ask_server(job, _pairs(job))
    fresh = said[::2]
    faults, checks = look_at_answers(job, said)
    answered = [one for one in said if one.status == "ok"]
    fields: dict[str, Any] = {}
    if not answered:
        fields = _unchecked(f"no prompt was answered: {said[0].status}: {said[0].message}".rstrip(": "))
    elif faults:
        fields = _wrong(faults, len(fresh))
    try:
        if answered and not (faults and claim.model is None):
            fields = _against_reference(job, claim, faults, ask_server, cache or ReferenceCache())
    except (UncheckedError, WorkerError, ValueError) as error:
        fields = fields or _unchecked(f"{error}; {_summary(checks)}")
    return Fidelity(elapsed_s=time.monotonic() - began, checks=tuple(checks), **fields)


def _pairs(job: Job) -> list[Asked]:
    builder = RequestBuilder(job.endpoints, job.api, job.model, job.prompts, job.features)
    by_ids = job.api == "completions" and job.features.token_ids
    made: list[Asked] = []
    for number in range(PAIRS):
        prompt = builder.ids(number, PROMPT_TOKENS) if by_ids else builder.text(number, PROMPT_TOKENS)
        made += [Asked(prompt, STEPS)] * 2
    return made


def _against_reference(
    job: Job, claim: Claim, faults: Sequence[Fault], ask_server: Ask, cache: ReferenceCache
) -> dict[str, Any]:
    """Hold greedy continuations, and log-probabilities where they are told, against the fp32 reference.

    Raises:
        UncheckedError: that is not possible; says why.
        WorkerError: the reference could not be computed.
    """
    artefact = _real_artefact(claim)
    if job.api == "chat" or not job.features.token_ids:
        raise UncheckedError(
            "the server takes no token ids as a prompt: its answers cannot be held to a reference"
        )
    continued = _continuations(job, artefact, ask_server)
    reference = cache.read(artefact.identity)
    if reference is None:
        require_room(artefact)
        reference = _reference(artefact)
        cache.write(artefact.identity, reference)
    ours, theirs = _while_agreed(reference.greedy, continued)
    held = reference.model_copy(update={"scored": ours})
    assert claim.formats is not None
    judgement = assess(artefact, held, theirs, continued, claim.formats, faults)
    return {
        **judgement._asdict(),
        "method": GREEDY_LOGPROBS if theirs else GREEDY_ONLY,
        "reference": "plain fp32 of the torch engine on the CPU",
        "artefact": artefact.record,
    }


def _real_artefact(claim: Claim) -> Artefact:
    model = claim.model
    if model is None or model.real_weights is None:
        raise UncheckedError(NO_WEIGHTS)
    if claim.formats is None:
        raise UncheckedError("in which number formats the server runs is not known: give --precision")
    artefact = artefact_of(model, claim.seed)
    if artefact.record.weights == "generated":
        raise UncheckedError("the weights are too large for an fp32 reference")
    if artefact.architecture.max_positions < PROMPT_TOKENS + STEPS:
        raise UncheckedError(f"the model has fewer than {PROMPT_TOKENS + STEPS} positions")
    return artefact


def _continuations(job: Job, artefact: Artefact, ask_server: Ask) -> tuple[Answer, ...]:
    """Return the server's greedy continuations of the artefact's prompts, as token ids."""
    prompts = [list(prompt) for prompt in artefact.prompts]
    ladder = iter(_LADDER)
    fields = next(ladder)
    while True:
        first = ask_server(job, [Asked(prompts[0], STEPS, fields)])[0]
        following = next(ladder, None) if first.status in _REFUSALS else None
        if following is None:
            break
        fields = following
    said = [first, *ask_server(job, [Asked(prompt, STEPS, fields) for prompt in prompts[1:]])]
    failed = next((one for one in said if one.status != "ok"), None)
    if failed is not None:
        raise UncheckedError(f"a prompt of the check was not answered: {failed.status}: {failed.message}")
    if all(one.ids for one in said):
        return tuple(Answer(one.ids, one.logprobs) for one in said)
    if job.tokenizer is None:
        raise UncheckedError("the server does not tell token ids; give --tokenizer FOLDER")
    encode = token_encoder(job.tokenizer)
    return tuple(Answer(tuple(encode(one.text))) for one in said)


def _while_agreed(
    greedy: Sequence[Answer], continued: Sequence[Answer]
) -> tuple[tuple[Answer, ...], tuple[Answer, ...]]:
    """Return both sides up to and including their first difference, or nothing without log-probabilities.

    So far both have seen the same tokens, so that their distributions can be compared.
    """
    if not all(answer.logprobs for answer in continued):
        return (), ()
    ours, theirs = [], []
    for reference, found in zip(greedy, continued, strict=True):
        pairs = list(zip(reference.tokens, found.tokens, strict=False))
        end = next((at + 1 for at, (one, other) in enumerate(pairs) if one != other), len(pairs))
        ours.append(Answer(reference.tokens[:end], reference.logprobs[:end]))
        theirs.append(Answer(found.tokens[:end], found.logprobs[:end]))
    return tuple(ours), tuple(theirs)


def _reference(artefact: Artefact) -> Reference:
    with worker_log() as log_path:
        try:
            return compute_reference(
                artefact, "torch", "cpu", {"linear": "plain"}, python_with_torch(sys.executable),
                log_path, Timeouts(),
            )  # fmt: skip
        except WorkerError as error:
            raise UncheckedError(f"there is no fp32 reference: {error.kind}: {error}") from error


def _wrong(faults: Sequence[Fault], prompts: int) -> dict[str, Any]:
    return {
        "verdict": "wrong",
        "reason": "; ".join(fault.text for fault in faults),
        "method": ANSWERS_ONLY,
        "reference": "none",
        "figures": FidelityFigures(prompts=prompts, positions=0, greedy_tokens=0, greedy_agreed=0),
    }


def _unchecked(reason: str) -> dict[str, Any]:
    return {"verdict": "not_checked", "reason": reason, "method": ANSWERS_ONLY, "reference": "none"}


def _summary(checks: Sequence[AnswerCheck]) -> str:
    bad = [check.text for check in checks if check.passed is False]
    return f"its answers: {'; '.join(bad)}" if bad else "nothing odd in its answers"
