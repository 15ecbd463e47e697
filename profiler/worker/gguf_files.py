"""Which GGUF file a ``load`` request means: one of the user's, or one written for it and kept in a cache."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
from typing import Any, Dict, Iterator, List, Tuple

import llama_cpp

from . import gguf_checkpoint
from .fidelity_weights import SCHEME as FIDELITY_SCHEME
from .llamacpp_support import FORMATS, ROPE_TYPES
from .protocol import EngineError
from .weight_recipe import SCHEME

_KEPT = 4  # files of random weights; the oldest goes when there are more
_QUANTISED = {"q8_0": 7, "q4_0": 2}  # llama_ftype (llama.h)
_VERSION = "1"  # of what is written
_WORDS = {
    "random": f"random, {SCHEME}",
    "fidelity": f"generated for the fidelity check, {FIDELITY_SCHEME}",
}


def find(request: Dict[str, Any]) -> Tuple[str, str]:
    """Return (path, words for the record).

    Raises:
        EngineError: ``unsupported``, ``weights``, ``bad_request``.
    """
    weights, weight_format = request["weights"], request["formats"]["weight_format"]
    if weights.get("kind") == "file":
        return _given(weights["path"])
    if weight_format not in FORMATS:
        raise EngineError("unsupported", f"the llamacpp engine has no weights in {weight_format}")
    if weights.get("kind") not in _WORDS:
        raise EngineError("unsupported", "the llamacpp engine runs GGUF files and generated weights only")
    rope_type = (request["architecture"]["rope_scaling"] or {}).get("rope_type", "default")
    if rope_type not in ROPE_TYPES:
        raise EngineError("unsupported", f"no GGUF file can be generated with rope_type {rope_type}")
    path = _generated(request["architecture"], weight_format, weights["kind"], weights["seed"])
    return path, f"{_WORDS[weights['kind']]}, seed {weights['seed']}, written as GGUF"


def _given(path: str) -> Tuple[str, str]:
    if not os.path.isfile(path):
        raise EngineError("weights", f"{os.path.basename(path)}: there is no such file any more")
    return path, "GGUF file"


def _generated(architecture: Dict[str, Any], weight_format: str, kind: str, seed: int) -> str:
    plain = weight_format if weight_format not in _QUANTISED else "bf16"
    try:
        base, path = (_cached([architecture, name, kind, seed]) for name in (plain, weight_format))
        with _alone():
            if not os.path.exists(path):
                _make_room()
                if not os.path.exists(base):
                    gguf_checkpoint.write(base, architecture, plain, kind, seed)
                if path != base:
                    _quantise(base, path, weight_format)
                    os.unlink(base)
            os.utime(path)
    except OSError as error:
        raise EngineError(
            "weights",
            f"the GGUF file cannot be written: {error.strerror}; XDG_CACHE_HOME names another folder",
        ) from error
    return path


def _quantise(source: str, target: str, weight_format: str) -> None:
    """Let llama.cpp quantise a file, as its own tool would."""
    settings = llama_cpp.llama_model_quantize_default_params()
    settings.ftype = _QUANTISED[weight_format]
    partial = f"{target}.{os.getpid()}.part"
    try:
        answer = llama_cpp.llama_model_quantize(source.encode(), partial.encode(), settings)
        if answer != 0:
            raise EngineError("weights", f"llama.cpp could not quantise the weights to {weight_format}")
        os.replace(partial, target)
    finally:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(partial)


def _folder() -> str:
    root = os.environ.get("XDG_CACHE_HOME") or os.path.join(os.path.expanduser("~"), ".cache")
    folder = os.path.join(root, "aiprof", "gguf")
    os.makedirs(folder, exist_ok=True)
    return folder


def _cached(what: List[Any]) -> str:
    text = json.dumps([_VERSION, SCHEME, FIDELITY_SCHEME, *what], sort_keys=True)
    digest = hashlib.sha256(text.encode()).hexdigest()
    return os.path.join(_folder(), f"{digest[:32]}.gguf")


def _make_room() -> None:
    """Delete the oldest files until there is room for a new one."""
    files = [entry for entry in os.scandir(_folder()) if entry.name.endswith(".gguf")]
    files.sort(key=lambda entry: entry.stat().st_mtime)
    for entry in files[: max(0, len(files) - _KEPT + 1)]:
        os.unlink(entry.path)


@contextlib.contextmanager
def _alone() -> Iterator[None]:
    """Let one process at a time look for files and write them."""
    with open(os.path.join(_folder(), "lock"), "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
