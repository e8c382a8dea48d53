"""PLOP's thresholds: exact medians, what the released code calls so, and how much each accepts."""

import math

import pytest
import torch
from lightning_fabric import Fabric
from torch import nn

from sparcl_lib.config import OptimConfig
from sparcl_lib.data.loading.dataset import StepBatch
from sparcl_lib.losses.pseudo_labels import EXACT_BINS, LOWEST, entropy
from sparcl_lib.methods import (
    METHODS,
    TERMS,
    build_method,
    entropy_histogram,
    entropy_thresholds,
    term,
)
from sparcl_lib.models import SegmenterOutput
from sparcl_lib.prototypes import PrototypeBank
from sparcl_lib.training.plan import StepPlan
from sparcl_lib.training.step import StepTrainer

OLD, ALL = 4, 6


def teacher_logits(sharpness=3.0, size=64, seed=0):
    """Entropies over many powers of ten, as those of a trained network."""
    g = torch.Generator().manual_seed(seed)
    scale = (sharpness * torch.randn(2, 1, size, size, generator=g)).exp()
    return scale * torch.randn(2, OLD, size, size, generator=g)


def accepted(logits, unlabelled, rule, times=1):
    histogram = times * entropy_histogram(logits, unlabelled, ALL, rule)
    thresholds = entropy_thresholds(histogram, ALL, rule)
    guess, doubt = logits.argmax(1), entropy(logits)
    chosen = [unlabelled & (guess == c) for c in range(OLD)]
    return [(doubt[m] < thresholds[c]).float().mean().item() for c, m in enumerate(chosen)]


def test_entropy_by_hand():
    two = torch.tensor([0.0, 0.0]).view(1, 2, 1, 1)
    sure = torch.tensor([500.0, 0.0]).view(1, 2, 1, 1)
    assert entropy(two).item() == pytest.approx(math.log(2)) and entropy(sure).item() == 0
    assert entropy(two.bfloat16()).dtype == torch.float32
    logits = teacher_logits(0.5).double()
    p = logits.softmax(1)
    torch.testing.assert_close(entropy(logits), -(p * p.log()).sum(1))


@pytest.mark.parametrize("rule", ["exact", "released"])
def test_histogram_counts_unlabelled_pixels_by_guess(rule):
    logits = teacher_logits()
    unlabelled = torch.rand(2, 64, 64, generator=torch.Generator().manual_seed(1)) < 0.3
    histogram = entropy_histogram(logits, unlabelled, ALL, rule)
    guesses = torch.bincount(logits.argmax(1)[unlabelled], minlength=OLD)
    assert histogram.dtype == torch.int64 and torch.equal(histogram.sum(1), guesses)
    halves = [
        entropy_histogram(logits[i : i + 1], unlabelled[i : i + 1], ALL, rule) for i in (0, 1)
    ]
    assert torch.equal(sum(halves), histogram)


def test_exact_threshold_is_the_median_of_each_class():
    logits, every = teacher_logits(1.0, 128), torch.ones(2, 128, 128, dtype=torch.bool)
    thresholds = entropy_thresholds(entropy_histogram(logits, every, ALL, "exact"), ALL, "exact")
    guess, doubt = logits.argmax(1), entropy(logits).double().clamp(min=LOWEST)
    width = math.log(math.log(OLD) / LOWEST) / EXACT_BINS
    for c in range(OLD):
        assert math.log(thresholds[c] / doubt[guess == c].median()) == pytest.approx(0, abs=width)
    assert accepted(logits, every, "exact") == pytest.approx([0.5] * OLD, abs=0.005)


def test_a_class_that_is_never_guessed_accepts_nothing():
    logits = teacher_logits()
    logits[:, 2] = -1e9
    every = torch.ones(2, 64, 64, dtype=torch.bool)
    for rule in ("exact", "released"):
        histogram = entropy_histogram(logits, every, ALL, rule)
        thresholds = entropy_thresholds(histogram, ALL, rule)
        assert thresholds[2] == 0 and (thresholds[[0, 1, 3]] > 0).all()
        assert (entropy_thresholds(0 * histogram, ALL, rule) == 0).all()


RELEASED = {
    # Half is in the first bin: the right median by luck.
    "first": ({0: 8, 3: 2}, 5 / 8),
    # 5 of 10 are reached in bin 1; the counts of bin 0 were never added: (5 - 0) / 6, not 1 / 6.
    "second": ({0: 4, 1: 6}, 1 + 5 / 6),
    # Indices 0 + 1 + 2 were added: half is 5, bin 3 holds 8, (5 - 3) / 8.
    "fourth": ({2: 2, 3: 8}, 3 + 2 / 8),
    # No bin holds half: the walk ends at the last one, which is empty. Everything is accepted.
    "many": (dict.fromkeys((60, 61, 62), 10**6), math.inf),
    # The indices overtake half of few counts: the end again, and the floor.
    "few": (dict.fromkeys(range(60), 1) | {60: 1000, 61: 1000}, 0.1),
}


@pytest.mark.parametrize("counts, bin_of", RELEASED.values(), ids=RELEASED)
def test_released_median_adds_up_indices(counts, bin_of):
    histogram = torch.zeros(OLD, 100, dtype=torch.int64)
    for place, count in counts.items():
        histogram[1, place] = count
    unit = OLD * math.log(OLD) * math.log(ALL)
    threshold = entropy_thresholds(histogram, ALL, "released")[1].item()
    assert threshold == pytest.approx(unit * bin_of / 100)


def test_released_accepts_more_than_half_of_what_a_sure_teacher_says():
    """With the many pixels of a real step."""
    logits, every = 20 * teacher_logits(1.0), torch.ones(2, 64, 64, dtype=torch.bool)
    exact, released = (accepted(logits, every, rule, 10**4) for rule in ("exact", "released"))
    assert exact == pytest.approx([0.5] * OLD, abs=0.01)
    assert all(0.6 < share < 0.9 for share in released)


class Constant(nn.Module):
    """A teacher that says for each image what is written in it."""

    def forward(self, images, maps=False):
        assert not maps or images.shape[1] == OLD
        return SegmenterOutput(low_res_logits=images, features=images)


def plan(pseudo="exact", setup="disjoint", step=1, **changes):
    recipe = METHODS["PLOP"] | {"name": "x", "terms": {"ce": {"pseudo": pseudo}}}
    values = {"iterations": 9, "num_old": OLD, "setup": setup, "batch_norm": "train"}
    return StepPlan(build_method(recipe), step, optim=OptimConfig(), **values | changes)


def measured(of: StepPlan, batches) -> torch.Tensor | None:
    """The thresholds with which the step trains."""
    mechanisms, fabric = of.method.around(of.step), Fabric(accelerator="cpu", devices=1)
    bank = PrototypeBank(ALL, 1)
    trainer = StepTrainer(fabric, of, nn.Conv2d(1, 1, 1), Constant(), bank, mechanisms)
    extras = {}
    for mechanism in mechanisms:
        mechanism.before_step(trainer, batches)
        extras |= mechanism.context_extras(StepBatch(None, None))
    return extras.get("thresholds")


@pytest.mark.parametrize("rule", ["exact", "released"])
@pytest.mark.parametrize("passes", [None, 2, 1])
def test_the_step_measures_once_over_its_images(rule, passes):
    logits = [teacher_logits(seed=seed) for seed in (0, 1)]
    labels = torch.zeros(2, 64, 64, dtype=torch.int64)
    labels[:, :20] = 255
    labels[:, 50:] = 5
    found = measured(plan(rule, batches_per_pass=passes), [StepBatch(x, labels) for x in logits])
    shown = logits[:passes]
    histogram = sum(entropy_histogram(x, labels == 0, ALL, rule) for x in shown)
    assert torch.equal(found, entropy_thresholds(histogram, ALL, rule)) and (found > 0).all()


def test_an_option_of_this_name_may_be_another_term_s(own_term):
    """PLOP's pass over the images was made for it, and failed."""
    terms = {"ce": {}, own_term: {"pseudo": True}}
    assert build_method({"name": "x", "terms": terms}).around(1) == ()


@pytest.fixture
def own_term():
    @term
    def mine(context, *, pseudo: bool = False):
        return context.output.features.mean()

    yield "mine"
    del TERMS["mine"]


@pytest.mark.parametrize("changes", [{"pseudo": "none"}, {"setup": "sequential"}, {"step": 0}])
def test_nothing_is_measured_where_nothing_asks(changes):
    assert measured(plan(**changes), iter(())) is None
