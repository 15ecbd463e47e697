"""What the llamacpp engine can do, for both of its sides; imports nothing."""

FAMILIES = ("llama", "qwen2", "qwen3", "qwen3_moe")
ROPE_TYPES = ("default", "llama3")
FORMATS = ("bf16", "fp16", "fp32", "q8_0", "q4_0")
KV_FORMATS = ("bf16", "fp16", "fp32")
OPTIONS = ("threads", "sampling", "n_ubatch", "flash_attention")
SAMPLING = ("greedy", "none")
FLASH_ATTENTION = ("auto", "on", "off")
N_UBATCH = 512  # llama.cpp's default
