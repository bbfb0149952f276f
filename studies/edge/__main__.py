"""Footprints in a process of their own, which imports TensorFlow: `python -m studies.edge ASKED ANSWER`, JSON files.

ASKED has `trials` (see `studies.edge.footprint.footprints`), `threads` and `folder`; ANSWER gets what is `found`, or
the `error` that the user can put right. What is being done is printed, a line each.
"""

import json
import os
import signal
import sys
from pathlib import Path

from studies.execute import compiled
from studies.execute.worker import environment
from studies.record import StudyError


def main(asked: str, answer: str) -> int:
    """Answer what a file asks, into another; gives the exit code, 2 for what the user can put right."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # who asked says that it was interrupted
    request = json.loads(Path(asked).read_text(encoding="utf-8"))
    threads = request["threads"]
    # As a worker has it, so that the numbers are those of the study.
    os.environ |= environment(threads, number=0)
    os.environ |= compiled.variables(compiled.prepared(threads))
    try:
        from studies.edge import footprint

        found = footprint.footprints(request["trials"], request["folder"], lambda line: print(line, flush=True))
    except StudyError as error:
        Path(answer).write_text(json.dumps({"error": str(error)}), encoding="utf-8")
        return 2
    Path(answer).write_text(json.dumps({"found": found}), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
