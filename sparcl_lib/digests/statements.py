"""Digests of text and of Python statements, however they are commented or laid out."""

import ast
import hashlib
from collections.abc import Iterator

DIGITS = 12
"""Hexadecimal digits of a digest: 48 bits of SHA-256."""
# What says nothing about what is computed, or is not there in every version of Python.
_UNSAID = frozenset({"annotation", "ctx", "kind", "returns", "type_comment", "type_params"})


def text_digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:DIGITS]


def statements_digest(text: str | bytes) -> str:
    """Digest of the statements of a module, the same in every version of Python.

    Left out: comments, layout, docstrings, `pass`, and annotations; those in the body of a class
    stay, for they make the fields of a dataclass.
    """
    return tree_digest(ast.parse(text))


def tree_digest(tree: ast.AST) -> str:
    """`statements_digest` of what is parsed already."""
    return text_digest(" ".join(_words(tree, in_class=False)))


def _words(node: object, in_class: bool) -> Iterator[str]:
    """A tree as a line of words that has one reading only."""
    if isinstance(node, list):
        yield "["
        for item in node:
            yield from _words(item, in_class)
        yield "]"
    elif isinstance(node, ast.AST):
        yield f"{type(node).__name__}("
        if isinstance(node, ast.ClassDef):
            in_class = True
        elif isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            in_class = False
        for name, value in _fields(node, in_class):
            yield f"{name}="
            yield from _words(value, in_class)
        yield ")"
    else:
        yield ascii(node)  # repr shows letters that a version's Unicode knows


def _fields(node: ast.AST, in_class: bool) -> list[tuple[str, object]]:
    """What a node holds, by name, without what is empty or left out."""
    unsaid = _UNSAID - {"annotation"} if in_class else _UNSAID
    fields = {name: value for name, value in ast.iter_fields(node) if name not in unsaid}
    for name in ("body", "orelse", "finalbody"):
        if isinstance(fields.get(name), list):
            fields[name] = _statements(fields[name], in_class)
    if isinstance(node, ast.JoinedStr):
        fields["values"] = _joined(node.values)
    return [(n, fields[n]) for n in sorted(fields) if fields[n] is not None and fields[n] != []]


def _statements(body: list[ast.stmt], in_class: bool) -> list[ast.AST]:
    """Those that do something, `x: int = 3` as `x = 3`."""
    said: list[ast.AST] = []
    for node in body:
        if isinstance(node, ast.AnnAssign) and not in_class:
            if node.value is not None:
                said.append(ast.Assign(targets=[node.target], value=node.value))
        elif not isinstance(node, ast.Pass) and not _is_text(node):
            said.append(node)
    return said


def _is_text(node: ast.stmt) -> bool:
    """A docstring, wherever it stands."""
    return isinstance(node, ast.Expr) and _text(node.value) is not None


def _text(node: ast.expr) -> str | None:
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return node.value
    return None


def _joined(values: list[ast.expr]) -> list[ast.expr]:
    """The parts of an f-string: neighbouring texts as one, which versions cut differently."""
    joined: list[ast.expr] = []
    for value in values:
        text = _text(value)
        before = _text(joined[-1]) if joined else None
        if text is None or before is None:
            if text != "":
                joined.append(value)
        else:
            joined[-1] = ast.Constant(before + text)
    return joined
