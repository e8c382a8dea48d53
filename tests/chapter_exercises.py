"""The exercises of the chapters, and their checks run on an answer."""

import contextlib
import io
import re

from sparcl_lib.course.chapter import NOTEBOOKS, read_chapters, tags_of


def exercises() -> list:
    """(chapter, exercise cell, the check cell that follows)."""
    found = []
    for chapter in read_chapters(NOTEBOOKS / "sources"):
        waiting = []
        for cell in chapter.cells:
            if "exercise" in tags_of(cell):
                waiting.append(cell)
            if "check" in tags_of(cell):
                assert len(waiting) == 1, "one check after each exercise"
                found.append((chapter, waiting.pop(), cell))
        assert not waiting
    return found


def run_check(chapter, answer: str, check: str) -> str:
    """What the check prints for this answer, in a namespace with the chapter's set-up alone."""
    names: dict = {"__name__": chapter.name}
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        for cell in chapter.cells:
            if "setup" in tags_of(cell):
                exec(cell.source, names)
        exec(answer, names)
        exec(check, names)
    return printed.getvalue()


def exercise_id(entry) -> str:
    return re.search(r"check\(\s*\"([\d.]+)\"", entry[2].source).group(1)


EXERCISES = exercises()
