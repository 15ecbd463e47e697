from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from machines import amd_gpu, write

from profiler.backends.links import Link, as_json, counted, sentence
from profiler.backends.pcie import generation, pcie_facts
from profiler.backends.rocm import RocmBackend
from profiler.backends.tree import Tree

UUIDS = [f"GPU-{digit * 8}-1111-2222-3333-444444444444" for digit in "abcd"]


def cuda_links(probe_cuda: Any, **config: object) -> list[list[dict[str, Any]]]:
    boxes: dict[str, object] = {"gpus": 3}
    for index in range(3):
        boxes[f"{index}.uuid"], boxes[f"{index}.pci"] = UUIDS[index], f"00000000:{0x17 + index:02X}:00.0"
    answers = probe_cuda(boxes | {key.replace("_", ".", 1): value for key, value in config.items()})
    return [device["details"]["links"] for device in answers["report"]["devices"]]


def test_nvlinks_end_at_gpus_or_switches(probe_cuda: Any) -> None:
    config = {"0_nvlinks": 12, "0_nvlink_peers": "1,2", "1_nvlinks": 18}
    pairs, switched, none = cuda_links(probe_cuda, **config)
    assert [(link["kind"], link["peer"], link["count"], link["generation"]) for link in pairs] == [
        ("nvlink", UUIDS[1], 6, "4"),
        ("nvlink", UUIDS[2], 6, "4"),
    ]
    [link] = switched
    assert (link["peer"], link["count"], link["bandwidth_bytes_per_s"]) == ("switch", 18, 26.562e9)
    assert [(link["kind"], link["peer"], link["path"]) for link in none] == [
        ("pcie", UUIDS[0], "same switch"),
        ("pcie", UUIDS[1], "same switch"),
    ]


def test_a_driver_without_nvlink_functions(probe_cuda: Any) -> None:
    refused = {f"{gpu}_error.nvmlDeviceGetNvLinkState": 13 for gpu in range(3)}
    first = cuda_links(probe_cuda, **refused)[0]
    assert {link["kind"] for link in first} == {"pcie"}


def test_xgmi_from_the_compute_topology(tmp_path: Path) -> None:
    amd_gpu(tmp_path, 0, "0000:05:00.0", "aa", node=1)
    amd_gpu(tmp_path, 1, "0000:26:00.0", "bb", node=2)
    links = "/sys/class/kfd/kfd/topology/nodes/1/io_links"
    write(
        tmp_path,
        {
            f"{links}/0/properties": "type 2\nnode_from 1\nnode_to 0\nmax_bandwidth 64000",
            f"{links}/1/properties": "type 11\nnode_from 1\nnode_to 2\nmax_bandwidth 64000",
            f"{links}/2/properties": "type 77\nnode_from 1\nnode_to 2",
            "/sys/class/drm/card0/device/current_link_speed": "32.0 GT/s PCIe",
            "/sys/class/drm/card0/device/current_link_width": 16,
            "/sys/class/drm/card0/device/sriov_numvfs": 4,
            "/sys/class/drm/card0/device/current_compute_partition": "CPX",
            "/sys/class/drm/card0/device/current_memory_partition": "NPS4",
        },
    )
    first, second = RocmBackend(tmp_path, {}).report().devices
    details: dict[str, Any] = dict(first.details)
    assert [(link["kind"], link["peer"]) for link in details["links"]] == [
        ("pcie", "cpu"),
        ("xgmi", "GPU-00000000000000bb"),
    ]
    assert sentence(details["links"]) == (
        "PCIe to the CPU at 64.0 GB/s; xGMI to GPU-00000000000000bb at 64.0 GB/s"
    )
    assert (details["pcie_generation"], details["pcie_lanes"]) == (5, 16)
    assert details["sriov"] == "split into 4 virtual functions"
    assert (details["compute_partition"], details["memory_partition"]) == ("CPX", "NPS4")
    assert dict(second.details)["links"] == []
    assert dict(second.details)["pcie_lanes"] is None


def test_a_virtual_function_is_told(tmp_path: Path) -> None:
    amd_gpu(tmp_path, 0, "0000:05:00.0", "aa", node=1)
    write(tmp_path, {"/sys/class/drm/card0/device/physfn/vendor": "0x1002"})
    [device] = RocmBackend(tmp_path, {}).report().devices
    assert dict(device.details)["sriov"] == "virtual function"


def test_gpu_device_ordinal_is_pointed_out(tmp_path: Path) -> None:
    amd_gpu(tmp_path, 0, "0000:05:00.0", "aa", node=1)
    facts: dict[str, Any] = dict(RocmBackend(tmp_path, {"GPU_DEVICE_ORDINAL": "0"}).report().facts)
    assert "GPU_DEVICE_ORDINAL" in facts["notes"][0]


@pytest.mark.parametrize(
    ("speed", "expected"),
    [("2.5 GT/s PCIe", 1), ("16.0 GT/s PCIe", 4), ("64.0 GT/s PCIe", 6), ("Unknown", None), (None, None)],
)
def test_generations(speed: str | None, expected: int | None) -> None:
    assert generation(speed) == expected


def test_what_the_kernel_writes_for_no_link(tmp_path: Path) -> None:
    folder = "/sys/bus/pci/devices/0000:01:00.0"
    write(
        tmp_path,
        {
            f"{folder}/current_link_width": 0,
            f"{folder}/max_link_width": 255,
            f"{folder}/current_link_speed": "Unknown",
            f"{folder}/numa_node": -1,
        },
    )
    facts, unknown = pcie_facts(Tree(tmp_path), folder)
    assert {key for key, value in facts.items() if value is None} == {*unknown, "sriov"}
    assert "there is no" in str(unknown["pcie_generation_max"])


def test_equal_links_are_counted() -> None:
    links = counted([Link("hccs", "b"), Link("hccs", "a"), Link("hccs", "b")])
    assert [(link.peer, link.count) for link in links] == [("b", 2), ("a", 1)]
    shown = [one for one in as_json(links) if isinstance(one, dict)]
    assert sentence(shown) == "2 × HCCS to b; HCCS to a"
