"""The functions of the compiled library for one number format, as Python calls on tensors."""

from __future__ import annotations

import ctypes
import dataclasses
from typing import Any, Callable

import torch

MAX_ROWS = 8
"""Input vectors that the calls for few take."""
TILE_ROWS = 12
"""Rows of a matrix that the calls for many vectors take at once, and the least they can."""
SUFFIXES = {torch.bfloat16: "bf16", torch.float32: "fp32"}

POINTER, LONG = ctypes.c_void_p, ctypes.c_long


class _AttentionParts(ctypes.Structure):
    _pointers = ("norm", "qkv", "bias", "out", "query_norm", "key_norm", "cosines", "sines", "keys", "values")
    _fields_ = [
        *((name, POINTER) for name in _pointers),
        *((name, LONG) for name in ("hidden", "heads", "kv_heads", "width", "max_tokens")),
        ("eps", ctypes.c_float),
    ]


class _MlpParts(ctypes.Structure):
    _fields_ = [
        *((name, POINTER) for name in ("norm", "gate_up", "down")),
        *((name, LONG) for name in ("hidden", "inner")),
        ("eps", ctypes.c_float),
    ]


class _HeadParts(ctypes.Structure):
    _fields_ = [
        *((name, POINTER) for name in ("norm", "weight")),
        *((name, LONG) for name in ("hidden", "vocabulary")),
        ("eps", ctypes.c_float),
    ]


Fused = Callable[[Any, int], None]
"""``f(stream, position)``: adds a part of a layer to the stream ``[B, T, hidden]``, in place."""


@dataclasses.dataclass(frozen=True)
class Part:
    """A whole part of a layer.

    Attributes:
        step: for one token of each of up to :data:`MAX_ROWS` sequences.
        prompt: for whole prompts (position 0) of any number of sequences, or None where there is none.
    """

    step: Fused
    prompt: Fused | None


class Kernels:
    """The kernels for one number format; every tensor they get is contiguous and of that format."""

    def __init__(self, library: Any, suffix: str) -> None:
        def function(name: str, *arguments: Any) -> Any:
            found = getattr(library, f"{name}_{suffix}", None)
            if found is not None:
                found.argtypes, found.restype = arguments, None
            return found

        pointer, long, number = POINTER, LONG, ctypes.c_int
        linear = (pointer, pointer, long, long, pointer, pointer, long, number)
        self._linear = function("linear", *linear)
        self._attention = function("attention", pointer, pointer, long, long, number)
        self._mlp = function("mlp", pointer, pointer, long, number)
        self._gate = function("gate", pointer, pointer, long, long, number)
        self._head = function("head", pointer, pointer, pointer, pointer, long, number)
        # The calls for many vectors are there where the CPU has instructions for them.
        self._many_linear = function("many_linear", *linear)
        self._many_attention = function("many_attention", pointer, pointer, long, long, number)
        self._many_scores = function("many_scores", pointer, pointer, pointer, long, long, number)
        self._many_mlp = function("many_mlp", pointer, pointer, long, number)

    @property
    def many(self) -> bool:
        """Whether this CPU has the instructions for the calls for many vectors."""
        return self._many_linear is not None

    def takes_many(self, rows: int, columns: int) -> bool:
        """Whether :meth:`linear` multiplies any number of vectors with a matrix ``[rows, columns]``."""
        return self.many and rows >= TILE_ROWS and columns % 2 == 0

    def linear(self, x: Any, weight: Any, bias: Any) -> Any:
        """Return ``x W^T + b``, ``[..., rows]`` for ``x`` of ``[..., columns]``.

        With more than 8 rows of ``x`` only where :meth:`takes_many` says so.
        """
        rows, columns = weight.shape
        x = x.contiguous()
        y = x.new_empty((*x.shape[:-1], rows))
        count, threads = x.numel() // columns, torch.get_num_threads()
        multiply = self._linear if count <= MAX_ROWS else self._many_linear
        at = x.data_ptr(), y.data_ptr()
        multiply(weight.data_ptr(), _pointer(bias), rows, columns, *at, count, threads)
        return y

    def attention(self, sizes: dict[str, Any], tensors: dict[str, Any]) -> Part:
        """Return attention with its norm.

        Args:
            sizes: ``hidden``, ``heads``, ``kv_heads``, ``width``, ``max_tokens`` and ``eps``.
            tensors: ``norm``, ``qkv``, ``bias``, ``out``, ``query_norm``, ``key_norm``, ``cosines``,
                ``sines``, ``keys`` and ``values``, as :class:`attention.GroupedQueryAttention` has them.
        """
        parts = _AttentionParts(**sizes, **{name: _pointer(tensor) for name, tensor in tensors.items()})
        address, few, many = ctypes.addressof(parts), self._attention, self._many_attention
        held = parts, tensors

        def step(stream: Any, position: int, _held: Any = held) -> None:
            few(address, stream.data_ptr(), len(stream), position, torch.get_num_threads())

        def prompt(stream: Any, position: int, _held: Any = held) -> None:
            many(address, stream.data_ptr(), *stream.shape[:2], torch.get_num_threads())

        takes = self._attends_many(sizes) and self._takes_all(tensors["qkv"], tensors["out"])
        return Part(step, prompt if takes else None)

    def scores(self, sizes: dict[str, Any], tensors: dict[str, Any]) -> Any:
        """Return ``f(projected)``: what lies between the two products of attention, for whole prompts.

        ``f`` takes ``[B, T, (heads + 2 kv_heads) width]`` to ``[B, T, heads width]``; None where it cannot.

        Args:
            sizes: as of :meth:`attention`.
            tensors: of those of :meth:`attention` the norms of heads, the rotary tables and the cache.
        """
        if not self._attends_many(sizes):
            return None
        parts = _AttentionParts(**sizes, **{name: _pointer(tensor) for name, tensor in tensors.items()})
        address, run = ctypes.addressof(parts), self._many_scores

        def attend(projected: Any, _held: Any = (parts, tensors)) -> Any:
            projected = projected.contiguous()
            attended = projected.new_empty((*projected.shape[:2], sizes["heads"] * sizes["width"]))
            at = projected.data_ptr(), attended.data_ptr()
            run(address, *at, *projected.shape[:2], torch.get_num_threads())
            return attended

        return attend

    def _attends_many(self, sizes: dict[str, Any]) -> bool:
        """Whether whole prompts attend natively: keys and values are multiplied by tiles, too."""
        width = sizes["width"]
        return self.many and width % 2 == 0 and min(width, sizes["max_tokens"]) >= TILE_ROWS

    def mlp(self, norm: Any, gate_up: Any, down: Any, eps: float) -> Part:
        """Return the gated MLP with its norm; it does not look at the position."""
        hidden, inner = down.shape
        pointers = map(_pointer, (norm, gate_up, down))
        parts = _MlpParts(*pointers, hidden, inner, eps)
        address, few, many = ctypes.addressof(parts), self._mlp, self._many_mlp
        held = parts, norm, gate_up, down

        def step(stream: Any, position: int, _held: Any = held) -> None:
            few(address, stream.data_ptr(), len(stream), torch.get_num_threads())

        def prompt(stream: Any, position: int, _held: Any = held) -> None:
            many(address, stream.data_ptr(), stream.numel() // hidden, torch.get_num_threads())

        return Part(step, prompt if self._takes_all(gate_up, down) else None)

    def gate(self, gate_up: Any) -> Any:
        """Return ``silu(gate) * up`` of ``[..., 2 I]``, as :func:`elementwise.swiglu`, rounded once."""
        gate_up = gate_up.contiguous()
        inner = gate_up.shape[-1] // 2
        out = gate_up.new_empty((*gate_up.shape[:-1], inner))
        at = gate_up.data_ptr(), out.data_ptr()
        self._gate(*at, out.numel() // inner, inner, torch.get_num_threads())
        return out

    def head(self, norm: Any, weight: Any, eps: float) -> Any:
        """Return ``f(last)``: logits ``[B, vocab]`` and the greedy tokens ``[B, 1]`` of ``[B, hidden]``.

        The logits lie in one buffer that the next call overwrites.
        """
        vocabulary, hidden = weight.shape
        parts = _HeadParts(_pointer(norm), _pointer(weight), hidden, vocabulary, eps)
        address, run = ctypes.addressof(parts), self._head
        buffer = weight.new_empty((MAX_ROWS, vocabulary))

        def finish(last: Any, _held: Any = (parts, norm, weight)) -> tuple[Any, Any]:
            last = last.contiguous()
            best = torch.empty((len(last), 1), dtype=torch.int64)
            at = last.data_ptr(), buffer.data_ptr(), best.data_ptr()
            run(address, *at, len(last), torch.get_num_threads())
            return buffer[: len(last)], best

        return finish

    def _takes_all(self, *matrices: Any) -> bool:
        return all(self.takes_many(*matrix.shape) for matrix in matrices)


def _pointer(tensor: Any) -> int | None:
    if tensor is None:
        return None
    assert tensor.is_contiguous()
    return int(tensor.data_ptr())
