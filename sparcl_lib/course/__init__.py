"""What the notebooks share: kept runs, self-checks, quizzes, pictures with sliders, toys.

Importing it does not import torch: the commands that copy and open chapters need none.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from sparcl_lib.course.interrupts import one_line_interrupts

if TYPE_CHECKING:
    from sparcl_lib.course.exercises import Property, check, compare_guess, guess_first
    from sparcl_lib.course.pictures import explore, panels, show
    from sparcl_lib.course.quizzes import quiz
    from sparcl_lib.course.runs import minivoc_config, run_or_load, run_or_load_all
    from sparcl_lib.course.toys import four_classes, play, plot_points

__all__ = [
    "Property",
    "check",
    "compare_guess",
    "explore",
    "four_classes",
    "guess_first",
    "minivoc_config",
    "panels",
    "play",
    "plot_points",
    "quiz",
    "run_or_load",
    "run_or_load_all",
    "show",
]

_HOMES = {
    "Property": "exercises",
    "check": "exercises",
    "compare_guess": "exercises",
    "explore": "pictures",
    "four_classes": "toys",
    "guess_first": "exercises",
    "minivoc_config": "runs",
    "panels": "pictures",
    "play": "toys",
    "plot_points": "toys",
    "quiz": "quizzes",
    "run_or_load": "runs",
    "run_or_load_all": "runs",
    "show": "pictures",
}
"""Public name -> the module here that defines it."""


if not TYPE_CHECKING:  # type checkers see the imports above, and a misspelt name is an error

    def __getattr__(name: str) -> Any:
        if name not in _HOMES:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)


one_line_interrupts()
