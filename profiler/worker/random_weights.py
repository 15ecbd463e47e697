"""Random weights that are bit-identical on every device: N(0, 0.02) from a counter.

Every value depends on ``(seed, tensor name, flat index)`` and on nothing else: not on the device,
the order of filling, the size of the chunks, or how an engine fuses its tensors. This is the
recipe, complete, for whoever writes the same tensors into a checkpoint:

1. Key of a tensor: the first 8 bytes of ``SHA-256("aiprof-weights-1|<seed>|<name>")`` as two
   little-endian unsigned 32-bit integers ``k0, k1``; ``name`` is the Hugging Face tensor name.
2. Counter ``c`` = flat index (row-major, in the tensor's Hugging Face shape) // 2. All modulo 2^32::

       x = c + k0
       x ^= x >> 16;  x *= 0x7FEB352D
       x += k1                             # without it all tensors would share one sequence, shifted
       x ^= x >> 15;  x *= 0x846CA68B
       x ^= x >> 16

   (the mixing function is ``lowbias32`` of Chris Wellons' hash prospector with a key in its middle).
3. An even flat index takes the lower 16 bits of ``x``, an odd one the upper 16 bits: ``j``.
4. Value = 0.02 * ``NormalDist().inv_cdf((j + 0.5) / 65536)`` in double precision, rounded to float32
   and from there to the target type, both to nearest even. So bf16 weights are the fp32 ones, rounded.
5. Tensors whose name ends in ``norm.weight`` are 1. Everything else, biases included, follows 1 to 4.

The table of 65,536 quantiles has the standard deviation 0.02 to four digits and ends at ±4.3 sigma.
"""

from __future__ import annotations

from typing import Any

import torch

from .protocol import EngineError
from .weight_recipe import MAX_VALUES, MULTIPLIER_1, MULTIPLIER_2, STANDARD_DEVIATION, quantiles, tensor_key

# Hashes per chunk: on the CPU three int32/int64 scratch buffers that stay in the second-level cache,
# elsewhere enough work per kernel launch.
_CHUNK = {"cpu": 1 << 16}
_CHUNK_ACCELERATOR = 1 << 22


def _signed(value: int) -> int:
    """Return ``value`` modulo 2^32 as the int32 with the same bits."""
    return ((value + (1 << 31)) & 0xFFFFFFFF) - (1 << 31)


class RandomWeights:
    """Fills tensors on one device.

    Args:
        seed: any integer; part of every tensor's key.
        device: where the destinations are; all arithmetic happens there.
        library: compiled code (native.py) that makes the same values faster, or None.
    """

    def __init__(self, seed: int, device: Any, library: Any = None) -> None:
        self._seed = seed
        self._library = library
        self._device = device
        self._tables: dict[Any, Any] = {}
        self._chunk = _CHUNK.get(torch.device(device).type, _CHUNK_ACCELERATOR)
        self._counter = torch.arange(self._chunk, dtype=torch.int32, device=device)
        self._scratch = torch.empty_like(self._counter)
        self._hash = torch.empty_like(self._counter)
        self._index = torch.empty(self._chunk, 2, dtype=torch.int64, device=device)

    def fill(self, name: str, destination: Any) -> None:
        """Write the tensor ``name`` into ``destination``, without a copy of it anywhere else.

        Args:
            name: Hugging Face tensor name.
            destination: contiguous tensor (or contiguous part of a fused one) of that tensor's shape,
                of any floating-point dtype.

        Raises:
            EngineError: ``unsupported`` beyond 2^33 values, where the counter would repeat.
        """
        if name.endswith("norm.weight"):
            destination.fill_(1)
            return
        self._fill(name, destination, self._table(destination.dtype))

    def fill_normal(self, name: str, destination: Any, deviation: float, mean: float = 0.0) -> None:
        """Write the same normal numbers with another deviation and mean, as bf16 numbers in any dtype.

        Args:
            name: as for :meth:`fill`, but norms are nothing special here.
            destination: as for :meth:`fill`.
            deviation: standard deviation.
            mean: mean.

        Raises:
            EngineError: as :meth:`fill`.
        """
        exact = torch.tensor(quantiles(), dtype=torch.float64) * (deviation / STANDARD_DEVIATION) + mean
        table = exact.float().bfloat16().to(destination.dtype).to(self._device)
        self._fill(name, destination, table)

    def _fill(self, name: str, destination: Any, table: Any) -> None:
        flat = destination.view(-1)
        if flat.numel() > MAX_VALUES:
            raise EngineError("unsupported", f"{name} has {flat.numel()} values, more than {MAX_VALUES}")
        key_0, key_1 = tensor_key(self._seed, name)
        if self._library is not None and self._library.fill(flat, key_0, key_1, table):
            return
        for start in range(0, flat.numel(), 2 * self._chunk):
            part = flat[start : start + 2 * self._chunk]
            self._hash_chunk(start // 2 + key_0, key_1)
            torch.index_select(table, 0, self._index.view(-1)[: part.numel()], out=part)

    def _table(self, dtype: Any) -> Any:
        """Return the quantiles as ``dtype`` on the device, made once."""
        if dtype not in self._tables:
            exact = torch.tensor(quantiles(), dtype=torch.float64)
            self._tables[dtype] = exact.float().to(dtype).to(self._device)
        return self._tables[dtype]

    def _hash_chunk(self, first: int, key_1: int) -> None:
        """Put the table indices that belong to the counters from ``first`` on into ``self._index``."""
        x, scratch = self._hash, self._scratch
        torch.add(self._counter, _signed(first), out=x)
        self._xor_shifted(x, scratch, 16)
        x.mul_(MULTIPLIER_1).add_(_signed(key_1))
        self._xor_shifted(x, scratch, 15)
        x.mul_(_signed(MULTIPLIER_2))
        # The last x ^= x >> 16 leaves the upper half as it is, so it costs one xor on the lower half.
        torch.bitwise_right_shift(x, 16, out=scratch).bitwise_and_(0xFFFF)
        self._index[:, 1].copy_(scratch)
        self._index[:, 0].copy_(x.bitwise_xor_(scratch).bitwise_and_(0xFFFF))

    @staticmethod
    def _xor_shifted(x: Any, scratch: Any, bits: int) -> None:
        # int32 shifts right arithmetically; the mask makes it the logical shift of the recipe.
        torch.bitwise_right_shift(x, bits, out=scratch).bitwise_and_((1 << (32 - bits)) - 1)
        x.bitwise_xor_(scratch)


def check_device(device: Any, dtype: Any) -> None:
    """Compare what ``device`` computes with the CPU, on a tensor that crosses no chunk.

    Raises:
        EngineError: ``device``, when the bits differ: the device's integer arithmetic does not wrap
            as the recipe needs, and results from it could not be compared with other boxes.
    """

    def sample(where: Any) -> Any:
        values = torch.empty(8191, dtype=dtype, device=where)
        RandomWeights(0, where).fill("check", values)
        return values.cpu()

    if torch.device(device).type != "cpu" and not torch.equal(sample(device), sample("cpu")):
        raise EngineError("device", f"random weights made on {device} differ from the CPU's")
