"""What the answers of a worker must hold (docs/architecture.md), checked where they arrive.

An engine may come from another package; what it leaves out must fail its case with a clear line, not
the sweep with a traceback.
"""

from __future__ import annotations

from types import NoneType
from typing import Any

_NUMBER = (int, float)
_MAYBE_BYTES = (int, NoneType)
# A probe answers with one of these: a value per repeat.
RATES = ("bytes_per_s", "flops_per_s")
MAX_NAME = 200

ANSWERS: dict[str, dict[str, tuple[type, ...]]] = {
    "hello": {"engine": (dict,), "devices": (list,), "simulated": (bool,), "python": (str,)},
    "load": {
        "weights_bytes": (int,),
        "kv_cache_bytes": (int,),
        "load_s": _NUMBER,
        "compile_s": (*_NUMBER, NoneType),
        "details": (dict,),
    },
    "server": {
        "command": (list,),
        "flags": (list,),
        "environment": (dict,),
        "served_model": (str,),
        "ready_path": (str,),
        "weights": (str,),
        "weights_bytes": (int,),
        "kv_token_bytes": (int,),
    },
    "run": {
        "submit_ns": (int,),
        "first_token_ns": (int, NoneType),
        "last_token_ns": (int,),
        "step_ns": (list, NoneType),
        "output_sha256": (str,),
    },
    "score": {"tokens": (list,), "ids": (list,), "logits": (list,), "log_sum_exp": (list, NoneType)},
    "probe": {"method": (str,)},
    "memory": {
        "engine_peak_bytes": _MAYBE_BYTES,
        "process_rss_bytes": _MAYBE_BYTES,
        "peak_process_bytes": _MAYBE_BYTES,
        "device_total_bytes": _MAYBE_BYTES,
        "device_free_bytes": _MAYBE_BYTES,
    },
}


def fault_in(op: str, result: dict[str, Any]) -> str | None:
    """Return what is wrong with the answer to ``op``, or None."""
    for name, types in ANSWERS.get(op, {}).items():
        if name not in result:
            return f"the engine's answer to {op} lacks {name}"
        value = result[name]
        # bool is an int to Python, and to nobody who reads a record.
        if not isinstance(value, types) or (isinstance(value, bool) and bool not in types):
            wanted = " or ".join("null" if kind is NoneType else kind.__name__ for kind in types)
            return f"the engine's answer to {op} has {name} = {str(value)[:40]!r}, which is not {wanted}"
        if isinstance(value, _NUMBER) and not _recordable(value):
            return f"the engine's answer to {op} has {name} = {str(value)[:40]}, which cannot be true"
        if isinstance(value, str) and len(value) > MAX_NAME:
            return f"the engine's answer to {op} has {name} of {len(value)} characters"
    if op == "hello" and not (
        isinstance(result["engine"].get("version"), str | int | float)
        and isinstance(result["engine"].get("details"), dict)
    ):
        return "the engine's answer to hello lacks the engine's version or details"
    if op == "run" and not all(_is_stamp(step) for step in result["step_ns"] or ()):
        return "the engine's answer to run has something in step_ns that is no time"
    return _rate_fault(result) if op == "probe" else None


def _rate_fault(result: dict[str, Any]) -> str | None:
    """Return what is wrong with the values of a probe: at least one, all finite and above 0."""
    rates = [result[name] for name in RATES if name in result]
    if len(rates) == 1 and isinstance(rates[0], list) and rates[0] and all(map(_is_rate, rates[0])):
        return None
    return f"the engine's answer to probe has no positive {' or '.join(RATES)}"


def _is_rate(value: Any) -> bool:
    return isinstance(value, _NUMBER) and not isinstance(value, bool) and 0 < value < 1e24


def _is_stamp(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and _recordable(value)


def _recordable(value: float) -> bool:
    """Whether a number is finite, not negative and one that records hold; 2**62 ns are 146 years."""
    return 0 <= value < 2**62
