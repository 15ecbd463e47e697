"""Log-probabilities of wanted tokens along given ones: a request of one token for every position."""

from __future__ import annotations

from typing import Any, Dict, List, Tuple

from .protocol import EngineError


def score(engine: Any, params_class: Any, request: Dict[str, Any], label: str) -> Dict[str, Any]:
    """Return what ``score`` answers, with log-probabilities in place of logits and no ``log_sum_exp``.

    Args:
        engine: vLLM's ``LLMEngine``.
        params_class: vLLM's ``SamplingParams``.
        request: of ``score``.
        label: makes request ids unique.

    Raises:
        EngineError: ``unsupported``, where tokens are to be chosen on the way, or by an old vLLM.
    """
    forced, wanted = request["forced_ids"], request.get("score_ids")
    if wanted is None or any(tokens is None for tokens in forced):
        raise EngineError("unsupported", "vLLM scores wanted tokens along given ones only")
    prompts, steps = request["prompt_ids"], request["output_tokens"]
    asked: Dict[str, Tuple[int, int]] = {}
    for row, prompt in enumerate(prompts):
        for step in range(steps):
            name = "%s-%d-%d" % (label, row, step)
            asked[name] = (row, step)
            params = _params(params_class, wanted[row][step])
            engine.add_request(name, {"prompt_token_ids": prompt + forced[row][:step]}, params)
    tokens: List[List[int]] = [[0] * steps for _ in prompts]
    logprobs: List[List[List[float]]] = [[[]] * steps for _ in prompts]
    while engine.has_unfinished_requests():
        for output in engine.step():
            row, step = asked[output.request_id]
            (found,) = output.outputs
            tokens[row][step] = int(found.token_ids[0])
            named = found.logprobs[0]
            logprobs[row][step] = [float(named[token].logprob) for token in wanted[row][step]]
    return {"tokens": tokens, "ids": wanted, "logits": logprobs, "log_sum_exp": None}


def _params(params_class: Any, wanted: List[int]) -> Any:
    try:
        return params_class(
            temperature=0.0, ignore_eos=True, min_tokens=1, max_tokens=1, detokenize=False,
            logprob_token_ids=list(wanted),
        )  # fmt: skip
    except TypeError as error:
        raise EngineError("unsupported", "this vLLM does not tell the logits of chosen tokens") from error
