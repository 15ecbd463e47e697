"""Models of the Hugging Face hub: the local cache, read without its library, and the download.

The layout of the cache is documented at
https://huggingface.co/docs/huggingface_hub/guides/manage-cache.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from importlib import import_module
from pathlib import Path

from profiler.errors import UsageError

_REPO = re.compile(r"[A-Za-z0-9][\w.-]{0,95}/[A-Za-z0-9][\w.-]{0,95}\Z", re.ASCII)
_COMMIT = re.compile(r"[0-9a-f]{40}\Z")


def is_repo_id(text: str) -> bool:
    """Whether ``text`` has the form ``ORG/NAME``."""
    return bool(_REPO.match(text)) and ".." not in text


def cache_folder(environ: Mapping[str, str] = os.environ) -> Path:
    """Where the cache is: ``HF_HUB_CACHE``, ``HF_HOME/hub``, or below ``XDG_CACHE_HOME`` or ``~/.cache``."""
    direct = environ.get("HF_HUB_CACHE") or environ.get("HUGGINGFACE_HUB_CACHE")
    if direct:
        return Path(direct).expanduser()
    home = environ.get("HF_HOME")
    if home:
        return Path(home).expanduser() / "hub"
    caches = environ.get("XDG_CACHE_HOME") or "~/.cache"
    return Path(caches).expanduser() / "huggingface" / "hub"


def cached_snapshot(repo: str) -> Path | None:
    """Return the folder of the cached ``main`` revision of ``ORG/NAME``, or None when there is none."""
    folder = cache_folder() / f"models--{repo.replace('/', '--')}"
    try:
        commit = (folder / "refs" / "main").read_text(encoding="ascii").strip()
    except (OSError, UnicodeDecodeError):
        return None
    snapshot = folder / "snapshots" / commit
    return snapshot if _COMMIT.match(commit) and (snapshot / "config.json").is_file() else None


def download(repo: str) -> Path:
    """Download configuration and weights of ``ORG/NAME`` into the cache and return the folder.

    Raises:
        UsageError: ``huggingface_hub`` is not installed, or the download fails.
    """
    try:
        hub = import_module("huggingface_hub")
    except ImportError:
        raise UsageError(
            f"cannot download '{repo}': huggingface_hub is not installed; run "
            f"'pip install huggingface_hub', or give a folder with the model"
        ) from None
    try:
        folder = hub.snapshot_download(repo, allow_patterns=["config.json", "*.safetensors", "*.index.json"])
    except Exception as error:  # its errors have no common base, and requests' and the system's come on top
        why = str(error).strip().partition("\n")[0]
        raise UsageError(f"cannot download '{repo}' from the Hugging Face hub: {why}") from error
    return Path(folder)
