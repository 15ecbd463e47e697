"""Results in the formats of other tools: CSV, Parquet, JSON."""

from __future__ import annotations

import contextlib
import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Final, Literal, TypeAlias

from profiler.errors import UsageError

if TYPE_CHECKING:
    import pandas

Format: TypeAlias = Literal["csv", "parquet", "json"]

# OWASP, "CSV Injection": a cell that begins like this may be run as a formula, full-width forms included.
_FORMULA_STARTS: Final = tuple("=+-@＝＋－＠")


def encode(frame: pandas.DataFrame, format_: Format) -> bytes:
    """Return a frame of :func:`profiler.load_runs` as the content of a file.

    - ``csv``: UTF-8 with a header; nothing for a missing cell; floats with all their digits; text
      that a spreadsheet would run as a formula gets an apostrophe in front, and carriage returns
      become line feeds.
    - ``json``: an array with one object per row, ``null`` for a missing cell.
    - ``parquet``: the frame with its dtypes.
    """
    if format_ == "parquet":
        return frame.to_parquet(path=None, index=False)
    text = frame.copy()
    text["created_utc"] = text["created_utc"].map(lambda moment: moment.isoformat()).astype("string")
    if format_ == "csv":
        for column in [name for name, dtype in text.dtypes.items() if dtype == "string"]:
            text[column] = text[column].map(_harmless, na_action="ignore")
        return text.to_csv(index=False, lineterminator="\n").encode()
    rows = text.astype(object).where(text.notna(), None).to_dict("records")
    lines = (json.dumps(row, allow_nan=False, ensure_ascii=False) for row in rows)
    return ("[" + ",\n ".join(lines) + "]\n").encode()


def _harmless(text: str) -> str:
    # A bare carriage return would not be quoted, and readers would see a new row.
    text = text.replace("\r\n", "\n").replace("\r", "\n")
    # Some spreadsheets strip white space first.
    is_formula = text.lstrip().startswith(_FORMULA_STARTS) or text.startswith(("\t", "\n"))
    return f"'{text}" if is_formula else text


def write_whole(path: Path, data: bytes) -> None:
    """Write a file so that it is there in full or as it was before.

    Raises:
        UsageError: it cannot be written.
    """
    target = path.resolve()
    temporary = target.with_name(f".{target.name}.{os.getpid()}.tmp")
    try:
        if path.exists() and not path.is_file() and not path.is_dir():
            path.write_bytes(data)  # a pipe or /dev/stdout: nothing to replace
            return
        with temporary.open("xb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(target)
    except OSError as error:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)
        raise UsageError(f"{path}: cannot be written: {error.strerror}; choose another --out") from error
