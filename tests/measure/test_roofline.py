"""Utilisation, the ceiling that binds, attainable speed and headroom, against numbers worked out by hand."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from profiler.ceilings.probe import Probe
from profiler.ceilings.roofline import bound, find_ceiling
from profiler.measure.request import SweepRequest
from profiler.measure.roofline import ceiling_flags
from profiler.measure.sweep import Sweep
from profiler.models.accounting import prefill_flops
from profiler.models.catalogue import catalogue
from profiler.results.schema import CaseRecord

positive = st.floats(min_value=1e-6, max_value=1e18)


@given(positive, positive, positive, positive)
def test_the_bound_is_the_longer_of_both_times(flops: float, moved: float, rate: float, peak: float) -> None:
    found = bound(flops, moved, bytes_per_s=rate, flops_per_s=peak, compute_dtype="fp16")
    assert found.seconds == max(moved / rate, flops / peak)
    assert (found.ceiling == "read_bandwidth") == (moved / rate >= flops / peak)
    assert found.ceiling in ("read_bandwidth", "matrix_flops:fp16")


def test_a_ceiling_is_the_best_reading_and_its_interval_goes_up_from_there() -> None:
    ceiling = Probe((90.0, 100.0, 99.0), "bytes/s", "m").ceiling("cpu-1", "read_bandwidth", "torch")
    assert ceiling.measurement.value == 100.0
    # Robson and Whitlock: best + (1 - a) / a times the gap to the second best, with a = 5%.
    assert ceiling.measurement.ci95 == (100.0, 119.0)
    assert ceiling.measurement.n == 3
    assert Probe((5.0,), "bytes/s", "m").ceiling("d", "x").measurement.ci95 is None


def test_the_ceiling_of_the_same_engine_goes_first() -> None:
    def ceiling(rate: float, engine: str, device: str = "d") -> Any:
        return Probe((rate,), "FLOP/s", "m").ceiling(device, "matrix_flops:bf16", engine)

    all_of_them = [ceiling(1.0, "a"), ceiling(2.0, "b"), ceiling(3.0, "c", "other")]
    picked = [find_ceiling(all_of_them, "d", "matrix_flops:bf16", name) for name in ("b", "z")]
    assert [found.measurement.value for found in picked if found] == [2.0, 1.0]
    assert find_ceiling(all_of_them, "d", "read_bandwidth") is None


def sweep(path: Path, scenario: str, **options: object) -> CaseRecord:
    texts = {key: str(value) for key, value in options.items()}
    request = SweepRequest(
        engines=("fake",), scenarios=(scenario,), batches=(1,), budget_s=60.0, engine_options=texts
    )
    return Sweep(request, lambda _: None).run(path).cases[0]


def figures(case: CaseRecord, *names: str) -> list[float]:
    values = [case.measurements[name].value for name in names]
    assert None not in values
    return [value for value in values if value is not None]


def test_a_decode_that_reads_as_fast_as_the_device_can_has_no_headroom(tmp_path: Path) -> None:
    case = sweep(
        tmp_path / "run",
        "decode-128",
        read_bandwidth=2e10,
        matrix_flops=1e14,
        overhead_s=0,
        probe_cv=0,
        noise_cv=0,
    )
    mbu, headroom, attainable, reached = figures(
        case, "mbu", "decode_headroom", "decode_attainable_tokens_per_s", "decode_tokens_per_s"
    )
    # The fake engine leaves out norms and biases, which the accounting counts.
    assert mbu == pytest.approx(1.0, rel=0.01)
    assert headroom == pytest.approx(1 / mbu - 1, abs=1e-9)
    assert attainable == pytest.approx(reached / mbu)
    assert case.binding_ceilings["decode"] == "read_bandwidth"


def test_the_matrix_rate_binds_a_long_prefill(tmp_path: Path) -> None:
    case = sweep(
        tmp_path / "run",
        "prefill-512",
        matrix_flops=1e11,
        read_bandwidth=1e13,
        overhead_s=0,
        probe_cv=0,
        noise_cv=0,
    )
    assert case.binding_ceilings == {"prefill": "matrix_flops:bf16"}
    mfu, seconds = figures(case, "mfu", "prefill_s")
    flops = prefill_flops(catalogue()["qwen2.5-0.5b"].architecture, case.spec.prompt_tokens)
    assert mfu == pytest.approx(flops / seconds / 1e11)
    assert case.measurements["mbu"].value is None
    assert "no decode phase" in (case.measurements["decode_headroom"].reason or "")


def test_the_matrix_rate_follows_the_compute_dtype(tmp_path: Path) -> None:
    request = SweepRequest(
        engines=("fake",), scenarios=("decode-128",), batches=(1,), precisions=("fp32", "fp8-block128")
    )
    run = Sweep(request, lambda _: None).run(tmp_path / "run")
    measured = {ceiling.name: ceiling.measurement for ceiling in run.record.ceilings}
    assert set(measured) == {"read_bandwidth", "matrix_flops:fp32", "matrix_flops:fp8"}
    assert measured["matrix_flops:fp8"].value is None
    assert measured["matrix_flops:fp8"].reason == "the fake engine has no such probe"
    by_dtype = {case.spec.formats.compute_dtype: case for case in run.cases}
    assert by_dtype["fp32"].measurements["mfu"].value is not None
    missing = by_dtype["fp8"].measurements["mfu"]
    assert missing.reason == "the matrix rate in fp8 was not measured on this device"
    assert by_dtype["fp8"].binding_ceilings == {}
    assert by_dtype["fp8"].measurements["mbu"].value is not None


def test_a_case_faster_than_its_ceilings_says_that_these_are_too_low(tmp_path: Path) -> None:
    slow = {"read_bandwidth": 2e10, "matrix_flops": 1e9, "overhead_s": 0}
    case = sweep(tmp_path / "run", "prefill-512", **slow)
    found = [flag.text for flag in case.flags if flag.code == "above_ceiling"]
    share = case.measurements["mfu"].value
    assert (found != []) == (share is not None and share > 1)
    measured = case.measurements | {
        "mfu": case.measurements["mfu"].model_copy(update={"value": 1.2, "ci95": (1.1, 1.3)}),
        "mbu": case.measurements["mfu"].model_copy(update={"value": 1.2, "ci95": (0.9, 1.5)}),
    }
    (flag,) = ceiling_flags(measured)
    assert flag.code == "above_ceiling"
    assert flag.text.startswith("mfu 120% of what")
    assert ceiling_flags({}) == []
