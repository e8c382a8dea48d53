"""Weight regularisers: parameters that mattered for earlier steps are held where they were.

penalty = sum over parameters of importance * (theta - anchor) ** 2, anchor = theta as the step
began. Importances come from the gradients of the step's own losses, without the penalty, while it
trains; they are kept in its checkpoint, for the images are gone when the next step needs them.

EWC   a running Fisher estimate F <- alpha g^2 + (1 - alpha) F, squared gradients of the batch.
      Source: Kirkpatrick et al., PNAS 2017, in the running form of RW's paper ("EWC++"), which all
      released codes of the family use; the original estimates F once, after training, per sample.
PI    path integral: omega = sum over updates of -g * (change of theta), importance = sum over
      steps of max(omega, 0) / ((total change)^2 + DAMPING).
      Source: Zenke et al., ICML 2017, equations 3 to 5.
RW    Fisher, as in EWC, plus a score: over every `interval` updates, omega / (F/2 (change)^2 +
      SCORE_FLOOR), summed, negative sums cut, averaged with the earlier steps' score.
      Source: Chaudhry et al., ECCV 2018, section 4.

As in the released codes of MiB and SDR, F and score of each tensor are brought to 0..1 by its own
minimum and maximum before they are used. There g belongs to the end of an update, here to its
start, as in the papers.

Memory during a step after the first, in copies of the parameters: EWC 3, PI 6, RW 9; in a
checkpoint: 1, 1, 2.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, Literal, Self

import torch
from torch import Tensor, nn

from sparcl_lib.errors import UserError
from sparcl_lib.fields import FACTOR, Range, check_ranges, later
from sparcl_lib.methods.hooks import LossValues, Mechanism, state_of
from sparcl_lib.models import Segmenter

if TYPE_CHECKING:
    from sparcl_lib.data.loading.dataset import StepBatch
    from sparcl_lib.methods.method import Method
    from sparcl_lib.training.step import StepTrainer

Tensors = dict[str, Tensor]
DAMPING = 1e-3
SCORE_FLOOR = 1e-8


@dataclass(frozen=True, kw_only=True)
class RegulariserSettings:
    """The row of a method's table that holds weights in place: `method.regulariser`."""

    name: Literal["ewc", "rw", "pi"]
    """Which one: EWC, RW or PI."""
    weight: Annotated[float, FACTOR] = later(1.0)
    """Factor of the penalty in the total."""
    alpha: Annotated[float, Range(0, 1, open_low=True)] = 0.9
    """Share of the newest squared gradient in the running Fisher estimate (ewc, rw)."""
    interval: Annotated[int, Range(1, 10_000_000)] = 10
    """Updates between two evaluations of the score (rw)."""

    def __post_init__(self) -> None:
        check_ranges(self, "method.regulariser.")


def quadratic_penalty(
    parameters: Mapping[str, Tensor], anchors: Tensors, importance: Tensors
) -> Tensor:
    """sum of importance * (theta - anchor) ** 2 over the parameters that have an importance."""
    terms = [(w * (parameters[n] - anchors[n]).square()).sum() for n, w in importance.items()]
    return torch.stack(terms).sum()


def running_fisher(fisher: Tensor, gradient: Tensor, alpha: float) -> Tensor:
    return alpha * gradient.square() + (1 - alpha) * fisher


def path_importance(path: Tensor, change: Tensor) -> Tensor:
    """PI: how much of the loss each parameter took away, per squared way it went."""
    return path.clamp(min=0) / (change.square() + DAMPING)


def path_score(path: Tensor, fisher: Tensor, change: Tensor) -> Tensor:
    """RW: how much of the loss each parameter took away, per change of the output (in KL)."""
    return path / (fisher * change.square() / 2 + SCORE_FLOOR)


def min_max(values: Tensor) -> Tensor:
    """To 0..1; all zero where all values are equal."""
    low, high = values.aminmax()
    return (values - low) / (high - low).clamp(min=torch.finfo(values.dtype).tiny)


def importance_from(state: Mapping[str, Tensors]) -> Tensors:
    """Normalised Fisher and score of earlier steps, added where there are both."""
    kinds = [kind for kind in ("fisher", "score") if kind in state]
    first, *others = kinds
    total = {n: min_max(value) for n, value in state[first].items()}
    for kind in others:
        total = {n: value + min_max(state[kind][n]) for n, value in total.items()}
    return total


class WeightPenalty:
    """A regulariser at work during one step.

    model: as the step begins, on its device. state: `state_dict` of the step before, None at step
    0, which is observed but not held. Parameters that are new in this step are free.
    """

    def __init__(
        self, row: RegulariserSettings, model: nn.Module, state: Mapping[str, Any] | None = None
    ) -> None:
        self.row = row
        self.parameters = dict(model.named_parameters())
        self.anchors = self._copy()
        before = {kind: self._to_device(known) for kind, known in (state or {}).items()}
        self.importance = importance_from(before) if state else {}
        self.score_before = before.get("score", {})
        self.now: dict[str, Tensors] = {}
        if row.name != "pi":
            self.now["fisher"] = self._zeros() | before.get("fisher", {})
        if row.name != "ewc":
            self.path = self._zeros()
        if row.name == "rw":
            self.now["score"] = self._zeros()
        self.start_of_interval = self._copy() if row.name == "rw" else {}
        self.updates = 0

    def _copy(self) -> Tensors:
        return {name: p.detach().clone() for name, p in self.parameters.items()}

    def _zeros(self) -> Tensors:
        return {name: torch.zeros_like(p) for name, p in self.parameters.items()}

    def _to_device(self, tensors: Tensors) -> Tensors:
        return {n: known.to(self.parameters[n].device) for n, known in tensors.items()}

    @torch.no_grad()
    def value(self) -> Tensor:
        """The unweighted penalty as it stands."""
        return quadratic_penalty(self.parameters, self.anchors, self.importance)

    @torch.no_grad()
    def after_backward(self) -> None:
        """Observe the gradients of the losses, then add the penalty's to them."""
        if self.row.name != "pi":
            fisher = self.now["fisher"]
            for name, _, gradient in self._trained():
                fisher[name] = running_fisher(fisher[name], gradient, self.row.alpha)
        if self.row.name != "ewc":
            self.last = {n: (g.clone(), p.detach().clone()) for n, p, g in self._trained()}
        for name, w in self.importance.items():
            p = self.parameters[name]
            if p.grad is not None:
                p.grad.add_(w * (p - self.anchors[name]), alpha=2 * self.row.weight)

    @torch.no_grad()
    def after_update(self) -> None:
        """Follow the path of the parameters."""
        self.updates += 1
        if self.row.name == "ewc":
            return
        for name, (gradient, was) in self.last.items():
            self.path[name] += gradient * (was - self.parameters[name])
        if self.row.name == "rw" and self.updates % self.row.interval == 0:
            self._close_interval()

    def progress(self) -> dict[str, Any]:
        """What the updates so far have moved; the rest is made anew from the network as the step
        begins and from the step before."""
        path = {} if self.row.name == "ewc" else {"path": self.path}
        moved = {"now": self.now, "start_of_interval": self.start_of_interval, **path}
        return {**moved, "updates": self.updates}

    def go_on(self, progress: Mapping[str, Any]) -> None:
        """Stand where `progress` was read."""
        self.now = {kind: self._to_device(known) for kind, known in progress["now"].items()}
        self.start_of_interval = self._to_device(progress["start_of_interval"])
        if "path" in progress:
            self.path = self._to_device(progress["path"])
        self.updates = progress["updates"]

    def _trained(self) -> list[tuple[str, nn.Parameter, Tensor]]:
        """Name, parameter and gradient of all that has one."""
        return [(n, p, p.grad) for n, p in self.parameters.items() if p.grad is not None]

    def _close_interval(self) -> None:
        for name, p in self.parameters.items():
            change = p - self.start_of_interval[name]
            fisher = self.now["fisher"][name]
            self.now["score"][name] += path_score(self.path[name], fisher, change)
        self.path, self.start_of_interval = self._zeros(), self._copy()

    @torch.no_grad()
    def state_dict(self) -> dict[str, Tensors]:
        """What the next step needs, once this one is done: fisher, score, by parameter name."""
        known = self.score_before
        if self.row.name == "pi":
            change = {n: p - self.anchors[n] for n, p in self.parameters.items()}
            score = {n: path_importance(self.path[n], change[n]) for n in change}
            self.now["score"] = {n: s + known[n] if n in known else s for n, s in score.items()}
        if self.row.name == "rw":
            self._close_interval()
            score = {n: s.clamp(min=0) for n, s in self.now["score"].items()}
            mean = {n: (score[n] + s) / 2 for n, s in known.items()}
            return {**self.now, "score": score | mean}
        return dict(self.now)


class Regulariser(Mechanism):
    """A weight penalty around the loop, with what it knows from the step before."""

    name = "regulariser"
    reads_gradients = True

    def __init__(self, settings: RegulariserSettings) -> None:
        self.settings = settings

    @classmethod
    def of(cls, method: "Method", step: int) -> Self | None:
        return None if method.regulariser is None else cls(method.regulariser)

    def prepare(self, student: Segmenter, before: Mapping[str, Any] | None) -> None:
        self.student, self.known = student, None if before is None else state_of(self, before)
        kinds = {"ewc": {"fisher"}, "pi": {"score"}, "rw": {"fisher", "score"}}[self.settings.name]
        if before is not None and (self.known is None or set(self.known) != kinds):
            raise UserError(
                f"step {before['step']} knows no importances of {self.settings.name}: train it "
                f"with this method too"
            )

    def before_step(self, trainer: "StepTrainer", batches: "Iterable[StepBatch]") -> None:
        self.held = WeightPenalty(self.settings, self.student, self.known)

    def progress(self) -> dict[str, Any] | None:
        return self.held.progress()

    def go_on(self, trainer: "StepTrainer", progress: Mapping[str, Any] | None) -> None:
        self.before_step(trainer, ())
        self.held.go_on(progress or {})

    def penalty(self) -> LossValues | None:
        if not self.held.importance:
            return None
        value = self.held.value()
        return LossValues(self.settings.weight * value, {self.settings.name: value})

    def after_backward(self) -> None:
        self.held.after_backward()

    def after_update(self) -> None:
        self.held.after_update()

    def state_dict(self) -> dict[str, Any] | None:
        return self.held.state_dict()
