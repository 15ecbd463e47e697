from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from profiler.backends.identity import normal_pci, trusted_uuid


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("00000000:17:00.0", "0000:17:00.0"),
        ("0001:C1:1F.7", "0001:c1:1f.7"),
        ("17:00.0", "0000:17:00.0"),
        ("00010000:17:00.0", "10000:17:00.0"),
        ("17:00", None),
        ("cuda:1", None),
        ("", None),
    ],
)
def test_normal_pci(text: str, expected: str | None) -> None:
    assert normal_pci(text) == expected


@given(st.integers(0, 0xFFFFF), st.integers(0, 255), st.integers(0, 31), st.integers(0, 7))
def test_every_spelling_of_an_address_is_the_same(domain: int, bus: int, device: int, function: int) -> None:
    nvml = f"{domain:08X}:{bus:02X}:{device:02X}.{function}"
    kernel = f"{domain:04x}:{bus:02x}:{device:02x}.{function}"
    assert normal_pci(nvml) == normal_pci(kernel) == kernel


def test_trusted_uuid() -> None:
    assert trusted_uuid("GPU-1", ["GPU-1", "GPU-2", None]) == ("GPU-1", None)
    for uuid, others, word in (
        (None, [None], "no UUID"),
        ("", [""], "no UUID"),
        ("GPU-0000-00", ["GPU-0000-00"], "all-zero"),
        ("MIG-0000", ["MIG-0000"], "all-zero"),
        ("GPU-1", ["GPU-1", "GPU-1"], "several"),
    ):
        rejected, note = trusted_uuid(uuid, others)
        assert rejected is None
        assert note is not None
        assert word in note


@pytest.mark.parametrize("uuid", ["GPU-0000-00", "MIG-0000", "ACME-0000-0000", "0000-0000", "NPU-"])
def test_no_vendors_prefix_makes_zeros_an_identity(uuid: str) -> None:
    assert trusted_uuid(uuid, [uuid])[0] is None


@pytest.mark.parametrize("uuid", ["GPU-000a", "ACME-0010", "abcd-ef00"])
def test_anything_else_is_one(uuid: str) -> None:
    assert trusted_uuid(uuid, [uuid]) == (uuid, None)
