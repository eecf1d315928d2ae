"""Distillation steps and epochs of this project, and the same by torchdistill's training box.

Tasks for `benchmarks.worker`. `pixels` is 224 (ImageNet's networks), 28 or 14: the networks of
experiments/fashion-mnist.yaml, on the images as they are published or halved as there.
"""

import itertools
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import torch

from benchmarks.worker import Round
from moonshine.params.schema import Augmentation
from moonshine.runtime import startup

CPU = torch.device("cpu")
AUGMENTATION = Augmentation(pad=1, flip=True)
BATCH = {"224": 16, "28": 128, "14": 128}
STEPS = {"224": 1, "28": 4, "14": 16}
LABEL_LOSS = {
    "input": {"is_from_teacher": False, "module_path": ".", "io": "output"},
    "target": {"uses_label": True},
}
SMALL = ("28", "14")
AT: dict[str, Any] = {"beta": 750.0, "groups": [1, 2, 3, 4]}
METHODS: dict[str, dict[str, Any]] = {
    "AT": AT,
    "KD": {"alpha": 0.9, "temperature": 4.0},
    "standardised KD": {"alpha": 9.0, "temperature": 2.0, "cross_entropy": 1.0, "standardise_logits": True},
    "DIST": {"dist": {}},
    "DKD": {"dkd": {"alpha": 1.0, "beta": 0.5, "temperature": 1.0}},
    "WTTM": {"ttm": {"weight": 4.0, "exponent": 0.2, "weighted": True}},
    "AT + DIST": {**AT, "dist": {}},
}
"""Name -> what the student minimises."""
RECIPES: dict[str, dict[str, Any]] = {
    "nesterov": {"optimizer": "nesterov"},
    "adamw": {"optimizer": "adamw", "lr": 0.001},
    "clip_grad_norm": {"clip_grad_norm": 1.0},
    "ema_decay": {"ema_decay": 0.999},
}
"""What is added to the usual recipe of a step."""


def description(name: str, pixels: str) -> dict[str, Any]:
    """Plain values of an architecture."""
    small = pixels in SMALL
    arch, _, variant = name.partition("-")
    widths = [8, 16, 32, 64] if small else [64, 128, 256, 512]
    if variant == "half":
        widths = [widths[0], *(width // 2 for width in widths[1:])]
    return {
        "arch": arch,
        "classes": 10 if small else 1000,
        "in_channels": 1 if small else 3,
        "channels": widths,
        **({"stem": "3x3"} if small else {}),
        **({"conv": "G(N)"} if variant == "sep" else {}),
    }


def batch(pixels: str) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    channels, classes = (1, 10) if pixels in SMALL else (3, 1000)
    images = torch.randn(BATCH[pixels], channels, int(pixels), int(pixels), generator=generator)
    return images, torch.randint(0, classes, (BATCH[pixels],), generator=generator)


def network(name: str, pixels: str) -> torch.nn.Module:
    from moonshine.models.networks import initialise

    return initialise(description(name, pixels), 0)


def write_teacher(pixels: str, path: str) -> None:
    from moonshine.models.model_file import model_bytes

    architecture, side = description("resnet34", pixels), int(pixels)
    channels = architecture["in_channels"]
    described = {
        "name": "teacher",
        "architecture": architecture,
        "input": [channels, side, side],
        "preprocessing": {"resize": [side, side]},
        "normalisation": {"mean": [0.5] * channels, "std": [0.5] * channels},
        "classes": [str(number) for number in range(architecture["classes"])],
    }
    Path(path).write_bytes(model_bytes(network("resnet34", pixels), described))


def start_as_the_command_does() -> None:
    startup.restart_with_tunables()
    startup.set_up()
    startup.leave_out_triton("cpu")


def make_teacher(pixels: str, compiled: bool = False) -> Any:
    from moonshine.distillation.teacher import Teacher

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "teacher.safetensors"
        # by a process of its own, whose memory is not counted here
        code = f"from benchmarks.steps import write_teacher; write_teacher({pixels!r}, {str(path)!r})"
        subprocess.run([sys.executable, "-c", code], check=True)
        return Teacher.load(path, "teacher", CPU, torch.float32, compiled)[0]


def make_state(
    pixels: str, student: str, compiled: bool = False, method: str = "AT", recipe_name: str | None = None
) -> Any:
    from moonshine.distillation.objective import Distillation
    from moonshine.models.attention_layers import attention_layers_of
    from moonshine.params.schema import Recipe
    from moonshine.project.rows import Row
    from moonshine.training.state import TrainingState

    architecture = description(student, pixels)
    recipe = Recipe(
        epochs=100,
        batch_size=BATCH[pixels],
        lr=0.1,
        lr_steps=[],
        lr_factor=0.1,
        momentum=0.9,
        weight_decay=1e-4,
        augmentation=AUGMENTATION,
        precision="float32",
        compile=compiled,
        threads=torch.get_num_threads(),
    )
    if recipe_name:
        recipe = recipe.model_copy(update=RECIPES[recipe_name])
    objective = Distillation(attention_layers_of(architecture), **METHODS[method])
    return TrainingState(Row("distil", student, "at"), architecture, objective, recipe, 0, CPU)


def ours(
    pixels: str, *students: str, compiled: bool = False, method: str = "AT", recipe_name: str | None = None
) -> Round:
    """Steps of the students with one forward pass of the teacher."""
    start_as_the_command_does()
    teacher = make_teacher(pixels, compiled)
    states = [make_state(pixels, student, compiled, method, recipe_name) for student in students]
    images, labels = batch(pixels)

    def run_round() -> None:
        for _ in range(STEPS[pixels]):
            signals = teacher(images)
            for state in states:
                state.step(images, labels, signals)
                state.check()

    return run_round


def ours_compiled(pixels: str, student: str) -> Round:
    """As `recipe.compile` has it."""
    return ours(pixels, student, compiled=True)


def ours_by(pixels: str, student: str, method: str) -> Round:
    """Steps by one of METHODS."""
    return ours(pixels, student, method=method)


def ours_with(pixels: str, student: str, recipe_name: str) -> Round:
    """With one of RECIPES."""
    return ours(pixels, student, recipe_name=recipe_name)


def ours_apart(pixels: str, *students: str) -> Round:
    """The same students, each with a teacher's forward pass of its own."""
    rounds = [ours(pixels, student) for student in students]

    def run_round() -> None:
        for run in rounds:
            run()

    return run_round


def our_epoch(pixels: str, folder: str, student: str, compiled: bool = False) -> Round:
    """An epoch over a prepared data set, augmented as whole batches."""
    from moonshine.data.loading import SmallImages

    start_as_the_command_does()
    teacher, state = make_teacher(pixels, compiled), make_state(pixels, student, compiled)
    data = SmallImages(Path(folder), "train", CPU)
    epochs = itertools.count(1)

    def run_round() -> None:
        for images, labels in data.training_batches(AUGMENTATION, 0, next(epochs), BATCH[pixels]):
            state.step(images, labels, teacher(images))
            state.check()

    return run_round


def our_epoch_compiled(pixels: str, folder: str, student: str) -> Round:
    """As `recipe.compile` has it."""
    return our_epoch(pixels, folder, student, compiled=True)


def make_box(pixels: str, student: str, device: torch.device = CPU) -> Any:
    """torchdistill 1.1.5, configured as its documentation has ATLoss and labels; the networks are equal to ours."""
    from torchdistill.core.distillation import get_distillation_box

    groups = ["layer1", "layer2", "layer3", "layer4"]
    pairs = {
        group: {side: {"io": "output", "path": group} for side in ("teacher", "student")} | {"weight": 1}
        for group in groups
    }
    hooks = {"forward_hook": {"input": [], "output": groups}, "forward_proc": "forward_batch_only"}
    label_loss = {
        "criterion": {"key": "CrossEntropyLoss", "kwargs": {"reduction": "mean"}},
        "criterion_wrapper": {"key": "SimpleLossWrapper", "kwargs": LABEL_LOSS},
        "weight": 1.0,
    }
    attention = {"criterion": {"key": "ATLoss", "kwargs": {"at_pairs": pairs, "mode": "code"}}, "weight": 750.0}
    config = {
        "num_epochs": 1,
        "teacher": {**hooks, "requires_grad": False, "sequential": []},
        "student": {**hooks, "requires_grad": True, "sequential": []},
        "optimizer": {"key": "SGD", "kwargs": {"lr": 0.1, "momentum": 0.9, "weight_decay": 1e-4}},
        "criterion": {"key": "WeightedSumLoss", "kwargs": {"sub_terms": {"ce": label_loss, "at": attention}}},
    }
    teacher_model, student_model = (network(name, pixels).to(device) for name in ("resnet34", student))
    box = get_distillation_box(teacher_model, student_model, {}, config, device, None, False, 1)
    box.teacher_model.eval()
    box.student_model.train()
    return box


def torchdistill(pixels: str, student: str) -> Round:
    """The same steps by torchdistill."""
    box = make_box(pixels, student)
    images, labels = batch(pixels)

    def run_round() -> None:
        for _ in range(STEPS[pixels]):
            box.post_forward_process(box.forward_process(images, labels, None))

    return run_round


def torchdistill_epoch(pixels: str, folder: str, student: str) -> Round:
    """An epoch over the same images, augmented one by one with torchvision's transforms, as its examples do."""
    from PIL import Image
    from torch.utils.data import DataLoader
    from torchvision import transforms

    from moonshine.images.store import Split

    split = Split(Path(folder), "train")
    normalisation = split.manifest["normalisation"]
    transform = transforms.Compose(
        [
            transforms.RandomCrop(int(pixels), padding=AUGMENTATION.pad),
            transforms.RandomHorizontalFlip(),
            transforms.ToTensor(),
            transforms.Normalize(normalisation["mean"], normalisation["std"]),
        ]
    )
    pictures = [Image.fromarray(image[0]) for image in split.pixels]

    class Pictures(torch.utils.data.Dataset[Any]):
        def __len__(self) -> int:
            return len(pictures)

        def __getitem__(self, index: int) -> Any:
            return transform(pictures[index]), int(split.labels[index])

    loader, box = DataLoader(Pictures(), BATCH[pixels], shuffle=True), make_box(pixels, student)

    def run_round() -> None:
        for images, labels in loader:
            box.post_forward_process(box.forward_process(images, labels, None))

    return run_round
