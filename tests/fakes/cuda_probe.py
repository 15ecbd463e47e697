"""Runs the CUDA backend in a process of its own, where the fake driver library can be found, and prints JSON.

Arguments: the root of a made-up machine, and optionally a file that replaces the fake's
configuration before the capabilities are asked for once more.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

from profiler.backends.base import BackendReport
from profiler.backends.cuda import CudaBackend


def plain(answer: Any) -> Any:
    return answer if isinstance(answer, (int, float)) or answer is None else asdict(answer)


def able(backend: CudaBackend, report: BackendReport) -> dict[str, Any]:
    return {
        device.key: {one.name: asdict(one) for one in backend.capabilities(device)}
        for device in report.devices
    }


def main() -> None:
    backend = CudaBackend(Path(sys.argv[1]))
    report = backend.report()
    answers: dict[str, Any] = {
        "report": asdict(report),
        "memory": {device.key: plain(backend.memory(device)) for device in report.devices},
        "capabilities": able(backend, report),
    }
    if len(sys.argv) > 2:
        shutil.copyfile(sys.argv[2], os.environ["FAKE_NVML_CONFIG"])
        answers["capabilities_then"] = able(backend, report)
    print(json.dumps(answers))


if __name__ == "__main__":
    main()
