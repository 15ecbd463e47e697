from __future__ import annotations

import hashlib
from itertools import islice

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from profiler.workload.token_ids import GENERATOR_VERSION, token_ids

COORDINATES = st.tuples(
    st.text(max_size=20),
    *(st.integers(min_value=0, max_value=2**63) for _ in range(4)),
)


def by_the_docstring(name: str, count: int, vocab_size: int) -> list[int]:
    """The recipe in the module's docstring, in the plainest Python."""
    digest = hashlib.shake_256(name.encode("ascii")).digest(1 << 16)
    words = (int.from_bytes(digest[at : at + 4], "little") for at in range(0, len(digest), 4))
    kept = (word % vocab_size for word in words if word < 2**32 - 2**32 % vocab_size)
    return list(islice(kept, count))


def test_golden_vectors() -> None:
    assert GENERATOR_VERSION == 1
    assert token_ids("chat", 0, 0, 0, 0, 8, 151936) == [
        86960,
        86305,
        106577,
        29538,
        123721,
        22139,
        68340,
        68754,
    ]
    assert token_ids("chat", 0, 0, 3, 7, 8, 32000) == [11417, 4739, 13282, 27281, 21924, 23629, 6488, 4884]
    # Half of all words are dropped here, and the name needs escaping.
    half = [940790910, 624702346, 1638108270, 1551505441, 1542943252, 251415556, 585985609, 1173094249]
    assert token_ids('éa"/quick/8', 7, 1, 2, 3, 8, 2**31 + 1) == half


@pytest.mark.parametrize("vocab_size", [1, 2, 32000, 151936, 2**31 + 1, 2**32 - 1, 2**32])
def test_the_documented_recipe_gives_the_same_ids(vocab_size: int) -> None:
    name = '["aiprof",1,"tokens","chat \\u00fc",5,0,3,7]'
    assert token_ids("chat ü", 5, 0, 3, 7, 1000, vocab_size) == by_the_docstring(name, 1000, vocab_size)


@settings(max_examples=100)
@given(coordinates=COORDINATES, other=COORDINATES)
def test_other_coordinates_give_other_ids(
    coordinates: tuple[str, int, int, int, int], other: tuple[str, int, int, int, int]
) -> None:
    first, second = (token_ids(*given, 16, 32000) for given in (coordinates, other))
    assert (first == second) == (coordinates == other)


def test_no_prompt_of_a_run_comes_twice() -> None:
    prompts = {
        tuple(token_ids("chat", 0, start, trial, request, 8, 32000))
        for start in range(5)
        for trial in range(20)
        for request in range(20)
    }
    assert len(prompts) == 5 * 20 * 20


@settings(max_examples=50)
@given(count=st.integers(0, 300), more=st.integers(0, 300), vocab_size=st.integers(1, 2**32))
def test_ids_are_in_the_vocabulary_and_longer_prompts_begin_alike(
    count: int, more: int, vocab_size: int
) -> None:
    short = token_ids("s", 1, 2, 3, 4, count, vocab_size)
    long = token_ids("s", 1, 2, 3, 4, count + more, vocab_size)
    assert len(short) == count
    assert long[:count] == short
    assert all(0 <= one < vocab_size for one in long)


@pytest.mark.parametrize("vocab_size", [1000, 1023])
def test_ids_are_uniform(vocab_size: int) -> None:
    count = 200_000
    seen = [0] * vocab_size
    for one in token_ids("uniform", 0, 0, 0, 0, count, vocab_size):
        seen[one] += 1
    expected = count / vocab_size
    chi_square = sum((times - expected) ** 2 / expected for times in seen)
    freedom = vocab_size - 1
    assert abs(chi_square - freedom) < 5 * (2 * freedom) ** 0.5


def test_dropping_words_leaves_no_bias() -> None:
    # Without dropping, ids below 2**30 would be twice as likely as the others of 3 * 2**30.
    vocab_size = 3 * 2**30
    low = sum(one < 2**30 for one in token_ids("bias", 0, 0, 0, 0, 30_000, vocab_size))
    assert abs(low - 10_000) < 5 * (30_000 * (1 / 3) * (2 / 3)) ** 0.5


@pytest.mark.parametrize(("count", "vocab_size"), [(-1, 10), (1, 0), (1, 2**32 + 1)])
def test_nonsense_is_refused(count: int, vocab_size: int) -> None:
    with pytest.raises(ValueError):
        token_ids("chat", 0, 0, 0, 0, count, vocab_size)
