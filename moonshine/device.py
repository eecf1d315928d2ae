"""The device that a stage computes on."""

import torch

from moonshine.errors import MachineError
from moonshine.params.schema import Machine


def choose_device(machine: Machine) -> torch.device:
    """`auto` takes the GPU if there is one; `cuda` without one is MachineError (exit code 5), never a silent CPU."""
    available = torch.cuda.is_available()
    if machine.device == "cuda" and not available:
        cause = "this torch was built without CUDA" if torch.version.cuda is None else "torch finds no GPU"
        raise MachineError(f"machine.device: cuda, but {cause}; set it to auto or cpu, or run where a GPU is")
    return torch.device("cuda" if available and machine.device != "cpu" else "cpu")


def set_up(threads: int) -> None:
    """Make the arithmetic repeatable: a fixed number of CPU threads, deterministic kernels on the GPU."""
    torch.set_num_threads(threads)
    torch.backends.cudnn.deterministic = True
    torch.backends.cudnn.benchmark = False
