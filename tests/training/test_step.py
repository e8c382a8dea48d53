"""The loop of one step: how its bar ends."""

import pytest
import torch
from lightning_fabric import Fabric

from sparcl_lib.config import OptimConfig
from sparcl_lib.data.loading.dataset import StepBatch
from sparcl_lib.errors import LossDiverged
from sparcl_lib.methods import build_method
from sparcl_lib.models import NetworkSpec, build_segmenter, freeze
from sparcl_lib.prototypes import PrototypeBank
from sparcl_lib.training.plan import StepPlan
from sparcl_lib.training.step import StepTrainer


@pytest.fixture
def trainer():
    spec = NetworkSpec("mini", (3,), output_stride=4, head="conv", head_channels=8)
    network = build_segmenter(spec)
    method = build_method({"name": "x", "terms": {"ce": {}}})
    optim = OptimConfig(lr=(0.1,))
    plan = StepPlan(method, 0, 3, 3, "disjoint", "train", optim, batches_per_pass=3)
    bank = PrototypeBank(3, network.backbone.dim)
    return StepTrainer(Fabric(accelerator="cpu", devices=1), plan, network, None, bank)


def test_the_bar_is_whole_when_all_is_trained(trainer, capsys):
    """It was closed before its end, and red in a notebook, because the loop stopped first."""
    batch = StepBatch(torch.randn(2, 3, 32, 32), torch.randint(3, (2, 32, 32)))
    trainer.fit([batch] * 5)
    last = capsys.readouterr().err.rstrip().split("\r")[-1]
    assert "step 0: 100%" in last and "3/3" in last and "ce=" in last


def test_the_bar_is_not_whole_when_training_stops(trainer, capsys):
    batch = StepBatch(torch.full((2, 3, 32, 32), torch.nan), torch.randint(3, (2, 32, 32)))
    with pytest.raises(LossDiverged):
        trainer.fit([batch] * 5)
    assert "0/3" in capsys.readouterr().err.rstrip().split("\r")[-1]


def test_the_teacher_guesses_in_32_bits_in_mixed_precision(trainer):
    """Its logits were left in bf16, where classes tie more often, and the lower one won."""
    fabric = Fabric(accelerator="cpu", devices=1, precision="bf16-mixed")
    teacher = freeze(build_segmenter(trainer.student.spec))
    mixed = StepTrainer(fabric, trainer.plan, trainer.student, teacher, trainer.bank)
    batch = StepBatch(torch.randn(2, 3, 32, 32), torch.randint(3, (2, 32, 32)))
    ((_, output),) = mixed.teacher_pass([batch], "guesses")
    assert {output.logits.dtype, output.features.dtype} == {torch.float32}
