"""What vLLM is told when it loads a model, and what it says about it afterwards."""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
from typing import Any, Dict, List, Optional, Tuple

from . import hf_checkpoint
from .checkpoint_layout import tensors
from .protocol import EngineError
from .vllm_support import DTYPES, OPTIONS, PLAIN, QUANTISED

_CPU_BLOCK = 128  # tokens; vLLM's own on CPUs
_SPARE_BLOCKS = 2  # one is never given out
_LIST_TIMEOUT_S = 150.0
# Options that are not passed on under their own names.
_OWN_OPTIONS = ("threads", "speculative", "speculative_tokens", "speculative_model")
_SPECULATIVE_TOKENS = 3  # tokens guessed at a time unless asked otherwise
_WIDTHS = {"bf16": 2, "fp16": 2, "fp32": 4}
# Which variable leaves devices visible, by PyTorch's kind of device; a build for ROCm calls its GPUs cuda.
_VISIBLE = {"cuda": "CUDA_VISIBLE_DEVICES", "npu": "ASCEND_RT_VISIBLE_DEVICES", "xpu": "ZE_AFFINITY_MASK"}


class Parallel:
    """How many devices share the work, and how.

    Args:
        given: ``{"tp", "pp", "dp", "ep"}``, or None for one device.
    """

    def __init__(self, given: Optional[Dict[str, int]]) -> None:
        self.tp, self.pp, self.dp, self.ep = ((given or {}).get(name, 1) for name in ("tp", "pp", "dp", "ep"))

    @property
    def devices(self) -> int:
        """Devices that it takes."""
        return self.tp * self.pp * self.dp

    def arguments(self) -> Dict[str, Any]:
        """Return vLLM's arguments for it; nothing for one device."""
        named = {
            "tensor_parallel_size": self.tp,
            "pipeline_parallel_size": self.pp,
            "data_parallel_size": self.dp,
        }
        found: Dict[str, Any] = {name: count for name, count in named.items() if count > 1}
        if self.ep > 1:
            found["enable_expert_parallel"] = True
        return found


class Plan:
    """How a ``load`` request becomes arguments of vLLM's ``LLM``.

    Attributes:
        dummy: whether vLLM makes up the weights.
        kv_token_bytes: bytes of keys and values of one token.
        fills_memory: whether vLLM takes a share of the device's memory for its cache, whatever
            the case needs.
    """

    def __init__(self, request: Dict[str, Any]) -> None:
        self.options = _options(request.get("options") or {})
        self.formats = request["formats"]
        self.batch, self.tokens = _positive(request, "max_batch"), _positive(request, "max_tokens")
        self._architecture = request["architecture"]
        self.vocabulary = self._architecture["vocab_size"]
        self.dummy = self.options.get("load_format") == "dummy"
        self.kv_token_bytes = kv_token_bytes(request["architecture"], self.formats["kv_dtype"])
        # On a CPU, whose memory others need too, the cache has room for the case unless a share is asked for.
        self.fills_memory = request["device"] != "cpu" or "gpu_memory_utilization" in self.options
        self._real = request["weights"].get("kind") == "folder"
        self.parallel = Parallel(request.get("parallel"))
        if "speculative" in self.options and not self._real:
            raise EngineError(
                "unsupported",
                "speculative decoding with random weights accepts nothing that means anything: give --model "
                "a folder of real weights",
            )
        if self.dummy and request["weights"].get("kind") != "random":
            raise EngineError("unsupported", "load_format=dummy takes the place of random weights only")
        weight_format = self.formats["weight_format"]
        if weight_format not in PLAIN and not (weight_format in QUANTISED and self._real):
            raise EngineError(
                "unsupported",
                "the vllm engine has random weights in %s; %s comes with real weights only (--model FOLDER)"
                % (", ".join(PLAIN), weight_format),
            )

    def checkpoint(self, request: Dict[str, Any]) -> Tuple[str, str]:
        """Return (folder, words for the record)."""
        return hf_checkpoint.find(request, without_weights=self.dummy)

    def stored_bytes(self, folder: str) -> int:
        """Return the bytes of the checkpoint: of its files, or of the tensors that written ones have."""
        if self._real:
            files = (entry for entry in os.scandir(folder) if entry.name.endswith(".safetensors"))
            return sum(entry.stat().st_size for entry in files)
        width = _WIDTHS[self.formats["weight_format"]]
        return sum(width * math.prod(shape) for _, shape in tensors(self._architecture))

    def arguments(self, device_type: str) -> Dict[str, Any]:
        """Return the keyword arguments of ``LLM`` but the model."""
        given = {key: value for key, value in self.options.items() if key not in _OWN_OPTIONS}
        arguments: Dict[str, Any] = {
            "dtype": DTYPES[self.formats["kv_dtype"]],
            "skip_tokenizer_init": True,
            "max_model_len": self.tokens,
            "max_num_seqs": self.batch,
            "enable_prefix_caching": False,
            "disable_log_stats": False,
            "seed": 0,
        }
        if device_type == "cpu":
            # Compiling takes a minute at every start there, for a gain of about a seventh.
            arguments["enforce_eager"] = True
        arguments.update(given)
        arguments.update(self.parallel.arguments())
        if "speculative" in self.options:
            arguments["speculative_config"] = speculative_config(self.options)
        if not self.fills_memory:
            blocks = self.batch * -(-arguments["max_model_len"] // _CPU_BLOCK) + _SPARE_BLOCKS
            arguments["kv_cache_memory_bytes"] = blocks * _CPU_BLOCK * self.kv_token_bytes
        return arguments

    def check(self, prompts: Any, wanted: Any) -> None:
        """Refuse what does not fit what was loaded.

        Raises:
            EngineError: ``bad_request``.
        """
        if type(wanted) is not int or wanted < 1:
            raise EngineError(
                "bad_request", "output_tokens must be a whole number above 0, not %r" % (wanted,)
            )
        lengths = {len(prompt) for prompt in prompts}
        if len(lengths) != 1 or 0 in lengths:
            raise EngineError("bad_request", "prompt_ids must be equally long lists with at least one id")
        if len(prompts) > self.batch or len(prompts[0]) + wanted > self.tokens:
            raise EngineError(
                "bad_request",
                "%d x (%d + %d) tokens do not fit what was loaded: max_batch %d, max_tokens %d"
                % (len(prompts), len(prompts[0]), wanted, self.batch, self.tokens),
            )
        if not all(type(token) is int and 0 <= token < self.vocabulary for p in prompts for token in p):
            raise EngineError("bad_request", "a token id is outside the vocabulary of %d" % self.vocabulary)


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
            "options": self._plan.options,
        }

    def _model(self) -> Any:
        """The module, where it lives in this process."""
        executor = getattr(self._engine, "model_executor", None)
        worker = getattr(executor, "driver_worker", None)
        ask = getattr(worker, "get_model", None)
        return None if ask is None else ask()


def plan(request: Dict[str, Any]) -> Plan:
    """Return what a ``load`` request asks for.

    Raises:
        EngineError: ``bad_request``, ``unsupported``.
    """
    return Plan(request)


def sampling(vllm: Any, tokens: int) -> Any:
    """Return greedy ``SamplingParams`` for exactly so many tokens, without text, given out as they come."""
    from vllm.sampling_params import RequestOutputKind

    return vllm.SamplingParams(
        temperature=0.0,
        ignore_eos=True,
        min_tokens=tokens,
        max_tokens=tokens,
        detokenize=False,
        output_kind=RequestOutputKind.DELTA,
    )


def speculative_config(options: Dict[str, Any]) -> Dict[str, Any]:
    """Return vLLM's ``speculative_config`` for the options of that name."""
    config: Dict[str, Any] = {
        "method": options["speculative"],
        "num_speculative_tokens": options.get("speculative_tokens", _SPECULATIVE_TOKENS),
    }
    if "speculative_model" in options:
        config["model"] = options["speculative_model"]
    return config


def kv_token_bytes(architecture: Dict[str, Any], kv_dtype: str) -> int:
    """Return the bytes of what the cache holds of one token."""
    width, latent = _WIDTHS[kv_dtype], architecture["latent_attention"]
    if latent is not None:
        values = latent["kv_rank"] + latent["rope_head_dim"]
    else:
        values = 2 * architecture["kv_heads"] * architecture["head_dim"]
    return int(architecture["layers"] * values * width)


def platform_name() -> str:
    """What vLLM thinks it runs on: ``cpu``, ``cuda``, ``rocm``, ``npu`` and so on."""
    from vllm.platforms import current_platform

    return str(getattr(current_platform, "device_name", "unknown"))


def list_devices(torch_devices: Any) -> Tuple[List[Dict[str, Any]], List[str]]:
    """Return the devices and what failed, without this process touching an accelerator.

    Which one it may see is settled when it is first used; a runtime that has been started already would not
    take notice. So another process, of the torch engine, is asked.
    """
    torch = torch_devices.torch
    if torch.version.cuda is None and torch.version.hip is None and platform_name() == "cpu":
        found: Tuple[List[Dict[str, Any]], List[str]] = torch_devices.list_devices()
        return found
    script = os.path.join(os.path.dirname(os.path.realpath(__file__)), "main.py")
    asked = b'{"id": 1, "op": "hello", "engine": "torch", "options": {}}\n{"id": 2, "op": "bye"}\n'
    try:
        done = subprocess.run(
            [sys.executable, script, str(os.getpid())],
            input=asked, stdout=subprocess.PIPE, timeout=_LIST_TIMEOUT_S, check=True,
        )  # fmt: skip
        result = json.loads(done.stdout.splitlines()[0])["result"]
    except (OSError, subprocess.SubprocessError, ValueError, LookupError) as error:
        reason = "PyTorch could not be asked for its devices: %s" % type(error).__name__
        return [{"device": "cpu", "name": "CPU", "uuid": None, "pci_address": None}], [reason]
    return result["devices"], result["engine"]["details"]["failed_device_runtimes"]


def visible_only(names: List[str]) -> Dict[str, str]:
    """Return the variable that leaves only these devices visible, with its value; nothing for a CPU.

    Args:
        names: ``cuda:1``, counted among what is visible now; all of one kind.
    """
    variable = _VISIBLE.get(names[0].partition(":")[0])
    if variable is None:
        return {}
    listed = [part.strip() for part in os.environ.get(variable, "").split(",") if part.strip()]
    indices = [int(name.partition(":")[2] or 0) for name in names]
    return {variable: ",".join(listed[index] if listed else str(index) for index in indices)}


def _options(given: Dict[str, Any]) -> Dict[str, Any]:
    unknown = sorted(set(given) - set(OPTIONS))
    if unknown:
        raise EngineError("bad_request", "the vllm engine has no option %s" % ", ".join(unknown))
    return dict(given)


def _positive(request: Dict[str, Any], field: str) -> int:
    value = request.get(field)
    if type(value) is not int or value < 1:
        raise EngineError("bad_request", "%s must be a whole number above 0, not %r" % (field, value))
    return value
