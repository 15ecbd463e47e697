"""A model held by llama.cpp with its cache and its batch, through the functions of ``llama-cpp-python``."""

from __future__ import annotations

import ctypes
from typing import Any, Callable, Dict, List

import llama_cpp
import numpy as np

from . import llamacpp_log
from .protocol import EngineError

# ggml_type of what the cache can hold (ggml.h).
_KV_TYPES = {"fp32": 0, "fp16": 1, "bf16": 30, "q8_0": 8, "q4_0": 2}
_FLASH = {"auto": -1, "off": 0, "on": 1}


class LoadedModel:
    """One GGUF file, loaded for up to ``max_batch`` sequences of up to ``max_tokens`` tokens.

    Args:
        path: of the file.
        kv_dtype: of the cache.
        max_batch: sequences.
        max_tokens: of each.
        options: of the engine, complete.
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
        self._rows: List[Any] = []
        self._model = llama_cpp.llama_model_load_from_file(path.encode(), _loading(options))
        if not self._model:
            raise EngineError("weights", f"llama.cpp does not load the file: {log.error()}")
        self._context = llama_cpp.llama_init_from_model(self._model, self._settings(kv_dtype, options))
        if not self._context:
            self.close()
            raise EngineError("out_of_memory", f"llama.cpp gives no context: {log.error()}")
        self._at_once = min(options["n_batch"] or max_batch * max_tokens, max_batch * max_tokens)
        self._batch = llama_cpp.llama_batch_init(self._at_once, 0, 1)
        self.vocabulary = int(llama_cpp.llama_vocab_n_tokens(llama_cpp.llama_model_get_vocab(self._model)))

    def _settings(self, kv_dtype: str, options: Dict[str, Any]) -> Any:
        settings = llama_cpp.llama_context_default_params()
        # One stretch of cache per sequence, rounded up by llama.cpp itself.
        settings.n_ctx = self.max_batch * _rounded(self.max_tokens)
        settings.n_seq_max = self.max_batch
        settings.n_batch = options["n_batch"] or self.max_batch * self.max_tokens
        settings.n_ubatch = options["n_ubatch"]
        settings.n_threads = settings.n_threads_batch = options["threads"]
        settings.type_k = settings.type_v = _KV_TYPES[kv_dtype]
        settings.flash_attn_type = _FLASH[options["flash_attention"]]
        settings.no_perf = True
        # A build for accelerators would hand large products to one although all layers are on the CPU.
        settings.offload_kqv = settings.op_offload = False
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
        """Put (token, position, sequence, whether logits are wanted) into the batch.

        Rows that do not fit ``n_batch`` wait until :meth:`decode` has computed those before them.
        """
        self._rows = rows
        self._fill_next()

    def decode(self, take: Callable[[int], Any]) -> List[Any]:
        """Compute all rows and wait for them.

        Args:
            take: gets the place of each row whose logits are wanted, as soon as they are there.

        Returns:
            What ``take`` returned, in the order of the rows.

        Raises:
            EngineError: ``out_of_memory``, ``internal``.
        """
        taken: List[Any] = []
        while True:
            answer = llama_cpp.llama_decode(self._context, self._batch)
            if answer != 0:
                kind = "out_of_memory" if answer in (1, -2) else "internal"
                raise EngineError(kind, f"llama_decode answered {answer}: {self._log.error()}")
            llama_cpp.llama_synchronize(self._context)
            wanted = [at for at in range(self._batch.n_tokens) if self._batch.logits[at]]
            taken += [take(at) for at in wanted]
            if not self._rows:
                return taken
            self._fill_next()

    def _fill_next(self) -> None:
        batch, rows = self._batch, self._rows[: self._at_once]
        self._rows = self._rows[self._at_once :]
        batch.n_tokens = len(rows)
        for at, (token, position, sequence, wanted) in enumerate(rows):
            batch.token[at] = token
            batch.pos[at] = position
            batch.n_seq_id[at] = 1
            batch.seq_id[at][0] = sequence
            batch.logits[at] = wanted

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


def _loading(options: Dict[str, Any]) -> Any:
    """Return how the file is brought into memory; no layer of it goes to an accelerator."""
    parameters = llama_cpp.llama_model_default_params()
    parameters.n_gpu_layers = 0
    mmap, mlock = options["mmap"] == "on", options["mlock"] == "on"
    if hasattr(parameters, "use_mmap"):  # older llama-cpp-python
        parameters.use_mmap, parameters.use_mlock = mmap, mlock
    elif not mmap or mlock:
        words = "_".join(["MMAP"] * mmap + ["MLOCK"] * mlock) or "NONE"
        parameters.load_mode = getattr(llama_cpp, f"LLAMA_LOAD_MODE_{words}")
    return parameters


def _rounded(tokens: int) -> int:
    """llama.cpp pads the cache of a sequence to 256 tokens."""
    return -(-tokens // 256) * 256
