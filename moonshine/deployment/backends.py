"""A network as a function that runs one batch to its end, on each backend, and the times of several in turn."""

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from types import FunctionType
from typing import TYPE_CHECKING, TypeVar

import numpy as np

if TYPE_CHECKING:
    import torch
    from torch import nn

Run = Callable[[], object]
Name = TypeVar("Name")


def onnxruntime_run(exported: bytes, images: np.ndarray, threads: int) -> Run:
    """In onnxruntime on the CPU, which folds batch norm into the convolutions before it."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
    # or the threads of one session would still spin while the next is timed
    options.add_session_config_entry("session.force_spinning_stop", "1")
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(exported, options, providers=["CPUExecutionProvider"])
    return lambda: session.run(["logits"], {"images": images})


def torch_run(network: "nn.Module", images: np.ndarray, device: "torch.device", compiled: bool) -> Run:
    """In PyTorch, in eval mode; on a GPU it waits until the batch is done."""
    import torch

    network = network.to(device).eval()
    forward = _compiled(network) if compiled else network
    batch = torch.from_numpy(images).to(device)

    def run() -> None:
        with torch.inference_mode():
            forward(batch)
        if device.type == "cuda":
            torch.cuda.synchronize(device)

    return run


def _compiled(network: "nn.Module") -> "Callable[[torch.Tensor], torch.Tensor]":
    """With a code object of its own: PyTorch stops to compile a forward method that more than 8 networks share."""
    import torch

    def forward(batch: "torch.Tensor") -> "torch.Tensor":
        result: torch.Tensor = network(batch)
        return result

    own = FunctionType(forward.__code__.replace(), forward.__globals__, closure=forward.__closure__)
    compiled: Callable[[torch.Tensor], torch.Tensor] = torch.compile(own)
    return compiled


@contextmanager
def torch_threads(threads: int, compiled: bool) -> Iterator[None]:
    """PyTorch's CPU operations use so many threads; code that was compiled for another number is compiled again."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    if compiled:
        torch.compiler.reset()
    try:
        yield
    finally:
        torch.set_num_threads(before)


def interleaved(
    runs: Mapping[Name, Run],
    warm_up: int,
    rounds: int,
    runs_per_round: int,
    after_each_turn: Callable[[int], None],
    clock: Callable[[], float] = time.perf_counter,
) -> dict[Name, list[float]]:
    """Name -> milliseconds of each timed run.

    First each runs `warm_up` times untimed. In each round every one has its turn, of one untimed run, which evicts what
    the one before has left in caches, and `runs_per_round` timed ones; so whatever else slows the machine slows all of
    them. `after_each_turn` gets the number of runs, and may stop it by raising; `clock` tells seconds.
    """
    for run in runs.values():
        for _ in range(warm_up):
            run()
            after_each_turn(1)
    times: dict[Name, list[float]] = {name: [] for name in runs}
    for _ in range(rounds):
        for name, run in runs.items():
            run()
            for _ in range(runs_per_round):
                start = clock()
                run()
                times[name].append(1000 * (clock() - start))
            after_each_turn(1 + runs_per_round)
    return times
