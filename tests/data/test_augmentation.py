"""What may be added to crops and flips has torchvision's definitions and depends on seed, epoch and index alone."""

from copy import deepcopy
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch.nn.functional import cross_entropy, one_hot
from torchvision import transforms
from torchvision.transforms import v2

from benchmarks.separate_project import write_params
from moonshine.data import erasing
from moonshine.data.augmentation import EpochAugmentation
from moonshine.data.class_weights import weighted_cross_entropy
from moonshine.data.jpeg_images import JpegImages
from moonshine.data.labels import MixedLabels, correct_predictions
from moonshine.data.loading import Images, SmallImages, limited
from moonshine.data.mixing import Mixing
from moonshine.data.order import derived_seed, epoch_order, generator
from moonshine.data.trivial_augment import TrivialAugment
from moonshine.distillation.objective import Distillation
from moonshine.distillation.teacher import Teacher
from moonshine.models.architecture import architecture_of
from moonshine.models.attention_layers import attention_layers_of
from moonshine.models.networks import initialise
from moonshine.params import Params, Recipe
from moonshine.params.schema import Augmentation
from moonshine.project.rows import Row
from moonshine.runtime import distributed
from moonshine.training.state import TrainingState
from tests.support.imagenet_archives import Archives, jpeg_params
from tests.support.project import run_moonshine, toy_params

CPU = torch.device("cpu")
SEED, EPOCH, BATCH = 3, 2, 10
KEYS: dict[str, dict[str, Any]] = {
    "trivial_augment": {"trivial_augment": True},
    "cutout": {"cutout": 5},
    "random_erasing": {"random_erasing": 0.6},
    "mixup": {"mixup": 0.4},
    "cutmix": {"cutmix": 1.0},
    "all": {"trivial_augment": True, "cutout": 5, "random_erasing": 0.6, "mixup": 0.4, "cutmix": 1.0},
}
each_key = pytest.mark.parametrize("keys", KEYS.values(), ids=KEYS)


@pytest.fixture(scope="module")
def digits(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("digits")
    write_params(folder, toy_params())
    run_moonshine("prepare", cwd=folder)
    return folder / "data" / "digits"


@pytest.fixture(scope="module")
def photographs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("photographs")
    files = Archives(classes=8, train=4, val=8).write(folder / "raw")
    write_params(folder, jpeg_params("imagenet", folder / "raw", 8, files=files))
    run_moonshine("prepare", cwd=folder)
    return folder / "data" / "imagenet"


@pytest.fixture(params=["small", "jpeg"])
def images(request: pytest.FixtureRequest) -> Images:
    """45 grey images in memory, or 32 colour images on disk: their last batches are smaller than the others."""
    if request.param == "jpeg":
        return JpegImages(request.getfixturevalue("photographs"), "train", CPU, 0)
    return limited(SmallImages(request.getfixturevalue("digits"), "train", CPU), 45)


def settings_for(images: Images, **keys: Any) -> Augmentation:
    usual = {"crop_scale": [0.3, 1.0]} if isinstance(images, JpegImages) else {"pad": 1}
    return Augmentation.model_validate({"flip": True, **usual, **keys})


def batches_of(images: Images, epoch: int = EPOCH, first: int = 0, **keys: Any) -> list[tuple[torch.Tensor, Any]]:
    return list(images.training_batches(settings_for(images, **keys), SEED, epoch, BATCH, first))


def assert_same(ours: list[tuple[torch.Tensor, Any]], others: list[tuple[torch.Tensor, Any]]) -> None:
    for (images, labels), (other_images, other_labels) in zip(ours, others, strict=True):
        assert torch.equal(images, other_images)
        if isinstance(labels, MixedLabels):
            assert labels.share == other_labels.share
            assert torch.equal(labels.own, other_labels.own)
            assert torch.equal(labels.partner, other_labels.partner)
        else:
            assert torch.equal(labels, other_labels)


@each_key
def test_batches_can_be_had_from_any_point_on(keys: dict[str, Any], images: Images) -> None:
    whole = batches_of(images, **keys)
    assert_same(whole[2:], batches_of(images, first=2, **keys))
    assert sum(len(labels) for _, labels in whole) == len(images)
    plain = batches_of(images)
    changed = [not torch.equal(batch, usual) for (batch, _), (usual, _) in zip(whole, plain, strict=True)]
    assert all(changed)
    other_epoch = batches_of(images, epoch=EPOCH + 1, **keys)
    assert not torch.equal(other_epoch[0][0], whole[0][0])


@each_key
@pytest.mark.parametrize("processes", [2, 3])
def test_several_processes_see_the_batches_of_one(
    processes: int, keys: dict[str, Any], images: Images, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Bit for bit, including partners whose image belongs to another process's share."""
    alone = batches_of(images, **keys)
    monkeypatch.setattr(distributed, "WORLD_SIZE", processes)
    shares = []
    for rank in range(processes):
        monkeypatch.setattr(distributed, "RANK", rank)
        shares.append(batches_of(images, **keys))
    together = [(torch.cat([part for part, _ in parts]), joined([each for _, each in parts])) for parts in zip(*shares)]
    assert_same(alone, together)


def joined(labels: list[Any]) -> Any:
    if not isinstance(labels[0], MixedLabels):
        return torch.cat(labels)
    assert len({each.share for each in labels}) == 1
    return MixedLabels(
        torch.cat([each.own for each in labels]), torch.cat([each.partner for each in labels]), labels[0].share
    )


@each_key
def test_the_number_of_workers_changes_nothing(keys: dict[str, Any], photographs: Path) -> None:
    alone, with_workers = (JpegImages(photographs, "train", CPU, workers) for workers in (0, 2))
    assert_same(batches_of(alone, **keys), batches_of(with_workers, **keys))


@pytest.mark.parametrize("key", ["trivial_augment", "cutout", "random_erasing"])
def test_an_image_is_changed_alike_in_any_batch(key: str, images: Images) -> None:
    settings = settings_for(images, **KEYS[key])
    several = [
        torch.cat([batch for batch, _ in images.training_batches(settings, SEED, EPOCH, size)]) for size in (10, 7)
    ]
    assert torch.equal(*several)


def test_the_partner_is_the_image_before_in_the_batch(images: Images) -> None:
    for _, labels in batches_of(images, mixup=0.4):
        assert torch.equal(labels.partner, labels.own.roll(1))
    plain = [labels for _, labels in batches_of(images)]
    assert all(torch.equal(mixed.own, usual) for (_, mixed), usual in zip(batches_of(images, mixup=0.4), plain))


@pytest.mark.parametrize("key", ["mixup", "cutmix"])
def test_the_only_image_of_a_batch_is_its_own_partner(key: str, images: Images) -> None:
    settings = settings_for(images, **KEYS[key])
    for first in (0, len(images) - 1):
        (image, two), (usual, label) = (
            next(images.training_batches(keys, SEED, EPOCH, 1, first)) for keys in (settings, settings_for(images))
        )
        torch.testing.assert_close(image, usual)
        assert two.own == two.partner == label


@pytest.mark.parametrize(("key", "theirs"), [("mixup", v2.MixUp), ("cutmix", v2.CutMix)])
@pytest.mark.parametrize("alpha", [0.2, 1.0, 3.0])
def test_mixed_batches_are_torchvisions(key: str, theirs: Any, alpha: float) -> None:
    mixing = Mixing(Augmentation.model_validate({"flip": False, key: alpha}), SEED, EPOCH)
    images, labels = torch.randn(7, 3, 9, 12, generator=generator("it")), torch.arange(7)
    for step in range(20):
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(derived_seed("mixing", SEED, EPOCH, step))
            expected, probabilities = theirs(alpha=alpha, num_classes=7)(images, labels)
        mixed, two = mixing(step, torch.cat([images[-1:], images]), torch.cat([labels[-1:], labels]))
        assert torch.equal(mixed, expected)
        ours = two.share * one_hot(two.own, 7) + (1 - two.share) * one_hot(two.partner, 7)
        torch.testing.assert_close(ours, probabilities)


def test_shares_are_drawn_from_a_beta_distribution_and_half_of_the_batches_get_each_mixing() -> None:
    images, labels = torch.stack([torch.zeros(1, 16, 16), torch.ones(1, 16, 16)]), torch.arange(2)
    shares = []
    for alpha in (0.2, 1.0):
        mixing = Mixing(Augmentation(flip=False, mixup=alpha), SEED, EPOCH)
        drawn = torch.tensor([mixing(step, images, labels)[1].share for step in range(2000)])
        assert abs(drawn.mean() - 0.5) < 0.03
        assert abs(drawn.var() - 1 / (4 * (2 * alpha + 1))) < 0.015
        shares.append(drawn)
    assert len(set(shares[0].tolist())) > 1900
    both = Mixing(Augmentation(flip=False, mixup=1.0, cutmix=1.0), SEED, EPOCH)
    cut = 0
    for step in range(1000):
        mixed, two = both(step, images, labels)
        assert abs(mixed.mean() - two.share) < 1e-5, "the share of the own image, here of ones"
        cut += bool(((mixed == 0) | (mixed == 1)).all())
    assert 450 < cut < 550


def test_the_smallest_alpha_leaves_one_of_two_images() -> None:
    images, labels = torch.randn(2, 1, 4, 4), torch.arange(2)
    mixing = Mixing(Augmentation(flip=False, mixup=0.05), SEED, EPOCH)
    shares = torch.tensor([mixing(step, images, labels)[1].share for step in range(2000)])
    assert abs(shares.mean() - 0.5) < 0.04
    assert ((shares - 0.5).abs() > 0.49).float().mean() > 0.75
    assert (shares == 0.5).sum() < 3, "of draws that underflow"


def test_the_loss_of_mixed_images_is_that_of_their_probabilities() -> None:
    logits = torch.linspace(-2, 2, 24).sin().view(8, 3)
    two = MixedLabels(torch.tensor([0, 0, 1, 1, 2, 2, 0, 1]), torch.tensor([1, 0, 2, 1, 0, 2, 2, 0]), 0.7)
    probabilities = 0.7 * one_hot(two.own, 3) + 0.3 * one_hot(two.partner, 3)
    torch.testing.assert_close(weighted_cross_entropy(logits, two, None), cross_entropy(logits, probabilities))
    weights = torch.tensor([0.5, 1.0, 2.0])
    for smoothing in (0.0, 0.1):
        for of_classes in (None, weights):
            ours = weighted_cross_entropy(logits.bfloat16(), two, of_classes, smoothing)
            theirs = cross_entropy(logits.bfloat16().float(), probabilities, of_classes, label_smoothing=smoothing)
            torch.testing.assert_close(ours, theirs)
    weighted = (0.7 * weights[two.own] * cross_entropy(logits, two.own, reduction="none")).mean()
    weighted += (0.3 * weights[two.partner] * cross_entropy(logits, two.partner, reduction="none")).mean()
    torch.testing.assert_close(weighted_cross_entropy(logits, two, weights), weighted)
    halves = [MixedLabels(two.own[part], two.partner[part], 0.7) for part in (slice(0, 4), slice(4, 8))]
    means = [weighted_cross_entropy(part, half, weights) for part, half in zip(logits.split(4), halves)]
    torch.testing.assert_close(torch.stack(means).mean(), weighted)


def test_a_prediction_for_a_mixed_image_counts_by_the_share_of_its_class() -> None:
    logits = torch.eye(4)[[0, 1, 2, 3]]
    two = MixedLabels(torch.tensor([0, 0, 0, 3]), torch.tensor([1, 1, 1, 3]), 0.75)
    assert correct_predictions(logits, two).item() == 0.75 + 0.25 + 0 + 1
    assert correct_predictions(logits, two.own).item() == 2


@pytest.mark.parametrize("side", [4, 5])
def test_cutout_erases_a_square_around_any_pixel(side: int) -> None:
    count, size = 4000, 8
    boxes = erasing.cutout_boxes(side, size, count, generator("it"))
    erased = erasing.erase(torch.ones(count, 2, size, size), boxes) == 0
    centres = boxes[:, :2] + side // 2
    assert torch.equal(centres.unique(dim=0), torch.cartesian_prod(torch.arange(size), torch.arange(size)))
    for image, (row, column) in zip(erased[:200], centres.tolist()):
        expected = torch.zeros(size, size, dtype=torch.bool)
        top, left = row - side // 2, column - side // 2
        expected[max(top, 0) : top + side, max(left, 0) : left + side] = True
        assert torch.equal(image, expected.expand(2, -1, -1))


def test_random_erasing_draws_torchvisions_rectangles() -> None:
    count, size = 4000, 32
    boxes = erasing.random_erasing_boxes(0.25, size, count, generator("it"))
    heights, widths = boxes[:, 2] - boxes[:, 0], boxes[:, 3] - boxes[:, 1]
    erased = heights > 0
    assert abs(erased.float().mean() - 0.25) < 0.03
    assert boxes.min() >= 0
    assert boxes.max() <= size
    assert max(heights.max(), widths.max()) < size
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        image = torch.ones(1, size, size)
        draw = transforms.RandomErasing.get_params
        theirs = torch.tensor([draw(image, scale=(0.02, 0.33), ratio=(0.3, 3.3), value=[0.0])[:4] for _ in range(1000)])
    ours = torch.stack([boxes[:, 0], boxes[:, 1], heights, widths], dim=1)[erased]
    for statistic in (lambda drawn: drawn.double().mean(0), lambda drawn: drawn.double().std(0)):
        torch.testing.assert_close(statistic(ours), statistic(theirs), rtol=0.1, atol=0.3)
    (top, left, height, width), box = ours[0].tolist(), boxes[erased][:1]
    pixels = torch.rand(1, 3, size, size)
    expected = v2.functional.erase(pixels, top, left, height, width, torch.zeros(1))
    assert torch.equal(erasing.erase(pixels.clone(), box), expected)


@pytest.mark.parametrize("channels", [1, 3])
def test_trivial_augment_is_torchvisions(channels: int) -> None:
    pixels = torch.randint(256, (60, channels, 12, 12), generator=generator("it"), dtype=torch.uint8)
    augment = EpochAugmentation(Augmentation(flip=False, trivial_augment=True), SEED, EPOCH, len(pixels))
    augmented = augment(pixels, torch.arange(len(pixels)))
    assert augmented.dtype == torch.uint8
    changed = 0
    for index, (image, ours) in enumerate(zip(pixels, augmented)):
        array = image[0].numpy() if channels == 1 else image.permute(1, 2, 0).numpy()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(derived_seed("trivial augment", SEED, EPOCH, index))
            theirs = transforms.TrivialAugmentWide()(Image.fromarray(array))
        expected = np.asarray(theirs).reshape(12, 12, channels).transpose(2, 0, 1)
        assert np.array_equal(ours.numpy(), expected)
        changed += not torch.equal(ours, image)
    assert changed > 30


def test_trivial_augment_leaves_the_global_randomness_alone() -> None:
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    TrivialAugment(SEED, EPOCH)(Image.new("RGB", (4, 4)), 7)
    assert torch.equal(torch.rand(3), expected)


def test_erased_pixels_have_the_mean(images: Images) -> None:
    """0 once normalised, of every channel."""
    before, after = (torch.cat([batch for batch, _ in batches_of(images, **keys)]) for keys in ({}, {"cutout": 5}))
    differing = before != after
    assert differing.any()
    assert (after[differing] == 0).all()


def test_training_images_may_have_another_size(photographs: Path) -> None:
    """The same crops, scaled to it; evaluation stays at the data set's."""
    data = JpegImages(photographs, "train", CPU, 0)
    smaller = batches_of(data, crop_size=16)
    assert [tuple(batch.shape[1:]) for batch, _ in smaller] == [(3, 16, 16)] * 4
    assert [tuple(batch.shape[1:]) for batch, _ in data.evaluation_batches(16)] == [(3, 24, 24)] * 2
    assert_same(batches_of(data), batches_of(data, crop_size=24))
    halved = torch.nn.functional.adaptive_avg_pool2d(torch.cat([batch for batch, _ in batches_of(data)]), 4)
    also = torch.nn.functional.adaptive_avg_pool2d(torch.cat([batch for batch, _ in smaller]), 4)
    assert torch.corrcoef(torch.stack([halved.flatten(), also.flatten()]))[0, 1] > 0.98
    boxes = [batch for batch, _ in batches_of(data, crop_size=16, cutout=4)]
    assert all((batch == 0).any() for batch in boxes)


def test_an_epochs_order_is_that_without_the_keys(images: Images) -> None:
    labels = torch.cat([each.own for _, each in batches_of(images, **KEYS["all"])])
    assert torch.equal(labels, images.labels[images.visited[epoch_order(SEED, EPOCH, len(images))]])


def test_training_at_another_size_resumes_exactly(photographs: Path) -> None:
    """By attention transfer in bfloat16, with all keys, on some of the images."""
    params = jpeg_params("imagenet", photographs, 8)
    network = Params.model_validate(toy_params()).networks["student"]
    architecture = architecture_of(network, 8, 3)
    layers = attention_layers_of(architecture)
    data = limited(JpegImages(photographs, "train", CPU, 0), 20)
    augmentation = settings_for(data, crop_size=16, **KEYS["all"])
    recipe = Recipe.model_validate({**params["recipe"], "precision": "bfloat16", "label_smoothing": 0.1})
    teacher = Teacher(initialise(architecture, 1), layers, torch.bfloat16)

    def state() -> TrainingState:
        objective = Distillation(layers, beta=10.0, groups=[1, 4], alpha=0.5, label_smoothing=0.1)
        return TrainingState(Row.parse("distil/at/student"), architecture, objective, recipe, 0, CPU)

    def train(trained: TrainingState, last: int) -> None:
        for images, labels in islice(data.training_batches(augmentation, 0, 1, 7, trained.batch), last - trained.batch):
            assert images.shape[2:] == (16, 16)
            trained.step(images, labels, teacher(images))

    whole, stopped = state(), state()
    train(whole, 3)
    for step in (1, 2):
        train(stopped, step)
        resumed = state()
        resumed.load_checkpoint(deepcopy(stopped.checkpoint()))
        train(resumed, 3)
        assert all(map(torch.equal, whole.tensors(), resumed.tensors()))
    assert whole.training_means() == resumed.training_means()
