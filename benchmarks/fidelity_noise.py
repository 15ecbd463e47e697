"""How far each number format is from fp32 on the stand-ins of the fidelity check: the basis of its limits.

    python benchmarks/fidelity_noise.py [--seeds 3] [--model NAME ...] [--format NAME ...]

For every model (widths of the catalogue's), seed and format: mean divergence, agreement and lead of the
greedy choice, through the check's own code. Formats that the torch engine lacks are emulated. The last
table has mistakes instead of formats. Real weights: give a folder with --model.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator
from dataclasses import asdict, replace
from functools import partial
from typing import Any

from fidelity_emulation import CACHES, FORMATS, round_cache, round_weights, skip_layer

from profiler.measure.fidelity_answers import compare
from profiler.measure.fidelity_artefact import STEPS, Artefact, artefact_of
from profiler.measure.fidelity_reference import Reference, answers_of, reference_from, reference_request
from profiler.models.catalogue import ResolvedModel, resolve_model
from profiler.models.formats import formats_for
from profiler.results.fidelity_record import FidelityFigures
from profiler.worker.torch_engine import TorchEngine

# Latent attention and grouped routing at widths that a desk machine has the memory for.
NARROW = "deepseek-r1, narrower"
NARROWER: dict[str, Any] = {"hidden_size": 1024, "heads": 16, "kv_heads": 16, "intermediate_size": 2560}
MODELS = ("qwen2.5-0.5b", "qwen3-0.6b", "llama-3.2-1b", "qwen3-30b-a3b", NARROW)
Change = Callable[[Any], None]


def model_of(name: str) -> ResolvedModel:
    """Return a model of the catalogue or of a folder, or the narrower DeepSeek-R1."""
    if name != NARROW:
        return resolve_model(name, False)
    model = resolve_model("deepseek-r1", False)
    architecture = model.architecture
    assert architecture.experts is not None
    experts = replace(architecture.experts, intermediate_size=512)
    return replace(model, architecture=replace(architecture, **NARROWER, experts=experts))


def load(
    artefact: Artefact, precision: str, change: Change | None = None, **architecture: Any
) -> TorchEngine:
    """Return the torch engine with the artefact, changed after loading."""
    engine = TorchEngine()
    engine.load(
        {
            "architecture": asdict(replace(artefact.architecture, **architecture)),
            "weights": artefact.weights,
            "device": "cpu",
            "formats": asdict(formats_for(precision)),
            "max_batch": 2 * len(artefact.prompts),
            "max_tokens": len(artefact.prompts[0]) + STEPS,
            "options": {"linear": "plain"},
        }
    )
    if change is not None:
        change(engine)
    return engine


def reference_of(artefact: Artefact) -> Reference:
    """Return the fp32 reference's answers."""
    return reference_from(load(artefact, "fp32").score(reference_request(artefact)), artefact)


def figures(artefact: Artefact, reference: Reference, engine: TorchEngine) -> FidelityFigures:
    """Return how far a loaded engine is from the reference."""
    prompts = [list(prompt) for prompt in artefact.prompts]
    scored = engine.score(reference.request(artefact))
    run = engine.run({"prompt_ids": prompts, "output_tokens": STEPS, "return_ids": True})
    return compare(
        reference.scored, answers_of(scored), reference.greedy, answers_of({"tokens": run["output_ids"]})
    )


def formats() -> Iterator[tuple[str, str, Change | None]]:
    """Yield (label, dtype of the engine, change)."""
    for name, (_, _, _, dtype) in FORMATS.items():
        yield name, dtype, None if name == dtype else partial(round_weights, weight_format=name)
    for name in CACHES:
        yield f"bf16, {name} cache", "bf16", partial(round_cache, kv_dtype=name)


def mistakes(artefact: Artefact) -> Iterator[tuple[str, Change | None, dict[str, Any]]]:
    """Yield (label, change, changed fields of the architecture)."""
    theta = artefact.architecture.rope_theta
    last = artefact.architecture.layers - 1
    yield "RoPE base 1e4 for 1e6, 1e6 for 1e4", None, {"rope_theta": 1e4 if theta > 1e5 else 1e6}
    yield "RoPE base doubled", None, {"rope_theta": 2 * theta}
    yield "last layer skipped", partial(skip_layer, number=last), {}
    yield "first layer skipped", partial(skip_layer, number=0), {}


def line(label: str, found: list[FidelityFigures]) -> str:
    """Return a row of the table: smallest and largest over models and seeds."""
    kls = [item.mean_kl or 0.0 for item in found]
    agreed = [item.top1_agreement or 0.0 for item in found]
    gaps = [item.greedy_gap or 0.0 for item in found]
    errors = [item.max_logit_error or 0.0 for item in found]
    shared = sum(item.greedy_agreed for item in found) / sum(item.greedy_tokens for item in found)
    return (
        f"| {label} | {min(kls):.2g} | {max(kls):.2g} | {min(agreed):.2f} to {max(agreed):.2f} | "
        f"{max(errors):.2g} | {shared:.3f} | {max(gaps):.2g} |"
    )


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--model", action="append")
    parser.add_argument("--format", action="append", help="these only, and no mistakes")
    arguments = parser.parse_args()
    rows: dict[str, list[FidelityFigures]] = {}
    wrong: dict[str, list[FidelityFigures]] = {}
    for name in arguments.model or MODELS:
        for seed in range(arguments.seeds):
            artefact = artefact_of(model_of(name), seed)
            reference = reference_of(artefact)
            for label, dtype, change in formats():
                if arguments.format and label not in arguments.format:
                    continue
                found = figures(artefact, reference, load(artefact, dtype, change))
                rows.setdefault(label, []).append(found)
                print(f"{name} {seed} {label} {found.mean_kl:.3g} {found.top1_agreement:.3f}", flush=True)
            for label, change, changed in () if arguments.format else mistakes(artefact):
                found = figures(artefact, reference, load(artefact, "bf16", change, **changed))
                wrong.setdefault(label, []).append(found)
                print(f"{name} {seed} {label} {found.mean_kl:.3g} {found.top1_agreement:.3f}", flush=True)
    head = "| mean KL, least | most | same likeliest token | largest logit error "
    head += "| greedy tokens agreed | largest greedy gap |"
    for what, table in (("format", rows), ("mistake, in bf16", wrong)):
        print(f"\n| {what} {head}\n|---|---:|---:|---:|---:|---:|---:|")
        print("\n".join(line(label, found) for label, found in table.items()))


if __name__ == "__main__":
    main()
