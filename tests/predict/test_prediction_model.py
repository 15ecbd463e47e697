"""The model of the work against sums by hand, and what must hold for any hardware."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from profiler.analysis.predict.calibration import calibrated, calibration
from profiler.analysis.predict.deployment import Deployment, Parallel, check, default_parallel
from profiler.analysis.predict.forecast import predict
from profiler.analysis.predict.memory import fit
from profiler.analysis.predict.serving import FACTORS, Load, nominal_steps, served
from profiler.analysis.predict.terms import COLUMNS, decode_nominal, prefill_nominal, step_parts, step_seconds
from profiler.errors import UsageError
from profiler.hardware.catalogue import catalogue, get_hardware
from profiler.models.catalogue import catalogue as models
from profiler.models.formats import formats_for

H100 = get_hardware("h100-sxm")
LLAMA = models()["llama-3.1-8b"].architecture
QWEN_MOE = models()["qwen3-235b-a22b"].architecture
DEEPSEEK = models()["deepseek-r1"].architecture


def deployment(
    hardware: str = "h100-sxm", model: str = "llama-3.1-8b", precision: str = "bf16", **ranks: int
) -> Deployment:
    part = get_hardware(hardware)
    return Deployment(part, models()[model].architecture, formats_for(precision), Parallel(**ranks))


def column(nominal: np.ndarray, name: str) -> float:
    return float(nominal[COLUMNS.index(name)])


def test_a_decode_step_by_hand() -> None:
    """Llama 3.1 8B (arXiv:2407.21783, table 3): 8.03e9 parameters less 0.53e9 of the embedding, bf16."""
    nominal = decode_nominal(deployment(), 64, 1000)
    weights = (8_030_261_248 - 128_256 * 4096) * 2
    activations = 64 * 32 * (12 * 4096 + 3 * 14_336) * 2
    assert column(nominal, "weights") == pytest.approx((weights + activations) / 3.35e12, rel=1e-4)
    assert column(nominal, "cache") == pytest.approx(64 * 1000 * 32 * 2 * 8 * 128 * 2 / 3.35e12)
    multiply = 64 * 2 * (8_030_261_248 - 128_256 * 4096) / 989e12
    assert column(nominal, "multiply") == pytest.approx(multiply, rel=1e-3)
    assert column(nominal, "layers") == pytest.approx(32 * 10e-6)
    assert column(nominal, "waits") == 0


def test_a_prefill_counts_the_head_once() -> None:
    one, longer = (column(prefill_nominal(deployment(), 1, tokens), "multiply") for tokens in (1000, 2000))
    head = 2 * 128_256 * 4096 / 989e12
    assert longer - one == pytest.approx(one - head)


def test_tensor_ranks_exchange_activations() -> None:
    nominal = decode_nominal(deployment(tensor=8), 64, 1000)
    assert column(nominal, "waits") == pytest.approx(2 * 32 * 10e-6)
    sent = 2 * 32 * 64 * 4096 * 2 * 2 * 7 / 8
    assert column(nominal, "traffic") == pytest.approx(sent / 450e9)
    alone = decode_nominal(deployment(), 64, 1000)
    assert column(nominal, "cache") == pytest.approx(column(alone, "cache") / 8)
    assert column(nominal, "multiply") == pytest.approx(column(alone, "multiply") / 8)


def test_experts_are_read_as_far_as_the_batch_covers_them() -> None:
    few, many = (
        column(decode_nominal(deployment(model="qwen3-235b-a22b", tensor=4), n, 10), "weights")
        for n in (1, 512)
    )
    everything = column(prefill_nominal(deployment(model="qwen3-235b-a22b", tensor=4), 1, 100_000), "weights")
    assert few < many / 5
    assert many < everything


def test_latent_caches_are_not_shared_by_tensor_ranks() -> None:
    one = deployment("h200", "deepseek-r1", "fp8-block128", tensor=8)
    many = deployment("h200", "deepseek-r1", "fp8-block128", tensor=16)
    assert column(decode_nominal(one, 8, 999), "cache") == column(decode_nominal(many, 8, 999), "cache")


@given(users=st.integers(1, 512), prompt=st.integers(1, 20_000), output=st.integers(2, 5000))
@settings(max_examples=40, deadline=None)
def test_the_parts_add_up_and_more_bandwidth_is_never_slower(users: int, prompt: int, output: int) -> None:
    load = Load("closed", prompt, output, users)
    factors = calibrated("vllm", "NVIDIA").factors[: len(COLUMNS)]
    steps = nominal_steps(deployment(), load)
    for nominal in (steps.decode, steps.prefill):
        parts = step_parts(nominal, factors)
        assert float(step_seconds(nominal, factors)) == pytest.approx(float(sum(parts.values())))
    slow = predict(deployment(), load, "vllm")
    peak = H100.memory_bandwidth_bytes_per_s
    assert peak is not None
    better = replace(H100, memory_bandwidth_bytes_per_s=replace(peak, value=2 * peak.value))
    fast = predict(replace(deployment(), hardware=better), load, "vllm")
    for name in ("tpot_s", "ttft_s"):
        assert fast.figures[name].value <= slow.figures[name].value  # type: ignore[union-attr]
    assert fast.figures["output_tokens_per_s"].value >= slow.figures["output_tokens_per_s"].value  # type: ignore[union-attr]


def figures(kind: str, running: float, factors: np.ndarray, **lengths: float):  # type: ignore[no-untyped-def]
    work = Load(kind, lengths["prompt"], lengths["output"], lengths["users"])  # type: ignore[arg-type]
    steps = nominal_steps(deployment(), work)
    given_ = {name: np.array(value) for name, value in lengths.items()}
    return served(np.array(kind), steps.decode, steps.prefill, np.array(running), factors, **given_)


def test_a_static_batch_is_one_prefill_and_its_steps() -> None:
    ones = np.ones(len(FACTORS))
    one = figures("static", 8, ones, prompt=100.0, output=50.0, users=8.0)
    total = float(one.prefill_s) + 49 * float(one.decode_s)
    assert float(one.output_tokens_per_s) == pytest.approx(8 * 50 / total)
    assert float(one.ttft_s) == float(one.prefill_s)


def test_users_wait_or_stall_for_the_same_prefills() -> None:
    """Whatever the engine does first: a sequence lives N p + n d."""
    for interleave in (0.1, 1.0, 10.0):
        factors = np.ones(len(FACTORS))
        factors[FACTORS.index("interleave")] = interleave
        one = figures("closed", 16, factors, prompt=500.0, output=100.0, users=16.0)
        life = 16 * float(one.prefill_s) + 100 * float(one.decode_s)
        assert float(one.output_tokens_per_s) == pytest.approx(16 * 100 / life)
        lived = float(one.ttft_s) + 99 * float(one.tpot_s)
        assert lived == pytest.approx(life, rel=0.01)


@given(users=st.integers(1, 400))
@settings(max_examples=30, deadline=None)
def test_more_users_are_slower_for_each_and_faster_for_all(users: int) -> None:
    one, more = (
        predict(deployment(), Load("closed", 500, 200, n), "vllm").figures for n in (users, users + 20)
    )
    assert more["output_tokens_per_s"].value > one["output_tokens_per_s"].value  # type: ignore[union-attr]
    assert more["tpot_s"].value > one["tpot_s"].value  # type: ignore[union-attr]


@pytest.mark.parametrize("part", catalogue().values(), ids=lambda part: part.name)
def test_every_part_is_predicted_or_refused_with_a_reason(part) -> None:  # type: ignore[no-untyped-def]
    load = Load("closed", 500, 200, 4)
    wanted = Deployment(part, LLAMA, formats_for("fp16"))
    if part.memory_bandwidth_bytes_per_s is None:
        with pytest.raises(UsageError, match="cannot predict decode"):
            predict(wanted, load, "vllm")
        return
    one = predict(wanted, load, "vllm")
    for name, figure in one.figures.items():
        assert (figure is None) == (name in one.reasons)
        if figure is not None:
            assert figure.low80 < figure.value <= figure.high80
    assert one.memory.cache_tokens is not None or one.memory.reason


@given(
    count=st.sampled_from([1, 2, 4, 8]),
    model=st.sampled_from(list(models())),
    part=st.sampled_from(list(catalogue())),
)
@settings(max_examples=60, deadline=None)
def test_nothing_fits_whose_weights_exceed_the_memory(count: int, model: str, part: str) -> None:
    hardware, arch = get_hardware(part), models()[model].architecture
    try:
        parallel = default_parallel(hardware, arch, count)
    except UsageError:
        return
    found = fit(Deployment(hardware, arch, formats_for("bf16"), parallel))
    if hardware.memory_bytes is None:
        assert found.fits(1, 1) is None
    elif found.weights_bytes > count * hardware.memory_bytes.value:
        assert found.fits(1, 1) is False


def test_known_cases_of_fitting() -> None:
    assert fit(deployment("h100-sxm", "llama-3.1-8b")).fits(1, 8192)
    assert not fit(deployment("h100-sxm", "llama-3.1-70b")).fits(1, 1)
    assert fit(deployment("h200", "deepseek-r1", "fp8-block128", tensor=8)).fits(8, 8192)
    assert not fit(deployment("h100-sxm", "deepseek-r1", "fp8-block128", tensor=8)).fits(1, 1)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (deployment("a100-sxm", precision="fp8-block128"), "Ampere has no FP8 units"),
        (deployment(tensor=64), "only 32 attention heads"),
        (deployment(tensor=5), "must divide the 32 attention heads"),
        (deployment(tensor=8, expert=8), "the model has no experts"),
        (deployment(model="qwen3-235b-a22b", tensor=4, expert=3), "must divide 128 experts"),
        (deployment(pipeline=40), "only 32 layers"),
    ],
)
def test_contradictions_are_refused(wrong: Deployment, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        check(wrong)


def test_an_unseen_part_gets_its_class_and_its_spread() -> None:
    known = calibrated("vllm", "NVIDIA")
    assert known.ground == "pair"
    other = calibrated("vllm", "Baidu Kunlunxin")
    assert other.ground == "engine"
    assert other.rate.half80 > known.rate.half80
    assert calibrated("torch", "NVIDIA").ground == "none"
    assert calibrated("llamacpp", "NVIDIA").rate.half95 is not None
    assert known.rate.half95 is None
    cpu = calibrated("llamacpp", "AMD", kind="cpu")
    assert cpu.ground == "none"
    assert cpu.rate.half80 > other.rate.half80
    with pytest.raises(UsageError, match="unknown engine 'vlm'; did you mean 'vllm'"):
        calibrated("vlm", "NVIDIA")


def test_95_percent_only_where_19_devices_support_it() -> None:
    for spread in calibration().spreads:
        assert (spread.half95 is not None) == (spread.devices >= 19)
    assert all(source.licence for source in calibration().sources)


def test_moe_and_mla_on_many_ranks() -> None:
    load = Load("closed", 1000, 200, 64)
    shared = predict(deployment("h200", "deepseek-r1", "fp8-block128", tensor=8), load, "sglang")
    spread = predict(deployment("h200", "deepseek-r1", "fp8-block128", data=8, expert=8), load, "sglang")
    assert shared.memory.cache_tokens is not None
    assert spread.memory.cache_tokens is not None
    assert spread.memory.cache_tokens > 5 * shared.memory.cache_tokens
    assert spread.decode.within["traffic"] > 0
