"""Methods as tables of terms, what a term sees, and thirty iterations of each method."""

import math
from dataclasses import replace
from itertools import product

import pytest
import torch
from lightning_fabric import Fabric
from torch import nn
from torch.nn import functional as F

from sparcl_lib import losses
from sparcl_lib.config import OptimConfig, parse_settings, resolve
from sparcl_lib.data.loading.dataset import StepBatch
from sparcl_lib.errors import UserError
from sparcl_lib.methods import (
    METHODS,
    TERMS,
    Method,
    StepContext,
    build_method,
    labelled_sums,
    method_name,
    term,
)
from sparcl_lib.methods.context import nearest_grid
from sparcl_lib.models import GrowingClassifier, Segmenter, SegmenterOutput, freeze, grow
from sparcl_lib.models.backbones import Backbone
from sparcl_lib.prototypes import PrototypeBank
from sparcl_lib.training.plan import StepPlan
from sparcl_lib.training.step import StepTrainer, poly_lr

OLD, ALL, DIM = 4, 6, 8
SIZES = [(32, 8), (32, 32), (33, 5), (31, 4), (17, 3), (512, 32), (113, 8), (7, 7)]


@pytest.fixture(autouse=True)
def fixed_seed():
    torch.manual_seed(0)


def context(size=(32, 32), grid=(8, 8), **changes) -> StepContext:
    """Two images in step 1: four classes of six are old; class 5 has no prototype yet."""
    bank = PrototypeBank(ALL, DIM)
    bank.add(torch.rand(ALL, DIM), torch.tensor([9, 9, 9, 9, 9, 0]))
    target = torch.tensor([0, 4, 5, 255])[torch.randint(4, (2, *size))]
    features = torch.rand(2, DIM, *grid, requires_grad=True)
    old_features = torch.rand(2, DIM, *grid)
    values = {
        "output": SegmenterOutput(
            low_res_logits=torch.randn(2, ALL, *size, requires_grad=True),
            features=features,
            maps=(features, torch.randn(2, ALL, *grid, requires_grad=True)),
        ),
        "target": target,
        "teacher": SegmenterOutput(
            low_res_logits=torch.randn(2, OLD, *size),
            features=old_features,
            maps=(old_features, torch.randn(2, OLD, *grid)),
        ),
        "extras": {"thresholds": torch.tensor([1.2, 1.0, 0.8, 0.0])},
        "bank": bank,
        "num_old": OLD,
        "old_labelled": False,
        "step": 1,
    }
    return StepContext(**{**values, **changes})


def method(name: str) -> Method:
    return build_method({**METHODS[name], "name": name})


# Labels
@pytest.mark.parametrize("rows, columns", list(product(SIZES, [(32, 8), (21, 4)])))
def test_labels_take_the_nearest_pixel(rows, columns):
    size, grid = zip(rows, columns, strict=True)
    step = context(size, grid)
    expected = [
        [[image[i * size[0] // grid[0]][j * size[1] // grid[1]] for j in range(grid[1])]
         for i in range(grid[0])] for image in step.target.tolist()
    ]  # fmt: skip
    assert step.labels.tolist() == expected
    nearest = F.interpolate(step.target[:, None].float(), grid, mode="nearest")[:, 0].long()
    assert torch.equal(step.labels, nearest)
    assert nearest_grid(size, grid, "cpu")[0].tolist() == [
        i * size[0] // grid[0] for i in range(grid[0])
    ]


def test_pseudo_labels_only_where_the_label_is_background():
    step = context()
    background = step.labels == 0
    guess = step.teacher.logits[..., ::4, ::4].argmax(1)
    assert torch.equal(step.completed_labels[background], guess[background])
    assert torch.equal(step.completed_labels[~background], step.labels[~background])
    assert set(step.completed_labels.unique().tolist()) == {0, 1, 2, 3, 4, 5, 255}


@pytest.mark.parametrize("changes", [{"old_labelled": True}, {"teacher": None}])
def test_no_pseudo_labels_where_nothing_is_hidden(changes):
    step = context(**changes)
    assert torch.equal(step.completed_labels, step.labels)


def test_anchored_labels_drop_classes_without_prototype():
    step = context()
    fresh = step.completed_labels == 5
    assert fresh.any() and (step.anchored_labels[fresh] == 255).all()
    assert torch.equal(step.anchored_labels[~fresh], step.completed_labels[~fresh])
    (sums, counts), (all_sums, all_counts) = step.anchored_sums, step.sums
    assert all_counts[5] > 0 and counts[5] == 0 and torch.equal(counts[:5], all_counts[:5])
    assert torch.equal(sums[:5], all_sums[:5])


@pytest.mark.parametrize(
    "old_labelled, background, allowed",
    [
        (False, False, {4, 5}),
        (False, True, {0, 4, 5}),
        (True, False, {1, 2, 3, 4, 5}),
        (True, True, {0, 1, 2, 3, 4, 5}),
    ],
)
def test_what_may_enter_the_bank(old_labelled, background, allowed):
    target = torch.randint(ALL, (2, 32, 32)) if old_labelled else context().target
    step = context(old_labelled=old_labelled, target=target)
    sums, counts = labelled_sums(step, background)
    assert {c for c in range(ALL) if counts[c] > 0} == allowed and not sums.requires_grad
    rows = step.output.features.movedim(1, -1)
    for c in range(ALL):
        members = rows[step.completed_labels == c] if c in allowed else rows[:0].flatten(0, 2)
        assert counts[c] == len(members)
        torch.testing.assert_close(sums[c], members.sum(0).detach())


# Terms
@pytest.mark.parametrize("name, options", [
    (name, options) for name in TERMS
    for options in (
        {}, {"unbiased": True}, {"distance": "mse"}, {"distance": "l2"}, {"pseudo": "exact"},
        {"labelled_only": True}, {"strength": 2}, {"logits": 0}, {"threshold": 0.7},
        {"reshaped": False}, {"labels": "completed"}, {"division": "mean"}, {"distances": "exact"},
        {"floor": 1.0}, {"signed": False}, {"void": False},
    )
    if set(options) <= set(TERMS[name].options)
])  # fmt: skip
def test_every_term_computes(name, options):
    step = context()
    value = TERMS[name](step, **options)
    value.backward()
    on_logits = name in ("ce", "bce", "kd", "bce_kd", "entropy_kd")
    tensor = step.output.logits if on_logits else step.output.features
    assert value.shape == () and value > 0
    assert tensor.grad.isfinite().all() and tensor.grad.any()
    assert TERMS[name].function.__doc__


def test_terms_are_the_losses_on_the_right_arguments():
    step = context()
    logits, features, target = step.output.logits, step.output.features, step.target
    anchored, bank = step.anchored_labels, step.bank.prototypes
    expected = {
        "ce": losses.unbiased_cross_entropy(logits, target, OLD),
        "kd": losses.unbiased_knowledge_distillation(logits, step.teacher.logits),
        "matching": losses.prototypes_matching(features, anchored, bank[:OLD], "mse"),
        "attraction": losses.attraction(features, anchored, bank, "mse"),
        "repulsion": losses.repulsion(features, anchored),
        "sparsification": losses.sparsification(features, step.completed_labels),
    }
    total, terms = method("SDR").losses(step)
    assert terms.keys() == expected.keys()
    for name, value in expected.items():
        torch.testing.assert_close(terms[name], value)
    ilt = method("ILT").losses(step).terms
    torch.testing.assert_close(
        ilt["feature_kd"], losses.feature_distillation(features, step.teacher.features)
    )
    mc, cil = (method(name).losses(step).terms for name in ("LwF-MC", "CIL"))
    torch.testing.assert_close(mc["bce"], losses.binary_cross_entropy(logits, target))
    torch.testing.assert_close(
        mc["bce_kd"], losses.binary_knowledge_distillation(logits, step.teacher.logits)
    )
    hidden, unlabelled = torch.where(target == 0, 255, target), (target == 0) | (target == 255)
    torch.testing.assert_close(cil["ce"], losses.cross_entropy(logits, hidden))
    torch.testing.assert_close(
        cil["entropy_kd"],
        losses.entropy_weighted_distillation(logits, step.teacher.logits, unlabelled),
    )
    weights = {term.name: term.weight for term in method("SDR").terms}
    assert total.item() == pytest.approx(sum(weights[n] * v.item() for n, v in expected.items()))


def test_unbiased_is_plain_where_old_classes_are_labelled():
    step = context(old_labelled=True)
    plain = losses.cross_entropy(step.output.logits, step.target)
    assert TERMS["ce"](step, unbiased=True) == plain != TERMS["ce"](context(), unbiased=True)


def test_released_unbiased_folds_labels_of_old_classes():
    target = torch.randint(ALL, (2, 32, 32))
    step = context(old_labelled=True, target=target)
    folded = losses.unbiased_cross_entropy(step.output.logits, target, OLD)
    assert TERMS["ce"](step, unbiased=True, fold_labels=True) == folded
    assert folded != TERMS["ce"](step, unbiased=True)


@pytest.mark.parametrize("changes", [{}, {"old_labelled": True}])
@pytest.mark.parametrize("fold", [False, True])
def test_unbiased_has_the_gradient_of_plain_cross_entropy_at_step_0(changes, fold):
    """Bit for bit, for methods that differ in these options alone share their step 0."""
    grads = []
    for options in ({}, {"unbiased": True, "fold_labels": fold}):
        torch.manual_seed(0)
        step = context(num_old=1, teacher=None, **changes)
        TERMS["ce"](step, **options).backward()
        grads.append(step.output.logits.grad)
    assert grads[0].any() and torch.equal(*grads)


def test_pod_is_the_mean_over_maps_times_the_growth():
    step = context()
    (features, scores), (other, old_scores) = step.output.maps, step.teacher.maps
    folded = scores[:, :OLD].clone()
    folded[:, 0] += scores[:, 4] + scores[:, 5]
    expected = losses.local_pod(features, other) + 0.05 * losses.local_pod(folded, old_scores)
    torch.testing.assert_close(TERMS["pod"](step), math.sqrt(ALL / 2) * expected / 2)
    alone = math.sqrt(ALL / 2) * losses.local_pod(features, other) / 2
    torch.testing.assert_close(TERMS["pod"](step, logits=0), alone)


def test_pseudo_target_by_hand():
    step = context()
    filled, share = step.pseudo_target("exact")
    for image in range(2):
        sure = background = 0
        for i, j in product(range(32), range(32)):
            p = step.teacher.logits[image, :, i, j].double().softmax(0)
            guess = int(p.argmax())
            accepted = -(p * p.log()).sum() < step.extras["thresholds"][guess]
            label = int(step.target[image, i, j])
            background += label == 0
            sure += int(label == 0 and accepted)
            expected = label if label > 0 else guess if accepted else 255
            assert filled[image, i, j] == expected
        assert 0 < sure < background and share[image] == pytest.approx(sure / background)
    assert (filled == 3).sum() == 0  # a threshold of 0 accepts nothing


@pytest.mark.parametrize("rule, weight", [("exact", 1), ("released", 0)])
def test_an_image_without_background(rule, weight):
    """The release weighs it by its share of sure background, which is zero."""
    target = torch.full((2, 32, 32), 5)
    target[1, 0, 0] = 0
    step = context(target=target, extras={"thresholds": torch.full((OLD,), 9.0)})
    assert step.pseudo_target(rule)[1].tolist() == [weight, 1]
    logits = step.output.logits
    alone = (
        torch.stack([losses.cross_entropy(logits[i : i + 1], step.pseudo_target(rule)[0][i : i + 1])
                     for i in range(2)])
    )  # fmt: skip
    expected = (weight * alone[0] + alone[1]) / 2
    torch.testing.assert_close(TERMS["ce"](step, pseudo=rule), expected)


@pytest.mark.parametrize("options", [{"pseudo": "exact"}, {"labelled_only": True}])
@pytest.mark.parametrize("changes", [{"old_labelled": True}, {"num_old": 1, "teacher": None}])
def test_plain_cross_entropy_where_nothing_is_hidden_whatever_the_option(options, changes):
    step = context(**changes)
    plain = losses.cross_entropy(step.output.logits, step.target)
    assert TERMS["ce"](step, **options) == plain != TERMS["ce"](context(), **options)


# Methods
@pytest.mark.parametrize("name", METHODS)
def test_every_recipe_builds(name):
    built = method(name)
    assert built.name == name == method_name(name.lower()) == method_name(name.upper())
    assert set(METHODS[name]["terms"]) == {term.name for term in built.terms}
    assert built.joint == (name == "Joint")
    starts = {"PLOP": "mib", "SSUL-like": "unknown"}
    assert built.classifier_init == ("mib" if "MiB" in name else starts.get(name, "random"))
    parts = {"SSUL-like": ("features", "old"), "MiB+EWF": ("old",)}
    assert built.frozen == parts.get(name)
    assert (built.unknown > 0) == (name == "SSUL-like") and (built.fuse > 0) == ("EWF" in name)
    alone = name in ("FT", "Joint", "EWC", "RW", "PI")
    assert built.needs_teacher(1) == (not alone) and not built.needs_teacher(0)
    assert built.needs_maps(1) == (name == "PLOP") and not built.needs_maps(0)
    held = built.regulariser.name if built.regulariser else None
    assert held == (name.lower() if name in ("EWC", "RW", "PI") else None)
    around = [[type(m).__name__ for m in built.around(step)] for step in (0, 1)]
    known = {
        "PLOP": [[], ["PseudoLabels"]],
        "SSUL-like": [["Saliency"], ["FrozenParts", "Saliency"]],
        "MiB+EWF": [[], ["FrozenParts", "Fusion"]],
    }
    held_at = [["Regulariser"]] * 2 if held else [[], []]
    assert around == known.get(name, held_at)


def names(built: Method, step: int) -> list[str]:
    return [term.name for term in built.active_terms(step)]


def test_terms_start_at_their_step():
    terms = {name: {} for name in TERMS} | {"sparsification": {"from_step": 2}}
    built = build_method({"name": "x", "terms": terms})
    released = [f"released_{name}" for name in ("attraction", "repulsion", "sparsification")]
    assert names(built, 0) == ["ce", "bce", "attraction", "repulsion", *released]
    assert names(built, 1) == [name for name in TERMS if name != "sparsification"]
    assert names(built, 2) == list(TERMS)


def test_weight_zero_is_not_computed(monkeypatch):
    dear = replace(TERMS["repulsion"], function=lambda step: pytest.fail("computed"))
    monkeypatch.setitem(TERMS, "repulsion", dear)
    terms = {"ce": {"weight": 2}, "repulsion": {"weight": 0}, "kd": None}
    built = build_method({"name": "x", "terms": terms})
    total, values = built.losses(context())
    assert list(values) == ["ce", "kd"]
    torch.testing.assert_close(total, 2 * values["ce"] + values["kd"])


LATENT = {"matching": 0.5, "attraction": 0.1, "repulsion": 0.1, "sparsification": 0.01}


@pytest.mark.parametrize("latent", LATENT)
@pytest.mark.parametrize("name", METHODS)
def test_a_latent_term_on_top_of_any_method_is_one_line(name, latent):
    line = [f"method.terms.{latent}.weight={LATENT[latent]}"]
    config = resolve("voc", name, [parse_settings(line)], task="19-1")
    built, step = config.method, context()
    assert set(names(built, 1)) == {*METHODS[name]["terms"], latent}
    total, values = built.losses(step)
    assert values[latent] > 0
    weights = {term.name: term.weight for term in built.terms}
    assert total.item() == pytest.approx(sum(weights[n] * v.item() for n, v in values.items()))
    total.backward()
    assert step.output.features.grad.any() and weights[latent] == LATENT[latent]


BAD = {
    "term": (
        {"terms": {"ewc": {}}},
        "unknown loss term 'ewc': choose from ce, bce, kd, bce_kd, entropy_kd",
    ),
    "weight": (
        {"terms": {"kd": {"weight": -1}}},
        "kd.weight must be at least 0 .*, got -1",
    ),
    "option": ({"terms": {"kd": {"distance": "l2"}}}, "kd has no option 'distance': it has weight"),
    "bool": ({"terms": {"kd": {"unbiased": "yes"}}}, "kd.unbiased must be true or false"),
    "distance": ({"terms": {"matching": {"distance": "l1"}}}, "distance must be one of l2, mse"),
    "two": (
        {"terms": {"ce": {"unbiased": True, "pseudo": "exact"}}},
        "method.terms.ce.unbiased and method.terms.ce.pseudo exclude each other",
    ),
    "pseudo": (
        {"terms": {"ce": {"pseudo": "median"}}},
        "pseudo must be one of none, exact, released",
    ),
    "number": ({"terms": {"pod": {"logits": -1}}}, "pod.logits must be at least 0 and"),
    "words": ({"terms": {"pod": {"logits": "a lot"}}}, "pod.logits must be a number, got 'a lot'"),
    "division": (
        {"terms": {"released_attraction": {"division": "sum"}}},
        "must be one of mean, nested, got",
    ),
    "distances": (
        {"terms": {"released_repulsion": {"distances": "l2"}}},
        "must be one of exact, matmul",
    ),
    "labels": (
        {"terms": {"released_repulsion": {"labels": "all"}}},
        "labels must be one of raw, completed",
    ),
    "reshaped": (
        {"terms": {"released_matching": {"reshaped": 1}}},
        "reshaped must be true or false, got 1",
    ),
    "floor": (
        {"terms": {"released_sparsification": {"floor": -1}}},
        "floor must be at least 0 and",
    ),
    "no floor": ({"terms": {"sparsification": {"floor": 0}}}, "has no option 'floor'"),
    "signed": (
        {"terms": {"released_sparsification": {"signed": "no"}}},
        "signed must be true or false",
    ),
    "prototypes": ({"terms": {"ce": {}}, "prototypes": 1}, "prototypes must be one of means, rel"),
    "variant": ({"terms": {"ce": {}}, "variant": "released"}, "unknown setting method.'variant'"),
    "regulariser": ({"terms": {"ce": {}}, "regulariser": {"name": "l2"}}, "one of ewc, rw, pi"),
    "strength": ({"terms": {"ce": {}}, "regulariser": {"weight": 1}}, "regulariser.*'name'"),
    "alpha": (
        {"terms": {"ce": {}}, "regulariser": {"name": "ewc", "alpha": 0}},
        "regulariser.alpha must be above 0 and at most 1, got 0",
    ),
    "interval": (
        {"terms": {"ce": {}}, "regulariser": {"name": "rw", "interval": 0}},
        "regulariser.interval must be at least 1 and at most 10000000, got 0",
    ),
    "weight of all": (
        {"terms": {"ce": {}}, "regulariser": {"name": "pi", "weight": -1}},
        "regulariser.weight must be at least 0 and at most 1e.37 .float32., got -1",
    ),
    "init": ({"terms": {}, "classifier_init": "zero"}, "classifier_init must be"),
    "frozen": ({"terms": {"ce": {}}, "frozen": ["head"]}, "frozen must be one of features, old"),
    "fuse": (
        {"terms": {"ce": {}}, "fuse": -1},
        "method.fuse must be at least 0 .*, got -1",
    ),
    "salience": (
        {"terms": {"bce": {}}, "unknown": -2},
        "method.unknown must be at least 0 .* got -2",
    ),
    "yes or no": ({"terms": {"ce": {}}, "unknown": 2}, "needs the term bce from step 0 on"),
    "start": (
        {"terms": {"bce": {}}, "classifier_init": "unknown"},
        "starts new classes from the unknown one: set method.unknown=2",
    ),
    "sure": ({"terms": {"bce": {"threshold": -1}}}, "bce.threshold must be at least 0 and"),
    "field": ({"terms": {"ce": {}}, "colour": 1}, "colour"),
    "no term": ({"terms": {"ce": {"weight": 0}}}, "term"),
}


@pytest.mark.parametrize("recipe, message", BAD.values(), ids=BAD)
def test_recipes_that_no_method_has(recipe, message):
    with pytest.raises(UserError, match=message):
        build_method({"name": "x", **recipe})


def test_unknown_method():
    with pytest.raises(
        UserError, match="unknown method 'SDR2': choose from FT, Joint, LwF, LwF-MC, ILT, EWC"
    ):
        method_name("SDR2")


# Thirty iterations
def tiny(unknown: bool = False, head_per_step: bool = False) -> Segmenter:
    def block(channels):
        return [nn.Conv2d(channels, DIM, 3, 2, 1), nn.BatchNorm2d(DIM), nn.ReLU()]

    head = nn.Sequential(nn.Conv2d(DIM, DIM, 1), nn.BatchNorm2d(DIM), nn.ReLU())
    backbone = Backbone([*block(3), *block(DIM)], dim=DIM, stride=4)
    return Segmenter(backbone, head, GrowingClassifier(DIM, [OLD], unknown, head_per_step))


def fit(built, step, student, teacher, bank, target, setup, num_old, before=None):
    """Thirty iterations on one batch in which colour tells the class."""
    palette = torch.randn(ALL, 3, generator=torch.Generator().manual_seed(1))
    images = palette[target.clamp(max=ALL - 1)].movedim(-1, 1)
    optim, logged = OptimConfig(lr=(0.05, 0.001)), {}
    plan = StepPlan(built, step, 30, num_old, setup, "frozen", optim, 30 * step)
    mechanisms = built.around(step)
    for mechanism in mechanisms:
        mechanism.prepare(student, before)
    fabric = Fabric(accelerator="cpu", devices=1)
    trainer = StepTrainer(fabric, plan, student, teacher, bank, mechanisms)
    batches = [StepBatch(images, target)] * 40

    def log(values, iteration):
        logged[iteration] = values

    trainer.fit(batches, log)
    return logged, {"step": step, "mechanisms": trainer.mechanism_states()}


def squares(classes) -> torch.Tensor:
    """(2, 32, 32) in blocks of 8 pixels."""
    blocks = torch.tensor(classes)[torch.randperm(32) % len(classes)].view(2, 4, 4)
    return blocks.repeat_interleave(8, 1).repeat_interleave(8, 2)


@pytest.mark.parametrize("setup", ["sequential", "disjoint", "overlapped"])
@pytest.mark.parametrize("name", METHODS)
def test_thirty_iterations(name, setup):
    # Fusion moves what is held, too: MiB starts the old background lower.
    built, bank = replace(method(name), fuse=0.0), PrototypeBank(OLD, DIM)
    previous = tiny(built.unknown > 0, built.head_per_step)
    first = squares([0, 1, 2, 3])
    row = built.regulariser
    logged, left = fit(built, 0, previous, None, bank, first, setup, 1)
    assert logged[29]["total"] < logged[0]["total"] and list(logged) == [0, 10, 20, 29]
    assert (bank.counts[1:] == 30 * torch.bincount((first[:, ::4, ::4]).flatten())[1:]).all()
    assert bank.counts[0].item() == (0 if setup == "overlapped" else bank.counts[1].item())

    student = grow(previous, 2, built.classifier_init)
    bank = bank.grow(ALL)
    teacher = freeze(previous) if built.needs_teacher(1) else None
    frozen = {k: v.clone() for k, v in (teacher or previous).state_dict().items()}
    started = {k: v.clone() for k, v in student.named_parameters()}
    statistics = {k: v.clone() for k, v in student.backbone.named_buffers()}
    known = bank.counts.clone(), bank.sums.clone()
    old = [0, 1] if setup == "sequential" else [0]
    target = squares([*old, 4, 5, 255])
    before = {**left, "model": previous.state_dict()}
    logged, _ = fit(built, 1, student, teacher, bank, target, setup, OLD, before)
    assert not row or logged[59][row.name] > 0
    assert list(logged) == [30, 40, 50, 59]
    assert logged[59]["total"] < logged[30]["total"]
    assert all(math.isfinite(v) for values in logged.values() for v in values.values())
    assert logged[59]["lr"] == pytest.approx(0.001 * (1 / 30) ** 0.9)

    # The teacher stands still, what learns has moved, the backbone's statistics are kept.
    after = (teacher or previous).state_dict()
    assert all(torch.equal(frozen[k], after[k]) for k in frozen)
    moved = {k for k, v in student.named_parameters() if not torch.equal(started[k], v)}
    assert moved == {k for k, v in student.named_parameters() if v.requires_grad}
    assert len(moved) == {"SSUL-like": 10, "MiB+EWF": len(started) - 2}.get(name, len(started))
    assert all(torch.equal(statistics[k], v) for k, v in student.backbone.named_buffers())
    # The bank has every labelled feature of step 1 and what it had; background stays.
    seen = 30 * torch.bincount(target[:, ::4, ::4].flatten(), minlength=256)[:ALL]
    seen[0] = 0
    assert torch.equal(bank.counts, known[0] + seen)
    assert torch.equal(bank.sums[seen == 0], known[1][seen == 0])
    assert not bank.sums.requires_grad and bank.sums.isfinite().all()


@pytest.mark.parametrize("setup", ["sequential", "disjoint", "overlapped"])
@pytest.mark.parametrize("name", ["SDR", "SDR+MiB"])
def test_thirty_iterations_of_the_released_form(name, setup):
    """With our floor: dead locations of so small a network run off without it."""
    asked = ["method.variant=released", "method.terms.released_sparsification.floor=1.0"]
    built = resolve("voc", name, [parse_settings(asked)], task="19-1").method
    previous, bank = tiny(), PrototypeBank(OLD, DIM)
    first = squares([0, 1, 2, 3])
    logged, _ = fit(built, 0, previous, None, bank, first, setup, 1)
    assert set(logged[29]) == {"ce", "released_sparsification", "total", "lr"}
    counted = 30 * torch.bincount(first[:, ::4, ::4].flatten())
    assert torch.equal(bank.counts[1:], counted[1:])
    student, bank = grow(previous, 2, built.classifier_init), bank.grow(ALL)
    target = squares([*([0, 1] if setup == "sequential" else [0]), 4, 5, 255])
    logged, _ = fit(built, 1, student, freeze(previous), bank, target, setup, OLD, {})
    latent = {f"released_{term}" for term in LATENT}
    assert set(logged[59]) == {"ce", "kd", *latent, "total", "lr"}
    assert logged[59]["total"] < logged[30]["total"]
    assert all(math.isfinite(v) for values in logged.values() for v in values.values())


def test_prototypes_in_training_are_the_reshaped_sums():
    target, banks = squares([0, 1, 2, 3]), {}
    for kind in ("means", "released"):
        torch.manual_seed(0)
        built = build_method({"name": "x", "terms": {"ce": {}}, "prototypes": kind})
        banks[kind] = PrototypeBank(OLD, DIM)
        fit(built, 0, tiny(), None, banks[kind], target, "disjoint", 1)
    means, released = banks["means"], banks["released"]
    assert torch.equal(means.counts, released.counts)
    assert not torch.allclose(means.sums, released.sums)
    torch.testing.assert_close(means.sums.sum(1), released.sums.sum(1))


def test_a_broken_loss_stops_before_the_update():
    student = tiny()
    with torch.no_grad():
        student.classifier.steps[0].weight.fill_(float("nan"))
    before = {k: v.clone() for k, v in student.named_parameters()}
    with pytest.raises(UserError, match="loss is not a number at FT step 0, iteration 0 .ce=nan"):
        fit(method("FT"), 0, student, None, PrototypeBank(OLD, DIM), squares([0, 1]), "disjoint", 1)
    for name, value in student.named_parameters():
        torch.testing.assert_close(value, before[name], equal_nan=True, rtol=0, atol=0)


def test_a_term_of_ones_own_that_alone_is_no_number_is_named():
    """Its author was sent to the learning rate."""

    @term
    def divides(context, *, by: float = 0.0):
        return (context.output.logits.mean() / by).sum()

    try:
        for weights, words in (
            ({"ce": {}, "divides": {}}, "; look in divides for a division by 0 or the logarithm"),
            ({"divides": {}}, "; lower optim.lr or the weights"),  # maybe the network ran off
        ):
            built = build_method({"name": "FT", "terms": weights})
            with pytest.raises(UserError, match=words):
                fit(built, 0, tiny(), None, PrototypeBank(OLD, DIM), squares([0, 1]), "disjoint", 1)
    finally:
        del TERMS["divides"]


@pytest.mark.parametrize("iteration, share", [(0, 1), (5, 0.5), (9, 0.1)])
def test_poly_lr(iteration, share):
    assert poly_lr(0.1, iteration, 10, 0.9) == pytest.approx(0.1 * share**0.9)
    assert poly_lr(0.1, iteration, 10, 0) == 0.1
