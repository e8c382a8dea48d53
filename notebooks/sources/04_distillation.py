# %% [raw]
# title: Distillation and background shift
# goals:
#   - write the distillation losses of LwF and ILT, and say what the frozen teacher can and cannot tell the student
#   - derive MiB's unbiased cross-entropy and distillation, and draw the push that each loss gives to one pixel
#   - work out the weight from which distillation outvotes a wrong background label (and, in the further part, compare it with real runs)
#   - take MiB apart, and say over three seeds which of its parts carries it on MiniVOC
# summary:
#   - Both are a few lines. The teacher finds most hidden old pixels, but calls most pixels of new classes an old class that looks like them.
#   - Sum the probabilities of whatever may hide behind "background", then take the logarithm. Cross-entropy then never pushes the logit of a hidden old class down; distillation is at rest where background and new classes together have what the teacher gives to background, so a new class may grow there at background's cost, and hardly anywhere else.
#   - From the number of old classes divided by the teacher's margin, so never below 7 here, for a pixel that settles on its own. In real runs of LwF and ILT next to nothing is kept at weights up to 3, 16 and 23 in the two trials at 5 and 6, and more than 40 in eleven of fourteen above 10; the other three broke.
#   - The unbiased cross-entropy, together with some distillation. Without it, at MiB's weight of distillation, the old classes drop to zero; at ten times that weight, in the unbiased form, a part of them stays, and the new ones are lost; LwF, the same weight in the plain form, keeps 51 of both. At MiB's weight the form of distillation makes no difference to all classes that three seeds could show; at LwF's the unbiased one costs the new classes 34 points, two thirds of what they have. The classifier start costs MiB two points on 6-4 disjoint; on 6-1 overlapped it was measured beside SDR's losses alone, and gains eight there.
# ends_with: MiB, the baseline on which SDR builds
# reading_minutes: 60
# further_minutes: 30
# prerequisites: ["00", "01", "02", "03"]
# differs:
#   - Distillation is a mean over pixels and old classes, as in the released codes of the family. The formulas of LwF and MiB sum over classes; to mean the same here, their weights are multiplied by K_old.
#   - LwF softens both distributions with a temperature; here, as in the released codes of the family, there is none.
#   - ILT's paper also tries a frozen encoder; here the encoder always learns, held by the feature term alone.
#   - Learning rates and weights were searched on MiniVOC with the same budget for every method (benchmarks/README.md). They are not those of the papers.
# references:
#   - "LwF: Li & Hoiem, Learning without Forgetting, ECCV 2016 and TPAMI 2018; distillation is equation 2."
#   - "ILT: Michieli & Zanuttigh, Incremental Learning Techniques for Semantic Segmentation, ICCV Workshops 2019; feature distillation is section 4.2."
#   - "MiB: Cermelli et al., Modeling the Background for Incremental Learning in Semantic Segmentation, CVPR 2020; section 3, equations 5 and 6 (cross-entropy), 7 and 8 (distillation), 9 and 10 (classifier)."

# %% [markdown]
# Chapter 03 ended at the lower bound: nothing in the loss of step 1 speaks for the old classes, so they are gone. Yet something that knows
# them is still there. The network of the step before, $M_{k-1}$, can be kept, frozen, and asked about every new image. It is called the
# **teacher**; the network that learns is the **student**. Holding a student to its teacher's answers is called **knowledge distillation**.
#
# The chapter goes from the obvious losses (LwF, ILT) to what is wrong with them when "background" changes its meaning, and from there
# to MiB, which repairs it with two sums and an initialisation. Then it takes MiB apart again.

# %% tags=["setup"]
import math

import numpy as np
import pandas as pd
import torch
import torch.nn.functional as F  # noqa: F401, for your answers
from matplotlib.patches import Patch

from sparcl_lib import losses
from sparcl_lib.course import (
    WithGradient, check, compare_guess, explore, guess_first, minivoc_config, panels, quiz,
    run_or_load, run_or_load_all, show,
)  # fmt: skip
from sparcl_lib.data import remap_labels
from sparcl_lib.data.loading.transforms import normalise
from sparcl_lib.models import grow, predict
from sparcl_lib.report.differences import gains_text, paired_gains
from sparcl_lib.tasks import training_table
from sparcl_lib.training.evaluation import picture_arrays
from sparcl_lib.training.workspace import open_workspace
from sparcl_lib.viz import class_palette, colorize, method_styles, prediction_strips

# %% [markdown]
# ## What the teacher still knows
#
# Step 1 of task 6-4, disjoint. Its teacher is $M_0$, and $M_0$ is the same for all methods of this chapter: at step 0 there is no old class
# and no teacher, so all that they add to cross-entropy is silent, and with the same seed they train the same network. The library trains it
# once and shares it. We take it from the run of fine-tuning, where chapter 03 has met it.

# %%
workspace = open_workspace(minivoc_config("FT"), progress=False)
task, names = workspace.task, workspace.task.class_names(1)
num_old, num_new = 7, 4  # K_old counts background
METHODS = ("FT", "LwF", "ILT", "MiB", "Joint")
runs = run_or_load_all(  # kept with the course; trained side by side where they are not
    {name: minivoc_config(name) for name in METHODS}, checkpoints=("FT", "MiB", "Joint")
)
teacher = runs["FT"].model(0)  # M_0, frozen
first_steps = {runs[name].first.path for name in METHODS[:4]}
print(f"step 0 of four methods: {len(first_steps)} network")
assert len(first_steps) == 1

# %% [markdown]
# Every image of step 1 has at least one of the four new classes. Old objects are in these pictures too, but their label says background.
# MiniVOC's masks know better, so we can look at what is hidden: `target` is what the student is given, `truth` is what is there. (In both, the
# border of an object is background, black; in test masks, further down, it does not count and is hatched.)

# %%
pairs = [workspace.train_reader(image_id) for image_id in workspace.train_ids[1][:128]]
images = torch.stack([image for image, _ in pairs])  # (128, 3, 64, 64) uint8
masks = torch.stack([mask for _, mask in pairs])  # (128, 64, 64)
target = remap_labels(masks, training_table(task, 1, "disjoint"))  # old classes are 0
truth = remap_labels(masks, training_table(task, 1, "sequential"))  # nothing is hidden

with torch.inference_mode():
    answer = teacher(normalise(images))  # logits (128, 7, 64, 64), features (128, 64, 16, 16)
hidden = (truth > 0) & (truth < num_old)  # old classes, labelled background
new = truth >= num_old
says = answer.logits.argmax(dim=1)

# %%
found = 100 * (says == truth)[hidden].float().mean()
as_background = 100 * (says == 0)[new].float().mean()
print(f"hidden pixels of old classes: the teacher is right on {found:.0f} %")
print(f"pixels of new classes: it says background on {as_background:.0f} %,")
print(f"    one of its old classes on {100 - as_background:.0f} %")
assert found > 70 and 15 < as_background < 45

# %% tags=["draw"]
both = hidden.sum((1, 2)) * new.sum((1, 2))  # large where old and new classes are in sight
order = torch.argsort(both, descending=True)[:6]
photos = images[order].permute(0, 2, 3, 1).numpy()
task_names = workspace.step_names


def draw_teacher(picture):
    rows = slice(picture, picture + 1)
    columns = {"label of step 1": target[order], "teacher says": says[order]}
    columns = {name: labels[rows].numpy().astype(np.uint8) for name, labels in columns.items()}
    whole = truth[order][rows].numpy().astype(np.uint8)
    return prediction_strips(photos[rows], whole, columns, names, task_names[1])


explore(
    draw_teacher, "A training image of step 1, its true mask, its label without the old disc, and "
    "the teacher's answer: the disc is there, and the stars are squares and triangles",
    picture=list(range(6)),
)  # fmt: skip

# %% [markdown]
# Two facts to keep in mind. The teacher gives back most of what the labels hide: that is what distillation lives on. And of what it has
# never learned it has an opinion all the same, often a wrong one: a new object is not always background to it. It may be the old
# class that looks most like it.
#
# ## Distillation in its plain form
#
# Let $t_{ic}$ be the teacher's probability of class $c$ at pixel $i$, and $s_{ic}$ the student's, taken by a softmax over its **first
# $K_{old}$ logits only**. Output distillation (LwF, equation 2) is the cross-entropy between the two, with the teacher's answer in the
# place of the label:
#
# $$\mathcal L_{kd} = -\frac{1}{N K_{old}} \sum_{i=1}^{N} \sum_{c=0}^{K_{old}-1} t_{ic} \log s_{ic}$$
#
# with $N$ pixels. ILT adds a second hold, further inside: the encoder's features shall stay where they were (section 4.2).
#
# $$\mathcal L_{feat} = \frac{1}{N D} \sum_{i=1}^{N} \lVert f_i - f_i^{\,k-1} \rVert^2$$
#
# Here $N$ counts the locations of the feature map and $f^{\,k-1}$ comes from the teacher's encoder. Both as code that hides nothing:

# %%
def softmax(logits):  # (B, K, H, W) -> (B, K, H, W)
    powers = logits.exp()
    return powers / powers.sum(dim=1, keepdim=True)


def plain_distillation(logits, teacher_logits):  # (B, K, H, W), (B, K_old, H, W) -> scalar
    classes = teacher_logits.shape[1]
    t, s = softmax(teacher_logits), softmax(logits[:, :classes])
    total = 0
    for c in range(classes):
        total = total - (t[:, c] * s[:, c].log()).mean()  # mean over pixels
    return total / classes


def plain_feature_distillation(features, teacher_features):  # twice (B, D, h, w) -> scalar
    channels = features.shape[1]
    total = 0
    for d in range(channels):
        total = total + ((features[:, d] - teacher_features[:, d]) ** 2).mean()
    return total / channels

# %%
generator = torch.Generator().manual_seed(0)
z = 3 * torch.randn(2, num_old + num_new, 8, 8, generator=generator)  # a student's logits
z_teacher = 3 * torch.randn(2, num_old, 8, 8, generator=generator)
f, f_teacher = torch.randn(2, 2, 64, 4, 4, generator=generator)

kd = plain_distillation(z, z_teacher)
features = plain_feature_distillation(f, f_teacher)
print(f"distillation {kd:.3f}, of features {features:.3f}: the library says the same")
assert torch.isclose(kd, losses.knowledge_distillation(z, z_teacher))
assert torch.isclose(features, losses.feature_distillation(f, f_teacher))

# %% [markdown]
# Four methods, in the language of the course's configurations: a list of weighted terms.

# %%
for name in ("FT", "LwF", "ILT", "MiB"):
    method = minivoc_config(name).method
    terms = [
        f"{term.weight:g} x {'unbiased ' if term.options.get('unbiased') else ''}{term.name}"
        for term in method.terms
    ]
    rate = minivoc_config(name).optim.lr[1]  # of step 1
    print(f"{name}: {' + '.join(terms)}; rate {rate:g}; new classifier: {method.classifier_init}")

# %% [markdown]
# ## Background shift on one pixel
#
# Why does MiB want its terms "unbiased"? Take a small network: background, two old classes (disc, triangle), two new ones (star,
# bar), so $K_{old} = 3$. And take two pixels of an image of step 1, with made-up numbers:
#
# - a **hidden** pixel: it is a triangle, and the label says background, since triangles are no longer labelled;
# - an **unseen** pixel: it is a star and labelled so; the teacher, who knows no stars, says background (as the real one does on three of ten new pixels).
#
# What a loss wants from a pixel is its gradient at the logits. Minus the gradient is the **push**: positive, and the next update raises
# that logit. For cross-entropy with label $y$ it is $[c = y] - q_c$, with the student's softmax $q$ over *all* logits (chapter 03); for plain distillation it is $(t_c - s_c) / K_{old}$ at the old
# logits, and nothing at the new ones, which take no part.

# %%
TOY = ("background", "disc", "triangle", "star", "bar")
PIXELS = {
    "hidden": {
        "label": 0, "teacher": [0.04, 0.03, 0.93], "student": [0.10, 0.04, 0.80, 0.03, 0.03]
    },
    "unseen": {
        "label": 3, "teacher": [0.90, 0.06, 0.04], "student": [0.40, 0.04, 0.06, 0.45, 0.05]
    },
}

# %%
def as_logits(probabilities):  # K numbers -> (1, K, 1, 1)
    return torch.tensor(probabilities).log()[None, :, None, None]


def push(loss, pixel, *others):
    """Minus the gradient of loss(logits, *others) at the pixel's logits: (K,)."""
    logits = as_logits(pixel["student"]).requires_grad_()
    loss(logits, *others).backward()
    return 0 - logits.grad.flatten()


def pushes(pixel):  # what plain cross-entropy and plain distillation want
    label, known = torch.full((1, 1, 1), pixel["label"]), as_logits(pixel["teacher"])
    return {
        "cross-entropy": push(losses.cross_entropy, pixel, label),
        "distillation": push(losses.knowledge_distillation, pixel, known),
    }

# %%
wanted = {
    (f"{name} pixel", loss): values.tolist()
    for name, pixel in PIXELS.items()
    for loss, values in pushes(pixel).items()
}
pd.DataFrame(wanted, index=TOY).T.round(3)
assert np.allclose(wanted["hidden pixel", "cross-entropy"], [0.9, -0.04, -0.8, -0.03, -0.03])
assert wanted["unseen pixel", "distillation"][0] > 0

# %% tags=["draw"]
WHO = ("student", "teacher")


INKS = {"student": "#0072b2", "cross-entropy": "#c44e00", "plain": "#00855f"}  # of each pair


def bars(axes, series, title, legend=True):
    """Grouped bars, one group for each class of TOY; the teacher has none for the new ones."""
    ink = INKS[next(iter(series))]
    for (name, values), face, side in zip(series.items(), (ink, "white"), (-0.2, 0.2)):
        place = np.arange(len(values)) + side
        axes.bar(place, values, 0.36, color=face, edgecolor=ink, label=name)
    axes.axhline(0, color="#222222", linewidth=0.8)
    axes.axvline(2.5, color="#222222", linewidth=0.8, linestyle=":")  # old | new
    axes.set_xticks(range(len(TOY)), TOY, rotation=20)
    axes.set_title(title)
    if legend:
        axes.legend(loc="upper right")


# %% tags=["draw"]
def draw_plain():
    figure, grid = panels(columns=2, rows=2, width=7.6, height=4.1, sharex=True, sharey="col")
    for row, (name, pixel) in zip(grid, PIXELS.items()):
        said = {who: pixel[who] for who in WHO}
        title = f"{name} pixel, labelled {TOY[pixel['label']]}: probabilities"
        bars(row[0], said, title, name == "unseen")
        bars(row[1], pushes(pixel), f"{name} pixel: push of the plain losses", name == "hidden")
    grid[-1, 0].set_xlabel("left of the dotted line old classes, right of it new ones")
    return figure


show(
    draw_plain(), "Two pixels. Hidden: cross-entropy pushes background up and the triangle down, "
    "distillation the other way but weakly. Unseen: distillation pushes background up.",
)  # fmt: skip

# %% [markdown]
# **Hidden pixel.** Cross-entropy pushes the triangle down by 0.8, because the label calls it background. This is not noise that averages
# out: every hidden pixel of every image says it. Distillation disagrees, quietly: its push is divided by $K_{old}$, and is small as long as the
# student still agrees with the teacher (0.85 against 0.93, over the old logits alone).
#
# **Unseen pixel.** Distillation wants more background, where the label says star. And it is blind to the new logits, since $s$ is a softmax
# over the old ones alone. If new classes took over all triangles, plain distillation would not notice.

# %%
quiet, loud = z.clone(), z.clone()
loud[:, num_old:] += 10  # the new classes win everywhere
difference = plain_distillation(loud, z_teacher) - plain_distillation(quiet, z_teacher)
taken = softmax(loud)[:, num_old:].sum(dim=1).mean()
print(f"new classes hold {100 * taken:.1f} %: distillation changes by {difference:.3f}")
assert difference == 0 and taken > 0.99

# %% [markdown]
# ### Who wins the tug of war?
#
# On a hidden pixel, plain cross-entropy wants background and distillation with weight $\lambda$ wants the teacher's answer $t$. Suppose the
# network could settle every pixel on its own, and was trained until nothing pushes any more. Where does such a pixel come to rest?
#
# 1. New classes: cross-entropy pushes them down ($-q_c$) and distillation does not touch them, so in the end they have nothing. The old
#    logits then share all of the probability, and the student's two softmaxes are the same: $s_c = q_c$.
# 2. Background and old classes: at rest the two pushes cancel,
#
#    $$[c = 0] - q_c + \frac{\lambda}{K_{old}} (t_c - q_c) = 0$$
#
# 3. Solved for $q_c$, that is the weighted mean of what the label says and what the teacher says:
#
#    $$q_c = \frac{[c = 0] + \frac{\lambda}{K_{old}}\, t_c}{1 + \frac{\lambda}{K_{old}}}$$
#
# The old class $c$ beats background, $q_c > q_0$, when $\frac{\lambda}{K_{old}} t_c > 1 + \frac{\lambda}{K_{old}} t_0$, that is, if $t_c > t_0$,
#
# $$\lambda > \frac{K_{old}}{t_c - t_0} \ge K_{old}$$
#
# (If the teacher itself prefers background, no weight helps.) Below $\lambda = K_{old}$ **no** such pixel keeps its class, however sure the
# teacher is. First the check that the library's two
# losses really cancel there:

# %%
def resting_point(t, weight):  # (K_old,) -> (K_old,) probabilities
    share = weight / len(t)
    wrong_label = torch.zeros(len(t))
    wrong_label[0] = 1
    return (wrong_label + share * t) / (1 + share)


sure = torch.tensor([0.04, 0.93, 0.006, 0.006, 0.006, 0.006, 0.006])  # K_old = 7 as in MiniVOC
rests = {}
for weight in (1, 5, 10, 100):
    rest = {"student": resting_point(sure, weight).tolist()}
    total = push(losses.cross_entropy, rest, torch.zeros(1, 1, 1, dtype=torch.int64))
    total = total + weight * push(losses.knowledge_distillation, rest, as_logits(sure.tolist()))
    background, old_class = rest["student"][:2]
    largest = total.abs().max().item()
    rests[weight] = {"background": background, "the class": old_class, "largest push": largest}
print(f"equal at weight {7 / (0.93 - 0.04):.2f}")
pd.DataFrame(rests).T.rename_axis("weight").round(2)
assert max(rest["largest push"] for rest in rests.values()) < 1e-5

# %% tags=["draw"]
def draw_tug(sureness, old_classes):
    weights = np.geomspace(0.3, 300, 200)
    share, unsure = weights / old_classes, 0.04  # the teacher's background
    figure, axes = panels(width=7, height=2.7)
    axes.plot(weights, (1 + share * unsure) / (1 + share), "--", color="#222222", label="background")
    axes.plot(weights, share * sureness / (1 + share), color="#0072b2", label="the old class")
    threshold = old_classes / (sureness - unsure)
    axes.axvline(threshold, color="#d55e00", linestyle=":", label=f"equal at {threshold:.1f}")
    axes.set(xscale="log", xlabel="weight of distillation", ylabel="probability", ylim=(0, 1))
    axes.set_title(f"one hidden pixel, teacher {sureness:.2f} sure, $K_{{old}}$ = {old_classes}")
    axes.legend()
    return figure


explore(
    draw_tug, "Probability of background falls and that of the old class rises with the weight; "
    "they cross a little above K_old", sureness=[0.93, 0.7, 0.5], old_classes=[7, 16, 21, 101],
)  # fmt: skip

# %% [markdown]
# So a weight does not carry over from one task to another: with more old classes the same weight is less. The 100 that released codes give
# to plain distillation is well above the 11 to 20 old classes of the usual tasks on VOC, and below the 101 of 100-50 on ADE20K. Move the
# sliders. A large weight has its price, too, as the last experiment of the core shows.

# %% [markdown]
# ## MiB: say what background may mean
#
# Instead of outvoting a wrong label, MiB reads it correctly.
#
# **Cross-entropy, step by step.**
#
# 1. At step $k$, label 0 means "none of $\mathcal C_k$". So the pixel is background *or* an old class, $K_{old}$ possibilities of which
#    only one is true (or, in overlapped, a future class, for which there is no logit yet). The probability of "one of these" is their sum.
#    For labels of new classes nothing changes:
#
#    $$\tilde q_0 = \sum_{c=0}^{K_{old}-1} q_c, \qquad \tilde q_c = q_c \ \text{ for new } c$$
#
# 2. The loss is the usual one, with $\tilde q$ for $q$ (MiB, equations 5 and 6): $\mathcal L = -\frac1N \sum_i \log \tilde q_{i, y_i}$.
# 3. For code that does not overflow, write $q_c = e^{z_c} / \sum_j e^{z_j}$ with logits $z$, and $\mathrm{lse}$ for log-sum-exp:
#
#    $$\log \tilde q_0 = \mathrm{lse}(z_0, \dots, z_{K_{old}-1}) - \mathrm{lse}(z_0, \dots, z_{K-1})$$
#
# 4. The push on an old or background logit of a pixel labelled 0 is $q_c / \tilde q_0 - q_c = q_c \frac{1 - \tilde q_0}{\tilde q_0} \ge 0$.
#    No old logit is ever pushed down by a background label. But the push is in proportion to what a class has already, so background may
#    outgrow a hidden class: the loss asks only that the *new* classes keep out.

# %%
def plain_unbiased_cross_entropy(logits, target, num_old):  # (B, K, H, W), (B, H, W) -> scalar
    q = softmax(logits)
    total, pixels = 0, 0
    for y in range(logits.shape[1]):
        here = target == y  # (B, H, W)
        if y < num_old:  # background, or an old class
            merged = q[:, :num_old].sum(dim=1)
        else:
            merged = q[:, y]
        total = total - merged[here].log().sum()
        pixels = pixels + here.sum()
    return total / pixels

# %%
generator = torch.Generator().manual_seed(1)
y = torch.randint(num_old, num_old + num_new, (2, 8, 8), generator=generator)
y[torch.rand(y.shape, generator=generator) < 0.6] = 0  # most pixels are labelled background
y[0, 0] = 255  # a row that does not count
ce = plain_unbiased_cross_entropy(z, y, num_old)
log_q0 = z[:, :num_old].logsumexp(dim=1) - z.logsumexp(dim=1)
print(f"unbiased cross-entropy {ce:.3f}: plain, library and log-sum-exp agree")

q = torch.tensor([0.60, 0.01, 0.05, 0.20, 0.14])  # background, disc, triangle | star, bar
wish = push(losses.unbiased_cross_entropy, {"student": q.tolist()}, torch.zeros(1, 1, 1).long(), 3)
after = softmax((q.log() + 0.5 * wish)[None])[0]  # one step of size 0.5 along the push
print(f"one step: background {q[0]:.3f} -> {after[0]:.3f}, triangle {q[2]:.3f} -> {after[2]:.3f}")
assert (wish[:3] > 0).all() and after[2] < q[2] and after[0] > q[0]
assert torch.isclose(ce, losses.unbiased_cross_entropy(z, y, num_old))
assert torch.allclose(log_q0, softmax(z)[:, :num_old].sum(dim=1).log(), atol=1e-5)

# %% [markdown]
# **Distillation, step by step.**
#
# 1. The teacher's "background" means "none of the classes I knew". In the student's words: background *or* a new class.
# 2. So it is compared with the sum of those (MiB, equations 7 and 8), and each old class with itself, now with the student's softmax over
#    **all** logits:
#
#    $$\hat q_0 = q_0 + \sum_{c \ge K_{old}} q_c, \qquad \hat q_c = q_c \ \text{ for old } c, \qquad
#    \mathcal L_{kd} = -\frac{1}{N K_{old}} \sum_i \sum_{c=0}^{K_{old}-1} t_{ic} \log \hat q_{ic}$$
#
# 3. In logits:
#
#    $$\log \hat q_0 = \mathrm{lse}(z_0, z_{K_{old}}, \dots, z_{K-1}) - \mathrm{lse}(z_0, \dots, z_{K-1})$$
#
# 4. The push is $(t_c - q_c) / K_{old}$ on an old class, and $\frac{1}{K_{old}}\, q_c \frac{t_0 - \hat q_0}{\hat q_0}$ on background and on
#    each new class. It rests as soon as $\hat q = t$, however $\hat q_0$ is shared out between background and new classes: that is for the
#    labels to say.

# %%
def plain_unbiased_distillation(logits, teacher_logits):  # (B, K, H, W), (B, K_old, H, W)
    classes = teacher_logits.shape[1]
    t, q = softmax(teacher_logits), softmax(logits)
    total = 0
    for c in range(classes):
        merged = q[:, c]
        if c == 0:
            merged = q[:, 0] + q[:, classes:].sum(dim=1)  # background, or a new class
        total = total - (t[:, c] * merged.log()).mean()
    return total / classes


unbiased = plain_unbiased_distillation(z, z_teacher)
print(f"unbiased distillation {unbiased:.3f}: plain and library agree")
assert torch.isclose(unbiased, losses.unbiased_knowledge_distillation(z, z_teacher))

# %% [markdown]
# ### The same pixels again
#
# Plain and unbiased side by side (mind the two scales: distillation is divided by $K_{old}$ and waits for its weight), and a third pixel that
# the real teacher above has taught us to expect, a **look-alike**: a bar, labelled so, which the teacher takes for a triangle.

# %%
LOOK_ALIKE = {
    "label": 4, "teacher": [0.20, 0.02, 0.78], "student": [0.15, 0.02, 0.23, 0.05, 0.55],
}  # fmt: skip
THREE = {**PIXELS, "look-alike": LOOK_ALIKE}


def compared(pixel):
    """Loss -> plain and unbiased push."""
    label, known = torch.full((1, 1, 1), pixel["label"]), as_logits(pixel["teacher"])
    plain = pushes(pixel)
    return {
        "cross-entropy": {
            "plain": plain["cross-entropy"],
            "unbiased": push(losses.unbiased_cross_entropy, pixel, label, 3),
        },
        "distillation": {
            "plain": plain["distillation"],
            "unbiased": push(losses.unbiased_knowledge_distillation, pixel, known),
        },
    }

# %% tags=["draw"]
def draw_compared():
    figure, grid = panels(columns=2, rows=3, width=7.8, height=4.9, sharex=True, sharey="col")
    for row, (name, pixel) in zip(grid, THREE.items()):
        for axes, (loss, kinds) in zip(row, compared(pixel).items()):
            bars(axes, kinds, f"{name}: push of {loss}", (name, loss) == ("hidden", "cross-entropy"))
    return figure


show(
    draw_compared(), "Three pixels, their plain and unbiased pushes. Unbiased "
    "cross-entropy no longer pushes the hidden triangle down; unbiased distillation rests on the "
    "unseen pixel and pushes the look-alike's true class down.",
)  # fmt: skip

# %% tolerance={"abs": 0.001, "spread": 1e-08}
places = {  # pixel, loss, and the class whose push we look at
    "hidden: cross-entropy on the triangle": ("hidden", "cross-entropy", 2),
    "unseen: distillation on background": ("unseen", "distillation", 0),
    "look-alike: distillation on the bar": ("look-alike", "distillation", 4),
}
at = {
    place: {kind: values[c].item() for kind, values in compared(THREE[pixel])[loss].items()}
    for place, (pixel, loss, c) in places.items()
}
pd.DataFrame(at).T.round(3) + 0.0  # no -0
assert at["hidden: cross-entropy on the triangle"]["plain"] < -0.7
assert at["hidden: cross-entropy on the triangle"]["unbiased"] > 0
assert at["unseen: distillation on background"]["plain"] > 0
assert compared(THREE["unseen"])["distillation"]["unbiased"][[0, 3, 4]].abs().max() < 1e-6
assert at["look-alike: distillation on the bar"]["plain"] == 0
assert at["look-alike: distillation on the bar"]["unbiased"] < -0.1

# %% [markdown]
# The hidden triangle is left in peace, even lifted a little. The unseen star is left to its label: there, background and new classes
# together have just what the teacher gave to background. The look-alike is another matter: the teacher takes the bar for a triangle, and the
# sum joins new classes with background only. Here unbiased distillation pushes the true class *down*, and plain
# distillation, blind to new logits, does not. Remember this pixel; it comes back twice.
#
# ### A fair start for the new classifier
#
# The third part of MiB (equations 9 and 10, built in chapter 02) is where the student begins. The weights of each new class are a copy of
# those of background, and all of their biases are $b_0 - \log(N_{new} + 1)$, background's own as well. So what the teacher calls
# background is shared out evenly between background and the new classes, and every old class keeps its probability to the digit. A random
# start, the alternative, leaves the new logits near zero, far below a confident background. The further part looks at the first iterations
# of both.
#
# ## Four methods, one task
#
# Task 6-4, disjoint, seed 0; all share step 0. Joint, the upper bound, sees all ten classes at once.

# %%
def scores(run):
    """mIoU after step 1; old is without background."""
    matrix = run.matrix
    return {"old": matrix.miou_old_no_bg(1), "new": matrix.miou_new(1), "all": matrix.miou_all(1)}


table = pd.DataFrame({name: scores(run) for name, run in runs.items()}).T
table.round(1)
assert table.loc["FT", "old"] < 5 and table.loc[["LwF", "ILT"], "old"].min() > 40

# %% [markdown]
# Distillation brings back most of what FT loses, and MiB stands between LwF and Joint. One seed proves no ranking; here are three, as many
# as [benchmarks](../benchmarks/README.md) has of LwF and ILT. What counts is the difference on the same seed, as in chapter 03: its mean,
# and the 95 % interval of 4.30 standard errors to both sides (Student's factor for two degrees of freedom). Three seeds make a wide one. From
# here on `paired_gains` works out such tables, and a star says that the interval leaves zero out.

# %%
study = pd.read_csv("../benchmarks/studies/minivoc_comparison/results.csv")
study = study.query("task == '6-4' and setup == 'disjoint' and step == 1 and seed < 3")
by_seed = study.pivot(index="seed", columns="method", values="miou_all")[list(METHODS)]
by_seed.round(1)

# %%
against = [(name, "MiB") for name in METHODS if name != "MiB"] + [("ILT", "LwF")]
pairs = {" minus ".join(two): two for two in against}
ahead = paired_gains(study, pairs, {"mIoU of all classes": "miou_all"})
low, high = (ahead["mIoU of all classes", end] for end in ("low", "high"))
by_hand = by_seed["Joint"] - by_seed["MiB"]
gains_text(ahead)
assert np.isclose(high["Joint minus MiB"], by_hand.mean() + 4.30 * by_hand.std() / 3**0.5, rtol=1e-3)
assert high[["FT minus MiB", "LwF minus MiB", "ILT minus MiB"]].max() < -4 and low["Joint minus MiB"] > 3
assert low["ILT minus LwF"] < 0 < high["ILT minus LwF"]

# %% [markdown]
# MiB is eight to nine points above LwF and ILT, and five below Joint, with intervals that leave zero far outside. LwF and ILT
# three seeds cannot tell apart (last row); the search gave the feature term a small weight.
#
# The same on single test images: what the teacher says, and what three of the methods make of it.

# %%
pictures = workspace.picture_batches()
models = {
    "teacher": teacher, "FT": runs["FT"].model(1), "MiB": runs["MiB"].model(1),
    "Joint": runs["Joint"].model(0),  # its only step
}  # fmt: skip
arrays = {name: picture_arrays(model, pictures) for name, model in models.items()}

# %% tags=["draw"]
def draw_strips(picture):
    rows, shown = slice(picture, picture + 1), arrays["FT"]
    predictions = {name: array["prediction"][rows] for name, array in arrays.items()}
    return prediction_strips(
        shown["images"][rows], shown["truth"][rows], predictions, names, task_names[1]
    )


alt = "Test image, truth, and predictions of the teacher, FT, MiB and Joint"
explore(draw_strips, alt, picture=list(range(6)))

# %% [markdown]
# ## MiB in parts
#
# Take one part away at a time. The weight of distillation stays what the search found for the whole of MiB.
#
# **Predict before you run:** MiB with *plain* cross-entropy, still with unbiased distillation and the fair start. What mIoU is left of the
# old classes, in percent? All of MiB has about 60. The weight is printed near the top, and the tug of war has its threshold (for plain
# distillation; but at rest, with new classes at nothing, the unbiased one pushes in the same way).

# %% tags=["predict"]
my_guess = None  # a number from 0 to 100, or "pass"
guess_first(my_guess, 0, 100)

# %%
PARTS = {
    "MiB": (),
    "biased CE": ("method.terms.ce.unbiased=false",),  # the plain cross-entropy
    "biased KD": ("method.terms.kd.unbiased=false",),
    "random start": ("method.classifier_init=random",),
}
part_runs = run_or_load_all(
    {name: minivoc_config("MiB", *change) for name, change in PARTS.items()}
)
live = pd.DataFrame({name: scores(run) for name, run in part_runs.items()}).T
compare_guess("old classes with biased cross-entropy", my_guess, live.loc["biased CE", "old"])
live.round(1)
assert live.loc["biased CE", "old"] < 5

# %% [markdown]
# (*Biased* is the plain form of a loss, as settings and tables call it.) One seed again. The same over seeds 0, 1, 2 (`benchmarks/studies/mib_parts/variants.yaml`), each minus the whole of MiB on the same seed; the
# third variant, far below, is in the table.

# %%
measured = pd.read_csv("../benchmarks/studies/mib_parts/results.csv").query("step == 1")
short = {"method": "variant", "miou_old_no_bg": "old", "miou_new": "new", "miou_all": "all"}
parts = measured.rename(columns=short)[["seed", *short.values()]]
here = parts[parts["seed"] == 0].set_index("variant")[["old", "new", "all"]]
assert ((here - live.loc[here.index]).abs() < 2).all(axis=None)  # the live runs are these

# %% tags=["draw"]
wide = parts.pivot(index="seed", columns="variant")  # columns: (measure, variant)


def draw_parts():
    figure, axes = panels(columns=3, width=9, height=2.6, sharey=True)
    shown = ["biased KD", "random start"]
    for panel, measure in zip(axes, ("old", "new", "all")):
        gain = wide[measure][shown].sub(wide[measure]["MiB"], axis=0)
        for (seed, values), marker in zip(gain.iterrows(), "os^"):
            panel.plot([0, 1], values, "-" + marker, color="#0072b2", linewidth=0.8, label=f"seed {seed}")
        panel.hlines(gain.mean(), [-0.2, 0.8], [0.2, 1.2], color="#c44e00", label="mean")
        panel.axhline(0, color="#222222", linewidth=0.8)
        panel.set_xticks([0, 1], shown)
        panel.set(title=f"mIoU, {measure}", xlim=(-0.4, 1.4))
    axes[0].set_ylabel("minus MiB (points)")
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=4)
    return figure


show(
    draw_parts(), "Differences to MiB on three seeds: with plain distillation old classes are level "
    "and new ones a point or two higher; with a random start all classes are one to three higher",
)  # fmt: skip

# %%
MIOU = {"old": "miou_old_no_bg", "new": "miou_new", "all": "miou_all"}
change = paired_gains(measured, {name: (name, "MiB") for name in list(PARTS)[1:]}, MIOU)
gains_text(change).rename_axis("minus MiB")
assert change.loc["biased CE", ("all", "high")] < -30
assert change.loc["biased KD", ("all", "low")] < 0 < change.loc["biased KD", ("all", "high")]
assert change.loc["biased KD", ("new", "low")] > 0 and change.loc["random start", ("all", "low")] > 0
assert (wide["all"]["random start"] - wide["all"]["MiB"]).between(1, 3).all()

# %% [markdown]
# The opposite experiment, the unbiased cross-entropy without any distillation, stands in another study: task 6-1, overlapped, MiB's rate,
# a random start. What the old classes have after step 1:

# %%
alone = pd.read_csv("../benchmarks/studies/latent_terms/results.csv")
alone = alone.query("task == '6-1' and setup == 'overlapped' and step == 1")
alone = alone.pivot(index="seed", columns="method", values="miou_old_no_bg")
alone = alone[["MiB", "UCE, MiB's rate"]].set_axis(["MiB", "no distillation"], axis=1)
alone.round(1)
assert alone["no distillation"].max() < 10 < 60 < alone["MiB"].min()

# %% [markdown]
# Two more questions to these findings. Does the form of the distillation matter where it is strong, and could a stronger one stand in for the unbiased cross-entropy? Five times MiB's
# weight, 7.5, in both forms; ten times, 14.7, beside the plain cross-entropy; and LwF, whose weight that is, with the unbiased form:

# %%
strong = pd.read_csv("../benchmarks/studies/mib_parts/stronger.csv").query("step == 1")
levels = strong.groupby("method", sort=False)[list(MIOU.values())].mean().set_axis(list(MIOU), axis=1)
forms = {"MiB, KD 7.5": ("MiB, KD 7.5", "MiB, biased KD 7.5"), "LwF": ("LwF, unbiased KD", "LwF")}
form = paired_gains(strong, forms, MIOU)
each = strong.pivot(index="seed", columns="method", values="miou_old_no_bg")["MiB, biased CE, KD 14.7"]
display(levels.round(1))
print("MiB, biased CE, KD 14.7, old classes seed by seed:", *each.round(0).astype(int))
gains_text(form).rename_axis("unbiased minus plain")
assert form.loc["LwF", ("new", "high")] < -30 and form.loc["MiB, KD 7.5", ("new", "mean")] < -15
assert 50 > levels.loc["MiB, biased CE, KD 14.7", "old"] > 15 > levels.loc["MiB, biased CE, KD 14.7", "new"]

# %% [markdown]
# And the start, on the other task, where it is made four times. Chapters 05 to 08 add the losses of SDR to those of MiB. With MiB's start that is called SDR+MiB, with a random one SDR; nothing else differs in the two recipes.

# %%
one_by_one = pd.read_csv("../benchmarks/studies/minivoc_comparison/results.csv")
one_by_one = one_by_one.query("task == '6-1' and setup == 'overlapped' and step in [1, 4]")
by_start = pd.concat([
    paired_gains(rows, {f"SDR minus SDR+MiB, after step {step}": ("SDR", "SDR+MiB")}, MIOU)
    for step, rows in one_by_one.groupby("step")
])
gains_text(by_start)
assert by_start["all", "high"].iloc[1] < -4 and -2 < by_start["all", "mean"].iloc[0] < -0.5

# %% [markdown]
# So on MiniVOC:
#
# - The **unbiased cross-entropy** is what MiB cannot do without: the old classes are at zero on every seed, at this weight of distillation. A weight ten times as large, still in the unbiased form, keeps 18 to 46 of them and hardly a new class. (In the plain form, at a smaller rate, that is LwF: 51 of the old and 51 of the new, nine points below MiB in all.) It
#   does not keep them alone, either. It stops contradicting the teacher; somebody has to ask the teacher.
# - The **unbiased distillation**, at this weight, makes no difference to the mean over all classes that three seeds could show. With LwF's weight and its plain cross-entropy new classes are 34 points
#   better off with the plain one; at 7.5 on MiB 22 in the mean, with zero inside the interval. The look-alike pixel is a possible reason: most new pixels are an old class to this teacher,
#   and there the unbiased form pushes the truth down. And what plain distillation cannot see, new classes spreading over hidden pixels, the
#   unbiased cross-entropy already punishes.
# - The **fair start** costs one to three points on 6-4 disjoint, on each seed. On 6-1 overlapped, beside SDR's losses, it gains one point after the first step and eight after the fourth. (On 6-4 overlapped three seeds show no difference either way.) One task cannot judge it. Its cross-entropy begins higher on 6-4, but only for some tens of iterations, as
#   the further part shows; why the end is lower, these runs do not say.
#
# The table *minus MiB* has nine intervals of 95 %, so one of its stars may be chance. Only its first row is far enough from zero for nine questions at once; the other stars are hints, though all three seeds have the same sign.
#
# This is a finding about a small network, 300 iterations and a teacher that mistakes new classes for old ones. It is no verdict on VOC,
# where MiB (section 4) reports a gain from each part; it is a reason to run the ablation on your own data before keeping a part.
#
# ## How strong a hold?
#
# For MiB the weight of distillation is a matter of balance: too little lets old classes slip, too much leaves no room for new ones. Change the number, run the cell, and step 1 is trained with it, in about half a minute, with a bar. (Step 0 does not
# depend on the weight and is there already; another seed would train both steps.) Then run the next two cells to find your run in the
# figure.

# %% tags=["ablation"]
weight = 1.5  # of MiB's distillation: yours, at first the usual one; try 0.5, 3 or 20
mine = run_or_load(minivoc_config("MiB", f"method.terms.kd.weight={weight}"))

# %%
usual = minivoc_config("MiB").method.term("kd").weight
WEIGHTS = (0.3, usual, 7.5)
swept = run_or_load_all(
    {w: minivoc_config("MiB", f"method.terms.kd.weight={w}") for w in WEIGHTS}
)
sweep = pd.DataFrame({w: scores(run) for w, run in swept.items()}).T
yours = pd.Series(scores(mine), name=f"yours: {weight:g}")
pd.concat([sweep, yours.to_frame().T]).rename_axis("weight").round(1)
assert sweep["all"].idxmax() == usual
assert sweep.loc[usual, "old"] > sweep.loc[0.3, "old"] + 5
assert sweep.loc[7.5, "new"] < sweep.loc[usual, "new"] - 20
assert sweep.loc[0.3, "old"] > 40 and abs(sweep.loc[0.3, "new"] - sweep.loc[usual, "new"]) < 3

# %% tags=["draw"]
def draw_sweep():
    figure, axes = panels(width=7, height=3.2)
    styles = method_styles(["MiB", "Joint"])
    axes.plot(sweep["new"], sweep["old"], styles["MiB"].marker, color=styles["MiB"].color, label="MiB, the sweep")
    for w, row in sweep.iterrows():
        axes.annotate(f"{w:g}", (row["new"], row["old"]), (6, 6), textcoords="offset points")
    axes.plot(yours["new"], yours["old"], "D", color="#d55e00", mfc="none", markersize=13, label=f"MiB, {yours.name}")
    joint = table.loc["Joint"]
    axes.plot(joint["new"], joint["old"], styles["Joint"].marker, color=styles["Joint"].color, markersize=11, label="Joint")
    axes.set(xlabel="mIoU of new classes (%)", ylabel="mIoU of old classes (%)")
    axes.set(title="weight of distillation, seed 0")
    axes.margins(0.15)
    axes.legend(loc="lower left")
    return figure


show(
    draw_sweep(), "Old against new classes at three weights and yours: from 0.3 to the usual one, "
    "1.5, old classes gain, from there to 7.5 only new classes lose; yours is at 1.5 to begin with",
)  # fmt: skip

# %% [markdown]
# Three points on one seed. At 0.3 old classes are given away and new ones gain nothing by it; at 7.5 new classes pay twenty-five points and old
# ones gain nothing. Neither end is near Joint. Where between them the best weight lies, three points do not say. In the search (seed 100) 2.55,
# with a higher rate, is ahead of 1.5 by almost two points; 1.5 stayed because that trial broke in the sequential setup
# ([minivoc_search](../benchmarks/studies/minivoc_search/README.md)).
#
# MiB is the baseline on which SDR builds. What it leaves over is looked at in the further part, and chapters 05 to 07 begin there.
#
# ## Exercises
#
# ### 4.1 Unbiased cross-entropy of one pixel
#
# A label below `num_old` means "background or old", whatever number it carries. Logits can be large: stay in logarithms.

# %% tags=["exercise"]
def unbiased_ce(logits, label, num_old):
    """logits: tensor (K,) of one pixel; label: 0..K-1; num_old: old classes with background.

    Returns the loss of the pixel, a tensor of one number, with a gradient by the logits.
    """
    # SOLUTION
    log_all = torch.logsumexp(logits, dim=0)
    if label < num_old:
        return log_all - torch.logsumexp(logits[:num_old], dim=0)
    return log_all - logits[label]
    # END

# %% tags=["check"]
def of_library(logits, label, num_old):
    target = torch.full((1, 1, 1), label)
    return losses.unbiased_cross_entropy(logits.reshape(1, -1, 1, 1), target, num_old)


one = torch.tensor([1.0, 4.0, 0.0, 2.0, -1.0])
far, large = torch.tensor([-2000.0, -2000.0, 0.0, 0.0, 0.0]), torch.tensor([999.0, 1000.0, 998.0])
cases = [(one, 1, 3), (one, 3, 3), (one, 4, 2), (one, 0, 1), (far, 0, 2), (far, 1, 2), (large, 0, 1),
         (large, 2, 2)]
check(
    "4.1", unbiased_ce,
    [((one, 0, 3), 0.124882), *((case, WithGradient.of(of_library, case)) for case in cases)],
    hint="a label below num_old: logsumexp of all minus logsumexp of the first num_old; another one: "
    "logsumexp of all minus its own logit; exp(-2000) is 0 and exp(1000) inf in any float, so stay "
    "in logarithms",
)  # fmt: skip

# %% [markdown]
# ### 4.2 Its push
#
# Minus the derivative of that loss by every logit, written down by hand: autograd is off in the check.

# %% tags=["exercise"]
def unbiased_push(logits, label, num_old):
    """logits: tensor (K,) of one pixel; label: 0..K-1; num_old: old classes with background.

    Returns the push on each logit, a tensor (K,).
    """
    # SOLUTION
    wanted = torch.zeros_like(logits)
    if label < num_old:
        wanted[:num_old] = logits[:num_old].softmax(dim=0)  # q_c divided by their sum
    else:
        wanted[label] = 1
    return wanted - logits.softmax(dim=0)
    # END

# %% tags=["check"]
def by_autograd(logits, label, num_old):
    z = logits.reshape(1, -1, 1, 1).clone().requires_grad_()
    losses.unbiased_cross_entropy(z, torch.full((1, 1, 1), label), num_old).backward()
    return 0 - z.grad.flatten()


one = torch.tensor([1.0, 4.0, 0.0, 2.0, -1.0])
far, large = torch.tensor([-2000.0, -2000.0, 0.0, 0.0, 0.0]), torch.tensor([999.0, 1000.0, 998.0])
cases = [(one, 0, 3), (one, 1, 3), (one, 3, 3), (one, 4, 2), (one, 0, 1), (far, 0, 2), (large, 2, 2)]
# In inference mode nothing has a gradient.
check(
    "4.2", torch.inference_mode()(unbiased_push), [(case, by_autograd(*case)) for case in cases],
    hint="what the label may mean, as probabilities among themselves, minus q; all K numbers sum to "
    "zero, and a softmax over the first num_old logits divides without underflow; backward() finds no "
    "gradient here, for the formula is asked for",
)  # fmt: skip

# %% [markdown]
# ### 4.3 How much is a weight worth?
#
# From the resting point: plain cross-entropy calls a hidden pixel background, plain distillation with weight $\lambda$ contradicts. For which
# $\lambda$ are background and class $c$ equally probable in the end, when distillation is (a) a mean over the $K_{old}$ classes, as in this
# library, or (b) a sum over them, as in the formulas of LwF and MiB? Where no weight can save the class, the answer is `math.inf`.

# %% tags=["exercise"]
def equal_weight(teacher, c, mean_over_classes):
    """teacher: tensor (K_old,), probabilities at the pixel, background first; c: an old class, not 0.

    Returns the weight at which class c and background are equally probable, a float.
    """
    # SOLUTION
    lead = float(teacher[c] - teacher[0])
    if lead <= 0:
        return math.inf
    return (len(teacher) if mean_over_classes else 1) / lead
    # END

# %% tags=["check"]
sure, torn = torch.tensor([0.1, 0.8, 0.05, 0.05]), torch.tensor([0.3, 0.4, 0.3])
against = torch.tensor([0.6, 0.4])  # the teacher itself says background
check(
    "4.3", equal_weight,
    [((sure, 1, True), 4 / 0.7), ((sure, 1, False), 1 / 0.7), ((torn, 1, True), 30.0),
     ((against, 1, True), math.inf), ((sure, 2, False), math.inf),
     ((torch.tensor([0.4, 0.4, 0.2]), 1, True), math.inf),
     ((torch.tensor([0.2, 0.3, 0.5]), 1, False), 10.0)],
    hint="at rest q_c is proportional to [c = 0] + share * t_c, with share = weight / K_old or "
    "weight; set q_0 = q_c; a class that the teacher puts below background never gets there",
)  # fmt: skip

# %% [markdown]
# ## Quiz

# %% tags=["quiz"]
quiz(
    "A pixel of step 1 is labelled background and the student says \"triangle\" (old) with 0.99. What does the unbiased cross-entropy do?",
    [
        ("It pushes triangle down, to make room for background",
         "That is plain cross-entropy. In the unbiased one, triangle is one of the things that the label may mean."),
        ("It pushes triangle up strongly, as the class that is hidden",
         "It cannot know that triangle is right. It lifts background and old classes in proportion to what they have, and only while new classes hold something."),
        ("It does nearly nothing, for the label is satisfied already",
         "Right. Background and old classes together have at least 0.99, so the loss is at most 0.01 and so is each push."),
    ],
    right=2,
)

# %% tags=["quiz"]
quiz(
    "You go from 6 to 20 old classes and keep plain cross-entropy and plain distillation with weight 15. What does the tug of war predict for a hidden pixel?",
    [
        ("At rest it belongs to background",
         "Right. With background there are 21, the threshold is at least 21, and 15 is below it. Real runs are less sharp: the further part has some that keep 16 and 23 mIoU a little below the threshold."),
        ("At rest it keeps its old class",
         "So it would at 7: the loss is a mean over old classes, and each pixel's pull is 15 / 7 there and 15 / 21 now, less than that of its wrong label."),
    ],
    right=0,
)

# %% tags=["quiz"]
quiz(
    "At a weight of 1.5, without the unbiased cross-entropy MiB loses the old classes; without the unbiased form of distillation it loses nothing. What follows?",
    [
        ("Distillation is of no use to MiB",
         "Its form makes little difference; taking it away does. Without any, the old classes have less than 10 on task 6-1."),
        ("The form of distillation never matters",
         "At a larger weight it does, on this very task: see LwF."),
        ("The form matters little at this weight",
         "Right. A possible reason, not tested: the sum covers only the three in ten of new pixels that the teacher calls background. Where distillation is strong it matters: LwF with the unbiased form loses 34 points of its new classes."),
    ],
    right=2,
)

# %% [markdown]
# ## Further: checks on real pixels and real runs
#
# ### Probabilities that still sum to one
#
# Merging moves probability around and loses none. Merged over the old classes there are $1 + N_{new}$ entries left, merged over the
# new ones $K_{old}$, and each time they sum to one:

# %%
q_map = softmax(z)  # (2, 11, 8, 8)
over_old = torch.cat([q_map[:, :num_old].sum(dim=1, keepdim=True), q_map[:, num_old:]], dim=1)
not_old = q_map[:, :1] + q_map[:, num_old:].sum(dim=1, keepdim=True)  # background, or a new class
over_new = torch.cat([not_old, q_map[:, 1:num_old]], dim=1)
sums = [merged.sum(dim=1) for merged in (over_old, over_new)]
for merged, total in zip((over_old, over_new), sums):
    print(f"{merged.shape[1]} entries, sums between {total.min():.3f} and {total.max():.3f}")
assert all(torch.allclose(total, torch.ones_like(total), atol=1e-5) for total in sums)

# %% [markdown]
# ### Cross-entropy on the hidden pixels of real images
#
# A student at the very start of step 1 (MiB's start), and the push on the *true* class of every hidden pixel: plain cross-entropy is against it
# everywhere, the unbiased one nowhere.

# %%
student = grow(teacher, num_new, "mib").eval()  # its logits: (B, 11, 64, 64)
with torch.inference_mode():
    start = student(normalise(images)).logits


def push_on_truth(loss, *others):
    """Push of a loss on the logit of each pixel's true class, as if it were the only pixel."""
    logits = start.clone().requires_grad_()
    (loss(logits, target, *others) * target.numel()).backward()  # a sum: no pixel here is 255
    return -logits.grad.gather(1, truth.unsqueeze(1)).squeeze(1)  # (128, 64, 64)


real = {
    "plain": push_on_truth(losses.cross_entropy),
    "unbiased": push_on_truth(losses.unbiased_cross_entropy, num_old),
}
for kind, values in real.items():
    print(f"{kind}: mean push on hidden pixels {values[hidden].mean():+.2f}")
assert (real["plain"][hidden] < 0).all() and (real["unbiased"][hidden] > 0).all()

# %% tags=["draw"]
def draw_real(picture):
    place = int(order[picture])
    figure, axes = panels(columns=4, width=9, height=2.9)
    for panel, labels in zip(axes, (truth[place], target[place])):
        panel.imshow(colorize(labels.numpy().astype(np.uint8), len(names)), interpolation="nearest")
    for panel, (kind, values) in zip(axes[2:], real.items()):
        seen = np.where(hidden[place], values[place], np.nan)
        drawn = panel.imshow(seen, cmap="PuOr", vmin=-1, vmax=1, interpolation="nearest")
        panel.set_facecolor("#707070")
    figure.colorbar(drawn, ax=axes[3], label="push").ax.set_ylim(-1, 0.4)
    for panel, title in zip(axes, ("truth", "label of step 1", "plain", "unbiased")):
        panel.set(title=title, xticks=[], yticks=[])
        panel.grid(False)
    palette, shown = class_palette(len(names)) / 255, truth[place].unique().tolist()
    keys = [Patch(color=palette[c], label=names[c]) for c in shown]
    keys.append(Patch(color="#707070", label="no hidden old object"))
    figure.legend(handles=keys, loc="outside lower center", ncols=len(keys))
    return figure


explore(
    draw_real, "On the hidden old objects of a training image, plain cross-entropy pushes the true "
    "class down almost everywhere, the unbiased one slightly up", picture=list(range(6)),
)  # fmt: skip

# %% [markdown]
# ### What the fair start costs
#
# With MiB's start every old class keeps its probability, and background and new classes together have what background had: unbiased
# distillation begins at its lowest possible value, the teacher's own entropy divided by $K_{old}$ (as a random start nearly does, whose new
# classes have next to nothing). And cross-entropy?

# %% tolerance={"abs": 0.001, "spread": 1e-07}
def at_the_start(init):
    torch.manual_seed(0)
    with torch.inference_mode():
        logits = grow(teacher, num_new, init).eval()(normalise(images)).logits
    pixels = {"background": truth == 0, "hidden": hidden, "new": new}
    row = {"distillation": losses.unbiased_knowledge_distillation(logits, answer.logits)}
    for name, where in pixels.items():
        only = torch.where(where, target, 255)  # cross-entropy on these pixels alone
        row[f"CE, {name}"] = losses.unbiased_cross_entropy(logits, only, num_old)
    return {name: float(value) for name, value in row.items()}


starts = pd.DataFrame({init: at_the_start(init) for init in ("mib", "random")}).T
t = softmax(answer.logits)  # (128, 7, 64, 64)
lowest = float(-(t * t.log()).sum(dim=1).mean() / num_old)
print(f"lowest possible distillation: {lowest:.3f}; log(5) = {math.log(num_new + 1):.3f}")
starts.round(3)
assert math.isclose(starts.loc["mib", "distillation"], lowest, rel_tol=1e-3)
assert starts.loc["mib", "CE, new"] < starts.loc["random", "CE, new"]
assert starts.loc["mib", "CE, background"] > 1 > starts.loc["random", "CE, background"]

# %% [markdown]
# The fair start helps the pixels it was made for: the loss of new classes begins lower. It has a price, which is easy to overlook:
# background, most of the picture, has given away four fifths of its probability and must win them back, from a loss of nearly $\log 5$ at
# each such pixel. The logs of the ablation tell the same, and that it is won back soon:

# %%
logs = {name: part_runs[name].log(1) for name in ("MiB", "random start")}  # a row every tenth iteration
first = pd.DataFrame({name: log["ce"].iloc[[0, 1, 5, 10]].to_numpy() for name, log in logs.items()})
first.index = pd.Index([0, 10, 50, 100], name="unbiased cross-entropy at iteration")
first.round(2)
assert (first["MiB"] > first["random start"]).all() and (first.loc[100].diff().abs().dropna() < 0.05).all()

# %% [markdown]
# ### The threshold, and real runs
#
# The tug of war has its threshold at $K_{old} = 7$ for a teacher that is perfectly sure. The real one is not equally sure everywhere. Of the
# hidden pixels of the 128 images above, which share would stand above background at rest, at a given weight? (A few of them below another old class.)

# %%
right_class = truth.clamp(max=num_old - 1).unsqueeze(1)
margin = (t.gather(1, right_class).squeeze(1) - t[:, 0])[hidden]  # t_c - t_0


def survivors(weight):
    """Percent of the hidden pixels whose class beats background at rest."""
    return 100 * float((weight * margin > num_old).float().mean())


winning = {f"weight {w:g}": {"% above background": survivors(w)} for w in (1.5, 5, 7, 10, 15, 50)}
winning = pd.DataFrame(winning)
winning.round(0).astype(int)
assert survivors(7) == 0 and survivors(15) > 50

# %% [markdown]
# Real runs to hold against it are the trials of the search for learning rates and weights, which was made for another purpose: each is one
# training with its own rate and weight, on seed 100. All of them are drawn. In six the whole network broke, probably from too large steps: the
# loss ran off in three (two of ILT, which have a weight for features, too), and in the others the rate times the weight is above 1. (That rule was found by looking at them.) They are hollow in the
# figure, and left out of the table.

# %%
trials = pd.read_csv("../benchmarks/studies/minivoc_search/trials.csv")
pulled = trials[trials["method"].isin(["LwF", "ILT", "MiB"])]
settings = [minivoc_config(t.method, *t.settings.split()) for t in pulled.itertuples()]
pulled = pulled.assign(
    kd=[config.method.term("kd").weight for config in settings],
    rate=[config.optim.lr[1] for config in settings],  # of step 1
)
broken = pulled["error"].notna() | (pulled["rate"] * pulled["kd"] > 1)
fine = pulled[~broken].assign(weight=pd.cut(pulled["kd"], [0, 3, 7, 10, 30]))
fine = fine.assign(losses=np.where(fine["method"] == "MiB", "MiB", "LwF, ILT"))
kept = fine.groupby(["losses", "weight"], observed=True).agg(
    trials=("kd", "size"),
    old_min=("miou_old_no_bg", "min"), old_max=("miou_old_no_bg", "max"),
    new_min=("miou_new", "min"), new_max=("miou_new", "max"),
)  # fmt: skip
kept.round(0).astype(int)
assert broken.sum() == 6 and (kept.loc["MiB", "old_min"] > 50).all()
assert kept.loc["LwF, ILT", "old_max"].iloc[0] < 5 and kept.loc["LwF, ILT", "old_min"].iloc[-1] > 40
assert kept.loc["LwF, ILT"].iloc[1][["old_min", "old_max"]].between(16, 23).all()
assert kept.loc["MiB", "new_max"].iloc[-1] < 15 and kept.loc["LwF, ILT", "new_min"].iloc[-1] > 38

# %% tags=["draw"]
def draw_threshold():
    figure, (top, bottom) = panels(rows=2, width=6.8, height=4.0, sharex=True, height_ratios=[2, 1])
    grid, styles = np.geomspace(0.45, 32, 300), method_styles(["LwF", "MiB", "ILT"])
    for method, rows in pulled.groupby("method"):
        color, ok = styles[method].color, ~broken[rows.index]
        look = {"s": 40, "marker": styles[method].marker, "edgecolors": color}
        top.scatter(rows["kd"][ok], rows["miou_old_no_bg"][ok], c=color, label=method, **look)
        top.scatter(rows["kd"][~ok], rows["miou_old_no_bg"][~ok], c="none", **look)
    top.scatter([], [], s=40, c="none", edgecolors="#666666", label="hollow: the network broke")
    bottom.plot(grid, [survivors(w) for w in grid], color="#222222")
    for axes in (top, bottom):
        axes.axvline(num_old, color="#222222", linestyle=":", label="$K_{old}$ = 7")
        axes.set(xscale="log", ylim=(-4, 84), yticks=[0, 20, 40, 60, 80])
    top.set(title="measured, one mark a trial", ylabel="mIoU of old classes (%)")
    bottom.set(title="calculated", xlabel="weight of distillation", ylabel="hidden pixels above\nbackground (%)")
    bottom.set_xticks([0.5, 1, 2, 5, 7, 10, 20, 30], ["0.5", "1", "2", "5", "7", "10", "20", "30"])
    bottom.minorticks_off()
    figure.legend(*top.get_legend_handles_labels(), loc="outside lower center", ncols=5)
    return figure


show(
    draw_threshold(), "Above, measured: old classes of LwF and ILT rise with the weight, from near zero below 3 over "
    "16 and 23 in the two trials at 5 and 6 to 42 to 53 above 10, and MiB's stay above 50, but for hollow trials. Below, calculated: the share of "
    "hidden pixels above background is zero up to 7 and rises quickly from there",
)  # fmt: skip

# %% [markdown]
# The calculation gives the scale, not the shape. By it no pixel survives below 7, and there is a quick rise above it. LwF and ILT have next to nothing below
# 3, 16 and 23 in two trials of LwF at weights of 5 and 6, from 42 up beyond 10; no trial lies between 6 and 10, and each trial has a rate of its own, so they show where it begins and no curve. A real network is not free to settle every pixel on
# its own, and 300 iterations are no rest. Nor is a larger weight always safe: LwF's hollow trials at 13 and 30 have 3 and 21. MiB keeps 50 to 65 of its old classes
# from 0.5 to 12, for its cross-entropy does not contradict the teacher; but with too large steps it breaks as well, to 17. And the price: at 12 MiB's new classes are at 14 or 15, where those of LwF and ILT, which need such weights, have 38 and more.
#
# ### What stays unsolved
#
# MiB is not the best method here. CIL, whose cross-entropy leaves out what is labelled background, is a third way not to contradict the teacher: it is three points above MiB on 6-4 disjoint, and hardly learns the new classes where old ones stay labelled
# ([benchmarks](../benchmarks/README.md#all-methods)). How far is MiB from Joint, and where? Old classes first: there the larger part of the gap lies.

# %%
by_class = {
    "M_0": runs["MiB"].matrix.rows[0],
    "MiB": runs["MiB"].matrix.rows[1],
    "Joint": runs["Joint"].matrix.rows[1],
}
ious = pd.DataFrame(by_class).loc[list(names[1:])]
ious["Joint - MiB"] = ious["Joint"] - ious["MiB"]
old_gap, new_gap = ious["Joint - MiB"][:6], ious["Joint - MiB"][6:]
ious.map("{:.0f}".format).replace("nan", "").rename_axis("IoU").T
assert old_gap.mean() > 7 and 0 < new_gap.mean() < 4
assert set(old_gap.nlargest(3).index) == {"triangle", "cross", "diamond"}
assert old_gap.nlargest(3).sum() > 0.75 * old_gap.sum()

# %%
def confusion_of(model):  # (11, 11) pixels of the test images, rows truth, columns prediction
    counts = np.zeros((len(names), len(names)))
    for batch in workspace.evaluation_batches(1):
        counted = batch.labels != 255
        pair = batch.labels[counted] * len(names) + predict(model, batch.images)[counted]
        counts += np.bincount(pair.numpy(), minlength=counts.size).reshape(counts.shape)
    return counts


def shares(confusion):  # -> (11, 11) percent of the pixels of each class
    return 100 * confusion / confusion.sum(axis=1, keepdims=True)


called = {
    "teacher": shares(confusion_of(teacher)),
    "MiB": shares(runs["MiB"].confusion(1)),
    "Joint": shares(runs["Joint"].confusion(0)),
}

# %% tolerance={"abs": 0.1, "spread": 7e-05}
diamond, cross = names.index("diamond"), names.index("cross")
called_old = {}
for name, rows in called.items():
    of_old = rows[1:num_old]  # (6, 11)
    own, as_old = np.diag(of_old[:, 1:]).mean(), of_old[:, 1:num_old].sum(axis=1).mean()
    called_old[name] = {
        "itself": own, "another old class": as_old - own, "background": of_old[:, 0].mean(),
        "a new class": of_old[:, num_old:].sum(axis=1).mean(), "diamond -> cross": rows[diamond, cross],
    }  # fmt: skip
called_old = pd.DataFrame(called_old).T
other = called_old["another old class"]
called_old.rename_axis("pixels of old classes, called (%)").round(1)
assert other["MiB"] > 1.7 * other["Joint"] and other["MiB"] > other["teacher"] + 3
assert called_old["diamond -> cross"]["MiB"] > 3 * called_old["diamond -> cross"].drop("MiB").max()

# %% [markdown]
# Three of the six old classes, triangle, cross and diamond, make most of it. MiB gives twice as many old pixels to *another old class* as Joint
# does, and more than its own teacher did: a fifth of diamond is called cross, where the teacher had 4 %. No label of step 1 tells old
# classes apart, so only distillation could have held them, and at these pixels it has not.
#
# The new classes have the smaller gap. What becomes of their pixels: what the teacher called them, before they were ever taught, and what MiB and
# Joint call them in the end.

# %% tolerance={"abs": 1, "spread": 7e-05}
new_called = {name: rows[num_old:] for name, rows in called.items()}  # (4, 11)
favourite = new_called["teacher"][:, 1:num_old].argmax(axis=1) + 1  # the old class it resembles
lost = {name: rows[range(num_new), favourite] for name, rows in new_called.items()}
by_background = {name: rows[:, 0].mean() for name, rows in new_called.items()}
percent = ", ".join(f"{name} {value:.0f} %" for name, value in by_background.items())
print(f"new pixels called background: {percent}")
assert lost["MiB"].mean() > 1.3 * lost["Joint"].mean()
assert (lost["MiB"] > lost["Joint"] + 3).tolist() == [False, True, True, True]
assert by_background["MiB"] < by_background["Joint"] + 3

# %% tags=["draw"]
def draw_called():
    figure, axes = panels(rows=3, width=6.4, height=4.4, sharex=True)
    for panel, (name, rows) in zip(axes, new_called.items()):
        panel.imshow(np.where(rows < 3, np.nan, rows), cmap="viridis", vmin=0, vmax=80, aspect="auto")
        for (r, c), value in np.ndenumerate(rows):
            if value >= 3:
                panel.text(c, r, f"{value:.0f}", ha="center", va="center",
                           color="white" if value < 50 else "black")  # fmt: skip
        panel.set_yticks(range(num_new), names[num_old:])
        panel.set_title(f"what {name} calls it (% of the class, from 3 on)")
        panel.grid(False)
    axes[-1].set_xticks(range(len(names)), names, rotation=40, ha="right")
    return figure


show(
    draw_called(), "Pixels of star, bar, frame and moon. The teacher calls most of them square, "
    "triangle, diamond or cross; MiB keeps a part of just these mistakes, Joint less, but for star",
)  # fmt: skip

# %% [markdown]
# Background is no longer the problem: MiB loses no more of the new pixels to it than Joint does. Bar, frame and moon go to the very old class
# that the teacher took them for, clearly more often than under Joint; only star does not. Those are the look-alikes, which distillation cannot
# mend: it hands down knowledge and mistakes alike. (Joint gives some of them away, too, half as many of bar and moon.) But Joint also sees old and new classes side by side with all their labels, so neither table
# can say which part of a gap is the teacher's doing. One seed again; the gap itself is there on five:

# %%
five = pd.read_csv("../benchmarks/studies/minivoc_comparison/results.csv")
five = five.query("task == '6-4' and setup == 'disjoint' and step == 1 and method in ['MiB', 'Joint']")
five = five.pivot(index="seed", columns="method", values=["miou_old_no_bg", "miou_new"])
behind = five.xs("Joint", axis=1, level=1) - five.xs("MiB", axis=1, level=1)
behind.rename_axis("Joint minus MiB, seed").round(1)
assert behind["miou_old_no_bg"].between(6, 10).all() and behind["miou_new"].between(0, 5).all()
assert (behind["miou_old_no_bg"] > behind["miou_new"]).all()

# %% [markdown]
# All this speaks of answers only. Whether square and star, so alike to the teacher, have a place of their own in the space of features,
# no loss of this chapter asks. That is where chapter 05 begins: with the mean feature of each class, its **prototype**.

# %% [markdown]
# ### 4.4 Unbiased distillation of one pixel
#
# The teacher's background is compared with the student's background or any new class. Divide by the number of old classes, background
# included.

# %% tags=["exercise"]
def unbiased_kd(logits, teacher_logits):
    """logits: tensor (K,) of the student at one pixel; teacher_logits: tensor (K_old,), K_old <= K.

    Returns the loss of the pixel, a tensor of one number, with a gradient by the logits.
    """
    # SOLUTION
    classes = len(teacher_logits)
    hides = torch.cat([logits[:1], logits[classes:]])  # background, and what may hide in it
    merged = torch.cat([torch.logsumexp(hides, dim=0)[None], logits[1:classes]])
    log_q = merged - torch.logsumexp(logits, dim=0)
    return -(teacher_logits.softmax(dim=0) * log_q).sum() / classes
    # END

# %% tags=["check"]
def kd_of_library(logits, teacher_logits):
    both = (z.reshape(1, -1, 1, 1) for z in (logits, teacher_logits))
    return losses.unbiased_knowledge_distillation(*both)


says_now, said = torch.tensor([1.0, 4.0, 0.0, 2.0, -1.0]), torch.tensor([2.0, 0.0, 1.0])
cases = [(says_now, said), (says_now, said[:2]), (says_now + 1000, said), (says_now, 900 * said)]
check(
    "4.4", unbiased_kd,
    [((says_now, said), 0.755995), ((says_now[:3], said), 1.013507),  # nothing new: plain KD
     *((case, WithGradient.of(kd_of_library, case)) for case in cases)],
    hint="old classes, too, use the softmax over all K logits; to background add logits[K_old:] by "
    "logsumexp, not by a sum of logits",
)  # fmt: skip

# %% [markdown]
# ### One more question

# %% tags=["quiz"]
quiz(
    "What MiB gives to old classes of bar goes to triangle, of moon to cross. Could a larger weight of distillation mend that?",
    [
        ("No, the teacher makes the same mistakes",
         "Right. To follow it more closely is to follow these, too; and at the largest weight of the sweep new classes lose twenty-five points."),
        ("Yes, the teacher's knowledge counts more",
         "And its mistakes with it: it takes bars for triangles, for it has never seen a bar with its name."),
    ],
    right=0,
)
