"""Classes that count as much as any other, however many images they have."""

import json
from pathlib import Path

import pytest
import torch
from torch.nn.functional import cross_entropy

from benchmarks.separate_project import write_params
from moonshine.data.class_weights import balanced_weights, weighted_cross_entropy
from moonshine.distillation.objective import Distillation
from moonshine.distillation.teacher import TeacherOutputs
from moonshine.training.objective import CrossEntropy
from tests.support.project import run_moonshine, toy_params

LABELS = torch.tensor([0, 0, 0, 0, 0, 1, 1, 2])
LOGITS = torch.linspace(-2, 2, 24).sin().view(8, 3)
WEIGHTS = balanced_weights(LABELS, 3)


def test_weights_are_inverse_to_the_images_of_a_class() -> None:
    torch.testing.assert_close(WEIGHTS, torch.tensor([8 / 15, 8 / 6, 8 / 3]))
    assert WEIGHTS[LABELS].mean().item() == 1


def test_the_loss_over_all_images_is_the_mean_of_the_classes_losses() -> None:
    of_classes = [cross_entropy(LOGITS[label == LABELS], LABELS[label == LABELS]) for label in range(3)]
    loss, parts = CrossEntropy(WEIGHTS)(LOGITS, LABELS, None, 1)
    torch.testing.assert_close(loss, torch.stack(of_classes).mean())
    assert parts == [loss]


def test_the_loss_of_a_batch_is_the_mean_of_its_shares() -> None:
    shares = [weighted_cross_entropy(LOGITS[part], LABELS[part], WEIGHTS) for part in (slice(0, 4), slice(4, 8))]
    torch.testing.assert_close(torch.stack(shares).mean(), weighted_cross_entropy(LOGITS, LABELS, WEIGHTS))


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_weights_and_smoothing_are_those_of_pytorch_but_for_the_divisor(smoothing: float) -> None:
    """PyTorch divides by the sum of the images' weights, which here is their number, because all images are there."""
    logits = LOGITS.clone().requires_grad_()
    ours = CrossEntropy(WEIGHTS, smoothing)(logits, LABELS, None, 1)[0]
    theirs = cross_entropy(logits, LABELS, WEIGHTS, label_smoothing=smoothing)
    torch.testing.assert_close(ours, theirs)
    shares = [
        weighted_cross_entropy(LOGITS[part], LABELS[part], WEIGHTS, smoothing) for part in (slice(0, 4), slice(4, 8))
    ]
    torch.testing.assert_close(torch.stack(shares).mean(), ours.detach())


def test_the_cross_entropy_of_a_student_is_weighted_and_its_distillation_loss_is_not() -> None:
    settings = {"alpha": 0.4, "temperature": 2.0}
    teacher = TeacherOutputs(LOGITS.flip(0), [])
    plain, weighted = (Distillation((), class_weights=weights, **settings) for weights in (None, WEIGHTS))
    for objective in (plain, weighted):
        objective.attach(torch.nn.Identity())
    _, (usual, distillation) = plain(LOGITS, LABELS, teacher, 1)
    loss, parts = weighted(LOGITS, LABELS, teacher, 1)
    assert usual == cross_entropy(LOGITS, LABELS)
    assert parts == [weighted_cross_entropy(LOGITS, LABELS, WEIGHTS), distillation]
    torch.testing.assert_close(loss, 0.6 * parts[0] + 0.4 * distillation)


def test_a_recipe_may_weight_the_classes(tmp_path: Path) -> None:
    params = toy_params()
    params["networks"]["weighted"] = {**params["networks"]["teacher"], "recipe": {"class_weights": "balanced"}}
    params["train"].append("weighted")
    write_params(tmp_path, params)
    run_moonshine("prepare", cwd=tmp_path)
    records = {}
    for network in ("teacher", "weighted"):
        run_moonshine("train", network, "--seed", "0", cwd=tmp_path)
        records[network] = json.loads((tmp_path / f"models/toy/records/train/{network}/seed0.json").read_text())
    assert records["weighted"]["identity"]["recipe"].pop("class_weights") == "balanced"
    assert records["weighted"]["identity"]["recipe"] == records["teacher"]["identity"]["recipe"]
    assert records["weighted"]["sha256"] != records["teacher"]["sha256"], "digits have 106 to 112 images of a class"
