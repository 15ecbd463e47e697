"""The catalogue of accelerators: what drivers say is found, and every number has a source."""

from __future__ import annotations

from pathlib import Path

import pytest

from profiler.errors import InputFileError, UsageError
from profiler.hardware.catalogue import ENTRIES, catalogue, find_hardware, get_hardware, with_user_files
from profiler.hardware.part import Hardware, Sourced

PARTS = list(catalogue().values())
OWN = """
sources:
  offer: {name: offer of the dealer, licence: facts only, date: "2026-05-01"}
parts:
  - name: box-9000
    title: Box 9000
    vendor: Somebody
    kind: npu
    driver_names: [Box(R) 9000]
    source: offer
    confidence: low
    memory: {value: 64, unit: GB}
    memory_bandwidth: {value: 1.2, unit: TB/s}
    flops: {bf16: {value: 300, unit: TFLOP/s}}
    unknown: {tdp: not in the offer, links: not in the offer}
"""


@pytest.mark.parametrize(
    ("reported", "name"),
    [
        ("NVIDIA H100 80GB HBM3", "h100-sxm"),
        ("NVIDIA H100 PCIe", "h100-pcie"),
        ("NVIDIA H100 NVL", "h100-nvl"),
        ("NVIDIA A100-SXM4-40GB", "a100-sxm-40gb"),
        ("NVIDIA A100-SXM4-80GB", "a100-sxm"),
        ("NVIDIA H200", "h200"),
        ("NVIDIA GH200 480GB", "gh200"),
        ("Tesla T4", "t4"),
        ("AMD Instinct MI300X", "mi300x"),
        ("amd instinct mi300x oam", "mi300x"),
        ("Ascend910B3", "ascend-910b3"),
        ("Intel(R) Data Center GPU Max 1550", "max-1550"),
        ("K100_AI", "dcu-k100-ai"),
    ],
)
def test_names_that_drivers_report(reported: str, name: str) -> None:
    found = find_hardware(reported)
    assert found is not None
    assert found.name == name


@pytest.mark.parametrize("reported", ["NVIDIA H100", "NVIDIA H100 80GB", "MI300", "", "Ascend910B5", "EPYC"])
def test_a_variant_that_is_not_there_is_not_taken_for_another(reported: str) -> None:
    assert find_hardware(reported) is None


def test_a_name_belongs_to_one_part_only() -> None:
    seen: dict[str, str] = {}
    for part in PARTS:
        for name in (part.name, *part.aliases):
            assert seen.setdefault(name, part.name) == part.name, name
    drivers: dict[str, str] = {}
    for part in PARTS:
        for name in part.driver_names:
            assert drivers.setdefault(name.lower(), part.name) == part.name, name


@pytest.mark.parametrize("spelling", ["H100-SXM", "h100", "H100 SXM", "NVIDIA H100 80GB HBM3"])
def test_what_a_user_may_type(spelling: str) -> None:
    assert get_hardware(spelling).name == "h100-sxm"


def test_an_unknown_name_says_the_nearest() -> None:
    with pytest.raises(UsageError, match=r"unknown hardware 'mi300'; did you mean 'mi300[ax]'\?"):
        get_hardware("mi300")


def figures(part: Hardware) -> list[Sourced]:
    single = (part.memory_bytes, part.memory_bandwidth_bytes_per_s, part.tdp_w)
    links = (link.both_directions_bytes_per_s for link in part.links)
    return [value for value in (*single, *part.flops.values(), *links) if value is not None]


@pytest.mark.parametrize("part", PARTS, ids=lambda part: part.name)
def test_every_number_has_a_source_and_every_gap_a_reason(part: Hardware) -> None:
    assert figures(part) or part.unknown
    for value in figures(part):
        assert value.source
        assert value.origin.licence
        assert value.date
        assert value.value > 0
    fields: tuple[tuple[str, object], ...] = (
        ("memory", part.memory_bytes),
        ("memory_bandwidth", part.memory_bandwidth_bytes_per_s),
        ("tdp", part.tdp_w),
        ("flops", part.flops),
        ("links", part.links),
    )
    for field, known in fields:
        assert bool(known) != (field in part.unknown)


def test_figures_against_the_vendors_datasheets() -> None:
    """H100 SXM (NVIDIA datasheet 2025), MI300X (AMD datasheet 2023), by hand."""
    h100, mi300x = get_hardware("h100-sxm"), get_hardware("mi300x")
    assert h100.memory_bandwidth_bytes_per_s is not None
    assert h100.memory_bandwidth_bytes_per_s.value == 3.35e12
    assert h100.flops["bf16"].value == pytest.approx(989.4e12, rel=1e-3)
    assert h100.links[0].one_direction_bytes_per_s == 450e9
    assert mi300x.memory_bytes is not None
    assert mi300x.memory_bytes.value == 192e9
    assert mi300x.flops["fp8"].value == 2614.9e12
    assert mi300x.tdp_w is not None
    assert mi300x.tdp_w.value == 750


def test_what_vendors_keep_to_themselves_stays_unknown() -> None:
    ppu = get_hardware("ppu")
    assert ppu.memory_bandwidth_bytes_per_s is None
    assert ppu.why_unknown("memory_bandwidth") == "bandwidth unpublished"
    assert ppu.memory_bytes is not None
    assert "FP8" in get_hardware("a100").why_no_flops("fp8")


def test_cc_by_files_carry_the_attribution() -> None:
    for path in ENTRIES.glob("*.yaml"):
        text = path.read_text()
        assert ("CC-BY-4.0" in text) == ('Epoch AI, "Data on Machine Learning Hardware"' in text), path.name


def test_a_part_of_the_user(tmp_path: Path) -> None:
    (tmp_path / "own.yaml").write_text(OWN)
    for given in (tmp_path, tmp_path / "own.yaml"):
        parts = with_user_files([given])
        part = get_hardware("Box-9000", parts)
        assert not part.shipped
        assert part.memory_bandwidth_bytes_per_s is not None
        assert part.memory_bandwidth_bytes_per_s.value == 1.2e12
        assert find_hardware("Box 9000", parts) == part
    assert "box-9000" not in catalogue()


def test_a_part_of_the_user_wins(tmp_path: Path) -> None:
    (tmp_path / "own.yaml").write_text(OWN.replace("box-9000", "h100-sxm"))
    assert get_hardware("h100-sxm", with_user_files([tmp_path])).vendor == "Somebody"


@pytest.mark.parametrize(
    ("before", "after", "fault"),
    [
        ("source: offer", "source: rumour", "source 'rumour', which is not under sources"),
        ("unknown: {tdp: not in the offer, ", "unknown: {", "give either tdp or unknown.tdp"),
        ("unit: GB}", "unit: TB/s}", "memory.unit"),
        ("value: 300", "value: -1", "flops.bf16.value"),
        ("flops: {bf16", "lacks: {bf16: none}\n    flops: {bf16", "stands under flops and under lacks"),
    ],
)
def test_faults_of_a_users_file_are_named(tmp_path: Path, before: str, after: str, fault: str) -> None:
    path = tmp_path / "own.yaml"
    assert before in OWN
    path.write_text(OWN.replace(before, after, 1))
    with pytest.raises(InputFileError) as caught:
        with_user_files([path])
    assert fault in str(caught.value)
    assert str(path) in str(caught.value)
