"""What a loaded vLLM says about itself."""

from __future__ import annotations

from typing import Any, Dict, Optional

from . import vllm_speculation
from .protocol import EngineError
from .vllm_model import Plan
from .vllm_support import PLAIN, QUANTISED


class Seen:
    """What a loaded ``LLM`` says about itself."""

    def __init__(self, llm: Any, plan: Plan) -> None:
        self._engine, self._config, self._plan = llm.llm_engine, llm.llm_engine.vllm_config, plan
        self._weights_from = "not asked for"

    def check(self) -> None:
        """Refuse weights in another format than the case claims.

        Raises:
            EngineError: ``unsupported``.
        """
        found, claimed = self._config.model_config.quantization, self._plan.formats["weight_format"]
        if found is None and claimed in PLAIN:
            return
        if found is None or found not in QUANTISED.get(claimed, ()):
            raise EngineError(
                "unsupported",
                "the case says %s, vLLM loaded the weights as %s: give the --precision of the folder"
                % (claimed, found or "not quantised"),
            )

    def kv_tokens(self) -> int:
        """Tokens that the cache holds."""
        cache = self._config.cache_config
        tokens = getattr(cache, "kv_cache_size_tokens", None)
        return int(tokens) if tokens else int(cache.num_gpu_blocks) * int(cache.block_size)

    def compile_s(self) -> Optional[float]:
        """Time that vLLM says it compiled for, or None when it did not."""
        seconds = float(getattr(self._config.compilation_config, "compilation_time", 0.0) or 0.0)
        return seconds if seconds > 0 else None

    def weights_bytes(self, folder: str) -> int:
        """Bytes of the weights: as held, each storage once, but never less than the checkpoint has.

        On CPUs vLLM hands matrices to oneDNN, which keeps them where PyTorch does not see them; with several
        workers the module lives in other processes.
        """
        model = self._model()
        storages: Dict[int, int] = {}
        if model is not None:
            for tensor in list(model.parameters()) + list(model.buffers()):
                storage = tensor.untyped_storage()
                storages[int(storage.data_ptr())] = int(storage.nbytes())
        seen = sum(storages.values())
        stored = self._plan.stored_bytes(folder)
        self._weights_from = "parameters and buffers" if seen >= stored else "the checkpoint's tensors"
        return max(seen, stored)

    def details(self) -> Dict[str, Any]:
        """Return how it runs, for the record."""
        scheduler, parallel = self._config.scheduler_config, self._config.parallel_config
        return {
            "weights_bytes_from": self._weights_from,
            "enforce_eager": bool(self._config.model_config.enforce_eager),
            "max_model_len": int(self._config.model_config.max_model_len),
            "max_num_batched_tokens": int(scheduler.max_num_batched_tokens),
            "max_num_seqs": int(scheduler.max_num_seqs),
            "block_size": int(self._config.cache_config.block_size),
            "kv_cache_tokens": self.kv_tokens(),
            "prefix_caching": bool(self._config.cache_config.enable_prefix_caching),
            "executor": str(parallel.distributed_executor_backend),
            "options": vllm_speculation.without_place(self._plan.options),
        }

    def _model(self) -> Any:
        """The module, where it lives in this process."""
        executor = getattr(self._engine, "model_executor", None)
        worker = getattr(executor, "driver_worker", None)
        ask = getattr(worker, "get_model", None)
        return None if ask is None else ask()
