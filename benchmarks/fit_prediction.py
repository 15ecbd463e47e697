"""Fit the parameters of `aiprof predict` and write them as package data.

    python benchmarks/fit_prediction.py --data FOLDER [--out FILE]

FOLDER holds the CSV files that ``prediction_data`` reads. Only coefficients and spreads are written;
rows stay where they are, so that sources without a licence to redistribute can be used.
"""

from __future__ import annotations

import argparse
import csv
import datetime
from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from prediction_data import Observation, power_rows, read
from prediction_fit import Table, factors_by_name, fit, load_of, tabulate
from prediction_folds import (
    DEVICES_FOR_95,
    ROWS_FOR_A_SPREAD,
    Residuals,
    leave_out,
    like_this,
    quantiles,
    spread,
)

from profiler.analysis.predict.calibration import PATH, calibrated
from profiler.analysis.predict.power import busy
from profiler.analysis.predict.serving import nominal_steps
from profiler.analysis.predict.terms import Array
from profiler.hardware.catalogue import get_hardware

URLS = {
    "argonne_llm_inference_bench": "https://github.com/argonne-lcf/LLM-Inference-Bench",
    "aiconfigurator_silicon": "https://github.com/ai-dynamo/aiconfigurator",
    "gpustack_performance_lab": "https://github.com/gpustack/gpustack",
    "mlenergy": "https://github.com/ml-energy/leaderboard",
    "sgl_cookbook": "https://github.com/sgl-project/sgl-cookbook",
    "ascend_vllm_ascend": "https://github.com/vllm-project/vllm-ascend",
    "amd_rocm_vllm": "https://github.com/ROCm/vllm",
    "xiongjiedai_llamacpp": "https://github.com/XiongjieDai/GPU-Benchmarks-on-LLM-Inference",
}
CEILINGS = "measured_gemm_ceilings_aiconfigurator.csv"


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--data", type=Path, required=True, help="folder of CSV files")
    parser.add_argument("--out", type=Path, default=PATH, help="where to write [default: the package data]")
    options = parser.parse_args()
    observations = [one for one in read(options.data)[0] if one.metric != "prefill_tokens_per_s"]
    table = tabulate(observations)
    every = np.arange(len(observations))
    parameters = fit(table, every, rounds=15)
    factors = factors_by_name(table, parameters, every)
    document: dict[str, Any] = {
        "fitted": datetime.date.today().isoformat(),
        "common": factors["common"]["all"],
        "engines": factors["engines"],
        "vendors": factors["vendors"],
        "pairs": factors["pairs"],
        "spreads": _spreads(table, leave_out(table, table.chip, parameters)),
        "power": _power(observations),
        "bandwidth_reached": _reached(
            options.data / CEILINGS, "weight_stream_gb_s_p90_m_le_8_weights_ge_200MB"
        ),
        "matrix_reached": _reached(options.data / CEILINGS, "gemm_tflops_max"),
        "sources": _sources(observations),
    }
    head = (
        "# Written by benchmarks/fit_prediction.py: coefficients fitted to published measurements, no rows\n"
        "# of them. Logarithms of factors on nominal times; see docs/predicting.md.\n"
    )
    options.out.write_text(head + yaml.safe_dump(document, sort_keys=False, width=110))
    print(f"{options.out}: fitted to {len(observations)} figures of {len(set(table.chip))} devices")


def _spreads(table: Table, residuals: Residuals) -> list[dict[str, Any]]:
    found = []
    every = np.ones(len(residuals.error), bool)
    for group in ("served", "llamacpp"):
        for metric in ("rate", "ttft"):
            for seen in ("pair", "engine", "none"):
                basis = like_this(table, residuals, every, f"{group} {metric}", seen)
                if basis.sum() < ROWS_FOR_A_SPREAD:
                    continue  # the calibration then takes the widest of the others
                chips = table.chip[basis]
                devices = len(set(chips))
                entry = {
                    "group": group,
                    "ground": seen,
                    "metric": metric,
                    "devices": devices,
                    "rows": int(basis.sum()),
                    "half80": round(spread(residuals.error[basis], chips), 4),
                }
                if devices >= DEVICES_FOR_95:
                    entry["half95"] = round(spread(residuals.error[basis], chips, 0.95), 4)
                found.append(entry)
    return found


def _power(observations: list[Observation]) -> dict[str, Any]:
    """Watts over TDP against the busy shares of memory and units: non-negative least squares by hand."""
    rows, truth, devices = [], [], []
    for one in power_rows(observations):
        tdp = one.deployment.hardware.tdp_w
        assert tdp is not None
        assert one.power_w is not None
        steps = nominal_steps(one.deployment, load_of(one))
        factors = calibrated(one.engine, one.deployment.hardware.vendor).factors
        memory, compute = busy(steps, factors, one.output)
        rows.append((1.0, memory, compute))
        truth.append(one.power_w / one.deployment.parallel.ranks / tdp.value)
        devices.append(one.chip)
    matrix, watts = np.array(rows), np.array(truth)
    kept = [0, 1, 2]
    while True:
        found, *_ = np.linalg.lstsq(matrix[:, kept], watts, rcond=None)
        if (found > 0).all():
            break
        kept.pop(int(np.argmin(found)))
    coefficients = np.zeros(3)
    coefficients[kept] = found
    error: Array = np.log(watts / (matrix @ coefficients))
    names = np.array(devices)
    (half,) = quantiles(np.abs(error), names, (0.8,))
    return {
        "idle": round(float(coefficients[0]), 4),
        "memory": round(float(coefficients[1]), 4),
        "compute": round(float(coefficients[2]), 4),
        "half80": round(half * (1 + 1 / len(set(devices))), 4),
        "devices": sorted(set(devices)),
    }


def _reached(path: Path, column: str) -> float:
    """Median over parts of the best measured rate in bf16 over the documented peak."""
    parts = {"rtx_pro_6000_server": "rtx-pro-6000", "h200_sxm": "h200", "b60": "arc-pro-b60"}
    best: dict[str, float] = defaultdict(float)
    with path.open() as file:
        for row in csv.DictReader(file):
            if row[column] and row["dtype"] == "bfloat16":
                best[row["system"]] = max(best[row["system"]], float(row[column]))
    shares = []
    for system, reached in best.items():
        part = get_hardware(parts.get(system, system.replace("_", "-")))
        peak = part.memory_bandwidth_bytes_per_s if "gb_s" in column else part.flops["bf16"]
        assert peak is not None
        shares.append(reached * (1e9 if "gb_s" in column else 1e12) / peak.value)
    return round(min(float(np.median(shares)), 1.0), 3)


def _sources(observations: list[Observation]) -> list[dict[str, Any]]:
    by_source: dict[str, list[Observation]] = defaultdict(list)
    for one in observations:
        by_source[one.source].append(one)
    return [
        {
            "name": name,
            "url": URLS[name],
            "licence": rows[0].licence,
            "rows": len(rows),
            "devices": sorted({one.chip for one in rows}),
        }
        for name, rows in by_source.items()
    ]


if __name__ == "__main__":
    main()
