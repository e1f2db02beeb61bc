"""How Sphinx builds these pages. Nothing is fetched from anywhere."""

from __future__ import annotations

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

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "generated_pages"]
exclude_patterns = ["_build", "_generated"]
nitpicky = False

myst_enable_extensions = ["colon_fence", "deflist"]
myst_heading_anchors = 3

autodoc_class_signature = "mixed"
autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_typehints_format = "short"
napoleon_numpy_docstring = False
# Attributes as fields, or those that are properties too would be described twice.
napoleon_use_ivar = True

html_theme = "furo"
html_title = f"nfvi {release}"
html_static_path = ["_static"]
