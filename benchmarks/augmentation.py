"""What each key of recipe.augmentation costs: an epoch of training batches, without a network, with it and without.

What counts is CPU time, of this process and its one loading worker. Of a training on a GPU, only TrivialAugment and
crops of another size concern the CPUs; erasing and mixing are done by the GPU.
"""

import json
import resource
from pathlib import Path

import torch

from benchmarks.worker import Round
from moonshine.data.loading import open_images
from moonshine.params.schema import Augmentation
from moonshine.runtime import startup

BATCH = 64
EACH = {
    "TrivialAugment": {"trivial_augment": True},
    "cutout": {"cutout": 8},
    "random erasing": {"random_erasing": 0.1},
    "mixup": {"mixup": 0.2},
    "cutmix": {"cutmix": 1.0},
}
OF_JPEG_IMAGES = {**EACH, "crops of 176 pixels": {"crop_size": 176}}


def epoch(data: str, keys: str) -> Round:
    """An epoch of the images in `data` with these keys, as JSON, besides crop and flip."""
    startup.set_up()  # before the restart, because Pillow reads its setting when it is imported
    startup.restart_with_tunables()
    images = open_images(Path(data), "train", torch.device("cpu"), workers=1)
    usual = {"crop_scale": [0.08, 1.0]} if images.manifest["encoding"] == "jpeg" else {"pad": 3}
    settings = Augmentation.model_validate({"flip": True, **usual, **json.loads(keys)})

    def run_round() -> float:
        before = _seconds()
        assert sum(len(labels) for _, labels in images.training_batches(settings, 0, 1, BATCH)) == len(images)
        return _seconds() - before

    return run_round


def _seconds() -> float:
    usages = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(usage.ru_utime + usage.ru_stime for usage in usages)
