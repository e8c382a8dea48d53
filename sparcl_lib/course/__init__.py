"""What the notebooks share: kept runs, self-checks, pictures with sliders."""

from sparcl_lib.course.exercises import check, compare_guess
from sparcl_lib.course.pictures import explore, panels, show
from sparcl_lib.course.runs import minivoc_config, run_or_load, run_or_load_all

__all__ = [
    "check",
    "compare_guess",
    "explore",
    "minivoc_config",
    "panels",
    "run_or_load",
    "run_or_load_all",
    "show",
]
