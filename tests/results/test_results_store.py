"""The run on disk: appending, crashes, resuming, editing, full disks."""

from __future__ import annotations

import errno
import json
import os
import resource
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from builders import make_case_fields, make_failed_fields, make_run_record, make_spec, write_example_run

from profiler.errors import MeasurementError, UsageError
from profiler.results import store
from profiler.results.checksums import read_checksums
from profiler.results.store import RunWriter, read_run, sha256_of, sha256_of_file

SPECS = tuple(make_spec(batch=2**power) for power in range(3))


@pytest.fixture
def run_path(tmp_path: Path) -> Path:
    """An unfinished run with two of three cases."""
    path = tmp_path / "run"
    with RunWriter.create(path, make_run_record(SPECS)) as writer:
        for spec in SPECS[:2]:
            writer.append(make_case_fields(spec))
    return path


def _cases(path: Path) -> bytes:
    return (path / "cases.jsonl").read_bytes()


def test_each_line_carries_the_digest_of_the_line_before(run_path: Path) -> None:
    lines = _cases(run_path).splitlines()
    previous = [json.loads(line)["prev_sha256"] for line in lines]
    assert previous == [sha256_of_file(run_path / "run.json"), sha256_of(lines[0])]


def test_an_unclosed_run_is_incomplete_and_says_how_to_go_on(run_path: Path) -> None:
    run = read_run(run_path)
    assert not run.complete
    assert run.warnings == (f"{run_path}: incomplete (2 of 3 cases); continue with --resume",)


def test_resuming_appends_and_closing_completes(run_path: Path) -> None:
    before = _cases(run_path)
    writer, seen = RunWriter.resume(run_path)
    assert [case.spec for case in seen.cases] == list(SPECS[:2])
    with writer:
        writer.append(make_case_fields(SPECS[2]))
        writer.close()
    run = read_run(run_path)
    assert run.complete
    assert run.warnings == ()
    assert [case.spec for case in run.cases] == list(SPECS)
    assert _cases(run_path).startswith(before)


def test_resuming_a_run_without_any_case_chains_to_run_json(tmp_path: Path) -> None:
    RunWriter.create(tmp_path, make_run_record()).__exit__()
    (tmp_path / "cases.jsonl").unlink()
    writer, _ = RunWriter.resume(tmp_path)
    with writer:
        writer.append(make_case_fields())
        writer.close()
    assert read_run(tmp_path).warnings == ()


def test_resuming_reopens_a_closed_run(tmp_path: Path) -> None:
    path = write_example_run(tmp_path / "run")
    writer, _ = RunWriter.resume(path)
    with writer:
        assert not read_run(path).complete


def test_a_line_torn_at_any_byte_is_left_out_and_cut_on_resume(tmp_path: Path) -> None:
    with RunWriter.create(tmp_path, make_run_record(SPECS)) as writer:
        writer.append(make_failed_fields(SPECS[0]))
        first = _cases(tmp_path)
        writer.append(make_failed_fields(SPECS[1]))
    content = _cases(tmp_path)
    for size in range(len(content) - 1, len(first), -1):
        os.truncate(tmp_path / "cases.jsonl", size)
        run = read_run(tmp_path)
        assert [case.spec for case in run.cases] == [SPECS[0]]
        assert run.warnings[0].startswith(f"{tmp_path}/cases.jsonl:2: the last line is torn")
    writer, _ = RunWriter.resume(tmp_path)
    with writer:
        assert _cases(tmp_path) == first
        writer.append(make_failed_fields(SPECS[1]))
    assert _cases(tmp_path) == content


def test_an_edited_line_is_noticed_by_the_line_after_it(run_path: Path) -> None:
    (run_path / "cases.jsonl").write_bytes(_cases(run_path).replace(b'"value": 50.0', b'"value": 51.0', 1))
    (warning, incomplete) = read_run(run_path).warnings
    assert warning.startswith(f"{run_path}/cases.jsonl:2: does not follow from line 1, which was edited")
    assert "incomplete" in incomplete


def test_an_edited_plan_is_noticed_by_the_first_line(run_path: Path) -> None:
    run_file = run_path / "run.json"
    run_file.write_text(run_file.read_text().replace('"name": "A CPU"', '"name": "B CPU"'))
    assert any("cases.jsonl:1: does not follow from run.json" in line for line in read_run(run_path).warnings)


def test_an_edited_last_line_is_noticed_by_the_checksums(tmp_path: Path) -> None:
    path = write_example_run(tmp_path / "run")
    (path / "cases.jsonl").write_bytes(_cases(path).replace(b"needs 2 GiB", b"needs 3 GiB"))
    (warning,) = read_run(path).warnings
    assert warning.startswith(f"{path}/cases.jsonl: does not have the checksum")


def test_a_vanished_or_foreign_case_is_noticed(tmp_path: Path) -> None:
    path = write_example_run(tmp_path / "run")
    (path / "cases.jsonl").unlink()
    assert any("cases.jsonl: does not have the checksum" in line for line in read_run(path).warnings)
    other = tmp_path / "other"
    with RunWriter.create(other, make_run_record(SPECS[:1])) as writer:
        writer.append(make_case_fields(SPECS[1]))
        writer.close()
    (warning,) = read_run(other).warnings
    assert "is not in the plan" in warning


def test_checksums_cover_every_file_of_the_record(tmp_path: Path) -> None:
    path = write_example_run(tmp_path / "run")
    files = {str(file.relative_to(path)) for file in path.rglob("*") if file.is_file()}
    recorded = read_checksums((path / "checksums.json").read_bytes()).digests
    (sample,) = (case.samples for case in read_run(path).cases if case.samples)
    # In the order written.
    assert list(recorded) == ["run.json", sample.file, "cases.jsonl"]
    assert set(recorded) == files - {"checksums.json"}
    assert recorded == {name: sha256_of_file(path / name) for name in recorded}
    assert recorded[sample.file] == sample.sha256


def test_closing_removes_what_a_killed_sweep_left(tmp_path: Path) -> None:
    path = write_example_run(tmp_path / "run", close=False)
    left = [path / ".run.json.tmp", path / "samples" / f".{'a' * 64}.parquet.tmp"]
    left.append(path / "samples" / f"{'b' * 64}.parquet")
    for file in left:
        file.write_text("half")
    writer, _ = RunWriter.resume(path)
    with writer:
        writer.close()
    assert not any(file.exists() for file in left)
    assert read_run(path).complete


def test_samples_that_were_edited_or_lost_are_noticed_by_every_reader(tmp_path: Path) -> None:
    path = write_example_run(tmp_path / "run")
    (file,) = (path / "samples").iterdir()
    content = file.read_bytes()
    file.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    (edited,) = read_run(path).warnings
    assert edited == f"{file}: does not have the checksum in cases.jsonl; raw samples were edited"
    file.unlink()
    (lost,) = read_run(path).warnings
    assert lost.startswith(f"{file}: cannot be read: No such file or directory; raw samples of case")


@pytest.mark.parametrize("content", [b"", b"{}", b"[1]", b'{"sha256": 3}', b"\xff"])
def test_unreadable_checksums_vouch_for_nothing(tmp_path: Path, content: bytes) -> None:
    path = write_example_run(tmp_path / "run")
    (path / "checksums.json").write_bytes(content)
    (warning,) = read_run(path).warnings
    assert warning.startswith(f"{path}/checksums.json: cannot be read; nothing vouches")


def test_a_second_writer_is_refused_while_the_first_holds_the_run(tmp_path: Path) -> None:
    path = tmp_path / "run"
    with RunWriter.create(path, make_run_record(SPECS)) as writer:
        with pytest.raises(UsageError, match="another aiprof sweep is writing"):
            RunWriter.resume(path)
        writer.append(make_case_fields(SPECS[0]))
    writer, _ = RunWriter.resume(path)
    writer.__exit__()


def test_two_sweeps_cannot_create_the_same_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # The second has looked for run.json before the first wrote it.
    with RunWriter.create(tmp_path, make_run_record(SPECS)) as writer:
        writer.append(make_case_fields(SPECS[0]))
    content = _cases(tmp_path)
    looks = iter([False])
    real = Path.exists
    monkeypatch.setattr(
        Path, "exists", lambda self: next(looks, real(self)) if self.name == "run.json" else real(self)
    )
    with pytest.raises(UsageError, match="already holds results"):
        RunWriter.create(tmp_path, make_run_record(SPECS))
    assert _cases(tmp_path) == content


def test_creating_over_a_run_a_file_or_lost_results_is_refused(tmp_path: Path) -> None:
    path = write_example_run(tmp_path / "run")
    with pytest.raises(UsageError, match=f"continue it with --resume {path}"):
        RunWriter.create(path, make_run_record())
    (path / "run.json").unlink()
    with pytest.raises(UsageError, match="already holds results"):
        RunWriter.create(path, make_run_record())
    (tmp_path / "file").write_text("")
    with pytest.raises(UsageError, match="is a file"):
        RunWriter.create(tmp_path / "file", make_run_record())


@contextmanager
def _file_size_limit(size: int) -> Iterator[None]:
    """Let the kernel refuse every byte beyond ``size`` of any file, half-way through a write."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def _assert_one_clear_line(error: pytest.ExceptionInfo[MeasurementError], path: Path) -> None:
    message = str(error.value)
    assert "\n" not in message
    assert message.startswith(f"{path}: cannot be written: ")
    assert "everything recorded before is intact" in message


def test_a_disk_that_fills_up_half_way_through_a_line_costs_only_that_line(tmp_path: Path) -> None:
    path = tmp_path / "run"
    with RunWriter.create(path, make_run_record(SPECS)) as writer:
        writer.append(make_case_fields(SPECS[0]))
        before = _cases(path)
        with _file_size_limit(len(before) + 100), pytest.raises(MeasurementError) as error:
            writer.append(make_case_fields(SPECS[1]))
        _assert_one_clear_line(error, path / "cases.jsonl")
        assert _cases(path) == before
        writer.append(make_failed_fields(SPECS[1]))
    assert [case.status for case in read_run(path).cases] == ["ok", "failed"]
    assert len(read_run(path).warnings) == 1


@pytest.mark.parametrize("error_type", [OSError, KeyboardInterrupt])
def test_a_line_that_did_not_reach_the_disk_is_taken_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error_type: type[BaseException]
) -> None:
    path = tmp_path / "run"
    with RunWriter.create(path, make_run_record(SPECS)) as writer:
        writer.append(make_case_fields(SPECS[0]))
        before = _cases(path)

        def refuse(descriptor: int) -> None:
            raise error_type(errno.ENOSPC, os.strerror(errno.ENOSPC))

        with monkeypatch.context() as patch:
            patch.setattr(os, "fsync", refuse)
            with pytest.raises((MeasurementError, KeyboardInterrupt)):
                writer.append(make_case_fields(SPECS[1]))
        assert _cases(path) == before
        writer.append(make_case_fields(SPECS[1]))
    assert [case.spec for case in read_run(path).cases] == list(SPECS[:2])


def test_a_disk_that_is_full_from_the_start_leaves_no_half_run(tmp_path: Path) -> None:
    path = tmp_path / "run"
    with _file_size_limit(100), pytest.raises(MeasurementError) as error:
        RunWriter.create(path, make_run_record())
    _assert_one_clear_line(error, path / "run.json")
    assert [file.name for file in path.rglob("*") if file.is_file()] == ["cases.jsonl"]
    RunWriter.create(path, make_run_record()).__exit__()


def test_samples_that_do_not_fit_leave_the_run_readable(tmp_path: Path) -> None:
    path = tmp_path / "run"
    with RunWriter.create(path, make_run_record(SPECS)) as writer:
        columns: dict[str, list[Any]] = {"step_ns": list(range(10_000))}
        with _file_size_limit(1000), pytest.raises(MeasurementError) as error:
            writer.write_samples(SPECS[0].case_id, columns)
        _assert_one_clear_line(error, path / "samples" / f"{SPECS[0].case_id}.parquet")
        assert not list((path / "samples").iterdir())
        assert writer.write_samples(SPECS[0].case_id, columns).rows == 10_000
        writer.close()
    assert read_run(path).complete


def test_a_record_that_no_reader_would_accept_is_not_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(store, "MAX_LINE_BYTES", 1000)
    with RunWriter.create(tmp_path, make_run_record()) as writer:
        with pytest.raises(MeasurementError, match="more than the 1000 that readers accept"):
            writer.append(make_case_fields())
        assert _cases(tmp_path) == b""
