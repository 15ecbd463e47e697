"""How ``vllm serve`` is started for a case: its flags, and the variables of its environment."""

from __future__ import annotations

import json
import os
import sys
from typing import Any, Dict, List

from . import vllm_devices, vllm_model, vllm_speculation
from .threads import default_threads, one_cpu_per_core

SERVED_MODEL = "model"
READY_PATH = "/health"
_BIND = "VLLM_CPU_OMP_THREADS_BIND"


def command(plan: vllm_model.Plan, folder: str, devices: List[str]) -> Dict[str, Any]:
    """Return ``command`` (with ``{port}`` where that belongs), ``environment``, ``flags`` and so on.

    ``flags`` are what stands in a record: without folders, address and port.
    """
    arguments = plan.arguments(devices[0].partition(":")[0])
    flags = _flags(arguments)
    script = os.path.join(os.path.dirname(os.path.realpath(__file__)), "vllm_serve.py")
    address = ["--host", "127.0.0.1", "--port", "{port}", "--served-model-name", SERVED_MODEL]
    return {
        "command": [sys.executable, script, "serve", folder, *address, *flags],
        "flags": _flags(vllm_speculation.without_place(arguments)),
        "environment": environment(plan, devices),
        "served_model": SERVED_MODEL,
        "ready_path": READY_PATH,
    }


def environment(plan: vllm_model.Plan, devices: List[str]) -> Dict[str, str]:
    """Return the variables that the server needs beyond the environment of aiprof."""
    if devices[0] != "cpu":
        return {"AIPROF_THREADS": str(default_threads()), **vllm_devices.visible_only(devices)}
    cpus = one_cpu_per_core()
    threads = min(plan.options.get("threads") or default_threads(), len(cpus))
    ranks = plan.parallel.devices
    each = max(1, threads // ranks)
    found = {"AIPROF_THREADS": str(each)}
    if _BIND not in os.environ:
        # Left to itself, vLLM keeps a core free for its front end, half of a box with two.
        shares = [cpus[rank * each : (rank + 1) * each] or cpus[-1:] for rank in range(ranks)]
        found[_BIND] = "|".join(",".join(map(str, share)) for share in shares)
    return found


def _flags(arguments: Dict[str, Any]) -> List[str]:
    """Turn keyword arguments of ``LLM`` into flags of ``vllm serve``, and add those of every server."""
    flags: List[str] = []
    for name, value in arguments.items():
        flag = "--" + name.replace("_", "-")
        if name == "disable_log_stats":
            continue  # a server keeps statistics unless told otherwise
        if isinstance(value, bool):
            flags.append(flag if value else "--no-" + flag[2:])
        elif isinstance(value, dict):
            flags += [flag, json.dumps(value, separators=(",", ":"))]
        else:
            flags += [flag, str(value)]
    # Sampling is the client's; a line per request would be work of the server.
    return [*flags, "--generation-config", "vllm", "--disable-uvicorn-access-log"]
