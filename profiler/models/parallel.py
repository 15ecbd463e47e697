"""A model spread over several devices: whether it divides, and what each device has to hold.

Words and rules are vLLM's: tensor parallel ranks share every matrix, pipeline stages the layers, data
parallel copies the requests, and expert parallel puts whole experts on each of the ``tp * dp`` ranks of a
stage (vLLM, "Parallelism and Scaling", "Expert Parallel Deployment").
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass

from profiler.models import accounting
from profiler.models.architecture import Architecture
from profiler.models.formats import Formats, kv_bytes
from profiler.models.tensors import TensorGroup, tensor_groups

# Every rank has them whole: norms, and what chooses the experts.
_WHOLE_PARTS = ("norms", "router", "routing_bias")
# Latent attention's projections into its small spaces; vLLM does not split them.
_WHOLE_NAMES = ("q_a_proj", "kv_a_proj_with_mqa")
_KEY_VALUE = ("k_proj", "v_proj")


@dataclass(frozen=True)
class Parallel:
    """How a model is spread; all 1 is one device.

    Attributes:
        tp: devices that share each matrix.
        pp: groups of layers, one after the other.
        dp: copies that take different requests.
        ep: devices that the experts of a layer are spread over; 1 where they are split like other matrices.
    """

    tp: int = 1
    pp: int = 1
    dp: int = 1
    ep: int = 1

    @property
    def devices(self) -> int:
        """Devices that it takes."""
        return self.tp * self.pp * self.dp

    @property
    def is_one(self) -> bool:
        """Whether nothing is spread."""
        return self.tp == self.pp == self.dp == self.ep == 1

    def __str__(self) -> str:
        named = {"tp": self.tp, "pp": self.pp, "dp": self.dp, "ep": self.ep}
        return " ".join(f"--{name} {count}" for name, count in named.items() if count > 1)


ONE_DEVICE = Parallel()


@dataclass(frozen=True)
class DeviceShare:
    """What the fullest device holds, bytes.

    Attributes:
        weights_bytes: of its share of the weights, copies that it keeps included.
        kv_cache_bytes: of its share of the cache.
    """

    weights_bytes: int
    kv_cache_bytes: int


def why_not(arch: Architecture, parallel: Parallel) -> str | None:
    """Return in one line why a model cannot be spread so, or None."""
    tp, ep = parallel.tp, parallel.ep
    if arch.heads % tp:
        return f"--tp {tp} does not divide the {arch.heads} attention heads"
    if arch.latent_attention is None and max(arch.kv_heads, tp) % min(arch.kv_heads, tp):
        return f"--tp {tp} neither divides the {arch.kv_heads} KV heads nor is a multiple of them"
    if arch.intermediate_size % tp:
        return f"--tp {tp} does not divide the MLP's width of {arch.intermediate_size}"
    if parallel.pp > arch.layers:
        return f"--pp {parallel.pp} is more than the {arch.layers} layers"
    if ep == 1:
        if arch.experts is not None and arch.experts.intermediate_size % tp:
            width = arch.experts.intermediate_size
            return f"--tp {tp} does not divide an expert's width of {width}; spread whole experts with --ep"
        return None
    if arch.experts is None:
        return f"--ep {ep}: the model has no experts"
    if ep != tp * parallel.dp:
        return f"--ep {ep} must be --tp x --dp = {tp * parallel.dp}: experts go over the ranks of these"
    if arch.experts.count % ep:
        return f"--ep {ep} does not divide the {arch.experts.count} experts"
    return None


def stage_layers(layers: int, stages: int) -> list[range]:
    """Return the layers of each pipeline stage.

    Where they do not divide, the stages before the last get one more each, as in vLLM (``get_pp_indices``),
    because the last one has the output head beside.
    """
    each, left = divmod(layers, stages)
    sizes = [each] * stages
    for number in range(left):
        sizes[-(number + 2) % stages] += 1
    bounds = [sum(sizes[:number]) for number in range(stages + 1)]
    return [range(begin, end) for begin, end in itertools.pairwise(bounds)]


def device_share(
    arch: Architecture, formats: Formats, parallel: Parallel, *, tokens: int, batch: int
) -> DeviceShare:
    """Return what the fullest device holds.

    Args:
        arch: the model.
        formats: number formats.
        parallel: how it is spread; :func:`why_not` has nothing against it.
        tokens: of each request, prompt and output.
        batch: requests that run together, over all copies.
    """
    stages = stage_layers(arch.layers, parallel.pp)
    weights = [_stage_bytes(arch, formats, parallel, number, layers) for number, layers in enumerate(stages)]
    latent = arch.latent_attention
    if latent is not None:
        values = latent.kv_rank + latent.rope_head_dim  # one for all heads, so on every rank
    else:
        values = 2 * max(1, arch.kv_heads // parallel.tp) * arch.head_dim
    requests = -(-batch // parallel.dp)
    per_layer = kv_bytes(formats.kv_dtype, values) * tokens * requests
    return DeviceShare(max(weights), per_layer * max(len(layers) for layers in stages))


def _stage_bytes(arch: Architecture, formats: Formats, parallel: Parallel, stage: int, layers: range) -> int:
    total = 0
    for group in tensor_groups(arch):
        if group.layers is not None:
            inside = len(set(group.layers) & set(layers))
        else:
            inside = int(_in_stage(group, arch, stage, parallel.pp))
        count = inside * group.experts
        total += -(-count * accounting.group_bytes(group, arch, formats) // _split(group, arch, parallel))
    return total


def _in_stage(group: TensorGroup, arch: Architecture, stage: int, stages: int) -> bool:
    """Whether a tensor outside the layers is needed in a stage; a tied embedding is both first and last."""
    first, last = stage == 0, stage == stages - 1
    if group.part == "embedding":
        return first or (last and arch.tied_embeddings)
    return last


def _split(group: TensorGroup, arch: Architecture, parallel: Parallel) -> int:
    """Return over how many ranks a tensor is split."""
    if group.part in _WHOLE_PARTS or any(name in group.pattern for name in _WHOLE_NAMES):
        return 1
    if group.part == "routed_experts" and parallel.ep > 1:
        return parallel.ep
    if any(name in group.pattern for name in _KEY_VALUE):
        return min(parallel.tp, arch.kv_heads)
    return parallel.tp
