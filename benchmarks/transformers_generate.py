"""transformers' `generate` for benchmarks/engines.py: a process that holds a model and answers lines.

A line of standard input is {"prompt", "output", "batch"}; the answer is {"prefill_s", "decode_s"}.
Greedy, bf16, end of sequence ignored, random weights. Run without arguments it has nothing to do.
"""

from __future__ import annotations

import json
import sys
import time
from typing import Any


def model_like(arch: dict[str, Any]) -> Any:
    """Return transformers' model of a Qwen2 of this shape."""
    import torch
    from transformers import Qwen2Config, Qwen2ForCausalLM

    config = Qwen2Config(
        vocab_size=arch["vocab_size"],
        hidden_size=arch["hidden_size"],
        intermediate_size=arch["intermediate_size"],
        num_hidden_layers=arch["layers"],
        num_attention_heads=arch["heads"],
        num_key_value_heads=arch["kv_heads"],
        tie_word_embeddings=arch["tied_embeddings"],
        rms_norm_eps=arch["norm_eps"],
        dtype=torch.bfloat16,
    )
    torch.set_default_dtype(torch.bfloat16)
    return Qwen2ForCausalLM(config).eval()


def main() -> None:
    if len(sys.argv) < 3:
        return
    import torch

    arch = json.loads(sys.argv[1])
    torch.set_num_threads(int(sys.argv[2]))
    model = model_like(arch)
    generator = torch.Generator().manual_seed(0)

    def seconds(ids: Any, output: int) -> float:
        began = time.perf_counter()
        with torch.inference_mode():
            made = model.generate(
                ids, max_new_tokens=output, min_new_tokens=output, do_sample=False, eos_token_id=None,
                pad_token_id=0, attention_mask=torch.ones_like(ids),
            )  # fmt: skip
        assert made.shape[1] == ids.shape[1] + output
        return time.perf_counter() - began

    print("ready", flush=True)
    for line in sys.stdin:
        asked = json.loads(line)
        shape = (asked["batch"], asked["prompt"])
        ids = torch.randint(0, arch["vocab_size"], shape, generator=generator)
        prefill_s = seconds(ids, 1)
        whole_s = seconds(ids, asked["output"]) if asked["output"] > 1 else prefill_s
        print(json.dumps({"prefill_s": prefill_s, "decode_s": whole_s - prefill_s}), flush=True)


if __name__ == "__main__":
    main()
