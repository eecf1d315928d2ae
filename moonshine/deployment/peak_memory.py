"""Most memory that onnxruntime takes for a network, measured in a process that does nothing else.

Run as `python -m moonshine.deployment.peak_memory NETWORK.onnx THREADS < IMAGES.npy`; prints bytes, or nothing if the
system does not tell.
"""

import io
import sys
from pathlib import Path

import numpy as np

from moonshine.deployment.backends import onnxruntime_run


def _peak() -> int | None:
    """This process's largest resident set so far, in bytes; getrusage's also counts that of the process before exec."""
    try:
        lines = Path("/proc/self/status").read_text().splitlines()
    except OSError:
        return None
    return next((1024 * int(line.split()[1]) for line in lines if line.startswith("VmHWM:")), None)


def _main(path: Path, threads: int) -> None:
    import onnxruntime  # noqa: F401 (so that the library itself does not count)

    images = np.lib.format.read_array(io.BytesIO(sys.stdin.buffer.read()), allow_pickle=False)
    exported = path.read_bytes()
    before = _peak()
    run = onnxruntime_run(exported, images, threads)
    for _ in range(3):
        run()
    after = _peak()
    if before is not None and after is not None:
        print(after - before)


if __name__ == "__main__":
    _main(Path(sys.argv[1]), int(sys.argv[2]))
