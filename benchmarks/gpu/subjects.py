"""What is checked and measured: networks, their training states, teachers and batches, built as the stages do."""

import hashlib
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast

import torch

from benchmarks.gpu.machine import Context
from moonshine.distillation.objective import Distillation
from moonshine.distillation.teacher import Teacher
from moonshine.models.attention_layers import attention_layers_of
from moonshine.models.model_file import model_bytes
from moonshine.models.networks import initialise
from moonshine.params.schema import Augmentation, Recipe
from moonshine.project.records import Architecture, ModelDescription
from moonshine.project.rows import Row
from moonshine.training.objective import CrossEntropy, Objective
from moonshine.training.state import PRECISIONS, TrainingState

SETTINGS: dict[str, dict[str, Any]] = {
    "resnet18": {"arch": "resnet18"},
    "resnet34": {"arch": "resnet34"},
    "resnet18-half": {"arch": "resnet18", "channels": [64, 64, 128, 256]},
    "resnet18-g4": {"arch": "resnet18", "conv": "G(4)"},
    "resnet34-g4": {"arch": "resnet34", "conv": "G(4)"},
    "resnet34-sep": {"arch": "resnet34", "conv": "G(N)"},
    "wrn-40-2": {"arch": "wrn-40-2"},
    "wrn-40-2-sep": {"arch": "wrn-40-2", "conv": "G(N)"},
    "wrn-dilated": {"arch": "wrn-10-2", "conv": "S-2x2"},
    "wrn-bottleneck": {"arch": "wrn-10-2", "conv": "BG(2,4)"},
    "mobilenet_v2": {"arch": "mobilenet_v2"},  # has dropout, and depthwise convolutions of its own
}
CHECKED = (
    "resnet18",
    "resnet18-half",
    "resnet18-g4",
    "resnet34-sep",
    "wrn-dilated",
    "wrn-bottleneck",
    "mobilenet_v2",
)
CROPS = Augmentation(crop_scale=[0.08, 1.0], flip=True)
MEAN, STD = [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]

IEEE, TF32, BFLOAT16, FLOAT16 = "float32", "tf32", "bfloat16", "float16"
"""Values of `recipe.precision`."""

FLOAT16_SCALE = 16.0
"""Loss scale at the start. With PyTorch's 65,536, gradients would overflow and the few steps here would be skipped."""


@contextmanager
def arithmetic(kind: str) -> Iterator[None]:
    """Inside it, a GPU's float32 products have factors with 10 bits of mantissa for TF32, otherwise with all 23."""
    settings: tuple[Any, ...] = torch.backends.cudnn, torch.backends.cuda.matmul
    before = [setting.allow_tf32 for setting in settings]
    for setting in settings:
        setting.allow_tf32 = kind == TF32
    try:
        yield
    finally:
        for setting, allowed in zip(settings, before):
            setting.allow_tf32 = allowed


def make_architecture(name: str, classes: int = 10) -> Architecture:
    return cast(Architecture, {**SETTINGS[name], "classes": classes, "in_channels": 3})


def make_state(
    name: str,
    device: torch.device,
    kind: str = IEEE,
    *,
    attention: bool = True,
    classes: int = 10,
    compiled: bool = False,
    weight_decay: float = 1e-4,
) -> TrainingState:
    """A student at its first step, with attention transfer from all layers, or trained on labels alone."""
    architecture = make_architecture(name, classes)
    recipe = Recipe(
        epochs=100,
        batch_size=32,
        lr=0.05,
        lr_steps=[50],
        lr_factor=0.1,
        momentum=0.9,
        weight_decay=weight_decay,
        augmentation=CROPS,
        precision=kind,  # type: ignore[arg-type]
        compile=compiled,
        threads=torch.get_num_threads(),
    )
    objective: Objective = CrossEntropy()
    if attention:
        layers = attention_layers_of(architecture)
        objective = Distillation(layers, beta=50.0, groups=range(1, min(len(layers), 4) + 1))
    row = Row("distil", name, "at") if attention else Row("train", name)
    state = TrainingState(row, architecture, objective, recipe, 0, device)
    if kind == FLOAT16:
        start = state.checkpoint()
        state.load_checkpoint({**start, "scaler": {**start["scaler"], "scale": FLOAT16_SCALE}})
    return state


def make_teacher(
    name: str, device: torch.device, kind: str = IEEE, *, classes: int = 10, compiled: bool = False
) -> Teacher:
    """A teacher with random weights, loaded from a model file as `distil` loads it."""
    architecture = make_architecture(name, classes)
    described: ModelDescription = {
        "name": "teacher",
        "architecture": architecture,
        "input": [3, 224, 224],
        "preprocessing": {"shorter_side": 256, "crop": [224, 224]},
        "normalisation": {"mean": MEAN, "std": STD},
        "classes": [str(number) for number in range(classes)],
    }
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "teacher.safetensors"
        path.write_bytes(model_bytes(initialise(architecture, 7), described))
        return Teacher.load(path, "teacher", device, PRECISIONS[kind], compiled)[0]


def batches(
    count: int, size: int, images: int, device: torch.device, classes: int = 10
) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """Random images (images, 3, size, size) in channels last and their labels, the same on every device."""
    generator = torch.Generator().manual_seed(1)
    made = []
    for _ in range(count):
        pixels = torch.randn(images, 3, size, size, generator=generator).to(memory_format=torch.channels_last)
        labels = torch.randint(0, classes, (images,), generator=generator)
        made.append((pixels.to(device), labels.to(device)))
    return made


def checked_batches(context: Context, count: int, device: torch.device | None = None) -> list[Any]:
    """The batches of the checks: 32 images of 64 x 64 pixels, or 8 of 32 x 32."""
    size, images = (32, 8) if context.tiny else (64, 32)
    return batches(count, size, images, device or context.device)


def learn(state: TrainingState, teacher: Teacher, steps: list[tuple[torch.Tensor, torch.Tensor]]) -> None:
    """A step of distillation for each of the batches."""
    for images, labels in steps:
        state.step(images, labels, teacher(images))


def digest(state: TrainingState) -> str:
    """A hash of everything that a checkpoint holds: equal only if all bytes are."""
    hashed = hashlib.sha256()

    def add(value: Any) -> None:
        if isinstance(value, torch.Tensor):
            hashed.update(value.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
        elif isinstance(value, dict):
            for key, inner in value.items():
                hashed.update(str(key).encode())
                add(inner)
        elif isinstance(value, (list, tuple)):
            for inner in value:
                add(inner)
        else:
            hashed.update(repr(value).encode())

    add(state.checkpoint())
    return hashed.hexdigest()[:16]


def gradients(state: TrainingState) -> dict[str, torch.Tensor]:
    """Parameter -> its gradient on the CPU, in the first step without weight decay, which is what momentum holds."""
    remembered = state.checkpoint()["optimizer"]["state"]
    named = enumerate(state.network.named_parameters())
    return {name: remembered[index]["momentum_buffer"].detach().cpu() for index, (name, _) in named}


def relative_error(found: torch.Tensor, expected: torch.Tensor) -> float:
    """L2 norm of the difference over that of the expected values, in float64 on the CPU."""
    reference = expected.double().cpu()
    return float((found.double().cpu() - reference).norm() / reference.norm().clamp_min(1e-30))
