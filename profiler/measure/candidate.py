"""A case before it is known whether it can run, and its specification."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from profiler.backends.base import Device
from profiler.engines.base import Engine
from profiler.measure.extrapolate import slice_record
from profiler.models.architecture import Architecture
from profiler.models.catalogue import ResolvedModel
from profiler.models.formats import Formats
from profiler.models.parallel import ONE_DEVICE, Parallel
from profiler.models.slices import Depth, sliced, whole_depth
from profiler.results.schema import CaseSpec, FormatsRecord, LoadSpec, ParallelRecord, SliceRecord
from profiler.workload.identity import case_id, workload_id
from profiler.workload.scenario import ScenarioPoint


@dataclass(frozen=True)
class Candidate:
    """A case before it is known whether it can run.

    Attributes:
        devices: all that it takes, where there are several.
        load: how a server of the engine's own is driven, or None for offline work.
        longest: tokens of the longest request of a load.
    """

    device: Device
    engine: Engine
    model: ResolvedModel
    formats: Formats
    point: ScenarioPoint
    options: Mapping[str, Any]
    depth: Depth | None = None
    parallel: Parallel = ONE_DEVICE
    devices: tuple[Device, ...] = ()
    load: LoadSpec | None = None
    longest: int | None = None

    @property
    def all_devices(self) -> tuple[Device, ...]:
        """All devices that the case takes."""
        return self.devices or (self.device,)

    @property
    def architecture(self) -> Architecture:
        """What runs: the model, or its slice."""
        whole = self.model.architecture
        return whole if self.depth is None else sliced(whole, self.depth)

    @property
    def slice(self) -> SliceRecord | None:
        """The slice as it goes into the record, or None for the whole model."""
        return None if self.depth is None else slice_record(self.depth, whole_depth(self.model.architecture))


def spec_of(candidate: Candidate, seed: int, challenge: str | None = None) -> CaseSpec:
    """Return the case's specification with its identities."""
    point, model, load = candidate.point, candidate.model, candidate.load
    parallel = None if candidate.parallel.is_one else ParallelRecord(**asdict(candidate.parallel))
    keys = tuple(device.key for device in candidate.devices)
    speculative = candidate.options.get("speculative")
    work = workload_id(
        candidate.architecture,
        prompt_tokens=point.prompt_tokens,
        output_tokens=point.output_tokens,
        batch=point.batch if load is None else None,
        arrivals=None if load is None else load.model_dump(mode="json") | {"shape": point.scenario.name},
        parallel=None if parallel is None else parallel.model_dump(),
        speculative=speculative,
    )
    formats = asdict(candidate.formats)
    identity = case_id(
        work,
        engine=candidate.engine.name,
        formats=candidate.formats,
        weights=model.weights,
        weights_digest=model.weights_digest,
        device_key=candidate.device.key,
        device_keys=keys,
        seed=seed,
        engine_options={**candidate.options, **engine_options(candidate.slice)},
        nonce=challenge,
    )
    return CaseSpec(
        case_id=identity,
        workload_id=work,
        device_key=candidate.device.key,
        engine=candidate.engine.name,
        model=model.name,
        weights=model.weights,
        weights_digest=model.weights_digest,
        formats=FormatsRecord(**formats),
        scenario=point.scenario.name,
        variant=point.variant,
        prompt_tokens=point.prompt_tokens,
        output_tokens=point.output_tokens,
        batch=point.batch,
        seed=seed,
        slice=candidate.slice,
        load=load,
        parallel=parallel,
        device_keys=keys,
        speculative=speculative,
    )


def engine_options(cut: SliceRecord | None) -> dict[str, Any]:
    """Return what the worker must be told to run a slice; nothing for a whole model."""
    return {} if cut is None else {"layers": [cut.dense, cut.moe]}
