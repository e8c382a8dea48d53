# %% [raw]
# title: Paper and code
# goals:
#   - show what each difference between SDR's formulas and its released code does, on the smallest tensor that reveals it
#   - say what each difference costs, with its interval, and where it would have to be measured
#   - examine a loss by a value worked out by hand, invariances, a batch of one against two, and the sign of its push
#   - read published tables that disagree about the same cell
# summary:
#   - Thirteen places. Entries of a class are read in another order, a sum is divided inside its loop, hidden objects are called background, a norm is a mean of squares; and outside the losses a head without activations, labels that are not taken, statistics that hardly move. Two locations and two channels show most of them.
#   - On MiniVOC batch norm, where the paper has no formula and the other side is this course's own choice, is most of it, sixteen points of eighteen when it is taken out of the release (4 to 29) and eleven when it is put into the formulas (1 to 22); the wrong readings cost nothing that three seeds show, for the losses that they spoil are worth nothing there. On UCE, where matching is worth sixteen points, the wrong reading leaves three (-1.7 to 8.6). A difference has no cost of its own, only one in a place.
#   - Seven tools of a few lines find the wrong readings, the lost digits, and what is done with silent and with unlabelled locations, without a look at the code. An eighth, of your own, finds the division, and the three planted faults are found by one tool each. No tool is enough, and a disagreement may be yours.
#   - Recompute a row from its parts, which tells whether background is counted; compare within a table; take the stronger baseline. Of twenty points on one cell the count explains at most three, and SDR+MiB stands there twenty-three points above one number and two and a half above the other, which is no measured gain.
# ends_with: a way to read research code, tried on three planted faults
# reading_minutes: 90
# further_minutes: 20
# prerequisites: ["04", "05", "06", "07"]
# differs:
#   - The chapter is about the differences themselves; [the page](../docs/paper_and_released.md) has the full list, with the settings that switch each of them.
#   - The released code was read and measured and written anew here, for ten classes, 64 channels and 64 pixels. What a difference costs is said of MiniVOC, and not of the paper's runs.
# references:
#   - "SDR: Michieli & Zanuttigh, Continual Semantic Segmentation via Repulsion-Attraction of Sparse and Disentangled Latent Representations, CVPR 2021, arXiv 2103.06342; the losses are section 4. Its tables are read from the authors' slides of that year."
#   - "The release of its authors: github.com/LTTM/SDR, commit f1c6d12; what was read is listed at [the table](../docs/paper_and_released.md)."
#   - "MiB: Cermelli et al., Modeling the Background for Incremental Learning in Semantic Segmentation, CVPR 2020; its results on VOC are table 1."

# %% [markdown]
# A paper gives formulas, and its authors were so good as to publish their code as well. Do the two say the same? For SDR they part in thirteen places. That is
# no scandal. Between a formula and a GPU lie a thousand small decisions, and few of them fit on eight pages. Whoever publishes code lets others look; of
# whoever does not, nobody can say anything.
#
# The chapter looks at each place on a tensor so small that one can do it in one's head. Then it asks what each of them costs, which is another question. Then
# come the tools: how does one *find* such a thing, in other people's code and in one's own? At the end two published tables say 44.3 and 64.7 for the same
# cell, and one has to do something with that.

# %% tags=["setup"]
import math
from importlib import resources

import numpy as np
import pandas as pd
import torch

from sparcl_lib import losses
from sparcl_lib.course import (
    Property, check, compare_guess, explore, guess_first, minivoc_config, panels, quiz, run_or_load,
    run_or_load_all, show,
)  # fmt: skip
from sparcl_lib.course.planted import planted_attraction, planted_matching, planted_repulsion
from sparcl_lib.data import partition
from sparcl_lib.methods import TERMS, StepContext
from sparcl_lib.methods.released_prototypes import ReleasedPrototypes
from sparcl_lib.methods.variants import DIFFERENCES
from sparcl_lib.models import SegmenterOutput, build_backbone, grow
from sparcl_lib.models.segmenter import build_head
from sparcl_lib.prototypes import PrototypeBank
from sparcl_lib.report.differences import gains_text, paired_gains
from sparcl_lib.published.images import voc_presence
from sparcl_lib.tasks import get_task
from sparcl_lib.training.workspace import open_workspace
from sparcl_lib.viz import forest_plot

# %% [markdown]
# ## Thirteen places, each on its smallest tensor
#
# Each place has a name, which is a row of [the table](../docs/paper_and_released.md) and a word of the setting `method.variant`. The library has the released
# form of each, and its losses were found to agree with the release itself, value and gradient, within 1e-6 (without void pixels, and with at most 25 classes in
# a batch). The cells write it plainly, and compare with the library.
#
# ### Prototypes: entries in another order
#
# The mean of the features of a class, over a batch. A mask picks its entries out of (B, D, h, w) as one long vector, and the vector is read as (D, n): so many
# channels, so many locations. Two images of one location each, two channels, one class. What is in the long vector?

# %% tags=["setup"]
def row_of(*vectors):  # vectors of D numbers -> (1, D, 1, n), a map with a location for each
    return torch.tensor(vectors, dtype=torch.float32).T[None, :, None]

# %%
two_images = torch.cat([row_of((1, 10)), row_of((2, 20))])  # (2, 2, 1, 1)
of_class_1 = torch.ones(2, 1, 1, dtype=torch.int64)
entries = two_images[(of_class_1 == 1)[:, None].expand_as(two_images)]
read = entries.view(2, -1)  # (D, n)
print("true mean:", two_images.mean(dim=(0, 2, 3)).tolist())
print("the long vector:", entries.tolist(), "read as (D, n):", read.tolist(), end=" ")
print("mean:", read.mean(dim=1).tolist())
library = losses.reshaped_features(two_images, of_class_1)  # what the setting `released` reads
assert torch.equal(library.mean(dim=(0, 2, 3)), read.mean(dim=1))
assert torch.equal(losses.reshaped_features(two_images[:1], of_class_1[:1]), two_images[:1])  # one image: right

# %% [markdown]
# The vector goes image by image and, in each image, channel by channel. Read as (D, n) its first row holds both channels of the first image. For a batch of
# **one** image the first row is the first channel, and all is well: whoever tries it with one image sees nothing. With more, the prototypes keep their sum and
# lose their shape, here on made-up means of four classes:

# %% tags=["draw"]
def draw_prototypes(images_in_a_batch):
    generator = torch.Generator().manual_seed(0)
    centres = torch.rand(4, 24, generator=generator)  # four classes, 24 channels
    labels = torch.randint(4, (8, 5, 5), generator=generator)
    features = centres[labels].movedim(-1, 1)
    parts = zip(features.split(images_in_a_batch), labels.split(images_in_a_batch))
    as_read = torch.cat([losses.reshaped_features(*part) for part in parts])
    means = [torch.stack([f.movedim(1, -1)[labels == c].mean(dim=0) for c in range(4)]) for f in (features, as_read)]
    figure, grid = panels(rows=2, width=8.6, height=3.2, sharex=True, sharey=True)
    alike = torch.corrcoef(torch.stack([m.flatten() for m in means]))[0, 1]
    batch = "one image" if images_in_a_batch == 1 else f"{images_in_a_batch} images"
    for axes, mean, title in zip(grid, means, ("true means", f"as the release reads batches of {batch}: correlation {alike:.2f}")):
        image = axes.imshow(mean, cmap="magma_r", vmin=0, vmax=1, aspect="auto", interpolation="nearest")
        axes.set(title=title, ylabel="class", yticks=range(4))
        axes.grid(False)
    grid[1].set_xlabel("channel")
    figure.colorbar(image, ax=list(grid), label="mean feature")
    return figure


explore(
    draw_prototypes, "Made-up means of four classes over 24 channels: the true ones have entries from 0 to 1 in a pattern for each class; as read from batches of "
    "eight images the pattern is gone, the correlation with the true ones is 0.07, and nearly all entries lie near the middle", images_in_a_batch=[8, 4, 2, 1],
)  # fmt: skip

# %% [markdown]
# One thing more in the same place. In a later step background enters no prototype, and the release leaves out the *smallest label of the batch*. That is
# background, if the batch has any. Which classes does a batch of step 1 add to the prototypes?

# %%
def context_of(features, labels, old_labelled=False, logits=None, num_old=2):  # a batch of step 1
    target = torch.tensor(labels)[None, None]  # (1, 1, n)
    logits = torch.zeros(1, 4, 1, len(labels)) if logits is None else logits  # four classes
    unsure = torch.zeros(1, num_old, 1, len(labels))  # so the old network says background
    guesses = SegmenterOutput(low_res_logits=unsure, features=features)
    output = SegmenterOutput(low_res_logits=logits, features=features)
    bank = PrototypeBank(4, features.shape[1])
    return StepContext(output, target, guesses, bank, num_old, old_labelled, step=1)


def added(*labels):
    features = torch.ones(1, 2, 1, len(labels))
    _, counts = ReleasedPrototypes().prototype_sums(context_of(features, labels))
    return counts.nonzero().flatten().tolist()


print("labels 0, 2, 3: classes", added(0, 2, 3), "are added; labels 2, 3: class", added(2, 3))
assert added(0, 2, 3) == [2, 3] == torch.tensor([0, 2, 3]).unique()[1:].tolist()
assert added(2, 3) == [3] == torch.tensor([2, 3]).unique()[1:].tolist()

# %% [markdown]
# A photograph without any background ought to be rare, and a batch of eight without any rarer still (nobody has counted them here). If so, a short trial would
# hardly meet it.
#
# ### Matching: and the other way round
#
# Prototypes matching takes the same long vector and reads it as (n, D), although channels come first in it. That is wrong for a single image, too. Two equal
# features, and their own prototype:

# %%
equal_features, own_prototype = row_of((0, 1), (0, 1)), torch.tensor([[0.0, 0], [0, 1]])
both_of_1 = torch.ones(1, 1, 2, dtype=torch.int64)
entries = equal_features[(both_of_1 == 1)[:, None].expand_as(equal_features)]
read_by_matching = entries.view(-1, 2)  # (n, D)
found = (read_by_matching.mean(dim=0) - own_prototype[1]).square().mean()
print("the long vector:", entries.tolist(), "read as (n, D):", read_by_matching.tolist())
print(f"the distance of the class from its own prototype: {found:.2f} where 0 is due")
assert found == losses.released_matching(equal_features, both_of_1, own_prototype)
assert losses.prototypes_matching(equal_features, both_of_1, own_prototype) == 0

# %% [markdown]
# The more channels, the further off. Sixteen equal features of 64 channels, in which channel $j$ has the value $j$, and their own prototype:

# %%
ramp = torch.arange(64.0)
sixteen, of_16 = row_of(*[ramp.tolist()] * 16), torch.ones(1, 1, 16, dtype=torch.int64)
far = losses.released_matching(sixteen, of_16, torch.stack([0 * ramp, ramp]))  # of classes 0 and 1
its_mean = losses.reshaped_features(sixteen, of_16, "locations").mean(dim=(0, 2, 3))  # (64,)
print(f"the distance of the class from its own prototype: {far:.1f} where 0 is due")
print(f"entries of its mean: {its_mean.min():.0f} to {its_mean.max():.0f} where 0 to 63 is due")
assert far == 302.5 and losses.prototypes_matching(sixteen, of_16, torch.stack([0 * ramp, ramp])) == 0
assert torch.equal(its_mean, torch.stack([ramp[j // 16 :: 4].mean() for j in range(64)]))  # of 16 channels, 4 apart

# %% [markdown]
# So one and the same vector is read in two ways by one method. Both run, both give a number, and nothing complains. Each entry of such a "mean" is an
# average over many channels, here over sixteen, from the first to the last; on MiniVOC a class has a median of 54 locations in a batch (counted below). What is left to hold is, nearly, how strong the class is on the whole. (A class that the teacher names and
# of which no prototype is known is drawn to zero in the release; the library passes it over.)
#
# ### Contrast: the same reading in two more losses
#
# Attraction and repulsion read the features as the prototypes do, (D, n). Two images again. First both features lie exactly at their prototype; then two
# classes have a location in each image, and their means are far apart:

# %%
at_home = torch.cat([row_of((1, 10)), row_of((1, 10))])  # (2, 2, 1, 1)
home = torch.tensor([[0.0, 0], [1, 10]])
pull = losses.released_attraction(at_home, of_class_1, home)
far_apart = torch.cat([row_of((1, 10), (10, 1))] * 2)  # class 1 and class 2 in both images
ids = torch.tensor([[[1, 2]], [[1, 2]]])
apart = losses.released_repulsion(far_apart, ids)
due = losses.repulsion(far_apart, ids)
print(f"attraction: {pull:.1f} where 0 is due; repulsion: {apart:.3f} where {due:.3f} is due")
assert pull == 40.5 and losses.attraction(at_home, of_class_1, home, "mse") == 0 == apart

# %% [markdown]
# In the mixture both classes have the mean (5.5, 5.5), lie on one another, and repulsion leaves such a pair out.
#
# ### Division: inside the loop
#
# Chapter 06 met this one in its further part. Attraction adds up over the classes, and the sum is divided by their number after *each* addition. Four classes,
# one channel, each feature at distance 1 from its prototype, so that each class ought to bring a quarter:

# %%
def nested(values):
    total = 0.0
    for value in values:
        total = (total + value) / len(values)
    return total


one_off, line_of_4 = row_of((1,), (1,), (1,), (1,)), torch.arange(4)[None, None]
shares = [nested(values) for values in torch.eye(4).tolist()]
listed = ", ".join(f"{share:.4f}" for share in shares)
print("what each of four classes brings:", listed, "where 0.25 each is due")
by_library = losses.released_attraction(one_off, line_of_4, torch.zeros(4, 1))
assert math.isclose(nested([1, 1, 1, 1]), by_library) and shares[-1] == 0.25

# %% [markdown]
# ### Labels: what a hidden object is called
#
# In step 1 an old object is labelled background. In the release prototypes matching asks the teacher what is there (a pseudo-label), while attraction,
# repulsion and sparsification take the label as it stands, "raw"; here all four ask the teacher. One location, one channel. The object's own prototype is at 4,
# that of background at 0, the feature at 3:

# %%
feature = torch.tensor([[[[3.0]]]], requires_grad=True)
anchors = torch.tensor([[0.0], [4.0]])  # background, class 1
background, guess = torch.tensor([[[0]]]), torch.tensor([[[1]]])
pushes = {
    "matching, by the teacher's guess": losses.prototypes_matching(feature, guess, anchors, "mse"),
    "attraction, by the teacher's guess": losses.attraction(feature, guess, anchors, "mse"),
    "attraction, by the raw label": losses.attraction(feature, background, anchors, "mse"),
}
pushes = {name: -torch.autograd.grad(value, feature)[0].item() for name, value in pushes.items()}
pd.Series(pushes).rename("push on the feature").to_frame()
assert pushes["matching, by the teacher's guess"] == pushes["attraction, by the teacher's guess"] > 0
assert pushes["attraction, by the raw label"] < 0

# %% [markdown]
# In the release, two losses of one method push the same pixel opposite ways. In the overlapped setup there is no prototype of background at all: the release
# then keeps zeros, and this picture is literally it.
#
# ### Sparsity: where nothing speaks
#
# Sparsification divides a sum of exponentials by a sum of activities. A location without any activity divides by zero; the release adds $10^{-15}$ to the
# denominator. And nothing in it asks that features are not negative. One location, two channels:

# %%
one_location = torch.ones(1, 1, 1, dtype=torch.int64)
cases = {"(2, 1)": (2, 1), "(0, 0), silent": (0, 0), "(2, -1.9999), a negative entry": (2, -1.9999)}
compared = pd.DataFrame({
    name: {
        "released": losses.released_sparsification(row_of(pair), one_location).item(),
        "here": losses.sparsification(row_of(pair), one_location).item(),
    } for name, pair in cases.items()
}).T  # fmt: skip
compared.map("{:.4g}".format)
assert compared.loc["(0, 0), silent", "released"] > 1e15 and compared.loc["(0, 0), silent", "here"] == 0
assert losses.released_sparsification(row_of((2, -3)), one_location) < 0
assert compared.iloc[0, 0] == compared.iloc[0, 1] and compared.iloc[2, 0] > 1e4 > compared.iloc[2, 1]

# %% [markdown]
# A pair (2, -3) even gives a negative value: whoever could make features negative could make the loss as small as one likes. Behind a ReLU there are none, so
# this needs another backbone to matter. The library has a floor of 1 in the denominator, and that is a difference from the *formula*, too. Look at what it does
# to a weak location, beside a strong one of its class:

# %%
def push_on_weak(loss):  # a location at the peak of 4, and a weak one: the push on the weak
    strong_and_weak = row_of((4, 0), (0.2, 0.1)).requires_grad_()
    loss(strong_and_weak, both_of_1).backward()
    return [round(push, 2) for push in (-strong_and_weak.grad[0, :, 0, 1]).tolist()]


formula, floored = map(push_on_weak, (losses.released_sparsification, losses.sparsification))
print("push on the weak location: formula", formula, "with our floor", floored)
assert min(formula) > 0 > max(floored)

# %% [markdown]
# The formula makes it louder, with a force that grows as it falls silent; ours lets it fall silent. Both are choices. We made ours because a run on real
# photographs was [pushed away whole](../docs/real_voc_subset.md) by weak locations, and say so. A list of differences that held others to the letter and not
# oneself would not be worth much.
#
# ### Void: one more class
#
# Pixels labelled 255 count for nothing. In the release's sparsification they are a class like any other. A labelled location and one without a label:

# %%
labelled_and_void, with_void = row_of((2, 1), (8, 0)), torch.tensor([[[1, 255]]])
values = {
    "both locations": losses.released_sparsification(labelled_and_void, with_void).item(),
    "the labelled one": losses.sparsification(labelled_and_void, with_void).item(),
}
print(", ".join(f"{name}: {value:.3f}" for name, value in values.items()))
other_void = losses.released_sparsification(row_of((2, 1), (8, 8)), with_void).item()
assert not math.isclose(other_void, values["both locations"], rel_tol=0.01)  # it depends on what is not labelled
assert losses.sparsification(row_of((2, 1), (8, 8)), with_void).item() == values["the labelled one"]

# %% [markdown]
# In the disjoint and the overlapped setup the release's own loaders let no 255 into the labels of training, so nothing is wrong there. In the sequential one they do, and
# it would be wrong for whoever lifts the loss into other code.
#
# ### Distances: the digits that a matrix product loses
#
# `torch.cdist` computes small sets of distances one by one, and from 26 rows on by $\lVert a \rVert^2 + \lVert b \rVert^2 - 2 a \cdot b$, which is fast and
# takes the difference of large numbers. The release takes the mean of 1 over the distance over all pairs whose distance is not zero. A mean is at distance zero from itself, so that pair drops
# out. Random class means in 64 channels:

# %%
def random_means(classes):
    means = torch.rand(classes, 64, generator=torch.Generator().manual_seed(0))
    return row_of(*means.tolist()), torch.arange(classes)[None, None]


def both_ways(classes):
    exact = losses.repulsion(*random_means(classes)).item()
    times = losses.released_repulsion(*random_means(classes), reshaped=False).item() / exact
    return {"exact": f"{exact:.3f}", "released": "the same" if times < 1.001 else
            "more than five times as much" if times > 5 else f"{times:.2f} times as much"}


by_count = pd.DataFrame({f"{classes} classes": both_ways(classes) for classes in (25, 26)}).T
by_count
assert by_count["released"].tolist() == ["the same", "more than five times as much"]

# %% [markdown]
# With one class more the value is many times too large. By the matrix product a mean is often a little away from itself, and 1 over that little is larger than all that the true pairs add.
# (How much too large depends on the last digits, so on the machine. In one channel near 100 the distances themselves lose their digits, and the value may be too small, as a tool below shows.) VOC and MiniVOC
# never have 26 classes in a batch; ADE20K does. The fault is in nobody's code, and in everybody's: it is the default of a library, and stands in its
# documentation.
#
# ### Head: layers that are one layer
#
# The other places are not in the losses. DeepLab's head is convolutions, each with a batch norm; the batch norms of the release were written to be followed by
# an activation, and by default have none. What are two convolutions without an activation between them? A linear map keeps sums, up to its constant:
#
# $$\mathrm{head}(a + b) + \mathrm{head}(0) = \mathrm{head}(a) + \mathrm{head}(b)$$

# %%
torch.manual_seed(0)
a, b = torch.randn(2, 1, 64, 3, 3)  # two feature maps of 3 x 3
torch.manual_seed(0)
bent = build_head("conv", build_backbone("mini", 4), 64).eval()
torch.manual_seed(0)
linear = build_head("conv_linear", build_backbone("mini", 4), 64).eval()  # the same weights
with torch.no_grad():
    for name, head in (("with activations", bent), ("without", linear)):
        unlike = (head(a + b) + head(0 * a) - head(a) - head(b)).abs().max()
        print(f"{name}: the two sides differ by up to {unlike:.3f}")
    assert torch.allclose(linear(a + b) + linear(0 * a), linear(a) + linear(b), atol=1e-5)
    assert not torch.allclose(bent(a + b) + bent(0 * a), bent(a) + bent(b), atol=0.1)

# %% [markdown]
# However many layers, it is one linear map at test: the head cannot compute what one convolution, wide enough, could not.
#
# ### Old labels: given, and not taken
#
# In the sequential setup old objects keep their labels in later steps. The unbiased cross-entropy of the release folds them into background all the same, in
# every setup. One pixel with the label 1, where classes 0, 1 and 2 are old, 3 is new, and the network has no opinion yet:

# %%
def push_on_logits(fold_labels):
    logits = torch.zeros(1, 4, 1, 1, requires_grad=True)
    context = context_of(torch.ones(1, 2, 1, 1), [1], old_labelled=True, logits=logits, num_old=3)
    TERMS["ce"](context, unbiased=True, fold_labels=fold_labels).backward()
    return -logits.grad.flatten().numpy()


index = pd.Index(["0, background", "1, its label", "2, old", "3, new"], name="push on logit")
both = {"released": push_on_logits(True), "here": push_on_logits(False)}
pd.DataFrame(both, index=index).round(3)
assert push_on_logits(True)[0] == push_on_logits(True)[1] == push_on_logits(True)[2] > 0
assert push_on_logits(False)[1] > 0 > push_on_logits(False)[2]

# %% [markdown]
# With folded labels the pixel says "not new", and that is all. In the disjoint and the overlapped setup this is right, and the two are one.
#
# ### Batch norm: two networks in one
#
# In training a batch norm uses the statistics of the batch; at test it uses running ones, which it has followed with a **momentum** $\beta$. The release gives
# its backbone a momentum of $3 \cdot 10^{-4}$ where 0.1 is usual. The paper says nothing of it, so here the other side is not a formula but this course's
# choice: the backbone's statistics are *frozen* in later steps, and training uses the running ones as test does. (The release has that momentum at step 0
# as well; the runs below do not.) One channel, two values that have moved away from the running mean of 0:

# %%
moved = torch.tensor([[[[4.0, 6.0]]]])


def before_and_after(momentum, frozen=False):
    norm = torch.nn.BatchNorm2d(1, momentum=momentum)
    norm.train(not frozen)
    in_training = norm(moved).flatten().tolist()
    return {"in training": in_training, "at test": norm.eval()(moved).flatten().tolist()}


rows = {
    "slow (3e-4)": before_and_after(3e-4),
    "usual (0.1)": before_and_after(0.1),
    "frozen": before_and_after(0.1, frozen=True),
}
pd.DataFrame(rows).T.map(lambda pair: ", ".join(f"{value:.2f}" for value in pair))
assert np.allclose(rows["frozen"]["in training"], rows["frozen"]["at test"])
assert np.abs(np.subtract(*rows["slow (3e-4)"].values())).max() > 4

# %% [markdown]
# With frozen statistics training and test see the same numbers. With slow ones the next layer is trained on values around 0 and tested on values around 5. The
# gap closes as the running mean follows. Where the batches stay as they are, that depends on the number of iterations alone: after $t$ of them it has gone $1 -
# (1 - \beta)^t$ of the way. How far is that at the end of a step?

# %%
def share_followed(iterations, momentum=3e-4):  # t and beta
    return 100 * (1 - (1 - momentum) ** iterations)


images = partition(voc_presence(), get_task("voc", "15-5"), "disjoint")  # step -> image ids
images_1 = partition(voc_presence(), get_task("voc", "15-1"), "disjoint")
steps = {  # iterations: 30 epochs in batches of 8, as in the paper's runs
    "MiniVOC 6-4, step 1": minivoc_config("SDR").optim.iterations[1],
    "VOC 15-5, step 1": math.ceil(30 * len(images[1]) / 8),
    "VOC 15-1, step 1": math.ceil(30 * len(images_1[1]) / 8),
}
parts_followed = {name: share_followed(n) for name, n in steps.items()}
followed = pd.DataFrame({"iterations": steps, "of the way (%)": parts_followed})
followed.round(0).astype(int)
assert followed.iloc[0, 1] < 10 and followed.iloc[1, 1] > 90 and 30 < followed.iloc[2, 1] < 40

# %% [markdown]
# So here is a difference that is large on MiniVOC and, by this count, small at the end of 15-5 as the paper trains it. Keep it in mind for the next section.
#
# ### Norm, and step 0
#
# Two places in which MiniVOC's recipe follows the *release*: its weights were searched with means of squares, and with losses that begin at step 1, so that all methods share one step 0. The formulas write distances as norms; the release
# takes the mean of squares:

# %%
delta = torch.tensor([3.0, 4.0])
l2, mse = delta.norm(), delta.square().mean()
root = (2 * mse) ** 0.5
print(f"norm {l2:.1f}, mean of squares {mse:.1f}, and the norm is the root of D times that: {root:.1f}")
assert l2 == (2 * mse) ** 0.5 == 5

# %% [markdown]
# Chapter 05 has what that does to the push. And attraction and repulsion act from step 0 on in the formulas; in the release they begin with step 1. (That
# sparsification begins with step 1 as well is MiniVOC's alone.) There is no tensor for that, only settings:

# %%
terms = {term.name: term for term in minivoc_config("SDR").method.terms}
pd.DataFrame({
    name: {"weight": f"{terms[name].weight:g}", "from step": terms[name].from_step}
    for name in list(terms)[2:]
}).T
assert terms["attraction"].from_step == terms["repulsion"].from_step == terms["sparsification"].from_step == 1 and terms["matching"].options["distance"] == "mse"

# %% [markdown]
# ## What each of them costs
#
# The [study](../benchmarks/studies/sdr_variants/README.md) has trained SDR on MiniVOC, task 6-4, disjoint, three seeds: by the formulas, in the released form,
# the **formulas with** one difference, and the **released form without** one. First the two forms as they are:

# %%
study = pd.read_csv("../benchmarks/studies/sdr_variants/results.csv").query("step == 1")
ROWS = {
    "prototypes": "entries read as (D, n), image after image",
    "matching": "the same vector read as (n, D)",
    "contrast": "the first reading in attraction and repulsion",
    "division": "inside the loop over classes",
    "labels": "of the step as they are", "sparsity": "no floor, negative entries count",
    "distances": "by a matrix product", "head": "no activations",
    "old labels": "folded into background", "batch norm": "statistics with momentum 3e-4",
}  # fmt: skip
ALL = {"mIoU, all": "miou_all", "old": "miou_old_no_bg", "new": "miou_new"}
forms = paired_gains(study, {"released minus formulas": ("released", "paper")}, ALL)
levels = study[study["method"].isin(["paper", "released"])].groupby("method")[list(ALL.values())].mean()
levels = levels.set_axis(["formulas", "released"]).set_axis(list(ALL), axis=1)
levels.rename_axis("mean of three seeds").round(1)
assert {*ROWS, "void", "norm", "step 0"} == set(DIFFERENCES) and len(DIFFERENCES) == 13
assert set(study["setup"]) == {"disjoint"} and study.groupby("method")["seed"].nunique().eq(3).all()

# %%
gains_text(forms)
assert pd.read_csv("../benchmarks/studies/on_top_of_others/results.csv").query("step == 1 and method == 'MiB' and setup == 'disjoint'")["miou_all"].mean().round(1) == 64.0
assert forms.loc["released minus formulas", "mIoU, all"].round().tolist() == [-18, -36, -1]

# %% [markdown]
# Eighteen points, with an interval from one to thirty-six. (MiB stands at 64.0 in the same place, chapter 09. That is no gain of SDR's losses: SDR starts new
# classifiers at random, and SDR minus MiB with the same start [is -0.2, -1.2 to
# 0.7](../docs/latent_terms.md#all-sixteen-combinations-and-the-released-conditions).) Ten places can be switched alone. (*Void* has no row in the study, since
# no 255 reaches the labels. *Norm* and *step 0* are on the released side in both forms here.) You have seen all of them: before you scroll, say to yourself
# which one you would mend first.

# %%
def row_by_row(measure="miou_all", table=study):
    """Points by which each difference moves the formulas, and its absence the released form."""
    adding = {name: (f"paper + {name}", "paper") for name in ROWS}
    leaving = {name: (f"released - {name}", "released") for name in ROWS}
    into = paired_gains(table, adding, {"put into the formulas": measure})
    out = paired_gains(table, leaving, {"taken out of the release": measure})
    return pd.concat([into, out], axis=1)


costs = row_by_row()
INTO, OUT = costs.columns.unique(level=0)
beyond = ((costs.xs("low", axis=1, level=1) > 0) | (costs.xs("high", axis=1, level=1) < 0)).stack()
gains_text(costs).assign(what=ROWS)[["what", INTO, OUT]]
assert costs.loc["batch norm", (INTO, "high")] < 0 < costs.loc["batch norm", (OUT, "low")]
assert set(beyond[beyond].index) == {("batch norm", INTO), ("batch norm", OUT), ("division", INTO)}
assert costs.loc["head", (INTO, "low")] < 0 < costs.loc["head", (INTO, "high")]
assert study.query("method == 'released - batch norm'")["miou_all"].mean().round(1) == 63.1
assert paired_gains(study, {"": ("released - batch norm", "paper")}, {"": "miou_all"}).round(1).to_numpy().tolist() == [[-2.4, -10.3, 5.5]]
assert costs.loc["batch norm"].round().tolist() == [-11, -22, -1, 16, 4, 29] and costs.loc["division", INTO].round(1).tolist() == [0.6, 0.1, 1.1]

# %% tags=["draw"]
figure = forest_plot(costs, "points of mIoU, all classes")
figure.suptitle("SDR on MiniVOC 6-4, disjoint, three seeds", fontsize=12)
show(
    figure,
    "SDR on MiniVOC 6-4, disjoint: for each of ten differences the points that it moves the formulas by, and its absence the release, with 95 % intervals over three seeds: batch norm alone leaves zero "
    "out on both sides; in the formulas division lies just above it; all others hold zero, head widely",
)  # fmt: skip

# %% [markdown]
# **Batch norm is most of it**, and it is none of those that look wrong at first sight. Without it the release stands at 63.1, 2.4 points below the
# formulas (10.3 below to 5.5 above). In the means, sixteen of the eighteen points come back so (4 to 29), and eleven go when it is put into the formulas (1 to 22): the columns need not agree,
# for what one difference costs depends on the others. The other side is this course's, as said above. On a subset of VOC's photographs [the same was
# seen](../docs/real_voc_subset.md#two-classes-at-once-ft-mib-and-sdr). Read the rest with care:
#
# - **The yardstick of this table is the row `distances`.** With ten classes it changes nothing but the last digits (above), and still single runs move by up to
#   0.15 in the formulas and by 0.6 in the release (next table), and the means of three by up to a tenth: that is what rounding alone does to a training. A
#   row whose mean moves no further than a single run does there has shown nothing.
# - **Head** goes the way one expects, in the means of both columns, and its intervals are sixteen and forty points wide. It trains a step 0 of its own, so that pairs by
#   seed have less in common. Not shown by three seeds.
# - **Division** leaves zero out on the *good* side: half a point on average, a tenth at the lower end. Of the sixteen intervals that can be other than zero
#   nearly one is expected to do so by chance. Nobody should conclude that it helps.
# - `sparsity` and `old labels` are zero in all four decimals that are kept, on every seed, where rounding alone would move more. The switches do work, as the
#   tensors above show, so in these runs what they switch never came up: there is no old label in this setup, no feature is negative behind a ReLU, and no
#   location can have been below the floor. (That is concluded from the runs; the locations were not counted.)

# %%
by_seed = study.pivot(index="seed", columns="method", values="miou_all")
moved_by_rounding = pd.DataFrame({
    INTO: (by_seed["paper + distances"] - by_seed["paper"]).abs(),
    OUT: (by_seed["released - distances"] - by_seed["released"]).abs(),
})
moved_by_rounding.round(2).rename_axis("`distances`, seed")
assert moved_by_rounding[INTO].max() < 0.3 < moved_by_rounding[OUT].max() < 0.7
assert (costs.loc[["sparsity", "old labels"]] == 0).all(axis=None) and costs.loc["distances"].xs("mean", level=1).abs().round(1).max() == 0.1
assert (by_seed[["paper + sparsity", "released - sparsity"]].to_numpy() == by_seed[["paper", "released"]].to_numpy()).all()
assert minivoc_config("SDR", "method.variant=[sparsity]").method.term("released_sparsification").weight > 0
assert minivoc_config("SDR", "method.variant=[sparsity]").method.term("sparsification").weight == 0

# %%
sides = {
    "norm, formulas": ("paper, norm", "paper"), "step 0, formulas": ("paper, step 0", "paper"),
    "norm, release": ("released, norm", "released"),
    "step 0, release": ("released, step 0", "released"),
}  # fmt: skip
other_side = paired_gains(study, sides, {"the formula's side in place of the recipe's": "miou_all"})
gains_text(other_side)
assert (other_side.xs("high", axis=1, level=1).loc[["norm, formulas", "norm, release"]] < 0).all(axis=None)
assert (other_side.xs("high", axis=1, level=1).loc[["step 0, formulas", "step 0, release"]] > 0).all(axis=None)
assert costs.loc[["prototypes", "matching", "contrast"], INTO].abs().max(axis=None) < 1
assert round(costs.loc[["prototypes", "matching", "contrast"], (OUT, "low")].min()) == -9 and round(costs.loc[["prototypes", "matching", "contrast"], (OUT, "high")].max()) == 6

# %% [markdown]
# The formula's norm costs two points and a half in the formulas and thirteen in the release, with weights that were searched for mean squares: chapter 05 showed that such a weight means something else
# under the other distance. This is no verdict on norms. A step 0 with the latent losses in it changes nothing that three seeds show.
#
# ### Why do the wrong readings cost nothing that is shown?
#
# Because what they spoil is worth little here. The weights that a search gave SDR on MiniVOC are small (the table with `from step`, above), and chapters 05 to 07
# found no gain by these losses on MiB in this setup: there is no gain that a wrong reading could take away, and a term that is too faint to act when it is right is too faint to do harm when it is wrong. And
# no loss shown is less than no loss: in the formulas the intervals of the three readings leave out a point, in the release they reach from a loss of six points to a
# gain of nine.
#
# "It costs nothing" is then a statement about the *place of measurement*. Chapter 06 asked for a setting in which the loss is worth something,
# and there is one: on UCE, without distillation, matching gives the old classes sixteen points (chapter 05), at five times the weight. Put the (n, D) reading into *that* one.
#
# **Predict before you run:** the mean over three seeds of what matching still adds to the old classes of UCE, when it reads its features in the wrong order.
# (In the right order 16. Look at the smallest tensor again: what is left of the class mean?)

# %% tags=["predict"]
my_guess = None  # a number from -20 to 30, or "pass"
guess_first(my_guess, -20, 30)

# %%
BASE = ("method.terms.kd.weight=0", "method.classifier_init=random", "optim.lr=[0.05, 0.005]")
TERM = {
    "UCE": (), "UCE + matching": ("method.terms.matching={weight: 0.1, distance: mse}",),
    "UCE + released matching": ("method.terms.released_matching={weight: 0.1, distance: mse}",),
}  # fmt: skip


def uce(name, seed):
    return minivoc_config("MiB", f"method.name={name}", *BASE, *TERM[name], seed=seed)


runs = run_or_load_all({(name, seed): uce(name, seed) for name in TERM for seed in range(3)})
reading = pd.DataFrame([
    {"method": name, "seed": seed, "old": run.matrix.miou_old_no_bg(1), "all": run.matrix.miou_all(1)}
    for (name, seed), run in runs.items()
])  # fmt: skip
pairs = {
    "right reading, minus UCE": ("UCE + matching", "UCE"),
    "wrong reading, minus UCE": ("UCE + released matching", "UCE"),
    "wrong minus right": ("UCE + released matching", "UCE + matching"),
}
read_gains = paired_gains(reading, pairs, {"old": "old", "all": "all"})
wrong = read_gains.loc["wrong reading, minus UCE", ("old", "mean")]
compare_guess("matching in the wrong reading, points of the old classes", my_guess, wrong)
gains_text(read_gains)
assert read_gains.loc["right reading, minus UCE", ("old", "low")] > 0 and round(read_gains.iloc[0, 0]) == 16
assert read_gains.loc["wrong minus right", ("old", "high")] < 0 and round(read_gains.iloc[2, 0]) == -12
assert read_gains.loc["wrong reading, minus UCE", ("old", "low")] < 0 < read_gains.loc["wrong reading, minus UCE", ("old", "mean")]

# %% [markdown]
# Change the reading, or the weight, one of them at a time. As it stands, `yours` is the row above it once more. Step 1 alone is trained, in half a minute.

# %% tags=["ablation"]
right_reading, weight = False, 0.1  # try True (the formula, through the released term); 0.01, 1
option = ", reshaped: false" if right_reading else ""
changed = f"method.terms.released_matching={{weight: {weight}, distance: mse{option}}}"
yours = run_or_load(minivoc_config("MiB", "method.name=UCE + released matching", *BASE, changed))

# %%
matrices = {name: runs[name, 0].matrix for name in TERM} | {"yours": yours.matrix}
scores = {
    name: {"old": m.miou_old_no_bg(1), "new": m.miou_new(1), "all": m.miou_all(1)}
    for name, m in matrices.items()
}
pd.DataFrame(scores).T.rename_axis("mIoU, seed 0").round(1)
assert scores["UCE + matching"]["old"] > scores["UCE + released matching"]["old"] + 8

# %% [markdown]
# Is the wrong reading as loud as the right one? The first twelve batches of step 1, as in chapter 08: the norm of each gradient in the encoder, the angle between the two, and what each calls the mean of a class.

# %%
def both_readings(images, target, student, teacher, prototypes):
    """One batch of step 1: norms, their cosine, and the class means in both readings."""
    output, encoder = student(images), list(student.backbone.parameters())
    with torch.no_grad():
        guess = teacher(images).logits.argmax(dim=1)
    labels = torch.where(target == 0, guess, target)[:, ::4, ::4]
    f = output.features
    shuffled = losses.reshaped_features(f, labels, "locations")
    terms = {
        "ce": losses.unbiased_cross_entropy(output.logits, target, num_old=7),
        "right": losses.prototypes_matching(f, labels, prototypes, "mse"),
        "wrong": losses.released_matching(f, labels, prototypes, "mse"),
    }
    pulls = {}
    for name, value in terms.items():
        gradients = torch.autograd.grad(value, encoder, retain_graph=True)
        pulls[name] = torch.cat([g.flatten() for g in gradients])
    found = {name: pull.norm().item() for name, pull in pulls.items()}
    found["cosine"] = torch.cosine_similarity(pulls["right"], pulls["wrong"], dim=0).item()
    places = [labels == c for c in range(1, 7) if (labels == c).any()]
    means = [[m.movedim(1, -1)[here].mean(dim=0) for here in places] for m in (f, shuffled)]
    true, read = (torch.stack(m).detach() for m in means)  # (classes, 64)
    return found, [int(here.sum()) for here in places], (read.std(dim=1) / true.std(dim=1)).tolist()


# %% tolerance={"abs": 0.2, "spread": 0.1}
seen = open_workspace(minivoc_config("MiB"), progress=False)
start = run_or_load(minivoc_config("MiB"), checkpoints=True)  # for M_0 and its prototypes
torch.manual_seed(0)
networks = grow(start.model(0), 4).train(), start.model(0), start.bank(0).prototypes
batches = seen.training_batches(1, 12, seed=0)
heard, counts, spreads = zip(*[both_readings(*batch, *networks) for batch in batches])
heard = pd.DataFrame(heard).mean()
loudness = 10 * heard[["right", "wrong"]] / heard["ce"]
middle, apart_by = np.median(sum(counts, [])), np.mean(sum(spreads, []))
print(f"cosine {heard['cosine']:.2f}; a class has a median of {middle:.0f} locations in a batch")
print(f"spread over the 64 entries of a mean: {apart_by:.2f} of the true one's")
loudness.round(1).rename("norm at 0.1, % of cross-entropy's").rename_axis("reading").to_frame()
assert 45 < middle < 65 and 1.5 < loudness["right"] / loudness["wrong"] < 1.7

# %% [markdown]
# Of sixteen points three are left, and those three are not beyond the spread of three seeds; the twelve that go are. That fits what the tensor has shown: the
# loss can still hold the strength of a class, and not its place. So the same line costs nothing that is shown in one place and, in the means, three quarters of the gain in another.
#
# It is also the quieter of the two, by the table. Louder does not mend it: at a weight of 0.16, where its norm at the start is that of the right reading, it ends 0.3 points from where it ends at 0.1 (-1.7 to 2.2), and twelve points below the right one
# ([study](../benchmarks/studies/sdr_variants/README.md#the-wrong-reading-louder)).
#
# Three things follow:
#
# 1. A difference has no cost. It has a cost on a data set, a base and a weight. The two columns of the table are two places, and neither is the paper's.
# 2. To measure what a fault costs, first find a place where the faultless thing is worth something.
# 3. Batch norm may be the other way round: it rules here, where a step has three hundred iterations, and by the count above its statistics have nearly caught
#    up at the end of 15-5; on 15-1, at a third of the way, it may well act. In the further part is what *would* decide whether the published gains are touched. Nothing here does.
#
# ## How such things are found
#
# Not by reading alone: each of these lines looks right. They are found by asking the code questions to which one knows the answer. Six kinds go a long way:
#
# | question | what one does | finds here |
# |---|---|---|
# | **shapes** | give every size another value (2 images, 5 channels, 3 by 6 locations, 4 classes), and entries that say where they come from | prototypes, matching, contrast |
# | **invariances** | change what must not matter: the order of locations, the names of classes, what is not labelled, the precision | matching, contrast, division, void, distances |
# | **one against two** | a batch of one image, and of the same image twice: a mean must stay | prototypes, contrast |
# | **a value by hand** | zero where zero is due, one small case on paper | matching |
# | **the sign of the push** | minus the gradient, on a case where one knows the way | labels, and the direction of sparsification (chapter 07) |
# | **the borders** | nothing at all, one class, one more than usual | sparsity, distances |
#
# The code below puts these questions to a loss, with seven tools. *Prototypes* is a running sum and *labels* are given from outside, so it does not reach those
# two; and shapes have no tool of their own there, they are the sizes of its `scene()`.
#
# For what is not a loss: list the layers (head); compare what is given with what is used (old labels); run the same network in training and at test mode on the
# same input (batch norm); read the settings that were *run* and not those that are in the text (norm, step 0).
#
# Now as code. A **tool** takes a loss, called with features, labels and prototypes, and returns two numbers that ought to be equal: what ought to be, and what
# is.

# %% tags=["setup"]
def scene():
    """Every size another number: features (2, 5, 3, 6), labels (2, 3, 6), prototypes (4, 5)."""
    generator = torch.Generator().manual_seed(1)
    features = torch.rand(2, 5, 3, 6, generator=generator)
    labels = torch.randint(4, (2, 3, 6), generator=generator)
    labels[0, 0, 0] = 255  # one location is not labelled
    return features, labels, torch.rand(4, 5, generator=generator)


def two_classes():
    """Class 1 twice at (4, 0), class 2 twice at (0, 3), each at its prototype, 5 apart."""
    features = row_of((4, 0), (4, 0), (0, 3), (0, 3))
    return features, torch.tensor([[[1, 1, 2, 2]]]), torch.tensor([[0.0, 0], [4, 0], [0, 3]])


# %% tags=["setup"]
def other_order(loss):  # the locations of each image change places, with their labels
    features, labels, prototypes = scene()
    order = torch.randperm(18, generator=torch.Generator().manual_seed(2))
    moved = features.flatten(2)[:, :, order].view_as(features)
    moved_labels = labels.flatten(1)[:, order].view_as(labels)
    return loss(features, labels, prototypes), loss(moved, moved_labels, prototypes)


def one_and_two(loss):  # an image, and the same image twice
    features, labels, prototypes = scene()
    features, labels = features[:1], labels[:1]
    twice = features.repeat(2, 1, 1, 1), labels.repeat(2, 1, 1)
    return loss(features, labels, prototypes), loss(*twice, prototypes)


def not_labelled(loss):  # where the label is 255, one channel alone is active
    features, labels, prototypes = scene()
    changed = torch.where(labels[:, None] == 255, torch.eye(5)[0].view(5, 1, 1), features)
    return loss(features, labels, prototypes), loss(changed, labels, prototypes)


def finer_digits(loss):  # 26 classes near 100 in one channel, in float64 and in float32
    features = 100 + 0.1 * torch.rand(1, 1, 1, 26, generator=torch.Generator().manual_seed(0))
    labels, prototypes = torch.arange(26)[None, None], features.view(26, 1) + 1
    return loss(features.double(), labels, prototypes.double()), loss(features, labels, prototypes)


# %% tags=["setup"]
def silent(loss):  # a location without any activity: how many values are above a thousand?
    features, labels, prototypes = two_classes()
    features[..., 0] = 0
    return 0, int(loss(features, labels, prototypes) > 1000)


def push(loss):  # each class, moved a little towards the other one: how many are pushed back?
    features, labels, prototypes = two_classes()
    apart = prototypes[1] - prototypes[2]  # from class 2 to class 1
    way = torch.stack([apart, apart, -apart, -apart]).T[None, :, None]  # each location's way back
    moved = (features - 0.1 * way).requires_grad_()
    loss(moved, labels, prototypes).backward()
    back = (-moved.grad * way).sum(dim=1).flatten()  # (4,)
    return 2, sum(part.sum().item() > 0 for part in back.split(2))


TOOLS = {
    "order of the locations": other_order, "one image and two": one_and_two,
    "what is not labelled": not_labelled,
    "finer digits": finer_digits, "a silent location": silent, "sign of the push": push,
}  # fmt: skip

# %% tags=["setup"]
def agree(ought, found):
    return math.isclose(float(ought), float(found), rel_tol=1e-4, abs_tol=1e-6)


def examine(loss, by_hand):
    """Tool -> the two numbers; by_hand is what the loss ought to be on `two_classes()`."""
    found = {"value by hand": (by_hand, loss(*two_classes()))}
    return found | {name: tool(loss) for name, tool in TOOLS.items()}


def disagreements(loss, by_hand):  # the names of the tools whose two numbers differ
    return [name for name, pair in examine(loss, by_hand).items() if not agree(*pair)]


BY_HAND = {"matching": 0.0, "attraction": 0.0, "repulsion": 1 / 5, "sparsification": math.e + 1}
FORMULAS = {
    "matching": lambda f, y, p: losses.prototypes_matching(f, y, p, "mse"),
    "attraction": lambda f, y, p: losses.attraction(f, y, p, "mse"),
    "repulsion": lambda f, y, p: losses.repulsion(f, y, len(p)),
    "sparsification": lambda f, y, p: losses.sparsification(f, y, len(p)),
}

# %% [markdown]
# By hand, on `two_classes()`: every location is at its prototype, so matching and attraction are 0. The two means are 5 apart, so repulsion is $1/5$. And each
# location has one of two channels at the peak, so sparsification is $e + 1$. First the four formulas. They ought to pass everywhere; of sparsification the sign
# of the push is not asked, for no way is right for it.

# %%
def in_short(pair):
    return "" if agree(*pair) else "{:.4g} → {:.4g}".format(*map(float, pair))


def table_of(those):
    cells = {
        name: {tool: in_short(pair) for tool, pair in examine(loss, BY_HAND[name]).items()}
        for name, loss in those.items()
    }
    return pd.DataFrame(cells)


of_formulas = table_of(FORMULAS)
of_formulas.loc["sign of the push", "sparsification"] = "not asked"
of_formulas.rename_axis("the formulas")
assert len(of_formulas) == 7 and (of_formulas.drop(columns="sparsification") == "").all(axis=None) and (of_formulas["sparsification"].iloc[:-1] == "").all()

# %% [markdown]
# Empty cells: the two numbers agree. The same tools on the losses of the release, and where they differ the two numbers that should be equal, before → after (values of the loss; in the
# last two rows counts):

# %%
RELEASED = {
    "matching": losses.released_matching, "attraction": losses.released_attraction,
    "repulsion": lambda f, y, p: losses.released_repulsion(f, y, len(p)),
    "sparsification": lambda f, y, p: losses.released_sparsification(f, y, len(p)),
}  # fmt: skip
of_release = table_of(RELEASED)
of_release.loc["sign of the push", "sparsification"] = "not asked"
hits = {name: [tool for tool, text in of_release[name].items() if "→" in text] for name in RELEASED}
of_release.rename_axis("the release")
assert hits["matching"] == ["value by hand", "order of the locations"]
assert hits["attraction"] == ["order of the locations", "one image and two"]
assert hits["repulsion"] == ["order of the locations", "one image and two", "finer digits"]
assert hits["sparsification"] == ["what is not labelled", "a silent location"]

# %% [markdown]
# A few seconds, and no line of the code was read. Note what does *not* fire. Matching passes the batch of one against two: it is wrong for one image as for
# two, and equally so. Attraction passes the value by hand, because the case on paper was one image. No tool is enough, and a tool that does not fire has said
# something about one case.
#
# And one fault is in this table and was found by none of them: the division inside the loop. In `two_classes()` all distances are zero, and in the others the
# order of the classes stays. Which invariance would show it? That is exercise 10.3.
#
# ### What a tool cannot say
#
# A tool says *that* two numbers differ. Whether it is a fault, a choice, or a wrong expectation of yours has to be thought out. The library's own
# sparsification has a floor that the formula has not; attraction counts each class alike, where one may have expected each location to. So before anybody is
# told of a fault:
#
# - make it small: the smallest tensor, the shortest call, both numbers;
# - say what you expected and *why*, with the equation;
# - look at whether anything published depends on it, and say that you have not measured what you have not measured;
# - write to the authors first, in the tone in which you would like to be written to. They have the runs, and often an explanation.
#
# ## One cell, two numbers
#
# Now to numbers that are published. This is what two tables say of **MiB** on VOC 15-5, disjoint, mIoU of all classes. (One is in MiB's paper. Of SDR's table
# the bars of its authors' slides are what could be read, to a twentieth of a point; they stand for the paper here.)

# %%
with (resources.files("sparcl_lib.published") / "results.csv").open(encoding="utf-8") as file:
    published = pd.read_csv(file).query("dataset == 'voc'").fillna({"note": ""})
method, source = published["method"].str, published["source"].str
slides = np.where(source.contains("SDR authors"), "SDR's slides", "later")
published["table"] = np.where(method.contains("MiB protocol"), "MiB's paper", slides)
published["method"] = published["method"].str.removesuffix(" [MiB protocol]")
cell = published.query("method == 'MiB' and task == '15-5' and setup == 'disjoint'")
columns = ["miou_old", "miou_new", "miou_all", "note"]
cell.set_index("table")[columns].astype(object).where(lambda t: t.notna(), "")
assert cell["miou_all"].tolist() == [44.3, 64.7]

# %% [markdown]
# Twenty points. With one of them as the baseline SDR is a leap, with the other a step. Four questions, in this order.
#
# **1. Is it the same quantity?** Two counts are in use: background is one of the old classes, or it is not. A row that gives old, new and all tells by itself
# which of them it uses, since *all* is their mean, weighted by the number of classes:

# %%
SIZES = {"19-1": (19, 1), "15-5": (15, 5), "15-1": (15, 5), "10-1": (10, 10)}  # old, new


def all_of(row, background):  # mIoU of all from that of old and of new; background: 1 or 0
    num_old, num_new = SIZES[row["task"]]
    num_old += background
    return (num_old * row["miou_old"] + num_new * row["miou_new"]) / (num_old + num_new)


whole = published.dropna(subset=["miou_old", "miou_new", "miou_all"]).copy()
for name, background in (("with", 1), ("without", 0)):
    whole[name] = [abs(all_of(row, background) - row["miou_all"]) for _, row in whole.iterrows()]
counted = np.where(whole["with"] < whole["without"], "background counted", "not counted")
either = (whole[["with", "without"]] <= 0.105).all(axis=1)
whole["count"] = np.where(either, "either", counted)
pd.crosstab(whole["table"], whole["count"])
assert set(whole[whole["table"] == "MiB's paper"]["count"]) == {"either", "not counted"}
assert set(whole[whole["table"] != "MiB's paper"]["count"]) == {"either", "background counted"}
assert whole[["with", "without"]].min(axis=1).max() < 0.1

# %% [markdown]
# All rows that can be told apart agree: MiB's table leaves background out, all others count it. (Numbers of one decimal leave a tenth of room; a row where both
# counts fit says nothing. The parts of SDR's rows are reprinted by later papers; that they fit checks the reprint, too. Its cell here has no parts, so its
# count is that of the other rows of its table.) So the two cells are most likely *not* the same quantity. How much can that be? If background has the IoU
# $\mathrm{IoU}_0$, counting it moves the mean of 20 classes by $(\mathrm{IoU}_0 - \text{all}) / 21$, and $\mathrm{IoU}_0$ lies between 0 and 100:

# %%
theirs = cell.set_index("table")["miou_all"]
low, high = ((b - theirs["MiB's paper"]) / 21 for b in (0, 100))
gap = theirs["MiB's paper"] - theirs["SDR's slides"]
print(
    f"with background {theirs.iloc[1]} would move by {low:.1f} to {high:+.1f} points; "
    f"the gap is {gap:.1f}"
)
assert (round(low, 1), round(high, 1)) == (-3.1, 1.7) and gap > 20

# %% [markdown]
# **2. Is it the same training?** No. The note of MiB's row says a batch of 24, a learning rate of $10^{-2}$, then $10^{-3}$, and in-place batch norm, which
# lets such batches fit into memory. For SDR's table the scripts of the release have a batch of 8, and its authors name $10^{-3}$, then $10^{-4}$ in [their
# tracker](https://github.com/LTTM/SDR/issues/1); its batch norm is the ordinary one. The row of MiB in SDR's table is no copy of MiB's own, since it is another number: most likely MiB
# was *trained again* for that table. That is usual, and the right thing to do for a comparison. Its result depends on the settings that the other method was
# given there, and neither table says what a search for them would have found.
#
# **3. Is it this cell alone?** All cells that both tables have:

# %%
shared = published.query("table != 'later' and setup != 'sequential'")
shared = shared.pivot_table("miou_all", ["task", "setup", "method"], "table").dropna()
difference = (shared["SDR's slides"] - shared["MiB's paper"]).unstack("method")
difference = difference[["FT", "LwF", "ILT", "MiB"]]
mib = difference["MiB"]
difference.loc[["19-1", "15-5", "15-1"]].round(1)
assert mib.drop(("15-5", "disjoint")).abs().max() < 8 and mib[("15-5", "disjoint")] < -20
assert (difference.loc[("15-5", "disjoint"), ["LwF", "ILT", "MiB"]] < -14).all()
assert difference.loc[("15-5", "disjoint"), "FT"] > 0 and (difference > 0).any().all()
assert difference.size == 24 and (difference.abs() > 10).sum().sum() == 10 and round(difference.loc[("19-1", "overlapped"), "ILT"]) == -15
assert difference.loc["15-1", "LwF"].min() > 20 and difference.loc["19-1", "FT"].min() > 20

# %% tags=["draw"]
def draw_tables(method):
    figure, axes = panels(width=8, height=3)
    rows = shared.xs(method, level="method").loc[["19-1", "15-5", "15-1"]]
    places = np.arange(len(rows))
    axes.hlines(places, rows.min(axis=1), rows.max(axis=1), color="#888888", linewidth=1.5)
    axes.plot(rows["MiB's paper"], places, "o", color="#0072b2", label="MiB's paper, background not counted")
    axes.plot(rows["SDR's slides"], places, "s", color="#d55e00", markersize=9, markerfacecolor="none", markeredgewidth=1.8, label="SDR's slides, background counted")
    axes.set_yticks(places, [f"{task} {setup}" for task, setup in rows.index])
    axes.set(xlabel="mIoU of all classes (%)", title=f"{method} on VOC in two tables", xlim=(0, 80))
    axes.invert_yaxis()
    figure.legend(loc="outside lower center", ncols=2, frameon=False)
    return figure


explore(
    draw_tables, "mIoU of MiB on VOC, three tasks in two setups, in MiB's paper and in SDR's slides: within five points on four, seven apart on 15-1 overlapped, where alone the "
    "slides are higher, and twenty apart on 15-5 disjoint",
    method=["MiB", "LwF", "ILT", "FT"],
)  # fmt: skip

# %% [markdown]
# On MiB the two tables differ by up to seven points elsewhere, in both directions. But of all 24 cells ten are more than ten points apart. LwF on 15-1 and FT
# on 19-1 are twenty points and more *higher* in SDR's table; ILT on 19-1 overlapped is fifteen lower, and on 15-5 disjoint all three methods with distillation
# are fifteen to twenty-seven lower, and FT is not. So this cell is one of several. Count, batch and rates differ all at once; which of them, or what else, has
# done it, these tables do not tell.
#
# **4. What is left of the conclusion?** Take SDR+MiB minus each of the two numbers. The first is a gain within one table. The second is a difference across tables: a bound on what the stronger baseline leaves, and no measured gain.

# %%
combined = published.query("method == 'SDR+MiB' and setup != 'sequential'")
combined = combined.set_index(["task", "setup"])["miou_all"]
two = shared.xs("MiB", level="method")
tables = ("SDR's slides", "MiB's paper")
titles = "gain over MiB in SDR's slides", "minus MiB in MiB's paper, across tables"
gain = pd.DataFrame({title: combined - two[table] for title, table in zip(titles, tables)})
room = (100 - two["MiB's paper"]) / 21
gain["the same, if background were counted: at least"] = gain[titles[1]] - room
gain.loc[["19-1", "15-5", "15-1"]].round(1)
assert (gain.iloc[:, :2] > 0).all(axis=None) and gain.loc[("15-5", "disjoint")].iloc[0] > 20 > 3 > gain.loc[("15-5", "disjoint")].iloc[1]
assert (gain.iloc[:, 2] < 0).any() and gain.loc["15-1"].iloc[:, :2].min(axis=1).min() > 2

# %% [markdown]
# As printed, SDR+MiB is ahead of MiB in all six cells, whichever of the two tables one takes; in three of them only if background does not
# count against it (the last column). By how much is another matter. On 15-5 disjoint it is twenty-three points or two and a half, and on 15-1 overlapped three or ten; on 19-1 and 15-5 overlapped the smaller of the two is about one point, which background alone could eat
# up. On 15-1 disjoint both say more than ten, of which background could take three.
#
# So this is how to read them:
#
# - **Compare within a table.** Its rows share code, budget and count. Across tables compare gains; levels only to see which baseline is the stronger one. A difference across tables
#   bounds what the stronger baseline leaves; it is no measured gain.
# - **Take the stronger baseline** when two are published, and say that you did. A gain that is not there over the stronger one is not shown.
# - **Recompute a column from its neighbours.** It costs a minute, and tells the count, and typing errors.
# - **Ask for the spread.** None of these rows has one. With a standard deviation of a point or two over seeds, as most methods of the course have, a lead of
#   one point is nobody's.
# - **Do not say who is wrong.** Both numbers may be what was measured. Only a run decides: the same code, both protocols, several seeds. [Chapter 11](11_full_scale.ipynb)
#   has the commands.
#
# ## Exercises
#
# ### 10.1 How long does a running mean take?
#
# After how many iterations has a running mean gone a given share of the way to where the batches now are? The smallest whole number. (Floats are not exact:
# $0.9^3$ comes out beside 0.729. So let a hair, $10^{-9}$, pass before you round up, or before you compare. Then try the two momenta of the text on a step of
# your own data.)

# %% tags=["exercise"]
def iterations_for(share, momentum):
    """share: of the way, between 0 and 1; momentum: of the batch norm. Returns an int."""
    # SOLUTION
    iterations = math.log(1 - share) / math.log(1 - momentum)
    return math.ceil(iterations - 1e-9)  # 3.0000000001 is 3
    # END

# %% tags=["check"]
check(
    "10.1", iterations_for,
    [((0.5, 0.1), 7), ((0.5, 3e-4), 2311), ((0.99, 0.1), 44), ((0.9, 3e-4), 7675),
     ((0.5, 0.5), 1), ((0.271, 0.1), 3), ((0.1, 0.0345), 4)],  # 0.729 = 0.9^3; 3.0009 is more than 3
    hint="what is left after t iterations is (1 - momentum)^t; take logarithms, and round up; a whole "
    "number may come out as 3.0000000000000004, so take 1e-9 away first, and no more",
)

# %% [markdown]
# ### 10.2 Which count?
#
# Old, new and all of a row, rounded to so many decimals. Does *all* count background among the old classes? Four answers are possible: `"yes"`, `"no"`,
# `"either"` when the numbers are too coarse to tell, and `"neither"` for a row that cannot be right. What the parts say and what is printed may differ by one
# unit of the last decimal: half from the parts, half from the printed mean. (Floats: leave a hair more.)

# %% tags=["exercise"]
def counts_background(old, new, everything, num_old, num_new, decimals=1):
    """mIoU in percent; num_old: old classes without background. Returns yes, no, either or neither."""
    # SOLUTION
    fits = []
    for background in (1, 0):
        total = (num_old + background) * old + num_new * new
        off = abs(total / (num_old + background + num_new) - everything)
        fits.append(off <= 10**-decimals + 1e-9)
    return {(True, False): "yes", (False, True): "no", (True, True): "either", (False, False): "neither"}[tuple(fits)]
    # END

# %% tags=["check"]
check(
    "10.2", counts_background,
    [((71.8, 43.3, 64.7, 15, 5), "no"), ((74.6, 44.1, 67.3, 15, 5), "yes"),
     ((77.4, 78.0, 77.4, 19, 1), "either"),
     ((70.25, 50.45, 65.30, 15, 5, 2), "no"), ((71.8, 43.3, 67.4, 15, 5), "neither"),
     ((70.0, 50.0, 65.3, 15, 5), "yes"), ((70.0, 50.0, 65.4, 15, 5), "neither"),
     ((70.0, 50.0, 65.28, 15, 5, 2), "neither"),
     ((60.0, 40.0, 55.1, 15, 5), "no"),  # 55.0 without background: a unit off, as far as may be
     ((40.0, 10.0, 30.07, 100, 50, 2), "yes"), ((40.0, 10.0, 30.0, 100, 50), "either"),  # 30.066, 30
     ((72.0, 43.0, 65.0, 15, 5, 0), "either")],  # 65.1, 64.75
    hint="with background there are num_old + 1 old classes and one more in all; compare each count "
    "with what is printed, and let them differ by 10 to the power -decimals, and 1e-9 for the floats",
)  # fmt: skip

# %% [markdown]
# ### 10.3 A tool of your own
#
# The division inside the loop was found by no tool of the chapter. Write the one that finds it, in the form of the others: on `scene()`, the classes 1, 2, 3
# get the names 3, 2, 1, in the labels and in the rows of the prototypes; background stays 0 and 255 stays 255. What ought to be is the loss before, what is,
# the loss after.

# %% tags=["exercise"]
def other_names(loss):
    """Returns the loss on scene(), and on scene() with classes 1, 2, 3 called 3, 2, 1."""
    # SOLUTION
    features, labels, prototypes = scene()
    name = torch.tensor([0, 3, 2, 1])  # of the class that was 0, 1, 2, 3
    renamed = torch.where(labels == 255, 255, name[labels.clamp(max=3)])
    return loss(features, labels, prototypes), loss(features, renamed, prototypes[name])
    # END

# %% tags=["check"]
def nested_division(f, y, p):
    return losses.released_attraction(f, y, p, reshaped=False)


of_scene = [int((scene()[1] == c).sum()) for c in (0, 1, 2, 3, 255)]
check(
    "10.3", other_names,
    [((lambda f, y, p: (y == 1).sum(),), (of_scene[1], of_scene[3])),
     ((lambda f, y, p: (y == 0).sum(),), (of_scene[0], of_scene[0])),
     ((lambda f, y, p: (y == 2).sum(),), (of_scene[2], of_scene[2])),
     ((lambda f, y, p: (y == 255).sum(),), (of_scene[4], of_scene[4])),
     ((lambda f, y, p: p[1].sum(),), (scene()[2][1].sum(), scene()[2][3].sum())),
     ((lambda f, y, p: p[1, 4].clone(),), (scene()[2][1, 4], scene()[2][3, 4])),
     ((lambda f, y, p: f[0, 1, 2, 5].clone(),), (scene()[0][0, 1, 2, 5],) * 2),
     ((FORMULAS["attraction"],), Property(
         "two equal numbers for attraction by the formula", lambda pair: agree(*pair))),
     ((nested_division,), Property(
         "two numbers that differ, with the division in the loop", lambda pair: not agree(*pair)))],
    hint="a table of four new names, looked up with the labels (255 aside); row c of the new "
    "prototypes is the old row of the class that is now called c; locations, channels and features "
    "stay where they are",
)  # fmt: skip

# %% [markdown]
# ### 10.4 Three planted faults
#
# `planted_matching`, `planted_attraction` and `planted_repulsion` (in `sparcl_lib.course.planted`; do not read them yet) are meant to be the formulas with mean
# squares, and each has one fault. Let your tools find them: `disagreements(planted_matching, BY_HAND["matching"])` names those that fire, `examine(...)` has
# the numbers. Then show each fault on the **smallest tensor that reveals it**: features, labels and prototypes, on which the planted loss differs from the
# formula in its value or in its gradient. Four numbers of features do for the first, two for each of the others. (Read the code afterwards. Would you have seen
# it?)

# %% tags=["exercise"]
def smallest_case(name):
    """name: matching, attraction or repulsion. Returns features (B, D, h, w), labels (B, h, w)
    of int64, prototypes (C, D)."""
    # SOLUTION
    if name == "matching":  # height and width of the labels are exchanged
        features = torch.tensor([[[[0.0, 1.0], [2.0, 3.0]]]])
        return features, torch.tensor([[[0, 1], [0, 0]]]), torch.tensor([[0.0], [1.0]])
    if name == "attraction":  # a sum over images, no mean
        return torch.tensor([[[[1.0]]], [[[1.0]]]]), torch.tensor([[[1]], [[1]]]), torch.zeros(2, 1)
    return row_of((0,), (2,)), torch.tensor([[[1, 2]]]), torch.zeros(3, 1)  # the last class is not pushed
    # END

# %% tags=["check"]
FAULTY = {"matching": planted_matching, "attraction": planted_attraction, "repulsion": planted_repulsion}


def value_and_gradient(loss, features, labels, prototypes):
    leaf = features.detach().float().requires_grad_()
    value = loss(leaf, labels, prototypes.detach().float())
    value.backward()
    return torch.cat([value.detach().flatten(), leaf.grad.flatten()])


def revealed(name, at_most):
    def holds(case):
        both = [value_and_gradient(those[name], *case) for those in (FAULTY, FORMULAS)]
        finite = all(numbers.isfinite().all() for numbers in both)
        return case[0].numel() <= at_most and finite and not torch.allclose(*both, rtol=1e-3)

    return Property(f"at most {at_most} finite numbers, on which planted loss and formula differ", holds)


check(
    "10.4", smallest_case,
    [((name,), revealed(name, n)) for name, n in (("matching", 4), ("attraction", 2), ("repulsion", 2))],
    hint="the tool that fires says what to vary: places in a map of 2 x 2, two images of one location, "
    "or who is pushed; one channel is enough each time",
)  # fmt: skip

# %% [markdown]
# ## Quiz

# %% tags=["quiz"]
quiz(
    "A loss has the same value for one image and for the same image twice. What do you know?",
    [
        ("Its reshaping is right",
         "Matching in the released reading passes this test: it is wrong for one image and for two alike."),
        ("It does not add up over images, at least not over equal ones",
         "Right, and no more. One tool asks one question; what does not fire there may fire elsewhere."),
        ("It does not depend on the rest of the batch",
         "Two equal images are a special batch. Batch norm, and means of classes over a batch, do depend on what else is in it."),
    ],
    right=1,
)

# %% tags=["quiz"]
quiz(
    "One of twenty differences moves mIoU by half a point upwards, and its 95 % interval leaves zero out. What do you write?",
    [
        ("That it helps, since the interval says so",
         "One in twenty such intervals leaves zero out when nothing is there. Picked out of twenty it is what chance gives."),
        ("The number with its interval, how many others were looked at, and nothing more",
         "Right. If it matters, the next step is new seeds for that one row."),
        ("Nothing: it is smaller than a point",
         "Leaving rows out is worse. A reader has to see how many there were."),
    ],
    right=1,
)

# %% tags=["quiz"]
quiz(
    "A fault in a loss costs nothing in a careful study with many seeds. May it stay?",
    [
        ("Yes, it is harmless",
         "It is harmless there. The reading (n, D) costs less than a point in SDR's formulas on MiniVOC, and twelve of sixteen points where matching is worth something."),
        ("The study says nothing about it",
         "It says how much it may cost in this place, as exactly as its interval is short. That is worth knowing, and does not carry over to others."),
        ("First ask what the loss is worth there when it is right",
         "Right. Where it gives nothing when it is right, a fault has no gain to take away, and the study hardly asks the question; where it gives something, it does."),
    ],
    right=2,
)

# %% tags=["quiz"]
quiz(
    "You report a gain over MiB on 15-5 disjoint, and count background. Which published number do you put beside yours?",
    [
        ("44.3, for it counts background as you do",
         "Same count, as its table has it elsewhere, but the weaker of the two. A gain over it may be the gain of better settings of the baseline."),
        ("64.7, for it is the authors' own",
         "It is the stronger one, and counts otherwise: with background it would stand between 3.1 points lower and 1.7 higher."),
        ("Both with their counts, and your own run of MiB with the same code and budget beside them",
         "Right. The row that decides is your own: same code, same budget, several seeds. The published ones show how far tables differ."),
    ],
    right=2,
)

# %% [markdown]
# ## Further: what would decide, and what is left
#
# ### What would decide about the published gains?
#
# Nothing in this chapter touches them: other data, another network, many more iterations. To know, one would train 15-5 disjoint with several seeds, four
# times: MiB and SDR+MiB, each by the formulas and in the released form. What each outcome would mean:
#
# | SDR+MiB is above MiB | then |
# |---|---|
# | in both forms | the idea gains; how much the differences matter is the difference of the two gains |
# | by the formulas alone | the idea gains, and the release does not do it justice |
# | in the released form alone | something in the release's conditions gains: look at batch norm first |
# | in neither | under equal budgets no gain is shown here; the published baseline was at a disadvantage, or ours is at an advantage |
#
# On MiniVOC MiB was trained under the released conditions, and SDR under the same was not above it ([latent terms](../docs/latent_terms.md)). At full scale it
# is a few command lines, of some GPU hours each (`sparcl reproduce`; [chapter 11](11_full_scale.ipynb)).
#
# ### A row that does not add up
#
# One unit of the last decimal is what exercise 10.2 leaves. Rows with two decimals leave a hundredth. Does every one of them fit?

# %%
later = whole[whole["table"] == "later"]
hundredths = (100 * later[["miou_old", "miou_new", "miou_all"]]).round()
fine = later[(hundredths % 10 > 0).any(axis=1)]  # rows of two decimals
off = fine[fine["with"] > 0.0101]
fits = len(fine) - len(off)
print(f"{len(fine)} rows of two decimals; with background counted {fits} fit to a hundredth")
columns = ["task", "setup", "miou_old", "miou_new", "miou_all", "with"]
off.set_index("method")[columns].rename(columns={"with": "off by"}).round(2)
assert off[["method", "task", "setup"]].to_numpy().tolist() == [["PLOP", "15-5", "overlapped"]]
assert off["without"].iloc[0] > off["with"].iloc[0] > 0.05

# %% [markdown]
# One row is off by eight hundredths, in the form in which two later tables print it: a wrong digit somewhere, or parts of two runs. Nothing hangs on it. But it
# took one line to find, and the same line would have found a point.
#
# ### What the comparison did not reach
#
# Where 255 is in the labels, the cross-entropy of the release averages over *all* pixels, ours over the labelled ones: the sum is the same, the divisor is not.
# Four pixels, two of them without a label:

# %%
logits = torch.tensor([[[[1.0, 0.0, 2.0, 0.5]], [[0.0, 3.0, 1.0, 0.5]]]])  # (1, 2, 1, 4)
target = torch.tensor([[[0, 1, 255, 255]]])
per_pixel = torch.nn.functional.cross_entropy(logits, target, ignore_index=255, reduction="none")
over_all, over_labelled = per_pixel.mean(), losses.cross_entropy(logits, target)
print(f"over all pixels {over_all:.3f}, over the labelled ones {over_labelled:.3f}")
assert torch.isclose(over_all, over_labelled * 2 / 4)

# %% [markdown]
# An image with wide borders then counts for less, and all of the cross-entropy is smaller beside the other losses, which is a change of every weight. In
# the release it acts in the sequential setup alone, for in the other two its loaders let no 255 through. [The page](../docs/paper_and_released.md#what-is-not-reproduced) has the others.

# %% [markdown]
# ### 10.5 A loss of your choice (open)
#
# Take any loss: one of `sparcl_lib.losses`, one of another repository, best one of your own. Ask it at least four questions to which you know the answer, among
# them one value by hand, one invariance and one about its gradient, and not all with the same answer. Write each question with *what ought to be* and *what is*. A disagreement is as good as an
# agreement, if you say which of the two of you is wrong. What a good answer has:
#
# | | 0 | 1 | 2 |
# |---|---|---|---|
# | questions | fewer than four | four, of one kind | of all three kinds, and one that you expected to fail |
# | expectations | none | copied from the code's output | derived before the call, with the equation |
# | cases | none | random tensors | the smallest that can tell |
# | conclusion | none | "all pass" | what the questions did not ask, and the next one you would ask |

# %% tags=["exercise"]
def examination():
    """Returns a list of (question, what ought to be, what is), the last two numbers."""
    # SOLUTION
    def kd(student, teacher):  # one pixel each: lists of logits
        return losses.unbiased_knowledge_distillation(*(torch.tensor(z)[None, :, None, None] for z in (student, teacher)))

    leaf = torch.zeros(1, 3, 1, 1, requires_grad=True)
    losses.unbiased_knowledge_distillation(leaf, torch.zeros(1, 2, 1, 1)).backward()
    by_hand = -(math.log(2 / 3) + math.log(1 / 3)) / 4  # two old classes, all logits 0, one new class
    return [
        ("one pixel on paper", by_hand, kd([0.0, 0, 0], [0.0, 0]).item()),
        ("the same when all logits of the student grow by 7", by_hand, kd([7.0, 7, 7], [0.0, 0]).item()),
        ("the two old classes change names: expected to fail, for background is one of them",
         kd([0.0, 1, 0], [0.0, 1]).item(), kd([1.0, 0, 0], [1.0, 0]).item()),
        ("the push on the new logit is that on background's, which shares its probability",
         leaf.grad[0, 0].item(), leaf.grad[0, 2].item()),
    ]  # fmt: skip
    # END

# %% tags=["check"]
def numbers(rows):
    three = all(len(row) == 3 for row in rows)
    return three and all(math.isfinite(float(value)) for row in rows for value in row[1:])


def in_words(rows):
    return len({str(row[0]) for row in rows}) == len(rows) and all(len(str(row[0])) > 10 for row in rows)


check(
    "10.5", examination,
    [((), Property("a list of at least four rows", lambda rows: len(rows) >= 4)),
     ((), Property("rows of a question and two finite numbers", numbers)),
     ((), Property("questions of more than ten characters, each another one", in_words)),
     ((), Property("about more than one number: not every expectation is the same",
                   lambda rows: len({round(float(row[1]), 6) for row in rows}) > 1))],
    hint="each row is (question, what ought to be, what is): work the second out before you call the "
    "loss for the third", rest="the rubric",
)  # fmt: skip
