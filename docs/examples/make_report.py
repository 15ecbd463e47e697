"""Write ``report.html`` beside this file: the example page of the documentation.

    python docs/examples/make_report.py RUN...

Runs of the ``fake`` engine are labelled as simulated on the page; it needs one real run among them,
so that the example shows both.
"""

from __future__ import annotations

import sys
from pathlib import Path

from profiler.errors import InputFileError
from profiler.render.report import write_report
from profiler.results.find import read_runs

TITLE = "Example: one measured CPU beside simulated accelerators"


def main(arguments: list[str]) -> int:
    """Write the page from the runs named in ``arguments`` and return the exit code."""
    if not arguments:
        print(__doc__, file=sys.stderr)
        return 2
    try:
        runs, messages = read_runs(arguments)
    except InputFileError as error:
        print(error, file=sys.stderr)
        return 2
    for message in messages:
        print(message, file=sys.stderr)
    if all(run.record.simulated for run in runs):
        print("every run is simulated; add one that was measured", file=sys.stderr)
        return 2
    print(write_report(runs, Path(__file__).with_name("report.html"), title=TITLE))
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
