"""Says what an environment's llama-cpp-python can do: ``python llamacpp_check.py``.

Started by path under the interpreter in question; standard library and what is installed there. The answer is
one JSON object on the last line of stdout.
"""

from __future__ import annotations

import importlib.util
import json
import re
import sys
from typing import Any, Dict, List

CMAKE = (
    "CMAKE_ARGS='%s' pip install --force-reinstall --no-cache-dir "
    "--no-binary llama-cpp-python llama-cpp-python"
)
# What makes products of matrices several times faster, by its name in /proc/cpuinfo and in llama.cpp's words.
_WIDE = (("avx512f", "AVX512"), ("avx2", "AVX2"))


def look() -> Dict[str, Any]:
    """Return versions, what the build supports, and traps: ``{"code", "text", "remedy"}``."""
    found: Dict[str, Any] = {"python": sys.version.split()[0], "llama_cpp": None, "traps": []}
    if importlib.util.find_spec("llama_cpp") is None:
        return found
    traps: List[Dict[str, str]] = found["traps"]
    try:
        import llama_cpp
    except Exception as error:  # a build whose libraries are not there raises what it likes
        text = "llama-cpp-python is installed and cannot be imported: %s" % " ".join(str(error).split())[:300]
        traps.append(_trap("broken", text, "build it on this machine: " + CMAKE % ""))
        found["llama_cpp"] = "?"
        return found
    system = llama_cpp.llama_print_system_info().decode("utf-8", "replace")
    features = features_of(system)
    found["llama_cpp"] = llama_cpp.__version__
    found["gpu_offload"] = bool(llama_cpp.llama_supports_gpu_offload())
    found["features"] = features
    with open("/proc/cpuinfo", encoding="utf-8", errors="replace") as file:
        traps += narrow(features, set(file.read(1 << 16).split()))
    if importlib.util.find_spec("gguf") is None:
        text = "the package gguf is missing: only GGUF files of your own can be run"
        traps.append(_trap("no_gguf", text, "pip install gguf"))
    return found


def features_of(system: str) -> List[str]:
    """Return what llama.cpp says its build has, of ``CPU : AVX2 = 1 | BLAS = 0 | …``."""
    return [name for name, value in re.findall(r"(\w+) = (\d+)", system) if value != "0"]


def narrow(features: List[str], flags: Any) -> List[Dict[str, str]]:
    """Return that the build leaves out the widest vectors that this CPU has."""
    for flag, name in _WIDE:
        if flag in flags and name not in features:
            text = "this llama.cpp was built without %s, which the CPU has" % name
            return [_trap("narrow_build", text, "build it on this machine: " + CMAKE % "-DGGML_NATIVE=ON")]
        if flag in flags:
            return []
    return []


def _trap(code: str, text: str, remedy: str) -> Dict[str, str]:
    return {"code": code, "text": text, "remedy": remedy}


if __name__ == "__main__":
    print(json.dumps(look()))
