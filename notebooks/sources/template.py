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
# further_minutes: 10
# prerequisites: ["00"]
# differs:
#   - Where this chapter leaves the paper, and why.
# references:
#   - "NAME: Authors, Title, VENUE YEAR; section and equation."

# %% [markdown]
# Copy this file to `NN_name.py`, write, and run `make notebooks`. Header, closing, stubs and folded solutions are made from it. The raw
# cell above is YAML: one line of summary for each goal, and the minutes of the core (200 words of prose or 100 of formulas a minute, 5 to 10
# minutes an exercise, one a question of the quiz; 105 in all at most) and of the further part. Allowed tags of code cells: setup, predict, draw,
# exercise, check, quiz, ablation, verify, raises-exception, nbval-ignore-output (at most one cell in twenty). Cells tagged draw, quiz or verify
# are folded, and so are asserts at the end of any cell: what is left open should be the method. A cell that prints numbers of a training of
# its own states a tolerance (CONTRIBUTING.md).
#
# First say why, then how. Cells of 25 lines at most, shapes in comments, the notation of [the page Notation](../docs/notation.md). Chapters
# that do not exist yet are "planned", and not linked.

# %% tags=["setup"]
import numpy as np
import pandas as pd

from sparcl_lib.course import check, compare_guess, guess_first, panels, quiz, show
from sparcl_lib.metrics import class_iou

# %% [markdown]
# ## The algorithm, in the plainest form
#
# Written out once, and proved equal to the library's: by an assert at the end of the cell, which readers find folded.

# %%
def plain_iou(hits, union):  # (K,), (K,) counts -> (K,) percent
    return 100 * hits / union


confusion = np.array([[50, 5], [10, 35]])  # rows: truth, columns: prediction
hits = np.diag(confusion)
union = confusion.sum(0) + confusion.sum(1) - hits
pd.Series(plain_iou(hits, union), ["background", "disc"]).round(1).to_frame("IoU (%)")
assert np.allclose(plain_iou(hits, union), class_iou(confusion))

# %% [markdown]
# ## The experiment
#
# Nothing above this line may tell what comes out, and no cell may change what an earlier one has shown.
#
# **Predict before you run:** what is the mIoU, in percent?

# %% tags=["predict"]
my_guess = None  # a number from 0 to 100, or "pass"
guess_first(my_guess, 0, 100)

# %%
# Runs come from run_or_load(minivoc_config("FT")): kept ones at once, others trained with a bar.
measured = class_iou(confusion).mean()
compare_guess("mIoU", my_guess, measured)
assert 60 < measured < 80  # every claim beside a figure is an assert with a tolerance

# %% [markdown]
# A figure is 7 to 9 inches wide, and no two things in it differ by colour alone.

# %% tags=["draw"]
def draw_bars():
    figure, axes = panels(width=7, height=2.5)
    axes.bar(["background", "disc"], class_iou(confusion))
    axes.set(ylabel="IoU (%)", ylim=(0, 100))
    return figure


show(draw_bars(), "IoU of background and of disc, both between 60 and 80")

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

# %% tags=["quiz"]
quiz(
    "A question, with $formulas$ where they help?",
    [
        ("An answer", "Why it is wrong, in a sentence."),
        ("Another", "Right, and why."),
    ],
    right=1,
)

# %% [markdown]
# ## Further: what only some will read
#
# ### A section
#
# Everything from the heading above to the end is left out of the core's time. Later chapters may not rely on it. It may hold exercises, too.
