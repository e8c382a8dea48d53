"""Formulas as MathML, which browsers draw themselves: no script and no network is needed."""

import html
import re

from latex2mathml.converter import convert

from sparcl_lib.errors import UserError

_TAG = re.compile(r"(<[^>]*>)")
_FORMULA = re.compile(r"\$([^$]+)\$")
# \mathcal C; only \mathcal{C} is converted well.
_LETTER = re.compile(r"(\\math[a-z]+)\s+([A-Za-z])")
# Else a norm grows with what it holds, on the one side more than on the other.
_NORM, _EVEN = "<mo>&#x02016;</mo>", '<mo stretchy="false" lspace="0" rspace="0">&#x02016;</mo>'
_FUNCTION = re.compile(r"(?<=>)<mi>(log|exp|max|min)</mi>")
_THIN = '<mspace width="0.17em" />'


def formula(latex: str, block: bool = False) -> str:
    """A formula as MathML, with its LaTeX as the label that is read aloud.

    Raises UserError for what cannot be converted.
    """
    braced = _LETTER.sub(r"\1{\2}", latex.strip())
    try:
        mathml: str = convert(braced, display="block" if block else "inline")
    except Exception as error:  # the converter has many
        raise UserError(f"formula {latex!r} cannot be drawn: {type(error).__name__}") from error
    if unknown := re.search(r"\\\w+", mathml):
        raise UserError(f"formula {latex!r} cannot be drawn: {unknown[0]} is not known")
    mathml = _FUNCTION.sub(rf"{_THIN}<mi>\1</mi>{_THIN}", mathml.replace(_NORM, _EVEN))
    label = html.escape(latex.strip(), quote=True)
    return mathml.replace("<math ", f'<math aria-label="{label}" ', 1)


def with_formulas(page_html: str) -> str:
    """$...$ in the text of a piece of HTML, but for its styles."""
    parts = _TAG.split(page_html)
    inside = ""
    for place, part in enumerate(parts):
        if part.startswith("<"):
            inside = part
        elif not inside.startswith("<style"):
            parts[place] = _FORMULA.sub(lambda match: formula(html.unescape(match[1])), part)
    return "".join(parts)
