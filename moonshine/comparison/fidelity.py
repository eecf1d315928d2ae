"""How closely a network follows its teacher, and how well its confidence is calibrated."""

import numpy as np
from scipy.special import log_softmax

from moonshine.predictions.parquet_file import Predictions

BINS = 15
"""Bins of confidence, as in Guo et al. 2017."""


def agreement(student: Predictions, teacher: Predictions) -> float:
    """Share of the images that get the teacher's class, in per cent.

    It is the top-1 agreement of Stanton et al., "Does Knowledge Distillation Really Work?", NeurIPS 2021.
    """
    return float(100 * (student.best[:, 0] == teacher.best[:, 0]).mean())


def divergence(student: Predictions, teacher: Predictions) -> float:
    """The mean over images of KL(teacher || student) of their probabilities at temperature 1, in nats.

    The logits have been rounded to float16, which changes it by about 0.1 %.
    """
    ours, theirs = (log_softmax(each.logits.astype(np.float64), axis=1) for each in (student, teacher))
    return float((np.exp(theirs) * (theirs - ours)).sum(1).mean())


def calibration_error(predictions: Predictions) -> float:
    """Expected calibration error, in per cent: the mean over images of |accuracy - confidence| of their bin.

    Images are in 15 bins of equal width by the probability of the predicted class (Guo et al., "On Calibration of
    Modern Neural Networks", ICML 2017, eq. 3).
    """
    confidence = np.exp(log_softmax(predictions.logits.astype(np.float64), axis=1)).max(1)
    right = predictions.best[:, 0] == predictions.labels
    bins = np.ceil(confidence * BINS).astype(int)
    surplus = np.bincount(bins, weights=right - confidence)
    return float(100 * np.abs(surplus).sum() / len(right))
