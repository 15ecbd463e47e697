"""A run verifies as it was written, and nothing of it can be changed unseen."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from verify_runs import (
    CHALLENGE,
    assert_every_byte_counts,
    copied,
    edit_case,
    edit_run,
    make_run,
    reseal,
)

from profiler.analysis.verify import Verification, verify_run
from profiler.errors import InputFileError
from profiler.measure.recompute import NOT_RECOMPUTED, UNKNOWN, recompute_case
from profiler.results.checksums import sha256_of_file
from profiler.results.read import read_run
from profiler.results.signature import new_key, sign_run


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_run(tmp_path_factory.mktemp("made") / "run")


@pytest.fixture(scope="module")
def signed(run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("signed")
    path = copied(run, folder / "run")
    new_key(folder / "key")
    sign_run(path, folder / "key")
    return path


@pytest.fixture
def copy(run: Path, tmp_path: Path) -> Path:
    return copied(run, tmp_path / "run")


def figures(found: Verification) -> set[str]:
    return {figure for item in found.findings for figure in item.figures}


def files(found: Verification) -> set[str]:
    return {item.file for item in found.findings}


def test_an_untouched_run_verifies_and_every_figure_was_made_again(run: Path, signed: Path) -> None:
    found = verify_run(run, challenge=CHALLENGE)
    assert (found.state, found.findings) == ("verified", ())
    (case,) = read_run(run).cases
    assert found.figures >= len(case.measurements)
    assert UNKNOWN not in found.left_out.values()
    assert verify_run(signed, trusted=signed.parent / "key.pub").state == "verified"


def test_every_metric_can_be_made_again_or_says_why_not(tmp_path: Path) -> None:
    """A new metric needs a way in ``derive.figures_of``, or a reason in ``NOT_RECOMPUTED``."""
    soaked = Path(make_run(tmp_path / "soak", soak_s=60.0))
    standard = Path(make_run(tmp_path / "starts", starts=3, budget_s=600.0))
    slices = Path(make_run(tmp_path / "slices", layers=8, budget_s=600.0))
    for path in (soaked, standard, slices):
        loaded = read_run(path)
        for number, case in enumerate(loaded.cases):
            again = recompute_case(loaded.record, case, None, loaded.cases[:number])
            assert again.differences == ()
            assert case.measurements.keys() <= set(again.figures) | NOT_RECOMPUTED.keys()
        assert verify_run(path).state == "verified"
    assert "extrapolated_prefill_s" in read_run(slices).cases[-1].measurements
    assert "sustained_ratio" in read_run(soaked).cases[0].measurements


def test_a_start_that_was_repeated_for_what_the_watch_saw_is_no_forgery(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import profiler.measure.case as case_module
    from profiler.measure.start import measure_start as measure
    from profiler.results.schema import Flag

    def disturbed_once(context: Any, index: int, seconds: float) -> Any:
        outcome = measure(context, index, seconds)
        if index == 0:
            outcome.watch.flags.append(Flag(code="foreign_cpu", text="somebody else", hint="stop it"))
        return outcome

    monkeypatch.setattr(case_module, "measure_start", disturbed_once)
    path = make_run(tmp_path / "run", preset="standard", models=("qwen2.5-0.5b",), starts=2, budget_s=600.0)
    (case,) = read_run(path).cases
    assert [start.used for start in case.starts] == [False, True, True]
    assert case.starts[0].replaced_for == ("foreign_cpu",)
    assert verify_run(path).state == "verified"
    edit_case(path, lambda fields: fields["starts"][0].update(replaced_for=[]))
    assert "starts" in figures(verify_run(path))


def test_any_changed_byte_of_any_file_is_noticed_and_its_file_named(
    signed: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    path = copied(signed, tmp_path_factory.mktemp("bytes") / "run")
    names = {str(file.relative_to(path)) for file in path.rglob("*") if file.is_file()}
    assert {"run.json", "cases.jsonl", "checksums.json", "report.html", "signature.json"} <= names
    assert any(name.startswith("samples/") for name in names)
    assert_every_byte_counts(path, examples=80)


def raised(name: str) -> Callable[[dict[str, Any]], object]:
    def change(fields: dict[str, Any]) -> None:
        fields["measurements"][name]["value"] *= 1.001

    return change


def without_flag(code: str) -> Callable[[dict[str, Any]], object]:
    return lambda fields: fields.update(flags=[flag for flag in fields["flags"] if flag["code"] != code])


def slowest_left_out(fields: dict[str, Any]) -> None:
    measured = [trial for trial in fields["trials"] if not trial["warm_up"]]
    fields["trials"].remove(max(measured, key=lambda trial: trial["e2e_s"]))


def hidden_degradation(fields: dict[str, Any]) -> None:
    """Errors of four-bit weights at every position, figures made to fit, and still called faithful."""
    figures = fields["fidelity"]["figures"]
    figures["at"]["kl"] = [1.0] * len(figures["at"]["kl"])
    figures.update(mean_kl=1.0, max_kl=1.0)


EDITS: list[tuple[str, Callable[[dict[str, Any]], object]]] = [
    ("decode_tokens_per_s", raised("decode_tokens_per_s")),
    ("mbu", raised("mbu")),
    ("load_s", raised("load_s")),
    ("peak_engine_bytes", raised("peak_engine_bytes")),
    ("ttft_s", lambda fields: fields["measurements"]["ttft_s"].update(ci95=[0.0, 0.001])),
    ("e2e_s", lambda fields: fields["measurements"]["e2e_s"].update(n=999)),
    ("tpot_s", lambda fields: fields["measurements"].pop("tpot_s")),
    ("goodput_requests_per_s", lambda fields: fields["measurements"].update(
        goodput_requests_per_s=fields["measurements"]["e2e_s"])),
    ("energy_j", lambda fields: fields["measurements"]["energy_j"].update(value=1.0, reason=None)),
    ("prefill_s", lambda fields: fields["trials"][-1].update(prefill_s=0.001)),
    ("e2e_s", lambda fields: fields["trials"][-1].update(e2e_s=0.001)),
    ("trials", slowest_left_out),
    ("trials", lambda fields: fields["trials"][-1].update(warm_up=True)),
    ("flags", without_flag("simulated")),
    ("flags", without_flag("one_start")),
    ("starts", lambda fields: fields["starts"][0].update(used=False)),
    ("work.decode_flops", lambda fields: fields["work"].update(decode_flops=1.0)),
    ("prompts_sha256", lambda fields: fields["trials"][0].update(prompts_sha256="0" * 64)),
    ("spec", lambda fields: fields["spec"].update(prompt_tokens=4)),
    ("binding_ceilings", lambda fields: fields.update(binding_ceilings={})),
    ("fidelity", lambda fields: fields["fidelity"]["figures"].update(mean_kl=0.5)),
    ("fidelity", lambda fields: fields["fidelity"]["figures"].update(at=None)),
    ("fidelity", lambda fields: fields["fidelity"]["figures"]["at"]["same"].pop()),
    ("fidelity", lambda fields: fields["fidelity"]["limits"].update(mean_kl=3.0)),
    ("fidelity", hidden_degradation),
]  # fmt: skip


@pytest.mark.parametrize(("figure", "change"), EDITS, ids=[f"{n}-{e[0]}" for n, e in enumerate(EDITS)])
def test_a_figure_that_does_not_follow_is_named_however_well_the_files_fit(
    copy: Path, figure: str, change: Callable[[dict[str, Any]], object]
) -> None:
    edit_case(copy, change)
    found = verify_run(copy)
    assert found.state == "failed"
    assert figure in figures(found)
    assert files(found) == {"cases.jsonl"}


@pytest.mark.parametrize(
    ("figure", "change"),
    [
        ("tolerance", lambda fields: fields["noise_floors"][0].update(tolerance=0.9)),
        ("read_bandwidth", lambda fields: fields["ceilings"][0]["measurement"].update(value=9e15, ci95=None)),
        ("predicted weights_bytes", lambda fields: fields["cases"][0]["predicted"].update(weights_bytes=1)),
        ("starts", lambda fields: fields["settings"].update(starts=3)),
        ("predicted", lambda fields: fields["cases"][0]["spec"]["formats"].update(weight_format="bf17")),
        ("work", lambda fields: fields["models"][0]["architecture"].update(layers="many")),
        ("prompts_sha256", lambda fields: fields.update(challenge="another-challenge")),
        ("prompts_sha256", lambda fields: fields.update(challenge=None)),
    ],
)
def test_what_run_json_says_is_made_again_too(
    copy: Path, figure: str, change: Callable[[dict[str, Any]], object]
) -> None:
    edit_run(copy, change)
    found = verify_run(copy)
    assert found.state == "failed"
    assert figure in figures(found)


def test_raw_samples_that_say_something_else_are_noticed(copy: Path) -> None:
    import pyarrow
    from pyarrow import parquet

    (file,) = (copy / "samples").iterdir()
    table = parquet.read_table(file)
    halved = [stamp // 2 for stamp in table["since_submit_ns"].to_pylist()]
    parquet.write_table(table.set_column(4, "since_submit_ns", pyarrow.array(halved)), file)
    digest = sha256_of_file(file)
    edit_case(copy, lambda fields: fields["samples"].update(sha256=digest))
    found = verify_run(copy)
    assert {"prefill_s", "decode_s", "e2e_s"} <= figures(found)


def test_files_that_are_missing_or_do_not_belong_are_named(copy: Path, tmp_path: Path) -> None:
    (copy / "notes.txt").write_text("hello")
    (copy / "deep").mkdir()
    (copy / "samples" / "link.parquet").symlink_to(tmp_path)
    (copy / "report.html").unlink()
    found = verify_run(copy)
    assert {"notes.txt", "deep", "samples/link.parquet", "report.html"} <= files(found)


def test_an_unfinished_run_is_incomplete_and_not_accused(copy: Path) -> None:
    (copy / "checksums.json").unlink()
    (copy / ".report.html.tmp").write_text("half")
    found = verify_run(copy)
    assert (found.state, found.findings) == ("incomplete", ())
    content = (copy / "cases.jsonl").read_bytes()
    (copy / "cases.jsonl").write_bytes(content[:-100])
    torn = verify_run(copy)
    assert torn.state == "incomplete"
    assert any("torn" in note for note in torn.notes)
    (copy / "cases.jsonl").write_bytes(content.replace(b'"n": ', b'"n": 1', 1))
    assert verify_run(copy).state == "failed"


def test_a_case_cannot_be_left_out_or_counted_twice(copy: Path) -> None:
    line = (copy / "cases.jsonl").read_bytes()
    (copy / "cases.jsonl").write_bytes(line + line)
    reseal(copy)
    assert any(item.what == "is there twice" for item in verify_run(copy).findings)
    (copy / "cases.jsonl").write_bytes(b"")
    reseal(copy)
    assert any("planned cases are missing" in item.what for item in verify_run(copy).findings)


def test_another_challenge_is_refused(run: Path) -> None:
    found = verify_run(run, challenge="another-one")
    assert found.state == "failed"
    assert found.findings[0].what == f"the challenge of the run is '{CHALLENGE}', not 'another-one'"


def test_a_challenge_changes_prompts_weights_and_cases_but_not_the_work(run: Path, tmp_path: Path) -> None:
    plain = read_run(make_run(tmp_path / "plain", challenge=None)).cases[0]
    asked = read_run(run).cases[0]
    assert plain.spec.workload_id == asked.spec.workload_id
    assert plain.spec.case_id != asked.spec.case_id
    assert plain.trials[0].prompts_sha256 != asked.trials[0].prompts_sha256
    from profiler.workload.prompts import weights_seed

    assert weights_seed(0, None) == 0
    assert weights_seed(0, CHALLENGE) != weights_seed(0, CHALLENGE + "x")
    assert 0 <= weights_seed(0, CHALLENGE) < 2**63


def test_runs_with_different_challenges_are_compared(run: Path, tmp_path: Path) -> None:
    from profiler.analysis.compare import compare_runs

    other = make_run(tmp_path / "other", challenge="other-challenge")
    (pair,) = compare_runs([read_run(run), read_run(other)]).pairs
    assert len(pair.cases) == 1


class TestSignature:
    def test_another_key_or_none_is_noticed(self, run: Path, signed: Path, tmp_path: Path) -> None:
        new_key(tmp_path / "other")
        found = verify_run(signed, trusted=tmp_path / "other.pub")
        assert found.state == "failed"
        assert found.signed is not None
        assert found.signed.trusted is False
        assert verify_run(run, trusted=tmp_path / "other.pub").findings[0].what.startswith("is missing")

    def test_a_signature_of_other_files_is_noticed(self, signed: Path, tmp_path: Path) -> None:
        path = copied(signed, tmp_path / "run")
        (path / "report.html").write_text("another page")
        reseal(path)
        found = verify_run(path)
        assert [item.what for item in found.findings] == ["was made for other files than these"]

    def test_the_key_of_a_forger_does_not_fit(self, signed: Path, tmp_path: Path) -> None:
        path = copied(signed, tmp_path / "run")
        content = json.loads((path / "signature.json").read_text())
        content["signature"] = content["signature"][::-1]
        (path / "signature.json").write_text(json.dumps(content, indent=1) + "\n")
        assert "is not a signature of this key over these files" in [
            item.what for item in verify_run(path).findings
        ]

    def test_the_fingerprint_is_that_of_ssh_keygen(self, tmp_path: Path) -> None:
        import shutil
        import subprocess

        made = new_key(tmp_path / "key")
        assert (tmp_path / "key").stat().st_mode & 0o077 == 0
        if shutil.which("ssh-keygen") is None:
            pytest.skip("ssh-keygen is not installed")
        command = ["ssh-keygen", "-l", "-f", str(tmp_path / "key.pub")]
        assert subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()[1] == made

    def test_keys_of_other_kinds_are_refused(self, signed: Path, tmp_path: Path) -> None:
        from cryptography.hazmat.primitives import serialization
        from cryptography.hazmat.primitives.asymmetric import ec

        key = ec.generate_private_key(ec.SECP256R1())
        (tmp_path / "ec").write_bytes(
            key.private_bytes(
                serialization.Encoding.PEM,
                serialization.PrivateFormat.PKCS8,
                serialization.NoEncryption(),
            )
        )
        (tmp_path / "text").write_text("no key")
        for name in ("ec", "text", "nowhere"):
            with pytest.raises(InputFileError):
                sign_run(signed, tmp_path / name)
            with pytest.raises(InputFileError):
                verify_run(signed, trusted=tmp_path / name)


def test_a_folder_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(InputFileError):
        verify_run(tmp_path / "nowhere")


def test_pipes_in_place_of_files_do_not_make_it_wait(copy: Path) -> None:
    for name in ("run.json", "cases.jsonl", "checksums.json", "report.html"):
        (copy / name).unlink()
        os.mkfifo(copy / name)
    assert verify_run(copy).state == "failed"
