"""Every reader of files and answers, by name; ``benchmarks/fuzz_readers.py`` attacks them."""

from __future__ import annotations

from collections.abc import Callable

from fuzz_answers import endpoint_answers, power_meters, worker_answers, worker_results
from fuzz_evidence import hub_caches, references, scores, signatures
from fuzz_files import (
    costs,
    ggufs,
    joined_energies,
    model_configs,
    policies,
    recordings,
    runs,
    safetensors,
    scenarios,
    traces,
)
from fuzz_machine import hardware_files, system_trees
from fuzz_samples import load_requests, sensor_reads
from fuzz_servers import server_checks, server_metrics, vllm_environments
from fuzz_target import Target

TARGETS: dict[str, Callable[[], Target]] = {
    "runs": runs,
    "scenarios": scenarios,
    "policies": policies,
    "costs": costs,
    "traces": traces,
    "recordings": recordings,
    "hardware_files": hardware_files,
    "model_configs": model_configs,
    "hub_caches": hub_caches,
    "safetensors": safetensors,
    "ggufs": ggufs,
    "worker_answers": worker_answers,
    "worker_results": worker_results,
    "endpoint_answers": endpoint_answers,
    "power_meters": power_meters,
    "system_trees": system_trees,
    "signatures": signatures,
    "references": references,
    "scores": scores,
    "sensor_reads": sensor_reads,
    "load_requests": load_requests,
    "joined_energies": joined_energies,
    "server_checks": server_checks,
    "server_metrics": server_metrics,
    "vllm_environments": vllm_environments,
}
