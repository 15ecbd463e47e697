"""Next-token logits of a loaded decoder, for holding one engine against another."""

from __future__ import annotations

from typing import Any

import torch


def score(model: Any, request: dict[str, Any], device: Any) -> dict[str, Any]:
    """Prefill the prompts, then take one token after the other, and keep logits of each step.

    Args:
        model: has ``forward(ids, position)``, which returns logits ``[B, vocab]``.
        request: ``prompt_ids`` (B equally long lists), ``output_tokens`` (n), ``forced_ids`` (for each
            prompt n - 1 tokens that follow it, or None to follow the greedy choice), ``score_ids``
            (``[B][n][K]`` tokens whose logits are wanted) or None for the ``top`` highest.
        device: where the model is.

    Returns:
        For each of the n steps of each sequence: ``tokens`` (the greedy choice), ``ids`` and their
        ``logits``, and ``log_sum_exp`` over the whole vocabulary, in float32.
    """
    prompts, steps = request["prompt_ids"], request["output_tokens"]
    forced, wanted = request["forced_ids"], request.get("score_ids")
    free = torch.tensor([[row is None] for row in forced]).to(device)
    tokens: list[Any] = []
    ids: list[Any] = []
    logits: list[Any] = []
    sums: list[Any] = []
    position, ahead = 0, torch.tensor(prompts, dtype=torch.int64).to(device)
    for step in range(steps):
        found = model.forward(ahead, position).float()
        position += ahead.shape[1]
        chosen = found.argmax(-1, keepdim=True)
        if wanted is None:
            picked = found.topk(min(request["top"], found.shape[-1]), dim=-1)[1]
        else:
            picked = torch.tensor([rows[step] for rows in wanted], dtype=torch.int64).to(device)
        tokens.append(chosen)
        ids.append(picked.cpu())
        logits.append(found.gather(-1, picked).cpu())
        sums.append(found.logsumexp(-1, keepdim=True).cpu())
        if step + 1 < steps:
            given = [[0 if row is None else row[step]] for row in forced]
            ahead = torch.where(free, chosen, torch.tensor(given, dtype=torch.int64).to(device))
    return {
        "tokens": torch.cat(tokens, 1).cpu().tolist(),
        "ids": torch.stack(ids, 1).tolist(),
        "logits": torch.stack(logits, 1).tolist(),
        "log_sum_exp": torch.cat(sums, 1).tolist(),
    }
