"""Bodies made ahead are those that would be made when their request is due."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from profiler.load import bodies
from profiler.load.bodies import Bodies
from profiler.load.endpoint import parse_endpoint
from profiler.load.job import Job
from profiler.load.prompts import Features, PromptSpec, RequestBuilder

JOB = Job(
    endpoints=(parse_endpoint("http://127.0.0.1:1"),),
    api="completions",
    model="m",
    prompts=PromptSpec("test", 0),
    features=Features(),
    prompt_tokens=np.array([3, 5, 8]),
    output_tokens=np.array([4, 6]),
    count=20,
    first=1,
    step=2,
)
REQUESTS = RequestBuilder(JOB.endpoints, JOB.api, JOB.model, JOB.prompts, JOB.features, None)
SENT = range(JOB.first, JOB.count, JOB.step)
MADE = {index: REQUESTS.body(index, *JOB.lengths(index)) for index in SENT}


@given(st.lists(st.integers(0, 4), min_size=len(SENT), max_size=len(SENT)))
@settings(max_examples=30, deadline=None)
def test_how_many_are_made_ahead_changes_no_body(wanted: list[int]) -> None:
    made = Bodies(JOB, REQUESTS)
    for index, ahead in zip(SENT, wanted, strict=True):
        made.fill(ahead)
        assert made.take(index, *JOB.lengths(index)) == MADE[index]
    assert not made.make_one(1)


def test_no_more_are_made_than_are_wanted_or_have_room(monkeypatch: pytest.MonkeyPatch) -> None:
    made = Bodies(JOB, REQUESTS)
    assert [made.make_one(2) for _ in range(3)] == [True, True, False]
    monkeypatch.setattr(bodies, "AHEAD_BYTES", 2 * max(map(len, MADE.values())))
    full = Bodies(JOB, REQUESTS)
    assert [full.make_one(9) for _ in range(4)].count(True) in (2, 3)
    full.take(JOB.first, *JOB.lengths(JOB.first))
    assert full.make_one(9)
