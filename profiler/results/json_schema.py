"""The record format as JSON Schema, for readers in other languages.

``python -m profiler.results.json_schema docs/schema`` writes the files; a test holds them against
the code. They describe files as aiprof writes them, so fields with a default are required too.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Final

from pydantic import BaseModel

from profiler.results.schema import CaseRecord, RunRecord

FILES: Final[dict[str, type[BaseModel]]] = {
    "run.schema.json": RunRecord,
    "case.schema.json": CaseRecord,
}
DIALECT: Final = "https://json-schema.org/draft/2020-12/schema"


def schema_text(model: type[BaseModel]) -> str:
    """Return the JSON Schema of one record as the content of its file."""
    schema = {"$schema": DIALECT, **model.model_json_schema(mode="serialization")}
    return json.dumps(schema, indent=2, ensure_ascii=False) + "\n"


def write_schemas(folder: Path) -> None:
    """Write every schema into ``folder``, which is made if it is not there."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, model in FILES.items():
        (folder / name).write_text(schema_text(model), encoding="utf-8")


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit("usage: python -m profiler.results.json_schema FOLDER")
    write_schemas(Path(sys.argv[1]))
