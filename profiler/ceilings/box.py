"""All ceilings of a box: each device by itself, then what they exchange."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from profiler.backends.base import Device
from profiler.ceilings.bandwidth import IDLE_PROBES, PROBE_BYTES
from profiler.ceilings.collectives import collective_ceilings
from profiler.ceilings.matrix import matrix_ceilings
from profiler.ceilings.probe import ask_or_say_why
from profiler.ceilings.sustained import Sustained, sustained
from profiler.engines.base import Engine
from profiler.engines.log_file import worker_log
from profiler.engines.process import WorkerError, WorkerProcess
from profiler.errors import UsageError
from profiler.results.schema import Ceiling
from profiler.sensors.box import find_sensors

DTYPES: Final = ("fp32", "bf16", "fp16", "fp8", "int8")
LINK_BYTES: Final = 256 * 2**20
REPEATS: Final = 5
HELLO_S: Final = 180.0
PROBE_S: Final = 60.0


@dataclass
class BoxCeilings:
    """What was measured of a box.

    Attributes:
        devices: the devices that answered.
        ceilings: of all of them; those that could not be measured carry the reason.
        sustained: the sustained loads, by device key.
        engine_version: of the engine that measured.
        failures: one line per device that could not be measured at all.
    """

    devices: list[Device] = field(default_factory=list)
    ceilings: list[Ceiling] = field(default_factory=list)
    sustained: dict[str, Sustained] = field(default_factory=dict)
    engine_version: str = ""
    failures: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Asked:
    """What to measure, and with what.

    Attributes:
        engine: whose probes.
        options: its options.
        python: interpreter of the workers.
        sustained_s: length of the sustained load, or None for none.
        sustained_dtype: its number format.
        say: receives one line before each step that takes a moment.
    """

    engine: Engine
    options: dict[str, Any]
    python: str
    sustained_s: float | None
    sustained_dtype: str
    say: Callable[[str], None]


def measure_box(devices: Sequence[Device], asked: Asked) -> BoxCeilings:
    """Measure every device, and with several of them what they exchange.

    Args:
        devices: the devices.
        asked: what to measure.
    """
    found = BoxCeilings()
    names: list[tuple[str, str]] = []
    with worker_log() as log_path:
        for device in devices:
            asked.say(f"measuring {device.name}")
            try:
                names.append((device.key, _device(device, devices, asked, log_path, found)))
            except (WorkerError, UsageError) as error:
                found.failures.append(f"{device.name} ({device.key}): {error}")
                continue
            found.devices.append(device)
        if len(names) > 1:
            asked.say(f"exchanging data between {len(names)} devices")
            found.ceilings += collective_ceilings(
                names,
                engine=asked.engine.name,
                options=asked.options,
                python=asked.python,
                log_path=log_path,
                hello_s=HELLO_S,
            )
    return found


def _device(
    device: Device, devices: Sequence[Device], asked: Asked, log_path: Path, found: BoxCeilings
) -> str:
    """Add the ceilings of one device to ``found`` and return what the engine calls it."""
    engine = asked.engine
    with WorkerProcess(asked.python, log_path) as worker:
        hello = worker.request("hello", HELLO_S, engine=engine.name, options=asked.options)
        found.engine_version = str(hello["engine"]["version"])
        name = engine.device_string(device, hello)
        peers = {peer.key: engine.device_string(peer, hello) for peer in devices if peer.key != device.key}
        for kind, ceiling, fields in _kinds(device, peers):
            found.ceilings.append(
                ask_or_say_why(
                    worker, kind, name, PROBE_S,
                    device_key=device.key, name=ceiling, unit="bytes/s", engine=engine.name, **fields,
                )
            )  # fmt: skip
        found.ceilings += matrix_ceilings(
            worker, name, DTYPES, PROBE_S, device_key=device.key, engine=engine.name
        )
        if asked.sustained_s is not None:
            asked.say(f"{asked.sustained_dtype} products for {asked.sustained_s:.0f} s on {device.name}")
            held = sustained(
                worker, name, device, asked.sustained_dtype, asked.sustained_s,
                engine=engine.name, sensors=find_sensors(),
            )  # fmt: skip
            found.sustained[device.key] = held
            found.ceilings.append(held.ceiling)
    return name


def _kinds(device: Device, peers: dict[str, str]) -> list[tuple[str, str, dict[str, Any]]]:
    """Return (kind of the probe, name of the ceiling, what the kind asks for)."""
    large = {"bytes": PROBE_BYTES, "repeats": REPEATS}
    link = {"bytes": LINK_BYTES, "repeats": REPEATS}
    kinds: list[tuple[str, str, dict[str, Any]]] = [
        ("read_bandwidth", "read_bandwidth", large | {"repeats": IDLE_PROBES}),
        ("copy_bandwidth", "copy_bandwidth", large),
    ]
    if device.backend != "cpu":  # whose memory is the host's
        kinds += [(kind, kind, link) for kind in ("host_to_device", "device_to_host")]
    kinds += [
        ("device_to_device", f"device_to_device:{key}", link | {"peer": peer}) for key, peer in peers.items()
    ]
    return kinds
