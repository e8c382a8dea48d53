"""A reader of a chapter, who has run its set-up cells and solved its exercises."""

import contextlib
import io

from sparcl_lib.course.chapter import Chapter, solution, tags_of


def names_of_a_reader(chapter: Chapter) -> dict:
    """What such a reader's kernel knows, by name."""
    names: dict = {"__name__": chapter.path.stem}
    with contextlib.redirect_stdout(io.StringIO()):
        for cell in chapter.cells:
            if "setup" in tags_of(cell):
                exec(cell.source, names)
            if "exercise" in tags_of(cell):
                exec(solution(cell.source), names)
    return names
