"""What a run's numbers depend on, as plain data without a path: kept runs are found by it.

Settings that stand at their default are left out, so that a new setting, whose default is what was
before, moves no key; a default that changes is a new training revision.
"""

import dataclasses
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

from sparcl_lib.config import RunConfig, all_settings, first_step_settings
from sparcl_lib.data import open_source
from sparcl_lib.data.lists import file_checksum, list_files
from sparcl_lib.digests import function_digest
from sparcl_lib.errors import UserError
from sparcl_lib.methods import Method, Term, get_term
from sparcl_lib.plain import as_plain
from sparcl_lib.tasks import get_task
from sparcl_lib.training.content import content_to_plain, read_content
from sparcl_lib.training.run_directory import RunDirectory


class Identity(NamedTuple):
    """Settings, and the contents of the files that they name."""

    run: dict[str, Any]
    """What the whole run depends on."""
    first: dict[str, Any]
    """What its step 0 depends on: runs that agree on it share one step 0."""


def read_identity(config: RunConfig) -> Identity:
    """The identity of a run. Raises UserError when the data are not there."""
    contents = _contents(config)
    settings = {
        key: as_plain(setting.value)
        for key, setting in all_settings(config).items()
        if setting.acts not in ("by content", "never") and not setting.is_default
    }
    first = as_plain(first_step_settings(config, defaults=False))
    return Identity({"settings": settings, **contents}, {"settings": first, **contents})


def _contents(config: RunConfig) -> dict[str, Any]:
    source = open_source(config.dataset, config.data_root)
    task = get_task(source.name, config.task, order=config.class_order, classes=source.classes)
    found = content_to_plain(read_content(config, source, task))
    if config.data.splits is None:
        return found
    lists = list_files(config.data.splits)
    return {**found, "lists": {str(step): file_checksum(file) for step, file in lists.items()}}


def read_terms(terms: Iterable[Term]) -> dict[str, Any]:
    """Name -> what a term says and what @term was told of it, for those that are not the
    library's: the library is known by its training revision.
    """
    outside = {}
    for term in map(get_term, (term.name for term in terms)):
        if not term.of_library:
            facts = {f.name: getattr(term, f.name) for f in dataclasses.fields(term)}
            source = function_digest(facts.pop("function"))
            del facts["plugin"]  # where it lies says nothing about it
            outside[term.name] = {**facts, "source": source}
    return outside


def check_same_terms(method: Method, places: Mapping[int, RunDirectory]) -> None:
    """Raise UserError, naming the term, if a trained step had another source of a term.

    places: step -> the run that holds it. Steps without a record of their terms are trusted.
    """
    if not read_terms(term for term in method.terms if term.weight > 0):
        return
    for step, place in places.items():
        now = read_terms(method.active_terms(step))
        name = changed_term(place.record(step).get("terms", now), now)
        if name:
            raise UserError(
                f"the term {name} says something else now than when step {step} of "
                f"{place.path} was trained: restore it, or train another run (values that it "
                f"names count, so it must not change them as it trains)"
            )


def changed_term(then: Mapping[str, Any], now: Mapping[str, Any]) -> str | None:
    """The first term of which `read_terms` found something else, or None."""
    return next((n for n in sorted({*then, *now}) if then.get(n) != now.get(n)), None)
