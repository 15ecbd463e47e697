"""Holding answers against a reference: with log-probabilities, without, and from a server that cheats."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from profiler.measure.fidelity_answers import Answer, answer_faults, caching_fault, compare, divergence
from profiler.measure.fidelity_limits import NOISE, judge, limits_for
from profiler.models.formats import WEIGHT_FORMATS, Formats, formats_for
from profiler.worker.fake_answers import next_logits

VOCABULARY, STEPS = 500, 16
PROMPTS = tuple(tuple((7 * number + place) % VOCABULARY for place in range(12)) for number in range(4))
BF16 = formats_for("bf16")


class Server:
    """An in-process stand-in for an endpoint: answers greedily and gives the odds of its best tokens.

    Args:
        mode: ``faithful`` or ``wrong`` (another model).
        top: log-probabilities given at each position; 0 for none.
        most: tokens after which it stops by itself.
        end: token at which it stops.
        remembers: whether it answers from memory what it has been asked before.
        canned: whether it gives everybody the first answer it ever gave.
    """

    def __init__(
        self,
        mode: str = "faithful",
        weight_format: str = "bf16",
        top: int = 20,
        most: int = 10**9,
        end: int | None = None,
        remembers: bool = False,
        canned: bool = False,
    ) -> None:
        self.mode, self.weight_format, self.top, self.most, self.end = mode, weight_format, top, most, end
        self.remembers, self.canned = remembers, canned
        self.memory: dict[tuple[int, ...], Answer] = {}

    def answer(self, prompt: tuple[int, ...], wanted: int = STEPS) -> Answer:
        if self.canned and self.memory:
            return next(iter(self.memory.values()))
        known = self.remembers and prompt in self.memory
        if not known:
            self.memory[prompt] = self._generate(prompt, min(wanted, self.most))
        found = self.memory[prompt]
        return Answer(found.tokens, found.logprobs, elapsed_s=0.01 if known else 0.5)

    def _generate(self, prompt: tuple[int, ...], count: int) -> Answer:
        text, tokens, odds = prompt, [], []
        for _ in range(count):
            logits = next_logits(text, VOCABULARY, self.mode, self.weight_format)
            best = sorted(logits, key=lambda token: -logits[token])
            total = math.log(math.fsum(math.exp(value) for value in logits.values()))
            tokens.append(best[0])
            odds.append({token: logits[token] - total for token in best[: self.top]})
            text = (*text, best[0])
            if best[0] == self.end:
                break
        return Answer(tuple(tokens), tuple(odds) if self.top else ())


REFERENCE = [Server(weight_format="fp32", top=64).answer(prompt) for prompt in PROMPTS]


def verdict_on(server: Server, formats: Formats = BF16, end: frozenset[int] = frozenset()) -> str:
    answers = [server.answer(prompt) for prompt in PROMPTS]
    figures = compare([], [], REFERENCE, answers)
    return judge(figures, formats, answer_faults(PROMPTS, answers, STEPS, end)).verdict


def test_an_honest_server_without_log_probabilities_is_faithful() -> None:
    assert verdict_on(Server(top=0)) == "faithful"


def test_a_server_with_another_model_is_wrong_by_its_tokens_alone() -> None:
    assert verdict_on(Server("wrong", top=0)) == "wrong"


def test_twenty_log_probabilities_per_position_are_enough_to_tell_models_apart() -> None:
    for mode, expected in (("faithful", "faithful"), ("wrong", "wrong")):
        served = [Server(mode, top=20).answer(prompt, 1) for prompt in PROMPTS]
        first = [Answer(answer.tokens[:1], answer.logprobs[:1]) for answer in REFERENCE]
        figures = compare(first, served, [], [])
        assert figures.positions == figures.prompts == len(PROMPTS)
        assert judge(figures, BF16).verdict == expected


@pytest.mark.parametrize(
    ("server", "code"),
    [
        (lambda: Server(most=STEPS - 5), "shortened"),
        (lambda: Server(end=REFERENCE[0].tokens[4]), "end_of_sequence"),
        (lambda: Server(canned=True), "canned"),
    ],
)
def test_a_server_that_does_other_work_than_asked_is_wrong(server: Callable[[], Server], code: str) -> None:
    end = frozenset({REFERENCE[0].tokens[4]})
    asked = server()
    faults = answer_faults(PROMPTS, [asked.answer(prompt) for prompt in PROMPTS], STEPS, end)
    assert code in {fault.code for fault in faults}
    assert verdict_on(server(), end=end) == "wrong"


def test_answers_from_memory_are_seen_by_their_time() -> None:
    caching, honest = Server(remembers=True), Server()
    for server, expected in ((caching, True), (honest, False)):
        fresh = [server.answer(prompt) for prompt in PROMPTS]
        repeated = [server.answer(prompt) for prompt in PROMPTS]
        fault = caching_fault(fresh, repeated)
        assert (fault is not None) == expected
        assert answer_faults(PROMPTS, fresh, STEPS, frozenset()) == []


def test_one_slow_answer_among_cached_ones_decides_nothing() -> None:
    fresh = [Answer((1,), elapsed_s=0.5)] * 4
    repeated = [Answer((1,), elapsed_s=seconds) for seconds in (0.01, 0.01, 0.01, 0.6)]
    assert caching_fault(fresh, repeated) is None
    assert caching_fault(fresh[:2], repeated[:2]) is None


probabilities = st.lists(st.floats(0.01, 1.0), min_size=2, max_size=8)


@settings(deadline=None)
@given(probabilities, probabilities)
def test_divergence_over_some_tokens_is_never_more_than_over_all(p: list[float], q: list[float]) -> None:
    size = min(len(p), len(q))
    ours, theirs = (
        {token: math.log(value / math.fsum(row[:size])) for token, value in enumerate(row[:size])}
        for row in (p, q)
    )
    whole = math.fsum(math.exp(ours[token]) * (ours[token] - theirs[token]) for token in ours)
    assert divergence(ours, theirs) == pytest.approx(max(whole, 0.0), abs=1e-9)
    likeliest = sorted(theirs, key=lambda token: -theirs[token])[: max(1, size // 2)]
    fewer = {token: theirs[token] for token in likeliest}
    assert divergence(ours, fewer) <= divergence(ours, theirs) + 1e-9
    assert divergence(ours, ours) == pytest.approx(0.0, abs=1e-12)


def test_a_server_that_names_none_of_the_likely_tokens_is_far_off() -> None:
    ours = {1: math.log(0.6), 2: math.log(0.3)}
    theirs = {3: math.log(0.9), 4: math.log(0.01)}
    # At most two unnamed tokens of 0.01 each are left for what the reference holds for 90% likely.
    assert divergence(ours, theirs) > 0.9 * math.log(0.9 / 0.02) - 0.5


def test_after_the_first_difference_nothing_more_is_compared() -> None:
    odds = ({1: -0.5, 2: -0.9}, {3: -0.1, 4: -2.4}, {5: -0.1})
    figures = compare([], [], [Answer((1, 3, 5), odds)], [Answer((1, 4, 5))])
    assert (figures.greedy_tokens, figures.greedy_agreed) == (2, 1)
    assert figures.greedy_gap == pytest.approx(2.3)


def test_a_near_tie_decided_the_other_way_is_still_faithful() -> None:
    odds = ({1: -0.70, 2: -0.75},)
    near = compare([], [], [Answer((1,), odds)], [Answer((2,))])
    assert judge(near, BF16).verdict == "faithful"
    far = compare([], [], [Answer((1,), ({1: -0.01, 2: -6.0},))], [Answer((2,))])
    assert judge(far, BF16).verdict != "faithful"


def test_every_format_has_limits_and_a_coarser_one_allows_more() -> None:
    assert set(NOISE) == set(WEIGHT_FORMATS)
    limits = {name: limits_for(formats_for(name)).mean_kl for name in WEIGHT_FORMATS}
    assert limits["fp32"] < limits["fp16"] < limits["bf16"] < limits["w8a8-int8"] < limits["w4a16-g128"]
    assert limits_for(Formats("bf16", "bf16", "int8")).mean_kl > limits["bf16"]
    assert limits_for(BF16, experts=True).mean_kl > limits["bf16"]


def test_what_is_too_far_for_the_claim_names_the_finest_format_that_explains_it() -> None:
    def judged(kl: float) -> tuple[str, str | None]:
        figures = compare([], [], REFERENCE, REFERENCE).model_copy(update={"mean_kl": kl})
        found = judge(figures, BF16)
        return found.verdict, found.explained_by

    assert judged(0.005) == ("faithful", None)
    assert judged(0.05) == ("degraded", "w8a16-int8")
    assert judged(0.065) == ("degraded", "q8_0")
    assert judged(3.0)[0] == "degraded"
    assert judged(5.0) == ("wrong", None)
