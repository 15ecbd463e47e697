"""What came of verifying a run, for people and for programs."""

from __future__ import annotations

from typing import Any, Final

from rich.console import Console
from rich.text import Text

from profiler.analysis.verify import Verification
from profiler.results.read import printable

_WORDS: Final = {
    "verified": ("VERIFIED", "bold green"),
    "incomplete": ("INCOMPLETE", "bold yellow"),
    "failed": ("DOES NOT VERIFY", "bold red"),
}
_MOST_SHOWN: Final = 30
SIGNED_MEANS: Final = "proves who vouches for the files, not that the figures are true"
CHALLENGE_MEANS: Final = "the record was written after it was known; when it was measured it cannot say"


def verification_document(found: Verification) -> dict[str, Any]:
    """Return the verification as plain values for JSON."""
    signed = found.signed
    return {
        "run": str(found.path),
        "state": found.state,
        "findings": [
            {"file": item.file, "place": item.place, "figures": list(item.figures), "what": item.what}
            for item in found.findings
        ],
        "figures_recomputed": found.figures,
        "not_recomputed": dict(found.left_out),
        "notes": list(found.notes),
        "root": found.root,
        "signature": None
        if signed is None
        else {"fingerprint": signed.fingerprint, "checked": signed.checked, "trusted": signed.trusted},
        "challenge": found.challenge,
        "aiprof_version": found.made_by,
        "simulated": found.simulated,
    }


def print_verification(found: Verification, console: Console) -> None:
    """Print the verdict first, then what it rests on."""
    word, style = _WORDS[found.state]
    console.print(Text(f"{word}: ", style=style) + Text(printable(str(found.path))))
    for item in found.findings[:_MOST_SHOWN]:
        console.print(Text(f"  {printable(str(item))}"))
    if len(found.findings) > _MOST_SHOWN:
        console.print(Text(f"  and {len(found.findings) - _MOST_SHOWN} more (--json shows them)"))
    for line in _facts(found):
        console.print(Text(f"  {printable(line)}"))


def _facts(found: Verification) -> list[str]:
    lines = [printable(note) for note in found.notes]
    lines.append(f"{found.figures} figures made again from the raw samples")
    lines += [f"not made again: {printable(name)}: {why}" for name, why in found.left_out.items()]
    if found.root is not None:
        lines.append(f"root of the checksums: {found.root}")
    if found.signed is None:
        lines.append("not signed: nobody vouches for the files")
    else:
        trusted = {True: "the trusted key", False: "NOT the trusted key", None: "a key nobody asked for"}
        how = "signed" if found.signed.checked else "signature not checked (pip install 'aiprof[sign]')"
        lines.append(f"{how}: {found.signed.fingerprint}, {trusted[found.signed.trusted]}; {SIGNED_MEANS}")
    if found.challenge is None:
        lines.append("no challenge: the record may be of any age")
    else:
        lines.append(f"challenge {printable(found.challenge)}: {CHALLENGE_MEANS}")
    if found.simulated:
        lines.append("SIMULATED: no hardware stands behind the figures")
    return lines
