"""Measures of the space of features, on points whose predictions one can work out by hand."""

import numpy as np
import pytest
import torch

from sparcl_lib import latent_space
from sparcl_lib.data.loading.dataset import StepBatch
from sparcl_lib.models import NetworkSpec, build_segmenter, predict

# Two classes in the plane, two points each, and a point of none.
POINTS = np.array([[0, 0], [2, 0], [10, 1], [10, 3], [99, 99]], dtype=np.float32)
LABELS = np.array([0, 0, 1, 1, 255])


def test_locations_are_those_that_the_losses_take():
    spec = NetworkSpec("mini", output_stride=4, head="conv", head_channels=8, classes=(3,))
    model = build_segmenter(spec).eval()
    images = torch.rand(2, 3, 16, 16)
    labels = torch.arange(2 * 16 * 16).reshape(2, 16, 16) % 3
    batches = [StepBatch(images[:1], labels[:1]), StepBatch(images[1:], labels[1:])]
    found = latent_space.locations(model, batches)
    assert found.features.shape == (32, model.backbone.dim) and found.head.shape == (32, 8)
    assert found.labels.tolist() == labels[:, ::4, ::4].flatten().tolist()
    with torch.no_grad():
        output = model(images)
    predictions = output.logits.argmax(1)[:, ::4, ::4].flatten()
    assert found.predictions.tolist() == predictions.tolist()
    assert np.allclose(found.features[5], output.features[0, :, 1, 1], atol=1e-5)
    features, same = latent_space.class_features(model, batches)
    assert (features == found.features).all() and (same == found.labels).all()


def test_an_unknown_object_is_named_background():
    """By sigmoids, as the network is evaluated: the largest logit says something else."""
    spec = NetworkSpec(
        "mini", output_stride=4, head="conv", head_channels=8, classes=(3,), unknown=True
    )
    torch.manual_seed(0)
    model = build_segmenter(spec).eval()
    images = torch.rand(2, 3, 16, 16)
    batch = StepBatch(images, torch.zeros(2, 16, 16, dtype=torch.int64))
    named = predict(model, images)
    assert not torch.equal(named, model(images).logits.argmax(1))
    found = latent_space.locations(model, [batch]).predictions
    assert found.tolist() == named[:, ::4, ::4].flatten().tolist()


def test_means_are_of_each_class_and_nan_where_there_is_none():
    means = latent_space.class_means(POINTS, LABELS, 3)
    assert means[:2].tolist() == [[1, 0], [10, 2]] and np.isnan(means[2]).all()


def test_drift_is_in_percent_of_the_distance_between_classes():
    before = np.array([[0.0, 0.0], [3.0, 4.0], [np.nan, np.nan]])
    after = before + [1.0, 0.0]
    assert latent_space.drift(before, after) == pytest.approx(100 / 5)
    assert latent_space.drift(before, before) == 0
    assert np.isnan(latent_space.drift(before[:1], after[:1]))


def test_fisher_ratio_counts_classes_alike():
    # Means (1, 0) and (10, 2): each 85 / 4 from their middle, squared; the spread within is 1.
    assert latent_space.fisher_ratio(POINTS, LABELS) == pytest.approx(85 / 4)
    twice = np.concatenate([POINTS, POINTS[:2]]), np.concatenate([LABELS, LABELS[:2]])
    assert latent_space.fisher_ratio(*twice) == pytest.approx(85 / 4)
    assert np.isnan(latent_space.fisher_ratio(POINTS[:2], LABELS[:2]))
    assert latent_space.fisher_ratio(POINTS[[0, 2]], LABELS[[0, 2]]) == float("inf")


def test_recall_is_per_class():
    truth, predictions = np.array([0, 0, 1, 1, 255]), np.array([0, 1, 1, 1, 0])
    found = latent_space.recall(truth, predictions, 3)
    assert found[:2].tolist() == [50, 100] and np.isnan(found[2])


def test_a_probe_names_what_a_line_can_tell_apart():
    generator = np.random.default_rng(1)
    labels = generator.integers(0, 3, 600)
    corners = np.array([[0, 0], [5, 0], [0, 5]])
    features = corners[labels] + generator.normal(0, 0.3, (600, 2))
    labels[:50] = 255
    found = latent_space.linear_probe(
        (features[:300], labels[:300]), (features[300:], labels[300:])
    )
    assert found.shape == (3,) and found.min() > 99
    chance = generator.permutation(labels)
    assert latent_space.linear_probe((features, chance), (features, chance)).mean() < 60


def test_channels_used_are_those_that_carry_the_activity():
    features = np.array([[8, 1, 1, 0], [8, 1, 1, 0], [1, 1, 1, 1], [0, 0, 0, 0], [9, 9, 9, 9]])
    labels = np.array([0, 0, 1, 3, 255])
    used = latent_space.channels_used(features, labels, 0.9)
    assert used[[0, 1, 3]].tolist() == [2, 4, 0] and np.isnan(used[2])
    assert latent_space.channels_used(features, labels, 0.8)[0] == 1
    assert latent_space.channels_used(features, labels.astype(np.uint8), 0.8)[0] == 1
    assert latent_space.channels_used(features, np.full(5, 255, np.uint8)).shape == (0,)


def test_pseudo_labels_are_judged_on_old_classes():
    # K_old = 3; a class of the future, 4, is nothing that the old model could name.
    truth = np.array([1, 1, 2, 0, 0, 4])
    guesses = np.array([1, 2, 0, 1, 0, 2])
    quality = latent_space.pseudo_label_quality(guesses, truth, num_old=3)
    assert quality.precision == pytest.approx(100 / 4)
    assert quality.recall == pytest.approx(100 / 3)
    none = latent_space.pseudo_label_quality(np.zeros(2, int), np.zeros(2, int), 3)
    assert np.isnan(none.precision) and np.isnan(none.recall)
    void = np.append(truth, [255, 255]), np.append(guesses, [1, 2])  # no class, and no part
    assert latent_space.pseudo_label_quality(void[1], void[0], num_old=3) == quality


def test_what_a_network_names_among_old_classes_is_the_best_of_these():
    spec = NetworkSpec("mini", output_stride=4, head="conv", head_channels=8, classes=(3, 2))
    torch.manual_seed(0)
    model = build_segmenter(spec).eval()
    with torch.no_grad():
        model.classifier.steps[1].bias += 0.3  # so that new classes are named somewhere
    batch = StepBatch(torch.rand(2, 3, 16, 16), torch.zeros(2, 16, 16, dtype=torch.int64))
    found = latent_space.locations(model, [batch], num_old=3)
    with torch.no_grad():
        logits = model(batch[0]).logits[:, :, ::4, ::4]
    assert found.among_old.tolist() == logits[:, :3].argmax(1).flatten().tolist()
    assert found.predictions.max() > 2 and found.among_old.max() <= 2
    everything = latent_space.locations(model, [batch])
    assert (everything.among_old == everything.predictions).all()
