"""Sphinx's settings for the site; build_site.py stages the pages that it reads."""

import os
import sys
from pathlib import Path

from pygments.lexers import TextLexer
from sphinx.application import Sphinx

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE), str(HERE.parents[1])]

import sparcl_lib

project = "SPARCL"
author = "the SPARCL authors"
copyright = "the SPARCL authors: code Apache-2.0, course text CC BY 4.0"
version = release = sparcl_lib.__version__
repository = os.environ.get("GITHUB_REPOSITORY", "")  # OWNER/NAME, set by the workflow

extensions = [
    "docstrings",  # ours
    "formulas",  # ours
    "myst_nb",
    "sphinx.ext.autodoc",
    "sphinx.ext.githubpages",
    "sphinx_copybutton",
    "sphinx_design",
]
language = "en"
smartquotes_action = "qe"  # two hyphens are those of an option, not a dash
exclude_patterns = ["_build"]
numfig = False

# Chapters are shown as they were saved.
nb_execution_mode = "off"
nb_ipywidgets_js: dict[str, dict[str, str]] = {}  # would come from a network
nb_mime_priority_overrides = [("*", "application/vnd.jupyter.widget-view+json", None)]
nb_merge_streams = True
nb_code_prompt_show = "Show the code"
nb_code_prompt_hide = "Hide the code"
nb_number_source_lines = False
myst_enable_extensions = ["amsmath", "colon_fence", "deflist", "dollarmath"]
myst_heading_anchors = 4
myst_dmath_double_inline = True
html_math_renderer = "mathml"

autodoc_typehints = "signature"
autodoc_typehints_format = "short"
autodoc_member_order = "bysource"
autodoc_preserve_defaults = True
python_use_unqualified_type_names = True
python_maximum_signature_line_length = 88
python_display_short_literal_types = True
add_module_names = False
copybutton_exclude = ".linenos, .gp, .go"

html_theme = "sphinx_book_theme"
html_title = "SPARCL"
html_static_path = ["static"]
html_css_files = ["site.css"]
html_copy_source = False
html_show_sourcelink = False
html_show_sphinx = False
html_last_updated_fmt = None
html_theme_options = {
    "navbar_persistent": [],
    "show_toc_level": 2,
    "show_navbar_depth": 1,
    "use_download_button": False,
    "use_fullscreen_button": False,
    "home_page_in_toc": True,
    "pygments_light_style": "a11y-high-contrast-light",
    "pygments_dark_style": "a11y-high-contrast-dark",
    **(
        {"repository_url": f"https://github.com/{repository}", "use_repository_button": True}
        if repository
        else {}
    ),
}


def setup(app: Sphinx) -> None:
    app.add_lexer("csv", TextLexer)  # Pygments has none, GitHub has
