"""Who may import whom, what importing loads, and the conventions that a program can check."""

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from helpers.paths import ROOT

FILES = sorted((ROOT / "stajax").rglob("*.py"))

# Parts of the package and the parts that they may import; the others may import all.
ALLOWED = {
  "data": {"data", "media", "grid", "companions", "files"},
  "media": {"media", "grid", "files"},
  "nets": {"nets", "grid", "companions"},
  "maps": {"maps", "grid", "companions"},
  "scoring": {"scoring", "grid", "companions", "eyetracking"},
  "report": {"report", "cli", "scoring", "maps", "media", "data", "grid", "companions", "eyetracking", "files"},
}

# Libraries, and the only places that import them. A place with `lazily` does so inside a function.
PLACES = {
  "tensorflow": ("data/", "prepare/", "train/logs.py lazily"),
  "tensorflow_datasets": ("data/", "prepare/"),
  "array_record": ("data/", "prepare/"),
  "simplejpeg": ("data/jpeg.py",),
  "librosa": ("media/", "report/plots.py lazily"),
  "av": ("media/", "prepare/"),
  "ai_edge_litert": ("prepare/yamnet.py lazily",),
  "requests": ("weights/fetch.py",),
  "orbax": ("train/checkpoint.py",),
  "optax": ("train/",),
  "flax": ("nets/", "train/", "weights/", "inference/dense.py", "model.py", "networks.py"),
}


def imports(path: Path) -> Iterator[tuple[str, bool]]:
  """Imported names and whether that happens when the file itself is imported."""
  tree = ast.parse(path.read_text())
  inside = {node for function in ast.walk(tree) if isinstance(function, ast.FunctionDef) for node in ast.walk(function)}
  for node in ast.walk(tree):
    if isinstance(node, ast.Import):
      yield from ((alias.name, node not in inside) for alias in node.names)
    elif isinstance(node, ast.ImportFrom):
      assert node.level == 0, f"{path}: relative import"
      for alias in node.names:
        yield f"{node.module}.{alias.name}", node not in inside


def name(path: Path) -> str:
  return path.relative_to(ROOT / "stajax").as_posix()


@pytest.mark.parametrize("part", ALLOWED)
def test_parts_import_only_what_they_may(part):
  for path in FILES:
    if name(path).startswith(f"{part}/"):
      ours = {module.split(".")[1] for module, _ in imports(path) if module.startswith("stajax.")}
      assert ours <= ALLOWED[part] | {"__version__"}, path


@pytest.mark.parametrize("library", PLACES)
def test_libraries_stay_in_their_places(library):
  for path in FILES:
    for module, at_once in imports(path):
      if module.split(".")[0] == library:
        places = [place for place in PLACES[library] if name(path).startswith(place.split()[0])]
        assert places and not (at_once and places[0].endswith("lazily")), f"{path} imports {module}"


def test_leaves_do_without_jax():
  leaves = ("data/", "media/", "prepare/", "maps/", "scoring/", "report/", "grid.py", "companions.py", "config.py")
  for path in FILES:
    if name(path).startswith(leaves):
      assert not [module for module, _ in imports(path) if module.split(".")[0] in ("jax", "flax", "optax")], path


def test_light_imports_load_no_training_libraries():
  """One child after the other: what evaluation's workers import, then prediction and the Python API."""
  code = """
import sys
def loaded(*modules): return [module for module in modules if module in sys.modules]
training = "tensorflow", "tensorflow_datasets", "array_record", "librosa", "orbax"
import stajax, stajax.cli, stajax.config, stajax.scoring.videos
print(loaded("jax", *training))
import stajax.predict.__main__, stajax.evaluate.__main__, stajax.inference.predictor
print(loaded(*training))
"""
  child = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
  assert child.stdout.split("\n")[:2] == ["[]", "[]"]


def test_files_stay_small():
  for path in [*FILES, *(ROOT / "tests").rglob("*.py")]:
    assert len(path.read_text().splitlines()) <= 400, path


def public(body: list[ast.stmt]) -> Iterator[ast.FunctionDef | ast.ClassDef]:
  for node in body:
    if isinstance(node, ast.FunctionDef | ast.ClassDef) and not node.name.startswith("_"):
      yield node


def test_public_names_have_docstrings():
  missing = []
  for path in FILES:
    tree = ast.parse(path.read_text())
    if tree.body and not ast.get_docstring(tree):
      missing.append(name(path))
    missing += [f"{name(path)}: {node.name}" for node in public(tree.body) if not ast.get_docstring(node)]
  assert not missing


def test_public_signatures_have_types():
  missing = []
  for path in FILES:
    tree = ast.parse(path.read_text())
    functions = [node for node in public(tree.body) if isinstance(node, ast.FunctionDef)]
    for class_ in public(tree.body):
      if isinstance(class_, ast.ClassDef):
        functions += [node for node in class_.body if isinstance(node, ast.FunctionDef)]
    for function in functions:
      a = function.args
      arguments = [*a.posonlyargs, *a.args, *a.kwonlyargs, *filter(None, (a.vararg, a.kwarg))]
      typed = all(argument.annotation or argument.arg in ("self", "cls") for argument in arguments)
      if not typed or (function.returns is None and function.name != "__init__"):
        missing.append(f"{name(path)}: {function.name}")
  assert not missing


def test_no_paths_of_one_machine():
  absolute = re.compile(r"(?<![\w.:/}])/(home|root|work|tmp|mnt|media|scratch|Users|opt|var|data)\b|\b[A-Z]:[\\/]\w")
  for path in [*FILES, *(ROOT / "configs").rglob("*.py")]:
    for number, line in enumerate(path.read_text().splitlines(), 1):
      assert not absolute.search(line), f"{path}:{number}: {line}"
