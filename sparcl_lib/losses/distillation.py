"""Distillation from the frozen model of the previous step, of its outputs or its features.

B images, K classes now, K_old <= K classes of the teacher (background first in both), H x W pixels,
D channels, h x w feature map. No gradient flows into what is the teacher's, and 0 images cost 0.
"""

import math
from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from sparcl_lib.losses.precision import full_precision
from sparcl_lib.losses.segmentation import check_num_old
from sparcl_lib.prototypes.sums import shape_of

__all__ = [
    "binary_knowledge_distillation",
    "entropy_weighted_distillation",
    "feature_distillation",
    "fold_new_classes",
    "knowledge_distillation",
    "local_pod",
    "unbiased_knowledge_distillation",
]


@full_precision
def knowledge_distillation(logits: Tensor, teacher_logits: Tensor) -> Tensor:
    """Cross-entropy between teacher and student over the teacher's classes.

    Minus the mean over pixels and old classes of softmax(teacher) * log_softmax(student[:K_old]).
    The new classes take no part. The mean over classes (not the sum) follows the released codes of
    the family, for which the usual weight of 100 is meant.

    Source: LwF (Li & Hoiem, 2016), equation 2, in its dense form used by MiB and SDR.
    logits (B, K, H, W); teacher_logits (B, K_old, H, W). Returns a scalar; no pixel is left out.
    Raises ValueError when the shapes do not fit.
    """
    _check_shapes(logits, teacher_logits)
    num_old = teacher_logits.shape[1]
    log_student = F.log_softmax(logits[:, :num_old], dim=1)
    return -_mean(F.softmax(teacher_logits.detach(), dim=1) * log_student)


@full_precision
def unbiased_knowledge_distillation(logits: Tensor, teacher_logits: Tensor) -> Tensor:
    """Distillation in which the teacher's background stands for background or any new class.

    The student's background log-probability is logsumexp over background and new classes, minus
    logsumexp over all; the old classes keep theirs. Mean over pixels, divided by the number of
    old classes with background.

    Source: MiB (Cermelli et al., CVPR 2020), section 3, equation 7.
    logits (B, K, H, W); teacher_logits (B, K_old, H, W). Returns a scalar; no pixel is left out.
    Raises ValueError when the shapes do not fit.
    """
    _check_shapes(logits, teacher_logits)
    num_old = teacher_logits.shape[1]
    teacher = F.softmax(teacher_logits.detach(), dim=1)
    log_prob = F.log_softmax(logits, dim=1)
    background_or_new = torch.cat([log_prob[:, :1], log_prob[:, num_old:]], dim=1)
    background = teacher[:, 0] * background_or_new.logsumexp(dim=1)
    old = teacher[:, 1:] * log_prob[:, 1:num_old]
    return -(background.sum() + old.sum()) / max(teacher.numel(), 1)


@full_precision
def feature_distillation(features: Tensor, teacher_features: Tensor) -> Tensor:
    """Mean of the squared differences between the encoder's features now and before.

    Source: ILT (Michieli & Zanuttigh, ICCV Workshops 2019), the loss on the encoder's output in
    section 4.2.
    features and teacher_features (B, D, h, w). Returns a scalar; no location is left out. Raises
    ValueError when the shapes differ.
    """
    _check_same(features, teacher_features)
    return _mean((features - teacher_features.detach()).square())


@full_precision
def binary_knowledge_distillation(logits: Tensor, teacher_logits: Tensor) -> Tensor:
    """Binary cross-entropy with the teacher's sigmoid as target: sum over old classes, mean over
    pixels.

    Source: iCaRL (Rebuffi et al., CVPR 2017), equation 1, second sum, in the dense form of MiB's
    released code (LwF-MC), where it stands beside `binary_cross_entropy` of all classes with a
    weight of 10; iCaRL asks the labels for new classes only and gives both sums the same weight.
    logits (B, K, H, W); teacher_logits (B, K_old, H, W). Returns a scalar; no pixel is left out.
    Raises ValueError when the shapes do not fit.
    """
    _check_shapes(logits, teacher_logits)
    old = logits[:, : teacher_logits.shape[1]]
    return _mean((F.softplus(old) - torch.sigmoid(teacher_logits.detach()) * old).sum(dim=1))


@full_precision
def entropy_weighted_distillation(
    logits: Tensor, teacher_logits: Tensor, mask: Tensor, strength: float = 1.0
) -> Tensor:
    """Distillation on chosen pixels, stronger where the teacher is in doubt.

    Minus the mean, over the pixels of the mask, of w * sum over old classes of p_teacher * log
    p_student, with w = 1 + strength * (entropy of the teacher in bits). The student's probabilities
    are taken over all classes: where nothing is labelled the new ones must be silent.

    Source: CIL (Klingner et al., ITSC 2020), its distillation loss. The form that the authors gave
    to SDR's released code has neither the minus nor the logarithm.
    logits (B, K, H, W); teacher_logits (B, K_old, H, W); mask (B, H, W) bool, the unlabelled
    pixels. Returns a scalar, 0 for an empty mask. Raises ValueError when the shapes do not fit.
    """
    _check_shapes(logits, teacher_logits)
    pixels = (len(logits), *logits.shape[2:])
    if not isinstance(mask, Tensor) or mask.shape != pixels:
        raise ValueError(f"mask must be (B, H, W) = {pixels}, got {shape_of(mask)}")
    if mask.dtype != torch.bool:
        raise ValueError(f"mask must be of torch.bool, got {mask.dtype}: mask.bool() is")
    log_teacher = F.log_softmax(teacher_logits.detach(), dim=1)
    teacher = log_teacher.exp()
    weight = 1 - strength / math.log(2) * (teacher * log_teacher).sum(dim=1)
    log_student = F.log_softmax(logits, dim=1)[:, : teacher.shape[1]]
    losses = -weight * (teacher * log_student).sum(dim=1)
    return torch.where(mask, losses, 0).sum() / mask.sum().clamp(min=1)


@full_precision
def local_pod(
    features: Tensor, teacher_features: Tensor, scales: tuple[int, ...] = (1, 2, 4)
) -> Tensor:
    """Distance between pooled squares of a map now and before, mean over images.

    At scale s the map is cut into s x s parts; in each part the squares are averaged along its
    width and along its height. The distance is the Euclidean norm over all these averages.

    Source: PLOP (Douillard et al., CVPR 2021), section 3.2, equations 2 to 5. As in the released
    code, for which the weights are meant, the norm is not squared. There the last rows and columns
    are left out when a side is not divisible by s; here parts then overlap by one (adaptive
    pooling), the same thing otherwise.
    features and teacher_features (B, D, h, w) of any layer. Returns a scalar; no location is left
    out.
    Raises ValueError when the shapes differ, and for scales that are not whole numbers from 1 on.
    """
    _check_same(features, teacher_features)
    if (
        not isinstance(scales, Sequence)
        or not scales
        or not all(isinstance(s, int) and s > 0 for s in scales)
    ):
        raise ValueError(f"scales must be whole numbers from 1 on, as (1, 2, 4), got {scales}")
    # Pooling is linear: the difference is pooled once instead of both maps.
    difference = features.square() - teacher_features.detach().square()
    height, width = difference.shape[2:]
    sizes = [size for s in scales for size in ((height, s), (s, width))]
    pooled = [F.adaptive_avg_pool2d(difference, size).flatten(1) for size in sizes]
    distances: Tensor = torch.linalg.vector_norm(torch.cat(pooled, dim=1), dim=1)
    return _mean(distances)


@full_precision
def fold_new_classes(logits: Tensor, num_old: int) -> Tensor:
    """(B, K, h, w) -> (B, num_old, h, w): the logits of new classes are added to background's.

    Source: PLOP's released code, which distils such logits by `local_pod`, too. Raises ValueError
    when num_old is outside 1..K.
    """
    check_num_old(num_old, logits)
    background = logits[:, :1] + logits[:, num_old:].sum(dim=1, keepdim=True)
    return torch.cat([background, logits[:, 1:num_old]], dim=1)


def _mean(values: Tensor) -> Tensor:
    return values.mean() if values.numel() else values.sum()


def _check_same(features: Tensor, teacher_features: Tensor) -> None:
    tensors = all(isinstance(value, Tensor) for value in (features, teacher_features))
    if not tensors or features.ndim != 4 or features.shape != teacher_features.shape:
        raise ValueError(
            f"expected features of one shape (B, D, h, w), "
            f"got {shape_of(features)} and {shape_of(teacher_features)}"
        )


def _check_shapes(logits: Tensor, teacher_logits: Tensor) -> None:
    tensors = all(isinstance(x, Tensor) and x.ndim > 1 for x in (logits, teacher_logits))
    if tensors:
        same_pixels = logits.shape[0] == teacher_logits.shape[0] and (
            logits.shape[2:] == teacher_logits.shape[2:]
        )
        if same_pixels and 1 <= teacher_logits.shape[1] <= logits.shape[1]:
            return
    raise ValueError(
        f"expected logits (B, K, H, W) and teacher_logits (B, K_old <= K, H, W), "
        f"got {shape_of(logits)} and {shape_of(teacher_logits)}"
    )
