"""Started by Python in every process of a test: stages note what they do in $PHASES_FOLDER/<process id>.

With $PAUSE each stops itself when it first enters that phase. With $PAUSE_AFTER, numbers with commas between them, one
of them stops itself after the checkpoint of each number.
"""

import os
import sys
from pathlib import Path

if "moonshine" in sys.orig_argv and {"train", "distil", "search", "evaluate", "report"} & set(sys.orig_argv):
    from tests.faults import phases

    folder = Path(os.environ["PHASES_FOLDER"])
    phases.record_phases(folder / str(os.getpid()), os.environ.get("PAUSE"))
    for number in filter(None, os.environ.get("PAUSE_AFTER", "").split(",")):
        phases.stop_after_checkpoint(int(number), folder / f"paused-after-{number}")
