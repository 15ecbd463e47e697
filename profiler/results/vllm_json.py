"""Served cases under the keys of ``vllm bench serve --save-result``, for programs that read those.

Times are milliseconds. Percentiles are aiprof's: upper bounds at 99% confidence, null where there are too few
requests for one (vLLM writes the sample's quantile however few there are). TPOT is vLLM's, ITL is between
chunks as vLLM has it. What aiprof does not record (standard deviations, lists of every request) is null or
left out.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any

from profiler.errors import UsageError
from profiler.results.read import Run
from profiler.results.schema import CaseRecord, Measurement

_TIMES = {"ttft": "ttft", "tpot": "tpot_vllm", "itl": "icl", "e2el": "e2e"}
PERCENTILES = (90, 95, 99)


def encode_vllm(runs: Iterable[Run]) -> bytes:
    """Return the served cases of runs as JSON: an object for one, an array for several.

    Raises:
        UsageError: there is none.
    """
    found = [vllm_result(run, case) for run in runs for case in run.cases if case.served is not None]
    if not found:
        raise UsageError("--vllm-json is for served cases (`aiprof load`), and these runs hold none")
    return json.dumps(found[0] if len(found) == 1 else found, indent=1, allow_nan=False).encode() + b"\n"


def vllm_result(run: Run, case: CaseRecord) -> dict[str, Any]:
    """Return one served case; figures that are missing are None."""
    served, load, found = case.served, case.spec.load, case.measurements
    assert served is not None
    assert load is not None
    duration = served.duration_s
    inputs, outputs = _value(found, "input_tokens_per_s"), _value(found, "output_tokens_per_s")
    both = None if inputs is None or outputs is None else inputs + outputs
    result: dict[str, Any] = {
        "date": case.started_utc,
        "endpoint_type": "openai" if load.api == "completions" else "openai-chat",
        "label": run.path.resolve().name,
        "model_id": case.spec.model,
        "tokenizer_id": None,
        "num_prompts": served.requests,
        "request_rate": "inf" if load.rate_per_s is None else load.rate_per_s,
        # vLLM's burstiness is the shape of the gamma distribution of the gaps: 1 / cv².
        "burstiness": None if not load.cv else 1 / load.cv**2,
        "max_concurrency": load.concurrency,
        "duration": duration,
        "completed": served.ok,
        "failed": served.requests - served.ok,
        "total_input_tokens": _total(inputs, duration),
        "total_output_tokens": _total(outputs, duration),
        "request_throughput": _value(found, "requests_per_s"),
        "request_goodput": _value(found, "goodput_requests_per_s"),
        "output_throughput": outputs,
        "total_token_throughput": both,
    }
    for theirs, ours in _TIMES.items():
        result[f"mean_{theirs}_ms"] = _ms(found, f"{ours}_s")
        result[f"median_{theirs}_ms"] = _ms(found, f"{ours}_p50_s")
        result[f"std_{theirs}_ms"] = None
        for share in PERCENTILES:
            result[f"p{share}_{theirs}_ms"] = _ms(found, f"{ours}_p{share}_s")
    return result


def _value(found: dict[str, Measurement], name: str) -> float | None:
    measurement = found.get(name)
    return None if measurement is None else measurement.value


def _ms(found: dict[str, Measurement], name: str) -> float | None:
    value = _value(found, name)
    return None if value is None else 1e3 * value


def _total(rate: float | None, duration: float | None) -> int | None:
    return None if rate is None or duration is None else round(rate * duration)
