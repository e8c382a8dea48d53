"""Everything a run needs before its first iteration: task, images per step, label tables."""

import dataclasses
from dataclasses import dataclass
from functools import cached_property

from sparcl_lib.config import RunConfig
from sparcl_lib.data import (
    Presence,
    check_pairs,
    evaluation_ids,
    open_source,
    partition,
    read_lists,
    scan,
)
from sparcl_lib.data.lists import split_checksum
from sparcl_lib.data.loading.dataset import (
    ImageReader,
    SegmentationDataset,
    StepLoader,
    evaluation_batches,
    training_batches,
    worker_count,
)
from sparcl_lib.data.loading.transforms import evaluation_transform, training_transform
from sparcl_lib.errors import UserError
from sparcl_lib.methods import Method, build_method
from sparcl_lib.tasks import (
    LabelPolicy,
    Task,
    check_setup,
    evaluation_table,
    get_task,
    training_table,
)

NUM_PICTURES = 6


@dataclass(frozen=True)
class Workspace:
    """Task, method and data of a run, opened and checked."""

    config: RunConfig
    task: Task
    """As asked for, also for joint training: results are grouped by its steps."""
    learned: Task
    """What is trained step by step: `task`, or all of its classes in one step (joint)."""
    method: Method
    train_ids: dict[int, list[str]]
    """Step of `learned` -> images to train on."""
    evaluation_ids: dict[int, list[str]]
    """Step of `learned` -> images to evaluate on."""
    picture_ids: tuple[str, ...]
    """Evaluation images that are shown as prediction strips."""
    train_reader: ImageReader
    evaluation_reader: ImageReader

    @cached_property
    def policy(self) -> LabelPolicy:
        data = self.config.data
        return LabelPolicy(border=data.border, future=data.future, zero=data.zero)

    @cached_property
    def workers(self) -> int:
        return worker_count(self.config.data.workers, self.config.data.cache)

    @property
    def step_names(self) -> list[list[str]]:
        """Class names that each step of `task` adds."""
        return [[self.task.classes[c] for c in step] for step in self.task.steps]

    @cached_property
    def images_sha256(self) -> str:
        """Which training image is in which step, in one checksum."""
        return split_checksum(self.train_ids)

    def reported_step(self, step: int) -> int:
        """The step of `task` after which the model of a step of `learned` stands."""
        return self.task.num_steps - 1 if self.method.joint else step

    def training_batches(
        self, step: int, iterations: int, seed: int, rank: int, world: int, device="cpu"
    ) -> StepLoader:
        data = self.config.data
        table = training_table(self.learned, step, self.config.setup, self.policy)
        transform = training_transform(data.size, data.scale)
        dataset = SegmentationDataset(self.train_reader, self.train_ids[step], table, transform)
        return training_batches(
            dataset, data.batch_size, iterations, self.workers, seed, rank, world, device
        )

    def evaluation_batches(self, step: int, rank: int = 0, world: int = 1, device="cpu"):
        ids = self.evaluation_ids[step][rank::world]
        return self._evaluation_loader(ids, step, device)

    def picture_batches(self, device="cpu") -> StepLoader:
        """The strips' images with the labels of all classes of the task."""
        return self._evaluation_loader(self.picture_ids, self.learned.num_steps - 1, device)

    def _evaluation_loader(self, ids, step: int, device) -> StepLoader:
        data = self.config.data
        table = evaluation_table(self.learned, step, self.policy)
        transform = evaluation_transform(data.test_size or data.size)
        dataset = SegmentationDataset(self.evaluation_reader, ids, table, transform)
        return evaluation_batches(dataset, data.batch_size, self.workers, device)


def open_workspace(config: RunConfig, progress: bool = True) -> Workspace:
    """Open the data, check it, and cut it into steps. Raises UserError for whatever is wrong."""
    check_setup(config.setup)
    method = build_method(config.method, any_term=True)
    readers = [m.name for m in method.mechanisms(0) if m.reads_gradients]
    if readers and config.precision == "16-mixed":
        raise UserError(
            f"gradients of 16-mixed are scaled, so method.{readers[0]} cannot read them: "
            f"set precision=bf16-mixed or 32-true"
        )
    source = open_source(config.dataset, config.data_root, progress)
    task = get_task(source.name, config.task, order=config.class_order, classes=source.classes)
    learned = task.merged() if method.joint else task
    train, val = (scan(source, split, progress=progress) for split in ("train", "val"))
    for split in ("train", "val"):
        check_pairs(source, split)
    steps = range(learned.num_steps)
    evaluated = {step: evaluation_ids(val, learned, step) for step in steps}
    return Workspace(
        config=config,
        task=task,
        learned=learned,
        method=method,
        train_ids=_training_ids(config, train, task, method.joint),
        evaluation_ids=evaluated,
        picture_ids=_choose_pictures(val, task, evaluated[steps[-1]]),
        train_reader=ImageReader(source, "train", config.data.cache),
        evaluation_reader=ImageReader(source, "val", config.data.cache),
    )


def _training_ids(
    config: RunConfig, presence: Presence, task: Task, joint: bool
) -> dict[int, list[str]]:
    """Step -> images, by rule or as listed; joint training takes those of all steps at once."""
    if config.data.splits is None:
        return partition(presence, task.merged() if joint else task, config.setup)
    steps = read_lists(config.data.splits, presence, task)
    return {0: sorted(set().union(*steps.values()))} if joint else steps


def _choose_pictures(val, task: Task, ids: list[str]) -> tuple[str, ...]:
    """Images that show the most steps at once, each time with classes not shown so far."""
    rows = dict(zip(val.ids, val.table, strict=True))
    shown = {i: {c for c in task.used if rows[i][c]} for i in ids}
    steps = {i: sum(any(c in shown[i] for c in step) for step in task.steps) for i in ids}
    chosen: list[str] = []
    covered: set[int] = set()
    while len(chosen) < min(NUM_PICTURES, len(ids)):
        if covered >= set().union(*shown.values()):
            covered = set()
        news = {i: len(shown[i] - covered) for i in ids if i not in chosen}
        best = max(news, key=lambda i, news=news: (steps[i], news[i]))
        chosen.append(best)
        covered |= shown[best]
    return tuple(chosen)


def first_step_difference(here: RunConfig, there: RunConfig) -> str | None:
    """The first setting that makes the step 0 of two runs differ, or None."""
    mine, theirs = first_step_settings(here), first_step_settings(there)
    for key in dict.fromkeys([*mine, *_prototypes_kept(build_method(there.method, any_term=True))]):
        if theirs.get(key) != mine.get(key):
            return f"{key} ({theirs.get(key)} there, {mine.get(key)} here)"
    return None


def first_step_settings(config: RunConfig) -> dict[str, object]:
    """Whatever step 0 depends on; settings of later steps left out."""
    method = build_method(config.method, any_term=True)
    optim = config.optim
    first = {
        name: value[0] if isinstance(value, tuple) else value
        for name, value in dataclasses.asdict(optim).items()
    }
    model = {k: v for k, v in dataclasses.asdict(config.model).items() if k != "batch_norm"}
    return {
        "dataset": config.dataset,
        "task": config.task,
        # Joint training sees every image with every label, whatever the setup.
        "setup": None if method.joint else config.setup,
        "class_order": config.class_order,
        "seed": config.seed,
        "precision": config.precision,
        "data": dataclasses.asdict(config.data),
        "model": model | _answers(method),
        "optim": first,
        "joint": method.joint,
        "terms at step 0": _step_zero_terms(method),
        **_importances_kept(method),
        **_prototypes_kept(method),
    }


def _importances_kept(method: Method) -> dict[str, object]:
    """A regulariser leaves the weights of step 0 alone but writes down what they are worth."""
    row = method.regulariser
    return {} if row is None else {"regulariser": (row.name, row.alpha, row.interval)}


def _prototypes_kept(method: Method) -> dict[str, object]:
    """The prototypes that step 0 writes down, where they are not the class means."""
    key = "method.reshaped_prototypes"
    return {key: True} if method.reshaped_prototypes else {}


def _answers(method: Method) -> dict[str, object]:
    """What the classifier of step 0 has beyond one convolution."""
    found = {"unknown": method.unknown, "head_per_step": method.head_per_step}
    return {name: value for name, value in found.items() if value}


def _step_zero_terms(method: Method) -> tuple:
    """Pseudo-labels and kinds of background are the same thing where nothing is old."""
    return tuple((t.name, t.weight, t.options_at_step_zero) for t in method.active_terms(0))
