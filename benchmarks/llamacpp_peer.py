"""llama.cpp for the benchmarks: build it, find its tools, write a model with random weights, run them.

The sources are those inside the sdist of llama-cpp-python, so that pip is all that fetches anything.
Everything lies in one cache folder outside the checkout. `python benchmarks/llamacpp_peer.py` only builds.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tarfile
from dataclasses import asdict
from pathlib import Path
from statistics import median
from typing import Any

from profiler.models.architecture import Architecture

SDIST = "llama-cpp-python==0.3.36"
CMAKE = (
    "-DCMAKE_BUILD_TYPE=Release", "-DGGML_NATIVE=ON", "-DLLAMA_BUILD_UI=OFF", "-DLLAMA_USE_PREBUILT_UI=OFF",
    "-DLLAMA_OPENSSL=OFF", "-DLLAMA_BUILD_TESTS=OFF", "-DLLAMA_BUILD_EXAMPLES=OFF", "-DLLAMA_BUILD_APP=OFF",
)  # fmt: skip
TOOLS = ("llama-bench", "llama-batched-bench")


def cache_folder() -> Path:
    return Path(os.environ.get("AIPROF_BENCH_CACHE") or Path.home() / ".cache" / "aiprof-bench")


def found(name: str) -> str | None:
    """Return where a tool of llama.cpp is: in our build, else on PATH."""
    built = cache_folder() / "build" / "bin" / name
    return str(built) if built.exists() else shutil.which(name)


def missing_tools() -> list[str]:
    return [name for name in TOOLS if found(name) is None]


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


def write_model(name: str, arch: Architecture, seed: int) -> Path:
    """Write a model of this shape with aiprof's random weights in BF16, once; return its file."""
    from profiler.worker import gguf_checkpoint  # needs gguf, of the extra `test`

    path = cache_folder() / f"{name}-bf16-random-{seed}.gguf"
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        gguf_checkpoint.write(str(path), asdict(arch), "bf16", "random", seed)
    return path


def tokens_per_s(model: Path, threads: int, *, prompt: int, output: int, batch: int) -> float:
    """Return the decode speed behind ``prompt`` tokens, or the prefill speed when ``output`` is 0."""
    if batch == 1:
        return bench(model, threads, prompt=prompt, output=output)
    sizes = ["-npp", str(prompt), "-ntg", str(output), "-npl", str(batch)]
    context = ["-c", str(batch * (prompt + output)), "--output-format", "jsonl"]
    lines = _output(found("llama-batched-bench"), ["-m", str(model), "-t", str(threads), *sizes, *context])
    (row,) = [json.loads(line) for line in lines.splitlines() if line.startswith("{")]
    return float(row["speed_tg"])


def bench(
    model: Path,
    threads: int,
    *,
    prompt: int,
    output: int,
    kv_type: str = "f16",
    repeats: int = 1,
    tool: str | None = None,
) -> float:
    """Return the speed of one sequence by ``llama-bench``, the median of its repeats; see tokens_per_s.

    The cache is in ``kv_type`` (llama-bench's own default is f16). ``tool`` is a llama-bench of one's own.
    """
    work = ["-p", "0", "-n", str(output), "-d", str(prompt)] if output else ["-p", str(prompt), "-n", "0"]
    common = ["-m", str(model), "-t", str(threads), "-ctk", kv_type, "-ctv", kv_type]
    answer = _output(tool or found("llama-bench"), [*common, *work, "-r", str(repeats), "-o", "json"])
    rows: list[dict[str, Any]] = json.loads(answer)
    return float(median(rows[0]["samples_ts"]))


def _output(tool: str | None, arguments: list[str]) -> str:
    if tool is None:
        raise SystemExit("llama.cpp is not built; `python benchmarks/llamacpp_peer.py` builds it")
    try:
        done = subprocess.run([tool, *arguments], capture_output=True, text=True, timeout=600, check=False)
    except OSError as error:
        raise SystemExit(f"{tool}: {error.strerror}") from error
    if done.returncode != 0:
        raise SystemExit(f"{tool}: {done.stderr.strip().splitlines()[-1:]}")
    return done.stdout


if __name__ == "__main__":
    build()
