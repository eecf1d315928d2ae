"""What torch raises if a device fails or is out of memory, explained in one line."""

import sys

from moonshine.errors import MachineError

OUT_OF_MEMORY = ("out of memory", "can't allocate memory", "Cannot allocate memory", "ALLOC_FAILED")
"""In messages of CUDA, of torch for a CPU, and of cuDNN and cuBLAS."""
OF_A_GPU = (
    "CUDA error",
    "CUDA driver error",
    "CUDA GPUs are available",
    "cudaGetDeviceCount",
    "cuDNN error",
    "cuDNN Frontend error",
    "CUBLAS_STATUS",
    "NVRTC error",
    "unable to find an engine",
)
UNSUPPORTED = "no kernel image is available"


def explain_device_error(error: RuntimeError) -> MachineError | None:
    """The error (exit code 5) that says so if it is the device's; None for any other."""
    torch = sys.modules.get("torch")
    if torch is None:  # then the error is not torch's
        return None
    message = str(error)
    if isinstance(error, torch.OutOfMemoryError):  # of a GPU alone
        return MachineError(
            "out of GPU memory; lower machine.trainings_per_gpu if it is set, else recipe.batch_size, or run where "
            "there is more"
        )
    if any(words in message for words in OUT_OF_MEMORY):
        return MachineError("out of memory; lower recipe.batch_size, or run where there is more")
    if UNSUPPORTED in message:
        return MachineError(
            f"this torch ({torch.__version__}) does not support this GPU; choose another with "
            "CUDA_VISIBLE_DEVICES, or set machine.device: cpu"
        )
    if isinstance(error, torch.AcceleratorError) or any(words in message for words in OF_A_GPU):
        return MachineError(
            f"the GPU failed ({_telling_line(message)}); run the same command again: a training resumes from its last "
            "checkpoint; if it fails again, look for the cause with `nvidia-smi` and `dmesg`"
        )
    return None


def _telling_line(message: str) -> str:
    """The line that names the GPU's error, which the compiler puts below one of its own; else the first."""
    lines = message.strip().splitlines() or [""]
    return next((line.strip() for line in lines if any(words in line for words in OF_A_GPU)), lines[0])
