"""`moonshine predict`: the likeliest classes of images, from a published model alone."""

from collections.abc import Sequence
from pathlib import Path

import torch

from moonshine.deployment.class_names import class_names
from moonshine.deployment.images import load_images
from moonshine.deployment.model import refuse_folder
from moonshine.models.model_file import load_model

SHOWN = 5


def predict(model: Path, images: Sequence[Path]) -> None:
    """Print the top-5 classes of each image with their probabilities.

    Raises ParamsError (exit code 2) for a folder as the model, DataError (3) for a file that is no model or no image,
    CheckpointError (8) for another's model.
    """
    refuse_folder(model)
    network, description = load_model(model)
    names = class_names(description["classes"])
    for path in images:
        with torch.inference_mode():
            probabilities = network(load_images([path], description)).float().softmax(1)[0]
        best = probabilities.topk(min(SHOWN, len(names)))
        print(path)
        for probability, label in zip(best.values.tolist(), best.indices.tolist()):
            print(f"{100 * probability:7.2f} %  {names[label]}")
