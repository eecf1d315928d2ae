"""Labels of a batch: of images of one class, or of images that were mixed."""

from dataclasses import dataclass

import torch


@dataclass(frozen=True)
class MixedLabels:
    """Two labels per image: `share` of it is of class `own`, the rest of class `partner`, int64 (batch,) each."""

    own: torch.Tensor
    partner: torch.Tensor
    share: float

    def __len__(self) -> int:
        return len(self.own)


Labels = torch.Tensor | MixedLabels
"""Class indices, int64 (batch,), or those of mixed images."""


def correct_predictions(logits: torch.Tensor, labels: Labels) -> torch.Tensor:
    """How many of the logits (batch, classes) are largest at the label, a scalar.

    A prediction for a mixed image counts by the share of the predicted class, as in the code of mixup's authors.
    """
    predicted = logits.argmax(1)
    if not isinstance(labels, MixedLabels):
        return (predicted == labels).sum()
    of_own, of_partner = ((predicted == classes).sum().double() for classes in (labels.own, labels.partner))
    return labels.share * of_own + (1 - labels.share) * of_partner
