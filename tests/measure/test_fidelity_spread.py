"""A fidelity check runs on as many devices as its case, or the record says why not."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import architectures
import pytest

from profiler.engines.process import WorkerProcess
from profiler.measure import fidelity
from profiler.measure.fidelity_artefact import stand_in
from profiler.measure.fidelity_spread import one_copy, spread_of
from profiler.measure.request import SweepRequest
from profiler.measure.sweep import Sweep
from profiler.models.catalogue import resolve_model
from profiler.models.parallel import Parallel, why_not
from profiler.results.schema import ParallelRecord

R1 = resolve_model("deepseek-r1").architecture
DENSE = resolve_model("qwen2.5-0.5b").architecture


@pytest.mark.parametrize(
    "parallel", [Parallel(tp=2), Parallel(pp=4), Parallel(tp=32, ep=32), Parallel(tp=2, pp=3, dp=4, ep=8)]
)
def test_a_stand_in_can_be_spread_as_its_model_is(parallel: Parallel) -> None:
    assert why_not(R1, parallel) is None
    copy = one_copy(parallel)
    smaller = stand_in(R1, copy)
    assert why_not(smaller, copy) is None
    assert smaller.layers == max(2, parallel.pp)
    assert smaller.experts is not None
    assert smaller.experts.count < R1.experts.count  # type: ignore[union-attr]
    assert stand_in(R1) == stand_in(R1, Parallel(tp=2))


def test_one_of_several_copies_is_checked_with_the_experts_on_its_own_ranks() -> None:
    found = spread_of(ParallelRecord(tp=2, dp=4, ep=8), stand_in(R1))
    assert found.record == ParallelRecord(tp=2, ep=2)
    assert found.reason == "one of 4 copies (dp) was checked"
    placed = found.placed({"device": "cuda:0", "devices": [f"cuda:{index}" for index in range(8)]})
    assert placed["devices"] == ["cuda:0", "cuda:1"]
    assert placed["parallel"] == {"tp": 2, "pp": 1, "dp": 1, "ep": 2}
    alone = spread_of(ParallelRecord(dp=2), DENSE)
    assert (alone.record, alone.placed({"device": "cpu", "devices": ["cpu"]})) == (None, {"device": "cpu"})
    assert alone.reason == "one of 2 copies (dp) was checked"
    assert (spread_of(None, DENSE).record, spread_of(None, DENSE).reason) == (None, None)


def test_what_cannot_be_spread_is_checked_on_one_device_with_the_reason() -> None:
    found = spread_of(ParallelRecord(tp=2), replace(architectures.LLAMA, intermediate_size=63))
    assert found.record is None
    assert str(found.reason).startswith("checked on one device: --tp 2 does not divide the MLP's width")


def test_a_spread_case_is_checked_spread(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    loads: list[dict[str, Any]] = []

    class Watched(WorkerProcess):
        def request(self, op: str, timeout_s: float, **fields: Any) -> dict[str, Any]:
            if op == "load":
                loads.append(fields)
            return super().request(op, timeout_s, **fields)

    monkeypatch.setattr(fidelity, "WorkerProcess", Watched)
    request = SweepRequest(
        engines=("fake",), models=("qwen2.5-0.5b",), scenarios=("decode-128",), batches=(1,),
        devices=("fake-h100",), tp=2, budget_s=60.0,
    )  # fmt: skip
    (case,) = Sweep(request, lambda _: None).run(tmp_path / "run").cases
    assert case.fidelity is not None
    assert case.fidelity.verdict == "faithful"
    assert case.fidelity.parallel == case.spec.parallel == ParallelRecord(tp=2)
    assert case.fidelity.spread_reason is None
    (load,) = loads
    assert load["parallel"] == {"tp": 2, "pp": 1, "dp": 1, "ep": 1}
    assert len(load["devices"]) == 2
