"""Loss functions: tensors in, scalar out, nothing else. Lift any of them into another codebase.

Each module lists its own in `__all__`; all of them are names of this package. `pseudo_labels` has
no loss, but what PLOP's is of.
"""

from sparcl_lib.losses import distillation, latent, released, segmentation
from sparcl_lib.losses.distillation import *  # noqa: F403
from sparcl_lib.losses.latent import *  # noqa: F403
from sparcl_lib.losses.latent import Distance as Distance  # for the annotations of callers
from sparcl_lib.losses.released import *  # noqa: F403
from sparcl_lib.losses.segmentation import *  # noqa: F403

__all__ = sorted([*distillation.__all__, *latent.__all__, *released.__all__, *segmentation.__all__])
