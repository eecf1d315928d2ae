"""Photographs are prepared from archives of ILSVRC2012's exact layout and load as torchvision's pipeline loads them."""

import io
import json
import multiprocessing
import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision import transforms
from torchvision.transforms import functional

from benchmarks.separate_project import write_params
from moonshine.data import crops, jpeg_images
from moonshine.data.jpeg_images import JpegImages
from moonshine.data.loading import limited
from moonshine.data.order import epoch_order
from moonshine.errors import DataError
from moonshine.images import decoding
from moonshine.images.store import Split
from moonshine.params.schema import Augmentation
from moonshine.preparation.jpeg_store import JpegImage, inspect
from tests.support.imagenet_archives import ENCODINGS, KINDS, Archives, jpeg, jpeg_params
from tests.support.project import run_moonshine

pytestmark = pytest.mark.filterwarnings("ignore:(Corrupt|Truncated):UserWarning:PIL")  # of odd files, as for commands

CPU = torch.device("cpu")
CROPS = Augmentation(crop_scale=[0.08, 1.0], flip=True)


@pytest.fixture(scope="module")
def archives() -> Archives:
    return Archives(classes=12, train=4, val=30)


@pytest.fixture(scope="module")
def imagenet(archives: Archives, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Prepared from archives of twelve classes."""
    folder = tmp_path_factory.mktemp("imagenet")
    files = archives.write(folder / "raw")
    write_params(folder, jpeg_params("imagenet", folder / "raw", 12, files=files))
    run_moonshine("prepare", cwd=folder)
    return folder / "data" / "imagenet"


def test_every_image_comes_with_its_bytes_label_and_id(archives: Archives, imagenet: Path) -> None:
    train, val = Split(imagenet, "train"), Split(imagenet, "val")
    expected = [(name, data, archives.label(wnid)) for wnid, images in archives.train.items() for name, data in images]
    assert [f"{id_}.JPEG" for id_ in train.ids] == [name for name, _, _ in expected]
    assert [train.encoded(i) for i in range(len(train))] == [data for _, data, _ in expected]
    assert train.labels.tolist() == [label for _, _, label in expected]
    assert val.labels.tolist() == archives.validation_labels()
    assert [val.encoded(i) for i in range(len(val))] == [data for _, data in archives.val]


def test_classes_are_in_torchvisions_order_and_oddities_are_recorded(archives: Archives, imagenet: Path) -> None:
    manifest = json.loads((imagenet / "manifest.json").read_text())
    assert manifest["classes"] == sorted(archives.wnids)
    assert manifest["origin"]["words"][0] == f"word {archives.wnids[0]}, other"
    kinds = {oddity["kind"] for oddity in manifest["splits"]["train"]["oddities"]}
    assert kinds == {"CMYK", "PNG under a JPEG's name", "broken EXIF", "EXIF orientation 6"}
    odd = manifest["splits"]["train"]["oddities"][0]
    assert Split(imagenet, "train").ids[odd["index"]] == odd["id"]


def test_a_large_image_is_not_one_with_broken_exif(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)
    with pytest.warns(Image.DecompressionBombWarning):
        assert inspect(JpegImage(jpeg(1), 0, "it"), resize=None, evaluation=28) == (None, None, None)


@pytest.mark.parametrize("kind", [*KINDS, *ENCODINGS])
def test_the_pixels_are_those_of_torchvisions_pipeline(kind: str) -> None:
    """Bit for bit, for every kind of image that ImageNet has and more, larger and smaller than the crop."""
    for seed in range(30):
        encoded = jpeg(seed, width=30 + 7 * seed % 90, height=25 + 5 * seed % 80, kind=kind)
        theirs, ours = Image.open(io.BytesIO(encoded)).convert("RGB"), decoding.decode(encoded, "it")
        left, top, right, bottom = crops.draw_box(np.random.default_rng(seed), *ours.size, (0.08, 1.0))
        crop = functional.resized_crop(theirs, top, left, bottom - top, right - left, [24, 24])
        assert np.array_equal(random_crop(encoded, seed, flip=False), np.asarray(crop))
        mirrored = random_crop(encoded, seed, flip=True)
        assert any(np.array_equal(mirrored, np.asarray(view)) for view in (crop, functional.hflip(crop)))
        pipeline = transforms.Compose([transforms.Resize(28), transforms.CenterCrop(24)])
        assert np.array_equal(crops.evaluation_pixels(ours, "it", 24, 28), np.asarray(pipeline(theirs)))


def random_crop(encoded: bytes, seed: int, flip: bool = False) -> np.ndarray:
    return crops.training_pixels(encoded, "it", 24, (0.08, 1.0), flip, np.random.default_rng(seed))


@pytest.mark.parametrize("kind", ["RGB", "4:2:2", "4:4:4", "restart markers"])
@pytest.mark.parametrize("height", [1, 2, 15, 16, 17, 50])
def test_upper_rows_are_decoded_as_in_the_whole_image(kind: str, height: int) -> None:
    """However few: the rows of colour below the last of them count too."""
    encoded = jpeg(3, width=45, height=height, kind=kind)
    whole, frame = np.asarray(decoding.decode(encoded, "it")), crops._frame(encoded)
    assert frame is not None
    assert (frame.width, frame.height) == (45, height)
    for rows in range(1, height + 1):
        upper = crops._upper_rows(encoded, "it", frame, rows)
        assert upper.height <= rows + 1
        assert np.array_equal(np.asarray(upper)[:rows], whole[:rows])


def test_pixels_are_the_same_if_the_jpeg_library_cannot_write_pillows_layout(monkeypatch: pytest.MonkeyPatch) -> None:
    several = [jpeg(3, kind=kind) for kind in ("RGB", "4:4:4", "RGB in three components")]
    expected = [random_crop(encoded, 0) for encoded in several]
    monkeypatch.setattr(crops, "DECODED", "RGB")
    assert np.array_equal([random_crop(encoded, 0) for encoded in several], expected)


def test_only_what_is_decoded_from_top_to_bottom_is_decoded_in_part() -> None:
    whole = {kind for kind in (*KINDS, *ENCODINGS) if crops._frame(jpeg(1, kind=kind)) is None}
    assert whole == {"grey", "CMYK", "PNG", "progressive"}


def test_damaged_images_load_as_pillow_loads_them_or_are_refused() -> None:
    """Flipped bits and cut ends; only damage below a crop, which `prepare` would have refused, may go unseen."""
    random, seen = np.random.default_rng(0), set()
    for seed in range(2000):
        damaged = bytearray(jpeg(seed % 20, width=60, height=50))
        damaged[random.integers(2, len(damaged))] ^= 1 << random.integers(8)
        if seed % 4 == 0:
            del damaged[random.integers(2, len(damaged)) :]
        encoded = bytes(damaged)
        try:
            image = decoding.decode(encoded, "it")
        except DataError:
            seen.add(refused(encoded, seed))
        else:
            crop = image.crop(crops.draw_box(np.random.default_rng(seed), *image.size, (0.08, 1.0)))
            expected = np.asarray(crop.resize((24, 24), Image.Resampling.BILINEAR))
            assert np.array_equal(random_crop(encoded, seed), expected)
    assert seen == {True, False}


def refused(encoded: bytes, seed: int) -> bool:
    """Whether training refuses an image, with its name."""
    try:
        random_crop(encoded, seed)
    except DataError as error:
        return str(error).startswith("it: cannot be decoded (")
    return False


def damaged_file(kind: str) -> bytes:
    """What Pillow raises neither OSError nor ValueError for."""
    buffer = io.BytesIO()
    Image.open(io.BytesIO(jpeg(1))).save(buffer, kind)
    content = bytearray(buffer.getvalue())
    if kind == "AVIF":
        start = content.index(b"mdat") + 4
        content[start:] = bytes(len(content) - start)
    else:
        content[80:88] = b"\4\0\0\0XXXX"  # the code of a compression that there is not
    return bytes(content)


def test_what_is_no_image_is_named_without_an_address_in_memory() -> None:
    with pytest.raises(DataError, match=r"^it: cannot be decoded \(cannot identify image file\)$"):
        decoding.decode(b"<html>404</html>", "it")


@pytest.mark.parametrize("kind", ["AVIF", "DDS"])
def test_damage_to_images_of_other_formats_is_named(kind: str) -> None:
    with pytest.raises(DataError, match=r"^it: cannot be decoded \("):
        decoding.decode(damaged_file(kind), "it")


def png(width: int, height: int) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (width, height)).save(buffer, "PNG")
    return buffer.getvalue()


@pytest.mark.parametrize("resize", [28, None])
def test_an_image_too_long_once_scaled_is_the_images_problem(resize: int | None) -> None:
    """Not the memory's, when it is scaled for evaluation."""
    scaled, _, problem = inspect(JpegImage(png(29, 68_000), 0, "it"), resize, evaluation=28)
    assert (scaled, problem) == (None, "is 28 x 65655 pixels once scaled, more than 65500 on a side; crop it")
    scaled, _, problem = inspect(JpegImage(png(29, 67_000), 0, "it"), resize, evaluation=28)
    assert (scaled is None, problem) == (resize is None, None)


@pytest.mark.parametrize(
    ("mode", "kind"), [("I;16", "PNG"), ("I;16", "TIFF"), ("I;16B", "TIFF"), ("I", "TIFF"), ("F", "TIFF")]
)
def test_an_image_of_more_than_eight_bits_is_not_prepared(mode: str, kind: str) -> None:
    """Training takes it as torchvision does, all white; but who prepares it is told."""
    buffer = io.BytesIO()
    Image.new(mode, (4, 4)).save(buffer, kind)
    assert decoding.decode(buffer.getvalue(), "it").mode == "RGB"
    problem = inspect(JpegImage(buffer.getvalue(), 0, "it"), resize=None, evaluation=28)[2]
    assert problem == f"has more than 8 bits per channel (mode {mode}); convert it to 8 bits"


def test_a_small_file_that_claims_a_huge_image_is_not_decoded() -> None:
    """34 bytes of WebP can take gigabytes: the claim alone is refused. A large photograph is none of that."""
    claim = bytearray(png(1, 1))
    claim[16:24] = struct.pack(">II", 5000, 5000)
    claim[29:33] = struct.pack(">I", zlib.crc32(claim[12:29]))
    problem = inspect(JpegImage(bytes(claim), 0, "it"), resize=None, evaluation=28)[2]
    assert problem == f"claims 25,000,000 pixels in {len(claim)} bytes, more than any photograph has"
    assert inspect(JpegImage(bytes(claim) + bytes(100_000), 0, "it"), None, 28)[2] != problem


def deep(kind: str) -> bytes:
    """Colours of 16 bits, as Pillow reads but does not write them."""
    if kind == "PNM":
        return b"P6 2 2 65535\n" + bytes(24)
    if kind == "PNG":
        header, row = struct.pack(">IIBBBBB", 2, 2, 16, 2, 0, 0, 0), bytes(13)
        chunks = ((b"IHDR", header), (b"IDAT", zlib.compress(2 * row)), (b"IEND", b""))
        of_chunks = (struct.pack(">I", len(c)) + n + c + struct.pack(">I", zlib.crc32(n + c)) for n, c in chunks)
        return b"\x89PNG\r\n\x1a\n" + b"".join(of_chunks)
    # width, height, bits, raw, RGB, where the pixels are, channels, rows, bytes, whether channels are apart
    tags = ((256, 2), (257, 2), (258, 134), (259, 1), (262, 2), (273, 140), (277, 3), (278, 2), (279, 24), (284, 2))
    entries = b"".join(struct.pack("<HHII", tag, 3, 3 if tag == 258 else 1, value) for tag, value in tags)
    return (
        struct.pack("<2sHIH", b"II", 42, 8, len(tags))
        + entries
        + bytes(4)
        + struct.pack("<HHH", 16, 16, 16)
        + bytes(24)
    )


@pytest.mark.parametrize("kind", ["PNG", "PNM", "TIFF"])
def test_a_colour_image_of_more_than_eight_bits_is_not_prepared(kind: str) -> None:
    assert Image.open(io.BytesIO(deep(kind))).mode == "RGB"
    problem = inspect(JpegImage(deep(kind), 0, "it"), resize=None, evaluation=28)[2]
    assert str(problem).startswith("has more than 8 bits per channel (")


def test_an_image_of_one_bit_is_prepared() -> None:
    assert inspect(JpegImage(b"P1 2 2\n1 0 0 1\n", 0, "it", jpeg=False), resize=None, evaluation=28)[2] is None


def test_what_no_network_sees_of_an_image_is_recorded() -> None:
    """Transparency, frames after the first, and how the picture was held; usual images are not odd."""
    another = {"save_all": True, "append_images": [Image.new("RGB", (4, 6), 1)]}
    for mode, kind, frames, orientation, oddity in (
        ("RGBA", "PNG", {}, None, "alpha"),
        ("RGB", "GIF", another, None, "several frames"),
        ("RGB", "TIFF", another, None, "several frames"),
        ("RGB", "PNG", {}, 8, "EXIF orientation 8"),
        ("RGBA", "WEBP", {}, 3, "alpha, EXIF orientation 3"),
        ("RGB", "JPEG", {}, 1, None),
        ("RGB", "JPEG", {}, 9, None),
        ("RGB", "TIFF", {}, 6, None),
        ("P", "PNG", {}, None, None),
    ):
        exif, buffer = Image.Exif(), io.BytesIO()
        if orientation:
            exif[0x0112] = orientation
        Image.new(mode, (4, 6)).save(buffer, kind, exif=exif, **frames)
        assert inspect(JpegImage(buffer.getvalue(), 0, "it", jpeg=False), None, 28) == (None, oddity, None)


def test_crops_are_distributed_as_torchvisions() -> None:
    """Area, ratio and position of many boxes, against its own draws; also where no box fits and the centre is taken."""
    torch.manual_seed(0)
    random = np.random.default_rng(0)
    for width, height in ((50, 40), (200, 20)):
        blank = torch.empty(1, height, width)
        get = transforms.RandomResizedCrop.get_params
        theirs = np.array([get(blank, [0.08, 1.0], [3 / 4, 4 / 3]) for _ in range(4000)])
        boxes = np.array([crops.draw_box(random, width, height, (0.08, 1.0)) for _ in range(4000)])
        ours = np.stack([boxes[:, 1], boxes[:, 0], boxes[:, 3] - boxes[:, 1], boxes[:, 2] - boxes[:, 0]], axis=1)
        assert (abs(ours.mean(0) - theirs.mean(0)) < 4 * theirs.std(0) / 4000**0.5 * 2**0.5 + 1e-9).all()
        assert (ours.min(0) >= theirs.min(0) - 2).all()
        assert (ours.max(0) <= theirs.max(0) + 2).all()
    for width, height in ((1000, 10), (10, 1000)):  # where no crop fits, the middle
        top, left, down, across = get(torch.empty(1, height, width), [0.9, 1.0], [3 / 4, 4 / 3])
        assert crops.draw_box(random, width, height, (0.9, 1.0)) == (left, top, left + across, top + down)


@pytest.mark.parametrize("workers", [0, 1, 3])
def test_batches_depend_on_seed_epoch_and_index_alone(workers: int, imagenet: Path) -> None:
    data = JpegImages(imagenet, "train", CPU, workers)
    batches = list(data.training_batches(CROPS, seed=3, epoch=2, batch_size=10))
    reference = JpegImages(imagenet, "train", CPU, 0)
    other_sizes = torch.cat([images for images, _ in reference.training_batches(CROPS, 3, 2, batch_size=7)])
    assert torch.equal(torch.cat([images for images, _ in batches]), other_sizes)
    labels = torch.cat([labels for _, labels in batches])
    assert torch.equal(labels, data.labels[epoch_order(3, 2, len(data))])
    rest = list(data.training_batches(CROPS, seed=3, epoch=2, batch_size=10, first=3))
    for (images, _), (again, _) in zip(batches[3:], rest, strict=True):
        assert torch.equal(images, again)
    other_epoch = torch.cat([images for images, _ in reference.training_batches(CROPS, 3, 3, 10)])
    assert not torch.equal(other_epoch.sort(0).values, other_sizes.sort(0).values)


@pytest.mark.parametrize("workers", [0, 2])
def test_a_part_of_the_images_is_decoded_as_in_the_whole(workers: int, imagenet: Path) -> None:
    data = JpegImages(imagenet, "train", CPU, workers)
    part = limited(data, 13)
    whole, of_part = (list(each.training_batches(CROPS, seed=3, epoch=2, batch_size=5)) for each in (data, part))
    numbers = part.visited[epoch_order(3, 2, 13)].tolist()
    pixels = dict(zip(epoch_order(3, 2, len(data)).tolist(), torch.cat([images for images, _ in whole])))
    assert torch.equal(torch.cat([images for images, _ in of_part]), torch.stack([pixels[each] for each in numbers]))
    assert torch.equal(torch.cat([labels for _, labels in of_part]), data.labels[numbers])
    (again, _), *_ = part.training_batches(CROPS, seed=3, epoch=2, batch_size=5, first=1)
    assert torch.equal(again, of_part[1][0])


def test_workers_inherit_the_data_whatever_python_starts_processes_with(
    imagenet: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Python 3.14 starts them from a server, to which it would send the mapped file."""

    def refuse(view: Any, protocol: int) -> Any:
        raise AssertionError("the data are copied")

    monkeypatch.setattr(
        multiprocessing.context._default_context, "_actual_context", multiprocessing.get_context("spawn")
    )
    monkeypatch.setattr(jpeg_images._View, "__reduce_ex__", refuse)
    batches = JpegImages(imagenet, "train", CPU, 1).training_batches(CROPS, 0, 1, 20)
    assert sum(len(labels) for _, labels in batches) == 48


def test_loading_leaves_the_global_randomness_alone(imagenet: Path) -> None:
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    list(JpegImages(imagenet, "train", CPU, 1).training_batches(CROPS, 0, 1, 20))
    list(JpegImages(imagenet, "val", CPU, 0).evaluation_batches(20))
    assert torch.equal(torch.rand(3), expected)


def test_evaluation_sees_every_image_once_normalised_as_published_networks_expect(imagenet: Path) -> None:
    data = JpegImages(imagenet, "val", CPU, 2)
    images, labels = (torch.cat(parts) for parts in zip(*data.evaluation_batches(8)))
    assert torch.equal(labels, data.labels)
    pipeline = transforms.Compose(
        [
            transforms.Resize(28),
            transforms.CenterCrop(24),
            transforms.ToTensor(),
            transforms.Normalize((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
        ]
    )
    source = Split(imagenet, "val")
    theirs = torch.stack([pipeline(decoding.decode(source.encoded(i), "it")) for i in range(len(source))])
    torch.testing.assert_close(images, theirs, atol=1e-5, rtol=0)


@pytest.fixture(scope="module")
def project(imagenet: Path) -> Path:
    """With a trained teacher."""
    run_moonshine("train", "teacher", "--seed", "0", cwd=imagenet.parent.parent)
    return imagenet.parent.parent


def test_a_network_trains_and_is_measured_on_photographs(project: Path) -> None:
    result = run_moonshine("evaluate", "train/teacher", cwd=project)
    assert "top-1 error" in result.stderr
    assert json.loads((project / "results/toy/metrics/train/teacher.json").read_text())["n"] == 30


def test_an_image_that_rots_after_preparation_is_named_in_one_line(imagenet: Path, project: Path) -> None:
    source = Split(imagenet, "val")
    start, length = source._positions[17].tolist()
    path = imagenet / "val.arrow"
    content = path.read_bytes()
    try:
        path.write_bytes(content[:start] + bytes(length) + content[start + length :])
        result = run_moonshine("evaluate", "train/teacher", cwd=project, check=False)
    finally:
        path.write_bytes(content)
    assert result.returncode == 3
    errors = [line for line in result.stderr.splitlines() if line.startswith("error: ")]
    assert len(errors) == 1
    assert "val.arrow: image 17: cannot be decoded" in errors[0]
    assert "Traceback" not in result.stderr
