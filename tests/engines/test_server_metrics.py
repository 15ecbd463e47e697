"""The text at ``/metrics``: what is understood of it, and what is no count."""

from __future__ import annotations

import pytest

from profiler.engines.server_metrics import ServerMetrics, parse_metrics

CACHE = 'vllm:cache_config_info{block_size="%s",num_gpu_blocks="%s"} 1.0'


def test_engines_of_a_server_are_added_up() -> None:
    lines = [
        'vllm:num_preemptions_total{engine="0"} 3.0',
        'vllm:num_preemptions_total{engine="1"} 1e+03',
        'vllm:prefix_cache_hits_total{engine="0"} 0.0',
        CACHE % (16, 100),
        'vllm:cache_config_info{kv_cache_size_tokens="4096",block_size="16",num_gpu_blocks="1"} 1.0',
    ]
    found = parse_metrics("\n".join(lines))
    assert found == ServerMetrics(preemptions=1003, cached_tokens=0, cache_tokens=1600 + 4096)


@pytest.mark.parametrize("value", ["1e999", "-1", "1e300", "1e+", "eeee", "NaN", "+-"])
def test_what_is_no_count_is_unknown(value: str) -> None:
    assert parse_metrics(f"vllm:num_preemptions_total {value}").preemptions is None


@pytest.mark.parametrize("value", ["1e999", "1e+", "eeee"])
def test_one_engine_that_says_no_number_makes_the_sum_unknown(value: str) -> None:
    text = f'vllm:num_preemptions_total{{engine="0"}} 1.0\nvllm:num_preemptions_total{{engine="1"}} {value}'
    assert parse_metrics(text).preemptions is None


@pytest.mark.parametrize("size", ["\u00b2", "9" * 5000, "-1", "None", "9" * 15])
def test_what_is_no_size_of_a_cache_is_unknown(size: str) -> None:
    assert parse_metrics(CACHE % (size, 9)).cache_tokens is None


def test_a_long_word_takes_no_long_time() -> None:
    # Counted, not timed: a quadratic search would take hours for this.
    assert parse_metrics("vllm:cache_config_info{" + "x" * 2_000_000 + "} 1.0") == ServerMetrics()
