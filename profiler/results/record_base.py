"""What all parts of a record are made of: figures, flags, failures, and what a case is."""

from __future__ import annotations

from typing import Any, Final, Literal, Self

from pydantic import BaseModel, ConfigDict, model_validator

from profiler.results.fields import Count, Finite, Identifier, Name, Positive, Seed, Text

SCHEMA_VERSION: Final = 1


class Record(BaseModel):
    """Base of everything that is written to disk."""

    model_config = ConfigDict(
        extra="forbid", frozen=True, allow_inf_nan=False, json_schema_serialization_defaults_required=True
    )


_NOT_KEPT: Final[set[str]] = set()


class Frequent(Record):
    """Base of records of which a run holds tens of thousands.

    Which fields a file gave is not kept: for a small record pydantic's own list of them takes more memory
    than everything else.
    """

    def model_post_init(self, context: Any, /) -> None:
        """Share one empty list of fields."""
        object.__setattr__(self, "__pydantic_fields_set__", _NOT_KEPT)


class Measurement(Frequent):
    """One figure with everything needed to judge it.

    Attributes:
        value: the figure in ``unit``, or None when it could not be measured.
        unit: SI base unit: ``tokens/s``, ``s``, ``bytes``, ``W``, ``J``, ``J/token``, ``bytes/s``.
        ci95: 95% confidence interval of ``value`` in the same unit, or None.
        n: replicates behind ``value`` (trials for one start, starts for several).
        method: how it came about, e.g. ``mean of trials``.
        scope: what it speaks for: ``within_process``, ``across_starts``, or what a sensor covers.
        reason: why there is no value; exactly one of ``value`` and ``reason`` is None.
        flags: codes of the case's flags that concern this figure.
    """

    model_config = ConfigDict(
        json_schema_extra={
            "oneOf": [
                {"properties": {"value": {"type": "number"}, "reason": {"type": "null"}}},
                {"properties": {"value": {"type": "null"}, "reason": {"type": "string"}}},
            ]
        }
    )

    value: Finite | None
    unit: Name
    ci95: tuple[Finite, Finite] | None = None
    n: Count = 0
    method: Name
    scope: Name
    reason: Text | None = None
    flags: tuple[Name, ...] = ()

    @model_validator(mode="after")
    def _value_or_reason(self) -> Self:
        if (self.value is None) == (self.reason is None):
            raise ValueError("exactly one of value and reason must be null")
        if self.ci95 is not None and (self.value is None or not self.ci95[0] <= self.ci95[1]):
            raise ValueError("ci95 needs a value and must be (low, high)")
        return self

    @classmethod
    def missing(cls, unit: str, reason: str, *, method: str = "none", scope: str = "none") -> Measurement:
        """Return a measurement that says why there is no value."""
        return cls(value=None, unit=unit, method=method, scope=scope, reason=reason)


class Flag(Record):
    """Something that limits what a result may be used for.

    Attributes:
        code: one of the codes in ``docs/metrics.md``.
        text: what was seen, with the figures.
        hint: what to do about it.
    """

    code: Name
    text: Text
    hint: Text


class Failure(Record):
    """Why a case has no result.

    Attributes:
        kind: ``out_of_memory``, ``worker_died``, ``timeout``, ``unsupported``, ``weights``, ``device``, …
        stage: what was being done: ``start``, ``load``, ``probe``, ``warm-up``, ``trials``, ``memory``.
        message: one line: what, where, what to do.
        log_tail: last lines of the worker's stderr, without names or home paths.
    """

    kind: Name
    stage: Name
    message: Text
    log_tail: tuple[Text, ...] = ()


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


class Prediction(Record):
    """What the accounting expects of a case before it runs.

    Attributes:
        weights_bytes: all weights in their format.
        kv_cache_bytes: key-value cache for the whole batch at full length.
        needed_bytes: what must be free on the device: weights, cache and a stated reserve.
        kv_capacity_tokens: tokens whose cache fits beside the weights and the reserve, or None where the
            device does not say how much memory it has, or only a slice runs.
        max_users_at_context: requests of this case's length that makes, or None.
        trial_s: one trial at the measured bandwidth, or None when that is not known.
        basis: one sentence on where the numbers come from.
        device_weights_bytes: weights on the device that holds most of them, None where there is one device.
        device_kv_cache_bytes: cache on it.
        device_needed_bytes: what must be free on each device.
    """

    weights_bytes: Count
    kv_cache_bytes: Count
    needed_bytes: Count
    kv_capacity_tokens: Count | None = None
    max_users_at_context: Count | None = None
    trial_s: Finite | None
    basis: Text
    device_weights_bytes: Count | None = None
    device_kv_cache_bytes: Count | None = None
    device_needed_bytes: Count | None = None
