"""What a run's numbers depend on, as plain data without a path: kept runs are found by it.

Settings that stand at their default are left out, so that a new setting, whose default is what was
before, moves no key; a default that changes is a new training revision.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any, NamedTuple

from sparcl_lib.config import RunConfig, all_settings, first_step_settings
from sparcl_lib.data import open_source
from sparcl_lib.data.lists import file_checksum, list_files
from sparcl_lib.definitions import Definition
from sparcl_lib.digests import function_digest
from sparcl_lib.errors import UserError
from sparcl_lib.methods import get_mechanism, get_term
from sparcl_lib.models import BACKBONES, get_backbone
from sparcl_lib.plain import as_plain
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
    task = source.task(config.task, config.class_order)
    found = content_to_plain(read_content(config, source, task))
    if config.data.splits is None:
        return found
    lists = list_files(config.data.splits)
    return {**found, "lists": {str(step): file_checksum(file) for step, file in lists.items()}}


def outside_facts(config: RunConfig, step: int | None = None) -> dict[str, Any]:
    """Name -> what says a term, a mechanism or the backbone that is not the library's, and what its
    decorator was told: the library is known by its training revision. A term stands under its name,
    another one as in "mechanism averaging".

    step: what takes part in it; None: in any.
    """
    method = config.method
    terms = [t for t in method.terms if t.weight > 0 and (step is None or t.active(step))]
    mechanisms = [m for m in method.mechanisms if m.enabled and (step is None or m.active(step))]
    used: dict[str, Definition] = {term.name: get_term(term.name) for term in terms}
    backbone = get_backbone(config.model.backbone)
    for found in (*(get_mechanism(row.name) for row in mechanisms), backbone):
        used[found.title] = found
    return {name: _facts(found) for name, found in used.items() if not found.of_library}


def _facts(found: Definition) -> dict[str, Any]:
    facts = {f.name: getattr(found, f.name) for f in dataclasses.fields(found)}
    source = function_digest(facts.pop("function"), found.title)
    del facts["plugin"]  # where it lies says nothing about it
    return {**facts, "source": source}


def check_same_code(
    config: RunConfig, places: Mapping[int, RunDirectory], accept_edits: bool = False
) -> list[str]:
    """Raise UserError, naming it, if what is not the library's said something else in a trained
    step; where such edits are accepted, return a line for each step. That of a backbone never is:
    the weights of that step would compute something else.

    places: step -> the run that holds it. Steps without a record of it are trusted.
    """
    accepted: list[str] = []
    if not outside_facts(config):
        return accepted
    for step, place in places.items():
        now = outside_facts(config, step)
        name = changed(place.record(step).get("terms", now), now)
        if not name:
            continue
        other = (
            f"the {titled(name)} says something else now than when step {step} of {place.path} was "
            f"trained"
        )
        is_backbone = name.startswith("backbone ")
        if is_backbone or not accept_edits:
            anyway = "" if is_backbone else "; --accept-edits goes on all the same"
            raise UserError(
                f"{other}: restore it, or train another run (values that it names count, so it "
                f"must not change them as it trains){anyway}"
            )
        accepted.append(f"{other}; the edit is accepted")
    return accepted


def check_same_backbone(config: RunConfig, record: Mapping[str, Any], where: str) -> None:
    """Raise UserError if the backbone says something else than when a step was trained; record: of
    its checkpoint. A network with its weights would compute something else."""
    name = f"backbone {config.model.backbone}"
    then = record.get("terms", {}).get(name)
    if then is None or config.model.backbone not in BACKBONES:
        return
    if then != _facts(get_backbone(config.model.backbone)):
        raise UserError(
            f"the {name} says something else now than when {where} was trained: restore it"
        )


def changed(then: Mapping[str, Any], now: Mapping[str, Any]) -> str | None:
    """The first name of which `outside_facts` found something else, or None."""
    return next((n for n in sorted({*then, *now}) if then.get(n) != now.get(n)), None)


def titled(name: str) -> str:
    """A name of `outside_facts`, with what it is."""
    return name if " " in name else f"term {name}"
