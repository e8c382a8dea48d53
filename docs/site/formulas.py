"""Formulas as MathML, made at build time: a page needs no script and no network to show them.

Compared with MathJax, by pictures: with a font that knows formulas the two look alike; without one
(`site.css` names STIX Two Math, which comes with ziamath) MathML does not. MathJax from a package
is its version 2, 12 MB, and formulas jump while they load.
"""

import re
from html import escape, unescape
from typing import Any

from docutils import nodes
from latex2mathml.converter import convert
from sphinx.application import Sphinx

# Browsers have no mathvariant but normal: these letters are characters of their own.
_ALPHABETS = {"script": 0x1D49C, "double-struck": 0x1D538, "monospace": 0x1D670}
_LETTER_LIKE = {
    "script": dict(zip("BEFHILMR", "ℬℰℱℋℐℒℳℛ")),
    "double-struck": dict(zip("CHNPQRZ", "ℂℍℕℙℚℝℤ")),
}
_VARIANT = re.compile(r'<(m[in]) mathvariant="(script|double-struck|monospace)">(\w)</\1>')
_NORM = "<mo>&#x02016;</mo>"
_FUNCTION = re.compile(r"(?<=>)<mi>(log|exp|max|min)</mi>")
_THIN = '<mspace width="0.17em" />'


def mathml(latex: str, display: str = "inline") -> str:
    """A formula as a <math> element, with its LaTeX for those to whom it is read aloud."""
    markup: str = convert(latex, display=display)
    markup = _VARIANT.sub(lambda m: f"<mi>{_letter(m[2], m[3])}</mi>", markup)
    markup = markup.replace(_NORM, '<mo stretchy="false" lspace="0" rspace="0">&#x02016;</mo>')
    markup = _FUNCTION.sub(rf"{_THIN}<mi>\1</mi>{_THIN}", markup)
    return markup.replace("<math ", f'<math aria-label="{escape(latex, quote=True)}" ', 1)


def _letter(alphabet: str, letter: str) -> str:
    if letter in (known := _LETTER_LIKE.get(alphabet, {})):
        return known[letter]
    if letter.isdigit():
        return chr(0x1D7F6 + int(letter)) if alphabet == "monospace" else letter
    place = ord(letter) - ord("A") if letter.isupper() else ord(letter) - ord("a") + 26
    return chr(_ALPHABETS[alphabet] + place)


def in_text(markup: str) -> str:
    """HTML with its $formulas$ as MathML."""
    return re.sub(r"\$([^$\n]+)\$", lambda match: mathml(unescape(match[1])), markup)


def _visit_inline(translator: Any, node: nodes.math) -> None:
    translator.body.append(mathml(node.astext()))
    raise nodes.SkipNode


def _visit_block(translator: Any, node: nodes.math_block) -> None:
    formula = mathml(node.astext(), "block")
    translator.body.append(f'<div class="formula">{formula}</div>\n')
    raise nodes.SkipNode


def setup(app: Sphinx) -> dict[str, bool]:
    app.add_html_math_renderer("mathml", (_visit_inline, None), (_visit_block, None))
    return {"parallel_read_safe": True, "parallel_write_safe": True}
