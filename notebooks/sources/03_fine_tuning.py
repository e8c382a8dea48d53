# %% [raw]
# title: Fine-tuning and catastrophic forgetting
# goals:
#   - write fine-tuning as a plain loop and check it, loss by loss, against the library
#   - measure forgetting as amount, as speed, and as what the lost pixels are called instead
#   - tell its causes apart with controls on the labels, the parts of the network and the features
#   - state the lower bound that every later method has to leave behind
# summary:
#   - Fine-tuning is cross-entropy on the labels of the new step and nothing else; a loop of about ten lines retraces the losses of the library's run.
#   - All six old classes end at 0 IoU. One update with 16 images takes more than half of what they had, and in the end more than nine in ten of their pixels are called background.
#   - No label of step 1 speaks for an old class, so the loss only ever pushes its logits down; with the labels put back, the classes recover. Backbone, head and classifier have all moved, so that restoring one of them restores nothing. The features lose more than half of what step 0 had added to an untrained network.
#   - Over three seeds fine-tuning has 0.0 mIoU on the old classes and 57.9 on the new ones, joint training 68.0 and 64.2. A smaller learning rate does not help.
# ends_with: the lower bound, and three measured reasons for it
# reading_minutes: 40
# prerequisites: ["00", "01", "02"]
# differs:
#   - The papers lower the rate of later steps (SDR on VOC 1e-3, then 1e-4); the rates of MiniVOC come from a search with the same budget for every method (benchmarks/README.md) and stay about equal.
#   - The batch norm of the backbone keeps the statistics of step 0 in later steps here. The released code of SDR updates them with momentum 3e-4; the ablation shows both.
#   - Forgetting is measured with IoU, where equation 3 of Chaudhry et al. has accuracy.
# references:
#   - "Fine-tuning as the baseline: Michieli & Zanuttigh (SDR), CVPR 2021, arXiv 2103.06342; the problem is stated in section 3."
#   - "McCloskey & Cohen, Catastrophic Interference in Connectionist Networks: The Sequential Learning Problem, Psychology of Learning and Motivation 24, 1989, pages 109 to 165; the sections on arithmetic facts learned one set after the other."
#   - "Forgetting of a class: Chaudhry et al., Riemannian Walk for Incremental Learning, ECCV 2018, equation 3."
#   - "Background shift: Cermelli et al. (MiB), Modeling the Background for Incremental Learning in Semantic Segmentation, CVPR 2020, section 3; cross-entropy is its equation 1."
#   - "Linear probes as a measure of forgetting: Davari et al., Probing Representation Forgetting in Supervised and Unsupervised Continual Learning, CVPR 2022, arXiv 2203.13381, section 1. Measured against what was learned: Hess et al., Knowledge Accumulation in Continually Learned Representations and the Issue of Feature Forgetting, TMLR 2024, arXiv 2304.00933, section 1."

# %% [markdown]
# Joint training, the end of chapter 02, sees all classes at once. Here is the opposite: take the network of step 0 and simply go on with the
# images of step 1. That this ruins what was learned has been known since McCloskey and Cohen (1989) taught a small network one set of
# arithmetic facts, then another, and found the first set gone. They called it catastrophic interference.
#
# Chapter 00 has shown that it happens. This chapter asks what exactly happens, how fast, and above all why: which part of the network
# forgets, and what in the training makes it do so? The answers say what a remedy has to do, and chapters 04 to 07 are those remedies.

# %% tags=["setup"]
from importlib.resources import files
from itertools import islice, product

import numpy as np
import pandas as pd
import torch
from sklearn.decomposition import PCA
from sklearn.feature_selection import VarianceThreshold
from sklearn.linear_model import LogisticRegression
from sklearn.neighbors import NearestCentroid
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from torch.nn import functional as F

from sparcl_lib import seed_everything
from sparcl_lib.course import (
    check, compare_guess, explore, minivoc_config, panels, run_or_load, run_or_load_all, show,
)  # fmt: skip
from sparcl_lib.losses import cross_entropy
from sparcl_lib.metrics import class_iou
from sparcl_lib.models import NetworkSpec, build_segmenter, freeze, grow, predict, train_mode
from sparcl_lib.training.evaluation import picture_arrays
from sparcl_lib.training.workspace import open_workspace
from sparcl_lib.viz import class_palette, confusion_flow, prediction_strips, row_shares, step_heat_map

# %%
config = minivoc_config("FT", task="6-4", setup="disjoint", seed=0)
workspace = open_workspace(config, progress=False)
ft = run_or_load(config, checkpoints=True)
names = workspace.task.class_names(1)  # by training index: background, old, new
NUM_OLD = 7  # old classes with background
OLD, NEW = range(1, 7), range(7, 11)
palette = class_palette(11) / 255
print("old:", ", ".join(names[c] for c in OLD))
print("new:", ", ".join(names[c] for c in NEW))

# %% [markdown]
# ## Fine-tuning, written out
#
# The student of step 1 is $M_0$ with four more output channels. Its logits $z_i(c)$ at pixel $i$ become probabilities $q_i(c)$, and the
# loss is the mean negative logarithm of the one that the label $y_i$ asks for, over the set $\mathcal I$ of pixels that count:
#
# $$q_i(c) = \frac{e^{z_i(c)}}{\sum_j e^{z_i(j)}}, \qquad \mathcal L_{ce} = -\frac{1}{|\mathcal I|} \sum_{i \in \mathcal I} \log q_i(y_i)$$
#
# (MiB, equation 1.) Nothing in it looks back: no old image, no old label, no old network.

# %%
def plain_cross_entropy(logits, target):  # (B, K, H, W), (B, H, W) -> scalar
    log_q = logits - logits.exp().sum(dim=1, keepdim=True).log()  # (B, K, H, W)
    counts = target < 255  # 255: does not count
    label = torch.where(counts, target, 0)
    picked = log_q.gather(1, label.unsqueeze(1)).squeeze(1)  # (B, H, W): log q_i(y_i)
    return -picked[counts].mean()


# %% [markdown]
# The loop around it is stochastic gradient descent with a falling learning rate. `yield` hands out the loss after every iteration and
# waits, so that we can look at the network in between.

# %%
def fine_tuning(student, batches, lr=0.058, iterations=300):
    """Train `student` on (images, labels); gives the loss of each iteration after its update."""
    learning = [p for p in student.parameters() if p.requires_grad]
    optimizer = torch.optim.SGD(learning, lr, momentum=0.9, nesterov=True, weight_decay=1e-4)
    for i, (images, labels) in enumerate(batches):
        train_mode(student, "frozen")  # the backbone's batch norm keeps the statistics of step 0
        student.head.train(next(student.head.parameters()).requires_grad)
        optimizer.param_groups[0]["lr"] = lr * (1 - i / iterations) ** 0.9
        loss = plain_cross_entropy(student(images).logits, labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        yield loss.item()


# %% [markdown]
# Is that what the library does? Two checks: the loss of one batch is the library's, and the loop, started from the same seed, walks through
# the losses that the library wrote down in the kept run.

# %% tolerance={"abs": 0.01, "spread": 0.0017, "strict": "[0-9.]+ in the kept run"}
SEED = config.seed + 1000  # the library's seed of step 1


def start():
    """The student of step 1, (B, 3, H, W) -> logits (B, 11, H, W): M_0 with four more outputs."""
    seed_everything(SEED)
    return grow(ft.model(0), len(NEW))


def step_batches():
    return workspace.training_batches(1, 300, SEED, rank=0, world=1)


images, labels = next(iter(step_batches()))
logits = start()(images).logits  # (16, 11, 64, 64)
assert torch.isclose(plain_cross_entropy(logits, labels), cross_entropy(logits, labels), atol=1e-5)

losses = list(islice(fine_tuning(start(), step_batches()), 11))
kept = ft.log(1)["total"]  # every tenth iteration of the library's run
for row, i in enumerate((0, 10)):
    print(f"iteration {i:2d}: loss {losses[i]:.2f} here, {kept[row]:.2f} in the kept run")
    assert abs(losses[i] - kept[row]) < 0.03

# %% [markdown]
# The loss falls fast. From its point of view everything is well.
#
# ## What is left
#
# In the task `6-2` two steps follow, with two classes each. Every step wipes out what the steps before it have taught.

# %%
steps = run_or_load(minivoc_config("FT", task="6-2")).matrix
figure = step_heat_map(steps, "Fine-tuning on 6-2: IoU after every step")
alt = "Every class has IoU zero one step after the step that taught it; background stays above 80"
show(figure, alt)

# %% [markdown]
# The **forgetting** of class $c$ after step $k$ is its best IoU at an earlier step minus the one it has now (Chaudhry et al., equation 3,
# who use accuracy):
#
# $$F_c = \max_{l < k} \mathrm{IoU}_c^l - \mathrm{IoU}_c^k$$

# %%
forgotten = steps.forgetting()  # name -> best IoU before the last step minus the last one
print(f"forgetting over {len(forgotten)} classes: mean {np.mean(list(forgotten.values())):.1f}")
assert len(forgotten) == 8  # six of step 0, two of step 1
assert all(steps.rows[2][name] < 1 for name in forgotten)  # all that they had

# %% [markdown]
# Choose a class. The dashed line is what joint training reaches for it (chapter 02).

# %%
joint = run_or_load(minivoc_config("Joint"), checkpoints=True)
upper = joint.matrix.rows[1]  # class name -> IoU


def draw_class(name):
    figure, axes = panels(width=5, height=2.6)
    for c, other in enumerate(names[1:], start=1):
        known = [k for k in steps.rows if other in steps.rows[k]]
        values = [steps.rows[k][other] for k in known]
        color, width, order = (palette[c], 3, 3) if other == name else ("#cccccc", 1, 2)
        axes.plot(known, values, marker="o", color=color, linewidth=width, zorder=order)
    axes.axhline(upper[name], color="#4d4d4d", linestyle="--", label=f"{name}, joint training")
    axes.set(xticks=[0, 1, 2], xlabel="step", ylabel="IoU (%)", ylim=(-3, 100))
    axes.set_title(f"Fine-tuning on 6-2: {name}, the other classes in grey")
    axes.legend(loc="upper right")
    return figure


explore(draw_class, "IoU of disc: 78 after step 0, then zero", name=list(names[1:]))

# %% [markdown]
# ## How fast
#
# Back to `6-4`. Between the two ends lie 300 iterations of 16 images. We train the first 20 of them again, live, and stop on the way to ask
# for the mIoU of the old classes on 96 of the 400 test images.
#
# **Predict before you run:** after how many iterations of step 1 have the six old classes lost half of their mIoU?

# %% tags=["predict"]
my_guess = None  # a number from 1 to 300

# %%
tests = list(islice(workspace.evaluation_batches(1), 6))  # 6 batches of 16 images and labels
WATCHED = (1, 2, 3, 5, 7, 10, 15, 20)


def test_confusion(student):
    """(11, 11) pixels of the test images, rows truth, columns prediction."""
    student.eval()
    total = torch.zeros(11 * 11, dtype=torch.int64)
    for images, labels in tests:
        counts = labels < 255
        pairs = 11 * labels[counts] + predict(student, images)[counts]
        total += torch.bincount(pairs, minlength=11 * 11)
    return total.reshape(11, 11).numpy()


at_start = test_confusion(start())


def watch(student, batches, lr=0.058):
    """Iteration -> confusion matrix, over the first 20 iterations of step 1."""
    history = {0: at_start}
    for iteration, _ in enumerate(islice(fine_tuning(student, batches, lr), 20), start=1):
        if iteration in WATCHED:
            history[iteration] = test_confusion(student)
    return history


# %%
def old_miou(history):
    """Iteration -> mIoU of the old classes without background."""
    return {i: class_iou(confusion)[list(OLD)].mean() for i, confusion in history.items()}


live = watch(start(), step_batches())
curve = old_miou(live)
half = min(i for i, value in curve.items() if value < curve[0] / 2)
compare_guess("iterations until half is lost", my_guess, half)
assert half <= 2 and max(curve[i] for i in (10, 15, 20)) < 2

# %%
def draw_curves(curves, title):
    figure, axes = panels(width=5, height=2.5)
    for label, (values, color) in curves.items():
        axes.plot(list(values), list(values.values()), marker="o", color=color, label=label)
    axes.set(xlabel="iteration of step 1", ylabel="old mIoU (%)", ylim=(-2, 70))
    axes.set(xticks=range(0, 21, 5), title=title)
    axes.legend()
    return figure


figure = draw_curves({"fine-tuning": (curve, "#c44e00")}, "The first 20 of 300 iterations")
show(figure, "Old mIoU falls from 58 to about 12 after one iteration and is zero from iteration 7 on")

# %% [markdown]
# One update, with one batch, takes most of it. "Forgetting" sounds like something that fades; this is an accident in the first second, and
# the other 299 iterations only keep it so. (At iteration 0 the old classes stand below the 74 that they had after step 0, because the test
# images now show new objects too, and $M_0$ calls those something old.)
#
# ## Where the lost pixels go
#
# The row of a class in the confusion matrix, divided by its sum, says what its pixels are called. Below, each class on the left has the
# same height, and a ribbon is as thick as the share of its pixels that takes this way. Now of the finished run, over all 400 test images.

# %%
def draw_flow(after):
    step = int(after[-1])
    known = names[: workspace.task.num_classes(step)]
    return confusion_flow(ft.confusion(step), known, OLD, f"Pixels of the old classes after {after}")


explore(
    draw_flow, "After step 1 nearly all pixels of the six old classes flow into background",
    after=["step 1", "step 0"],
)

# %%
rows = 100 * row_shares(ft.confusion(1))  # (11, 11), each row sums to 100
shown = (0, *NEW)
table = pd.DataFrame(rows[1:NUM_OLD, shown], names[1:NUM_OLD], [names[c] for c in shown])
print(table.round(0).astype(int))
assert table["background"].min() > 75 and 90 < table["background"].mean() < 98
assert rows[1:NUM_OLD, 1:NUM_OLD].max() < 1  # hardly a pixel keeps an old name

# %% [markdown]
# 94 of 100 pixels become background, and most of the others a new class; an old name is never given again. The triangle, the one with the
# least background, goes to bar and star.
#
# Why background? Its pixels are called so in the labels of step 1: the old objects are still in the images, but nobody names them. That is
# the **background shift** of chapter 01 (MiB, section 3). Is it the cause of the forgetting, or does it only choose the new name? That
# can be tested.
#
# ## Reason 1: no label speaks for an old class
#
# The derivative of the loss by a logit is
#
# $$\frac{\partial \mathcal L_{ce}}{\partial z_i(c)} = \frac{q_i(c) - [y_i = c]}{|\mathcal I|}$$
#
# where $[y_i = c]$ is 1 if the label is $c$ and 0 otherwise. In step 1 no label is an old class, so for old $c$ the derivative is positive
# at every pixel that counts: the loss asks every old logit to fall, everywhere, and never asks one to rise. The force of this push is
# $q_i(c)$, so it is strongest where the network is surest that it sees an old class.
#
# To look at those we need labels that name them. The sequential setup has them, on the same images; with these pixels set to background its
# batches are exactly ours.

# %%
named = open_workspace(minivoc_config("FT", setup="sequential"), progress=False)


def batches_with(old_pixels):
    """Batches of step 1 whose pixels of old classes are "background", "ignored" or "labelled"."""
    for images, labels in named.training_batches(1, 300, SEED, rank=0, world=1):
        hidden = (labels >= 1) & (labels < NUM_OLD)  # (B, H, W)
        if old_pixels != "labelled":
            labels = labels.masked_fill(hidden, {"background": 0, "ignored": 255}[old_pixels])
        yield images, labels


seed_everything(SEED)
ours = next(batches_with("background"))
seed_everything(SEED)
theirs = next(iter(step_batches()))
assert torch.equal(ours[0], theirs.images) and torch.equal(ours[1], theirs.labels)

# %%
student, pixels, pushes = start(), [], []
for images, labels in islice(batches_with("labelled"), 8):
    hidden = (labels >= 1) & (labels < NUM_OLD)
    logits = student(images).logits.detach().requires_grad_()  # (16, 11, 64, 64)
    plain_cross_entropy(logits, labels.masked_fill(hidden, 0)).backward()
    push = logits.grad[:, 1:NUM_OLD]  # (16, 6, 64, 64): on the logits of the old classes
    assert (push >= 0).all()
    kinds = (hidden, labels >= NUM_OLD, labels == 0)
    pixels.append([kind.float().mean().item() for kind in kinds])
    pushes.append([(push.sum(dim=1)[kind].sum() / push.sum()).item() for kind in kinds])
table = pd.DataFrame({"pixels": np.mean(pixels, axis=0), "push": np.mean(pushes, axis=0)})
table.index = ["hidden old objects", "new objects", "true background"]
print((100 * table).round(0).astype(int))
assert table["push"].iloc[0] > 3 * table["pixels"].iloc[0]

# %% [markdown]
# Eight of 100 pixels belong to hidden old objects, and about 40 of 100 parts of the push come from them. As much comes from the new
# objects, which $M_0$ takes for the old ones that they resemble. The wide true background adds little: there $q_i(c)$ is small already.
#
# Now the controls. Same images, same start, same 20 iterations; only the labels of the old pixels change. *Ignored*: the hidden objects do
# not count, so nothing says that they are background. *Labelled*: they keep their names, which is fine-tuning in the sequential setup.

# %%
controls = {"background": live}
for kind in ("ignored", "labelled"):
    controls[kind] = watch(start(), batches_with(kind))
colors = {"background": "#c44e00", "ignored": "#8c6d00", "labelled": "#00855f"}
curves = {
    f"old pixels {kind}": (old_miou(history), colors[kind]) for kind, history in controls.items()
}
figure = draw_curves(curves, "Same images, same network, other labels")
show(figure, "Old mIoU falls to zero with labels background or ignored, and recovers to about 40 with names")
end = {kind: old_miou(history)[20] for kind, history in controls.items()}
assert end["background"] < 2 and end["ignored"] < 2 and end["labelled"] > 20

# %%
def draw_shares():
    figure, axes = panels(width=6, height=1.9)
    inks = ("#00855f", "#9ad0b8", "#0072b2", "#1c1c20")
    parts = ("itself", "another old class", "a new class", "background")
    for place, kind in enumerate(reversed(controls)):
        rows = row_shares(controls[kind][20])[1:NUM_OLD]  # (6, 11)
        own, old = np.diag(rows[:, 1:]).mean(), rows[:, 1:NUM_OLD].sum(axis=1).mean()
        values = (own, old - own, rows[:, NUM_OLD:].sum(axis=1).mean(), rows[:, 0].mean())
        lefts = np.cumsum((0, *values[:-1]))
        for value, left, ink, part in zip(values, lefts, inks, parts):
            axes.barh(place, 100 * value, left=100 * left, color=ink, label=None if place else part)
    axes.set_yticks(range(3), list(reversed(controls)))
    axes.set(xlabel="what pixels of old classes are called after 20 iterations (%)", xlim=(0, 100))
    figure.legend(loc="outside upper center", ncols=4)
    return figure


alt = "Labelled background, old pixels are called so; ignored, most become a new class; named, half stay"
show(draw_shares(), alt)
called_new = {k: row_shares(h[20])[1:NUM_OLD, NUM_OLD:].sum(axis=1).mean() for k, h in controls.items()}
assert called_new["background"] < 0.2 and called_new["ignored"] > 0.3

# %% [markdown]
# So the network does not need the background shift to forget. Without it the old classes are gone just as well, a few iterations later,
# pushed down by all the pixels that are something else. What the shift decides is where they go: into background when the labels say so, to
# a large part into new classes when they say nothing. With their labels back, the old classes stumble in the first updates and recover:
# what had been missing was a reason to keep them.
#
# The published numbers say the same at full scale: fine-tuning on VOC2012 with ResNet-101, mIoU over all classes, from the SDR authors'
# slides. *Sequential* is the setup in which old classes are labelled.

# %%
published = pd.read_csv(files("sparcl_lib") / "published" / "results.csv")
rows = published.query("dataset == 'voc' and method == 'FT' and task in ['19-1', '15-5', '15-1']")
table = rows.pivot(index="task", columns="setup", values="miou_all")
print(table[["sequential", "overlapped", "disjoint"]].loc[["19-1", "15-5", "15-1"]])
assert (table["sequential"] - table[["disjoint", "overlapped"]].max(axis=1)).min() > 20

# %% [markdown]
# ## Reason 2: every part has moved
#
# Which part of the network gives the wrong answer? The first suspect is the classifier: a row of weights and a bias for each class.

# %%
before, after = ft.model(0), ft.model(1)


def rows_and_biases(model):
    """The classifier's weights (K, 64) and biases (K,), one row for each class."""
    parts = model.classifier.steps
    return torch.cat([p.weight.flatten(1) for p in parts]), torch.cat([p.bias for p in parts])


(w0, b0), (w1, b1) = rows_and_biases(before), rows_and_biases(after)
turn = F.cosine_similarity(w0, w1[:NUM_OLD])  # (7,)
length = w1[:NUM_OLD].norm(dim=1) / w0.norm(dim=1)  # (7,)
print(f"cosine of each old row before and after: {turn.min():.2f} to {turn.max():.2f}")
print(f"its length, as a factor: {length.min():.2f} to {length.max():.2f}")
shift = b1[:NUM_OLD] - b0  # (7,)
print(f"biases: background {shift[0]:+.2f}, old classes {shift[1:].mean():+.2f}")
assert turn.min() > 0.9 and 0.9 < length.min() and length.max() < 1.1
assert shift[0] > 0.05 and shift[1:].max() < -0.05

# %%
def draw_classifier():
    figure, (left, right) = panels(columns=2, width=7.6, height=2.4)
    for axes, old, new in ((left, w0.norm(dim=1), w1.norm(dim=1)), (right, b0, b1)):
        axes.bar(np.arange(7) - 0.2, old, 0.4, color="#aaaaaa", label="after step 0")
        axes.bar(np.arange(11) + 0.2, new, 0.4, color="#c44e00", label="after step 1")
        axes.set_xticks(range(11), names, rotation=40, ha="right")
    left.set_title("length of the weights")
    right.set_title("bias")
    left.legend()
    return figure


show(draw_classifier(), "Weights are about as long after step 1 as before; old biases are lower by 0.1")

# %% [markdown]
# The rows have turned a little, the biases moved a little: down for the old classes, up for background. That looks harmless. The logits do
# not.

# %%
@torch.no_grad()
def mean_logits(model):
    """(K, 11): mean logit of every class (row) over the pixels of each true class (column)."""
    logits = torch.cat([model(images).logits for images, _ in tests]).movedim(1, -1)
    labels = torch.cat([labels for _, labels in tests])  # (96, 64, 64)
    return torch.stack([logits[labels == c].mean(dim=0) for c in range(11)], dim=1)


z0, z1 = mean_logits(before), mean_logits(after)  # (7, 11), (11, 11)


# %%
def draw_logits():
    figure, axes = panels(columns=2, width=7.6, height=2.8, sharey=True)
    for ax, z, title in zip(axes, (z0, z1), ("after step 0", "after step 1")):
        bars = [(z.diagonal()[1:NUM_OLD], "#00855f", "its own class")]
        bars.append((z[0, 1:NUM_OLD], "#1c1c20", "background"))
        if len(z) > NUM_OLD:
            bars.append((z[NUM_OLD:, 1:NUM_OLD].amax(dim=0), "#0072b2", "largest of the new classes"))
        for place, (values, color, label) in enumerate(bars):
            ax.bar(np.arange(6) + 0.27 * (place - 1), values, 0.27, color=color, label=label)
        ax.set_xticks(range(6), names[1:NUM_OLD], rotation=40, ha="right")
        ax.set_title(title)
    axes[0].set_ylabel("mean logit")
    figure.legend(*axes[1].get_legend_handles_labels(), loc="outside lower center", ncols=3)
    return figure


show(draw_logits(), "A class has the highest logit at its pixels after step 0, the lowest after step 1")
own, background = z1.diagonal()[1:NUM_OLD], z1[0, 1:NUM_OLD]
assert (z0.diagonal()[1:NUM_OLD] > z0[0, 1:NUM_OLD] + 1).all() and (background > own + 5).all()
assert (background > z1[NUM_OLD:, 1:NUM_OLD].amax(dim=0)).all()

# %% [markdown]
# A classifier that has turned a little gives the opposite answer, so its input must have changed too. The network is a chain of three
# parts: backbone, head, classifier. Each of them can be taken from the network after step 0 or after step 1, which makes eight networks. We
# compare them on the seven old outputs alone, so that no new class can win a pixel, and leave out the pixels of new objects.

# %%
@torch.no_grad()
def swapped(backbone, head, classifier):
    """mIoU of the old classes of a network whose parts come from these three."""
    total = torch.zeros(NUM_OLD**2, dtype=torch.int64)
    for images, labels in tests:
        logits = classifier.classifier.steps[0](head.head(backbone.backbone(images)))
        logits = F.interpolate(logits, labels.shape[1:], mode="bilinear", align_corners=False)
        counts = labels < NUM_OLD
        pairs = NUM_OLD * labels[counts] + logits.argmax(dim=1)[counts]  # logits (16, 7, 64, 64)
        total += torch.bincount(pairs, minlength=NUM_OLD**2)
    return class_iou(total.reshape(NUM_OLD, NUM_OLD).numpy())[1:].mean()


parts = {"0": before, "1": after}
chain = {key: swapped(*(parts[part] for part in key)) for key in product(parts, repeat=3)}

# %%
def draw_chain():
    figure, axes = panels(width=5, height=2.6)
    for place, (key, value) in enumerate(chain.items()):
        axes.barh(place, value, color="#aaaaaa" if key == ("0",) * 3 else "#c44e00")
        axes.text(value + 1, place, f"{value:.0f}", va="center", fontsize=9)
    axes.set_yticks(range(8), ["  ".join(key) for key in chain], family="monospace")
    axes.set(xlabel="mIoU of the old classes (%)", xlim=(0, 100))
    axes.set_title("backbone, head, classifier of step 0 or 1")
    axes.invert_yaxis()
    return figure


alt = "Parts of step 0: above 70; the classifier of step 1 costs half, its head or backbone most of it"
show(draw_chain(), alt)
one_restored = [chain[key] for key in chain if key.count("0") == 1]
assert max(one_restored) < 2 and chain["1", "1", "1"] < 2
assert chain["0", "0", "0"] > chain["0", "0", "1"] + 25
assert max(chain["1", "0", "0"], chain["0", "1", "0"]) < 25

# %% [markdown]
# Read it in two directions. From the top: one part of step 1 in the network of step 0 is enough to do harm. Even the small turn of the
# classifier costs more than 30 points, head or backbone nearly everything. From the bottom: one part of step 0 put back into the network of
# step 1 brings back nothing. The three have moved together, each fitting the others, and none of them alone holds the memory. A remedy for
# the classifier only, such as rescaling its weights, comes too late here.
#
# ## Reason 3: the features move
#
# $f_i$ is what the backbone says about location $i$. How far has it gone? As a yardstick: how similar are two different locations of the
# same class before step 1?

# %% tolerance={"abs": 0.01, "spread": 1e-06}
def locations(model, batches):
    """Features (N, 64) and labels (N,) of all locations of background and old classes."""
    features = torch.cat([model.backbone(images) for images, _ in batches])  # (n, 64, 16, 16)
    labels = torch.cat([labels[:, ::4, ::4] for _, labels in batches])  # (n, 16, 16): y*
    known = labels < NUM_OLD
    return features.movedim(1, -1)[known], labels[known]


f0, y = locations(before, tests)
f1, _ = locations(after, tests)
rng = np.random.default_rng(0)
rows = []
for c in OLD:
    a, b = f0[y == c], f1[y == c]  # (n_c, 64) each, the same locations
    same = F.cosine_similarity(a, b).mean().item()
    other = F.cosine_similarity(a, a[rng.permutation(len(a))]).mean().item()
    moved = ((a - b).norm(dim=1).mean() / a.norm(dim=1).mean()).item()
    rows.append({"to itself after": same, "to another before": other, "way / length": moved})
drift = pd.DataFrame(rows, index=names[1:NUM_OLD])
print(drift.round(2))
assert drift["to itself after"].max() < 0.75 and drift["way / length"].min() > 0.8
assert (drift["to itself after"] - drift["to another before"]).abs().mean() < 0.15

# %% [markdown]
# The first two columns are cosine similarities, the third is $\lVert f_i' - f_i \rVert$ divided by $\lVert f_i \rVert$, with $f_i'$ the
# feature after step 1. A location resembles its former self hardly more than it resembled any other location of its class, and it
# has moved by about its own length.
#
# A map of it: the plane of the two main directions (PCA) of the features before, with the features after in the same plane.

# %%
def balanced(labels, count):
    """Indices of at most `count` locations of each class, drawn with a fixed seed."""
    rng = np.random.default_rng(0)
    members = (np.flatnonzero(labels == c) for c in range(NUM_OLD))
    return np.concatenate([rng.permutation(indices)[:count] for indices in members])


some = balanced(y.numpy(), 50)
pca = PCA(2).fit(f0[some].numpy())
planes = [pca.transform(f[some].numpy()) for f in (f0, f1)]  # (N, 2) each
held = [xy.var(axis=0).sum() / f[some].numpy().var(axis=0).sum() for xy, f in zip(planes, (f0, f1))]
print(f"share of the variance in this plane: {100 * held[0]:.0f} % before, {100 * held[1]:.0f} % after")

# %%
def draw_clouds():
    figure, axes = panels(columns=2, width=7.4, height=3.6, sharex=True, sharey=True)
    for ax, xy, title in zip(axes, planes, ("after step 0", "after step 1")):
        for c in range(NUM_OLD):
            points = xy[y[some] == c].T  # (2, n)
            ax.scatter(*points, s=8, color=palette[c], alpha=0.6, linewidth=0, label=names[c])
        ax.set_title(title)
    for c in range(NUM_OLD):
        tail, tip = (xy[y[some] == c].mean(axis=0) for xy in planes)
        style = {"arrowstyle": "->", "color": "white", "lw": 4.5, "shrinkA": 0, "shrinkB": 0}
        axes[1].annotate("", tip, tail, arrowprops=style)
        axes[1].annotate("", tip, tail, arrowprops={**style, "color": palette[c], "lw": 2})
    handles, labels = axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=4, markerscale=2)
    return figure


show(draw_clouds(), "Clouds of the six classes fan out after step 0 and lie closer together after step 1")
spread = [np.var([xy[y[some] == c].mean(axis=0) for c in OLD], axis=0).sum() for xy in planes]
assert spread[1] < 0.7 * spread[0] and held[1] < 0.8 * held[0]

# %% [markdown]
# Arrows show the way of the class means: in this plane they have come closer, and the plane itself holds less of the features, which have
# turned to other directions. But two dimensions of 64 cannot say whether the classes have been mixed or only carried elsewhere. The
# question has an exact form: can the old classes still be **read** from the new features, by somebody who has labels? A *linear probe*
# (logistic regression on $f_i$) and a *nearest class mean* are trained on 320 images of step 0 and tested on our 96 images. It is a
# diagnosis and no method: in step 1 those images are gone.
#
# A probe also reads colours and edges that no training put there. So the scale needs its floor: the same probe on networks that were never
# trained.

# %%
probe_batches = list(islice(workspace.training_batches(0, 20, 0, rank=0, world=1), 20))


readers = {
    "linear probe": make_pipeline(StandardScaler(), LogisticRegression(max_iter=500)),
    "nearest class mean": make_pipeline(VarianceThreshold(), NearestCentroid()),
}


def probe(model):
    """Reader -> locations of old classes that it reads rightly, in percent, mean over classes."""
    features, labels = (x.numpy() for x in locations(model, probe_batches))
    asked, truth = (x.numpy() for x in locations(model, tests))
    some = balanced(labels, 500)
    result = {}
    for name, reader in readers.items():
        right = reader.fit(features[some], labels[some]).predict(asked) == truth
        result[name] = 100 * np.mean([right[truth == c].mean() for c in OLD])
    return result


def untrained(seed):
    seed_everything(seed)
    return freeze(build_segmenter(NetworkSpec("mini", (NUM_OLD,), output_stride=4, head="conv", head_channels=64)))


# %% tolerance={"abs": 1, "spread": 0.28}
rows = {"after step 0": probe(before), "after step 1": probe(after)}
rows["never trained"] = pd.DataFrame([probe(untrained(seed)) for seed in range(3)]).mean()
readable = pd.DataFrame(rows).T
print(readable.round(0).astype(int))
top, now, floor = readable["linear probe"]
lost = (top - now) / (top - floor)
print(f"of what training had added to the floor, the linear probe has lost {100 * lost:.0f} %")
assert top > now + 8 and now > floor + 2 and 0.4 < lost < 0.9
assert readable["nearest class mean"].iloc[1] < readable["nearest class mean"].iloc[2] + 3

# %% [markdown]
# 69 of 100 locations against 80: so most of it is still there? With this yardstick, Davari et al. found that networks which forget badly at
# their outputs often lose little in their features. The floor changes the picture: 60 of 100 can be read from a network that has learned
# nothing, because colour and texture tell much already. Step 0 had added 20 points to that, and step 1 has taken more than half of them.
# (Hess et al. argue for this yardstick: little in absolute terms can be nearly all of what was learned.) The nearest class mean, which
# cannot weigh channels as the probe can, reads no more from the new features than from untrained ones.
#
# ## Ablation: frozen parts, smaller steps, other statistics
#
# Would it help to keep the features where they are? Freeze backbone and head, and let only the classifier learn. Or to take smaller steps?
# A tenth of the rate. Both live, against the curve from above.

# %% tags=["ablation"]
frozen = start()
frozen.backbone.requires_grad_(False)
frozen.head.requires_grad_(False)
only_classifier = old_miou(watch(frozen, step_batches()))
gentle = old_miou(watch(start(), step_batches(), lr=0.005))
curves = {
    "everything learns, rate 0.058": (curve, "#c44e00"),
    "only the classifier learns": (only_classifier, "#6a2fb5"),
    "everything learns, rate 0.005": (gentle, "#0b8a99"),
}
alt = "With frozen features or a tenth of the rate old mIoU falls to zero too, by iteration 15 to 20"
show(draw_curves(curves, "Later, but not better"), alt)
halves = [min(i for i in c if c[i] < c[0] / 2) for c in (curve, gentle, only_classifier)]
for label, half in zip(("rate 0.058", "rate 0.005", "classifier only"), halves):
    print(f"{label}: half is lost by iteration {half}")
assert only_classifier[3] > 40 and only_classifier[15] < 2
assert gentle[3] > 35 and gentle[20] < 3

# %% [markdown]
# Frozen features delay the end and do not prevent it: a classifier that is told "not this class" at every pixel learns just that. So the
# three reasons are of different rank. The labels are the root. That features and all other parts can move makes the damage sudden, and hard
# to undo.
#
# Now to the end of step 1, with other rates and another hidden setting. The batch norm of the backbone keeps the statistics of step 0
# (`frozen`); it could use those of the batch (`train`), or follow them with a tiny momentum (`slow`, 3e-4, as the released code of SDR
# does). One seed each: only large differences say anything.

# %% tags=["ablation"]
variants = {
    "rate 0.058, statistics frozen": "optim.lr=[0.05,0.058]",
    "rate 0.005": "optim.lr=[0.05,0.005]",
    "rate 0.001": "optim.lr=[0.05,0.001]",
    "statistics train": "model.batch_norm=train",
    "statistics slow": "model.batch_norm=slow",
}
kept = run_or_load_all({name: minivoc_config("FT", change) for name, change in variants.items()})
table = pd.DataFrame(
    {
        name: {"old": run.matrix.miou_old_no_bg(1), "new": run.matrix.miou_new(1)}
        for name, run in kept.items()
    }
).T
print(table.round(1))
print(f"slow: averages still {100 * (1 - 3e-4) ** 300:.0f} % those of step 0 after 300 iterations")
assert table["old"].max() < 2 and table["new"].iloc[4] < table["new"].iloc[0] - 15
assert table["new"].iloc[0] > table["new"].iloc[1] + 15 > table["new"].iloc[2] + 30

# %% [markdown]
# A tenth of the rate delays the fall by a few iterations, and the new classes pay for it: 58, 32, and at rate 0.001 next to nothing. That
# last network has lost the old classes without having learned the new ones. None of the three keeps anything, because the push of reason 1 has
# the same sign at every rate.
#
# Batch norm makes no difference to the old classes either; at zero there is none to see. `slow` costs the new ones 27 points: it trains
# with the statistics of the batch and tests with running averages that are still 91 % those of step 0. The three points between `train` and
# `frozen` are nothing that one seed can decide. Where a method keeps something, the policy may matter: MiB on real photographs, in
# [docs/real_voc_subset.md](../docs/real_voc_subset.md), lost 0.7 points with `train`, and about seven in an earlier trial with weaker
# settings.
#
# ## The lower bound
#
# Three seeds, from [benchmarks](../benchmarks/README.md): every seed has its own step 0. "Old" without background.

# %%
seeds = pd.read_csv("../benchmarks/studies/minivoc_seeds/results.csv")
last = seeds[(seeds["step"] == 1) & seeds["method"].isin(["FT", "Joint"])]
measures = ["miou_old_no_bg", "miou_new"]
print(last.groupby("method")[measures].agg(["mean", "std"]).round(1))
by_seed = last.pivot(index="seed", columns="method", values=measures)
gap = by_seed.xs("Joint", level=1, axis=1) - by_seed.xs("FT", level=1, axis=1)  # (3 seeds, 2)
assert by_seed["miou_old_no_bg"]["FT"].max() < 5
assert gap["miou_old_no_bg"].min() > 60 and gap["miou_new"].min() > 5

# %% [markdown]
# That is the lower bound: 0.0 on the old classes, on every seed, where joint training has 68.0. Nor has the price bought anything: on the new
# classes, the only ones it was asked to learn, fine-tuning stays behind joint training by six points, on every seed.
#
# What the reasons ask of a method:
#
# | reason | what would help | chapter |
# |---|---|---|
# | no label speaks for an old class | let the old network speak for it, and do not read "background" as "nothing old" | 04 |
# | every part has moved | hold the network as a whole to its old answers, not the classifier alone | 04 |
# | the features move | hold the features of a class where they were, and keep classes apart | 05 to 07 |
#
# ## Look at it
#
# Fine-tuning beside joint training. The buttons choose the step; joint training has only one. In the first picture the network after step 0
# finds the cross and calls the star a square; after step 1 it finds the star, and the cross has become ground.

# %%
batches = workspace.picture_batches()
ends = {"step 0": picture_arrays(before, batches), "step 1": picture_arrays(after, batches)}
best = picture_arrays(joint.model(0), batches)["prediction"]


def draw_strips(after, picture):
    row = slice(picture, picture + 1)
    shown = ends[after]
    predictions = {f"FT, {after}": shown["prediction"][row], "Joint": best[row]}
    return prediction_strips(
        shown["images"][row], shown["truth"][row], predictions, names, [names[c] for c in NEW]
    )


explore(
    draw_strips, "A test image, its truth, fine-tuning without the old objects, joint training with all",
    after=["step 1", "step 0"], picture=list(range(6)),
)

# %% [markdown]
# ## Exercises
#
# ### 3.1 Where did they go?
#
# The flows in four numbers. For each old class: which shares of its pixels are called itself, background, another old class, a new class?

# %% tags=["exercise"]
def flows_of_old(confusion, num_old):
    """confusion: (K, K) counts, rows truth, background first; num_old: old classes with background.

    Returns (num_old - 1, 4): a row for each old class without background, shares from 0 to 1 of its
    pixels called [itself, background, another old class, a new class]; zeros for a class without pixels.
    """
    # SOLUTION
    flows = np.zeros((num_old - 1, 4))
    for c in range(1, num_old):
        row = confusion[c] / max(confusion[c].sum(), 1)
        flows[c - 1] = row[c], row[0], row[1:num_old].sum() - row[c], row[num_old:].sum()
    return flows
    # END

# %% tags=["check"]
counts = np.array(
    [[70, 1, 2, 3, 4], [12, 4, 2, 1, 1], [5, 0, 0, 3, 2], [9, 2, 4, 4, 1], [0, 0, 0, 0, 9]]
)
empty = np.array([[5, 1, 0], [0, 0, 0], [2, 3, 4]])
check(
    "3.1", flows_of_old,
    [((counts, 3), np.array([[0.2, 0.6, 0.1, 0.1], [0, 0.5, 0, 0.5]])),
     ((counts, 4), np.array([[4, 12, 3, 1], [0, 10, 6, 4], [4, 9, 6, 1]]) / 20),
     ((empty, 2), np.zeros((1, 4)))],
    hint="divide each row by its own sum (rows are the truth); background is no old class, and a row "
    "without pixels stays zero",
)

# %% [markdown]
# ### 3.2 Which way did the features turn?
#
# The drift of a class: one minus the cosine similarity of the features before and after, location by location, then averaged over the
# locations of the class.

# %% tags=["exercise"]
def cosine_drift(before, after, labels, num_classes):
    """before, after: (B, D, h, w) features; labels: (B, h, w), 255 does not count.

    Returns (num_classes,): mean over the locations of each class of 1 - cosine; NaN without location.
    """
    # SOLUTION
    drift = 1 - F.cosine_similarity(before, after, dim=1)  # (B, h, w)
    return torch.stack([drift[labels == c].mean() for c in range(num_classes)])
    # END

# %% tags=["check"]
first = torch.tensor([[[[1.0, 0.0]], [[0.0, 1.0]]], [[[1.0, 3.0]], [[1.0, 4.0]]]])  # (2, 2, 1, 2)
then = torch.tensor([[[[0.0, 0.0]], [[1.0, 2.0]]], [[[-1.0, 4.0]], [[-1.0, 3.0]]]])
where = torch.tensor([[[0, 1]], [[1, 255]]])  # (2, 1, 2)
check(
    "3.2", cosine_drift,
    [((first, then, where, 3), torch.tensor([1.0, 1.0, float("nan")])),
     ((first, 5 * first, where, 2), torch.zeros(2))],
    hint="the channels are dimension 1; first the cosine of each location, then the mean; "
    "a feature that is only longer has not turned",
)

# %% [markdown]
# ### 3.3 Nearest class mean
#
# The simplest reader of features: one mean per class, and the nearest mean wins, by Euclidean distance. It is the decision that the
# prototypes of chapter 05 suggest.

# %% tags=["exercise"]
def nearest_class_mean(features, labels, queries, num_classes):
    """features: (N, D); labels: (N,), 255 does not count; queries: (M, D).

    Returns (M,) int64 classes. A class without features is never the answer.
    """
    # SOLUTION
    present = [c for c in range(num_classes) if (labels == c).any()]
    means = torch.stack([features[labels == c].mean(dim=0) for c in present])  # (P, D)
    return torch.tensor(present)[torch.cdist(queries, means).argmin(dim=1)]
    # END

# %% tags=["check"]
points = torch.tensor([[0.0, 10.0], [0.0, 14.0], [2.0, 0.0], [6.0, 0.0], [4.0, 0.3], [1.0, 9.0]])
asked = torch.tensor([[0.0, 9.0], [2.0, 3.0], [3.6, 6.5], [0.5, 0.1]])
check(
    "3.3", nearest_class_mean,
    [((points, torch.tensor([0, 0, 2, 2, 2, 255]), asked, 4), torch.tensor([0, 2, 2, 2])),
     ((points, torch.tensor([1, 1, 2, 2, 2, 255]), asked, 3), torch.tensor([1, 2, 2, 2]))],
    hint="distances to the means, not to single features, not angles; 255 is no class, and a class "
    "without features has no mean (zeros would win near the origin)",
)

# %% [markdown]
# ### 3.4 The push, by hand
#
# Reason 1 rests on the derivative of cross-entropy by the logits. Write it without autograd, with ignored pixels.

# %% tags=["exercise"]
def push_on_logits(logits, target):
    """logits: (B, K, H, W); target: (B, H, W) int64, 255 does not count.

    Returns (B, K, H, W): the derivative of the mean cross-entropy by every logit.
    """
    # SOLUTION
    counts = (target < 255).unsqueeze(1)  # (B, 1, H, W)
    q = logits.softmax(dim=1)
    asked = F.one_hot(target.masked_fill(target == 255, 0), logits.shape[1]).movedim(-1, 1)
    return (q - asked) * counts / counts.sum()
    # END

# %% tags=["check"]
generator = torch.Generator().manual_seed(3)
z = (3 * torch.randn(2, 4, 3, 5, generator=generator)).requires_grad_()
t = torch.randint(0, 4, (2, 3, 5), generator=generator)
t[:, 0] = 255
F.cross_entropy(z, t, ignore_index=255).backward()
check(
    "3.4", push_on_logits, [((z.detach(), t), z.grad), ((z.detach()[:1], t[:1]), 2 * z.grad[:1])],
    hint="(q - [y = c]) divided by the number of pixels that count, and exactly zero where the label is 255",
    tolerance=1e-5,
)

# %% [markdown]
# ## Quiz
#
# **1. With ignored labels nothing tells the network that hidden old objects are background. Why are the old classes lost all the same?**
#
# <details><summary>Because the batch norm of the backbone forgets their statistics</summary>It does not: in these runs it keeps the statistics of step 0. The ablation shows that the other policies end at zero as well.</details>
# <details><summary>Because all other pixels push their logits down and none pushes them up</summary>Right. The derivative by an old logit is q, never negative, at every pixel that counts: on new objects most of all, since the old network takes them for old ones.</details>
# <details><summary>Because 20 iterations are too few to learn anything</summary>They are enough to lose the old classes, and enough to keep them when their labels are there: the same images, with names, end at about 40.</details>
#
# **2. After step 1 you copy the old classifier back, weights and biases, and use the old outputs only. What do the old classes have?**
#
# <details><summary>Nearly all of what they had, because a classifier decides what a feature means</summary>It does, for the features it was trained with. Head and backbone now give it other inputs, and the result is zero.</details>
# <details><summary>Nothing</summary>Right: the bar "1 1 0" in the figure. It takes the old features and the old head to get the old answers.</details>
#
# **3. A linear probe reads 67 of 100 old locations from the features after step 1; by chance it would be 14. Do they remember step 0?**
#
# <details><summary>Yes, 67 is far above chance</summary>Chance is the wrong floor. The probe learns from labelled features and reads 60 of 100 even from a network that has never been trained.</details>
# <details><summary>A part: compare with an untrained network and with step 0</summary>Right. On the scale from 60 (never trained) to 80 (after step 0) about a third is left.</details>
#
# **4. Would a learning rate ten times smaller in step 1 save the old classes?**
#
# <details><summary>Yes, small steps stay near the old network</summary>For the first few iterations. Every step still leads away from the old classes, so that 300 of them arrive at zero all the same, with new classes half as good.</details>
# <details><summary>No, it takes longer to arrive at the same place</summary>Right: half is lost after five iterations in place of one, and after twenty nothing is left. The loss has to change, not the step.</details>
