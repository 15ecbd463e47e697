from __future__ import annotations

import math
from fractions import Fraction
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from profiler.data import data_root
from profiler.errors import InputFileError, UsageError
from profiler.workload import scenario as scenario_module
from profiler.workload.scenario import Scenario, find_scenario, scenarios

SHIPPED = scenarios()
NAMES = [
    "batch-offline",
    "chat",
    "code-completion",
    "decode-128",
    "long-context",
    "prefill-512",
    "reasoning",
    "summarize",
]
OWN = """\
name: own
version: 1
description: mine
offline: {prompt_tokens: 10, output_tokens: 5, basis: median}
quick: {fraction: 1/2, purpose: faster}
served:
  prompt_tokens: {quantiles: {p50: 10, p99.9: 90}}
  output_tokens: {quantiles: {p50: 5, p90: 9}}
  correlation: {pearson: null, note: unknown}
  arrivals: {process: gamma, cv: 2.5, measured_cv: null, rate_per_s: null, source: assumed}
source: {name: mine, url: "https://example.org/a", licence: CC0-1.0, citation: none}
"""


def own(tmp_path: Path, *changes: tuple[str, str]) -> Path:
    text = OWN
    for old, new in changes:
        assert old in text
        text = text.replace(old, new)
    path = tmp_path / "own.yaml"
    path.write_text(text)
    return path


def fault(path: Path) -> str:
    with pytest.raises(InputFileError) as caught:
        find_scenario(str(path))
    (line,) = caught.value.faults
    return line.removeprefix(f"{path}:")


def test_all_shipped_scenarios_load() -> None:
    assert list(SHIPPED) == NAMES
    assert {path.stem for path in data_root("scenarios").iterdir()} == set(NAMES)


@pytest.mark.parametrize("scenario", SHIPPED.values(), ids=NAMES)
class TestShipped:
    def test_its_name_is_that_of_its_file(self, scenario: Scenario) -> None:
        assert find_scenario(scenario.name) == scenario
        assert SHIPPED[scenario.name] is scenario

    def test_its_offline_lengths_are_the_medians_where_it_says_so(self, scenario: Scenario) -> None:
        if scenario.basis != "median":
            assert scenario.served is None
            return
        assert scenario.served is not None
        for quantiles, tokens in (
            (scenario.served.prompt_tokens, scenario.prompt_tokens),
            (scenario.served.output_tokens, scenario.output_tokens),
        ):
            assert quantiles.tokens[quantiles.levels.index(0.5)] == tokens

    def test_its_quick_lengths_follow_the_rule(self, scenario: Scenario) -> None:
        full, quick = scenario.point("full", 3), scenario.point("quick", 3)
        assert (full.prompt_tokens, full.output_tokens) == (scenario.prompt_tokens, scenario.output_tokens)
        for whole, part in (
            (full.prompt_tokens, quick.prompt_tokens),
            (full.output_tokens, quick.output_tokens),
        ):
            over, under = scenario.quick_fraction.denominator, scenario.quick_fraction.numerator
            # Rounded half up, in integers: floor(n/d + 1/2) = (2 n + d) // (2 d).
            assert part == max(1, (2 * whole * under + over) // (2 * over))

    def test_its_quick_trial_takes_the_time_it_promises(self, scenario: Scenario) -> None:
        def seconds(batch: int, decode_tokens_per_s: float) -> float:
            point = scenario.point("quick", batch)
            prefill_s = batch * point.prompt_tokens / 850
            return prefill_s + batch * (point.output_tokens - 1) / decode_tokens_per_s

        batch = scenario.batches[0] if scenario.batches else 8
        assert f"5 s at batch {batch}" in scenario.quick_purpose
        assert seconds(1, 24) <= 2
        assert seconds(batch, 140) <= 5

    def test_the_lengths_that_are_drawn_have_the_published_means(self, scenario: Scenario) -> None:
        served = scenario.served
        for quantiles in (served.prompt_tokens, served.output_tokens) if served else ():
            assert quantiles.sampled_mean == pytest.approx(quantiles.mean, rel=0.05)

    def test_it_says_where_it_comes_from(self, scenario: Scenario) -> None:
        assert scenario.source.url.startswith("https://")
        assert (scenario.served is None) == (scenario.offline_only is not None)
        if scenario.served is not None and scenario.served.arrivals.measured_cv is None:
            assert "assumed" in scenario.served.arrivals.source


def test_batch_offline_has_the_means_of_the_chat_trace() -> None:
    chat, batch = SHIPPED["chat"], SHIPPED["batch-offline"]
    assert chat.served is not None
    prompt, output, rate = (
        chat.served.prompt_tokens.mean,
        chat.served.output_tokens.mean,
        chat.served.arrivals.rate_per_s,
    )
    assert prompt is not None
    assert output is not None
    assert rate is not None
    assert chat.source == batch.source
    assert (batch.prompt_tokens, batch.output_tokens) == (round(prompt), round(output))
    # Little's law at 25, 50 and 100 ms per token, to the nearest power of two.
    running = [rate * output * tpot_s for tpot_s in (0.025, 0.05, 0.1)]
    assert batch.batches == tuple(2 ** round(math.log2(requests)) for requests in running)


def test_the_phase_probes_have_the_lengths_in_their_names() -> None:
    assert (SHIPPED["prefill-512"].prompt_tokens, SHIPPED["prefill-512"].output_tokens) == (512, 1)
    assert (SHIPPED["decode-128"].prompt_tokens, SHIPPED["decode-128"].output_tokens) == (128, 128)


@given(tokens=st.integers(1, 10**7), over=st.integers(1, 9999), data=st.data())
def test_quick_is_never_longer_than_full_and_never_empty(tokens: int, over: int, data: st.DataObject) -> None:
    share = Fraction(data.draw(st.integers(1, over)), over)
    quick = scenario_module._share(tokens, share)
    assert 1 <= quick <= tokens
    assert abs(quick - tokens * share) <= Fraction(1, 2) or quick == 1


def test_a_point_needs_a_batch() -> None:
    with pytest.raises(UsageError, match="batch must be at least 1, not 0"):
        SHIPPED["chat"].point("full", 0)


def test_a_scenario_of_the_users_own(tmp_path: Path) -> None:
    scenario = find_scenario(str(own(tmp_path)))
    assert scenario.served is not None
    assert scenario.served.prompt_tokens.levels == (0.5, 0.999)
    assert scenario.quick_fraction == Fraction(1, 2)
    assert scenario.point("quick", 4).output_tokens == 3  # 2.5, half up


def test_an_unknown_name_gets_the_nearest(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UsageError, match="unknown scenario 'caht'; did you mean 'chat'"):
        find_scenario("caht")
    (tmp_path / "mine").write_text(OWN)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UsageError, match=r"to use the file, write '\./mine'"):
        find_scenario("mine")
    assert find_scenario("./mine").name == "own"


def test_a_shipped_file_can_be_named_by_its_path_but_its_name_not_taken(tmp_path: Path) -> None:
    path = data_root("scenarios") / "chat.yaml"
    assert find_scenario(str(path)) == SHIPPED["chat"]
    assert "name: 'chat' is a scenario that comes with aiprof" in fault(
        own(tmp_path, ("name: own", "name: chat"))
    )


@pytest.mark.parametrize(
    ("old", "new", "what"),
    [
        ("p50: 10,", "p50: 11,", "1: offline.prompt_tokens must be served.prompt_tokens.quantiles.p50 (11)"),
        ("p90: 9", "p90: 4", "8: served.output_tokens.quantiles: a higher quantile must not be shorter"),
        ("p50: 5, p90: 9", "p90: 9, p50: 5", "8: served.output_tokens.quantiles: levels must rise"),
        ("p90: 9", "q90: 9", "8: served.output_tokens.quantiles.q90: must be text that matches"),
        ("p90: 9", "p0: 9", "8: served.output_tokens.quantiles: levels must lie between 0 and 1"),
        ("process: gamma", "process: poisson", "10: served.arrivals: cv of poisson arrivals is 1, not 2.5"),
        ("fraction: 1/2", "fraction: 3/2", "5: quick.fraction: must be at most 1/1, not 3/2"),
        ("fraction: 1/2", "fraction: 0.5", "5: quick.fraction: must be text, not 0.5"),
        ("served:", "offline_only: no\nserved:", "1: give either served, or offline_only"),
        ("output_tokens: 5", "output_tokens: 0", "4: offline.output_tokens: must be at least 1, not 0"),
        ("version: 1", "verison: 1\nversion: 1", "2: verison: unknown key; did you mean 'version'?"),
        ("https://", "file://", "11: source.url: must be text that matches"),
    ],
)
def test_faults_in_a_users_file_are_plain(tmp_path: Path, old: str, new: str, what: str) -> None:
    assert fault(own(tmp_path, (old, new))).startswith(what)


def test_faults_of_all_shipped_files_come_together(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("a", "b"):
        (tmp_path / f"{name}.yaml").write_text("name: a\n")
    monkeypatch.setattr(scenario_module, "data_root", lambda kind: tmp_path)
    with pytest.raises(InputFileError) as caught:
        scenarios()
    assert {Path(line.split(":")[0]).name for line in caught.value.faults} == {"a.yaml", "b.yaml"}
