"""Times of the requests of a load, from its raw samples."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from profiler.errors import InputFileError
from profiler.load import latency
from profiler.load.starts import parts_from_samples
from profiler.load.table import Requests, merge
from profiler.results.schema import SamplesRef
from profiler.results.stamps import read_columns

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class RequestTimes:
    """Times in seconds, each in ascending order.

    Attributes:
        ttft_s: of the requests that succeeded.
        tpot_s: of those of them that have one.
        gap_s: between the chunks of all of them.
        e2e_s: of the requests that succeeded.
        failed: requests that did not.
    """

    ttft_s: Floats
    tpot_s: Floats
    gap_s: Floats
    e2e_s: Floats
    failed: int


def read_requests(path: Path, ref: SamplesRef) -> list[Requests]:
    """Return the request columns of a load, of each start where the server was started for it.

    Args:
        path: folder of the run.
        ref: of the case's record.

    Raises:
        InputFileError: the file is not the one that was recorded, or holds something else.
    """
    columns = read_columns(path, ref)
    try:
        return parts_from_samples(columns)
    except (ValueError, KeyError, TypeError, OverflowError) as error:
        what = f"{path / ref.file}: does not hold requests: {type(error).__name__}: {error}"
        raise InputFileError([what[:300]]) from None


def read_request_times(path: Path, ref: SamplesRef) -> RequestTimes:
    """Return the times of a load's requests.

    Args:
        path: folder of the run.
        ref: of the case's record.

    Raises:
        InputFileError: the file is not the one that was recorded, or holds something else.
    """
    requests = merge(read_requests(path, ref))
    return RequestTimes(
        _ascending(latency.ttft_s(requests)),
        _ascending(latency.tpot_s(requests)),
        _ascending(latency.gaps_s(requests)),
        _ascending(latency.e2e_s(requests)),
        int((~requests.ok).sum()),
    )


def _ascending(values: Floats) -> Floats:
    return np.sort(values[np.isfinite(values) & (values > 0)])
