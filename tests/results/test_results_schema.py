"""The record format: what it refuses, and that everything it accepts survives the disk."""

from __future__ import annotations

import math
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from builders import CREATED_UTC, digest, make_case_fields, make_failed_fields, make_run_record, make_spec
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from profiler.results.fields import MAX_DEPTH, MAX_TEXT
from profiler.results.schema import (
    CaseRecord,
    Failure,
    Flag,
    Measurement,
    Record,
    SamplesRef,
    StartRecord,
    TrialRecord,
)
from profiler.results.store import RunWriter, read_run

finite = st.floats(allow_nan=False, allow_infinity=False)
counts = st.integers(0, 2**53)
texts = st.text(max_size=60)
json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | finite | texts,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=8,
)


@st.composite
def measurements(draw: st.DrawFn) -> Measurement:
    if draw(st.booleans()):
        return Measurement.missing(draw(texts), draw(texts))
    ends = draw(st.none() | st.tuples(finite, finite))
    return Measurement(
        value=draw(finite),
        unit=draw(texts),
        ci95=None if ends is None else (min(ends), max(ends)),
        n=draw(counts),
        method=draw(texts),
        scope=draw(texts),
        flags=tuple(draw(st.lists(texts, max_size=2))),
    )


trials = st.builds(
    TrialRecord,
    start=counts,
    index=counts,
    warm_up=st.booleans(),
    prefill_s=finite,
    decode_s=st.none() | finite,
    e2e_s=finite,
)
starts = st.builds(
    StartRecord,
    index=counts,
    used=st.booleans(),
    load_s=finite,
    compile_s=st.none() | finite,
    steady=st.booleans(),
    stopped_by=texts,
    probe_before_bytes_per_s=st.none() | finite,
    probe_after_bytes_per_s=st.none() | finite,
    energy_j=st.none() | finite,
    measured_s=finite,
    details=st.dictionaries(texts, json_values, max_size=3),
)
flags = st.builds(Flag, code=texts, text=texts, hint=texts)
failures = st.builds(
    Failure, kind=texts, stage=texts, message=texts, log_tail=st.lists(texts, max_size=2).map(tuple)
)


@st.composite
def case_fields(draw: st.DrawFn) -> dict[str, Any]:
    failure = draw(st.none() | failures)
    return make_case_fields(
        make_spec(
            model=draw(texts),
            seed=draw(st.integers(-(2**63), 2**63 - 1)),
            batch=draw(st.integers(1, 2**53)),
        ),
        status="ok" if failure is None else "failed",
        failure=failure,
        elapsed_s=draw(finite),
        simulated=draw(st.booleans()),
        starts=tuple(draw(st.lists(starts, max_size=2))),
        trials=tuple(draw(st.lists(trials, max_size=3))),
        measurements=draw(st.dictionaries(texts, measurements(), max_size=3)),
        flags=tuple(draw(st.lists(flags, max_size=2))),
    )


@settings(max_examples=50)
@given(st.lists(case_fields(), max_size=3))
def test_what_is_written_is_read_back_equal(cases: list[dict[str, Any]]) -> None:
    record = make_run_record(tuple({fields["spec"].case_id: fields["spec"] for fields in cases}.values()))
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "run"
        with RunWriter.create(path, record) as writer:
            written = [writer.append(fields) for fields in cases]
            writer.close()
        run = read_run(path)
    assert run.record == record
    assert list(run.cases) == written
    assert run.complete
    assert run.warnings == ()


@pytest.mark.parametrize(("value", "reason"), [(None, None), (1.0, "not measured")])
def test_a_measurement_has_exactly_one_of_value_and_reason(value: float | None, reason: str | None) -> None:
    with pytest.raises(ValidationError, match="exactly one of value and reason"):
        Measurement(value=value, unit="s", method="mean", scope="none", reason=reason)


def test_zero_is_a_value_and_not_a_missing_one() -> None:
    assert Measurement(value=0.0, unit="J", method="counter", scope="board").reason is None


@pytest.mark.parametrize("ci95", [(2.0, 1.0), (math.nan, 1.0), (0.0, math.inf)])
def test_an_interval_is_ordered_and_finite(ci95: tuple[float, float]) -> None:
    with pytest.raises(ValidationError):
        Measurement(value=1.5, unit="s", ci95=ci95, method="mean", scope="none")


def test_an_interval_needs_a_value() -> None:
    with pytest.raises(ValidationError, match="ci95 needs a value"):
        Measurement(value=None, unit="s", ci95=(1.0, 2.0), method="mean", scope="none", reason="none made")


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("where", ["value", "elapsed_s", "details", "nested details"])
def test_nan_and_infinity_are_refused_on_the_way_in(bad: float, where: str) -> None:
    fields = make_case_fields()
    start = fields["starts"][0].model_dump()
    attempts: dict[str, Callable[[], Record]] = {
        "value": lambda: Measurement(value=bad, unit="s", method="mean", scope="none"),
        "elapsed_s": lambda: CaseRecord(prev_sha256=digest(), **fields | {"elapsed_s": bad}),
        "details": lambda: StartRecord(**start | {"details": {"x": bad}}),
        "nested details": lambda: StartRecord(**start | {"details": {"x": [{"y": [bad]}]}}),
    }
    with pytest.raises(ValidationError, match="finite"):
        attempts[where]()


@pytest.mark.parametrize(
    "value",
    ["\ud800", {"\udfff": 1}, object(), {"deep": "x"}],
    ids=["lone surrogate", "lone surrogate as key", "not JSON", "deep"],
)
def test_details_hold_only_what_json_can_carry(value: Any) -> None:
    start = make_case_fields()["starts"][0].model_dump()
    if value == {"deep": "x"}:
        for _ in range(MAX_DEPTH):
            value = [value]
    with pytest.raises((ValidationError, UnicodeEncodeError)):
        StartRecord(**start | {"details": {"x": value}})


def test_a_failed_case_and_only_a_failed_case_says_why() -> None:
    failed = make_failed_fields()
    for fields in (failed | {"failure": None}, failed | {"status": "ok"}):
        with pytest.raises(ValidationError, match="carries a failure"):
            CaseRecord(prev_sha256=digest(), **fields)


def test_an_endless_message_is_cut_and_does_not_keep_a_failure_from_being_recorded() -> None:
    failure = Failure(kind="internal", stage="run", message="x" * 10 * MAX_TEXT, log_tail=("y" * 10**6,))
    assert len(failure.message) == MAX_TEXT
    assert failure.message.endswith("x…")
    assert len(failure.log_tail[0]) == MAX_TEXT


@pytest.mark.parametrize(
    "time", ["yesterday", "2026-01-31T12:00:00", "2026-01-31T12:00:00+01:00", "2026-13-01T12:00:00Z"]
)
def test_times_are_utc(time: str) -> None:
    with pytest.raises(ValidationError):
        make_run_record(created_utc=time)


def test_times_may_end_in_z_or_an_offset_of_zero() -> None:
    for time in (CREATED_UTC, "2026-01-31T12:00:00.123456Z"):
        assert make_run_record(created_utc=time).created_utc == time


@pytest.mark.parametrize(
    "name",
    [
        "samples/../../x.parquet",
        f"/samples/{'a' * 64}.parquet",
        f"samples/{'a' * 64}.parquet\n",
        "samples/a.parquet",
    ],
)
def test_file_names_outside_the_run_are_refused(name: str) -> None:
    with pytest.raises(ValidationError):
        SamplesRef(file=name, sha256=digest(), rows=1)


def test_unknown_fields_are_refused() -> None:
    with pytest.raises(ValidationError, match="Extra inputs"):
        CaseRecord(prev_sha256=digest(), **make_case_fields(surprise=1))


def test_records_do_not_change() -> None:
    record = make_run_record()
    with pytest.raises(ValidationError, match="frozen"):
        record.seed = 1  # type: ignore[misc]
