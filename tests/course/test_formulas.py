"""Formulas as MathML: drawn as they are meant, and named where they cannot be."""

import re

import pytest

from sparcl_lib.course.formulas import formula, with_formulas
from sparcl_lib.errors import UserError


def test_a_formula_that_cannot_be_drawn_is_named():
    for latex, reason in ((r"\hat", "cannot be drawn"), (r"\fract{1}{2}", r"\\fract is not known")):
        with pytest.raises(UserError, match=reason):
            formula(latex)


def test_letters_of_other_alphabets_are_characters():
    """Browsers know no variant of a letter but the upright one."""
    markup = formula(r"\mathcal L_{kd} \in \mathbb R")
    assert "ℒ" in _characters(markup) and "ℝ" in _characters(markup)
    assert not re.search(r'mathvariant="(?!normal)', markup)


def _characters(markup: str) -> str:
    return re.sub("&#x([0-9A-F]+);", lambda match: chr(int(match[1], 16)), markup)


def test_a_formula_has_its_latex_as_label_and_space_around_functions():
    markup = formula(r"t < \log \lVert x \rVert", block=True)
    assert r'aria-label="t &lt; \log \lVert x \rVert"' in markup and 'display="block"' in markup
    assert markup.count("<mspace") == 2 and markup.count('stretchy="false"') == 2


def test_formulas_in_a_page_are_found_but_not_in_its_styles():
    page = with_formulas("<style>$a$</style><b>if $a &lt; b$</b>, that is $5")
    assert page.startswith("<style>$a$</style><b>if <math ")
    assert page.endswith("</math></b>, that is $5")
