"""The losses are those of the papers: values worked out by hand, gradients checked numerically."""

import math

import pytest
import torch
from torch.autograd import gradcheck
from torch.nn.functional import cross_entropy

from moonshine.distillation.attention_transfer import NORM, attention_loss, attention_map
from moonshine.distillation.knowledge_distillation import kd_loss
from moonshine.distillation.objective import Distillation
from moonshine.distillation.teacher import TeacherOutputs


def maps(*images: list[list[float]]) -> torch.Tensor:
    return torch.tensor(images)


def test_an_attention_map_is_the_mean_of_squares_over_channels() -> None:
    features = torch.tensor([[[[1.0, 2.0]], [[3.0, -4.0]]]])  # one image, two channels, 1 x 2 pixels
    assert torch.equal(attention_map(features), maps([[5.0, 10.0]]))  # (1 + 9) / 2, (4 + 16) / 2


@pytest.mark.parametrize("layout", [torch.channels_last, torch.contiguous_format])
def test_its_gradient_is_that_of_autograd_to_the_bit(layout: torch.memory_format) -> None:
    features = torch.randn(3, 6, 5, 7).to(memory_format=layout)
    gradients = []
    for a_map in (attention_map, lambda x: x.square().mean(dim=1)):
        leaf = features.clone(memory_format=torch.preserve_format).requires_grad_()
        a_map(leaf).backward(torch.arange(105.0).view(3, 5, 7) / 7)
        gradients.append(leaf.grad)
    assert torch.equal(*gradients)


def test_an_attention_map_of_half_precision_features_does_not_overflow() -> None:
    features = torch.full((1, 2, 1, 1), 300.0, dtype=torch.float16)  # 300^2 is above float16's 65,504
    result = attention_map(features)
    assert (result.dtype, result.item()) == (torch.float32, 90_000.0)
    with torch.autocast("cpu", torch.bfloat16):
        assert attention_map(features.bfloat16()).dtype == torch.float32


def test_the_mean_square_form_by_hand() -> None:
    """Q_s = (0.6, 0.8), Q_t = (0.8, 0.6): squares of 0.2 at both positions; the second image has no distance."""
    student, teacher = maps([[3.0, 4.0]], [[1.0, 0.0]]), maps([[8.0, 6.0]], [[5.0, 0.0]])
    assert attention_loss(student, teacher).item() == pytest.approx((0.04 + 0.04 + 0 + 0) / 4)


def test_the_norm_form_by_hand() -> None:
    """||Q_s - Q_t|| = sqrt(0.08) for the first image, 0 for the second; mean over the batch."""
    student, teacher = maps([[3.0, 4.0]], [[1.0, 0.0]]), maps([[8.0, 6.0]], [[5.0, 0.0]])
    assert attention_loss(student, teacher, NORM).item() == pytest.approx(math.sqrt(0.08) / 2)


@pytest.mark.parametrize("swap", [False, True])
def test_maps_of_unequal_size_are_averaged_to_the_smaller(swap: bool) -> None:
    large = maps([[1.0, 3.0, 8.0, 8.0], [1.0, 7.0, 0.0, 0.0]])  # averages: 3 and 4
    small = maps([[8.0, 6.0]])
    pair = (small, large) if swap else (large, small)
    assert attention_loss(*pair).item() == pytest.approx(0.04)  # (0.6, 0.8) against (0.8, 0.6)


def test_each_side_is_pooled_to_the_smaller_of_its_kind() -> None:
    tall, wide = maps([[1.0], [2.0]]), maps([[3.0, 5.0]])
    assert attention_loss(tall, wide).item() == 0.0  # 1 x 1 pixel is left of each, normalised to 1


@pytest.mark.parametrize("form", ["mean-square", "norm"])
def test_gradients_of_attention_transfer(form: str) -> None:
    torch.manual_seed(0)
    student = torch.rand(2, 4, 4, dtype=torch.float64, requires_grad=True)
    teacher = torch.rand(2, 2, 3, dtype=torch.float64)
    assert gradcheck(lambda map_: attention_loss(map_, teacher, form), student)


@pytest.mark.parametrize("form", ["mean-square", "norm"])
def test_where_student_and_teacher_agree_there_is_no_gradient(form: str) -> None:
    """The norm has none at zero; it must not become NaN."""
    student = torch.rand(2, 3, 3).requires_grad_()
    attention_loss(student, student.detach().clone(), form).backward()
    assert student.grad is not None
    assert torch.equal(student.grad, torch.zeros_like(student))


def test_dead_features_give_no_nan() -> None:
    student = torch.zeros(1, 2, 2, 2, requires_grad=True)
    attention_loss(attention_map(student), torch.rand(1, 2, 2)).backward()
    assert student.grad is not None
    assert torch.isfinite(student.grad).all()


def test_knowledge_distillation_by_hand() -> None:
    """T = 2: teacher's logits (2 ln 3, 0) soften to p = (3/4, 1/4), the student's (0, 0) to q = (1/2, 1/2)."""
    teacher, student = torch.tensor([[2 * math.log(3), 0.0]]), torch.zeros(1, 2)
    divergence = 0.75 * math.log(0.75 / 0.5) + 0.25 * math.log(0.25 / 0.5)
    assert kd_loss(student, teacher, 2.0).item() == pytest.approx(4 * divergence)


def test_knowledge_distillation_sums_over_classes_and_averages_over_the_batch() -> None:
    torch.manual_seed(0)
    student, teacher = torch.randn(2, 5, 100)
    each = [kd_loss(student[i : i + 1], teacher[i : i + 1], 4.0) for i in range(5)]
    assert kd_loss(student, teacher, 4.0).item() == pytest.approx(sum(each).item() / 5)
    p, q = (torch.softmax(logits[0] / 4, 0) for logits in (teacher, student))
    assert each[0].item() == pytest.approx(16 * (p * (p / q).log()).sum().item(), rel=1e-5)


def test_gradients_of_knowledge_distillation() -> None:
    torch.manual_seed(0)
    student = torch.randn(3, 4, dtype=torch.float64, requires_grad=True)
    teacher = torch.randn(3, 4, dtype=torch.float64)
    assert gradcheck(lambda logits: kd_loss(logits, teacher, 3.0), student)


class Student(torch.nn.Module):
    """Two points that pass features on, so that the maps are known."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = torch.nn.Identity(), torch.nn.Identity()

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        return self.second(2 * self.first(features)).mean((2, 3))


def total_and_parts(settings: dict[str, object], epoch: int = 1) -> tuple[float, dict[str, float], dict[str, float]]:
    """What the objective says, and what its parts must be."""
    torch.manual_seed(1)
    student, objective = Student(), Distillation(("first", "second"), **settings)
    objective.attach(student)
    features, labels = torch.randn(4, 3, 2, 2), torch.tensor([0, 1, 2, 0])
    teacher = TeacherOutputs(torch.randn(4, 3), [torch.rand(4, 2, 2), torch.rand(4, 1, 1)])
    logits = student(features)
    total, parts = objective(logits, labels, teacher, epoch)
    expected = {
        "cross_entropy": cross_entropy(logits, labels).item(),
        "kd": kd_loss(logits, teacher.logits, 4.0).item(),
        "attention_1": attention_loss(attention_map(features), teacher.maps[0]).item(),
        "attention_2": attention_loss(attention_map(2 * features), teacher.maps[1]).item(),
    }
    return total.item(), dict(zip(objective.parts, (part.item() for part in parts))), expected


def test_the_total_of_attention_transfer() -> None:
    total, parts, expected = total_and_parts({"beta": [10.0, 5.0], "groups": [1, 2]})
    del expected["kd"]
    assert parts == pytest.approx(expected)
    expected_total = expected["cross_entropy"] + 10 * expected["attention_1"] + 5 * expected["attention_2"]
    assert total == pytest.approx(expected_total)


def test_the_total_of_knowledge_distillation() -> None:
    total, parts, expected = total_and_parts({"alpha": 0.9, "temperature": 4.0})
    assert list(parts) == ["cross_entropy", "kd"]
    assert total == pytest.approx(0.1 * expected["cross_entropy"] + 0.9 * expected["kd"])


def test_the_total_of_the_two_together() -> None:
    total, parts, expected = total_and_parts({"alpha": 0.9, "temperature": 4.0, "beta": 7.0, "groups": [1]})
    assert list(parts) == ["cross_entropy", "kd", "attention_1"]
    of_both = 0.1 * expected["cross_entropy"] + 0.9 * expected["kd"] + 7 * expected["attention_1"]
    assert total == pytest.approx(of_both)


def test_groups_are_paired_by_their_numbers_and_in_the_form_that_is_asked_for() -> None:
    student = Student()
    objective = Distillation(("first", "second"), beta=3.0, groups=[2], form="norm")
    slope = torch.arange(4.0).view(2, 2)
    student.second.register_forward_hook(lambda module, inputs, output: output + slope)
    objective.attach(student)
    features, labels = torch.randn(4, 3, 2, 2), torch.tensor([0, 1, 2, 0])
    teacher = TeacherOutputs(torch.randn(4, 3), [torch.rand(4, 2, 2), torch.rand(4, 2, 2)])
    total, (entropy, distance) = objective(student(features), labels, teacher, 1)
    expected = attention_loss(attention_map(2 * features + slope), teacher.maps[1], NORM)
    assert distance.item() == pytest.approx(expected.item())
    assert total.item() == pytest.approx((entropy + 3 * expected).item())


@pytest.mark.parametrize(("epoch", "added"), [(1, False), (2, True), (3, True), (4, False)])
def test_attention_is_transferred_in_its_epochs_only(epoch: int, added: bool) -> None:
    method = {"beta": 10.0, "groups": [1], "first_epoch": 2, "last_epoch": 3}
    total, _, expected = total_and_parts(method, epoch)
    assert (total > expected["cross_entropy"]) == added
