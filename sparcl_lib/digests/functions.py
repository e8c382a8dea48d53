"""A digest of one function that stands outside the library: a loss term of the user's."""

import ast
import copyreg
import dis
import functools
import hashlib
import importlib
import importlib.util
import inspect
import random
import sys
import sysconfig
import textwrap
from collections.abc import Callable, Iterable, Iterator
from enum import Enum
from pathlib import Path, PurePath
from types import BuiltinMethodType, CodeType, FunctionType, MethodType, ModuleType
from typing import Any

import numpy as np

from sparcl_lib.digests.edits import refuse_edited_beside
from sparcl_lib.digests.statements import statements_digest, text_digest, tree_digest
from sparcl_lib.errors import UserError

_MOST_VALUES = 100_000
_MOST_BYTES = 2**30
"""How much is read of the values that a function names: enough for a network of its own."""


def function_digest(function: Callable[..., Any], title: str | None = None) -> str:
    """Digest of what a function or class says, and of what it names in the module that it stands
    in, or around it: functions and classes by their source; tensors, arrays, instances and other
    values by what they hold; modules beside its own by their statements. Other modules are trusted.

    As `statements_digest`; where there is no source (at an interpreter's prompt) from the code
    object, which another version of Python compiles otherwise. A value that cannot be read, or
    holds too much, does not count; a line on stderr says so, once in a process. So does one of
    weights that look as if they were to learn. title: what it is called there.

    Raises UserError where a module beside its own was edited after this process had read it.
    """
    title = title or f"term {function.__name__}"
    reading = _Reading(function)
    reading.note(function.__name__, function)
    for name, why in reading.unread.items():
        said = f"{name}, which the {title} names, {why}"
        _say(f"{said}: runs are not kept apart by what it is")
    for name in reading.untrained:
        _say(
            f"{name}, which the {title} names, has weights, and none of them "
            f"learns: a run trains its network alone; with requires_grad_(False) this line goes"
        )
    return text_digest(repr(sorted(reading.found.items())))


@functools.cache
def _say(what: str) -> None:
    print(f"sparcl: {what}", file=sys.stderr)


class _Unread(Exception):
    """Why a value does not count."""


class _Reading:
    """Name -> text of a function and of all that it names, each once."""

    def __init__(self, function: Callable[..., Any]) -> None:
        self.found: dict[str, str] = {}
        self.unread: dict[str, str] = {}
        self.untrained: dict[str, None] = {}
        """Names of values with weights of their own, which no optimiser has."""
        self._content_of = ""
        """The name whose value is read."""
        self._module = function.__module__
        file = getattr(sys.modules.get(function.__module__), "__file__", None)
        self._file = Path(file).resolve() if file else None
        self._folder = self._file.parent if self._file else Path.cwd()  # where a notebook runs
        self._noted: dict[str, list[object]] = {}
        self._within: list[object] = []
        self._texts: dict[int, tuple[object, str]] = {}
        """Of a value by its id; the value stays with it, so that no other has this id."""
        self._values, self._bytes = _MOST_VALUES, _MOST_BYTES

    def note(self, name: str, value: object) -> None:
        """A value, and all that it names."""
        noted = self._noted.setdefault(name, [])
        if any(value is other for other in noted):
            return
        noted.append(value)
        text = _plain_text(value)
        if text is not None:
            self._keep(name, text)
            self._note_classes(value)
        elif self._is_own(value):
            self._note_source(name, value)
        elif isinstance(value, ModuleType) or _is_named(value):
            self._note_module(_module_of(value))
        else:
            self._note_content(name, value)

    def _keep(self, name: str, text: str) -> None:
        """Of several values of one name, such as those around two functions, each counts."""
        free, count = name, 1
        while self.found.get(free, text) != text:
            count += 1
            free = f"{name} {count}"
        self.found[free] = text

    def _is_own(self, value: object) -> bool:
        """Whether this is a function or class of the same module."""
        return _is_named(value) and getattr(value, "__module__", None) == self._module

    def _note_source(self, name: str, value: Any) -> None:
        """A function, under what its decorators made of it, or a class."""
        whole = inspect.unwrap(value)
        self._keep(name, _source_digest(whole))
        self._note_inside(name, whole)
        while value is not whole:
            if (
                isinstance(value, FunctionType)
                and value.__globals__.get("__name__") == self._module
            ):
                self._keep(name, _source_digest(value))
                self._note_inside(name, value)
            value = value.__wrapped__

    def _note_inside(self, name: str, value: object) -> None:
        for function in [*_functions(value), *_wrapped_functions(value)]:
            for inner, other in _named(function):
                self.note(inner, other)
            for module in _imported(function):
                self._note_import(module)
            defaults = function.__defaults__, function.__kwdefaults__
            if _plain_text(defaults) is None:
                self._note_content(f"{name} defaults", defaults)
        if isinstance(value, type):
            for base in (*value.__bases__, type(value)):
                self.note(base.__name__, base)
            for attribute, other in _attributes(value):
                self.note(f"{name}.{attribute}", other)

    def _note_classes(self, plain: object) -> None:
        """Classes of the same module that a plain value is of: a named tuple may have methods."""
        if type(plain).__module__ == self._module:
            self.note(type(plain).__name__, type(plain))
        if isinstance(plain, (dict, list, tuple, set, frozenset)):
            for item in plain:
                self._note_classes(item)
        if isinstance(plain, dict):
            for item in plain.values():
                self._note_classes(item)

    def _note_content(self, name: str, value: object) -> None:
        depth, outer, self._content_of = len(self._within), self._content_of, name
        try:
            text = self._text(value)
        except _Unread as reason:
            self.unread[name] = str(reason)
        except RecursionError:
            self.unread[name] = "is nested too deep to be read"
        else:
            self._keep(name, text)
        self._content_of = outer
        del self._within[depth:]

    # Modules beside the function's own
    def _note_module(self, module: ModuleType | None) -> None:
        """The statements of a module in its folder, and of those there that this one names."""
        place = self._place(getattr(module, "__file__", None))
        if module is None or place is None or f"module {place}" in self.found:
            return
        try:
            said = statements_digest((self._folder / place).read_bytes())
        except (OSError, SyntaxError, ValueError):
            self.unread[module.__name__] = "is a module that cannot be read"
            return
        refuse_edited_beside(self._folder / place, said, self._file)
        self.found[f"module {place}"] = said
        for value in list(vars(module).values()):
            self._note_module(_module_of(value))

    def _note_import(self, name: str) -> None:
        """A module in its folder that is imported as the function runs; it may not be yet."""
        try:
            spec = importlib.util.find_spec(name.partition(".")[0])  # its parents it would import
            if spec is not None and self._place(spec.origin) is not None:
                self._note_module(importlib.import_module(name))
        except UserError:
            raise
        except Exception:  # whatever its code may raise: the function will raise it too
            return

    def _place(self, file: str | None) -> str | None:
        """Where in the folder a module's file is; None for what is installed, and elsewhere."""
        if file is None or not file.endswith(".py"):
            return None
        path = Path(file).resolve()
        if path == self._file or not path.is_relative_to(self._folder) or _is_installed(path):
            return None
        return path.relative_to(self._folder).as_posix()

    # Values
    def _text(self, value: Any) -> str:
        """What a value holds, the same in every process. Raises _Unread."""
        text = _plain_text(value)
        if text is not None:
            self._note_classes(value)
            return text
        if id(value) in self._texts:
            return self._texts[id(value)][1]
        for depth, outer in enumerate(reversed(self._within)):
            if outer is value:
                return f"within {depth}"
        self._spend(values=1)
        self._within.append(value)
        text = self._content(value)
        self._within.pop()
        self._texts[id(value)] = value, text
        return text

    def _spend(self, values: int = 0, size: int = 0) -> None:
        self._values -= values
        self._bytes -= size
        if self._values < 0 or self._bytes < 0:
            raise _Unread("holds too much to be read")

    def _joined(self, kind: str, values: Iterable[object]) -> str:
        return text_digest(f"{kind} {[self._text(value) for value in values]}")

    def _content(self, value: Any) -> str:
        import torch  # here because it is slow to import, and not needed to digest the library

        if isinstance(value, torch.Tensor):
            return self._tensor(value)
        if isinstance(value, np.ndarray) and value.dtype.hasobject:
            return self._joined(f"array {value.shape}", value.ravel().tolist())
        if isinstance(value, (np.ndarray, np.generic)):
            return self._bytes_text(f"{value.dtype} {value.shape}", np.asarray(value))
        if isinstance(value, ModuleType) or _is_named(value):
            return self._name(value)
        if isinstance(value, (functools.partial, MethodType, BuiltinMethodType)):
            return self._joined("bound", _bound(value))
        if isinstance(value, Enum):
            return self._joined("member", [type(value), value.name, value.value])
        if isinstance(value, PurePath):
            inside = value.is_absolute() and value.is_relative_to(self._folder)
            return f"path {value.relative_to(self._folder) if inside else value}"
        if type(value) is dict:
            return self._joined("dict", (item for pair in value.items() for item in pair))
        if type(value) in (list, tuple):
            return self._joined(type(value).__name__, value)
        if type(value) in (set, frozenset):
            texts = sorted(self._text(item) for item in value)
            return text_digest(f"{type(value).__name__} {texts}")
        if isinstance(value, (random.Random, np.random.Generator, torch.Generator)):
            raise _Unread("draws random numbers, and has others each time")
        return self._instance(value)

    def _tensor(self, value: Any) -> str:
        import torch

        if value.requires_grad and value.is_leaf:
            self.untrained[self._content_of] = None
        try:
            held = value.detach().to_dense() if value.layout != torch.strided else value.detach()
            flat = held.cpu().resolve_conj().resolve_neg().contiguous().reshape(-1)
            bytes_ = flat.view(torch.uint8).numpy()
        except (RuntimeError, NotImplementedError, TypeError) as error:
            raise _Unread(f"is a tensor that cannot be read ({value.device})") from error
        return self._bytes_text(f"{value.dtype} {tuple(value.shape)}", bytes_)

    def _bytes_text(self, kind: str, array: np.ndarray[Any, Any]) -> str:
        self._spend(size=array.nbytes)
        return f"{kind} {hashlib.sha256(np.ascontiguousarray(array).tobytes()).hexdigest()}"

    def _name(self, value: Any) -> str:
        """A module, function or class inside a value."""
        if self._is_own(value):
            self.note(value.__qualname__, value)
            return f"own {value.__qualname__}"
        module = _module_of(value)
        self._note_module(module)
        place = self._place(getattr(module, "__file__", None))
        where = place or getattr(module, "__name__", None)
        return f"{where} {getattr(value, '__qualname__', getattr(value, '__name__', ''))}"

    def _instance(self, value: Any) -> str:
        """What pickle would write down: class, attributes, items."""
        try:
            reduce = copyreg.dispatch_table.get(type(value))
            made: Any = reduce(value) if reduce else value.__reduce_ex__(4)
        except Exception as error:  # whatever its class may raise
            kind = type(value).__qualname__
            raise _Unread(f"is a {kind}, which cannot be read") from error
        if isinstance(made, str):
            return f"{type(value).__qualname__} {made}"
        parts: list[Any] = list(made[:5])  # class or function, arguments, state, items, pairs
        if len(parts) > 2 and isinstance(parts[2], dict):
            parts[2] = {k: v for k, v in parts[2].items() if not _is_derived(type(value), k)}
        parts[3:] = [list(items or ()) for items in parts[3:]]
        return self._joined("instance", parts)


def _is_installed(path: Path) -> bool:
    installed = {"site-packages", "dist-packages"} & set(path.parts)
    standard = Path(sysconfig.get_path("stdlib")).resolve()
    library = Path(__file__).resolve().parents[1]
    return bool(installed) or path.is_relative_to(standard) or path.is_relative_to(library)


def _is_named(value: object) -> bool:
    """Whether a value is known by its name: a function or a class, not one of their instances."""
    if isinstance(value, (FunctionType, type)):
        return True
    if isinstance(value, BuiltinMethodType):
        return value.__self__ is None or isinstance(value.__self__, (ModuleType, type))
    if isinstance(value, (functools.partial, MethodType)) or not callable(value):
        return False
    called = inspect.getattr_static(type(value), "__call__", None)
    return hasattr(value, "__name__") and not isinstance(called, FunctionType)


def _module_of(value: object) -> ModuleType | None:
    """The module that a value is, or that a function or class stands in."""
    if isinstance(value, ModuleType):
        return value
    name = getattr(value, "__module__", None)
    return sys.modules.get(name) if isinstance(name, str) else None


def _bound(value: Any) -> list[object]:
    """What a method, or a function with arguments, consists of."""
    if isinstance(value, functools.partial):
        return [value.func, value.args, value.keywords]
    if isinstance(value, MethodType):
        return [value.__func__, value.__self__]
    return [value.__name__, value.__self__]


def _is_derived(cls: type, name: object) -> bool:
    """Whether an attribute is computed from others when it is first asked for."""
    found = inspect.getattr_static(cls, name, None) if isinstance(name, str) else None
    return isinstance(found, functools.cached_property)


def _plain_text(value: object) -> str | None:
    """A value that is the same text in every process, as that text."""
    try:
        return _plain(value)
    except RecursionError:  # it holds itself
        return None


def _plain(value: object) -> str | None:
    if value is None or isinstance(value, (bool, int, float, complex, str, bytes)):
        return ascii(value)
    items: Iterable[object]
    if isinstance(value, dict):
        items = (item for pair in value.items() for item in pair)
    elif isinstance(value, (list, tuple, set, frozenset)):
        items = value
    else:
        return None
    texts = []
    for item in items:
        text = _plain(item)
        if text is None:
            return None
        texts.append(text)
    ordered = sorted(texts) if isinstance(value, (set, frozenset)) else texts
    return f"{type(value).__name__} {ordered}"


def _source_digest(value: Callable[..., Any]) -> str:
    """What a function or class says, and the values of a function's defaults."""
    functions = _functions(value)
    defaults = [_plain_text((f.__defaults__, f.__kwdefaults__)) or "" for f in functions]
    try:
        source = inspect.getsource(value.__code__ if isinstance(value, FunctionType) else value)
        said = tree_digest(ast.parse(textwrap.dedent(source)))
    except (OSError, TypeError, SyntaxError):
        said = " ".join(word for f in functions for word in _words(f.__code__))
    return text_digest(" ".join([said, *defaults]))


def _functions(value: object) -> list[FunctionType]:
    """A function, or the methods of a class."""
    functions = vars(value).values() if isinstance(value, type) else [value]
    return [function for function in functions if isinstance(function, FunctionType)]


def _wrapped_functions(value: object) -> list[FunctionType]:
    """Static methods, class methods and properties of a class."""
    found: list[object] = []
    for attribute in vars(value).values() if isinstance(value, type) else ():
        if isinstance(attribute, (staticmethod, classmethod)):
            found.append(attribute.__func__)
        elif isinstance(attribute, property):
            found += [attribute.fget, attribute.fset, attribute.fdel]
        elif isinstance(attribute, functools.cached_property):
            found.append(attribute.func)
    return [function for function in found if isinstance(function, FunctionType)]


_METHODS = (FunctionType, staticmethod, classmethod, property, functools.cached_property)


def _attributes(cls: type) -> list[tuple[str, object]]:
    """Values that the body of a class gives names to; an Enum's members by their values."""
    if issubclass(cls, Enum):
        return [(member.name, member.value) for member in cls]
    return [
        (name, value)
        for name, value in vars(cls).items()
        if not name.startswith(("__", "_abc_"))
        and not isinstance(value, _METHODS)
        and not inspect.isdatadescriptor(value)
    ]


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


def _imported(function: FunctionType) -> Iterator[str]:
    """The modules that a function imports as it runs."""
    for code in _nested(function.__code__):
        for instruction in dis.get_instructions(code):
            if instruction.opname == "IMPORT_NAME" and instruction.argval:
                yield instruction.argval


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
