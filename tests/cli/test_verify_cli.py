"""``aiprof verify`` and ``aiprof sign`` as a buyer and a vendor meet them."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from verify_runs import CHALLENGE, copied, edit_case, make_run

from profiler.analysis.gate import judge
from profiler.analysis.policy_file import load_policy
from profiler.cli import cli
from profiler.errors import AiprofError
from profiler.results.read import read_run


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_run(tmp_path_factory.mktemp("made") / "run")


def aiprof(*arguments: str | Path) -> Result:
    return CliRunner().invoke(cli, [str(argument) for argument in arguments], standalone_mode=False)


def refusal(result: Result) -> AiprofError:
    assert isinstance(result.exception, AiprofError)
    assert "\n" not in str(result.exception)
    return result.exception


def test_it_says_what_holds_and_what_that_means(run: Path) -> None:
    done = aiprof("verify", run, "--challenge", CHALLENGE)
    assert done.return_value == 0
    assert done.stdout.startswith(f"VERIFIED: {run}")
    for words in ("figures made again", "not signed", f"challenge {CHALLENGE}", "SIMULATED"):
        assert words in done.stdout
    document = json.loads(aiprof("verify", run, "--json").stdout)
    assert (document["state"], document["findings"]) == ("verified", [])


def test_an_edited_figure_is_named_with_its_file_and_ends_with_1(run: Path, tmp_path: Path) -> None:
    path = copied(run, tmp_path / "run")

    def faster(fields: dict[str, Any]) -> None:
        fields["measurements"]["decode_tokens_per_s"]["value"] *= 2

    edit_case(path, faster)
    done = aiprof("verify", path)
    assert done.return_value == 1
    assert "DOES NOT VERIFY" in done.stdout
    assert "cases.jsonl: line 1 (decode-128" in done.stdout
    assert "(decode_tokens_per_s)" in done.stdout


def test_an_unfinished_run_is_incomplete(run: Path, tmp_path: Path) -> None:
    path = copied(run, tmp_path / "run")
    (path / "checksums.json").unlink()
    done = aiprof("verify", path)
    assert done.return_value == 0
    assert done.stdout.startswith("INCOMPLETE")


def test_keys_signatures_and_trust(run: Path, tmp_path: Path) -> None:
    path, key = copied(run, tmp_path / "run"), tmp_path / "key"
    made = json.loads(aiprof("sign", "--new-key", key, "--json").stdout)
    assert made["fingerprint"].startswith("SHA256:")
    signed = aiprof("sign", path, "--key", key)
    assert made["fingerprint"] in signed.stdout
    done = aiprof("verify", path, "--trusted", f"{key}.pub")
    assert done.return_value == 0
    assert "the trusted key" in done.stdout
    assert "not that the figures are true" in done.stdout
    assert refusal(aiprof("sign", "--new-key", key)).exit_code == 2


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("verify", "nowhere"), "no such run"),
        (("sign",), "--new-key FILE"),
        (("sign", "nowhere"), "--key FILE is missing"),
        (("sign", "nowhere", "--key", "key"), "no such run"),
        (("sign", "nowhere", "--new-key", "key"), "--new-key FILE alone"),
    ],
)
def test_wrong_use_ends_with_2_and_one_line(
    arguments: tuple[str, ...], words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    error = refusal(aiprof(*arguments))
    assert error.exit_code == 2
    assert words in str(error)


def test_without_cryptography_the_remedy_is_named(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, key = copied(run, tmp_path / "run"), tmp_path / "key"
    aiprof("sign", "--new-key", key)
    aiprof("sign", path, "--key", key)
    for name in [name for name in sys.modules if name.split(".")[0] == "cryptography"]:
        monkeypatch.setitem(sys.modules, name, None)
    monkeypatch.setitem(sys.modules, "cryptography", None)
    for arguments in (("sign", path, "--key", key), ("verify", path, "--trusted", f"{key}.pub")):
        assert "pip install 'aiprof[sign]'" in str(refusal(aiprof(*arguments)))
    done = aiprof("verify", path)
    assert done.return_value == 0
    assert "signature not checked" in done.stdout


POLICY = """
policy: 1
name: verified only
allow: [one_start, simulated]
evidence: {{verified: {verified}}}
case: {{variant: quick}}
flags: {{forbidden: []}}
requirements:
  - {{metric: decode_tokens_per_s, at_least: 1}}
"""


@pytest.mark.parametrize(("verified", "outcome"), [("true", "undecided"), ("false", "pass")])
def test_a_policy_can_ask_for_runs_that_verify(
    run: Path, tmp_path: Path, verified: str, outcome: str
) -> None:
    """The edit is one that only making the figure again can find."""
    (tmp_path / "policy.yaml").write_text(POLICY.format(verified=verified))
    policy = load_policy(tmp_path / "policy.yaml")
    assert judge(policy, [read_run(run)]).outcome == "pass"
    path = copied(run, tmp_path / "run")
    edit_case(path, lambda fields: fields["measurements"]["mbu"].update(value=0.99))
    verdict = judge(policy, [read_run(path)])
    assert verdict.outcome == outcome
    (line,) = verdict.candidates[0].root.lines()
    assert ("the run does not verify: cases.jsonl" in line.why) == (verified == "true")


def test_a_signed_page_is_not_rendered_again(run: Path, tmp_path: Path) -> None:
    path, key = copied(run, tmp_path / "run"), tmp_path / "key"
    aiprof("sign", "--new-key", key)
    aiprof("sign", path, "--key", key)
    done = aiprof("sweep", "--resume", path)
    assert "the run is signed" in done.stderr
    assert aiprof("verify", path).return_value == 0
