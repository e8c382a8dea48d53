"""What is fixed during a step, from the configuration and the number of its images."""

import math
from dataclasses import dataclass

from sparcl_lib.config import OptimConfig, RunConfig, at_step
from sparcl_lib.methods import Method
from sparcl_lib.models.segmenter import BatchNormPolicy
from sparcl_lib.training.workspace import Workspace


@dataclass(frozen=True)
class StepPlan:
    """What is fixed during a step."""

    method: Method
    step: int
    iterations: int
    num_old: int
    """Classes of earlier steps with background; 1 at step 0."""
    setup: str
    batch_norm: BatchNormPolicy
    optim: OptimConfig
    iterations_before: int = 0
    """Iterations of the earlier steps: where this step starts on the log's axis."""

    batches_per_pass: int | None = None
    """Batches that show every image of the step once, if it has as many; None: all there are."""
    sync_batch_norm: bool = False
    """Whether batch norm takes its statistics over the batches of all processes."""

    @property
    def label(self) -> str:
        return f"{self.method.name} step {self.step}"

    @property
    def kept(self) -> str:
        """What a message about this step's end says of the earlier ones."""
        return ", earlier steps are kept" if self.step > 0 else ""

    @property
    def counts_background(self) -> bool:
        """Whether background features enter the prototypes: see methods.labelled_sums."""
        return self.step == 0 and self.setup != "overlapped"


def make_plan(workspace: Workspace, step: int, world_size: int) -> StepPlan:
    """The plan of a step for each of `world_size` processes."""
    config, task = workspace.config, workspace.learned
    images = [len(workspace.train_ids[k]) for k in range(step + 1)]
    counts = [iterations_of(config, k, n, world_size) for k, n in enumerate(images)]
    return StepPlan(
        method=workspace.method,
        step=step,
        iterations=counts[-1],
        num_old=task.num_classes(step - 1) if step > 0 else 1,
        setup=config.setup,
        batch_norm=config.model.batch_norm,
        optim=config.optim,
        iterations_before=sum(counts[:-1]),
        batches_per_pass=_batches(config, images[-1], world_size),
        sync_batch_norm=config.model.sync_batch_norm,
    )


def iterations_of(config: RunConfig, step: int, images: int, world_size: int = 1) -> int:
    """Iterations of a step that has so many images."""
    optim = config.optim
    if optim.iterations is not None:
        return at_step(optim.iterations, step)
    return _batches(config, images * at_step(optim.epochs, step), world_size)


def _batches(config: RunConfig, images: float, world_size: int) -> int:
    """Batches of each process that show so many images, at least one."""
    return max(1, math.ceil(images / (config.data.batch_size * world_size)))
