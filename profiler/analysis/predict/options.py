"""Building what is to be predicted from what a user names."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from profiler.analysis.cost import usd_per_second_at_work
from profiler.analysis.cost_types import Costs
from profiler.analysis.predict.calibration import DEFAULT_ENGINE
from profiler.analysis.predict.deployment import Deployment, Parallel, check, default_parallel
from profiler.analysis.predict.forecast import Forecast, Predicted
from profiler.analysis.predict.memory import Fit, fit
from profiler.errors import UsageError
from profiler.hardware.part import Hardware
from profiler.models.architecture import Architecture
from profiler.models.formats import Formats

MILLION = 1e6


@dataclass(frozen=True)
class Ranks:
    """What the user said about parallelism; None: not said."""

    tensor: int | None = None
    pipeline: int | None = None
    data: int | None = None
    expert: int | None = None


def default_engine(hardware: Hardware) -> str:
    """The engine that is usual on a part."""
    return "llamacpp" if hardware.kind == "cpu" or hardware.vendor == "Apple" else DEFAULT_ENGINE


def parallel_for(hardware: Hardware, architecture: Architecture, count: int, ranks: Ranks) -> Parallel:
    """Return how ``count`` devices share the work.

    Raises:
        UsageError: the ranks contradict the count or the model; the line says which.
    """
    if ranks == Ranks():
        return default_parallel(hardware, architecture, count)
    given = [value for value in (ranks.tensor, ranks.pipeline, ranks.data) if value is not None]
    rest = count
    for value in given:
        if rest % value:
            raise UsageError(f"{count} devices cannot be {' x '.join(map(str, given))} ranks")
        rest //= value
    parallel = Parallel(
        tensor=ranks.tensor or rest,
        pipeline=ranks.pipeline or 1,
        data=ranks.data or 1,
        expert=ranks.expert or 1,
    )
    if parallel.ranks != count:
        raise UsageError(
            f"tensor {parallel.tensor} x pipeline {parallel.pipeline} x data {parallel.data} ranks are "
            f"{parallel.ranks} devices, not --count {count}"
        )
    return parallel


@dataclass(frozen=True)
class FitRow:
    """How one model sits on one set of devices.

    Attributes:
        hardware: name of the part.
        count: devices.
        model: name.
        max_positions: longest context that the model allows.
        fit: memory, None when the model cannot be shared or computed so.
        reason: why, or an empty string.
    """

    hardware: str
    count: int
    model: str
    max_positions: int
    fit: Fit | None
    reason: str

    @property
    def longest_context(self) -> int | None:
        """Tokens of the longest context that one user can have, None: not known."""
        if self.fit is None or self.fit.cache_tokens is None:
            return None
        return min(self.fit.cache_tokens, self.max_positions)


def fit_table(
    parts: Sequence[Hardware], counts: Sequence[int], models: dict[str, Architecture], formats: Formats
) -> list[FitRow]:
    """Return how each model sits on each number of each part."""
    rows = []
    for hardware in parts:
        for count in counts:
            for name, architecture in models.items():
                try:
                    parallel = default_parallel(hardware, architecture, count)
                    deployment = Deployment(hardware, architecture, formats, parallel)
                    check(deployment)
                    found = fit(deployment)
                    rows.append(
                        FitRow(hardware.name, count, name, architecture.max_positions, found, found.reason)
                    )
                except UsageError as error:
                    rows.append(
                        FitRow(hardware.name, count, name, architecture.max_positions, None, str(error))
                    )
    return rows


def priced(forecast: Forecast, costs: Costs) -> Predicted | str:
    """Return USD per million output tokens with the interval of the throughput, or why there is none."""
    hardware = forecast.deployment.hardware
    names = " ".join((hardware.title, hardware.name, *hardware.driver_names)).lower()
    boxes = [box for box in costs.boxes if box.device is not None and box.device.lower() in names]
    if len(boxes) != 1:
        many = "several boxes" if boxes else "no box"
        return f"{many} of the cost file match {hardware.title}"
    (box,) = boxes
    if box.lacking:
        return f"box {box.name} of the cost file lacks {', '.join(box.lacking)}"
    rate, watts = forecast.figures["output_tokens_per_s"], forecast.figures["power_mean_w"]
    assert rate is not None
    ranks = forecast.deployment.parallel.ranks
    if watts is None and box.pays_for_power and box.power == "measured":
        return f"box {box.name} counts on watts: {forecast.reasons['power_mean_w']}"
    per_second = usd_per_second_at_work(box, None if watts is None else watts.value / ranks) * ranks

    def price(tokens_per_s: float) -> float:
        return per_second / tokens_per_s * MILLION

    return Predicted(
        price(rate.value),
        "USD",
        price(rate.high80),
        price(rate.low80),
        None if rate.high95 is None else price(rate.high95),
        None if rate.low95 is None else price(rate.low95),
    )
