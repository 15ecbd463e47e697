"""The source ``redfish``: power and energy of the whole machine, as its management controller measures them.

Asked over HTTPS at the address in ``AIPROF_REDFISH_URL``, with ``AIPROF_REDFISH_USER`` and
``AIPROF_REDFISH_PASSWORD``. Certificates are verified; ``AIPROF_REDFISH_CA`` names the file of the authority
that signed the controller's. DMTF's old schema (``Chassis/x/Power``) and new one
(``Chassis/x/EnvironmentMetrics``) are both understood; either may say null. Controllers refresh about once
per second, so this is for windows of half a minute and more.
"""

from __future__ import annotations

import base64
import http.client
import json
import os
import ssl
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Mapping, Sequence
from decimal import Decimal, InvalidOperation
from typing import Any

from profiler.backends.base import Json, Unavailable
from profiler.sensors.base import Read, SensorInfo, missing

URL, USER, PASSWORD, CA = (f"AIPROF_REDFISH_{name}" for name in ("URL", "USER", "PASSWORD", "CA"))
_TIMEOUT_S = 5.0
_POLL_HZ = 2.0
_MAX_BYTES = 4 << 20
_MAX_POWER_W = 50_000.0
_LOOPBACK = ("127.0.0.1", "localhost", "::1")
# place of each quantity: (link in the chassis, path to the number)
_POWER_PLACES: tuple[tuple[str, tuple[str | int, ...]], ...] = (
    ("EnvironmentMetrics", ("PowerWatts", "Reading")),
    ("Power", ("PowerControl", 0, "PowerConsumedWatts")),
)
_ENERGY_PLACES: tuple[tuple[str, tuple[str | int, ...]], ...] = (
    ("EnvironmentMetrics", ("EnergykWh", "Reading")),
)
# Energy is kept in whole milliwatt-hours.
_RAW_PER_KWH = 1_000_000
_JOULES_PER_RAW = 3.6
_RAW_PER_WATT = 1000


class RedfishSensors:
    """Finds and reads a management controller.

    Args:
        url: its address; by default from the environment, as are user and password.
    """

    name = "redfish"

    def __init__(self, url: str | None = None) -> None:
        self._url = (url or os.environ.get(URL, "")).rstrip("/")

    def options(self) -> Mapping[str, Json]:
        """Return the address; secrets stay in the environment."""
        return {"url": self._url or None}

    def probe(self) -> list[SensorInfo]:
        """Return power and energy of every chassis, or why there are none."""
        chassis = self._unusable() or self._chassis()
        if isinstance(chassis, Unavailable):
            return [missing("redfish", chassis, device="wall", scope="wall")]
        sensors = []
        for path, links in chassis:
            name = path.rstrip("/").rpartition("/")[2]
            sensors.append(self._describe(name, links, "power"))
            sensors.append(self._describe(name, links, "energy"))
        found = [info for info in sensors if info.unavailable is None]
        if found:
            return sensors
        return sensors or [
            missing("redfish", Unavailable("no_sensor", "the controller lists no chassis"), scope="wall")
        ]

    def open(self, keys: Sequence[str]) -> dict[str, Read | Unavailable]:
        """Return the reader of each key."""
        chassis = self._unusable() or self._chassis()
        if isinstance(chassis, Unavailable):
            return dict.fromkeys(keys, chassis)
        links_of = {path.rstrip("/").rpartition("/")[2]: links for path, links in chassis}
        readers: dict[str, Read | Unavailable] = {}
        for key in keys:
            name, _, quantity = key.removeprefix("redfish:").rpartition("/")
            if name in links_of:
                readers[key] = self._reader(links_of[name], quantity)[0]
            else:
                readers[key] = Unavailable("lost", f"the controller lists no chassis {name}")
        return readers

    def _unusable(self) -> Unavailable | None:
        parts = urllib.parse.urlsplit(self._url)
        if not self._url:
            return Unavailable(
                "not_configured",
                "no management controller is named",
                f"set {URL}=https://…, {USER} and {PASSWORD} to measure the whole machine",
            )
        if parts.scheme != "https" and not (parts.scheme == "http" and parts.hostname in _LOOPBACK):
            return Unavailable(
                "not_configured", f"{URL} must begin with https://: it is sent a password", f"change {URL}"
            )
        return None

    def _chassis(self) -> list[tuple[str, Mapping[str, str]]] | Unavailable:
        """Return (path, link name -> path) of every chassis that has something to read."""
        root = self._get("/redfish/v1/")
        listed = root if isinstance(root, Unavailable) else self._get(_link(root.get("Chassis")))
        if isinstance(listed, Unavailable):
            return listed
        chassis: list[tuple[str, Mapping[str, str]]] = []
        members = listed.get("Members")
        for member in members if isinstance(members, list) else []:
            path = _link(member)
            one = self._get(path)
            if isinstance(one, Unavailable):
                return one
            links = {name: _link(one.get(name)) for name in ("EnvironmentMetrics", "Power") if one.get(name)}
            if links:
                chassis.append((path, links))
        return chassis

    def _describe(self, name: str, links: Mapping[str, str], quantity: str) -> SensorInfo:
        read, resolution = self._reader(links, quantity)
        first = read()
        energy = quantity == "energy"
        return SensorInfo(
            key=f"redfish:{name}/{quantity}",
            source="redfish",
            device="wall",
            kind="energy_counter" if energy else "power_instant",
            scope="wall",
            unit="J" if energy else "W",
            scale=_JOULES_PER_RAW if energy else 1 / _RAW_PER_WATT,
            poll_hz=_POLL_HZ,
            max_power_w=_MAX_POWER_W,
            resolution=resolution,
            unavailable=first if isinstance(first, Unavailable) else None,
            simulated=urllib.parse.urlsplit(self._url).hostname in _LOOPBACK,
            note="refreshed about once per second; over what it averages is not documented",
        )

    def _reader(self, links: Mapping[str, str], quantity: str) -> tuple[Read, int]:
        """Return a reader of the first place that shows a number, and the number's step in raw units."""
        places = _ENERGY_PLACES if quantity == "energy" else _POWER_PLACES
        factor = _RAW_PER_KWH if quantity == "energy" else _RAW_PER_WATT
        nothing = Unavailable("not_supported_by_device", f"the controller shows no {quantity}")
        refusal = nothing
        for link, steps in places:
            if link not in links:
                continue
            number = self._number(links[link], steps, nothing)
            if isinstance(number, Unavailable):
                refusal = number
                continue
            path, exponent = links[link], number.as_tuple().exponent
            digits = max(0, -exponent) if isinstance(exponent, int) else 0

            def read(path: str = path, steps: tuple[str | int, ...] = steps) -> int | Unavailable:
                value = self._number(path, steps, nothing)
                return value if isinstance(value, Unavailable) else int(value * factor)

            return read, max(1, int(factor / 10**digits))
        return (lambda: refusal), 1

    def _number(self, path: str, steps: tuple[str | int, ...], nothing: Unavailable) -> Decimal | Unavailable:
        value: Any = self._get(path)
        if isinstance(value, Unavailable):
            return value
        for step in steps:
            try:
                value = value[step]
            except (KeyError, IndexError, TypeError):
                return nothing
        if value is None or isinstance(value, bool):
            return nothing
        try:
            number = Decimal(str(value))
        except InvalidOperation:
            return Unavailable("unreadable", "the controller shows something that is no number")
        if not number.is_finite() or number <= 0:
            return Unavailable("implausible", f"the controller shows {number}")
        return number

    def _get(self, path: str) -> Any:
        """Return the JSON object at ``path``, or why not."""
        request = urllib.request.Request(urllib.parse.urljoin(self._url, path or "/redfish/v1/"))
        if urllib.parse.urlsplit(request.full_url).netloc != urllib.parse.urlsplit(self._url).netloc:
            return Unavailable("unreadable", "the controller links to another machine, which is not asked")
        user, password = os.environ.get(USER), os.environ.get(PASSWORD)
        if user is not None and password is not None:
            token = base64.b64encode(f"{user}:{password}".encode()).decode()
            request.add_unredirected_header("Authorization", f"Basic {token}")
        try:
            with _opener().open(request, timeout=_TIMEOUT_S) as answer:
                found = json.loads(answer.read(_MAX_BYTES), parse_float=Decimal)
        except urllib.error.HTTPError as error:
            error.close()
            return _http_refusal(error.code)
        except TimeoutError:
            return Unavailable("timeout", f"the controller did not answer within {_TIMEOUT_S:.0f} s")
        except urllib.error.URLError as error:
            return _network_refusal(error.reason)
        except (OSError, http.client.HTTPException, ValueError, RecursionError) as error:
            return Unavailable("unreadable", f"the controller's answer is unusable ({type(error).__name__})")
        if not isinstance(found, dict):
            return Unavailable("unreadable", "the controller's answer is not what Redfish answers")
        return found


def _link(value: Any) -> str:
    link = value.get("@odata.id") if isinstance(value, dict) else None
    return link if isinstance(link, str) else ""


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    """A redirect could lead the password elsewhere; controllers have no need for one."""

    def redirect_request(self, *arguments: Any, **keywords: Any) -> None:
        return None


def _opener() -> urllib.request.OpenerDirector:
    context = ssl.create_default_context(cafile=os.environ.get(CA))
    # No proxy: the controller is in the same rack.
    return urllib.request.build_opener(
        urllib.request.ProxyHandler({}), urllib.request.HTTPSHandler(context=context), _NoRedirect()
    )


def _http_refusal(status: int) -> Unavailable:
    if status in (401, 403):
        return Unavailable(
            "permission", f"the controller refuses user and password ({status})", f"set {USER} and {PASSWORD}"
        )
    if 300 <= status < 400:
        text = f"the controller sends elsewhere ({status}), which is not followed"
        return Unavailable("unreadable", text, f"set {URL} to the address it should be")
    return Unavailable("unreadable", f"the controller answers with status {status}")


def _network_refusal(reason: object) -> Unavailable:
    if isinstance(reason, ssl.SSLCertVerificationError):
        return Unavailable(
            "permission",
            f"the controller's certificate is not trusted ({reason.verify_message})",
            f"set {CA} to the file of the authority that signed it",
        )
    if isinstance(reason, TimeoutError):
        return Unavailable("timeout", f"the controller did not answer within {_TIMEOUT_S:.0f} s")
    return Unavailable("no_device", f"the controller cannot be reached ({reason})", f"see {URL}")
