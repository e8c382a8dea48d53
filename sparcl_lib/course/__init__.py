"""What the notebooks share: kept runs, self-checks, quizzes, pictures with sliders."""

from sparcl_lib.course.exercises import check, compare_guess, guess_first
from sparcl_lib.course.interrupts import one_line_interrupts
from sparcl_lib.course.pictures import explore, panels, show
from sparcl_lib.course.quizzes import quiz
from sparcl_lib.course.runs import minivoc_config, run_or_load, run_or_load_all

__all__ = [
    "check",
    "compare_guess",
    "explore",
    "guess_first",
    "minivoc_config",
    "panels",
    "quiz",
    "run_or_load",
    "run_or_load_all",
    "show",
]

one_line_interrupts()
