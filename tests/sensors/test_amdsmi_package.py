"""AMD sensors through the unmodified package ``amdsmi``, which loads a library without a GPU.

The package binds every function of the library when it is imported; those that the fake does not have come
from the package's own list and answer NOT_SUPPORTED, so that this follows its versions.
"""

from __future__ import annotations

import importlib.util
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import machines
import pytest
from fakes.power import FAKES, Profile, compile_fake

PACKAGE = importlib.util.find_spec("amdsmi")
pytestmark = pytest.mark.skipif(PACKAGE is None, reason="needs the package amdsmi (pip install amdsmi)")

BURSTS = Profile([(0.0, 140.0), (0.9, 650.0), (1.6, 300.0)])
WINDOW = (0.3, 1.9)
FIRST, SECOND, THIRD = (f"amdsmi:GPU-{number:016x}" for number in (1, 2, 3))
Build = Callable[..., Path]


@pytest.fixture(scope="module")
def build(tmp_path_factory: pytest.TempPathFactory) -> Build:
    """``build(without)``: a folder that ROCM_PATH may name, whose library lacks the functions ``without``."""
    assert PACKAGE is not None
    assert PACKAGE.origin is not None
    wrapper = Path(PACKAGE.origin).with_name("amdsmi_wrapper.py").read_text()
    bound = set(re.findall(r"_libraries\['libamd_smi.so'\]\.(\w+)", wrapper))
    there = set(re.findall(r"^int (\w+)\(", (FAKES / "fake_amd_smi.c").read_text(), re.MULTILINE))
    assert there & bound

    def folder(*without: str) -> Path:
        root = tmp_path_factory.mktemp("rocm")
        stubs = sorted(bound - there - set(without))
        (root / "stubs.inc").write_text("".join(f"int {name}(void) {{ return 2; }}\n" for name in stubs))
        made = compile_fake(
            "fake_amd_smi.c", root / "lib" / "libamd_smi.so", f'-DSTUBS="{root / "stubs.inc"}"'
        )
        if made is None:
            pytest.skip("the fake library needs a C compiler (cc or gcc)")
        return root

    return folder


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("amd")
    for card, bus in enumerate(("c1", "c6", "c8")):  # whose power only the library shows
        machines.amd_gpu(folder, card, f"0000:{bus}:00.0", f"{card + 1:016x}")
        (folder / f"sys/class/drm/card{card}/device/hwmon/hwmon{card}/power1_average").unlink()
    return folder


def package_environment(rocm: Path) -> dict[str, str]:
    """Find the installed package and not the fake one, and the fake library and not an installed one."""
    assert PACKAGE is not None
    assert PACKAGE.origin is not None
    above = Path(PACKAGE.origin).parent.parent
    tests = FAKES.parent
    return {
        "ROCM_PATH": str(rocm),
        "ROCM_HOME": str(rocm),
        "PYTHONPATH": f"{tests.parent}:{tests}:{above}",
    }


@pytest.fixture(scope="module")
def answers(sensor_run: Any, build: Build, root: Path) -> dict[str, Any]:
    # The library lists the GPUs the other way round; one loses its counter on the way, one is a guest's.
    config = {
        "gpus": 3,
        "0.pci": "0000:c6:00.0", "0.profile": "0:400", "0.error.amdsmi_get_energy_count": "10@1.4",
        "1.pci": "0000:c1:00.0", "1.profile": str(BURSTS), "1.update_ms": 50,
        "2.pci": "0000:c8:00.0", "2.profile": "0:400", "2.update_ms": 20, "2.no_average": 1,
        "2.error.amdsmi_get_energy_count": 2,
    }  # fmt: skip
    found: dict[str, Any] = sensor_run(
        "amdsmi", config, options={"root": str(root)}, seconds=2.2, windows=[WINDOW],
        keys=[f"{FIRST}/energy", f"{SECOND}/energy", f"{THIRD}/socket_power"],
        environment=package_environment(build()),
    )  # fmt: skip
    return found


def test_the_counter_is_that_of_the_gpu_at_the_address_and_in_its_true_unit(answers: dict[str, Any]) -> None:
    (energy,) = answers["energy"][f"{FIRST}/energy"]
    truth = BURSTS.joules(*WINDOW)
    assert abs(energy["joules"] - truth) <= energy["bound_j"] < 0.1 * truth
    (counter,) = [info for info in answers["infos"] if info["key"] == f"{FIRST}/energy"]
    assert counter["scale"] == pytest.approx(15.2588e-6, rel=1e-5)  # and not the package's own 15.3e-6


def test_permission_that_is_taken_away_on_the_way(answers: dict[str, Any]) -> None:
    (energy,) = answers["energy"][f"{SECOND}/energy"]
    assert (energy["joules"], energy["reason"]["code"]) == (None, "permission")


def test_a_guest_without_a_counter_has_the_power_that_is_there(answers: dict[str, Any]) -> None:
    infos = {info["key"]: info for info in answers["infos"]}
    assert infos[f"{THIRD}/energy"]["unavailable"]["code"] == "not_supported_by_device"
    (energy,) = answers["energy"][f"{THIRD}/socket_power"]
    assert energy["joules"] == pytest.approx(400 * (WINDOW[1] - WINDOW[0]), abs=energy["bound_j"])


def test_a_library_that_lacks_a_function_which_the_package_binds(
    sensor_run: Any, build: Build, root: Path
) -> None:
    old = build("amdsmi_get_gpu_revision")
    found = sensor_run(
        "amdsmi", {"gpus": 2}, options={"root": str(root)}, environment=package_environment(old)
    )
    infos = {info["key"]: info for info in found["infos"]}
    why = infos[f"{FIRST}/energy"]["unavailable"]
    assert why["code"] == "library_mismatch"
    assert "amdsmi_get_gpu_revision" in why["text"]


def test_without_its_library_the_package_is_no_crash(sensor_run: Any, root: Path, tmp_path: Path) -> None:
    found = sensor_run("amdsmi", {}, options={"root": str(root)}, environment=package_environment(tmp_path))
    infos = {info["key"]: info for info in found["infos"]}
    assert infos[f"{FIRST}/energy"]["unavailable"]["code"] == "library_mismatch"
    assert infos[f"{FIRST}/temperature"]["unavailable"] is None
