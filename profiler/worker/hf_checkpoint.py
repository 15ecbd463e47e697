"""Random weights as a Hugging Face folder, for engines that load one: ``config.json`` and safetensors.

Which folder a ``load`` request means: the user's, or one written for it and kept in a cache beside the
GGUF files of the llamacpp engine, under the same rules.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import math
import os
import shutil
import struct
from typing import Any, Dict, Iterator, Optional, Tuple

import numpy as np

from . import fidelity_weights
from .checkpoint_layout import config, tensors
from .numpy_fidelity import NumpyFidelity
from .numpy_weights import NumpyWeights
from .protocol import EngineError
from .weight_recipe import SCHEME

_KEPT = 4  # folders of random weights; the oldest goes when there are more
_VERSION = "1"  # of what is written
# Our name -> (PyTorch's, safetensors', numpy's for the bits).
STORAGE: Dict[str, Tuple[str, str, Any]] = {
    "bf16": ("bfloat16", "BF16", np.dtype("<u2")),
    "fp16": ("float16", "F16", np.dtype("<f2")),
    "fp32": ("float32", "F32", np.dtype("<f4")),
}


def find(request: Dict[str, Any], *, without_weights: bool = False) -> Tuple[str, str]:
    """Return (folder, words for the record).

    Args:
        request: of ``load``.
        without_weights: only ``config.json`` is wanted; the engine makes up its own weights.

    Raises:
        EngineError: ``unsupported``, ``weights``.
    """
    weights, weight_format = request["weights"], request["formats"]["weight_format"]
    if weights.get("kind") == "folder":
        return weights["path"], "safetensors folder"
    if weights.get("kind") not in ("random", "fidelity"):
        raise EngineError("unsupported", "weights of the kind %s cannot be written" % weights.get("kind"))
    if weight_format not in STORAGE:
        raise EngineError(
            "unsupported",
            "random weights are written as %s, not as %s; give --model a folder of real weights"
            % (", ".join(STORAGE), weight_format),
        )
    seed = weights["seed"]
    try:
        made = None if without_weights else (weights["kind"], seed)
        path = _cached(request["architecture"], weight_format, made)
    except OSError as error:
        raise EngineError(
            "weights",
            "the checkpoint cannot be written: %s; XDG_CACHE_HOME names another folder" % error.strerror,
        ) from error
    if without_weights:
        return path, "dummy: the engine's own, not those of other engines"
    if weights["kind"] == "fidelity":
        return path, "generated for the fidelity check, %s, seed %d" % (fidelity_weights.SCHEME, seed)
    return path, "random, %s, seed %d, written as safetensors" % (SCHEME, seed)


def _cached(architecture: Dict[str, Any], weight_format: str, made: Optional[Tuple[str, int]]) -> str:
    """Return the folder of weights of a kind and seed, or of none; written if it is not there."""
    what = [_VERSION, SCHEME, fidelity_weights.SCHEME, architecture, weight_format, made]
    digest = hashlib.sha256(json.dumps(what, sort_keys=True).encode()).hexdigest()
    path = os.path.join(_folder(), digest[:32])
    with _alone():
        if not os.path.exists(path):
            _make_room()
            _write(path, architecture, weight_format, made)
        os.utime(path)
    return path


def _write(
    path: str, architecture: Dict[str, Any], weight_format: str, made: Optional[Tuple[str, int]]
) -> None:
    """Write the folder; it is there completely or not at all."""
    partial = "%s.%d.part" % (path, os.getpid())
    shutil.rmtree(partial, ignore_errors=True)
    os.mkdir(partial)
    try:
        with open(os.path.join(partial, "config.json"), "w") as file:
            json.dump(config(architecture, STORAGE[weight_format][0]), file, indent=1)
        if made is not None:
            kind, seed = made
            weights = NumpyFidelity(seed, architecture) if kind == "fidelity" else NumpyWeights(seed)
            path_in = os.path.join(partial, "model.safetensors")
            write_safetensors(path_in, architecture, weight_format, weights)
        os.rename(partial, path)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def write_safetensors(path: str, architecture: Dict[str, Any], weight_format: str, weights: Any) -> None:
    """Write all tensors of an architecture into one file.

    Format: https://github.com/huggingface/safetensors#format.

    Args:
        path: of the file.
        architecture: fields of ``Architecture`` as JSON.
        weight_format: one of :data:`STORAGE`.
        weights: fills arrays, as :class:`numpy_weights.NumpyWeights` does.

    Raises:
        EngineError: ``weights``, when the disk has no room for it.
        OSError: the disk does not take it.
    """
    _, name_in_file, dtype = STORAGE[weight_format]
    header: Dict[str, Any] = {}
    size = 0
    for name, shape in tensors(architecture):
        end = size + math.prod(shape) * dtype.itemsize
        header[name] = {"dtype": name_in_file, "shape": list(shape), "data_offsets": [size, end]}
        size = end
    _require_room(os.path.dirname(path), size)
    # Some loaders refuse a file that does not say what it was made for.
    encoded = json.dumps({"__metadata__": {"format": "pt"}, **header}, separators=(",", ":")).encode()
    encoded += b" " * (-len(encoded) % 8)
    with open(path, "wb") as file:
        file.write(struct.pack("<Q", len(encoded)) + encoded)
        for name, shape in tensors(architecture):
            data = np.empty(shape, dtype)
            weights.fill(name, data, weight_format)
            file.write(data.data)


def _require_room(folder: str, size: int) -> None:
    free = shutil.disk_usage(folder).free
    if size > free:
        raise EngineError(
            "weights",
            "random weights take %.1f GB on disk, %.1f GB are free; XDG_CACHE_HOME names another folder"
            % (size / 1e9, free / 1e9),
        )


def _folder() -> str:
    root = os.environ.get("XDG_CACHE_HOME") or os.path.join(os.path.expanduser("~"), ".cache")
    folder = os.path.join(root, "aiprof", "checkpoints")
    os.makedirs(folder, exist_ok=True)
    return folder


def _make_room() -> None:
    """Delete the oldest folders until there is room for a new one, and what writers left that died."""
    entries = [entry for entry in os.scandir(_folder()) if entry.is_dir()]
    whole = sorted((e for e in entries if not e.name.endswith(".part")), key=lambda e: e.stat().st_mtime)
    torn = [entry for entry in entries if entry.name.endswith(".part")]
    for entry in torn + whole[: max(0, len(whole) - _KEPT + 1)]:
        shutil.rmtree(entry.path, ignore_errors=True)


@contextlib.contextmanager
def _alone() -> Iterator[None]:
    """Let one process at a time look for folders and write them."""
    with open(os.path.join(_folder(), "lock"), "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
