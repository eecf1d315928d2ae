"""Moonshining any PyTorch network: cheap convolutions in place of its own, and a loss that distils it."""

import copy
import math
import weakref
from collections.abc import Callable, Sequence
from typing import Any, Self, TypeVar

import torch
from torch import nn

from moonshine.distillation.attention_transfer import MEAN_SQUARE
from moonshine.distillation.dist import DistSettings
from moonshine.distillation.dkd import DkdSettings
from moonshine.distillation.objective import Distillation
from moonshine.distillation.teacher import Teacher, described
from moonshine.distillation.ttm import TtmSettings
from moonshine.models.attention_layers import attention_layers
from moonshine.models.conv_spec import KNOWN
from moonshine.models.convolutions import reasons_to_keep, substitute
from moonshine.models.networks import without_wrappers
from moonshine.models.residual_blocks import substitute_blocks
from moonshine.runtime.suggest import suggest_path

Network = TypeVar("Network", bound=nn.Module)


def list_convolutions() -> list[str]:
    """Spellings of the cheap convolutions that `cheapen` accepts; other numbers may replace those in them.

    S-2x2 is a 2x2 kernel with dilation 2. G(g) is a 3x3 convolution in g groups and a 1x1: G(N) is depthwise separable,
    G(N/8) has 8 channels per group. B(b) is a bottleneck of 1/b of the channels, BG(b,g) one with g groups.
    Crowley, Gray, Storkey, "Moonshine: Distilling with Cheap Convolutions", arXiv 1711.02613, section 3.
    """
    return [spelling for spelling in KNOWN if spelling != "S"]


def cheapen(network: Network, conv: str | Sequence[str]) -> Network:
    """A copy of a network with cheap convolutions in place of its 3x3 ones; the original stays as it is.

    Replaces the 3x3 convolutions with padding 1, no dilation, no groups and equal strides, except the first convolution
    of the network. The new ones are initialised at random from PyTorch's global generator, on the device and with the
    dtype of those they replace; all other weights are the original's. If the network is compiled or distributed, the
    network that it wraps is copied.

    A list has one convolution for each residual block of a ResNet-18, a ResNet-34 or a wide ResNet, from the image to
    the classifier; "S" leaves a block as it is. Blocks with B or BG lose the second of their two convolutions
    (BlockSwap, arXiv 1906.04113).

    Raises ValueError for an unknown `conv`, for one that does not divide the channels of a layer, for a network
    without a convolution to replace, and for a list of another length than there are such blocks.
    """
    student: Network = copy.deepcopy(without_wrappers(network))  # type: ignore[assignment]
    if not isinstance(conv, str):
        substitute_blocks(student, conv)
    elif not substitute(student, conv):
        why = [f"{path}: {reason}" for path, reason in reasons_to_keep(student).items()]
        raise ValueError(f"no convolution to replace ({'; '.join(why[-3:]) or 'there are none'})")
    return student


class Distiller(nn.Module):
    """The loss of a student that learns from labels and from a teacher.

        distiller = Distiller(teacher, student, beta=750)
        for images, labels in loader:
            distiller(images, labels).backward()
            optimizer.step()
            optimizer.zero_grad()

    It is the sum of the cross-entropy and of the losses that are asked for, each times its weight, in float32. The
    teacher is a copy, frozen and in eval mode, which is not part of `parameters()` or `state_dict()`.
    After each call, `parts` has the unweighted parts of the loss by name, and `logits` the student's output, detached.
    """

    parts: dict[str, torch.Tensor]
    logits: torch.Tensor
    epoch: int
    """The current epoch, counted from 1, to be set by the caller; only `warmup_epochs` of `dkd` depends on it."""

    def __init__(
        self,
        teacher: nn.Module,
        student: nn.Module,
        *,
        beta: float | Sequence[float] | None = None,
        alpha: float | None = None,
        temperature: float = 4.0,
        cross_entropy: float | None = None,
        standardise_logits: bool = False,
        dist: DistSettings | None = None,
        dkd: DkdSettings | None = None,
        ttm: TtmSettings | None = None,
        layers: Sequence[str] | None = None,
        teacher_layers: Sequence[str] | None = None,
        form: str = MEAN_SQUARE,
    ):
        """`teacher` and `student` map images to logits, (batch, classes); the student may be compiled or distributed.

        `beta` is the weight of attention transfer, for all layers or each; 750 to 1000 suits the default form. `alpha`
        and `temperature` are for knowledge distillation; 0.9 and 4 are usual. `dist` has the keys beta, gamma and
        temperature, by default 2, 2 and 1; `dkd` has alpha, beta, temperature and, if wanted, warmup_epochs; `ttm` has
        weight, exponent and, if wanted, weighted. `standardise_logits` is for all of these but attention transfer.
        Losses can be combined. `cross_entropy` is the weight of the cross-entropy with the labels; by default 1 - alpha
        if there is an alpha, otherwise 1.
        `layers` are the paths of the student's layers whose attention is compared, with outputs of shape (batch,
        channels, height, width); `teacher_layers` are the teacher's, by default the same. Without them,
        `attention_layers` chooses the ends of the stages of torchvision's families.
        `form` is "mean-square", as the authors of attention transfer coded it, or "norm", the paper's equation.

        Raises ValueError if there is nothing to distil, if layers cannot be found or differ in number, for an unknown
        form or a number out of range, and for DataParallel, whose replicas of the student cannot be observed.
        """
        super().__init__()
        betas = () if beta is None else tuple(beta) if isinstance(beta, Sequence) else (beta,)
        compares_logits = any(setting is not None for setting in (alpha, dist, dkd, ttm))
        if not compares_logits and (beta is None or (betas and not any(betas))):
            raise ValueError(
                "nothing to distil: give beta (attention transfer), alpha (knowledge distillation), dist, dkd or ttm"
            )
        if not (math.isfinite(temperature) and temperature > 0):
            raise ValueError(f"temperature: must be greater than 0, found {temperature}")
        for network in (teacher, student):
            if isinstance(without_wrappers(network), nn.DataParallel):
                raise ValueError("DataParallel is not supported; use DistributedDataParallel")
        if alpha is not None and cross_entropy is None and not 0 <= alpha <= 1:
            raise ValueError(f"alpha: {alpha} is not between 0 and 1; with cross_entropy it may be larger")
        of_student, of_teacher = _paired(student, teacher, layers, teacher_layers) if beta is not None else ((), ())
        self.student, self.epoch = student, 1
        self._objective = Distillation(
            of_student,
            beta=0.0 if beta is None else beta,
            groups=range(1, len(of_student) + 1),
            form=form,
            alpha=alpha,
            temperature=temperature,
            cross_entropy=cross_entropy,
            standardise_logits=standardise_logits,
            dist=dist,
            dkd=dkd,
            ttm=ttm,
        )
        self._objective.attach(without_wrappers(student))
        weakref.finalize(self, self._objective.detach)  # a student may get another distiller later
        self._teacher = Teacher(copy.deepcopy(without_wrappers(teacher)), of_teacher)

    def _apply(self, fn: Callable[..., Any], recurse: bool = True) -> Self:
        """What `to`, `double` and the like do to all tensors, including the teacher's."""
        self._teacher.network._apply(fn, recurse)
        return super()._apply(fn, recurse)

    def forward(self, images: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        """The loss of a batch, a scalar; `labels` are class indices, (batch,)."""
        self._teacher.network.to(images.device)
        of_teacher = self._teacher(images)
        logits = self.student(images)
        if not isinstance(logits, torch.Tensor) or logits.dim() != 2:
            raise TypeError(f"the student returned {described(logits)}, not logits of shape (batch, classes)")
        if self._objective.compares_logits and logits.shape != of_teacher.logits.shape:
            raise ValueError(
                f"the student has {logits.shape[1]} classes, the teacher {of_teacher.logits.shape[1]}; "
                "losses that compare logits need the same ones"
            )
        loss, parts = self._objective(logits, labels, of_teacher, self.epoch)
        self.parts = dict(zip(self._objective.parts, (part.detach() for part in parts)))
        self.logits = logits.detach()
        return loss


def _paired(
    student: nn.Module, teacher: nn.Module, layers: Sequence[str] | None, teacher_layers: Sequence[str] | None
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    of_student = _layers(student, layers, "layers")
    of_teacher = _layers(teacher, layers if teacher_layers is None else teacher_layers, "teacher_layers")
    if len(of_student) != len(of_teacher):
        raise ValueError(
            f"the student has {len(of_student)} layers to compare ({', '.join(of_student)}), the teacher "
            f"{len(of_teacher)} ({', '.join(of_teacher)}); name as many of each: layers=[...], teacher_layers=[...]"
        )
    return of_student, of_teacher


def _layers(network: nn.Module, named: Sequence[str] | None, argument: str) -> tuple[str, ...]:
    network = without_wrappers(network)
    paths = [path for path, _ in network.named_modules() if path]
    if named is None:
        if found := attention_layers(network):
            return found
        children = ", ".join(name for name, _ in network.named_children())
        raise ValueError(
            f"{argument}: name the layers of {type(network).__name__} to compare, which are known for torchvision's "
            f"families alone; its parts are {children or 'none'}"
        )
    if not named:
        raise ValueError(f"{argument}: name at least one layer, or leave it out")
    if unknown := [path for path in named if path not in paths]:
        raise ValueError(
            f'{argument}: {type(network).__name__} has no layer "{unknown[0]}"{suggest_path(unknown[0], paths)}'
        )
    return tuple(named)
