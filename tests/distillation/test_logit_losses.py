"""DIST, DKD, TTM and logit standardisation are those of their papers, for any number of classes and images."""

import math
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import torch
from torch.autograd import gradcheck
from torch.nn.functional import cross_entropy

import moonshine
from moonshine.distillation.dist import dist_losses
from moonshine.distillation.dkd import dkd_losses
from moonshine.distillation.knowledge_distillation import kd_loss
from moonshine.distillation.logit_standardisation import standardise_logits
from moonshine.distillation.objective import Distillation
from moonshine.distillation.teacher import TeacherOutputs
from moonshine.distillation.ttm import ttm_loss
from moonshine.params import Method
from moonshine.params.defaults import complete

Loss = Callable[[torch.Tensor, torch.Tensor, torch.Tensor], torch.Tensor]

LOSSES: dict[str, Loss] = {
    "DIST, inter": lambda s, t, y: dist_losses(s, t, 2.0)[0],
    "DIST, intra": lambda s, t, y: dist_losses(s, t, 2.0)[1],
    "DKD, target": lambda s, t, y: dkd_losses(s, t, y, 2.0)[0],
    "DKD, other": lambda s, t, y: dkd_losses(s, t, y, 2.0)[1],
    "TTM": lambda s, t, y: ttm_loss(s, t, 0.3),
    "WTTM": lambda s, t, y: ttm_loss(s, t, 0.3, weighted=True),
    "standardised KD": lambda s, t, y: kd_loss(standardise_logits(s), standardise_logits(t), 2.0),
}
every_loss = pytest.mark.parametrize("loss", LOSSES.values(), ids=LOSSES)


def batch(images: int = 6, classes: int = 5, scale: float = 3.0) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Logits of a student and of a teacher in float64, and labels."""
    generator = torch.Generator().manual_seed(images * classes)
    student, teacher = scale * torch.randn(2, images, classes, generator=generator, dtype=torch.float64)
    return student, teacher, torch.randint(classes, (images,), generator=generator)


def softmax(logits: np.ndarray) -> np.ndarray:
    powers = np.exp(logits - logits.max(1, keepdims=True))
    return powers / powers.sum(1, keepdims=True)


def centred(vectors: tuple[np.ndarray, np.ndarray]) -> list[np.ndarray]:
    return [vector - vector.mean() for vector in vectors]


def by_the_papers(name: str, s: np.ndarray, t: np.ndarray, y: np.ndarray) -> float:
    """The same losses as their papers write them: probabilities, loops over images and classes, logarithms last."""
    if name.startswith("DIST"):
        ours, theirs = softmax(s / 2), softmax(t / 2)
        pairs = zip(ours, theirs) if "inter" in name else zip(ours.T, theirs.T)
        rho = [a @ b / (np.linalg.norm(a) * np.linalg.norm(b) + 1e-8) for a, b in map(centred, pairs)]
        return 4 * (1 - np.mean(rho))
    if name.startswith("DKD"):
        total = 0.0
        for each_s, each_t, label in zip(s / 2, t / 2, y):
            p_s, p_t = softmax(each_s[None])[0], softmax(each_t[None])[0]
            if "target" in name:
                b_s, b_t = (np.array([p[label], p.sum() - p[label]]) for p in (p_s, p_t))
            else:
                b_s, b_t = (np.delete(p, label) / np.delete(p, label).sum() for p in (p_s, p_t))
            total += (b_t * np.log(b_t / b_s)).sum()
        return 4 * total / len(y)
    if "TTM" in name:
        powers = softmax(t) ** 0.3
        sums = powers.sum(1)
        q = powers / sums[:, None]
        divergences = (q * np.log(q / softmax(s))).sum(1)
        return float(np.mean(divergences * sums if name == "WTTM" else divergences))
    s, t = ((z - z.mean(1, keepdims=True)) / (z.std(1, ddof=1, keepdims=True) + 1e-7) for z in (s, t))
    p, q = softmax(t / 2), softmax(s / 2)
    return float(4 * np.mean((p * np.log(p / q)).sum(1)))


@pytest.mark.parametrize("shape", [(6, 5), (3, 2), (2, 40)], ids=str)
@pytest.mark.parametrize("name", LOSSES)
def test_it_is_the_papers(name: str, shape: tuple[int, int]) -> None:
    student, teacher, labels = batch(*shape)
    expected = by_the_papers(name, student.numpy(), teacher.numpy(), labels.numpy())
    assert LOSSES[name](student, teacher, labels).item() == pytest.approx(expected, rel=1e-9, abs=1e-9)


def test_the_correlations_are_pearsons() -> None:
    """But for 1e-8 in the denominator."""
    student, teacher, _ = batch()
    ours, theirs = (torch.softmax(logits, 1).numpy() for logits in (student, teacher))
    for loss, pairs in zip(dist_losses(student, teacher), (zip(ours, theirs), zip(ours.T, theirs.T))):
        assert loss.item() == pytest.approx(1 - np.mean([np.corrcoef(a, b)[0, 1] for a, b in pairs]), abs=1e-5)


def test_dist_by_hand() -> None:
    """Y_s is (3/4, 1/4) and (1/4, 3/4), Y_t the same the other way round: rho = -1 in every row and column."""
    student = torch.tensor([[math.log(3), 0.0], [0.0, math.log(3)]], dtype=torch.float64)
    inter, intra = dist_losses(student, student.flip(0), 1.0)
    assert (inter.item(), intra.item()) == pytest.approx((2.0, 2.0), abs=1e-6)


def test_dkd_by_hand() -> None:
    """p_t = (1/2, 1/3, 1/6), p_s = (1/3, 1/3, 1/3), of which the first is the label's."""
    teacher, student = torch.tensor([[1 / 2, 1 / 3, 1 / 6]]).double().log(), torch.zeros(1, 3).double()
    target, other = dkd_losses(student, teacher, torch.tensor([0]), 1.0)
    assert target.item() == pytest.approx(0.5 * math.log(0.5 / (1 / 3)) + 0.5 * math.log(0.5 / (2 / 3)))
    assert other.item() == pytest.approx(2 / 3 * math.log(2 / 3 / 0.5) + 1 / 3 * math.log(1 / 3 / 0.5))


def test_ttm_by_hand() -> None:
    """p_t = (16/17, 1/17), whose roots are as 4 to 1: q = (4/5, 1/5), U = 5 / sqrt(17); p_s = (1/2, 1/2)."""
    teacher, student = torch.tensor([[math.log(16), 0.0]]).double(), torch.zeros(1, 2).double()
    divergence = 0.8 * math.log(0.8 / 0.5) + 0.2 * math.log(0.2 / 0.5)
    assert ttm_loss(student, teacher, 0.5).item() == pytest.approx(divergence)
    assert ttm_loss(student, teacher, 0.5, weighted=True).item() == pytest.approx(5 / math.sqrt(17) * divergence)


def test_standardised_logits_by_hand() -> None:
    """Mean 2, unbiased standard deviation 1."""
    assert standardise_logits(torch.tensor([[1.0, 2.0, 3.0]])).tolist() == [pytest.approx([-1.0, 0.0, 1.0], abs=1e-6)]


@every_loss
def test_its_gradient(loss: Loss) -> None:
    student, teacher, labels = batch(4, 3, scale=1.0)
    assert gradcheck(lambda logits: loss(logits, teacher, labels), student.requires_grad_())


@pytest.mark.parametrize("name", [name for name in LOSSES if "TTM" not in name])
def test_a_student_that_equals_its_teacher_has_no_loss_and_no_gradient(name: str) -> None:
    _, teacher, labels = batch(scale=1.0)
    student = teacher.clone().requires_grad_()
    value = LOSSES[name](student, teacher, labels)
    value.backward()
    assert student.grad is not None
    assert value.item() == pytest.approx(0, abs=1e-5)
    assert student.grad.abs().max() < 1e-5


@pytest.mark.parametrize("weighted", [False, True])
def test_with_an_exponent_of_1_ttm_is_knowledge_distillation_at_1(weighted: bool) -> None:
    student, teacher, _ = batch()
    assert ttm_loss(student, teacher, 1.0, weighted).item() == pytest.approx(
        kd_loss(student, teacher, 1.0).item(), abs=1e-12
    )
    assert ttm_loss(teacher, teacher, 1.0, weighted).item() == pytest.approx(0, abs=1e-12)


def test_the_exponent_of_ttm_is_a_temperature_of_the_teacher_alone() -> None:
    student, teacher, _ = batch()
    assert ttm_loss(student, teacher, 0.25).item() == pytest.approx(
        kd_loss(student, teacher / 4, 1.0).item(), abs=1e-12
    )


def test_knowledge_distillation_is_dkd_with_a_confident_teacher_silencing_other_classes() -> None:
    student, teacher, labels = batch()
    for image in range(len(labels)):
        one = slice(image, image + 1)
        target, other = dkd_losses(student[one], teacher[one], labels[one], 3.0)
        silenced = 1 - torch.softmax(teacher[image] / 3, 0)[labels[image]]
        expected = kd_loss(student[one], teacher[one], 3.0)
        assert (target + silenced * other).item() == pytest.approx(expected.item(), abs=1e-12)


@every_loss
def test_a_constant_that_is_added_to_the_logits_of_an_image_changes_nothing(loss: Loss) -> None:
    student, teacher, labels = batch()
    shifts = torch.randn(2, len(student), 1).double()
    shifted = loss(student + shifts[0], teacher + shifts[1], labels)
    assert shifted.item() == pytest.approx(loss(student, teacher, labels).item(), abs=1e-9)


def test_logits_are_standardised_whatever_their_scale() -> None:
    student, teacher, labels = batch()
    loss = LOSSES["standardised KD"]
    scaled = loss(5 * student + 2, teacher / 3 - 1, labels)
    assert scaled.item() == pytest.approx(loss(student, teacher, labels).item(), abs=1e-6)


def test_the_correlation_of_classes_is_that_of_probabilities_of_any_scale() -> None:
    """Softmax turns log(a * p + b) into probabilities that are affine in p: rows then correlate perfectly."""
    _, teacher, _ = batch(scale=1.0)
    student = torch.log(0.5 * torch.softmax(teacher, 1) + 0.1)
    inter, intra = dist_losses(student, teacher)
    assert inter.item() == pytest.approx(0, abs=1e-6)
    assert intra.item() == pytest.approx(0, abs=1e-6)


@every_loss
def test_the_order_of_images_changes_nothing(loss: Loss) -> None:
    student, teacher, labels = batch()
    order = torch.tensor([3, 0, 5, 1, 4, 2])
    permuted = loss(student[order], teacher[order], labels[order])
    assert permuted.item() == pytest.approx(loss(student, teacher, labels).item(), abs=1e-12)


@pytest.mark.parametrize("name", [name for name in LOSSES if name != "DIST, intra"])
def test_it_is_a_mean_over_images(name: str) -> None:
    student, teacher, labels = batch()
    each = [LOSSES[name](student[i : i + 1], teacher[i : i + 1], labels[i : i + 1]).item() for i in range(len(labels))]
    assert LOSSES[name](student, teacher, labels).item() == pytest.approx(np.mean(each), abs=1e-12)


@every_loss
@pytest.mark.parametrize("shape", [(1, 2), (1, 7), (4, 2)], ids=str)
@pytest.mark.parametrize("scale", [0.0, 1.0, 1e4])
def test_values_and_gradients_are_finite(loss: Loss, shape: tuple[int, int], scale: float) -> None:
    """In float32, for a batch of one image, two classes, logits that are all equal and logits of any size."""
    student, teacher, labels = batch(*shape, scale=1.0)
    leaf = (scale * student).float().requires_grad_()
    value = loss(leaf, (scale * teacher).float(), labels)
    value.backward()
    assert leaf.grad is not None
    assert torch.isfinite(torch.cat([value.detach().view(1), leaf.grad.flatten()])).all()


def test_a_batch_of_one_image_has_nothing_to_correlate_across() -> None:
    student, teacher, _ = batch(1)
    leaf = student.requires_grad_()
    intra = dist_losses(leaf, teacher, 2.0)[1]
    intra.backward()
    assert intra.item() == pytest.approx(4.0)
    assert leaf.grad is not None
    assert torch.equal(leaf.grad, torch.zeros_like(leaf))


def test_the_gradient_of_equal_logits_is_1e7_as_in_the_paper() -> None:
    leaf = torch.zeros(1, 4, dtype=torch.float64, requires_grad=True)
    kd_loss(standardise_logits(leaf), torch.tensor([[1.0, 0.0, 0.0, 0.0]]).double(), 1.0).backward()
    assert leaf.grad is not None
    assert 1e6 < leaf.grad.abs().max() < 1e7


def test_a_probability_that_would_round_to_1_leaves_the_other_classes_theirs() -> None:
    """1 - p is e^-60 of the teacher and e^-40 of the student: as numbers of float32 both are 0."""
    teacher, student = torch.tensor([[60.0, 0.0, -1.0]]), torch.tensor([[40.0, 0.0, 2.0]])
    target, other = dkd_losses(student.requires_grad_(), teacher, torch.tensor([0]), 1.0)
    p, q = (softmax(np.array([logits]))[0] for logits in ([0.0, -1.0], [0.0, 2.0]))
    assert target.item() == pytest.approx(0, abs=1e-6)
    assert other.item() == pytest.approx((p * np.log(p / q)).sum(), rel=1e-5)
    wrong = dkd_losses(torch.tensor([[-40.0, 0.0, 2.0]]), teacher, torch.tensor([0]), 1.0)[0]
    assert wrong.item() == pytest.approx(40 + math.log(1 + math.exp(2)), rel=1e-5)


def objective(**settings: Any) -> tuple[float, dict[str, float], Distillation]:
    """The total and the parts of an objective without layers, for the usual batch."""
    student, teacher, labels = batch()
    epoch = settings.pop("epoch", 1)
    made = Distillation((), **settings)
    made.attach(torch.nn.Identity())
    total, parts = made(student, labels, TeacherOutputs(teacher.float(), []), epoch)
    return total.item(), dict(zip(made.parts, (part.item() for part in parts), strict=True)), made


ALL: dict[str, Any] = {
    "alpha": 9.0,
    "temperature": 2.0,
    "cross_entropy": 0.5,
    "dist": {"beta": 2.0, "gamma": 3.0, "temperature": 2.0},
    "dkd": {"alpha": 1.0, "beta": 8.0, "temperature": 2.0, "warmup_epochs": 4},
    "ttm": {"weight": 45.0, "exponent": 0.3, "weighted": True},
}


@pytest.mark.parametrize("standardised", [False, True])
@pytest.mark.parametrize(("epoch", "share"), [(1, 0.25), (3, 0.75), (4, 1.0), (9, 1.0)])
def test_the_total_is_the_weighted_sum_of_all(epoch: int, share: float, standardised: bool) -> None:
    total, parts, _ = objective(**ALL, standardise_logits=standardised, epoch=epoch)
    student, teacher, labels = batch()
    s, t = (standardise_logits(logits) if standardised else logits for logits in (student, teacher))
    expected = {
        "cross_entropy": cross_entropy(student, labels).item(),
        "kd": kd_loss(s, t, 2.0).item(),
        "dist_inter": dist_losses(s, t, 2.0)[0].item(),
        "dist_intra": dist_losses(s, t, 2.0)[1].item(),
        "dkd_target": dkd_losses(s, t, labels, 2.0)[0].item(),
        "dkd_other": dkd_losses(s, t, labels, 2.0)[1].item(),
        "ttm": ttm_loss(s, t, 0.3, True).item(),
    }
    assert parts == pytest.approx(expected, rel=1e-4)
    assert list(parts) == list(expected)
    weights = [0.5, 9.0, 2.0, 3.0, share, 8 * share, 45.0]
    assert total == pytest.approx(sum(w * value for w, value in zip(weights, parts.values())), rel=1e-5)


@pytest.mark.parametrize(
    ("settings", "weight"),
    [
        ({"dist": {}}, 1.0),
        ({"dkd": {"alpha": 1.0, "beta": 8.0, "temperature": 4.0}}, 1.0),
        ({"ttm": {"weight": 1.0, "exponent": 0.1}}, 1.0),
        ({"alpha": 0.9, "temperature": 4.0}, 0.1),
        ({"alpha": 1.0, "temperature": 1.0}, 0.0),
        ({"alpha": 0.9, "temperature": 4.0, "dist": {}}, 0.1),
        ({"alpha": 9.0, "temperature": 2.0, "cross_entropy": 1.0}, 1.0),
        ({"dist": {}, "cross_entropy": 0.0}, 0.0),
    ],
    ids=str,
)
def test_the_weight_of_the_cross_entropy(settings: dict[str, Any], weight: float) -> None:
    student, teacher, labels = batch()
    made = Distillation((), **settings)
    made.attach(torch.nn.Identity())
    leaf = student.float().requires_grad_()
    total, parts = made(leaf, labels, TeacherOutputs(teacher.float(), []), 1)
    whole = torch.autograd.grad(total, leaf, retain_graph=True)[0]
    without = Distillation((), **{**settings, "cross_entropy": 0.0})
    without.attach(torch.nn.Identity())
    rest = torch.autograd.grad(without(leaf, labels, TeacherOutputs(teacher.float(), []), 1)[0], leaf)[0]
    labels_gradient = torch.autograd.grad(parts[0], leaf)[0]
    torch.testing.assert_close(whole - rest, weight * labels_gradient, rtol=1e-3, atol=1e-5)


def test_dist_without_settings_has_the_papers_as_params_yaml_has_them() -> None:
    filled = complete({"methods": {"x": {"dist": {}}}})[0]["methods"]["x"]
    assert filled == {"dist": {"beta": 2.0, "gamma": 2.0, "temperature": 1.0}}
    assert objective(dist={})[0] == objective(**Method(**filled).objective)[0]


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_logits_of_half_precision_are_compared_in_float32(dtype: torch.dtype) -> None:
    student, teacher, labels = batch()
    made = Distillation((), **ALL)
    made.attach(torch.nn.Identity())
    told = TeacherOutputs(teacher.float(), [])
    with torch.autocast("cpu", torch.bfloat16):
        total, parts = made(student.to(dtype), labels, told, 1)
    expected, _ = made(student.to(dtype).float(), labels, told, 1)
    assert {part.dtype for part in (total, *parts)} == {torch.float32}
    assert torch.equal(total, expected)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"dist": {"beta": 0.0, "gamma": 0.0}}, "dist.beta, dist.gamma: must not all be 0"),
        ({"dist": {"beta": -1.0}}, "dist.beta: must be at least 0, found -1.0"),
        ({"dist": {"temperature": 0.0}}, "dist.temperature: must be greater than 0, found 0.0"),
        ({"dkd": {"alpha": 0.0, "beta": 0.0, "temperature": 1.0}}, "dkd.alpha, dkd.beta: must not all be 0"),
        ({"dkd": {"alpha": 1.0, "beta": math.nan, "temperature": 1.0}}, "dkd.beta: must be at least 0, found nan"),
        (
            {"dkd": {"alpha": 1.0, "beta": 1.0, "temperature": 1.0, "warmup_epochs": -1}},
            "dkd.warmup_epochs: must be at least 0, found -1",
        ),
        ({"ttm": {"weight": 1.0, "exponent": 0.0}}, "ttm.exponent: must be greater than 0, found 0.0"),
        ({"ttm": {"weight": math.inf, "exponent": 0.1}}, "ttm.weight: must be greater than 0, found inf"),
        ({"alpha": -1.0, "cross_entropy": 1.0}, "alpha: must be at least 0, found -1.0"),
        ({"dist": {}, "cross_entropy": -1.0}, "cross_entropy: must be at least 0, found -1.0"),
        ({"standardise_logits": True}, "standardise_logits: no loss compares logits"),
    ],
)
def test_numbers_out_of_range_are_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Distillation((), **settings)


def test_the_losses_are_public() -> None:
    student, teacher, labels = batch()
    assert len(moonshine.dist_losses(student, teacher)) == 2
    assert len(moonshine.dkd_losses(student, teacher, labels, temperature=4.0)) == 2
    assert moonshine.ttm_loss(student, teacher, exponent=0.1).shape == ()
    assert moonshine.standardise_logits(student).shape == student.shape


def test_the_weights_of_dkd_grow_with_its_warm_up() -> None:
    totals = [objective(dkd=ALL["dkd"], epoch=epoch)[0] for epoch in range(1, 7)]
    steps = [after - before for before, after in pairwise(totals)]
    assert steps[:3] == [pytest.approx(steps[0], rel=1e-4)] * 3
    assert steps[3:] == [0.0, 0.0]
