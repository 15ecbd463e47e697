"""What a device says of its own health, in the words of Huawei's DCMI (``dcmi_get_device_health``)."""

from __future__ import annotations

from typing import Final

_STATES: Final = ("ok", "warning", "alarm", "critical alarm")


def health_name(state: int) -> str:
    """Return the name of a state; what is beyond the known ones is as bad as the worst of them."""
    return _STATES[min(state, len(_STATES) - 1)]
