# %% [raw]
# title: Template
# goals:
#   - do one thing
#   - measure another
#   - decide a third
# summary:
#   - What was found about the first goal, with its number.
#   - The same for the second.
#   - And for the third.
# ends_with: what the reader has in hand afterwards
# reading_minutes: 20
# prerequisites: ["00"]
# differs:
#   - Where this chapter leaves the paper, and why.
# references:
#   - "NAME: Authors, Title, VENUE YEAR; section and equation."

# %% [markdown]
# Copy this file to `NN_name.py`, write, and run `make notebooks`. Header, closing, stubs and folded solutions are made from it. The raw
# cell above is YAML: one line of summary for each goal. Allowed tags of code cells: setup, predict, exercise, check, ablation,
# raises-exception, nbval-ignore-output (at most one cell in twenty). A cell that prints numbers of a training of its own states a tolerance
# (CONTRIBUTING.md).
#
# First say why, then how. Cells of 25 lines at most, shapes in comments, the notation of chapter 00.

# %% tags=["setup"]
import numpy as np

from sparcl_lib.course import check, compare_guess, panels, show
from sparcl_lib.metrics import class_iou

# %% [markdown]
# ## The algorithm, in the plainest form
#
# Written out once, and proved equal to the library's.

# %%
def plain_iou(hits, union):  # (K,), (K,) counts -> (K,) percent
    return 100 * hits / union


confusion = np.array([[50, 5], [10, 35]])
hits = np.diag(confusion)
union = confusion.sum(0) + confusion.sum(1) - hits
assert np.allclose(plain_iou(hits, union), class_iou(confusion))

# %% [markdown]
# ## The experiment
#
# **Predict before you run:** what comes out?

# %% tags=["predict"]
my_guess = None  # a number

# %%
# Runs come from run_or_load(minivoc_config("FT")): kept ones at once, others trained with a bar.
measured = class_iou(confusion).mean()
compare_guess("mIoU", my_guess, measured)
assert 60 < measured < 80  # every claim beside a figure is an assert with a tolerance

# %%
def draw():
    figure, axes = panels(width=4, height=2.5)
    axes.bar(["background", "disc"], class_iou(confusion))
    axes.set(ylabel="IoU (%)", ylim=(0, 100))
    return figure


show(draw(), "IoU of background and of disc, both between 60 and 80")

# %% [markdown]
# ## Exercises
#
# ### 0.1 A title
#
# What to do. The answer stands between the two marks; readers get a stub.

# %% tags=["exercise"]
def accuracy(confusion):
    """confusion: (K, K) counts. Returns the share of pixels that are right, 0 to 1."""
    # SOLUTION
    return np.trace(confusion) / confusion.sum()
    # END

# %% tags=["check"]
counts = np.array([[50, 5], [10, 35]])
check("0.1", accuracy, [((counts,), 0.85)], hint="the diagonal holds the hits")

# %% [markdown]
# ## Quiz
#
# **1. A question?**
#
# <details><summary>An answer</summary>Why it is wrong, in a sentence.</details>
# <details><summary>Another</summary>Right, and why.</details>
