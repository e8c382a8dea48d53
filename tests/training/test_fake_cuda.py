"""GPU code without a GPU: one step's forward code of every method on fake CUDA tensors.

They have shapes, dtypes and a device, and no values: a tensor left on the CPU raises, and so does
whatever waits for a value (`float(x)`, `if x`, `.item()`, `torch.unique`). A backward pass does not
run on them; everything around it does.
"""

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from lightning_fabric.plugins.precision import Precision
from torch import Tensor, nn
from torch._subclasses.fake_tensor import (
    DataDependentOutputException,
    DynamicOutputShapeException,
    FakeTensorMode,
)

from sparcl_lib.config import OptimConfig, parse_settings, resolve
from sparcl_lib.data.loading.dataset import StepBatch
from sparcl_lib.data.loading.transforms import normalise, to_rgb
from sparcl_lib.data.splits import remap_labels
from sparcl_lib.errors import UserError
from sparcl_lib.methods import METHODS, Method, term
from sparcl_lib.models import NetworkSpec, Segmenter, build_segmenter, freeze, grow, predict
from sparcl_lib.prototypes import PrototypeBank
from sparcl_lib.tasks import SETUPS
from sparcl_lib.training.evaluation import confusion_matrix
from sparcl_lib.training.plan import StepPlan
from sparcl_lib.training.step import StepTrainer

OLD, NEW, SIZE, BATCH = 7, 4, 32, 2  # channels of MiniVOC's 6-4
GPU = torch.device("cuda")
HOST_SYNC = (DataDependentOutputException, DynamicOutputShapeException)


class FakeFabric:
    """What StepTrainer asks of Fabric, on a device that is not there."""

    device = GPU
    is_global_zero = True
    autocast = staticmethod(nullcontext)
    strategy = SimpleNamespace(precision=Precision())

    def setup(
        self, model: nn.Module, optimizer: torch.optim.SGD
    ) -> tuple[nn.Module, torch.optim.SGD]:
        model.to(self.device)
        (group,) = optimizer.param_groups
        group["params"] = [p for p in model.parameters() if p.requires_grad]
        return model, optimizer

    def all_reduce(self, tensor: Tensor, reduce_op: str) -> Tensor:
        return tensor

    def backward(self, loss: Tensor) -> None:
        on_gpu(loss)


@contextmanager
def fake_tensors() -> Iterator[None]:
    with FakeTensorMode(), torch.no_grad():
        yield


@pytest.fixture(autouse=True)
def listed_sync(monkeypatch):
    """The one host sync of an iteration: is the loss finite?"""
    monkeypatch.setattr("torch.isfinite", lambda total: on_gpu(total) or True)


@pytest.fixture(autouse=True)
def movable_networks(monkeypatch):
    """Fake parameters cannot be swapped, as Module.to does, nor copied by their data: both anew."""

    def to(self: nn.Module, device: Any = None, **others: Any) -> nn.Module:
        for module in self.modules() if device is not None else ():
            for name, p in module._parameters.items():
                if p is not None:
                    module._parameters[name] = nn.Parameter(p.to(device), p.requires_grad)
            for name, buffer in module._buffers.items():
                module._buffers[name] = None if buffer is None else buffer.to(device)
        return self

    def deepcopy(self: Tensor, memo: dict[int, Any]) -> Tensor:
        copied = self.detach().clone()
        if isinstance(self, nn.Parameter):
            copied = nn.Parameter(copied, self.requires_grad)
        return memo.setdefault(id(self), copied)

    monkeypatch.setattr(nn.Module, "to", to)
    monkeypatch.setattr(Tensor, "__deepcopy__", deepcopy)
    monkeypatch.setattr(nn.Parameter, "__deepcopy__", deepcopy)


def on_gpu(*tensors: Tensor) -> None:
    assert tensors and {tensor.device.type for tensor in tensors} == {"cuda"}


def some_batches() -> list[StepBatch]:
    pixels = torch.zeros(BATCH, 3, SIZE, SIZE, dtype=torch.uint8, device=GPU)
    masks = torch.zeros(BATCH, SIZE, SIZE, dtype=torch.uint8, device=GPU)
    return [StepBatch(normalise(pixels), remap_labels(masks, np.arange(256, dtype=np.uint8)))]


def method_of(name: str, setup: str, *settings: str) -> Method:
    return resolve("minivoc", name, [parse_settings(settings)], task="6-4", setup=setup).method


def first_network(method: Method) -> Segmenter:
    spec = NetworkSpec(
        "mini", (OLD,), output_stride=4, head="conv", head_channels=16,
        unknown=method.unknown > 0, head_per_step=method.head_per_step,
    )  # fmt: skip
    return build_segmenter(spec)


def trainer_of(method: Method, setup: str, before: dict[str, Any] | None = None) -> StepTrainer:
    """Step 0, or with the checkpoint of step 0 step 1, made on the CPU as a run makes it."""
    step = 0 if before is None else 1
    student, bank, teacher = first_network(method), PrototypeBank(OLD, 64), None
    if step:
        teacher = freeze(student) if method.needs_teacher(step) else None
        student = grow(student, NEW, method.classifier_init)
        bank = bank.grow(OLD + NEW)
    mechanisms = method.around(step)
    for mechanism in mechanisms:
        mechanism.prepare(student, before)
    plan = StepPlan(
        method=method, step=step, iterations=1, num_old=OLD if step else 1, setup=setup,
        batch_norm="frozen", optim=OptimConfig(), batches_per_pass=1,
    )  # fmt: skip
    return StepTrainer(FakeFabric(), plan, student, teacher, bank, mechanisms)


def run_step(trainer: StepTrainer) -> dict[str, Any]:
    """One iteration and what surrounds it; the checkpoint as the next step reads it."""
    batches = some_batches()
    for mechanism in trainer.mechanisms:
        mechanism.before_step(trainer, batches)
    trainer.optimizer.zero_grad = lambda: gradients(trainer.student)
    values = trainer._update(trainer._context(batches[0]), 0)
    for mechanism in trainer.mechanisms:
        mechanism.after_step()
    on_gpu(values.total, *values.terms.values(), trainer.bank.prototypes, trainer.bank.counts)
    trainer.student.eval()
    on_gpu(predict(trainer.student, batches[0].images), to_rgb(batches[0].images[0]))
    state = {"model": trainer.student.state_dict(), "mechanisms": trainer.mechanism_states()}
    on_gpu(*state["model"].values())
    return {"step": trainer.plan.step, **on_cpu(state)}


def gradients(model: nn.Module) -> None:
    """As a backward pass leaves them."""
    for parameter in model.parameters():
        if parameter.requires_grad:
            parameter.grad = torch.zeros_like(parameter)


def on_cpu(state: Any) -> Any:
    if isinstance(state, dict):
        return {name: on_cpu(value) for name, value in state.items()}
    return state.cpu() if isinstance(state, Tensor) else state


@pytest.mark.parametrize("setup", SETUPS)
@pytest.mark.parametrize("name", METHODS)
def test_a_whole_step_leaves_no_tensor_behind_and_waits_once(name, setup):
    method = method_of(name, setup)
    with fake_tensors():
        before = run_step(trainer_of(method, setup))
        if not method.joint:
            run_step(trainer_of(method, setup, before))


@pytest.mark.parametrize("fault", ["left behind", "asks"])
def test_faults_are_found(fault):
    @term
    def faulty(context):
        if fault == "asks" and context.target.max() > 3:
            return context.output.logits.sum()
        return (context.output.logits * torch.rand(SIZE)).sum()

    method = method_of("FT", "disjoint", "method.terms.faulty.weight=1")
    with fake_tensors(), pytest.raises(UserError, match="faulty") as caught:
        run_step(trainer_of(method, "disjoint"))
    cause = caught.value.__cause__
    assert isinstance(cause, HOST_SYNC) if fault == "asks" else " devices" in str(cause)


def test_thresholds_by_the_released_rule_read_the_histogram_once_a_step():
    method = method_of("PLOP", "overlapped", "method.terms.ce.pseudo=released")
    with fake_tensors(), pytest.raises(HOST_SYNC) as caught:
        run_step(trainer_of(method, "overlapped", {"step": 0}))
    assert caught.traceback[-1].name != "entropy_histogram"
    assert "released_thresholds" in [entry.name for entry in caught.traceback]


def test_released_losses_wait_as_their_docstrings_say():
    method = method_of("SDR", "overlapped", "method.variant=released")
    with fake_tensors(), pytest.raises(HOST_SYNC) as caught:
        run_step(trainer_of(method, "overlapped", {"step": 0}))
    assert "reshaped_features" in [entry.name for entry in caught.traceback]


def test_at_test_the_counting_waits():
    with fake_tensors():
        network = first_network(method_of("FT", "disjoint")).to(GPU)
        with pytest.raises(HOST_SYNC) as caught:
            confusion_matrix(FakeFabric(), network, some_batches(), OLD)
    assert "pixel_counts" in [entry.name for entry in caught.traceback]
