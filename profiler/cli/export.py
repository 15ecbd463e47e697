"""``aiprof export``: results for spreadsheets, notebooks and other programs."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from profiler.errors import UsageError

if TYPE_CHECKING:
    from profiler.results.export import Format


@click.command()
@click.argument("runs", metavar="RUN...", nargs=-1, required=True)
@click.option("--csv", "as_csv", is_flag=True, help="Comma-separated, for spreadsheets.")
@click.option("--parquet", "as_parquet", is_flag=True, help="Parquet, with the types of the columns.")
@click.option("--json", "as_json", is_flag=True, help="A JSON array, one object per row.")
@click.option(
    "--vllm-json", "as_vllm", is_flag=True, help="Loads, with the keys of `vllm bench serve --save-result`."
)
@click.option(
    "--out", metavar="FILE", help="Write to FILE, in full or not at all. [default: standard output]"
)
def command(
    runs: tuple[str, ...], as_csv: bool, as_parquet: bool, as_json: bool, as_vllm: bool, out: str | None
) -> None:
    """Write the results of runs as CSV, Parquet or JSON.

    RUN is a run's folder, its name under ./runs, or a folder of runs. There is one row for each
    run, case and metric; docs/metrics.md describes the columns.
    """
    only_vllm = as_vllm and not (as_csv or as_parquet or as_json)
    format_ = None if only_vllm else _chosen(as_csv, as_parquet, as_json)
    if as_vllm and not only_vllm:
        raise UsageError("choose one of --csv, --parquet, --json and --vllm-json")
    to_stdout = out in (None, "-")
    if format_ == "parquet" and to_stdout and sys.stdout.isatty():
        raise UsageError("--parquet is binary and cannot go to a terminal; add --out FILE or redirect it")

    from profiler.cli.given import given_path, read_given
    from profiler.results.export import encode, write_whole
    from profiler.results.load import frame_of

    loaded, messages = read_given(map(given_path, runs))
    for message in messages:
        click.echo(f"aiprof: {message}", err=True)
    if format_ is None:
        from profiler.results.vllm_json import encode_vllm

        data = encode_vllm(loaded)
    else:
        data = encode(frame_of(loaded), format_)
    if out is None or to_stdout:
        click.echo(data, nl=False)
    else:
        write_whole(Path(out), data)


def _chosen(as_csv: bool, as_parquet: bool, as_json: bool) -> Format:
    wanted: dict[Format, bool] = {"csv": as_csv, "parquet": as_parquet, "json": as_json}
    chosen = [name for name, flag in wanted.items() if flag]
    if len(chosen) != 1:
        raise UsageError("choose one of --csv, --parquet, --json and --vllm-json")
    return chosen[0]
