"""The fields of a ``config.json`` that matter here, one class per family, with what each may be.

Bounds are far above any real model; they keep a hostile file from making us count for ever.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, ClassVar, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationInfo, field_validator

from profiler.models.architecture import Experts, LatentAttention

MAX_EXPERTS_IN_ALL = 1 << 18

Size = Annotated[int, Field(gt=0, le=1 << 24)]
Count = Annotated[int, Field(gt=0, le=4096)]

_NOT_SUPPORTED = {
    "use_sliding_window": "sliding-window attention is",
    "attention_bias": "biases on all attention projections are",
    "mlp_bias": "biases in the MLP are",
}


class DecoderFields(BaseModel):
    """Fields that all families share. Unknown keys are ignored, as transformers does."""

    model_config = ConfigDict(strict=True, extra="ignore", frozen=True, allow_inf_nan=False)

    # Keys that other spellings stand for.
    spellings: ClassVar[Mapping[str, str]] = {}

    vocab_size: Size
    hidden_size: Size
    intermediate_size: Size
    num_hidden_layers: Count
    num_attention_heads: Count
    num_key_value_heads: Count | None = None
    head_dim: Count | None = None
    max_position_embeddings: Annotated[int, Field(gt=0, le=1 << 31)]
    rms_norm_eps: Annotated[float, Field(gt=0, lt=1)] = 1e-6
    tie_word_embeddings: bool = False
    hidden_act: Literal["silu"] = "silu"
    use_sliding_window: bool = False
    layer_types: list[Literal["full_attention"]] | None = None

    @field_validator("use_sliding_window", "attention_bias", "mlp_bias", check_fields=False)
    @classmethod
    def _must_be_off(cls, value: bool, info: ValidationInfo) -> bool:
        if value:
            raise ValueError(f"must be false: {_NOT_SUPPORTED[str(info.field_name)]} not supported")
        return value

    @property
    def width_of_head(self) -> int:
        """Width of one query and key head."""
        return self.head_dim or self.hidden_size // self.num_attention_heads

    @property
    def kv_heads(self) -> int:
        """Key-value heads; as many as query heads unless said otherwise."""
        return self.num_key_value_heads or self.num_attention_heads

    def conflicts(self) -> list[str]:
        """Faults that lie between fields."""
        faults = []
        if self.num_attention_heads % self.kv_heads:
            faults.append(
                f"num_key_value_heads: must divide num_attention_heads ({self.num_attention_heads}), "
                f"{self.kv_heads} does not"
            )
        if self.head_dim is None and self.hidden_size % self.num_attention_heads:
            faults.append(
                f"head_dim: is missing, and num_attention_heads ({self.num_attention_heads}) does not "
                f"divide hidden_size ({self.hidden_size})"
            )
        if self.rotary_width % 2:
            faults.append(f"head_dim: rotary embedding needs an even width, not {self.rotary_width}")
        if self.layer_types is not None and len(self.layer_types) != self.num_hidden_layers:
            faults.append(
                f"layer_types: has {len(self.layer_types)} entries for {self.num_hidden_layers} layers"
            )
        return faults

    @property
    def rotary_width(self) -> int:
        """Width of the part of a head that is rotated."""
        return self.width_of_head

    def experts(self) -> Experts | None:
        """The mixture-of-experts part."""
        return None

    def latent_attention(self) -> LatentAttention | None:
        """The MLA part."""
        return None


class _Unbiased(DecoderFields):
    """A family whose configurations can ask for biases; none of its published models does."""

    attention_bias: bool = False
    mlp_bias: bool = False


class _Llama(_Unbiased):
    pass


class _Qwen2(DecoderFields):
    """Qwen2 has biases on q, k and v, always and without a field that says so."""


class _Qwen3(_Unbiased):
    head_dim: Count | None = 128


class _Routed(_Unbiased):
    """A family with routed experts."""

    num_experts_per_tok: Count
    moe_intermediate_size: Size

    def conflicts(self) -> list[str]:
        moe = self.experts()
        assert moe is not None
        faults = super().conflicts()
        if moe.dense_layers > self.num_hidden_layers:
            faults.append(
                f"first_k_dense_replace: {moe.dense_layers} dense layers of {self.num_hidden_layers}"
            )
        if moe.count * self.num_hidden_layers > MAX_EXPERTS_IN_ALL:
            faults.append(
                f"{self.experts_field}: {moe.count} experts in {self.num_hidden_layers} layers are more "
                f"than {MAX_EXPERTS_IN_ALL} in all"
            )
        if moe.count % moe.groups or moe.groups_per_token > moe.groups:
            faults.append(
                f"n_group: {moe.groups} groups, {moe.groups_per_token} of them per token, do not fit "
                f"{moe.count} experts"
            )
        elif moe.per_token > moe.count // moe.groups * moe.groups_per_token:
            faults.append(
                f"num_experts_per_tok: {moe.per_token} per token are more than there are to choose from"
            )
        return faults

    experts_field: ClassVar[str] = "num_experts"


class _Qwen3Moe(_Routed):
    spellings: ClassVar[Mapping[str, str]] = {"num_local_experts": "num_experts"}

    num_experts: Count
    norm_topk_prob: bool = False
    decoder_sparse_step: Literal[1] = 1
    mlp_only_layers: list[Annotated[int, Field(ge=0, le=4096)]] = []

    def conflicts(self) -> list[str]:
        faults = super().conflicts()
        if sorted(self.mlp_only_layers) != list(range(len(self.mlp_only_layers))):
            faults.append("mlp_only_layers: only the first layers can be dense")
        return faults

    def experts(self) -> Experts:
        return Experts(
            count=self.num_experts,
            per_token=self.num_experts_per_tok,
            intermediate_size=self.moe_intermediate_size,
            dense_layers=len(self.mlp_only_layers),
            normalise=self.norm_topk_prob,
        )


class _DeepseekV3(_Routed):
    spellings: ClassVar[Mapping[str, str]] = {
        "num_local_experts": "n_routed_experts",
        "num_experts": "n_routed_experts",
    }
    experts_field: ClassVar[str] = "n_routed_experts"

    q_lora_rank: Size | None
    kv_lora_rank: Size
    qk_rope_head_dim: Count
    qk_nope_head_dim: Count
    v_head_dim: Count
    n_routed_experts: Count
    n_shared_experts: Annotated[int, Field(ge=0, le=4096)]
    first_k_dense_replace: Annotated[int, Field(ge=0, le=4096)]
    n_group: Count
    topk_group: Count
    norm_topk_prob: bool = True
    routed_scaling_factor: Annotated[float, Field(gt=0, le=1e6)]
    scoring_func: Literal["sigmoid"] = "sigmoid"
    topk_method: Literal["noaux_tc"] = "noaux_tc"
    moe_layer_freq: Literal[1] = 1
    rope_interleave: Literal[True] = True

    @property
    def width_of_head(self) -> int:
        return self.qk_nope_head_dim + self.qk_rope_head_dim

    @property
    def rotary_width(self) -> int:
        return self.qk_rope_head_dim

    def conflicts(self) -> list[str]:
        faults = [fault for fault in super().conflicts() if not fault.startswith("head_dim: is missing")]
        if self.kv_heads != self.num_attention_heads:
            faults.append(
                f"num_key_value_heads: latent attention has as many as num_attention_heads "
                f"({self.num_attention_heads}), not {self.kv_heads}"
            )
        return faults

    def experts(self) -> Experts:
        return Experts(
            count=self.n_routed_experts,
            per_token=self.num_experts_per_tok,
            intermediate_size=self.moe_intermediate_size,
            shared=self.n_shared_experts,
            dense_layers=self.first_k_dense_replace,
            groups=self.n_group,
            groups_per_token=self.topk_group,
            scoring=self.scoring_func,
            normalise=self.norm_topk_prob,
            scale=self.routed_scaling_factor,
            routing_bias=True,
        )

    def latent_attention(self) -> LatentAttention:
        return LatentAttention(
            query_rank=self.q_lora_rank,
            kv_rank=self.kv_lora_rank,
            rope_head_dim=self.qk_rope_head_dim,
            nope_head_dim=self.qk_nope_head_dim,
            value_head_dim=self.v_head_dim,
        )


FIELDS: Mapping[str, type[DecoderFields]] = {
    "llama": _Llama,
    "qwen2": _Qwen2,
    "qwen3": _Qwen3,
    "qwen3_moe": _Qwen3Moe,
    "deepseek_v3": _DeepseekV3,
}
"""The class that reads each family's configuration."""
