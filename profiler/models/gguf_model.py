"""What the GGUF files of a model say that it is: architecture, number formats, and bytes of each part.

Every tensor has to be there in the shape that the metadata imply, and no other.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from profiler.errors import InputFileError
from profiler.models.architecture import Architecture
from profiler.models.formats import Formats
from profiler.models.gguf_architecture import ROPE_FACTORS, architecture_of, with_rope_factors
from profiler.models.gguf_file import Counted, GgufFile, TensorPlace, read_gguf
from profiler.models.gguf_types import FILE_TYPES, GgmlType
from profiler.models.tensors import tensor_groups
from profiler.models.weights import files_digest

MAX_SHARDS = 1000
_SHARD = re.compile(r"(?P<stem>.+)-(?P<number>[0-9]{5})-of-(?P<count>[0-9]{5})\.gguf")

_NAMES = {
    "model.embed_tokens": "token_embd",
    "model.norm": "output_norm",
    "lm_head": "output",
    "input_layernorm": "attn_norm",
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "self_attn.q_norm": "attn_q_norm",
    "self_attn.k_norm": "attn_k_norm",
    "post_attention_layernorm": "ffn_norm",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
    "mlp.gate": "ffn_gate_inp",
    "mlp.experts.{expert}.gate_proj": "ffn_gate_exps",
    "mlp.experts.{expert}.up_proj": "ffn_up_exps",
    "mlp.experts.{expert}.down_proj": "ffn_down_exps",
}
KV_DTYPE = "fp16"
"""What llama.cpp keeps its cache in whatever the weights are, unless told otherwise."""
_PLAIN = {"F32": "fp32", "F16": "fp16", "BF16": "bf16"}


@dataclass(frozen=True)
class GgufModel:
    """A model in one GGUF file, or in several parts.

    Attributes:
        path: the first file, which is the one to load.
        architecture: of the model.
        formats: of its weights; ``compute_dtype`` and ``kv_dtype`` are llama.cpp's own choice for them.
        digest: SHA-256 that tells files apart, see :func:`profiler.models.weights.files_digest`.
        details: what else a record should say.
    """

    path: Path
    architecture: Architecture
    formats: Formats
    digest: str
    details: Mapping[str, Any]


def read_gguf_model(path: Path) -> GgufModel:
    """Read what a model is from its file, or from all of its parts when one of them is given.

    Raises:
        InputFileError: a part is missing, damaged or no GGUF file, the architecture is not one of ours, or
            the tensors are not those of the architecture.
    """
    files = [read_gguf(part) for part in parts_of(path)]
    _refuse_mixed_parts(files)
    first, tensors = files[0], _all_tensors(files)
    architecture = architecture_of(first, tensors)
    stored = _stored_bytes(first.path, architecture, tensors)
    for file in files:
        if ROPE_FACTORS in file.tensors:
            architecture = with_rope_factors(architecture, file.path, file.tensors[ROPE_FACTORS])
    formats = _formats(first.fields, tensors, stored)
    # By number, not by name: people rename such files.
    digest = files_digest((str(at), one.path, one.size, one.header_sha256) for at, one in enumerate(files))
    return GgufModel(first.path, architecture, formats, digest, _details(files, tensors))


def parts_of(path: Path) -> tuple[Path, ...]:
    """Return the files of a model: all parts where the name is of one of them (``-00001-of-00003.gguf``).

    Raises:
        InputFileError: there is no such file, or parts are missing.
    """
    found = _SHARD.fullmatch(path.name)
    if found is None:
        if not path.exists():
            raise InputFileError([f"{path}: no such file"])
        return (path,)
    count = int(found["count"])
    if not 1 <= count <= MAX_SHARDS:
        raise InputFileError([f"{path}: a model in {count} parts is not known; is the file renamed?"])
    parts = [
        path.with_name(f"{found['stem']}-{number:05}-of-{count:05}.gguf") for number in range(1, count + 1)
    ]
    missing = [part.name for part in parts if not part.exists()]
    if missing:
        raise InputFileError(
            [f"{path}: {len(missing)} of {count} parts are missing ({missing[0]}…); complete the download"]
        )
    return tuple(parts)


def model_name(path: Path) -> str:
    """Return the name of a model by its file's, without the ending and the number of the part."""
    found = _SHARD.fullmatch(path.name)
    return found["stem"] if found else path.stem


def _refuse_mixed_parts(files: Sequence[GgufFile]) -> None:
    faults = []
    for number, file in enumerate(files):
        count = file.fields.get("split.count", 1)
        if count != len(files) and not (count == 0 and len(files) == 1):
            other = "give one of its parts under its own name" if len(files) == 1 else "parts of other models"
            faults.append(f"{file.path}: is of a model in {str(count)[:20]} parts, not {len(files)}: {other}")
        elif file.fields.get("split.no", 0) != number:
            said = str(file.fields.get("split.no"))[:20]
            faults.append(f"{file.path}: says it is part {said} (from 0), its name part {number}")
    if faults:
        raise InputFileError(faults)


def _all_tensors(files: Sequence[GgufFile]) -> dict[str, TensorPlace]:
    tensors: dict[str, TensorPlace] = {}
    for file in files:
        twice = next((name for name in file.tensors if name in tensors), None)
        if twice is not None:
            raise InputFileError([f"{file.path}: holds tensor {twice!r}, which an earlier part holds, too"])
        tensors |= file.tensors
    return tensors


def _stored_bytes(
    path: Path, architecture: Architecture, tensors: Mapping[str, TensorPlace]
) -> tuple[tuple[str, int], ...]:
    """Return the bytes of each part of the model, every tensor held against what the architecture has.

    Raises:
        InputFileError: tensors are missing, unknown or of another shape.
    """
    expected = _expected(architecture)
    missing = [name for name in expected if name not in tensors]
    unknown = [name for name in tensors if name not in expected and name != ROPE_FACTORS]
    shaped = [
        f"{name} ({list(tensors[name].dims)}, not {list(dims)})"
        for name, (_, dims) in expected.items()
        if name in tensors and tensors[name].dims != dims
    ]
    faults = [
        f"{path}: {what} {_listing(names)}"
        for what, names in (
            ("lacks the tensors", missing),
            (f"holds tensors that the family {architecture.family} does not have here:", unknown),
            ("holds tensors of another shape than its metadata say:", shaped),
        )
        if names
    ]
    if faults:
        raise InputFileError(faults)
    bytes_of: Counter[str] = Counter()
    for name, place in tensors.items():
        bytes_of[expected[name][0] if name in expected else "norms"] += place.size
    return tuple(sorted(bytes_of.items()))


def _expected(architecture: Architecture) -> dict[str, tuple[str, tuple[int, ...]]]:
    """Return (part, dimensions as in the file) of every tensor that llama.cpp wants of this architecture."""
    found: dict[str, tuple[str, tuple[int, ...]]] = {}
    for group in tensor_groups(architecture):
        stem, ending = group.pattern.removeprefix("model.layers.{layer}.").rsplit(".", 1)
        dims = (*reversed(group.shape), *((group.experts,) if group.experts > 1 else ()))
        for layer in (None,) if group.layers is None else group.layers:
            block = "" if layer is None else f"blk.{layer}."
            found[f"{block}{_NAMES[stem]}.{ending}"] = (group.part, dims)
    return found


def _listing(names: Sequence[str], most: int = 3) -> str:
    shown = ", ".join(repr(name)[1:-1] for name in names[:most])
    return shown if len(names) <= most else f"{shown}, … ({len(names)} in all)"


def _formats(
    fields: Mapping[str, Any], tensors: Mapping[str, TensorPlace], stored: tuple[tuple[str, int], ...]
) -> Formats:
    """Return how the weights are stored and what llama.cpp computes with them.

    Quantised matrices are multiplied by activations in 8 bits. The name is that of the file where it
    says one that begins with the type of most of its matrices, else that of this type.
    """
    most = _most_used(tensors)
    name, base = FILE_TYPES.get(_hashable(fields.get("general.file_type")), (most.name, most.name))
    if base != most.name:
        name = most.name
    label = _PLAIN.get(name, name.lower())
    return Formats(label, "int8" if most.quantised else _PLAIN[most.name], KV_DTYPE, stored)


def _hashable(value: Any) -> int:
    return value if type(value) is int else -1


def _most_used(tensors: Mapping[str, TensorPlace]) -> GgmlType:
    """Return the type in which most weights of the layers' matrices are."""
    weights: Counter[GgmlType] = Counter()
    for name, place in tensors.items():
        if name.startswith("blk.") and len(place.dims) > 1 and not name.endswith("ffn_gate_inp.weight"):
            weights[place.type] += math.prod(place.dims)
    return weights.most_common(1)[0][0]


def _details(files: Sequence[GgufFile], tensors: Mapping[str, TensorPlace]) -> dict[str, Any]:
    fields = files[0].fields
    kinds: dict[str, dict[str, int]] = {}
    for place in tensors.values():
        entry = kinds.setdefault(place.type.name, {"tensors": 0, "bytes": 0})
        entry["tensors"] += 1
        entry["bytes"] += place.size
    tokens = fields.get("tokenizer.ggml.tokens")
    said = {
        "name": fields.get("general.name"),
        "quantized_by": fields.get("general.quantized_by"),
        "tokenizer": fields.get("tokenizer.ggml.model"),
    }
    return {
        "format": f"GGUF {files[0].version}",
        "files": len(files),
        "file_bytes": sum(file.size for file in files),
        "tensor_types": kinds,
        "vocabulary_tokens": tokens.length if isinstance(tokens, Counted) else None,
        **{key: value[:200] if isinstance(value, str) else None for key, value in said.items()},
    }
