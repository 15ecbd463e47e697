"""Published measurements as observations that a prediction can be held against.

Reads a folder of CSV files with the columns source, accelerator, n_accelerators, model, precision,
engine, scenario, input_len, output_len, batch_or_concurrency, metric, value, unit, notes. What cannot
be predicted is left out and counted: speculative decoding, images, hybrid models whose layers the
accounting does not know, prefill and decode on separate devices, regression floors.
"""

from __future__ import annotations

import csv
import gzip
import json
import math
import re
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

from profiler.analysis.predict.deployment import Deployment, Parallel
from profiler.hardware.catalogue import get_hardware
from profiler.models.architecture import Architecture, Experts
from profiler.models.catalogue import catalogue
from profiler.models.formats import Formats

HERE = Path(__file__).resolve().parent
ARCHITECTURES = HERE / "data" / "architectures.json"

# The parts that the sources name, and the chip that is left out as one when a device is held out.
DEVICES = {
    "nvidia a100 gpu": ("a100-sxm-40gb", "A100"),  # Polaris and JLSE: 40 GB, as the out-of-memory rows show
    "nvidia h100 gpu": ("h100-sxm", "H100"),
    "amd mi250 gpu": ("mi250-gcd", "MI250"),  # a module is two of them, see _argonne
    "nvidia h100 sxm": ("h100-sxm", "H100"),
    "nvidia h100": ("h100-sxm", "H100"),
    "nvidia a100": ("a100-sxm", "A100"),
    "amd instinct mi300x 192gb": ("mi300x", "MI300X"),
    "amd mi300x": ("mi300x", "MI300X"),
    "mi300x": ("mi300x", "MI300X"),
    "huawei ascend 910b (atlas 800t a2)": ("ascend-910b3", "910B"),
    "3070 8gb": ("rtx-3070", "RTX 3070"),
    "3080 10gb": ("rtx-3080", "RTX 3080"),
    "3080 ti 12gb": ("rtx-3080-ti", "RTX 3080 Ti"),
    "3090 24gb": ("rtx-3090", "RTX 3090"),
    "4070 ti 12gb": ("rtx-4070-ti", "RTX 4070 Ti"),
    "4080 16gb": ("rtx-4080", "RTX 4080"),
    "4090 24gb": ("rtx-4090", "RTX 4090"),
    "rtx 4000 ada 20gb": ("rtx-4000-ada", "RTX 4000 Ada"),
    "rtx 5000 ada 32gb": ("rtx-5000-ada", "RTX 5000 Ada"),
    "rtx 6000 ada 48gb": ("rtx-6000-ada", "RTX 6000 Ada"),
    "rtx a6000 48gb": ("rtx-a6000", "RTX A6000"),
    "a40 48gb": ("a40", "A40"),
    "l40s 48gb": ("l40s", "L40S"),
    "a100 pcie 80gb": ("a100-pcie", "A100"),
    "a100 sxm 80gb": ("a100-sxm", "A100"),
    "h100 pcie 80gb": ("h100-pcie", "H100"),
    "m1 7-core gpu 8gb": ("apple-m1", "M1"),
    "m1 max 32-core gpu 64gb": ("apple-m1-max", "M1 Max"),
    "m2 ultra 76-core gpu 192gb": ("apple-m2-ultra", "M2 Ultra"),
    "m3 max 40-core gpu 64gb": ("apple-m3-max", "M3 Max"),
}


@dataclass(frozen=True)
class Observation:
    """One measured figure and the work behind it.

    Attributes:
        source: name of the file it comes from.
        licence: whether its row may be shipped.
        chip: what is left out together.
        engine: engine and generation, a key of the calibration.
        deployment: what ran where.
        kind: ``static`` (one batch, start to end), ``closed`` (users who ask again at once), ``drain``
            (all requests at once), ``single`` (one stream, prefill and decode apart).
        prompt, output: tokens per request, means.
        users: batch, users or requests.
        limit: most sequences that the engine runs at once, 0: none.
        metric: ``output_tokens_per_s``, ``tpot_s``, ``ttft_s`` or ``prefill_tokens_per_s``.
        value: measured, in base units.
        power_w: measured watts of all devices, or None.
        work: equal for the same work on another device.
    """

    source: str
    licence: str
    chip: str
    engine: str
    deployment: Deployment
    kind: str
    prompt: float
    output: float
    users: float
    limit: float
    metric: str
    value: float
    power_w: float | None
    work: str

    @property
    def device(self) -> str:
        """Name of the part."""
        return self.deployment.hardware.name


@cache
def architectures() -> dict[str, Architecture]:
    """Architectures by hub id in lower case: those of the catalogue and those of the published models."""
    found = {}
    for entry in catalogue().values():
        for hub_id in (entry.hub_id, *entry.same_shapes):
            found[hub_id.lower()] = entry.architecture
    for hub_id, fields in json.loads(ARCHITECTURES.read_text()).items():
        fields = dict(fields)
        if "same_as" in fields:
            found[hub_id.lower()] = found[fields["same_as"].lower()]
            continue
        experts = fields.pop("experts", None)
        defaults = {
            "family": "llama",
            "tied_embeddings": False,
            "attention_bias": False,
            "qk_norm": False,
            "norm_eps": 1e-6,
            "rope_theta": 1e4,
            "rope_scaling": None,
            "max_positions": 32768,
        }
        moe = None if experts is None else Experts(**experts)
        found[hub_id.lower()] = Architecture(**defaults | fields, experts=moe)
    return found


def read(folder: Path) -> tuple[list[Observation], Counter[str]]:
    """Read all known files of ``folder``; return the observations and why rows were left out."""
    found: list[Observation] = []
    skipped: Counter[str] = Counter()
    for name, reader in READERS.items():
        paths = [path for path in (folder / f"{name}.csv", folder / f"{name}.csv.gz") if path.exists()]
        for path in paths[:1]:
            opened = gzip.open(path, "rt") if path.suffix == ".gz" else path.open()
            with opened as file:
                for row in csv.DictReader(file):
                    one = _observation(name, row, reader)
                    if isinstance(one, str):
                        skipped[f"{name}: {one}"] += 1
                    else:
                        found.append(one)
    return _without_copies(found), skipped


def _without_copies(observations: Iterable[Observation]) -> list[Observation]:
    """The same figure stands in several of a source's files: its mean counts once."""
    groups: dict[tuple[Any, ...], list[Observation]] = {}
    for one in observations:
        key = (one.source, one.device, one.work, one.metric, one.kind)
        groups.setdefault(key, []).append(one)
    return [
        replace(group[0], value=math.exp(sum(math.log(one.value) for one in group) / len(group)))
        for group in groups.values()
    ]


def _observation(name: str, row: dict[str, str], reader: Any) -> Observation | str:
    accelerator = row["accelerator"].replace("‑", "-").strip().lower()
    if accelerator not in DEVICES:
        return f"accelerator {row['accelerator']}"
    model = row["model"].split(" (")[-1].rstrip(")") if name == "amd_rocm_vllm" else row["model"]
    arch = architectures().get(model.lower())
    if arch is None:
        return f"model {row['model']}"
    value = float(row["value"])
    if not value > 0:
        return "no value"
    fields = reader(row)
    if isinstance(fields, str):
        return fields
    part, chip = DEVICES[accelerator]
    hardware = get_hardware(part)
    formats: Formats = fields["formats"]
    if formats.compute_dtype in hardware.lacks:  # engines then widen the weights on the fly
        formats = replace(formats, compute_dtype="bf16")
    parallel: Parallel = fields["parallel"]
    if arch.heads % parallel.tensor:
        return "ranks that do not divide the heads"
    deployment = Deployment(hardware, arch, formats, parallel, fields.get("weights_factor", 1.0))
    scale = 1e-3 if row["unit"] == "ms" else 1.0
    power = float(row["power_w_if_any"]) if row.get("power_w_if_any") else None
    work = [
        model.lower(), fields["engine"], formats.weight_format, formats.kv_dtype, str(parallel), fields["kind"],
        round(fields["prompt"]), round(fields["output"]), fields["users"], fields.get("limit", 0),
    ]  # fmt: skip
    return Observation(
        name, row["licence"], chip, fields["engine"], deployment, fields["kind"], fields["prompt"],
        fields["output"], fields["users"], fields.get("limit", 0), fields["metric"],
        value * scale if "value" not in fields else fields["value"], power, json.dumps(work),
    )  # fmt: skip


BF16 = Formats("bf16", "bf16", "bf16")
FP16 = Formats("fp16", "fp16", "fp16")
FP8 = Formats("fp8-block128", "fp8", "bf16")
MXFP4 = Formats("w4a16-g128", "bf16", "bf16")


def _argonne(row: dict[str, str]) -> dict[str, Any] | str:
    if row["metric"] != "total_token_throughput(in+out)":
        return "TTFT of another set-up"
    formats = {
        "fp16/bf16 (paper default)": FP16,
        "float16": FP16,
        "Weight = fp16, KV Cache = fp16": FP16,
        "Weight = fp16, KV Cache = fp8": Formats("fp16", "fp16", "fp8"),
        "Weight = fp16, KV Cache = int8": Formats("fp16", "fp16", "int8"),
        "Weight = fp8, KV Cache = fp8": Formats("fp8-block128", "fp8", "fp8"),
        "Weight = int8, KV Cache = int8": Formats("w8a8-int8", "fp16", "int8"),
        "Weight = int8, KV Cache = fp8": Formats("w8a8-int8", "fp16", "fp8"),
    }.get(row["precision"])
    if formats is None:
        return f"precision {row['precision']}"
    if "Fig_5_b" in row["source_url_or_repo_path"]:
        return "ranks not stated"
    engine = {"vLLM": "vllm-0", "TensorRT-LLM": "tensorrt-llm-0", "Deepspeed-MII": "deepspeed-mii"}
    prompt, output = float(row["input_len"]), float(row["output_len"])
    # The source counts modules of two dies: models of 93 GB run on one, and 28 heads on two but not on four.
    dies = 2 if "MI250" in row["accelerator"] else 1
    return {
        "formats": formats,
        "parallel": Parallel(tensor=dies * int(row["n_accelerators"])),
        "engine": engine[row["engine"]],
        "kind": "static",
        "prompt": prompt,
        "output": output,
        "users": float(row["batch_or_concurrency"]),
        "metric": "output_tokens_per_s",
        "value": float(row["value"]) * output / (prompt + output),  # the source counts both
    }


def _number(pattern: str, text: str, default: int = 1) -> int:
    found = re.search(pattern, text)
    return int(found.group(1)) if found and found.group(1) else default


def _generation(engine: str) -> str:
    """Engine and generation: what changed by a lot is the engine core, not every release."""
    name = engine.lower()
    if name.startswith(("trtllm", "tensorrt")):
        return "tensorrt-llm"
    if name.startswith("sglang"):
        return "sglang"
    return "vllm"


def _aiconfigurator(row: dict[str, str]) -> dict[str, Any] | str:
    if "disagg" in row["scenario"]:
        return "prefill and decode apart"
    if not row["n_accelerators"] or not row["batch_or_concurrency"]:
        return "devices or users not stated"
    notes, precision = row["notes"], row["precision"]
    tensor, pipeline = _number(r"\btp=(\d+)", notes), _number(r"\bpp=(\d+)", notes)
    data, expert = _number(r"\badp=(\d*)", notes), _number(r"moe_ep=(\d+)", notes)
    ranks = int(float(row["n_accelerators"]))
    if data > 1:
        tensor = max(tensor // data, 1)
    if tensor * pipeline * data != ranks:
        return "ranks do not add up"
    moe = architectures()[row["model"].lower()].experts is not None
    formats = BF16
    if precision.startswith("fp8") or "FP8" in row["model"]:
        formats = FP8
    elif precision.startswith("fp4") or "gpt-oss" in row["model"]:
        formats = MXFP4
    return {
        "formats": formats,
        "parallel": Parallel(tensor, pipeline, data, expert if moe and expert > 1 else 1),
        "engine": _generation(row["engine"]),
        "kind": "closed",
        "prompt": float(row["input_len"]),
        "output": float(row["output_len"]),
        "users": float(row["batch_or_concurrency"]),
        "metric": "tpot_s" if row["metric"] == "tpot_mean" else "ttft_s",
    }


def _gpustack(row: dict[str, str]) -> dict[str, Any] | str:
    notes, model = row["notes"], row["model"]
    if "speculative" in notes.lower() or "speculative" in row["scenario"].lower() or "mtp" in notes:
        return "speculative decoding"
    drain = "rate=inf" in row["scenario"]
    metrics = {"output_token_throughput": "output_tokens_per_s", "tpot_mean": "tpot_s", "ttft_mean": "ttft_s"}
    if row["metric"] not in metrics or (drain and row["metric"] != "output_token_throughput"):
        return "metric that drains a queue" if drain else "metric said twice"
    if float(row["output_len"]) < 50:
        return "no decode to speak of"
    tensor = _number(r"(?:-tp|--tp-size|--tp|--tensor-parallel-size|--tp_size)[ =](\d+)", notes)
    pipeline = _number(r"(?:-pp|--pp-size|--pipeline-parallel-size|--pp_size)[ =](\d+)", notes)
    data = _number(r"(?:-dp|--dp-size|--data-parallel-size|--dp)[ =](\d+)", notes)
    ranks = int(row["n_accelerators"])
    if tensor * pipeline * data != ranks:
        return "ranks do not add up"
    moe = architectures()[model.lower()].experts is not None
    spread = moe and re.search(r"--ep-size|--ep_size|--enable-expert-parallel|--ep ", notes) is not None
    formats = BF16
    if "gpt-oss" in model or "AWQ" in model:
        formats = MXFP4
    elif "FP8" in model or "quantization fp8" in notes or "quantization=fp8" in notes:
        formats = FP8
    users = row["batch_or_concurrency"].split()[0]
    limit = _number(r"--max-num-seqs[ =](\d+)", notes, 0) or _number(r"--max_batch_size[ =](\d+)", notes, 0)
    return {
        "formats": formats,
        "parallel": Parallel(tensor, pipeline, data, tensor * data if spread and tensor * data > 1 else 1),
        "engine": _generation(row["engine"]),
        "kind": "drain" if drain else "closed",
        "prompt": float(row["input_len"]),
        "output": float(row["output_len"]),
        "users": float(users),
        "limit": float(limit),
        "metric": metrics[row["metric"]],
    }


# The leaderboard gives no prompt lengths: medians of the named data sets, rounded (they move the
# context by a few percent of the output's length).
PROMPTS = {"lm-arena-chat": 100.0, "gpqa": 250.0, "sourcegraph-fim": 600.0}


def _mlenergy(row: dict[str, str]) -> dict[str, Any] | str:
    if row["scenario"] not in PROMPTS:
        return "images or video"
    metrics = {"output_token_throughput": "output_tokens_per_s", "itl_median": "tpot_s"}
    if row["metric"] not in metrics:
        return "metric not predicted"
    batch = re.search(r"avg_batch=([\d.]+)", row["batch_or_concurrency"])
    assert batch is not None
    ranks = int(row["n_accelerators"])
    expert = _number(r"EP=(\d+)", row["notes"])
    formats = {"bfloat16": BF16, "fp8": FP8, "mxfp4": MXFP4}[row["precision"]]
    return {
        "formats": formats,
        "parallel": Parallel(ranks, 1, 1, expert if expert > 1 else 1),
        "engine": "vllm",
        "kind": "closed",
        "prompt": PROMPTS[row["scenario"]],
        "output": float(row["output_len"]),
        "users": float(batch.group(1)),
        "metric": metrics[row["metric"]],
    }


def _sglang(row: dict[str, str]) -> dict[str, Any] | str:
    if "accept_len=None" not in row["notes"]:
        return "speculative decoding"
    if "multimodal" in row["scenario"] or "VL" in row["model"]:
        return "images or video"
    metrics = {"output_token_throughput": "output_tokens_per_s", "tpot_mean": "tpot_s", "ttft_mean": "ttft_s"}
    if row["metric"] not in metrics:
        return "metric said twice"
    notes = row["notes"]
    ranks = int(row["n_accelerators"])
    data = _number(r"--dp (\d+)", notes) if "enable-dp-attention" in notes else 1
    expert = _number(r"--ep(?:-size)? (\d+)", notes)
    fp8 = "FP8" in row["model"] or any(name in row["model"] for name in ("DeepSeek-V3", "MiniMax", "Ministral"))
    return {
        "formats": FP8 if fp8 else BF16,
        "parallel": Parallel(ranks // data, 1, data, ranks if expert == ranks and ranks > 1 else 1),
        "engine": "sglang",
        "kind": "closed",
        "prompt": float(row["input_len"]),
        "output": float(row["output_len"]),
        "users": float(row["batch_or_concurrency"]),
        "metric": metrics[row["metric"]],
    }


def _ascend(row: dict[str, str]) -> dict[str, Any] | str:
    if row["notes"] != "baseline":
        return "speculative decoding" if "decoding" in row["notes"] else "regression floor, not a measurement"
    metrics = {"output_token_throughput": "output_tokens_per_s", "tpot_mean": "tpot_s"}
    return {
        "formats": BF16,
        "parallel": Parallel(int(row["n_accelerators"])),
        "engine": "vllm-ascend",
        "kind": "closed",
        "prompt": float(row["input_len"]),
        "output": float(row["output_len"]),
        "users": float(row["batch_or_concurrency"]),
        "metric": metrics[row["metric"]],
    }


def _amd(row: dict[str, str]) -> dict[str, Any] | str:
    drain = "infinite" in row["scenario"]
    prompt, output = float(row["input_len"]), float(row["output_len"])
    numbers = re.findall(r"(?:^|=)(\d+)", row["batch_or_concurrency"])
    users = float(numbers[0])
    fields: dict[str, Any] = {
        "formats": Formats("fp8-block128", "fp8", "fp8"),
        "parallel": Parallel(int(row["n_accelerators"])),
        "engine": "vllm",
        "kind": "drain" if drain else "static",
        "prompt": prompt,
        "output": output,
        "users": users,
        "limit": float(numbers[1]) if drain else 0.0,
        "metric": "output_tokens_per_s",
    }
    return fields if drain else fields | {"value": users * output / float(row["value"])}


def _llamacpp(row: dict[str, str]) -> dict[str, Any] | str:
    decode = row["metric"] == "decode_throughput"
    quantised = row["precision"] == "Q4_K_M"
    return {
        "formats": Formats("q4_0", "fp16", "fp16") if quantised else FP16,
        "weights_factor": 1.06 if quantised else 1.0,  # Q4_K_M of the 8B model: 4.92 GB, Q4_0: 4.66 GB
        "parallel": Parallel(pipeline=int(row["n_accelerators"])),
        "engine": "llamacpp",
        "kind": "single",
        "prompt": 1.0 if decode else 1024.0,
        "output": 1024.0 if decode else 1.0,
        "users": 1.0,
        "metric": "output_tokens_per_s" if decode else "prefill_tokens_per_s",
    }


READERS = {
    "argonne_llm_inference_bench": _argonne,
    "aiconfigurator_silicon": _aiconfigurator,
    "gpustack_performance_lab": _gpustack,
    "mlenergy": _mlenergy,
    "sgl_cookbook": _sglang,
    "ascend_vllm_ascend": _ascend,
    "amd_rocm_vllm": _amd,
    "xiongjiedai_llamacpp": _llamacpp,
}


def power_rows(observations: Iterable[Observation]) -> Iterator[Observation]:
    """Those whose measured watts can be told apart, once per run."""
    seen = set()
    for one in observations:
        # Argonne states neither what its meters cover nor whether idle devices are in: beyond TDP for one.
        if one.source == "mlenergy" and one.power_w is not None and (one.device, one.work) not in seen:
            seen.add((one.device, one.work))
            yield one
