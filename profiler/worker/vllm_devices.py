"""On which devices vLLM computes: what is there, what it may see, and how a model is spread over them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import Any, Dict, List, Optional, Tuple

_LIST_TIMEOUT_S = 150.0
# Which variable leaves devices visible, by PyTorch's kind of device; a build for ROCm calls its GPUs cuda.
_VISIBLE = {"cuda": "CUDA_VISIBLE_DEVICES", "npu": "ASCEND_RT_VISIBLE_DEVICES", "xpu": "ZE_AFFINITY_MASK"}


class Parallel:
    """How many devices share the work, and how.

    Args:
        given: ``{"tp", "pp", "dp", "ep"}``, or None for one device.
    """

    def __init__(self, given: Optional[Dict[str, int]]) -> None:
        self.tp, self.pp, self.dp, self.ep = ((given or {}).get(name, 1) for name in ("tp", "pp", "dp", "ep"))

    @property
    def devices(self) -> int:
        """Devices that it takes."""
        return self.tp * self.pp * self.dp

    def arguments(self) -> Dict[str, Any]:
        """Return vLLM's arguments for it; nothing for one device."""
        named = {
            "tensor_parallel_size": self.tp,
            "pipeline_parallel_size": self.pp,
            "data_parallel_size": self.dp,
        }
        found: Dict[str, Any] = {name: count for name, count in named.items() if count > 1}
        if self.ep > 1:
            found["enable_expert_parallel"] = True
        return found


def platform_name() -> str:
    """What vLLM thinks it runs on: ``cpu``, ``cuda``, ``rocm``, ``npu`` and so on."""
    from vllm.platforms import current_platform

    return str(getattr(current_platform, "device_name", "unknown"))


def list_devices(torch_devices: Any) -> Tuple[List[Dict[str, Any]], List[str]]:
    """Return the devices and what failed, without this process touching an accelerator.

    Which one it may see is settled when it is first used; a runtime that has been started already would not
    take notice. So another process, of the torch engine, is asked.
    """
    torch = torch_devices.torch
    if torch.version.cuda is None and torch.version.hip is None and platform_name() == "cpu":
        found: Tuple[List[Dict[str, Any]], List[str]] = torch_devices.list_devices()
        return found
    script = os.path.join(os.path.dirname(os.path.realpath(__file__)), "main.py")
    asked = b'{"id": 1, "op": "hello", "engine": "torch", "options": {}}\n{"id": 2, "op": "bye"}\n'
    try:
        done = subprocess.run(
            [sys.executable, script, str(os.getpid())],
            input=asked, stdout=subprocess.PIPE, timeout=_LIST_TIMEOUT_S, check=True,
        )  # fmt: skip
        result = json.loads(done.stdout.splitlines()[0])["result"]
    except (OSError, subprocess.SubprocessError, ValueError, LookupError) as error:
        reason = "PyTorch could not be asked for its devices: %s" % type(error).__name__
        return [{"device": "cpu", "name": "CPU", "uuid": None, "pci_address": None}], [reason]
    return result["devices"], result["engine"]["details"]["failed_device_runtimes"]


def visible_only(names: List[str]) -> Dict[str, str]:
    """Return the variable that leaves only these devices visible, with its value; nothing for a CPU.

    Args:
        names: ``cuda:1``, counted among what is visible now; all of one kind.
    """
    variable = _VISIBLE.get(names[0].partition(":")[0])
    if variable is None:
        return {}
    listed = [part.strip() for part in os.environ.get(variable, "").split(",") if part.strip()]
    indices = [int(name.partition(":")[2] or 0) for name in names]
    return {variable: ",".join(listed[index] if listed else str(index) for index in indices)}
