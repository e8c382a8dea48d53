"""Backbones, the growing classifier, the teacher, and the policies for batch norm."""

import copy
import io
import os
import pickle
from pathlib import Path

import pytest
import torch
import torchvision
from torch import nn

from sparcl_lib.errors import UserError
from sparcl_lib.models import (
    BACKBONES,
    Backbone,
    GrowingClassifier,
    NetworkSpec,
    Segmenter,
    SegmenterOutput,
    build_backbone,
    build_segmenter,
    freeze,
    grow,
    hold,
    predict,
    synchronise_batch_norm,
    train_mode,
)


@pytest.fixture(autouse=True)
def fixed_seed():
    torch.manual_seed(0)


def small(num_classes: int = 3):
    options = {"output_stride": 4, "head": "conv", "head_channels": 8}
    return build_segmenter(NetworkSpec("mini", (num_classes,), **options))


def state(module: nn.Module) -> dict[str, torch.Tensor]:
    return {name: value.clone() for name, value in module.state_dict().items()}


def equal_states(one: dict, other: dict) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[k], other[k]) for k in one)


# The classifier
@pytest.mark.parametrize("num_new", [1, 5])
@torch.no_grad()
def test_random_growth_keeps_old_logits_bit_for_bit(num_new):
    classifier, x = GrowingClassifier(16, [4, 2]), torch.randn(2, 16, 3, 5)
    before, old = state(classifier), classifier(x)
    grown = classifier.grow(num_new)
    assert torch.equal(grown(x)[:, :6], old)
    assert grown(x).shape == (2, 6 + num_new, 3, 5)
    assert grown.num_classes == [4, 2, num_new] and classifier.num_classes == [4, 2]
    assert equal_states(before, state(classifier))
    grown.steps[0].weight.add_(1)
    assert equal_states(before, state(classifier))


@pytest.mark.parametrize("num_new", [1, 5])
@torch.no_grad()
def test_mib_growth_shares_the_background(num_new):
    classifier, x = GrowingClassifier(16, [4, 2]), torch.randn(2, 16, 3, 5)
    before, old = state(classifier), classifier(x).softmax(1)
    new = classifier.grow(num_new, "mib")(x).softmax(1)
    torch.testing.assert_close(new[:, 1:6], old[:, 1:], atol=1e-6, rtol=0)
    torch.testing.assert_close(new[:, 0] + new[:, 6:].sum(1), old[:, 0], atol=1e-6, rtol=0)
    share = old[:, :1] / (num_new + 1)
    torch.testing.assert_close(new[:, 6:], share.expand(-1, num_new, -1, -1), atol=1e-6, rtol=0)
    assert equal_states(before, state(classifier))


def test_classifier_errors():
    classifier = GrowingClassifier(4, [2])
    with pytest.raises(ValueError, match="at least one class, got num_new=0"):
        classifier.grow(0)
    with pytest.raises(ValueError, match="unknown classifier init 'zero': expected one of"):
        classifier.grow(1, "zero")


# Backbones
CASES = [
    ("mini", 4, 32, 2),
    ("mini_narrow", 4, 32, 2),
    ("mini_wide", 4, 32, 2),
    ("mobilenet_v2", 16, 64, 2),
    ("resnet50", 16, 64, 1),
    ("resnet50", 8, 64, 2),
    ("resnet101", 16, 64, 1),
]


@pytest.mark.parametrize("name, stride, size, batch", CASES)
@torch.no_grad()
def test_backbone_shapes(name, stride, size, batch):
    backbone = build_backbone(name, stride).eval()
    features = backbone(torch.randn(batch, 3, size, size))
    assert features.shape == (batch, backbone.dim, size // stride, size // stride)
    assert backbone.stride == stride and name in BACKBONES
    assert features.min() >= 0 and features.max() > 0


@torch.no_grad()
def test_dilated_mobilenet_is_torchvisions(tmp_path):
    """Same keys and weights; the same features up to where the stride goes."""
    original = torchvision.models.mobilenet_v2().eval()
    torch.save(original.state_dict(), tmp_path / "weights.pth")
    backbone = build_backbone("mobilenet_v2", 16, str(tmp_path / "weights.pth")).eval()
    assert equal_states(state(original.features), state(backbone))
    x = torch.randn(1, 3, 64, 64)
    torch.testing.assert_close(nn.Sequential(*list(backbone)[:14])(x), original.features[:14](x))
    strides = [original.features(x).shape[-1], backbone(x).shape[-1]]
    assert strides == [2, 4]


@torch.no_grad()
def test_dilation_reads_the_same_neighbours():
    """Every second location of the dilated network is what the strided one says."""
    original, backbone = torchvision.models.mobilenet_v2().eval(), build_backbone("mobilenet_v2")
    backbone.eval().load_state_dict(original.features.state_dict())
    x = torch.randn(1, 3, 64, 64)
    torch.testing.assert_close(backbone(x)[..., ::2, ::2], original.features(x))


def test_old_files_without_batch_counters(tmp_path):
    weights = build_backbone("mini", 4).state_dict()
    old = {k: v for k, v in weights.items() if not k.endswith("num_batches_tracked")}
    torch.save(old, tmp_path / "old.pth")
    loaded = build_backbone("mini", 4, str(tmp_path / "old.pth"))
    assert equal_states(state(loaded), weights)


def spoiled(tmp_path: Path, kind: str) -> Path:
    """A weights file for mini that is not right."""
    file, weights = tmp_path / "weights.pth", dict(build_backbone("mini", 4).state_dict())
    if kind == "other network":
        weights = torchvision.models.mobilenet_v2().state_dict()
    elif kind == "key missing":
        del weights["0.0.weight"]
    elif kind == "key too many":
        weights["extra"] = torch.zeros(1)
    elif kind == "shape":
        weights["0.0.weight"] = torch.zeros(2, 3)
    content = {
        "wrapped": {"model": weights},
        "list": [torch.zeros(1)],
        "tensor": torch.zeros(3),
        "numbered": {0: torch.zeros(1)},
        "object": {"a": Path("x")},
    }
    torch.save(content.get(kind, weights), file)
    garbage = {
        "empty": b"",
        "text": b"hello world",
        "yaml": b"a: 1\n",
        "page": b"<html>not found</html>",
        "zeros": bytes(1000),
        "random": bytes(range(7, 256, 3)),
        "cut": file.read_bytes()[:5000],
        "flipped": file.read_bytes().replace(b"0.0.weight", b"\x9c.0.weight"),
        "pickle": pickle.dumps({"a": 1}),
    }
    if kind in garbage:
        file.write_bytes(garbage[kind])
    return file


PLAIN = "plain state dict"
SPOILED = {
    "other network": "do not fit backbone mini: key .* is missing; give .* for mini",
    "key missing": "key 0.0.weight is missing",
    "key too many": "key extra is not in the network",
    "shape": r"0.0.weight is \(2, 3\), expected \(24, 3, 3, 3\)",
    **dict.fromkeys(("wrapped", "list", "tensor", "numbered", "object"), PLAIN),
    **dict.fromkeys(("empty", "text", "yaml", "page", "zeros", "random"), PLAIN),
    **dict.fromkeys(("cut", "flipped", "pickle"), PLAIN),
}


@pytest.mark.parametrize("kind, message", SPOILED.items(), ids=SPOILED)
def test_weights_that_do_not_fit(tmp_path, kind, message):
    file = spoiled(tmp_path, kind)
    with pytest.raises(UserError, match=message) as error:
        build_backbone("mini", 4, str(file))
    assert str(file) in str(error.value) and "\n" not in str(error.value)


def test_backbone_errors(tmp_path):
    with pytest.raises(UserError, match="unknown backbone 'vgg': model.backbone is one of resnet"):
        build_backbone("vgg")
    with pytest.raises(UserError, match="mobilenet_v2 has output stride 16, not 8: set model.out"):
        build_backbone("mobilenet_v2", 8)
    with pytest.raises(UserError, match="resnet50 has output stride 16 or 8, not 32"):
        build_backbone("resnet50", 32)
    with pytest.raises(UserError, match="mini has no ImageNet weights"):
        build_backbone("mini", 4, "imagenet")
    for missing in (tmp_path / "none.pth", tmp_path):
        with pytest.raises(UserError, match="does not exist: give 'imagenet' or a state dict file"):
            build_backbone("mini", 4, str(missing))
    for head in ("fcn", "linear", "aspp_linear_linear"):
        message = f"unknown head '{head}': choose from aspp, conv, aspp_linear, conv_linear"
        with pytest.raises(UserError, match=message):
            build_segmenter(NetworkSpec("mini", (2,), output_stride=4, head=head))


def test_weights_that_were_downloaded_in_part_are_named(tmp_path, monkeypatch):
    """They ended in a traceback of PyTorch's reader."""
    monkeypatch.setattr(torch.hub, "_hub_dir", str(tmp_path))
    url = torchvision.models.MobileNet_V2_Weights.IMAGENET1K_V1.url
    file = tmp_path / "checkpoints" / url.rpartition("/")[2]
    file.parent.mkdir()
    file.write_bytes(b"PK\x03\x04" + bytes(99))
    with pytest.raises(UserError, match=rf"cannot read {file} \(.*\): remove it, and it is down"):
        build_backbone("mobilenet_v2", 16, "imagenet")


def test_real_imagenet_weights():
    folder = os.environ.get("SPARCL_TEST_DATA")
    if not folder:
        pytest.skip("SPARCL_TEST_DATA is not set: no real weights")
    file = Path(folder) / "weights" / "mobilenet_v2_imagenet.pth"
    backbone = build_backbone("mobilenet_v2", 16, str(file))
    given = torch.load(file, weights_only=True)
    assert all(torch.equal(given[f"features.{k}"], v) for k, v in backbone.state_dict().items())


# The whole network
@pytest.mark.parametrize("head", ["aspp", "conv", "aspp_linear", "conv_linear"])
@torch.no_grad()
def test_output_is_named(head):
    spec = NetworkSpec("mini", (3,), output_stride=4, head=head, head_channels=8)
    model = build_segmenter(spec).eval()
    images = torch.randn(2, 3, 36, 28)
    output = grow(model, 2)(images)
    assert isinstance(output, SegmenterOutput) and output.unknown is None
    assert output.logits.shape == (2, 5, 36, 28)
    assert output.features.shape == (2, model.backbone.dim, 9, 7)
    labels = predict(model, images)
    assert labels.shape == (2, 36, 28) and torch.equal(labels, model(images).logits.argmax(1))


STAGES = {
    "mini": (4, [(24, 16), (48, 8), (64, 8), (64, 8)]),
    "mini_narrow": (4, [(24, 16), (48, 8), (64, 8), (8, 8)]),
    "mini_wide": (4, [(24, 16), (48, 8), (64, 8), (256, 8)]),
    "mobilenet_v2": (16, [(24, 8), (32, 4), (96, 2), (1280, 2)]),
    "resnet50": (16, [(256, 8), (512, 4), (1024, 2), (2048, 2)]),
}


@pytest.mark.parametrize("name", STAGES)
@torch.no_grad()
def test_maps_on_request_and_the_same_output(name):
    stride, stages = STAGES[name]
    spec = NetworkSpec(name, (3,), output_stride=stride, head="conv", head_channels=8)
    model = build_segmenter(spec).eval()
    images = torch.randn(1, 3, 32, 32)
    plain, full = model(images), grow(model, 2).eval()(images, maps=True)
    grid = stages[-1][1]
    expected = [*((1, d, n, n) for d, n in stages), (1, 8, grid, grid), (1, 5, grid, grid)]
    assert plain.maps == () and [tuple(m.shape) for m in full.maps] == expected
    assert torch.equal(plain.features, full.features) and full.features is full.maps[3]
    assert torch.equal(plain.logits, full.logits[:, :3])
    up = nn.functional.interpolate(full.maps[5], (32, 32), mode="bilinear", align_corners=False)
    assert torch.equal(up, full.logits)


def test_aspp_rates_follow_the_stride():
    for stride, rates in {16: {6, 12, 18}, 8: {12, 24, 36}}.items():
        spec = NetworkSpec("resnet50", (2,), output_stride=stride, head_channels=4)
        head = build_segmenter(spec).head
        found = {m.dilation[0] for m in head.modules() if isinstance(m, nn.Conv2d)} - {1}
        assert found == rates


@pytest.mark.parametrize("head", ["aspp", "conv"])
@torch.no_grad()
def test_a_linear_head_is_the_same_layers_without_activations(head):
    heads = []
    for name in (head, f"{head}_linear"):
        torch.manual_seed(0)
        options = {"output_stride": 4, "head": name, "head_channels": 8}
        heads.append(build_segmenter(NetworkSpec("mini", (3,), **options)).head)
    bent, straight = heads
    assert equal_states(state(bent), state(straight))
    x, y = torch.randn(2, 1, 64, 16, 16)
    bent(x.expand(2, -1, -1, -1)), straight(x.expand(2, -1, -1, -1))  # statistics that are not 0, 1
    bent, straight = bent.eval(), straight.eval()
    sums = [h(x) + h(y) - h(torch.zeros_like(x)) for h in (bent, straight)]
    torch.testing.assert_close(straight(x + y), sums[1], rtol=1e-4, atol=1e-4)
    assert not torch.allclose(bent(x + y), sums[0], rtol=1e-2, atol=1e-2)


def train_three(model: nn.Module) -> None:
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    for _ in range(3):
        optimizer.zero_grad()
        model(torch.randn(2, 3, 16, 16)).logits.square().mean().backward()
        optimizer.step()


def test_teacher_never_moves():
    model, images = small().train(), torch.randn(2, 3, 16, 16)
    teacher = freeze(model)
    before, said = state(teacher), teacher(images)
    assert teacher.train() is teacher and not any(m.training for m in teacher.modules())
    assert not any(p.requires_grad for p in teacher.parameters())
    assert not said.logits.requires_grad and model.training
    student = grow(model, 2)
    started = state(student)
    train_three(train_mode(student, "train"))
    assert torch.equal(teacher(images).logits, said.logits)
    assert torch.equal(teacher(images).features, said.features)
    assert equal_states(state(teacher), before)
    assert not equal_states(state(student), started)
    assert equal_states(state(model), before)


def test_a_student_grown_from_a_teacher_trains():
    teacher = freeze(small())
    student = grow(teacher, 1)
    assert all(p.requires_grad for p in student.parameters())
    assert student.train() is student and all(m.training for m in student.modules())
    assert not any(m.training for m in teacher.modules())


def saved_whole(model: nn.Module) -> nn.Module:
    buffer = io.BytesIO()
    torch.save(model, buffer)
    return torch.load(io.BytesIO(buffer.getvalue()), weights_only=False)


COPIES = {
    "copy": copy.deepcopy,
    "pickle": lambda model: pickle.loads(pickle.dumps(model)),
    "torch.save": saved_whole,
    "frozen again": freeze,
}


@pytest.mark.parametrize("name", COPIES)
@torch.no_grad()
def test_a_copy_of_a_teacher_is_a_teacher_too(name):
    teacher, images = freeze(small()), torch.randn(2, 3, 16, 16)
    twin = COPIES[name](teacher)
    assert twin.train() is twin is not teacher and twin.train(True) is twin.eval() is twin
    assert not any(module.training for module in twin.modules())
    assert not any(p.requires_grad for p in twin.parameters())
    said = teacher(images).logits
    assert torch.equal(twin(images).logits, said)
    twin.head[0].weight.zero_()
    assert torch.equal(teacher(images).logits, said) and not torch.equal(twin(images).logits, said)
    student = grow(twin, 2).train()
    assert all(module.training for module in student.modules()) and student.spec.classes == (3, 2)


def test_a_teacher_inside_another_module_stays_in_eval_mode():
    pair = nn.ModuleDict({"teacher": freeze(small()), "student": small()}).eval().train()
    assert pair["student"].backbone[0].training
    assert not any(module.training for module in pair["teacher"].modules())


AGAIN = {
    "train": nn.Module.train,
    "copy": copy.deepcopy,
    "train_mode": lambda model: train_mode(model, "train"),
}


@pytest.mark.parametrize("name", AGAIN)
def test_held_parts_stay_in_eval_mode(name):
    student = hold(grow(freeze(small()), 2), ["features", "old"])
    outer = nn.ModuleDict({"student": student}).train()
    for model in (student.train(), AGAIN[name](student), AGAIN[name](student).eval().train()):
        parts = (model.backbone, model.head, model.classifier.steps[0])
        assert not any(module.training for part in parts for module in part.modules())
        assert model.classifier.steps[1].training and model.training
    assert outer.training and not outer["student"].backbone[0].training


# What a network says of itself
def test_a_network_is_built_again_from_its_specification():
    options = {"output_stride": 4, "head": "conv_linear", "head_channels": 8}
    options |= {"unknown": True, "head_per_step": True}
    model = grow(grow(build_segmenter(NetworkSpec("mini", (3,), **options)), 2, "unknown"), 1)
    assert model.spec == NetworkSpec("mini", (3, 2, 1), **options)
    assert list(model.spec.classes) == model.classifier.num_classes
    torch.manual_seed(1)
    again = build_segmenter(model.spec)
    again.load_state_dict(model.state_dict())
    images = torch.randn(1, 3, 16, 16)
    assert torch.equal(again.eval()(images).unknown, model.eval()(images).unknown)


def test_a_network_of_many_steps_draws_as_many_random_numbers_as_one_that_grew():
    """What is drawn after a restored network, as a step's new classifier, depends on it."""
    spec = NetworkSpec("mini", (7, 4), output_stride=4, head_channels=8)
    ends = []
    for build in (lambda: build_segmenter(spec.grown(2)), lambda: grow(build_segmenter(spec), 2)):
        torch.manual_seed(5)
        build()
        ends.append(torch.rand(3))
    assert torch.equal(*ends)


def test_a_network_put_together_by_hand_has_no_specification():
    built = small()
    by_hand = Segmenter(built.backbone, built.head, built.classifier)
    assert by_hand.spec is None and grow(by_hand, 1).spec is None


# Batch norm
@pytest.mark.parametrize("policy, momentum", [("train", 0.1), ("slow", 3e-4), ("frozen", 0)])
def test_batch_norm_policy(policy, momentum):
    model = train_mode(small(), policy)
    norm, head = model.backbone[0][1], model.head[1]
    norm.running_mean.fill_(2)
    buffers = dict(model.backbone.named_buffers())
    before = {name: value.clone() for name, value in buffers.items()}
    seen = []
    norm.register_forward_pre_hook(lambda module, args: seen.append(args[0].mean((0, 2, 3))))
    weight = norm.weight.detach().clone()
    head_before = head.running_mean.clone()
    train_three(model)
    if policy == "frozen":
        assert all(torch.equal(before[name], value) for name, value in buffers.items())
    else:
        expected = before["0.1.running_mean"]
        for batch_mean in seen:
            expected = (1 - momentum) * expected + momentum * batch_mean
        torch.testing.assert_close(norm.running_mean, expected)
        assert not torch.equal(norm.running_mean, before["0.1.running_mean"])
    assert not torch.equal(norm.weight, weight)
    assert head.training and head.momentum == 0.1
    assert not torch.equal(head.running_mean, head_before)


def test_policy_can_change_between_steps():
    model = small()
    expected = {"frozen": (False, 0.1), "slow": (True, 3e-4), "train": (True, 0.1)}
    for policy, (training, momentum) in expected.items():
        norm = train_mode(model, policy).backbone[0][1]
        assert (norm.training, norm.momentum) == (training, momentum)


def another_network(momentum: float | None) -> Segmenter:
    layers = [nn.Conv2d(3, 8, 3, 4, 1), nn.BatchNorm2d(8, momentum=momentum), nn.ReLU()]
    head = nn.Sequential(nn.Conv2d(8, 8, 1), nn.BatchNorm2d(8, momentum=momentum), nn.ReLU())
    return Segmenter(Backbone(layers, dim=8, stride=4), head, GrowingClassifier(8, [3]))


@pytest.mark.parametrize("momentum", [0.01, None])
def test_a_backbone_keeps_the_momentum_that_it_came_with(momentum):
    model = another_network(momentum)
    for policy in ("train", "slow", "slow", "frozen", "slow", "train"):
        model = copy.deepcopy(train_mode(model, policy))  # what it remembers is copied too
        assert model.backbone[1].momentum == (3e-4 if policy == "slow" else momentum)
        assert model.head[1].momentum == momentum


@pytest.mark.parametrize("before", ["train", "slow"])
def test_every_policy_reaches_synchronised_batch_norm(before):
    """Layers that were slow as they were converted took 3e-4 for their usual momentum."""
    model = train_mode(another_network(0.01), before)
    kept = model.backbone[1].state_dict()
    synchronise_batch_norm(model)
    norm, head = model.backbone[1], model.head[1]
    assert type(norm) is type(head) is nn.SyncBatchNorm
    assert all(torch.equal(value, kept[name]) for name, value in norm.state_dict().items())
    for policy in ("slow", "frozen", "slow", "train"):
        train_mode(model, policy)
        assert norm.training == (policy != "frozen") and head.training
        assert norm.momentum == (3e-4 if policy == "slow" else 0.01) and head.momentum == 0.01
    train_mode(hold(model, ["features"]), "slow")
    assert not norm.training and not head.training


def test_a_part_without_parameters_trains_with_the_rest():
    """A head of dropout alone has nothing that could be held."""
    built = small()
    model = Segmenter(built.backbone, nn.Dropout(), GrowingClassifier(64, [3]))
    assert model.train().head.training and not model.eval().head.training
