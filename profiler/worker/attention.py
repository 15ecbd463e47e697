"""The two kinds of attention: grouped queries (GQA), and latent attention (MLA) over a compressed cache.

Shapes: B sequences, T new tokens of each, H query heads, S positions in the cache. A prompt goes in
whole, at position 0; after it one token of each sequence at a time. Each class names the Hugging Face
tensors that lie in its own (fused) ones through ``tensors()``.
"""

from __future__ import annotations

from typing import Any, Iterator

import torch
import torch.nn.functional as F  # noqa: N812  the name everybody knows it by

from .elementwise import rms_norm, rotate, rotate_pairs
from .parameters import Parameters
from .rotary import latent_scale

Named = Iterator[tuple[str, Any]]

# DeepSeek's norms inside attention do not follow ``rms_norm_eps``, in transformers as in its own code.
_LATENT_EPS = 1e-6


class GroupedQueryAttention:
    """Attention with K key-value heads of width D shared by H query heads; q, k and v in one projection.

    With G = H / K queries for each key-value head.
    """

    kind = "scaled_dot_product_attention, grouped queries, contiguous static cache"

    def __init__(self, architecture: dict[str, Any], parameters: Parameters) -> None:
        hidden, eps = architecture["hidden_size"], architecture["norm_eps"]
        self._heads, self._kv_heads = architecture["heads"], architecture["kv_heads"]
        self._width, self._eps = architecture["head_dim"], eps
        query, key = self._heads * self._width, self._kv_heads * self._width
        self._rows = {
            "q": slice(0, query),
            "k": slice(query, query + key),
            "v": slice(query + key, query + 2 * key),
        }
        self._qkv = parameters.linear(query + 2 * key, hidden, architecture["attention_bias"])
        self._out = parameters.linear(hidden, query)
        normed = ("q", "k") if architecture["qk_norm"] else ()
        self._norms = {part: parameters.tensor(self._width) for part in normed}
        self._keys = parameters.cache(self._kv_heads, self._width)
        self._values = parameters.cache(self._kv_heads, self._width)
        self._native_scores: Any = None

    def tensors(self) -> Named:
        """Yield (name below the layer, view to fill); q, k and v are rows of the fused tensors."""
        for part, rows in self._rows.items():
            yield f"self_attn.{part}_proj.weight", self._qkv.weight[rows]
            if self._qkv.bias is not None:
                yield f"self_attn.{part}_proj.bias", self._qkv.bias[rows]
        for part, norm in self._norms.items():
            yield f"self_attn.{part}_norm.weight", norm
        yield "self_attn.o_proj.weight", self._out.weight

    def fused(self, norm: Any, rotary: tuple[Any, Any]) -> Any:
        """Return the :class:`native_kernels.Part` that norms, attends and adds, or None.

        Args:
            norm: ``[hidden]``, the weight of the norm before this.
            rotary: both whole tables, ``[max_tokens, 1, D/2]``.
        """
        kernels = self._qkv.native
        if kernels is None or self._out.native is None:
            return None
        products = {"qkv": self._qkv.weight, "bias": self._qkv.bias, "out": self._out.weight}
        tensors = {"norm": norm, **products, **self._between(rotary)}
        return kernels.attention(self._sizes(len(norm)), tensors)

    def attend_natively(self, kernels: Any, rotary: tuple[Any, Any]) -> bool:
        """Let ``kernels`` do what lies between the two products, for prompts; None takes it back.

        Returns:
            Whether they can.
        """
        self._native_scores = (
            None if kernels is None else kernels.scores(self._sizes(0), self._between(rotary))
        )
        return self._native_scores is not None

    def _sizes(self, hidden: int) -> dict[str, Any]:
        return {
            "hidden": hidden,
            "heads": self._heads,
            "kv_heads": self._kv_heads,
            "width": self._width,
            "max_tokens": self._keys.shape[2],
            "eps": self._eps,
        }

    def _between(self, rotary: tuple[Any, Any]) -> dict[str, Any]:
        """Return the tensors that attention uses between its products."""
        return {
            "query_norm": self._norms.get("q"),
            "key_norm": self._norms.get("k"),
            "cosines": rotary[0],
            "sines": rotary[1],
            "keys": self._keys,
            "values": self._values,
        }

    def __call__(self, x: Any, rotary: tuple[Any, Any], place: Any) -> Any:
        """Write the new keys and values at ``place`` and return what ``[B, T, hidden]`` attends to."""
        batch, new_tokens, _ = x.shape
        projected = self._qkv(x)
        if new_tokens > 1 and self._native_scores is not None:
            return self._out(self._native_scores(projected))
        heads = projected.view(batch, new_tokens, -1, self._width)
        queries_keys, values = heads.split([self._heads + self._kv_heads, self._kv_heads], 2)
        if self._norms:
            queries, keys = queries_keys.split([self._heads, self._kv_heads], 2)
            queries = rms_norm(queries, self._norms["q"], self._eps)
            queries_keys = torch.cat((queries, rms_norm(keys, self._norms["k"], self._eps)), 2)
        queries, keys = rotate(queries_keys, *rotary).split([self._heads, self._kv_heads], 2)
        place.write(self._keys[:batch], keys.transpose(1, 2))
        place.write(self._values[:batch], values.transpose(1, 2))
        return self._out(self._attend(queries, place.end, place.mask))

    def _attend(self, queries: Any, end: int, mask: Any) -> Any:
        """Return ``[B, T, H * D]`` for queries ``[B, T, H, D]`` over the first ``end`` positions."""
        batch, new_tokens, _, width = queries.shape
        kv_heads, group = self._kv_heads, self._heads // self._kv_heads
        keys, values = self._keys[:batch, :, :end], self._values[:batch, :, :end]
        if new_tokens == 1:
            # The G queries that share a key-value head stand where T queries of one head would.
            grouped = queries.reshape(batch, kv_heads, group, width)
            mask = None if mask is None else mask.expand(batch, kv_heads, group, end)
            return F.scaled_dot_product_attention(grouped, keys, values, mask).reshape(batch, 1, -1)
        # Key-value heads become the batch, and each is seen (stride 0, no copy) by its G queries.
        shape = (batch * kv_heads, group, end, width)
        queries = queries.view(batch, new_tokens, kv_heads, group, width).permute(0, 2, 3, 1, 4)
        keys, values = (part.flatten(0, 1).unsqueeze(1).expand(shape) for part in (keys, values))
        attended = F.scaled_dot_product_attention(queries.reshape(shape), keys, values, is_causal=True)
        by_head = attended.view(batch, kv_heads * group, new_tokens, width)
        return by_head.transpose(1, 2).reshape(batch, new_tokens, -1)


class LatentAttention:
    """DeepSeek's latent attention (arXiv:2405.04434, section 2.1): H heads over one compressed vector.

    The cache holds a vector of R numbers and a rotary key of P for each position, shared by all heads;
    each head's N numbers of key and V of value are up-projections of it. A prompt expands its own
    vectors, which takes the fewest operations. A decode step never does, since that would read and
    write H (N + V) numbers where R + P are cached: it takes the queries into the compressed space
    (the up-projection absorbed), attends there, and projects the mixed vector up.
    """

    kind = "latent, expanded at prefill, absorbed at decode over a contiguous static compressed cache"

    def __init__(self, architecture: dict[str, Any], parameters: Parameters) -> None:
        latent, hidden = architecture["latent_attention"], architecture["hidden_size"]
        self._rank, self._rope = latent["kv_rank"], latent["rope_head_dim"]
        self._nope, self._value = latent["nope_head_dim"], latent["value_head_dim"]
        self._heads, self._scale = architecture["heads"], latent_scale(architecture)
        query, rank = self._heads * (self._nope + self._rope), latent["query_rank"]
        self._first = query if rank is None else rank
        self._down = parameters.linear(self._first + self._rank + self._rope, hidden)
        self._query_norm = None if rank is None else parameters.tensor(rank)
        self._query_up = None if rank is None else parameters.linear(query, rank)
        self._norm = parameters.tensor(self._rank)
        up = UpProjection(self._heads, self._nope, self._value, self._rank, parameters)
        self._up = parameters.matrix(up)
        self._out = parameters.linear(hidden, self._heads * self._value)
        self._cache = parameters.cache(1, self._rank + self._rope)

    def tensors(self) -> Named:
        """Yield (name below the layer, view to fill); both projections from the stream are fused."""
        queries, keys_values = self._down.weight[: self._first], self._down.weight[self._first :]
        if self._query_up is None:
            yield "self_attn.q_proj.weight", queries
        else:
            yield "self_attn.q_a_proj.weight", queries
            yield "self_attn.q_a_layernorm.weight", self._query_norm
            yield "self_attn.q_b_proj.weight", self._query_up.weight
        yield "self_attn.kv_a_proj_with_mqa.weight", keys_values
        yield "self_attn.kv_a_layernorm.weight", self._norm
        yield "self_attn.kv_b_proj.weight", self._up.weight
        yield "self_attn.o_proj.weight", self._out.weight

    def fused(self, norm: Any, rotary: tuple[Any, Any]) -> None:
        """There is no native call for the whole of it, only for its products."""

    def attend_natively(self, kernels: Any, rotary: tuple[Any, Any]) -> bool:
        """There is none for what lies between its products either."""
        return False

    def __call__(self, x: Any, rotary: tuple[Any, Any], place: Any) -> Any:
        """Write the new compressed vectors at ``place``; return what ``[B, T, hidden]`` attends to."""
        batch, new_tokens, _ = x.shape
        queries, compressed, key_rope = self._down(x).split([self._first, self._rank, self._rope], -1)
        if self._query_up is not None:
            queries = self._query_up(rms_norm(queries, self._query_norm, _LATENT_EPS))
        queries = queries.view(batch, new_tokens, self._heads, -1)
        plain, turned = queries.split([self._nope, self._rope], -1)
        rotated = rotate_pairs(torch.cat((turned, key_rope.unsqueeze(2)), 2), *rotary)
        turned, key_rope = rotated.split([self._heads, 1], 2)
        compressed = rms_norm(compressed, self._norm, _LATENT_EPS)
        new = torch.cat((compressed, key_rope.squeeze(2)), -1)
        place.write(self._cache[:batch], new.unsqueeze(1))
        if new_tokens == 1:
            return self._out(self._absorbed(plain, turned, place.end, place.mask))
        return self._out(self._expanded(plain, turned, compressed, key_rope))

    def _absorbed(self, plain: Any, turned: Any, end: int, mask: Any) -> Any:
        """Return ``[B, 1, H * V]`` for queries ``[B, 1, H, N]`` and ``[B, 1, H, P]`` over the cache.

        All heads are rows of one matrix against the one cached vector, so plain products keep the
        units busy where attention kernels, made for a head of its own, have little to do in parallel.
        """
        batch = plain.shape[0]
        queries = torch.cat((self._up.absorb(plain[:, 0]), turned[:, 0]), -1) * self._scale
        cached = self._cache[:batch, 0, :end]
        scores = torch.bmm(queries, cached.transpose(1, 2))
        if mask is not None:
            scores = scores.masked_fill(~mask, float("-inf"))
        shares = torch.softmax(scores, -1, dtype=torch.float32).to(plain.dtype)
        mixed = torch.bmm(shares, cached[..., : self._rank])
        return self._up.values(mixed).reshape(batch, 1, -1)

    def _expanded(self, plain: Any, turned: Any, compressed: Any, key_rope: Any) -> Any:
        """Return ``[B, T, H * V]`` for T tokens that attend to each other, earlier ones only."""
        batch, new_tokens = plain.shape[:2]
        keys, values = self._up.expand(compressed)
        keys = torch.cat((keys, key_rope.expand(-1, -1, self._heads, -1)), -1)
        queries = torch.cat((plain, turned), -1)
        missing = queries.shape[-1] - self._value
        if missing > 0:  # the tiled kernels, which build no T x T matrix, want one width for all three
            values = F.pad(values, (0, missing))
        queries, keys, values = (part.transpose(1, 2) for part in (queries, keys, values))
        attended = F.scaled_dot_product_attention(queries, keys, values, is_causal=True, scale=self._scale)
        return attended.transpose(1, 2)[..., : self._value].reshape(batch, new_tokens, -1)


class UpProjection:
    """From the compressed vector (R) to keys (N) and values (V) of each head, and the way back.

    Attributes:
        weight: ``[H (N + V), R]``, the rows of each head together, to be filled; None once packed.
    """

    def __init__(self, heads: int, nope: int, value: int, rank: int, parameters: Parameters) -> None:
        self.weight = parameters.empty(heads * (nope + value), rank)
        self._shape = heads, nope, value
        self._packed: Any = None

    def pack(self, batch: int) -> None:
        """Take keys and values apart, each head's as :meth:`absorb` and :meth:`values` read them.

        On CPUs a batched product over parts of one tensor copies it first, at a tenth of the speed.
        """
        keys, values = self._parts()
        self._packed = keys.contiguous(), values.contiguous()
        self.weight = None

    @property
    def packed_bytes(self) -> int:
        """Bytes of the parts; 0 while they are one tensor."""
        return sum(part.numel() * part.element_size() for part in self._packed or ())

    def absorb(self, queries: Any) -> Any:
        """Return ``[B, H, R]``, which meets a compressed vector as ``queries [B, H, N]`` meet its keys."""
        return torch.bmm(queries.transpose(0, 1), self._parts()[0]).transpose(0, 1)

    def values(self, mixed: Any) -> Any:
        """Return ``[B, H, V]`` for compressed vectors ``[B, H, R]``, one of each head."""
        return torch.bmm(mixed.transpose(0, 1), self._parts()[1]).transpose(0, 1)

    def expand(self, compressed: Any) -> tuple[Any, Any]:
        """Return keys ``[B, T, H, N]`` and values ``[B, T, H, V]`` of ``[B, T, R]``."""
        heads, nope, value = self._shape
        if self.weight is not None:
            both = F.linear(compressed, self.weight).unflatten(-1, (heads, nope + value))
            return both.split([nope, value], -1)  # type: ignore[no-any-return]
        keys, values = self._packed
        parts = (keys.flatten(0, 1), values.transpose(1, 2).flatten(0, 1))
        keys, values = (F.linear(compressed, part).unflatten(-1, (heads, -1)) for part in parts)
        return keys, values

    def _parts(self) -> Any:
        """Return ``[H, N, R]`` and ``[H, R, V]``."""
        if self._packed is not None:
            return self._packed
        heads, nope, value = self._shape
        keys, values = self.weight.view(heads, nope + value, -1).split([nope, value], 1)
        return keys, values.transpose(1, 2)
