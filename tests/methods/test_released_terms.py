"""The released forms of SDR's terms and prototypes: what they feed their losses with."""

import pytest
import torch

from sparcl_lib import losses
from sparcl_lib.methods import TERMS, StepContext, labelled_sums
from sparcl_lib.methods.released_prototypes import ReleasedPrototypes
from sparcl_lib.models import SegmenterOutput
from sparcl_lib.prototypes import PrototypeBank

OLD, ALL, DIM = 4, 6, 8


@pytest.fixture(autouse=True)
def fixed_seed():
    torch.manual_seed(0)


def context(images=2, size=(32, 32), grid=(8, 8), **changes) -> StepContext:
    """Step 1: four classes of six are old; class 5 has no prototype yet."""
    bank = PrototypeBank(ALL, DIM)
    bank.add(torch.rand(ALL, DIM), torch.tensor([9, 9, 9, 9, 9, 0]))
    features = torch.rand(images, DIM, *grid, requires_grad=True)
    logits = torch.randn(images, ALL, *size, requires_grad=True)
    values = {
        "output": SegmenterOutput(low_res_logits=logits, features=features),
        "target": torch.tensor([0, 4, 5, 255])[torch.randint(4, (images, *size))],
        "teacher": SegmenterOutput(
            low_res_logits=torch.randn(images, OLD, *size),
            features=torch.rand(images, DIM, *grid),
        ),
        "bank": bank,
        "num_old": OLD,
        "old_labelled": False,
        "step": 1,
    }
    return StepContext(**{**values, **changes})


def test_terms_are_the_released_losses_on_the_labels_of_the_step():
    step = context()
    features, bank, raw = step.output.features, step.bank.prototypes, step.labels
    assert (raw == 5).any() and step.bank.counts[5] == 0  # pulled to a prototype of zeros
    expected = {
        "matching": losses.released_matching(features, step.completed_labels, bank[:OLD]),
        "attraction": losses.released_attraction(features, raw, bank),
        "repulsion": losses.released_repulsion(features, raw),
        "sparsification": losses.released_sparsification(features, raw),
    }
    for name, value in expected.items():
        found = TERMS[f"released_{name}"](step)
        torch.testing.assert_close(found, value)
        assert found != TERMS[name](step)


FORMULA = {
    "matching": {"distance": "l2", "reshaped": False},
    "attraction": {
        "distance": "l2", "reshaped": False, "division": "mean", "labels": "completed"
    },
    "repulsion": {"reshaped": False, "distances": "exact", "labels": "completed"},
    "sparsification": {"floor": 1.0, "signed": False, "labels": "completed", "void": False},
}  # fmt: skip


@pytest.mark.parametrize("name", FORMULA)
def test_with_every_switch_at_the_formulas_side_they_are_the_formulas(name):
    step = context()
    assert set(FORMULA[name]) == set(TERMS[f"released_{name}"].options)
    released, formula = TERMS[f"released_{name}"](step, **FORMULA[name]), TERMS[name](step)
    torch.testing.assert_close(released, formula)
    assert formula > 0


@pytest.mark.parametrize("name", ["attraction", "repulsion", "sparsification"])
def test_raw_labels_are_the_completed_ones_where_nothing_is_hidden(name):
    """Classes without a prototype aside."""
    step = context(old_labelled=True, target=torch.randint(5, (2, 32, 32)))
    raw = TERMS[f"released_{name}"](step, **{**FORMULA[name], "labels": "raw"})
    torch.testing.assert_close(raw, TERMS[name](step))


def test_raw_labels_pull_background_to_zeros_where_it_has_no_prototype():
    """As in the released code in the overlapped setup."""
    bank = PrototypeBank(ALL, DIM)
    step = context(target=torch.zeros(2, 32, 32, dtype=torch.int64), bank=bank)
    assert TERMS["attraction"](step) == 0
    squares = step.output.features.detach().square().mean()
    pulled = TERMS["released_attraction"](step, reshaped=False, division="mean")
    torch.testing.assert_close(pulled.detach(), squares)


def test_an_old_class_that_was_never_seen_is_drawn_to_zero():
    """The teacher names class 2, of which no feature ever entered the prototypes."""
    logits = torch.zeros(1, OLD, 1, 1)
    logits[:, 2] = 1
    features = torch.tensor([3.0, 4, 0, 0, 0, 0, 0, 0], requires_grad=True)
    step = context(
        output=SegmenterOutput(
            low_res_logits=torch.randn(1, ALL, 1, 1), features=features.view(1, DIM, 1, 1)
        ),
        teacher=SegmenterOutput(low_res_logits=logits, features=torch.zeros(1, DIM, 1, 1)),
        target=torch.zeros(1, 1, 1, dtype=torch.int64),
        bank=PrototypeBank(ALL, DIM),
    )
    assert TERMS["released_matching"](step).item() == 25 / DIM
    assert TERMS["matching"](step) == 0


# Prototypes
@pytest.mark.parametrize("images, equal", [(1, True), (2, False)])
def test_reshaped_sums_are_the_class_sums_of_one_image_alone(images, equal):
    step = context(images, teacher=None)
    read = ReleasedPrototypes().prototype_sums(step)
    (sums, counts), (mixed, same) = (labelled_sums(step, False, given) for given in (None, read))
    assert torch.equal(counts, same) and not mixed.requires_grad
    assert torch.allclose(sums, mixed) == equal
    torch.testing.assert_close(sums.sum(1), mixed.sum(1))


@pytest.mark.parametrize(
    "labels, old_labelled, filled",
    [
        ([0, 4, 5], False, {4, 5}),
        ([4, 5], False, {5}),  # class 4 is taken for background
        ([4, 5, 255], False, {5}),
        ([5], False, set()),
        ([1, 4], True, {1, 4}),  # where old classes are labelled none is dropped
    ],
)
def test_without_background_the_smallest_class_is_dropped(labels, old_labelled, filled):
    target = torch.tensor(labels)[torch.arange(64) % len(labels)].view(1, 8, 8)
    step = context(1, (8, 8), target=target, old_labelled=old_labelled)
    sums, counts = labelled_sums(step, False, ReleasedPrototypes().prototype_sums(step))
    assert set(counts.nonzero().flatten().tolist()) == filled
    assert set(sums.any(1).nonzero().flatten().tolist()) == filled
    kept = set(labelled_sums(step, False)[1].nonzero().flatten().tolist())
    assert kept == set(labels) - {0, 255}  # by the formula


def test_at_step_0_nothing_is_dropped():
    step = context(1, teacher=None, num_old=1, step=0, target=torch.full((1, 32, 32), 3))
    _, counts = labelled_sums(step, True, ReleasedPrototypes().prototype_sums(step))
    assert counts[3] == 64
