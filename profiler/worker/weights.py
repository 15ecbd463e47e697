"""Where a decoder's weights come from: made at random, or read from a checkpoint folder."""

from __future__ import annotations

from typing import Any

from .fidelity_weights import FidelitySource
from .native import library_for_weights
from .protocol import EngineError
from .random_weights import RandomWeights, check_device
from .safetensors_reader import Checkpoint, listing
from .torch_support import NO_BLOCK_SCALES
from .weight_recipe import SCHEME

_NAMES = {"F64": "fp64", "F32": "fp32", "F16": "fp16", "BF16": "bf16"}
_DTYPES = {"torch.float32": "fp32", "torch.float16": "fp16", "torch.bfloat16": "bf16"}
# Beside each matrix of an fp8 checkpoint with a scale per block, as DeepSeek-V3 and R1 are published.
_BLOCK_SCALES = ".weight_scale_inv"


class RandomSource:
    """N(0, 0.02) by ``random_weights``; ``details`` go into the answer to ``load``."""

    def __init__(self, seed: int) -> None:
        self._seed = seed
        self.details = {"weights": f"random, {SCHEME}, seed {seed}"}

    def check(self, decoder: Any) -> None:
        """Random weights fit every decoder."""

    def fill(self, decoder: Any, dtype: Any, device: Any) -> None:
        """Write every tensor of ``decoder`` on ``device``."""
        check_device(device, dtype)
        weights = RandomWeights(self._seed, device, library_for_weights(device))
        for name, destination in decoder.tensors():
            weights.fill(name, destination)


class FolderSource:
    """A safetensors folder; all its headers are read at once, its data when filling.

    Args:
        folder: see :class:`safetensors_reader.Checkpoint`.

    Raises:
        EngineError: ``weights``, when the folder cannot be read.
    """

    def __init__(self, folder: str) -> None:
        self._folder = folder
        self._checkpoint = Checkpoint(folder)
        self.details: dict[str, Any] = {"weights": "safetensors folder"}

    def check(self, decoder: Any) -> None:
        """Compare names, shapes and formats with ``decoder`` (on any device) before anything is allocated.

        Raises:
            EngineError: ``weights``, naming everything missing, unexpected, misshapen or quantised;
                ``unsupported`` for fp8 weights with block scales.
        """
        destinations = dict(decoder.tensors())
        wanted = {name: tuple(tensor.shape) for name, tensor in destinations.items()}
        found = self._checkpoint.tensors
        if any(name.endswith(_BLOCK_SCALES) for name in found):
            raise EngineError("unsupported", f"{self._folder}: {NO_BLOCK_SCALES}")
        ignored = [name for name in found if name not in wanted and decoder.leaves_out(name)]
        groups = {
            "missing": sorted(set(wanted) - set(found)),
            "unexpected": sorted(set(found) - set(wanted) - set(ignored)),
            "of another shape": [
                f"{name} ({list(found[name].shape)}, not {list(shape)})"
                for name, shape in wanted.items()
                if name in found and found[name].shape != shape
            ],
            "in a format that cannot be converted": [
                f"{name} ({found[name].dtype})"
                for name in wanted
                if name in found and found[name].dtype not in _NAMES
            ],
        }
        faults = [f"{what}: {listing(names)}" for what, names in groups.items() if names]
        if faults:
            raise EngineError("weights", f"{self._folder}: tensors {'; '.join(faults)}")
        self.details["converted"] = self._conversions(destinations)
        self.details["ignored_tensors"] = len(ignored)

    def fill(self, decoder: Any, dtype: Any, device: Any) -> None:
        """Stream every tensor into ``decoder``.

        Raises:
            EngineError: ``weights``, when a file has gone or changed since its header was read.
        """
        for name, destination in decoder.tensors():
            self._checkpoint.copy(name, destination)

    def _conversions(self, destinations: dict[str, Any]) -> dict[str, int]:
        """Return how many tensors change their format, as ``{"fp32 to bf16": 290}``."""
        conversions: dict[str, int] = {}
        for name, destination in destinations.items():
            stored, wanted = _NAMES[self._checkpoint.tensors[name].dtype], _DTYPES[str(destination.dtype)]
            if stored != wanted:
                key = f"{stored} to {wanted}"
                conversions[key] = conversions.get(key, 0) + 1
        return conversions


def open_source(weights: dict[str, Any], architecture: dict[str, Any]) -> Any:
    """Return the source that the ``weights`` of a ``load`` request ask for.

    Raises:
        EngineError: ``bad_request`` for an unknown kind, ``weights`` for an unreadable folder or file,
            ``unsupported`` where a package for GGUF files is missing.
    """
    kind = weights.get("kind")
    if kind == "random":
        return RandomSource(weights["seed"])
    if kind == "fidelity":
        return FidelitySource(weights["seed"], architecture)
    if kind == "folder":
        return FolderSource(weights["path"])
    if kind == "file":
        from .gguf_source import open_gguf  # needs packages that others do without

        return open_gguf(weights["path"], architecture)
    raise EngineError(
        "bad_request", f"unknown kind of weights {kind!r} (known: random, folder, file, fidelity)"
    )
