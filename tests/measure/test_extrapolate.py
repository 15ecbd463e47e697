"""``--layers``: slices measured for what they are, and what follows from them for the whole model."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from builders import make_case_fields, make_spec

from profiler.analysis.candidates import candidates_of
from profiler.analysis.compare import compare_runs
from profiler.errors import UsageError
from profiler.measure.extrapolate import extrapolated
from profiler.measure.request import SweepRequest
from profiler.measure.sweep import Sweep
from profiler.render.view import run_view
from profiler.results.load import load_runs
from profiler.results.read import Run
from profiler.results.schema import CaseRecord, CaseSpec, Measurement, SliceRecord

NAMES = (
    "extrapolated_prefill_s",
    "extrapolated_prefill_tokens_per_s",
    "extrapolated_tpot_s",
    "extrapolated_decode_tokens_per_s",
)


def sweep(path: Path, **changes: Any) -> Run:
    fields: dict[str, Any] = {
        "engines": ("fake",),
        "models": ("qwen2.5-0.5b",),
        "scenarios": ("decode-128",),
        "batches": (2,),
        "engine_options": {"noise_cv": "0.002", "overhead_s": "0.003"},
    }
    return Sweep(SweepRequest(**fields | changes), lambda _: None).run(path)


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> tuple[Run, Run]:
    folder = tmp_path_factory.mktemp("slices")
    return sweep(folder / "slices", layers=8), sweep(folder / "whole")


def test_slices_extrapolate_to_what_the_whole_model_takes(runs: tuple[Run, Run]) -> None:
    slices, whole = runs
    shallow, deep = slices.cases
    (measured,) = whole.cases
    assert [str(case.spec.slice) for case in slices.cases] == ["4 of 24 layers", "8 of 24 layers"]
    assert not set(NAMES) & set(shallow.measurements)
    for name in NAMES:
        found, truth = deep.measurements[name], measured.measurements[name.removeprefix("extrapolated_")]
        assert found.scope == "extrapolated"
        assert found.ci95 is not None
        assert found.value is not None
        assert truth.value == pytest.approx(found.value, rel=0.03)
        # The factors are -4 and 5: the interval is wider than that of any slice.
        own = deep.measurements[name.removeprefix("extrapolated_")]
        assert own.ci95 is not None
        assert own.value is not None
        assert (found.ci95[1] - found.ci95[0]) / found.value > (own.ci95[1] - own.ci95[0]) / own.value
    assert not set(NAMES) & set(measured.measurements)


def test_a_slice_is_marked_and_its_own_figures_stay_its_own(runs: tuple[Run, Run]) -> None:
    slices, whole = runs
    for case in slices.cases:
        assert "slice" in {flag.code for flag in case.flags}
        assert case.spec.workload_id != whole.cases[0].spec.workload_id
        assert case.work is not None
        assert whole.cases[0].work is not None
        assert case.work.decode_bytes < whole.cases[0].work.decode_bytes
    view = run_view(slices)
    assert [group.title.split(" (random")[0] for group in view.groups] == [
        "qwen2.5-0.5b (slice: 4 of 24 layers)",
        "qwen2.5-0.5b (slice: 8 of 24 layers)",
    ]
    (deep,) = view.groups[1].rows
    assert deep.extrapolated.startswith("whole model, extrapolated: prefill ")
    frame = load_runs([slices.path, whole.path])
    assert set(frame["slice"].dropna()) == {"4 of 24 layers", "8 of 24 layers"}
    assert frame.loc[frame["run"] == "whole", "slice"].isna().all()


def test_slices_are_never_matched_with_whole_models(runs: tuple[Run, Run]) -> None:
    slices, whole = runs
    comparison = compare_runs([slices, whole])
    (pair,) = comparison.pairs
    assert pair.cases == ()
    assert {one.kind for one in pair.unmatched} == {"slice"}
    assert {one.model for one in pair.unmatched} == {
        "qwen2.5-0.5b",
        "qwen2.5-0.5b (slice: 4 of 24 layers)",
        "qwen2.5-0.5b (slice: 8 of 24 layers)",
    }
    assert "B has it only with slice the whole model instead of 4 of 24 layers" in {
        one.reason for one in pair.unmatched
    }
    assert candidates_of([slices]) == ()
    (candidate,) = candidates_of([slices, whole])
    assert [case.spec.slice for case in candidate.cases] == [None]


def test_three_slices_of_a_model_with_two_kinds_of_layers(tmp_path: Path) -> None:
    """DeepSeek-R1, far too large for the pretended device, of which four layers fit."""
    run = sweep(
        tmp_path / "run", models=("deepseek-r1",), layers=4, devices=("fake-h100",), budget_s=3600.0,
        engine_options={}, batches=(1,),
    )  # fmt: skip
    assert [str(case.spec.slice) for case in run.cases] == [
        "0+3 of 61 layers",
        "1+1 of 61 layers",
        "1+3 of 61 layers",
    ]
    deepest = run.cases[-1].measurements
    assert deepest["extrapolated_decode_tokens_per_s"].value is not None
    assert not any(set(NAMES) & set(case.measurements) for case in run.cases[:-1])


def spec_of(dense: int, moe: int) -> CaseSpec:
    return make_spec(slice=SliceRecord(dense=dense, moe=moe, of_dense=3, of_moe=58))


def timed(seconds: float, half: float) -> dict[str, Measurement]:
    def time(value: float) -> Measurement:
        return Measurement(
            value=value, unit="s", ci95=(value - half, value + half), n=5, method="m", scope="within_process"
        )

    return {"prefill_s": time(10 * seconds), "tpot_s": time(seconds)}


def finished(spec: CaseSpec, measurements: dict[str, Measurement]) -> CaseRecord:
    return CaseRecord(prev_sha256="0" * 64, **make_case_fields(spec, measurements=measurements))


def test_dense_layers_and_layers_with_experts_are_fitted_apart() -> None:
    """Outside 1 ms, a dense layer 2 ms, one with experts 3 ms."""
    specs = [spec_of(0, 1), spec_of(1, 0), spec_of(1, 1)]
    cases = [finished(specs[0], timed(0.004, 0.0)), finished(specs[1], timed(0.003, 0.0))]
    found = extrapolated(specs[2], timed(0.006, 0.0), [], specs, cases)
    assert found["extrapolated_tpot_s"].value == pytest.approx(0.001 + 3 * 0.002 + 58 * 0.003)
    assert found["extrapolated_prefill_s"].value == pytest.approx(10 * (0.001 + 3 * 0.002 + 58 * 0.003))
    rate = found["extrapolated_decode_tokens_per_s"]
    assert rate.value == pytest.approx(1 / 0.181)


def test_errors_of_the_slices_add_up_with_their_factors() -> None:
    specs = [spec_of(0, 1), spec_of(1, 0), spec_of(1, 1)]
    cases = [finished(specs[0], timed(0.004, 1e-5)), finished(specs[1], timed(0.003, 1e-5))]
    found = extrapolated(specs[2], timed(0.006, 1e-5), [], specs, cases)["extrapolated_tpot_s"]
    assert found.ci95 is not None
    assert found.value is not None
    # Factors -2, -57 and 60.
    half = 1e-5 * (2**2 + 57**2 + 60**2) ** 0.5
    assert found.ci95 == pytest.approx((found.value - half, found.value + half))


def test_a_box_that_was_slower_for_one_slice_widens_the_interval() -> None:
    """Factors -2, -57 and 60; the first slice ran at 80 GB/s, the others at 100."""
    (start,) = make_case_fields()["starts"]
    specs = [spec_of(0, 1), spec_of(1, 0), spec_of(1, 1)]
    made = [
        (
            start.model_copy(
                update=dict.fromkeys(("probe_before_bytes_per_s", "probe_after_bytes_per_s"), rate)
            ),
        )
        for rate in (8e10, 1e11, 1e11)
    ]
    first, second = (
        finished(spec, timed(seconds, 0.0)).model_copy(update={"starts": starts})
        for spec, seconds, starts in zip(specs, (0.004, 0.003), made, strict=False)
    )
    found = extrapolated(specs[2], timed(0.006, 0.0), made[2], specs, [first, second])["extrapolated_tpot_s"]
    assert found.ci95 is not None
    assert found.value == pytest.approx(0.181)
    mean = 28e10 / 3
    slower, others = abs(8e10 / mean - 1), abs(1e11 / mean - 1)
    errors = (2 * 0.004 * slower, 57 * 0.003 * others, 60 * 0.006 * others)
    half = sum(error**2 for error in errors) ** 0.5
    assert found.ci95 == pytest.approx((found.value - half, found.value + half))


def test_what_cannot_be_extrapolated_has_its_reason() -> None:
    specs = [spec_of(0, 1), spec_of(1, 0), spec_of(1, 1)]
    first = finished(specs[0], timed(0.004, 0.0))
    found = extrapolated(specs[2], timed(0.006, 0.0), [], specs, [first])
    assert {one.reason for one in found.values()} == {"the slice of 1+0 of 61 layers was not measured"}
    noisy = [first, finished(specs[1], timed(0.009, 0.0))]
    found = extrapolated(specs[2], timed(0.005, 0.0), [], specs, noisy)
    assert "too much noise" in (found["extrapolated_tpot_s"].reason or "")
    assert found["extrapolated_decode_tokens_per_s"].value is None
    assert extrapolated(make_spec(), {}, [], [], []) == {}


def test_layers_that_the_model_does_not_have_are_refused_before_anything_runs(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="a slice has fewer: leave out --layers"):
        sweep(tmp_path / "run", layers=24)


def test_the_flag_is_kept_for_a_repetition() -> None:
    request = SweepRequest(layers=8, models=("qwen2.5-0.5b",))
    assert SweepRequest.from_arguments(request.to_arguments()) == request
