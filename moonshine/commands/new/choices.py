"""From what was found and asked for to the values of an experiment, each by a rule that its comment can state."""

import re
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from moonshine.commands.new.survey import Survey
from moonshine.commands.new.weights import Weights, require_fit
from moonshine.errors import ParamsError
from moonshine.models.architecture import architecture_of
from moonshine.models.attention_layers import attention_layers_of
from moonshine.models.conv_spec import KNOWN, parse_conv
from moonshine.models.names import TORCHVISION, check_architecture, is_torchvision_resnet, wide_resnet_shape
from moonshine.models.networks import build_network
from moonshine.params import Network
from moonshine.runtime.suggest import nearest

SIZES = (32, 64, 96, 128, 160, 192, 224)
SMALL = 64
"""Images up to this size lose too much in the stem that torchvision's ResNets have for 224 pixels."""
BATCH_SIZES = (128, 64, 32, 16)
STEPS_PER_EPOCH = 20
"""At least so many, or the batch becomes smaller."""
STEPS, EPOCHS = 4000, (30, 200)
"""Steps of a training from scratch, within these limits of its epochs."""
FINE_TUNING_STEPS, FINE_TUNING_EPOCHS = 1500, (10, 60)
"""The same for a teacher that begins with given weights."""
LR, LR_WITHOUT_BATCH_NORM = 0.1, 0.01
"""For batches of LR_BATCH images; proportional to the batch size."""
FINE_TUNING_LR = 0.1
"""Relative to the others' learning rate."""
LR_BATCH = 128
LR_STEPS = (0.5, 0.75, 0.92)
"""Shares of the epochs after which the learning rate falls."""
MANY_IMAGES = 100_000
"""From here on crops may be as small as on ImageNet."""
KNOWN_BETAS = {"ResNet": (750, 56), "wide ResNet": (1000, 32)}
"""Family -> a beta that was published, and the side of the largest maps that it belongs to."""
MOST_THREADS = 8
MOST_SHOWN = 6
"""Images in the figure of where networks look."""


@dataclass(frozen=True)
class Request:
    """What the command line asks for."""

    name: str
    folder: Path
    """Absolute path of the images."""
    teacher: str
    students: Sequence[str]
    labels: str | None = None
    """A CSV file with paths and labels, relative to the folder."""
    validation_share: float | None = None
    size: int | None = None
    epochs: int | None = None
    weights: str | None = None
    """Those that the teacher begins with, as the command line names them."""
    is_shared: bool = False
    shows_images: bool = False

    @property
    def command(self) -> str:
        """The command line that asks for this."""
        given = {
            "--images": str(self.folder),
            "--teacher": self.teacher,
            "--labels": self.labels,
            "--validation-share": self.validation_share,
            "--size": self.size,
            "--epochs": self.epochs,
            "--weights": self.weights,
        }
        options = [word for option, value in given.items() if value is not None for word in (option, str(value))]
        switches = [("--shared", self.is_shared), ("--show-images", self.shows_images)]
        options += [option for option, is_given in switches if is_given]
        return shlex.join(["moonshine", "new", self.name, *options, "--students", *self.students])


@dataclass(frozen=True)
class Choices:
    """The values of the experiment, and the reasons that its comments and the summary give."""

    params: dict[str, Any]
    """As in params.yaml."""
    reasons: Mapping[str, str]
    """Key -> why it has its value: a sentence without a full stop."""


def network_names(teacher: str, students: Sequence[str]) -> dict[str, dict[str, Any]]:
    """Name -> the network's keys, the teacher first.

    Raises ParamsError (exit code 2) for an unknown architecture or convolution, or one that is given twice.
    """
    networks = {teacher: {"arch": _architecture("--teacher", teacher)}}
    for student in students:
        if _is_convolution(student):
            name, network = f"{teacher}-{_in_name(student)}", {"arch": teacher, "conv": _convolution(student)}
        else:
            name, network = student, {"arch": _student_architecture(student)}
        if name in networks:
            raise ParamsError(f"--students {student}: {'is the teacher' if name == teacher else 'is given twice'}")
        networks[name] = network
    return networks


def _is_convolution(student: str) -> bool:
    """Convolutions are spelled with capitals or brackets, architectures with neither."""
    return bool(re.search(r"[A-Z(\[{]", student))


def _in_name(conv: str) -> str:
    """`gn` for G(N), `bg2-m8` for BG(2,M/8)."""
    return re.sub(r"[()/]", "", conv.lower()).replace(",", "-")


def _architecture(option: str, name: str) -> str:
    try:
        check_architecture(name)
    except ValueError as error:
        raise ParamsError(f"{option}: {str(error).removeprefix('arch: ')}") from None
    return name


def _student_architecture(name: str) -> str:
    if name not in TORCHVISION and not wide_resnet_shape(name):
        likely = nearest(name.upper(), KNOWN) or nearest(name, TORCHVISION)
        raise ParamsError(f'--students: "{name}" is neither a convolution nor an architecture{likely}')
    return _architecture("--students", name)


def _convolution(spelling: str) -> str:
    try:
        return parse_conv(spelling).spelling
    except ValueError as error:
        raise ParamsError(f"--students: {str(error).removeprefix('conv: ')}") from None


def choose(request: Request, survey: Survey, weights: Weights | None, cpus: int, has_gpu: bool) -> Choices:
    """Everything that the experiment needs. CheckpointError (exit code 8) for weights of another architecture."""
    reasons: dict[str, str] = {}
    size = request.size or _size(survey, reasons)
    networks = network_names(request.teacher, request.students)
    if size <= SMALL and not weights:
        for network in networks.values():
            if is_torchvision_resnet(network["arch"]):
                network["stem"] = "3x3"
                reasons["stem"] = f"the stem 3x3 keeps images of {size} pixels as large as they are"
    channels = 1 if survey.is_grey and (weights is None or weights.are_for_grey) else 3
    dataset = _dataset(request, survey, size, channels, reasons)
    if weights:
        require_fit(weights, networks[request.teacher], len(survey.classes), channels)
    built = {name: _built(network, len(survey.classes), channels) for name, network in networks.items()}
    recipe = _recipe(request, survey, size, built, cpus, has_gpu, reasons)
    methods = _methods(networks, built[request.teacher], channels, size, reasons)
    method, students = next(iter(methods)), [name for name in networks if name != request.teacher]
    begun = _begin(networks, request, weights, recipe, survey.images("train"), reasons)
    params = {
        "experiment": request.name,
        "seeds": [0],
        "dataset": dataset,
        "recipe": recipe,
        "networks": networks,
        "teacher": f"train/{request.teacher}/seed0",
        "methods": methods,
        "fetch": {},
        "train": [name for name in networks if name not in begun],
        "train_from_teacher": begun,
        "distil": {"networks": students, "methods": [method]},
        "distil_more": {"networks": [], "methods": []},
        "titles": _titles(networks, method, students),
        "tables": [_table(request, method, students, len(survey.classes))],
        "attention_maps": _attention_maps(request, survey, method, students),
        "machine": {"raw_data": {"folder": str(request.folder)}},
    }
    return Choices(params, reasons)


def _begin(
    networks: dict[str, dict[str, Any]],
    request: Request,
    weights: Weights | None,
    recipe: Mapping[str, Any],
    images: int,
    reasons: dict[str, str],
) -> list[str]:
    """Let the teacher begin with the weights, and students of its architecture with the teacher's; returns those."""
    if not weights:
        return []
    per_epoch = -(-images // recipe["batch_size"])
    epochs = min(_within(FINE_TUNING_STEPS, per_epoch, FINE_TUNING_EPOCHS), recipe["epochs"])
    networks[request.teacher] |= {
        "init": weights.pin,
        "recipe": {
            "epochs": epochs,
            "lr": float(f"{FINE_TUNING_LR * recipe['lr']:.3g}"),
            "lr_steps": _lr_steps(epochs),
        },
    }
    begun = [name for name, network in networks.items() if "conv" in network]
    for name in begun:
        networks[name]["init"] = "teacher"
    shared = f", and {', '.join(begun)} with the tensors shared with it" if begun else ""
    reasons["weights"] = (
        f"the teacher begins with the given weights, fine-tuned for {epochs} epoch{'s' * (epochs > 1)} at a "
        f"tenth of the learning rate{shared}"
    )
    return begun


def _within(steps: int, per_epoch: int, limits: tuple[int, int]) -> int:
    """Epochs for so many steps, within limits."""
    return min(max(-(-steps // per_epoch), limits[0]), limits[1])


def _lr_steps(epochs: int) -> list[int]:
    return sorted({step for share in LR_STEPS if 0 < (step := round(share * epochs)) < epochs})


def _size(survey: Survey, reasons: dict[str, str]) -> int:
    median = survey.shorter_side(0.5)
    size = max((size for size in SIZES if size <= median), default=SIZES[0])
    reasons["size"] = f"the images' shorter sides have a median of {median} pixels"
    return size


def _dataset(request: Request, survey: Survey, size: int, channels: int, reasons: dict[str, str]) -> dict[str, Any]:
    name = [request.name]
    dataset: dict[str, Any] = {
        "name": request.name,
        "source": "folder",
        "classes": len(survey.classes),
        "channels": channels,
        "size": size,
        "evaluation": {"resize": size if size <= SMALL else round(size * 256 / 224)},
        "shared": name if request.is_shared else [],
        "licensed": [] if request.is_shared else name,
    }
    if request.labels is not None:
        dataset["labels"] = request.labels
    if survey.layout.held_out is not None:
        dataset["validation_share"] = survey.layout.held_out
    if survey.turned:
        dataset["exif_orientation"] = True
    if survey.shorter_side(0.9) > 3 * size:
        dataset["resize"] = 2 * size
        reasons["resize"] = "large photographs are scaled once, or decoding them in every epoch would take most time"
    return dataset


def _built(network: Mapping[str, Any], classes: int, channels: int) -> nn.Module:
    return build_network(architecture_of(Network(**network), classes, channels))


def _recipe(
    request: Request,
    survey: Survey,
    size: int,
    built: Mapping[str, nn.Module],
    cpus: int,
    has_gpu: bool,
    reasons: dict[str, str],
) -> dict[str, Any]:
    images = survey.images("train")
    batch_size = _batch_size(images)
    per_epoch = -(-images // batch_size)
    epochs = request.epochs or _within(STEPS, per_epoch, EPOCHS)
    reasons["epochs"] = f"{epochs * per_epoch:,} steps" + (
        "" if request.epochs else f"; about {STEPS:,} are aimed at, within {EPOCHS[0]} to {EPOCHS[1]} epochs"
    )
    lr = LR if all(map(_has_batch_norm, built.values())) else LR_WITHOUT_BATCH_NORM
    reasons["lr"] = f"{lr:g} for {LR_BATCH} images, in proportion to the batch" + (
        "" if lr == LR else ", because not every network has batch norm"
    )
    threads = 1 if has_gpu else min(max(cpus // len(built), 1), MOST_THREADS)
    reasons["threads"] = (
        "a GPU computes" if has_gpu else f"{cpus} CPUs for up to {len(built)} trainings at the same time"
    )
    return {
        "epochs": epochs,
        "batch_size": batch_size,
        "lr": float(f"{lr * batch_size / LR_BATCH:.3g}"),
        "lr_steps": _lr_steps(epochs),
        "lr_factor": 0.1,
        "momentum": 0.9,
        "weight_decay": 1.0e-4,
        "augmentation": {"crop_scale": [0.08 if images >= MANY_IMAGES else 0.35, 1.0], "flip": True},
        "precision": "float32",
        "compile": False,
        "threads": threads,
    }


def _batch_size(images: int) -> int:
    """As many images as leave enough steps, and no last batch of a single image, which batch norm cannot use."""
    size = next((size for size in BATCH_SIZES if images >= size * STEPS_PER_EPOCH), BATCH_SIZES[-1])
    size = min(size, images)
    while images % size == 1 and size > 2:
        size -= 1
    return size


def _has_batch_norm(network: nn.Module) -> bool:
    return any(isinstance(layer, nn.BatchNorm2d) for layer in network.modules())


def _methods(
    networks: Mapping[str, Mapping[str, Any]], teacher: nn.Module, channels: int, size: int, reasons: dict[str, str]
) -> dict[str, dict[str, Any]]:
    """Attention transfer, with a beta that fits the largest of the teacher's maps."""
    arch = next(iter(networks.values()))["arch"]
    layers = attention_layers_of({"arch": arch})
    if not layers:
        raise ParamsError(
            f"--teacher {arch}: Moonshine does not know where its attention is; choose another family, or write the "
            "experiment by hand, with networks.<name>.points"
        )
    for student in networks.values():
        if (count := len(attention_layers_of(student))) != len(layers):
            raise ParamsError(
                f"--students {student['arch']}: has {count} attention points, the teacher {arch} {len(layers)}; choose "
                "one with as many, or write the experiment by hand, with networks.<name>.points"
            )
    side = _side(teacher, layers[0], channels, size)
    beta, of_side = KNOWN_BETAS["wide ResNet" if wide_resnet_shape(arch) else "ResNet"]
    reasons["beta"] = f"{beta} belongs to maps of {of_side} pixels; these have {side}"
    if side != of_side:
        reasons["beta"] += f": {beta} x ({side}/{of_side})^2"
    value = float(f"{beta * (side / of_side) ** 2:.3g}")
    return {"at": {"beta": value, "groups": list(range(1, len(layers) + 1))}}


def _side(network: nn.Module, layer: str, channels: int, size: int) -> int:
    """Side of the maps that a layer gives for images of `size` pixels."""
    sides: list[int] = []
    handle = network.get_submodule(layer).register_forward_hook(lambda *call: sides.append(call[-1].shape[-1]))
    try:
        with torch.no_grad():
            network.eval()(torch.empty(1, channels, size, size, device="meta"))
    except (RuntimeError, ValueError, AssertionError):
        pass  # too small for the network, which the check of all networks says
    handle.remove()
    return sides[0] if sides else size


def _attention_maps(request: Request, survey: Survey, method: str, students: Sequence[str]) -> dict[str, Any]:
    """The figure shows images, one of each of a few classes, only if asked for: git tracks it with the results."""
    first = dict[int, int]()
    for position, image in enumerate(survey.layout.images["val"]):
        first.setdefault(image.label, position)
    labels = np.unique(np.linspace(0, len(survey.classes) - 1, MOST_SHOWN).astype(int)).tolist()
    return {
        "scratch": f"train/{students[0]}/seed0",
        "distilled": f"distil/{method}/{students[0]}/seed0",
        "images": [first[label] for label in labels] if request.shows_images else [],
    }


def _title(network: Mapping[str, Any]) -> str:
    return " ".join(filter(None, (network["arch"], network.get("conv"))))


def _titles(networks: Mapping[str, Mapping[str, Any]], method: str, students: Sequence[str]) -> dict[str, str]:
    trained = {f"train/{name}": _title(network) for name, network in networks.items()}
    return trained | {f"distil/{method}/{name}": f"{_title(networks[name])} + {method.upper()}" for name in students}


def _table(request: Request, method: str, students: Sequence[str], classes: int) -> dict[str, Any]:
    rows = [f"train/{request.teacher}"]
    for name in students:
        rows += [f"train/{name}", f"distil/{method}/{name}"]
    return {
        "name": "students",
        "title": "Students",
        "caption": (
            f"{request.teacher} and its students, trained on the labels alone and with attention transfer "
            f"({method.upper()})."
        ),
        "rows": rows,
        "columns": ["parameters", "macs", "top1", *(["top5"] if classes > 5 else [])],
    }
