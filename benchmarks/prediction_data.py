"""Published measurements as observations that a prediction can be held against.

Reads a folder of CSV files with the columns source, accelerator, n_accelerators, model, precision,
engine, scenario, input_len, output_len, batch_or_concurrency, metric, value, unit, notes. What cannot
be predicted is left out and counted: speculative decoding, images, hybrid models whose layers the
accounting does not know, prefill and decode on separate devices, regression floors.
"""

from __future__ import annotations

import csv
import gzip
import json
import math
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from prediction_models import architectures
from prediction_sources import READERS

from profiler.analysis.predict.deployment import Deployment, Parallel
from profiler.hardware.catalogue import get_hardware
from profiler.models.formats import Formats

# The parts that the sources name, and the chip that is left out as one when a device is held out.
DEVICES = {
    "nvidia a100 gpu": ("a100-sxm-40gb", "A100"),  # Polaris and JLSE: 40 GB, as the out-of-memory rows show
    "nvidia h100 gpu": ("h100-sxm", "H100"),
    "amd mi250 gpu": ("mi250-gcd", "MI250"),  # a module is two of them, see _argonne
    "nvidia h100 sxm": ("h100-sxm", "H100"),
    "nvidia h100": ("h100-sxm", "H100"),
    "nvidia a100": ("a100-sxm", "A100"),
    "amd instinct mi300x 192gb": ("mi300x", "MI300X"),
    "amd mi300x": ("mi300x", "MI300X"),
    "mi300x": ("mi300x", "MI300X"),
    "huawei ascend 910b (atlas 800t a2)": ("ascend-910b3", "910B"),
    "3070 8gb": ("rtx-3070", "RTX 3070"),
    "3080 10gb": ("rtx-3080", "RTX 3080"),
    "3080 ti 12gb": ("rtx-3080-ti", "RTX 3080 Ti"),
    "3090 24gb": ("rtx-3090", "RTX 3090"),
    "4070 ti 12gb": ("rtx-4070-ti", "RTX 4070 Ti"),
    "4080 16gb": ("rtx-4080", "RTX 4080"),
    "4090 24gb": ("rtx-4090", "RTX 4090"),
    "rtx 4000 ada 20gb": ("rtx-4000-ada", "RTX 4000 Ada"),
    "rtx 5000 ada 32gb": ("rtx-5000-ada", "RTX 5000 Ada"),
    "rtx 6000 ada 48gb": ("rtx-6000-ada", "RTX 6000 Ada"),
    "rtx a6000 48gb": ("rtx-a6000", "RTX A6000"),
    "a40 48gb": ("a40", "A40"),
    "l40s 48gb": ("l40s", "L40S"),
    "a100 pcie 80gb": ("a100-pcie", "A100"),
    "a100 sxm 80gb": ("a100-sxm", "A100"),
    "h100 pcie 80gb": ("h100-pcie", "H100"),
    "m1 7-core gpu 8gb": ("apple-m1", "M1"),
    "m1 max 32-core gpu 64gb": ("apple-m1-max", "M1 Max"),
    "m2 ultra 76-core gpu 192gb": ("apple-m2-ultra", "M2 Ultra"),
    "m3 max 40-core gpu 64gb": ("apple-m3-max", "M3 Max"),
}


@dataclass(frozen=True)
class Observation:
    """One measured figure and the work behind it.

    Attributes:
        source: name of the file it comes from.
        licence: whether its row may be shipped.
        chip: what is left out together.
        engine: engine and generation, a key of the calibration.
        deployment: what ran where.
        kind: ``static`` (one batch, start to end), ``closed`` (users who ask again at once), ``drain``
            (all requests at once), ``single`` (one stream, prefill and decode apart).
        prompt, output: tokens per request, means.
        users: batch, users or requests.
        limit: most sequences that the engine runs at once, 0: none.
        metric: ``output_tokens_per_s``, ``tpot_s``, ``ttft_s`` or ``prefill_tokens_per_s``.
        value: measured, in base units.
        power_w: measured watts of all devices, or None.
        work: equal for the same work on another device.
    """

    source: str
    licence: str
    chip: str
    engine: str
    deployment: Deployment
    kind: str
    prompt: float
    output: float
    users: float
    limit: float
    metric: str
    value: float
    power_w: float | None
    work: str

    @property
    def device(self) -> str:
        """Name of the part."""
        return self.deployment.hardware.name


def read(folder: Path) -> tuple[list[Observation], Counter[str]]:
    """Read all known files of ``folder``; return the observations and why rows were left out."""
    found: list[Observation] = []
    skipped: Counter[str] = Counter()
    for name, reader in READERS.items():
        paths = [path for path in (folder / f"{name}.csv", folder / f"{name}.csv.gz") if path.exists()]
        for path in paths[:1]:
            with gzip.open(path, "rt") if path.suffix == ".gz" else path.open() as file:
                for row in csv.DictReader(file):
                    one = _observation(name, row, reader)
                    if isinstance(one, str):
                        skipped[f"{name}: {one}"] += 1
                    else:
                        found.append(one)
    return _without_copies(found), skipped


def _without_copies(observations: Iterable[Observation]) -> list[Observation]:
    """The same figure stands in several of a source's files: its mean counts once."""
    groups: dict[tuple[Any, ...], list[Observation]] = {}
    for one in observations:
        key = (one.source, one.device, one.work, one.metric, one.kind)
        groups.setdefault(key, []).append(one)
    return [
        replace(group[0], value=math.exp(sum(math.log(one.value) for one in group) / len(group)))
        for group in groups.values()
    ]


def _observation(name: str, row: dict[str, str], reader: Any) -> Observation | str:
    accelerator = row["accelerator"].replace("‑", "-").strip().lower()
    if accelerator not in DEVICES:
        return f"accelerator {row['accelerator']}"
    model = row["model"].split(" (")[-1].rstrip(")") if name == "amd_rocm_vllm" else row["model"]
    arch = architectures().get(model.lower())
    if arch is None:
        return f"model {row['model']}"
    value = float(row["value"])
    if not value > 0:
        return "no value"
    fields = reader(row)
    if isinstance(fields, str):
        return fields
    part, chip = DEVICES[accelerator]
    hardware = get_hardware(part)
    formats: Formats = fields["formats"]
    if formats.compute_dtype in hardware.lacks:  # engines then widen the weights on the fly
        formats = replace(formats, compute_dtype="bf16")
    parallel: Parallel = fields["parallel"]
    if arch.heads % parallel.tensor:
        return "ranks that do not divide the heads"
    deployment = Deployment(hardware, arch, formats, parallel, fields.get("weights_factor", 1.0))
    scale = 1e-3 if row["unit"] == "ms" else 1.0
    power = float(row["power_w_if_any"]) if row.get("power_w_if_any") else None
    work = [
        model.lower(),
        fields["engine"],
        formats.weight_format,
        formats.kv_dtype,
        str(parallel),
        fields["kind"],
        round(fields["prompt"]),
        round(fields["output"]),
        fields["users"],
        fields.get("limit", 0),
    ]
    return Observation(
        name, row["licence"], chip, fields["engine"], deployment, fields["kind"], fields["prompt"],
        fields["output"], fields["users"], fields.get("limit", 0), fields["metric"],
        value * scale if "value" not in fields else fields["value"], power, json.dumps(work),
    )  # fmt: skip


def power_rows(observations: Iterable[Observation]) -> Iterator[Observation]:
    """Those whose measured watts can be told apart, once per run."""
    seen = set()
    for one in observations:
        # Argonne states neither what its meters cover nor whether idle devices are in: beyond TDP for one.
        if one.source == "mlenergy" and one.power_w is not None and (one.device, one.work) not in seen:
            seen.add((one.device, one.work))
            yield one
