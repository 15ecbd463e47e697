"""Every reader of files and answers, with valid input to damage; what each may raise is all it may raise."""

from __future__ import annotations

import io
import json
import os
import re
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest import mock

import yaml
from architectures import SMALL
from builders import write_example_run
from fuzz_mutations import as_json, damaged_bytes, damaged_document, damaged_json
from hypothesis import strategies as st

from profiler.data import data_root
from profiler.errors import AiprofError

EXAMPLES = Path(__file__).resolve().parent.parent / "docs" / "examples"


@dataclass(frozen=True)
class Target:
    """A reader under attack.

    Attributes:
        inputs: damaged input.
        read: hands one input to the reader; anything raised but ``allowed`` is a finding.
        allowed: how the reader says no.
    """

    inputs: st.SearchStrategy[Any]
    read: Callable[[Any], object]
    allowed: tuple[type[Exception], ...] = (AiprofError,)


@contextmanager
def _folder() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="aiprof-fuzz-") as name:
        yield Path(name)


def _through_file(name: str, read: Callable[[Path], object]) -> Callable[[bytes], None]:
    def with_content(content: bytes) -> None:
        with _folder() as folder:
            (folder / name).write_bytes(content)
            read(folder / name)

    return with_content


def runs() -> Target:
    """``run.json``, ``cases.jsonl``, ``checksums.json`` and samples, one of them damaged at a time."""
    with _folder() as folder:
        run = write_example_run(folder / "run")
        files = {str(path.relative_to(run)): path.read_bytes() for path in run.rglob("*") if path.is_file()}
    lines = [json.loads(line) for line in files["cases.jsonl"].splitlines()]
    record = json.loads(files["run.json"])

    def damaged(name: str) -> st.SearchStrategy[tuple[str, bytes]]:
        how = damaged_bytes([files[name]])
        if name == "run.json":
            how |= damaged_document([record]).map(as_json)
        elif name == "cases.jsonl":
            how |= damaged_document(lines).map(lambda line: as_json(line) + b"\n")
        elif name.endswith(".json"):
            how |= damaged_document([json.loads(files[name])]).map(as_json)
        return how.map(lambda content: (name, content))

    def read(change: tuple[str, bytes]) -> None:
        from profiler.analysis.evidence import candidates_of
        from profiler.results.load import frame_of, trials_of
        from profiler.results.read import read_run

        with _folder() as folder:
            for name, content in (files | dict([change])).items():
                (folder / name).parent.mkdir(exist_ok=True)
                (folder / name).write_bytes(content)
            found = read_run(folder)
            frame_of([found])
            trials_of([found])
            candidates_of([found])

    return Target(st.sampled_from(sorted(files)).flatmap(damaged), read)


def _yaml_inputs(paths: list[Path], renamed: str = "") -> st.SearchStrategy[bytes]:
    texts = [path.read_bytes() for path in paths]
    if renamed:
        texts = [re.sub(rb"(?m)^name: .*", b"name: " + renamed.encode(), text) for text in texts]
    documents = [json.loads(json.dumps(yaml.safe_load(text), default=str)) for text in texts]
    return damaged_bytes(texts) | damaged_document(documents).map(as_json)


def scenarios() -> Target:
    """Scenario files."""
    from profiler.workload.scenario import load_scenario

    inputs = _yaml_inputs(sorted(data_root("scenarios").glob("*.yaml")), renamed="mine")
    return Target(inputs, _through_file("scenario.yaml", load_scenario))


def policies() -> Target:
    """Policies of the gate, without the cost file that they may name."""
    from profiler.analysis.policy_file import load_policy

    inputs = _yaml_inputs([path for path in sorted(EXAMPLES.glob("*.yaml")) if path.name != "boxes.yaml"])
    return Target(inputs, _through_file("policy.yaml", load_policy))


def costs() -> Target:
    """Cost files."""
    from profiler.analysis.cost_file import load_costs

    return Target(_yaml_inputs([EXAMPLES / "boxes.yaml"]), _through_file("boxes.yaml", load_costs))


def model_configs() -> Target:
    """``config.json`` of a model, and the accounting of what it says."""
    from profiler.models.accounting import kv_cache_bytes, weights_bytes
    from profiler.models.config import read_config, to_config
    from profiler.models.formats import formats_for
    from profiler.models.work import trial_work

    def read(path: Path) -> None:
        architecture = read_config(path)
        formats = formats_for("bf16")
        weights_bytes(architecture, formats)
        kv_cache_bytes(architecture, formats.kv_dtype, 1024, 8)
        trial_work(architecture, formats, 128, 128, 8)

    configs = [to_config(architecture) for architecture in SMALL]
    return Target(damaged_json(configs), _through_file("config.json", read))


def _safetensors(header: Any, data: bytes = bytes(24)) -> bytes:
    text = as_json(header)
    return len(text).to_bytes(8, "little") + text + data


def safetensors() -> Target:
    """Headers and indexes of safetensors checkpoints: the digest here and the worker's reader."""
    from profiler.models.weights import weight_files, weights_digest

    header = {
        "__metadata__": {"format": "pt"},
        "a": {"dtype": "F32", "shape": [2, 2], "data_offsets": [0, 16]},
        "b": {"dtype": "BF16", "shape": [4], "data_offsets": [16, 24]},
    }
    index = {"metadata": {"total_size": 24}, "weight_map": {"a": "one.safetensors", "b": "one.safetensors"}}
    whole = _safetensors(header)
    reader = _worker_module("safetensors_reader")

    def read(files: dict[str, bytes]) -> None:
        with _folder() as folder:
            for name, content in files.items():
                (folder / name).write_bytes(content)
            try:
                weights_digest(weight_files(folder))
            except AiprofError:
                pass  # the worker gets to see the folder all the same
            reader.Checkpoint(str(folder))

    single = damaged_json([header], _safetensors).map(lambda content: {"model.safetensors": content})
    sharded = damaged_json([index]).map(
        lambda content: {"model.safetensors.index.json": content, "one.safetensors": whole}
    )
    return Target(single | sharded, read, (AiprofError, reader.EngineError))


def _worker_module(name: str) -> Any:
    """A module of the worker's package, as the worker sees it."""
    from importlib import import_module

    return import_module(f"profiler.worker.{name}")


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
        with _folder() as folder:
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


TARGETS: dict[str, Callable[[], Target]] = {
    "runs": runs,
    "scenarios": scenarios,
    "policies": policies,
    "costs": costs,
    "model_configs": model_configs,
    "safetensors": safetensors,
    "worker_answers": worker_answers,
    "worker_results": worker_results,
    "power_meters": power_meters,
}
