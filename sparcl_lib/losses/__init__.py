"""Loss functions: tensors in, scalar out, nothing else. Lift any of them into another codebase."""

from sparcl_lib.losses.distillation import (
    binary_knowledge_distillation,
    entropy_weighted_distillation,
    feature_distillation,
    fold_new_classes,
    knowledge_distillation,
    local_pod,
    unbiased_knowledge_distillation,
)
from sparcl_lib.losses.latent import (
    attraction,
    matching_from_sums,
    prototypes_matching,
    repulsion,
    repulsion_from_sums,
    sparsification,
    vector_distance,
)
from sparcl_lib.losses.released import reshaped_features
from sparcl_lib.losses.segmentation import (
    adaptive_cross_entropy,
    binary_cross_entropy,
    cross_entropy,
    unbiased_cross_entropy,
)

__all__ = [
    "adaptive_cross_entropy",
    "attraction",
    "binary_cross_entropy",
    "binary_knowledge_distillation",
    "cross_entropy",
    "entropy_weighted_distillation",
    "feature_distillation",
    "fold_new_classes",
    "knowledge_distillation",
    "local_pod",
    "matching_from_sums",
    "prototypes_matching",
    "repulsion",
    "repulsion_from_sums",
    "reshaped_features",
    "sparsification",
    "unbiased_cross_entropy",
    "unbiased_knowledge_distillation",
    "vector_distance",
]
