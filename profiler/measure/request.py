"""What a sweep is asked to do: presets, and the request that a preset and the flags make together."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any, Literal

from profiler.errors import UsageError, unknown
from profiler.models.parallel import Parallel
from profiler.privacy import scrub


@dataclass(frozen=True)
class Preset:
    """A row of the preset table.

    Attributes:
        models: catalogue names.
        scenarios: scenario names.
        variant: ``quick`` (a stated fraction of each scenario's lengths) or ``full``.
        batches: requests that run together.
        precisions: shorthands as in ``--precision``.
        starts: fresh worker processes per case.
        target_relative_half_width: CI half-width, relative to the mean, at which trials stop.
        seconds_per_case: wall time per case; times the cases it makes the default budget.
        repeat_on_interference: whether a disturbed start is made once more.
        purpose: one line for people.
    """

    models: tuple[str, ...]
    scenarios: tuple[str, ...]
    variant: Literal["full", "quick"]
    batches: tuple[int, ...]
    precisions: tuple[str, ...]
    starts: int
    target_relative_half_width: float
    seconds_per_case: float
    repeat_on_interference: bool
    purpose: str


PRESETS: dict[str, Preset] = {
    "quick": Preset(
        models=("qwen2.5-0.5b",),
        scenarios=("decode-128", "prefill-512", "chat"),
        variant="quick",
        batches=(1, 8),
        precisions=("bf16",),
        starts=1,
        target_relative_half_width=0.05,
        seconds_per_case=28.0,
        repeat_on_interference=False,
        purpose="a first look in about three minutes; one start per case, not purchase evidence",
    ),
    "standard": Preset(
        models=("qwen2.5-0.5b", "qwen2.5-1.5b", "qwen2.5-7b"),
        scenarios=("decode-128", "prefill-512", "chat", "reasoning"),
        variant="full",
        batches=(1, 8),
        precisions=("bf16",),
        starts=3,
        target_relative_half_width=0.01,
        seconds_per_case=180.0,
        repeat_on_interference=True,
        purpose="evidence for a comparison: three starts per case, full lengths, about an hour",
    ),
    "full": Preset(
        models=("qwen2.5-0.5b", "qwen2.5-1.5b", "qwen2.5-7b", "llama-3.1-8b", "qwen3-8b", "qwen2.5-32b"),
        scenarios=(
            "decode-128",
            "prefill-512",
            "chat",
            "code-completion",
            "summarize",
            "reasoning",
            "long-context",
            "batch-offline",
        ),
        variant="full",
        batches=(1, 8, 32),
        precisions=("bf16",),
        starts=5,
        target_relative_half_width=0.01,
        seconds_per_case=300.0,
        repeat_on_interference=True,
        purpose="the whole picture: five starts per case, every offline scenario, hours",
    ),
}

# How each field travels as text in the record's command; the order is the order shown.
_REPEATED = {"models": "--model", "scenarios": "--scenario", "engines": "--engine", "devices": "--device"}
_REPEATED |= {"precisions": "--precision", "batches": "--concurrency", "engine_options": "--engine-option"}
_SINGLE = {
    "preset": "--preset",
    "budget_s": "--budget",
    "soak_s": "--soak",
    "starts": "--starts",
    "layers": "--layers",
    "tp": "--tp",
    "pp": "--pp",
    "dp": "--dp",
    "ep": "--ep",
    "seed": "--seed",
    "python": "--python",
    "challenge": "--challenge",
}
# Flags without a value; they come last, so that all before them are pairs.
_SWITCHES = {"no_fidelity": "--no-fidelity"}
_FLAGS = _SINGLE | _REPEATED | _SWITCHES


@dataclass(frozen=True)
class SweepRequest:
    """Everything that shapes the results of a sweep.

    Attributes:
        preset: name of the preset; fields left empty are taken from it.
        models: model selectors (name, folder or hub id).
        scenarios: scenario names or files.
        engines: engine names.
        devices: device selectors; empty means the best device of the box.
        precisions: number formats.
        batches: requests that run together (``--concurrency``).
        budget_s: wall time of the whole sweep in seconds, or None for the preset's.
        soak_s: hold one case for this long, or None.
        starts: fresh worker processes per case, or None for the preset's.
        layers: run slices of at most so many layers instead of whole models, or None.
        tp: devices that share each matrix, or None for 1; likewise ``pp``, ``dp`` and ``ep``.
        pp: groups of layers, one after the other.
        dp: copies of the model that take different requests.
        ep: devices that experts are spread over.
        seed: seed of token ids and random weights.
        python: interpreter for the workers, or None for aiprof's own.
        engine_options: ``key=value`` pairs for the engines.
        challenge: a verifier's text that is mixed into prompts and random weights, or None.
        no_fidelity: leave the check out whether engines compute the model they claim.
    """

    preset: str = "quick"
    models: tuple[str, ...] = ()
    scenarios: tuple[str, ...] = ()
    engines: tuple[str, ...] = ()
    devices: tuple[str, ...] = ()
    precisions: tuple[str, ...] = ()
    batches: tuple[int, ...] = ()
    budget_s: float | None = None
    soak_s: float | None = None
    starts: int | None = None
    layers: int | None = None
    tp: int | None = None
    pp: int | None = None
    dp: int | None = None
    ep: int | None = None
    seed: int = 0
    python: str | None = None
    engine_options: Mapping[str, str] = field(default_factory=dict)
    challenge: str | None = None
    no_fidelity: bool = False

    @property
    def parallel(self) -> Parallel:
        """How each model is spread over devices."""
        return Parallel(self.tp or 1, self.pp or 1, self.dp or 1, self.ep or 1)

    def with_preset(self) -> tuple[SweepRequest, Preset]:
        """Return the request with empty fields filled from its preset, and the preset.

        Raises:
            UsageError: the preset is not known.
        """
        if self.preset not in PRESETS:
            raise UsageError(unknown("preset", self.preset, PRESETS))
        preset = PRESETS[self.preset]
        filled = replace(
            self,
            models=self.models or preset.models,
            scenarios=self.scenarios or preset.scenarios,
            engines=self.engines or ("torch",),
            precisions=self.precisions or preset.precisions,
            starts=self.starts or preset.starts,
        )
        return filled, preset

    def to_arguments(self) -> tuple[str, ...]:
        """Return the flags that make this request again, without home paths."""
        arguments: list[str] = []
        for name, flag in (_SINGLE | _REPEATED).items():
            for text in _texts(name, getattr(self, name)):
                arguments += [flag, scrub(text)]
        arguments += [flag for name, flag in _SWITCHES.items() if getattr(self, name)]
        return tuple(arguments)

    @classmethod
    def from_arguments(cls, arguments: Sequence[str]) -> SweepRequest:
        """Rebuild the request from :meth:`to_arguments`.

        Raises:
            UsageError: the record's command was not written by aiprof.
        """
        flags = {flag: name for name, flag in (_SINGLE | _REPEATED).items()}
        values: dict[str, Any] = {}
        pairs = list(arguments)
        for name, flag in _SWITCHES.items():
            if pairs[-1:] == [flag]:
                values[name] = True
                del pairs[-1]
        try:
            for flag, text in zip(pairs[::2], pairs[1::2], strict=True):
                name = flags[flag]
                if name in _SINGLE:
                    values[name] = _parse(name, text)
                elif name == "engine_options":
                    key, _, value = text.partition("=")
                    values.setdefault(name, {})[key] = value
                else:
                    values[name] = (*values.get(name, ()), _parse(name, text))
        except (KeyError, ValueError) as error:
            raise UsageError(f"the command in the record cannot be understood: {error}") from error
        return cls(**values)

    def differences(self, other: SweepRequest, only: Sequence[str]) -> list[str]:
        """Return one line per field of ``only`` in which ``other`` differs from this request."""
        lines = []
        for name in (entry.name for entry in fields(self) if entry.name in only):
            mine, theirs = _texts(name, getattr(self, name)), _texts(name, getattr(other, name))
            if [scrub(text) for text in mine] != [scrub(text) for text in theirs]:
                flag = _FLAGS[name]
                lines.append(
                    f"{flag}: the run has {', '.join(mine) or 'its default'}, asked for {', '.join(theirs)}"
                )
        return lines


def _texts(name: str, value: Any) -> list[str]:
    """Return a field as the texts that follow its flag."""
    if value is None or value is False:
        return []
    if value is True:
        return ["given"]
    if name == "engine_options":
        return [f"{key}={text}" for key, text in sorted(value.items())]
    if name in ("budget_s", "soak_s"):
        return [f"{value:g}s"]
    return [str(item) for item in value] if name in _REPEATED else [str(value)]


def _parse(name: str, text: str) -> Any:
    if name in ("starts", "seed", "batches", "layers", "tp", "pp", "dp", "ep"):
        return int(text)
    if name in ("budget_s", "soak_s"):
        return float(text.removesuffix("s"))
    if name in ("python", "models") and text.startswith("~/"):
        return str(Path(text).expanduser())
    return text
