"""sparcl_lib: class-incremental semantic segmentation, to learn, use and extend.

    import sparcl_lib

    run = sparcl_lib.train("minivoc", "SDR", task="6-4")  # kept: at once the next time
    run.matrix.to_frame()                                 # IoU of every class after every step
    run.predict("photo.jpg")                              # a map of indices of run.classes

Importing it is cheap: what is named here comes from its module on first use, and torch with it.
"""

from typing import TYPE_CHECKING

from sparcl_lib.lazy import lazy_names

if TYPE_CHECKING:
    from sparcl_lib.api import ablate, compare, train
    from sparcl_lib.errors import UserError
    from sparcl_lib.methods import mechanism, term
    from sparcl_lib.models import backbone
    from sparcl_lib.run import Run, load_run
    from sparcl_lib.seeding import seed_everything
    from sparcl_lib.tasks import get_task

__version__ = "0.3.0"

__all__ = [
    "Run",
    "UserError",
    "__version__",
    "ablate",
    "backbone",
    "compare",
    "get_task",
    "load_run",
    "mechanism",
    "seed_everything",
    "term",
    "train",
]

_HOMES = {
    "Run": "sparcl_lib.run",
    "UserError": "sparcl_lib.errors",
    "ablate": "sparcl_lib.api",
    "backbone": "sparcl_lib.models",
    "compare": "sparcl_lib.api",
    "get_task": "sparcl_lib.tasks",
    "load_run": "sparcl_lib.run",
    "mechanism": "sparcl_lib.methods",
    "seed_everything": "sparcl_lib.seeding",
    "term": "sparcl_lib.methods",
    "train": "sparcl_lib.api",
}
"""Public name -> the module that defines it."""


if not TYPE_CHECKING:  # type checkers see the imports above
    __getattr__ = lazy_names(__name__, _HOMES)

    def __dir__() -> list[str]:
        return sorted({*globals(), *__all__})
