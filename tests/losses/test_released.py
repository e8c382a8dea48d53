"""What the released code of SDR does instead of the formulas, each with a small tensor.

The battery of test_losses.py has these losses too, with features read as they are.
"""

import math
from itertools import product

import pytest
import torch
from torch import Tensor

from sparcl_lib import losses
from sparcl_lib.labels import VOID
from sparcl_lib.losses.released import RELEASED_EPSILON, nested_weights
from sparcl_lib.prototypes.sums import class_means, class_sums


def column(*values) -> Tensor:
    """(1, D, 1, N) from N vectors."""
    return torch.tensor(values, dtype=torch.float32).T[None, :, None]


def line(*labels) -> Tensor:
    return torch.tensor(labels)[None, None]


def scene(classes=6, dim=8):
    """Features of a ReLU (2, D, 3, 4), labels with some void, prototypes (C, D)."""
    g = torch.Generator().manual_seed(0)
    labels = torch.randint(classes, (2, 3, 4), generator=g)
    labels[torch.rand(labels.shape, generator=g) < 0.25] = VOID
    x = torch.randn(2, dim, 3, 4, generator=g).relu()
    return x, labels, torch.randn(classes, dim, generator=g).relu()


# One side of every switch is the formula
@pytest.mark.parametrize("distance", ["l2", "mse"])
def test_at_the_formulas_side_of_every_switch_they_are_the_formulas(distance):
    x, labels, prototypes = scene()
    pairs = {
        "matching": (
            losses.released_matching(x, labels, prototypes, distance, reshaped=False),
            losses.prototypes_matching(x, labels, prototypes, distance),
        ),
        "attraction": (
            losses.released_attraction(
                x, labels, prototypes, distance, reshaped=False, division="mean"
            ),
            losses.attraction(x, labels, prototypes, distance),
        ),
        "repulsion": (
            losses.released_repulsion(x, labels, reshaped=False, distances="exact"),
            losses.repulsion(x, labels),
        ),
        "sparsification": (
            losses.released_sparsification(x, labels, floor=1.0, signed=False, void=False),
            losses.sparsification(x, labels),
        ),
    }
    for released, formula in pairs.values():
        assert torch.equal(released, formula) and formula > 0


def test_the_released_side_is_the_default_and_another_value():
    x, labels, prototypes = scene()
    assert losses.released_matching(x, labels, prototypes) != losses.prototypes_matching(
        x, labels, prototypes, "mse"
    )
    assert losses.released_attraction(x, labels, prototypes) != losses.attraction(
        x, labels, prototypes, "mse"
    )
    assert losses.released_repulsion(x, labels) != losses.repulsion(x, labels)
    assert losses.released_sparsification(x, labels) != losses.sparsification(x, labels)


# Division
def test_nested_division_of_four_classes():
    """The released code weighs them .0039, .0156, .0625, .25; absent ones do not count."""
    weights = nested_weights(torch.tensor([5.0, 0, 1, 2, 0, 9]))[[0, 2, 3, 5]]
    assert weights.tolist() == [1 / 256, 1 / 64, 1 / 16, 1 / 4]
    assert nested_weights(torch.tensor([0.0, 3]))[1] == 1


@pytest.mark.parametrize("label", [0, 3])
def test_divisions_agree_on_one_class(label):
    x, labels, prototypes = scene()
    options = (x, torch.full_like(labels, label), prototypes)
    one, other = (losses.released_attraction(*options, division=d) for d in ("mean", "nested"))
    assert one == other > 0


# Reshaped features
def means_of_eight(batch: int) -> tuple[Tensor, Tensor]:
    """True and reshaped class means (4, 32) of eight images, `batch` at a time."""
    g = torch.Generator().manual_seed(0)
    centres, labels = torch.rand(4, 32, generator=g), torch.randint(4, (8, 5, 5), generator=g)
    x = centres[labels].movedim(-1, 1)
    parts = zip(x.split(batch), labels.split(batch), strict=True)
    read = torch.cat([losses.reshaped_features(*part) for part in parts])
    return tuple(class_means(*class_sums(t, labels, 4)) for t in (x, read))


def test_reshaped_prototypes_are_right_for_one_image_at_a_time_alone():
    true, read = means_of_eight(batch=1)
    assert torch.equal(true, read)
    true, read = means_of_eight(batch=8)
    assert torch.corrcoef(torch.stack([true.flatten(), read.flatten()]))[0, 1].abs() < 0.3
    torch.testing.assert_close(true.mean(1), read.mean(1))  # nothing is lost, all is mixed


@pytest.mark.parametrize("first", ["channels", "locations"])
def test_reshaped_features_are_the_entries_of_each_class_in_another_order(first):
    g = torch.Generator().manual_seed(0)
    x = torch.rand(2, 3, 4, 5, generator=g, dtype=torch.float64).requires_grad_()
    labels = torch.tensor([0, 2, VOID])[torch.randint(3, (2, 4, 5), generator=g)]
    read = losses.reshaped_features(x, labels, first)
    for label in (0, 2, VOID):
        there = (labels == label)[:, None].expand_as(x)
        assert not torch.equal(read[there], x[there])
        assert torch.equal(read[there].sort().values, x[there].sort().values)
    assert torch.autograd.gradcheck(lambda x: losses.reshaped_features(x, labels, first), (x,))


def slow_reshaping(features: Tensor, labels: Tensor, first: str) -> Tensor:
    """Class by class, with the mask over all entries that the release has."""
    dim, rows = features.shape[1], features.movedim(1, -1).clone()
    for label in torch.unique(labels):
        members = labels == label
        entries = features[members.unsqueeze(1).expand_as(features)]
        rows[members] = entries.view(dim, -1).T if first == "channels" else entries.view(-1, dim)
    return rows.movedim(-1, 1)


@pytest.mark.parametrize("first", ["channels", "locations"])
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("seed", range(3))
def test_features_are_reshaped_as_the_mask_does_to_the_last_bit(first, layout, seed):
    g = torch.Generator().manual_seed(seed)
    labels = torch.tensor([0, 3, 7, VOID])[torch.randint(4, (5, 6, 7), generator=g)]
    labels[1] = 3  # an image of one class, and one class of a single location
    labels[0, 0, 0] = 9
    x = torch.rand(5, 8, 6, 7, generator=g).to(memory_format=layout).requires_grad_()
    push = torch.rand(5, 8, 6, 7, generator=g)
    found = []
    for form in (losses.reshaped_features, slow_reshaping):
        value = form(x, labels, first)
        found.append((value, *torch.autograd.grad((value * push).sum(), x)))
    assert all(torch.equal(ours, slow) for ours, slow in zip(*found, strict=True))


# Distances over a matrix product
def slow_matmul_repulsion(means: Tensor) -> float:
    """Mean of the inverse of every entry of the distance matrix that is not zero."""
    gaps = torch.cdist(means, means, compute_mode="use_mm_for_euclid_dist_if_necessary")
    inverse = [1 / gap for gap in gaps.double().flatten().tolist() if gap > 0]
    return sum(inverse) / len(inverse)


@pytest.mark.parametrize(
    "present, total, wrong", [(25, 25, False), (25, 40, False), (26, 40, True)]
)
def test_a_matrix_product_keeps_the_inverse_of_the_diagonal_above_25_classes(present, total, wrong):
    """A mean is not at distance zero from itself there, and its inverse rules the value."""
    x = 100 + 0.1 * torch.rand(1, 64, 1, present, generator=torch.Generator().manual_seed(0))
    ids = line(*range(present))
    exact = losses.repulsion(x, ids, total)
    x.requires_grad_()
    released = losses.released_repulsion(x, ids, total, reshaped=False)
    means = class_means(*class_sums(x.detach(), ids, present))
    gaps = torch.cdist(means, means, compute_mode="use_mm_for_euclid_dist_if_necessary")
    assert (gaps.diagonal() > 0).any().item() == wrong
    assert released.item() == pytest.approx(slow_matmul_repulsion(means), rel=1e-4)
    assert abs(released / exact - 1) > 0.01 if wrong else abs(released / exact - 1) < 1e-5
    released.backward()
    assert x.grad.isfinite().all() and x.grad.any()


def test_means_that_coincide_are_dropped():
    x = column([1, 1], [1, 1], [4, 5]).requires_grad_()
    value = losses.released_repulsion(x, line(0, 1, 2))
    assert value.item() == pytest.approx(1 / 5)  # twice, over two pairs
    value.backward()
    assert x.grad.isfinite().all()
    assert losses.repulsion(x, line(0, 1, 2)) > 3000  # the formula's push is capped


@pytest.mark.parametrize("labels", [line(0, 0), line(VOID, VOID)])
def test_a_batch_of_background_alone_is_zero(labels):
    """The release gives 13.0, then crashes."""
    x = column([1, 2], [3, 4]).requires_grad_()
    prototypes = torch.zeros(3, 2)
    values = [
        losses.released_repulsion(x, labels, 3),
        losses.released_matching(x, labels, prototypes),
    ]
    for value in values:
        value.backward()
        assert value == 0 and x.grad.count_nonzero() == 0


def test_no_image_and_no_number():
    """No image ended in torch's words, and a NaN in a value of 0 whose gradient was NaN."""
    labels, prototypes = line(0, 1, 2), torch.rand(3, 2)
    x = column([1, 2], [3, 4], [5, 7])
    for loss in (
        lambda x, y: losses.released_matching(x, y, prototypes),
        lambda x, y: losses.released_attraction(x, y, prototypes),
        lambda x, y: losses.released_repulsion(x, y, 3),
    ):
        assert loss(x[:0], labels[:0]) == 0 and loss(x * torch.nan, labels).isnan()
    assert losses.released_repulsion(x * torch.inf, labels, 3).isnan()


# Sparsification
def test_negative_features_are_rewarded_without_bound():
    values = [
        losses.released_sparsification(column([2, -v]), line(1)).item() for v in (0, 3, 1.9999)
    ]
    assert values[0] == pytest.approx(math.e + 1) and values[1] < -2 and values[2] > 1e4
    assert losses.sparsification(column([2, -3]), line(1)).item() == pytest.approx(math.e + 1)


def test_void_is_one_more_class_of_the_sparsification():
    """Two locations, of class 1 and void: each is at the peak of its class."""
    x = column([2, 1], [8, 0])
    labelled, void = (math.e + math.exp(0.5)) / 1.5, math.e + 1
    both = losses.released_sparsification(x, line(1, VOID))
    assert both.item() == pytest.approx((labelled + void) / 2)
    for value in (
        losses.sparsification(x, line(1, VOID)),
        losses.released_sparsification(x, line(1, VOID), void=False),
    ):
        assert value.item() == pytest.approx(labelled)
    silent = losses.released_sparsification(column([0, 0]), line(VOID))
    assert silent.item() == pytest.approx(2 / RELEASED_EPSILON)


# Stated, not mended
@pytest.mark.parametrize("void", [0, 1, 3])
def test_the_release_averages_its_cross_entropy_over_void_pixels_too(void):
    """So it is ours times labelled / all pixels, whichever the form."""
    logits = column([1, 0, 2], [0, 3, 1], [2, 2, 0], [1, 1, 1])
    target = torch.tensor([0, 1, 2, 1])
    target[4 - void :] = VOID
    released = 0.0
    for pixel, label in enumerate(target.tolist()):
        row = logits[0, :, 0, pixel].double()
        hit = row[:2].exp().sum() if label < 2 else row[label % 3].exp()
        released -= 0.0 if label == VOID else math.log(hit / row.exp().sum()) / 4
    ours = losses.unbiased_cross_entropy(logits, target[None, None], 2)
    assert ours.item() * (4 - void) / 4 == pytest.approx(released, rel=1e-6)


@pytest.mark.parametrize("row", range(5))
def test_local_pod_sees_the_last_row_that_the_release_leaves_out(row):
    """One row of a 5 x 5 map: at scales 2 and 4 the release pools rows and columns 0..3 alone."""
    x = torch.zeros(1, 1, 5, 5)
    x[..., row, :] = 1

    def pooled(scale: int, left_out: bool) -> list[float]:
        side = 5 // scale * scale if left_out else 5
        cut = [(i * side // scale, -(-(i + 1) * side // scale)) for i in range(scale)]
        squares, means = x[0, 0].square(), []
        for a, b in cut:
            means += squares[:side, a:b].mean(1).tolist() + squares[a:b, :side].mean(0).tolist()
        return means

    def norm(left_out: bool) -> float:
        return math.sqrt(sum(v * v for scale in (1, 2, 4) for v in pooled(scale, left_out)))

    ours = losses.local_pod(x, torch.zeros_like(x)).item()
    assert ours == pytest.approx(norm(left_out=False), rel=1e-6)
    assert (row == 4) == (norm(left_out=True) == pytest.approx(norm_of_the_first_scale()))


def norm_of_the_first_scale() -> float:
    """Of one full row of five: itself, and a fifth in each of five columns."""
    return math.sqrt(1 + 5 * 0.2**2)


def released_pod(squares: Tensor) -> float:
    """Norm of the release's averages: its parts are squares, whose side is the width / scale."""
    averages = []
    for scale in (1, 2, 4):
        side = squares.shape[1] // scale
        for row, column in product(range(0, scale * side, side), repeat=2):
            part = squares[row : row + side, column : column + side]
            averages += [part.mean(1), part.mean(0)]
    return torch.linalg.vector_norm(torch.cat(averages)).item()


@pytest.mark.parametrize(
    "size, first_row, released, expected",
    [
        # Rows 4 to 7 alone. Of all averages ours have 40 of 1 and 4 of 1/2, the release none.
        ((8, 4), 4, 0.0, math.sqrt(41)),
        # All 1. At scale 2 the release averages over the rows from 4 on, and there are none.
        ((4, 8), 0, math.nan, math.sqrt(84)),
        ((4, 4), 0, math.sqrt(56), math.sqrt(56)),
    ],
    ids=["high", "wide", "square"],
)
def test_local_pod_of_a_map_that_is_not_square_sees_all_of_it(size, first_row, released, expected):
    x = torch.zeros(1, 1, *size)
    x[..., first_row:, :] = 1
    assert released_pod(x[0, 0].square()) == pytest.approx(released, nan_ok=True)
    assert losses.local_pod(x, torch.zeros_like(x)).item() == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("size, scale", list(product([4, 8], [1, 2, 4])))
def test_where_sides_are_divisible_nothing_is_left_out(size, scale):
    x = torch.rand(1, 1, size, size, generator=torch.Generator().manual_seed(0))
    part, means = size // scale, []
    for i in range(scale):
        cut = slice(i * part, (i + 1) * part)
        means += [x[0, 0, :, cut].square().mean(1), x[0, 0, cut].square().mean(0)]
    expected = torch.linalg.vector_norm(torch.cat(means))
    torch.testing.assert_close(losses.local_pod(x, 0 * x, (scale,)), expected)
