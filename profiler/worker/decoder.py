"""One decoder in plain PyTorch for Llama 3.x, Qwen2 and 2.5, Qwen3, Qwen3-MoE and DeepSeek-V3/R1.

All sequences of a batch are equally long, so the position is a number on the host: the cache is
sliced to what is filled, attention needs no mask, and a decode run never waits for the device.

Each part takes its own (fused) tensors from :class:`Parameters` and names the Hugging Face tensors
that lie in them through ``tensors()``; whoever fills the weights writes through these views.
"""

from __future__ import annotations

import re
from typing import Any, Iterator

import torch
import torch.nn.functional as F  # noqa: N812  the name everybody knows it by

from .attention import GroupedQueryAttention, LatentAttention
from .elementwise import rms_norm
from .experts import DenseMlp, MixtureOfExperts
from .native_kernels import MAX_ROWS, Fused, Part
from .parameters import Parameters
from .places import DevicePlace, HostPlace
from .protocol import EngineError
from .rotary import rotary_table
from .torch_support import FAMILIES, ROPE_TYPES

Named = Iterator[tuple[str, Any]]


class Decoder:
    """The whole model with its cache, or a slice of it; weights are uninitialised until somebody fills them.

    Args:
        architecture: fields of ``profiler.models.architecture.Architecture`` as a dict.
        parameters: allocates, on the right device and with a cache of the right size; one for each decoder.
        layers: the layers to build, by their number in the model; None builds all. A slice leaves layers
            out and connects the others: it does their work, and generates nonsense.

    Raises:
        EngineError: ``unsupported``, naming the family or the rotary scaling.
    """

    def __init__(
        self, architecture: dict[str, Any], parameters: Parameters, layers: list[int] | None = None
    ) -> None:
        require_supported(architecture)
        vocabulary, hidden = architecture["vocab_size"], architecture["hidden_size"]
        self.vocab_size, self._tied = vocabulary, architecture["tied_embeddings"]
        self.dtype = parameters.dtype
        self._eps, self._architecture = architecture["norm_eps"], architecture
        self._embedding = parameters.tensor(vocabulary, hidden)
        numbers = range(architecture["layers"]) if layers is None else layers
        self._layers = {number: Layer(number, architecture, parameters) for number in numbers}
        self._norm = parameters.tensor(hidden)
        self._head = parameters.head(vocabulary, hidden, self._embedding if self._tied else None)
        table = rotary_table(architecture, parameters.max_tokens)
        self._fused_head: Any = None
        self._cos, self._sin = (part.to(parameters.dtype).to(parameters.storage) for part in table)

    @property
    def details(self) -> dict[str, str | None]:
        """How attention and experts are computed, in words."""
        kinds = [layer.kinds for layer in self._layers.values()]
        experts = [experts for _, experts in kinds if experts is not None]
        return {"attention": kinds[0][0], "experts": experts[0] if experts else None}

    def tensors(self) -> Named:
        """Yield (Hugging Face name, view to fill) of every weight, a tied head only as the embedding.

        Only before :meth:`Parameters.pack`, after which there is nothing left to fill.
        """
        yield "model.embed_tokens.weight", self._embedding
        for number, layer in self._layers.items():
            for name, tensor in layer.tensors():
                yield f"model.layers.{number}.{name}", tensor
        yield "model.norm.weight", self._norm
        if not self._tied:
            yield "lm_head.weight", self._head.weight

    def leaves_out(self, name: str) -> bool:
        """Whether a checkpoint of this model may hold the tensor ``name``, which the decoder does not use.

        A tied head, rotary frequencies (old Llama checkpoints carry them, they follow from the
        configuration), layers outside a slice, and DeepSeek's layers for multi-token prediction,
        which come after the last one.
        """
        if name.endswith(".rotary_emb.inv_freq") or (self._tied and name == "lm_head.weight"):
            return True
        layer = re.match(r"model\.layers\.([0-9]{1,6})\.", name)
        if layer is None:
            return False
        number, predicting = int(layer.group(1)), self._architecture["family"] == "deepseek_v3"
        return predicting if number >= self._architecture["layers"] else number not in self._layers

    def forward(self, ids: Any, position: int) -> Any:
        """Return the logits ``[B, vocab]`` that follow the last of ``ids``.

        Args:
            ids: ``[B, T]`` int64 on the device: whole prompts (``position`` 0), or the next token of each.
            position: tokens of each sequence that are in the cache already.
        """
        return self.logits_at(ids, HostPlace(position, ids.shape[1]))

    def logits_at(self, ids: Any, place: HostPlace | DevicePlace) -> Any:
        """Like :meth:`forward`, for a position that may be known to the device only."""
        return self._logits(self._last(ids, place))

    def step(self, ids: Any, position: int) -> Any:
        """Like :meth:`forward`, but return the greedy next tokens ``[B, 1]``, still on the device."""
        if self._fused_head is not None and len(ids) <= MAX_ROWS:
            return self._fused_head(self._last(ids, HostPlace(position, ids.shape[1])))[1]
        return self.forward(ids, position).argmax(-1, keepdim=True)

    def fuse(self) -> list[str]:
        """Let native code do whole parts of a step, wherever all their products are native.

        Returns:
            The kinds of parts that are fused in any layer.
        """
        kinds = {kind for layer in self._layers.values() for kind in layer.fuse((self._cos, self._sin))}
        if self._head.native is not None:
            self._fused_head = self._head.native.head(self._norm, self._head.weight, self._eps)
            kinds.add("head")
        return sorted(kinds)

    def unfuse(self) -> None:
        """Compute every part by operators again."""
        self._fused_head = None
        for layer in self._layers.values():
            layer.unfuse()

    def fuse_prompts(self, kernels: Any, whole: bool = True) -> list[str]:
        """Let native code do parts of a prompt, too.

        Args:
            kernels: what to call, or None for PyTorch's operators.
            whole: whole parts where their products are native, not only what lies between products.

        Returns:
            The kinds of parts that it does in any layer.
        """
        rotary = self._cos, self._sin
        layers = self._layers.values()
        return sorted({kind for layer in layers for kind in layer.fuse_prompts(rotary, kernels, whole)})

    def part_samples(self, batch: int) -> dict[str, Any]:
        """Return a faint stream of noise after the first and after the last layer, and the head's logits.

        To compare ways of computing them; a prompt overwrites what it leaves in the cache. The noise is
        faint, so that what a layer adds to it does not drown in the rounding of the stream.
        """
        stream = self._noise(batch, 1)
        samples = {"the head": self._logits(stream[:, -1])}
        for number in {min(self._layers), max(self._layers)}:
            for position in range(min(3, len(self._cos))):
                after = self._through(number, stream, HostPlace(position, 1))
            samples[f"layer {number}"] = after
        return samples

    def prompt_sample(self, batch: int, tokens: int) -> Any:
        """Return noise ``[batch, tokens, hidden]`` as a prompt after the first layer; see above."""
        return self._through(min(self._layers), self._noise(batch, tokens), HostPlace(0, tokens))

    def _noise(self, batch: int, tokens: int) -> Any:
        generator = torch.Generator().manual_seed(2)
        stream = torch.randn(batch, tokens, self._embedding.shape[1], generator=generator) / 128
        return stream.to(self._embedding.dtype).to(self._embedding.device)

    def _through(self, number: int, stream: Any, place: HostPlace) -> Any:
        return self._layers[number](stream.clone(), (place.rows(self._cos), place.rows(self._sin)), place)

    def _logits(self, last: Any) -> Any:
        """Return ``[B, vocab]`` for the residual stream ``[B, hidden]``."""
        if self._fused_head is not None and len(last) <= MAX_ROWS:
            return self._fused_head(last)[0].clone()
        return self._head(rms_norm(last, self._norm, self._eps))

    def _last(self, ids: Any, place: HostPlace | DevicePlace) -> Any:
        """Return the residual stream ``[B, hidden]`` of the last of ``ids``."""
        rotary = place.rows(self._cos), place.rows(self._sin)
        x = F.embedding(ids, self._embedding)
        for layer in self._layers.values():
            x = layer(x, rotary, place)
        return x[:, -1]


class Layer:
    """One decoder layer: attention and MLP, each after its norm and added to the residual stream."""

    def __init__(self, number: int, architecture: dict[str, Any], parameters: Parameters) -> None:
        hidden, moe = architecture["hidden_size"], architecture["experts"]
        self._eps = architecture["norm_eps"]
        self._input_norm = parameters.tensor(hidden)
        latent = architecture["latent_attention"] is not None
        self._attention = (LatentAttention if latent else GroupedQueryAttention)(architecture, parameters)
        self._mlp_norm = parameters.tensor(hidden)
        self._mlp: DenseMlp | MixtureOfExperts
        if moe is None or number < moe["dense_layers"]:
            self._mlp = DenseMlp(hidden, architecture["intermediate_size"], parameters)
        else:
            self._mlp = MixtureOfExperts(architecture, parameters)
        self._parts: dict[str, Part] = {}
        self._fused_steps: dict[str, Fused] = {}
        self._fused_prompts: dict[str, Fused] = {}

    @property
    def kinds(self) -> tuple[str, str | None]:
        """How its attention and, where it has them, its experts are computed."""
        mlp = self._mlp
        return self._attention.kind, mlp.routed.kind if isinstance(mlp, MixtureOfExperts) else None

    def tensors(self) -> Named:
        """Yield (name below ``model.layers.N``, view to fill)."""
        yield "input_layernorm.weight", self._input_norm
        yield from self._attention.tensors()
        yield "post_attention_layernorm.weight", self._mlp_norm
        yield from self._mlp.tensors()

    def __call__(self, x: Any, rotary: tuple[Any, Any], place: Any) -> Any:
        """Return the residual stream ``[B, T, hidden]`` after this layer; ``x`` may be overwritten."""
        fused = self._fused_prompts if x.shape[1] > 1 else self._fused_steps if len(x) <= MAX_ROWS else {}
        if "attention" in fused:
            fused["attention"](x, place.position)
        else:
            x = x + self._attention(rms_norm(x, self._input_norm, self._eps), rotary, place)
        if "MLP" in fused:
            fused["MLP"](x, place.position)
            return x
        return x + self._mlp(rms_norm(x, self._mlp_norm, self._eps))

    def fuse(self, rotary: tuple[Any, Any]) -> list[str]:
        """Use one native call for each part of a step whose products are all native; return these parts."""
        parts = {
            "attention": self._attention.fused(self._input_norm, rotary),
            "MLP": self._mlp.fused(self._mlp_norm, self._eps),
        }
        self._parts = {name: part for name, part in parts.items() if part is not None}
        self._fused_steps = {name: part.step for name, part in self._parts.items()}
        return list(self._parts)

    def fuse_prompts(self, rotary: tuple[Any, Any], kernels: Any, whole: bool) -> list[str]:
        """Use the native calls for prompts, or (``kernels`` None) no longer; return their names."""
        calls = {name: part.prompt for name, part in self._parts.items()} if kernels and whole else {}
        self._fused_prompts = {name: call for name, call in calls.items() if call is not None}
        between = {
            "attention scores": self._attention.attend_natively(kernels, rotary)
            and "attention" not in self._fused_prompts,
            "gating": self._mlp.gate_natively(kernels) and "MLP" not in self._fused_prompts,
        }
        return [*self._fused_prompts, *(name for name, used in between.items() if used)]

    def unfuse(self) -> None:
        """Compute all parts by operators again."""
        self._parts, self._fused_steps, self._fused_prompts = {}, {}, {}


def require_supported(architecture: dict[str, Any]) -> None:
    """Refuse what this decoder would compute wrongly.

    Raises:
        EngineError: ``unsupported``.
    """
    family, scaling = architecture["family"], architecture["rope_scaling"] or {}
    if family not in FAMILIES:
        raise EngineError(
            "unsupported",
            f"the torch engine does not run the family {family} (it runs {', '.join(FAMILIES)})",
        )
    kind = scaling.get("rope_type", "default")
    if kind not in ROPE_TYPES:
        raise EngineError(
            "unsupported",
            f"the torch engine does not know rope_type {kind} (it knows {', '.join(ROPE_TYPES)})",
        )
