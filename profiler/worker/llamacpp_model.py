"""A model held by llama.cpp with its cache and its batch, through the functions of ``llama-cpp-python``."""

from __future__ import annotations

import ctypes
from typing import Any, Dict, List

import llama_cpp
import numpy as np

from . import llamacpp_log
from .protocol import EngineError

# ggml_type of what the cache can hold (ggml.h).
_KV_TYPES = {"fp32": 0, "fp16": 1, "bf16": 30}
_FLASH = {"auto": -1, "off": 0, "on": 1}


class LoadedModel:
    """One GGUF file, loaded for up to ``max_batch`` sequences of up to ``max_tokens`` tokens.

    Args:
        path: of the file.
        kv_dtype: of the cache.
        max_batch: sequences.
        max_tokens: of each.
        options: ``threads``, ``n_ubatch`` and ``flash_attention`` of the engine.
        log: what llama.cpp says.

    Raises:
        EngineError: ``weights``, ``out_of_memory``; nothing stays loaded.

    Attributes:
        vocabulary: how many tokens there are.
        max_batch: as asked for.
        max_tokens: as asked for.
    """

    def __init__(
        self,
        path: str,
        kv_dtype: str,
        max_batch: int,
        max_tokens: int,
        options: Dict[str, Any],
        log: llamacpp_log.Log,
    ) -> None:
        self.max_batch, self.max_tokens = max_batch, max_tokens
        self._log = log
        self._context: Any = None
        self._batch: Any = None
        parameters = llama_cpp.llama_model_default_params()
        parameters.n_gpu_layers = 0
        self._model = llama_cpp.llama_model_load_from_file(path.encode(), parameters)
        if not self._model:
            raise EngineError("weights", f"llama.cpp does not load the file: {log.error()}")
        self._context = llama_cpp.llama_init_from_model(self._model, self._settings(kv_dtype, options))
        if not self._context:
            self.close()
            raise EngineError("out_of_memory", f"llama.cpp gives no context: {log.error()}")
        self._batch = llama_cpp.llama_batch_init(max_batch * max_tokens, 0, 1)
        self.vocabulary = int(llama_cpp.llama_vocab_n_tokens(llama_cpp.llama_model_get_vocab(self._model)))

    def _settings(self, kv_dtype: str, options: Dict[str, Any]) -> Any:
        settings = llama_cpp.llama_context_default_params()
        # One stretch of cache per sequence, rounded up by llama.cpp itself.
        settings.n_ctx = self.max_batch * _rounded(self.max_tokens)
        settings.n_seq_max = self.max_batch
        settings.n_batch = self.max_batch * self.max_tokens
        settings.n_ubatch = options["n_ubatch"]
        settings.n_threads = settings.n_threads_batch = options["threads"]
        settings.type_k = settings.type_v = _KV_TYPES[kv_dtype]
        settings.flash_attn_type = _FLASH[options["flash_attention"]]
        settings.no_perf = True
        return settings

    @property
    def weights_bytes(self) -> int:
        """Bytes of the weights."""
        return int(llama_cpp.llama_model_size(self._model))

    @property
    def cache_tokens(self) -> int:
        """Tokens that the cache holds, over all sequences."""
        return int(llama_cpp.llama_n_ctx(self._context))

    @property
    def description(self) -> str:
        """What llama.cpp calls the model."""
        text = ctypes.create_string_buffer(128)
        llama_cpp.llama_model_desc(self._model, text, len(text))
        return text.value.decode("utf-8", "replace")

    def clear(self) -> None:
        """Forget every sequence."""
        llama_cpp.llama_memory_clear(llama_cpp.llama_get_memory(self._context), True)

    def fill(self, rows: List[Any]) -> None:
        """Put (token, position, sequence, whether logits are wanted) into the batch."""
        batch = self._batch
        batch.n_tokens = len(rows)
        for at, (token, position, sequence, wanted) in enumerate(rows):
            batch.token[at] = token
            batch.pos[at] = position
            batch.n_seq_id[at] = 1
            batch.seq_id[at][0] = sequence
            batch.logits[at] = wanted

    def decode(self) -> None:
        """Compute the batch and wait for it.

        Raises:
            EngineError: ``out_of_memory``, ``internal``.
        """
        answer = llama_cpp.llama_decode(self._context, self._batch)
        if answer != 0:
            kind = "out_of_memory" if answer in (1, -2) else "internal"
            raise EngineError(kind, f"llama_decode answered {answer}: {self._log.error()}")
        llama_cpp.llama_synchronize(self._context)

    def logits(self, place: int) -> Any:
        """Return the logits at this place of the batch, float32 ``[vocabulary]`` until the next decode."""
        pointer = llama_cpp.llama_get_logits_ith(self._context, place)
        return np.ctypeslib.as_array(pointer, (self.vocabulary,))

    def close(self) -> None:
        """Free everything."""
        if self._batch is not None:
            llama_cpp.llama_batch_free(self._batch)
        if self._context:
            llama_cpp.llama_free(self._context)
        if self._model:
            llama_cpp.llama_model_free(self._model)
        self._model = self._context = self._batch = None


def _rounded(tokens: int) -> int:
    """llama.cpp pads the cache of a sequence to 256 tokens."""
    return -(-tokens // 256) * 256
