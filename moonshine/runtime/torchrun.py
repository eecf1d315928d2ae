"""Start the processes of one training on this machine, as `torchrun --nproc-per-node` does.

Under torchrun itself, which several machines need, nothing is started here.
"""

import logging
import signal
import sys
import uuid
from collections.abc import Iterable

from moonshine.errors import MachineError
from moonshine.runtime import signals
from moonshine.runtime.device import claim_gpus
from moonshine.runtime.progress import say
from moonshine.runtime.signals import STOP_SIGNALS

SECONDS_TO_SAVE = 110
"""Between a stop signal and SIGKILL; SLURM's profile asks for 120 s."""


def run_processes(count: int, device: str, trainings_per_gpu: int) -> int:
    """Run this same command in `count` processes, each with its own GPU if the machine has any.

    Returns the exit code of the process that failed first, or 0.
    """
    _claim_gpus(device, count, trainings_per_gpu)
    from torch.distributed.elastic.agent.server.api import SignalException  # type: ignore[attr-defined]
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.launcher.api import LaunchConfig, elastic_launch

    logging.getLogger("torch.distributed.elastic").setLevel(logging.CRITICAL)
    config = LaunchConfig(
        min_nodes=1,
        max_nodes=1,
        nproc_per_node=count,
        run_id=uuid.uuid4().hex,
        rdzv_backend="c10d",
        rdzv_endpoint="localhost:0",
        local_addr="localhost",
        max_restarts=0,
        monitor_interval=0.1,
        signals_to_handle=",".join(stop.name for stop in STOP_SIGNALS),  # passed on to all of them
        shutdown_timeout=SECONDS_TO_SAVE,
    )
    try:
        elastic_launch(config, sys.executable)("-m", "moonshine", *sys.argv[1:])
    except ChildFailedError as error:
        return _exit_code(failure.exitcode for failure in error.failures.values())
    except SignalException as stopped:
        return 128 + stopped.sigval
    return 0


def _claim_gpus(wanted: str, count: int, trainings_per_gpu: int) -> None:
    """Claim here, not in the processes: they wait for each other, so they could not wait for other jobs' devices."""
    handlers = {stop: signal.getsignal(stop) for stop in STOP_SIGNALS}
    signals.install_handlers()
    try:
        claim_gpus(wanted, count, trainings_per_gpu)
    finally:
        for stop, handler in handlers.items():  # torchrun sets its own once the processes run
            signal.signal(stop, handler)
    signals.poll("its processes had not started, nothing is lost")


def _exit_code(codes: Iterable[int]) -> int:
    """Exit code of the process that failed first; its peers then end with MachineError or by the agent's SIGTERM."""
    consequences = (MachineError.exit_code, -signal.SIGTERM)  # the first may also be the cause, and says so
    code = min(codes, key=lambda code: (consequences.index(code) + 1 if code in consequences else 0, code))
    if code >= 0:
        return code
    name = signal.Signals(-code).name
    say(f"error: a process was killed by {name}; the same command resumes from the last checkpoint")
    return 128 - code
