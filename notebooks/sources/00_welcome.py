# %% [raw]
# title: Welcome
# goals:
#   - check that your installation can run the whole course
#   - read the course's notation and its pictures, and move its sliders
#   - say in numbers what catastrophic forgetting is, from a confusion matrix
# summary:
#   - The environment check names what is missing, a line each; nothing here needs a GPU or a download.
#   - Every figure stands still first and moves when you run the cell; one notation holds in text and code.
#   - Trained on four new classes alone, the network loses all six old ones; the step-by-class matrix shows where the points went.
# ends_with: a first forgetting curve
# reading_minutes: 15
# differs:
#   - MiniVOC is ours, made to fit a laptop. It has the folder layout of VOC2012 and its phenomena, not its numbers.
# references:
#   - "SDR: Michieli & Zanuttigh, Continual Semantic Segmentation via Repulsion-Attraction of Sparse and Disentangled Latent Representations, CVPR 2021, arXiv 2103.06342; section 3 states the problem."
#   - "Forgetting of a class: Chaudhry et al., Riemannian Walk for Incremental Learning, ECCV 2018, equation 3, here with IoU for accuracy."
#   - "IoU over all pixels of a data set: Everingham et al., The Pascal Visual Object Classes Challenge, IJCV 2015, section 4.2."

# %% [markdown]
# A segmentation network gives every pixel a class. **Class-incremental** segmentation asks for more: the network knows some classes, the
# photographs it learned from are gone, and now it is to learn others. Trained on the new ones alone, it forgets the old ones within a
# minute. This course shows why, and adds, one at a time, the losses that prevent it:
#
# | chapters | question |
# |---|---|
# | 00 to 01 | What is forgotten, and what does "background" mean when classes come one after the other? |
# | 02 to 03 | How good is one network that sees everything, how bad one that just trains on? |
# | 04 | What does the old network still know that the new one can be held to? |
# | 05 to 07 | What do the latent losses of SDR add: prototypes, attraction and repulsion, sparsity? |
# | 08 to 11 | Do they add up, do they help other methods, and how is all that run at full scale? |
#
# The [index](README.md) lists the chapters that are ready. Each is read top to bottom: text, a few lines of code, an experiment. Training
# runs come with the course, so a chapter takes seconds; change a number and that run is trained on your machine, with a progress bar.

# %% tags=["setup"]
import numpy as np

from sparcl_lib.course import check, compare_guess, explore, minivoc_config, panels, run_or_load, show
from sparcl_lib.environment import check_environment
from sparcl_lib.metrics import class_iou
from sparcl_lib.training.evaluation import picture_arrays
from sparcl_lib.training.workspace import open_workspace
from sparcl_lib.viz import colorize, prediction_strips, step_heat_map

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
# MiniVOC is drawn by a program: 2,500 training and 400 test pictures of 64 x 64 pixels, ten kinds of objects, clutter, occlusion, and the
# folder layout of Pascal VOC2012. It is generated on first use, the same on every machine.
#
# A **task** says which classes are learned when. In `6-4`, step 0 teaches six classes and step 1 the other four.

# %%
config = minivoc_config("FT", task="6-4", setup="disjoint", seed=0)
workspace = open_workspace(config, progress=False)
for step, names in enumerate(workspace.step_names):
    images = len(workspace.train_ids[step])
    print(f"step {step}: {', '.join(names)} ({images} training images)")

# %% [markdown]
# Move the slider (it needs a running notebook; the first picture is here for everyone). Left the photograph, right its mask: a colour per
# class, nearly black for background, hatched where the border of an object counts for nothing.

# %%
test_ids = workspace.evaluation_ids[1][:12]


def draw_pair(picture):
    image, mask = workspace.evaluation_reader(test_ids[picture])  # (3, 64, 64), (64, 64) uint8
    figure, (left, right) = panels(columns=2, width=5, height=2.7)
    left.imshow(image.permute(1, 2, 0), interpolation="nearest")
    right.imshow(colorize(mask.numpy(), 11), interpolation="nearest")
    for axes, title in ((left, "photograph"), (right, "mask")):
        axes.set_title(title)
        axes.set_axis_off()
    return figure


explore(
    draw_pair, "A MiniVOC photograph beside its mask", picture=list(range(len(test_ids)))
)

# %% [markdown]
# ## Notation
#
# The same letters in every chapter, the paper's where it has one.
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
# counted over all test images together, then averaged over classes: **mIoU**. In the plainest form:

# %%
def plain_class_iou(confusion):  # (K, K) counts -> K values in percent
    values = []
    for c in range(len(confusion)):
        hits = confusion[c, c]
        union = confusion[c, :].sum() + confusion[:, c].sum() - hits
        values.append(100 * hits / union)
    return np.array(values)


example = np.array([[50, 2, 0], [5, 30, 5], [0, 10, 20]])
assert np.allclose(plain_class_iou(example), class_iou(example))
print(plain_class_iou(example).round(1))

# %% [markdown]
# ## Forgetting, measured
#
# **Fine-tuning** (FT) is the obvious thing to do: take the network after step 0, add four output channels, train on with the images and
# labels of step 1. Six of the ten classes have been learned well at that point.
#
# **Predict before you run:** what mIoU will those six classes have after step 1, in percent?

# %% tags=["predict"]
my_guess = None  # a number from 0 to 100

# %%
ft = run_or_load(config, checkpoints=True)
matrix = ft.matrix  # IoU by step and class
before = matrix.miou_new(0)
after = matrix.miou_old_no_bg(1)
print(f"the six classes of step 0: {before:.1f} after step 0")
compare_guess("the same six after step 1", my_guess, after)
assert before > 60 and after < 5

# %%
def draw_curve():
    figure, axes = panels(width=6, height=3.2)
    for names, label, color in (
        (matrix.step_classes[0], "classes of step 0", "#c44e00"),
        (matrix.step_classes[1], "classes of step 1", "#0072b2"),
    ):
        steps = [k for k in matrix.rows if names[0] in matrix.rows[k]]
        means = [np.mean([matrix.rows[k][name] for name in names]) for k in steps]
        axes.plot(steps, means, marker="o", color=color, label=label)
    axes.set(xticks=[0, 1], xlabel="step", ylabel="mIoU (%)", ylim=(-3, 100), title="Fine-tuning")
    axes.legend()
    return figure


show(draw_curve(), "mIoU of the first six classes falls to zero at step 1")

# %% [markdown]
# The **step-by-class matrix** holds the same story per class: a row for each step, a column for each class in learning order.

# %%
show(step_heat_map(matrix, "IoU of every class after every step"), "Step by class matrix of fine-tuning")

# %% [markdown]
# And this is what it looks like. The old objects are gone: most have become background, a few bear the name of a new class. Chapter 03 counts them.

# %%
pictures = picture_arrays(ft.model(1), workspace.picture_batches())
earlier = picture_arrays(ft.model(0), workspace.picture_batches())["prediction"]
names = workspace.task.class_names(1)


def draw_strips(picture):
    rows = slice(picture, picture + 1)
    predictions = {"after step 0": earlier[rows], "after step 1": pictures["prediction"][rows]}
    return prediction_strips(
        pictures["images"][rows], pictures["truth"][rows], predictions, names, matrix.step_classes[1]
    )


explore(draw_strips, "Photograph, truth, predictions after step 0 and step 1", picture=list(range(6)))

# %% [markdown]
# ## Exercises
#
# A cell with `NotImplementedError` waits for you; the cell below it checks your answer offline and gives a hint. Below that, folded, is a
# solution.
#
# ### 0.1 Old and new
#
# From the IoU of each class after a step, compute mIoU over the old classes and over the new ones. Background is class 0; SDR's tables count
# it among the old classes, MiB's leave it out.

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
check(
    "0.1", old_and_new,
    [((ious, 3, True), (110 / 3, 50.0)), ((ious, 3, False), (15.0, 50.0))],
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
check(
    "0.2", forgetting, [((history,), {"cat": 40.0, "dog": -5.0})],
    hint="it is negative for a class that got better, and the last step's own classes have none",
)

# %% [markdown]
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
    hint="leave out, image by image, the classes whose union is empty",
)
print("over the data set:", class_iou(small + large).mean().round(1))

# %% [markdown]
# ## Quiz
#
# **1. After step 1, FT has 0 IoU on "disc". Does that say that all pixels of discs are called background?**
#
# <details><summary>Yes</summary>It says only that none is called disc. They could all be called star, and the IoU would be 0 as well.</details>
# <details><summary>No</summary>Right. The row of the confusion matrix says where they went; chapter 03 draws it (most of them to background, as it happens).</details>
#
# **2. Which is larger for FT, mIoU with background or without?**
#
# <details><summary>With</summary>Right: background is large and survives, as a class that is labelled at every step. Always say which one you report.</details>
# <details><summary>Without</summary>Background has the highest IoU of all classes here, so leaving it out lowers the mean.</details>
#
# **3. Would more training at step 0 prevent the forgetting?**
#
# <details><summary>Yes</summary>It would start from a higher point and fall to the same one: nothing in the loss of step 1 speaks for the old classes.</details>
# <details><summary>No</summary>Right. What is missing is not skill but any reason to keep it; chapters 04 to 07 add reasons.</details>
