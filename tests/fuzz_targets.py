"""Every reader of files and answers, by name; ``benchmarks/fuzz_readers.py`` attacks them."""

from __future__ import annotations

from collections.abc import Callable

from fuzz_answers import endpoint_answers, power_meters, worker_answers, worker_results
from fuzz_files import costs, model_configs, policies, recordings, runs, safetensors, scenarios, traces
from fuzz_target import Target

TARGETS: dict[str, Callable[[], Target]] = {
    "runs": runs,
    "scenarios": scenarios,
    "policies": policies,
    "costs": costs,
    "traces": traces,
    "recordings": recordings,
    "model_configs": model_configs,
    "safetensors": safetensors,
    "worker_answers": worker_answers,
    "worker_results": worker_results,
    "endpoint_answers": endpoint_answers,
    "power_meters": power_meters,
}
