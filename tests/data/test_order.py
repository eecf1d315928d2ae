"""Order and augmentation are functions of (seed, epoch, index) alone."""

from pathlib import Path

import pytest
import torch

from benchmarks.separate_project import write_params
from moonshine.data.augmentation import EpochAugmentation
from moonshine.data.loading import SmallImages, limited
from moonshine.data.order import epoch_order, first_images
from moonshine.params.schema import Augmentation
from moonshine.runtime import distributed
from tests.support.project import run_moonshine, toy_params

SETTINGS = Augmentation(pad=1, flip=True)
CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def digits(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("digits")
    write_params(folder, toy_params())
    run_moonshine("prepare", cwd=folder)
    return folder / "data" / "digits"


def test_an_epoch_visits_every_image_once_in_an_order_of_its_own() -> None:
    first, second, other_seed = epoch_order(0, 1, 1000), epoch_order(0, 2, 1000), epoch_order(1, 1, 1000)
    for order in (first, second, other_seed):
        assert sorted(order.tolist()) == list(range(1000))
    assert not torch.equal(first, second)
    assert not torch.equal(first, other_seed)
    assert torch.equal(first, epoch_order(0, 1, 1000))


def test_batches_can_be_had_from_any_point_on(digits: Path) -> None:
    data = SmallImages(digits, "train", CPU)
    whole = list(data.training_batches(SETTINGS, seed=3, epoch=2, batch_size=100))
    rest = list(data.training_batches(SETTINGS, seed=3, epoch=2, batch_size=100, first=7))
    assert sum(len(labels) for _, labels in whole) == len(data) == 1197
    for (images, labels), (same_images, same_labels) in zip(whole[7:], rest, strict=True):
        assert torch.equal(images, same_images)
        assert torch.equal(labels, same_labels)


def test_an_images_augmentation_does_not_depend_on_its_batch(digits: Path) -> None:
    images = SmallImages(digits, "train", CPU).images
    augment = EpochAugmentation(SETTINGS, seed=0, epoch=1, count=len(images))
    together = augment(images[:50], torch.arange(50))
    alone = torch.cat([augment(images[i : i + 1], torch.tensor([i])) for i in range(50)])
    assert torch.equal(together, alone)
    assert not torch.equal(together, images[:50])
    assert not torch.equal(together, EpochAugmentation(SETTINGS, 0, 2, len(images))(images[:50], torch.arange(50)))


def test_each_seed_has_an_order_of_its_own(digits: Path) -> None:
    data = SmallImages(digits, "train", CPU)
    data.labels = torch.arange(len(data))
    first, other = (
        torch.cat([labels for _, labels in data.training_batches(Augmentation(flip=False), seed, 1, 100)])
        for seed in (0, 1)
    )
    assert not torch.equal(first, other)


def test_half_of_the_images_are_mirrored_left_to_right_and_each_seed_mirrors_others() -> None:
    images = torch.arange(12, dtype=torch.uint8).view(1, 1, 3, 4).expand(2000, -1, -1, -1)
    mirrored = []
    for seed in (0, 1):
        augmented = EpochAugmentation(Augmentation(flip=True), seed, 1, 2000)(images, torch.arange(2000))
        is_mirrored = (augmented == images[:1].flip(3)).flatten(1).all(1)
        assert torch.equal(~is_mirrored, (augmented == images[:1]).flatten(1).all(1))
        assert 900 < int(is_mirrored.sum()) < 1100
        mirrored.append(is_mirrored)
    assert not torch.equal(*mirrored)


def test_the_random_crop_is_that_of_a_padded_image() -> None:
    image = torch.arange(1, 17, dtype=torch.uint8).view(1, 1, 4, 4)
    padded = torch.nn.functional.pad(image, (2, 2, 2, 2))
    possible = {tuple(padded[0, 0, y : y + 4, x : x + 4].flatten().tolist()) for y in range(5) for x in range(5)}
    drawn = set()
    for epoch in range(400):
        augment = EpochAugmentation(Augmentation(pad=2, flip=False), seed=0, epoch=epoch, count=1)
        drawn.add(tuple(augment(image, torch.tensor([0])).flatten().tolist()))
    assert drawn == possible


def test_evaluation_visits_every_image_once_in_order(digits: Path) -> None:
    data = SmallImages(digits, "val", CPU)
    labels = torch.cat([labels for _, labels in data.evaluation_batches(70)])
    assert torch.equal(labels, data.labels)
    assert len(labels) == 600


def test_the_split_is_stratified_and_disjoint(digits: Path) -> None:
    from moonshine.images.store import Split

    train, val = Split(digits, "train"), Split(digits, "val")
    assert set(train.ids).isdisjoint(val.ids)
    assert len(train) + len(val) == 1797
    share = [
        (val.labels == digit).sum() / ((val.labels == digit).sum() + (train.labels == digit).sum())
        for digit in range(10)
    ]
    assert max(share) - min(share) < 0.01


def test_training_pixels_are_normalised(digits: Path) -> None:
    data = SmallImages(digits, "train", CPU)
    images = torch.cat([images for images, _ in data.evaluation_batches(1000)])
    assert images.mean().abs() < 1e-3
    assert (images.std() - 1).abs() < 1e-3


UNEVEN = torch.tensor([3] * 40 + [0] * 500 + [1] * 7 + [5] * 120 + [2])
"""Labels of five classes, of which one has a single image."""


def test_a_part_of_the_images_is_in_every_larger_part(digits: Path) -> None:
    for labels in (SmallImages(digits, "train", CPU).labels, UNEVEN):
        before = set[int]()
        for count in range(10, len(labels) + 1):
            chosen = first_images(labels, count).tolist()
            assert sorted(set(chosen)) == chosen
            assert len(chosen) == count
            assert before < set(chosen)
            before = set(chosen)


def test_a_part_has_each_classes_share_to_within_one_image(digits: Path) -> None:
    labels = SmallImages(digits, "train", CPU).labels
    shares = labels.bincount() / len(labels)
    for count in range(10, len(labels) + 1):
        of_classes = labels[first_images(labels, count)].bincount(minlength=10)
        assert (of_classes - count * shares).abs().max() < 1
        assert of_classes.min() >= 1


def test_a_rare_class_comes_before_its_share_and_the_others_catch_up() -> None:
    sizes = UNEVEN.bincount()
    present = sizes > 0
    for count in range(5, len(UNEVEN) + 1):
        of_classes = UNEVEN[first_images(UNEVEN, count)].bincount(minlength=len(sizes))
        assert of_classes[present].min() >= 1
        too_many = of_classes - count * sizes / len(UNEVEN)
        assert too_many.max() < 1
        assert too_many.min() > (-1 if count >= 100 else -3)


def test_a_part_is_chosen_at_random_within_a_class(digits: Path) -> None:
    """Not the first of the file, whose images may be sorted by more than their class."""
    labels = SmallImages(digits, "train", CPU).labels
    chosen = first_images(labels, 100)
    first_in_file = torch.cat([(labels == digit).nonzero()[:10, 0] for digit in range(10)])
    assert len(set(chosen.tolist()) & set(first_in_file.tolist())) < 50


def visited(data: SmallImages, seed: int, epoch: int, first: int = 0) -> list[int]:
    """The images of the batches of an epoch, by their numbers, which stand in for the labels."""
    batches = data.training_batches(SETTINGS, seed, epoch, 100, first)
    return [number for _, numbers in batches for number in numbers.tolist()]


def test_every_seed_and_epoch_visits_the_same_part_in_an_order_of_its_own(digits: Path) -> None:
    data = SmallImages(digits, "train", CPU)
    part = limited(data, 250)
    chosen = first_images(data.labels, 250).tolist()
    part.labels = torch.arange(len(data))
    orders = [visited(part, seed, epoch) for seed, epoch in ((0, 1), (0, 2), (1, 1))]
    assert all(sorted(order) == chosen for order in orders)
    assert len({tuple(order) for order in orders}) == 3
    assert visited(part, 0, 1, first=1) == orders[0][100:]
    assert len(part) == 250
    assert len(data) == 1197, "the split itself stays whole"


def test_all_images_are_the_usual_order(digits: Path) -> None:
    data = SmallImages(digits, "train", CPU)
    data.labels = torch.arange(len(data))
    for part in (limited(data, None), limited(data, len(data))):
        assert visited(part, 0, 1) == epoch_order(0, 1, len(data)).tolist()


def test_an_images_augmentation_does_not_depend_on_the_part(digits: Path) -> None:
    data = SmallImages(digits, "train", CPU)
    parts = {count: limited(data, count) for count in (50, 250)}
    seen = {}
    for count, part in parts.items():
        images = next(part.training_batches(SETTINGS, 0, 1, count))[0]
        seen[count] = dict(zip(part.visited[epoch_order(0, 1, count)].tolist(), images))
    assert seen[50].keys() < seen[250].keys()
    assert all(torch.equal(image, seen[250][number]) for number, image in seen[50].items())


def test_several_processes_share_a_part(digits: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = SmallImages(digits, "train", CPU)
    part = limited(data, 250)
    part.labels = torch.arange(len(data))
    alone = visited(part, 0, 1)
    monkeypatch.setattr(distributed, "WORLD_SIZE", 2)
    shares = []
    for rank in (0, 1):
        monkeypatch.setattr(distributed, "RANK", rank)
        shares.append([numbers.tolist() for _, numbers in part.training_batches(SETTINGS, 0, 1, 100)])
    assert [number for batch in zip(*shares) for half in batch for number in half] == alone
