# %% [raw]
# title: Welcome
# goals:
#   - check that your installation can run the whole course, and use its cells, sliders, exercises and quizzes
#   - read the course's notation, its masks and a confusion matrix
#   - say in numbers what catastrophic forgetting is
# summary:
#   - The environment check names what is missing, a line each. Nothing here needs a GPU or a download; you write into a copy, guess before you run, and pass where you like.
#   - One notation holds in text and code. IoU is hits over everything that is the class or is called so, counted over all test images together.
#   - Fine-tuned on four new classes alone, the network has 0.0 mIoU on the six old ones, which stood above 70; the step-by-class matrix shows it class by class.
# ends_with: a first forgetting curve
# reading_minutes: 30
# further_minutes: 10
# differs:
#   - MiniVOC is ours, made to fit a laptop. It has the folder layout of VOC2012 and its phenomena, not its numbers.
# references:
#   - "SDR: Michieli & Zanuttigh, Continual Semantic Segmentation via Repulsion-Attraction of Sparse and Disentangled Latent Representations, CVPR 2021, arXiv 2103.06342; section 3 states the problem."
#   - "Forgetting of a class: Chaudhry et al., Riemannian Walk for Incremental Learning, ECCV 2018, equation 3, here with IoU for accuracy."
#   - "IoU over all pixels of a data set: Everingham et al., The Pascal Visual Object Classes Challenge, IJCV 2015, section 4.2."

# %% [markdown]
# A segmentation network gives every pixel a class. **Class-incremental** segmentation asks for more: the network knows some classes, the
# photographs it learned from are gone (deleted for privacy, owned by somebody else, or too many to train on again), and now it is to learn others. Trained on the new ones alone, it forgets the old ones. This course
# measures how much, finds out why, adds, one at a time, losses that are meant to prevent it, and tests whether they do. (Methods that keep some of the photographs exist, and are called *replay*; this course is about those that keep none.)
#
# | chapter | question | |
# |---|---|---|
# | 00 Welcome | What does forgetting look like? | you are here |
# | [01 Dataset partitioning](01_dataset_partitioning.ipynb) | What does "background" mean when classes come one after the other? | ready |
# | [02 The network and its classifier](02_segmentation_network.ipynb) | How good is one network that sees everything? | ready |
# | [03 Fine-tuning](03_fine_tuning.ipynb) | How bad is one that just trains on, and why? | ready |
# | [04 Distillation](04_distillation.ipynb) | What does the old network still know that the new one can be held to? | ready |
# | [05 Prototypes matching](05_prototypes_matching.ipynb) | What does one remembered point for each old class hold? | ready |
# | [06 Attraction and repulsion](06_attraction_and_repulsion.ipynb) | What do two forces do to the space of features, and is a tidier space a better one? | ready |
# | [07 Sparsification](07_sparsification.ipynb) | Does the loss called sparsification make features sparse, and would that help? | ready |
# | [08 The whole method](08_the_whole_method.ipynb) | Do they add up, and how would one know? | ready |
# | [09 On top of others](09_on_top_of_others.ipynb) | Does what helps one method help the next, and can one know beforehand? | ready |
# | [10 Paper and code](10_paper_and_code.ipynb) | Does the code compute the formula, and which published number does one believe? | ready |
# | [11 Full scale](11_full_scale.ipynb) | What does a row of a published table take, and what may stand beside it? | ready |
#
# The [index](README.md) has what each ends with, and how long it takes.

# %% [markdown]
# ## How a chapter works
#
# You may just read. To work with a chapter, run it in a copy of your own: [the index](README.md) says how to open one.
#
# - **Your copy** is a folder beside `notebooks/`. Everything that you write stays there; the originals are left alone, and nothing that you wrote is
#   overwritten.
# - **Cells** are run from top to bottom, with Shift + Enter. Folded ones show three dots or a bar; a click opens them. They draw figures, or
#   check what the text says. What is left open is the method.
# - **A guess** comes before each main experiment. Put your number in place of `None`, or `"pass"`; until then JupyterLab
#   runs no cell that shows what was measured, and a line says so. Whoever guesses first remembers what came out.
# - **Sliders and buttons** redraw a picture. They need a running notebook; on a page you see their first picture.
# - **Exercises** have a cell with `NotImplementedError` for your answer. The cell below it checks the answer, offline, and gives a hint when
#   it is wrong. Unless a teacher gave you the chapter, a solution is folded below that. An answer may use functions, imports and constants of
#   other cells, but nothing that they compute: who marks it does not run them.
# - **Quiz**: click on an answer to see whether it is right, and why.
# - **Training runs** come with the course, so a chapter takes seconds. Change a number, and that run is trained on your machine, with a
#   progress bar, and kept.
#
# Each chapter has a core, and after the quiz a further part for those who want more. The header says how long each takes. If something goes
# wrong, look into [Troubleshooting](../docs/troubleshooting.md); words of the field are in the [Glossary](../docs/glossary.md).

# %% tags=["setup"]
import numpy as np
import pandas as pd
from matplotlib.patches import Patch

from sparcl_lib.course import (
    check, compare_guess, explore, guess_first, minivoc_config, panels, quiz, run_or_load, show,
)  # fmt: skip
from sparcl_lib.environment import check_environment
from sparcl_lib.metrics import class_iou
from sparcl_lib.training.evaluation import picture_arrays
from sparcl_lib.training.workspace import open_workspace
from sparcl_lib.viz import class_palette, colorize, prediction_strips, step_heat_map

# %% [markdown]
# ## Is everything there?
#
# One line each for what is missing, and how to mend it.

# %%
checks = check_environment()
for fine, line in checks:
    if not fine:
        print("FAIL", line)
print("all checks OK" if all(fine for fine, _ in checks) else "see above")

# %% [markdown]
# ## The data
#
# MiniVOC is drawn by a program: 2,500 training and 400 test pictures of 64 x 64 pixels, ten kinds of objects, clutter (dots and thin lines, which belong to
# background), occlusion, and the folder layout of Pascal VOC2012. It is generated on first use, the same on every machine.
#
# A **task** says which classes are learned when. In `6-4`, step 0 teaches six classes and step 1 the other four. The setup, here `disjoint`, says which
# photographs a step gets; chapter 01 explains it.

# %%
config = minivoc_config("FT", task="6-4", setup="disjoint", seed=0)
workspace = open_workspace(config, progress=False)
steps = [
    {"classes": ", ".join(names), "training images": len(workspace.train_ids[step])}
    for step, names in enumerate(workspace.step_names)
]
pd.DataFrame(steps).rename_axis("step")

# %% [markdown]
# Move the slider. Left the photograph, right its mask: a colour per class, nearly black for background, hatched where the border of an
# object counts for nothing.

# %% tags=["draw"]
test_ids = workspace.evaluation_ids[1][:12]
names = workspace.task.class_names(1)  # by the value in the mask


def draw_pair(picture):
    image, mask = workspace.evaluation_reader(test_ids[picture])  # (3, 64, 64), (64, 64) uint8
    figure, (left, right) = panels(columns=2, width=7, height=3.9)
    left.imshow(image.permute(1, 2, 0), interpolation="nearest")
    right.imshow(colorize(mask.numpy(), 11), interpolation="nearest")
    for axes, title in ((left, "photograph"), (right, "mask")):
        axes.set_title(title)
        axes.set_axis_off()
    shown = [c for c in mask.unique().tolist() if c < 255]
    keys = [Patch(color=class_palette(11)[c] / 255, label=names[c]) for c in shown]
    keys.append(Patch(fc="white", ec="#aaaaaa", hatch="//////", label="border"))
    figure.legend(handles=keys, loc="outside lower center", ncols=len(keys))
    return figure


explore(
    draw_pair, "A drawn picture with two or three objects, and its mask: one colour for each class, hatched "
    "borders, background nearly black",
    picture=list(range(len(test_ids))),
)  # fmt: skip

# %% [markdown]
# ## Notation
#
# The same letters in every chapter, those of the paper SDR (Michieli & Zanuttigh, CVPR 2021) where it has one. Skim them now; the page [Notation](../docs/notation.md) has all of them, and
# every chapter links to it.
#
# | symbol | in code | meaning |
# |---|---|---|
# | $k$ | `step` | step of the task, from 0 |
# | $\mathcal C_k$ | `task.steps[k]` | classes that step $k$ adds; *old* = those of steps before $k$, *new* = $\mathcal C_k$ |
# | $M_k$ | `model` | the network after step $k$; $M_{k-1}$, frozen, is the *teacher* of step $k$ |
# | $0$, $255$ | `BACKGROUND`, `VOID` | the class "none of those labelled here"; pixels that do not count |
# | $B, H, W$ | | images in a batch, height and width in pixels |
# | $K, K_{old}$ | `num_classes`, `num_old` | classes now and before the step, both with background |
# | $f_i \in \mathbb R^D$ | `features` (B, D, h, w) | encoder output at location $i$; MiniVOC: $D = 64$, one location for 4 x 4 pixels |
# | $y^*$ | `labels` (B, h, w) | the label map at feature resolution |
# | $p_c$, $\hat p_c$ | `prototypes` (C, D) | running mean of the features of class $c$; their mean in this batch |
# | $\mathcal L$ | `loss` | a scalar; the total is a weighted sum of terms |

# %% [markdown]
# ## Counting right
#
# One table holds all there is to know about a model's hits: the **confusion matrix**, pixels counted by true class (row) and predicted
# class (column). The **IoU** of a class is its hits over everything that is the class or is called so:
#
# $$\mathrm{IoU}_c = \frac{N_{cc}}{\sum_j N_{cj} + \sum_j N_{jc} - N_{cc}}$$
#
# counted over all test images together, then averaged over classes: **mIoU**. The library's `class_iou` differs from the formula in one
# thing: a class of which the truth shows no pixel has no IoU there (NaN), also where it is predicted, and enters no mean. By the formula it
# has 0 if it is predicted. In the plainest form:

# %%
def plain_class_iou(confusion):  # (K, K) counts -> K values in percent
    values = []
    for c in range(len(confusion)):
        hits = confusion[c, c]
        union = confusion[c, :].sum() + confusion[:, c].sum() - hits
        values.append(100 * hits / union)
    return np.array(values)


example = np.array([[50, 2, 0], [5, 30, 5], [0, 10, 20]])  # rows: truth, columns: prediction
print("IoU of the three classes:", plain_class_iou(example).round(1))
assert np.allclose(plain_class_iou(example), class_iou(example))  # the library's
unseen = np.array([[9, 1], [0, 0]])  # class 1 is predicted and not in the truth
assert plain_class_iou(unseen)[1] == 0 and np.isnan(class_iou(unseen)[1])

# %% [markdown]
# ## Forgetting, measured
#
# **Fine-tuning** (FT) is the obvious thing to do: take the network after step 0, add four output channels, train on with the images and
# labels of step 1. Six of the ten classes have been learned well at that point.
#
# **Predict before you run:** what mIoU will those six classes have after step 1, in percent?

# %% tags=["predict"]
my_guess = None  # a number from 0 to 100, or "pass"
guess_first(my_guess, 0, 100)

# %%
ft = run_or_load(config, checkpoints=True)
matrix = ft.matrix  # IoU by step and class
before = matrix.miou_new(0)
after = matrix.miou_old_no_bg(1)
compare_guess("the six classes of step 0 after step 1", my_guess, after)
print(f"the same six after step 0: {before:.1f}")
assert before > 60 and after < 5

# %% tags=["draw"]
def draw_curve():
    figure, axes = panels(width=7, height=3.4)
    for step, color, style in ((0, "#c44e00", "o-"), (1, "#0072b2", "s--")):
        later = [k for k in matrix.rows if k >= step]
        means = [np.mean([matrix.rows[k][name] for name in matrix.step_classes[step]]) for k in later]
        axes.plot(later, means, style, color=color, label=f"classes of step {step}")
    axes.set(xticks=[0, 1], xlabel="step", ylabel="mIoU (%)", ylim=(-3, 100), title="Fine-tuning")
    axes.legend()
    return figure


show(draw_curve(), "mIoU of the first six classes falls to zero at step 1")

# %% [markdown]
# The **step-by-class matrix** holds the same story per class: a row for each step, a column for each class in learning order. A wider
# gap parts the classes of one step from those of the next.

# %% tags=["draw"]
title = "IoU of every class after every step (grey: not learned yet)"
show(
    step_heat_map(matrix, title), "After step 0 six classes are known; after step 1 all six are at or near "
    "zero, and only background and the four new classes have an IoU",
)  # fmt: skip

# %% [markdown]
# What are the old objects called now? The confusion matrix of the same test says it. Two of its rows, in percent: of the pixels that *are* a disc, how many are called what?

# %% tolerance={"abs": 1, "spread": 1e-06}
counts = pd.DataFrame(ft.confusion(1), names, names)  # pixels: rows truth, columns prediction
rows = counts.loc[["disc", "star"]]  # an old class, and a new one
(100 * rows.T / rows.sum(axis=1)).T.round(0).astype(int)
assert rows.loc["disc", "background"] > 0.5 * rows.loc["disc"].sum() and rows.loc["disc", "disc"] == 0

# %% [markdown]
# Most of the disc has become background, and none of it is called disc. And this is what it looks like. The old objects are gone; a few bear the name of a new class. Chapter 03 counts them all.

# %% tags=["draw"]
pictures = picture_arrays(ft.model(1), workspace.picture_batches())
earlier = picture_arrays(ft.model(0), workspace.picture_batches())["prediction"]


def draw_strips(picture):
    rows = slice(picture, picture + 1)
    predictions = {"after step 0": earlier[rows], "after step 1": pictures["prediction"][rows]}
    figure = prediction_strips(
        pictures["images"][rows], pictures["truth"][rows], predictions, names, matrix.step_classes[1]
    )
    figure.set_size_inches(7.7, 3.2)
    return figure


explore(draw_strips, "Photograph, truth, predictions after step 0 and step 1", picture=list(range(6)))

# %% [markdown]
# ## Exercises
#
# ### 0.1 Old and new
#
# From the IoU of each class after a step, compute mIoU over the old classes and over the new ones. Background is class 0; the tables of some
# papers, SDR among them, count it among the old classes, those of others leave it out.

# %% tags=["exercise"]
def old_and_new(ious, num_old, with_background):
    """ious: (K,) in percent, background first; num_old: old classes with background.

    Returns (mIoU of the old classes, mIoU of the new ones).
    """
    # SOLUTION
    first = 0 if with_background else 1
    return float(np.mean(ious[first:num_old])), float(np.mean(ious[num_old:]))
    # END

# %% tags=["check"]
ious = np.array([80.0, 10.0, 20.0, 60.0, 40.0])
more = np.array([90.0, 50.0, 40.0, 30.0, 5.0, 10.0, 60.0])
check(
    "0.1", old_and_new,
    [((ious, 3, True), (110 / 3, 50.0)), ((ious, 3, False), (15.0, 50.0)),
     ((more, 4, True), (52.5, 25.0)), ((more, 4, False), (40.0, 25.0))],
    hint="slices of ious: old from 0 (or 1) up to num_old, new from there on",
)

# %% [markdown]
# ### 0.2 Forgetting
#
# The forgetting of a class is its best IoU after any earlier step, minus its IoU now. It is defined for classes that were learned before
# the last step.

# %% tags=["exercise"]
def forgetting(rows):
    """rows: for each step a dictionary class name -> IoU, of the classes seen so far.

    Returns class name -> forgetting, for all classes of earlier steps.
    """
    # SOLUTION
    *earlier, last = rows
    learned = {name for row in earlier for name in row}
    return {name: max(row[name] for row in earlier if name in row) - last[name] for name in learned}
    # END

# %% tags=["check"]
history = [{"cat": 50.0}, {"cat": 60.0, "dog": 40.0}, {"cat": 20.0, "dog": 45.0, "cow": 30.0}]
longer = [
    {"cat": 60.0}, {"cat": 50.0, "dog": 70.0}, {"cat": 30.0, "dog": 40.0, "cow": 55.0},
    {"cat": 20.0, "dog": 10.0, "cow": 55.0, "pig": 35.0},
]
check(
    "0.2", forgetting,
    [((history,), {"cat": 40.0, "dog": -5.0}), ((longer,), {"cat": 40.0, "dog": 60.0, "cow": 0.0})],
    hint="take the best of all earlier steps; it is negative for a class that got better, and the last "
    "step's own classes have none",
)

# %% [markdown]
# ## Quiz

# %% tags=["quiz"]
quiz(
    'After step 1, FT has 0 IoU on "disc". Does that say that all pixels of discs are called background?',
    [
        ("No", "Right. The row of the confusion matrix says where they went; chapter 03 draws it (most of them to background, as it happens)."),
        ("Yes", "It says only that none is called disc. They could all be called star, and the IoU would be 0 as well."),
    ],
    right=0,
)

# %% tags=["quiz"]
quiz(
    "Which is larger for FT, mIoU with background or without?",
    [
        ("With", "Right: background is large and survives, as a class that is labelled at every step. Always say which one you report."),
        ("Without", "Background has the highest IoU of all classes here, so leaving it out lowers the mean."),
    ],
    right=0,
)

# %% tags=["quiz"]
quiz(
    "Would more training at step 0 prevent the forgetting?",
    [
        ("Yes", "It could only start from a higher point. The loss of step 1 stays as it is, and nothing in it speaks for the old classes (chapter 03)."),
        ("No", "Right. What is missing is not skill but any reason to keep it; chapter 04 adds the first such reason."),
    ],
    right=1,
)

# %% [markdown]
# ## Further: another mean
#
# ### 0.3 Why not average over images?
#
# A tempting shortcut takes the mIoU of each image and averages those. Write it, for the classes that an image shows or is said to show,
# and see that it is another measure: a class in few images, or small in a large one, weighs differently.

# %% tags=["exercise"]
def per_image_miou(confusions):
    """confusions: one (K, K) matrix per image. Returns the mean over images of their mIoU."""
    # SOLUTION
    scores = []
    for confusion in confusions:
        hits = np.diag(confusion)
        union = confusion.sum(0) + confusion.sum(1) - hits
        scores.append(np.mean(100 * hits[union > 0] / union[union > 0]))
    return float(np.mean(scores))
    # END

# %% tags=["check"]
small, large = np.array([[9, 1], [0, 0]]), np.array([[0, 0], [0, 90]])
check(
    "0.3", per_image_miou, [(([small, large],), (90 / 2 + 100) / 2), (([large],), 100.0)],
    hint="leave out, image by image, the classes whose union is empty; a class that is predicted and "
    "not in the truth counts as 0 here but is NaN in `class_iou`: take hits and unions from the counts",
)
print("over the data set:", class_iou(small + large).mean().round(1))
