"""`moonshine predict`: the most likely classes of images, from a published model alone."""

import json
from collections.abc import Iterator, Sequence
from pathlib import Path

from PIL import Image

from moonshine.deployment.images import load_images
from moonshine.deployment.model import load_any, refuse_folder
from moonshine.errors import DataError
from moonshine.export.class_names import class_names
from moonshine.export.logits import logits_of
from moonshine.runtime.progress import printable, say


def predict(model: Path, images: Sequence[Path], top: int = 5, as_json: bool = False) -> None:
    """Print the `top` most likely classes of each image that can be read, with their probabilities.

    For a folder, all images in and below it are used, sorted by path. As JSON, each line is one object with the
    image's path and its classes.

    Raises ParamsError (exit code 2) for a folder as the model, DataError (3) for a file that is not a model and, after
    the others are shown, for all images that cannot be read; CheckpointError (8) for another program's model.
    """
    refuse_folder(model)
    network, description = load_any(model)
    names = class_names(description["classes"])
    if description["preprocessing"].get("exif_orientation"):
        say(f"{model}: images are turned upright by their EXIF orientation first, as those it was trained on were")
    unreadable = []
    for given in images:
        if given.is_dir() and not any(_images_below(given)):
            unreadable.append(f"{printable(str(given))}: a folder without images")
        for path in _images_below(given) if given.is_dir() else [given]:
            try:
                image = load_images([path], description)
            except DataError as error:
                unreadable.append(str(error))
                continue
            probabilities = logits_of(network, image, model).float().softmax(1)[0]
            best = probabilities.topk(min(top, len(names)))
            shown = [(names[label], value) for value, label in zip(best.values.tolist(), best.indices.tolist())]
            _print(path, shown, as_json)
    if unreadable:
        raise DataError("\n".join(unreadable))


def _images_below(folder: Path) -> Iterator[Path]:
    known = Image.registered_extensions()
    return (path for path in sorted(folder.rglob("*")) if path.suffix.lower() in known and path.is_file())


def _print(path: Path, classes: list[tuple[str, float]], as_json: bool) -> None:
    if as_json:
        listed = [{"class": name, "probability": value} for name, value in classes]
        print(json.dumps({"image": str(path), "classes": listed}), flush=True)
        return
    print(printable(str(path)))
    for name, value in classes:
        print(f"{100 * value:7.2f} %  {printable(name)}")
