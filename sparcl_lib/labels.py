"""The two labels that are the same in every task. Imports nothing, for losses import it."""

BACKGROUND = 0
"""Training index of background, and of whatever counts as such."""
VOID = 255
"""Of pixels that are ignored, in masks and in training."""
