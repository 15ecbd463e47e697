"""How a GPU is named in records: by a UUID that can be trusted, else by its PCI address."""

from __future__ import annotations

import re
from collections.abc import Sequence


def normal_pci(address: str) -> str | None:
    """Return a PCI address as the kernel spells it, ``0000:17:00.0``, or None when it is none.

    NVML writes eight digits of domain and capitals; users may leave the domain out.
    """
    match = re.fullmatch(
        r"(?:([0-9a-f]{1,8}):)?([0-9a-f]{1,2}):([0-9a-f]{1,2})\.([0-7])", address.strip().lower()
    )
    if not match:
        return None
    domain, bus, device, function = match.groups()
    return f"{int(domain or '0', 16):04x}:{int(bus, 16):02x}:{int(device, 16):02x}.{function}"


def trusted_uuid(uuid: str | None, all_uuids: Sequence[str | None]) -> tuple[str | None, str | None]:
    """Return ``(uuid, None)`` when it tells this GPU from all others, else ``(None, why not)``.

    Some virtual and early boards report a UUID of zeros, some repeat one: as a key it would make two
    GPUs one.
    """
    if not uuid:
        return None, "the driver reports no UUID; the PCI address is used instead"
    digits = re.sub(r"^[A-Za-z]*[G-Zg-z][A-Za-z]*-", "", uuid)  # a vendor's prefix is no hexadecimal number
    if not re.search(r"[1-9a-fA-F]", digits):
        return None, f"the driver reports the all-zero UUID {uuid}; the PCI address is used instead"
    if list(all_uuids).count(uuid) > 1:
        return None, f"the driver reports the UUID {uuid} for several GPUs; the PCI address is used instead"
    return uuid, None
