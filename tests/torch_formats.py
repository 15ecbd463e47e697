"""Formats of ``load`` requests."""

BF16 = {"weight_format": "bf16", "compute_dtype": "bf16", "kv_dtype": "bf16"}
FP32 = {"weight_format": "fp32", "compute_dtype": "fp32", "kv_dtype": "fp32"}
