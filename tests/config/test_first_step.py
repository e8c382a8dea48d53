"""What step 0 depends on follows from the declarations: every setting is changed once."""

import dataclasses
import json
import typing
from typing import Any, Literal, get_args, get_origin, get_type_hints

import pytest

from sparcl_lib.config import (
    DataConfig,
    ModelConfig,
    OptimConfig,
    RunConfig,
    all_settings,
    first_step_difference,
    first_step_settings,
    resolve,
)
from sparcl_lib.errors import UserError
from sparcl_lib.methods import TERMS, Method, RegulariserSettings, Term
from sparcl_lib.plain import nest

# A new setting counts for step 0 unless it is declared otherwise; then it is named here too.
ACTS_LATER = {
    "method.name",
    "method.classifier_init",
    "method.frozen",
    "method.fuse",
    "method.regulariser.weight",
    "model.batch_norm",
    "method.terms.ce.unbiased",
    "method.terms.ce.pseudo",
    "method.terms.ce.labelled_only",
    "method.terms.ce.fold_labels",
    "method.terms.bce.threshold",
}
CHANGES_NO_NUMBER = {"save_minutes", "tensorboard", "deterministic", "data.workers", "data.cache"}
BY_CONTENT = {
    "dataset", "task", "class_order", "data_root", "data.splits", "model.weights",
}  # fmt: skip
PER_STEP = {"optim.lr", "optim.epochs", "optim.iterations"}

GROUPS = {
    "": RunConfig, "data.": DataConfig, "model.": ModelConfig, "optim.": OptimConfig,
    "method.": Method, "method.regulariser.": RegulariserSettings,
}  # fmt: skip
NOT_ONE_SETTING = {
    "data", "model", "optim", "method", "method.terms", "method.mechanisms", "method.regulariser",
}  # fmt: skip
FIELDS = {
    prefix + field.name: get_type_hints(cls)[field.name]
    for prefix, cls in GROUPS.items()
    for field in dataclasses.fields(cls)
    if prefix + field.name not in NOT_ONE_SETTING
}
ROW = {f.name: h for f, h in zip(dataclasses.fields(Term), get_type_hints(Term).values())
       if f.name not in ("name", "options")}  # fmt: skip
LIBRARY = {name: term for name, term in TERMS.items() if term.of_library}
AT_STEP_0 = [name for name, term in LIBRARY.items() if term.first_step == 0]
LATER_TERMS = [name for name, term in LIBRARY.items() if term.first_step > 0]
TERM_SETTINGS = {
    f"method.terms.{name}.{setting}": hint
    for name, term in LIBRARY.items()
    for setting, hint in {**ROW, **get_type_hints(term.function)}.items()
    if setting in (*ROW, *term.options)
}

METHOD_OF = {"method.unknown": "SSUL-like", "method.classifier_init": "SSUL-like"}
"""Settings that only some methods may have; the others are changed in FT."""


def base(key: str) -> dict[str, Any]:
    """Settings under which the one that is named can be changed."""
    settings: dict[str, Any] = {}
    if key.startswith("method.regulariser."):
        settings |= {"method.regulariser.name": "rw"}
    if key.startswith("method.terms."):
        settings |= {".".join([*key.split(".")[:3], "weight"]): 1.0}
        settings |= {"method.terms.bce.weight": 1.0}  # another one for step 0
    return settings


def config(method: str, settings: dict[str, Any]) -> RunConfig:
    return resolve("voc", method, [nest(settings)], task="19-1")


def other(hint: Any, value: Any) -> Any:
    """Another value of a setting's type."""
    origin, choices = get_origin(hint), get_args(hint)
    if origin is Literal:
        return next(choice for choice in choices if choice != value)
    if origin is tuple:
        inner = choices[0]
        if get_origin(inner) is Literal:
            return [get_args(inner)[0]]
        return [0.5 * v if inner is float else v + 1 for v in value or (1, 1)]
    if type(None) in choices:
        return other(next(c for c in choices if c is not type(None)), value)
    if hint is bool:
        return not value
    if hint is int:
        return (value or 63) + 1
    if hint is float:
        return 0.5 * value + 0.125
    named = {"sequential": "disjoint", "disjoint": "overlapped", "resnet101": "resnet50"}
    return named.get(value, f"other {value}")


def changed(key: str, hint: Any) -> tuple[RunConfig, RunConfig]:
    method = METHOD_OF.get(key, "FT")
    before = config(method, base(key))
    settings = all_settings(before)
    value = settings[key].value
    if key in ("dataset", "task"):  # never among the settings that one gives
        return before, dataclasses.replace(before, **{key: other(hint, value)})
    return before, config(method, {**base(key), key: other(hint, value)})


def keys_of(config: RunConfig) -> list[str]:
    """As the store makes them: with the settings at their defaults, and without."""
    found = [first_step_settings(config), first_step_settings(config, defaults=False)]
    return [json.dumps(settings, sort_keys=True) for settings in found]


@pytest.mark.parametrize("key, hint", FIELDS.items(), ids=FIELDS)
def test_a_field_counts_for_step_0_unless_it_is_declared_to_act_later(key, hint):
    before, after = changed(key, hint)
    assert before != after, "the value is another one"
    counts = key not in ACTS_LATER | CHANGES_NO_NUMBER | BY_CONTENT
    same = [a == b for a, b in zip(keys_of(before), keys_of(after))]
    assert same == [not counts] * 2
    assert (first_step_difference(before, after) is not None) == counts


@pytest.mark.parametrize("key, hint", TERM_SETTINGS.items(), ids=TERM_SETTINGS)
def test_a_term_s_settings_count_where_the_term_is_active_at_step_0(key, hint):
    name = key.split(".")[2]
    before, after = changed(key, hint)
    assert before != after
    counts = name in AT_STEP_0 and key not in ACTS_LATER
    same = [a == b for a, b in zip(keys_of(before), keys_of(after))]
    assert same == [not counts] * 2
    if counts:
        assert f"method.terms.{name}." in first_step_difference(before, after)


def test_terms_that_begin_later_count_neither_there_nor_gone():
    for name in [*LATER_TERMS, "attraction"]:
        later = {} if name in LATER_TERMS else {f"method.terms.{name}.from_step": 1}
        with_it = config("FT", {f"method.terms.{name}.weight": 1.0, **later})
        assert keys_of(with_it) == keys_of(config("FT", {}))


def test_every_declaration_is_listed_here():
    terms = {f"method.terms.{name}.weight": 1.0 for name in LIBRARY}
    settings = all_settings(config("FT", {"method.regulariser.name": "rw", **terms}))
    said = {acts: {k for k, s in settings.items() if s.acts == acts} for acts in
            ("later", "never", "by content", "per step")}  # fmt: skip
    assert said == {"later": ACTS_LATER, "never": CHANGES_NO_NUMBER, "by content": BY_CONTENT,
                    "per step": PER_STEP}  # fmt: skip


def test_of_a_setting_per_step_the_first_value_counts():
    first = config("FT", {"optim.lr": [0.1, 0.2], "optim.iterations": [5, 6]})
    later = config("FT", {"optim.lr": [0.1, 0.9, 0.8], "optim.iterations": [5, 60]})
    assert keys_of(first) == keys_of(later)
    assert keys_of(first) != keys_of(config("FT", {"optim.lr": 0.2, "optim.iterations": 5}))


def test_joint_training_ignores_the_setup():
    setups = ("disjoint", "sequential", "overlapped")
    joint = [resolve("voc", "Joint", task="19-1", setup=s) for s in setups]
    assert keys_of(joint[0]) == keys_of(joint[1]) == keys_of(joint[2])
    # Prototypes count the background in two of them: who came first decided for all.
    latent = [
        resolve("voc", "Joint", [{"method.terms.attraction.weight": 0.1}], task="19-1", setup=s)
        for s in setups
    ]
    assert len({str(keys_of(config)) for config in latent}) == 3
    assert "setup" in first_step_settings(config("FT", {}))


def test_a_regulariser_writes_down_importances_at_step_0():
    assert keys_of(config("FT", {})) != keys_of(config("EWC", {}))
    assert first_step_difference(config("FT", {}), config("EWC", {})) == (
        "method.regulariser.name (ewc there, None here)"
    )


def test_a_setting_at_its_default_moves_no_key():
    """So that a new setting, whose default is what was before, makes no run anew."""
    plain, said = config("FT", {}), config("FT", {"data.size": DataConfig.size, "seed": 0})
    assert keys_of(plain) == keys_of(said)
    assert set(first_step_settings(plain, defaults=False)) == {"method.terms.ce.weight"}


def test_nobody_forgets_the_type_of_a_field():
    assert set(typing.get_type_hints(Method)) == {f.name for f in dataclasses.fields(Method)}
    with pytest.raises(UserError, match="data.size must be a whole number"):
        config("FT", {"data.size": "big"})
