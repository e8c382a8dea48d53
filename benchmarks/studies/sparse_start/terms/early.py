"""Sparsity in step 0 alone, as terms: `sparcl ... --plugin FILE.py`. Later they are 0."""

from torch import Tensor

from sparcl_lib import losses, term
from sparcl_lib.methods.context import StepContext


@term(first_step=0)
def early_sparsification(context: StepContext) -> Tensor:
    """The paper's ratio, `sparcl_lib.losses.sparsification`."""
    if context.step:
        return 0 * context.output.low_res_logits.sum()
    return losses.sparsification(
        context.output.features, context.completed_labels, context.num_classes
    )


@term(first_step=0)
def early_hoyer(context: StepContext) -> Tensor:
    """1 - Hoyer's sparseness, as `hoyer` of ../../latent_chapters/terms/sparser.py."""
    if context.step:
        return 0 * context.output.low_res_logits.sum()
    rows = context.output.features.float().movedim(1, -1).flatten(0, 2).clamp(min=0)
    ids = context.completed_labels.flatten()
    rows = rows[(ids < context.num_classes) & (rows.detach().sum(1) > 0)]
    root = rows.shape[1] ** 0.5
    return ((rows.sum(1) / rows.norm(dim=1)).mean() - 1) / (root - 1)
