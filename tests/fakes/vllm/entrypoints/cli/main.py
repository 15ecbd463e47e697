"""``vllm serve`` without a model: /health, /metrics, /v1/models and /v1/completions with streamed token ids.

Behaves as AIPROF_FAKE_SERVE says: ``dies`` while it starts, ``small`` likewise if it is to serve more than
two requests at once, ``hangs`` before it is ready, ``dies-later`` under load, ``preempts``, ``child`` (has a
child in a session of its own that ignores SIGTERM). Its pids are written to AIPROF_FAKE_PIDS. Standard
library only.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

HOW = os.environ.get("AIPROF_FAKE_SERVE", "")
DIES_AFTER = 3
MOST_OF_SMALL = 2
_CHILD = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); time.sleep(600)"


def main() -> None:
    """Serve until killed."""
    given = _parse(sys.argv[1:])
    config = json.loads((Path(given.model) / "config.json").read_text())
    if given.load_format != "dummy" and not (Path(given.model) / "model.safetensors").exists():
        sys.exit(f"Cannot find any model weights with `{given.model}`")
    print("serving", given.model, flush=True)
    pids = [os.getpid()]
    if HOW == "child":
        pids.append(subprocess.Popen([sys.executable, "-c", _CHILD], start_new_session=True).pid)
    if "AIPROF_FAKE_PIDS" in os.environ:
        Path(os.environ["AIPROF_FAKE_PIDS"]).write_text(" ".join(map(str, pids)))
    if HOW == "dies":
        print("RuntimeError: no kernel image is available for execution on the device", flush=True)
        sys.exit(1)
    if HOW == "small" and given.max_num_seqs > MOST_OF_SMALL:
        sys.exit("torch.OutOfMemoryError: no room for the cache of so many sequences")
    if HOW == "hangs":
        time.sleep(600)
    server = Server((given.host, given.port), Handler)
    server.given, server.vocabulary = given, config["vocab_size"]
    server.serve_forever()


def _parse(words: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser("vllm", allow_abbrev=False)
    parser.add_argument("command", choices=["serve"])
    parser.add_argument("model")
    parser.add_argument("--host")
    parser.add_argument("--served-model-name")
    for flag in ("dtype", "generation-config", "load-format", "speculative-config"):
        parser.add_argument(f"--{flag}")
    for flag in (
        "port", "max-model-len", "max-num-seqs", "seed", "kv-cache-memory-bytes", "max-num-batched-tokens",
        "tensor-parallel-size", "pipeline-parallel-size", "data-parallel-size",
    ):  # fmt: skip
        parser.add_argument(f"--{flag}", type=int)
    parser.add_argument("--gpu-memory-utilization", type=float)
    for flag in (
        "no-enable-prefix-caching", "enforce-eager", "skip-tokenizer-init", "disable-uvicorn-access-log",
        "enable-expert-parallel",
    ):  # fmt: skip
        parser.add_argument(f"--{flag}", action="store_true")
    return parser.parse_args(words)


class Server(ThreadingHTTPServer):
    """Counts what it answers."""

    daemon_threads = True
    given: argparse.Namespace
    vocabulary: int
    answered = 0
    lock = threading.Lock()


class Handler(BaseHTTPRequestHandler):
    """One connection."""

    protocol_version = "HTTP/1.1"
    server: Server

    def log_message(self, format: str, *values: Any) -> None:
        """Say nothing."""

    def do_GET(self) -> None:
        """Answer /health, /metrics and /v1/models."""
        model = self.server.given.served_model_name
        if self.path == "/health":
            self._whole(200, b"")
        elif self.path == "/metrics":
            self._whole(200, self._metrics(model).encode())
        elif self.path == "/v1/models":
            self._whole(200, json.dumps({"data": [{"id": model}]}).encode())
        else:
            self._whole(404, b"{}")

    def _metrics(self, model: str) -> str:
        given, answered = self.server.given, self.server.answered
        blocks = given.max_num_seqs * 4
        labels = f'engine="0",model_name="{model}"'
        lines = [
            "# HELP vllm:num_preemptions_total Cumulative number of preemption from the engine.",
            f"vllm:num_preemptions_total{{{labels}}} {float(answered if HOW == 'preempts' else 0)}",
            f"vllm:prefix_cache_hits_total{{{labels}}} 0.0",
            f'vllm:cache_config_info{{block_size="128",engine="0",num_gpu_blocks="{blocks}"}} 1.0',
        ]
        if given.speculative_config:
            tokens = json.loads(given.speculative_config)["num_speculative_tokens"]
            lines += [
                f"vllm:spec_decode_num_drafts_total{{{labels}}} {float(answered)}",
                f"vllm:spec_decode_num_draft_tokens_total{{{labels}}} {float(answered * tokens)}",
                f"vllm:spec_decode_num_accepted_tokens_total{{{labels}}} {float(answered)}",
            ]
        return "\n".join(lines) + "\n"

    def do_POST(self) -> None:
        """Answer /v1/completions, streamed or whole, one token an event."""
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        with self.server.lock:
            self.server.answered += 1
            if HOW == "dies-later" and self.server.answered > DIES_AFTER:
                print("EngineCore died: out of shared memory", flush=True)
                os._exit(3)
        prompt, given = body["prompt"], self.server.given
        if not isinstance(prompt, list) or not all(0 <= token < self.server.vocabulary for token in prompt):
            self._whole(400, json.dumps({"error": {"message": "Tokenizer not available"}}).encode())
            return
        if len(prompt) + body["max_tokens"] > given.max_model_len:
            self._whole(400, json.dumps({"error": {"message": "maximum context length"}}).encode())
            return
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        for number in range(body["max_tokens"]):
            last = number + 1 == body["max_tokens"]
            choice = {"index": 0, "text": "", "finish_reason": "length" if last else None}
            self._event({"choices": [{**choice, "token_ids": [number % self.server.vocabulary]}]})
        usage = {"prompt_tokens": len(prompt), "completion_tokens": body["max_tokens"]}
        self._event({"choices": [], "usage": usage})
        self._chunk(b"data: [DONE]\n\n")
        self._chunk(b"")

    def _event(self, event: dict[str, Any]) -> None:
        whole = {"id": "cmpl-1", "object": "text_completion", "created": 1, "model": "model", **event}
        self._chunk(b"data: " + json.dumps(whole).encode() + b"\n\n")

    def _chunk(self, data: bytes) -> None:
        self.wfile.write(b"%x\r\n%s\r\n" % (len(data), data))

    def _whole(self, status: int, body: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
