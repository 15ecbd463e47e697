from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from profiler import registry
from profiler.backends.base import BackendReport, Device, Unavailable
from profiler.backends.discover import capabilities, discover, select_device
from profiler.errors import NothingMeasuredError, UsageError


def gpu(ordinal: int, uuid: str, pci: str, backend: str = "cuda") -> Device:
    return Device(uuid, backend, ordinal, "H100", 2**36, uuid=uuid, pci_address=pci)


CPU = Device("cpu-0123456789ab", "cpu", 0, "EPYC", 2**35)
FAKE = Device("fake-0", "fake", 0, "simulated device", 2**36, simulated=True)
GPUS = (
    gpu(0, "GPU-aabb0000-1", "0000:17:00.0"),
    gpu(1, "GPU-aacc0000-2", "0000:65:00.0"),
)
NO_DRIVER = Unavailable("no_library", "no NVIDIA driver library found", "install the NVIDIA driver")


def report(backend: str, *devices: Device, why: Unavailable | None = None) -> BackendReport:
    return BackendReport(backend, devices, why, "never run on real hardware")


FULL = [
    report("cuda", *GPUS),
    report("rocm", why=Unavailable("no_device", "no AMD GPU")),
    report("cpu", CPU),
    report("fake", FAKE),
]
PLAIN = [report("cuda", why=NO_DRIVER), report("cpu", CPU), report("fake", FAKE)]


@pytest.mark.parametrize(
    ("selector", "expected"),
    [
        ("cpu", CPU),
        ("cuda", GPUS[0]),
        ("cuda:1", GPUS[1]),
        ("GPU-aabb0000-1", GPUS[0]),
        ("gpu-AACC", GPUS[1]),
        ("aacc", GPUS[1]),
        ("0000:65:00.0", GPUS[1]),
        ("65:00.0", GPUS[1]),
        ("00000000:65:00.0", GPUS[1]),
        ("fake", FAKE),
        ("fake-0", FAKE),
        ("cpu-0123", CPU),
    ],
)
def test_every_way_to_name_a_device(selector: str, expected: Device) -> None:
    assert select_device([selector], FULL) == [expected]


def test_several_selectors_keep_their_order_and_name_each_device_once() -> None:
    assert select_device(["cuda:1", "cpu", "65:00.0"], FULL) == [GPUS[1], CPU]


def test_by_default_the_first_accelerator_then_the_cpu_never_a_fake() -> None:
    assert select_device([], FULL) == [GPUS[0]]
    assert select_device([], PLAIN) == [CPU]
    other = gpu(0, "npu-1", "0000:01:00.0", "ascend")
    assert select_device([], [*PLAIN, report("ascend", other)]) == [other]
    with pytest.raises(NothingMeasuredError, match="no NVIDIA driver library"):
        select_device([], [PLAIN[0], PLAIN[2]])


def test_an_absent_family_says_why_and_what_is_there() -> None:
    with pytest.raises(UsageError) as caught:
        select_device(["cuda"], PLAIN)
    assert str(caught.value) == (
        "--device cuda: no NVIDIA driver library found (install the NVIDIA driver); "
        "devices here: cpu:0 (EPYC)"
    )


@pytest.mark.parametrize(
    ("selector", "words"),
    [
        ("cuda:2", "cuda has only 2 device(s)"),
        ("GPU-aa", "fits several devices, give more digits: GPU-aabb0000-1, GPU-aacc0000-2"),
        ("cuba", "did you mean 'cuda'"),
        ("cuda:x", "fits no device"),
        ("66:00.0", "fits no device"),
        ("", "fits no device"),
    ],
)
def test_what_fits_nothing_is_refused(selector: str, words: str) -> None:
    with pytest.raises(UsageError) as caught:
        select_device([selector], FULL)
    assert words in str(caught.value)
    assert "fake" not in str(caught.value)


def test_all_faults_at_once() -> None:
    with pytest.raises(UsageError) as caught:
        select_device(["cuda:7", "cpu", "tpu"], FULL)
    assert [line.split(":")[0] for line in str(caught.value).splitlines()] == [
        "--device cuda",
        "--device tpu",
    ]


@given(st.text(max_size=12))
def test_any_text_gives_devices_or_a_usage_error(selector: str) -> None:
    try:
        chosen = select_device([selector], FULL)
    except UsageError:
        return
    assert len(chosen) == 1


class Raises:
    name = "foreign"
    verified = "verified on a bench, 2026-01-01"

    def report(self) -> BackendReport:
        raise RuntimeError("segfault\nin the vendor's library")

    def capabilities(self, device: Device) -> None:
        raise RuntimeError("not today")


class Mistaken:
    name = "foreign"

    def report(self) -> None:
        return None


@pytest.mark.parametrize(("backend", "words"), [(Raises, "RuntimeError: segfault"), (Mistaken, "NoneType")])
def test_a_backend_that_fails_is_reported_and_the_others_answer(
    monkeypatch: pytest.MonkeyPatch, backend: type, words: str
) -> None:
    load = registry.load
    monkeypatch.setattr(registry, "names", lambda _group: ["foreign", "fake", "cpu"])
    monkeypatch.setattr(
        registry, "load", lambda group, name: backend() if name == "foreign" else load(group, name)
    )
    foreign, *others = discover()
    assert foreign.unavailable is not None
    assert foreign.unavailable.code == "backend_failed"
    assert words in foreign.unavailable.text
    assert "\n" not in foreign.unavailable.text
    assert [other.backend for other in others] == ["fake", "cpu"]
    assert all(other.devices for other in others)


def test_a_backend_whose_sensors_fail_can_measure_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry, "load", lambda _group, _name: Raises())
    found = capabilities(gpu(0, "npu-1", "0000:01:00.0", "foreign"))
    assert len(found) == 6
    assert all(one.unavailable and one.unavailable.code == "backend_failed" for one in found)


def test_the_built_in_backends_answer_on_this_machine() -> None:
    reports = discover()
    assert [one.backend for one in reports][:5] == ["cuda", "rocm", "ascend", "cpu", "fake"]
    for one in reports:
        assert bool(one.devices) == (one.unavailable is None)
        assert one.verified
    assert all(device.simulated for device in reports[4].devices)
    fake = reports[4].devices[0]
    assert {one.unavailable and one.unavailable.code for one in capabilities(fake)} == {"simulated"}
