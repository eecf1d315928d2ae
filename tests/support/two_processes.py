"""Started by torchrun in two processes: takes the steps that a test compares with those of a single process.

Arguments: a folder with prepared data, and one for what each process saw.
"""

import json
import os
import sys
from pathlib import Path

import torch

from moonshine.data.loading import SmallImages
from moonshine.data.shares import weight_of_share
from moonshine.distillation.objective import Distillation
from moonshine.distillation.teacher import TeacherOutputs
from moonshine.models.architecture import architecture_of
from moonshine.params import read_params
from moonshine.project.rows import Row
from moonshine.runtime import distributed
from moonshine.training.replicas import joined
from moonshine.training.state import TrainingState

BATCH_SIZE = 100


def seen_images(data: SmallImages, params) -> list[list[list[int]]]:  # type: ignore[no-untyped-def]
    """Epoch -> batch -> labels, which the caller has made the images' own numbers."""
    augmentation = params.recipe.augmentation
    return [
        [labels.tolist() for _, labels in data.training_batches(augmentation, 0, epoch, BATCH_SIZE)] for epoch in (1, 2)
    ]


def gradients_of_one_step(data: SmallImages, params, size: int, **keys) -> dict[str, torch.Tensor]:  # type: ignore[no-untyped-def]
    """Of a distillation with batch norm in eval mode, where each image counts for itself; `keys` are of augmentation.

    After the first step, without weight decay, they are what momentum remembers.
    """
    architecture = architecture_of(params.networks["student"], 10, 1)
    method = params.methods["at"].objective
    objective = Distillation(("layer1", "layer2", "layer3", "layer4"), **method)
    recipe = params.recipe.model_copy(update={"weight_decay": 0.0})
    state = TrainingState(Row.parse("distil/at/student"), architecture, objective, recipe, 0, torch.device("cpu"))
    state.network.eval()
    augmentation = params.recipe.augmentation.model_copy(update=keys)
    images, labels = next(data.training_batches(augmentation, 0, 1, size))
    maps = [images.abs().mean(1)[:, :side, :side] for side in (12, 6, 3, 2)]
    state.step(images, labels, TeacherOutputs(images.new_zeros(0), maps), weight_of_share(len(labels), size))
    remembered = state.checkpoint()["optimizer"]["state"]
    return {name: remembered[i]["momentum_buffer"] for i, (name, _) in enumerate(state.network.named_parameters())}


def main() -> None:
    os.chdir(sys.argv[1])
    torch.set_num_threads(1)
    params = read_params(Path("params.yaml"))
    train, val = (SmallImages(Path("data/digits"), split, torch.device("cpu")) for split in ("train", "val"))
    folder = Path(sys.argv[2])
    with joined(torch.device("cpu")):
        torch.save(gradients_of_one_step(train, params, 7), folder / f"gradients-{distributed.RANK}.pt")
        mixed = gradients_of_one_step(train, params, 7, mixup=1.0)
        torch.save(mixed, folder / f"gradients-mixed-{distributed.RANK}.pt")
        for data in (train, val):
            data.labels = torch.arange(len(data))
        evaluated = [label for _, labels in val.evaluation_batches(BATCH_SIZE) for label in labels.tolist()]
        seen = {"train": seen_images(train, params), "val": evaluated}
        (folder / f"seen-{distributed.RANK}.json").write_text(json.dumps(seen))


if __name__ == "__main__":
    main()
