"""What the notebooks share: kept runs, self-checks, quizzes, pictures with sliders, toys."""

from sparcl_lib.course.exercises import check, compare_guess, guess_first
from sparcl_lib.course.interrupts import one_line_interrupts
from sparcl_lib.course.pictures import explore, panels, show
from sparcl_lib.course.quizzes import quiz
from sparcl_lib.course.runs import minivoc_config, run_or_load, run_or_load_all
from sparcl_lib.course.toys import four_classes, play, plot_points

__all__ = [
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

one_line_interrupts()
