"""What the vllm engine can do, for both of its sides; imports nothing."""

FAMILIES = ("llama", "qwen2", "qwen3", "qwen3_moe", "deepseek_v3")
ROPE_TYPES = ("default", "llama3", "yarn")
PLAIN = ("bf16", "fp16", "fp32")
# Formats that real weights come in -> what vLLM calls the way they are quantised (any of these).
QUANTISED = {
    "fp8-block128": ("fp8", "deepseek_v4_fp8"),
    "w8a8-int8": ("compressed-tensors",),
    "w4a16-g128": ("awq", "awq_marlin"),
}
# The dtype that vLLM computes in and keeps its cache in, by our names of the KV format.
DTYPES = {"bf16": "bfloat16", "fp16": "float16", "fp32": "float32"}
LOAD_FORMATS = ("auto", "dummy")
# What speculates without weights of its own, and what needs a model for it (`speculative_model`).
SPECULATIVE = ("ngram", "mtp", "eagle", "eagle3", "medusa", "draft_model")
# Options and what kind of value they take.
OPTIONS = {
    "threads": "count",
    "max_model_len": "count",
    "max_num_seqs": "count",
    "max_num_batched_tokens": "count",
    "gpu_memory_utilization": "fraction",
    "enforce_eager": "switch",
    "load_format": "load_format",
    "speculative": "speculative",
    "speculative_tokens": "count",
    "speculative_model": "text",
}
# Options of loads on a server that is started for them; the worker never sees these.
SERVING_OPTIONS = {
    "mode": "mode",
    "requests": "count",
    "warm_up": "whole",
    "slo": "text",
    "ready_timeout_s": "count",
    "search": "search",
    "from": "level",
    "to": "level",
}
MODES = ("online", "offline")
