"""``aiprof load`` over TLS, over several URLs, with what is counted and replayed, and when it is stopped."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
from pyarrow import parquet
from truth_server import TruthServer
from truth_thread import serving

import profiler.load.run
from profiler.__main__ import main
from profiler.load.ceiling import ClientCost
from profiler.load.prompts import Features, PromptSpec, RequestBuilder
from profiler.results.read import read_run
from profiler.results.schema import CaseRecord

PATIENCE_S = 240.0
SHAPE = ("--prompt-tokens", "8", "--output-tokens", "6", "--warm-up", "0", "--quiet", "--no-fidelity")


@pytest.fixture(scope="module")
def server() -> Iterator[TruthServer]:
    with serving() as made:
        yield made


@pytest.fixture(autouse=True)
def known_client(monkeypatch: pytest.MonkeyPatch) -> None:
    """What the client can drive here is not measured again for each load."""
    monkeypatch.setattr(profiler.load.run, "measure_client", lambda *_: ClientCost(1e-4, 1e-5))


def aiprof(*arguments: str | Path) -> int:
    with pytest.raises(SystemExit) as ended:
        main(list(map(str, arguments)))
    assert isinstance(ended.value.code, int)
    return ended.value.code


def url(server: TruthServer, scheme: str = "http") -> str:
    return f"{scheme}://127.0.0.1:{server.port}"


def only_case(path: Path) -> CaseRecord:
    (case,) = read_run(path).cases
    return case


def rows(path: Path) -> list[dict[str, Any]]:
    samples = only_case(path).samples
    assert samples is not None
    found: list[dict[str, Any]] = parquet.read_table(path / samples.file).to_pylist()
    return sorted(found, key=lambda row: row["index"])


def when(happened: Callable[[], bool], act: Callable[[], None]) -> threading.Thread:
    """Do something in a thread as soon as something has happened."""

    def watch() -> None:
        until = time.monotonic() + PATIENCE_S
        while not happened() and time.monotonic() < until:
            time.sleep(0.02)
        act()

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    return thread


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A self-signed certificate for 127.0.0.1 and its key."""
    x509 = pytest.importorskip("cryptography.x509")
    import ipaddress

    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "a test")])
    address = x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))])
    now = datetime.now(UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=2))
        .not_valid_after(now + timedelta(days=2))
        .add_extension(address, critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    folder = tmp_path_factory.mktemp("tls")
    (folder / "cert.pem").write_bytes(made.public_bytes(serialization.Encoding.PEM))
    (folder / "key.pem").write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
    )
    return folder / "cert.pem", folder / "key.pem"


def test_tls_is_verified(
    certificate: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*certificate)
    with serving(tls=context) as server:
        flags = (*SHAPE, "--model", "plain", "--concurrency", "2", "--requests", "6")
        assert aiprof("load", url(server, "https"), *flags, "--out", tmp_path / "no") == 4
        assert "tls" in capsys.readouterr().err.lower()
        assert not server.bodies  # nothing was said to a server that nobody vouches for
        trusted = ("--ca-file", certificate[0], "--out", tmp_path / "yes")
        assert aiprof("load", url(server, "https"), *flags, *trusted) == 0
    served = only_case(tmp_path / "yes").served
    assert served is not None
    assert (served.ok, served.endpoint["tls"]) == (6, True)
    assert [len(row["chunk_since_sent_ns"]) for row in rows(tmp_path / "yes")] == [6] * 6


def test_certificates_that_cannot_be_read_are_a_usage_error(server: TruthServer, tmp_path: Path) -> None:
    (tmp_path / "ca.pem").write_text("nothing")
    flags = (*SHAPE, "--concurrency", "1", "--ca-file", tmp_path / "ca.pem", "--out", tmp_path / "run")
    assert aiprof("load", url(server, "https"), *flags) == 2


def test_an_interrupt_keeps_what_was_measured(server: TruthServer, tmp_path: Path) -> None:
    path, before = tmp_path / "run", len(server.bodies)
    # All are due at once. An answer of 6 tokens ends, one of 40,000 is still on its way at the interrupt.
    trace = tmp_path / "trace.jsonl"
    lengths = [6] * 20 + [40_000]
    trace.write_text(
        "".join(
            json.dumps({"timestamp": 0, "input_length": 8, "output_length": one}) + "\n" for one in lengths
        )
    )
    command = [sys.executable, "-m", "profiler", "load", url(server), "--trace", str(trace), "--warm-up", "0"]
    child = subprocess.Popen(
        [*command, "--quiet", "--out", str(path)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )

    def under_way() -> bool:
        mine = server.streams[before:]
        asked = [one for one in mine if one.tokens == 40_000 and one.sent > 2]
        return bool(asked) and all(one.sent == one.tokens for one in mine if one.tokens == 6)

    when(under_way, lambda: child.send_signal(signal.SIGINT))
    out, err = child.communicate(timeout=2 * PATIENCE_S)
    assert child.returncode == 130, err
    assert str(path) in err
    assert "run:" in out
    case = only_case(path)
    assert case.served is not None
    assert case.served.ok >= 1
    assert case.served.failures == {"cancelled": case.served.requests - case.served.ok}
    assert case.served.gave_up == "interrupted"


def test_a_load_process_that_dies_fails_its_case(server: TruthServer, tmp_path: Path) -> None:
    path = tmp_path / "run"
    sent = len(server.bodies)

    def answering() -> bool:
        return any(one.tokens == 50_000 and one.sent for one in server.streams[sent:])

    def kill() -> None:
        for child in psutil.Process(os.getpid()).children():
            with contextlib.suppress(psutil.NoSuchProcess):  # others end meanwhile
                if "profiler.load.process" in child.cmdline():
                    child.kill()

    watcher = when(answering, kill)
    code = aiprof(
        "load", url(server), "--prompt-tokens", "8", "--output-tokens", "50000", "--warm-up", "0",
        "--concurrency", "2", "--requests", "4", "--processes", "2", "--quiet", "--out", path,
    )  # fmt: skip
    watcher.join()
    assert code == 4
    case = only_case(path)
    assert case.failure is not None
    assert case.failure.kind == "load_process"
    assert "signal 9" in case.failure.message
    assert read_run(path).complete


def test_requests_go_to_all_urls_in_turn(server: TruthServer, tmp_path: Path) -> None:
    with serving() as other:
        before = len(server.bodies)
        flags = (*SHAPE, "--concurrency", "4", "--requests", "8", "--processes", "1")
        assert aiprof("load", url(server), url(other), *flags, "--out", tmp_path / "run") == 0
        assert len(other.bodies) > 1
        assert len(server.bodies) > before + 1
    assert {row["endpoint"] for row in rows(tmp_path / "run")} == {0, 1}
    served = only_case(tmp_path / "run").served
    assert served is not None
    assert (served.ok, served.endpoint["urls"]) == (8, 2)


def test_a_tokenizer_counts_where_the_server_does_not(server: TruthServer, tmp_path: Path) -> None:
    tokenizers = pytest.importorskip("tokenizers")
    alphabet = sorted(tokenizers.pre_tokenizers.ByteLevel.alphabet())
    made = tokenizers.Tokenizer(
        tokenizers.models.BPE(vocab={letter: number for number, letter in enumerate(alphabet)}, merges=[])
    )
    made.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.save(str(tmp_path / "tokenizer.json"))
    flags = (*SHAPE, "--model", "no-usage", "--concurrency", "1", "--requests", "3")
    assert aiprof("load", url(server), *flags, "--tokenizer", tmp_path, "--out", tmp_path / "run") == 0
    served = only_case(tmp_path / "run").served
    assert served is not None
    assert served.token_sources == {"tokenizer": 3}
    # Six words of three letters: every byte is a token of this tokenizer.
    assert [row["output_tokens"] for row in rows(tmp_path / "run")] == [24] * 3
    assert [row["first_chunk_tokens"] for row in rows(tmp_path / "run")] == [4] * 3


def test_a_tokenizer_that_is_none_is_a_usage_error(server: TruthServer, tmp_path: Path) -> None:
    flags = (*SHAPE, "--concurrency", "1", "--tokenizer", tmp_path, "--out", tmp_path / "run")
    assert aiprof("load", url(server), *flags) == 2


def test_a_shared_prefix_is_shared_and_is_other_work(server: TruthServer, tmp_path: Path) -> None:
    before = len(server.bodies)
    flags = (*SHAPE, "--concurrency", "2", "--requests", "4")
    assert aiprof("load", url(server), *flags, "--shared-prefix", "5", "--out", tmp_path / "shared") == 0
    prompts = [body["prompt"] for body in server.bodies[before:] if body["max_tokens"] == 6][-4:]
    assert len({tuple(prompt[:5]) for prompt in prompts}) == 1
    assert len({tuple(prompt[5:]) for prompt in prompts}) == 4
    assert aiprof("load", url(server), *flags, "--out", tmp_path / "own") == 0
    shared, own = only_case(tmp_path / "shared").spec, only_case(tmp_path / "own").spec
    assert shared.load is not None
    assert shared.load.shared_prefix_tokens == 5
    assert shared.workload_id != own.workload_id
    assert shared.case_id != own.case_id


def test_a_shared_prefix_of_text_is_shared() -> None:
    spec = PromptSpec("x", 0, shared_prefix_tokens=6)
    builder = RequestBuilder((), "completions", "m", spec, Features(token_ids=False))
    one, other = (builder.text(index, 10).split() for index in (1, 2))
    assert one[:6] == other[:6]
    assert one[6:] != other[6:]
    assert len(one) == len(other) == 10


def test_a_trace_is_replayed_as_it_is(server: TruthServer, tmp_path: Path) -> None:
    lengths = [(9, 3), (1, 1), (12, 5), (7, 2)]
    moments = [0, 40, 40, 95]
    trace = tmp_path / "azure.csv"
    lines = [
        f"2024-05-10 00:00:00.{at:03d}0000,{prompt},{output}\n"
        for at, (prompt, output) in zip(moments, lengths, strict=True)
    ]
    trace.write_text("TIMESTAMP,ContextTokens,GeneratedTokens\n" + "".join(lines))
    before = len(server.bodies)
    flags = ("--trace", trace, "--warm-up", "0", "--quiet", "--out", tmp_path / "run")
    assert aiprof("load", url(server), *flags) == 0
    found = rows(tmp_path / "run")
    assert [(row["prompt_tokens_asked"], row["output_tokens"]) for row in found] == lengths
    scheduled = np.array([row["scheduled_ns"] for row in found]) / 1e6
    assert scheduled - scheduled[0] == pytest.approx(moments, abs=1e-3)
    assert all(row["sent_ns"] >= row["scheduled_ns"] for row in found)
    asked = sorted((len(body["prompt"]), body["max_tokens"]) for body in server.bodies[before:][-4:])
    assert asked == sorted(lengths)
    spec = only_case(tmp_path / "run").spec
    assert spec.load is not None
    assert spec.load.process == "trace"
    assert spec.load.trace_sha256 is not None


def test_prompts_of_a_trace_share_the_blocks_that_it_says() -> None:
    spec = PromptSpec("trace", 0, hash_ids=((1, 2), (1, 3)))
    builder = RequestBuilder((), "completions", "m", spec, Features())
    one, other = builder.ids(0, 1000), builder.ids(1, 1000)
    assert one[:512] == other[:512]
    assert one[512:] != other[512:]


def test_texts_of_a_trace_share_the_blocks_that_it_says() -> None:
    spec = PromptSpec("trace", 0, words_per_token=0.9, overhead_tokens=10, hash_ids=((1, 2), (1, 3), (1,)))
    builder = RequestBuilder((), "chat", "m", spec, Features())
    one, other, short = (
        builder.text(index, length).split() for index, length in enumerate((1200, 1200, 300))
    )
    block = round(512 * 0.9)
    assert one[:block] == other[:block]
    assert one[block : 2 * block] != other[block : 2 * block]
    assert one[2 * block :] != other[2 * block :]
    assert short == one[: len(short)]
    assert (len(one), len(short)) == (round(1190 * 0.9), round(290 * 0.9))
    # Nobody has sent the last part before; a repeat of the load sends the same.
    assert builder.text(3, 1200).split()[2 * block :] != one[2 * block :]
    assert builder.text(0, 1200).split() == one


def test_two_loads_can_be_compared_and_exported(
    server: TruthServer, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    flags = (*SHAPE, "--concurrency", "2", "--requests", "6")
    for name in ("a", "b"):
        assert aiprof("load", url(server), *flags, "--out", tmp_path / name) == 0
    capsys.readouterr()
    assert aiprof("compare", tmp_path / "a", tmp_path / "b", "--json") in (0, 3)
    json.loads(capsys.readouterr().out)
    assert aiprof("export", "--csv", tmp_path / "a", "--out", tmp_path / "a.csv") == 0
    assert "ttft_s" in (tmp_path / "a.csv").read_text()
    assert aiprof("verify", tmp_path / "a") == 0


@pytest.mark.parametrize(
    "flags",
    [
        ("--scenario", "chat"),
        ("--scenario", "no-such-scenario", "--concurrency", "1"),
        ("--scenario", "chat", "--concurrency", "1,x"),
        ("--scenario", "chat", "--concurrency", "1", "--seconds", "soon"),
        ("--scenario", "chat", "--concurrency", "1", "--ramp-to", "5"),
        ("--scenario", "chat", "--rate", "1", "--ramp-to", "5", "--requests", "9"),
        ("--prompt-tokens", "5", "--concurrency", "1"),
        ("--scenario", "chat", "--prompt-tokens", "5", "--concurrency", "1"),
        ("--trace", "no-such-file"),
        ("--scenario", "chat", "--concurrency", "1,1"),
    ],
)
def test_wrong_flags_are_one_line(
    server: TruthServer, flags: tuple[str, ...], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert aiprof("load", url(server), *flags, "--quiet", "--out", tmp_path / "run") == 2
    assert capsys.readouterr().err.strip()
    assert not (tmp_path / "run").exists()


def test_the_table_fits_into_80_columns(
    server: TruthServer,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    flags = (*SHAPE, "--concurrency", "1,2", "--requests", "70", "--slo", "ttft_p90=60s")
    assert aiprof("load", url(server), *flags, "--out", tmp_path / "run") == 0
    out = capsys.readouterr().out
    assert "…" not in out
    assert "p90" in out
