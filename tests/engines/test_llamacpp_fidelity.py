"""The fidelity check sees llama.cpp computing something else than it claims.

Runs under the interpreter that AIPROF_LLAMACPP_PYTHON names, as ``test_llamacpp.py`` does.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from architectures import NARROW

from profiler.engines.process import WorkerProcess
from profiler.measure.fidelity_answers import compare
from profiler.measure.fidelity_artefact import STEPS, Artefact, artefact_of
from profiler.measure.fidelity_limits import Judgement, judge
from profiler.measure.fidelity_reference import Reference, answers_of, load_request, require_all
from profiler.models.catalogue import ResolvedModel
from profiler.models.formats import formats_for

REPOSITORY = Path(__file__).resolve().parents[2]
PYTHON = os.environ.get("AIPROF_LLAMACPP_PYTHON") or str(REPOSITORY / ".venv-llamacpp/bin/python")
pytestmark = [
    pytest.mark.torch,
    pytest.mark.skipif(
        not Path(PYTHON).exists(), reason="no interpreter with llama-cpp-python (AIPROF_LLAMACPP_PYTHON)"
    ),
]


@pytest.fixture(scope="module")
def artefact() -> Artefact:
    model = ResolvedModel(
        name="small", architecture=NARROW, weights="random", source="test", folder=None, weights_digest=None
    )
    return artefact_of(model, seed=3)


@pytest.fixture(scope="module")
def reference(artefact: Artefact) -> Reference:
    from fidelity_noise import reference_of

    return reference_of(artefact)


Judged = Callable[..., Judgement]


@pytest.fixture
def judged(
    artefact: Artefact, reference: Reference, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Judged:
    """Return a function from what llama.cpp is really given to the verdict on what it claims."""
    folder = tmp_path
    monkeypatch.setenv("XDG_CACHE_HOME", str(folder))

    def run(claims: str, runs: str | None = None, **architecture: Any) -> Judgement:
        formats = formats_for(runs or claims)
        spoiled = replace(artefact, architecture=replace(artefact.architecture, **architecture))
        request = load_request(spoiled, "cpu", dict(formats.__dict__), {"threads": 1})
        with WorkerProcess(PYTHON, folder / "worker.log") as worker:
            worker.request("hello", 120, engine="llamacpp", options={})
            worker.request("load", 300, **request)
            found = worker.request("score", 300, **reference.request(artefact))
            prompts = [list(prompt) for prompt in artefact.prompts]
            said = worker.request("run", 300, prompt_ids=prompts, output_tokens=STEPS, return_ids=True)
        scored = require_all(answers_of(found), reference)
        continued = answers_of({"tokens": said["output_ids"]})
        return judge(compare(reference.scored, scored, reference.greedy, continued), formats_for(claims))

    return run


def tensor_places(path: Path) -> dict[str, tuple[int, int]]:
    """Return (offset, bytes) of each matrix in a GGUF file of 2-byte weights. Format: ggml's gguf.md."""
    sizes = {0: 1, 1: 1, 2: 2, 3: 2, 4: 4, 5: 4, 6: 4, 7: 1, 10: 8, 11: 8, 12: 8}
    data, at = path.read_bytes(), 8

    def number(size: int) -> int:
        nonlocal at
        at += size
        return int.from_bytes(data[at - size : at], "little")

    def text() -> str:
        nonlocal at
        length = number(8)
        at += length
        return data[at - length : at].decode()

    def skip(kind: int) -> None:
        nonlocal at
        if kind == 8:
            text()
        elif kind == 9:
            inner, count = number(4), number(8)
            for _ in range(count):
                skip(inner)
        else:
            at += sizes[kind]

    tensors, fields = number(8), number(8)
    for _ in range(fields):
        text()
        skip(number(4))
    found = {}
    for _ in range(tensors):
        name, elements = text(), 1
        for _ in range(number(4)):
            elements *= number(8)
        number(4)
        found[name] = (number(8), 2 * elements)
    begin = -(-at // 32) * 32
    return {name: (begin + offset, size) for name, (offset, size) in found.items()}


@pytest.mark.parametrize("precision", ["fp32", "fp16", "bf16", "q8_0", "q4_0"])
def test_llamacpp_is_faithful_in_what_it_runs(judged: Judged, precision: str) -> None:
    found = judged(precision)
    assert (found.verdict, found.reason) == ("faithful", None)


def test_a_wrong_rope_base_is_wrong(judged: Judged) -> None:
    assert judged("bf16", rope_theta=10_000.0).verdict == "wrong"


@pytest.mark.parametrize("layer", [0, 1])
def test_a_skipped_layer_is_wrong(judged: Judged, tmp_path: Path, layer: int) -> None:
    """A layer whose two outputs are zero adds nothing to the stream, as if it had been left out."""
    assert judged("bf16").verdict == "faithful"
    (path,) = (tmp_path / "aiprof" / "gguf").glob("*.gguf")
    places = tensor_places(path)
    with path.open("r+b") as file:
        for name in ("attn_output", "ffn_down"):
            offset, size = places[f"blk.{layer}.{name}.weight"]
            file.seek(offset)
            file.write(bytes(size))
    assert judged("bf16").verdict == "wrong"


def test_a_model_with_a_layer_less_is_not_faithful(judged: Judged) -> None:
    # The check's weights are scaled by the number of layers: this is milder than a layer left out.
    assert judged("bf16", layers=1).verdict in ("degraded", "wrong")


def test_weights_secretly_in_four_bits_are_not_faithful(judged: Judged) -> None:
    found = judged("bf16", runs="q4_0")
    assert found.verdict in ("degraded", "wrong")
    assert found.explained_by in ("q4_0", "w4a16-g128", "fp8-block128", "an int8 KV cache", None)
