"""What a run learns, by content: classes with their mask values, steps, images. No path counts.

A run's config.yaml and its checkpoints hold it. Two runs, or a run and what its files say today,
agree where their contents do, wherever the files lie.
"""

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sparcl_lib.config import RunConfig
from sparcl_lib.data import Source, image_checksums
from sparcl_lib.data.checksums import ImageChecksums, name_of
from sparcl_lib.data.lists import file_checksum
from sparcl_lib.data.minivoc import EDITIONS, checksum
from sparcl_lib.errors import UserError, first_few
from sparcl_lib.plain import as_plain, build
from sparcl_lib.tasks import VOID, Task
from sparcl_lib.tasks.classes import BACKGROUND_NAME

VOID_NAME = "void"
MISSING = "missing"
_DIGITS = 16
_SHOWN = 3

Images = dict[str, str]
"""Image id -> beginnings of the checksums of its mask and its photograph; empty for MiniVOC, which
is known by one checksum."""


@dataclass(frozen=True, kw_only=True)
class Content:
    """What the files that a configuration names hold."""

    dataset: str
    """Name of the data set in results."""
    task: str
    """Name of the task in results."""
    classes: dict[str, list[int]]
    """Class -> its values in the masks, background first."""
    void: tuple[int, ...]
    """Mask values that are left out."""
    steps: tuple[tuple[str, ...], ...]
    """Classes that each step learns, in order."""
    unused: str
    """What pixels of classes that no step learns become."""
    weights: str | None
    """What step 0 starts from: imagenet, the checksum of a file, or None. A file that is not there
    any more is MISSING: only step 0 needs it."""
    data: str
    """Checksum of lists, masks and photographs."""


def read_content(
    config: RunConfig,
    source: Source,
    task: Task,
    checksums: Callable[[Source], ImageChecksums] = image_checksums,
) -> Content:
    """The content behind a configuration, of whose data set and task `source` and `task` are.

    checksums: where those of the images come from; not asked for MiniVOC. The first call for a data
    set reads all of it, as `sparcl_lib.data.fingerprint` does.
    """
    values = source.values or {k: k for k in range(len(source.classes))} | {VOID: VOID}
    by_class: dict[int, list[int]] = {}
    for value, raw_id in sorted(values.items()):
        by_class.setdefault(raw_id, []).append(value)
    return Content(
        dataset=source.name,
        task=task.name,
        classes={name: by_class.get(k, []) for k, name in enumerate(source.classes)},
        void=tuple(by_class[VOID]),
        steps=tuple(tuple(task.classes[c] for c in step) for step in task.steps),
        unused=task.unused,
        weights=_weights_checksum(config.model.weights),
        data=checksum(source.root) if _is_generated(source) else name_of(checksums(source)),
    )


def content_to_plain(content: Content) -> dict[str, Any]:
    """As config.yaml and checkpoints hold it: a class with one mask value has that number."""
    plain: dict[str, Any] = as_plain(vars(content))
    numbers = {n: v[0] if len(v) == 1 else v for n, v in content.classes.items()}
    return {**plain, "classes": numbers}


def content_from_plain(plain: Mapping[str, Any]) -> Content:
    """The inverse; UserError for what is none."""
    classes = plain.get("classes", {})
    if isinstance(classes, Mapping):
        classes = {str(n): v if isinstance(v, list) else [v] for n, v in classes.items()}
    content: Content = build(Content, {**plain, "classes": classes}, "content.")
    return content


def read_images(
    source: Source, checksums: Callable[[Source], ImageChecksums] = image_checksums
) -> dict[str, Images]:
    """Split -> what its images are known by; checksums: as `read_content` takes them."""
    if _is_generated(source):
        return {split: dict.fromkeys(source.ids(split), "") for split in source.splits}
    return {
        split: {i: " ".join(c[:_DIGITS] for c in both) for i, both in images.items()}
        for split, images in checksums(source).items()
    }


def task_of(content: Content, source: Source) -> Task:
    """The task that a run was trained on, where its file is not there any more.

    Raises UserError for a class that the data set does not have.
    """
    ids = {name: k for k, name in enumerate(source.classes)}
    for name in (name for step in content.steps for name in step):
        if name not in ids:
            raise UserError(
                f"class {name!r} of task {content.task!r} is none of {source.name!r}: name it "
                f"among the classes of the data set again, as when the run was trained"
            )
    steps = tuple(tuple(ids[name] for name in step) for step in content.steps)
    unused: Any = content.unused
    return Task(content.task, source.name, source.classes, steps, unused)


def class_difference(then: Content, now: Content, trained: Collection[int]) -> str | None:
    """The first mask value that means something else now, or None.

    A class that only steps after the `trained` ones learn may have been background, void or
    unknown before: it was not labelled yet.
    """
    learned = {name for step in trained for name in then.steps[step]}
    new = {name for k, step in enumerate(now.steps) if k not in trained for name in step}
    before, after = _meanings(then), _meanings(now)
    for value, name in before.items():
        found = after.get(value, "no class")
        same = found == name or _as_labelled(found, now) == _as_labelled(name, then)
        if not same and (found not in new or name in learned):
            return f"mask value {value} is {_named(found)} now and was {_named(name)}"
    return None


def step_difference(then: Content, now: Content, trained: Iterable[int]) -> str | None:
    """The first trained step that learns other classes now, or in another order, or None."""
    for step in trained:
        found = now.steps[step] if step < len(now.steps) else ()
        if found != then.steps[step]:
            return (
                f"step {step} learns {_listed(found)} now and learned {_listed(then.steps[step])}"
            )
    if then.unused != now.unused:
        return f"classes that no step learns are {now.unused!r} now and were {then.unused!r}"
    return None


def file_difference(then: Images, now: Images, source: Source, split: str) -> str | None:
    """The first mask or photograph of both that is another one now, or None."""
    for image_id in sorted(then.keys() & now.keys()):
        if then[image_id] != now[image_id]:
            pair = zip(then[image_id].split(), now[image_id].split(), strict=False)
            same_mask = next((old == new for old, new in pair), False)
            if same_mask:
                return f"photograph {source.photo(split, image_id)} was replaced or saved anew"
            return f"mask {source.mask(split, image_id)} was redrawn or saved anew"
    return None


def list_difference(then: Collection[str], now: Collection[str]) -> str | None:
    """Images that are on one of two lists alone, or None."""
    gone, come = sorted(set(then) - set(now)), sorted(set(now) - set(then))
    differing = (("without", gone), ("with", come))
    return " and ".join(f"{w} {first_few(ids, _SHOWN)}" for w, ids in differing if ids) or None


def _is_generated(source: Source) -> bool:
    """MiniVOC knows its own checksum, of photographs before JPEG: its bytes differ by machine."""
    return source.name in EDITIONS


def _weights_checksum(weights: str | None) -> str | None:
    if weights in (None, "imagenet"):
        return weights
    return file_checksum(Path(weights)) if Path(weights).is_file() else MISSING


def _meanings(content: Content) -> dict[int, str]:
    """Mask value -> class, or void."""
    meanings = {v: name for name, values in content.classes.items() for v in values}
    return dict(sorted({**meanings, **dict.fromkeys(content.void, VOID_NAME)}.items()))


def _as_labelled(meaning: str, content: Content) -> str:
    """What its pixels are labelled as: a class that no step learns is background or void."""
    unused = content.classes.keys() - {name for step in content.steps for name in step}
    if meaning not in unused - {BACKGROUND_NAME}:
        return meaning
    return BACKGROUND_NAME if content.unused == "background" else VOID_NAME


def _named(meaning: str) -> str:
    return meaning if meaning in (VOID_NAME, "no class") else f"class {meaning!r}"


def _listed(names: Sequence[str]) -> str:
    return f"[{', '.join(names)}]" if names else "nothing"
