"""Tensors that a decoder allocates, counted, and its matrix products.

On CPUs with oneDNN a weight matrix is packed once, after it has been filled, into the layout that
oneDNN's kernels read best; the unpacked matrix is freed. PyTorch's own ``linear`` on plain matrices
reads the weights of a decode step at about half of the memory's bandwidth, and a box would look half
as fast as it is. These are the operators that ``torch.compile`` emits for frozen weights.
"""

from __future__ import annotations

from typing import Any, Protocol, TypeVar

import torch
import torch.nn.functional as F  # noqa: N812  the name everybody knows it by

from .native_kernels import MAX_ROWS


class Matrix(Protocol):
    """What is filled as one tensor and then kept in another layout.

    Attributes:
        weight: to be filled; None once packed.
    """

    weight: Any

    def pack(self, batch: int) -> None:
        """Replace the weight by its packed form, laid out for ``batch`` rows of input."""

    @property
    def packed_bytes(self) -> int:
        """Bytes of the packed form, padding included; 0 while it is not packed."""
        ...


_Matrix = TypeVar("_Matrix", bound=Matrix)


class Linear:
    """``y = x W^T + b`` for ``W`` of ``[rows, columns]``.

    Attributes:
        weight: to be filled; None once packed.
        bias: ``[rows]``, to be filled, or None.
        last_only: whether it only ever sees the last token of a prompt.
        native: the :class:`native_kernels.Kernels` that multiply few rows with the plain weight, or None.
        native_many: whether they multiply any number of rows.
        int8: the :class:`int8.Int8Product` that stands for the weight, or None.
    """

    def __init__(self, weight: Any, bias: Any, last_only: bool = False) -> None:
        self.weight = weight
        self.bias = bias
        self.last_only = last_only
        self.native: Any = None
        self.native_many = False
        self.int8: Any = None
        self._packed: Any = None

    def pack(self, batch: int) -> None:
        """Replace the weight by its packed form, laid out for ``batch`` rows of input."""
        self._packed = torch.ops.mkldnn._reorder_linear_weight(self.weight, batch)
        self.weight = None

    def quantise(self, product: Any) -> None:
        """Replace the weight by ``product``, an :class:`int8.Int8Product` of it."""
        self.int8, self.weight = product, None

    def packed(self, batch: int) -> Any:
        """Return a function that multiplies with a packed copy and leaves this as it is."""
        copy = Linear(self.weight, self.bias)
        copy.pack(batch)
        return copy

    @property
    def packed_bytes(self) -> int:
        """Bytes of the packed or quantised weight, padding included; 0 while it is neither."""
        if self.int8 is not None:
            return int(self.int8.nbytes)
        return 0 if self._packed is None else int(torch.ops.mkldnn._nbytes(self._packed))

    def __call__(self, x: Any) -> Any:
        """Return ``[..., rows]`` for ``x`` of ``[..., columns]``."""
        if self.int8 is not None:
            return self.int8(x, self.bias)
        if self.native is not None and (self.native_many or x.numel() <= MAX_ROWS * x.shape[-1]):
            return self.native.linear(x, self.weight, self.bias)
        if self._packed is None:
            return F.linear(x, self.weight, self.bias)
        return torch.ops.mkldnn._linear_pointwise(x, self._packed, self.bias, "none", [], "")


class Parameters:
    """Allocates what a decoder is made of and knows how many bytes that is.

    Args:
        dtype: of everything.
        device: what will compute, which decides how some weights are laid out.
        max_batch: sequences that the cache has room for.
        max_tokens: positions of each, prompt and output together.
        planned: allocate nothing, and count all the same.

    Attributes:
        storage: the device that tensors are on: ``device``, or ``meta`` for a plan.
    """

    def __init__(
        self, dtype: Any, device: Any, max_batch: int, max_tokens: int, planned: bool = False
    ) -> None:
        self.dtype = dtype
        self.device = torch.device(device)
        self.storage = torch.device("meta") if planned else self.device
        self.max_batch = max_batch
        self.max_tokens = max_tokens
        self._plain: list[Any] = []
        self._matrices: list[Matrix] = []
        self._shared: list[Matrix] = []
        self._cache: list[Any] = []

    def empty(self, *shape: int, dtype: Any = None) -> Any:
        """Return an uninitialised tensor that nobody counts yet."""
        return torch.empty(shape, dtype=dtype or self.dtype, device=self.storage)

    def tensor(self, *shape: int, dtype: Any = None) -> Any:
        """Return an uninitialised weight that stays as it is."""
        weight = self.empty(*shape, dtype=dtype)
        self._plain.append(weight)
        return weight

    def matrix(self, matrix: _Matrix) -> _Matrix:
        """Count and later pack ``matrix``; return it."""
        self._matrices.append(matrix)
        if any(matrix.weight is weight for weight in self._plain):
            self._shared.append(matrix)
        return matrix

    def linear(self, rows: int, columns: int, biased: bool = False) -> Linear:
        """Return an uninitialised matrix product."""
        return self.matrix(Linear(self.empty(rows, columns), self.tensor(rows) if biased else None))

    def head(self, rows: int, columns: int, tied: Any = None) -> Linear:
        """Return the product to logits, with a weight of its own or ``tied`` to one that is held anyway."""
        return self.matrix(Linear(self.empty(rows, columns) if tied is None else tied, None, True))

    def cache(self, heads: int, width: int) -> Any:
        """Return a part of the cache, ``[max_batch, heads, max_tokens, width]``."""
        shape = (self.max_batch, heads, self.max_tokens, width)
        # Written, so that memory which the system only promised is missed here and not in a trial.
        part = self.empty(*shape).zero_()
        self._cache.append(part)
        return part

    def linears(self) -> list[tuple[tuple[int, int], list[Linear]]]:
        """Return the matrix products by shape (rows, columns), heads apart from others of their shape."""
        found: dict[tuple[bool, tuple[int, int]], list[Linear]] = {}
        for matrix in self._matrices:
            if isinstance(matrix, Linear):
                found.setdefault((matrix.last_only, tuple(matrix.weight.shape)), []).append(matrix)
        return [(shape, matrices) for (_, shape), matrices in found.items()]

    def pack(self, batch: int) -> None:
        """Pack every matrix, one after the other, so that only one exists twice at a time."""
        for matrix in self._matrices:
            matrix.pack(batch)

    def lay_out(self, chosen: dict[Linear, str], many: set[Linear], kernels: Any, batch: int) -> None:
        """Give each product its kernel (``plain``, ``packed`` or ``native``), laid out for ``batch`` rows.

        Native products in ``many`` take prompts, too. What is no :class:`Linear` is packed unless every
        product stays plain.
        """
        packing = any(kernel != "plain" for kernel in chosen.values())
        for matrix in self._matrices:
            if not isinstance(matrix, Linear):
                if packing:
                    matrix.pack(batch)
            elif chosen[matrix] == "packed":
                matrix.pack(batch)
            elif chosen[matrix] == "native":
                matrix.native, matrix.native_many = kernels, matrix in many

    @property
    def packing_bytes(self) -> int:
        """Bytes needed beside the weights while packing, which for a tied head stay in use."""
        return max(_bytes(matrix.weight) for matrix in self._matrices)

    @property
    def weights_bytes(self) -> int:
        """Bytes of all weights as they are allocated now, each weight once."""
        held = {id(matrix.weight): matrix.weight for matrix in self._matrices if matrix.weight is not None}
        held.update((id(weight), weight) for weight in self._plain)
        packed = sum(matrix.packed_bytes for matrix in self._matrices)
        return sum(map(_bytes, held.values())) + packed - self.weight_copies_bytes

    @property
    def weight_copies_bytes(self) -> int:
        """Bytes of packed copies of weights that are held as they were, too: that of a tied head."""
        return sum(matrix.packed_bytes for matrix in self._shared)

    @property
    def kv_cache_bytes(self) -> int:
        """Bytes of the cache."""
        return sum(map(_bytes, self._cache))


def packing_fault(dtype: Any, device: Any) -> str | None:
    """Return why matrices of ``dtype`` on ``device`` cannot be packed, or None when they can."""
    if device.type != "cpu" or not torch.backends.mkldnn.is_available():
        return "no oneDNN on this device"
    try:
        sample = Linear(torch.ones(64, 64, dtype=dtype), None)
        sample.pack(1)
        product = sample(torch.ones(1, 64, dtype=dtype))
        sample.packed_bytes  # noqa: B018  an operator that older builds lack
    except (RuntimeError, AttributeError) as error:
        return str(error).splitlines()[0]
    return None if bool((product == 64).all()) else "oneDNN computed a wrong sample"


def _bytes(tensor: Any) -> int:
    return int(tensor.numel() * tensor.element_size())
