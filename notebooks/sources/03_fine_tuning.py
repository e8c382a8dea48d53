# %% [raw]
# title: Fine-tuning and catastrophic forgetting
# goals:
#   - write fine-tuning as a plain loop and check it, loss by loss, against the library
#   - measure forgetting as amount, as speed, and as what the lost pixels are called instead
#   - tell its causes apart with controls on the labels and on the parts of the network (and, in the further part, on the features)
#   - state the lower bound that every later method has to leave behind
# summary:
#   - Fine-tuning is cross-entropy on the labels of the new step and nothing else; a loop of about ten lines retraces the losses of the library's run.
#   - All six old classes end at 0 IoU. One update with 16 images takes about half of what they had or more, and in the end more than nine in ten of their pixels are called background.
#   - No label of step 1 speaks for an old class, so the loss only ever pushes its logits down; with the labels put back, the classes come back. Backbone, head and classifier have all moved, so that restoring one of them restores nothing. The features lose about a third of what step 0 had added to an untrained network.
#   - Over five seeds fine-tuning has 0.0 mIoU on the old classes and 57.1 on the new ones, joint training 68.0 and 63.9. A smaller learning rate does not help.
# ends_with: the lower bound, and three measured reasons for it
# reading_minutes: 55
# further_minutes: 30
# prerequisites: ["00", "01", "02"]
# differs:
#   - The papers lower the rate of later steps (SDR on VOC 1e-3, then 1e-4); the rates of MiniVOC come from a search with the same budget for every method (benchmarks/README.md) and stay about equal.
#   - The batch norm of the backbone keeps the statistics of step 0 in later steps here. The released code of SDR updates them with momentum 3e-4; the further part shows both.
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
# forgets, and what in the training makes it do so? The answers say what a remedy has to do. Chapter 04 is the first of those remedies;
# others are those of chapters 05 to 07.

# %% tags=["setup"]
from importlib.resources import files
from itertools import islice, product

import numpy as np
import pandas as pd
import torch
from matplotlib.patches import Patch
from torch.nn import functional as F

from sparcl_lib import seed_everything
from sparcl_lib.course import (
    Property, check, compare_guess, explore, guess_first, minivoc_config, panels, quiz,
    run_or_load_all, show,
)  # fmt: skip
from sparcl_lib.data import remap_labels
from sparcl_lib.data.loading.transforms import normalise
from sparcl_lib.losses import cross_entropy
from sparcl_lib.metrics import class_iou
from sparcl_lib.models import build_segmenter, grow, predict, train_mode
from sparcl_lib.tasks import training_table
from sparcl_lib.training.evaluation import picture_arrays
from sparcl_lib.training.workspace import open_workspace
from sparcl_lib.viz import (
    class_palette, colorize, confusion_flow, prediction_strips, row_shares, step_heat_map,
)

# %%
config = minivoc_config("FT", task="6-4", setup="disjoint", seed=0)
workspace = open_workspace(config, progress=False)
task = workspace.task
# Kept with the course; trained side by side where they are not.
ft, joint, mib, in_three = run_or_load_all(
    {"FT": config, "Joint": minivoc_config("Joint"), "MiB": minivoc_config("MiB"),
     "FT on 6-2": minivoc_config("FT", task="6-2")},
    checkpoints=("FT", "Joint", "MiB"),
).values()  # fmt: skip
names = task.class_names(1)  # by training index: background, old, new
NUM_OLD = 7  # old classes with background
OLD, NEW = range(1, 7), range(7, 11)
print("old:", ", ".join(names[c] for c in OLD))
print("new:", ", ".join(names[c] for c in NEW))

# %% [markdown]
# ## Fine-tuning, written out
#
# The student of step 1 is $M_0$ with four more output channels. Its logits $z_{ic}$ at pixel $i$ become probabilities $q_{ic}$, and the
# loss is the mean negative logarithm of the one that the label $y_i$ asks for, over the set $\mathcal I$ of pixels that count:
#
# $$q_{ic} = \frac{e^{z_{ic}}}{\sum_j e^{z_{ij}}}, \qquad \mathcal L_{ce} = -\frac{1}{|\mathcal I|} \sum_{i \in \mathcal I} \log q_{i y_i}$$
#
# (MiB, equation 1.) Nothing in it looks back: no old image, no old label, no old network.

# %%
def plain_cross_entropy(logits, target):  # (B, K, H, W), (B, H, W) -> scalar
    log_q = logits - logits.exp().sum(dim=1, keepdim=True).log()  # (B, K, H, W)
    counts = target < 255  # 255: does not count
    label = torch.where(counts, target, 0)
    picked = log_q.gather(1, label.unsqueeze(1)).squeeze(1)  # (B, H, W): log q_{i y_i}
    return -picked[counts].mean()


# %% [markdown]
# The loop around it is stochastic gradient descent with a falling learning rate. `yield` hands out the loss after every iteration and
# waits, so that we can look at the network in between. `train_mode` switches the network to training; `"frozen"` keeps the batch norm of
# the backbone at the statistics of step 0, as in all runs of this course unless said otherwise.

# %%
def fine_tuning(student, batches, lr=0.058, iterations=300):
    """Train `student` on (images, labels); gives the loss of each iteration after its update."""
    learning = [p for p in student.parameters() if p.requires_grad]
    optimizer = torch.optim.SGD(learning, lr, momentum=0.9, nesterov=True, weight_decay=1e-4)
    for i, (images, labels) in enumerate(batches):
        train_mode(student, "frozen")
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
    return workspace.training_batches(1, 300, SEED)


losses = list(islice(fine_tuning(start(), step_batches()), 11))
logged = ft.log(1)["total"]  # every tenth iteration of the library's run
for row, i in enumerate((0, 10)):
    print(f"iteration {i:2d}: loss {losses[i]:.2f} here, {logged[row]:.2f} in the kept run")
student, (images, labels) = start(), next(iter(step_batches()))
logits = student(images).logits  # (16, 11, 64, 64)
assert torch.isclose(plain_cross_entropy(logits, labels), cross_entropy(logits, labels), atol=1e-5)
assert abs(losses[0] - logged[0]) < 0.03 and abs(losses[10] - logged[1]) < 0.03

# %% [markdown]
# The loss falls fast. From its point of view everything is well.
#
# ## What is left
#
# In the task `6-2` two steps follow, with two classes each. Every step wipes out what the steps before it have taught.

# %%
steps = in_three.matrix

# %% tags=["draw"]
show(
    step_heat_map(steps, "Fine-tuning on 6-2: IoU after every step (grey: not learned yet)"),
    "Every class has IoU zero one step after the step that taught it; background stays above 80",
)

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
upper = joint.matrix.rows[1]  # class name -> IoU

# %% tags=["draw"]
def draw_class(name):
    figure, axes = panels(width=7, height=2.8)
    for other in names[1:]:
        known = [k for k in steps.rows if other in steps.rows[k]]
        values = [steps.rows[k][other] for k in known]
        chosen = other == name
        style = {"color": "#d55e00", "lw": 3, "zorder": 3} if chosen else {"color": "#bbbbbb", "lw": 1}
        axes.plot(known, values, marker="o" if chosen else ".", label=name if chosen else None, **style)
    axes.axhline(upper[name], color="#4d4d4d", linestyle="--", label=f"{name}, joint training")
    axes.set(xticks=[0, 1, 2], xlabel="step", ylabel="IoU (%)", ylim=(-3, 100))
    axes.set_title(f"Fine-tuning on 6-2: {name}, the other classes in grey")
    figure.legend(loc="outside lower center", ncols=2)
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
my_guess = None  # a number from 1 to 300, or "pass"
guess_first(my_guess, 1, 300)

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


# %%
at_start = test_confusion(start())


def watch(student, batches, lr=0.058):
    """Iteration -> confusion matrix, over the first 20 iterations of step 1."""
    history = {0: at_start}
    for iteration, _ in enumerate(islice(fine_tuning(student, batches, lr), 20), start=1):
        if iteration in WATCHED:
            history[iteration] = test_confusion(student)
    return history


def old_miou(history):
    """Iteration -> mIoU of the old classes without background."""
    return {i: class_iou(confusion)[list(OLD)].mean() for i, confusion in history.items()}


def half_lost(curve):
    """The first watched iteration with less than half of what there was at the start."""
    return min(i for i, value in curve.items() if value < curve[0] / 2)


# %%
live = watch(start(), step_batches())
curve = old_miou(live)
compare_guess("iterations until half is lost", my_guess, half_lost(curve))
assert half_lost(curve) <= 2 and max(curve[i] for i in (10, 15, 20)) < 2

# %% tags=["draw"]
STYLES = (("#d55e00", "o", "-"), ("#0072b2", "s", "--"), ("#222222", "^", ":"))


def draw_curves(curves, title):
    figure, axes = panels(width=8, height=2.8)
    for (label, values), (color, marker, line) in zip(curves.items(), STYLES):
        axes.plot(*zip(*values.items()), color=color, marker=marker, linestyle=line, label=label)
    axes.set(xlabel="iteration of step 1", ylabel="old mIoU (%)", ylim=(-2, 70))
    axes.set(xticks=range(0, 21, 5), title=title)
    figure.legend(loc="outside lower center", ncols=3, columnspacing=1.2)
    return figure


alt = "Old mIoU falls from 58 to below 20 after one iteration and stays near zero from iteration 3 on"
show(draw_curves({"fine-tuning": curve}, "The first 20 of 300 iterations"), alt)

# %% [markdown]
# One update, with one batch, takes more than half of it here (with another first batch, further down, less than half), and three take nearly all. "Forgetting" sounds like something that fades; this is an accident in the first second, and
# the rest of the 300 iterations only keeps it so. (At iteration 0 the old classes have 58, and not the 75 that is printed further down: these images also show new objects, which $M_0$ calls something old. Without the pixels of
# those it is 75.)
#
# ## Where the lost pixels go
#
# The row of a class in the confusion matrix, divided by its sum, says what its pixels are called. Below, each class on the left has the
# same height, and the thickness of a ribbon is the share of its pixels that get the name on the right (names that get less than half
# a percent of all six classes together are left out). The figure is of the finished run, over all 400 test images.

# %% tags=["draw"]
def draw_flow(after):
    step = int(after[-1])
    known = names[: task.num_classes(step)]
    title = f"Pixels of the old classes after {after}"
    return confusion_flow(ft.confusion(step), known, OLD, title, smallest=0.005)


alt = "After step 1 nearly all pixels of the six old classes flow into background"
explore(draw_flow, alt, after=["step 1", "step 0"])

# %%
shares = 100 * row_shares(ft.confusion(1))  # (11, 11), each row sums to 100
shown = (0, *NEW)
called = pd.DataFrame(shares[1:NUM_OLD, shown], names[1:NUM_OLD], [names[c] for c in shown])
called.round(0).astype(int)
assert called["background"].min() > 75 and 90 < called["background"].mean() < 98
assert shares[1:NUM_OLD, 1:NUM_OLD].max() < 1  # hardly a pixel keeps an old name

# %% [markdown]
# 94 of 100 pixels become background, and most of the others a new class; fewer than one in a hundred keep an old name. The triangle, the one with the
# least background, gives the rest mostly to bar and frame.
#
# Why background? Its pixels are called so in the labels of step 1: the old objects are still in the images, but nobody names them. That is
# the **background shift** of chapter 01 (MiB, section 3). Is it the cause of the forgetting, or does it only choose the new name? That
# can be tested.
#
# ## Reason 1: no label speaks for an old class
#
# The derivative of the loss by a logit is
#
# $$\frac{\partial \mathcal L_{ce}}{\partial z_{ic}} = \frac{q_{ic} - [y_i = c]}{|\mathcal I|}$$
#
# where $[y_i = c]$ is 1 if the label is $c$ and 0 otherwise. In step 1 no label is an old class, so for old $c$ the derivative is positive
# at every pixel that counts: the loss asks every old logit to fall, everywhere, and never asks one to rise. The force of this push is
# $q_{ic}$, so it is strongest where the network is surest that it sees an old class.
#
# To look at those pixels we need labels that name them. MiniVOC's masks do: they hold all objects, and only the table that turns a mask
# value into a label (chapter 01) hides the old ones. So take 320 photographs of step 1 with their masks, and change six entries of that
# table: once the old objects do not count, once they keep their names.

# %%
pairs = [workspace.train_reader(image_id) for image_id in workspace.train_ids[1][:320]]
photos = normalise(torch.stack([image for image, _ in pairs]))  # (320, 3, 64, 64)
masks = torch.stack([mask for _, mask in pairs])  # (320, 64, 64), all objects

given = training_table(task, 1, "disjoint")  # (256,) mask value -> label; old classes: 0
ignored, labelled = given.copy(), given.copy()
for index, value in enumerate(task.seen(0), start=1):  # the mask values of the old classes
    ignored[value] = 255  # does not count
    labelled[value] = index  # keeps its name
tables = {"background": given, "ignored": ignored, "labelled": labelled}
targets = {kind: remap_labels(masks, table) for kind, table in tables.items()}  # (320, 64, 64)

# %% tags=["draw"]
def draw_labels(picture):
    axes_of = {"photograph": pairs[picture][0].permute(1, 2, 0)}
    for kind, labels in targets.items():
        axes_of[f"old pixels {kind}"] = colorize(labels[picture].numpy().astype(np.uint8), 11)
    figure, grid = panels(columns=4, width=8, height=2.6)
    for axes, (title, image) in zip(grid, axes_of.items()):
        axes.imshow(image, interpolation="nearest")
        axes.set_title(title)
        axes.set_axis_off()
    classes = [c for c in targets["labelled"][picture].unique().tolist() if c < 255]
    keys = [Patch(color=class_palette(11)[c] / 255, label=names[c]) for c in classes]
    keys.append(Patch(fc="white", ec="#aaaaaa", hatch="//////", label="ignored"))
    figure.legend(handles=keys, loc="outside lower center", ncols=len(keys))
    return figure


both = [((t >= 1) & (t < NUM_OLD)).sum() * (t >= NUM_OLD).sum() for t in targets["labelled"]]
best_first = torch.tensor(both).argsort(descending=True)[:6].tolist()
alt = "A photograph of step 1 and its labels three times: the old objects black, hatched, and in colour"
explore(draw_labels, alt, picture=best_first)

# %% [markdown]
# Three sets of labels for the same photographs. First the push: with the labels as given, where does it come from at the very start of
# step 1?

# %%
truth = targets["labelled"][:128]
with torch.no_grad():
    z = start()(photos[:128]).logits  # (128, 11, 64, 64)
plain_cross_entropy(z.requires_grad_(), targets["background"][:128]).backward()
by_class = z.grad[:, 1:NUM_OLD]  # (128, 6, 64, 64): the derivative by the old logits
push = by_class.sum(dim=1)  # (128, 64, 64)
kinds = {
    "hidden old objects": (truth >= 1) & (truth < NUM_OLD),
    "new objects": truth >= NUM_OLD,
    "borders": masks[:128] == 255,  # background by the rule of chapter 01
    "true background": (truth == 0) & (masks[:128] != 255),
}
rows = {}
for kind, where in kinds.items():  # where: (128, 64, 64) bool
    pixels, part = where.float().mean().item(), (push[where].sum() / push.sum()).item()
    rows[kind] = {"% of the pixels": 100 * pixels, "% of the push": 100 * part}
origin = pd.DataFrame(rows).T
origin.round(0).astype(int)
assert (by_class >= 0).all()  # an old logit never goes up
assert origin.iloc[0, 1] > 3 * origin.iloc[0, 0]

# %% [markdown]
# Nine of 100 pixels belong to hidden old objects, and more than 40 of 100 parts of the push come from them. Nearly as much comes from the new
# objects, which $M_0$ takes for the old ones that they resemble. The borders of objects add a tenth, twice their share. The wide true background, three
# quarters of the pixels, adds 6 of 100: there $q_{ic}$ is small already.
#
# Now the controls. Same photographs in the same order, same start, same 20 iterations; only the labels of the old pixels change. The first
# of the three is fine-tuning once more (on other images than above, so its curve is not quite the same).

# %%
def batches_of(kind):  # 20 batches of (16, 3, 64, 64) and (16, 64, 64)
    return zip(photos.split(16), targets[kind].split(16))


controls = {kind: watch(start(), batches_of(kind)) for kind in targets}
end = {kind: old_miou(history)[20] for kind, history in controls.items()}
assert end["background"] < 2 and end["ignored"] < 2 and end["labelled"] > 20

# %% tags=["draw"]
curves = {f"old pixels {kind}": old_miou(history) for kind, history in controls.items()}
alt = "Old mIoU falls to zero with labels background or ignored, and recovers to above 40 with names"
show(draw_curves(curves, "Same images, same network, other labels"), alt)

# %% tags=["draw"]
def draw_shares():
    figure, axes = panels(width=8, height=2.2)
    inks = ("#007a5e", "#8fd3b6", "white", "#1c1c20")  # apart by lightness, too
    parts = ("itself", "another old class", "a new class", "background")
    for place, kind in enumerate(reversed(controls)):
        rows = row_shares(controls[kind][20])[1:NUM_OLD]  # (6, 11)
        own, old = np.diag(rows[:, 1:]).mean(), rows[:, 1:NUM_OLD].sum(axis=1).mean()
        values = (own, old - own, rows[:, NUM_OLD:].sum(axis=1).mean(), rows[:, 0].mean())
        left = 0
        for value, color, part in zip(values, inks, parts):
            label = None if place else part
            axes.barh(place, 100 * value, left=left, color=color, edgecolor="#1c1c20", label=label)
            left += 100 * value
    axes.set_yticks(range(3), [f"old pixels {kind}" for kind in reversed(controls)])
    axes.set(xlabel="what pixels of old classes are called after 20 iterations (%)", xlim=(0, 100))
    figure.legend(loc="outside upper center", ncols=4)
    return figure


alt = "Labelled background, most old pixels are called so; ignored, most become a new class; named, half stay"
show(draw_shares(), alt)
called_new = {k: row_shares(h[20])[1:NUM_OLD, NUM_OLD:].sum(axis=1).mean() for k, h in controls.items()}
assert called_new["background"] < 0.4 and called_new["ignored"] > 0.6

# %% [markdown]
# So the network does not need the background shift to forget. Without it the old classes are gone just as well, a few iterations later:
# by reason 1, all the pixels that are something else push them down. What the shift decides is where they go: mostly into background when the labels say
# so, more into new classes than anywhere else when they say nothing. With their labels back, the old classes stumble in the first updates and come back, here to 46 of the 58 that they had (how far hangs on the order of the images):
# what had been missing was a reason to keep them.
#
# At full scale the published numbers point the same way for the last of these controls. In the setup *sequential* old classes are labelled, and fine-tuning ends 27 to 42 points above *disjoint*, which has
# the same images; nothing is published for ignored labels, or for the old classes alone in disjoint. Fine-tuning on VOC2012 with ResNet-101, mIoU over all classes, from the SDR authors' slides:

# %%
published = pd.read_csv(files("sparcl_lib") / "published" / "results.csv")
voc = published.query("dataset == 'voc' and method == 'FT' and task in ['19-1', '15-5', '15-1']")
voc = voc.pivot(index="task", columns="setup", values="miou_all")
voc[["sequential", "overlapped", "disjoint"]].loc[["19-1", "15-5", "15-1"]]
assert (voc["sequential"] - voc[["disjoint", "overlapped"]].max(axis=1)).min() > 20
assert (voc["sequential"] - voc["disjoint"]).between(27, 42).all()

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
shift = b1[:NUM_OLD] - b0  # (7,)
print(f"cosine of each old row before and after: {turn.min():.2f} to {turn.max():.2f}")
print(f"its length, as a factor: {length.min():.2f} to {length.max():.2f}")
print(f"biases: background {shift[0]:+.2f}, old classes {shift[1:].mean():+.2f}")
assert turn.min() > 0.9 and 0.9 < length.min() and length.max() < 1.1
assert shift[0] > 0.05 and shift[1:].max() < -0.05

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

# %% tags=["draw"]
def draw_logits():
    figure, axes = panels(columns=2, width=8.5, height=3.2, sharey=True)
    for ax, z, title in zip(axes, (z0, z1), ("after step 0", "after step 1")):
        bars = [(z.diagonal()[1:NUM_OLD], "#56b4e9", "its own class")]
        bars.append((z[0, 1:NUM_OLD], "#1c1c20", "background"))
        if len(z) > NUM_OLD:
            largest = z[NUM_OLD:, 1:NUM_OLD].amax(dim=0)
            bars.append((largest, "white", "largest of the new classes"))
        for place, (values, color, label) in enumerate(bars):
            where = np.arange(6) + 0.27 * (place - 1)
            ax.bar(where, values, 0.27, color=color, edgecolor="#1c1c20", label=label)
        ax.set_xticks(range(6), names[1:NUM_OLD], rotation=40, ha="right")
        ax.set(title=title, xlabel="true class of the pixels")
    axes[0].set_ylabel("mean logit")
    figure.legend(*axes[1].get_legend_handles_labels(), loc="outside lower center", ncols=3)
    return figure


show(draw_logits(), "At its pixels, a class is above background after step 0, and far below it after step 1")
own, background = z1.diagonal()[1:NUM_OLD], z1[0, 1:NUM_OLD]
assert (z0.diagonal()[1:NUM_OLD] > z0[0, 1:NUM_OLD] + 1).all() and (background > own + 5).all()
assert (background > z1[NUM_OLD:, 1:NUM_OLD].amax(dim=0)).all()

# %% [markdown]
# The classifier has turned a little, and gives the opposite answer. Has it done so alone, or has its input changed too? The network is a chain of three
# parts: backbone, head, classifier. Each of them can be taken from the network after step 0 or after step 1, which makes eight networks. We
# compare them on the seven old outputs alone, so that no new class can win a pixel, and leave out the pixels of new objects, on the same 96 test
# images. But parts that were trained apart need not fit each other, even where nothing was forgotten. So the same is done with MiB, of chapter 04, which begins
# with the same network and keeps most of the old classes.

# %%
@torch.no_grad()
def assembled(backbone, head, classifier):
    """mIoU of the old classes of the network that is put together from these three parts."""
    total = torch.zeros(NUM_OLD**2, dtype=torch.int64)
    for images, labels in tests:
        logits = classifier.steps[0](head(backbone(images)))  # (16, 7, 16, 16): old outputs
        logits = F.interpolate(logits, labels.shape[1:], mode="bilinear", align_corners=False)
        counts = labels < NUM_OLD
        pairs = NUM_OLD * labels[counts] + logits.argmax(dim=1)[counts]
        total += torch.bincount(pairs, minlength=NUM_OLD**2)
    return class_iou(total.reshape(NUM_OLD, NUM_OLD).numpy())[1:].mean()


# %%
networks = {"FT": (before, after), "MiB": (mib.model(0), mib.model(1))}
eight = pd.DataFrame(
    {name: assembled(two[b].backbone, two[h].head, two[c].classifier) for name, two in networks.items()}
    for b, h, c in product((0, 1), repeat=3)
)
PARTS = ["backbone", "head", "classifier"]
eight.index = pd.MultiIndex.from_product([("step 0", "step 1")] * 3, names=PARTS)
eight.round(0).astype(int)
assert eight["FT"].iloc[0] > eight["FT"].iloc[1] + 25  # the classifier of step 1
assert eight["FT"].iloc[[2, 4]].max() < 25  # the head or the backbone of step 1
assert eight["FT"].iloc[[3, 5, 6, 7]].max() < 2  # one part of step 0, or none
assert eight["MiB"].min() > 30 and eight["MiB"].iloc[-1] > eight["MiB"].min() + 20

# %% [markdown]
# How far have the two gone? The way of the weights, and of the features of old objects on the same images, each in percent of its length:

# %% tolerance={"abs": 1, "spread": 1e-04}
def weights(part):
    return torch.cat([p.detach().flatten() for p in part.parameters()])


@torch.no_grad()
def on_old(model):  # (N, 64): features at locations of the six old classes
    features = torch.cat([model.backbone(images) for images, _ in tests]).movedim(1, -1)
    labels = torch.cat([labels[:, ::4, ::4] for _, labels in tests])
    return features[(labels > 0) & (labels < NUM_OLD)]


SEEN = {
    "weights of the backbone": lambda net: weights(net.backbone),
    "weights of the head": lambda net: weights(net.head), "features": on_old,
}  # fmt: skip
gone = pd.DataFrame({
    name: {what: (100 * (see(b) - see(a)).norm() / see(a).norm()).item() for what, see in SEEN.items()}
    for name, (a, b) in networks.items()
})
gone.round(0).astype(int)
assert (gone["MiB"] / gone["FT"]).iloc[:2].min() > 0.7 and 0.4 < (gone["MiB"] / gone["FT"]).iloc[2] < 0.7

# %% [markdown]
# Read it in two directions. From the top: one part of step 1 in the network of step 0 is enough to do harm. Even the small turn of the
# classifier costs 40 points, head or backbone nearly everything. From the bottom: one part of step 0 put back into the network of
# step 1 brings back nothing. The three have moved together, each fitting the others, and none of them alone holds the memory. To put the
# old classifier back comes too late here. (The control: of MiB's networks every mixture still has 36 or more. So a misfit costs points of its own, up to 27 below MiB's network after step 1, and brings none to zero there. But the features of MiB have moved
# little more than half as far, so it does not say how much of fine-tuning's zeros is misfit.)
#
# There is a third reason, in the features themselves. In a line: somebody who has labels, and learns a new linear classifier on the features, reads 80 of 100 old locations after step 0, 69 after step 1, and 51 in a network that was never trained. So a part of what the features had learned of the old classes is gone. The
# further part of this chapter shows how that is measured.
#
# ## Ablation: frozen parts, smaller steps
#
# Would it help to keep the features where they are? Freeze backbone and head, and let only the classifier learn. (What does not learn also
# stays in eval mode: the batch norm of a frozen head goes on using its old statistics instead of those of the batch.) Or to take smaller
# steps? A tenth of the rate. Both live, against the curve from above.

# %% tags=["ablation"]
frozen = start()
frozen.backbone.requires_grad_(False)
frozen.head.requires_grad_(False)
only_classifier = old_miou(watch(frozen, step_batches()))
gentle = old_miou(watch(start(), step_batches(), lr=0.005))
ablated = {
    "everything learns, rate 0.058": curve,
    "only the classifier learns": only_classifier,
    "everything learns, rate 0.005": gentle,
}
for label, values in ablated.items():
    print(f"{label}: half is lost by iteration {half_lost(values)}")
assert only_classifier[3] > 40 and only_classifier[15] < 2
assert gentle[3] > 35 and gentle[20] < 3

# %% tags=["draw"]
show(
    draw_curves(ablated, "Later, but not better"),
    "With frozen features or a tenth of the rate old mIoU falls to nearly zero too, by iteration 15 to 20",
)

# %% [markdown]
# Frozen features delay the end and do not prevent it: a classifier that is told "not this class" at every pixel learns just that. So the
# reasons are of different rank. The labels are the root. That features and all other parts can move makes the damage sudden, and hard
# to undo.
#
# ## The lower bound
#
# Five seeds, from [benchmarks](../benchmarks/README.md): every seed has its own step 0. "Old" without background; MiB is of the next chapter.

# %%
study = pd.read_csv("../benchmarks/studies/minivoc_comparison/results.csv")
study = study.query("task == '6-4' and setup == 'disjoint' and step == 1")
study = study[study["method"].isin(["FT", "Joint", "MiB"])]
study = study.rename(columns={"miou_old_no_bg": "old", "miou_new": "new"})
study.groupby("method")[["old", "new"]].agg(["mean", "std"]).round(1)

# %% [markdown]
# Runs of one seed share all that the seed draws, so compare them seed by seed. (On the old classes that changes nothing: fine-tuning has
# 0.0 on each.) The interval is the
# mean of the five differences, plus and minus $2.78\, s / \sqrt 5$ with their standard deviation $s$ (2.78 is Student's factor for 95 % and four degrees of
# freedom).

# %%
by_seed = study.pivot(index="seed", columns="method", values=["old", "new"])


def minus_ft(method):
    gap = by_seed.xs(method, axis=1, level=1) - by_seed.xs("FT", axis=1, level=1)  # (5 seeds, 2)
    half_width = 2.78 * gap.std() / len(gap) ** 0.5
    mean = gap.mean()
    return pd.DataFrame({"mean": mean, "from": mean - half_width, "to": mean + half_width})


ahead = pd.concat({f"{method} minus FT": minus_ft(method) for method in ("Joint", "MiB")})
ahead.round(1)
assert by_seed["old"]["FT"].max() < 5 and ahead.loc["Joint minus FT", "from"].min() > 4
assert 1 < ahead.loc[("MiB minus FT", "new"), "from"] < ahead.loc[("MiB minus FT", "new"), "mean"] < 5

# %% [markdown]
# That is the lower bound: 0.0 on the old classes, on every seed, where joint training has 68.0. Nor has the price bought anything: on the new
# classes, the only ones it was asked to learn, fine-tuning is four points behind MiB (2.1 to 6.6), which had the same images, the same iterations and the same network to begin with, and keeps most of the old ones. (Joint training, seven points ahead,
# has another budget and all labels.)
#
# What the reasons ask of a method:
#
# | reason | what one may try | chapter |
# |---|---|---|
# | no label speaks for an old class | let the old network speak for it, and do not read "background" as "nothing old" | 04 |
# | every part has moved | hold the network as a whole to its old answers, not the classifier alone | 04 |
# | the features move (further part) | hold the features of a class where they were, and keep classes apart | 05 to 07 |
#
# ## Look at it
#
# Fine-tuning beside joint training. The buttons choose the step; joint training has only one. In the first picture the network after step 0
# finds the cross and calls the star a square; after step 1 it finds the star, and the cross has become ground.

# %%
pictures = workspace.picture_batches()
ends = {"step 0": picture_arrays(before, pictures), "step 1": picture_arrays(after, pictures)}
best = picture_arrays(joint.model(0), pictures)["prediction"]

# %% tags=["draw"]
def draw_strips(after, picture):
    row = slice(picture, picture + 1)
    arrays = ends[after]
    predictions = {f"FT, {after}": arrays["prediction"][row], "Joint": best[row]}
    return prediction_strips(
        arrays["images"][row], arrays["truth"][row], predictions, names, [names[c] for c in NEW]
    )


alt = "A test image, its truth, fine-tuning without the old objects, joint training with all"
explore(draw_strips, alt, after=["step 1", "step 0"], picture=list(range(6)))

# %% [markdown]
# ## Exercises
#
# ### 3.1 Where did they go?
#
# The flows in four numbers. For each old class: which shares of its pixels are called itself, background, another old class, a new class?

# %% tags=["exercise"]
def flows_of_old(confusion, num_old):
    """confusion: (K, K) counts, rows truth, background first; num_old: old classes with background.

    Returns an array (num_old - 1, 4): a row for each old class without background, shares from 0 to 1
    of its pixels called [itself, background, another old class, a new class]; zeros for a class
    without pixels.
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
# ### 3.2 The push, by hand
#
# Reason 1 rests on the derivative of cross-entropy by the logits. Write it down, with ignored pixels: autograd is off in the check.

# %% tags=["exercise"]
def push_on_logits(logits, target):
    """logits: (B, K, H, W); target: (B, H, W) int64, 255 does not count.

    Returns a tensor (B, K, H, W): the derivative of the mean cross-entropy by every logit.
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
t[1, 1, :3] = 255  # fewer pixels count in the second image
F.cross_entropy(z, t, ignore_index=255).backward()
z_six = torch.randn(1, 6, 2, 3, generator=generator).requires_grad_()
t_six = torch.tensor([[[0, 2, 255], [4, 1, 0]]])  # no pixel of the last class
F.cross_entropy(z_six, t_six, ignore_index=255).backward()
# In inference mode nothing has a gradient.
check(
    "3.2", torch.inference_mode()(push_on_logits),
    [((z.detach(), t), z.grad), ((z.detach()[:1], t[:1]), 1.7 * z.grad[:1]),
     ((z_six.detach(), t_six), z_six.grad)],
    hint="(q - [y = c]) divided by the number of pixels that count, and exactly zero where the label "
    "is 255; K is a dimension of the logits, for no pixel need have the last class; backward() finds "
    "no gradient here, for the formula is asked for",
    tolerance=1e-5,
)

# %% [markdown]
# ## Quiz

# %% tags=["quiz"]
quiz(
    "With ignored labels nothing tells the network that hidden old objects are background. Why are the old classes lost all the same?",
    [
        ("Because the batch norm of the backbone forgets their statistics",
         "It does not: in these runs it keeps the statistics of step 0. The further part shows that the other policies end at zero as well."),
        ("Because 20 iterations are too few to learn anything",
         "They are enough to lose the old classes, and enough to bring them back when their labels are there: see the same images with names."),
        ("Because all other pixels push their logits down and none pushes them up",
         "Right. The derivative by an old logit is $q_{ic}$, never negative, at every pixel that counts: on new objects most of all, since the old network takes them for old ones."),
    ],
    right=2,
)

# %% tags=["quiz"]
quiz(
    "After step 1 you copy the old classifier back, weights and biases, and use the old outputs only. What do the old classes have?",
    [
        ("Nearly all of what they had, because a classifier decides what a feature means",
         "It does, for the features it was trained with. Head and backbone now give it other inputs, and the result is zero."),
        ("Nothing",
         "Right: the row with backbone and head of step 1 and the classifier of step 0. It takes the old features and the old head to get the old answers."),
    ],
    right=1,
)

# %% tags=["quiz"]
quiz(
    "Would a learning rate ten times smaller in step 1 save the old classes?",
    [
        ("No, it takes longer to arrive at the same place",
         "Right: half is lost between the fifth and the seventh iteration instead of in the first, and after twenty next to nothing is left. The loss has to change, not the step."),
        ("Yes, small steps stay near the old network",
         "For the first few iterations. Every step still leads away from the old classes, so that 300 of them arrive at zero all the same, with new classes half as good."),
    ],
    right=0,
)

# %% [markdown]
# ## Further: do the features remember?
#
# Reason 3, and two settings that the core left alone.
#
# $f_i$ is what the backbone says about location $i$. How far has it gone? As a yardstick: how similar are two different locations of the
# same class before step 1?

# %%
@torch.no_grad()
def locations(model, batches):
    """Features (N, 64) and labels (N,) of all locations of background and old classes."""
    features = torch.cat([model.backbone(images) for images, _ in batches])  # (n, 64, 16, 16)
    labels = torch.cat([labels[:, ::4, ::4] for _, labels in batches])  # (n, 16, 16): y*
    known = labels < NUM_OLD
    return features.movedim(1, -1)[known].numpy(), labels[known].numpy()


def cosine(a, b):  # (N, 64), (N, 64) -> (N,)
    return (a * b).sum(axis=1) / np.linalg.norm(a, axis=1) / np.linalg.norm(b, axis=1)


f0, y = locations(before, tests)
f1, _ = locations(after, tests)

# %% tolerance={"abs": 0.01, "spread": 1e-06}
rng = np.random.default_rng(0)
rows = {}
for c in OLD:
    a, b = f0[y == c], f1[y == c]  # (n_c, 64) each, the same locations
    way = np.linalg.norm(b - a, axis=1).mean() / np.linalg.norm(a, axis=1).mean()
    others = cosine(a, a[rng.permutation(len(a))])
    rows[names[c]] = {
        "to itself after": cosine(a, b).mean(), "to another before": others.mean(), "way / length": way,
    }  # fmt: skip
drift = pd.DataFrame(rows).T
drift.round(2)
assert drift["to itself after"].max() < 0.75 and drift["way / length"].min() > 0.8
assert (drift["to itself after"] - drift["to another before"]).abs().mean() < 0.15

# %% [markdown]
# The first two columns are cosine similarities, the third is the mean of $\lVert f_i - f_i^{k-1} \rVert$ divided by the mean of $\lVert f_i^{k-1} \rVert$, with $f_i$ the
# feature after step 1 and $f_i^{k-1}$ that of the same location before. A location resembles its former self no more, or little more, than it resembled another location of its class before, and it
# has moved by about its own length. (A way that all locations go together is in these numbers, too; chapter 05 takes it apart.)
#
# ### A map
#
# The plane of the two main directions (PCA) of the features before, with the features after in the same plane.

# %%
from sklearn.decomposition import PCA


def balanced(labels, count):
    """Indices of at most `count` locations of each class, drawn with a fixed seed."""
    rng = np.random.default_rng(0)
    members = (np.flatnonzero(labels == c) for c in range(NUM_OLD))
    return np.concatenate([rng.permutation(indices)[:count] for indices in members])


few = balanced(y, 40)
pca = PCA(2).fit(f0[few])
planes = [pca.transform(f[few]) for f in (f0, f1)]  # (N, 2) each
held = [xy.var(axis=0).sum() / f[few].var(axis=0).sum() for xy, f in zip(planes, (f0, f1))]
print(f"share of the variance in this plane: {100 * held[0]:.0f} % before, {100 * held[1]:.0f} % after")

# %% tags=["draw"]
MARKERS = ["1", "o", "s", "^", "D", "X", r"$\bigcirc$"]  # shaped like their classes; background a Y


def draw_clouds():
    figure, axes = panels(columns=2, width=7.6, height=4, sharex=True, sharey=True)
    palette = class_palette(NUM_OLD) / 255
    for c in range(NUM_OLD):
        look = {"marker": MARKERS[c], "color": palette[c], "label": names[c]}
        for ax, xy in zip(axes, planes):
            ax.scatter(*xy[y[few] == c].T, s=16, linewidth=0 if c else 1, **look)
        tail, tip = (xy[y[few] == c].mean(axis=0) for xy in planes)
        style = {"arrowstyle": "->", "color": "white", "lw": 4.5, "shrinkA": 0, "shrinkB": 0}
        axes[1].annotate("", tip, tail, arrowprops=style)
        axes[1].annotate("", tip, tail, arrowprops={**style, "color": palette[c], "lw": 2})
    axes[0].set(title="after step 0", xlabel="first direction", ylabel="second direction")
    axes[1].set(title="after step 1", xlabel="first direction")
    handles, labels = axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=4, markerscale=2)
    return figure


show(draw_clouds(), "Clouds of the six classes fan out after step 0; in the same plane their means lie closer together after step 1, and three of the clouds are larger")
spread = [np.var([xy[y[few] == c].mean(axis=0) for c in OLD], axis=0).sum() for xy in planes]
clouds = [np.array([xy[y[few] == c].var(axis=0).sum() for c in OLD]) for xy in planes]
assert (clouds[1] > 1.3 * clouds[0]).sum() == 3 and (clouds[1] < 0.7 * clouds[0]).sum() == 0
assert spread[1] < 0.7 * spread[0] and held[1] < 0.8 * held[0]

# %% [markdown]
# Arrows show the way of the class means: in this plane they have come closer, and the plane itself holds less of the features, which have
# turned to other directions. Of the clouds themselves three have grown, and the others are much as they were. And two dimensions of 64 cannot say whether the classes have been mixed or only carried elsewhere.
#
# ### Can they still be read?
#
# The question has an exact form: can the old classes still be **read** from the new features, by somebody who has labels? Two readers are
# trained on 320 images of step 0 and tested on our 96 images. It is a diagnosis and no method: in step 1 those images are gone.
#
# - A *linear probe* is logistic regression: a linear classifier on $f_i$, trained by itself. It learns at its best when every channel has
#   mean 0 and standard deviation 1, so the channels are brought to that first.
# - The *nearest class mean* averages the features of each class and gives a location to the class whose mean is nearest.
#
# A channel that is zero in all 320 images has nothing to say and no deviation to divide by; both leave it out.
#
# A probe also reads colours and edges that no training put there. So the scale needs its floor: the same readers on networks that were
# never trained.

# %%
from sklearn.linear_model import LogisticRegression
from sklearn.neighbors import NearestCentroid

probe_batches = list(islice(workspace.training_batches(0, 20, 0), 20))


def readable(model):
    """Locations of old classes that each reader gets right, in percent, mean over the classes."""
    features, labels = locations(model, probe_batches)
    asked, truth = locations(model, tests)
    some = balanced(labels, 500)
    features, labels = features[some], labels[some]
    alive = features.std(axis=0) > 0
    features, asked = features[:, alive], asked[:, alive]
    mean, deviation = features.mean(axis=0), features.std(axis=0)
    probe = LogisticRegression(max_iter=500).fit((features - mean) / deviation, labels)
    nearest = NearestCentroid().fit(features, labels)
    said = {
        "linear probe": probe.predict((asked - mean) / deviation),
        "nearest class mean": nearest.predict(asked),
    }
    return {
        reader: 100 * np.mean([(answer == c)[truth == c].mean() for c in OLD])
        for reader, answer in said.items()
    }


# %% tolerance={"abs": 1, "spread": 0.28}
def untrained(seed):  # random weights; its batch norm has seen the images
    seed_everything(seed)
    model = build_segmenter(before.spec).train()
    with torch.no_grad():
        for images, _ in probe_batches:
            model(images)
    return model.eval()


floors = pd.DataFrame([readable(untrained(seed)) for seed in range(3)])
read = pd.DataFrame(
    {"after step 0": readable(before), "after step 1": readable(after), "never trained": floors.mean()}
).T
top, now, floor = read["linear probe"]
lost = (top - now) / (top - floor)
print(f"of what training had added to the floor, the linear probe has lost {100 * lost:.0f} %")
read.round(0).astype(int)
assert top > now + 8 and now > floor + 8 and 1 / 3 < lost < 1 / 2 and 45 < floor < 55
assert 0.6 < np.ptp(read["nearest class mean"].iloc[:2]) / np.ptp(read["nearest class mean"]) < 0.73

# %% [markdown]
# 69 of 100 locations against 80: so most of it is still there? With this yardstick, Davari et al. found that networks which forget badly at
# their outputs often lose little in their features. The floor changes the picture: 51 of 100 can be read from a network that has learned
# nothing, because colour and texture tell much already. Step 0 had added 29 points to that, and step 1 has taken more than a third of them (on another seed a third).
# (Its weights are random, but the running statistics of its batch norm are those of the images. With the ones that it is built with, mean 0 and deviation 1, it would read sixty, and the loss would look like more than half: a floor is an experiment, too.)
# (Hess et al. argue for this yardstick: little in absolute terms can be nearly all of what was learned.) The nearest class mean, which
# cannot weigh channels as the probe can, has lost more: two thirds of what it had gained over the untrained network (on another seed four tenths).
#
# ### To the end of the step, and other statistics
#
# The ablation above stopped after 20 iterations. Now to the end of step 1, with other rates and another hidden setting. The batch norm of
# the backbone keeps the statistics of step 0 (`frozen`); it could use those of the batch (`train`), or follow them with a tiny momentum
# (`slow`, 3e-4, as the released code of SDR does). One seed each: only large differences say anything.

# %% tags=["ablation"]
variants = {
    "rate 0.058, statistics frozen": "optim.lr=[0.05,0.058]",
    "rate 0.005": "optim.lr=[0.05,0.005]",
    "rate 0.001": "optim.lr=[0.05,0.001]",
    "statistics train": "model.batch_norm=train",
    "statistics slow": "model.batch_norm=slow",
}
kept = run_or_load_all({name: minivoc_config("FT", change) for name, change in variants.items()})
ends_of = pd.DataFrame(
    {
        name: {"old": run.matrix.miou_old_no_bg(1), "new": run.matrix.miou_new(1)}
        for name, run in kept.items()
    }
).T
print(f"slow: averages still {100 * (1 - 3e-4) ** 300:.0f} % those of step 0 after 300 iterations")
ends_of.round(1)
assert ends_of["old"].max() < 2 and ends_of["new"].iloc[4] < ends_of["new"].iloc[0] - 15
assert ends_of["new"].iloc[0] > ends_of["new"].iloc[1] + 15 > ends_of["new"].iloc[2] + 30

# %% [markdown]
# A tenth of the rate delays the fall by a few iterations, and the new classes pay for it: 58, 32, and at rate 0.001 next to nothing. That
# last network has lost the old classes without having learned the new ones. None of the three keeps anything, because the push of reason 1 has
# the same sign at every rate.
#
# What batch norm does to the old classes cannot be seen here: they are at zero with each policy. `slow` costs the new ones 27 points. A likely reason, not tested: it trains
# with the statistics of the batch and tests with running averages that are still 91 % those of step 0. The three points between `train` and
# `frozen` are nothing that one seed can decide. Where a method keeps something, the policy may matter: MiB on real photographs, in
# [docs/real_voc_subset.md](../docs/real_voc_subset.md), ends 0.4 points lower over all classes with `train`, which is within the spread; an earlier
# trial with weaker settings lost about seven.

# %% [markdown]
# ### 3.3 Which way did the features turn?
#
# The drift of a class: one minus the cosine similarity of the features before and after, location by location, then averaged over the
# locations of the class.

# %% tags=["exercise"]
def cosine_drift(before, after, labels, num_classes):
    """before, after: (B, D, h, w) features; labels: (B, h, w), 255 does not count.

    Returns a tensor (num_classes,): mean over the locations of each class of 1 - cosine; NaN without
    location.
    """
    # SOLUTION
    drift = 1 - F.cosine_similarity(before, after, dim=1)  # (B, h, w)
    return torch.stack([drift[labels == c].mean() for c in range(num_classes)])
    # END

# %% tags=["check"]
first = torch.tensor([[[[1.0, 0.0]], [[0.0, 1.0]]], [[[1.0, 3.0]], [[1.0, 4.0]]]])  # (2, 2, 1, 2)
then = torch.tensor([[[[0.0, 0.0]], [[1.0, 2.0]]], [[[-1.0, 4.0]], [[-1.0, 3.0]]]])
where = torch.tensor([[[0, 1]], [[1, 255]]])  # (2, 1, 2)
uneven = torch.tensor([[[1, 1]], [[1, 255]]])  # two locations in one image, one in the other
long = torch.tensor([[[[1.0, 10, 1]], [[0, 0, 0]]]])  # (1, 2, 1, 3); cosines 0.6, 0.8 and 0
turned = torch.tensor([[[[3.0, 8, 0]], [[4, 6, 2]]]])
check(
    "3.3", cosine_drift,
    [((first, then, where, 3), torch.tensor([1.0, 1.0, float("nan")])),
     ((first, 5 * first, where, 2), torch.zeros(2)),
     ((first, then, uneven, 2), torch.tensor([float("nan"), 1.0])),
     ((long, turned, torch.zeros(1, 1, 3, dtype=torch.int64), 1), torch.tensor([1.6 / 3]))],
    hint="the channels are dimension 1; first the cosine of each location, then the plain mean, in "
    "which all locations count alike; a feature that is only longer has not turned",
)

# %% [markdown]
# ### 3.4 Nearest class mean
#
# The second reader, in full: one mean per class, and the nearest mean wins, by Euclidean distance. It is the decision that prototypes
# (chapter 05) suggest.

# %% tags=["exercise"]
def nearest_class_mean(features, labels, queries, num_classes):
    """features: (N, D); labels: (N,), 255 does not count; queries: (M, D).

    Returns a tensor (M,) of int64 classes. A class without features is never the answer.
    """
    # SOLUTION
    present = [c for c in range(num_classes) if (labels == c).any()]
    means = torch.stack([features[labels == c].mean(dim=0) for c in present])  # (P, D)
    return torch.tensor(present)[torch.cdist(queries, means).argmin(dim=1)]
    # END

# %% tags=["check"]
points = torch.tensor([[0.0, 10.0], [0.0, 14.0], [2.0, 0.0], [6.0, 0.0], [4.0, 0.3], [1.0, 9.0]])
asked = torch.tensor([[0.0, 9.0], [2.0, 3.0], [3.6, 6.5], [0.5, 0.1]])
skewed = torch.tensor([[6.0, 4, 16], [8, 4, 14], [7, 4, 12], [5, 8, 14], [4, 2, 4], [4, 0, 2],
                         [6, 4, 16], [0, 8, 16]])  # only distances to the means give this answer
ask_skewed = torch.tensor([[12.0, 10, 8], [9, 10, 0], [9, 0, 1], [0, 6, 8], [12, 7, 7]])
of_skewed = torch.tensor([0, 0, 0, 1, 1, 1, 3, 3])
check(
    "3.4", nearest_class_mean,
    [((points, torch.tensor([0, 0, 2, 2, 2, 255]), asked, 4), torch.tensor([0, 2, 2, 2])),
     ((points, torch.tensor([1, 1, 2, 2, 2, 255]), asked, 3), torch.tensor([1, 2, 2, 2])),
     ((torch.tensor([[0.0, 3.5], [2.0, 2.0]]), torch.tensor([0, 1]), torch.zeros(1, 2), 2),
      torch.tensor([1])),
     ((skewed, of_skewed, ask_skewed, 5), torch.tensor([0, 1, 1, 1, 1])),
     ((skewed, of_skewed, ask_skewed, 5), Property(
         "of dtype int64, as classes are", lambda found: found.dtype == torch.int64))],
    hint="distances to the means, not to single features, not angles, of the channels as they are; 255 "
    "is no class, and a class without features has no mean (zeros would win near the origin)",
)

# %% [markdown]
# ### One more question

# %% tags=["quiz"]
quiz(
    "A linear probe reads 69 of 100 old locations from the features after step 1; by chance it would be 14. Do they remember step 0?",
    [
        ("A part: compare with an untrained network and with step 0",
         "Right. On the scale from 51 (never trained) to 80 (after step 0) less than two thirds are left."),
        ("Yes, 69 is far above chance",
         "Chance is the wrong floor. The probe learns from labelled features and reads half of them even from a network that has never been trained."),
    ],
    right=0,
)
