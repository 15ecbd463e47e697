"""How fast several devices exchange data through torch.distributed; each rank is a worker of its own.

Rates are "bus bandwidths" as the nccl-tests define them (doc/PERFORMANCE.md there): what each link has
to carry whatever the number of ranks, so that they compare with the speed of the link.
"""

from __future__ import annotations

import datetime
import os
from typing import Any, Dict

import torch

from . import timed, torch_devices
from .protocol import EngineError

# ROCm's PyTorch calls RCCL by the name of NCCL.
BACKENDS = {"cuda": "nccl", "npu": "hccl", "xpu": "xccl", "cpu": "gloo"}
KINDS = ("all_reduce", "all_to_all")
_PASSES = 5


def collective(device: Any, request: Dict[str, Any]) -> Dict[str, Any]:
    """Take part in one kind of exchange.

    Args:
        device: this rank's ``torch.device``.
        request: ``kind`` (one of :data:`KINDS`), ``rank``, ``world_size``, ``store`` (a file that all ranks
            see and that does not exist yet), ``bytes`` of each rank, ``repeats``, ``connect_s``.

    Returns:
        ``bytes_per_s`` (bus bandwidth as this rank sees it, one per repeat), ``method``.

    Raises:
        EngineError: ``unsupported`` where this PyTorch cannot connect such devices.
    """
    import torch.distributed as dist

    name = BACKENDS.get(device.type)
    if name is None or not dist.is_available():
        raise EngineError("unsupported", f"this PyTorch has no collectives for {device.type}")
    ranks, kind = request["world_size"], request["kind"]
    if device.type == "cpu":
        # Ranks of one box; the box's own name may not resolve in a container.
        os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")
    else:
        getattr(torch, device.type).set_device(device)
    try:
        dist.init_process_group(
            name,
            init_method="file://" + request["store"],
            rank=request["rank"],
            world_size=ranks,
            timeout=datetime.timedelta(seconds=request["connect_s"]),
        )
    except (RuntimeError, ValueError) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise EngineError("unsupported", f"{name} cannot connect {ranks} ranks: {reason}") from error
    try:
        # Values are 0, so that sums of sums stay what they are.
        count = request["bytes"] // 4 // ranks * ranks
        source, target = (torch.zeros(count, device=device) for _ in "ab")
        share = (2 if kind == "all_reduce" else 1) * (ranks - 1) / ranks

        def exchange() -> None:
            if kind == "all_reduce":
                dist.all_reduce(source)
            else:
                dist.all_to_all_single(target, source)

        exchange()
        torch_devices.synchronize(device)
        rates = []
        for _ in range(request["repeats"]):
            dist.barrier()
            seconds = timed.elapsed_s(exchange, _PASSES, device)
            rates.append(share * 4 * count * _PASSES / seconds)
    finally:
        dist.destroy_process_group()
    return {"bytes_per_s": rates, "method": f"{name} over {ranks} ranks, bus bandwidth as in nccl-tests"}
