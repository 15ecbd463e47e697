"""The flags of ``aiprof load``: how they are written, and the request that they stand for."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import click

from profiler.errors import UsageError

if TYPE_CHECKING:
    from profiler.load.plan import Shape, Trace
    from profiler.load.request import LoadRequest, Point
    from profiler.load.search import Search
    from profiler.load.slo import Slo
    from profiler.measure.fidelity_server import Claim

# Flags that the request has under the same name.
_SAME = (
    "model", "api", "requests", "warm_up", "seed", "vocab_size", "tokenizer", "name", "processes",
    "ca_file", "loop", "speculative",
)  # fmt: skip


class Numbers(click.ParamType[tuple[float, ...]]):
    """Numbers above 0, separated by commas."""

    name = "numbers"

    def __init__(self, *, whole: bool) -> None:
        self._whole = whole

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[float, ...]:
        """Return the numbers, or refuse with what would be understood."""
        if isinstance(value, tuple):
            return value
        try:
            numbers = tuple(int(part) if self._whole else float(part) for part in str(value).split(","))
        except ValueError:
            numbers = ()
        if not numbers or not all(0 < number < 1e6 for number in numbers):
            example = "1,8,64" if self._whole else "0.5,2,8"
            self.fail(f"'{value}': write numbers above 0 with commas between, e.g. {example}", param, ctx)
        return numbers


def request_of(urls: tuple[str, ...], flags: dict[str, Any], device: str | None = None) -> LoadRequest:
    """Return the request that the flags describe.

    Args:
        urls: where the server is.
        flags: as written.
        device: of this box that the server runs on, or None.

    Raises:
        UsageError: flags that do not go together.
    """
    from profiler.load.endpoint import parse_endpoint
    from profiler.load.job import Limits
    from profiler.load.plan import read_trace
    from profiler.load.request import LoadRequest
    from profiler.load.slo_presets import slos_of

    endpoints = tuple(parse_endpoint(url) for url in urls)
    if device is not None and any(one.reach != "loopback" for one in endpoints):
        raise UsageError(
            "--device is for a server on this box, by a URL such as http://localhost:8000; on other machines "
            "record with `aiprof power --record FILE` and join it with `aiprof energy`"
        )
    if any(one.scheme == "http" and one.reach == "public" for one in endpoints):
        click.echo(
            "warning: plain http over a network: prompts and the API key can be read on the way", err=True
        )
    trace = read_trace(flags["trace"]) if flags["trace"] is not None else None
    slos = slos_of(flags["slos"], flags["slo_preset"])
    search = _search(flags, slos)
    if sum(flags[name] is not None for name in ("concurrency", "rate", "trace")) != (search is None):
        raise UsageError(
            "give one of --concurrency 1,8 (users at once), --rate 2 (requests/s), --trace FILE, "
            "or --search with limits such as --slo ttft_p99=0.5s"
        )
    if flags["requests"] is not None and flags["seconds"] is not None and search is None:
        raise UsageError("give either --requests or --seconds")
    shape = _shape(flags, trace)
    points = () if search is not None else _points(flags, trace)
    named = {name: flags[name] for name in _SAME}
    claim = _claim(flags)
    if claim is not None and claim.model is not None and flags["vocab_size"] is None:
        named["vocab_size"] = claim.model.architecture.vocab_size
    return LoadRequest(
        **named,
        endpoints=endpoints,
        shape=shape,
        points=points,
        seconds=_seconds(flags, search, trace),
        ramp_s=flags["ramp_s"] or 0.0,
        slos=slos,
        search=search,
        shared_prefix_tokens=flags["shared_prefix"],
        trace=trace,
        limits=replace(Limits(), total_s=flags["total_s"], idle_s=flags["idle_s"]),
        key_variable=flags["api_key_env"],
        claim=claim,
        command=_command(urls, flags | {"device": device}),
    )


def _seconds(flags: dict[str, Any], search: Search | None, trace: Trace | None) -> float | None:
    """Return for how long each point is driven, or None where requests or a trace say it."""
    from profiler.load.search import POINT_S

    seconds: float | None = flags["seconds"]
    if search is not None:
        seconds = seconds or POINT_S
    elif flags["requests"] is None and seconds is None and trace is None:
        seconds = 60.0
    if flags["ramp_to"] is not None and seconds is None:
        raise UsageError("--ramp-to needs --seconds: how long the way from one rate to the other takes")
    return seconds


def _command(urls: tuple[str, ...], flags: dict[str, Any]) -> tuple[str, ...]:
    """Return the flags for the record; URLs and files say whose machine it is and are left out."""
    private = {"tokenizer", "ca_file", "trace", "api_key_env", "name", "weights"}
    names = {"ramp_s": "ramp", "total_s": "timeout", "idle_s": "idle-timeout", "slos": "slo"}
    names |= {"over": "search"}
    names |= {"low": "from", "high": "to"}
    made = ["load", *("URL" for _ in urls)]
    switches: list[str] = []
    for name, value in flags.items():
        if value in (None, (), 0) or name in private:
            continue
        if value is True:
            switches.append(f"--{name.replace('_', '-')}")
            continue
        text = ",".join(map(str, value)) if isinstance(value, tuple) else str(value)
        made += [f"--{names.get(name, name).replace('_', '-')}", text]
    return (*made, *switches)


def _claim(flags: dict[str, Any]) -> Claim | None:
    """Return what the server is said to run, or None without a check.

    Raises:
        UsageError: there are no such weights, or they do not say in which format they are.
    """
    from profiler.measure.fidelity_server import Claim
    from profiler.models.catalogue import resolve_model
    from profiler.models.formats import formats_for
    from profiler.models.weights import stored_precision

    given, precision = flags["weights"], flags["precision"]
    if flags["no_fidelity"]:
        if given or precision:
            raise UsageError("--no-fidelity leaves out what --weights and --precision are for; give one")
        return None
    if given is None:
        if precision is not None:
            raise UsageError("--precision says what --weights are served in; give both")
        return Claim(seed=flags["seed"])
    model = resolve_model(given)
    if model.real_weights is None:
        raise UsageError(
            f"--weights {given}: no weights there; give the folder or the GGUF file that the server loaded"
        )
    if model.formats is not None:
        if precision is not None:
            raise UsageError(f"--precision: {model.name} is in {model.formats.weight_format}; leave it out")
        return Claim(model, model.formats, flags["seed"])
    assert model.folder is not None
    precision = precision or stored_precision(model.folder)
    if precision is None:
        raise UsageError(f"--weights {given}: config.json names no plain number format; give --precision")
    return Claim(model, formats_for(precision), flags["seed"])


def _shape(flags: dict[str, Any], trace: Trace | None) -> Shape:
    from profiler.load.plan import fixed_shape, served_shape, trace_shape
    from profiler.workload.scenario import find_scenario

    lengths = (flags["prompt_tokens"], flags["output_tokens"])
    if trace is not None:
        if any(lengths) or flags["scenario"]:
            raise UsageError("a trace brings its own lengths; leave out --scenario and lengths")
        return trace_shape(trace)
    if flags["scenario"] is not None:
        if any(lengths):
            raise UsageError("give either --scenario or --prompt-tokens and --output-tokens")
        return served_shape(find_scenario(flags["scenario"]), flags["seed"])
    if not all(lengths):
        raise UsageError("give --scenario NAME, or both --prompt-tokens and --output-tokens")
    return fixed_shape(*lengths)


def _search(flags: dict[str, Any], slos: Sequence[Slo]) -> Search | None:
    """Return the search that is asked for, by name or by limits without a load; None without."""
    from profiler.load.search import search_for

    driven = any(flags[name] is not None for name in ("concurrency", "rate", "trace"))
    limits = [slo for slo in slos if slo.percentile is not None]
    if flags["over"] is None and (driven or not limits):
        if flags["low"] is not None or flags["high"] is not None:
            raise UsageError("--from and --to go with --search")
        return None
    if driven or flags["ramp_to"] is not None:
        raise UsageError(
            "--search chooses the load itself; leave out --concurrency, --rate, --ramp-to and --trace"
        )
    if flags["over"] != "rate" and (flags["arrivals"] or flags["cv"] is not None):
        raise UsageError("--arrivals and --cv go with --search rate")
    return search_for(flags["over"], slos, flags["low"], flags["high"], _arrivals(flags))


def _points(flags: dict[str, Any], trace: Trace | None) -> tuple[Point, ...]:
    from profiler.load.request import Point

    if flags["concurrency"] is not None:
        if flags["arrivals"] or flags["cv"] is not None or flags["ramp_to"] is not None:
            raise UsageError("--arrivals, --cv and --ramp-to go with --rate")
        return tuple(Point(concurrency=int(number)) for number in flags["concurrency"])
    if trace is not None:
        rate = (len(trace.at_s) - 1) / trace.at_s[-1] if trace.at_s[-1] > 0 else float(len(trace.at_s))
        return (Point(process="trace", rate_per_s=float(rate)),)
    if flags["ramp_to"] is not None:
        return tuple(
            Point(process="ramp", rate_per_s=rate, rate_end_per_s=flags["ramp_to"], cv=0.0)
            for rate in flags["rate"]
        )
    process, cv = _arrivals(flags)
    return tuple(Point(process=process, rate_per_s=rate, cv=cv) for rate in flags["rate"])


def _arrivals(flags: dict[str, Any]) -> tuple[str, float]:
    """Return kind and coefficient of variation of the arrivals of an open loop."""
    from profiler.load.plan import arrivals_of
    from profiler.workload.scenario import find_scenario

    process, cv = flags["arrivals"] or "poisson", flags["cv"]
    if flags["arrivals"] is None and cv is None and flags["scenario"] is not None:
        process, cv = arrivals_of(find_scenario(flags["scenario"]))
    if flags["arrivals"] is None and flags["cv"] is not None:
        process = "gamma"
    if cv is None:
        if process == "gamma":
            raise UsageError("--arrivals gamma needs --cv, e.g. 2 for bursty arrivals")
        cv = {"poisson": 1.0, "constant": 0.0}[process]
    return process, cv
