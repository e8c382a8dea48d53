# %% [raw]
# title: Feature sparsification
# goals:
#   - write SDR's sparsification loss step by step and prove the code equal to the library
#   - read the sign of its gradient by hand, check it against autograd, and say which way it pushes
#   - write losses that do what the name says, as terms of your own, and train them
#   - measure sparsity, room for new classes and mIoU, and say what evidence there is for the idea
# summary:
#   - Features divided by the peak of their class, then the sum of exponentials over the sum, as a mean over locations; ten lines, equal to the library's.
#   - At a fixed peak the gradient is never positive, because $e^x \ge e\,x$. Every channel that is not silent is pushed up, the weak ones most, so the loss fills channels instead of emptying them. The trained network does just that.
#   - An L1 share, Hoyer's measure, an entropy, and the ratio with the other sign, a few lines each. Sixty iterations of the L1 share leave half of the active channels, of Hoyer's a fifth.
#   - SDR's loss lights 59 channels of 64 on MiB, Hoyer's fewer than 2 with more than 40 left free. Neither brings a gain that three seeds could show, SDR's on three bases and Hoyer's on two. On MiB SDR's costs 0.7 points, and Hoyer's two, though it begins with a seventh of the force. In step 0 alone, with 64 channels or with eight, neither brings a gain of all classes that three seeds could show; with eight a probe reads fewer classes from Hoyer's sparse features.
# ends_with: a loss read, tested, and turned round
# reading_minutes: 80
# further_minutes: 30
# prerequisites: ["02", "03", "04", "05", "06"]
# differs:
#   - The library's sum of normalised activity is at least 1, and locations that are silent as a whole take no part. The formula has neither; the further part counts that no location of MiniVOC is so quiet, and shows what the floor does where some are.
#   - By SDR's formulas the loss acts from step 0 on; the released script of step 0 trains FT without it, and chapter 11 follows that. On MiniVOC it begins with step 1, so that all methods share one step 0; the chapter trains both.
#   - Weights are this chapter's own; those of the paper belong to another network. They were not made equal in force, and Hoyer's begins with a seventh of that of the others, as *Terms of your own* measures.
# references:
#   - "SDR: Michieli & Zanuttigh, Continual Semantic Segmentation via Repulsion-Attraction of Sparse and Disentangled Latent Representations, CVPR 2021, arXiv 2103.06342; sparsification is in section 4."
#   - "Hoyer, Non-negative Matrix Factorization with Sparseness Constraints, JMLR 5, 2004; the measure is section 3.1."
#   - "Hurley & Rickard, Comparing Measures of Sparsity, IEEE Transactions on Information Theory 55, 2009; table III says which measure has which property."

# %% [markdown]
# Chapter 06 pushed class means apart. One idea of SDR is left, and it looks ahead. A network that responds to every location with all of its
# $D$ channels has used up its space when the first classes are learned: a class that comes later has to share every channel with all that
# are there. If each class lit only a few channels, others would be free. So SDR's last loss is to make features **sparse**: few active
# channels for a location, and **room** for classes to come.
#
# The idea is older than the paper and a good one to test. This chapter writes the loss, asks its gradient which way it pushes, trains it,
# looks into the network, and then does the same with other losses, for which there is no doubt about the direction. (SDR's loss is the term `sparsification` in
# settings; beside others it is called *the paper's ratio*, after its formula.) Two questions are kept
# apart all along: does a loss make features sparse? And do sparse features help?

# %% tags=["setup"]
import math

import numpy as np
import pandas as pd
import torch
from torch.nn import functional as F

from sparcl_lib import losses, term
from sparcl_lib.course import (
    Property, Several, check, compare_guess, explore, four_classes, guess_first, minivoc_config, panels,
    play, plot_points, quiz, run_or_load, show,
)  # fmt: skip
from sparcl_lib.latent_space import channels_used, class_features, class_means
from sparcl_lib.methods.context import StepContext
from sparcl_lib.models import grow
from sparcl_lib.report.differences import gains_text, paired_gains
from sparcl_lib.training.workspace import open_workspace
from sparcl_lib.viz import forest_plot

# %% [markdown]
# ## Room, as it is before anything is done
#
# The network $M_0$ of step 0 knows six classes. Its encoder ends in a ReLU, so a feature vector $f_i$ has no negative entry, and "channel
# $j$ is **silent** at location $i$" is simply $f_{ij} = 0$; else it is *awake*. Awake says little, so three numbers with a threshold, at the object locations of
# 128 test images:
#
# - **active**: how many of the 64 channels of a location are above a tenth of its strongest one;
# - **used by a class**: how many channels carry 90 % of the mean activity of the class, the strongest first;
# - **room**: how many of the 64 channels no old class uses.
#
# (The thresholds differ, so *active* and *used* cannot be compared with each other.)

# %%
workspace = open_workspace(minivoc_config("MiB"), progress=False)
names, OLD, NEW = workspace.task.class_names(1), slice(1, 7), slice(7, 11)
mib = run_or_load(minivoc_config("MiB"), checkpoints=True)
tests = [batch for batch, _ in zip(workspace.evaluation_batches(1), range(8))]  # 128 images


def active_channels(rows):  # (N, D) -> (N,)
    return (rows > rows.max(axis=1, keepdims=True) / 10).sum(axis=1)


def room(means, used):  # (C, D), (C,) -> how many channels no class uses
    taken = np.zeros(means.shape[1], dtype=bool)
    for mean, count in zip(means, used):
        taken[np.argsort(-mean)[: int(count)]] = True  # the class's strongest channels
    return int((~taken).sum())


def look(model):
    """Features (N, D) at the object locations of the test images, and their labels (N,)."""
    features, labels = class_features(model, tests)
    objects = (labels > 0) & (labels < 255)
    return features[objects], labels[objects]

# %%
def portrait(features, labels):
    means, used = class_means(features, labels, 11), channels_used(features, labels)
    return {
        "active": active_channels(features).mean(),
        "used by an old class": used[OLD].mean(),
        "used by a new class": used[NEW].mean(),
        "room": room(means[OLD], used[OLD]),
    }


before = look(mib.model(0))
pd.Series(portrait(*before)).rename("M_0, channels of 64").to_frame().T.round(1)
assert portrait(*before)["used by an old class"] > 32

# %% tags=["draw"]
def draw_means(looks):
    """A row for each class, a column for each channel: the class mean over its largest entry."""
    figure, grid = panels(rows=len(looks), width=8.2, height=0.4 + 1.7 * len(looks), squeeze=False)
    for axes, (title, (features, labels)) in zip(grid[:, 0], looks.items()):
        means = class_means(features, labels, 11)[1:]
        order = np.argsort(-means.mean(axis=0))
        image = axes.imshow((means / means.max(axis=1, keepdims=True))[:, order], cmap="magma_r",
                            vmin=0, vmax=1, aspect="auto", interpolation="nearest")  # fmt: skip
        axes.axhline(5.5, color="#0072b2", linewidth=1.5)  # old | new
        axes.set_yticks(range(10), names[1:], fontsize=8)
        axes.set(title=title, xlabel="channel, the strongest on average first")
        axes.grid(False)
    figure.colorbar(image, ax=list(grid[:, 0]), label="mean activity / peak", shrink=0.8)
    return figure


show(
    draw_means({"class means of $M_0$": before}), "Ten classes and 64 channels after step 0: every "
    "class has some activity in most channels, and the new classes in the same ones as the old",
)  # fmt: skip

# %% [markdown]
# (Old classes stand above the blue line, new ones below.) There is little room: five channels. An old class spreads over some forty of the 64, and the four classes to come, which this network has
# never learned, light the same channels as the old ones. If space is short anywhere, it is here.
#
# ## The loss, step by step
#
# 1. Activity has no scale of its own, and classes differ. So divide each feature vector by the **peak** of its class $c$, the largest
#    entry of any channel at any location of that class in the batch:
#
#    $$\bar f_{ij} = \frac{f_{ij}}{P_c}, \qquad P_c = \max_{i : \tilde y_i = c} \max_j f_{ij}, \qquad 0 \le \bar f_{ij} \le 1$$
#
# 2. At each location compare the sum of the exponentials with the sum itself, and take the mean over the $N$ locations (SDR, section 4):
#
#    $$\mathcal L_{sp} = \frac1N \sum_i r_i, \qquad r_i = \frac{E_i}{A_i}, \qquad
#    E_i = \sum_{j=1}^{D} e^{\bar f_{ij}}, \qquad A_i = \sum_{j=1}^{D} \bar f_{ij}$$
#
# 3. The labels $\tilde y$ are those of the step at the resolution of the features, with the old network's guess where they say background, as for
#    the other latent losses.
# 4. The library adds two things. Locations in which every channel is silent are left out of the mean: they have no pattern. And $A_i$ is taken as at
#    least 1, so that an almost silent location does not divide by almost zero; the further part is about that floor.

# %%
def normalised(features, labels):  # (N, D), (N,) -> (N, D): divided by the peak of the class
    result = torch.zeros_like(features)
    for c in labels.unique():
        here = labels == c
        result[here] = features[here] / features[here].max()
    return result


def plain_sparsification(features, labels):  # (B, D, h, w), (B, h, w) -> scalar
    rows, ids = features.movedim(1, -1).flatten(0, 2), labels.flatten()  # (N, D), (N,)
    awake = (rows.sum(dim=1) > 0) & (ids < 255)  # not silent as a whole, and labelled
    fbar = normalised(rows[awake], ids[awake])
    return (fbar.exp().sum(dim=1) / fbar.sum(dim=1).clamp(min=1)).mean()

# %%
generator = torch.Generator().manual_seed(0)
some = torch.randn(2, 64, 8, 8, generator=generator).clamp(min=0)  # as after a ReLU
their_labels = torch.randint(0, 11, (2, 8, 8), generator=generator)
their_labels[0, 0] = 255  # a row without a label
one, other = some.clone().requires_grad_(), some.clone().requires_grad_()
not_silent = some > 0  # elsewhere the ReLU stops the gradient, and the library gives none
mine = plain_sparsification(one, their_labels)
library = losses.sparsification(other, their_labels)
mine.backward(), library.backward()
print(f"plain {mine:.3f}, library {library:.3f}")
assert torch.isclose(mine, library) and torch.allclose(one.grad[not_silent], other.grad[not_silent], atol=1e-6)

# %% [markdown]
# ## Which way does it push?
#
# Read the formula before training it. Take a location with $n$ of $D$ channels at the peak and all others silent. Then $A = n$ and
# $E = n e + (D - n)$, so
#
# $$r = e + \frac{D - n}{n}$$
#
# With one channel of 64 at the peak that is $e + 63$, with all 64 it is $e$. **The value falls with every channel that joins those at the peak.**
#
# Is that an accident of this pattern? Hold the peak fixed and differentiate with respect to one entry:
#
# $$\frac{\partial r}{\partial \bar f_j} = \frac{e^{\bar f_j} A - E}{A^2} = \frac{e^{\bar f_j} - r}{A}$$
#
# Now the one inequality of this chapter. The curve $e^x$ lies above its tangent at 1, which is $e\,x$. So $E \ge e A$, that is
# $r \ge e$, while $e^{\bar f_j} \le e$ because $\bar f_j \le 1$. Together: **the derivative is never positive**, and it is zero only
# where every channel is at the peak. The push, minus the derivative, is upwards for each channel, and the weaker the channel, the stronger.
#
# $$\text{push on channel } j = \frac{r - e^{\bar f_j}}{A} \;\ge\; 0$$

# %%
def push_at_fixed_peak(fbar):  # (N, D) -> (N, D): minus the gradient of each r_i
    a, e = fbar.sum(dim=1, keepdim=True), fbar.exp().sum(dim=1, keepdim=True)
    return (e / a - fbar.exp()) / a


fbar = torch.rand(1000, 64, generator=generator)
fbar = fbar * (torch.rand(1000, 64, generator=generator) < 0.5)  # half of them silent
leaf = fbar.clone().requires_grad_()
(leaf.exp().sum(dim=1) / leaf.sum(dim=1)).sum().backward()
by_hand = push_at_fixed_peak(fbar)
print(f"{by_hand.numel()} pushes, the smallest {by_hand.min():.3f}, on silent channels "
      f"{by_hand[fbar == 0].mean():.3f} on average, on those above one half "
      f"{by_hand[fbar > 0.5].mean():.3f}")  # fmt: skip
assert torch.allclose(by_hand, -leaf.grad, atol=1e-5) and (by_hand >= 0).all()

# %% [markdown]
# Two things are different in a network. The peak is not fixed: it is an entry of $f$, too, and the loss pushes it *down* (further part), which
# makes the channels no less alike. And the encoder ends in a ReLU, which passes no gradient to a channel that is silent at this location. So the loss
# cannot wake a channel here; it can make it louder where it is awake, and since weights are shared, that wakes it elsewhere.
#
# ## Four losses that do what the name says
#
# Each of these four gets smaller as weak channels fall silent (the last one as long as the total is above one peak; below that the floor is in it, too,
# and turns its arrows):
#
# | loss | formula at a location | idea |
# |---|---|---|
# | L1 share | $\frac1D \sum_j \bar f_j$ | the denominator alone: less activity |
# | Hoyer's | $\bigl(\frac{\lVert f \rVert_1}{\lVert f \rVert_2} - 1\bigr) / (\sqrt D - 1)$ | 0 where one channel is awake, 1 where all are equal |
# | entropy | $-\frac{1}{\log D} \sum_j \pi_j \log \pi_j$ with $\pi_j = f_j / \sum_l f_l$ | the same scale, another curve |
# | ratio turned | $-r$ | the paper's ratio with the other sign |
#
# Hoyer's and the entropy do not change when $f$ is multiplied by a number; the other two know the peak.

# %%
def ratio(f, peak):  # (..., D) and what it is divided by -> (...)
    fbar = f / peak
    return fbar.exp().sum(dim=-1) / fbar.sum(dim=-1).clamp(min=1)


def l1_of(f, peak):
    return (f / peak).mean(dim=-1)


def hoyer_of(f, peak):
    quotient = f.sum(dim=-1) / f.square().sum(dim=-1).clamp(min=1e-12).sqrt()  # 1 to sqrt(D),
    # and 0 where f is silent as a whole, which is no pattern: the term below leaves that out
    return (quotient - 1) / (f.shape[-1] ** 0.5 - 1)


def entropy_of(f, peak):
    shares = f / f.sum(dim=-1, keepdim=True).clamp(min=1e-12)
    return -(shares * shares.clamp(min=1e-12).log()).sum(dim=-1) / math.log(f.shape[-1])


def turned(f, peak):
    return -ratio(f, peak)

# %%
FIVE = {
    "the paper's ratio": ratio, "L1 share": l1_of, "Hoyer's": hoyer_of, "entropy": entropy_of,
    "ratio turned": turned,
}  # fmt: skip
counts = (1, 2, 8, 32, 64)
patterns = torch.stack([(torch.arange(64) < n).float() for n in counts])  # n of 64 at the peak
values = {name: loss(patterns, 1.0).tolist() for name, loss in FIVE.items()}
frame = pd.DataFrame(values, index=pd.Index(counts, name="channels at the peak, of 64"))
frame.round(3) + 0.0  # no -0
assert np.allclose(values["the paper's ratio"], [math.e + (64 - n) / n for n in counts])
assert np.all(np.diff(values["the paper's ratio"]) < 0)
assert all(np.all(np.diff(values[name]) > 0) for name in list(FIVE)[1:])

# %% [markdown]
# As arrows, in a plane of two channels: at each point a feature vector, the arrow its push at a fixed peak of 3, the colour the value of
# the loss, dark where it is low. All arrows of a panel have one scale of their own.

# %% tags=["draw"]
def draw_field():
    figure, grid = panels(columns=5, width=7.7, height=2.25, sharey=True)
    ticks = torch.linspace(0.2, 2.9, 6)
    points = torch.cartesian_prod(ticks, ticks)
    fine = torch.cartesian_prod(*2 * [torch.linspace(0.02, 3, 40)])
    for axes, (name, loss) in zip(grid, FIVE.items()):
        leaf = points.clone().requires_grad_()
        loss(leaf, 3.0).sum().backward()
        push = -leaf.grad / leaf.grad.norm(dim=1).max()
        axes.contourf(*fine.T.reshape(2, 40, 40), loss(fine, 3.0).reshape(40, 40), levels=4,
                      colors=["#b8b8b8", "#cccccc", "#dddddd", "#ececec", "#f6f6f6", "#fcfcfc"])  # fmt: skip
        axes.quiver(*points.T, *push.T, angles="xy", scale_units="xy", scale=2.2, width=0.014,
                    color="#0072b2", antialiased=False)  # fmt: skip
        axes.set(title=name, xlabel="channel 0", xlim=(0, 3.1), ylim=(0, 3.1), aspect="equal")
        axes.grid(False)
    grid[0].set_ylabel("channel 1")
    return figure


show(
    draw_field(), "Arrows of five losses in a plane of two channels: the paper's ratio pushes "
    "outwards to where both channels are at the peak, and below a total of one peak to zero; the L1 share pushes to zero, "
    "Hoyer's and the entropy to the nearer axis, the turned ratio to the line where the total is one peak",
)  # fmt: skip

# %% [markdown]
# The paper's ratio drives both channels to the peak, the upper right corner. (The dark corner at zero is the floor's.) Below a total of one peak (the lower left half) the floor rules and its arrows turn: so
# weak a location is pushed to silence, by the library's form alone. With two channels that is half of the plane; among the 64 of the network
# no location is so weak (further part). The L1 share pushes everything down alike. Hoyer's and the entropy turn the vector towards the nearer
# axis and leave its length alone. The ratio turned has its lowest value where the total is one peak.
#
# ### Points that move
#
# Four classes in the plane, their prototypes as large hollow markers, and nothing that acts but the chosen loss (with the real peak of each
# class) and, if you like, a spring that **holds** each point where it was, as the other losses of a step would. Press *step*.

# %%
scene = four_classes()


def begin():
    return scene.features


def move(points, loss="the paper's ratio", step_size=0.1, hold=0.0):  # (N, 2) -> (N, 2)
    leaf = points.clone().requires_grad_()
    peaks = torch.stack([leaf[scene.labels == c].max() for c in range(4)])[scene.labels]
    FIVE[loss](leaf, peaks[:, None]).sum().backward()
    push = -leaf.grad - hold * (points - scene.features)
    return (points + step_size * push).clamp(min=0)  # features stay behind the ReLU

# %% tags=["draw"]
def draw_scene(points, loss="the paper's ratio", step_size=0.1, hold=0.0):
    figure, axes = panels(width=3.05, height=2.95)
    plot_points(axes, points, scene.labels, scene.prototypes, names=scene.names)
    return figure


play(
    begin, move, draw_scene, "Points of four classes under the paper's ratio at "
    "the start and after 5, 20 and 80 steps: they gather along the diagonal, where both channels are equally strong",
    loss=list(FIVE), step_size=[0.1, 0.02, 0.3], hold=[0.0, 0.1, 0.5],
)  # fmt: skip

# %% tags=["draw"]
def draw_ends():
    figure, grid = panels(columns=5, width=7.7, height=2.2, sharey=True)
    for axes, loss in zip(grid, FIVE):
        points = scene.features
        for _ in range(80):
            points = move(points, loss, 0.1, 0.0)
        plot_points(axes, points, scene.labels)
        axes.set(title=loss, ylabel="channel 1" if axes is grid[0] else "", ylim=(-0.15, 4.2))
    return figure


show(
    draw_ends(), "The same points after 80 steps of each of five losses: on the diagonal under the "
    "paper's ratio, shrunk towards zero under the L1 share, nearly all on an axis under Hoyer's, under the entropy too but for most stars, on the line where "
    "the total is one peak under the turned ratio",
)  # fmt: skip

# %% [markdown]
# (After 80 steps of each loss; colours and marks as above.) The ratio gathers each class in a point on the diagonal, where both channels are equally strong; disc and triangle, far apart before, meet there. (The
# weakest background points fall silent: they are below the floor.) Hoyer's and the entropy send the points to the nearer axis, some are still on their way after
# 80 steps, and there triangle and star are left with their length to tell them apart. The L1 share makes everything smaller, and the turned ratio comes to rest where the total is
# one peak, with one channel or with two. No loss here knows what a classifier needs. And a plane has two axes for four classes; whether 64
# channels are any tighter is to be measured.
#
# ### A small network, old classes and new ones
#
# Now points that a network makes. Its inputs have eight numbers and five classes; a hidden layer, then $D$ features after a ReLU, then a classifier. Step 0
# teaches three classes, step 1 the other two without a single point of the old. So that forgetting can come from the **features** alone, step 1
# compares the new logits with each other only: nothing is said against an old class. If new classes used channels of their own, the old ones would be
# left in peace. That is the idea of room at its best. The loss under test acts in both steps, on the points that are there: in step 1 on those of the new classes alone, each class
# with a peak of its own. Ten networks are trained at once, each with data of its own.

# %%
def make_points(each=40, networks=10):  # -> twice (networks, 5 classes, each, 8): training, test
    generator = torch.Generator().manual_seed(1)
    centres = torch.randn(networks, 5, 1, 8, generator=generator)
    noise = torch.randn(2, networks, 5, each, 8, generator=generator)
    return centres + 0.5 * noise


class SmallNetworks:  # several side by side: 8 -> 32 -> D -> 5
    def __init__(self, dim, networks=10):
        generator = torch.Generator().manual_seed(0)
        sizes = (8, 32), (32, dim), (dim, 5)
        self.weights = [
            torch.randn(networks, 1, n, m, generator=generator) / n**0.5 for n, m in sizes
        ]
        starts = zip(sizes, (0.1, 2.0, 0.0))
        self.biases = [torch.full((networks, 1, 1, m), b) for (_, m), b in starts]
        self.learning = [p.requires_grad_() for p in (*self.weights, *self.biases)]

    def features(self, x):  # (networks, classes, points, 8) -> (networks, classes, points, D)
        for w, b in zip(self.weights[:2], self.biases[:2]):
            x = F.relu(x @ w + b)
        return x

    def logits(self, f):
        return f @ self.weights[2] + self.biases[2]

# %%
def teach(net, x, classes, loss=None, weight=0.0, steps=150):
    """Train on the points of these classes; the softmax is over their logits alone."""
    x, count = x[:, classes], classes.stop - classes.start
    y = torch.arange(count).repeat_interleave(x.shape[2]).repeat(len(x))
    optimizer = torch.optim.SGD(net.learning, lr=0.02, momentum=0.9)
    for _ in range(steps):
        f = net.features(x)
        z = net.logits(f)[..., classes].reshape(-1, count)
        total = len(x) * F.cross_entropy(z, y)  # the sum over networks of a mean over points
        if loss is not None:
            peak = f.amax(dim=(-2, -1), keepdim=True).clamp(min=1e-6)  # of each class
            total = total + weight * loss(f, peak).mean(dim=(-2, -1)).sum()
        optimizer.zero_grad()
        total.backward()
        optimizer.step()


@torch.no_grad()
def named(net, x, classes):  # -> (networks,) percent of the points that get their class
    z = net.logits(net.features(x[:, classes]))[..., classes]
    right = z.argmax(dim=-1) == torch.arange(z.shape[1])[:, None]
    return 100 * right.float().mean(dim=(1, 2))

# %% tolerance={"abs": 0.3, "spread": 0.13}
VARIANTS = {"nothing": (None, 0), "the paper's ratio": (ratio, 0.03), "Hoyer's": (hoyer_of, 0.3)}
THREE, TWO = slice(0, 3), slice(3, 5)
x_train, x_test = make_points()
nets, kept_old, rows = {}, {}, {}
for dim in (2, 4, 16):
    for name, choice in VARIANTS.items():
        net = nets[dim, name] = SmallNetworks(dim)
        teach(net, x_train, THREE, *choice)
        first, f0 = named(net, x_test, THREE), net.features(x_test[:, THREE]).detach()
        teach(net, x_train, TWO, *choice)
        kept_old[dim, name], f1 = named(net, x_test, THREE), net.features(x_test[:, THREE]).detach()
        rows[f"D = {dim}", name] = {
            "active channels": (f0 > f0.amax(-1, keepdim=True) / 10).float().sum(-1).mean().item(),
            "old before": first.mean().item(), "old after": kept_old[dim, name].mean().item(),
            "new": named(net, x_test, TWO).mean().item(),
            "old, all silent": 100 * (f1.amax(-1) == 0).float().mean().item(),
        }  # fmt: skip
pd.DataFrame(rows).T.round(1)

# %% [markdown]
# What is left of the old classes, minus what is left without a loss, network by network: the mean of ten and its 95 % interval.

# %% tolerance={"abs": 0.1, "spread": 0.05}
by_network = pd.DataFrame([
    {"method": f"{name}, D = {dim}", "seed": network, "old": value}
    for (dim, name), values in kept_old.items() for network, value in enumerate(values.tolist())
])
small = pd.concat({
    f"D = {dim}": paired_gains(
        by_network,
        {name: (f"{name}, D = {dim}", f"nothing, D = {dim}") for name in list(VARIANTS)[1:]},
        {"old classes, points": "old"},
    ) for dim in (2, 4, 16)
})
gains_text(small)
assert not (small["old classes, points", "low"] > 0).any()
assert small.xs("the paper's ratio", level=1)["old classes, points"].stack().between(-2, 3).all()
assert kept_old[2, "nothing"].mean() < kept_old[4, "nothing"].mean() - 5 < kept_old[16, "nothing"].mean() - 8

# %% tags=["draw"]
def draw_small(network):
    figure, axes = panels(columns=3, width=6.8, height=2.6, sharex=True, sharey=True)
    looks = (("#0072b2", "o"), ("#d55e00", "^"), ("#007a5e", "s"), ("#222222", "*"), ("#cc79a7", "X"))
    for panel, name in zip(axes, VARIANTS):
        with torch.no_grad():
            f = nets[2, name].features(x_test)[network]  # (5, points, 2)
        for c in (3, 4, 0, 1, 2):  # new classes below, and larger
            color, marker = looks[c]
            panel.scatter(*f[c].T, marker=marker, s=20 if c < 3 else 48, edgecolors=color, linewidths=0.8,
                          facecolors="none" if c == 3 else color, label=f"old {c}" if c < 3 else f"new {c - 3}")  # fmt: skip
        panel.set(title=name, xlabel="channel 0")
    axes[0].set_ylabel("channel 1")
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=5)
    return figure


explore(
    draw_small, "Features of five classes in the plane after step 1 of a small network, with no loss, "
    "the paper's ratio and Hoyer's measure: in each panel the new classes lie on or near the same axes as the old ones", network=list(range(10)),
)  # fmt: skip

# %% [markdown]
# With $D$, which also sets the size of the network, forgetting changes: with two channels the three old classes lose sixteen points, with four six, with
# sixteen next to nothing. How much of that is space, the table leaves open: at $D = 2$ a tenth to a fifth of the old points are silent in both channels,
# and such points all get one class. And making features sparse is not the same as making space. Under Hoyer's measure fewer channels are active,
# and yet old and new classes lie on the same axes in the picture (of the first of the ten networks), where some lie without any loss.
# For none of the losses does an interval leave zero out. Those of Hoyer's are wide: ten networks show neither a gain
# nor a loss of a few points. Those of the ratio leave no room for a loss of two points, nor for a gain of three. One reason is in the code above: which
# channels a new point lights is decided by a hidden layer that all classes share, and changing that layer for the new ones changes the
# old ones as well, whichever channels they use. Features that do not overlap are not weights that do not overlap.
#
# ## The real network
#
# Now step 1 of task 6-4 with MiB, the baseline to beat, and SDR's loss on top. At the weight 0.002 of the
# [study](../benchmarks/studies/latent_chapters/README.md) below the gradient of the loss in the encoder begins with a third of
# cross-entropy's norm on MiB and two fifths on UCE; *Terms of your own* measures that. Without the loss, 29 of the
# 64 channels of a location are active in the end.
#
# **Predict before you run:** and with it, how many?

# %% tags=["predict"]
my_guess = None  # a number from 1 to 64, or "pass"
guess_first(my_guess, 1, 64)

# %%
SPARSIFICATION = "method.terms.sparsification={weight: 0.002, from_step: 1}"
NAME = "method.name=MiB + sparsification"  # as the study below calls it
sparsified = run_or_load(minivoc_config("MiB", SPARSIFICATION, NAME), checkpoints=True)
looks = {"MiB": look(mib.model(1)), "MiB + the paper's ratio": look(sparsified.model(1))}
portraits = pd.DataFrame({name: portrait(*found) for name, found in looks.items()}).T
compare_guess("active channels", my_guess, portraits.loc["MiB + the paper's ratio", "active"])
portraits.round(1)
assert portraits["active"].iloc[1] > portraits["active"].iloc[0] + 10

# %% tags=["draw"]
COLORS = {"M": "#222222", "the paper's ratio": "#d55e00", "Hoyer's": "#0072b2", "L1 share": "#007a5e"}


def draw_activity(looks):
    figure, (left, right) = panels(columns=2, width=7.2, height=2.45)
    for (name, (features, _)), line in zip(looks.items(), ("-", "--", "-.", ":")):
        color = next(color for key, color in reversed(COLORS.items()) if key in name)
        share = features / features.max(axis=1, keepdims=True).clip(min=1e-6)
        left.hist(share.ravel(), bins=40, range=(0, 1), histtype="step", color=color, linestyle=line,
                  weights=np.full(share.size, 64 / share.size), linewidth=1.6, label=name.replace("M_0", "$M_0$"))  # fmt: skip
        right.hist(active_channels(features), bins=32, range=(0.5, 64.5), histtype="step", color=color,
                   linestyle=line, weights=np.full(len(features), 100 / len(features)), linewidth=1.6)  # fmt: skip
    left.set(yscale="log", xlabel="activity / strongest channel of the location", ylabel="channels per bin (of 40)")
    right.set(xlabel="active channels of a location", ylabel="locations per bin (%)")
    left.legend()
    return figure


show(
    draw_activity(looks), "Histograms of activity and of active channels after step 1: with the "
    "sparsification loss nearly all channels of every location are active",
)  # fmt: skip

# %% tags=["draw"]
def draw_plane(looks):
    from sklearn.decomposition import PCA

    means = {name: class_means(*found, 11)[1:] for name, found in looks.items()}
    plane = PCA(2).fit(means["MiB"])
    figure, axes = panels(columns=2, width=6.9, height=2.6, sharex=True, sharey=True)
    for panel, (name, (features, labels)) in zip(axes, looks.items()):
        at = plane.transform(means[name])
        for c in range(1, 11):  # five locations of each class
            look = {"color": "#a9cbe4"} if c < 7 else {"color": "#f2c09a", "marker": "^"}
            panel.scatter(*plane.transform(features[labels == c][:5]).T, s=11, linewidths=0, label={1: "old class, a location", 7: "new class, a location"}.get(c), **look)
        panel.scatter(*at[:6].T, color="#0072b2", s=45, label="old class, mean")
        panel.scatter(*at[6:].T, color="#d55e00", marker="*", s=80, label="new class, mean")
        for row, (spot, text) in enumerate(zip(at, names[1:])):  # old names below, new ones above
            away, color = ((0, -15), "#222222") if row < 6 else ((0, 8), "#a84a00")
            panel.annotate(text, spot, away, textcoords="offset points", fontsize=8, ha={"disc": "right", "diamond": "left"}.get(text, "center"), color=color)
        share = 100 * at.var(axis=0).sum() / means[name].var(axis=0).sum()
        panel.set(title=name, xlabel=f"direction 1 (both: {share:.0f} % of the means' spread)")
    axes[0].set_ylabel("direction 2")
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=4, handletextpad=0.2, columnspacing=1)
    return figure


show(
    draw_plane(looks), "Features of ten classes after step 1 in the plane of the main directions of MiB's class means: the locations of all classes overlap, and each "
    "new class has its mean beside that of one old class, bar at triangle, frame at diamond, star at square, moon at cross; with the loss the pattern is the same, a "
    "little to the left",
)  # fmt: skip

# %%
of_both = [class_features(run.model(1), tests) for run in (mib, sparsified)]
all_means = [torch.from_numpy(class_means(*found, 11)) for found in of_both]  # (11, 64)
after = [means[1:] for means in all_means]  # (10, 64): without background
nearest = [torch.cdist(*means.split([6, 4])).argmin(dim=0) for means in after]
ways = after[1] - after[0]  # of each class
unit = torch.pdist(after[0]).mean()
moved_by = ways.norm(dim=1).mean() / unit
of_background = (all_means[1] - all_means[0])[0] / unit
otherwise = (of_background - ways.mean(dim=0) / unit).norm()
common = len(ways) * ways.mean(dim=0).square().sum() / ways.square().sum()
medians = [torch.pdist(means).median() for means in after]
print(f"the loss moves the class means by {moved_by:.1f} times their mean distance,")
print(f"{100 * common:.0f} % of it (of the squares) one way for all,")
print(f"background by {of_background.norm():.1f}, {otherwise:.1f} of it not the way of the others;")
print(f"the median distance of two means is {medians[1]:.1f}, and {medians[0]:.1f} without the loss")
assert [names[1 + c] for c in nearest[0]] == ["square", "triangle", "diamond", "cross"] and nearest[0].equal(nearest[1])
assert 2.5 < moved_by < 3.5 and common > 0.95 and medians[1] < 1.2 * medians[0]
assert 1 < otherwise < 1.6 and of_background.norm() > moved_by + 0.8

# %% [markdown]
# (In the histograms on the left, how many of the 64 channels of a location lie in each fortieth of the range from silent to its strongest channel, which is in the last one.) The
# gradient was right. With the loss called sparsification nearly every channel is active at every location, and each class uses more of them
# than before. Between the networks with and without the loss the class means differ by three times their distance from each other, and nearly all of that is one way for all ten classes, out of the plane of the
# picture: the whole space has been lifted, as every channel was made louder, background with it and farther. To one another the classes lie nearly as before: their distances are a tenth larger, and
# each of the four new ones lies beside the same old class. The log of the loss says the same as the histograms: its value falls from 24 to 4, where $e = 2.7$ is the least. Nothing looks wrong while that
# happens; a loss that falls looks like success.

# %%
log = sparsified.log(1)["sparsification"]
at = {f"iteration {i}": log.iloc[i // 10] for i in (0, 10, 50, 100)} | {"the last": log.iloc[-1]}
pd.Series(at).rename("r, mean over locations").to_frame().T.round(1)
assert log.iloc[0] > 15 and log.iloc[-1] < 6

# %% [markdown]
# ## Terms of your own
#
# What do features look like under a loss that does ask for few channels? With `@term` a function becomes a term of every method. It gets the *context* of
# an iteration: `context.output.features` are the student's, `context.completed_labels` the labels $\tilde y$ at their resolution. Two of the four:

# %%
def active_rows(context):
    """Features (n, D) of the labelled locations that are not wholly silent, and classes (n,)."""
    rows = context.output.features.float().movedim(1, -1).flatten(0, 2).clamp(min=0)
    ids = context.completed_labels.flatten()
    active = (ids < context.num_classes) & (rows.detach().sum(1) > 0)
    return rows[active], ids[active]


@term(needs_teacher=True, first_step=0)  # the teacher completes the labels from step 1 on
def hoyer(context):
    rows, _ = active_rows(context)
    root = rows.shape[1] ** 0.5
    return ((rows.sum(1) / torch.linalg.vector_norm(rows, dim=1)).mean() - 1) / (root - 1)


@term(needs_teacher=True, first_step=0)
def l1_share(context):
    rows, ids = active_rows(context)
    peaks = rows.new_zeros(context.num_classes).scatter_reduce(0, ids, rows.amax(1), "amax")
    return (rows / peaks[ids].unsqueeze(1)).mean()

# %% [markdown]
# How loud is each at the start of step 1? The norm of its gradient in the weights of the encoder, its own weight counted in, in percent of that of cross-entropy: on
# MiB, and on UCE, whose new classifiers start at random. (The ratio turned has the norm of the ratio.)

# %%
WEIGHTS = {"hoyer": 0.2, "l1_share": 0.7}  # change one: it alone is trained

# %%
def loudness(start, batches=12):
    """Norms of the gradients, means over the first batches of step 1, in percent of the first."""
    torch.manual_seed(0)
    teacher, bank, rows = mib.model(0), mib.bank(0), []
    student = grow(teacher, 4, start).train()
    encoder = list(student.backbone.parameters())
    for images, target in workspace.training_batches(1, batches, seed=0):
        with torch.no_grad():
            old = teacher(images)
        now = StepContext(student(images), target, old, bank, num_old=7, old_labelled=False)
        ratio_now = losses.sparsification(now.output.features, now.completed_labels)
        terms = {
            "cross-entropy": losses.unbiased_cross_entropy(now.output.logits, target, num_old=7),
            "the paper's ratio": 0.002 * ratio_now,
            "L1 share": WEIGHTS["l1_share"] * l1_share(now),
            "Hoyer's": WEIGHTS["hoyer"] * hoyer(now),
        }
        parts = {k: torch.autograd.grad(v, encoder, retain_graph=True) for k, v in terms.items()}
        norms = {k: torch.cat([g.flatten() for g in part]).norm() for k, part in parts.items()}
        rows.append({k: norm.item() for k, norm in norms.items()})
    means = pd.DataFrame(rows).mean()
    return 100 * means / means["cross-entropy"]

# %%
loud = pd.DataFrame({"MiB": loudness("mib"), "UCE": loudness("random")})
loud.T.rename_axis("% of cross-entropy").round(0).astype(int)
assert loud.loc["Hoyer's"].max() < 7 and loud.loc[["the paper's ratio", "L1 share"]].min(axis=None) > 30

# %% [markdown]
# The weights are those of the study below; they were not searched, and do not make the losses equally loud. Ratio and L1 share begin with a third of cross-entropy's force on MiB and with two fifths on UCE, **Hoyer's with a
# twentieth and a sixteenth**. So what follows does not rank the losses by what they cost. It shows what each does at its weight, and Hoyer's will not be short of effect.
#
# The two train here, live, each for a short step 1 of 60 iterations (a few seconds on an idle machine), on top of MiB. Beside them $M_0$, where both begin, and the mIoU of MiB alone after as short a step.

# %% tags=["ablation"]
SHORT = "optim.iterations=[600, 60]"  # of step 0, which is there already, and of step 1
short = {}
for (term_name, weight), title in zip(WEIGHTS.items(), ("Hoyer's", "L1 share")):
    setting = f"method.terms.{term_name}={{weight: {weight}, from_step: 1}}"
    short[f"MiB + {title}"] = run_or_load(minivoc_config("MiB", SHORT, setting), checkpoints=True)

# %% tolerance={"abs": 2, "spread": 1, "strict": "MiB [0-9.]+|M_0[^M]*"}
short_looks = {"M_0": before} | {name: look(run.model(1)) for name, run in short.items()}
table = pd.DataFrame({name: portrait(*found) for name, found in short_looks.items()}).T
alone = run_or_load(minivoc_config("MiB", SHORT)).matrix.miou_all(1)
scores = {name: run.matrix.miou_all(1) for name, run in short.items()} | {"MiB": alone}
print("mIoU of all classes:", ", ".join(f"{name} {value:.1f}" for name, value in scores.items()))
table.rename_axis("60 iterations").round(1)
assert table.loc[list(short), "active"].max() < table.loc["M_0", "active"] - 5
assert table.loc["MiB + Hoyer's", "room"] > 25 and max(scores.values()) - min(scores.values()) < 3

# %% tags=["draw"]
show(
    draw_activity(short_looks), "Histograms before and after 60 iterations: Hoyer's measure and the "
    "L1 share leave few channels active",
)  # fmt: skip

# %% [markdown]
# Sixty iterations are enough. Hoyer's loss leaves six active channels of thirty and takes more than half of the 64 away from all old classes; the L1
# share does less of the same, and more unevenly. Look at mIoU, too: within two points of MiB alone, on this one seed and after so short a step.
#
# A class uses more channels than one of its locations has active. Does each location choose its own? The two counts cannot tell. So take many pairs of locations: how much of what is active at the first one is active at the second, of the same class or of another?

# %% tolerance={"abs": 1, "spread": 0.25, "strict": "M_0[^M]*"}
def shared_channels(features, labels, count=40_000):
    """Percent of the active channels of a location that are active at another one, by its class."""
    active = features > features.max(axis=1, keepdims=True) / 10
    one, other = np.random.default_rng(0).integers(len(labels), size=(2, count))
    shared = (active[one] & active[other]).sum(axis=1) / active[one].sum(axis=1).clip(min=1)
    same = labels[one] == labels[other]
    return {"same class": 100 * shared[same].mean(), "another class": 100 * shared[~same].mean()}


shared = pd.DataFrame({name: shared_channels(*found) for name, found in short_looks.items()}).T
shared.rename_axis("active at both (%)").round(0).astype(int)
assert (shared["same class"] > shared["another class"]).all()
assert shared.loc["MiB + Hoyer's", "same class"] < 55 < shared.loc["M_0", "same class"]

# %% [markdown]
# In $M_0$ two locations of a class share 60 % of what is active, little more than two locations of different classes. Under Hoyer's loss it is 44 %: more than
# half of the few active channels of a location are others than those of the next location of its class. (By chance alone six of 64 channels would share a
# tenth, thirty nearly a half. So classes do agree with themselves, more than with each other, but not on a few channels.)
#
# ## Three seeds, three bases
#
# The same in full length over three seeds is a study of its own ([latent_chapters](../benchmarks/studies/latent_chapters/README.md)): SDR's loss on a
# base without distillation (UCE: MiB's cross-entropy alone, at a smaller rate), on LwF and on MiB, and three of the other four losses on UCE and
# MiB (the entropy, whose arrows in the plane look like Hoyer's, was left out). *Probe*, *drift* and the bases are in the [glossary](../docs/glossary.md), too. First, what became of the features; means over the seeds after step 1, with step 0 above them:

# %%
STUDY = "../benchmarks/studies/latent_chapters"
features = pd.read_csv(f"{STUDY}/features.csv")  # all locations, background too
results = pd.read_csv(f"{STUDY}/results.csv").query("setup == 'disjoint' and step == 1")
last = features.query("step == 1")
LOSSES = {"sparsification": "the paper's ratio", "l1_share": "L1 share", "hoyer": "Hoyer's",
          "ratio_turned": "ratio turned"}  # fmt: skip
MEASURES = {"active": "active", "channels_old": "used by an old class", "room": "room",
            "dimensions": "dimensions", "drift": "drift", "probe_old": "old, probe",
            "probe_new": "new, probe"}  # fmt: skip


# %% [markdown]
# *Dimensions* is the number of directions in which the features spread, $(\sum_j v_j)^2 / \sum_j v_j^2$ with the variances $v_j$ along their main
# directions (the eigenvalues of their covariance). *Drift* is how far the means of old classes have moved, in percent of their distance from each other.
# *Probe* is the percentage of locations of old or new classes that a linear classifier finds, fitted with all labels to the frozen features of the encoder: what
# could be read from them.

# %%
def means_of(base):
    methods = {"nothing": base} | {name: f"{base} + {key}" for key, name in LOSSES.items()}
    rows = {name: last[last["method"] == m][list(MEASURES)].mean() for name, m in methods.items()}
    return pd.DataFrame(rows).T


start = features.query("step == 0")
first = start[start["method"] == "MiB"][list(MEASURES)].mean().rename("all").to_frame().T
found = pd.concat({"step 0": first} | {base: means_of(base) for base in ("UCE", "MiB")})


def by(measure, name):  # on UCE and on MiB
    return found[measure].xs(name, level=1)


read = paired_gains(last, {base: (f"{base} + hoyer", base) for base in ("UCE", "MiB")},
                    {"old, probe": "probe_old", "new, probe": "probe_new"})
display(found.rename(columns=MEASURES).round(1))
gains_text(read).rename_axis("Hoyer's adds")
assert (read["old, probe", "high"] < 0).all() and read.loc["UCE", ("new, probe", "high")] < 0
assert read.loc["MiB", ("new, probe", "low")] < 0 < read.loc["MiB", ("new, probe", "high")]
assert (by("active", "the paper's ratio") > by("active", "nothing") + 10).all()
assert all((by("active", name) < by("active", "nothing") - 8).all() for name in list(LOSSES.values())[1:])
assert (by("room", "Hoyer's") > 30).all() and (by("probe_new", "Hoyer's") < by("probe_new", "nothing") + 1).all()
assert (by("probe_old", "Hoyer's") < by("probe_old", "nothing") - 3).all()

# %% [markdown]
# (Here all locations count, background too, over three seeds: so $M_0$ has a few more active channels than in the first table.)
#
# - **SDR's loss fills**, on both bases. Room does not follow on MiB: the seeds go both ways, for class means do not see what a location does.
# - **The other three empty.** Under Hoyer's measure one to three channels carry a location, and more than forty of 64 belong to no old class. That is as much room as one could ask for.
# - **But Hoyer's sparse features are harder to read** (small table): of the old classes a probe finds seven points less on both bases, and of the new ones, for which room was made, four less on UCE. (On MiB the interval of the
#   new ones holds zero.) The features of all three also spread in fewer directions.
# - **Drift grows** with every one of these losses, up to six times; yet MiB with SDR's loss is within a point of MiB. That need not surprise. On seed 0 (above) nearly all of the way was one for all ten objects, and as far as
#   background goes it, too, the biases of what reads the features can take it back. (The rest, 1.3 times the mean distance of two objects, they cannot.) How it is on other seeds and with the other losses was not measured.
#
# And mIoU: first the three bases alone, then differences to the base on the same seed, with their 95 % interval over three seeds and a star where it leaves
# zero out. (Of the 27 intervals one or two may do so by chance.)

# %%
WHAT = {"old": "miou_old_no_bg", "new": "miou_new", "all": "miou_all"}


EACH = {
    (base, name): (f"{base} + {key}", base)
    for base in ("UCE", "LwF", "MiB") for key, name in LOSSES.items()
    if f"{base} + {key}" in set(results["method"])
}  # fmt: skip
level = results.groupby("method")[list(WHAT.values())].mean().loc[["UCE", "LwF", "MiB"]]
level.set_axis(list(WHAT), axis=1).rename_axis("mIoU, mean of three seeds").round(1)

# %%
gains = paired_gains(results, EACH, WHAT)
gains_text(gains)
assert not (gains.xs("low", axis=1, level=1) > 0).any(axis=None)
assert (gains.xs("high", axis=1, level=1) < 0).sum(axis=None) == 9 and gains.xs("high", axis=1, level=1).size == 27
assert (gains.loc["MiB"]["all", "high"] < 0).all() and gains.loc[("MiB", "Hoyer's"), ("all", "high")] < -1
assert gains.loc[("UCE", "Hoyer's"), ("old", "high")] < 0
assert abs(gains.loc[("LwF", "the paper's ratio"), ("all", "mean")]) < 1

# %% tags=["draw"]
show(
    forest_plot(gains.rename(columns="mIoU, {}".format, level=0), "points added"),
    "Points of mIoU that each of four losses adds on UCE and MiB, and the paper's ratio on LwF, with 95 % intervals over three seeds: no interval lies "
    "above zero; for all classes those of MiB lie below it",
)  # fmt: skip

# %% [markdown]
# **No gain of any of the losses leaves zero out, on any base.** Nine of the 27 intervals leave it out on the losing side. On MiB every loss costs, on every seed: SDR's 0.7 points, the
# turned ratio 0.6, the L1 share a third of one (its interval ends just below zero), and Hoyer's, the quietest at the start, two. On LwF the old classes lose 0.4. On UCE, where most is
# forgotten, Hoyer's costs the old classes nine points, and
# filling channels is worth five points to them on one seed and nothing on the other two. That seed alone would have told another story.
#
# Note what this says of both directions. The loss that does the opposite of its name cost less than a point on MiB; of those that keep the promise two cost no more than it, the
# one that keeps it best cost most, and none of them kept the classes better than MiB alone.
#
# ## The idea at its best
#
# Has the idea had its chance? In step 1 it comes late: the room should be there *before* the new classes arrive. So let a loss act from step 0
# on, as in SDR's formulas, where nothing has to be remembered yet, and follow the whole chain:
#
# 1. Does the loss make $M_0$ sparse, and leave channels that no old class uses?
# 2. Does a linear probe find the classes to come more easily in such features?
# 3. Does step 1 then learn more, or forget less?

# %%
FROM_0 = {"nothing": "", "the paper's ratio": " + sparsification from step 0",
          "Hoyer's": " + hoyer from step 0"}  # fmt: skip
CHAIN = {"active": "active", "channels_old": "used by an old class", "room": "room",
         "probe_old": "old, probe", "probe_new": "new, probe"}  # fmt: skip
groups = {name: start[start["method"] == f"MiB{ending}"] for name, ending in FROM_0.items()}
M_0 = pd.DataFrame({name: rows[list(CHAIN)].mean() for name, rows in groups.items()}).T
M_0.rename(columns=CHAIN).rename_axis("M_0").round(1)
assert M_0.loc["Hoyer's", "active"] < 15 < M_0.loc["nothing", "active"] < M_0.loc["the paper's ratio", "active"]
assert M_0.loc["Hoyer's", "room"] < M_0.loc["nothing", "room"]

# %%
against = {name: (f"MiB{ending}", "MiB") for name, ending in FROM_0.items() if ending}
chain = paired_gains(start, against, {title: measure for measure, title in CHAIN.items()})
differences = gains_text(chain).rename_axis("M_0, minus nothing")
display(differences.iloc[:, :3])
differences.iloc[:, 3:]
assert chain.loc["Hoyer's", ("active", "high")] < 0 < chain.loc["Hoyer's", ("used by an old class", "mean")]
assert (chain["new, probe", "low"] < 0).all() and (chain["new, probe", "high"] > 0).all()

# %%
after = {f"mIoU after step 1, {what}": measure for what, measure in WHAT.items()}
outcome = paired_gains(results, against, after)
late = {name: (with_it, with_it.removesuffix(" from step 0")) for name, (with_it, _) in against.items()}
by_step_0 = paired_gains(results, late, after)
display(gains_text(outcome).rename_axis("minus nothing"))
gains_text(by_step_0).rename_axis("minus the loss from step 1 on")
assert all(outcome.loc["Hoyer's", (f"mIoU after step 1, {what}", "high")] < 0 for what in ("new", "all"))
assert (by_step_0.xs("low", axis=1, level=1) < 0).all(axis=None) and (by_step_0.xs("high", axis=1, level=1) > 0).all(axis=None)

# %%
begun = pd.read_csv(f"{STUDY}/results.csv").query("setup == 'disjoint' and step == 0")
itself = paired_gains(begun, against, {"mIoU of M_0": "miou_all"})
of_seed = begun.pivot(index="method", columns="seed", values="miou_all")
each = pd.DataFrame({
    name: (of_seed.loc[with_it] - of_seed.loc["MiB"]).rename("seed {}".format)
    for name, (with_it, _) in against.items()
}).T.round(1)
pd.concat([gains_text(itself), each], axis=1).rename_axis("M_0, minus nothing")
assert (each < 0).all(axis=None)

# %% [markdown]
# Link by link:
#
# 1. **Sparse, but no room.** With Hoyer's loss from step 0 on, a location of $M_0$ has nine active channels where it had thirty-four. Yet its classes use no
#    fewer channels than before, and hardly one is left that no class uses. That fits what was measured above under Hoyer's loss, though in another network: a
#    location shares less than half of its active channels with the next one of its class. Under the ratio a location has more active channels than without, as before; what its three seeds say of used channels and of
#    room goes both ways.
# 2. **No better place for new classes.** That a probe finds the classes to come more easily in a sparse $M_0$ than in the plain one, three seeds do not show; nor
#    the opposite, for the interval is twenty points wide. (The classes that $M_0$ has learned itself a probe finds a point more easily under Hoyer's loss, and that interval leaves zero out:
#    one of ten.)
# 3. **After step 1 all means are lower, but step 0 has no proven part in it.** Compared with MiB alone (first table) Hoyer's loss costs the new classes about three points, and all classes too, beyond zero. For the ratio no difference is
#    beyond it. Now both losses go on in step 1, and there Hoyer's costs two points by itself. So compare with the same loss from step 1 on (second table): what it did in step 0 adds or takes nothing that three seeds could show, for
#    either loss. $M_0$ itself has paid, for its mIoU is lower on every seed. The clean test is a loss in step 0 *alone*.
#
# ### In step 0 alone, and with eight channels
#
# One doubt is left besides: 64 channels may be room enough for eleven classes. So both losses were trained in step 0 alone, with 64 channels and with 8 (`model.backbone=mini_narrow`), on UCE and on MiB, three seeds
# ([sparse_start](../benchmarks/studies/sparse_start/README.md)). First what eight channels cost by themselves, then what the losses add, and last what they do to $M_0$:

# %%
START, DIMS = "../benchmarks/studies/sparse_start", (64, 8)
clean = pd.read_csv(f"{START}/results.csv").query("step == 1")
short_of = {base: (f"{base}, D = 8", f"{base}, D = 64") for base in ("UCE", "MiB")}
KEYS = {"the paper's ratio": "sparsification", "Hoyer's": "hoyer"}
early = {
    (base, f"D = {dim}", name): (f"{base}, D = {dim} + {key} in step 0", f"{base}, D = {dim}")
    for base in short_of for dim in DIMS for name, key in KEYS.items()
}  # fmt: skip
narrower, added = (paired_gains(clean, pairs, WHAT) for pairs in (short_of, early))
display(gains_text(narrower).rename_axis("8 channels minus 64"))
gains_text(added[["new", "all"]]).rename_axis(["step 0 alone", "", "minus nothing"])
assert (narrower.loc["MiB"].xs("high", level=1) < 0).all()
assert (added["all", "low"] < 0).all() and (added["all", "high"] > 0).all()
assert added.loc[("MiB", "D = 64", "Hoyer's"), ("new", "high")] < 0

# %%
of_M_0 = pd.read_csv(f"{START}/features.csv").query("step == 0")
narrow = {(d, n): v for (base, d, n), v in early.items() if base == "MiB"}
SEEN = {title: measure for measure, title in CHAIN.items() if measure != "channels_old"}
changed = paired_gains(of_M_0, narrow, SEEN)
with_8 = changed.loc[("D = 8", "Hoyer's")]
gains_text(changed).rename_axis(["M_0", "minus nothing"])
assert with_8["active", "high"] < 0 < with_8["room", "mean"] and with_8["new, probe", "high"] < -5

# %% [markdown]
# - **Eight channels cost MiB five points** (1.6 to 8.5), of old and new classes alike. But $M_0$ itself, before any new class, is 2.6 points lower ([study](../benchmarks/studies/sparse_start/README.md)): the network is smaller. And UCE learns less with them *and forgets less*: its old classes end eight points higher, beyond zero, and the new ones as
#   much lower, zero inside. If space were short, UCE should forget more. So that it is short, or how much of MiB's five points is room for new classes, cannot be told.
# - **In step 0 alone neither loss adds anything** to all classes that three seeds could show, with many channels or few. Of the 24 intervals, old classes counted too, two leave zero out, where chance gives one. Hoyer's costs MiB's new classes 2.4 points with 64 channels; the ratio
#   gives UCE's new classes 4.4 with eight, where it leaves as many channels active as there were (4.4 for 4.3), so that it is no gain of sparse features. The first would survive 24 questions at once, the second would not: so Hoyer's loss in step 0 has its part in what is lost.
# - **Sparse, with room in the mean, and harder to read.** With eight channels Hoyer's loss does what the idea asks, in the mean: one of them is active at a location, where four were, and four are left that no old class uses, where two were (3, 6 and 3 for 3, 2 and 2: zero is inside). But a linear probe finds the
#   classes to come eight points less often, and those of the step itself fourteen (among sixteen intervals the first stands, the second is a hint). What step 1 then learns differs by nothing that three seeds could show. One active channel of eight tells few classes apart; one or two of 64 still told most (the table of
#   three bases). One weight was tried, and as Hoyer's measure is divided by $\sqrt D - 1$, the same weight counts 3.8 times as much with eight channels.
#
# ### What it would need
#
# The gains that the paper publishes are measured on other data and in a larger network; nothing here says that they are wrong. What
# does not hold is the explanation of this loss: as its formula stands it lights more channels of a location, and in every run on MiniVOC with 64 channels it did.
# (In the small network of two channels it did not: there more points fall silent with it, as below the floor.) As for the idea behind it, room for
# new classes, the evidence of this chapter says what a test would have to have:
#
# - **Space that is short.** In the small network, forgetting fell from sixteen points to
#   none as $D$ went from 2 to 16, which also makes all of the network larger and leaves no point silent; on MiniVOC eight channels cost MiB five points, which sparse features did not give back, and UCE forgot less with them. So fewer channels alone are no test. The paper's $D$ is 2048, for 21 classes.
# - **The right unit.** Room is left by a class that agrees with itself on few channels. A loss that sees one location at a time does not ask for
#   that (exercise 7.5 does).
# - **Weights, not only activity.** New classes change the layers below, which all classes share. Methods that do protect room freeze the weights
#   that old classes use, as PackNet does (Mallya and Lazebnik, CVPR 2018).
# - **Forgetting that is in the features.** On 6-4, the task of this chapter, MiB names nine points less of the old classes, seven of them lost among the old names alone, and a probe of its features 3.5
#   ([table](../benchmarks/studies/old_names/README.md)): sparse features would have to keep the old classes apart from each other. On 6-1 two thirds of 22 points went to new names: there they would have to keep old classes apart from new ones.
# - **Pseudo-labels** are not the weak link this time: labels enter this loss through the peak of a class alone, and Hoyer's and the entropy not at all.
#
# ## Exercises
#
# ### 7.1 The value of a pattern
#
# In the text $n$ of $D$ channels were at the peak. Let them have another normalised activity, $0 < x \le 1$, and the others be silent. What does the formula of the
# paper (without the floor) give? And is it smaller for two channels at a half than for one at the peak?

# %% tags=["exercise"]
def value_of(n, dim, x=1.0):
    """n channels of dim have activity x, 0 < x <= 1, the others 0.

    Returns the sum of the exponentials over the sum.
    """
    # SOLUTION
    # (two channels at a half: 65.30, and one at the peak: 65.72, so yes)
    return (n * math.exp(x) + dim - n) / (n * x)
    # END

# %% tags=["check"]
check(
    "7.1", value_of,
    [((1, 64), math.e + 63), ((64, 64), math.e), ((16, 64), math.e + 3), ((16, 64, 0.5), 9.297443),
     ((1, 64, 0.25), 257.136102), ((2, 10), math.e + 4)],
    hint="there are n channels with exp(x) and dim - n silent ones with exp(0) = 1; a silent one counts "
    "in the upper sum and adds nothing to the lower; and no floor below the line",
)  # fmt: skip

# %% [markdown]
# ### 7.2 Hoyer's sparseness
#
# The measure itself, as Hoyer defines it: 1 where one channel is awake, 0 where all are equal. (That is 1 minus the loss above, which falls as features get sparser.)
# A silent location has no pattern; say 0.

# %% tags=["exercise"]
def sparseness(features):
    """features: (N, D), not negative.

    Returns a tensor (N,): (sqrt(D) - |f|_1 / |f|_2) / (sqrt(D) - 1), and 0 for a silent row.
    """
    # SOLUTION
    root, length = features.shape[1] ** 0.5, features.square().sum(dim=1).sqrt()
    measured = (root - features.sum(dim=1) / length.clamp(min=1e-12)) / (root - 1)
    return torch.where(length > 0, measured, 0)
    # END

# %% tags=["check"]
vectors = torch.tensor([[0, 0, 0, 0], [0, 3, 0, 0], [2, 2, 2, 2], [1, 2, 3, 4]]).float()
weak = torch.tensor([[0.1] * 4, [0.001, 0, 0, 0], [0.0] * 4])
check(
    "7.2", sparseness,
    [((torch.zeros(2, 4),), Property("0 for silent rows", lambda m: m.tolist() == [0, 0])),
     ((vectors,), torch.tensor([0.0, 1.0, 0.0, 0.174258])),
     ((weak,), torch.tensor([0.0, 1.0, 0.0])),  # the same at any scale
     ((torch.tensor([[1.0, 2, 3, 4, 5, 0, 0, 0, 0]]),), torch.tensor([0.4887]))],  # D = 9
    hint="two norms for each row; D is the number of channels; a row of zeros has 0 / 0, which must not "
    "come out as nan; a weak row is not silent, so a floor below the line must be tiny, such as 1e-12",
)  # fmt: skip

# %% [markdown]
# ### 7.3 The push, with the floor
#
# The library divides by $\max(A, 1)$. Write the push (minus the derivative by each $\bar f_j$, at a fixed peak) for both cases: $A \ge 1$ and
# $A < 1$. Which sign has the second?

# %% tags=["exercise"]
def push_with_floor(fbar):
    """fbar: (D,), between 0 and 1.

    Returns a tensor (D,), minus the gradient of sum(exp(fbar)) / max(sum(fbar), 1).
    """
    # SOLUTION
    # (below the floor it is negative, on each channel: down to silence)
    total, powers = fbar.sum(), fbar.exp()
    if total < 1:
        return -powers
    return (powers.sum() / total - powers) / total
    # END

# %% tags=["check"]
lively, quiet = torch.tensor([1.0, 0.5, 0.0, 0.0]), torch.tensor([0.2, 0.1, 0.0, 0.0])
near = torch.tensor([0.52, 0.5, 0.0, 0.0])  # A = 1.02: sum(exp) / A is 5.226225
check(
    "7.3", push_with_floor,
    [((lively,), torch.tensor([1.017591, 1.730632, 2.163112, 2.163112])),
     ((quiet,), torch.tensor([-1.221403, -1.105171, -1.0, -1.0])),
     ((torch.full((3,), 0.5),), torch.full((3,), math.exp(0.5) / 1.5)),  # A = 1.5, and no peak
     ((torch.full((2,), 0.3),), torch.full((2,), -math.exp(0.3))),  # A = 0.6, and a larger mean
     ((near,), torch.tensor([3.474703, 3.507357, 4.143358, 4.143358]))],
    hint="the floor asks for the sum A, not for the peak or the mean; below it the denominator is a "
    "constant, and what is left is the derivative of exp",
)  # fmt: skip

# %% [markdown]
# ## Quiz

# %% tags=["quiz"]
quiz(
    "Two locations with 64 channels have the same total activity of 4 peaks. One has 4 channels at the peak, the other 16 channels at a quarter of it. Which has the smaller sparsification loss?",
    [
        ("The one with 16 channels",
         "Right: at equal sums the sum of exponentials is the smaller the more even the spread is, since the exponential curves upwards. Here, too, the loss prefers many."),
        ("The one with 4 channels",
         "Compute the upper sums: 4 e + 60 = 70.9 against 16 times 1.284 + 48 = 68.5. At equal totals the one with 16 is smaller: an exponential rewards an even spread."),
        ("They are equal, the denominator is",
         "The numerator is not: exp curves upwards, so four large entries cost more than sixteen small ones."),
    ],
    right=0,
)

# %% tags=["quiz"]
quiz(
    "Under Hoyer's loss a location has 6 active channels. Does its class use 6 channels?",
    [
        ("Yes, a class is the set of its locations",
         "Each location may choose other channels: edge and middle of a disc, say. After sixty iterations above, two locations of a class share only a part of them."),
        ("Not necessarily",
         "Right. The loss looks at one location at a time. Room needs locations of a class to agree on their channels, which no loss of this chapter asks for; exercise 7.5 does."),
    ],
    right=1,
)

# %% tags=["quiz"]
quiz(
    "A paper reports that a loss called X improves mIoU. You find that X does the opposite of what its name says. What follows?",
    [
        ("The improvement cannot be real",
         "It can: a loss may help for a reason that its authors did not think of. What is refuted is the explanation, not the number."),
        ("Nothing, names do not matter",
         "They guide what one tries next. Whoever believes that features became sparse will look for gains in the wrong place."),
        ("The explanation is wrong; whether the number holds is for seeds and controls to say",
         "Right. Keep effect and explanation apart, and test each."),
    ],
    right=2,
)

# %% tags=["quiz"]
quiz(
    "You multiply all features by 10 and divide the weights that read them by 10: the same logits. Which of the five losses change?",
    [
        ("None",
         "Right: ratio, turned ratio and L1 share are divided by the peak, and Hoyer's and the entropy by the norm or the sum of the location. A plain L1 norm would change, and shrink features for no gain."),
        ("The L1 share and the ratio, for they see the size of f",
         "They divide by the peak of the class, which is ten times larger, too."),
        ("All but Hoyer's, the only one with a norm of f below the line",
         "What is below the line of the others grows by ten as well: the peak of the class, or the sum of the location."),
    ],
    right=0,
)

# %% [markdown]
# ## Further: the peak, the floor, and a loss for whole channels
#
# ### The derivative of the peak
#
# Above, the peak was held fixed. It is not: $P_c$ is the largest entry of the class in the batch, and a gradient flows into it. With
# $\bar f_{ij} = f_{ij} / P_c$ and $g_{ij} = \partial r_i / \partial \bar f_{ij} \le 0$ for the $\hat n_c$ locations of a class,
#
# $$\frac{\partial}{\partial f_{ij}} \sum_i r_i = \frac{g_{ij}}{P_c} - [\,(i, j) \text{ is the peak}\,] \; \frac{1}{P_c} \sum_{i', j'} g_{i'j'} \bar f_{i'j'}$$
#
# The second part is positive: the loss wants the peak *lower*, with the force of the whole class behind it. Lower peak, fuller channels: both
# parts ask for the same, that all entries of a class be alike.

# %%
def gradient_by_hand(rows, ids):  # (n, D), (n,) -> (n, D): of the sum of all r_i, no floor
    gradient = torch.zeros_like(rows)
    for c in ids.unique():
        here = ids == c
        peak = rows[here].max()
        fbar = rows[here] / peak
        g = -push_at_fixed_peak(fbar)
        part = g / peak
        part.view(-1)[fbar.argmax()] -= (g * fbar).sum() / peak
        gradient[here] = part
    return gradient


rows, ids = torch.rand(40, 64, generator=generator), torch.arange(40) % 4
of_rows = rows.clone().requires_grad_()
plain = normalised(of_rows, ids)
(plain.exp().sum(dim=1) / plain.sum(dim=1)).sum().backward()
at_peak = torch.stack([gradient_by_hand(rows, ids)[ids == c].max() for c in range(4)])
print("derivative by the four peaks:", *(f"{value:.2f}" for value in at_peak))
assert torch.allclose(gradient_by_hand(rows, ids), of_rows.grad, atol=1e-5) and (at_peak > 0).all()

# %% [markdown]
# ### The floor, and a location that is almost silent
#
# Without the floor the push on channel $j$ is $(r - e^{\bar f_j}) / A$, and $r$ itself is at least $D / A$: for a quiet location it grows like
# $D / A^2$. On real photographs one such location pushed a whole run away ([docs](../docs/real_voc_subset.md)); so the library stops
# at $A = 1$, the activity of a single channel at the peak. How many locations are that quiet here? All labelled ones count,
# background too, with the peaks of their batch, as the loss sees them.

# %%
def total_activity(model):  # A_i of every labelled location: (N,)
    parts = []
    for batch in tests:
        rows, ids = map(torch.from_numpy, class_features(model, [batch]))
        parts.append(normalised(rows[ids < 255], ids[ids < 255]).sum(dim=1))
    return torch.cat(parts)


quiet = {f"MiB, M_{step}": total_activity(mib.model(step)) for step in (0, 1)}
quiet["with the paper's ratio, M_1"] = total_activity(sparsified.model(1))
frame = pd.DataFrame({
    name: {"locations": len(a), "mean of A": a.mean().item(), "smallest": a.min().item(),
           "below 1": int((a < 1).sum())}
    for name, a in quiet.items()
}).T  # fmt: skip
frame.round(2).astype({"locations": int, "below 1": int})
assert frame["below 1"].max() == 0

# %% [markdown]
# None, so on MiniVOC floor and formula are the same loss. (In the plane of the toy it was half of the picture: of two
# channels a half each is needed to reach a total of 1, of 64 hardly more than a hundredth each.) The released code has no floor but $10^{-15}$, and lets features be negative; behind a ReLU there are none. Its
# [switches](../docs/paper_and_released.md) change nothing here that four decimals could show.
#
# ### 7.4 Room
#
# From class means alone, without `channels_used`: how many channels are not among those that carry a share of the activity of any class?

# %% tags=["exercise"]
def free_channels(means, share=0.9):
    """means: (C, D) class means, not negative, no row silent.

    A class uses its strongest channels, as few as carry `share` of its sum. Returns how many of
    the D channels no class uses.
    """
    # SOLUTION
    taken = torch.zeros(means.shape[1], dtype=torch.bool)
    for row in means:
        strongest = row.sort(descending=True)
        before = strongest.values.cumsum(dim=0) - strongest.values  # what the stronger ones carry
        taken[strongest.indices[before < share * row.sum()]] = True
    return int((~taken).sum())
    # END

# %% tags=["check"]
two_classes = torch.tensor([[8.0, 1.5, 0.5, 0.0, 0.0], [0.0, 0.0, 1.0, 9.0, 0.2]])
three_classes = torch.tensor([[4.0, 1, 0, 0, 0, 0], [0, 0, 40, 10, 0, 0], [0, 0, 0, 0, 5, 0]])
check(
    "7.4", free_channels,
    [((two_classes,), 1), ((two_classes, 0.5), 3), ((two_classes, 0.99), 0),
     ((torch.ones(3, 10), 0.35), 6), ((three_classes,), 1), ((torch.tensor([[2.0, 1, 1]]), 0.5), 2)],
    hint="sort each row; a channel is used if the stronger ones together do not reach the share of "
    "that row's sum yet (a share that is just reached is carried); then unite all the classes",
)  # fmt: skip

# %% [markdown]
# ### 7.5 Open: a loss for whole channels
#
# A sparse location is not yet a class that leaves channels alone. Design a loss that looks at a **class**: that is small when all locations of
# a class use the same few channels. (Whether all classes should use the *same* few is another matter: it leaves room and makes poor features. The check
# does not ask; your loss may.) Then measure with it, in your own way, whether room helps.
#
# The check can only test what any such loss must have. It is a number with a gradient that says how it changes. It prefers a class on few channels (two of 32, say) to one on
# more (eight). It sees the difference between locations that agree and such that do not. It takes each class by itself, class 0 like the others, and all of its locations. And it does not
# simply ask a class to be silent, or to be loud. (A mean or a sum over classes, as you like.) The
# measurement is judged by this rubric (two points each):
#
# | | 0 | 1 | 2 |
# |---|---|---|---|
# | hypothesis | none | said afterwards | one sentence with a number, before the first run |
# | weight | as it came | searched on the reported seed | equal force at the start, or searched on another seed |
# | control | none | the base alone | the base and a loss of the same force without the idea |
# | evidence | one seed | several, unpaired | paired over at least three seeds, with an interval |
# | conclusion | more than was measured | what was measured | that, and which result would have changed your mind |

# %% [markdown]
# The features of the check, folded: four classes of four locations, and 32 channels, the first eight for class 0, the next eight for class 1, and so on. In *before* and
# *after* one class, or two, have other features.

# %% tags=["setup", "verify"]
of_class, of_location = torch.arange(16) // 4, torch.arange(16) % 4  # (16,)
channel = torch.arange(32) - 8 * of_class[:, None]  # (16, 32), counted from the first one of the class
on_two, on_four, on_eight = (((channel >= 0) & (channel < n)).float() for n in (2, 4, 8))
on_others = (channel // 2 == of_location[:, None]).float()  # two in each location, eight in the class
all_on_two = (torch.arange(32) < 2).float().repeat(16, 1)  # the same two for all classes
neighbours = on_four.view(2, 2, 4, 32).flip(1).reshape(16, 32)  # what class 1 has for class 0, and back
exchanged = torch.where(of_location[:, None] < 2, on_four, neighbours)  # half of the locations

uneven = torch.tensor([0, 3, 1, 0, 2, 0] * 4)  # twelve locations of class 0
drawn = torch.rand(24, 32, generator=torch.Generator().manual_seed(0)) ** 4 + 0.05
sparser = torch.where(torch.arange(32) < 2, 0.003, -0.003)  # two channels up, the others down
moved = [drawn + (uneven == c)[:, None] * sparser for c in range(4)]
steps = [[rows.clone().requires_grad_() for rows in (drawn, after)] for after in moved]


def changed(rows, others, classes):
    after = torch.where(torch.isin(of_class, torch.tensor(classes))[:, None], others, rows)
    return Several({"before": (rows, of_class), "after": (after, of_class)})


def follows(of, c):  # a step changes the loss by the step times the mean of the gradients at its ends
    if not all(value.requires_grad for value in of.values()):
        return False
    slopes = [torch.autograd.grad(value, rows)[0] for value, rows in zip(of.values(), steps[c])]
    change, said = of["after"] - of["before"], (sum(slopes) / 2 * (moved[c] - drawn)).sum()
    return slopes[0][uneven == c].any() and abs(change - said) < 0.1 * abs(change) + 1e-5


def grows(of, by=1e-4):
    return of["after"] > of["before"] + by

# %% tags=["exercise"]
def channel_loss(features, labels):
    """features: (N, D), not negative; labels: (N,) classes, and class 0 counts like the others.

    Returns a tensor of one number with a gradient, small where the locations of a class share few
    channels.
    """
    # SOLUTION
    values = []
    for c in labels.unique():
        rows = features[labels == c]
        shares = rows / rows.sum(dim=1, keepdim=True).clamp(min=1e-6)
        mean = shares.mean(dim=0)  # (D,): which part of the activity each channel carries
        values.append(-(mean * mean.clamp(min=1e-12).log()).sum() / math.log(len(mean)))
    return torch.stack(values).mean()
    # END

# %% tags=["check"]
WANTED = {
    "larger after class {} has eight channels, not two": (on_two, on_eight, range(4)),
    "larger after the locations of class {} have different channels": (on_two, on_others, range(4)),
    "larger after classes {} exchange half of their locations":
        (on_four, exchanged, [(0, 1), (2, 3)]),
}
check(
    "7.5", channel_loss,
    [((on_two, of_class), Property(
        "a tensor of one finite number, also where channels are silent",
        lambda loss: torch.is_tensor(loss) and loss.shape == () and loss.isfinite())),
     *((Several({"before": (steps[c][0], uneven), "after": (steps[c][1], uneven)}), Property(
         f"a loss whose gradient by the features of class {c} says how it changes with them",
         lambda of, c=c: follows(of, c))) for c in range(4)),
     *((changed(rows, others, those), Property(text.format(those), grows))
       for text, (rows, others, classes) in WANTED.items() for those in classes),
     *((changed(all_on_two, 0.01 * all_on_two, c), Property(
         f"no smaller after class {c} is faint", lambda of: grows(of, by=-1e-3))) for c in range(4)),
     (changed(on_two, 10 * on_two, range(4)), Property(
         "no smaller after all classes are ten times as loud", lambda of: grows(of, by=-1e-3))),
     (Several({"before": (drawn, uneven), "after": (drawn.flip(0), uneven.flip(0))}), Property(
         "the same after the locations change places", lambda of: not grows(of) and grows(of, -1e-3)))],
    hint="take the mean of each class over all its locations; then its sparsity over the mean's total "
    "or norm, or silence pays; .item(), .detach() and > have no gradient; 0 times log 0 is nan",
)  # fmt: skip

# %% [markdown]
# To train yours, wrap it: `rows, ids = active_rows(context)`, then `return channel_loss(rows, ids)` under `@term(needs_teacher=True,
# first_step=0)`, and give `run_or_load` your weight.
