"""The worker's side of the protocol: JSON lines in, JSON lines out (docs/architecture.md)."""

from __future__ import annotations

import importlib
import json
import os
import platform
import traceback
from typing import Any

PROTOCOL = 1
# name -> (module, class): imported only when asked for, so that one engine never loads another.
ENGINES = {
    "torch": ("torch_engine", "TorchEngine"),
    "llamacpp": ("llamacpp_engine", "LlamaCppEngine"),
    "vllm": ("vllm_engine", "VllmEngine"),
    "fake": ("fake_engine", "FakeEngine"),
}
OPS = ("load", "run", "score", "probe", "memory", "unload", "server")


class EngineError(Exception):
    """Something an engine cannot do, said in a way the conductor can put into the record.

    Args:
        kind: ``unsupported``, ``out_of_memory``, ``weights``, ``device`` or ``bad_request``.
        message: one line: what, where, what to do.
    """

    def __init__(self, kind: str, message: str) -> None:
        super().__init__(message)
        self.kind = kind
        self.message = message


class Worker:
    """Holds the one engine of this process and hands requests to it."""

    def __init__(self) -> None:
        self.engine: Any = None

    def handle(self, request: dict[str, Any]) -> dict[str, Any]:
        """Return the result of one request.

        Args:
            request: the parsed request with ``op`` and its fields.

        Raises:
            EngineError: the engine cannot do it, or the request makes no sense.
        """
        op = request.get("op")
        if op == "hello":
            return self._hello(request)
        if op == "bye":
            return {}
        if op not in OPS:
            raise EngineError("bad_request", "unknown op %r (known: hello, %s, bye)" % (op, ", ".join(OPS)))
        if self.engine is None:
            raise EngineError("bad_request", "%s before hello" % op)
        if not hasattr(self.engine, op):
            raise EngineError("unsupported", "this engine does not do %s" % op)
        return getattr(self.engine, op)(request) or {}

    def _hello(self, request: dict[str, Any]) -> dict[str, Any]:
        name = request.get("engine")
        if name not in ENGINES:
            raise EngineError(
                "unsupported", "unknown engine %r (known: %s)" % (name, ", ".join(sorted(ENGINES)))
            )
        module, attribute = ENGINES[name]
        try:
            engine_class = getattr(importlib.import_module("." + module, __package__), attribute)
            self.engine = engine_class()
        except ImportError as error:
            version = platform.python_version()
            under = "engine %s cannot be imported under Python %s: %s" % (name, version, error)
            message = under + "; name an interpreter that has it with --python"
            raise EngineError("unsupported", message) from error
        result: dict[str, Any] = self.engine.hello(request)
        result.update(protocol=PROTOCOL, python=platform.python_version(), pid=os.getpid())
        return result


def serve(request_descriptor: int, answer_descriptor: int) -> None:
    """Answer requests until ``bye`` or the end of the input."""
    worker = Worker()
    with os.fdopen(request_descriptor, "rb") as requests, os.fdopen(answer_descriptor, "wb") as answers:
        for line in requests:
            answer, ended = _answer(worker, line)
            answers.write(json.dumps(answer, allow_nan=False).encode() + b"\n")
            answers.flush()
            if ended:
                return


def _answer(worker: Worker, line: bytes) -> tuple[dict[str, Any], bool]:
    """Return (answer, whether this was the last request); no exception leaves this function."""
    identity = None
    try:
        request = json.loads(line.decode())
        identity = request.get("id")
        return {"id": identity, "ok": True, "result": worker.handle(request)}, request.get("op") == "bye"
    except EngineError as error:
        return _failure(identity, error.kind, error.message), False
    except MemoryError:
        return _failure(identity, "out_of_memory", "the interpreter ran out of memory"), False
    except Exception as error:
        traceback.print_exc()
        last = traceback.extract_tb(error.__traceback__)[-1]
        where = "%s:%d" % (os.path.basename(last.filename), last.lineno or 0)
        return _failure(identity, "internal", "%s: %s (%s)" % (type(error).__name__, error, where)), False


def _failure(identity: Any, kind: str, message: str) -> dict[str, Any]:
    return {
        "id": identity,
        "ok": False,
        "error": {"kind": kind, "message": " ".join(str(message).split())[:2000]},
    }
