"""How Sphinx builds these pages.

Nothing is fetched from anywhere, unless NFVI_DOCS_LINKS is set: names of Python, PyTorch and the
like are then links into their own pages.
"""

from __future__ import annotations

import importlib.util
import os
import sys
from pathlib import Path

HERE = Path(__file__).parent
# The package of this checkout, installed or not, and the extension beside this file.
sys.path[:0] = [str(HERE.parent), str(HERE / "_ext")]

import nfvi  # noqa: E402

project = "nfvi"
author = "the nfvi authors"
copyright = author
release = version = nfvi.__version__

extensions = [
    "myst_nb",  # Markdown by myst-parser, and the notebooks of tutorials/
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "sphinx.ext.napoleon",
    "sphinx.ext.viewcode",
    "gallery",
    "generated_pages",
]
if importlib.util.find_spec("sphinx_copybutton"):
    extensions.append("sphinx_copybutton")
if os.environ.get("NFVI_DOCS_LINKS"):
    extensions.append("sphinx.ext.intersphinx")
intersphinx_mapping = {
    "arviz": ("https://python.arviz.org/en/stable", None),
    "matplotlib": ("https://matplotlib.org/stable", None),
    "numpy": ("https://numpy.org/doc/stable", None),
    "pandas": ("https://pandas.pydata.org/docs", None),
    "pyro": ("https://docs.pyro.ai/en/stable", None),
    "python": ("https://docs.python.org/3", None),
    "sklearn": ("https://scikit-learn.org/stable", None),
    "torch": ("https://docs.pytorch.org/docs/stable", None),
}
copybutton_prompt_text = ">>> |\\.\\.\\. |\\$ "
copybutton_prompt_is_regexp = True
exclude_patterns = ["_build", "_generated", "_tutorials"]
nitpicky = False

myst_enable_extensions = ["colon_fence", "deflist"]
myst_heading_anchors = 3
# Notebooks are shown as `make tutorials` left them.
nb_execution_mode = "off"
nb_merge_streams = True

autodoc_class_signature = "mixed"
autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_typehints_format = "short"
autosummary_generate = False
maximum_signature_line_length = 80
toc_object_entries_show_parents = "hide"
napoleon_numpy_docstring = False
# Attributes as fields, or those that are properties too would be described twice.
napoleon_use_ivar = True

html_theme = "furo"
html_title = f"nfvi {release}"
html_static_path = ["_static"]
html_css_files = ["wide.css"]
