"""The fp32 reference of a fidelity check: our decoder in plain fp32 on the CPU, asked once and remembered."""

from __future__ import annotations

import contextlib
import importlib.util
import math
import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, Self

from pydantic import BaseModel, ConfigDict, ValidationError, model_validator

from profiler.engines.process import WorkerProcess
from profiler.measure.context import Timeouts
from profiler.measure.fidelity_answers import Answer
from profiler.measure.fidelity_artefact import STEPS, Artefact

# Tokens whose probabilities are compared at each position.
TOP = 64
# Logarithms below this are of no model: logits of the check's weights lie within hundreds.
LEAST_LOGPROB = -1e6
FP32 = {"weight_format": "fp32", "compute_dtype": "fp32", "kv_dtype": "fp32"}
MOST_CACHED_BYTES = 16 * 2**20


class Reference(BaseModel):
    """What the reference answers.

    Attributes:
        scored: along the artefact's given tokens, with log-probabilities.
        greedy: along its own choices, with log-probabilities.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    scored: tuple[Answer, ...]
    greedy: tuple[Answer, ...]

    @model_validator(mode="after")
    def _complete(self) -> Self:
        for answer in (*self.scored, *self.greedy):
            if not len(answer.tokens) == len(answer.logprobs) == len(answer.log_sum_exp):
                raise ValueError("an answer needs log-probabilities at each of its tokens")
            for token, known in zip(answer.tokens, answer.logprobs, strict=True):
                if token not in known or not all(LEAST_LOGPROB <= one <= 0.001 for one in known.values()):
                    raise ValueError("no log-probabilities of an answer's own tokens")
        if len(self.scored) != len(self.greedy) or not self.scored:
            raise ValueError("each prompt is answered twice")
        return self

    def request(self, artefact: Artefact) -> dict[str, Any]:
        """Return the ``score`` request that asks an engine for exactly the same."""
        wanted = [[list(position) for position in answer.logprobs] for answer in self.scored]
        return {
            "prompt_ids": _lists(artefact.prompts),
            "output_tokens": STEPS,
            "forced_ids": _lists(artefact.forced),
            "score_ids": wanted,
        }


def reference_request(artefact: Artefact) -> dict[str, Any]:
    """Return the ``score`` request to the reference: each prompt along given tokens, then by choice."""
    prompts = _lists(artefact.prompts)
    return {
        "prompt_ids": prompts + prompts,
        "output_tokens": STEPS,
        "forced_ids": [*_lists(artefact.forced), *[None] * len(prompts)],
        "score_ids": None,
        "top": TOP,
    }


def reference_from(result: Mapping[str, Any], artefact: Artefact) -> Reference:
    """Turn the answer to :func:`reference_request` into the reference."""
    answers, prompts = answers_of(result), len(artefact.prompts)
    return Reference(scored=answers[:prompts], greedy=answers[prompts:])


def answers_of(result: Mapping[str, Any]) -> tuple[Answer, ...]:
    """Turn the result of ``score``, or one with only ``tokens``, into answers.

    Raises:
        ValueError: the lists do not belong together, or hold what is no token or no logit.
    """
    try:
        tokens = [tuple(map(int, row)) for row in result["tokens"]]
        if "logits" not in result:
            return tuple(Answer(row) for row in tokens)
        sums = result["log_sum_exp"]
        sums = [None] * len(tokens) if sums is None else sums
        rows = zip(tokens, result["ids"], result["logits"], sums, strict=True)
        return tuple(_scored(*row) for row in rows)
    except (KeyError, TypeError, OverflowError) as error:
        raise ValueError(f"the engine's scores are no tokens and logits: {error}") from None


def _scored(chosen: tuple[int, ...], ids: Any, logits: Any, sums: Any) -> Answer:
    """Return one answer; where ``sums`` is None the logits are log-probabilities already."""
    totals = [0.0] * len(chosen) if sums is None else sums
    logprobs = tuple(
        {int(token): float(logit) - float(total) for token, logit in zip(names, values, strict=True)}
        for _, names, values, total in zip(chosen, ids, logits, totals, strict=True)
    )
    if not all(math.isfinite(value) for position in logprobs for value in position.values()):
        raise ValueError("the engine's scores hold logits without end")
    return Answer(chosen, logprobs, () if sums is None else tuple(map(float, sums)))


def require_all(scored: Sequence[Answer], reference: Reference) -> tuple[Answer, ...]:
    """Return an engine's scores if they are all that the reference asked for.

    Raises:
        ValueError: some are missing, which would leave less to be compared.
    """
    wanted = [[set(position) for position in answer.logprobs] for answer in reference.scored]
    given = [[set(position) for position in answer.logprobs] for answer in scored]
    if wanted != given:
        raise ValueError("the engine scored other tokens than it was asked for")
    return tuple(scored)


def compute_reference(
    artefact: Artefact,
    engine: str,
    device: str,
    options: Mapping[str, Any],
    python: str,
    log_path: Path,
    timeouts: Timeouts,
) -> Reference:
    """Ask a fresh worker for the reference's answers.

    Args:
        artefact: what to run.
        engine: ``torch``; a simulated engine is its own reference.
        device: what the engine calls it.
        options: the engine's.
        python: interpreter of the worker.
        log_path: for what the worker prints.
        timeouts: after how long it counts as hung.

    Raises:
        WorkerError: it could not.
        ValueError: it answered with nonsense.
    """
    with WorkerProcess(python, log_path) as worker:
        worker.request("hello", timeouts.hello_s, engine=engine, options={})
        worker.request(
            "load", load_timeout_s(artefact, timeouts), **load_request(artefact, device, FP32, options)
        )
        result = worker.request("score", timeouts.first_run_s, **reference_request(artefact))
    return reference_from(result, artefact)


def load_request(
    artefact: Artefact, device: str, formats: Mapping[str, str], options: Mapping[str, Any]
) -> dict[str, Any]:
    """Return the fields of a ``load`` request for the artefact."""
    return {
        "start": 0,
        "architecture": asdict(artefact.architecture),
        "weights": artefact.weights,
        "device": device,
        "formats": dict(formats),
        "max_batch": 2 * len(artefact.prompts),
        "max_tokens": len(artefact.prompts[0]) + STEPS,
        "prompt_tokens": len(artefact.prompts[0]),
        "output_tokens": STEPS,
        # A slice is of the model; the stand-in is run whole.
        "options": {name: value for name, value in options.items() if name != "layers"},
    }


def load_timeout_s(artefact: Artefact, timeouts: Timeouts) -> float:
    """Return after how long a worker that loads the artefact counts as hung."""
    return timeouts.load_s + 4 * artefact.parameters / timeouts.load_bytes_per_s


def python_with_torch(given: str) -> str:
    """Return the interpreter for the reference: aiprof's own if it has PyTorch, else that of the engine."""
    return sys.executable if importlib.util.find_spec("torch") is not None else given


class ReferenceCache:
    """Answers of references on disk, one file each; a reference never changes.

    Args:
        folder: where; by default the user's cache folder.
    """

    def __init__(self, folder: Path | None = None) -> None:
        root = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
        self._folder = folder or Path(root) / "aiprof" / "fidelity"

    def read(self, identity: str) -> Reference | None:
        """Return a remembered reference, or None; a damaged file is as good as none."""
        path = self._folder / f"{identity}.json"
        try:
            if path.stat().st_size > MOST_CACHED_BYTES:
                return None
            return Reference.model_validate_json(path.read_bytes())
        except (OSError, ValidationError):
            return None

    def write(self, identity: str, reference: Reference) -> None:
        """Remember a reference, if the disk lets us."""
        partial = self._folder / f"{identity}.{os.getpid()}.tmp"
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            partial.write_text(reference.model_dump_json())
            partial.replace(self._folder / f"{identity}.json")
        except OSError:
            with contextlib.suppress(OSError):
                partial.unlink(missing_ok=True)


def _lists(rows: Sequence[Sequence[int]]) -> list[list[int]]:
    return [list(row) for row in rows]
