"""What came after the family: frozen parts, an unknown answer from saliency, fused endpoints."""

import math
from itertools import product

import pytest
import torch

from sparcl_lib import losses
from sparcl_lib.config import first_step_settings, parse_settings, resolve
from sparcl_lib.data.minivoc import generate
from sparcl_lib.errors import UserError
from sparcl_lib.losses.pseudo_labels import confident_guess
from sparcl_lib.methods import METHODS, TERMS, StepContext, build_method, new_share, salient
from sparcl_lib.models import (
    NetworkSpec,
    Segmenter,
    SegmenterOutput,
    build_segmenter,
    fuse,
    grow,
    hold,
    predict,
    train_mode,
)
from sparcl_lib.prototypes import PrototypeBank
from sparcl_lib.training import RunDirectory, evaluate, restore_model, train

OLD, ALL, DIM = 4, 6, 8
OPTIONS = {"output_stride": 4, "head": "conv", "head_channels": DIM}


@pytest.fixture(autouse=True)
def fixed_seed():
    torch.manual_seed(0)


def small(unknown: bool = True, head_per_step: bool = False) -> Segmenter:
    options = {**OPTIONS, "unknown": unknown, "head_per_step": head_per_step}
    return build_segmenter(NetworkSpec("mini", (OLD,), **options))


def state(model: Segmenter) -> dict[str, torch.Tensor]:
    return {name: value.clone() for name, value in model.state_dict().items()}


def method(**changes):
    return build_method({**METHODS["SSUL-like"], "name": "x", **changes})


# Saliency
def slow_salient(image, factor):
    """Blur with (1 4 6 4 1) / 16 along both sides, edges repeated; loops in float64."""
    weights, (height, width) = (1, 4, 6, 4, 1), image.shape[1:]

    def at(c, i, j):
        return image[c, min(max(i, 0), height - 1), min(max(j, 0), width - 1)].item()

    def distance(i, j):
        squares = 0.0
        for c in range(3):
            window = product(enumerate(weights, -2), enumerate(weights, -2))
            blurred = sum(v * w * at(c, i + a, j + b) for (a, v), (b, w) in window) / 256
            squares += (blurred - image[c].double().mean().item()) ** 2
        return math.sqrt(squares)

    distances = [[distance(i, j) for j in range(width)] for i in range(height)]
    mean = sum(map(sum, distances)) / height / width
    return [[d > factor * mean for d in row] for row in distances]


@pytest.mark.parametrize("factor", [0.5, 1.0, 1.5])
def test_salient_is_the_slow_loop(factor):
    images = torch.randn(2, 3, 7, 5)
    found = salient(images, factor)
    assert found.dtype == torch.bool and 0 < found.sum() < found.numel()
    assert found.tolist() == [slow_salient(image, factor) for image in images]


def test_salient_finds_the_odd_patch_and_nothing_in_one_colour():
    images = torch.zeros(2, 3, 32, 32)
    images[0, :, 8:16, 8:16] = 3
    found = salient(images, 2)
    assert found[0, 9:15, 9:15].all() and not found[0, 20:, 20:].any() and not found[1].any()
    turned = salient(images.flip(-1) * 5, 2)  # of any brightness, either way around
    assert torch.equal(turned.flip(-1), found)
    assert torch.equal(salient(images.bfloat16(), 2), found)


# Pseudo-labels
def test_confident_guess_by_hand():
    """Four old classes and the unknown; sigmoid(1) = .731, sigmoid(.8) = .690."""
    scores = torch.tensor(
        [[3.0, 1, 0, 0, -1], [0, 1, 0, 0, -1], [0, 0.8, 0, 0, -1], [0, 1, 0, 0, 2], [0, 0, 0, 1, 0]]
    ).T[None, :, None]
    guess, sure = confident_guess(scores, OLD, 0.7)
    assert guess.tolist() == [[[0, 1, 1, 4, 3]]]
    assert sure.tolist() == [[[False, True, False, False, True]]]
    assert not confident_guess(100 * scores, OLD, 1.0)[1].any()


def context(**changes) -> StepContext:
    target = torch.tensor([0, 0, 4, 5, 255])[torch.randint(5, (2, 8, 8))]
    unknown = torch.randn(2, 1, 8, 8, requires_grad=True)
    values = {
        "output": SegmenterOutput(
            low_res_logits=torch.randn(2, ALL, 8, 8, requires_grad=True),
            features=torch.rand(2, DIM, 2, 2),
            low_res_unknown=unknown,
        ),
        "target": target,
        "teacher": SegmenterOutput(
            low_res_logits=2 * torch.randn(2, OLD, 8, 8),
            features=torch.rand(2, DIM, 2, 2),
            low_res_unknown=torch.randn(2, 1, 8, 8),
        ),
        "bank": PrototypeBank(ALL, DIM),
        "num_old": OLD,
        "old_labelled": False,
        "step": 1,
        "extras": {"salient": torch.rand(2, 8, 8) < 0.5},
    }
    return StepContext(**{**values, **changes})


@pytest.mark.parametrize("threshold", [0.5, 0.7, 1.0])
def test_binary_target_by_hand(threshold):
    step = context()
    target, kinds = step.binary_target(threshold), set()
    for b, i, j in product(range(2), range(8), range(8)):
        label, out = int(step.target[b, i, j]), int(step.extras["salient"][b, i, j])
        scores = [
            *step.teacher.logits[b, :, i, j].tolist(),
            step.teacher.unknown[b, 0, i, j].item(),
        ]
        guess = scores.index(max(scores))
        sure = 0 < guess < OLD and 1 / (1 + math.exp(-scores[guess])) > threshold
        expected = label if label else guess if sure else ALL if out else 0
        assert target[b, i, j] == expected
        kinds.add("label" if label else "guess" if sure else "unknown" if out else "background")
    assert kinds == {"label", "unknown", "background"} | ({"guess"} if threshold < 1 else set())


@pytest.mark.parametrize("changes", [{"old_labelled": True}, {"num_old": 1, "teacher": None}])
def test_no_guesses_where_nothing_is_hidden(changes):
    step = context(**changes)
    expected = torch.where((step.target == 0) & step.extras["salient"], ALL, step.target)
    assert torch.equal(step.binary_target(0.1), expected)


def test_the_unknown_is_one_more_answer_of_the_binary_loss():
    step = context()
    value = TERMS["bce"](step, threshold=0.7)
    scores = torch.cat([step.output.logits, step.output.unknown], dim=1)
    expected = losses.binary_cross_entropy(scores, step.binary_target(0.7))
    assert value == expected
    value.backward()
    ignored = (step.target == 255).unsqueeze(1)
    for tensor in (step.output.logits, step.output.unknown):
        assert tensor.grad.any() and not (tensor.grad * ignored).any()


def test_without_unknown_and_threshold_the_binary_loss_is_what_it_was():
    logits, features = torch.randn(2, ALL, 8, 8), torch.rand(2, DIM, 2, 2)
    output = SegmenterOutput(low_res_logits=logits, features=features)
    step = context(output=output, extras={})
    assert TERMS["bce"](step) == losses.binary_cross_entropy(output.logits, step.target)
    assert output.binary_logits is output.logits


# The network
@torch.no_grad()
def test_an_unknown_object_counts_as_background():
    logits = torch.tensor([[0.0, 1.0], [2.0, 0.0], [0.0, 0.5]]).T[None, :, None]
    unknown = torch.tensor([1.5, -9.0, 0.1])[None, None, None]
    plain, more = (
        SegmenterOutput(low_res_logits=logits, features=logits, low_res_unknown=u)
        for u in (None, unknown)
    )
    # Background and unknown against class 1: .5 + .818 > .731; .881 > .5; .5 + .525 > .622
    assert predict(lambda images: plain, logits).tolist() == [[[1, 0, 1]]]
    assert predict(lambda images: more, logits).tolist() == [[[0, 0, 0]]]


@torch.no_grad()
def test_unknown_changes_nothing_else():
    """Logits, features, and what is drawn before it, bit for bit."""
    torch.manual_seed(3)
    plain = small(unknown=False).eval()
    torch.manual_seed(3)
    model, images = small().eval(), torch.randn(2, 3, 32, 32)
    shared = plain.state_dict()
    extra = set(model.state_dict()) - set(shared)
    assert extra == {"classifier.unknown.weight", "classifier.unknown.bias"}
    model.load_state_dict({**model.state_dict(), **shared})
    output, expected = model(images), plain(images)
    assert torch.equal(output.logits, expected.logits) and expected.unknown is None
    assert output.unknown.shape == (2, 1, 32, 32)
    assert torch.equal(output.binary_logits, torch.cat([output.logits, output.unknown], 1))


@torch.no_grad()
@pytest.mark.parametrize("head_per_step", [False, True])
@pytest.mark.parametrize("num_new", [1, 2, OLD])
def test_new_classes_start_as_the_unknown(head_per_step, num_new):
    classifier, x = small(head_per_step=head_per_step).classifier.eval(), torch.randn(2, DIM, 8, 8)
    for name, value in classifier.named_buffers():
        value.add_(torch.rand(value.shape) if "running" in name else 0)
    grown = classifier.grow(num_new, "unknown").eval()
    scores = classifier.unknown(x)
    assert torch.equal(grown(x)[:, :OLD], classifier(x)) and torch.equal(grown.unknown(x), scores)
    torch.testing.assert_close(grown(x)[:, OLD:], scores.expand(-1, num_new, -1, -1))
    with pytest.raises(ValueError, match="needs a classifier with an unknown class"):
        grow(small(unknown=False), 2, "unknown")


@torch.no_grad()
def test_a_head_per_step():
    """A 3x3 convolution, batch norm and ReLU before each 1x1; MiB's start shares as it did."""
    model, images = small(head_per_step=True).eval(), torch.randn(2, 3, 32, 32)
    shapes = [tuple(p.shape) for p in model.classifier.steps[0].parameters()]
    assert shapes == [(DIM, DIM, 3, 3), (DIM,), (DIM,), (OLD, DIM, 1, 1), (OLD,)]
    student = grow(model, OLD, "mib").eval()
    assert student.classifier.num_classes == [OLD, OLD]
    before, after = (m(images).logits.softmax(1) for m in (model, student))
    torch.testing.assert_close(after[:, 1:OLD], before[:, 1:])
    share = before[:, :1] / (OLD + 1)
    torch.testing.assert_close(after[:, OLD:], share.expand(-1, OLD, -1, -1))


# Frozen parts
@pytest.mark.parametrize(
    "parts, learns",
    [
        ((), {"backbone", "head", "classifier"}),
        (("old",), {"backbone", "head", "classifier.steps.1", "classifier.unknown"}),
        (("features",), {"classifier"}),
        (("features", "old"), {"classifier.steps.1", "classifier.unknown"}),
    ],
)
@pytest.mark.parametrize(
    "policy, head_per_step", [("train", True), ("slow", False), ("frozen", False)]
)
def test_what_is_held_does_not_move_by_a_bit(parts, learns, policy, head_per_step):
    """Neither parameters nor statistics of batch norm."""
    student = train_mode(hold(grow(small(head_per_step=head_per_step), 2), parts), policy)
    before = state(student)
    rates = [p for p in student.parameters() if p.requires_grad]
    optimizer = torch.optim.SGD(rates, lr=0.1, momentum=0.9, weight_decay=0.1)
    for _ in range(3):
        optimizer.zero_grad()
        student(torch.randn(2, 3, 32, 32)).binary_logits.square().mean().backward()
        optimizer.step()
    trained = {n for n, p in student.named_parameters() if not torch.equal(p, before[n])}
    assert trained == {n for n, _ in student.named_parameters() if n.startswith(tuple(learns))}
    moved = {n for n, v in student.named_buffers() if not torch.equal(v, before[n])}
    norms = {n for n, _ in student.named_buffers() if n.startswith(tuple(learns))}
    kept = {n for n in norms if policy == "frozen" and n.startswith("backbone")}
    assert moved == norms - kept
    assert student.head.training == ("features" not in parts)
    again = train_mode(grow(student, 1), "train")
    assert all(p.requires_grad for p in again.parameters()) and again.head.training


# Fusion
def test_fuse_by_hand():
    old = {"w": torch.tensor([0.0, 4.0]), "n": torch.tensor(3), "gone": torch.ones(1)}
    new = {"w": torch.tensor([1.0, 0.0]), "n": torch.tensor(5), "added": torch.tensor([7.0])}
    fused = fuse(old, new, 0.25)
    assert {k: v.tolist() for k, v in fused.items()} == {"w": [0.25, 3], "n": 5, "added": [7]}


@torch.no_grad()
@pytest.mark.parametrize("share", [0.0, 0.3, 1.0])
def test_fuse_at_the_endpoints_is_exact(share):
    model = small()
    student = grow(model, 2)
    for tensor in student.state_dict().values():
        tensor.add_(torch.randn(tensor.shape) if tensor.is_floating_point() else 1)
    old, new = state(model), state(student)
    fused = fuse(old, new, share)
    assert fused.keys() == new.keys()
    for name, value in fused.items():
        if name not in old or not value.is_floating_point() or share == 1:
            assert torch.equal(value, new[name])
        elif share == 0:
            assert torch.equal(value, old[name])
        else:
            torch.testing.assert_close(value, 0.7 * old[name] + 0.3 * new[name])
    assert all(torch.equal(v, old[n]) for n, v in model.state_dict().items())
    assert all(torch.equal(v, new[n]) for n, v in student.state_dict().items())


@pytest.mark.parametrize("fuse_by, share", [(0.5, math.sqrt(1 / 17)), (0, 1), (1, 1 / 17)])
def test_share_of_the_new_weights(fuse_by, share):
    """VOC 15-1, step 1: 16 old classes with background, one new."""
    assert new_share(fuse_by, 16, 1) == pytest.approx(share)


# Methods
def test_when_a_sure_guess_needs_the_teacher():
    assert method().needs_teacher(1) and not method().needs_teacher(0)
    assert not method(terms={"bce": {}}).needs_teacher(1)
    assert not method(terms={"bce": {"threshold": 1}}).needs_teacher(2)


def test_recipes_may_be_taken_apart():
    plain = method(unknown=0, classifier_init="random", frozen=None)
    assert plain.unknown == 0 and plain.frozen is None
    with pytest.raises(UserError, match="starts new classes from the unknown one"):
        method(unknown=0)


# Whole runs
@pytest.fixture(scope="module")
def mini(tmp_path_factory):
    root = tmp_path_factory.mktemp("mini") / "minivoc"
    generate(root, train=80, val=16, progress=False)
    return root


@pytest.fixture
def run(mini, tmp_path):
    """Trains two iterations a step and returns the checkpoints of the run."""

    def fit(out, name, *settings, **options):
        layer = parse_settings(["optim.iterations=2", "data.batch_size=4", *settings])
        config = resolve("minivoc", name, [layer], data_root=str(mini), task="6-4")
        train(config, tmp_path / out, accelerator="cpu", **options)
        directory = RunDirectory(tmp_path / out)
        return [directory.load_checkpoint(step) for step in directory.steps_done()]

    return fit


def test_a_run_ends_between_its_endpoints(run, tmp_path):
    first, fused = run("fused", "MiB+EWF")
    _, trained = run("trained", "MiB+EWF", "method.fuse=0", start_from=tmp_path / "fused")
    expected = fuse(first["model"], trained["model"], math.sqrt(4 / 11))
    assert all(torch.equal(v, expected[n]) for n, v in fused["model"].items())
    assert not torch.equal(fused["model"]["head.0.weight"], trained["model"]["head.0.weight"])


def test_mib_ewf_shares_step_0_with_the_family(run, tmp_path):
    run("ft", "FT", steps=[0])
    _, last = run("ewf", "MiB+EWF", start_from=tmp_path / "ft")
    assert last["network"]["classes"] == (7, 4)


def test_frozen_parts_are_those_of_step_0_after_every_step(run, tmp_path):
    first, last = run("ssul", "SSUL-like")
    kept = [n for n in first["model"] if not n.startswith("classifier.unknown")]
    assert all(torch.equal(first["model"][n], last["model"][n]) for n in kept)
    assert any(not torch.equal(v, last["model"][n]) for n, v in first["model"].items())
    assert restore_model(last).state_dict().keys() == last["model"].keys()
    before = last["confusion"]
    evaluate(tmp_path / "ssul", accelerator="cpu")
    assert torch.equal(RunDirectory(tmp_path / "ssul").load_checkpoint(1)["confusion"], before)
    again = run("again", "SSUL-like", start_from=tmp_path / "ssul")[1]
    assert all(torch.equal(v, again["model"][n]) for n, v in last["model"].items())


@pytest.mark.parametrize(
    "setting, difference",
    [
        ("method.head_per_step=false", "method.head_per_step .True there, False here"),
        ("method.unknown=1.5", "method.unknown .2.0 there, 1.5 here"),
        ("method.terms.bce.weight=2", "method.terms.bce.weight .1.0 there, 2.0 here"),
    ],
)
def test_another_classifier_is_another_step_0(run, tmp_path, setting, difference):
    run("ssul", "SSUL-like", steps=[0])
    with pytest.raises(UserError, match=f"differs in {difference}"):
        run("other", "SSUL-like", setting, start_from=tmp_path / "ssul")


def test_what_later_steps_do_leaves_step_0_alone():
    """Only the outputs of the classifier are part of its key."""
    config = resolve("minivoc", "SSUL-like", task="6-4")
    same = ["method.terms.bce.threshold=0.9", "method.frozen=null", "method.fuse=1"]
    other = resolve("minivoc", "SSUL-like", [parse_settings(same)], task="6-4")
    assert first_step_settings(config) == first_step_settings(other)
    family = first_step_settings(resolve("minivoc", "MiB", task="6-4"))
    assert first_step_settings(resolve("minivoc", "MiB+EWF", task="6-4")) == family
    assert (family["method.unknown"], family["method.head_per_step"]) == (0, False)
