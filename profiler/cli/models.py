"""``aiprof models``: the catalogue, and what a model's size means in bytes and operations."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from rich.table import Table

    from profiler.models.architecture import Architecture
    from profiler.models.catalogue import CatalogueEntry, ResolvedModel
    from profiler.models.formats import Formats


@click.command("models")
@click.argument("model", required=False, metavar="[NAME|FOLDER|FILE.gguf|ORG/NAME]")
@click.option("--precision", default="bf16", show_default=True, help="Formats of weights, compute and cache.")
@click.option("--context", type=click.IntRange(min=1), default=4096, show_default=True, help="Tokens.")
@click.option("--batch", type=click.IntRange(min=1), default=1, show_default=True, help="Sequences.")
@click.option("--json", "as_json", is_flag=True, help="Write JSON in base units.")
def command(model: str | None, precision: str, context: int, batch: int, as_json: bool) -> None:
    """Show the catalogue of models, or everything that follows from one model's architecture."""
    from profiler.models.catalogue import catalogue, resolve_model
    from profiler.models.formats import formats_for

    formats = formats_for(precision)
    if model is None:
        entries = list(catalogue().values())
        if as_json:
            _write_json({"precision": precision, "models": [_summary(entry, formats) for entry in entries]})
        else:
            _write(_catalogue_table(entries, formats))
        return
    resolved = resolve_model(model)
    # A GGUF file has formats of its own.
    accounts = _accounts(resolved, resolved.formats or formats, context, batch)
    if as_json:
        _write_json(accounts)
    else:
        _write(_accounts_table(accounts))


def _summary(entry: CatalogueEntry, formats: Formats) -> dict[str, Any]:
    from profiler.models.accounting import kv_bytes_per_token, parameters, weights_bytes

    arch = entry.architecture
    counted = parameters(arch)
    return {
        "name": entry.name,
        "hub_id": entry.hub_id,
        "family": arch.family,
        "licence": entry.licence,
        "parameters": counted.total,
        "active_parameters": counted.active,
        "routing_bias": counted.routing_bias,
        "published_parameters": entry.published_parameters,
        "published_parameters_source": entry.parameters_source,
        "weights_bytes": weights_bytes(arch, formats),
        "kv_bytes_per_token": kv_bytes_per_token(arch, formats.kv_dtype),
        "layers": arch.layers,
        "max_positions": arch.max_positions,
        "notes": entry.notes,
    }


def _accounts(resolved: ResolvedModel, formats: Formats, context: int, batch: int) -> dict[str, Any]:
    from dataclasses import asdict

    from profiler.models import accounting

    arch = resolved.architecture
    counted = accounting.parameters(arch)
    step = accounting.decode_step_bytes(arch, formats, batch, context)
    decode_flops = accounting.decode_flops_per_token(arch, context)
    return {
        "name": resolved.name,
        "source": resolved.source,
        "weights": resolved.weights,
        "weights_digest": resolved.weights_digest,
        "architecture": asdict(arch),
        "formats": asdict(formats),
        "details": dict(resolved.details),
        "context": context,
        "batch": batch,
        "parameters": asdict(counted) | {"total": counted.total},
        "weights_bytes": accounting.weights_bytes(arch, formats),
        "kv_bytes_per_token": accounting.kv_bytes_per_token(arch, formats.kv_dtype),
        "kv_cache_bytes": accounting.kv_cache_bytes(arch, formats.kv_dtype, context, batch),
        "prefill_flops": accounting.prefill_flops(arch, context),
        "decode_flops_per_token": decode_flops,
        "decode_step_bytes": asdict(step) | {"total": step.total},
        "decode_flops_per_byte": batch * decode_flops / step.total,
        "distinct_experts_expected": _distinct_experts(arch, batch),
    }


def _distinct_experts(arch: Architecture, batch: int) -> float | None:
    from profiler.models.accounting import expected_distinct_experts

    if arch.experts is None:
        return None
    return expected_distinct_experts(arch.experts.count, arch.experts.per_token, batch)


def _catalogue_table(entries: list[CatalogueEntry], formats: Formats) -> Table:
    from rich.table import Table

    from profiler.render.units import format_bytes, format_count

    title = f"Models; weights and KV cache in {formats.weight_format}/{formats.kv_dtype}"
    table = Table(title=title, title_justify="left", box=None, padding=(0, 1, 0, 0))
    table.add_column("model", no_wrap=True)
    for heading in ("params", "active", "weights", "KV/token", "layers", "context"):
        table.add_column(heading, justify="right", no_wrap=True)
    for entry in entries:
        row = _summary(entry, formats)
        table.add_row(
            entry.name,
            format_count(row["parameters"]),
            format_count(row["active_parameters"]),
            format_bytes(row["weights_bytes"]),
            format_bytes(row["kv_bytes_per_token"]),
            str(row["layers"]),
            f"{row['max_positions']:,}",
        )
    return table


def _accounts_table(accounts: dict[str, Any]) -> Table:
    from rich.table import Table

    from profiler.render.units import format_bytes, format_flops

    formats, step = accounts["formats"], accounts["decode_step_bytes"]
    batch, context = accounts["batch"], f"{accounts['context']:,}"
    expected = " (expected, for even routing)" if step["expected"] else ""

    def size(value: int) -> str:
        return f"{format_bytes(value)} ({format_bytes(value, binary=False)})"

    table = Table(title=accounts["name"], show_header=False)
    table.add_column("what", no_wrap=True)
    table.add_column("value", overflow="fold")
    table.add_row("source", accounts["source"])
    table.add_row("weights", accounts["weights"])
    named = {name: value for name, value in formats.items() if isinstance(value, str)}
    table.add_row("formats", ", ".join(f"{name} {value}" for name, value in named.items()))
    for kind, counted in accounts["details"].get("tensor_types", {}).items():
        table.add_row(f"tensors in {kind}", f"{counted['tensors']}, {counted['bytes']:,} bytes")
    for part, count in accounts["parameters"].items():
        if count:
            table.add_row(f"parameters: {part.replace('_', ' ')}", f"{count:,}", end_section=part == "total")
    table.add_row("weights", size(accounts["weights_bytes"]))
    table.add_row("KV cache per token", size(accounts["kv_bytes_per_token"]))
    table.add_row(f"KV cache, {batch} x {context} tokens", size(accounts["kv_cache_bytes"]), end_section=True)
    table.add_row(f"prefill of {context} tokens", format_flops(accounts["prefill_flops"]))
    table.add_row(f"decode per token at {context}", format_flops(accounts["decode_flops_per_token"]))
    table.add_row(f"decode step, batch {batch}: weights read", size(step["weights_read"]) + expected)
    if accounts["distinct_experts_expected"] is not None:
        used = accounts["distinct_experts_expected"]
        of_all = accounts["architecture"]["experts"]["count"]
        table.add_row("decode step: distinct experts per layer", f"{used:.1f} of {of_all} (expected)")
    table.add_row("decode step: KV read", size(step["kv_read"]))
    table.add_row("decode step: KV written", size(step["kv_written"]))
    table.add_row("decode step: FLOP per byte", f"{accounts['decode_flops_per_byte']:.2f}{expected}")
    return table


def _write(table: Table) -> None:
    from rich.console import Console

    console = Console()
    if not console.is_terminal:  # a file or a pipe has no width that could be too small
        console = Console(width=140)
    console.print(table)


def _write_json(document: dict[str, Any]) -> None:
    import json

    click.echo(json.dumps(document, indent=2, allow_nan=False))
