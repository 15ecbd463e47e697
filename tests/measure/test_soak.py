from __future__ import annotations

import random
from pathlib import Path

import pytest

from profiler.errors import UsageError
from profiler.measure.request import SweepRequest
from profiler.measure.soak import sustained_ratio
from profiler.measure.sweep import Sweep


def noisy(count: int, level: float, change: float, seed: int = 0) -> list[float]:
    generator = random.Random(seed)
    return [level * (1 + change * i / count) * generator.gauss(1.0, 0.01) for i in range(count)]


def test_a_steady_box_sustains_what_it_began_with() -> None:
    found = sustained_ratio(noisy(1800, 1.0, 0.0))
    assert found.value is not None
    assert found.ci95 is not None
    assert found.ci95[0] < 1.0 < found.ci95[1]
    assert found.method == "throughput of the last 300 s over that of the first 300 s"


def test_a_box_that_slows_down_by_a_fifth() -> None:
    """Times grow linearly by 20%; the windows of 300 s lie at the ends of about 1980 s."""
    found = sustained_ratio(noisy(1800, 1.0, 0.2))
    assert found.value == pytest.approx(1.0165 / 1.186, rel=0.005)
    assert found.ci95 is not None
    assert found.ci95[1] < 0.9


def test_short_soaks_are_cut_into_thirds() -> None:
    assert "last 30 s" in sustained_ratio([1.0] * 90).method


def test_too_few_trials_give_no_figure() -> None:
    found = sustained_ratio([10.0] * 6)
    assert found.value is None
    assert found.reason == "fewer than 5 trials fit into 20 s; soak for longer"


def soak(path: Path, seconds: float, **options: str) -> Sweep:
    request = SweepRequest(
        engines=("fake",), scenarios=("decode-128",), batches=(1,), soak_s=seconds, engine_options=options
    )
    return Sweep(request, lambda event: None)


def test_a_soak_holds_its_case_for_as_long_as_asked(tmp_path: Path) -> None:
    run = soak(tmp_path, 1800.0, drift="0.0005", read_bandwidth="1e10").run(tmp_path / "run")
    (case,) = run.cases
    measured = [trial.e2e_s for trial in case.trials if not trial.warm_up]
    # What a busy machine takes for thousands of requests to the worker counts, too.
    assert 1500 < sum(measured) <= 1800
    ratio = case.measurements["sustained_ratio"]
    assert ratio.ci95 is not None
    assert ratio.ci95[1] < 1.0
    assert "drift" in {flag.code for flag in case.flags}
    assert run.record.settings.soak_s == 1800.0
    assert SweepRequest.from_arguments(run.record.command).soak_s == 1800.0


def test_a_soak_of_several_cases_is_refused() -> None:
    with pytest.raises(UsageError, match="--soak holds one case, this asks for 2"):
        Sweep(
            SweepRequest(engines=("fake",), scenarios=("decode-128",), soak_s=60.0), lambda event: None
        ).plan()
