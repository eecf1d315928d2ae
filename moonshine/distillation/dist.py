"""DIST: Huang et al., "Knowledge Distillation from A Stronger Teacher", NeurIPS 2022.

With logits s of the student and t of the teacher, shape (batch, classes), and temperature T:

    Y_s = softmax(s / T),  Y_t = softmax(t / T)
    inter = T^2 * (1 - mean over images i of  rho(Y_s[i, :], Y_t[i, :]))      relations between classes
    intra = T^2 * (1 - mean over classes j of rho(Y_s[:, j], Y_t[:, j]))      relations between images
    rho(a, b) = sum(a' * b') / (||a'|| * ||b'|| + 1e-8),  a' = a - mean(a),  b' = b - mean(b)

rho is Pearson's correlation; 1e-8, as in the authors' code (hunto/image_classification_sota), makes it 0 if one side is
constant. The student minimises cross-entropy + beta * inter + gamma * intra, with beta = gamma = 2 and T = 1 on
ImageNet, T = 4 on CIFAR-100.

`inter` is a mean over images. `intra` correlates the columns of the whole batch: if several processes share it, they
exchange sums over their images, 5 numbers per class, and each has the value and the gradient of the whole batch. (The
authors' own code correlates the images of each process by themselves.) A batch of one image has `intra` = T^2 and no
gradient of it.
"""

from collections.abc import Callable
from typing import TypedDict

import torch
import torch.distributed as dist

from moonshine.data.labels import Labels
from moonshine.distillation.terms import require_positive, require_weights

EPSILON = 1e-8

Sum = Callable[[torch.Tensor], torch.Tensor]


class DistSettings(TypedDict, total=False):
    """The keys of `dist` in a method; the paper's values for ImageNet if left out."""

    beta: float
    gamma: float
    temperature: float


def dist_losses(
    student: torch.Tensor, teacher: torch.Tensor, temperature: float = 1.0
) -> tuple[torch.Tensor, torch.Tensor]:
    """(inter, intra) from the logits of student and teacher, (batch, classes) each; scalars.

    If torch.distributed is initialised, all processes must call this together, each with its share of a batch, of any
    size; `intra` is that of the whole batch. Its gradient is right if the loss is averaged over the images of each
    share, and the gradients over processes with the shares' numbers of images as weights; if shares are equal, as
    DistributedDataParallel averages them.
    """
    of_student, of_teacher = (torch.softmax(logits / temperature, dim=1) for logits in (student, teacher))
    inter = _correlation(of_student, of_teacher, 1, lambda own: own)
    intra = _correlation(of_student, of_teacher, 0, lambda own: _over_processes(own, len(of_student)))
    return temperature**2 * (1 - inter.mean()), temperature**2 * (1 - intra.mean())


def _correlation(student: torch.Tensor, teacher: torch.Tensor, dim: int, total: Sum) -> torch.Tensor:
    """Pearson's correlation along a dimension, over which `total` sums what this process has summed of it."""
    count = student.new_full((1,), student.shape[dim])
    size = student.shape[1 - dim]
    with torch.no_grad():  # moving a mean changes no sum of products of deviations from it
        sums = total(torch.cat([student.sum(dim), teacher.sum(dim), count]))
        means = (sums[:-1] / sums[-1]).view(2, size).unsqueeze(dim + 1)
    of_student, of_teacher = student - means[0], teacher - means[1]
    products = [of_student * of_teacher, of_student.square(), of_teacher.square()]
    covariance, *squares = total(torch.stack([product.sum(dim) for product in products]))
    # the smallest number keeps the gradient of a root finite
    norms = [square.clamp_min(torch.finfo(square.dtype).tiny).sqrt() for square in squares]
    return covariance / (norms[0] * norms[1] + EPSILON)


def _over_processes(own: torch.Tensor, images: int) -> torch.Tensor:
    """The sum of a tensor over all processes, to which this one contributes `own`, of so many images.

    The sum is of the whole batch, and so is the gradient with respect to `own`. But the process's loss counts by its
    share of the batch's images, which the factor undoes.
    """
    if not (dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1):
        return own
    joint = torch.cat([own.detach().flatten(), own.new_full((1,), images)])
    dist.all_reduce(joint)
    factor = joint[-1] / images
    return joint[:-1].view_as(own) + factor * (own - own.detach())


class DistTerm:
    """beta * inter + gamma * intra. Raises ValueError for a number out of range."""

    parts: tuple[str, ...] = ("dist_inter", "dist_intra")

    def __init__(self, beta: float = 2.0, gamma: float = 2.0, temperature: float = 1.0):
        require_weights(dist__beta=beta, dist__gamma=gamma)
        require_positive(dist__temperature=temperature)
        self._weights, self._temperature = (beta, gamma), temperature

    def losses(self, student: torch.Tensor, teacher: torch.Tensor, labels: Labels) -> tuple[torch.Tensor, ...]:
        return dist_losses(student, teacher, self._temperature)

    def weights(self, epoch: int) -> tuple[float, ...]:
        return self._weights
