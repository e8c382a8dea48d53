"""YAML as settings need it: of bounded size and depth, its keys text, each there once.

A short YAML text can stand for very much, by aliases of aliases, or for something endless, by an
alias within what it names. What it stands for is counted while it is read, before anything is made
of it.
"""

from pathlib import Path
from typing import Any

import yaml

from sparcl_lib.errors import UserError, shown

LARGEST = 256 * 1024
"""Characters of a text: the description of 254 classes takes a twentieth of it."""
_DEEPEST = 40
_MOST_NODES = 100_000
_TEXT, _MERGE = "tag:yaml.org,2002:str", "tag:yaml.org,2002:merge"


class YamlProblem(ValueError):
    """What is wrong with a YAML text, in one line."""


def parse_yaml(text: str) -> Any:
    """What a YAML text says. Raises YamlProblem."""
    if len(text) > LARGEST:
        raise YamlProblem(f"it is longer than {LARGEST // 1024} kB")
    try:
        return yaml.load(text, _BoundedLoader)
    except YamlProblem:
        raise
    except (yaml.YAMLError, ValueError, OverflowError, RecursionError) as error:
        # Not only YAML's own: 2020-99-99 is no date, and some numbers have too many digits.
        raise YamlProblem(" ".join(_in_one_line(error).split())) from None


def load_yaml(path: str | Path, name: str) -> Any:
    """What a YAML file, called `name` in messages, says. Raises UserError in one line."""
    try:
        with Path(path).open(encoding="utf-8") as file:
            return parse_yaml(file.read(LARGEST + 1))
    except OSError as error:
        raise UserError(
            f"cannot read {name}: {error.strerror or error}; correct the path"
        ) from error
    except UnicodeDecodeError:
        raise UserError(f"{name} is not text in UTF-8; save it as such") from None
    except YamlProblem as problem:
        raise UserError(f"cannot read {name} as YAML: {problem}; correct it there") from problem


def _in_one_line(error: Exception) -> str:
    """What PyYAML finds wrong, with the place in the text."""
    if isinstance(error, yaml.MarkedYAMLError) and error.problem_mark is not None:
        mark = error.problem_mark
        said = f"{error.context}, {error.problem}" if error.context else error.problem
        return f"line {mark.line + 1}, column {mark.column + 1}: {said}"
    return " ".join(str(error).replace(' in "<unicode string>",', " at").split())


class _BoundedLoader(yaml.SafeLoader):
    def __init__(self, text: str) -> None:
        super().__init__(text)
        self._depth = 0
        self._nodes = 0
        self._open: set[str] = set()
        self._nodes_of: dict[str, int] = {}

    def compose_node(self, parent: Any, index: Any) -> Any:
        event = self.peek_event()  # type: ignore[no-untyped-call]
        name, line = event.anchor, event.start_mark.line + 1
        is_alias = isinstance(event, yaml.AliasEvent)
        if is_alias and name in self._open:
            raise YamlProblem(f"line {line}: *{name} stands within what it names")
        before = self._nodes
        if is_alias:
            self._nodes += self._nodes_of.get(name, 0)
        elif name is not None:
            self._open.add(name)
        self._nodes += 1
        self._depth += 1
        if self._depth > _DEEPEST:
            raise YamlProblem(f"line {line}: it is nested in more than {_DEEPEST} levels")
        if self._nodes > _MOST_NODES:
            raise YamlProblem(f"line {line}: its aliases stand for more than {_MOST_NODES} values")
        node = super().compose_node(parent, index)
        self._depth -= 1
        if name is not None and not is_alias:
            self._open.discard(name)
            self._nodes_of[name] = self._nodes - before
        return node

    def compose_mapping_node(self, anchor: Any) -> Any:
        node = super().compose_mapping_node(anchor)
        found: set[str] = set()
        for key, _ in node.value:
            line = key.start_mark.line + 1
            if key.tag not in (_TEXT, _MERGE):
                said = shown(key.value) if isinstance(key, yaml.ScalarNode) else "of a mapping"
                raise YamlProblem(
                    f"line {line}: the key {said} is no name; write it in quotes, or the name first"
                )
            if key.value in found:
                raise YamlProblem(f"line {line}: the key {shown(key.value)} stands there twice")
            found.add(key.value)
        return node
