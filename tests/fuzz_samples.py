"""Raw samples of a run under attack: reads of sensors and requests of loads, up to their figures."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from builders import make_case_fields, make_run_record
from fuzz_mutations import as_json, damaged_bytes, damaged_document
from fuzz_target import Target, new_folder
from hypothesis import strategies as st
from load_tables import table_of
from simulated_reads import COUNTER

_MOMENTS = st.integers(-(2**40), 2**40) | st.integers(-(2**63), 2**63 - 1)
_NUMBERS = st.floats() | st.sampled_from((0.0, 1e308, -1e308, 5e-324))


def _parquet(columns: Mapping[str, Any]) -> bytes:
    import pyarrow
    from pyarrow import parquet

    sink = pyarrow.BufferOutputStream()
    arrays = {name: pyarrow.array(values, from_pandas=True) for name, values in columns.items()}
    parquet.write_table(pyarrow.table(arrays), sink)
    content: bytes = sink.getvalue().to_pybytes()
    return content


@st.composite
def _damaged_columns(draw: st.DrawFn, columns: Mapping[str, Any]) -> bytes:
    """Columns with a few values replaced, one left out, renamed or of another kind."""
    found: dict[str, list[Any]] = {name: list(values) for name, values in columns.items()}
    for _ in range(draw(st.integers(1, 3))):
        name = draw(st.sampled_from(sorted(found)))
        how = draw(st.sampled_from(("value", "value", "drop", "empty", "text", "repeat")))
        if how == "value" and found[name]:
            place = draw(st.integers(0, len(found[name]) - 1))
            is_text = isinstance(found[name][place], str)
            found[name][place] = draw(st.text(max_size=9) if is_text else _MOMENTS | _NUMBERS | st.none())
        elif how == "drop" and len(found) > 1:
            del found[name]
        elif how == "empty":
            found = {column: [] for column in found}
        elif how == "text":
            found[name] = ["x"] * len(found[name])
        elif how == "repeat":
            found = {column: values * 2 for column, values in found.items()}
    try:
        return _parquet(found)
    except Exception:  # what Arrow cannot write nobody can hand in
        return b""


def _file(folder: Path, content: bytes, suffix: str = "") -> dict[str, Any]:
    from profiler.results.read import sha256_of

    name = f"samples/{'0' * 64}{suffix}.parquet"
    (folder / "samples").mkdir()
    (folder / name).write_bytes(content)
    return {"file": name, "sha256": sha256_of(content), "rows": 0}


def _rows(content: bytes) -> int:
    import pyarrow
    from pyarrow import parquet

    try:
        return int(parquet.ParquetFile(pyarrow.BufferReader(content)).metadata.num_rows)
    except (pyarrow.ArrowException, OSError, ValueError):
        return 0


def sensor_reads() -> Target:
    """Reads of sensors, what they are worth, the spans of the work and the energies that follow from them."""
    from pydantic import ValidationError

    from profiler.measure.differences import guarded, without_flags
    from profiler.measure.kept_reads import columns_of, kept, scale_record
    from profiler.measure.phase_energies import done_in, phase_energies
    from profiler.measure.recompute_energy import energy_faults, load_memory, reads_flags
    from profiler.results.schema import CaseRecord, EnergySpans, RunRecord, SamplesRef, SensorRecord
    from profiler.results.sensor_samples import read_reads
    from profiler.sensors.meters import Meter
    from profiler.sensors.ticks import series

    memory = replace(COUNTER, key="test:device/memory", kind="memory", unit="bytes", scale=1.0)
    moments = range(0, 4 * 10**9, 2 * 10**7)
    reads = {
        COUNTER.key: series([(at, at + 1000, at // 3_333, 0) for at in moments]),
        memory.key: series([(at, at + 1000, 10**9, at % 3 == 0) for at in moments]),
    }
    infos = {info.key: info for info in (COUNTER, memory)}
    columns = columns_of(reads, infos, 10**9)
    spans = EnergySpans(
        start=0,
        until_ns=3 * 10**9,
        idle=(0, 5 * 10**8),
        trials=((6 * 10**8, 7 * 10**8, 15 * 10**8),),
        prefills=((16 * 10**8, None, 24 * 10**8),),
    )
    sensors = tuple(
        SensorRecord(
            **{name: getattr(info, name) for name in ("key", "source", "device", "kind", "scope", "unit")},
            sampled=True,
            reading=scale_record(info),
        )
        for info in infos.values()
    )
    run = make_run_record(sensors=sensors)
    fields = make_case_fields()
    energies = phase_energies(
        kept(columns, infos, spans), Meter("device", "board", (COUNTER,)), fields["spec"], 0, done_in(spans)
    )
    case = CaseRecord(
        **fields | {"prev_sha256": "0" * 64, "energies": tuple(energies), "energy_spans": (spans,)}
    )
    whole = _parquet(columns)
    documents = {
        "run": run.model_dump(mode="json", include={"sensors"}),
        "case": case.model_dump(mode="json", include={"energies", "energy_spans", "phases"}),
    }

    def read(change: tuple[bytes, Any, Any]) -> None:
        content, of_run, of_case = change
        try:
            found = RunRecord.model_validate_json(as_json(run.model_dump(mode="json") | of_run))
            one = CaseRecord.model_validate_json(as_json(case.model_dump(mode="json") | of_case))
        except ValidationError:
            return
        with new_folder() as folder:
            ref = SamplesRef(**_file(folder, content, ".sensors") | {"rows": _rows(content)})
            reads = read_reads(folder, ref)
        guarded("energies", lambda: energy_faults(found, one, reads))
        guarded("flags", lambda: without_flags(one, reads_flags(found, one, reads)))
        guarded("memory", lambda: iter(load_memory(found, one, reads)))  # type: ignore[arg-type]

    def documented(name: str) -> st.SearchStrategy[Any]:
        return damaged_document([documents[name]]).filter(lambda document: isinstance(document, dict))

    contents = damaged_bytes([whole]) | _damaged_columns(columns)
    return Target(
        st.tuples(contents, st.just({}), st.just({}))
        | st.tuples(st.just(whole), documented("run"), st.just({}))
        | st.tuples(st.just(whole), st.just({}), documented("case")),
        read,
    )


def load_requests() -> Target:
    """Request columns of a load, up to its figures, judgements and the times that the report draws."""
    from profiler.analysis.request_times import read_request_times, read_requests
    from profiler.load.search import judge
    from profiler.load.slo import parse_slos
    from profiler.load.summary import measurements
    from profiler.measure.differences import guarded
    from profiler.results.schema import SamplesRef

    columns = table_of([5.0, 6.0, 7.0, 9.0], failed=1).samples()
    plain = {
        name: values.to_pylist() if hasattr(values, "to_pylist") else list(values)
        for name, values in columns.items()
    }
    slos = parse_slos(["ttft_p90=1s", "tpot=1s"])

    def read(content: bytes) -> None:
        with new_folder() as folder:
            ref = SamplesRef(**_file(folder, content) | {"rows": _rows(content)})
            requests = read_requests(folder, ref)
            guarded("figures", lambda: iter(measurements(requests, 2, slos)))  # type: ignore[arg-type]
            guarded("judgements", lambda: iter(judge(requests, slos)))  # type: ignore[arg-type]
            read_request_times(folder, ref)

    return Target(damaged_bytes([_parquet(columns)]) | _damaged_columns(plain), read)
