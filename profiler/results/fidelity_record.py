"""Whether an engine computed the model it claims: what was held against what, and the verdict."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from profiler.results.case_spec import ParallelRecord
from profiler.results.fields import Count, Details, Finite, Name, Positive, Seed, Text
from profiler.results.record_base import Record

Share = Annotated[float, Field(ge=0.0, le=1.0, allow_inf_nan=False)]
Verdict = Literal["faithful", "degraded", "wrong", "not_checked"]


class FidelityArtefact(Record):
    """The model that was run for the check; usually smaller than the one that was measured.

    Attributes:
        weights: ``generated`` (seeded, made for the check), or the real ones: ``folder`` or GGUF ``file``.
        text: in words, with everything that is smaller than in the model itself.
        changed: architecture fields that differ from the model's, with the values used.
        seed: of weights and prompts.
    """

    weights: Literal["generated", "folder", "file"]
    text: Text
    changed: Details
    seed: Seed


class GreedyComparison(Record):
    """One greedy continuation beside the reference's, up to where the two part.

    Attributes:
        compared: tokens up to and including the first that differs.
        agreed: those that agreed.
        gap: lead, in nats, of the reference's choice over what the engine chose instead; None where
            nothing differed.
    """

    compared: Count
    agreed: Count
    gap: Finite | None = None


class FidelityPositions(Record):
    """What was found at each single position: the figures follow from it.

    Attributes:
        kl: divergence at each compared distribution, in nats.
        same: whether both have the same likeliest token there.
        logit_error: largest difference of a logit there; empty where the engine gives none.
        greedy: each greedy continuation.
    """

    kl: tuple[Finite, ...]
    same: tuple[bool, ...]
    logit_error: tuple[Finite, ...]
    greedy: tuple[GreedyComparison, ...]


class FidelityFigures(Record):
    """How far the engine's answers are from the reference's.

    Attributes:
        prompts: prompts that were answered.
        positions: next-token distributions that were compared; 0 without log-probabilities.
        mean_kl: mean over positions of the Kullback-Leibler divergence of the engine's distribution
            from the reference's in nats, over the reference's likeliest tokens and one class for all others.
        max_kl: largest of these.
        top1_agreement: share of the positions with the same likeliest token.
        max_logit_error: largest difference of a logit, where the engine gives logits.
        greedy_tokens: tokens of greedy continuations up to and including the first that differs.
        greedy_agreed: those that agreed.
        greedy_gap: largest lead, in nats, of the reference's choice over what the engine chose instead;
            None when nothing differed.
        at: what was found at each position, from which all of this follows; None in made-up records.
    """

    prompts: Positive
    positions: Count
    mean_kl: Finite | None = None
    max_kl: Finite | None = None
    top1_agreement: Share | None = None
    max_logit_error: Finite | None = None
    greedy_tokens: Count
    greedy_agreed: Count
    greedy_gap: Finite | None = None
    at: FidelityPositions | None = None


class FidelityLimits(Record):
    """What a faithful engine keeps to with these formats; see docs/method.md.

    Attributes:
        mean_kl: at most.
        greedy_gap: at most.
    """

    mean_kl: Finite
    greedy_gap: Finite


class AnswerCheck(Record):
    """What was seen of a server's answers, whatever the model behind it is.

    Attributes:
        name: ``length``, ``end_of_sequence``, ``distinct``, ``served_model`` or ``cache``; docs/metrics.md.
        passed: None where it could not be judged.
        text: what was seen.
    """

    name: Name
    passed: bool | None
    text: Text


class Fidelity(Record):
    """The check of one engine, model, formats and device, made before its first case.

    Attributes:
        verdict: ``faithful``; ``degraded``: further off than the formats explain, and a coarser format
            would explain it; ``wrong``: no format explains it; ``not_checked``.
        reason: why it was not checked, or what is wrong; None for ``faithful``.
        explained_by: the finest format that would explain a ``degraded`` result.
        method: what was compared.
        reference: what it was held against.
        elapsed_s: wall time of the check.
        checks: of a server's answers; empty for engines that are no server.
        parallel: how the check was spread over devices, None for one device.
        spread_reason: why it was spread otherwise than the case; None where it was spread alike.
    """

    verdict: Verdict
    reason: Text | None = None
    explained_by: Name | None = None
    method: Name
    reference: Text
    artefact: FidelityArtefact | None = None
    figures: FidelityFigures | None = None
    limits: FidelityLimits | None = None
    elapsed_s: Finite = 0.0
    checks: tuple[AnswerCheck, ...] = ()
    parallel: ParallelRecord | None = None
    spread_reason: Text | None = None

    @property
    def refuted(self) -> str | None:
        """Why figures of this engine are not those of the model it claims; None unless a check found so."""
        return f"{self.verdict}: {self.reason}" if self.verdict in ("degraded", "wrong") else None

    @model_validator(mode="after")
    def _says_why(self) -> Self:
        if (self.verdict == "faithful") != (self.reason is None):
            raise ValueError("a verdict other than faithful, and only such a one, has a reason")
        if (self.verdict != "not_checked") != (self.figures is not None):
            raise ValueError("a verdict needs figures")
        return self
