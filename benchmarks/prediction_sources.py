"""How each source of published measurements writes down what it measured.

A reader takes a row and returns the fields of an observation, or why the row cannot be used.
"""

from __future__ import annotations

import re
from typing import Any

from prediction_models import architectures

from profiler.analysis.predict.deployment import Parallel
from profiler.models.formats import Formats

Fields = dict[str, Any]

BF16 = Formats("bf16", "bf16", "bf16")
FP16 = Formats("fp16", "fp16", "fp16")
FP8 = Formats("fp8-block128", "fp8", "bf16")
MXFP4 = Formats("w4a16-g128", "bf16", "bf16")


def _argonne(row: dict[str, str]) -> Fields | str:
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


def _aiconfigurator(row: dict[str, str]) -> Fields | str:
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


def _gpustack(row: dict[str, str]) -> Fields | str:
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


def _mlenergy(row: dict[str, str]) -> Fields | str:
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


def _sglang(row: dict[str, str]) -> Fields | str:
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
    fp8 = "FP8" in row["model"] or any(
        name in row["model"] for name in ("DeepSeek-V3", "MiniMax", "Ministral")
    )
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


def _ascend(row: dict[str, str]) -> Fields | str:
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


def _amd(row: dict[str, str]) -> Fields | str:
    drain = "infinite" in row["scenario"]
    prompt, output = float(row["input_len"]), float(row["output_len"])
    numbers = re.findall(r"(?:^|=)(\d+)", row["batch_or_concurrency"])
    users = float(numbers[0])
    fields: Fields = {
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


def _llamacpp(row: dict[str, str]) -> Fields | str:
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
