"""Loading photographs: JpegImages beside torchvision's ImageFolder with its default pipeline on Pillow images.

One worker with one thread on each side; what counts is the CPU time of that worker. Ours leaves normalising to the
training device.
"""

import io
import resource
import subprocess
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path

import sklearn
import torch
import yaml
from PIL import Image
from torch.utils.data import ConcatDataset, DataLoader
from torchvision import transforms
from torchvision.datasets import ImageFolder

from benchmarks.worker import Round
from moonshine.data.jpeg_images import JpegImages
from moonshine.data.order import epoch_order
from moonshine.params.schema import Augmentation
from moonshine.runtime import startup

IMAGES, PASSES, BATCH = 512, 3, 64
"""Several passes are one epoch here, so that starting its worker counts for as little as in a long one."""
WIDTH, HEIGHT, BYTES = 500, 375, 110_000
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def write_jpeg_images(folder: Path, images: int = IMAGES) -> None:
    """Crops of scikit-learn's two photographs at ImageNet's usual size and number of bytes, as a folder a class."""
    originals = sorted((Path(sklearn.__file__).parent / "datasets" / "images").glob("*.jpg"))
    for number in range(images):
        photograph = Image.open(originals[number % 2]).convert("RGB")
        left, top = number % 60, number // 3 % 40
        for shift, split in enumerate(("train", "val")):  # no image may be in both
            box = (left + shift, top, left + shift + 560, top + 380)
            view = photograph.crop(box).resize((WIDTH, HEIGHT), Image.Resampling.BICUBIC)
            path = folder / split / f"class{number % 2}" / f"{number}.jpg"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(_of_size(view))


def _of_size(image: Image.Image) -> bytes:
    """JPEG of the highest quality that takes no more than BYTES."""
    for quality in range(99, 0, -1):
        buffer = io.BytesIO()
        image.save(buffer, "JPEG", quality=quality)
        if buffer.tell() <= BYTES:
            break
    return buffer.getvalue()


def prepare(folder: Path, photographs: Path, resize: int | None) -> Path:
    """The photographs, prepared in `folder`."""
    params = yaml.safe_load(Path("experiments/imagenette.yaml").read_text())
    del params["dataset"]["files"]
    params["dataset"] |= {"source": "folder", "classes": 2, "size": 224, "evaluation": {"resize": 256}}
    params["dataset"] |= {"resize": resize} if resize else {}
    params["machine"] = {"raw_data": {"folder": str(photographs)}}
    folder.mkdir()
    (folder / "params.yaml").write_text(yaml.safe_dump(params))
    subprocess.run([sys.executable, "-m", "moonshine", "prepare"], cwd=folder, check=True, capture_output=True)
    return folder / "data" / params["dataset"]["name"]


def ours(data: str) -> Round:
    """An epoch of the prepared photographs in `data`: uint8 batches, for the training device normalises."""
    startup.set_up()  # before the restart, because Pillow reads its setting when it is imported
    startup.restart_with_tunables()
    images = JpegImages(Path(data), "train", torch.device("cpu"), workers=1)
    crops = Augmentation(crop_scale=[0.08, 1.0], flip=True)

    def epoch() -> Iterator[int]:
        batches = epoch_order(0, 1, len(images)).repeat(PASSES).split(BATCH)
        yield from map(len, images.training_pixels(crops, seed=0, epoch=1, batches=batches))

    return lambda: _workers_seconds(epoch())


def image_folder(photographs: str) -> Round:
    """An epoch of a folder of JPEG files in torchvision's usual pipeline, whose workers make float batches."""
    pipeline = transforms.Compose(
        [
            transforms.RandomResizedCrop(224),
            transforms.RandomHorizontalFlip(),
            transforms.ToTensor(),
            transforms.Normalize(MEAN, STD),
        ]
    )
    passes = ConcatDataset([ImageFolder(photographs, pipeline)] * PASSES)
    loader = DataLoader(passes, BATCH, shuffle=True, num_workers=1)
    return lambda: _workers_seconds(len(labels) for _, labels in loader)


def _workers_seconds(images: Iterable[int]) -> float:
    """CPU time of the one loading worker, the core that loading takes, while batches of so many `images` are loaded."""
    before = _children_seconds()
    assert sum(images) == PASSES * IMAGES
    return _children_seconds() - before


def _children_seconds() -> float:
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime
