"""Who is best, who is level, and when nothing may be said."""

from __future__ import annotations

from pathlib import Path

import pytest
from report_runs import write_box

from profiler.render.report_answer import OverlapJudge, Ratio, answer_section
from profiler.render.report_subjects import Entry, collect, families
from profiler.render.report_view import Section
from profiler.results.read import Run


def answer(*runs: Run, judge: object = None) -> Section:
    subjects, entries = collect(runs)
    return answer_section(families(entries), subjects, judge or OverlapJudge())  # type: ignore[arg-type]


def verdicts(section: Section) -> list[str]:
    return [row.cells[-1].text for row in section.tables[0].rows]


def badges(section: Section, row: int = 0) -> list[str]:
    return [cell.badge for cell in section.tables[0].rows[row].cells if cell.interval]


@pytest.fixture
def slow(tmp_path: Path) -> Run:
    return write_box(tmp_path / "slow", "slow", 1.0)


def test_the_faster_box_is_best_in_every_row_by_the_right_factor(tmp_path: Path, slow: Run) -> None:
    section = answer(slow, write_box(tmp_path / "fast", "fast", 2.0))
    assert all(text.startswith("fast, 2.00× (1.96 to 2.04) the next") for text in verdicts(section)[:2])
    assert badges(section) == ["", "best"]
    # Energy has no interval, so nothing may be concluded from it.
    assert section.lead[0] == (
        "Of 6 figures that more than one box has: fast is best in 4, 2 are undecided (ahead: fast in 2)."
    )


def test_less_energy_is_better(tmp_path: Path, slow: Run) -> None:
    rows = answer(slow, write_box(tmp_path / "fast", "fast", 2.0)).tables[0].rows
    energy = next(row for row in rows if "energy" in " ".join(cell.text for cell in row.cells))
    assert [cell.badge for cell in energy.cells if cell.link] == ["", "ahead"]
    assert energy.cells[-1].text == "fast, 2.00× the next; undecided: no interval"


def test_overlapping_intervals_are_not_distinguishable(tmp_path: Path, slow: Run) -> None:
    section = answer(slow, write_box(tmp_path / "same", "same", 1.01))
    assert verdicts(section)[0] == "not distinguishable: same and slow"
    assert badges(section) == ["level", "level"]


def test_one_start_is_undecided_however_far_apart(tmp_path: Path, slow: Run) -> None:
    section = answer(slow, write_box(tmp_path / "fast", "fast", 5.0, scope="within_process"))
    assert verdicts(section)[0].endswith("undecided: one start")
    assert badges(section) == ["", "ahead"]


def test_a_judge_of_another_kind_can_take_over(tmp_path: Path, slow: Run) -> None:
    class Never:
        note = "never sure"

        def ratio(self, metric: str, first: Entry, second: Entry) -> Ratio | None:
            return Ratio(1.5, 0.9, 2.0)

    section = answer(slow, write_box(tmp_path / "fast", "fast", 5.0), judge=Never())
    assert set(verdicts(section)) == {"not distinguishable: fast and slow"}
    assert section.lead[1] == "never sure"


def test_the_best_batch_is_named_and_found(slow: Run) -> None:
    rows = answer(slow).tables[0].rows
    best = next(row for row in rows if any(cell.text == "output, best batch" for cell in row.cells))
    assert best.cells[-1].detail == "batch 32"


def test_one_box_has_no_verdict(slow: Run) -> None:
    section = answer(slow)
    assert section.tables[0].caption.startswith("What this box does")
    assert "verdict" not in [column.name for column in section.tables[0].columns]
    assert section.lead == ()


def test_other_work_under_the_same_name_is_not_compared(tmp_path: Path, slow: Run) -> None:
    fast = write_box(tmp_path / "fast", "fast", 2.0)
    changed = tuple(
        case.model_copy(update={"spec": case.spec.model_copy(update={"workload_id": "f" * 64})})
        for case in fast.cases
    )
    section = answer(slow, Run(fast.path, fast.record, changed, True, ()))
    assert verdicts(section)[0] == "different work under one name"


def test_boxes_of_the_same_name_get_labels_that_differ(tmp_path: Path) -> None:
    runs = [write_box(tmp_path / name, "same card", 1.0) for name in ("rack-a", "rack-b")]
    labels = [subject.label for subject in collect(runs)[0]]
    assert labels == ["same card (rack-a)", "same card (rack-b)"]


def test_many_boxes_have_looks_that_differ(tmp_path: Path) -> None:
    runs = [write_box(tmp_path / str(number), f"box {number}", 1.0, batches=(1,)) for number in range(9)]
    subjects, _ = collect(runs)
    assert len({(subject.colour, subject.shape) for subject in subjects}) == 9
