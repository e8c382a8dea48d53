"""Distillation from the frozen model of the previous step, of its outputs or its features.

B images, K classes now, K_old <= K classes of the teacher (background first in both), H x W pixels,
D channels, h x w feature map.
"""

import torch
from torch import Tensor
from torch.nn import functional as F

from sparcl_lib.losses.precision import full_precision


@full_precision
def knowledge_distillation(logits: Tensor, teacher_logits: Tensor) -> Tensor:
    """Cross-entropy between teacher and student over the teacher's classes.

    - mean over pixels and old classes of softmax(teacher) * log_softmax(student[:K_old]).
    The new classes take no part. The mean over classes (not the sum) follows the released codes of
    the family, for which the usual weight of 100 is meant.

    Source: LwF (Li & Hoiem, 2016), equation 2, in its dense form used by MiB and SDR.
    logits (B, K, H, W); teacher_logits (B, K_old, H, W). Returns a scalar.
    Raises ValueError when the shapes do not fit.
    """
    _check_shapes(logits, teacher_logits)
    num_old = teacher_logits.shape[1]
    log_student = F.log_softmax(logits[:, :num_old], dim=1)
    return -(F.softmax(teacher_logits, dim=1) * log_student).mean()


@full_precision
def unbiased_knowledge_distillation(logits: Tensor, teacher_logits: Tensor) -> Tensor:
    """Distillation in which the teacher's background stands for background or any new class.

    The student's background log-probability is logsumexp over background and new classes, minus
    logsumexp over all; the old classes keep theirs. Mean over pixels, divided by the number of
    old classes with background.

    Source: MiB (Cermelli et al., CVPR 2020), section 3, equation 7.
    logits (B, K, H, W); teacher_logits (B, K_old, H, W). Returns a scalar.
    Raises ValueError when the shapes do not fit.
    """
    _check_shapes(logits, teacher_logits)
    num_old = teacher_logits.shape[1]
    teacher = F.softmax(teacher_logits, dim=1)
    log_prob = F.log_softmax(logits, dim=1)
    background_or_new = torch.cat([log_prob[:, :1], log_prob[:, num_old:]], dim=1)
    background = teacher[:, 0] * background_or_new.logsumexp(dim=1)
    old = teacher[:, 1:] * log_prob[:, 1:num_old]
    return -(background.sum() + old.sum()) / teacher.numel()


@full_precision
def feature_distillation(features: Tensor, teacher_features: Tensor) -> Tensor:
    """Mean of the squared differences between the encoder's features now and before.

    Source: ILT (Michieli & Zanuttigh, ICCV Workshops 2019), the loss on the encoder's output in
    section 4.2.
    features and teacher_features (B, D, h, w). Returns a scalar. Raises ValueError when the shapes
    differ.
    """
    if features.shape != teacher_features.shape:
        raise ValueError(
            f"expected features of one shape (B, D, h, w), "
            f"got {tuple(features.shape)} and {tuple(teacher_features.shape)}"
        )
    return F.mse_loss(features, teacher_features)


def _check_shapes(logits: Tensor, teacher_logits: Tensor) -> None:
    same_pixels = logits.shape[0] == teacher_logits.shape[0] and (
        logits.shape[2:] == teacher_logits.shape[2:]
    )
    if not same_pixels or teacher_logits.shape[1] > logits.shape[1]:
        raise ValueError(
            f"expected logits (B, K, H, W) and teacher_logits (B, K_old <= K, H, W), "
            f"got {tuple(logits.shape)} and {tuple(teacher_logits.shape)}"
        )
