"""Loss functions: tensors in, scalar out, nothing else. Lift any of them into another codebase."""

from sparcl_lib.losses.distillation import (
    feature_distillation,
    knowledge_distillation,
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
from sparcl_lib.losses.segmentation import cross_entropy, unbiased_cross_entropy

__all__ = [
    "attraction",
    "cross_entropy",
    "feature_distillation",
    "knowledge_distillation",
    "matching_from_sums",
    "prototypes_matching",
    "repulsion",
    "repulsion_from_sums",
    "sparsification",
    "unbiased_cross_entropy",
    "unbiased_knowledge_distillation",
    "vector_distance",
]
