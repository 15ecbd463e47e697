from __future__ import annotations

from pathlib import Path

import machines
from hypothesis import given
from hypothesis import strategies as st

from profiler.backends.tree import Tree, format_cpu_list, parse_cpu_list, parse_fields, whole_number


@given(st.sets(st.integers(0, 200)))
def test_cpu_lists_survive_the_round_trip(cpus: set[int]) -> None:
    assert parse_cpu_list(format_cpu_list(cpus)) == tuple(sorted(cpus))


def test_cpu_lists_are_those_of_the_kernel() -> None:
    assert parse_cpu_list("0-2,8\n") == (0, 1, 2, 8)
    assert format_cpu_list([8, 1, 0, 2]) == "0-2,8"
    assert parse_cpu_list("") == parse_cpu_list("none") == ()


def test_lists_and_numbers_that_no_kernel_writes_are_left_out(tmp_path: Path) -> None:
    assert parse_cpu_list("0-99999999999,3,\u00b2-\u00b3,5-4294967295") == (3,)
    assert whole_number("18446744073709551615") == 2**64 - 1
    assert {whole_number(text) for text in ("-1", "\u00b2", "", "1 ", "9" * 30, str(2**64))} == {None}
    tree = Tree(
        machines.write(tmp_path, {"/sys/long": "9" * 5000, "/sys/large": "9" * 30, "/sys/hex": "0xff"})
    )
    assert [tree.integer(f"/sys/{name}") for name in ("long", "large", "hex")] == [None, None, 255]
    assert tree.glob(f"/sys/{'9' * 5000}/x*") == []


def test_missing_and_unusable_files_are_told_apart(tmp_path: Path) -> None:
    tree = Tree(machines.write(tmp_path, {"/sys/a": "12", "/sys/b": "max", "/sys/c": "0x1002"}))
    (tmp_path / "sys/folder").mkdir()
    assert (tree.integer("/sys/a"), tree.integer("/sys/b"), tree.integer("/sys/c")) == (12, None, 0x1002)
    assert tree.text("/sys/none") is tree.text("/sys/folder") is None
    assert tree.why("/sys/none") == "there is no /sys/none"
    assert tree.why("/sys/b") == "/sys/b holds no usable value"
    assert "cannot be read" in tree.why("/sys/folder")


def test_glob_puts_numbers_in_order(tmp_path: Path) -> None:
    tree = Tree(machines.write(tmp_path, {f"/sys/cpu{number}/x": 1 for number in (10, 2, 1)}))
    assert tree.glob("/sys/cpu*/x") == ["/sys/cpu1/x", "/sys/cpu2/x", "/sys/cpu10/x"]


def test_the_first_of_equal_keys_wins() -> None:
    assert parse_fields("a : 1\nb:2\na: 3\nno separator") == {"a": "1", "b": "2"}
