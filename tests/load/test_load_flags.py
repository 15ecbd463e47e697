"""What the client says of its own limits: a rate beyond them is refused, one near them is flagged."""

from __future__ import annotations

from typing import Any

import pytest

from profiler.errors import UsageError
from profiler.load.ceiling import ClientCost
from profiler.load.drive import Driver
from profiler.load.endpoint import parse_endpoint
from profiler.load.flags import flags
from profiler.load.negotiate import Agreement
from profiler.load.plan import fixed_shape
from profiler.load.prompts import Features
from profiler.load.request import LoadRequest, Point
from profiler.load.table import Builder
from profiler.results.schema import LoadProcess, Measurement, ServedRecord

COST = ClientCost(per_request_s=1e-3, per_chunk_s=1e-5)
CEILING_PER_S = 1 / (1e-3 + 100 * 1e-5)


def driver() -> Driver:
    request = LoadRequest(
        endpoints=(parse_endpoint("http://127.0.0.1:9"),), model="m", api="completions",
        shape=fixed_shape(8, 100), points=(), requests=2000, processes=1,
    )  # fmt: skip
    return Driver(request, Agreement("m", Features(), 1.0, 0.0, {}), COST)


def constant(rate_per_s: float) -> Point:
    return Point(process="constant", rate_per_s=rate_per_s, cv=0.0)


def test_a_rate_that_the_client_cannot_drive_is_refused_with_what_it_can() -> None:
    driver().refuse_if_beyond(constant(0.98 * CEILING_PER_S))
    with pytest.raises(UsageError, match=r"500 with answers of this length"):
        driver().refuse_if_beyond(constant(1.05 * CEILING_PER_S))
    driver().refuse_if_beyond(Point(concurrency=100_000))  # a closed loop slows down instead


def codes(rate_per_s: float | None, cpu_s: float, lag_s: float) -> set[str]:
    ceiling = None if rate_per_s is None else COST.ceiling(100, 1, rate_per_s)
    process = LoadProcess(
        requests=10, wall_s=10.0, cpu_s=cpu_s, loop="asyncio", loop_lag_p50_s=0.0, loop_lag_p99_s=lag_s,
        loop_lag_max_s=lag_s,
    )  # fmt: skip
    empty: dict[str, Any] = dict.fromkeys(ServedRecord.model_fields)
    kept = {"requests": 10, "ok": 10, "failures": {}, "token_sources": {}, "first_chunk_sources": {}}
    served = ServedRecord.model_construct(
        **empty | kept | {"processes": (process,), "ceiling": ceiling, "endpoint": {}, "servers": ()}
    )
    median = Measurement(value=0.050, unit="s", n=10, method="p50", scope="one_load")
    spec: Any = None  # none of these flags asks for it
    made = flags(Builder(0).build(), spec, served, {"ttft_p50_s": median}, cores=2)
    return {flag.code for flag in made} & {"client_limited", "client_lag"}


@pytest.mark.parametrize(
    ("share", "cpu_s", "lag_s", "expected"),
    [
        (0.79, 7.9, 0.0024, set()),
        (0.81, 1.0, 0.0, {"client_limited"}),
        (None, 8.1, 0.0, {"client_limited"}),
        (None, 1.0, 0.0026, {"client_lag"}),
    ],
)
def test_a_client_near_its_limits_is_flagged(
    share: float | None, cpu_s: float, lag_s: float, expected: set[str]
) -> None:
    assert codes(None if share is None else share * CEILING_PER_S, cpu_s, lag_s) == expected
