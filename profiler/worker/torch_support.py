"""What the torch engine can do, for both of its sides; imports nothing."""

FAMILIES = ("llama", "qwen2", "qwen3", "qwen3_moe", "deepseek_v3")
ROPE_TYPES = ("default", "llama3", "yarn")
FORMATS = ("bf16", "fp16", "fp32")
INT8 = "w8a16-int8"
"""Weights in 8 bits through torchao; computation and cache in one of the formats above."""
OPTIONS = ("threads", "linear", "step", "layers")
MEASURED = "measured"
STEPS = ("compiled", "captured", "eager")
LINEAR = (MEASURED, "native", "packed", "plain")
BLOCK_SCALED = "fp8-block128"
NO_BLOCK_SCALES = (
    f"{BLOCK_SCALED} has a scale for each block of 128 x 128 weights, for which PyTorch has no product on "
    "most devices, and expanded to bf16 it would be another, twice as large model; use weights in bf16"
)
