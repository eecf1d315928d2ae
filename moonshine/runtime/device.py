"""The device that a stage computes on."""

import functools
import os

import torch

from moonshine.errors import MachineError
from moonshine.runtime import distributed, nvidia
from moonshine.runtime.gpu_claims import claim_free_gpus, claim_gpu, share_gpu

CLAIMED = "MOONSHINE_GPUS_CLAIMED"
"""The slots that a parent has claimed on the GPUs that its processes see, one for each, separated by commas."""
IN_REACH = "MOONSHINE_GPUS_IN_REACH"
"""How many GPUs the parent saw itself."""
NO_GPUS = ("", "-1", "NoDevFiles")
"""Values of CUDA_VISIBLE_DEVICES that hide all GPUs: the user's, and what SLURM has set for jobs without any."""


def choose_device(wanted: str, trainings_per_gpu: int) -> torch.device:
    """The device that `machine.device` asks for, shared with as many jobs as `machine.trainings_per_gpu` allows.

    `auto` takes a GPU if there is one; `cuda` requires one. MachineError (exit code 5) if `missing_gpu` has an answer,
    never a silent CPU fallback.
    """
    if wanted == "cpu":
        return torch.device("cpu")
    if torch.cuda.is_available():
        return torch.device("cuda", _claimed_gpu(trainings_per_gpu))
    if problem := missing_gpu(wanted):
        raise MachineError(problem)
    return torch.device("cpu")


def missing_gpu(wanted: str) -> str | None:
    """Which GPU was asked for or is there but cannot be used, why, and what to do; None if nothing is wrong.

    `wanted` is `machine.device`. With `auto` too, the driver of a GPU or a CUDA_VISIBLE_DEVICES that names some means
    that one is expected, for example in a container started without it.
    """
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if wanted == "cpu" or torch.cuda.is_available():
        return None
    if wanted == "cuda":
        expected, otherwise = "machine.device: cuda", "set it to cpu"
    elif visible in NO_GPUS:
        return None
    elif visible is not None:
        expected, otherwise = f"CUDA_VISIBLE_DEVICES is {visible}", "set it empty"
    elif nvidia.CONTROL.exists():
        expected, otherwise = f"machine.device: {wanted} and {nvidia.CONTROL} exists", "set machine.device: cpu"
    else:
        return None
    cause, remedy = why_no_gpu()
    return f"{expected}, but {cause}; {remedy}, or {otherwise}"


def why_no_gpu() -> tuple[str, str]:
    """The reason that torch finds none, and what to do."""
    cuda, driver = torch.version.cuda, nvidia.driver_version()
    if cuda is None:
        return "this torch was built without CUDA", "install one with CUDA"
    needed = nvidia.OLDEST_DRIVER.get(cuda.split(".")[0])
    if driver and needed and int(driver.split(".")[0]) < needed:
        return f"the driver is {driver} and CUDA {cuda} of this torch needs {needed} or newer", "update the driver"
    if (visible := os.environ.get("CUDA_VISIBLE_DEVICES")) is not None and nvidia.CONTROL.exists():
        return f'torch finds no GPU with CUDA_VISIBLE_DEVICES="{visible}"', "unset it, or name a GPU that is there"
    if not nvidia.CONTROL.exists():
        return "torch finds no GPU", "run where one is (a container needs --nv or --gpus)"
    return (
        f"torch finds no GPU (driver {driver or 'unknown'}, CUDA {cuda})",
        "see why with `python -c 'import torch; torch.cuda.init()'` (a container needs --nv or --gpus)",
    )


def claim_gpus(wanted: str, count: int, trainings_per_gpu: int) -> None:
    """Claim a different GPU for each of the `count` processes that this one starts, and let them see only those.

    Nothing is claimed if they compute on the CPU; if there is no GPU, they report that themselves.
    """
    if wanted == "cpu" or not torch.cuda.is_available():
        return
    uuids = _visible_gpus()
    # CUDA numbers devices in the order of the variable; if it is unset, by indices that are the same in every process
    given = os.environ.get("CUDA_VISIBLE_DEVICES")
    names = [str(index) for index in range(len(uuids))] if given is None else given.split(",")
    claims = claim_free_gpus(uuids, count, trainings_per_gpu)
    os.environ["CUDA_VISIBLE_DEVICES"] = ",".join(names[claim.device].strip() for claim in claims)
    os.environ[CLAIMED] = ",".join(claim.slot for claim in claims)
    os.environ[IN_REACH] = str(len(uuids))


def slots_in_reach() -> int:
    """How many trainings the GPUs that this job sees could take, whether or not other jobs have claimed some."""
    return _jobs_per_gpu * (int(os.environ.get(IN_REACH, 0)) or torch.cuda.device_count())


_jobs_per_gpu = 1


@functools.cache
def _claimed_gpu(trainings_per_gpu: int) -> int:
    global _jobs_per_gpu
    _jobs_per_gpu = trainings_per_gpu
    uuids = _visible_gpus()
    if distributed.LOCAL_RANK is None:
        ((index, _),) = claim_free_gpus(uuids, 1, trainings_per_gpu)
    else:
        index = distributed.LOCAL_RANK
        if claimed := os.environ.get(CLAIMED):
            share_gpu(uuids[index], claimed.split(",")[index])
        else:
            claim_gpu(uuids, index, trainings_per_gpu)
    torch.cuda.set_device(index)
    return index


def _visible_gpus() -> list[str]:
    """The UUIDs of the devices that this process sees, in CUDA's order, which is not NVML's.

    This creates no CUDA context, so a process that only asks takes no device memory.
    """
    return [str(torch.cuda.get_device_properties(index).uuid) for index in range(torch.cuda.device_count())]
