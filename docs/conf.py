"""How Sphinx builds these pages. Nothing is fetched from anywhere."""

from __future__ import annotations

import importlib.metadata
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent / "_ext"))

project = "nfvi"
author = "the nfvi authors"
copyright = author
release = version = importlib.metadata.version("nfvi")

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
