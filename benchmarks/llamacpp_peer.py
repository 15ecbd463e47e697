"""llama.cpp for benchmarks/engines.py: build it, write a model with random weights, run its benchmarks.

The sources are those inside the sdist of llama-cpp-python, so that pip is all that fetches anything.
Everything lies in one cache folder outside the checkout. `python benchmarks/llamacpp_peer.py` only builds.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tarfile
from pathlib import Path
from typing import Any

import numpy as np

from profiler.models.architecture import Architecture

SDIST = "llama-cpp-python==0.3.36"
CMAKE = (
    "-DCMAKE_BUILD_TYPE=Release", "-DGGML_NATIVE=ON", "-DLLAMA_BUILD_UI=OFF", "-DLLAMA_USE_PREBUILT_UI=OFF",
    "-DLLAMA_OPENSSL=OFF", "-DLLAMA_BUILD_TESTS=OFF", "-DLLAMA_BUILD_EXAMPLES=OFF", "-DLLAMA_BUILD_APP=OFF",
)  # fmt: skip
TOOLS = ("llama-bench", "llama-batched-bench")


def cache_folder() -> Path:
    return Path(os.environ.get("AIPROF_BENCH_CACHE") or Path.home() / ".cache" / "aiprof-bench")


def missing_tools() -> list[str]:
    return [name for name in TOOLS if not (cache_folder() / "build" / "bin" / name).exists()]


def build(jobs: int = os.cpu_count() or 1) -> None:
    """Fetch the sources and build what is missing; about ten minutes of two cores."""
    if not missing_tools():
        return
    cache = cache_folder()
    cache.mkdir(parents=True, exist_ok=True)
    command = [
        sys.executable,
        "-m",
        "pip",
        "download",
        "--quiet",
        "--no-deps",
        "--no-binary",
        "llama-cpp-python",
    ]
    subprocess.run([*command, SDIST, "--dest", str(cache)], check=True)
    (archive,) = cache.glob("llama_cpp_python-*.tar.gz")
    with tarfile.open(archive) as sources:
        sources.extractall(cache, filter="data")
    (source,) = cache.glob("llama_cpp_python-*/vendor/llama.cpp")
    subprocess.run(["cmake", "-S", str(source), "-B", str(cache / "build"), *CMAKE], check=True)
    target = ["--target", *TOOLS, "--parallel", str(jobs)]
    subprocess.run(["cmake", "--build", str(cache / "build"), *target], check=True)


def write_model(name: str, arch: Architecture) -> Path:
    """Write a Qwen2 of this shape with random BF16 weights (a rolled block of normal values) once."""
    import gguf

    path = cache_folder() / f"{name}-random-bf16.gguf"
    if path.exists():
        return path
    random = np.random.default_rng(0).standard_normal(1 << 22, dtype=np.float32) * np.float32(0.02)
    part = path.with_suffix(".part")
    writer = gguf.GGUFWriter(part, "qwen2")
    writer.add_context_length(4096)
    writer.add_embedding_length(arch.hidden_size)
    writer.add_block_count(arch.layers)
    writer.add_feed_forward_length(arch.intermediate_size)
    writer.add_head_count(arch.heads)
    writer.add_head_count_kv(arch.kv_heads)
    writer.add_layer_norm_rms_eps(arch.norm_eps)
    writer.add_rope_freq_base(arch.rope_theta)
    writer.add_file_type(gguf.LlamaFileType.MOSTLY_BF16)
    writer.add_vocab_size(arch.vocab_size)
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("qwen2")
    writer.add_token_list([f"<t{token}>" for token in range(arch.vocab_size)])
    writer.add_token_types([1] * arch.vocab_size)
    writer.add_token_merges(["< t"])

    def matrix(tensor: str, rows: int, columns: int) -> None:
        values = np.resize(np.roll(random, len(tensor) * 1237), rows * columns).reshape(rows, columns)
        kind = gguf.GGMLQuantizationType.BF16
        writer.add_tensor(f"{tensor}.weight", gguf.quants.quantize(values, kind), raw_dtype=kind)

    heads, kv = arch.heads * arch.head_dim, arch.kv_heads * arch.head_dim
    matrix("token_embd", arch.vocab_size, arch.hidden_size)
    if not arch.tied_embeddings:
        matrix("output", arch.vocab_size, arch.hidden_size)
    writer.add_tensor("output_norm.weight", np.ones(arch.hidden_size, np.float32))
    for layer in range(arch.layers):
        at = f"blk.{layer}."
        for norm in ("attn_norm", "ffn_norm"):
            writer.add_tensor(f"{at}{norm}.weight", np.ones(arch.hidden_size, np.float32))
        for part_name, rows in (("attn_q", heads), ("attn_k", kv), ("attn_v", kv)):
            matrix(f"{at}{part_name}", rows, arch.hidden_size)
            writer.add_tensor(f"{at}{part_name}.bias", random[:rows])
        matrix(f"{at}attn_output", arch.hidden_size, heads)
        matrix(f"{at}ffn_gate", arch.intermediate_size, arch.hidden_size)
        matrix(f"{at}ffn_up", arch.intermediate_size, arch.hidden_size)
        matrix(f"{at}ffn_down", arch.hidden_size, arch.intermediate_size)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    part.replace(path)
    return path


def tokens_per_s(model: Path, threads: int, *, prompt: int, output: int, batch: int) -> float:
    """Return the decode speed behind ``prompt`` tokens, or the prefill speed when ``output`` is 0."""
    common = ["-m", str(model), "-t", str(threads)]
    if batch > 1:
        sizes = ["-npp", str(prompt), "-ntg", str(output), "-npl", str(batch)]
        context = ["-c", str(batch * (prompt + output)), "--output-format", "jsonl"]
        lines = _output("llama-batched-bench", [*common, *sizes, *context])
        (row,) = [json.loads(line) for line in lines.splitlines() if line.startswith("{")]
        return float(row["speed_tg"])
    work = ["-p", "0", "-n", str(output), "-d", str(prompt)] if output else ["-p", str(prompt), "-n", "0"]
    rows: list[dict[str, Any]] = json.loads(_output("llama-bench", [*common, *work, "-r", "1", "-o", "json"]))
    return float(rows[0]["avg_ts"])


def _output(tool: str, arguments: list[str]) -> str:
    command = [str(cache_folder() / "build" / "bin" / tool), *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=600, check=False)
    if done.returncode != 0:
        raise SystemExit(f"{tool}: {done.stderr.strip().splitlines()[-1:]}")
    return done.stdout


if __name__ == "__main__":
    build()
