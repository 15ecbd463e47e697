"""Readers of files under attack: runs, YAML, models, traces, recordings."""

from __future__ import annotations

import json
import re
from contextlib import redirect_stdout
from io import StringIO
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import yaml
from architectures import QWEN3_MOE_ONLY, SMALL
from builders import make_spec
from fuzz_mutations import as_json, damaged_bytes, damaged_document, damaged_json
from fuzz_target import Target, new_folder, through_file
from hypothesis import strategies as st
from verify_runs import make_run

from profiler.data import data_root
from profiler.errors import AiprofError

EXAMPLES = Path(__file__).resolve().parent.parent / "docs" / "examples"


def runs() -> Target:
    """``run.json``, ``cases.jsonl``, ``checksums.json`` and samples, one of them damaged at a time."""
    with new_folder() as folder:
        run = make_run(folder / "run")
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
        from profiler.analysis.candidates import candidates_of
        from profiler.analysis.verify import verify_run
        from profiler.errors import InputFileError
        from profiler.results.load import frame_of, trials_of
        from profiler.results.read import read_run

        with new_folder() as folder:
            for name, content in (files | dict([change])).items():
                (folder / name).parent.mkdir(exist_ok=True)
                (folder / name).write_bytes(content)
            verified = verify_run(folder)
            try:
                found = read_run(folder)
            except InputFileError:
                if verified.state != "failed":
                    raise AssertionError("verified, and cannot be read") from None
                raise
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
    return Target(inputs, through_file("scenario.yaml", load_scenario))


def policies() -> Target:
    """Policies of the gate, without the cost file that they may name."""
    from profiler.analysis.policy_file import load_policy

    inputs = _yaml_inputs([path for path in sorted(EXAMPLES.glob("*.yaml")) if path.name != "boxes.yaml"])
    return Target(inputs, through_file("policy.yaml", load_policy))


def costs() -> Target:
    """Cost files."""
    from profiler.analysis.cost_file import load_costs

    return Target(_yaml_inputs([EXAMPLES / "boxes.yaml"]), through_file("boxes.yaml", load_costs))


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
    return Target(damaged_json(configs), through_file("config.json", read))


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
        with new_folder() as folder:
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


def ggufs() -> Target:
    """GGUF files, whole and as the first of two parts: what they say the model is."""
    from gguf_made import Kind, all_in, write_gguf

    from profiler.models.accounting import decode_step_bytes
    from profiler.models.catalogue import resolve_model

    with new_folder() as folder:
        whole = write_gguf(folder / "whole.gguf", kind_of=all_in(Kind.Q4_0), tokens=64)
        experts = write_gguf(folder / "experts.gguf", QWEN3_MOE_ONLY, all_in(Kind.F16))
        split = [{"split.no": number, "split.count": 2} for number in range(2)]
        halves = [
            write_gguf(folder / f"{at}.gguf", fields=split[at], keep=range(at, 1000, 2).__contains__)
            for at in range(2)
        ]
        one, other, first, second = (path.read_bytes() for path in (whole, experts, *halves))
    names = ["m-00001-of-00002.gguf", "m-00002-of-00002.gguf"]

    def read(files: dict[str, bytes]) -> None:
        with new_folder() as folder:
            for name, content in files.items():
                (folder / name).write_bytes(content)
            model = resolve_model(str(folder / next(iter(files))))
            assert model.formats is not None
            decode_step_bytes(model.architecture, model.formats, 1, 1)

    alone = _damaged_gguf([one, other]).map(lambda content: {"m.gguf": content})
    of_two = _damaged_gguf([first]).map(lambda content: dict(zip(names, (content, second), strict=True)))
    return Target(alone | of_two, read)


def _damaged_gguf(files: list[bytes]) -> st.SearchStrategy[bytes]:
    """Bytes damaged anywhere, and numbers in the header replaced, where all that is read stands."""
    numbers = st.sampled_from([0, 1, 2, 9, 31, 255, 2**31, 2**32 - 1, 2**40, 2**63, 2**64 - 1])

    def header(content: bytes) -> st.SearchStrategy[bytes]:
        end = min(len(content) - 8, 6000)
        width = st.sampled_from([4, 8])
        change = st.tuples(st.integers(4, end), numbers, width)
        return st.lists(change, min_size=1, max_size=4).map(lambda changes: _overwritten(content, changes))

    return damaged_bytes(files) | st.sampled_from(files).flatmap(header)


def _overwritten(content: bytes, changes: list[tuple[int, int, int]]) -> bytes:
    changed = bytearray(content)
    for at, number, width in changes:
        changed[at : at + width] = (number % (1 << 8 * width)).to_bytes(width, "little")
    return bytes(changed)


def _worker_module(name: str) -> Any:
    """A module of the worker's package, as the worker sees it."""
    from importlib import import_module

    return import_module(f"profiler.worker.{name}")


def traces() -> Target:
    """Traces of arrivals: Azure's CSV and Mooncake's JSON lines."""
    from profiler.load.plan import read_trace

    azure = (
        b"TIMESTAMP,ContextTokens,GeneratedTokens\n"
        b"2023-11-16 18:17:03.9799600,374,44\n2023-11-16 18:17:04.0319600,396,109\n"
    )
    rows = [
        {"timestamp": number * 100, "input_length": 50, "output_length": 9, "hash_ids": [number]}
        for number in range(3)
    ]

    def lines(found: Any) -> bytes:
        listed = found if isinstance(found, list) else [found]
        return b"\n".join(as_json(one) for one in listed)

    return Target(damaged_bytes([azure]) | damaged_json([rows], lines), through_file("trace", read_trace))


def recordings() -> Target:
    """Recordings of sensors in Parquet, with damaged bytes or a damaged description."""
    from profiler.sensors.recording import read_recording

    return Target(_recordings({}), through_file("power.parquet", read_recording))


def joined_energies() -> Target:
    """Recordings joined with a load by the clocks that they state, up to what ``aiprof energy`` prints."""
    from profiler.cli import energy as command
    from profiler.measure.joined_energy import join
    from profiler.results.schema import Measurement
    from profiler.sensors.recording import read_recording

    wall = 1_800_000_000
    clocks = {
        name: {"monotonic_ns": at * 10**9, "realtime_ns": (wall + at) * 10**9, "uncertainty_ns": 100}
        for name, at in (("start", 1), ("end", 2))
    }
    served = SimpleNamespace(began_realtime_s=wall + 1.2, ended_realtime_s=wall + 1.8, duration_s=0.6)
    rate = Measurement(value=100.0, unit="tokens/s", n=1, method="m", scope="one_load")
    case: Any = SimpleNamespace(
        spec=make_spec(), status="ok", served=served, measurements={"output_tokens_per_s": rate}
    )

    def read(path: Path) -> None:
        recording = read_recording(path)
        found = join([case], [("node1", recording)], 0.05)
        json.dumps([command._plain(one) for one in found], allow_nan=False, ensure_ascii=False).encode()
        with redirect_stdout(StringIO()) as shown:
            command._print(found, simulated=recording.header.simulated)
        shown.getvalue().encode()

    return Target(_recordings(clocks), through_file("power.parquet", read))


def _recordings(clocks: dict[str, Any]) -> st.SearchStrategy[bytes]:
    """Damaged recordings of one second of a counter, which state these clocks."""
    import pyarrow
    from pyarrow import parquet
    from simulated_reads import COUNTER

    from profiler.sensors.recording_writer import RecordingWriter
    from profiler.sensors.ticks import series

    with new_folder() as folder:
        path = folder / "power.parquet"
        with RecordingWriter(path, "cpu-0123456789ab", [COUNTER]) as writer:
            writer.add(COUNTER.key, series([(at, at + 10, at, 0) for at in range(10**9, 2 * 10**9, 10**8)]))
        whole, table = path.read_bytes(), parquet.read_table(path)
    metadata = parquet.ParquetFile(pyarrow.BufferReader(whole)).metadata.metadata
    ((key, text),) = [(key, text) for key, text in metadata.items() if b"aiprof" in key]

    def described(found: Any) -> bytes:
        sink = pyarrow.BufferOutputStream()
        with parquet.ParquetWriter(sink, table.schema) as written:
            written.write_table(table)
            written.add_key_value_metadata({key: as_json(found)})
        content: bytes = sink.getvalue().to_pybytes()
        return content

    header = json.loads(text) | clocks
    return damaged_bytes([described(header)]) | damaged_document([header]).map(described)
