"""The one exception that is meant for the person at the keyboard."""


class UserError(ValueError):
    """A mistake that the user can mend: one line saying what is wrong, where, and how to mend it.

    The command line prints it without a traceback and exits with status 2.
    """


class LossDiverged(UserError):
    """The loss became infinite or not a number: too high a rate or weight, not a broken set-up."""
