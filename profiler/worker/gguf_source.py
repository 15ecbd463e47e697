"""Weights of a GGUF file for a decoder in PyTorch: the reference of what llama.cpp makes of the file.

Every tensor is brought back to fp32 by the ``gguf`` package, in plain numpy, so that nothing of llama.cpp's
own kernels has a part in what they are held against.
"""

from __future__ import annotations

import os
import re
from typing import Any, Dict, List

import numpy as np
import torch

from .protocol import EngineError
from .safetensors_reader import listing

_SHARD = re.compile(r"(.+)-00001-of-([0-9]{5})\.gguf$")


def open_gguf(path: str, architecture: Dict[str, Any]) -> GgufSource:
    """Open a GGUF file, or the first of several.

    Raises:
        EngineError: ``unsupported`` without the package ``gguf``, ``weights`` for files that it cannot read.
    """
    try:
        import gguf
    except ImportError as error:
        raise EngineError(
            "unsupported",
            f"reading GGUF weights needs the package gguf (extra `gguf`) in the Python with PyTorch: {error}",
        ) from error
    tensors: Dict[str, Any] = {}
    for part in _parts(path):
        try:
            tensors.update({tensor.name: tensor for tensor in gguf.GGUFReader(part).tensors})
        except (OSError, ValueError, KeyError, IndexError) as error:
            raise EngineError("weights", f"{os.path.basename(part)}: cannot be read: {error}") from error
    return GgufSource(os.path.basename(path), tensors, architecture)


class GgufSource:
    """The tensors of a model; ``details`` go into the answer to ``load``."""

    def __init__(self, name: str, tensors: Dict[str, Any], architecture: Dict[str, Any]) -> None:
        from . import gguf_checkpoint

        self._name, self._tensors = name, tensors
        self._wanted = list(gguf_checkpoint.tensors(architecture))
        self.details: Dict[str, Any] = {"weights": "GGUF file, brought to fp32 by the gguf package"}

    def check(self, decoder: Any) -> None:
        """Compare names and shapes before anything is allocated.

        Raises:
            EngineError: ``weights``, naming what is missing or misshapen.
        """
        faults = []
        for wanted in self._wanted:
            shape = wanted.shape if len(wanted.sources) == 1 else (len(wanted.sources), *wanted.shape)
            found = self._tensors.get(wanted.name)
            if found is None or tuple(reversed([int(size) for size in found.shape])) != tuple(shape):
                faults.append(wanted.name)
        if faults:
            raise EngineError("weights", f"{self._name}: tensors missing or misshapen: {listing(faults)}")

    def fill(self, decoder: Any, dtype: Any, device: Any) -> None:
        """Write every tensor of ``decoder``."""
        from gguf.quants import dequantize

        from .gguf_checkpoint import unpermuted

        destinations = dict(decoder.tensors())
        for wanted in self._wanted:
            found = self._tensors[wanted.name]
            # fp32 comes back as it lies in the file, which cannot be written to: PyTorch warns of that.
            values = np.require(dequantize(found.data, found.tensor_type), requirements="W")
            values = values.reshape((len(wanted.sources), *wanted.shape))
            for at, name in enumerate(wanted.sources):
                turned = values[at] if wanted.heads is None else unpermuted(values[at], wanted.heads)
                destinations[name].copy_(torch.from_numpy(turned).view(destinations[name].shape))


def _parts(path: str) -> List[str]:
    found = _SHARD.match(path)
    if found is None:
        return [path]
    count = int(found.group(2))
    return ["%s-%05d-of-%05d.gguf" % (found.group(1), number, count) for number in range(1, count + 1)]
