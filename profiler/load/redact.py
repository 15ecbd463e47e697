"""Keeping the API key and private words out of everything that is shown or recorded."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping

from profiler.errors import UsageError
from profiler.privacy import scrub

KEY_VARIABLE = "AIPROF_API_KEY"
MAX_MESSAGE = 300

# Servers quote (a part of) the key they refuse; hosts and addresses say whose server it is.
_SECRETS = (
    (re.compile(r"(?i)\b(bearer|basic)\s+\S+"), r"\1 <key>"),
    (re.compile(r"\b(?:sk|pk|hf|gsk|nvapi|key)[-_][A-Za-z0-9_*.\-]{4,}"), "<key>"),
    (re.compile(r"https?://[^\s\"'<>]+"), "<url>"),
)


def api_key(variable: str = KEY_VARIABLE, environment: Mapping[str, str] | None = None) -> str | None:
    """Return the key in an environment variable, or None when it is not set.

    Only the variable that is named is read: a key for one service must not be sent to another.

    Raises:
        UsageError: it holds what no header can carry.
    """
    value = (os.environ if environment is None else environment).get(variable, "").strip()
    if not value:
        return None
    if not all("!" <= letter <= "~" for letter in value):
        raise UsageError(f"{variable}: holds characters that no HTTP header can carry")
    return value


def redact(text: str, key: str | None = None) -> str:
    """Return a server's message without keys, URLs, private words and control characters, clipped."""
    if key:
        text = text.replace(key, "<key>")
    for pattern, replacement in _SECRETS:
        text = pattern.sub(replacement, text)
    text = " ".join(scrub(text).split())
    return text if len(text) <= MAX_MESSAGE else text[: MAX_MESSAGE - 1] + "…"
