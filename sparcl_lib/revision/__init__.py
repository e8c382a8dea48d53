"""What trained a run: the training revision, and whether this code is the one recorded for it.

    python -m sparcl_lib.revision           # does this code train what is recorded?
    python -m sparcl_lib.revision record    # it does: trust it from now on

A kept run's key holds the revision in place of the release's version, so that a release that
trains the same finds the runs of the one before. Importing this does not import torch.
"""

from sparcl_lib.revision.code import note_edits, trained_by
from sparcl_lib.revision.recorded import TRAINING_REVISION

__all__ = ["TRAINING_REVISION", "note_edits", "trained_by"]
