"""Public names that are imported on first use."""

import subprocess
import sys

import pytest

from sparcl_lib.lazy import lazy_names


def test_a_name_comes_from_its_home_on_first_use():
    code = (
        "import sys; from sparcl_lib.lazy import lazy_names; "
        "find = lazy_names('here', {'Fraction': 'fractions'}); "
        "before = 'fractions' in sys.modules; "
        "print(before, find('Fraction') is sys.modules['fractions'].Fraction)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False True"


def test_another_name_is_none_of_the_package():
    with pytest.raises(AttributeError, match="module 'here' has no attribute 'Fractoin'"):
        lazy_names("here", {"Fraction": "fractions"})("Fractoin")
