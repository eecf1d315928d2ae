"""Distillation steps of this project, and the same steps by torchdistill's training box."""

import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import torch

BATCH = {"224": 16, "28": 128}
STEPS = {"224": 1, "28": 4}
LABEL_LOSS = {
    "input": {"is_from_teacher": False, "module_path": ".", "io": "output"},
    "target": {"uses_label": True},
}
NARROW = [16, 32, 64, 128]


def description(name: str, pixels: str) -> dict[str, Any]:
    """Plain values of an architecture: ImageNet's networks at 224 pixels, narrow ones with a 3x3 stem at 28."""
    small: dict[str, Any] = {"stem": "3x3", "channels": NARROW} if pixels == "28" else {}
    cheap = {"conv": "G(N)"} if name.endswith("-sep") else {}
    return {
        "arch": name.removesuffix("-sep"),
        "classes": 10 if small else 1000,
        "in_channels": 1 if small else 3,
        **small,
        **cheap,
    }


def batch(pixels: str) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    channels, classes = (1, 10) if pixels == "28" else (3, 1000)
    images = torch.randn(BATCH[pixels], channels, int(pixels), int(pixels), generator=generator)
    return images, torch.randint(0, classes, (BATCH[pixels],), generator=generator)


def network(name: str, pixels: str) -> torch.nn.Module:
    from moonshine.models.networks import build_network, initialise

    return initialise(build_network(description(name, pixels)), 0)


def write_teacher(pixels: str, path: str) -> None:
    from moonshine.models.model_file import model_bytes

    described = {"name": "teacher", "architecture": description("resnet34", pixels)}
    Path(path).write_bytes(model_bytes(network("resnet34", pixels), described))


def ours(pixels: str, *students: str) -> Any:
    """Steps of the students with one forward pass of the teacher."""
    from moonshine.distillation.objective import Distillation
    from moonshine.distillation.teacher import Teacher
    from moonshine.models.attention_points import attention_points
    from moonshine.params.schema import Augmentation, Method, Recipe
    from moonshine.training.trainee import Trainee

    device = torch.device("cpu")
    recipe = Recipe(
        epochs=100,
        batch_size=BATCH[pixels],
        lr=0.1,
        lr_steps=[],
        lr_factor=0.1,
        momentum=0.9,
        weight_decay=1e-4,
        augmentation=Augmentation(flip=True),
        precision="float32",
        compile=False,
        threads=torch.get_num_threads(),
    )
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "teacher.safetensors"
        # by a process of its own, whose memory is not counted here
        subprocess.run(
            [sys.executable, "-c", f"import benchmarks.steps as s; s.write_teacher({pixels!r}, {str(path)!r})"]
        )
        teacher = Teacher(path, device, torch.float32)
    trainees = []
    for student in students:
        architecture = description(student, pixels)
        method = Method(beta=750.0, groups=[1, 2, 3, 4])
        objective = Distillation(method, attention_points(architecture))
        trainees.append(Trainee(student, architecture, objective, recipe, 0, device))
    images, labels = batch(pixels)

    def run_round() -> None:
        for _ in range(STEPS[pixels]):
            signals = teacher(images)
            for trainee in trainees:
                trainee.step(images, labels, signals)
                trainee.check()

    return run_round


def torchdistill(pixels: str, student: str) -> Any:
    """The same by torchdistill 1.1.5, configured as its own ATLoss example; the networks are equal."""
    from torchdistill.core.distillation import get_distillation_box

    groups = ["layer1", "layer2", "layer3", "layer4"]
    pairs = {
        group: {side: {"io": "output", "path": group} for side in ("teacher", "student")} | {"weight": 1}
        for group in groups
    }
    hooks = {"forward_hook": {"input": [], "output": groups}, "forward_proc": "forward_batch_only"}
    config = {
        "num_epochs": 1,
        "teacher": {**hooks, "requires_grad": False, "sequential": []},
        "student": {**hooks, "requires_grad": True, "sequential": []},
        "optimizer": {"key": "SGD", "kwargs": {"lr": 0.1, "momentum": 0.9, "weight_decay": 1e-4}},
        "criterion": {
            "key": "WeightedSumLoss",
            "kwargs": {
                "sub_terms": {
                    "ce": {
                        "criterion": {"key": "CrossEntropyLoss", "kwargs": {"reduction": "mean"}},
                        "criterion_wrapper": {"key": "SimpleLossWrapper", "kwargs": LABEL_LOSS},
                        "weight": 1.0,
                    },
                    "at": {
                        "criterion": {"key": "ATLoss", "kwargs": {"at_pairs": pairs, "mode": "code"}},
                        "weight": 750.0,
                    },
                }
            },
        },
    }
    box = get_distillation_box(
        network("resnet34", pixels), network(student, pixels), {}, config, torch.device("cpu"), None, False, 1
    )
    box.teacher_model.eval()
    box.student_model.train()
    images, labels = batch(pixels)

    def run_round() -> None:
        for _ in range(STEPS[pixels]):
            box.post_forward_process(box.forward_process(images, labels, None))

    return run_round
