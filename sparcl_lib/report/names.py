"""Names of runs in a report: one for each experiment, and for each order of a task's classes."""

import dataclasses
import hashlib
import itertools
import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from sparcl_lib.config import RunConfig, all_settings, first_step_settings
from sparcl_lib.errors import UserError
from sparcl_lib.method_table import METHODS
from sparcl_lib.methods.variants import LATENT, RELEASED, VARIANT, variant_of
from sparcl_lib.plain import as_plain
from sparcl_lib.report.runs import KEYS, ReportRun, by_method, label_policy, tested_on
from sparcl_lib.tasks import get_task
from sparcl_lib.training.content import MISSING, Content
from sparcl_lib.training.identity import changed, titled

_OF_EACH_RUN = ("seed", "method.name", "class_order", *KEYS[:3])
"""Settings that say which run of an experiment this is, or are told apart by themselves."""
_TERMS = "method.terms."
_OF_VARIANT = ("method.prototypes", "model.head", "model.batch_norm")
"""What `method.variant` sets beside terms."""
_ORDER = ", order "
_ADDED = re.compile(r", order [\d ]+ \.\.\. \([0-9a-f]{4}\)$")
_NAMED = 2
_BEGINS = 4
"""Classes by which an order is described."""

Group = tuple[str, str, str]
"""Data set, task, setup."""
Experiment = dict[str, Any]
"""What seeds have in common: settings that act, images, data and backbone weights."""


def told_apart(runs: Iterable[ReportRun]) -> list[ReportRun]:
    """The runs, each under a name that is of its experiment alone; seeds of one share it.

    A task whose classes come in another order says how it begins: `15-5, order 20 19 18 17 ...`. A
    library's method with other loss terms is named by them, as `MiB + mine`. Of several
    experiments of one name the first keeps it, and the others say what they have in place of it:
    `MiB (optim.lr=[0.1], kd.weight=5)`; in all class orders of a task alike. Runs whose
    configuration is not known keep their names.
    """
    named = [_with_terms(_with_order(run)) for run in runs]
    known: dict[Any, list[dict[Group, Experiment]]] = {}
    places = []
    for run in named:
        met = known.setdefault((family(run), run.metrics["method"]), [])
        experiment = _experiment(run)
        if experiment is None:
            places.append(0)  # of the first
            continue
        here = {run.group: experiment}
        alike = [n for n, other in enumerate(met) if not _differences(*_beside(other, here))]
        places.append(alike[0] if alike else len(met))
        if alike:
            met[alike[0]].setdefault(run.group, experiment)
        else:
            met.append(here)
    names = {key: _names(met) for key, met in known.items()}
    return [
        run.named(run.metrics["method"] + names[family(run), run.metrics["method"]][place])
        for run, place in zip(named, places, strict=True)
    ]


def family(run: ReportRun) -> Any:
    """What runs share that differ in the order of their task's classes alone: data set, setup,
    classes in steps of these sizes, label rules and test."""
    metrics = run.metrics
    steps, (dataset, _, setup) = metrics["classes"], run.group
    names = frozenset(name for step in steps for name in step)
    rules = tuple(sorted(label_policy(metrics).items()))
    unused = None if run.content is None else run.content.unused
    return dataset, setup, tuple(map(len, steps)), names, rules, unused, tested_on(metrics)


def _beside(
    one: dict[Group, Experiment], other: dict[Group, Experiment]
) -> tuple[Experiment, Experiment]:
    """Two experiments where both were trained; else without what an order changes, their images."""
    for group in one.keys() & other.keys():
        return one[group], other[group]
    ordered = dict.fromkeys(("images", "data"))
    return {**next(iter(one.values())), **ordered}, {**next(iter(other.values())), **ordered}


def _with_order(run: ReportRun) -> ReportRun:
    """Under another task, if its classes come in another order than the task's own."""
    order = () if run.config is None else run.config.class_order or ()
    classes = run.metrics["classes"]
    if not order or classes == standard_classes(run.metrics["dataset"], run.metrics["task"]):
        return run
    begins = " ".join(map(str, order[:_BEGINS]))
    digest = hashlib.sha256(json.dumps(classes).encode()).hexdigest()[:4]
    task = f"{run.metrics['task']}{_ORDER}{begins} ... ({digest})"
    return run._replace(metrics={**run.metrics, "task": task})


def task_without_order(task: str) -> str:
    """The task's name without the order that `told_apart` adds."""
    return _ADDED.sub("", task)


def standard_classes(dataset: str, task: str) -> list[list[str]] | None:
    """Class names of each step of a task of the library; None for another one."""
    try:
        standard = get_task(dataset, task)
    except UserError:
        return None
    return [[standard.classes[c] for c in step] for step in standard.steps]


def _with_terms(run: ReportRun) -> ReportRun:
    """Under the name of its method and of what makes it another than the library's of this name."""
    name: str = run.metrics["method"]
    if run.config is None or name not in METHODS:
        return run
    own, method = METHODS[name], run.config.method
    # The released form of a term is a setting of the same method.
    terms = [t.name.removeprefix(RELEASED) for t in method.terms if t.weight > 0]
    added = [term for term in terms if term not in own["terms"]]
    added += [row.name for row in method.mechanisms if row.enabled]
    more = "".join(f" + {name}" for name in added)
    less = " and ".join(term for term in own["terms"] if term not in terms)
    joint = " (joint)" if method.joint and not own.get("joint") else ""
    found = f"{name}{joint}{more}{f' without {less}' if less else ''}"
    return run.named(found)._replace(known_as=found)


def _experiment(run: ReportRun) -> Experiment | None:
    """None where it is not known."""
    if run.config is None:
        return None
    content: Content | None = run.content
    return {
        **_acting(run.config),
        "images": run.metrics.get("images_sha256"),
        "data": content and content.data,
        "weights": content and (None if content.weights == MISSING else content.weights or "none"),
        "terms": _of_all_steps(run.other_terms),
    }


def _of_all_steps(other_terms: Mapping[int, Mapping[str, Any]] | None) -> dict[str, Any] | None:
    """What is known of each term that is active in a step that was trained."""
    if other_terms is None:
        return None
    return {name: facts for of in other_terms.values() for name, facts in of.items()}


def _acting(config: RunConfig) -> dict[str, Any]:
    """The settings that act in this run, each in one form."""
    idle = tuple(f"method.terms.{t.name}." for t in config.method.terms if t.weight == 0)
    found = {
        key: _shortest(as_plain(setting.value)) if setting.acts == "per step" else setting.value
        for key, setting in all_settings(config).items()
        if setting.acts not in ("by content", "never")
        and key not in _OF_EACH_RUN
        and not key.startswith(idle)
    }
    if config.optim.iterations is not None:
        del found["optim.epochs"]
    found["data.test_size"] = config.data.test_size or config.data.size
    return {key: as_plain(value) for key, value in found.items()}


def _shortest(values: Any) -> Any:
    """Values per step without those that repeat the last one."""
    if not isinstance(values, list):
        return values
    while len(values) > 1 and values[-1] == values[-2]:
        values = values[:-1]
    return values


def _names(experiments: Sequence[dict[Group, Experiment]]) -> list[str]:
    """What is added to the name of each: nothing to the first, its differences from that to the
    others, as few of them as do, two at least, and a number where these are all the same."""
    said = [_differences(*_beside(experiments[0], other)) for other in experiments[1:]]
    names = [""]
    for n, texts in enumerate(said):
        rest = [other for k, other in enumerate(said) if k != n]
        count = _NAMED
        while count < len(texts) and texts[:count] in (other[:count] for other in rest):
            count += 1
        more = len(texts) - count
        name = f" ({', '.join(texts[:count])}{f' and {more} more' if more > 0 else ''})"
        numbered = (f"{name[:-1]}, {number})" for number in itertools.count(2))
        names.append(next(each for each in itertools.chain([name], numbered) if each not in names))
    return names


def _differences(first: Experiment, other: Experiment) -> list[str]:
    """What an experiment has in place of what the first one has: settings, then images."""
    found = []
    before, variant = (
        variant_of(key.removeprefix(_TERMS) for key in each) for each in (first, other)
    )
    for key in dict.fromkeys([*other, *first]):
        if first.get(key) == other.get(key) or (variant != before and _of_variant(key)):
            continue
        if key not in _CONTENTS:
            found.append(f"{key.removeprefix(_TERMS)}={other.get(key)}")
    if variant != before:
        found.insert(0, f"{VARIANT}={variant}")
    for key, name in _CONTENTS.items():
        if None not in (first.get(key), other.get(key)) and first[key] != other[key]:
            part = changed(first[key], other[key]) if key == "terms" else None
            found.append(name + (titled(part).partition(" ")[0] if part else ""))
    return found


_CONTENTS = {
    "images": "other images", "data": "other data", "weights": "other weights",
    "terms": "other code of a ",
}  # fmt: skip


def _of_variant(key: str) -> bool:
    """Whether a variant changes this setting."""
    of_term = key.removeprefix(_TERMS).removeprefix(RELEASED)
    latent = of_term.partition(".")[0] in LATENT
    return key in _OF_VARIANT or latent or of_term == "ce.fold_labels"


def other_first_steps(runs: Iterable[ReportRun]) -> list[str]:
    """A line for each method that does not begin with the step 0 of the first one, of runs of one
    group: what they reach is then not what their later steps did alone. Joint training has none."""
    methods = by_method(run for run in runs if not run.joint)
    continual = {
        m: _first_step(of[0])
        for m, of in methods.items()
        if of[0].config is not None and not of[0].config.method.joint
    }
    return [line for method in continual for line in _other_first_step(continual, method)]


def _first_step(run: ReportRun) -> dict[str, Any]:
    assert run.config is not None
    trained = (run.other_terms or {}).get(0)
    return first_step_settings(dataclasses.replace(run.config, seed=0), trained=trained)


def _other_first_step(known: dict[str, dict[str, Any]], method: str) -> Iterator[str]:
    base = next(iter(known))
    here, there = known[method], known[base]
    for key in dict.fromkeys([*here, *there]):
        if here.get(key) != there.get(key):
            values = f"{as_plain(here.get(key))} in place of {as_plain(there.get(key))}"
            yield f"step 0 of {method} is not that of {base}: {key}={values}"
            return
