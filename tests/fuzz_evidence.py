"""Signatures, keys and remembered references under attack."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path

from fuzz_mutations import damaged_bytes, damaged_document, damaged_json
from fuzz_target import Target, new_folder
from hypothesis import strategies as st

_PEM_LINES = (
    b"-----BEGIN PRIVATE KEY-----",
    b"-----END PRIVATE KEY-----",
    b"-----BEGIN OPENSSH PRIVATE KEY-----",
    b"ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAI",
    b"ssh-ed25519 ",
    b"ssh-rsa AAAA",
)


def signatures() -> Target:
    """``signature.json`` of a run, and files of public and private keys."""
    from profiler.results.checksums import NamedDigest, chained
    from profiler.results.signature import check_signature, new_key, sign_run
    from profiler.results.verify_files import Finding

    checksums = chained([NamedDigest("run.json", "0" * 64), NamedDigest("cases.jsonl", "1" * 64)])
    with new_folder() as folder:
        new_key(folder / "key")
        (folder / "checksums.json").write_bytes(checksums.encoded())
        sign_run(folder, folder / "key")
        whole = {path.name: path.read_bytes() for path in folder.iterdir()}
    signature = json.loads(whole["signature.json"])

    def read(change: tuple[str, bytes]) -> None:
        with new_folder() as folder:
            for name, content in (whole | dict([change])).items():
                (folder / name).write_bytes(content)
            findings: list[Finding] = []
            check_signature(folder, checksums, folder / "key.pub", findings)
            # What differs in any byte must not pass as the vendor's word.
            if change[0] == "signature.json" and change[1] != whole["signature.json"]:
                assert findings, "a changed signature was accepted"
            sign_run(folder, folder / "key")

    def file(name: str, content: bytes) -> tuple[str, bytes]:
        return name, content

    keys = damaged_bytes([whole["key"], whole["key.pub"]]) | st.sampled_from(_PEM_LINES)
    inputs = (
        (damaged_bytes([whole["signature.json"]]) | damaged_document([signature]).map(_spelt)).map(
            partial(file, "signature.json")
        )
        | (keys | damaged_bytes([whole["key.pub"]])).map(partial(file, "key.pub"))
        | (keys | damaged_bytes([whole["key"]])).map(partial(file, "key"))
        | damaged_json([json.loads(whole["checksums.json"])]).map(partial(file, "checksums.json"))
    )
    return Target(inputs, read)


def _spelt(document: object) -> bytes:
    return json.dumps(document, indent=1).encode() + b"\n"


def references() -> Target:
    """Remembered answers of the reference in the user's cache, and the verdict over what they say."""
    from profiler.measure.fidelity_answers import Answer, compare
    from profiler.measure.fidelity_reference import Reference, ReferenceCache

    logprobs = ({5: -0.5, 7: -1.5}, {5: -0.25, 9: -2.0})
    answer = Answer((5, 9), logprobs, (3.0, 4.0))
    other = Answer((5, 8), logprobs, (3.0, 4.0))
    document = json.loads(Reference(scored=(answer,), greedy=(answer,)).model_dump_json())

    def read(content: bytes) -> None:
        with new_folder() as folder:
            (folder / "reference.json").write_bytes(content)
            found = ReferenceCache(folder).read("reference")
            if found is not None:
                compare(found.scored, [answer], found.greedy, [answer, other])

    return Target(damaged_json([document]), read, ())


def scores() -> Target:
    """What an engine answers in the fidelity check, up to the verdict."""
    from profiler.measure.fidelity_answers import answer_faults, compare
    from profiler.measure.fidelity_limits import judge
    from profiler.measure.fidelity_reference import Reference, answers_of, require_all
    from profiler.models.formats import formats_for

    whole = {
        "tokens": [[5, 9], [7, 3]],
        "ids": [[[5, 7], [9, 5]], [[7, 5], [3, 9]]],
        "logits": [[[1.5, 0.5], [2.0, 1.0]], [[1.0, 0.0], [3.0, -1.0]]],
        "log_sum_exp": [[2.0, 2.5], [1.5, 3.5]],
    }
    answers = answers_of(whole)
    reference, formats = Reference(scored=answers, greedy=answers), formats_for("bf16")

    def read(found: object) -> None:
        result = found if isinstance(found, dict) else {}
        try:
            given = require_all(answers_of({"tokens": [], **result}), reference)
        except ValueError:
            given = ()  # the sweep says "not_checked" with the words
        try:
            continued = answers_of({"tokens": result.get("tokens")})
        except ValueError:
            return
        faults = answer_faults(((1, 2), (3, 4)), continued, 2, frozenset())
        judge(compare(reference.scored, given, reference.greedy, continued), formats, faults)

    return Target(damaged_document([whole]), read, ())


def hub_caches() -> Target:
    """What the Hugging Face cache says is the current revision of a model."""
    from unittest import mock

    from profiler.models import hub

    def read(content: bytes) -> None:
        with new_folder() as folder:
            model = folder / "models--org--name"
            (model / "refs").mkdir(parents=True)
            (model / "refs" / "main").write_bytes(content)
            with mock.patch.object(hub, "cache_folder", return_value=folder):
                found = hub.cached_snapshot("org/name")
            assert found is None or Path(found).is_relative_to(model)

    return Target(damaged_bytes([b"0123456789abcdef" * 2 + b"01234567"]), read, ())
