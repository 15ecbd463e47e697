"""Runs to verify: a whole one from the simulated engine, signed, and ways to damage copies of it."""

from __future__ import annotations

import hashlib
import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from profiler.analysis.verify import verify_run
from profiler.measure.request import SweepRequest
from profiler.measure.sweep import Sweep
from profiler.render.report import REPORT_FILE, write_report
from profiler.results.checksums import CHECKSUMS_FILE, NamedDigest, chained, read_checksums, sha256_of_file
from profiler.results.store import list_page

CHALLENGE = "buyer-7f3a91c2"


def make_run(path: Path, **changes: Any) -> Path:
    """Sweep one case on the simulated engine and leave a closed run with its page."""
    request: dict[str, Any] = {
        "engines": ("fake",),
        "scenarios": ("decode-128",),
        "batches": (1,),
        "challenge": CHALLENGE,
        "engine_options": {"load_s": "2.0"},
    }
    run = Sweep(SweepRequest(**request | changes), lambda event: None).run(path)
    write_report([run], path / REPORT_FILE, title="run")
    assert list_page(path)
    return path


def assert_every_byte_counts(run: Path, examples: int) -> None:
    """Change single bytes anywhere in the files of a run: it does not verify, and the file is named.

    Args:
        run: verifies, and does so again afterwards.
        examples: how many bytes to change, one at a time.
    """
    contents = {file: file.read_bytes() for file in sorted(run.rglob("*")) if file.is_file()}

    def change(file: Path, place: int, bits: int) -> None:
        content = bytearray(contents[file])
        content[place] ^= bits
        try:
            file.write_bytes(content)
            found = verify_run(run)
            assert found.state == "failed"
            assert str(file.relative_to(run)) in {item.file for item in found.findings}
            assert all(item.figures for item in found.findings)
        finally:
            file.write_bytes(contents[file])

    @settings(max_examples=examples, deadline=None)
    @given(st.sampled_from(sorted(contents)), st.floats(0, 1, exclude_max=True), st.integers(1, 255))
    def changed(file: Path, place: float, bits: int) -> None:
        change(file, int(place * len(contents[file])), bits)

    # The link of the first case to run.json, another digit instead: run.json was blamed for it once.
    cases = run / "cases.jsonl"
    link = re.search(rb'"prev_sha256": ?"[a-f]*[0-9]', contents[cases])
    assert link is not None
    change(cases, link.end() - 1, 1)
    changed()
    assert verify_run(run).state == "verified"


def copied(run: Path, to: Path) -> Path:
    """A copy of a run to damage."""
    shutil.copytree(run, to)
    return to


def reseal(run: Path) -> None:
    """Make chain and checksums fit what the files hold now, as somebody would who edits a run with care."""
    previous = hashlib.sha256((run / "run.json").read_bytes()).hexdigest()
    lines = []
    for line in (run / "cases.jsonl").read_bytes().splitlines():
        fields = json.loads(line) | {"prev_sha256": previous}
        lines.append(json.dumps(fields, ensure_ascii=False).encode())
        previous = hashlib.sha256(lines[-1]).hexdigest()
    (run / "cases.jsonl").write_bytes(b"".join(line + b"\n" for line in lines))
    names = [file.name for file in read_checksums((run / CHECKSUMS_FILE).read_bytes()).files]
    files = [NamedDigest(name, sha256_of_file(run / name)) for name in names if (run / name).exists()]
    (run / CHECKSUMS_FILE).write_bytes(chained(files).encoded())


def edit_case(run: Path, change: Callable[[dict[str, Any]], object]) -> None:
    """Change the only case of a run, and make everything else fit."""
    fields = json.loads((run / "cases.jsonl").read_bytes())
    change(fields)
    (run / "cases.jsonl").write_bytes(json.dumps(fields).encode() + b"\n")
    reseal(run)


def edit_run(run: Path, change: Callable[[dict[str, Any]], object]) -> None:
    """Change ``run.json``, and make everything else fit."""
    fields = json.loads((run / "run.json").read_bytes())
    change(fields)
    (run / "run.json").write_bytes(json.dumps(fields, indent=1).encode() + b"\n")
    reseal(run)
