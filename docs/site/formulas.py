"""Formulas of the site as MathML, made at build time.

Compared with MathJax, by pictures: with a font that knows formulas MathML looks as well; `site.css`
names STIX Two Math, which comes with ziamath. The MathJax that a package brings is its version 2,
12 MB without the fonts it asks for, and formulas jump while they load.
"""

from typing import Any

from docutils import nodes
from sphinx.application import Sphinx

from sparcl_lib.course.formulas import formula


def _visit_inline(translator: Any, node: nodes.math) -> None:
    translator.body.append(formula(node.astext()))
    raise nodes.SkipNode


def _visit_block(translator: Any, node: nodes.math_block) -> None:
    translator.body.append(f'<div class="formula">{formula(node.astext(), block=True)}</div>\n')
    raise nodes.SkipNode


def setup(app: Sphinx) -> dict[str, bool]:
    app.add_html_math_renderer("mathml", (_visit_inline, None), (_visit_block, None))
    return {"parallel_read_safe": True, "parallel_write_safe": True}
