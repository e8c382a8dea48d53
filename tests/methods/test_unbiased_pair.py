"""MiB's two losses of one pass against the two plain functions."""

import pytest
import torch

from sparcl_lib import losses
from sparcl_lib.methods.unbiased_pair import unbiased_pair

OLD, ALL = 4, 7


def some(dtype, scale):
    torch.manual_seed(0)
    logits = scale * torch.randn(2, ALL, 5, 6, dtype=dtype)
    target = torch.randint(0, ALL, (2, 5, 6))
    target[:, 0] = 255
    return logits, target, scale * torch.randn(2, OLD, 5, 6, dtype=dtype)


@pytest.mark.parametrize("scale", [1, 30])
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.double, 1e-12)])
def test_values_and_gradients_are_those_of_the_plain_losses(dtype, tolerance, scale):
    logits, target, teacher = some(dtype, scale)
    values, slopes = unbiased_pair(logits, target, teacher)
    pixels = [(target != 255).sum(), target.numel()]
    leaf = logits.clone().requires_grad_()
    plain = [
        losses.unbiased_cross_entropy(leaf, target, OLD),
        losses.unbiased_knowledge_distillation(leaf, teacher),
    ]
    for value, slope, expected, count in zip(values, slopes, plain, pixels, strict=True):
        (gradient,) = torch.autograd.grad(expected, leaf)
        torch.testing.assert_close(value / count, expected.detach(), rtol=tolerance, atol=tolerance)
        torch.testing.assert_close(slope / count, gradient, rtol=tolerance, atol=tolerance)


def test_exponentials_that_are_too_small_for_a_float():
    """Where one new class is sure beyond a float's range, background still pushes it down."""
    logits = torch.zeros(1, ALL, 1, 2)
    logits[:, -1] = 300
    target, teacher = torch.tensor([[[0, ALL - 1]]]), torch.zeros(1, OLD, 1, 2)
    values, (ce, kd) = unbiased_pair(logits, target, teacher)
    assert all(value.isfinite() and value > 50 for value in values)
    assert ce.isfinite().all() and kd.isfinite().all()
    assert ce[0, -1].tolist() == [[1, 0]]


def test_a_batch_of_ignored_pixels():
    logits, target, teacher = some(torch.float32, 1)
    (ce, _), (slope, _) = unbiased_pair(logits, torch.full_like(target, 255), teacher)
    assert ce == 0 and not slope.any()
