"""What a case is: the work, its formats, and the keys that two results must share to be compared."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import model_validator

from profiler.results.fields import Count, Finite, Identifier, Name, Positive, Seed
from profiler.results.record_base import Record


class FormatsRecord(Record):
    """Number formats of a case.

    Attributes:
        weight_format: of the weights; of a GGUF file what it calls itself (``q4_k_m``).
        compute_dtype: of the matrix products.
        kv_dtype: of the KV cache.
        stored_bytes: (part of the model, bytes) where each tensor of a file has a format of its own; None
            where the bytes follow from ``weight_format``.
    """

    weight_format: Name
    compute_dtype: Name
    kv_dtype: Name
    stored_bytes: tuple[tuple[Name, Count], ...] | None = None


class SliceRecord(Record):
    """Which layers of a model were run, where it was not the whole of it.

    Attributes:
        dense: layers with a dense MLP that were kept, the first ones.
        moe: layers with experts that were kept, the first ones.
        of_dense: layers with a dense MLP that the model has.
        of_moe: layers with experts that it has.
    """

    dense: Count
    moe: Count
    of_dense: Count
    of_moe: Count

    def __str__(self) -> str:
        kept = f"{self.dense}+{self.moe}" if self.of_dense and self.of_moe else str(self.dense + self.moe)
        return f"{kept} of {self.of_dense + self.of_moe} layers"


class ParallelRecord(Record):
    """How a model is spread over several devices.

    Attributes:
        tp: devices that share each matrix (tensor parallel).
        pp: groups of layers, one after the other (pipeline parallel).
        dp: copies that take different requests (data parallel).
        ep: devices that the experts of a layer are spread over, 1 where they are not (expert parallel).
    """

    tp: Positive = 1
    pp: Positive = 1
    dp: Positive = 1
    ep: Positive = 1

    def __str__(self) -> str:
        return " · ".join(f"{name} {count}" for name, count in self.model_dump().items() if count > 1)


class LoadSpec(Record):
    """How a server is driven in a served case; all of it must be equal for two cases to be compared.

    Attributes:
        loop: ``closed`` (a fixed number of streams) or ``open`` (arrivals on a schedule).
        concurrency: streams of a closed loop, else None.
        process: kind of arrivals of an open loop, else None.
        rate_per_s: mean arrivals per second of an open loop; of a ramp that at its start; else None.
        rate_end_per_s: arrivals per second at the end of a ramp, else None.
        cv: coefficient of variation of the gaps between arrivals, or None where a trace says when.
        api: ``completions`` or ``chat``.
        prompt: whether prompts go as ``token_ids`` or as ``text`` (whose length is then approximate).
        lengths: ``fixed``, drawn from the scenario's ``distribution``, or those of a ``trace``.
        shared_prefix_tokens: leading prompt tokens that all requests have in common.
        trace_sha256: digest of the trace that is replayed, else None.
        speculative: method of speculative decoding or multi-token prediction that is stated of the server
            (``eagle3``, ``mtp``), or None where none is. It makes other work:
            never matched with runs without.
    """

    loop: Literal["closed", "open"]
    concurrency: Positive | None = None
    process: Literal["constant", "poisson", "gamma", "ramp", "trace"] | None = None
    rate_per_s: Finite | None = None
    rate_end_per_s: Finite | None = None
    cv: Finite | None = None
    api: Literal["completions", "chat"]
    prompt: Literal["token_ids", "text"]
    lengths: Literal["fixed", "distribution", "trace"]
    shared_prefix_tokens: Count = 0
    trace_sha256: Identifier | None = None
    speculative: Name | None = None

    @model_validator(mode="after")
    def _one_loop(self) -> Self:
        if (self.loop == "closed") != (self.concurrency is not None):
            raise ValueError("a closed loop, and only a closed loop, has a concurrency")
        if (self.loop == "open") != (self.process is not None and self.rate_per_s is not None):
            raise ValueError("an open loop, and only an open loop, has arrivals with a rate")
        return self

    def __str__(self) -> str:
        if self.concurrency is not None:
            return f"{self.concurrency} user{'' if self.concurrency == 1 else 's'}"
        if self.rate_end_per_s is not None:
            return f"{self.rate_per_s:g} to {self.rate_end_per_s:g} req/s"
        return f"{self.rate_per_s:.4g} req/s {self.process}"


class CaseSpec(Record):
    """What a case is: the work, and the keys that two results must share to be compared.

    Attributes:
        case_id: SHA-256 over the work and all match keys; what resume goes by.
        workload_id: SHA-256 over what the work is, whoever does it.
        device_key: key of the device in ``run.json``.
        engine: name of the engine.
        model: catalogue name, or the folder's own name.
        weights: ``random``, ``folder`` or ``file`` (real weights: safetensors or GGUF), or ``server``:
            whatever a server by URL has loaded.
        weights_digest: digest of the real weights, or None for random ones.
        formats: number formats.
        scenario: name of the scenario.
        variant: ``full`` or ``quick`` (a stated fraction of the lengths).
        prompt_tokens: prompt length of each request.
        output_tokens: tokens generated for each request.
        batch: requests that run together; streams of a closed loop, 1 for an open one.
        seed: seed of token ids and random weights.
        slice: which layers were run, or None for the whole model. A slice is never compared with, and
            never stands for, the whole.
        load: how the server is driven, or None for offline work.
        parallel: how the model is spread over several devices, or None where it runs on one. Never compared
            with a case that is spread in another way.
        device_keys: keys of all its devices, that of ``device_key`` first; empty where it is the only one.
        speculative: method of speculative decoding of a case that aiprof runs itself, or None without any.
            It makes other work: never matched with cases without.
    """

    case_id: Identifier
    workload_id: Identifier
    device_key: Name
    engine: Name
    model: Name
    weights: Literal["random", "folder", "file", "server"]
    weights_digest: Name | None = None
    formats: FormatsRecord
    scenario: Name
    variant: Literal["full", "quick"]
    prompt_tokens: Positive
    output_tokens: Positive
    batch: Positive
    seed: Seed
    slice: SliceRecord | None = None
    parallel: ParallelRecord | None = None
    device_keys: tuple[Name, ...] = ()
    speculative: Name | None = None

    @property
    def model_label(self) -> str:
        """The model's name, for a slice which layers of it, and how it is spread over devices."""
        parts = [] if self.slice is None else [f"slice: {self.slice}"]
        parts += [] if self.parallel is None else [str(self.parallel)]
        parts += [] if self.speculative is None else [f"speculative: {self.speculative}"]
        return f"{self.model} ({'; '.join(parts)})" if parts else self.model

    @property
    def all_devices(self) -> tuple[str, ...]:
        """Keys of all devices that the case takes."""
        return self.device_keys or (self.device_key,)

    load: LoadSpec | None = None

    @property
    def load_label(self) -> str:
        """How many requests at once, in words: ``batch 8``, ``8 users``, ``2 req/s poisson``."""
        return f"batch {self.batch}" if self.load is None else str(self.load)
