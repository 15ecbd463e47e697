"""What a machine says of itself, under attack: trees of ``/proc`` and ``/sys``, and files about hardware."""

from __future__ import annotations

import atexit
import json
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from unittest import mock

import machines
import yaml
from fuzz_mutations import NASTY_NUMBERS, as_json, damaged_bytes, damaged_document
from fuzz_target import Target, new_folder, through_file
from hypothesis import strategies as st

_WORKER = 4242
_KERNEL_TEXTS = (
    b"0-99999999999",
    b"0-4294967295,7-",
    b"\xc2\xb2",
    b"9" * 5000,
    b"max max",
    b"0 0",
    b"-1",
    b"nan",
    b"1e999",
    b"0x" + b"f" * 40,
    b"\x00" * 64,
    b"N0=\xc2\xb3 kernelpagesize_kB=4",
    b")" * 100,
    b"1 (x) " + b"9" * 30 + b" " * 3 + b"-1 " * 50,
)


def system_trees() -> Target:
    """Files of ``/proc`` and ``/sys``, one or several of them damaged, as every reader of them sees them."""
    whole = {
        name: _files_of(build)
        for name, build in (
            ("intel", _intel_with_worker),
            ("amd", machines.amd_server),
            ("graviton", machines.graviton),
            ("virtual", machines.virtual_machine),
            ("gpus", _gpus),
        )
    }
    # Writing whole trees anew for each input would take most of the time.
    machine = Path(tempfile.mkdtemp(prefix="aiprof-fuzz-"))
    atexit.register(shutil.rmtree, machine, ignore_errors=True)
    texts = damaged_bytes([b"0-7", b"1234", b"a: 1 kB\nb 2"]) | st.sampled_from(_KERNEL_TEXTS)
    numbers = st.sampled_from(NASTY_NUMBERS).map(lambda number: str(number).encode())

    def changes(name: str) -> st.SearchStrategy[tuple[str, dict[str, bytes]]]:
        files = whole[name]
        one = st.sampled_from(sorted(files)).flatmap(
            lambda file: st.tuples(st.just(file), damaged_bytes([files[file]]) | texts | numbers)
        )
        return st.lists(one, min_size=1, max_size=4).map(lambda found: (name, dict(found)))

    def read(case: tuple[str, dict[str, bytes]]) -> None:
        name, changed = case
        root = machine / name
        if not root.exists():
            _write(root, whole[name])
        try:
            _write(root, changed)
            _look(root)
        finally:
            _write(root, {file: whole[name][file] for file in changed})

    return Target(st.sampled_from(sorted(whole)).flatmap(changes), read, ())


def _write(root: Path, files: Mapping[str, bytes]) -> None:
    for file, content in files.items():
        (root / file).parent.mkdir(parents=True, exist_ok=True)
        (root / file).write_bytes(content)


def _files_of(build: Any) -> dict[str, bytes]:
    with new_folder() as root:
        build(root)
        return {str(path.relative_to(root)): path.read_bytes() for path in root.rglob("*") if path.is_file()}


def _intel_with_worker(root: Path) -> Path:
    """A server with a process to be watched, control groups, perf's counters and two NUMA nodes."""
    machines.intel_server(root)
    stat = f"{_WORKER} (python) S 1 " + " ".join(["7"] * 48)
    return machines.write(
        root,
        {
            "/proc/stat": "cpu  1 2 3 4 5 6 7 8 9 10\n"
            + "\n".join(f"cpu{cpu} 1 2 3 4 5 6 7 8 9 10" for cpu in range(8)),
            "/proc/vmstat": "pswpin 3\npswpout 4\noom_kill 0",
            f"/proc/{_WORKER}/status": "Name:\tpython\nCpus_allowed_list:\t0-7\nTracerPid:\t0",
            f"/proc/{_WORKER}/stat": stat,
            f"/proc/{_WORKER}/task/{_WORKER}/stat": stat,
            f"/proc/{_WORKER}/task/{_WORKER}/children": "",
            f"/proc/{_WORKER}/cgroup": "0::/user.slice/session.scope",
            f"/proc/{_WORKER}/numa_maps": "7f00 default anon=5 N0=3 N1=2 kernelpagesize_kB=4",
            "/sys/fs/cgroup/user.slice/session.scope/cpu.max": "200000 100000",
            "/sys/fs/cgroup/user.slice/session.scope/cpu.stat": "nr_periods 5\nnr_throttled 2\n"
            "throttled_usec 77",
            "/sys/fs/cgroup/user.slice/session.scope/memory.max": "1073741824",
            "/sys/fs/cgroup/user.slice/session.scope/memory.current": "1048576",
            "/sys/fs/cgroup/user.slice/session.scope/memory.stat": "inactive_file 4096",
            "/sys/devices/system/node/has_memory": "0-1",
            "/sys/devices/system/clocksource/clocksource0/current_clocksource": "tsc",
            "/sys/bus/event_source/devices/power/type": "9",
            "/sys/bus/event_source/devices/power/cpumask": "0,2",
            "/sys/bus/event_source/devices/power/events/energy-pkg": "event=0x02",
            "/sys/bus/event_source/devices/power/events/energy-pkg.scale": "2.3283064365386962890625e-10",
        },
    )


def _gpus(root: Path) -> Path:
    machines.amd_server(root)
    for card, pci in enumerate(("0000:c1:00.0", "0000:c2:00.0")):
        machines.amd_gpu(root, card, pci, f"{card + 1:016x}", node=card + 1)
    return root


def _look(root: Path) -> None:
    """Read everything that aiprof reads below a root."""
    from profiler.backends.cpu import CpuBackend
    from profiler.backends.rocm import RocmBackend
    from profiler.backends.tree import Tree
    from profiler.measure.box_state import read_box_state
    from profiler.measure.numa import remote_share
    from profiler.sensors.amd_sensors import AmdSensors
    from profiler.sensors.cpu_sensors import CpuSensors
    from profiler.sensors.rapl_sensors import RaplSensors

    tree = Tree(root)
    for backend in (CpuBackend(root), RocmBackend(root, {})):
        report = backend.report()
        json.dumps([dict(device.details) for device in report.devices])
        for device in report.devices:
            backend.memory(device)
    read_box_state(tree, _WORKER, _WORKER)
    remote_share(tree, _WORKER)
    for source in (CpuSensors(str(root)), RaplSensors(str(root)), AmdSensors(str(root))):
        keys = [info.key for info in source.probe() if info.unavailable is None]
        for found in source.open(keys).values():
            if callable(found):
                found()


def hardware_files() -> Target:
    """A user's own parts in YAML, looked up, matched and shown as JSON."""
    from profiler.cli import hardware as command
    from profiler.hardware import catalogue
    from profiler.hardware.catalogue import ENTRIES, find_hardware, get_hardware, with_user_files

    # The small files of the catalogue: a damaged one is read again for each input.
    paths = [path for path in sorted(ENTRIES.glob("*.yaml")) if path.stat().st_size < 12_000]
    texts = [path.read_bytes() for path in paths]
    documents = [json.loads(json.dumps(yaml.safe_load(text), default=str)) for text in texts]

    def read(path: Path) -> None:
        with mock.patch.object(catalogue, "catalogue", dict):
            parts = with_user_files([path])
        for name, part in parts.items():
            get_hardware(name, parts)
            json.dumps(command._as_json(part), allow_nan=False)
            command._everything(part)
        command._overview(parts.values())
        find_hardware("NVIDIA H100 80GB HBM3", parts)

    inputs = damaged_bytes(texts) | damaged_document(documents).map(as_json)
    return Target(inputs, through_file("parts.yaml", read))
