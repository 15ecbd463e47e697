from __future__ import annotations

import ssl
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from fakes.power import Profile, RedfishServer

from profiler.backends.base import Unavailable
from profiler.sensors import redfish
from profiler.sensors.base import SensorInfo
from profiler.sensors.redfish import CA, PASSWORD, URL, USER, RedfishSensors
from profiler.sensors.sampler import Sampler

WORK = Profile([(0.0, 400.0), (1.0, 1900.0), (2.0, 420.0)])
METRICS = "/redfish/v1/Chassis/1/EnvironmentMetrics"


@pytest.fixture(autouse=True)
def credentials(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(USER, "aiprof")
    monkeypatch.setenv(PASSWORD, "secret")
    monkeypatch.delenv(URL, raising=False)
    monkeypatch.delenv(CA, raising=False)


@pytest.fixture
def serve() -> Iterator[Any]:
    servers = []

    def start(**options: Any) -> RedfishServer:
        servers.append(RedfishServer(options.pop("profile", WORK), **options))
        return servers[-1]

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


def probed(server: RedfishServer) -> dict[str, SensorInfo]:
    return {info.key: info for info in RedfishSensors(server.url).probe()}


def code(info: SensorInfo) -> str:
    assert info.unavailable is not None
    return info.unavailable.code


def only(source: RedfishSensors) -> str:
    (info,) = source.probe()
    return code(info)


@pytest.mark.parametrize(("schema", "has_energy"), [("old", False), ("new", True), ("both", True)])
def test_both_schemas_are_understood(serve: Any, schema: str, has_energy: bool) -> None:
    sensors = probed(serve(schema=schema))
    assert sensors["redfish:1/power"].unavailable is None
    assert sensors["redfish:1/power"].scope == "wall"
    energy = sensors["redfish:1/energy"]
    assert (energy.unavailable is None) is has_energy
    if not has_energy:
        assert code(energy) == "not_supported_by_device"


def test_energy_and_power_of_a_window(serve: Any) -> None:
    server = serve()
    source = RedfishSensors(server.url)
    with Sampler(source.probe(), {"redfish": source.options()}) as sampler:
        begin_s = time.monotonic() - server.t0_s + 0.6
        time.sleep(max(0.0, server.t0_s + begin_s + 1.8 - time.monotonic()))
        # A controller that a busy machine makes slow needs a longer window.
        for _ in range(20):
            end_s = time.monotonic() - server.t0_s
            window = [round((server.t0_s + moment) * 1e9) for moment in (begin_s, end_s)]
            energies = {key: sampler.energy(key, *window, wait_s=60.0) for key in sampler.infos}
            if energies["redfish:1/energy"].joules is not None:
                break
    truth = WORK.joules(begin_s, end_s)
    for key, energy in energies.items():
        if energy.joules is None:
            assert energy.reason is not None
            assert energy.reason.code == "window_too_short", key
        else:
            assert energy.bound_j is not None
            assert abs(energy.joules - truth) <= energy.bound_j, key
    assert energies["redfish:1/energy"].joules is not None


def test_null_is_not_0(serve: Any) -> None:
    def null(path: str, document: Any) -> tuple[int, Any, dict[str, str]]:
        if path == METRICS:
            document = {"PowerWatts": {"Reading": None}, "EnergykWh": None}
        return 200, document, {}

    sensors = probed(serve(schema="new", change=null))
    assert {code(info) for info in sensors.values()} == {"not_supported_by_device"}
    # Where the old schema still has a number, that one is taken.
    assert probed(serve(schema="both", change=null))["redfish:1/power"].unavailable is None


def test_a_wrong_password_and_none(serve: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    server = serve(password="other")
    (info,) = RedfishSensors(server.url).probe()
    assert code(info) == "permission"
    assert info.unavailable is not None
    assert PASSWORD in info.unavailable.remedy
    monkeypatch.delenv(PASSWORD)
    assert only(RedfishSensors(server.url)) == "permission"


@pytest.mark.parametrize(
    ("status", "body", "headers"),
    [
        (302, {}, {"Location": "http://127.0.0.1:1/stolen"}),
        (500, {}, {}),
        (200, b"<html>", {}),
        (200, b"[1, 2]", {}),
        (200, b"\xff\xfe", {}),
        (200, b"[" * 100_000, {}),
    ],
)
def test_answers_that_are_no_answers(serve: Any, status: int, body: object, headers: dict[str, str]) -> None:
    server = serve(change=lambda path, document: (status, body, headers))
    assert only(RedfishSensors(server.url)) == "unreadable"


@pytest.mark.parametrize("value", ["NaN", -5, 0, "much"])
def test_numbers_that_cannot_be(serve: Any, value: object) -> None:
    def change(path: str, document: Any) -> tuple[int, Any, dict[str, str]]:
        return 200, {"PowerWatts": {"Reading": value}} if path == METRICS else document, {}

    info = probed(serve(schema="new", change=change))["redfish:1/power"]
    assert code(info) in ("implausible", "unreadable")


@pytest.mark.parametrize("members", [3, {"@odata.id": "/"}, "all", [None, 3], None])
def test_a_list_of_chassis_that_is_none(serve: Any, members: object) -> None:
    def change(path: str, document: Any) -> tuple[int, Any, dict[str, str]]:
        return 200, document | {"Members": members} if "Members" in document else document, {}

    (info,) = RedfishSensors(serve(change=change).url).probe()
    assert code(info) in ("no_sensor", "unreadable")


def test_a_controller_that_hangs(serve: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(redfish, "_TIMEOUT_S", 0.2)

    def hang(path: str, document: Any) -> tuple[int, Any, dict[str, str]]:
        time.sleep(0.6)
        return 200, document, {}

    assert only(RedfishSensors(serve(change=hang).url)) == "timeout"


def test_what_goes_wrong_while_it_is_read_is_no_reading(serve: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """The controller answered when it was looked for; then it does not, in turn, and comes back."""
    wrong: dict[str, Any] = {"now": None}

    def change(path: str, document: Any) -> tuple[int, Any, dict[str, str]]:
        if path != METRICS or wrong["now"] is None:
            return 200, document, {}
        if wrong["now"] == "hangs":
            time.sleep(0.6)
            return 200, document, {}
        status, body, headers = wrong["now"]
        return status, body, headers

    source = RedfishSensors(serve(schema="new", change=change).url)
    key = "redfish:1/power"
    read = source.open([key])[key]
    assert callable(read)
    first = read()
    assert isinstance(first, int)
    assert first > 0
    monkeypatch.setattr(redfish, "_TIMEOUT_S", 0.2)
    for fault, expected in (
        ((200, {"PowerWatts": {"Reading": None}}, {}), "not_supported_by_device"),
        ((401, {}, {}), "permission"),
        ((503, {}, {}), "unreadable"),
        ((200, {"PowerWatts": {"Reading": 0}}, {}), "implausible"),
        ("hangs", "timeout"),
    ):
        wrong["now"] = fault
        answer = read()
        assert isinstance(answer, Unavailable), fault
        assert answer.code == expected
    wrong["now"] = None
    monkeypatch.setattr(redfish, "_TIMEOUT_S", 10.0)
    assert isinstance(read(), int)


def test_links_to_other_machines_are_not_followed(serve: Any) -> None:
    def lead_away(path: str, document: Any) -> tuple[int, Any, dict[str, str]]:
        return 200, {"Chassis": {"@odata.id": "http://10.0.0.1/redfish/v1/Chassis"}}, {}

    assert only(RedfishSensors(serve(change=lead_away).url)) == "unreadable"


@pytest.mark.parametrize("url", ["", "http://bmc.example.org", "ftp://bmc", "bmc"])
def test_an_address_that_must_not_get_a_password(url: str) -> None:
    assert only(RedfishSensors(url)) == "not_configured"


def test_nobody_there() -> None:
    assert only(RedfishSensors("http://127.0.0.1:9")) == "no_device"


def test_secrets_are_not_among_the_options(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(URL, "https://bmc.example.org/")
    assert RedfishSensors().options() == {"url": "https://bmc.example.org"}


def test_a_certificate_of_nobody_is_refused_and_a_trusted_one_taken(
    serve: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    certificate, private = tmp_path / "cert.pem", tmp_path / "key.pem"
    try:
        subprocess.run(
            ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2",
             "-subj", "/CN=localhost", "-addext", "subjectAltName=IP:127.0.0.1",
             "-keyout", str(private), "-out", str(certificate)],
            check=True, capture_output=True,
        )  # fmt: skip
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("making a certificate needs openssl")
    server = serve()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, private)
    server.socket = context.wrap_socket(server.socket, server_side=True)
    source = RedfishSensors(server.url.replace("http:", "https:"))
    (info,) = source.probe()
    assert code(info) == "permission"
    assert info.unavailable is not None
    assert CA in info.unavailable.remedy
    monkeypatch.setenv(CA, str(certificate))
    assert {info.key for info in source.probe()} == {"redfish:1/power", "redfish:1/energy"}
