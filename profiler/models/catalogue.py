"""Models by name: the catalogue in ``entries/``, and what ``--model`` can stand for."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from profiler.errors import InputFileError, UsageError, unknown
from profiler.models.architecture import Architecture
from profiler.models.config import architecture_from_config, read_config
from profiler.models.formats import Formats
from profiler.models.gguf_file import is_gguf
from profiler.models.gguf_model import model_name, read_gguf_model
from profiler.models.hub import cached_snapshot, download, is_repo_id
from profiler.models.weights import weight_files, weights_digest
from profiler.yamlio import FileModel, load_yaml

ENTRIES = Path(__file__).resolve().parent / "entries"


@dataclass(frozen=True)
class CatalogueEntry:
    """A published model.

    Attributes:
        name: as given to ``--model``, in lower case.
        hub_id: ``ORG/NAME`` on the Hugging Face hub whose ``config.json`` the entry follows.
        same_shapes: other repositories whose tensors have the same names and shapes.
        licence: of the weights.
        architecture: from the published ``config.json``.
        published_parameters: exact count, routing biases included.
        parameters_source: where the count was published.
        notes: what a user should know.
    """

    name: str
    hub_id: str
    same_shapes: tuple[str, ...]
    licence: str
    architecture: Architecture
    published_parameters: int
    parameters_source: str
    notes: str


@dataclass(frozen=True)
class ResolvedModel:
    """What a ``--model`` selector stands for. Holds no path except ``folder`` and ``file``.

    Attributes:
        name: catalogue name, ``ORG/NAME`` or name of the folder.
        architecture: of the model.
        weights: ``folder`` or ``file`` for real weights on disk (safetensors, GGUF), ``random`` otherwise.
        folder: where the weights are, or None.
        source: where the architecture comes from, in words.
        weights_digest: see :func:`profiler.models.weights.weights_digest`; None for random weights.
        file: the GGUF file of the weights, the first where there are several, or None.
        formats: of the weights, where the file itself decides them, or None.
        details: what else a record should say of the file.
    """

    name: str
    architecture: Architecture
    weights: Literal["random", "folder", "file"]
    folder: Path | None
    source: str
    weights_digest: str | None
    file: Path | None = None
    formats: Formats | None = None
    details: Mapping[str, Any] = field(default_factory=dict)

    @property
    def real_weights(self) -> dict[str, Any] | None:
        """``weights`` of a ``load`` request for the real weights, or None where they are random."""
        path = self.file or self.folder
        return None if path is None else {"kind": self.weights, "path": str(path)}


class _Parameters(FileModel):
    count: int = Field(gt=0)
    source: str


class _Model(FileModel):
    name: str = Field(pattern=r"^[a-z0-9][a-z0-9.-]*$")
    hub_id: str
    same_shapes: tuple[str, ...] = ()
    licence: str
    parameters: _Parameters
    config: dict[str, Any]
    notes: str = ""


class _Family(FileModel):
    """One file: ``config`` holds the fields that all its models share."""

    config: dict[str, Any]
    models: tuple[_Model, ...]


def catalogue() -> dict[str, CatalogueEntry]:
    """Return all entries by name, in the order of the files.

    Raises:
        InputFileError: a file of the catalogue has faults.
    """
    return dict(_catalogue())


@cache
def _catalogue() -> dict[str, CatalogueEntry]:
    return load_entries(ENTRIES)


def load_entries(folder: Path) -> dict[str, CatalogueEntry]:
    """Read all ``*.yaml`` files of ``folder``.

    Raises:
        InputFileError: with the faults of all files.
    """
    entries: dict[str, CatalogueEntry] = {}
    faults: list[str] = []
    for path in sorted(folder.glob("*.yaml")):
        try:
            family = load_yaml(path, _Family)
        except InputFileError as error:
            faults += error.faults
            continue
        for model in family.models:
            if model.name in entries:
                faults.append(f"{path}: models: '{model.name}' is there twice")
            try:
                entries[model.name] = _entry(model, family.config, path)
            except InputFileError as error:
                faults += error.faults
    if faults:
        raise InputFileError(faults)
    return entries


def _entry(model: _Model, shared: dict[str, Any], path: Path) -> CatalogueEntry:
    return CatalogueEntry(
        name=model.name,
        hub_id=model.hub_id,
        same_shapes=model.same_shapes,
        licence=model.licence,
        architecture=architecture_from_config(shared | model.config, f"{path}: {model.name}: config"),
        published_parameters=model.parameters.count,
        parameters_source=model.parameters.source,
        notes=model.notes,
    )


def resolve_model(selector: str, allow_download: bool = False) -> ResolvedModel:
    """Find the model that a selector stands for.

    In this order: a name of the catalogue, in any case (random weights); a GGUF file; a folder with a
    ``config.json`` (its safetensors files are the weights, without any they are random); ``ORG/NAME``
    from the local Hugging Face cache, then by download if allowed, then as the hub id of a catalogue
    entry (random weights).

    Args:
        selector: what the user gave to ``--model``.
        allow_download: whether ``ORG/NAME`` may be fetched from the hub.

    Raises:
        UsageError: nothing of that name; the line says the nearest name and what to do.
        InputFileError: there is such a model, but its files have faults.
    """
    entries = catalogue()
    entry = entries.get(selector.lower())
    if entry is not None:
        return _from_catalogue(entry)
    folder = Path(selector).expanduser()
    if not folder.is_dir() and is_gguf(folder):
        return _from_gguf(folder)
    if folder.is_dir():
        return _from_folder(folder, folder.resolve().name, f"folder {folder.resolve().name}")
    if is_repo_id(selector):
        return _from_hub(selector, entries, allow_download)
    if selector.startswith(("/", "./", "../", "~")) or folder.exists():
        raise UsageError(
            f"model '{selector}': no such folder; give the folder that holds config.json, or a GGUF file"
        )
    raise UsageError(unknown("model", selector, entries) + "; a folder, a GGUF file or ORG/NAME will do, too")


def _from_catalogue(entry: CatalogueEntry) -> ResolvedModel:
    source = f"catalogue, after {entry.hub_id}"
    return ResolvedModel(entry.name, entry.architecture, "random", None, source, None)


def _from_folder(folder: Path, name: str, source: str) -> ResolvedModel:
    if not (folder / "config.json").exists():
        found = sorted(path.name for path in folder.glob("*.gguf"))
        remedy = f"; give the file: {folder / found[0]}" if found else ""
        raise UsageError(f"model '{folder}': no config.json in this folder{remedy}")
    architecture = read_config(folder / "config.json")
    files = weight_files(folder)
    if not files:
        return ResolvedModel(name, architecture, "random", None, source, None)
    return ResolvedModel(name, architecture, "folder", folder, source, weights_digest(files))


def _from_gguf(path: Path) -> ResolvedModel:
    found = read_gguf_model(path)
    return ResolvedModel(
        name=model_name(path),
        architecture=found.architecture,
        weights="file",
        folder=None,
        source=f"GGUF file {path.name}",
        weights_digest=found.digest,
        file=found.path.resolve(),
        formats=found.formats,
        details=found.details,
    )


def _from_hub(selector: str, entries: dict[str, CatalogueEntry], allow_download: bool) -> ResolvedModel:
    by_hub_id = {
        hub_id.lower(): (hub_id, entry)
        for entry in entries.values()
        for hub_id in (*entry.same_shapes, entry.hub_id)
    }
    repo, entry = by_hub_id.get(selector.lower(), (selector, None))
    snapshot = cached_snapshot(repo)
    if snapshot is None and allow_download:
        snapshot = download(repo)
    if snapshot is not None:
        return _from_folder(snapshot, repo, f"Hugging Face hub, {repo} at {snapshot.name}")
    if entry is not None:
        return _from_catalogue(entry)
    raise UsageError(
        f"model '{selector}' is neither in the local Hugging Face cache nor in the catalogue; "
        f"give a folder, or let a sweep fetch it with --allow-download"
    )
