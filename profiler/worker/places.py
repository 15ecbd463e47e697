"""Where in the cache the new tokens of a step go: a number on the host, or one that stays on the device.

With a number on the host the cache is sliced to what is filled. A captured step (captured.py) must read
its position from the device, always touch the same addresses, and mask what is not filled yet.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import torch


@dataclasses.dataclass(frozen=True)
class HostPlace:
    """New tokens from ``position`` on, known to the host.

    Attributes:
        position: tokens of each sequence that are in the cache already.
        tokens: new tokens of each.
        mask: none: everything before ``end`` is filled.
    """

    position: int
    tokens: int
    mask: Any = None

    @property
    def end(self) -> int:
        """Positions to attend to."""
        return self.position + self.tokens

    def rows(self, table: Any) -> Any:
        """Return the rows of ``[max_tokens, ...]`` at the new positions."""
        return table[self.position : self.end]

    def write(self, cache: Any, new: Any) -> None:
        """Write ``new [B, heads, tokens, width]`` into ``cache [B, heads, max_tokens, width]``."""
        cache[:, :, self.position : self.end].copy_(new)


@dataclasses.dataclass(frozen=True)
class DevicePlace:
    """One new token of each sequence, at a position that only the device knows.

    Attributes:
        position: ``[1]`` int64 on the device.
        end: positions that are read, filled or not.
        mask: ``[end]``, true where something is filled.
    """

    position: Any
    end: int
    mask: Any

    @classmethod
    def at(cls, position: Any, end: int) -> DevicePlace:
        """Return the place at ``position``, below ``end``."""
        return cls(position, end, torch.arange(end, device=position.device) <= position)

    def rows(self, table: Any) -> Any:
        """Return the row of ``[max_tokens, ...]`` at the new position."""
        return table.index_select(0, self.position)

    def write(self, cache: Any, new: Any) -> None:
        """Write ``new [B, heads, 1, width]`` into ``cache [B, heads, max_tokens, width]``."""
        cache.index_copy_(2, self.position, new)
