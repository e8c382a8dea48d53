"""The digest of a term of the user's follows what it says and what it names."""

import importlib
import linecache
import sys
from types import ModuleType

import pytest

from sparcl_lib.digests import function_digest

SOURCE = """
import math
POWER = 2.0
MODES = {"a", "b", "c"}
OTHER = 1

def helper(x):
    return x ** POWER

class Scale:
    def by(self, x):
        return x * FACTOR

FACTOR = 3

def gap(context, *, strength=1.0):
    '''A term.'''
    inner = lambda x: helper(x) + len(MODES)
    return Scale().by(inner(context.OTHER)) * math.pi
"""
_count = iter(range(1000))


def digest(text: str, source: bool = True) -> str:
    """The digest of `gap` in a module of this text, as in a notebook's cell."""
    name = f"<cell {next(_count)}>"
    module = ModuleType("cell")
    if source:
        linecache.cache[name] = (len(text), None, text.splitlines(True), name)
    exec(compile(text, name, "exec"), module.__dict__)
    return function_digest(module.gap)


@pytest.mark.parametrize("source", [True, False], ids=["source", "no source"])
def test_it_is_stable_and_follows_what_is_named(source):
    base = digest(SOURCE, source)
    assert digest(SOURCE, source) == base
    assert digest(SOURCE.replace("OTHER = 1", "OTHER = 2"), source) == base  # an attribute's name
    assert digest(SOURCE + "\ndef unused(): return 1\n", source) == base
    edits = [
        ("* math.pi", "* math.e"), ("strength=1.0", "strength=2.0"), ("x ** POWER", "x * POWER"),
        ("POWER = 2.0", "POWER = 2.5"), ('"c"', '"d"'), ("x * FACTOR", "x / FACTOR"),
        ("FACTOR = 3", "FACTOR = 4"), ("+ len", "- len"),
    ]  # fmt: skip
    found = {digest(SOURCE.replace(old, new), source) for old, new in edits}
    assert len(found | {base}) == len(edits) + 1


def test_comments_and_docstrings_do_not_count():
    assert digest(SOURCE.replace("'''A term.'''", "# a term")) == digest(SOURCE)
    assert digest(SOURCE.replace("helper(x):", "helper(x: float) -> float:")) == digest(SOURCE)


def test_values_around_a_function_and_named_defaults_count():
    text = """
def make(power):
    def gap(context, *, strength={default}):
        return context ** power
    return gap
DEFAULT = {value}
gap = make({power})
"""
    asked = [(1, 1, 2), (1, 1, 3), ("DEFAULT", 1, 2), ("DEFAULT", 2, 2)]
    texts = [text.format(default=d, value=v, power=p) for d, v, p in asked]
    assert len({digest(text) for text in texts}) == 4


def test_values_that_differ_in_every_process_do_not_count():
    """An object's address, and the order of a set of texts."""
    text = "THING = object()\nTHINGS = [THING]\n" + SOURCE.replace("* math.pi", "* THING * THINGS")
    assert digest(text) == digest(text)
    assert sys.modules.get("cell") is None


VALUES = {
    "a tensor": ("X = torch.tensor([1.0, 2.0])", "X = torch.tensor([1.0, 3.0])"),
    "its dtype": ("X = torch.zeros(2)", "X = torch.zeros(2, dtype=torch.float64)"),
    "its shape": ("X = torch.zeros(2, 3)", "X = torch.zeros(3, 2)"),
    "bfloat16": ("X = torch.ones((), dtype=torch.bfloat16)",
                 "X = torch.zeros((), dtype=torch.bfloat16)"),
    "a sparse tensor": ("X = torch.eye(2).to_sparse()", "X = 2 * torch.eye(2).to_sparse()"),
    "an array": ("X = np.arange(3)", "X = np.arange(3)[::-1]"),
    "an array of objects": ("X = np.array([1, 'a'], object)", "X = np.array([1, 'b'], object)"),
    "a numpy scalar": ("X = np.float32(0.5)", "X = np.float32(0.25)"),
    "tensors in a dict": ("X = {'a': torch.ones(1)}", "X = {'a': torch.zeros(1)}"),
    "a set": ("X = {torch.float32}", "X = {torch.float64}"),
    "a namespace": ("X = SimpleNamespace(power=2)", "X = SimpleNamespace(power=3)"),
    "a dataclass": ("X = Point(torch.ones(1))", "X = Point(torch.zeros(1))"),
    "a dataclass with slots": ("X = Slots(1)", "X = Slots(2)"),
    "a method of its class": ("X = Point(1)", "X = Point(1)\nPoint.by = lambda self: 4"),
    "a callable object": ("X = Caller(1)", "X = Caller(2)"),
    "a method": ("X = Caller(1).by", "X = Caller(2).by"),
    "a partial": ("X = partial(size, 2)", "X = partial(size, 3)"),
    "a partial's function": ("X = partial(size, 2)", "X = partial(other, 2)"),
    "a network": ("X = torch.nn.BatchNorm1d(1, affine=False)",
                  "X = torch.nn.BatchNorm1d(1, affine=False); X.running_mean += 1"),
    "a dtype": ("X = torch.float32", "X = torch.float64"),
    "an enum": ("X = Kind.ONE", "X = Kind.TWO"),
    "a pattern": ("X = re.compile('a')", "X = re.compile('b')"),
    "functions in a list": ("X = [size]", "X = [other]"),
    "a path": ("X = Path('a')", "X = Path('b')"),
    "a bound builtin": ("X = {'a': torch.ones(1)}.get", "X = {'a': torch.zeros(1)}.get"),
    "a named tuple's methods": ("X = Pair(1, 2)", "X = Pair(1, 2)\nPair.by = lambda self: 4"),
}  # fmt: skip
NAMES = """
import re
from collections import namedtuple
from dataclasses import dataclass
from enum import Enum
from functools import cached_property, partial, wraps
from pathlib import Path
from types import SimpleNamespace
import numpy as np
import torch

def size(power, x): return x ** power
def other(power, x): return x * power

@dataclass
class Point:
    x: object
    def by(self): return self.x

@dataclass(slots=True)
class Slots:
    x: object

class Caller:
    def __init__(self, power): self.power = power
    def __call__(self, x): return x ** self.power
    def by(self, x): return x * self.power
    @cached_property
    def double(self): return 2 * self.power

class Kind(Enum):
    ONE = 1
    TWO = 2

class Pair(namedtuple('Pair', 'a b')):
    pass
"""
TERM = "\ndef gap(context): return X\n"


@pytest.mark.parametrize("name", VALUES)
def test_a_value_that_is_named_counts_by_what_it_holds(name, capsys):
    """None of these moved the key: a run with another tensor found the numbers of the old one."""
    one, another = (f"{NAMES}{text}{TERM}" for text in VALUES[name])
    assert digest(one) == digest(one)
    assert digest(one) != digest(another)
    assert capsys.readouterr().err == ""


SPOKEN = """
import functools
import torch
FACTOR = 3

class Base:
    def base(self): return 1

class Caller(Base):
    factor = FACTOR
    table = torch.ones(1)
    def __call__(self, x): return self.fixed(x) * self.size
    @staticmethod
    def fixed(x): return x + SHIFT
    @property
    def size(self): return SCALE

def twice(function):
    @functools.wraps(function)
    def inner(*args): return TIMES * function(*args)
    return inner

SHIFT, SCALE, TIMES = 1, 2, 2
CALL = Caller()
DEFAULT = torch.ones(2)

@twice
def helper(x): return x

def make(power):
    def by(x): return x ** power
    return by
FIRST, SECOND = make(2), make(3)

def gap(context, *, table=DEFAULT):
    return CALL(helper(context)) + FIRST(1) + SECOND(1)
"""


@pytest.mark.parametrize(
    "edit",
    [
        ("FACTOR = 3", "FACTOR = 4"), ("return 1\n", "return 2\n"),
        ("table = torch.ones(1)", "table = torch.zeros(1)"),
        ("SHIFT, SCALE, TIMES = 1", "SHIFT, SCALE, TIMES = 5"), ("= 1, 2, 2", "= 1, 3, 2"),
        ("= 1, 2, 2", "= 1, 2, 3"), ("return TIMES *", "return -TIMES *"),
        ("* self.size", "/ self.size"), ("torch.ones(2)", "torch.zeros(2)"),
        ("make(2), make(3)", "make(2), make(4)"),
    ],
)  # fmt: skip
def test_the_body_of_a_class_decorators_defaults_and_two_functions_of_one_maker(edit):
    assert SPOKEN.count(edit[0]) == 1
    assert digest(SPOKEN) == digest(SPOKEN) != digest(SPOKEN.replace(*edit))


def test_what_is_computed_from_the_rest_when_it_is_asked_for_does_not_count():
    text = f"{NAMES}X = Caller(2){TERM}"
    assert digest(text.replace("X = Caller(2)", "X = Caller(2); X.double")) == digest(text)


def test_values_that_hold_themselves_and_many_values_come_to_an_end(capsys):
    text = f"{NAMES}X = [torch.ones(1)]; X.append(X); Y = []; Y.append(Y); X.append(Y){TERM}"
    assert digest(text) == digest(text) != digest(text.replace("ones", "zeros"))
    shared = f"{NAMES}X = [object()]\nfor _ in range(60): X = [X, X]{TERM}"
    assert digest(shared) == digest(shared)
    assert capsys.readouterr().err == ""
    many = f"{NAMES}X = [[object()] for _ in range(60_000)]{TERM}"
    deep = f"{NAMES}X = [object()]\nfor _ in range(3000): X = [X]{TERM}"
    assert digest(many) == digest(many) == digest(deep)
    told = capsys.readouterr().err.splitlines()
    assert [line.split(", which the term gap names, ")[1] for line in told] == [
        "holds too much to be read: runs are not kept apart by what it is",
        "is nested too deep to be read: runs are not kept apart by what it is",
    ]


def test_what_cannot_be_read_is_said_once_and_does_not_count(capsys):
    texts = [
        f"{NAMES}import threading, random\nX = {value}{TERM}"
        for value in ("threading.Lock()", "iter([]).__next__ and (i for i in ())",
                      "torch.Generator().manual_seed(3)", "random.Random(3)",
                      "torch.ones(1, device='meta')")
    ]  # fmt: skip
    assert len({digest(text) for text in texts}) == 1
    told = capsys.readouterr().err.splitlines()
    assert len(told) == 4 and all(line.startswith("sparcl: X, which the term gap") for line in told)
    assert "is a lock, which cannot be read: runs are not kept apart" in told[0]
    assert [digest(text) for text in texts] and capsys.readouterr().err == ""


WEIGHTS = {"LAYER": "torch.nn.Linear(2, 2)", "LEAF": "[torch.ones(2, requires_grad=True)]"}


@pytest.mark.parametrize("name", WEIGHTS)
def test_weights_that_nobody_trains_are_said_once(name, capsys):
    """A projection of the term's own stayed as it was drawn, and the run ended as others do."""
    text = f"{NAMES}{name} = {WEIGHTS[name]}\ndef gap(context): return {name}\n"
    assert digest(text)
    said = capsys.readouterr().err
    assert said.startswith(f"sparcl: {name}, which the term gap names, has weights, and none of")
    assert digest(text) and capsys.readouterr().err == ""


HELPER = "from sub_beside import inner\nPOWER = 2\ndef size(x): return inner(x) ** POWER\n"
INNER = "def inner(x): return x\n"
USES = {
    "its module": "import helper_beside\ndef gap(context): return helper_beside.size(context)\n",
    "a function of it": "from helper_beside import size\ndef gap(context): return size(context)\n",
    "an instance": "from helper_beside import Box\nBOX = Box()\ndef gap(context): return BOX\n",
    "in the function": "def gap(context):\n    import helper_beside as h\n    return h.size(1)\n",
}


@pytest.mark.parametrize("use", USES)
def test_a_module_beside_the_terms_own_counts_and_what_that_one_names(use, tmp_path, monkeypatch):
    """A helper that was edited left the key as it was."""

    def of(helper: str = HELPER, inner: str = INNER, folder: str = "here") -> str:
        """As a process has it that was not there before."""
        helper += "class Box: pass\n"
        texts = {"own_beside": USES[use], "helper_beside": helper, "sub_beside": inner}
        (tmp_path / folder).mkdir(exist_ok=True)
        for name, text in texts.items():
            (tmp_path / folder / f"{name}.py").write_text(text, "utf-8")
            monkeypatch.delitem(sys.modules, name, raising=False)
        with monkeypatch.context() as patched:
            patched.setattr(sys, "dont_write_bytecode", True)
            patched.syspath_prepend(str(tmp_path / folder))
            return function_digest(importlib.import_module("own_beside").gap)

    base = of()
    assert of() == base == of(f"# a comment\n{HELPER}") == of(folder="there")
    assert of(HELPER.replace("POWER = 2", "POWER = 3")) != base
    assert of(inner="def inner(x): return 2 * x\n") != base
