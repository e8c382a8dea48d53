"""`method.variant`: one word for the settings that turn SDR's formulas into its released code.

paper: the formulas, as every setting has them by default; released: what the authors' code of 2021
computes; or a list of differences between the two, to have those alone. Each setting is reached by
its own name, too: docs/paper_and_released.md is the table.
"""

from collections.abc import Iterable, Mapping
from functools import reduce
from typing import Any, NamedTuple

from sparcl_lib.errors import UserError
from sparcl_lib.plain import flatten, merge

VARIANT = "method.variant"
"""Stands for other settings."""
VARIANTS = ("paper", "released")
LATENT = ("matching", "attraction", "repulsion", "sparsification")
"""The terms that have a released form, RELEASED + name. Named here because settings are
read without torch, which the terms import; a test holds this and SWITCHES to the registry."""
RELEASED = "released_"


class Switch(NamedTuple):
    """One setting of a released term, and its two sides."""

    term: str
    option: str
    released: object
    formula: object


SWITCHES: dict[str, tuple[Switch, ...]] = {
    "matching": (Switch("matching", "reshaped", True, False),),
    "contrast": (
        Switch("attraction", "reshaped", True, False),
        Switch("repulsion", "reshaped", True, False),
    ),
    "division": (Switch("attraction", "division", "nested", "mean"),),
    "labels": tuple(Switch(term, "labels", "raw", "completed") for term in LATENT[1:]),
    "sparsity": (
        Switch("sparsification", "floor", 0.0, 1.0),
        Switch("sparsification", "signed", True, False),
    ),
    "void": (Switch("sparsification", "void", True, False),),
    "distances": (Switch("repulsion", "distances", "matmul", "exact"),),
}
"""Difference -> the settings of released terms that it is."""
# What can be said of the formulas' own terms and of the method.
FORMS: dict[str, dict[str, dict[str, object]]] = {
    "norm": {"matching": {"distance": "mse"}, "attraction": {"distance": "mse"}},
    "step 0": {"attraction": {"from_step": 1}, "repulsion": {"from_step": 1}},
}
ELSEWHERE = ("prototypes", "old labels", "head", "batch norm")
DIFFERENCES = (*SWITCHES, *FORMS, *ELSEWHERE)


def with_variant(
    before: Iterable[Mapping[str, Any]], after: Iterable[Mapping[str, Any]], head: str
) -> dict[str, Any]:
    """All layers merged, nested: `before`, what the variant stands for, `after`.

    head: the default of model.head. Where a term is in its released form, what any layer says of
    the formula's term is said of the released one, and the formula has weight 0. The variant itself
    is not in the result. Raises UserError for an unknown variant, and for one of a method without a
    term that has two forms.
    """
    before, after = list(before), list(after)
    merged = reduce(merge, [*before, *after])
    asked = flatten(merged)
    if VARIANT not in asked:
        return _in_order(merged)
    wanted = _differences(asked[VARIANT])
    there = {key.split(".")[2] for key in asked if key.startswith("method.terms.")}
    latent = [term for term in LATENT if {term, RELEASED + term} & there]
    if not latent:
        raise UserError(
            f"{VARIANT}={asked[VARIANT]} is for methods with a term of {', '.join(LATENT)}: "
            f"method {asked.get('method.name')} has none, SDR and SDR+MiB have all"
        )
    switched = {switch.term for name in wanted for switch in SWITCHES.get(name, ())}
    moved = [term for term in latent if term in switched]
    layers = [
        *(_with_released(layer, moved) for layer in before),
        _settings(wanted, latent, moved, "ce" in there, asked, head),
        *(_with_released(layer, moved) for layer in after),
        {"method": {"terms": {term: {"weight": 0.0} for term in moved}}},
    ]
    plain = reduce(merge, layers)
    method = {key: value for key, value in plain["method"].items() if key != "variant"}
    return _in_order({**plain, "method": method})


def variant_of(terms: Iterable[str]) -> str:
    """The one of VARIANTS: released, where some of these terms have their released form."""
    return VARIANTS[any(term.startswith(RELEASED) for term in terms)]


def _in_order(plain: Mapping[str, Any]) -> dict[str, Any]:
    """Each released form behind its formula: losses are summed in one order, in either form."""
    method = plain.get("method")
    rows = method.get("terms") if isinstance(method, Mapping) else None
    if not isinstance(method, Mapping) or not isinstance(rows, Mapping):
        return dict(plain)
    names = list(rows)
    for term in LATENT:
        if {term, RELEASED + term} <= set(names):
            names.remove(RELEASED + term)
            names.insert(names.index(term) + 1, RELEASED + term)
    return {**plain, "method": {**method, "terms": {name: rows[name] for name in names}}}


def _differences(variant: object) -> tuple[str, ...]:
    if variant in VARIANTS:
        return DIFFERENCES if variant == "released" else ()
    names = variant if isinstance(variant, list) and variant else [variant]
    for name in names:
        if name not in DIFFERENCES:
            raise UserError(
                f"{VARIANT} must be {' or '.join(VARIANTS)}, or a list of "
                f"{', '.join(DIFFERENCES)}: got {variant!r}"
            )
    return tuple(name for name in DIFFERENCES if name in names)


def _with_released(layer: Mapping[str, Any], terms: Iterable[str]) -> Mapping[str, Any]:
    """The layer that says of the released forms, too, what it says of these terms."""
    method = layer.get("method")
    rows = method.get("terms") if isinstance(method, Mapping) else None
    if not isinstance(method, Mapping) or not isinstance(rows, Mapping):
        return layer
    said = {RELEASED + name: rows[name] for name in terms if isinstance(rows.get(name), Mapping)}
    # What is said of a released form by its own name wins.
    return {**layer, "method": {**method, "terms": merge(rows, merge(said, rows))}}


def _settings(
    wanted: Iterable[str],
    latent: Iterable[str],
    moved: Iterable[str],
    has_ce: bool,
    asked: Mapping[str, Any],
    head: str,
) -> dict[str, Any]:
    """What the differences stand for, nested."""
    terms: dict[str, dict[str, object]] = {}
    for term in moved:
        norm = asked.get(f"method.terms.{term}.distance", "l2")
        terms[term] = {"distance": norm} if term in FORMS["norm"] else {}
        for name, switches in SWITCHES.items():
            terms[term] |= {
                s.option: s.released if name in wanted else s.formula
                for s in switches
                if s.term == term
            }
    for name in wanted:
        for term, row in FORMS.get(name, {}).items():
            if term in latent:
                terms[term] = {**terms.get(term, {}), **row}
    named = {RELEASED + t if t in moved else t: row for t, row in terms.items()}
    if "old labels" in wanted and has_ce:
        named["ce"] = {"fold_labels": True}
    method: dict[str, Any] = {"terms": named}
    if "prototypes" in wanted:
        method["prototypes"] = "released"
    model = {}
    if "head" in wanted:
        linear = str(asked.get("model.head", head)).removesuffix("_linear") + "_linear"
        model["head"] = linear
    if "batch norm" in wanted:
        model["batch_norm"] = "slow"
    return {"method": method, **({"model": model} if model else {})}
