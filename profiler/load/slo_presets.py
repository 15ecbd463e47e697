"""Limits that others have agreed on, by name.

Source of the MLPerf ones: ``loadgen/mlperf.conf`` of github.com/mlcommons/inference at commit
001712e9daf80386e0dda43f97b8f36981d792c4, keys ``MODEL.Server.ttft_latency`` and ``MODEL.Server.tpot_latency``
in milliseconds; the percentile is that of ``*.Server.target_latency_percentile = 99``. MLPerf's server
scenario has Poisson arrivals, its own data sets and at least 600 s: the limits are MLPerf's, a result with
them is not.
"""

from __future__ import annotations

from collections.abc import Sequence

from profiler.errors import UsageError, unknown
from profiler.load.slo import Slo, parse_slos

_MLPERF_MS = {
    "llama2-70b": (2000, 200),
    "llama2-70b-interactive": (450, 40),
    "mixtral-8x7b": (2000, 200),
    "llama3.1-405b": (6000, 175),
    "llama3.1-405b-interactive": (4500, 80),
    "llama3.1-8b": (2000, 100),
    "llama3.1-8b-interactive": (500, 30),
    "deepseek-r1": (2000, 80),
    "deepseek-r1-interactive": (1500, 15),
}

PRESETS: dict[str, tuple[Slo, ...]] = {
    f"mlperf-{name}": (Slo("ttft", ttft_ms / 1e3, 99.0), Slo("tpot", tpot_ms / 1e3, 99.0))
    for name, (ttft_ms, tpot_ms) in _MLPERF_MS.items()
}


def slos_of(texts: Sequence[str], preset: str | None) -> tuple[Slo, ...]:
    """Return the limits of a preset with those given beside it, which win for the same metric and percentile.

    Raises:
        UsageError: a limit or the preset cannot be understood.
    """
    given = parse_slos(texts)
    if preset is None:
        return given
    if preset not in PRESETS:
        raise UsageError(unknown("--slo-preset", preset, PRESETS))
    own = {(slo.metric, slo.percentile) for slo in given}
    return (*given, *(slo for slo in PRESETS[preset] if (slo.metric, slo.percentile) not in own))
