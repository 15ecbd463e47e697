"""What is run for a fidelity check: the real weights if given and small enough, else a stand-in."""

from __future__ import annotations

import hashlib
import json
import math
from dataclasses import asdict, dataclass, replace
from typing import Any

from profiler.models.architecture import Architecture
from profiler.models.catalogue import ResolvedModel
from profiler.models.formats import Formats, arithmetic_of
from profiler.models.parallel import ONE_DEVICE, Parallel
from profiler.models.tensors import tensor_groups
from profiler.results.fidelity_record import FidelityArtefact
from profiler.worker.fidelity_weights import SCHEME
from profiler.workload.token_ids import token_ids

LAYERS = 2
PROMPTS = 4
PROMPT_TOKENS = 64
STEPS = 16
# Weights in embedding and head up to which the stand-in keeps the whole vocabulary: half a second to make.
MOST_VOCABULARY_WEIGHTS = 160_000_000
REDUCED_VOCABULARY = 16_384
# Real weights are used as they are up to this size of the fp32 reference.
MOST_REAL_BYTES = 4 * 2**30


@dataclass(frozen=True)
class Artefact:
    """A model to check an engine with, and what it is asked.

    Attributes:
        architecture: of what is run.
        weights: as in a ``load`` request.
        digest: of real weights, or None.
        prompts: ``PROMPTS`` lists of ``PROMPT_TOKENS`` tokens.
        forced: tokens to follow each prompt while logits are compared, ``STEPS - 1`` each.
        record: as it goes into the record.
    """

    architecture: Architecture
    weights: dict[str, Any]
    digest: str | None
    prompts: tuple[tuple[int, ...], ...]
    forced: tuple[tuple[int, ...], ...]
    record: FidelityArtefact

    def formats(self, of_model: Formats) -> Formats:
        """Return in which formats it is run for a model that runs in ``of_model``.

        Generated weights in place of a file with a format for each tensor are kept in 8 bits, or plain as
        the file's are: what is looked at is the engine's arithmetic.
        """
        if of_model.stored_bytes is None or self.record.weights != "generated":
            return of_model
        return arithmetic_of(of_model)

    @property
    def parameters(self) -> int:
        """Numbers in all of its weights."""
        return parameters(self.architecture)

    @property
    def identity(self) -> str:
        """SHA-256 over everything that the reference's answers depend on."""
        weights: Any = [SCHEME, self.weights.get("seed")] if self.digest is None else self.digest
        parts = [asdict(self.architecture), weights, self.prompts, self.forced, STEPS]
        return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


def artefact_of(model: ResolvedModel, seed: int, parallel: Parallel = ONE_DEVICE) -> Artefact:
    """Return what to run in place of ``model``.

    Args:
        model: what is going to be measured.
        seed: of generated weights and of the prompts.
        parallel: how it is spread over devices; a stand-in has layers and experts enough for it.
    """
    architecture = model.architecture
    weights = model.real_weights
    if weights is not None and 4 * parameters(architecture) <= MOST_REAL_BYTES:
        record = FidelityArtefact(
            weights=weights["kind"], text="the real weights, all of them", changed={}, seed=seed
        )
        return _asked(architecture, weights, model.weights_digest, record, seed)
    smaller = stand_in(architecture, parallel)
    before, after = asdict(architecture), asdict(smaller)
    changed = {name: after[name] for name in after if after[name] != before[name]}
    record = FidelityArtefact(
        weights="generated", text=_words(architecture, smaller, model), changed=changed, seed=seed
    )
    return _asked(smaller, {"kind": "fidelity", "seed": seed}, None, record, seed)


def stand_in(architecture: Architecture, parallel: Parallel = ONE_DEVICE) -> Architecture:
    """Return the same architecture and widths with two layers, and as many experts and tokens as are needed.

    Of a mixture of experts with dense layers first, one of each kind is kept. Each pipeline stage has a layer
    and each rank of experts an expert at least.
    """
    experts = architecture.experts
    if experts is not None:
        count = min(experts.count, max(2 * experts.per_token, 2 * experts.groups))
        count -= count % experts.groups
        unit = math.lcm(experts.groups, parallel.ep)
        count = min(experts.count, -(-count // unit) * unit)
        experts = replace(experts, count=count, dense_layers=min(experts.dense_layers, 1))
    heads = 1 if architecture.tied_embeddings else 2
    vocabulary = architecture.vocab_size
    if heads * vocabulary * architecture.hidden_size > MOST_VOCABULARY_WEIGHTS:
        vocabulary = min(vocabulary, REDUCED_VOCABULARY)
    return replace(
        architecture,
        layers=min(architecture.layers, max(LAYERS, parallel.pp)),
        vocab_size=vocabulary,
        experts=experts,
    )


def parameters(architecture: Architecture) -> int:
    """Return how many numbers all weights are."""
    return sum(group.parameters for group in tensor_groups(architecture))


def _words(architecture: Architecture, smaller: Architecture, model: ResolvedModel) -> str:
    parts = [f"{smaller.layers} of {architecture.layers} layers"]
    if smaller.vocab_size != architecture.vocab_size:
        parts.append(f"{smaller.vocab_size} of {architecture.vocab_size} tokens")
    if smaller.experts and architecture.experts and smaller.experts.count != architecture.experts.count:
        parts.append(f"{smaller.experts.count} of {architecture.experts.count} experts")
    why = "" if model.real_weights is None else "; the real weights are too large for an fp32 reference"
    return f"same architecture and widths, {', '.join(parts)}, generated weights{why}"


def _asked(
    architecture: Architecture,
    weights: dict[str, Any],
    digest: str | None,
    record: FidelityArtefact,
    seed: int,
) -> Artefact:
    vocabulary = architecture.vocab_size
    rows = [
        token_ids("fidelity", seed, 0, 0, number, PROMPT_TOKENS + STEPS - 1, vocabulary)
        for number in range(PROMPTS)
    ]
    return Artefact(
        architecture=architecture,
        weights=weights,
        digest=digest,
        prompts=tuple(tuple(row[:PROMPT_TOKENS]) for row in rows),
        forced=tuple(tuple(row[PROMPT_TOKENS:]) for row in rows),
        record=record,
    )
