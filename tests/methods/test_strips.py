"""Losses on upsampled logits strip by strip: the same numbers, and no tensor of all logits."""

import pytest
import torch
from torch.nn import functional as F

from sparcl_lib.config import parse_settings, resolve
from sparcl_lib.methods import METHODS, Method, StepContext
from sparcl_lib.methods import context as context_module
from sparcl_lib.methods.strips import unbiased_means
from sparcl_lib.models import (
    NetworkSpec,
    Segmenter,
    SegmenterOutput,
    build_segmenter,
    freeze,
    grow,
    predict,
    segmenter,
)  # fmt: skip
from sparcl_lib.prototypes import PrototypeBank
from sparcl_lib.tasks import SETUPS

IMAGES, OLD, NEW, SIDE = 2, 4, 2, 32
ALL = OLD + NEW
ROWS = 5  # of a strip: the last one has two


@pytest.fixture
def small_strips(monkeypatch):
    monkeypatch.setattr(segmenter, "MAX_LOGITS_PER_IMAGE", 0)
    monkeypatch.setattr(segmenter, "STRIP_ON_CPU", IMAGES * ALL * SIDE * ROWS)


def network(classes: int, unknown: bool = False, head_per_step: bool = False) -> Segmenter:
    torch.manual_seed(0)
    spec = NetworkSpec(
        "mini", (classes,), output_stride=4, head="conv", head_channels=8,
        unknown=unknown, head_per_step=head_per_step,
    )  # fmt: skip
    return build_segmenter(spec).double()


def losses_of(method: Method, setup: str) -> tuple[dict[str, float], list[torch.Tensor]]:
    """Each term of step 1 on one batch, and the gradient of the total in all parameters."""
    before = network(OLD, method.unknown > 0, method.head_per_step)
    student = grow(before, NEW, method.classifier_init).double()
    torch.manual_seed(1)
    images = torch.randn(IMAGES, 3, SIDE, SIDE, dtype=torch.double)
    target = torch.randint(0, ALL, (IMAGES, SIDE, SIDE))
    if setup != "sequential":
        target[target < OLD] = 0
    target[:, :3] = 255
    bank = PrototypeBank(OLD, before.backbone.dim)
    bank.add(torch.rand(OLD, before.backbone.dim), torch.full((OLD,), 5))
    maps = method.needs_maps(1)
    with torch.no_grad():
        teacher = freeze(before)(images, maps=maps)
    extras = {"thresholds": torch.full((OLD,), 1.38)}  # of PLOP: above some entropies
    if method.unknown:
        extras["salient"] = torch.rand(target.shape) < 0.3
    context = StepContext(
        output=student(images, maps=maps), target=target, teacher=teacher, bank=bank.grow(ALL),
        num_old=OLD, old_labelled=setup == "sequential", step=1,
        both_unbiased=method.both_unbiased(1), extras=extras,
    )  # fmt: skip
    values = method.losses(context)
    learns = [p for p in student.parameters() if p.requires_grad]
    gradients = torch.autograd.grad(values.total, learns, allow_unused=True)
    return {name: value.item() for name, value in values.terms.items()}, [
        torch.zeros(()) if g is None else g for g in gradients
    ]


@pytest.mark.parametrize("setup", SETUPS)
@pytest.mark.parametrize("name", METHODS)
def test_every_method_is_the_same_in_strips(name, setup, request):
    settings = {"SSUL-like": ["method.terms.bce.threshold=0.3"]}.get(name, [])
    method = resolve("voc", name, [parse_settings(settings)], task="19-1", setup=setup).method
    whole, slopes = losses_of(method, setup)
    request.getfixturevalue("small_strips")
    stripped, other_slopes = losses_of(method, setup)
    assert stripped == pytest.approx(whole, rel=1e-9)
    # A loss that is zero compares nothing; repulsion sees no logits, and one class here.
    assert stripped != {} and all(stripped[term] for term in stripped if term != "repulsion")
    torch.testing.assert_close(other_slopes, slopes, rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize(
    "settings, computed",
    [([], 1), (["method.terms.kd.weight=0"], 0), (["method.terms.ce.unbiased=false"], 0)],
)
def test_a_loss_of_mib_that_stands_alone_is_computed_alone(
    settings, computed, small_strips, monkeypatch
):
    """The exponentials of both are for both: the other one was computed, and thrown away."""
    calls = []
    monkeypatch.setattr(
        context_module, "unbiased_means", lambda *parts: calls.append(1) or unbiased_means(*parts)
    )
    method = resolve("voc", "MiB", [parse_settings(settings)], task="19-1", setup="disjoint").method
    stripped, slopes = losses_of(method, "disjoint")
    assert len(calls) == computed
    monkeypatch.setattr(segmenter, "MAX_LOGITS_PER_IMAGE", 2**62)
    whole, other_slopes = losses_of(method, "disjoint")
    assert stripped == pytest.approx(whole, rel=1e-9) and len(stripped) == (
        1 if "kd" in str(settings) else 2
    )
    torch.testing.assert_close(slopes, other_slopes, rtol=1e-6, atol=1e-9)


def test_no_tensor_of_all_logits_is_held(request):
    method = resolve("voc", "SDR", [], task="19-1", setup="disjoint").method

    def held() -> int:
        """How many tensors of all upsampled logits wait for the backward pass."""
        shapes = []
        keep = torch.autograd.graph.saved_tensors_hooks(
            lambda t: shapes.append(t.shape) or t, lambda t: t
        )
        with keep:
            losses_of(method, "disjoint")
        return sum(s in [(IMAGES, c, SIDE, SIDE) for c in (OLD, ALL)] for s in shapes)

    assert held() > 1
    request.getfixturevalue("small_strips")
    assert held() == 0


def test_upsampled_in_two_halves_and_in_strips(small_strips):
    torch.manual_seed(0)
    logits = torch.randn(IMAGES, ALL, 7, 9)
    unknown = torch.randn(IMAGES, 1, 7, 9)
    output = SegmenterOutput(
        low_res_logits=logits, features=logits, low_res_unknown=unknown, upsample_to=(SIDE, 41)
    )
    pixels = torch.arange(IMAGES * SIDE * 41).view(IMAGES, SIDE, 41)
    for binary, parts in ((False, [logits]), (True, [logits, unknown])):
        strips = list(output.strips(pixels, binary=binary))
        whole = F.interpolate(torch.cat(parts, 1), (SIDE, 41), mode="bilinear", align_corners=False)
        assert len(strips) > 4
        torch.testing.assert_close(
            torch.cat([s[0] for s in strips], 2), whole, rtol=1e-5, atol=1e-6
        )
        assert torch.equal(torch.cat([s[1] for s in strips], 1), pixels)
    rows, columns = torch.tensor([0, 5, 31]), torch.tensor([0, 40])
    picked = output.logits[:, :, rows.unsqueeze(1), columns]
    torch.testing.assert_close(output.logits_at(rows, columns), picked, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("unknown", [False, True])
def test_predictions_in_strips(unknown, request):
    model = network(ALL, unknown).eval()
    with torch.no_grad():
        model.classifier.steps[0].weight.mul_(1000)  # so that pixels differ in their class
    images = torch.randn(IMAGES, 3, SIDE, SIDE, dtype=torch.double)
    whole = predict(model, images)
    request.getfixturevalue("small_strips")
    assert torch.equal(predict(model, images), whole) and len(whole.unique()) > 1


def test_what_needs_strips():
    def output(images: int, classes: int, side: int, stride: int = 16) -> SegmenterOutput:
        logits = torch.empty(images, classes, side // stride, side // stride, device="meta")
        size = None if stride == 1 else (side, side)
        return SegmenterOutput(low_res_logits=logits, features=logits, upsample_to=size)

    assert output(1, 151, 512).needs_strips and output(1, 151, 512, stride=1).needs_strips
    assert not output(24, 21, 512).needs_strips and not output(64, 151, 256).needs_strips
    assert not output(2, 3, 4, stride=1).needs_strips


def test_logits_that_have_the_size_already_are_not_touched(small_strips):
    """A product with the unit matrix would make a whole row NaN of one infinite logit."""
    logits = torch.randn(IMAGES, ALL, SIDE, SIDE)
    logits[0, 0, 0, 0] = -torch.inf
    strips = SegmenterOutput(low_res_logits=logits, features=logits).strips()
    assert torch.equal(torch.cat([strip for (strip,) in strips], 2), logits)
