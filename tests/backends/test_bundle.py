from __future__ import annotations

import json
import tarfile
from pathlib import Path
from typing import Any

import machines
import pytest
from hypothesis import given
from hypothesis import strategies as st

from profiler.backends.bundle import nvml_answers, write_bundle
from profiler.backends.scrub import Scrubber, find_secrets
from profiler.backends.tree import Tree
from profiler.errors import UsageError
from profiler.sensors.nvml import Nvml

UUID = "4c4c4544-0042-3510-8052-b4c04f4d3433"


def contents(path: Path) -> dict[str, str]:
    with tarfile.open(path) as archive:
        members = archive.getmembers()
        assert all((member.uid, member.uname, member.mtime) == (0, "", 0) for member in members)
        return {member.name: archive.extractfile(member).read().decode() for member in members}  # type: ignore[union-attr]


@pytest.fixture
def box(tmp_path: Path) -> Path:
    root = machines.intel_server(tmp_path / "root")
    machines.amd_gpu(root, 1, "0000:c1:00.0", "a1b2c3d4e5f60718", node=1)
    properties = f"simd_count 4\nunique_id {int('a1b2c3d4e5f60718', 16)}\nlocation_id 49408"
    return machines.write(
        root,
        {
            "/etc/hostname": "node17",
            "/sys/class/dmi/id/product_serial": "7XK3Q92",
            "/sys/class/dmi/id/product_uuid": UUID,
            "/sys/class/kfd/kfd/topology/nodes/1/properties": properties,
            "/proc/cpuinfo": machines.processors(
                1, {"model name": "Board of ada on node17", "Serial": "00000000abcd"}
            ),
            "/proc/self/cgroup": f"0::/kubepods/pod{UUID}/{'ab' * 32}",
            "/proc/self/mountinfo": "30 23 0:26 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw\n"
            "31 23 0:27 / /home/ada/secret-project rw - nfs server:/ada rw",
        },
    )


def test_a_bundle_holds_the_facts_and_no_names(box: Path, tmp_path: Path) -> None:
    path = tmp_path / "bundle.tar.gz"
    tree = Tree(box)
    secrets = find_secrets(tree, {"USER": "ada", "HOME": "/home/ada"})
    sizes = write_bundle(path, tree, secrets, {"backends": [{"where": f"/home/ada on node17 {UUID}"}]})
    found = contents(path)
    assert set(found) == {f"aiprof-bundle/{name}" for name in sizes}
    assert {f"aiprof-bundle/{name}": size for name, size in sizes.items()} == {
        name: len(content.encode()) for name, content in found.items()
    }
    everything = "\n".join(found.values())
    for secret in (
        "node17",
        "7XK3Q92",
        UUID,
        machines.MACHINE_ID,
        "00000000abcd",
        "secret-project",
        "ab" * 32,
    ):
        assert secret not in everything
    assert "a1b2c3d4e5f60718" not in everything
    assert str(int("a1b2c3d4e5f60718", 16)) not in everything
    assert "ada " not in everything
    prefix = "aiprof-bundle/files/sys/class"
    assert found[f"{prefix}/powercap/intel-rapl:1/name"] == "package-0\n"
    assert found[f"{prefix}/drm/card1/device/mem_info_vram_total"] == "206158430208\n"
    assert "cgroup2" in found["aiprof-bundle/mounts.txt"]
    for name in ("about", "devices", "versions", "nvml"):
        json.loads(found[f"aiprof-bundle/{name}.json"])


def test_what_could_not_be_read_is_said(box: Path, tmp_path: Path) -> None:
    name = "/sys/class/powercap/intel-rapl:1/energy_uj"
    path = box / name.lstrip("/")
    path.unlink()
    path.symlink_to("/proc/self/mem")  # exists, and fails with EIO when read from the start
    write_bundle(tmp_path / "b.tar.gz", Tree(box), {}, {})
    assert contents(tmp_path / "b.tar.gz")[f"aiprof-bundle/files{name}"].startswith("unreadable: ")


def test_a_bundle_that_cannot_be_written(box: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"--bundle .*cannot be written"):
        write_bundle(tmp_path / "none" / "b.tar.gz", Tree(box), {}, {})


def test_secrets_are_replaced_whole_words_only() -> None:
    scrubber = Scrubber({"vm": "<host name>", "ada": "<user name>", "/home/ada": "<home path>"})
    assert (
        scrubber.scrub("VM vmx /home/ada/x ada adagio") == "<host name> vmx <home path>/x <user name> adagio"
    )


def test_equal_uuids_stay_equal_and_zero_uuids_stay_zero() -> None:
    zero = "GPU-00000000-0000-0000-0000-000000000000"
    text = Scrubber({}).scrub(f"GPU-{UUID} MIG-{UUID.upper()} GPU-{UUID[:-1]}9 {zero} GPU-a1b2c3d4e5f60718")
    assert text == f"GPU-<uuid 1> MIG-<uuid 1> GPU-<uuid 2> {zero} GPU-<uuid 3>"
    assert Scrubber({}).scrub(f"pod{UUID.replace('-', '_')}/{'c0' * 32}") == "pod<uuid 1>/<uuid 2>"


def test_common_names_are_no_secrets(tmp_path: Path) -> None:
    secrets = find_secrets(Tree(machines.write(tmp_path, {"/etc/hostname": "localhost"})), {"USER": "root"})
    assert not {"localhost", "root", "", "/"} & set(secrets)


@given(st.text(max_size=40), st.sampled_from(["ada", "node17.example.org", UUID]), st.text(max_size=40))
def test_no_secret_survives_between_other_words(before: str, secret: str, after: str) -> None:
    scrubbed = Scrubber({"ada": "<user>", "node17.example.org": "<host>"}).scrub(f"{before} {secret} {after}")
    assert f" {secret} " not in scrubbed


def test_nvml_answers_without_a_driver(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "pynvml", None)
    answers: dict[str, Any] = nvml_answers(Nvml())
    assert answers["nvmlDeviceGetCount"]["refused"] == "no_library"
