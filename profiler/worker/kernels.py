"""Which kernel multiplies on a CPU: measured at load for each shape of matrix, checked, and recorded.

Candidates: ``plain`` (PyTorch's ``linear``), ``packed`` (the same product after oneDNN laid the weight out
anew, once), and ``native`` (native.cpp on the plain weight; where the CPU lacks instructions for many rows,
``linear`` takes those above 8).
``torch.compile`` with frozen weights is none: see docs/decisions.md.
"""

from __future__ import annotations

import dataclasses
import time
from typing import Any, Callable

import torch
import torch.nn.functional as F  # noqa: N812  the name everybody knows it by

from .bandwidth import last_level_cache_bytes
from .fusing import error_of_largest, fuse
from .native import Library, NativeError, load_library
from .native_kernels import MAX_ROWS, SUFFIXES, Kernels
from .parameters import Linear, Parameters, packing_fault
from .protocol import EngineError
from .torch_support import LINEAR, MEASURED

ROUNDS = 4
BUDGET_S = 0.5
"""For all shapes together; the first round is always run, so that a huge model takes longer."""
PROMPT_ROWS = 256
"""A longer prompt is timed with so many rows, and its time taken in proportion."""
CACHED_ROWS = 64
"""From so many rows on a product is bound by its operations, not by reading its matrix."""
NATIVE_MARGIN = 0.95
"""``native`` is chosen where it is up to 5% slower: only with it are whole parts one call."""
CHECK_BOUNDS = {torch.bfloat16: 2**-7, torch.float16: 2**-10, torch.float32: 1e-5}
"""Largest difference from ``plain``, relative to the largest value. Both round a sum to the format once,
each within half a unit in the last place; twice that is allowed."""
_SAMPLE_BYTES = 64 << 20
_MIN_SAMPLE_BYTES = 16 << 20


@dataclasses.dataclass(frozen=True)
class Work:
    """What a trial asks of the products.

    Attributes:
        batch: sequences, the rows of a decode step.
        prompt_tokens: of each sequence.
        steps: decode steps after the prompt.
    """

    batch: int
    prompt_tokens: int
    steps: int


@dataclasses.dataclass(frozen=True)
class Candidates:
    """What could multiply here.

    Attributes:
        faults: candidate -> why it cannot be used here, or None.
        library: the native library, or None.
        compile_s: seconds spent compiling it just now, or None.
    """

    faults: dict[str, str | None]
    library: Library | None
    compile_s: float | None


def find_candidates(asked: Any, dtype: Any, device: Any, batch: int) -> Candidates:
    """Return what can be used here; compiles the native kernels if they never were.

    Raises:
        EngineError: ``bad_request`` for an unknown name in ``asked``, ``unsupported`` when the one
            that is asked for cannot be used.
    """
    if asked not in (None, *LINEAR):
        raise EngineError("bad_request", f"option linear must be one of {', '.join(LINEAR)}, not {asked!r}")
    faults: dict[str, str | None] = {"plain": None, "packed": packing_fault(dtype, device)}
    library, compile_s = None, None
    faults["native"] = _native_fault(dtype, device)
    if faults["native"] is None:
        known = load_library.cache_info().currsize
        try:
            library = load_library()
            compile_s = None if known else library.compile_s
        except NativeError as fault:
            faults["native"] = str(fault)
    found = library.kernels(dtype) if library is not None else None
    if found is not None and batch > MAX_ROWS and not found.many:
        faults["native"] = f"native products take up to {MAX_ROWS} sequences on this CPU, not {batch}"
        library = None
    if faults.get(asked) is not None:
        raise EngineError("unsupported", f"option linear={asked} cannot be used: {faults[asked]}")
    return Candidates(faults, library, compile_s)


def choose(
    decoder: Any, parameters: Parameters, asked: Any, candidates: Candidates, work: Work
) -> tuple[dict[str, Any], float | None]:
    """Give every product of ``decoder`` the kernel asked for, or the fastest; weights are filled.

    Returns:
        Details for the record, and the seconds spent compiling and measuring, None when nothing was.
    """
    began = time.perf_counter()
    faults, library = candidates.faults, candidates.library
    usable = [name for name in ("plain", "packed", "native") if faults[name] is None]
    kernels = library.kernels(parameters.dtype) if library is not None else None
    measured = asked in (None, MEASURED) and len(usable) > 1
    shapes = [_Shape(shape, matrices, work) for shape, matrices in parameters.linears()]
    if measured:
        _measure(shapes, usable, kernels, work.batch)
    for shape in shapes:
        shape.choose(asked if asked in usable else None, usable, kernels, work)
    chosen = {matrix: shape.chosen for shape in shapes for matrix in shape.matrices}
    many = {matrix for shape in shapes if shape.prompt_kernel == "native" for matrix in shape.matrices}
    parameters.lay_out(chosen, many, kernels, work.batch)
    details = {
        "linear": MEASURED if measured else "asked for" if asked in usable else "the only one here",
        "kernels": [shape.record() for shape in shapes],
        **fuse(decoder, parameters, kernels, work),
        "kernels_unavailable": {name: fault for name, fault in faults.items() if fault is not None},
        "native": None if library is None else library.details,
    }
    if candidates.compile_s is None and not measured:
        return details, None
    return details, time.perf_counter() - began + (candidates.compile_s or 0.0)


class _Shape:
    """All products of one shape, what each candidate took for them, and which was chosen.

    Seconds are for one matrix.
    """

    def __init__(self, shape: tuple[int, int], matrices: list[Linear], work: Work) -> None:
        self.shape, self.matrices = shape, matrices
        self.chosen = self.prompt_kernel = "plain"
        self.step_s: dict[str, float] = {}
        self.prompt_s: dict[str, float] = {}
        self.errors: dict[str, float] = {}
        self.rejected: dict[str, str] = {}
        # The head only sees the last token of a prompt.
        self.prompt_rows = work.batch if matrices[0].last_only else work.batch * work.prompt_tokens

    def check(self, calls: dict[str, list[Callable[[Any], Any]]], x: Any) -> None:
        """Take out of ``calls`` what does not compute the plain product of ``x``; keep the differences."""
        expected = torch.stack([call(x) for call in calls["plain"]]).float()
        for name in [name for name in calls if name != "plain"]:
            found = torch.stack([call(x) for call in calls[name]]).float()
            error, bound = error_of_largest(found, expected), CHECK_BOUNDS[x.dtype]
            if error <= bound:
                self.errors[name] = max(error, self.errors.get(name, 0.0))
            else:  # a NaN too
                self.rejected[name] = (
                    f"differs from plain by {error:.2g} of the largest value, not {bound:.2g}"
                )
                del calls[name]

    def choose(self, asked: str | None, usable: list[str], kernels: Kernels | None, work: Work) -> None:
        if asked is not None or not self.step_s:
            best = ("native", "packed", "plain")
            self.chosen = asked or next(name for name in best if name in usable)
        else:
            self.chosen = min(self.step_s, key=lambda name: self._trial_s(name, work))
        if self.chosen == "native" and kernels is not None and kernels.takes_many(*self.shape):
            # Both work on the plain weight.
            slower = self.prompt_s and self._weighed(self.prompt_s, "native") > self.prompt_s["plain"]
            self.prompt_kernel = "plain" if slower else "native"
        else:
            self.prompt_kernel = "packed" if self.chosen == "packed" else "plain"

    def _trial_s(self, name: str, work: Work) -> float:
        prompt_s = self._weighed(self.prompt_s, name)
        if name == "native":
            prompt_s = min(prompt_s, self.prompt_s["plain"])
        return prompt_s + work.steps * self._weighed(self.step_s, name)

    def _weighed(self, seconds: dict[str, float], name: str) -> float:
        return seconds[name] * (NATIVE_MARGIN if name == "native" else 1.0)

    def record(self) -> dict[str, Any]:
        """Return what the result says about this shape."""
        return {
            "shape": list(self.shape),
            "matrices": len(self.matrices),
            "head": self.matrices[0].last_only,
            "chosen": self.chosen,
            "prompt_kernel": self.prompt_kernel,
            "step_s": {name: round(seconds, 9) for name, seconds in self.step_s.items()} or None,
            "prompt_s": {name: round(seconds, 9) for name, seconds in self.prompt_s.items()} or None,
            "prompt_rows": self.prompt_rows,
            "error_of_largest": {name: float(f"{error:.2g}") for name, error in self.errors.items()} or None,
            "rejected": self.rejected or None,
        }


def _measure(shapes: list[_Shape], usable: list[str], kernels: Kernels | None, batch: int) -> None:
    """Check and time every candidate on samples of the real matrices, the candidates in turn."""
    share = BUDGET_S / len(shapes)
    for shape in shapes:
        sample = _sample(shape.matrices)
        many = kernels is not None and kernels.takes_many(*shape.shape)
        calls = _calls(sample, usable, kernels, batch)
        if batch > MAX_ROWS and not many:
            calls.pop("native", None)
        x = _input(batch, sample[0].weight)
        shape.check(calls, x)
        shape.step_s = _times(calls, x, share)
        prompt_rows = min(shape.prompt_rows, PROMPT_ROWS)
        if prompt_rows <= MAX_ROWS:
            shape.prompt_s = dict(shape.step_s)
            continue
        x = _input(prompt_rows, sample[0].weight)
        # Many rows are multiplied from the caches: one matrix tells, and leaves time for more rounds.
        prompt_calls = {
            name: part[: 1 if prompt_rows >= CACHED_ROWS else None] for name, part in calls.items()
        }
        if not many:  # many rows of a native product are PyTorch's plain one
            prompt_calls.pop("native", None)
        shape.check(prompt_calls, x)
        times, scale = _times(prompt_calls, x, share), shape.prompt_rows / prompt_rows
        shape.prompt_s = {name: scale * times.get(name, times["plain"]) for name in calls}


def _times(calls: dict[str, list[Callable[[Any], Any]]], x: Any, budget_s: float) -> dict[str, float]:
    """Return the best seconds of one call of each candidate."""
    best = dict.fromkeys(calls, float("inf"))
    began = time.perf_counter()
    for _ in range(ROUNDS):
        for name, candidate in calls.items():
            start = time.perf_counter()
            for call in candidate:
                call(x)
            best[name] = min(best[name], (time.perf_counter() - start) / len(candidate))
        if time.perf_counter() - began > budget_s:
            break
    return best


def _sample(matrices: list[Linear]) -> list[Linear]:
    """Return some of the matrices, together larger than the last-level cache where the model is."""
    wanted = min(_SAMPLE_BYTES, max(_MIN_SAMPLE_BYTES, last_level_cache_bytes()))
    one = matrices[0].weight.numel() * matrices[0].weight.element_size()
    return matrices[: min(64, max(1, -(-wanted // one)))]


def _calls(
    sample: list[Linear], usable: list[str], kernels: Kernels | None, batch: int
) -> dict[str, list[Callable[[Any], Any]]]:
    calls: dict[str, list[Callable[[Any], Any]]] = {}
    for name in usable:
        if name == "native":
            assert kernels is not None
            calls[name] = [_bound(kernels.linear, matrix.weight, matrix.bias) for matrix in sample]
        elif name == "packed":
            calls[name] = [matrix.packed(batch) for matrix in sample]
        else:
            calls[name] = [_bound(F.linear, matrix.weight, matrix.bias) for matrix in sample]
    return calls


def _bound(function: Any, weight: Any, bias: Any) -> Callable[[Any], Any]:
    return lambda x: function(x, weight, bias)


def _input(rows: int, weight: Any) -> Any:
    generator = torch.Generator().manual_seed(1)
    return torch.randn(rows, weight.shape[1], generator=generator).to(weight.dtype)


def _native_fault(dtype: Any, device: Any) -> str | None:
    if device.type != "cpu":
        return "native products are for the CPU"
    if dtype not in SUFFIXES:
        return f"no native products in {str(dtype).split('.')[-1]}"
    return None
