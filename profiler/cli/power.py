"""``aiprof power``: live power of this box, or a recording of it."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from profiler.sensors.power_watch import PowerWatch
    from profiler.sensors.recording_writer import RecordingWriter
    from profiler.sensors.sampler import Sampler

_REFRESH_S = 0.5
# How often a recording is written to disk; what is not yet written is lost in a crash.
_WRITE_S = 10.0


@click.command("power")
@click.option("--watch", is_flag=True, help="Show power, clocks and temperatures live (the default).")
@click.option(
    "--record",
    type=click.Path(dir_okay=False, path_type=Path),
    metavar="FILE",
    help="Write every read to FILE (Parquet), to be joined by clock with a run on another machine.",
)
@click.option(
    "--seconds", type=click.FloatRange(min=0.5), metavar="N", help="End after N seconds instead of at Ctrl-C."
)
@click.option(
    "--json", "as_json", is_flag=True, help="Write the summary as JSON in base units; nothing live."
)
def command(watch: bool, record: Path | None, seconds: float | None, as_json: bool) -> None:
    """Show or record the power, clocks and temperatures of this box.

    Ctrl-C ends it with a summary: mean, highest second and energy with its bound, for each device.

    Exits with 4 when no power can be read.
    """
    from profiler.backends.discover import discover
    from profiler.cli.power_view import live_view, print_summary, summary
    from profiler.sensors.box import find_sensors
    from profiler.sensors.power_watch import PowerWatch, lines_of
    from profiler.sensors.sampler import Sampler

    devices = [device for report in discover() for device in report.devices if report.backend != "fake"]
    box = find_sensors()
    lines = lines_of(box.infos, devices)
    if not lines:
        raise _nothing(box.infos)
    infos = [info for info in box.infos if info.unavailable is None and info.poll_hz > 0]
    live = (watch or record is None) and not as_json
    with Sampler(infos, box.options, history_s=2000) as sampler, _recording(record, infos) as writer:
        follow = PowerWatch(sampler, lines)
        try:
            with live_view(follow, live):
                _follow(follow, sampler, writer, seconds)
        except KeyboardInterrupt:
            click.echo("", err=True)  # the terminal shows ^C on the line of the cursor
        taken_s = follow.finish()
        if writer is not None:
            _write(writer, sampler)
    document = summary(follow, taken_s, record)
    if as_json:
        import json

        click.echo(json.dumps(document, indent=2, allow_nan=False))
    else:
        print_summary(document)


def _write(writer: RecordingWriter, sampler: Sampler) -> None:
    """Hand what is new to the file."""
    for key in writer.keys:
        writer.add(key, sampler.series(key))


def _follow(
    follow: PowerWatch, sampler: Sampler, writer: RecordingWriter | None, seconds: float | None
) -> None:
    """Update until the time is over."""
    wrote = time.monotonic()
    while seconds is None or follow.seconds < seconds:
        left = _REFRESH_S if seconds is None else min(_REFRESH_S, seconds - follow.seconds)
        time.sleep(max(0.0, left))
        follow.update()
        if writer is not None and time.monotonic() - wrote > _WRITE_S:
            _write(writer, sampler)
            wrote = time.monotonic()


@contextmanager
def _recording(path: Path | None, infos: list[Any]) -> Iterator[RecordingWriter | None]:
    if path is None:
        yield None
        return
    from profiler.backends.cpu import CpuBackend
    from profiler.sensors.recording_writer import RecordingWriter

    devices = CpuBackend().report().devices
    with RecordingWriter(path, devices[0].key if devices else "unknown", infos) as writer:
        yield writer


def _nothing(infos: Any) -> Exception:
    from profiler.errors import NothingMeasuredError

    reasons = dict.fromkeys(
        f"{info.source}: {info.unavailable}"
        for info in infos
        if info.unavailable is not None and info.unit in ("J", "W")
    )
    return NothingMeasuredError("\n".join(["no power of this box can be read:", *reasons]))
