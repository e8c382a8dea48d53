"""The same battery for every loss: a constant, a slow loop, properties, gradients, precision."""

import inspect
import math
import re
from collections.abc import Callable, Mapping
from itertools import permutations, product
from types import MappingProxyType
from typing import NamedTuple

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from sparcl_lib import losses
from sparcl_lib.losses import latent
from sparcl_lib.losses.latent import MIN_ACTIVITY, MIN_DISTANCE
from sparcl_lib.losses.released import RELEASED_EPSILON
from sparcl_lib.prototypes import PrototypeBank

HELPERS = {
    "fold_new_classes",
    "matching_from_sums",
    "repulsion_from_sums",
    "reshaped_features",
    "vector_distance",
}
PUBLIC = sorted(set(losses.__all__) - HELPERS)
VOID = 255


# The formulas again, as loops over locations in float64.
def rows(x: Tensor) -> np.ndarray:
    return x.detach().double().movedim(1, -1).flatten(0, 2).numpy()


def labelled(x: Tensor, labels: Tensor, num_classes: int = VOID) -> dict[int, list[np.ndarray]]:
    """Class -> its vectors; other labels are left out."""
    groups: dict[int, list[np.ndarray]] = {}
    for row, label in zip(rows(x), labels.flatten().tolist(), strict=True):
        if label < num_classes:
            groups.setdefault(label, []).append(row)
    return groups


def mean(values: list[float]) -> float:
    return sum(values) / len(values) if values else 0.0


def length(difference: np.ndarray, distance: str) -> float:
    squares = sum(float(d) ** 2 for d in difference)
    return math.sqrt(squares) if distance == "l2" else squares / len(difference)


def slow_ce(x, labels, num_old=1):
    values = []
    for label, members in labelled(x, labels).items():
        for row in members:
            e = [math.exp(v) for v in row]
            hit = sum(e[:num_old]) if label < num_old else e[label]
            values.append(-math.log(hit / sum(e)))
    return mean(values)


def slow_kd(x, teacher, unbiased=False):
    values = []
    for row, other in zip(rows(x), rows(teacher), strict=True):
        e, t, old = [math.exp(v) for v in row], [math.exp(v) for v in other], len(other)
        student = [e[0] + (sum(e[old:]) if unbiased else 0), *e[1:old]]
        for truth, guess in zip(t, student, strict=True):
            values.append(-truth / sum(t) * math.log(guess / sum(student)))
    return mean(values)


def slow_bce(x, labels):
    values = []
    for label, members in labelled(x, labels).items():
        for row in members:
            p = [1 / (1 + math.exp(-v)) for v in row]
            values.append(-sum(math.log(q if c == label else 1 - q) for c, q in enumerate(p)))
    return mean(values)


def slow_bce_kd(x, teacher):
    values = []
    for row, other in zip(rows(x), rows(teacher), strict=True):
        p, t = ([1 / (1 + math.exp(-v)) for v in vs] for vs in (row, other))
        pairs = zip(t, p, strict=False)  # new classes have no teacher
        values.append(-sum(a * math.log(b) + (1 - a) * math.log(1 - b) for a, b in pairs))
    return mean(values)


def slow_entropy_kd(x, teacher, mask, strength=1.0):
    values = []
    for row, other, chosen in zip(rows(x), rows(teacher), mask.flatten().tolist(), strict=True):
        if chosen:
            e, t = [math.exp(v) for v in row], [math.exp(v) for v in other]
            p, q = [v / sum(e) for v in e], [v / sum(t) for v in t]
            bits = -sum(v * math.log2(v) for v in q)
            crossed = -sum(v * math.log(w) for v, w in zip(q, p, strict=False))
            values.append((1 + strength * bits) * crossed)
    return mean(values)


def slow_adaptive_ce(x, labels, share):
    images = zip(x, labels, share.tolist(), strict=True)
    sums = [s * slow_ce(i[None], y[None]) * (y != VOID).sum().item() for i, y, s in images]
    return mean(sums) / labels[0].numel()


def parts(size, scale):
    """First and last index, exclusive, of each of `scale` parts; they overlap where they must."""
    return [(i * size // scale, -(-(i + 1) * size // scale)) for i in range(scale)]


def slow_local_pod(x, teacher):
    def pooled(image):
        squares, (h, w) = image.double().square().numpy(), image.shape[1:]
        means = []
        for scale, channel in product((1, 2, 4), squares):
            means += [channel[i, a:b].mean() for a, b in parts(w, scale) for i in range(h)]
            means += [channel[a:b, j].mean() for a, b in parts(h, scale) for j in range(w)]
        return np.array(means)

    pairs = zip(x.detach(), teacher, strict=True)
    return mean([length(pooled(a) - pooled(b), "l2") for a, b in pairs])


def slow_feature_distillation(x, teacher):
    pairs = zip(rows(x), rows(teacher), strict=True)
    return mean([length(row - other, "mse") for row, other in pairs])


def slow_matching(x, labels, prototypes, distance="l2", reshaped=False):
    p = prototypes.double().numpy()
    groups = labelled(x, labels, len(p))
    return mean([length(sum(m) / len(m) - p[c], distance) for c, m in groups.items() if c > 0])


def slow_attraction(x, labels, prototypes, distance="l2", division="mean", reshaped=False):
    p = prototypes.double().numpy()
    groups = sorted(labelled(x, labels, len(p)).items())
    values = [mean([length(row - p[c], distance) for row in m]) for c, m in groups]
    weights = [len(values) ** (i - len(values)) for i in range(len(values))]
    if division == "nested":
        return sum(w * v for w, v in zip(weights, values, strict=True))
    return mean(values)


def slow_repulsion(x, labels, num_classes=VOID, distances="exact", reshaped=False):
    means = [sum(m) / len(m) for m in labelled(x, labels, num_classes).values()]
    return mean([1 / max(length(a - b, "l2"), MIN_DISTANCE) for a, b in permutations(means, 2)])


def slow_sparsification(x, labels, num_classes=VOID, floor=MIN_ACTIVITY, signed=False, void=False):
    values = []
    for members in labelled(x if signed else x.clamp(min=0), labels, num_classes).values():
        peak = max(row.max() for row in members) or 1
        for bar in [row / peak for row in members if row.any() or not floor]:
            activity = max(bar.sum(), floor) if floor else bar.sum() + RELEASED_EPSILON
            values.append(sum(math.exp(v) for v in bar) / activity)
    return mean(values)


class Entry(NamedTuple):
    name: str
    slow: Callable[..., float]
    needs: tuple[str, ...]
    """Arguments after logits or features."""
    options: Mapping[str, object] = MappingProxyType({})

    @property
    def latent(self) -> bool:
        return self.slow in (slow_matching, slow_attraction, slow_repulsion, slow_sparsification)

    @property
    def per_image(self) -> bool:
        """A mean over images of something that is no mean over pixels."""
        return self.slow in (slow_adaptive_ce, slow_local_pod)

    def __call__(self, x, *args):
        return getattr(losses, self.name)(x, *args, **self.options)


ENTRIES = [
    Entry("cross_entropy", slow_ce, ("labels",)),
    Entry("unbiased_cross_entropy", slow_ce, ("labels", "num_old")),
    Entry("knowledge_distillation", slow_kd, ("teacher",)),
    Entry(
        "unbiased_knowledge_distillation", lambda x, t: slow_kd(x, t, unbiased=True), ("teacher",)
    ),
    Entry("feature_distillation", slow_feature_distillation, ("same",)),
    Entry("prototypes_matching", slow_matching, ("labels", "prototypes"), {"distance": "l2"}),
    Entry("prototypes_matching", slow_matching, ("labels", "prototypes"), {"distance": "mse"}),
    Entry("attraction", slow_attraction, ("labels", "prototypes"), {"distance": "l2"}),
    Entry("attraction", slow_attraction, ("labels", "prototypes"), {"distance": "mse"}),
    Entry(
        "released_matching",
        slow_matching,
        ("labels", "prototypes"),
        {"distance": "mse", "reshaped": False},
    ),
    Entry(
        "released_attraction",
        slow_attraction,
        ("labels", "prototypes"),
        {"distance": "mse", "division": "nested", "reshaped": False},
    ),
    Entry("repulsion", slow_repulsion, ("labels",)),
    Entry(
        "released_repulsion",
        slow_repulsion,
        ("labels", "classes"),
        {"distances": "matmul", "reshaped": False},
    ),
    Entry("repulsion", slow_repulsion, ("labels", "classes")),
    Entry("sparsification", slow_sparsification, ("labels",)),
    Entry("sparsification", slow_sparsification, ("labels", "classes")),
    *(
        Entry("released_sparsification", slow_sparsification, needs, {"void": False, **options})
        for needs, options in [
            (("labels",), {"floor": 0, "signed": False}),
            (("labels",), {"floor": 0, "signed": True}),
            (("labels", "classes"), {"floor": 1.0, "signed": True}),
        ]
    ),
    Entry("binary_cross_entropy", slow_bce, ("labels",)),
    Entry("binary_knowledge_distillation", slow_bce_kd, ("teacher",)),
    Entry("entropy_weighted_distillation", slow_entropy_kd, ("teacher", "mask")),
    Entry("adaptive_cross_entropy", slow_adaptive_ce, ("labels", "share")),
    Entry("local_pod", slow_local_pod, ("same",)),
]


def ids(entry: Entry) -> str:
    extra = [*map(str, entry.options.values()), *(["bounded"] if "classes" in entry.needs else [])]
    return "-".join([entry.name, *extra])


def each(entries=ENTRIES):
    return pytest.mark.parametrize("entry", entries, ids=ids)


LABELLED = [entry for entry in ENTRIES if "labels" in entry.needs]
LATENT = [entry for entry in ENTRIES if entry.latent]
SCENES = ("mixed", "absent", "one", "background", "void", "above")


def make(entry, batch=2, classes=6, dim=8, h=3, w=4, scene="mixed", seed=0):
    """x and the arguments after it; latent x is the output of a ReLU, with dead locations."""
    g = torch.Generator().manual_seed(seed)
    top = classes + 5 if scene == "above" and entry.latent else classes
    labels = torch.randint(top, (batch, h, w), generator=g)
    constant = {"one": classes - 1, "background": 0, "void": VOID}
    if scene == "absent":
        labels = labels // 2 * 2
    elif scene in constant:
        labels.fill_(constant[scene])
    if scene not in ("one", "background"):
        labels[torch.rand(labels.shape, generator=g) < 0.25] = VOID
    num_old = max(1, classes // 2)
    x = torch.randn(batch, dim if entry.latent else classes, h, w, generator=g)
    given = {
        "labels": labels,
        "num_old": num_old,
        "classes": classes,
        "teacher": torch.randn(batch, num_old, h, w, generator=g),
        "same": torch.randn(x.shape, generator=g),
        "mask": labels != VOID,
        "share": torch.rand(batch, generator=torch.Generator().manual_seed(seed + 1)),
        "prototypes": torch.randn(classes, dim, generator=g).relu(),
    }
    return (x.relu() if entry.latent else x), *(given[name] for name in entry.needs)


def value_and_gradient(entry, x, *args, autocast=False):
    x = x.clone().requires_grad_()
    with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
        value = entry(x, *args)
    value.backward()
    return value.detach(), x.grad


def column(*values) -> Tensor:
    """(1, D, 1, N) from N vectors."""
    return torch.tensor(values, dtype=torch.float32).T[None, :, None]


def line(*labels) -> Tensor:
    return torch.tensor(labels)[None, None]


# Meta
def test_battery_covers_every_public_loss():
    """With a slow loop, a value by hand and an error text."""
    assert {entry.name for entry in ENTRIES} == set(PUBLIC)
    for other in (CONSTANTS, MISUSES):
        assert set(PUBLIC) <= {key.partition(",")[0] for key in other}


def test_every_loss_is_tested_at_its_optimum():
    """At the teacher, at the prototypes, at the label; what is none of these by name."""
    others = [e.name for e in LATENT if "prototypes" not in e.needs]
    known = ("repulsion", "sparsification")
    assert set(others) == {*known, *(f"released_{name}" for name in known)}
    known = {"same", "teacher", "prototypes"}
    assert all(e.latent or e in LABELLED or known & set(e.needs) for e in ENTRIES)


@pytest.mark.parametrize("name", PUBLIC)
def test_docstring_names_source_shapes_and_the_empty_case(name):
    """Its own docstring, for `help` shows no other: docs/engineer.md says so."""
    text = " ".join((inspect.unwrap(getattr(losses, name)).__doc__ or "").split())
    source = re.search(r"Source: (.+?)\. ", text).group(1)
    place = r"section \d|equation \d|utils/loss.py|its distillation loss|our (example|idea)$"
    assert re.search(place, source), source
    assert re.search(r"\(B, \w+, \w, \w\)", text) and "Returns " in text and "Raises " in text
    takes_labels = {"target", "labels", "mask"} & {
        *inspect.signature(getattr(losses, name)).parameters
    }
    empty = r"[,:] 0 (if|for|where) " if takes_labels else r"no (pixel|location) is left out"
    assert re.search(empty, text.partition("Returns ")[2])


# (a)
ORIGIN = torch.zeros(3, 2)
CONSTANTS = {
    "cross_entropy": (losses.cross_entropy(column([0, 0], [9, 1]), line(1, VOID)), math.log(2)),
    "unbiased_cross_entropy": (
        losses.unbiased_cross_entropy(column([0] * 4, [0] * 4), line(0, 3), 3),
        (math.log(4 / 3) + math.log(4)) / 2,
    ),
    "knowledge_distillation": (
        losses.knowledge_distillation(column([0, 0, 7]), column([0, 0])), math.log(2) / 2
    ),
    "unbiased_knowledge_distillation": (
        losses.unbiased_knowledge_distillation(column([0, 0, 0]), column([0, 0])),
        -(math.log(2 / 3) + math.log(1 / 3)) / 4,
    ),
    "feature_distillation": (
        losses.feature_distillation(column([1, 2], [0, 0]), column([3, 2], [0, 4])), 5
    ),
    "binary_cross_entropy": (
        losses.binary_cross_entropy(column([0, 0, 0], [9, 1, 5]), line(1, VOID)), 3 * math.log(2)
    ),
    "binary_knowledge_distillation": (
        losses.binary_knowledge_distillation(column([0, 0, 7]), column([4, -3])), 2 * math.log(2)
    ),
    # Four equal classes are two bits of doubt.
    "entropy_weighted_distillation": (
        losses.entropy_weighted_distillation(
            column([0] * 8, [1] * 8), column([0] * 4, [9, 0, 0, 0]), line(1, 0) > 0, 0.5
        ),
        2 * math.log(8),
    ),
    "adaptive_cross_entropy": (
        losses.adaptive_cross_entropy(
            torch.zeros(2, 2, 1, 2), torch.tensor([[[0, VOID]], [[1, 1]]]), torch.tensor([1, 0.5])
        ),
        math.log(2) / 2,
    ),
    # One row of 4: the squares are 1 2 3 2; their means are 2 | 1.5 2.5 | 1 2 3 2, and the columns'
    # are 1 2 3 2 at each of the three scales (1, 2 and 4 times).
    "local_pod": (
        losses.local_pod(
            torch.tensor([1.0, 2, 3, 2]).sqrt().view(1, 1, 1, 4), torch.zeros(1, 1, 1, 4)
        ),
        math.sqrt(4 + 8.5 + 18 + 7 * 18),
    ),
    "prototypes_matching, l2": (
        losses.prototypes_matching(column([6, 0], [0, 8], [1, 1]), line(1, 1, 0), ORIGIN), 5
    ),
    "prototypes_matching, mse": (
        losses.prototypes_matching(column([3, 4], [6, 8]), line(1, 2), ORIGIN, "mse"),
        (12.5 + 50) / 2,
    ),
    "attraction, l2": (
        losses.attraction(column([3, 4], [0, 0], [3, 4]), line(1, 1, 2), ORIGIN), 3.75
    ),
    "attraction, mse": (
        losses.attraction(column([3, 4], [0, 0], [3, 4]), line(1, 1, 2), ORIGIN, "mse"), 9.375
    ),
    "repulsion": (
        losses.repulsion(column([0, 0], [3, 4], [0, 4]), line(0, 1, 2)),
        (1 / 5 + 1 / 4 + 1 / 3) / 3,
    ),
    "repulsion, coinciding means": (losses.repulsion(column([1, 1], [1, 1]), line(0, 1)), 1e4),
    "sparsification": (
        losses.sparsification(column([2, 1], [0, 0], [5, 0]), line(1, 1, VOID)),
        (math.e + math.exp(0.5)) / 1.5,
    ),
    "released_attraction": (
        losses.released_attraction(column([1], [3]), line(0, 1), torch.zeros(2, 1)),
        1 / 4 + 9 / 2,
    ),
    "released_repulsion": (
        losses.released_repulsion(column([0, 0], [3, 4], [0, 4]), line(0, 1, 2)),
        (1 / 5 + 1 / 4 + 1 / 3) / 3,
    ),
    # Half of two all-zero channels' 2 / 1e-15, and another location.
    "released_sparsification": (
        losses.released_sparsification(column([0, 0], [2, 0]), line(1, 1)), 1e15
    ),
    "released_sparsification, floor": (
        losses.released_sparsification(column([2, -1]), line(1), floor=1.0),
        math.e + math.exp(-0.5),
    ),
    "released_sparsification, signed": (
        losses.released_sparsification(column([4, -3]), line(1)),
        4 * (math.e + math.exp(-0.75)),
    ),
    # The constant of the released code: 64 channels 0..63, the same at 4 x 4 locations.
    "released_matching": (
        losses.released_matching(
            torch.arange(64.0).view(1, 64, 1, 1).expand(1, 64, 4, 4),
            torch.ones(1, 4, 4, dtype=torch.int64), torch.arange(64.0).expand(2, 64),
        ),
        302.5,
    ),
    "vector_distance": (losses.vector_distance(torch.tensor([3.0, 4.0]), "l2"), 5),
}  # fmt: skip


@pytest.mark.parametrize("value, expected", CONSTANTS.values(), ids=CONSTANTS)
def test_constant(value, expected):
    assert value.ndim == 0 and value.item() == pytest.approx(expected, rel=1e-6)


# (b)
@each()
@settings(max_examples=20, deadline=None)
@given(
    st.sampled_from([1, 2, 8]), st.integers(1, 9), st.integers(4, 12), st.integers(1, 4),
    st.integers(1, 4), st.sampled_from(SCENES), st.integers(0, 2**32),
)  # fmt: skip
def test_equals_slow_loop(entry, batch, classes, dim, h, w, scene, seed):
    x, *args = make(entry, batch, classes, dim, h, w, scene, seed)
    options = entry.options if entry.latent else {}
    expected = entry.slow(x, *args, **options)
    # One old class: a logsumexp minus the same one.
    rounding = 1e-9 if entry.latent else 1e-6
    assert entry(x, *args).item() == pytest.approx(expected, rel=1e-5, abs=rounding)


@each([e for e in ENTRIES if e.options.get("distances") != "matmul"])  # tests/losses/test_released
@pytest.mark.parametrize("scene", SCENES)
def test_equals_slow_loop_above_25_classes(entry, scene):
    x, *args = make(entry, 2, 40, 64, 9, 11, scene)
    expected = entry.slow(x, *args, **entry.options)
    assert entry(x, *args).item() == pytest.approx(expected, rel=1e-5, abs=1e-9)


@pytest.mark.parametrize("offset", [0, 100])
def test_repulsion_is_exact_for_many_close_means(offset):
    """A matrix-product distance, torch.cdist's above 25 points, loses these gaps."""
    g = torch.Generator().manual_seed(0)
    x = offset + 0.1 * torch.rand(1, 64, 1, 40, generator=g)
    expected = slow_repulsion(x, line(*range(40)))
    assert losses.repulsion(x, line(*range(40))).item() == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("offset", [0, 100])
def test_repulsion_without_the_differences_of_all_pairs(offset, monkeypatch):
    """101 classes of 1,280 channels; two means agree, and one class is absent."""
    g = torch.Generator().manual_seed(0)
    features = offset + 0.1 * torch.rand(1, 1280, 1, 101, generator=g)
    features[..., 1] = features[..., 0]
    labels = line(*range(100), 255)
    values, gradients = [], []
    assert latent.MANY_GAPS < 101 * 50 * 1280
    for many in (latent.MANY_GAPS, math.inf):
        monkeypatch.setattr(latent, "MANY_GAPS", many)
        x = features.clone().requires_grad_()
        value = losses.repulsion(x, labels, 101)
        value.backward()
        values.append(value.item())
        gradients.append(x.grad)
    assert values[0] == pytest.approx(values[1], rel=1e-6)
    torch.testing.assert_close(*gradients, rtol=1e-5, atol=1e-6 * gradients[1].abs().max().item())


@each(LABELLED)
@pytest.mark.parametrize("batch, h, w", [(1, 1, 1), (2, 3, 4), (8, 2, 2)])
def test_all_void_is_zero_and_trains(entry, batch, h, w):
    value, gradient = value_and_gradient(entry, *make(entry, batch, h=h, w=w, scene="void"))
    assert value == 0 and gradient.count_nonzero() == 0


# (c)
@pytest.mark.parametrize("distance", ["l2", "mse"])
@pytest.mark.parametrize("loss", [losses.prototypes_matching, losses.attraction])
def test_zero_at_the_prototypes(loss, distance):
    prototypes = torch.rand(4, 5)
    labels = torch.tensor([[[0, 1, 2], [3, 3, 1]]])
    features = prototypes[labels].movedim(-1, 1).requires_grad_()
    value = loss(features, labels, prototypes, distance)
    value.backward()
    assert value.item() == pytest.approx(0, abs=1e-6)
    assert features.grad.isfinite().all()


@each()
def test_order_of_pixels_does_not_matter(entry):
    """Where they are pooled along lines, lines may only be turned around."""
    x, *args = make(entry, 2, h=3, w=4)
    order = torch.randperm(12)

    def shuffle(t, name):
        if not isinstance(t, Tensor) or name == "prototypes":
            return t
        if t.ndim > 2:
            pooled = entry.slow is slow_local_pod
            t = t.flip(-1, -2) if pooled else t.flatten(-2)[..., order].view(t.shape)
        return t.flip(0)

    shuffled = entry(*map(shuffle, (x, *args), ("x", *entry.needs)))
    assert shuffled.item() == pytest.approx(entry(x, *args).item(), rel=1e-5)


@each([e for e in ENTRIES if e.options.get("division") != "nested"])
def test_order_of_classes_does_not_matter(entry):
    """Background stays first, old classes stay old."""
    x, *args = make(entry)
    order = torch.tensor([0, 2, 1, 5, 3, 4])
    table = torch.full((256,), VOID)
    table[order] = torch.arange(6)

    def rename(t, name):
        if name == "labels":
            return table[t]
        rename_rows = {
            "prototypes": lambda: t[order],
            "teacher": lambda: t[:, order[:3]],
            "same": lambda: t[:, order],
        }
        return rename_rows.get(name, lambda: t)()

    renamed = [rename(t, name) for t, name in zip(args, entry.needs, strict=True)]
    value = entry(x if entry.latent else x[:, order], *renamed)
    assert value.item() == pytest.approx(entry(x, *args).item(), rel=1e-5)


@each(LABELLED)
@pytest.mark.parametrize("size", [1, 100, 1e4])
def test_ignored_pixels_get_exactly_zero_gradient(entry, size):
    """However large they are."""
    x, labels, *args = make(entry)
    x = torch.where((labels == VOID)[:, None], size, x)
    value, gradient = value_and_gradient(entry, x, labels, *args)
    ignored = gradient.movedim(1, -1)[labels == VOID]
    assert ignored.numel() and ignored.count_nonzero() == 0
    assert value.isfinite() and gradient.isfinite().all() and gradient.any()


@each([e for e in LATENT if "prototypes" in e.needs or "classes" in e.needs])
def test_labels_above_the_prototypes_are_ignored(entry):
    x, labels, *args = make(entry, scene="above")
    value, gradient = value_and_gradient(entry, x, labels, *args)
    assert (labels[labels != VOID] >= 6).any()
    assert gradient.movedim(1, -1)[labels >= 6].count_nonzero() == 0
    assert value == entry(x, torch.where(labels >= 6, VOID, labels), *args)


@each([e for e in ENTRIES if e.per_image])
def test_batch_is_the_mean_of_its_images(entry):
    tensors = make(entry, 3)
    alone = [entry(*(t[i : i + 1] for t in tensors)).item() for i in range(3)]
    assert entry(*tensors).item() == pytest.approx(mean(alone), rel=1e-5)


@pytest.mark.parametrize("size", [1, 100, 1e4])
def test_pixels_outside_the_mask_get_exactly_zero_gradient(size):
    entry = next(e for e in ENTRIES if "mask" in e.needs)
    x, teacher, mask = make(entry)
    x = torch.where(mask[:, None], x, size)
    value, gradient = value_and_gradient(entry, x, teacher, mask)
    outside = gradient.movedim(1, -1)[~mask]
    assert outside.numel() and outside.count_nonzero() == 0 and value.isfinite()
    value, gradient = value_and_gradient(entry, x, teacher, torch.zeros_like(mask))
    assert value == 0 and gradient.count_nonzero() == 0


def test_no_doubt_no_weight():
    """A teacher that is sure, or strength 0, leaves the plain sum of its old classes."""
    x, teacher, mask = torch.randn(2, 5, 3, 3), torch.randn(2, 3, 3, 3), torch.ones(2, 3, 3) > 0
    plain = -(teacher.softmax(1) * x.log_softmax(1)[:, :3]).sum(1).mean()
    torch.testing.assert_close(losses.entropy_weighted_distillation(x, teacher, mask, 0), plain)
    sure = 1e3 * torch.eye(3)[1].view(1, 3, 1, 1).expand(2, 3, 3, 3)
    expected = -x.log_softmax(1)[:, 1].mean()
    torch.testing.assert_close(losses.entropy_weighted_distillation(x, sure, mask), expected)


@each([e for e in ENTRIES if "same" in e.needs])
@pytest.mark.parametrize("size", [(1, 1), (4, 8), (5, 3), (16, 16)])
def test_zero_at_the_same_features_of_the_teacher(entry, size):
    x = torch.randn(2, 3, *size)
    value, gradient = value_and_gradient(entry, x, x.clone())
    assert value == 0 and gradient.count_nonzero() == 0
    value, gradient = value_and_gradient(entry, x, 2 * x)
    assert value > 0 and gradient.isfinite().all() and gradient.any()


@each([e for e in LABELLED if not e.latent])
def test_next_to_nothing_where_the_label_is_sure(entry):
    """Whatever its value: being right on every pixel costs nothing and pulls nowhere."""
    x, labels, *args = make(entry)
    right = 200.0 * torch.nn.functional.one_hot(torch.where(labels == VOID, 0, labels), 6) - 100
    value, gradient = value_and_gradient(entry, right.movedim(-1, 1), labels, *args)
    assert 0 <= value < 1e-6 and gradient.abs().max() < 1e-6
    assert entry(x, labels, *args) > 0.1


def test_repulsion_falls_to_zero_with_the_distance():
    values = [losses.repulsion(column([0, 0], [d, 0]), line(0, 1)).item() for d in (1, 1e2, 1e6)]
    assert values == pytest.approx([1, 1e-2, 1e-6])


def test_sparsification_falls_with_every_active_channel():
    """What the formula says, though not its name."""
    patterns = [[1] * n + [0] * (8 - n) for n in range(1, 9)]
    values = [losses.sparsification(column(pattern), line(1)).item() for pattern in patterns]
    assert values == pytest.approx([math.e + (8 - n) / n for n in range(1, 9)])


def test_local_pod_compares_squares():
    x = torch.randn(2, 3, 4, 4)
    assert losses.local_pod(x, -x) == 0


def test_local_pod_sees_a_shift_that_global_means_do_not():
    x = torch.zeros(1, 1, 8, 8)
    x[..., 1, 1] = 1
    coarse, fine = (losses.local_pod(x, x.roll(2, -1), scales) for scales in ((1,), (1, 2, 4)))
    assert fine > coarse > 0


def test_new_classes_folded_into_background():
    logits = torch.tensor([1.0, 2, 3, 4, 5]).view(1, 5, 1, 1)
    assert losses.fold_new_classes(logits, 3).flatten().tolist() == [10, 2, 3]
    assert torch.equal(losses.fold_new_classes(logits, 5), logits)


@each([e for e in ENTRIES if not e.per_image])
def test_batch_of_two_is_two_images_side_by_side(entry):
    def join(t):
        return torch.cat(list(t.split(1)), dim=-1) if isinstance(t, Tensor) and t.ndim > 2 else t

    x, *args = make(entry, 2)
    joined = entry(*map(join, (x, *args)))
    assert joined.item() == pytest.approx(entry(x, *args).item(), rel=1e-5)


def test_unbiased_equals_plain_where_nothing_is_hidden():
    x, labels = make(ENTRIES[0])
    torch.testing.assert_close(
        losses.unbiased_cross_entropy(x, labels, 1), losses.cross_entropy(x, labels)
    )
    teacher = torch.randn_like(x)
    torch.testing.assert_close(
        losses.unbiased_knowledge_distillation(x, teacher),
        losses.knowledge_distillation(x, teacher),
    )


@pytest.mark.parametrize("ignore_index", [VOID, -100, -1])
def test_ignore_index_is_ignored_whatever_it_is(ignore_index):
    x, labels = make(ENTRIES[0])
    other = torch.where(labels == VOID, ignore_index, labels)
    assert losses.cross_entropy(x, other, ignore_index) == losses.cross_entropy(x, labels)
    expected = losses.unbiased_cross_entropy(x, labels, 3)
    assert losses.unbiased_cross_entropy(x, other, 3, ignore_index) == expected


@pytest.mark.parametrize("num_old", [1, 3, 6])
def test_unbiased_probabilities_sum_to_one(num_old):
    x = torch.randn(1, 6, 1, 1)
    outcomes = [0, *range(num_old, 6)]
    p = [math.exp(-losses.unbiased_cross_entropy(x, line(c), num_old)) for c in outcomes]
    assert sum(p) == pytest.approx(1, rel=1e-6)
    sure = [1000.0 * torch.eye(num_old)[c].view(1, -1, 1, 1) for c in range(num_old)]
    p = [math.exp(-num_old * losses.unbiased_knowledge_distillation(x, t)) for t in sure]
    assert sum(p) == pytest.approx(1, rel=1e-6)


@pytest.mark.parametrize("num_new", [0, 2])
@each([e for e in ENTRIES if e.needs[0] == "teacher"])
def test_distillation_is_smallest_at_the_teacher(entry, num_new):
    """With new classes: where background and new classes share the teacher's background, or where
    new classes are impossible.
    """
    _, teacher, *args = make(entry)
    x = torch.cat([teacher, *[teacher[:, :1]] * num_new], dim=1)
    if entry.name.startswith("unbiased"):
        x[:, [0, *range(3, 3 + num_new)]] -= math.log(num_new + 1)
    if entry.name.startswith("entropy"):
        x[:, 3:] = -100
    value, gradient = value_and_gradient(entry, x, teacher, *args)
    assert gradient.abs().max() < 1e-7
    for _ in range(5):
        assert entry(x + 0.1 * torch.randn_like(x), teacher, *args) > value


# (d)
@each()
@pytest.mark.parametrize("scene", ["mixed", "absent", "one"])
def test_gradient_in_float64(entry, scene):
    x, *args = make(entry, classes=4, dim=5, h=2, w=3, scene=scene)
    args = [a.double() if isinstance(a, Tensor) and a.is_floating_point() else a for a in args]
    # Away from zero, where a ReLU and a maximum have a kink.
    x = (x.double() + 0.1 + 0.1 * torch.rand(x.shape, dtype=torch.float64)).requires_grad_()
    assert torch.autograd.gradcheck(lambda x: entry(x, *args), (x,))


@each()
@pytest.mark.parametrize("level", [0.0, 1.0])
@pytest.mark.parametrize("scene", ["mixed", "one", "background"])
def test_finite_where_all_features_are_equal(entry, level, scene):
    """Dead features, means that coincide, features that equal their prototype."""
    x, *args = make(entry, scene=scene)
    if "prototypes" in entry.needs:
        args[-1] = torch.full_like(args[-1], level)
    value, gradient = value_and_gradient(entry, torch.full_like(x, level), *args)
    assert value.isfinite() and gradient.isfinite().all()


def test_no_gradient_into_prototypes_of_attraction():
    x, labels, prototypes = make(LATENT[2])
    prototypes.requires_grad_()
    losses.attraction(x.requires_grad_(), labels, prototypes).backward()
    assert prototypes.grad is None and x.grad.any()


# (e)
@each()
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
def test_full_precision_under_autocast(entry, dtype):
    def cast(t, to):
        return t.to(to) if isinstance(t, Tensor) and t.is_floating_point() else t

    rounded = [cast(t, dtype) for t in make(entry, classes=9, dim=32)]
    value, gradient = value_and_gradient(entry, *rounded, autocast=True)
    plain, expected = value_and_gradient(entry, *(cast(t, torch.float32) for t in rounded))
    assert value.dtype == torch.float32 and value == plain
    assert gradient.dtype == dtype and torch.equal(gradient, expected.to(dtype))


# (f)
F, Y, P = torch.rand(2, 4, 3, 3), torch.zeros(2, 3, 3, dtype=torch.int64), torch.rand(5, 4)
SAME = r"same locations, got \(2, 4, 3, 3\) and \(2, 3, 2\).*\(nearest\)"
OTHER = r"label the pixels of the logits: expected \(2, 3, 3\), got \(2, 3, 2\)"
MISUSES = {
    "cross_entropy": (lambda: losses.cross_entropy(F, Y[..., :2]), OTHER),
    "unbiased_cross_entropy": (lambda: losses.unbiased_cross_entropy(F, Y[..., :2], 1), OTHER),
    "binary_cross_entropy": (lambda: losses.binary_cross_entropy(F, Y[..., :2]), OTHER),
    "adaptive_cross_entropy": (
        lambda: losses.adaptive_cross_entropy(F, Y[..., :2], P[0, :2]),
        OTHER,
    ),
    "unbiased_cross_entropy, num_old 0": (
        lambda: losses.unbiased_cross_entropy(F, Y, 0),
        r"expected 1\.\.4.*got 0",
    ),
    "unbiased_cross_entropy, num_old 5": (
        lambda: losses.unbiased_cross_entropy(F, Y, 5),
        r"expected 1\.\.4.*got 5",
    ),
    "knowledge_distillation": (
        lambda: losses.knowledge_distillation(F, F[..., :2]),
        r"\(B, K_old <= K, H, W\)",
    ),
    "feature_distillation": (lambda: losses.feature_distillation(F, F[:1]), r"got \(2, 4, 3, 3\)"),
    "unbiased_knowledge_distillation": (
        lambda: losses.unbiased_knowledge_distillation(F, F[:1]),
        r"got \(2, 4, 3, 3\)",
    ),
    "knowledge_distillation, teacher": (
        lambda: losses.knowledge_distillation(F[:, :2], F),
        r"K_old <= K",
    ),
    "binary_knowledge_distillation": (
        lambda: losses.binary_knowledge_distillation(F[:, :2], F),
        r"K_old <= K",
    ),
    "entropy_weighted_distillation": (
        lambda: losses.entropy_weighted_distillation(F[:, :2], F, Y > 0),
        r"K_old <= K",
    ),
    "entropy_weighted_distillation, mask": (
        lambda: losses.entropy_weighted_distillation(F, F, Y[..., :2] > 0),
        r"mask.*\(2, 3, 2\)",
    ),
    "adaptive_cross_entropy, share": (
        lambda: losses.adaptive_cross_entropy(F, Y, P[0]),
        r"B = 2 images, got \(4,\)",
    ),
    "local_pod": (lambda: losses.local_pod(F, F[..., :2]), r"one shape .*\(2, 4, 3, 2\)"),
    "prototypes_matching, prototypes": (
        lambda: losses.prototypes_matching(F, Y, P[:, :3]),
        "D = 4.*got .5, 3",
    ),
    "attraction, prototypes": (lambda: losses.attraction(F, Y, P[0]), "D = 4 channels"),
    "prototypes_matching, distance": (
        lambda: losses.prototypes_matching(F, Y, P, "L2"),
        "'L2': expected 'l2' or 'mse'",
    ),
    "attraction, distance": (lambda: losses.attraction(F, Y, P, "cos"), "unknown distance 'cos'"),
    "released_matching": (lambda: losses.released_matching(F, Y[..., :2], P), SAME),
    "released_attraction": (lambda: losses.released_attraction(F, Y[..., :2], P), SAME),
    "released_repulsion": (lambda: losses.released_repulsion(F, Y[..., :2]), SAME),
    "released_sparsification": (lambda: losses.released_sparsification(F, Y[..., :2]), SAME),
    "released_attraction, division": (
        lambda: losses.released_attraction(F, Y, P, "l2", division="sum"),
        "'sum': expected 'mean' or 'n",
    ),
    "released_repulsion, distances": (
        lambda: losses.released_repulsion(F, Y, 5, distances="l2"),
        "distances 'l2': expected 'exact' or",
    ),
    "reshaped_features": (lambda: losses.reshaped_features(F, Y[..., :2]), SAME),
    "vector_distance": (lambda: losses.vector_distance(P, "l1"), "unknown distance 'l1'"),
    "prototypes_matching": (lambda: losses.prototypes_matching(F, Y[..., :2], P), SAME),
    "attraction": (lambda: losses.attraction(F, Y[..., :2], P), SAME),
    "repulsion": (lambda: losses.repulsion(F, Y[..., :2]), SAME),
    "sparsification": (lambda: losses.sparsification(F, Y[..., :2]), SAME),
}


@pytest.mark.parametrize("call, message", MISUSES.values(), ids=MISUSES)
def test_misuse(call, message):
    with pytest.raises(ValueError, match=message):
        call()


OF_LABELS = {
    "cross_entropy": losses.cross_entropy,
    "unbiased_cross_entropy": lambda x, y: losses.unbiased_cross_entropy(x, y, 1),
    "binary_cross_entropy": losses.binary_cross_entropy,
    "adaptive_cross_entropy": lambda x, y: losses.adaptive_cross_entropy(x, y, P[0, :2]),
    "prototypes_matching": lambda x, y: losses.prototypes_matching(x, y, P),
    "attraction": lambda x, y: losses.attraction(x, y, P),
    "repulsion": losses.repulsion,
    "sparsification": losses.sparsification,
    "released_matching": lambda x, y: losses.released_matching(x, y, P),
    "released_attraction": lambda x, y: losses.released_attraction(x, y, P),
    "released_repulsion": losses.released_repulsion,
    "released_sparsification": losses.released_sparsification,
}


@pytest.mark.parametrize(
    "labels, got",
    [
        (Y.to(torch.uint8), "Tensor of torch.uint8"),
        (Y.to(torch.int32), "Tensor of torch.int32"),
        (Y.to(torch.float32), "Tensor of torch.float32"),
        (Y.to(torch.bool), "Tensor of torch.bool"),
        (Y.numpy(), "ndarray of int64"),
        (Y.tolist(), "list"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
@pytest.mark.parametrize("loss", OF_LABELS.values(), ids=OF_LABELS)
def test_labels_of_another_kind_are_refused_in_a_line(loss, labels, got):
    """Masks are uint8, and the losses ended somewhere inside PyTorch."""
    with pytest.raises(ValueError, match=f"must be a Tensor of torch.int64, got {got}") as refusal:
        loss(F, labels)
    assert "\n" not in str(refusal.value)


@pytest.mark.parametrize("name", [n for n in OF_LABELS if "cross" not in n])
def test_features_that_are_no_tensor_are_refused_in_a_line(name):
    with pytest.raises(ValueError, match="features must be a Tensor .*, got ndarray of float32"):
        OF_LABELS[name](F.numpy(), Y)


@pytest.mark.parametrize("name", PUBLIC)
def test_a_loss_takes_its_arguments_by_name(name):
    """The wrapper of `full_precision` had a name of its own for the first one."""
    entry = next(e for e in ENTRIES if e.name == name)
    names, tensors = list(inspect.signature(getattr(losses, name)).parameters), make(entry)
    named = getattr(losses, name)(**dict(zip(names, tensors)))
    assert torch.equal(named, getattr(losses, name)(*tensors))


def test_a_bank_in_place_of_its_prototypes():
    for loss in (losses.prototypes_matching, losses.attraction):
        with pytest.raises(
            ValueError, match=r"got PrototypeBank: a bank has one, bank\.prototypes"
        ):
            loss(F, Y, PrototypeBank(5, 4))


@pytest.mark.parametrize("loss", [losses.repulsion, losses.sparsification])
def test_no_class_and_less_than_none(loss):
    assert loss(F, Y, 0) == 0
    with pytest.raises(ValueError, match="num_classes is -1"):
        loss(F, Y, -1)


@pytest.mark.parametrize("name", [n for n in OF_LABELS if "cross" not in n and "released" not in n])
def test_features_that_are_not_a_number_are_seen(name):
    """Sparsification left them out, and a network that had run off looked sparse."""
    labels = torch.tensor([1, 2]).expand(2, 3, 2)
    assert OF_LABELS[name](torch.full((2, 4, 3, 2), torch.nan), labels).isnan()


@pytest.mark.parametrize("loss", [losses.prototypes_matching, losses.attraction])
def test_no_gradient_into_the_prototypes(loss):
    prototypes = P.clone().requires_grad_()
    loss(F.clone().requires_grad_(), Y + 1, prototypes).backward()
    assert prototypes.grad is None


@pytest.mark.parametrize("silence", [1 / 50, 1 / 64, 1 / 70, 1e-3, 1e-4, 1e-6])
def test_a_nearly_silent_location_is_not_pushed_out_of_proportion(silence):
    """With D channels and a peak of 2, each entry moves the mean of two by D e / 2 / 2 at most."""
    active = torch.full((64,), 2.0)
    x = torch.stack([active, active * silence], dim=1)[None, :, None].requires_grad_()
    losses.sparsification(x, line(1, 1)).backward()
    assert 0 < x.grad[..., 1].abs().max() <= 64 * math.e / 4
