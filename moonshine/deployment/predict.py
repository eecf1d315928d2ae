"""`moonshine predict`: the likeliest classes of images, from a published model alone."""

from collections.abc import Sequence
from pathlib import Path

from moonshine.deployment.class_names import class_names
from moonshine.deployment.images import load_images
from moonshine.deployment.model import logits_of, refuse_folder
from moonshine.errors import DataError
from moonshine.models.model_file import load_model
from moonshine.runtime.progress import printable

SHOWN = 5


def predict(model: Path, images: Sequence[Path]) -> None:
    """Print the top-5 classes of each image that can be read with their probabilities.

    Raises ParamsError (exit code 2) for a folder as the model, DataError (3) for a file that is no model and, after
    the others were shown, for all that are no images; CheckpointError (8) for another's model.
    """
    refuse_folder(model)
    network, description = load_model(model)
    names = [printable(name) for name in class_names(description["classes"])]
    unreadable = []
    for path in images:
        try:
            image = load_images([path], description)
        except DataError as error:
            unreadable.append(str(error))
            continue
        probabilities = logits_of(network, image, model).float().softmax(1)[0]
        best = probabilities.topk(min(SHOWN, len(names)))
        print(printable(str(path)))
        for probability, label in zip(best.values.tolist(), best.indices.tolist()):
            print(f"{100 * probability:7.2f} %  {names[label]}")
    if unreadable:
        raise DataError("\n".join(unreadable))
