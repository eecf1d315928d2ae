"""Checks of what several steps compute: resumed, with other students, short of memory, compiled."""

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch

from benchmarks.gpu.machine import Context
from benchmarks.gpu.subjects import (
    BFLOAT16,
    FLOAT16,
    IEEE,
    TF32,
    arithmetic,
    batches,
    checked_batches,
    digest,
    learn,
    make_state,
    make_teacher,
)
from benchmarks.gpu.worker import start_worker
from moonshine.runs.checkpoints import load_newest_checkpoint, save_checkpoint
from moonshine.training.memory import measure_need

COMPILED_LOSS = 0.05
"""Largest relative difference of a compiled network's bfloat16 loss from the eager one's after three steps."""


def resume(context: Context) -> None:
    """Six steps, or three, a checkpoint on disk and three more in a new state, give the same bytes."""
    names = ("mobilenet_v2",) if context.tiny else ("resnet18", "resnet34-sep", "mobilenet_v2")
    for kind in (IEEE, TF32, BFLOAT16, FLOAT16) if context.on_gpu else (IEEE, BFLOAT16, FLOAT16):
        for name in names:
            with arithmetic(kind):
                is_same = _resumed_is_undisturbed(context, name, kind)
            context.report.require(is_same, f"resume {name}, {kind}")


def _resumed_is_undisturbed(context: Context, name: str, kind: str) -> bool:
    undisturbed, stopped, resumed = (make_state(name, context.device, kind) for _ in range(3))
    teacher, steps = make_teacher(name, context.device, kind), checked_batches(context, 6)
    learn(undisturbed, teacher, steps)
    learn(stopped, teacher, steps[:3])
    with tempfile.TemporaryDirectory() as folder:
        save_checkpoint(Path(folder), 3, stopped.checkpoint())
        saved = load_newest_checkpoint(Path(folder))
    assert saved is not None
    resumed.load_checkpoint(saved)
    learn(resumed, teacher, steps[3:])
    return digest(stopped) != digest(resumed) == digest(undisturbed)


STUDENTS = "resnet18", "resnet34-sep", "resnet18-half"


def together(context: Context) -> None:
    """Students that share a teacher's passes get the bytes that they get alone, also if memory is nearly full."""
    alone = {name: _digests_together(context, (name,))[name] for name in STUDENTS}
    if context.on_gpu:
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
    found = _digests_together(context, STUDENTS)
    for name in STUDENTS:
        context.report.require(found[name] == alone[name], f"together = alone, {name}")
    name = "together in nearly full memory"
    if not context.on_gpu:
        context.report.leave_out(name, "needs a GPU")
        return
    peak = torch.cuda.max_memory_reserved()
    with _little_memory(peak):
        try:
            found = _digests_together(context, STUDENTS)
        except torch.OutOfMemoryError:
            context.report.leave_out(name, f"{peak / 1e6:.0f} MB, its own peak, is too little")
            return
    context.report.require(found == alone, name, f"with {peak / 1e6:.0f} MB, its own peak")


def _digests_together(context: Context, names: tuple[str, ...]) -> dict[str, str]:
    teacher = make_teacher("resnet18", context.device, BFLOAT16)
    states = {name: make_state(name, context.device, BFLOAT16) for name in names}
    for images, labels in checked_batches(context, 4):
        of_teacher = teacher(images)
        for state in states.values():
            state.step(images, labels, of_teacher)
    return {name: digest(state) for name, state in states.items()}


@contextmanager
def _little_memory(limit: int) -> Iterator[None]:
    """Let the allocator have `limit` bytes: workspaces that cuDNN would like are then refused as on a full GPU."""
    torch.cuda.empty_cache()
    torch.cuda.set_per_process_memory_fraction(limit / torch.cuda.get_device_properties(0).total_memory)
    try:
        yield
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)


def memory(context: Context) -> None:
    """The memory that `distil --together` expects a student to need compared with the peak."""
    size, images = (96, 4) if context.tiny else (224, 128)
    for name in ("resnet18", "resnet34-sep"):
        ((pixels, labels),) = batches(1, size, images, context.device)
        of_teacher = make_teacher("resnet18", context.device, BFLOAT16)(pixels)
        need = measure_need(make_state(name, context.device, BFLOAT16), pixels, labels, of_teacher)
        expected = need.lasting + need.passing
        if not context.on_gpu:
            context.report.leave_out(f"memory {name}", f"expects {expected / 1e6:.0f} MB; only a GPU tells its peak")
            continue
        torch.cuda.empty_cache()
        before = torch.cuda.memory_allocated()
        torch.cuda.reset_peak_memory_stats()
        state = make_state(name, context.device, BFLOAT16)
        for _ in range(3):
            state.step(pixels, labels, of_teacher)
        taken = torch.cuda.max_memory_allocated() - before
        context.report.require(
            0.95 * taken <= expected <= 1.3 * taken,
            f"memory {name}",
            f"expects {expected / 1e6:.0f} MB, took {taken / 1e6:.0f} MB (limits 0.95 and 1.3 times)",
        )


def compiled(context: Context) -> None:
    """Compiled networks compute what eager ones do, and two processes without a common cache get the same bytes."""
    name = "wrn-bottleneck" if context.tiny else "resnet18"
    with tempfile.TemporaryDirectory() as root:
        workers = []
        for number in ("1", "2"):
            caches = {
                "TORCHINDUCTOR_CACHE_DIR": f"{root}/{number}/inductor",
                "TRITON_CACHE_DIR": f"{root}/{number}/triton",
            }
            workers.append(start_worker(context, "compiled_digest", name, **caches))
        first, second = (worker.result() for worker in workers)
    context.report.require(
        first["digest"] == second["digest"],
        f"compiled {name} in two processes, each with its own cache",
        f"{first['digest']} {second['digest']}",
    )
    error = abs(first["compiled"] / first["eager"] - 1)
    context.report.require(
        error <= COMPILED_LOSS,
        f"compiled {name}, loss",
        f"{first['compiled']:.4f}, eager {first['eager']:.4f} (limit {COMPILED_LOSS:.0%} apart)",
    )
