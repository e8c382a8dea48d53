"""What the notebooks share: kept runs, self-checks, quizzes, pictures with sliders, toys.

Importing it does not import torch: the commands that copy and open chapters need none.
"""

from typing import TYPE_CHECKING

from sparcl_lib.course.guesses import hold_results_back
from sparcl_lib.course.interrupts import one_line_interrupts
from sparcl_lib.lazy import lazy_names

if TYPE_CHECKING:
    from sparcl_lib.course.exercises import Property, Several, WithGradient, check
    from sparcl_lib.course.guesses import compare_guess, guess_first
    from sparcl_lib.course.pictures import explore, panels, show
    from sparcl_lib.course.quizzes import quiz
    from sparcl_lib.course.runs import minivoc_config, run_or_load, run_or_load_all
    from sparcl_lib.course.toys import four_classes, play, plot_points

__all__ = [
    "Property",
    "Several",
    "WithGradient",
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
    "Property": "sparcl_lib.course.exercises",
    "Several": "sparcl_lib.course.exercises",
    "WithGradient": "sparcl_lib.course.exercises",
    "check": "sparcl_lib.course.exercises",
    "compare_guess": "sparcl_lib.course.guesses",
    "explore": "sparcl_lib.course.pictures",
    "four_classes": "sparcl_lib.course.toys",
    "guess_first": "sparcl_lib.course.guesses",
    "minivoc_config": "sparcl_lib.course.runs",
    "panels": "sparcl_lib.course.pictures",
    "play": "sparcl_lib.course.toys",
    "plot_points": "sparcl_lib.course.toys",
    "quiz": "sparcl_lib.course.quizzes",
    "run_or_load": "sparcl_lib.course.runs",
    "run_or_load_all": "sparcl_lib.course.runs",
    "show": "sparcl_lib.course.pictures",
}
"""Public name -> the module that defines it."""


if not TYPE_CHECKING:  # type checkers see the imports above
    __getattr__ = lazy_names(__name__, _HOMES)

one_line_interrupts()
hold_results_back()
