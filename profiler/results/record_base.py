"""What all parts of a record are made of: figures, flags, failures, predictions."""

from __future__ import annotations

from typing import Any, Final, Self

from pydantic import BaseModel, ConfigDict, model_validator

from profiler.results.fields import Count, Finite, Name, Text

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
