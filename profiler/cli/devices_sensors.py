"""What can be measured on a device, how well, and why not, for people."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from rich.console import Console
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from profiler.backends.base import Capability, Unavailable
from profiler.render.units import format_bytes, format_seconds
from profiler.sensors.base import SensorInfo
from profiler.sensors.box import ROOTED, sensor_root
from profiler.sensors.health import health_name
from profiler.sensors.survey import Surveyed
from profiler.sensors.throttle import reasons

# What a buyer asks for -> the kinds of sensors that show it, in the order of the capabilities.
_KINDS = {
    "memory": ("memory",),
    "energy": ("energy_counter",),
    "power": ("power_instant", "power_average"),
    "clocks": ("clock",),
    "temperature": ("temperature",),
    "throttling": ("throttle",),
}
_FLAGS = {
    "sensor_disagrees": "counter and power differ",
    "implausible": "shows more power than the limit allows",
    "read_failures": "some reads failed",
}

Row = tuple[str, Text, Text]


def print_sensors(
    console: Console, capabilities: Sequence[Capability], sensors: Sequence[Surveyed], width: int
) -> None:
    """Print one line per sensor that can be read, and one per thing that cannot be measured.

    Args:
        console: where to.
        capabilities: what the backend says of the device.
        sensors: those of the device.
        width: of the first column.
    """
    rows = [row for one in capabilities for row in _rows(one, sensors)]
    # A source of its own may show what no capability names.
    known = {kind for kinds in _KINDS.values() for kind in kinds}
    others = [one for one in sensors if one.info.kind not in known]
    readable = [one for one in others if one.unavailable is None]
    if readable:
        rows.append(("sampled too", Text(""), Text(", ").join(_briefly(one) for one in readable)))
    rows += [sensor_row(one) for one in others if one.unavailable is not None]
    elsewhere = f", by the files in {sensor_root()}" if any(_moved(one) for one in sensors) else ""
    print_rows(console, f"can be measured{elsewhere}", rows, width)


def _moved(one: Surveyed) -> bool:
    """Whether a sensor is a file of another machine."""
    return one.info.simulated and one.info.source in ROOTED and sensor_root() != "/"


def print_rows(console: Console, title: str, rows: Sequence[Row], width: int) -> None:
    """Print a titled list; the same reason twice tells nothing new the second time."""
    table = Table.grid(padding=(0, 2))
    table.add_column(style="cyan", no_wrap=True, min_width=width)
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    first_with: dict[str, str] = {}
    for name, mark, words in rows:
        first = first_with.setdefault(words.plain, name)
        repeated = first != name and mark.plain == "no"
        table.add_row(name, mark, Text(f"as for {first}") if repeated else words)
    console.print(Padding(Text(title, "bold"), (0, 0, 0, 4)))
    console.print(Padding(table, (0, 0, 0, 4)))


def sensor_row(one: Surveyed) -> Row:
    """Return the line of one sensor."""
    name = label(one.info)
    if one.unavailable is not None:
        return name, Text("no", "yellow"), Text(sentence(one.unavailable))
    if one.call_s is None:
        return name, Text("yes", "green"), Text("")
    trouble = one.check is not None and bool(one.check.flags)
    return name, Text("yes", "yellow" if trouble else "green"), _words(one)


def sentence(unavailable: Unavailable) -> str:
    """Return why something cannot be had, and what to do."""
    return (
        unavailable.text.rstrip(".") + "." + (f" To do: {unavailable.remedy}" if unavailable.remedy else "")
    )


def label(info: SensorInfo) -> str:
    """Return the sensor's short name: what it reads, and of which package where there are several."""
    name = info.key.rpartition("/")[2].partition("@")[0].replace("_", " ")
    if info.scope == "platform":
        return f"{name} of the platform"
    package = info.device.removeprefix("cpu-package-")
    return f"{name} {package}" if info.device.startswith("cpu-package-") else name


def _briefly(one: Surveyed) -> Text:
    """Return name and value of a state that no capability names."""
    name, value = label(one.info), one.latest
    if value is None:  # read where a phase of work ends
        return Text(name, "dim")
    if one.info.kind == "health":
        return Text(f"{name} {health_name(int(value))}", "yellow" if value else "dim")
    shown = show(value, one.info.unit)
    of = f" of {one.info.nominal}" if one.info.kind == "link" and one.info.nominal else ""
    return Text(f"{name} {shown}{of}", "dim")


def show(value: float, unit: str) -> str:
    """Return a value of a sensor for people; of an energy counter it is the power."""
    if unit in ("J", "W"):
        return f"{value:.1f} W" if value < 100 else f"{value:,.0f} W"
    if unit == "bytes":
        return format_bytes(value)
    if unit == "Hz":
        return f"{value / 1e9:.2f} GHz"
    if unit == "degC":
        return f"{value:.0f} °C"
    return f"{value:,.0f}"


def _rows(capability: Capability, sensors: Sequence[Surveyed]) -> Iterator[Row]:
    own = [one for one in sensors if one.info.kind in _KINDS[capability.name]]
    readable = [one for one in own if one.unavailable is None]
    if readable:
        yield from (sensor_row(one) for one in readable)
    elif capability.unavailable is None:
        yield capability.name, Text("yes", "green"), Text(capability.source or "")
    else:
        reasons = [one.unavailable for one in own if one.unavailable is not None]
        words = sentence((reasons or [capability.unavailable])[0])
        if capability.name == "energy" and _has_power(sensors):
            words += " Energy is then the integral of sampled power."
        yield capability.name, Text("no", "yellow"), Text(words)


def _state(info: SensorInfo, value: float) -> str:
    """Return a value in words: of throttling its reasons."""
    if info.unit != "bits":
        return show(value, info.unit)
    given = (code.removeprefix("throttled_") for code in reasons(info.source, int(value)))
    return " and ".join(sorted(given)) or "none"


def _has_power(sensors: Sequence[Surveyed]) -> bool:
    return any(one.info.kind in _KINDS["power"] and one.unavailable is None for one in sensors)


def _words(one: Surveyed) -> Text:
    info = one.info
    parts = [] if one.now is None else [f"{_state(info, one.now)} now"]
    if one.check is not None and one.check.tick_s is not None:
        parts.append(f"new every {format_seconds(one.check.tick_s)}")
    if one.call_s is not None:
        parts.append(f"a read takes {format_seconds(one.call_s)}")
    text = Text(", ".join(parts))
    accuracy = one.accuracy()
    if accuracy:
        text.append("; " if parts else "").append(accuracy, "bold")
    if one.check is not None:
        ratio = one.check.counter_to_power
        if ratio is not None and "sensor_disagrees" not in one.check.flags:
            text.append("; agrees with its power reading")
        for flag in one.check.flags:
            times = f" by a factor of {ratio:.2g}" if flag == "sensor_disagrees" and ratio else ""
            text.append(f"; {_FLAGS.get(flag, flag)}{times}", "yellow")
    if info.note:
        text.append(f" ({info.note})", "dim")
    return text
