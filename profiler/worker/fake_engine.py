"""An engine that computes nothing: programmable speed, noise, drift, memory and faults.

It exists to prove the conductor: every way in which a real engine can be slow, noisy or broken can
be asked for by an option. Its times follow a roofline of the device it pretends to be. By default
time is virtual (stamps run ahead of the clock), so that a test of an hour's sweep takes a second.
"""

from __future__ import annotations

import hashlib
import math
import os
import random
import signal
import sys
import time
from typing import Any

from . import fake_answers
from .fake_devices import DEVICES, weight_counts
from .protocol import EngineError

BYTES_PER_WEIGHT = {"fp32": 4.0, "bf16": 2.0, "fp16": 2.0}
DEFAULTS: dict[str, Any] = {
    "read_bandwidth": 1e11,  # bytes/s that the pretended device reads
    "matrix_flops": 5e12,  # FLOP/s of its matrix units
    "overhead_s": 0.001,  # fixed time per step
    "memory_bytes": 64e9,  # more than this needed: out of memory
    "noise_cv": 0.01,  # spread of trial times, standard deviation over mean
    "start_cv": 0.0,  # spread between starts
    "noise_rho": 0.0,  # correlation of one trial's noise with the next
    "warm_up": 0.0,  # the first trial is slower by this fraction
    "warm_up_trials": 1.0,  # and it decays with this time constant
    "drift": 0.0,  # every trial is slower than the one before by this fraction
    "probe_cv": 0.002,  # spread of the bandwidth probe
    "disturb_start": -1,  # this start loses disturb_loss of its bandwidth after the first probe
    "disturb_loss": 0.3,
    "load_s": 0.0,
    "mixed": False,  # prefill and decode are not told apart, as by an engine that prefills in pieces
    "preemptions": 0,  # in every trial
    "dummy_weights": False,
    "fidelity": "faithful",  # what it computes: faithful, wrong, or a format in place of the claimed one
    "fault": "",  # crash, hang, oom, error, garbage, sigstop, slow
    "fault_at": "run",  # hello, load, run, score, probe, memory
    "fault_on": 1,  # on the how manieth call of that op in one process
    "fault_batch": 0,  # only where the case's batch is this (0: any)
    "cached": 1.0,  # a repeated prompt takes this part of the time
    "real_time": False,
}

# Rates of other probes as shares of the bandwidth.
_SHARES = {
    "copy_bandwidth": 0.9,
    "host_to_device": 0.02,
    "device_to_host": 0.02,
    "device_to_device": 0.1,
    "all_reduce": 0.08,
    "all_to_all": 0.07,
}


class FakeEngine:
    """See the module; ``options`` of ``load`` are the keys of :data:`DEFAULTS`."""

    def __init__(self) -> None:
        self.options = dict(DEFAULTS)
        self.asked: dict[str, Any] = {}
        self.calls: dict[str, int] = {}
        self.batch = 0
        self.start = 0
        self.trials = 0
        self.probes = 0
        self.noise = 0.0
        self.last_prompts: list[list[int]] = []
        self.random = random.Random(0)
        self.clock_ns = time.monotonic_ns()
        self.checking = False
        self.vocabulary = 1
        self.weight_format = "fp32"

    def hello(self, request: dict[str, Any]) -> dict[str, Any]:
        """Describe the pretended engine and its devices."""
        self._become("fake-0", request.get("options"))
        self._misbehave("hello")
        engine = {"name": "fake", "version": "1", "details": {"real_time": bool(self.options["real_time"])}}
        devices = [
            {"device": key, "name": profile["name"], "uuid": key, "pci_address": None}
            for key, profile in DEVICES.items()
        ]
        return {"engine": engine, "devices": devices, "simulated": True}

    def load(self, request: dict[str, Any]) -> dict[str, Any]:
        """Take the sizes of the model; fail when they exceed the pretended memory."""
        self._become(request["device"], request.get("options"))
        self._spread(request.get("parallel") or {})
        self.batch = request["max_batch"]
        self.start = request.get("start", 0)
        # A check of fidelity is asked for faults of its own (score), so that cases meet theirs.
        self.checking = request["weights"].get("kind") == "fidelity"
        self.vocabulary = request["architecture"]["vocab_size"]
        self.weight_format = request["formats"]["weight_format"]
        self._misbehave("load")
        seed = request["weights"].get("seed", 0)
        # Noise of its own for every start of every case, the same whenever it is repeated.
        case = (seed, self.start, request["device"], self.batch, request["max_tokens"])
        self.random = random.Random("%s/%s/%s/%s/%s/%s" % (*case, request["architecture"]["hidden_size"]))
        self.start_factor = math.exp(self.random.gauss(0.0, self.options["start_cv"]))
        architecture = request["architecture"]
        layers = (request.get("options") or {}).get("layers")
        self.weights, self.active_weights = weight_counts(architecture, layers)
        count = architecture["layers"] if layers is None else sum(layers)
        width = BYTES_PER_WEIGHT.get(request["formats"]["weight_format"], 1.0)
        self.weights_bytes = int(self.weights * width)
        self.token_bytes = 4 * count * architecture["kv_heads"] * architecture["head_dim"]
        self.cache_bytes = self.token_bytes * self.batch * request["max_tokens"]
        needed = self.weights_bytes + self.cache_bytes
        if needed > self.options["memory_bytes"]:
            short = needed - self.options["memory_bytes"]
            raise EngineError(
                "out_of_memory", "needs %d bytes, %d more than the device has" % (needed, short)
            )
        self._pass_time(self.options["load_s"])
        return {
            "weights_bytes": self.weights_bytes,
            "kv_cache_bytes": self.cache_bytes,
            "load_s": self.options["load_s"],
            "compile_s": None,
            "details": {"simulated": True},
            "weight_copies_bytes": 0,
            "dummy_weights": bool(self.options["dummy_weights"]),
        }

    def run(self, request: dict[str, Any]) -> dict[str, Any]:
        """Return stamps of a prefill and decode that never took place."""
        self._misbehave("run")
        prompts, output_tokens = request["prompt_ids"], request["output_tokens"]
        factor = self._trial_factor()
        if prompts == self.last_prompts:
            factor *= self.options["cached"]
        self.last_prompts = prompts
        prompt_tokens = len(prompts[0])
        options = self.options
        flops = 2.0 * self.active_weights * len(prompts) * prompt_tokens
        submit_ns = self.clock_ns = max(self.clock_ns, time.monotonic_ns())
        reading_s = self.weights_bytes / self._bandwidth()
        self._pass_time(factor * (options["overhead_s"] + max(flops / options["matrix_flops"], reading_s)))
        step_ns = [self.clock_ns]
        for step in range(1, output_tokens):
            read = self.weights_bytes + self.token_bytes * len(prompts) * (prompt_tokens + step)
            self._pass_time(factor * (options["overhead_s"] + read / self._bandwidth()))
            step_ns.append(self.clock_ns)
        self.trials += 1
        result = {
            "submit_ns": submit_ns,
            "first_token_ns": step_ns[0],
            "last_token_ns": step_ns[-1],
            "step_ns": step_ns,
            "output_sha256": hashlib.sha256(repr(prompts).encode()).hexdigest(),
            "preemptions": int(options["preemptions"]),
        }
        if options["mixed"]:
            result.update(first_token_ns=None, step_ns=None, split_reason="mixed as asked")
        if request.get("return_ids"):
            result["output_ids"] = self._answers(request)["tokens"]
        return result

    def score(self, request: dict[str, Any]) -> dict[str, Any]:
        """Return logits that no model computed."""
        self._misbehave("score")
        return self._answers(request)

    def _answers(self, request: dict[str, Any]) -> dict[str, Any]:
        asked = {"forced_ids": [None] * len(request["prompt_ids"]), **request}
        return fake_answers.score(asked, self.vocabulary, self.options["fidelity"], self.weight_format)

    def probe(self, request: dict[str, Any]) -> dict[str, Any]:
        """Return what the pretended device can do, with its noise."""
        self._become(request["device"], request.get("options"))
        self._misbehave("probe")
        kind = request["kind"]
        if kind == "read_bandwidth":
            values = self._noisy(self._bandwidth(), request["repeats"])
            self.probes += 1
            return {"bytes_per_s": values, "method": "simulated"}
        if kind in _SHARES:
            rate = float(self.options["read_bandwidth"]) * _SHARES[kind]
            return {"bytes_per_s": self._noisy(rate, request["repeats"]), "method": "simulated"}
        repeats = {"matrix_flops": "repeats", "sustained_matrix_flops": "seconds"}.get(kind)
        if repeats is None or request["format"] == "fp8":
            raise EngineError("unsupported", "the fake engine has no such probe")
        rate = float(self.options["matrix_flops"]) * (0.9 if repeats == "seconds" else 1.0)
        values = self._noisy(rate, max(1, int(request[repeats])))
        now = time.monotonic_ns()
        return {"flops_per_s": values, "method": "simulated", "started_ns": now, "ended_ns": now}

    def memory(self, request: dict[str, Any]) -> dict[str, Any]:
        """Return what the pretended device holds."""
        self._misbehave("memory")
        used = self.weights_bytes + self.cache_bytes
        total = int(self.options["memory_bytes"])
        return {
            "engine_peak_bytes": used,
            "engine_peak_reason": None,
            "process_rss_bytes": None,
            "peak_process_bytes": None,
            "device_total_bytes": total,
            "device_free_bytes": total - used,
            "device_source": "made up",
        }

    def unload(self, request: dict[str, Any]) -> dict[str, Any]:
        """Nothing to free."""
        return {}

    def _become(self, device: str, options: dict[str, Any] | None) -> None:
        """Take on a device's profile; what the user asked for goes before it."""
        self.asked.update(options or {})
        profile = {key: value for key, value in DEVICES[device].items() if key != "name"}
        self.options = {**DEFAULTS, **profile, **self.asked}

    def _spread(self, parallel: dict[str, int]) -> None:
        """Be as many devices as the model is spread over; stages wait for each other."""
        tp, pp, dp = (parallel.get(name, 1) for name in ("tp", "pp", "dp"))
        for name in ("read_bandwidth", "matrix_flops"):
            self.options[name] = float(self.options[name]) * tp * dp
        self.options["memory_bytes"] = float(self.options["memory_bytes"]) * tp * pp * dp

    def _noisy(self, rate: float, repeats: int) -> list[float]:
        return [rate * self.random.gauss(1.0, self.options["probe_cv"]) for _ in range(repeats)]

    def _bandwidth(self) -> float:
        disturbed = self.start == self.options["disturb_start"] and self.probes > 0
        loss = float(self.options["disturb_loss"]) if disturbed else 0.0
        return float(self.options["read_bandwidth"]) * (1.0 - loss)

    def _trial_factor(self) -> float:
        """Start effect x warm-up decay x drift x AR(1) noise of this trial."""
        options, rho = self.options, self.options["noise_rho"]
        fresh = self.random.gauss(0.0, options["noise_cv"])
        self.noise = fresh if self.trials == 0 else rho * self.noise + math.sqrt(1.0 - rho * rho) * fresh
        warm_up = 1.0 + float(options["warm_up"]) * math.exp(-self.trials / options["warm_up_trials"])
        drift = 1.0 + float(options["drift"]) * self.trials
        return self.start_factor * warm_up * drift * math.exp(self.noise)

    def _pass_time(self, seconds: float) -> None:
        if self.options["real_time"]:
            time.sleep(seconds)
            self.clock_ns = time.monotonic_ns()
        else:
            self.clock_ns += int(seconds * 1e9)

    def _misbehave(self, op: str) -> None:
        """Do the fault that was asked for, if this is the moment."""
        options = self.options
        if self.checking and op != "score":
            return
        self.calls[op] = self.calls.get(op, 0) + 1
        fault = options["fault"]
        if not fault or op != options["fault_at"] or self.calls[op] != options["fault_on"]:
            return
        if options["fault_batch"] not in (0, self.batch):
            return
        if fault == "crash":
            print("fake engine: crashing as asked", file=sys.stderr, flush=True)
            os.kill(os.getpid(), signal.SIGSEGV)
        elif fault == "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        elif fault == "sigstop":
            os.kill(os.getpid(), signal.SIGSTOP)
        elif fault == "hang":
            time.sleep(3600)
        elif fault == "slow":
            time.sleep(0.4)
        elif fault == "oom":
            raise EngineError("out_of_memory", "out of memory as asked")
        elif fault == "error":
            raise RuntimeError("failing as asked")
        elif fault == "garbage":
            # Past Python's buffers too: a C library prints straight to descriptor 1.
            print('{"id": 1, "ok": true, "result": {}}', flush=True)
            os.write(1, b"\x00\xff\xfe not json\n")
