"""What the llamacpp engine can do, for both of its sides; imports nothing."""

FAMILIES = ("llama", "qwen2", "qwen3", "qwen3_moe")
ROPE_TYPES = ("default", "llama3")
FORMATS = ("bf16", "fp16", "fp32", "q8_0", "q4_0")
KV_FORMATS = ("fp16", "bf16", "fp32", "q8_0", "q4_0")
KV_SPELLINGS = {"f16": "fp16", "f32": "fp32"}  # llama.cpp's own
COUNTS = ("threads", "n_batch", "n_ubatch")
CHOICES = {
    "sampling": ("greedy", "none"),
    "flash_attention": ("auto", "on", "off"),
    "kv_dtype": KV_FORMATS,
    "mmap": ("on", "off"),
    "mlock": ("on", "off"),
}
OPTIONS = (*COUNTS, *CHOICES)
N_UBATCH = 512  # llama.cpp's default
