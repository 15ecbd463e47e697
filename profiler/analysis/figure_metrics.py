"""The metrics that can be required of a case: name, unit, and which way is better."""

from __future__ import annotations

from dataclasses import dataclass

from profiler.analysis.decision import Better


@dataclass(frozen=True)
class Metric:
    """A figure that can be required of a case.

    Attributes:
        name: as in the record, unit included.
        unit: SI base unit of the record.
        better: whether more of it or less of it is good.
        about: what it is, for messages.
    """

    name: str
    unit: str
    better: Better
    about: str


def _table(*rows: tuple[str, str, Better, str]) -> dict[str, Metric]:
    return {row[0]: Metric(*row) for row in rows}


SPEED = _table(
    ("prefill_tokens_per_s", "tokens/s", "higher", "prompt tokens read per second, whole batch"),
    ("decode_tokens_per_s", "tokens/s", "higher", "tokens generated per second in decode, whole batch"),
    ("output_tokens_per_s", "tokens/s", "higher", "tokens generated per second of the whole trial"),
    ("prefill_s", "s", "lower", "time to the first token"),
    ("ttft_s", "s", "lower", "time to the first token, mean over offline batches"),
    ("tpot_s", "s", "lower", "time per output token, mean over offline batches"),
    ("e2e_s", "s", "lower", "time of the whole trial"),
    ("load_s", "s", "lower", "time to load the weights"),
)
ENERGY = _table(
    ("power_mean_w", "W", "lower", "mean power over the measured trials"),
    ("energy_per_output_token_j", "J/token", "lower", "energy per generated token, prefill included"),
)
RECORDED = _table(
    ("sustained_ratio", "ratio", "higher", "throughput at the end of a soak over that at its start"),
    ("power_max_1s_w", "W", "lower", "highest mean power over 1 s"),
    ("idle_power_w", "W", "lower", "power with the model loaded and nothing to do"),
    ("net_energy_per_output_token_j", "J/token", "lower", "energy per generated token less idle power"),
    ("prefill_energy_per_token_j", "J/token", "lower", "energy of prefill per prompt token"),
    ("decode_energy_per_token_j", "J/token", "lower", "energy of decode per generated token"),
)
MEMORY = _table(
    ("weights_bytes", "bytes", "lower", "memory of the weights"),
    ("kv_cache_bytes", "bytes", "lower", "memory of the KV cache"),
    ("peak_engine_bytes", "bytes", "lower", "peak of the engine's allocator"),
    ("peak_process_bytes", "bytes", "lower", "peak resident set of the worker"),
    ("max_sampled_device_bytes", "bytes", "lower", "largest sampled use of the device's memory"),
    ("max_sampled_host_bytes", "bytes", "lower", "largest sampled use of the host's memory"),
)
HEADROOM = _table(("memory_headroom_bytes", "bytes", "higher", "device memory that stays free"))
CAPACITY = _table(
    ("kv_capacity_tokens", "tokens", "higher", "tokens that the KV cache can hold"),
    ("max_users_at_context", "users", "higher", "requests of a given context that fit together"),
)
COST = _table(
    ("usd_per_million_output_tokens", "USD", "lower", "cost of a million generated tokens"),
    ("usd_per_million_input_tokens", "USD", "lower", "cost of a million prompt tokens"),
)
SERVED = _table(
    ("slo_attainment", "fraction", "higher", "share of requests within the limits at N users"),
    ("goodput_requests_per_s", "requests/s", "higher", "requests per second within the limits"),
    ("icl_s", "s", "lower", "gap between chunks"),
)
FIDELITY = _table(("fidelity", "verdict", "higher", "whether the engine computed the right thing"))
METRICS = SPEED | ENERGY | RECORDED | MEMORY | HEADROOM | CAPACITY | COST | SERVED | FIDELITY
