"""Everything a run needs before its first iteration: task, images per step, label tables."""

import hashlib
import json
import os
from collections.abc import Container, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property

import torch

from sparcl_lib.config import RunConfig
from sparcl_lib.data import (
    Presence,
    Source,
    check_pairs,
    evaluation_ids,
    hold_out,
    open_source,
    partition,
    read_lists,
    scan,
)
from sparcl_lib.data.checksums import ImageChecksums, image_checksums
from sparcl_lib.data.lists import split_checksum
from sparcl_lib.data.loading.dataset import (
    ImageReader,
    SegmentationDataset,
    StepLoader,
    evaluation_batches,
    training_batches,
    whole_image_batches,
    worker_count,
)
from sparcl_lib.data.loading.transforms import (
    evaluation_transform,
    training_transform,
    whole_image,
)
from sparcl_lib.data.pixels import Size, check_pixels
from sparcl_lib.data.remarks import class_remarks, list_remarks, step_remarks
from sparcl_lib.data.splits import without_classes
from sparcl_lib.errors import UserError
from sparcl_lib.labels import VOID
from sparcl_lib.methods import Method
from sparcl_lib.plain import is_yaml
from sparcl_lib.tasks import (
    LabelPolicy,
    Task,
    check_setup,
    evaluation_table,
    training_table,
)
from sparcl_lib.training.content import Content, Images, read_content, read_images, task_of
from sparcl_lib.training.run_directory import RunDirectory

NUM_PICTURES = 6


@dataclass(frozen=True)
class Workspace:
    """Task, method and data of a run, opened and checked."""

    config: RunConfig
    task: Task
    """As asked for, also for joint training: results are grouped by its steps."""
    learned: Task
    """What is trained step by step: `task`, or all of its classes in one step (joint)."""
    source: Source
    """Where lists, photographs and masks are."""
    method: Method
    train_ids: dict[int, list[str]]
    """Step of `learned` -> images to train on."""
    evaluation_ids: dict[int, list[str]]
    """Step of `learned` -> images to evaluate on."""
    picture_ids: tuple[str, ...]
    """Evaluation images that are shown as prediction strips."""
    train_reader: ImageReader
    evaluation_reader: ImageReader
    evaluation_sizes: Mapping[str, Size]
    """Width and height of the evaluation images."""
    remarks: tuple[str, ...]
    """What should be known of the images, a line each: those that no step uses, and `data.remarks`.
    """
    checksums: ImageChecksums = field(default_factory=dict)
    """Of all images, once they were read. Copies of a workspace share them."""

    @cached_property
    def policy(self) -> LabelPolicy:
        data = self.config.data
        return LabelPolicy(border=data.border, future=data.future, zero=data.zero)

    @property
    def tests_whole(self) -> bool:
        """Whether whole images are tested, or their centre squares."""
        return self.config.data.test == "whole"

    @property
    def test_split(self) -> str:
        """Split of the evaluation images."""
        return _test_split(self.config)

    @property
    def step_names(self) -> list[list[str]]:
        """Class names that each step of `task` adds."""
        return [[self.task.classes[c] for c in step] for step in self.task.steps]

    @cached_property
    def images_sha256(self) -> str:
        """Which training image is in which step, in one checksum."""
        return split_checksum(self.train_ids)

    @cached_property
    def content(self) -> Content:
        """What the files of the configuration hold; the first call for a data set reads it all."""
        return read_content(self.config, self.source, self.task, self._checksums)

    @cached_property
    def images(self) -> dict[str, Images]:
        """Split -> what its images are known by; reads as `content` does."""
        return read_images(self.source, self._checksums)

    def _checksums(self, source: Source) -> ImageChecksums:
        if not self.checksums:
            self.checksums.update(image_checksums(source))
        return self.checksums

    def trained_on(self, step: int) -> Images:
        """The images of a step of `learned`, as its checkpoint records them."""
        return {i: self.images["train"][i] for i in self.train_ids[step]}

    def tested_on(self, step: int) -> Images:
        """The evaluation images after a step of `learned`, as its checkpoint records them."""
        return {i: self.images[self.test_split][i] for i in self.evaluation_ids[step]}

    def evaluation_sha256(self, step: int) -> str:
        """What the numbers and pictures after a step are measured on: images, labels, choice.

        A class of a later step changes it for the steps before: its pixels are of the future then.
        """
        table = evaluation_table(self.learned, step, self.policy).tolist()
        last = evaluation_table(self.learned, self.learned.num_steps - 1, self.policy).tolist()
        measured = [self.tested_on(step), table, self.picture_ids, last]
        return hashlib.sha256(json.dumps(measured, sort_keys=True).encode()).hexdigest()

    def reported_step(self, step: int) -> int:
        """The step of `task` after which the model of a step of `learned` stands."""
        return self.task.num_steps - 1 if self.method.joint else step

    def training_batches(
        self,
        step: int,
        iterations: int,
        seed: int,
        rank: int = 0,
        world: int = 1,
        device: torch.device | str = "cpu",
        done: int = 0,
    ) -> StepLoader:
        """Batches of a step, each image with its own crop and flip; of `world` processes that train
        together, those of one.

        done: iterations that are behind it, whose batches are left out.
        """
        data = self.config.data
        table = training_table(self.learned, step, self.config.setup, self.policy)
        scale = None if data.scale is None else (data.scale[0], data.scale[1])
        transform = training_transform(data.size, scale)
        dataset = SegmentationDataset(self.train_reader, self.train_ids[step], table, transform)
        return training_batches(
            dataset, data.batch_size, iterations, self.workers(world), seed, rank, world, device,
            done,
        )  # fmt: skip

    def evaluation_batches(
        self, step: int, rank: int = 0, world: int = 1, device: torch.device | str = "cpu"
    ) -> StepLoader:
        """The evaluation images after a step, shared out to `world` processes."""
        data, ids = self.config.data, self.evaluation_ids[step][rank::world]
        workers = self.workers(world)
        if not self.tests_whole:
            return self._square_batches(ids, step, device, workers)
        table = evaluation_table(self.learned, step, self.policy)
        dataset = SegmentationDataset(self.evaluation_reader, ids, table, whole_image)
        sizes = [self.evaluation_sizes[i] for i in ids]
        # As many pixels at once as in training.
        return whole_image_batches(dataset, sizes, data.batch_size * data.size**2, workers, device)

    def picture_batches(self, device: torch.device | str = "cpu") -> StepLoader:
        """The strips' images, their centre squares, with the labels of all classes of the task."""
        last = self.learned.num_steps - 1
        return self._square_batches(self.picture_ids, last, device, self.workers())

    def workers(self, world: int = 1) -> int:
        """Loader processes of each of `world` processes that train."""
        return worker_count(self.config.data.workers, self.config.data.cache, world)

    def _square_batches(
        self, ids: Sequence[str], step: int, device: torch.device | str, workers: int
    ) -> StepLoader:
        data = self.config.data
        table = evaluation_table(self.learned, step, self.policy)
        transform = evaluation_transform(data.test_size or data.size)
        dataset = SegmentationDataset(self.evaluation_reader, ids, table, transform)
        return evaluation_batches(dataset, data.batch_size, workers, device)


def open_workspace(
    config: RunConfig,
    progress: bool = True,
    run: RunDirectory | None = None,
    trained: Container[int] = (),
) -> Workspace:
    """Open the data, check it, and cut it into steps. Raises UserError for whatever is wrong.

    run: whose record stands in for a task file or a folder of lists that is not there any more.
    trained: steps that need no image any more. A class that is appended to a task may show in all
    images of an earlier step, which the disjoint and sequential rules then give to its own.
    """
    check_setup(config.setup)
    method = config.method
    readers = method.gradient_readers()
    if readers and config.precision == "16-mixed":
        raise UserError(
            f"gradients of 16-mixed are scaled, so {readers[0]} cannot read them: "
            f"set precision=bf16-mixed or 32-true"
        )
    source = open_source(config.dataset, config.data_root, progress)
    task = _open_task(config, source, run)
    learned = task.merged() if method.joint else task
    if method.unknown and learned.num_classes(learned.num_steps - 1) == VOID:
        raise UserError(
            f"method.unknown is one more class, and {VOID - 1} leave no label for it: give the "
            f"task a class less, or set method.unknown=0"
        )
    test_split = _test_split(config)
    found = {s: scan(source, s, progress=progress) for s in dict.fromkeys(["train", test_split])}
    for split, presence in found.items():
        check_pairs(source, split, presence)
    train, held = hold_out(found["train"], config.data.held_out)
    test = held if test_split == "train" else found["val"]
    steps = range(learned.num_steps)
    evaluated = {step: evaluation_ids(test, learned, step) for step in steps}
    sizes = _sizes(test)
    if config.data.test == "whole":
        for image_id in sorted(set().union(*evaluated.values())):
            name = f"photograph {source.photo(test_split, image_id)}"
            check_pixels(name, sizes[image_id], ", or use data.test=crop")
    # Lists name the training images, whatever these show.
    listed = config.data.splits is not None
    ruled = {"test": test} if listed else {"training": train, "test": test}
    ids = _training_ids(config, found["train"], task, run, trained)
    by_rule = not listed or method.joint
    left = _without(ids, held, config, trained)
    return Workspace(
        config=config,
        task=task,
        learned=learned,
        source=source,
        method=method,
        train_ids=left,
        evaluation_ids=evaluated,
        picture_ids=_choose_pictures(test, task, evaluated[steps[-1]]),
        train_reader=ImageReader(source, "train", config.data.cache),
        evaluation_reader=ImageReader(source, test_split, config.data.cache),
        evaluation_sizes=sizes,
        remarks=(
            *_unused_images(ruled, task),
            *list_remarks(source, not is_yaml(config.task), test_split == "val"),
            *(() if by_rule else step_remarks(ids, found["train"], task, config.setup)),
            *class_remarks(train, left, test, learned),
        ),
    )


def _test_split(config: RunConfig) -> str:
    return "train" if config.data.held_out else "val"


def _without(
    steps: Mapping[int, list[str]], held: Presence, config: RunConfig, trained: Container[int]
) -> dict[int, list[str]]:
    """Step -> images that are not held out. Raises UserError for a step that has none left."""
    out = frozenset(held.ids)
    left = {step: [i for i in ids if i not in out] for step, ids in steps.items()}
    for step, ids in left.items():
        if steps[step] and not ids and step not in trained:
            raise UserError(
                f"data.held_out={config.data.held_out:g} leaves step {step} of task {config.task} "
                f"no image of {len(steps[step])}: set a smaller share"
            )
    return left


def _sizes(presence: Presence) -> dict[str, Size]:
    assert presence.sizes is not None  # a scan knows them
    pairs = presence.sizes.tolist()
    return {i: (width, height) for i, (width, height) in zip(presence.ids, pairs, strict=True)}


def _unused_images(splits: Mapping[str, Presence], task: Task) -> list[str]:
    """A line, or none."""
    counts = {
        f"{len(unused)} of {len(presence.ids)} {kind} images": len(unused)
        for kind, presence in splits.items()
        for unused in [without_classes(presence, task)]
    }
    listed = " and ".join(text for text, count in counts.items() if count)
    return [f"{listed} show no class of task {task.name} and are left out"] if listed else []


def _open_task(config: RunConfig, source: Source, run: RunDirectory | None) -> Task:
    content = None if run is None else run.content()
    if content is not None and is_yaml(config.task) and not os.path.exists(config.task):
        return task_of(content, source)
    task = source.task(config.task, config.class_order)
    if content is None:
        return task
    names = tuple(tuple(task.classes[c] for c in step) for step in task.steps)
    grown = len(names) > len(content.steps) and names[: len(content.steps)] == content.steps
    return task_of(content, source) if grown else task  # steps that this run does not have yet


def _training_ids(
    config: RunConfig,
    presence: Presence,
    task: Task,
    run: RunDirectory | None,
    trained: Container[int],
) -> dict[int, list[str]]:
    """Step -> images, by rule or as listed; joint training takes those of all steps at once."""
    joint = config.method.joint
    if config.data.splits is None:
        return partition(presence, task.merged() if joint else task, config.setup, trained)
    if run is not None and not os.path.exists(config.data.splits):
        return {step: run.trained_on(step) for step in run.steps_done()}
    steps = read_lists(config.data.splits, presence, task)
    return {0: sorted(set().union(*steps.values()))} if joint else steps


def _choose_pictures(val: Presence, task: Task, ids: list[str]) -> tuple[str, ...]:
    """Images that show the most steps at once, each time with classes not shown so far."""
    rows = dict(zip(val.ids, val.table, strict=True))
    shown = {i: {c for c in task.used if rows[i][c]} for i in ids}
    steps = {i: sum(any(c in shown[i] for c in step) for step in task.steps) for i in ids}
    chosen: list[str] = []
    covered: set[int] = set()
    while len(chosen) < min(NUM_PICTURES, len(ids)):
        if covered >= set().union(*shown.values()):
            covered = set()
        ranks = {i: (steps[i], len(shown[i] - covered)) for i in ids if i not in chosen}
        best = max(ranks, key=ranks.__getitem__)
        chosen.append(best)
        covered |= shown[best]
    return tuple(chosen)
