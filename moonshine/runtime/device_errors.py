"""What torch raises if a device fails or is out of memory, explained in one line."""

import sys

from moonshine.errors import MachineError

OUT_OF_MEMORY = ("out of memory", "can't allocate memory", "ALLOC_FAILED")
"""In messages of CUDA, of torch for a CPU, and of cuDNN and cuBLAS."""
OF_A_GPU = ("CUDA error", "cuDNN error", "CUBLAS_STATUS", "NVRTC error", "unable to find an engine")


def explain_device_error(error: RuntimeError) -> MachineError | None:
    """The error (exit code 5) that says so if it is the device's; None for any other."""
    torch = sys.modules.get("torch")
    if torch is None:  # then the error is not torch's
        return None
    message = str(error)
    if isinstance(error, torch.OutOfMemoryError) or any(words in message for words in OUT_OF_MEMORY):
        return MachineError("out of memory; lower recipe.batch_size, or run where there is more")
    if isinstance(error, torch.AcceleratorError) or any(words in message for words in OF_A_GPU):
        return MachineError(
            f"the GPU failed ({message.strip().partition(chr(10))[0]}); the same command resumes from the last "
            "checkpoint; if it fails again, look for the cause with `nvidia-smi` and `dmesg`"
        )
    return None
