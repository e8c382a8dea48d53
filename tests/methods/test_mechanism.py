"""The hooks around the loop: their order, what reaches terms, log, prototypes and checkpoint."""

import inspect
from dataclasses import replace

import pytest
import torch
from lightning_fabric import Fabric

from sparcl_lib.config import OptimConfig
from sparcl_lib.data.loading.dataset import StepBatch
from sparcl_lib.errors import UserError
from sparcl_lib.methods import (
    MECHANISMS,
    METHODS,
    TERMS,
    LossValues,
    Mechanism,
    StepContext,
    build_method,
    state_of,
)
from sparcl_lib.models import NetworkSpec, build_segmenter, freeze, grow
from sparcl_lib.prototypes import PrototypeBank
from sparcl_lib.training import runner, step
from sparcl_lib.training.plan import StepPlan
from sparcl_lib.training.step import StepTrainer

OLD, ALL = 3, 5


class Recorder(Mechanism):
    """Notes which hook was called, and uses each."""

    name = "recorder"

    def __init__(self, student) -> None:
        self.calls, self.student = [], student
        self.weights = [student.classifier.steps[0].weight.detach().clone()]

    def moved(self) -> bool:
        self.weights.append(self.student.classifier.steps[0].weight.detach().clone())
        return not torch.equal(*self.weights[-2:])

    def before_step(self, trainer, batches) -> None:
        shown = [output.logits.shape for _, output in trainer.teacher_pass(batches, "looking")]
        self.calls.append(("before", len(shown), shown[0][1]))

    def context_extras(self, batch):
        return {"factor": torch.tensor(3.0)}

    def prototype_sums(self, context: StepContext):
        return torch.full((ALL, self.student.backbone.dim), 2.0), torch.ones(ALL)

    def penalty(self):
        return LossValues(torch.tensor(10.0), {"recorder": torch.tensor(5.0)})

    def after_backward(self) -> None:
        self.calls.append(("backward", self.moved()))

    def after_update(self) -> None:
        self.calls.append(("update", self.moved()))

    def after_step(self) -> None:
        self.calls.append(("after",))

    def state_dict(self):
        return {"calls": torch.tensor(len(self.calls))}


@pytest.fixture
def network():
    torch.manual_seed(0)
    spec = NetworkSpec("mini", (OLD,), output_stride=4, head="conv", head_channels=8)
    return build_segmenter(spec)


def plan(built, number=1, iterations=2) -> StepPlan:
    optim = OptimConfig(lr=(0.1,))
    return StepPlan(built, number, iterations, OLD, "disjoint", "train", optim, batches_per_pass=3)


def test_hooks_are_called_in_their_order_and_used(network, monkeypatch):
    def scaled(context: StepContext):
        return context.extras["factor"] + 0 * context.output.logits.sum()

    monkeypatch.setitem(TERMS, "scaled", replace(TERMS["kd"], name="scaled", function=scaled))
    built = build_method({"name": "x", "terms": {"ce": {}, "scaled": {}}})
    student, teacher = grow(network, ALL - OLD), freeze(network)
    bank, recorder, logged = PrototypeBank(ALL, student.backbone.dim), Recorder(student), []
    trainer = StepTrainer(
        Fabric(accelerator="cpu", devices=1), plan(built), student, teacher, bank, [recorder]
    )
    batch = StepBatch(torch.randn(2, 3, 32, 32), torch.randint(ALL, (2, 32, 32)))
    trainer.fit([batch] * 4, lambda values, iteration: logged.append(values))
    iteration = [("backward", False), ("update", True)]
    assert recorder.calls == [("before", 3, OLD), *iteration, *iteration, ("after",)]
    for values in logged:
        assert values["recorder"] == 5
        assert values["total"] == pytest.approx(values["ce"] + 3 + 10, rel=1e-5)
    # Class sums of new classes alone enter the bank, two iterations of them.
    assert bank.counts.tolist() == [0, 0, 0, 2, 2] and (bank.prototypes[OLD:] == 2).all()
    states = trainer.mechanism_states()
    assert state_of(recorder, {"mechanisms": states})["calls"] == 6
    assert state_of(recorder, {"mechanisms": {}}) is None and state_of(recorder, {}) is None


def test_a_pass_of_the_teacher_needs_one(network):
    built = build_method({"name": "x", "terms": {"ce": {}}})
    bank = PrototypeBank(OLD, network.backbone.dim)
    trainer = StepTrainer(Fabric(accelerator="cpu", devices=1), plan(built), network, None, bank)
    batch = StepBatch(torch.randn(2, 3, 32, 32), torch.zeros(2, 32, 32, dtype=torch.int64))
    with pytest.raises(ValueError, match="x step 1 has no previous model"):
        list(trainer.teacher_pass([batch], "looking"))


def test_every_hook_may_be_left_out(network):
    bare = Mechanism()
    assert bare.prepare(network, None) is None and bare.context_extras(None) == {}
    hooks = (
        "prototype_sums", "before_step", "progress", "penalty", "after_backward", "after_update",
    )  # fmt: skip
    arguments = {"prototype_sums": (None,), "before_step": (None, ())}
    assert all(getattr(bare, name)(*arguments.get(name, ())) is None for name in hooks)
    assert bare.after_step() is bare.state_dict() is None


def test_mechanisms_have_names_of_their_own():
    names = [mechanism.name for mechanism in MECHANISMS]
    assert len(set(names)) == len(names)
    used = {
        type(m)
        for name, row in METHODS.items()
        for number in (0, 1)
        for m in build_method({**row, "name": name}).around(number)
    }
    released = build_method({"name": "x", "terms": {"ce": {}}, "prototypes": "released"})
    assert used | {type(m) for m in released.around(0)} == set(MECHANISMS)


@pytest.mark.parametrize("mechanism", MECHANISMS, ids=lambda mechanism: mechanism.name)
def test_what_moves_in_a_step_is_saved_inside_it(mechanism):
    """Else a run that is killed and goes on would end otherwise, silently."""
    moving = {"before_step", "after_backward", "after_update"} & vars(mechanism).keys()
    assert ({"progress", "go_on"} <= vars(mechanism).keys()) == bool(moving)


@pytest.mark.parametrize("module", [step, runner])
def test_the_loop_has_no_branch_for_any_of_them(module):
    text = inspect.getsource(module)
    for word in ("regulariser", "penalties", "fuse", "salien", "pseudo", "reshaped", ".unknown"):
        assert word not in text


def test_a_checkpoint_without_the_state_is_refused(network):
    built = build_method({**METHODS["EWC"], "name": "EWC"})
    (mechanism,) = built.around(1)
    with pytest.raises(UserError, match="step 0 knows no importances of ewc"):
        mechanism.prepare(network, {"step": 0, "mechanisms": {}})
