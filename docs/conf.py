"""The documentation's site: `sphinx-build -W -b html docs docs/_build/html`, which needs no network and no GPU."""

import os

os.environ.setdefault("JAX_PLATFORMS", "cpu")

import stajax

project = "stajax"
author = "the stajax authors"
copyright = "the stajax authors, Apache-2.0"
release = version = stajax.__version__

extensions = [
  "myst_nb",
  "sphinx.ext.apidoc",
  "sphinx.ext.autodoc",
  "sphinx.ext.napoleon",
  "sphinx.ext.viewcode",
]
exclude_patterns = ["_build"]
html_theme = "sphinx_book_theme"
html_title = "stajax"
html_static_path = ["_static"]
html_css_files = ["stajax.css"]
html_theme_options = {"show_navbar_depth": 1, "home_page_in_toc": True, "use_download_button": False}

myst_enable_extensions = ["colon_fence", "deflist"]
myst_heading_anchors = 3
nb_execution_mode = "force"
nb_execution_raise_on_error = True
nb_execution_timeout = 120

# The API pages: one for each module, made of the docstrings.
apidoc_modules = [
  {
    "path": "../stajax",
    "destination": "api/modules",
    "exclude_patterns": ["**/__main__.py"],
    "separate_modules": True,
    "module_first": True,
    "automodule_options": {"members", "show-inheritance"},
  }
]
default_role = "literal"  # docstrings write code between single backquotes
autodoc_member_order = "bysource"
autodoc_typehints = "description"
napoleon_numpy_docstring = False
napoleon_use_ivar = True  # attributes that are described twice would be listed twice
