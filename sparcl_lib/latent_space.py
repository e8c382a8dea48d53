"""What is left of a class, and where: pure functions on features and labels of locations.

N locations of feature maps, D channels, C classes. Features are (N, D) float, labels (N,) integers;
255 is no class and takes no part. A class without a location has NaN where there is a number for
each class. Set labels to 255 to leave a class out, background say.
"""

import warnings
from collections.abc import Iterable
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from sparcl_lib.data.loading.dataset import StepBatch
from sparcl_lib.labels import BACKGROUND, VOID
from sparcl_lib.methods.context import nearest_grid
from sparcl_lib.models import Segmenter, label_map
from sparcl_lib.prototypes.sums import flatten_features

Floats = NDArray[np.floating[Any]]
Labels = NDArray[np.integer[Any]]
Labelled = tuple[Floats, Labels]
"""Features (N, D) and their labels (N,)."""


class Locations(NamedTuple):
    """What a network makes of every location of the feature map, on some images."""

    features: Floats
    """(N, D) the encoder's output."""
    head: Floats
    """(N, D') the head's output: what the classifier sees."""
    predictions: Labels
    """(N,) the class that the network names: an unknown object counts as background."""
    labels: Labels
    """(N,) those of the batches, the nearest pixel's, as the losses take it."""
    among_old: Labels
    """(N,) the class that the network names where it may name background and old classes alone: as
    few names as before the new ones came."""


@torch.no_grad()
def locations(
    model: Segmenter, batches: Iterable[StepBatch], num_old: int | None = None
) -> Locations:
    """Every location of these batches, 255 too; the model runs in the mode in which it is.

    num_old: old classes with background; all that the network knows if not given.
    """
    parts = []
    for images, labels in batches:
        output = model(images, maps=True)
        rows, columns = nearest_grid(labels.shape[1:], output.features.shape[2:], labels.device)
        at = (slice(None), rows.unsqueeze(1), columns)
        height, width = images.shape[2:]
        old = replace(output, low_res_logits=output.low_res_logits[:, :num_old])
        predictions, among_old = (
            torch.stack([label_map(of, n, (height, width)) for n in range(len(images))])[at]
            for of in (output, old)
        )
        latent = [flatten_features(x) for x in (output.features, output.maps[-2])]
        named = [x.flatten().long() for x in (predictions, labels[at], among_old)]
        parts.append([x.cpu().numpy() for x in (*latent, *named)])
    return Locations(*map(np.concatenate, zip(*parts, strict=True)))


def class_features(model: Segmenter, batches: Iterable[StepBatch]) -> Labelled:
    """The encoder's features (N, D) and the labels (N,) at the locations of these batches."""
    found = locations(model, batches)
    return found.features, found.labels


def class_means(features: Floats, labels: Labels, num_classes: int) -> Floats:
    """(C, D) mean feature of each class."""
    absent = np.full(features.shape[1], np.nan, features.dtype)
    chosen = [features[labels == c] for c in range(num_classes)]
    return np.stack([rows.mean(axis=0) if len(rows) else absent for rows in chosen])


def drift(before: Floats, after: Floats) -> float:
    """How far class means (C, D) have moved on average, in percent of their mean distance before.

    Classes with NaN on either side are left out. NaN for fewer than two classes.
    """
    known = np.isfinite(before).all(axis=1) & np.isfinite(after).all(axis=1)
    start, end = (means[known].astype(np.float64) for means in (before, after))
    j, k = np.triu_indices(len(start), 1)
    if not len(j):
        return float("nan")
    apart = np.linalg.norm(start[j] - start[k], axis=1).mean()
    return 100 * float(np.linalg.norm(end - start, axis=1).mean() / apart)


def fisher_ratio(features: Floats, labels: Labels) -> float:
    """Spread of the class means over the spread within classes: large where classes stand apart.

    Mean over classes of ||mean of the class - mean of all class means||^2, divided by the mean over
    classes of the mean of ||f - mean of its class||^2. All classes count alike. NaN for fewer than
    two classes; infinite where no class has any spread.
    """
    classes = _classes(labels)
    if len(classes) < 2:
        return float("nan")
    members = [features[labels == c].astype(np.float64) for c in classes]
    means = np.stack([rows.mean(axis=0) for rows in members])
    between = np.square(means - means.mean(axis=0)).sum(axis=1).mean()
    within = np.mean([rows.var(axis=0).sum() for rows in members])
    return float(between / within) if within else float("inf")


def recall(truth: Labels, predictions: Labels, num_classes: int) -> Floats:
    """(C,) percent of the locations of each class that are predicted right."""
    found = [predictions[truth == c] == c for c in range(num_classes)]
    return np.array([100 * named.mean() if len(named) else np.nan for named in found])


def linear_probe(train: Labelled, test: Labelled, at_most: int = 20_000) -> Floats:
    """(C,) recall in percent, on `test`, of a linear classifier fitted to `train`.

    train, test: features (N, D) and labels (N,). Features are standardised, and all classes count
    the same however many locations they have (logistic regression with balanced weights). A random
    choice of at_most locations, the same each time, is fitted. C is 1 + the largest label. Raises
    ValueError where train has fewer than two classes.
    """
    (features, labels), (test_features, truth) = train, test
    chosen = np.random.default_rng(0).permutation(np.flatnonzero(labels != VOID))[:at_most]
    balanced = LogisticRegression(class_weight="balanced", max_iter=100)
    probe = make_pipeline(StandardScaler(), balanced)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # close enough after 100 rounds
        probe.fit(features[chosen], labels[chosen])
    num_classes = 1 + max(_classes(labels) + _classes(truth))
    return recall(truth, probe.predict(test_features), num_classes)


def channels_used(features: Floats, labels: Labels, share: float = 0.9) -> Floats:
    """(C,) how many channels carry `share` of the mean activity of each class, strongest first.

    Negative activity counts as none. 0 for a class that is silent. C is 1 + the largest label.
    """
    known = labels != VOID
    active, ids = np.clip(features[known], 0, None).astype(np.float64), labels[known]
    if not len(ids):
        return np.zeros(0)
    means = class_means(active, ids, 1 + max(_classes(ids)))
    carried = np.cumsum(-np.sort(-means, axis=1), axis=1)  # (C, D)
    total = carried[:, -1:]
    used = 1.0 + (carried < share * total * (1 - 1e-12)).sum(axis=1)  # the last digits are chance
    return np.where(np.isnan(total[:, 0]), np.nan, np.where(total[:, 0] == 0, 0.0, used))


class PseudoLabelQuality(NamedTuple):
    """In percent; NaN where there is nothing to divide by."""

    precision: float
    """Of the guesses that name an old class: how many are right."""
    recall: float
    """Of the locations of old classes: how many get their class."""


def pseudo_label_quality(guesses: Labels, truth: Labels, num_old: int) -> PseudoLabelQuality:
    """How good the old model's guesses are where the labels of a step say background.

    guesses, truth: (N,), at those locations alone. num_old: K_old, background counted, which is no
    old class here.
    """
    known = truth != VOID
    guesses, truth = guesses[known], truth[known]
    guessed, old = guesses != BACKGROUND, (truth != BACKGROUND) & (truth < num_old)
    right = (old & (guesses == truth)).sum()
    shares = (100 * float(right / n) if n else float("nan") for n in (guessed.sum(), old.sum()))
    return PseudoLabelQuality(*shares)


def _classes(labels: Labels) -> list[int]:
    return [int(c) for c in np.unique(labels) if c != VOID]
