"""What speculative decoding guessed: figures, what goes missing with it, and how it is shown."""

from __future__ import annotations

from pathlib import Path

import builders
import pytest

from profiler.measure.derive import figures_of
from profiler.measure.recorded import recorded_starts
from profiler.measure.request import SweepRequest
from profiler.measure.speculation import speculation_figures, speculation_flags, speculation_of_trials
from profiler.measure.summary import flags
from profiler.measure.sweep import Sweep
from profiler.render.speculation import speculation_line
from profiler.results.schema import CaseRecord, Speculation

GUESSING = builders.make_spec(speculative="ngram")
COUNTED = Speculation(method="ngram", drafts=10, draft_tokens=30, accepted_tokens=12)


def test_acceptance_is_counted_over_all_starts() -> None:
    found = speculation_figures(GUESSING, [COUNTED, COUNTED.model_copy(update={"accepted_tokens": 0})])
    assert found["speculative_acceptance"].value == pytest.approx(12 / 60)
    assert found["speculative_tokens_per_step"].value == pytest.approx(1 + 12 / 20)
    assert {one.n for one in found.values()} == {20}
    assert speculation_figures(builders.make_spec(), [COUNTED]) == {}


@pytest.mark.parametrize(
    ("starts", "reason"),
    [
        ([COUNTED, None], "does not say"),
        ([Speculation(method="ngram", drafts=0, draft_tokens=0, accepted_tokens=0)], "nothing was guessed"),
    ],
)
def test_without_counts_there_is_no_acceptance(starts: list[Speculation | None], reason: str) -> None:
    for figure in speculation_figures(GUESSING, starts).values():
        assert figure.value is None
        assert reason in str(figure.reason)


def test_trials_add_up_only_where_all_of_them_are_counted() -> None:
    told = {"drafts": 1, "draft_tokens": 3, "accepted_tokens": 2}
    twice = Speculation(method="mtp", drafts=2, draft_tokens=6, accepted_tokens=4)
    assert speculation_of_trials("mtp", [told, told]) == twice
    assert speculation_of_trials("mtp", [told, None]) is None
    assert speculation_of_trials("mtp", []) is None
    assert speculation_of_trials(None, [told]) is None


def measured(path: Path) -> CaseRecord:
    request = SweepRequest(engines=("fake",), scenarios=("decode-128",), batches=(1,), budget_s=60.0)
    return Sweep(request, lambda _: None).run(path).cases[0]


def test_tokens_are_no_steps_then_and_the_prompts_are_said_to_be_random(tmp_path: Path) -> None:
    case = measured(tmp_path / "run")
    starts = tuple(start.model_copy(update={"speculation": COUNTED}) for start in case.starts)
    spec = case.spec.model_copy(update={"speculative": "ngram"})
    case = case.model_copy(update={"spec": spec, "starts": starts})
    assert case.work is not None
    used = recorded_starts(case, 0.05)
    plain, _ = figures_of(case.spec.model_copy(update={"speculative": None}), case.work, used, (), None)
    found, binding = figures_of(spec, case.work, used, (), None)
    assert plain["mbu"].value is not None
    assert "decode" not in binding
    for name in ("mbu", "decode_mfu", "decode_attainable_tokens_per_s", "decode_headroom"):
        assert "not a step" in str(found[name].reason)
    assert found["prefill_mbu"].value == plain["prefill_mbu"].value
    assert found["decode_tokens_per_s"] == plain["decode_tokens_per_s"]
    codes = {flag.code for flag in flags(spec, used, 0.05, simulated=False)}
    assert "speculative_prompts" in codes
    assert speculation_flags(builders.make_spec()) == []
    shown = speculation_line(case.model_copy(update={"measurements": found}))
    assert shown == (
        "speculative decoding (ngram): 40% of guessed tokens accepted, 2.20 tokens a step with guesses"
    )
    assert speculation_line(case) == ""
