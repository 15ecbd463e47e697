"""See the package."""

from __future__ import annotations

import enum
from dataclasses import dataclass


class RequestOutputKind(enum.Enum):
    CUMULATIVE = 0
    DELTA = 1


@dataclass
class SamplingParams:
    temperature: float
    ignore_eos: bool
    min_tokens: int
    max_tokens: int
    detokenize: bool
    output_kind: RequestOutputKind = RequestOutputKind.CUMULATIVE
    logprob_token_ids: list[int] | None = None
