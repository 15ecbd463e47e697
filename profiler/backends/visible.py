"""Which GPUs the environment leaves visible, by each vendor's own reading of its variables."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from profiler.backends.tree import whole_number


@dataclass(frozen=True)
class Visible:
    """What a variable leaves of a list of GPUs.

    Attributes:
        order: positions in the original list, in the order in which programs will see them.
        note: what was cut off and why, or None when the variable names only what exists.
    """

    order: tuple[int, ...]
    note: str | None = None


def cuda_visible(value: str | None, names: Sequence[Sequence[str]]) -> Visible:
    """Apply ``CUDA_VISIBLE_DEVICES`` as the CUDA driver does.

    CUDA C++ programming guide, section "CUDA environment variables": numbers, or prefixes of UUIDs;
    the first entry that names no GPU hides itself and all after it. As in PyTorch's reading of the
    driver (``torch.cuda._parse_visible_devices``) the first entry decides whether all are numbers or
    UUIDs, numbers are read by ``strtoul`` (``1x`` is 1), and a GPU named twice hides them all.

    Args:
        value: the variable, or None when it is not set.
        names: for each GPU in CUDA's order the UUIDs that it answers to.
    """
    if value is None:
        return Visible(tuple(range(len(names))))
    entries = [entry.strip() for entry in value.split(",")]
    prefix = next((prefix for prefix in ("GPU-", "MIG-") if entries[0].startswith(prefix)), None)
    order: list[int] = []
    for entry in entries:
        found = _by_uuid(entry, names, prefix) if prefix else _by_number(entry, len(names))
        if found is None:
            return Visible(tuple(order), _cut("CUDA_VISIBLE_DEVICES", value, entry))
        if found in order:
            return Visible((), f"CUDA_VISIBLE_DEVICES={value} names a GPU twice, which hides all of them")
        order.append(found)
    return Visible(tuple(order))


def _by_number(entry: str, count: int) -> int | None:
    match = re.match(r"\+?([0-9]+)", entry)
    number = whole_number(match[1]) if match else None
    return number if number is not None and number < count else None


def _by_uuid(entry: str, names: Sequence[Sequence[str]], prefix: str) -> int | None:
    if not entry.startswith(prefix):
        return None
    found = [position for position, own in enumerate(names) if any(name.startswith(entry) for name in own)]
    return found[0] if len(found) == 1 else None


def rocm_visible(environment: Mapping[str, str], names: Sequence[Sequence[str]]) -> Visible:
    """Apply ``ROCR_VISIBLE_DEVICES``, then ``HIP_VISIBLE_DEVICES`` to what that leaves.

    ROCr (``amd_filter_device.cpp``) reads numbers or prefixes of ``GPU-<unique id>`` in any case, stops
    at the first entry that is wrong or repeated, and shows nothing when the variable is set but empty.
    HIP (``rocdevice.cpp``) stops at the first wrong entry, skips repeated ones, takes an empty variable
    for an unset one and then looks at ``CUDA_VISIBLE_DEVICES``.
    """
    runtime = _rocr(environment.get("ROCR_VISIBLE_DEVICES"), names)
    variable = "HIP_VISIBLE_DEVICES" if environment.get("HIP_VISIBLE_DEVICES") else "CUDA_VISIBLE_DEVICES"
    left = [names[position] for position in runtime.order]
    hip = _hip(variable, environment.get(variable, ""), left)
    notes = [note for note in (runtime.note, hip.note) if note]
    return Visible(tuple(runtime.order[position] for position in hip.order), "; ".join(notes) or None)


def _rocr(value: str | None, names: Sequence[Sequence[str]]) -> Visible:
    if value is None:
        return Visible(tuple(range(len(names))))
    order: list[int] = []
    for entry in value.split(",")[: len(names)]:
        token = entry.strip().upper()
        found: int | None
        if token.startswith("G"):
            upper = [[name.upper() for name in own] for own in names]
            found = _by_uuid(token, upper, "GPU-") if len(token) >= 5 else None
        else:
            number = whole_number(token)
            found = number if number is not None and number < len(names) else None
        if found is None or found in order:
            return Visible(tuple(order), _cut("ROCR_VISIBLE_DEVICES", value, entry))
        order.append(found)
    return Visible(tuple(order))


def _hip(variable: str, value: str, names: Sequence[Sequence[str]]) -> Visible:
    if not value:
        return Visible(tuple(range(len(names))))
    order: list[int] = []
    for entry in value.split(","):
        found: int | None = None
        if "GPU-" in entry:
            found = next((at for at, own in enumerate(names) if any(entry in name for name in own)), None)
        elif re.fullmatch(r"0|[1-9][0-9]{0,8}", entry) and int(entry) < len(names):
            found = int(entry)
        if found is None:
            return Visible(tuple(order), _cut(variable, value, entry))
        if found not in order:
            order.append(found)
    return Visible(tuple(order))


def _cut(variable: str, value: str, entry: str, what: str = "GPU") -> str:
    if not value:
        return f"{variable} is set but empty, which hides every {what}"
    return f"'{entry}' in {variable}={value} names no {what} (left) here, which hides it and what follows"


def ascend_visible(value: str | None, logic_ids: Sequence[int]) -> Visible:
    """Apply ``ASCEND_RT_VISIBLE_DEVICES`` as CANN documents it.

    Logical ids in ascending order, separated by commas and nothing else; only what stands before the
    first other character or the first id that does not exist counts. What happens to ids that do not
    ascend is not documented, so nothing is taken for visible then.

    Args:
        value: the variable, or None when it is not set.
        logic_ids: logical id of each NPU.
    """
    if value is None:
        return Visible(tuple(range(len(logic_ids))))
    order: list[int] = []
    for entry in value.split(","):
        # Digits up to the first other character still count; everything after it does not.
        digits = re.match(r"[0-9]*", entry)
        number = whole_number(digits[0]) if digits else None
        if number is None or number not in logic_ids:
            return Visible(tuple(order), _cut("ASCEND_RT_VISIBLE_DEVICES", value, entry, "NPU"))
        position = logic_ids.index(number)
        if order and logic_ids[order[-1]] >= number:
            text = f"the ids in ASCEND_RT_VISIBLE_DEVICES={value} do not ascend, which CANN does not support"
            return Visible((), text)
        order.append(position)
        if digits and digits[0] != entry:
            rest = entry.removeprefix(digits[0])
            return Visible(tuple(order), _cut("ASCEND_RT_VISIBLE_DEVICES", value, rest, "NPU"))
    return Visible(tuple(order))
