"""A digest of one function that stands outside the library: a loss term of the user's."""

import ast
import dis
import inspect
import textwrap
from collections.abc import Callable, Iterator
from types import CodeType, FunctionType
from typing import Any

from sparcl_lib.digests.statements import text_digest, tree_digest


def function_digest(function: Callable[..., Any]) -> str:
    """Digest of what a function says, and of what it names: functions, classes and plain values
    of the module that it stands in, or around it. Other modules are trusted.

    As `statements_digest`; where there is no source (at an interpreter's prompt) from the code
    object, which another version of Python compiles otherwise.
    """
    found: dict[str, str] = {}
    _visit(function.__name__, function, function.__module__, found)
    return text_digest(repr(sorted(found.items())))


def _visit(name: str, value: object, module: str, found: dict[str, str]) -> None:
    """Note a value and all that it names, each once."""
    if name in found:
        return
    text = _plain_text(value)
    if text is not None:
        found[name] = text
    elif callable(value) and getattr(value, "__module__", None) == module:
        whole = inspect.unwrap(value)
        found[name] = _source_digest(whole)
        for function in _functions(whole):
            for inner, other in _named(function):
                _visit(inner, other, module, found)


def _plain_text(value: object) -> str | None:
    """A value that is the same text in every process, as that text."""
    if value is None or isinstance(value, (bool, int, float, complex, str, bytes)):
        return ascii(value)
    if isinstance(value, dict):
        texts = [_plain_text(item) for pair in value.items() for item in pair]
    elif isinstance(value, (list, tuple, set, frozenset)):
        texts = [_plain_text(item) for item in value]
    else:
        return None
    known = [text for text in texts if text is not None]
    if len(known) < len(texts):
        return None
    ordered = sorted(known) if isinstance(value, (set, frozenset)) else known
    return f"{type(value).__name__} {ordered}"


def _source_digest(value: Callable[..., Any]) -> str:
    """What a function or class says, and the values of a function's defaults."""
    functions = _functions(value)
    defaults = [_plain_text((f.__defaults__, f.__kwdefaults__)) or "" for f in functions]
    try:
        said = tree_digest(ast.parse(textwrap.dedent(inspect.getsource(value))))
    except (OSError, TypeError, SyntaxError):
        said = " ".join(word for f in functions for word in _words(f.__code__))
    return text_digest(" ".join([said, *defaults]))


def _functions(value: object) -> list[FunctionType]:
    """A function, or the methods of a class."""
    functions = vars(value).values() if isinstance(value, type) else [value]
    return [function for function in functions if isinstance(function, FunctionType)]


def _named(function: FunctionType) -> Iterator[tuple[str, object]]:
    """The names that a function takes from around it and from its module, with what they mean."""
    for name, cell in zip(function.__code__.co_freevars, function.__closure__ or (), strict=False):
        try:
            yield name, cell.cell_contents
        except ValueError:  # not defined yet
            continue
    for code in _nested(function.__code__):
        for instruction in dis.get_instructions(code):
            if instruction.opname == "LOAD_GLOBAL" and instruction.argval in function.__globals__:
                yield instruction.argval, function.__globals__[instruction.argval]


def _nested(code: CodeType) -> Iterator[CodeType]:
    """A code object and those of the functions inside it."""
    yield code
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from _nested(constant)


def _words(code: CodeType) -> Iterator[str]:
    for one in _nested(code):
        constants = [_plain_text(constant) for constant in one.co_consts]
        yield one.co_code.hex()
        yield ascii((one.co_names, one.co_varnames, one.co_freevars, constants))
