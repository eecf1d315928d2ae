"""Loading photographs: LargeImages beside torchvision's ImageFolder with its default pipeline on Pillow images.

Both end in the same normalised float batches of 224 pixels; ours are uint8 until then. Single process, one thread.
"""

import io
import subprocess
import sys
import time
from pathlib import Path

import sklearn
import torch
import yaml
from PIL import Image
from torch.utils.data import DataLoader
from torchvision import transforms
from torchvision.datasets import ImageFolder

from benchmarks.pairs import Comparison, compare_calls
from moonshine.data.large_images import LargeImages
from moonshine.params.schema import Augmentation

IMAGES, BATCH = 128, 64
WIDTH, HEIGHT, BYTES = 500, 375, 110_000
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def write_photographs(folder: Path) -> None:
    """Crops of scikit-learn's two photographs at ImageNet's usual size and number of bytes, as a folder a class."""
    originals = sorted((Path(sklearn.__file__).parent / "datasets" / "images").glob("*.jpg"))
    for number in range(IMAGES):
        photograph = Image.open(originals[number % 2]).convert("RGB")
        left, top = number % 60, number // 3 % 40
        view = photograph.crop((left, top, left + 560, top + 380)).resize((WIDTH, HEIGHT), Image.Resampling.BICUBIC)
        for split in ("train", "val"):
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


def compare(folder: Path, resize: int | None) -> Comparison:
    """One epoch over all images in turns with the peer's."""
    torch.set_num_threads(1)
    photographs = folder / "photographs"
    if not photographs.exists():
        write_photographs(photographs)
    ours = LargeImages(prepare(folder / f"resize-{resize}", photographs, resize), "train", torch.device("cpu"), 0)
    pipeline = transforms.Compose(
        [
            transforms.RandomResizedCrop(224),
            transforms.RandomHorizontalFlip(),
            transforms.ToTensor(),
            transforms.Normalize(MEAN, STD),
        ]
    )
    theirs = DataLoader(ImageFolder(photographs / "train", pipeline), BATCH, shuffle=True)
    crops = Augmentation(crop_scale=[0.08, 1.0], flip=True)
    return compare_calls(
        lambda: _seconds(ours.training_batches(crops, seed=0, epoch=1, batch_size=BATCH)), lambda: _seconds(theirs)
    )


def _seconds(batches) -> float:  # type: ignore[no-untyped-def]
    """CPU time, for both sides load in this process and its neighbours shall not count."""
    start = time.process_time()
    assert sum(len(labels) for _, labels in batches) == IMAGES
    return time.process_time() - start
