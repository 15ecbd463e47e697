"""The vllm engine's worker against a stand-in for vLLM (``fakes/vllm``), through the real protocol."""

from __future__ import annotations

import dataclasses
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import architectures
import pytest

from profiler.engines.process import WorkerError, WorkerProcess
from profiler.models.accounting import weights_bytes
from profiler.models.formats import formats_for
from profiler.worker import checkpoint_layout, vllm_model, vllm_server, vllm_speculation, vllm_steps

pytestmark = pytest.mark.torch
FAKES = Path(__file__).resolve().parents[1] / "fakes"
ARCH = architectures.QWEN3
TIMEOUT_S = 300.0


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("vllm")


@pytest.fixture(scope="module")
def worker(folder: Path) -> Iterator[WorkerProcess]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", str(FAKES))
        patch.setenv("XDG_CACHE_HOME", str(folder))
        with WorkerProcess(sys.executable, folder / "worker.log") as process:
            process.request("hello", TIMEOUT_S, engine="vllm", options={"threads": 1})
            yield process


def load(worker: WorkerProcess, batch: int = 3, tokens: int = 64, **changes: Any) -> dict[str, Any]:
    fields: dict[str, Any] = {
        "start": 0,
        "architecture": dataclasses.asdict(ARCH),
        "weights": {"kind": "random", "seed": 1},
        "device": "cpu",
        "formats": dataclasses.asdict(formats_for("fp32")),
        "options": {},
    }
    fields |= {"max_batch": batch, "max_tokens": tokens} | changes
    return worker.request("load", TIMEOUT_S, **fields)


def run(worker: WorkerProcess, batch: int, prompt: int, outputs: int) -> dict[str, Any]:
    prompts = [[row + 1] * prompt for row in range(batch)]
    return worker.request("run", TIMEOUT_S, prompt_ids=prompts, output_tokens=outputs, return_ids=True)


def test_a_batch_that_fits_one_step_is_split_and_every_token_stamped(worker: WorkerProcess) -> None:
    loaded = load(worker)
    assert loaded["compile_s"] is None  # eager on CPUs
    assert "dummy_weights" not in loaded
    # Nothing of the weights can be seen here, as where oneDNN keeps them: the checkpoint's count.
    assert loaded["weights_bytes"] == weights_bytes(ARCH, formats_for("fp32"))
    assert loaded["details"]["weights_bytes_from"] == "the checkpoint's tensors"
    answer = run(worker, batch=3, prompt=10, outputs=5)
    assert answer["submit_ns"] < answer["first_token_ns"] < answer["last_token_ns"]
    assert len(answer["step_ns"]) == 5
    assert answer["preemptions"] == 0
    assert answer["output_ids"] == [
        [(10 * (row + 1) + k) % ARCH.vocab_size for k in range(5)] for row in range(3)
    ]
    engine = answer["engine_stamps_s"]
    assert answer["submit_ns"] <= engine["scheduled_s"] * 1e9 + 1e3
    assert engine["first_token_s"] * 1e9 <= answer["first_token_ns"]
    assert engine["last_token_s"] * 1e9 <= answer["last_token_ns"]


def test_prompts_that_take_several_steps_leave_no_phases(worker: WorkerProcess) -> None:
    load(worker, options={"max_num_batched_tokens": 16})
    mixed = run(worker, batch=3, prompt=10, outputs=5)
    assert mixed["first_token_ns"] is None
    assert mixed["step_ns"] is None
    assert "max_num_batched_tokens" in mixed["split_reason"]
    assert [len(ids) for ids in mixed["output_ids"]] == [5, 5, 5]
    # Alone, a prompt in pieces is still a prefill and then a decode.
    alone = run(worker, batch=1, prompt=40, outputs=3)
    assert alone["first_token_ns"] is not None
    # A single token each leaves nothing to mix with.
    prefill = run(worker, batch=3, prompt=10, outputs=1)
    assert prefill["first_token_ns"] == prefill["last_token_ns"]


def test_the_cache_of_a_cpu_is_as_large_as_the_case_unless_a_share_is_asked_for(
    worker: WorkerProcess,
) -> None:
    exact = load(worker, batch=3, tokens=130)
    assert 3 * 2 * 128 <= exact["kv_cache_tokens"] <= (3 * 2 + 2) * 128
    assert "kv_capacity_tokens" not in worker.request("memory", TIMEOUT_S)
    share = load(worker, options={"gpu_memory_utilization": 0.5})
    reported = worker.request("memory", TIMEOUT_S)["kv_capacity_tokens"]
    assert reported == share["kv_cache_tokens"] > exact["kv_cache_tokens"]


def test_dummy_weights_are_said_to_be_so_and_take_no_disk(worker: WorkerProcess, folder: Path) -> None:
    loaded = load(worker, options={"load_format": "dummy"}, weights={"kind": "random", "seed": 77})
    assert loaded["dummy_weights"] is True
    assert "dummy" in loaded["details"]["weights"]
    without = [path for path in (folder / "aiprof" / "checkpoints").iterdir() if path.is_dir()]
    assert any(not (path / "model.safetensors").exists() for path in without)


def test_formats_are_those_of_the_case_or_refused(worker: WorkerProcess, tmp_path: Path) -> None:
    with pytest.raises(WorkerError, match="real weights only") as caught:
        load(worker, formats=dataclasses.asdict(formats_for("fp8-block128")))
    assert caught.value.kind == "unsupported"
    config = checkpoint_layout.config(dataclasses.asdict(ARCH), "bfloat16")
    (tmp_path / "model.safetensors").write_bytes(b"")
    (tmp_path / "config.json").write_text(
        json.dumps(config | {"quantization_config": {"quant_method": "fp8"}})
    )
    real = {"kind": "folder", "path": str(tmp_path)}
    assert load(worker, weights=real, formats=dataclasses.asdict(formats_for("fp8-block128")))
    with pytest.raises(WorkerError, match="the case says bf16, vLLM loaded the weights as fp8"):
        load(worker, weights=real, formats=dataclasses.asdict(formats_for("bf16")))


def test_what_does_not_fit_is_named(worker: WorkerProcess) -> None:
    with pytest.raises(WorkerError, match="No available memory") as caught:
        load(worker, options={"gpu_memory_utilization": 1e-9})
    assert caught.value.kind == "out_of_memory"
    load(worker, batch=2, tokens=20)
    for prompts, outputs in (([[1]] * 3, 2), ([[1] * 19], 2), ([[1], [1, 2]], 2), ([[96]], 2), ([[1]], 0)):
        with pytest.raises(WorkerError) as refused:
            worker.request("run", TIMEOUT_S, prompt_ids=prompts, output_tokens=outputs, return_ids=False)
        assert refused.value.kind == "bad_request"


def test_without_vllm_the_remedy_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    broken = tmp_path / "vllm"
    broken.mkdir()
    (broken / "__init__.py").write_text("raise RuntimeError('operator torchvision::nms does not exist')")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    with (
        WorkerProcess(sys.executable, tmp_path / "worker.log") as process,
        pytest.raises(
            WorkerError, match=r"torchvision::nms does not exist; name an interpreter.*--python"
        ) as caught,
    ):
        process.request("hello", TIMEOUT_S, engine="vllm", options={})
    assert caught.value.kind == "unsupported"


def test_guessed_tokens_are_counted_and_every_token_has_a_stamp(
    worker: WorkerProcess, tmp_path: Path
) -> None:
    (tmp_path / "model.safetensors").write_bytes(b"")
    config = checkpoint_layout.config(dataclasses.asdict(ARCH), "float32")
    (tmp_path / "config.json").write_text(json.dumps(config))
    real = {"kind": "folder", "path": str(tmp_path)}
    options = {"speculative": "ngram", "speculative_tokens": 4}
    with pytest.raises(WorkerError, match="give --model a folder of real weights"):
        load(worker, options=options)
    plain = load(worker, weights=real)
    alone = run(worker, batch=2, prompt=10, outputs=8)
    assert "speculation" not in alone
    loaded = load(worker, weights=real, options=options)
    assert loaded["kv_cache_tokens"] >= plain["kv_cache_tokens"]
    answer = run(worker, batch=2, prompt=10, outputs=8)
    assert answer["output_ids"] == alone["output_ids"]
    # One token from the prompt, then three a step: 1 + 3 + 3 + 1, of which the last has no room for guesses.
    assert answer["speculation"] == {"drafts": 6, "draft_tokens": 24, "accepted_tokens": 8}
    stamps = answer["step_ns"]
    assert len(stamps) == 8
    assert len(set(stamps)) == 4
    assert (stamps[0], stamps[-1]) == (answer["first_token_ns"], answer["last_token_ns"])
    again = run(worker, batch=1, prompt=10, outputs=8)
    assert again["speculation"]["drafts"] == 3


def test_ranks_on_a_cpu_share_its_cores_and_pipelines_are_compiled(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("VLLM_CPU_OMP_THREADS_BIND", raising=False)
    fields: dict[str, Any] = {
        "architecture": dataclasses.asdict(ARCH), "weights": {"kind": "random", "seed": 1},
        "formats": dataclasses.asdict(formats_for("fp32")), "options": {"threads": 2}, "device": "cpu",
        "max_batch": 1, "max_tokens": 8,
    }  # fmt: skip
    one = vllm_model.plan(fields)
    two = vllm_model.plan(fields | {"parallel": {"tp": 2, "pp": 1, "dp": 1, "ep": 1}})
    stages = vllm_model.plan(fields | {"parallel": {"tp": 1, "pp": 2, "dp": 1, "ep": 1}})
    eager = [plan.arguments("cpu")["enforce_eager"] for plan in (one, two, stages)]
    assert eager == [True, True, False]
    bound = vllm_server.environment(two, ["cpu"])["VLLM_CPU_OMP_THREADS_BIND"]
    assert len(bound.split("|")) == 2
    assert len(vllm_server.environment(one, ["cpu"])["VLLM_CPU_OMP_THREADS_BIND"].split("|")) == 1


def test_a_token_is_stamped_when_the_last_request_has_it() -> None:
    done = vllm_steps.Stepped(2)
    done.ids, done.stamps = [[1, 2, 3], [4, 5, 6]], [10, 20, 30, 40]
    done.given = [[1, 1], [2, 0], [0, 1], [0, 1]]
    assert done.token_stamps() == [10, 30, 40]


def test_the_model_that_guesses_has_room_in_the_cache_and_no_place_in_the_record(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"num_hidden_layers": 7}))
    options = {"speculative": "draft_model", "speculative_tokens": 2, "speculative_model": str(tmp_path)}
    assert vllm_speculation.cache_layers(options, 5) == 7
    assert vllm_speculation.cache_layers({"speculative": "ngram"}, 5) == 0
    assert vllm_speculation.cache_layers({"speculative": "mtp"}, 5) == 1
    config = vllm_speculation.config(options)
    assert config == {"method": "draft_model", "num_speculative_tokens": 2, "model": str(tmp_path)}
    recorded = vllm_speculation.without_place({"speculative_config": config, **options})
    assert recorded["speculative_config"]["model"] == recorded["speculative_model"] == tmp_path.name
    assert str(tmp_path) not in json.dumps(recorded)
    assert config["model"] == str(tmp_path)
    assert vllm_speculation.between(None, {"drafts": 1}) is None


def test_preempted_requests_leave_no_phases() -> None:
    done = vllm_steps.Stepped(2)
    done.ids, done.stamps, done.given = [[1, 2], [3, 4]], [10, 20], [[1, 1], [1, 1]]
    assert done.mixed() is None
    assert done.token_stamps() == [10, 20]
    done.preemptions = 1
    assert "preempted" in (done.mixed() or "")


def test_wanted_tokens_are_scored_along_given_ones(worker: WorkerProcess) -> None:
    load(worker)
    prompts, forced, wanted = [[1, 2], [3, 4]], [[5], [6]], [[[7, 8], [9, 10]], [[11, 12], [13, 14]]]
    answer = worker.request(
        "score", TIMEOUT_S, prompt_ids=prompts, output_tokens=2, forced_ids=forced, score_ids=wanted
    )
    sums = [[3, 8], [7, 13]]  # of the tokens before each position
    assert answer["ids"] == wanted
    assert answer["logits"] == [
        [[-float((sums[row][step] + token) % 97) for token in wanted[row][step]] for step in range(2)]
        for row in range(2)
    ]
    assert answer["tokens"] == [[one % ARCH.vocab_size for one in row] for row in sums]
    assert answer["log_sum_exp"] is None
    with pytest.raises(WorkerError, match="along given ones only"):
        worker.request(
            "score", TIMEOUT_S, prompt_ids=prompts, output_tokens=2, forced_ids=[None, None], score_ids=wanted
        )
