"""What a run at the paper's scale should take, from iterations that were measured.

Seconds and memory of an iteration are those of one H200 (benchmarks/studies/gpu, speed.csv) with
ResNet-101 at output stride 16, 512 pixels and 21 classes; `measured.csv` is the part of that table
which is needed here. Everything else is an estimate, and `FORMULA` says how it is made.
"""

from collections.abc import Mapping, Sequence
from functools import cache
from typing import NamedTuple

from sparcl_lib.config import RunConfig
from sparcl_lib.published.images import images_per_step
from sparcl_lib.published.tables import rows_of
from sparcl_lib.training.plan import iterations_of

FORMULA = (
    "Estimates for one H200, trained alone: the sum over steps of images x epochs / batch x "
    "seconds of an iteration. Seconds and peak memory were measured with ResNet-101, 512 pixels "
    "and 21 classes, for FT, MiB and SDR at batch 8 and 24 (benchmarks/studies/gpu); a line "
    "through both serves other batches; fewer pixels take seconds in proportion, and the memory of "
    "as much smaller a batch. PLOP was measured at 24, and the rest is in proportion. FT stands "
    "for step 0, Joint, EWC, RW and PI; MiB for LwF, LwF-MC, ILT and CIL; SDR for SDR+MiB, and "
    "SDR's formulas for its released form, whose losses take longer. Tests, loading and passes of "
    "a method before a step come on top."
)
MANY_CLASSES = (
    "ADE20K: more than 21 classes were not measured on a GPU, neither seconds nor memory, nor was "
    "a batch of 4; on a CPU an iteration of 151 took 14 to 26 % more time, and no more memory. "
    "Without --data-root every step is counted with all 20,210 images, which is too many."
)
MEASURED_AS = {"EWC": "FT", "RW": "FT", "PI": "FT", "Joint": "FT", "SDR+MiB": "SDR"}
"""Method -> the one whose iteration stands for its own."""
_WITH_TEACHER = "MiB"
_ARITHMETIC = {"32-true": "tf32", "bf16-mixed": "bf16", "16-mixed": "bf16"}
_PIXELS = 512


class Cost(NamedTuple):
    """Of one run."""

    first_hours: float
    """Of step 0."""
    later_hours: float
    gib: float
    """Peak memory of the GPU."""


class _Iteration(NamedTuple):
    seconds: float
    gib: float


def expected_cost(config: RunConfig, counted: bool = False) -> Cost | None:
    """By `FORMULA`; None for another network than the one that was measured, and for a data set of
    which the images are not known.

    counted: whether the images of `config.data_root` are counted; else they are as published.
    """
    images = images_per_step(config, counted)
    model = config.model
    if images is None or (model.backbone, model.output_stride) != ("resnet101", 16):
        return None
    steps = range(len(images))
    spent = [_iteration(config, step) for step in steps]
    counts = [iterations_of(config, step, images[step]) for step in steps]
    hours = [count * each.seconds / 3600 for count, each in zip(counts, spent)]
    return Cost(hours[0], sum(hours[1:]), max(each.gib for each in spent))


def _iteration(config: RunConfig, step: int) -> _Iteration:
    name = config.method.name
    measured = _measured()[_ARITHMETIC[config.precision]]
    stand_in = "FT" if step == 0 else MEASURED_AS.get(name, name)
    points = measured.get(stand_in, measured[_WITH_TEACHER])
    share = (config.data.size / _PIXELS) ** 2
    seconds, gib = ({batch: each[k] for batch, each in points.items()} for k in range(2))
    batch = config.data.batch_size
    # Weights, gradients and momentum are held whatever the pixels are.
    return _Iteration(_at_batch(seconds, batch) * share, _at_batch(gib, batch * share))


def _at_batch(points: Mapping[int, float], batch: float) -> float:
    """On the line through two points, or in proportion to one."""
    known: Sequence[tuple[int, float]] = sorted(points.items())
    (low, first), (high, last) = (known[0], known[-1]) if len(known) > 1 else ((0, 0.0), known[0])
    return first + (last - first) * (batch - low) / (high - low)


@cache
def _measured() -> dict[str, dict[str, dict[int, _Iteration]]]:
    """Arithmetic -> method -> batch -> what an iteration takes."""
    found: dict[str, dict[str, dict[int, _Iteration]]] = {}
    for row in rows_of("reproduction", "measured.csv"):
        methods = found.setdefault(row["arithmetic"], {})
        spent = _Iteration(float(row["seconds"]), float(row["peak GiB"]))
        methods.setdefault(row["method"], {})[int(row["batch"])] = spent
    return found
