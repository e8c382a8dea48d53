"""Every setting of a run with what its declaration says, and those that step 0 depends on.

The rule: a setting counts for step 0 unless it is declared to act later (sparcl_lib.fields; for
the option of a loss term or a mechanism, `@term` and `@mechanism`), or belongs to one that is not
active at step 0. Of a setting
per step the first value counts. What is known by its content (data, task, lists, backbone weights)
is compared there.
"""

import dataclasses
from collections.abc import Container, Iterable, Iterator
from typing import Any, NamedTuple

from sparcl_lib.config.settings import RunConfig
from sparcl_lib.fields import Acts, acts, at_step
from sparcl_lib.methods import MechanismSettings, Method, Term
from sparcl_lib.plain import as_plain


class Setting(NamedTuple):
    """One setting of a run."""

    value: Any
    default: Any
    """What it is if nobody sets it; dataclasses.MISSING where there is no such value."""
    acts: Acts

    @property
    def is_default(self) -> bool:
        return bool(self.value == self.default)


def all_settings(config: RunConfig) -> dict[str, Setting]:
    """Dotted key -> setting, options of the method's terms at their defaults included."""
    return dict(_settings(config, ""))


def _settings(group: Any, prefix: str) -> Iterator[tuple[str, Setting]]:
    for field in dataclasses.fields(group):
        key, value = prefix + field.name, getattr(group, field.name)
        if key == "method.terms":
            for term in value:
                yield from _term_settings(term, f"{key}.{term.name}.")
        elif key == "method.mechanisms":
            for mechanism in value:
                yield from _mechanism_settings(mechanism, f"{key}.{mechanism.name}.")
            order = [mechanism.name for mechanism in value if mechanism.enabled]
            if len(order) > 1:  # in which their hooks are called
                yield key, Setting(order, dataclasses.MISSING, "always")
        elif dataclasses.is_dataclass(value):
            yield from _settings(value, f"{key}.")
        else:
            yield key, Setting(value, field.default, acts(field))


def _term_settings(term: Term, prefix: str) -> Iterator[tuple[str, Setting]]:
    # Without a default, so that a term with weight 1 is not taken for one that is not there.
    yield f"{prefix}weight", Setting(term.weight, dataclasses.MISSING, "always")
    yield f"{prefix}from_step", Setting(term.from_step, 0, "always")
    yield from _options(term, prefix)


def _mechanism_settings(row: MechanismSettings, prefix: str) -> Iterator[tuple[str, Setting]]:
    if row.enabled:  # one that is off is as one that is not there
        yield f"{prefix}enabled", Setting(True, dataclasses.MISSING, "always")
        yield from _options(row, prefix)


def _options(row: Term | MechanismSettings, prefix: str) -> Iterator[tuple[str, Setting]]:
    known, later = row.registered, set(row.registered.acts_later if row.registered else ())
    # One that nobody defines here has the options that somebody gave it.
    defaults = known.options if known else dict.fromkeys(row.options, dataclasses.MISSING)
    for option, default in defaults.items():
        said: Acts = "later" if option in later else "always"
        yield f"{prefix}{option}", Setting(row.options.get(option, default), default, said)


def first_step_settings(
    config: RunConfig, defaults: bool = True, trained: Container[str] | None = None
) -> dict[str, Any]:
    """Dotted key -> value of whatever step 0 depends on.

    defaults: also settings that stand at their default. Without them a new setting, whose default
    is what was before, changes nothing here. trained: of what nobody defines here, what step 0 was
    trained with, as `training.identity.outside_facts` names it; None: it is not known, and all of
    it counts.
    """
    method = config.method
    rows: list[tuple[str, str, Term | MechanismSettings]] = [
        (f"method.terms.{row.name}", row.name, row) for row in method.terms
    ]
    for row in method.mechanisms:
        rows.append((f"method.mechanisms.{row.name}", f"mechanism {row.name}", row))
    inactive = {
        group
        for group, name, row in rows
        if not row.active(0)
        or (row.registered is None and trained is not None and name not in trained)
    }
    found = {}
    for key, setting in all_settings(config).items():
        if setting.acts in ("later", "by content", "never") or key.rpartition(".")[0] in inactive:
            continue
        if key == "setup" and config.method.joint and not _reads_prototypes(method):
            continue  # joint training sees every image with every label, whatever the setup
        if key == "method.mechanisms":
            order = [row.name for row in method.mechanisms if row.active(0)]
            if len(order) > 1:
                found[key] = order
            continue
        first = setting.acts == "per step"
        value, default = (_first(x) if first else x for x in (setting.value, setting.default))
        if defaults or value != default:
            found[key] = value
    return found


def _reads_prototypes(method: Method) -> bool:
    """Whether step 0 may: in the overlapped setup they leave the background out."""
    terms = {term.name for term in method.terms if term.active(0)}
    return not terms <= {"ce", "bce"} or any(row.active(0) for row in method.mechanisms)


def _first(values: Any) -> Any:
    return values[0] if isinstance(values, tuple) else values


def first_step_difference(
    here: RunConfig, there: RunConfig, trained: Container[str] | None = None
) -> str | None:
    """The first setting that makes the step 0 of two runs differ, or None; trained: as
    `first_step_settings` takes it."""
    mine, theirs = (first_step_settings(config, trained=trained) for config in (here, there))
    for key in dict.fromkeys([*mine, *theirs]):
        if theirs.get(key) != mine.get(key):
            return f"{key} ({theirs.get(key)} there, {mine.get(key)} here)"
    return None


def settings_difference(here: RunConfig, there: RunConfig, steps: Iterable[int]) -> str | None:
    """The first setting that makes these steps of two runs differ, or None."""
    steps = list(steps)
    mine, theirs = (
        {key: _at_steps(setting, steps) for key, setting in all_settings(config).items()}
        for config in (here, there)
    )
    for key in dict.fromkeys([*mine, *theirs]):
        if theirs.get(key) != mine.get(key):
            return f"{key}={theirs.get(key)}, not {mine.get(key)}"
    return None


def _at_steps(setting: Setting, steps: Iterable[int]) -> Any:
    """What of a setting these steps depend on."""
    if setting.acts in ("by content", "never"):
        return None
    if setting.acts == "per step" and setting.value is not None:
        return [at_step(setting.value, step) for step in steps]
    return as_plain(setting.value)
