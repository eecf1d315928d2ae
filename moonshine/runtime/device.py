"""The device that a stage computes on."""

import functools
import os

import torch

from moonshine.errors import MachineError
from moonshine.runtime import distributed
from moonshine.runtime.gpu_claims import claim_free_gpus, claim_gpu, share_gpu

CLAIMED = "MOONSHINE_GPUS_CLAIMED"
"""Set in the processes of a training run whose parent has claimed the GPUs that they see, to how many it saw itself."""


def choose_device(wanted: str) -> torch.device:
    """The device that `machine.device` asks for.

    `auto` takes a GPU if there is one; `cuda` requires one: MachineError (exit code 5), never a silent CPU fallback.

    `auto` fails too if a cluster or the user granted a GPU that this process cannot see, for example in a container
    started without its driver.
    """
    if wanted == "cpu":
        return torch.device("cpu")
    if torch.cuda.is_available():
        return torch.device("cuda", _claimed_gpu())
    cause = "this torch was built without CUDA" if torch.version.cuda is None else "torch finds no GPU"
    if wanted == "cuda":
        raise MachineError(f"machine.device: cuda, but {cause}; set it to auto or cpu, or run where a GPU is")
    if granted := _granted_gpus():
        raise MachineError(f"{granted}, but {cause}; in a container, start it with --nv or --gpus, or set it empty")
    return torch.device("cpu")


def _granted_gpus() -> str | None:
    devices = os.environ.get("CUDA_VISIBLE_DEVICES", "")
    return f"CUDA_VISIBLE_DEVICES is {devices}" if devices not in ("", "-1", "NoDevFiles") else None


def claim_gpus(wanted: str, count: int) -> None:
    """Claim one GPU for each of the `count` processes that this one starts, and let them see only those.

    Nothing is claimed if they compute on the CPU; if there is no GPU, they report that themselves.
    """
    if wanted == "cpu" or not torch.cuda.is_available():
        return
    uuids = _visible_gpus()
    # CUDA numbers devices in the order of the variable; if it is unset, by indices that are the same in every process
    given = os.environ.get("CUDA_VISIBLE_DEVICES")
    names = [str(index) for index in range(len(uuids))] if given is None else given.split(",")
    indices = claim_free_gpus(uuids, count)
    os.environ["CUDA_VISIBLE_DEVICES"] = ",".join(names[index].strip() for index in indices)
    os.environ[CLAIMED] = str(len(uuids))


def gpus_in_reach() -> int:
    """Number of GPUs that this job sees, also the ones that other jobs have claimed."""
    return int(os.environ.get(CLAIMED, 0)) or torch.cuda.device_count()


@functools.cache
def _claimed_gpu() -> int:
    uuids = _visible_gpus()
    if distributed.LOCAL_RANK is None:
        (index,) = claim_free_gpus(uuids, 1)
    else:
        index = distributed.LOCAL_RANK
        if CLAIMED in os.environ:
            share_gpu(uuids[index])
        else:
            claim_gpu(uuids, index)
    torch.cuda.set_device(index)
    return index


def _visible_gpus() -> list[str]:
    """The UUIDs of the devices that this process sees, in CUDA's order, which is not NVML's.

    This creates no CUDA context, so a process that only asks takes no device memory.
    """
    return [str(torch.cuda.get_device_properties(index).uuid) for index in range(torch.cuda.device_count())]
