"""What the bits say that a device gives as reasons for running slower than it could.

NVML: ``nvmlClocksEventReason…`` of ``nvml.h``. Reasons that mean nothing for a measurement (idle, clocks
set by an application or for a display, synchronous boost) are left out.

AMD: ``indep_throttle_status`` of ``gpu_metrics``, whose bits are ``SMU_THROTTLER_…`` of ``amdgpu_smu.h``:
power from 0, currents from 16, temperatures (also of regulators, and what they signal) from 32, others from
56.
"""

from __future__ import annotations

from typing import Final

THERMAL: Final = "throttled_thermal"
POWER: Final = "throttled_power"
HARDWARE: Final = "throttled_hardware"

_REASONS: Final[dict[str, dict[int, str]]] = {
    "nvml": {
        0x04: POWER,  # software power cap: the power limit
        0x08: HARDWARE,  # hardware slowdown, cause not told
        0x20: THERMAL,  # software thermal slowdown
        0x40: THERMAL,  # hardware thermal slowdown
        0x80: POWER,  # power brake by the box
    },
    "amdsmi": {
        **{1 << bit: POWER for bit in (*range(8), *range(16, 24))},
        **{1 << bit: THERMAL for bit in range(32, 48)},
        **{1 << bit: HARDWARE for bit in (56, 57)},
    },
}
# Bits that say more precisely why bit 0x08 is set.
_PRECISE = 0x40 | 0x80


def reasons(source: str, bits: int) -> frozenset[str]:
    """Return the flag codes that the reasons in ``bits`` stand for.

    Args:
        source: whose bits they are; those of an unknown source say nothing.
        bits: as read.
    """
    known = _REASONS.get(source, {})
    found = {code for bit, code in known.items() if bits & bit}
    if source == "nvml" and bits & _PRECISE:
        found.discard(HARDWARE)
    return frozenset(found)
