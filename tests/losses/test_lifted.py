"""Losses and bank in somebody else's loop: what one who lifted them out met."""

import copy

import pytest
import torch
from torch import nn

from sparcl_lib import losses
from sparcl_lib.labels import VOID
from sparcl_lib.losses.pseudo_labels import entropy_histogram, entropy_thresholds, fill_in
from sparcl_lib.prototypes import PrototypeBank, class_sums

F16 = torch.float16


def scene(classes=5, dim=16, side=12, seed=0):
    """Features (2, D, side, side), labels with some void, and prototypes."""
    draw = torch.Generator().manual_seed(seed)
    features = torch.rand(2, dim, side, side, generator=draw)
    labels = torch.randint(0, classes, (2, side, side), generator=draw)
    labels[:, 0] = VOID
    return features, labels, torch.rand(classes, dim, generator=draw)


# The bank
@pytest.mark.parametrize("bad", [float("inf"), float("nan")])
@pytest.mark.parametrize("place", [0, 3])
def test_a_feature_that_is_no_number_costs_the_bank_a_batch_and_no_more(bad, place):
    """One under void made every prototype NaN, for good. place: row 0 is void."""
    features, labels, _ = scene()
    bank = PrototypeBank(5, 16)
    bank.update(features, labels)
    before = copy.deepcopy(bank.state_dict())
    broken = features.clone()
    broken[0, 2, place, 1] = bad
    bank.update(broken, labels)
    assert all(torch.equal(value, before[name]) for name, value in bank.state_dict().items())
    bank.update(features, labels)
    assert torch.equal(bank.counts, 2 * before["counts"]) and bank.prototypes.isfinite().all()


def test_of_class_sums_that_came_along_the_broken_ones_alone_are_left_out():
    bank = PrototypeBank(3, 2)
    bank.add(torch.tensor([[1.0, 2], [torch.inf, 0], [3, 4]]), torch.tensor([1.0, 5, 2]))
    assert bank.counts.tolist() == [1, 0, 2] and bank.prototypes[1].tolist() == [0, 0]


def test_a_scaler_that_passes_a_step_over_leaves_the_training_whole():
    torch.manual_seed(0)
    encoder, head, bank = nn.Conv2d(3, 8, 1), nn.Conv2d(8, 3, 1), PrototypeBank(3, 8)
    optimizer = torch.optim.SGD([*encoder.parameters(), *head.parameters()], 0.1)
    scaler = torch.amp.GradScaler("cpu", init_scale=1024.0)
    totals = []
    for iteration in range(4):
        images, labels = torch.rand(2, 3, 8, 8), torch.randint(0, 3, (2, 8, 8))
        if iteration == 1:
            images[0, :, 0, 0] = 6e4
        with torch.autocast("cpu", F16):
            features = (encoder(images) * 4).relu()
            logits = head(features)
        bank.update(features.detach(), labels)
        total = losses.cross_entropy(logits, labels)
        total = total + losses.prototypes_matching(features, labels, bank.prototypes, "mse")
        optimizer.zero_grad()
        scaler.scale(total).backward()
        scaler.step(optimizer)
        scaler.update()
        totals.append(bool(total.isfinite()))
    assert totals == [True, False, True, True]


def test_a_bank_that_is_cast_by_type_keeps_its_counts():
    bank = PrototypeBank(3, 2)
    bank.counts += 70_000
    bank.type(F16)
    assert bank.counts.dtype == torch.int64 and bank.counts.tolist() == [70_000] * 3
    assert bank.sums.dtype == torch.float64


# 16 bits
LATENT = {
    "matching": lambda f, y, p: 0.01 * losses.prototypes_matching(f, y, p, "mse"),
    "attraction": lambda f, y, p: 0.001 * losses.attraction(f, y, p, "mse"),
    "repulsion": lambda f, y, p: 0.001 * losses.repulsion(f, y, len(p)),
    "sparsification": lambda f, y, p: 0.001 * losses.sparsification(f, y, len(p)),
}


def gradient(loss, features, labels, prototypes, autocast=False, compiled=False):
    """Where backward is called inside autocast, or what it calls was compiled there."""
    leaf = features.clone().requires_grad_()
    whole = {"backend": "aot_eager", "fullgraph": True}
    function = torch.compile(loss, **whole) if compiled else loss
    with torch.autocast("cpu", F16, enabled=autocast):
        value = function(leaf, labels, prototypes)
        if not compiled:
            value.backward()
    if compiled:
        value.backward()
    return leaf.grad


@pytest.mark.parametrize("name", LATENT)
def test_gradients_are_those_of_float32_where_backward_is_called_inside_autocast(name):
    """Of matching's gradient float16 lost two thirds."""
    features, labels, prototypes = scene(dim=256, side=16)
    parts = LATENT[name], features, labels, prototypes
    expected = gradient(*parts)
    assert (gradient(*parts, autocast=True) - expected).norm() <= 1e-6 * expected.norm()


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # of torch, about itself
@pytest.mark.parametrize("name", ["matching", "repulsion"])
def test_gradients_are_those_of_float32_where_the_loss_is_compiled_inside_autocast(name):
    features, labels, prototypes = scene(dim=256, side=16)
    parts = LATENT[name], features, labels, prototypes
    expected = gradient(*parts)
    found = gradient(*parts, autocast=True, compiled=True)
    assert (found - expected).norm() <= 1e-5 * expected.norm()


@pytest.mark.parametrize("dtype", [F16, torch.bfloat16])
def test_class_sums_are_full_whatever_comes_in(dtype):
    """In float16 those of 4 x 64 x 64 locations were infinite."""
    features, labels = torch.rand(4, 4, 64, 64) * 10, torch.ones(4, 64, 64, dtype=torch.int64)
    expected, counts = class_sums(features, labels, 2)
    with torch.autocast("cpu", dtype):
        found, again = class_sums(features, labels, 2)
    assert torch.equal(found, expected) and torch.equal(again, counts)
    cast, numbers = class_sums(features.to(dtype), labels, 2)
    assert cast.dtype == numbers.dtype == torch.float32
    assert torch.allclose(cast, expected, rtol=1e-3)
    prototypes = torch.rand(2, 4)
    halves = losses.matching_from_sums(expected.to(torch.bfloat16), counts, prototypes)
    assert halves.dtype == losses.repulsion_from_sums(found.bfloat16(), counts).dtype
    assert halves.dtype == losses.vector_distance(prototypes.to(dtype), "mse").dtype
    assert halves.dtype == losses.fold_new_classes(torch.rand(1, 3, 2, 2).to(dtype), 2).dtype


# Derivatives of every kind
@pytest.mark.filterwarnings("ignore")  # of torch, about itself
def test_class_sums_have_second_derivatives_and_those_of_each_image():
    features, labels, _ = scene(classes=3, dim=2, side=3)
    features = features.double().requires_grad_()

    def squares(values):
        return class_sums(values, labels, 3)[0].square().sum()

    assert torch.autograd.gradcheck(squares, features)
    assert torch.autograd.gradgradcheck(squares, features)
    each = torch.func.vmap(
        torch.func.grad(lambda f, y: class_sums(f[None], y[None], 3)[0].square().sum())
    )(features.detach(), labels)
    alone = [
        torch.func.grad(lambda f, n=n: class_sums(f, labels[n : n + 1], 3)[0].square().sum())(
            features.detach()[n : n + 1]
        )
        for n in range(2)
    ]
    assert torch.allclose(each, torch.cat(alone))


def test_what_lies_under_void_gets_no_gradient_whatever_it_is():
    features, labels, prototypes = scene()
    features[0, :, 0, 0] = torch.inf
    features.requires_grad_()
    sums, _ = class_sums(features, labels, len(prototypes))
    sums.nan_to_num().square().sum().backward()
    assert torch.equal(features.grad[:, :, 0], torch.zeros_like(features.grad[:, :, 0]))


# Many classes, and none
def test_void_is_void_among_three_hundred_classes():
    """255 was a class like any other in latent losses and bank, and void in cross-entropy."""
    draw = torch.Generator().manual_seed(0)
    features = torch.rand(1, 8, 4, 4, generator=draw)
    labels = torch.full((1, 4, 4), 3)
    labels[0, 2:] = VOID
    prototypes = torch.rand(300, 8, generator=draw)
    bank = PrototypeBank(300, 8)
    bank.update(features, labels)
    assert bank.counts[VOID] == 0 and bank.counts[3] == 8
    assert losses.repulsion(features, labels, 300) == 0
    for loss in LATENT.values():
        grad = gradient(loss, features, labels, prototypes)
        assert torch.equal(grad[:, :, 2:], torch.zeros(1, 8, 2, 4))
        few = gradient(loss, features, labels, prototypes[:4])
        assert torch.allclose(grad, few)


def test_a_bank_of_no_class_costs_nothing():
    features, labels, prototypes = scene()
    features.requires_grad_()
    for loss in (losses.prototypes_matching, losses.attraction):
        total = loss(features, labels, prototypes[:0])
        total.backward()
        assert total == 0
    void = torch.full_like(labels, -100)
    assert losses.sparsification(features, void) == losses.repulsion(features, void) == 0


def test_shapes_alone_are_enough():
    """On meta tensors, as memory is foretold."""
    features, labels, prototypes = (value.to("meta") for value in scene())
    assert class_sums(features, labels, 5)[0].shape == (5, 16)
    for loss in LATENT.values():
        assert loss(features, labels, prototypes).shape == ()


# The teacher
TEACHER = {
    "knowledge_distillation": (),
    "unbiased_knowledge_distillation": (),
    "binary_knowledge_distillation": (),
    "entropy_weighted_distillation": (torch.ones(2, 4, 4, dtype=torch.bool),),
    "feature_distillation": (),
    "local_pod": (),
}


@pytest.mark.parametrize("name", TEACHER)
def test_nothing_flows_into_the_teacher(name):
    ours, theirs = (torch.rand(2, 3, 4, 4, requires_grad=True) for _ in range(2))
    getattr(losses, name)(ours, theirs, *TEACHER[name]).backward()
    assert theirs.grad is None and ours.grad.abs().sum() > 0


@pytest.mark.parametrize("name", TEACHER)
def test_no_image_costs_nothing(name):
    ours = torch.rand(0, 3, 4, 4, requires_grad=True)
    total = getattr(losses, name)(ours, ours.detach(), *(part[:0] for part in TEACHER[name]))
    total.backward()
    assert total == 0


def test_a_guess_without_numbers_is_none_of_the_sure_ones():
    """NaN was counted as the least entropy of all."""
    logits = torch.rand(1, 3, 4, 4)
    logits[0, :, 0] = torch.nan
    unlabelled = torch.ones(1, 4, 4, dtype=torch.bool)
    counts = entropy_histogram(logits, unlabelled, 4, "exact")
    assert torch.equal(counts, entropy_histogram(logits[:, :, 1:], unlabelled[:, 1:], 4, "exact"))
    assert counts.sum() == 12


def test_another_number_for_what_is_not_sure():
    target, unsure = torch.tensor([[[0, 2, 0]]]), torch.tensor([[[True, True, False]]])
    filled, _ = fill_in(target, torch.ones_like(target), unsure, ignore_index=-100)
    assert filled.tolist() == [[[1, 2, -100]]]


# One line for what cannot be
TARGET, SURE = torch.zeros(2, 2, 2).long(), torch.ones(2, 2, 2, dtype=torch.bool)
FEATURES, LABELS = torch.rand(2, 4, 2, 2), torch.zeros(2, 2, 2).long()
LOGITS, MAPS = torch.rand(1, 3, 2, 2), torch.rand(1, 3, 2, 2)
HISTOGRAM = entropy_histogram(LOGITS, torch.ones(1, 2, 2, dtype=torch.bool), 4, "released")
MISUSES = {
    "no teacher": (
        lambda: losses.knowledge_distillation(LOGITS, None),
        r"expected logits \(B, K, H, W\) .* got \(1, 3, 2, 2\) and NoneType",
    ),
    "logits of two heads": (
        lambda: losses.unbiased_knowledge_distillation((LOGITS, LOGITS), LOGITS),
        "got tuple and",
    ),
    "a teacher of no class": (
        lambda: losses.unbiased_knowledge_distillation(LOGITS, LOGITS[:, :0]),
        r"got \(1, 3, 2, 2\) and \(1, 0, 2, 2\)",
    ),
    "a list of maps": (lambda: losses.local_pod([MAPS], [MAPS]), "got list and list"),
    "maps of an image": (lambda: losses.local_pod(MAPS[0], MAPS[0]), r"got \(3, 2, 2\)"),
    "no scale": (lambda: losses.local_pod(MAPS, MAPS, ()), r"scales must be .* got \(\)"),
    "a scale of zero": (lambda: losses.local_pod(MAPS, MAPS, (0,)), r"scales must be .* \(0,\)"),
    "no old class": (lambda: losses.fold_new_classes(LOGITS, 0), "expected 1..3 .*, got 0"),
    "more old classes": (lambda: losses.fold_new_classes(LOGITS, 4), "expected 1..3 .*, got 4"),
    "a share for all": (
        lambda: losses.adaptive_cross_entropy(LOGITS, torch.zeros(1, 2, 2).long(), 1.0),
        r"share must be \(B,\) with B = 1 images, got float",
    ),
    "a mask of numbers": (
        lambda: losses.entropy_weighted_distillation(LOGITS, LOGITS, torch.ones(1, 2, 2).long()),
        "mask must be of torch.bool, got torch.int64",
    ),
    "no mask": (
        lambda: losses.entropy_weighted_distillation(LOGITS, LOGITS, None),
        r"mask must be \(B, H, W\) = \(1, 2, 2\), got NoneType",
    ),
    "sums of other classes": (
        lambda: losses.matching_from_sums(torch.rand(5, 4), torch.ones(5), torch.rand(1, 4)),
        r"must be of the same classes, got \(5, 4\), \(5,\) and \(1, 4\): take the rows",
    ),
    "another rule": (
        lambda: entropy_histogram(LOGITS, torch.ones(1, 2, 2, dtype=torch.bool), 4, "median"),
        "rule is 'median': expected exact or released",
    ),
    "a mask with a channel": (
        lambda: entropy_histogram(LOGITS, torch.ones(1, 1, 2, 2, dtype=torch.bool), 4, "exact"),
        r"unlabelled must be \(B, H, W\) = \(1, 2, 2\) of torch.bool, got \(1, 1, 2, 2\)",
    ),
    "guesses by another rule": (
        lambda: fill_in(TARGET, TARGET, SURE, "releasd"),
        "rule is 'releasd': expected exact or released",
    ),
    "guesses of one image": (
        lambda: fill_in(TARGET, TARGET[:1], SURE),
        r"of the same pixels, and guess of torch.int64, got \(1, 2, 2\) of torch.int64",
    ),
    "guesses with a fraction": (
        lambda: fill_in(TARGET, TARGET.float(), SURE),
        r"guess of torch.int64, got \(2, 2, 2\) of torch.float32",
    ),
    "numbers for what is sure": (
        lambda: fill_in(TARGET, TARGET, SURE.float()),
        r"sure of torch.bool, got \(2, 2, 2\) of torch.float32",
    ),
    "guesses of an array": (
        lambda: fill_in(TARGET, TARGET.numpy(), SURE),
        "guess of torch.int64, got ndarray",
    ),
    "the sum over no image": (
        lambda: entropy_thresholds(0, 4, "exact"),
        r"histogram must be \(K_old, bins\) as entropy_histogram makes it, got int",
    ),
    "prototypes for a number": (
        lambda: losses.repulsion(FEATURES, LABELS, torch.rand(3, 4)),
        r"num_classes is a Tensor of shape \(3, 4\): give how many there are",
    ),
    "a fraction of classes": (
        lambda: losses.sparsification(FEATURES, LABELS, 5.0),
        r"num_classes is 5.0: give how many there are",
    ),
    "no number of old classes": (
        lambda: losses.unbiased_cross_entropy(LOGITS, torch.zeros(1, 2, 2).long(), None),
        "expected 1..3 .*, got None",
    ),
    "the teacher for a number": (
        lambda: losses.unbiased_cross_entropy(LOGITS, torch.zeros(1, 2, 2).long(), LOGITS),
        r"expected 1..3 .*, got a Tensor of shape \(1, 3, 2, 2\)",
    ),
    "one scale": (lambda: losses.local_pod(MAPS, MAPS, 4), "scales must be .* got 4"),
    "sums and counts of other classes": (
        lambda: losses.repulsion_from_sums(torch.rand(3, 4), torch.rand(5)),
        r"must be of the same classes, got \(3, 4\) and \(5,\)",
    ),
    "the histogram of the other rule": (
        lambda: entropy_thresholds(HISTOGRAM, 4, "exact"),
        "rule 'exact' has 4096 bins a class, this histogram has 100",
    ),
}


@pytest.mark.parametrize(("call", "message"), MISUSES.values(), ids=MISUSES)
def test_misuse_is_a_line(call, message):
    with pytest.raises(ValueError, match=message) as found:
        call()
    assert "\n" not in str(found.value)
