"""Readers of what other programs answer, under attack: workers, meters, servers by URL."""

from __future__ import annotations

import io
import json
import os
from collections.abc import Callable
from typing import Any
from unittest import mock

from fuzz_mutations import as_json, damaged_bytes, damaged_document, damaged_json
from fuzz_target import Target, new_folder
from hypothesis import strategies as st


def worker_answers() -> Target:
    """Lines that a worker sends; a broken engine can send anything."""
    from profiler.engines.process import WorkerError, WorkerProcess

    results = [
        {
            "weights_bytes": 1,
            "kv_cache_bytes": 2,
            "load_s": 0.1,
            "compile_s": None,
            "details": {"a": [1, {"b": None}]},
        },
        {"submit_ns": 1, "first_token_ns": 2, "last_token_ns": 3, "step_ns": [2, 3], "output_sha256": "0"},
        {"bytes_per_s": [1.0, 2.0], "method": "read"},
    ]
    answers: list[Any] = [{"id": 1, "ok": True, "result": result} for result in results]
    answers.append({"id": 1, "ok": False, "error": {"kind": "weights", "message": "no"}})

    def read(case: tuple[str, bytes]) -> None:
        op, line = case
        # Only the process is left out: the pipe holds what it has said before it ended.
        worker = WorkerProcess.__new__(WorkerProcess)
        answer_end, writing_end = os.pipe()
        request_end, requests = os.pipe()
        os.write(writing_end, line[:60_000] + b"\n")
        os.close(writing_end)
        os.set_blocking(answer_end, False)
        worker.__dict__.update(
            _next_id=1, _buffer=bytearray(), _requests=requests, _answers=answer_end, _process=_Ended()
        )
        worker.__dict__.update(_oom_kills=None)
        try:
            worker.request(op, 5.0)
        finally:
            for descriptor in (answer_end, request_end, requests):
                os.close(descriptor)

    lines = damaged_json(answers).map(lambda line: line.replace(b"\n", b""))
    return Target(st.tuples(st.sampled_from(("load", "run", "probe")), lines), read, (WorkerError,))


def worker_results() -> Target:
    """What a worker answers, in shape but untrue, all the way into the record of a case."""
    import profiler.measure.start as start_module
    from profiler.engines.contract import fault_in
    from profiler.engines.process import WorkerError
    from profiler.measure.case import measure_case
    from profiler.measure.request import SweepRequest
    from profiler.measure.sensing import Sensing
    from profiler.measure.sweep import Sweep, _run_record
    from profiler.results.schema import CaseRecord

    request = SweepRequest(engines=("fake",), scenarios=("decode-128",), batches=(1,), budget_s=60.0)
    sweep = Sweep(request, lambda event: None)
    prepared = sweep.plan()
    sensing = Sensing(())
    record = _run_record(prepared, sensing)
    tokens = record.cases[0].spec.output_tokens
    answers = {
        "hello": {
            "engine": {"name": "fake", "version": "1", "details": {"a": 1}},
            "devices": [{"device": "fake-0", "name": "fake", "uuid": "fake-0", "pci_address": None}],
            "simulated": True,
            "python": "3.9",
        },
        "load": {
            "weights_bytes": 10**9,
            "kv_cache_bytes": 10**6,
            "load_s": 1.0,
            "compile_s": 0.5,
            "details": {"b": [1, {"c": "d"}]},
        },
        "run": {
            "submit_ns": 10**9,
            "first_token_ns": 2 * 10**9,
            "last_token_ns": (1 + tokens) * 10**9,
            "step_ns": [(2 + step) * 10**9 for step in range(tokens)],
            "output_sha256": "0" * 64,
        },
        "probe": {"bytes_per_s": [1e11, 1.1e11, 1e11], "method": "read"},
        "memory": {
            "engine_peak_bytes": 10**9,
            "engine_peak_reason": None,
            "process_rss_bytes": None,
            "peak_process_bytes": 10**9,
            "device_total_bytes": 10**10,
            "device_free_bytes": 10**9,
        },
    }

    class Stub:
        pid = os.getpid()

        def __init__(self, found: Any) -> None:
            self.found = found

        def __enter__(self) -> Stub:
            return self

        def __exit__(self, *_: object) -> None:
            pass

        def log_tail(self) -> tuple[str, ...]:
            return ()

        def request(self, op: str, timeout_s: float, **fields: Any) -> dict[str, Any]:
            result = self.found.get(op)
            fault = fault_in(op, result) if isinstance(result, dict) else "no answer"
            if fault is not None:
                raise WorkerError("protocol", fault, fatal=False)
            return dict(result)

    def read(line: bytes) -> None:
        answers = json.loads(line)
        with new_folder() as folder:
            context = sweep._context(prepared.selection, record, record.cases[0], folder / "log", sensing)
            with mock.patch.object(start_module, "WorkerProcess", return_value=Stub(answers)):
                found = measure_case(context, 10.0, record.noise_floors[0], repeat_on_interference=False)
        case = CaseRecord(prev_sha256="0" * 64, **found.fields)
        json.dumps(case.model_dump(mode="json"), allow_nan=False, ensure_ascii=False).encode()

    documents = damaged_document([answers]).filter(lambda found: isinstance(found, dict))
    return Target(documents.map(as_json), read, ())


class _Ended:
    """Stands in for a worker process that is gone."""

    pid = 2**22 + 1  # beyond the kernel's largest process id, so that no signal can meet anybody
    stdin = stdout = None

    def wait(self, timeout: float | None = None) -> int:
        return 1

    def poll(self) -> int:
        return 1


def power_meters() -> Target:
    """What a meter prints, a management controller answers and ``npu-smi`` shows."""
    from profiler.backends.base import Unavailable
    from profiler.sensors import npu_smi, redfish
    from profiler.sensors.command import _Meter

    documents: list[Any] = [
        {"Chassis": {"@odata.id": "/redfish/v1/Chassis"}},
        {"Members": [{"@odata.id": "/redfish/v1/Chassis/1"}]},
        {
            "EnvironmentMetrics": {"@odata.id": "/redfish/v1/Chassis/1/E"},
            "Power": {"@odata.id": "/redfish/v1/Chassis/1/P"},
        },
        {
            "PowerWatts": {"Reading": 312.5},
            "EnergykWh": {"Reading": 12.25},
            "PowerControl": [{"PowerConsumedWatts": 300}],
        },
    ]
    lines = [b"312.5 W\n", b"1200000 J\n", b"55 mW\n", b"1e308 kW\n"]
    listing = [
        b"NPU ID : 0\nChip Count : 2\nNPU Real-time Power(W) : 92.1\n",
        b"NPU ID : 1\nChip Count : 1\nPower Dissipation(W) : 92.1\n",
        b"NPU ID Chip ID Chip Logic ID Chip Name\n 0 0 0 Ascend 310P3\n 0 1 - Mcu\n"
        b"HBM Capacity(MB) : 65536\nHBM Usage Rate(%) : 5\nnpu-smi version : 25.2.0\n",
    ]

    def meter(line: bytes) -> None:
        one = _Meter.__new__(_Meter)
        one.__dict__.update(_name="meter")
        one._parse(line)

    def controller(pages: list[bytes]) -> None:
        left = list(pages)

        class Opener:
            def open(self, request: Any, timeout: float) -> io.BytesIO:
                # The first pages come in order, whatever follows is the last one.
                return io.BytesIO(left.pop(0) if len(left) > 1 else left[0])

        sensors = redfish.RedfishSensors("http://127.0.0.1:9/")
        with mock.patch.object(redfish, "_opener", Opener):
            keys = [info.key for info in sensors.probe()]
            for found in sensors.open(keys).values():
                if callable(found):
                    found()

    def shown(text: bytes) -> None:
        one = npu_smi.NpuSmi()
        one._run = lambda *_: text.decode("utf-8", "replace")  # type: ignore[method-assign]
        for info in one.probe():
            for found in one.open([info.key]).values():
                if callable(found):
                    found()
        chips = one.chips()
        for chip in () if isinstance(chips, Unavailable) else chips:
            one.memory(chip)
        one.version()

    def read(case: tuple[str, Any]) -> None:
        kind, content = case
        handlers: dict[str, Callable[[Any], None]] = {
            "meter": meter,
            "controller": controller,
            "shown": shown,
        }
        handlers[kind](content)

    pages = st.lists(damaged_json(documents) | st.sampled_from([as_json(page) for page in documents]))
    return Target(
        damaged_bytes(lines).map(lambda line: ("meter", line))
        | damaged_bytes(listing).map(lambda text: ("shown", text))
        | damaged_json(documents).flatmap(_in_sequence(documents)).map(lambda found: ("controller", found))
        | pages.filter(bool).map(lambda found: ("controller", found)),
        read,
        (),
    )


def _in_sequence(documents: list[Any]) -> Callable[[bytes], st.SearchStrategy[list[bytes]]]:
    """Pages as a controller would send them, one of them damaged."""
    whole = [as_json(page) for page in documents]

    def place(damaged: bytes) -> st.SearchStrategy[list[bytes]]:
        return st.integers(0, len(whole) - 1).map(
            lambda number: [*whole[:number], damaged, *whole[number + 1 :]]
        )

    return place


def endpoint_answers() -> Target:
    """Answers of a server by URL, framed and streamed, in pieces of any size."""
    from profiler.load.exchange import Exchange
    from profiler.load.reading import read_exchange

    def chunked(data: bytes) -> bytes:
        return b"%x\r\n%s\r\n" % (len(data), data)

    head = b"HTTP/1.1 200 OK\r\nContent-Type: %s\r\nTransfer-Encoding: chunked\r\n\r\n"
    events: list[Any] = [
        {"choices": [{"index": 0, "text": "a", "token_ids": [1]}]},
        {"choices": [{"index": 0, "delta": {"content": "b"}, "finish_reason": "stop"}]},
        {"choices": [], "usage": {"prompt_tokens": 4, "completion_tokens": 2}},
        {"error": {"message": "no", "code": 3}},
    ]

    def streamed(found: Any) -> bytes:
        listed = found if isinstance(found, list) else [found]
        body = b"".join(chunked(b"data: " + as_json(one) + b"\n\n") for one in listed)
        return head % b"text/event-stream" + body + chunked(b"data: [DONE]\n\n") + b"0\r\n\r\n"

    def whole(found: Any) -> bytes:
        return head % b"application/json" + chunked(as_json(found)) + b"0\r\n\r\n"

    def read(case: tuple[bytes, str, int]) -> None:
        content, api, size = case
        exchange = Exchange(0, 1, 4, 2)
        exchange.sent_ns, exchange.first_byte_ns, exchange.end_ns = 1, 2, 10**9
        places = range(0, len(content), max(size, len(content) // 500 + 1))
        exchange.pieces = [(2 + place, content[place : place + places.step]) for place in places]
        read_exchange(exchange, api)  # type: ignore[arg-type]

    answers = damaged_json([events], streamed) | damaged_json(events, whole)
    return Target(st.tuples(answers, st.sampled_from(("completions", "chat")), st.integers(1, 300)), read, ())
