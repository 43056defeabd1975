"""The documentation's site: `sphinx-build -W -b html docs docs/_build/html`, which needs no network and no GPU."""

import os
import re

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
exclude_patterns = ["_build", "api/modules/modules.rst"]
html_theme = "sphinx_book_theme"
html_title = "stajax"
html_static_path = ["_static"]
html_css_files = ["stajax.css"]
html_theme_options = {
  "home_page_in_toc": True,
  "navbar_persistent": [],  # the search field is in the side bar
  "show_navbar_depth": 1,
  "max_navbar_depth": 1,  # a tree of all modules beside each of them would take most of the build
  "use_download_button": False,
}

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
    "automodule_options": {"members"},
  }
]
default_role = "literal"  # docstrings write code between single backquotes
autodoc_default_options = {"no-value": True}  # of constants
autodoc_mock_imports = ["starlette", "uvicorn"]  # of the extra `demo`
autodoc_member_order = "bysource"
autodoc_typehints = "both"
autodoc_typehints_description_target = "documented_params"  # otherwise fields of dataclasses would be listed twice
maximum_signature_line_length = 100
napoleon_numpy_docstring = False
napoleon_use_rtype = False
napoleon_use_ivar = True  # attributes that are described twice would be listed twice


def show_indented_blocks(app, what, name, obj, options, lines):  # the signature of an event of autodoc
  """Makes what is indented in the docstring of a module a literal block: examples, file trees, graphs."""
  if what != "module":
    return
  shown, inside = [], False
  for line in lines:
    if line.startswith("  ") and not inside:
      shown += ["", "::", ""]
      inside = True
    elif line and not line.startswith(" "):
      shown += [""] if inside and shown[-1] else []
      inside = False
    shown.append(line)
  lines[:] = shown


def escape_stars(app, what, name, obj, options, lines):
  """Escapes stars such as that of (n, *size), which would begin an emphasis; code between backquotes has none."""
  for number, line in enumerate(lines):
    parts = line.split("`")
    parts[::2] = [re.sub(r"(?<![\w*\\])\*+(?=\w)", lambda stars: r"\*" * len(stars[0]), part) for part in parts[::2]]
    lines[number] = "`".join(parts)


def shorten_factories(app, what, name, obj, options, signature, returns):
  """Writes defaults that are made anew as `...`: a signature with <factory> in it could not be laid out."""
  return signature and signature.replace("<factory>", "..."), returns


def setup(app):
  """Connects the changes above; Sphinx calls it."""
  app.connect("autodoc-process-docstring", show_indented_blocks, priority=400)  # before napoleon
  app.connect("autodoc-process-docstring", escape_stars, priority=600)  # after it
  app.connect("autodoc-process-signature", shorten_factories)
