"""Who is compared in a report: each device of each run with each engine, always in the same colours."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final, Literal

from profiler.render.cells import label
from profiler.render.report_view import LegendEntry, shorten
from profiler.results.read import Run
from profiler.results.schema import CaseRecord, CaseSpec, DeviceRecord, Measurement

SHAPES = ("circle", "square", "triangle-up", "diamond", "cross", "triangle-down")
DASHES = ((), (7, 3), (2, 3), (8, 3, 2, 3), (12, 4), (4, 2))
COLOURS = 6
MAX_LABEL = 42
Over = Literal["batch", "users", "rate"]
_REAL = ("folder", "file")
_SERVED: Final[dict[Over, str]] = {"batch": "", "users": ", served", "rate": ", served in an open loop"}


@dataclass(frozen=True)
class Subject:
    """A device with an engine in one run.

    Attributes:
        index: position in the report; decides colour, shape and dash.
        label: short name, different from all others.
        run: the run it was measured in.
        device: as the run describes it, or None when it does not.
        device_key: key of the device in the cases.
        engine: name of the engine.
    """

    index: int
    label: str
    run: Run = field(repr=False, compare=False)
    device: DeviceRecord | None
    device_key: str
    engine: str

    @property
    def colour(self) -> str:
        """Name of its colour in the style sheet."""
        return f"s{self.index % COLOURS + 1}"

    @property
    def shape(self) -> str:
        """Name of its Vega symbol; shifted after a round of colours so that pairs stay different."""
        return SHAPES[(self.index + self.index // COLOURS) % len(SHAPES)]

    @property
    def dash(self) -> tuple[int, ...]:
        """Dash pattern of its lines."""
        return DASHES[(self.index + self.index // COLOURS) % len(DASHES)]

    @property
    def legend(self) -> LegendEntry:
        """Its entry in a legend."""
        return LegendEntry(self.label, self.shape, self.colour, " ".join(map(str, self.dash)))

    @property
    def simulated(self) -> bool:
        """Whether no hardware stands behind it."""
        return self.run.record.simulated or (self.device is not None and self.device.simulated)


@dataclass(frozen=True)
class Entry:
    """A finished or failed case of a subject."""

    subject: Subject
    case: CaseRecord

    @property
    def spec(self) -> CaseSpec:
        """What the case is."""
        return self.case.spec

    @property
    def level(self) -> float:
        """How much at once: the batch, the users of a closed loop, the requests per second of an open one."""
        load = self.spec.load
        return float(self.spec.batch) if load is None or load.rate_per_s is None else load.rate_per_s

    @property
    def level_text(self) -> str:
        """The level in a column that is called batch: ``8``, ``8 users``, ``2 req/s poisson``."""
        return f"{self.spec.batch:,}" if self.spec.load is None else self.spec.load_label

    @property
    def anchor(self) -> str:
        """Id of the case on the page; the same in every report that holds its run."""
        return f"case-{self.subject.run.record.run_id[:6]}-{self.spec.case_id[:10]}"

    @property
    def refuted(self) -> str | None:
        """Why the figures are not those of the model that is named, or None; see ``Fidelity.refuted``."""
        return None if self.case.fidelity is None else self.case.fidelity.refuted

    def measured(self, metric: str) -> Measurement | None:
        """Return a measurement that has a value, else None."""
        found = self.case.measurements.get(metric)
        return found if found is not None and found.value is not None else None

    def value(self, metric: str) -> float | None:
        """Return the value of a metric in its base unit, or None."""
        found = self.measured(metric)
        return None if found is None else found.value


@dataclass(frozen=True)
class Family:
    """Cases that differ in nothing but batch (or load) and subject: a line in a chart.

    Attributes:
        model: name of the model.
        workload: scenario and variant.
        formats: number formats, as ``bf16`` or ``fp8-block128 (bf16 compute, fp8 cache)``.
        lengths: prompt and output tokens of a request.
        entries: finished cases, by level.
        over: what their levels are.
    """

    model: str
    workload: str
    formats: str
    lengths: tuple[int, int]
    entries: tuple[Entry, ...]
    over: Over = "batch"

    @property
    def title(self) -> str:
        """One line that names it."""
        return f"{shorten(self.model, 40)} · {shorten(self.workload, 40)} · {shorten(self.formats, 40)}"

    @property
    def subjects(self) -> tuple[Subject, ...]:
        """Subjects that have a case here, in order."""
        found = {entry.subject.index: entry.subject for entry in self.entries}
        return tuple(found[index] for index in sorted(found))

    def of(self, subject: Subject) -> tuple[Entry, ...]:
        """Return the cases of one subject by level."""
        return tuple(entry for entry in self.entries if entry.subject.index == subject.index)


def collect(runs: Sequence[Run]) -> tuple[tuple[Subject, ...], tuple[Entry, ...]]:
    """Return the subjects of ``runs`` and all their finished and failed cases, in the order measured."""
    found: dict[tuple[int, str, str], None] = {}
    for number, run in enumerate(runs):
        specs = [case.spec for case in run.cases] + [planned.spec for planned in run.record.cases]
        for spec in specs:
            found[number, spec.device_key, spec.engine] = None
    bare = [_subject(0, "", runs[number], key, engine) for number, key, engine in found]
    labels = _labels(bare)
    subjects = {
        key: _subject(index, labels[index], runs[key[0]], key[1], key[2]) for index, key in enumerate(found)
    }
    entries = [
        Entry(subjects[number, case.spec.device_key, case.spec.engine], case)
        for number, run in enumerate(runs)
        for case in run.cases
    ]
    return tuple(subjects.values()), tuple(entries)


def families(entries: Sequence[Entry]) -> tuple[Family, ...]:
    """Group finished cases into families, in the order in which they first appear."""
    groups: dict[tuple[str, str, str, int, int, Over], list[Entry]] = {}
    for entry in entries:
        spec = entry.spec
        if entry.case.status == "ok":
            name = f"{spec.model_label} (real weights)" if spec.weights in _REAL else spec.model_label
            over: Over = "batch"
            if spec.load is not None:
                over = "users" if spec.load.loop == "closed" else "rate"
            workload = label(spec) + _SERVED[over]
            key = (name, workload, format_label(spec), spec.prompt_tokens, spec.output_tokens, over)
            groups.setdefault(key, []).append(entry)
    return tuple(
        Family(
            model,
            workload,
            formats,
            (prompt, output),
            tuple(sorted(group, key=lambda entry: (entry.level, entry.subject.index))),
            over,
        )
        for (model, workload, formats, prompt, output, over), group in groups.items()
    )


def format_label(spec: CaseSpec) -> str:
    """Return the number formats of a case, the weight format alone when all are the same."""
    formats = spec.formats
    if formats.weight_format == formats.compute_dtype == formats.kv_dtype:
        return formats.weight_format
    return f"{formats.weight_format} ({formats.compute_dtype} compute, {formats.kv_dtype} cache)"


def _subject(index: int, text: str, run: Run, device_key: str, engine: str) -> Subject:
    device = next((device for device in run.record.devices if device.key == device_key), None)
    return Subject(index, text, run, device, device_key, engine)


def _labels(subjects: Sequence[Subject]) -> list[str]:
    """Return short labels that differ: the device's name, with the engine and the run where needed."""
    devices = [subject.device.name if subject.device else subject.device_key for subject in subjects]
    texts = list(devices)
    engines = [subject.engine for subject in subjects]
    folders = [subject.run.path.resolve().name for subject in subjects]
    keys = [subject.device_key for subject in subjects]
    for extra in (engines, folders, keys):
        repeated = {text for text, count in Counter(texts).items() if count > 1}
        # Something that all of them share tells nobody apart.
        for text in repeated:
            same = [index for index, other in enumerate(texts) if other == text]
            if len({extra[index] for index in same}) > 1:
                for index in same:
                    texts[index] = f"{texts[index]} ({extra[index]})"
    texts = [shorten(text, MAX_LABEL) for text in texts]
    repeated = {text for text, count in Counter(texts).items() if count > 1}
    return [f"{text} #{index + 1}" if text in repeated else text for index, text in enumerate(texts)]
