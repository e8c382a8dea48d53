"""The digest of a term of the user's follows what it says and what it names."""

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
