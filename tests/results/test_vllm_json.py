"""Loads under the keys of vLLM's benchmark."""

from __future__ import annotations

import json

import pytest
from builders import make_spec
from gate_builders import make_case, make_device, make_run
from load_tables import table_of

from profiler.errors import UsageError
from profiler.load.slo import parse_slos
from profiler.load.summary import measurements, served_record
from profiler.render.report_cases import _command
from profiler.results.read import Run
from profiler.results.schema import CaseRecord, LoadSpec
from profiler.results.vllm_json import encode_vllm


def load_run(requests: int) -> Run:
    load = LoadSpec(loop="closed", concurrency=1, api="completions", prompt="token_ids", lengths="fixed")
    spec = make_spec(engine="endpoint", weights="server", load=load, device_key=make_device().key)
    table, slos = table_of([50.0] * requests, failed=1, tokens=11, gap_ms=10.0), parse_slos(["ttft=1s"])
    served = served_record(
        table, spec, (), slos, asked_requests=requests, asked_seconds=None, warm_up=0,
        intended_rate_per_s=None, ceiling=None, endpoint={},
    )  # fmt: skip
    changes = {"starts": (), "trials": (), "served": served, "measurements": measurements(table, 1, slos)}
    return make_run(CaseRecord(**make_case(spec).model_dump() | changes), command=("load", "URL"))


def test_the_keys_and_units_are_those_of_vllm() -> None:
    found = json.loads(encode_vllm([load_run(100)]))
    assert found["completed"] == 100
    assert found["failed"] == 1
    assert found["total_output_tokens"] == 1100
    assert found["total_input_tokens"] == 800
    assert (found["request_rate"], found["max_concurrency"], found["burstiness"]) == ("inf", 1, None)
    assert found["mean_ttft_ms"] == pytest.approx(50)
    assert found["median_tpot_ms"] == pytest.approx(10)
    assert found["mean_itl_ms"] == pytest.approx(10)
    assert found["mean_e2el_ms"] == pytest.approx(150)
    assert found["p90_ttft_ms"] == pytest.approx(50)
    assert found["output_throughput"] == pytest.approx(found["total_output_tokens"] / found["duration"])
    assert found["request_goodput"] == pytest.approx(100 / found["duration"])
    # Too few for p99, and what is not recorded, are null and never 0.
    assert found["p99_ttft_ms"] is None
    assert found["std_ttft_ms"] is None


def test_several_loads_are_an_array_and_none_is_an_error() -> None:
    assert len(json.loads(encode_vllm([load_run(10), load_run(20)]))) == 2
    with pytest.raises(UsageError, match="hold none"):
        encode_vllm([make_run(make_case(make_spec(device_key=make_device().key)))])


def test_a_load_is_repeated_as_a_load() -> None:
    assert _command(load_run(1)) == "aiprof load URL"
