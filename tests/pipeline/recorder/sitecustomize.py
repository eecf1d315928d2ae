"""On PYTHONPATH, makes every Python process of a run note which modules it imported: ours, and torch's compiler."""

import atexit
import json
import os
import sys
from pathlib import Path


def _note() -> None:
    modules = sorted(
        name for name in sys.modules if name.split(".")[0] == "moonshine" or name == "torch._dynamo.convert_frame"
    )
    if modules and sys.argv[0].endswith("__main__.py"):
        text = json.dumps({"command": sys.argv[1:], "modules": modules})
        Path(os.environ["MODULES_FOLDER"], f"{os.getpid()}.json").write_text(text)


atexit.register(_note)
