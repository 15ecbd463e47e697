"""What must be known of the figures stands above the table that a buyer reads first."""

from __future__ import annotations

from pathlib import Path

from builders import make_fidelity
from report_runs import write_box

from profiler.render.report_answer import OverlapJudge, answer_section
from profiler.render.report_subjects import collect, families
from profiler.render.report_view import Section
from profiler.results.read import Run
from profiler.results.schema import Flag


def answer(*runs: Run) -> Section:
    subjects, entries = collect(runs)
    return answer_section(families(entries), subjects, OverlapJudge())


def flag(code: str) -> Flag:
    return Flag(code=code, text="seen", hint="do")


def test_nothing_is_said_of_clean_figures(tmp_path: Path) -> None:
    assert answer(write_box(tmp_path / "a", "a", 1.0)).lead == ()


def test_flags_and_single_starts_are_counted_once_per_case(tmp_path: Path) -> None:
    flags = (flag("one_start"), flag("interference"), flag("not_steady"))
    lead = answer(write_box(tmp_path / "a", "a", 1.0, batches=(1, 8), flags=flags)).lead
    assert lead == (
        "All 3 cases in this table carry flags: interference in 3 and not_steady in 3. What was seen and "
        "what to do about it stands under “What limits these results”.",
        "Every case was measured in one start or load only, which is no evidence for a purchase.",
    )


def test_a_box_that_computes_something_else_never_wins(tmp_path: Path) -> None:
    honest = write_box(tmp_path / "honest", "honest", 1.0)
    cheat = write_box(tmp_path / "cheat", "cheat", 3.0, fidelity=make_fidelity("wrong"))
    section = answer(honest, cheat)
    assert section.lead[0].startswith("No figure that counts was measured on more than one box")
    assert (
        "computes something else: torch with smollm2-135m on cheat (wrong: wrong for a test)"
        in section.lead[2]
    )
    for row in section.tables[0].rows:
        assert row.cells[-1].text == "only one box counts"
        assert {cell.badge for cell in row.cells} == {""}
        assert "does not count" in row.cells[-2].detail
        assert "does not count" not in row.cells[-3].detail


def test_of_three_boxes_the_honest_ones_are_compared(tmp_path: Path) -> None:
    runs = [write_box(tmp_path / name, name, speed) for name, speed in (("slow", 1.0), ("fast", 2.0))]
    cheat = write_box(tmp_path / "cheat", "cheat", 9.0, fidelity=make_fidelity("degraded"))
    rows = answer(*runs, cheat).tables[0].rows
    assert rows[0].cells[-1].text.startswith("fast, 2.00×")
