"""Energy of loads on other machines: recordings of their sensors, joined with a run by the wall clock.

Each recording holds CLOCK_MONOTONIC and the wall clock of its machine at its beginning and end; a load holds
the wall clock of the machine that asked. How far two wall clocks are apart is not in either: the caller says
how much it can be, and the bound holds what that changes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from profiler.backends.base import Unavailable
from profiler.errors import UsageError
from profiler.results.schema import CaseRecord
from profiler.sensors.base import ENERGY_KINDS, Energy, SensorInfo
from profiler.sensors.recording import Recording

# Parts of one kind on different machines or in different slots; they cover nothing of each other.
_SUMMED = (("devices", ("chip", "board", "module", "socket")), ("CPUs", ("package",)), ("walls", ("wall",)))


@dataclass(frozen=True)
class Part:
    """One sensor of one recording over the window of a case.

    Attributes:
        recording: name of the recording.
        info: of the sensor.
        energy: with the bound that holds the clock error, too.
    """

    recording: str
    info: SensorInfo
    energy: Energy


@dataclass(frozen=True)
class Sum:
    """Energy of all parts of equal scope.

    Attributes:
        what: ``devices``, ``CPUs`` or ``walls``.
        scope: of all of them.
        joules: None with a ``reason``.
        bound_j: sum of the bounds.
        per_token_j: over the output tokens of all successful requests, or None.
        parts: how many were added.
        reason: why there is no sum.
    """

    what: str
    scope: str
    joules: float | None
    bound_j: float | None
    per_token_j: float | None
    parts: int
    reason: Unavailable | None = None


@dataclass(frozen=True)
class Joined:
    """A case with its energies.

    Attributes:
        case: of the run.
        seconds: length of the window.
        tokens: output tokens in it, or None.
        parts: every sensor that counts.
        sums: by what they cover.
        notes: codes of what limits all of it: ``clock_changed``.
        reason: why nothing could be joined, or None.
    """

    case: CaseRecord
    seconds: float
    tokens: int | None
    parts: tuple[Part, ...] = ()
    sums: tuple[Sum, ...] = ()
    notes: tuple[str, ...] = field(default=())
    reason: Unavailable | None = None


def join(
    cases: Sequence[CaseRecord], recordings: Sequence[tuple[str, Recording]], clock_error_s: float
) -> list[Joined]:
    """Return the energies of every load among the cases.

    Args:
        cases: of a run.
        recordings: with a name each.
        clock_error_s: how far the wall clocks of two machines may be apart.

    Raises:
        UsageError: there is no load in the run, or two recordings hold the same sensor of the same box.
    """
    loads = [case for case in cases if case.served is not None]
    if not loads:
        raise UsageError("the run holds no load: `aiprof energy` joins loads made with `aiprof load`")
    _refuse_twice(recordings)
    return [_joined(case, recordings, clock_error_s) for case in loads]


def _refuse_twice(recordings: Sequence[tuple[str, Recording]]) -> None:
    owner: dict[tuple[str, str], str] = {}
    for name, recording in recordings:
        for info in _meters(recording):
            place = (recording.header.box, info.key)
            if place in owner:
                raise UsageError(
                    f"{owner[place]} and {name} both hold {info.key} of the same box: leave one out, "
                    "or it would count twice"
                )
            owner[place] = name


def _joined(case: CaseRecord, recordings: Sequence[tuple[str, Recording]], clock_error_s: float) -> Joined:
    served = case.served
    assert served is not None
    began_s, ended_s = served.began_realtime_s, served.ended_realtime_s
    if case.status != "ok" or began_s is None or ended_s is None:
        text = "the case has no window on the wall clock: it failed, or an older aiprof recorded it"
        return Joined(case, 0.0, None, reason=Unavailable("window_not_covered", text, "repeat the load"))
    began, ended = round(began_s * 1e9), round(ended_s * 1e9)
    rate = case.measurements["output_tokens_per_s"].value
    tokens = None if rate is None or served.duration_s is None else round(rate * served.duration_s)
    shift_ns = round(clock_error_s * 1e9)
    parts = [
        Part(name, info, _energy(recording, info, began, ended, shift_ns))
        for name, recording in recordings
        for info in _meters(recording)
    ]
    changed = served.duration_s is not None and abs((ended - began) - served.duration_s * 1e9) > max(
        shift_ns, 0.1 * served.duration_s * 1e9
    )
    changed = changed or any(abs(one.clock_drift_ns()) > shift_ns for _, one in recordings)
    notes = ("clock_changed",) if changed else ()
    return Joined(case, (ended - began) * 1e-9, tokens, tuple(parts), _sums(parts, tokens), notes)


def _meters(recording: Recording) -> list[SensorInfo]:
    """Return the best sensor of each part of the box: a counter, else power."""
    found: dict[tuple[str, str], SensorInfo] = {}
    for kind in ENERGY_KINDS:
        for info in recording.header.sensors:
            if info.kind == kind and info.unavailable is None:
                found.setdefault((info.device, info.scope), info)
    return list(found.values())


def _energy(recording: Recording, info: SensorInfo, began: int, ended: int, shift_ns: int) -> Energy:
    """Return the energy over a window of the wall clock; moved by the clock error it may be another."""
    found = [
        recording.energy(
            info.key, recording.monotonic_ns(began + moved), recording.monotonic_ns(ended + moved)
        )
        for moved in (0, -shift_ns, shift_ns)
    ]
    middle = found[0]
    if middle.joules is None or middle.bound_j is None:
        return middle
    missing = next((one for one in found if one.joules is None), None)
    if missing is not None:
        return replace(middle, joules=None, bound_j=None, method="none", reason=missing.reason)
    apart = max(abs((one.joules or 0.0) - middle.joules) for one in found)
    return replace(middle, bound_j=middle.bound_j + apart)


def _sums(parts: Sequence[Part], tokens: int | None) -> tuple[Sum, ...]:
    sums = []
    for what, scopes in _SUMMED:
        own = [part for part in parts if part.info.scope in scopes]
        if not own:
            continue
        found = sorted({part.info.scope for part in own})
        reason = next((part.energy.reason for part in own if part.energy.reason is not None), None)
        if len(found) > 1:
            text = f"{' and '.join(found)} cover different things and are not added"
            reason = Unavailable("overlaps", text)
        if reason is not None:
            sums.append(Sum(what, "+".join(found), None, None, None, len(own), reason))
            continue
        joules = sum(part.energy.joules or 0.0 for part in own)
        bound = sum(part.energy.bound_j or 0.0 for part in own)
        sums.append(Sum(what, found[0], joules, bound, joules / tokens if tokens else None, len(own)))
    return tuple(sums)
