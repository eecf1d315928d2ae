"""Started by Python in every process of a test: stages note what they do in $PHASES_FOLDER/<process id>.

With $PAUSE each stops itself when it first enters that phase.
"""

import os
import sys
from pathlib import Path

if "moonshine" in sys.orig_argv and {"train", "distil", "evaluate", "report"} & set(sys.orig_argv):
    from faults import phases

    phases.record(Path(os.environ["PHASES_FOLDER"], str(os.getpid())), os.environ.get("PAUSE"))
