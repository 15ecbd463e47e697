"""Which of an engine's devices is a backend's: never by number, never the wrong one."""

from __future__ import annotations

import random
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from profiler.backends.base import Device
from profiler.backends.match import EngineDevice, find_engine_device, misplaced
from profiler.backends.visible import cuda_visible

ZEROS = "GPU-00000000-0000-0000-0000-000000000000"
UUIDS = [f"GPU-{digit * 8}-1111-2222-3333-444444444444" for digit in "abcd"]
PCI = [f"0000:{bus:02x}:00.0" for bus in (0x17, 0x3D, 0x60, 0x70)]
CPU = {"device": "cpu", "name": "CPU", "uuid": None, "pci_address": None}


def entry(name: str, uuid: str | None = None, pci: str | None = None) -> dict[str, Any]:
    return {"device": name, "name": name, "uuid": uuid, "pci_address": pci}


def gpu(at: int, backend: str = "cuda", **changes: Any) -> Device:
    device = Device(UUIDS[at], backend, at, "A GPU", 1, uuid=UUIDS[at], pci_address=PCI[at])
    return replace(device, **changes)


def npu(place: int, count: int) -> Device:
    details = {"engine_position": place, "engine_devices": count}
    return Device(PCI[place], "ascend", place, "An NPU", 1, pci_address=PCI[place], details=details)


INSTANCE = gpu(0, uuid="MIG-aaaa", key="MIG-aaaa", details={"mig_parent_uuid": UUIDS[0]})
PARTED = gpu(0, "rocm", uuid="GPU-a1", details={"partition_uuids": ["GPU-a1", "GPU-a2"]})


@pytest.mark.parametrize(
    ("device", "entries", "expected"),
    [
        (gpu(0, "cpu"), [], EngineDevice("cpu", "kind")),
        (gpu(1), [entry("cuda:0", UUIDS[1], PCI[1])], EngineDevice("cuda:0", "uuid")),
        (gpu(1), [entry("cuda:0", UUIDS[1][4:].upper())], EngineDevice("cuda:0", "uuid")),
        (gpu(1), [entry("cuda:0", None, PCI[0]), entry("cuda:1", None, PCI[1])],
         EngineDevice("cuda:1", "pci_address")),
        (gpu(1), [entry("cuda:0", None, "00000000:3D:00.0")], EngineDevice("cuda:0", "pci_address")),
        # UUIDs that tell nothing: zeros, and one for all.
        (gpu(1), [entry("cuda:0", ZEROS, PCI[1])], EngineDevice("cuda:0", "pci_address")),
        (gpu(1), [entry("cuda:0", UUIDS[1], PCI[0]), entry("cuda:1", UUIDS[1], PCI[1])],
         EngineDevice("cuda:1", "pci_address")),
        # ROCm's PyTorch calls its GPUs cuda, Ascend's has npu.
        (gpu(1, "rocm"), [entry("cuda:3", None, PCI[1])], EngineDevice("cuda:3", "pci_address")),
        (INSTANCE, [entry("cuda:0", "GPU-aaaa", PCI[0])], EngineDevice("cuda:0", "uuid")),
        (npu(1, 2), [CPU, entry("npu:0"), entry("npu:1")], EngineDevice("npu:1", "position")),
        (npu(0, 2), [entry("npu:0", ZEROS), entry("npu:1", ZEROS)], EngineDevice("npu:0", "position")),
        (npu(1, 2), [entry("npu:0", None, PCI[1])], EngineDevice("npu:0", "pci_address")),
        # A family that this package does not know: whatever is at the address.
        (gpu(1, "other"), [CPU, entry("xpu:0", None, PCI[1])], EngineDevice("xpu:0", "pci_address")),
    ],
)  # fmt: skip
def test_recognised(device: Device, entries: list[dict[str, Any]], expected: EngineDevice) -> None:
    assert find_engine_device(device, entries) == expected


@pytest.mark.parametrize(
    ("device", "entries", "words"),
    [
        (gpu(1), [CPU], "has only cpu"),
        (gpu(1), [CPU, entry("npu:0", UUIDS[1], PCI[1])], "has only cpu, npu:0"),
        (gpu(1), [CPU, entry("cuda:0")], "has only cpu, cuda:0"),
        (gpu(1), [entry("cuda:0", UUIDS[0], PCI[0])], "has only cuda:0"),
        # At the same address, but another device: what is left of a GPU that is split.
        (gpu(0), [entry("cuda:0", "MIG-ffff", PCI[0])], "another part of that GPU"),
        (INSTANCE, [entry("cuda:0", "MIG-bbbb", PCI[0])], "CUDA_VISIBLE_DEVICES=MIG-aaaa"),
        (INSTANCE, [entry("cuda:0", None, PCI[0])], "CUDA_VISIBLE_DEVICES=MIG-aaaa"),
        (PARTED, [entry("cuda:0", "GPU-a1", PCI[0]), entry("cuda:1", "GPU-a2", PCI[0])],
         "ROCR_VISIBLE_DEVICES"),
        (PARTED, [entry("cuda:0", None, PCI[0]), entry("cuda:1", None, PCI[0])], "sees cuda:0, cuda:1"),
        (npu(1, 2), [entry("npu:0"), entry("npu:1"), entry("npu:2")], "sees 3 such devices where aiprof"),
        # The engine does tell addresses, and this one is not among them.
        (npu(1, 2), [entry("npu:0", None, PCI[2]), entry("npu:1", None, PCI[3])], "has only npu:0, npu:1"),
    ],
)  # fmt: skip
def test_refused(device: Device, entries: list[dict[str, Any]], words: str) -> None:
    found = find_engine_device(device, entries)
    assert isinstance(found, str)
    assert words in found
    assert "\n" not in found


values = st.one_of(
    st.none(),
    st.text(alphabet="0123-,GPUabcd", max_size=12),
    st.lists(st.sampled_from([*"01234", "-1", *UUIDS, *(uuid[:6] for uuid in UUIDS), ""]), max_size=4).map(
        ",".join
    ),
)


@given(values, st.integers(1, 4), st.sampled_from(["uuid", "pci", "both"]), st.randoms())
def test_what_is_found_is_the_right_one(
    value: str | None, count: int, told: str, order: random.Random
) -> None:
    """CUDA numbers GPUs in an order of its own; whatever the variable says, the wrong one is never found."""
    fastest_first = list(range(count))
    order.shuffle(fastest_first)
    seen = cuda_visible(value, [(UUIDS[at],) for at in fastest_first]).order
    truth = {f"cuda:{number}": fastest_first[position] for number, position in enumerate(seen)}
    entries = [
        entry(name, UUIDS[at] if told != "pci" else None, PCI[at] if told != "uuid" else None)
        for name, at in truth.items()
    ]
    for at in range(count):
        found = find_engine_device(gpu(at), [CPU, *entries])
        if at in truth.values():
            assert isinstance(found, EngineDevice)
            assert truth[found.name] == at
        else:
            assert isinstance(found, str)


GIB = 1 << 30


@pytest.mark.parametrize(
    ("device", "before", "after", "loaded", "wrong"),
    [
        (npu(0, 1), 60 * GIB, 44 * GIB, 16 * GIB, False),
        (npu(0, 1), 60 * GIB, 60 * GIB, 16 * GIB, True),
        (npu(0, 1), 60 * GIB, 58 * GIB, 16 * GIB, True),
        (npu(0, 1), 60 * GIB, 60 * GIB, GIB // 8, False),  # too little to see
        (gpu(0), 60 * GIB, 60 * GIB, 16 * GIB, False),  # known by its UUID
    ],
)
def test_a_model_that_went_elsewhere(
    device: Device, before: int, after: int, loaded: int, wrong: bool
) -> None:
    line = misplaced(device, before, after, loaded)
    assert (line is not None) == wrong
    assert line is None or "VISIBLE_DEVICES" in line


def test_details_may_be_anything() -> None:
    """A backend of another package may leave out or misuse what ours write."""
    details: list[Mapping[str, Any]] = [{}, {"engine_position": True}, {"partition_uuids": "GPU-1"}]
    for one in details:
        assert isinstance(find_engine_device(replace(npu(0, 1), details=one), [entry("npu:0")]), str)
