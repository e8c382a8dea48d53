"""Docstrings of the library as reStructuredText.

They are plain text: names in single backticks, formulas with stars and bars, indented code, and
sections as Google writes them (napoleon takes the colon in the text of a property for a type). What
reStructuredText would take for its own markup is escaped.
"""

import re

from sphinx.application import Sphinx

_CODE = re.compile(r"`+[^`]+`+")
_SECTION = re.compile(r"(Args|Raises|Returns|Yields):$")
_ENTRY = re.compile(r"    (\*{0,2}\w[\w, ]*): (.*)")
_ANEW = re.compile(r"(Source: |Raises |Returns |[a-z_]+(, [a-z_]+)*( and [a-z_]+)?( \(|: ))")
_TITLES = {"Args": "Arguments"}


def as_rst(lines: list[str]) -> list[str]:
    """The lines of a docstring in the markup of Sphinx."""
    result: list[str] = []
    example = section = code = False
    for number, line in enumerate(lines):
        before = lines[number - 1] if number else ""
        example = line.lstrip().startswith(">>>") or (example and bool(line.strip()))
        if line.strip() and not line.startswith(" "):
            section, code = bool(_SECTION.match(line)), False
        elif not before.strip() and _starts_code(line) and not section and not code:
            result += ["::", ""]
            code = True
        if example or code:
            result.append(line)
        elif match := _SECTION.match(line):
            result += ["", f"**{_TITLES.get(match[1], match[1])}**", ""]
        elif section:
            result.append(_entry(line))
        else:
            if _starts_anew(before, line):
                result.append("")
            result.append(_escaped(line))
    return result


def _starts_code(line: str) -> bool:
    return line.startswith("    ") and not line.lstrip().startswith(("- ", ">>>"))


def _entry(line: str) -> str:
    """A line of a section: an argument and what it is, or how that goes on."""
    match = _ENTRY.match(line)
    if match:
        return f"- ``{match[1]}``: {_escaped(match[2])}"
    return f"  {_escaped(line.strip())}".rstrip()


def _starts_anew(before: str, line: str) -> bool:
    """A list, arguments, the source and what is raised stand in a paragraph of their own."""
    if not before.strip():
        return False
    if line.lstrip().startswith("- "):
        return not before.lstrip().startswith("- ") and not before.startswith("  ")
    return before.endswith((".", ":")) and bool(_ANEW.match(line))


def _escaped(line: str) -> str:
    parts, start = [], 0
    for match in _CODE.finditer(line):
        parts.append(_plain(line[start : match.start()]))
        parts.append(f"``{match[0].strip('` ')}``")
        start = match.end()
    return "".join([*parts, _plain(line[start:])])


def _plain(text: str) -> str:
    """Stars, bars, and underscores that would end a reference."""
    return re.sub(r"([*|\\]|_(?!\w))", r"\\\1", text)


def _process(
    app: Sphinx, what: str, name: str, thing: object, options: object, lines: list[str]
) -> None:
    generated = bool(lines) and lines[0].startswith("Alias for field number")
    lines[:] = [] if generated else as_rst(lines)


def setup(app: Sphinx) -> dict[str, bool]:
    app.setup_extension("sphinx.ext.autodoc")
    app.connect("autodoc-process-docstring", _process)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
