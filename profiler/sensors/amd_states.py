"""States of AMD GPUs that amdgpu shows otherwise than as one number in a file.

Memory errors: ``ras/umc_err_count``, on drivers with ACA ``ras/aca_umc`` (amdsmi looks in this order).
Processes: ``/sys/class/kfd/kfd/proc`` of the compute driver. Reasons for throttling: ``gpu_metrics``, whose
layout is that of its revision (``drivers/gpu/drm/amd/include/kgd_pp_interface.h`` of Linux).
"""

from __future__ import annotations

import re
import struct
from collections.abc import Iterable
from typing import Final

from profiler.backends.amdgpu import Card, compute_numbers
from profiler.backends.base import Unavailable
from profiler.backends.tree import Tree, parse_fields, whole_number

_PROCESSES: Final = "/sys/class/kfd/kfd/proc"
_ERRORS: Final = ("ras/umc_err_count", "ras/aca_umc")
# Revision 1.3 (MI200, RDNA 2 and 3) ends with indep_throttle_status, which means the same on every chip.
# Those of MI300 (1.4 and later) have no such field; what they count differs from one to the next.
_HEADER: Final = struct.Struct("<HBB")
_REVISION: Final = (1, 3)
_SIZE, _THROTTLE_AT = 120, 112
_ALL_ONES: Final = (1 << 64) - 1


def uncorrected_errors(tree: Tree, card: Card) -> int | Unavailable:
    """Return how many errors of the GPU's memory could not be corrected since the driver was loaded."""
    for name in _ERRORS:
        text = tree.text(f"{card.path}/{name}")
        if text is not None:
            count = whole_number(parse_fields(text).get("ue"))
            return Unavailable("unreadable", f"{name} shows no number of errors") if count is None else count
    return Unavailable("not_supported_by_device", "amdgpu counts no memory errors of this GPU (RAS is off)")


def processes(tree: Tree, card: Card) -> int | Unavailable:
    """Return how many processes hold memory of the GPU through the compute driver, whoever they belong to."""
    if not tree.exists(_PROCESSES):
        return Unavailable("not_supported_by_device", f"the compute driver has no {_PROCESSES}")
    numbers = compute_numbers(tree, card)
    if not numbers:
        return Unavailable("not_supported_by_device", "the compute driver does not number this GPU")
    return len(set(_holders(tree, numbers)))


def _holders(tree: Tree, numbers: Iterable[int]) -> Iterable[str]:
    for number in numbers:
        for path in tree.glob(f"{_PROCESSES}/*/vram_{number}"):
            if tree.integer(path):
                yield path.removeprefix(f"{_PROCESSES}/").partition("/")[0]


def throttle_status(tree: Tree, card: Card) -> int | Unavailable:
    """Return the reasons for which the GPU runs slower than it could, as bits (see ``throttle.py``)."""
    name = f"{card.path}/gpu_metrics"
    try:
        data = tree.path(name).read_bytes()
    except FileNotFoundError:
        return Unavailable("not_supported_by_device", "amdgpu shows no gpu_metrics of this GPU")
    except PermissionError:
        return Unavailable("permission", "gpu_metrics may not be read by this user")
    except OSError as error:
        return Unavailable("unreadable", f"gpu_metrics cannot be read ({error.strerror or error})")
    if len(data) < _HEADER.size:
        return Unavailable("unreadable", "gpu_metrics is shorter than its header")
    size, *revision = _HEADER.unpack_from(data)
    if tuple(revision) != _REVISION:
        found = ".".join(map(str, revision))
        text = f"gpu_metrics has revision {found}, whose reasons for throttling aiprof does not know"
        return Unavailable("not_read", text)
    if size != _SIZE or len(data) < _SIZE:
        return Unavailable("unreadable", f"gpu_metrics has {min(size, len(data))} bytes instead of {_SIZE}")
    bits = int.from_bytes(data[_THROTTLE_AT:_SIZE], "little")
    if bits == _ALL_ONES:
        return Unavailable("not_supported_by_device", "the firmware names no reasons for throttling")
    return bits


def link_lanes(tree: Tree, card: Card, which: str) -> int | None:
    """Return the lanes of the GPU's PCIe link.

    Args:
        tree: where ``/sys`` is.
        card: the GPU.
        which: ``current`` or ``max``.
    """
    lanes = tree.text(f"{card.path}/{which}_link_width") or ""
    # 255 is what the kernel prints where it does not know.
    return int(lanes) if re.fullmatch(r"[1-9]\d?", lanes) else None
